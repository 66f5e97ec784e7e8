/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Tests of xenliftd over hv/local: usage: sup-test DIRECTORY-OF-PROGRAMS
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/guest-hello.h"
#include "lib/util.h"
#include "tests/local/sup-env.h"
#include "tests/local/sup-worker.h"

#define PV "pvcalls"

/* Everything of the device is gone, and with it the guest's worker. */
static void
expect_gone(unsigned domid, const char *back, unsigned devid)
{
    WAIT_FOR(!back_exists(domid, back, devid));
    WAIT_FOR(!socket_exists(domid));
    CHECK(!worker_pid(domid));
}

static void
comes_and_goes(void)
{
    struct front front;

    ts_create(10);
    ts_add(10, PV, PV, 0, NULL);
    front_open(&front, 10, PV, 0);
    WAIT_FOR(back_state(10, PV, 0) == XENBUS_INIT_WAIT);
    CHECK(!strcmp(back_value(10, PV, 0, "versions"), "1"));
    CHECK(!strcmp(back_value(10, PV, 0, "function-calls"), "1"));
    CHECK(!strcmp(back_value(10, PV, 0, "max-page-order"), "9"));
    CHECK(!strcmp(back_value(10, PV, 0, "feature-quiet"), "1"));
    CHECK(!strcmp(back_value(10, PV, 0, "feature-half-close"), "1"));
    front_connect(&front);
    CHECK(worker_pid(10) > 0);
    CHECK(socket_exists(10));

    /* Closed and opened by the frontend, with the same worker. */
    for (int i = 0; i < 3; i++) {
        pid_t pid = worker_pid(10);

        front_state(&front, XENBUS_CLOSING);
        WAIT_FOR(back_state(10, PV, 0) == XENBUS_CLOSING);
        front_state(&front, XENBUS_CLOSED);
        WAIT_FOR(back_state(10, PV, 0) == XENBUS_CLOSED);
        front_state(&front, XENBUS_INITIALISING);
        front_connect(&front);
        CHECK(worker_pid(10) == pid);
    }

    /* Ended by the toolstack; the frontend follows. */
    ts_remove(10, PV, 0);
    WAIT_FOR(back_state(10, PV, 0) == XENBUS_CLOSING);
    front_state(&front, XENBUS_CLOSED);
    WAIT_FOR(back_state(10, PV, 0) == XENBUS_CLOSED);
    expect_gone(10, PV, 0);
    front_close(&front);
    ts_destroy(10);
}

static void
removed_without_frontend(void)
{
    struct front front;

    /* A frontend that never reacts does not keep the device. */
    ts_create(11);
    ts_add(11, PV, PV, 0, NULL);
    front_open(&front, 11, PV, 0);
    front_connect(&front);
    ts_remove(11, PV, 0);
    expect_gone(11, PV, 0);

    /* And one that was never there. */
    ts_add(11, PV, PV, 1, NULL);
    WAIT_FOR(back_state(11, PV, 1) == XENBUS_INIT_WAIT);
    ts_remove(11, PV, 1);
    WAIT_FOR(!back_exists(11, PV, 1));
    front_close(&front);
    ts_destroy(11);
}

static void
guest_vanishes(void)
{
    struct front front, other;
    pid_t pid;

    ts_create(12);
    ts_create(13);
    ts_add(12, PV, PV, 0, NULL);
    ts_add(13, PV, PV, 0, NULL);
    front_open(&front, 12, PV, 0);
    front_open(&other, 13, PV, 0);
    front_connect(&front);
    front_connect(&other);
    pid = worker_pid(13);
    ts_destroy(12);
    expect_gone(12, PV, 0);
    CHECK(back_state(13, PV, 0) == XENBUS_CONNECTED);
    CHECK(worker_pid(13) == pid);
    front_close(&front);

    /* xl destroy: the frontend's directory first, then the request. */
    MUST(hv_xs_rm(dom0, HV_XS_NONE, "/local/domain/13/device/pvcalls/0"));
    ts_remove(13, PV, 0);
    ts_destroy(13);
    expect_gone(13, PV, 0);
    front_close(&other);
}

