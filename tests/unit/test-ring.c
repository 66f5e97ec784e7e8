/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * lib/ring: arithmetic across 2^32, notifications, and a peer that changes
 * every field between any two looks at it.
 *
 * The file is compiled with its loads replaced: each load of a shared field
 * asks the test what to see.
 */
#include <stdint.h>

static uint32_t hostile_load32(const void *);
static uint64_t hostile_load64(const void *);
#define RING_LOAD32(P) hostile_load32(P)
#define RING_LOAD64(P) hostile_load64(P)
#include "lib/ring.c"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <criterion/criterion.h>

/* What loads return: memory, or, for one field, another value each time. */
static const void *hostile_field;
static uint32_t hostile_values[4];
static unsigned int n_loads;

static uint32_t
hostile_load32(const void *p)
{
    if (p == hostile_field) {
        return hostile_values[n_loads++ % ARRAY_SIZE(hostile_values)];
    }
    return *(const volatile uint32_t *) p;
}

static uint64_t
hostile_load64(const void *p)
{
    return *(const volatile uint64_t *) p;
}

static void
be_hostile(const void *field, uint32_t first, uint32_t others)
{
    hostile_field = field;
    hostile_values[0] = first;
    hostile_values[1] = hostile_values[2] = hostile_values[3] = others;
    n_loads = 0;
}

static void
be_honest(void)
{
    hostile_field = NULL;
}

static struct pvcalls_indexes x;
static uint8_t data[4096];

/* Both ends of one direction, at the given index. */
static void
ends(struct ring_bytes *prod, struct ring_bytes *cons, uint32_t start)
{
    memset((void *) &x, 0, sizeof x);
    ring_bytes_init(prod, &x.out_prod, &x.out_cons, data, sizeof data);
    ring_bytes_init(cons, &x.out_prod, &x.out_cons, data, sizeof data);
    prod->prod = prod->cons = cons->prod = cons->cons = start;
    ring_store(&x.out_prod, start);
    ring_store(&x.out_cons, start);
}

static uint32_t
put(struct ring_bytes *r, const uint8_t *p, uint32_t n, bool *notify)
{
    struct iovec iov[2];
    uint32_t space = 0;

    cr_assert_eq(ring_bytes_free(r, &space), 0);
    n = MIN(n, space);
    for (int i = 0, k = ring_bytes_free_iov(r, 0, n, iov); i < k; i++) {
        memcpy(iov[i].iov_base, p, iov[i].iov_len);
        p += iov[i].iov_len;
    }
    *notify = n && ring_bytes_produce(r, n);
    return n;
}

static uint32_t
get(struct ring_bytes *r, uint8_t *p, uint32_t n, bool *notify)
{
    struct iovec iov[2];
    uint32_t used = 0;

    cr_assert_eq(ring_bytes_used(r, &used), 0);
    n = MIN(n, used);
    for (int i = 0, k = ring_bytes_used_iov(r, 0, n, iov); i < k; i++) {
        memcpy(p, iov[i].iov_base, iov[i].iov_len);
        p += iov[i].iov_len;
    }
    *notify = n && ring_bytes_consume(r, n, 1, r->size / 2);
    return n;
}

Test(ring, wrap_across_2_32)
{
    struct ring_bytes prod, cons;
    uint8_t in[5000], out[5000];
    uint8_t next_in = 0, next_out = 0;
    bool notify;

    ends(&prod, &cons, UINT32_MAX - 10000);
    srand(1);
    for (int i = 0; i < 20000; i++) {
        uint32_t n = rand() % sizeof in, got;

        for (uint32_t j = 0; j < n; j++) {
            in[j] = next_in + j;
        }
        next_in += put(&prod, in, n, &notify);
        got = get(&cons, out, rand() % sizeof out, &notify);
        for (uint32_t j = 0; j < got; j++) {
            cr_assert_eq(out[j], next_out++);
        }
    }
    cr_assert_lt(prod.prod, UINT32_MAX - 10000, "it did wrap");
}

/* Nobody sleeps for ever: whenever the other side may sleep, it is told. */
Test(ring, notifications)
{
    struct ring_bytes prod, cons;
    uint8_t buf[4096] = {0};
    bool notify;

    ends(&prod, &cons, 0);
    put(&prod, buf, 10, &notify);
    cr_expect(notify, "the ring was empty");
    put(&prod, buf, 10, &notify);
    cr_expect(!notify, "the consumer must look again anyway");
    get(&cons, buf, 20, &notify);
    cr_expect(!notify, "the ring was not full");
    put(&prod, buf, 10, &notify);
    cr_expect(notify);
    put(&prod, buf, 4096, &notify);
    cr_expect(!notify);
    get(&cons, buf, 100, &notify);
    cr_expect(!notify,
              "it was full, but waking for 100 bytes is not worth it");
    get(&cons, buf, 3000, &notify);
    cr_expect(notify, "now half of it is free");
    get(&cons, buf, 100, &notify);
    cr_expect(!notify, "once only");
}

