// SPDX-License-Identifier: GPL-2.0-only
/*
 * Capture: how a program's socket comes to us, and the dispatch between the
 * native TCP code and ours.
 *
 * Theory of operation
 * ===================
 *
 * A kprobe at the entry of security_socket_post_create() sees every socket
 * that is created, by whatever system call, right after its family made it
 * and took its owner's module reference.  The socket is not reachable by
 * anybody else then, so exchanging sock->ops is safe.  The probe allocates
 * nothing, so it cannot fail for want of memory, and it has no instances to
 * run out of.  A probe can only be missed if it is hit inside another probe's
 * handler; that is counted by the kernel and reported (parameter "missed").
 *
 * Our proto_ops are a copy of the native ones, taken from a socket of the
 * kernel's at load time, with the calls replaced that we care about.  Each
 * replaced call looks at sk_user_data: nothing of ours there means not lifted.
 *
 * Giving a socket back
 * --------------------
 * Other threads may be inside one of our functions for the same socket when
 * it is given back, so the module reference of that socket does not protect
 * them any longer.  xl_enter()/xl_leave() count calls under way; the module's
 * exit waits until the count is zero.  synchronize_rcu_tasks() before and
 * after covers the instructions before the increment and after the decrement.
 */
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/percpu.h>
#include <linux/splice.h>
#include <linux/tcp.h>
#include <asm/ioctls.h>
#include <net/inet_common.h>
#include <net/tcp.h>

#include "xenlift_sock.h"

#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#define XL_ACCEPT_ARG 1 /* accept() takes struct proto_accept_arg */
#endif
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define XL_SENDPAGE 1
#endif

/* Native and ours, of AF_INET and AF_INET6. */
static const struct proto_ops *xl_native[2];
static struct proto_ops xl_ops[2];

/* Calls under way: the sum over all processors, since a call may end on
 * another one than it began on. */
static DEFINE_PER_CPU(long, xl_inside);

static void xl_enter(void)
{
	this_cpu_inc(xl_inside);
}

static void xl_leave(void)
{
	this_cpu_dec(xl_inside);
}

static bool xl_is_inside(void)
{
	long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(per_cpu(xl_inside, cpu));
	return sum;
}

static bool xl_is_ours(const struct proto_ops *ops)
{
	return ops == &xl_ops[0] || ops == &xl_ops[1];
}

/* The native calls of a captured socket, also if it was just given back. */
const struct proto_ops *xl_native_of(const struct socket *sock)
{
	const struct proto_ops *ops = READ_ONCE(sock->ops);

	return ops == &xl_ops[0] ? xl_native[0] :
	       ops == &xl_ops[1] ? xl_native[1] :
				   ops;
}

/*
 * The lifted half of 'sock', or NULL.  May be called in any context in which
 * 'sock' is held.
 */
struct xl_sock *xl_sock_of(const struct socket *sock)
{
	const struct sock *sk = sock->sk;
	uintptr_t data;

	if (!sk || !xl_is_ours(READ_ONCE(sock->ops)))
		return NULL;
	data = (uintptr_t)READ_ONCE(sk->sk_user_data);
	/* Exactly this flag: anything else in there is not ours. */
	if ((data & ~SK_USER_DATA_PTRMASK) != SK_USER_DATA_NOCOPY)
		return NULL;
	return (struct xl_sock *)(data & SK_USER_DATA_PTRMASK);
}

/*
 * Lifts 'sock', or finds that it is lifted already.  NULL if it was given back
 * in the meantime, sk_user_data is somebody else's, or memory is short.
 */
struct xl_sock *xl_sock_lift(struct socket *sock)
{
	struct xl_sock *xs = xl_sock_of(sock), *new;
	struct sock *sk = sock->sk;

