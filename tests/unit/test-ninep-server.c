/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 9P server over files in memory, where time can be stopped: flush, reset
 * and end of a session while requests run, back-pressure, order. */

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/coverage.h"
#include "lib/loop.h"
#include "lib/ninep/client.h"
#include "lib/vlog.h"
#include "tests/unit/fake-branch.h"
#include "vafs-server/ninep/server.h"
#include "vafs-server/view/view.h"

static struct loop *loop;
static struct view *view;
static struct server *server;
static pthread_t thread;

static void *
run(void *aux)
{
    (void) aux;
    loop_run(loop);
    return NULL;
}

static void
start(uint64_t memory)
{
    struct server_options options = {.n_threads = 4, .memory = memory};

    cr_assert_eq(vlog_set_level("off"), 0);
    fake_wait = 0;
    cr_assert_eq(loop_create(&loop), 0);
    cr_assert_eq(view_create(NULL, &view), 0);
    cr_assert_eq(server_create(loop, view, &options, &server), 0);
}

static void
go(void)
{
    cr_assert_eq(pthread_create(&thread, NULL, run, NULL), 0);
}

static void
stop(void)
{
    loop_stop(loop);
    pthread_join(thread, NULL);
    server_destroy(server);
    view_destroy(view);
    loop_destroy(loop);
}

/* A client; only before go(). */
static struct ninep_client *
add_client(void)
{
    struct ninep_client *c;
    int fds[2];

    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    cr_assert_eq(server_add(server, fds[0], false), 0);
    cr_assert_eq(ninep_client_from_fd(fds[1], &c), 0);
    return c;
}

static void
hello(struct ninep_client *c, uint32_t msize)
{
    cr_assert_eq(ninep_client_version(c, msize), 0);
    cr_assert_eq(ninep_attach(c, 0, "root", "", 0, NULL), 0);
}

static void
make_file(struct ninep_client *c, uint32_t fid, const char *name)
{
    cr_assert_eq(ninep_walk(c, 0, fid, 0, NULL, NULL, NULL), 0);
    cr_assert_eq(ninep_lcreate(c, fid, name, NINEP_O_RDWR, 0644, 0, NULL), 0);
}

static uint16_t
send_fsync(struct ninep_client *c, uint32_t fid)
{
    struct ninep_msg t = {.type = NINEP_TFSYNC};
    uint16_t tag;

    t.tfsync.fid = fid;
    cr_assert_eq(ninep_client_send(c, &t, &tag), 0);
    cr_assert_eq(ninep_client_push(c), 0);
    return tag;
}

/* Waits until 'n' more requests than 'before' went to the pool. */
static void
wait_pool(uint64_t before, unsigned int n)
{
    uint64_t end = clock_mono_ns() + 10 * NSEC_PER_SEC;

    while (coverage_read("ninep_on_pool") < before + n) {
        cr_assert_lt(clock_mono_ns(), end, "it never came to the pool");
        usleep(1000);
    }
    /* And a thread has taken it. */
    usleep(20000);
}

Test(server, flush_of_running_request)
{
    struct ninep_client *c;
    struct ninep_msg t = {.type = NINEP_TFLUSH}, r;
    struct ninep_attr attr;
    uint16_t tag, flush;
    uint64_t before;

    start(0);
    c = add_client();
    go();
    hello(c, 8192);
    make_file(c, 1, "f");
    before = coverage_read("ninep_on_pool");
    pthread_mutex_lock(&fake_fsync_gate);
    tag = send_fsync(c, 1);
    wait_pool(before, 1);
    t.tflush.oldtag = tag;
    cr_assert_eq(ninep_client_send(c, &t, &flush), 0);
    cr_assert_eq(ninep_client_wait_ms(c, flush, 100, &r), ETIMEDOUT,
                 "Rflush waits for what runs");
    cr_assert_eq(ninep_getattr(c, 1, NINEP_GETATTR_ALL, &attr), 0,
                 "the session goes on");
    pthread_mutex_unlock(&fake_fsync_gate);
    cr_assert_eq(ninep_client_wait_ms(c, flush, 10000, &r), 0);
    cr_assert_eq(ninep_client_wait_ms(c, tag, 0, &r), 0,
                 "and comes after its answer");
    ninep_client_close(c);
    stop();
}

