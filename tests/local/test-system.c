/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test-system.c - xenliftd, xenlift-guest and vafsd together, as deployed,
 * over hv/local: a guest's frontend comes through xenstore, hostile ones too,
 * and restarts of each program are survived as promised.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "frontend/sockets/user/pvfront.h"
#include "lib/clock.h"
#include "tests/local/echo.h"
#include "tests/local/sup-env.h"

enum { GUEST = 5 };
#define MS 10000

static const char *bin;
static pid_t xenliftd, vafsd;
static struct sockaddr_in echo_address;
static int n_tests, n_failed;

static void
run(const char *name, void (*test)(void))
{
    const char *only = getenv("ONLY");

    if (only && !strstr(name, only)) {
        return;
    }
    test_failed = false;
    test();
    n_tests++;
    n_failed += test_failed;
    printf("%sok %d - system: %s\n", test_failed ? "not " : "", n_tests, name);
    fflush(stdout);
}

static pid_t
start(const char *const argv[])
{
    pid_t pid = fork();

    if (!pid) {
        /* Reports go to stderr: what runs unprivileged cannot open files. */
        setenv("ASAN_OPTIONS", "exitcode=99", 1);
        setenv("UBSAN_OPTIONS", "print_stacktrace=1", 1);
        execv(argv[0], (char *const *) argv);
        _exit(127);
    }
    return pid;
}

static void
stop(pid_t *pid, int sig)
{
    int status = 0;

    if (*pid > 0) {
        kill(*pid, sig);
        waitpid(*pid, &status, 0);
        CHECK(sig != SIGTERM || status == 0);
        *pid = 0;
    }
}

static void
start_xenliftd(void)
{
    char program[300], hv[64], run_dir[64], guest_sock[64], worker[300];
    const char *argv[] = {program,
                          "--hv",
                          hv,
                          "--run-dir",
                          run_dir,
                          "--vafsd",
                          guest_sock,
                          "--worker",
                          worker,
                          "--user",
                          "nobody",
                          "--worker-option",
                          "--allow-loopback",
                          "--log-level",
                          "info",
                          NULL};
    json_t *json = NULL;

    snprintf(program, sizeof program, "%s/xenliftd", bin);
    snprintf(hv, sizeof hv, "local:%s@%d", dir, DRV);
    snprintf(run_dir, sizeof run_dir, "%s/run", dir);
    snprintf(guest_sock, sizeof guest_sock, "%s/vafs/guest.sock", dir);
    snprintf(worker, sizeof worker, "%s/xenlift-guest", bin);
    xenliftd = start(argv);
    for (int i = 0; i < 1500 && !json; i++) {
        usleep(10000);
        json = sup_ctl("version", NULL);
    }
    CHECK(json != NULL);
    json_decref(json);
}

static void
start_vafsd(void)
{
    char program[300], tool[300], store[64], run_dir[64], sock[96];
    const char *init[] = {tool, "init", store, NULL};
    const char *argv[] = {program,     "--store", store,
                          "--run-dir", run_dir,   NULL};
    pid_t pid;
    int status = -1;

    snprintf(program, sizeof program, "%s/vafsd", bin);
    snprintf(tool, sizeof tool, "%s/vafs", bin);
    snprintf(store, sizeof store, "%s/store", dir);
    snprintf(run_dir, sizeof run_dir, "%s/vafs", dir);
    snprintf(sock, sizeof sock, "%s/guest.sock", run_dir);
    if (access(store, F_OK)) {
        pid = start(init);
        waitpid(pid, &status, 0);
        CHECK(status == 0);
    }
    vafsd = start(argv);
    WAIT_FOR(!access(sock, F_OK));
}

/* A well-behaved guest. */

static struct hv *guest_hv;
static struct pvfront *f;

static void
guest_write(const char *node, const char *fmt, unsigned value)
{
    char path[128], text[32];

    snprintf(path, sizeof path, "/local/domain/%d/device/pvcalls/0/%s", GUEST,
             node);
    snprintf(text, sizeof text, fmt, value);
    MUST(hv_xs_write(guest_hv, HV_XS_NONE, path, text));
}

static void
guest_connect(void)
{
    CHECK(WAIT_FOR(back_state(GUEST, "pvcalls", 0) == XENBUS_INIT_WAIT));
    MUST(pvfront_create(guest_hv, DRV, &f));
    f->is_quiet = f->has_half_close = true;
    guest_write("ring-ref", "%u", f->ring_ref);
    guest_write("port", "%u", f->port);
    guest_write("version", "%u", 1);
    guest_write("feature-quiet", "%u", 1);
    guest_write("feature-half-close", "%u", 1);
    guest_write("state", "%u", 3);
    WAIT_FOR(back_state(GUEST, "pvcalls", 0) == XENBUS_CONNECTED);
    guest_write("state", "%u", 4);
}

