# SPDX-License-Identifier: GPL-2.0-or-later
# Programs that link `hv` also need -lxenstore, and -lxenctrl if they call
# hv_domains(), which stands in an object of its own so that others need not.
$(call library,hv,hv/hv.c hv/xen.c hv/local.c hv/local-call.c \
	hv/local-store.c hv/xen-domains.c)
$(call library,broker,hv/broker.c hv/broker-resources.c hv/registry.c)
$(call program,xenlift-broker,hv/broker-main.c,broker lift,-ljansson)
