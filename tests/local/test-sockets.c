/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test-sockets.c - PV Calls through a real worker over hv/local: what
 * programs need, with and without the quiet extension.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "frontend/sockets/user/pvfront.h"
#include "lib/clock.h"
#include "tests/local/echo.h"
#include "tests/local/harness.h"

#define MS 10000 /* Longer than anything takes that works. */

static struct pvfront *f;
static struct echo *echo;
static struct sockaddr_in echo_address;
static uint32_t flags = WP_PVCALLS_QUIET | WP_PVCALLS_HALF_CLOSE;

static void
device_up(void)
{
    union wp_geometry g;

    CHECK_EQ(pvfront_create(h.front, 0, &f), 0);
    f->is_quiet = flags & WP_PVCALLS_QUIET;
    f->has_half_close = flags & WP_PVCALLS_HALF_CLOSE;
    memset(&g, 0, sizeof g);
    g.pvcalls.ring_ref = f->ring_ref;
    g.pvcalls.port = f->port;
    g.pvcalls.max_page_order = 9;
    g.pvcalls.flags = flags;
    harness_device_add(WP_KIND_PVCALLS, 0, &g, -1);
    CHECK_EQ(h.state.state, WP_CONNECTED);
}

static void
device_down(void)
{
    harness_device_remove(WP_KIND_PVCALLS, 0);
    CHECK_EQ(h.state.state, WP_CLOSED);
    pvfront_destroy(f);
    f = NULL;
}

/* Sends all or fails. */
static bool
send_all(struct pvfront_sock *s, const void *buf, size_t size)
{
    const char *p = buf;
    uint64_t end = clock_mono_ns() + MS * NSEC_PER_MSEC;

    while (size && clock_mono_ns() < end) {
        ssize_t n = pvfront_send(s, p, size);

        if (n == -EAGAIN) {
            pvfront_wait(f, 100);
        } else if (n < 0) {
            check_note("send: %s", strerror(-n));
            return false;
        } else {
            p += n;
            size -= n;
        }
    }
    return !size;
}

/* Waits for bytes, the end (0) or an error. */
static ssize_t
recv_some(struct pvfront_sock *s, void *buf, size_t size)
{
    uint64_t end = clock_mono_ns() + MS * NSEC_PER_MSEC;
    ssize_t n;

    while ((n = pvfront_recv(s, buf, size)) == -EAGAIN &&
           clock_mono_ns() < end) {
        pvfront_wait(f, 100);
    }
    return n;
}

static bool
recv_all(struct pvfront_sock *s, void *buf, size_t size)
{
    char *p = buf;

    while (size) {
        ssize_t n = recv_some(s, p, size);

        if (n <= 0) {
            check_note("recv: %zd", n);
            return false;
        }
        p += n;
        size -= n;
    }
    return true;
}

static void
fill(uint8_t *buf, size_t size, uint64_t seed)
{
    uint64_t x = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;

    for (size_t i = 0; i < size; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        buf[i] = x;
    }
}

static void
test_echo(void)
{
    struct pvfront_sock *s;
    char buf[16];

    CHECK_EQ(pvfront_connect(f, &echo_address, 1, MS, &s), 0);
    CHECK(send_all(s, "hello, world", 12));
    CHECK(recv_all(s, buf, 12) && !memcmp(buf, "hello, world", 12));
    CHECK_EQ(pvfront_close(s, false, MS), 0);
}

static void
test_refused(void)
{
    struct pvfront_sock *s;
    struct sockaddr_in sin;
    int fd = tcp_listen(1, &sin);

    close(fd);
    CHECK_EQ(pvfront_connect(f, &sin, 1, MS, &s), ECONNREFUSED);
}

static void
test_in_use(void)
{
    struct pvfront_sock *a, *b;
    struct sockaddr_in sin;
    int fd = tcp_listen(1, &sin);

    CHECK_EQ(pvfront_listen(f, &sin, 5, MS, &a), EADDRINUSE);
    close(fd);
    CHECK_EQ(pvfront_listen(f, &sin, 5, MS, &a), 0);
    CHECK_EQ(pvfront_listen(f, &sin, 5, MS, &b), EADDRINUSE);
    CHECK_EQ(pvfront_close(a, false, MS), 0);
    CHECK_EQ(pvfront_listen(f, &sin, 5, MS, &a), 0);
    CHECK_EQ(pvfront_close(a, false, MS), 0);
}

static struct sockaddr_in
free_address(void)
{
    struct sockaddr_in sin;

    close(tcp_listen(1, &sin));
    return sin;
}