static void
bad_values(void)
{
    static const struct {
        const char *node, *value, *error;
    } bad[] = {
        {"version", "2", "version"},
        {"ring-ref", "-1", "ring-ref"},
        {"ring-ref", "4294967296", "ring-ref"},
        {"ring-ref", "", "ring-ref"},
        {"port", "0", "port"},
        {"port", "99999999999999999999999999", "port"},
        {"port", "7 ", "port"},
        {"ring-ref", "77777", "map or bind"},
    };
    struct front front;

    ts_create(14);
    ts_add(14, PV, PV, 0, NULL);
    front_open(&front, 14, PV, 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        WAIT_FOR(back_state(14, PV, 0) == XENBUS_INIT_WAIT);
        CHECK(!*error_value(14, PV, 0));
        front_write(&front, "version", "1");
        front_write(&front, "ring-ref", "9");
        front_write(&front, "port", "1");
        front_write(&front, bad[i].node, "%s", bad[i].value);
        front_state(&front, XENBUS_INITIALISED);
        if (!WAIT_FOR(back_state(14, PV, 0) == XENBUS_CLOSING) ||
            !CHECK(strstr(error_value(14, PV, 0), bad[i].error) != NULL)) {
            printf("# %s=\"%s\": error is \"%s\"\n", bad[i].node, bad[i].value,
                   error_value(14, PV, 0));
        }
        front_state(&front, XENBUS_CLOSED);
        WAIT_FOR(back_state(14, PV, 0) == XENBUS_CLOSED);
        front_state(&front, XENBUS_INITIALISING);
    }
    front_connect(&front);

    /* Nonsense in the state itself ends the connection. */
    front_write(&front, "state", "%s", "4 and a half");
    WAIT_FOR(back_state(14, PV, 0) == XENBUS_CLOSING);
    front_state(&front, XENBUS_INITIALISING);
    front_connect(&front);
    ts_destroy(14);
    expect_gone(14, PV, 0);
    front_close(&front);
}

static void
worker_killed(void)
{
    struct front front;
    pid_t pid;

    ts_create(15);
    ts_add(15, PV, PV, 0, NULL);
    front_open(&front, 15, PV, 0);
    front_connect(&front);
    pid = worker_pid(15);
    json_decref(sup_ctl("guest/kill-worker", "15"));
    WAIT_FOR(back_state(15, PV, 0) == XENBUS_CLOSING);
    CHECK(strstr(error_value(15, PV, 0), "worker has ended") != NULL);
    front_state(&front, XENBUS_CLOSED);
    WAIT_FOR(back_state(15, PV, 0) == XENBUS_CLOSED);
    front_state(&front, XENBUS_INITIALISING);
    front_connect(&front);
    CHECK(worker_pid(15) > 0 && worker_pid(15) != pid);
    CHECK(!*error_value(15, PV, 0));
    ts_destroy(15);
    expect_gone(15, PV, 0);
    front_close(&front);
}

static void
adoption(void)
{
    struct front stays, leaves, dies;
    pid_t pid, pid_leaves, pid_dies;

    for (unsigned domid = 20; domid <= 22; domid++) {
        ts_create(domid);
        ts_add(domid, PV, PV, 0, NULL);
    }
    front_open(&stays, 20, PV, 0);
    front_open(&leaves, 21, PV, 0);
    front_open(&dies, 22, PV, 0);
    front_connect(&stays);
    front_connect(&leaves);
    front_connect(&dies);
    pid = worker_pid(20);
    pid_leaves = worker_pid(21);
    pid_dies = worker_pid(22);

    for (int i = 0; i < 3; i++) {
        sup_stop(i == 1 ? SIGTERM : SIGKILL);
        CHECK(!kill(pid, 0));
        sup_start();
        WAIT_FOR(worker_pid(20) == pid);
        CHECK(back_state(20, PV, 0) == XENBUS_CONNECTED);
    }

    /* Things happen while nobody looks. */
    sup_stop(SIGKILL);
    front_state(&leaves, XENBUS_CLOSING);
    ts_destroy(22);
    ts_create(23);
    ts_add(23, PV, PV, 0, NULL);
    sup_start();
    WAIT_FOR(back_state(21, PV, 0) == XENBUS_CLOSING);
    CHECK(worker_pid(21) == pid_leaves);
    expect_gone(22, PV, 0);
    WAIT_FOR(kill(pid_dies, 0) != 0);
    WAIT_FOR(back_state(23, PV, 0) == XENBUS_INIT_WAIT);
    CHECK(back_state(20, PV, 0) == XENBUS_CONNECTED);
    front_close(&dies);

    /* A worker that died meanwhile, and its socket that is still there. */
    sup_stop(SIGKILL);
    kill(pid, SIGKILL);
    sup_start();
    WAIT_FOR(back_state(20, PV, 0) == XENBUS_CLOSING);
    front_state(&stays, XENBUS_CLOSED);
    WAIT_FOR(back_state(20, PV, 0) == XENBUS_CLOSED);
    front_state(&stays, XENBUS_INITIALISING);
    front_connect(&stays);
    CHECK(worker_pid(20) != pid);

    /* Closing down an adopted worker. */
    ts_destroy(20);
    ts_destroy(21);
    ts_destroy(23);
    expect_gone(20, PV, 0);
    expect_gone(21, PV, 0);
    WAIT_FOR(kill(pid_leaves, 0) != 0);
    expect_gone(23, PV, 0);
    front_close(&stays);
    front_close(&leaves);
}

