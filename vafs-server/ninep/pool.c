/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The thread pool (see pool.h).
 *
 * One mutex guards two lists: what waits for a thread and what waits for the
 * loop.  A job is in 'waiting', then (with its link empty) with a thread, then
 * in 'finished', then with the loop.  The loop is woken through an eventfd,
 * once for however many jobs have gathered. */

#include "vafs-server/ninep/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/loop.h"
#include "lib/vlog.h"

/* File operations need little stack; a compressor's buffers are on the heap.
 * Enough for a sanitizer's redzones, too. */
#define STACK_SIZE (512 * 1024)

struct pool {
    struct loop *loop;
    int wake_fd;
    struct loop_fd *wake;
    pthread_t *threads;
    unsigned int n_threads, max_threads;
    unsigned int n_jobs; /* The loop's thread only. */

    pthread_mutex_t mutex;
    pthread_cond_t cond; /* 'waiting' or 'stopping' changed. */
    /* Under 'mutex'. */
    struct list waiting;
    struct list finished;
    unsigned int n_idle;
    bool is_stopping;
};

static void *
pool_thread(void *pool_)
{
    struct pool *pool = pool_;
    uint64_t one = 1;

    pthread_mutex_lock(&pool->mutex);
    for (;;) {
        struct pool_job *job;
        bool wake;

        while (list_is_empty(&pool->waiting) && !pool->is_stopping) {
            pool->n_idle++;
            pthread_cond_wait(&pool->cond, &pool->mutex);
            pool->n_idle--;
        }
        if (list_is_empty(&pool->waiting)) {
            break;
        }
        job = CONTAINER_OF(list_pop_front(&pool->waiting), struct pool_job,
                           link);
        pthread_mutex_unlock(&pool->mutex);
        job->run(job);
        pthread_mutex_lock(&pool->mutex);
        wake = list_is_empty(&pool->finished);
        list_push_back(&pool->finished, &job->link);
        if (wake && write(pool->wake_fd, &one, sizeof one) < 0) {
            /* The counter is not zero, which is all we want. */
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    return NULL;
}

/* Calls 'done' of what is finished. */
static void
pool_drain(struct pool *pool)
{
    struct list list;

    list_init(&list);
    pthread_mutex_lock(&pool->mutex);
    while (!list_is_empty(&pool->finished)) {
        list_push_back(&list, list_pop_front(&pool->finished));
    }
    pthread_mutex_unlock(&pool->mutex);
    while (!list_is_empty(&list)) {
        struct pool_job *job =
            CONTAINER_OF(list_pop_front(&list), struct pool_job, link);

        pool->n_jobs--;
        job->done(job);
    }
}

static void
pool_wake_cb(uint32_t events UNUSED, void *pool_)
{
    struct pool *pool = pool_;
    uint64_t n;

    if (read(pool->wake_fd, &n, sizeof n) < 0) {
        /* Somebody drained meanwhile. */
    }
    pool_drain(pool);
}

int
pool_create(struct loop *loop, unsigned int n_threads, struct pool **ret)
{
    struct pool *pool = calloc(1, sizeof *pool);
    int error;

    if (!pool) {
        return ENOMEM;
    }
    pool->loop = loop;
    pool->max_threads = n_threads;
    list_init(&pool->waiting);
    list_init(&pool->finished);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->cond, NULL);
    pool->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    pool->threads = calloc(n_threads, sizeof *pool->threads);
    if (pool->wake_fd < 0 || !pool->threads) {
        error = pool->threads ? errno : ENOMEM;
        pool_destroy(pool);
        return error;
    }
    error = loop_add_fd(loop, pool->wake_fd, EPOLLIN, pool_wake_cb, pool,
                        &pool->wake);
    if (error) {
        pool_destroy(pool);
        return error;
    }
    *ret = pool;
    return 0;
}

void
pool_destroy(struct pool *pool)
{
    if (!pool) {
        return;
    }
    pthread_mutex_lock(&pool->mutex);
    pool->is_stopping = true;
    pthread_cond_broadcast(&pool->cond);
    pthread_mutex_unlock(&pool->mutex);
    for (unsigned int i = 0; i < pool->n_threads; i++) {
        pthread_join(pool->threads[i], NULL);
    }
    pool_drain(pool);
    loop_del_fd(pool->loop, pool->wake);
    if (pool->wake_fd >= 0) {
        close(pool->wake_fd);
    }
    pthread_cond_destroy(&pool->cond);
    pthread_mutex_destroy(&pool->mutex);
    free(pool->threads);
    free(pool);
}

static void
start_thread(struct pool *pool)
{
    sigset_t all, old;
    pthread_attr_t attr;
    int error;

    /* Signals are the loop's. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_SIZE);
    error = pthread_create(&pool->threads[pool->n_threads], &attr, pool_thread,
                           pool);
    pthread_attr_destroy(&attr);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (error) {
        static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(6, 2);

        vlog_warn_rl(&rl, "cannot start a thread: %s", strerror(error));
    } else {
        pool->n_threads++;
    }
}

int
pool_submit(struct pool *pool, struct pool_job *job)
{
    bool is_short;

    pthread_mutex_lock(&pool->mutex);
    is_short = !pool->n_idle && pool->n_threads < pool->max_threads;
    pthread_mutex_unlock(&pool->mutex);
    if (is_short) {
        start_thread(pool);
        if (!pool->n_threads) {
            return EAGAIN;
        }
    }
    pool->n_jobs++;
    pthread_mutex_lock(&pool->mutex);
    list_push_back(&pool->waiting, &job->link);
    pthread_cond_signal(&pool->cond);
    pthread_mutex_unlock(&pool->mutex);
    return 0;
}

bool
pool_cancel(struct pool *pool, struct pool_job *job)
{
    bool found = false;
    struct list *p;

    pthread_mutex_lock(&pool->mutex);
    for (p = pool->waiting.next; p != &pool->waiting; p = p->next) {
        if (p == &job->link) {
            list_remove(p);
            found = true;
            break;
        }
    }
    pthread_mutex_unlock(&pool->mutex);
    pool->n_jobs -= found;
    return found;
}

unsigned int
pool_n_jobs(const struct pool *pool)
{
    return pool->n_jobs;
}
