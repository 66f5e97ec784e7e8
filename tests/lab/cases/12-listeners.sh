# SPDX-License-Identifier: GPL-2.0-or-later
#
# A listener in the guest is reached from outside, a wildcard one from both
# sides; 40 idle listeners, each of which still accepts, and a connect beside.
# lab-kernels: 6.1 6.12
# lab-tier: long
# lab-seconds: 240
need xenliftd xenlift-guest
stack_up
server_up
leak_mark
sock_guest l
in_guest l '/lab/socktest keep 7600 > /tmp/keep 2>&1 &'
wait_until 20 in_guest l 'grep -q LISTENING /tmp/keep' || fail "no listener"
expect "reached from the driver domain" in_drv 'socktest visit 10.77.0.2 7600 1'
expect "reached from dom0 through the network" socktest visit $DRV_IP 7600 1

in_guest l '/lab/socktest both 7601 > /tmp/both 2>&1; echo $? > /tmp/both.rc' &
wait_until 20 in_guest l 'grep -q LISTENING /tmp/both' || fail "no listener"
expect "wildcard from outside" socktest visit $DRV_IP 7601 1
wait_until 20 in_guest l 'test -f /tmp/both.rc'
expect "wildcard from both sides" in_guest l 'cat /tmp/both; exit $(cat /tmp/both.rc)'

in_guest -t 200 l "/lab/socktest listeners $DRV_IP $PORT 7700 40 \
    > /tmp/l40 2>&1; echo \$? > /tmp/l40.rc" &
wait_until 90 in_guest l 'grep -q LISTENING /tmp/l40' ||
    fail "40 listeners: $(in_guest l 'cat /tmp/l40')"
expect "40 idle listeners accept" in_drv -t 120 'socktest visit 10.77.0.2 7700 40'
wait_until 20 in_guest l 'test -f /tmp/l40.rc'
expect "40 listeners end well" in_guest l 'cat /tmp/l40; exit $(cat /tmp/l40.rc)'
guest_destroy l
leakcheck
