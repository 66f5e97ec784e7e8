/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What hv/local.c and the broker say to each other, on a SOCK_SEQPACKET Unix
 * socket: a request and its reply are one packet each, one at a time.  A
 * second connection, of role BP_ROLE_WATCH, brings watch events only.  Both
 * ends are of one build; nothing here is meant to last.
 */
#ifndef HV_BROKER_PROTOCOL_H
#define HV_BROKER_PROTOCOL_H 1

#include <stdint.h>

enum {
    BP_MAX_PACKET = 65536,
    BP_DATA_MAX = BP_MAX_PACKET - 64,
    BP_MAX_FDS = 2,
    BP_FIRST_REF = 8, /* Xen reserves the references 0..7. */
};

enum bp_op {
    BP_HELLO,       /* a = domid, b = role, c = peer + 1 or 0 = any;
                     * d = the watch connection's owner.  ret a = own id. */
    BP_PAGES_ALLOC, /* a = domid, b = n, c = writable; ret a = offset in pages,
                     * fd = memory; refs are offset + BP_FIRST_REF + i. */
    BP_PAGES_FREE,  /* a = offset in pages, b = n. */
    BP_MAP,         /* a = domid, b = n, data = refs; ret a = number of the
                     * map, b = incarnation of the domain; fd = memory. */
    BP_UNMAP,       /* a = number of the map. */
    BP_ALLOC_UNBOUND, /* a = domid; ret a = port; fds = ours, theirs. */
    BP_BIND,          /* a = domid, b = port; likewise. */
    BP_UNBIND,        /* a = port. */
    BP_READ,          /* Of the registry: 'txn', path, value. */
    BP_WRITE,
    BP_MKDIR,
    BP_RM,
    BP_DIRECTORY, /* ret data = names, NUL-terminated, a = their size. */
    BP_GET_PERMS, /* ret data = struct hv_xs_perm[a]. */
    BP_SET_PERMS, /* Value = struct hv_xs_perm[]. */
    BP_TXN_START, /* ret a = transaction. */
    BP_TXN_END,   /* a = commit. */
    BP_WATCH,     /* Path, value = token. */
    BP_UNWATCH,
    BP_DOMAIN_EXISTS,  /* a = domid; ret a = 0 or 1. */
    BP_DOMAIN_CREATE,  /* a = domid, path = name, value = uuid. */
    BP_DOMAIN_DESTROY, /* a = domid. */
    BP_FAULT,          /* a = domid | kind << 16, b = nth, c = count,
                        * d = errno. */
    BP_COUNTS,         /* ret data = struct hv_local_counts. */
    BP_N_OPS
};

enum bp_role {
    BP_ROLE_CALLS,
    BP_ROLE_WATCH,
};

struct bp_request {
    uint32_t op;
    uint32_t txn;
    uint32_t a, b, c, d;
    uint32_t path_size;  /* With NUL; 0 = none. */
    uint32_t value_size; /* Likewise behind it. */
    char data[];
};

struct bp_reply {
    int32_t error;
    uint32_t size; /* Bytes of 'data'. */
    uint32_t a, b;
    char data[];
};

/* A watch event: path and token, each with its NUL. */

#endif /* hv/broker-protocol.h */