	if (xs)
		return xs;
	new = kzalloc(sizeof(*new), GFP_KERNEL);
	if (!new)
		return NULL;
	new->sock = sock;
	new->sk = sk;
	mutex_init(&new->op);
	mutex_init(&new->rx);
	mutex_init(&new->tx);
	lock_sock(sk);
	xs = xl_sock_of(sock);
	if (!xs && xl_is_ours(READ_ONCE(sock->ops)) && !sk->sk_user_data) {
		write_lock_bh(&sk->sk_callback_lock);
		__rcu_assign_sk_user_data_with_flags(sk, new,
						     SK_USER_DATA_NOCOPY);
		write_unlock_bh(&sk->sk_callback_lock);
		xs = new;
		new = NULL;
		xl_count(XL_N_LIFTED);
	}
	release_sock(sk);
	kfree(new);
	return xs;
}

/*
 * Gives a captured socket that stays local its native calls back.  False if
 * it is lifted.  The caller is between xl_enter() and xl_leave().
 */
bool xl_sock_give_back(struct socket *sock)
{
	struct sock *sk = sock->sk;
	bool done = false, drop = false;

	lock_sock(sk);
	if (!xl_sock_of(sock)) {
		done = true;
		if (xl_is_ours(READ_ONCE(sock->ops))) {
			WRITE_ONCE(sock->ops, xl_native_of(sock));
			drop = true;
		}
	}
	release_sock(sk);
	if (drop) {
		xl_count(XL_N_GIVEN_BACK);
		module_put(THIS_MODULE);
	}
	return done;
}

/* --- the calls ---------------------------------------------------------- */

static int xl_op_release(struct socket *sock)
{
	struct xl_sock *xs = xl_sock_of(sock);
	struct sock *sk = sock->sk;
	bool abort = false;
	int err;

	if (xs) {
		abort = sock_flag(sk, SOCK_LINGER) && !sk->sk_lingertime;
		write_lock_bh(&sk->sk_callback_lock);
		__rcu_assign_sk_user_data_with_flags(sk, NULL, 0);
		write_unlock_bh(&sk->sk_callback_lock);
		/* Cuts the ties from interrupts to the socket. */
		if (xs->conn)
			xl_conn_detach(xs->conn);
		if (xs->listener)
			xl_listener_close(xs->listener);
	}
	err = xl_native_of(sock)->release(sock);
	if (xs) {
		if (xs->conn)
			xl_conn_close(xs->conn, abort);
		kfree(xs);
	}
	return err;
}

static int xl_op_bind(struct socket *sock, struct sockaddr *addr, int len)
{
	int err;

	xl_enter();
	err = xl_bind(sock, addr, len);
	xl_leave();
	return err;
}

static int xl_op_connect(struct socket *sock, struct sockaddr *addr, int len,
			 int flags)
{
	int err;

	xl_enter();
	err = xl_connect(sock, addr, len, flags);
	xl_leave();
	return err;
}

static int xl_op_listen(struct socket *sock, int backlog)
{
	int err;

	xl_enter();
	err = xl_listen(sock, backlog);
	xl_leave();
	return err;
}

/*
 * accept() of the native half.  do_accept() gave 'newsock' our proto_ops and a
 * module reference; what comes out of the native queue is local for good.
 */
