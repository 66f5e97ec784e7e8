/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What xenlift needs from a hypervisor: shared memory (grants), notification
 * (event channels) and a registry (xenstore).
 *
 * Theory of operation
 * ===================
 *
 * A `struct hv` is one process's access in the name of one domain.  Two
 * implementations stand behind it and are picked by name at run time:
 *
 *   "xen"               hv/xen.c: /dev/xen/{gntdev,gntalloc,evtchn} and
 *                       libxenstore, the real thing.
 *   "local:DIR[@ID]"    hv/local.c: the same over memfd and eventfd, with a
 *                       small broker process (hv/broker.c) that listens on
 *                       DIR/broker and keeps the registry, the table of
 *                       granted pages and the event channel ends.  ID is the
 *                       domain in whose name the process speaks (default 0).
 *                       Supervisor, workers and user-space frontends run
 *                       unmodified on a machine without Xen.  There is no
 *                       protection between local "domains"; it is for tests.
 *
 * Mapping a grant takes two steps so that another process may own the first:
 * *prepare* makes the references known to the mapping device and yields a
 * descriptor and an offset; *attach* maps that into this address space.
 *
 * All event channels of one `struct hv` share one descriptor.  It is readable
 * while a port is pending.  A port that hv_evtchn_read() returned is masked:
 * it does not become pending again until hv_evtchn_unmask(); a notification
 * that came in between is not lost, it makes the port pending at the unmask.
 * Events are level hints and never counted.
 *
 * A worker may not open devices itself (it has no privileges and no view of
 * the file system).  Its parent opens them with hv_open_worker_fds() and the
 * worker makes a `struct hv` of them with hv_adopt().
 *
 * Unless said otherwise, functions return 0 or a positive errno, leave
 * `ret_` arguments untouched on failure, never block for long, and may be
 * called from one thread at a time per `struct hv`.
 */

#ifndef HV_HV_H
#define HV_HV_H 1

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HV_PAGE_SIZE 4096
#define HV_DOMID_INVALID 0x7ff4 /* DOMID_INVALID of Xen. */

struct hv;

/* What to open: each costs descriptors, so ask only for what is used. */
enum hv_open_flags {
    HV_GRANT = 1 << 0,  /* Map other domains' grants (gntdev). */
    HV_ALLOC = 1 << 1,  /* Grant own pages (gntalloc): frontends. */
    HV_EVTCHN = 1 << 2, /* Event channels. */
    HV_STORE = 1 << 3,  /* xenstore. */
};

/* ## Opening ## */

/* Opens the implementation named 'spec' ("xen" or "local:DIR[@ID]") with what
 * 'flags' (enum hv_open_flags) asks for and stores it in '*ret_hv'.  The
 * caller closes it with hv_close().  EINVAL: no such implementation; else the
 * error of the device that could not be opened. */
int hv_open(const char *spec, unsigned flags, struct hv **ret_hv)
    __attribute__((warn_unused_result));

/* Releases 'hv', its descriptors, mappings of the registry and ports.  Grants
 * still attached stay mapped until the process ends (their `struct hv_grant`
 * must be released before).  Accepts NULL. */
void hv_close(struct hv *hv);

/* Opens, for a worker that will serve guest 'peer', a descriptor for mapping
 * grants and one for event channels; the latter can only be bound to 'peer'
 * (IOCTL_EVTCHN_RESTRICT_DOMID).  Both are close-on-exec and owned by the
 * caller, who passes them on and closes them.  'hv' need not have been opened
 * with HV_GRANT or HV_EVTCHN. */
int hv_open_worker_fds(struct hv *hv, uint16_t peer, int *ret_grant_fd,
                       int *ret_evtchn_fd) __attribute__((warn_unused_result));

/* In a worker: makes a `struct hv` with HV_GRANT and HV_EVTCHN out of the two
 * descriptors that hv_open_worker_fds() of the same 'spec' gave.  Opens
 * nothing by name.  On success '*ret_hv' owns both descriptors.  The "local"
 * implementation creates an epoll descriptor here and two eventfds per port,
 * so the number of open files must not be limited too tightly. */
int hv_adopt(const char *spec, int grant_fd, int evtchn_fd, struct hv **ret_hv)
    __attribute__((warn_unused_result));