static void
test_accept(void)
{
    struct sockaddr_in sin = free_address();
    struct pvfront_sock *l, *s;
    char buf[8];
    int fd;

    CHECK_EQ(pvfront_listen(f, &sin, 5, MS, &l), 0);
    /* A connection that waits already. */
    fd = tcp_connect(&sin);
    CHECK(fd >= 0);
    CHECK_EQ(pvfront_poll(l, MS), 0);
    CHECK_EQ(pvfront_accept(l, 1, MS, &s), 0);
    CHECK(send_all(s, "abcd", 4));
    CHECK_EQ(read(fd, buf, 8), 4);
    CHECK_EQ(write(fd, "efg", 3), 3);
    CHECK(recv_all(s, buf, 3) && !memcmp(buf, "efg", 3));
    close(fd);
    CHECK_EQ(recv_some(s, buf, 8), 0);
    CHECK_EQ(pvfront_close(s, false, MS), 0);

    /* One that comes later, to a parked ACCEPT and a parked POLL. */
    CHECK_EQ(pvfront_accept_start(l, 2, &s), 0);
    CHECK_EQ(pvfront_poll(l, 30), ETIMEDOUT);
    fd = tcp_connect(&sin);
    CHECK_EQ(pvfront_accept_finish(s, MS), 0);
    /* The one connection went to the ACCEPT; the POLL still waits. */
    CHECK_EQ(pvfront_poll(l, 30), ETIMEDOUT);
    CHECK(send_all(s, "abcd", 4));
    CHECK_EQ(read(fd, buf, 8), 4);
    close(fd);
    CHECK_EQ(pvfront_close(s, false, MS), 0);
    fd = tcp_connect(&sin);
    CHECK_EQ(pvfront_poll(l, MS), 0);
    close(fd);
    CHECK_EQ(pvfront_close(l, false, MS), 0);
}

/* A server that closed its connections and starts again finds its port free,
 * though the connections are in TIME_WAIT. */
static void
test_listen_again(void)
{
    struct sockaddr_in sin = free_address();
    struct pvfront_sock *l, *s;
    char buf[8];

    for (int i = 0; i < 3; i++) {
        int fd;

        CHECK_EQ(pvfront_listen(f, &sin, 5, MS, &l), 0);
        fd = tcp_connect(&sin);
        CHECK_EQ(pvfront_accept(l, 1, MS, &s), 0);
        CHECK_EQ(pvfront_close(s, false, MS), 0);
        CHECK_EQ(read(fd, buf, 8), 0);
        close(fd);
        CHECK_EQ(pvfront_close(l, false, MS), 0);
    }
}

/* RELEASE of a listener answers what is parked there. */
static void
test_release_parked(void)
{
    struct sockaddr_in sin = free_address();
    struct pvfront_sock *l, *s;
    struct pvcalls_request req = {.cmd = PVCALLS_RELEASE};

    CHECK_EQ(pvfront_listen(f, &sin, 5, MS, &l), 0);
    CHECK_EQ(pvfront_accept_start(l, 1, &s), 0);
    CHECK_EQ(pvfront_poll(l, 10), ETIMEDOUT);
    req.u.release.id = l->id;
    CHECK_EQ(pvfront_call(f, &req, MS), 0);
    CHECK_EQ(pvfront_accept_finish(s, MS), ECONNABORTED);
    CHECK_EQ(pvfront_poll(l, MS), ECONNABORTED);
    CHECK_EQ(pvfront_close(l, false, MS), ENOTSOCK);
}

static void
test_fin_and_reset(void)
{
    struct sockaddr_in sin;
    int l = tcp_listen(5, &sin), fd;
    struct pvfront_sock *s;
    char buf[8];

    CHECK_EQ(pvfront_connect(f, &sin, 1, MS, &s), 0);
    fd = accept(l, NULL, NULL);
    CHECK_EQ(write(fd, "xy", 2), 2);
    shutdown(fd, SHUT_WR);
    CHECK(recv_all(s, buf, 2));
    CHECK_EQ(recv_some(s, buf, 8), 0);
    /* The other direction is still open. */
    CHECK(send_all(s, "zz", 2));
    CHECK_EQ(read(fd, buf, 8), 2);
    close(fd);
    CHECK_EQ(pvfront_close(s, false, MS), 0);

    CHECK_EQ(pvfront_connect(f, &sin, 1, MS, &s), 0);
    fd = accept(l, NULL, NULL);
    CHECK_EQ(write(fd, "xy", 2), 2);
    CHECK(recv_all(s, buf, 2));
    tcp_reset(fd);
    CHECK_EQ(recv_some(s, buf, 8), -ECONNRESET);
    CHECK_EQ(pvfront_send(s, buf, 1), -ECONNRESET);
    CHECK_EQ(pvfront_close(s, false, MS), 0);

    /* A reset that reaches a writer with a full ring. */
    CHECK_EQ(pvfront_connect(f, &sin, 1, MS, &s), 0);
    fd = accept(l, NULL, NULL);
    {
        static char junk[1 << 20];
        uint64_t end = clock_mono_ns() + 2000 * NSEC_PER_MSEC;
        ssize_t n = 0;

        while (clock_mono_ns() < end) {
            n = pvfront_send(s, junk, sizeof junk);
            if (n == -EAGAIN && pvfront_wait(f, 200) == ETIMEDOUT) {
                break;
            }
        }
        tcp_reset(fd);
        end = clock_mono_ns() + MS * NSEC_PER_MSEC;
        while ((n = pvfront_send(s, junk, 1)) == -EAGAIN &&
               clock_mono_ns() < end) {
            pvfront_wait(f, 100);
        }
        CHECK(n == -ECONNRESET || n == -EPIPE);
        CHECK_EQ(recv_some(s, buf, 8), n);
    }
    CHECK_EQ(pvfront_close(s, false, MS), 0);
    close(l);
}

