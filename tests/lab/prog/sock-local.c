/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What must work in a guest without the backend's help, with xenlift_sock
 * loaded: sockets between programs of the guest, and the capture itself.
 * Needs no Xen.
 *
 *   sock-local [NAME-PART] */

#include <pthread.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>

#include "sock-tap.h"

static void
exchange(int a, int b)
{
    char buf[5];

    send_all(a, "ping", 5);
    recv_all(b, buf, 5);
    CHECK(!memcmp(buf, "ping", 5));
    send_all(b, "pong", 5);
    recv_all(a, buf, 5);
    CHECK(!memcmp(buf, "pong", 5));
}

static void
pair_through(const char *bind_ip)
{
    int l = tcp_listen(bind_ip, 0, 5);
    int port = local_port(l);
    struct sockaddr_in peer;
    socklen_t len = sizeof peer;
    char c;
    int a, b;

    CHECK(port > 0);
    CHECK(poll_one(l, POLLIN, 0) == 0);
    a = tcp_connect("127.0.0.1", port);
    CHECK(poll_one(l, POLLIN, 1000) == POLLIN);
    b = accept(l, (struct sockaddr *) &peer, &len);
    CHECK(b >= 0);
    CHECK(ntohs(peer.sin_port) == local_port(a));
    CHECK(peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    exchange(a, b);
    CHECK(!shutdown(a, SHUT_WR));
    CHECK(recv(b, &c, 1, 0) == 0);
    send_all(b, "x", 1);
    recv_all(a, &c, 1);
    close(a);
    close(b);
    close(l);
}

static void
test_loopback(void)
{
    pair_through("127.0.0.1");
}

static void
test_wildcard(void)
{
    pair_through("0.0.0.0");
}

static void
test_nonblocking_accept(void)
{
    int l = tcp_listen("0.0.0.0", 0, 5), a, b;

    CHECK(!fcntl(l, F_SETFL, O_NONBLOCK));
    CHECK_ERR(accept(l, NULL, NULL), EAGAIN);
    a = tcp_connect("127.0.0.1", local_port(l));
    CHECK(poll_one(l, POLLIN, 1000) == POLLIN);
    b = accept4(l, NULL, NULL, SOCK_NONBLOCK);
    CHECK(b >= 0);
    CHECK_ERR(accept(l, NULL, NULL), EAGAIN);
    exchange(a, b);
    close(a);
    close(b);
    close(l);
}

static void *
connect_later(void *port_)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    sin.sin_port = htons((long) port_);
    usleep(100 * 1000);
    if (connect(fd, (struct sockaddr *) &sin, sizeof sin)) {
        perror("# connect_later");
    }
    return (void *) (long) fd;
}

static void
test_blocking_accept(void)
{
    int l = tcp_listen("0.0.0.0", 0, 5), b;
    pthread_t thread;
    void *fd;

    CHECK(!pthread_create(&thread, NULL, connect_later,
                          (void *) (long) local_port(l)));
    b = accept(l, NULL, NULL);
    CHECK(b >= 0);
    pthread_join(thread, &fd);
    exchange((long) fd, b);
    close((long) fd);
    close(b);
    close(l);
}

static void
test_accept_timeout(void)
{
    int l = tcp_listen("0.0.0.0", 0, 5);
    struct timeval tv = {.tv_usec = 200 * 1000};
    double begin = now();

    CHECK(!setsockopt(l, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    CHECK_ERR(accept(l, NULL, NULL), EAGAIN);
    CHECK(now() - begin > 0.15 && now() - begin < 2);
    close(l);
}

static void
test_epoll_before_connect(void)
{
    int l = tcp_listen("127.0.0.1", 0, 5), ep = epoll_create1(0), b;
    int a = tcp_socket(SOCK_NONBLOCK);
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET};

    CHECK(!epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev));
    CHECK(epoll_wait(ep, &ev, 1, 0) == 1);
    CHECK(ev.events & EPOLLHUP);
    CHECK(!try_connect(a, "127.0.0.1", local_port(l)) || errno == EINPROGRESS);
    CHECK(epoll_wait(ep, &ev, 1, 1000) == 1);
    CHECK(ev.events & EPOLLOUT);
    b = accept(l, NULL, NULL);
    send_all(b, "x", 1);
    CHECK(epoll_wait(ep, &ev, 1, 1000) == 1);
    CHECK(ev.events & EPOLLIN);
    close(a);
    close(b);
    close(ep);
    close(l);
}

