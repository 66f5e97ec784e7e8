/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Checkpoints: frozen layers become versions, in the background.
 *
 * The order is what makes it safe (a crash between any two steps loses nothing
 * and leaves at worst work that is done again):
 *
 *   1. The active layer is frozen; an empty one is put on top.
 *   2. It is merged into the newest version's tree: records, then nodes
 *      bottom-up, then the version object.
 *   3. The segments are synced, those of objects that were put earlier, by
 *      write-behind, included.
 *   4. A CHECKPOINT record goes into the journal.
 *   5. The new version becomes the base, the layer goes; the catalogue's edge
 *      gets the new head and the version's entry.
 *   6. After all branches the catalogue's own edge is merged the same way and
 *      becomes the root in the superblock; then the journal is trimmed up to
 *      the first record that some layer still needs.
 *
 * Room on the disk for what is dirty is reserved before a write is answered,
 * so that a checkpoint does not fail for want of it.  Removing names needs no
 * reservation: the slack of what was reserved is for that.
 *
 * Back-pressure: at half of the dirty budget the thread is woken before its
 * time, at three quarters writers are slowed, at all of it they wait. */

#include "vafs-server/branch/branch-private.h"

#include <malloc.h>
#include <stdlib.h>

#include "lib/vlog.h"

int
branch_freeze(struct branch *branch, enum branch_cause cause)
{
    struct layer *active = branch->layer[0], *new;
    int error;

    if (branch->n_layers == LAYERS_MAX) {
        return EAGAIN;
    }
    error =
        layer_create(active->number + 1, active->n_pages, active->pool, &new);
    if (error) {
        return error;
    }
    active->n_inodes = branch->n_inodes;
    active->stored = branch->stored;
    active->max_ino = branch->max_ino;
    active->time = MAX(clock_real_ns(), branch->head.time + 1);
    active->cause = cause;
    edge_lock(branch);
    memmove(branch->layer + 1, branch->layer,
            branch->n_layers * sizeof branch->layer[0]);
    branch->layer[0] = new;
    branch->n_layers++;
    branch->stack_generation++;
    edge_unlock(branch);
    return 0;
}

/* Lets go of what a layer's lists of unlogged changes hold. */
static void
drop_lists(struct layer *layer)
{
    struct unlogged *u, *next;

    LIST_FOR_EACH_SAFE (u, next, in_layer, &layer->unlogged) {
        struct file *file = u->file;

        while (!list_is_empty(&u->vals)) {
            list_pop_front(&u->vals);
        }
        list_remove(&u->in_file);
        if (list_is_empty(&file->unlogged)) {
            /* All objects that its newest state names are durable. */
            store_needs_clear(&file->needs);
            if (!list_is_empty(&file->carry)) {
                list_remove(&file->carry);
                inode_unpin(file);
            }
        }
        inode_unpin(file);
    }
}

void
branch_drop_layers(struct branch *branch, unsigned int n)
{
    struct layer *dropped[LAYERS_MAX];

    edge_lock(branch);
    for (unsigned int i = 0; i < n; i++) {
        dropped[i] = branch->layer[--branch->n_layers];
    }
    branch->stack_generation++;
    edge_unlock(branch);
    for (unsigned int i = 0; i < n; i++) {
        drop_lists(dropped[i]);
        layer_destroy(dropped[i]);
    }
    checkpoint_update_dirty(branch);
}

/* The stream of a layer's changes, for tree_merge(). */
struct source {
    struct branch *branch;
    struct layer *layer;
    struct store_needs *needs;
    struct kmap_iter point, range;
    bool point_started, range_started;
    uint64_t ino; /* Whose size is 'size'. */
    uint64_t size;
    uint8_t *record; /* Room for one. */
    uint8_t value[TREE_RECORD_MAX];
};

/* The size of the file as of this layer. */
static int
find_size(struct source *s, uint64_t ino)
{
    struct tree_key key = tree_key(ino, TREE_ATTR, 0, 0);
    struct val *val = layer_find(s->layer, &key);
    struct tree_attr attr;
    struct tree_value value;
    int error;

    if (s->ino == ino) {
        return 0;
    }
    if (val) {
        error = val->type == VAL_VALUE
                    ? tree_attr_decode(val->data, val->size, &attr)
                    : EBADMSG;
    } else {
        error = tree_get(&s->branch->base, &key, &value);
        if (!error) {
            error = tree_attr_decode(value.data, value.size, &attr);
            tree_value_release(&value);
        }
    }
    if (!error) {
        s->ino = ino;
        s->size = attr.size;
    }
    return error;
}

