"""Every system call of the modules that hold descriptors and processes fails once. Nothing leaks,
and every report is true."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import faulty
import pyrunc.state.container
import pyrunc.state.root
import pyrunc.state.store
from json_type import Json
from pyrunc import fs, hooks, idmap, jsontext, log, procfs, state
from pyrunc.cgroup import delegate, devices
from pyrunc.errors import PyruncError, StateError, SysError
from pyrunc.launch import netdev
from pyrunc.native import binding, bpf, sockets
from pyrunc.spec.types import DeviceRule, Hook

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


# --- the state directory --------------------------------------------------------------------------


class Root:
    """A new state root for each run of a scene."""

    def __init__(self, place: Path) -> None:
        self.place, self.count = place, 0
        self.store = state.Store("")

    def new(self) -> state.Store:
        """An empty one."""
        self.close()
        self.count += 1
        self.store = state.Store(str(self.place / str(self.count)))
        return self.store

    def made(self, **data: Any) -> state.Container:
        """One with a container, which is unlocked."""
        container = self.new().reserve("c1")
        start = procfs.process_stat("self")[1]
        full: Json = {"status": "created", "pid": os.getpid(), "starttime": start} | data
        container.data |= full
        container.save()
        container.unlock()
        return self.store.open("c1")

    @property
    def directory(self) -> Path:
        """The container's directory."""
        return Path(self.store.root) / "c1"

    def close(self) -> None:
        """Close the descriptor of the last one."""
        if self.store.fd >= 0:
            os.close(self.store.fd)
            self.store.fd = -1


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    made = Root(tmp_path)
    yield made
    made.close()


STATE = (pyrunc.state.container, pyrunc.state.root, pyrunc.state.store, fs)


def test_reserve(root: Root) -> None:
    """A process that fails to take an id leaves it to others."""

    def scene() -> Callable[[], str]:
        store = root.new()
        assert store.open_root(make=True)

        def run() -> str:
            container = store.reserve("c1")
            container.unlock()
            return str(container.data["status"])

        return run

    def after(error: BaseException | None) -> None:
        assert root.directory.exists() == (error is None)

    tolerated = faulty.sweep(STATE, scene, after=after)
    assert set(tolerated) <= {"close"}


def test_make_the_root(root: Root) -> None:
    def scene() -> Callable[[], bool]:
        store = root.new()

        def run() -> bool:
            if not store.open_root(make=True):
                return False
            os.close(store.fd)
            store.fd = -1
            return True

        return run

    faulty.sweep(STATE, scene)


def test_open(root: Root) -> None:
    """An inconclusive error must not be reported as "does not exist"."""

    def scene() -> Callable[[], str]:
        root.made()
        return lambda: str(root.store.open("c1").data["status"])

    def after(error: BaseException | None) -> None:
        assert not isinstance(error, state.NotFound)

    assert set(faulty.sweep(STATE, scene, after=after)) <= {"close"}


def test_lock_and_save(root: Root) -> None:
    """A failing save leaves the complete old content and no temporary file."""

    def scene() -> Callable[[], int]:
        container = root.made()

        def run() -> int:
            with container:
                container.data["annotations"] = {"new": "x"}
                container.save()
            return 1

        return run

    def after(error: BaseException | None) -> None:
        found = jsontext.loads((root.directory / "state.json").read_bytes())
        assert found.get("annotations", {}) == ({"new": "x"} if error is None else found.get("annotations", {}))
        assert {path.name for path in root.directory.iterdir()} <= {"state.json", "intent.json", ".state.json.tmp"}

    assert set(faulty.sweep(STATE, scene, after=after)) <= {"close", "link", "unlink"}


@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EIO])
def test_status(root: Root, number: int) -> None:
    """An unknown status is an error, never "stopped"."""

    def scene() -> Callable[[], tuple[str, bool]]:
        container = root.made(bootid=procfs.boot_id())
        os.mkfifo(root.directory / "start")
        reader = os.open(root.directory / "start", os.O_RDONLY | os.O_NONBLOCK)
        readers.append(reader)
        return lambda: (container.status(), container.init_alive())

    readers: list[int] = []
    assert set(faulty.sweep(STATE, scene, number)) <= {"close"}
    for fd in readers:
        os.close(fd)


