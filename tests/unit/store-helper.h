/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of the store share: small stores on memfs and content that
 * can be told by number. */

#ifndef TESTS_UNIT_STORE_HELPER_H
#define TESTS_UNIT_STORE_HELPER_H 1

#include "tests/crash/memfs.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/store.h"

/* Smallest segments and chunks, so that little work rolls, seals, wraps,
 * flushes and merges. */
void store_helper_options(struct store_options *, struct memfs *);

/* Content number 'n': its size and compressibility vary, and neighbours of a
 * family (n / 8) resemble each other.  '*ret_kind' is node or data.  To be
 * freed by the caller. */
uint8_t *store_helper_content(unsigned n, size_t *ret_size, uint8_t *ret_kind);

/* Puts content 'n', with its left neighbour as base. */
int store_helper_put(struct store *, unsigned n, struct store_needs *,
                     struct store_id *);

/* 0 if content 'n' is there and right, the store's error if not there, and
 * EILSEQ if wrong bytes were delivered. */
int store_helper_check(struct store *, unsigned n, const struct store_id *);

/* Verifies; prints what is wrong if 'loud'. */
int store_helper_verify(struct store *, bool loud);

#endif /* tests/unit/store-helper.h */
