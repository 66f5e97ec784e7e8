/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What programs do with sockets that the driver domain serves, call by call,
 * with the module's two ends in one program: a listener on the wildcard
 * address is reached through the driver domain's own address.
 *
 *   sock-remote DRIVER-DOMAIN-IP CLOSED-PORT SILENT-IP [NAME-PART]
 *
 * CLOSED-PORT refuses connections there, SILENT-IP does not answer at all. */

#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "sock-tap.h"

static const char *drv;
static const char *silent;
static int closed_port;
static int next_port = 21000;
static char big[1 << 20];

/* A listener that the driver domain listens for, on a port of our choice. */
static int
remote_listener(int *ret_port)
{
    int tries;

    for (tries = 0; tries < 20; tries++) {
        int fd = tcp_socket(0);

        *ret_port = next_port++;
        if (!try_bind(fd, "0.0.0.0", *ret_port)) {
            CHECK(!listen(fd, 64));
            return fd;
        }
        CHECK(errno == EADDRINUSE);
        close(fd);
    }
    fail("no port");
}

/* Two ends of one stream that goes through the driver domain. */
static void
pair(int *a, int *b)
{
    long before = counter("accept");
    int port, l = remote_listener(&port);

    *a = tcp_connect(drv, port);
    *b = accept(l, NULL, NULL);
    CHECK(*b >= 0);
    CHECK(counter("accept") == before + 1);
    close(l);
}

static void
set_timeout(int fd, int option, int ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};

    CHECK(!setsockopt(fd, SOL_SOCKET, option, &tv, sizeof tv));
}

static void
test_exchange(void)
{
    char buf[16];
    int a, b;

    pair(&a, &b);
    send_all(a, "ping", 4);
    recv_all(b, buf, 4);
    CHECK(!memcmp(buf, "ping", 4));
    send_all(b, "pong", 4);
    recv_all(a, buf, 4);
    CHECK(!memcmp(buf, "pong", 4));
    close(a);
    CHECK(recv(b, buf, 4, 0) == 0);
    close(b);
}

static void
test_names(void)
{
    struct sockaddr_in sin;
    socklen_t len = sizeof sin;
    int port, l = remote_listener(&port), a = tcp_connect(drv, port), b;

    CHECK(!getpeername(a, (struct sockaddr *) &sin, &len));
    CHECK(len == sizeof sin && sin.sin_family == AF_INET);
    CHECK(sin.sin_addr.s_addr == inet_addr(drv));
    CHECK(ntohs(sin.sin_port) == port);
    b = accept(l, (struct sockaddr *) &sin, &len);
    CHECK(b >= 0 && sin.sin_family == AF_INET);
    CHECK(local_port(b) == port);
    CHECK_ERR(try_connect(a, drv, port), EISCONN);
    close(a);
    close(b);
    close(l);
}

static void
test_connect_nonblocking(void)
{
    int port, l = remote_listener(&port), a = tcp_socket(SOCK_NONBLOCK), n;

    n = try_connect(a, drv, port);
    CHECK(!n || errno == EINPROGRESS);
    if (n) {
        n = try_connect(a, drv, port);
        CHECK(!n || errno == EALREADY);
    }
    CHECK(poll_one(a, POLLOUT, 5000) == POLLOUT);
    CHECK(socket_error(a) == 0);
    n = try_connect(a, drv, port);
    CHECK(!n || errno == EISCONN);
    CHECK_ERR(try_connect(a, drv, port), EISCONN);
    CHECK_ERR(recv(a, &n, 1, 0), EAGAIN);
    close(a);
    close(l);
}

static void
test_refused_nonblocking(void)
{
    int a = tcp_socket(SOCK_NONBLOCK), n;

    n = try_connect(a, drv, closed_port);
    CHECK(n && (errno == EINPROGRESS || errno == ECONNREFUSED));
    if (errno == EINPROGRESS) {
        n = poll_one(a, POLLIN | POLLOUT, 5000);
        CHECK((n & POLLERR) && (n & POLLHUP) && (n & POLLOUT));
        CHECK(socket_error(a) == ECONNREFUSED);
        CHECK(socket_error(a) == 0);
    }
    close(a);
}

