/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the sock-*.c programs share: TAP, small wrappers that end the case with
 * a reason instead of returning errors nobody expects. */

#ifndef SOCK_TAP_H
#define SOCK_TAP_H 1

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct tap_case {
    const char *name;
    void (*run)(void);
};

static jmp_buf tap_out;
static char tap_why[256];

/* Ends the running case as failed.  Main thread only. */
__attribute__((format(printf, 1, 2), noreturn, unused)) static void
fail(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(tap_why, sizeof tap_why, format, args);
    va_end(args);
    longjmp(tap_out, 1);
}

#define CHECK(COND)                                                    \
    do {                                                               \
        if (!(COND)) {                                                 \
            fail("line %d: %s (errno %d: %s)", __LINE__, #COND, errno, \
                 strerror(errno));                                     \
        }                                                              \
    } while (0)

/* 'CALL' must fail with errno 'ERR'. */
#define CHECK_ERR(CALL, ERR)                                                \
    do {                                                                    \
        errno = 0;                                                          \
        long r_ = (CALL);                                                   \
        if (r_ != -1 || errno != (ERR)) {                                   \
            fail("line %d: %s = %ld, errno %d (%s), expected %s", __LINE__, \
                 #CALL, r_, errno, strerror(errno), #ERR);                  \
        }                                                                   \
    } while (0)

/* Runs the cases whose names contain 'filter' (NULL: all); returns the exit
 * status.  No descriptor may be left open by a case that passes. */
__attribute__((unused)) static int
tap_run(const struct tap_case *cases, int n, const char *filter)
{
    volatile int n_failed = 0, n_run = 0;
    volatile int i;

    setvbuf(stdout, NULL, _IOLBF, 0);
    for (i = 0; i < n; i++) {
        struct timespec a, b;

        if (filter && !strstr(cases[i].name, filter)) {
            continue;
        }
        n_run++;
        clock_gettime(CLOCK_MONOTONIC, &a);
        if (!setjmp(tap_out)) {
            cases[i].run();
            clock_gettime(CLOCK_MONOTONIC, &b);
            printf("ok %d - %s # %.2f s\n", n_run, cases[i].name,
                   (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9);
        } else {
            int fd;

            n_failed++;
            printf("not ok %d - %s\n# %s\n", n_run, cases[i].name, tap_why);
            for (fd = 3; fd < 1024; fd++) {
                close(fd);
            }
        }
    }
    printf("1..%d\n", n_run);
    return n_failed != 0;
}

__attribute__((unused)) static struct sockaddr_in
address(const char *ip, int port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};

    sin.sin_port = htons(port);
    if (inet_pton(AF_INET, ip, &sin.sin_addr) != 1) {
        fail("bad address %s", ip);
    }
    return sin;
}

__attribute__((unused)) static int
tcp_socket(int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

    CHECK(fd >= 0);
    return fd;
}

__attribute__((unused)) static int
try_connect(int fd, const char *ip, int port)
{
    struct sockaddr_in sin = address(ip, port);

    return connect(fd, (struct sockaddr *) &sin, sizeof sin);
}

__attribute__((unused)) static int
try_bind(int fd, const char *ip, int port)
{
    struct sockaddr_in sin = address(ip, port);

    return bind(fd, (struct sockaddr *) &sin, sizeof sin);
}

__attribute__((unused)) static int
tcp_connect(const char *ip, int port)
{
    int fd = tcp_socket(0);

    if (try_connect(fd, ip, port)) {
        fail("connect %s:%d: %s", ip, port, strerror(errno));
    }
    return fd;
}

__attribute__((unused)) static int
tcp_listen(const char *ip, int port, int backlog)
{
    int fd = tcp_socket(0);

    if (try_bind(fd, ip, port)) {
        fail("bind %s:%d: %s", ip, port, strerror(errno));
    }
    if (listen(fd, backlog)) {
        fail("listen %s:%d: %s", ip, port, strerror(errno));
    }
    return fd;
}

/* The events that poll() sees on 'fd' within 'ms'. */
__attribute__((unused)) static int
poll_one(int fd, int events, int ms)
{
    struct pollfd p = {.fd = fd, .events = events};
    int n = poll(&p, 1, ms);

    return n < 0 ? -1 : n ? p.revents : 0;
}

__attribute__((unused)) static int
local_port(int fd)
{
    struct sockaddr_in sin;
    socklen_t len = sizeof sin;

    CHECK(!getsockname(fd, (struct sockaddr *) &sin, &len));
    return ntohs(sin.sin_port);
}

__attribute__((unused)) static int
socket_error(int fd)
{
    int err = -1;
    socklen_t len = sizeof err;

    CHECK(!getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len));
    return err;
}

__attribute__((unused)) static void
send_all(int fd, const void *buf_, size_t n)
{
    const char *buf = buf_;

    while (n) {
        ssize_t k = send(fd, buf, n, MSG_NOSIGNAL);

        CHECK(k > 0);
        buf += k;
        n -= k;
    }
}

__attribute__((unused)) static void
recv_all(int fd, void *buf, size_t n)
{
    CHECK(recv(fd, buf, n, MSG_WAITALL) == (ssize_t) n);
}

__attribute__((unused)) static double
now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* A counter of the module; -1 if the module is not there. */
__attribute__((unused)) static long
counter(const char *name)
{
    FILE *f = fopen("/sys/module/xenlift_sock/parameters/counters", "r");
    char word[64];
    long value, ret = -1;

    if (!f) {
        return -1;
    }
    while (fscanf(f, "%63s %ld", word, &value) == 2) {
        if (!strcmp(word, name)) {
            ret = value;
        }
    }
    fclose(f);
    return ret;
}

#endif
