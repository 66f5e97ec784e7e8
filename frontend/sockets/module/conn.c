// SPDX-License-Identifier: GPL-2.0-only
/*
 * Data rings: memory, grants and event channel of one connection; their reuse
 * by the next connection; the way a connection ends.
 *
 * Theory of operation
 * ===================
 *
 * Making a ring costs an allocation, a grant per page, a hypercall and an
 * interrupt; so a ring that is no longer used stays granted on a short list
 * (xl.idle) and RELEASE tells the backend so by reuse=1.  If the list is full,
 * or the ring has not the size that is wanted now, RELEASE says reuse=0 and
 * the ring is freed after the answer: a backend must have unmapped it by then.
 * If it has not, the grant code of the kernel keeps the page until it has; it
 * is never reused before.
 *
 * End of a connection:
 *
 *    close() -> draining (out ring not empty, at most drain_seconds)
 *            -> RELEASE sent -> answered -> idle list, or freed
 *
 * References to a connection: the socket (or listener's queue), the command
 * under way, the drain work.  A device that goes away (xl_conn_kill_all) marks
 * connections dead; they are freed when the last reference goes.
 */
#include <linux/interrupt.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>
#include <xen/events.h>
#include <xen/page.h>

#include "xenlift_sock.h"

/* --- the event channel ---------------------------------------------------- */

/* News from the backend: data, room, or an error. */
static irqreturn_t xl_conn_event(int irq, void *conn_)
{
	struct xl_conn *conn = conn_;
	u32 in_prod = ring_fetch(&conn->idx->in_prod);
	u32 out_cons = ring_fetch(&conn->idx->out_cons);
	bool spurious = true;

	ring_rmb();
	xl_count(XL_N_EVENT);
	spin_lock(&conn->lock);
	/* Nothing moved since the last event: costs the backend a delay.  What
	 * a reader took already in the meantime counts as moved. */
	if (in_prod != conn->seen_in_prod || out_cons != conn->seen_out_cons)
		spurious = false;
	conn->seen_in_prod = in_prod;
	conn->seen_out_cons = out_cons;
	if (conn->xs) {
		__poll_t mask = 0;

		if (!conn->reset) {
			xl_conn_check(conn, conn->xs->sk);
			if (conn->reset)
				mask = EPOLLERR | EPOLLHUP | EPOLLIN |
				       EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM;
		}
		if (xl_conn_avail(conn) != 0 || xl_conn_eof(conn))
			mask |= EPOLLIN | EPOLLRDNORM;
		if (READ_ONCE(conn->want_space) && xl_conn_space(conn) != 0) {
			WRITE_ONCE(conn->want_space, false);
			mask |= EPOLLOUT | EPOLLWRNORM;
		}
		if (mask) {
			xl_wake(conn->xs, mask);
			spurious = false;
		}
	}
	spin_unlock(&conn->lock);
	xen_irq_lateeoi(irq, spurious ? XEN_EOI_FLAG_SPURIOUS : 0);
	return IRQ_HANDLED;
}

void xl_conn_notify(struct xl_conn *conn)
{
	xl_count(XL_N_NOTIFY);
	notify_remote_via_irq(conn->irq);
}

/* --- memory and grants ---------------------------------------------------- */

static void xl_conn_free_ring(struct xl_conn *conn)
{
	unsigned int i;

	if (conn->irq > 0)
		unbind_from_irqhandler(conn->irq, conn);
	else if (conn->evtchn)
		xenbus_free_evtchn(xl.xdev, conn->evtchn);
	if (conn->in)
		vunmap(conn->in);
	for (i = 0; conn->page && i <= conn->n_pages; i++) {
		if (!conn->page[i])
			continue;
		/* Ends the grant now or, if it is mapped still, later; the
		 * page goes with it. */
		if (conn->gref && conn->gref[i] != INVALID_GRANT_REF)
			gnttab_end_foreign_access(conn->gref[i], conn->page[i]);
		else
			__free_page(conn->page[i]);
	}
	kfree(conn->gref);
	kfree(conn->page);
	kfree(conn);
}

