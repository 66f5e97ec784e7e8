/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Byte-range locks (see lock.h).
 *
 * One object per locked file holds its locks, in no order, and its waiters,
 * first come first.  Files that are locked are few and have few locks, so
 * plain lists do.  A hash table finds the file.
 *
 * Owners wait for owners; an owner waits in at most one place per parked
 * request.  Before a request is parked, a search over "waits for" looks for a
 * way from those in its way back to it.  The search marks owners by a round
 * number and is bounded by MAX_DEADLOCK_STEPS: beyond that it says there is
 * none, as Linux does. */

#include "vafs-server/ninep/lock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define N_BUCKETS 256
#define MAX_DEADLOCK_STEPS 1000
/* Per table, against a guest that locks every second byte. */
#define MAX_LOCKS 65536
#define MAX_LOCKS_OF_SESSION (MAX_LOCKS / 16)
#define MAX_WAITERS 16384

struct owner {
    const void *session;
    struct lock_quota *quota;
    uint32_t proc_id;
    uint16_t client_len;
    char client[LOCK_CLIENT_MAX];
};

struct lock {
    struct list link; /* In file->locks. */
    struct owner owner;
    struct lock_range range;
    const void *fid;
};

struct lock_waiter {
    struct list link;     /* In file->waiters. */
    struct list all_link; /* In table->waiters. */
    struct lock_file *file;
    struct owner owner;
    struct lock_range range;
    const void *fid;
    lock_cb *cb;
    void *aux;
};

struct lock_file {
    struct list link; /* In its bucket. */
    struct lock_key key;
    struct list locks;
    struct list waiters;
    bool is_granting;
};

struct lock_table {
    struct list buckets[N_BUCKETS];
    struct list waiters;
    unsigned int n_locks, n_waiters;
};

int
lock_table_create(struct lock_table **ret)
{
    struct lock_table *table = calloc(1, sizeof *table);

    if (!table) {
        return ENOMEM;
    }
    for (size_t i = 0; i < N_BUCKETS; i++) {
        list_init(&table->buckets[i]);
    }
    list_init(&table->waiters);
    *ret = table;
    return 0;
}

int
lock_range_init(struct lock_range *range, uint8_t type, uint64_t start,
                uint64_t length)
{
    if (type > NINEP_LOCK_UNLCK) {
        return EINVAL;
    }
    if (length && start + (length - 1) < start) {
        return EOVERFLOW;
    }
    range->type = type;
    range->start = start;
    range->end = length ? start + (length - 1) : UINT64_MAX;
    return 0;
}

static struct list *
bucket_of(struct lock_table *table, const struct lock_key *key)
{
    uint64_t h = (key->ino ^ key->branch << 40) * UINT64_C(0x9e3779b97f4a7c15);

    return &table->buckets[h >> 56];
}
BUILD_ASSERT(N_BUCKETS == 256);

static struct lock_file *
find_file(struct lock_table *table, const struct lock_key *key)
{
    struct lock_file *file;

    LIST_FOR_EACH (file, link, bucket_of(table, key)) {
        if (file->key.ino == key->ino && file->key.branch == key->branch) {
            return file;
        }
    }
    return NULL;
}

static struct lock_file *
get_file(struct lock_table *table, const struct lock_key *key)
{
    struct lock_file *file = find_file(table, key);

    if (!file) {
        file = calloc(1, sizeof *file);
        if (file) {
            file->key = *key;
            list_init(&file->locks);
            list_init(&file->waiters);
            list_push_back(bucket_of(table, key), &file->link);
        }
    }
    return file;
}

static void
put_file(struct lock_file *file)
{
    if (list_is_empty(&file->locks) && list_is_empty(&file->waiters) &&
        !file->is_granting) {
        list_remove(&file->link);
        free(file);
    }
}

