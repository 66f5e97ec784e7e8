/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 9P2000.L server: listening sockets, sessions, figures.
 *
 * Everything here is for the loop's thread. */
#ifndef VAFS_NINEP_SERVER_H
#define VAFS_NINEP_SERVER_H 1

#include <jansson.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/util.h"

struct loop;
struct pool;
struct server;
struct view;

struct server_options {
    unsigned int n_threads; /* Of the pool; 0: a default. */
    uint64_t memory;        /* Bytes for buffers; 0: a default. */
};

/* A server for 'view', which stays the caller's and must outlive it. */
int
server_create(struct loop *, struct view *view, const struct server_options *,
              struct server **ret) NODISCARD;

/* Closes all sessions, waits for what is on the pool, frees.  NULL is
 * accepted. */
void server_destroy(struct server *);

/* Listens on the Unix socket 'path'.  If 'is_guest', each connection begins
 * with a guest hello; otherwise only root and the user that the server runs
 * as may connect. */
int server_listen(struct server *, const char *path, bool is_guest,
                  mode_t mode) NODISCARD;

/* Listens on 'address' (HOST:PORT), for tests and for hosts that trust their
 * network: there is no authentication. */
int server_listen_tcp(struct server *, const char *address) NODISCARD;

/* Takes 'fd', a connected stream socket, as a session; owns it, also on
 * failure. */
int server_add(struct server *, int fd, bool is_guest) NODISCARD;

/* The pool, for other slow work. */
struct pool *server_pool(struct server *);

/* For the control socket; NULL if out of memory. */
json_t *server_sessions_json(const struct server *);
json_t *server_stats_json(const struct server *);

#endif /* vafs-server/ninep/server.h */
