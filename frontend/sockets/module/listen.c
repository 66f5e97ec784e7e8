// SPDX-License-Identifier: GPL-2.0-only
/*
 * bind(), listen(), accept(), and the module's own table of listeners.
 *
 * Theory of operation
 * ===================
 *
 * A listener on the wildcard address exists twice: as the native TCP socket it
 * always was, for the guest itself, and as an id at the backend, for the rest
 * of the world.  accept() takes from both.  A listener on an address that the
 * guest does not have exists at the backend only.
 *
 * The table holds what is needed to make the backend's half again: address and
 * backlog.  When a new backend connects, every listener of the table is bound
 * and listened for anew under a new id (l->epoch tells for which backend the
 * id is good).
 *
 * ACCEPT is answered when a connection has come and holds one of the 32 slots
 * of the command ring until then.  So listeners come in two kinds:
 *
 *   resident   has an ACCEPT parked all the time.  All are, as long as there
 *              are no more than N_RESIDENT: so many may wait for ever
 *   rotating   if there are more: stands in line for a slot with a POLL, which
 *              costs the backend nothing and which it ends after a quarter of
 *              a second if others wait; only when POLL says that a connection
 *              is there, ACCEPT follows
 *
 * Either way one command per listener is under way at most, and
 * xl_listener_work() decides what the next one is.  Connections that came wait
 * in l->queue for accept(), at most as many as the backlog.
 *
 * Life: xl_listener_close() takes a listener out of the table and off its
 * socket; after that only its work item owns it, which frees it once the last
 * command is answered.
 */
#include <linux/ipv6.h>
#include <linux/slab.h>
#include <net/inet_connection_sock.h>
#include <net/inet_common.h>
#include <net/tcp.h>

#include "xenlift_sock.h"

#define N_RESIDENT 16
#define MAX_QUEUE 128
#define RETRY (HZ) /* after an error of the backend */

struct xl_listener {
	struct list_head node; /* xl.listeners */
	struct sockaddr_in addr;
	struct delayed_work work;

	struct mutex reg; /* the next four */
	u64 id;
	u32 epoch; /* backend that knows 'id'; 0: none */
	bool listening; /* at that backend */
	bool counted; /* in xl.n_listening; under xl.table */

	spinlock_t lock; /* the rest */
	struct xl_sock *xs; /* NULL: closed */
	int backlog; /* < 0: bound only */
	bool busy; /* a command is under way */
	bool ready; /* POLL said so */
	struct list_head queue; /* connections, by ->node */
	unsigned int n_queue;
	struct xl_conn *spare; /* ring for the next ACCEPT */
	struct xl_cmd poll;
};

static void xl_listener_work(struct work_struct *work);

/* Any context. */
static void xl_listener_kick(struct xl_listener *l, unsigned long delay)
{
	if (delay)
		queue_delayed_work(xl.wq, &l->work, delay);
	else
		mod_delayed_work(xl.wq, &l->work, 0);
}

bool xl_listener_ready(const struct xl_listener *l)
{
	return !list_empty_careful(&l->queue);
}

/* A new listener of 'xs' in the table, not known to any backend yet. */
static struct xl_listener *xl_listener_new(struct xl_sock *xs,
					   const struct sockaddr_in *addr)
{
	struct xl_listener *l = kzalloc(sizeof(*l), GFP_KERNEL);

	if (!l)
		return NULL;
	l->addr.sin_family = AF_INET;
	l->addr.sin_addr = addr->sin_addr;
	l->addr.sin_port = addr->sin_port;
	l->xs = xs;
	l->backlog = -1;
	mutex_init(&l->reg);
	spin_lock_init(&l->lock);
	INIT_LIST_HEAD(&l->queue);
	INIT_LIST_HEAD(&l->node);
	INIT_DELAYED_WORK(&l->work, xl_listener_work);
	mutex_lock(&xl.table);
	list_add_tail(&l->node, &xl.listeners);
	xl.n_listeners++;
	mutex_unlock(&xl.table);
	return l;
}

/* Errors that mean "no backend now", not "no". */
static bool xl_is_offline(int err)
{
	return err == -ENETUNREACH || err == -ECONNRESET || err == -ETIMEDOUT;
}

/*
 * Makes the backend know the listener as far as the program has got with it.
 * Under l->reg.  0 or what the backend says.
 */
