// SPDX-License-Identifier: GPL-2.0-only
/*
 * connect(), getsockname(), getpeername(), and the question whose an address
 * is.
 *
 * PV Calls answers CONNECT when the connection stands or has failed, and knows
 * no "in progress"; blocking or not is therefore decided here alone.  A
 * CONNECT that is not finished when its program closes the socket is aborted
 * by RELEASE.
 */
#include <linux/inetdevice.h>
#include <linux/ipv6.h>
#include <net/inet_common.h>
#include <net/ipv6.h>
#include <net/route.h>
#include <net/tcp.h>

#include "xenlift_sock.h"

/*
 * The IPv4 address that a program means by 'addr'.  False if it is none: the
 * native code deals with it.  An AF_INET6 socket means IPv4 by a mapped
 * address, and, unless it is for IPv6 only, also by the wildcard address.
 */
bool xl_addr_get(const struct sock *sk, const struct sockaddr *addr, int len,
		 struct sockaddr_in *ret)
{
	const struct sockaddr_in6 *sin6 = (const struct sockaddr_in6 *)addr;

	memset(ret, 0, sizeof(*ret));
	ret->sin_family = AF_INET;
	if (sk->sk_family == AF_INET) {
		const struct sockaddr_in *sin =
			(const struct sockaddr_in *)addr;

		if (len < sizeof(*sin) || sin->sin_family != AF_INET)
			return false;
		ret->sin_addr = sin->sin_addr;
		ret->sin_port = sin->sin_port;
		return true;
	}
	if (len < SIN6_LEN_RFC2133 || sin6->sin6_family != AF_INET6 ||
	    ipv6_only_sock(sk))
		return false;
	if (ipv6_addr_v4mapped(&sin6->sin6_addr))
		ret->sin_addr.s_addr = sin6->sin6_addr.s6_addr32[3];
	else if (!ipv6_addr_any(&sin6->sin6_addr))
		return false;
	ret->sin_port = sin6->sin6_port;
	return true;
}

/* The other way round; returns the length. */
int xl_addr_put(const struct sock *sk, struct sockaddr *addr,
		const struct sockaddr_in *sin)
{
	struct sockaddr_in6 *sin6 = (struct sockaddr_in6 *)addr;

	if (sk->sk_family == AF_INET) {
		memcpy(addr, sin, sizeof(*sin));
		addr->sa_family = AF_INET;
		return sizeof(*sin);
	}
	memset(sin6, 0, sizeof(*sin6));
	sin6->sin6_family = AF_INET6;
	sin6->sin6_port = sin->sin_port;
	ipv6_addr_set_v4mapped(sin->sin_addr.s_addr, &sin6->sin6_addr);
	return sizeof(*sin6);
}

/*
 * Who serves 'addr': the guest's own stack, the backend, or, for the wildcard
 * address of a listener, both.
 */
enum xl_side xl_side_of(struct net *net, __be32 addr)
{
	if (addr == htonl(INADDR_ANY))
		return XL_SIDE_BOTH;
	if (ipv4_is_loopback(addr) || ipv4_is_multicast(addr) ||
	    ipv4_is_lbcast(addr) || xl_addr_is_native(addr) ||
	    !xl_bus_present())
		return XL_SIDE_LOCAL;
	/* Own addresses, and broadcast addresses of own networks. */
	return inet_addr_type(net, addr) == RTN_UNICAST ? XL_SIDE_REMOTE :
							  XL_SIDE_LOCAL;
}

