/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Both ends of the lab's socket cases: ordinary programs on ordinary sockets,
 * so that what they meet is what any program meets.  'socktest' without
 * arguments lists what it can do.
 *
 * The server understands one line at the start of a connection:
 *
 *   ECHO N         sends back N bytes, then closes
 *   SINK N         takes N bytes, sends one byte back, then closes
 *   SOURCE N       sends N bytes of the pattern, then closes
 *   RESET          sends "bye", waits a moment, resets
 *   FIN            sends "bye" and closes in good order
 *   HALT           reads nothing any more
 *   PINGPONG       returns each byte at once until the end
 *
 * The pattern's byte at offset I depends on I alone, so both ends can check
 * content without keeping it. */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHECK(COND, ...)                                             \
    do {                                                             \
        if (!(COND)) {                                               \
            int error__ = errno;                                     \
            printf("FAILED at line %d: ", __LINE__);                 \
            printf(__VA_ARGS__);                                     \
            printf(" (errno %d, %s)\n", error__, strerror(error__)); \
            exit(1);                                                 \
        }                                                            \
    } while (0)

static uint64_t
now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000000ull + ts.tv_nsec;
}

/* 251 is prime, so that a displaced block is noticed. */
static unsigned char pattern_table[251 * 64 + 65536];

static void
pattern_init(void)
{
    for (size_t i = 0; i < sizeof pattern_table; i++) {
        size_t j = i % (251 * 64);

        pattern_table[i] = (j % 251) * 7 + j / 251;
    }
}

static const unsigned char *
pattern(uint64_t offset)
{
    return &pattern_table[offset % (251 * 64)];
}

static struct sockaddr_in
address(const char *host, const char *port)
{
    struct sockaddr_in sin = {.sin_family = AF_INET};

    sin.sin_port = htons(atoi(port));
    CHECK(inet_pton(AF_INET, host, &sin.sin_addr) == 1, "bad address");
    return sin;
}

static int
tcp_socket(int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

    CHECK(fd >= 0, "socket");
    return fd;
}

static int
tcp_connect(const char *host, const char *port)
{
    struct sockaddr_in sin = address(host, port);
    int fd = tcp_socket(0);

    CHECK(!connect(fd, (struct sockaddr *) &sin, sizeof sin),
          "connect to %s port %s", host, port);
    return fd;
}

static int
tcp_listen(const char *host, const char *port, int backlog)
{
    struct sockaddr_in sin = address(host, port);
    int one = 1;
    int fd = tcp_socket(0);

    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    CHECK(!bind(fd, (struct sockaddr *) &sin, sizeof sin), "bind %s", port);
    CHECK(!listen(fd, backlog), "listen %s", port);
    return fd;
}

static bool
write_all(int fd, const void *data, size_t size)
{
    const char *p = data;

    while (size > 0) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR) {
            continue;
        } else if (n <= 0) {
            return false;
        }
        p += n;
        size -= n;
    }
    return true;
}

static void
say_line(int fd, const char *format, long long arg)
{
    char line[64];

    snprintf(line, sizeof line, format, arg);
    CHECK(write_all(fd, line, strlen(line)), "request");
}

static void
reset_on_close(int fd)
{
    struct linger linger = {.l_onoff = 1, .l_linger = 0};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
}

/* Sends 'size' bytes of the pattern. */
static bool
send_pattern(int fd, uint64_t size)
{
    for (uint64_t done = 0; done < size;) {
        size_t n = size - done < 65536 ? size - done : 65536;
        ssize_t sent = send(fd, pattern(done), n, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR) {
            continue;
        } else if (sent <= 0) {
            return false;
        }
        done += sent;
    }
    return true;
}