/* A 9pfs producer waits for a whole message: any space may be enough. */
Test(ring, notify_for_messages)
{
    struct ring_bytes prod, cons;
    uint8_t buf[4096] = {0};
    bool notify;

    ends(&prod, &cons, 0);
    put(&prod, buf, 2000, &notify);
    cr_expect(!ring_bytes_consume(&cons, 100, 1000, 0), "2096 were free");
    put(&prod, buf, 2000, &notify);
    cr_expect(ring_bytes_consume(&cons, 100, 1000, 0), "196 were free");
}

/* An index that cannot be is refused, whatever it is. */
Test(ring, impossible_indices)
{
    struct ring_bytes prod, cons;
    uint8_t buf[4096] = {0};
    uint32_t n;
    bool notify;

    ends(&prod, &cons, 0xfffffff0);
    put(&prod, buf, 100, &notify);
    get(&cons, buf, 50, &notify);
    for (uint32_t i = 0; i < 64; i++) {
        uint32_t v = (uint32_t) i << 26 | 0x155;

        ring_store(&x.out_prod, v);
        if (v - cons.cons > 4096 || v - cons.cons < 50) {
            cr_expect_eq(ring_bytes_used(&cons, &n), EPROTO, "%#x", v);
        }
        ring_store(&x.out_cons, v);
        if (v - 0xfffffff0 > 100) {
            cr_expect_eq(ring_bytes_free(&prod, &n), EPROTO, "%#x", v);
        }
    }
    /* Backwards: what was given or taken stays so. */
    ring_store(&x.out_prod, cons.prod - 1);
    cr_expect_eq(ring_bytes_used(&cons, &n), EPROTO);
    ring_store(&x.out_cons, 0xfffffff0 + 50);
    cr_expect_eq(ring_bytes_free(&prod, &n), 0);
    ring_store(&x.out_cons, 0xfffffff0 + 49);
    cr_expect_eq(ring_bytes_free(&prod, &n), EPROTO);
}

/* A field with another value at each look: one look is taken, and what it
 * showed is used. */
Test(ring, double_fetch)
{
    struct ring_bytes prod, cons;
    struct iovec iov[2];
    uint32_t n;

    ends(&prod, &cons, 0);
    be_hostile(&x.out_prod, 100, 0x7fffffff);
    cr_assert_eq(ring_bytes_used(&cons, &n), 0);
    cr_expect_eq(n, 100);
    cr_expect_eq(n_loads, 1);
    cr_expect_eq(ring_bytes_used_iov(&cons, 0, n, iov), 1);
    cr_expect_eq(iov[0].iov_len, 100);
    cr_expect_eq(n_loads, 1);
    /* Only a hint about sleeping comes from the second look. */
    (void) !ring_bytes_consume(&cons, 100, 1, 2048);
    cr_expect_eq(n_loads, 2);
    cr_expect_eq(cons.cons, 100);
    cr_expect_eq(ring_bytes_used(&cons, &n), EPROTO);

    ends(&prod, &cons, 0);
    be_honest();
    (void) !ring_bytes_produce(&prod, 4096);
    be_hostile(&x.out_cons, 50, 5000);
    cr_assert_eq(ring_bytes_free(&prod, &n), 0);
    cr_expect_eq(n, 50);
    cr_expect_eq(n_loads, 1);
    cr_expect_eq(ring_bytes_free(&prod, &n), EPROTO);
    be_honest();
}

static union {
    struct pvcalls_sring sring;
    uint8_t page[4096];
} page;

static void
command_ends(struct ring_front *front, struct ring_back *back)
{
    memset((void *) &page, 0, sizeof page);
    ring_front_init(front, &page.sring);
    ring_back_init(back, &page.sring);
}

Test(ring, commands_across_2_32)
{
    struct ring_front front;
    struct ring_back back;
    struct pvcalls_request req = {0}, taken;
    struct pvcalls_response rsp = {0}, got;
    uint32_t start = UINT32_MAX - 100;
    bool notify;

    command_ends(&front, &back);
    front.req_prod = front.rsp_cons = back.req_cons = back.rsp_prod = start;
    ring_store(&page.sring.req_prod, start);
    ring_store(&page.sring.rsp_prod, start);
    for (uint32_t i = 0; i < 1000; i++) {
        uint32_t n = 1 + i % PVCALLS_N_SLOTS;

        for (uint32_t j = 0; j < n; j++) {
            req.req_id = i * 100 + j;
            cr_assert_eq(ring_front_put(&front, &req, &notify), 0);
        }
        for (uint32_t j = 0; j < n; j++) {
            cr_assert_eq(ring_back_take(&back, &taken), 0);
            cr_assert_eq(taken.req_id, i * 100 + j);
        }
        cr_assert_eq(ring_back_take(&back, &taken), EAGAIN);
        for (uint32_t j = 0; j < n; j++) {
            rsp.req_id = i * 100 + j;
            (void) !ring_back_respond(&back, &rsp);
        }
        for (uint32_t j = 0; j < n; j++) {
            cr_assert_eq(ring_front_take(&front, &got), 0);
            cr_assert_eq(got.req_id, i * 100 + j);
        }
        cr_assert_eq(ring_front_take(&front, &got), EAGAIN);
    }
}

