/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * xenliftd: the supervisor's options, start and end; see xenliftd(8) and
 * backend/supervisor.h.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "backend/supervisor.h"
#include "lib/vlog.h"

#define LIBEXEC_WORKER "/usr/libexec/xenlift/xenlift-guest"

/* Descriptors that a worker may need: two for each socket of its guest. */
#define WANTED_FILES (1 << 20)

static const char usage_text[] =
    "usage: xenliftd [OPTION]...\n"
    "Serves the pvcalls and 9pfs devices of guests; one worker each.\n"
    "\n"
    "  --hv=SPEC             \"xen\" (default) or \"local:DIR[@DOMID]\"\n"
    "  --run-dir=DIR         sockets; default /run/xenlift\n"
    "  --vafsd=SOCKET        default /run/vafs/guest.sock\n"
    "  --user=NAME           that workers run as; default nobody\n"
    "  --user-base=NUMBER    the worker of guest N runs as user NUMBER + N\n"
    "  --worker=FILE         default xenlift-guest beside this program,\n"
    "                        else " LIBEXEC_WORKER "\n"
    "  --worker-option=ARG   argument for each worker; may be repeated\n"
    "  --9pfs-type=TYPE      backend directories to serve files in: 9pfs\n"
    "                        (default), xen_9pfs, both or none\n"
    "  --no-pvcalls          do not serve sockets\n"
    "  --pvcalls-order=N     largest ring of a socket, 1..9; default 9\n"
    "  --9pfs-order=N        largest ring of files, 1..9; default 9\n"
    "  --log-level=LEVEL     off, err, warn, info (default) or dbg\n"
    "  --help                this text\n";

static void
on_signal(int signal, void *loop)
{
    vlog_info("signal %d: ending, workers go on", signal);
    loop_stop(loop);
}

/* Finds the worker beside this program, or where it is installed. */
static const char *
default_worker(void)
{
    static char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 32);

    if (n > 0) {
        path[n] = '\0';
        strcpy(strrchr(path, '/') + 1, "xenlift-guest");
        if (!access(path, X_OK)) {
            return path;
        }
    }
    return LIBEXEC_WORKER;
}

static void __attribute__((noreturn))
usage_error(const char *what, const char *value)
{
    fprintf(stderr, "xenliftd: %s \"%s\"; --help shows the options\n", what,
            value);
    exit(2);
}

static unsigned
parse_order(const char *value)
{
    uint64_t order = 0;

    if (hv_xs_parse_uint(value, 9, &order) || !order) {
        usage_error("not a ring order", value);
    }
    return order;
}

/* A range that begins above the users of an ordinary system. */
static unsigned
parse_user_base(const char *value)
{
    uint64_t base = 0;

    if (hv_xs_parse_uint(value, INT32_MAX - HV_DOMID_INVALID, &base) ||
        base < 1000) {
        usage_error("not a number of users from 1000 on", value);
    }
    return base;
}

static void
parse_9pfs_type(const char *value, struct supervisor_options *options)
{
    bool both = !strcmp(value, "both");

    options->serve_9pfs = both || !strcmp(value, "9pfs");
    options->serve_xen_9pfs = both || !strcmp(value, "xen_9pfs");
    if (!options->serve_9pfs && !options->serve_xen_9pfs &&
        strcmp(value, "none")) {
        usage_error("no such 9pfs type", value);
    }
}

enum option_code {
    OPT_HV = 256,
    OPT_RUN_DIR,
    OPT_VAFSD,
    OPT_USER,
    OPT_USER_BASE,
    OPT_WORKER,
    OPT_WORKER_OPTION,
    OPT_9PFS_TYPE,
    OPT_NO_PVCALLS,
    OPT_PVCALLS_ORDER,
    OPT_9PFS_ORDER,
    OPT_LOG_LEVEL,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"hv", required_argument, NULL, OPT_HV},
    {"run-dir", required_argument, NULL, OPT_RUN_DIR},
    {"vafsd", required_argument, NULL, OPT_VAFSD},
    {"user", required_argument, NULL, OPT_USER},
    {"user-base", required_argument, NULL, OPT_USER_BASE},
    {"worker", required_argument, NULL, OPT_WORKER},
    {"worker-option", required_argument, NULL, OPT_WORKER_OPTION},
    {"9pfs-type", required_argument, NULL, OPT_9PFS_TYPE},
    {"no-pvcalls", no_argument, NULL, OPT_NO_PVCALLS},
    {"pvcalls-order", required_argument, NULL, OPT_PVCALLS_ORDER},
    {"9pfs-order", required_argument, NULL, OPT_9PFS_ORDER},
    {"log-level", required_argument, NULL, OPT_LOG_LEVEL},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static void
