/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * loop.h - an epoll loop with timers: the one thread that a daemon runs on.
 * Everything here but loop_post() and loop_stop() is for the loop's own
 * thread.
 */
#ifndef LIB_LOOP_H
#define LIB_LOOP_H 1

#include "lib/list.h"

struct loop;
struct loop_fd;

/* 'events' are EPOLLIN and so on. */
typedef void loop_fd_cb(uint32_t events, void *aux);
typedef void loop_cb(void *aux);

/* A one-shot timer, embedded in its owner. */
struct loop_timer {
    struct list link; /* In the loop's list, in the order of 'when'. */
    uint64_t when;    /* clock_mono_ns(); 0 = not set. */
    loop_cb *cb;
    void *aux;
};

int loop_create(struct loop **) NODISCARD;
void loop_destroy(struct loop *);
void loop_run(struct loop *);
bool loop_run_once(struct loop *, int timeout_ms);
void loop_stop(struct loop *);

int loop_add_fd(struct loop *, int fd, uint32_t events, loop_fd_cb *,
                void *aux, struct loop_fd **ret) NODISCARD;
void loop_mod_fd(struct loop *, struct loop_fd *, uint32_t events);
void loop_del_fd(struct loop *, struct loop_fd *);

void loop_timer_init(struct loop_timer *, loop_cb *, void *aux);
void loop_timer_set_ms(struct loop *, struct loop_timer *, uint64_t ms);
void loop_timer_set_abs(struct loop *, struct loop_timer *, uint64_t when);
void loop_timer_cancel(struct loop_timer *);

int loop_post(struct loop *, loop_cb *, void *aux) NODISCARD;

int loop_add_signals(struct loop *, const int *signals, size_t n,
                     void (*cb)(int signal, void *aux), void *aux) NODISCARD;

#endif /* lib/loop.h */
