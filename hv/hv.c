/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Picks an implementation of hv/hv.h by name and passes calls on to it.
 * Comments on the functions stand in hv/hv.h.
 */
#include "hv/hv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hv/provider.h"
#include "lib/util.h"

enum { MAX_GRANT_PAGES = 4096 };

static const struct hv_class *const classes[] = {
    &hv_xen_class,
    &hv_local_class,
};

/* Finds the class that 'spec' names and stores what stands behind the colon
 * in '*ret_arg'. */
static const struct hv_class *
lookup(const char *spec, const char **ret_arg)
{
    const char *colon = strchr(spec, ':');
    size_t n = colon ? (size_t) (colon - spec) : strlen(spec);

    for (size_t i = 0; i < ARRAY_SIZE(classes); i++) {
        const char *name = classes[i]->name;

        if (strlen(name) == n && !memcmp(name, spec, n)) {
            *ret_arg = colon ? colon + 1 : "";
            return classes[i];
        }
    }
    return NULL;
}

int
hv_open(const char *spec, unsigned flags, struct hv **ret_hv)
{
    const char *arg;
    const struct hv_class *class = lookup(spec, &arg);

    return class ? class->open(arg, flags, ret_hv) : EINVAL;
}

int
hv_adopt(const char *spec, int grant_fd, int evtchn_fd, struct hv **ret_hv)
{
    const char *arg;
    const struct hv_class *class = lookup(spec, &arg);

    return class ? class->adopt(arg, grant_fd, evtchn_fd, ret_hv) : EINVAL;
}

void
hv_close(struct hv *hv)
{
    if (hv) {
        hv->class->close(hv);
    }
}

int
hv_open_worker_fds(struct hv *hv, uint16_t peer, int *ret_grant_fd,
                   int *ret_evtchn_fd)
{
    return hv->class->open_worker_fds(hv, peer, ret_grant_fd, ret_evtchn_fd);
}

const char *
hv_name(const struct hv *hv)
{
    return hv->class->name;
}

int
hv_grant_prepare(struct hv *hv, uint16_t domid, const uint32_t refs[],
                 size_t n, struct hv_grant **ret_grant)
{
    if (!n || n > MAX_GRANT_PAGES) {
        return EINVAL;
    }
    return hv->class->grant_prepare(hv, domid, refs, n, ret_grant);
}

int
hv_grant_location(const struct hv_grant *grant, int *ret_fd,
                  uint64_t *ret_offset)
{
    return grant->class->grant_location(grant, ret_fd, ret_offset);
}

int
hv_grant_attach(struct hv_grant *grant, void **ret_mem)
{
    return grant->class->grant_attach(grant, ret_mem);
}

void
hv_grant_detach(struct hv_grant *grant)
{
    grant->class->grant_detach(grant);
}

void
hv_grant_release(struct hv_grant *grant)
{
    if (grant) {
        grant->class->grant_detach(grant);
        grant->class->grant_release(grant);
    }
}

int
hv_grant_map(struct hv *hv, uint16_t domid, const uint32_t refs[], size_t n,
             struct hv_grant **ret_grant, void **ret_mem)
{
    struct hv_grant *grant;
    int error = hv_grant_prepare(hv, domid, refs, n, &grant);

    if (!error) {
        error = hv_grant_attach(grant, ret_mem);
        if (error) {
            hv_grant_release(grant);
        } else {
            *ret_grant = grant;
        }
    }
    return error;
}

int
hv_pages_alloc(struct hv *hv, uint16_t domid, size_t n, bool writable,
               uint32_t ret_refs[], void **ret_mem,
               struct hv_pages **ret_pages)
{
    if (!n || n > MAX_GRANT_PAGES) {
        return EINVAL;
    }
    return hv->class->pages_alloc(hv, domid, n, writable, ret_refs, ret_mem,
                                  ret_pages);
}

void
hv_pages_free(struct hv_pages *pages)
{
    if (pages) {
        pages->class->pages_free(pages);
    }
}

int
hv_evtchn_fd(const struct hv *hv)
{
    return hv->class->evtchn_fd(hv);
}

int
hv_evtchn_bind_interdomain(struct hv *hv, uint16_t domid, uint32_t remote_port,
                           uint32_t *ret_port)
{
    return hv->class->evtchn_bind_interdomain(hv, domid, remote_port,
                                              ret_port);
}

int
hv_evtchn_alloc_unbound(struct hv *hv, uint16_t domid, uint32_t *ret_port)
{
    return hv->class->evtchn_alloc_unbound(hv, domid, ret_port);
}

void
hv_evtchn_unbind(struct hv *hv, uint32_t port)
{
    hv->class->evtchn_unbind(hv, port);
}

int
hv_evtchn_notify(struct hv *hv, uint32_t port)
{
    return hv->class->evtchn_notify(hv, port);
}

int
hv_evtchn_read(struct hv *hv, uint32_t ports[], size_t max, size_t *ret_n)
{
    return hv->class->evtchn_read(hv, ports, max, ret_n);
}

