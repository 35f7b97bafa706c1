"""The mutator: the code that it changes and leaves unchanged, the storage of results, and an
isolated sandbox."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from integration.mutants import collected, cover, mutant, of_c, of_python, parallel, run, sandbox, worker
from integration.mutants.cover import Test
from integration.mutants.mutant import Mutant
from integration.mutants.tree import Tree


def python(code: str) -> list[tuple[str, str, str]]:
    """Kind, line before and line after of every mutant of a piece of Python."""
    found = of_python.Finder("pyrunc/x.py", textwrap.dedent(code)).all()
    return [(one.kind, *one.lines) for one in mutant.unique(found)]


def in_c(code: str) -> list[tuple[str, str, str]]:
    """The same for the body of a C function."""
    source = "static int f(struct init *in, int a)\n{\n" + textwrap.indent(textwrap.dedent(code), "    ") + "}\n"
    found = of_c.Finder("native/init/x.c", source).all()
    assert {one.scope for one in found} <= {"f"}
    return [(one.kind, *one.lines) for one in mutant.unique(found)]


# --- Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "after"),
    [
        ("if a < b:\n    pass\n", "comparison", "if a <= b:"),
        ("if a is not b:\n    pass\n", "comparison", "if a is b:"),
        ('if a or "(" in b:\n    pass\n', "operand dropped", "if a:"),
        ("if a not in b:\n    pass\n", "comparison", "if a in b:"),
        ("if a:\n    raise X\n", "condition negated", "if (not (a)):"),
        ("if a:\n    raise X\n", "check dropped", "if False:"),
        ("if a:\n    raise X\n", "check dropped", "pass"),
        ("if not a:\n    f()\n", "condition negated", "if (a):"),
        ("x = a and b and c\n", "operand dropped", "x = a and c"),
        ("x = a and b and c\n", "operand dropped", "x = a and b"),
        ("x = a or (b and c)\n", "operand dropped", "x = a"),
        ("x = (a or b) and c\n", "operand dropped", "x = c"),
        ("x = a or b\n", "and/or", "x = a and b"),
        ("x = A | B | C\n", "flag dropped", "x = A | B"),
        ("x = A | B | C\n", "flag dropped", "x = B | C"),
        ("x = a + 1\n", "operator", "x = a - 1"),
        ("x = a + 5\n", "constant", "x = a + 6"),
        ("x = a[0]\n", "constant", "x = a[1]"),
        ("x = a[1:]\n", "slice", "x = a[:]"),
        ("x = True\n", "constant", "x = False"),
        ("f(a, dir_fd=3)\n", "argument dropped", "f(a)"),
        ("f(a)\n", "statement dropped", "pass"),
        ("x.y = 3\n", "statement dropped", "pass"),
        ("x += 3\n", "statement dropped", "pass"),
        ("x = a.strip()\n", "call dropped", "x = a"),
        ("x = {'a': 1, 'b': 2}\n", "element dropped", "x = {'b': 2}"),
        ("x = 'key'\n", "constant", "x = 'keyXX'"),
        ("for a in b:\n    continue\n", "loop", "break"),
        ("def f():\n    return g()\n", "result dropped", "return None"),
        ("def f():\n    return\n", "check dropped", "pass"),
        ("try:\n    f()\nexcept OSError:\n    pass\n", "handler dropped", "raise"),
        ("try:\n    f()\nfinally:\n    g()\n", "handler dropped", "pass"),
        ("x = [a for a in b if a]\n", "check dropped", "x = [a for a in b if True]"),
    ],
)
def test_python(code: str, kind: str, after: str) -> None:
    assert (kind, after) in [(one[0], one[2]) for one in python(code)]


@pytest.mark.parametrize(
    "code",
    [
        '"""Words."""\n',
        "def f(a: int) -> str:\n    '''Words.'''\n",
        "import os\n",
        "TYPE_CHECKING = False\nif TYPE_CHECKING:\n    from x import y\n",
        "x = f'{a}: what is wrong'\n",
        "class A:\n    __slots__ = ('a', 'b')\n",
        "x = 'words for people'\n",
    ],
)
def test_settings_without_effect_on_the_program_are_left_alone(code: str) -> None:
    assert python(code) == []


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("x = e.errno or EINVAL\n", []),
        ("while time.monotonic() < end:\n    f()\n", ["while (not (time.monotonic() < end)):"]),
        ("x = send < 5\n", ["x = send <= 5", "x = send < 6"]),
        ("x = read(fd, 4096)\n", []),
        ("x = read(fd, 16)\n", ["x = read(fd, 17)"]),
        ("x = mount('none', p, 0)\n", ["x = mount('none', p, 1)"]),
        ("x = f('none', p)\n", ["x = f('noneXX', p)"]),
        ("x = cast('int', p)\n", []),
        ("x = open(p, encoding='utf-8')\n", ["x = open(p, encoding='utf-8XX')"]),
        ("x = open(p, errors='replace')\n", ["x = open(p)", "x = open(p, errors='replaceXX')"]),
    ],
)
def test_what_no_test_can_see_is_left_alone(code: str, left: list[str]) -> None:
    assert [after for kind, _, after in python(code) if kind != "statement dropped"] == left


def test_a_flag_that_is_0_is_left_alone() -> None:
    assert {after for _, _, after in in_c("a = f(O_RDONLY | B);\n")} == {"(void)0;", "a = f(O_RDONLY);"}
    assert {after for _, _, after in python("f(os.O_RDONLY | B)\n")} == {"pass", "f(os.O_RDONLY)"}


def test_names_of_types_are_left_alone() -> None:
    assert python('A = tuple[int | None, str]\nB = Literal["auto", "true"]\nC = int | str | A\n') == []
    assert python("def f():\n    a = tuple[1]\n") != []


def test_a_table_is_not_most_of_a_file() -> None:
    table = "x = {" + ", ".join(f"'k{n}': {n}" for n in range(100)) + "}\n"
    kinds = [kind for kind, _, _ in python(table)]
    assert {kind: kinds.count(kind) for kind in kinds} == {"element dropped": 4, "constant": 4}


def test_every_mutant_of_ours_is_another_program() -> None:
    found = of_python.mutants_of(mutant.ROOT / "pyrunc/fs.py")
    assert len(found) > 100
    assert [one for one in found if one.changed == one.source] == []
    assert len({one.key for one in found}) == len(found)
    assert sum(map(of_python.sound, found)) > 0.97 * len(found)


def test_sizes_are_left_alone() -> None:
    """Another number of the same size is equivalent."""
    assert python("f(16 << 20)\n")[1:] == [] and len(python("f(1 << a)\n")) > 1 and len(python("f(1 << 3)\n")) > 1
    assert [one for one in python("g(a.cgroup_fd >= 0, b)\n") if one[0] == "comparison"] == []
    assert [one for one in python("g(a.count >= 0, b)\n") if one[0] == "comparison"] != []
    assert in_c("const int a[2] = {b};\n") == []
    assert in_c("a[2] = b;\n") != []


# --- C --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind", "after"),
    [
        (
            "int fd = open(a, O_PATH | O_NOFOLLOW | O_CLOEXEC);\n",
            "flag dropped",
            "int fd = open(a, O_PATH | O_CLOEXEC);",
        ),
        ("int fd = open(a, O_PATH | O_CLOEXEC);\n", "flag dropped", "int fd = open(a, O_PATH);"),
        ("int fd = open(a, O_PATH | O_CLOEXEC);\n", "flag dropped", "int fd = open(a, O_CLOEXEC);"),
        ("if (a < 0)\n    return -errno;\n", "check dropped", "if ((a < 0) && 0)"),
        ("if (a < 0)\n    return -errno;\n", "condition negated", "if (!(a < 0))"),
        ("if (a < 0)\n    return -errno;\n", "error swallowed", "return (-errno, 0);"),
        ("if (a) {\n    g();\n    return 1;\n}\n", "check dropped", "if ((a) && 0) {"),
        (
            'return fault(in, a, "open", -1, 0, "");\n',
            "error swallowed",
            'return (fault(in, a, "open", -1, 0, ""), 0);',
        ),
        ("setgid(1);\nsetuid(2);\n", "order", "setuid(2); setgid(1);"),
        ("close(a);\n", "statement dropped", "(void)0;"),
        ("in->fd = 3;\n", "statement dropped", "(void)0;"),
        ("in->fds[slot] = -1;\n", "statement dropped", "(void)0;"),
        ("if (a == 1 && b != 2)\n    g();\n", "operand dropped", "if (a == 1 && 1)"),
        ("if (a == 1 && b != 2)\n    g();\n", "operand dropped", "if (1 && b != 2)"),
        ("if (a || !(b && c))\n    g();\n", "operand dropped", "if (a || 0)"),
        ("if (a || b)\n    g();\n", "and/or", "if (a && b)"),
        ("if (a <= 3)\n    g();\n", "comparison", "if (a < 3)"),
        ("int x = a ? b : c;\n", "condition negated", "int x = !(a) ? b : c;"),
        ("int x = a - 1;\n", "operator", "int x = a + 1;"),
        ("x = ~a;\n", "operator", "x = a;"),
        ("umask(022);\n", "constant", "umask(19);"),
        ("for (;;)\n    break;\n", "loop", "continue;"),
    ],
)
def test_c(code: str, kind: str, after: str) -> None:
    assert (kind, after) in [(one[0], one[2]) for one in in_c(code)]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("char *a = &b;\n", "operator"),
        ("int a = -1;\n", "operator"),
        ("int a = 3;\n", "statement dropped"),
        ("if (fd < 0)\n    g();\n", "comparison"),
        ("if (a)\n    return 1;\nelse\n    g();\n", "check dropped"),
        ("die(in, 3);\n", "statement dropped"),
    ],
)
def test_equivalent_edits_of_c(code: str, kind: str) -> None:
    assert kind not in [one[0] for one in in_c(code)]


def test_every_file_of_init_has_mutants_in_each_function() -> None:
    paths = sorted((mutant.ROOT / "native/init").glob("*.c"))
    assert len(paths) > 15
    for path in paths:
        if path.name == "handlers.c":  # generated: a table without a function
            continue
        finder = of_c.Finder(str(path.relative_to(mutant.ROOT)), path.read_text())
        names = {name for name, _, _ in finder.functions()}
        if not names:  # a generated table
            assert finder.all() == [], path
            continue
        assert names >= {one.scope for one in finder.all()} - {""}
        assert len({one.scope for one in finder.all()}) > 0.7 * len(names)


# --- keys, equivalents, samples, tests ------------------------------------------------------------


def make(source: str, old: str, new: str, **more: str) -> Mutant:
    start = source.index(old)
    made = {"file": "pyrunc/state/container.py", "scope": "f", "kind": "constant", **more}
    return Mutant(start=start, end=start + len(old), text=new, source=source, **made)


def test_a_key_is_about_content() -> None:
    one = make("def f():\n    x = 1\n", "1", "2")
    assert one.key == make("# more\n\ndef f():\n        x  =  1\n", "1", "2").key
    text = "def f():\n    x = 1\n"
    others = [make(text, "1", "3"), make("def f():\n    y = 1\n", "1", "2"), make(text, "1", "2", scope="g")]
    others.append(make(text, "1", "2", file="a.py"))
    assert len({one.key, *(other.key for other in others)}) == 5
    assert (one.line, one.last_line, one.changed) == (2, 2, "def f():\n    x = 2\n")


def test_equivalents_are_read_with_their_reason(tmp_path: Path) -> None:
    one = make("def f():\n    x = 1\n", "1", "2")
    path = tmp_path / "list.toml"
    entry = '[[equivalent]]\nfile = "pyrunc/state/container.py"\nscope = "f"\nbefore = "x  = 1"\nafter = "x = 2"\n'
    path.write_text(entry + 'reason = "nobody reads it"\n')
    assert mutant.equivalents(path) == {one.key: "nobody reads it"}
    path.write_text(entry)
    with pytest.raises(KeyError):
        mutant.equivalents(path)


def test_every_equivalent_has_a_reason() -> None:
    listed = mutant.equivalents()
    assert [key for key, reason in listed.items() if len(reason) < 10] == []


def test_danger_orders_survivors() -> None:
    check = make("if a:\n    raise X\n", "a", "False", kind="check dropped", file="native/init/path.c")
    number = make("x = 1\n", "1", "2", file="pyrunc/verbs/spec.py")
    assert check.danger > number.danger


def test_a_sample_is_the_same_for_a_seed() -> None:
    found = of_c.mutants_of(mutant.ROOT / "native/init/path.c")
    first, again = run.sample(found, 3, secure=True), run.sample(list(reversed(found)), 3, secure=True)
    assert first == again
    assert sorted(one.key for one in first) == sorted(one.key for one in found)
    assert first != run.sample(found, 4, secure=True)
    assert run.sample(found[7:], 3, secure=False) == [
        one for one in run.sample(found, 3, secure=False) if one in found[7:]
    ]
    assert [one.kind in run.SECURE for one in first[:10]] == [True, False] * 5


def test_the_budget_takes_cheap_tests_and_keeps_files_together() -> None:
    tests = [Test("tests/test_a.py::one", 1), Test("tests/test_b.py::one", 50), Test("tests/test_a.py::two", 2),
             Test("integration/test_c.py::one", 3)]  # fmt: skip
    assert run.chosen(tests, 10) == ["tests/test_a.py::one", "tests/test_a.py::two", "integration/test_c.py::one"]
    assert run.chosen(tests[1:2], 10) == ["tests/test_b.py::one"]


def test_tests_that_have_detected_mutants_come_first() -> None:
    """A file's tests stay together; a file that detects as many in less time precedes it."""
    tests = [Test("tests/test_a.py::one", 1), Test("tests/test_b.py::one", 8), Test("tests/test_a.py::two", 1)]
    tests.append(Test("tests/test_c.py::one", 1))
    a, b, c = ["tests/test_a.py::one", "tests/test_a.py::two"], ["tests/test_b.py::one"], ["tests/test_c.py::one"]
    assert collected.promising(tests, Counter()) == c + a + b
    assert collected.promising(tests, Counter({a[1]: 3, b[0]: 3})) == [*a[::-1], *b, *c]
    assert collected.promising(tests, Counter({b[0]: 30})) == b + c + a


