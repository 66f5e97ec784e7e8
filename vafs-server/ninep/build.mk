# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,vafs-ninep,$(addprefix vafs-server/ninep/,server.c session.c \
	request.c ops-session.c ops-tree.c ops-io.c fid.c lock.c pool.c))

# Drivers of tests/local/vafs-*, beside the programs that they test.
$(call program,vafs-posix,tests/local/vafs-posix.c,ninep lift,-ljansson)
$(call unit,test-ninep-lock,tests/unit/test-ninep-lock.c \
	vafs-server/ninep/lock.c,lift)
