/* SPDX-License-Identifier: GPL-2.0-or-later */
/* TAP for the vafs-* tests: OK(condition, name...) counts and prints; EQ()
 * compares an errno with what is expected and prints both. */
#ifndef TESTS_LOCAL_VAFS_TAP_H
#define TESTS_LOCAL_VAFS_TAP_H 1

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static int tap_n, tap_n_failed;

static bool __attribute__((format(printf, 4, 5)))
tap_ok(bool ok, const char *file, int line, const char *format, ...)
{
    va_list args;

    printf("%sok %d - ", ok ? "" : "not ", ++tap_n);
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
    printf("\n");
    if (!ok) {
        printf("#   at %s:%d\n", file, line);
        tap_n_failed++;
    }
    fflush(stdout);
    return ok;
}

static bool __attribute__((format(printf, 5, 6)))
tap_errno(int got, int want, const char *file, int line, const char *format,
          ...)
{
    char name[256];
    va_list args;

    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    if (!tap_ok(got == want, file, line, "%s", name)) {
        printf("#   got %d (%s), want %d (%s)\n", got, strerror(got), want,
               strerror(want));
    }
    return got == want;
}

#define OK(COND, ...) tap_ok(COND, __FILE__, __LINE__, __VA_ARGS__)
#define ERR(GOT, WANT, ...) \
    tap_errno(GOT, WANT, __FILE__, __LINE__, __VA_ARGS__)
#define FINE(GOT, ...) ERR(GOT, 0, __VA_ARGS__)

static int __attribute__((unused)) tap_end(void)
{
    printf("1..%d\n", tap_n);
    return tap_n_failed != 0;
}

#endif /* tests/local/vafs-tap.h */