#ifdef XL_ACCEPT_ARG
static int xl_native_accept(struct socket *sock, struct socket *newsock,
			    void *arg)
{
	int err = xl_native_of(sock)->accept(sock, newsock, arg);
#else
struct xl_accept_arg {
	int flags;
	bool kern;
};

static int xl_native_accept(struct socket *sock, struct socket *newsock,
			    void *arg_)
{
	struct xl_accept_arg *arg = arg_;
	int err = xl_native_of(sock)->accept(sock, newsock, arg->flags,
					     arg->kern);
#endif
	if (!err && xl_is_ours(READ_ONCE(newsock->ops))) {
		WRITE_ONCE(newsock->ops, xl_native_of(newsock));
		module_put(THIS_MODULE);
	}
	return err;
}

static int xl_native_try_accept(struct socket *sock, struct socket *newsock,
				void *arg_)
{
#ifdef XL_ACCEPT_ARG
	struct proto_accept_arg arg = *(struct proto_accept_arg *)arg_;
#else
	struct xl_accept_arg arg = *(struct xl_accept_arg *)arg_;
#endif
	arg.flags |= O_NONBLOCK;
	return xl_native_accept(sock, newsock, &arg);
}

static int xl_accept(struct socket *sock, struct socket *newsock, int flags,
		     void *arg)
{
	struct xl_sock *xs = xl_sock_of(sock);

	if (!xs || xl_sock_state(xs) != XL_LISTENING)
		return xl_native_accept(sock, newsock, arg);
	return xl_accept_lifted(xs, newsock, flags, xl_native_try_accept, arg);
}

#ifdef XL_ACCEPT_ARG
static int xl_op_accept(struct socket *sock, struct socket *newsock,
			struct proto_accept_arg *arg)
{
	int err;

	xl_enter();
	err = xl_accept(sock, newsock, arg->flags, arg);
	xl_leave();
	return err;
}
#else
static int xl_op_accept(struct socket *sock, struct socket *newsock, int flags,
			bool kern)
{
	struct xl_accept_arg arg = {.flags = flags, .kern = kern};
	int err;

	xl_enter();
	err = xl_accept(sock, newsock, flags, &arg);
	xl_leave();
	return err;
}
#endif

static int xl_op_getname(struct socket *sock, struct sockaddr *addr, int peer)
{
	int err;

	xl_enter();
	err = xl_getname(sock, addr, peer);
	xl_leave();
	return err;
}

static __poll_t xl_op_poll(struct file *file, struct socket *sock,
			   poll_table *wait)
{
	__poll_t mask;

	xl_enter();
	mask = xl_poll(file, sock, wait);
	xl_leave();
	return mask;
}

static int xl_op_ioctl(struct socket *sock, unsigned int cmd, unsigned long arg)
{
	struct xl_sock *xs;
	int n, err;

	xl_enter();
	xs = xl_sock_of(sock);
	if (!xs || xl_sock_state(xs) != XL_CONNECTED) {
		err = xl_native_of(sock)->ioctl(sock, cmd, arg);
		goto out;
	}
	switch (cmd) {
	case SIOCINQ:
		n = max(xl_conn_avail(xs->conn), 0);
		break;
	case SIOCOUTQ:
	case SIOCOUTQNSD:
		n = xl_conn_unsent(xs->conn);
		break;
	case SIOCATMARK:
		n = 0;
		break;
	default:
		err = xl_native_of(sock)->ioctl(sock, cmd, arg);
		goto out;
	}
	err = put_user(n, (int __user *)arg);
out:
	xl_leave();
	return err;
}

static int xl_op_shutdown(struct socket *sock, int how)
{
	struct xl_sock *xs;
	int err;

	xl_enter();
	xs = xl_sock_of(sock);
	if (xs && xl_sock_state(xs) == XL_CONNECTED)
		err = xl_shutdown_lifted(xs, how);
	else
		err = xl_native_of(sock)->shutdown(sock, how);
	xl_leave();
	return err;
}

/* Options that would change what is below our feet, or that only a real TCP
 * connection has, are refused on lifted sockets; the rest is kept by the
 * native socket and does no harm. */
static int xl_op_setsockopt(struct socket *sock, int level, int optname,
			    sockptr_t optval, unsigned int optlen)
{
	int err;

	xl_enter();
	if (level == IPPROTO_IPV6 && optname == IPV6_ADDRFORM)
		/* Would exchange our proto_ops for those of AF_INET. */
		err = -ENOPROTOOPT;
	else if (xl_sock_of(sock) && level == IPPROTO_TCP &&
		 (optname == TCP_ULP || optname == TCP_REPAIR ||
		  optname == TCP_MD5SIG || optname == TCP_ZEROCOPY_RECEIVE))
		err = -EOPNOTSUPP;
	else
		err = xl_native_of(sock)->setsockopt(sock, level, optname,
						     optval, optlen);
	xl_leave();
	return err;
}

static int xl_op_getsockopt(struct socket *sock, int level, int optname,
			    char __user *optval, int __user *optlen)
{
	struct xl_sock *xs;
	int err, len;

	xl_enter();
	xs = xl_sock_of(sock);
	if (xs && level == IPPROTO_TCP && optname == TCP_ZEROCOPY_RECEIVE) {
		err = -EOPNOTSUPP;
		goto out;
	}
	err = xl_native_of(sock)->getsockopt(sock, level, optname, optval,
					     optlen);
	/* Programs ask TCP_INFO for the state: the socket below is closed,
	 * the connection is not. */
	if (!err && xs && level == IPPROTO_TCP && optname == TCP_INFO &&
	    xl_sock_state(xs) == XL_CONNECTED && !get_user(len, optlen) &&
	    len > 0)
		err = put_user(
			sock->sk->sk_shutdown == SHUTDOWN_MASK ? TCP_CLOSE :
			sock->sk->sk_shutdown & RCV_SHUTDOWN ? TCP_CLOSE_WAIT :
							       TCP_ESTABLISHED,
			(u8 __user *)optval);
out:
	xl_leave();
	return err;
}

static int xl_op_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)
{
	struct xl_sock *xs;
	int err;

	xl_enter();
	xs = xl_sock_of(sock);
	if (xs && (xl_sock_state(xs) == XL_CONNECTED ||
		   xl_sock_state(xs) == XL_CONNECTING))
		err = xl_sendmsg_lifted(xs, msg, len);
	else if (msg->msg_flags & MSG_FASTOPEN)
		/* Would connect past us; programs fall back to connect(). */
		err = -EOPNOTSUPP;
	else
		err = xl_native_of(sock)->sendmsg(sock, msg, len);
	xl_leave();
	return err;
}

