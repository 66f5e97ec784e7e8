// SPDX-License-Identifier: GPL-2.0-only
/*
 * The xenbus device: states, connecting, losing the backend and finding it
 * again.
 *
 * Theory of operation
 * ===================
 *
 * There is one PV Calls device per guest.  'phase' is what we have, not what
 * xenstore says:
 *
 *   BUS_DOWN     no command ring.  Front is Initialising (1) or Closed (6)
 *   BUS_OFFERED  ring and event channel are written, front is Initialised (3),
 *                the backend may map them any time
 *   BUS_UP       both ends are Connected (4)
 *
 *     DOWN --back 2--> OFFERED --back 4--> UP
 *     OFFERED, UP --back 5, 6, gone, or 2 while UP--> DOWN
 *
 * Going down ends every stream with ECONNRESET, fails every command, ends the
 * grants and says Closed (6).  If the device is still wanted (backend's
 * online = 1), we then go to Initialising (1) once the backend is Closed, which
 * asks it to begin again.  Listeners are registered again when UP is reached.
 *
 * If the backend breaks the protocol we go down by ourselves.
 *
 * All transitions are made under bus.lock, by the xenwatch thread, by the
 * reset work or by the remover of the module.
 */
#include <linux/delay.h>
#include <linux/interrupt.h>
#include <xen/events.h>
#include <xen/xen.h>

#include "xenlift_sock.h"

#define CLOSE_WAIT_MS 2000 /* for the backend, when the module leaves */
#define IDLE_EVENTS 32 /* in a row make an event spurious */
#define INIT_WAIT_MS 3000 /* for the first connection, when it comes */

enum bus_phase { BUS_DOWN, BUS_OFFERED, BUS_UP };

static void bus_reset(struct work_struct *work);

static struct {
	struct mutex lock;
	enum bus_phase phase;
	struct pvcalls_sring *ring;
	grant_ref_t ref;
	evtchn_port_t evtchn;
	int irq;
	const char *why; /* of a reset */
	struct work_struct reset;
} bus = {
	.lock = __MUTEX_INITIALIZER(bus.lock),
	.reset = __WORK_INITIALIZER(bus.reset, bus_reset),
};

struct xl_device xl = {
	.lock = __SPIN_LOCK_UNLOCKED(xl.lock),
	.device = __RWSEM_INITIALIZER(xl.device),
	.table = __MUTEX_INITIALIZER(xl.table),
	.conns = LIST_HEAD_INIT(xl.conns),
	.idle = LIST_HEAD_INIT(xl.idle),
	.listeners = LIST_HEAD_INIT(xl.listeners),
	.changed = __WAIT_QUEUE_HEAD_INITIALIZER(xl.changed),
};

/* Is there a device, be it connected or not? */
bool xl_bus_present(void)
{
	return READ_ONCE(xl.xdev);
}

/* Tells the backend of requests.  Under xl.lock. */
void xl_bus_notify(void)
{
	if (xl.irq)
		notify_remote_via_irq(xl.irq);
}

/* The backend broke the rules of the command ring.  Any context. */
void xl_bus_fatal(const char *why)
{
	bus.why = why;
	queue_work(xl.wq, &bus.reset);
}

static irqreturn_t bus_event(int irq, void *unused)
{
	static unsigned int n_idle;

	/* A spinner may have taken the answers: no delay for that, but such a
	 * coincidence does not come many times in a row. */
	n_idle = xl_cmd_process() ? 0 : n_idle + 1;
	xen_irq_lateeoi(irq, n_idle >= IDLE_EVENTS ? XEN_EOI_FLAG_SPURIOUS : 0);
	return IRQ_HANDLED;
}

