/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hv/hv.h without Xen: a client of the broker (hv/broker.c, where the theory
 * of operation stands).
 *
 * Event channels: each port has an eventfd to wait on; all are in one epoll
 * descriptor, which is what hv_evtchn_fd() gives.  EPOLLONESHOT is the mask:
 * a port that was reported stays silent until it is armed again.
 */
#include "hv/hv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "hv/local.h"
#include "lib/util.h"

/* Stands for the connection to the broker among the ports that are waited
 * for: a worker must not outlive a broker that ended without a word. */
#define BROKER_GONE UINT32_MAX

struct local_grant {
    struct hv_grant up;
    struct local_hv *hv;
    uint32_t number; /* Of the map, at the broker. */
    int fd;          /* Owned by 'hv'. */
    void *mem;       /* NULL = not attached. */
    size_t n;
    uint32_t pages[];
};

struct local_pages {
    struct hv_pages up;
    struct local_hv *hv;
    uint32_t start, n;
    void *mem;
};

static void
close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

/* ## Opening ## */

static int
connect_broker(struct local_hv *hv, enum bp_role role, uint32_t peer,
               uint32_t owner, int *ret_fd, uint32_t *ret_id)
{
    int fd = -1;
    int error = unix_connect(hv->path, SOCK_SEQPACKET, &fd);

    if (error) {
        return error;
    }
    local_prepare(hv, BP_HELLO, hv->domid, role, peer);
    hv->out.rq.d = owner;
    error = local_call(hv, fd, NULL, NULL, NULL);
    if (error) {
        close(fd);
        return error;
    }
    *ret_fd = fd;
    if (ret_id) {
        *ret_id = hv->in.reply.a;
    }
    return 0;
}

static void
local_close(struct hv *hv_)
{
    struct local_hv *hv = local_hv_cast(hv_);

    for (size_t i = 0; i < hv->n_ports; i++) {
        close_fd(hv->ports[i].rx);
        close_fd(hv->ports[i].tx);
    }
    for (size_t i = 0; i < hv->n_memories; i++) {
        close(hv->memories[i].fd);
    }
    if (hv->grants != hv->calls) {
        close_fd(hv->grants);
    }
    if (hv->channels != hv->calls) {
        close_fd(hv->channels);
    }
    close_fd(hv->calls);
    close_fd(hv->watch);
    close_fd(hv->own_memory);
    close_fd(hv->epoll);
    free(hv->ports);
    free(hv->path);
    free(hv);
}

static int
local_hv_new(bool with_epoll, struct local_hv **ret_hv)
{
    struct local_hv *hv = calloc(1, sizeof *hv);

    if (!hv) {
        return ENOMEM;
    }
    hv->up.class = &hv_local_class;
    hv->calls = hv->grants = hv->channels = hv->watch = -1;
    hv->own_memory = hv->epoll = -1;
    if (with_epoll) {
        hv->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (hv->epoll < 0) {
            int error = errno;

            free(hv);
            return error;
        }
    }
    *ret_hv = hv;
    return 0;
}

/* Takes "DIR[@ID]" apart. */
static int
parse_arg(const char *arg, char **ret_path, uint16_t *ret_domid)
{
    const char *at = strrchr(arg, '@');
    size_t n = at ? (size_t) (at - arg) : strlen(arg);
    uint64_t domid = 0;

    if (!n || (at && hv_xs_parse_uint(at + 1, HV_DOMID_INVALID - 1, &domid))) {
        return EINVAL;
    }
    if (asprintf(ret_path, "%.*s/broker", (int) n, arg) < 0) {
        return ENOMEM;
    }
    *ret_domid = domid;
    return 0;
}

static int
local_open(const char *arg, unsigned flags, struct hv **ret_hv)
{
    struct local_hv *hv = NULL;
    uint32_t id = 0;
    int error;

    error = local_hv_new(flags & HV_EVTCHN, &hv);
    if (error) {
        return error;
    }
    error = parse_arg(arg, &hv->path, &hv->domid);
    if (error) {
        hv->path = NULL;
    } else {
        error = connect_broker(hv, BP_ROLE_CALLS, 0, 0, &hv->calls, &id);
        hv->grants = hv->channels = hv->calls;
    }
    if (!error && flags & HV_STORE) {
        error = connect_broker(hv, BP_ROLE_WATCH, 0, id, &hv->watch, NULL);
    }
    if (error) {
        local_close(&hv->up);
        return error;
    }
    *ret_hv = &hv->up;
    return 0;
}

