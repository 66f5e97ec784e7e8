/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * xenlift.h - what the parts of the `xenlift` command share: options, loading
 * a copy of xenstore, and output.
 */
#ifndef TOOLS_XENLIFT_XENLIFT_H
#define TOOLS_XENLIFT_XENLIFT_H 1

#include <jansson.h>

#include "xenstore-schema/schema.h"

/* Exit statuses. */
enum {
    XENLIFT_OK = 0,
    XENLIFT_BAD = 1,   /* Violations found; no such domain; daemon refused. */
    XENLIFT_USAGE = 2, /* Mistake of the caller, or nothing could be read. */
};

struct xenlift_options {
    const char *hv;   /* What to open: "xen", "local:DIR". */
    const char *dump; /* Read this instead ("-": standard input), or NULL. */
    const char *run_dir;
    bool json;
    bool notes;
};

/* load.c */
int xenlift_load(const struct xenlift_options *, struct xs_tree *) NODISCARD;

/* lint.c */
int xenlift_lint(const struct xenlift_options *, int argc, char *argv[]);

/* model.c */
int xenlift_model(const struct xenlift_options *, json_t **ret) NODISCARD;

/* show.c */
int xenlift_list(const struct xenlift_options *, int argc, char *argv[]);
int xenlift_show(const struct xenlift_options *, int argc, char *argv[]);

/* ctl.c */
int xenlift_ctl(const struct xenlift_options *, int argc, char *argv[]);
int xenlift_ask(const struct xenlift_options *, const char *method,
                const char *arg, json_t **ret, char **ret_error) NODISCARD;

/* output.c */
#define TABLE_COLUMNS 16
struct table {
    char *(*rows)[TABLE_COLUMNS];
    size_t n_rows, n_columns;
};
void table_init(struct table *, size_t n_columns);
void table_add(struct table *, ...); /* n_columns times const char *. */
void table_add_row(struct table *, const char *const cells[]);
void table_print(struct table *, int indent);
char *printable(const char *);
json_t *json_printable(const char *);
int print_json(json_t *);
void complain(const char *fmt, ...) PRINTF_FORMAT(1, 2);

#endif /* tools/xenlift/xenlift.h */
