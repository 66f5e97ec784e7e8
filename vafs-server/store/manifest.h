/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The manifest: which runs make up the index, and what they cover. */

#ifndef VAFS_STORE_MANIFEST_H
#define VAFS_STORE_MANIFEST_H 1

#include "vafs-server/store/file.h"
#include "vafs-server/store/format.h"

struct manifest_run {
    uint64_t number;
    uint32_t tier;
};

/* All records of 'pack' before 'covered' are in the runs and durable. */
struct manifest_segment {
    uint64_t pack;
    uint32_t covered;
    uint8_t class, generation;
    bool sealed; /* No record will follow. */
};

struct manifest {
    uint64_t next_run;
    struct manifest_run *runs;         /* Oldest first. */
    struct manifest_segment *segments; /* By pack. */
    uint32_t n_runs, n_segments;
};

void manifest_destroy(struct manifest *); /* Frees the arrays. */

/* ENOENT: there is none; EBADMSG: damaged, or another store's. */
int manifest_read(struct file_layer *, const uint8_t uuid[16],
                  struct manifest *) NODISCARD;

/* Replaces the manifest, atomically and durably. */
int manifest_write(struct file_layer *, const uint8_t uuid[16],
                   const struct manifest *) NODISCARD;

/* The segment 'pack', or NULL. */
const struct manifest_segment *
manifest_find(const struct manifest *, uint64_t pack);

#endif /* vafs-server/store/manifest.h */
