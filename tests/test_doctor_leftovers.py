"""pyrunc.doctor.leftovers: unused states, processes and cgroups, in any number and with any
names."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import doctor_support
import work
from doctor_support import Made, flat, made, only, tree
from pyrunc import procfs, state
from pyrunc.doctor import leftovers
from pyrunc.doctor.findings import MOST, Finding
from pyrunc.doctor.machine import Machine

complete = doctor_support.complete

HOSTILE = ["-rf", "a b", "$(touch x)", "new\nline", "\33[31mred", ";reboot", "'quoted'", "\udcff", "..x", "x" * 250]


def look(machine: Made) -> list[Finding]:
    return flat(leftovers.check(machine))


class Root:
    """A host with its own state root; the states and cgroups of this machine are real."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.path = top / "state"
        self.machine = made(top)
        self.machine.root_option = str(self.path)
        self.store = state.Store(str(self.path))

    def make(self, id: str = "c1", pid: int = 0, **changes: Any) -> None:
        container = self.store.reserve(id)
        config: Json = {"root": {"path": "rootfs"}, "process": {}}
        container.describe_intent(
            config=config, bundle="/b", cgroup=f"/pods/{id}",
            cgroup_dir=f"{self.top}/sys/fs/cgroup/pods/{id}", cgroup_manager="cgroupfs", late=[],
        )  # fmt: skip
        if pid:
            container.set_init(pid)
        data: Json = {"status": "running", **changes}
        container.data |= data
        container.save()
        container.unlock()


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return Root(tmp_path)


def test_none(root: Root) -> None:
    assert [(one.status, one.seen) for one in look(root.machine)] == [("ok", "none")]
    root.make(pid=os.getpid())
    assert [(one.status, one.seen) for one in look(root.machine)] == [("ok", "none")]


def test_the_command_removes_a_stopped_container(root: Root) -> None:
    root.make()
    found = only(look(root.machine), "states")
    assert (found.status, found.seen) == ("note", "c1 is stopped")
    assert found.mend == f"/usr/local/bin/pyrunc --root {root.path} delete c1"


def test_processes_that_outlive_the_first(root: Root) -> None:
    events = root.top / "sys/fs/cgroup/pods/c1/cgroup.events"
    events.parent.mkdir(parents=True)
    events.write_text("populated 1\nfrozen 0\n")
    root.make()
    found = only(look(root.machine), "processes")
    assert found.status == "problem" and found.mend.endswith(" delete --force c1")
    events.write_text("populated 0\nfrozen 0\n")
    assert only(look(root.machine), "states").status == "note"


def test_before_the_last_boot(root: Root) -> None:
    root.make(bootid="another")
    assert only(look(root.machine), "states").seen == "c1 is from before the last boot"


def test_half_created(root: Root) -> None:
    root.make(status="creating", runtime={"pid": 1, "starttime": 1})
    assert only(look(root.machine), "states").status == "problem"
    root.make("c2", status="creating")  # by this process, which still runs
    assert [one.seen for one in look(root.machine) if "c2" in one.seen] == []


def test_damaged(root: Root) -> None:
    root.make()
    (root.path / "c1/state.json").write_text("{")
    found = only(look(root.machine), "states")
    assert found.status == "problem" and found.mend.endswith("delete --force c1")


def test_a_state_that_is_in_use_is_left_alone(root: Root) -> None:
    root.make()
    (root.path / "c1/state.json").write_text("{")
    holder = state.Store(str(root.path)).find("c1")
    holder.root.exists()
    holder.acquire(1.0)
    assert look(root.machine)[0].seen == "none"


@pytest.mark.parametrize("kind", ["directory", "file", "link"])
def test_hostile_names(kind: str, root: Root) -> None:
    """The command is printable, and removes this entry and nothing else."""
    root.make("keep", pid=os.getpid())
    for name in HOSTILE:
        path = root.path / name
        if kind == "directory":
            path.mkdir()
        elif kind == "file":
            path.write_text("x")
        else:
            path.symlink_to("/etc")
    found = [one for one in look(root.machine) if one.check == "states"]
    ids = [one for one in found if "not a container's" in one.seen]
    assert len(ids) == len(HOSTILE)
    for one in found:
        assert one.seen.isprintable() and one.mend.isprintable()
        subprocess.run(["sh", "-ec", one.mend], check=True, cwd=root.top, timeout=20)
    assert os.listdir(root.path) == ["keep"]


def test_thousands(root: Root) -> None:
    """Time and output are bounded."""
    root.make("c0")
    text = (root.path / "c0/state.json").read_text()
    calls = {}
    for number in range(1, 3001):
        (root.path / f"c{number}").mkdir()
        (root.path / f"c{number}/state.json").write_text(text.replace('"c0"', f'"c{number}"'))
        (root.path / f"bad {number}").mkdir()
        if number in (300, 3000):
            calls[number] = work.calls(lambda: look(root.machine))
    assert calls[3000] < 10.5 * calls[300]
    found = look(root.machine)
    assert len(found) <= 3 * (MOST + 1)
    assert sum(len(one.seen) + len(one.means) + len(one.mend) for one in found) < 20000


