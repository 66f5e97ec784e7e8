/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The broker behind "local:DIR": plays hypervisor and xenstored for several
 * processes of one host that speak in the name of several "domains".
 *
 * Theory of operation
 * ===================
 *
 * Memory: each domain has one memfd, of which pages are given out to be
 * granted.  The grant reference of a page is its number plus BP_FIRST_REF.
 * Mapping gives the mapping process the whole memfd, so there is no
 * protection, but whether a reference is granted, and to whom, is checked
 * here.  A page is used again only when it is neither granted nor mapped.
 *
 * Event channels: a pair of eventfds for each pair of ends, made when a
 * frontend allocates the port.  Each end gets both: the one that it waits on
 * and the one that it writes.  The broker is not in the way of notifications.
 * When an end is closed, the other is unbound again, as Xen does, and may be
 * bound anew.
 *
 * A connection that ends takes along its ports, maps, granted pages, watches
 * and transactions, as a process that ends does.
 */
#include "hv/broker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/broker-private.h"
#include "lib/vlog.h"

static void conn_destroy(struct conn *);

/* ## Domains ## */

struct domain *
broker_find_domain(struct broker *b, uint16_t domid)
{
    struct domain *d;

    LIST_FOR_EACH (d, link, &b->domains) {
        if (d->domid == domid && !d->is_dead) {
            return d;
        }
    }
    return NULL;
}

void
broker_domain_free_if_unused(struct broker *b, struct domain *d)
{
    struct map *map;

    LIST_FOR_EACH (map, link, &b->maps) {
        if (map->domain == d) {
            return;
        }
    }
    if (d->is_dead) {
        list_remove(&d->link);
        close(d->memfd);
        free(d->pages);
        free(d);
    }
}

static int
domain_create(struct broker *b, uint16_t domid)
{
    struct domain *d;

    if (broker_find_domain(b, domid)) {
        return EEXIST;
    }
    d = calloc(1, sizeof *d);
    if (!d) {
        return ENOMEM;
    }
    d->memfd = memfd_create("domain", MFD_CLOEXEC);
    if (d->memfd < 0 ||
        ftruncate(d->memfd, (off_t) MAX_PAGES * HV_PAGE_SIZE) < 0) {
        int error = errno;

        if (d->memfd >= 0) {
            close(d->memfd);
        }
        free(d);
        return error;
    }
    d->domid = domid;
    d->incarnation = ++b->last_incarnation;
    list_push_back(&b->domains, &d->link);
    return 0;
}

/* Writes what the toolstack writes for a new domain. */
static int
domain_populate(struct broker *b, uint16_t domid, const char *name,
                const char *uuid)
{
    const struct hv_xs_perm read_only[] = {{0, HV_XS_PERM_NONE},
                                           {domid, HV_XS_PERM_READ}};
    const struct hv_xs_perm own[] = {{domid, HV_XS_PERM_NONE}};
    static const char *const own_dirs[] = {"attr",    "backend", "data",
                                           "drivers", "error",   "feature"};
    struct registry *reg = b->registry;
    char path[128], value[64];
    int error;

    snprintf(path, sizeof path, "/local/domain/%u", domid);
    error = registry_mkdir(reg, b, 0, 0, path);
    error =
        error ? error : registry_set_perms(reg, b, 0, 0, path, read_only, 2);
    for (size_t i = 0; !error && i < ARRAY_SIZE(own_dirs); i++) {
        snprintf(path, sizeof path, "/local/domain/%u/%s", domid, own_dirs[i]);
        error = registry_mkdir(reg, b, 0, 0, path);
        error = error ? error : registry_set_perms(reg, b, 0, 0, path, own, 1);
    }
    if (!error && *name) {
        snprintf(path, sizeof path, "/local/domain/%u/name", domid);
        error = registry_write(reg, b, 0, 0, path, name);
    }
    if (!error && *uuid) {
        snprintf(path, sizeof path, "/local/domain/%u/vm", domid);
        snprintf(value, sizeof value, "/vm/%s", uuid);
        error = registry_write(reg, b, 0, 0, path, value);
    }
    if (!error) {
        snprintf(path, sizeof path, "/local/domain/%u/domid", domid);
        snprintf(value, sizeof value, "%u", domid);
        error = registry_write(reg, b, 0, 0, path, value);
    }
    return error;
}

