"""pyrunc.checkpoint.dump without CRIU: the request, and the actions after CRIU's answer."""

from __future__ import annotations

import errno
import os
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc.checkpoint import dump, messages, rootfs
from pyrunc.checkpoint.criu import CriuError
from pyrunc.checkpoint.dump import Dump, checkpoint, key_of
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError, StateError, SysError
from pyrunc.launch.ending import Interrupts


class Loose(Dump):
    """An object with the given members."""

    def __init__(self, container: Any, values: Any, log: Any) -> None:
        self.container, self.values, self.log = container, values, log
        self.config: Any = {}
        self.mounts: Any = Mounts(container.said)
        self.request = {}
        self.status_fd = -1


class Mounts:
    def __init__(self, said: list[Any]) -> None:
        self.said = said
        self.linux: Any = {}

    def refuse(self) -> None:
        self.said.append("mounts are good")

    def dumped(self, root: int, pid: int) -> list[str]:
        self.said.append((os.readlink(f"/proc/self/fd/{root}"), pid))
        return ["m"]


class Container:
    """A container that records calls."""

    def __init__(self, status: str = "running", **data: Any) -> None:
        self.id, self.said, self.state, self.alive = "c1", [], status, True  # type: ignore[var-annotated]
        self.data: dict[str, Any] = {"pid": os.getpid(), "rootfs": "/r", "cgroup": "/c", **data}

    def status(self) -> str:
        return self.state

    def frozen(self) -> bool:
        return self.state == "paused"

    def init_alive(self) -> bool:
        return self.alive

    def cgroup_directory(self) -> str:
        return str(self.data.get("cgroup_dir", ""))


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def warning(self, text: str) -> None:
        self.lines.append(text)

    debug = warning


class Guard:
    def __init__(self, one: Container) -> None:
        self.one = one

    def start(self, criu: int, directory: str) -> None:
        if "no guard" in self.one.data:
            raise OSError(errno.EAGAIN, "")
        self.one.said.append(("guard", criu, directory))

    def dismiss(self) -> None:
        self.one.said.append("dismissed")


class Driver:
    def __init__(self, one: Container) -> None:
        self.one = one

    def freeze(self, cgroup: str) -> None:
        self.one.said.append(("freeze", cgroup))
        self.one.state = "paused"

    def thaw(self, cgroup: str) -> None:
        self.one.said.append(("thaw", cgroup))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Container:
    """Fakes of CRIU and of the image directory that write to the same list as the container."""
    one = Container()

    class Images:
        fd, work_fd, parent = 11, 12, ""

        def __init__(self, values: Any, log: str) -> None:
            one.said.append(("images", log))

        def open(self, *, make: bool) -> None:
            one.said.append(("open", make))

        def write_descriptors(self, found: list[str]) -> None:
            one.said.append(("descriptors", found))

        def failure(self, what: str, text: str, *, logged: bool) -> PyruncError:
            return PyruncError(f"{what}: {text}{'' if logged else ' (not in the log)'}")

        def close(self) -> None:
            one.said.append("closed")

    class Criu:
        def __init__(self, log: object, check: object) -> None:
            self.pid = 4711

        def spawn(self, stdio: tuple[int, int, int]) -> None:
            one.said.append([os.readlink(f"/proc/self/fd/{fd}") for fd in stdio])
            os.write(stdio[1], b"x")

        def prepare(self, features: list[str]) -> None:
            one.said.append(("features", features))

        def ask(self, message: Any, notified: object) -> None:
            one.said.append((message["type"], sorted(message["opts"])))
            if "error" in one.data:
                raise one.data["error"]

        def finish(self) -> None:
            if one.data.get("stuck"):
                raise CriuError("criu did not exit")
            one.said.append("finished")

        def kill(self) -> None:
            one.said.append("killed")

    monkeypatch.setattr(dump, "Images", Images)
    monkeypatch.setattr(dump, "Criu", Criu)
    monkeypatch.setattr(rootfs, "open_root", lambda path: os.open("/", os.O_PATH))

    monkeypatch.setattr(dump, "Guard", lambda: Guard(one))
    monkeypatch.setattr(lifecycle, "driver_of", Driver)
    monkeypatch.setattr(lifecycle, "remove", lambda container, log: one.said.append("removed"))
    return one


def calm() -> Any:
    return SimpleNamespace(check=lambda: None)


OPTS = ["ext_mnt", "external", "freeze_cgroup", "images_dir_fd", "log_file", "pid", "root", "work_dir_fd"]


def test_a_dump(world: Container) -> None:
    one = Loose(world, {}, Log())
    one.run(calm())
    assert world.said == [
        ("images", "dump.log"), ("open", True), ["/dev/null"] * 3, ("features", []),
        ("/", os.getpid()), ("descriptors", ["/dev/null"] * 3), (messages.DUMP, OPTS), "closed",
        "finished", "dismissed",
    ]  # fmt: skip
    assert one.request == {
        "images_dir_fd": 11, "work_dir_fd": 12, "log_file": "dump.log", "pid": os.getpid(), "root": "/r",
        "external": [], "freeze_cgroup": None, "ext_mnt": ["m"],
    }  # fmt: skip


