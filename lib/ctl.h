/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ctl.h - control socket of a daemon, and how a tool calls it.
 *
 * The protocol is lines of JSON on a Unix stream socket.  A request is
 * {"method": NAME, "params": [STRING, ...]}; the daemon answers with any
 * number of {"progress": VALUE} and then {"result": VALUE} or
 * {"error": TEXT, "errno": NAME-LESS NUMBER}.  A connection may carry several
 * requests, one after the other.
 */
#ifndef LIB_CTL_H
#define LIB_CTL_H 1

#include <jansson.h>

#include "lib/loop.h"

struct ctl_server;
struct ctl_conn;

/* Handles one call.  It must end, now or later, in exactly one ctl_reply() or
 * ctl_reply_error() on 'conn', in the loop's thread. */
typedef void
ctl_cb(struct ctl_conn *conn, int argc, const char *argv[], void *aux);

int ctl_server_create(struct loop *, const char *path, mode_t mode,
                      struct ctl_server **ret) NODISCARD;
void ctl_server_destroy(struct ctl_server *);
int ctl_register(struct ctl_server *, const char *name, const char *usage,
                 int min_args, int max_args, ctl_cb *, void *aux) NODISCARD;
int ctl_register_standard(struct ctl_server *) NODISCARD;

void ctl_reply(struct ctl_conn *, json_t *result);
void ctl_reply_error(struct ctl_conn *, int error, const char *fmt, ...)
    PRINTF_FORMAT(3, 4);
void ctl_progress(struct ctl_conn *, json_t *progress);
bool ctl_conn_is_closed(const struct ctl_conn *);

int ctl_call(const char *path, int argc, const char *const argv[],
             void (*progress)(const json_t *, void *aux), void *aux,
             json_t **ret_result, char **ret_error) NODISCARD;

#endif /* lib/ctl.h */
