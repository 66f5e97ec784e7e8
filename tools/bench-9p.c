/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Load on 9P2000.L servers, and how they compare.
 *
 * usage: bench-9p [OPTION]... NAME=ADDRESS,ANAME [NAME=ADDRESS,ANAME]
 *
 * Each client is a process with a connection and a directory of its own.  A
 * test runs on the first server, then the second, and so on in turn ('--runs'
 * times), so that a drift of the machine hits both; medians, spread and ratio
 * (larger than 1: the first is better) are printed, and written as JSON. */

#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/clock.h"
#include "lib/ninep/client.h"
#include "lib/util.h"

#define MAX_RUNS 16
#define MAX_CLIENTS 64
#define SEQUENTIAL_SIZE (32u << 20)
#define N_STAT_FILES 256

struct target {
    char name[64];
    char address[256];
    char aname[256];
};

/* Shared by all processes of one run. */
struct shared {
    int n_ready;
    int go, stop;
    uint64_t ops[MAX_CLIENTS];
    int errors[MAX_CLIENTS];
};

struct client {
    struct ninep_client *c;
    uint32_t dir;  /* Fid of its own directory. */
    uint32_t file; /* An open file of 64 KiB in it. */
    uint64_t i;    /* Operations so far. */
    uint64_t limit;
    char *buf;
    bool no_unlinkat;
};

typedef int bench_op(struct client *);

static int
op_create(struct client *cl)
{
    char name[32];
    uint32_t fid;
    int error;

    snprintf(name, sizeof name, "f%llu", (unsigned long long) cl->i);
    error = ninep_walk_path(cl->c, cl->dir, "", &fid, NULL);
    if (!error) {
        error = ninep_lcreate(cl->c, fid, name, NINEP_O_RDWR, 0644, 0, NULL);
        ninep_release(cl->c, fid);
    }
    return error;
}

static int
op_unlink(struct client *cl)
{
    char name[32];
    uint32_t fid;
    int error = EOPNOTSUPP;

    if (cl->i >= cl->limit) {
        return ENOENT; /* All that were made are gone. */
    }
    snprintf(name, sizeof name, "f%llu", (unsigned long long) cl->i);
    if (!cl->no_unlinkat) {
        error = ninep_unlinkat(cl->c, cl->dir, name, 0);
    }
    if (error == EOPNOTSUPP) {
        cl->no_unlinkat = true;
        error = ninep_walk_path(cl->c, cl->dir, name, &fid, NULL);
        if (!error) {
            error = ninep_remove(cl->c, fid);
            ninep_client_free_fid(cl->c, fid);
        }
    }
    return error;
}

static int
op_stat(struct client *cl)
{
    struct ninep_attr attr;
    char name[32];
    uint32_t fid;
    int error;

    snprintf(name, sizeof name, "s%llu",
             (unsigned long long) (cl->i % N_STAT_FILES));
    error = ninep_walk_path(cl->c, cl->dir, name, &fid, NULL);
    if (!error) {
        error = ninep_getattr(cl->c, fid, NINEP_GETATTR_BASIC, &attr);
        ninep_release(cl->c, fid);
    }
    return error;
}

static int
op_walk(struct client *cl)
{
    uint32_t fid;
    int error = ninep_walk_path(cl->c, cl->dir, "d/d/d/d", &fid, NULL);

    if (!error) {
        ninep_release(cl->c, fid);
    }
    return error;
}

static int
op_getattr(struct client *cl)
{
    struct ninep_attr attr;

    return ninep_getattr(cl->c, cl->file, NINEP_GETATTR_BASIC, &attr);
}

static int
op_readdir(struct client *cl)
{
    uint64_t cookie = 0;
    uint32_t fid;
    int error = ninep_walk_path(cl->c, cl->dir, "", &fid, NULL);

    if (error) {
        return error;
    }
    error = ninep_lopen(cl->c, fid, NINEP_O_RDONLY, NULL, NULL);
    while (!error) {
        struct ninep_data data;
        struct ninep_dirent d;
        uint32_t pos = 0;

        error = ninep_readdir(cl->c, fid, cookie, 1 << 16, &data);
        if (error || !data.len) {
            break;
        }
        while (!ninep_dirent_get(&data, &pos, &d)) {
            cookie = d.cookie;
        }
    }
    ninep_release(cl->c, fid);
    return error;
}

static int
op_read(struct client *cl)
{
    uint32_t n;

    return ninep_read(cl->c, cl->file, cl->i * 7 % 15 * 4096, cl->buf, 4096,
                      &n);
}

