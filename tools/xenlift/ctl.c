/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * ctl.c - talks to the control socket of xenliftd.
 */
#include "tools/xenlift/xenlift.h"

#include <stdlib.h>

#include "lib/ctl.h"

static int
call(const struct xenlift_options *o, int argc, const char *const argv[],
     json_t **ret, char **ret_error)
{
    char *path;
    int error;

    if (asprintf(&path, "%s/xenliftd.ctl", o->run_dir) < 0) {
        complain("out of memory");
        exit(XENLIFT_USAGE);
    }
    error = ctl_call(path, argc, argv, NULL, NULL, ret, ret_error);
    free(path);
    return error;
}

/* Calls 'method' of xenliftd, with 'arg' unless that is NULL.  Returns 0 and
 * the answer in '*ret', or a positive errno and a sentence (to be freed, may
 * be NULL) in '*ret_error'. */
int
xenlift_ask(const struct xenlift_options *o, const char *method,
            const char *arg, json_t **ret, char **ret_error)
{
    const char *argv[] = {method, arg};

    return call(o, arg ? 2 : 1, argv, ret, ret_error);
}

/* `xenlift ctl METHOD [ARG...]`: prints what the daemon answers. */
int
xenlift_ctl(const struct xenlift_options *o, int argc, char *argv[])
{
    static const char *const list[] = {"list-commands"};
    char *text;
    json_t *json;
    int error;

    error = argc ? call(o, argc, (const char *const *) argv, &json, &text)
                 : call(o, 1, list, &json, &text);
    if (error) {
        char *clean = printable(text ? text : strerror(error));

        complain("%s", clean);
        free(clean);
        free(text);
        return XENLIFT_BAD;
    }
    if (!o->json && json_is_string(json)) {
        char *clean = printable(json_string_value(json));

        puts(clean);
        free(clean);
        json_decref(json);
        return XENLIFT_OK;
    }
    return print_json(json);
}