static int xl_listener_register(struct xl_listener *l)
{
	struct pvcalls_request req;
	u32 epoch = READ_ONCE(xl.epoch);
	int backlog, err;

	if (!READ_ONCE(xl.connected))
		return -ENETUNREACH;
	if (l->epoch != epoch) {
		l->listening = false;
		l->epoch = 0;
		l->id = xl_cmd_new_id();
		memset(&req, 0, sizeof(req));
		req.cmd = PVCALLS_BIND;
		req.u.bind.id = l->id;
		memcpy(req.u.bind.addr, &l->addr, sizeof(l->addr));
		req.u.bind.len = sizeof(l->addr);
		err = xl_cmd_call(&req, true);
		if (err) {
			/* Also if nobody waited for the answer. */
			xl_cmd_release_id(l->id);
			return err;
		}
		l->epoch = epoch;
	}
	backlog = READ_ONCE(l->backlog);
	if (backlog < 0 || l->listening)
		return 0;
	memset(&req, 0, sizeof(req));
	req.cmd = PVCALLS_LISTEN;
	req.u.listen.id = l->id;
	req.u.listen.backlog = backlog;
	err = xl_cmd_call(&req, false);
	if (!err)
		l->listening = true;
	return err;
}

/* Under l->reg. */
static void xl_listener_unregister(struct xl_listener *l)
{
	if (l->epoch && l->epoch == READ_ONCE(xl.epoch))
		xl_cmd_release_id(l->id);
	l->epoch = 0;
	l->listening = false;
}

/* The socket is gone, or never got that far.  May sleep. */
void xl_listener_close(struct xl_listener *l)
{
	unsigned long flags;

	mutex_lock(&xl.table);
	list_del_init(&l->node);
	if (l->counted)
		xl.n_listening--;
	mutex_unlock(&xl.table);
	/* Now, not in the work: a program that binds the port again at once
	 * must find its BIND behind this RELEASE. */
	mutex_lock(&l->reg);
	xl_listener_unregister(l);
	spin_lock_irqsave(&l->lock, flags);
	l->xs = NULL;
	spin_unlock_irqrestore(&l->lock, flags);
	mutex_unlock(&l->reg);
	xl_listener_kick(l, 0);
}

/* A new backend is connected: all listeners to it. */
void xl_listener_kick_all(void)
{
	struct xl_listener *l;

	mutex_lock(&xl.table);
	list_for_each_entry(l, &xl.listeners, node)
		xl_listener_kick(l, 0);
	mutex_unlock(&xl.table);
}

/* --- the commands of a listening socket ------------------------------------ */

/* The answer to an ACCEPT.  Interrupts are off. */
static void xl_accept_done(struct xl_cmd *cmd)
{
	struct xl_conn *conn = container_of(cmd, struct xl_conn, cmd);
	struct xl_listener *l = conn->listener;
	int ret = cmd->ret;
	bool closed;

	spin_lock(&l->lock);
	l->ready = false;
	closed = !l->xs;
	if (!ret && !closed) {
		list_add_tail(&conn->node, &l->queue);
		l->n_queue++;
		xl_count(XL_N_ACCEPT);
		xl_wake(l->xs, EPOLLIN | EPOLLRDNORM);
	} else if (ret) {
		l->spare = conn; /* The ring was not used. */
	}
	spin_unlock(&l->lock);
	if (!ret && closed)
		xl_conn_close(conn, true);
	spin_lock(&l->lock);
	l->busy = false;
	xl_listener_kick(l, !ret || ret == -EAGAIN || closed ? 0 : RETRY);
	spin_unlock(&l->lock);
}

static void xl_poll_done(struct xl_cmd *cmd)
{
	struct xl_listener *l = container_of(cmd, struct xl_listener, poll);
	int ret = cmd->ret;

	spin_lock(&l->lock);
	l->busy = false;
	l->ready = !ret;
	xl_listener_kick(l, !ret || ret == -EAGAIN || !l->xs ? 0 : RETRY);
	spin_unlock(&l->lock);
}

