// SPDX-License-Identifier: GPL-2.0-only
/*
 * Bytes between a program and a data ring.  One copy, done here.
 *
 * Theory of operation
 * ===================
 *
 * tx protects the producer's side of "out", rx the consumer's side of "in".
 * They are held while bytes are copied (which may sleep in a page fault) and
 * never while we wait for the backend, so a non-blocking call of another
 * thread is not held up.
 *
 * Notifications.  v1 wants one after every step.  If both ends announced
 * feature-quiet (wire/pvcalls.h), we tell the backend of new data only if it
 * had taken all before, and of room only if the ring had been full and is half
 * empty again.  The counterpart of both promises: before we wait, we looked at
 * the peer's index after ours was published and a full barrier.  xl_wait()
 * callers do so in their ready functions.
 *
 * Errors.  Data that arrived before an error is delivered before it.  The
 * error itself sits in sk_err and is reported once, as TCP does; afterwards
 * receive sees the end of the stream and send sees EPIPE.
 */
#include <linux/skbuff.h>
#include <linux/uio.h>
#include <net/tcp.h>

#include "xenlift_sock.h"

/* So much is copied before the backend is told of it: it can work on the first
 * part while we copy the next. */
#define XL_CHUNK (64U * 1024)

/* --- send ------------------------------------------------------------------ */

static void xl_tx_publish(struct xl_conn *conn, u32 n)
{
	u32 old = conn->out_prod;

	WRITE_ONCE(conn->out_prod, old + n);
	ring_publish(&conn->idx->out_prod, old + n);
	ring_mb();
	if (READ_ONCE(xl.quiet) && ring_fetch(&conn->idx->out_cons) != old)
		xl_count(XL_N_NOTIFY_SAVED);
	else
		xl_conn_notify(conn);
}

/* Copies up to 'n' bytes, which are free, into the ring.  -EFAULT if none. */
static int xl_tx_copy(struct xl_conn *conn, struct msghdr *msg, u32 n)
{
	u32 ofs = ring_offset(conn->out_prod, conn->half);
	u32 first = ring_contiguous(conn->out_prod, n, conn->half);
	u32 done;

	done = copy_from_iter(conn->out + ofs, first, &msg->msg_iter);
	if (done == first && n > first)
		done += copy_from_iter(conn->out, n - first, &msg->msg_iter);
	if (!done)
		return -EFAULT;
	xl_tx_publish(conn, done);
	return done;
}

static bool xl_tx_ready(struct xl_sock *xs)
{
	struct xl_conn *conn = xs->conn;

	if (xl_conn_space(conn) != 0)
		return true;
	WRITE_ONCE(conn->want_space, true);
	ring_mb();
	xl_conn_check(conn, xs->sk);
	return xl_conn_space(conn) != 0 || READ_ONCE(xs->sk->sk_err) ||
	       (READ_ONCE(xs->sk->sk_shutdown) & SEND_SHUTDOWN);
}

static bool xl_connect_over(struct xl_sock *xs)
{
	return xl_sock_state(xs) != XL_CONNECTING;
}

/* The rest of a connect() that somebody else began.  0 if it stands. */
static int xl_await_connect(struct xl_sock *xs, long *timeo)
{
	if (xl_sock_state(xs) == XL_CONNECTING) {
		if (!*timeo)
			return -EAGAIN;
		*timeo = xl_wait(xs, xl_connect_over, *timeo);
		if (xl_sock_state(xs) == XL_CONNECTING)
			return signal_pending(current) ?
				       sock_intr_errno(*timeo) :
				       -EAGAIN;
	}
	if (xl_sock_state(xs) != XL_CONNECTED)
		return sock_error(xs->sk) ?: -ENOTCONN;
	return 0;
}

