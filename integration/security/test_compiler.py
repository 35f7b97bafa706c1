"""libseccomp, which reads input from the configuration's author in a separate process (T41)."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import SLOW, Box, Container, Result, wait_until
from integration.security.support import Make, Refused, Trace

POINTER = "/linux/seccomp"
CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapAmb")


def profile(rules: int, **more: Any) -> dict[str, Any]:
    """libseccomp compares each rule with all others: 500 take a minute, and 2000 exceed what it can
    count."""
    syscalls = [
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ERRNO",
            "args": [
                {"index": index, "op": "SCMP_CMP_MASKED_EQ", "value": (n << 33) + n + 7, "valueTwo": n * 5 + index}
                for index in range(6)
            ],
        }
        for n in range(rules)
    ]
    return {POINTER: {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": syscalls, **more}}


HOSTILE = profile(500)


def status(pid: int) -> dict[str, str]:
    """Lines of /proc/PID/status; empty if the process has exited."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {}


def descendants(pid: int) -> Iterator[int]:
    """The descendants of all threads of a process."""
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            for child in map(int, (task / "children").read_text().split()):
                yield child
                yield from descendants(child)


def find(box: Box) -> int:
    """The process in which libseccomp works: a copy of the runtime."""
    own = os.path.realpath(box.runtime.path)
    for pid in descendants(os.getpid()):
        with contextlib.suppress(OSError):
            seen = status(pid)
            parent = int(seen.get("PPid", "0"))
            if parent != os.getpid() and os.readlink(f"/proc/{pid}/exe") == os.readlink(f"/proc/{parent}/exe") == own:
                return pid
    return 0


class Compiling:
    """A `create` that is compiling a profile."""

    def __init__(self, box: Box, one: Container) -> None:
        self.results: list[Result] = []
        self.thread = threading.Thread(target=lambda: self.results.append(one.create(check=False, timeout=60 * SLOW)))
        self.thread.start()
        self.pid = 0
        with contextlib.suppress(AssertionError):
            self.pid = wait_until(lambda: self.at_work(box), "the process that compiles the profile")

    def at_work(self, box: Box) -> int:
        """The compiler's pid, once it has used processor time and so has begun."""
        pid = find(box)
        with contextlib.suppress(OSError):
            if pid and int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) > 5:
                return pid
        return 0

    def end(self) -> Result:
        """Wait for `create` to return."""
        self.thread.join()
        return self.results[0]


@pytest.fixture
def compiling(box: Box, container: Make) -> Iterator[Compiling]:
    made = Compiling(box, container(edits=HOSTILE))
    yield made
    made.end()


def end(pid: int, number: int) -> None:
    """Kill the process with a signal, which looks like a fault of its own."""
    os.kill(pid, number)


pytestmark = pytest.mark.pyrunc_only("peers run libseccomp in the runtime itself")


@pytest.mark.row("T41")
def test_the_compiler_holds_nothing(compiling: Compiling) -> None:
    """The compiler gives up everything that a profile could use before it reads the profile."""
    pid = compiling.pid
    assert pid, "no process of its own compiles the profile"
    seen = status(pid)
    links = {int(link.name): os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    limits = Path(f"/proc/{pid}/limits").read_text()
    end(pid, signal.SIGKILL)
    assert {key: int(seen[key], 16) for key in CAPABILITIES} == dict.fromkeys(CAPABILITIES, 0), "capabilities"
    assert (seen["NoNewPrivs"], seen["Seccomp"]) == ("1", "2"), "every system call is open"
    assert list(links) == [0] and links[0].startswith("pipe:"), f"descriptors: {links}"
    rows = {line[:25].strip(): line[25:].split() for line in limits.splitlines()}
    assert rows["Max cpu time"][:2] == ["5", "6"], rows
    assert rows["Max core file size"][:2] == ["0", "0"], rows
    assert 256 << 20 < int(rows["Max address space"][0]) < 1 << 30, rows


@pytest.mark.row("T41")
@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_a_crash_of_the_compiler(
    box: Box, container: Make, refused: Refused, compiling: Compiling, number: signal.Signals
) -> None:
    """`create` fails with one line and leaves nothing behind; other containers are not affected."""
    assert compiling.pid, "no process of its own compiles the profile"
    before = [one for one in box.leftovers(settle=0) if one.startswith("mount")]
    other = container("exit", "7", edits=profile(1))
    assert other.run(check=False).rc == 7, "meanwhile"
    end(compiling.pid, number)
    refused(compiling.end(), f"{POINTER}: libseccomp", f"({number.name})")
    assert before == []
    assert other.run(check=False).rc == 7, "afterwards"


@pytest.mark.row("T41")
def test_a_profile_that_takes_forever(container: Make, refused: Refused) -> None:
    result = container(edits=HOSTILE).create(check=False, timeout=30 * SLOW)
    refused(result, f"{POINTER}: compiling the profile takes more than 5 s of processor time")


@pytest.mark.row("T41")
def test_the_runtime_is_killed_meanwhile(box: Box, container: Make) -> None:
    """The compiler is killed with the runtime."""
    one = container(edits=HOSTILE)
    made = Compiling(box, one)
    assert made.pid, "no process of its own compiles the profile"
    os.kill(int(status(made.pid)["PPid"]), signal.SIGKILL)
    made.end()
    wait_until(lambda: not status(made.pid) or status(made.pid)["State"].startswith("Z"), "the end of the compiler")
    one.delete("--force")
    assert box.leftovers() == []


@pytest.mark.row("T41")
@pytest.mark.parametrize(
    ("edits", "words"),
    [
        (profile(2000), "at most 4096 conditions"),
        (profile(650, architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]), "at most 65535 instructions"),
        ({**profile(1), f"{POINTER}/syscalls/0/names": ["read"] * 12_000}, "at most 4096 names"),
    ],
)
def test_more_than_libseccomp_can_count(container: Make, refused: Refused, edits: dict[str, Any], words: str) -> None:
    """libseccomp corrupts its heap beyond 65,535 instructions, and takes minutes long before that,
    so it never gets such profiles."""
    refused(container(edits=edits).create(check=False, timeout=60), POINTER, words)


@pytest.mark.row("T41")
@pytest.mark.needs_program("strace", "ldd")
def test_no_other_library_is_there(container: Make, box: Box) -> None:
    """A library handles a configuration, an image or an answer of the container as the host's root.

    Only libseccomp could be made to fail. This test detects any new library: a container's life
    cycle loads only cffi and what the executable is linked with.
    """
    linked = subprocess.run(["ldd", box.runtime.path], capture_output=True, text=True, check=True).stdout
    known = {Path(word).name for word in linked.split() if ".so" in word} | {"ld.so.cache", "libpthread.so.0"}
    user = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    one = container("sleep", "60", edits={"/process/user": user, **profile(os.getpid() % 7 + 2)})
    steps: dict[str, Callable[..., Result]] = {
        "create": one.create,
        "start": one.start,
        "exec": lambda **how: one.call("exec", one.id, "/probe", "exit", "0", **how),
        "state": lambda **how: one.call("state", one.id, **how),
        "ps": lambda **how: one.call("ps", "--format", "json", one.id, **how),
        "kill": lambda **how: one.kill("KILL", **how),
        "delete": lambda **how: one.delete("--force", **how),
    }
    for name, step in steps.items():
        trace = Trace(box, "openat")
        step(wrap=trace.wrap)
        opened = {Path(found).name for line in trace.lines for found in re.findall(r'"([^"]*\.so[^"]*)"', line)}
        others = {file for file in opened - known if not file.startswith("_cffi_backend")}
        assert not others, f"{name} loads {sorted(others)}"