/* Receives 'size' bytes that must be the pattern from 'offset' on. */
static bool
recv_pattern(int fd, uint64_t size, uint64_t offset)
{
    static __thread unsigned char buf[65536];

    for (uint64_t done = 0; done < size;) {
        size_t want = size - done < sizeof buf ? size - done : sizeof buf;
        ssize_t n = recv(fd, buf, want, 0);

        if (n < 0 && errno == EINTR) {
            continue;
        } else if (n <= 0) {
            fprintf(stderr, "got only %llu of %llu bytes: %s\n",
                    (unsigned long long) done, (unsigned long long) size,
                    n ? strerror(errno) : "end");
            return false;
        }
        if (memcmp(buf, pattern(offset + done), n)) {
            fprintf(stderr, "wrong content near byte %llu\n",
                    (unsigned long long) done);
            return false;
        }
        done += n;
    }
    return true;
}

/* ---- Server ---- */

static void *
server_connection(void *arg)
{
    int fd = (intptr_t) arg;
    char line[64];
    char *buf = malloc(65536);
    size_t n = 0;
    long long size;
    int one = 1;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    while (n < sizeof line - 1 && recv(fd, line + n, 1, 0) == 1 &&
           line[n] != '\n') {
        n++;
    }
    line[n] = '\0';
    if (sscanf(line, "ECHO %lld", &size) == 1) {
        while (size > 0) {
            ssize_t got = recv(fd, buf, size < 65536 ? size : 65536, 0);

            if (got <= 0 || !write_all(fd, buf, got)) {
                break;
            }
            size -= got;
        }
    } else if (sscanf(line, "SINK %lld", &size) == 1) {
        bool good = recv_pattern(fd, size, 0);

        write_all(fd, good ? "y" : "n", 1);
    } else if (sscanf(line, "SOURCE %lld", &size) == 1) {
        send_pattern(fd, size);
    } else if (!strcmp(line, "RESET")) {
        write_all(fd, "bye", 3);
        usleep(500000);
        reset_on_close(fd);
    } else if (!strcmp(line, "FIN")) {
        write_all(fd, "bye", 3);
    } else if (!strcmp(line, "HALT")) {
        sleep(600);
    } else if (!strcmp(line, "PINGPONG")) {
        ssize_t got;

        while ((got = recv(fd, buf, 4096, 0)) > 0 && write_all(fd, buf, got)) {
            continue;
        }
    }
    close(fd);
    free(buf);
    return NULL;
}

static int
cmd_serve(char **argv)
{
    int listener = tcp_listen(argv[0], argv[1], 1024);
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 * 1024);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;

        CHECK(fd >= 0 || errno != EINVAL, "accept");
        if (fd >= 0 && pthread_create(&thread, &attr, server_connection,
                                      (void *) (intptr_t) fd)) {
            close(fd);
        }
    }
    return 0;
}

/* ---- Clients ---- */

struct stream {
    int fd;
    uint64_t sent, received;
    bool connected;
};

/* One step of a stream as far as it goes without blocking. */
static bool
stream_step(struct stream *s, uint64_t size, uint32_t events)
{
    unsigned char buf[16384];
    ssize_t n;

    while (events & EPOLLOUT && s->sent < size) {
        size_t want = size - s->sent < 16384 ? size - s->sent : 16384;

        n = send(s->fd, pattern(s->sent), want, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            CHECK(errno == EAGAIN, "send after %llu bytes",
                  (unsigned long long) s->sent);
            break;
        }
        s->sent += n;
    }
    while (s->received < size) {
        n = recv(s->fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n < 0) {
            CHECK(errno == EAGAIN, "recv after %llu bytes",
                  (unsigned long long) s->received);
            break;
        }
        CHECK(n > 0, "stream ended after %llu bytes",
              (unsigned long long) s->received);
        CHECK(!memcmp(buf, pattern(s->received), n),
              "wrong content near byte %llu",
              (unsigned long long) s->received);
        s->received += n;
    }
    return s->received == size;
}

/* many HOST PORT COUNT BYTES: all connected at once, then BYTES through each
 * in both directions at the same time. */
