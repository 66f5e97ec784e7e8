/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A branch after every power failure: a short workload runs on a recording
 * memfs; every image that a failure may leave is opened and compared with what
 * had been acknowledged.
 *
 * The rules: names are as after some step not before the last fsync (each one
 * makes all names durable); a file's content is that of some step not before
 * the last fsync of this file, and never anything else (so no zeros that were
 * not written); the trees verify. */

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/vlog.h"
#include "tests/crash/crash.h"
#include "tests/unit/branch-helper.h"
#include "vafs-server/branch/branch-private.h"

#define N_FILES 6
#define STEPS_MAX 200
#define CONTENT_MAX 30000

/* What a name shows after a step. */
struct state {
    bool exists;
    unsigned file; /* Which file (by number of making) it leads to. */
};

/* A file's content after a step. */
struct content {
    size_t size;
    uint32_t sum;
};

struct step {
    struct state name[N_FILES];
    struct content content[STEPS_MAX]; /* By file number. */
};

struct model {
    struct step step[STEPS_MAX + 1];
    unsigned n_steps; /* The newest state is step[n_steps]. */
    unsigned n_files;
    /* At acknowledgement k: the step from which names are durable, and for
     * each file the step from which its content is. */
    struct {
        unsigned names;
        unsigned content[STEPS_MAX];
    } ack[STEPS_MAX + 1];
    unsigned n_acks;
    uint8_t *data[STEPS_MAX]; /* Content now, by file number. */
    size_t n_images, n_replayed;
};

static struct fixture fx;
static struct model *m;
static uint64_t seed;

static uint32_t
rnd(uint32_t n)
{
    return fixture_random(&seed) % n;
}

static uint32_t
sum(const uint8_t *p, size_t n)
{
    uint32_t h = 2166136261u;

    for (size_t i = 0; i < n; i++) {
        h = (h ^ p[i]) * 16777619u;
    }
    return h;
}

static const char *
name_of(unsigned i)
{
    static const char *const names[N_FILES] = {"a", "b", "c", "d", "e", "f"};

    return names[i];
}

static struct step *
now(void)
{
    return &m->step[m->n_steps];
}

/* A new step that begins as the last one ended. */
static void
next_step(void)
{
    cr_assert_lt(m->n_steps, STEPS_MAX);
    m->step[m->n_steps + 1] = m->step[m->n_steps];
    m->n_steps++;
}

static void
acknowledge(bool names, int file)
{
    m->ack[m->n_acks + 1] = m->ack[m->n_acks];
    m->n_acks++;
    if (names) {
        m->ack[m->n_acks].names = m->n_steps;
    }
    if (file >= 0) {
        m->ack[m->n_acks].content[file] = m->n_steps;
    }
    memfs_mark(fx.fs, m->n_acks);
}

static void
acknowledge_all(void)
{
    acknowledge(true, -1);
    for (unsigned i = 0; i < m->n_files; i++) {
        m->ack[m->n_acks].content[i] = m->n_steps;
    }
}

static void
update_content(unsigned file, size_t size)
{
    struct content *c = &now()->content[file];

    c->size = size;
    c->sum = sum(m->data[file], size);
}

static struct file *
open_name(unsigned i)
{
    struct file *file;

    cr_assert_eq(file_lookup(fx.root, S(name_of(i)), &file), 0);
    return file;
}

static void
do_create(unsigned i)
{
    cr_assert_eq(
        file_create(fx.root, S(name_of(i)), 0644, &fixture_cred, NULL), 0);
    next_step();
    now()->name[i].exists = true;
    now()->name[i].file = m->n_files;
    m->data[m->n_files] = calloc(1, CONTENT_MAX);
    update_content(m->n_files, 0);
    m->n_files++;
}

