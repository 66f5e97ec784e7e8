/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the parts of vafs-server/branch know of each other.
 *
 * Theory of operation
 * -------------------
 *
 * A branch is its newest version (an immutable tree) and the edge: layers of
 * changes over it (layer.h).  Every read asks the layers from the top, then
 * the tree.  Every change is some puts and removals of keys in the active
 * layer, made visible at once.
 *
 *     edge.c        reading and changing keys through the stack of layers
 *     inode.c       'struct file': inodes that are open, dirty or recently
 * used name.c dir.c  entries: look-up, create, link, unlink, rename, readdir
 *     attr.c        attributes;  xattr.c  extended ones
 *     data.c        content;  write.c  changing it
 *     log.c         what goes into the journal, fsync;  replay.c  back from it
 *     checkpoint.c  frozen layers into versions, the thread, back-pressure
 *     catalogue.c   opening, closing, branch 0
 *     verify.c      the check of everything
 *
 * Locks, in the order in which they may be taken together:
 *
 *     cat->checkpoint_mutex  one checkpoint at a time
 *     cat->mutex           list of branches
 *     file->sync_lock      one bulk fsync of a file at a time
 *     file->data_lock      content and size of one file: writers exclusive
 *     branch->mutex        whoever changes the branch; also the lists of
 *                          unlogged changes, of any layer
 *     cat->lease_mutex     the inode counter; then branch 0's mutex
 *     branch->lock         big-reader lock: the stack and the active layer;
 *                          never held across I/O or a wait
 *     branch->table_mutex  the table of inodes, reference counts
 *
 * Fields of 'struct file' that describe the inode (attr) are changed with
 * 'mutex' and 'lock' held, so either is enough to read them.
 *
 * A miss in the tree under 'mutex' makes other writers of the branch wait for
 * that read; readers never wait for it. */

#ifndef VAFS_BRANCH_PRIVATE_H
#define VAFS_BRANCH_PRIVATE_H 1

#include <errno.h>
#include <pthread.h>
#include <sys/stat.h>

#include "lib/clock.h"
#include "lib/list.h"
#include "vafs-server/branch/branch.h"
#include "vafs-server/branch/brlock.h"
#include "vafs-server/branch/file.h"
#include "vafs-server/branch/layer.h"
#include "vafs-server/store/journal.h"
#include "vafs-server/store/store.h"
#include "vafs-server/tree/tree.h"
#include "vafs-server/tree/value.h"

/* Layers of a branch: the active one, frozen ones, and one of spare. */
#define LAYERS_MAX 6
#define FROZEN_MAX 4

/* Records of the journal.  Bodies are described in log.c. */
enum {
    LOG_CHANGE = 1,
    LOG_CHECKPOINT = 2,
    LOG_LEASE = 3,
    LOG_FREEZE = 4,
};

enum file_state {
    FILE_LOADING, /* In the table; its attributes are being read. */
    FILE_READY,
    FILE_FAILED,   /* Could not be loaded; no longer in the table. */
    FILE_DELETING, /* Last name and last reference are gone. */
};

/* What of one inode's own changes, made in one layer, is not logged. */
struct unlogged {
    struct list in_file;  /* Of file->unlogged, oldest layer first. */
    struct list in_layer; /* Of layer->unlogged. */
    struct file *file;
    struct layer *layer;
    struct list vals;
    struct list ranges;
};

struct file {
    struct branch *branch;
    uint64_t ino;
    uint32_t gen;
    uint32_t type;

    /* Table of inodes. */
    unsigned int refs;
    unsigned int pins; /* By 'unlogged' and the carry list. */
    enum file_state state;
    struct file *hash_next;
    struct list lru; /* In branch->lru if nobody holds it. */

    struct tree_attr attr;

    struct list unlogged; /* Of struct unlogged. */
    struct list carry;    /* In branch->carry, or empty. */

