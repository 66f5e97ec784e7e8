/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The xenstore part of hv/hv.h without Xen: asks the broker (hv/broker.c).
 */
#include "hv/local.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int
local_domid(struct hv *hv, uint16_t *ret_domid)
{
    *ret_domid = local_hv_cast(hv)->domid;
    return 0;
}

static int
xs_call(struct local_hv *hv, enum bp_op op, hv_xs_txn txn, const char *path,
        const char *value)
{
    local_prepare(hv, op, 0, 0, 0);
    hv->out.rq.txn = txn;
    return local_call(hv, hv->calls, path, value, NULL);
}

static int
local_xs_read(struct hv *hv_, hv_xs_txn txn, const char *path,
              char **ret_value)
{
    struct local_hv *hv = local_hv_cast(hv_);
    int error = xs_call(hv, BP_READ, txn, path, NULL);

    if (!error) {
        char *value = strdup(hv->in.reply.data);

        if (!value) {
            return ENOMEM;
        }
        *ret_value = value;
    }
    return error;
}

static int
local_xs_write(struct hv *hv, hv_xs_txn txn, const char *path,
               const char *value)
{
    return xs_call(local_hv_cast(hv), BP_WRITE, txn, path, value);
}

static int
local_xs_mkdir(struct hv *hv, hv_xs_txn txn, const char *path)
{
    return xs_call(local_hv_cast(hv), BP_MKDIR, txn, path, NULL);
}

static int
local_xs_rm(struct hv *hv, hv_xs_txn txn, const char *path)
{
    return xs_call(local_hv_cast(hv), BP_RM, txn, path, NULL);
}

static int
local_xs_directory(struct hv *hv_, hv_xs_txn txn, const char *path,
                   char ***ret_names, size_t *ret_n)
{
    struct local_hv *hv = local_hv_cast(hv_);
    int error = xs_call(hv, BP_DIRECTORY, txn, path, NULL);
    const struct bp_reply *reply = &hv->in.reply;
    size_t n = 0;
    char **names;

    if (error) {
        return error;
    }
    for (uint32_t i = 0; i < reply->size; i++) {
        n += !reply->data[i];
    }
    names = calloc(n ? n : 1, sizeof *names);
    for (size_t i = 0, ofs = 0; names && i < n; i++) {
        names[i] = strdup(reply->data + ofs);
        if (!names[i]) {
            hv_xs_names_free(names, i);
            names = NULL;
        }
        ofs += strlen(reply->data + ofs) + 1;
    }
    if (!names) {
        return ENOMEM;
    }
    *ret_names = names;
    *ret_n = n;
    return 0;
}

static int
local_xs_get_perms(struct hv *hv_, hv_xs_txn txn, const char *path,
                   struct hv_xs_perm **ret_perms, size_t *ret_n)
{
    struct local_hv *hv = local_hv_cast(hv_);
    int error = xs_call(hv, BP_GET_PERMS, txn, path, NULL);
    struct hv_xs_perm *perms;

    if (error) {
        return error;
    }
    perms = malloc(hv->in.reply.size ? hv->in.reply.size : 1);
    if (!perms) {
        return ENOMEM;
    }
    memcpy(perms, hv->in.reply.data, hv->in.reply.size);
    *ret_perms = perms;
    *ret_n = hv->in.reply.size / sizeof *perms;
    return 0;
}

static int
local_xs_set_perms(struct hv *hv_, hv_xs_txn txn, const char *path,
                   const struct hv_xs_perm perms[], size_t n)
{
    struct local_hv *hv = local_hv_cast(hv_);
    char padded[HV_XS_PATH_MAX + 8] = "";
    size_t size = strlen(path) + 1;

    /* The value follows the path and wants to be aligned. */
    if (size > HV_XS_PATH_MAX) {
        return EINVAL;
    }
    strcpy(padded, path);
    local_prepare(hv, BP_SET_PERMS, 0, 0, 0);
    hv->out.rq.txn = txn;
    return local_call_bytes(hv, hv->calls, padded, ROUND_UP(size, 4), perms,
                            n * sizeof *perms, NULL);
}

static int
local_xs_txn_start(struct hv *hv_, hv_xs_txn *ret_txn)
{
    struct local_hv *hv = local_hv_cast(hv_);
    int error = xs_call(hv, BP_TXN_START, HV_XS_NONE, NULL, NULL);

    if (!error) {
        *ret_txn = hv->in.reply.a;
    }
    return error;
}

