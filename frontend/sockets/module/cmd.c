// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command ring: 32 slots, answered in any order, one event channel.
 *
 * Theory of operation
 * ===================
 *
 * A request keeps its slot until it is answered, and three of the commands may
 * be answered late: CONNECT (up to minutes), ACCEPT and POLL (perhaps never).
 * So that none of them stops the others, the slots are given out by class:
 *
 *   XL_PARKED    ACCEPT and POLL.  At most PVCALLS_MAX_PARKED, and only while
 *                RESERVE_SHORT + RESERVE_CONNECT slots stay free.  Waits in
 *                line; POLLs come back after a quarter of a second, which
 *                makes the line a rotation.
 *   XL_CONNECTS  CONNECT.  Must leave RESERVE_SHORT slots free.  If they wait,
 *                parked commands are held to PARKED_MIN, and a CONNECT that is
 *                EVICT_AFTER old is given up (RELEASE) with ETIMEDOUT: dozens
 *                of addresses that do not answer must not stop all others for
 *                the minutes that TCP tries.
 *   XL_SHORT     everything else: answered at once, takes any slot.
 *
 * A request id is a slot number and that slot's generation: ids of late
 * answers cannot meet a newer request.  An answer must repeat id, command and
 * socket id of the request in that slot; anything else resets the device.
 *
 * A CONNECT or BIND is preceded by SOCKET in the same notification.  Nobody
 * waits for the answer of that one: if SOCKET fails, so does what follows.
 */
#include <linux/completion.h>
#include <linux/ktime.h>
#include <linux/slab.h>

#include "xenlift_sock.h"

#define RESERVE_SHORT 4
#define RESERVE_CONNECT 4
#define PARKED_MIN 4
#define EVICT_AFTER (10 * HZ)

struct xl_slot {
	struct xl_cmd *cmd; /* NULL for SOCKET */
	u64 id;
	u32 gen;
	u32 kind;
	enum xl_class class;
	bool busy;
	bool evicted; /* a CONNECT that was given up */
	unsigned long since;
};

/* All under xl.lock. */
static struct {
	struct pvcalls_sring *ring; /* NULL: not connected */
	u32 req_prod;
	u32 req_pushed;
	u32 rsp_cons;
	unsigned int n_busy;
	unsigned int n_class[XL_N_CLASSES];
	struct xl_slot slot[PVCALLS_N_SLOTS];
	struct list_head queue[XL_N_CLASSES];
	u64 next_id;
} ring;

static void xl_cmd_expire(struct work_struct *work);
static DECLARE_DELAYED_WORK(xl_cmd_expiry, xl_cmd_expire);
static void xl_cmd_evict(struct work_struct *work);
static DECLARE_DELAYED_WORK(xl_cmd_eviction, xl_cmd_evict);

/* A socket id that was never used before: an answer to an old one is known. */
u64 xl_cmd_new_id(void)
{
	unsigned long flags;
	u64 id;

	spin_lock_irqsave(&xl.lock, flags);
	id = ++ring.next_id;
	spin_unlock_irqrestore(&xl.lock, flags);
	return id;
}

static u64 xl_cmd_id(const struct pvcalls_request *req)
{
	return req->u.poll.id; /* the same place in all commands */
}

static void xl_cmd_put(struct pvcalls_request *req, struct xl_cmd *cmd,
		       enum xl_class class)
{
	unsigned int i = 0;
	struct xl_slot *slot;

	while (ring.slot[i].busy)
		i++; /* callers checked that one is free */
	slot = &ring.slot[i];
	slot->cmd = cmd;
	slot->gen++;
	slot->kind = req->cmd;
	slot->id = xl_cmd_id(req);
	slot->class = class;
	slot->busy = true;
	slot->evicted = false;
	slot->since = jiffies;
	ring.n_busy++;
	ring.n_class[class]++;
	req->req_id = slot->gen * PVCALLS_N_SLOTS + i;
	pvcalls_request_put(ring.ring, ring.req_prod, req);
	ring.req_prod++;
}

static bool xl_cmd_fits(const struct xl_cmd *cmd)
{
	unsigned int need = cmd->announce ? 2 : 1;
	unsigned int n_free = PVCALLS_N_SLOTS - ring.n_busy;
	unsigned int n_parked = ring.n_class[XL_PARKED];

	switch (cmd->class) {
	case XL_SHORT:
		return n_free >= need;
	case XL_CONNECTS:
		return n_free >= need + RESERVE_SHORT;
	default:
		if (n_parked < PARKED_MIN)
			return n_free >= need + RESERVE_SHORT;
		return n_parked < PVCALLS_MAX_PARKED &&
		       list_empty(&ring.queue[XL_CONNECTS]) &&
		       n_free >= need + RESERVE_SHORT + RESERVE_CONNECT;
	}
}

