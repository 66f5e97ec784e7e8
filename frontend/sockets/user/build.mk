$(call library,pvfront,frontend/sockets/user/pvfront.c)
