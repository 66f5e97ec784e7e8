/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The backend's side of the xenbus handshake; see backend/xenbus.h.
 */
#include "backend/xenbus.h"

static struct xenbus_action
simple(enum xenbus_action_type type)
{
    return (struct xenbus_action){.type = type};
}

static struct xenbus_action
wait_until(uint64_t wake_at)
{
    return (struct xenbus_action){.type = XENBUS_WAIT, .wake_at = wake_at};
}

static struct xenbus_action
set_state(enum xenbus_state state)
{
    return (struct xenbus_action){.type = XENBUS_SET_STATE, .state = state};
}

/* The worker must have let go before anything else. */
static struct xenbus_action
let_go(const struct xenbus_facts *f)
{
    return simple(f->link == XENBUS_LINK_REMOVING ? XENBUS_WAIT
                                                  : XENBUS_DISCONNECT);
}

/* The toolstack wants the end, or the guest is gone. */
static struct xenbus_action
decide_unwanted(const struct xenbus_facts *f, uint64_t now)
{
    if (f->link != XENBUS_LINK_NONE) {
        return let_go(f);
    }
    if (f->back == XENBUS_CLOSED) {
        uint64_t when = f->closed_at + XENBUS_LINGER;

        return now >= when ? simple(XENBUS_DELETE) : wait_until(when);
    }
    if (f->front_exists && f->front != XENBUS_CLOSED &&
        f->front != XENBUS_INITIALISING && f->front != XENBUS_UNKNOWN &&
        now < f->ending_at + XENBUS_PATIENCE) {
        return (f->back == XENBUS_CLOSING
                    ? wait_until(f->ending_at + XENBUS_PATIENCE)
                    : set_state(XENBUS_CLOSING));
    }
    return set_state(XENBUS_CLOSED);
}

static struct xenbus_action
decide_init_wait(const struct xenbus_facts *f, uint64_t now)
{
    switch (f->link) {
    case XENBUS_LINK_UP:
        return set_state(XENBUS_CONNECTED);
    case XENBUS_LINK_FAILED:
        return set_state(XENBUS_CLOSING);
    case XENBUS_LINK_ADDING:
        return simple(f->front == XENBUS_INITIALISED ? XENBUS_WAIT
                                                     : XENBUS_DISCONNECT);
    case XENBUS_LINK_REMOVING:
        return simple(XENBUS_WAIT);
    case XENBUS_LINK_NONE:
        break;
    }
    switch (f->front) {
    case XENBUS_INITIALISED:
        return (now >= f->retry_at ? simple(XENBUS_CONNECT)
                                   : wait_until(f->retry_at));
    case XENBUS_CONNECTED: /* To a backend that is no more. */
    case XENBUS_CLOSING:
        return set_state(XENBUS_CLOSING);
    case XENBUS_CLOSED:
        return set_state(XENBUS_CLOSED);
    default:
        return simple(XENBUS_WAIT);
    }
}

static struct xenbus_action
decide_connected(const struct xenbus_facts *f)
{
    switch (f->link) {
    case XENBUS_LINK_UP:
        return simple(f->front == XENBUS_INITIALISED ||
                              f->front == XENBUS_CONNECTED
                          ? XENBUS_WAIT
                          : XENBUS_DISCONNECT);
    case XENBUS_LINK_NONE:
    case XENBUS_LINK_FAILED:
        return set_state(XENBUS_CLOSING);
    default:
        return let_go(f);
    }
}

struct xenbus_action
xenbus_decide(const struct xenbus_facts *f, uint64_t now)
{
    if (!f->back_exists) {
        return f->link == XENBUS_LINK_NONE ? simple(XENBUS_FORGET) : let_go(f);
    }
    if (!f->is_complete && f->online) {
        /* The toolstack is not done writing. */
        return f->link == XENBUS_LINK_NONE ? simple(XENBUS_WAIT) : let_go(f);
    }
    if (!f->online || !f->front_exists) {
        return decide_unwanted(f, now);
    }
    switch (f->back) {
    case XENBUS_INIT_WAIT:
        return decide_init_wait(f, now);
    case XENBUS_CONNECTED:
        return decide_connected(f);
    case XENBUS_CLOSING:
    case XENBUS_CLOSED:
        if (f->link != XENBUS_LINK_NONE) {
            return let_go(f);
        }
        if (f->front == XENBUS_INITIALISING) {
            return simple(XENBUS_PUBLISH);
        }
        if (f->back == XENBUS_CLOSING && f->front == XENBUS_CLOSED) {
            return set_state(XENBUS_CLOSED);
        }
        return simple(XENBUS_WAIT);
    default:
        return (f->link == XENBUS_LINK_NONE ? simple(XENBUS_PUBLISH)
                                            : let_go(f));
    }
}

const char *
xenbus_state_name(enum xenbus_state state)
{
    switch (state) {
    case XENBUS_UNKNOWN:
        return "Unknown";
    case XENBUS_INITIALISING:
        return "Initialising";
    case XENBUS_INIT_WAIT:
        return "InitWait";
    case XENBUS_INITIALISED:
        return "Initialised";
    case XENBUS_CONNECTED:
        return "Connected";
    case XENBUS_CLOSING:
        return "Closing";
    case XENBUS_CLOSED:
        return "Closed";
    }
    return "?";
}

const char *
xenbus_link_name(enum xenbus_link link)
{
    switch (link) {
    case XENBUS_LINK_NONE:
        return "none";
    case XENBUS_LINK_ADDING:
        return "adding";
    case XENBUS_LINK_UP:
        return "up";
    case XENBUS_LINK_FAILED:
        return "failed";
    case XENBUS_LINK_REMOVING:
        return "removing";
    }
    return "?";
}