    pthread_rwlock_t data_lock;
    pthread_mutex_t sync_lock;
    /* Segments that must be synced before the ids in the edge that this file
     * has may be logged.  Branch's mutex. */
    struct store_needs needs;
};

struct branch {
    struct catalogue *cat;
    uint64_t id;
    char name[BRANCH_NAME_MAX + 1];
    struct list in_cat;
    unsigned int refs; /* cat->mutex. */

    pthread_mutex_t mutex;
    struct brlock lock;

    /* The stack.  layer[0] is the active one. */
    struct layer *layer[LAYERS_MAX];
    unsigned int n_layers;
    uint64_t stack_generation; /* Changes with the stack. */
    struct tree base;
    struct tree_version head; /* The version that 'base' is the tree of. */
    struct store_id head_id;

    uint64_t n_inodes, stored;
    uint64_t root_ino;
    uint64_t lineage[2];
    uint64_t max_ino;
    uint64_t dirty; /* Bytes of all layers; atomic. */

    /* Inodes. */
    pthread_mutex_t table_mutex;
    pthread_cond_t loaded;
    struct file **bucket;
    size_t n_buckets, n_files;
    struct list lru;
    size_t n_lru;

    struct list carry; /* Files whose data goes with the names. */
    /* The newest record that concerns the branch.  Who wants to be durable
     * commits up to here even if there is nothing new to log: it may be the
     * CHECKPOINT that alone says where the changes have gone. */
    uint64_t last_lsn;
    /* There was no room for that record: only a new root makes it so. */
    bool unrooted;
    uint64_t txn; /* Number of the last multi-part change. */

    struct {
        uint64_t n_changes, n_fsyncs, n_checkpoints, n_orphans;
    } stats;
};

struct catalogue {
    struct store *store;
    struct journal *journal;
    struct catalogue_options options;
    unsigned int record_shift; /* log2 of the record size. */
    unsigned int n_pages;      /* Pages in a record. */
    struct page_pool pool;
    uint64_t budget; /* Dirty bytes of all branches. */
    uint64_t fsid;   /* From the store's UUID. */

    pthread_mutex_t checkpoint_mutex; /* One checkpoint at a time. */
    pthread_mutex_t mutex;            /* List of branches, references. */
    struct list branches;             /* All, the catalogue's own included. */
    struct branch *self;              /* Branch 0. */

    /* The inode counter. */
    pthread_mutex_t lease_mutex;
    uint64_t next_ino, lease_end;
    uint64_t lease_size;

    /* The checkpoint thread. */
    pthread_mutex_t thread_mutex;
    pthread_cond_t wake;     /* For the thread. */
    pthread_cond_t relieved; /* For those who wait for room. */
    bool stop, urgent, have_thread;
    uint64_t n_rounds;
    pthread_t thread;
    int last_error; /* Of the last round. */

    /* Room on the disk for what is dirty (thread_mutex). */
    uint64_t reserved[2]; /* By enum store_class. */
    uint64_t put_bytes;   /* Put by write-behind; atomic. */
    uint64_t reserve_due; /* Dirty and put bytes at which to look; atomic. */
};

extern __thread bool file_nowait;

/* edge.c */

/* A copy of a value. */
struct edge_value {
    size_t size;
    uint8_t data[TREE_VALUE_MAX];
};

int edge_get(struct branch *, const struct tree_key *,
             struct edge_value *) NODISCARD;

/* Scans keys in [lo, hi) in batches. */
#define EDGE_BATCH 64
struct edge_item {
    struct tree_key key;
    uint32_t offset, size; /* In 'bytes'. */
    bool pages;            /* A record with dirty pages; no value. */
};
struct edge_scan {
    struct branch *branch;
    struct tree_key next, hi; /* What is still to be scanned. */
    bool end;                 /* Nothing is. */
    struct edge_item item[EDGE_BATCH];
    unsigned int n;
    uint8_t bytes[EDGE_BATCH * 1024];
};

