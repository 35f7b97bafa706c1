"""The information that `delete --force` can recover about a container with a damaged state."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import transcript
from pyrunc import host, jsontext, procfs, state
from pyrunc.container import salvage
from state_support import sleeper

__all__ = ["sleeper"]  # a fixture

if TYPE_CHECKING:
    from pyrunc.state.document import Document

kept = transcript.follow(leave=("test_a_cgroup_with_others_is_not_killed",))


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> host.HostFacts:
    """A hierarchy in which we are in /own."""
    facts = host.HostFacts()
    facts.cgroup2_mount = str(tmp_path / "cgroup")
    facts.own_cgroup = "/own/service"
    facts.rootless = False
    (tmp_path / "cgroup").mkdir()
    monkeypatch.setattr(host, "snapshot", lambda: facts)
    return facts


class Damaged:
    """A container's directory with given files."""

    def __init__(self, root: Path) -> None:
        self.store = state.Store(str(root))
        self.store.reserve("c1").unlock()
        self.directory = root / "c1"

    def put(self, **files: Any) -> None:
        """Write files by name without .json: bytes, or a document."""
        for name, content in files.items():
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            (self.directory / f"{name}.json").write_bytes(data)

    def recover(self) -> Document:
        """The result of the recovery."""
        found = self.store.find("c1")
        salvage.recover(found)
        return found.data


@pytest.fixture
def damaged(tmp_path: Path, facts: host.HostFacts) -> Damaged:
    return Damaged(tmp_path / "root")


def group(facts: host.HostFacts, path: str, *pids: int) -> None:
    """A cgroup with these processes."""
    directory = Path(facts.cgroup2_mount + path)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))


def ours(child: subprocess.Popen[bytes], **changes: Any) -> dict[str, Any]:
    """An incomplete state whose process is alive."""
    return {"pid": child.pid, "starttime": procfs.process_stat(child.pid)[1], "bootid": procfs.boot_id()} | changes


REFUSED = r"the state of container c1 is damaged, and nothing says which cgroup it has.*then remove .*/c1$"


@pytest.mark.parametrize("names", [[], [".state.json.tmp"], ["notify"]])
def test_a_create_that_was_killed_before_its_first_state(damaged: Damaged, names: list[str]) -> None:
    for name in names:
        (damaged.directory / name).mkdir()
    assert damaged.recover()["cgroup"] == ""


@pytest.mark.parametrize(
    "files",
    [
        {"state": b""}, {"state": b"\0" * 100, "intent": b"\0"}, {"config": {}}, {"config": b"{"},
        {"config": {"linux": {"cgroupsPath": "relative"}}}, {"config": {"linux": {"cgroupsPath": 7}}},
        {"config": {"linux": {"cgroupsPath": "/../x"}}}, {"config": {"linux": {"cgroupsPath": "/"}}},
        {"config": {"linux": {"cgroupsPath": "/own"}}}, {"config": {"linux": {"cgroupsPath": "/own/service"}}},
        {"config": []}, {"state": {"cgroup": "/own"}}, {"state": {"cgroup": "/"}}, {"state": {"cgroup": "x"}},
        {"state": {"cgroup": "/a/../own"}}, {"state": {"cgroup": "/a\0"}}, {"state": {"cgroup": 7}},
        {"state": {"pid": 7, "starttime": 8, "bootid": ""}},
    ],
    ids=repr,
)  # fmt: skip
def test_no_evidence_does_not_mean_gone(damaged: Damaged, facts: host.HostFacts, files: dict[str, Any]) -> None:
    group(facts, "/own/service", os.getpid())
    damaged.put(**files)
    with pytest.raises(state.Damaged, match=REFUSED):
        damaged.recover()


def test_without_a_hierarchy_nothing_is_seen(damaged: Damaged, facts: host.HostFacts) -> None:
    damaged.put(config={"linux": {"cgroupsPath": "/a/b"}}, state={"cgroup": "/a/b"})
    assert damaged.recover()["cgroup"] == "/a/b"
    facts.cgroup2_mount = ""
    with pytest.raises(state.Damaged, match=REFUSED):
        damaged.recover()


def test_the_cgroup_that_config_json_asks_for(damaged: Damaged, facts: host.HostFacts) -> None:
    damaged.put(config={"linux": {"cgroupsPath": "/a/b"}})
    assert damaged.recover()["cgroup"] == "/a/b"  # neither exists any more
    facts.rootless = True
    with pytest.raises(state.Damaged, match=REFUSED):  # a user's container may have none
        damaged.recover()
    group(facts, "/a/b")
    found = damaged.recover()
    assert (found["cgroup"], found["cgroup_made"], found["pid"]) == ("/a/b", ["/a/b"], 0)


def test_the_scope_that_config_json_asks_for(damaged: Damaged, facts: host.HostFacts) -> None:
    damaged.put(config={"linux": {"cgroupsPath": "system.slice:pyrunc:c1"}})
    facts.prefix = str(damaged.directory)  # without /proc/1, systemd's units are at the top
    assert damaged.recover()["cgroup"] == "/system.slice/pyrunc-c1.scope"


def test_an_earlier_boot_left_nothing(damaged: Damaged) -> None:
    damaged.put(state=b'{"status":[],"pid":7,"starttime":8,"cgroup":"/x","bootid":"another","runtime":{"pid"')
    found = damaged.recover()
    assert (found["cgroup"], found["pid"]) == ("", 0)


