# SPDX-License-Identifier: GPL-2.0-or-later
#
# A guest that writes absurd indices, sizes, references, unknown commands and
# messages into its rings gets an error or loses that device; another guest
# notices nothing.
# lab-tier: long
# lab-seconds: 400
need xenliftd xenlift-guest vafsd vafs hostile
stack_up
server_up
leak_mark
sock_guest good p9=data,branch/main:/data
in_guest good 'modprobe -a 9p 9pnet_xen && mkdir -p /mnt/d && i=0
    until mount -t 9p -o trans=xen,version=9p2000.L,access=client data /mnt/d; do
        i=$((i+1)); [ $i -lt 50 ] || exit 1; usleep 200000; done' ||
    fail "mount"
guest_create bad memory=384 pvcalls p9=data,branch/main:/data
in_guest -t 300 good "
    while [ ! -f /tmp/stop ]; do
        /lab/socktest many $DRV_IP $PORT 4 100000 > /tmp/s 2>&1 || touch /tmp/bad
        /lab/filetest fsx /mnt/d 7 20 > /tmp/f 2>&1 || touch /tmp/bad
        usleep 200000
    done" &
in_guest -t 300 bad "/lab/hostile --connect $DRV_IP:$PORT" > $LAB/hostile.out 2>&1
status=$?
cat $LAB/hostile.out
in_guest good 'touch /tmp/stop'
wait
expect_equal "hostile cases: exit status" 0 $status
expect "there were hostile cases" grep -q '^ok' $LAB/hostile.out
expect "the other guest noticed nothing" \
    in_guest good '[ ! -f /tmp/bad ] || { cat /tmp/s /tmp/f; exit 1; }'
expect "its sockets still work" sock good many $DRV_IP $PORT 4 100000
expect "its files still work" in_guest good '/lab/filetest fsx /mnt/d 8 100'
guest_destroy good bad
leakcheck
