/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ctl.c - see ctl.h for the protocol.
 *
 * The socket is reachable for whoever the file's mode lets in, so callers are
 * trusted with what the daemon's methods do, but not with its health: a line
 * has a maximum length, a connection that does not read its replies is closed
 * when too much waits, and a reply to a connection that is gone is dropped.
 *
 * A connection lives until it is closed *and* no call of it is pending; a
 * method that answers later may therefore keep its 'conn' without care.
 */
#include "lib/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/coverage.h"
#include "lib/vlog.h"

#ifndef XENLIFT_VERSION
#define XENLIFT_VERSION "0.1"
#endif

#define MAX_REQUEST 65536
#define MAX_REPLY (64 * 1024 * 1024)
#define MAX_ARGS 64

struct ctl_method {
    struct ctl_method *next;
    char *name;
    char *usage;
    int min_args, max_args;
    ctl_cb *cb;
    void *aux;
};

struct ctl_server {
    struct loop *loop;
    char *path;
    int fd;
    struct loop_fd *handle;
    struct ctl_method *methods;
    struct list conns; /* Of "struct ctl_conn"s. */
};

struct ctl_conn {
    struct list link;
    struct ctl_server *server; /* NULL once closed. */
    int fd;
    struct loop_fd *handle;
    bool is_pending;          /* A call has not been answered. */
    struct loop_timer resume; /* Looks for a request that is in 'in'. */
    char *in;
    size_t n_in;
    char *out;
    size_t n_out;
};

static void
ctl_conn_free__(struct ctl_conn *conn)
{
    if (!conn->is_pending) {
        free(conn->in);
        free(conn->out);
        free(conn);
    }
}

static void
ctl_conn_close__(struct ctl_conn *conn)
{
    if (conn->server) {
        loop_timer_cancel(&conn->resume);
        loop_del_fd(conn->server->loop, conn->handle);
        close(conn->fd);
        list_remove(&conn->link);
        conn->server = NULL;
    }
}

/* True if the caller of the call on 'conn' has gone away, so that long work
 * for it may be given up (it must still be answered). */
bool
ctl_conn_is_closed(const struct ctl_conn *conn)
{
    return !conn->server;
}

/* Writes what waits.  Returns false if the connection is broken. */
static bool
ctl_conn_flush__(struct ctl_conn *conn)
{
    while (conn->n_out) {
        ssize_t n = send(conn->fd, conn->out, conn->n_out,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n > 0) {
            conn->n_out -= n;
            memmove(conn->out, conn->out + n, conn->n_out);
        } else if (n < 0 && errno == EAGAIN) {
            break;
        } else if (n == 0 || errno != EINTR) {
            return false;
        }
    }
    loop_mod_fd(conn->server->loop, conn->handle,
                (conn->is_pending ? 0 : EPOLLIN) |
                    (conn->n_out ? EPOLLOUT : 0));
    return true;
}

/* Queues 'msg' and a newline; takes 'msg'. */
static void
ctl_conn_send__(struct ctl_conn *conn, json_t *msg)
{
    char *text = msg ? json_dumps(msg, JSON_COMPACT) : NULL;
    size_t size;
    char *out;

    json_decref(msg);
    if (!conn->server) {
        free(text);
        return;
    }
    if (!text) {
        text = strdup("{\"error\":\"out of memory\",\"errno\":12}");
    }
    size = text ? strlen(text) : 0;
    out = text && conn->n_out + size < MAX_REPLY
              ? realloc(conn->out, conn->n_out + size + 1)
              : NULL;
    if (!out) {
        free(text);
        ctl_conn_close__(conn);
        return;
    }
    conn->out = out;
    memcpy(conn->out + conn->n_out, text, size);
    conn->out[conn->n_out + size] = '\n';
    conn->n_out += size + 1;
    free(text);
    if (!ctl_conn_flush__(conn)) {
        ctl_conn_close__(conn);
    }
}

/* Answers and lets the next request come, which may be in the buffer already.
 * It is run by the loop and not from here, where the last one may still be on
 * the stack. */
