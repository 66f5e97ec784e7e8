/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Environment for tests of the supervisor; see tests/local/sup-env.h.
 */
#include "tests/local/sup-env.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/ctl.h"
#include "lib/util.h"
#include "tests/local/sup-worker.h"

struct hv *dom0;
char dir[] = "/tmp/sup-XXXXXX";

static const char *bin;
static pid_t broker, xenliftd;

bool test_failed;

void
must__(int error, const char *call, const char *file, int line)
{
    if (error) {
        printf("Bail out! %s:%d: %s: %s\n", file, line, call, strerror(error));
        env_stop();
        exit(1);
    }
}

bool
check__(bool ok, const char *what, const char *file, int line)
{
    if (!ok) {
        printf("# %s:%d: not true: %s\n", file, line, what);
        test_failed = true;
    }
    return ok;
}

static pid_t
start(const char *const argv[])
{
    pid_t pid = fork();

    if (!pid) {
        char path[256];

        snprintf(path, sizeof path, "%s/%s", bin, argv[0]);
        execv(path, (char *const *) argv);
        _exit(127);
    }
    return pid;
}

static void
stop(pid_t *pid, int signal)
{
    if (*pid > 0) {
        int status = 0;

        kill(*pid, signal);
        waitpid(*pid, &status, 0);
        if (signal == SIGTERM) {
            check__(WIFEXITED(status) && !WEXITSTATUS(status),
                    "process ends with 0 at SIGTERM", __FILE__, __LINE__);
        }
        *pid = 0;
    }
}

void
env_start(const char *bin_dir)
{
    const char *argv[] = {"xenlift-broker", dir, NULL};
    char spec[64];
    int error = ENOENT;

    bin = bin_dir;
    MUST(mkdtemp(dir) ? 0 : errno);
    broker = start(argv);
    snprintf(spec, sizeof spec, "local:%s", dir);
    for (int i = 0; i < 1000 && error; i++) {
        usleep(10000);
        error = hv_open(spec, HV_STORE, &dom0);
    }
    MUST(error);
    ts_create(DRV);
}

void
env_stop(void)
{
    char command[128];

    stop(&xenliftd, SIGTERM);
    hv_close(dom0);
    stop(&broker, SIGTERM);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    if (system(command)) {
        printf("# cannot remove %s\n", dir);
    }
}

void
sup_start(void)
{
    char hv[64], run[64], vafsd[64], worker[256];
    const char *argv[] = {"xenliftd", "--hv",        hv,       "--run-dir",
                          run,        "--vafsd",     vafsd,    "--worker",
                          worker,     "--user",      "nobody", "--9pfs-type",
                          "both",     "--log-level", "info",   NULL};
    json_t *json = NULL;

    snprintf(hv, sizeof hv, "local:%s@%d", dir, DRV);
    snprintf(run, sizeof run, "%s/run", dir);
    snprintf(vafsd, sizeof vafsd, "%s/guest.sock", dir);
    snprintf(worker, sizeof worker, "%s/sup-worker", bin);
    xenliftd = start(argv);
    for (int i = 0; i < 1500 && !json; i++) {
        usleep(10000);
        json = sup_ctl("version", NULL);
    }
    MUST(json ? 0 : ETIMEDOUT);
    json_decref(json);
}

void
sup_stop(int signal)
{
    stop(&xenliftd, signal);
}

pid_t
sup_pid(void)
{
    return xenliftd;
}

json_t *
sup_ctl(const char *command, const char *arg)
{
    const char *argv[] = {command, arg};
    json_t *json = NULL;
    char *error = NULL;
    char path[64];

    snprintf(path, sizeof path, "%s/run/xenliftd.ctl", dir);
    if (ctl_call(path, arg ? 2 : 1, argv, NULL, NULL, &json, &error)) {
        free(error);
        return NULL;
    }
    return json;
}

int64_t
sup_counter(const char *name)
{
    json_t *json = sup_ctl("coverage/show", NULL);
    int64_t n = json_integer_value(json_object_get(json, name));

    json_decref(json);
    return n;
}

