/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every state in which a power failure may leave a store; see crash.h. */

#include "tests/crash/crash.h"

#include <stdio.h>
#include <stdlib.h>

#include "lib/util.h"
#include "tests/crash/memfs-private.h"

#define SECTOR 512

struct crash {
    struct memfs *fs;
    crash_cb *cb;
    void *aux;
    size_t n_images;
    bool stopped;

    size_t cut; /* Records before this happened. */
    uint64_t acknowledged;
    bool *durable;      /* For each record before 'cut'. */
    struct memfs *base; /* All durable changes of before the oldest one that
                         * is not, applied. */
    size_t n_base;      /* Records that are in 'base'. */
};

static bool
crash_is_data__(const struct memfs_record *r)
{
    return r->type == REC_WRITE || r->type == REC_TRUNCATE ||
           r->type == REC_ALLOCATE;
}

static bool
crash_is_name__(const struct memfs_record *r)
{
    return r->type == REC_CREATE || r->type == REC_MKDIR ||
           r->type == REC_RENAME || r->type == REC_UNLINK;
}

static bool
crash_same_dir__(const char *name, const char *dir)
{
    const char *slash = strchr(name, '/');
    size_t n = slash ? (size_t) (slash - name) : 0;

    return strlen(dir) == n && !strncmp(name, dir, n);
}

/* Which of the changes that are not durable an image has. */
struct crash_choice {
    bool data, names; /* Those not named below. */
    size_t lost;      /* Data record that is not there, or SIZE_MAX. */
    size_t only;      /* Data record that is there, or SIZE_MAX. */
    size_t torn;      /* Write of which only 'torn_size' bytes are there. */
    size_t torn_size;
    size_t names_before; /* Names changed before this record are there. */
};

static const struct crash_choice crash_all = {.data = true,
                                              .names = true,
                                              .lost = SIZE_MAX,
                                              .only = SIZE_MAX,
                                              .torn = SIZE_MAX};

static void
crash_image__(struct crash *c, const struct crash_choice *choice,
              const char *what)
{
    struct memfs *image;
    char text[128];

    if (c->stopped) {
        return;
    }
    image = memfs_clone(c->base);
    for (size_t i = c->n_base; i < c->cut; i++) {
        const struct memfs_record *r = &c->fs->records[i];
        size_t limit = i == choice->torn ? choice->torn_size : SIZE_MAX;
        bool there = c->durable[i];

        if (!there) {
            there = crash_is_data__(r) ? choice->data : choice->names;
            there = there && i != choice->lost;
            there = there || i == choice->only || i == choice->torn;
            if (crash_is_name__(r) && i < choice->names_before) {
                there = true;
            }
        }
        if (there) {
            memfs_apply(image, r, limit);
        }
    }
    snprintf(text, sizeof text, "after %zu of %zu: %s", c->cut,
             c->fs->n_records, what);
    c->n_images++;
    c->stopped = !c->cb(c->aux, image, c->acknowledged, text);
    memfs_destroy(image);
}

/* Images in which one change that is not durable is lost. */
static void
crash_lose_each__(struct crash *c)
{
    for (size_t i = c->n_base; i + 1 < c->cut; i++) {
        struct crash_choice choice = crash_all;

        if (c->durable[i]) {
            continue;
        }
        if (crash_is_data__(&c->fs->records[i])) {
            choice.lost = i;
            crash_image__(c, &choice, "all but one");
        } else if (crash_is_name__(&c->fs->records[i])) {
            choice.names = false;
            choice.names_before = i;
            crash_image__(c, &choice, "all but later names");
        }
    }
}

static void
crash_tear__(struct crash *c, size_t index)
{
    size_t size = c->fs->records[index].size;
    /* A sector boundary counts from the start of the file. */
    size_t first = SECTOR - c->fs->records[index].offset % SECTOR;
    size_t sizes[3] = {first, ROUND_DOWN(size / 2, SECTOR) + first,
                       size > SECTOR ? size - SECTOR : 0};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct crash_choice choice = crash_all;

        if (!sizes[i] || sizes[i] >= size || (i && sizes[i] == sizes[i - 1])) {
            continue;
        }
        choice.torn = index;
        choice.torn_size = sizes[i];
        crash_image__(c, &choice, "last write torn");
        choice.data = false;
        crash_image__(c, &choice, "only the last write, torn");
    }
}

/* Marks what record 'index', a sync, makes durable. */
static void
crash_sync__(struct crash *c, size_t index)
{
    const struct memfs_record *sync = &c->fs->records[index];

    for (size_t i = c->n_base; i < index; i++) {
        const struct memfs_record *r = &c->fs->records[i];

        if (sync->type == REC_SYNC) {
            c->durable[i] |= crash_is_data__(r) && r->inode == sync->inode;
        } else if (crash_is_name__(r)) {
            c->durable[i] |= crash_same_dir__(
                r->type == REC_RENAME ? r->to : r->name, sync->name);
        }
    }
    while (c->n_base <= index &&
           (c->durable[c->n_base] ||
            !(crash_is_data__(&c->fs->records[c->n_base]) ||
              crash_is_name__(&c->fs->records[c->n_base])))) {
        memfs_apply(c->base, &c->fs->records[c->n_base], SIZE_MAX);
        c->n_base++;
    }
}

static void
crash_at__(struct crash *c, size_t index, enum crash_effort effort)
{
    const struct memfs_record *r = &c->fs->records[index];
    struct crash_choice none = crash_all;
    bool is_sync = r->type == REC_SYNC || r->type == REC_SYNC_DIR;

    none.data = none.names = false;
    c->cut = index + 1;
    if (r->type == REC_MARK) {
        c->acknowledged = r->offset;
        crash_image__(c, &none, "nothing unsynced");
        return;
    }
    if (is_sync) {
        /* The failure just before the sync: most is undecided. */
        crash_lose_each__(c);
        crash_sync__(c, index);
        crash_image__(c, &none, "nothing unsynced");
        return;
    }
    crash_image__(c, &crash_all, "everything");
    if (crash_is_data__(r)) {
        struct crash_choice only = none;

        only.names = true;
        crash_image__(c, &only, "no unsynced data, all names");
        only.only = index;
        crash_image__(c, &only, "only the last change of data");
        if (r->type == REC_WRITE) {
            crash_tear__(c, index);
        }
    }
    if (effort == CRASH_FULL) {
        crash_lose_each__(c);
    }
}

size_t
crash_enumerate(struct memfs *fs, enum crash_effort effort, crash_cb *cb,
                void *aux, bool *ret_stopped)
{
    struct crash c = {.fs = fs, .cb = cb, .aux = aux};

    c.durable = calloc(fs->n_records + 1, sizeof *c.durable);
    if (!c.durable) {
        abort();
    }
    c.base = memfs_clone(fs->start);
    for (size_t i = 0; i < fs->n_records && !c.stopped; i++) {
        crash_at__(&c, i, effort);
    }
    memfs_destroy(c.base);
    free(c.durable);
    if (ret_stopped) {
        *ret_stopped = c.stopped;
    }
    return c.n_images;
}
