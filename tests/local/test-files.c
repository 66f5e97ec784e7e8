/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test-files.c - the 9pfs transport of a real worker over hv/local, between a
 * frontend of ours and a server that this program plays: framing, order,
 * back-pressure, and what a hostile guest or a broken server may do.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "tests/local/harness.h"
#include "tests/peers/p9front.h"
#include "wire/ninep.h"

#define MS 10000
#define N_RINGS 2
#define BUF (1 << 20)

static struct p9front *f;
static int server = -1; /* vafsd's end. */
static uint8_t out[BUF], in[BUF], srv[BUF];

static void
device_add(uint32_t n_rings, uint32_t order)
{
    union wp_geometry g;
    int pair[2];

    memset(&g, 0, sizeof g);
    CHECK_EQ(p9front_create(h.front, 0, n_rings, order, &f), 0);
    g.p9.n_rings = n_rings;
    g.p9.max_ring_page_order = 9;
    for (uint32_t i = 0; i < n_rings; i++) {
        g.p9.ring_ref[i] = f->rings[i].ref;
        g.p9.port[i] = f->rings[i].port;
    }
    strcpy(g.p9.path, "view/test");
    CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    harness_device_add(WP_KIND_9PFS, 0, &g, pair[1]);
    close(pair[1]);
    server = pair[0];
}

static void
device_up(uint32_t order)
{
    device_add(N_RINGS, order);
    CHECK_EQ(h.state.state, WP_CONNECTED);
}

static void
device_down(void)
{
    harness_device_remove(WP_KIND_9PFS, 0);
    CHECK_EQ(h.state.state, WP_CLOSED);
    p9front_destroy(f);
    close(server);
}

/* Builds a message in 'buf': header, and a body that depends on the tag. */
static uint32_t
make(uint8_t *buf, uint32_t size, uint8_t type, uint16_t tag)
{
    put_le32(buf, size);
    buf[4] = type;
    put_le16(buf + 5, tag);
    for (uint32_t i = 7; i < size; i++) {
        buf[i] = i * 7 + tag;
    }
    return size;
}

static bool
is_good(const uint8_t *buf, uint32_t size, uint16_t tag)
{
    for (uint32_t i = 7; i < size; i++) {
        if (buf[i] != (uint8_t) (i * 7 + tag)) {
            return false;
        }
    }
    return get_le32(buf) == size && get_le16(buf + 5) == tag;
}

/* The server's side: a whole message, or -1. */
static ssize_t
srv_recv(int timeout_ms)
{
    struct pollfd pfd = {.fd = server, .events = POLLIN};
    uint32_t size;

    if (poll(&pfd, 1, timeout_ms) <= 0 ||
        recv(server, srv, 7, MSG_WAITALL) != 7) {
        return -1;
    }
    size = get_le32(srv);
    if (size > sizeof srv || (size > 7 && recv(server, srv + 7, size - 7,
                                               MSG_WAITALL) != size - 7)) {
        return -1;
    }
    return size;
}

static void
srv_send(const uint8_t *buf, uint32_t size)
{
    CHECK(!write_full(server, buf, size));
}

static bool
take(uint32_t ring, uint32_t *ret_size)
{
    uint64_t end = clock_mono_ns() + MS * NSEC_PER_MSEC;
    int error;

    while ((error = p9front_take(f, ring, in, sizeof in, ret_size)) ==
               EAGAIN &&
           clock_mono_ns() < end) {
        p9front_wait(f, 100);
    }
    CHECK_EQ(error, 0);
    return !error;
}

/* One exchange; returns the msize that the server saw. */
static uint32_t
version(uint32_t msize, uint32_t answer)
{
    uint32_t size, seen;

    make(out, 21, NINEP_TVERSION, 0xffff);
    put_le32(out + 7, msize);
    CHECK_EQ(p9front_put(f, 0, out, 21), 0);
    CHECK_EQ(srv_recv(MS), 21);
    seen = get_le32(srv + 7);
    srv[4] = NINEP_RVERSION;
    put_le32(srv + 7, answer ? answer : seen);
    srv_send(srv, 21);
    CHECK(take(0, &size));
    CHECK_EQ(size, 21);
    CHECK_EQ(get_le32(in + 7), answer ? answer : seen);
    return seen;
}

