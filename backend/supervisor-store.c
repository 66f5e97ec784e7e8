/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The supervisor's reading and writing of xenstore.  Node names and their
 * values come from xenstore-schema/.
 */
#include "backend/supervisor.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/coverage.h"
#include "lib/vlog.h"
#include "xenstore-names.h"

COVERAGE_DEFINE(sup_xenstore_conflict);

static const struct device_type types[] = {
    {XS_PVCALLS_BACK_TYPE, XS_PVCALLS_FRONT_TYPE, WP_KIND_PVCALLS},
    {XS_9PFS_BACK_TYPE, XS_9PFS_FRONT_TYPE, WP_KIND_9PFS},
    {XS_9PFS_BACK_TYPE_2, XS_9PFS_FRONT_TYPE, WP_KIND_9PFS},
};

/* Room for any path that is put together here: types and numbers only. */
typedef char path_buf[160];

/* The transport's version, of both protocols. */
#define VERSION "1"

/* Commands of PV Calls v1 that are served: all. */
#define FUNCTION_CALLS "1"

/* Event channel ports are numbers below 2^17 (FIFO ABI). */
#define MAX_PORT ((1 << 17) - 1)

static bool
type_is_served(const struct supervisor_options *options,
               const struct device_type *type)
{
    return (type == &types[0]   ? options->serve_pvcalls
            : type == &types[1] ? options->serve_9pfs
                                : options->serve_xen_9pfs);
}

static void
back_path(const struct device *dev, const char *node, path_buf path)
{
    snprintf(path, sizeof(path_buf), XS_BACK_DIR_FMT "%s%s",
             dev->guest->sup->domid, dev->type->back, dev->guest->domid,
             dev->devid, *node ? "/" : "", node);
}

static void
error_path(const struct device *dev, path_buf path)
{
    snprintf(path, sizeof(path_buf), XS_BACK_ERROR_FMT, dev->guest->sup->domid,
             dev->type->back, dev->guest->domid, dev->devid);
}

static int
read_back(struct device *dev, const char *node, char **ret_value)
{
    path_buf path;

    back_path(dev, node, path);
    return hv_xs_read(dev->guest->sup->hv, HV_XS_NONE, path, ret_value);
}

static int
read_back_uint(struct device *dev, const char *node, uint64_t max,
               uint64_t *ret_value)
{
    path_buf path;

    back_path(dev, node, path);
    return hv_xs_read_uint(dev->guest->sup->hv, HV_XS_NONE, path, max,
                           ret_value);
}

static int write_back(struct device *dev, hv_xs_txn txn, const char *node,
                      const char *fmt, ...) PRINTF_FORMAT(4, 5);

static int
write_back(struct device *dev, hv_xs_txn txn, const char *node,
           const char *fmt, ...)
{
    path_buf path;
    char value[32];
    va_list args;

    va_start(args, fmt);
    vsnprintf(value, sizeof value, fmt, args);
    va_end(args);
    back_path(dev, node, path);
    return hv_xs_write(dev->guest->sup->hv, txn, path, value);
}

/* Reads 'node' of the frontend's directory. */
static int
read_front(struct device *dev, const char *node, char **ret_value)
{
    path_buf path;

    snprintf(path, sizeof path, "%s/%s", dev->front_path, node);
    return hv_xs_read(dev->guest->sup->hv, HV_XS_NONE, path, ret_value);
}

/* ## Watches and scans ## */

int
store_watch(struct supervisor *sup)
{
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        if (type_is_served(sup->options, &types[i])) {
            path_buf path;
            int error;

            snprintf(path, sizeof path, "backend/%s", types[i].back);
            error = hv_xs_watch(sup->hv, path, "back");
            if (error) {
                return error;
            }
        }
    }
    if (hv_xs_watch(sup->hv, "@releaseDomain", "release")) {
        /* An unprivileged domain may not; it notices that a guest has gone
         * when the toolstack removes the frontend's directory. */
        vlog_dbg("no @releaseDomain");
    }
    return 0;
}

/* Watches the state of the frontend of 'dev', whose path is known now. */
static void
watch_front(struct device *dev)
{
    char token[HV_XS_TOKEN_MAX];
    path_buf path;
    int error;

    snprintf(path, sizeof path, "%s/%s", dev->front_path,
             XS_PVCALLS_FRONT_STATE);
    snprintf(token, sizeof token, "f %u %u %u", dev->type->kind,
             dev->guest->domid, dev->devid);
    error = hv_xs_watch(dev->guest->sup->hv, path, token);
    if (error) {
        device_set_error(dev, "cannot watch frontend: %s", strerror(error));
    } else {
        dev->is_watched = true;
    }
}

