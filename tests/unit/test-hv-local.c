/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hv/local.c and its broker: grants, event channels, registry, faults.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "hv/broker.h"
#include "hv/hv.h"
#include "lib/util.h"

#define ALL (HV_GRANT | HV_ALLOC | HV_EVTCHN | HV_STORE)

static char dir[] = "/tmp/test-hv-XXXXXX";
static struct loop *loop;
static struct broker *broker;
static pthread_t thread;
static struct hv *back, *front; /* Domains 0 and 5. */

static void *
run_broker(void *aux UNUSED)
{
    loop_run(loop);
    return NULL;
}

static struct hv *
open_as(unsigned domid)
{
    struct hv *hv = NULL;
    char spec[64];

    snprintf(spec, sizeof spec, "local:%s@%u", dir, domid);
    cr_assert_eq(hv_open(spec, ALL, &hv), 0);
    return hv;
}

static void
setup(void)
{
    cr_assert(mkdtemp(dir));
    cr_assert_eq(loop_create(&loop), 0);
    cr_assert_eq(broker_create(loop, dir, &broker), 0);
    cr_assert_eq(pthread_create(&thread, NULL, run_broker, NULL), 0);
    back = open_as(0);
    cr_assert_eq(hv_local_domain_create(back, 5, "guest", NULL), 0);
    front = open_as(5);
}

static void
end_broker(void)
{
    if (broker) {
        loop_stop(loop);
        pthread_join(thread, NULL);
        broker_destroy(broker);
        broker = NULL;
    }
}

static void
teardown(void)
{
    hv_close(front);
    hv_close(back);
    end_broker();
    loop_destroy(loop);
    rmdir(dir);
}

TestSuite(hv_local, .init = setup, .fini = teardown);

Test(hv_local, grants)
{
    uint32_t refs[4], mixed[4];
    struct hv_pages *pages, *more;
    struct hv_grant *grant, *second;
    struct hv_local_counts counts;
    char *mine, *theirs;
    void *mem;

    cr_assert_eq(hv_pages_alloc(front, 0, 4, true, refs, &mem, &pages), 0);
    mine = mem;
    strcpy(mine, "first");
    strcpy(mine + 3 * HV_PAGE_SIZE, "fourth");

    /* In another order, as one range. */
    for (int i = 0; i < 4; i++) {
        mixed[i] = refs[3 - i];
    }
    cr_assert_eq(hv_grant_map(back, 5, mixed, 4, &grant, &mem), 0);
    theirs = mem;
    cr_expect_str_eq(theirs, "fourth");
    cr_expect_str_eq(theirs + 3 * HV_PAGE_SIZE, "first");
    strcpy(theirs, "answer");
    cr_expect_str_eq(mine + 3 * HV_PAGE_SIZE, "answer");

    /* A reference that nobody granted, and one granted to somebody else. */
    mixed[0] = 1000;
    cr_expect_eq(hv_grant_prepare(back, 5, mixed, 1, &second), EINVAL);
    cr_assert_eq(hv_pages_alloc(front, 7, 1, true, mixed, &mem, &more), 0);
    cr_expect_eq(hv_grant_prepare(back, 5, mixed, 1, &second), EINVAL);
    hv_pages_free(more);

    cr_assert_eq(hv_local_counts(back, &counts), 0);
    cr_expect_eq(counts.n_grants, 4);
    cr_expect_eq(counts.n_maps, 4);
    hv_grant_release(grant);
    hv_pages_free(pages);
    cr_assert_eq(hv_local_counts(back, &counts), 0);
    cr_expect_eq(counts.n_grants, 0);
    cr_expect_eq(counts.n_maps, 0);
}

static bool
wait_readable(int fd, int timeout_ms)
{
    struct pollfd pfd = {.fd = fd, .events = POLLIN};

    return poll(&pfd, 1, timeout_ms) == 1;
}

static size_t
read_ports(struct hv *hv, uint32_t *port)
{
    size_t n = 99;

    cr_assert_eq(hv_evtchn_read(hv, port, 1, &n), 0);
    return n;
}

