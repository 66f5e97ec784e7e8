# SPDX-License-Identifier: GPL-2.0-or-later
## make modules    xenlift_sock.ko for both kernels of Debian 12, build/module
## make kasan-kernel  a guest kernel with KASAN and lockdep, build/kasan

MODULE_SRC := $(wildcard frontend/sockets/module/*.[ch]) \
	frontend/sockets/module/Kbuild wire/ring.h wire/pvcalls.h
MODULE_SERIES := 6.1 6.12
MODULES := $(MODULE_SERIES:%=build/module/%/xenlift_sock.ko)

build/module/%/xenlift_sock.ko: $(MODULE_SRC)
	@mkdir -p $(@D); echo "  KO    $@"
	@kdir=$$(frontend/sockets/module/headers $* build/headers); \
	frontend/sockets/module/build $$kdir $(@D); touch $@

.PHONY: modules kasan-kernel
modules: $(MODULES)
all: $(MODULES)

kasan-kernel:
	@tests/lab/kasan-kernel