static int xl_conn_alloc_pages(struct xl_conn *conn, domid_t domid)
{
	unsigned int i;
	int ref;

	conn->page =
		kcalloc(conn->n_pages + 1, sizeof(*conn->page), GFP_KERNEL);
	conn->gref =
		kcalloc(conn->n_pages + 1, sizeof(*conn->gref), GFP_KERNEL);
	if (!conn->page || !conn->gref)
		return -ENOMEM;
	for (i = 0; i <= conn->n_pages; i++)
		conn->gref[i] = INVALID_GRANT_REF;
	for (i = 0; i <= conn->n_pages; i++) {
		/* Zeroed: nothing of ours may be on a granted page. */
		conn->page[i] = alloc_page(GFP_KERNEL | __GFP_ZERO |
					   __GFP_NOWARN | __GFP_RETRY_MAYFAIL);
		if (!conn->page[i])
			return -ENOMEM;
		ref = gnttab_grant_foreign_access(
			domid, xen_page_to_gfn(conn->page[i]), 0);
		if (ref < 0)
			return ref;
		conn->gref[i] = ref;
	}
	conn->in = vmap(conn->page, conn->n_pages, VM_MAP, PAGE_KERNEL);
	if (!conn->in)
		return -ENOMEM;
	conn->out = conn->in + conn->half;
	conn->idx = page_address(conn->page[conn->n_pages]);
	return 0;
}

static void xl_conn_free_work(struct work_struct *work)
{
	struct xl_conn *conn = container_of(work, struct xl_conn, free);
	unsigned long flags;

	spin_lock_irqsave(&xl.lock, flags);
	list_del(&conn->all);
	spin_unlock_irqrestore(&xl.lock, flags);
	xl_conn_free_ring(conn);
	spin_lock_irqsave(&xl.lock, flags);
	xl.n_conns--;
	spin_unlock_irqrestore(&xl.lock, flags);
	wake_up_all(&xl.changed);
}

static void xl_conn_last(struct kref *ref)
{
	struct xl_conn *conn = container_of(ref, struct xl_conn, ref);

	queue_work(xl.wq, &conn->free);
}

/* Any context. */
void xl_conn_put(struct xl_conn *conn)
{
	kref_put(&conn->ref, xl_conn_last);
}

static void xl_conn_drain(struct work_struct *work);

static struct xl_conn *xl_conn_new(unsigned int order, domid_t domid)
{
	struct xl_conn *conn = kzalloc(sizeof(*conn), GFP_KERNEL);
	int err;

	if (!conn)
		return ERR_PTR(-ENOMEM);
	kref_init(&conn->ref);
	INIT_LIST_HEAD(&conn->all);
	INIT_LIST_HEAD(&conn->node);
	INIT_WORK(&conn->free, xl_conn_free_work);
	INIT_DELAYED_WORK(&conn->drain, xl_conn_drain);
	spin_lock_init(&conn->lock);
	conn->order = order;
	conn->half = pvcalls_half_size(order);
	conn->n_pages = 1U << order;
	err = xl_conn_alloc_pages(conn, domid);
	if (!err)
		err = xenbus_alloc_evtchn(xl.xdev, &conn->evtchn);
	if (!err) {
		conn->irq = bind_evtchn_to_irqhandler_lateeoi(
			conn->evtchn, xl_conn_event, 0, "xenlift-data", conn);
		if (conn->irq < 0)
			err = conn->irq;
	}
	if (err) {
		xl_conn_free_ring(conn);
		return ERR_PTR(err);
	}
	xl_count(XL_N_RING_NEW);
	return conn;
}

/* Large rings are for few: 2 * 256 KiB each up to 16 sockets, then less. */
static unsigned int xl_conn_order(void)
{
	unsigned int order = READ_ONCE(xl_ring_order);
	unsigned int n = READ_ONCE(xl.n_conns);

	if (!order)
		order = n < 16 ? 7 : n < 64 ? 5 : 4;
	order = min(order, READ_ONCE(xl.max_order));
	return clamp(order, PVCALLS_MIN_ORDER, PVCALLS_MAX_ORDER);
}

