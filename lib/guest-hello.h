/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The first bytes on vafsd's guest socket: who the guest is.
 *
 * xenliftd connects to guest.sock (which only root can reach), writes one
 * struct guest_hello, and hands the descriptor to the guest's worker.  What
 * follows on it is plain 9P2000.L, written by the guest.  vafsd sends no
 * answer to the hello: a hello that is not valid ends the connection, and an
 * attach name that names nothing is answered at Tattach (ENOENT), so that the
 * guest sees why its mount fails.
 *
 * The attach name comes from the backend's 'path' node, which the toolstack
 * wrote.  It binds the session: the aname that the guest itself sends can only
 * name something below it (see vafs-server/view/view.h).
 *
 * All integers are little-endian.
 *
 *     offset  size  field
 *          0     8  magic   "XLGUEST" and a NUL
 *          8     4  version 1
 *         12     4  domid
 *         16    16  uuid    of the domain, as bytes, first digit first
 *         32   480  attach  NUL-terminated, rest zero; "" = the only view
 */
#ifndef LIB_GUEST_HELLO_H
#define LIB_GUEST_HELLO_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define GUEST_HELLO_MAGIC "XLGUEST" /* 8 bytes with its NUL. */
#define GUEST_HELLO_VERSION 1
#define GUEST_HELLO_SIZE 512
#define GUEST_HELLO_ATTACH_MAX 479 /* Bytes without the NUL. */

struct guest_hello {
    char magic[8];
    uint8_t version[4];
    uint8_t domid[4];
    uint8_t uuid[16];
    char attach[GUEST_HELLO_ATTACH_MAX + 1];
};
_Static_assert(sizeof(struct guest_hello) == GUEST_HELLO_SIZE, "wire size");

static inline void
guest_hello_put32__(uint8_t out[4], uint32_t v)
{
    out[0] = v;
    out[1] = v >> 8;
    out[2] = v >> 16;
    out[3] = v >> 24;
}

static inline uint32_t
guest_hello_get32__(const uint8_t in[4])
{
    return in[0] | in[1] << 8 | in[2] << 16 | (uint32_t) in[3] << 24;
}

/* Fills '*hello' for domain 'domid' with the given 'uuid' and 'attach' name.
 * Returns false, leaving '*hello' zeroed, if 'attach' is too long. */
static inline bool
guest_hello_init(struct guest_hello *hello, uint32_t domid,
                 const uint8_t uuid[16], const char *attach)
{
    size_t n = strlen(attach);

    memset(hello, 0, sizeof *hello);
    if (n > GUEST_HELLO_ATTACH_MAX) {
        return false;
    }
    memcpy(hello->magic, GUEST_HELLO_MAGIC, sizeof hello->magic);
    guest_hello_put32__(hello->version, GUEST_HELLO_VERSION);
    guest_hello_put32__(hello->domid, domid);
    memcpy(hello->uuid, uuid, sizeof hello->uuid);
    memcpy(hello->attach, attach, n);
    return true;
}

/* Checks a received hello.  Returns NULL if it is valid, else a sentence that
 * says what is wrong with it. */
static inline const char *
guest_hello_validate(const struct guest_hello *hello)
{
    if (memcmp(hello->magic, GUEST_HELLO_MAGIC, sizeof hello->magic)) {
        return "the first 8 bytes are not a guest hello";
    }
    if (guest_hello_get32__(hello->version) != GUEST_HELLO_VERSION) {
        return "the hello's version is not 1";
    }
    if (hello->attach[GUEST_HELLO_ATTACH_MAX] != '\0') {
        return "the attach name is not terminated";
    }
    return NULL;
}

static inline uint32_t
guest_hello_domid(const struct guest_hello *hello)
{
    return guest_hello_get32__(hello->domid);
}

#endif /* LIB_GUEST_HELLO_H */
