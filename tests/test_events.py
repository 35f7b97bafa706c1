"""Statistics from control files, and the `events` verb on fake containers."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc import cli, state
from pyrunc.cgroup import stats
from pyrunc.container import events
from pyrunc.errors import PyruncError, StateError
from pyrunc.log import Log
from pyrunc.verbs import events as verb

kept = transcript.follow("pyrunc.cgroup.stats", "pyrunc.container.events")

# -- statistics ------------------------------------------------------------------------------------

EMPTY = {
    "cpu": {"usage": {"kernel": 0, "user": 0}, "throttling": {}},
    "cpuset": {
        "cpu_exclusive": 0, "mem_hardwall": 0, "mem_exclusive": 0, "memory_migrate": 0, "memory_spread_page": 0,
        "memory_spread_slab": 0, "memory_pressure": 0, "sched_load_balance": 0, "sched_relax_domain_level": 0,
    },
    "memory": {key: {"limit": 0, "failcnt": 0} for key in ("usage", "swap", "kernel", "kernelTCP")},
    "pids": {},
    "blkio": {},
    "hugetlb": {},
    "intel_rdt": {},
    "network_interfaces": None,
}  # fmt: skip
PSI = "some avg10=0.00 avg60=1.25 avg300=30.00 total=77\nfull avg10=0.10 avg60=0.00 avg300=0.00 total=0\n"
PSI_READ = {
    "some": {"avg10": 0, "avg60": 1.25, "avg300": 30, "total": 77},
    "full": {"avg10": 0.1, "avg60": 0, "avg300": 0, "total": 0},
}


def cgroup(path: Path, **files: str) -> str:
    """A directory with these control files; ``__`` in a name is a dot."""
    path.mkdir(exist_ok=True)
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    return str(path)


def test_no_controllers(tmp_path: Path) -> None:
    found = stats.read(cgroup(tmp_path, cgroup__procs="7\n8\n"))
    assert found == EMPTY | {"pids": {"current": 2}}
    assert list(found) == list(EMPTY)


def test_no_cgroup(tmp_path: Path) -> None:
    with pytest.raises(PyruncError, match="has no cgroup"):
        stats.read("")
    with pytest.raises(PyruncError, match="ENOENT"):
        stats.read(str(tmp_path / "gone"))


def test_cpu(tmp_path: Path) -> None:
    text = "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 3\nthrottled_usec 2\nnr_bursts 0\n"
    assert stats.read(cgroup(tmp_path, cpu__stat=text, cpu__pressure=PSI))["cpu"] == {
        "usage": {"total": 30000, "kernel": 10000, "user": 20000},
        "throttling": {"periods": 4, "throttledPeriods": 3, "throttledTime": 2000},
        "psi": PSI_READ,
    }


def test_memory(tmp_path: Path) -> None:
    files = {
        "memory__stat": "anon 5\nfile 7\n", "memory__current": "100\n", "memory__max": "max\n", "memory__peak": "120\n",
        "memory__swap__current": "11\n", "memory__swap__max": "1000\n", "memory__pressure": PSI,
    }  # fmt: skip
    nothing = {"limit": 0, "failcnt": 0}
    found = stats.read(cgroup(tmp_path, **files))["memory"]
    assert found == {
        "cache": 7,
        "usage": {"limit": 18446744073709551615, "usage": 100, "max": 120, "failcnt": 0},
        "swap": {"limit": 18446744073709551615, "usage": 111, "failcnt": 0},
        "kernel": nothing,
        "kernelTCP": nothing,
        "raw": {"anon": 5, "file": 7},
        "psi": PSI_READ,
    }
    limited: Json = stats.read(cgroup(tmp_path, memory__max="500\n"))["memory"]
    assert limited["swap"] == {"limit": 1500, "usage": 111, "failcnt": 0}
    (tmp_path / "memory.swap.current").unlink()
    limited = stats.read(str(tmp_path))["memory"]
    assert limited["swap"] == {"limit": 500, "usage": 100, "failcnt": 0}


def test_pids(tmp_path: Path) -> None:
    assert stats.read(cgroup(tmp_path, pids__current="3\n", pids__max="max\n"))["pids"] == {"current": 3}
    assert stats.read(cgroup(tmp_path, pids__max="9\n"))["pids"] == {"current": 3, "limit": 9}


def test_block_io(tmp_path: Path) -> None:
    text = "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n253:1 \n0:5 rbytes=0\n"
    assert stats.read(cgroup(tmp_path, io__stat=text, io__pressure=PSI))["blkio"] == {
        "ioServiceBytesRecursive": [
            {"major": 8, "op": "Read", "value": 10},
            {"major": 8, "op": "Write", "value": 20},
            {"minor": 5, "op": "Read"},
        ],
        "ioServicedRecursive": [{"major": 8, "op": "Read", "value": 1}, {"major": 8, "op": "Write", "value": 2}],
        "psi": PSI_READ,
    }


def test_huge_pages(tmp_path: Path) -> None:
    files = {
        "hugetlb__2MB__current": "0\n", "hugetlb__2MB__rsvd__current": "4096\n", "hugetlb__2MB__events": "max 3\n",
        "hugetlb__2MB__max": "max\n", "hugetlb__1GB__current": "8192\n",
    }  # fmt: skip
    assert stats.read(cgroup(tmp_path, **files))["hugetlb"] == {
        "1GB": {"usage": 8192, "failcnt": 0},
        "2MB": {"usage": 4096, "failcnt": 3},
    }


# -- durations -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5s", 5.0), ("1m30s", 90.0), ("1.5h", 5400.0), ("250ms", 0.25), ("10us", 1e-5), ("10µs", 1e-5),
        ("1h2m3s", 3723.0),
        ("0", 0.0), ("0s", 0.0), ("+5s", 5.0), ("100ns", 1e-7), (".5s", 0.5),
        ("", None), ("5", None), ("s", None), ("-5s", None), ("5x", None), ("1.2.3s", None), (".s", None),
        ("5 s", None),
        ("+", None), ("1s5", None), ("9" * 30 + "s", None), ("٣s", None),
    ],
)  # fmt: skip
def test_duration(text: str, value: float | None) -> None:
    found = events.duration(text)
    assert found == (value if value is None else pytest.approx(value))


# -- the verb --------------------------------------------------------------------------------------


class Case:
    def __init__(self, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.path, self.capfd = tmp_path, capfd
        self.store = state.Store(str(tmp_path / "root"))
        self.children: list[subprocess.Popen[bytes]] = []

    def make(self, id: str, **files: str) -> subprocess.Popen[bytes]:
        """A running container with these control files; its first process."""
        child = subprocess.Popen(["sleep", "60"])
        self.children.append(child)
        made = self.store.reserve(id)
        made.set_init(child.pid)
        made.data |= {"cgroup_dir": cgroup(self.path / f"cg-{id}", cgroup__procs="1\n", **files), "status": "running"}
        made.save()
        made.unlock()
        return child

    def __call__(self, *argv: str, rc: int = 0) -> tuple[str, str]:
        status = cli.main(["--root", str(self.path / "root"), "--log", str(self.path / "log"), "events", *argv])
        out, err = self.capfd.readouterr()
        assert status == rc, err
        return out, err


@pytest.fixture
def case(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Case]:
    made = Case(tmp_path, capfd)
    yield made
    for child in made.children:
        child.kill()
        child.wait()


def test_stats_of_several(case: Case) -> None:
    case.make("a")
    case.make("b", pids__current="4\n", pids__max="max\n")
    out, err = case("--stats", "a", "b")
    first, second = (json.loads(line) for line in out.splitlines())
    assert err == "" and (first["type"], first["id"], second["id"]) == ("stats", "a", "b")
    assert list(first) == ["type", "id", "data"] and second["data"]["pids"] == {"current": 4}


def test_stats_of_some(case: Case) -> None:
    """Figures that can be read are reported, and the rest is one error."""
    case.make("a")
    stopped = case.make("b")
    stopped.kill()
    stopped.wait()
    out, err = case("--stats", "no", "a", "b", rc=1)
    assert json.loads(out)["id"] == "a"
    assert err == "pyrunc: error: container does not exist: no; b: container not running\n"
    assert case("--stats", "no", rc=1)[1] == "pyrunc: error: container does not exist: no\n"
    assert case("no", rc=1)[1] == "pyrunc: error: container does not exist: no\n"
    assert case("b", rc=1)[1] == "pyrunc: error: container not running\n"


def test_table(case: Case) -> None:
    case.make("a", cpu__stat="usage_usec 1234567\nuser_usec 1\nsystem_usec 1\n")
    files = {
        "memory__stat": "file 1\n", "memory__current": f"{3 << 19}\n", "memory__max": f"{64 << 20}\n",
        "pids__max": "9\n", "memory__swap__current": "1024\n", "memory__swap__max": "max\n", "pids__current": "3\n",
        "io__stat": "8:0 rbytes=5 wbytes=2048\n8:16 rbytes=6\n", "cpu__stat": "usage_usec 5\nthrottled_usec 2000\n",
    }  # fmt: skip
    case.make("b", **files)
    header, first, second = case("--stats", "--format", "table", "a", "b")[0].splitlines()
    assert header.split("   ")[0].strip() == "ID" and len(header) >= 90
    assert first.split() == ["a", "1.234s", "-", "-", "-", "-", "1", "-", "-"]
    assert second.split() == ["b", "0.000s", "0.002s", "1.5MiB", "64.0MiB", "1.0KiB", "3", "/", "9", "11B", "2.0KiB"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0B"), (1023, "1023B"), (1024, "1.0KiB"), (1536, "1.5KiB"), (104857600, "100MiB"), ((1 << 62), "4.0EiB")],
)
def test_sizes(value: int, text: str) -> None:
    assert verb.size(value) == text


@pytest.mark.parametrize(
    "argv",
    [
        ["--format", "yaml", "a"], ["--format", "table", "a"], ["--interval", "x", "a"], ["--interval", "0", "a"],
        ["--interval=-5s", "a"], [],
    ],
)  # fmt: skip
def test_wrong_command_lines(case: Case, argv: list[str]) -> None:
    out, err = case(*argv, rc=1)
    assert out == "" and err.startswith("pyrunc: error: events: ") and err.count("\n") == 1


def follow(case: Case, ids: list[str], interval: float = 60.0) -> tuple[list[dict[str, Any]], threading.Thread]:
    """`follow` in a thread, and the list that it fills."""
    got: list[dict[str, Any]] = []
    containers = [case.store.open(id) for id in ids]
    log = Log(str(case.path / "log"))
    thread = threading.Thread(target=events.follow, args=(containers, interval, got.append, log))
    thread.start()
    return got, thread


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_follow_ends_with_the_last_container(case: Case) -> None:
    first, second = case.make("a"), case.make("b")
    got, thread = follow(case, ["a", "b"], 0.02)
    until(lambda: {event["id"] for event in got} == {"a", "b"})
    first.kill()
    first.wait()
    time.sleep(0.1)
    del got[:]
    until(lambda: got)
    assert thread.is_alive() and {event["id"] for event in got} == {"b"}
    second.kill()
    second.wait()
    thread.join(20)
    assert not thread.is_alive()


def test_oom_kills_are_reported_once(case: Case) -> None:
    child = case.make("a", memory__events="low 0\noom_kill 2\n")
    got, thread = follow(case, ["a"], 0.02)
    until(lambda: len(got) > 2)
    assert {event["type"] for event in got} == {"stats"}, "those before are not ours to tell"
    (case.path / "cg-a/memory.events").write_text("low 0\noom_kill 4\n")
    until(lambda: {"type": "oom", "id": "a"} in got)
    time.sleep(0.1)
    child.kill()
    child.wait()
    thread.join(20)
    assert sum(event["type"] == "oom" for event in got) == 1


def test_a_last_moment_oom_kill_is_reported(case: Case) -> None:
    child = case.make("a", memory__events="oom_kill 0\n")
    got, thread = follow(case, ["a"])
    time.sleep(0.1)
    (case.path / "cg-a/memory.events").write_text("oom_kill 1\n")
    child.kill()
    child.wait()
    thread.join(20)
    assert got == [{"type": "oom", "id": "a"}]


def test_a_runtime_that_cannot_be_measured_is_noted(case: Case) -> None:
    child = case.make("a")
    (case.path / "cg-a/cgroup.procs").unlink()
    (case.path / "cg-a").rmdir()
    got, thread = follow(case, ["a"], 0.02)
    until(lambda: (case.path / "log").exists() and "no statistics of container a" in (case.path / "log").read_text())
    child.kill()
    child.wait()
    thread.join(20)
    assert not thread.is_alive() and got == []


def test_nothing_stays_open_when_one_is_stopped(case: Case) -> None:
    import os

    case.make("a", memory__events="oom_kill 0\n")
    stopped = case.make("b")
    stopped.kill()
    stopped.wait()
    containers = [case.store.open("a"), case.store.open("b")]
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(StateError, match="container not running"):
        events.follow(containers, 1.0, print, Log())
    assert len(os.listdir("/proc/self/fd")) == before