static int xl_op_recvmsg(struct socket *sock, struct msghdr *msg, size_t len,
			 int flags)
{
	struct xl_sock *xs;
	int err;

	xl_enter();
	xs = xl_sock_of(sock);
	if (xs && !(flags & MSG_ERRQUEUE) &&
	    (xl_sock_state(xs) == XL_CONNECTED ||
	     xl_sock_state(xs) == XL_CONNECTING))
		err = xl_recvmsg_lifted(xs, msg, len, flags);
	else
		err = xl_native_of(sock)->recvmsg(sock, msg, len, flags);
	xl_leave();
	return err;
}

static ssize_t xl_op_splice_read(struct socket *sock, loff_t *ppos,
				 struct pipe_inode_info *pipe, size_t len,
				 unsigned int flags)
{
	struct xl_sock *xs;
	ssize_t n;

	xl_enter();
	xs = xl_sock_of(sock);
	if (!xs || xl_sock_state(xs) != XL_CONNECTED)
		n = xl_native_of(sock)->splice_read(sock, ppos, pipe, len,
						    flags);
	else
#ifdef XL_SENDPAGE
		n = generic_file_splice_read(sock->file, ppos, pipe, len,
					     flags);
#else
		n = copy_splice_read(sock->file, ppos, pipe, len, flags);
#endif
	xl_leave();
	return n;
}

#ifdef XL_SENDPAGE
static ssize_t xl_op_sendpage(struct socket *sock, struct page *page,
			      int offset, size_t size, int flags)
{
	ssize_t n;

	xl_enter();
	if (xl_sock_of(sock))
		n = sock_no_sendpage(sock, page, offset, size, flags);
	else
		n = xl_native_of(sock)->sendpage(sock, page, offset, size,
						 flags);
	xl_leave();
	return n;
}
#endif

static int xl_op_mmap(struct file *file, struct socket *sock,
		      struct vm_area_struct *vma)
{
	int err;