static int
op_write(struct client *cl)
{
    uint32_t n;

    return ninep_write(cl->c, cl->file, cl->i * 7 % 15 * 4096, cl->buf, 4096,
                       &n);
}

static int
op_fsync(struct client *cl)
{
    int error = op_write(cl);

    return error ? error : ninep_fsync(cl->c, cl->file, true);
}

static int
sequential(struct client *cl, bool write)
{
    size_t n = 0;
    uint64_t offset = cl->i % 32 * (1 << 20);

    return write
               ? ninep_write_all(cl->c, cl->file, offset, cl->buf, 1 << 20)
               : ninep_read_all(cl->c, cl->file, offset, cl->buf, 1 << 20, &n);
}

static int
op_seqwrite(struct client *cl)
{
    /* Never the same bytes: a store that keeps equal data once must not look
     * better than it is. */
    for (size_t i = 0; i < 1 << 20; i += 4096) {
        uint64_t x = (cl->i << 20) + i + getpid();

        memcpy(cl->buf + i, &x, sizeof x);
    }
    return sequential(cl, true);
}

static int
op_seqread(struct client *cl)
{
    return sequential(cl, false);
}

static const struct bench {
    const char *name;
    const char *unit;
    bench_op *run;
    double per_op; /* In 'unit'. */
} benches[] = {
    {"create", "files/s", op_create, 1},
    {"unlink", "files/s", op_unlink, 1},
    {"stat", "ops/s", op_stat, 1},
    {"walk4", "ops/s", op_walk, 1},
    {"getattr", "ops/s", op_getattr, 1},
    {"readdir", "scans/s", op_readdir, 1},
    {"read4k", "ops/s", op_read, 1},
    {"write4k", "ops/s", op_write, 1},
    {"write4k+fsync", "ops/s", op_fsync, 1},
    {"seqwrite", "MB/s", op_seqwrite, 1.048576},
    {"seqread", "MB/s", op_seqread, 1.048576},
};

/* Makes what the tests use. */
static int
prepare(struct client *cl, const struct target *t, int number)
{
    char name[64];
    const char *names[] = {name};
    uint32_t fid;
    int error = ninep_client_connect(t->address, &cl->c);

    if (!error) {
        error = ninep_client_version(cl->c, 0);
    }
    if (!error) {
        error = ninep_attach(cl->c, 0, "root", t->aname, 0, NULL);
    }
    snprintf(name, sizeof name, "bench-%d", number);
    if (!error) {
        error = ninep_mkdir(cl->c, 0, name, 0755, 0, NULL);
        error = error == EEXIST ? 0 : error;
    }
    cl->dir = 1;
    if (!error) {
        error = ninep_walk(cl->c, 0, cl->dir, 1, names, NULL, NULL);
    }
    return error ? error : ninep_walk_path(cl->c, cl->dir, "", &fid, NULL);
}

static int
make_files(struct client *cl)
{
    char name[32] = "";
    uint32_t fid;
    int error = 0;

    for (int i = 0; !error && i < 4; i++) {
        error = ninep_walk_path(cl->c, cl->dir, name, &fid, NULL);
        if (!error) {
            error = ninep_mkdir(cl->c, fid, "d", 0755, 0, NULL);
            error = error == EEXIST ? 0 : error;
            ninep_release(cl->c, fid);
        }
        strcat(name, "d/");
    }
    for (int i = 0; !error && i < N_STAT_FILES; i++) {
        snprintf(name, sizeof name, "s%d", i);
        error = ninep_walk_path(cl->c, cl->dir, "", &fid, NULL);
        if (!error) {
            error =
                ninep_lcreate(cl->c, fid, name, NINEP_O_RDWR, 0644, 0, NULL);
            ninep_release(cl->c, fid);
            error = error == EEXIST ? 0 : error;
        }
    }
    return error;
}

static int
open_file(struct client *cl)
{
    size_t n = 32;
    int error = ninep_walk_path(cl->c, cl->dir, "", &cl->file, NULL);

    if (!error) {
        error = ninep_lcreate(cl->c, cl->file, "data", NINEP_O_RDWR, 0644, 0,
                              NULL);
    }
    for (size_t i = 0; !error && i < n; i++) {
        cl->i = i;
        error = op_seqwrite(cl);
    }
    cl->i = 0;
    return error;
}

