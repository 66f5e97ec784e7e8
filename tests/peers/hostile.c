/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hostile.c - a frontend that does not keep the rules: named cases for both
 * devices, run in a guest on real Xen or over hv/local.  Each case connects
 * its device through xenstore as a frontend does, does its harm, and checks
 * that the backend's answer is an error of that request or the end of that
 * device, and that the device can be connected anew and works afterwards.
 *
 *     hostile [--hv SPEC] [--connect IP:PORT] [--list] [CASE...]
 *
 * No driver may hold the devices meanwhile.  Prints TAP.
 */
#include "tests/peers/hostile.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/clock.h"

struct hostile hostile;

void
hostile_sleep_ms(int ms)
{
    poll(NULL, 0, ms);
}

uint32_t
hostile_random(void)
{
    static uint64_t x = UINT64_C(88172645463325252);

    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return x >> 16;
}

/* Handshake. */

static char *
front_path(const char *kind, const char *node)
{
    static char path[128];

    snprintf(path, sizeof path, "device/%s/0/%s", kind, node);
    return path;
}

static unsigned int
read_state(const char *path)
{
    uint64_t n;

    return hv_xs_read_uint(hostile.hv, HV_XS_NONE, path, 8, &n) ? 0 : n;
}

static unsigned int
back_state(const char *kind)
{
    char path[512], *back;
    unsigned int n;

    if (hv_xs_read(hostile.hv, HV_XS_NONE, front_path(kind, "backend"),
                   &back)) {
        return 0;
    }
    snprintf(path, sizeof path, "%s/state", back);
    n = read_state(path);
    free(back);
    return n;
}

static int
write_front(const char *kind, const char *node, uint32_t value)
{
    char text[16];

    snprintf(text, sizeof text, "%u", value);
    return hv_xs_write(hostile.hv, HV_XS_NONE, front_path(kind, node), text);
}

static bool
wait_back(const char *kind, unsigned int a, unsigned int b)
{
    uint64_t end = clock_mono_ns() + HOSTILE_MS * NSEC_PER_MSEC;

    do {
        unsigned int n = back_state(kind);

        if (n == a || n == b) {
            return true;
        }
        hostile_sleep_ms(10);
    } while (clock_mono_ns() < end);
    return false;
}

/* Brings the device to the state where a frontend may begin. */
const char *
hostile_begin(const char *kind)
{
    uint64_t id;

    if (hv_xs_read_uint(hostile.hv, HV_XS_NONE, front_path(kind, "backend-id"),
                        HV_DOMID_INVALID, &id)) {
        return HOSTILE_SKIP;
    }
    hostile.backend = id;
    if (back_state(kind) != 2) {
        hostile_end(kind);
    }
    if (write_front(kind, "state", 1)) {
        return "cannot write the frontend's state";
    }
    return wait_back(kind, 2, 2) ? NULL : "the backend does not begin anew";
}

/* Writes 'nodes' and asks the backend to connect.  NULL if it did. */
const char *
hostile_connect(const char *kind, const struct hostile_node nodes[], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (write_front(kind, nodes[i].name, nodes[i].value)) {
            return "cannot write to xenstore";
        }
    }
    if (write_front(kind, "version", 1) || write_front(kind, "state", 3)) {
        return "cannot write to xenstore";
    }
    if (!wait_back(kind, 4, 5)) {
        return "the backend does not answer";
    }
    if (back_state(kind) != 4) {
        return "the backend refuses the device";
    }
    write_front(kind, "state", 4);
    return NULL;
}

bool
hostile_is_connected(const char *kind)
{
    return back_state(kind) == 4;
}

const char *
hostile_expect_closed(const char *kind)
{
    return wait_back(kind, 5, 6) ? NULL : "the backend did not end the device";
}

/* Closes the device, so that nothing of ours is mapped any more. */
void
hostile_end(const char *kind)
{
    write_front(kind, "state", 5);
    wait_back(kind, 5, 6);
    write_front(kind, "state", 6);
    wait_back(kind, 6, 2);
}

/* Main. */

static int n_tests, n_failed;

static bool
is_wanted(const char *name, char *const wanted[])
{
    if (!*wanted) {
        return true;
    }
    for (; *wanted; wanted++) {
        if (!strcmp(*wanted, name)) {
            return true;
        }
    }
    return false;
}

static void
run_cases(const struct hostile_case *c, char *const wanted[])
{
    for (; c->name; c++) {
        const char *error;

        if (!is_wanted(c->name, wanted)) {
            continue;
        }
        error = c->run();
        n_tests++;
        if (error == HOSTILE_SKIP) {
            printf("ok %d - hostile: %s # SKIP no such device or no "
                   "--connect\n",
                   n_tests, c->name);
        } else if (error) {
            n_failed++;
            printf("# %s\nnot ok %d - hostile: %s\n", error, n_tests, c->name);
        } else {
            printf("ok %d - hostile: %s\n", n_tests, c->name);
        }
        fflush(stdout);
    }
}

static bool
parse_target(const char *s)
{
    const char *colon = strchr(s, ':');
    char ip[32];

    if (!colon || colon - s >= (ptrdiff_t) sizeof ip) {
        return false;
    }
    memcpy(ip, s, colon - s);
    ip[colon - s] = '\0';
    hostile.target.sin_family = AF_INET;
    hostile.target.sin_port = htons(atoi(colon + 1));
    hostile.has_target = true;
    return inet_pton(AF_INET, ip, &hostile.target.sin_addr) == 1;
}

int
main(int argc, char *argv[])
{
    static const struct option options[] = {
        {"hv", required_argument, NULL, 'h'},
        {"connect", required_argument, NULL, 'c'},
        {"list", no_argument, NULL, 'l'},
        {NULL, 0, NULL, 0},
    };
    const char *spec = "xen";
    int c, error;

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'h':
            spec = optarg;
            break;
        case 'c':
            if (!parse_target(optarg)) {
                fprintf(stderr, "hostile: --connect IP:PORT\n");
                return 2;
            }
            break;
        case 'l':
            for (const struct hostile_case *k = hostile_sockets; k->name;
                 k++) {
                puts(k->name);
            }
            for (const struct hostile_case *k = hostile_files; k->name; k++) {
                puts(k->name);
            }
            return 0;
        default:
            fprintf(stderr, "usage: hostile [--hv SPEC] [--connect IP:PORT] "
                            "[--list] [CASE...]\n");
            return 2;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    error = hv_open(spec, HV_ALLOC | HV_EVTCHN | HV_STORE, &hostile.hv);
    if (error) {
        printf("not ok - hostile: cannot open %s: %s\n", spec,
               strerror(error));
        return 1;
    }
    run_cases(hostile_sockets, argv + optind);
    run_cases(hostile_files, argv + optind);
    hv_close(hostile.hv);
    printf("1..%d\n", n_tests);
    return n_failed ? 1 : 0;
}