Test(server, flush_of_waiting_request)
{
    struct ninep_client *c;
    struct ninep_msg r;
    uint16_t tags[5];
    uint64_t before;

    start(0);
    c = add_client();
    go();
    hello(c, 8192);
    make_file(c, 1, "f");
    before = coverage_read("ninep_on_pool");
    pthread_mutex_lock(&fake_fsync_gate);
    /* Four threads: the fifth waits. */
    for (int i = 0; i < 5; i++) {
        tags[i] = send_fsync(c, 1);
    }
    wait_pool(before, 5);
    cr_assert_eq(ninep_flush(c, tags[4]), 0, "Rflush comes at once");
    pthread_mutex_unlock(&fake_fsync_gate);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(ninep_client_wait_ms(c, tags[i], 10000, &r), 0);
    }
    cr_assert_eq(ninep_client_wait_ms(c, tags[4], 50, &r), ETIMEDOUT,
                 "it is dropped");
    ninep_client_close(c);
    stop();
}

Test(server, version_while_requests_run)
{
    struct ninep_client *c;
    struct ninep_msg t = {.type = NINEP_TVERSION}, r;
    uint16_t tags[6], tag;
    uint64_t before;

    start(0);
    c = add_client();
    go();
    hello(c, 8192);
    make_file(c, 1, "f");
    before = coverage_read("ninep_on_pool");
    pthread_mutex_lock(&fake_fsync_gate);
    for (int i = 0; i < 6; i++) {
        tags[i] = send_fsync(c, 1);
    }
    wait_pool(before, 6);
    t.version.msize = 4096;
    t.version.version = ninep_str(NINEP_VERSION_L);
    cr_assert_eq(ninep_client_send(c, &t, &tag), 0);
    cr_assert_eq(ninep_client_wait_ms(c, tag, 100, &r), ETIMEDOUT,
                 "Rversion waits for what runs");
    pthread_mutex_unlock(&fake_fsync_gate);
    cr_assert_eq(ninep_client_wait_ms(c, tag, 10000, &r), 0);
    cr_assert_eq(r.version.msize, 4096);
    for (int i = 0; i < 6; i++) {
        cr_assert_eq(ninep_client_wait_ms(c, tags[i], 20, &r), ETIMEDOUT,
                     "no answer of the old life");
    }
    cr_assert_eq(ninep_clunk(c, 1), EBADF, "no fid of the old life");
    ninep_client_close(c);
    stop();
}

/* The client goes while its requests run; others notice nothing. */
Test(server, end_while_requests_run)
{
    struct ninep_client *c, *other;
    uint64_t before, closed;
    struct ninep_msg t = {.type = NINEP_TLOCK}, r;
    uint16_t tag;

    start(0);
    c = add_client();
    other = add_client();
    go();
    hello(c, 8192);
    hello(other, 8192);
    make_file(c, 1, "f");
    cr_assert_eq(ninep_walk(other, 0, 1, 1, (const char *[]){"f"}, NULL, NULL),
                 0);
    t.lock = (struct ninep_lock){
        .fid = 1, .type = NINEP_LOCK_WRLCK, .client_id = ninep_str("c")};
    cr_assert_eq(ninep_client_call(c, &t, &r), 0);
    t.lock.flags = NINEP_LOCK_FLAGS_BLOCK;
    cr_assert_eq(ninep_client_send(other, &t, &tag), 0);
    cr_assert_eq(ninep_client_wait_ms(other, tag, 50, &r), ETIMEDOUT);
    before = coverage_read("ninep_on_pool");
    pthread_mutex_lock(&fake_fsync_gate);
    for (int i = 0; i < 6; i++) {
        send_fsync(c, 1);
    }
    wait_pool(before, 6);
    closed = coverage_read("ninep_session_close");
    ninep_client_close(c);
    cr_assert_eq(ninep_client_wait_ms(other, tag, 10000, &r), 0,
                 "its lock is free although its requests still run");
    cr_assert_eq(coverage_read("ninep_session_close"), closed + 1);
    pthread_mutex_unlock(&fake_fsync_gate);
    cr_assert_eq(ninep_clunk(other, 1), 0);
    ninep_client_close(other);
    stop();
}

