# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# The measurements of 'make bench-lab', in dom0: ours and the peers in the same
# guest, in turn, in one boot.  Each result is a line
#
#   bench: NAME|UNIT|SIDE|VALUE        SIDE: ours, or the peer's name
#
# UNIT 'us' means that less is better, all others that more is.
. /share/lab/functions.sh
trap case_end EXIT

runs=${BENCH_RUNS:-5}
bench() { printf 'bench: %s\n' "$*"; }
step() { printf 'step: %s\n' "$*"; }
measure()
{
    local name=$1 unit=$2 side=$3 value
    value=$(in_guest -t 120 b "$4" | tail -n 1)
    case $value in
    *[0-9]) bench "$name|$unit|$side|$value" ;;
    *) printf 'no result for %s of %s: %s\n' "$name" "$side" "$value" ;;
    esac
}

step "starting the driver domain's side and a guest with ours and the peers"
stack_up
server_up
mkdir -p /srv/peer
device=$(disk_of_drv /srv/bench.img 600)
guest_create b memory=512 pvcalls vif "disk=$device,drv" \
    p9=data,branch/main:/data p9=peer,/srv/peer,0
outside=$(guest_vif_up b)
# What goes to netfront's network is left to the kernel's own TCP/IP.
in_guest b "insmod /lab/xenlift_sock.ko native=10.78.0.0/16"
wait_until 30 sock_connected b || fail "pvcalls does not connect"
in_guest b "ping -c 1 -W 5 $outside > /dev/null" || fail "no netfront"
in_guest -t 120 b '
    modprobe -a 9p 9pnet_xen crc32c_generic ext4
    mkdir -p /mnt/ours /mnt/peer /mnt/disk
    o=trans=xen,version=9p2000.L,access=client
    i=0; until mount -t 9p -o $o data /mnt/ours; do
        i=$((i + 1)); [ $i -lt 50 ] || exit 1; usleep 200000; done
    mount -t 9p -o $o peer /mnt/peer || exit 1
    mke2fs /dev/xvda > /dev/null 2>&1
    mount -t ext4 /dev/xvda /mnt/disk || exit 1
    mkdir -p /mnt/ours/bench /mnt/peer/bench /mnt/disk/bench' ||
    fail "cannot mount"

socket_side()
{
    local host=$1 side=$2
    measure "TCP out of the guest" MB/s "$side" \
        "/lab/socktest out $host $PORT ${BENCH_BYTES:-40000000}"
    measure "TCP into the guest" MB/s "$side" \
        "/lab/socktest in $host $PORT ${BENCH_BYTES:-40000000}"
    measure "1-byte round trip" us "$side" \
        "/lab/socktest trip $host $PORT 300"
    measure "connect, request, close" 1/s "$side" \
        "/lab/socktest rate $host $PORT 100"
}

file_side()
{
    local dir=$1 side=$2 what count
    for what in create stat read remove; do
        count=150
        in_guest b 'sync; echo 3 > /proc/sys/vm/drop_caches'
        measure "file $what" 1/s "$side" "/lab/filetest bench $dir $what $count"
    done
    measure "sequential write" MB/s "$side" "/lab/filetest bench $dir seqwrite 16"
    in_guest b 'echo 3 > /proc/sys/vm/drop_caches'
    measure "sequential read" MB/s "$side" "/lab/filetest bench $dir seqread 16"
}

for run in $(seq "$runs"); do
    step "sockets, run $run of $runs"
    socket_side "$DRV_IP" ours
    socket_side "$outside" netfront
done
for run in $(seq "$runs"); do
    step "files, run $run of $runs"
    file_side /mnt/ours/bench ours
    file_side /mnt/peer/bench qemu-9pfs
    file_side /mnt/disk/bench blkfront-ext4
done
exit 0