def test_a_test_is_endless_by_what_it_uses_more_than_recorded() -> None:
    """The limit starts again with each test."""
    reader, writer = os.pipe()
    used = [0.0]
    told = collected.Told(reader, {"tests/a": 2.0}, lambda: sandbox.Spent(used[0], 0.0))
    seen = []
    for now, name in ((30, ""), (50, "tests/a"), (69, ""), (71, ""), (80, "tests/b"), (89, ""), (91, "")):
        used[0] = now
        os.write(writer, f"{name}\n".encode() if name else b"")
        seen.append(told.stuck())
    assert seen == [False, False, False, True, False, False, True]
    assert told.read() == ["tests/a", "tests/b"]
    os.close(reader)
    os.close(writer)


def test_fast_and_slow_tests_of_a_mutant() -> None:
    """In C the tests that start init, in Python the unit tests; the slow ones are the others, within
    the budget."""
    names = [
        "tests/test_init_a.py::x",
        "integration/test_native_b.py::x",
        "tests/test_c.py::x",
        "integration/test_d.py::x",
    ]
    tests = [Test(name, 2) for name in names]
    known: Any = type("Known", (), {"reaching": lambda self, mutant: tests, "tests": {t.name: t for t in tests}})()
    tree: Any = None
    runner = run.Runner(tree, known, 3)
    in_c, in_python = (Mutant(file, "f", "check dropped", 0, 1, "", "x") for file in ("native/init/a.c", "pyrunc/a.py"))
    assert [test.name for test in runner.fast(in_c)] == names[:2]
    assert runner.slow(in_c) == names[2:3]
    assert [test.name for test in runner.fast(in_python)] == names[:1]
    assert runner.slow(in_python) == []


