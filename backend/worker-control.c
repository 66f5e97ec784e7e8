/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * worker-control.c - the worker's end of the supervisor's protocol
 * (backend/worker-protocol.h), and the list of devices.
 *
 * A device that failed is destroyed at the end of the round, reported, and
 * kept as a tombstone (a `struct control_device` without a device) until the
 * supervisor removes it.  Without a supervisor, devices go on; one that adopts
 * us is told about all of them.
 */
#include "backend/worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/coverage.h"
#include "lib/vlog.h"

COVERAGE_DEFINE(worker_adopted);
COVERAGE_DEFINE(worker_device_added);
COVERAGE_DEFINE(worker_device_failed);
COVERAGE_DEFINE(worker_control_bad);

/* What the supervisor knows of. */
struct control_device {
    struct list link;          /* In w->devices. */
    struct worker_device *dev; /* NULL once failed. */
    uint32_t kind, devid, generation;
    union wp_geometry geometry;
    int error;
    char reason[WP_REASON_SIZE];
};

/* Devices. */

/* Initializes the common part of a device. */
void
worker_device_init(struct worker_device *dev, struct worker *w,
                   const struct worker_device_class *class)
{
    list_init(&dev->link);
    dev->worker = w;
    dev->class = class;
    dev->is_failed = false;
    dev->error = 0;
    dev->reason[0] = '\0';
}

/* Ends 'dev' for the reason given, at the end of this round.  The first call
 * counts. */
void
worker_device_fail(struct worker_device *dev, int error, const char *fmt, ...)
{
    va_list args;

    if (dev->is_failed) {
        return;
    }
    dev->is_failed = true;
    dev->error = error;
    va_start(args, fmt);
    vsnprintf(dev->reason, sizeof dev->reason, fmt, args);
    va_end(args);
    dev->worker->any_failed = true;
    COVERAGE_INC(worker_device_failed);
}

/* A guest can make its devices come and go as often as it likes. */
static struct vlog_rate_limit control_rl = VLOG_RATE_LIMIT_INIT(30, 30);

static const char *
control_kind_name__(uint32_t kind)
{
    return kind == WP_KIND_PVCALLS ? "pvcalls"
           : kind == WP_KIND_9PFS  ? "9pfs"
                                   : "?";
}

/* Sending. */

static void
control_drop__(struct worker *w)
{
    if (w->control_fd >= 0) {
        loop_del_fd(w->loop, w->control_handle);
        w->control_handle = NULL;
        close(w->control_fd);
        w->control_fd = -1;
    }
}

static void
control_send__(struct worker *w, const void *msg, size_t size)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(5, 5);

    if (w->control_fd < 0) {
        return;
    }
    if (send(w->control_fd, msg, size, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
        /* A supervisor that does not read loses its connection, not us: it
         * can connect again and is told everything then. */
        vlog_warn_rl(&rl, "dom%u: sending to the supervisor: %s", w->domid,
                     strerror(errno));
        control_drop__(w);
    }
}

static void
control_send_state__(struct worker *w, const struct control_device *cd,
                     enum wp_device_state_value state)
{
    struct wp_device_state msg;

    memset(&msg, 0, sizeof msg);
    msg.h.type = WP_DEVICE_STATE;
    msg.kind = cd->kind;
    msg.devid = cd->devid;
    msg.generation = cd->generation;
    msg.state = state;
    msg.geometry = cd->geometry;
    if (state == WP_FAILED) {
        msg.error = cd->error;
        memcpy(msg.reason, cd->reason, sizeof msg.reason);
    }
    control_send__(w, &msg, sizeof msg);
}

