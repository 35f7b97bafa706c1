"""The cost of a verb does not depend on the number of other containers, and `list` is linear.

Counts of system calls replace times, which are unreliable on a busy machine. `make scale` measures
times with 500 containers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.harness import Container

Make = Callable[..., Container]
OTHERS = 24
# The number of these calls depends on the speed of another process.
WAITING = {"poll", "ppoll", "clock_nanosleep", "wait4", "waitid", "restart_syscall", "rt_sigreturn"}


def calls(one: Container, trace: Path, verb: str, *args: str) -> Counter[str]:
    """The system calls of a verb, by name; ID in its arguments stands for the container's."""
    trace.unlink(missing_ok=True)
    wrap = ["strace", "-qq", "-o", str(trace), "-e", "signal=none"]
    if verb == "create":
        one.create(wrap=wrap)
    else:
        one.call(verb, *[one.id if word == "ID" else word for word in args], wrap=wrap)
    names = re.findall(r"^(\w+)\(", trace.read_text(), re.MULTILINE) if trace.exists() else []
    if not names:
        pytest.skip("strace cannot trace here")
    return Counter(name for name in names if name not in WAITING)


def life(one: Container, trace: Path) -> dict[str, Counter[str]]:
    """The system calls of each verb in one container's life."""
    found = {verb: calls(one, trace, verb, "ID") for verb in ("create", "start", "state")}
    found["exec"] = calls(one, trace, "exec", "ID", "/probe", "exit", "0")
    found["ps"] = calls(one, trace, "ps", "--format", "json", "ID")
    found["kill"] = calls(one, trace, "kill", "ID", "KILL")
    one.wait()
    found["delete"] = calls(one, trace, "delete", "ID")
    return found


@pytest.mark.needs_program("strace")
def test_verbs_do_not_look_at_other_containers(container: Make, tmp_path: Path) -> None:
    """Only `list` reads other containers, once each."""
    trace, resident = tmp_path / "trace", container("signals", "60")
    resident.create()
    alone, lists = life(container("signals", "60"), trace), [calls(resident, trace, "list")]
    for _ in range(2):
        for _ in range(OTHERS // 2):
            container("signals", "60").create()
        lists.append(calls(resident, trace, "list"))
    crowded = life(container("signals", "60"), trace)
    for verb, counted in crowded.items():
        more, fewer = counted - alone[verb], alone[verb] - counted
        assert (more + fewer).total() < OTHERS / 4, (verb, more, fewer)
    first, second = (lists[number + 1].total() - lists[number].total() for number in range(2))
    assert 0 < first <= 40 * OTHERS / 2
    assert abs(second - first) <= 4, (first, second)  # getdents64, brk and mmap depend on sizes


def test_the_state_is_small(container: Make) -> None:
    """The state directory of a running container takes a few blocks."""
    one = container("signals", "60")
    one.create()
    one.start()
    files = list((one.box.root / one.id).rglob("*"))
    assert sum(file.lstat().st_blocks for file in files) <= 2 * 32  # KiB
    assert len(files) <= 5, files
