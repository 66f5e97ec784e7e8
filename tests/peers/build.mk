# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,peers,tests/peers/p9front.c)
# A frontend that does not keep the rules; runs in a guest or over hv/local.
$(call program,hostile,tests/peers/hostile.c tests/peers/hostile-sockets.c \
	tests/peers/hostile-files.c,peers pvfront ring hv lift,\
	-lxenstore -ljansson)