/* Destroys devices that failed and reports them. */
void
worker_control_reap(struct worker *w)
{
    struct control_device *cd;

    w->any_failed = false;
    LIST_FOR_EACH (cd, link, &w->devices) {
        struct worker_device *dev = cd->dev;

        if (!dev || !dev->is_failed) {
            continue;
        }
        if (w->control_fd < 0) {
            /* Otherwise the supervisor logs it, with what it does about
             * it. */
            vlog_warn_rl(&control_rl, "dom%u: %s %u: %s; device closed",
                         w->domid, control_kind_name__(cd->kind), cd->devid,
                         dev->reason);
        }
        cd->error = dev->error;
        memcpy(cd->reason, dev->reason, sizeof cd->reason);
        cd->dev = NULL;
        dev->class->destroy(dev);
        control_send_state__(w, cd, WP_FAILED);
    }
}

/* Requests. */

static struct control_device *
control_find__(struct worker *w, uint32_t kind, uint32_t devid)
{
    struct control_device *cd;

    LIST_FOR_EACH (cd, link, &w->devices) {
        if (cd->kind == kind && cd->devid == devid) {
            return cd;
        }
    }
    return NULL;
}

static void
control_hello__(struct worker *w, const void *buf, size_t size)
{
    const struct wp_hello *msg = buf;
    struct wp_hello_reply reply;
    struct control_device *cd;
    uint32_t n = 0;

    if (size < sizeof *msg || msg->version != WP_VERSION ||
        msg->domid != w->domid) {
        vlog_err("dom%u: the supervisor's hello is for another worker",
                 w->domid);
        w->quit = true;
        return;
    }
    memcpy(w->uuid, msg->uuid, sizeof w->uuid);
    memcpy(w->name, msg->name, sizeof w->name - 1);
    LIST_FOR_EACH (cd, link, &w->devices) {
        n++;
    }
    memset(&reply, 0, sizeof reply);
    reply.h.type = WP_HELLO_REPLY;
    reply.h.seq = msg->h.seq;
    reply.version = WP_VERSION;
    reply.domid = w->domid;
    reply.pid = getpid();
    reply.n_devices = n;
    control_send__(w, &reply, sizeof reply);
    LIST_FOR_EACH (cd, link, &w->devices) {
        control_send_state__(w, cd, cd->dev ? WP_CONNECTED : WP_FAILED);
    }
}