static int
cmd_many(char **argv)
{
    struct sockaddr_in sin = address(argv[0], argv[1]);
    int count = atoi(argv[2]);
    uint64_t size = strtoull(argv[3], NULL, 0);
    struct stream *streams = calloc(count, sizeof *streams);
    int epoll = epoll_create1(0);
    struct epoll_event events[64];
    int connected = 0, done = 0;
    uint64_t start = now_ns();

    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLOUT, .data.u32 = i};
        int fd = streams[i].fd = tcp_socket(SOCK_NONBLOCK);

        /* Before connect, as some event loops do it. */
        CHECK(!epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event), "epoll_ctl");
        CHECK(!connect(fd, (struct sockaddr *) &sin, sizeof sin) ||
                  errno == EINPROGRESS,
              "connect %d", i);
    }
    while (done < count) {
        int n = epoll_wait(epoll, events, 64, 60000);

        CHECK(n > 0, "nothing for 60 s; %d connected, %d done", connected,
              done);
        for (int i = 0; i < n; i++) {
            struct stream *s = &streams[events[i].data.u32];
            struct epoll_event event = events[i];

            if (!s->connected) {
                socklen_t len = sizeof(int);
                int error = 0;

                getsockopt(s->fd, SOL_SOCKET, SO_ERROR, &error, &len);
                if (!error && !(events[i].events & EPOLLOUT)) {
                    continue;
                }
                errno = error;
                CHECK(!error, "connect %u", events[i].data.u32);
                s->connected = true;
                event.events = 0;
                epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event);
                if (++connected < count) {
                    continue;
                }
                printf("%d connected after %.1f s\n", count,
                       (now_ns() - start) / 1e9);
                for (int j = 0; j < count; j++) {
                    say_line(streams[j].fd, "ECHO %lld\n", size);
                    event.events = EPOLLIN | EPOLLOUT;
                    event.data.u32 = j;
                    epoll_ctl(epoll, EPOLL_CTL_MOD, streams[j].fd, &event);
                }
                break;
            }
            if (connected < count) {
                continue;
            }
            if (s->received < size && stream_step(s, size, events[i].events)) {
                epoll_ctl(epoll, EPOLL_CTL_DEL, s->fd, NULL);
                done++;
            } else if (s->sent == size) {
                event.events = EPOLLIN;
                epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event);
            }
        }
    }
    for (int i = 0; i < count; i++) {
        char byte;

        CHECK(recv(streams[i].fd, &byte, 1, 0) == 0, "no end of stream");
        close(streams[i].fd);
    }
    printf("%d connections, %.1f MB each way, content equal, %.1f s\n", count,
           count * size / 1e6, (now_ns() - start) / 1e9);
    return 0;
}

/* refused HOST PORT: blocking and not. */
static int
cmd_refused(char **argv)
{
    struct sockaddr_in sin = address(argv[0], argv[1]);
    int fd = tcp_socket(0);
    struct pollfd pfd = {.events = POLLOUT};
    socklen_t len = sizeof(int);
    int error = 0;

    CHECK(connect(fd, (struct sockaddr *) &sin, sizeof sin) == -1 &&
              errno == ECONNREFUSED,
          "blocking connect: not ECONNREFUSED");
    close(fd);

    fd = tcp_socket(SOCK_NONBLOCK);
    if (connect(fd, (struct sockaddr *) &sin, sizeof sin)) {
        CHECK(errno == EINPROGRESS, "non-blocking connect");
        pfd.fd = fd;
        CHECK(poll(&pfd, 1, 20000) == 1, "poll says nothing");
        CHECK(!getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len), "SO_ERROR");
        CHECK(error == ECONNREFUSED, "SO_ERROR is %d", error);
    } else {
        CHECK(false, "connected");
    }
    close(fd);
    puts("ECONNREFUSED both ways");
    return 0;
}

/* inuse PORT: a second socket cannot have the port; after close one can. */
static int
cmd_inuse(char **argv)
{
    struct sockaddr_in sin = address("0.0.0.0", argv[0]);
    int first = tcp_listen("0.0.0.0", argv[0], 5);
    int second = tcp_socket(0);
    int rc = bind(second, (struct sockaddr *) &sin, sizeof sin);

    if (!rc) {
        rc = listen(second, 5);
    }
    CHECK(rc == -1 && errno == EADDRINUSE, "not EADDRINUSE");
    close(second);
    close(first);
    first = tcp_listen("0.0.0.0", argv[0], 5);
    close(first);
    puts("EADDRINUSE, and free again after close");
    return 0;
}