int
hv_evtchn_unmask(struct hv *hv, const uint32_t ports[], size_t n)
{
    return n ? hv->class->evtchn_unmask(hv, ports, n) : 0;
}

int
hv_domid(struct hv *hv, uint16_t *ret_domid)
{
    return hv->class->store->domid(hv, ret_domid);
}

int
hv_xs_read(struct hv *hv, hv_xs_txn txn, const char *path, char **ret_value)
{
    return hv->class->store->xs_read(hv, txn, path, ret_value);
}

int
hv_xs_read_uint(struct hv *hv, hv_xs_txn txn, const char *path, uint64_t max,
                uint64_t *ret_value)
{
    char *value;
    int error = hv_xs_read(hv, txn, path, &value);

    if (!error) {
        error = hv_xs_parse_uint(value, max, ret_value);
        free(value);
    }
    return error;
}

int
hv_xs_parse_uint(const char *s, uint64_t max, uint64_t *ret_value)
{
    uint64_t value = 0;

    if (!*s || (s[0] == '0' && s[1])) {
        return EINVAL;
    }
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || value > (UINT64_MAX - 9) / 10) {
            return EINVAL;
        }
        value = value * 10 + (*s - '0');
    }
    if (value > max) {
        return EINVAL;
    }
    *ret_value = value;
    return 0;
}

int
hv_xs_write(struct hv *hv, hv_xs_txn txn, const char *path, const char *value)
{
    return hv->class->store->xs_write(hv, txn, path, value);
}

int
hv_xs_mkdir(struct hv *hv, hv_xs_txn txn, const char *path)
{
    return hv->class->store->xs_mkdir(hv, txn, path);
}

int
hv_xs_rm(struct hv *hv, hv_xs_txn txn, const char *path)
{
    return hv->class->store->xs_rm(hv, txn, path);
}

int
hv_xs_directory(struct hv *hv, hv_xs_txn txn, const char *path,
                char ***ret_names, size_t *ret_n)
{
    return hv->class->store->xs_directory(hv, txn, path, ret_names, ret_n);
}

void
hv_xs_names_free(char **names, size_t n)
{
    if (names) {
        for (size_t i = 0; i < n; i++) {
            free(names[i]);
        }
        free(names);
    }
}

int
hv_xs_get_perms(struct hv *hv, hv_xs_txn txn, const char *path,
                struct hv_xs_perm **ret_perms, size_t *ret_n)
{
    return hv->class->store->xs_get_perms(hv, txn, path, ret_perms, ret_n);
}

int
hv_xs_set_perms(struct hv *hv, hv_xs_txn txn, const char *path,
                const struct hv_xs_perm perms[], size_t n)
{
    return n ? hv->class->store->xs_set_perms(hv, txn, path, perms, n)
             : EINVAL;
}

int
hv_xs_txn_start(struct hv *hv, hv_xs_txn *ret_txn)
{
    return hv->class->store->xs_txn_start(hv, ret_txn);
}

int
hv_xs_txn_end(struct hv *hv, hv_xs_txn txn, bool commit)
{
    return hv->class->store->xs_txn_end(hv, txn, commit);
}

int
hv_xs_watch(struct hv *hv, const char *path, const char *token)
{
    return hv->class->store->xs_watch(hv, path, token);
}

int
hv_xs_unwatch(struct hv *hv, const char *path, const char *token)
{
    return hv->class->store->xs_unwatch(hv, path, token);
}

int
hv_xs_fd(const struct hv *hv)
{
    return hv->class->store->xs_fd(hv);
}

int
hv_xs_next_event(struct hv *hv, char **ret_path, char **ret_token)
{
    return hv->class->store->xs_next_event(hv, ret_path, ret_token);
}

int
hv_domain_exists(struct hv *hv, uint16_t domid, bool *ret_exists)
{
    return hv->class->store->domain_exists(hv, domid, ret_exists);
}

int
hv_local_fault(struct hv *hv, uint16_t domid, enum hv_fault fault,
               unsigned nth, unsigned count, int error)
{
    return (hv->class->store->fault
                ? hv->class->store->fault(hv, domid, fault, nth, count, error)
                : EOPNOTSUPP);
}

int
hv_local_domain_create(struct hv *hv, uint16_t domid, const char *name,
                       const char *uuid)
{
    return (hv->class->store->domain_create
                ? hv->class->store->domain_create(hv, domid, name, uuid)
                : EOPNOTSUPP);
}

int
hv_local_domain_destroy(struct hv *hv, uint16_t domid)
{
    return (hv->class->store->domain_destroy
                ? hv->class->store->domain_destroy(hv, domid)
                : EOPNOTSUPP);
}

int
hv_local_counts(struct hv *hv, struct hv_local_counts *ret_counts)
{
    return (hv->class->store->counts ? hv->class->store->counts(hv, ret_counts)
                                     : EOPNOTSUPP);
}