	xl_enter();
	err = xl_sock_of(sock) ? -ENODEV :
				 xl_native_of(sock)->mmap(file, sock, vma);
	xl_leave();
	return err;
}

/* --- the probe ------------------------------------------------------------ */

/* security_socket_post_create(sock, family, type, protocol, kern) */
static int xl_probe(struct kprobe *p, struct pt_regs *regs)
{
	struct socket *sock = (void *)regs_get_kernel_argument(regs, 0);
	int family = regs_get_kernel_argument(regs, 1);
	int type = regs_get_kernel_argument(regs, 2);
	int kern = regs_get_kernel_argument(regs, 4);
	unsigned int i = family == PF_INET6;

	if (kern || (family != PF_INET && family != PF_INET6) ||
	    type != SOCK_STREAM || sock->ops != xl_native[i] ||
	    !READ_ONCE(xl_enabled))
		return 0;
	/* Fails only while the module is being removed. */
	if (try_module_get(THIS_MODULE)) {
		sock->ops = &xl_ops[i];
		xl_count(XL_N_CAPTURED);
	}
	return 0;
}
NOKPROBE_SYMBOL(xl_probe);

static struct kprobe xl_kprobe = {
	.symbol_name = "security_socket_post_create",
	.pre_handler = xl_probe,
};

static int xl_missed_get(char *buf, const struct kernel_param *kp)
{
	return scnprintf(buf, PAGE_SIZE, "%lu\n", xl_kprobe.nmissed);
}

static const struct kernel_param_ops xl_missed_ops = {.get = xl_missed_get};
module_param_cb(missed, &xl_missed_ops, NULL, 0444);
MODULE_PARM_DESC(missed, "read only: sockets that the probe missed; must be 0");

static int __init xl_capture_family(int family, unsigned int i)
{
	struct proto_ops *ops = &xl_ops[i];
	struct socket *sock;
	int err;

	err = sock_create_kern(&init_net, family, SOCK_STREAM, IPPROTO_TCP,
			       &sock);
	if (err)
		return err;
	*ops = *sock->ops;
	/* The reference counts of giving back rely on built-in families. */
	if (!ops->owner)
		xl_native[i] = sock->ops;
	sock_release(sock);
	if (!xl_native[i])
		return -EOPNOTSUPP;

	ops->owner = THIS_MODULE;
	ops->release = xl_op_release;
	ops->bind = xl_op_bind;
	ops->connect = xl_op_connect;
	ops->accept = xl_op_accept;
	ops->getname = xl_op_getname;
	ops->poll = xl_op_poll;
	ops->ioctl = xl_op_ioctl;
	ops->listen = xl_op_listen;
	ops->shutdown = xl_op_shutdown;
	ops->setsockopt = xl_op_setsockopt;
	ops->getsockopt = xl_op_getsockopt;
	ops->sendmsg = xl_op_sendmsg;
	ops->recvmsg = xl_op_recvmsg;
	ops->splice_read = xl_op_splice_read;
	ops->mmap = xl_op_mmap;
#ifdef XL_SENDPAGE
	ops->sendpage = xl_op_sendpage;
#endif
	return 0;
}

int __init xl_capture_init(void)
{
	int err;

	err = xl_capture_family(PF_INET, 0);
	if (err)
		return err;
	/* A kernel without IPv6 has no such sockets: fine. */
	xl_capture_family(PF_INET6, 1);
	err = register_kprobe(&xl_kprobe);
	if (err)
		pr_err("xenlift_sock: no probe on %s: %d\n",
		       xl_kprobe.symbol_name, err);
	return err;
}

void xl_capture_exit(void)
{
	unregister_kprobe(&xl_kprobe);
	if (xl_kprobe.nmissed)
		pr_warn("xenlift_sock: missed %lu sockets\n",
			xl_kprobe.nmissed);
	synchronize_rcu_tasks();
	while (xl_is_inside())
		msleep(10);
	synchronize_rcu_tasks();
}