/* Counts 'lock' in (1) or out (-1). */
static void
count_lock(struct lock_table *table, const struct lock *lock, int n)
{
    table->n_locks += n;
    if (lock->owner.quota) {
        lock->owner.quota->n += n;
    }
}

static void
free_lock(struct lock_table *table, struct lock *lock)
{
    if (lock) {
        list_remove(&lock->link);
        count_lock(table, lock, -1);
        free(lock);
    }
}

static void
free_waiter(struct lock_table *table, struct lock_waiter *w)
{
    list_remove(&w->link);
    list_remove(&w->all_link);
    table->n_waiters--;
    free(w);
}

void
lock_table_destroy(struct lock_table *table)
{
    if (!table) {
        return;
    }
    for (size_t i = 0; i < N_BUCKETS; i++) {
        struct lock_file *file, *next;

        LIST_FOR_EACH_SAFE (file, next, link, &table->buckets[i]) {
            while (!list_is_empty(&file->locks)) {
                free_lock(table, CONTAINER_OF(list_front(&file->locks),
                                              struct lock, link));
            }
            while (!list_is_empty(&file->waiters)) {
                free_waiter(table, CONTAINER_OF(list_front(&file->waiters),
                                                struct lock_waiter, link));
            }
            put_file(file);
        }
    }
    free(table);
}

static int
copy_owner(struct owner *out, const struct lock_owner *owner)
{
    if (owner->client_id.len > sizeof out->client) {
        return EINVAL;
    }
    memset(out, 0, sizeof *out);
    out->session = owner->session;
    out->quota = owner->quota;
    out->proc_id = owner->proc_id;
    out->client_len = owner->client_id.len;
    memcpy(out->client, owner->client_id.s, owner->client_id.len);
    return 0;
}

static bool
same_owner(const struct owner *a, const struct owner *b)
{
    return a->session == b->session && a->proc_id == b->proc_id &&
           a->client_len == b->client_len &&
           !memcmp(a->client, b->client, a->client_len);
}

static bool
overlaps(const struct lock_range *a, const struct lock_range *b)
{
    return a->start <= b->end && b->start <= a->end;
}

/* The first lock that is in the way. */
static struct lock *
find_conflict(struct lock_file *file, const struct owner *owner,
              const struct lock_range *range)
{
    struct lock *lock;

    if (range->type == NINEP_LOCK_UNLCK) {
        return NULL;
    }
    LIST_FOR_EACH (lock, link, &file->locks) {
        if (!same_owner(&lock->owner, owner) &&
            overlaps(&lock->range, range) &&
            (lock->range.type == NINEP_LOCK_WRLCK ||
             range->type == NINEP_LOCK_WRLCK)) {
            return lock;
        }
    }
    return NULL;
}

static struct lock *
new_lock(struct lock_table *table, const struct owner *owner,
         const struct lock_range *range, const void *fid)
{
    struct lock *lock = calloc(1, sizeof *lock);

    if (lock) {
        list_init(&lock->link);
        lock->owner = *owner;
        lock->range = *range;
        lock->fid = fid;
        count_lock(table, lock, 1);
    }
    return lock;
}

/* Cuts 'range' out of 'lock'.  '*spare' is used if two pieces are left. */
static void
cut(struct lock_table *table, struct lock_file *file, struct lock *lock,
    const struct lock_range *range, struct lock **spare)
{
    bool left = lock->range.start < range->start;
    bool right = lock->range.end > range->end;

    if (left && right) {
        struct lock *piece = *spare;

        *spare = NULL;
        piece->range = lock->range;
        piece->fid = lock->fid;
        piece->range.start = range->end + 1;
        list_push_back(&file->locks, &piece->link);
        lock->range.end = range->start - 1;
    } else if (left) {
        lock->range.end = range->start - 1;
    } else if (right) {
        lock->range.start = range->end + 1;
    } else {
        free_lock(table, lock);
    }
}