parse_option(int code, struct supervisor_options *options)
{
    switch (code) {
    case OPT_HV:
        options->hv_spec = optarg;
        break;
    case OPT_RUN_DIR:
        options->run_dir = optarg;
        break;
    case OPT_VAFSD:
        options->vafsd = optarg;
        break;
    case OPT_USER:
        options->user = optarg;
        break;
    case OPT_USER_BASE:
        options->user_base = parse_user_base(optarg);
        break;
    case OPT_WORKER:
        options->worker_path = optarg;
        break;
    case OPT_WORKER_OPTION:
        if (options->n_worker_args >= ARRAY_SIZE(options->worker_args)) {
            usage_error("too many worker options, at", optarg);
        }
        options->worker_args[options->n_worker_args++] = optarg;
        break;
    case OPT_9PFS_TYPE:
        parse_9pfs_type(optarg, options);
        break;
    case OPT_NO_PVCALLS:
        options->serve_pvcalls = false;
        break;
    case OPT_PVCALLS_ORDER:
        options->pvcalls_page_order = parse_order(optarg);
        break;
    case OPT_9PFS_ORDER:
        options->p9_ring_order = parse_order(optarg);
        break;
    case OPT_LOG_LEVEL:
        if (vlog_set_level(optarg)) {
            usage_error("no such log level", optarg);
        }
        break;
    case OPT_HELP:
        fputs(usage_text, stdout);
        exit(0);
    default:
        exit(2); /* getopt_long() has said why. */
    }
}

static void
parse_options(int argc, char *argv[], struct supervisor_options *options)
{
    int code;

    while ((code = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        parse_option(code, options);
    }
    if (optind < argc) {
        usage_error("unexpected argument", argv[optind]);
    }
    if (strlen(options->run_dir) > 64) {
        usage_error("too long a name for --run-dir", options->run_dir);
    }
    if (!options->worker_path) {
        options->worker_path = default_worker();
    }
}

/* Raises the limit of open files for the workers' sake; they inherit it. */
static void
raise_limits(void)
{
    struct rlimit limit = {WANTED_FILES, WANTED_FILES};

    if (setrlimit(RLIMIT_NOFILE, &limit) &&
        !getrlimit(RLIMIT_NOFILE, &limit)) {
        limit.rlim_cur = limit.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &limit)) {
            vlog_warn("cannot raise the limit of open files: %s",
                      strerror(errno));
        }
    }
}

int
main(int argc, char *argv[])
{
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP};
    struct supervisor_options options = {
        .hv_spec = "xen",
        .run_dir = "/run/xenlift",
        .user = "nobody",
        .vafsd = "/run/vafs/guest.sock",
        .serve_pvcalls = true,
        .serve_9pfs = true,
        .pvcalls_page_order = 9,
        .p9_ring_order = 9,
    };
    struct supervisor *sup = NULL;
    struct loop *loop = NULL;
    char dir[128];
    bool is_broken;
    int error;

    vlog_init("xenliftd");
    parse_options(argc, argv, &options);
    raise_limits();
    signal(SIGPIPE, SIG_IGN);
    snprintf(dir, sizeof dir, "%s/guests", options.run_dir);
    error = make_directories(dir, 0700);
    if (error) {
        vlog_err("cannot create %s: %s", dir, strerror(error));
        return 1;
    }
    error = loop_create(&loop);
    error = error ? error
                  : loop_add_signals(loop, signals, ARRAY_SIZE(signals),
                                     on_signal, loop);
    if (error) {
        vlog_err("cannot start: %s", strerror(error));
        return 1;
    }
    error = supervisor_create(loop, &options, &sup);
    if (error) {
        loop_destroy(loop);
        return 1;
    }
    loop_run(loop);
    is_broken = sup->is_broken;
    supervisor_destroy(sup);
    loop_destroy(loop);
    return is_broken;
}