static void
test_half_close(void)
{
    struct sockaddr_in sin;
    int l = tcp_listen(5, &sin), fd;
    struct pvfront_sock *s;
    char buf[8];

    if (!f->has_half_close) {
        close(l);
        return;
    }
    CHECK_EQ(pvfront_connect(f, &sin, 1, MS, &s), 0);
    fd = accept(l, NULL, NULL);
    CHECK(send_all(s, "last", 4));
    CHECK_EQ(pvfront_shutdown(s), 0);
    CHECK_EQ(recv(fd, buf, 4, MSG_WAITALL), 4);
    CHECK_EQ(read(fd, buf, 8), 0);
    CHECK_EQ(write(fd, "back", 4), 4);
    CHECK(recv_all(s, buf, 4));
    close(fd);
    CHECK_EQ(recv_some(s, buf, 8), 0);
    CHECK_EQ(pvfront_close(s, false, MS), 0);
    close(l);
}

/* A connect that nobody answers (the backlog is full) while others go on, and
 * its RELEASE. */
static void
test_black_hole(void)
{
    struct sockaddr_in sin;
    int l = tcp_listen(0, &sin);
    int fds[4];
    struct pvfront_sock *hole, *s;
    char buf[8];

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(fds[i], (struct sockaddr *) &sin, sizeof sin) &&
            errno != EINPROGRESS) {
            CHECK(!"cannot fill the backlog");
        }
    }
    sleep_ms(20);
    CHECK_EQ(pvfront_connect_start(f, &sin, 1, &hole), 0);
    CHECK_EQ(pvfront_connect_finish(hole, 100), ETIMEDOUT);
    for (int i = 0; i < 50; i++) {
        CHECK_EQ(pvfront_connect(f, &echo_address, 1, MS, &s), 0);
        CHECK(send_all(s, "hello", 5));
        CHECK(recv_all(s, buf, 5));
        CHECK_EQ(pvfront_close(s, true, MS), 0);
    }
    CHECK_EQ(pvfront_connect_finish(hole, 0), ETIMEDOUT);
    CHECK_EQ(pvfront_close(hole, false, MS), 0);
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        close(fds[i]);
    }
    close(l);
}

/* 40 idle listeners, rotated over 24 slots: each still accepts, and a connect
 * works beside them. */
static void
test_many_listeners(void)
{
    enum { N = 40, SLOTS = 24 };
    struct pvfront_sock *l[N], *s;
    struct sockaddr_in sin[N];
    int next = SLOTS, fd;

    for (int i = 0; i < N; i++) {
        sin[i] = free_address();
        CHECK_EQ(pvfront_listen(f, &sin[i], 5, MS, &l[i]), 0);
    }
    for (int i = 0; i < SLOTS; i++) {
        CHECK_EQ(pvfront_poll(l[i], 0), ETIMEDOUT);
    }
    for (int i = 0; i < N; i++) {
        bool done = false;
        uint64_t end = clock_mono_ns() + MS * NSEC_PER_MSEC;

        fd = tcp_connect(&sin[i]);
        while (!done && clock_mono_ns() < end) {
            pvfront_wait(f, 50);
            for (int j = 0; j < N && !done; j++) {
                int error, accepted;

                if (!l[j]->pending || !l[j]->pending->is_done) {
                    continue;
                }
                error = pvfront_poll(l[j], 0);
                CHECK(!error || error == EAGAIN);
                accepted = error ? -1 : j;
                /* The next one's turn, which may be what we wait for. */
                if (!pvfront_poll(l[next], 0)) {
                    accepted = next;
                } else {
                    do {
                        next = (next + 1) % N;
                    } while (l[next]->pending);
                }
                if (accepted >= 0) {
                    CHECK_EQ(accepted, i);
                    CHECK_EQ(pvfront_accept(l[accepted], 1, MS, &s), 0);
                    CHECK_EQ(pvfront_close(s, false, MS), 0);
                    done = true;
                }
            }
        }
        CHECK(done);
        close(fd);
        CHECK_EQ(pvfront_connect(f, &echo_address, 1, MS, &s), 0);
        CHECK_EQ(pvfront_close(s, false, MS), 0);
    }
    for (int i = 0; i < N; i++) {
        CHECK_EQ(pvfront_close(l[i], false, MS), 0);
    }
}