int xl_sendmsg_lifted(struct xl_sock *xs, struct msghdr *msg, size_t len)
{
	int flags = msg->msg_flags;
	struct sock *sk = xs->sk;
	struct xl_conn *conn;
	size_t sent = 0;
	long timeo;
	int err;

	if (flags & MSG_OOB)
		return -EOPNOTSUPP;
	if ((flags & MSG_ZEROCOPY) && sock_flag(sk, SOCK_ZEROCOPY))
		return -EOPNOTSUPP;
	timeo = sock_sndtimeo(sk, flags & MSG_DONTWAIT);
	err = xl_await_connect(xs, &timeo);
	if (err)
		return err == -EAGAIN || err == -ERESTARTSYS || err == -EINTR ?
			       err :
			       sk_stream_error(sk, flags, -EPIPE);
	conn = xs->conn;

	mutex_lock(&xs->tx);
	while (msg_data_left(msg)) {
		int space;

		xl_conn_check(conn, sk);
		err = -EPIPE;
		if (READ_ONCE(sk->sk_err) ||
		    (READ_ONCE(sk->sk_shutdown) & SEND_SHUTDOWN))
			break;
		space = xl_conn_space(conn);
		if (space < 0)
			continue; /* Killed: the check above sees it. */
		if (space > 0) {
			u32 n = min3((size_t)space, msg_data_left(msg),
				     (size_t)XL_CHUNK);

			err = xl_tx_copy(conn, msg, n);
			if (err < 0)
				break;
			sent += err;
			continue;
		}
		mutex_unlock(&xs->tx);
		err = 0;
		if (!timeo && xl_tx_ready(xs)) {
			;
		} else if (!timeo) {
			err = -EAGAIN;
		} else if (!xl_spin(xs, xl_tx_ready)) {
			timeo = xl_wait(xs, xl_tx_ready, timeo);
			if (!xl_tx_ready(xs))
				err = signal_pending(current) ?
					      sock_intr_errno(timeo) :
					      -EAGAIN;
		}
		mutex_lock(&xs->tx);
		if (err)
			break;
	}
	mutex_unlock(&xs->tx);
	if (sent)
		return sent;
	if (!len)
		return 0;
	return sk_stream_error(sk, flags, err);
}

/* --- receive ----------------------------------------------------------------- */

static void xl_rx_consume(struct xl_conn *conn, u32 n)
{
	u32 old = conn->in_cons;
	bool notify = true;

	WRITE_ONCE(conn->in_cons, old + n);
	ring_release(&conn->idx->in_cons, old + n);
	ring_mb();
	if (READ_ONCE(xl.quiet)) {
		u32 prod = ring_fetch(&conn->idx->in_prod);

		if (prod - old >= conn->half)
			conn->in_stalled = true;
		notify = conn->in_stalled &&
			 ring_used(prod, old + n) <= conn->half / 2;
		if (notify)
			conn->in_stalled = false;
	}
	if (notify)
		xl_conn_notify(conn);
	else
		xl_count(XL_N_NOTIFY_SAVED);
}

/*
 * Copies up to 'n' bytes, 'skip' bytes behind the first, to the program;
 * throws them away if 'msg' is NULL.  -EFAULT if not one could be copied.
 */
static int xl_rx_copy(struct xl_conn *conn, struct msghdr *msg, u32 skip, u32 n)
{
	u32 from = conn->in_cons + skip;
	u32 ofs = ring_offset(from, conn->half);
	u32 first = ring_contiguous(from, n, conn->half);
	u32 done;

	if (!msg)
		return n;
	done = copy_to_iter(conn->in + ofs, first, &msg->msg_iter);
	if (done == first && n > first)
		done += copy_to_iter(conn->in, n - first, &msg->msg_iter);
	return done ? done : -EFAULT;
}

static bool xl_rx_ready(struct xl_sock *xs)
{
	struct xl_conn *conn = xs->conn;

	if (xl_conn_avail(conn) != 0)
		return true;
	xl_conn_check(conn, xs->sk);
	return READ_ONCE(xs->sk->sk_err) ||
	       (READ_ONCE(xs->sk->sk_shutdown) & RCV_SHUTDOWN);
}

