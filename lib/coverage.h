/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * coverage.h - counters of events worth counting, cheap enough for any path.
 * A counter is defined once, in the file that counts; `coverage/show` on any
 * daemon's control socket lists all of them, and tests assert on them.
 */
#ifndef LIB_COVERAGE_H
#define LIB_COVERAGE_H 1

#include <stdint.h>

struct coverage_counter {
    const char *name;
    uint64_t n; /* Written with relaxed atomics. */
    struct coverage_counter *next;
};

void coverage_register__(struct coverage_counter *);

#define COVERAGE_DEFINE(NAME)                                           \
    static struct coverage_counter coverage_##NAME = {.name = #NAME};   \
    static void __attribute__((constructor)) coverage_init_##NAME(void) \
    {                                                                   \
        coverage_register__(&coverage_##NAME);                          \
    }                                                                   \
    static struct coverage_counter coverage_##NAME

#define COVERAGE_ADD(NAME, AMOUNT) \
    __atomic_fetch_add(&coverage_##NAME.n, AMOUNT, __ATOMIC_RELAXED)
#define COVERAGE_INC(NAME) COVERAGE_ADD(NAME, 1)

uint64_t coverage_read(const char *name);
void coverage_for_each(void (*cb)(const char *name, uint64_t n, void *aux),
                       void *aux);

#endif /* lib/coverage.h */
