# SPDX-License-Identifier: GPL-2.0-or-later
# Names, checker tables and reference page from nodes.md.

XS_NAMES := $(O)/gen/xenstore-names.h
XS_TABLES := $(O)/gen/xenstore-tables.h
GENERATED += $(XS_NAMES) $(XS_TABLES)

$(XS_NAMES) $(XS_TABLES): $(O)/gen/xenstore-%.h: xenstore-schema/nodes.md \
		xenstore-schema/generate
	@mkdir -p $(@D); echo "  GEN   $@"
	@/usr/bin/python3 xenstore-schema/generate $* $< > $@.tmp && mv $@.tmp $@

# The reference page is committed, so that it can be read without a build;
# lint fails when it is older than nodes.md.
build/docs/xenlift-xenstore.7: xenstore-schema/nodes.md \
		xenstore-schema/generate
	@mkdir -p $(@D)
	@/usr/bin/python3 xenstore-schema/generate man $< > $@

## make docs            regenerates the reference page docs/xenlift-xenstore.7
.PHONY: docs
docs: build/docs/xenlift-xenstore.7
	cmp -s $< docs/xenlift-xenstore.7 || cp $< docs/xenlift-xenstore.7

$(call library,schema,xenstore-schema/schema.c xenstore-schema/tree.c \
	xenstore-schema/check.c)