static int
local_adopt(const char *arg, int grant_fd, int evtchn_fd, struct hv **ret_hv)
{
    struct epoll_event event = {.events = 0, .data.u32 = BROKER_GONE};
    struct local_hv *hv = NULL;
    int error = local_hv_new(true, &hv);

    if (error) {
        return error;
    }
    /* Only the end of the connection is ever reported for it. */
    if (epoll_ctl(hv->epoll, EPOLL_CTL_ADD, evtchn_fd, &event)) {
        error = errno;
        local_close(&hv->up);
        return error;
    }
    hv->grants = grant_fd;
    hv->channels = evtchn_fd;
    *ret_hv = &hv->up;
    return 0;
}

static int
local_open_worker_fds(struct hv *hv_, uint16_t peer, int *ret_grant_fd,
                      int *ret_evtchn_fd)
{
    struct local_hv *hv = local_hv_cast(hv_);
    int grant_fd, evtchn_fd, error;

    if (!hv->path) {
        return EPERM;
    }
    error = connect_broker(hv, BP_ROLE_CALLS, peer + 1, 0, &grant_fd, NULL);
    if (error) {
        return error;
    }
    error = connect_broker(hv, BP_ROLE_CALLS, peer + 1, 0, &evtchn_fd, NULL);
    if (error) {
        close(grant_fd);
        return error;
    }
    *ret_grant_fd = grant_fd;
    *ret_evtchn_fd = evtchn_fd;
    return 0;
}

/* ## Grants ## */

/* Finds the memory of 'incarnation', or keeps 'fd' as such.  Takes over 'fd'
 * in any case. */
static int
keep_memory(struct local_hv *hv, uint32_t incarnation, int fd, int *ret_fd)
{
    for (size_t i = 0; i < hv->n_memories; i++) {
        if (hv->memories[i].incarnation == incarnation) {
            close_fd(fd);
            *ret_fd = hv->memories[i].fd;
            return 0;
        }
    }
    if (fd < 0 || hv->n_memories >= MAX_MEMORIES) {
        close_fd(fd);
        return ENOSPC;
    }
    hv->memories[hv->n_memories].incarnation = incarnation;
    hv->memories[hv->n_memories++].fd = fd;
    *ret_fd = fd;
    return 0;
}

static void
release_map(struct local_hv *hv, uint32_t number)
{
    local_prepare(hv, BP_UNMAP, number, 0, 0);
    if (local_call(hv, hv->grants, NULL, NULL, NULL)) {
        /* The broker is gone and forgot the map with the connection. */
    }
}

static int
local_grant_prepare(struct hv *hv_, uint16_t domid, const uint32_t refs[],
                    size_t n, struct hv_grant **ret_grant)
{
    struct local_hv *hv = local_hv_cast(hv_);
    struct local_grant *grant;
    int fds[BP_MAX_FDS];
    int error;

    grant = malloc(sizeof *grant + n * sizeof grant->pages[0]);
    if (!grant) {
        return ENOMEM;
    }
    grant->up.class = &hv_local_class;
    grant->hv = hv;
    grant->mem = NULL;
    grant->n = n;
    for (size_t i = 0; i < n; i++) {
        grant->pages[i] = refs[i] - BP_FIRST_REF;
    }
    local_prepare(hv, BP_MAP, domid, n, 0);
    error =
        local_call_bytes(hv, hv->grants, refs, n * sizeof *refs, NULL, 0, fds);
    if (!error) {
        grant->number = hv->in.reply.a;
        error = keep_memory(hv, hv->in.reply.b, fds[0], &grant->fd);
        if (error) {
            release_map(hv, grant->number);
        }
    }
    if (error) {
        free(grant);
        return error;
    }
    *ret_grant = &grant->up;
    return 0;
}

static struct local_grant *
local_grant_cast(const struct hv_grant *grant)
{
    return CONTAINER_OF(grant, struct local_grant, up);
}

/* Number of pages from the 'i'-th on that follow each other in the file. */
static size_t
run_length(const struct local_grant *grant, size_t i)
{
    size_t n = 1;

    while (i + n < grant->n && grant->pages[i + n] == grant->pages[i] + n) {
        n++;
    }
    return n;
}

static int
local_grant_location(const struct hv_grant *grant_, int *ret_fd,
                     uint64_t *ret_offset)
{
    const struct local_grant *grant = local_grant_cast(grant_);

    if (run_length(grant, 0) != grant->n) {
        return EOPNOTSUPP;
    }
    *ret_fd = grant->fd;
    *ret_offset = (uint64_t) grant->pages[0] * HV_PAGE_SIZE;
    return 0;
}