/* True if a fault of 'kind' is to be played to 'domid' now; then stores its
 * errno. */
bool
broker_fault_due(struct broker *b, uint16_t domid, enum hv_fault kind,
                 int *ret_error)
{
    struct domain *d = broker_find_domain(b, domid);
    struct fault *fault = d ? &d->faults[kind] : NULL;

    if (!fault || !fault->count) {
        return false;
    }
    if (fault->nth > 1) {
        fault->nth--;
        return false;
    }
    fault->count--;
    *ret_error = fault->error;
    return true;
}

/* ## Watches ## */

static void
conn_flush_events(struct conn *c)
{
    while (!list_is_empty(&c->events)) {
        struct event *event =
            CONTAINER_OF(list_front(&c->events), struct event, link);

        if (send(c->fd, event->data, event->size,
                 MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            break;
        }
        list_remove(&event->link);
        free(event);
    }
    loop_mod_fd(c->broker->loop, c->handle,
                EPOLLIN | (list_is_empty(&c->events) ? 0 : EPOLLOUT));
}

/* 'owner' is the connection for calls; the events go to that for watches. */
static void
fire_watch(void *owner, const char *path, const char *token, void *broker)
{
    struct broker *b = broker;
    struct conn *calls = owner, *c;
    size_t path_size = strlen(path) + 1, token_size = strlen(token) + 1;

    LIST_FOR_EACH (c, link, &b->conns) {
        if (c->role == BP_ROLE_WATCH && c->watch_owner == calls->id) {
            struct event *event =
                malloc(sizeof *event + path_size + token_size);

            if (event) {
                event->size = path_size + token_size;
                memcpy(event->data, path, path_size);
                memcpy(event->data + path_size, token, token_size);
                list_push_back(&c->events, &event->link);
                conn_flush_events(c);
            }
            return;
        }
    }
}

/* ## Requests ## */

static int
domain_destroy(struct broker *b, uint16_t domid)
{
    struct domain *d = broker_find_domain(b, domid);
    struct port *port, *next;
    struct conn *c;
    char path[64];

    if (!d || !domid) {
        return EINVAL;
    }
    LIST_FOR_EACH_SAFE (port, next, link, &b->ports) {
        if (port->domid == domid) {
            broker_port_destroy(port);
        }
    }
    LIST_FOR_EACH (c, link, &b->conns) {
        if (c->domid == domid) {
            c->is_shut = true;
        }
    }
    d->is_dead = true;
    broker_domain_free_if_unused(b, d);
    snprintf(path, sizeof path, "/local/domain/%u", domid);
    registry_rm(b->registry, b, 0, 0, path);
    registry_fire_special(b->registry, "@releaseDomain");
    return 0;
}

static int
set_fault(struct broker *b, const struct bp_request *rq)
{
    struct domain *d = broker_find_domain(b, rq->a & 0xffff);
    unsigned kind = rq->a >> 16;

    if (!d || kind >= HV_N_FAULTS) {
        return EINVAL;
    }
    d->faults[kind].nth = rq->b;
    d->faults[kind].count = rq->c;
    d->faults[kind].error = rq->d;
    return 0;
}

static void
get_counts(struct broker *b, struct hv_local_counts *counts)
{
    struct conn *c;
    struct domain *d;
    struct map *map;
    struct port *port;

    memset(counts, 0, sizeof *counts);
    LIST_FOR_EACH (c, link, &b->conns) {
        counts->n_connections += c->role == BP_ROLE_CALLS;
    }
    LIST_FOR_EACH (d, link, &b->domains) {
        for (size_t i = 0; !d->is_dead && i < d->n_pages; i++) {
            counts->n_grants += d->pages[i].is_granted;
        }
    }
    LIST_FOR_EACH (map, link, &b->maps) {
        counts->n_maps += map->n;
    }
    LIST_FOR_EACH (port, link, &b->ports) {
        counts->n_ports++;
    }
    registry_count(b->registry, &counts->n_nodes, &counts->n_watches);
}

static int
serve_registry(struct conn *c, const struct bp_request *rq, const char *path,
               const char *value, struct bp_reply *reply)
{
    struct broker *b = c->broker;
    struct registry *reg = b->registry;
    const struct hv_xs_perm *perms;
    const char *result;
    char *names;
    size_t n;
    int error;

    switch (rq->op) {
    case BP_READ:
        error = registry_read(reg, c, c->domid, rq->txn, path, &result);
        if (!error) {
            reply->size = strlen(result) + 1;
            memcpy(reply->data, result, reply->size);
        }
        return error;
    case BP_WRITE:
        if (broker_fault_due(b, c->domid, HV_FAULT_XS_WRITE, &error)) {
            return error;
        }
        return registry_write(reg, c, c->domid, rq->txn, path, value);
    case BP_MKDIR:
        return registry_mkdir(reg, c, c->domid, rq->txn, path);
    case BP_RM:
        return registry_rm(reg, c, c->domid, rq->txn, path);
    case BP_DIRECTORY:
        error =
            registry_directory(reg, c, c->domid, rq->txn, path, &names, &n);
        if (!error) {
            if (n > BP_DATA_MAX) {
                error = E2BIG;
            } else {
                memcpy(reply->data, names, n);
                reply->size = n;
            }
            free(names);
        }
        return error;
    case BP_GET_PERMS:
        error =
            registry_get_perms(reg, c, c->domid, rq->txn, path, &perms, &n);
        if (!error) {
            reply->size = n * sizeof *perms;
            memcpy(reply->data, perms, reply->size);
        }
        return error;
    case BP_SET_PERMS:
        return registry_set_perms(reg, c, c->domid, rq->txn, path,
                                  (const struct hv_xs_perm *) value,
                                  rq->value_size / sizeof *perms);
    case BP_TXN_START:
        return registry_txn_start(reg, c, &reply->a);
    case BP_TXN_END:
        if (rq->a &&
            broker_fault_due(b, c->domid, HV_FAULT_XS_COMMIT, &error)) {
            registry_txn_end(reg, c, rq->txn, false);
            return error;
        }
        return registry_txn_end(reg, c, rq->txn, rq->a);
    case BP_WATCH:
        return registry_watch(reg, c, c->domid, path, value);
    case BP_UNWATCH:
        return registry_unwatch(reg, c, c->domid, path, value);
    default:
        return EOPNOTSUPP;
    }
}

static int
serve_hello(struct conn *c, const struct bp_request *rq,
            struct bp_reply *reply)
{
    if (c->said_hello) {
        return EPROTO;
    }
    if (!broker_find_domain(c->broker, rq->a)) {
        return ENOENT;
    }
    c->said_hello = true;
    c->domid = rq->a;
    c->role = rq->b;
    c->peer = rq->c;
    c->watch_owner = rq->d;
    reply->a = c->id;
    return 0;
}

/* Serves 'rq', well-formed, on 'c'.  Descriptors to go with the reply are
 * stored in 'fds', whose elements are -1 before. */
static int
serve(struct conn *c, const struct bp_request *rq, struct bp_reply *reply,
      int fds[BP_MAX_FDS])
{
    const char *path = rq->path_size ? rq->data : "";
    const char *value = rq->value_size ? rq->data + rq->path_size : "";
    struct broker *b = c->broker;
    struct domain *d;
    int error;

    if (rq->op == BP_HELLO) {
        return serve_hello(c, rq, reply);
    } else if (!c->said_hello) {
        return EPROTO;
    } else if (c->is_shut) {
        return ESHUTDOWN;
    }
    d = broker_find_domain(b, c->domid);
    if (!d) {
        return ESHUTDOWN;
    }
    switch (rq->op) {
    case BP_PAGES_ALLOC:
        fds[0] = d->memfd;
        return broker_pages_alloc(b, c, d, rq, reply);
    case BP_PAGES_FREE:
        broker_pages_free(d, c->id, rq->a, rq->b);
        return 0;
    case BP_MAP:
        return broker_map(b, c, rq, reply, &fds[0]);
    case BP_UNMAP:
        return broker_unmap(b, c, rq->a);
    case BP_ALLOC_UNBOUND:
        return broker_alloc_unbound(b, c, rq->a, reply, fds);
    case BP_BIND:
        return broker_bind(b, c, rq->a, rq->b, reply, fds);
    case BP_UNBIND:
        return broker_unbind(b, c, rq->a);
    case BP_DOMAIN_EXISTS:
        if (c->domid) {
            return EACCES;
        }
        reply->a = broker_find_domain(b, rq->a) != NULL;
        return 0;
    case BP_DOMAIN_CREATE:
        error = c->domid ? EACCES : domain_create(b, rq->a);
        return error ? error : domain_populate(b, rq->a, path, value);
    case BP_DOMAIN_DESTROY:
        return c->domid ? EACCES : domain_destroy(b, rq->a);
    case BP_FAULT:
        return set_fault(b, rq);
    case BP_COUNTS:
        reply->size = sizeof(struct hv_local_counts);
        get_counts(b, (struct hv_local_counts *) reply->data);
        return 0;
    default:
        return serve_registry(c, rq, path, value, reply);
    }
}

static bool
request_is_valid(const struct bp_request *rq, size_t size)
{
    if (size < sizeof *rq || rq->op >= BP_N_OPS ||
        rq->path_size > BP_MAX_PACKET || rq->value_size > BP_MAX_PACKET ||
        sizeof *rq + rq->path_size + rq->value_size != size) {
        return false;
    }
    if (rq->op == BP_MAP || rq->op == BP_SET_PERMS) {
        return rq->op == BP_MAP ||
               (rq->path_size && !rq->data[rq->path_size - 1]);
    }
    return (
        (!rq->path_size || !rq->data[rq->path_size - 1]) &&
        (!rq->value_size || !rq->data[rq->path_size + rq->value_size - 1]));
}

static int
send_reply(struct conn *c, struct bp_reply *reply, const int fds[BP_MAX_FDS])
{
    struct iovec iov = {reply, sizeof *reply + reply->size};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(BP_MAX_FDS * sizeof(int))];
    } control;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    size_t n = 0;

    while (!reply->error && n < BP_MAX_FDS && fds[n] >= 0) {
        n++;
    }
    if (n) {
        struct cmsghdr *cmsg;

        memset(&control, 0, sizeof control);
        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(n * sizeof(int));
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(n * sizeof(int));
        memcpy(CMSG_DATA(cmsg), fds, n * sizeof(int));
    }
    /* One request is outstanding at most, so there is room. */
    return sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? errno : 0;
}

