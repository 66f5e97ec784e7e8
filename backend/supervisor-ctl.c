/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The supervisor's control socket: xenliftd(8) lists the commands.
 */
#include "backend/supervisor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/clock.h"

/* ## guests/show, devices/show ## */

static const char *
worker_state_name(const struct guest *guest)
{
    switch (guest->worker) {
    case WORKER_NONE:
        return "gone";
    case WORKER_STARTING:
    case WORKER_SYNCING:
        return "starting";
    case WORKER_READY:
        return guest->is_adopted ? "adopted" : "running";
    case WORKER_QUITTING:
        return "quitting";
    }
    return "?";
}

static json_t *
geometry_to_json(const struct device *dev)
{
    json_t *refs, *ports;

    if (dev->facts.link != XENBUS_LINK_UP) {
        return json_object();
    }
    if (dev->type->kind == WP_KIND_PVCALLS) {
        const struct wp_pvcalls *pvcalls = &dev->geometry.pvcalls;

        return json_pack("{s:I, s:I, s:I, s:I}", "ring-ref",
                         (json_int_t) pvcalls->ring_ref, "port",
                         (json_int_t) pvcalls->port, "max-page-order",
                         (json_int_t) pvcalls->max_page_order, "flags",
                         (json_int_t) pvcalls->flags);
    }
    refs = json_array();
    ports = json_array();
    for (uint32_t i = 0;
         i < MIN(dev->geometry.p9.n_rings, (uint32_t) WP_MAX_RINGS); i++) {
        json_array_append_new(refs,
                              json_integer(dev->geometry.p9.ring_ref[i]));
        json_array_append_new(ports, json_integer(dev->geometry.p9.port[i]));
    }
    return json_pack("{s:I, s:s, s:o, s:o}", "num-rings",
                     (json_int_t) dev->geometry.p9.n_rings, "path",
                     dev->geometry.p9.path, "ring-refs", refs, "ports", ports);
}

static json_t *
device_to_json(const struct device *dev)
{
    json_t *json = json_pack(
        "{s:i, s:s, s:s, s:I, s:i, s:i, s:s, s:b, s:o}", "domid",
        dev->guest->domid, "kind",
        dev->type->kind == WP_KIND_PVCALLS ? "pvcalls" : "9pfs", "type",
        dev->type->back, "devid", (json_int_t) dev->devid, "state",
        (int) dev->facts.back, "front_state", (int) dev->facts.front, "link",
        xenbus_link_name(dev->facts.link), "online", (int) dev->facts.online,
        "geometry", geometry_to_json(dev));

    if (json && dev->error[0]) {
        json_object_set_new(json, "error", json_string(dev->error));
    }
    return json;
}

static json_t *
guest_to_json(const struct guest *guest)
{
    json_t *devices = json_array(), *json;
    struct device *dev;
    char uuid[37] = "";

    for (int i = 0, n = 0; i < 16; i++) {
        n += sprintf(uuid + n, "%s%02x",
                     i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "",
                     guest->uuid[i]);
    }
    LIST_FOR_EACH (dev, link, &guest->devices) {
        json_array_append_new(devices, device_to_json(dev));
    }
    json = json_pack("{s:i, s:s, s:s, s:{s:I, s:s, s:i}, s:o}", "domid",
                     guest->domid, "name", guest->name, "uuid", uuid, "worker",
                     "pid", (json_int_t) guest->pid, "state",
                     worker_state_name(guest), "crashes",
                     (int) guest->n_crashes, "devices", devices);
    /* A name that is not UTF-8 does not become JSON. */
    return json ? json : json_pack("{s:i}", "domid", guest->domid);
}

/* Parses the optional argument DOMID.  On failure replies and returns
 * false. */
static bool
parse_domid(struct ctl_conn *conn, int argc, const char *argv[], int *ret)
{
    uint64_t domid = 0;

    *ret = -1;
    if (argc > 0) {
        if (hv_xs_parse_uint(argv[0], HV_DOMID_INVALID - 1, &domid)) {
            ctl_reply_error(conn, EINVAL, "\"%s\" is not a domain id",
                            argv[0]);
            return false;
        }
        *ret = domid;
    }
    return true;
}

static void
ctl_guests_show(struct ctl_conn *conn, int argc, const char *argv[],
                void *sup_)
{
    struct supervisor *sup = sup_;
    json_t *json = json_array();
    struct guest *guest;
    int domid;

    if (!parse_domid(conn, argc, argv, &domid)) {
        json_decref(json);
        return;
    }
    LIST_FOR_EACH (guest, link, &sup->guests) {
        if (domid < 0 || guest->domid == domid) {
            json_array_append_new(json, guest_to_json(guest));
        }
    }
    ctl_reply(conn, json);
}

static void
ctl_devices_show(struct ctl_conn *conn, int argc, const char *argv[],
                 void *sup_)
{
    struct supervisor *sup = sup_;
    json_t *json = json_array();
    struct guest *guest;
    int domid;

    if (!parse_domid(conn, argc, argv, &domid)) {
        json_decref(json);
        return;
    }
    LIST_FOR_EACH (guest, link, &sup->guests) {
        struct device *dev;

        LIST_FOR_EACH (dev, link, &guest->devices) {
            if (domid < 0 || guest->domid == domid) {
                json_array_append_new(json, device_to_json(dev));
            }
        }
    }
    ctl_reply(conn, json);
}