static void
files(void)
{
    struct guest_hello hello;
    struct front pv, p9, p9_2;
    char path[64];
    int listen_fd = -1, fd, fd_2;

    ts_create(30);
    ts_add(30, PV, PV, 0, NULL);
    ts_add(30, "9pfs", "9pfs", 0, "branch/main");
    ts_add(30, "xen_9pfs", "9pfs", 1, "view/x");
    front_open(&pv, 30, PV, 0);
    front_open(&p9, 30, "9pfs", 0);
    front_open(&p9_2, 30, "9pfs", 1);

    /* vafsd is not there: files wait, sockets do not. */
    front_connect(&pv);
    WAIT_FOR(back_state(30, "9pfs", 0) == XENBUS_INIT_WAIT);
    CHECK(!strcmp(back_value(30, "9pfs", 0, "max-rings"), "8"));
    CHECK(!strcmp(back_value(30, "9pfs", 0, "max-ring-page-order"), "9"));
    CHECK(!strcmp(back_value(30, "9pfs", 0, "versions"), "1"));
    front_offer(&p9, SUP_SERVE);
    WAIT_FOR(strstr(error_value(30, "9pfs", 0), "vafsd") != NULL);
    CHECK(back_state(30, "9pfs", 0) == XENBUS_INIT_WAIT);

    /* It comes, and learns who asks. */
    snprintf(path, sizeof path, "%s/guest.sock", dir);
    MUST(unix_listen(path, SOCK_STREAM, 0600, &listen_fd));
    fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    MUST(read_full(fd, &hello, sizeof hello));
    CHECK(!guest_hello_validate(&hello));
    CHECK(guest_hello_domid(&hello) == 30);
    CHECK(!strcmp(hello.attach, "branch/main"));
    WAIT_FOR(back_state(30, "9pfs", 0) == XENBUS_CONNECTED);
    CHECK(!*error_value(30, "9pfs", 0));

    /* The other type of backend, in the same worker. */
    front_offer(&p9_2, SUP_SERVE);
    fd_2 = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    MUST(read_full(fd_2, &hello, sizeof hello));
    CHECK(!strcmp(hello.attach, "view/x"));
    WAIT_FOR(back_state(30, "xen_9pfs", 1) == XENBUS_CONNECTED);

    /* Adoption leaves the connection to vafsd as it is. */
    sup_stop(SIGKILL);
    sup_start();
    WAIT_FOR(worker_pid(30) > 0);
    CHECK(back_state(30, "9pfs", 0) == XENBUS_CONNECTED);
    CHECK(recv(fd, &hello, 1, MSG_DONTWAIT) < 0 && errno == EAGAIN);

    /* Bad geometry of files. */
    front_state(&p9, XENBUS_CLOSED);
    WAIT_FOR(back_state(30, "9pfs", 0) == XENBUS_CLOSED);
    CHECK(read(fd, &hello, 1) == 0);
    close(fd);
    front_state(&p9, XENBUS_INITIALISING);
    WAIT_FOR(back_state(30, "9pfs", 0) == XENBUS_INIT_WAIT);
    front_write(&p9, "num-rings", "9");
    front_state(&p9, XENBUS_INITIALISED);
    WAIT_FOR(back_state(30, "9pfs", 0) == XENBUS_CLOSING);
    CHECK(strstr(error_value(30, "9pfs", 0), "num-rings") != NULL);
    CHECK(back_state(30, PV, 0) == XENBUS_CONNECTED);
    CHECK(back_state(30, "xen_9pfs", 1) == XENBUS_CONNECTED);

    ts_destroy(30);
    expect_gone(30, PV, 0);
    WAIT_FOR(!back_exists(30, "9pfs", 0));
    WAIT_FOR(!back_exists(30, "xen_9pfs", 1));
    CHECK(!*error_value(30, "9pfs", 0));
    close(fd_2);
    close(listen_fd);
    unlink(path);
    front_close(&pv);
    front_close(&p9);
    front_close(&p9_2);
}

