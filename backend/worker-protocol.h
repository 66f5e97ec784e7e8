/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * What the supervisor (xenliftd) and a worker (xenlift-guest) say to each
 * other, over a SOCK_SEQPACKET Unix socket: one message is one packet.
 *
 * Theory of operation
 * ===================
 *
 * There is one worker for each guest.  It is born with the descriptors
 * WP_FD_* and the arguments
 *
 *     xenlift-guest --hv SPEC --domid N [--user NAME]
 *
 * and has no xenstore connection.  WP_FD_CONTROL is a connection to the
 * supervisor that started it; WP_FD_LISTEN is a listening socket whose name
 * in the file system is RUNDIR/guests/DOMID.sock, mode 0600.  When the
 * supervisor goes away the connection reports end of file and the worker goes
 * on serving.  A new supervisor connects to the listening socket and *adopts*
 * the worker; a new connection replaces the old one, which the worker closes.
 *
 * On each connection, at birth and at adoption alike:
 *
 *     supervisor                            worker
 *     WP_HELLO (version, domid, uuid)  -->
 *                                      <--  WP_HELLO_REPLY (pid, n_devices)
 *                                      <--  WP_DEVICE_STATE, n_devices times
 *     WP_DEVICE_ADD                    -->
 *                                      <--  WP_DEVICE_STATE: CONNECTED|FAILED
 *     ...
 *                                      <--  WP_DEVICE_STATE: FAILED (fault of
 *                                           the guest, or vafsd hung up)
 *     WP_DEVICE_REMOVE                 -->
 *                                      <--  WP_DEVICE_STATE: CLOSED
 *     WP_STATS                         -->
 *                                      <--  WP_STATS_REPLY (JSON)
 *     WP_QUIT                          -->  (unmaps everything, exits 0)
 *
 * Rules.  A device is named by (kind, devid); 'generation' is chosen by the
 * supervisor at each WP_DEVICE_ADD and comes back in every WP_DEVICE_STATE,
 * so that late news of an earlier incarnation is recognized.  The worker
 * answers each WP_DEVICE_ADD with exactly one CONNECTED or FAILED and each
 * WP_DEVICE_REMOVE with exactly one CLOSED, also where it knows no such
 * device.  FAILED is final: when it is sent, the worker has already unmapped
 * and unbound the device and forgets it after the next WP_DEVICE_REMOVE (it
 * lists it as FAILED until then).  WP_DEVICE_ADD of a device that exists is a
 * mistake of the supervisor and is answered FAILED/EEXIST with the new
 * generation; the old incarnation goes on.
 *
 * Trust.  The supervisor trusts nothing that a worker says further than the
 * guest behind it (a worker may have been taken over by its guest): lengths
 * and enumerators are checked, texts are cut and made printable.  The worker
 * trusts the supervisor.
 *
 * All integers have the host's byte order: both ends are on one host.  Both
 * ends ignore bytes behind the structure that they know and message types
 * that they do not know, so that a newer supervisor can adopt an older worker
 * and the reverse; 'version' changes only if that does not suffice.
 */

#ifndef BACKEND_WORKER_PROTOCOL_H
#define BACKEND_WORKER_PROTOCOL_H 1

#include <stdint.h>

#define WP_VERSION 1

/* The descriptors that a worker is born with; 0..2 are /dev/null and the
 * supervisor's log (stderr). */
enum wp_fds {
    WP_FD_CONTROL = 3, /* SOCK_SEQPACKET connection to the supervisor. */
    WP_FD_LISTEN = 4,  /* Listening SOCK_SEQPACKET socket for adoption. */
    WP_FD_GRANT = 5,   /* First argument of hv_adopt(). */
    WP_FD_EVTCHN = 6,  /* Second argument of hv_adopt(). */
    WP_FD_END
};

enum wp_limits {
    WP_MAX_PACKET = 65536, /* Longest packet either side sends. */
    WP_MAX_RINGS = 8,      /* Most rings of a 9pfs device. */
    WP_REASON_SIZE = 128,
    WP_PATH_SIZE = 256,
};

enum wp_type {
    /* Supervisor to worker. */
    WP_HELLO = 1,
    WP_DEVICE_ADD = 2,
    WP_DEVICE_REMOVE = 3,
    WP_STATS = 4,
    WP_QUIT = 5,
    WP_VLOG_SET = 6,

    /* Worker to supervisor. */
    WP_HELLO_REPLY = 65,
    WP_DEVICE_STATE = 66,
    WP_STATS_REPLY = 67,
};

enum wp_kind {
    WP_KIND_PVCALLS = 1,
    WP_KIND_9PFS = 2,
};

/* Begins every message. */
struct wp_header {
    uint32_t type; /* enum wp_type. */
    uint32_t seq;  /* A reply (WP_STATS_REPLY) has that of its request. */
};

/* WP_HELLO: the first message of each connection. */
struct wp_hello {
    struct wp_header h;
    uint32_t version; /* WP_VERSION. */
    uint32_t domid;   /* The guest; the worker ends if it is not its own. */
    uint8_t uuid[16]; /* Of the guest; zeros if not known. */
    char name[64];    /* Of the guest, for log lines; may be empty. */
};

