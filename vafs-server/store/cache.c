/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Plain objects in memory; see cache.h.
 *
 * Up to 64 shards by id, each with a mutex that is held for a few
 * instructions, a hash table, and two rings (data, others) in order of
 * arrival.  Eviction is second chance: the oldest that was not used since it
 * was last looked at. Objects are immutable and counted, so an evicted one
 * lives on with whoever has it.  Memory of objects that are only referenced
 * from outside is not counted here: it is the budget of those who hold them.
 */

#include "vafs-server/store/cache.h"

#include <pthread.h>
#include <stdlib.h>

#include "lib/list.h"

#define CACHE_SHARDS_MAX 64
/* A shard should hold at least so much, or hashing's unevenness and large
 * objects would make it useless. */
#define CACHE_SHARD_BYTES (512u << 10)
#define CACHE_BUCKETS 256 /* In each shard. */

enum { CACHE_NODES, CACHE_RECORDS, CACHE_N_CLASSES };

struct object_private {
    struct object object;
    struct store_id base; /* Set before others see the object. */
    uint32_t refs;        /* Atomic. */
    uint8_t proven;       /* Atomic. */
    uint8_t used;         /* Under the shard's lock, as are the next ones. */
    uint8_t cached;
    struct list ring;            /* In cache_class's 'ring'. */
    struct object_private *next; /* In the bucket. */
    uint8_t bytes[];
};

struct cache_class {
    struct list ring;
    size_t bytes;
};

struct cache_shard {
    pthread_mutex_t mutex;
    struct cache_class classes[CACHE_N_CLASSES];
    struct object_private *buckets[CACHE_BUCKETS];
} __attribute__((aligned(64)));

struct cache {
    size_t max[CACHE_N_CLASSES]; /* For each shard. */
    size_t n_shards;             /* A power of two. */
    struct cache_shard shards[CACHE_SHARDS_MAX];
};

static struct object_private *
object_cast__(const struct object *object)
{
    return CONTAINER_OF(object, struct object_private, object);
}

struct object *
object_create(const struct store_id *id, uint8_t kind, uint8_t format,
              size_t size, uint8_t **ret_data)
{
    struct object_private *o = malloc(sizeof *o + size);

    if (!o) {
        return NULL;
    }
    memset(o, 0, sizeof *o);
    o->object.data = o->bytes;
    o->object.size = size;
    o->object.id = *id;
    o->object.kind = kind;
    o->object.format = format;
    o->refs = 1;
    *ret_data = o->bytes;
    return &o->object;
}

struct object *
object_ref(struct object *object)
{
    __atomic_fetch_add(&object_cast__(object)->refs, 1, __ATOMIC_RELAXED);
    return object;
}

void
object_unref(struct object *object)
{
    if (object) {
        struct object_private *o = object_cast__(object);

        if (__atomic_fetch_sub(&o->refs, 1, __ATOMIC_ACQ_REL) == 1) {
            free(o);
        }
    }
}

bool
object_is_proven(const struct object *object)
{
    return __atomic_load_n(&object_cast__(object)->proven, __ATOMIC_RELAXED);
}

void
object_set_proven(struct object *object)
{
    __atomic_store_n(&object_cast__(object)->proven, 1, __ATOMIC_RELAXED);
}

const struct store_id *
object_base(const struct object *object)
{
    return &object_cast__(object)->base;
}

void
object_set_base(struct object *object, const struct store_id *base)
{
    object_cast__(object)->base = *base;
}

struct cache *
cache_create(size_t node_bytes, size_t record_bytes)
{
    struct cache *cache = aligned_alloc(64, sizeof *cache);

    if (!cache) {
        return NULL;
    }
    memset(cache, 0, sizeof *cache);
    cache->n_shards = 1;
    while (cache->n_shards < CACHE_SHARDS_MAX &&
           record_bytes / (2 * cache->n_shards) >= CACHE_SHARD_BYTES) {
        cache->n_shards *= 2;
    }
    cache->max[CACHE_NODES] = node_bytes / cache->n_shards;
    cache->max[CACHE_RECORDS] = record_bytes / cache->n_shards;
    for (size_t i = 0; i < cache->n_shards; i++) {
        struct cache_shard *shard = &cache->shards[i];

        pthread_mutex_init(&shard->mutex, NULL);
        for (size_t j = 0; j < CACHE_N_CLASSES; j++) {
            list_init(&shard->classes[j].ring);
        }
    }
    return cache;
}

