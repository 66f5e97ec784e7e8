/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vafsd: serves the branches of one store over 9P2000.L.
 *
 * The main thread is the loop of the 9P server and of the control socket; what
 * blocks goes to the server's pool (vafs-server/ninep/session.h).  SIGTERM and
 * SIGINT end it with a last checkpoint. */

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "lib/ctl.h"
#include "lib/loop.h"
#include "lib/vlog.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/engine.h"
#include "vafs-server/fault.h"
#include "vafs-server/ninep/pool.h"
#include "vafs-server/ninep/server.h"
#include "vafs-server/store/file.h"

struct daemon {
    const char *store_dir;
    const char *run_dir;
    const char *listen;
    struct engine_options options;
    bool foreground;
    bool fault;
    struct loop *loop;
    struct ctl_server *ctl;
    struct engine engine;
};

static const char usage[] =
    "usage: vafsd [OPTION]... DIR\n"
    "Serve the files of the VAFS store in DIR over 9P2000.L.\n"
    "\n"
    "  --store DIR          the same as DIR ('vafs init DIR' makes a store)\n"
    "  --run-dir DIR        directory of the sockets vafsd.sock, guest.sock\n"
    "                       and vafsd.ctl (default /run/vafs)\n"
    "  --memory SIZE        limit for caches and buffers (default 256M)\n"
    "  --checkpoint-ms N    a changing branch becomes a version every N ms\n"
    "                       (default 5000)\n"
    "  --listen HOST:PORT   also serve TCP, without any authentication: only\n"
    "                       for networks where everybody is trusted\n"
    "  --read-only          change nothing\n"
    "  --foreground         do not detach (the default: vafsd never forks)\n"
    "  --fault              allow 'fault/set' on the control socket (tests)\n"
    "  --log-level LEVEL    off, err, warn, info (default) or dbg\n"
    "  --help, --version\n"
    "\n"
    "Example:\n"
    "  vafs init /var/lib/vafs && vafsd /var/lib/vafs\n";

/* Control socket. */

static void
ctl_stats(struct ctl_conn *conn, int argc UNUSED, const char *argv[] UNUSED,
          void *d_)
{
    struct daemon *d = d_;

    ctl_reply(conn, engine_stats_json(&d->engine));
}

static void
ctl_sessions(struct ctl_conn *conn, int argc UNUSED, const char *argv[] UNUSED,
             void *d_)
{
    struct daemon *d = d_;

    ctl_reply(conn, server_sessions_json(d->engine.server));
}

static void
ctl_shutdown(struct ctl_conn *conn, int argc UNUSED, const char *argv[] UNUSED,
             void *d_)
{
    struct daemon *d = d_;

    ctl_reply(conn, json_true());
    loop_stop(d->loop);
}

static void
ctl_fault(struct ctl_conn *conn, int argc, const char *argv[], void *d_)
{
    struct daemon *d = d_;
    int error;

    if (!d->fault) {
        ctl_reply_error(conn, EPERM, "vafsd was not started with --fault");
        return;
    }
    error = fault_set(d->options.files, argv[0], strtoul(argv[1], NULL, 10),
                      argc > 2 ? atoi(argv[2]) : EIO,
                      argc > 3 && !strcmp(argv[3], "sticky"));
    if (error) {
        ctl_reply_error(conn, error, "there is no operation \"%s\"", argv[0]);
    } else {
        ctl_reply(conn, json_true());
    }
}

/* A checkpoint or verification on the pool. */
struct task {
    struct pool_job job;
    struct daemon *d;
    struct ctl_conn *conn;
    struct loop_timer timer; /* Progress to the client. */
    int error;
    bool read_data;
    json_t *result;
    /* Atomics: written by the pool's thread, read by the loop's. */
    const char *phase;
    uint64_t done, total;
    /* The pool's thread until it is done, then the loop's. */
    json_t *messages;
};

#define MAX_MESSAGES 100
#define PROGRESS_MS 300

static void
task_progress_cb(void *task_)
{
    struct task *task = task_;
    const char *phase = __atomic_load_n(&task->phase, __ATOMIC_ACQUIRE);

    if (phase && !ctl_conn_is_closed(task->conn)) {
        ctl_progress(
            task->conn,
            json_pack(
                "{ss sI sI}", "phase", phase, "done",
                (json_int_t) __atomic_load_n(&task->done, __ATOMIC_RELAXED),
                "total",
                (json_int_t) __atomic_load_n(&task->total, __ATOMIC_RELAXED)));
    }
    loop_timer_set_ms(task->d->loop, &task->timer, PROGRESS_MS);
}

static void
task_done(struct pool_job *job)
{
    struct task *task = CONTAINER_OF(job, struct task, job);

    loop_timer_cancel(&task->timer);
    if (task->error) {
        ctl_reply_error(task->conn, task->error, "%s", strerror(task->error));
        json_decref(task->result);
    } else {
        if (task->result && task->messages) {
            json_object_set(task->result, "messages", task->messages);
        }
        ctl_reply(task->conn, task->result ? task->result : json_true());
    }
    json_decref(task->messages);
    free(task);
}