static int
local_grant_attach(struct hv_grant *grant_, void **ret_mem)
{
    struct local_grant *grant = local_grant_cast(grant_);
    size_t size = grant->n * HV_PAGE_SIZE;
    char *mem;

    if (grant->mem) {
        return EBUSY;
    }
    mem = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED) {
        return errno;
    }
    for (size_t i = 0, n; i < grant->n; i += n) {
        n = run_length(grant, i);
        if (mmap(mem + i * HV_PAGE_SIZE, n * HV_PAGE_SIZE,
                 PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, grant->fd,
                 (off_t) grant->pages[i] * HV_PAGE_SIZE) == MAP_FAILED) {
            int error = errno;

            munmap(mem, size);
            return error;
        }
    }
    *ret_mem = grant->mem = mem;
    return 0;
}

static void
local_grant_detach(struct hv_grant *grant_)
{
    struct local_grant *grant = local_grant_cast(grant_);

    if (grant->mem) {
        munmap(grant->mem, grant->n * HV_PAGE_SIZE);
        grant->mem = NULL;
    }
}

static void
local_grant_release(struct hv_grant *grant_)
{
    struct local_grant *grant = local_grant_cast(grant_);

    release_map(grant->hv, grant->number);
    free(grant);
}

static void
free_pages(struct local_hv *hv, uint32_t start, uint32_t n)
{
    local_prepare(hv, BP_PAGES_FREE, start, n, 0);
    if (local_call(hv, hv->calls, NULL, NULL, NULL)) {
        /* The broker is gone and with it the pages. */
    }
}

static int
local_pages_alloc(struct hv *hv_, uint16_t domid, size_t n, bool writable,
                  uint32_t refs[], void **ret_mem, struct hv_pages **ret_pages)
{
    struct local_hv *hv = local_hv_cast(hv_);
    struct local_pages *pages = calloc(1, sizeof *pages);
    int fds[BP_MAX_FDS];
    uint32_t start;
    int error;
    void *mem;

    if (!pages) {
        return ENOMEM;
    }
    local_prepare(hv, BP_PAGES_ALLOC, domid, n, writable);
    error = local_call(hv, hv->calls, NULL, NULL, fds);
    if (error) {
        free(pages);
        return error;
    }
    start = hv->in.reply.a;
    if (hv->own_memory < 0) {
        hv->own_memory = fds[0];
    } else {
        close_fd(fds[0]);
    }
    mem = mmap(NULL, n * HV_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
               hv->own_memory, (off_t) start * HV_PAGE_SIZE);
    if (mem == MAP_FAILED) {
        error = errno;
        free_pages(hv, start, n);
        free(pages);
        return error;
    }
    pages->up.class = &hv_local_class;
    pages->hv = hv;
    pages->start = start;
    pages->n = n;
    pages->mem = mem;
    for (size_t i = 0; i < n; i++) {
        refs[i] = start + i + BP_FIRST_REF;
    }
    *ret_mem = mem;
    *ret_pages = &pages->up;
    return 0;
}

static void
local_pages_free(struct hv_pages *pages_)
{
    struct local_pages *pages = CONTAINER_OF(pages_, struct local_pages, up);

    munmap(pages->mem, (size_t) pages->n * HV_PAGE_SIZE);
    free_pages(pages->hv, pages->start, pages->n);
    free(pages);
}

/* ## Event channels ## */

static int
local_evtchn_fd(const struct hv *hv)
{
    return local_hv_cast(hv)->epoll;
}

static struct local_port *
find_port(const struct local_hv *hv, uint32_t number)
{
    return (number < hv->n_ports && hv->ports[number].rx >= 0
                ? &hv->ports[number]
                : NULL);
}

/* Takes 'fds' in for port 'number'. */
static int
add_port(struct local_hv *hv, uint32_t number, int fds[BP_MAX_FDS])
{
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLONESHOT,
        .data.u32 = number,
    };

    if (number >= hv->n_ports) {
        size_t n = MAX(number + 1, hv->n_ports * 2);
        struct local_port *ports = realloc(hv->ports, n * sizeof *ports);

        if (!ports) {
            return ENOMEM;
        }
        for (size_t i = hv->n_ports; i < n; i++) {
            ports[i].rx = ports[i].tx = -1;
        }
        hv->ports = ports;
        hv->n_ports = n;
    }
    if (epoll_ctl(hv->epoll, EPOLL_CTL_ADD, fds[0], &event)) {
        return errno;
    }
    hv->ports[number].rx = fds[0];
    hv->ports[number].tx = fds[1];
    return 0;
}

