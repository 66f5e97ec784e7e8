# SPDX-License-Identifier: GPL-2.0-or-later
#
# xenliftd is killed and started again: workers go on, the new one adopts
# them, nothing breaks; a guest that comes while it is away is served later.
# lab-tier: long
# lab-seconds: 300
need xenliftd xenlift-guest
stack_up
server_up
leak_mark
sock_guest a
in_guest -t 200 a "/lab/socktest hold $DRV_IP $PORT 40 > /tmp/hold 2>&1
    echo \$? > /tmp/hold.rc" &
wait_until 20 in_guest a 'grep -q HOLDING /tmp/hold' || fail "no stream"
worker=$(in_drv 'pgrep -x xenlift-guest')
drv_kill KILL xenliftd
expect "a new connection without a supervisor" sock a many $DRV_IP $PORT 4 100000
guest_create b pvcalls insmod=xenlift_sock.ko
drv_start xenliftd
wait_until 30 sock_connected b || fail "the second guest is not served"
expect "the second guest" sock b many $DRV_IP $PORT 4 100000
in_drv "kill -0 $worker" || fail "the worker did not live on"
note "ok: the worker lives on"
expect "the first guest" sock a many $DRV_IP $PORT 4 100000
wait_until 60 in_guest a 'test -f /tmp/hold.rc'
expect "the old stream noticed nothing" \
    in_guest a 'cat /tmp/hold; exit $(cat /tmp/hold.rc)'
guest_destroy a b
leakcheck
