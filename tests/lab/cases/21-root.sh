# SPDX-License-Identifier: GPL-2.0-or-later
#
# A guest whose root file system is on VAFS, with neither disk nor network
# card: ordinary programs, git, a compiler, extended attributes.
# lab-tier: long
# lab-seconds: 600
need xenliftd xenlift-guest vafsd vafs
stack_up
leak_mark
expect "create a guest with its root on VAFS" \
    guest_create r memory=512 root=9p:root p9=root,branch/main:/root/web
expect "it is Debian" in_guest r '. /etc/os-release && [ "$VERSION_ID" = 12 ]'
expect "no network card, no disk" in_guest r \
    '[ "$(ls /sys/class/net)" = lo ] && [ -z "$(ls /sys/block | grep -v ^loop)" ]'
expect "python" in_guest r 'python3 -c "import json, socket; print(json.dumps([1, 2]))"'
expect "compile, link and run a program" in_guest -t 300 r 'cd /root && cat > t.c <<E
#include <stdio.h>
int main(void) { puts("built here"); return 0; }
E
    gcc -O1 -o t t.c && ./t && cp t t2 && ./t2 && rm t t2 t.c'
expect "git: commit, clone, compare" in_guest -t 300 r '
    export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
    rm -rf /root/r1 /root/r2; mkdir /root/r1 && cd /root/r1 && git init -q . &&
    for i in 1 2 3 4 5 6 7 8 9 10; do echo "line $i" > file-$i; done &&
    ln -s file-1 link && git add . && git commit -qm one &&
    git mv file-1 renamed && git commit -qam two &&
    git clone -q /root/r1 /root/r2 && git -C /root/r2 fsck --strict &&
    [ "$(git -C /root/r2 rev-parse HEAD)" = "$(git rev-parse HEAD)" ] &&
    diff -r --exclude=.git /root/r1 /root/r2 && rm -rf /root/r1 /root/r2'
expect "attributes of Debian tools" in_guest r 'cd /root && touch x &&
    setfattr -n user.a -v 1 x && getfattr -d x | grep -q user.a &&
    chmod 4755 x && [ "$(stat -c %a x)" = 4755 ] && rm x'
expect "semantics in the root" in_guest -t 240 r \
    'mkdir /root/t && /lab/filetest semantics /root/t && rmdir /root/t'
guest_destroy r
leakcheck
