/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * isolation.c - drops to an unprivileged user for good.
 *
 * Goal: a process that a guest takes over holds the descriptors it was given
 * and nothing else: no other descriptor, no capability, no way to gain one.
 * Non-goals here: the system call filter and namespaces.
 */
#include "lib/isolation.h"

#include <errno.h>
#include <grp.h>
#include <linux/close_range.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static int
compare_ints__(const void *a_, const void *b_)
{
    const int *a = a_, *b = b_;

    return *a < *b ? -1 : *a > *b;
}

static int
close_span__(unsigned int first, unsigned int last)
{
    if (first > last) {
        return 0;
    }
    return syscall(SYS_close_range, first, last, 0) ? errno : 0;
}

/* Closes every descriptor above standard error except the 'n' in 'keep_fds'.
 * Returns 0 or a positive errno. */
int
isolation_close_fds(const int *keep_fds, size_t n)
{
    unsigned int next = STDERR_FILENO + 1;
    int *keep = malloc((n + 1) * sizeof *keep);
    int error = 0;

    if (!keep) {
        return ENOMEM;
    }
    if (n) {
        memcpy(keep, keep_fds, n * sizeof *keep);
        qsort(keep, n, sizeof *keep, compare_ints__);
    }
    for (size_t i = 0; i < n && !error; i++) {
        if (keep[i] >= (int) next) {
            error = close_span__(next, keep[i] - 1);
            next = keep[i] + 1;
        }
    }
    free(keep);
    return error ? error : close_span__(next, ~0U);
}

/* Closes all descriptors but 0-2 and 'keep_fds', becomes 'user' (name or
 * number; a process that is not root keeps its own user), with no
 * supplementary groups, no capability in any set, no core dump and no new
 * privileges. Returns 0 or a positive errno, after which the process must not
 * go on. */
int
isolation_drop(const char *user, const int *keep_fds, size_t n)
{
    struct rlimit none = {0, 0};
    int error;

    error = isolation_close_fds(keep_fds, n);
    if (error) {
        return error;
    }
    if (!geteuid()) {
        struct passwd *pw;

        errno = 0;
        pw = getpwnam(user);
        if (!pw) {
            char *end;
            unsigned long uid = strtoul(user, &end, 10);

            if (!*user || *end || uid == 0 || uid > INT32_MAX) {
                return errno ? errno : ENOENT;
            }
            if (setgroups(0, NULL) || setresgid(uid, uid, uid) ||
                setresuid(uid, uid, uid)) {
                return errno;
            }
        } else if (!pw->pw_uid) {
            return EINVAL;
        } else if (setgroups(0, NULL) ||
                   setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) ||
                   setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid)) {
            return errno;
        }
        /* From root to another user the kernel clears the permitted, effective
         * and ambient sets; if root can be had back, something is wrong. */
        if (!setuid(0) || !seteuid(0)) {
            return EPERM;
        }
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || setrlimit(RLIMIT_CORE, &none)) {
        return errno;
    }
    return 0;
}
