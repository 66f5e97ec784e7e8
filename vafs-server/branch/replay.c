/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Back from the journal: what was changed after the newest versions.
 *
 * Each CHANGE says for which layer (future version) it was logged.  Those that
 * a version covers are skipped; the others are put into layers again, blindly
 * and in order, without reading a tree.  A CHANGE of several records counts
 * only when its last one is there.
 *
 * Two things need the trees, once, at the end: attributes whose size is "what
 * it was below", and the branch's counters. */

#include "vafs-server/branch/branch-private.h"

#include <stdlib.h>

#include "lib/vlog.h"

struct replay {
    struct catalogue *cat;
    /* The unfinished change. */
    uint64_t branch, txn;
    uint8_t *items;
    size_t size, allocated;
};

/* Makes 'number' the active layer's. */
static int
enter_layer(struct branch *branch, uint64_t number)
{
    struct layer *active = branch->layer[0];
    int error;

    if (active->number > number) {
        return EBADMSG;
    }
    if (active->number < number) {
        if (active->points.n || active->ranges.n) {
            active->dirty = true;
            error = branch_freeze(branch, BRANCH_CAUSE_TIMER);
            if (error) {
                return error;
            }
        }
        branch->layer[0]->number = number;
    }
    return 0;
}

static const uint8_t *
get_key(const uint8_t *p, const uint8_t *end, struct tree_key *key)
{
    size_t n;

    if (p == end) {
        return NULL;
    }
    n = *p++;
    if (n > (size_t) (end - p) || !tree_key_decode(p, n, key)) {
        return NULL;
    }
    return p + n;
}

/* Puts attributes whose size and stored bytes are those below. */
static int
put_attr(struct layer *layer, const struct tree_key *key, const uint8_t *data,
         size_t size)
{
    struct val *val = layer_find(layer, key);
    struct tree_attr attr, old;
    uint8_t encoded[TREE_ATTR_MAX];
    bool keep = true;

    if (tree_attr_decode(data, size, &attr)) {
        return EBADMSG;
    }
    attr.size = attr.stored = 0;
    if (val && val->type == VAL_VALUE) {
        if (tree_attr_decode(val->data, val->size, &old)) {
            return EBADMSG;
        }
        attr.size = old.size;
        attr.stored = old.stored;
        keep = val->keep_size;
    } else if (val || layer_covers(layer, key)) {
        keep = false;
    }
    val = layer_put(layer, key, encoded, tree_attr_encode(&attr, encoded));
    val->keep_size = keep;
    return 0;
}

static const uint8_t *
put_pages(struct layer *layer, const struct tree_key *key, const uint8_t *p,
          const uint8_t *end, int *error)
{
    uint64_t present, zero;
    struct val *val;

    p = varint_get(p, end, &present);
    p = p ? varint_get(p, end, &zero) : NULL;
    if (!p || zero & ~present ||
        (layer->n_pages < 64 && present >> layer->n_pages)) {
        return NULL;
    }
    val = layer_pages(layer, key);
    for (unsigned int i = 0; i < layer->n_pages; i++) {
        uint8_t *page = page_zero;

        if (!(present >> i & 1)) {
            continue;
        }
        if (!(zero >> i & 1)) {
            if (end - p < (ptrdiff_t) PAGE_SIZE__) {
                return NULL;
            }
            page = page_alloc(layer->pool);
            if (!page) {
                *error = ENOMEM;
                return NULL;
            }
            memcpy(page, p, PAGE_SIZE__);
            p += PAGE_SIZE__;
        }
        layer_set_page(layer, val, i, page);
    }
    val_pages(val)->unlogged = 0;
    return p;
}

