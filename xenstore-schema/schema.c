/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * schema.c - the tables made from nodes.md, and the parsers of what may stand
 * in a path or a value.
 */
#include "xenstore-schema/schema.h"

#include <errno.h>
#include <stdlib.h>

#include "xenstore-tables.h"

/* Name of xenbus state 'state'. */
const char *
xs_state_name(uint64_t state)
{
    static const char *const names[XS_N_STATES] = {
        "Unknown",     "Initialising",  "InitWait",
        "Initialised", "Connected",     "Closing",
        "Closed",      "Reconfiguring", "Reconfigured",
    };

    return state < XS_N_STATES ? names[state] : "no state";
}

/* The definition of node 'name' on 'side' of frontend type 'device', or NULL.
 * For a numbered node, 'name' carries its number. */
const struct xs_node_def *
xs_node_find(const char *device, enum xs_side side, const char *name)
{
    size_t i;

    for (i = 0; i < n_xs_node_defs; i++) {
        const struct xs_node_def *def = &xs_node_defs[i];
        size_t size = strlen(def->name);
        uint64_t number;

        if (def->side != side || strcmp(def->device, device)) {
            continue;
        }
        if (!def->numbered) {
            if (!strcmp(def->name, name)) {
                return def;
            }
        } else if (!strncmp(def->name, name, size) &&
                   !xs_parse_uint(name + size, UINT32_MAX, &number)) {
            return def;
        }
    }
    return NULL;
}

/* Parses 's' as a number as xenstore has them: decimal digits and nothing
 * else, no leading zeros, at most 'max'.  Returns 0 or EINVAL. */
int
xs_parse_uint(const char *s, uint64_t max, uint64_t *ret)
{
    uint64_t value = 0;
    const char *p;

    if (!*s || (s[0] == '0' && s[1])) {
        return EINVAL;
    }
    for (p = s; *p; p++) {
        unsigned digit = (unsigned char) *p - '0';

        if (digit > 9 || value > (max - MIN(max, digit)) / 10 ||
            value * 10 + digit > max) {
            return EINVAL;
        }
        value = value * 10 + digit;
    }
    *ret = value;
    return 0;
}

/* Takes the component of a path that begins at '*p' into 'buf' and moves '*p'
 * behind it and its slash.  False if there is none or it is too long. */
static bool
take(const char **p, char *buf, size_t size)
{
    size_t n = strcspn(*p, "/");

    if (!n || n >= size) {
        return false;
    }
    memcpy(buf, *p, n);
    buf[n] = '\0';
    *p += n + ((*p)[n] == '/');
    return true;
}

static bool
take_number(const char **p, uint64_t max, unsigned *ret)
{
    char buf[16];
    uint64_t value;

    if (!take(p, buf, sizeof buf) || xs_parse_uint(buf, max, &value)) {
        return false;
    }
    *ret = value;
    return true;
}

/* If 'path' is the directory of one of our devices, or a node right in it or
 * below, stores where in '*ret'. */
bool
xs_place_parse(const char *path, struct xs_place *ret)
{
    static const char home[] = "/local/domain/";
    struct xs_place place;
    char what[16];
    size_t i;

    if (strncmp(path, home, sizeof home - 1)) {
        return false;
    }
    path += sizeof home - 1;
    if (!take_number(&path, XS_DOMID_MAX, &place.domid) ||
        !take(&path, what, sizeof what)) {
        return false;
    }
    if (!strcmp(what, "device")) {
        place.side = XS_SIDE_FRONT;
        place.frontend = place.domid;
    } else if (!strcmp(what, "backend")) {
        place.side = XS_SIDE_BACK;
    } else {
        return false;
    }
    if (!take(&path, place.type, sizeof place.type) ||
        (place.side == XS_SIDE_BACK &&
         !take_number(&path, XS_DOMID_MAX, &place.frontend)) ||
        !take_number(&path, UINT32_MAX, &place.devid)) {
        return false;
    }
    place.node = path;
    for (i = 0; i < n_xs_type_defs; i++) {
        const struct xs_type_def *def = &xs_type_defs[i];

        if (!strcmp(place.type, place.side == XS_SIDE_FRONT
                                    ? def->device
                                    : def->back_type)) {
            place.device = def->device;
            *ret = place;
            return true;
        }
    }
    return false;
}
