# SPDX-License-Identifier: GPL-2.0-or-later
#
# xenlift: one non-recursive make.  Every folder that builds something has a
# build.mk that calls the three macros below; nothing is built in the source
# tree except the kernel module's scratch files, which go to build/ as well.
#
#   make            programs and kernel module      build/rel/bin
#   make test       set-up, lint, unit, local and lab tests
#   make demo       two guests without network card and disk, on real Xen
#   make SAN=asan   everything again under ASan and UBSan   build/asan
#   make help       the other targets

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

SAN ?= rel
O := build/$(SAN)

CC := gcc
CFLAGS_rel := -O2 -D_FORTIFY_SOURCE=2
CFLAGS_asan := -O1 -fsanitize=address,undefined -fno-sanitize-recover=undefined
CFLAGS_tsan := -O1 -fsanitize=thread
CFLAGS_fuzz := -O1 -fsanitize=fuzzer-no-link,address,undefined \
	-fno-sanitize-recover=undefined
LDFLAGS_rel := -Wl,-z,relro,-z,now
LDFLAGS_asan := -fsanitize=address,undefined
LDFLAGS_tsan := -fsanitize=thread
LDFLAGS_fuzz := -fsanitize=address,undefined
ifeq ($(SAN),fuzz)
CC := clang
endif

WARN := -Wall -Wextra -Werror -Wmissing-prototypes -Wstrict-prototypes \
	-Wpointer-arith -Wvla -Wno-unused-parameter
CFLAGS += -std=gnu11 -g -fno-omit-frame-pointer -fno-strict-aliasing \
	-D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 \
	-I. -I$(O)/gen -MMD -MP $(WARN) $(CFLAGS_$(SAN))
LDFLAGS += $(LDFLAGS_$(SAN))

objs = $(patsubst %.c,$(O)/%.o,$(1))

# $(call library,NAME,SOURCES)  ->  $(O)/libNAME.a
define library_
ALL_OBJS += $(call objs,$(2))
$(O)/lib$(1).a: $(call objs,$(2))
	@rm -f $$@; ar rcs $$@ $$^
endef
library = $(eval $(call library_,$(1),$(2)))

# $(call program,NAME,SOURCES,LIBRARIES,LDLIBS)  ->  $(O)/bin/NAME
define program_
ALL_OBJS += $(call objs,$(2))
PROGRAMS += $(O)/bin/$(1)
$(O)/bin/$(1): $(call objs,$(2)) $(patsubst %,$(O)/lib%.a,$(3))
	@mkdir -p $$(@D); echo "  LD    $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $$^ $(4) -lpthread
endef
program = $(eval $(call program_,$(1),$(2),$(3),$(4)))

# $(call unit,NAME,SOURCES,LIBRARIES,LDLIBS)  ->  $(O)/unit/NAME (Criterion)
define unit_
ALL_OBJS += $(call objs,$(2))
UNITS += $(O)/unit/$(1)
$(O)/unit/$(1): $(call objs,$(2)) $(patsubst %,$(O)/lib%.a,$(3))
	@mkdir -p $$(@D); echo "  LD    $$@"
	@$$(CC) $$(LDFLAGS) -o $$@ $$^ $(4) -lcriterion -lpthread
endef
unit = $(eval $(call unit_,$(1),$(2),$(3),$(4)))

ALL_OBJS :=
PROGRAMS :=
# Headers that must exist before any source is compiled.
GENERATED :=
UNITS :=

.PHONY: all
all:

include $(sort $(wildcard */build.mk */*/build.mk */*/*/build.mk))

all: $(PROGRAMS)

$(O)/%.o: %.c | $(GENERATED)
	@mkdir -p $(@D); echo "  CC    $<"
	@$(CC) $(CFLAGS) $(CFLAGS_$(subst /,_,$(basename $<))) -c -o $@ $<

-include $(sort $(ALL_OBJS:.o=.d))

# Set-up may install what the rest of a run needs, so the rest is a make of its
# own: pkg-config, wildcards and the like then see it.
.PHONY: test test-full demo test-prepare unit
test: setup
	@$(MAKE) --no-print-directory test-prepare
	@tests/run

test-full: setup
	@$(MAKE) --no-print-directory test-prepare
	@tests/run --full

demo: setup
	@$(MAKE) --no-print-directory demo-prepare
	@tests/lab/demo

# Everything that the tiers run, built before any of them starts.
test-prepare demo-prepare: all
test-prepare:
	@$(MAKE) --no-print-directory SAN=asan all units

.PHONY: units
units: $(UNITS)

unit: test-prepare
	@tests/run unit

.PHONY: setup clean help
setup:
	@packaging/setup packages.list

clean:
	rm -rf build/rel build/asan build/tsan build/fuzz

help:
	@sed -n 's/^#   //p' Makefile; \
	sed -n 's/^## //p' $(wildcard */build.mk */*/build.mk */*/*/build.mk)