static void
guest_disconnect(void)
{
    guest_write("state", "%u", 5);
    WAIT_FOR(back_state(GUEST, "pvcalls", 0) >= XENBUS_CLOSING);
    pvfront_destroy(f);
    f = NULL;
    guest_write("state", "%u", 6);
    WAIT_FOR(back_state(GUEST, "pvcalls", 0) == XENBUS_CLOSED);
    guest_write("state", "%u", 1);
}

static ssize_t
recv_some(struct pvfront_sock *s, void *buf, size_t size)
{
    uint64_t end = clock_mono_ns() + MS * NSEC_PER_MSEC;
    ssize_t n;

    while ((n = pvfront_recv(s, buf, size)) == -EAGAIN &&
           clock_mono_ns() < end) {
        pvfront_wait(f, 100);
    }
    return n;
}

static bool
echoes(struct pvfront_sock *s)
{
    char buf[16];
    size_t n = 0;

    if (pvfront_send(s, "hello, world", 12) != 12) {
        return false;
    }
    while (n < 12) {
        ssize_t k = recv_some(s, buf + n, 12 - n);

        if (k <= 0) {
            return false;
        }
        n += k;
    }
    return !memcmp(buf, "hello, world", 12);
}

static bool
connects(void)
{
    struct pvfront_sock *s;
    bool good;

    if (pvfront_connect(f, &echo_address, 1, MS, &s)) {
        return false;
    }
    good = echoes(s);
    return !pvfront_close(s, true, MS) && good;
}

/* Tests. */

static void
test_connect(void)
{
    WAIT_FOR(back_state(GUEST, "pvcalls", 0) == XENBUS_INIT_WAIT);
    CHECK(!strcmp(back_value(GUEST, "pvcalls", 0, "versions"), "1"));
    CHECK(!strcmp(back_value(GUEST, "pvcalls", 0, "function-calls"), "1"));
    guest_connect();
    CHECK(connects());
    guest_disconnect();
    guest_connect();
    CHECK(connects());
}

/* What `xenlift ARGUMENTS` prints as JSON in domain 'domid'; the exit status
 * goes to '*status'. */
static json_t *
xenlift(unsigned domid, const char *arguments, int *status)
{
    char command[700];
    json_t *json;
    FILE *p;

    snprintf(command, sizeof command,
             "%s/xenlift --hv local:%s@%u --run-dir %s/run --json %s", bin,
             dir, domid, dir, arguments);
    p = popen(command, "r");
    json = p ? json_loadf(p, 0, NULL) : NULL;
    *status = p ? WEXITSTATUS(pclose(p)) : -1;
    return json;
}

/* The administrator's view, from domain 0 and from the driver domain. */
static void
test_xenlift(void)
{
    static const unsigned views[] = {0, DRV};
    for (size_t i = 0; i < 2; i++) {
        const char *state = NULL;
        json_int_t pid = 0;
        json_t *json, *device = NULL;
        int status;

        json = xenlift(views[i], "lint", &status);
        CHECK(status == 0 && json != NULL);
        CHECK(json_integer_value(json_object_get(json, "devices")) == 2);
        if (status == 1) {
            json_dumpf(json, stderr, JSON_INDENT(1));
        }
        json_decref(json);

        guest_write("ring-ref", "x%u", 1);
        json = xenlift(views[i], "lint", &status);
        CHECK(status == 1);
        CHECK(json_integer_value(json_object_get(json, "violations")) == 1);
        json_decref(json);
        guest_write("ring-ref", "%u", f->ring_ref);

        json = xenlift(views[i], "show 5", &status);
        CHECK(status == 0);
        json_unpack(json, "[{s:[o], s:{s:{s:s, s:I}}}]", "devices", &device,
                    "daemon", "worker", "state", &state, "pid", &pid);
        CHECK(state && !strcmp(state, "running"));
        CHECK(pid == worker_pid(GUEST));
        CHECK(json_integer_value(json_object_get(device, "back_state")) == 4);
        CHECK(json_integer_value(json_object_get(device, "backend")) == DRV);
        json_decref(json);
    }
}