static void
task_start(struct daemon *d, struct ctl_conn *conn,
           void (*run)(struct pool_job *), bool read_data)
{
    struct task *task = calloc(1, sizeof *task);
    int error = task ? 0 : ENOMEM;

    if (task) {
        task->d = d;
        task->conn = conn;
        task->read_data = read_data;
        task->messages = json_array();
        task->job.run = run;
        task->job.done = task_done;
        list_init(&task->job.link);
        loop_timer_init(&task->timer, task_progress_cb, task);
        error = pool_submit(server_pool(d->engine.server), &task->job);
    }
    if (error) {
        ctl_reply_error(conn, error, "%s", strerror(error));
        if (task) {
            json_decref(task->messages);
        }
        free(task);
    } else {
        loop_timer_set_ms(d->loop, &task->timer, PROGRESS_MS);
    }
}

static void
run_checkpoint(struct pool_job *job)
{
    struct task *task = CONTAINER_OF(job, struct task, job);

    task->error = catalogue_checkpoint(task->d->engine.catalogue);
}

static void
ctl_checkpoint(struct ctl_conn *conn, int argc UNUSED,
               const char *argv[] UNUSED, void *d)
{
    task_start(d, conn, run_checkpoint, false);
}

static void
verify_report_cb(const char *message, void *task_)
{
    struct task *task = task_;

    if (json_array_size(task->messages) < MAX_MESSAGES) {
        json_array_append_new(task->messages, json_string(message));
    }
}

static void
verify_progress_cb(const char *phase, uint64_t done, uint64_t total,
                   void *task_)
{
    struct task *task = task_;

    __atomic_store_n(&task->done, done, __ATOMIC_RELAXED);
    __atomic_store_n(&task->total, total, __ATOMIC_RELAXED);
    __atomic_store_n(&task->phase, phase, __ATOMIC_RELEASE);
}

static void
run_verify(struct pool_job *job)
{
    struct task *task = CONTAINER_OF(job, struct task, job);
    struct engine_verify_cbs cbs = {verify_report_cb, verify_progress_cb,
                                    task};

    task->error =
        engine_verify(&task->d->engine, task->read_data, &cbs, &task->result);
}

static void
ctl_verify(struct ctl_conn *conn, int argc UNUSED, const char *argv[] UNUSED,
           void *d)
{
    task_start(d, conn, run_verify, true);
}

static int
register_ctl(struct daemon *d)
{
    static const struct {
        const char *name, *usage;
        int min, max;
        ctl_cb *cb;
    } methods[] = {
        {"stats", "", 0, 0, ctl_stats},
        {"sessions/show", "", 0, 0, ctl_sessions},
        {"checkpoint", "", 0, 0, ctl_checkpoint},
        {"verify", "", 0, 0, ctl_verify},
        {"shutdown", "", 0, 0, ctl_shutdown},
        {"fault/set", "OPERATION N [ERRNO [sticky]]", 2, 4, ctl_fault},
    };
    int error = ctl_register_standard(d->ctl);

    for (size_t i = 0; !error && i < ARRAY_SIZE(methods); i++) {
        error = ctl_register(d->ctl, methods[i].name, methods[i].usage,
                             methods[i].min, methods[i].max, methods[i].cb, d);
    }
    return error;
}

/* Start and end. */

static void
signal_cb(int signal, void *d_)
{
    struct daemon *d = d_;

    vlog_info("ending after %s", strsignal(signal));
    loop_stop(d->loop);
}

static int
listen_all(struct daemon *d)
{
    char path[PATH_MAX];
    int error = make_directories(d->run_dir, 0755);

    if (error) {
        vlog_err("%s: %s", d->run_dir, strerror(error));
        return error;
    }
    snprintf(path, sizeof path, "%s/vafsd.sock", d->run_dir);
    error = server_listen(d->engine.server, path, false, 0600);
    if (!error) {
        snprintf(path, sizeof path, "%s/guest.sock", d->run_dir);
        error = server_listen(d->engine.server, path, true, 0600);
    }
    if (!error) {
        /* Last: who finds it may connect to the others. */
        snprintf(path, sizeof path, "%s/vafsd.ctl", d->run_dir);
        error = ctl_server_create(d->loop, path, 0600, &d->ctl);
    }
    if (!error) {
        error = register_ctl(d);
    }
    if (error) {
        vlog_err("%s: %s", path, strerror(error));
    } else if (d->listen) {
        error = server_listen_tcp(d->engine.server, d->listen);
        if (error) {
            vlog_err("--listen %s: %s", d->listen, strerror(error));
        }
    }
    return error;
}

