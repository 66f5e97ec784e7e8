/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Memory of one layer of a branch's edge: an arena that goes back to the
 * system as a whole when the layer is merged, and the pool of 4 KiB pages for
 * dirty file content.  Both count what they hold, which is what the dirty
 * budget is about. */

#ifndef VAFS_BRANCH_ARENA_H
#define VAFS_BRANCH_ARENA_H 1

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/util.h"

#define ARENA_CHUNK (256 * 1024)
#define ARENA_CLASSES 256 /* Of 16 bytes. */

struct arena_chunk {
    struct arena_chunk *next;
    size_t size;
};

/* Not thread-safe. */
struct arena {
    struct arena_chunk *chunks; /* The newest first. */
    uint8_t *free, *end;        /* What is left of it. */
    void *class[ARENA_CLASSES]; /* Pieces given back. */
    size_t size;                /* Of all chunks. */
};

void arena_init(struct arena *);
void arena_destroy(struct arena *);

/* Makes sure that the next allocations of up to 'size' bytes in all (each
 * rounded up to 16) succeed.  ENOMEM. */
int arena_prepare(struct arena *, size_t size) NODISCARD;

/* Takes 'size' bytes, at most 4096; arena_prepare() has promised them. */
void *arena_alloc(struct arena *, size_t size);
void arena_free(struct arena *, void *, size_t size);

#define PAGE_SIZE__ 4096u

/* Pages.  Thread-safe. */
struct page_pool {
    pthread_mutex_t mutex;
    uint8_t *region;
    uint32_t n_pages, n_used, n_fresh, n_free, n_resident;
    uint32_t *free; /* Stack of numbers of pages given back. */
};

int page_pool_init(struct page_pool *, uint64_t size) NODISCARD;
void page_pool_destroy(struct page_pool *);

/* A page with any content, or NULL. */
uint8_t *page_alloc(struct page_pool *);
void page_free(struct page_pool *, uint8_t *);
uint64_t page_pool_used(struct page_pool *);

/* Gives the memory of free pages back to the system. */
void page_pool_trim(struct page_pool *);

#endif /* vafs-server/branch/arena.h */