def test_destroy_can_be_repeated(root: Root) -> None:
    """The state exists until the last call, so that the next `delete` finds what is left."""

    def scene() -> Callable[[], bool]:
        container = root.made()
        (root.directory / "notify" / "deep").mkdir(parents=True)
        (root.directory / "config.json").touch()
        container.acquire(1)
        held.append(container)

        def run() -> bool:
            container.destroy()
            return True

        return run

    def after(error: BaseException | None) -> None:
        container = held.pop()
        if error is not None:
            assert (
                not root.directory.exists()
                or (root.directory / "state.json").exists()
                or not any(root.directory.iterdir())
            )
        container.destroy()
        assert not root.directory.exists()
        container.unlock()

    held: list[state.Container] = []
    # The lock's own descriptor is closed with the directory, so the test itself compares the number
    # of descriptors.
    for number in (errno.ENOMEM, errno.EIO):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(faulty, "open_descriptors", dict)
            assert set(faulty.sweep(STATE, scene, number, after=after)) <= {"close"}
    for container in held:
        container.unlock()


def test_list(root: Root) -> None:
    """An unreadable container is reported, never omitted."""

    def scene() -> Callable[[], list[str]]:
        root.made()
        said: list[PyruncError] = []

        def run() -> list[str]:
            names = [container.id for container in root.store.list(said.append)]
            assert names or said
            return ["c1"]

        return run

    faulty.sweep(STATE, scene)


def test_a_process(root: Root) -> None:
    def scene() -> Callable[[], int]:
        started = procfs.process_stat("self")[1]

        def run() -> int:
            fd = procfs.open_process(os.getpid(), started)
            os.close(fd)
            return 1

        return run

    assert set(faulty.sweep(STATE, scene)) <= {"close"}


@pytest.mark.parametrize("number", [int(signal.SIGUSR1), int(signal.SIGKILL)])
def test_kill(root: Root, number: int) -> None:
    children: list[subprocess.Popen[bytes]] = []

    def scene() -> Callable[[], bool]:
        child = subprocess.Popen(["sleep", "60"])
        children.append(child)
        container = root.made(pid=child.pid, starttime=procfs.process_stat(child.pid)[1])
        return lambda: container.kill_init(number)

    def after(error: BaseException | None) -> None:
        child = children.pop()
        if error is None:
            assert child.wait(10) == -number
        else:
            assert child.poll() is None
            child.kill()
            child.wait()

    assert set(faulty.sweep(STATE, scene, after=after)) <= {"close"}
    for child in children:
        child.kill()
        child.wait()


# --- hooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("sinks", [False, True])
def test_hook(tmp_path: Path, sinks: bool) -> None:
    """The program has run and was awaited, or it is killed; its pipe, its state and the copies of
    its output are closed."""
    names = {"run.oci.hooks.stdout": f"{tmp_path}/out", "run.oci.hooks.stderr": f"{tmp_path}/err"}

    def scene() -> Callable[[], str]:
        (tmp_path / "ran").unlink(missing_ok=True)
        hook: Hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat >{tmp_path}/ran; echo said"], "timeout": 20}

        def run() -> str:
            hooks.run_hooks(
                "prestart", [hook], '{"pid":1}',
                hooks.Surroundings(str(tmp_path), log.Log(), names if sinks else None), fatal=True,
            )  # fmt: skip
            return (tmp_path / "ran").read_text()

        return run

    assert set(faulty.sweep((hooks, fs), scene)) <= {"close", "write", "pidfd_send_signal"}


# --- devices --------------------------------------------------------------------------------------