/* Puts one item; returns what follows it, or NULL. */
static const uint8_t *
put_item(struct layer *layer, const uint8_t *p, const uint8_t *end, int *error)
{
    uint8_t op = *p++;
    struct tree_key key, hi;
    uint64_t size;

    if (op == LOG_RANGE) {
        if (end - p < 48) {
            return NULL;
        }
        key =
            (struct tree_key){get_be64(p), get_be64(p + 8), get_be64(p + 16)};
        hi = (struct tree_key){get_be64(p + 24), get_be64(p + 32),
                               get_be64(p + 40)};
        layer_remove_range(layer, &key, &hi);
        return p + 48;
    }
    p = get_key(p, end, &key);
    if (!p) {
        return NULL;
    }
    switch (op) {
    case LOG_REMOVE:
        layer_remove(layer, &key);
        return p;
    case LOG_PAGES:
        return put_pages(layer, &key, p, end, error);
    case LOG_PUT:
    case LOG_ATTR:
        p = varint_get(p, end, &size);
        if (!p || size > TREE_VALUE_MAX || size > (size_t) (end - p)) {
            return NULL;
        }
        if (op == LOG_ATTR) {
            *error = put_attr(layer, &key, p, size);
        } else {
            layer_put(layer, &key, p, size);
        }
        return *error ? NULL : p + size;
    default:
        return NULL;
    }
}

static int
put_items(struct branch *branch, uint64_t number, const uint8_t *p,
          size_t size, uint64_t lsn)
{
    const uint8_t *end = p + size;
    struct layer *layer;
    int error = enter_layer(branch, number);

    if (error) {
        return error;
    }
    layer = branch->layer[0];
    layer->dirty = true;
    layer->first_lsn = MIN(layer->first_lsn, lsn);
    while (p < end) {
        error = arena_prepare(&layer->arena,
                              EDGE_RANGE_MAX + LAYER_PUT_MAX(TREE_VALUE_MAX) +
                                  LAYER_PAGES_MAX(layer->n_pages));
        if (error) {
            return error;
        }
        p = put_item(layer, p, end, &error);
        if (!p) {
            return error ? error : EBADMSG;
        }
    }
    return 0;
}

static int
replay_change(struct replay *r, const struct journal_record *record)
{
    const uint8_t *p = record->body, *end = p + record->size;
    uint64_t id, epoch, number, txn, flags;
    struct branch *branch;

    p = varint_get(p, end, &id);
    p = p ? varint_get(p, end, &epoch) : NULL;
    p = p ? varint_get(p, end, &number) : NULL;
    p = p ? varint_get(p, end, &txn) : NULL;
    p = p ? varint_get(p, end, &flags) : NULL;
    if (!p) {
        return EBADMSG;
    }
    branch = catalogue_branch(r->cat, id);
    if (!branch) {
        return EPROTONOSUPPORT;
    }
    branch->txn = MAX(branch->txn, txn);
    if (number <= branch->head.sequence) {
        return 0;
    }
    if (r->size && (r->branch != id || r->txn != txn)) {
        r->size = 0; /* It never was finished. */
    }
    if (flags & LOG_MORE || r->size) {
        size_t n = end - p;

        if (r->size + n > r->allocated) {
            size_t more = 2 * (r->size + n);
            uint8_t *items = realloc(r->items, more);

            if (!items) {
                return ENOMEM;
            }
            r->items = items;
            r->allocated = more;
        }
        memcpy(r->items + r->size, p, n);
        r->size += n;
        r->branch = id;
        r->txn = txn;
        if (!(flags & LOG_MORE)) {
            int error =
                put_items(branch, number, r->items, r->size, record->start);

            r->size = 0;
            return error;
        }
        /* The layer needs the first of these records as well. */
        branch->layer[0]->first_lsn =
            MIN(branch->layer[0]->first_lsn, record->start);
        return 0;
    }
    return put_items(branch, number, p, end - p, record->start);
}

static int
replay_checkpoint(struct replay *r, const struct journal_record *record)
{
    const uint8_t *p = record->body, *end = p + record->size;
    struct tree_version version;
    struct branch *branch;
    struct store_id id;
    uint64_t branch_id, sequence;
    unsigned int n = 0;
    int error;

    p = varint_get(p, end, &branch_id);
    p = p ? varint_get(p, end, &sequence) : NULL;
    if (!p || end - p != sizeof id) {
        return EBADMSG;
    }
    memcpy(&id, p, sizeof id);
    branch = catalogue_branch(r->cat, branch_id);
    if (!branch) {
        return EPROTONOSUPPORT;
    }
    if (sequence <= branch->head.sequence) {
        return 0;
    }
    error = tree_version_get(r->cat->store, &id, &version);
    if (error || version.sequence != sequence || version.branch != branch_id) {
        return error ? error : EBADMSG;
    }
    /* Layers up to this number are in the version. */
    error = enter_layer(branch, MAX(branch->layer[0]->number, sequence + 1));
    while (!error && n + 1 < branch->n_layers &&
           branch->layer[branch->n_layers - 1 - n]->number <= sequence) {
        n++;
    }
    if (!error) {
        branch_drop_layers(branch, n);
        branch->base.root = version.root;
        branch->head = version;
        branch->head_id = id;
        branch->n_inodes = version.n_inodes;
        branch->stored = version.stored;
        branch->max_ino = version.max_ino;
        error = catalogue_put_version(branch, &version, &id, record->start);
    }
    return error;
}

