/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hostile-files.c - cases for the 9pfs device; see hostile.c.
 */
#include "tests/peers/hostile.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/clock.h"
#include "tests/peers/p9front.h"
#include "wire/ninep.h"

#define KIND "9pfs"
#define ORDER 4
#define ROOT 1 /* fid */

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

static struct p9front *f;
static uint8_t buf[65536], rsp[65536];
static uint32_t len;

static const char *
connect_rings(uint32_t n_rings)
{
    struct hostile_node nodes[1 + 2 * P9FRONT_MAX_RINGS];
    size_t n = 0;

    snprintf(nodes[n].name, sizeof nodes[n].name, "num-rings");
    nodes[n++].value = n_rings;
    for (uint32_t i = 0; i < f->n_rings; i++) {
        snprintf(nodes[n].name, sizeof nodes[n].name, "ring-ref%u", i);
        nodes[n++].value = f->rings[i].ref;
        snprintf(nodes[n].name, sizeof nodes[n].name, "event-channel-%u", i);
        nodes[n++].value = f->rings[i].port;
    }
    return hostile_connect(KIND, nodes, n);
}

static const char *
up(void)
{
    TRY(hostile_begin(KIND));
    EXPECT(!p9front_create(hostile.hv, hostile.backend, 2, ORDER, &f));
    return connect_rings(2);
}

static void
down(void)
{
    hostile_end(KIND);
    p9front_destroy(f);
    f = NULL;
}

/* Messages. */

static void
begin(uint8_t type, uint16_t tag)
{
    buf[4] = type;
    put_le16(buf + 5, tag);
    len = 7;
}

static void
u16(uint16_t x)
{
    put_le16(buf + len, x);
    len += 2;
}

static void
u32(uint32_t x)
{
    put_le32(buf + len, x);
    len += 4;
}

static void
str(const char *s, uint16_t n)
{
    u16(n);
    memcpy(buf + len, s, n);
    len += n;
}

/* Sends what is in 'buf' on ring tag % 2 and waits for the answer, whose type
 * is returned; 0 if none comes. */
static uint8_t
call(void)
{
    uint64_t end = clock_mono_ns() + HOSTILE_MS * NSEC_PER_MSEC;
    uint32_t ring = get_le16(buf + 5) % 2, size;

    put_le32(buf, len);
    if (p9front_put(f, ring, buf, len)) {
        return 0;
    }
    do {
        if (!p9front_take(f, ring, rsp, sizeof rsp, &size)) {
            return rsp[4];
        }
        p9front_wait(f, 50);
    } while (clock_mono_ns() < end && hostile_is_connected(KIND));
    return 0;
}

static const char *
version(uint32_t msize)
{
    begin(NINEP_TVERSION, 0xffff);
    u32(msize);
    str("9P2000.L", 8);
    EXPECT(call() == NINEP_RVERSION);
    return NULL;
}

static const char *
attach(void)
{
    TRY(version(8192));
    begin(NINEP_TATTACH, 1);
    u32(ROOT);
    u32(0xffffffff);
    str("root", 4);
    str("", 0);
    u32(0);
    EXPECT(call() == NINEP_RATTACH);
    return NULL;
}

static const char *
again(void)
{
    const char *error;

    down();
    TRY(up());
    error = attach();
    down();
    return error;
}

/* Cases. */

static const char *
works(void)
{
    TRY(up());
    TRY(attach());
    down();
    return NULL;
}

static const char *
bad_order(uint32_t order)
{
    TRY(hostile_begin(KIND));
    EXPECT(!p9front_create(hostile.hv, hostile.backend, 2, 1, &f));
    ring_store(&f->rings[1].intf->ring_order, order);
    EXPECT(connect_rings(2));
    return again();
}

static const char *
order_0(void)
{
    return bad_order(0);
}

static const char *
order_40(void)
{
    return bad_order(40);
}

static const char *
order_missing_pages(void)
{
    return bad_order(3);
}

static const char *
bad_num_rings(uint32_t n)
{
    TRY(hostile_begin(KIND));
    EXPECT(!p9front_create(hostile.hv, hostile.backend, 2, 1, &f));
    EXPECT(connect_rings(n));
    return again();
}