/* Returns the name of the implementation, "xen" or "local". */
const char *hv_name(const struct hv *hv);

/* ## Mapping other domains' grants (HV_GRANT) ## */

struct hv_grant;

/* Step one: makes the 'n' references 'refs' of domain 'domid' known as one
 * contiguous range of 'n' pages, 1 <= n <= 4096.  Copies 'refs'.  Whether the
 * references are good is told here by "local" and only by hv_grant_attach()
 * by "xen"; callers must expect both.  Errors: EINVAL (a bad reference),
 * ENOMEM, ENOSPC (the table of mappings is full). */
int hv_grant_prepare(struct hv *hv, uint16_t domid, const uint32_t refs[],
                     size_t n, struct hv_grant **ret_grant)
    __attribute__((warn_unused_result));

/* The descriptor and the offset that step one yielded, for the use of mmap()
 * in another process that inherited the descriptor.  EOPNOTSUPP where a range
 * is not one piece of one file ("local" with scattered references). */
int
hv_grant_location(const struct hv_grant *grant, int *ret_fd,
                  uint64_t *ret_offset) __attribute__((warn_unused_result));

/* Step two: maps the range, shared, readable and writable, and stores its
 * address in '*ret_mem'.  Once only per grant.  EINVAL: a reference is not
 * granted to us; EAGAIN, ENOMEM: resources. */
int hv_grant_attach(struct hv_grant *grant, void **ret_mem)
    __attribute__((warn_unused_result));

/* Undoes step two.  Nothing may use the memory any more.  Idempotent. */
void hv_grant_detach(struct hv_grant *grant);

/* Undoes both steps and frees 'grant'.  Accepts NULL. */
void hv_grant_release(struct hv_grant *grant);

/* Prepare and attach in one call, for the usual case.  On success the caller
 * owns '*ret_grant' and uses '*ret_mem' until hv_grant_release(). */
int hv_grant_map(struct hv *hv, uint16_t domid, const uint32_t refs[],
                 size_t n, struct hv_grant **ret_grant, void **ret_mem)
    __attribute__((warn_unused_result));

/* ## Granting own pages (HV_ALLOC), for user-space frontends ## */

struct hv_pages;

/* Allocates 'n' zeroed contiguous pages, grants each to domain 'domid', and
 * stores the references in 'ret_refs[0..n-1]', the address in '*ret_mem'.
 * The caller frees them with hv_pages_free().  ENOSPC: the limit of
 * gntalloc. */
int hv_pages_alloc(struct hv *hv, uint16_t domid, size_t n, bool writable,
                   uint32_t ret_refs[], void **ret_mem,
                   struct hv_pages **ret_pages)
    __attribute__((warn_unused_result));

/* Revokes the grants and unmaps the pages.  Where the other side still has
 * them mapped, the memory itself lives on until it lets go.  Accepts NULL. */
void hv_pages_free(struct hv_pages *pages);

/* ## Event channels (HV_EVTCHN) ## */

/* The descriptor that is readable while any port is pending.  Owned by 'hv';
 * level-triggered. */
int hv_evtchn_fd(const struct hv *hv);

/* Binds a new local port to 'remote_port' of 'domid', which that domain
 * allocated for us, and stores it in '*ret_port'.  The new port is pending at
 * once (a notification may have been lost before).  EINVAL, ENOENT: there is
 * no such port or it is not ours to bind. */
int hv_evtchn_bind_interdomain(struct hv *hv, uint16_t domid,
                               uint32_t remote_port, uint32_t *ret_port)
    __attribute__((warn_unused_result));

/* Allocates a port that 'domid' may bind, for frontends. */
int hv_evtchn_alloc_unbound(struct hv *hv, uint16_t domid, uint32_t *ret_port)
    __attribute__((warn_unused_result));

/* Closes 'port' of 'hv'.  Unknown ports are ignored. */
void hv_evtchn_unbind(struct hv *hv, uint32_t port);

/* Notifies the other end of 'port'.  An end that is gone is no error. */
int hv_evtchn_notify(struct hv *hv, uint32_t port);

/* Stores up to 'max' pending ports in 'ports' and their number, possibly 0,
 * in '*ret_n'; never blocks.  The ports are masked from then on.  An error is
 * final: there will be no events any more. */