static void
do_write(unsigned i)
{
    static uint8_t buf[CONTENT_MAX];
    unsigned file = now()->name[i].file;
    size_t size = now()->content[file].size;
    size_t offset = rnd(size + 1), n = 1 + rnd(rnd(3) ? 300 : 12000);
    struct file *f = open_name(i);

    n = MIN(n, CONTENT_MAX - offset);
    for (size_t k = 0; k < n; k++) {
        buf[k] = rnd(255) + 1;
    }
    cr_assert_eq(file_write(f, buf, n, offset, 0, NULL), 0);
    next_step();
    memcpy(m->data[file] + offset, buf, n);
    update_content(file, MAX(size, offset + n));
    file_unref(f);
}

static void
do_truncate(unsigned i)
{
    unsigned file = now()->name[i].file;
    size_t old = now()->content[file].size;
    struct file_setattr set = {.mask = FILE_SET_SIZE, .size = rnd(old + 1)};
    struct file *f = open_name(i);

    cr_assert_eq(file_setattr(f, &set), 0);
    next_step();
    memset(m->data[file] + set.size, 0, CONTENT_MAX - set.size);
    update_content(file, set.size);
    file_unref(f);
}

static void
do_fsync(unsigned i)
{
    struct file *f = open_name(i);

    cr_assert_eq(file_fsync(f, rnd(2)), 0);
    acknowledge(true, now()->name[i].file);
    file_unref(f);
}

static void
do_rename(unsigned i, unsigned j)
{
    cr_assert_eq(
        file_rename(fx.root, S(name_of(i)), fx.root, S(name_of(j)), 0), 0);
    next_step();
    now()->name[j] = now()->name[i];
    if (i != j) {
        now()->name[i].exists = false;
    }
}

static void
do_step(void)
{
    unsigned i = rnd(N_FILES), j = rnd(N_FILES);

    if (!now()->name[i].exists) {
        do_create(i);
        return;
    }
    switch (rnd(10)) {
    case 0:
        cr_assert_eq(file_unlink(fx.root, S(name_of(i)), 0), 0);
        next_step();
        now()->name[i].exists = false;
        break;
    case 1:
        do_rename(i, j);
        break;
    case 2:
        do_truncate(i);
        break;
    case 3:
    case 4:
        do_fsync(i);
        break;
    case 5:
        if (rnd(3) == 0) {
            /* A version that only the journal knows of yet. */
            pthread_mutex_lock(&fx.cat->checkpoint_mutex);
            cr_assert_eq(checkpoint_branch(fx.branch, BRANCH_CAUSE_TIMER), 0);
            pthread_mutex_unlock(&fx.cat->checkpoint_mutex);
        } else if (rnd(3) == 0) {
            cr_assert_eq(catalogue_checkpoint(fx.cat), 0);
            acknowledge_all();
        } else if (rnd(2)) {
            cr_assert_eq(branch_syncfs(fx.branch), 0);
            acknowledge_all();
        } else {
            cr_assert_eq(file_fsync(fx.root, false), 0);
            acknowledge(true, -1);
        }
        break;
    default:
        do_write(i);
    }
}

/* Whether the names of an image are those after 'step'. */
static bool
names_match(struct file *const files[N_FILES], const struct step *step)
{
    for (unsigned i = 0; i < N_FILES; i++) {
        if (!files[i] != !step->name[i].exists) {
            return false;
        }
        for (unsigned j = 0; j < i; j++) {
            if (files[i] && files[j] &&
                (files[i] == files[j]) !=
                    (step->name[i].file == step->name[j].file)) {
                return false;
            }
        }
    }
    return true;
}

/* Whether the content of 'f' is one that 'file' had, at 'from' or later. */
static bool
content_matches(struct file *f, unsigned file, unsigned from)
{
    static uint8_t buf[CONTENT_MAX + 1];
    size_t n;
    uint32_t s;

    if (file_read(f, buf, sizeof buf, 0, &n)) {
        return false;
    }
    s = sum(buf, n);
    for (unsigned k = from; k <= m->n_steps; k++) {
        const struct content *c = &m->step[k].content[file];

        if (c->size == n && c->sum == s) {
            return true;
        }
    }
    return false;
}

