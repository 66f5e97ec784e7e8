/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * worker.c - xenlift-guest: serves the rings of one guest.  Started by
 * xenliftd, never by hand; see backend/worker-protocol.h for how, and
 * backend/worker.h for how it works.
 *
 * It gives up all privileges first and maps memory of the guest only then.
 */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "backend/worker.h"
#include "lib/clock.h"
#include "lib/isolation.h"
#include "lib/vlog.h"

/* Descriptors: one a socket, and two a port with hv/local.c. */
#define FILES_PER_SOCKET 4
#define FILES_EXTRA 512

static void
usage__(FILE *f)
{
    fputs("xenlift-guest: serves one guest's sockets and files; started by "
          "xenliftd\n"
          "usage: xenlift-guest --hv SPEC --domid N [OPTION]...\n"
          "  --user NAME        run as this user (default nobody)\n"
          "  --poll-us N        look for work up to N us before sleep "
          "(default 0)\n"
          "  --max-sockets N    sockets that the guest may have (default "
          "4096)\n"
          "  --max-pages N      pages mapped for their rings (default "
          "131072)\n"
          "  --max-linger N     bytes kept for closed sockets (default 4 "
          "MiB)\n"
          "  --msize N          longest 9P message (default 1 MiB)\n"
          "  --allow-loopback   the guest may reach our own 127/8\n",
          f);
}

/* Parses 's' as a number in 'min'..'max' or ends the program. */
static uint64_t
number__(const char *name, const char *s, uint64_t min, uint64_t max)
{
    char *end;
    unsigned long long n;

    errno = 0;
    n = strtoull(s, &end, 10);
    if (errno || end == s || *end || n < min || n > max) {
        fprintf(stderr, "xenlift-guest: --%s must be %llu to %llu\n", name,
                (unsigned long long) min, (unsigned long long) max);
        exit(2);
    }
    return n;
}

enum {
    OPT_HV = 256,
    OPT_DOMID,
    OPT_USER,
    OPT_POLL_US,
    OPT_MAX_SOCKETS,
    OPT_MAX_PAGES,
    OPT_MAX_LINGER,
    OPT_MSIZE,
    OPT_ALLOW_LOOPBACK,
    OPT_HELP,
};

static const struct option long_options[] = {
    {"hv", required_argument, NULL, OPT_HV},
    {"domid", required_argument, NULL, OPT_DOMID},
    {"user", required_argument, NULL, OPT_USER},
    {"poll-us", required_argument, NULL, OPT_POLL_US},
    {"max-sockets", required_argument, NULL, OPT_MAX_SOCKETS},
    {"max-pages", required_argument, NULL, OPT_MAX_PAGES},
    {"max-linger", required_argument, NULL, OPT_MAX_LINGER},
    {"msize", required_argument, NULL, OPT_MSIZE},
    {"allow-loopback", no_argument, NULL, OPT_ALLOW_LOOPBACK},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static void
parse_options__(struct worker *w, int argc, char *argv[])
{
    struct worker_options *o = &w->opt;
    bool have_domid = false;
    int c;

    o->user = "nobody";
    o->max_sockets = 4096;
    o->max_pages = 131072;
    o->max_linger = 4 * 1024 * 1024;
    o->msize_max = 1024 * 1024;
    while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (c) {
        case OPT_HV:
            o->hv_spec = optarg;
            break;
        case OPT_DOMID:
            w->domid = number__("domid", optarg, 0, HV_DOMID_INVALID - 5);
            have_domid = true;
            break;
        case OPT_USER:
            o->user = optarg;
            break;
        case OPT_POLL_US:
            o->poll_max_ns =
                number__("poll-us", optarg, 0, 1000000) * NSEC_PER_USEC;
            break;
        case OPT_MAX_SOCKETS:
            o->max_sockets = number__("max-sockets", optarg, 1, 1 << 20);
            break;
        case OPT_MAX_PAGES:
            o->max_pages = number__("max-pages", optarg, 3, 1 << 24);
            break;
        case OPT_MAX_LINGER:
            o->max_linger = number__("max-linger", optarg, 0, 1 << 30);
            break;
        case OPT_MSIZE:
            o->msize_max = number__("msize", optarg, 4096, 1 << 20);
            break;
        case OPT_ALLOW_LOOPBACK:
            o->allow_loopback = true;
            break;
        case OPT_HELP:
            usage__(stdout);
            exit(0);
        default:
            usage__(stderr);
            exit(2);
        }
    }
    if (!o->hv_spec || !have_domid || optind != argc) {
        usage__(stderr);
        exit(2);
    }
}

/* Raises the limit of open files as far as the sockets need and we may. */
static void
raise_files__(uint32_t max_sockets)
{
    rlim_t want = (rlim_t) max_sockets * FILES_PER_SOCKET + FILES_EXTRA;
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r)) {
        return;
    }
    if (r.rlim_max < want) {
        struct rlimit more = {.rlim_cur = want, .rlim_max = want};

        if (!setrlimit(RLIMIT_NOFILE, &more)) {
            return;
        }
    }
    r.rlim_cur = MIN(want, r.rlim_max);
    setrlimit(RLIMIT_NOFILE, &r);
}

/* The hypervisor is gone, which only hv/local.c's can be: without an end of
 * ours, every aborted test would leave workers behind. */
static void
hangup_cb__(uint32_t events UNUSED, void *w_)
{
    struct worker *w = w_;

    w->quit = true;
}

static int
start__(struct worker *w)
{
    static const int keep[] = {WP_FD_CONTROL, WP_FD_LISTEN, WP_FD_GRANT,
                               WP_FD_EVTCHN};
    int error;

    signal(SIGPIPE, SIG_IGN);
    raise_files__(w->opt.max_sockets);
    error = isolation_drop(w->opt.user, keep, ARRAY_SIZE(keep));
    if (error) {
        vlog_err("cannot drop privileges to user %s: %s", w->opt.user,
                 strerror(error));
        return error;
    }
    error = hv_adopt(w->opt.hv_spec, WP_FD_GRANT, WP_FD_EVTCHN, &w->hv);
    if (error) {
        vlog_err("cannot use %s: %s", w->opt.hv_spec, strerror(error));
        return error;
    }
    error = worker_core_init(w);
    if (!error) {
        error = worker_control_init(w, WP_FD_CONTROL, WP_FD_LISTEN);
    }
    if (error) {
        vlog_err("cannot start: %s", strerror(error));
        return error;
    }
    /* EPERM: a device that cannot hang up. */
    error = loop_add_fd(w->loop, WP_FD_GRANT, 0, hangup_cb__, w, &w->hangup);
    return error == EPERM ? 0 : error;
}

int
main(int argc, char *argv[])
{
    static struct worker w;

    vlog_init("xenlift-guest");
    parse_options__(&w, argc, argv);
    if (start__(&w)) {
        return EXIT_FAILURE;
    }
    worker_core_run(&w);
    vlog_info("dom%u: quits", w.domid);
    worker_control_destroy(&w);
    loop_del_fd(w.loop, w.hangup);
    worker_core_destroy(&w);
    hv_close(w.hv);
#ifdef __SANITIZE_ADDRESS__
    /* The leak check traces this process, which we forbade. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
#endif
    return EXIT_SUCCESS;
}
