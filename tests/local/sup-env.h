/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * An environment for tests of the supervisor: a broker that plays hypervisor
 * and xenstore, xenliftd in a driver domain, and functions that play toolstack
 * (domain 0), frontends and operator.  Anything that does not work as a
 * precondition ends the test program.
 */
#ifndef TESTS_LOCAL_SUP_ENV_H
#define TESTS_LOCAL_SUP_ENV_H 1

#include <jansson.h>
#include <sys/types.h>

#include "backend/xenbus.h"
#include "hv/hv.h"

enum { DRV = 1 }; /* The driver domain. */

extern struct hv *dom0;
extern char dir[];

/* Ends the program with "Bail out!" if 'error' is not 0. */
#define MUST(CALL) must__((CALL), #CALL, __FILE__, __LINE__)
void must__(int error, const char *call, const char *file, int line);

/* The current test has failed. */
extern bool test_failed;

/* Reports the current test as failed (and goes on) if 'COND' is false. */
#define CHECK(COND) check__((COND), #COND, __FILE__, __LINE__)
bool check__(bool ok, const char *what, const char *file, int line);

/* Waits until 'COND' holds, at most 15 s. */
#define WAIT_FOR(COND)                                             \
    ({                                                             \
        bool ok__ = false;                                         \
        for (int i__ = 0; i__ < 1500 && !(ok__ = (COND)); i__++) { \
            usleep(10000);                                         \
        }                                                          \
        check__(ok__, "in time: " #COND, __FILE__, __LINE__);      \
    })

void env_start(const char *bin_dir);
void env_stop(void);

/* Starts xenliftd and waits until it answers; ends it by 'signal'. */
void sup_start(void);
void sup_stop(int signal);
pid_t sup_pid(void);

/* Calls the control socket; NULL if it fails. */
json_t *sup_ctl(const char *command, const char *arg);
int64_t sup_counter(const char *name);

/* Process id of the worker of 'domid' that is up; 0 if there is none. */
pid_t worker_pid(unsigned domid);
unsigned count_fds(pid_t pid);

/* Open descriptors of xenliftd while it does nothing. */
unsigned idle_fds(void);

bool socket_exists(unsigned domid);

/* The toolstack. */
void ts_create(unsigned domid);
void ts_destroy(unsigned domid);
void ts_add(unsigned domid, const char *back, const char *front,
            unsigned devid, const char *path);
void ts_remove(unsigned domid, const char *back, unsigned devid);
bool back_exists(unsigned domid, const char *back, unsigned devid);
enum xenbus_state back_state(unsigned domid, const char *back, unsigned devid);

/* Value of 'node' of the backend's directory, "" if missing; valid until the
 * next call. */
const char *
back_value(unsigned domid, const char *back, unsigned devid, const char *node);
const char *error_value(unsigned domid, const char *back, unsigned devid);

/* A frontend of 'type' and number 'devid'. */
struct front {
    struct hv *hv;
    unsigned domid, devid;
    const char *type;
    struct hv_pages *pages;
    void *mem;
    uint32_t ref, port;
};
void
front_open(struct front *, unsigned domid, const char *type, unsigned devid);
void front_close(struct front *);
void front_write(struct front *, const char *node, const char *fmt, ...);
void front_state(struct front *, enum xenbus_state);

/* Offers a ring and goes to 3, with 'demand' (enum sup_demand) in it. */
void front_offer(struct front *, unsigned demand);

/* Comes up: waits for 2, offers, waits for 4, goes to 4. */
bool front_connect(struct front *);

#endif /* tests/local/sup-env.h */
