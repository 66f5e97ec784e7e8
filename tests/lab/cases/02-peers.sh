# SPDX-License-Identifier: GPL-2.0-or-later
#
# The peers that ours are measured against work here: netfront and blkfront to
# the driver domain, QEMU's 9pfs in dom0.
# lab-seconds: 240
leak_mark
mkdir -p /srv/peer
device=$(disk_of_drv /srv/peer.img 256)
expect "create a guest with vif, disk and QEMU's 9pfs" \
    guest_create peer vif "disk=$device,drv" p9=root,/srv/peer,0
outside=$(guest_vif_up peer)
expect "ping through netfront" in_guest peer "ping -c 2 -W 5 $outside"
expect "file over QEMU's 9pfs" in_guest peer 'mkdir -p /mnt/p &&
    modprobe -a 9p 9pnet_xen &&
    mount -t 9p -o trans=xen,version=9p2000.L root /mnt/p &&
    echo hello > /mnt/p/x'
expect_equal "content in dom0" hello "$(cat /srv/peer/x)"
expect "ext4 on blkfront" in_guest peer 'modprobe -a crc32c_generic xen-blkfront ext4 &&
    i=0; until [ -b /dev/xvda ]; do i=$((i+1)); [ $i -lt 100 ] || exit 1
    usleep 100000; done
    mkdir -p /mnt/d && mke2fs /dev/xvda > /dev/null 2>&1 &&
    mount -t ext4 /dev/xvda /mnt/d && echo there > /mnt/d/x && sync'
guest_destroy peer
in_drv "losetup -d $device; rm -f /srv/peer.img"
leakcheck