/* For repeated use: 'scan' is big, get one with edge_scan_new() and free(). */
struct edge_scan *edge_scan_new(struct branch *, const struct tree_key *lo,
                                const struct tree_key *hi);
void edge_scan_restart(struct edge_scan *, const struct tree_key *lo,
                       const struct tree_key *hi);
/* Fills the next batch; 0 items only at the end. */
int edge_scan_next(struct edge_scan *) NODISCARD;

/* Begins and ends a change: takes the mutex, checks that changes are possible,
 * makes room for 'bytes' in the active layer's arena. */
int edge_begin(struct branch *, size_t bytes) NODISCARD;
void edge_end(struct branch *);

/* Between these, readers are kept out and the functions below may be used. */
void edge_lock(struct branch *);
void edge_unlock(struct branch *);

/* Whose list of unlogged changes a change goes to. */
#define EDGE_NAMES ((struct file *) NULL)
void edge_put(struct branch *, struct file *owner, const struct tree_key *,
              const void *, size_t);
void edge_remove(struct branch *, struct file *owner, const struct tree_key *);
void edge_remove_range(struct branch *, struct file *owner,
                       const struct tree_key *lo, const struct tree_key *hi);
/* Without a list and without making the layer dirty: for access times. */
void
edge_put_quiet(struct branch *, const struct tree_key *, const void *, size_t);
/* The value on the list of 'owner'. */
void edge_list(struct branch *, struct file *owner, struct val *);

#define EDGE_PUT_MAX(SIZE) (LAYER_PUT_MAX(SIZE) + sizeof(struct unlogged) + 16)
#define EDGE_RANGE_MAX \
    (LAYER_RANGE_MAX + sizeof(struct range) + sizeof(struct unlogged) + 32)
/* For a change of a few names. */
#define EDGE_NAMES_MAX 49152

/* inode.c */
void inode_table_init(struct branch *);
void inode_table_destroy(struct branch *);
/* The inode, loaded.  ESTALE: absent. */
int inode_get(struct branch *, uint64_t ino, struct file **) NODISCARD;
/* A new inode with one reference, not in the edge yet. */
int inode_new(struct branch *, uint64_t ino, const struct tree_attr *,
              struct file **) NODISCARD;
/* Forgets an inode from inode_new(), whose creation failed. */
void inode_abort(struct file *);
/* If the caller has the only reference: makes it impossible to get another
 * and returns true.  The caller deletes the inode. */
bool inode_claim(struct file *);
void inode_pin(struct file *);
void inode_unpin(struct file *);
/* Writes file->attr into the edge; edge locked. */
void inode_put_attr(struct file *, struct file *owner);
/* Whether the file's own changes are to be logged with the names, and can be:
 * all objects that they name are durable. */
static inline bool
inode_is_carried(const struct file *file)
{
    return !list_is_empty(&file->carry) && !file->needs.n && !file->needs.all;
}

/* Whether the inode has own unlogged changes that are not part of a log of
 * 'file' and the branch's carry list; mutex held. */
bool inode_holds_back(struct branch *, uint64_t ino, const struct file *,
                      struct unlogged **ret_list);
/* Deletes an orphan that nobody has open. */
int inode_reap(struct branch *, uint64_t ino) NODISCARD;
/* Range of all keys of an inode. */
static inline void
inode_range(uint64_t ino, struct tree_key *lo, struct tree_key *hi)
{
    *lo = (struct tree_key){ino << 8, 0, 0};
    *hi = (struct tree_key){(ino + 1) << 8, 0, 0};
}
/* Removes all keys of the inode; edge locked. */
void inode_remove_keys(struct file *);
/* Leases numbers. */
int inode_number(struct catalogue *, uint64_t *ret) NODISCARD;

/* The cookie of the name, its low 8 bits 0. */
uint64_t name_hash(const struct branch *, const void *, size_t);