static void
test_round_trip(void)
{
    uint32_t size;

    device_up(9);
    CHECK_EQ(version(512 * 1024, 0), 512 * 1024);
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t n = 7 + i * 1237 % 200000, ring = i % N_RINGS;

        CHECK_EQ(p9front_put(f, ring, out, make(out, n, NINEP_TWRITE, i)), 0);
        CHECK_EQ(srv_recv(MS), n);
        CHECK(is_good(srv, n, i));
        n = 7 + i * 7919 % 200000;
        srv_send(srv, make(srv, n, NINEP_RREAD, i));
        CHECK(take(ring, &size));
        CHECK_EQ(size, n);
        CHECK(is_good(in, n, i));
    }
    device_down();
}

/* msize is lowered to what the smallest ring can carry. */
static void
test_msize(void)
{
    device_up(1);
    CHECK_EQ(version(512 * 1024, 0), 4096);
    CHECK_EQ(p9front_put(f, 0, out, make(out, 4096, NINEP_TWRITE, 1)), 0);
    CHECK_EQ(srv_recv(MS), 4096);
    device_down();

    device_up(4);
    CHECK_EQ(version(8192, 0), 8192);
    CHECK_EQ(p9front_put(f, 0, out, make(out, 8193, NINEP_TWRITE, 1)), 0);
    CHECK(harness_wait_state(MS));
    CHECK_EQ(h.state.state, WP_FAILED);
    CHECK(strstr(h.state.reason, "longer than msize"));
    device_down();
}

/* Many requests from both rings at once, answered out of order, through rings
 * that wrap and fill. */
static void
test_many(void)
{
    enum { N = 2000, IN_FLIGHT = 64 };
    static uint16_t queue[IN_FLIGHT];
    static uint32_t sizes[65536];
    uint32_t n_sent = 0, n_queued = 0, n_done = 0;
    uint64_t end = clock_mono_ns() + 30000 * NSEC_PER_MSEC;
    static uint8_t answer[9000];
    uint32_t answer_left = 0, answer_size = 0;
    long long sends, recvs, sleeps;

    device_up(4);
    version(8192, 0);
    sends = harness_coverage("p9_send");
    recvs = harness_coverage("p9_recv");
    sleeps = harness_coverage("worker_sleep");
    fcntl(server, F_SETFL, O_NONBLOCK);
    while (n_done < N && clock_mono_ns() < end) {
        struct pollfd pfd = {.fd = server, .events = POLLIN};
        uint32_t size;
        int error;

        while (n_sent < N && n_sent - n_done < IN_FLIGHT) {
            sizes[n_sent] = 7 + n_sent * 1237 % 8186;
            if (p9front_put(f, n_sent % N_RINGS, out,
                            make(out, sizes[n_sent], NINEP_TWRITE, n_sent))) {
                break;
            }
            n_sent++;
        }
        while (n_queued < IN_FLIGHT && poll(&pfd, 1, 0) > 0) {
            fcntl(server, F_SETFL, 0);
            size = srv_recv(MS);
            fcntl(server, F_SETFL, O_NONBLOCK);
            CHECK(is_good(srv, size, get_le16(srv + 5)));
            CHECK_EQ(size, sizes[get_le16(srv + 5)]);
            queue[n_queued++] = get_le16(srv + 5);
        }
        while (n_queued || answer_left) {
            ssize_t n;

            if (!answer_left) {
                uint32_t i = (n_done * 31) % n_queued;
                uint16_t tag = queue[i];

                queue[i] = queue[--n_queued];
                answer_left = answer_size =
                    make(answer, 7 + tag * 7919 % 8186, NINEP_RREAD, tag);
            }
            n = write(server, answer + answer_size - answer_left, answer_left);
            if (n <= 0) {
                break;
            }
            answer_left -= n;
        }
        for (uint32_t ring = 0; ring < N_RINGS; ring++) {
            while (!(error = p9front_take(f, ring, in, sizeof in, &size))) {
                uint16_t tag = get_le16(in + 5);

                CHECK_EQ(tag % N_RINGS, ring);
                CHECK_EQ(size, 7 + tag * 7919 % 8186);
                CHECK(is_good(in, size, tag));
                n_done++;
            }
            CHECK_EQ(error, EAGAIN);
        }
        if (!n_queued) {
            p9front_wait(f, 10);
        }
    }
    CHECK_EQ(n_done, N);
    check_note("%d requests: worker sent %lld times, received %lld times, "
               "slept %lld times",
               N, harness_coverage("p9_send") - sends,
               harness_coverage("p9_recv") - recvs,
               harness_coverage("worker_sleep") - sleeps);
    device_down();
}

/* A ring that the guest does not empty holds up vafsd, and nothing else; no
 * part of a message is ever shown. */