/* All slots taken by POLLs: the backend makes room by itself. */
static void
test_slots_exhausted(void)
{
    enum { N = 31 };
    struct pvfront_sock *l[N], *s;

    for (int i = 0; i < N; i++) {
        struct sockaddr_in sin = free_address();

        CHECK_EQ(pvfront_listen(f, &sin, 5, MS, &l[i]), 0);
    }
    for (int i = 0; i < N; i++) {
        CHECK_EQ(pvfront_poll(l[i], 0), ETIMEDOUT);
    }
    sleep_ms(100);
    pvfront_wait(f, 100);
    CHECK_EQ(pvfront_poll(l[0], 0), EAGAIN);
    CHECK_EQ(pvfront_connect(f, &echo_address, 1, MS, &s), 0);
    CHECK_EQ(pvfront_close(s, false, MS), 0);
    /* The rest ends after 250 ms until 16 are left, which stay. */
    sleep_ms(400);
    pvfront_wait(f, 100);
    for (int i = 0; i < N; i++) {
        bool stays = i >= N - 16;

        if (i) {
            CHECK_EQ(pvfront_poll(l[i], 0), stays ? ETIMEDOUT : EAGAIN);
        }
    }
    for (int i = 0; i < N; i++) {
        CHECK_EQ(pvfront_close(l[i], false, MS), 0);
    }
}

/* A peer that does not read costs no processor time; when it reads, all is
 * there. */
static void
test_slow_peer(void)
{
    enum { SIZE = 24 << 20 };
    struct sockaddr_in sin;
    int l = tcp_listen(5, &sin), fd;
    struct pvfront_sock *s;
    uint8_t *sent = malloc(SIZE), *got = malloc(SIZE);
    size_t n_sent = 0, n_got = 0;
    long before, cpu;

    fill(sent, SIZE, 7);
    CHECK_EQ(pvfront_connect(f, &sin, 4, MS, &s), 0);
    fd = accept(l, NULL, NULL);
    for (;;) {
        ssize_t n = pvfront_send(s, sent + n_sent, SIZE - n_sent);

        if (n > 0) {
            n_sent += n;
        } else if (pvfront_wait(f, 200) == ETIMEDOUT) {
            break;
        }
    }
    CHECK(n_sent < SIZE);
    before = harness_cpu_ms(h.worker);
    sleep_ms(500);
    cpu = harness_cpu_ms(h.worker) - before;
    CHECK(cpu <= 20);
    while (n_got < SIZE) {
        ssize_t n = recv(fd, got + n_got, SIZE - n_got, MSG_DONTWAIT);

        if (n > 0) {
            n_got += n;
        }
        if (n_sent < SIZE) {
            n = pvfront_send(s, sent + n_sent, SIZE - n_sent);
            if (n > 0) {
                n_sent += n;
                continue;
            }
        }
        if (n < 0 && pvfront_wait(f, 1) == ETIMEDOUT) {
            struct pollfd pfd = {.fd = fd, .events = POLLIN};

            if (poll(&pfd, 1, 2000) <= 0 && n_sent == SIZE) {
                break;
            }
        }
    }
    CHECK_EQ(n_got, SIZE);
    CHECK(!memcmp(sent, got, SIZE));
    close(fd);
    close(l);
    CHECK_EQ(pvfront_close(s, false, MS), 0);
    free(sent);
    free(got);
}

/* What was written before close() arrives, though the peer is slow. */
static void
test_release_drains(void)
{
    enum { SIZE = 1 << 20 }; /* The half of an order 9 ring. */
    struct sockaddr_in sin;
    int l = tcp_listen(5, &sin), fd, small = 8192;
    struct pvfront_sock *s;
    uint8_t *sent = malloc(SIZE), *got = malloc(SIZE + 1);
    size_t total = 0, n_got = 0;
    ssize_t n;

    setsockopt(l, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    fill(sent, SIZE, 11);
    CHECK_EQ(pvfront_connect(f, &sin, 9, MS, &s), 0);
    fd = accept(l, NULL, NULL);
    n = pvfront_send(s, sent, SIZE);
    CHECK_EQ(n, SIZE);
    total = n;
    CHECK_EQ(pvfront_close(s, false, MS), 0);
    while ((n = recv(fd, got + n_got, SIZE + 1 - n_got, 0)) > 0) {
        n_got += n;
        if (n_got < 300000) {
            sleep_ms(1);
        }
    }
    CHECK_EQ(n, 0);
    CHECK_EQ(n_got, total);
    CHECK(!memcmp(sent, got, total));
    close(fd);
    close(l);
    free(sent);
    free(got);
}

/* Many connections at once, each echoing its own bytes. */
static void
test_200_connections(void)
{
    enum { N = 200, SIZE = 320 * 1024 };
    struct pvfront_sock *s[N];
    size_t n_sent[N] = {0}, n_got[N] = {0};
    uint8_t *data = malloc(SIZE + N), *buf = malloc(65536);
    uint64_t end = clock_mono_ns() + 60000 * NSEC_PER_MSEC, start;
    long long wakes, events, notifies;
    int left = N;
    bool good = true;

    fill(data, SIZE + N, 3);
    wakes = harness_coverage("worker_sleep");
    events = harness_coverage("worker_event");
    notifies = harness_coverage("worker_notify");
    start = clock_mono_ns();
    for (int i = 0; i < N; i++) {
        CHECK_EQ(pvfront_connect(f, &echo_address, 1 + i % 4, MS, &s[i]), 0);
    }
    while (left && clock_mono_ns() < end && good) {
        bool moved = false;

        for (int i = 0; i < N && good; i++) {
            ssize_t n;

            if (n_sent[i] < SIZE) {
                n = pvfront_send(s[i], data + i + n_sent[i], SIZE - n_sent[i]);
                if (n > 0) {
                    n_sent[i] += n;
                    moved = true;
                } else if (n != -EAGAIN) {
                    good = false;
                }
            }
            if (n_got[i] == SIZE) {
                continue;
            }
            n = pvfront_recv(s[i], buf, 65536);
            if (n > 0) {
                good = !memcmp(buf, data + i + n_got[i], n);
                n_got[i] += n;
                left -= n_got[i] == SIZE;
                moved = true;
            } else if (n != -EAGAIN) {
                good = false;
            }
        }
        if (!moved) {
            pvfront_wait(f, 100);
        }
    }
    CHECK(good);
    CHECK_EQ(left, 0);
    check_note(
        "%d MiB each way in %llu ms; worker: %lld sleeps, %lld events "
        "taken, %lld sent; frontend sent %llu",
        N * (SIZE / 1024) / 1024,
        (unsigned long long) ((clock_mono_ns() - start) / NSEC_PER_MSEC),
        harness_coverage("worker_sleep") - wakes,
        harness_coverage("worker_event") - events,
        harness_coverage("worker_notify") - notifies,
        (unsigned long long) f->n_notify);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(pvfront_close(s[i], false, MS), 0);
    }
    free(data);
    free(buf);
}

