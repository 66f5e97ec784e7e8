/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * echo.c - see echo.h.
 */
#include "tests/local/echo.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/loop.h"

struct echo {
    struct loop *loop;
    struct loop_fd *handle;
    int fd;
    pthread_t thread;
    struct list conns;
};

struct conn {
    struct list link;
    struct echo *echo;
    struct loop_fd *handle;
    int fd;
    size_t n;
    char buf[65536];
};

/* A listener on a free port of 127.0.0.1. */
int
tcp_listen(int backlog, struct sockaddr_in *ret)
{
    struct sockaddr_in sin = {.sin_family = AF_INET,
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof sin;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (bind(fd, (struct sockaddr *) &sin, sizeof sin) ||
        listen(fd, backlog) ||
        getsockname(fd, (struct sockaddr *) &sin, &len)) {
        abort();
    }
    *ret = sin;
    return fd;
}

int
tcp_connect(const struct sockaddr_in *sin)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (connect(fd, (const struct sockaddr *) sin, sizeof *sin)) {
        close(fd);
        return -1;
    }
    return fd;
}

void
tcp_reset(int fd)
{
    struct linger l = {.l_onoff = 1};

    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
    close(fd);
}

static void
conn_close(struct conn *c)
{
    loop_del_fd(c->echo->loop, c->handle);
    close(c->fd);
    list_remove(&c->link);
    free(c);
}

static void
conn_cb(uint32_t events UNUSED, void *c_)
{
    struct conn *c = c_;

    for (;;) {
        ssize_t n;

        if (c->n) {
            n = send(c->fd, c->buf, c->n, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (n < 0 && errno == EAGAIN) {
                loop_mod_fd(c->echo->loop, c->handle, EPOLLOUT);
                return;
            }
            if (n <= 0) {
                conn_close(c);
                return;
            }
            memmove(c->buf, c->buf + n, c->n - n);
            c->n -= n;
            continue;
        }
        n = recv(c->fd, c->buf, sizeof c->buf, MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) {
            loop_mod_fd(c->echo->loop, c->handle, EPOLLIN);
            return;
        }
        if (n <= 0) {
            conn_close(c);
            return;
        }
        c->n = n;
    }
}

static void
accept_cb(uint32_t events UNUSED, void *e_)
{
    struct echo *e = e_;
    int fd = accept4(e->fd, NULL, NULL, SOCK_CLOEXEC);
    struct conn *c;

    if (fd < 0) {
        return;
    }
    c = calloc(1, sizeof *c);
    c->echo = e;
    c->fd = fd;
    list_push_back(&e->conns, &c->link);
    if (loop_add_fd(e->loop, fd, EPOLLIN, conn_cb, c, &c->handle)) {
        abort();
    }
}

static void *
echo_main(void *e_)
{
    struct echo *e = e_;

    loop_run(e->loop);
    return NULL;
}

struct echo *
echo_start(struct sockaddr_in *ret)
{
    struct echo *e = calloc(1, sizeof *e);

    list_init(&e->conns);
    e->fd = tcp_listen(1000, ret);
    if (loop_create(&e->loop) ||
        loop_add_fd(e->loop, e->fd, EPOLLIN, accept_cb, e, &e->handle) ||
        pthread_create(&e->thread, NULL, echo_main, e)) {
        abort();
    }
    return e;
}

void
echo_stop(struct echo *e)
{
    loop_stop(e->loop);
    pthread_join(e->thread, NULL);
    while (!list_is_empty(&e->conns)) {
        conn_close(CONTAINER_OF(list_front(&e->conns), struct conn, link));
    }
    loop_del_fd(e->loop, e->handle);
    close(e->fd);
    loop_destroy(e->loop);
    free(e);
}