static void
unlink_all(struct daemon *d)
{
    static const char *const names[] = {"vafsd.sock", "guest.sock"};
    char path[PATH_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        snprintf(path, sizeof path, "%s/%s", d->run_dir, names[i]);
        unlink(path);
    }
}

static int
set_up_faults(struct daemon *d)
{
    struct file_layer *real;
    int error = file_layer_create(d->store_dir, false, &real);

    if (!error) {
        error = fault_layer_create(real, &d->options.files);
        if (error) {
            file_layer_destroy(real);
        }
    }
    return error;
}

/* A descriptor for each session. */
static void
raise_limits(void)
{
    struct rlimit rl;

    if (!getrlimit(RLIMIT_NOFILE, &rl)) {
        rl.rlim_cur = rl.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &rl)) {
            vlog_warn("cannot raise the limit of descriptors");
        }
    }
}

static int
run(struct daemon *d)
{
    static const int signals[] = {SIGTERM, SIGINT};
    const char *reason = "";
    int error, e;

    signal(SIGPIPE, SIG_IGN);
    raise_limits();
    error = loop_create(&d->loop);
    if (!error) {
        error = loop_add_signals(d->loop, signals, ARRAY_SIZE(signals),
                                 signal_cb, d);
    }
    if (!error && d->fault) {
        error = set_up_faults(d);
    }
    if (error) {
        vlog_err("cannot start: %s", strerror(error));
        loop_destroy(d->loop);
        return error;
    }
    error =
        engine_open(&d->engine, d->loop, d->store_dir, &d->options, &reason);
    if (error) {
        vlog_err("%s: %s", d->store_dir, reason);
    } else {
        error = listen_all(d);
        if (!error) {
            vlog_info("serving %s at %s", d->store_dir, d->run_dir);
            loop_run(d->loop);
            unlink_all(d);
        }
        e = engine_close(&d->engine);
        if (e) {
            vlog_err("the last checkpoint failed: %s", strerror(e));
        }
        error = error ? error : e;
    }
    ctl_server_destroy(d->ctl);
    file_layer_destroy(d->options.files);
    loop_destroy(d->loop);
    if (!error) {
        vlog_info("ended");
    }
    return error;
}

static void
bad_option(const char *message)
{
    fprintf(stderr, "vafsd: %s\nTry 'vafsd --help'.\n", message);
    exit(2);
}

static void
parse_options(struct daemon *d, int argc, char *argv[])
{
    enum {
        STORE = 256,
        RUN_DIR,
        MEMORY,
        CHECKPOINT,
        LISTEN,
        READ_ONLY,
        FOREGROUND,
        FAULT,
        LOG_LEVEL,
        HELP,
        VERSION
    };
    static const struct option options[] = {
        {"store", required_argument, NULL, STORE},
        {"run-dir", required_argument, NULL, RUN_DIR},
        {"memory", required_argument, NULL, MEMORY},
        {"checkpoint-ms", required_argument, NULL, CHECKPOINT},
        {"listen", required_argument, NULL, LISTEN},
        {"read-only", no_argument, NULL, READ_ONLY},
        {"foreground", no_argument, NULL, FOREGROUND},
        {"fault", no_argument, NULL, FAULT},
        {"log-level", required_argument, NULL, LOG_LEVEL},
        {"help", no_argument, NULL, HELP},
        {"version", no_argument, NULL, VERSION},
        {NULL, 0, NULL, 0},
    };
    int c;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case STORE:
            d->store_dir = optarg;
            break;
        case RUN_DIR:
            d->run_dir = optarg;
            break;
        case MEMORY:
            if (parse_size(optarg, &d->options.memory) ||
                d->options.memory < 32 << 20) {
                bad_option("--memory must be a size of at least 32M");
            }
            break;
        case CHECKPOINT:
            d->options.checkpoint_ms = strtoul(optarg, NULL, 10);
            break;
        case LISTEN:
            d->listen = optarg;
            break;
        case READ_ONLY:
            d->options.read_only = true;
            break;
        case FOREGROUND:
            d->foreground = true;
            break;
        case FAULT:
            d->fault = true;
            break;
        case LOG_LEVEL:
            if (vlog_set_level(optarg)) {
                bad_option("--log-level is off, err, warn, info or dbg");
            }
            break;
        case HELP:
            fputs(usage, stdout);
            exit(0);
        case VERSION:
            puts("vafsd (xenlift) 0.1");
            exit(0);
        default:
            bad_option("bad option");
        }
    }
    if (optind < argc && !d->store_dir) {
        d->store_dir = argv[optind++];
    }
    if (optind < argc) {
        bad_option("there is more than one argument");
    }
    if (!d->store_dir) {
        bad_option("which store?");
    }
}

int
main(int argc, char *argv[])
{
    struct daemon d = {.run_dir = "/run/vafs"};

    vlog_init("vafsd");
    parse_options(&d, argc, argv);
    return run(&d) ? 1 : 0;
}
