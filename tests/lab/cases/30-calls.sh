# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every socket call that programs use, one by one, in a guest whose sockets the
# driver domain serves; and the guest's own local sockets beside.
# lab-kernels: 6.1 6.12
# lab-tier: long
# lab-seconds: 240
need xenliftd xenlift-guest
stack_up sockets
in_drv 'ip link show dummy0 > /dev/null 2>&1 || ip link add dummy0 type dummy
    ip address replace 10.99.0.1/24 dev dummy0; ip link set dummy0 up'
leak_mark
sock_guest c memory=384
in_guest -t 200 c "ulimit -n 4096; /lab/sock-remote $DRV_IP 7999 10.99.0.77; echo rc \$?
    /lab/sock-local; echo rc \$?" > $LAB/calls 2>&1
cat $LAB/calls
in_guest c 'cd /sys/module/xenlift_sock/parameters && head -30 counters missed'
! grep -q '^not ok' $LAB/calls || fail "$(grep -c '^not ok' $LAB/calls) calls"
[ "$(grep -c '^rc 0' $LAB/calls)" = 2 ] || fail "a test program died"
expect "unload" in_guest c 'rmmod xenlift_sock'
guest_destroy c
leakcheck
