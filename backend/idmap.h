/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * idmap.h - a hash map from 64-bit numbers, as a guest chose them, to
 * pointers.
 */
#ifndef BACKEND_IDMAP_H
#define BACKEND_IDMAP_H 1

#include "lib/util.h"

struct idmap_entry;

struct idmap {
    struct idmap_entry *entries; /* NULL while nothing was ever added. */
    uint32_t n;                  /* Entries in use. */
    uint32_t size;               /* A power of two, or 0. */
    uint64_t seed; /* So that a guest cannot choose collisions. */
};

void idmap_init(struct idmap *);
void idmap_destroy(struct idmap *);
void *idmap_find(const struct idmap *, uint64_t id);
int idmap_add(struct idmap *, uint64_t id, void *value) NODISCARD;
void *idmap_remove(struct idmap *, uint64_t id);

#endif /* backend/idmap.h */