/* The value of a record that has dirty pages. */
static int
compose(struct source *s, const struct tree_key *key, const uint8_t **value,
        size_t *size)
{
    struct catalogue *cat = s->branch->cat;
    uint64_t start = key->mid << cat->record_shift;
    struct tree_content content = {.inlined = true, .data = s->record};
    struct store_id base = {{0}};
    int error;

    error = find_size(s, tree_key_ino(key));
    if (error) {
        return error;
    }
    if (start >= s->size) {
        *value = NULL;
        return 0;
    }
    error = checkpoint_compose(s->branch, &s->layer, 1, &s->branch->base, key,
                               s->record, &base);
    if (error) {
        return error;
    }
    content.size = MIN(s->size - start, (uint64_t) 1 << cat->record_shift);
    if (content.size > TREE_INLINE_MAX) {
        struct store_put put = {
            .data = s->record,
            .size = content.size,
            .kind = STORE_DATA,
            .base = store_id_is_zero(&base) ? NULL : &base,
        };

        error = store_put(cat->store, &put, s->needs);
        if (error) {
            return error;
        }
        content.inlined = false;
        content.id = put.id;
    }
    *size = tree_content_encode(&content, s->value);
    *value = s->value;
    return 0;
}

static int
next_point(void *s_, struct tree_key *key, const uint8_t **value, size_t *size,
           bool *end)
{
    struct source *s = s_;
    struct val *val;

    if (!s->point_started) {
        kmap_seek(&s->layer->points, &(struct tree_key){0, 0, 0}, &s->point);
        s->point_started = true;
    } else {
        kmap_next(&s->point);
    }
    *end = !s->point.leaf;
    if (*end) {
        return 0;
    }
    val = kmap_value(&s->point);
    *key = val->key;
    *value = val->type == VAL_VALUE ? val->data : NULL;
    *size = val->size;
    return val->type == VAL_PAGES ? compose(s, key, value, size) : 0;
}

static int
next_range(void *s_, struct tree_key *lo, struct tree_key *hi, bool *end)
{
    struct source *s = s_;
    struct range *range;

    if (!s->range_started) {
        kmap_seek(&s->layer->ranges, &(struct tree_key){0, 0, 0}, &s->range);
        s->range_started = true;
    } else {
        kmap_next(&s->range);
    }
    *end = !s->range.leaf;
    if (!*end) {
        range = kmap_value(&s->range);
        *lo = range->lo;
        *hi = range->hi;
    }
    return 0;
}

/* Merges the oldest layer into a new version; steps 2 and 3. */
static int
merge_layer(struct branch *branch, struct layer *layer,
            struct tree_version *version, struct store_id *ret_id)
{
    struct store_needs needs = {0};
    struct source s = {
        .branch = branch, .layer = layer, .needs = &needs, .ino = UINT64_MAX};
    struct tree_changes changes = {next_point, next_range, &s};
    struct tree_merge_stats stats;
    struct tree tree;
    int error;

    s.record = malloc((size_t) 1 << branch->cat->record_shift);
    if (!s.record) {
        return ENOMEM;
    }
    error = tree_merge(&branch->base, &changes, &needs, &tree, &stats);
    free(s.record);
    *version = (struct tree_version){
        .root = tree.root,
        .parent = branch->head_id,
        .branch = branch->id,
        .sequence = layer->number,
        .time = MAX(layer->time, branch->head.time + 1),
        .cause = layer->cause,
        .n_inodes = layer->n_inodes,
        .stored = layer->stored,
        .root_ino = branch->root_ino,
        .max_ino = layer->max_ino,
        .lineage = {branch->lineage[0], branch->lineage[1]},
    };
    if (!error) {
        error = tree_version_put(branch->cat->store, version, &needs, ret_id);
    }
    if (!error) {
        /* Not only 'needs': records put by write-behind count as well. */
        error = store_sync(branch->cat->store);
    }
    store_needs_clear(&needs);
    return error;
}

/* Makes 'version' the base and drops the oldest layer.  'lsn' is the place of
 * the record that says so, 0 if there is none. */
