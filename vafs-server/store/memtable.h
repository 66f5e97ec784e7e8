/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The newest part of the index: a hash table in memory. */

#ifndef VAFS_STORE_MEMTABLE_H
#define VAFS_STORE_MEMTABLE_H 1

#include "vafs-server/store/format.h"
#include "vafs-server/store/store.h"

/* Where an object is; also the layout of an entry in a run. */
struct index_entry {
    struct store_id id;
    uint64_t pack;
    uint32_t offset;
    uint32_t location; /* LOC_*. */
};
BUILD_ASSERT(sizeof(struct index_entry) == RUN_ENTRY_SIZE);

struct memtable;

struct memtable *memtable_create(void);
void memtable_destroy(struct memtable *); /* Accepts NULL. */

/* Adds or replaces.  ENOMEM changes nothing. */
int memtable_insert(struct memtable *, const struct index_entry *) NODISCARD;
bool memtable_find(struct memtable *, const struct store_id *,
                   struct index_entry *);
size_t memtable_count(const struct memtable *);
size_t memtable_memory(const struct memtable *);

/* All entries by id, to be freed by the caller. */
int memtable_sorted(struct memtable *, struct index_entry **ret,
                    size_t *ret_n) NODISCARD;

#endif /* vafs-server/store/memtable.h */
