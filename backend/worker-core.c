/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * worker-core.c - rounds, tasks, event ports and polling of a worker; see
 * worker.h for the theory.
 */
#include "backend/worker.h"

#include <errno.h>
#include <stdio.h>
#include <sys/epoll.h>

#include "lib/clock.h"
#include "lib/coverage.h"
#include "lib/vlog.h"

COVERAGE_DEFINE(worker_sleep);
COVERAGE_DEFINE(worker_event);
COVERAGE_DEFINE(worker_event_spurious);
COVERAGE_DEFINE(worker_event_penalty);
COVERAGE_DEFINE(worker_notify);
COVERAGE_DEFINE(worker_poll_hit);
COVERAGE_DEFINE(worker_poll_miss);

/* So many events in a row without work, and a port stays masked for
 * PENALTY_MS. */
#define SPURIOUS_BURST 64
#define PENALTY_MS 10

#define PORT_BATCH 64
#define HOT_MAX 32
/* A window that brought something after having been closed starts here. */
#define POLL_START_NS (20 * NSEC_PER_USEC)
/* epoll is asked once in so many looks at the rings. */
#define PEEKS_PER_EPOLL 8

/* Tasks. */

void
worker_task_init(struct worker_task *task, void (*run)(void *), void *aux)
{
    list_init(&task->link);
    task->run = run;
    task->aux = aux;
}

/* Makes 'task' run in the next round.  Does nothing if it is queued. */
void
worker_task_queue(struct worker *w, struct worker_task *task)
{
    if (list_is_empty(&task->link)) {
        list_push_back(&w->runq, &task->link);
    }
}

void
worker_task_cancel(struct worker_task *task)
{
    list_remove(&task->link);
}

static void
worker_run_tasks__(struct worker *w)
{
    struct list batch;

    if (list_is_empty(&w->runq)) {
        return;
    }
    /* Those queued meanwhile wait for the next round. */
    batch = w->runq;
    batch.next->prev = batch.prev->next = &batch;
    list_init(&w->runq);
    while (!list_is_empty(&batch)) {
        struct worker_task *task =
            CONTAINER_OF(list_pop_front(&batch), struct worker_task, link);

        task->run(task->aux);
    }
    w->had_work = true;
}

/* Ports. */

/* 'event' and 'peek' will be called with 'aux' once the port is bound. */
void
worker_port_init(struct worker_port *p, bool (*event)(void *),
                 bool (*peek)(const void *), void *aux)
{
    list_init(&p->link);
    list_init(&p->hot);
    p->port = 0;
    p->n_spurious = 0;
    p->event = event;
    p->peek = peek;
    p->aux = aux;
}

/* Binds 'p' to the guest's 'remote_port'.  Returns 0 or a positive errno. */
int
worker_port_bind(struct worker *w, struct worker_port *p, uint32_t remote_port)
{
    uint32_t port;
    int error;

    error = hv_evtchn_bind_interdomain(w->hv, w->domid, remote_port, &port);
    if (error) {
        return error;
    }
    error = idmap_add(&w->ports, port, p);
    if (error) {
        hv_evtchn_unbind(w->hv, port);
        return error;
    }
    p->port = port;
    p->n_spurious = 0;
    return 0;
}

static void
worker_port_cool__(struct worker *w, struct worker_port *p)
{
    if (!list_is_empty(&p->hot)) {
        list_remove(&p->hot);
        w->n_hot--;
    }
}

/* Undoes worker_port_bind(); no callback comes any more.  Idempotent. */
void
worker_port_unbind(struct worker *w, struct worker_port *p)
{
    if (p->port) {
        idmap_remove(&w->ports, p->port);
        hv_evtchn_unbind(w->hv, p->port);
        list_remove(&p->link);
        worker_port_cool__(w, p);
        p->port = 0;
    }
}

void
worker_port_notify(struct worker *w, struct worker_port *p)
{
    if (p->port) {
        COVERAGE_INC(worker_notify);
        hv_evtchn_notify(w->hv, p->port);
    }
}

/* 'p' brought work: it is looked at first while spinning. */
static void
worker_port_heat__(struct worker *w, struct worker_port *p)
{
    if (!w->opt.poll_max_ns) {
        return;
    }
    if (!list_is_empty(&p->hot)) {
        list_remove(&p->hot);
        w->n_hot--;
    } else if (w->n_hot >= HOT_MAX) {
        list_remove(list_back(&w->hot));
        w->n_hot--;
    }
    list_push_front(&w->hot, &p->hot);
    w->n_hot++;
}

static void
worker_port_fired__(struct worker *w, uint32_t port)
{
    struct worker_port *p = idmap_find(&w->ports, port);

    if (!p) {
        /* Unbound after it was read. */
        return;
    }
    /* It is masked now; who unbinds it in the callback also takes it off this
     * list, and then 'p' may be gone. */
    list_remove(&p->link);
    list_push_back(&w->masked, &p->link);
    COVERAGE_INC(worker_event);
    if (p->event(p->aux)) {
        if (idmap_find(&w->ports, port) == p) {
            p->n_spurious = 0;
            worker_port_heat__(w, p);
        }
        w->had_work = true;
        return;
    }
    COVERAGE_INC(worker_event_spurious);
    if (idmap_find(&w->ports, port) == p && ++p->n_spurious > SPURIOUS_BURST) {
        COVERAGE_INC(worker_event_penalty);
        list_remove(&p->link);
        list_push_back(&w->penalty, &p->link);
        if (!w->penalty_timer.when) {
            loop_timer_set_ms(w->loop, &w->penalty_timer, PENALTY_MS);
        }
    }
}

