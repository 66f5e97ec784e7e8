# SPDX-License-Identifier: GPL-2.0-or-later
#
# The module unloads and loads again, also with open sockets around: it refuses
# while they are in use, and works after it came back.
need xenliftd xenlift-guest
stack_up
server_up
leak_mark
sock_guest m
for round in 1 2 3; do
    expect "connect, round $round" sock m many $DRV_IP $PORT 4 100000
    in_guest m "/lab/socktest hold $DRV_IP $PORT 60 > /tmp/hold 2>&1 &"
    wait_until 20 in_guest m 'grep -q HOLDING /tmp/hold' || fail "no stream"
    in_guest m 'rmmod xenlift_sock 2> /dev/null' &&
        fail "unloaded while a stream was in use"
    in_guest m 'killall socktest; i=0
        until rmmod xenlift_sock 2> /tmp/rmmod; do
            i=$((i + 1)); [ $i -lt 100 ] || { cat /tmp/rmmod; exit 1; }
            usleep 100000
        done' || fail "does not unload"
    note "ok: unloaded"
    expect "local sockets without it" in_guest m '/lab/socktest local 7502'
    in_guest m 'insmod /lab/xenlift_sock.ko' || fail "does not load again"
    wait_until 20 sock_connected m || fail "does not connect again"
done
expect "connect at the end" sock m many $DRV_IP $PORT 4 100000
guest_destroy m
leakcheck