/* Makes 'range' of 'owner' so; there is no conflict. */
static int
apply(struct lock_table *table, struct lock_file *file,
      const struct owner *owner, const struct lock_range *range,
      const void *fid)
{
    struct lock *lock, *next, *spare, *fresh = NULL;

    if (range->type != NINEP_LOCK_UNLCK &&
        (table->n_locks + 2 > MAX_LOCKS ||
         (owner->quota && owner->quota->n + 2 > MAX_LOCKS_OF_SESSION))) {
        return ENOLCK;
    }
    /* Both that could be needed, before anything changes. */
    spare = new_lock(table, owner, range, fid);
    if (range->type != NINEP_LOCK_UNLCK) {
        fresh = new_lock(table, owner, range, fid);
    }
    if (!spare || (range->type != NINEP_LOCK_UNLCK && !fresh)) {
        free_lock(table, spare);
        free_lock(table, fresh);
        return ENOLCK;
    }
    LIST_FOR_EACH_SAFE (lock, next, link, &file->locks) {
        if (same_owner(&lock->owner, owner) && overlaps(&lock->range, range)) {
            cut(table, file, lock, range, &spare);
        }
    }
    if (fresh) {
        list_push_back(&file->locks, &fresh->link);
    }
    free_lock(table, spare);
    return 0;
}

/* Whether 'file''s locks that stop 'range' of 'owner' belong, directly or by
 * waiting themselves, to 'target'. */
static bool
leads_to(struct lock_table *table, struct lock_file *file,
         const struct owner *owner, const struct lock_range *range,
         const struct owner *target, unsigned int *steps, int depth)
{
    struct lock *lock;

    LIST_FOR_EACH (lock, link, &file->locks) {
        struct lock_waiter *w;

        if (same_owner(&lock->owner, owner) ||
            !overlaps(&lock->range, range) ||
            (lock->range.type != NINEP_LOCK_WRLCK &&
             range->type != NINEP_LOCK_WRLCK)) {
            continue;
        }
        if (same_owner(&lock->owner, target)) {
            return true;
        }
        LIST_FOR_EACH (w, all_link, &table->waiters) {
            if (++*steps > MAX_DEADLOCK_STEPS || depth > 32) {
                return false;
            }
            if (same_owner(&w->owner, &lock->owner) &&
                leads_to(table, w->file, &w->owner, &w->range, target, steps,
                         depth + 1)) {
                return true;
            }
        }
    }
    return false;
}

/* Whether 'owner', who would wait on 'file', would wait for itself: one of
 * those in its way waits for a lock of 'owner'. */
static bool
would_deadlock(struct lock_table *table, struct lock_file *file,
               const struct owner *owner, const struct lock_range *range)
{
    unsigned int steps = 0;

    return leads_to(table, file, owner, range, owner, &steps, 0);
}

/* Grants what can be granted now on 'file', and frees it if nothing is left.
 * A callback may come back into this module, so the list is looked at anew
 * after each. */
static void
grant(struct lock_table *table, struct lock_file *file)
{
    bool progress = true;

    if (file->is_granting) {
        return;
    }
    file->is_granting = true;
    while (progress) {
        struct lock_waiter *w;

        progress = false;
        LIST_FOR_EACH (w, link, &file->waiters) {
            if (!find_conflict(file, &w->owner, &w->range)) {
                int error = apply(table, file, &w->owner, &w->range, w->fid);
                lock_cb *cb = w->cb;
                void *aux = w->aux;

                free_waiter(table, w);
                cb(error, aux);
                progress = true;
                break;
            }
        }
    }
    file->is_granting = false;
    put_file(file);
}

