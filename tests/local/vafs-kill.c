/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The oracle of the kill -9 test.
 *
 * usage: vafs-kill write ADDRESS ROUND    writes until the server is gone and
 *                                         prints what was made durable
 *        vafs-kill check ADDRESS ROUND    reads those lines on standard input
 *                                         and looks whether it is so
 *
 * A file's content is one number, its version, again and again, written by one
 * message.  A line "NAME VERSION" says that NAME had that version when fsync
 * was answered, VERSION 0 that it was gone.  After the crash NAME must have
 * that version or a later one (which was under way), and never a mixture. */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/ninep/client.h"

#define N_FILES 12
#define MAX_SIZE 40000

static struct ninep_client *c;
static uint32_t dir = 1;
static uint64_t numbers[MAX_SIZE / 8];

static size_t
size_of(uint64_t version)
{
    return 8 + version * 7919 % (MAX_SIZE / 8 - 1) * 8;
}

static int
put(const char *name, uint64_t version)
{
    size_t size = size_of(version);
    uint32_t fid, n = 0;
    int error = ninep_walk_path(c, dir, "", &fid, NULL);

    for (size_t i = 0; i < size / 8; i++) {
        numbers[i] = version;
    }
    if (!error) {
        error = ninep_lcreate(c, fid, name, NINEP_O_RDWR, 0644, 0, NULL);
    }
    /* Each version overwrites all of the one before, and is cut. */
    if (!error) {
        error = ninep_write(c, fid, 0, numbers, size, &n);
    }
    if (!error && n != size) {
        error = EIO;
    }
    if (!error) {
        struct ninep_setattr set = {
            .fid = fid, .valid = NINEP_SETATTR_SIZE, .size = size};

        error = ninep_setattr(c, &set);
    }
    if (!error) {
        error = ninep_fsync(c, fid, false);
    }
    ninep_release(c, fid);
    return error;
}

static int
sync_dir(void)
{
    return ninep_fsync(c, dir, false);
}

static int
step(uint64_t version)
{
    char name[16];
    int error;

    snprintf(name, sizeof name, "f%d", (int) (version * 5 % N_FILES));
    switch (version % 7) {
    case 3:
        error = put("temporary", version);
        if (!error) {
            error = ninep_renameat(c, dir, "temporary", dir, name);
        }
        if (!error) {
            error = sync_dir();
        }
        break;
    case 5:
        error = ninep_unlinkat(c, dir, name, 0);
        if (error == ENOENT) {
            error = 0;
        }
        if (!error) {
            error = sync_dir();
        }
        if (!error) {
            printf("%s 0 %llu\n", name, (unsigned long long) version);
            return 0;
        }
        break;
    default:
        error = put(name, version);
        break;
    }
    if (!error) {
        printf("%s %llu %llu\n", name, (unsigned long long) version,
               (unsigned long long) version);
    }
    return error;
}

/* The version that 'name' has, 0 if it is not there, UINT64_MAX if it is a
 * mixture. */
static uint64_t
version_of(const char *name)
{
    size_t n = 0;
    uint32_t fid;
    int error = ninep_walk_path(c, dir, name, &fid, NULL);

    if (error) {
        return error == ENOENT ? 0 : UINT64_MAX;
    }
    error = ninep_lopen(c, fid, NINEP_O_RDONLY, NULL, NULL);
    if (!error) {
        error = ninep_read_all(c, fid, 0, numbers, sizeof numbers, &n);
    }
    ninep_release(c, fid);
    if (error) {
        printf("%s: %s\n", name, strerror(error));
        return UINT64_MAX;
    }
    if (!n) {
        return 0; /* Made, and nothing was written yet. */
    }
    for (size_t i = 1; i < n / 8; i++) {
        if (numbers[i] != numbers[0] && i < size_of(numbers[0]) / 8) {
            printf("%s: %llu at 0, %llu at %zu\n", name,
                   (unsigned long long) numbers[0],
                   (unsigned long long) numbers[i], i * 8);
            return UINT64_MAX;
        }
    }
    return numbers[0];
}

static int
check(void)
{
    uint64_t acked[N_FILES] = {0}, when[N_FILES] = {0}, last = 0;
    unsigned long long version, step_number;
    int number, n_bad = 0;

    while (scanf("f%d %llu %llu\n", &number, &version, &step_number) == 3) {
        acked[number % N_FILES] = version;
        when[number % N_FILES] = step_number;
        last = step_number;
    }
    for (int i = 0; i < N_FILES; i++) {
        char name[16];
        uint64_t got;

        snprintf(name, sizeof name, "f%d", i);
        got = version_of(name);
        /* The one step that was under way may have happened, to this file. */
        if (got != acked[i] && got != last + 1 &&
            !(got == 0 && (last + 1) * 5 % N_FILES == (uint64_t) i)) {
            printf("%s: has version %llu, but %llu was durable (step %llu, "
                   "the last was %llu)\n",
                   name, (unsigned long long) got,
                   (unsigned long long) acked[i], (unsigned long long) when[i],
                   (unsigned long long) last);
            n_bad++;
        }
    }
    return n_bad != 0;
}

int
main(int argc, char *argv[])
{
    char name[32];
    const char *names[] = {name};
    bool is_write = argc == 4 && !strcmp(argv[1], "write");
    int error;

    if (argc != 4 || (!is_write && strcmp(argv[1], "check"))) {
        fprintf(stderr, "usage: vafs-kill write|check ADDRESS ROUND\n");
        return 2;
    }
    snprintf(name, sizeof name, "kill-%s", argv[3]);
    error = ninep_client_connect(argv[2], &c);
    if (!error) {
        error = ninep_client_version(c, 65536);
    }
    if (!error) {
        error = ninep_attach(c, 0, "root", "", 0, NULL);
    }
    if (!error && is_write) {
        error = ninep_mkdir(c, 0, name, 0755, 0, NULL);
    }
    if (!error) {
        error = ninep_walk(c, 0, dir, 1, names, NULL, NULL);
    }
    if (error) {
        printf("cannot begin: %s\n", strerror(error));
        return 1;
    }
    if (!is_write) {
        return check();
    }
    for (uint64_t version = 1; !step(version); version++) {
        fflush(stdout);
    }
    return 0;
}
