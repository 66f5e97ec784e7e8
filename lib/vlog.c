/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * vlog.c - see vlog.h.  Any thread may log.
 */
#include "lib/vlog.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "lib/clock.h"

static const char *const level_names[] = {"off", "err", "warn", "info", "dbg"};
static const char *program_name = "xenlift";
static enum vlog_level max_level = VLOG_INFO;
static pthread_mutex_t rl_mutex = PTHREAD_MUTEX_INITIALIZER;

/* Names the program in each line; 'program' must stay valid. */
void
vlog_init(const char *program)
{
    program_name = program;
}

/* Sets the highest level that is written: "off", "err", "warn", "info" or
 * "dbg".  Returns EINVAL for any other word. */
int
vlog_set_level(const char *level)
{
    for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
        if (!strcmp(level, level_names[i])) {
            __atomic_store_n(&max_level, i, __ATOMIC_RELAXED);
            return 0;
        }
    }
    return EINVAL;
}

const char *
vlog_get_level(void)
{
    return level_names[__atomic_load_n(&max_level, __ATOMIC_RELAXED)];
}

bool
vlog_is_enabled(enum vlog_level level)
{
    return level <= __atomic_load_n(&max_level, __ATOMIC_RELAXED);
}

/* Writes one line.  'errno' is preserved. */
void
vlog_write(enum vlog_level level, const char *file, const char *fmt, ...)
{
    int saved_errno = errno;
    struct timespec now;
    char line[1024];
    struct tm tm;
    va_list args;
    size_t n;
    int m;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &tm);
    n += snprintf(line + n, sizeof line - n,
                  ".%03ldZ %s[%d] %s %s: ", now.tv_nsec / 1000000,
                  program_name, (int) getpid(), level_names[level], file);
    va_start(args, fmt);
    m = vsnprintf(line + n, sizeof line - n - 1, fmt, args);
    va_end(args);
    /* Some of it may be a guest's words, which must neither end the line nor
     * speak to the terminal of whoever reads the log. */
    for (m = MAX(m, 0); m > 0 && n < sizeof line - 2; m--, n++) {
        if ((unsigned char) line[n] < ' ' || line[n] == 0x7f) {
            line[n] = '?';
        }
    }
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0) {
        /* Nobody left to tell. */
    }
    errno = saved_errno;
}

/* Takes a token from 'rl'; returns false if there is none, in which case the
 * line is counted, and the count is written with the next line that passes. */
bool
vlog_rate_limit_pass(struct vlog_rate_limit *rl, const char *file)
{
    unsigned int n_dropped = 0;
    bool pass = false;
    uint64_t now = clock_mono_ns();

    pthread_mutex_lock(&rl_mutex);
    if (rl->last_ns) {
        uint64_t ms = (now - rl->last_ns) / NSEC_PER_MSEC;

        rl->tokens = MIN(rl->tokens + ms * rl->per_minute / 60,
                         (uint64_t) rl->burst * 1000);
    }
    rl->last_ns = now;
    if (rl->tokens >= 1000) {
        rl->tokens -= 1000;
        n_dropped = rl->n_dropped;
        rl->n_dropped = 0;
        pass = true;
    } else {
        rl->n_dropped++;
    }
    pthread_mutex_unlock(&rl_mutex);
    if (n_dropped) {
        vlog_write(VLOG_WARN, file, "%u lines of this kind left out",
                   n_dropped);
    }
    return pass;
}