pid_t
worker_pid(unsigned domid)
{
    char arg[16];
    json_t *json, *worker;
    const char *state;
    pid_t pid = 0;

    snprintf(arg, sizeof arg, "%u", domid);
    json = sup_ctl("guests/show", arg);
    worker = json_object_get(json_array_get(json, 0), "worker");
    state = json_string_value(json_object_get(worker, "state"));
    if (state && (!strcmp(state, "running") || !strcmp(state, "adopted"))) {
        pid = json_integer_value(json_object_get(worker, "pid"));
    }
    json_decref(json);
    return pid;
}

unsigned
count_fds(pid_t pid)
{
    unsigned n = 0;
    char path[64];
    DIR *d;

    snprintf(path, sizeof path, "/proc/%ld/fd", (long) pid);
    d = opendir(path);
    MUST(d ? 0 : errno);
    while (readdir(d)) {
        n++;
    }
    closedir(d);
    return n - 2;
}

unsigned
idle_fds(void)
{
    unsigned min = UINT_MAX;

    /* Our own last call of the control socket may still be open there. */
    for (int i = 0; i < 20; i++) {
        unsigned n = count_fds(xenliftd);

        min = MIN(min, n);
        usleep(10000);
    }
    return min;
}

bool
socket_exists(unsigned domid)
{
    char path[64];

    snprintf(path, sizeof path, "%s/run/guests/%u.sock", dir, domid);
    return !access(path, F_OK);
}

/* ## Toolstack ## */

void
ts_create(unsigned domid)
{
    char path[64];

    MUST(hv_local_domain_create(dom0, domid, "test", NULL));
    snprintf(path, sizeof path, "/local/domain/%u/device", domid);
    MUST(hv_xs_mkdir(dom0, HV_XS_NONE, path));
}

void
ts_destroy(unsigned domid)
{
    MUST(hv_local_domain_destroy(dom0, domid));
}

static void
ts_mkdir(hv_xs_txn txn, const char *path, unsigned owner, unsigned reader)
{
    struct hv_xs_perm perms[] = {{owner, HV_XS_PERM_NONE},
                                 {reader, HV_XS_PERM_READ}};

    MUST(hv_xs_mkdir(dom0, txn, path));
    MUST(hv_xs_set_perms(dom0, txn, path, perms, 2));
}

static void
ts_write(hv_xs_txn txn, const char *path, const char *node, const char *fmt,
         ...)
{
    char full[160], value[160];
    va_list args;

    va_start(args, fmt);
    vsnprintf(value, sizeof value, fmt, args);
    va_end(args);
    snprintf(full, sizeof full, "%s/%s", path, node);
    MUST(hv_xs_write(dom0, txn, full, value));
}

void
ts_add(unsigned domid, const char *back, const char *front, unsigned devid,
       const char *path)
{
    char bpath[128], fpath[128];
    hv_xs_txn txn;
    int error;

    snprintf(bpath, sizeof bpath, "/local/domain/%d/backend/%s/%u/%u", DRV,
             back, domid, devid);
    snprintf(fpath, sizeof fpath, "/local/domain/%u/device/%s/%u", domid,
             front, devid);
    do {
        MUST(hv_xs_txn_start(dom0, &txn));
        ts_mkdir(txn, fpath, domid, DRV);
        ts_mkdir(txn, bpath, DRV, domid);
        ts_write(txn, fpath, "backend", "%s", bpath);
        ts_write(txn, fpath, "backend-id", "%d", DRV);
        ts_write(txn, fpath, "state", "1");
        ts_write(txn, bpath, "frontend", "%s", fpath);
        ts_write(txn, bpath, "frontend-id", "%u", domid);
        ts_write(txn, bpath, "online", "1");
        ts_write(txn, bpath, "state", "1");
        if (path) {
            ts_write(txn, bpath, "path", "%s", path);
            ts_write(txn, bpath, "security_model", "none");
        }
        error = hv_xs_txn_end(dom0, txn, true);
    } while (error == EAGAIN);
    MUST(error);
}