static void
test_back_pressure(void)
{
    uint32_t size, n_in_ring = 0, used;
    long cpu;

    device_up(2); /* 8 KiB */
    version(8192, 0);
    for (uint16_t tag = 0; tag < 8; tag++) {
        CHECK_EQ(p9front_put(f, 0, out, make(out, 20, NINEP_TREAD, tag)), 0);
        CHECK_EQ(srv_recv(MS), 20);
    }
    for (uint16_t tag = 0; tag < 8; tag++) {
        srv_send(srv, make(srv, 3000, NINEP_RREAD, tag));
    }
    sleep_ms(100);
    CHECK_EQ(ring_bytes_used(&f->rings[0].in, &used), 0);
    CHECK_EQ(used, 6000);
    cpu = harness_cpu_ms(h.worker);
    sleep_ms(300);
    CHECK(harness_cpu_ms(h.worker) - cpu <= 20);
    for (uint16_t tag = 0; tag < 8; tag++) {
        CHECK(take(0, &size));
        CHECK_EQ(size, 3000);
        CHECK(is_good(in, size, tag));
        n_in_ring++;
    }

    /* vafsd does not read: the out ring fills, without spinning. */
    for (uint16_t tag = 100; tag < 1000; tag++) {
        if (p9front_put(f, 1, out, make(out, 4000, NINEP_TWRITE, tag))) {
            if (!p9front_wait(f, 200)) {
                break;
            }
            tag--;
        }
    }
    cpu = harness_cpu_ms(h.worker);
    sleep_ms(300);
    CHECK(harness_cpu_ms(h.worker) - cpu <= 20);
    for (uint16_t tag = 100;; tag++) {
        ssize_t n = srv_recv(200);

        if (n < 0) {
            CHECK(tag > 110);
            break;
        }
        CHECK(is_good(srv, n, tag));
    }
    device_down();
}

/* Half a message waits for its rest and holds up nobody. */
static void
test_partial(void)
{
    struct p9front_ring *r;
    uint32_t size;

    device_up(2);
    version(8192, 0);
    r = &f->rings[1];
    make(out, 1000, NINEP_TWRITE, 1);
    ring_bytes_copy_in(&r->out, 0, out, 500);
    (void) !ring_bytes_produce(&r->out, 500);
    hv_evtchn_notify(h.front, r->port);
    CHECK_EQ(srv_recv(50), -1);
    CHECK_EQ(p9front_put(f, 0, in, make(in, 50, NINEP_TWRITE, 2)), 0);
    CHECK_EQ(srv_recv(MS), 50);
    ring_bytes_copy_in(&r->out, 0, out + 500, 500);
    (void) !ring_bytes_produce(&r->out, 500);
    hv_evtchn_notify(h.front, r->port);
    CHECK_EQ(srv_recv(MS), 1000);
    CHECK(is_good(srv, 1000, 1));
    srv_send(srv, make(srv, 9, NINEP_RREAD, 1));
    CHECK(take(1, &size));
    device_down();
}

/* Tflush frees its victim's tag, answered or not. */
static void
test_flush(void)
{
    uint32_t size;

    device_up(2);
    version(8192, 0);
    CHECK_EQ(p9front_put(f, 0, out, make(out, 23, NINEP_TREAD, 5)), 0);
    CHECK_EQ(srv_recv(MS), 23);
    make(out, 9, NINEP_TFLUSH, 6);
    put_le16(out + 7, 5);
    CHECK_EQ(p9front_put(f, 1, out, 9), 0);
    CHECK_EQ(srv_recv(MS), 9);
    CHECK_EQ(get_le16(srv + 7), 5);
    srv_send(srv, make(srv, 7, NINEP_RFLUSH, 6));
    CHECK(take(1, &size));
    /* Tag 5 is free now. */
    CHECK_EQ(p9front_put(f, 0, out, make(out, 23, NINEP_TREAD, 5)), 0);
    CHECK_EQ(srv_recv(MS), 23);
    srv_send(srv, make(srv, 30, NINEP_RREAD, 5));
    CHECK(take(0, &size));
    /* Tversion frees all. */
    CHECK_EQ(p9front_put(f, 0, out, make(out, 23, NINEP_TREAD, 7)), 0);
    CHECK_EQ(srv_recv(MS), 23);
    version(4096, 0);
    CHECK_EQ(p9front_put(f, 0, out, make(out, 23, NINEP_TREAD, 7)), 0);
    CHECK_EQ(srv_recv(MS), 23);
    device_down();
}