class Programs:
    """bpf(2) of a cgroup, with real descriptors."""

    def __init__(self, attached: int) -> None:
        self.present = list(range(1, attached + 1))
        self.by_fd: dict[int, int] = {}

    def _open(self, number: int) -> int:
        fd = os.memfd_create("program")
        self.by_fd[fd] = number
        return fd

    def load_device(self, code: bytes) -> int:
        assert code
        return self._open(99)

    def attached(self, _: int, most: int) -> list[int]:
        assert len(self.present) < most
        return list(self.present)

    def open_program(self, number: int) -> int:
        return self._open(number)

    def attach(self, _: int, fd: int, flags: int, replaced: int) -> int:
        assert flags == (2 | 4 if replaced >= 0 else 2)
        if replaced >= 0:
            self.present.remove(self.by_fd[replaced])
        self.present.append(self.by_fd[fd])
        return 0

    def detach(self, _: int, fd: int) -> int:
        self.present.remove(self.by_fd[fd])
        return 0

    def into(self, patch: pytest.MonkeyPatch) -> None:
        """Replace the kernel's functions."""
        for name in ("load_device", "attached", "open_program", "attach", "detach"):
            patch.setattr(bpf, name, getattr(self, name))


@pytest.mark.parametrize("attached", [0, 1, 3])
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("rules", [[], [{"allow": True, "access": "rwm"}]])
def test_device_program(monkeypatch: pytest.MonkeyPatch, attached: int, replace: bool, rules: list[DeviceRule]) -> None:
    """Never fewer rules in force than before, unless the update succeeds; each program's descriptor
    is closed."""
    now = [Programs(0)]

    def scene() -> Callable[[], list[int]]:
        now[0] = Programs(attached)
        now[0].into(monkeypatch)

        def run() -> list[int]:
            devices.attach(5, rules, replace=replace)
            return sorted(now[0].present)

        return run

    def after(error: BaseException | None) -> None:
        old = set(range(1, attached + 1))
        assert error is None or 99 in now[0].present or old <= set(now[0].present) or rules != []

    wanted = [99] if replace else [*range(1, attached + 1), 99]
    if rules:
        wanted = [] if replace else list(range(1, attached + 1))
    assert scene()() == wanted
    least = 0 if rules and not replace else 1
    tolerated = faulty.sweep((devices, fs), scene, after=after, least=least)
    assert set(tolerated) <= {"close"}


def test_programs_that_have_gone_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    class Gone(Programs):
        def open_program(self, number: int) -> int:
            if number == 2:
                raise FileNotFoundError(errno.ENOENT, "bpf(PROG_GET_FD_BY_ID)")
            return super().open_program(number)

        def detach(self, cgroup: int, fd: int) -> int:
            if self.by_fd[fd] == 3:
                raise FileNotFoundError(errno.ENOENT, "bpf(PROG_DETACH)")
            return super().detach(cgroup, fd)

    made = Gone(4)
    made.into(monkeypatch)
    before = faulty.open_descriptors()
    devices.attach(5, [], replace=True)
    assert sorted(made.present) == [2, 3, 99]
    assert faulty.open_descriptors() == before


@pytest.mark.parametrize(
    ("number", "words"), [(errno.E2BIG, "too many rules (2)"), (errno.EINVAL, "the verifier says")]
)
def test_program_that_is_refused(monkeypatch: pytest.MonkeyPatch, number: int, words: str) -> None:
    def load(code: bytes, count: int, log: bytearray, size: int) -> int:
        log[0:19] = b"the verifier  says\n"
        raise OSError(number, "bpf(PROG_LOAD)")

    monkeypatch.setattr(binding.calls, "bpf_prog_load_device", load)
    rules: list[DeviceRule] = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 1, "minor": 1, "access": "r"},
    ]
    with pytest.raises(SysError) as raised:
        devices.attach(5, rules, "/x")
    assert raised.value.errno == number
    assert str(raised.value).startswith("/x")
    assert words in str(raised.value)


# --- who owns a cgroup ----------------------------------------------------------------------------


