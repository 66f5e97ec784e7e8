/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * clock.h - time in nanoseconds.
 */
#ifndef LIB_CLOCK_H
#define LIB_CLOCK_H 1

#include <stdint.h>
#include <time.h>

#define NSEC_PER_SEC UINT64_C(1000000000)
#define NSEC_PER_MSEC UINT64_C(1000000)
#define NSEC_PER_USEC UINT64_C(1000)

static inline uint64_t
clock_get__(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* Time that never jumps, from an arbitrary start. */
static inline uint64_t
clock_mono_ns(void)
{
    return clock_get__(CLOCK_MONOTONIC);
}

/* Time since 1970, UTC. */
static inline uint64_t
clock_real_ns(void)
{
    return clock_get__(CLOCK_REALTIME);
}

#endif /* lib/clock.h */
