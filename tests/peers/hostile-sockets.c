/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hostile-sockets.c - cases for the PV Calls device; see hostile.c.
 */
#include "tests/peers/hostile.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "frontend/sockets/user/pvfront.h"
#include "lib/clock.h"

#define KIND "pvcalls"
#define MS HOSTILE_MS

static struct pvfront *f;

/* Evaluates 'EXPR' and returns its text if it is false. */
#define EXPECT(EXPR)      \
    do {                  \
        if (!(EXPR)) {    \
            return #EXPR; \
        }                 \
    } while (0)
#define TRY(EXPR)                     \
    do {                              \
        const char *error__ = (EXPR); \
        if (error__) {                \
            return error__;           \
        }                             \
    } while (0)

static const char *
up(void)
{
    struct hostile_node nodes[] = {{"ring-ref", 0}, {"port", 0}};

    TRY(hostile_begin(KIND));
    EXPECT(!pvfront_create(hostile.hv, hostile.backend, &f));
    nodes[0].value = f->ring_ref;
    nodes[1].value = f->port;
    return hostile_connect(KIND, nodes, ARRAY_SIZE(nodes));
}

static void
down(void)
{
    hostile_end(KIND);
    pvfront_destroy(f);
    f = NULL;
}

/* The device works: a listener can be made. */
static const char *
works(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    struct pvfront_sock *l;

    EXPECT(!pvfront_listen(f, &sin, 1, MS, &l));
    EXPECT(!pvfront_close(l, false, MS));
    return NULL;
}

/* After a case: a new connection of the device works. */
static const char *
again(void)
{
    const char *error;

    down();
    TRY(up());
    error = works();
    down();
    return error;
}

static const char *
unknown_command(void)
{
    TRY(up());
    for (uint32_t cmd = PVCALLS_N_CMDS; cmd; cmd = cmd * 3 + 1) {
        struct pvcalls_request req = {.cmd = cmd};

        if (cmd >= PVCALLS_N_CMDS) {
            EXPECT(pvfront_call(f, &req, MS) == PVCALLS_ENOTSUPP);
        }
        if (cmd > 0x40000000) {
            break;
        }
    }
    TRY(works());
    down();
    return NULL;
}

static const char *
garbage_commands(void)
{
    TRY(up());
    for (int i = 0; i < 3000; i++) {
        struct pvcalls_request req;
        struct pvfront_pending *p;
        uint32_t *words = (uint32_t *) &req;

        for (size_t j = 0; j < sizeof req / 4; j++) {
            words[j] = hostile_random() & (i % 3 ? 3 : UINT32_MAX);
        }
        req.cmd = hostile_random() % 9;
        if (pvfront_submit(f, &req, &p)) {
            break; /* Parked ones have filled the ring. */
        }
        pvfront_finish(f, p, 20);
    }
    EXPECT(!f->is_broken);
    EXPECT(hostile_is_connected(KIND));
    return again();
}

static const char *
bad_references(void)
{
    struct pvcalls_request req = {.cmd = PVCALLS_CONNECT};
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(9)};
    static const uint32_t refs[] = {0, 1, 0x7fffffff, 0xffffffff};

    sin.sin_addr.s_addr = htonl(0xc0000201); /* 192.0.2.1 */
    TRY(up());
    memcpy(req.u.connect.addr, &sin, sizeof sin);
    req.u.connect.len = sizeof sin;
    for (size_t i = 0; i < ARRAY_SIZE(refs); i++) {
        req.u.connect.id = 1000 + i;
        req.u.connect.ref = refs[i];
        EXPECT(pvfront_call(f, &req, MS) == EINVAL);
    }
    TRY(works());
    down();
    return NULL;
}

static const char *
bad_ring(uint32_t order, bool good_port)
{
    struct pvcalls_request req = {.cmd = PVCALLS_CONNECT};
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(9)};
    struct pvfront_ring *r;
    const char *error;

    sin.sin_addr.s_addr = htonl(0xc0000201);
    TRY(up());
    EXPECT(!pvfront_ring_get(f, 1, &r));
    ring_store(&r->indexes->ring_order, order);
    memcpy(req.u.connect.addr, &sin, sizeof sin);
    req.u.connect.len = sizeof sin;
    req.u.connect.id = 1000;
    req.u.connect.ref = r->ref;
    req.u.connect.evtchn = good_port ? r->port : 0xfffff;
    error = pvfront_call(f, &req, MS) == EINVAL ? NULL : "no EINVAL";
    if (!error) {
        error = works();
    }
    pvfront_ring_put(f, r, false);
    down();
    return error;
}

static const char *
ring_order_0(void)
{
    return bad_ring(0, true);
}

