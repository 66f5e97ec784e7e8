# SPDX-License-Identifier: GPL-2.0-or-later
# File layer in memory and enumeration of crashes, for tests of the store and
# of what stands on it.
$(call library,crash,tests/crash/memfs.c tests/crash/crash.c)

STORE_TEST_LDLIBS := -lzstd -lxxhash -lcrypto -ljansson
$(call program,store-threads,tests/crash/store-threads.c tests/unit/store-helper.c,\
	crash vafs-store lift,$(STORE_TEST_LDLIBS))
$(call program,store-kill,tests/crash/store-kill.c,vafs-store lift,$(STORE_TEST_LDLIBS))
$(call program,branch-stress,tests/crash/branch-stress.c,\
	crash vafs-branch vafs-tree vafs-store lift,$(STORE_TEST_LDLIBS))