static void bus_free_ring(struct xenbus_device *dev)
{
	if (bus.irq > 0)
		unbind_from_irqhandler(bus.irq, dev);
	else if (bus.evtchn)
		xenbus_free_evtchn(dev, bus.evtchn);
	bus.irq = 0;
	bus.evtchn = 0;
	if (bus.ring)
		xenbus_teardown_ring((void **)&bus.ring, 1, &bus.ref);
	bus.ring = NULL;
}

static int bus_alloc_ring(struct xenbus_device *dev)
{
	int err;

	err = xenbus_setup_ring(dev, GFP_KERNEL, (void **)&bus.ring, 1,
				&bus.ref);
	if (err) {
		bus.ring = NULL;
		return err;
	}
	/* The page is zeroed: both indices are 0. */
	ring_store(&bus.ring->req_event, 1);
	ring_store(&bus.ring->rsp_event, 1);
	err = xenbus_alloc_evtchn(dev, &bus.evtchn);
	if (err)
		return err;
	bus.irq = bind_evtchn_to_irqhandler_lateeoi(bus.evtchn, bus_event, 0,
						    "xenlift-commands", dev);
	return bus.irq < 0 ? bus.irq : 0;
}

static int bus_write(struct xenbus_device *dev, struct xenbus_transaction xbt,
		     const char **ret_what)
{
	int err;

	*ret_what = "version";
	err = xenbus_printf(xbt, dev->nodename, *ret_what, PVCALLS_VERSION);
	if (err)
		return err;
	*ret_what = "ring-ref";
	err = xenbus_printf(xbt, dev->nodename, *ret_what, "%u", bus.ref);
	if (err)
		return err;
	*ret_what = "port";
	err = xenbus_printf(xbt, dev->nodename, *ret_what, "%u", bus.evtchn);
	if (err)
		return err;
	*ret_what = PVCALLS_FEATURE_QUIET;
	err = xenbus_printf(xbt, dev->nodename, *ret_what, "1");
	if (err)
		return err;
	*ret_what = PVCALLS_FEATURE_HALF_CLOSE;
	return xenbus_printf(xbt, dev->nodename, *ret_what, "1");
}

static int bus_publish(struct xenbus_device *dev)
{
	struct xenbus_transaction xbt;
	const char *what = "transaction";
	int err;

	do {
		err = xenbus_transaction_start(&xbt);
		if (err)
			break;
		err = bus_write(dev, xbt, &what);
		if (err) {
			xenbus_transaction_end(xbt, 1);
			break;
		}
		err = xenbus_transaction_end(xbt, 0);
	} while (err == -EAGAIN);
	if (err)
		xenbus_dev_fatal(dev, err, "writing %s", what);
	return err;
}

/* "1" or a list with it: what else a backend can do is its business. */
static bool bus_has_version(struct xenbus_device *dev)
{
	char *versions, *rest, *word;
	bool found = false;
	unsigned int len;

	versions = xenbus_read(XBT_NIL, dev->otherend, "versions", &len);
	if (IS_ERR(versions))
		return false;
	rest = versions;
	while ((word = strsep(&rest, ",")) != NULL)
		found |= !strcmp(word, PVCALLS_VERSION);
	kfree(versions);
	return found;
}

/* Back is InitWait: offers a ring. */
static void bus_offer(struct xenbus_device *dev)
{
	unsigned int order;
	int err;

	order = xenbus_read_unsigned(dev->otherend, "max-page-order", 0);
	if (!bus_has_version(dev) || order < PVCALLS_MIN_ORDER ||
	    !xenbus_read_unsigned(dev->otherend, "function-calls", 0)) {
		xenbus_dev_fatal(dev, -EPROTONOSUPPORT,
				 "backend has no PV Calls version 1");
		return;
	}
	WRITE_ONCE(xl.max_order, min(order, PVCALLS_MAX_ORDER));
	WRITE_ONCE(xl.quiet, xenbus_read_unsigned(dev->otherend,
						  PVCALLS_FEATURE_QUIET, 0));
	WRITE_ONCE(xl.half_close,
		   xenbus_read_unsigned(dev->otherend,
					PVCALLS_FEATURE_HALF_CLOSE, 0));
	err = bus_alloc_ring(dev);
	if (err)
		xenbus_dev_fatal(dev, err, "allocating the command ring");
	else
		err = bus_publish(dev);
	if (err) {
		bus_free_ring(dev);
		return;
	}
	bus.phase = BUS_OFFERED;
	xenbus_switch_state(dev, XenbusStateInitialised);
}