/* WP_HELLO_REPLY. */
struct wp_hello_reply {
    struct wp_header h;
    uint32_t version;
    uint32_t domid;
    int32_t pid;
    uint32_t n_devices; /* Messages WP_DEVICE_STATE that follow at once. */
};

/* What the frontend of a PV Calls device wrote, already checked for form. */
struct wp_pvcalls {
    uint32_t ring_ref;       /* Grant of the command ring's page. */
    uint32_t port;           /* The guest's event channel. */
    uint32_t max_page_order; /* As announced to the guest. */
    uint32_t flags;          /* enum wp_pvcalls_flags. */
};

/* Which extensions of wire/pvcalls.h both ends announced. */
enum wp_pvcalls_flags {
    WP_PVCALLS_QUIET = 1 << 0,
    WP_PVCALLS_HALF_CLOSE = 1 << 1,
};

/* What the frontend of a 9pfs device wrote, already checked for form:
 * 1 <= n_rings <= WP_MAX_RINGS.  The order of each ring stands in shared
 * memory and is checked by the worker against 'max_ring_page_order'. */
struct wp_9pfs {
    uint32_t n_rings;
    uint32_t max_ring_page_order;
    uint32_t ring_ref[WP_MAX_RINGS]; /* Grants of the interface pages. */
    uint32_t port[WP_MAX_RINGS];     /* The guest's event channels. */
    char path[WP_PATH_SIZE];         /* Attach name, for log and stats. */
};

union wp_geometry {
    struct wp_pvcalls pvcalls;
    struct wp_9pfs p9;
};

/* WP_DEVICE_ADD.  For WP_KIND_9PFS exactly one descriptor comes with the
 * packet (SCM_RIGHTS): a SOCK_STREAM connection to vafsd on which plain
 * 9P2000.L is to be spoken; the worker owns it.  End of file on it is the
 * end of the device (FAILED, EPIPE). */
struct wp_device_add {
    struct wp_header h;
    uint32_t kind; /* enum wp_kind. */
    uint32_t devid;
    uint32_t generation;
    uint32_t pad;
    union wp_geometry geometry;
};

/* WP_DEVICE_REMOVE: unmap, unbind, close; answer CLOSED. */
struct wp_device_remove {
    struct wp_header h;
    uint32_t kind;
    uint32_t devid;
    uint32_t generation; /* That of the WP_DEVICE_ADD. */
    uint32_t pad;
};

enum wp_device_state_value {
    WP_CONNECTED = 1, /* Rings mapped, channels bound, being served. */
    WP_CLOSED = 2,    /* Answer to WP_DEVICE_REMOVE.  Nothing is mapped. */
    WP_FAILED = 3,    /* Not served (any more).  Nothing is mapped. */
};

/* WP_DEVICE_STATE. */
struct wp_device_state {
    struct wp_header h;
    uint32_t kind;
    uint32_t devid;
    uint32_t generation;
    uint32_t state; /* enum wp_device_state_value. */
    int32_t error;  /* For WP_FAILED: positive errno. */
    uint32_t pad;
    char reason[WP_REASON_SIZE]; /* For WP_FAILED: one sentence. */
    /* As it came in WP_DEVICE_ADD: an adopting supervisor compares it with
     * what xenstore says now. */
    union wp_geometry geometry;
};

/* WP_STATS: asks for a JSON object. */
enum wp_stats_what {
    WP_STATS_RINGS = 1,    /* {"devices":[{kind,devid,rings:[...]}]} */
    WP_STATS_SESSIONS = 2, /* {"sessions":[...]}: sockets, attached trees. */
    WP_STATS_COVERAGE = 3, /* {"counter": n, ...} */
};
struct wp_stats {
    struct wp_header h;
    uint32_t what; /* enum wp_stats_what. */
    uint32_t pad;
};

/* WP_STATS_REPLY: the header, then JSON text up to the end of the packet, not
 * NUL-terminated, at most WP_MAX_PACKET - 8 bytes.  A worker with more to
 * tell cuts its lists (whole elements) and says "truncated": true. */
struct wp_stats_reply {
    struct wp_header h;
    char json[];
};

/* WP_VLOG_SET: an argument of vlog/set ("MODULE:LEVEL"), NUL-terminated. */
struct wp_vlog_set {
    struct wp_header h;
    char spec[64];
};

/* WP_QUIT is a bare struct wp_header. */

_Static_assert(sizeof(struct wp_header) == 8, "wp_header");
_Static_assert(sizeof(struct wp_hello) == 96, "wp_hello");
_Static_assert(sizeof(struct wp_hello_reply) == 24, "wp_hello_reply");
_Static_assert(sizeof(struct wp_9pfs) == 328, "wp_9pfs");
_Static_assert(sizeof(struct wp_device_add) == 352, "wp_device_add");
_Static_assert(sizeof(struct wp_device_state) == 488, "wp_device_state");

#endif /* backend/worker-protocol.h */
