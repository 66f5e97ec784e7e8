# SPDX-License-Identifier: GPL-2.0-or-later
$(call program,xenlift,$(addprefix tools/xenlift/,main.c ctl.c lint.c load.c \
	model.c output.c show.c),schema hv lift,\
	-lxenstore -lxenctrl -ljansson)
