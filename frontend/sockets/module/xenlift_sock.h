/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * xenlift_sock: what the files of the module know of each other.
 *
 * Theory of operation
 * ===================
 *
 * The module makes TCP sockets of unmodified programs into PV Calls sockets.
 *
 *   capture.c   puts our proto_ops on each new TCP socket and
 *               sends every call either to the native TCP code or to us
 *   connect.c   connect(), names
 *   listen.c    bind(), listen(), accept(), the table of listeners
 *   stream.c    send, receive, shutdown: bytes between program and data ring
 *   poll.c      poll mask, waiting, spinning before sleeping
 *   conn.c      data rings: memory, grants, event channel, reuse, drain, end
 *   cmd.c       command ring
 *   bus.c       xenbus states, reconnect
 *
 * A *captured* socket is a normal TCP socket whose proto_ops are ours.  It
 * holds a reference to the module and nothing else.  It becomes *lifted* (gets
 * a 'struct xl_sock') when it is connected or bound to an address that is not
 * the guest's own, or listens on the wildcard address.  If it turns out to be
 * local before that, it gets its native proto_ops back and is out of our
 * hands.  The TCP socket below a lifted one remains: it keeps the options,
 * sk_err, sk_shutdown, the wait queue and, for a wildcard listener, the local
 * half of the listening.
 *
 * States of a lifted socket (xs->state):
 *
 *   XL_IDLE        not connected; native code answers everything
 *   XL_CONNECTING  a CONNECT is on its way; it ends in CONNECTED or FAILED
 *   XL_CONNECTED   xs->conn is valid until release().  Terminal: errors and
 *                  ends of stream are flags, the state stays
 *   XL_FAILED      CONNECT was refused; the next connect() starts again
 *   XL_LISTENING   xs->listener is valid until release().  Terminal
 *   XL_LOCAL       was bound on both sides, then connected locally.  Terminal
 *
 * A connection (struct xl_conn) is a data ring and what goes on in it.  It
 * outlives the socket: what a program wrote before close() is drained in the
 * background, then RELEASE is sent, then the ring goes to the list of idle
 * rings, still granted, or is freed.
 *
 * Trust: the backend is not trusted.  Shared memory is only touched through
 * wire/ring.h; indices are checked, responses must match an outstanding
 * request, geometry is never read back.  A bad index kills that stream; a bad
 * response resets the device.
 *
 * Locks, outermost first:
 *   xs->op      mutex: connect/bind/listen of one socket
 *   xl.table    mutex: list of listeners
 *   xs->rx, tx  mutex: consumer of "in", producer of "out"
 *   xl.device   rwsem: the xenbus device
 *   xl.lock     spin (irq): command ring, state, lists of connections
 *   listener->lock, conn->lock  spin (irq): back pointer to the socket
 */
#ifndef XENLIFT_SOCK_H
#define XENLIFT_SOCK_H

#include <linux/kref.h>
#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/rwsem.h>
#include <linux/spinlock.h>
#include <linux/version.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/sock.h>
#include <xen/grant_table.h>
#include <xen/xenbus.h>

#include "wire/pvcalls.h"

struct xl_conn;
struct xl_listener;
struct xl_sock;

/* --- main.c: parameters, counters ------------------------------------- */

extern bool xl_enabled;
extern unsigned int xl_spin_us;
extern unsigned int xl_ring_order;
extern unsigned int xl_idle_rings;
extern unsigned int xl_drain_seconds;
extern unsigned int xl_wait_seconds;

/* Counters, readable in /sys/module/xenlift_sock/parameters/counters. */
enum xl_counter {
	XL_N_CAPTURED, /* sockets that got our proto_ops */
	XL_N_LIFTED, /* of these, became ours */
	XL_N_GIVEN_BACK, /* of these, went local */
	XL_N_CONNECT, /* CONNECT commands */
	XL_N_ACCEPT, /* connections that came by ACCEPT */
	XL_N_RING_NEW, /* data rings allocated and granted */
	XL_N_RING_REUSED, /* data rings taken from the idle list */
	XL_N_SPIN_HIT, /* spinning saved a sleep */
	XL_N_SLEEP, /* waits that slept */
	XL_N_NOTIFY, /* events sent for data */
	XL_N_NOTIFY_SAVED, /* events not sent, peer awake */
	XL_N_EVENT, /* events received for data */
	XL_N_BAD_INDEX, /* stream killed: impossible index */
	XL_N_BAD_RESPONSE, /* device reset: impossible response */
	XL_N_RECONNECT, /* device connected (again) */
	XL_N_DRAIN_TIMEOUT, /* unsent data given up at close */
	XL_N_COUNTERS
};