static void
publish(struct branch *branch, const struct tree_version *version,
        const struct store_id *id, uint64_t lsn)
{
    pthread_mutex_lock(&branch->mutex);
    branch->last_lsn = MAX(branch->last_lsn, lsn);
    branch->unrooted = branch->unrooted || !lsn;
    edge_lock(branch);
    branch->base.root = version->root;
    branch->head = *version;
    branch->head_id = *id;
    edge_unlock(branch);
    branch_drop_layers(branch, 1);
    branch->stats.n_checkpoints++;
    pthread_mutex_unlock(&branch->mutex);
    page_pool_trim(&branch->cat->pool);
    /* What was reserved has been used: the next change looks again. */
    checkpoint_unreserve(branch->cat);
}

/* Whether the branch has anything to make a version of; freezes it then. */
static int
freeze_if_dirty(struct branch *branch, enum branch_cause cause)
{
    int error = 0;

    pthread_mutex_lock(&branch->mutex);
    if (branch->layer[0]->dirty && branch->n_layers <= FROZEN_MAX) {
        error = branch_freeze(branch, cause);
    }
    pthread_mutex_unlock(&branch->mutex);
    return error;
}

/* The oldest frozen layer, or NULL.  Only who holds checkpoint_mutex removes
 * layers, so it stays. */
static struct layer *
oldest(struct branch *branch, unsigned int *ret_n)
{
    struct layer *layer = NULL;

    pthread_mutex_lock(&branch->mutex);
    if (branch->n_layers > 1) {
        layer = branch->layer[branch->n_layers - 1];
    }
    *ret_n = branch->n_layers;
    pthread_mutex_unlock(&branch->mutex);
    return layer;
}

int
checkpoint_branch(struct branch *branch, enum branch_cause cause)
{
    int error = freeze_if_dirty(branch, cause);
    struct layer *layer;
    unsigned int n;

    while (!error && (layer = oldest(branch, &n))) {
        struct tree_version version;
        struct store_id id;
        uint64_t start, lsn = 0;

        error = merge_layer(branch, layer, &version, &id);
        if (error) {
            break;
        }
        /* Losing this record repeats the work, as long as nobody was told
         * that what the dropped layer held is durable: see last_lsn. */
        error = log_checkpoint(branch, version.sequence, &id, &start, &lsn);
        if (error && error != ENOBUFS) {
            break;
        }
        error = catalogue_put_version(branch, &version, &id, start);
        if (!error) {
            publish(branch, &version, &id, lsn);
        }
    }
    return error;
}

/* The place in the journal before which no record is needed any more.  Of
 * branch 0, frozen layers do not count: they are in the version to come. */
static uint64_t
find_tail(struct catalogue *cat)
{
    struct branch *branch;
    uint64_t tail;

    /* A lease that was logged before this place is in branch 0's edge. */
    pthread_mutex_lock(&cat->lease_mutex);
    tail = journal_head(cat->journal);
    pthread_mutex_unlock(&cat->lease_mutex);
    pthread_mutex_lock(&cat->mutex);
    LIST_FOR_EACH (branch, in_cat, &cat->branches) {
        pthread_mutex_lock(&branch->mutex);
        for (unsigned int i = 0; i < branch->n_layers; i++) {
            if (branch != cat->self || !i) {
                tail = MIN(tail, branch->layer[i]->first_lsn);
            }
        }
        pthread_mutex_unlock(&branch->mutex);
    }
    pthread_mutex_unlock(&cat->mutex);
    return tail;
}

static int
checkpoint_self(struct catalogue *cat, enum branch_cause cause)
{
    struct branch *self = cat->self;
    struct store_root root;
    struct layer *layer;
    unsigned int n;
    uint64_t tail;
    int error;

    error = freeze_if_dirty(self, cause);
    tail = find_tail(cat);
    while (!error && (layer = oldest(self, &n))) {
        struct tree_version version;
        struct store_id id;

        error = merge_layer(self, layer, &version, &id);
        if (!error) {
            store_get_root(cat->store, &root);
            root.id = id;
            root.journal_tail = n == 2 ? tail : journal_tail(cat->journal);
            error = store_set_root(cat->store, &root);
        }
        if (!error) {
            publish(self, &version, &id, journal_head(cat->journal));
        }
    }
    return error;
}

