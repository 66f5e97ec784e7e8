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

PREFIX ?= /usr
INSTALL_SBIN := xenliftd vafsd
INSTALL_BIN := xenlift vafs
INSTALL_LIBEXEC := xenlift-guest

## make install         programs, pages, units; DESTDIR and PREFIX as usual
.PHONY: install
install: $(INSTALL_SBIN:%=$(O)/bin/%) $(INSTALL_BIN:%=$(O)/bin/%) \
		$(INSTALL_LIBEXEC:%=$(O)/bin/%)
	install -D -t $(DESTDIR)$(PREFIX)/sbin $(INSTALL_SBIN:%=$(O)/bin/%)
	install -D -t $(DESTDIR)$(PREFIX)/bin $(INSTALL_BIN:%=$(O)/bin/%)
	install -D -t $(DESTDIR)$(PREFIX)/libexec/xenlift \
		$(INSTALL_LIBEXEC:%=$(O)/bin/%)
	for page in docs/*.[1-9]; do \
		install -D -m 644 -t \
			$(DESTDIR)$(PREFIX)/share/man/man$${page##*.} $$page; \
	done
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/lib/systemd/system \
		packaging/systemd/*.service
	install -D -m 644 -t \
		$(DESTDIR)$(PREFIX)/share/bash-completion/completions \
		packaging/completions/*