static const char *
ring_order_40(void)
{
    return bad_ring(40, true);
}

static const char *
ring_order_missing_pages(void)
{
    return bad_ring(3, true);
}

static const char *
bad_event_channel(void)
{
    return bad_ring(1, false);
}

static const char *
duplicate_ids(void)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    struct pvcalls_request req = {.cmd = PVCALLS_SOCKET};
    struct pvfront_sock *l;
    struct pvfront_pending *p[2];

    TRY(up());
    EXPECT(!pvfront_listen(f, &sin, 1, MS, &l));
    req.u.socket.id = l->id;
    req.u.socket.domain = AF_INET;
    req.u.socket.type = SOCK_STREAM;
    EXPECT(pvfront_call(f, &req, MS) == EEXIST);
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_ACCEPT;
    req.u.accept.id = req.u.accept.id_new = l->id;
    EXPECT(pvfront_call(f, &req, MS) == EEXIST);
    /* The same request id twice, both parked, both answered. */
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_POLL;
    req.u.poll.id = l->id;
    EXPECT(!pvfront_submit(f, &req, &p[0]));
    EXPECT(!pvfront_submit(f, &req, &p[1]));
    EXPECT(!pvfront_close(l, false, MS));
    EXPECT(pvfront_finish(f, p[0], MS) == ECONNABORTED);
    EXPECT(pvfront_finish(f, p[1], MS) == ECONNABORTED);
    TRY(works());
    down();
    return NULL;
}

static const char *
absurd_request_index(uint32_t distance)
{
    TRY(up());
    ring_store(&f->ring.sring->req_prod, f->ring.req_prod + distance);
    hv_evtchn_notify(hostile.hv, f->port);
    TRY(hostile_expect_closed(KIND));
    return again();
}

static const char *
request_index_far(void)
{
    return absurd_request_index(0x40000000);
}

static const char *
request_index_33(void)
{
    return absurd_request_index(PVCALLS_N_SLOTS + 1);
}

static const char *
request_index_back(void)
{
    return absurd_request_index(UINT32_MAX);
}

/* An index of a data ring. */
static const char *
absurd_data_index(bool in, uint32_t distance)
{
    struct pvfront_sock *s;
    struct ring_u32 *field;

    if (!hostile.has_target) {
        return HOSTILE_SKIP;
    }
    TRY(up());
    EXPECT(!pvfront_connect(f, &hostile.target, 1, MS, &s));
    field = in ? &s->ring->indexes->in_cons : &s->ring->indexes->out_prod;
    ring_store(field, distance);
    hv_evtchn_notify(hostile.hv, s->ring->port);
    TRY(hostile_expect_closed(KIND));
    pvfront_ring_put(f, s->ring, true);
    free(s);
    return again();
}

static const char *
out_index_far(void)
{
    return absurd_data_index(false, 0x80000000);
}

static const char *
out_index_one_too_many(void)
{
    return absurd_data_index(false, 4097);
}

static const char *
in_index_far(void)
{
    return absurd_data_index(true, 0x80000000);
}

static const char *
in_index_ahead(void)
{
    return absurd_data_index(true, 1);
}

/* Another thread changes everything shared while the backend looks at it. */
static volatile bool stop_flipping;

static void *
flip(void *aux UNUSED)
{
    volatile uint64_t *slots = (volatile uint64_t *) f->ring.sring->slot;
    uint32_t i = 0;

    while (!stop_flipping) {
        slots[hostile_random() % (PVCALLS_N_SLOTS * PVCALLS_SLOT_WORDS)] =
            (uint64_t) hostile_random() << 32 | (hostile_random() & 15);
        if (++i % 4096 == 0) {
            ring_store(&f->ring.sring->rsp_event, hostile_random());
        }
    }
    return NULL;
}

static const char *
double_fetch_commands(void)
{
    uint64_t end = clock_mono_ns() + 2000 * NSEC_PER_MSEC;
    pthread_t thread;
    uint32_t prod;

    TRY(up());
    prod = f->ring.req_prod;
    stop_flipping = false;
    EXPECT(!pthread_create(&thread, NULL, flip, NULL));
    while (clock_mono_ns() < end) {
        uint32_t rsp = ring_fetch(&f->ring.sring->rsp_prod);

        if (prod - rsp < 24) {
            ring_publish(&f->ring.sring->req_prod, ++prod);
            hv_evtchn_notify(hostile.hv, f->port);
        } else {
            sched_yield();
        }
    }
    stop_flipping = true;
    pthread_join(thread, NULL);
    EXPECT(hostile_is_connected(KIND));
    f->is_broken = true;
    return again();
}