static int
park(struct lock_table *table, struct lock_file *file,
     const struct owner *owner, const struct lock_range *range,
     const void *fid, lock_cb *cb, void *aux, struct lock_waiter **ret_waiter)
{
    struct lock_waiter *w;

    if (would_deadlock(table, file, owner, range)) {
        return EDEADLK;
    }
    if (table->n_waiters >= MAX_WAITERS) {
        return ENOLCK;
    }
    w = calloc(1, sizeof *w);
    if (!w) {
        return ENOMEM;
    }
    w->file = file;
    w->owner = *owner;
    w->range = *range;
    w->fid = fid;
    w->cb = cb;
    w->aux = aux;
    list_push_back(&file->waiters, &w->link);
    list_push_back(&table->waiters, &w->all_link);
    table->n_waiters++;
    *ret_waiter = w;
    return EINPROGRESS;
}

int
lock_set(struct lock_table *table, const struct lock_key *key,
         const struct lock_owner *owner_, const struct lock_range *range,
         const void *fid, lock_cb *cb, void *aux,
         struct lock_waiter **ret_waiter)
{
    struct lock_file *file;
    struct owner owner;
    int error = copy_owner(&owner, owner_);

    if (error) {
        return error;
    }
    file = get_file(table, key);
    if (!file) {
        return ENOMEM;
    }
    if (!find_conflict(file, &owner, range)) {
        error = apply(table, file, &owner, range, fid);
    } else if (cb) {
        error = park(table, file, &owner, range, fid, cb, aux, ret_waiter);
    } else {
        error = EAGAIN;
    }
    if (error == EINPROGRESS) {
        return error;
    }
    /* Unlocking, or turning a write lock into a read lock, lets others in. */
    grant(table, file);
    return error;
}

void
lock_cancel(struct lock_table *table, struct lock_waiter *w)
{
    struct lock_file *file = w->file;

    free_waiter(table, w);
    put_file(file);
}

bool
lock_test(struct lock_table *table, const struct lock_key *key,
          const struct lock_owner *owner_, const struct lock_range *range,
          struct lock_range *ret_range, struct lock_owner *ret_owner)
{
    struct lock_file *file = find_file(table, key);
    struct owner owner;
    struct lock *lock;

    if (!file || copy_owner(&owner, owner_)) {
        return false;
    }
    lock = find_conflict(file, &owner, range);
    if (!lock) {
        return false;
    }
    *ret_range = lock->range;
    ret_owner->session = lock->owner.session;
    ret_owner->proc_id = lock->owner.proc_id;
    ret_owner->client_id.s = lock->owner.client;
    ret_owner->client_id.len = lock->owner.client_len;
    return true;
}

void
lock_release_fid(struct lock_table *table, const struct lock_key *key,
                 const void *fid)
{
    struct lock_file *file = find_file(table, key);
    struct lock *lock, *next;

    if (!file) {
        return;
    }
    LIST_FOR_EACH_SAFE (lock, next, link, &file->locks) {
        if (lock->fid == fid) {
            free_lock(table, lock);
        }
    }
    grant(table, file);
}

void
lock_release_session(struct lock_table *table, const void *session)
{
    struct lock_waiter *w, *next_waiter;

    LIST_FOR_EACH_SAFE (w, next_waiter, all_link, &table->waiters) {
        if (w->owner.session == session) {
            lock_cancel(table, w);
        }
    }
    for (size_t i = 0; i < N_BUCKETS; i++) {
        struct lock_file *file;
        bool again = true;

        /* Granting may free this and other files: from the start then. */
        while (again) {
            again = false;
            LIST_FOR_EACH (file, link, &table->buckets[i]) {
                struct lock *lock, *next;

                LIST_FOR_EACH_SAFE (lock, next, link, &file->locks) {
                    if (lock->owner.session == session) {
                        free_lock(table, lock);
                        again = true;
                    }
                }
                if (again) {
                    grant(table, file);
                    break;
                }
            }
        }
    }
}

unsigned int
lock_count(const struct lock_table *table)
{
    return table->n_locks;
}

unsigned int
lock_count_waiters(const struct lock_table *table)
{
    return table->n_waiters;
}