static void
child(const struct target *t, const struct bench *b, struct shared *sh,
      int number, uint64_t limit)
{
    struct client cl = {.limit = limit};
    int error;

    cl.buf = malloc(SEQUENTIAL_SIZE);
    if (!cl.buf) {
        exit(1);
    }
    for (size_t i = 0; i < 1 << 20; i++) {
        cl.buf[i] = rand();
    }
    error = prepare(&cl, t, number);
    if (!error && b->run != op_create && b->run != op_unlink) {
        error = make_files(&cl);
    }
    if (!error && (b->run == op_read || b->run == op_write ||
                   b->run == op_fsync || b->run == op_getattr ||
                   b->run == op_seqread || b->run == op_seqwrite)) {
        error = open_file(&cl);
    }
    __atomic_fetch_add(&sh->n_ready, 1, __ATOMIC_SEQ_CST);
    while (!__atomic_load_n(&sh->go, __ATOMIC_ACQUIRE)) {
        usleep(100);
    }
    while (!error && !__atomic_load_n(&sh->stop, __ATOMIC_RELAXED)) {
        error = b->run(&cl);
        if (!error) {
            cl.i++;
        }
    }
    sh->ops[number] = cl.i;
    /* Unlink ends early when there is nothing left. */
    sh->errors[number] = error == ENOENT && b->run == op_unlink ? 0 : error;
    _exit(0);
}

/* One run: operations per second of all clients.  Negative on failure.
 * 'made' has, for each client, how many files create left and unlink takes. */
static double
run_once(const struct target *t, const struct bench *b, int n_clients,
         double seconds, uint64_t made[MAX_CLIENTS])
{
    struct shared *sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE,
                             MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    uint64_t start, end, total = 0;
    bool is_unlink = b->run == op_unlink;
    int n_running = n_clients;
    double rate;

    if (sh == MAP_FAILED) {
        return -1;
    }
    fflush(stdout);
    for (int i = 0; i < n_clients; i++) {
        if (!fork()) {
            child(t, b, sh, i, made[i]);
        }
    }
    while (__atomic_load_n(&sh->n_ready, __ATOMIC_SEQ_CST) < n_clients) {
        usleep(1000);
    }
    start = clock_mono_ns();
    __atomic_store_n(&sh->go, 1, __ATOMIC_RELEASE);
    if (!is_unlink) {
        usleep(seconds * 1e6);
        __atomic_store_n(&sh->stop, 1, __ATOMIC_RELAXED);
    }
    while (n_running && wait(NULL) > 0) {
        n_running--;
    }
    end = clock_mono_ns();
    for (int i = 0; i < n_clients; i++) {
        total += sh->ops[i];
        if (sh->errors[i]) {
            fprintf(stderr, "%s %s: %s\n", t->name, b->name,
                    strerror(sh->errors[i]));
            munmap(sh, sizeof *sh);
            return -1;
        }
        if (b->run == op_create) {
            made[i] = sh->ops[i];
        } else if (is_unlink) {
            made[i] = 0;
        }
    }
    munmap(sh, sizeof *sh);
    rate = total * b->per_op * 1e9 / (end - start);
    return rate;
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *) a, y = *(const double *) b;

    return x < y ? -1 : x > y;
}

static double
median(double v[], int n)
{
    double copy[MAX_RUNS];

    memcpy(copy, v, n * sizeof *v);
    qsort(copy, n, sizeof *copy, compare);
    return n % 2 ? copy[n / 2] : (copy[n / 2 - 1] + copy[n / 2]) / 2;
}

static json_t *
doubles(const double v[], int n)
{
    json_t *array = json_array();

    for (int i = 0; i < n; i++) {
        json_array_append_new(array, json_real(v[i]));
    }
    return array;
}

/* All runs of one test with one number of clients. */
static bool
run_bench(const struct bench *b, const struct target targets[], int n_targets,
          int n_clients, int n_runs, double seconds,
          uint64_t made[2][MAX_CLIENTS], json_t *results)
{
    double v[2][MAX_RUNS] = {{0}}, m[2];
    char name[64];
    json_t *json;

    for (int run = 0; run < n_runs; run++) {
        for (int i = 0; i < n_targets; i++) {
            /* Create needs that there are none, unlink that there are. */
            const struct bench *before =
                b->run == op_create && made[i][0]    ? &benches[1]
                : b->run == op_unlink && !made[i][0] ? &benches[0]
                                                     : NULL;

            if (before && run_once(&targets[i], before, n_clients, seconds,
                                   made[i]) < 0) {
                return false;
            }
            v[i][run] = run_once(&targets[i], b, n_clients, seconds, made[i]);
            if (v[i][run] < 0) {
                return false;
            }
        }
    }
    snprintf(name, sizeof name, "9p %s, %d client%s", b->name, n_clients,
             n_clients > 1 ? "s" : "");
    m[0] = median(v[0], n_runs);
    m[1] = n_targets > 1 ? median(v[1], n_runs) : 0;
    printf("%-28s %10.0f", name, m[0]);
    if (n_targets > 1) {
        printf(" %10.0f  %6.2f", m[1], m[0] / m[1]);
    }
    printf("  %s\n", b->unit);
    fflush(stdout);
    json = json_pack("{ss ss sf so}", "name", name, "unit", b->unit, "ours",
                     m[0], "runs", doubles(v[0], n_runs));
    if (n_targets > 1) {
        json_object_set_new(json, "peer", json_real(m[1]));
        json_object_set_new(json, "peer_name", json_string(targets[1].name));
        json_object_set_new(json, "ratio", json_real(m[0] / m[1]));
        json_object_set_new(json, "peer_runs", doubles(v[1], n_runs));
    }
    json_array_append_new(results, json);
    return true;
}

