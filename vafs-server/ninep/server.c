/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 9P server: what is shared by its sessions, and its sockets (server.h,
 * theory of operation in session.h). */

#include "vafs-server/ninep/server.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/coverage.h"
#include "lib/loop.h"
#include "lib/vlog.h"
#include "vafs-server/ninep/session.h"

COVERAGE_DEFINE(ninep_refused_peer);
COVERAGE_DEFINE(ninep_refused_full);

/* Most threads of the pool wait for one flush, which they share. */
#define DEFAULT_THREADS 16
#define DEFAULT_MEMORY (32u << 20)
/* Each may hold a message and a backlog besides what the budget covers. */
#define MAX_SESSIONS 1024

struct listener {
    struct list link; /* In server->listeners. */
    struct server *server;
    int fd;
    struct loop_fd *loop_fd;
    struct loop_timer timer; /* Out of descriptors: accepts again then. */
    bool is_guest;
    bool is_tcp;
};

int
server_create(struct loop *loop, struct view *view,
              const struct server_options *options, struct server **ret)
{
    struct server *server = calloc(1, sizeof *server);
    int error;

    if (!server) {
        return ENOMEM;
    }
    server->loop = loop;
    server->view = view;
    server->max_sessions = MAX_SESSIONS;
    server->max_bytes =
        options && options->memory ? options->memory : DEFAULT_MEMORY;
    list_init(&server->sessions);
    list_init(&server->listeners);
    list_init(&server->free_requests);
    server->in = malloc(SCRATCH_IN_SIZE);
    server->out = malloc(SCRATCH_OUT_SIZE);
    error = server->in && server->out ? 0 : ENOMEM;
    if (!error) {
        error = lock_table_create(&server->locks);
    }
    if (!error) {
        error = pool_create(loop,
                            options && options->n_threads ? options->n_threads
                                                          : DEFAULT_THREADS,
                            &server->pool);
    }
    if (error) {
        server_destroy(server);
        return error;
    }
    *ret = server;
    return 0;
}

static void
listener_destroy(struct listener *l)
{
    list_remove(&l->link);
    loop_timer_cancel(&l->timer);
    loop_del_fd(l->server->loop, l->loop_fd);
    close(l->fd);
    free(l);
}

void
server_destroy(struct server *server)
{
    struct session *s, *next;

    if (!server) {
        return;
    }
    while (!list_is_empty(&server->listeners)) {
        listener_destroy(CONTAINER_OF(list_front(&server->listeners),
                                      struct listener, link));
    }
    LIST_FOR_EACH_SAFE (s, next, link, &server->sessions) {
        if (s->state != SESSION_CLOSED) {
            session_close(s);
        }
    }
    /* Ends what still runs, which frees the last sessions. */
    pool_destroy(server->pool);
    lock_table_destroy(server->locks);
    request_trim(server);
    free(server->in);
    free(server->out);
    free(server);
}

/* Whether the peer of a plain Unix socket may use it: permissions of files
 * are not checked by the server, so only who could read the store anyway. */
static bool
is_trusted(int fd)
{
    struct ucred cred;
    socklen_t len = sizeof cred;

    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) &&
           (cred.uid == 0 || cred.uid == geteuid());
}

static void
accept_again_cb(void *l_)
{
    struct listener *l = l_;

    loop_mod_fd(l->server->loop, l->loop_fd, EPOLLIN);
}

static void
accept_cb(uint32_t events UNUSED, void *l_)
{
    static struct vlog_rate_limit rl = VLOG_RATE_LIMIT_INIT(10, 10);
    struct listener *l = l_;
    struct server *server = l->server;
    int one = 1;
    int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    int error;

    if (fd < 0) {
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
            vlog_warn_rl(&rl, "cannot accept a connection: %s",
                         strerror(errno));
            loop_mod_fd(server->loop, l->loop_fd, 0);
            loop_timer_set_ms(server->loop, &l->timer, 200);
        }
        return;
    }
    if (l->is_tcp) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    } else if (!is_trusted(fd)) {
        COVERAGE_INC(ninep_refused_peer);
        vlog_warn_rl(&rl, "refused a connection of another user");
        close(fd);
        return;
    }
    error = server_add(server, fd, l->is_guest);
    if (error) {
        vlog_warn_rl(&rl, "refused a connection: %s", strerror(error));
    }
}

static int
add_listener(struct server *server, int fd, bool is_guest, bool is_tcp)
{
    struct listener *l = calloc(1, sizeof *l);
    int error = l ? 0 : ENOMEM;

    if (l) {
        list_init(&l->link);
        l->server = server;
        loop_timer_init(&l->timer, accept_again_cb, l);
        l->fd = fd;
        l->is_guest = is_guest;
        l->is_tcp = is_tcp;
        error =
            loop_add_fd(server->loop, fd, EPOLLIN, accept_cb, l, &l->loop_fd);
    }
    if (error) {
        free(l);
        close(fd);
    } else {
        list_push_back(&server->listeners, &l->link);
    }
    return error;
}

