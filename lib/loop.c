/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * loop.c - see loop.h.
 *
 * A loop_fd that is deleted while events for it may still stand in the batch
 * that epoll returned is only marked; it is freed when the batch is done.
 * Timers are kept in a list ordered by time: daemons here have few of them,
 * and most are set near the end.
 */
#include "lib/loop.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/vlog.h"

#define MAX_EVENTS 64

struct loop_fd {
    struct list link; /* In 'dead' once deleted. */
    int fd;
    uint32_t events;
    loop_fd_cb *cb;
    void *aux;
    bool is_dead;
};

struct loop_post__ {
    struct loop_post__ *next;
    loop_cb *cb;
    void *aux;
};

struct loop_signals__ {
    int fd;
    struct loop_fd *handle;
    void (*cb)(int signal, void *aux);
    void *aux;
};

struct loop {
    int epfd;
    bool is_stopped;
    struct list timers; /* Of "struct loop_timer"s. */
    struct list dead;   /* Of "struct loop_fd"s. */
    struct loop_signals__ *signals;

    int wake_fd;
    struct loop_fd *wake;
    pthread_mutex_t mutex;
    struct loop_post__ *posts, **posts_tail; /* Under 'mutex'. */
};

static void
loop_run_posts__(uint32_t events, void *loop_)
{
    struct loop *loop = loop_;
    struct loop_post__ *p, *next;
    uint64_t n;

    if (read(loop->wake_fd, &n, sizeof n) < 0) {
        /* EAGAIN: another batch took it. */
    }
    pthread_mutex_lock(&loop->mutex);
    p = loop->posts;
    loop->posts = NULL;
    loop->posts_tail = &loop->posts;
    pthread_mutex_unlock(&loop->mutex);
    for (; p; p = next) {
        next = p->next;
        p->cb(p->aux);
        free(p);
    }
}

/* Creates a loop.  Returns 0 and the loop in '*ret', or a positive errno. */
int
loop_create(struct loop **ret)
{
    struct loop *loop = calloc(1, sizeof *loop);
    int error;

    if (!loop) {
        return ENOMEM;
    }
    list_init(&loop->timers);
    list_init(&loop->dead);
    pthread_mutex_init(&loop->mutex, NULL);
    loop->posts_tail = &loop->posts;
    loop->wake_fd = -1;
    loop->epfd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epfd < 0) {
        error = errno;
        goto error;
    }
    loop->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (loop->wake_fd < 0) {
        error = errno;
        goto error;
    }
    error = loop_add_fd(loop, loop->wake_fd, EPOLLIN, loop_run_posts__, loop,
                        &loop->wake);
    if (error) {
        goto error;
    }
    *ret = loop;
    return 0;

error:
    loop_destroy(loop);
    return error;
}

static void
loop_free_dead__(struct loop *loop)
{
    while (!list_is_empty(&loop->dead)) {
        free(CONTAINER_OF(list_pop_front(&loop->dead), struct loop_fd, link));
    }
}

/* Destroys 'loop', which may be NULL.  Descriptors that were added must have
 * been deleted before; they are not closed. */
void
loop_destroy(struct loop *loop)
{
    struct loop_post__ *p, *next;

    if (!loop) {
        return;
    }
    if (loop->signals) {
        loop_del_fd(loop, loop->signals->handle);
        close(loop->signals->fd);
        free(loop->signals);
    }
    if (loop->wake) {
        loop_del_fd(loop, loop->wake);
    }
    loop_free_dead__(loop);
    for (p = loop->posts; p; p = next) {
        next = p->next;
        free(p);
    }
    if (loop->wake_fd >= 0) {
        close(loop->wake_fd);
    }
    if (loop->epfd >= 0) {
        close(loop->epfd);
    }
    pthread_mutex_destroy(&loop->mutex);
    free(loop);
}

static int
loop_timeout__(struct loop *loop, int timeout_ms)
{
    struct loop_timer *t;
    uint64_t now, ms;

    if (list_is_empty(&loop->timers)) {
        return timeout_ms;
    }
    t = CONTAINER_OF(list_front(&loop->timers), struct loop_timer, link);
    now = clock_mono_ns();
    ms = t->when <= now ? 0 : DIV_ROUND_UP(t->when - now, NSEC_PER_MSEC);
    ms = MIN(ms, 1000000);
    return timeout_ms < 0 ? (int) ms : MIN((int) ms, timeout_ms);
}

/* Runs the timers that were due when it was called.  One that a callback sets
 * anew for now runs in the next round, so that descriptors get their turn. */
static void
loop_run_timers__(struct loop *loop)
{
    uint64_t now;

    if (list_is_empty(&loop->timers)) {
        return;
    }
    now = clock_mono_ns();
    while (!list_is_empty(&loop->timers)) {
        struct loop_timer *t =
            CONTAINER_OF(list_front(&loop->timers), struct loop_timer, link);

        if (t->when > now) {
            break;
        }
        loop_timer_cancel(t);
        t->cb(t->aux);
    }
}

/* Waits at most 'timeout_ms' (-1: without end) for something to happen and
 * handles what has.  Returns false once the loop was stopped. */
bool
loop_run_once(struct loop *loop, int timeout_ms)
{
    struct epoll_event events[MAX_EVENTS];
    int n;

    n = epoll_wait(loop->epfd, events, MAX_EVENTS,
                   loop_timeout__(loop, timeout_ms));
    for (int i = 0; i < n; i++) {
        struct loop_fd *lf = events[i].data.ptr;

        if (!lf->is_dead) {
            lf->cb(events[i].events, lf->aux);
        }
    }
    loop_run_timers__(loop);
    loop_free_dead__(loop);
    return !__atomic_load_n(&loop->is_stopped, __ATOMIC_ACQUIRE);
}

