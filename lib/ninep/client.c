/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection under a 9P2000.L client: tags, buffers, answers (client.h).
 *
 * Requests are encoded into 'out', which is written when it is full, when an
 * answer is waited for, or on ninep_client_push().  Answers are read into
 * 'in'.  One that was not waited for yet is copied to its tag's slot, so that
 * answers may come in any order.  To avoid the deadlock of two sides that both
 * only write, writing polls for reading too. */

#include "lib/ninep/client.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/util.h"

enum slot_state {
    SLOT_FREE,
    SLOT_SENT,    /* No answer yet. */
    SLOT_ANSWERED /* 'reply' holds it. */
};

struct slot {
    enum slot_state state;
    uint8_t type; /* Of the request. */
    uint8_t *reply;
    size_t size, capacity; /* Of 'reply'. */
};

struct ninep_client {
    int fd;
    int error; /* The connection is dead, for this reason. */
    uint32_t msize;
    uint8_t *in, *out;
    size_t in_capacity, in_start, in_end;
    size_t out_capacity, out_size;
    /* Tags 0 to MAX_PENDING - 1; the one after them is NINEP_NOTAG's. */
    struct slot slots[NINEP_CLIENT_MAX_PENDING + 1];
    uint32_t next_fid;
    uint32_t *free_fids;
    size_t n_free_fids, free_fids_capacity;
};

#define VERSION_SLOT NINEP_CLIENT_MAX_PENDING
#define FIRST_MSIZE 8192

static int
set_buffers(struct ninep_client *c, uint32_t msize)
{
    /* Twice, so that a message can be there whole behind a partly used
     * one without moving bytes for each message. */
    size_t in_capacity = 2 * (size_t) msize;
    size_t out_capacity = msize + 65536;
    uint8_t *in, *out;

    in = realloc(c->in, in_capacity);
    if (!in) {
        return ENOMEM;
    }
    c->in = in;
    c->in_capacity = in_capacity;
    out = realloc(c->out, out_capacity);
    if (!out) {
        return ENOMEM;
    }
    c->out = out;
    c->out_capacity = out_capacity;
    c->msize = msize;
    return 0;
}

int
ninep_client_from_fd(int fd, struct ninep_client **ret)
{
    struct ninep_client *c = calloc(1, sizeof *c);
    int flags;

    if (!c) {
        close(fd);
        return ENOMEM;
    }
    c->fd = fd;
    flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK)) {
        int error = errno;

        ninep_client_close(c);
        return error;
    }
    if (set_buffers(c, FIRST_MSIZE)) {
        ninep_client_close(c);
        return ENOMEM;
    }
    *ret = c;
    return 0;
}

static int
connect_tcp(const char *host_port, int *ret_fd)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    char host[256];
    const char *colon = strrchr(host_port, ':');
    struct addrinfo *list;
    int error = EINVAL;
    int one = 1;

    if (!colon || (size_t) (colon - host_port) >= sizeof host) {
        return EINVAL;
    }
    memcpy(host, host_port, colon - host_port);
    host[colon - host_port] = '\0';
    if (getaddrinfo(host, colon + 1, &hints, &list)) {
        return EHOSTUNREACH;
    }
    for (struct addrinfo *ai = list; ai; ai = ai->ai_next) {
        int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0) {
            error = errno;
            continue;
        }
        if (!connect(fd, ai->ai_addr, ai->ai_addrlen)) {
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            *ret_fd = fd;
            error = 0;
            break;
        }
        error = errno;
        close(fd);
    }
    freeaddrinfo(list);
    return error;
}

int
ninep_client_connect(const char *address, struct ninep_client **ret)
{
    int fd = -1;
    int error;

    if (!strncmp(address, "unix:", 5)) {
        error = unix_connect(address + 5, SOCK_STREAM, &fd);
    } else if (!strncmp(address, "tcp:", 4)) {
        error = connect_tcp(address + 4, &fd);
    } else if (strchr(address, '/')) {
        error = unix_connect(address, SOCK_STREAM, &fd);
    } else {
        error = EINVAL;
    }
    return error ? error : ninep_client_from_fd(fd, ret);
}

void
ninep_client_close(struct ninep_client *c)
{
    if (!c) {
        return;
    }
    close(c->fd);
    for (size_t i = 0; i < ARRAY_SIZE(c->slots); i++) {
        free(c->slots[i].reply);
    }
    free(c->in);
    free(c->out);
    free(c->free_fids);
    free(c);
}

int
ninep_client_fd(const struct ninep_client *c)
{
    return c->fd;
}

uint32_t
ninep_client_msize(const struct ninep_client *c)
{
    return c->msize;
}

