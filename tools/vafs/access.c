/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How the vafs command reaches files: through vafsd, any 9P server, or a
 * server in this process over a closed store (see vafs.h). */

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/loop.h"
#include "lib/vlog.h"
#include "tools/vafs/vafs.h"
#include "vafs-server/engine.h"
#include "vafs-server/ninep/server.h"

struct vafs_access {
    struct ninep_client *client;
    /* With --store only. */
    bool is_local;
    struct engine engine;
    struct loop *loop;
    pthread_t thread;
};

bool
vafs_is_offline(const struct vafs_options *options)
{
    return options->store != NULL;
}

bool
vafs_ctl_path(const struct vafs_options *options, char *buf, size_t size)
{
    snprintf(buf, size, "%s/vafsd.ctl", options->run_dir);
    if (access(buf, F_OK)) {
        vafs_error("%s: no vafsd runs there.  Start one (vafsd DIR), "
                   "or work on a closed store with --store DIR",
                   options->run_dir);
        return false;
    }
    return true;
}

bool
vafs_address_parse(const char *text, struct vafs_address *a)
{
    const char *path = text[0] == '/' ? text : strchr(text, ':');
    size_t n = path ? (size_t) (path - text) : strlen(text);

    memset(a, 0, sizeof *a);
    a->text = text;
    if (path && *path == ':') {
        path++;
    }
    if (path && *path && *path != '/') {
        vafs_error("%s: an address is BRANCH[:/PATH], with a slash after the "
                   "colon",
                   text);
        return false;
    }
    if (n > 500 || (path && strlen(path) >= sizeof a->path)) {
        vafs_error("%s: the address is too long", text);
        return false;
    }
    if (n) {
        snprintf(a->aname, sizeof a->aname, "branch/%.*s", (int) n, text);
    }
    snprintf(a->path, sizeof a->path, "%s", path && *path ? path : "/");
    return true;
}

static void *
run_loop(void *loop)
{
    loop_run(loop);
    return NULL;
}

/* Starts a server on a thread and connects to it. */
static int
open_local(struct vafs_access *a, const char *dir, bool write)
{
    struct engine_options options = {.read_only = !write};
    const char *reason = "out of memory";
    int fds[2] = {-1, -1};
    int error = loop_create(&a->loop);

    if (!error) {
        error = engine_open(&a->engine, a->loop, dir, &options, &reason);
    }
    if (!error && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds)) {
        error = errno;
    }
    if (!error) {
        /* Room for several large messages, so that both sides go on. */
        for (int i = 0; i < 2; i++) {
            int size = 4 << 20;

            setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
        }
        error = server_add(a->engine.server, fds[0], false);
        if (!error) {
            error = ninep_client_from_fd(fds[1], &a->client);
        } else {
            close(fds[1]);
        }
    }
    if (!error) {
        error = pthread_create(&a->thread, NULL, run_loop, a->loop);
    }
    if (error) {
        vafs_error("%s: %s", dir, reason);
        ninep_client_close(a->client);
        engine_close(&a->engine);
        loop_destroy(a->loop);
    }
    return error;
}

static int
open_remote(struct vafs_access *a, const struct vafs_options *options)
{
    char path[4096];
    int error;

    if (options->connect) {
        error = ninep_client_connect(options->connect, &a->client);
        if (error) {
            vafs_error("%s: %s", options->connect, strerror(error));
        }
        return error;
    }
    snprintf(path, sizeof path, "%s/vafsd.sock", options->run_dir);
    error = ninep_client_connect(path, &a->client);
    if (error == ENOENT || error == ECONNREFUSED) {
        vafs_error("%s: no vafsd runs there.  Start one (vafsd DIR), "
                   "or work on a closed store with --store DIR",
                   options->run_dir);
    } else if (error) {
        vafs_error("%s: %s", path, strerror(error));
    }
    return error;
}

bool
vafs_access_open(const struct vafs_options *options,
                 const struct vafs_address *address, bool write,
                 struct vafs_access **ret)
{
    struct vafs_access *a = calloc(1, sizeof *a);
    int error;

    if (!a) {
        vafs_error("out of memory");
        return false;
    }
    a->is_local = vafs_is_offline(options);
    error = a->is_local ? open_local(a, options->store, write)
                        : open_remote(a, options);
    if (error) {
        free(a);
        return false;
    }
    error = ninep_client_version(a->client, 0);
    if (!error) {
        error = ninep_attach(a->client, 0, "root", address->aname, geteuid(),
                             NULL);
    }
    if (error) {
        vafs_error("%s: %s", address->text,
                   error == ENOENT ? "there is no such branch"
                                   : strerror(error));
        vafs_access_close(a);
        return false;
    }
    *ret = a;
    return true;
}

bool
vafs_access_close(struct vafs_access *a)
{
    int error = 0;

    ninep_client_close(a->client);
    if (a->is_local) {
        loop_stop(a->loop);
        pthread_join(a->thread, NULL);
        error = engine_close(&a->engine);
        loop_destroy(a->loop);
        if (error) {
            vafs_error("closing the store failed: %s", strerror(error));
        }
    }
    free(a);
    return !error;
}

struct ninep_client *
vafs_client(struct vafs_access *a)
{
    return a->client;
}
