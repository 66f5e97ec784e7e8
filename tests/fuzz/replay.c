/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * replay.c - runs a fuzz target on its corpus, tests/fuzz/corpus/NAME, where
 * NAME is this program's without "replay-".  Prints TAP.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/fuzz.h"

static int
replay_file(const char *path)
{
    static uint8_t buf[1 << 20];
    FILE *f = fopen(path, "rb");
    size_t n;

    if (!f) {
        return -1;
    }
    n = fread(buf, 1, sizeof buf, f);
    fclose(f);
    /* A block of its own, so that ASan sees a read beyond its end. */
    uint8_t *copy = malloc(n ? n : 1);

    memcpy(copy, buf, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
    return 0;
}

int
main(int argc, char *argv[])
{
    const char *name = strrchr(argv[0], '/');
    char dir[256], path[600];
    struct dirent *e;
    int n = 0;
    DIR *d;

    name = name ? name + 1 : argv[0];
    name += strncmp(name, "replay-", 7) ? 0 : 7;
    snprintf(dir, sizeof dir, "tests/fuzz/corpus/%s", name);
    LLVMFuzzerInitialize(&argc, &argv);
    d = opendir(dir);
    while (d && (e = readdir(d))) {
        if (e->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
            n += !replay_file(path);
        }
    }
    if (d) {
        closedir(d);
    }
    printf("%sok 1 - fuzz corpus of %s, %d files\n1..1\n", n ? "" : "not ",
           name, n);
    return !n;
}
