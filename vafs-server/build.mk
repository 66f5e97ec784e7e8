# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,vafs-engine,vafs-server/engine.c vafs-server/fault.c)
ifneq ($(wildcard vafs-server/branch/build.mk),)
$(call program,vafsd,vafs-server/vafsd.c,vafs-engine vafs-ninep vafs-view \
	vafs-branch vafs-tree vafs-store ninep lift,\
	-ljansson -lzstd -lxxhash -lcrypto)
endif