static void xl_cmd_push(struct xl_cmd *cmd)
{
	if (cmd->announce) {
		struct pvcalls_request socket = {.cmd = PVCALLS_SOCKET};

		socket.u.socket.id = xl_cmd_id(&cmd->req);
		socket.u.socket.domain = AF_INET;
		socket.u.socket.type = SOCK_STREAM;
		xl_cmd_put(&socket, NULL, XL_SHORT);
	}
	xl_cmd_put(&cmd->req, cmd, cmd->class);
}

/* Sends what waits and fits.  Returns true if the backend must be told. */
static bool xl_cmd_pump_locked(void)
{
	static const enum xl_class order[] = {
		XL_SHORT,
		XL_CONNECTS,
		XL_PARKED,
	};
	unsigned int i;
	u32 old = ring.req_pushed;

	if (!ring.ring)
		return false;
	for (i = 0; i < ARRAY_SIZE(order); i++) {
		struct list_head *queue = &ring.queue[order[i]];

		while (!list_empty(queue)) {
			struct xl_cmd *cmd =
				list_first_entry(queue, struct xl_cmd, node);

			if (!xl_cmd_fits(cmd)) {
				if (cmd->class == XL_CONNECTS)
					queue_delayed_work(
						xl.wq, &xl_cmd_eviction, HZ);
				break;
			}
			list_del_init(&cmd->node);
			cmd->queued = false;
			xl_cmd_push(cmd);
		}
	}
	if (ring.req_prod == old)
		return false;
	ring_publish(&ring.ring->req_prod, ring.req_prod);
	ring.req_pushed = ring.req_prod;
	ring_mb();
	return ring_must_notify(ring_fetch(&ring.ring->req_event),
				ring.req_prod, old);
}

/* CONNECTs wait for a slot: gives up the one that has been tried longest. */
static void xl_cmd_evict(struct work_struct *work)
{
	struct pvcalls_request req = {.cmd = PVCALLS_RELEASE};
	struct xl_slot *slot, *oldest = NULL;

	spin_lock_irq(&xl.lock);
	if (!ring.ring || list_empty(&ring.queue[XL_CONNECTS]))
		goto out;
	queue_delayed_work(xl.wq, &xl_cmd_eviction, HZ);
	for (slot = ring.slot; slot < ring.slot + PVCALLS_N_SLOTS; slot++) {
		if (slot->busy && slot->class == XL_CONNECTS &&
		    !slot->evicted &&
		    (!oldest || time_before(slot->since, oldest->since)))
			oldest = slot;
	}
	if (!oldest || ring.n_busy == PVCALLS_N_SLOTS ||
	    time_before(jiffies, oldest->since + EVICT_AFTER))
		goto out;
	oldest->evicted = true;
	req.u.release.id = oldest->id;
	xl_cmd_put(&req, NULL, XL_SHORT);
	if (xl_cmd_pump_locked())
		xl_bus_notify();
out:
	spin_unlock_irq(&xl.lock);
}

/*
 * Sends 'cmd', now or when there is room.  Without a device it fails at once;
 * while the device is being (re)connected it waits for up to wait_seconds.
 * Any context.
 */
void xl_cmd_submit(struct xl_cmd *cmd)
{
	unsigned long flags;
	bool refused = false;

	cmd->submitted = jiffies;
	spin_lock_irqsave(&xl.lock, flags);
	if (!xl.xdev || (!xl.connected && cmd->class != XL_CONNECTS)) {
		refused = true;
	} else {
		cmd->queued = true;
		list_add_tail(&cmd->node, &ring.queue[cmd->class]);
		if (xl_cmd_pump_locked())
			xl_bus_notify();
		if (!ring.ring)
			mod_delayed_work(xl.wq, &xl_cmd_expiry,
					 xl_wait_seconds * HZ);
	}
	spin_unlock_irqrestore(&xl.lock, flags);
	if (refused) {
		local_irq_save(flags);
		cmd->ret = -ENETUNREACH;
		cmd->done(cmd);
		local_irq_restore(flags);
	}
}

