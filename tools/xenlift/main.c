/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * main.c - the `xenlift` command: options and the choice of what to do.
 */
#include "tools/xenlift/xenlift.h"

#include <getopt.h>
#include <stdlib.h>

static const char usage[] =
    "usage: xenlift [OPTION...] COMMAND [ARG...]\n"
    "\n"
    "Looks at the lifted sockets and files of this host.\n"
    "\n"
    "  lint               name each xenstore node that breaks the rules\n"
    "  list               domains, their devices and states\n"
    "  show [DOMAIN]      the same in full, with rings and counters\n"
    "  ctl [METHOD ARG..] call xenliftd's control socket; alone: list "
    "methods\n"
    "\n"
    "  -d, --dump FILE    look at the output of `xenstore-ls -f` (better "
    "-fp)\n"
    "                     instead of a live xenstore; - is standard input\n"
    "  -j, --json         print JSON\n"
    "  -n, --notes        lint: show also what is allowed but unusual\n"
    "      --hv SPEC      hypervisor: xen (default) or local:DIR\n"
    "      --run-dir DIR  where xenliftd's control socket is "
    "(/run/xenlift)\n"
    "  -h, --help         this text\n"
    "\n"
    "DOMAIN is a domid or a name.  Exit status: 0, 1 for violations or a\n"
    "refusal, 2 for wrong usage or when nothing could be read.\n"
    "\n"
    "examples:\n"
    "  xenlift list\n"
    "  xenlift show web\n"
    "  xenstore-ls -fp | xenlift lint --dump -\n"
    "  xenlift --json lint\n"
    "  xenlift ctl coverage/show\n";

static const struct command {
    const char *name;
    int (*run)(const struct xenlift_options *, int argc, char *argv[]);
    int max_args;
} commands[] = {
    {"lint", xenlift_lint, 0},
    {"list", xenlift_list, 0},
    {"show", xenlift_show, 1},
    {"ctl", xenlift_ctl, 64},
};

static int
run(const struct xenlift_options *o, int argc, char *argv[])
{
    size_t i;

    for (i = 0; i < ARRAY_SIZE(commands); i++) {
        const struct command *c = &commands[i];

        if (!strcmp(argv[0], c->name)) {
            if (argc - 1 > c->max_args) {
                complain("%s takes at most %d argument%s", c->name,
                         c->max_args, c->max_args == 1 ? "" : "s");
                return XENLIFT_USAGE;
            }
            return c->run(o, argc - 1, argv + 1);
        }
    }
    complain("no command \"%s\"; xenlift --help lists them", argv[0]);
    return XENLIFT_USAGE;
}

int
main(int argc, char *argv[])
{
    enum { OPT_HV = 256, OPT_RUN_DIR };
    static const struct option options[] = {
        {"dump", required_argument, NULL, 'd'},
        {"json", no_argument, NULL, 'j'},
        {"notes", no_argument, NULL, 'n'},
        {"hv", required_argument, NULL, OPT_HV},
        {"run-dir", required_argument, NULL, OPT_RUN_DIR},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct xenlift_options o = {.hv = "xen", .run_dir = "/run/xenlift"};
    bool is_ctl = false;
    int c;

    /* Options may follow the command, but what follows `ctl METHOD` belongs
     * to the method. */
    for (c = 1; c < argc && !is_ctl; c++) {
        is_ctl = !strcmp(argv[c], "ctl");
    }
    while ((c = getopt_long(argc, argv, is_ctl ? "+d:jnh" : "d:jnh", options,
                            NULL)) >= 0) {
        switch (c) {
        case 'd':
            o.dump = optarg;
            break;
        case 'j':
            o.json = true;
            break;
        case 'n':
            o.notes = true;
            break;
        case OPT_HV:
            o.hv = optarg;
            break;
        case OPT_RUN_DIR:
            o.run_dir = optarg;
            break;
        case 'h':
            fputs(usage, stdout);
            return XENLIFT_OK;
        default:
            return XENLIFT_USAGE;
        }
    }
    if (optind >= argc) {
        fputs(usage, stderr);
        return XENLIFT_USAGE;
    }
    return run(&o, argc - optind, argv + optind);
}
