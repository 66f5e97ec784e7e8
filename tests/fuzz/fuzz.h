/* SPDX-License-Identifier: GPL-2.0-or-later
 *
 * fuzz.h - a fuzz target: libFuzzer's entry point.  The same object is linked
 * with libFuzzer (SAN=fuzz) or with tests/fuzz/replay.c, which feeds it the
 * corpus.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H 1

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif /* tests/fuzz/fuzz.h */
