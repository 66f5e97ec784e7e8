# SPDX-License-Identifier: GPL-2.0-or-later
#
# vafsd is killed by -9 while a guest writes: nothing that was fsynced is
# missing, vafs verify is clean.
# lab-tier: long
# lab-seconds: 300
need xenliftd xenlift-guest vafsd vafs
stack_up
leak_mark
for round in 1 2 3; do
    guest_create k p9=data,branch/main:/data
    in_guest k 'modprobe -a 9p 9pnet_xen && mkdir -p /mnt/d && i=0
        until mount -t 9p -o trans=xen,version=9p2000.L,access=client data /mnt/d; do
            i=$((i+1)); [ $i -lt 50 ] || exit 1; usleep 200000; done
        rm -rf /mnt/d/k; mkdir /mnt/d/k' || fail "mount"
    in_guest -t 60 k '/lab/filetest synced /mnt/d/k 100000 > /tmp/synced 2>&1 &'
    wait_until 40 in_guest k "[ \$(wc -l < /tmp/synced) -gt $((round * 60)) ]" ||
        fail "nothing is written: $(in_guest k 'tail -n 3 /tmp/synced; ls /mnt/d/k')"
    drv_kill KILL vafsd
    sleep 1
    last=$(in_guest k 'tail -n 1 /tmp/synced')
    note "killed vafsd after file $last was said to be safe"
    guest_destroy k
    expect "verify" in_drv -t 60 "vafs --store $STORE verify"
    drv_start vafsd
    in_drv -t 90 "cd /tmp && rm -rf k && vafs --quiet export main:/data/k k" ||
        fail "export"
    expect "all $((last + 1)) files are there" in_drv "cd /tmp/k &&
        for i in \$(seq 0 $last); do
            [ \"\$(cat synced-\$i)\" = \"content of \$((i * 7919))\" ] ||
                { echo \"synced-\$i is wrong\"; exit 1; }
        done"
done
leakcheck
