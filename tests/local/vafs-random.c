/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Random operations on files, compared with copies in memory.
 *
 * usage: vafs-random run ADDRESS SEED N      N operations from SEED
 *        vafs-random check ADDRESS SEED N    the files must be as they were
 *                                            after "run" with the same
 *                                            numbers, e.g. after a restart
 *
 * Both go through the same sequence on the copies (so random numbers are drawn
 * alike in both); "check" sends nothing but looks at the result.  Files are
 * small, in number and size, so that operations meet each other: overwriting,
 * holes, truncation, further names, renaming over, removal while open. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/ninep/client.h"
#include "tests/local/vafs-tap.h"

#define N_NAMES 16
#define MAX_SIZE (400 * 1024)

/* An inode's copy; several names may share it. */
struct model {
    int n_refs; /* Names, and whoever has it open. */
    int n_names;
    size_t size;
    char *data; /* MAX_SIZE bytes, zero beyond 'size'. */
};

static struct ninep_client *c;
static bool is_run;
static uint64_t state;
static struct model *names[N_NAMES];
static struct model *open_model; /* One file stays open across operations. */
static uint32_t open_fid;
static char buf[MAX_SIZE];
static uint64_t step;
static int n_bad;

static uint64_t
rnd(uint64_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state * UINT64_C(0x2545f4914f6cdd1d) % n;
}

static const char *
name_of(int i)
{
    static char text[4][8];
    static int next;

    next = (next + 1) % 4;
    snprintf(text[next], sizeof text[next], "n%d", i);
    return text[next];
}

static void
want(int got, int expected, const char *what)
{
    if (is_run && got != expected && n_bad++ < 10) {
        printf("# step %llu: %s gave %d (%s), not %d\n",
               (unsigned long long) step, what, got, strerror(got), expected);
    }
}

static void
unref(struct model *m)
{
    if (m && !--m->n_refs) {
        free(m->data);
        free(m);
    }
}

static struct model *
new_model(void)
{
    struct model *m = calloc(1, sizeof *m);

    m->data = calloc(1, MAX_SIZE);
    m->n_refs = m->n_names = 1;
    return m;
}

static void
drop_name(int i)
{
    if (names[i]) {
        names[i]->n_names--;
        unref(names[i]);
        names[i] = NULL;
    }
}

/* A fid for name 'i', open for both. */
static uint32_t
open_name(int i)
{
    uint32_t fid = NINEP_NOFID;

    if (is_run) {
        int error = ninep_walk_path(c, 1, name_of(i), &fid, NULL);

        if (!error) {
            error = ninep_lopen(c, fid, NINEP_O_RDWR, NULL, NULL);
        }
        want(error, 0, "open");
    }
    return fid;
}

static void
release(uint32_t fid)
{
    if (is_run) {
        ninep_release(c, fid);
    }
}

static void
compare(struct model *m, uint32_t fid, size_t offset, size_t size,
        const char *what)
{
    size_t n = 0, expected;
    int error = ninep_read_all(c, fid, offset, buf, size, &n);

    expected = offset < m->size ? MIN(size, m->size - offset) : 0;
    want(error, 0, what);
    if (!error && (n != expected || memcmp(buf, m->data + offset, n)) &&
        n_bad++ < 10) {
        size_t i = 0;

        while (i < MIN(n, expected) && buf[i] == m->data[offset + i]) {
            i++;
        }
        printf("# step %llu: %s: %zu bytes at %zu, not %zu; the first that "
               "differs is %zu (size %zu)\n",
               (unsigned long long) step, what, n, offset, expected,
               offset + i, m->size);
    }
}

static void
do_write(struct model *m, uint32_t fid)
{
    size_t size = rnd(4) ? 1 + rnd(9000) : 1 + rnd(150000);
    size_t offset = rnd(4) ? rnd(m->size + 1) : rnd(MAX_SIZE - size);
    uint64_t fill = rnd(UINT64_MAX);

    offset = MIN(offset, MAX_SIZE - size);
    for (size_t i = 0; i < size; i++) {
        m->data[offset + i] = fill % 3 ? (char) (fill >> i % 40) : 0;
    }
    m->size = MAX(m->size, offset + size);
    if (is_run) {
        want(ninep_write_all(c, fid, offset, m->data + offset, size), 0,
             "write");
    }
}

static void
do_truncate(struct model *m, uint32_t fid)
{
    struct ninep_setattr set = {.fid = fid, .valid = NINEP_SETATTR_SIZE};
    size_t size = rnd(3) ? rnd(m->size + 1) : rnd(MAX_SIZE);

    if (size < m->size) {
        memset(m->data + size, 0, m->size - size);
    }
    m->size = size;
    set.size = size;
    if (is_run) {
        want(ninep_setattr(c, &set), 0, "truncate");
    }
}

static void
do_file(int i)
{
    struct model *m = names[i];
    uint64_t what = rnd(10);
    size_t offset = rnd(MAX_SIZE), size = 1 + rnd(100000);
    bool sync = !rnd(6), datasync = rnd(2);
    uint32_t fid;

    if (!m) {
        return;
    }
    fid = open_name(i);
    if (what < 5) {
        do_write(m, fid);
    } else if (what < 7) {
        do_truncate(m, fid);
    } else if (is_run) {
        compare(m, fid, offset % (m->size + 1), size, "read");
    }
    if (sync && is_run) {
        want(ninep_fsync(c, fid, datasync), 0, "fsync");
    }
    release(fid);
}

