/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Plain objects in memory: counted buffers and a cache of them. */

#ifndef VAFS_STORE_CACHE_H
#define VAFS_STORE_CACHE_H 1

#include "vafs-server/store/store.h"

struct cache;

/* Makes an object with one reference and room for 'size' bytes, which the
 * caller fills through '*ret_data' before anybody else sees it.  NULL: no
 * memory. */
struct object *object_create(const struct store_id *, uint8_t kind,
                             uint8_t format, size_t size, uint8_t **ret_data);

/* An object's SHA-256 was compared with its name since it was read. */
bool object_is_proven(const struct object *);
void object_set_proven(struct object *);

/* The base that the object is stored as a delta against; zero: none. */
const struct store_id *object_base(const struct object *);
void object_set_base(struct object *, const struct store_id *);

/* A cache that keeps up to so many bytes of data objects and of others.  The
 * two do not displace each other. */
struct cache *cache_create(size_t node_bytes, size_t record_bytes);
void cache_destroy(struct cache *); /* Accepts NULL. */

/* A new reference, or NULL. */
struct object *cache_get(struct cache *, const struct store_id *);

/* Offers an object; the cache takes its own reference, or not. */
void cache_put(struct cache *, struct object *);

void cache_usage(struct cache *, size_t *ret_nodes, size_t *ret_records);

#endif /* vafs-server/store/cache.h */