/* Takes 'cmd' back if it was not sent yet: then 'done' is not called. */
bool xl_cmd_cancel(struct xl_cmd *cmd)
{
	unsigned long flags;
	bool queued;

	spin_lock_irqsave(&xl.lock, flags);
	queued = cmd->queued;
	if (queued) {
		list_del_init(&cmd->node);
		cmd->queued = false;
	}
	spin_unlock_irqrestore(&xl.lock, flags);
	return queued;
}

static void xl_cmd_finish(struct list_head *done)
{
	struct xl_cmd *cmd, *next;

	list_for_each_entry_safe(cmd, next, done, node) {
		list_del_init(&cmd->node);
		cmd->done(cmd);
	}
}

/* Nobody connected for so long: what waits for a device fails. */
static void xl_cmd_expire(struct work_struct *work)
{
	unsigned long flags;
	struct xl_cmd *cmd;
	LIST_HEAD(done);

	spin_lock_irqsave(&xl.lock, flags);
	if (!ring.ring)
		list_splice_init(&ring.queue[XL_CONNECTS], &done);
	list_for_each_entry(cmd, &done, node) {
		cmd->queued = false;
		cmd->ret = -ENETUNREACH;
	}
	spin_unlock(&xl.lock);
	xl_cmd_finish(&done);
	local_irq_restore(flags);
}

/* What a backend may answer, as a number that a program may see. */
static int xl_cmd_errno(s32 ret)
{
	if (ret == 0)
		return 0;
	if (ret == -PVCALLS_ENOTSUPP)
		return -EOPNOTSUPP;
	/* 512 and above are the kernel's own: they must not leave it. */
	if (ret > 0 || ret <= -512)
		return -EPROTO;
	return ret;
}

/* Takes one answer.  Returns a reason if it is none. */
static const char *xl_cmd_take(const struct pvcalls_response *rsp,
			       struct list_head *done)
{
	struct xl_slot *slot = &ring.slot[rsp->req_id % PVCALLS_N_SLOTS];

	if (!slot->busy || rsp->req_id != (u32)(slot->gen * PVCALLS_N_SLOTS +
						(slot - ring.slot)))
		return "answer to no request";
	if (rsp->cmd != slot->kind)
		return "answer to another command";
	if (rsp->id != slot->id)
		return "answer for another socket";
	slot->busy = false;
	ring.n_busy--;
	ring.n_class[slot->class]--;
	if (slot->cmd) {
		slot->cmd->ret = xl_cmd_errno(rsp->ret);
		if (slot->evicted && slot->cmd->ret)
			slot->cmd->ret = -ETIMEDOUT;
		list_add_tail(&slot->cmd->node, done);
	}
	return NULL;
}

/*
 * Takes all answers there are.  Returns false if there were none.  Called by
 * the event channel's handler and by those who spin for an answer.
 */
bool xl_cmd_process(void)
{
	const char *why = NULL;
	unsigned long flags;
	bool any = false;
	LIST_HEAD(done);
	u32 prod;

	spin_lock_irqsave(&xl.lock, flags);
	while (ring.ring && !why) {
		struct pvcalls_response rsp;

		prod = ring_fetch(&ring.ring->rsp_prod);
		ring_rmb();
		if (prod == ring.rsp_cons) {
			if (!any)
				break;
			/* Sleep, but look once more behind the barrier. */
			ring_store(&ring.ring->rsp_event, ring.rsp_cons + 1);
			ring_mb();
			if (ring_fetch(&ring.ring->rsp_prod) == ring.rsp_cons)
				break;
			continue;
		}
		if (!ring_is_sane(prod, ring.rsp_cons,
				  ring.req_pushed - ring.rsp_cons)) {
			why = "more answers than requests";
			break;
		}
		while (ring.rsp_cons != prod && !why) {
			pvcalls_response_fetch(&rsp, ring.ring, ring.rsp_cons);
			ring.rsp_cons++;
			why = xl_cmd_take(&rsp, &done);
		}
		ring_mb();
		any = true;
	}
	if (why) {
		xl_count(XL_N_BAD_RESPONSE);
		ring.ring = NULL; /* Not another look at it. */
	} else if (any && xl_cmd_pump_locked()) {
		xl_bus_notify();
	}
	spin_unlock(&xl.lock);
	xl_cmd_finish(&done);
	local_irq_restore(flags);
	if (why)
		xl_bus_fatal(why);
	return any;
}

