# SPDX-License-Identifier: GPL-2.0-or-later
#
# A backend that breaks the protocol, rule by rule: the module ends the socket
# or resets the device, the guest lives on, and a good backend finds it ready.
# lab-tier: long
# lab-seconds: 600
need xenliftd xenlift-guest
stack_up sockets
server_up
leak_mark
sock_guest v
expect "before" sock v many $DRV_IP $PORT 2 100000
# From here on the driver domain's pvcalls backend is the evil one.
in_guest v 'rmmod xenlift_sock' || fail "rmmod"
drv_kill KILL xenliftd
in_drv 'killall -KILL xenlift-guest; true'
put_drv /share/prog/sock-evil /tmp/sock-evil
domid=$(domid_of v)
bad=0
while read -r -u 3 scenario wanted; do
    in_drv "DOMID=$(domid_of drv) setsid /tmp/sock-evil $domid $scenario \
        > /tmp/evil.out 2>&1 < /dev/null &"
    in_guest v 'insmod /lab/xenlift_sock.ko' || fail "insmod ($scenario)"
    got=$(in_guest -t 60 v '/lab/sock-evil victim 10.77.0.2 7000')
    in_guest -t 60 v 'rmmod xenlift_sock' || fail "rmmod after $scenario"
    wait_until 25 in_drv 'grep -q : /tmp/evil.out'
    note "$scenario: guest saw '$got'; $(in_drv 'tail -1 /tmp/evil.out')"
    [[ "$got" =~ ^($wanted)$ ]] || { note "wanted '$wanted'"; bad=1; }
    in_drv 'killall -KILL sock-evil 2> /dev/null; true'
done 3<< 'LIST'
stray connect ECONNRESET
twice connect ECONNREFUSED
command connect ECONNRESET
socket connect ECONNRESET
rsp-prod connect ECONNRESET
positive connect EPROTO
restart connect EPROTO
notsupp connect EOPNOTSUPP
in-prod recv ECONNRESET
out-cons recv ECONNRESET
in-error recv EPROTO
in-error-kernel recv EPROTO
geometry recv end
flutter recv ECONNRESET
storm recv end
silent connect EINPROGRESS
LIST
[ $bad = 0 ] || fail "not what was wanted"
stack_up sockets
in_guest v 'insmod /lab/xenlift_sock.ko' || fail "insmod at the end"
wait_until 30 sock_connected v || fail "a good backend is not taken"
expect "after" sock v many $DRV_IP $PORT 4 100000
guest_destroy v
leakcheck
