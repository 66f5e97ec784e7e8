/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * harness.h - a worker under test: a broker (hv/local), a small supervisor
 * that speaks backend/worker-protocol.h, and the guest's side as a user-space
 * frontend, all in one test program without privileges.
 */
#ifndef TESTS_LOCAL_HARNESS_H
#define TESTS_LOCAL_HARNESS_H 1

#include <jansson.h>
#include <stdio.h>

#include "backend/worker-protocol.h"
#include "hv/hv.h"
#include "lib/util.h"

#define GUEST 5 /* Domain of the guest. */

struct harness {
    char dir[64];  /* Broker, control socket. */
    char bin[256]; /* Where the programs are. */
    pid_t broker, worker;
    struct hv *back;  /* Domain 0. */
    struct hv *front; /* Domain GUEST. */
    int control;      /* To the worker. */
    uint32_t generation, seq;
    struct wp_device_state state; /* The last that came. */
};

extern struct harness h;

/* TAP. */
extern int n_failed__;
void tap_run(const char *name, void (*test)(void));
int tap_end(void);
void check_failed(const char *file, int line, const char *what);
void check_note(const char *fmt, ...) PRINTF_FORMAT(1, 2);
#define CHECK(EXPR)                                  \
    do {                                             \
        if (!(EXPR)) {                               \
            check_failed(__FILE__, __LINE__, #EXPR); \
        }                                            \
    } while (0)
#define CHECK_EQ(A, B)                                              \
    do {                                                            \
        long long a__ = (A), b__ = (B);                             \
        if (a__ != b__) {                                           \
            check_note("%s is %lld, %s is %lld", #A, a__, #B, b__); \
            check_failed(__FILE__, __LINE__, #A " == " #B);         \
        }                                                           \
    } while (0)

void harness_init(const char *argv0);
void harness_destroy(void);

void harness_worker_start(const char *const options[]);
void harness_worker_quit(void);
void harness_supervisor_dies(void);
void harness_adopt(struct wp_hello_reply *ret);

/* Both wait for the worker's answer, which is then in h.state. */
void harness_device_add(uint32_t kind, uint32_t devid,
                        const union wp_geometry *, int fd);
void harness_device_remove(uint32_t kind, uint32_t devid);
/* Waits for a WP_DEVICE_STATE; false if none comes. */
bool harness_wait_state(int timeout_ms);
json_t *harness_stats(enum wp_stats_what);
long long harness_coverage(const char *name);

int harness_count_fds(pid_t);
long harness_cpu_ms(pid_t);
long harness_rss_kib(pid_t);
void harness_counts(struct hv_local_counts *);
void sleep_ms(int ms);

#endif /* tests/local/harness.h */