void xl_count(enum xl_counter c);
bool xl_addr_is_native(__be32 addr);

/* --- cmd.c: command ring ----------------------------------------------- */

/* How a command may use the 32 slots; see cmd.c. */
enum xl_class { XL_SHORT, XL_CONNECTS, XL_PARKED, XL_N_CLASSES };

/*
 * A command.  The owner keeps it alive from xl_cmd_submit() until 'done' was
 * called, which happens exactly once, with interrupts off and no lock held.
 * 'ret' is then 0 or a negative errno that a program may see.
 */
struct xl_cmd {
	struct list_head node;
	struct pvcalls_request req;
	enum xl_class class;
	bool announce; /* send SOCKET before it */
	bool queued; /* waits for a slot */
	unsigned long submitted; /* jiffies */
	int ret;
	void (*done)(struct xl_cmd *cmd);
};

u64 xl_cmd_new_id(void);
void xl_cmd_submit(struct xl_cmd *cmd);
bool xl_cmd_cancel(struct xl_cmd *cmd);
int xl_cmd_call(const struct pvcalls_request *req, bool announce);
void xl_cmd_release_id(u64 id);
bool xl_cmd_process(void);
void xl_cmd_start(struct pvcalls_sring *ring);
void xl_cmd_stop(int error);
void xl_cmd_init(void);

/* --- bus.c: the device -------------------------------------------------- */

/* The one PV Calls device of the guest, and all that hangs on it. */
struct xl_device {
	spinlock_t lock;
	struct rw_semaphore device; /* read: 'xdev' does not go away */
	struct xenbus_device *xdev; /* NULL: no device; also under 'lock' */
	bool connected;
	bool quiet; /* feature-quiet on both sides */
	bool half_close; /* feature-half-close on both sides */
	unsigned int max_order;
	u32 epoch; /* counts connections to a backend */
	unsigned int irq;
	struct list_head conns; /* all xl_conn, by ->all */
	struct list_head idle; /* idle rings, by ->node */
	unsigned int n_idle;
	unsigned int n_conns;
	struct mutex table;
	struct list_head listeners; /* by ->node, under 'table' */
	unsigned int n_listeners; /* with those being buried */
	unsigned int n_listening;
	wait_queue_head_t changed; /* state or counts changed */
	struct workqueue_struct *wq;
};

extern struct xl_device xl;

int xl_bus_init(void);
void xl_bus_exit(void);
bool xl_bus_present(void);
void xl_bus_notify(void);
void xl_bus_fatal(const char *why);

/* --- conn.c: data rings -------------------------------------------------- */

struct xl_conn {
	struct kref ref;
	struct list_head all; /* xl.conns */
	struct list_head node; /* xl.idle or listener->queue */
	u64 id;
	u32 epoch;

	/* Geometry: fixed when the ring is made, never read back. */
	unsigned int order;
	u32 half;
	unsigned int n_pages; /* data pages; page[n_pages] holds indexes */
	struct page **page;
	grant_ref_t *gref;
	struct pvcalls_indexes *idx;
	u8 *in;
	u8 *out;
	evtchn_port_t evtchn;
	int irq;

	/* Private indices: the authority. */
	u32 in_cons;
	u32 out_prod;
	bool in_stalled; /* backend may sleep on a full ring */
	bool want_space; /* somebody waits for room in "out" */
	u32 seen_in_prod; /* by the event handler */
	u32 seen_out_cons;
	u32 spin_ns; /* adaptive, <= spin_us */

	spinlock_t lock;
	struct xl_sock *xs; /* NULL: nobody cares any more */
	struct xl_listener *listener; /* of an ACCEPT under way */
	bool dead; /* device lost, or protocol error */
	bool reset; /* error was posted to the socket */

	bool cmd_busy; /* 'cmd' is a CONNECT under way */
	bool aborted; /* ... of a socket that was closed */
	struct xl_cmd cmd; /* CONNECT, ACCEPT or RELEASE */
	struct xl_cmd abort; /* RELEASE beside a CONNECT under way */
	struct delayed_work drain;
	unsigned long drain_until;
	struct work_struct free;
};

