/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * Runs in every domain of the lab and carries out commands that dom0 sends
 * over libxenvchan (see channel.h).
 *
 * One process per slot.  Each makes a channel, announces it, waits for a
 * client, runs one command with its standard streams carried over the channel,
 * reports the exit status and starts again.  When the client goes away the
 * command's process group is killed.  The end of a command is the end of its
 * shell: what the shell left in the background goes on, unheard. */

#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <libxenvchan.h>
#include <xenstore.h>

struct job {
    struct libxenvchan *vchan;
    pid_t pid;
    int to_stdin; /* -1 when closed. */
    int from[2];  /* Standard output, standard error. */
    bool exited;
    int status;
};

/* Waits up to 'ms' for an event of the channel and consumes it. */
static void
vchan_pause(struct libxenvchan *vchan, int ms)
{
    struct pollfd pfd = {.fd = libxenvchan_fd_for_select(vchan),
                         .events = POLLIN};

    if (poll(&pfd, 1, ms) > 0) {
        libxenvchan_wait(vchan);
    }
}

/* Moves exactly 'size' bytes or fails because the client went away. */
static bool
vchan_move(struct libxenvchan *vchan, void *data, size_t size, bool out)
{
    char *p = data;

    while (size > 0) {
        int n = out ? libxenvchan_write(vchan, p, size)
                    : libxenvchan_read(vchan, p, size);

        if (n < 0) {
            return false;
        } else if (n > 0) {
            p += n;
            size -= n;
        } else if (libxenvchan_is_open(vchan) != 1) {
            return false;
        } else {
            vchan_pause(vchan, 1000);
        }
    }
    return true;
}

static bool
send_frame(struct libxenvchan *vchan, enum channel_type type, void *data,
           size_t size)
{
    struct channel_header header = {.length = size, .type = type};

    return vchan_move(vchan, &header, sizeof header, true) &&
           vchan_move(vchan, data, size, true);
}

static bool
start_job(struct job *job, const char *command)
{
    int in[2], out[2], err[2];

    if (pipe(in) || pipe(out) || pipe(err)) {
        return false;
    }
    job->pid = fork();
    if (job->pid < 0) {
        return false;
    } else if (!job->pid) {
        setsid();
        dup2(in[0], 0);
        dup2(out[1], 1);
        dup2(err[1], 2);
        for (int fd = 3; fd < 256; fd++) {
            close(fd);
        }
        signal(SIGPIPE, SIG_DFL);
        execl("/bin/sh", "sh", "-c", command, (char *) NULL);
        _exit(127);
    }
    close(in[0]);
    close(out[1]);
    close(err[1]);
    job->to_stdin = in[1];
    job->from[0] = out[0];
    job->from[1] = err[0];
    for (int i = 0; i < 2; i++) {
        fcntl(job->from[i], F_SETFL, O_NONBLOCK);
    }
    return true;
}

/* Takes standard input that has arrived.  Blocks while the command does not
 * read: nothing else can then be lost by waiting. */
static bool
take_input(struct job *job)
{
    static char buf[CHANNEL_MAX_PAYLOAD];
    struct channel_header header;

    while (libxenvchan_data_ready(job->vchan) >= (int) sizeof header) {
        if (!vchan_move(job->vchan, &header, sizeof header, false) ||
            header.length > sizeof buf ||
            !vchan_move(job->vchan, buf, header.length, false)) {
            return false;
        }
        if (header.type != CHANNEL_STDIN || job->to_stdin < 0) {
            continue;
        }
        if (!header.length) {
            close(job->to_stdin);
            job->to_stdin = -1;
        }
        for (size_t ofs = 0; ofs < header.length;) {
            ssize_t n = write(job->to_stdin, buf + ofs, header.length - ofs);

            if (n <= 0) {
                close(job->to_stdin);
                job->to_stdin = -1;
                break;
            }
            ofs += n;
        }
    }
    return true;
}

/* Sends what the command has written.  Sets '*ret_more' if there was any. */
static bool
take_output(struct job *job, bool *ret_more)
{
    static char buf[CHANNEL_MAX_PAYLOAD];

    *ret_more = false;
    for (int i = 0; i < 2; i++) {
        if (job->from[i] >= 0) {
            ssize_t n = read(job->from[i], buf, sizeof buf);

            if (n > 0) {
                *ret_more = true;
                if (!send_frame(job->vchan,
                                i ? CHANNEL_STDERR : CHANNEL_STDOUT, buf, n)) {
                    return false;
                }
            } else if (!n || errno != EAGAIN) {
                close(job->from[i]);
                job->from[i] = -1;
            }
        }
    }
    return true;
}