static void
test_refused_then_connected(void)
{
    int port, l = remote_listener(&port), a = tcp_socket(0), b;

    CHECK_ERR(try_connect(a, drv, closed_port), ECONNREFUSED);
    CHECK(!try_connect(a, drv, port));
    b = accept(l, NULL, NULL);
    send_all(b, "x", 1);
    recv_all(a, big, 1);
    close(a);
    close(b);
    close(l);
}

static void
test_epoll_before_connect(void)
{
    int port, l = remote_listener(&port), a = tcp_socket(SOCK_NONBLOCK), b;
    int ep = epoll_create1(0);
    struct epoll_event ev = {.events =
                                 EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP};

    CHECK(!epoll_ctl(ep, EPOLL_CTL_ADD, a, &ev));
    CHECK(epoll_wait(ep, &ev, 1, 0) == 1);
    try_connect(a, drv, port);
    CHECK(epoll_wait(ep, &ev, 1, 5000) == 1);
    CHECK((ev.events & EPOLLOUT) && !(ev.events & (EPOLLERR | EPOLLHUP)));
    b = accept(l, NULL, NULL);
    CHECK(epoll_wait(ep, &ev, 1, 50) == 0);
    send_all(b, "x", 1);
    CHECK(epoll_wait(ep, &ev, 1, 5000) == 1);
    CHECK((ev.events & EPOLLIN) && !(ev.events & EPOLLRDHUP));
    recv_all(a, big, 1);
    close(b);
    CHECK(epoll_wait(ep, &ev, 1, 5000) == 1);
    CHECK((ev.events & EPOLLIN) && (ev.events & EPOLLRDHUP));
    CHECK(recv(a, big, 1, 0) == 0);
    close(a);
    close(ep);
    close(l);
}

static void
test_connect_timeout(void)
{
    int a = tcp_socket(0);
    double begin = now();

    set_timeout(a, SO_SNDTIMEO, 300);
    CHECK_ERR(try_connect(a, silent, 9), EINPROGRESS);
    CHECK(now() - begin > 0.25 && now() - begin < 5);
    close(a);
}

static void
test_flags(void)
{
    int a, b, n;

    pair(&a, &b);
    CHECK_ERR(recv(a, big, 1, MSG_DONTWAIT), EAGAIN);
    send_all(b, "abcdefghij", 10);
    CHECK(poll_one(a, POLLIN, 5000) == POLLIN);
    CHECK(!ioctl(a, FIONREAD, &n) && n == 10);
    CHECK(recv(a, big, 4, MSG_PEEK) == 4 && !memcmp(big, "abcd", 4));
    CHECK(recv(a, big, 10, MSG_PEEK | MSG_WAITALL) == 10);
    CHECK(!ioctl(a, FIONREAD, &n) && n == 10);
    memset(big, 0, 4);
    CHECK(recv(a, big, 3, MSG_TRUNC) == 3 && !big[0]);
    CHECK(recv(a, big, 100, 0) == 7 && !memcmp(big, "defghij", 7));
    CHECK_ERR(send(a, "x", 1, MSG_OOB), EOPNOTSUPP);
    CHECK_ERR(recv(a, big, 1, MSG_OOB), EINVAL);
    CHECK(!ioctl(a, SIOCATMARK, &n));
    CHECK(send(a, big, 0, 0) == 0);
    close(a);
    close(b);
}

static void
test_receive_timeout(void)
{
    double begin;
    int a, b;

    pair(&a, &b);
    set_timeout(a, SO_RCVTIMEO, 200);
    begin = now();
    CHECK_ERR(recv(a, big, 1, 0), EAGAIN);
    CHECK(now() - begin > 0.15 && now() - begin < 3);
    send_all(b, "abc", 3);
    CHECK(recv(a, big, 10, MSG_WAITALL) == 3);
    close(a);
    close(b);
}