def test_tests_that_name_the_function_come_first(tmp_path: Path) -> None:
    known = cover.Map(Tree(tmp_path))
    (tmp_path / "tree/tests").mkdir(parents=True)
    (tmp_path / "tree/tests/test_a.py").write_text("def test_x():\n    g()\n\n\ndef test_y():\n    module.f(1)\n")
    one = make("def f():\n    x = 1\n", "1", "2", scope="Class.f")
    tests = {Test("tests/test_a.py::test_x[1]", 1), Test("tests/test_a.py::test_y[1]", 9)}
    assert [test.seconds for test in known.about(one, tests)] == [9]
    assert known.about(make("x = 1\n", "1", "2", scope=""), tests) == set()


def test_a_macro_is_reached_where_it_is_used(tmp_path: Path) -> None:
    known = cover.Map(Tree(tmp_path))
    (tmp_path / "tree/tests").mkdir(parents=True)
    (tmp_path / "tree/tests/test_a.py").write_text("")
    test = Test("tests/test_a.py::test_x", 1)
    known.lines["native/init/x.c"][4] = {test}
    source = "#define MOST 64\nint f(void)\n{\n    return MOST;\n}\n"
    assert known.reaching(make(source, "64", "65", scope="", file="native/init/x.c")) == [test]
    assert (
        known.reaching(
            make(source.replace("return MOST", "return ALMOST"), "64", "65", scope="", file="native/init/x.c")
        )
        == []
    )


