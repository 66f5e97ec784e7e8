/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * output.c - tables, JSON, and strings of other domains made harmless.
 */
#include "tools/xenlift/xenlift.h"

#include <stdarg.h>
#include <stdlib.h>

/* A copy of 's' in which everything but printable ASCII is a question mark: a
 * guest wrote it, and it may not speak to the terminal.  The caller frees it.
 * Never NULL: ends the program without memory. */
char *
printable(const char *s)
{
    char *copy = strdup(s), *p;

    if (!copy) {
        complain("out of memory");
        exit(XENLIFT_USAGE);
    }
    for (p = copy; *p; p++) {
        if (*p < ' ' || *p > '~') {
            *p = '?';
        }
    }
    return copy;
}

/* 's' made printable, as a new JSON string. */
json_t *
json_printable(const char *s)
{
    char *copy = printable(s);
    json_t *json = json_string(copy);

    free(copy);
    return json;
}

/* Prints 'json' and drops the reference to it.  Returns an exit status. */
int
print_json(json_t *json)
{
    /* ASCII: control characters beyond it also stay off the terminal. */
    int error = json_dumpf(
        json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY | JSON_ENSURE_ASCII);

    putchar('\n');
    json_decref(json);
    return error || fflush(stdout) ? XENLIFT_USAGE : XENLIFT_OK;
}

/* Says 'fmt' on standard error. */
void
complain(const char *fmt, ...)
{
    va_list args;

    fflush(stdout);
    fputs("xenlift: ", stderr);
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    putc('\n', stderr);
}

void
table_init(struct table *table, size_t n_columns)
{
    memset(table, 0, sizeof *table);
    table->n_columns = MIN(n_columns, TABLE_COLUMNS);
}

/* Adds a row of as many strings as 'table' has columns; NULL shows as "-".
 * Copies them, made printable. */
void
table_add_row(struct table *table, const char *const cells[])
{
    char *(*rows)[TABLE_COLUMNS];
    size_t i;

    rows = realloc(table->rows, (table->n_rows + 1) * sizeof *rows);
    if (!rows) {
        complain("out of memory");
        exit(XENLIFT_USAGE);
    }
    table->rows = rows;
    for (i = 0; i < table->n_columns; i++) {
        rows[table->n_rows][i] =
            printable(cells[i] && *cells[i] ? cells[i] : "-");
    }
    table->n_rows++;
}

/* The same with the strings as arguments. */
void
table_add(struct table *table, ...)
{
    const char *cells[TABLE_COLUMNS];
    va_list args;
    size_t i;

    va_start(args, table);
    for (i = 0; i < table->n_columns; i++) {
        cells[i] = va_arg(args, const char *);
    }
    va_end(args);
    table_add_row(table, cells);
}

/* Prints 'table', each line behind 'indent' spaces, and empties it. */
void
table_print(struct table *table, int indent)
{
    size_t width[TABLE_COLUMNS] = {0}, i, j;

    for (i = 0; i < table->n_rows; i++) {
        for (j = 0; j < table->n_columns; j++) {
            width[j] = MAX(width[j], strlen(table->rows[i][j]));
        }
    }
    for (i = 0; i < table->n_rows; i++) {
        printf("%*s", indent, "");
        for (j = 0; j < table->n_columns; j++) {
            bool last = j == table->n_columns - 1;

            printf("%-*s%s", last ? 0 : (int) width[j], table->rows[i][j],
                   last ? "\n" : "  ");
            free(table->rows[i][j]);
        }
    }
    free(table->rows);
    table_init(table, table->n_columns);
}