static void
test_send_timeout(void)
{
    size_t total = 0;
    ssize_t n;
    int a, b;

    pair(&a, &b);
    set_timeout(a, SO_SNDTIMEO, 300);
    while ((n = send(a, big, sizeof big, MSG_NOSIGNAL)) > 0) {
        total += n;
    }
    CHECK(n == -1 && errno == EAGAIN && total > 0);
    CHECK(poll_one(a, POLLOUT, 0) == 0);
    CHECK_ERR(send(a, big, 1, MSG_DONTWAIT), EAGAIN);
    /* The other end reads: room again, and all arrives. */
    while (total) {
        n = recv(b, big, sizeof big, 0);
        CHECK(n > 0);
        total -= n;
    }
    CHECK(poll_one(a, POLLOUT, 5000) == POLLOUT);
    CHECK_ERR(recv(b, big, 1, MSG_DONTWAIT), EAGAIN);
    close(a);
    close(b);
}

static void
nothing(int signal)
{
    (void) signal;
}

static void
test_signals(void)
{
    struct sigaction sa = {.sa_handler = nothing};
    struct itimerval it = {.it_value = {.tv_usec = 200000}};
    int a, b;

    pair(&a, &b);
    sigaction(SIGALRM, &sa, NULL);
    setitimer(ITIMER_REAL, &it, NULL);
    CHECK_ERR(recv(a, big, 1, 0), EINTR);
    close(a);
    close(b);
}

static volatile int n_sigpipe;

static void
count_sigpipe(int signal)
{
    (void) signal;
    n_sigpipe++;
}

static void
test_sigpipe(void)
{
    struct sigaction sa = {.sa_handler = count_sigpipe};
    int a, b;

    pair(&a, &b);
    sigaction(SIGPIPE, &sa, NULL);
    CHECK(!shutdown(a, SHUT_WR));
    CHECK_ERR(send(a, "x", 1, MSG_NOSIGNAL), EPIPE);
    CHECK(n_sigpipe == 0);
    CHECK_ERR(write(a, "x", 1), EPIPE);
    CHECK(n_sigpipe == 1);
    close(a);
    close(b);
}

static void
test_half_close(void)
{
    int a, b;

    pair(&a, &b);
    send_all(a, "last", 4);
    CHECK(!shutdown(a, SHUT_WR));
    recv_all(b, big, 4);
    CHECK(poll_one(b, POLLIN | POLLRDHUP, 5000) == (POLLIN | POLLRDHUP));
    CHECK(recv(b, big, 1, 0) == 0);
    send_all(b, "answer", 6);
    recv_all(a, big, 6);
    CHECK(!memcmp(big, "answer", 6));
    close(b);
    CHECK(recv(a, big, 1, 0) == 0);
    close(a);
}

static void *
read_one(void *fd)
{
    char c;

    return (void *) (long) recv((long) fd, &c, 1, 0);
}

static void
test_shutdown_wakes(void)
{
    pthread_t thread;
    void *ret;
    int a, b;

    pair(&a, &b);
    CHECK(!pthread_create(&thread, NULL, read_one, (void *) (long) a));
    usleep(100000);
    CHECK(!shutdown(a, SHUT_RDWR));
    pthread_join(thread, &ret);
    CHECK((long) ret == 0);
    CHECK(recv(b, big, 1, 0) == 0);
    close(a);
    close(b);
}

static void
test_close_unsent(void)
{
    size_t total = 0, got = 0;
    ssize_t n;
    size_t i;
    int a, b;

    for (i = 0; i < sizeof big; i++) {
        big[i] = i * 7 + i / 256;
    }
    pair(&a, &b);
    CHECK(!fcntl(a, F_SETFL, O_NONBLOCK));
    while (total < 60 * sizeof big &&
           (n = send(a, big + total % 65536, 65536, 0)) > 0) {
        total += n;
    }
    close(a);
    usleep(300000);
    while ((n = recv(b, big, sizeof big, 0)) > 0) {
        got += n;
    }
    CHECK(n == 0);
    CHECK(got == total);
    close(b);
}

