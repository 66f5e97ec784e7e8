# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,vafs-branch,$(addprefix vafs-server/branch/,\
	arena.c attr.c catalogue.c checkpoint.c data.c dir.c edge.c inode.c \
	kmap.c layer.c log.c name.c rename.c replay.c verify.c write.c xattr.c))