/* Indexes as a new connection needs them.  The backend is not looking. */
static void xl_conn_reset_ring(struct xl_conn *conn)
{
	unsigned int i;

	ring_store(&conn->idx->in_cons, 0);
	ring_store(&conn->idx->in_prod, 0);
	ring_store(&conn->idx->in_error, 0);
	ring_store(&conn->idx->out_cons, 0);
	ring_store(&conn->idx->out_prod, 0);
	ring_store(&conn->idx->out_error, 0);
	ring_store(&conn->idx->out_shut, 0);
	ring_store(&conn->idx->ring_order, conn->order);
	for (i = 0; i < conn->n_pages; i++)
		ring_store(&conn->idx->ref[i], conn->gref[i]);
	conn->in_cons = 0;
	conn->out_prod = 0;
	conn->in_stalled = false;
	conn->want_space = false;
	conn->seen_in_prod = 0;
	conn->seen_out_cons = 0;
	conn->reset = false;
	conn->cmd_busy = false;
	conn->aborted = false;
	conn->spin_ns = READ_ONCE(xl_spin_us) * 1000;
	conn->xs = NULL;
}

/*
 * A data ring for a new connection, from the idle list or new, with one
 * reference for the caller.  May sleep.  ERR_PTR(-ENOBUFS) and the like if the
 * guest is out of something, -ENETUNREACH without a backend.
 */
struct xl_conn *xl_conn_get_ring(void)
{
	unsigned int order = xl_conn_order();
	struct xl_conn *conn = NULL, *iter;
	unsigned long flags;
	u32 epoch;

	spin_lock_irqsave(&xl.lock, flags);
	list_for_each_entry(iter, &xl.idle, node) {
		/* Any size will do rather than none. */
		if (!conn || iter->order == order)
			conn = iter;
		if (conn->order == order)
			break;
	}
	if (conn && conn->order < order && xl.n_conns < 16)
		conn = NULL;
	if (conn) {
		list_del_init(&conn->node);
		xl.n_idle--;
	}
	epoch = xl.epoch;
	spin_unlock_irqrestore(&xl.lock, flags);
	if (conn) {
		xl_count(XL_N_RING_REUSED);
	} else {
		down_read(&xl.device);
		conn = xl.xdev ? xl_conn_new(order, xl.xdev->otherend_id) :
				 ERR_PTR(-ENETUNREACH);
		up_read(&xl.device);
		if (conn == ERR_PTR(-ENETUNREACH))
			return conn;
		if (IS_ERR(conn))
			return PTR_ERR(conn) == -ENOMEM ? conn :
							  ERR_PTR(-ENOBUFS);
		conn->epoch = epoch;
		spin_lock_irqsave(&xl.lock, flags);
		list_add(&conn->all, &xl.conns);
		xl.n_conns++;
		spin_unlock_irqrestore(&xl.lock, flags);
	}
	xl_conn_reset_ring(conn);
	conn->id = xl_cmd_new_id();
	return conn;
}

/* --- the peer's indices ----------------------------------------------------- */

/*
 * The peer wrote something impossible, or the device is gone: the stream is
 * over.  'why' NULL: it is not this backend's fault.  Any context.
 */
void xl_conn_kill(struct xl_conn *conn, const char *why)
{
	if (READ_ONCE(conn->dead))
		return;
	WRITE_ONCE(conn->dead, true);
	if (why) {
		xl_count(XL_N_BAD_INDEX);
		pr_warn_ratelimited("xenlift_sock: socket %llu: %s\n", conn->id,
				    why);
	}
}

/* Bytes that can be received, or -EPROTO. */
int xl_conn_avail(struct xl_conn *conn)
{
	u32 cons = READ_ONCE(conn->in_cons);
	u32 prod = ring_fetch(&conn->idx->in_prod);

	ring_rmb();
	if (!ring_is_sane(prod, cons, conn->half)) {
		/* A reader may have moved on between the two loads. */
		if (READ_ONCE(conn->in_cons) != cons)
			return 1;
		xl_conn_kill(conn, "in_prod is impossible");
		return -EPROTO;
	}
	return ring_used(prod, cons);
}

/* Bytes that can be sent, or -EPROTO. */
int xl_conn_space(struct xl_conn *conn)
{
	u32 prod = READ_ONCE(conn->out_prod);
	u32 cons = ring_fetch(&conn->idx->out_cons);

	ring_mb();
	if (!ring_is_sane(prod, cons, conn->half)) {
		if (READ_ONCE(conn->out_prod) != prod)
			return 1;
		xl_conn_kill(conn, "out_cons is impossible");
		return -EPROTO;
	}
	return ring_free(prod, cons, conn->half);
}

