# SPDX-License-Identifier: GPL-2.0-or-later
# The supervisor.
$(call program,xenliftd,backend/xenliftd.c backend/supervisor.c \
	backend/supervisor-store.c backend/supervisor-worker.c \
	backend/supervisor-ctl.c backend/xenbus.c,hv lift,-lxenstore -ljansson)

# Its tests over hv/local: tests/local/sup-test.c.
$(call program,sup-worker,tests/local/sup-worker.c,hv lift,-lxenstore)
$(call program,sup-test,tests/local/sup-test.c tests/local/sup-env.c,hv lift,-lxenstore -ljansson)