void
store_unwatch(struct device *dev)
{
    if (dev->is_watched) {
        char token[HV_XS_TOKEN_MAX];
        path_buf path;

        snprintf(path, sizeof path, "%s/%s", dev->front_path,
                 XS_PVCALLS_FRONT_STATE);
        snprintf(token, sizeof token, "f %u %u %u", dev->type->kind,
                 dev->guest->domid, dev->devid);
        hv_xs_unwatch(dev->guest->sup->hv, path, token);
        dev->is_watched = false;
    }
}

static bool
name_to_number(const char *name, uint64_t max, uint64_t *ret_number)
{
    return !hv_xs_parse_uint(name, max, ret_number);
}

static void
scan_guest(struct supervisor *sup, const char *top,
           const struct device_type *type, uint16_t domid, store_scan_cb *cb)
{
    char **names;
    path_buf path;
    size_t n;

    snprintf(path, sizeof path, "%s/%s/%u", top, type->back, domid);
    if (hv_xs_directory(sup->hv, HV_XS_NONE, path, &names, &n)) {
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t devid;

        if (name_to_number(names[i], UINT32_MAX, &devid)) {
            cb(sup, type, domid, devid);
        }
    }
    hv_xs_names_free(names, n);
}

/* Calls 'cb' for each TYPE/DOMID/DEVID below 'top' whose type is served. */
static void
scan_below(struct supervisor *sup, const char *top, store_scan_cb *cb)
{
    for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
        char **names;
        path_buf path;
        size_t n;

        if (!type_is_served(sup->options, &types[i])) {
            continue;
        }
        snprintf(path, sizeof path, "%s/%s", top, types[i].back);
        if (hv_xs_directory(sup->hv, HV_XS_NONE, path, &names, &n)) {
            continue;
        }
        for (size_t j = 0; j < n; j++) {
            uint64_t domid;

            if (name_to_number(names[j], HV_DOMID_INVALID - 1, &domid)) {
                scan_guest(sup, top, &types[i], domid, cb);
            }
        }
        hv_xs_names_free(names, n);
    }
}

void
store_scan(struct supervisor *sup, store_scan_cb *cb)
{
    scan_below(sup, "backend", cb);
}

void
store_announce(struct supervisor *sup)
{
    int error;

    if (!sup->options->serve_xen_9pfs) {
        return;
    }
    error = hv_xs_write(sup->hv, HV_XS_NONE, XS_LIBXL_XEN_9PFS_STATE,
                        XS_LIBXL_XEN_9PFS_STATE_VALUE);
    if (error) {
        vlog_warn("cannot write %s (%s): libxl may start a xen-9pfsd of its "
                  "own; write \"%s\" there from domain 0",
                  XS_LIBXL_XEN_9PFS_STATE, strerror(error),
                  XS_LIBXL_XEN_9PFS_STATE_VALUE);
    }
}

/* ## Facts ## */

static enum xenbus_state
to_state(uint64_t value)
{
    return value <= XENBUS_CLOSED ? value : XENBUS_UNKNOWN;
}

/* Learns where the frontend is.  The node was written by the toolstack, but
 * a path outside of the guest's own directory is refused all the same. */
static bool
find_front(struct device *dev)
{
    uint64_t domid;
    path_buf expected;
    char *path;

    if (dev->front_path) {
        return true;
    }
    if (read_back_uint(dev, XS_PVCALLS_BACK_FRONTEND_ID, HV_DOMID_INVALID - 1,
                       &domid) ||
        read_back(dev, XS_PVCALLS_BACK_FRONTEND, &path)) {
        return false;
    }
    snprintf(expected, sizeof expected, XS_FRONT_DIR_FMT, dev->guest->domid,
             dev->type->front, dev->devid);
    if (domid != dev->guest->domid || strcmp(path, expected)) {
        device_set_error(dev, "node frontend is not %s", expected);
        free(path);
        return false;
    }
    dev->front_path = path;
    watch_front(dev);
    return true;
}