static bool
parse_target(const char *text, struct target *t)
{
    const char *eq = strchr(text, '='), *comma = strrchr(text, ',');

    if (!eq || !comma || comma < eq || eq - text >= 64 || comma - eq >= 256 ||
        strlen(comma) >= 256) {
        return false;
    }
    snprintf(t->name, sizeof t->name, "%.*s", (int) (eq - text), text);
    snprintf(t->address, sizeof t->address, "%.*s", (int) (comma - eq - 1),
             eq + 1);
    snprintf(t->aname, sizeof t->aname, "%s", comma + 1);
    return true;
}

static const char usage[] =
    "usage: bench-9p [OPTION]... NAME=ADDRESS,ANAME [NAME=ADDRESS,ANAME]\n"
    "  --clients LIST   numbers of clients (default 1,8)\n"
    "  --seconds S      of each run (default 2)\n"
    "  --runs N         of each test and server, in turn (default 3)\n"
    "  --only LIST      names of tests\n"
    "  --output FILE    results as JSON\n"
    "Example:\n"
    "  bench-9p vafsd=unix:/run/vafs/vafsd.sock,branch/main \\\n"
    "           diod=unix:/tmp/diod.sock,/export\n";

static bool
is_in_list(const char *list, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = list; p;
         p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        if (!strncmp(p, name, n) && (!p[n] || p[n] == ',')) {
            return true;
        }
    }
    return false;
}

int
main(int argc, char *argv[])
{
    static const struct option options[] = {
        {"clients", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 's'},
        {"runs", required_argument, NULL, 'r'},
        {"only", required_argument, NULL, 'o'},
        {"output", required_argument, NULL, 'w'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const char *clients = "1,8", *only = NULL, *output = NULL;
    uint64_t made[2][MAX_CLIENTS] = {{0}};
    struct target targets[2];
    double seconds = 2;
    int n_runs = 3, n_targets = 0, c, rc = 0;
    json_t *results = json_array();

    while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            clients = optarg;
            break;
        case 's':
            seconds = atof(optarg);
            break;
        case 'r':
            n_runs = MIN(MAX(atoi(optarg), 1), MAX_RUNS);
            break;
        case 'o':
            only = optarg;
            break;
        case 'w':
            output = optarg;
            break;
        default:
            fputs(usage, c == 'h' ? stdout : stderr);
            return c == 'h' ? 0 : 2;
        }
    }
    for (; optind < argc && n_targets < 2; optind++, n_targets++) {
        if (!parse_target(argv[optind], &targets[n_targets])) {
            break;
        }
    }
    if (optind < argc || !n_targets) {
        fputs(usage, stderr);
        return 2;
    }
    printf("%-28s %10s", "", targets[0].name);
    if (n_targets > 1) {
        printf(" %10s  %6s", targets[1].name, "ratio");
    }
    putchar('\n');
    for (const char *p = clients; p; p = strchr(p, ',')) {
        int n = MIN(MAX(atoi(p += *p == ','), 1), MAX_CLIENTS);

        for (size_t i = 0; i < ARRAY_SIZE(benches); i++) {
            bool wanted =
                !only || is_in_list(only, benches[i].name) ||
                (benches[i].run == op_create && is_in_list(only, "unlink"));

            if (wanted && !run_bench(&benches[i], targets, n_targets, n,
                                     n_runs, seconds, made, results)) {
                rc = 1;
            }
        }
    }
    if (output && json_dump_file(results, output, JSON_INDENT(2))) {
        fprintf(stderr, "%s: cannot be written\n", output);
        rc = 1;
    }
    json_decref(results);
    return rc;
}
