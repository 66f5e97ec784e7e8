# SPDX-License-Identifier: GPL-2.0-or-later
#
# A worker is killed: its old streams are reset, listeners and new sockets
# work again, another guest noticed nothing.
# lab-tier: long
# lab-seconds: 300
# lab-kernels: 6.1 6.12
need xenliftd xenlift-guest
stack_up
server_up
leak_mark
sock_guest a
worker=$(in_drv 'pgrep -x xenlift-guest')
sock_guest b
in_guest -t 200 a "/lab/socktest hold $DRV_IP $PORT 100 > /tmp/hold 2>&1
    echo \$? > /tmp/hold.rc" &
in_guest a '/lab/socktest keep 7900 > /tmp/keep 2>&1 &'
in_guest -t 200 b "/lab/socktest hold $DRV_IP $PORT 40 > /tmp/hold 2>&1
    echo \$? > /tmp/hold.rc" &
for g in a b; do
    wait_until 20 in_guest $g 'grep -q HOLDING /tmp/hold' || fail "no stream"
done
wait_until 20 in_guest a 'grep -q LISTENING /tmp/keep' || fail "no listener"
expect "the listener" in_drv 'socktest visit 10.77.0.2 7900 1'
in_drv "kill -KILL $worker"
wait_until 30 in_guest a 'test -f /tmp/hold.rc' || fail "the old stream hangs"
in_guest a 'cat /tmp/hold; exit $(cat /tmp/hold.rc)'
expect_equal "old streams are reset" 3 $?
wait_until 60 sock_connected a || fail "no new worker"
expect "new sockets" sock a many $DRV_IP $PORT 4 100000
expect "the old listener accepts again" \
    wait_until 30 in_drv 'socktest visit 10.77.0.2 7900 1'
wait_until 60 in_guest b 'test -f /tmp/hold.rc'
expect "the other guest noticed nothing" \
    in_guest b 'cat /tmp/hold; exit $(cat /tmp/hold.rc)'
guest_destroy a b
leakcheck
