/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A worker for the supervisor's tests: speaks backend/worker-protocol.h and
 * really maps and binds, but serves nothing.  The first word of the page that
 * a guest grants tells it how to go wrong, as a guest that has taken its
 * worker over might.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/worker-protocol.h"
#include "hv/hv.h"
#include "tests/local/sup-worker.h"

enum { MAX_DEVICES = 8 };

struct device {
    struct wp_device_state state; /* h.type is 0 if there is none. */
    struct hv_grant *grant;
    uint32_t port;
    int fd;
};

static struct hv *hv;
static uint32_t domid;
static int control = WP_FD_CONTROL;
static bool ignores_quit;
static struct device devices[MAX_DEVICES];

static void
tell(const void *msg, size_t size)
{
    if (control >= 0 && send(control, msg, size, MSG_NOSIGNAL) < 0) {
        close(control);
        control = -1;
    }
}

static void
device_close(struct device *dev)
{
    hv_grant_release(dev->grant);
    dev->grant = NULL;
    if (dev->port) {
        hv_evtchn_unbind(hv, dev->port);
        dev->port = 0;
    }
    if (dev->fd >= 0) {
        close(dev->fd);
        dev->fd = -1;
    }
}

static void
tell_state(struct device *dev, enum wp_device_state_value state, int error,
           const char *reason)
{
    dev->state.state = state;
    dev->state.error = error;
    snprintf(dev->state.reason, sizeof dev->state.reason, "%s", reason);
    tell(&dev->state, sizeof dev->state);
}

/* Sends late news of a device with a descriptor, many times. */
static void
send_descriptors(struct device *dev)
{
    struct wp_device_state late = dev->state;
    struct iovec iov = {&late, sizeof late};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int))];
    } buf = {.align = {.cmsg_len = CMSG_LEN(sizeof(int)),
                       .cmsg_level = SOL_SOCKET,
                       .cmsg_type = SCM_RIGHTS}};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = buf.buf,
        .msg_controllen = sizeof buf.buf,
    };
    int fd = WP_FD_LISTEN;

    late.generation = 0;
    memcpy(CMSG_DATA(CMSG_FIRSTHDR(&msg)), &fd, sizeof fd);
    for (int i = 0; i < 20; i++) {
        if (sendmsg(control, &msg, MSG_NOSIGNAL) < 0) {
            return;
        }
    }
}

/* Sends random messages, some of which look like real ones. */
static void
send_garbage(struct device *dev)
{
    static uint32_t seed;
    union {
        struct wp_device_state state;
        uint32_t words[200];
    } msg;

    for (int i = 0; i < 400; i++) {
        size_t n;

        for (n = 0; n < sizeof msg.words / sizeof msg.words[0]; n++) {
            seed = seed * 1664525 + 1013904223;
            msg.words[n] = seed ^ seed >> 15;
        }
        n = sizeof msg.state + msg.words[190] % 300;
        if (i % 4) {
            msg.state.h.type = i % 4 == 3 ? WP_STATS_REPLY : WP_DEVICE_STATE;
            msg.state.kind = dev->state.kind;
            msg.state.devid = dev->state.devid;
            msg.state.generation = dev->state.generation - 1;
            msg.state.state %= 5;
        }
        tell(&msg, n);
    }
}

/* Does what the guest demands.  Returns false if the device is not to be
 * connected. */
static bool
obey(struct device *dev, uint32_t what)
{
    struct wp_hello_reply nonsense = {
        .h = {.type = WP_DEVICE_STATE},
    };

    switch (what) {
    case SUP_CRASH:
        abort();
    case SUP_FAIL:
        device_close(dev);
        tell_state(dev, WP_FAILED, EPROTO, "the guest asked\nfor it");
        return false;
    case SUP_NONSENSE:
        tell(&nonsense, sizeof nonsense);
        return false;
    case SUP_SILENT:
        return false;
    case SUP_DESCRIPTORS:
        send_descriptors(dev);
        return true;
    case SUP_GARBAGE:
        send_garbage(dev);
        return true;
    case SUP_IGNORE_QUIT:
        ignores_quit = true;
        return true;
    }
    return true;
}

static void
device_add(const struct wp_device_add *add, int fd)
{
    uint32_t ref =
        (add->kind == WP_KIND_9PFS ? add->geometry.p9.ring_ref[0]
                                   : add->geometry.pvcalls.ring_ref);
    uint32_t port = (add->kind == WP_KIND_9PFS ? add->geometry.p9.port[0]
                                               : add->geometry.pvcalls.port);
    struct device *dev = devices;
    void *mem;
    int error;

    while (dev->state.h.type && dev < devices + MAX_DEVICES - 1) {
        dev++;
    }
    memset(dev, 0, sizeof *dev);
    dev->fd = fd;
    dev->state.h.type = WP_DEVICE_STATE;
    dev->state.kind = add->kind;
    dev->state.devid = add->devid;
    dev->state.generation = add->generation;
    dev->state.geometry = add->geometry;
    error = hv_grant_map(hv, domid, &ref, 1, &dev->grant, &mem);
    error = error ? error
                  : hv_evtchn_bind_interdomain(hv, domid, port, &dev->port);
    if (error) {
        device_close(dev);
        tell_state(dev, WP_FAILED, error, "cannot map or bind");
    } else if (obey(dev, *(volatile uint32_t *) mem)) {
        tell_state(dev, WP_CONNECTED, 0, "");
    }
}

