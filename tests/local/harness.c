/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * harness.c - see harness.h.
 */
#include "tests/local/harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"

struct harness h = {.control = -1};

/* TAP. */

int n_failed__;
static int n_tests, n_checks_failed;

void
check_note(const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    printf("# ");
    vprintf(fmt, args);
    printf("\n");
    va_end(args);
}

void
check_failed(const char *file, int line, const char *what)
{
    printf("# %s:%d: %s\n", file, line, what);
    n_checks_failed++;
}

static void
die(const char *what, int error)
{
    printf("not ok - harness: %s: %s\n", what, strerror(error));
    fflush(stdout);
    if (h.worker > 0) {
        kill(h.worker, SIGKILL);
    }
    if (h.broker > 0) {
        kill(h.broker, SIGKILL);
    }
    _exit(1);
}

void
tap_run(const char *name, void (*test)(void))
{
    uint64_t start = clock_mono_ns();
    const char *only = getenv("ONLY");

    if (only && !strstr(name, only)) {
        return;
    }
    n_checks_failed = 0;
    test();
    n_tests++;
    if (n_checks_failed) {
        n_failed__++;
    }
    printf("%sok %d - %s (%llu ms)\n", n_checks_failed ? "not " : "", n_tests,
           name,
           (unsigned long long) ((clock_mono_ns() - start) / NSEC_PER_MSEC));
    fflush(stdout);
}

int
tap_end(void)
{
    printf("1..%d\n", n_tests);
    return n_failed__ ? 1 : 0;
}

void
sleep_ms(int ms)
{
    poll(NULL, 0, ms);
}

/* Broker. */

static pid_t
spawn(char *const argv[])
{
    pid_t pid = fork();

    if (!pid) {
        /* Nothing outlives a test that is killed. */
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(argv[0], argv);
        perror(argv[0]);
        _exit(127);
    }
    return pid;
}

/* Ends the process group's children even if the test dies. */
static void
on_alarm(int sig UNUSED)
{
    die("the whole program took too long", ETIMEDOUT);
}

void
harness_init(const char *argv0)
{
    char path[512], spec[128], self[256];
    char *argv[3] = {path, h.dir, NULL};
    struct stat st;

    signal(SIGPIPE, SIG_IGN);
    signal(SIGALRM, on_alarm);
    alarm(600);
    setvbuf(stdout, NULL, _IOLBF, 0);
    snprintf(self, sizeof self, "%s", argv0);
    snprintf(h.bin, sizeof h.bin, "%s", dirname(self));
    strcpy(h.dir, "/tmp/xenlift-local-XXXXXX");
    if (!mkdtemp(h.dir)) {
        die("mkdtemp", errno);
    }
    snprintf(path, sizeof path, "%s/xenlift-broker", h.bin);
    h.broker = spawn(argv);
    snprintf(path, sizeof path, "%s/broker", h.dir);
    for (int i = 0; i < 500 && stat(path, &st); i++) {
        sleep_ms(10);
    }
    snprintf(spec, sizeof spec, "local:%s@0", h.dir);
    for (int i = 0; i < 100; i++) {
        int error = hv_open(spec, HV_STORE, &h.back);

        if (!error) {
            break;
        }
        sleep_ms(10);
    }
    if (!h.back) {
        die("no broker", ENOENT);
    }
    if (hv_local_domain_create(h.back, GUEST, "guest", NULL)) {
        die("cannot create the domain", EIO);
    }
    snprintf(spec, sizeof spec, "local:%s@%d", h.dir, GUEST);
    if (hv_open(spec, HV_ALLOC | HV_EVTCHN | HV_STORE, &h.front)) {
        die("cannot open the guest's side", EIO);
    }
}

void
harness_destroy(void)
{
    char path[128];
    int status;

    hv_close(h.front);
    hv_close(h.back);
    kill(h.broker, SIGTERM);
    waitpid(h.broker, &status, 0);
    snprintf(path, sizeof path, "%s/worker.sock", h.dir);
    unlink(path);
    snprintf(path, sizeof path, "%s/broker", h.dir);
    unlink(path);
    rmdir(h.dir);
}

/* Worker. */

