/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * xenlift-broker DIR: runs the broker behind "local:DIR" until SIGTERM or
 * SIGINT.  For tests; not installed.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "hv/broker.h"
#include "lib/vlog.h"

static void
on_signal(int signal UNUSED, void *loop)
{
    loop_stop(loop);
}

int
main(int argc, char *argv[])
{
    static const int signals[] = {SIGTERM, SIGINT};
    struct broker *broker;
    struct loop *loop;
    int error;

    if (argc != 2) {
        fprintf(stderr, "usage: %s DIR\n", argv[0]);
        return 2;
    }
    vlog_init("xenlift-broker");
    error = loop_create(&loop);
    error = error ? error
                  : loop_add_signals(loop, signals, ARRAY_SIZE(signals),
                                     on_signal, loop);
    error = error ? error : broker_create(loop, argv[1], &broker);
    if (error) {
        vlog_err("cannot start in %s: %s", argv[1], strerror(error));
        return 1;
    }
    loop_run(loop);
    broker_destroy(broker);
    loop_destroy(loop);
    return 0;
}
