/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * A PV Calls backend that breaks the rules, one rule at a time, to see that
 * xenlift_sock survives it; and the program in the guest that meets it.
 *
 *   sock-evil GUEST-DOMID SCENARIO     in the driver domain, without xenliftd
 *   sock-evil victim IP PORT           in the guest; one line of what it saw
 *   sock-evil list
 *
 * The backend answers everything as it should, but for what the scenario says,
 * which it does when the first CONNECT comes.  It ends when the frontend has
 * left, or after 20 seconds. */

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <xenevtchn.h>
#include <xengnttab.h>
#include <xenstore.h>

#include "wire/pvcalls.h"

static struct xs_handle *xs;
static xengnttab_handle *gnt;
static xenevtchn_handle *evt;
static int guest;
static char back[128], front[128];
static struct pvcalls_sring *ring;
static evtchn_port_t port, data_port;
static struct pvcalls_indexes *idx;
static uint32_t req_cons, rsp_prod;

static double
now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void
die(const char *what)
{
    printf("sock-evil: %s: %s\n", what, strerror(errno));
    exit(2);
}

static int
read_number(const char *dir, const char *key)
{
    char path[256];
    unsigned int len;
    char *value;
    int ret;

    snprintf(path, sizeof path, "%s/%s", dir, key);
    value = xs_read(xs, XBT_NULL, path, &len);
    ret = value ? atoi(value) : -1;
    free(value);
    return ret;
}

static void
write_node(const char *key, const char *value)
{
    char path[256];

    snprintf(path, sizeof path, "%s/%s", back, key);
    if (!xs_write(xs, XBT_NULL, path, value, strlen(value))) {
        die(path);
    }
}

static void
respond_raw(uint32_t req_id, uint32_t cmd, int32_t ret, uint64_t id)
{
    struct pvcalls_response rsp = {
        .req_id = req_id, .cmd = cmd, .ret = ret, .id = id};

    pvcalls_response_put(ring, rsp_prod, &rsp);
    rsp_prod++;
    ring_publish(&ring->rsp_prod, rsp_prod);
    xenevtchn_notify(evt, port);
}

static void
respond(const struct pvcalls_request *req, int32_t ret)
{
    respond_raw(req->req_id, req->cmd, ret, req->u.poll.id);
}

/* Maps the indexes page of a CONNECT and answers it with success. */
static void
accept_connect(const struct pvcalls_request *req)
{
    idx = xengnttab_map_grant_ref(gnt, guest, req->u.connect.ref,
                                  PROT_READ | PROT_WRITE);
    if (!idx) {
        die("indexes page");
    }
    data_port = xenevtchn_bind_interdomain(evt, guest, req->u.connect.evtchn);
    respond(req, 0);
    usleep(200000);
}

static void
poke(struct ring_u32 *field, uint32_t value)
{
    ring_store(field, value);
    ring_mb();
    xenevtchn_notify(evt, data_port);
}

static void
evil_stray(const struct pvcalls_request *req)
{
    respond_raw(req->req_id + 4096, req->cmd, 0, req->u.poll.id);
}

static void
evil_twice(const struct pvcalls_request *req)
{
    respond(req, -ECONNREFUSED);
    usleep(50000);
    respond(req, -ECONNREFUSED);
}

static void
evil_command(const struct pvcalls_request *req)
{
    respond_raw(req->req_id, PVCALLS_BIND, 0, req->u.poll.id);
}

static void
evil_socket(const struct pvcalls_request *req)
{
    respond_raw(req->req_id, req->cmd, 0, req->u.poll.id + 1);
}

static void
evil_rsp_prod(const struct pvcalls_request *req)
{
    (void) req;
    ring_publish(&ring->rsp_prod, rsp_prod + 1000);
    xenevtchn_notify(evt, port);
}

static void
evil_positive(const struct pvcalls_request *req)
{
    respond(req, 5);
}

static void
evil_restart(const struct pvcalls_request *req)
{
    respond(req, -512);
}

static void
evil_notsupp(const struct pvcalls_request *req)
{
    respond(req, -PVCALLS_ENOTSUPP);
}

static void
evil_in_prod(const struct pvcalls_request *req)
{
    accept_connect(req);
    poke(&idx->in_prod, 0x7fffffff);
}

static void
evil_out_cons(const struct pvcalls_request *req)
{
    accept_connect(req);
    poke(&idx->out_cons, 0x80000000);
}

static void
evil_in_error(const struct pvcalls_request *req)
{
    accept_connect(req);
    poke(&idx->in_error, 5);
}

static void
evil_in_error_kernel(const struct pvcalls_request *req)
{
    accept_connect(req);
    poke(&idx->in_error, -512);
}

/* What a frontend must never read back. */
static void
evil_geometry(const struct pvcalls_request *req)
{
    unsigned int i;

    accept_connect(req);
    ring_store(&idx->ring_order, 31);
    for (i = 0; i < 512; i++) {
        ring_store(&idx->ref[i], 0xdeadbe00 + i);
    }
    poke(&idx->in_error, -ENOTCONN);
}

static void
evil_flutter(const struct pvcalls_request *req)
{
    double end;
    unsigned int seed = 1;

    accept_connect(req);
    end = now() + 3;
    while (now() < end) {
        int i;

        for (i = 0; i < 1000; i++) {
            ring_store(&idx->in_prod, rand_r(&seed) & 0x3ffff);
            ring_store(&idx->in_cons, rand_r(&seed));
            ring_store(&idx->out_prod, rand_r(&seed));
            ring_store(&idx->out_cons, rand_r(&seed) & 0xff);
        }
        xenevtchn_notify(evt, data_port);
    }
    poke(&idx->in_error, -ECONNRESET);
}

