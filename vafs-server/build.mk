# SPDX-License-Identifier: GPL-2.0-or-later
VAFS_LIBS := vafs-engine vafs-ninep vafs-view vafs-branch vafs-tree vafs-store \
	ninep lift
$(call library,vafs-engine,vafs-server/engine.c vafs-server/fault.c)
ifneq ($(wildcard vafs-server/branch/build.mk),)
$(call program,vafsd,vafs-server/vafsd.c,$(VAFS_LIBS),\
	-ljansson -lzstd -lxxhash -lcrypto)
endif