/* 'page' was zeroed and published to a backend that is connected now. */
void xl_cmd_start(struct pvcalls_sring *page)
{
	unsigned long flags;

	spin_lock_irqsave(&xl.lock, flags);
	ring.req_prod = 0;
	ring.req_pushed = 0;
	ring.rsp_cons = 0;
	ring.ring = page;
	if (xl_cmd_pump_locked())
		xl_bus_notify();
	spin_unlock_irqrestore(&xl.lock, flags);
}

/*
 * The backend is gone: everything that was sent fails with 'error'.  CONNECTs
 * that were not sent yet stay in line for the next backend, if there will be
 * one (xl.xdev).
 */
void xl_cmd_stop(int error)
{
	unsigned long flags;
	struct xl_cmd *cmd;
	unsigned int i;
	LIST_HEAD(done);

	spin_lock_irqsave(&xl.lock, flags);
	ring.ring = NULL;
	for (i = 0; i < PVCALLS_N_SLOTS; i++) {
		struct xl_slot *slot = &ring.slot[i];

		if (slot->busy && slot->cmd)
			list_add_tail(&slot->cmd->node, &done);
		slot->busy = false;
		slot->gen++;
	}
	ring.n_busy = 0;
	memset(ring.n_class, 0, sizeof(ring.n_class));
	list_splice_tail_init(&ring.queue[XL_SHORT], &done);
	list_splice_tail_init(&ring.queue[XL_PARKED], &done);
	if (!xl.xdev)
		list_splice_tail_init(&ring.queue[XL_CONNECTS], &done);
	else if (!list_empty(&ring.queue[XL_CONNECTS]))
		mod_delayed_work(xl.wq, &xl_cmd_expiry, xl_wait_seconds * HZ);
	list_for_each_entry(cmd, &done, node) {
		cmd->queued = false;
		cmd->ret = error;
	}
	spin_unlock(&xl.lock);
	xl_cmd_finish(&done);
	local_irq_restore(flags);
	if (!xl.xdev) {
		cancel_delayed_work_sync(&xl_cmd_expiry);
		cancel_delayed_work_sync(&xl_cmd_eviction);
	}
}

/* --- commands that nobody embeds ------------------------------------------ */

/* A command that one caller waits for.  The answer may outlive the caller. */
struct xl_call {
	struct xl_cmd cmd;
	struct completion complete;
	refcount_t ref;
};

static void xl_call_put(struct xl_call *call)
{
	if (refcount_dec_and_test(&call->ref))
		kfree(call);
}

static void xl_call_done(struct xl_cmd *cmd)
{
	struct xl_call *call = container_of(cmd, struct xl_call, cmd);

	complete(&call->complete);
	xl_call_put(call);
}

/*
 * Sends 'req', after a SOCKET if 'announce', and waits for the answer.  Meant
 * for BIND and LISTEN, which take no time; -EINTR if the program is killed.
 */
int xl_cmd_call(const struct pvcalls_request *req, bool announce)
{
	struct xl_call *call = kzalloc(sizeof(*call), GFP_KERNEL);
	long left;
	u64 end;
	int err;

	if (!call)
		return -ENOMEM;
	call->cmd.req = *req;
	call->cmd.announce = announce;
	call->cmd.class = XL_SHORT;
	call->cmd.done = xl_call_done;
	init_completion(&call->complete);
	refcount_set(&call->ref, 2);
	xl_cmd_submit(&call->cmd);
	end = ktime_get_ns() + xl_spin_limit_ns();
	while (!completion_done(&call->complete) && ktime_get_ns() < end) {
		xl_cmd_process();
		cpu_relax();
	}
	left = wait_for_completion_killable_timeout(&call->complete, 30 * HZ);
	if (left > 0)
		err = call->cmd.ret;
	else
		err = left ? -EINTR : -ETIMEDOUT;
	xl_call_put(call);
	return err;
}

static void xl_release_done(struct xl_cmd *cmd)
{
	kfree(cmd);
}

/* Sends RELEASE for an id that has no ring and forgets it.  Any context. */
void xl_cmd_release_id(u64 id)
{
	struct xl_cmd *cmd = kzalloc(sizeof(*cmd), GFP_ATOMIC);

	if (!cmd)
		return; /* The backend forgets it with the device. */
	cmd->req.cmd = PVCALLS_RELEASE;
	cmd->req.u.release.id = id;
	cmd->class = XL_SHORT;
	cmd->done = xl_release_done;
	xl_cmd_submit(cmd);
}

void xl_cmd_init(void)
{
	unsigned int i;

	for (i = 0; i < XL_N_CLASSES; i++)
		INIT_LIST_HEAD(&ring.queue[i]);
}