static void
conn_run(uint32_t events, void *conn)
{
    static union {
        struct bp_request rq;
        char buf[BP_MAX_PACKET];
    } in;
    static union {
        struct bp_reply reply;
        char buf[BP_MAX_PACKET];
    } out;
    struct conn *c = conn;
    int fds[BP_MAX_FDS] = {-1, -1};
    ssize_t n;

    if (events & EPOLLOUT) {
        conn_flush_events(c);
    }
    if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR))) {
        return;
    }
    n = recv(c->fd, in.buf, sizeof in.buf, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (n <= 0 || !request_is_valid(&in.rq, n)) {
        conn_destroy(c);
        return;
    }
    memset(&out.reply, 0, sizeof out.reply);
    out.reply.error = serve(c, &in.rq, &out.reply, fds);
    if (out.reply.error) {
        out.reply.size = 0;
    }
    if (send_reply(c, &out.reply, fds)) {
        conn_destroy(c);
    }
}

/* ## Connections ## */

static void
conn_destroy(struct conn *c)
{
    struct broker *b = c->broker;
    struct domain *d, *next_domain;
    struct map *map, *next_map;
    struct port *port, *next_port;

    list_remove(&c->link);
    registry_forget_owner(b->registry, c);
    LIST_FOR_EACH_SAFE (port, next_port, link, &b->ports) {
        if (port->owner == c) {
            broker_port_destroy(port);
        }
    }
    LIST_FOR_EACH_SAFE (d, next_domain, link, &b->domains) {
        if (d->domid == c->domid) {
            broker_pages_free(d, c->id, 0, d->n_pages);
        }
    }
    LIST_FOR_EACH_SAFE (map, next_map, link, &b->maps) {
        if (map->owner == c) {
            broker_map_destroy(b, map);
        }
    }
    while (!list_is_empty(&c->events)) {
        free(CONTAINER_OF(list_pop_front(&c->events), struct event, link));
    }
    loop_del_fd(b->loop, c->handle);
    close(c->fd);
    free(c);
}