static int xl_listener_submit_accept(struct xl_listener *l)
{
	struct xl_conn *conn = l->spare;
	struct pvcalls_request *req;

	l->spare = NULL;
	if (conn && (READ_ONCE(conn->dead) || conn->epoch != xl.epoch)) {
		xl_conn_recycle(conn);
		conn = NULL;
	}
	if (conn) {
		conn->id = xl_cmd_new_id();
	} else {
		conn = xl_conn_get_ring();
		if (IS_ERR(conn))
			return PTR_ERR(conn);
	}
	conn->listener = l;
	req = &conn->cmd.req;
	memset(req, 0, sizeof(*req));
	req->cmd = PVCALLS_ACCEPT;
	req->u.accept.id = l->id;
	req->u.accept.id_new = conn->id;
	req->u.accept.ref = conn->gref[conn->n_pages];
	req->u.accept.evtchn = conn->evtchn;
	conn->cmd.class = XL_PARKED;
	conn->cmd.announce = false;
	conn->cmd.done = xl_accept_done;
	xl_cmd_submit(&conn->cmd);
	return 0;
}

static void xl_listener_submit_poll(struct xl_listener *l)
{
	memset(&l->poll.req, 0, sizeof(l->poll.req));
	l->poll.req.cmd = PVCALLS_POLL;
	l->poll.req.u.poll.id = l->id;
	l->poll.class = XL_PARKED;
	l->poll.done = xl_poll_done;
	xl_cmd_submit(&l->poll);
}

/* The end of a closed listener, when no command is under way. */
static void xl_listener_bury(struct xl_listener *l)
{
	struct xl_conn *conn, *next;

	list_for_each_entry_safe(conn, next, &l->queue, node) {
		list_del_init(&conn->node);
		xl_conn_close(conn, true);
	}
	if (l->spare)
		xl_conn_recycle(l->spare);
	kfree(l);
	mutex_lock(&xl.table);
	xl.n_listeners--;
	mutex_unlock(&xl.table);
	wake_up_all(&xl.changed);
}

/* Decides on the next command.  The only place that does. */
static void xl_listener_work(struct work_struct *work)
{
	struct xl_listener *l =
		container_of(to_delayed_work(work), struct xl_listener, work);
	bool closed, go, ready, busy;
	int limit, err;

	mutex_lock(&l->reg);
	spin_lock_irq(&l->lock);
	closed = !l->xs;
	busy = l->busy;
	spin_unlock_irq(&l->lock);
	if (closed) {
		mutex_unlock(&l->reg);
		if (!busy)
			xl_listener_bury(l);
		/* Else RELEASE ends the command, and that brings us back. */
		return;
	}
	err = xl_listener_register(l);
	if (err) {
		/* Offline: the next backend kicks us. */
		if (xl_is_offline(err))
			goto out;
		pr_warn_ratelimited(
			"xenlift_sock: port %u is not listened for: %d\n",
			ntohs(l->addr.sin_port), err);
		xl_listener_kick(l, RETRY);
		goto out;
	}
	spin_lock_irq(&l->lock);
	limit = clamp(l->backlog, 1, MAX_QUEUE);
	go = l->backlog >= 0 && !l->busy && l->n_queue < limit;
	if (go)
		l->busy = true;
	ready = l->ready;
	spin_unlock_irq(&l->lock);
	if (!go)
		goto out;
	if (!ready && READ_ONCE(xl.n_listening) > N_RESIDENT) {
		/* Others have more use for an idle ring. */
		if (l->spare)
			xl_conn_recycle(l->spare);
		l->spare = NULL;
		xl_listener_submit_poll(l);
	} else if (xl_listener_submit_accept(l)) {
		spin_lock_irq(&l->lock);
		l->busy = false;
		spin_unlock_irq(&l->lock);
		xl_listener_kick(l, RETRY);
	}
out:
	mutex_unlock(&l->reg);
}

/* --- bind() and listen() ------------------------------------------------------ */

/* Under xs->op.  A listener at the backend, known there if there is one. */
static int xl_listener_create(struct xl_sock *xs,
			      const struct sockaddr_in *addr)
{
	struct xl_listener *l = xl_listener_new(xs, addr);
	int err;

	if (!l)
		return -ENOMEM;
	mutex_lock(&l->reg);
	err = xl_listener_register(l);
	mutex_unlock(&l->reg);
	if (err && !xl_is_offline(err)) {
		xl_listener_close(l);
		return err;
	}
	xs->listener = l;
	return 0;
}

static void xl_listener_drop(struct xl_sock *xs)
{
	struct xl_listener *l = xs->listener;

	xs->listener = NULL;
	if (l)
		xl_listener_close(l);
}

static int xl_bind_lifted(struct xl_sock *xs, const struct sockaddr_in *sin,
			  struct sockaddr *addr, int len, bool both)
{
	int err;