static void
test_refused(void)
{
    int l = tcp_listen("127.0.0.1", 0, 5), port = local_port(l);
    int a = tcp_socket(0);

    close(l);
    CHECK_ERR(try_connect(a, "127.0.0.1", port), ECONNREFUSED);
    l = tcp_listen("127.0.0.1", port, 5);
    CHECK(!try_connect(a, "127.0.0.1", port));
    close(a);
    close(l);
}

static void
test_in_use(void)
{
    int l = tcp_listen("0.0.0.0", 0, 5), a = tcp_socket(0);

    CHECK_ERR(try_bind(a, "0.0.0.0", local_port(l)), EADDRINUSE);
    close(a);
    close(l);
}

static void
test_options(void)
{
    int fd = tcp_socket(0), one = 1, n = 0;
    socklen_t len = sizeof n;

    CHECK(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one));
    CHECK(!getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &n, &len));
    CHECK(n == 1);
    CHECK(!getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &n, &len));
    CHECK(n == IPPROTO_TCP);
    CHECK_ERR(send(fd, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK_ERR(recv(fd, &n, 1, 0), ENOTCONN);
    CHECK_ERR(shutdown(fd, SHUT_RDWR), ENOTCONN);
    CHECK(!ioctl(fd, FIONREAD, &n));
    CHECK(n == 0);
    close(fd);
}

/* Without a network card and a backend: an error at once, no hang. */
static void
test_no_network(void)
{
    int fd = tcp_socket(0);
    double begin = now();

    CHECK_ERR(try_connect(fd, "192.0.2.1", 80), ENETUNREACH);
    CHECK(now() - begin < 1);
    close(fd);
}

static void
test_ipv6(void)
{
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6};
    socklen_t len = sizeof sin6;
    int l = socket(AF_INET6, SOCK_STREAM, 0), a, b;

    if (l < 0 && errno == EAFNOSUPPORT) {
        return;
    }
    sin6.sin6_addr = in6addr_loopback;
    if (bind(l, (struct sockaddr *) &sin6, sizeof sin6)) {
        CHECK(errno == EADDRNOTAVAIL);
        close(l);
        return;
    }
    CHECK(!listen(l, 4));
    CHECK(!getsockname(l, (struct sockaddr *) &sin6, &len));
    a = socket(AF_INET6, SOCK_STREAM, 0);
    CHECK(!connect(a, (struct sockaddr *) &sin6, len));
    b = accept(l, NULL, NULL);
    CHECK(b >= 0);
    exchange(a, b);
    close(a);
    close(b);
    close(l);
}

#define N_CREATORS 1000
static pthread_barrier_t barrier;
static int created[N_CREATORS];

static void *
create_one(void *n)
{
    pthread_barrier_wait(&barrier);
    created[(long) n] = socket(AF_INET, SOCK_STREAM, 0);
    return NULL;
}

static void
test_creators(void)
{
    static pthread_t thread[N_CREATORS];
    long before = counter("captured");
    pthread_attr_t attr;
    long i, n = 0;
    FILE *f;

    CHECK(before >= 0);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 64 * 1024);
    pthread_barrier_init(&barrier, NULL, N_CREATORS);
    for (i = 0; i < N_CREATORS; i++) {
        CHECK(!pthread_create(&thread[i], &attr, create_one, (void *) i));
    }
    for (i = 0; i < N_CREATORS; i++) {
        pthread_join(thread[i], NULL);
        n += created[i] >= 0;
    }
    CHECK(n == N_CREATORS);
    CHECK(counter("captured") - before == N_CREATORS);
    f = fopen("/sys/module/xenlift_sock/parameters/missed", "r");
    CHECK(f && fscanf(f, "%ld", &n) == 1 && n == 0);
    fclose(f);
    for (i = 0; i < N_CREATORS; i++) {
        close(created[i]);
    }
}

static const struct tap_case cases[] = {
    {"loopback listener and connection", test_loopback},
    {"wildcard listener serves the guest itself", test_wildcard},
    {"accept without blocking", test_nonblocking_accept},
    {"accept that blocks", test_blocking_accept},
    {"accept with SO_RCVTIMEO", test_accept_timeout},
    {"epoll registered before a local connect", test_epoll_before_connect},
    {"refused, then connected with the same socket", test_refused},
    {"EADDRINUSE", test_in_use},
    {"options and errors of a fresh socket", test_options},
    {"no network: ENETUNREACH", test_no_network},
    {"IPv6 loopback", test_ipv6},
    {"1000 concurrent creators, none missed", test_creators},
};

int
main(int argc, char **argv)
{
    return tap_run(cases, sizeof cases / sizeof *cases,
                   argc > 1 ? argv[1] : NULL);
}
