/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Fuzz target: what a guest sends to the 9P server.
 *
 * The input is a stream of messages without their size fields: a length byte
 * (the message's size after it; 255: the next two bytes are the size), then
 * type, tag and body.  The first byte of all says how often the file layer
 * lets a request wait, so that the pool has its part.  The files are in memory
 * (tests/unit/fake-branch.c).  A version and an attach as fid 0 are sent
 * before, so that most of the input meets a session that works.  A last bit
 * sends a size field as it stands, for the framing. */

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/loop.h"
#include "lib/ninep/codec.h"
#include "lib/vlog.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/fake-branch.h"
#include "vafs-server/ninep/pool.h"
#include "vafs-server/ninep/server.h"
#include "vafs-server/view/view.h"

static struct loop *loop;
static struct view *view;

int
LLVMFuzzerInitialize(int *argc UNUSED, char ***argv UNUSED)
{
    vlog_init("fuzz");
    if (vlog_set_level("off") || loop_create(&loop) ||
        view_create(NULL, &view)) {
        abort();
    }
    return 0;
}

/* Lets the server work until nothing is left to do, and throws its answers
 * away. */
static void
settle(struct server *server, int fd)
{
    char buf[65536];
    int idle = 0;

    while (idle < 2) {
        ssize_t n;

        loop_run_once(loop, 0);
        n = recv(fd, buf, sizeof buf, MSG_DONTWAIT);
        if (n > 0 || pool_n_jobs(server_pool(server))) {
            idle = 0;
        } else {
            idle++;
        }
    }
}

static void
send_msg(int fd, const struct ninep_msg *msg)
{
    uint8_t buf[256];
    size_t size;

    if (!ninep_encode(msg, buf, sizeof buf, &size) &&
        send(fd, buf, size, MSG_NOSIGNAL) < 0) {
        return;
    }
}

static void
begin(int fd)
{
    struct ninep_msg m = {.type = NINEP_TVERSION, .tag = NINEP_NOTAG};

    m.version.msize = 8192;
    m.version.version = ninep_str(NINEP_VERSION_L);
    send_msg(fd, &m);
    m = (struct ninep_msg){.type = NINEP_TATTACH, .tag = 1};
    m.tattach.afid = NINEP_NOFID;
    m.tattach.uname = ninep_str("root");
    m.tattach.aname = ninep_str("");
    send_msg(fd, &m);
}

static void
feed(struct server *server, int fd, const uint8_t *p, size_t left)
{
    uint8_t buf[65540];

    while (left) {
        size_t size = *p++;
        bool raw = false;

        left--;
        if (size == 254) {
            raw = true;
            size = MIN(left, 32);
        } else if (size == 255 && left >= 2) {
            size = get_le16(p);
            p += 2;
            left -= 2;
        }
        size = MIN(size, left);
        put_le32(buf, size + 4);
        memcpy(buf + 4, p, size);
        if (send(fd, raw ? buf + 4 : buf, raw ? size : size + 4,
                 MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
            return; /* The server has hung up. */
        }
        p += size;
        left -= size;
        if (size > 4000) {
            settle(server, fd);
        }
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct server_options options = {.n_threads = 2};
    struct server *server;
    int fds[2];

    if (!size || server_create(loop, view, &options, &server)) {
        return 0;
    }
    fake_wait = data[0] % 8;
    if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds)) {
        if (!server_add(server, fds[0], false)) {
            begin(fds[1]);
            settle(server, fds[1]);
            feed(server, fds[1], data + 1, size - 1);
            settle(server, fds[1]);
        }
        close(fds[1]);
        loop_run_once(loop, 0);
    }
    server_destroy(server);
    return 0;
}
