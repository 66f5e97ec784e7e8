# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,vafs-tree,$(addprefix vafs-server/tree/,\
	tree.c merge.c siphash.c value.c))

FUZZ_TREE_LIBS := vafs-tree vafs-store lift
FUZZ_TREE_LDLIBS := -lzstd -lxxhash -lcrypto -ljansson
ifeq ($(SAN),fuzz)
$(call program,fuzz-tree,tests/fuzz/fuzz-tree.c,$(FUZZ_TREE_LIBS),\
	-fsanitize=fuzzer $(FUZZ_TREE_LDLIBS))
else
$(call unit,replay-tree,tests/fuzz/fuzz-tree.c tests/fuzz/replay.c,\
	$(FUZZ_TREE_LIBS),$(FUZZ_TREE_LDLIBS))
endif
