// SPDX-License-Identifier: GPL-2.0-only
/*
 * xenlift_sock: parameters, counters, start and end of the module.
 */
#include <linux/inet.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <xen/xen.h>

#include "xenlift_sock.h"

bool xl_enabled = true;
module_param_named(lift, xl_enabled, bool, 0644);
MODULE_PARM_DESC(
	lift, "lift new sockets (default 1); 0: all new sockets stay native");

unsigned int xl_spin_us = 200;
module_param_named(spin_us, xl_spin_us, uint, 0644);
MODULE_PARM_DESC(
	spin_us,
	"microseconds to spin before a wait sleeps (default 200, at most 1000, 0: never)");

unsigned int xl_ring_order;
module_param_named(ring_order, xl_ring_order, uint, 0644);
MODULE_PARM_DESC(
	ring_order,
	"pages of a data ring as a power of two, 1..9 (default 0: 7 for few, 5 and 4 for many sockets)");

unsigned int xl_idle_rings = 64;
module_param_named(idle_rings, xl_idle_rings, uint, 0644);
MODULE_PARM_DESC(idle_rings, "data rings kept granted for reuse (default 64)");

unsigned int xl_drain_seconds = 30;
module_param_named(drain_seconds, xl_drain_seconds, uint, 0644);
MODULE_PARM_DESC(
	drain_seconds,
	"how long data written before close() may take to leave (default 30)");

unsigned int xl_wait_seconds = 10;
module_param_named(wait_seconds, xl_wait_seconds, uint, 0644);
MODULE_PARM_DESC(
	wait_seconds,
	"how long calls wait for a backend that is being (re)connected (default 10)");

/* Destinations that are never lifted: "10.0.0.0/8,192.168.7.1". */
#define XL_MAX_NATIVE 16
struct xl_prefix {
	__be32 addr;
	__be32 mask;
};
static struct xl_prefix xl_native_prefix[XL_MAX_NATIVE];
static unsigned int xl_n_native;
static DEFINE_RWLOCK(xl_native_lock);

bool xl_addr_is_native(__be32 addr)
{
	bool hit = false;
	unsigned int i;

	read_lock_bh(&xl_native_lock);
	for (i = 0; i < xl_n_native && !hit; i++)
		hit = (addr & xl_native_prefix[i].mask) ==
		      xl_native_prefix[i].addr;
	read_unlock_bh(&xl_native_lock);
	return hit;
}

static int xl_parse_prefix(const char *text, struct xl_prefix *ret)
{
	const char *end;
	unsigned int bits = 32;
	__be32 addr;

	if (!in4_pton(text, -1, (u8 *)&addr, '/', &end) &&
	    !in4_pton(text, -1, (u8 *)&addr, -1, &end))
		return -EINVAL;
	if (*end == '/' && (kstrtouint(end + 1, 10, &bits) || bits > 32))
		return -EINVAL;
	ret->mask = bits ? cpu_to_be32(~0U << (32 - bits)) : 0;
	ret->addr = addr & ret->mask;
	return 0;
}

static int xl_native_set(const char *val, const struct kernel_param *kp)
{
	struct xl_prefix prefix[XL_MAX_NATIVE];
	char *copy, *rest, *word;
	unsigned int n = 0;
	int err = 0;

	copy = kstrdup(val, GFP_KERNEL);
	if (!copy)
		return -ENOMEM;
	rest = strim(copy);
	while (!err && (word = strsep(&rest, ",")) != NULL) {
		if (!*word)
			continue;
		err = n < XL_MAX_NATIVE ? xl_parse_prefix(word, &prefix[n++]) :
					  -E2BIG;
	}
	kfree(copy);
	if (err)
		return err;
	write_lock_bh(&xl_native_lock);
	memcpy(xl_native_prefix, prefix, sizeof(prefix));
	xl_n_native = n;
	write_unlock_bh(&xl_native_lock);
	return 0;
}

static int xl_native_get(char *buf, const struct kernel_param *kp)
{
	unsigned int i;
	int len = 0;

	read_lock_bh(&xl_native_lock);
	for (i = 0; i < xl_n_native; i++)
		len += scnprintf(
			buf + len, PAGE_SIZE - len, "%s%pI4/%u", i ? "," : "",
			&xl_native_prefix[i].addr,
			hweight32((__force u32)xl_native_prefix[i].mask));
	read_unlock_bh(&xl_native_lock);
	len += scnprintf(buf + len, PAGE_SIZE - len, "\n");
	return len;
}

static const struct kernel_param_ops xl_native_ops = {
	.set = xl_native_set,
	.get = xl_native_get,
};
module_param_cb(native, &xl_native_ops, NULL, 0644);
MODULE_PARM_DESC(native,
		 "destinations that are never lifted, as ADDRESS[/BITS],...");

static DEFINE_PER_CPU(unsigned long[XL_N_COUNTERS], xl_counters);

void xl_count(enum xl_counter c)
{
	this_cpu_inc(xl_counters[c]);
}

static int xl_counters_get(char *buf, const struct kernel_param *kp)
{
	static const char *const name[XL_N_COUNTERS] = {
		"captured",  "lifted",	     "given_back",   "connect",
		"accept",    "ring_new",     "ring_reused",  "spin_hit",
		"sleep",     "notify",	     "notify_saved", "event",
		"bad_index", "bad_response", "reconnect",    "drain_timeout",
	};
	unsigned int i;
	int cpu, len = 0;

	for (i = 0; i < XL_N_COUNTERS; i++) {
		unsigned long sum = 0;

		for_each_possible_cpu(cpu)
			sum += per_cpu(xl_counters, cpu)[i];
		len += scnprintf(buf + len, PAGE_SIZE - len, "%s %lu\n",
				 name[i], sum);
	}
	len += scnprintf(buf + len, PAGE_SIZE - len,
			 "rings %u\nidle_rings %u\nconnected %d\n",
			 READ_ONCE(xl.n_conns), READ_ONCE(xl.n_idle),
			 READ_ONCE(xl.connected));
	return len;
}

static const struct kernel_param_ops xl_counters_ops = {
	.get = xl_counters_get,
};
module_param_cb(counters, &xl_counters_ops, NULL, 0444);
MODULE_PARM_DESC(counters,
		 "read only: what happened so far, one NAME NUMBER a line");

static int __init xl_init(void)
{
	int err;

	err = xl_bus_init();
	if (err)
		return err;
	err = xl_capture_init();
	if (err)
		xl_bus_exit();
	return err;
}

/*
 * Runs only when no captured or lifted socket is left, since each of them
 * holds a reference to the module.
 */
static void __exit xl_exit(void)
{
	xl_capture_exit();
	xl_bus_exit();
}

module_init(xl_init);
module_exit(xl_exit);
MODULE_DESCRIPTION(
	"PV Calls for unmodified programs: TCP sockets served by a driver domain");
MODULE_LICENSE("GPL");
MODULE_ALIAS("xen:pvcalls");
