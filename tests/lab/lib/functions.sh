# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What the lab's cases are written with.  Runs in dom0, under bash.
#
#   guest_create NAME [OPTION...]   starts a guest and waits for its agent
#       pv | pvh              kind (default $LAB_TYPE)
#       kernel=6.1|6.12|kasan default $LAB_KERNEL
#       memory=MiB vcpus=N
#       root=none|9p:TAG      initial RAM disk only, or a root on 9p
#       insmod=FILE           our module, loaded by the first process
#       pvcalls               a pvcalls= entry with our backend in drv
#       p9=TAG,PATH[,BACKEND] a p9= entry; backend drv unless given
#       vif                   a netfront whose netback is in drv
#       disk=DEVICE,BACKEND   blkfront
#       append=WORDS          more for the kernel's command line
#       config=LINE           a line of xl configuration
#       nowait                do not wait for the agent
#   guest_destroy NAME...           xl destroy, waits until it is gone
#   in_guest [-i] [-t S] NAME CMD   runs CMD in the guest: output, exit status
#   in_drv [-i] [-t S] CMD          the same in the driver domain
#   put_guest NAME FILE PATH, put_drv FILE PATH
#   expect WHAT CMD...              the command must succeed
#   expect_equal WHAT WANTED GOT
#   wait_until SECONDS CMD...       polls until the command succeeds
#   note TEXT                       a line in the case's log
#   leak_mark, leakcheck            see below
#   skip WHY                        ends the case, counted as skipped

export LC_ALL=C
: "${LAB_TYPE:=pvh}" "${LAB_KERNEL:=6.1}"
LAB=/run/lab
mkdir -p $LAB
PATH=/share/prog:/share/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/xen-4.17/bin
CREATED=()
DRV_IP=10.77.0.2
DOM0_IP=10.77.0.1
# Kernels are told not to spend an emulated processor's time on defences
# against faults that it does not have.
LAB_APPEND="console=hvc0 mitigations=off randomize_kstack_offset=off"

note() { printf '[%6.1f] %s\n' "$(lab_clock)" "$*"; }
lab_clock() { cut -d' ' -f1 /proc/uptime; }
fail() { note "FAILED: $*"; exit 1; }
skip() { note "skipped: $*"; echo "$*" > "$LAB/skip"; exit 77; }

# wait_until SECONDS COMMAND...: polls; false when the time is over.
wait_until()
{
    local end=$((SECONDS + $1))
    shift
    until "$@" > /dev/null 2>&1; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

expect()
{
    local what=$1
    shift
    if "$@"; then
        note "ok: $what"
    else
        fail "$what (status $?: $*)"
    fi
}

expect_equal()
{
    [ "$2" = "$3" ] || fail "$1: wanted '$2', got '$3'"
    note "ok: $1"
}

domid_of() { cat "$LAB/domid-$1"; }

in_guest()
{
    local options=()
    while [ "${1:0:1}" = - ]; do
        case $1 in
        -t) options+=(-t "$2"); shift 2 ;;
        *) options+=("$1"); shift ;;
        esac
    done
    in_domain "${options[@]}" "$(domid_of "$1")" "$2"
}

in_drv()
{
    local options=()
    while [ "${1:0:1}" = - ]; do
        case $1 in
        -t) options+=(-t "$2"); shift 2 ;;
        *) options+=("$1"); shift ;;
        esac
    done
    in_domain "${options[@]}" "$(domid_of drv)" "$1"
}

put_guest()
{
    in_guest -i -t 120 "$1" "cat > '$3.new' && chmod 755 '$3.new' \
        && mv '$3.new' '$3'" < "$2"
}
put_drv() { put_guest drv "$@"; }

