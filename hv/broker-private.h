/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What hv/broker.c (connections, requests) and hv/broker-resources.c (memory,
 * event channels) share.
 */
#ifndef HV_BROKER_PRIVATE_H
#define HV_BROKER_PRIVATE_H 1

#include "hv/broker-protocol.h"
#include "hv/broker.h"
#include "hv/hv.h"
#include "hv/registry.h"
#include "lib/util.h"

enum { MAX_PAGES = 1 << 18 }; /* 1 GiB for each domain; memfds are sparse. */

struct page {
    bool is_granted;
    bool writable;
    uint16_t peer;
    uint32_t n_maps;
    uint32_t owner; /* Connection that allocated it. */
};

struct fault {
    unsigned nth, count;
    int error;
};

struct domain {
    struct list link;
    uint16_t domid;
    uint32_t incarnation;
    bool is_dead; /* Kept while something of it is mapped. */
    int memfd;
    struct page *pages;
    size_t n_pages, n_allocated;
    struct fault faults[HV_N_FAULTS];
};

struct port {
    struct list link;
    struct conn *owner;
    uint16_t domid, remote;
    uint32_t number;
    struct port *peer; /* NULL = unbound. */
    int rx, tx;        /* Eventfds. */
};

struct map {
    struct list link;
    struct conn *owner;
    uint32_t number;
    struct domain *domain;
    size_t n;
    uint32_t pages[];
};

struct event {
    struct list link;
    size_t size;
    char data[];
};

struct conn {
    struct list link;
    struct broker *broker;
    int fd;
    struct loop_fd *handle;
    uint32_t id;
    bool said_hello, is_shut, is_broken;
    uint16_t domid;
    uint32_t role;
    uint32_t peer; /* Plus 1; 0 = any. */
    uint32_t watch_owner;
    struct list events; /* To be sent, of a BP_ROLE_WATCH. */
};

struct broker {
    struct loop *loop;
    char *path;
    int listen_fd;
    struct loop_fd *listen_handle;
    struct registry *registry;
    uint32_t last_id, last_map, last_incarnation;
    struct list conns, domains, ports, maps;
};

struct domain *broker_find_domain(struct broker *, uint16_t domid);
void broker_domain_free_if_unused(struct broker *, struct domain *);

/* True if a fault of 'kind' is to be played to 'domid' now; then stores its
 * errno. */
bool broker_fault_due(struct broker *, uint16_t domid, enum hv_fault kind,
                      int *ret_error);

/* What hv/broker-resources.c does for the requests of these names. */
int broker_pages_alloc(struct broker *, struct conn *, struct domain *,
                       const struct bp_request *, struct bp_reply *);
void
broker_pages_free(struct domain *, uint32_t owner, size_t start, size_t n);
int broker_map(struct broker *, struct conn *, const struct bp_request *,
               struct bp_reply *, int *ret_fd);
int broker_unmap(struct broker *, struct conn *, uint32_t number);
void broker_map_destroy(struct broker *, struct map *);
int broker_alloc_unbound(struct broker *, struct conn *, uint16_t remote,
                         struct bp_reply *, int fds[2]);
int broker_bind(struct broker *, struct conn *, uint16_t remote,
                uint32_t number, struct bp_reply *, int fds[2]);
int broker_unbind(struct broker *, struct conn *, uint32_t number);
void broker_port_destroy(struct port *);

#endif /* hv/broker-private.h */