static void
test_reuse(void)
{
    long long maps = harness_coverage("pvcalls_ring_map");
    long long reused = harness_coverage("pvcalls_ring_reuse");
    struct pvfront_sock *s;
    char buf[8];

    for (int i = 0; i < 50; i++) {
        CHECK_EQ(pvfront_connect(f, &echo_address, 3, MS, &s), 0);
        CHECK(send_all(s, "hello", 5));
        CHECK(recv_all(s, buf, 5) && !memcmp(buf, "hello", 5));
        CHECK_EQ(pvfront_close(s, true, MS), 0);
    }
    CHECK_EQ(harness_coverage("pvcalls_ring_map") - maps, 1);
    CHECK_EQ(harness_coverage("pvcalls_ring_reuse") - reused, 49);
}

/* Every command is answered once, with the right error, and costs nothing
 * else. */
static void
test_bad_commands(void)
{
    struct pvcalls_request req;
    struct pvfront_sock *s, *l;
    struct pvfront_ring *r;
    struct sockaddr_in sin = free_address();

    for (uint32_t cmd = 0; cmd < 12; cmd++) {
        int error;

        memset(&req, 0xee, sizeof req);
        req.cmd = cmd;
        error = pvfront_call(f, &req, MS);
        CHECK(error > 0);
        if (cmd >= PVCALLS_N_CMDS) {
            CHECK_EQ(error, PVCALLS_ENOTSUPP);
        }
    }
    memset(&req, 0, sizeof req);
    req.cmd = UINT32_MAX;
    CHECK_EQ(pvfront_call(f, &req, MS), PVCALLS_ENOTSUPP);

    /* Families and types. */
    memset(&req, 0, sizeof req);
    req.u.socket.id = 900;
    req.u.socket.domain = AF_INET6;
    req.u.socket.type = SOCK_STREAM;
    CHECK_EQ(pvfront_call(f, &req, MS), EAFNOSUPPORT);
    req.u.socket.domain = AF_INET;
    req.u.socket.type = SOCK_DGRAM;
    CHECK_EQ(pvfront_call(f, &req, MS), ESOCKTNOSUPPORT);
    req.u.socket.type = SOCK_STREAM;
    req.u.socket.protocol = IPPROTO_SCTP;
    CHECK_EQ(pvfront_call(f, &req, MS), EPROTONOSUPPORT);
    /* Twice the same id; release of one that only SOCKET knows. */
    req.u.socket.protocol = 0;
    CHECK_EQ(pvfront_call(f, &req, MS), 0);
    CHECK_EQ(pvfront_call(f, &req, MS), EEXIST);
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_RELEASE;
    req.u.release.id = 900;
    CHECK_EQ(pvfront_call(f, &req, MS), 0);
    CHECK_EQ(pvfront_call(f, &req, MS), ENOTSOCK);

    /* CONNECT with a bad reference, order, port, length, family. */
    CHECK_EQ(pvfront_ring_get(f, 1, &r), 0);
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_CONNECT;
    req.u.connect.id = 901;
    memcpy(req.u.connect.addr, &echo_address, sizeof echo_address);
    req.u.connect.len = sizeof echo_address;
    req.u.connect.evtchn = r->port;
    req.u.connect.ref = 0xfffffff0;
    CHECK_EQ(pvfront_call(f, &req, MS), EINVAL);
    req.u.connect.ref = r->ref;
    for (uint32_t i = 0; i < 4; i++) {
        static const uint32_t orders[] = {0, 10, 40, 0xffffffff};

        ring_store(&r->indexes->ring_order, orders[i]);
        CHECK_EQ(pvfront_call(f, &req, MS), EINVAL);
    }
    ring_store(&r->indexes->ring_order, 2); /* ref[2], ref[3] are 0 */
    CHECK_EQ(pvfront_call(f, &req, MS), EINVAL);
    ring_store(&r->indexes->ring_order, 1);
    req.u.connect.evtchn = 0xffff;
    CHECK_EQ(pvfront_call(f, &req, MS), EINVAL);
    req.u.connect.evtchn = r->port;
    req.u.connect.len = 15;
    CHECK_EQ(pvfront_call(f, &req, MS), EINVAL);
    req.u.connect.len = 29;
    CHECK_EQ(pvfront_call(f, &req, MS), EINVAL);
    req.u.connect.len = sizeof echo_address;
    req.u.connect.addr[0] = AF_INET6;
    CHECK_EQ(pvfront_call(f, &req, MS), EAFNOSUPPORT);
    req.u.connect.addr[0] = AF_INET;
    /* And still it works. */
    CHECK_EQ(pvfront_call(f, &req, MS), 0);
    CHECK_EQ(pvfront_call(f, &req, MS), EISCONN);
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_LISTEN;
    req.u.listen.id = 901;
    CHECK_EQ(pvfront_call(f, &req, MS), EINVAL);
    req.cmd = PVCALLS_RELEASE;
    req.u.release.id = 901;
    CHECK_EQ(pvfront_call(f, &req, MS), 0);
    pvfront_ring_put(f, r, false);

    /* A CONNECT that fails that way leaves a bound socket bound. */
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_BIND;
    req.u.bind.id = 903;
    memcpy(req.u.bind.addr, &sin, sizeof sin);
    req.u.bind.len = sizeof sin;
    CHECK_EQ(pvfront_call(f, &req, MS), 0);
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_CONNECT;
    req.u.connect.id = 903;
    memcpy(req.u.connect.addr, &echo_address, sizeof echo_address);
    req.u.connect.len = sizeof echo_address;
    req.u.connect.ref = 0xfffffff0;
    CHECK_EQ(pvfront_call(f, &req, MS), EINVAL);
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_LISTEN;
    req.u.listen.id = 903;
    CHECK_EQ(pvfront_call(f, &req, MS), 0);
    req.cmd = PVCALLS_RELEASE;
    req.u.release.id = 903;
    CHECK_EQ(pvfront_call(f, &req, MS), 0);

    /* ACCEPT with bad rings, and with an id that is taken. */
    CHECK_EQ(pvfront_listen(f, &sin, 5, MS, &l), 0);
    memset(&req, 0, sizeof req);
    req.cmd = PVCALLS_ACCEPT;
    req.u.accept.id = l->id;
    req.u.accept.id_new = 902;
    req.u.accept.ref = 0xfffffff0;
    CHECK_EQ(pvfront_call(f, &req, MS), EINVAL);
    req.u.accept.id_new = l->id;
    CHECK_EQ(pvfront_call(f, &req, MS), EEXIST);
    CHECK_EQ(pvfront_accept_start(l, 1, &s), 0);
    CHECK_EQ(pvfront_accept_finish(s, 10), ETIMEDOUT);
    CHECK_EQ(pvfront_close(l, false, MS), 0);
    CHECK_EQ(pvfront_accept_finish(s, MS), ECONNABORTED);
}