	mutex_lock(&xs->op);
	err = -EINVAL;
	if (xl_sock_state(xs) != XL_IDLE || xs->listener)
		goto out;
	err = xl_listener_create(xs, sin);
	if (err)
		goto out;
	if (both) {
		err = xl_native_of(xs->sock)->bind(xs->sock, addr, len);
		if (err) {
			xl_listener_drop(xs);
			goto out;
		}
	} else {
		xs->local.sin_addr = sin->sin_addr;
		xs->local.sin_port = sin->sin_port;
	}
out:
	mutex_unlock(&xs->op);
	return err;
}

int xl_bind(struct socket *sock, struct sockaddr *addr, int len)
{
	struct sock *sk = sock->sk;
	struct sockaddr_in sin;
	struct xl_sock *xs;

	if (inet_sk(sk)->inet_num || !xl_addr_get(sk, addr, len, &sin))
		goto native;
	switch (xl_side_of(sock_net(sk), sin.sin_addr.s_addr)) {
	case XL_SIDE_LOCAL:
		xl_sock_give_back(sock);
		goto native;
	case XL_SIDE_BOTH:
		/* Any port will do: which one, listen() tells the backend, and
		 * for connect() it does not matter. */
		if (!sin.sin_port || !READ_ONCE(xl.connected))
			goto native;
		xs = xl_sock_lift(sock);
		if (!xs)
			goto native;
		return xl_bind_lifted(xs, &sin, addr, len, true);
	case XL_SIDE_REMOTE:
		xs = xl_sock_lift(sock);
		if (!xs)
			goto native;
		return xl_bind_lifted(xs, &sin, addr, len, false);
	}
native:
	return xl_native_of(sock)->bind(sock, addr, len);
}

/* Under xs->op.  The first listen(). */
static int xl_listen_start(struct xl_sock *xs, int backlog)
{
	struct sockaddr_in any = {.sin_family = AF_INET};
	struct sockaddr_in6 any6 = {.sin6_family = AF_INET6};
	struct sock *sk = xs->sk;
	bool six = sk->sk_family == AF_INET6;
	bool native = !xs->local.sin_addr.s_addr;
	struct xl_listener *l;
	int err;

	if (native && !inet_sk(sk)->inet_num) {
		err = xl_native_of(xs->sock)->bind(
			xs->sock,
			six ? (struct sockaddr *)&any6 :
			      (struct sockaddr *)&any,
			six ? sizeof(any6) : sizeof(any));
		if (err)
			return err;
	}
	if (!xs->listener) {
		any.sin_port = htons(inet_sk(sk)->inet_num);
		err = xl_listener_create(xs, &any);
		if (err)
			return err;
	}
	l = xs->listener;
	mutex_lock(&l->reg);
	WRITE_ONCE(l->backlog, clamp(backlog, 0, 4096));
	err = xl_listener_register(l);
	if (err && xl_is_offline(err))
		err = 0;
	mutex_unlock(&l->reg);
	if (!err && native)
		err = xl_native_of(xs->sock)->listen(xs->sock, backlog);
	if (err) {
		xl_listener_drop(xs);
		return err;
	}
	mutex_lock(&xl.table);
	l->counted = true;
	xl.n_listening++;
	mutex_unlock(&xl.table);
	if (!native)
		xs->local = l->addr;
	else
		xs->local.sin_port = l->addr.sin_port;
	xl_sock_set_state(xs, XL_LISTENING);
	xl_listener_kick(l, 0);
	return 0;
}

int xl_listen(struct socket *sock, int backlog)
{
	struct xl_sock *xs = xl_sock_of(sock);
	struct sock *sk = sock->sk;
	int err;

	if (!xs) {
		/* Bound to an address of its own, or IPv6 alone: local for
		 * good. */
		if ((inet_sk(sk)->inet_num && inet_sk(sk)->inet_rcv_saddr) ||
		    (sk->sk_family == AF_INET6 && ipv6_only_sock(sk))) {
			xl_sock_give_back(sock);
			goto native;
		}
		if (inet_sk_state_load(sk) != TCP_CLOSE)
			goto native;
		xs = xl_sock_lift(sock);
		if (!xs)
			goto native;
	}
	mutex_lock(&xs->op);
	switch (xl_sock_state(xs)) {
	case XL_IDLE:
		err = xl_listen_start(xs, backlog);
		break;
	case XL_LISTENING:
		WRITE_ONCE(xs->listener->backlog, clamp(backlog, 0, 4096));
		err = inet_sk_state_load(sk) == TCP_LISTEN ?
			      xl_native_of(sock)->listen(sock, backlog) :
			      0;
		break;
	case XL_LOCAL:
		err = xl_native_of(sock)->listen(sock, backlog);
		break;
	default:
		err = -EINVAL;
	}
	mutex_unlock(&xs->op);
	return err;
native:
	return xl_native_of(sock)->listen(sock, backlog);
}