void
ts_remove(unsigned domid, const char *back, unsigned devid)
{
    char path[128];
    hv_xs_txn txn;
    int error;

    snprintf(path, sizeof path, "/local/domain/%d/backend/%s/%u/%u", DRV, back,
             domid, devid);
    do {
        MUST(hv_xs_txn_start(dom0, &txn));
        ts_write(txn, path, "online", "0");
        ts_write(txn, path, "state", "5");
        error = hv_xs_txn_end(dom0, txn, true);
    } while (error == EAGAIN);
    MUST(error);
}

static const char *
value_of(const char *path)
{
    static char text[512];
    char *value;

    text[0] = '\0';
    if (!hv_xs_read(dom0, HV_XS_NONE, path, &value)) {
        snprintf(text, sizeof text, "%s", value);
        free(value);
    }
    return text;
}

const char *
back_value(unsigned domid, const char *back, unsigned devid, const char *node)
{
    char path[160];

    snprintf(path, sizeof path, "/local/domain/%d/backend/%s/%u/%u/%s", DRV,
             back, domid, devid, node);
    return value_of(path);
}

const char *
error_value(unsigned domid, const char *back, unsigned devid)
{
    char path[160];

    snprintf(path, sizeof path,
             "/local/domain/%d/error/backend/%s/%u/%u/error", DRV, back, domid,
             devid);
    return value_of(path);
}

bool
back_exists(unsigned domid, const char *back, unsigned devid)
{
    char path[160], *value;
    int error;

    snprintf(path, sizeof path, "/local/domain/%d/backend/%s/%u/%u", DRV, back,
             domid, devid);
    error = hv_xs_read(dom0, HV_XS_NONE, path, &value);
    if (!error) {
        free(value);
    }
    return !error;
}

enum xenbus_state
back_state(unsigned domid, const char *back, unsigned devid)
{
    return atoi(back_value(domid, back, devid, "state"));
}

/* ## Frontends ## */

void
front_open(struct front *front, unsigned domid, const char *type,
           unsigned devid)
{
    char spec[64];

    memset(front, 0, sizeof *front);
    front->domid = domid;
    front->devid = devid;
    front->type = type;
    snprintf(spec, sizeof spec, "local:%s@%u", dir, domid);
    MUST(hv_open(spec, HV_ALLOC | HV_EVTCHN | HV_STORE, &front->hv));
}

void
front_close(struct front *front)
{
    hv_pages_free(front->pages);
    front->pages = NULL;
    hv_close(front->hv);
    front->hv = NULL;
}

void
front_write(struct front *front, const char *node, const char *fmt, ...)
{
    char path[128], value[128];
    va_list args;

    va_start(args, fmt);
    vsnprintf(value, sizeof value, fmt, args);
    va_end(args);
    snprintf(path, sizeof path, "device/%s/%u/%s", front->type, front->devid,
             node);
    MUST(hv_xs_write(front->hv, HV_XS_NONE, path, value));
}

void
front_state(struct front *front, enum xenbus_state state)
{
    front_write(front, "state", "%d", state);
}

void
front_offer(struct front *front, unsigned demand)
{
    hv_pages_free(front->pages);
    if (front->port) {
        hv_evtchn_unbind(front->hv, front->port);
    }
    MUST(hv_pages_alloc(front->hv, DRV, 1, true, &front->ref, &front->mem,
                        &front->pages));
    MUST(hv_evtchn_alloc_unbound(front->hv, DRV, &front->port));
    *(uint32_t *) front->mem = demand;
    front_write(front, "version", "1");
    if (!strcmp(front->type, "pvcalls")) {
        front_write(front, "ring-ref", "%u", front->ref);
        front_write(front, "port", "%u", front->port);
    } else {
        front_write(front, "num-rings", "1");
        front_write(front, "ring-ref0", "%u", front->ref);
        front_write(front, "event-channel-0", "%u", front->port);
    }
    front_state(front, XENBUS_INITIALISED);
}

bool
front_connect(struct front *front)
{
    bool ok = WAIT_FOR(back_state(front->domid, front->type, front->devid) ==
                       XENBUS_INIT_WAIT);

    front_offer(front, SUP_SERVE);
    ok = WAIT_FOR(back_state(front->domid, front->type, front->devid) ==
                  XENBUS_CONNECTED) &&
         ok;
    front_state(front, XENBUS_CONNECTED);
    return ok;
}
