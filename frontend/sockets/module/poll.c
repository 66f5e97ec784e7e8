// SPDX-License-Identifier: GPL-2.0-only
/*
 * Waiting for a lifted socket: poll mask, wake-ups, sleeping, and spinning for
 * a short while before sleeping.
 *
 * Everybody waits on the wait queue of the socket itself, where also the
 * native code wakes; so it does not matter when in the life of a socket a
 * poller was registered.
 *
 * Spinning: an event costs the backend a hypercall and us an interrupt and a
 * schedule, hundreds of microseconds together, while the answer is often there
 * within tens.  So a wait looks at the ring for up to spin_us before it
 * sleeps.  It does so only while nothing else wants to run here, and each
 * stream halves its time after a spin in vain and gets all of it back after
 * one that paid.
 */
#include <linux/ktime.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/sched/stat.h>
#include <net/tcp.h>

#include "xenlift_sock.h"

#define XL_SPIN_MAX_US 1000U

/* Wakes who waits for 'mask'.  Any context. */
void xl_wake(struct xl_sock *xs, __poll_t mask)
{
	struct socket *sock = xs->sock;

	wake_up_interruptible_poll(&sock->wq.wait, mask);
	rcu_read_lock();
	if (mask & EPOLLIN)
		sock_wake_async(&sock->wq, SOCK_WAKE_WAITD, POLL_IN);
	if (mask & EPOLLOUT)
		sock_wake_async(&sock->wq, SOCK_WAKE_SPACE, POLL_OUT);
	rcu_read_unlock();
}

/* Waits until 'ready' or a signal, at most 'timeout' jiffies.  Returns what is
 * left of it.  'ready' is asked without locks. */
long xl_wait(struct xl_sock *xs, bool (*ready)(struct xl_sock *xs),
	     long timeout)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);

	xl_count(XL_N_SLEEP);
	add_wait_queue(&xs->sock->wq.wait, &wait);
	while (timeout && !ready(xs) && !signal_pending(current))
		timeout = wait_woken(&wait, TASK_INTERRUPTIBLE, timeout);
	remove_wait_queue(&xs->sock->wq.wait, &wait);
	return timeout;
}

/* How long a wait may spin now; 0 if something else wants to run here. */
u32 xl_spin_limit_ns(void)
{
	if (!single_task_running())
		return 0;
	return min(READ_ONCE(xl_spin_us), XL_SPIN_MAX_US) * 1000;
}

/* Looks for 'ready' for a short while.  Returns what it said last. */
bool xl_spin(struct xl_sock *xs, bool (*ready)(struct xl_sock *xs))
{
	u32 limit = xl_spin_limit_ns();
	struct xl_conn *conn = xs->conn;
	u64 end;

	if (!limit)
		return ready(xs);
	if (conn)
		limit = min(limit, conn->spin_ns);
	end = ktime_get_ns() + limit;
	while (!need_resched() && !signal_pending(current)) {
		if (ready(xs)) {
			if (conn)
				conn->spin_ns = READ_ONCE(xl_spin_us) * 1000;
			xl_count(XL_N_SPIN_HIT);
			return true;
		}
		if (ktime_get_ns() >= end)
			break;
		cpu_relax();
	}
	if (conn)
		conn->spin_ns = max(conn->spin_ns / 2, limit / 32 + 1);
	return ready(xs);
}

static __poll_t xl_poll_connected(struct xl_sock *xs)
{
	struct xl_conn *conn = xs->conn;
	struct sock *sk = xs->sk;
	__poll_t mask = 0;
	u8 shut;

	xl_conn_check(conn, sk);
	shut = READ_ONCE(sk->sk_shutdown);
	if (shut == SHUTDOWN_MASK)
		mask |= EPOLLHUP;
	if (shut & RCV_SHUTDOWN)
		mask |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;
	if (xl_conn_avail(conn) != 0)
		mask |= EPOLLIN | EPOLLRDNORM;
	if ((shut & SEND_SHUTDOWN) || xl_conn_space(conn) != 0) {
		mask |= EPOLLOUT | EPOLLWRNORM;
	} else {
		WRITE_ONCE(conn->want_space, true);
		ring_mb();
		if (xl_conn_space(conn) != 0)
			mask |= EPOLLOUT | EPOLLWRNORM;
	}
	if (READ_ONCE(sk->sk_err))
		mask |= EPOLLERR;
	return mask;
}

__poll_t xl_poll(struct file *file, struct socket *sock, poll_table *wait)
{
	struct xl_sock *xs = xl_sock_of(sock);
	__poll_t mask;

	if (!xs)
		return xl_native_of(sock)->poll(file, sock, wait);
	switch (xl_sock_state(xs)) {
	case XL_CONNECTING:
		sock_poll_wait(file, sock, wait);
		/* May have changed before we were on the queue. */
		if (xl_sock_state(xs) == XL_CONNECTED)
			return xl_poll_connected(xs);
		if (xl_sock_state(xs) == XL_CONNECTING)
			return 0;
		return EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLHUP |
		       EPOLLOUT | EPOLLWRNORM |
		       (READ_ONCE(xs->sk->sk_err) ? EPOLLERR : 0);
	case XL_CONNECTED:
		sock_poll_wait(file, sock, wait);
		return xl_poll_connected(xs);
	case XL_LISTENING:
		mask = xl_native_of(sock)->poll(file, sock, wait);
		/* A listener on a foreign address only: the native socket
		 * below it is closed, which poll would report. */
		if (inet_sk_state_load(xs->sk) != TCP_LISTEN)
			mask = 0;
		if (xl_listener_ready(xs->listener))
			mask |= EPOLLIN | EPOLLRDNORM;
		return mask;
	default:
		return xl_native_of(sock)->poll(file, sock, wait);
	}
}
