/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * addr.c - addresses as a guest wrote them, and which of them it may name by
 * default: everything but what belongs to the driver domain itself (loopback)
 * and the link-local addresses where machines ask for their own secrets.
 */
#include "backend/sockets/pvcalls-impl.h"

#include <errno.h>
#include <sys/socket.h>

#include "lib/coverage.h"

COVERAGE_DEFINE(pvcalls_refused_connect);
COVERAGE_DEFINE(pvcalls_refused_bind);

/* Makes '*ret' of an address of 'len' bytes, of which version 1 knows only
 * AF_INET.  EINVAL: impossible length; EAFNOSUPPORT. */
int
pvc_addr_parse(const uint8_t bytes[PVCALLS_ADDR_SIZE], uint32_t len,
               struct sockaddr_in *ret)
{
    struct sockaddr_in sin;

    if (len < PVCALLS_ADDR_LEN_MIN || len > PVCALLS_ADDR_SIZE) {
        return EINVAL;
    }
    memcpy(&sin, bytes, sizeof sin);
    if (sin.sin_family != AF_INET) {
        return EAFNOSUPPORT;
    }
    memset(sin.sin_zero, 0, sizeof sin.sin_zero);
    *ret = sin;
    return 0;
}

static bool
addr_is_loopback__(uint32_t a)
{
    /* A connect to 0.0.0.0, and to all of 0/8 on older kernels, goes to the
     * loopback interface too. */
    return a >> 24 == 127 || a >> 24 == 0;
}

/* Returns 0 if the guest may connect to 'sin', else EACCES. */
int
pvc_addr_may_connect(const struct worker *w, const struct sockaddr_in *sin)
{
    uint32_t a = ntohl(sin->sin_addr.s_addr);

    if ((addr_is_loopback__(a) && !w->opt.allow_loopback) ||
        a >> 16 == 0xa9fe /* 169.254/16 */) {
        COVERAGE_INC(pvcalls_refused_connect);
        return EACCES;
    }
    return 0;
}

/* Returns 0 if the guest may bind to 'sin', else EACCES.  Privileged ports are
 * refused by the kernel: the worker has no capability. */
int
pvc_addr_may_bind(const struct worker *w, const struct sockaddr_in *sin)
{
    uint32_t a = ntohl(sin->sin_addr.s_addr);

    if (a && addr_is_loopback__(a) && !w->opt.allow_loopback) {
        COVERAGE_INC(pvcalls_refused_bind);
        return EACCES;
    }
    return 0;
}
