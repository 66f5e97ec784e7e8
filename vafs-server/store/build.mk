# SPDX-License-Identifier: GPL-2.0-or-later
# The object store, lowest floor of vafs-server.  Users link vafs-store, lift
# and $(STORE_LDLIBS).
STORE_LDLIBS := -lzstd -lxxhash -lcrypto
$(call library,vafs-store,\
	vafs-server/store/cache.c \
	vafs-server/store/codec.c \
	vafs-server/store/crc32c.c \
	vafs-server/store/dump.c \
	vafs-server/store/file.c \
	vafs-server/store/gc.c \
	vafs-server/store/index.c \
	vafs-server/store/index-rebuild.c \
	vafs-server/store/journal.c \
	vafs-server/store/journal-replay.c \
	vafs-server/store/manifest.c \
	vafs-server/store/memtable.c \
	vafs-server/store/objects.c \
	vafs-server/store/run.c \
	vafs-server/store/segment.c \
	vafs-server/store/segment-scan.c \
	vafs-server/store/store.c \
	vafs-server/store/superblock.c \
	vafs-server/store/upkeep.c \
	vafs-server/store/verify.c)

# Figures of the store alone.
$(call program,bench-store,tools/bench-store.c,vafs-store lift,-lzstd -lxxhash -lcrypto -ljansson)

# Fuzz target of what is read from a store's files.
FUZZ_STORE_LIBS := crash vafs-store lift
ifeq ($(SAN),fuzz)
$(call program,fuzz-store,tests/fuzz/fuzz-store.c,$(FUZZ_STORE_LIBS),\
	-fsanitize=fuzzer -lzstd -lxxhash -lcrypto -ljansson)
else
$(call unit,replay-store,tests/fuzz/fuzz-store.c tests/fuzz/replay.c,\
	$(FUZZ_STORE_LIBS),-lzstd -lxxhash -lcrypto -ljansson)
endif