# The initial RAM disk of a kernel: the cached part, and the part with our own
# programs, which changes often.
lab_ramdisk()
{
    local out=$LAB/ramdisk-$1

    (
        flock 9
        if [ ! -f "$out" ] || [ "/share/overlay-$1.cpio" -nt "$out" ]; then
            cat "/share/initrd-$1" "/share/overlay-$1.cpio" > "$out.new"
            mv "$out.new" "$out"
        fi
    ) 9> "$LAB/ramdisk.lock"
    echo "$out"
}

# domain_start NAME: xl create, and remember its id.
domain_start()
{
    local try

    for try in 1 2 3; do
        if timeout 120 xl create -q "$LAB/$1.cfg" < /dev/null; then
            xl domid "$1" > "$LAB/domid-$1"
            return 0
        fi
        note "xl create $1 failed (try $try)"
        xl list "$1" > /dev/null 2>&1 && timeout 60 xl destroy "$1"
        # Only what is known to fail now and then under emulation is repeated.
        [ "$try" -lt 2 ] || break
    done
    return 1
}

drv_create()
{
    local disks
    disks='"format=raw,vdev=xvda,access=w,script=/share/lab/block,target=/dev/vdb"'
    [ ! -b /dev/vdc ] ||
        disks+=',"format=raw,vdev=xvdb,access=w,script=/share/lab/block,target=/dev/vdc"'
    cat > "$LAB/drv.cfg" <<CFG
name="drv"
type="pvh"
kernel="/boot/vmlinux-6.1"
ramdisk="$(lab_ramdisk 6.1)"
cmdline="$LAB_APPEND lab=drv lab.root=/dev/xvda"
memory=${LAB_DRV_MEMORY:-1024}
vcpus=1
tsc_mode="native"
driver_domain=1
max_grant_frames=128
max_maptrack_frames=4096
max_event_channels=16384
vif=["script=/share/lab/vif"]
disk=[$disks]
CFG
    domain_start drv || return 1
    in_drv -t 180 true
}