uint32_t
ninep_client_new_fid(struct ninep_client *c)
{
    if (c->n_free_fids) {
        return c->free_fids[--c->n_free_fids];
    }
    /* Far from the small numbers that callers choose themselves. */
    return 0x10000 + c->next_fid++;
}

void
ninep_client_free_fid(struct ninep_client *c, uint32_t fid)
{
    if (c->n_free_fids == c->free_fids_capacity) {
        size_t capacity = c->free_fids_capacity * 2 + 16;
        uint32_t *p = realloc(c->free_fids, capacity * sizeof *p);

        if (!p) {
            return; /* Then the number is not used again. */
        }
        c->free_fids = p;
        c->free_fids_capacity = capacity;
    }
    c->free_fids[c->n_free_fids++] = fid;
}

static struct slot *
find_slot(struct ninep_client *c, uint16_t tag)
{
    if (tag == NINEP_NOTAG) {
        return &c->slots[VERSION_SLOT];
    }
    return tag < NINEP_CLIENT_MAX_PENDING ? &c->slots[tag] : NULL;
}

static int
die(struct ninep_client *c, int error)
{
    if (!c->error) {
        c->error = error;
    }
    return c->error;
}

/* Puts the whole message at 'buf' into its slot. */
static int
keep_reply(struct ninep_client *c, const uint8_t *buf, size_t size)
{
    struct slot *slot = find_slot(c, ninep_peek_tag(buf));

    if (!slot || slot->state != SLOT_SENT) {
        return die(c, EBADMSG);
    }
    if (size > slot->capacity) {
        uint8_t *p = realloc(slot->reply, size);

        if (!p) {
            return die(c, ENOMEM);
        }
        slot->reply = p;
        slot->capacity = size;
    }
    memcpy(slot->reply, buf, size);
    slot->size = size;
    slot->state = SLOT_ANSWERED;
    return 0;
}

/* The size of the first whole message in 'in', 0 if there is none. */
static int
first_message(struct ninep_client *c, size_t *ret_size)
{
    size_t n = c->in_end - c->in_start;
    uint32_t size;

    *ret_size = 0;
    if (n < NINEP_HEADER_SIZE) {
        return 0;
    }
    size = ninep_peek_size(c->in + c->in_start);
    if (size < NINEP_HEADER_SIZE || size > c->msize) {
        return die(c, EBADMSG);
    }
    if (n >= size) {
        *ret_size = size;
    }
    return 0;
}

/* Keeps all whole messages that are in 'in'. */
static int
keep_all(struct ninep_client *c)
{
    for (;;) {
        size_t size;
        int error = first_message(c, &size);

        if (error || !size) {
            return error;
        }
        error = keep_reply(c, c->in + c->in_start, size);
        if (error) {
            return error;
        }
        c->in_start += size;
    }
}

