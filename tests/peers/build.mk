$(call library,peers,tests/peers/p9front.c)
