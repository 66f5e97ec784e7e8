# SPDX-License-Identifier: GPL-2.0-or-later
#
# The administrator's command on a real xenstore: lint finds nothing wrong with
# what toolstack, stock 9p frontend, our module and xenliftd wrote, seen from
# domain 0 and from the driver domain; what a guest breaks is named; a dump of
# another machine can be checked.
# lab-tier: long
# lab-seconds: 300
need xenliftd xenlift-guest xenlift
stack_up
leak_mark
sock_guest x p9=data,branch/main:/data
id=$(domid_of x)
port=/local/domain/$id/device/pvcalls/0/port

wait_until 20 in_guest x 'mkdir -p /mnt &&
    mount -t 9p -o trans=xen,version=9p2000.L,access=client data /mnt' ||
    note "files are not served; sockets only"
for where in eval in_drv; do
    expect "lint ($where)" $where 'xenlift lint'
    expect "list names the device ($where)" \
        $where "xenlift list | grep '^$id .*pvcalls/0  *Connected.*Connected'"
    expect "show ($where)" $where "xenlift show $id | grep 'feature-quiet=1'"
done
expect "domain 0 knows state and type" eval "xenlift list | grep '^$id *x *idle\|^$id *x *running'"
expect "the daemon's view" in_drv "xenlift show $id | grep -q 'worker: running'"
expect "ctl" in_drv "xenlift ctl coverage/show | grep -q sup_device_connected"

expect "a dump is as good" eval 'xenstore-ls -fp | xenlift --dump - lint'
was=$(xenstore-read "$port")
xenstore-write "$port" nonsense
for where in eval in_drv; do
    status=0
    out=$($where 'xenlift lint' 2>&1) || status=$?
    expect_equal "exit status for a violation ($where)" 1 $status
    expect "it is named ($where)" eval "grep -q '^$port: type' <<< '$out'"
done
xenstore-write "$port" "$was"
expect "and gone again" xenlift lint
guest_destroy x
# libxl leaves the driver domain's directory to xenliftd.
expect "nothing is left over" wait_until 30 in_drv 'xenlift lint'
leakcheck
