/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * util.h - small macros, byte order and whole-buffer I/O that every user-space
 * part shares.
 */
#ifndef LIB_UTIL_H
#define LIB_UTIL_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#define ARRAY_SIZE(ARRAY) (sizeof(ARRAY) / sizeof((ARRAY)[0]))
#define CONTAINER_OF(PTR, TYPE, MEMBER) \
    ((TYPE *) (void *) ((char *) (PTR) -offsetof(TYPE, MEMBER)))
#define MIN(A, B) ((A) < (B) ? (A) : (B))
#define MAX(A, B) ((A) > (B) ? (A) : (B))
#define DIV_ROUND_UP(X, Y) (((X) + ((Y) -1)) / (Y))
#define ROUND_UP(X, Y) (DIV_ROUND_UP(X, Y) * (Y))
#define ROUND_DOWN(X, Y) ((X) / (Y) * (Y))
#define IS_POW2(X) ((X) && !((X) & ((X) -1)))
#define BUILD_ASSERT(EXPR) _Static_assert(EXPR, #EXPR)

/* The caller must look at the return value. */
#define NODISCARD __attribute__((warn_unused_result))
/* 'FMT' is the number of the printf format among the arguments, 'FIRST' of the
 * first one that is formatted. */
#define PRINTF_FORMAT(FMT, FIRST) __attribute__((format(printf, FMT, FIRST)))
#define UNUSED __attribute__((unused))

static inline uint16_t
get_le16(const void *p)
{
    uint16_t x;

    memcpy(&x, p, sizeof x);
    return x;
}

static inline uint32_t
get_le32(const void *p)
{
    uint32_t x;

    memcpy(&x, p, sizeof x);
    return x;
}

static inline uint64_t
get_le64(const void *p)
{
    uint64_t x;

    memcpy(&x, p, sizeof x);
    return x;
}

static inline void
put_le16(void *p, uint16_t x)
{
    memcpy(p, &x, sizeof x);
}

static inline void
put_le32(void *p, uint32_t x)
{
    memcpy(p, &x, sizeof x);
}

static inline void
put_le64(void *p, uint64_t x)
{
    memcpy(p, &x, sizeof x);
}

static inline uint32_t
get_be32(const void *p)
{
    return __builtin_bswap32(get_le32(p));
}

static inline uint64_t
get_be64(const void *p)
{
    return __builtin_bswap64(get_le64(p));
}

static inline void
put_be32(void *p, uint32_t x)
{
    put_le32(p, __builtin_bswap32(x));
}

static inline void
put_be64(void *p, uint64_t x)
{
    put_le64(p, __builtin_bswap64(x));
}

/* All the above assume a little-endian machine, as Xen's x86 and Arm guests
 * are. */
BUILD_ASSERT(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);

int read_full(int fd, void *buf, size_t size) NODISCARD;
int write_full(int fd, const void *buf, size_t size) NODISCARD;
int unix_connect(const char *path, int type, int *ret_fd) NODISCARD;
int
unix_listen(const char *path, int type, mode_t mode, int *ret_fd) NODISCARD;
int make_directories(const char *path, mode_t mode) NODISCARD;
int parse_size(const char *s, uint64_t *ret_size) NODISCARD;

#endif /* lib/util.h */