/* Back is Connected. */
static void bus_up(struct xenbus_device *dev)
{
	bus.phase = BUS_UP;
	xenbus_switch_state(dev, XenbusStateConnected);
	spin_lock_irq(&xl.lock);
	xl.irq = bus.irq;
	xl.epoch++;
	if (!xl.epoch)
		xl.epoch = 1;
	xl.connected = true;
	spin_unlock_irq(&xl.lock);
	xl_cmd_start(bus.ring);
	xl_count(XL_N_RECONNECT);
	xl_listener_kick_all();
	wake_up_all(&xl.changed);
	dev_info(&dev->dev, "connected, rings up to %u KiB%s%s\n",
		 4U << xl.max_order, xl.quiet ? ", quiet" : "",
		 xl.half_close ? ", half close" : "");
}

/* Ends everything that lives on the present backend. */
static void bus_down(struct xenbus_device *dev)
{
	if (bus.phase == BUS_DOWN)
		return;
	bus.phase = BUS_DOWN;
	spin_lock_irq(&xl.lock);
	xl.connected = false;
	xl.irq = 0;
	spin_unlock_irq(&xl.lock);
	xl_conn_kill_all();
	xl_cmd_stop(-ECONNRESET);
	xl_conn_drop_idle();
	bus_free_ring(dev);
	wake_up_all(&xl.changed);
}

static bool bus_online(struct xenbus_device *dev)
{
	return xenbus_read_unsigned(dev->otherend, "online", 0);
}

static void bus_changed(struct xenbus_device *dev, enum xenbus_state back)
{
	mutex_lock(&bus.lock);
	switch (back) {
	case XenbusStateInitWait:
		if (bus.phase == BUS_UP)
			bus_down(dev); /* Started again behind our back. */
		if (bus.phase == BUS_DOWN)
			bus_offer(dev);
		break;
	case XenbusStateConnected:
		if (bus.phase == BUS_OFFERED)
			bus_up(dev);
		break;
	case XenbusStateUnknown:
	case XenbusStateClosing:
	case XenbusStateClosed:
		if (bus.phase != BUS_DOWN) {
			dev_info(&dev->dev, "backend is gone\n");
			bus_down(dev);
			xenbus_frontend_closed(dev);
		} else if (dev->state == XenbusStateClosing) {
			xenbus_frontend_closed(dev);
		}
		if (back != XenbusStateClosing &&
		    dev->state == XenbusStateClosed && bus_online(dev))
			xenbus_switch_state(dev, XenbusStateInitialising);
		break;
	default:
		break;
	}
	mutex_unlock(&bus.lock);
}

static void bus_reset(struct work_struct *work)
{
	struct xenbus_device *dev;

	down_read(&xl.device);
	dev = xl.xdev;
	if (dev) {
		mutex_lock(&bus.lock);
		if (bus.phase != BUS_DOWN) {
			xenbus_dev_error(dev, -EPROTO, "reset: %s", bus.why);
			bus_down(dev);
			xenbus_switch_state(dev, XenbusStateClosed);
		}
		mutex_unlock(&bus.lock);
	}
	up_read(&xl.device);
}

