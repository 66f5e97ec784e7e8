$(call library,ninep,lib/ninep/codec.c lib/ninep/client.c lib/ninep/ops.c)