/* Receives what is there.  EAGAIN if there is nothing. */
static int
receive(struct ninep_client *c)
{
    ssize_t n;

    if (c->in_start == c->in_end) {
        c->in_start = c->in_end = 0;
    } else if (c->in_capacity - c->in_start < c->msize) {
        memmove(c->in, c->in + c->in_start, c->in_end - c->in_start);
        c->in_end -= c->in_start;
        c->in_start = 0;
    }
    do {
        n = recv(c->fd, c->in + c->in_end, c->in_capacity - c->in_end, 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        c->in_end += n;
        return 0;
    }
    if (n < 0 && errno == EAGAIN) {
        return EAGAIN;
    }
    return die(c, n ? errno : ECONNRESET);
}

static int
wait_fd(struct ninep_client *c, short events, int timeout_ms)
{
    struct pollfd pfd = {.fd = c->fd, .events = events};
    int n;

    do {
        n = poll(&pfd, 1, timeout_ms);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? die(c, errno) : n ? 0 : ETIMEDOUT;
}

static int
write_out(struct ninep_client *c, const uint8_t *p, size_t size)
{
    while (size) {
        ssize_t n = send(c->fd, p, size, MSG_NOSIGNAL);

        if (n >= 0) {
            p += n;
            size -= n;
        } else if (errno == EAGAIN) {
            int error = wait_fd(c, POLLIN | POLLOUT, -1);

            if (!error) {
                error = keep_all(c);
            }
            if (!error) {
                error = receive(c);
                error = error == EAGAIN ? 0 : error;
            }
            if (error) {
                return error;
            }
        } else if (errno != EINTR) {
            return die(c, errno);
        }
    }
    return 0;
}

int
ninep_client_push(struct ninep_client *c)
{
    size_t size = c->out_size;

    if (c->error) {
        return c->error;
    }
    c->out_size = 0;
    return write_out(c, c->out, size);
}

int
ninep_client_send_raw(struct ninep_client *c, const void *buf, size_t size)
{
    int error = ninep_client_push(c);

    return error ? error : write_out(c, buf, size);
}

static int
take_tag(struct ninep_client *c, uint8_t type, uint16_t *ret_tag)
{
    if (type == NINEP_TVERSION) {
        *ret_tag = NINEP_NOTAG;
        return c->slots[VERSION_SLOT].state == SLOT_FREE ? 0 : EAGAIN;
    }
    for (unsigned int tag = 0; tag < NINEP_CLIENT_MAX_PENDING; tag++) {
        if (c->slots[tag].state == SLOT_FREE) {
            /* Low numbers are used again, so that few slots have buffers. */
            *ret_tag = tag;
            return 0;
        }
    }
    return EAGAIN;
}

int
ninep_client_send(struct ninep_client *c, struct ninep_msg *msg,
                  uint16_t *ret_tag)
{
    struct slot *slot;
    uint16_t tag;
    size_t size;
    int error;

    if (c->error) {
        return c->error;
    }
    error = take_tag(c, msg->type, &tag);
    if (error) {
        return error;
    }
    msg->tag = tag;
    for (int i = 0;; i++) {
        error =
            ninep_encode(msg, c->out + c->out_size,
                         MIN(c->out_capacity - c->out_size, c->msize), &size);
        if (!error) {
            break;
        }
        if (error != EMSGSIZE || !c->out_size || i) {
            return error;
        }
        error = ninep_client_push(c);
        if (error) {
            return error;
        }
    }
    c->out_size += size;
    slot = find_slot(c, tag);
    slot->state = SLOT_SENT;
    slot->type = msg->type;
    *ret_tag = tag;
    return 0;
}

/* Decodes the reply that stands at 'buf'. */
static int
finish(struct ninep_client *c, struct slot *slot, const uint8_t *buf,
       size_t size, struct ninep_msg *reply)
{
    slot->state = SLOT_FREE;
    if (ninep_decode(buf, size, reply, NULL)) {
        return die(c, EBADMSG);
    }
    if (reply->type == NINEP_RLERROR) {
        return reply->rlerror.ecode ? (int) reply->rlerror.ecode : EIO;
    }
    return reply->type == slot->type + 1 ? 0 : die(c, EBADMSG);
}

int
ninep_client_wait_ms(struct ninep_client *c, uint16_t tag, int timeout_ms,
                     struct ninep_msg *reply)
{
    struct slot *slot = find_slot(c, tag);
    uint64_t end = clock_mono_ns() + timeout_ms * NSEC_PER_MSEC;
    int error;

    if (!slot || slot->state == SLOT_FREE) {
        return EINVAL;
    }
    error = ninep_client_push(c);
    while (!error) {
        size_t size;

        if (slot->state == SLOT_ANSWERED) {
            return finish(c, slot, slot->reply, slot->size, reply);
        }
        error = first_message(c, &size);
        if (error) {
            break;
        }
        if (size) {
            const uint8_t *buf = c->in + c->in_start;

            c->in_start += size;
            if (ninep_peek_tag(buf) == tag) {
                return finish(c, slot, buf, size, reply);
            }
            error = keep_reply(c, buf, size);
            continue;
        }
        error = receive(c);
        if (error == EAGAIN) {
            uint64_t now = timeout_ms < 0 ? 0 : clock_mono_ns();

            error = wait_fd(c, POLLIN,
                            timeout_ms < 0 ? -1
                            : now >= end
                                ? 0
                                : (int) ((end - now) / NSEC_PER_MSEC + 1));
        }
    }
    return error;
}

int
ninep_client_wait(struct ninep_client *c, uint16_t tag,
                  struct ninep_msg *reply)
{
    return ninep_client_wait_ms(c, tag, -1, reply);
}

int
ninep_client_call(struct ninep_client *c, struct ninep_msg *msg,
                  struct ninep_msg *reply)
{
    uint16_t tag;
    int error = ninep_client_send(c, msg, &tag);

    return error ? error : ninep_client_wait(c, tag, reply);
}

int
ninep_client_version(struct ninep_client *c, uint32_t msize)
{
    struct ninep_msg t = {.type = NINEP_TVERSION}, r;
    int error;

    t.version.msize = msize ? msize : NINEP_MSIZE_MAX;
    t.version.version = ninep_str(NINEP_VERSION_L);
    error = ninep_client_call(c, &t, &r);
    if (error) {
        return error;
    }
    if (!ninep_str_equals(r.version.version, NINEP_VERSION_L) ||
        r.version.msize > t.version.msize || r.version.msize < 256) {
        return EPROTONOSUPPORT;
    }
    /* A new version ends everything that was outstanding. */
    for (size_t i = 0; i < ARRAY_SIZE(c->slots); i++) {
        c->slots[i].state = SLOT_FREE;
    }
    c->in_start = c->in_end = 0;
    return set_buffers(c, r.version.msize);
}