static void
device_remove(const struct wp_device_remove *msg)
{
    struct wp_device_state closed = {
        .h = {.type = WP_DEVICE_STATE},
        .kind = msg->kind,
        .devid = msg->devid,
        .generation = msg->generation,
        .state = WP_CLOSED,
    };

    for (struct device *dev = devices; dev < devices + MAX_DEVICES; dev++) {
        if (dev->state.h.type && dev->state.kind == msg->kind &&
            dev->state.devid == msg->devid) {
            device_close(dev);
            dev->state.h.type = 0;
        }
    }
    tell(&closed, sizeof closed);
}

static void
greet(void)
{
    struct wp_hello_reply reply = {
        .h = {.type = WP_HELLO_REPLY},
        .version = WP_VERSION,
        .domid = domid,
        .pid = 1, /* A lie: the supervisor must not believe it. */
    };

    for (size_t i = 0; i < MAX_DEVICES; i++) {
        reply.n_devices += devices[i].state.h.type != 0;
    }
    tell(&reply, sizeof reply);
    for (size_t i = 0; i < MAX_DEVICES; i++) {
        if (devices[i].state.h.type) {
            tell(&devices[i].state, sizeof devices[i].state);
        }
    }
}

static void
tell_stats(const struct wp_header *h)
{
    static const char json[] = "{\"sessions\":[]}";
    char buf[sizeof *h + sizeof json];
    struct wp_header *reply = (struct wp_header *) buf;

    reply->type = WP_STATS_REPLY;
    reply->seq = h->seq;
    memcpy(buf + sizeof *h, json, sizeof json);
    tell(buf, sizeof buf - 1);
}

static void
on_control(void)
{
    static union {
        struct wp_header h;
        struct wp_device_add add;
        struct wp_device_remove remove;
        char bytes[WP_MAX_PACKET];
    } in;
    struct iovec iov = {in.bytes, sizeof in.bytes};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(sizeof(int))];
    } buf;
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = buf.buf,
        .msg_controllen = sizeof buf.buf,
    };
    ssize_t n = recvmsg(control, &msg, MSG_CMSG_CLOEXEC);
    struct cmsghdr *cmsg;
    int fd = -1;

    if (n < (ssize_t) sizeof in.h) {
        close(control);
        control = -1;
        return;
    }
    cmsg = CMSG_FIRSTHDR(&msg);
    if (cmsg && cmsg->cmsg_type == SCM_RIGHTS) {
        memcpy(&fd, CMSG_DATA(cmsg), sizeof fd);
    }
    switch (in.h.type) {
    case WP_HELLO:
        greet();
        break;
    case WP_DEVICE_ADD:
        device_add(&in.add, fd);
        break;
    case WP_DEVICE_REMOVE:
        device_remove(&in.remove);
        break;
    case WP_STATS:
        tell_stats(&in.h);
        break;
    case WP_QUIT:
        if (!ignores_quit) {
            for (size_t i = 0; i < MAX_DEVICES; i++) {
                if (devices[i].state.h.type) {
                    device_close(&devices[i]);
                }
            }
            hv_close(hv);
            exit(0);
        }
    }
}

int
main(int argc, char *argv[])
{
    const char *spec = NULL;

    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--hv")) {
            spec = argv[i + 1];
        } else if (!strcmp(argv[i], "--domid")) {
            domid = atoi(argv[i + 1]);
        }
    }
    /* Nothing but what it was born with may be open. */
    if (!spec || fcntl(WP_FD_END, F_GETFD) != -1 ||
        hv_adopt(spec, WP_FD_GRANT, WP_FD_EVTCHN, &hv)) {
        return 1;
    }
    for (;;) {
        struct pollfd pfds[] = {
            {.fd = control, .events = POLLIN},
            {.fd = WP_FD_LISTEN, .events = POLLIN},
            {.fd = WP_FD_GRANT, .events = 0},
        };

        /* Without a broker the test is over, however it ended. */
        if (poll(pfds, 3, -1) < 0 || pfds[2].revents) {
            return 1;
        }
        if (pfds[1].revents) {
            if (control >= 0) {
                close(control);
            }
            control = accept(WP_FD_LISTEN, NULL, NULL);
        } else if (pfds[0].revents) {
            on_control();
        }
    }
}
