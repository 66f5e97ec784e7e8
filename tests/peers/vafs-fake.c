/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The 9P server over files in memory: listens on PATH until it is killed.
 *
 * usage: vafs-fake PATH [WAIT]
 *
 * With WAIT, each WAITth call of the file layer says that it would wait, so
 * that requests move to the pool in the middle. */

#include <stdio.h>
#include <stdlib.h>

#include "lib/loop.h"
#include "lib/vlog.h"
#include "tests/unit/fake-branch.h"
#include "vafs-server/ninep/server.h"
#include "vafs-server/view/view.h"

int
main(int argc, char *argv[])
{
    struct server *server;
    struct loop *loop;
    struct view *view;

    vlog_init("vafs-fake");
    if (argc > 2) {
        fake_wait = atoi(argv[2]);
    }
    if (argc < 2 || loop_create(&loop) || view_create(NULL, &view) ||
        server_create(loop, view, NULL, &server) ||
        server_listen(server, argv[1], false, 0600)) {
        fprintf(stderr, "usage: vafs-fake PATH [WAIT]\n");
        return 1;
    }
    loop_run(loop);
    return 0;
}
