/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * The backend's xenbus state machine (backend/xenbus.c): single decisions, and
 * whole lives of devices played against it.
 */
#include <string.h>

#include <criterion/criterion.h>

#include "backend/xenbus.h"

#define NOW UINT64_C(1000000000000)

static struct xenbus_facts
facts(enum xenbus_state back, enum xenbus_state front, enum xenbus_link link)
{
    return (struct xenbus_facts){
        .back_exists = true,
        .is_complete = true,
        .online = true,
        .front_exists = true,
        .back = back,
        .front = front,
        .link = link,
    };
}

static enum xenbus_action_type
decide(const struct xenbus_facts *f)
{
    return xenbus_decide(f, NOW).type;
}

#define expect_action(BACK, FRONT, LINK, TYPE)                            \
    do {                                                                  \
        struct xenbus_facts f__ = facts(BACK, FRONT, XENBUS_LINK_##LINK); \
        cr_expect_eq(decide(&f__), XENBUS_##TYPE, "%d/%d/" #LINK, BACK,   \
                     FRONT);                                              \
    } while (0)

#define expect_state(BACK, FRONT, LINK, STATE)                            \
    do {                                                                  \
        struct xenbus_facts f__ = facts(BACK, FRONT, XENBUS_LINK_##LINK); \
        struct xenbus_action a__ = xenbus_decide(&f__, NOW);              \
        cr_expect_eq(a__.type, XENBUS_SET_STATE, "%d/%d/" #LINK, BACK,    \
                     FRONT);                                              \
        cr_expect_eq(a__.state, STATE, "%d/%d/" #LINK, BACK, FRONT);      \
    } while (0)

Test(xenbus, wanted_device)
{
    expect_action(1, 1, NONE, PUBLISH);
    expect_action(0, 0, NONE, PUBLISH);
    expect_action(3, 1, NONE, PUBLISH);
    expect_action(2, 1, NONE, WAIT);
    expect_action(2, 3, NONE, CONNECT);
    expect_action(2, 3, ADDING, WAIT);
    expect_state(2, 3, UP, 4);
    expect_action(4, 3, UP, WAIT);
    expect_action(4, 4, UP, WAIT);
}

Test(xenbus, frontend_leaves)
{
    for (int front = 0; front <= 6; front++) {
        if (front != 3 && front != 4) {
            expect_action(4, front, UP, DISCONNECT);
        }
        expect_action(4, front, REMOVING, WAIT);
        expect_state(4, front, NONE, 5);
    }
    expect_action(5, 5, NONE, WAIT);
    expect_state(5, 6, NONE, 6);
    expect_action(6, 6, NONE, WAIT);
    expect_action(6, 1, NONE, PUBLISH);
    expect_action(5, 1, NONE, PUBLISH);
    /* It leaves before the worker has answered. */
    expect_action(2, 5, ADDING, DISCONNECT);
    expect_action(2, 6, ADDING, DISCONNECT);
    expect_action(2, 5, REMOVING, WAIT);
    expect_state(2, 5, NONE, 5);
    expect_state(2, 6, NONE, 6);
}

Test(xenbus, worker_fails)
{
    expect_state(2, 3, FAILED, 5);
    expect_state(4, 4, FAILED, 5);
    expect_action(5, 4, FAILED, DISCONNECT);
    expect_action(5, 4, NONE, WAIT);
    /* Connected to a backend that is no more. */
    expect_state(2, 4, NONE, 5);
    expect_state(4, 4, NONE, 5);
}

Test(xenbus, nothing_while_mapped)
{
    /* Whatever else is the case, a link is let go before the device goes. */
    for (int back = 0; back <= 6; back++) {
        for (int front = 0; front <= 6; front++) {
            struct xenbus_facts f = facts(back, front, XENBUS_LINK_UP);

            f.online = false;
            cr_expect_eq(decide(&f), XENBUS_DISCONNECT);
            f.online = true;
            f.front_exists = false;
            cr_expect_eq(decide(&f), XENBUS_DISCONNECT);
            f.back_exists = false;
            cr_expect_eq(decide(&f), XENBUS_DISCONNECT);
            f.link = XENBUS_LINK_REMOVING;
            cr_expect_eq(decide(&f), XENBUS_WAIT);
            f.link = XENBUS_LINK_NONE;
            cr_expect_eq(decide(&f), XENBUS_FORGET);
        }
    }
}

Test(xenbus, toolstack_removes)
{
    struct xenbus_facts f = facts(5, 4, XENBUS_LINK_NONE);
    struct xenbus_action a;

    f.online = false;
    f.ending_at = NOW;
    a = xenbus_decide(&f, NOW);
    cr_expect_eq(a.type, XENBUS_WAIT);
    cr_expect_eq(a.wake_at, NOW + XENBUS_PATIENCE);
    f.back = XENBUS_CONNECTED;
    a = xenbus_decide(&f, NOW);
    cr_expect_eq(a.type, XENBUS_SET_STATE);
    cr_expect_eq(a.state, XENBUS_CLOSING);

    /* Patience ends; or the frontend follows; or it has gone. */
    f.back = XENBUS_CLOSING;
    a = xenbus_decide(&f, NOW + XENBUS_PATIENCE);
    cr_expect_eq(a.state, XENBUS_CLOSED);
    f.front = XENBUS_CLOSED;
    a = xenbus_decide(&f, NOW);
    cr_expect_eq(a.state, XENBUS_CLOSED);
    f.front = XENBUS_CONNECTED;
    f.front_exists = false;
    a = xenbus_decide(&f, NOW);
    cr_expect_eq(a.state, XENBUS_CLOSED);

    /* The 6 stays for a while. */
    f.back = XENBUS_CLOSED;
    f.closed_at = NOW;
    a = xenbus_decide(&f, NOW);
    cr_expect_eq(a.type, XENBUS_WAIT);
    cr_expect_eq(a.wake_at, NOW + XENBUS_LINGER);
    a = xenbus_decide(&f, NOW + XENBUS_LINGER);
    cr_expect_eq(a.type, XENBUS_DELETE);

    /* A toolstack that thinks again: online and a frontend that begins. */
    f.online = f.front_exists = true;
    f.front = XENBUS_INITIALISING;
    cr_expect_eq(decide(&f), XENBUS_PUBLISH);
}

Test(xenbus, incomplete_directory)
{
    struct xenbus_facts f = facts(1, 0, XENBUS_LINK_NONE);

    f.is_complete = f.front_exists = false;
    cr_expect_eq(decide(&f), XENBUS_WAIT);
    /* What libxl leaves of a directory that was removed too early. */
    f.online = false;
    f.back = XENBUS_CLOSING;
    f.ending_at = NOW;
    cr_expect_eq(decide(&f), XENBUS_SET_STATE);
}

Test(xenbus, retries)
{
    struct xenbus_facts f = facts(2, 3, XENBUS_LINK_NONE);
    struct xenbus_action a;

    f.retry_at = NOW + 5;
    a = xenbus_decide(&f, NOW);
    cr_expect_eq(a.type, XENBUS_WAIT);
    cr_expect_eq(a.wake_at, NOW + 5);
    a = xenbus_decide(&f, NOW + 5);
    cr_expect_eq(a.type, XENBUS_CONNECT);
}

/* A model of everything around the machine: carries out 'a' on 'f'.  Returns
 * false if the device is gone. */
static bool
carry_out(struct xenbus_facts *f, const struct xenbus_action *a, uint64_t now)
{
    switch (a->type) {
    case XENBUS_WAIT:
        break;
    case XENBUS_PUBLISH:
        f->back = XENBUS_INIT_WAIT;
        break;
    case XENBUS_CONNECT:
        f->link = XENBUS_LINK_ADDING;
        break;
    case XENBUS_DISCONNECT:
        f->link = XENBUS_LINK_REMOVING;
        break;
    case XENBUS_SET_STATE:
        f->back = a->state;
        f->closed_at = now;
        break;
    case XENBUS_DELETE:
    case XENBUS_FORGET:
        return false;
    }
    return true;
}

static uint32_t
next_random(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

/* Random frontends, workers and toolstacks: the machine always comes to rest,
 * is never served while the worker has not connected, never deletes while
 * something is mapped, and ends once the toolstack wants it. */
Test(xenbus, random_lives)
{
    uint32_t seed = 1;

    for (int life = 0; life < 20000; life++) {
        struct xenbus_facts f = facts(1, 1, XENBUS_LINK_NONE);
        uint64_t now = NOW;
        bool is_there = true;

        for (int step = 0; step < 60 && is_there; step++) {
            struct xenbus_action a;
            int n = 0;

            for (;;) {
                a = xenbus_decide(&f, now);
                if (a.type == XENBUS_WAIT) {
                    break;
                }
                cr_assert_lt(++n, 8, "no rest at %d/%d/%d", f.back, f.front,
                             f.link);
                if (a.type == XENBUS_DELETE) {
                    cr_assert(!f.online || !f.front_exists);
                    cr_assert_eq(f.link, XENBUS_LINK_NONE);
                }
                if (a.type == XENBUS_SET_STATE && a.state == 4) {
                    cr_assert_eq(f.link, XENBUS_LINK_UP);
                }
                is_there = carry_out(&f, &a, now);
                if (!is_there) {
                    break;
                }
            }
            now += next_random(&seed) % 4 * 500000000;
            switch (next_random(&seed) % 10) {
            case 0:
                if (f.link == XENBUS_LINK_UP || f.link == XENBUS_LINK_ADDING) {
                    f.link = XENBUS_LINK_FAILED;
                }
                break;
            case 1:
                f.front = next_random(&seed) % 7;
                break;
            case 2:
                if (step > 30 && f.online) {
                    f.online = false;
                    f.back = XENBUS_CLOSING;
                    f.ending_at = now;
                }
                break;
            default:
                if (f.link == XENBUS_LINK_ADDING) {
                    f.link = XENBUS_LINK_UP;
                } else if (f.link == XENBUS_LINK_REMOVING) {
                    f.link = XENBUS_LINK_NONE;
                } else if (f.back == 2 && f.front == 1) {
                    f.front = XENBUS_INITIALISED;
                } else if (f.back == 4 && f.front == 3) {
                    f.front = XENBUS_CONNECTED;
                } else if (f.back == 5 && f.front != 6) {
                    f.front = XENBUS_CLOSED;
                } else if (f.back == 6 && f.front == 6) {
                    f.front = XENBUS_INITIALISING;
                }
            }
        }
        /* The end is always reached. */
        if (is_there) {
            f.online = false;
            f.ending_at = now;
            for (int i = 0; i < 20 && is_there; i++) {
                struct xenbus_action a = xenbus_decide(&f, now);

                is_there = carry_out(&f, &a, now);
                if (f.link == XENBUS_LINK_REMOVING) {
                    f.link = XENBUS_LINK_NONE;
                }
                now = a.wake_at > now ? a.wake_at : now;
            }
            cr_assert(!is_there);
        }
    }
}