def test_tests_that_go_where_few_go_come_first(tmp_path: Path) -> None:
    known = cover.Map(Tree(tmp_path))
    (tmp_path / "tree/tests").mkdir(parents=True)
    (tmp_path / "tree/tests/test_a.py").write_text("")
    tests = [Test(f"tests/test_a.py::test_{n}", n) for n in range(5)]
    known.lines["pyrunc/state/container.py"].update({2: set(tests), 3: {tests[4]}, 4: set(tests)})
    one = make("def f():\n    if a < b:\n        return 1\n    return 2\n", "<", "<=")
    assert [test.seconds for test in known.reaching(one)] == [4, 0, 1, 2, 3]


def test_code_that_no_test_reaches_has_the_tests_of_its_module(tmp_path: Path) -> None:
    """It may run in a fork, which the tracer does not follow."""
    known = cover.Map(Tree(tmp_path))
    (tmp_path / "tree/tests").mkdir(parents=True)
    (tmp_path / "tree/tests/test_a.py").write_text("")
    tests = [Test("tests/test_a.py::test_x", 1), Test("tests/test_b.py::test_y", 1)]
    known.tests = {test.name: test for test in tests}
    known.importers["pyrunc/state/container.py"] = {"tests/test_a.py"}
    assert known.reaching(make("def f():\n    x = 1\n", "1", "2")) == tests[:1]