static void
send_hello(struct wp_hello_reply *ret)
{
    struct wp_hello hello = {.h = {.type = WP_HELLO, .seq = ++h.seq},
                             .version = WP_VERSION,
                             .domid = GUEST,
                             .name = "guest"};
    struct wp_hello_reply reply;
    struct pollfd pfd = {.fd = h.control, .events = POLLIN};

    if (send(h.control, &hello, sizeof hello, 0) < 0) {
        die("hello", errno);
    }
    if (poll(&pfd, 1, 20000) <= 0 ||
        recv(h.control, &reply, sizeof reply, 0) != sizeof reply ||
        reply.h.type != WP_HELLO_REPLY) {
        die("no answer to hello", EPROTO);
    }
    if (ret) {
        *ret = reply;
    }
}

/* Starts the worker with extra 'options' (ended by NULL). */
void
harness_worker_start(const char *const options[])
{
    char program[512], spec[128], sock[128], domid[8];
    const char *argv[32] = {program, "--hv", spec, "--domid", domid};
    int pair[2], listen_fd, grant_fd, evtchn_fd;
    int n = 5;

    snprintf(program, sizeof program, "%s/xenlift-guest", h.bin);
    snprintf(spec, sizeof spec, "local:%s", h.dir);
    snprintf(sock, sizeof sock, "%s/worker.sock", h.dir);
    snprintf(domid, sizeof domid, "%d", GUEST);
    for (; options && *options; options++) {
        argv[n++] = *options;
    }
    argv[n] = NULL;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair)) {
        die("socketpair", errno);
    }
    unlink(sock);
    if (unix_listen(sock, SOCK_SEQPACKET, 0600, &listen_fd) ||
        hv_open_worker_fds(h.back, GUEST, &grant_fd, &evtchn_fd)) {
        die("cannot open the worker's descriptors", EIO);
    }
    h.worker = fork();
    if (!h.worker) {
        int fds[] = {pair[1], listen_fd, grant_fd, evtchn_fd};

        /* Out of the way first, then to their places. */
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
            fds[i] = fcntl(fds[i], F_DUPFD, 100);
        }
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
            dup2(fds[i], WP_FD_CONTROL + i);
        }
        /* A report goes to stderr: the worker cannot open a file. */
        setenv("ASAN_OPTIONS", "exitcode=99", 1);
        setenv("UBSAN_OPTIONS", "print_stacktrace=1", 1);
        execv(program, (char *const *) argv);
        _exit(127);
    }
    close(pair[1]);
    close(listen_fd);
    close(grant_fd);
    close(evtchn_fd);
    h.control = pair[0];
    send_hello(NULL);
}

void
harness_worker_quit(void)
{
    struct wp_header msg = {.type = WP_QUIT};
    int status = -1;

    send(h.control, &msg, sizeof msg, MSG_NOSIGNAL);
    for (int i = 0; i < 1000; i++) {
        if (waitpid(h.worker, &status, WNOHANG) == h.worker) {
            h.worker = 0;
            break;
        }
        sleep_ms(10);
    }
    if (h.worker) {
        CHECK(!"the worker did not end");
        kill(h.worker, SIGKILL);
        waitpid(h.worker, &status, 0);
        h.worker = 0;
    }
    CHECK_EQ(status, 0);
    close(h.control);
    h.control = -1;
}

void
harness_supervisor_dies(void)
{
    close(h.control);
    h.control = -1;
}

void
harness_adopt(struct wp_hello_reply *ret)
{
    char sock[128];

    snprintf(sock, sizeof sock, "%s/worker.sock", h.dir);
    if (unix_connect(sock, SOCK_SEQPACKET, &h.control)) {
        die("cannot connect to the worker", EIO);
    }
    send_hello(ret);
}

bool
harness_wait_state(int timeout_ms)
{
    struct pollfd pfd = {.fd = h.control, .events = POLLIN};

    if (poll(&pfd, 1, timeout_ms) <= 0) {
        return false;
    }
    return recv(h.control, &h.state, sizeof h.state, 0) == sizeof h.state &&
           h.state.h.type == WP_DEVICE_STATE;
}