static void
evil_storm(const struct pvcalls_request *req)
{
    double end;

    accept_connect(req);
    end = now() + 3;
    while (now() < end) {
        xenevtchn_notify(evt, data_port);
        xenevtchn_notify(evt, port);
    }
    poke(&idx->in_error, -ENOTCONN);
}

static void
evil_silent(const struct pvcalls_request *req)
{
    (void) req;
}

static const struct scenario {
    const char *name;
    void (*run)(const struct pvcalls_request *req);
} scenarios[] = {
    {"stray", evil_stray},       {"twice", evil_twice},
    {"command", evil_command},   {"socket", evil_socket},
    {"rsp-prod", evil_rsp_prod}, {"positive", evil_positive},
    {"restart", evil_restart},   {"notsupp", evil_notsupp},
    {"in-prod", evil_in_prod},   {"out-cons", evil_out_cons},
    {"in-error", evil_in_error}, {"in-error-kernel", evil_in_error_kernel},
    {"geometry", evil_geometry}, {"flutter", evil_flutter},
    {"storm", evil_storm},       {"silent", evil_silent},
};
#define N_SCENARIOS (sizeof scenarios / sizeof *scenarios)

/* Waits until the frontend's state is one of the bits in 'mask'. */
static int
wait_front(unsigned int mask, double seconds)
{
    double end = now() + seconds;
    int state;

    do {
        state = read_number(front, "state");
        if (state >= 0 && (mask & 1u << state)) {
            return state;
        }
        usleep(20000);
    } while (now() < end);
    return -1;
}

static int
backend(const struct scenario *s)
{
    bool done = false;
    double end;
    int self;

    xs = xs_open(0);
    gnt = xengnttab_open(NULL, 0);
    evt = xenevtchn_open(NULL, 0);
    if (!xs || !gnt || !evt) {
        die("open");
    }
    self = read_number("", "domid") >= 0 ? read_number("", "domid")
                                         : atoi(getenv("DOMID"));
    snprintf(back, sizeof back, "/local/domain/%d/backend/pvcalls/%d/0", self,
             guest);
    snprintf(front, sizeof front, "/local/domain/%d/device/pvcalls/0", guest);
    write_node("versions", "1");
    write_node("function-calls", "1");
    write_node("max-page-order", "4");
    write_node("feature-quiet", "1");
    write_node("feature-half-close", "1");
    write_node("state", "2");
    if (wait_front(1 << 3, 20) != 3) {
        printf("sock-evil: no frontend (state %d)\n",
               read_number(front, "state"));
        return 2;
    }
    ring = xengnttab_map_grant_ref(gnt, guest, read_number(front, "ring-ref"),
                                   PROT_READ | PROT_WRITE);
    if (!ring) {
        die("command ring");
    }
    port = xenevtchn_bind_interdomain(evt, guest, read_number(front, "port"));
    write_node("state", "4");
    end = now() + 20;
    while (now() < end) {
        uint32_t prod = ring_fetch(&ring->req_prod);

        ring_rmb();
        while (req_cons != prod) {
            struct pvcalls_request req;

            pvcalls_request_fetch(&req, ring, req_cons++);
            ring_store(&ring->req_event, req_cons + 1);
            if (req.cmd == PVCALLS_CONNECT && !done) {
                done = true;
                s->run(&req);
            } else {
                respond(&req, 0);
            }
        }
        if (read_number(front, "state") >= 5 ||
            (done && read_number(front, "state") == 1)) {
            break;
        }
        usleep(2000);
    }
    printf("%s: done %d, front %d\n", s->name, done,
           read_number(front, "state"));
    if (idx) {
        xengnttab_unmap(gnt, idx, 1);
    }
    xengnttab_unmap(gnt, ring, 1);
    write_node("state", "5");
    write_node("state", "6");
    return 0;
}

static const char *
errno_name(int error)
{
    return error == 0              ? "ok"
           : error == ECONNRESET   ? "ECONNRESET"
           : error == ECONNREFUSED ? "ECONNREFUSED"
           : error == EPROTO       ? "EPROTO"
           : error == EOPNOTSUPP   ? "EOPNOTSUPP"
           : error == EAGAIN       ? "EAGAIN"
           : error == EINPROGRESS  ? "EINPROGRESS"
                                   : strerror(error);
}

static int
victim(const char *ip, int to)
{
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons(to)};
    struct timeval tv = {.tv_sec = 6};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    double end = now() + 8;
    static char buf[65536];
    ssize_t n;

    inet_pton(AF_INET, ip, &sin.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    tv.tv_sec = 3;
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
    if (connect(fd, (struct sockaddr *) &sin, sizeof sin)) {
        printf("connect %s\n", errno_name(errno));
        return 0;
    }
    do {
        send(fd, buf, 100, MSG_NOSIGNAL | MSG_DONTWAIT);
        n = recv(fd, buf, sizeof buf, 0);
    } while (n > 0 && now() < end);
    printf("recv %s\n", n < 0 ? errno_name(errno) : n ? "data" : "end");
    close(fd);
    return 0;
}

int
main(int argc, char **argv)
{
    size_t i;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc == 2 && !strcmp(argv[1], "list")) {
        for (i = 0; i < N_SCENARIOS; i++) {
            puts(scenarios[i].name);
        }
        return 0;
    }
    if (argc == 4 && !strcmp(argv[1], "victim")) {
        return victim(argv[2], atoi(argv[3]));
    }
    if (argc == 3) {
        guest = atoi(argv[1]);
        for (i = 0; i < N_SCENARIOS; i++) {
            if (!strcmp(scenarios[i].name, argv[2])) {
                return backend(&scenarios[i]);
            }
        }
    }
    fprintf(stderr, "usage: sock-evil GUEST-DOMID SCENARIO | victim IP PORT"
                    " | list\n");
    return 2;
}