static int
replay_freeze(struct replay *r, const struct journal_record *record)
{
    const uint8_t *p = record->body, *end = p + record->size;
    uint64_t id, sequence, time, cause;
    struct branch *branch;
    int error;

    p = varint_get(p, end, &id);
    p = p ? varint_get(p, end, &sequence) : NULL;
    p = p ? varint_get(p, end, &time) : NULL;
    p = p ? varint_get(p, end, &cause) : NULL;
    if (p != end) {
        return EBADMSG;
    }
    branch = catalogue_branch(r->cat, id);
    if (!branch) {
        return EPROTONOSUPPORT;
    }
    if (sequence <= branch->head.sequence ||
        branch->layer[0]->number > sequence) {
        return 0;
    }
    error = enter_layer(branch, sequence);
    if (!error) {
        branch->layer[0]->first_lsn =
            MIN(branch->layer[0]->first_lsn, record->start);
        error = branch_freeze(branch, cause);
    }
    if (!error) {
        branch->layer[1]->time = time;
    }
    return error;
}

static int
replay_record(void *r_, const struct journal_record *record)
{
    struct replay *r = r_;
    uint64_t end;

    switch (record->type) {
    case LOG_CHANGE:
        return replay_change(r, record);
    case LOG_CHECKPOINT:
        return replay_checkpoint(r, record);
    case LOG_FREEZE:
        return replay_freeze(r, record);
    case LOG_LEASE:
        if (!varint_get(record->body, record->body + record->size, &end)) {
            return EBADMSG;
        }
        if (end > r->cat->lease_end) {
            r->cat->next_ino = r->cat->lease_end = end;
            return catalogue_put_counter(r->cat, COUNTER_INODE, end,
                                         record->start);
        }
        return 0;
    default:
        return EPROTONOSUPPORT;
    }
}

/* What lies below layer[at]: ENOENT, or attributes. */
static int
attr_below(struct branch *branch, unsigned int at, const struct tree_key *key,
           struct tree_attr *attr)
{
    struct tree_value value;
    int error;

    for (unsigned int i = at + 1; i < branch->n_layers; i++) {
        struct val *val = layer_find(branch->layer[i], key);

        if (val && val->type == VAL_VALUE) {
            return tree_attr_decode(val->data, val->size, attr);
        }
        if (val || layer_covers(branch->layer[i], key)) {
            return ENOENT;
        }
    }
    error = tree_get(&branch->base, key, &value);
    if (!error) {
        error = tree_attr_decode(value.data, value.size, attr);
        tree_value_release(&value);
    }
    return error;
}

/* The layer removes what is below at 'key', if anything is. */
static int
subtract(struct branch *branch, unsigned int at, const struct tree_key *key)
{
    struct tree_attr attr;
    int error = attr_below(branch, at, key, &attr);

    if (!error) {
        branch->n_inodes--;
        branch->stored -= attr.stored;
    }
    return error == ENOENT ? 0 : error;
}

/* Counts the inodes that range [lo, hi) of layer[at] removes: those in the
 * tree and those that only layers between have. */