static bool
run_job(struct job *job)
{
    while (!job->exited || job->from[0] >= 0 || job->from[1] >= 0) {
        struct pollfd pfds[3] = {
            {.fd = libxenvchan_fd_for_select(job->vchan), .events = POLLIN},
            {.fd = job->from[0], .events = POLLIN},
            {.fd = job->from[1], .events = POLLIN},
        };
        bool more;
        int status;

        poll(pfds, 3, job->from[0] < 0 && job->from[1] < 0 ? 10 : 200);
        if (pfds[0].revents) {
            libxenvchan_wait(job->vchan);
        }
        if (libxenvchan_is_open(job->vchan) != 1 || !take_input(job)) {
            return false;
        }
        if (!job->exited && waitpid(job->pid, &status, WNOHANG) > 0) {
            job->exited = true;
            job->status = WIFSIGNALED(status) ? 128 + WTERMSIG(status)
                                              : WEXITSTATUS(status);
        }
        if (!take_output(job, &more)) {
            return false;
        }
        if (job->exited && !more) {
            break;
        }
    }
    return send_frame(job->vchan, CHANNEL_EXIT, &job->status,
                      sizeof job->status);
}

/* Serves one client on 'vchan'. */
static void
serve(struct libxenvchan *vchan)
{
    static char command[CHANNEL_MAX_PAYLOAD + 1];
    struct job job = {.vchan = vchan, .to_stdin = -1, .from = {-1, -1}};
    struct channel_header header;

    if (!vchan_move(vchan, &header, sizeof header, false) ||
        header.type != CHANNEL_COMMAND || header.length >= sizeof command ||
        !vchan_move(vchan, command, header.length, false)) {
        return;
    }
    command[header.length] = '\0';
    if (!start_job(&job, command)) {
        return;
    }
    if (!run_job(&job) && !job.exited) {
        kill(-job.pid, SIGKILL);
        waitpid(job.pid, NULL, 0);
    }
    for (int i = 0; i < 2; i++) {
        if (job.from[i] >= 0) {
            close(job.from[i]);
        }
    }
    if (job.to_stdin >= 0) {
        close(job.to_stdin);
    }

    /* The client closes first, so that it has read everything. */
    for (int i = 0; i < 100 && libxenvchan_is_open(vchan) == 1; i++) {
        vchan_pause(vchan, 100);
    }
}

static void
serve_slot(int slot)
{
    struct xs_handle *xs = NULL;

    for (unsigned int generation = getpid();; generation++) {
        struct libxenvchan *vchan;
        char path[64], node[64], value[16];

        if (!xs) {
            xs = xs_open(0);
        }
        snprintf(path, sizeof path, "data/lab/%d-%u", slot, generation);
        snprintf(node, sizeof node, "data/lab/%d", slot);
        snprintf(value, sizeof value, "%u", generation);
        vchan = xs ? libxenvchan_server_init(NULL, 0, path, CHANNEL_RING,
                                             CHANNEL_RING)
                   : NULL;
        if (!vchan || !xs_write(xs, XBT_NULL, node, value, strlen(value))) {
            fprintf(stderr, "agent: no channel %s: %s\n", path,
                    strerror(errno));
            sleep(1);
            continue;
        }
        vchan->blocking = 0;
        while (libxenvchan_is_open(vchan) == 2) {
            vchan_pause(vchan, 60000);
        }
        if (libxenvchan_is_open(vchan) == 1) {
            serve(vchan);
        }
        xs_rm(xs, XBT_NULL, node);
        libxenvchan_close(vchan);
        xs_rm(xs, XBT_NULL, path);
    }
}

int
main(void)
{
    signal(SIGPIPE, SIG_IGN);
    for (int slot = 0; slot < CHANNEL_SLOTS; slot++) {
        if (!fork()) {
            serve_slot(slot);
            _exit(1);
        }
    }
    while (wait(NULL) > 0 || errno == EINTR) {
        continue;
    }
    return 1;
}
