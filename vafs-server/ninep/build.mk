# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,vafs-ninep,$(addprefix vafs-server/ninep/,server.c session.c \
	request.c ops-session.c ops-tree.c ops-io.c fid.c lock.c pool.c))

$(call unit,test-ninep-lock,tests/unit/test-ninep-lock.c \
	vafs-server/ninep/lock.c,lift)
$(call unit,test-ninep-server,tests/unit/test-ninep-server.c \
	tests/unit/fake-branch.c,vafs-ninep vafs-view ninep lift,-ljansson)
# Drivers of tests/local/vafs-* and of benchmarks, beside the programs that
# they test.
$(call program,vafs-posix,tests/local/vafs-posix.c,ninep lift,-ljansson)
$(call program,vafs-random,tests/local/vafs-random.c,ninep lift,-ljansson)
$(call program,vafs-kill,tests/local/vafs-kill.c,ninep lift,-ljansson)
$(call program,bench-9p,tools/bench-9p.c,ninep lift,-ljansson)
# The server over files in memory, for tests without an engine.
$(call program,vafs-fake,tests/peers/vafs-fake.c tests/unit/fake-branch.c,\
	vafs-ninep vafs-view ninep lift,-ljansson)

# Fuzz targets: with libFuzzer (make SAN=fuzz), else as replay of the corpus.
FUZZ_SERVER := tests/fuzz/ninep-server.c tests/unit/fake-branch.c
ifeq ($(SAN),fuzz)
$(call program,fuzz-ninep-codec,tests/fuzz/ninep-codec.c,ninep lift,\
	-fsanitize=fuzzer -ljansson)
$(call program,fuzz-ninep-server,$(FUZZ_SERVER),vafs-ninep vafs-view ninep \
	lift,-fsanitize=fuzzer -ljansson)
else
$(call unit,replay-ninep-codec,tests/fuzz/ninep-codec.c tests/fuzz/replay.c,\
	ninep lift,-ljansson)
$(call unit,replay-ninep-server,$(FUZZ_SERVER) tests/fuzz/replay.c,\
	vafs-ninep vafs-view ninep lift,-ljansson)
endif

## make bench-9p            vafsd against diod on this machine
.PHONY: bench-9p
bench-9p: $(O)/bin/bench-9p $(O)/bin/vafsd $(O)/bin/vafs
	@tests/bench/run-9p