/* Runs until loop_stop(). */
void
loop_run(struct loop *loop)
{
    while (loop_run_once(loop, -1)) {
        continue;
    }
}

/* Makes loop_run() return after the current round.  Any thread may call it. */
void
loop_stop(struct loop *loop)
{
    uint64_t one = 1;

    __atomic_store_n(&loop->is_stopped, true, __ATOMIC_RELEASE);
    if (write(loop->wake_fd, &one, sizeof one) < 0) {
        /* The counter is not zero, which is all we want. */
    }
}

/* Calls 'cb' with 'aux' whenever one of 'events' (or EPOLLERR, EPOLLHUP) holds
 * for 'fd', until loop_del_fd() on '*ret'.  'fd' stays the caller's. */
int
loop_add_fd(struct loop *loop, int fd, uint32_t events, loop_fd_cb *cb,
            void *aux, struct loop_fd **ret)
{
    struct loop_fd *lf = calloc(1, sizeof *lf);
    struct epoll_event ev = {.events = events, .data.ptr = lf};

    if (!lf) {
        return ENOMEM;
    }
    list_init(&lf->link);
    lf->fd = fd;
    lf->events = events;
    lf->cb = cb;
    lf->aux = aux;
    if (epoll_ctl(loop->epfd, EPOLL_CTL_ADD, fd, &ev)) {
        int error = errno;

        free(lf);
        return error;
    }
    *ret = lf;
    return 0;
}

/* Changes what 'lf' waits for. */
void
loop_mod_fd(struct loop *loop, struct loop_fd *lf, uint32_t events)
{
    struct epoll_event ev = {.events = events, .data.ptr = lf};

    if (lf->events != events) {
        lf->events = events;
        if (epoll_ctl(loop->epfd, EPOLL_CTL_MOD, lf->fd, &ev)) {
            vlog_err("epoll_ctl(%d): %s", lf->fd, strerror(errno));
        }
    }
}

/* Ends 'lf', which may be NULL: its callback is not called again, even for
 * events already fetched.  Call it before the descriptor is closed. */
void
loop_del_fd(struct loop *loop, struct loop_fd *lf)
{
    if (lf) {
        epoll_ctl(loop->epfd, EPOLL_CTL_DEL, lf->fd, NULL);
        lf->is_dead = true;
        list_push_back(&loop->dead, &lf->link);
    }
}

void
loop_timer_init(struct loop_timer *t, loop_cb *cb, void *aux)
{
    list_init(&t->link);
    t->when = 0;
    t->cb = cb;
    t->aux = aux;
}

/* Sets 't' to run at 'when' (clock_mono_ns()), in place of an earlier
 * setting. */
void
loop_timer_set_abs(struct loop *loop, struct loop_timer *t, uint64_t when)
{
    struct list *p;

    list_remove(&t->link);
    t->when = when;
    for (p = loop->timers.prev; p != &loop->timers; p = p->prev) {
        if (CONTAINER_OF(p, struct loop_timer, link)->when <= when) {
            break;
        }
    }
    list_insert(p->next, &t->link);
}

/* Sets 't' to run 'ms' milliseconds from now. */
void
loop_timer_set_ms(struct loop *loop, struct loop_timer *t, uint64_t ms)
{
    loop_timer_set_abs(loop, t, clock_mono_ns() + ms * NSEC_PER_MSEC);
}

/* Does nothing if 't' is not set. */
void
loop_timer_cancel(struct loop_timer *t)
{
    list_remove(&t->link);
    t->when = 0;
}

/* Makes the loop's thread call 'cb' with 'aux' soon.  Any thread may call it.
 * Returns 0 or ENOMEM. */
int
loop_post(struct loop *loop, loop_cb *cb, void *aux)
{
    struct loop_post__ *p = malloc(sizeof *p);
    uint64_t one = 1;

    if (!p) {
        return ENOMEM;
    }
    p->next = NULL;
    p->cb = cb;
    p->aux = aux;
    pthread_mutex_lock(&loop->mutex);
    *loop->posts_tail = p;
    loop->posts_tail = &p->next;
    pthread_mutex_unlock(&loop->mutex);
    if (write(loop->wake_fd, &one, sizeof one) < 0) {
        /* The counter is not zero, which is all we want. */
    }
    return 0;
}

static void
loop_signal_cb__(uint32_t events, void *s_)
{
    struct loop_signals__ *s = s_;
    struct signalfd_siginfo info;

    while (read(s->fd, &info, sizeof info) == sizeof info) {
        s->cb(info.ssi_signo, s->aux);
    }
}

/* Blocks the 'n' 'signals' in this thread (call it before others start) and
 * delivers them to 'cb' in the loop.  At most once for each loop. */
int
loop_add_signals(struct loop *loop, const int *signals, size_t n,
                 void (*cb)(int signal, void *aux), void *aux)
{
    struct loop_signals__ *s = calloc(1, sizeof *s);
    sigset_t set;
    int error;

    if (!s) {
        return ENOMEM;
    }
    sigemptyset(&set);
    for (size_t i = 0; i < n; i++) {
        sigaddset(&set, signals[i]);
    }
    s->cb = cb;
    s->aux = aux;
    s->fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
    if (s->fd < 0) {
        error = errno;
        free(s);
        return error;
    }
    error = loop_add_fd(loop, s->fd, EPOLLIN, loop_signal_cb__, s, &s->handle);
    if (error) {
        close(s->fd);
        free(s);
        return error;
    }
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    loop->signals = s;
    return 0;
}