int hv_evtchn_read(struct hv *hv, uint32_t ports[], size_t max, size_t *ret_n)
    __attribute__((warn_unused_result));

/* Unmasks 'ports', as hv_evtchn_read() returned them. */
int hv_evtchn_unmask(struct hv *hv, const uint32_t ports[], size_t n);

/* ## xenstore (HV_STORE) ##
 *
 * Paths are absolute ("/local/domain/1/...") or relative to the own domain's
 * directory ("backend/pvcalls").  Values are strings; those of other domains
 * are data to be doubted.  Calls wait for the daemon's answer. */

/* A transaction; HV_XS_NONE for a call outside of any. */
typedef uint32_t hv_xs_txn;
#define HV_XS_NONE 0

enum hv_xs_limits {
    HV_XS_PATH_MAX = 3072,  /* Longest absolute path, of Xen. */
    HV_XS_VALUE_MAX = 4096, /* Longest value. */
    HV_XS_TOKEN_MAX = 64,   /* Longest token that we use. */
};

/* Permissions of a node.  The first of a list names the owner and what
 * everybody else may do, the others name a domain and what it may do. */
enum hv_xs_perm_bits {
    HV_XS_PERM_NONE = 0,
    HV_XS_PERM_READ = 1,
    HV_XS_PERM_WRITE = 2,
};
struct hv_xs_perm {
    uint16_t domid;
    uint16_t bits; /* enum hv_xs_perm_bits. */
};

/* Own domain id.  EAGAIN if xenstore does not say it yet. */
int hv_domid(struct hv *hv, uint16_t *ret_domid)
    __attribute__((warn_unused_result));

/* Stores the value of node 'path', a NUL-terminated string that the caller
 * frees, in '*ret_value'.  A value with an embedded NUL is cut there.
 * ENOENT: no such node; EACCES: not ours to read. */
int hv_xs_read(struct hv *hv, hv_xs_txn txn, const char *path,
               char **ret_value) __attribute__((warn_unused_result));

/* As hv_xs_read() for a decimal number of at most 'max'.  EINVAL: the value
 * is not exactly a number in 0..max, written without leading zeros. */
int
hv_xs_read_uint(struct hv *hv, hv_xs_txn txn, const char *path, uint64_t max,
                uint64_t *ret_value) __attribute__((warn_unused_result));

/* Parses 's' as such a number without reading anything: EINVAL as above. */
int hv_xs_parse_uint(const char *s, uint64_t max, uint64_t *ret_value)
    __attribute__((warn_unused_result));

/* Writes 'value' to 'path', which is created with its parents if missing. */
int hv_xs_write(struct hv *hv, hv_xs_txn txn, const char *path,
                const char *value) __attribute__((warn_unused_result));

/* Creates 'path', empty, if missing. */
int hv_xs_mkdir(struct hv *hv, hv_xs_txn txn, const char *path)
    __attribute__((warn_unused_result));

/* Removes 'path' and all below.  ENOENT if missing. */
int hv_xs_rm(struct hv *hv, hv_xs_txn txn, const char *path)
    __attribute__((warn_unused_result));

/* Stores the names of the children of 'path' in '*ret_names', an array of
 * '*ret_n' strings that the caller frees with hv_xs_names_free(). */
int hv_xs_directory(struct hv *hv, hv_xs_txn txn, const char *path,
                    char ***ret_names, size_t *ret_n)
    __attribute__((warn_unused_result));
void hv_xs_names_free(char **names, size_t n);

/* Gets (an array to free()) and sets the permissions of 'path'. */
int hv_xs_get_perms(struct hv *hv, hv_xs_txn txn, const char *path,
                    struct hv_xs_perm **ret_perms, size_t *ret_n)
    __attribute__((warn_unused_result));
int hv_xs_set_perms(struct hv *hv, hv_xs_txn txn, const char *path,
                    const struct hv_xs_perm perms[], size_t n)
    __attribute__((warn_unused_result));

/* Begins a transaction.  hv_xs_txn_end() with 'commit' false drops it;  with
 * true, EAGAIN means that somebody interfered: begin again. */
int hv_xs_txn_start(struct hv *hv, hv_xs_txn *ret_txn)
    __attribute__((warn_unused_result));
int hv_xs_txn_end(struct hv *hv, hv_xs_txn txn, bool commit)
    __attribute__((warn_unused_result));

