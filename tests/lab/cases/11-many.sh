# SPDX-License-Identifier: GPL-2.0-or-later
#
# 200 connections at once, 64 MB each way in all, content equal; then 1,000
# threads that make sockets at the same time.
# lab-kernels: 6.1 6.12
# lab-tier: long
# lab-seconds: 300
need xenliftd xenlift-guest
stack_up
server_up
leak_mark
sock_guest many memory=512
expect "200 connections, 64 MB" sock many many $DRV_IP $PORT 200 327680
expect "1,000 creators" sock many creators $DRV_IP $PORT 1000
guest_destroy many
leakcheck
