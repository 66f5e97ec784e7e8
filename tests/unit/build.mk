# SPDX-License-Identifier: GPL-2.0-or-later
# One line a test program: $(call unit,NAME,SOURCES,LIBRARIES,LDLIBS).
# All are built with sanitizers by `make unit`.
comma := ,
$(call unit,test-lib,tests/unit/test-lib.c,lift,-ljansson)
$(call unit,test-schema,tests/unit/test-schema.c,schema)
$(call unit,test-hv-local,tests/unit/test-hv-local.c,broker hv lift,-lxenstore -ljansson)
$(call unit,test-xenlift,tests/unit/test-xenlift.c $(addprefix tools/xenlift/,load.c model.c output.c),schema broker hv lift,-lxenstore -lxenctrl -ljansson)
$(call unit,test-xenbus,tests/unit/test-xenbus.c backend/xenbus.c)
# lib/ring.c is included there with its loads replaced.
$(call unit,test-ring,tests/unit/test-ring.c,lift)
$(call unit,test-store,tests/unit/test-store.c tests/unit/store-helper.c,crash vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson)
$(call unit,test-store-crash,tests/unit/test-store-crash.c tests/unit/store-helper.c,crash vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson)
$(call unit,test-store-gc,tests/unit/test-store-gc.c tests/unit/store-helper.c,crash vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson)
$(call unit,test-store-oom,tests/unit/test-store-oom.c,vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson -Wl$(comma)--wrap=malloc$(comma)--wrap=calloc$(comma)--wrap=realloc$(comma)--wrap=aligned_alloc)
$(call unit,test-tree,tests/unit/test-tree.c,crash vafs-tree vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson)
$(call unit,test-branch-model,tests/unit/test-branch-model.c tests/unit/branch-helper.c,crash vafs-branch vafs-tree vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson)
$(call unit,test-branch-crash,tests/unit/test-branch-crash.c tests/unit/branch-helper.c,crash vafs-branch vafs-tree vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson)
$(call unit,test-branch,tests/unit/test-branch.c tests/unit/branch-helper.c,crash vafs-branch vafs-tree vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson)
$(call unit,test-branch-oom,tests/unit/test-branch-oom.c,vafs-branch vafs-tree vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson -Wl$(comma)--wrap=malloc$(comma)--wrap=calloc$(comma)--wrap=realloc$(comma)--wrap=mmap)
