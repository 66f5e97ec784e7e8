/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * show.c - `xenlift list` and `xenlift show`: domains, their devices and what
 * xenliftd says about them.
 */
#include "tools/xenlift/xenlift.h"

#include <errno.h>
#include <stdlib.h>

static json_t *
domain_of(const json_t *domains, json_int_t domid)
{
    json_t *d;
    size_t i;

    json_array_foreach(domains, i, d)
    {
        if (json_integer_value(json_object_get(d, "domid")) == domid) {
            return d;
        }
    }
    return NULL;
}

static const char *
text_of(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

/* Makes text of number 'key' of 'object' in 'buf'; NULL if it has none. */
static const char *
number_of(const json_t *object, const char *key, char *buf, size_t size)
{
    const json_t *v = json_object_get(object, key);

    if (!json_is_integer(v)) {
        return NULL;
    }
    snprintf(buf, size, "%lld", (long long) json_integer_value(v));
    return buf;
}

static const char *
state_of(const json_t *device, const char *key)
{
    const json_t *v = json_object_get(device, key);

    return json_is_integer(v) ? xs_state_name(json_integer_value(v)) : NULL;
}

/* "1 (drv)". */
static void
format_domain(const json_t *domains, json_int_t domid, char *buf, size_t size)
{
    const char *name = text_of(domain_of(domains, domid), "name");

    snprintf(buf, size, name ? "%lld (%.60s)" : "%lld", (long long) domid,
             name);
}

static void
list_domain(struct table *table, const json_t *domains, const json_t *d)
{
    const json_t *devices = json_object_get(d, "devices"), *dev;
    char domid[24];
    size_t i;

    number_of(d, "domid", domid, sizeof domid);
    if (!json_array_size(devices)) {
        table_add(table, domid, text_of(d, "name"), text_of(d, "state"), NULL,
                  NULL, NULL, NULL, NULL);
    }
    json_array_foreach(devices, i, dev)
    {
        char device[40], backend[96];

        snprintf(
            device, sizeof device, "%s/%lld", text_of(dev, "kind"),
            (long long) json_integer_value(json_object_get(dev, "devid")));
        format_domain(domains,
                      json_integer_value(json_object_get(dev, "backend")),
                      backend, sizeof backend);
        table_add(table, domid, text_of(d, "name"), text_of(d, "state"),
                  device, state_of(dev, "front_state"), backend,
                  state_of(dev, "back_state"),
                  text_of(json_object_get(dev, "back"), "path"));
    }
}

/* `xenlift list`. */
int
xenlift_list(const struct xenlift_options *o, int argc, char *argv[])
{
    struct table table;
    json_t *domains, *d;
    size_t i;

    if (xenlift_model(o, &domains)) {
        return XENLIFT_USAGE;
    }
    if (o->json) {
        return print_json(domains);
    }
    table_init(&table, 8);
    table_add(&table, "DOMID", "NAME", "STATE", "DEVICE", "FRONTEND",
              "BACKEND", "STATE", "PATH");
    json_array_foreach(domains, i, d)
    {
        list_domain(&table, domains, d);
    }
    table_print(&table, 0);
    json_decref(domains);
    return XENLIFT_OK;
}

/* ## show ## */

/* Makes text of the scalar 'v'.  The caller frees it. */
static char *
scalar_text(const json_t *v)
{
    return json_is_string(v) ? printable(json_string_value(v))
                             : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
}

static bool
is_scalar(const json_t *v)
{
    return !json_is_object(v) && !json_is_array(v);
}

/* Prints an array of flat objects as a table, with the keys of all of them as
 * columns. */
static void
print_array(const json_t *array, int indent)
{
    const char *keys[TABLE_COLUMNS];
    size_t n_keys = 0, i, j;
    struct table table;
    const char *key;
    json_t *row, *v;

    json_array_foreach(array, i, row)
    {
        json_object_foreach(row, key, v)
        {
            for (j = 0; j < n_keys && strcmp(keys[j], key); j++) {
                continue;
            }
            if (j == n_keys && n_keys < TABLE_COLUMNS && is_scalar(v)) {
                keys[n_keys++] = key;
            }
        }
    }
    table_init(&table, n_keys);
    table_add_row(&table, keys);
    json_array_foreach(array, i, row)
    {
        char *cells[TABLE_COLUMNS] = {NULL};

        for (j = 0; j < n_keys; j++) {
            v = json_object_get(row, keys[j]);
            cells[j] = v ? scalar_text(v) : NULL;
        }
        table_add_row(&table, (const char *const *) cells);
        for (j = 0; j < n_keys; j++) {
            free(cells[j]);
        }
    }
    table_print(&table, indent);
}

/* One line of "node value" pairs. */
static void
print_nodes(const char *title, const json_t *nodes)
{
    const char *key;
    json_t *v;
    size_t n = 0;

    printf("    %s:", title);
    json_object_foreach((json_t *) nodes, key, v)
    {
        printf("%s %s=%s", n++ ? "," : "", key, json_string_value(v));
    }
    puts(n ? "" : " nothing yet");
}

static void
print_device(const json_t *domains, const json_t *dev)
{
    const char *front = state_of(dev, "front_state");
    const char *back = state_of(dev, "back_state");
    const char *front_error = text_of(dev, "front_error");
    const char *back_error = text_of(dev, "back_error");
    json_t *online = json_object_get(dev, "online");
    char backend[96];

    format_domain(domains, json_integer_value(json_object_get(dev, "backend")),
                  backend, sizeof backend);
    printf("  %s/%lld: frontend %s, backend %s in domain %s, type %s%s\n",
           text_of(dev, "kind"),
           (long long) json_integer_value(json_object_get(dev, "devid")),
           front ? front : "not seen", back ? back : "not seen", backend,
           text_of(dev, "type"),
           json_is_integer(online) && !json_integer_value(online)
               ? ", going offline"
               : "");
    print_nodes("frontend wrote", json_object_get(dev, "front"));
    print_nodes("backend wrote", json_object_get(dev, "back"));
    if (front_error) {
        printf("    frontend's error: %s\n", front_error);
    }
    if (back_error) {
        printf("    backend's error: %s\n", back_error);
    }
}

/* Prints what a worker says about one device: its figures in a line, then a
 * table of its rings. */
static void
print_rings(const json_t *dev)
{
    const json_t *rings = json_object_get(dev, "rings"), *v;
    char *kind = scalar_text(json_object_get(dev, "kind"));
    const char *key;
    size_t n = 0;

    printf("  %s/%lld:", kind ? kind : "?",
           (long long) json_integer_value(json_object_get(dev, "devid")));
    free(kind);
    json_object_foreach((json_t *) dev, key, v)
    {
        if (is_scalar(v) && strcmp(key, "kind") && strcmp(key, "devid")) {
            char *name = printable(key), *text = scalar_text(v);

            printf("%s %s %s", n++ ? "," : "", name, text ? text : "?");
            free(name);
            free(text);
        }
    }
    puts(n ? "" : " rings");
    if (json_array_size(rings)) {
        print_array(rings, 4);
    }
}

/* Prints what xenliftd said about a domain. */
static void
print_daemon(const json_t *daemon)
{
    const json_t *worker = json_object_get(daemon, "worker"), *dev, *v;
    const char *state = text_of(worker, "state"), *key;
    size_t i, n = 0;

    if (worker) {
        printf("  worker: %s, pid %lld, %lld crashes\n",
               state ? state : "unknown",
               (long long) json_integer_value(json_object_get(worker, "pid")),
               (long long) json_integer_value(
                   json_object_get(worker, "crashes")));
    }
    json_array_foreach(json_object_get(daemon, "devices"), i, dev)
    {
        const char *error = text_of(dev, "error");

        if (error) {
            char *clean = printable(error);

            printf(
                "  %s/%lld failed: %s\n", text_of(dev, "kind"),
                (long long) json_integer_value(json_object_get(dev, "devid")),
                clean);
            free(clean);
        }
    }
    json_array_foreach(json_object_get(daemon, "rings"), i, dev)
    {
        print_rings(dev);
    }
    json_object_foreach(json_object_get(daemon, "counters"), key, v)
    {
        if (json_integer_value(v)) {
            char *clean = printable(key);

            printf("%s%s %lld", n++ ? ", " : "  counters: ", clean,
                   (long long) json_integer_value(v));
            free(clean);
        }
    }
    if (n) {
        putchar('\n');
    }
}

static void
print_domain(const json_t *domains, const json_t *d)
{
    const char *name = text_of(d, "name"), *uuid = text_of(d, "uuid");
    const char *state = text_of(d, "state"), *type = text_of(d, "type");
    const json_t *daemon = json_object_get(d, "daemon"), *dev;
    size_t i;

    printf("Domain %lld%s%s%s",
           (long long) json_integer_value(json_object_get(d, "domid")),
           name ? " (" : "", name ? name : "", name ? ")" : "");
    if (state) {
        printf(", %s", state);
    }
    if (type) {
        printf(
            ", %s, %lld vcpus, %lld MiB", type,
            (long long) json_integer_value(json_object_get(d, "vcpus")),
            (long long) json_integer_value(json_object_get(d, "memory_kib")) /
                1024);
    }
    printf("%s%s\n", uuid ? ", uuid " : "", uuid ? uuid : "");
    json_array_foreach(json_object_get(d, "devices"), i, dev)
    {
        print_device(domains, dev);
    }
    if (daemon) {
        print_daemon(daemon);
    }
}

/* Takes 'one', an answer of xenliftd about domain 'd', into 'd' under
 * "daemon".  Takes from xenliftd a name and a UUID that could not be read
 * here. */
static void
take_answer(json_t *d, const char *method, json_t *one)
{
    static const char *const facts[] = {"name", "uuid"};
    json_t *daemon = json_object_get(d, "daemon");
    const char *text;
    size_t i;

    if (!daemon) {
        daemon = json_object();
        json_object_set_new(d, "daemon", daemon);
    }
    for (i = 0; i < ARRAY_SIZE(facts); i++) {
        text = text_of(one, facts[i]);
        if (text && *text && !text_of(d, facts[i])) {
            json_object_set_new(d, facts[i], json_printable(text));
        }
        json_object_del(one, facts[i]);
    }
    json_object_del(one, "domid");
    if (!strcmp(method, "guests/show")) {
        json_object_update(daemon, one);
    } else if (!strcmp(method, "rings/show")) {
        json_t *devices = json_object_get(one, "devices");

        json_object_set(daemon, "rings", devices ? devices : one);
    } else {
        json_object_set(daemon, "counters", one);
    }
}

/* Puts what xenliftd says by 'method' about each domain into that domain's
 * "daemon".  The answer is an array of objects with a "domid".  False with a
 * sentence in '*ret_error' if it says nothing. */
static bool
add_daemon(const struct xenlift_options *o, json_t *domains,
           const char *method, char **ret_error)
{
    json_t *answer, *one, *d;
    size_t i;

    if (xenlift_ask(o, method, NULL, &answer, ret_error)) {
        return false;
    }
    json_array_foreach(answer, i, one)
    {
        d = domain_of(domains,
                      json_integer_value(json_object_get(one, "domid")));
        if (d && json_is_object(one)) {
            take_answer(d, method, one);
        }
    }
    json_decref(answer);
    return true;
}

/* The domain that 'word' names, by number or by name, or NULL. */
static json_t *
pick(const json_t *domains, const char *word)
{
    uint64_t domid;
    json_t *d;
    size_t i;

    if (!xs_parse_uint(word, XS_DOMID_MAX, &domid)) {
        return domain_of(domains, domid);
    }
    json_array_foreach(domains, i, d)
    {
        const char *name = text_of(d, "name");

        if (name && !strcmp(name, word)) {
            return d;
        }
    }
    return NULL;
}

static void
print_all(const json_t *domains, const json_t *only)
{
    json_t *d;
    size_t i;

    json_array_foreach(domains, i, d)
    {
        if (only ? d == only
                 : json_array_size(json_object_get(d, "devices")) > 0) {
            print_domain(domains, d);
        }
    }
}

/* `xenlift show [DOMAIN]`. */
int
xenlift_show(const struct xenlift_options *o, int argc, char *argv[])
{
    json_t *domains, *only = NULL;
    char *text = NULL;
    bool daemon;

    if (xenlift_model(o, &domains)) {
        return XENLIFT_USAGE;
    }
    if (argc) {
        only = pick(domains, argv[0]);
        if (!only) {
            complain("no domain \"%s\" to be seen from here", argv[0]);
            json_decref(domains);
            return XENLIFT_BAD;
        }
    }
    daemon = !o->dump && add_daemon(o, domains, "guests/show", &text) &&
             add_daemon(o, domains, "rings/show", &text) &&
             add_daemon(o, domains, "guest/coverage", &text);
    if (o->json) {
        json_t *all = only ? json_pack("[O]", only) : json_incref(domains);

        json_decref(domains);
        free(text);
        return print_json(all);
    }
    print_all(domains, only);
    if (!daemon && !o->dump) {
        char *clean = printable(text ? text : "no answer");

        printf("xenliftd: %s\n", clean);
        free(clean);
    }
    free(text);
    json_decref(domains);
    return XENLIFT_OK;
}