static int
count_range(struct branch *branch, unsigned int at, const struct range *range)
{
    struct tree_cursor cursor;
    struct tree_key key = range->lo;
    int error;

    tree_cursor_init(&cursor, &branch->base);
    error = tree_cursor_seek(&cursor, &key);
    while (!error && tree_cursor_valid(&cursor) &&
           tree_key_less(&cursor.key, &range->hi)) {
        if (tree_key_kind(&cursor.key) == TREE_ATTR) {
            /* A single key of this layer is counted by itself. */
            if (!layer_find(branch->layer[at], &cursor.key)) {
                error = subtract(branch, at, &cursor.key);
            }
        }
        key = tree_key(tree_key_ino(&cursor.key) + 1, TREE_ATTR, 0, 0);
        if (!error) {
            error = tree_cursor_seek(&cursor, &key);
        }
    }
    tree_cursor_destroy(&cursor);

    for (unsigned int i = at + 1; !error && i < branch->n_layers; i++) {
        struct kmap_iter iter;

        kmap_seek(&branch->layer[i]->points, &range->lo, &iter);
        for (;
             !error && iter.leaf && tree_key_less(kmap_key(&iter), &range->hi);
             kmap_next(&iter)) {
            struct tree_key k = *kmap_key(&iter);
            struct tree_value value;
            bool seen = layer_find(branch->layer[at], &k);

            if (tree_key_kind(&k) != TREE_ATTR) {
                continue;
            }
            for (unsigned int j = at + 1; j < i; j++) {
                seen = seen || layer_find(branch->layer[j], &k);
            }
            if (!seen) {
                error = tree_get(&branch->base, &k, &value);
                if (!error) {
                    tree_value_release(&value);
                    seen = true; /* Counted above. */
                }
                error = error == ENOENT ? 0 : error;
            }
            if (!error && !seen) {
                error = subtract(branch, at, &k);
            }
        }
    }
    return error;
}

/* Settles sizes and counters of layer[at], those below being settled. */
static int
settle_layer(struct branch *branch, unsigned int at)
{
    struct layer *layer = branch->layer[at];
    struct kmap_iter iter;
    int error = 0;

    kmap_seek(&layer->ranges, &(struct tree_key){0, 0, 0}, &iter);
    for (; iter.leaf && !error; kmap_next(&iter)) {
        error = count_range(branch, at, kmap_value(&iter));
    }
    kmap_seek(&layer->points, &(struct tree_key){0, 0, 0}, &iter);
    for (; iter.leaf && !error; kmap_next(&iter)) {
        struct val *val = kmap_value(&iter);
        struct tree_attr new = {0}, old = {0};
        uint8_t encoded[TREE_ATTR_MAX];
        bool had;

        if (tree_key_kind(&val->key) != TREE_ATTR ||
            !tree_key_ino(&val->key)) {
            continue;
        }
        error = attr_below(branch, at, &val->key, &old);
        had = !error;
        if (error && error != ENOENT) {
            break;
        }
        error = 0;
        if (val->type == VAL_VALUE) {
            error = tree_attr_decode(val->data, val->size, &new);
            if (!error && val->keep_size) {
                new.size = had ? old.size : 0;
                new.stored = had ? old.stored : 0;
                error =
                    arena_prepare(&layer->arena, LAYER_PUT_MAX(TREE_ATTR_MAX));
                if (!error) {
                    layer_put(layer, &val->key, encoded,
                              tree_attr_encode(&new, encoded));
                }
            }
        }
        branch->n_inodes += (val->type == VAL_VALUE) - had;
        branch->stored += new.stored - (had ? old.stored : 0);
    }
    layer->n_inodes = branch->n_inodes;
    layer->stored = branch->stored;
    return error;
}

int
replay(struct catalogue *cat)
{
    struct replay r = {.cat = cat};
    struct branch *branch;
    uint64_t n = 0;
    int error;

    error = journal_replay(cat->journal, replay_record, &r, &n);
    free(r.items);
    if (error) {
        vlog_err("journal cannot be replayed: %s", strerror(error));
        return error;
    }
    LIST_FOR_EACH (branch, in_cat, &cat->branches) {
        if (branch == cat->self) {
            continue;
        }
        for (unsigned int at = branch->n_layers; at-- > 0 && !error;) {
            error = settle_layer(branch, at);
        }
        if (error) {
            return error;
        }
        branch->max_ino = MAX(branch->max_ino, cat->next_ino - 1);
        for (unsigned int at = 0; at < branch->n_layers; at++) {
            branch->layer[at]->max_ino = branch->max_ino;
        }
        checkpoint_update_dirty(branch);
    }
    if (n) {
        vlog_info("journal: %llu records replayed", (unsigned long long) n);
    }
    return 0;
}
