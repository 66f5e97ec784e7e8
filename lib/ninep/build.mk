# SPDX-License-Identifier: GPL-2.0-or-later
$(call library,ninep,lib/ninep/codec.c lib/ninep/client.c lib/ninep/ops.c)
$(call unit,test-ninep,tests/unit/test-ninep.c,ninep lift)
