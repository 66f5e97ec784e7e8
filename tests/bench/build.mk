# SPDX-License-Identifier: GPL-2.0-or-later
$(call program,bench-branch,tests/bench/bench-branch.c,\
	vafs-branch vafs-tree vafs-store lift,-ljansson -lzstd -lxxhash -lcrypto)