/* Begins anew after the backend has closed. */
static void
begin_anew(struct front *front)
{
    WAIT_FOR(back_state(front->domid, PV, 0) == XENBUS_CLOSING);
    front_state(front, XENBUS_CLOSED);
    WAIT_FOR(back_state(front->domid, PV, 0) == XENBUS_CLOSED);
    front_state(front, XENBUS_INITIALISING);
    WAIT_FOR(back_state(front->domid, PV, 0) == XENBUS_INIT_WAIT);
}

static void
bad_workers(void)
{
    struct front bad, good;
    unsigned n_fds;
    int64_t n;
    pid_t pid;

    ts_create(40);
    ts_create(41);
    ts_add(40, PV, PV, 0, NULL);
    ts_add(41, PV, PV, 0, NULL);
    front_open(&bad, 40, PV, 0);
    front_open(&good, 41, PV, 0);
    front_connect(&good);
    WAIT_FOR(back_state(40, PV, 0) == XENBUS_INIT_WAIT);

    front_offer(&bad, SUP_FAIL);
    WAIT_FOR(back_state(40, PV, 0) == XENBUS_CLOSING);
    CHECK(strstr(error_value(40, PV, 0), "the guest asked?for it") != NULL);
    begin_anew(&bad);

    n = sup_counter("sup_worker_misbehaved");
    front_offer(&bad, SUP_NONSENSE);
    begin_anew(&bad);
    CHECK(sup_counter("sup_worker_misbehaved") == n + 1);

    /* Crashes are answered more and more slowly. */
    n = sup_counter("sup_worker_started");
    for (int i = 0; i < 4; i++) {
        front_offer(&bad, SUP_CRASH);
        begin_anew(&bad);
    }
    CHECK(sup_counter("sup_worker_started") == n + 4);
    front_offer(&bad, SUP_SERVE);
    CHECK(!worker_pid(40));
    WAIT_FOR(back_state(40, PV, 0) == XENBUS_CONNECTED);

    /* A frontend that leaves while the worker is silent. */
    front_state(&bad, XENBUS_CLOSING);
    begin_anew(&bad);
    front_offer(&bad, SUP_SILENT);
    usleep(200000);
    CHECK(back_state(40, PV, 0) == XENBUS_INIT_WAIT);
    front_state(&bad, XENBUS_CLOSING);
    begin_anew(&bad);

    /* Descriptors that a worker sends do not stay. */
    n_fds = idle_fds();
    front_offer(&bad, SUP_DESCRIPTORS);
    WAIT_FOR(back_state(40, PV, 0) == XENBUS_CONNECTED);
    CHECK(sup_counter("sup_worker_late_news") >= 20);
    if (!WAIT_FOR(count_fds(sup_pid()) == n_fds)) {
        printf("# %u descriptors, not %u\n", count_fds(sup_pid()), n_fds);
    }
    front_state(&bad, XENBUS_CLOSING);
    begin_anew(&bad);

    /* Nonsense of the right size is ignored. */
    front_offer(&bad, SUP_GARBAGE);
    WAIT_FOR(back_state(40, PV, 0) == XENBUS_CONNECTED);
    front_state(&bad, XENBUS_CLOSING);
    begin_anew(&bad);

    /* A worker that does not quit is killed. */
    front_offer(&bad, SUP_IGNORE_QUIT);
    WAIT_FOR(back_state(40, PV, 0) == XENBUS_CONNECTED);
    pid = worker_pid(40);
    ts_destroy(40);
    expect_gone(40, PV, 0);
    CHECK(kill(pid, 0) != 0);

    CHECK(back_state(41, PV, 0) == XENBUS_CONNECTED);
    ts_destroy(41);
    expect_gone(41, PV, 0);
    front_close(&bad);
    front_close(&good);
}