/* taken PORT: somebody outside has it. */
static int
cmd_taken(char **argv)
{
    struct sockaddr_in sin = address("0.0.0.0", argv[0]);
    int fd = tcp_socket(0);
    int rc = bind(fd, (struct sockaddr *) &sin, sizeof sin);

    if (!rc) {
        rc = listen(fd, 5);
    }
    CHECK(rc == -1 && errno == EADDRINUSE, "not EADDRINUSE");
    puts("EADDRINUSE");
    return 0;
}

static double
echo_rate(const char *host, const char *port, double seconds)
{
    uint64_t start = now_ns();
    uint64_t bytes = 0;

    while (now_ns() - start < seconds * 1e9) {
        int fd = tcp_connect(host, port);

        say_line(fd, "SOURCE %lld\n", 1000000);
        CHECK(recv_pattern(fd, 1000000, 0), "source");
        bytes += 1000000;
        close(fd);
    }
    return bytes / ((now_ns() - start) / 1e9);
}

/* silent HOST PORT SILENT: a connect to an address that never answers does
 * not hold up others. */
static int
cmd_silent(char **argv)
{
    struct sockaddr_in sin = address(argv[2], "80");
    double before = echo_rate(argv[0], argv[1], 4);
    struct pollfd pfd = {.events = POLLOUT};
    int fds[8];
    double during;
    pid_t pid;

    for (int i = 0; i < 8; i++) {
        fds[i] = tcp_socket(SOCK_NONBLOCK);
        CHECK(connect(fds[i], (struct sockaddr *) &sin, sizeof sin) == -1 &&
                  errno == EINPROGRESS,
              "silent connect");
    }
    pid = fork();
    if (!pid) {
        int fd = tcp_socket(0);

        connect(fd, (struct sockaddr *) &sin, sizeof sin);
        _exit(0);
    }
    during = echo_rate(argv[0], argv[1], 4);
    printf("%.1f MB/s before, %.1f MB/s meanwhile\n", before / 1e6,
           during / 1e6);
    for (int i = 0; i < 8; i++) {
        pfd.fd = fds[i];
        CHECK(poll(&pfd, 1, 0) == 0, "silent connect is ready: %x",
              (unsigned int) pfd.revents);
        close(fds[i]);
    }
    CHECK(waitpid(pid, NULL, WNOHANG) == 0, "the blocking connect ended");
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, NULL, 0) == pid, "cannot kill a connecting process");
    CHECK(during > before / 3, "others are held up");
    return 0;
}

/* listeners HOST PORT FIRST COUNT: COUNT idle listeners, a connect beside
 * them, then each accepts. */
static int
cmd_listeners(char **argv)
{
    int first = atoi(argv[2]), count = atoi(argv[3]);
    struct pollfd *pfds = calloc(count, sizeof *pfds);
    int left = count;

    for (int i = 0; i < count; i++) {
        char port[8];

        snprintf(port, sizeof port, "%d", first + i);
        pfds[i].fd = tcp_listen("0.0.0.0", port, 8);
        pfds[i].events = POLLIN;
        fcntl(pfds[i].fd, F_SETFL, O_NONBLOCK);
    }
    printf("%.1f MB/s beside %d idle listeners\n",
           echo_rate(argv[0], argv[1], 2) / 1e6, count);
    puts("LISTENING");
    fflush(stdout);
    while (left > 0) {
        CHECK(poll(pfds, count, 60000) > 0, "no connection; %d left", left);
        for (int i = 0; i < count; i++) {
            if (pfds[i].revents & POLLIN) {
                int fd = accept(pfds[i].fd, NULL, NULL);

                if (fd < 0) {
                    CHECK(errno == EAGAIN, "accept %d", first + i);
                    continue;
                }
                say_line(fd, "%lld\n", first + i);
                close(fd);
                left--;
            }
        }
    }
    printf("all %d accepted\n", count);
    return 0;
}

