# SPDX-License-Identifier: GPL-2.0-or-later
#
# Sockets of unmodified programs: what they do with one stream, errors of
# connect and bind, ends told apart, a peer that does not read, loopback.
# lab-kernels: 6.1 6.12
# lab-seconds: 240
need xenliftd xenlift-guest
stack_up
server_up
leak_mark
sock_guest s
for test in "basics $DRV_IP $PORT" "refused $DRV_IP 7999" "inuse 7500" \
    "taken $PORT" "endings $DRV_IP $PORT" "halt $DRV_IP $PORT" \
    "local 7501" "creators $DRV_IP $PORT 100"; do
    expect "$test" sock s $test
done
expect "unload" in_guest s 'rmmod xenlift_sock'
guest_destroy s
leakcheck