/* An id is a hash, so any of its bits will do. */
static struct cache_shard *
cache_shard__(struct cache *cache, const struct store_id *id)
{
    return &cache->shards[id->bytes[0] & (cache->n_shards - 1)];
}

static struct object_private **
cache_bucket__(struct cache_shard *shard, const struct store_id *id)
{
    return &shard->buckets[id->bytes[1] % CACHE_BUCKETS];
}

static size_t
cache_cost__(const struct object_private *o)
{
    return sizeof *o + o->object.size;
}

static int
cache_class__(const struct object_private *o)
{
    return o->object.kind == STORE_DATA ? CACHE_RECORDS : CACHE_NODES;
}

static struct object_private *
cache_find__(struct cache_shard *shard, const struct store_id *id)
{
    struct object_private *o = *cache_bucket__(shard, id);

    while (o && !store_id_equal(&o->object.id, id)) {
        o = o->next;
    }
    return o;
}

static void
cache_remove__(struct cache_shard *shard, struct object_private *o)
{
    struct object_private **p = cache_bucket__(shard, &o->object.id);

    while (*p != o) {
        p = &(*p)->next;
    }
    *p = o->next;
    list_remove(&o->ring);
    shard->classes[cache_class__(o)].bytes -= cache_cost__(o);
    o->cached = 0;
}

void
cache_destroy(struct cache *cache)
{
    if (!cache) {
        return;
    }
    for (size_t i = 0; i < cache->n_shards; i++) {
        struct cache_shard *shard = &cache->shards[i];

        for (size_t j = 0; j < CACHE_N_CLASSES; j++) {
            struct list *ring = &shard->classes[j].ring;

            while (!list_is_empty(ring)) {
                struct object_private *o = CONTAINER_OF(
                    list_front(ring), struct object_private, ring);

                cache_remove__(shard, o);
                object_unref(&o->object);
            }
        }
        pthread_mutex_destroy(&shard->mutex);
    }
    free(cache);
}

struct object *
cache_get(struct cache *cache, const struct store_id *id)
{
    struct cache_shard *shard = cache_shard__(cache, id);
    struct object_private *o;

    pthread_mutex_lock(&shard->mutex);
    o = cache_find__(shard, id);
    if (o) {
        o->used = 1;
        object_ref(&o->object);
    }
    pthread_mutex_unlock(&shard->mutex);
    return o ? &o->object : NULL;
}

/* Takes the next victim out of 'class', or NULL if there is none. */
static struct object_private *
cache_evict__(struct cache_shard *shard, struct cache_class *class)
{
    while (!list_is_empty(&class->ring)) {
        struct object_private *o = CONTAINER_OF(list_front(&class->ring),
                                                struct object_private, ring);

        if (!o->used) {
            cache_remove__(shard, o);
            return o;
        }
        o->used = 0;
        list_remove(&o->ring);
        list_push_back(&class->ring, &o->ring);
    }
    return NULL;
}

void
cache_put(struct cache *cache, struct object *object)
{
    struct object_private *o = object_cast__(object);
    struct cache_shard *shard = cache_shard__(cache, &object->id);
    struct cache_class *class = &shard->classes[cache_class__(o)];
    size_t max = cache->max[cache_class__(o)];
    struct object_private *victims = NULL;

    if (cache_cost__(o) > max) {
        return;
    }
    pthread_mutex_lock(&shard->mutex);
    if (!o->cached && !cache_find__(shard, &object->id)) {
        struct object_private **bucket = cache_bucket__(shard, &object->id);

        while (class->bytes + cache_cost__(o) > max) {
            struct object_private *victim = cache_evict__(shard, class);

            if (!victim) {
                break;
            }
            victim->next = victims;
            victims = victim;
        }
        object_ref(object);
        o->cached = 1;
        o->used = 0;
        o->next = *bucket;
        *bucket = o;
        list_push_back(&class->ring, &o->ring);
        class->bytes += cache_cost__(o);
    }
    pthread_mutex_unlock(&shard->mutex);

    while (victims) {
        struct object_private *victim = victims;

        victims = victim->next;
        object_unref(&victim->object);
    }
}

void
cache_usage(struct cache *cache, size_t *ret_nodes, size_t *ret_records)
{
    *ret_nodes = *ret_records = 0;
    for (size_t i = 0; i < cache->n_shards; i++) {
        struct cache_shard *shard = &cache->shards[i];

        pthread_mutex_lock(&shard->mutex);
        *ret_nodes += shard->classes[CACHE_NODES].bytes;
        *ret_records += shard->classes[CACHE_RECORDS].bytes;
        pthread_mutex_unlock(&shard->mutex);
    }
}