def test_a_dump_before_the_dump(world: Container) -> None:
    world.data |= {"cgroup_dir": "/sys/c", "descriptors": ["a"]}
    one = Loose(world, {"pre-dump": True, "lazy-pages": True}, Log())
    one.run(calm())
    assert ("features", ["mem_track", "lazy_pages"]) in world.said
    kinds = [entry[0] for entry in world.said if isinstance(entry, tuple)]
    assert messages.SINGLE_PRE_DUMP in kinds and "descriptors" not in kinds
    assert (
        one.request["track_mem"] is True and one.request["freeze_cgroup"] == "/sys/c" and "ext_mnt" not in one.request
    )
    world.said.clear()
    Loose(world, {"parent-path": "p"}, Log()).run(calm())
    assert ("features", ["mem_track"]) in world.said and ("descriptors", ["a"]) in world.said


@pytest.mark.parametrize(("alive", "end"), [(True, [("thaw", "/c")]), (False, [])])
def test_the_container_is_frozen_before_criu_is_asked(world: Container, alive: bool, end: list[Any]) -> None:
    """CRIU leaves it as it was, if there is still something."""
    world.data["cgroup_dir"], world.alive = "/sys/c", alive
    Loose(world, {}, Log()).run(calm())
    at = world.said.index(("guard", 4711, "/sys/c"))
    assert world.said[at + 1 : at + 3] == [("freeze", "/c"), (messages.DUMP, OPTS)]
    assert world.said[at + 3 :] == ["closed", "finished", *end, "dismissed"]


@pytest.mark.parametrize(
    ("state", "values", "data"),
    [("paused", {}, {}), ("running", {"pre-dump": True}, {}), ("running", {}, {"no guard": True})],
)
def test_the_container_is_not_frozen(world: Container, state: str, values: Any, data: Any) -> None:
    """It is already, its processes run while their memory is written, or nothing would thaw it if
    pyrunc were killed: then CRIU freezes it."""
    world.state = state
    world.data |= {"cgroup_dir": "/sys/c", **data}
    log = Log()
    Loose(world, values, log).run(calm())
    assert not any(entry[0] in ("freeze", "thaw") for entry in world.said) and world.said[-1] == "dismissed"
    assert len(log.lines) == len(data)


def test_a_parent_of_images(world: Container, monkeypatch: pytest.MonkeyPatch) -> None:
    one = Loose(world, {}, Log())
    one.fill(SimpleNamespace(fd=1, work_fd=2, parent="../p"))  # type: ignore[arg-type]
    assert (one.request["parent_img"], one.request["track_mem"]) == ("../p", True)

    def fails(path: str) -> int:
        assert path == f"/proc/{os.getpid()}/root"
        raise OSError(errno.EACCES, "")

    monkeypatch.setattr(rootfs, "open_root", fails)
    with pytest.raises(SysError) as caught:
        one.fill(SimpleNamespace(fd=1, work_fd=2, parent=""))  # type: ignore[arg-type]
    assert str(caught.value).startswith("/root: open: EACCES") and caught.value.errno == errno.EACCES


@pytest.mark.parametrize(
    ("before", "alive", "after", "thawed"),
    [
        ("running", True, "paused", True), ("running", True, "running", False), ("running", False, "paused", False),
        ("paused", True, "paused", False),
    ],
)  # fmt: skip
def test_a_dump_that_fails(world: Container, before: str, alive: bool, after: str, thawed: bool) -> None:
    world.state, world.data["error"] = before, CriuError("no")
    one = Loose(world, {}, Log())
    frozen = [before == "paused", after == "paused"]
    world.frozen = lambda: frozen.pop(0)  # type: ignore[method-assign]
    world.alive = alive
    with pytest.raises(PyruncError, match=r"^dump: no$"):
        one.run(calm())
    end = ["closed", "finished", *([("thaw", "/c")] if thawed else []), "dismissed"]
    assert world.said[-len(end) :] == end and "killed" not in world.said


def test_a_criu_that_does_not_end(world: Container) -> None:
    """It is killed, and has not thawed the processes; after a dump they are gone."""
    world.data["stuck"], world.frozen = True, lambda: False  # type: ignore[method-assign]
    Loose(world, {}, Log()).run(calm())
    assert world.said[-2:] == ["killed", "dismissed"]
    frozen = [False, True]
    world.data["error"], world.frozen = CriuError("no"), lambda: frozen.pop(0)  # type: ignore[method-assign]
    with pytest.raises(PyruncError, match=r"^dump: no$"):
        Loose(world, {}, Log()).run(calm())
    assert world.said[-3:] == ["killed", ("thaw", "/c"), "dismissed"]


