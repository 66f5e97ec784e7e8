#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Joins the terminal with a socket; ctrl-] leaves."""
import os
import select
import socket
import sys
import termios
import tty

peer = socket.socket(socket.AF_UNIX)
peer.connect(sys.argv[1])
old = termios.tcgetattr(0)
tty.setraw(0)
try:
    while True:
        ready, _, _ = select.select([0, peer], [], [])
        if peer in ready:
            data = peer.recv(4096)
            if not data:
                break
            os.write(1, data)
        if 0 in ready:
            data = os.read(0, 4096)
            if b'\x1d' in data:
                break
            peer.sendall(data)
finally:
    termios.tcsetattr(0, termios.TCSADRAIN, old)