int
server_listen(struct server *server, const char *path, bool is_guest,
              mode_t mode)
{
    int fd;
    int error = unix_listen(path, SOCK_STREAM | SOCK_NONBLOCK, mode, &fd);

    return error ? error : add_listener(server, fd, is_guest, false);
}

int
server_listen_tcp(struct server *server, const char *address)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    const char *colon = strrchr(address, ':');
    struct addrinfo *ai;
    char *host;
    int error, fd;
    int one = 1;

    if (!colon) {
        return EINVAL;
    }
    host = strndup(address, colon - address);
    if (!host) {
        return ENOMEM;
    }
    error = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &ai);
    free(host);
    if (error) {
        return EADDRNOTAVAIL;
    }
    fd = socket(ai->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    }
    error = fd < 0 || bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, 64)
                ? errno
                : 0;
    freeaddrinfo(ai);
    if (error) {
        if (fd >= 0) {
            close(fd);
        }
        return error;
    }
    return add_listener(server, fd, false, true);
}

int
server_add(struct server *server, int fd, bool is_guest)
{
    if (server->n_sessions >= server->max_sessions) {
        COVERAGE_INC(ninep_refused_full);
        close(fd);
        return ENFILE;
    }
    return session_create(server, fd, is_guest);
}

struct pool *
server_pool(struct server *server)
{
    return server->pool;
}

/* Figures. */

static void
format_uuid(const uint8_t uuid[16], char out[37])
{
    static const char hex[] = "0123456789abcdef";

    for (int i = 0; i < 16; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *out++ = '-';
        }
        *out++ = hex[uuid[i] >> 4];
        *out++ = hex[uuid[i] & 15];
    }
    *out = '\0';
}

static json_t *
session_json(const struct session *s)
{
    static const char *const states[] = {
        [SESSION_HELLO] = "hello",   [SESSION_NEW] = "new",
        [SESSION_READY] = "ready",   [SESSION_RESET] = "reset",
        [SESSION_CLOSED] = "closed",
    };
    json_t *json = json_pack(
        "{sI ss sb sI sI sI sI sI sI sI sI sI}", "id", (json_int_t) s->id,
        "state", states[s->state], "guest", (int) s->is_guest, "msize",
        (json_int_t) s->msize, "fids", (json_int_t) s->fids.n, "on_pool",
        (json_int_t) s->n_on_pool, "waiting_for_locks",
        (json_int_t) s->n_parked, "requests", (json_int_t) s->n_done,
        "bytes_in", (json_int_t) s->bytes_in, "bytes_out",
        (json_int_t) s->bytes_out, "memory", (json_int_t) s->n_bytes, "queued",
        (json_int_t) (s->queue_end - s->queue_start));
    char uuid[37];

    if (json && s->is_guest && s->state != SESSION_HELLO) {
        format_uuid(s->hello.uuid, uuid);
        json_object_set_new(json, "domid",
                            json_integer(guest_hello_domid(&s->hello)));
        json_object_set_new(json, "uuid", json_string(uuid));
        json_object_set_new(json, "attach", json_string(s->hello.attach));
    } else if (json && s->peer_uid != (uid_t) -1) {
        json_object_set_new(json, "uid", json_integer(s->peer_uid));
    }
    return json;
}

json_t *
server_sessions_json(const struct server *server)
{
    json_t *array = json_array();
    struct session *s;

    LIST_FOR_EACH (s, link, &server->sessions) {
        if (array && json_array_append_new(array, session_json(s))) {
            json_decref(array);
            array = NULL;
        }
    }
    return array;
}

json_t *
server_stats_json(const struct server *server)
{
    size_t n_fids = 0;
    struct session *s;

    LIST_FOR_EACH (s, link, &server->sessions) {
        n_fids += s->fids.n;
    }
    return json_pack("{sI sI sI sI sI sI sI sI}", "sessions",
                     (json_int_t) server->n_sessions, "sessions_since_start",
                     (json_int_t) server->next_session_id, "fids",
                     (json_int_t) n_fids, "requests",
                     (json_int_t) server->n_requests, "on_pool",
                     (json_int_t) pool_n_jobs(server->pool), "locks",
                     (json_int_t) lock_count(server->locks), "lock_waiters",
                     (json_int_t) lock_count_waiters(server->locks),
                     "buffer_bytes", (json_int_t) server->n_bytes);
}