int
checkpoint_all(struct catalogue *cat, enum branch_cause cause)
{
    bool nowait = file_nowait;
    struct branch *branch;
    int error = 0;

    if (cat->options.read_only) {
        return EROFS;
    }
    file_set_nowait(false);
    pthread_mutex_lock(&cat->checkpoint_mutex);
    /* Branches are only added at the end of the list and never removed. */
    LIST_FOR_EACH (branch, in_cat, &cat->branches) {
        if (branch != cat->self) {
            int e = checkpoint_branch(branch, cause);

            error = error ? error : e;
        }
    }
    if (!error) {
        error = checkpoint_self(cat, cause);
    }
    LIST_FOR_EACH (branch, in_cat, &cat->branches) {
        if (!error) {
            pthread_mutex_lock(&branch->mutex);
            branch->unrooted = false;
            pthread_mutex_unlock(&branch->mutex);
        }
    }
    cat->last_error = error;
    pthread_mutex_unlock(&cat->checkpoint_mutex);
    file_set_nowait(nowait);

    pthread_mutex_lock(&cat->thread_mutex);
    cat->n_rounds++;
    pthread_cond_broadcast(&cat->relieved);
    pthread_mutex_unlock(&cat->thread_mutex);
    return error;
}

int
catalogue_checkpoint(struct catalogue *cat)
{
    return checkpoint_all(cat, BRANCH_CAUSE_ASKED);
}

int
branch_checkpoint(struct branch *branch)
{
    struct catalogue *cat = branch->cat;
    uint64_t lsn = 0;
    int error;

    if (cat->options.read_only) {
        return EROFS;
    }
    /* The version exists from the moment that this record is durable; if a
     * crash comes before the merge, replay freezes at the same place. */
    error = branch_syncfs(branch);
    if (error) {
        return error;
    }
    pthread_mutex_lock(&branch->mutex);
    if (branch->layer[0]->dirty && branch->n_layers <= FROZEN_MAX) {
        error = branch_freeze(branch, BRANCH_CAUSE_ASKED);
        if (!error) {
            error = log_freeze(branch, branch->layer[1], &lsn);
            error = error == ENOBUFS ? 0 : error;
        }
    }
    pthread_mutex_unlock(&branch->mutex);
    if (!error && lsn) {
        error = journal_commit(cat->journal, lsn);
    }
    return error ? error : checkpoint_all(cat, BRANCH_CAUSE_ASKED);
}

/* The thread and those who wait for it. */

void
checkpoint_update_dirty(struct branch *branch)
{
    uint64_t sum = 0;

    for (unsigned int i = 0; i < branch->n_layers; i++) {
        sum += layer_bytes(branch->layer[i]);
    }
    __atomic_store_n(&branch->dirty, sum, __ATOMIC_RELAXED);
}

void
checkpoint_kick(struct catalogue *cat)
{
    pthread_mutex_lock(&cat->thread_mutex);
    if (!cat->urgent) {
        cat->urgent = true;
        pthread_cond_signal(&cat->wake);
    }
    pthread_mutex_unlock(&cat->thread_mutex);
}

static bool
journal_is_full(struct catalogue *cat)
{
    uint64_t used, limit;

    journal_usage(cat->journal, &used, &limit);
    return used > limit / 2;
}

/* Waits until the dirty bytes are under the budget or a round has failed. */
static int
wait_for_room(struct branch *branch)
{
    struct catalogue *cat = branch->cat;
    int error = 0;

    pthread_mutex_lock(&cat->thread_mutex);
    while (__atomic_load_n(&branch->dirty, __ATOMIC_RELAXED) >= cat->budget) {
        uint64_t round = cat->n_rounds;

        cat->urgent = true;
        pthread_cond_signal(&cat->wake);
        while (round == cat->n_rounds && !cat->stop) {
            pthread_cond_wait(&cat->relieved, &cat->thread_mutex);
        }
        if (cat->last_error || cat->stop) {
            error = cat->last_error ? cat->last_error : EIO;
            break;
        }
    }
    pthread_mutex_unlock(&cat->thread_mutex);
    return error;
}

/* Written between two looks; twice as much is reserved beyond what is dirty.
 */
#define RESERVE_STEP(CAT) MIN((CAT)->budget / 16, 2u << 20)

static void
unreserve(struct catalogue *cat)
{
    for (unsigned int class = 0; class < 2; class ++) {
        store_unreserve(cat->store, class, cat->reserved[class]);
        cat->reserved[class] = 0;
    }
    __atomic_store_n(&cat->reserve_due, 0, __ATOMIC_RELAXED);
}

void
checkpoint_unreserve(struct catalogue *cat)
{
    pthread_mutex_lock(&cat->thread_mutex);
    unreserve(cat);
    pthread_mutex_unlock(&cat->thread_mutex);
}

/* Makes sure that what is dirty, and RESERVE_STEP() more, fits onto the disk.
 */
