/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vafs command: what its files share.
 *
 * All commands on files speak 9P, to a running vafsd or to a server of their
 * own: with --store, the process runs the engine (vafs-server/engine.h) on a
 * thread and talks to it over a socket pair.  So there is one way that files
 * are read and written, whether or not a daemon runs. */
#ifndef TOOLS_VAFS_H
#define TOOLS_VAFS_H 1

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/ninep/client.h"
#include "lib/util.h"

/* Options that stand before the command. */
struct vafs_options {
    const char *store;   /* --store: work on it directly. */
    const char *run_dir; /* --run-dir: vafsd's sockets. */
    const char *connect; /* --connect: any 9P2000.L server. */
    bool json;
    bool quiet;
};

/* Exit codes. */
enum {
    VAFS_OK = 0,
    VAFS_FAILED = 1, /* It was tried and did not work, or found errors. */
    VAFS_USAGE = 2,
};

/* Prints "vafs: ..." to stderr. */
void vafs_error(const char *format, ...) PRINTF_FORMAT(1, 2);

/* Prints and frees 'json'. */
void vafs_print_json(json_t *json);

/* "12.3 MB" of bytes, into 'buf'. */
char *vafs_format_size(uint64_t size, char buf[32]);

/* An address: BRANCH[@VERSION][:/PATH]; a leading slash means branch main. */
struct vafs_address {
    char aname[600];
    char path[4096]; /* "/" for the root. */
    const char *text;
};

/* Prints and returns false if 'text' is none. */
bool vafs_address_parse(const char *text, struct vafs_address *);

/* A connection.  Fid 0 is the branch's root. */
struct vafs_access;

/* Connects (and prints what went wrong: false).  'write' opens a closed store
 * for changing. */
bool vafs_access_open(const struct vafs_options *, const struct vafs_address *,
                      bool write, struct vafs_access **ret);
/* Prints and returns false if what was written is not safe. */
bool vafs_access_close(struct vafs_access *);
struct ninep_client *vafs_client(struct vafs_access *);

/* Whether --store (or nothing else) was given: 'options->store' is set. */
bool vafs_is_offline(const struct vafs_options *);

/* Path of the control socket; prints and returns false if there is none. */
bool vafs_ctl_path(const struct vafs_options *, char *buf, size_t size);

/* A line of progress on a terminal, at most some per second. */
struct vafs_progress {
    const char *verb;
    bool enabled;
    bool shown;
    uint64_t next_ns, start_ns;
};
void vafs_progress_start(struct vafs_progress *, const struct vafs_options *,
                         const char *verb);
void vafs_progress_show(struct vafs_progress *, const char *format, ...)
    PRINTF_FORMAT(2, 3);
void vafs_progress_end(struct vafs_progress *);

/* Commands: 'argv[0]' is the command's name; they return an exit code. */
typedef int vafs_command(const struct vafs_options *, int argc, char *argv[]);
vafs_command vafs_cmd_init, vafs_cmd_ls, vafs_cmd_cat, vafs_cmd_put,
    vafs_cmd_get, vafs_cmd_import, vafs_cmd_export, vafs_cmd_verify,
    vafs_cmd_stats, vafs_cmd_checkpoint;

#endif /* tools/vafs/vafs.h */