def test_lines_are_followed_into_other_files(tmp_path: Path) -> None:
    """A module that became a package keeps the tests that reach it."""
    known = cover.Map(Tree(tmp_path))
    (tmp_path / "tree/pyrunc/state").mkdir(parents=True)
    old = "".join(f"line{number} = {number}\n" for number in range(20))
    (known.sources / "abc").write_text(old)
    (tmp_path / "tree/pyrunc/state/one.py").write_text("import a\n" + "".join(old.splitlines(True)[:10]))
    (tmp_path / "tree/pyrunc/state/two.py").write_text("".join(old.splitlines(True)[12:]))
    (tmp_path / "tree/pyrunc/known.py").write_text(old)
    where = known.moved("pyrunc/state.py", {"pyrunc/state.py": "abc", "pyrunc/known.py": "def"})
    assert where(1) == [("pyrunc/state/one.py", 2)] and where(13) == [("pyrunc/state/two.py", 1)] and where(11) == []
    (tmp_path / "tree/pyrunc/state.py").write_text("import a\n" + old)
    assert known.moved("pyrunc/state.py", {"pyrunc/state.py": "abc"})(1) == [("pyrunc/state.py", 2)]


def test_parameters_of_one_test_are_spread() -> None:
    tests = [Test(f"tests/test_a.py::t[{n}]", n) for n in range(6)] + [Test("tests/test_a.py::u", 9)]
    assert [test.name[-4:] for test in cover.spread(tests)][:3] == ["t[0]", "t[1]", "y::u"]


