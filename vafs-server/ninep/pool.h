/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A fixed number of threads for what may block.
 *
 * A job runs on some thread of the pool, then its 'done' on the loop's thread.
 * Threads are started when the first jobs come, up to the given number, and
 * stay.  There are more of them than processors: most wait in fdatasync(), and
 * all that wait at once share one flush (the journal's group commit). */
#ifndef VAFS_NINEP_POOL_H
#define VAFS_NINEP_POOL_H 1

#include "lib/list.h"
#include "lib/util.h"

struct loop;
struct pool;

struct pool_job {
    struct list link;
    void (*run)(struct pool_job *);  /* On a thread of the pool. */
    void (*done)(struct pool_job *); /* On the loop's; may free the job. */
};

int pool_create(struct loop *, unsigned int n_threads,
                struct pool **ret) NODISCARD;

/* Finishes all jobs, calls their 'done's, ends the threads.  On the loop's
 * thread.  NULL is accepted. */
void pool_destroy(struct pool *);

/* Queues 'job', which stays in place until 'done'.  On the loop's thread.
 * EAGAIN: not even one thread could be started; nothing is queued. */
int pool_submit(struct pool *, struct pool_job *job) NODISCARD;

/* Takes 'job' back if no thread has begun with it: true, and neither 'run' nor
 * 'done' will be called. */
bool pool_cancel(struct pool *, struct pool_job *job);

/* Jobs that were submitted and are not done. */
unsigned int pool_n_jobs(const struct pool *);

#endif /* vafs-server/ninep/pool.h */