/* visit HOST FIRST COUNT: outside; connects to each port, in mixed order, and
 * wants its number. */
static int
cmd_visit(char **argv)
{
    int first = atoi(argv[1]), count = atoi(argv[2]);

    for (int i = 0; i < count; i++) {
        int n = first + (i * 7 + 3) % count;
        struct timeval tv = {.tv_sec = 30};
        char port[16], line[16];
        ssize_t got;
        int fd;

        snprintf(port, sizeof port, "%d", n);
        fd = tcp_connect(argv[0], port);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
        got = recv(fd, line, sizeof line - 1, MSG_WAITALL);
        CHECK(got > 0, "no answer from port %s", port);
        line[got] = '\0';
        CHECK(atoi(line) == n, "port %s answered '%s'", port, line);
        close(fd);
    }
    printf("%d ports answered\n", count);
    return 0;
}

/* endings HOST PORT: reset and orderly close are told apart. */
static int
cmd_endings(char **argv)
{
    char buf[16];
    ssize_t n;
    int fd;

    fd = tcp_connect(argv[0], argv[1]);
    say_line(fd, "FIN\n", 0);
    CHECK(recv(fd, buf, 3, MSG_WAITALL) == 3, "bye");
    n = recv(fd, buf, sizeof buf, 0);
    CHECK(n == 0, "orderly close gives %zd", n);
    n = recv(fd, buf, sizeof buf, 0);
    CHECK(n == 0, "and again");
    close(fd);

    fd = tcp_connect(argv[0], argv[1]);
    say_line(fd, "RESET\n", 0);
    CHECK(recv(fd, buf, 3, MSG_WAITALL) == 3, "bye");
    n = recv(fd, buf, sizeof buf, 0);
    CHECK(n == -1 && errno == ECONNRESET, "reset gives %zd", n);
    CHECK(send(fd, buf, 1, MSG_NOSIGNAL) == -1 &&
              (errno == EPIPE || errno == ECONNRESET),
          "send after a reset");
    close(fd);
    puts("end and reset told apart");
    return 0;
}

static void
on_alarm(int sig)
{
}

/* basics HOST PORT: what programs do with a stream besides read and write. */
static int
cmd_basics(char **argv)
{
    struct sigaction action = {.sa_handler = on_alarm};
    struct timeval tv = {.tv_usec = 200000};
    struct pollfd pfd = {.events = POLLIN};
    struct sockaddr_in sin;
    socklen_t len = sizeof sin;
    uint64_t start;
    char buf[64];
    int value, fd, other, status;
    pid_t pid;

    fd = tcp_connect(argv[0], argv[1]);
    CHECK(!getpeername(fd, (struct sockaddr *) &sin, &len) &&
              sin.sin_port == htons(atoi(argv[1])),
          "getpeername");
    value = 1;
    CHECK(!setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof value),
          "TCP_NODELAY");
    say_line(fd, "ECHO %lld\n", 26);
    CHECK(recv(fd, buf, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN,
          "MSG_DONTWAIT");
    CHECK(!setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv),
          "SO_RCVTIMEO");
    start = now_ns();
    CHECK(recv(fd, buf, 1, 0) == -1 && errno == EAGAIN, "time-out");
    CHECK(now_ns() - start >= 150000000, "time-out too early");
    tv.tv_usec = 0;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);

    sigaction(SIGALRM, &action, NULL);
    ualarm(200000, 0);
    CHECK(recv(fd, buf, 1, 0) == -1 && errno == EINTR, "signal");

    CHECK(write_all(fd, "abcdefghijklm", 13), "send");
    pfd.fd = fd;
    CHECK(poll(&pfd, 1, 20000) == 1 && pfd.revents & POLLIN, "poll");
    CHECK(recv(fd, buf, 5, MSG_PEEK) == 5 && !memcmp(buf, "abcde", 5),
          "MSG_PEEK");
    CHECK(recv(fd, buf, 13, MSG_WAITALL) == 13 &&
              !memcmp(buf, "abcdefghijklm", 13),
          "MSG_WAITALL");
    CHECK(!ioctl(fd, FIONREAD, &value) && value == 0, "FIONREAD %d", value);

    /* Another process and another descriptor of the same stream. */
    other = dup(fd);
    close(fd);
    pid = fork();
    if (!pid) {
        _exit(write_all(other, "nopqrstuvwxyz", 13) ? 0 : 1);
    }
    CHECK(waitpid(pid, &status, 0) == pid && !status, "child");
    CHECK(read(other, buf, 4) == 4 && !memcmp(buf, "nopq", 4), "read");
    CHECK(recv(other, buf, 9, MSG_WAITALL) == 9 &&
              !memcmp(buf, "rstuvwxyz", 9),
          "rest");
    CHECK(recv(other, buf, 1, 0) == 0, "end");
    close(other);

    fd = tcp_connect(argv[0], argv[1]);
    say_line(fd, "PINGPONG\n", 0);
    CHECK(!shutdown(fd, SHUT_WR), "shutdown");
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE,
          "send after shutdown");
    close(fd);

    fd = tcp_socket(0);
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == -1 &&
              (errno == ENOTCONN || errno == EPIPE),
          "send, not connected");
    CHECK(recv(fd, buf, 1, MSG_DONTWAIT) == -1 && errno == ENOTCONN,
          "recv, not connected");
    close(fd);
    puts("basics work");
    return 0;
}

