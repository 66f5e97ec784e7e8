/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The supervisor's dealings with workers: starting, adopting, talking to and
 * ending them.  The protocol is in backend/worker-protocol.h.
 *
 * Theory of operation
 * ===================
 *
 * A worker's end is noticed by its pidfd alone: whatever else goes wrong (a
 * message that cannot be sent, a connection that is closed, nonsense) makes
 * the supervisor kill it and wait for that.  So no function that a device
 * calls runs the devices, and there is one place, worker_ended(), where they
 * learn that the worker is gone.
 *
 * The process id of an adopted worker is the one that the kernel states for
 * the sender of its messages (SCM_CREDENTIALS); what it says itself might name
 * any process to be killed.
 */
#include "backend/supervisor.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/coverage.h"
#include "lib/vlog.h"

COVERAGE_DEFINE(sup_worker_started);
COVERAGE_DEFINE(sup_worker_adopted);
COVERAGE_DEFINE(sup_worker_died);
COVERAGE_DEFINE(sup_worker_quit);
COVERAGE_DEFINE(sup_worker_misbehaved);
COVERAGE_DEFINE(sup_worker_timeout);
COVERAGE_DEFINE(sup_worker_late_news);
COVERAGE_DEFINE(sup_worker_adopt_mismatch);

enum {
    HELLO_TIMEOUT_MS = 20000, /* Long: emulated machines are slow. */
    QUIT_TIMEOUT_MS = 3000,
    STATS_TIMEOUT_MS = 3000,
    MAX_DEVICES = 4096, /* Of one guest; more is nonsense. */
    /* Descriptors are moved here before they are given their numbers in the
     * new process, so that none overwrites another. */
    SPAWN_FD_MIN = 16,
};

/* A worker that lives shorter than this has crashed. */
#define CRASH_TIME (10 * NSEC_PER_SEC)
#define CRASH_WAIT_MIN (250 * NSEC_PER_MSEC)
#define CRASH_WAIT_MAX (30 * NSEC_PER_SEC)

struct stats_call {
    struct list link; /* In the guest's 'stats'. */
    struct guest *guest;
    uint32_t seq;
    worker_stats_cb *cb;
    void *aux;
    struct loop_timer timer;
};

extern char **environ;

/* For lines on what a guest can make happen again and again. */
static struct vlog_rate_limit life_rl = VLOG_RATE_LIMIT_INIT(120, 60);

static void worker_on_control(uint32_t events, void *guest);
static void worker_on_exit(uint32_t events, void *guest);

static void
socket_path(const struct supervisor *sup, uint16_t domid, char path[128])
{
    snprintf(path, 128, "%s/guests/%u.sock", sup->options->run_dir, domid);
}

/* ## Ending ## */

static void
stats_call_end(struct stats_call *call, json_t *json)
{
    loop_timer_cancel(&call->timer);
    list_remove(&call->link);
    call->cb(call->guest, json, call->aux);
    free(call);
}

static void
close_control(struct guest *guest)
{
    if (guest->control_handle) {
        loop_del_fd(guest->sup->loop, guest->control_handle);
        guest->control_handle = NULL;
    }
    if (guest->control >= 0) {
        close(guest->control);
        guest->control = -1;
    }
    while (!list_is_empty(&guest->stats)) {
        stats_call_end(
            CONTAINER_OF(list_front(&guest->stats), struct stats_call, link),
            NULL);
    }
}

void
worker_abandon(struct guest *guest)
{
    loop_timer_cancel(&guest->worker_timer);
    close_control(guest);
    if (guest->pidfd_handle) {
        loop_del_fd(guest->sup->loop, guest->pidfd_handle);
        guest->pidfd_handle = NULL;
    }
    if (guest->pidfd >= 0) {
        close(guest->pidfd);
        guest->pidfd = -1;
    }
    guest->worker = WORKER_NONE;
    guest->is_adopted = guest->is_child = false;
    guest->pid = 0;
    guest->n_to_sync = 0;
}