/* Bytes that the backend has not taken. */
u32 xl_conn_unsent(struct xl_conn *conn)
{
	int space = xl_conn_space(conn);

	return space < 0 ? 0 : conn->half - space;
}

/* True if the peer closed its direction in order. */
bool xl_conn_eof(const struct xl_conn *conn)
{
	return (s32)ring_fetch(&conn->idx->in_error) == -ENOTCONN;
}

static int xl_conn_error(const struct xl_conn *conn)
{
	s32 in = ring_fetch(&conn->idx->in_error);
	s32 out = ring_fetch(&conn->idx->out_error);
	s32 err = in && in != -ENOTCONN ? in : out;

	if (READ_ONCE(conn->dead))
		return -ECONNRESET;
	if (err == -ENOTCONN)
		return -EPIPE;
	if (err > 0 || err <= -512)
		return -EPROTO;
	return err;
}

/*
 * Carries over to 'sk' what the backend says of the stream: an end in order to
 * sk_shutdown, an error, once, to sk_err.  Any context.
 */
void xl_conn_check(struct xl_conn *conn, struct sock *sk)
{
	int err;

	if (xl_conn_eof(conn) && !(sk->sk_shutdown & RCV_SHUTDOWN))
		WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | RCV_SHUTDOWN);
	if (READ_ONCE(conn->reset))
		return;
	err = xl_conn_error(conn);
	if (err && !xchg(&conn->reset, true)) {
		WRITE_ONCE(sk->sk_err, -err);
		WRITE_ONCE(sk->sk_shutdown, SHUTDOWN_MASK);
	}
}

/* --- begin and end ------------------------------------------------------------ */

void xl_conn_attach(struct xl_conn *conn, struct xl_sock *xs)
{
	unsigned long flags;

	spin_lock_irqsave(&conn->lock, flags);
	conn->xs = xs;
	spin_unlock_irqrestore(&conn->lock, flags);
}

/* No interrupt touches the socket after this. */
void xl_conn_detach(struct xl_conn *conn)
{
	xl_conn_attach(conn, NULL);
}

/* To the idle list, or away.  The caller's reference goes along.  Any context:
 * also as the end of RELEASE. */
static void xl_conn_retire(struct xl_conn *conn, bool reuse)
{
	unsigned long flags;

	spin_lock_irqsave(&xl.lock, flags);
	if (reuse && xl.connected && conn->epoch == xl.epoch &&
	    !READ_ONCE(conn->dead)) {
		list_add(&conn->node, &xl.idle);
		xl.n_idle++;
		conn = NULL;
	}
	spin_unlock_irqrestore(&xl.lock, flags);
	if (conn)
		xl_conn_put(conn);
}

/* -ENOTSOCK: the backend had forgotten the id, and the ring with it. */
static void xl_conn_released(struct xl_cmd *cmd)
{
	struct xl_conn *conn = container_of(cmd, struct xl_conn, cmd);

	xl_conn_retire(conn, (cmd->ret == 0 || cmd->ret == -ENOTSOCK) &&
				     cmd->req.u.release.reuse);
}

static void xl_conn_abort_done(struct xl_cmd *cmd)
{
	xl_conn_put(container_of(cmd, struct xl_conn, abort));
}

/*
 * Closed while CONNECT is under way: RELEASE makes the backend give up, and
 * xl_connect_done() does the rest.  Consumes the caller's reference.
 */
static bool xl_conn_abort(struct xl_conn *conn)
{
	unsigned long flags;
	bool busy;

	if (xl_cmd_cancel(&conn->cmd)) {
		conn->cmd_busy = false;
		xl_conn_put(conn); /* the command's */
		xl_conn_retire(conn, true);
		return true;
	}
	spin_lock_irqsave(&conn->lock, flags);
	busy = conn->cmd_busy;
	conn->aborted = busy;
	spin_unlock_irqrestore(&conn->lock, flags);
	if (!busy)
		return false;
	memset(&conn->abort.req, 0, sizeof(conn->abort.req));
	conn->abort.req.cmd = PVCALLS_RELEASE;
	conn->abort.req.u.release.id = conn->id;
	conn->abort.class = XL_SHORT;
	conn->abort.announce = false;
	conn->abort.done = xl_conn_abort_done;
	xl_cmd_submit(&conn->abort);
	return true;
}