/* data.c; with the file's data_lock held. */
int data_read(struct file *, void *, size_t, uint64_t offset) NODISCARD;
int data_present(struct file *, uint64_t index, bool *) NODISCARD;
/* What one record holds now, 'size' bytes from its start; zeros beyond. */
int data_read_record(struct file *, uint64_t index, void *, size_t offset,
                     size_t size) NODISCARD;
int content_read(struct catalogue *, const struct tree_content *, void *,
                 size_t offset, size_t size) NODISCARD;
/* Sets the size with the data lock held exclusively; the attributes in 'attr'
 * are written with it. */
int data_set_size(struct file *, uint64_t size,
                  const struct file_setattr *) NODISCARD;
/* Makes objects of the file's dirty pages if there is much of it.  Data lock
 * held, shared is enough. */
int data_settle(struct file *, uint64_t limit) NODISCARD;

/* attr.c */
void attr_apply(struct tree_attr *, const struct file_setattr *, int64_t now);
bool attr_atime_due(const struct tree_attr *, int64_t now);

/* log.c */

/* Items of a CHANGE record. */
enum {
    LOG_PUT = 1,    /* key, varint size, value */
    LOG_REMOVE = 2, /* key */
    LOG_RANGE = 3,  /* lo and hi, 24 bytes each */
    LOG_PAGES = 4,  /* key, varint present, varint zero, pages */
    LOG_ATTR = 5,   /* as PUT; size and stored are those below */
};
#define LOG_MORE 1 /* Flag: the change goes on in the next record. */

/* Appends what 'branch' has not logged: names, and the own changes of 'file'
 * (unless NULL).  Does not flush; '*ret_lsn' is what to commit.  ENOBUFS:
 * checkpoint instead. */
int
log_append(struct branch *, struct file *file, uint64_t *ret_lsn) NODISCARD;
int log_lease(struct catalogue *, uint64_t end) NODISCARD;
int log_checkpoint(struct branch *, uint64_t sequence, const struct store_id *,
                   uint64_t *ret_start, uint64_t *ret_lsn) NODISCARD;
int
log_freeze(struct branch *, const struct layer *, uint64_t *ret_lsn) NODISCARD;

/* replay.c */
int replay(struct catalogue *) NODISCARD;

/* checkpoint.c */
int checkpoint_throttle(struct branch *) NODISCARD;
void checkpoint_unreserve(struct catalogue *);
void checkpoint_update_dirty(struct branch *);
/* One branch, without the catalogue; checkpoint_mutex is held. */
int checkpoint_branch(struct branch *, enum branch_cause) NODISCARD;
int checkpoint_all(struct catalogue *, enum branch_cause) NODISCARD;
void checkpoint_kick(struct catalogue *);
void *checkpoint_thread(void *cat);
/* Makes one more layer; mutex held. */
int branch_freeze(struct branch *, enum branch_cause) NODISCARD;
/* Removes the oldest 'n' layers; mutex held. */
void branch_drop_layers(struct branch *, unsigned int n);
/* What layer[at] and those below say about a record, put together. */
int checkpoint_compose(struct branch *, struct layer *const *layers,
                       unsigned int n, const struct tree *base,
                       const struct tree_key *, void *buf,
                       struct store_id *ret_base) NODISCARD;

/* catalogue.c */
/* Changes of branch 0 that follow from the journal's record at 'lsn', so are
 * not logged themselves. */
int catalogue_put_version(struct branch *, const struct tree_version *,
                          const struct store_id *, uint64_t lsn) NODISCARD;
int catalogue_put_counter(struct catalogue *, uint64_t which, uint64_t value,
                          uint64_t lsn) NODISCARD;
enum { COUNTER_INODE = 1, COUNTER_BRANCH = 2 };
struct branch *catalogue_branch(struct catalogue *, uint64_t id);

#endif /* vafs-server/branch/branch-private.h */