static void
accept_run(uint32_t events, void *broker)
{
    struct broker *b = broker;
    struct conn *c;
    int fd = accept4(b->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0) {
        return;
    }
    c = calloc(1, sizeof *c);
    if (!c || loop_add_fd(b->loop, fd, EPOLLIN, conn_run, c, &c->handle)) {
        free(c);
        close(fd);
        return;
    }
    c->broker = b;
    c->fd = fd;
    c->id = ++b->last_id;
    list_init(&c->events);
    list_push_back(&b->conns, &c->link);
}

int
broker_create(struct loop *loop, const char *dir, struct broker **ret_broker)
{
    struct broker *b = calloc(1, sizeof *b);
    int error;

    if (!b) {
        return ENOMEM;
    }
    b->loop = loop;
    b->listen_fd = -1;
    list_init(&b->conns);
    list_init(&b->domains);
    list_init(&b->ports);
    list_init(&b->maps);
    b->registry = registry_create(fire_watch, b);
    if (!b->registry || asprintf(&b->path, "%s/broker", dir) < 0) {
        b->path = NULL;
        error = ENOMEM;
        goto error;
    }
    error = domain_create(b, 0);
    error = error ? error : domain_populate(b, 0, "Domain-0", "");
    error = error ? error
                  : unix_listen(b->path, SOCK_SEQPACKET, 0600, &b->listen_fd);
    error = error ? error
                  : loop_add_fd(loop, b->listen_fd, EPOLLIN, accept_run, b,
                                &b->listen_handle);
    if (error) {
        goto error;
    }
    *ret_broker = b;
    return 0;

error:
    broker_destroy(b);
    return error;
}

void
broker_destroy(struct broker *b)
{
    struct domain *d, *next;

    if (!b) {
        return;
    }
    while (!list_is_empty(&b->conns)) {
        conn_destroy(CONTAINER_OF(list_front(&b->conns), struct conn, link));
    }
    LIST_FOR_EACH_SAFE (d, next, link, &b->domains) {
        d->is_dead = true;
        broker_domain_free_if_unused(b, d);
    }
    if (b->listen_handle) {
        loop_del_fd(b->loop, b->listen_handle);
    }
    if (b->listen_fd >= 0) {
        close(b->listen_fd);
        unlink(b->path);
    }
    registry_destroy(b->registry);
    free(b->path);
    free(b);
}
