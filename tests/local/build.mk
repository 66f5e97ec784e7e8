# SPDX-License-Identifier: GPL-2.0-or-later
# Local tier: real programs over hv/local.
$(call library,local-harness,tests/local/harness.c tests/local/echo.c)
$(call program,test-sockets,tests/local/test-sockets.c,\
	local-harness pvfront ring hv lift,-ljansson -lxenstore)
$(call program,test-files,tests/local/test-files.c,\
	local-harness peers ring hv lift,-ljansson -lxenstore)
$(call program,test-system,tests/local/test-system.c tests/local/sup-env.c \
	tests/local/echo.c,pvfront ring hv lift,-ljansson -lxenstore)