static void
faults_of_xenstore(void)
{
    struct front front;

    ts_create(50);
    MUST(hv_local_fault(dom0, DRV, HV_FAULT_XS_COMMIT, 1, 3, EAGAIN));
    ts_add(50, PV, PV, 0, NULL);
    front_open(&front, 50, PV, 0);
    WAIT_FOR(back_state(50, PV, 0) == XENBUS_INIT_WAIT);
    CHECK(sup_counter("sup_xenstore_conflict") >= 3);
    MUST(hv_local_fault(dom0, DRV, HV_FAULT_XS_COMMIT, 1, 2, ENOSPC));
    front_connect(&front);
    MUST(hv_local_fault(dom0, DRV, HV_FAULT_XS_WRITE, 1, 2, EIO));
    front_state(&front, XENBUS_CLOSING);
    WAIT_FOR(back_state(50, PV, 0) == XENBUS_CLOSING);
    front_state(&front, XENBUS_INITIALISING);
    WAIT_FOR(back_state(50, PV, 0) == XENBUS_INIT_WAIT);

    /* A map that fails costs this one attempt. */
    MUST(hv_local_fault(dom0, DRV, HV_FAULT_GRANT_PREPARE, 1, 1, ENOMEM));
    front_offer(&front, SUP_SERVE);
    begin_anew(&front);
    front_connect(&front);
    ts_destroy(50);
    expect_gone(50, PV, 0);
    front_close(&front);
}

/* Odd entries in our own directories do no harm and are not touched. */
static void
odd_directories(void)
{
    static const char *const odd[] = {
        "backend/pvcalls/x/0", "backend/pvcalls/5000/y/z",
        "backend/pvcalls/99999/0/state", "backend/pvcalls/5000/0/state"};
    struct hv *drv;
    char spec[64];

    snprintf(spec, sizeof spec, "local:%s@%d", dir, DRV);
    MUST(hv_open(spec, HV_STORE, &drv));
    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        MUST(hv_xs_write(drv, HV_XS_NONE, odd[i], "1"));
    }

    /* A frontend outside of the guest's own directory. */
    ts_create(51);
    ts_add(51, PV, PV, 0, NULL);
    WAIT_FOR(back_state(51, PV, 0) == XENBUS_INIT_WAIT);
    ts_add(51, PV, PV, 1, NULL);
    MUST(hv_xs_write(drv, HV_XS_NONE, "backend/pvcalls/51/2/frontend",
                     "/local/domain/0/device/pvcalls/2"));
    MUST(hv_xs_write(drv, HV_XS_NONE, "backend/pvcalls/51/2/frontend-id",
                     "51"));
    MUST(hv_xs_write(drv, HV_XS_NONE, "backend/pvcalls/51/2/online", "1"));
    WAIT_FOR(strstr(error_value(51, PV, 2), "is not") != NULL);
    CHECK(back_state(5000, PV, 0) == XENBUS_INITIALISING);
    WAIT_FOR(back_state(51, PV, 1) == XENBUS_INIT_WAIT);
    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        MUST(hv_xs_rm(drv, HV_XS_NONE, odd[i]));
    }
    MUST(hv_xs_rm(drv, HV_XS_NONE, "backend/pvcalls/5000"));
    MUST(hv_xs_rm(drv, HV_XS_NONE, "backend/pvcalls/99999"));
    MUST(hv_xs_rm(drv, HV_XS_NONE, "backend/pvcalls/x"));
    MUST(hv_xs_rm(drv, HV_XS_NONE, "backend/pvcalls/51/2"));
    hv_close(drv);
    ts_destroy(51);
    expect_gone(51, PV, 0);
    WAIT_FOR(!back_exists(51, PV, 1));
}

