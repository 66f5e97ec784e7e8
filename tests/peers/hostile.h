/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * hostile.h - what the files of the hostile frontend share.
 */
#ifndef TESTS_PEERS_HOSTILE_H
#define TESTS_PEERS_HOSTILE_H 1

#include <netinet/in.h>

#include "hv/hv.h"
#include "lib/util.h"

#define HOSTILE_MS 10000 /* Longer than anything takes that works. */

struct hostile {
    struct hv *hv;
    uint16_t backend;
    bool has_target; /* --connect: where something listens. */
    struct sockaddr_in target;
};
extern struct hostile hostile;

/* A case returns NULL, or what went wrong; or HOSTILE_SKIP. */
#define HOSTILE_SKIP ((const char *) 1)
struct hostile_case {
    const char *name;
    const char *(*run)(void);
};
extern const struct hostile_case hostile_sockets[];
extern const struct hostile_case hostile_files[];

/* hostile.c: the xenbus handshake of device 'kind' ("pvcalls", "9pfs"). */
struct hostile_node {
    char name[32];
    uint32_t value;
};
const char *hostile_begin(const char *kind);
const char *
hostile_connect(const char *kind, const struct hostile_node nodes[], size_t n);
bool hostile_is_connected(const char *kind);
const char *hostile_expect_closed(const char *kind);
void hostile_end(const char *kind);
void hostile_sleep_ms(int ms);
uint32_t hostile_random(void);

#endif /* tests/peers/hostile.h */
