/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vafs: looks into VAFS stores and works on the files in them. */

#include <errno.h>
#include <getopt.h>
#include <locale.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/vlog.h"
#include "tools/vafs/vafs.h"

static const struct command {
    const char *name;
    const char *usage;
    const char *help;
    vafs_command *run;
} commands[] = {
    {"init", "DIR",
     "Makes an empty store in DIR, with the branch 'main'.\n"
     "\n"
     "  vafs init /var/lib/vafs\n",
     vafs_cmd_init},
    {"ls", "[-l] [-a] [-d] ADDRESS...",
     "Lists directories.  -l shows attributes, -d the directory itself.\n"
     "\n"
     "  vafs ls -l main:/etc\n",
     vafs_cmd_ls},
    {"cat", "ADDRESS...",
     "Writes the contents of files to standard output.\n"
     "\n"
     "  vafs cat main:/etc/hostname\n",
     vafs_cmd_cat},
    {"put", "[-m MODE] FILE ADDRESS",
     "Copies FILE ('-': standard input) to ADDRESS, which is made or gets new\n"
     "content.  If ADDRESS is a directory, the file keeps its name.\n"
     "\n"
     "  vafs put notes.txt main:/root/\n"
     "  date | vafs put - main:/etc/built\n",
     vafs_cmd_put},
    {"get", "ADDRESS [FILE]",
     "Copies a file out, to FILE, a directory, or ('-') standard output.\n"
     "\n"
     "  vafs get main:/var/log/messages .\n",
     vafs_cmd_get},
    {"import", "[-x] SOURCE ADDRESS",
     "Puts a tree below ADDRESS: a directory, a tar archive (any compression\n"
     "that libarchive knows), or '-' for an archive on standard input.\n"
     "Owners (numeric), modes, times, extended attributes, hard links, holes\n"
     "and device nodes are kept.  What exists under a name is updated in\n"
     "place; nothing is removed.  -x stays on one file system.\n"
     "\n"
     "  vafs import debian.tar.zst main:/\n"
     "  tar c . | vafs import - main:/home/alice\n",
     vafs_cmd_import},
    {"export", "ADDRESS DESTINATION",
     "Copies a tree out: to a directory, to an archive (a name that ends in\n"
     ".tar, .tar.gz, .tar.zst or the like), or as tar to '-'.\n"
     "\n"
     "  vafs export main:/home /backup/home.tar.zst\n",
     vafs_cmd_export},
    {"verify", "[--rebuild]",
     "Reads the whole store and checks it: checksums, names of objects,\n"
     "trees, counters.  Exit code 1 if anything is wrong.  --rebuild makes\n"
     "the index of a closed store anew first.\n"
     "\n"
     "  vafs --store /var/lib/vafs verify\n",
     vafs_cmd_verify},
    {"stats", "",
     "Shows figures of the store, its branches and the server.\n"
     "\n"
     "  vafs stats\n",
     vafs_cmd_stats},
    {"checkpoint", "",
     "Makes a version of each branch that changed, now.\n"
     "\n"
     "  vafs checkpoint\n",
     vafs_cmd_checkpoint},
};

static void
print_help(void)
{
    printf("usage: vafs [OPTION]... COMMAND [ARGUMENT]...\n"
           "Looks into VAFS stores and works on the files in them.\n"
           "\n"
           "  --store DIR        work on the closed store in DIR directly\n"
           "                     (default $VAFS_STORE)\n"
           "  --run-dir DIR      where the running vafsd has its sockets\n"
           "                     (default $VAFS_RUN_DIR or /run/vafs)\n"
           "  --connect ADDRESS  another 9P2000.L server: unix:PATH or\n"
           "                     tcp:HOST:PORT\n"
           "  --json             answer as JSON\n"
           "  --quiet            no progress\n"
           "  --help, --version\n"
           "\n"
           "An ADDRESS is BRANCH[:/PATH]; /PATH alone means branch main.\n"
           "\n"
           "Commands ('vafs COMMAND --help' says more):\n");
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        printf("  %-10s %s\n", commands[i].name, commands[i].usage);
    }
    printf("\n"
           "Example:\n"
           "  vafs init /tmp/s && vafs --store /tmp/s import /etc main:/etc &&"
           "\n"
           "  vafs --store /tmp/s ls -l main:/etc\n");
}

void
vafs_error(const char *format, ...)
{
    va_list args;

    fputs("vafs: ", stderr);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
}