/* halt HOST PORT: a peer that does not read makes a blocking send wait, a
 * non-blocking one say so; a signal gets out. */
static int
cmd_halt(char **argv)
{
    struct sigaction action = {.sa_handler = on_alarm};
    int fd = tcp_connect(argv[0], argv[1]);
    uint64_t total = 0;
    ssize_t n;

    say_line(fd, "HALT\n", 0);
    for (int idle = 0; idle < 10;) {
        n = send(fd, pattern(0), 65536, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0) {
            CHECK(errno == EAGAIN, "send");
            idle++;
            usleep(100000);
        } else {
            total += n;
            idle = 0;
        }
        CHECK(total < 100000000, "nobody holds the sender back");
    }
    sigaction(SIGALRM, &action, NULL);
    alarm(1);
    n = send(fd, pattern(0), 65536, MSG_NOSIGNAL);
    CHECK(n == -1 && errno == EINTR, "blocking send gives %zd", n);
    printf("held back after %llu bytes\n", (unsigned long long) total);
    reset_on_close(fd);
    close(fd);
    return 0;
}

/* local PORT: loopback stays in the guest, and is not seen outside. */
static int
cmd_local(char **argv)
{
    int listener = tcp_listen("127.0.0.1", argv[0], 5);
    char byte;
    pid_t pid = fork();
    int fd, status;

    if (!pid) {
        fd = accept(listener, NULL, NULL);
        _exit(fd >= 0 && write_all(fd, "l", 1) ? 0 : 1);
    }
    fd = tcp_connect("127.0.0.1", argv[0]);
    CHECK(recv(fd, &byte, 1, 0) == 1 && byte == 'l', "loopback");
    CHECK(waitpid(pid, &status, 0) == pid && !status, "child");
    puts("loopback works");
    return 0;
}

/* both PORT: a wildcard listener; two connections, one comes from here by
 * loopback, the other from outside.  Each gets its number. */
static int
cmd_both(char **argv)
{
    int listener = tcp_listen("0.0.0.0", argv[0], 5);
    char line[8] = "";
    pid_t pid;
    int status;

    puts("LISTENING");
    fflush(stdout);
    pid = fork();
    if (!pid) {
        int fd = tcp_connect("127.0.0.1", argv[0]);

        CHECK(recv(fd, line, sizeof line, 0) > 0, "no answer by loopback");
        _exit(0);
    }
    for (int i = 0; i < 2; i++) {
        struct pollfd pfd = {.fd = listener, .events = POLLIN};
        int fd;

        CHECK(poll(&pfd, 1, 60000) == 1, "connection %d does not come", i);
        fd = accept(listener, NULL, NULL);
        CHECK(fd >= 0, "accept");
        say_line(fd, "%lld\n", atoi(argv[0]));
        close(fd);
    }
    CHECK(waitpid(pid, &status, 0) == pid && !status, "loopback child");
    puts("both sides were served");
    return 0;
}

