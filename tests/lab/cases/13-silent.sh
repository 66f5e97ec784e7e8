# SPDX-License-Identifier: GPL-2.0-or-later
#
# Connects to an address that never answers hold up nobody else, and can be
# given up.
need xenliftd xenlift-guest
stack_up
server_up
in_drv 'ip link show dummy0 > /dev/null 2>&1 || ip link add dummy0 type dummy
    ip address replace 10.99.0.1/24 dev dummy0; ip link set dummy0 up'
leak_mark
sock_guest q
expect "silent address" sock q silent $DRV_IP $PORT 10.99.0.77
guest_destroy q
leakcheck