static int bus_probe(struct xenbus_device *dev,
		     const struct xenbus_device_id *id)
{
	int err = 0;

	down_write(&xl.device);
	spin_lock_irq(&xl.lock);
	if (xl.xdev)
		err = -EBUSY; /* One device, says the specification. */
	else
		xl.xdev = dev;
	spin_unlock_irq(&xl.lock);
	up_write(&xl.device);
	if (err)
		return err;
	/* A module before us may have left something else. */
	dev->state = XenbusStateUnknown;
	xenbus_switch_state(dev, XenbusStateInitialising);
	return 0;
}

/* The watch on the backend is off already: nothing comes beside us. */
static void bus_remove(struct xenbus_device *dev)
{
	unsigned int ms;

	mutex_lock(&bus.lock);
	if (xl.xdev != dev) {
		mutex_unlock(&bus.lock);
		return;
	}
	if (bus.phase != BUS_DOWN) {
		xenbus_switch_state(dev, XenbusStateClosing);
		/* It unmaps first, then says so. */
		for (ms = 0; ms < CLOSE_WAIT_MS; ms += 10) {
			enum xenbus_state back =
				xenbus_read_driver_state(dev->otherend);

			if (back == XenbusStateClosing ||
			    back == XenbusStateClosed ||
			    back == XenbusStateUnknown)
				break;
			msleep(10);
		}
	}
	bus_down(dev);
	mutex_unlock(&bus.lock);

	down_write(&xl.device);
	spin_lock_irq(&xl.lock);
	xl.xdev = NULL;
	spin_unlock_irq(&xl.lock);
	up_write(&xl.device);
	xl_cmd_stop(-ENETUNREACH); /* who waited for a reconnection */
	xenbus_switch_state(dev, XenbusStateClosed);
}

/* After a migration or a resume all grants and event channels are gone. */
static int bus_resume(struct xenbus_device *dev)
{
	mutex_lock(&bus.lock);
	bus_down(dev);
	dev->state = XenbusStateUnknown;
	xenbus_switch_state(dev, XenbusStateInitialising);
	mutex_unlock(&bus.lock);
	return 0;
}

static const struct xenbus_device_id bus_ids[] = {
	{"pvcalls"},
	{""},
};

static struct xenbus_driver bus_driver = {
	.name = "xenlift_sock",
	.ids = bus_ids,
	.probe = bus_probe,
	.remove = bus_remove,
	.resume = bus_resume,
	.otherend_changed = bus_changed,
	.not_essential = true,
};

int __init xl_bus_init(void)
{
	int err;

	xl_cmd_init();
	xl.wq = alloc_workqueue("xenlift_sock", WQ_UNBOUND, 0);
	if (!xl.wq)
		return -ENOMEM;
	/* Elsewhere the module may be loaded too: everything stays native. */
	if (!xen_domain())
		return 0;
	/* No owner: a device that is merely there must not keep the module
	 * from being unloaded, sockets do that. */
	err = __xenbus_register_frontend(&bus_driver, NULL, KBUILD_MODNAME);
	if (err) {
		destroy_workqueue(xl.wq);
		return err;
	}
	/* What starts right behind us wants to connect. */
	wait_event_timeout(xl.changed,
			   READ_ONCE(xl.connected) || !xl_bus_present(),
			   msecs_to_jiffies(INIT_WAIT_MS));
	return 0;
}

static bool bus_quiesced(void)
{
	bool quiet;

	spin_lock_irq(&xl.lock);
	quiet = xl.n_conns == xl.n_idle && !READ_ONCE(xl.n_listeners);
	spin_unlock_irq(&xl.lock);
	return quiet;
}

/* No socket is ours any more; data of closed ones may be on its way still. */
void xl_bus_exit(void)
{
	wait_event_timeout(xl.changed, bus_quiesced(), 5 * HZ);
	if (xen_domain())
		xenbus_unregister_driver(&bus_driver);
	xl_conn_drop_idle();
	wait_event(xl.changed,
		   !READ_ONCE(xl.n_conns) && !READ_ONCE(xl.n_listeners));
	cancel_work_sync(&bus.reset);
	destroy_workqueue(xl.wq);
}
