# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,lift,lib/util.c lib/vlog.c lib/coverage.c lib/loop.c lib/ctl.c \
	lib/isolation.c)
$(call library,ring,lib/ring.c)
