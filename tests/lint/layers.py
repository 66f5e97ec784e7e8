# SPDX-License-Identifier: GPL-2.0-or-later
"""The layer check: reads the includes of all sources against 'layers'."""

import re

INCLUDE = re.compile(r'^\s*#\s*include\s+(?:"([^"]+)"|(<[^>]+>))', re.M)


def read_table(path):
    """Returns (folders, headers): folder -> set of folders it may include
    from, and prefix of a system header -> list of places."""
    folders, headers = {}, {}
    with open(path, encoding="utf-8") as f:
        for line in f:
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            rest = [w for w in words[1:] if w != "-"]
            if words[0].startswith("<"):
                headers[words[0]] = rest
            else:
                folders[words[0]] = set(rest)
    return folders, headers


def is_in(path, place):
    return path == place or path.startswith(place + "/")


def folder_of(path, folders):
    fits = [f for f in folders if is_in(path, f)]
    return max(fits, key=len) if fits else None


def check_file(path, text, folders, headers):
    """Yields a sentence for each include that is not allowed."""
    home = folder_of(path, folders)
    if home is None:
        yield "%s: in no folder of tests/lint/layers" % path
        return
    for m in INCLUDE.finditer(text):
        line = text.count("\n", 0, m.start()) + 1
        local, system = m.groups()
        if local:
            if "/" not in local:
                continue  # Beside it, or generated.
            target = folder_of(local, folders)
            if target is None:
                yield "%s:%d: \"%s\" is in no folder of tests/lint/layers" % (
                    path, line, local)
            elif target != home and target not in folders[home] and not any(
                    is_in(target, f) for f in folders[home]):
                yield "%s:%d: %s may not use %s" % (path, line, home, target)
        else:
            for prefix, places in headers.items():
                if system.startswith(prefix) and not any(
                        is_in(path, p) for p in places):
                    yield "%s:%d: %s is for %s only" % (
                        path, line, system, ", ".join(places))


def check(paths, read):
    folders, headers = read_table("tests/lint/layers")
    problems = []
    for path in paths:
        problems += check_file(path, read(path), folders, headers)
    return problems


def selftest():
    """The check can fail: each kind of mistake is found."""
    folders, headers = read_table("tests/lint/layers")

    def bad(path, include):
        return list(check_file(path, "#include " + include + "\n", folders,
                               headers))

    wrong = [
        ("wire/ring.h", '"lib/util.h"'),
        ("lib/util.c", '"hv/hv.h"'),
        ("vafs-server/store/x.c", '"vafs-server/tree/tree.h"'),
        ("vafs-server/ninep/x.c", '"hv/hv.h"'),
        ("vafs-server/main/x.c", '"backend/worker.h"'),
        ("backend/x.c", "<xenstore.h>"),
        ("hv/local.c", "<xenctrl.h>"),
        ("tools/vafs.c", '"vafs-server/ninep/session.h"'),
        ("frontend/sockets/module/main.c", '"lib/util.h"'),
        ("nowhere/x.c", '"lib/util.h"'),
    ]
    right = [
        ("vafs-server/tree/x.c", '"vafs-server/store/store.h"'),
        ("hv/xen.c", "<xenstore.h>"),
        ("vafs-server/main/x.c", '"vafs-server/ninep/session.h"'),
        ("backend/sockets/x.c", '"backend/worker.h"'),
    ]
    return (["not found: %s in %s" % (i, p) for p, i in wrong if not bad(p, i)]
            + ["wrongly refused: %s" % b for p, i in right for b in bad(p, i)])
