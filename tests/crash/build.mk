# SPDX-License-Identifier: GPL-2.0-or-later
# File layer in memory and enumeration of crashes, for tests of the store and
# of what stands on it.
$(call library,crash,tests/crash/memfs.c tests/crash/crash.c)