void
store_gather(struct device *dev)
{
    struct xenbus_facts *f = &dev->facts;
    uint64_t number;
    path_buf path;
    char *value;
    int error;

    back_path(dev, "", path);
    error = hv_xs_read(dev->guest->sup->hv, HV_XS_NONE, path, &value);
    f->back_exists = !error;
    if (error) {
        f->online = f->is_complete = f->front_exists = false;
        f->back = f->front = XENBUS_UNKNOWN;
        return;
    }
    free(value);

    error = read_back_uint(dev, XS_PVCALLS_BACK_ONLINE, UINT32_MAX, &number);
    f->is_complete = find_front(dev);
    f->online = error ? !f->is_complete : number != 0;
    error = read_back_uint(dev, XS_PVCALLS_BACK_STATE, UINT32_MAX, &number);
    f->back = error ? XENBUS_UNKNOWN : to_state(number);

    /* EACCES is what a domain sees of a directory that has gone and whose
     * parent it may not read. */
    f->front = XENBUS_UNKNOWN;
    f->front_exists = false;
    if (f->is_complete) {
        error = read_front(dev, XS_PVCALLS_FRONT_STATE, &value);
        f->front_exists = error != ENOENT && error != EACCES;
        if (!error) {
            if (!hv_xs_parse_uint(value, UINT32_MAX, &number)) {
                f->front = to_state(number);
            }
            free(value);
        }
    }
}

/* ## Geometry ## */

static int
read_front_uint(struct device *dev, const char *node, uint64_t min,
                uint64_t max, uint32_t *ret_value, char *why, size_t size)
{
    uint64_t value = 0;
    char *text;
    int error = read_front(dev, node, &text);

    if (error) {
        snprintf(why, size, "cannot read node %s: %s", node, strerror(error));
        return EINVAL;
    }
    error = hv_xs_parse_uint(text, max, &value);
    free(text);
    if (error || value < min) {
        snprintf(why, size,
                 "node %s would have to be a number from %llu to %llu", node,
                 (unsigned long long) min, (unsigned long long) max);
        return EINVAL;
    }
    *ret_value = value;
    return 0;
}

static int
check_version(struct device *dev, char *why, size_t size)
{
    char *version;
    int error = read_front(dev, XS_PVCALLS_FRONT_VERSION, &version);

    if (error) {
        snprintf(why, size, "cannot read node version: %s", strerror(error));
        return EINVAL;
    }
    error = strcmp(version, VERSION) ? EINVAL : 0;
    free(version);
    if (error) {
        snprintf(why, size, "node version would have to be " VERSION);
    }
    return error;
}

/* True if the frontend has set the optional flag 'node'. */
static bool
read_front_flag(struct device *dev, const char *node)
{
    char *value;
    bool is_set;

    if (read_front(dev, node, &value)) {
        return false;
    }
    is_set = !strcmp(value, "1");
    free(value);
    return is_set;
}

static int
read_pvcalls(struct device *dev, struct wp_pvcalls *pvcalls, char *why,
             size_t size)
{
    int error = read_front_uint(dev, XS_PVCALLS_FRONT_RING_REF, 0, UINT32_MAX,
                                &pvcalls->ring_ref, why, size);

    error = error ? error
                  : read_front_uint(dev, XS_PVCALLS_FRONT_PORT, 1, MAX_PORT,
                                    &pvcalls->port, why, size);
    pvcalls->max_page_order = dev->guest->sup->options->pvcalls_page_order;
    if (read_front_flag(dev, XS_PVCALLS_FRONT_FEATURE_QUIET)) {
        pvcalls->flags |= WP_PVCALLS_QUIET;
    }
    if (read_front_flag(dev, XS_PVCALLS_FRONT_FEATURE_HALF_CLOSE)) {
        pvcalls->flags |= WP_PVCALLS_HALF_CLOSE;
    }
    return error;
}

static int
read_9pfs(struct device *dev, struct wp_9pfs *p9, char *why, size_t size)
{
    int error = read_front_uint(dev, XS_9PFS_FRONT_NUM_RINGS, 1, WP_MAX_RINGS,
                                &p9->n_rings, why, size);

    p9->max_ring_page_order = dev->guest->sup->options->p9_ring_order;
    for (uint32_t i = 0; !error && i < p9->n_rings; i++) {
        char node[32];

        snprintf(node, sizeof node, XS_9PFS_FRONT_RING_REF_FMT, i);
        error = read_front_uint(dev, node, 0, UINT32_MAX, &p9->ring_ref[i],
                                why, size);
        if (!error) {
            snprintf(node, sizeof node, XS_9PFS_FRONT_EVENT_CHANNEL_FMT, i);
            error = read_front_uint(dev, node, 1, MAX_PORT, &p9->port[i], why,
                                    size);
        }
    }
    return error;
}

