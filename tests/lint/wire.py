# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire check: the tables of wire/README.md against wire/*.h and against
Xen's own headers, by assertions that a compiler has to prove."""

import re
import subprocess

HEADING = re.compile(r"^### .*?`struct (\w+)`(?:, Xen's `struct (\w+)`)?")

OURS = ('#include <stddef.h>\n#include "wire/pvcalls.h"\n'
        '#include "wire/xen9pfs.h"\n#include "wire/ninep.h"\n')
# Xen's headers are C89 with types of their own and a struct that our
# pvcalls.h does not name the same: each side is compiled for itself.
XENS = ('#include <stddef.h>\n#include <stdint.h>\n#include <xenctrl.h>\n'
        '#include <xen/io/pvcalls.h>\n#include <xen/io/9pfs.h>\n')


def cells(line):
    return [c.strip().strip("`") for c in line.strip().strip("|").split("|")]


def read_tables(text):
    """Returns ([(line, ours, xens, [(line, offset, size, field, xen_field)])],
    [(line, constant, value)])."""
    structs, constants, table = [], [], None
    for n, line in enumerate(text.split("\n"), 1):
        m = HEADING.match(line)
        if m:
            table = (n, m.group(1), m.group(2), [])
            structs.append(table)
        elif line.startswith("#"):
            table = None
        elif line.startswith("| `") and table is None:
            c = cells(line)
            if len(c) > 1 and re.fullmatch(r"[A-Z0-9_]+", c[0]):
                constants.append((n, c[0], int(c[1])))
        elif re.match(r"\| \d", line) and table is not None:
            c = cells(line)
            table[3].append((n, int(c[0]), int(c[1]) if c[1] else None,
                             c[2], c[3]))
    return structs, constants


def assertion(condition, line, text):
    return '_Static_assert(%s, "wire/README.md:%d: %s");\n' % (
        condition, line, text)


def make_assertions(structs, constants):
    """Returns the C text for our headers and that for Xen's."""
    ours, xens = OURS, XENS
    for _, name, xen, rows in structs:
        for line, offset, size, field, xen_field in rows:
            for which, f in (("ours", field), ("xens", xen_field)):
                struct = "struct " + (name if which == "ours" else xen or "")
                if not f or (which == "xens" and not xen):
                    continue
                if f == "end":
                    text = assertion("sizeof(%s) == %d" % (struct, offset),
                                     line, "size of %s" % struct)
                else:
                    text = assertion("offsetof(%s, %s) == %d"
                                     % (struct, f, offset),
                                     line, "%s of %s" % (f, struct))
                # A field of Xen's may be a piece of a pad, or be one pad that
                # we have cut in two: only our own sizes are compared.
                if size and which == "ours":
                    text += assertion("sizeof(((%s *) 0)->%s) == %d"
                                      % (struct, f, size),
                                      line, "size of %s" % f)
                if which == "ours":
                    ours += text
                else:
                    xens += text
    for line, name, value in constants:
        ours += assertion("%s == %d" % (name, value), line, name)
    return ours, xens


def completeness(structs, headers):
    """Every member of a listed struct has a row; every struct of the standard
    protocols is listed."""
    problems = []
    listed = {s[1]: s for s in structs}
    for text in headers:
        for m in re.finditer(r"^struct (\w+) \{\n(.*?)^\};", text, re.M | re.S):
            name = m.group(1)
            if name in ("ring_u32", "ring_u64"):
                continue
            if name not in listed:
                problems.append("struct %s is in no table" % name)
                continue
            fields = {re.sub(r"\[.*", "", r[3]) for r in listed[name][3]}
            leaves = {f.split(".")[-1] for f in fields}
            body = re.sub(r"/\*.*?\*/", "", m.group(2), flags=re.S)
            for member in re.findall(r"(\w+)(?:\[[^;]*\])?;", body):
                if member not in fields | leaves and member not in (
                        "bytes", "pad", "socket", "connect", "release",
                        "bind", "listen", "accept", "poll"):
                    problems.append("%s.%s has no row" % (name, member))
    return problems


def compile_text(text):
    """Returns what the compiler has against 'text'."""
    p = subprocess.run(["gcc", "-std=gnu11", "-I.", "-fsyntax-only", "-xc",
                        "-"], input=text, text=True, capture_output=True)
    found = re.findall(r'static assertion failed: "(.*)"', p.stderr)
    return found or (p.stderr.splitlines()[:10] if p.returncode else [])


def check(read):
    structs, constants = read_tables(read("wire/README.md"))
    problems = []
    if len(structs) < 5 or len(constants) < 5 or any(
            len(s[3]) < 5 for s in structs):
        problems.append("wire/README.md: tables not understood")
    problems += completeness(structs, [read("wire/pvcalls.h"),
                                       read("wire/xen9pfs.h")])
    ours, xens = make_assertions(structs, constants)
    return (problems + ["ours: " + p for p in compile_text(ours)]
            + ["Xen's: " + p for p in compile_text(xens)])


def selftest(read):
    """The check can fail: a shifted row is found on both sides."""
    text = read("wire/README.md").replace("| 72 | 4 | `out_error`",
                                          "| 76 | 4 | `out_error`", 1)
    ours, xens = make_assertions(*read_tables(text))
    return [side + ": a shifted field was not found"
            for side, source in (("ours", ours), ("Xen's", xens))
            if not any("out_error" in p for p in compile_text(source))]
