/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Requests of hv/local.c and hv/local-store.c to the broker.
 */
#include "hv/local.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

static int
receive_reply(struct local_hv *hv, int conn, int fds[BP_MAX_FDS])
{
    struct iovec iov = {hv->in.bytes, sizeof hv->in.bytes};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(BP_MAX_FDS * sizeof(int))];
    } control;
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.buf,
        .msg_controllen = sizeof control.buf,
    };
    struct cmsghdr *cmsg;
    ssize_t n;

    do {
        n = recvmsg(conn, &msg, MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < (ssize_t) sizeof hv->in.reply) {
        return n < 0 ? errno : ECONNRESET;
    }
    cmsg = CMSG_FIRSTHDR(&msg);
    if (cmsg && cmsg->cmsg_level == SOL_SOCKET &&
        cmsg->cmsg_type == SCM_RIGHTS) {
        memcpy(fds, CMSG_DATA(cmsg), cmsg->cmsg_len - CMSG_LEN(0));
    }
    return hv->in.reply.error;
}

/* Sends the request whose numbers are in 'hv->out.rq' with 'path' and 'value'
 * behind it, and waits for the reply, which is left in 'hv->in.reply'.
 * Descriptors that come with it are stored in 'fds', which may be NULL where
 * none do. */
int
local_call_bytes(struct local_hv *hv, int conn, const void *path,
                 size_t path_size, const void *value, size_t value_size,
                 int fds[BP_MAX_FDS])
{
    int no_fds[BP_MAX_FDS];
    size_t size = sizeof hv->out.rq + path_size + value_size;
    ssize_t n;

    if (conn < 0) {
        return EBADF;
    }
    if (size > sizeof hv->out.bytes) {
        return E2BIG;
    }
    hv->out.rq.path_size = path_size;
    hv->out.rq.value_size = value_size;
    if (path_size) {
        memcpy(hv->out.rq.data, path, path_size);
    }
    if (value_size) {
        memcpy(hv->out.rq.data + path_size, value, value_size);
    }
    do {
        n = send(conn, hv->out.bytes, size, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno;
    }
    if (!fds) {
        fds = no_fds;
    }
    for (size_t i = 0; i < BP_MAX_FDS; i++) {
        fds[i] = -1;
    }
    return receive_reply(hv, conn, fds);
}

int
local_call(struct local_hv *hv, int conn, const char *path, const char *value,
           int fds[BP_MAX_FDS])
{
    return local_call_bytes(hv, conn, path, path ? strlen(path) + 1 : 0, value,
                            value ? strlen(value) + 1 : 0, fds);
}

void
local_prepare(struct local_hv *hv, enum bp_op op, uint32_t a, uint32_t b,
              uint32_t c)
{
    hv->out.rq = (struct bp_request){.op = op, .a = a, .b = b, .c = c};
}