int
store_read_geometry(struct device *dev, union wp_geometry *ret_geometry,
                    char *why, size_t size)
{
    union wp_geometry geometry;
    int error = check_version(dev, why, size);

    memset(&geometry, 0, sizeof geometry);
    if (!error) {
        error = (dev->type->kind == WP_KIND_PVCALLS
                     ? read_pvcalls(dev, &geometry.pvcalls, why, size)
                     : read_9pfs(dev, &geometry.p9, why, size));
    }
    if (!error) {
        *ret_geometry = geometry;
    }
    return error;
}

int
store_read_path(struct device *dev, char **ret_path)
{
    return read_back(dev, XS_9PFS_BACK_PATH, ret_path);
}

/* ## Writing ## */

static int
write_features(struct device *dev, hv_xs_txn txn)
{
    const struct supervisor_options *options = dev->guest->sup->options;
    int error;

    /* Both kinds call it so. */
    error = write_back(dev, txn, XS_PVCALLS_BACK_VERSIONS, VERSION);
    if (error) {
        return error;
    }
    if (dev->type->kind == WP_KIND_PVCALLS) {
        error = write_back(dev, txn, XS_PVCALLS_BACK_MAX_PAGE_ORDER, "%u",
                           options->pvcalls_page_order);
        error = error ? error
                      : write_back(dev, txn, XS_PVCALLS_BACK_FUNCTION_CALLS,
                                   FUNCTION_CALLS);
        error = error
                    ? error
                    : write_back(dev, txn, XS_PVCALLS_BACK_FEATURE_QUIET, "1");
        error = error ? error
                      : write_back(dev, txn,
                                   XS_PVCALLS_BACK_FEATURE_HALF_CLOSE, "1");
    } else {
        error =
            write_back(dev, txn, XS_9PFS_BACK_MAX_RINGS, "%d", WP_MAX_RINGS);
        error = error ? error
                      : write_back(dev, txn, XS_9PFS_BACK_MAX_RING_PAGE_ORDER,
                                   "%u", options->p9_ring_order);
    }
    return error;
}

/* Writes to the directory of 'dev' by 'cb' in a transaction that fails if the
 * directory is no more, so that a device that the toolstack has just removed
 * does not come back as a ruin. */
static int
in_transaction(struct device *dev,
               int (*cb)(struct device *, hv_xs_txn, unsigned arg),
               unsigned arg)
{
    struct hv *hv = dev->guest->sup->hv;
    int error = EAGAIN;

    for (int i = 0; i < 20 && error == EAGAIN; i++) {
        hv_xs_txn txn;
        path_buf path;
        char *value;

        error = hv_xs_txn_start(hv, &txn);
        if (error) {
            return error;
        }
        back_path(dev, "", path);
        error = hv_xs_read(hv, txn, path, &value);
        if (error) {
            if (hv_xs_txn_end(hv, txn, false)) {
                /* Dropped anyhow. */
            }
            /* Nothing to be written any more; the next facts show it. */
            return error == ENOENT || error == EACCES ? 0 : error;
        }
        free(value);
        error = cb(dev, txn, arg);
        if (error) {
            if (hv_xs_txn_end(hv, txn, false)) {
                /* The first error is the one to report. */
            }
        } else {
            error = hv_xs_txn_end(hv, txn, true);
            if (error == EAGAIN) {
                COVERAGE_INC(sup_xenstore_conflict);
            }
        }
    }
    return error;
}

static int
write_publish(struct device *dev, hv_xs_txn txn, unsigned arg UNUSED)
{
    int error = write_features(dev, txn);

    return error ? error
                 : write_back(dev, txn, XS_PVCALLS_BACK_STATE, "%d",
                              XENBUS_INIT_WAIT);
}

int
store_publish(struct device *dev)
{
    return in_transaction(dev, write_publish, 0);
}

