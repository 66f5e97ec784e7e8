/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * isolation.h - giving up what a process does not need.
 */
#ifndef LIB_ISOLATION_H
#define LIB_ISOLATION_H 1

#include "lib/util.h"

int isolation_drop(const char *user, const int *keep_fds, size_t n) NODISCARD;
int isolation_close_fds(const int *keep_fds, size_t n) NODISCARD;

#endif /* lib/isolation.h */
