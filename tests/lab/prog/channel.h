/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the lab's agent (in a guest) and its client (in dom0) agree on: frames
 * over a libxenvchan, so that commands reach a guest that has no network card
 * and no disk.
 *
 * The agent offers CHANNEL_SLOTS channels.  The node data/lab/SLOT of the
 * guest holds a generation number G, and the channel's own nodes are under
 * data/lab/SLOT-G.  A channel serves one command; then it is thrown away and a
 * new generation is announced, so that nothing of a killed client is left. */

#ifndef TESTS_LAB_PROG_CHANNEL_H
#define TESTS_LAB_PROG_CHANNEL_H 1

#include <stdint.h>

#define CHANNEL_SLOTS 4
#define CHANNEL_RING 16384
#define CHANNEL_MAX_PAYLOAD 65536

enum channel_type {
    CHANNEL_COMMAND = 'C', /* To the agent: text for /bin/sh -c. */
    CHANNEL_STDIN = 'I',   /* To the agent; empty means end of file. */
    CHANNEL_STDOUT = 'O',
    CHANNEL_STDERR = 'E',
    CHANNEL_EXIT = 'X', /* One int32_t: status, 128 + signal. */
};

struct channel_header {
    uint32_t length; /* Of what follows. */
    uint32_t type;
};

#endif /* tests/lab/prog/channel.h */
