/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The broker's registry: a tree of nodes with xenstore's rules for
 * permissions, transactions and watches, in memory.  hv/broker.c speaks for
 * the domains.
 *
 * Transactions are optimistic: each works on a copy of the whole tree, and
 * the commit fails with EAGAIN if anything at all was changed meanwhile.
 */
#ifndef HV_REGISTRY_H
#define HV_REGISTRY_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hv/hv.h"

struct registry;

/* Reports that a watch of 'owner' fired; 'path' is as its owner named it. */
typedef void
registry_fire_cb(void *owner, const char *path, const char *token, void *aux);

/* Creates an empty registry that reports to 'fire'.  NULL: no memory. */
struct registry *registry_create(registry_fire_cb *fire, void *aux);
void registry_destroy(struct registry *);

/* All of these: 'domid' is who asks (0 may do everything), 'txn' is 0 or a
 * transaction of 'owner', 'path' is absolute or relative to 'domid'.  They
 * return 0 or a positive errno. */
int registry_read(struct registry *, void *owner, uint16_t domid,
                  hv_xs_txn txn, const char *path, const char **ret_value);
int registry_write(struct registry *, void *owner, uint16_t domid,
                   hv_xs_txn txn, const char *path, const char *value);
int registry_mkdir(struct registry *, void *owner, uint16_t domid,
                   hv_xs_txn txn, const char *path);
int registry_rm(struct registry *, void *owner, uint16_t domid, hv_xs_txn txn,
                const char *path);
/* Stores names, each NUL-terminated, one after the other in a buffer that the
 * caller frees. */
int registry_directory(struct registry *, void *owner, uint16_t domid,
                       hv_xs_txn txn, const char *path, char **ret_names,
                       size_t *ret_size);
int registry_get_perms(struct registry *, void *owner, uint16_t domid,
                       hv_xs_txn txn, const char *path,
                       const struct hv_xs_perm **ret_perms, size_t *ret_n);
int registry_set_perms(struct registry *, void *owner, uint16_t domid,
                       hv_xs_txn txn, const char *path,
                       const struct hv_xs_perm perms[], size_t n);
int registry_txn_start(struct registry *, void *owner, hv_xs_txn *ret_txn);
int
registry_txn_end(struct registry *, void *owner, hv_xs_txn txn, bool commit);
int registry_watch(struct registry *, void *owner, uint16_t domid,
                   const char *path, const char *token);
int registry_unwatch(struct registry *, void *owner, uint16_t domid,
                     const char *path, const char *token);

/* Fires the watches of the special node 'name', as "@releaseDomain". */
void registry_fire_special(struct registry *, const char *name);

/* Drops the transactions and watches of 'owner'. */
void registry_forget_owner(struct registry *, void *owner);

void registry_count(const struct registry *, uint32_t *ret_n_nodes,
                    uint32_t *ret_n_watches);

#endif /* hv/registry.h */