/* Watches 'path' and all below (also "@releaseDomain", which an unprivileged
 * domain may not be told about); 'token' comes back with each event.  The
 * first event comes at once. */
int hv_xs_watch(struct hv *hv, const char *path, const char *token)
    __attribute__((warn_unused_result));
int hv_xs_unwatch(struct hv *hv, const char *path, const char *token);

/* The descriptor that is readable when a watch event waits. */
int hv_xs_fd(const struct hv *hv);

/* Takes one watch event without blocking: EAGAIN if there is none; else
 * stores the path that changed (as the watch named it: absolute or relative)
 * and the token, both to be freed by the caller.  ECONNRESET: xenstore is
 * gone; open again. */
int hv_xs_next_event(struct hv *hv, char **ret_path, char **ret_token)
    __attribute__((warn_unused_result));

/* Whether domain 'domid' exists.  An unprivileged domain may be refused the
 * answer: EACCES. */
int hv_domain_exists(struct hv *hv, uint16_t domid, bool *ret_exists)
    __attribute__((warn_unused_result));

/* ## Domains ##
 *
 * Programs that use this also link -lxenctrl. */

enum hv_domain_flags {
    HV_DOMAIN_DYING = 1 << 0,
    HV_DOMAIN_SHUTDOWN = 1 << 1,
    HV_DOMAIN_PAUSED = 1 << 2,
    HV_DOMAIN_BLOCKED = 1 << 3,
    HV_DOMAIN_RUNNING = 1 << 4,
    HV_DOMAIN_HVM = 1 << 5, /* HVM or PVH, not PV. */
};

struct hv_domain {
    uint16_t domid;
    uint16_t n_vcpus;
    uint32_t flags; /* enum hv_domain_flags. */
    uint64_t n_pages;
    uint8_t uuid[16];
};

/* Stores the domains that the hypervisor of 'spec' (as in hv_open()) lists in
 * '*ret_domains', an array of '*ret_n' that the caller frees.  Needs domain
 * 0's privileges.  EOPNOTSUPP: this domain may not ask ("local" included), so
 * the caller has to make do with what xenstore shows. */
int hv_domains(const char *spec, struct hv_domain **ret_domains, size_t *ret_n)
    __attribute__((warn_unused_result));

/* ## Faults and life cycle of local domains, "local" only ##
 *
 * EOPNOTSUPP from "xen". */

enum hv_fault {
    HV_FAULT_GRANT_PREPARE, /* In the broker, per domain that maps. */
    HV_FAULT_EVTCHN_BIND,   /* In the broker, per domain that binds. */
    HV_FAULT_XS_WRITE,      /* In the broker, per domain that writes. */
    HV_FAULT_XS_COMMIT,     /* In the broker, per domain that commits. */
    HV_N_FAULTS
};

/* From the 'nth' (1 = the next) call of kind 'fault' in the name of domain
 * 'domid' on, 'count' calls fail with 'error'.  'count' 0 clears.  Works
 * across processes. */
int hv_local_fault(struct hv *hv, uint16_t domid, enum hv_fault fault,
                   unsigned nth, unsigned count, int error);

/* Creates domain 'domid': /local/domain/ID with "domid" and, if not NULL,
 * "name" and "vm" (a path "/vm/UUID").  EEXIST. */
int hv_local_domain_create(struct hv *hv, uint16_t domid, const char *name,
                           const char *uuid);

/* Destroys domain 'domid' as Xen and the toolstack do for a guest: its ports
 * and grants go, its directory goes, @releaseDomain fires.  Its processes are
 * not touched but their connections answer ESHUTDOWN. */
int hv_local_domain_destroy(struct hv *hv, uint16_t domid);

/* What the broker holds at this moment, for leak checks. */
struct hv_local_counts {
    uint32_t n_connections; /* Processes connected (this one included). */
    uint32_t n_grants;      /* Pages granted and not revoked. */
    uint32_t n_maps;        /* Pages mapped and not let go. */
    uint32_t n_ports;       /* Ports of all domains. */
    uint32_t n_nodes;       /* Nodes of the registry. */
    uint32_t n_watches;
};
int hv_local_counts(struct hv *hv, struct hv_local_counts *ret_counts);

#endif /* hv/hv.h */