static void
test_sendfile(void)
{
    int fd = memfd_create("file", 0), a, b;
    size_t i, n = 100000;
    char *back = malloc(n);
    off_t ofs = 0;

    for (i = 0; i < n; i++) {
        big[i] = i * 13 + i / 251;
    }
    CHECK(write(fd, big, n) == (ssize_t) n);
    pair(&a, &b);
    for (i = 0; i < n;) {
        ssize_t k = sendfile(a, fd, &ofs, n - i);

        CHECK(k > 0);
        recv_all(b, back + i, k);
        i += k;
    }
    CHECK(!memcmp(big, back, n));
    free(back);
    close(fd);
    close(a);
    close(b);
}

static void
test_splice(void)
{
    int p[2], a, b;

    CHECK(!pipe(p));
    pair(&a, &b);
    CHECK(write(p[1], "through a pipe", 14) == 14);
    CHECK(splice(p[0], NULL, a, NULL, 14, 0) == 14);
    CHECK(poll_one(b, POLLIN, 5000) == POLLIN);
    CHECK(splice(b, NULL, p[1], NULL, 4096, 0) == 14);
    CHECK(read(p[0], big, 100) == 14 && !memcmp(big, "through a pipe", 14));
    close(p[0]);
    close(p[1]);
    close(a);
    close(b);
}

static void
test_vectors(void)
{
    struct iovec iov[3] = {
        {.iov_base = "ab", .iov_len = 2},
        {.iov_base = NULL, .iov_len = 0},
        {.iov_base = "cdef", .iov_len = 4},
    };
    struct mmsghdr m[2];
    int a, b;

    pair(&a, &b);
    CHECK(writev(a, iov, 3) == 6);
    recv_all(b, big, 6);
    CHECK(!memcmp(big, "abcdef", 6));
    memset(m, 0, sizeof m);
    m[0].msg_hdr.msg_iov = &iov[0];
    m[0].msg_hdr.msg_iovlen = 1;
    m[1].msg_hdr.msg_iov = &iov[2];
    m[1].msg_hdr.msg_iovlen = 1;
    CHECK(sendmmsg(a, m, 2, 0) == 2);
    recv_all(b, big, 6);
    CHECK(!memcmp(big, "abcdef", 6));
    CHECK_ERR(send(a, (void *) 8, 10, 0), EFAULT);
    send_all(a, "ok", 2);
    CHECK_ERR(recv(b, (void *) 8, 2, MSG_WAITALL), EFAULT);
    recv_all(b, big, 2);
    CHECK(!memcmp(big, "ok", 2));
    close(a);
    close(b);
}

static void
test_fork_and_dup(void)
{
    int a, b, c, status;
    pid_t pid;

    pair(&a, &b);
    c = dup(a);
    close(a);
    pid = fork();
    if (!pid) {
        close(b);
        _exit(send(c, "child", 5, 0) != 5);
    }
    close(c);
    recv_all(b, big, 5);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(recv(b, big, 1, 0) == 0);
    close(b);
}

struct stress {
    int fd;
    size_t n;
    unsigned int seed;
    int bad;
};

/* Sends and receives 'n' bytes at once over a non-blocking, edge-triggered
 * descriptor, in pieces of odd sizes. */
static void *
stress_run(void *arg)
{
    struct stress *s = arg;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLOUT | EPOLLET};
    size_t sent = 0, got = 0;
    int ep = epoll_create1(0);
    unsigned char buf[8192];

    epoll_ctl(ep, EPOLL_CTL_ADD, s->fd, &ev);
    while (!s->bad && (sent < s->n || got < s->n)) {
        int moved = 0;
        ssize_t k, i;

        if (sent < s->n) {
            size_t want = rand_r(&s->seed) % sizeof buf + 1;

            want = want < s->n - sent ? want : s->n - sent;
            for (i = 0; i < (ssize_t) want; i++) {
                buf[i] = (sent + i) % 251;
            }
            k = send(s->fd, buf, want, MSG_NOSIGNAL);
            if (k > 0) {
                sent += k;
                moved = 1;
            } else if (errno != EAGAIN) {
                s->bad = errno;
            }
        }
        k = recv(s->fd, buf, rand_r(&s->seed) % sizeof buf + 1, 0);
        if (k > 0) {
            for (i = 0; i < k; i++) {
                if (buf[i] != (got + i) % 251) {
                    s->bad = 1000;
                }
            }
            got += k;
            moved = 1;
        } else if (k == 0) {
            s->bad = 1001;
        } else if (errno != EAGAIN) {
            s->bad = errno;
        }
        if (!moved && epoll_wait(ep, &ev, 1, 10000) != 1) {
            s->bad = 1002;
        }
    }
    close(ep);
    return NULL;
}