static void
control_socket(void)
{
    struct front front;
    json_t *json, *first;

    ts_create(52);
    ts_add(52, PV, PV, 0, NULL);
    front_open(&front, 52, PV, 0);
    front_connect(&front);
    json = sup_ctl("devices/show", NULL);
    first = json_array_get(json, 0);
    CHECK(json_integer_value(json_object_get(first, "domid")) == 52);
    CHECK(json_integer_value(json_object_get(first, "state")) == 4);
    CHECK(json_integer_value(json_object_get(
              json_object_get(first, "geometry"), "ring-ref")) == front.ref);
    json_decref(json);
    json = sup_ctl("sessions/show", "52");
    first = json_array_get(json, 0);
    CHECK(json_integer_value(json_object_get(first, "domid")) == 52);
    CHECK(json_is_array(json_object_get(first, "sessions")));
    json_decref(json);
    json = sup_ctl("rings/show", "53");
    CHECK(json_is_array(json) && !json_array_size(json));
    json_decref(json);
    CHECK(!sup_ctl("guest/kill-worker", "53"));
    CHECK(!sup_ctl("guest/vlog", "52")); /* Wants a level. */
    CHECK(!sup_ctl("guest/kill-worker", "all"));
    ts_destroy(52);
    expect_gone(52, PV, 0);
    front_close(&front);
}

/* Many guests come and go; nothing is left. */
static void
no_leaks(void)
{
    struct hv_local_counts before, after;
    unsigned n_fds = idle_fds();

    MUST(hv_local_counts(dom0, &before));
    for (unsigned round = 0; round < 4; round++) {
        struct front fronts[5];

        for (unsigned i = 0; i < 5; i++) {
            ts_create(60 + i);
            ts_add(60 + i, PV, PV, 0, NULL);
            front_open(&fronts[i], 60 + i, PV, 0);
        }
        for (unsigned i = 0; i < 5; i++) {
            front_connect(&fronts[i]);
        }
        for (unsigned i = 0; i < 5; i++) {
            if (i % 2) {
                ts_remove(60 + i, PV, 0);
            }
            ts_destroy(60 + i);
            front_close(&fronts[i]);
        }
        for (unsigned i = 0; i < 5; i++) {
            expect_gone(60 + i, PV, 0);
        }
    }
    if (!WAIT_FOR(count_fds(sup_pid()) == n_fds)) {
        printf("# %u descriptors, not %u\n", count_fds(sup_pid()), n_fds);
    }
    WAIT_FOR(!hv_local_counts(dom0, &after) &&
             after.n_connections == before.n_connections);
    CHECK(after.n_grants == 0 && after.n_maps == 0 && after.n_ports == 0);
    CHECK(after.n_nodes == before.n_nodes);
    CHECK(after.n_watches == before.n_watches);
}

/* ## Random lives ## */

enum { N_LIVES = 6, N_STEPS = 400 };

/* A guest that does anything at any time. */
struct life {
    unsigned domid;
    bool exists, has_device;
    struct front front;
};

static uint32_t
random_below(uint32_t *seed, uint32_t n)
{
    *seed = *seed * 1664525 + 1013904223;
    return (*seed >> 8) % n;
}

static void
life_end(struct life *life)
{
    ts_destroy(life->domid);
    front_close(&life->front);
    life->exists = false;
}

static void
life_step(struct life *life, uint32_t *seed)
{
    char arg[16];

    if (!life->exists) {
        ts_create(life->domid);
        front_open(&life->front, life->domid, PV, 0);
        life->exists = true;
        life->has_device = false;
        return;
    }
    if (!life->has_device) {
        if (!back_exists(life->domid, PV, 0)) {
            ts_add(life->domid, PV, PV, 0, NULL);
            life->has_device = true;
        }
        return;
    }
    switch (random_below(seed, 12)) {
    case 0:
        life_end(life);
        break;
    case 1:
        ts_remove(life->domid, PV, 0);
        life->has_device = false;
        break;
    case 2:
    case 3:
        front_state(&life->front, random_below(seed, 7));
        break;
    case 4:
        snprintf(arg, sizeof arg, "%u", life->domid);
        json_decref(sup_ctl("guest/kill-worker", arg));
        break;
    case 5:
        front_offer(&life->front, random_below(seed, SUP_GARBAGE + 1));
        break;
    default:
        switch (back_state(life->domid, PV, 0)) {
        case XENBUS_INIT_WAIT:
            front_offer(&life->front, SUP_SERVE);
            break;
        case XENBUS_CONNECTED:
            front_state(&life->front, XENBUS_CONNECTED);
            break;
        case XENBUS_CLOSING:
            front_state(&life->front, XENBUS_CLOSED);
            break;
        default:
            front_state(&life->front, XENBUS_INITIALISING);
        }
    }
}