/* xenliftd is killed: the worker goes on, the next one adopts it. */
static void
test_supervisor_killed(void)
{
    pid_t worker = worker_pid(GUEST);
    struct pvfront_sock *s;

    MUST(pvfront_connect(f, &echo_address, 1, MS, &s));
    CHECK(worker > 0);
    stop(&xenliftd, SIGKILL);
    CHECK(echoes(s));
    start_xenliftd();
    WAIT_FOR(worker_pid(GUEST) == worker);
    CHECK(echoes(s));
    CHECK(back_state(GUEST, "pvcalls", 0) == XENBUS_CONNECTED);
    CHECK(!pvfront_close(s, false, MS));
    guest_disconnect();
    guest_connect();
    CHECK(connects());
}

/* The worker is killed: the device ends, and a new one works. */
static void
test_worker_killed(void)
{
    pid_t worker = worker_pid(GUEST);
    struct pvfront_sock *s;

    MUST(pvfront_connect(f, &echo_address, 1, MS, &s));
    CHECK(worker > 0);
    kill(worker, SIGKILL);
    WAIT_FOR(back_state(GUEST, "pvcalls", 0) >= XENBUS_CLOSING);
    pvfront_ring_put(f, s->ring, false);
    free(s);
    pvfront_destroy(f);
    guest_write("state", "%u", 6);
    WAIT_FOR(back_state(GUEST, "pvcalls", 0) == XENBUS_CLOSED);
    guest_write("state", "%u", 1);
    guest_connect();
    CHECK(worker_pid(GUEST) != worker);
    CHECK(connects());
}

/* All cases of the hostile frontend, in another guest; ours notices nothing.
 */
static void
test_hostile(void)
{
    char program[300], spec[64], target[64], command[900], line[256];
    pid_t worker = worker_pid(GUEST);
    FILE *p;

    ts_create(GUEST + 1);
    ts_add(GUEST + 1, "pvcalls", "pvcalls", 0, NULL);
    ts_add(GUEST + 1, "9pfs", "9pfs", 0, "branch/main");
    snprintf(program, sizeof program, "%s/hostile", bin);
    snprintf(spec, sizeof spec, "local:%s@%d", dir, GUEST + 1);
    snprintf(target, sizeof target, "127.0.0.1:%u",
             ntohs(echo_address.sin_port));
    snprintf(command, sizeof command, "%s --hv %s --connect %s", program, spec,
             target);
    p = popen(command, "r");
    while (p && fgets(line, sizeof line, p)) {
        if (!strncmp(line, "ok", 2) || !strncmp(line, "not ok", 6)) {
            const char *name = strchr(line, '-');

            n_tests++;
            n_failed += line[0] == 'n';
            printf("%sok %d %s", line[0] == 'n' ? "not " : "", n_tests, name);
        } else if (line[0] == '#') {
            fputs(line, stdout);
        }
    }
    CHECK(p && !pclose(p));
    CHECK(worker_pid(GUEST) == worker);
    CHECK(connects());
    ts_destroy(GUEST + 1);
    WAIT_FOR(worker_pid(GUEST + 1) == 0);
}

static void
test_nothing_left(void)
{
    struct hv_local_counts counts;

    guest_disconnect();
    hv_close(guest_hv);
    ts_destroy(GUEST);
    WAIT_FOR(worker_pid(GUEST) == 0);
    stop(&xenliftd, SIGTERM);
    MUST(hv_local_counts(dom0, &counts));
    CHECK(counts.n_maps == 0);
    CHECK(counts.n_grants == 0);
    CHECK(counts.n_ports == 0);
}

int
main(int argc, char *argv[])
{
    char spec[64];
    struct echo *echo;

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY-OF-PROGRAMS\n", argv[0]);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    bin = argv[1];
    echo = echo_start(&echo_address);
    env_start(bin);
    start_vafsd();
    start_xenliftd();
    ts_create(GUEST);
    ts_add(GUEST, "pvcalls", "pvcalls", 0, NULL);
    snprintf(spec, sizeof spec, "local:%s@%d", dir, GUEST);
    MUST(hv_open(spec, HV_ALLOC | HV_EVTCHN | HV_STORE, &guest_hv));
    run("a guest connects, twice", test_connect);
    run("xenlift lint and show", test_xenlift);
    run("xenliftd killed, worker adopted", test_supervisor_killed);
    run("worker killed", test_worker_killed);
    run("hostile frontends", test_hostile);
    run("nothing is left", test_nothing_left);
    stop(&xenliftd, SIGTERM);
    stop(&vafsd, SIGTERM);
    env_stop();
    echo_stop(echo);
    printf("1..%d\n", n_tests);
    return n_failed ? 1 : 0;
}