static void
note_crash(struct guest *guest)
{
    uint64_t now = clock_mono_ns();

    COVERAGE_INC(sup_worker_died);
    if (now - guest->started_at < CRASH_TIME) {
        uint64_t wait = CRASH_WAIT_MIN << MIN(guest->n_crashes, 10u);

        guest->n_crashes++;
        guest->start_not_before = now + MIN(wait, CRASH_WAIT_MAX);
    } else {
        guest->n_crashes = 0;
        guest->start_not_before = 0;
    }
}

/* The worker of 'guest' is no more.  May free 'guest'. */
static void
worker_ended(struct guest *guest)
{
    bool was_asked = guest->worker == WORKER_QUITTING;
    struct device *dev;
    char path[128];

    worker_abandon(guest);
    socket_path(guest->sup, guest->domid, path);
    unlink(path);
    if (was_asked) {
        COVERAGE_INC(sup_worker_quit);
    } else {
        note_crash(guest);
    }
    LIST_FOR_EACH (dev, link, &guest->devices) {
        if (dev->facts.link == XENBUS_LINK_UP ||
            dev->facts.link == XENBUS_LINK_ADDING) {
            device_set_error(dev, "worker has ended");
            dev->facts.link = XENBUS_LINK_FAILED;
        } else if (dev->facts.link == XENBUS_LINK_REMOVING) {
            dev->facts.link = XENBUS_LINK_NONE;
        }
    }
    guest_run(guest);
}

static void
kill_pidfd(struct guest *guest)
{
    if (guest->pidfd >= 0) {
        syscall(SYS_pidfd_send_signal, guest->pidfd, SIGKILL, NULL, 0);
    }
}

/* Has the worker killed because of 'why'.  worker_ended() follows. */
static void
worker_misbehaved(struct guest *guest, const char *why)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(60, 20);

    COVERAGE_INC(sup_worker_misbehaved);
    vlog_warn_rl(&rl, "d%u: worker %ld %s; killing it", guest->domid,
                 (long) guest->pid, why);
    close_control(guest);
    if (guest->pidfd >= 0) {
        kill_pidfd(guest);
    } else {
        /* Never said who it is: it cannot be killed, only left alone. */
        worker_ended(guest);
    }
}

static void
worker_on_timer(void *guest_)
{
    struct guest *guest = guest_;

    COVERAGE_INC(sup_worker_timeout);
    if (guest->worker == WORKER_QUITTING) {
        vlog_warn("d%u: worker %ld does not quit; killing it", guest->domid,
                  (long) guest->pid);
        close_control(guest);
        kill_pidfd(guest);
    } else {
        worker_misbehaved(guest, "does not answer");
    }
}

static void
worker_on_exit(uint32_t events UNUSED, void *guest_)
{
    struct guest *guest = guest_;
    siginfo_t info = {.si_pid = 0};

    if (!guest->is_child) {
        vlog_info_rl(&life_rl, "d%u: worker %ld has ended", guest->domid,
                     (long) guest->pid);
    } else if (!waitid(P_PIDFD, guest->pidfd, &info, WEXITED | WNOHANG) &&
               info.si_pid) {
        bool is_good = info.si_code == CLD_EXITED && !info.si_status &&
                       guest->worker == WORKER_QUITTING;

        if (is_good) {
            vlog_info_rl(&life_rl, "d%u: worker %ld has ended", guest->domid,
                         (long) guest->pid);
        } else {
            vlog_warn_rl(&life_rl, "d%u: worker %ld: %s %d", guest->domid,
                         (long) guest->pid,
                         info.si_code == CLD_EXITED ? "exit status"
                                                    : "ended by signal",
                         info.si_status);
        }
    } else if (errno != ECHILD) {
        return; /* Still alive. */
    }
    worker_ended(guest);
}

int
worker_kill(struct guest *guest)
{
    if (guest->pidfd < 0) {
        return ESRCH;
    }
    kill_pidfd(guest);
    return 0;
}

