# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,guest-worker,backend/worker-core.c backend/worker-control.c \
	backend/idmap.c backend/sockets/pvcalls.c backend/sockets/passive.c \
	backend/sockets/active.c backend/sockets/dataring.c \
	backend/sockets/addr.c backend/files/p9dev.c backend/files/p9frame.c)
$(call program,xenlift-guest,backend/worker.c,guest-worker ring hv lift,\
	-ljansson -lxenstore)
