/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of branches share: a store on memfs with one branch, that can
 * be closed, killed and opened again. */

#ifndef TESTS_UNIT_BRANCH_HELPER_H
#define TESTS_UNIT_BRANCH_HELPER_H 1

#include "tests/crash/memfs.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/branch/file.h"
#include "vafs-server/store/store.h"

struct fixture {
    struct memfs *fs;
    struct store_options options;
    struct catalogue_options cat_options;
    struct store *store;
    struct catalogue *cat;
    struct branch *branch;
    struct file *root;
};

/* A new store with records of 'record_size', opened without threads. */
void fixture_create(struct fixture *, uint32_t record_size);
/* Opens what is in fx->fs; an errno. */
int fixture_open(struct fixture *);
/* Closes properly; an errno. */
int fixture_close(struct fixture *);
/* Leaves everything as kill -9 would. */
void fixture_kill(struct fixture *);
void fixture_destroy(struct fixture *);

/* Number of things that branch_verify() finds wrong (it prints them). */
uint64_t fixture_verify(struct fixture *);

/* Shorthands for strings. */
#define S(STRING) (STRING), strlen(STRING)
extern const struct file_cred fixture_cred;

/* Finds 'path' ("a/b", "" is the root). */
int fixture_find(struct fixture *, const char *path, struct file **);

uint32_t fixture_random(uint64_t *state);

#endif /* tests/unit/branch-helper.h */