void
worker_quit(struct guest *guest)
{
    struct wp_header quit = {.type = WP_QUIT};

    if (guest->worker == WORKER_NONE || guest->worker == WORKER_QUITTING) {
        return;
    }
    guest->worker = WORKER_QUITTING;
    loop_timer_init(&guest->worker_timer, worker_on_timer, guest);
    if (send(guest->control, &quit, sizeof quit, MSG_NOSIGNAL | MSG_DONTWAIT) <
        0) {
        kill_pidfd(guest);
    }
    loop_timer_set_ms(guest->sup->loop, &guest->worker_timer, QUIT_TIMEOUT_MS);
}

/* ## Starting ## */

static int
send_hello(struct guest *guest)
{
    struct wp_hello hello = {
        .h = {.type = WP_HELLO},
        .version = WP_VERSION,
        .domid = guest->domid,
    };

    memcpy(hello.uuid, guest->uuid, sizeof hello.uuid);
    memcpy(hello.name, guest->name, sizeof hello.name);
    if (send(guest->control, &hello, sizeof hello,
             MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        return errno;
    }
    guest->worker = WORKER_STARTING;
    guest->started_at = clock_mono_ns();
    loop_timer_init(&guest->worker_timer, worker_on_timer, guest);
    loop_timer_set_ms(guest->sup->loop, &guest->worker_timer,
                      HELLO_TIMEOUT_MS);
    return 0;
}

/* Takes over 'control', whose other end is a worker's. */
static int
set_control(struct guest *guest, int control)
{
    int error;

    guest->control = control;
    error = loop_add_fd(guest->sup->loop, control, EPOLLIN, worker_on_control,
                        guest, &guest->control_handle);
    return error ? error : send_hello(guest);
}

static int
set_pid(struct guest *guest, pid_t pid)
{
    int pidfd = syscall(SYS_pidfd_open, pid, 0);
    int error;

    if (pidfd < 0) {
        return errno;
    }
    fcntl(pidfd, F_SETFD, FD_CLOEXEC);
    error = loop_add_fd(guest->sup->loop, pidfd, EPOLLIN, worker_on_exit,
                        guest, &guest->pidfd_handle);
    if (error) {
        close(pidfd);
        return error;
    }
    guest->pid = pid;
    guest->pidfd = pidfd;
    return 0;
}

/* The descriptors of a new worker, in the order of enum wp_fds, and what is
 * put on its standard input and output. */
struct spawn_fds {
    int at_birth[WP_FD_END - WP_FD_CONTROL];
    int null;
};

static int
spawn_exec(struct guest *guest, const struct spawn_fds *fds, pid_t *ret_pid)
{
    const struct supervisor_options *options = guest->sup->options;
    const char *argv[12 + ARRAY_SIZE(options->worker_args)];
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t none, all;
    char domid[8], user[16];
    size_t n = 0;
    int error;

    snprintf(domid, sizeof domid, "%u", guest->domid);
    argv[n++] = "xenlift-guest";
    argv[n++] = "--hv";
    argv[n++] = options->hv_spec;
    argv[n++] = "--domid";
    argv[n++] = domid;
    argv[n++] = "--user";
    snprintf(user, sizeof user, "%u", options->user_base + guest->domid);
    argv[n++] = options->user_base ? user : options->user;
    for (size_t i = 0; i < options->n_worker_args; i++) {
        argv[n++] = options->worker_args[i];
    }
    argv[n] = NULL;

    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    sigemptyset(&none);
    sigfillset(&all);
    error = posix_spawn_file_actions_adddup2(&actions, fds->null, 0);
    error = error ? error
                  : posix_spawn_file_actions_adddup2(&actions, fds->null, 1);
    for (size_t i = 0; !error && i < ARRAY_SIZE(fds->at_birth); i++) {
        error = posix_spawn_file_actions_adddup2(&actions, fds->at_birth[i],
                                                 WP_FD_CONTROL + i);
    }
    error =
        error ? error
              : posix_spawn_file_actions_addclosefrom_np(&actions, WP_FD_END);
    error = error ? error : posix_spawnattr_setsigmask(&attr, &none);
    error = error ? error : posix_spawnattr_setsigdefault(&attr, &all);
    error = error ? error
                  : posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK |
                                                        POSIX_SPAWN_SETSIGDEF |
                                                        POSIX_SPAWN_SETSID);
    error = error ? error
                  : posix_spawn(ret_pid, options->worker_path, &actions, &attr,
                                (char *const *) argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    return error;
}

/* Replaces '*fd' by a duplicate that is out of the way. */
static int
move_up(int *fd)
{
    int high = fcntl(*fd, F_DUPFD_CLOEXEC, SPAWN_FD_MIN);

    if (high < 0) {
        return errno;
    }
    close(*fd);
    *fd = high;
    return 0;
}

/* Opens what a new worker is born with; '*ret_control' is our end. */
static int
open_spawn_fds(struct guest *guest, struct spawn_fds *fds, int *ret_control)
{
    int *at_birth = fds->at_birth;
    char path[128];
    int pair[2];
    int error;

    socket_path(guest->sup, guest->domid, path);
    fds->null = open("/dev/null", O_RDWR | O_CLOEXEC);
    error = fds->null < 0 ? errno : 0;
    if (!error &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        error = errno;
    }
    if (!error) {
        *ret_control = pair[0];
        at_birth[0] = pair[1];
        error = unix_listen(path, SOCK_SEQPACKET, 0600, &at_birth[1]);
    }
    error = error ? error
                  : hv_open_worker_fds(guest->sup->hv, guest->domid,
                                       &at_birth[2], &at_birth[3]);
    for (size_t i = 0; !error && i < ARRAY_SIZE(fds->at_birth); i++) {
        error = move_up(&at_birth[i]);
    }
    return error ? error : move_up(&fds->null);
}

static void
close_spawn_fds(struct spawn_fds *fds)
{
    for (size_t i = 0; i < ARRAY_SIZE(fds->at_birth); i++) {
        if (fds->at_birth[i] >= 0) {
            close(fds->at_birth[i]);
        }
    }
    if (fds->null >= 0) {
        close(fds->null);
    }
}

static int
worker_start(struct guest *guest)
{
    struct spawn_fds fds = {.at_birth = {-1, -1, -1, -1}, .null = -1};
    int control = -1;
    char path[128];
    pid_t pid = 0;
    int error;

    BUILD_ASSERT(ARRAY_SIZE(fds.at_birth) == 4);
    error = open_spawn_fds(guest, &fds, &control);
    error = error ? error : spawn_exec(guest, &fds, &pid);
    close_spawn_fds(&fds);
    if (!error) {
        guest->is_child = true;
        error = set_pid(guest, pid);
        error = error ? error : set_control(guest, control);
        if (error) {
            kill(pid, SIGKILL);
            waitpid(pid, NULL, 0);
            if (guest->control == control) {
                control = -1; /* Closed by worker_abandon(). */
            }
            worker_abandon(guest);
        }
    }
    if (error) {
        if (control >= 0) {
            close(control);
        }
        socket_path(guest->sup, guest->domid, path);
        unlink(path);
        return error;
    }
    COVERAGE_INC(sup_worker_started);
    vlog_info_rl(&life_rl, "d%u: worker %ld started", guest->domid,
                 (long) pid);
    return 0;
}

int
worker_get(struct guest *guest)
{
    int error;

    switch (guest->worker) {
    case WORKER_READY:
        return 0;
    case WORKER_NONE:
        if (clock_mono_ns() < guest->start_not_before) {
            return EAGAIN;
        }
        error = worker_start(guest);
        return error == EAGAIN ? ENOMEM : error ? error : EAGAIN;
    default:
        return EAGAIN;
    }
}

/* ## Adopting ## */

static void
worker_adopt(struct supervisor *sup, uint16_t domid)
{
    struct guest *guest;
    char path[128];
    int fd = -1, on = 1;
    int error;

    socket_path(sup, domid, path);
    /* A worker that hangs may have its queue full; that must not hang us. */
    error = unix_connect(path, SOCK_SEQPACKET | SOCK_NONBLOCK, &fd);
    if (error) {
        vlog_info("d%u: no worker answers %s (%s)", domid, path,
                  strerror(error));
        unlink(path);
        return;
    }
    guest = supervisor_get_guest(sup, domid);
    if (!guest || setsockopt(fd, SOL_SOCKET, SO_PASSCRED, &on, sizeof on)) {
        close(fd);
        return;
    }
    guest->is_adopted = true;
    error = set_control(guest, fd);
    if (error) {
        vlog_warn("d%u: cannot adopt worker: %s", domid, strerror(error));
        worker_abandon(guest);
        guest_drop_if_idle(guest);
    }
}

void
worker_adopt_all(struct supervisor *sup)
{
    char path[128];
    struct dirent *entry;
    DIR *dir;

    snprintf(path, sizeof path, "%s/guests", sup->options->run_dir);
    dir = opendir(path);
    if (!dir) {
        return;
    }
    while ((entry = readdir(dir)) != NULL) {
        char *dot = strrchr(entry->d_name, '.');
        uint64_t domid;

        if (dot && !strcmp(dot, ".sock")) {
            *dot = '\0';
            if (!hv_xs_parse_uint(entry->d_name, HV_DOMID_INVALID - 1,
                                  &domid)) {
                worker_adopt(sup, domid);
            }
        }
    }
    closedir(dir);
}

static bool
same_geometry(const struct device *dev, const union wp_geometry *a,
              const union wp_geometry *b)
{
    if (dev->type->kind == WP_KIND_PVCALLS) {
        return (a->pvcalls.ring_ref == b->pvcalls.ring_ref &&
                a->pvcalls.port == b->pvcalls.port);
    }
    for (uint32_t i = 0; i < MIN(a->p9.n_rings, (uint32_t) WP_MAX_RINGS);
         i++) {
        if (a->p9.ring_ref[i] != b->p9.ring_ref[i] ||
            a->p9.port[i] != b->p9.port[i]) {
            return false;
        }
    }
    return a->p9.n_rings == b->p9.n_rings;
}

static void
send_remove(struct guest *guest, uint32_t kind, uint32_t devid,
            uint32_t generation)
{
    struct wp_device_remove msg = {
        .h = {.type = WP_DEVICE_REMOVE},
        .kind = kind,
        .devid = devid,
        .generation = generation,
    };

    if (send(guest->control, &msg, sizeof msg, MSG_NOSIGNAL | MSG_DONTWAIT) <
        0) {
        kill_pidfd(guest);
    }
}

/* Takes in one device that an adopted worker has. */
static void
sync_device(struct guest *guest, const struct wp_device_state *state)
{
    struct device *dev = guest_find_device(guest, state->kind, state->devid);
    union wp_geometry geometry;
    char why[WP_REASON_SIZE];

    guest->sup->last_generation =
        MAX(guest->sup->last_generation, state->generation);
    if (!dev) {
        COVERAGE_INC(sup_worker_adopt_mismatch);
        send_remove(guest, state->kind, state->devid, state->generation);
        return;
    }
    dev->generation = state->generation;
    dev->geometry = state->geometry;
    dev->geometry.p9.path[WP_PATH_SIZE - 1] = '\0';
    store_gather(dev);
    if (state->state == WP_CONNECTED &&
        !store_read_geometry(dev, &geometry, why, sizeof why) &&
        same_geometry(dev, &geometry, &state->geometry)) {
        dev->facts.link = XENBUS_LINK_UP;
        vlog_info("d%u %s/%u: adopted", guest->domid, dev->type->back,
                  dev->devid);
    } else {
        COVERAGE_INC(sup_worker_adopt_mismatch);
        dev->facts.link = XENBUS_LINK_FAILED;
    }
}

/* ## Messages ## */

static void
worker_is_ready(struct guest *guest)
{
    guest->worker = WORKER_READY;
    loop_timer_cancel(&guest->worker_timer);
    if (guest->is_adopted) {
        COVERAGE_INC(sup_worker_adopted);
        vlog_info("d%u: adopted worker %ld", guest->domid, (long) guest->pid);
    }
    guest_run(guest);
}

static void
handle_hello_reply(struct guest *guest, const struct wp_hello_reply *reply,
                   pid_t sender)
{
    int error;

    if (guest->worker != WORKER_STARTING || reply->version != WP_VERSION ||
        reply->domid != guest->domid || reply->n_devices > MAX_DEVICES) {
        worker_misbehaved(guest, "greets wrongly");
        return;
    }
    if (guest->is_adopted) {
        error = sender > 0 ? set_pid(guest, sender) : ESRCH;
        if (error) {
            vlog_warn("d%u: cannot watch adopted worker %ld: %s", guest->domid,
                      (long) sender, strerror(error));
            worker_ended(guest);
            return;
        }
    }
    guest->n_to_sync = reply->n_devices;
    if (guest->n_to_sync) {
        guest->worker = WORKER_SYNCING;
    } else {
        worker_is_ready(guest);
    }
}

/* Cuts and cleans a sentence that a worker sent. */
static void
clean_reason(const char in[WP_REASON_SIZE], char out[WP_REASON_SIZE])
{
    size_t i;

    for (i = 0; i < WP_REASON_SIZE - 1 && in[i]; i++) {
        out[i] = in[i] >= 0x20 && in[i] < 0x7f ? in[i] : '?';
    }
    out[i] = '\0';
}

static void
handle_device_state(struct guest *guest, const struct wp_device_state *state)
{
    struct device *dev = guest_find_device(guest, state->kind, state->devid);
    enum xenbus_link link = dev ? dev->facts.link : XENBUS_LINK_NONE;
    char reason[WP_REASON_SIZE];

    if (!dev || dev->generation != state->generation) {
        COVERAGE_INC(sup_worker_late_news);
        return;
    }
    if (state->state == WP_CONNECTED && link == XENBUS_LINK_ADDING) {
        device_set_link(dev, XENBUS_LINK_UP);
    } else if (state->state == WP_CLOSED && link == XENBUS_LINK_REMOVING) {
        device_set_link(dev, XENBUS_LINK_NONE);
    } else if (state->state == WP_FAILED &&
               (link == XENBUS_LINK_ADDING || link == XENBUS_LINK_UP)) {
        clean_reason(state->reason, reason);
        device_set_error(dev, "%s (%s)", reason, strerror(state->error));
        device_set_link(dev, XENBUS_LINK_FAILED);
    } else {
        COVERAGE_INC(sup_worker_late_news);
    }
}

static void
handle_stats_reply(struct guest *guest, const struct wp_stats_reply *reply,
                   size_t size)
{
    struct stats_call *call;

    LIST_FOR_EACH (call, link, &guest->stats) {
        if (call->seq == reply->h.seq) {
            json_t *json =
                json_loadb(reply->json, size - sizeof *reply, 0, NULL);

            stats_call_end(call, json);
            return;
        }
    }
    COVERAGE_INC(sup_worker_late_news);
}

static void
handle_message(struct guest *guest, const struct wp_header *h, size_t size,
               pid_t sender)
{
    const struct wp_device_state *state;

    switch (h->type) {
    case WP_HELLO_REPLY:
        if (size >= sizeof(struct wp_hello_reply)) {
            handle_hello_reply(guest, (const struct wp_hello_reply *) h,
                               sender);
            return;
        }
        break;
    case WP_DEVICE_STATE:
        state = (const struct wp_device_state *) h;
        if (size >= sizeof *state && guest->worker == WORKER_SYNCING) {
            sync_device(guest, state);
            if (!--guest->n_to_sync) {
                worker_is_ready(guest);
            }
            return;
        } else if (size >= sizeof *state) {
            handle_device_state(guest, state);
            return;
        }
        break;
    case WP_STATS_REPLY:
        if (size >= sizeof(struct wp_stats_reply)) {
            handle_stats_reply(guest, (const struct wp_stats_reply *) h, size);
            return;
        }
        break;
    default:
        return; /* Of a later version. */
    }
    worker_misbehaved(guest, "sends a message that is too short");
}

/* Returns who sent 'msg' as the kernel says, 0 if it does not, and closes
 * descriptors that came along: no worker has any to give, and one that was
 * taken over must not fill our table with them. */
static pid_t
take_ancillary(struct msghdr *msg)
{
    struct cmsghdr *cmsg;
    pid_t sender = 0;

    for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        const unsigned char *data = CMSG_DATA(cmsg);
        struct ucred cred;

        if (cmsg->cmsg_level != SOL_SOCKET) {
            continue;
        }
        if (cmsg->cmsg_type == SCM_CREDENTIALS) {
            memcpy(&cred, data, sizeof cred);
            sender = cred.pid;
        } else if (cmsg->cmsg_type == SCM_RIGHTS) {
            size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

            COVERAGE_INC(sup_worker_misbehaved);
            for (size_t i = 0; i < n; i++) {
                int fd;

                memcpy(&fd, data + i * sizeof fd, sizeof fd);
                close(fd);
            }
        }
    }
    return sender;
}

