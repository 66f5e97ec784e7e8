/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * test-lib.c - lib: sizes, lists, timers, posts, counters, rate limits and the
 * control socket.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/coverage.h"
#include "lib/ctl.h"
#include "lib/loop.h"
#include "lib/vlog.h"

COVERAGE_DEFINE(test_lib_counter);

Test(util, parse_size)
{
    static const struct {
        const char *s;
        int error;
        uint64_t size;
    } rows[] = {
        {"0", 0, 0},
        {"4096", 0, 4096},
        {"64k", 0, 65536},
        {"64KiB", 0, 65536},
        {"256M", 0, UINT64_C(256) << 20},
        {"2T", 0, UINT64_C(2) << 40},
        {"1GB", 0, UINT64_C(1) << 30},
        {"", EINVAL, 0},
        {"-1", EINVAL, 0},
        {"1X", EINVAL, 0},
        {"1kx", EINVAL, 0},
        {"k", EINVAL, 0},
        {"99999999999999999999", ERANGE, 0},
        {"18446744073709551615k", ERANGE, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        uint64_t size = 0;
        int error = parse_size(rows[i].s, &size);

        cr_assert_eq(error, rows[i].error, "%s: %d", rows[i].s, error);
        cr_assert_eq(size, rows[i].size, "%s", rows[i].s);
    }
}

Test(util, bytes_and_descriptors)
{
    char buf[8];
    int fds[2];

    put_le64(buf, UINT64_C(0x0102030405060708));
    cr_assert_eq(buf[0], 8);
    cr_assert_eq(get_be64(buf), UINT64_C(0x0807060504030201));
    put_be32(buf, 0x01020304);
    cr_assert_eq(buf[0], 1);
    cr_assert_eq(get_le16(buf), 0x0201);

    cr_assert_eq(pipe(fds), 0);
    cr_assert_eq(write_full(fds[1], "abcd", 4), 0);
    close(fds[1]);
    cr_assert_eq(read_full(fds[0], buf, 4), 0);
    cr_assert_eq(read_full(fds[0], buf, 4), ENODATA);
    close(fds[0]);
}

Test(util, directories_and_sockets)
{
    char dir[] = "/tmp/test-lib-XXXXXX", path[128], deep[64];
    int fd, fd2, client;

    cr_assert(mkdtemp(dir));
    snprintf(deep, sizeof deep, "%s/a/b", dir);
    cr_assert_eq(make_directories(deep, 0755), 0);
    cr_assert_eq(make_directories(deep, 0755), 0);
    snprintf(path, sizeof path, "%s/s", deep);
    cr_assert_eq(unix_listen(path, SOCK_STREAM, 0600, &fd), 0);
    cr_assert_eq(unix_listen(path, SOCK_STREAM, 0600, &fd2), EADDRINUSE);
    cr_assert_eq(unix_connect(path, SOCK_STREAM, &client), 0);
    close(client);
    close(fd);
    cr_assert_eq(unix_connect(path, SOCK_STREAM, &client), ECONNREFUSED);
    cr_assert_eq(unix_listen(path, SOCK_STREAM, 0600, &fd), 0,
                 "a dead socket is replaced");
    close(fd);
    unlink(path);
    rmdir(deep);
    *strrchr(deep, '/') = '\0';
    rmdir(deep);
    rmdir(dir);
    cr_assert_eq(unix_connect(path, SOCK_STREAM, &client), ENOENT);
}

struct order {
    struct loop *loop;
    int seen[8];
    int n;
};

static void
order_1(void *o_)
{
    struct order *o = o_;

    o->seen[o->n++] = 1;
}

static void
order_2(void *o_)
{
    struct order *o = o_;

    o->seen[o->n++] = 2;
    loop_stop(o->loop);
}

static void *
post_from_thread(void *o_)
{
    struct order *o = o_;

    cr_assert_eq(loop_post(o->loop, order_2, o), 0);
    return NULL;
}

Test(loop, timers_in_order)
{
    struct order o = {0};
    struct loop_timer a, b, c;
    uint64_t now = clock_mono_ns();

    cr_assert_eq(loop_create(&o.loop), 0);
    loop_timer_init(&a, order_2, &o);
    loop_timer_init(&b, order_1, &o);
    loop_timer_init(&c, order_1, &o);
    loop_timer_set_abs(o.loop, &a, now + 3);
    loop_timer_set_abs(o.loop, &b, now + 1);
    loop_timer_set_abs(o.loop, &c, now + 2);
    loop_timer_cancel(&c);
    loop_run(o.loop);
    cr_assert_eq(o.n, 2);
    cr_assert_eq(o.seen[0], 1);
    cr_assert_eq(o.seen[1], 2);
    loop_destroy(o.loop);
}

Test(loop, post_wakes)
{
    struct order o = {0};
    pthread_t thread;

    cr_assert_eq(loop_create(&o.loop), 0);
    cr_assert_eq(pthread_create(&thread, NULL, post_from_thread, &o), 0);
    loop_run(o.loop);
    pthread_join(thread, NULL);
    cr_assert_eq(o.n, 1);
    cr_assert_eq(loop_post(o.loop, order_1, &o), 0);
    loop_destroy(o.loop); /* Frees what was posted and never ran. */
}

struct pair {
    struct loop *loop;
    struct loop_fd *handles[2];
    int n_calls;
};

static void
delete_other(uint32_t events, void *p_)
{
    struct pair *p = p_;

    p->n_calls++;
    loop_del_fd(p->loop, p->handles[0]);
    loop_del_fd(p->loop, p->handles[1]);
    p->handles[0] = p->handles[1] = NULL;
}

Test(loop, deleted_descriptor_is_silent_within_its_batch)
{
    struct pair p = {0};
    int fds[2][2];

    cr_assert_eq(loop_create(&p.loop), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(pipe(fds[i]), 0);
        cr_assert_eq(write_full(fds[i][1], "x", 1), 0);
        cr_assert_eq(loop_add_fd(p.loop, fds[i][0], EPOLLIN, delete_other, &p,
                                 &p.handles[i]),
                     0);
    }
    loop_run_once(p.loop, 0);
    loop_run_once(p.loop, 0);
    cr_assert_eq(p.n_calls, 1);
    for (int i = 0; i < 2; i++) {
        close(fds[i][0]);
        close(fds[i][1]);
    }
    loop_destroy(p.loop);
}

Test(coverage, counts)
{
    cr_assert_eq(coverage_read("test_lib_counter"), 0);
    COVERAGE_INC(test_lib_counter);
    COVERAGE_ADD(test_lib_counter, 4);
    cr_assert_eq(coverage_read("test_lib_counter"), 5);
    cr_assert_eq(coverage_read("no such counter"), 0);
}

/* A guest's words end up in the log: one line stays one line, and nothing in
 * it speaks to a terminal. */
Test(vlog, control_characters)
{
    int saved = dup(STDERR_FILENO), pair[2];
    char line[512], longest[2000];
    ssize_t n;

    cr_assert_eq(pipe(pair), 0);
    dup2(pair[1], STDERR_FILENO);
    vlog_warn("aname \"%s\"", "x\n2026 vafsd ERR forged\x1b[2J\x7f");
    memset(longest, 'y', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    vlog_warn("%s", longest);
    dup2(saved, STDERR_FILENO);
    n = read(pair[0], line, sizeof line - 1);
    cr_assert(n > 0);
    line[n] = '\0';
    cr_assert_not_null(strstr(line, "x?2026 vafsd ERR forged?[2J?\"\n"));
    close(pair[0]);
    close(pair[1]);
    close(saved);
}

Test(vlog, rate_limit)
{
    struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(1, 3);
    int passed = 0;

    for (int i = 0; i < 10; i++) {
        passed += vlog_rate_limit_pass(&rl, __FILE__);
    }
    cr_assert_eq(passed, 3);
    cr_assert_eq(rl.n_dropped, 7);
    cr_assert_eq(vlog_set_level("loud"), EINVAL);
    cr_assert_eq(vlog_set_level("warn"), 0);
    cr_assert(!vlog_is_enabled(VLOG_INFO));
}

struct daemon {
    struct loop *loop;
    struct ctl_server *server;
    struct loop_timer timer;
    struct ctl_conn *later;
    char dir[32], path[48];
    pthread_t thread;
};

static void
answer_later(void *d_)
{
    struct daemon *d = d_;

    ctl_progress(d->later, json_integer(50));
    ctl_reply(d->later, json_string("late"));
}

static void
cmd_later(struct ctl_conn *conn, int argc, const char *argv[], void *d_)
{
    struct daemon *d = d_;

    d->later = conn;
    loop_timer_set_ms(d->loop, &d->timer, 1);
}

static void
cmd_fail(struct ctl_conn *conn, int argc, const char *argv[], void *aux)
{
    ctl_reply_error(conn, ENOENT, "no %s", argv[0]);
}

static void *
daemon_main(void *d_)
{
    struct daemon *d = d_;

    loop_run(d->loop);
    return NULL;
}

static void
daemon_start(struct daemon *d)
{
    strcpy(d->dir, "/tmp/test-ctl-XXXXXX");
    cr_assert(mkdtemp(d->dir));
    snprintf(d->path, sizeof d->path, "%s/ctl", d->dir);
    cr_assert_eq(loop_create(&d->loop), 0);
    loop_timer_init(&d->timer, answer_later, d);
    cr_assert_eq(ctl_server_create(d->loop, d->path, 0600, &d->server), 0);
    cr_assert_eq(ctl_register_standard(d->server), 0);
    cr_assert_eq(ctl_register(d->server, "later", "", 0, 0, cmd_later, d), 0);
    cr_assert_eq(ctl_register(d->server, "fail", "WHAT", 1, 1, cmd_fail, d),
                 0);
    cr_assert_eq(pthread_create(&d->thread, NULL, daemon_main, d), 0);
}

static void
daemon_stop(struct daemon *d)
{
    loop_stop(d->loop);
    pthread_join(d->thread, NULL);
    ctl_server_destroy(d->server);
    loop_destroy(d->loop);
    cr_assert_eq(rmdir(d->dir), 0, "the socket is removed");
}

static void
sum_progress(const json_t *progress, void *sum_)
{
    int *sum = sum_;

    *sum += json_integer_value(progress);
}

Test(ctl, calls)
{
    struct daemon d = {0};
    const char *version[] = {"version"}, *later[] = {"later"};
    const char *fail[] = {"fail", "cake"}, *usage[] = {"fail"};
    const char *unknown[] = {"unknown"}, *cov[] = {"coverage/show"};
    json_t *result;
    char *text;
    int sum = 0;

    daemon_start(&d);
    cr_assert_eq(ctl_call(d.path, 1, version, NULL, NULL, &result, &text), 0);
    cr_assert(json_is_string(result));
    json_decref(result);
    cr_assert_eq(
        ctl_call(d.path, 1, later, sum_progress, &sum, &result, &text), 0);
    cr_assert_str_eq(json_string_value(result), "late");
    cr_assert_eq(sum, 50);
    json_decref(result);
    cr_assert_eq(ctl_call(d.path, 1, cov, NULL, NULL, &result, &text), 0);
    cr_assert(json_object_get(result, "test_lib_counter"));
    json_decref(result);

    cr_assert_eq(ctl_call(d.path, 2, fail, NULL, NULL, &result, &text),
                 ENOENT);
    cr_assert_str_eq(text, "no cake");
    free(text);
    cr_assert_eq(ctl_call(d.path, 1, usage, NULL, NULL, &result, &text),
                 EINVAL);
    cr_assert_str_eq(text, "usage: fail WHAT");
    free(text);
    cr_assert_eq(ctl_call(d.path, 1, unknown, NULL, NULL, &result, &text),
                 ENOSYS);
    free(text);
    daemon_stop(&d);
    cr_assert_eq(ctl_call(d.path, 1, version, NULL, NULL, &result, &text),
                 ENOENT);
    free(text);
}

Test(ctl, requests_behind_a_late_one)
{
    static const char text[] = "{\"method\":\"later\"}\n"
                               "{\"method\":\"later\"}\n"
                               "{\"method\":\"version\"}\n";
    struct daemon d = {0};
    char line[256];
    FILE *stream;
    int fd, n = 0;

    daemon_start(&d);
    cr_assert_eq(unix_connect(d.path, SOCK_STREAM, &fd), 0);
    cr_assert_eq(write_full(fd, text, strlen(text)), 0);
    stream = fdopen(fd, "r");
    while (n < 3 && fgets(line, sizeof line, stream)) {
        n += strstr(line, "result") != NULL;
    }
    cr_assert_eq(n, 3);
    fclose(stream);
    daemon_stop(&d);
}

Test(ctl, bad_input_costs_only_its_sender)
{
    struct daemon d = {0};
    const char *version[] = {"version"};
    static const char *const bad[] = {
        "garbage\n",
        "{}\n",
        "[]\n",
        "{\"method\":3}\n",
        "{\"method\":\"fail\",\"params\":[7]}\n",
        "{\"method\":\"fail\",\"params\":7}\n",
    };
    json_t *result;
    char *text, *big;
    int fd;

    daemon_start(&d);
    cr_assert_eq(unix_connect(d.path, SOCK_STREAM, &fd), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        char reply[256];
        ssize_t n;

        cr_assert_eq(write_full(fd, bad[i], strlen(bad[i])), 0);
        n = read(fd, reply, sizeof reply - 1);
        cr_assert_gt(n, 0);
        reply[n] = '\0';
        cr_assert(strstr(reply, "\"error\""), "%s: %s", bad[i], reply);
    }
    close(fd);

    big = calloc(1, 70000);
    memset(big, 'x', 69999);
    cr_assert_eq(unix_connect(d.path, SOCK_STREAM, &fd), 0);
    if (send(fd, big, 70000, MSG_NOSIGNAL) > 0) {
        ssize_t n = read(fd, big, 1);

        cr_assert_leq(n, 0, "a line without end is cut off");
    }
    close(fd);
    free(big);
    cr_assert_eq(ctl_call(d.path, 1, version, NULL, NULL, &result, &text), 0);
    json_decref(result);
    daemon_stop(&d);
}