static void
worker_evtchn_cb__(uint32_t events UNUSED, void *w_)
{
    struct worker *w = w_;
    uint32_t ports[PORT_BATCH];
    size_t n;
    int error;

    error = hv_evtchn_read(w->hv, ports, ARRAY_SIZE(ports), &n);
    if (error) {
        /* Deaf, and the descriptor would stay readable for ever: a new worker
         * is better. */
        vlog_err("dom%u: lost the event channels: %s", w->domid,
                 strerror(error));
        w->quit = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        worker_port_fired__(w, ports[i]);
    }
}

static void
worker_unmask__(struct worker *w, struct list *list)
{
    uint32_t ports[PORT_BATCH];
    size_t n = 0;

    while (!list_is_empty(list)) {
        ports[n++] =
            CONTAINER_OF(list_pop_front(list), struct worker_port, link)->port;
        if (n == ARRAY_SIZE(ports) || list_is_empty(list)) {
            hv_evtchn_unmask(w->hv, ports, n);
            n = 0;
        }
    }
}

static void
worker_penalty_cb__(void *w_)
{
    struct worker *w = w_;

    worker_unmask__(w, &w->penalty);
}

/* Polling. */

static bool
worker_peek_hot__(struct worker *w)
{
    struct worker_port *p, *next;

    LIST_FOR_EACH_SAFE (p, next, hot, &w->hot) {
        if (p->peek(p->aux)) {
            /* The callback may unbind any port: do not go on in the list. */
            if (p->event(p->aux)) {
                w->had_work = true;
                return true;
            }
        }
    }
    return false;
}

static inline void
worker_relax__(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

/* Spins for at most the window.  True if there was work. */
static bool
worker_spin__(struct worker *w)
{
    uint64_t deadline = clock_mono_ns() + w->poll_ns;

    w->had_work = false;
    do {
        for (int i = 0; i < PEEKS_PER_EPOLL; i++) {
            if (worker_peek_hot__(w)) {
                COVERAGE_INC(worker_poll_hit);
                return true;
            }
            worker_relax__();
        }
        loop_run_once(w->loop, 0);
        if (w->had_work || !list_is_empty(&w->runq) || w->any_failed ||
            w->quit) {
            COVERAGE_INC(worker_poll_hit);
            return true;
        }
    } while (clock_mono_ns() < deadline);
    COVERAGE_INC(worker_poll_miss);
    return false;
}

static void
worker_sleep__(struct worker *w)
{
    uint64_t before = 0;

    worker_unmask__(w, &w->masked);
    COVERAGE_INC(worker_sleep);
    if (w->opt.poll_max_ns) {
        before = clock_mono_ns();
    }
    w->had_work = false;
    loop_run_once(w->loop, -1);
    if (w->opt.poll_max_ns && w->had_work) {
        if (clock_mono_ns() - before <= w->opt.poll_max_ns) {
            w->poll_ns =
                MIN(MAX(w->poll_ns * 2, POLL_START_NS), w->opt.poll_max_ns);
        } else {
            w->poll_ns /= 2;
            if (w->poll_ns < POLL_START_NS / 2) {
                w->poll_ns = 0;
            }
        }
    }
}

/* Core. */

/* Creates the loop and attaches the event channels of w->hv.  Returns 0 or a
 * positive errno. */
int
worker_core_init(struct worker *w)
{
    int error;

    list_init(&w->runq);
    list_init(&w->masked);
    list_init(&w->penalty);
    list_init(&w->hot);
    list_init(&w->devices);
    idmap_init(&w->ports);
    loop_timer_init(&w->penalty_timer, worker_penalty_cb__, w);
    error = loop_create(&w->loop);
    if (error) {
        return error;
    }
    return loop_add_fd(w->loop, hv_evtchn_fd(w->hv), EPOLLIN,
                       worker_evtchn_cb__, w, &w->evtchn_handle);
}

void
worker_core_destroy(struct worker *w)
{
    if (w->loop) {
        loop_timer_cancel(&w->penalty_timer);
        loop_del_fd(w->loop, w->evtchn_handle);
        loop_destroy(w->loop);
        w->loop = NULL;
    }
    idmap_destroy(&w->ports);
}

/* Runs until w->quit. */
void
worker_core_run(struct worker *w)
{
    while (!w->quit) {
        if (!list_is_empty(&w->runq)) {
            loop_run_once(w->loop, 0);
        } else if (!w->poll_ns || !worker_spin__(w)) {
            if (w->opt.poll_max_ns && w->poll_ns) {
                w->poll_ns /= 2;
            }
            worker_sleep__(w);
        }
        worker_run_tasks__(w);
        if (w->any_failed) {
            worker_control_reap(w);
        }
    }
}