/* The answer to a CONNECT.  Interrupts are off. */
static void xl_connect_done(struct xl_cmd *cmd)
{
	struct xl_conn *conn = container_of(cmd, struct xl_conn, cmd);
	struct xl_sock *xs;
	int ret = cmd->ret;
	bool aborted;

	spin_lock(&conn->lock);
	conn->cmd_busy = false;
	aborted = conn->aborted;
	xs = conn->xs;
	if (xs) {
		if (ret) {
			WRITE_ONCE(xs->sk->sk_err, -ret);
			WRITE_ONCE(xs->sk->sk_shutdown, SHUTDOWN_MASK);
			xl_sock_set_state(xs, XL_FAILED);
		} else {
			xl_sock_set_state(xs, XL_CONNECTED);
		}
		xl_wake(xs, EPOLLOUT | EPOLLWRNORM |
				    (ret ? EPOLLIN | EPOLLRDNORM | EPOLLERR |
						     EPOLLHUP :
					   0));
	}
	spin_unlock(&conn->lock);
	/* Closed meanwhile, and it stands nevertheless: end it. */
	if (aborted && !ret)
		xl_conn_close(conn, true);
	else
		xl_conn_put(conn); /* the command's reference */
}

static int xl_connect_start(struct xl_sock *xs, const struct sockaddr_in *sin)
{
	struct pvcalls_request *req;
	struct sock *sk = xs->sk;
	struct xl_conn *conn;

	conn = xl_conn_get_ring();
	if (IS_ERR(conn))
		return PTR_ERR(conn);
	xl_count(XL_N_CONNECT);
	WRITE_ONCE(sk->sk_err, 0);
	WRITE_ONCE(sk->sk_shutdown, 0);
	xs->peer = *sin;
	memset(xs->peer.sin_zero, 0, sizeof(xs->peer.sin_zero));
	xs->conn = conn;
	xs->sock->state = SS_CONNECTING;
	xl_sock_set_state(xs, XL_CONNECTING);
	xl_conn_attach(conn, xs);

	req = &conn->cmd.req;
	memset(req, 0, sizeof(*req));
	req->cmd = PVCALLS_CONNECT;
	req->u.connect.id = conn->id;
	memcpy(req->u.connect.addr, &xs->peer, sizeof(xs->peer));
	req->u.connect.len = sizeof(xs->peer);
	req->u.connect.ref = conn->gref[conn->n_pages];
	req->u.connect.evtchn = conn->evtchn;
	conn->cmd.class = XL_CONNECTS;
	conn->cmd.announce = true;
	conn->cmd.done = xl_connect_done;
	conn->cmd_busy = true;
	kref_get(&conn->ref);
	xl_cmd_submit(&conn->cmd);
	return 0;
}

static bool xl_connect_over(struct xl_sock *xs)
{
	if (xl_sock_state(xs) != XL_CONNECTING)
		return true;
	/* Who spins takes the answers, his own among them. */
	xl_cmd_process();
	return xl_sock_state(xs) != XL_CONNECTING;
}

/* Under xs->op.  What connect() says once the answer is there. */
static int xl_connect_finish(struct xl_sock *xs)
{
	struct xl_conn *conn = xs->conn;
	int err;

	if (xl_sock_state(xs) == XL_CONNECTED) {
		xs->sock->state = SS_CONNECTED;
		return 0;
	}
	err = sock_error(xs->sk) ?: -ECONNABORTED;
	xs->conn = NULL;
	xl_conn_detach(conn);
	xl_conn_discard(conn);
	xs->sock->state = SS_UNCONNECTED;
	xl_sock_set_state(xs, XL_IDLE);
	return err;
}