guest_create()
{
    local name=$1 type=$LAB_TYPE kernel=$LAB_KERNEL memory=256 vcpus=1
    local root=none append='' wait=1 vif=0 vbd=0 qemu=0 foreign=0 word backend
    local p9=() disks=() lines=() jobs=() tag path try image
    shift

    for word in "$@"; do
        case $word in
        pv|pvh) type=$word ;;
        kernel=*) kernel=${word#*=} ;;
        memory=*) memory=${word#*=} ;;
        vcpus=*) vcpus=${word#*=} ;;
        root=*) root=${word#*=} ;;
        insmod=*) append+=" lab.insmod=${word#*=}" ;;
        append=*) append+=" ${word#*=}" ;;
        config=*) lines+=("${word#*=}") ;;
        pvcalls) lines+=('pvcalls=["backend=drv"]') ;;
        p9=*)
            IFS=, read -r tag path backend <<< "${word#p9=}"
            backend=${backend:-drv}
            word="tag=$tag,path=$path,security_model=none"
            [ "$backend" = 0 ] || word+=",backend=$backend"
            p9+=("'$word'")
            if [ "$backend" = 0 ]; then qemu=1; else foreign=1; fi
            ;;
        vif) vif=1
            lines+=('vif=["backend=drv,script=/bin/true"]') ;;
        disk=*)
            IFS=, read -r path backend <<< "${word#disk=}"
            disks+=("'format=raw,vdev=xvda,access=w,${backend:+backend=$backend,}script=/share/lab/block,target=$path'")
            [ -z "$backend" ] || vbd=1
            ;;
        nowait) wait=0 ;;
        *) fail "guest_create: unknown option '$word'" ;;
        esac
    done

    # QEMU has nothing to do for devices whose backend is in drv.
    [ $foreign = 0 ] || [ $qemu = 1 ] || lines+=(
        'device_model_override="/share/lab/no-device-model"'
        'device_model_version="qemu-xen-traditional"')
    CREATED+=("$name")
    image=/boot/vmlinux-$kernel
    if [ "$kernel" = kasan ]; then
        image=/share/vmlinux-kasan
        [ -f $image ] || skip "no kernel with KASAN; see tests/lab/kasan-kernel"
        [ "$memory" -ge 768 ] || memory=768
    fi
    {
        cat <<CFG
name="$name"
type="$type"
kernel="$image"
ramdisk="$(lab_ramdisk "$kernel")"
cmdline="$LAB_APPEND lab=guest lab.root=$root$append"
memory=$memory
vcpus=$vcpus
tsc_mode="native"
on_crash="destroy"
on_reboot="destroy"
CFG
        printf '%s\n' "${lines[@]}" | sort -u
        [ ${#p9[@]} -eq 0 ] || (IFS=,; echo "p9=[${p9[*]}]")
        [ ${#disks[@]} -eq 0 ] || (IFS=,; echo "disk=[${disks[*]}]")
    } > "$LAB/$name.cfg"

    for try in 1 2 3; do
        jobs=()
        if [ $vif = 1 ]; then
            drv_hotplug_vif &
            jobs+=($!)
        fi
        if [ $vbd = 1 ]; then
            drv_hotplug_vbd &
            jobs+=($!)
        fi
        domain_start "$name" || return 1
        for word in "${jobs[@]}"; do
            wait "$word" || fail "a backend in drv did not come up for $name"
        done
        [ $wait = 1 ] || return 0
        in_guest -t 180 "$name" true && return 0
        # The emulated processor makes about one PVH guest in ten end by a
        # triple fault before its kernel has said a word.  That one failure,
        # and no other, is met by a new try.
        guest_gone "$name" && xl dmesg |
            grep -q "d$(domid_of "$name")v0 Triple fault" || break
        note "guest $name ended by a triple fault at its start; again"
    done
    fail "guest $name does not answer"
}

# A netback in the driver domain: no hotplug tools there, so say it is done.
# The guest's end is 10.78.ID.2, the driver domain's 10.78.ID.1.
drv_hotplug_vif()
{
    in_drv -t 100 '
        for i in $(seq 300); do
            for d in $(xenstore-list backend/vif 2>/dev/null); do
                p=backend/vif/$d/0
                [ "$(xenstore-read $p/hotplug-status 2>/dev/null)" = connected ] && continue
                [ -e /sys/class/net/vif$d.0 ] || continue
                xenstore-write $p/hotplug-status connected
                ip address add 10.78.$((d % 250)).1/24 dev vif$d.0
                ip link set vif$d.0 up
                exit 0
            done
            sleep 0.1
        done
        exit 1'
}

# The guest's end of it.
guest_vif_up()
{
    local id
    id=$(($(domid_of "$1") % 250))
    in_guest "$1" "for m in xen-netfront; do modprobe \$m; done
        for i in \$(seq 100); do [ -e /sys/class/net/eth0 ] && break; sleep 0.1; done
        ip address add 10.78.$id.2/24 dev eth0 && ip link set eth0 up"
    echo "10.78.$id.1"
}

guest_gone() { ! xl list "$1" > /dev/null 2>&1; }

guest_destroy()
{
    local name
    for name in "$@"; do
        timeout 60 xl destroy "$name" ||
            guest_gone "$name" || fail "cannot destroy $name"
        wait_until 30 guest_gone "$name" || fail "$name does not go away"
        rm -f "$LAB/domid-$name"
    done
}

# What may be left behind after a case is counted, not guessed: what the
# driver domain holds (grants mapped by it, its event channels, our processes
# and their descriptors, backend directories) and domains that cannot die
# because somebody still has their memory.  leak_mark remembers, leakcheck
# compares, waiting some seconds for things to settle.
leak_count()
{
    local drv
    drv=$(domid_of drv)
    xl dmesg -c > /dev/null
    xl debug-keys g
    echo "grants $(xl dmesg -c | leak_grants "$drv")"
    echo "event-channels $(lsevtchn "$drv" 2> /dev/null | wc -l)"
    echo "zombies $(xl list | awk 'NR > 1 && ($1 == "(null)" || $5 ~ /d/)' | wc -l)"
    in_drv '
        for kind in pvcalls 9pfs vif vbd; do
            echo backend-$kind $(xenstore-list backend/$kind 2>/dev/null | wc -l)
        done
        echo workers $(pgrep -xc xenlift-guest)
        for p in xenliftd vafsd; do
            n=0
            for pid in $(pgrep -x $p); do
                n=$((n + $(ls /proc/$pid/fd | wc -l)))
            done
            echo fds-$p $n
        done'
}

# Counts the grants that domain $1 has mapped, from the answer to 'g'.
leak_grants()
{
    awk -v drv="$1" '
        /gnttab_usage_print_all/ { next }
        /-------- active --------/ { next }
        # [ref] localdom mfn pin flags remote
        /^\(XEN\) \[ *0x[0-9a-f]+\]|^\(XEN\) \[ *[0-9]+\]/ {
            sub(/^\(XEN\) \[[^]]*\] */, "")
            if ($1 == drv && $3 != "0" && $3 !~ /^0x0*$/)
                n++
        }
        END { print n + 0 }'
}

leak_mark() { leak_count > "$LAB/leak-before"; cat "$LAB/leak-before"; }

leakcheck()
{
    local i
    for i in $(seq 15); do
        leak_count > "$LAB/leak-after"
        if cmp -s "$LAB/leak-before" "$LAB/leak-after"; then
            note "ok: nothing leaked"
            return 0
        fi
        sleep 1
    done
    diff "$LAB/leak-before" "$LAB/leak-after"
    fail "something leaked (< before, > after)"
}

# The emulated processor can end any PVH domain by a triple fault, the driver
# domain too; xl then starts it again, under a new number.  To be called before
# a case does anything: makes such a new one usable.
drv_check()
{
    local id

    if ! wait_until 30 xl list drv; then
        note "the driver domain is gone; making a new one"
        rm -f $LAB/installed
        drv_create || fail "no driver domain"
        return
    fi
    id=$(xl domid drv)
    [ "$id" != "$(domid_of drv)" ] || return 0
    note "the driver domain was restarted; it is domain $id now"
    echo "$id" > $LAB/domid-drv
    rm -f $LAB/installed
    in_drv -t 180 true || fail "the new driver domain does not answer"
}

# A disk whose backend is in the driver domain: a sparse file behind a loop
# device there.  disk_of_drv FILE MIB prints the device.
disk_of_drv()
{
    in_drv "truncate -s $2M $1 && losetup -f --show $1"
}

# Does for the driver domain's next block device what hotplug tools would.
drv_hotplug_vbd()
{
    in_drv -t 100 '
        for i in $(seq 300); do
            for d in $(xenstore-list backend/vbd 2>/dev/null); do
                for n in $(xenstore-list backend/vbd/$d); do
                    p=backend/vbd/$d/$n
                    [ "$(xenstore-read $p/hotplug-status 2>/dev/null)" = connected ] && continue
                    dev=$(xenstore-read $p/params)
                    xenstore-write $p/physical-device $(stat -Lc %t:%T $dev) \
                        $p/physical-device-path $dev $p/hotplug-status connected
                    exit 0
                done
            done
            sleep 0.1
        done
        exit 1'
}

# ---- Our side ----
#
#   drv_install            our programs into the driver domain
#   stack_up [STORE]       vafsd and xenliftd run there (started if need be)
#   drv_start PROGRAM      starts xenliftd or vafsd
#   drv_kill SIGNAL PROGRAM
#   server_up              'socktest serve' in drv, port 7000
#   sock_guest NAME [OPTION...]  a guest with pvcalls= and our module, ready
#   sock NAME TEST ARG...  socktest in the guest

PORT=7000
STORE=/srv/vafs/store

have() { [ -x "/share/bin/$1" ]; }
need()
{
    local program
    for program in "$@"; do
        have "$program" || skip "$program is not built"
    done
}

drv_install()
{
    local stamp
    stamp=$(stat -c '%n %Y %s' /share/bin/* /share/prog/* | sha256sum)
    [ "$(cat $LAB/installed 2> /dev/null)" = "$stamp" ] && return
    tar -C /share -cf - bin prog | in_drv -i -t 120 \
        'mkdir -p /opt/xenlift && tar -C /opt/xenlift -xf - &&
         ln -sf /opt/xenlift/bin/* /opt/xenlift/prog/socktest /usr/local/bin/' &&
        echo "$stamp" > $LAB/installed
}

drv_running() { in_drv "pgrep -x $1 > /dev/null"; }

drv_start()
{
    case $1 in
    xenliftd)
        in_drv "cd / && setsid xenliftd --run-dir /run/xenlift \
            --vafsd /run/vafs/guest.sock $XENLIFTD_OPTIONS \
            >> /var/log/lab/xenliftd.log 2>&1 < /dev/null &"
        wait_until 20 in_drv 'xenlift ctl version || test -S /run/xenlift/xenliftd.ctl'
        ;;
    vafsd)
        in_drv "cd / && mkdir -p /run/vafs && setsid vafsd --run-dir /run/vafs \
            $VAFSD_OPTIONS $STORE \
            >> /var/log/lab/vafsd.log 2>&1 < /dev/null &"
        wait_until 20 in_drv 'test -S /run/vafs/guest.sock'
        ;;
    esac || fail "$1 does not start: $(in_drv "tail -n 5 /var/log/lab/$1.log")"
}
: "${XENLIFTD_OPTIONS:=}" "${VAFSD_OPTIONS:=}"

drv_kill()
{
    in_drv "pkill -$1 -x $2"
    wait_until 20 in_drv "! pgrep -x $2" || fail "$2 does not end by $1"
}

stack_up()
{
    drv_check
    drv_install || fail "cannot install our programs in drv"
    if [ "${1:-}" != sockets ] && have vafsd; then
        in_drv "[ -d $STORE ] || vafs init $STORE" ||
            fail "vafs init"
        drv_running vafsd || drv_start vafsd
    fi
    drv_running xenliftd || drv_start xenliftd
}

server_up()
{
    in_drv "pgrep -x socktest > /dev/null || {
        setsid socktest serve 0.0.0.0 $PORT > /var/log/lab/serve.log 2>&1 \
            < /dev/null & }"
    wait_until 20 in_drv "ss -ltn | grep -q ':$PORT '" ||
        fail "no server in drv: $(in_drv 'cat /var/log/lab/serve.log')"
}

device_state()
{
    xenstore-read "/local/domain/$(domid_of "$1")/device/$2/0/state" \
        2> /dev/null
}

sock_connected() { [ "$(device_state "$1" pvcalls)" = 4 ]; }

sock_guest()
{
    local name=$1
    shift
    guest_create "$name" pvcalls insmod=xenlift_sock.ko "$@" ||
        fail "cannot create $name"
    wait_until 30 sock_connected "$name" ||
        fail "pvcalls of $name does not connect (front $(device_state "$name" pvcalls))"
}

sock() { in_guest -t "${SOCK_SECONDS:-120}" "$1" "/lab/socktest ${*:2}"; }

case_end()
{
    local status=$? name

    [ -z "${LAB_PAUSE:-}" ] || [ $status = 0 ] || [ $status = 77 ] ||
        exit $status
    mkdir -p /share/out/keep
    if [ -f "$LAB/installed" ]; then
        timeout 30 in_domain -t 20 "$(domid_of drv)" \
            'tail -c 300000 /var/log/lab/*.log' > /share/out/keep/drv.log 2>&1
    fi
    # Only our own: several people may use one lab.
    for name in "${CREATED[@]}"; do
        timeout 60 xl destroy "$name" > /dev/null 2>&1
        rm -f "$LAB/domid-$name"
    done
    exit $status
}
