# SPDX-License-Identifier: GPL-2.0-or-later
#
# Guests of both kinds and both kernels start and obey, with stock peers only.
# lab-seconds: 240
leak_mark
for type in pvh pv; do
    for kernel in 6.1 6.12; do
        name=plain-$type
        expect "create $type guest, kernel $kernel" \
            guest_create "$name" "$type" "kernel=$kernel"
        version=$(in_guest "$name" 'uname -r')
        expect_equal "kernel of $name" "$kernel." "${version:0:${#kernel}+1}"
        in_guest "$name" 'exit 42'
        expect_equal "exit status" 42 $?
        sum=$(head -c 3000000 /dev/urandom | tee $LAB/random | sha256sum)
        expect_equal "data through the channel" "$sum" \
            "$(in_guest -i "$name" 'cat > /tmp/x; cat /tmp/x' < $LAB/random |
               sha256sum)"
        guest_destroy "$name"
    done
done
leakcheck
