/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The branches of an open store: opening and closing, checkpoints, versions,
 * figures and the check of everything.  What is done to files is in file.h.
 *
 * A store that is open has one 'struct catalogue'.  It owns what is
 * store-wide: the replay of the journal, the catalogue (branch 0, an ordinary
 * tree that names the branches and their versions), the inode counter, the
 * dirty budget and the checkpoint thread.  The order of use is
 *
 *      store_open() or store_create()          (vafs-server/store)
 *      catalogue_create()                      (once, on a new store)
 *      catalogue_open()
 *      branch_open(), file_root(), ...         (any number of threads)
 *      file_unref() of every file, branch_close()
 *      catalogue_close()                       (last checkpoint)
 *      store_close()
 *
 * All functions are thread-safe unless a comment says otherwise.  Those that
 * return int return 0 or a positive errno and leave 'ret_' outputs untouched
 * on failure. */

#ifndef VAFS_BRANCH_BRANCH_H
#define VAFS_BRANCH_BRANCH_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/util.h"

struct branch;
struct catalogue;
struct store;

#define BRANCH_NAME_MAX 255

struct catalogue_options {
    /* The server's whole memory limit in bytes (--memory); the shares of it
     * are taken from this.  0: 256 MiB. */
    uint64_t memory;
    /* Milliseconds between two checkpoints of a branch that changes. 0: 5000.
     */
    unsigned int checkpoint_ms;
    /* Refuse every change (EROFS); the journal is replayed in memory only. */
    bool read_only;
    /* No checkpoint thread: checkpoints happen only by catalogue_checkpoint()
     * and catalogue_close().  For tests and offline tools. */
    bool no_thread;
    /* catalogue_close() leaves everything as a crash would: no checkpoint, no
     * flush.  For tests. */
    bool close_dirty;
};

/* Writes an empty catalogue, the branch 'main' and its root directory into
 * 'store', which has just been created, and makes them durable.
 *
 * The root directory is owned by 'uid' and 'gid' and has mode 0755. */
int
catalogue_create(struct store *store, uint32_t uid, uint32_t gid) NODISCARD;

/* Opens the branches of 'store': replays the journal, reaps orphans (files
 * without a name that nobody can have open any more), starts the checkpoint
 * thread.  'options' may be NULL.  'store' stays the caller's and must outlive
 * the catalogue. */
int
catalogue_open(struct store *store, const struct catalogue_options *options,
               struct catalogue **ret_catalogue) NODISCARD;

/* Checkpoints everything, stops the thread, frees.  Every branch must have
 * been closed.  Returns the error of the last checkpoint (then what was
 * fsynced is still in the journal).  NULL is accepted. */
int catalogue_close(struct catalogue *);

/* Makes a version of every branch that changed, then of the catalogue, writes
 * the superblock and trims the journal: afterwards the journal is empty of
 * anything that a replay would need.  Blocks. */
int catalogue_checkpoint(struct catalogue *) NODISCARD;

/* Calls 'emit' for each branch but the catalogue, until it returns false. */
int catalogue_list(struct catalogue *,
                   bool (*emit)(const char *name, uint64_t id, void *aux),
                   void *aux) NODISCARD;

/* Opens the branch called 'name'.  Opening it twice gives the same object
 * with another reference.  ENOENT: no such branch. */
int branch_open(struct catalogue *, const char *name,
                struct branch **ret_branch) NODISCARD;

/* Drops a reference.  The branch's open files keep it alive.  NULL is
 * accepted. */
void branch_close(struct branch *);

/* The branch's name and number.  The name is valid as long as the branch. */
const char *branch_name(const struct branch *);
uint64_t branch_id(const struct branch *);

/* Makes everything done to 'branch' so far durable: one group commit (two when
 * much data is not in a segment yet).  This is syncfs. */
int branch_syncfs(struct branch *) NODISCARD;

/* Freezes the branch's edge and merges it into a new version now.  Does
 * nothing if nothing but access times changed. */
int branch_checkpoint(struct branch *) NODISCARD;

/* Why a version was made. */
enum branch_cause {
    BRANCH_CAUSE_INIT = 1,   /* The branch was made. */
    BRANCH_CAUSE_TIMER = 2,  /* It had changed and the time had come. */
    BRANCH_CAUSE_SPACE = 3,  /* The dirty budget asked for it. */
    BRANCH_CAUSE_DETACH = 4, /* A guest detached. */
    BRANCH_CAUSE_CLOSE = 5,  /* The server stopped. */
    BRANCH_CAUSE_ASKED = 6,  /* branch_checkpoint(). */
};

struct branch_version {
    uint64_t sequence; /* Grows along the branch, never reused. */
    uint8_t id[32];    /* Identity of the version object. */
    uint64_t time_ns;  /* Real time, strictly growing with 'sequence'. */
    enum branch_cause cause;
    uint64_t n_inodes;    /* Inodes in its tree. */
    uint64_t stored_size; /* Sum of stored extents, holes not counted. */
};

/* Calls 'emit' for each version of 'branch', oldest first, until it returns
 * false. */
int branch_versions(struct branch *,
                    bool (*emit)(const struct branch_version *, void *aux),
                    void *aux) NODISCARD;

/* The newest version. */
int branch_head(struct branch *, struct branch_version *ret) NODISCARD;

struct branch_statfs {
    uint64_t bsize; /* Unit of the three block counts, bytes. */
    uint64_t blocks;
    uint64_t bfree;
    uint64_t bavail;
    uint64_t files; /* Inodes in use plus those that could be made. */
    uint64_t ffree;
    uint64_t fsid; /* Store and branch. */
    uint32_t namelen;
};

/* What statfs(2) shows of 'branch': its own use of space and what the store
 * has left. */
int branch_statfs(struct branch *, struct branch_statfs *ret) NODISCARD;

struct branch_stats {
    uint64_t n_inodes;    /* In the branch, orphans included. */
    uint64_t stored_size; /* Bytes of file content, holes not counted. */
    uint64_t dirty_keys;  /* Keys in the active and the frozen layers. */
    uint64_t dirty_size;  /* Bytes of those, dirty pages included. */
    uint64_t frozen_layers;
    uint64_t open_inodes;
    uint64_t n_orphans;
    uint64_t n_changes; /* Change records logged since open. */
    uint64_t n_fsyncs;
    uint64_t n_checkpoints;
    uint64_t sequence; /* Of the newest version. */
    uint64_t tree_height;
};

void branch_get_stats(struct branch *, struct branch_stats *ret);

struct branch_verify_stats {
    uint64_t n_versions;
    uint64_t n_nodes;   /* Different nodes read. */
    uint64_t n_records; /* Different records looked at. */
    uint64_t n_inodes;  /* Summed over the versions. */
    uint64_t n_entries;
    uint64_t n_errors;
};

/* Walks the trees of the versions of every branch (equal nodes once, unless
 * their neighbourhood matters) and checks: nodes are sorted and well formed,
 * each entry's inode exists and has its type, each inode has as many entries
 * as its link count says, parent links lead to the root, records exist (and,
 * if 'read_data', are intact), counters are right.  'report' gets one sentence
 * for each thing wrong, 'progress' (or NULL) is called now and then.
 *
 * Returns 0 if it could look at everything, whatever it found: see
 * 'ret->n_errors'. */
int
branch_verify(struct catalogue *, bool read_data,
              void (*report)(const char *message, void *aux),
              void (*progress)(const struct branch_verify_stats *, void *aux),
              void *aux, struct branch_verify_stats *ret) NODISCARD;

#endif /* vafs-server/branch/branch.h */
