# SPDX-License-Identifier: GPL-2.0-or-later

LAB_XENLIBS := -lxenvchan -lxenstore -lxengnttab -lxenevtchn -lxentoolcore \
	-lxentoollog
# Programs that run in guests of any make are static; each is one file.
LAB_PROGS := $(patsubst tests/lab/prog/%.c,build/lab/prog/%,\
	$(wildcard tests/lab/prog/*.c))

build/lab/prog/%: tests/lab/prog/%.c $(wildcard tests/lab/prog/*.h)
	@mkdir -p $(@D); echo "  CC    $@"
	@gcc -std=gnu11 -O2 -g -D_GNU_SOURCE -Wall -Wextra -Werror \
		-Wno-unused-parameter -static -o $@ $< \
		-I. $(if $(findstring include <libxen,$(shell cat $<))$(findstring include <xen,$(shell cat $<)),$(LAB_XENLIBS)) \
		-lpthread

.PHONY: lab-progs lab-images
lab-progs: $(LAB_PROGS)

## make lab-images          what the lab boots, cached under build/lab
lab-images:
	@tests/lab/images

test-prepare demo-prepare: lab-images lab-progs

## make bench-lab           ours against netfront, blkfront and QEMU's 9pfs
.PHONY: bench-lab
bench-lab: setup
	@$(MAKE) --no-print-directory demo-prepare
	@tests/lab/bench