static bool
check_open(uint64_t ack, const char *what)
{
    struct file *files[N_FILES] = {NULL};
    bool good = false;

    for (unsigned i = 0; i < N_FILES; i++) {
        int error = file_lookup(fx.root, S(name_of(i)), &files[i]);

        cr_assert(!error || error == ENOENT, "%s: %s: %s", what, name_of(i),
                  strerror(error));
    }
    for (unsigned k = m->ack[ack].names; k <= m->n_steps && !good; k++) {
        bool all = names_match(files, &m->step[k]);

        for (unsigned i = 0; i < N_FILES && all; i++) {
            if (files[i]) {
                unsigned file = m->step[k].name[i].file;

                all =
                    content_matches(files[i], file, m->ack[ack].content[file]);
            }
        }
        good = all;
    }
    for (unsigned i = 0; i < N_FILES; i++) {
        file_unref(files[i]);
    }
    return good;
}

static bool
check_image(void *aux, struct memfs *image, uint64_t ack, const char *what)
{
    struct memfs *recorded = fx.fs;
    int error;

    fx.fs = memfs_clone(image);
    fx.options.files = memfs_layer(fx.fs);
    m->n_images++;
    error = fixture_open(&fx);
    cr_assert_eq(error, 0, "%s (acknowledged %lu): open: %s", what,
                 (unsigned long) ack, strerror(error));
    cr_assert(check_open(ack, what), "%s (acknowledged %lu): wrong state",
              what, (unsigned long) ack);
    if (m->n_images % 7 == 0) {
        /* Verification makes a version, so replay and merge are seen too. */
        cr_assert_eq(fixture_verify(&fx), 0, "%s", what);
        cr_assert(check_open(ack, what), "%s: wrong after checkpoint", what);
    }
    fixture_kill(&fx);
    memfs_destroy(fx.fs);
    fx.fs = recorded;
    return true;
}

static void
run(unsigned n_steps, enum crash_effort effort)
{
    struct memfs *recorded;
    bool stopped;

    m = calloc(1, sizeof *m);
    fixture_create(&fx, 4096);
    cr_assert_eq(fixture_close(&fx), 0);
    fx.cat_options.memory = 4 << 20; /* Small reservations, small images. */
    cr_assert_eq(fixture_open(&fx), 0);
    cr_assert_eq(vlog_set_level("off"), 0);
    memfs_record(fx.fs);
    while (m->n_steps + m->n_acks < n_steps) {
        do_step();
    }
    recorded = fx.fs;
    /* The recording ends here: what closing does goes elsewhere. */
    fx.fs = memfs_create();
    file_unref(fx.root);
    branch_close(fx.branch);
    fx.cat_options.close_dirty = true;
    cr_assert_eq(catalogue_close(fx.cat), 0);
    store_abandon(fx.store);
    memfs_destroy(fx.fs);

    fx.fs = recorded;
    crash_enumerate(recorded, effort, check_image, NULL, &stopped);
    fprintf(stderr, "# %zu images of %u steps, %u acknowledged\n", m->n_images,
            m->n_steps, m->n_acks);
    cr_assert_gt(m->n_images, 50);
    memfs_destroy(recorded);
    for (unsigned i = 0; i < m->n_files; i++) {
        free(m->data[i]);
    }
    free(m);
}

TestSuite(branch_crash, .timeout = 900);

Test(branch_crash, short_workloads)
{
    bool full = getenv("CRASH_FULL") != NULL;

    for (unsigned i = 0; i < (full ? 20 : 4); i++) {
        seed = 100 + i;
        run(full ? 120 : 70, CRASH_QUICK);
    }
}

Test(branch_crash, after_every_operation)
{
    const char *s = getenv("TEST_SEED");

    seed = s ? strtoull(s, NULL, 0) : 7;
    run(30, CRASH_FULL);
}