/* More requests than a session may have on the pool: the rest waits in order,
 * also when an answer is pushed to the session meanwhile (a lock granted). */
Test(server, backlog_keeps_order)
{
    struct ninep_client *c, *other;
    struct ninep_msg lock = {.type = NINEP_TLOCK}, r;
    uint16_t tags[150], write_tags[20], lock_tag;
    struct ninep_attr attr;
    uint64_t before;

    start(0);
    c = add_client();
    other = add_client();
    go();
    hello(c, 8192);
    hello(other, 8192);
    make_file(c, 1, "f");
    cr_assert_eq(ninep_walk(other, 0, 1, 1, (const char *[]){"f"}, NULL, NULL),
                 0);
    lock.lock = (struct ninep_lock){
        .fid = 1, .type = NINEP_LOCK_WRLCK, .client_id = ninep_str("c")};
    cr_assert_eq(ninep_client_call(other, &lock, &r), 0);
    lock.lock.flags = NINEP_LOCK_FLAGS_BLOCK;
    cr_assert_eq(ninep_client_send(c, &lock, &lock_tag), 0);
    cr_assert_eq(ninep_client_wait_ms(c, lock_tag, 50, &r), ETIMEDOUT);
    before = coverage_read("ninep_on_pool");
    pthread_mutex_lock(&fake_fsync_gate);
    for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
        tags[i] = send_fsync(c, 1);
    }
    wait_pool(before, 64);
    for (size_t i = 0; i < ARRAY_SIZE(write_tags); i++) {
        struct ninep_msg t = {.type = NINEP_TWRITE};
        uint8_t byte = i;

        t.twrite.fid = 1;
        t.twrite.offset = 0;
        t.twrite.data = (struct ninep_data){&byte, 1};
        cr_assert_eq(ninep_client_send(c, &t, &write_tags[i]), 0);
        cr_assert_eq(ninep_client_push(c), 0);
    }
    cr_assert_eq(coverage_read("ninep_on_pool"), before + 64, "no more");
    lock.lock.flags = 0;
    lock.lock.type = NINEP_LOCK_UNLCK;
    cr_assert_eq(ninep_client_call(other, &lock, &r), 0);
    cr_assert_eq(ninep_client_wait_ms(c, lock_tag, 10000, &r), 0,
                 "answers still come");
    usleep(50000);
    pthread_mutex_unlock(&fake_fsync_gate);
    for (size_t i = 0; i < ARRAY_SIZE(tags); i++) {
        cr_assert_eq(ninep_client_wait_ms(c, tags[i], 10000, &r), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(write_tags); i++) {
        cr_assert_eq(ninep_client_wait_ms(c, write_tags[i], 10000, &r), 0);
    }
    {
        uint8_t byte = 99;
        uint32_t n;

        cr_assert_eq(ninep_read(c, 1, 0, &byte, 1, &n), 0);
        cr_assert_eq(byte, ARRAY_SIZE(write_tags) - 1,
                     "the last write came last");
    }
    cr_assert_eq(ninep_getattr(c, 1, NINEP_GETATTR_ALL, &attr), 0);
    ninep_client_close(c);
    ninep_client_close(other);
    stop();
}

/* Clients that ask for much and read nothing: memory stays within the budget
 * and one answer for each, and others are served. */
