/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Is the store broken?  A state that is entered once and never left. */

#ifndef VAFS_STORE_HEALTH_H
#define VAFS_STORE_HEALTH_H 1

#include <string.h>

#include "lib/vlog.h"

struct health {
    int error; /* Atomic; 0 = sound. */
};

static inline int
health_get(const struct health *health)
{
    return __atomic_load_n(&health->error, __ATOMIC_ACQUIRE);
}

/* Notes that 'what' failed with 'error', and says so the first time. */
static inline void
health_break(struct health *health, int error, const char *what)
{
    int sound = 0;

    if (__atomic_compare_exchange_n(&health->error, &sound, error, false,
                                    __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        vlog_err("%s failed (%s): the store is broken and takes no more "
                 "changes until it is opened again",
                 what, strerror(error));
    }
}

#endif /* vafs-server/store/health.h */