/* What the guest does to indices ends the device, with a reason, and a new
 * one works. */
static void
expect_failed(const char *reason)
{
    CHECK(harness_wait_state(MS));
    CHECK_EQ(h.state.state, WP_FAILED);
    CHECK_EQ(h.state.error, EPROTO);
    if (!strstr(h.state.reason, reason)) {
        check_note("reason: %s", h.state.reason);
        CHECK(!"another reason was expected");
    }
    f->is_broken = true;
    device_down();
    device_up();
    test_echo();
}

static void
test_bad_indices(void)
{
    struct pvfront_sock *s;

    ring_store(&f->ring.sring->req_prod, f->ring.req_prod + 1000);
    hv_evtchn_notify(h.front, f->port);
    expect_failed("request index");

    CHECK_EQ(pvfront_connect(f, &echo_address, 1, MS, &s), 0);
    ring_store(&s->ring->indexes->out_prod, 0x12345678);
    hv_evtchn_notify(h.front, s->ring->port);
    pvfront_ring_put(f, s->ring, true);
    free(s);
    expect_failed("out_prod");

    CHECK_EQ(pvfront_connect(f, &echo_address, 1, MS, &s), 0);
    ring_store(&s->ring->indexes->in_cons, 5);
    hv_evtchn_notify(h.front, s->ring->port);
    pvfront_ring_put(f, s->ring, true);
    free(s);
    expect_failed("in_cons");
}