/* Creates what 'cd' describes.  Takes over 'fd', which is -1 if none came. */
static void
control_create__(struct worker *w, struct control_device *cd, int fd)
{
    if (cd->kind == WP_KIND_PVCALLS) {
        cd->error =
            pvcalls_create(w, &cd->geometry.pvcalls, &cd->dev, cd->reason);
    } else if (cd->kind == WP_KIND_9PFS && fd >= 0) {
        cd->error =
            p9dev_create(w, &cd->geometry.p9, fd, &cd->dev, cd->reason);
        fd = -1;
    } else {
        cd->error = EINVAL;
        snprintf(cd->reason, sizeof cd->reason, "%s",
                 cd->kind == WP_KIND_9PFS ? "no connection to vafsd came along"
                                          : "no such kind of device");
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void
control_device_add__(struct worker *w, const void *buf, size_t size, int fd)
{
    const struct wp_device_add *msg = buf;
    struct control_device *cd;

    if (size < sizeof *msg || !(cd = calloc(1, sizeof *cd))) {
        COVERAGE_INC(worker_control_bad);
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    list_init(&cd->link);
    cd->kind = msg->kind;
    cd->devid = msg->devid;
    cd->generation = msg->generation;
    cd->geometry = msg->geometry;
    if (control_find__(w, msg->kind, msg->devid)) {
        cd->error = EEXIST;
        snprintf(cd->reason, sizeof cd->reason, "the device exists already");
        control_send_state__(w, cd, WP_FAILED);
        free(cd);
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    control_create__(w, cd, fd);
    list_push_back(&w->devices, &cd->link);
    if (cd->dev) {
        COVERAGE_INC(worker_device_added);
        vlog_info_rl(&control_rl, "dom%u: %s %u: connected", w->domid,
                     control_kind_name__(cd->kind), cd->devid);
    }
    control_send_state__(w, cd, cd->dev ? WP_CONNECTED : WP_FAILED);
}

static void
control_forget__(struct control_device *cd)
{
    if (cd->dev) {
        cd->dev->class->destroy(cd->dev);
    }
    list_remove(&cd->link);
    free(cd);
}

static void
control_device_remove__(struct worker *w, const void *buf, size_t size)
{
    const struct wp_device_remove *msg = buf;
    struct control_device *cd;
    struct control_device answer;

    if (size < sizeof *msg) {
        COVERAGE_INC(worker_control_bad);
        return;
    }
    memset(&answer, 0, sizeof answer);
    answer.kind = msg->kind;
    answer.devid = msg->devid;
    answer.generation = msg->generation;
    cd = control_find__(w, msg->kind, msg->devid);
    if (cd) {
        answer.geometry = cd->geometry;
        vlog_info_rl(&control_rl, "dom%u: %s %u: removed", w->domid,
                     control_kind_name__(cd->kind), cd->devid);
        control_forget__(cd);
    }
    control_send_state__(w, &answer, WP_CLOSED);
}

/* Statistics. */

static void
control_coverage_cb__(const char *name, uint64_t n, void *object_)
{
    json_t *object = object_;
    json_t *old = json_object_get(object, name);

    if (n || old) {
        json_object_set_new(object, name,
                            json_integer(n + json_integer_value(old)));
    }
}

static json_t *
control_stats_json__(struct worker *w, uint32_t what, json_t **ret_list)
{
    json_t *root = json_object();
    json_t *list = json_array();
    struct control_device *cd;

    *ret_list = NULL;
    if (what == WP_STATS_COVERAGE) {
        json_decref(list);
        coverage_for_each(control_coverage_cb__, root);
        return root;
    }
    LIST_FOR_EACH (cd, link, &w->devices) {
        json_t *o;

        if (!cd->dev) {
            continue;
        }
        if (what == WP_STATS_RINGS) {
            o = json_pack("{s:s, s:I}", "kind", control_kind_name__(cd->kind),
                          "devid", (json_int_t) cd->devid);
            cd->dev->class->rings(cd->dev, o);
            json_array_append_new(list, o);
        } else {
            size_t first = json_array_size(list);

            cd->dev->class->sessions(cd->dev, list);
            for (size_t i = first; i < json_array_size(list); i++) {
                o = json_array_get(list, i);
                json_object_set_new(
                    o, "kind", json_string(control_kind_name__(cd->kind)));
                json_object_set_new(o, "devid", json_integer(cd->devid));
            }
        }
    }
    json_object_set_new(root, what == WP_STATS_RINGS ? "devices" : "sessions",
                        list);
    *ret_list = list;
    return root;
}

static void
control_stats__(struct worker *w, const void *buf, size_t size)
{
    const struct wp_stats *msg = buf;
    const size_t max = WP_MAX_PACKET - sizeof(struct wp_header);
    struct wp_stats_reply *reply;
    json_t *root, *list;
    size_t n;

    if (size < sizeof *msg) {
        COVERAGE_INC(worker_control_bad);
        return;
    }
    reply = malloc(WP_MAX_PACKET);
    if (!reply) {
        return;
    }
    root = control_stats_json__(w, msg->what, &list);
    /* Too long: drop elements from the end until it fits. */
    while ((n = json_dumpb(root, reply->json, max, JSON_COMPACT)) > max &&
           list && json_array_size(list)) {
        size_t have = json_array_size(list);
        size_t keep = MIN(have - 1, have * max / n);

        while (json_array_size(list) > keep) {
            json_array_remove(list, json_array_size(list) - 1);
        }
        json_object_set_new(root, "truncated", json_true());
    }
    reply->h.type = WP_STATS_REPLY;
    reply->h.seq = msg->h.seq;
    if (n && n <= max) {
        control_send__(w, reply, sizeof reply->h + n);
    }
    json_decref(root);
    free(reply);
}

/* Receiving. */

static void
control_dispatch__(struct worker *w, const void *buf, size_t size, int fd)
{
    const struct wp_header *h = buf;

    if (size < sizeof *h) {
        COVERAGE_INC(worker_control_bad);
    } else if (h->type == WP_DEVICE_ADD) {
        control_device_add__(w, buf, size, fd);
        return;
    } else if (h->type == WP_HELLO) {
        control_hello__(w, buf, size);
    } else if (h->type == WP_DEVICE_REMOVE) {
        control_device_remove__(w, buf, size);
    } else if (h->type == WP_STATS) {
        control_stats__(w, buf, size);
    } else if (h->type == WP_QUIT) {
        w->quit = true;
    } else if (h->type == WP_VLOG_SET) {
        const struct wp_vlog_set *msg = buf;

        if (size < sizeof *msg || !memchr(msg->spec, 0, sizeof msg->spec) ||
            vlog_set_level(msg->spec)) {
            COVERAGE_INC(worker_control_bad);
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void
control_cb__(uint32_t events UNUSED, void *w_)
{
    struct worker *w = w_;
    union {
        char bytes[4096]; /* More than any request of the supervisor. */
        uint64_t align;
    } buf;
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = buf.bytes, .iov_len = sizeof buf.bytes};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof control.bytes};
    struct cmsghdr *cmsg;
    int fd = -1;
    ssize_t n;

    n = recvmsg(w->control_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0) {
        vlog_info("dom%u: the supervisor is gone; going on without", w->domid);
        control_drop__(w);
        return;
    }
    cmsg = CMSG_FIRSTHDR(&msg);
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET &&
        cmsg->cmsg_type == SCM_RIGHTS &&
        cmsg->cmsg_len == CMSG_LEN(sizeof fd)) {
        memcpy(&fd, CMSG_DATA(cmsg), sizeof fd);
    }
    control_dispatch__(w, buf.bytes, n, fd);
}

static int
control_adopt__(struct worker *w, int fd)
{
    int error =
        loop_add_fd(w->loop, fd, EPOLLIN, control_cb__, w, &w->control_handle);

    if (error) {
        close(fd);
        return error;
    }
    w->control_fd = fd;
    return 0;
}

static void
control_listen_cb__(uint32_t events UNUSED, void *w_)
{
    struct worker *w = w_;
    int fd = accept4(w->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= 0) {
        COVERAGE_INC(worker_adopted);
        control_drop__(w);
        if (control_adopt__(w, fd)) {
            vlog_err("dom%u: cannot serve the new supervisor", w->domid);
        }
    }
}

/* Serves the supervisor at 'control_fd' and those who connect to 'listen_fd',
 * both of which 'w' owns from now on.  Returns 0 or a positive errno. */
int
worker_control_init(struct worker *w, int control_fd, int listen_fd)
{
    int error;

    w->listen_fd = listen_fd;
    w->control_fd = -1;
    /* The supervisor made it; that it does not block is up to us. */
    fcntl(listen_fd, F_SETFL, fcntl(listen_fd, F_GETFL) | O_NONBLOCK);
    error = control_adopt__(w, control_fd);
    if (error) {
        return error;
    }
    return loop_add_fd(w->loop, listen_fd, EPOLLIN, control_listen_cb__, w,
                       &w->listen_handle);
}

/* Destroys all devices and closes the connections. */
void
worker_control_destroy(struct worker *w)
{
    while (!list_is_empty(&w->devices)) {
        control_forget__(CONTAINER_OF(list_front(&w->devices),
                                      struct control_device, link));
    }
    control_drop__(w);
    if (w->listen_handle) {
        loop_del_fd(w->loop, w->listen_handle);
        w->listen_handle = NULL;
        close(w->listen_fd);
    }
}
