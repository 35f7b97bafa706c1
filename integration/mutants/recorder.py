"""Record which test reaches which line: a pytest plugin, and the recorders in the processes that
tests start.

The runtime under test is a script (`runtime_script`) that imports the tree's modules, so that a
mutant needs no build.
"""

from __future__ import annotations

import os
import re
import struct
import subprocess
import sysconfig
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from integration.mutants import sandbox

PLACE = "/tmp/mutants"  # in a sandbox: "current" names the test, "lines" has a file per program with what runtimes ran
BLOCKS = f"{PLACE}/blocks"
PROGRAMS = (
    "_init", "pyrunc-init", "fs_driver", "test_path", "test_hook", "test_lookup", "test_plan_load", "test_passable",
    "test_fsapi",
)  # fmt: skip
SIZE = 1 << 20  # of native/coverage/blocks.c

_SCRIPT = """\
#!{python} -ISB
import sys
sys.path[:0] = [{tree!r}]
sys.path += [{site!r}]
from posix import O_APPEND, O_RDONLY, O_WRONLY, _exit, close, open, read, write
inside, ran = {tree!r} + "/pyrunc/", set()
def line(frame, event, arg):
    ran.add((frame.f_code.co_filename, frame.f_lineno))
    return line
def enter(frame, event, arg):
    if frame.f_code.co_filename.startswith(inside):
        return line(frame, event, arg)
try:
    fd = open({place!r} + "/current", O_RDONLY)
except FileNotFoundError:
    fd = -1
if fd >= 0:
    test = read(fd, 4096)
    close(fd)
    sys.settrace(enter)
from pyrunc.__main__ import run
status = run(sys.argv[1:])
if fd >= 0:
    sys.settrace(None)
    text = b"\\0".join([test, *(f"{{name}}:{{line}}".encode() for name, line in ran)])
    fd = open({place!r} + "/lines", O_WRONLY | O_APPEND)
    write(fd, text + b"\\n")
_exit(status)
"""


def runtime_script(path: Path, python: str, tree: Path) -> None:
    """Write the program that stands in for pyrunc."""
    site = sysconfig.get_path("platlib")
    path.write_text(_SCRIPT.format(python=python, tree=str(tree), place=PLACE, site=site))
    path.chmod(0o755)


def prepare() -> None:
    """Create the files that processes of any user write to."""
    os.makedirs(BLOCKS, exist_ok=True)
    for path in (f"{PLACE}/lines", f"{PLACE}/current", *(f"{BLOCKS}/{name}.blocks" for name in PROGRAMS)):
        with open(path, "w") as file:
            if path.startswith(BLOCKS):
                file.truncate(SIZE)
        os.chmod(path, 0o666)
    for path in (PLACE, BLOCKS):
        os.chmod(path, 0o755)


def base_of(binary: str) -> int:
    """The base address of a program that is not position-independent: the address of its first
    segment."""
    with open(binary, "rb") as file:
        head = file.read(4096)
    offset, size, count = (*struct.unpack_from("=Q", head, 32), *struct.unpack_from("=HH", head, 54))
    segments = [struct.unpack_from("=IIQQ", head, offset + size * number) for number in range(count)]
    return min(int(address) for kind, _, _, address in segments if kind == 1)


class Timer:
    """What each test costs, as a pytest plugin in a sandbox."""

    def __init__(self) -> None:
        self.cgroup = sandbox.cgroup_mount()
        self.begun = sandbox.spent(self.cgroup)
        self.spent: dict[str, sandbox.Spent] = {}

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note what was used before the test."""
        self.begun = sandbox.spent(self.cgroup)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note what the test used."""
        self.spent[nodeid] = sandbox.spent(self.cgroup).since(self.begun)


class Recorder:
    """The Python and C lines that each test reaches."""

    def __init__(self, tree: Path, counted: Any) -> None:
        self.tree, self.counted = tree, counted
        self.outcomes: dict[str, str] = {}
        self.timer = Timer()
        self.blocks: dict[str, dict[str, list[int]]] = defaultdict(dict)  # program -> nodeid -> addresses
        self.files = {name: os.open(f"{BLOCKS}/{name}.blocks", os.O_RDWR) for name in PROGRAMS}
        self.imports: set[str] = set()

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Attribute everything that runs from here on to this test."""
        self.counted.switch_context(nodeid)
        Path(PLACE, "current").write_text(nodeid)
        for fd in self.files.values():
            os.pwrite(fd, bytes(SIZE), 0)
        self.timer.pytest_runtest_logstart(nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record the end of set-up, call or tear-down."""
        if self.outcomes.get(report.nodeid, "passed") == "passed":
            self.outcomes[report.nodeid] = report.outcome

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Record the end of a test."""
        self.timer.pytest_runtest_logfinish(nodeid)
        for name, fd in self.files.items():
            found = [match.start() for match in re.finditer(b"\x01", os.pread(fd, SIZE, 0))]
            if found:
                self.blocks[name][nodeid] = found

    def result(self) -> dict[str, Any]:
        """Map each file and line to the indices of its tests."""
        index = {name: number for number, name in enumerate(self.outcomes)}
        lines: dict[str, dict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
        self.python_lines(index, lines)
        for program, found in self.blocks.items():
            self.c_lines(index, lines, found, f"{BLOCKS}/{program}")
        sets: dict[tuple[int, ...], int] = {}
        out = {
            file: {line: sets.setdefault(tuple(sorted(tests)), len(sets)) for line, tests in of_file.items() if tests}
            for file, of_file in lines.items()
        }
        return {
            "tests": [[name, outcome, *self.timer.spent[name]] for name, outcome in self.outcomes.items()],
            "sets": [list(one) for one in sets], "lines": out, "imports": sorted(self.imports),
        }  # fmt: skip

    def python_lines(self, index: dict[str, int], lines: dict[str, dict[int, set[int]]]) -> None:
        """Collect the lines of this process and of the stand-in runtimes."""
        data = self.counted.get_data()
        for path in data.measured_files():
            name = os.path.relpath(path, self.tree)
            for line, contexts in data.contexts_by_lineno(path).items():
                lines[name][line] |= {index[test] for test in contexts if test in index}
            self.imports.add(name)
        for text in Path(PLACE, "lines").read_text().splitlines():
            test, *places = text.split("\0")
            for path, _, number in (place.rpartition(":") for place in places):
                if test in index:
                    lines[os.path.relpath(path, self.tree)][int(number)].add(index[test])

    def c_lines(
        self, index: dict[str, int], lines: dict[str, dict[int, set[int]]], found: dict[str, list[int]], binary: str
    ) -> None:
        """Collect the lines of C. A return address belongs to the call before it, so subtract one
        byte."""
        addresses = sorted({at for tests in found.values() for at in tests})
        base = base_of(binary)
        text = "\n".join(f"{base + at - 1:#x}" for at in addresses)
        done = subprocess.run(["addr2line", "-e", binary], input=text, capture_output=True, text=True, check=True)
        places: dict[int, tuple[str, int]] = {}
        for at, line in zip(addresses, done.stdout.splitlines(), strict=True):
            path, _, number = line.split(" ")[0].rpartition(":")
            if "/native/init/" in path and number.isdigit():
                places[at] = (os.path.relpath(os.path.realpath(path), os.path.realpath(self.tree)), int(number))
        for test, numbers in found.items():
            for at in numbers:
                if at in places and test in index:
                    lines[places[at][0]][places[at][1]].add(index[test])