static int
write_state(struct device *dev, hv_xs_txn txn, unsigned state)
{
    return write_back(dev, txn, XS_PVCALLS_BACK_STATE, "%u", state);
}

int
store_set_state(struct device *dev, enum xenbus_state state)
{
    return in_transaction(dev, write_state, state);
}

/* Removes directory 'path' if nothing is in it. */
static void
prune(struct hv *hv, const char *path)
{
    char **names;
    size_t n;

    if (!hv_xs_directory(hv, HV_XS_NONE, path, &names, &n)) {
        hv_xs_names_free(names, n);
        if (!n && hv_xs_rm(hv, HV_XS_NONE, path)) {
            /* Left as an empty directory, which does no harm. */
        }
    }
}

int
store_delete(struct device *dev)
{
    struct supervisor *sup = dev->guest->sup;
    path_buf path;
    int error;

    store_clear_error(dev);
    back_path(dev, "", path);
    error = hv_xs_rm(sup->hv, HV_XS_NONE, path);
    if (error && error != ENOENT) {
        return error;
    }
    *strrchr(path, '/') = '\0';
    prune(sup->hv, path);
    return 0;
}

void
store_set_error(struct device *dev)
{
    path_buf path;

    error_path(dev, path);
    if (hv_xs_write(dev->guest->sup->hv, HV_XS_NONE, path, dev->error)) {
        vlog_dbg("cannot write %s", path);
    }
}

/* Removes the directory of the error node 'path' and, if nothing else is in
 * it, that of the guest: error/backend/TYPE/DOMID/DEVID/error. */
static void
remove_error(struct hv *hv, path_buf path)
{
    int error;

    *strrchr(path, '/') = '\0';
    error = hv_xs_rm(hv, HV_XS_NONE, path);
    if (!error) {
        *strrchr(path, '/') = '\0';
        prune(hv, path);
    } else if (error != ENOENT) {
        vlog_dbg("cannot remove %s: %s", path, strerror(error));
    }
}

/* Also looks for a node of which this process does not know: an earlier
 * supervisor may have written it. */
void
store_clear_error(struct device *dev)
{
    path_buf path;

    dev->error[0] = '\0';
    error_path(dev, path);
    remove_error(dev->guest->sup->hv, path);
}

/* Removes the error node of a device that has gone while no supervisor ran. */
static void
check_error(struct supervisor *sup, const struct device_type *type,
            uint16_t domid, uint32_t devid)
{
    path_buf path;
    char *value;

    snprintf(path, sizeof path, XS_BACK_DIR_FMT, sup->domid, type->back, domid,
             devid);
    if (!hv_xs_read(sup->hv, HV_XS_NONE, path, &value)) {
        free(value);
        return;
    }
    snprintf(path, sizeof path, XS_BACK_ERROR_FMT, sup->domid, type->back,
             domid, devid);
    remove_error(sup->hv, path);
}

void
store_clean_errors(struct supervisor *sup)
{
    scan_below(sup, "error/backend", check_error);
}

/* ## Identity ## */

static bool
parse_uuid(const char *s, uint8_t uuid[16])
{
    unsigned n = 0;

    for (; *s && n < 32; s++) {
        const char *digits = "0123456789abcdef", *digit;
        char c = *s >= 'A' && *s <= 'F' ? *s - 'A' + 'a' : *s;

        if (c == '-') {
            continue;
        }
        digit = strchr(digits, c);
        if (!digit) {
            return false;
        }
        uuid[n / 2] = uuid[n / 2] << 4 | (digit - digits);
        n++;
    }
    return n == 32 && !*s;
}

void
store_identify(struct guest *guest)
{
    struct hv *hv = guest->sup->hv;
    path_buf path;
    char *value;

    snprintf(path, sizeof path, XS_DOMAIN_DIR_FMT "/name", guest->domid);
    if (!hv_xs_read(hv, HV_XS_NONE, path, &value)) {
        snprintf(guest->name, sizeof guest->name, "%s", value);
        free(value);
    }
    snprintf(path, sizeof path, XS_DOMAIN_DIR_FMT "/vm", guest->domid);
    if (!hv_xs_read(hv, HV_XS_NONE, path, &value)) {
        const char *slash = strrchr(value, '/');

        if (!slash || !parse_uuid(slash + 1, guest->uuid)) {
            memset(guest->uuid, 0, sizeof guest->uuid);
        }
        free(value);
    }
}