Test(hv_local, event_channels)
{
    uint32_t fport, bport, second, p;

    cr_assert_eq(hv_evtchn_alloc_unbound(front, 0, &fport), 0);
    cr_expect_eq(hv_evtchn_notify(front, fport), 0);
    cr_assert_eq(hv_evtchn_bind_interdomain(back, 5, fport, &bport), 0);
    cr_expect_neq(hv_evtchn_bind_interdomain(back, 5, fport, &second), 0);

    /* Pending at once, then masked until unmasked. */
    cr_expect_eq(read_ports(back, &p), 1);
    cr_expect_eq(p, bport);
    cr_expect_eq(hv_evtchn_notify(front, fport), 0);
    cr_expect(!wait_readable(hv_evtchn_fd(back), 0));
    cr_expect_eq(hv_evtchn_unmask(back, &p, 1), 0);
    cr_expect(wait_readable(hv_evtchn_fd(back), 1000));
    cr_expect_eq(read_ports(back, &p), 1);
    cr_expect_eq(hv_evtchn_unmask(back, &p, 1), 0);
    cr_expect_eq(read_ports(back, &p), 0);

    /* The other way; and again after the back end was bound anew. */
    cr_expect_eq(hv_evtchn_notify(back, bport), 0);
    cr_expect_eq(read_ports(front, &p), 1);
    cr_expect_eq(p, fport);
    cr_expect_eq(hv_evtchn_unmask(front, &p, 1), 0);
    hv_evtchn_unbind(back, bport);
    cr_assert_eq(hv_evtchn_bind_interdomain(back, 5, fport, &bport), 0);
    cr_expect_eq(hv_evtchn_notify(back, bport), 0);
    cr_expect_eq(read_ports(front, &p), 1);
}

Test(hv_local, worker_descriptors)
{
    uint32_t refs[1], fport, bport;
    int grant_fd, evtchn_fd;
    struct hv_pages *pages;
    struct hv_grant *grant;
    struct hv *worker;
    char spec[64];
    void *mem;

    snprintf(spec, sizeof spec, "local:%s", dir);
    cr_assert_eq(hv_open_worker_fds(back, 5, &grant_fd, &evtchn_fd), 0);
    cr_assert_eq(hv_adopt(spec, grant_fd, evtchn_fd, &worker), 0);
    cr_assert_eq(hv_pages_alloc(front, 0, 1, true, refs, &mem, &pages), 0);
    cr_assert_eq(hv_evtchn_alloc_unbound(front, 0, &fport), 0);
    strcpy(mem, "hello");
    cr_assert_eq(hv_grant_map(worker, 5, refs, 1, &grant, &mem), 0);
    cr_expect_str_eq(mem, "hello");
    cr_assert_eq(hv_evtchn_bind_interdomain(worker, 5, fport, &bport), 0);
    cr_expect_eq(hv_evtchn_bind_interdomain(worker, 6, fport, &bport), EACCES);
    hv_grant_release(grant);
    hv_close(worker);
    hv_pages_free(pages);
}

Test(hv_local, broker_ends)
{
    int grant_fd, evtchn_fd;
    struct hv *worker;
    uint32_t port;
    char spec[64];
    size_t n;

    snprintf(spec, sizeof spec, "local:%s", dir);
    cr_assert_eq(hv_open_worker_fds(back, 5, &grant_fd, &evtchn_fd), 0);
    cr_assert_eq(hv_adopt(spec, grant_fd, evtchn_fd, &worker), 0);
    cr_expect_eq(hv_evtchn_read(worker, &port, 1, &n), 0);
    end_broker();
    cr_expect(wait_readable(hv_evtchn_fd(worker), 1000));
    cr_expect_eq(hv_evtchn_read(worker, &port, 1, &n), ECONNRESET);
    hv_close(worker);
}

static void
expect_value(struct hv *hv, const char *path, const char *expected)
{
    char *value;

    cr_assert_eq(hv_xs_read(hv, HV_XS_NONE, path, &value), 0, "%s", path);
    cr_expect_str_eq(value, expected);
    free(value);
}

