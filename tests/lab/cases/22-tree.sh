# SPDX-License-Identifier: GPL-2.0-or-later
#
# A real source tree (busybox, more than 2,000 files) is unpacked in the guest,
# compared file by file there, and again from outside after a restart of vafsd.
# lab-tier: long
# lab-seconds: 800
need xenliftd xenlift-guest vafsd vafs
[ -f /share/source.tar ] || skip "no source tree"
stack_up
leak_mark
expect "create a guest" guest_create t p9=data,branch/main:/data
expect "mount" in_guest t 'modprobe -a 9p 9pnet_xen && mkdir -p /mnt/d && i=0
    until mount -t 9p -o trans=xen,version=9p2000.L,access=client data /mnt/d; do
        i=$((i+1)); [ $i -lt 50 ] || exit 1; usleep 200000; done
    mkdir -p /mnt/d/tree'
start=$SECONDS
expect "unpack" in_guest -i -t 240 t 'cd /mnt/d/tree && tar -xf -' < /share/source.tar
note "unpacked $(cat /share/source.files) files in $((SECONDS - start)) s"
in_guest -i t 'cat > /tmp/sums' < /share/source.sums
start=$SECONDS
expect "every file has the right content" \
    in_guest -t 240 t 'cd /mnt/d/tree && sha256sum -c /tmp/sums > /tmp/out 2>&1 ||
        { grep -v OK /tmp/out | head; exit 1; }'
note "compared in $((SECONDS - start)) s"
guest_destroy t
drv_kill TERM vafsd
in_drv "vafs --store $STORE verify" || fail "verify after a restart"
drv_start vafsd
guest_create t2 p9=data,branch/main:/data
expect "mount again" in_guest t2 'modprobe -a 9p 9pnet_xen && mkdir -p /mnt/d && i=0
    until mount -t 9p -o trans=xen,version=9p2000.L,access=client data /mnt/d; do
        i=$((i+1)); [ $i -lt 50 ] || exit 1; usleep 200000; done'
in_guest -i t2 'cat > /tmp/sums' < /share/source.sums
expect "every file is the same after a restart of vafsd" \
    in_guest -t 240 t2 'cd /mnt/d/tree && sha256sum -c /tmp/sums > /tmp/out 2>&1 ||
        { grep -v OK /tmp/out | head; exit 1; }'
expect "read by vafs in the driver domain" in_drv '
    cd /tmp && rm -rf exported && vafs --quiet export main:/data/tree exported'
in_drv -i 'cat > /tmp/sums' < /share/source.sums
expect "the exported tree" in_drv 'cd /tmp/exported && sha256sum --quiet -c ../sums'
start=$SECONDS
expect "remove" in_guest -t 240 t2 'rm -rf /mnt/d/tree'
note "removed in $((SECONDS - start)) s"
guest_destroy t2
leakcheck
