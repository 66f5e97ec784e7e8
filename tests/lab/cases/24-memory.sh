# SPDX-License-Identifier: GPL-2.0-or-later
#
# Memory: an idle worker under 8 MiB resident, vafsd under 64 MiB of anonymous
# memory with a tree of 100,000 files that is not in use.
# lab-tier: long
need xenliftd xenlift-guest vafsd vafs
stack_up
drv_kill TERM vafsd
drv_start vafsd
leak_mark
sock_guest i p9=data,branch/main:/data
expect_equal "the tree is there" 1000 "$(in_drv 'vafs ls main:/many/42 | wc -l')"
wait_until 20 in_drv 'xenlift list > /dev/null'
sleep 5
rss=$(in_drv 'awk "/^Rss/ { print \$2 }" /proc/$(pgrep -x xenlift-guest)/smaps_rollup')
anonymous=$(in_drv 'awk "/^Anonymous/ { print \$2 }" /proc/$(pgrep -x vafsd)/smaps_rollup')
note "idle worker: $rss KiB resident; vafsd: $anonymous KiB anonymous"
expect "worker under 8 MiB" [ "$rss" -lt 8192 ]
expect "vafsd under 64 MiB" [ "$anonymous" -lt 65536 ]
guest_destroy i
leakcheck