/* Prints what is in the registry below 'path', for a test that failed. */
static void
print_nodes(const char *path)
{
    char **names;
    size_t n;

    printf("# %s\n", path);
    if (!hv_xs_directory(dom0, HV_XS_NONE, path, &names, &n)) {
        for (size_t i = 0; i < n; i++) {
            char below[512];

            snprintf(below, sizeof below, "%s/%s", path, names[i]);
            print_nodes(below);
        }
        hv_xs_names_free(names, n);
    }
}

/* Guests, workers, toolstack and supervisor do what they like; afterwards a
 * new guest is served as ever and nothing is left of the others. */
static void
random_lives(void)
{
    struct life lives[N_LIVES] = {{.domid = 0}};
    struct hv_local_counts before, after;
    unsigned n_fds = idle_fds();
    struct front front;
    const char *seed_text = getenv("SUP_SEED");
    uint32_t seed = seed_text ? atoi(seed_text) : 20161231;

    /* These stay, also if this test is the only one. */
    MUST(hv_xs_mkdir(dom0, HV_XS_NONE, "/local/domain/1/backend/pvcalls"));
    MUST(hv_xs_mkdir(dom0, HV_XS_NONE,
                     "/local/domain/1/error/backend/pvcalls"));
    MUST(hv_local_counts(dom0, &before));
    for (unsigned i = 0; i < N_LIVES; i++) {
        lives[i].domid = 70 + i;
    }
    for (int step = 0; step < N_STEPS; step++) {
        life_step(&lives[random_below(&seed, N_LIVES)], &seed);
        if (!random_below(&seed, 60)) {
            sup_stop(random_below(&seed, 2) ? SIGKILL : SIGTERM);
            sup_start();
        }
        usleep(random_below(&seed, 20000));
    }
    ts_create(80);
    ts_add(80, PV, PV, 0, NULL);
    front_open(&front, 80, PV, 0);
    front_connect(&front);
    ts_destroy(80);
    front_close(&front);
    for (unsigned i = 0; i < N_LIVES; i++) {
        if (lives[i].exists) {
            life_end(&lives[i]);
        }
    }
    for (unsigned i = 0; i < N_LIVES; i++) {
        expect_gone(lives[i].domid, PV, 0);
    }
    expect_gone(80, PV, 0);
    if (!WAIT_FOR(count_fds(sup_pid()) == n_fds)) {
        printf("# %u descriptors, not %u\n", count_fds(sup_pid()), n_fds);
    }
    WAIT_FOR(!hv_local_counts(dom0, &after) &&
             after.n_connections == before.n_connections);
    CHECK(after.n_grants == 0 && after.n_maps == 0 && after.n_ports == 0);
    if (!CHECK(after.n_nodes == before.n_nodes)) {
        print_nodes("/local/domain/1");
    }
    CHECK(after.n_watches == before.n_watches);
}

int
main(int argc, char *argv[])
{
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"a device comes, reconnects and goes", comes_and_goes},
        {"a device is removed under a frontend that does not react",
         removed_without_frontend},
        {"a guest vanishes", guest_vanishes},
        {"bad values in the frontend's nodes", bad_values},
        {"a worker is killed", worker_killed},
        {"a restarted supervisor adopts the workers", adoption},
        {"files: vafsd late, hello, both types", files},
        {"workers that fail, crash, talk nonsense, are silent", bad_workers},
        {"faults of xenstore and of maps", faults_of_xenstore},
        {"odd entries in the backend directories", odd_directories},
        {"control socket", control_socket},
        {"nothing is left of guests that have gone", no_leaks},
        {"anything happens at any time", random_lives},
    };
    bool any_failed = false;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 2) {
        fprintf(stderr, "usage: %s DIRECTORY-OF-PROGRAMS [TEST...]\n",
                argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    env_start(argv[1]);
    sup_start();
    printf("1..%zu\n", ARRAY_SIZE(tests));
    for (size_t i = 0; i < ARRAY_SIZE(tests); i++) {
        bool is_chosen = argc == 2;

        for (int j = 2; j < argc; j++) {
            is_chosen = is_chosen || (size_t) atoi(argv[j]) == i + 1;
        }
        if (is_chosen) {
            test_failed = false;
            tests[i].run();
            printf("%sok %zu - xenliftd: %s\n", test_failed ? "not " : "",
                   i + 1, tests[i].name);
            any_failed = any_failed || test_failed;
        }
    }
    test_failed = false;
    env_stop();
    return any_failed || test_failed;
}