static const char *
num_rings_0(void)
{
    return bad_num_rings(0);
}

static const char *
num_rings_1000(void)
{
    return bad_num_rings(1000);
}

/* A message whose header says 'size', of which 'n' bytes are there. */
static const char *
bad_size(uint32_t size, uint32_t n)
{
    TRY(up());
    TRY(attach());
    begin(NINEP_TREAD, 2);
    memset(buf + 7, 0, sizeof buf - 7);
    put_le32(buf, size);
    EXPECT(!p9front_put(f, 0, buf, n));
    TRY(hostile_expect_closed(KIND));
    return again();
}

static const char *
size_0(void)
{
    return bad_size(0, 7);
}

static const char *
size_6(void)
{
    return bad_size(6, 7);
}

static const char *
size_huge(void)
{
    return bad_size(0xffffffff, 7);
}

static const char *
size_beyond_msize(void)
{
    return bad_size(8193, 8193);
}

static const char *
duplicate_tag(void)
{
    TRY(up());
    TRY(attach());
    /* In one go, so that the first is still in flight. */
    begin(NINEP_TSTATFS, 2);
    u32(ROOT);
    put_le32(buf, len);
    memcpy(buf + len, buf, len);
    EXPECT(!p9front_put(f, 0, buf, 2 * len));
    TRY(hostile_expect_closed(KIND));
    return again();
}

static const char *
bad_index(bool in, uint32_t value)
{
    struct p9front_ring *r;

    TRY(up());
    TRY(attach());
    r = &f->rings[0];
    ring_store(in ? &r->intf->in_cons : &r->intf->out_prod,
               (in ? r->in.prod : r->out.cons) + value);
    hv_evtchn_notify(hostile.hv, r->port);
    TRY(hostile_expect_closed(KIND));
    return again();
}

static const char *
out_index_far(void)
{
    return bad_index(false, 0x80000000);
}

static const char *
in_index_ahead(void)
{
    return bad_index(true, 1);
}

static const char *
unknown_type(void)
{
    static const uint8_t types[] = {0, 6, 7, 99, 101, 200, 255};

    TRY(up());
    TRY(attach());
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        begin(types[i], 3 + i);
        EXPECT(call() == NINEP_RLERROR);
    }
    TRY(attach());
    down();
    return NULL;
}

static const char *
truncated_messages(void)
{
    TRY(up());
    TRY(attach());
    for (int type = 8; type < 128; type += 2) {
        if (type == NINEP_TVERSION || type == NINEP_TFLUSH) {
            continue;
        }
        begin(type, type);
        EXPECT(call() == NINEP_RLERROR);
        begin(type, type);
        u16(0xffff);
        EXPECT(call() == NINEP_RLERROR);
    }
    TRY(attach());
    down();
    return NULL;
}

/* Names that no file may have; a step out of the root stays there. */
static const char *
bad_names(void)
{
    static const struct {
        const char *name;
        uint16_t size;
    } names[] = {{"a/b", 3}, {"a\0b", 3}, {"/", 1}, {"", 0}, {"../x", 4}};

    TRY(up());
    TRY(attach());
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        begin(NINEP_TWALK, 5);
        u32(ROOT);
        u32(100 + i);
        u16(1);
        str(names[i].name, names[i].size);
        EXPECT(call() == NINEP_RLERROR);
        begin(NINEP_TMKDIR, 6);
        u32(ROOT);
        str(names[i].name, names[i].size);
        u32(0755);
        u32(0);
        EXPECT(call() == NINEP_RLERROR);
    }
    /* ".." of the root is the root, or refused: never something else. */
    begin(NINEP_TWALK, 7);
    u32(ROOT);
    u32(50);
    u16(0);
    EXPECT(call() == NINEP_RWALK);
    begin(NINEP_TGETATTR, 7);
    u32(ROOT);
    u32(0x7ff);
    u32(0);
    EXPECT(call() == NINEP_RGETATTR);
    {
        uint8_t root_qid[13];

        memcpy(root_qid, rsp + 15, sizeof root_qid);
        begin(NINEP_TWALK, 8);
        u32(ROOT);
        u32(51);
        u16(3);
        str("..", 2);
        str("..", 2);
        str("..", 2);
        if (call() == NINEP_RWALK) {
            uint16_t n = get_le16(rsp + 7);

            for (uint16_t i = 0; i < n; i++) {
                EXPECT(!memcmp(rsp + 9 + 13 * i + 5, root_qid + 5, 8));
            }
        } else {
            EXPECT(rsp[4] == NINEP_RLERROR);
        }
    }
    down();
    return NULL;
}