def test_a_container_without_a_cgroup_that_has_ended(damaged: Damaged) -> None:
    damaged.put(state={"pid": 4_000_000, "starttime": 8, "cgroup": "", "bootid": procfs.boot_id()})
    assert damaged.recover()["cgroup"] == ""


@pytest.mark.parametrize("cut", [True, False])
def test_the_text_of_a_state_that_lost_its_end(damaged: Damaged, facts: host.HostFacts, cut: bool) -> None:
    container = damaged.store.find("c1")
    data = {
        "version": 1, "id": "c1", "status": "running", "pid": 4_000_000, "starttime": 5, "cgroup": "/a/\"b",
        "bootid": procfs.boot_id(), "runtime": {"pid": os.getpid(), "starttime": procfs.process_stat("self")[1]},
        "bundle": '"pid":',
    }  # fmt: skip
    text = jsontext.dumps(data).encode()
    group(facts, '/a/"b')
    damaged.put(state=text[: text.index(b'{"pid"') if cut else text.index(b'"bundle"')])
    salvage.recover(container)
    assert (container.data["cgroup"], container.data["pid"]) == ('/a/"b', 0)
    # Without the preceding member, a pid may belong to the pyrunc that created the container.
    start = text.index(b'"runtime"')
    assert salvage.clues(text[start:]) == {} == salvage.clues(b'x"pid":7') == salvage.clues(b"")


def test_the_cgroup_of_the_process(
    damaged: Damaged, facts: host.HostFacts, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = host.read

    def read(path: str, *, strict: bool = False) -> bytes:
        return b"0::/moved\n" if path == f"/proc/{sleeper.pid}/cgroup" else real(path, strict=strict)

    monkeypatch.setattr(host, "read", read)
    group(facts, "/moved", sleeper.pid)
    damaged.put(state=ours(sleeper), config={"linux": {"cgroupsPath": "/asked"}})
    group(facts, "/asked")
    found = damaged.recover()
    assert (found["pid"], found["cgroup"], found["cgroup_made"]) == (sleeper.pid, "/moved", ["/moved"])
    damaged.put(state=ours(sleeper, cgroup="/kept"))
    assert damaged.recover()["cgroup"] == "/moved"  # /kept does not exist
    group(facts, "/kept")
    assert damaged.recover()["cgroup"] == "/kept"
    group(facts, "/a/kept")
    for listed, used in (
        (["/a", "/a/kept"], ["/a", "/a/kept"]),
        (["/a"], ["/a/kept"]),
        (["/b", "/a/kept"], ["/a/kept"]),
        ([7, "/a/kept"], ["/a/kept"]),
        ("/a/kept", ["/a/kept"]),
    ):
        damaged.put(state=ours(sleeper, cgroup="/a/kept", cgroup_made=listed))
        assert damaged.recover()["cgroup_made"] == used
    # Another boot, start time or process is not evidence.
    for changes in {"starttime": 1}, {"pid": 1}, {"bootid": ""}:
        damaged.put(state=ours(sleeper, **changes))
        found = damaged.recover()
        assert (found["pid"], found["cgroup"]) == (0, "/asked")


def test_a_cgroup_with_others_is_not_killed(
    damaged: Damaged, facts: host.HostFacts, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with --cgroup-manager disabled: the container is in its caller's cgroup."""
    monkeypatch.setattr(host, "read", lambda path, *, strict=False: b"0::/session\n")
    group(facts, "/session", os.getpid(), sleeper.pid)
    damaged.put(state=ours(sleeper))
    with pytest.raises(state.Damaged, match=f"process {sleeper.pid} shares its cgroup and its pid namespace"):
        damaged.recover()
    monkeypatch.setattr(procfs, "first_in_namespace", lambda pid: pid == sleeper.pid)
    found = damaged.recover()  # when it ends, its pid namespace ends
    assert (found["pid"], found["cgroup"]) == (sleeper.pid, "")


def test_the_process_that_waits_for_start(damaged: Damaged, facts: host.HostFacts) -> None:
    fifo = damaged.directory / "start"
    os.mkfifo(fifo)
    assert salvage.waiting_process(damaged.store.find("c1")) == 0
    fd = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
    init = subprocess.Popen(["sleep", "60"], stdin=fd)
    os.close(fd)
    try:
        group(facts, "/asked")
        damaged.put(config={"linux": {"cgroupsPath": "/asked"}})
        found = damaged.recover()
        assert (found["pid"], found["starttime"]) == (init.pid, procfs.process_stat(init.pid)[1])
    finally:
        init.kill()
        init.wait()
    assert salvage.waiting_process(damaged.store.find("c1")) == 0


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_findings_are_kept(
    damaged: Damaged, facts: host.HostFacts, sleeper: subprocess.Popen[bytes], kind: str
) -> None:
    damaged.put(state=ours(sleeper, cgroup="/kept"))
    group(facts, "/kept")
    found = damaged.store.find("c1")
    found.acquire(1)
    salvage.recover(found)
    if kind == "directory":
        (damaged.directory / "state.json").unlink()
        (damaged.directory / "state.json").mkdir()
    salvage.keep(found)
    if kind == "file":
        again = damaged.store.open("c1")
        assert (again.data["cgroup"], again.data["pid"], again.status()) == ("/kept", sleeper.pid, "running")
    found.unlock()
