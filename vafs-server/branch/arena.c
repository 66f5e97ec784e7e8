/* SPDX-License-Identifier: GPL-2.0-or-later */
/* See arena.h. */

#include "vafs-server/branch/arena.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

void
arena_init(struct arena *arena)
{
    memset(arena, 0, sizeof *arena);
}

void
arena_destroy(struct arena *arena)
{
    while (arena->chunks) {
        struct arena_chunk *chunk = arena->chunks;

        arena->chunks = chunk->next;
        munmap(chunk, chunk->size);
    }
    arena_init(arena);
}

int
arena_prepare(struct arena *arena, size_t size)
{
    struct arena_chunk *chunk;
    size_t chunk_size;

    if (size <= (size_t) (arena->end - arena->free)) {
        return 0;
    }
    chunk_size = ROUND_UP(MAX(size + 64, ARENA_CHUNK), 65536);
    chunk = mmap(NULL, chunk_size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (chunk == MAP_FAILED) {
        return ENOMEM;
    }
    chunk->next = arena->chunks;
    chunk->size = chunk_size;
    arena->chunks = chunk;
    arena->free = (uint8_t *) chunk + ROUND_UP(sizeof *chunk, 16);
    arena->end = (uint8_t *) chunk + chunk_size;
    arena->size += chunk_size;
    return 0;
}

void *
arena_alloc(struct arena *arena, size_t size)
{
    size_t class = DIV_ROUND_UP(size, 16);
    uint8_t *p = class < ARENA_CLASSES ? arena->class[class] : NULL;

    if (p) {
        memcpy(&arena->class[class], p, sizeof(void *));
        return p;
    }
    p = arena->free;
    arena->free += class * 16;
    if (arena->free > arena->end) {
        abort(); /* The caller has not prepared enough. */
    }
    return p;
}

void
arena_free(struct arena *arena, void *p, size_t size)
{
    size_t class = DIV_ROUND_UP(size, 16);

    if (class < ARENA_CLASSES) {
        memcpy(p, &arena->class[class], sizeof(void *));
        arena->class[class] = p;
    }
}

int
page_pool_init(struct page_pool *pool, uint64_t size)
{
    memset(pool, 0, sizeof *pool);
    pool->n_pages = size / PAGE_SIZE__;
    pool->free = malloc(pool->n_pages * sizeof *pool->free);
    if (!pool->free) {
        return ENOMEM;
    }
    pool->region = mmap(NULL, (size_t) pool->n_pages * PAGE_SIZE__,
                        PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pool->region == MAP_FAILED) {
        free(pool->free);
        return ENOMEM;
    }
    pthread_mutex_init(&pool->mutex, NULL);
    return 0;
}

void
page_pool_destroy(struct page_pool *pool)
{
    munmap(pool->region, (size_t) pool->n_pages * PAGE_SIZE__);
    free(pool->free);
    pthread_mutex_destroy(&pool->mutex);
}

uint8_t *
page_alloc(struct page_pool *pool)
{
    uint8_t *page = NULL;
    uint32_t i = UINT32_MAX;

    pthread_mutex_lock(&pool->mutex);
    if (pool->n_free) {
        i = pool->free[--pool->n_free];
    } else if (pool->n_fresh < pool->n_pages) {
        i = pool->n_fresh++;
    }
    if (i != UINT32_MAX) {
        pool->n_used++;
        pool->n_resident = MAX(pool->n_resident, pool->n_used);
        page = pool->region + (size_t) i * PAGE_SIZE__;
    }
    pthread_mutex_unlock(&pool->mutex);
    return page;
}

void
page_free(struct page_pool *pool, uint8_t *page)
{
    pthread_mutex_lock(&pool->mutex);
    pool->free[pool->n_free++] = (page - pool->region) / PAGE_SIZE__;
    pool->n_used--;
    pthread_mutex_unlock(&pool->mutex);
}

uint64_t
page_pool_used(struct page_pool *pool)
{
    return (uint64_t) __atomic_load_n(&pool->n_used, __ATOMIC_RELAXED) *
           PAGE_SIZE__;
}

void
page_pool_trim(struct page_pool *pool)
{
    pthread_mutex_lock(&pool->mutex);
    /* A few megabytes stay for the next burst. */
    if (pool->n_resident > pool->n_used + 1024) {
        for (uint32_t i = 0; i < pool->n_free; i++) {
            madvise(pool->region + (size_t) pool->free[i] * PAGE_SIZE__,
                    PAGE_SIZE__, MADV_DONTNEED);
        }
        pool->n_resident = pool->n_used;
    }
    pthread_mutex_unlock(&pool->mutex);
}