static int
local_xs_txn_end(struct hv *hv_, hv_xs_txn txn, bool commit)
{
    struct local_hv *hv = local_hv_cast(hv_);

    local_prepare(hv, BP_TXN_END, commit, 0, 0);
    hv->out.rq.txn = txn;
    return local_call(hv, hv->calls, NULL, NULL, NULL);
}

static int
local_xs_watch(struct hv *hv, const char *path, const char *token)
{
    return xs_call(local_hv_cast(hv), BP_WATCH, HV_XS_NONE, path, token);
}

static int
local_xs_unwatch(struct hv *hv, const char *path, const char *token)
{
    return xs_call(local_hv_cast(hv), BP_UNWATCH, HV_XS_NONE, path, token);
}

static int
local_xs_fd(const struct hv *hv)
{
    return local_hv_cast(hv)->watch;
}

static int
local_xs_next_event(struct hv *hv_, char **ret_path, char **ret_token)
{
    struct local_hv *hv = local_hv_cast(hv_);
    ssize_t n =
        recv(hv->watch, hv->in.bytes, sizeof hv->in.bytes - 1, MSG_DONTWAIT);
    char *path, *token;

    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return EAGAIN;
    }
    if (n <= 0) {
        return ECONNRESET;
    }
    hv->in.bytes[n] = '\0';
    path = strdup(hv->in.bytes);
    token = strdup(hv->in.bytes + MIN(strlen(hv->in.bytes) + 1, (size_t) n));
    if (!path || !token) {
        free(path);
        free(token);
        return ENOMEM;
    }
    *ret_path = path;
    *ret_token = token;
    return 0;
}

static int
local_domain_exists(struct hv *hv_, uint16_t domid, bool *ret_exists)
{
    struct local_hv *hv = local_hv_cast(hv_);
    int error;

    local_prepare(hv, BP_DOMAIN_EXISTS, domid, 0, 0);
    error = local_call(hv, hv->calls, NULL, NULL, NULL);
    if (!error) {
        *ret_exists = hv->in.reply.a;
    }
    return error;
}

/* ## Tests ## */

static int
local_fault(struct hv *hv_, uint16_t domid, enum hv_fault fault, unsigned nth,
            unsigned count, int error)
{
    struct local_hv *hv = local_hv_cast(hv_);

    local_prepare(hv, BP_FAULT, domid | (uint32_t) fault << 16, nth, count);
    hv->out.rq.d = error;
    return local_call(hv, hv->calls, NULL, NULL, NULL);
}

static int
local_domain_create(struct hv *hv_, uint16_t domid, const char *name,
                    const char *uuid)
{
    struct local_hv *hv = local_hv_cast(hv_);

    local_prepare(hv, BP_DOMAIN_CREATE, domid, 0, 0);
    return local_call(hv, hv->calls, name ? name : "", uuid ? uuid : "", NULL);
}

static int
local_domain_destroy(struct hv *hv_, uint16_t domid)
{
    struct local_hv *hv = local_hv_cast(hv_);

    local_prepare(hv, BP_DOMAIN_DESTROY, domid, 0, 0);
    return local_call(hv, hv->calls, NULL, NULL, NULL);
}

static int
local_counts(struct hv *hv_, struct hv_local_counts *ret_counts)
{
    struct local_hv *hv = local_hv_cast(hv_);
    int error;

    local_prepare(hv, BP_COUNTS, 0, 0, 0);
    error = local_call(hv, hv->calls, NULL, NULL, NULL);
    if (!error) {
        memcpy(ret_counts, hv->in.reply.data, sizeof *ret_counts);
    }
    return error;
}

const struct hv_store_class hv_local_store_class = {
    .domid = local_domid,
    .xs_read = local_xs_read,
    .xs_write = local_xs_write,
    .xs_mkdir = local_xs_mkdir,
    .xs_rm = local_xs_rm,
    .xs_directory = local_xs_directory,
    .xs_get_perms = local_xs_get_perms,
    .xs_set_perms = local_xs_set_perms,
    .xs_txn_start = local_xs_txn_start,
    .xs_txn_end = local_xs_txn_end,
    .xs_watch = local_xs_watch,
    .xs_unwatch = local_xs_unwatch,
    .xs_fd = local_xs_fd,
    .xs_next_event = local_xs_next_event,
    .domain_exists = local_domain_exists,
    .fault = local_fault,
    .domain_create = local_domain_create,
    .domain_destroy = local_domain_destroy,
    .counts = local_counts,
};