/* Takes one message: a second may find 'guest' freed by the first, so the
 * loop has to come again for it. */
static void
worker_on_control(uint32_t events UNUSED, void *guest_)
{
    static union {
        struct wp_header h;
        char bytes[WP_MAX_PACKET];
    } in;
    struct guest *guest = guest_;
    struct iovec iov = {in.bytes, sizeof in.bytes};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(struct ucred))];
    } control;
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof control.buf,
    };
    pid_t sender;
    ssize_t n;

    n = recvmsg(guest->control, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        struct pollfd pfd = {.fd = guest->pidfd, .events = POLLIN};

        if (guest->worker == WORKER_QUITTING ||
            (guest->pidfd >= 0 && poll(&pfd, 1, 100) == 1)) {
            close_control(guest); /* The exit follows, or the timer. */
        } else {
            worker_misbehaved(guest, "has hung up");
        }
        return;
    }
    sender = take_ancillary(&msg);
    if ((size_t) n < sizeof in.h || msg.msg_flags & MSG_TRUNC) {
        worker_misbehaved(guest, "sends a packet of a wrong size");
    } else {
        handle_message(guest, &in.h, n, sender);
    }
}

/* ## Requests ## */

int
worker_add_device(struct device *dev, int fd)
{
    struct wp_device_add add = {
        .h = {.type = WP_DEVICE_ADD},
        .kind = dev->type->kind,
        .devid = dev->devid,
        .generation = dev->generation,
        .geometry = dev->geometry,
    };
    struct iovec iov = {&add, sizeof add};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof fd)];
    } control;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        struct cmsghdr *cmsg;

        memset(&control, 0, sizeof control);
        msg.msg_control = control.buf;
        msg.msg_controllen = sizeof control.buf;
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
    }
    return (sendmsg(dev->guest->control, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0
                ? errno
                : 0);
}

