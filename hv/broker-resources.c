/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The broker's memory and event channels; the theory of operation stands in
 * hv/broker.c.
 */
#include "hv/broker-private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ## Grants ## */

int
broker_pages_alloc(struct broker *b, struct conn *c, struct domain *d,
                   const struct bp_request *rq, struct bp_reply *reply)
{
    size_t n = rq->b, start = 0, run = 0;

    if (!n || n > 4096) {
        return EINVAL;
    }
    for (size_t i = 0; i < d->n_pages && run < n; i++) {
        if (d->pages[i].is_granted || d->pages[i].n_maps) {
            run = 0;
        } else if (!run++) {
            start = i;
        }
    }
    if (run < n) {
        start = d->n_pages - run;
        if (start + n > MAX_PAGES) {
            return ENOSPC;
        }
        if (start + n > d->n_allocated) {
            size_t n_allocated = MAX(start + n, d->n_allocated * 2);
            struct page *pages =
                realloc(d->pages, n_allocated * sizeof *pages);

            if (!pages) {
                return ENOMEM;
            }
            d->pages = pages;
            d->n_allocated = n_allocated;
        }
        d->n_pages = start + n;
    }
    if (fallocate(d->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t) start * HV_PAGE_SIZE, (off_t) n * HV_PAGE_SIZE)) {
        return errno;
    }
    for (size_t i = start; i < start + n; i++) {
        d->pages[i] = (struct page){
            .is_granted = true,
            .writable = rq->c,
            .peer = rq->a,
            .owner = c->id,
        };
    }
    reply->a = start;
    return 0;
}

void
broker_pages_free(struct domain *d, uint32_t owner, size_t start, size_t n)
{
    for (size_t i = start; i < start + n && i < d->n_pages; i++) {
        if (d->pages[i].owner == owner) {
            d->pages[i].is_granted = false;
        }
    }
}

int
broker_map(struct broker *b, struct conn *c, const struct bp_request *rq,
           struct bp_reply *reply, int *ret_fd)
{
    struct domain *d = broker_find_domain(b, rq->a);
    size_t n = rq->b;
    struct map *map;
    int error;

    if (broker_fault_due(b, c->domid, HV_FAULT_GRANT_PREPARE, &error)) {
        return error;
    }
    if (!d || !n || n > 4096 || rq->path_size != n * 4 ||
        (c->peer && c->peer != d->domid + 1u)) {
        return EINVAL;
    }
    map = malloc(sizeof *map + n * sizeof *map->pages);
    if (!map) {
        return ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t page = get_le32(rq->data + i * 4) - BP_FIRST_REF;

        if (page >= d->n_pages || !d->pages[page].is_granted ||
            d->pages[page].peer != c->domid || !d->pages[page].writable) {
            free(map);
            return EINVAL;
        }
        map->pages[i] = page;
    }
    for (size_t i = 0; i < n; i++) {
        d->pages[map->pages[i]].n_maps++;
    }
    map->owner = c;
    map->number = ++b->last_map;
    map->domain = d;
    map->n = n;
    list_push_back(&b->maps, &map->link);
    reply->a = map->number;
    reply->b = d->incarnation;
    *ret_fd = d->memfd;
    return 0;
}

void
broker_map_destroy(struct broker *b, struct map *map)
{
    struct domain *d = map->domain;

    for (size_t i = 0; i < map->n; i++) {
        d->pages[map->pages[i]].n_maps--;
    }
    list_remove(&map->link);
    free(map);
    broker_domain_free_if_unused(b, d);
}

int
broker_unmap(struct broker *b, struct conn *c, uint32_t number)
{
    struct map *map;

    LIST_FOR_EACH (map, link, &b->maps) {
        if (map->number == number && map->owner == c) {
            broker_map_destroy(b, map);
            return 0;
        }
    }
    return ENOENT;
}

/* ## Event channels ## */

static struct port *
find_port(struct broker *b, uint16_t domid, uint32_t number)
{
    struct port *port;

    LIST_FOR_EACH (port, link, &b->ports) {
        if (port->domid == domid && port->number == number) {
            return port;
        }
    }
    return NULL;
}

static struct port *
port_create(struct broker *b, struct conn *c, uint16_t remote)
{
    struct port *port = calloc(1, sizeof *port);

    if (port) {
        port->owner = c;
        port->domid = c->domid;
        port->remote = remote;
        port->number = 1;
        while (find_port(b, c->domid, port->number)) {
            port->number++;
        }
        list_push_back(&b->ports, &port->link);
    }
    return port;
}

void
broker_port_destroy(struct port *port)
{
    if (port->peer) {
        port->peer->peer = NULL;
    }
    list_remove(&port->link);
    if (port->rx >= 0) {
        close(port->rx);
    }
    if (port->tx >= 0) {
        close(port->tx);
    }
    free(port);
}

int
broker_alloc_unbound(struct broker *b, struct conn *c, uint16_t remote,
                     struct bp_reply *reply, int fds[2])
{
    struct port *port = port_create(b, c, remote);

    if (!port) {
        return ENOMEM;
    }
    port->rx = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    port->tx = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (port->rx < 0 || port->tx < 0) {
        broker_port_destroy(port);
        return EMFILE;
    }
    fds[0] = port->rx;
    fds[1] = port->tx;
    reply->a = port->number;
    return 0;
}

int
broker_bind(struct broker *b, struct conn *c, uint16_t remote, uint32_t number,
            struct bp_reply *reply, int fds[2])
{
    struct port *peer = find_port(b, remote, number);
    struct port *port;
    uint64_t drain;
    int error;

    if (broker_fault_due(b, c->domid, HV_FAULT_EVTCHN_BIND, &error)) {
        return error;
    }
    if (c->peer && c->peer != remote + 1u) {
        return EACCES;
    }
    if (!peer || peer->peer || peer->remote != c->domid) {
        return EINVAL;
    }
    port = port_create(b, c, remote);
    if (!port) {
        return ENOMEM;
    }
    port->rx = fcntl(peer->tx, F_DUPFD_CLOEXEC, 0);
    port->tx = fcntl(peer->rx, F_DUPFD_CLOEXEC, 0);
    if (port->rx < 0 || port->tx < 0) {
        broker_port_destroy(port);
        return EMFILE;
    }
    port->peer = peer;
    peer->peer = port;
    /* Exactly one event is pending at first, whatever came before. */
    if (read(port->rx, &drain, sizeof drain) < 0) {
        /* Nothing was there. */
    }
    drain = 1;
    if (write(port->rx, &drain, sizeof drain) < 0) {
        /* Cannot be: it was drained. */
    }
    fds[0] = port->rx;
    fds[1] = port->tx;
    reply->a = port->number;
    return 0;
}

int
broker_unbind(struct broker *b, struct conn *c, uint32_t number)
{
    struct port *port = find_port(b, c->domid, number);

    if (!port || port->owner != c) {
        return ENOENT;
    }
    broker_port_destroy(port);
    return 0;
}