/* Consumes a reference. */
static void xl_conn_release(struct xl_conn *conn)
{
	memset(&conn->cmd.req, 0, sizeof(conn->cmd.req));
	conn->cmd.req.cmd = PVCALLS_RELEASE;
	conn->cmd.req.u.release.id = conn->id;
	conn->cmd.req.u.release.reuse = READ_ONCE(xl.n_idle) <
						READ_ONCE(xl_idle_rings) &&
					!READ_ONCE(conn->dead);
	conn->cmd.class = XL_SHORT;
	conn->cmd.announce = false;
	conn->cmd.done = xl_conn_released;
	xl_cmd_submit(&conn->cmd);
}

/* Nothing more to wait for?  Then 'conn' can be released. */
static bool xl_conn_drained(struct xl_conn *conn)
{
	return READ_ONCE(conn->dead) || xl_conn_error(conn) ||
	       !xl_conn_unsent(conn);
}

static void xl_conn_drain(struct work_struct *work)
{
	struct xl_conn *conn =
		container_of(to_delayed_work(work), struct xl_conn, drain);

	if (!xl_conn_drained(conn)) {
		if (time_before(jiffies, conn->drain_until)) {
			/* Often at first, seldom later. */
			unsigned long age = jiffies + xl_drain_seconds * HZ -
					    conn->drain_until;

			queue_delayed_work(xl.wq, &conn->drain,
					   clamp(age / 4, 1UL, HZ / 10UL));
			return;
		}
		xl_count(XL_N_DRAIN_TIMEOUT);
	}
	xl_conn_release(conn);
}

/*
 * Ends a connection that stood.  What was written is drained in the background
 * unless 'abort'.  Consumes the caller's reference; 'conn' is detached.
 */
void xl_conn_close(struct xl_conn *conn, bool abort)
{
	if (conn->cmd_busy && xl_conn_abort(conn))
		return;
	if (abort || xl_conn_drained(conn)) {
		xl_conn_release(conn);
		return;
	}
	conn->drain_until = jiffies + READ_ONCE(xl_drain_seconds) * HZ;
	queue_delayed_work(xl.wq, &conn->drain, 1);
}

/*
 * Ends a ring whose CONNECT or ACCEPT was answered with an error: the backend
 * has forgotten it, or will after RELEASE of an id it does not know.
 */
void xl_conn_discard(struct xl_conn *conn)
{
	xl_conn_release(conn);
}

/* Gives back a ring that was not used for anything.  Any context. */
void xl_conn_recycle(struct xl_conn *conn)
{
	xl_conn_retire(conn, true);
}

/* The device is gone.  Every stream ends with ECONNRESET. */
void xl_conn_kill_all(void)
{
	struct xl_conn *conn;
	unsigned long flags;

	spin_lock_irqsave(&xl.lock, flags);
	list_for_each_entry(conn, &xl.conns, all) {
		/* A CONNECT that was not sent yet is for the next backend. */
		if (conn->cmd_busy && conn->cmd.queued)
			continue;
		xl_conn_kill(conn, NULL);
		spin_lock(&conn->lock);
		if (conn->xs) {
			xl_conn_check(conn, conn->xs->sk);
			xl_wake(conn->xs, EPOLLIN | EPOLLOUT | EPOLLRDNORM |
						  EPOLLWRNORM | EPOLLERR |
						  EPOLLHUP);
		}
		spin_unlock(&conn->lock);
	}
	spin_unlock_irqrestore(&xl.lock, flags);
}

/* Frees the idle rings. */
void xl_conn_drop_idle(void)
{
	struct xl_conn *conn, *next;
	unsigned long flags;
	LIST_HEAD(idle);

	spin_lock_irqsave(&xl.lock, flags);
	list_splice_init(&xl.idle, &idle);
	xl.n_idle = 0;
	spin_unlock_irqrestore(&xl.lock, flags);
	list_for_each_entry_safe(conn, next, &idle, node) {
		list_del_init(&conn->node);
		xl_conn_put(conn);
	}
}