/* creators COUNT: that many threads make sockets at once. */
static void *
creator(void *arg)
{
    struct sockaddr_in *sin = arg;

    for (int i = 0; i < 10; i++) {
        int fd = tcp_socket(0);
        char byte;

        if (i == 9) {
            CHECK(!connect(fd, (struct sockaddr *) sin, sizeof *sin),
                  "a socket was not lifted");
            say_line(fd, "SOURCE %lld\n", 1);
            CHECK(recv(fd, &byte, 1, 0) == 1, "source");
        }
        close(fd);
    }
    return NULL;
}

static int
cmd_creators(char **argv)
{
    struct sockaddr_in sin = address(argv[0], argv[1]);
    int count = atoi(argv[2]);
    pthread_t *threads = calloc(count, sizeof *threads);
    pthread_attr_t attr;

    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 192 * 1024);
    for (int i = 0; i < count; i++) {
        CHECK(!pthread_create(&threads[i], &attr, creator, &sin), "thread");
    }
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
    }
    printf("%d creators\n", count);
    return 0;
}

/* hold HOST PORT SECONDS: a slow stream in both directions; status 0 if it
 * lasted, 3 if it was reset meanwhile (printing when), 1 otherwise. */
static int
cmd_hold(char **argv)
{
    int fd = tcp_connect(argv[0], argv[1]);
    uint64_t end = now_ns() + atoi(argv[2]) * 1000000000ull;
    uint64_t n = 0;
    char byte;

    say_line(fd, "PINGPONG\n", 0);
    puts("HOLDING");
    fflush(stdout);
    while (now_ns() < end) {
        ssize_t got;

        byte = 'a' + n % 26;
        if (send(fd, &byte, 1, MSG_NOSIGNAL) != 1 ||
            (got = recv(fd, &byte, 1, 0)) < 0) {
            printf("broken after %llu: %s\n", (unsigned long long) n,
                   strerror(errno));
            return errno == ECONNRESET || errno == EPIPE ? 3 : 1;
        }
        CHECK(got == 1 && byte == (char) ('a' + n % 26), "content");
        n++;
        usleep(20000);
    }
    printf("lasted, %llu round trips\n", (unsigned long long) n);
    return 0;
}

/* keep PORT: a listener that answers everybody with its port for ever, and
 * tells when accept fails. */
static int
cmd_keep(char **argv)
{
    int listener = tcp_listen("0.0.0.0", argv[0], 16);

    puts("LISTENING");
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);

        if (fd < 0) {
            printf("accept: %s\n", strerror(errno));
            fflush(stdout);
            return 1;
        }
        send(fd, argv[0], strlen(argv[0]), MSG_NOSIGNAL);
        send(fd, "\n", 1, MSG_NOSIGNAL);
        close(fd);
    }
}

/* ---- Measurements: one number on standard output ---- */

/* out HOST PORT BYTES, in HOST PORT BYTES: MB/s */
static int
cmd_out(char **argv)
{
    uint64_t size = strtoull(argv[2], NULL, 0);
    int fd = tcp_connect(argv[0], argv[1]);
    uint64_t start = now_ns();
    char byte;

    say_line(fd, "SINK %lld\n", size);
    CHECK(send_pattern(fd, size), "send");
    CHECK(recv(fd, &byte, 1, 0) == 1 && byte == 'y', "content");
    printf("%.3f\n", size / 1e6 / ((now_ns() - start) / 1e9));
    return 0;
}