/* --- accept() --------------------------------------------------------------------- */

static struct xl_conn *xl_listener_pop(struct xl_listener *l)
{
	struct xl_conn *conn;
	bool busy;

	for (;;) {
		spin_lock_irq(&l->lock);
		conn = list_first_entry_or_null(&l->queue, struct xl_conn,
						node);
		if (conn) {
			list_del_init(&conn->node);
			l->n_queue--;
		}
		busy = l->busy;
		spin_unlock_irq(&l->lock);
		if (!conn)
			return NULL;
		if (!busy)
			xl_listener_kick(l, 0);
		if (!READ_ONCE(conn->dead))
			return conn;
		/* Came from a backend that is gone. */
		xl_conn_close(conn, true);
	}
}

static bool xl_native_accept_ready(const struct sock *sk)
{
	return inet_sk_state_load(sk) == TCP_LISTEN &&
	       !reqsk_queue_empty(&inet_csk(sk)->icsk_accept_queue);
}

static bool xl_accept_ready(struct xl_sock *xs)
{
	return xl_listener_ready(xs->listener) ||
	       xl_native_accept_ready(xs->sk);
}

/* Puts a TCP sock of its own below 'newsock', as socket() would. */
static int xl_accept_graft(struct xl_sock *xs, struct socket *newsock)
{
	struct sock *sk, *parent = xs->sk;
	struct socket *tmp;
	int err;

	err = __sock_create(sock_net(parent), parent->sk_family, SOCK_STREAM,
			    IPPROTO_TCP, &tmp, 0);
	if (err)
		return err;
	sk = tmp->sk;
	sock_orphan(sk);
	sock_reset_flag(sk, SOCK_DEAD);
	tmp->sk = NULL;
	sock_release(tmp);

	lock_sock(sk);
	sock_graft(sk, newsock);
	/* What an accepted TCP socket has from its listener. */
	sk->sk_rcvtimeo = parent->sk_rcvtimeo;
	sk->sk_sndtimeo = parent->sk_sndtimeo;
	sk->sk_rcvlowat = parent->sk_rcvlowat;
	sk->sk_lingertime = parent->sk_lingertime;
	sock_valbool_flag(sk, SOCK_LINGER, sock_flag(parent, SOCK_LINGER));
	sock_valbool_flag(sk, SOCK_KEEPOPEN, sock_flag(parent, SOCK_KEEPOPEN));
	release_sock(sk);
	return 0;
}

static int xl_accept_finish(struct xl_sock *xs, struct socket *newsock,
			    struct xl_conn *conn)
{
	struct xl_sock *new;
	int err;

	err = xl_accept_graft(xs, newsock);
	if (err)
		goto fail;
	new = xl_sock_lift(newsock);
	if (!new) {
		err = -ENOBUFS;
		goto fail;
	}
	new->local = xs->local;
	new->conn = conn;
	newsock->state = SS_CONNECTED;
	xl_sock_set_state(new, XL_CONNECTED);
	xl_conn_attach(conn, new);
	return 0;
fail:
	xl_conn_close(conn, true);
	return err;
}

/*
 * accept() of a listener on both sides.  'native' takes from the native queue,
 * without waiting, given 'arg'.
 */
int xl_accept_lifted(struct xl_sock *xs, struct socket *newsock, int flags,
		     int (*native)(struct socket *sock, struct socket *newsock,
				   void *arg),
		     void *arg)
{
	long timeo = sock_rcvtimeo(xs->sk, flags & O_NONBLOCK);
	int err;

	for (;;) {
		struct xl_conn *conn = xl_listener_pop(xs->listener);

		if (conn)
			return xl_accept_finish(xs, newsock, conn);
		if (xl_native_accept_ready(xs->sk)) {
			err = native(xs->sock, newsock, arg);
			if (err != -EAGAIN)
				return err;
		}
		if (!timeo)
			return -EAGAIN;
		timeo = xl_wait(xs, xl_accept_ready, timeo);
		if (!xl_accept_ready(xs) && signal_pending(current))
			return sock_intr_errno(timeo);
	}
}