def test_a_criu_that_is_killed(world: Container) -> None:
    """It may have left its code in the processes, and has logged nothing about that."""
    world.data["error"] = CriuError("criu was killed")
    world.data["error"].ended = True
    text = "dump: criu was killed; the processes may have ended with it (not in the log)"
    with pytest.raises(PyruncError) as caught:
        Loose(world, {}, Log()).run(calm())
    assert str(caught.value) == text


def test_an_error_that_is_not_of_criu(world: Container) -> None:
    """Its log has no reason for that."""
    world.data["error"] = SysError("criu", "send", errno.ENOMEM)
    with pytest.raises(SysError, match=r"^criu: send: ENOMEM"):
        Loose(world, {}, Log()).run(calm())


def test_a_dump_that_is_interrupted(world: Container) -> None:
    def check() -> None:
        raise PyruncError("interrupted by signal 15")

    world.data["error"] = CriuError("no")
    with pytest.raises(PyruncError, match="interrupted by signal 15"):
        Loose(world, {}, Log()).run(SimpleNamespace(check=check))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "data", "values", "words"),
    [
        ("running", {}, {}, ""), ("paused", {}, {}, ""),
        ("created", {}, {}, "container cannot be checkpointed in created state"),
        ("stopped", {}, {}, "container cannot be checkpointed in stopped state"),
        ("running", {"image_bundle": "/b"}, {}, "a container created with --image takes its files with it"),
        ("running", {"image_bundle": "/b"}, {"leave-running": True}, ""),
        ("running", {"mounts": ["m"]}, {}, "the container has mounts that `mounts add` made"),
    ],
)  # fmt: skip
def test_refusals(status: str, data: Any, values: Any, words: str) -> None:
    container = Container(status, **data)
    one = Loose(container, values, Log())
    if not words:
        one.refuse()
        assert container.said == ["mounts are good"]
        return
    with pytest.raises(PyruncError) as caught:
        one.refuse()
    assert str(caught.value).startswith(words) and isinstance(caught.value, StateError) == (status not in ("running",))


def test_namespaces_with_a_path_are_external() -> None:
    one = Loose(Container(), {}, Log())
    one.mounts.linux = {
        "namespaces": [
            {"type": "network", "path": "/proc/self/ns/net"}, {"type": "pid", "path": "/proc/self/ns/pid"},
            {"type": "ipc", "path": "/proc/self/ns/ipc"}, {"type": "network"}, {"type": "pid", "path": ""},
        ]
    }  # fmt: skip
    inodes = [os.stat(f"/proc/self/ns/{name}").st_ino for name in ("net", "pid")]
    assert one.namespaces() == [f"net[{inodes[0]}]:extRootNetNS", f"pid[{inodes[1]}]:extRootPidNS"]
    one.mounts.linux["namespaces"].append({"type": "pid", "path": "/no"})
    with pytest.raises(SysError) as caught:
        one.namespaces()
    assert str(caught.value).startswith('/linux/namespaces/5/path "/no": stat: ENOENT')
    one.mounts.linux = {}
    assert one.namespaces() == [] and key_of("net") == "extRootNetNS"


def test_the_status_is_written_once() -> None:
    one = Loose(Container(), {}, Log())
    reader, writer = os.pipe()
    one.status_fd = writer
    one.notified("pre-dump", 1, -1)
    assert one.status_fd == writer
    one.notified("status-ready", 1, -1)
    assert one.status_fd == -1 and os.read(reader, 9) == b"\0" and os.read(reader, 9) == b""
    one.notified("status-ready", 1, -1)
    os.close(reader)


@pytest.mark.parametrize(
    ("values", "removed"), [({}, True), ({"leave-running": True}, False), ({"pre-dump": True}, False)]
)
def test_the_fate_of_the_container(
    world: Container, monkeypatch: pytest.MonkeyPatch, values: Any, removed: bool
) -> None:
    restored: list[str] = []
    monkeypatch.setattr(dump, "Dump", Loose)
    monkeypatch.setattr("pyrunc.checkpoint.options.refuse_rootless", lambda: restored.append("asked"))
    monkeypatch.setattr(Interrupts, "restore", lambda self: restored.append("restored"))
    log = Log()
    checkpoint(world, values, log)  # type: ignore[arg-type]
    assert ("removed" in world.said) is removed and restored == ["asked", "restored"] and log.lines == []

    def fails(*args: object) -> None:
        raise PyruncError("busy")

    monkeypatch.setattr(lifecycle, "remove", fails)
    checkpoint(world, values, log)  # type: ignore[arg-type]
    assert log.lines == (["container c1: checkpointed, but not deleted: busy"] if removed else [])
    world.data["error"] = CriuError("no")
    with pytest.raises(PyruncError, match="dump: no"):
        checkpoint(world, values, log)  # type: ignore[arg-type]
    assert restored[-1] == "restored"