Test(ring, command_notifications)
{
    struct ring_front front;
    struct ring_back back;
    struct pvcalls_request req = {0};
    struct pvcalls_response rsp = {0};
    bool notify;

    command_ends(&front, &back);
    cr_assert_eq(ring_front_put(&front, &req, &notify), 0);
    cr_expect(notify, "nobody looked yet");
    cr_assert_eq(ring_front_put(&front, &req, &notify), 0);
    cr_expect(!notify, "the back end is awake");
    cr_expect(!ring_back_sleep(&back), "there are requests");
    cr_assert_eq(ring_back_take(&back, &req), 0);
    cr_assert_eq(ring_back_take(&back, &req), 0);
    cr_expect(ring_back_sleep(&back));
    cr_assert_eq(ring_front_put(&front, &req, &notify), 0);
    cr_expect(notify);
    cr_expect(ring_back_respond(&back, &rsp));
    cr_expect(!ring_back_respond(&back, &rsp));
    cr_expect(!ring_front_sleep(&front));
}

Test(ring, commands_full_and_impossible)
{
    struct ring_front front;
    struct ring_back back;
    struct pvcalls_request req = {0};
    struct pvcalls_response rsp = {0};
    bool notify;

    command_ends(&front, &back);
    for (uint32_t i = 0; i < PVCALLS_N_SLOTS; i++) {
        cr_assert_eq(ring_front_put(&front, &req, &notify), 0);
    }
    cr_expect_eq(ring_front_put(&front, &req, &notify), EAGAIN);
    for (uint32_t i = 0; i < PVCALLS_N_SLOTS; i++) {
        cr_assert_eq(ring_back_take(&back, &req), 0);
    }
    /* All taken, none answered: one more request cannot be. */
    ring_store(&page.sring.req_prod, PVCALLS_N_SLOTS + 1);
    cr_expect_eq(ring_back_take(&back, &req), EPROTO);
    ring_store(&page.sring.req_prod, PVCALLS_N_SLOTS - 1);
    cr_expect_eq(ring_back_take(&back, &req), EPROTO, "backwards");

    command_ends(&front, &back);
    be_hostile(&page.sring.req_prod, 1, 0x55555555);
    cr_expect_eq(ring_back_take(&back, &req), 0);
    cr_expect_eq(n_loads, 1);
    cr_expect_eq(ring_back_take(&back, &req), EPROTO);
    be_honest();

    /* A back end that answers what was not asked. */
    command_ends(&front, &back);
    cr_assert_eq(ring_front_put(&front, &req, &notify), 0);
    ring_store(&page.sring.rsp_prod, 2);
    cr_expect_eq(ring_front_take(&front, &rsp), EPROTO);
}

/* gcc may not load a shared field twice, or not at all: count the loads of
 * the fetch helpers in the machine code that is shipped. */

static int
count_loads(const char *object, const char *function, const char *pattern)
{
    char command[512], line[64];
    FILE *p;
    int n = -1;

    /* From the function's label to the empty line behind it. */
    snprintf(command, sizeof command,
             "objdump -d --no-show-raw-insn '%s' | "
             "sed -n '/<%s>:/,/^$/p' | grep -cE '%s'",
             object, function, pattern);
    p = popen(command, "r");
    if (p && fgets(line, sizeof line, p)) {
        n = atoi(line);
    }
    if (p) {
        pclose(p);
    }
    return n;
}

Test(ring, loads_in_machine_code)
{
    char dir[] = "/tmp/test-ring-XXXXXX", object[64], command[512];

    if (system("command -v objdump gcc >/dev/null")) {
        cr_skip_test("no objdump or gcc");
    }
    cr_assert(mkdtemp(dir));
    snprintf(object, sizeof object, "%s/ring.o", dir);
    /* As the shipped one, but loops unrolled or vectorized would be counted
     * wrongly. */
    snprintf(command, sizeof command,
             "gcc -std=gnu11 -O2 -D_GNU_SOURCE -I. -c -o %s lib/ring.c",
             object);
    cr_assert_eq(system(command), 0);
#if defined(__x86_64__)
    /* Memory operands as a source: "mov (%rdi),%eax". */
    cr_expect_eq(
        count_loads(object, "ring_load_index__", "mov +[^,]*\\(%rdi[^)]*\\),"),
        1);
    /* The loop over words has one load of a source word. */
    cr_expect_eq(count_loads(object, "ring_load_request__",
                             "mov[a-z]* +-?(0x[0-9a-f]+)?\\(%r[^)]*\\),"),
                 1);
    cr_expect_eq(count_loads(object, "ring_load_response__",
                             "mov[a-z]* +-?(0x[0-9a-f]+)?\\(%r[^)]*\\),"),
                 3);
#endif
    unlink(object);
    rmdir(dir);
}
