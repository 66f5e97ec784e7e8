/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What makes the index keep up: sealing full segments, writing the memtable
 * out, merging runs.  A thread does it, or the putting thread itself when the
 * store was opened with STORE_NO_THREAD.  Nothing here is needed for
 * durability; a failure is logged and tried again later. */

#include <errno.h>

#include "lib/clock.h"
#include "vafs-server/store/store-private.h"

#define UPKEEP_RETRY_NS NSEC_PER_SEC

static int
upkeep_run__(struct store *store)
{
    int error = 0;

    pthread_mutex_lock(&store->upkeep_mutex);
    if (clock_mono_ns() >= store->upkeep_retry) {
        if (segments_take_full(store->segs)) {
            error = segments_seal_full(store->segs);
            if (error) {
                /* Try again with the next segment. */
                vlog_warn("sealing a segment failed: %s", strerror(error));
            }
        }
        if (index_is_damaged(store->index)) {
            error = store_rebuild_index__(store);
        }
        if (!error && index_wants_flush(store->index)) {
            error = index_flush(store->index);
            if (!error) {
                error = index_merge(store->index);
            }
        }
        if (error) {
            static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(6, 6);

            vlog_warn_rl(&rl, "index upkeep failed: %s", strerror(error));
            store->upkeep_retry = clock_mono_ns() + UPKEEP_RETRY_NS;
        }
    }
    pthread_mutex_unlock(&store->upkeep_mutex);
    return error;
}

static void *
upkeep_thread__(void *store_)
{
    struct store *store = store_;

    pthread_mutex_lock(&store->thread_mutex);
    while (!store->thread_stop) {
        if (!store->thread_kicked) {
            pthread_cond_wait(&store->thread_cond, &store->thread_mutex);
            continue;
        }
        store->thread_kicked = false;
        pthread_mutex_unlock(&store->thread_mutex);
        upkeep_run__(store);
        pthread_mutex_lock(&store->thread_mutex);
    }
    pthread_mutex_unlock(&store->thread_mutex);
    return NULL;
}

int
upkeep_start(struct store *store)
{
    int error;

    if (store->flags & (STORE_NO_THREAD | STORE_READ_ONLY)) {
        return 0;
    }
    error = pthread_create(&store->thread, NULL, upkeep_thread__, store);
    store->thread_runs = !error;
    return error;
}

void
upkeep_stop(struct store *store)
{
    if (store->thread_runs) {
        pthread_mutex_lock(&store->thread_mutex);
        store->thread_stop = true;
        pthread_cond_signal(&store->thread_cond);
        pthread_mutex_unlock(&store->thread_mutex);
        pthread_join(store->thread, NULL);
        store->thread_runs = false;
    }
}

void
upkeep_kick(struct store *store)
{
    if (!__atomic_load_n(&store->segs->new_full, __ATOMIC_RELAXED) &&
        !index_is_damaged(store->index) && !index_wants_flush(store->index)) {
        return;
    }
    if (store->thread_runs) {
        pthread_mutex_lock(&store->thread_mutex);
        store->thread_kicked = true;
        pthread_cond_signal(&store->thread_cond);
        pthread_mutex_unlock(&store->thread_mutex);
    } else {
        upkeep_run__(store);
    }
}

int
upkeep_finish(struct store *store)
{
    int error;

    pthread_mutex_lock(&store->upkeep_mutex);
    error = segments_seal_full(store->segs);
    if (!error) {
        error = index_flush(store->index);
    }
    if (!error) {
        error = index_merge(store->index);
    }
    pthread_mutex_unlock(&store->upkeep_mutex);
    return error;
}
