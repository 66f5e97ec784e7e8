/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The broker behind "local:DIR": see hv/broker.c.
 */
#ifndef HV_BROKER_H
#define HV_BROKER_H 1

#include "lib/loop.h"

struct broker;

/* Starts a broker that listens on 'dir'/broker and runs in 'loop'. */
int broker_create(struct loop *loop, const char *dir,
                  struct broker **ret_broker) NODISCARD;

/* Ends it, with all connections.  Accepts NULL. */
void broker_destroy(struct broker *);

#endif /* hv/broker.h */
