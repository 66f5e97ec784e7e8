# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,vafs-view,vafs-server/view/view.c)