static void
do_create(int i)
{
    uint32_t fid;
    int error;

    if (is_run) {
        error = ninep_walk_path(c, 1, "", &fid, NULL);
        if (!error) {
            error = ninep_lcreate(c, fid, name_of(i),
                                  NINEP_O_RDWR | NINEP_O_EXCL, 0644, 0, NULL);
        }
        want(error, names[i] ? EEXIST : 0, "create");
        ninep_release(c, fid);
    }
    if (!names[i]) {
        names[i] = new_model();
    }
}

static void
do_unlink(int i)
{
    if (is_run) {
        want(ninep_unlinkat(c, 1, name_of(i), 0), names[i] ? 0 : ENOENT,
             "unlink");
    }
    drop_name(i);
}

static void
do_rename(int i, int j)
{
    if (is_run) {
        want(ninep_renameat(c, 1, name_of(i), 1, name_of(j)),
             names[i] ? 0 : ENOENT, "rename");
    }
    if (names[i] && names[i] != names[j]) {
        drop_name(j);
        names[j] = names[i];
        names[i] = NULL;
    }
}

static void
do_link(int i, int j)
{
    if (!names[i]) {
        return;
    }
    if (is_run) {
        uint32_t fid;

        want(ninep_walk_path(c, 1, name_of(i), &fid, NULL), 0, "walk");
        want(ninep_link(c, 1, fid, name_of(j)), names[j] ? EEXIST : 0, "link");
        ninep_release(c, fid);
    }
    if (!names[j]) {
        names[j] = names[i];
        names[i]->n_refs++;
        names[i]->n_names++;
    }
}

/* The file that stays open, with or without a name. */
static void
do_open_file(int i)
{
    if (open_model && rnd(3)) {
        if (rnd(2)) {
            do_write(open_model, open_fid);
        } else if (is_run) {
            compare(open_model, open_fid, 0, MAX_SIZE, "read of open file");
        }
        return;
    }
    if (open_model) {
        release(open_fid);
        unref(open_model);
        open_model = NULL;
    }
    if (names[i]) {
        open_model = names[i];
        open_model->n_refs++;
        open_fid = open_name(i);
    }
}

static void
one_step(void)
{
    int i = rnd(N_NAMES), j = rnd(N_NAMES);
    uint64_t what = rnd(100);

    if (what < 60) {
        do_file(i);
    } else if (what < 72) {
        do_create(i);
    } else if (what < 79) {
        do_unlink(i);
    } else if (what < 86) {
        do_rename(i, j);
    } else if (what < 90) {
        do_link(i, j);
    } else {
        do_open_file(i);
    }
}

static void
check_all(const char *when)
{
    for (int i = 0; i < N_NAMES; i++) {
        uint32_t fid;
        int error = ninep_walk_path(c, 1, name_of(i), &fid, NULL);

        want(error, names[i] ? 0 : ENOENT, "walk at the end");
        if (!error && names[i]) {
            struct ninep_attr attr;

            want(ninep_getattr(c, fid, NINEP_GETATTR_ALL, &attr), 0,
                 "getattr");
            want((int) attr.nlink, names[i]->n_names, "link count");
            want(attr.size != names[i]->size, 0, "size");
            want(ninep_lopen(c, fid, NINEP_O_RDONLY, NULL, NULL), 0, "open");
            compare(names[i], fid, 0, MAX_SIZE, "content at the end");
        }
        if (!error) {
            ninep_release(c, fid);
        }
    }
    OK(!n_bad, "%s: as the copies say", when);
}

int
main(int argc, char *argv[])
{
    char dir[32];
    const char *dirs[] = {dir};
    uint64_t n;
    int error;

    if (argc != 5) {
        fprintf(stderr, "usage: vafs-random run|check ADDRESS SEED N\n");
        return 2;
    }
    is_run = !strcmp(argv[1], "run");
    state = strtoull(argv[3], NULL, 10) * 2654435761u + 1;
    n = strtoull(argv[4], NULL, 10);
    snprintf(dir, sizeof dir, "random-%s", argv[3]);
    error = ninep_client_connect(argv[2], &c);
    if (!error) {
        error = ninep_client_version(
            c, strtoull(argv[3], NULL, 10) % 2 ? 1 << 20 : 16384);
    }
    if (!error) {
        error = ninep_attach(c, 0, "root", "", 0, NULL);
    }
    if (!error && is_run) {
        error = ninep_mkdir(c, 0, dir, 0755, 0, NULL);
    }
    if (!error) {
        error = ninep_walk(c, 0, 1, 1, dirs, NULL, NULL);
    }
    if (!FINE(error, "begin")) {
        return tap_end();
    }
    for (step = 1; step <= n; step++) {
        one_step();
    }
    is_run = true; /* From here on, differences count in both modes. */
    check_all(argv[1]);
    for (int i = 0; i < N_NAMES; i++) {
        drop_name(i);
    }
    unref(open_model);
    ninep_client_close(c);
    return tap_end();
}
