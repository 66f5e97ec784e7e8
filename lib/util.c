/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * util.c - whole-buffer I/O, Unix sockets and the like.
 */
#include "lib/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Reads exactly 'size' bytes from the blocking descriptor 'fd' into 'buf'.
 * Returns 0, ENODATA if the input ended before, or a positive errno. */
int
read_full(int fd, void *buf, size_t size)
{
    char *p = buf;

    while (size > 0) {
        ssize_t n = read(fd, p, size);

        if (n > 0) {
            p += n;
            size -= n;
        } else if (n == 0) {
            return ENODATA;
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

/* Writes all 'size' bytes of 'buf' to the blocking descriptor 'fd'.  Returns 0
 * or a positive errno. */
int
write_full(int fd, const void *buf, size_t size)
{
    const char *p = buf;

    while (size > 0) {
        ssize_t n = write(fd, p, size);

        if (n >= 0) {
            p += n;
            size -= n;
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

static int
unix_address__(const char *path, struct sockaddr_un *sun)
{
    memset(sun, 0, sizeof *sun);
    sun->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof sun->sun_path) {
        return ENAMETOOLONG;
    }
    strcpy(sun->sun_path, path);
    return 0;
}

/* Connects a socket of 'type' (SOCK_STREAM or SOCK_SEQPACKET, optionally with
 * SOCK_NONBLOCK) to the Unix socket at 'path'.  Returns 0 and the descriptor
 * (close-on-exec) in '*ret_fd', or a positive errno. */
int
unix_connect(const char *path, int type, int *ret_fd)
{
    struct sockaddr_un sun;
    int fd, error;

    error = unix_address__(path, &sun);
    if (error) {
        return error;
    }
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    if (connect(fd, (struct sockaddr *) &sun, sizeof sun) < 0) {
        error = errno;
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return 0;
}

/* Listens on a Unix socket at 'path' with permission bits 'mode'.  A socket
 * that a dead process left there is replaced; one that somebody answers is
 * EADDRINUSE.  The file never exists with wider permissions than 'mode'. */
int
unix_listen(const char *path, int type, mode_t mode, int *ret_fd)
{
    struct sockaddr_un sun;
    int fd, probe, error;
    mode_t mask;

    error = unix_address__(path, &sun);
    if (error) {
        return error;
    }
    error = unix_connect(path, type & ~SOCK_NONBLOCK, &probe);
    if (!error) {
        close(probe);
        return EADDRINUSE;
    } else if (error == ECONNREFUSED) {
        unlink(path);
    }
    fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    mask = umask(0777 & ~mode);
    error = bind(fd, (struct sockaddr *) &sun, sizeof sun) ? errno : 0;
    umask(mask);
    if (!error && listen(fd, 128)) {
        error = errno;
        unlink(path);
    }
    if (error) {
        close(fd);
        return error;
    }
    *ret_fd = fd;
    return 0;
}

/* Creates 'path' and the directories above it, like mkdir -p. */
int
make_directories(const char *path, mode_t mode)
{
    char *copy = strdup(path);
    int error = 0;

    if (!copy) {
        return ENOMEM;
    }
    for (char *p = copy + 1; !error; p++) {
        char c = *p;

        if (c == '/' || c == '\0') {
            *p = '\0';
            if (mkdir(copy, mode) && errno != EEXIST) {
                error = errno;
            }
            *p = c;
            if (c == '\0') {
                break;
            }
        }
    }
    free(copy);
    return error;
}

/* Parses a size such as "4096", "64k", "256M", "1G" or "2T" (powers of 1024,
 * an optional "iB" or "B" behind) into '*ret_size', in bytes.  Returns 0,
 * EINVAL or ERANGE. */
int
parse_size(const char *s, uint64_t *ret_size)
{
    static const char units[] = "kmgt";
    unsigned long long x;
    int shift = 0;
    char *end;

    if (*s < '0' || *s > '9') {
        return EINVAL;
    }
    errno = 0;
    x = strtoull(s, &end, 10);
    if (errno) {
        return ERANGE;
    }
    if (*end && *end != 'B') {
        const char *u = strchr(units, *end | 0x20);

        if (!u) {
            return EINVAL;
        }
        shift = 10 * (u - units + 1);
        end++;
        if (*end == 'i') {
            end++;
        }
    }
    if (*end == 'B') {
        end++;
    }
    if (*end) {
        return EINVAL;
    }
    if (shift && x >> (64 - shift)) {
        return ERANGE;
    }
    *ret_size = (uint64_t) x << shift;
    return 0;
}
