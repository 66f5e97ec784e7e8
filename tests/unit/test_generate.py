#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests of xenstore-schema/generate; prints TAP."""

import importlib.machinery
import importlib.util
import os
import re
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
sys.dont_write_bytecode = True


def load():
    path = TOP + "/xenstore-schema/generate"
    loader = importlib.machinery.SourceFileLoader("generate", path)
    spec = importlib.util.spec_from_loader("generate", loader)
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


g = load()

SMALL = """# Title
## Things

#### ~/device/foo/$DEVID/state = STATE [w,by=toolstack+frontend,for=backend]

The state.

#### ~/device/foo/$DEVID/n = [1,8] [w,by=frontend,for=backend,from=Initialised]

- rule: at-most $OTHER/max

A count with `code` in it.  And a sentence.

#### ~/device/foo/$DEVID/ref-$N = GNTREF [w,by=frontend,from=Initialised]

- rule: one-for-each $N below n
- rule: unique

References.

#### ~/backend/(foo|x_foo)/$FRONTEND/$DEVID/max = INTEGER [BACKEND,w,by=backend,from=InitWait]

A limit.

#### ~/backend/(foo|x_foo)/$FRONTEND/$DEVID/vs = LIST [BACKEND,w,by=backend,optional]

- rule: contains 1

Versions.
"""


def refuses(text, what):
    try:
        g.parse(text, "t")
    except g.SchemaError as e:
        assert re.search(what, str(e)), str(e)
        return
    raise AssertionError("accepted; should have said: " + what)


def test_parse():
    nodes, sections = g.parse(SMALL)
    assert [n.name for n in nodes] == ["state", "n", "ref-$N", "max", "vs"]
    assert [s[0] for s in sections] == ["Things"]
    state, n, ref, limit, vs = nodes
    assert state.by == ["toolstack", "frontend"] and state.side == "FRONT"
    assert n.range == (1, 8) and n.rules == [("AT_MOST", "max")]
    assert n.from_ == 3 and not n.optional
    assert ref.numbered and ref.rules[1] == ("UNIQUE", None)
    assert limit.device == "foo" and limit.side == "BACK"
    assert vs.optional and vs.rules == [("CONTAINS", "1")]


def test_names():
    out = g.make_names(*g.parse(SMALL))
    for line in ('#define XS_FOO_FRONT_REF_FMT "ref-%u"',
                 "#define XS_FOO_FRONT_N_MAX 8",
                 '#define XS_FOO_BACK_TYPE "foo"',
                 '#define XS_FOO_BACK_TYPE_2 "x_foo"',
                 '#define XS_FOO_BACK_MAX "max"'):
        assert line in out, line


def test_tables():
    out = g.make_tables(*g.parse(SMALL))
    assert "const size_t n_xs_node_defs = 5;" in out
    assert '{"foo", "x_foo"},' in out
    assert ".from = -1" in out and ".min = 1, .max = 8" in out


def test_man():
    out = g.make_man(*g.parse(SMALL))
    assert ".It Pa \\(ti/device/foo/$DEVID/ref\\-$N" in out
    assert "\\fBcode\\fR" in out
    assert all(len(line) <= 80 for line in out.split("\n"))


def test_values_refused():
    for bad in ("FISH", "[8,1]", '("a" "b")', '("a"|"b")'):
        refuses(SMALL.replace("[1,8]", bad), "empty range|not understood|"
                "unknown type")


def test_tags_refused():
    head = "## S\n#### ~/device/foo/$DEVID/a = STRING [%s]\n\ntext\n"
    refuses(head % "w", "who writes")
    refuses(head % "w,by=me", "unknown writer")
    refuses(head % "w,by=frontend,for=me", "unknown reader")
    refuses(head % "w,by=frontend,from=Never", "unknown state")
    refuses(head % "w,by=frontend,fish", "unknown tag")
    refuses(head % "BACKEND,w,by=frontend", "BACKEND")
    refuses(head % "w,by=frontend,optional,from=InitWait", "exclude")


def test_rules_refused():
    refuses(SMALL.replace("at-most $OTHER/max", "at-most $OTHER/min"),
            "no INTEGER node")
    refuses(SMALL.replace("at-most $OTHER/max", "element-of $OTHER/max"),
            "no LIST node")
    refuses(SMALL.replace("below n", "below m"), "no INTEGER node")
    refuses(SMALL.replace("contains 1", "includes 1"), "not understood")
    refuses(SMALL.replace("= LIST", "= STRING"), "contains needs a LIST")


def test_shape_refused():
    refuses(SMALL.replace("#### ~/device/foo/$DEVID/n = [1,8]",
                          "#### ~/device/foo/$DEVID/n"), "want '####")
    refuses(SMALL + SMALL.split("## Things")[1], "second time")
    refuses("## S\n#### ~/device/foo/$DEVID/a = STRING [w,by=frontend]\n",
            "no text")
    refuses(SMALL.replace("ref-$N", "$N-ref"), "must end the name")
    refuses("#### ~/device/foo/$DEVID/a = STRING [w,by=frontend]\n",
            "before the first section")


def test_line_numbers():
    refuses("## S\n\n#### ~/x = FISH [w,by=frontend]\n", r"^t:3: ")


def test_real_schema():
    with open(TOP + "/xenstore-schema/nodes.md", encoding="utf-8") as f:
        nodes, sections = g.parse(f.read())
    paths = [n.path for n in nodes]
    for path in ("~/device/pvcalls/$DEVID/ring-ref",
                 "~/device/9pfs/$DEVID/ring-ref$N",
                 "~/device/9pfs/$DEVID/event-channel-$N",
                 "~/backend/pvcalls/$FRONTEND/$DEVID/function-calls",
                 "~/backend/(9pfs|xen_9pfs)/$FRONTEND/$DEVID/max-rings"):
        assert path in paths, path
    # The extension may not touch what exists: its nodes are optional.
    for n in nodes:
        if "lift" in n.name:
            assert n.optional, n.path


def main():
    tests = [(k, v) for k, v in globals().items() if k.startswith("test_")]
    failed = False
    print("1..%d" % len(tests))
    for i, (name, test) in enumerate(tests, 1):
        try:
            test()
            print("ok %d - generate: %s" % (i, name[5:]))
        except Exception as e:  # A test may fail in any way.
            failed = True
            print("not ok %d - generate: %s" % (i, name[5:]))
            print("# %r" % e)
    sys.exit(failed)


if __name__ == "__main__":
    main()