struct xl_conn *xl_conn_get_ring(void);
void xl_conn_put(struct xl_conn *conn);
void xl_conn_attach(struct xl_conn *conn, struct xl_sock *xs);
void xl_conn_detach(struct xl_conn *conn);
void xl_conn_close(struct xl_conn *conn, bool abort);
void xl_conn_discard(struct xl_conn *conn);
void xl_conn_recycle(struct xl_conn *conn);
void xl_conn_notify(struct xl_conn *conn);
void xl_conn_kill_all(void);
void xl_conn_kill(struct xl_conn *conn, const char *why);
void xl_conn_drop_idle(void);
void xl_conn_check(struct xl_conn *conn, struct sock *sk);
bool xl_conn_eof(const struct xl_conn *conn);
int xl_conn_avail(struct xl_conn *conn);
int xl_conn_space(struct xl_conn *conn);
u32 xl_conn_unsent(struct xl_conn *conn);

/* --- capture.c ----------------------------------------------------------- */

enum xl_state {
	XL_IDLE,
	XL_CONNECTING,
	XL_CONNECTED,
	XL_FAILED,
	XL_LISTENING,
	XL_LOCAL,
};

struct xl_sock {
	struct socket *sock;
	struct sock *sk;
	enum xl_state state; /* smp_load_acquire() outside of 'op' */
	struct mutex op;
	struct mutex rx;
	struct mutex tx;
	struct xl_conn *conn;
	struct xl_listener *listener; /* since bind() */
	struct sockaddr_in local;
	struct sockaddr_in peer;
};

const struct proto_ops *xl_native_of(const struct socket *sock);

int xl_capture_init(void);
void xl_capture_exit(void);
struct xl_sock *xl_sock_of(const struct socket *sock);
struct xl_sock *xl_sock_lift(struct socket *sock);
bool xl_sock_give_back(struct socket *sock);

static inline enum xl_state xl_sock_state(const struct xl_sock *xs)
{
	return smp_load_acquire(&xs->state);
}

static inline void xl_sock_set_state(struct xl_sock *xs, enum xl_state state)
{
	smp_store_release(&xs->state, state);
}

/* --- connect.c ----------------------------------------------------------- */

enum xl_side { XL_SIDE_LOCAL, XL_SIDE_REMOTE, XL_SIDE_BOTH };

enum xl_side xl_side_of(struct net *net, __be32 addr);
bool xl_addr_get(const struct sock *sk, const struct sockaddr *addr, int len,
		 struct sockaddr_in *ret);
int xl_addr_put(const struct sock *sk, struct sockaddr *addr,
		const struct sockaddr_in *sin);
int xl_connect(struct socket *sock, struct sockaddr *addr, int len, int flags);
int xl_getname(struct socket *sock, struct sockaddr *addr, int peer);

/* --- listen.c ------------------------------------------------------------ */

int xl_bind(struct socket *sock, struct sockaddr *addr, int len);
int xl_listen(struct socket *sock, int backlog);
int xl_accept_lifted(struct xl_sock *xs, struct socket *newsock, int flags,
		     int (*native)(struct socket *sock, struct socket *newsock,
				   void *arg),
		     void *arg);
bool xl_listener_ready(const struct xl_listener *l);
void xl_listener_close(struct xl_listener *l);
void xl_listener_kick_all(void);

/* --- stream.c ------------------------------------------------------------ */

int xl_sendmsg_lifted(struct xl_sock *xs, struct msghdr *msg, size_t len);
int xl_recvmsg_lifted(struct xl_sock *xs, struct msghdr *msg, size_t len,
		      int flags);
int xl_shutdown_lifted(struct xl_sock *xs, int how);

/* --- poll.c -------------------------------------------------------------- */

__poll_t xl_poll(struct file *file, struct socket *sock, poll_table *wait);
void xl_wake(struct xl_sock *xs, __poll_t mask);
long xl_wait(struct xl_sock *xs, bool (*ready)(struct xl_sock *xs),
	     long timeout);
u32 xl_spin_limit_ns(void);
bool xl_spin(struct xl_sock *xs, bool (*ready)(struct xl_sock *xs));

#endif
