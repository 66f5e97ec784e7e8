# SPDX-License-Identifier: GPL-2.0-or-later

DKMS_VERSION := $(shell sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' packaging/dkms.conf)
DKMS_TREE := build/dkms/xenlift-sock-$(DKMS_VERSION)

## make dkms-tree       what belongs in /usr/src for dkms, in build/dkms
.PHONY: dkms-tree
dkms-tree:
	@rm -rf $(DKMS_TREE) && mkdir -p $(DKMS_TREE)/wire
	@cp frontend/sockets/module/*.[ch] frontend/sockets/module/Kbuild \
		packaging/dkms.conf $(DKMS_TREE)/
	@cp wire/ring.h wire/pvcalls.h $(DKMS_TREE)/wire/
	@echo "  DKMS  $(DKMS_TREE)"
