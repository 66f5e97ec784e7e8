# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# The demonstration, from dom0's point of view.  Lines that begin with 'demo: '
# are shown to the person who watches.
. /share/lab/functions.sh
trap case_end EXIT

demo() { printf 'demo: %s\n' "$*"; }
shown=()
step() { demo "$(printf '%3d s  %s' $((SECONDS)) "$*")"; }
prove()
{
    local what=$1
    shift
    "$@" || { demo "FAILED: $what"; exit 1; }
    shown+=("$what")
    demo "       ok: $what"
}
same() { [ -n "$1" ] && [ "$1" = "$2" ]; }

step "starting vafsd and xenliftd in the driver domain"
stack_up

step "creating guest web (PVH), root on VAFS, with stock xl create"
guest_create web pvh memory=384 pvcalls insmod=xenlift_sock.ko root=9p:root \
    p9=root,branch/main:/root/web
step "creating guest shell (PV) in the same way"
guest_create shell pv memory=384 pvcalls insmod=xenlift_sock.ko root=9p:root \
    p9=root,branch/main:/root/shell
demo
demo "  what xl was given for guest web:"
grep -vE '^(on_|cmdline|ramdisk|kernel|device_model)' $LAB/web.cfg |
    sed 's/^/demo:     /'
demo
for g in web shell; do
    wait_until 30 sock_connected $g ||
        { demo "FAILED: pvcalls of $g does not connect"; exit 1; }
    prove "guest $g has no network card, no disk; its root is $(in_guest $g \
        "awk '\$2 == \"/\" { print \$3 }' /proc/mounts | tail -n 1") on VAFS" \
        in_guest $g '[ "$(ls /sys/class/net)" = lo ] &&
            [ -z "$(ls /sys/block | grep -v ^loop)" ] &&
            [ "$(cat /proc/1/comm)" != systemd ]'
done

step "guest web serves a folder over HTTP"
page="Hello from a guest without a network card, $(date -u +%T)."
in_guest web "mkdir -p /srv/www && echo '$page' > /srv/www/index.html &&
    cd /srv/www && { setsid python3 -m http.server 8080 > /tmp/http.log 2>&1 \
        < /dev/null & }"
wait_until 60 in_drv "curl -sf http://$DRV_IP:8080/" || :
prove "the page is fetched from the driver domain" \
    same "$(in_drv "curl -sf http://$DRV_IP:8080/")" "$page"
prove "and from another machine on its network (dom0)" \
    same "$(curl -sf http://$DRV_IP:8080/)" "$page"

step "guest shell fetches 20 MB from a server in dom0 and keeps it on VAFS"
mkdir -p $LAB/www
head -c 20000000 /dev/urandom > $LAB/www/file
want=$(sha256sum < $LAB/www/file | cut -d' ' -f1)
(cd $LAB/www && exec python3 -m http.server --bind $DOM0_IP 8000 \
    > /dev/null 2>&1) &
server=$!
wait_until 20 curl -sfI http://$DOM0_IP:8000/file || :
rate=$(in_guest -t 120 shell \
    "curl -sf -w '%{speed_download}' -o /root/file http://$DOM0_IP:8000/file")
kill $server
prove "20 MB arrived in the guest with the right SHA-256 ($((${rate%.*} / 1000000)) MB/s)" \
    same "$(in_guest -t 120 shell 'sha256sum < /root/file' | cut -d' ' -f1)" "$want"
in_guest shell sync
step "the file is read back through vafs in the driver domain"
prove "vafs cat main:/root/shell/root/file has the same SHA-256" \
    same "$(in_drv -t 120 'vafs cat main:/root/shell/root/file | sha256sum' |
        cut -d' ' -f1)" "$want"
demo
demo "  xl list in dom0:"
xl list | sed 's/^/demo:     /'
demo "  xenlift list in the driver domain:"
in_drv 'xenlift list 2>&1' | sed 's/^/demo:     /'
demo
guest_destroy web shell
demo "Shown on real Xen, with stock xl and Debian's own kernels:"
for what in "${shown[@]}"; do
    demo "  - $what"
done
exit 0