static void
ctl_conn_finish__(struct ctl_conn *conn, json_t *msg)
{
    conn->is_pending = false;
    ctl_conn_send__(conn, msg);
    if (!conn->server) {
        ctl_conn_free__(conn);
    } else if (conn->n_in) {
        loop_timer_set_ms(conn->server->loop, &conn->resume, 0);
    }
}

/* Answers the call on 'conn' with 'result', which it takes (NULL: out of
 * memory).  'conn' must not be used afterwards. */
void
ctl_reply(struct ctl_conn *conn, json_t *result)
{
    ctl_conn_finish__(conn,
                      result ? json_pack("{s:o}", "result", result) : NULL);
}

/* Answers the call on 'conn' with the positive errno 'error' and a sentence
 * for a person.  'conn' must not be used afterwards. */
void
ctl_reply_error(struct ctl_conn *conn, int error, const char *fmt, ...)
{
    char text[1024];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    ctl_conn_finish__(conn,
                      json_pack("{s:s, s:i}", "error", text, "errno", error));
}

/* Tells the caller how far the call on 'conn' is; takes 'progress'. */
void
ctl_progress(struct ctl_conn *conn, json_t *progress)
{
    if (progress) {
        ctl_conn_send__(conn, json_pack("{s:o}", "progress", progress));
    }
}

static void
ctl_dispatch__(struct ctl_conn *conn, json_t *request)
{
    const char *argv[MAX_ARGS];
    const char *name = json_string_value(json_object_get(request, "method"));
    json_t *params = json_object_get(request, "params");
    size_t argc = json_array_size(params);
    struct ctl_method *m;

    conn->is_pending = true;
    if (!name || (params && !json_is_array(params)) || argc > MAX_ARGS) {
        ctl_reply_error(conn, EINVAL,
                        "not {\"method\": NAME, \"params\": [...]}");
        return;
    }
    for (size_t i = 0; i < argc; i++) {
        argv[i] = json_string_value(json_array_get(params, i));
        if (!argv[i]) {
            ctl_reply_error(conn, EINVAL, "%s: parameters are strings", name);
            return;
        }
    }
    for (m = conn->server->methods; m; m = m->next) {
        if (!strcmp(m->name, name)) {
            if ((int) argc < m->min_args || (int) argc > m->max_args) {
                ctl_reply_error(conn, EINVAL, "usage: %s %s", m->name,
                                m->usage);
            } else {
                m->cb(conn, argc, argv, m->aux);
            }
            return;
        }
    }
    ctl_reply_error(conn, ENOSYS, "no method \"%s\"; try list-commands", name);
}

/* Runs the first whole line of input, if there is one and no call is pending.
 */
static void
ctl_conn_next__(void *conn_)
{
    struct ctl_conn *conn = conn_;
    char *end = memchr(conn->in, '\n', conn->n_in);
    size_t size;
    json_t *request;
    json_error_t je;

    if (conn->is_pending) {
        return;
    }
    if (!end) {
        if (conn->n_in == MAX_REQUEST) {
            ctl_conn_close__(conn);
            ctl_conn_free__(conn);
        }
        return;
    }
    size = end - conn->in + 1;
    request = json_loadb(conn->in, size, 0, &je);
    conn->n_in -= size;
    memmove(conn->in, conn->in + size, conn->n_in);
    if (request) {
        ctl_dispatch__(conn, request);
        json_decref(request);
    } else {
        conn->is_pending = true;
        ctl_reply_error(conn, EINVAL, "not JSON: %s", je.text);
    }
}

static void
ctl_conn_run__(uint32_t events, void *conn_)
{
    struct ctl_conn *conn = conn_;
    ssize_t n;

    if (events & EPOLLOUT && !ctl_conn_flush__(conn)) {
        goto close;
    }
    if (conn->is_pending) {
        if (events & (EPOLLHUP | EPOLLERR)) {
            goto close;
        }
        return;
    }
    n = recv(conn->fd, conn->in + conn->n_in, MAX_REQUEST - conn->n_in,
             MSG_DONTWAIT);
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
        goto close;
    }
    conn->n_in += MAX(n, 0);
    ctl_conn_next__(conn);
    return;

