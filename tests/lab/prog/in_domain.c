/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * in_domain [-i] [-t SECONDS] DOMID COMMAND
 *
 * Runs in dom0: has the agent of domain DOMID run COMMAND by its /bin/sh,
 * copies its output, and ends with its exit status.  -i sends standard input
 * along.  -t ends with 124 after that many seconds (default 60), also when the
 * domain or its agent never answers; 125 means that there is no such domain.
 */

#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <libxenvchan.h>
#include <xenstore.h>

static time_t deadline;
static struct xs_handle *xs;
static int domid;

static time_t
now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec;
}

static void
check_deadline(const char *what)
{
    if (now() >= deadline) {
        fprintf(stderr, "in_domain: timed out %s\n", what);
        exit(124);
    }
}

/* Ends the program if the domain is no more.  A dead domain does not close its
 * channel, and our mapping of it would keep it from going away wholly. */
static void
check_domain(void)
{
    char path[64];
    char *there;

    snprintf(path, sizeof path, "/local/domain/%d/domid", domid);
    there = xs_read(xs, XBT_NULL, path, NULL);
    if (!there && errno == ENOENT) {
        fprintf(stderr, "in_domain: no domain %d\n", domid);
        exit(125);
    }
    free(there);
}

static void
vchan_pause(struct libxenvchan *vchan, int ms)
{
    struct pollfd pfd = {.fd = libxenvchan_fd_for_select(vchan),
                         .events = POLLIN};

    if (poll(&pfd, 1, ms) > 0) {
        libxenvchan_wait(vchan);
    } else {
        check_domain();
    }
}

static void
vchan_move(struct libxenvchan *vchan, void *data, size_t size, bool out)
{
    char *p = data;

    while (size > 0) {
        int n = out ? libxenvchan_write(vchan, p, size)
                    : libxenvchan_read(vchan, p, size);

        if (n > 0) {
            p += n;
            size -= n;
        } else if (n < 0 || !libxenvchan_is_open(vchan)) {
            fprintf(stderr, "in_domain: the agent went away\n");
            exit(126);
        } else {
            vchan_pause(vchan, 500);
            check_deadline("in the middle of a command");
        }
    }
}

static void
send_frame(struct libxenvchan *vchan, enum channel_type type, void *data,
           size_t size)
{
    struct channel_header header = {.length = size, .type = type};

    vchan_move(vchan, &header, sizeof header, true);
    vchan_move(vchan, data, size, true);
}

/* Connects to the channel that slot 'slot' announces now; NULL if none. */
static struct libxenvchan *
connect_slot(int slot)
{
    struct libxenvchan *vchan;
    char path[128];
    char *generation;

    snprintf(path, sizeof path, "/local/domain/%d/data/lab/%d", domid, slot);
    generation = xs_read(xs, XBT_NULL, path, NULL);
    if (!generation) {
        return NULL;
    }
    snprintf(path, sizeof path, "/local/domain/%d/data/lab/%d-%.20s", domid,
             slot, generation);
    free(generation);
    vchan = libxenvchan_client_init(NULL, domid, path);
    if (vchan && libxenvchan_is_open(vchan) != 1) {
        libxenvchan_close(vchan);
        return NULL;
    }
    return vchan;
}

/* Takes a free slot of the domain, waiting for one until the deadline. */
static struct libxenvchan *
connect_domain(void)
{
    xs = xs_open(0);
    if (!xs) {
        fprintf(stderr, "in_domain: no xenstore: %s\n", strerror(errno));
        exit(125);
    }
    mkdir("/run/lab", 0755);
    for (;;) {
        check_domain();
        for (int slot = 0; slot < CHANNEL_SLOTS; slot++) {
            struct libxenvchan *vchan;
            char lock[64];
            int fd;

            snprintf(lock, sizeof lock, "/run/lab/slot-%d-%d", domid, slot);
            fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
            if (fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB)) {
                vchan = connect_slot(slot);
                if (vchan) {
                    vchan->blocking = 0;
                    return vchan;
                }
            }
            close(fd);
        }
        usleep(50000);
        check_deadline("waiting for the domain's agent");
    }
}

static void
copy(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);

        if (n <= 0) {
            return;
        }
        data += n;
        size -= n;
    }
}

int
main(int argc, char **argv)
{
    static char buf[CHANNEL_MAX_PAYLOAD];
    struct libxenvchan *vchan;
    bool input = false;
    int seconds = 60;
    int c;

    while ((c = getopt(argc, argv, "+it:")) != -1) {
        if (c == 'i') {
            input = true;
        } else if (c == 't') {
            seconds = atoi(optarg);
        } else {
            return 125;
        }
    }
    if (argc - optind != 2) {
        fprintf(stderr, "usage: in_domain [-i] [-t S] DOMID COMMAND\n");
        return 125;
    }
    deadline = now() + seconds;
    domid = atoi(argv[optind]);
    vchan = connect_domain();
    send_frame(vchan, CHANNEL_COMMAND, argv[optind + 1],
               strlen(argv[optind + 1]));
    if (!input) {
        send_frame(vchan, CHANNEL_STDIN, NULL, 0);
    }
    for (;;) {
        struct pollfd pfds[2] = {
            {.fd = libxenvchan_fd_for_select(vchan), .events = POLLIN},
            {.fd = input && libxenvchan_buffer_space(vchan) > 8192 ? 0 : -1,
             .events = POLLIN},
        };
        struct channel_header header;

        while (libxenvchan_data_ready(vchan) >= (int) sizeof header) {
            vchan_move(vchan, &header, sizeof header, false);
            if (header.length > sizeof buf) {
                return 126;
            }
            vchan_move(vchan, buf, header.length, false);
            if (header.type == CHANNEL_EXIT) {
                int status;

                memcpy(&status, buf, sizeof status);
                libxenvchan_close(vchan);
                return status;
            }
            copy(header.type == CHANNEL_STDERR ? 2 : 1, buf, header.length);
        }
        if (!libxenvchan_is_open(vchan)) {
            fprintf(stderr, "in_domain: the agent went away\n");
            return 126;
        }
        if (!poll(pfds, 2, 500)) {
            check_domain();
        }
        if (pfds[0].revents) {
            libxenvchan_wait(vchan);
        }
        if (pfds[1].fd == 0 && pfds[1].revents) {
            ssize_t n = read(0, buf, 4096);

            input = n > 0;
            send_frame(vchan, CHANNEL_STDIN, buf, n > 0 ? n : 0);
        }
        check_deadline("in the middle of a command");
    }
}