bool
worker_remove_device(struct device *dev)
{
    if (dev->guest->worker != WORKER_READY) {
        return false;
    }
    send_remove(dev->guest, dev->type->kind, dev->devid, dev->generation);
    return true;
}

int
worker_set_log_level(struct guest *guest, const char *level)
{
    struct wp_vlog_set msg = {.h = {.type = WP_VLOG_SET}};

    if (guest->worker != WORKER_READY) {
        return ESRCH;
    }
    snprintf(msg.spec, sizeof msg.spec, "%s", level);
    return (
        send(guest->control, &msg, sizeof msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0
            ? errno
            : 0);
}

static void
stats_on_timer(void *call)
{
    COVERAGE_INC(sup_worker_timeout);
    stats_call_end(call, NULL);
}

int
worker_ask(struct guest *guest, enum wp_stats_what what, worker_stats_cb *cb,
           void *aux)
{
    struct wp_stats msg = {
        .h = {.type = WP_STATS, .seq = ++guest->sup->last_seq},
        .what = what,
    };
    struct stats_call *call;

    if (guest->worker != WORKER_READY) {
        return EAGAIN;
    }
    call = calloc(1, sizeof *call);
    if (!call) {
        return ENOMEM;
    }
    if (send(guest->control, &msg, sizeof msg, MSG_NOSIGNAL | MSG_DONTWAIT) <
        0) {
        free(call);
        return errno;
    }
    call->guest = guest;
    call->seq = msg.h.seq;
    call->cb = cb;
    call->aux = aux;
    list_push_back(&guest->stats, &call->link);
    loop_timer_init(&call->timer, stats_on_timer, call);
    loop_timer_set_ms(guest->sup->loop, &call->timer, STATS_TIMEOUT_MS);
    return 0;
}
