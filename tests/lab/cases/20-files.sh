# SPDX-License-Identifier: GPL-2.0-or-later
#
# Files of a stock guest: links, renames over open files, unlinked open files,
# sparse files, appends from two processes, attributes, mmap, locks, and random
# operations against a copy in memory.
# lab-kernels: 6.1 6.12
# lab-tier: long
# lab-seconds: 480
need xenliftd xenlift-guest vafsd vafs
stack_up
leak_mark
expect "create a guest" guest_create f p9=data,branch/main:/data
expect "mount" in_guest f 'modprobe -a 9p 9pnet_xen && mkdir -p /mnt/d && i=0
    until mount -t 9p -o trans=xen,version=9p2000.L,access=client data /mnt/d; do
        i=$((i+1)); [ $i -lt 50 ] || exit 1; usleep 200000; done
    mkdir -p /mnt/d/t && df /mnt/d'
expect "semantics" in_guest -t 240 f '/lab/filetest semantics /mnt/d/t'
for seed in 1 2 3; do
    expect "random operations, seed $seed" \
        in_guest -t 240 f "/lab/filetest fsx /mnt/d/t $seed 600"
done
expect "random operations, mapped and cached" in_guest -t 240 f '
    umount /mnt/d &&
    mount -t 9p -o trans=xen,version=9p2000.L,access=client,cache=mmap,msize=524288 data /mnt/d &&
    /lab/filetest fsx /mnt/d/t 4 600'
expect "nothing is left" in_guest f 'rmdir /mnt/d/t && umount /mnt/d'
guest_destroy f
leakcheck
