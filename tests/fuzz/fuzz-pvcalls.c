/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz-pvcalls.c - the PV Calls device of a worker with a guest that writes
 * whatever the input says into the command ring, the indexes pages and the
 * data rings.  The hypervisor is played here: reference n is page n of a small
 * pool of memory, any port can be bound.  Sockets are real, in a network
 * namespace of their own without any network.
 *
 * Input: records of 66 bytes: op[1] arg[1] bytes[64].
 *   op % 4 == 0  a request (bytes) is put into the ring
 *   op % 4 == 1  word 'arg' of page 'bytes[0]' becomes bytes[4..7]
 *   op % 4 == 2  an event on port 'arg'
 *   op % 4 == 3  req_prod becomes bytes[0..3]
 */
#include <errno.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "backend/worker.h"
#include "lib/ring.h"
#include "lib/vlog.h"
#include "tests/fuzz/fuzz.h"

#define N_PAGES 16
#define N_PORTS 64

struct hv {
    int fd;
};
struct hv_grant {
    bool is_copy;
    void *mem;
    size_t n;
};

static struct hv hv;
static uint8_t *pages; /* N_PAGES of them. */
static bool port_bound[N_PORTS], port_pending[N_PORTS];
static struct worker w;
static bool no_network;

/* hv/hv.h, as far as the device uses it. */

int
hv_grant_map(struct hv *h UNUSED, uint16_t domid UNUSED, const uint32_t refs[],
             size_t n, struct hv_grant **ret_grant, void **ret_mem)
{
    struct hv_grant *g;

    for (size_t i = 0; i < n; i++) {
        if (refs[i] >= N_PAGES) {
            return EINVAL;
        }
    }
    g = calloc(1, sizeof *g);
    g->n = n;
    /* Several pages: a copy will do, what is in them does not matter. */
    g->is_copy = n > 1;
    g->mem = n > 1 ? calloc(n, HV_PAGE_SIZE) : pages + refs[0] * HV_PAGE_SIZE;
    *ret_grant = g;
    *ret_mem = g->mem;
    return 0;
}

void
hv_grant_release(struct hv_grant *g)
{
    if (g) {
        if (g->is_copy) {
            free(g->mem);
        }
        free(g);
    }
}

int
hv_evtchn_fd(const struct hv *h)
{
    return h->fd;
}

int
hv_evtchn_bind_interdomain(struct hv *h UNUSED, uint16_t domid UNUSED,
                           uint32_t remote, uint32_t *ret_port)
{
    uint32_t port = 1 + remote % (N_PORTS - 1);

    if (remote >= N_PORTS || port_bound[port]) {
        return EINVAL;
    }
    port_bound[port] = true;
    *ret_port = port;
    return 0;
}

void
hv_evtchn_unbind(struct hv *h UNUSED, uint32_t port)
{
    port_bound[port] = false;
}

int
hv_evtchn_notify(struct hv *h UNUSED, uint32_t port)
{
    if (!port_bound[port]) {
        abort();
    }
    return 0;
}

int
hv_evtchn_read(struct hv *h UNUSED, uint32_t ports[], size_t max,
               size_t *ret_n)
{
    size_t n = 0;

    for (uint32_t i = 0; i < N_PORTS && n < max; i++) {
        if (port_pending[i] && port_bound[i]) {
            port_pending[i] = false;
            ports[n++] = i;
        }
    }
    *ret_n = n;
    return 0;
}

int
hv_evtchn_unmask(struct hv *h UNUSED, const uint32_t ports[] UNUSED,
                 size_t n UNUSED)
{
    return 0;
}

/* The target. */

/* A guest can at least talk to itself. */
static void
raise_loopback(void)
{
    struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM, 0);

    if (ioctl(fd, SIOCSIFFLAGS, &ifr)) {
        perror("lo");
    }
    close(fd);
}

int
LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
    /* Nothing may reach the network of the machine that fuzzes. */
    no_network =
        !unshare(CLONE_NEWNET) || !unshare(CLONE_NEWUSER | CLONE_NEWNET);
    if (!no_network) {
        printf("# no network namespace can be made; nothing is run\n");
        return 0;
    }
    raise_loopback();
    if (vlog_set_level("off")) {
        abort();
    }
    pages = mmap(NULL, N_PAGES * HV_PAGE_SIZE, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    hv.fd = eventfd(1, EFD_NONBLOCK); /* Always readable. */
    w.hv = &hv;
    w.opt.max_sockets = 64;
    w.opt.max_pages = 128;
    w.opt.max_linger = 16384;
    w.opt.allow_loopback = true;
    if (worker_core_init(&w)) {
        abort();
    }
    return 0;
}

/* What worker-core.c's main loop does in a round, without sleeping. */
static void
round_(struct worker_device *dev)
{
    loop_run_once(w.loop, 0);
    while (!list_is_empty(&w.runq) && !dev->is_failed) {
        struct worker_task *task =
            CONTAINER_OF(list_pop_front(&w.runq), struct worker_task, link);

        task->run(task->aux);
    }
}

static void
step(const uint8_t record[66], uint32_t *prod)
{
    struct pvcalls_sring *sring = (struct pvcalls_sring *) (void *) pages;
    const uint8_t *bytes = record + 2;

    switch (record[0] % 4) {
    case 0: {
        struct pvcalls_request req;

        memcpy(&req, bytes, sizeof req);
        /* Mostly commands and ids that exist. */
        req.cmd %= PVCALLS_N_CMDS + 1;
        if (record[1] & 1) {
            req.u.poll.id %= 8;
        }
        pvcalls_request_put(sring, *prod, &req);
        ring_publish(&sring->req_prod, ++*prod);
        port_pending[1] = true;
        break;
    }
    case 1:
        memcpy(pages + bytes[0] % N_PAGES * HV_PAGE_SIZE + record[1] * 4,
               bytes + 4, 4);
        break;
    case 2:
        port_pending[record[1] % N_PORTS] = true;
        break;
    case 3:
        ring_publish(&sring->req_prod, get_le32(bytes));
        port_pending[1] = true;
        break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct wp_pvcalls geometry = {.max_page_order = 3, .flags = 3};
    struct worker_device *dev;
    char reason[WP_REASON_SIZE];
    uint32_t prod = 0;

    if (!no_network) {
        return 0;
    }
    memset(pages, 0, N_PAGES * HV_PAGE_SIZE);
    /* Page 1 is a good indexes page to begin with. */
    put_le32(pages + HV_PAGE_SIZE + 128, 1);
    put_le32(pages + HV_PAGE_SIZE + 132, 2);
    put_le32(pages + HV_PAGE_SIZE + 136, 3);
    memset(port_pending, 0, sizeof port_pending);
    if (pvcalls_create(&w, &geometry, &dev, reason)) {
        abort();
    }
    for (; size >= 66 && !dev->is_failed; data += 66, size -= 66) {
        step(data, &prod);
        round_(dev);
    }
    dev->class->destroy(dev);
    w.any_failed = false;
    list_init(&w.masked);
    loop_run_once(w.loop, 0);
    for (int i = 0; i < N_PORTS; i++) {
        if (port_bound[i]) {
            abort();
        }
    }
    if (!list_is_empty(&w.runq)) {
        abort();
    }
    return 0;
}
