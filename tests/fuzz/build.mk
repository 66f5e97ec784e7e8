# SPDX-License-Identifier: GPL-2.0-or-later
# Fuzz targets of the worker: with libFuzzer (make SAN=fuzz), and as replay of
# the corpus with the other unit tests.
ifeq ($(SAN),fuzz)
$(call program,fuzz-p9frame,tests/fuzz/fuzz-p9frame.c,guest-worker ring lift,\
	-fsanitize=fuzzer -ljansson)
$(call program,fuzz-pvcalls,tests/fuzz/fuzz-pvcalls.c,guest-worker ring lift,\
	-fsanitize=fuzzer -ljansson)
else
$(call unit,replay-p9frame,tests/fuzz/fuzz-p9frame.c tests/fuzz/replay.c,\
	guest-worker ring lift,-ljansson)
$(call unit,replay-pvcalls,tests/fuzz/fuzz-pvcalls.c tests/fuzz/replay.c,\
	guest-worker ring lift,-ljansson)
endif