/* Notifications without work are answered with patience. */
static void
test_event_storm(void)
{
    long before = harness_cpu_ms(h.worker), cpu;
    long long penalties = harness_coverage("worker_event_penalty");
    uint64_t end = clock_mono_ns() + 500 * NSEC_PER_MSEC;

    while (clock_mono_ns() < end) {
        hv_evtchn_notify(h.front, f->port);
    }
    cpu = harness_cpu_ms(h.worker) - before;
    CHECK(cpu < 200);
    CHECK(harness_coverage("worker_event_penalty") > penalties);
    test_echo();
}

/* The supervisor dies and another adopts the worker; connections live. */
static void
test_adoption(void)
{
    struct pvfront_sock *s;
    struct wp_hello_reply reply;
    char buf[8];

    CHECK_EQ(pvfront_connect(f, &echo_address, 1, MS, &s), 0);
    harness_supervisor_dies();
    CHECK(send_all(s, "alone", 5));
    CHECK(recv_all(s, buf, 5));
    harness_adopt(&reply);
    CHECK_EQ(reply.pid, h.worker);
    CHECK_EQ(reply.n_devices, 1);
    CHECK(harness_wait_state(MS));
    CHECK_EQ(h.state.state, WP_CONNECTED);
    CHECK_EQ(h.state.kind, WP_KIND_PVCALLS);
    CHECK_EQ(h.state.geometry.pvcalls.ring_ref, f->ring_ref);
    CHECK(send_all(s, "again", 5));
    CHECK(recv_all(s, buf, 5));
    CHECK_EQ(pvfront_close(s, false, MS), 0);
}

/* Devices that cannot be. */
static void
test_bad_devices(void)
{
    union wp_geometry g;

    memset(&g, 0, sizeof g);
    g.pvcalls.max_page_order = 9;
    g.pvcalls.ring_ref = 0xfffffff0;
    harness_device_add(WP_KIND_PVCALLS, 1, &g, -1);
    CHECK_EQ(h.state.state, WP_FAILED);
    harness_device_remove(WP_KIND_PVCALLS, 1);
    g.pvcalls.ring_ref = f->ring_ref;
    g.pvcalls.port = 0xffff;
    harness_device_add(WP_KIND_PVCALLS, 1, &g, -1);
    CHECK_EQ(h.state.state, WP_FAILED);
    harness_device_remove(WP_KIND_PVCALLS, 1);
    harness_device_add(WP_KIND_PVCALLS, 0, &g, -1);
    CHECK_EQ(h.state.error, EEXIST);
    harness_device_add(WP_KIND_9PFS, 0, &g, -1);
    CHECK_EQ(h.state.error, EINVAL);
    harness_device_remove(WP_KIND_9PFS, 0);
    harness_device_add(77, 0, &g, -1);
    CHECK_EQ(h.state.error, EINVAL);
    harness_device_remove(77, 0);
    test_echo();
}

/* Open connections of all kinds when the device goes: nothing may leak. */
static void
test_reconnect_and_leaks(void)
{
    struct hv_local_counts base, now;
    struct sockaddr_in sin;
    int n_fds, hole_fd = tcp_listen(0, &sin);

    device_down();
    harness_counts(&base);
    CHECK_EQ(base.n_maps, 0);
    n_fds = harness_count_fds(h.worker);
    for (int round = 0; round < 20; round++) {
        struct pvfront_sock *s[4], *l;
        struct sockaddr_in la = free_address();

        device_up();
        CHECK_EQ(pvfront_connect(f, &echo_address, 1, MS, &s[0]), 0);
        CHECK_EQ(pvfront_connect(f, &echo_address, 2, MS, &s[1]), 0);
        CHECK_EQ(pvfront_close(s[1], true, MS), 0);
        CHECK_EQ(pvfront_listen(f, &la, 5, MS, &l), 0);
        CHECK_EQ(pvfront_accept_start(l, 1, &s[1]), 0);
        CHECK_EQ(pvfront_poll(l, 0), ETIMEDOUT);
        CHECK_EQ(pvfront_connect_start(f, &sin, 1, &s[2]), 0);
        pvfront_wait(f, 10);
        harness_device_remove(WP_KIND_PVCALLS, 0);
        for (int i = 0; i < 3; i++) {
            pvfront_ring_put(f, s[i]->ring, false);
            free(s[i]);
        }
        free(l);
        pvfront_destroy(f);
    }
    harness_counts(&now);
    CHECK_EQ(now.n_maps, base.n_maps);
    CHECK_EQ(now.n_grants, base.n_grants);
    CHECK_EQ(now.n_ports, base.n_ports);
    CHECK_EQ(harness_count_fds(h.worker), n_fds);
    close(hole_fd);
    device_up();
}

/* The hypervisor refuses the n-th mapping or binding: an error, and nothing
 * stays behind. */
