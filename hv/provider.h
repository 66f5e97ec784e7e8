/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What an implementation of hv/hv.h provides: a table of functions with the
 * contracts that stand there.  Only hv/hv.c, hv/xen.c and hv/local.c see it.
 */
#ifndef HV_PROVIDER_H
#define HV_PROVIDER_H 1

#include "hv/hv.h"

/* Begins the implementation's own structure. */
struct hv {
    const struct hv_class *class;
};
struct hv_grant {
    const struct hv_class *class;
};
struct hv_pages {
    const struct hv_class *class;
};

/* The part that has to do with xenstore. */
struct hv_store_class {
    int (*domid)(struct hv *, uint16_t *);
    int (*xs_read)(struct hv *, hv_xs_txn, const char *, char **);
    int (*xs_write)(struct hv *, hv_xs_txn, const char *, const char *);
    int (*xs_mkdir)(struct hv *, hv_xs_txn, const char *);
    int (*xs_rm)(struct hv *, hv_xs_txn, const char *);
    int (*xs_directory)(struct hv *, hv_xs_txn, const char *, char ***,
                        size_t *);
    int (*xs_get_perms)(struct hv *, hv_xs_txn, const char *,
                        struct hv_xs_perm **, size_t *);
    int (*xs_set_perms)(struct hv *, hv_xs_txn, const char *,
                        const struct hv_xs_perm[], size_t);
    int (*xs_txn_start)(struct hv *, hv_xs_txn *);
    int (*xs_txn_end)(struct hv *, hv_xs_txn, bool commit);
    int (*xs_watch)(struct hv *, const char *, const char *);
    int (*xs_unwatch)(struct hv *, const char *, const char *);
    int (*xs_fd)(const struct hv *);
    int (*xs_next_event)(struct hv *, char **, char **);
    int (*domain_exists)(struct hv *, uint16_t, bool *);

    /* NULL where there is no such thing. */
    int (*fault)(struct hv *, uint16_t, enum hv_fault, unsigned, unsigned,
                 int);
    int (*domain_create)(struct hv *, uint16_t, const char *, const char *);
    int (*domain_destroy)(struct hv *, uint16_t);
    int (*counts)(struct hv *, struct hv_local_counts *);
};

struct hv_class {
    const char *name;
    /* 'arg' is what stands behind the colon of the spec, or "". */
    int (*open)(const char *arg, unsigned flags, struct hv **);
    int (*adopt)(const char *arg, int grant_fd, int evtchn_fd, struct hv **);
    void (*close)(struct hv *);
    int (*open_worker_fds)(struct hv *, uint16_t peer, int *, int *);

    int (*grant_prepare)(struct hv *, uint16_t domid, const uint32_t refs[],
                         size_t n, struct hv_grant **);
    int (*grant_location)(const struct hv_grant *, int *, uint64_t *);
    int (*grant_attach)(struct hv_grant *, void **);
    void (*grant_detach)(struct hv_grant *);
    void (*grant_release)(struct hv_grant *);

    int (*pages_alloc)(struct hv *, uint16_t domid, size_t n, bool writable,
                       uint32_t refs[], void **, struct hv_pages **);
    void (*pages_free)(struct hv_pages *);

    int (*evtchn_fd)(const struct hv *);
    int (*evtchn_bind_interdomain)(struct hv *, uint16_t, uint32_t,
                                   uint32_t *);
    int (*evtchn_alloc_unbound)(struct hv *, uint16_t, uint32_t *);
    void (*evtchn_unbind)(struct hv *, uint32_t);
    int (*evtchn_notify)(struct hv *, uint32_t);
    int (*evtchn_read)(struct hv *, uint32_t[], size_t, size_t *);
    int (*evtchn_unmask)(struct hv *, const uint32_t[], size_t);

    const struct hv_store_class *store;
};

extern const struct hv_class hv_xen_class;
extern const struct hv_class hv_local_class;
extern const struct hv_store_class hv_local_store_class;

#endif /* hv/provider.h */
