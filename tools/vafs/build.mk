# SPDX-License-Identifier: GPL-2.0-or-later
ifneq ($(wildcard vafs-server/branch/build.mk),)
$(call program,vafs,$(addprefix tools/vafs/,main.c access.c files.c import.c \
	export.c admin.c),vafs-engine vafs-ninep vafs-view vafs-branch \
	vafs-tree vafs-store ninep lift,\
	-larchive -ljansson -lzstd -lxxhash -lcrypto)
endif