static int
get_port(struct local_hv *hv, enum bp_op op, uint32_t a, uint32_t b,
         uint32_t *ret_port)
{
    int fds[BP_MAX_FDS];
    uint32_t number;
    int error;

    if (hv->epoll < 0) {
        return EBADF;
    }
    local_prepare(hv, op, a, b, 0);
    error = local_call(hv, hv->channels, NULL, NULL, fds);
    if (error) {
        return error;
    }
    number = hv->in.reply.a;
    error = fds[0] >= 0 && fds[1] >= 0 ? add_port(hv, number, fds) : EMFILE;
    if (error) {
        close_fd(fds[0]);
        close_fd(fds[1]);
        local_prepare(hv, BP_UNBIND, number, 0, 0);
        if (local_call(hv, hv->channels, NULL, NULL, NULL)) {
            /* The first error is the one to report. */
        }
        return error;
    }
    *ret_port = number;
    return 0;
}

static int
local_evtchn_bind_interdomain(struct hv *hv, uint16_t domid,
                              uint32_t remote_port, uint32_t *ret_port)
{
    return get_port(local_hv_cast(hv), BP_BIND, domid, remote_port, ret_port);
}

static int
local_evtchn_alloc_unbound(struct hv *hv, uint16_t domid, uint32_t *ret_port)
{
    return get_port(local_hv_cast(hv), BP_ALLOC_UNBOUND, domid, 0, ret_port);
}

static void
local_evtchn_unbind(struct hv *hv_, uint32_t number)
{
    struct local_hv *hv = local_hv_cast(hv_);
    struct local_port *port = find_port(hv, number);

    if (port) {
        /* The broker and the peer hold the eventfd open, so closing ours does
         * not take it out of the epoll set. */
        epoll_ctl(hv->epoll, EPOLL_CTL_DEL, port->rx, NULL);
        close(port->rx);
        close(port->tx);
        port->rx = port->tx = -1;
        local_prepare(hv, BP_UNBIND, number, 0, 0);
        if (local_call(hv, hv->channels, NULL, NULL, NULL)) {
            /* Gone with the broker or the domain. */
        }
    }
}

static int
local_evtchn_notify(struct hv *hv, uint32_t number)
{
    struct local_port *port = find_port(local_hv_cast(hv), number);
    uint64_t one = 1;

    if (!port) {
        return EINVAL;
    }
    if (write(port->tx, &one, sizeof one) < 0 && errno != EAGAIN) {
        return errno;
    }
    return 0;
}

static int
local_evtchn_read(struct hv *hv_, uint32_t ports[], size_t max, size_t *ret_n)
{
    struct local_hv *hv = local_hv_cast(hv_);
    struct epoll_event events[64];
    int n = epoll_wait(hv->epoll, events, MIN(max, ARRAY_SIZE(events)), 0);

    if (n < 0) {
        if (errno != EINTR) {
            return errno;
        }
        n = 0;
    }
    for (int i = 0; i < n; i++) {
        struct local_port *port = find_port(hv, events[i].data.u32);
        uint64_t count;

        if (events[i].data.u32 == BROKER_GONE) {
            return ECONNRESET;
        }

        if (port && read(port->rx, &count, sizeof count) < 0) {
            /* EAGAIN: a spurious event, which is allowed. */
        }
        ports[i] = events[i].data.u32;
    }
    *ret_n = n;
    return 0;
}

static int
local_evtchn_unmask(struct hv *hv_, const uint32_t ports[], size_t n)
{
    struct local_hv *hv = local_hv_cast(hv_);

    for (size_t i = 0; i < n; i++) {
        struct local_port *port = find_port(hv, ports[i]);
        struct epoll_event event = {
            .events = EPOLLIN | EPOLLONESHOT,
            .data.u32 = ports[i],
        };

        if (port && epoll_ctl(hv->epoll, EPOLL_CTL_MOD, port->rx, &event)) {
            return errno;
        }
    }
    return 0;
}

const struct hv_class hv_local_class = {
    .name = "local",
    .open = local_open,
    .adopt = local_adopt,
    .close = local_close,
    .open_worker_fds = local_open_worker_fds,
    .grant_prepare = local_grant_prepare,
    .grant_location = local_grant_location,
    .grant_attach = local_grant_attach,
    .grant_detach = local_grant_detach,
    .grant_release = local_grant_release,
    .pages_alloc = local_pages_alloc,
    .pages_free = local_pages_free,
    .evtchn_fd = local_evtchn_fd,
    .evtchn_bind_interdomain = local_evtchn_bind_interdomain,
    .evtchn_alloc_unbound = local_evtchn_alloc_unbound,
    .evtchn_unbind = local_evtchn_unbind,
    .evtchn_notify = local_evtchn_notify,
    .evtchn_read = local_evtchn_read,
    .evtchn_unmask = local_evtchn_unmask,
    .store = &hv_local_store_class,
};
