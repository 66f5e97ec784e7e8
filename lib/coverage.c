/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * coverage.c - the list of all counters.  It is built by constructors, before
 * any thread runs, and only read afterwards.
 */
#include "lib/coverage.h"

#include <stddef.h>
#include <string.h>

static struct coverage_counter *counters;

void
coverage_register__(struct coverage_counter *c)
{
    struct coverage_counter **p = &counters;

    while (*p && strcmp((*p)->name, c->name) < 0) {
        p = &(*p)->next;
    }
    c->next = *p;
    *p = c;
}

/* Returns the value of the counter 'name', or 0 if there is none.  Counters of
 * the same name in several files are summed. */
uint64_t
coverage_read(const char *name)
{
    uint64_t n = 0;

    for (struct coverage_counter *c = counters; c; c = c->next) {
        if (!strcmp(c->name, name)) {
            n += __atomic_load_n(&c->n, __ATOMIC_RELAXED);
        }
    }
    return n;
}

/* Calls 'cb' for each counter, in the order of names. */
void
coverage_for_each(void (*cb)(const char *name, uint64_t n, void *aux),
                  void *aux)
{
    for (struct coverage_counter *c = counters; c; c = c->next) {
        cb(c->name, __atomic_load_n(&c->n, __ATOMIC_RELAXED), aux);
    }
}
