# SPDX-License-Identifier: GPL-2.0-or-later
#
# A guest is destroyed in the middle of transfers, again and again, while
# another one works on undisturbed.
# lab-tier: long
# lab-seconds: 300
need xenliftd xenlift-guest
stack_up
server_up
leak_mark
sock_guest stays
in_guest -t 200 stays "/lab/socktest hold $DRV_IP $PORT 60 > /tmp/hold 2>&1
    echo \$? > /tmp/hold.rc" &
wait_until 20 in_guest stays 'grep -q HOLDING /tmp/hold' || fail "no stream"
for round in 1 2; do
    sock_guest goes
    in_guest goes "
        /lab/socktest out $DRV_IP $PORT 100000000000 > /tmp/out 2>&1 &
        /lab/socktest in $DRV_IP $PORT 100000000000 > /tmp/in 2>&1 &
        /lab/socktest keep 7800 > /tmp/keep 2>&1 &"
    sleep 2
    note "destroying it in the middle of a transfer"
    guest_destroy goes
done
wait_until 90 in_guest stays 'test -f /tmp/hold.rc'
expect "the other guest noticed nothing" \
    in_guest stays 'cat /tmp/hold; exit $(cat /tmp/hold.rc)'
guest_destroy stays
leakcheck