Test(server, deaf_clients)
{
    struct ninep_client *c[9];
    struct ninep_msg t = {.type = NINEP_TREAD};
    struct ninep_attr attr;
    uint32_t msize = 1 << 20;
    json_t *stats;
    json_int_t bytes;

    start(4 << 20);
    for (int i = 0; i < 9; i++) {
        c[i] = add_client();
    }
    go();
    for (int i = 0; i < 9; i++) {
        hello(c[i], msize);
    }
    make_file(c[8], 1, "f");
    cr_assert_eq(ninep_write_all(c[8], 1, msize - 1, "x", 1), 0);
    t.tread.count = msize;
    for (int i = 0; i < 8; i++) {
        uint8_t buf[64];
        size_t size, n = 0;

        cr_assert_eq(
            ninep_walk(c[i], 0, 1, 1, (const char *[]){"f"}, NULL, NULL), 0);
        cr_assert_eq(ninep_lopen(c[i], 1, NINEP_O_RDONLY, NULL, NULL), 0);
        t.tread.fid = 1;
        cr_assert_eq(ninep_encode(&t, buf, sizeof buf, &size), 0);
        while (n < 2000 && send(ninep_client_fd(c[i]), buf, size,
                                MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
            n++;
        }
        cr_assert_gt(n, 20);
    }
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(ninep_getattr(c[8], 1, NINEP_GETATTR_ALL, &attr), 0);
        usleep(1000);
    }
    stats = server_stats_json(server);
    bytes = json_integer_value(json_object_get(stats, "buffer_bytes"));
    json_decref(stats);
    /* Each may go on while it holds nothing: then it may queue answers until
     * it is over msize, and have MAX_ON_POOL more under way... which the
     * budget stops. */
    cr_assert_leq(bytes, (4 << 20) + 8 * 3 * (msize + 65536), "%lld bytes",
                  (long long) bytes);
    for (int i = 0; i < 9; i++) {
        ninep_client_close(c[i]);
    }
    stop();
}

/* Values of attributes that are opened and never clunked. */
Test(server, xattr_memory)
{
    static char value[65536];
    struct ninep_client *c;
    int error = 0, n = 0;

    start(0);
    c = add_client();
    go();
    hello(c, 65536);
    make_file(c, 1, "f");
    cr_assert_eq(ninep_setxattr(c, 1, "user.big", value, sizeof value, 0), 0);
    for (; n < 1000 && !error; n++) {
        struct ninep_msg t = {.type = NINEP_TXATTRWALK}, r;

        t.txattrwalk.fid = 1;
        t.txattrwalk.newfid = 1000 + n;
        t.txattrwalk.name = ninep_str("user.big");
        error = ninep_client_call(c, &t, &r);
    }
    cr_assert_neq(error, 0, "there is a limit");
    cr_assert_lt(n, 100);
    ninep_client_close(c);
    stop();
}

/* A client_id longer than a host name. */
Test(server, long_client_id)
{
    static char id[4000];
    struct ninep_client *c;
    struct ninep_lock lock = {.fid = 1, .type = NINEP_LOCK_WRLCK}, got;
    uint8_t status;

    memset(id, 'h', sizeof id);
    start(0);
    c = add_client();
    go();
    hello(c, 8192);
    make_file(c, 1, "f");
    lock.client_id = (struct ninep_str){id, sizeof id};
    cr_assert_eq(ninep_lock(c, &lock, &status), EINVAL);
    cr_assert_eq(ninep_getlock(c, &lock, &got), EINVAL);
    ninep_client_close(c);
    stop();
}

/* Everything that a session had is gone with it. */
Test(server, nothing_is_left)
{
    struct ninep_client *c;
    unsigned int before;
    char name[16];

    start(0);
    c = add_client();
    go();
    hello(c, 8192);
    before = fake_n_files;
    for (int i = 0; i < 100; i++) {
        snprintf(name, sizeof name, "f%d", i);
        make_file(c, 100 + i, name);
        cr_assert_eq(ninep_unlinkat(c, 0, name, 0), 0);
    }
    cr_assert_eq(fake_n_files, before + 100, "open files live");
    ninep_client_close(c);
    stop();
    cr_assert_eq(fake_n_files, before);
}