static void
expect_failed(int error, const char *reason)
{
    CHECK(harness_wait_state(MS));
    CHECK_EQ(h.state.state, WP_FAILED);
    CHECK_EQ(h.state.error, error);
    if (!strstr(h.state.reason, reason)) {
        check_note("reason: %s", h.state.reason);
        CHECK(!"another reason was expected");
    }
    device_down();
    device_up(2);
    version(4096, 0);
}

static void
test_hostile(void)
{
    struct p9front_ring *r;

    device_up(2);
    CHECK_EQ(p9front_put(f, 0, out, make(out, 7, NINEP_TREAD, 1)), 0);
    CHECK_EQ(p9front_put(f, 1, out, make(out, 7, NINEP_TREAD, 1)), 0);
    expect_failed(EPROTO, "in flight");

    put_le32(out, 6);
    CHECK_EQ(p9front_put(f, 0, out, 7), 0);
    expect_failed(EPROTO, "shorter than a header");

    put_le32(out, 0xffffffff);
    CHECK_EQ(p9front_put(f, 0, out, 7), 0);
    expect_failed(EPROTO, "longer");

    put_le32(out, 4097);
    CHECK_EQ(p9front_put(f, 0, out, 4097), 0);
    expect_failed(EPROTO, "longer than msize");

    r = &f->rings[1];
    ring_store(&r->intf->out_prod, 0x80000000);
    hv_evtchn_notify(h.front, r->port);
    expect_failed(EPROTO, "out_prod");

    r = &f->rings[0];
    ring_store(&r->intf->in_cons, r->in.cons + 1);
    hv_evtchn_notify(h.front, r->port);
    expect_failed(EPROTO, "in_cons");
    device_down();

    /* Orders that cannot be. */
    for (int i = 0; i < 4; i++) {
        static const uint32_t orders[] = {0, 10, 40, 0xffffffff};
        union wp_geometry g;
        int pair[2];

        memset(&g, 0, sizeof g);
        CHECK_EQ(p9front_create(h.front, 0, 1, 1, &f), 0);
        ring_store(&f->rings[0].intf->ring_order, orders[i]);
        g.p9.n_rings = 1;
        g.p9.max_ring_page_order = 9;
        g.p9.ring_ref[0] = f->rings[0].ref;
        g.p9.port[0] = f->rings[0].port;
        CHECK_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        harness_device_add(WP_KIND_9PFS, 0, &g, pair[1]);
        close(pair[1]);
        CHECK_EQ(h.state.state, WP_FAILED);
        CHECK(strstr(h.state.reason, "order"));
        server = pair[0];
        device_down();
    }
}

/* What vafsd does wrong is the end of the device, too. */
static void
test_broken_server(void)
{
    device_up(2);
    version(4096, 0);
    srv_send(srv, make(srv, 7, NINEP_RREAD, 77));
    expect_failed(EPROTO, "not in flight");

    CHECK_EQ(p9front_put(f, 0, out, make(out, 7, NINEP_TREAD, 1)), 0);
    CHECK_EQ(srv_recv(MS), 7);
    make(srv, 7, NINEP_RREAD, 1);
    put_le32(srv, 0x7fffffff);
    srv_send(srv, 7);
    expect_failed(EPROTO, "longer than msize");

    shutdown(server, SHUT_RDWR);
    expect_failed(EPIPE, "vafsd");
    device_down();
}

static void
test_leaks(void)
{
    struct hv_local_counts base, now;
    int n_fds;

    harness_counts(&base);
    n_fds = harness_count_fds(h.worker);
    for (int i = 0; i < 20; i++) {
        device_up(1 + i % 9);
        version(4096, 0);
        CHECK_EQ(p9front_put(f, 0, out, make(out, 100, NINEP_TREAD, 1)), 0);
        device_down();
    }
    harness_counts(&now);
    CHECK_EQ(now.n_maps, base.n_maps);
    CHECK_EQ(now.n_grants, base.n_grants);
    CHECK_EQ(now.n_ports, base.n_ports);
    CHECK_EQ(harness_count_fds(h.worker), n_fds);
}

int
main(int argc UNUSED, char *argv[])
{
    harness_init(argv[0]);
    harness_worker_start(NULL);
    tap_run("files: round trips", test_round_trip);
    tap_run("files: msize", test_msize);
    tap_run("files: many requests, out of order", test_many);
    tap_run("files: back-pressure both ways", test_back_pressure);
    tap_run("files: half a message", test_partial);
    tap_run("files: flush and version free tags", test_flush);
    tap_run("files: hostile guest", test_hostile);
    tap_run("files: broken server", test_broken_server);
    tap_run("files: nothing leaks", test_leaks);
    harness_worker_quit();
    harness_destroy();
    return tap_end();
}
