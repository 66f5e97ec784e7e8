/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fids and their tables (see fid.h). */

#include "vafs-server/ninep/fid.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "lib/clock.h"
#include "vafs-server/branch/file.h"
#include "vafs-server/view/view.h"

#define MIN_BUCKETS 16

/* Multiplied by a secret odd number, so that a guest cannot pick numbers that
 * all fall into one bucket. */
static struct list *
bucket_of(const struct fid_table *table, uint32_t number)
{
    return &table->buckets[(number * table->secret >> 40) &
                           (table->n_buckets - 1)];
}

static int
set_buckets(struct fid_table *table, size_t n)
{
    struct fid_table old = *table;
    struct list *buckets = malloc(n * sizeof *buckets);

    if (!buckets) {
        return ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        list_init(&buckets[i]);
    }
    table->buckets = buckets;
    table->n_buckets = n;
    for (size_t i = 0; i < old.n_buckets; i++) {
        while (!list_is_empty(&old.buckets[i])) {
            struct fid *fid = CONTAINER_OF(list_pop_front(&old.buckets[i]),
                                           struct fid, link);

            list_push_back(bucket_of(table, fid->number), &fid->link);
        }
    }
    free(old.buckets);
    return 0;
}

int
fid_table_init(struct fid_table *table)
{
    memset(table, 0, sizeof *table);
    if (getrandom(&table->secret, sizeof table->secret, GRND_NONBLOCK) < 0) {
        table->secret = clock_mono_ns() * UINT64_C(0x9e3779b97f4a7c15);
    }
    table->secret |= 1;
    return set_buckets(table, MIN_BUCKETS);
}

void
fid_table_destroy(struct fid_table *table)
{
    for (size_t i = 0; i < table->n_buckets; i++) {
        while (!list_is_empty(&table->buckets[i])) {
            fid_remove(table, CONTAINER_OF(list_front(&table->buckets[i]),
                                           struct fid, link));
        }
    }
    free(table->buckets);
    table->buckets = NULL;
    table->n_buckets = 0;
}

struct fid *
fid_find(const struct fid_table *table, uint32_t number)
{
    struct fid *fid;

    LIST_FOR_EACH (fid, link, bucket_of(table, number)) {
        if (fid->number == number) {
            return fid;
        }
    }
    return NULL;
}

int
fid_new(struct fid_table *table, uint32_t number, struct file *file,
        struct mount *mount, uint32_t uid, struct fid **ret)
{
    struct fid *fid;

    if (number == NINEP_NOFID || fid_find(table, number)) {
        return EBADF;
    }
    if (table->n >= FID_MAX) {
        return EMFILE;
    }
    if (table->n >= 2 * table->n_buckets &&
        set_buckets(table, 2 * table->n_buckets)) {
        /* Then the chains get longer. */
    }
    fid = calloc(1, sizeof *fid);
    if (!fid) {
        return ENOMEM;
    }
    fid->number = number;
    fid->n_refs = 1;
    fid->uid = uid;
    fid->file = file_ref(file);
    fid->mount = mount_ref(mount);
    list_push_front(bucket_of(table, number), &fid->link);
    table->n++;
    *ret = fid;
    return 0;
}

void
fid_remove(struct fid_table *table, struct fid *fid)
{
    list_remove(&fid->link);
    table->n--;
    table->xattr_bytes -= fid->xattr_size;
    fid_unref(fid);
}

struct fid *
fid_ref(struct fid *fid)
{
    __atomic_fetch_add(&fid->n_refs, 1, __ATOMIC_RELAXED);
    return fid;
}

void
fid_unref(struct fid *fid)
{
    if (fid && __atomic_sub_fetch(&fid->n_refs, 1, __ATOMIC_ACQ_REL) == 0) {
        file_unref(fid->file);
        mount_unref(fid->mount);
        free(fid->xattr);
        free(fid->xattr_name);
        free(fid);
    }
}

struct ninep_qid
fid_make_qid(const struct mount *mount, const struct file *file)
{
    uint32_t type = file_type(file);

    return (struct ninep_qid){
        .path = mount_qid_path(mount, file_ino(file)),
        /* Always 0: the cached modes of the Linux client take another version
         * for another inode, so that a guest's own write would give it two
         * page caches of one file. */
        .version = 0,
        .type = S_ISDIR(type)   ? NINEP_QTDIR
                : S_ISLNK(type) ? NINEP_QTSYMLINK
                                : NINEP_QTFILE,
    };
}