def test_results_are_kept(tmp_path: Path) -> None:
    one = make("def f():\n    x = 1\n", "1", "2")
    kept = run.Results(tmp_path / "results")
    kept.add(one, run.Outcome("survived", tests=3))
    kept.add(one, run.Outcome("killed", by="tests/test_a.py::one"))
    assert run.Results(tmp_path / "results").rows[one.key]["status"] == "killed"


def test_a_test_that_is_gone_is_left_out(tmp_path: Path) -> None:
    """A map may be older than the tests: pytest's error about a name it does not know kills no
    mutant."""

    class Item:
        def __init__(self, nodeid: str) -> None:
            self.nodeid = nodeid

    items = [Item("a::x"), Item("a::y"), Item("a::z")]
    worker.Only(["a::z", "a::gone", "a::x"]).pytest_collection_modifyitems(items)  # type: ignore[arg-type]
    assert [item.nodeid for item in items] == ["a::z", "a::x"]


def test_a_test_is_endless_by_what_it_uses_not_by_real_time(tmp_path: Path) -> None:
    """On a busy machine time passes and a test gets nothing."""
    known = cover.Map(Tree(tmp_path))
    known.tests = {"a::x": Test("a::x", 2.0, 4.0)}
    used = sandbox.Spent(0.0, 0.0)
    with (tmp_path / "told").open("w+b", buffering=0) as told:
        progress = run.Progress(known, told.fileno(), lambda: used)
        assert not progress.stuck()
        told.write(b'{"begun": "a::x"}\n')
        assert not progress.stuck()
        most = run.PATIENCE + run.FACTOR * 4.0
        used = sandbox.Spent(most, most)
        assert not progress.stuck() and not progress.endless
        used = sandbox.Spent(0.0, most + 1)  # it waits for something that does not come
        assert progress.stuck() and progress.endless
        used = sandbox.Spent(most + 1, 0.0)  # so many processes that one of them always waits for a processor
        assert progress.stuck()
        told.write(b'{"begun": "a::new"}\n')
        assert not progress.stuck()


def test_a_recording_of_another_format_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = cover.Map(Tree(tmp_path))
    (tmp_path / "tree/tests").mkdir(parents=True)
    (tmp_path / "tree/tests/test_a.py").write_text("")
    kept = {"digest": cover.digest(b""), "format": cover.FORMAT}
    for found in ({**kept, "format": 1}, {**kept, "digest": "x"}, {}):
        known.path("tests/test_a.py").write_text(json.dumps(found))
        assert known.stale() == ["tests/test_a.py"]
    known.path("tests/test_a.py").write_text(json.dumps(kept))
    assert known.stale() == []


def test_work_in_parallel_gives_every_answer(tmp_path: Path) -> None:
    assert sorted(parallel.each(range(7), lambda n: n * n, 3, str(tmp_path))) == [(n, n * n) for n in range(7)]
    with pytest.raises(RuntimeError):
        list(parallel.each([1], lambda _: os._exit(3), 1, str(tmp_path)))


def test_mutants_that_only_the_fast_tests_had_time_for_count_as_survivors(tmp_path: Path) -> None:
    trial = run.Trial("Python", [], 4, run.Results(tmp_path / "results.jsonl"), argparse.Namespace())
    trial.taken = list(of_python.everything())[:4]
    for one, status in zip(trial.taken, ("killed", run.UNITS, "survived"), strict=False):
        trial.results.rows[one.key] = {"status": status}
    trial.skip = {}
    assert list(trial.judged().values()) == ["killed", "undecided", "survived"]
    assert "4 mutants, 0 equivalent, 1 of 3 killed: 33.3 %" in trial.summary()