/* ## rings/show, sessions/show, guest/coverage: ask the workers ## */

/* A call that waits for the answers of several workers. */
struct query {
    struct ctl_conn *conn;
    json_t *answers; /* Array, one object for each guest. */
    unsigned n_waiting;
};

static void
query_done(struct query *query)
{
    if (!--query->n_waiting) {
        ctl_reply(query->conn, query->answers);
        free(query);
    }
}

static void
query_answer(struct guest *guest, json_t *json, void *query_)
{
    struct query *query = query_;

    if (!json_is_object(json)) {
        json_decref(json);
        json = json_pack("{s:s}", "error", "no answer from the worker");
    }
    if (json) {
        json_object_set_new(json, "domid", json_integer(guest->domid));
        json_array_append_new(query->answers, json);
    }
    query_done(query);
}

static void
run_query(struct supervisor *sup, struct ctl_conn *conn, int argc,
          const char *argv[], enum wp_stats_what what)
{
    struct query *query;
    struct guest *guest;
    int domid;

    if (!parse_domid(conn, argc, argv, &domid)) {
        return;
    }
    query = calloc(1, sizeof *query);
    if (!query) {
        ctl_reply_error(conn, ENOMEM, "out of memory");
        return;
    }
    query->conn = conn;
    query->answers = json_array();
    query->n_waiting = 1; /* Held by this function. */
    LIST_FOR_EACH (guest, link, &sup->guests) {
        if (domid < 0 || guest->domid == domid) {
            query->n_waiting++;
            if (worker_ask(guest, what, query_answer, query)) {
                query->n_waiting--;
            }
        }
    }
    query_done(query);
}

static void
ctl_rings_show(struct ctl_conn *conn, int argc, const char *argv[], void *sup)
{
    run_query(sup, conn, argc, argv, WP_STATS_RINGS);
}

static void
ctl_sessions_show(struct ctl_conn *conn, int argc, const char *argv[],
                  void *sup)
{
    run_query(sup, conn, argc, argv, WP_STATS_SESSIONS);
}

static void
ctl_guest_coverage(struct ctl_conn *conn, int argc, const char *argv[],
                   void *sup)
{
    run_query(sup, conn, argc, argv, WP_STATS_COVERAGE);
}

/* ## guest/kill-worker, guest/vlog ## */

/* Replies for a command that concerns the worker of 'domid'. */
static void
reply_for_worker(struct ctl_conn *conn, int domid, int error)
{
    if (error == ESRCH) {
        ctl_reply_error(conn, error, "domain %d has no worker", domid);
    } else if (error) {
        ctl_reply_error(conn, error, "domain %d: %s", domid, strerror(error));
    } else {
        ctl_reply(conn, json_true());
    }
}

static void
ctl_kill_worker(struct ctl_conn *conn, int argc, const char *argv[], void *sup)
{
    struct guest *guest;
    int domid;

    if (parse_domid(conn, argc, argv, &domid)) {
        guest = supervisor_find_guest(sup, domid);
        reply_for_worker(conn, domid, guest ? worker_kill(guest) : ESRCH);
    }
}

static void
ctl_guest_vlog(struct ctl_conn *conn, int argc, const char *argv[], void *sup)
{
    static const char *const levels[] = {"off", "err", "warn", "info", "dbg"};
    struct guest *guest;
    bool is_known = false;
    int domid;

    for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
        is_known = is_known || !strcmp(argv[1], levels[i]);
    }
    if (!is_known) {
        ctl_reply_error(conn, EINVAL, "no level \"%s\"", argv[1]);
    } else if (parse_domid(conn, argc, argv, &domid)) {
        guest = supervisor_find_guest(sup, domid);
        reply_for_worker(conn, domid,
                         guest ? worker_set_log_level(guest, argv[1]) : ESRCH);
    }
}

int
supervisor_ctl_create(struct supervisor *sup)
{
    static const struct {
        const char *name, *usage;
        int min, max;
        ctl_cb *cb;
    } commands[] = {
        {"guests/show", "[DOMID]", 0, 1, ctl_guests_show},
        {"devices/show", "[DOMID]", 0, 1, ctl_devices_show},
        {"rings/show", "[DOMID]", 0, 1, ctl_rings_show},
        {"sessions/show", "[DOMID]", 0, 1, ctl_sessions_show},
        {"guest/coverage", "[DOMID]", 0, 1, ctl_guest_coverage},
        {"guest/kill-worker", "DOMID", 1, 1, ctl_kill_worker},
        {"guest/vlog", "DOMID LEVEL", 2, 2, ctl_guest_vlog},
    };
    char path[128];
    int error;

    snprintf(path, sizeof path, "%s/xenliftd.ctl", sup->options->run_dir);
    /* A predecessor that was killed while it started a worker has left its
     * descriptors to a child that is just about to close them. */
    for (int i = 0; i < 30; i++) {
        error = ctl_server_create(sup->loop, path, 0600, &sup->ctl);
        if (error != EADDRINUSE) {
            break;
        }
        usleep(100000);
    }
    error = error ? error : ctl_register_standard(sup->ctl);
    for (size_t i = 0; !error && i < ARRAY_SIZE(commands); i++) {
        error = ctl_register(sup->ctl, commands[i].name, commands[i].usage,
                             commands[i].min, commands[i].max, commands[i].cb,
                             sup);
    }
    return error;
}