def test_states_are_not_touched(root: Root) -> None:
    root.make()
    (root.path / "c2").mkdir()
    (root.path / "c3").mkdir()
    (root.path / "c3/state.json").write_text("{")
    before = sorted(tree(str(root.path)))
    assert look(root.machine)
    assert sorted(tree(str(root.path))) == before


# -- processes -------------------------------------------------------------------------------------


def process(top: Path, pid: int, start: int, *links: str, exe: str = "/memfd:pyrunc-init (deleted)") -> None:
    """A process of init in a made-up /proc; the machine is up for 1000 s."""
    place = top / "proc" / str(pid)
    (place / "fd").mkdir(parents=True)
    (place / "comm").write_text("pyrunc-init\n")
    fields = ["S", *["0"] * 18, str(start * os.sysconf("SC_CLK_TCK"))]
    (place / "stat").write_text(f"{pid} (pyrunc-init) {' '.join(fields)}\n")
    os.symlink(exe, place / "exe")
    for number, link in enumerate(links):
        os.symlink(link, place / "fd" / str(number))


def test_an_init_without_a_state(root: Root) -> None:
    process(root.top, 4711, 100, "/run/pyrunc/c1/start (deleted)")
    found = only(look(root.machine), "processes")
    assert (found.status, found.mend) == ("problem", "kill -KILL 4711")


@pytest.mark.parametrize(
    ("start", "link", "exe"),
    [
        (100, "/run/pyrunc/c1/start", "/memfd:pyrunc-init (deleted)"),  # another process that reuses the pid
        (100, "socket:[1]", "/memfd:pyrunc-init (deleted)"),  # its runtime still runs
        (995, "/run/pyrunc/c1/start (deleted)", "/memfd:pyrunc-init (deleted)"),  # its runtime may still run
        (100, "/run/pyrunc/c1/start (deleted)", "/usr/bin/sleep"),  # another process that reuses the pid
    ],
)
def test_an_init_that_is_none_of_ours(start: int, link: str, exe: str, root: Root) -> None:
    process(root.top, 4711, start, link, exe=exe)
    assert look(root.machine)[0].seen == "none"


# -- cgroups ---------------------------------------------------------------------------------------


def cgroup(top: Path, path: str, populated: int = 0) -> None:
    place = top / "sys/fs/cgroup" / path
    place.mkdir(parents=True)
    (place / "cgroup.events").write_text(f"populated {populated}\nfrozen 0\n")


def test_empty_scopes(root: Root) -> None:
    cgroup(root.top, "a.slice/pyrunc-c1.scope")
    cgroup(root.top, "a.slice/pyrunc-c2.scope", populated=1)
    cgroup(root.top, "a.slice/pyrunc-$(x).scope")
    cgroup(root.top, "a.slice/docker-c1.scope")
    found = [one for one in look(root.machine) if one.check == "cgroups"]
    assert sorted(one.seen for one in found) == [
        "/a.slice/pyrunc-$(x).scope is empty",
        "/a.slice/pyrunc-c1.scope is empty",
    ]
    assert any(one.mend == f"rmdir '{root.top}/sys/fs/cgroup/a.slice/pyrunc-$(x).scope'" for one in found)


def test_a_cgroup_with_our_program(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup(root.top, "pods/c1")
    cgroup(root.top, "pods/c2")
    monkeypatch.setattr(leftovers, "programs", lambda fd: ["pyrunc_devices"] if "c" in name_of(fd) else [])
    root.make("c2", pid=os.getpid())
    found = [one for one in look(root.machine) if one.check == "cgroups"]
    assert [one.seen for one in found if "/pods/" in one.seen] == ["/pods/c1 is empty"]


def name_of(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}").rpartition("/")[2]


def test_a_cgroup_of_an_engines_container(root: Root) -> None:
    cgroup(root.top, "k/pyrunc-x.scope")
    place = root.top / "run/containerd/runc/k8s.io/x"
    place.mkdir(parents=True)
    (place / "state.json").write_text(json.dumps({"cgroup": "/k/pyrunc-x.scope"}))
    (place.parent / "y").mkdir()
    (place.parent / "y/state.json").write_text("[" * 9999)
    assert look(root.machine)[0].seen == "none"


def test_many_cgroups(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "CGROUPS_MOST", 100)
    for number in range(300):
        cgroup(root.top, f"pyrunc-{number}.scope")
    found = look(root.machine)
    assert len(found) == MOST + 1 and re.match(r"and \d+ more", found[-1].seen)


def test_names_of_programs() -> None:
    """The cgroup has no device program of ours, whatever the caller may query."""
    fd = os.open("/", os.O_RDONLY)
    try:
        assert leftovers.programs(fd) == []
    finally:
        os.close(fd)


def test_age_of_this_process() -> None:
    machine = Machine()
    started = procfs.process_stat(os.getpid())[1]
    assert started and 0 <= leftovers.age(machine, os.getpid()) < 36000