# --- the sandbox ----------------------------------------------------------------------------------


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_nothing_of_the_machine_can_be_changed_in_a_sandbox(tmp_path: Path) -> None:
    """A mutant may do anything that a broken runtime does as root."""
    here = tmp_path / "file"
    here.write_text("untouched")
    ours = os.stat("/dev/null")

    def work() -> int:
        checks = [
            not os.path.exists(tmp_path),
            os.stat("/dev/null").st_dev != ours.st_dev,
            os.listdir("/proc/self/fd") != [],
            os.readlink("/proc/self/ns/net") != net,
        ]
        for place in ("/etc/passwd", "/proc/1/mem", "/sys/kernel/mm"):
            try:
                os.close(os.open(place, os.O_WRONLY))
                checks.append(place == "/proc/1/mem")
            except OSError:
                checks.append(True)
        os.chown("/dev/null", 41, 42)
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, 9)  # everything visible to this process
        return 0 if all(checks) else 1

    net = os.readlink("/proc/self/ns/net")
    cgroup = sandbox.Cgroup(f"pyrunc-test-mutants-{os.getpid()}")
    status = sandbox.run(work, cgroup, 30)
    cgroup.remove()
    assert status == 0
    assert here.read_text() == "untouched"
    assert (os.stat("/dev/null").st_uid, os.stat("/dev/null").st_gid) == (ours.st_uid, ours.st_gid)
    assert cgroup.path is None or not cgroup.path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_sandbox_has_the_priority_of_its_caller() -> None:
    """A run in the background with a low priority stays there, although a sandbox is a session."""
    group = Path("/proc/self/autogroup")
    if not group.exists():
        pytest.skip("the kernel has no CONFIG_SCHED_AUTOGROUP")

    def work() -> int:
        return int(group.read_text().split()[-1])

    child = os.fork()
    if child == 0:
        os.setsid()
        group.write_text("3")
        cgroup = sandbox.Cgroup(f"pyrunc-test-mutants-{os.getpid()}")
        status = sandbox.run(work, cgroup, 30)
        cgroup.remove()
        os._exit(99 if status is None else status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


def test_the_autogroup_of_a_process_that_has_none(tmp_path: Path) -> None:
    """The file is empty if no process since the first has called setsid(2)."""
    group = tmp_path / "autogroup"
    group.write_text("")
    child = os.fork()
    if child == 0:
        try:
            sandbox.new_session(group)
            os._exit(0 if os.getsid(0) == os.getpid() else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_sandbox_knows_what_all_its_processes_used() -> None:
    """Also of those that nobody waited for; the time they slept is on the clock only."""
    used = os.memfd_create("used")

    def work() -> int:
        begun = sandbox.spent(sandbox.cgroup_mount())
        if os.fork() == 0:
            if os.fork() == 0:
                while time.process_time() < 0.2:
                    pass
                os.write(used, b".")
            os._exit(0)
        while not os.fstat(used).st_size:
            time.sleep(0.01)
        time.sleep(0.3)
        os.write(used, json.dumps(sandbox.spent(sandbox.cgroup_mount()).since(begun)).encode())
        return 0

    cgroup = sandbox.Cgroup(f"pyrunc-test-mutants-{os.getpid()}")
    begun, start = cgroup.spent(), time.monotonic()
    assert sandbox.run(work, cgroup, 60) == 0
    total, elapsed = cgroup.spent().since(begun), time.monotonic() - start
    cgroup.remove()
    inside = sandbox.Spent(*json.loads(os.pread(used, 4096, 1)))
    os.close(used)
    if cgroup.path is not None:
        assert 0.2 <= inside.cpu <= total.cpu
    assert 0.3 <= inside.clock <= total.clock <= elapsed


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_sandbox_that_does_not_end_is_ended() -> None:
    def work() -> int:
        for _ in range(3):
            os.fork()
        time.sleep(60)
        return 0

    cgroup = sandbox.Cgroup(f"pyrunc-test-mutants-{os.getpid()}")
    assert sandbox.run(work, cgroup, 0.5) is None
    cgroup.remove()
    assert cgroup.path is None or not cgroup.path.exists()
