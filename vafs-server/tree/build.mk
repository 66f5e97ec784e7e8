# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,vafs-tree,$(addprefix vafs-server/tree/,\
	tree.c merge.c siphash.c value.c))