/* Counts that would overflow. */
static const char *
huge_counts(void)
{
    TRY(up());
    TRY(attach());
    begin(NINEP_TREAD, 2);
    u32(ROOT);
    u32(0xffffffff);
    u32(0xffffffff);
    u32(0xffffffff);
    EXPECT(call() == NINEP_RLERROR);
    begin(NINEP_TWALK, 3);
    u32(ROOT);
    u32(60);
    u16(0xffff);
    EXPECT(call() == NINEP_RLERROR);
    TRY(attach());
    down();
    return NULL;
}

/* A flood of garbage behind good headers. */
static const char *
garbage(void)
{
    TRY(up());
    TRY(attach());
    for (int i = 0; i < 3000 && hostile_is_connected(KIND); i++) {
        uint32_t n = hostile_random() % 200, size;

        begin(2 * (hostile_random() % 64), 0x1000 + i);
        if (buf[4] == NINEP_TVERSION) {
            continue;
        }
        for (uint32_t j = 0; j < n; j++) {
            buf[len++] = hostile_random() & (i % 2 ? 255 : 1);
        }
        put_le32(buf, len);
        if (p9front_put(f, i % 2, buf, len)) {
            p9front_wait(f, 10);
        }
        for (int ring = 0; ring < 2; ring++) {
            while (!p9front_take(f, ring, rsp, sizeof rsp, &size)) {
                continue;
            }
        }
    }
    return again();
}

/* Another thread changes messages while they are being carried. */
static volatile bool stop_flipping;

static void *
flip(void *aux UNUSED)
{
    struct ring_bytes *out = &f->rings[0].out;

    while (!stop_flipping) {
        ((volatile uint8_t *) out->data)[hostile_random() % out->size] =
            hostile_random();
    }
    return NULL;
}

static const char *
double_fetch(void)
{
    uint64_t end = clock_mono_ns() + 2000 * NSEC_PER_MSEC;
    pthread_t thread;
    uint16_t tag = 2;

    TRY(up());
    TRY(attach());
    stop_flipping = false;
    EXPECT(!pthread_create(&thread, NULL, flip, NULL));
    while (clock_mono_ns() < end && hostile_is_connected(KIND)) {
        uint32_t size;

        begin(NINEP_TWALK, tag);
        tag += 2;
        u32(ROOT);
        u32(77);
        u16(1);
        str("no-such-name", 12);
        put_le32(buf, len);
        if (p9front_put(f, 0, buf, len)) {
            p9front_wait(f, 1);
        }
        while (!p9front_take(f, 0, rsp, sizeof rsp, &size)) {
            continue;
        }
    }
    stop_flipping = true;
    pthread_join(thread, NULL);
    return again();
}

const struct hostile_case hostile_files[] = {
    {"9pfs-works", works},
    {"9pfs-ring-order-0", order_0},
    {"9pfs-ring-order-40", order_40},
    {"9pfs-ring-missing-pages", order_missing_pages},
    {"9pfs-num-rings-0", num_rings_0},
    {"9pfs-num-rings-1000", num_rings_1000},
    {"9pfs-size-0", size_0},
    {"9pfs-size-6", size_6},
    {"9pfs-size-huge", size_huge},
    {"9pfs-size-beyond-msize", size_beyond_msize},
    {"9pfs-duplicate-tag", duplicate_tag},
    {"9pfs-out-index-far", out_index_far},
    {"9pfs-in-index-ahead", in_index_ahead},
    {"9pfs-unknown-type", unknown_type},
    {"9pfs-truncated-messages", truncated_messages},
    {"9pfs-bad-names", bad_names},
    {"9pfs-huge-counts", huge_counts},
    {"9pfs-garbage", garbage},
    {"9pfs-double-fetch", double_fetch},
    {NULL, NULL},
};
