# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,pvfront,frontend/sockets/user/pvfront.c)