/* The same for the indexes page of a connection. */
static void *
flip_indexes(void *s_)
{
    struct pvfront_sock *s = s_;

    while (!stop_flipping) {
        uint32_t cons = ring_fetch(&s->ring->indexes->out_cons);

        ring_store(&s->ring->indexes->out_prod, cons + 4096);
        ring_store(&s->ring->indexes->ring_order, hostile_random());
        ring_store(&s->ring->indexes->ref[hostile_random() % 4],
                   hostile_random());
        ring_store(&s->ring->indexes->out_prod, cons + 100);
        ring_store(&s->ring->indexes->in_prod, hostile_random());
        ring_store(&s->ring->indexes->out_cons, hostile_random());
    }
    return NULL;
}

static const char *
double_fetch_indexes(void)
{
    uint64_t end = clock_mono_ns() + 2000 * NSEC_PER_MSEC;
    struct pvfront_sock *s;
    pthread_t thread;

    if (!hostile.has_target) {
        return HOSTILE_SKIP;
    }
    TRY(up());
    EXPECT(!pvfront_connect(f, &hostile.target, 1, MS, &s));
    stop_flipping = false;
    EXPECT(!pthread_create(&thread, NULL, flip_indexes, s));
    while (clock_mono_ns() < end) {
        hv_evtchn_notify(hostile.hv, s->ring->port);
    }
    stop_flipping = true;
    pthread_join(thread, NULL);
    pvfront_ring_put(f, s->ring, true);
    free(s);
    f->is_broken = true;
    return again();
}

static const char *
event_storm(void)
{
    uint64_t end = clock_mono_ns() + 1000 * NSEC_PER_MSEC;

    TRY(up());
    while (clock_mono_ns() < end) {
        hv_evtchn_notify(hostile.hv, f->port);
    }
    TRY(works());
    down();
    return NULL;
}

/* As many sockets as one gets. */
static const char *
socket_flood(void)
{
    struct pvcalls_request req = {.cmd = PVCALLS_SOCKET};
    int error = 0, n = 0;

    TRY(up());
    req.u.socket.domain = AF_INET;
    req.u.socket.type = SOCK_STREAM;
    for (; n < 100000 && !error; n++) {
        req.u.socket.id = 1000000 + n;
        error = pvfront_call(f, &req, MS);
    }
    EXPECT(error == ENOBUFS);
    return again();
}

/* Nodes that name nothing: the device does not connect, and does later. */
static const char *
bad_nodes(void)
{
    struct hostile_node nodes[] = {{"ring-ref", 0x7fffffff}, {"port", 0xfff}};

    TRY(hostile_begin(KIND));
    EXPECT(hostile_connect(KIND, nodes, 2));
    TRY(up());
    TRY(works());
    down();
    return NULL;
}

/* The memory goes away while it is mapped. */
static const char *
ring_freed_in_use(void)
{
    struct pvfront_sock *s;

    if (!hostile.has_target) {
        return HOSTILE_SKIP;
    }
    TRY(up());
    EXPECT(!pvfront_connect(f, &hostile.target, 1, MS, &s));
    EXPECT(pvfront_send(s, "hello", 5) == 5);
    pvfront_ring_put(f, s->ring, false);
    free(s);
    TRY(works());
    return again();
}

const struct hostile_case hostile_sockets[] = {
    {"pvcalls-bad-nodes", bad_nodes},
    {"pvcalls-unknown-command", unknown_command},
    {"pvcalls-garbage-commands", garbage_commands},
    {"pvcalls-bad-references", bad_references},
    {"pvcalls-ring-order-0", ring_order_0},
    {"pvcalls-ring-order-40", ring_order_40},
    {"pvcalls-ring-missing-pages", ring_order_missing_pages},
    {"pvcalls-bad-event-channel", bad_event_channel},
    {"pvcalls-duplicate-ids", duplicate_ids},
    {"pvcalls-request-index-far", request_index_far},
    {"pvcalls-request-index-33", request_index_33},
    {"pvcalls-request-index-back", request_index_back},
    {"pvcalls-out-index-far", out_index_far},
    {"pvcalls-out-index-one-too-many", out_index_one_too_many},
    {"pvcalls-in-index-far", in_index_far},
    {"pvcalls-in-index-ahead", in_index_ahead},
    {"pvcalls-double-fetch-commands", double_fetch_commands},
    {"pvcalls-double-fetch-indexes", double_fetch_indexes},
    {"pvcalls-event-storm", event_storm},
    {"pvcalls-socket-flood", socket_flood},
    {"pvcalls-ring-freed-in-use", ring_freed_in_use},
    {NULL, NULL},
};
