/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What hv/local.c (grants, event channels), hv/local-store.c (xenstore) and
 * hv/local-call.c (how both talk to the broker) share.
 */
#ifndef HV_LOCAL_H
#define HV_LOCAL_H 1

#include "hv/broker-protocol.h"
#include "hv/provider.h"
#include "lib/util.h"

enum { MAX_MEMORIES = 64 };

/* A domain's memory, kept open for later maps. */
struct memory {
    uint32_t incarnation;
    int fd;
};

struct local_port {
    int rx, tx; /* Eventfds; -1 = no such port. */
};

struct local_hv {
    struct hv up;
    char *path; /* Of the broker's socket, NULL if adopted. */
    uint16_t domid;
    int calls;    /* Connections; -1 = none. */
    int grants;   /* The same as 'calls' unless adopted. */
    int channels; /* Likewise. */
    int watch;
    int own_memory;
    struct memory memories[MAX_MEMORIES];
    size_t n_memories;
    int epoll;
    struct local_port *ports; /* By number. */
    size_t n_ports;
    union {
        struct bp_request rq;
        char bytes[BP_MAX_PACKET];
    } out;
    union {
        struct bp_reply reply;
        char bytes[BP_MAX_PACKET];
    } in;
};

static inline struct local_hv *
local_hv_cast(const struct hv *hv)
{
    return CONTAINER_OF(hv, struct local_hv, up);
}

/* Begins a request: fills in its numbers in 'hv->out.rq'. */
void local_prepare(struct local_hv *hv, enum bp_op op, uint32_t a, uint32_t b,
                   uint32_t c);

/* Sends the request that was prepared, with 'path' and 'value' behind it, to
 * 'conn' and waits for the reply, which is left in 'hv->in.reply'.
 * Descriptors that come with it are stored in 'fds', which may be NULL where
 * none do; the others of its elements become -1. */
int local_call(struct local_hv *hv, int conn, const char *path,
               const char *value, int fds[BP_MAX_FDS]) NODISCARD;
int local_call_bytes(struct local_hv *hv, int conn, const void *path,
                     size_t path_size, const void *value, size_t value_size,
                     int fds[BP_MAX_FDS]) NODISCARD;

#endif /* hv/local.h */
