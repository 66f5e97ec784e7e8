/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The newest part of the index; see memtable.h.  Shards with a mutex each, in
 * them an array of entries and a table of chains through it. */

#include "vafs-server/store/memtable.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#define MEMTABLE_SHARDS 16
#define MEMTABLE_NONE UINT32_MAX

struct memtable_shard {
    pthread_mutex_t mutex;
    struct index_entry *entries;
    uint32_t *next;    /* One for each entry. */
    uint32_t *buckets; /* As many as 'allocated'. */
    uint32_t n, allocated;
} __attribute__((aligned(64)));

struct memtable {
    struct memtable_shard shards[MEMTABLE_SHARDS];
    size_t n, memory; /* Atomic. */
};

struct memtable *
memtable_create(void)
{
    struct memtable *mt = aligned_alloc(64, sizeof *mt);

    if (mt) {
        memset(mt, 0, sizeof *mt);
        for (size_t i = 0; i < MEMTABLE_SHARDS; i++) {
            pthread_mutex_init(&mt->shards[i].mutex, NULL);
        }
    }
    return mt;
}

void
memtable_destroy(struct memtable *mt)
{
    if (!mt) {
        return;
    }
    for (size_t i = 0; i < MEMTABLE_SHARDS; i++) {
        struct memtable_shard *shard = &mt->shards[i];

        pthread_mutex_destroy(&shard->mutex);
        free(shard->entries);
        free(shard->next);
        free(shard->buckets);
    }
    free(mt);
}

static uint32_t *
memtable_bucket__(struct memtable_shard *shard, const struct store_id *id)
{
    return &shard->buckets[get_le32(id->bytes + 4) & (shard->allocated - 1)];
}

static struct index_entry *
memtable_lookup__(struct memtable_shard *shard, const struct store_id *id)
{
    if (!shard->allocated) {
        return NULL;
    }
    for (uint32_t i = *memtable_bucket__(shard, id); i != MEMTABLE_NONE;
         i = shard->next[i]) {
        if (store_id_equal(&shard->entries[i].id, id)) {
            return &shard->entries[i];
        }
    }
    return NULL;
}

static struct memtable_shard *
memtable_shard__(struct memtable *mt, const struct store_id *id)
{
    return &mt->shards[id->bytes[0] % MEMTABLE_SHARDS];
}

static void
memtable_link__(struct memtable_shard *shard, uint32_t index)
{
    uint32_t *bucket = memtable_bucket__(shard, &shard->entries[index].id);

    shard->next[index] = *bucket;
    *bucket = index;
}

static int
memtable_grow__(struct memtable *mt, struct memtable_shard *shard)
{
    uint32_t n = shard->allocated ? 2 * shard->allocated : 64;
    struct index_entry *entries = malloc(n * sizeof *entries);
    uint32_t *next = malloc(n * sizeof *next);
    uint32_t *buckets = malloc(n * sizeof *buckets);

    if (!entries || !next || !buckets) {
        free(entries);
        free(next);
        free(buckets);
        return ENOMEM;
    }
    if (shard->n) {
        memcpy(entries, shard->entries, shard->n * sizeof *entries);
    }
    free(shard->entries);
    free(shard->next);
    free(shard->buckets);
    __atomic_fetch_add(&mt->memory,
                       (n - shard->allocated) *
                           (sizeof *entries + sizeof *next + sizeof *buckets),
                       __ATOMIC_RELAXED);
    shard->entries = entries;
    shard->next = next;
    shard->buckets = buckets;
    shard->allocated = n;
    memset(buckets, 0xff, n * sizeof *buckets);
    for (uint32_t i = 0; i < shard->n; i++) {
        memtable_link__(shard, i);
    }
    return 0;
}

int
memtable_insert(struct memtable *mt, const struct index_entry *entry)
{
    struct memtable_shard *shard = memtable_shard__(mt, &entry->id);
    struct index_entry *old;
    int error = 0;

    pthread_mutex_lock(&shard->mutex);
    old = memtable_lookup__(shard, &entry->id);
    if (old) {
        *old = *entry;
    } else {
        if (shard->n == shard->allocated) {
            error = memtable_grow__(mt, shard);
        }
        if (!error) {
            shard->entries[shard->n] = *entry;
            memtable_link__(shard, shard->n++);
            __atomic_fetch_add(&mt->n, 1, __ATOMIC_RELAXED);
        }
    }
    pthread_mutex_unlock(&shard->mutex);
    return error;
}

bool
memtable_find(struct memtable *mt, const struct store_id *id,
              struct index_entry *ret)
{
    struct memtable_shard *shard = memtable_shard__(mt, id);
    struct index_entry *entry;

    pthread_mutex_lock(&shard->mutex);
    entry = memtable_lookup__(shard, id);
    if (entry) {
        *ret = *entry;
    }
    pthread_mutex_unlock(&shard->mutex);
    return entry != NULL;
}

size_t
memtable_count(const struct memtable *mt)
{
    return __atomic_load_n(&mt->n, __ATOMIC_RELAXED);
}

size_t
memtable_memory(const struct memtable *mt)
{
    return __atomic_load_n(&mt->memory, __ATOMIC_RELAXED);
}

static int
memtable_compare__(const void *a_, const void *b_)
{
    const struct index_entry *a = a_, *b = b_;

    return memcmp(&a->id, &b->id, sizeof a->id);
}

int
memtable_sorted(struct memtable *mt, struct index_entry **ret, size_t *ret_n)
{
    size_t n = 0, allocated = memtable_count(mt) + 1;
    struct index_entry *all = malloc(allocated * sizeof *all);
    int error = all ? 0 : ENOMEM;

    for (size_t i = 0; i < MEMTABLE_SHARDS && !error; i++) {
        struct memtable_shard *shard = &mt->shards[i];

        pthread_mutex_lock(&shard->mutex);
        /* It may have grown since it was counted. */
        if (n + shard->n > allocated) {
            size_t want = 2 * (n + shard->n);
            struct index_entry *p = realloc(all, want * sizeof *all);

            if (p) {
                all = p;
                allocated = want;
            } else {
                error = ENOMEM;
            }
        }
        if (!error && shard->n) {
            memcpy(all + n, shard->entries, shard->n * sizeof *all);
            n += shard->n;
        }
        pthread_mutex_unlock(&shard->mutex);
    }
    if (error) {
        free(all);
        return error;
    }
    qsort(all, n, sizeof *all, memtable_compare__);
    *ret = all;
    *ret_n = n;
    return 0;
}