void
harness_device_add(uint32_t kind, uint32_t devid,
                   const union wp_geometry *geometry, int fd)
{
    struct wp_device_add add = {.h = {.type = WP_DEVICE_ADD, .seq = ++h.seq},
                                .kind = kind,
                                .devid = devid,
                                .generation = ++h.generation,
                                .geometry = *geometry};
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec iov = {.iov_base = &add, .iov_len = sizeof add};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        struct cmsghdr *cmsg;

        memset(&control, 0, sizeof control);
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof control.bytes;
        cmsg = CMSG_FIRSTHDR(&msg);
        cmsg->cmsg_level = SOL_SOCKET;
        cmsg->cmsg_type = SCM_RIGHTS;
        cmsg->cmsg_len = CMSG_LEN(sizeof fd);
        memcpy(CMSG_DATA(cmsg), &fd, sizeof fd);
    }
    CHECK(sendmsg(h.control, &msg, 0) > 0);
    CHECK(harness_wait_state(10000));
    CHECK_EQ(h.state.generation, h.generation);
}

void
harness_device_remove(uint32_t kind, uint32_t devid)
{
    struct wp_device_remove msg = {.h = {.type = WP_DEVICE_REMOVE},
                                   .kind = kind,
                                   .devid = devid,
                                   .generation = h.generation};

    CHECK(send(h.control, &msg, sizeof msg, 0) > 0);
    do {
        if (!harness_wait_state(10000)) {
            CHECK(!"no answer to WP_DEVICE_REMOVE");
            return;
        }
    } while (h.state.state != WP_CLOSED);
}

json_t *
harness_stats(enum wp_stats_what what)
{
    struct wp_stats msg = {.h = {.type = WP_STATS, .seq = ++h.seq},
                           .what = what};
    static char buf[WP_MAX_PACKET];
    struct pollfd pfd = {.fd = h.control, .events = POLLIN};
    ssize_t n;

    send(h.control, &msg, sizeof msg, 0);
    while (poll(&pfd, 1, 10000) > 0) {
        n = recv(h.control, buf, sizeof buf, 0);
        if (n < (ssize_t) sizeof(struct wp_header)) {
            break;
        }
        if (((struct wp_header *) buf)->type == WP_STATS_REPLY) {
            return json_loadb(buf + sizeof(struct wp_header),
                              n - sizeof(struct wp_header), 0, NULL);
        }
    }
    CHECK(!"no statistics");
    return json_object();
}

long long
harness_coverage(const char *name)
{
    json_t *json = harness_stats(WP_STATS_COVERAGE);
    long long n = json_integer_value(json_object_get(json, name));

    json_decref(json);
    return n;
}

/* Counting. */

int
harness_count_fds(pid_t pid)
{
    char path[64];
    struct dirent *e;
    int n = 0;
    DIR *dir;

    snprintf(path, sizeof path, "/proc/%d/fd", (int) pid);
    dir = opendir(path);
    if (!dir) {
        return -1;
    }
    while ((e = readdir(dir))) {
        n += e->d_name[0] != '.';
    }
    closedir(dir);
    return n;
}

long
harness_cpu_ms(pid_t pid)
{
    char path[64];
    unsigned long user = 0, sys = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/stat", (int) pid);
    f = fopen(path, "r");
    if (f) {
        if (fscanf(f,
                   "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u "
                   "%lu %lu",
                   &user, &sys) != 2) {
            user = sys = 0;
        }
        fclose(f);
    }
    return (user + sys) * 1000 / sysconf(_SC_CLK_TCK);
}

/* Resident, without what is shared with other processes (granted pages). */
long
harness_rss_kib(pid_t pid)
{
    char path[64];
    long size, resident = 0, shared = 0;
    FILE *f;

    snprintf(path, sizeof path, "/proc/%d/statm", (int) pid);
    f = fopen(path, "r");
    if (f) {
        if (fscanf(f, "%ld %ld %ld", &size, &resident, &shared) != 3) {
            resident = 0;
        }
        fclose(f);
    }
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

void
harness_counts(struct hv_local_counts *ret)
{
    memset(ret, 0, sizeof *ret);
    CHECK_EQ(hv_local_counts(h.back, ret), 0);
}