@needs_root
def test_delegation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every listed file that exists is used; files that this kernel lacks, and paths that climb,
    are skipped."""
    listed = tmp_path / "delegate"
    listed.write_text("cgroup.procs\nmissing\n../outside\nmemory.oom.group\n")
    monkeypatch.setattr(delegate, "DELEGATE", str(listed))
    (tmp_path / "outside").touch()
    group = tmp_path / "group"
    group.mkdir()
    for name in ("cgroup.procs", "cgroup.threads", "memory.oom.group", "memory.max"):
        (group / name).touch()
    delegate.give(str(group), 1234)
    owners = {path.name: path.stat().st_uid for path in group.iterdir()}
    assert owners == {"cgroup.procs": 1234, "cgroup.threads": 0, "memory.oom.group": 1234, "memory.max": 0}
    assert (group.stat().st_uid, group.stat().st_gid, (tmp_path / "outside").stat().st_uid) == (1234, 0, 0)
    listed.unlink()
    delegate.give(str(group), 1235)
    owners = {path.name: path.stat().st_uid for path in group.iterdir()}
    assert owners == {"cgroup.procs": 1235, "cgroup.threads": 1235, "memory.oom.group": 1234, "memory.max": 0}
    with pytest.raises(SysError, match="chown"):
        delegate.give(str(tmp_path / "nowhere"), 1234)


@needs_root
def test_delegation_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegate, "DELEGATE", str(tmp_path / "none"))
    (tmp_path / "cgroup.procs").touch()
    assert set(faulty.sweep((delegate, fs), lambda: lambda: delegate.give(str(tmp_path), 0))) <= {"open", "close"}


# --- id mappings ----------------------------------------------------------------------------------


@needs_root
def test_idmapped_mount(tmp_path: Path) -> None:
    """The tree and the namespace of its mapping: whatever fails, both descriptors are closed."""
    (tmp_path / "source").mkdir()
    one = [{"containerID": 0, "hostID": 0, "size": 10}]
    mount = {
        "destination": "/x", "source": str(tmp_path / "source"), "options": ["rbind", "idmap"],
        "uidMappings": one, "gidMappings": one,
    }  # fmt: skip
    config: Json = {"mounts": [mount], "linux": {"rootfsPropagation": ""}}

    def scene() -> Callable[[], int]:
        def run() -> int:
            try:
                fd = idmap.open_mount(config, str(tmp_path / "source"), "/mounts/0")
            except SysError as error:
                if error.errno in (errno.EINVAL, errno.EPERM):
                    pytest.skip(f"no idmapped mounts here: {error}")
                raise
            os.close(fd)
            return 1

        return run

    assert set(faulty.sweep((idmap, fs), scene)) <= {"close"}


def test_maps_of_a_process(tmp_path: Path) -> None:
    """If the process has ended or the kernel rejects the map, the error names the field, and no
    descriptor leaks."""
    before = faulty.open_descriptors()
    for pid, number in ((2**22 + 5, errno.ENOENT), (os.getpid(), errno.EPERM)):
        with pytest.raises(SysError) as raised:
            idmap._write(pid, "uid_map", "0 0 1\n5 5 5\n", "/linux/uidMappings")
        assert raised.value.errno == number
        assert str(raised.value).startswith("/linux/uidMappings")
        assert "0 0 1, 5 5 5" in str(raised.value)
    assert faulty.open_descriptors() == before


# --- network devices ------------------------------------------------------------------------------


@needs_root
def test_namespace_of_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two descriptors are closed with it, and also if it cannot be opened."""
    pytest.importorskip("pyroute2")
    from pyroute2 import IPRoute

    IPRoute().close()  # descriptors that the library keeps open
    before = faulty.open_descriptors()
    made = netdev.Namespace("/proc/self/ns/net")
    assert len(faulty.open_descriptors()) > len(before) + 1
    made.close()
    assert faulty.open_descriptors() == before
    made.close()
    for path, number in (("/proc/self/ns/uts", errno.EINVAL), ("/nowhere", errno.ENOENT)):
        with pytest.raises((SysError, OSError)) as raised:
            netdev.Namespace(path)
        assert getattr(raised.value, "errno", 0) == number
        del raised
        assert faulty.open_descriptors() == before

    def fails(fd: int) -> int:
        raise OSError(errno.EMFILE, "setns")

    monkeypatch.setattr(sockets, "netlink_in", fails)
    with pytest.raises(SysError, match="setns"):
        netdev.Namespace("/proc/self/ns/net")
    assert faulty.open_descriptors() == before


def test_errors_are_those_of_the_product() -> None:
    """Verbs report every error that `sweep` accepts."""
    assert issubclass(StateError, PyruncError) and issubclass(SysError, PyruncError)