Test(view, names)
{
    static const struct {
        const char *text;
        int error;
        const char *branch, *version, *subdir;
        bool is_view, read_only;
    } rows[] = {
        {"", 0, "", "", "", false, false},
        {"/", 0, "", "", "", false, false},
        {"/a//b/", 0, "", "", "a/b", false, false},
        {":/a", 0, "", "", "a", false, false},
        {":", 0, "", "", "", false, false},
        {"+ro", 0, "", "", "", false, true},
        {"branch/main", 0, "main", "", "", false, false},
        {"branch/a/b.c-d_e", 0, "a/b.c-d_e", "", "", false, false},
        {"branch/main@12", 0, "main", "12", "", false, false},
        {"branch/main@-2h:/x", 0, "main", "-2h", "x", false, false},
        {"branch/main:/x+ro", 0, "main", "", "x", false, true},
        {"branch/main+ro", 0, "main", "", "", false, true},
        {"view/alice", 0, "alice", "", "", true, false},
        {"view/alice@1", EINVAL, 0, 0, 0, 0, 0},
        {"branch/", EINVAL, 0, 0, 0, 0, 0},
        {"branch/main@", EINVAL, 0, 0, 0, 0, 0},
        {"branch//x", EINVAL, 0, 0, 0, 0, 0},
        {"branch/x/", EINVAL, 0, 0, 0, 0, 0},
        {"branch/a b", EINVAL, 0, 0, 0, 0, 0},
        {"branch/a,b", EINVAL, 0, 0, 0, 0, 0},
        {"branch/a=b", EINVAL, 0, 0, 0, 0, 0},
        {"main", EINVAL, 0, 0, 0, 0, 0},
        {"branch/main:x", EINVAL, 0, 0, 0, 0, 0},
        {"branch/main:/a/../b", EINVAL, 0, 0, 0, 0, 0},
        {"/..", EINVAL, 0, 0, 0, 0, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct view_name name;
        const char *reason = NULL;
        int error = view_name_parse(rows[i].text, strlen(rows[i].text), &name,
                                    &reason);

        cr_assert_eq(error, rows[i].error, "\"%s\": %d", rows[i].text, error);
        if (error) {
            cr_assert_not_null(reason);
            continue;
        }
        cr_assert_str_eq(name.branch, rows[i].branch);
        cr_assert_str_eq(name.version, rows[i].version);
        cr_assert_str_eq(name.subdir, rows[i].subdir);
        cr_assert_eq(name.is_view, rows[i].is_view);
        cr_assert_eq(name.read_only, rows[i].read_only);
    }
}

Test(view, narrowing)
{
    static const struct {
        const char *bound, *asked;
        int error;
        const char *subdir;
        bool read_only;
    } rows[] = {
        {"branch/main:/g", "", 0, "g", false},
        {"branch/main:/g", "/x", 0, "g/x", false},
        {"branch/main:/g+ro", "/x", 0, "g/x", true},
        {"branch/main:/g", "/x+ro", 0, "g/x", true},
        {"branch/main:/g+ro", "branch/main:/g/y", 0, "g/y", true},
        {"branch/main:/g", "branch/main:/g", 0, "g", false},
        {"branch/main:/g", "branch/main", EACCES, NULL, false},
        {"branch/main:/g", "branch/main:/gg", EACCES, NULL, false},
        {"branch/main:/g", "branch/other:/g", EACCES, NULL, false},
        {"branch/main:/g", "branch/main@1:/g", EACCES, NULL, false},
        {"branch/main:/g", "view/main:/g", EACCES, NULL, false},
        {"", "branch/main:/x", 0, "x", false},
        {"", "branch/other", EACCES, NULL, false},
        {"branch/main", "", 0, "", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct view_name bound, asked, got;
        int error;

        cr_assert_eq(view_name_parse(rows[i].bound, strlen(rows[i].bound),
                                     &bound, NULL),
                     0);
        cr_assert_eq(view_name_parse(rows[i].asked, strlen(rows[i].asked),
                                     &asked, NULL),
                     0);
        error = view_name_narrow(&bound, &asked, &got, NULL);
        cr_assert_eq(error, rows[i].error, "%s by %s", rows[i].bound,
                     rows[i].asked);
        if (!error) {
            cr_assert_str_eq(got.subdir, rows[i].subdir);
            cr_assert_eq(got.read_only, rows[i].read_only);
        }
    }
}