/* Waits for data.  0 if it is worth looking again. */
static int xl_rx_wait(struct xl_sock *xs, long *timeo, bool peeking)
{
	if (!*timeo)
		return xl_rx_ready(xs) ? 0 : -EAGAIN;
	if (peeking) {
		/* A peeker waits beside a ring that is not empty, for which a
		 * quiet backend does not wake us: look from time to time. */
		long left = schedule_timeout_interruptible(1);

		if (*timeo != MAX_SCHEDULE_TIMEOUT)
			*timeo = *timeo > 1 ? *timeo - 1 + left : 0;
		return signal_pending(current) ? sock_intr_errno(*timeo) : 0;
	}
	if (xl_spin(xs, xl_rx_ready))
		return 0;
	*timeo = xl_wait(xs, xl_rx_ready, *timeo);
	if (xl_rx_ready(xs))
		return 0;
	return signal_pending(current) ? sock_intr_errno(*timeo) : -EAGAIN;
}

int xl_recvmsg_lifted(struct xl_sock *xs, struct msghdr *msg, size_t len,
		      int flags)
{
	bool peek = flags & MSG_PEEK;
	struct sock *sk = xs->sk;
	struct xl_conn *conn;
	size_t target, copied = 0;
	long timeo;
	int err;

	if (flags & MSG_OOB)
		return -EINVAL;
	timeo = sock_rcvtimeo(sk, flags & MSG_DONTWAIT);
	err = xl_await_connect(xs, &timeo);
	if (err)
		return err;
	conn = xs->conn;
	target = sock_rcvlowat(sk, flags & MSG_WAITALL, len);
	if (peek)
		target = min_t(size_t, target, conn->half);

	mutex_lock(&xs->rx);
	while (copied < len) {
		u32 skip = peek ? copied : 0;
		int avail;

		/* The error before the data: data that came before an error
		 * is seen by a look that follows the error. */
		xl_conn_check(conn, sk);
		ring_rmb();
		avail = xl_conn_avail(conn);
		err = 0;
		if (avail > (int)skip) {
			u32 n = min3((size_t)avail - skip, len - copied,
				     (size_t)XL_CHUNK);

			err = xl_rx_copy(conn, flags & MSG_TRUNC ? NULL : msg,
					 skip, n);
			if (err < 0)
				break;
			if (!peek)
				xl_rx_consume(conn, err);
			copied += err;
			err = 0;
			continue;
		}
		if (copied >= target || (peek && copied && avail >= conn->half))
			break;
		if (sk->sk_err || (sk->sk_shutdown & RCV_SHUTDOWN)) {
			if (!copied)
				err = sock_error(sk);
			break;
		}
		if (avail < 0)
			continue; /* Killed: the check sees it. */
		mutex_unlock(&xs->rx);
		err = xl_rx_wait(xs, &timeo, peek && copied);
		mutex_lock(&xs->rx);
		if (err)
			break;
	}
	mutex_unlock(&xs->rx);
	return copied ? copied : err;
}

/* --- shutdown ------------------------------------------------------------------ */

/*
 * v1 has no command for it.  Receiving is closed on our side.  Sending too,
 * and if both ends know feature-half-close the peer is told, after the data.
 */
int xl_shutdown_lifted(struct xl_sock *xs, int how)
{
	struct xl_conn *conn = xs->conn;
	struct sock *sk = xs->sk;

	how++; /* SHUT_RD.. to RCV_SHUTDOWN | SEND_SHUTDOWN */
	if ((how & ~SHUTDOWN_MASK) || !how)
		return -EINVAL;
	if (READ_ONCE(conn->reset))
		return -ENOTCONN;
	mutex_lock(&xs->tx);
	if ((how & SEND_SHUTDOWN) && !(sk->sk_shutdown & SEND_SHUTDOWN) &&
	    READ_ONCE(xl.half_close)) {
		ring_publish(&conn->idx->out_shut, 1);
		xl_conn_notify(conn);
	}
	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | how);
	mutex_unlock(&xs->tx);
	xl_wake(xs, EPOLLIN | EPOLLRDNORM | EPOLLOUT | EPOLLWRNORM | EPOLLHUP);
	return 0;
}
