/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * idmap.c - see idmap.h.  Open addressing with linear probing, at most half
 * full; removal moves later entries of the run back, so there are no
 * tombstones.
 */
#include "backend/idmap.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#define IDMAP_MIN 16

struct idmap_entry {
    uint64_t id;
    void *value; /* NULL: free. */
};

void
idmap_init(struct idmap *map)
{
    memset(map, 0, sizeof *map);
    if (getrandom(&map->seed, sizeof map->seed, GRND_NONBLOCK) < 0) {
        /* A fixed seed costs speed at worst, and only that guest's. */
        map->seed = UINT64_C(0x9e3779b97f4a7c15);
    }
}

/* Frees 'map' but not what the values point to. */
void
idmap_destroy(struct idmap *map)
{
    free(map->entries);
    map->entries = NULL;
    map->n = map->size = 0;
}

static uint32_t
idmap_slot__(const struct idmap *map, uint64_t id)
{
    /* Finalizer of splitmix64. */
    uint64_t x = id ^ map->seed;

    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (x ^ (x >> 31)) & (map->size - 1);
}

/* The entry of 'id', or the free one where it would go.  There always is a
 * free one because at most half are in use. */
static struct idmap_entry *
idmap_probe__(const struct idmap *map, uint64_t id)
{
    uint32_t i = idmap_slot__(map, id);

    while (map->entries[i].value && map->entries[i].id != id) {
        i = (i + 1) & (map->size - 1);
    }
    return &map->entries[i];
}

/* Returns the value of 'id', or NULL. */
void *
idmap_find(const struct idmap *map, uint64_t id)
{
    return map->n ? idmap_probe__(map, id)->value : NULL;
}

static int
idmap_grow__(struct idmap *map)
{
    struct idmap old = *map;

    map->size = old.size ? old.size * 2 : IDMAP_MIN;
    map->entries = calloc(map->size, sizeof *map->entries);
    if (!map->entries) {
        *map = old;
        return ENOMEM;
    }
    for (uint32_t i = 0; i < old.size; i++) {
        if (old.entries[i].value) {
            *idmap_probe__(map, old.entries[i].id) = old.entries[i];
        }
    }
    free(old.entries);
    return 0;
}

/* Adds 'id' with 'value', which must not be NULL.  EEXIST, ENOMEM. */
int
idmap_add(struct idmap *map, uint64_t id, void *value)
{
    struct idmap_entry *e;

    if (map->n * 2 >= map->size) {
        int error = idmap_grow__(map);

        if (error) {
            return error;
        }
    }
    e = idmap_probe__(map, id);
    if (e->value) {
        return EEXIST;
    }
    e->id = id;
    e->value = value;
    map->n++;
    return 0;
}

/* Removes 'id' and returns its value, or NULL if there is none. */
void *
idmap_remove(struct idmap *map, uint64_t id)
{
    struct idmap_entry *e;
    uint32_t mask = map->size - 1;
    uint32_t hole, i;
    void *value;

    if (!map->n) {
        return NULL;
    }
    e = idmap_probe__(map, id);
    value = e->value;
    if (!value) {
        return NULL;
    }
    hole = i = e - map->entries;
    for (;;) {
        uint32_t home;

        i = (i + 1) & mask;
        if (!map->entries[i].value) {
            break;
        }
        home = idmap_slot__(map, map->entries[i].id);
        /* Entry i may move to the hole unless its home lies between them. */
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->entries[hole] = map->entries[i];
            hole = i;
        }
    }
    map->entries[hole].value = NULL;
    map->n--;
    return value;
}