Test(hv_local, registry)
{
    const struct hv_xs_perm shared[] = {{5, HV_XS_PERM_NONE},
                                        {0, HV_XS_PERM_READ}};
    struct hv_xs_perm *perms;
    char **names;
    char *value;
    uint64_t number;
    hv_xs_txn txn;
    size_t n;

    cr_assert_eq(
        hv_xs_write(back, HV_XS_NONE, "/local/domain/5/device/a/b", "12"), 0);
    cr_expect_eq(hv_xs_write(front, HV_XS_NONE, "device/a/b", "x"), EACCES);
    cr_assert_eq(hv_xs_set_perms(back, HV_XS_NONE,
                                 "/local/domain/5/device/a/b", shared, 2),
                 0);
    cr_assert_eq(hv_xs_write(front, HV_XS_NONE, "device/a/b", "34"), 0);
    expect_value(back, "/local/domain/5/device/a/b", "34");
    cr_assert_eq(hv_xs_read_uint(front, HV_XS_NONE, "device/a/b", 34, &number),
                 0);
    cr_expect_eq(number, 34);
    cr_expect_eq(hv_xs_read_uint(front, HV_XS_NONE, "device/a/b", 33, &number),
                 EINVAL);
    cr_assert_eq(hv_xs_get_perms(front, HV_XS_NONE, "device/a/b", &perms, &n),
                 0);
    cr_expect_eq(n, 2);
    cr_expect_eq(perms[1].bits, HV_XS_PERM_READ);
    free(perms);
    cr_assert_eq(hv_xs_directory(front, HV_XS_NONE, "device/a", &names, &n),
                 0);
    cr_expect_eq(n, 1);
    cr_expect_str_eq(names[0], "b");
    hv_xs_names_free(names, n);

    /* Transactions: own view, commit, conflict, abort. */
    cr_assert_eq(hv_xs_txn_start(front, &txn), 0);
    cr_assert_eq(hv_xs_write(front, txn, "data/x", "1"), 0);
    cr_expect_eq(hv_xs_read(front, HV_XS_NONE, "data/x", &value), ENOENT);
    cr_assert_eq(hv_xs_txn_end(front, txn, true), 0);
    expect_value(front, "data/x", "1");
    cr_assert_eq(hv_xs_txn_start(front, &txn), 0);
    cr_assert_eq(hv_xs_write(front, txn, "data/x", "2"), 0);
    cr_assert_eq(hv_xs_write(back, HV_XS_NONE, "/local/domain/5/data/y", "3"),
                 0);
    cr_expect_eq(hv_xs_txn_end(front, txn, true), EAGAIN);
    expect_value(front, "data/x", "1");
    cr_assert_eq(hv_xs_txn_start(front, &txn), 0);
    cr_assert_eq(hv_xs_rm(front, txn, "data/x"), 0);
    cr_assert_eq(hv_xs_txn_end(front, txn, false), 0);
    expect_value(front, "data/x", "1");
}

static bool
next_event(struct hv *hv, const char *expected)
{
    char *path, *token;
    bool matches;

    if (!wait_readable(hv_xs_fd(hv), 1000) ||
        hv_xs_next_event(hv, &path, &token)) {
        return false;
    }
    matches = !strcmp(path, expected) && !strcmp(token, "tok");
    free(path);
    free(token);
    return matches;
}

Test(hv_local, watches)
{
    char *path, *token;
    bool exists;

    cr_assert_eq(hv_xs_watch(front, "data", "tok"), 0);
    cr_expect(next_event(front, "data"));
    cr_assert_eq(hv_xs_write(front, HV_XS_NONE, "data/x/y", "1"), 0);
    cr_expect(next_event(front, "data/x/y"));
    cr_expect_eq(hv_xs_next_event(front, &path, &token), EAGAIN);

    /* A watch on what stands below a removed node. */
    cr_assert_eq(hv_xs_watch(back, "/local/domain/5/data/x/y", "tok"), 0);
    cr_expect(next_event(back, "/local/domain/5/data/x/y"));
    cr_assert_eq(hv_xs_watch(back, "@releaseDomain", "tok"), 0);
    cr_expect(next_event(back, "@releaseDomain"));
    cr_assert_eq(hv_local_domain_destroy(back, 5), 0);
    cr_expect(next_event(back, "/local/domain/5/data/x/y"));
    cr_expect(next_event(back, "@releaseDomain"));
    cr_assert_eq(hv_domain_exists(back, 5, &exists), 0);
    cr_expect(!exists);
    cr_expect_eq(hv_xs_write(front, HV_XS_NONE, "data/z", "1"), ESHUTDOWN);
}

Test(hv_local, faults)
{
    uint32_t refs[1];
    struct hv_pages *pages;
    struct hv_grant *grant;
    void *mem;

    cr_assert_eq(hv_pages_alloc(front, 0, 1, true, refs, &mem, &pages), 0);
    cr_assert_eq(hv_local_fault(back, 0, HV_FAULT_GRANT_PREPARE, 2, 1, ENOSPC),
                 0);
    cr_assert_eq(hv_grant_map(back, 5, refs, 1, &grant, &mem), 0);
    hv_grant_release(grant);
    cr_expect_eq(hv_grant_map(back, 5, refs, 1, &grant, &mem), ENOSPC);
    cr_assert_eq(hv_grant_map(back, 5, refs, 1, &grant, &mem), 0);
    hv_grant_release(grant);
    hv_pages_free(pages);
}