static int
cmd_in(char **argv)
{
    uint64_t size = strtoull(argv[2], NULL, 0);
    int fd = tcp_connect(argv[0], argv[1]);
    uint64_t start = now_ns();

    say_line(fd, "SOURCE %lld\n", size);
    CHECK(recv_pattern(fd, size, 0), "content");
    printf("%.3f\n", size / 1e6 / ((now_ns() - start) / 1e9));
    return 0;
}

static int
compare_u64(const void *a_, const void *b_)
{
    const uint64_t *a = a_, *b = b_;

    return *a < *b ? -1 : *a > *b;
}

/* trip HOST PORT COUNT: median of a 1-byte round trip, us */
static int
cmd_trip(char **argv)
{
    int count = atoi(argv[2]);
    uint64_t *times = calloc(count, sizeof *times);
    int fd = tcp_connect(argv[0], argv[1]);
    int one = 1;
    char byte = 'x';

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    say_line(fd, "PINGPONG\n", 0);
    for (int i = -20; i < count; i++) {
        uint64_t start = now_ns();

        CHECK(send(fd, &byte, 1, 0) == 1 && recv(fd, &byte, 1, 0) == 1,
              "trip");
        if (i >= 0) {
            times[i] = now_ns() - start;
        }
    }
    qsort(times, count, sizeof *times, compare_u64);
    printf("%.1f\n", times[count / 2] / 1e3);
    return 0;
}

/* rate HOST PORT COUNT: connect, request, answer, close: per second */
static int
cmd_rate(char **argv)
{
    int count = atoi(argv[2]);
    uint64_t start = now_ns();

    for (int i = 0; i < count; i++) {
        int fd = tcp_connect(argv[0], argv[1]);
        char byte;

        say_line(fd, "SOURCE %lld\n", 1);
        CHECK(recv(fd, &byte, 1, 0) == 1, "answer");
        close(fd);
    }
    printf("%.1f\n", count / ((now_ns() - start) / 1e9));
    return 0;
}

static const struct command {
    const char *name;
    int n_args;
    int (*run)(char **argv);
    const char *usage;
} commands[] = {
    {"serve", 2, cmd_serve, "ADDRESS PORT"},
    {"visit", 3, cmd_visit, "HOST FIRST COUNT"},
    {"many", 4, cmd_many, "HOST PORT COUNT BYTES"},
    {"refused", 2, cmd_refused, "HOST PORT"},
    {"inuse", 1, cmd_inuse, "PORT"},
    {"taken", 1, cmd_taken, "PORT"},
    {"silent", 3, cmd_silent, "HOST PORT SILENT-HOST"},
    {"listeners", 4, cmd_listeners, "HOST PORT FIRST COUNT"},
    {"endings", 2, cmd_endings, "HOST PORT"},
    {"basics", 2, cmd_basics, "HOST PORT"},
    {"halt", 2, cmd_halt, "HOST PORT"},
    {"local", 1, cmd_local, "PORT"},
    {"both", 1, cmd_both, "PORT"},
    {"creators", 3, cmd_creators, "HOST PORT COUNT"},
    {"hold", 3, cmd_hold, "HOST PORT SECONDS"},
    {"keep", 1, cmd_keep, "PORT"},
    {"out", 3, cmd_out, "HOST PORT BYTES"},
    {"in", 3, cmd_in, "HOST PORT BYTES"},
    {"trip", 3, cmd_trip, "HOST PORT COUNT"},
    {"rate", 3, cmd_rate, "HOST PORT COUNT"},
};

int
main(int argc, char **argv)
{
    struct rlimit limit = {.rlim_cur = 16384, .rlim_max = 16384};

    setrlimit(RLIMIT_NOFILE, &limit);
    setvbuf(stdout, NULL, _IOLBF, 0);
    pattern_init();
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        const struct command *c = &commands[i];

        if (argc >= 2 && !strcmp(argv[1], c->name) && argc - 2 == c->n_args) {
            return c->run(argv + 2);
        }
    }
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        printf("socktest %s %s\n", commands[i].name, commands[i].usage);
    }
    return 2;
}