close:
    ctl_conn_close__(conn);
    ctl_conn_free__(conn);
}

static void
ctl_accept__(uint32_t events, void *server_)
{
    struct ctl_server *server = server_;
    int fd = accept4(server->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    struct ctl_conn *conn;

    if (fd < 0) {
        return;
    }
    conn = calloc(1, sizeof *conn);
    if (conn) {
        conn->in = malloc(MAX_REQUEST);
    }
    if (!conn || !conn->in ||
        loop_add_fd(server->loop, fd, EPOLLIN, ctl_conn_run__, conn,
                    &conn->handle)) {
        if (conn) {
            free(conn->in);
        }
        free(conn);
        close(fd);
        return;
    }
    conn->server = server;
    conn->fd = fd;
    loop_timer_init(&conn->resume, ctl_conn_next__, conn);
    list_push_back(&server->conns, &conn->link);
}

/* Listens at 'path' with permission bits 'mode'.  Returns 0 and the server, to
 * be destroyed by the caller, or a positive errno. */
int
ctl_server_create(struct loop *loop, const char *path, mode_t mode,
                  struct ctl_server **ret)
{
    struct ctl_server *server = calloc(1, sizeof *server);
    int error;

    if (!server) {
        return ENOMEM;
    }
    list_init(&server->conns);
    server->loop = loop;
    server->fd = -1;
    server->path = strdup(path);
    error = server->path ? unix_listen(path, SOCK_STREAM | SOCK_NONBLOCK, mode,
                                       &server->fd)
                         : ENOMEM;
    if (!error) {
        error = loop_add_fd(loop, server->fd, EPOLLIN, ctl_accept__, server,
                            &server->handle);
    }
    if (error) {
        ctl_server_destroy(server);
        return error;
    }
    *ret = server;
    return 0;
}

/* Closes all connections and removes the socket.  NULL is allowed. */
void
ctl_server_destroy(struct ctl_server *server)
{
    struct ctl_method *m, *next_m;
    struct ctl_conn *conn, *next;

    if (!server) {
        return;
    }
    LIST_FOR_EACH_SAFE (conn, next, link, &server->conns) {
        ctl_conn_close__(conn);
        ctl_conn_free__(conn);
    }
    for (m = server->methods; m; m = next_m) {
        next_m = m->next;
        free(m->name);
        free(m->usage);
        free(m);
    }
    loop_del_fd(server->loop, server->handle);
    if (server->fd >= 0) {
        close(server->fd);
        unlink(server->path);
    }
    free(server->path);
    free(server);
}

/* Adds the method 'name', which takes 'min_args' to 'max_args' arguments that
 * 'usage' describes.  Returns 0 or ENOMEM. */
int
ctl_register(struct ctl_server *server, const char *name, const char *usage,
             int min_args, int max_args, ctl_cb *cb, void *aux)
{
    struct ctl_method *m = calloc(1, sizeof *m), **p = &server->methods;

    if (!m || !(m->name = strdup(name)) || !(m->usage = strdup(usage))) {
        if (m) {
            free(m->name);
        }
        free(m);
        return ENOMEM;
    }
    m->min_args = min_args;
    m->max_args = max_args;
    m->cb = cb;
    m->aux = aux;
    while (*p && strcmp((*p)->name, name) < 0) {
        p = &(*p)->next;
    }
    m->next = *p;
    *p = m;
    return 0;
}

static void
coverage_to_json__(const char *name, uint64_t n, void *object)
{
    json_t *old = json_object_get(object, name);

    json_object_set_new(object, name,
                        json_integer(n + json_integer_value(old)));
}

static void
ctl_coverage_show__(struct ctl_conn *conn, int argc, const char *argv[],
                    void *aux)
{
    json_t *object = json_object();

    if (object) {
        coverage_for_each(coverage_to_json__, object);
    }
    ctl_reply(conn, object);
}

static void
ctl_vlog_set__(struct ctl_conn *conn, int argc, const char *argv[], void *aux)
{
    if (argc && vlog_set_level(argv[0])) {
        ctl_reply_error(conn, EINVAL,
                        "no level \"%s\"; there are off, err, warn, info, dbg",
                        argv[0]);
    } else {
        ctl_reply(conn, json_string(vlog_get_level()));
    }
}

static void
ctl_version__(struct ctl_conn *conn, int argc, const char *argv[], void *aux)
{
    ctl_reply(conn, json_string(XENLIFT_VERSION));
}

static void
ctl_list_commands__(struct ctl_conn *conn, int argc, const char *argv[],
                    void *server_)
{
    struct ctl_server *server = server_;
    json_t *object = json_object();

    for (struct ctl_method *m = server->methods; m && object; m = m->next) {
        json_object_set_new(object, m->name, json_string(m->usage));
    }
    ctl_reply(conn, object);
}

/* Adds the methods that every daemon has: coverage/show, vlog/set, version and
 * list-commands. */
int
ctl_register_standard(struct ctl_server *server)
{
    int error;

    error = ctl_register(server, "coverage/show", "", 0, 0,
                         ctl_coverage_show__, NULL);
    if (!error) {
        error = ctl_register(server, "vlog/set", "[LEVEL]", 0, 1,
                             ctl_vlog_set__, NULL);
    }
    if (!error) {
        error = ctl_register(server, "version", "", 0, 0, ctl_version__, NULL);
    }
    if (!error) {
        error = ctl_register(server, "list-commands", "", 0, 0,
                             ctl_list_commands__, server);
    }
    return error;
}

static int
ctl_send_request__(int fd, int argc, const char *const argv[])
{
    json_t *request = json_pack("{s:s, s:[]}", "method", argv[0], "params");
    json_t *params = json_object_get(request, "params");
    char *text;
    int error;

    for (int i = 1; i < argc; i++) {
        json_array_append_new(params, json_string(argv[i]));
    }
    text = request ? json_dumps(request, JSON_COMPACT) : NULL;
    json_decref(request);
    if (!text) {
        return ENOMEM;
    }
    error = write_full(fd, text, strlen(text));
    if (!error) {
        error = write_full(fd, "\n", 1);
    }
    free(text);
    return error;
}

/* Calls method 'argv[0]' with the other arguments on the daemon at 'path' and
 * waits.  'progress', unless NULL, is called for each progress report. Returns
 * 0 and the result in '*ret_result' (caller: json_decref()), or a positive
 * errno and a sentence in '*ret_error' (caller: free(); may become NULL). */
int
ctl_call(const char *path, int argc, const char *const argv[],
         void (*progress)(const json_t *, void *aux), void *aux,
         json_t **ret_result, char **ret_error)
{
    char *line = NULL, *text = NULL;
    size_t allocated = 0;
    FILE *stream;
    int fd, error;

    *ret_error = NULL;
    error = unix_connect(path, SOCK_STREAM, &fd);
    if (error) {
        if (asprintf(&text, "%s: %s; is the daemon running?", path,
                     strerror(error)) >= 0) {
            *ret_error = text;
        }
        return error;
    }
    error = ctl_send_request__(fd, argc, argv);
    stream = error ? NULL : fdopen(fd, "r");
    if (!stream) {
        close(fd);
        return error ? error : ENOMEM;
    }
    error = ECONNRESET;
    while (getline(&line, &allocated, stream) > 0) {
        json_t *msg = json_loads(line, 0, NULL);
        json_t *p = json_object_get(msg, "progress");
        json_t *result = json_object_get(msg, "result");
        const char *e = json_string_value(json_object_get(msg, "error"));
        bool done = true;

        if (p) {
            if (progress) {
                progress(p, aux);
            }
            done = false;
        } else if (result) {
            *ret_result = json_incref(result);
            error = 0;
        } else {
            int n = json_integer_value(json_object_get(msg, "errno"));

            error = n > 0 ? n : EPROTO;
            *ret_error = e ? strdup(e) : NULL;
        }
        json_decref(msg);
        if (done) {
            break;
        }
    }
    free(line);
    fclose(stream);
    if (error == ECONNRESET && !*ret_error) {
        *ret_error = strdup("the daemon closed the connection");
    }
    return error;
}
