/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The backend's side of the xenbus handshake as a pure function: from what is
 * known about a device and the time it decides what to do next.  It reads and
 * writes nothing; backend/supervisor.c gathers the facts, carries out the
 * action, and asks again until there is nothing to do.
 *
 * Theory of operation
 * ===================
 *
 * The decision looks at levels, never at edges: it does not matter how many
 * watch events came, in which order, or that some were missed while no
 * supervisor was running.  That is why a restarted supervisor needs no state
 * of its own.  The backend's state is the one in xenstore, because the
 * toolstack writes it too: it asks for the end of a device with online=0 and
 * state=5.
 *
 *   state 1   New.  Features are published, then 2.
 *   state 2   Waits for the frontend's 3; then its nodes are read and the
 *             worker is told to connect.  When it has, 4.
 *   state 4   Served.  Left when the frontend leaves, the worker fails, or
 *             the toolstack wants the end: the worker lets go of the guest's
 *             memory first, then 5.
 *   state 5   Nothing is mapped.  Waits for the frontend's 6, then 6.
 *   state 6   Waits for a frontend that begins anew with 1, then 2.  If the
 *             toolstack wants the end (online=0) or the frontend's directory
 *             is gone, waits for XENBUS_LINGER, so that the toolstack has seen
 *             the 6, and removes the backend's directory.  Terminal.
 *
 * 3, 7 and 8 are not used by this backend and are taken for 1.
 */
#ifndef BACKEND_XENBUS_H
#define BACKEND_XENBUS_H 1

#include <stdbool.h>
#include <stdint.h>

enum xenbus_state {
    XENBUS_UNKNOWN = 0, /* No node, or no number in it. */
    XENBUS_INITIALISING = 1,
    XENBUS_INIT_WAIT = 2,
    XENBUS_INITIALISED = 3,
    XENBUS_CONNECTED = 4,
    XENBUS_CLOSING = 5,
    XENBUS_CLOSED = 6,
};

/* What the worker does for the device. */
enum xenbus_link {
    XENBUS_LINK_NONE,     /* Nothing; nothing is mapped. */
    XENBUS_LINK_ADDING,   /* It was told to connect. */
    XENBUS_LINK_UP,       /* It has connected. */
    XENBUS_LINK_FAILED,   /* It could not, or can no more, or has died. */
    XENBUS_LINK_REMOVING, /* It was told to let go. */
};

struct xenbus_facts {
    bool back_exists;  /* The backend's directory is there. */
    bool is_complete;  /* With the nodes that name the frontend. */
    bool online;       /* The toolstack wants the device. */
    bool front_exists; /* The frontend's directory is there. */
    enum xenbus_state back, front;
    enum xenbus_link link;
    uint64_t retry_at;  /* Do not connect before, in ns; 0 = now. */
    uint64_t closed_at; /* Since when 'back' is 6 and unwanted, in ns. */
    uint64_t ending_at; /* Since when the device is unwanted, in ns. */
};

enum xenbus_action_type {
    XENBUS_WAIT,       /* Nothing to do before 'wake_at' (0 = an event). */
    XENBUS_PUBLISH,    /* Write features and state 2. */
    XENBUS_CONNECT,    /* Read the frontend's nodes, tell the worker. */
    XENBUS_DISCONNECT, /* Tell the worker to let go. */
    XENBUS_SET_STATE,  /* Write 'state'. */
    XENBUS_DELETE,     /* Remove the backend's directory, forget. */
    XENBUS_FORGET,     /* Forget; the directory is gone already. */
};

struct xenbus_action {
    enum xenbus_action_type type;
    enum xenbus_state state; /* Of XENBUS_SET_STATE. */
    uint64_t wake_at;        /* Of XENBUS_WAIT. */
};

/* How long a closed device that nobody wants stays in xenstore: libxl reports
 * an error if the directory goes before it has read the 6. */
#define XENBUS_LINGER UINT64_C(2000000000)

/* How long a frontend may take to close when the toolstack ends the device;
 * libxl itself gives up after 10 s. */
#define XENBUS_PATIENCE UINT64_C(3000000000)

/* Decides what is to be done at 'now' (monotonic ns). */
struct xenbus_action
xenbus_decide(const struct xenbus_facts *facts, uint64_t now);

/* Name of a state, link or action for people. */
const char *xenbus_state_name(enum xenbus_state);
const char *xenbus_link_name(enum xenbus_link);

#endif /* backend/xenbus.h */