static int
reserve(struct catalogue *cat, uint64_t dirty)
{
    uint64_t level =
        dirty + __atomic_load_n(&cat->put_bytes, __ATOMIC_RELAXED);
    const uint64_t want[2] = {
        [STORE_CLASS_NODE] = dirty / 4 + RESERVE_STEP(cat),
        [STORE_CLASS_DATA] = dirty + dirty / 4 + 2 * RESERVE_STEP(cat),
    };
    int error = 0;

    if (level < __atomic_load_n(&cat->reserve_due, __ATOMIC_RELAXED)) {
        return 0;
    }
    if (file_nowait) {
        return EAGAIN;
    }
    pthread_mutex_lock(&cat->thread_mutex);
    unreserve(cat);
    for (unsigned int class = 0; class < 2 && !error; class ++) {
        error = store_reserve(cat->store, class, want[class]);
        if (!error) {
            cat->reserved[class] = want[class];
        }
    }
    if (!error) {
        __atomic_store_n(&cat->reserve_due, level + RESERVE_STEP(cat),
                         __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&cat->thread_mutex);
    return error;
}

int
checkpoint_throttle(struct branch *branch)
{
    struct catalogue *cat = branch->cat;
    uint64_t dirty = __atomic_load_n(&branch->dirty, __ATOMIC_RELAXED);
    bool full;
    int error;

    if (cat->options.read_only) {
        return EROFS;
    }
    error = reserve(cat, dirty);
    if (error) {
        return error;
    }
    full = journal_is_full(cat);
    if (dirty < cat->budget / 2 && !full) {
        return 0;
    }
    if (!cat->have_thread) {
        if (dirty < cat->budget * 3 / 4 && !full) {
            return 0;
        }
        return file_nowait ? EAGAIN : checkpoint_all(cat, BRANCH_CAUSE_SPACE);
    }
    checkpoint_kick(cat);
    if (dirty < cat->budget * 3 / 4) {
        return 0;
    }
    if (file_nowait) {
        return EAGAIN;
    }
    if (dirty < cat->budget) {
        /* Slower the nearer the limit is: up to 1 ms. */
        uint64_t over = dirty - cat->budget * 3 / 4;
        struct timespec ts = {.tv_nsec =
                                  1000000 * over / (cat->budget / 4 + 1)};

        nanosleep(&ts, NULL);
        return 0;
    }
    return wait_for_room(branch);
}

/* Grows with each version; only this thread makes them but for calls. */
static uint64_t
n_versions(struct catalogue *cat)
{
    struct branch *branch;
    uint64_t n = 0;

    LIST_FOR_EACH (branch, in_cat, &cat->branches) {
        pthread_mutex_lock(&branch->mutex);
        n += branch->stats.n_checkpoints;
        pthread_mutex_unlock(&branch->mutex);
    }
    return n;
}

void *
checkpoint_thread(void *cat_)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(6, 3);
    struct catalogue *cat = cat_;
    bool busy = true;

    pthread_mutex_lock(&cat->thread_mutex);
    while (!cat->stop) {
        enum branch_cause cause = BRANCH_CAUSE_TIMER;
        struct timespec until;
        uint64_t ns, versions;
        int error;

        clock_gettime(CLOCK_MONOTONIC, &until);
        ns = until.tv_nsec + cat->options.checkpoint_ms * NSEC_PER_MSEC;
        until.tv_sec += ns / NSEC_PER_SEC;
        until.tv_nsec = ns % NSEC_PER_SEC;
        while (!cat->stop && !cat->urgent) {
            if (pthread_cond_timedwait(&cat->wake, &cat->thread_mutex,
                                       &until) == ETIMEDOUT) {
                break;
            }
        }
        if (cat->stop) {
            break;
        }
        if (cat->urgent) {
            cause = BRANCH_CAUSE_SPACE;
            cat->urgent = false;
        }
        pthread_mutex_unlock(&cat->thread_mutex);
        versions = n_versions(cat);
        error = checkpoint_all(cat, cause);
        if (versions != n_versions(cat)) {
            busy = true;
        } else if (busy) {
            /* It has become quiet: give memory back. */
            busy = false;
            malloc_trim(0);
        }
        if (error) {
            vlog_err_rl(&rl, "checkpoint failed: %s", strerror(error));
        }
        pthread_mutex_lock(&cat->thread_mutex);
    }
    pthread_mutex_unlock(&cat->thread_mutex);
    return NULL;
}