static void
test_edge_triggered(void)
{
    struct stress s[2];
    pthread_t thread;
    int i;

    memset(s, 0, sizeof s);
    pair(&s[0].fd, &s[1].fd);
    for (i = 0; i < 2; i++) {
        s[i].n = 8 << 20;
        s[i].seed = i + 1;
        CHECK(!fcntl(s[i].fd, F_SETFL, O_NONBLOCK));
    }
    CHECK(!pthread_create(&thread, NULL, stress_run, &s[0]));
    stress_run(&s[1]);
    pthread_join(thread, NULL);
    if (s[0].bad || s[1].bad) {
        fail("ends say %d and %d", s[0].bad, s[1].bad);
    }
    close(s[0].fd);
    close(s[1].fd);
}

static void
test_backlog(void)
{
    int port, l = remote_listener(&port), a[20], b[20], i;

    for (i = 0; i < 20; i++) {
        a[i] = tcp_connect(drv, port);
    }
    for (i = 0; i < 20; i++) {
        set_timeout(l, SO_RCVTIMEO, 5000);
        b[i] = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        CHECK(b[i] >= 0);
        CHECK(fcntl(b[i], F_GETFL) & O_NONBLOCK);
    }
    for (i = 0; i < 20; i++) {
        close(a[i]);
        close(b[i]);
    }
    close(l);
}

static void
test_port_zero(void)
{
    int l = tcp_listen("0.0.0.0", 0, 4), a = tcp_connect(drv, local_port(l));
    int b = accept(l, NULL, NULL);

    CHECK(b >= 0);
    send_all(a, "x", 1);
    recv_all(b, big, 1);
    close(a);
    close(b);
    close(l);
}

/* A listener on an address that only the driver domain has. */
static void
test_foreign_address(void)
{
    int l = tcp_listen(drv, 21900, 4), a, b;
    struct sockaddr_in sin;
    socklen_t len = sizeof sin;

    CHECK(!getsockname(l, (struct sockaddr *) &sin, &len));
    CHECK(sin.sin_addr.s_addr == inet_addr(drv));
    CHECK(poll_one(l, POLLIN, 0) == 0);
    a = tcp_connect(drv, 21900);
    CHECK(poll_one(l, POLLIN, 5000) == POLLIN);
    b = accept(l, NULL, NULL);
    CHECK(b >= 0);
    a = (close(a), tcp_socket(0));
    CHECK_ERR(try_connect(a, "127.0.0.1", 21900), ECONNREFUSED);
    close(a);
    close(b);
    close(l);
}

/* The port can be had again at once. */
static void
test_listen_again(void)
{
    int i;

    for (i = 0; i < 20; i++) {
        close(tcp_listen("0.0.0.0", 21950, 4));
    }
}

/* Closed while its CONNECT is under way, many times. */
static void
test_close_connecting(void)
{
    int i;

    for (i = 0; i < 60; i++) {
        int a = tcp_socket(SOCK_NONBLOCK);

        CHECK_ERR(try_connect(a, silent, 9), EINPROGRESS);
        close(a);
    }
    test_exchange();
}

static void
test_bound_then_local(void)
{
    int l = tcp_listen("127.0.0.1", 0, 4), a = tcp_socket(0);

    CHECK(!try_bind(a, "0.0.0.0", 21960));
    CHECK(!try_connect(a, "127.0.0.1", local_port(l)));
    CHECK(local_port(a) == 21960);
    close(a);
    close(l);
}