static void
test_faults(void)
{
    static const enum hv_fault faults[] = {HV_FAULT_GRANT_PREPARE,
                                           HV_FAULT_EVTCHN_BIND};
    struct hv_local_counts base, now;
    struct pvfront_sock *s;

    harness_counts(&base);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        for (unsigned int nth = 1; nth <= 2; nth++) {
            int error;

            CHECK_EQ(hv_local_fault(h.back, 0, faults[i], nth, 1, ENOSPC), 0);
            error = pvfront_connect(f, &echo_address, 1, MS, &s);
            if (error) {
                CHECK_EQ(error, EINVAL);
            } else {
                CHECK(faults[i] == HV_FAULT_EVTCHN_BIND && nth == 2);
                CHECK_EQ(pvfront_close(s, false, MS), 0);
            }
            CHECK_EQ(hv_local_fault(h.back, 0, faults[i], 1, 0, 0), 0);
        }
    }
    test_echo();
    harness_counts(&now);
    CHECK_EQ(now.n_maps, base.n_maps);
    CHECK_EQ(now.n_ports, base.n_ports);
}

static void
test_memory(void)
{
    long kib = harness_rss_kib(h.worker);

    check_note("idle worker: %ld KiB resident", kib);
#ifndef __SANITIZE_ADDRESS__
    CHECK(kib < 8192);
#endif
}

/* Limits, and the addresses that a guest may not name by default. */
static void
test_policy(void)
{
    struct sockaddr_in sin = echo_address;
    struct pvfront_sock *s;

    CHECK_EQ(pvfront_connect(f, &echo_address, 1, MS, &s), EACCES);
    sin.sin_addr.s_addr = htonl(0x7f010203);
    CHECK_EQ(pvfront_connect(f, &sin, 1, MS, &s), EACCES);
    sin.sin_addr.s_addr = 0;
    CHECK_EQ(pvfront_connect(f, &sin, 1, MS, &s), EACCES);
    sin.sin_addr.s_addr = htonl(0xa9fea9fe);
    CHECK_EQ(pvfront_connect(f, &sin, 1, MS, &s), EACCES);
    sin = free_address();
    CHECK_EQ(pvfront_listen(f, &sin, 1, MS, &s), EACCES);
}

static void
test_limit(void)
{
    struct pvfront_sock *s[8], *more;
    struct sockaddr_in sin = {.sin_family = AF_INET};

    /* --max-sockets 8 */
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(pvfront_listen(f, &sin, 1, MS, &s[i]), 0);
    }
    CHECK_EQ(pvfront_listen(f, &sin, 1, MS, &more), ENOBUFS);
    for (int i = 0; i < 8; i++) {
        CHECK_EQ(pvfront_close(s[i], false, MS), 0);
    }
}

static void
run_all(const char *mode)
{
    static const struct {
        const char *name;
        void (*test)(void);
    } tests[] = {
        {"echo", test_echo},
        {"connection refused", test_refused},
        {"address in use", test_in_use},
        {"accept and poll", test_accept},
        {"listen again beside TIME_WAIT", test_listen_again},
        {"release of a listener with parked requests", test_release_parked},
        {"end and reset told apart", test_fin_and_reset},
        {"half close", test_half_close},
        {"black hole does not hold up others", test_black_hole},
        {"40 listeners", test_many_listeners},
        {"all slots parked", test_slots_exhausted},
        {"peer that does not read", test_slow_peer},
        {"release drains", test_release_drains},
        {"200 connections", test_200_connections},
        {"rings used again", test_reuse},
        {"bad commands", test_bad_commands},
        {"bad indices", test_bad_indices},
        {"event storm", test_event_storm},
        {"adoption", test_adoption},
        {"bad devices", test_bad_devices},
        {"reconnects leak nothing", test_reconnect_and_leaks},
        {"mapping and binding fail", test_faults},
        {"memory", test_memory},
    };

    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        char name[128];

        snprintf(name, sizeof name, "sockets, %s: %s", mode, tests[i].name);
        tap_run(name, tests[i].test);
    }
}

static void
session(const char *mode, uint32_t flags_, const char *const options[])
{
    flags = flags_;
    harness_worker_start(options);
    device_up();
    run_all(mode);
    device_down();
    harness_worker_quit();
}

static void
stop_and_check(void)
{
    struct hv_local_counts counts;

    harness_counts(&counts);
    CHECK_EQ(counts.n_maps, 0);
    CHECK_EQ(counts.n_grants, 0);
}

int
main(int argc UNUSED, char *argv[])
{
    static const char *const loopback[] = {"--allow-loopback", NULL};
    static const char *const polling[] = {"--allow-loopback", "--poll-us",
                                          "100", NULL};
    static const char *const strict[] = {"--max-sockets", "8", NULL};

    harness_init(argv[0]);
    echo = echo_start(&echo_address);
    session("quiet", WP_PVCALLS_QUIET | WP_PVCALLS_HALF_CLOSE, loopback);
    session("plain v1", 0, loopback);
    session("polling", WP_PVCALLS_QUIET | WP_PVCALLS_HALF_CLOSE, polling);

    harness_worker_start(strict);
    device_up();
    tap_run("sockets: addresses refused by default", test_policy);
    tap_run("sockets: limit of sockets", test_limit);
    device_down();
    harness_worker_quit();
    tap_run("sockets: nothing is left", stop_and_check);
    echo_stop(echo);
    harness_destroy();
    return tap_end();
}