void
vafs_print_json(json_t *json)
{
    if (json) {
        json_dumpf(json, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
        putchar('\n');
        json_decref(json);
    }
}

char *
vafs_format_size(uint64_t size, char buf[32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double x = size;
    size_t i = 0;

    while (x >= 1000 && i + 1 < ARRAY_SIZE(units)) {
        x /= 1000;
        i++;
    }
    snprintf(buf, 32, i ? "%.1f %s" : "%.0f %s", x, units[i]);
    return buf;
}

void
vafs_progress_start(struct vafs_progress *p,
                    const struct vafs_options *options, const char *verb)
{
    memset(p, 0, sizeof *p);
    p->verb = verb;
    p->enabled = !options->quiet && isatty(STDERR_FILENO);
    p->start_ns = clock_mono_ns();
    p->next_ns = p->start_ns + 300 * NSEC_PER_MSEC;
}

void
vafs_progress_show(struct vafs_progress *p, const char *format, ...)
{
    uint64_t now;
    va_list args;

    if (!p->enabled) {
        return;
    }
    now = clock_mono_ns();
    if (now < p->next_ns) {
        return;
    }
    p->next_ns = now + 200 * NSEC_PER_MSEC;
    p->shown = true;
    fprintf(stderr, "\r\033[K%s ", p->verb);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "  %.0f s", (double) (now - p->start_ns) / NSEC_PER_SEC);
}

void
vafs_progress_end(struct vafs_progress *p)
{
    if (p->shown) {
        fputs("\r\033[K", stderr);
    }
}

static int
run_command(const struct vafs_options *options, int argc, char *argv[])
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *cmd = &commands[i];

        if (strcmp(argv[0], cmd->name)) {
            continue;
        }
        if (argc > 1 && !strcmp(argv[1], "--help")) {
            printf("usage: vafs %s %s\n%s", cmd->name, cmd->usage, cmd->help);
            return VAFS_OK;
        }
        optind = 0; /* Commands parse options of their own. */
        i = cmd->run(options, argc, argv);
        if (i == VAFS_USAGE) {
            fprintf(stderr, "usage: vafs %s %s\n", cmd->name, cmd->usage);
        }
        return i;
    }
    vafs_error("there is no command \"%s\"; 'vafs --help' lists them",
               argv[0]);
    return VAFS_USAGE;
}

int
main(int argc, char *argv[])
{
    enum { STORE = 256, RUN_DIR, CONNECT, JSON, QUIET, HELP, VERSION };
    static const struct option long_options[] = {
        {"store", required_argument, NULL, STORE},
        {"run-dir", required_argument, NULL, RUN_DIR},
        {"connect", required_argument, NULL, CONNECT},
        {"json", no_argument, NULL, JSON},
        {"quiet", no_argument, NULL, QUIET},
        {"help", no_argument, NULL, HELP},
        {"version", no_argument, NULL, VERSION},
        {NULL, 0, NULL, 0},
    };
    struct vafs_options options = {.store = getenv("VAFS_STORE"),
                                   .run_dir = getenv("VAFS_RUN_DIR")};
    int c, rc;

    if (!options.run_dir) {
        options.run_dir = "/run/vafs";
    }

    vlog_init("vafs");
    if (vlog_set_level("warn")) {
        /* Then it says more. */
    }
    signal(SIGPIPE, SIG_IGN);
    /* Archives' names are UTF-8 where they can be, whatever the user's
     * locale. */
    setlocale(LC_CTYPE, "C.UTF-8");
    while ((c = getopt_long(argc, argv, "+", long_options, NULL)) != -1) {
        switch (c) {
        case STORE:
            options.store = optarg;
            break;
        case RUN_DIR:
            options.run_dir = optarg;
            options.store = NULL;
            break;
        case CONNECT:
            options.connect = optarg;
            options.store = NULL;
            break;
        case JSON:
            options.json = true;
            break;
        case QUIET:
            options.quiet = true;
            break;
        case HELP:
            print_help();
            return VAFS_OK;
        case VERSION:
            puts("vafs (xenlift) 0.1");
            return VAFS_OK;
        default:
            fprintf(stderr, "Try 'vafs --help'.\n");
            return VAFS_USAGE;
        }
    }
    if (optind == argc) {
        print_help();
        return VAFS_USAGE;
    }
    rc = run_command(&options, argc - optind, argv + optind);
    if (fflush(stdout) || ferror(stdout)) {
        vafs_error("standard output: %s", strerror(errno));
        rc = rc ? rc : VAFS_FAILED;
    }
    return rc;
}