/* What Go, Java and many servers do: one AF_INET6 socket for both. */
static void
test_dual_stack(void)
{
    struct sockaddr_in6 sin6 = {.sin6_family = AF_INET6};
    socklen_t len = sizeof sin6;
    int l = socket(AF_INET6, SOCK_STREAM, 0), zero = 0, a, b;

    if (l < 0 && errno == EAFNOSUPPORT) {
        return;
    }
    CHECK(!setsockopt(l, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero));
    sin6.sin6_port = htons(21970);
    CHECK(!bind(l, (struct sockaddr *) &sin6, sizeof sin6));
    CHECK(!listen(l, 4));
    a = socket(AF_INET6, SOCK_STREAM, 0);
    inet_pton(AF_INET6, "::ffff:0.0.0.0", &sin6.sin6_addr);
    inet_pton(AF_INET, drv, &sin6.sin6_addr.s6_addr[12]);
    CHECK(!connect(a, (struct sockaddr *) &sin6, sizeof sin6));
    b = accept(l, (struct sockaddr *) &sin6, &len);
    CHECK(b >= 0 && len == sizeof sin6 && sin6.sin6_family == AF_INET6);
    len = sizeof sin6;
    CHECK(!getpeername(a, (struct sockaddr *) &sin6, &len));
    CHECK(sin6.sin6_family == AF_INET6 && sin6.sin6_port == htons(21970));
    CHECK(IN6_IS_ADDR_V4MAPPED(&sin6.sin6_addr));
    send_all(a, "six", 3);
    recv_all(b, big, 3);
    close(a);
    close(b);
    a = tcp_connect("127.0.0.1", 21970);
    b = accept(l, NULL, NULL);
    CHECK(b >= 0);
    send_all(b, "six", 3);
    recv_all(a, big, 3);
    close(a);
    close(b);
    close(l);
}

static const struct tap_case cases[] = {
    {"exchange and end", test_exchange},
    {"getsockname, getpeername, EISCONN", test_names},
    {"non-blocking connect", test_connect_nonblocking},
    {"non-blocking connect, refused", test_refused_nonblocking},
    {"refused, then connected with the same socket",
     test_refused_then_connected},
    {"epoll registered before connect", test_epoll_before_connect},
    {"connect with SO_SNDTIMEO to nobody", test_connect_timeout},
    {"MSG_PEEK, MSG_WAITALL, MSG_TRUNC, FIONREAD", test_flags},
    {"SO_RCVTIMEO", test_receive_timeout},
    {"SO_SNDTIMEO, full ring and room again", test_send_timeout},
    {"a signal ends a blocked recv", test_signals},
    {"SIGPIPE and MSG_NOSIGNAL", test_sigpipe},
    {"shutdown of one direction", test_half_close},
    {"shutdown wakes a blocked reader", test_shutdown_wakes},
    {"close with unsent data loses nothing", test_close_unsent},
    {"sendfile", test_sendfile},
    {"splice", test_splice},
    {"writev, sendmmsg, EFAULT", test_vectors},
    {"dup, fork", test_fork_and_dup},
    {"8 MiB each way, edge-triggered", test_edge_triggered},
    {"connections that wait for accept", test_backlog},
    {"listener on a port of the kernel's choice", test_port_zero},
    {"listener on the driver domain's address", test_foreign_address},
    {"listen, close, 20 times on one port", test_listen_again},
    {"closed while connecting, 60 times", test_close_connecting},
    {"bound on both sides, connected locally", test_bound_then_local},
    {"AF_INET6 socket for IPv4 as well", test_dual_stack},
};

int
main(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: sock-remote DRIVER-DOMAIN-IP CLOSED-PORT "
                        "SILENT-IP [NAME-PART]\n");
        return 2;
    }
    drv = argv[1];
    closed_port = atoi(argv[2]);
    silent = argv[3];
    return tap_run(cases, sizeof cases / sizeof *cases,
                   argc > 4 ? argv[4] : NULL);
}