static int xl_connect_lifted(struct xl_sock *xs, const struct sockaddr_in *sin,
			     int flags)
{
	long timeo = sock_sndtimeo(xs->sk, flags & O_NONBLOCK);
	int err;

	mutex_lock(&xs->op);
	switch (xl_sock_state(xs)) {
	case XL_IDLE:
		/* A port bound on both sides is not wanted over there: v1 has
		 * no bind before connect. */
		if (xs->listener) {
			xl_listener_close(xs->listener);
			xs->listener = NULL;
		}
		err = xl_connect_start(xs, sin);
		if (err)
			goto out;
		err = -EINPROGRESS;
		break;
	case XL_CONNECTING:
		err = -EALREADY;
		break;
	case XL_CONNECTED:
	case XL_FAILED:
		err = xs->sock->state == SS_CONNECTING ? xl_connect_finish(xs) :
							 -EISCONN;
		goto out;
	default:
		err = -EISCONN;
		goto out;
	}
	if (!timeo) {
		if (xl_connect_over(xs))
			err = xl_connect_finish(xs);
		goto out;
	}
	/* Close to the answer nobody else can come: op is ours.  While we
	 * sleep, others may. */
	if (!xl_spin(xs, xl_connect_over)) {
		mutex_unlock(&xs->op);
		timeo = xl_wait(xs, xl_connect_over, timeo);
		mutex_lock(&xs->op);
	}
	if (xl_sock_state(xs) == XL_CONNECTING)
		err = signal_pending(current) ? sock_intr_errno(timeo) :
						-EINPROGRESS;
	else if (xs->sock->state == SS_CONNECTING)
		err = xl_connect_finish(xs);
	else
		err = xl_sock_state(xs) == XL_CONNECTED ? 0 : -ECONNABORTED;
out:
	mutex_unlock(&xs->op);
	return err;
}

/* connect() to a local address on a socket that was bound on both sides. */
static void xl_connect_go_local(struct xl_sock *xs)
{
	mutex_lock(&xs->op);
	if (xl_sock_state(xs) == XL_IDLE) {
		if (xs->listener)
			xl_listener_close(xs->listener);
		xs->listener = NULL;
		xl_sock_set_state(xs, XL_LOCAL);
	}
	mutex_unlock(&xs->op);
}

int xl_connect(struct socket *sock, struct sockaddr *addr, int len, int flags)
{
	struct xl_sock *xs = xl_sock_of(sock);
	struct sockaddr_in sin;
	enum xl_state state = xs ? xl_sock_state(xs) : XL_IDLE;
	struct sock *sk = sock->sk;
	bool remote, known;

	if (state == XL_LISTENING || state == XL_LOCAL)
		goto native;
	if (len < sizeof(addr->sa_family))
		return -EINVAL;
	if (addr->sa_family == AF_UNSPEC) {
		/* Dissolving a lifted connection is close(). */
		if (state != XL_IDLE)
			return -EOPNOTSUPP;
		goto native;
	}
	known = xl_addr_get(sk, addr, len, &sin);
	if (state == XL_IDLE) {
		remote = known && sin.sin_port &&
			 xl_side_of(sock_net(sk), sin.sin_addr.s_addr) ==
				 XL_SIDE_REMOTE;
		if (!remote) {
			if (xs)
				xl_connect_go_local(xs);
			else
				xl_sock_give_back(sock);
			goto native;
		}
		if (inet_sk_state_load(sk) != TCP_CLOSE)
			goto native;
		xs = xl_sock_lift(sock);
		if (!xs)
			goto native;
	}
	return xl_connect_lifted(xs, &sin, flags);

native:
	return xl_native_of(sock)->connect(sock, addr, len, flags);
}

/*
 * v1 tells neither the local address of a connection nor the peer of an
 * accepted one: what is not known is 0.0.0.0:0.
 */
int xl_getname(struct socket *sock, struct sockaddr *addr, int peer)
{
	struct xl_sock *xs = xl_sock_of(sock);
	enum xl_state state = xs ? xl_sock_state(xs) : XL_IDLE;

	if (state == XL_CONNECTED) {
		if (peer == 1 && READ_ONCE(xs->conn->reset))
			return -ENOTCONN;
		return xl_addr_put(sock->sk, addr,
				   peer ? &xs->peer : &xs->local);
	}
	/* Bound to an address that only the backend has. */
	if (xs && !peer && xs->local.sin_addr.s_addr)
		return xl_addr_put(sock->sk, addr, &xs->local);
	return xl_native_of(sock)->getname(sock, addr, peer);
}
