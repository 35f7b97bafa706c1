"""pyrunc.checkpoint.restore without CRIU: the order of steps, the request, and what its answers
lead to."""

from __future__ import annotations

import os
import posix
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import procfs
from pyrunc.checkpoint import messages, restore
from pyrunc.checkpoint.criu import EXTRA, CriuError
from pyrunc.checkpoint.restore import Restore
from pyrunc.errors import PyruncError, SysError, UsageError
from pyrunc.launch.run import Run, RunOptions
from pyrunc.native import sockets

OWN = "extRootNetNS", "extRootPidNS"


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def debug(self, text: str) -> None:
        self.lines.append(text)


def options() -> RunOptions:
    log: Any = Log()
    return RunOptions("c1", log)


class Images:
    """An image directory that is nowhere."""

    def __init__(self, said: list[Any]) -> None:
        self.said, self.targets = said, ["/dev/null", "pipe:[1]", "pipe:[1]"]
        self.parent, self.path, self.work, self.fd, self.work_fd = "", "/images", "/work", 40, 41
        self.module = 0

    def open(self, *, make: bool) -> None:
        self.said.append(("open", make))

    def read_descriptors(self) -> list[str]:
        return self.targets

    def security_module(self) -> int:
        return self.module

    def failure(self, verb: str, reason: str, *, logged: bool) -> PyruncError:
        return PyruncError(f"{verb}|{reason}|{logged}")

    def close(self) -> None:
        self.said.append("images closed")


class Criu:
    """A CRIU that answers at once."""

    def __init__(self, said: list[Any]) -> None:
        self.said, self.pid, self.sock, self.error = said, 0, -1, None

    def prepare(self) -> None:
        self.said.append("prepared")

    def ask(self, request: Any, notified: Any, until: str) -> None:
        self.said.append(("ask", request["type"], dict(request["opts"]), notified.__name__, until))
        if self.error:
            raise self.error

    def go_on(self, kind: int, notified: Any) -> None:
        self.said.append(("go on", kind, notified.__name__))
        if self.error:
            raise self.error

    def finish(self) -> None:
        self.said.append(("criu finished", self.pid))

    def kill(self) -> None:
        self.said.append("criu killed")


class Container:
    def __init__(self, said: list[Any], top: str) -> None:
        self.said, self.dir = said, f"{top}/c1"
        self.data: dict[str, Any] = {"rootfs": "/r"}

    def set_init(self, pid: int) -> None:
        self.said.append(("init", pid))

    def save(self) -> None:
        self.said.append("saved")


class Mounts:
    def __init__(self, said: list[Any], namespaces: list[dict[str, str]]) -> None:
        self.said, self.linux = said, {"namespaces": namespaces}

    def namespace(self, kind: str) -> bool:
        return any(entry["type"] == kind for entry in self.linux["namespaces"])

    def refuse(self) -> None:
        self.said.append("mounts are good")

    def make_places(self, *args: Any) -> None:
        self.said.append(("places", *args))

    def restored(self, *args: Any) -> list[dict[str, str]]:
        self.said.append(args)
        return [{"key": "/k", "val": "v"}]


@pytest.fixture
def said() -> list[Any]:
    return []


@pytest.fixture
def one(said: list[Any], tmp_path: Path) -> Any:
    """A restore whose parts write to `said`."""
    opts = options()
    found: Any = Restore(opts, {"image-path": str(tmp_path / "images")})
    found.images, found.criu, found.mounts = Images(said), Criu(said), Mounts(said, [])
    found.container = Container(said, str(tmp_path))
    (tmp_path / "c1").mkdir()
    found.config, found.linux = {"process": {"terminal": True}}, {}
    found.targets = found.images.targets
    found.request = {"manage_cgroups_mode": 0, "inherit_fd": [], "config_file": None}
    return found


def test_a_new_restore(tmp_path: Path) -> None:
    found: Any = Restore(options(), {"image-path": str(tmp_path), "work-path": "/w"})
    assert (found.stdio, found.master, found.shared, found.request, found.targets) == ([0, 1, 2], -1, None, {}, [])
    assert (found.images.path, found.images.log) == (str(tmp_path), "/w/restore.log")
    found.check()  # nothing has been caught yet
    found.interrupts = SimpleNamespace(check=lambda: (_ for _ in ()).throw(PyruncError("signal")))
    with pytest.raises(PyruncError, match="signal"):
        found.check()
    assert found.has_notify_socket() is True and found.stray_children() == []


def test_the_verb_asks_for_root_first(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr("pyrunc.checkpoint.options.refuse_rootless", lambda: calls.append("root"))

    def called(opts: RunOptions, session: Restore) -> int:
        calls.append((opts, type(session)))
        return 7

    monkeypatch.setattr(restore, "run", called)
    opts = options()
    assert restore.restored(opts, {}) == 7 and calls == ["root", (opts, Restore)]


# -- the order -------------------------------------------------------------------------------------


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("piped", [False, True])
def test_the_order_of_steps(
    one: Any, said: list[Any], monkeypatch: pytest.MonkeyPatch, detach: bool, piped: bool
) -> None:
    pipe = os.pipe()
    streams = SimpleNamespace(theirs=[pipe[0], pipe[1], pipe[1]], close=lambda: said.append("streams closed"))
    one.opts.detach, one.opts.bundle = detach, "/bundle/."

    def open_stdio() -> None:
        said.append("stdio")
        one.streams = streams if piped else None

    class Opened(Mounts):
        def __init__(self, config: Any, bundle: str) -> None:
            said.append(bundle)
            super().__init__(said, [])

    monkeypatch.setattr(restore, "Mounts", Opened)
    monkeypatch.setattr(Restore, "open_stdio", lambda self: open_stdio())
    for name in ("prepare", "fill", "reserve", "ask"):
        monkeypatch.setattr(Restore, name, lambda self, name=name: said.append(name))
    monkeypatch.setattr(Restore, "release", lambda self, interrupts: said.append("release"))
    one.channel = SimpleNamespace(block_signals=lambda: said.append("blocked"), close=lambda: None)
    one.steps(SimpleNamespace(check=lambda: said.append("checked")))
    blocked = [] if detach else ["blocked", "checked"]
    assert said == [
        ("open", False), "stdio", "prepare", "/bundle", "mounts are good", "fill", "reserve", "ask", *blocked,
        "release",
    ]  # fmt: skip
    target = os.readlink(f"/proc/self/fd/{pipe[1]}" if piped else "/proc/self/fd/1")
    assert one.container.data["descriptors"][:2] == ["/dev/null", target]
    said.clear()
    one.undo.run()
    assert said == (["streams closed"] if piped else []) + ["images closed"]
    for fd in pipe:
        os.close(fd)


# -- the request -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "fields"),
    [
        ({}, {}),
        ({"lsm-profile": "apparmor:p"}, {"lsm_profile": "apparmor:p"}),
        ({"lsm-profile": "selinux:a:b"}, {"lsm_profile": "selinux:a:b"}),
        ({"lsm-mount-context": "c"}, {"lsm_mount_context": "c"}),
        ({"tcp-close": True, "manage-cgroups-mode": "soft"}, {"tcp_close": True, "manage_cgroups_mode": 3}),
    ],
)
def test_the_request(one: Any, values: Any, fields: Any) -> None:
    one.values = values
    one.config["annotations"] = {"org.criu.config": "/conf"}
    one.fill()
    assert one.request == {
        "log_level": 4, "notify_scripts": True, "manage_cgroups": True, "manage_cgroups_mode": 0,
        "empty_ns": 0x40000000, "config_file": "/conf", "log_file": "restore.log", "evasive_devices": True,
        "rst_sibling": True, "orphan_pts_master": True, "lsm_profile": None, "lsm_mount_context": None,
        "parent_img": None, **fields,
    }  # fmt: skip


def test_the_request_without_a_terminal(one: Any) -> None:
    one.values = {}
    one.images.parent = "../p"
    one.config = {"process": {}, "annotations": None}
    one.fill()
    assert one.request["orphan_pts_master"] is False and one.request["parent_img"] == "../p"


@pytest.mark.parametrize("profile", ["apparmor", "apparmor:", "smack:x", ":x"])
def test_refused_profiles(one: Any, profile: str) -> None:
    one.values = {"lsm-profile": profile}
    with pytest.raises(UsageError) as caught:
        one.fill()
    assert str(caught.value) == f"--lsm-profile {profile}: expected apparmor:NAME or selinux:LABEL"


@pytest.mark.parametrize(
    ("label", "on", "module", "profile", "lost"),
    [
        ("a:b:c", True, 0, "", True),
        ("a:b:c", True, 2, "", True),
        ("a:b:c", True, 1, "", False),
        ("a:b:c", False, 0, "", False),
        ("a:b:c", True, 0, "selinux:d:e:f", False),  # CRIU refuses it
        ("", True, 0, "", False),
        (None, True, 0, "", False),
    ],
)
def test_a_label_that_would_be_lost(
    one: Any, label: str | None, on: bool, module: int, profile: str, lost: bool
) -> None:
    one.values = {"lsm-profile": profile}
    one.config["process"]["selinuxLabel"] = label
    one.facts, one.images.module = SimpleNamespace(selinux=on), module
    if not lost:
        one.fill()
        return
    with pytest.raises(PyruncError, match=r'^/process/selinuxLabel: the checkpoint has no .* "a:b:c" would be lost'):
        one.fill()


def test_namespaces_of_the_request(one: Any, monkeypatch: pytest.MonkeyPatch, said: list[Any]) -> None:
    opened: list[tuple[str, str]] = []

    def namespace(path: str, pointer: str) -> int:
        opened.append((path, pointer))
        return 50 + len(opened)

    monkeypatch.setattr(procfs, "open_namespace", namespace)
    entries = [{"type": kind, "path": f"/{kind}"} for kind in ("user", "pid", "uts", "ipc", "network", "mount", "time")]
    one.mounts.linux["namespaces"] = [{"type": "pid"}, *entries]
    assert one.namespaces() == [51, 52]
    assert opened == [("/pid", "/linux/namespaces/2/path"), ("/network", "/linux/namespaces/5/path")]
    assert one.request["inherit_fd"] == [{"key": OWN[1], "fd": EXTRA}, {"key": OWN[0], "fd": EXTRA + 1}]
    names = {"user": "user", "uts": "uts", "ipc": "ipc", "mount": "mnt", "time": "time"}
    assert one.request["join_ns"] == [{"ns": name, "ns_file": f"/{kind}"} for kind, name in names.items()]
    one.mounts.linux = {"namespaces": None}
    assert one.namespaces() == [] and one.request["join_ns"] == []


def test_each_pipe_is_inherited_once(one: Any) -> None:
    one.targets, one.stdio = ["pipe:[1]", "pipe:[2]", "pipe:[1]"], [10, 11, 12]
    assert one.inherit_stdio(7) == [("pipe:[1]", 10), ("pipe:[2]", 11)]
    assert one.request["inherit_fd"] == [{"key": "pipe:[1]", "fd": 7}, {"key": "pipe:[2]", "fd": 8}]
    one.targets, one.request["inherit_fd"] = ["/dev/null", "socket:[1]", ""], []
    assert one.inherit_stdio(7) == [] and one.request["inherit_fd"] == []


@pytest.mark.parametrize(("kinds", "mode", "own"), [(["cgroup"], 0, True), (["cgroup"], 3, False), (["pid"], 0, False)])
def test_whose_cgroup_namespace(one: Any, kinds: list[str], mode: int, own: bool) -> None:
    one.mounts.linux["namespaces"] = [{"type": kind} for kind in kinds]
    one.request["manage_cgroups_mode"] = mode
    assert one.own_cgroup_namespace() is own


# -- the conversation ------------------------------------------------------------------------------


class Nest:
    """A fork that does nothing."""

    made: list[Any] = []  # noqa: RUF012

    def __init__(self, rootfs: str, stage: str, top: str, *, cgroup_namespace: bool) -> None:
        Nest.made.append(self)
        self.args = (rootfs, stage, top, cgroup_namespace)
        self.pid, self.root, self.directories, self.closed = 4321, "/top/rootfs", (), 0
        self.forked: Any = None
        self.named: Any = ()

    def fork(self, stdio: list[int], extra: tuple[int, ...], look: Any) -> None:
        self.forked = ([os.readlink(f"/proc/self/fd/{fd}") for fd in stdio], extra, look.__name__)
        self.written = os.write(stdio[1], b"x") if stdio != [0, 1, 2] else 0

    def go(self) -> tuple[list[dict[str, str]], int]:
        return [{"key": "/k", "val": "/stage/x"}], 77

    def final(self, path: str) -> str:
        return path.replace("/stage", "/top")

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def asked(one: Any, said: list[Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    Nest.made.clear()
    monkeypatch.setattr(restore, "Nest", Nest)
    for name in ("make_cgroup", "join_cgroup", "share_images"):
        monkeypatch.setattr(Restore, name, lambda self, name=name: said.append((name, self.enter_pid, self.criu.pid)))
    monkeypatch.setattr(Restore, "commit", lambda self, status: said.append(status))
    monkeypatch.setattr(procfs, "open_namespace", lambda path, pointer: os.open("/proc/self/ns/pid", os.O_RDONLY))
    one.streams = SimpleNamespace(close_theirs=lambda: said.append("theirs closed"))
    one.mounts.linux["namespaces"] = [{"type": "pid", "path": "/p"}, {"type": "cgroup"}]
    return one


def test_asking_criu(asked: Any, said: list[Any], tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    asked.stdio = [0, 1, 2]
    asked.ask()
    nest = Nest.made[0]
    stage = f"{tmp_path}/c1/criu"
    assert os.stat(stage).st_mode & 0o7777 == 0o700 and nest.args == ("/r", stage, str(tmp_path), True)
    stdio, (namespace, *pipes), look = nest.forked
    assert stdio == ["/dev/null"] * 3 and pipes == [1] and namespace > 2 and look == "look" and nest.written == 1
    assert nest.directories == (("/images", 40), ("/work", 41)) and nest.named == ("",)
    pid = nest.pid
    assert said[:5] == [
        ("make_cgroup", pid, pid), ("join_cgroup", pid, pid), "theirs closed", ("share_images", pid, pid), "prepared",
    ]  # fmt: skip
    request = {
        "manage_cgroups_mode": 0, "config_file": None, "join_ns": [],
        "ext_mnt": [{"key": "/k", "val": "/top/x"}], "root": "/top/rootfs",
        "inherit_fd": [{"key": OWN[1], "fd": EXTRA}, {"key": "pipe:[1]", "fd": EXTRA + 1}],
        "images_dir_fd": EXTRA + 2, "work_dir_fd": EXTRA + 3,
    }  # fmt: skip
    assert said[5:] == [("ask", messages.RESTORE, request, "notified", "post-restore"), "running"]
    assert asked.criu.sock == 77 and asked.container.data["created"].endswith("Z")
    assert sorted(os.listdir("/proc/self/fd")) == before
    asked.undo.run()
    assert nest.closed == 1


def test_a_shell_job_gets_the_terminal(asked: Any, said: list[Any]) -> None:
    asked.values, asked.streams, asked.stdio = {"shell-job": True}, None, [0, 1, 2]
    asked.ask()
    assert Nest.made[0].forked[0] == [os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2)]
    assert "theirs closed" not in said


@pytest.mark.parametrize(
    ("error", "words"),
    [(CriuError("criu: no"), "restore|criu: no|True"), (SysError("criu", "send", 5), "criu: send: EIO")],
)
def test_a_restore_that_fails(asked: Any, said: list[Any], error: PyruncError, words: str) -> None:
    """Only what CRIU itself says is explained by its log."""
    asked.criu.error = error
    with pytest.raises(PyruncError) as caught:
        asked.ask()
    assert str(caught.value).startswith(words) and "running" not in said
    asked.interrupts = SimpleNamespace(check=lambda: (_ for _ in ()).throw(PyruncError("signal")))
    with pytest.raises(PyruncError, match="signal"):
        asked.explained(error)


def test_the_child_makes_the_places_first(one: Any, said: list[Any]) -> None:
    one.facts, one.notify = "facts", "/notify"
    assert one.look(33) == [{"key": "/k", "val": "v"}]
    stage = f"{one.container.dir}/criu"
    assert said == [("places", 33, f"{stage}/places"), (33, stage, "facts", "/notify")]


def test_the_cgroup_of_criu(one: Any, said: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup/cgroup.procs").touch()
    one.plan = SimpleNamespace(cgroup_path="/p")
    one.facts = SimpleNamespace(cgroup_dir=lambda path: f"{tmp_path}/cgroup")
    one.driver = SimpleNamespace(devices=lambda *args: said.append(args))
    one.linux, one.cgroup_fd, one.enter_pid = {"resources": {"devices": [1]}}, 9, os.getpid()
    monkeypatch.setattr(Restore, "resources", lambda self: {"devices": ["rule"]})
    one.join_cgroup()
    assert (tmp_path / "cgroup/cgroup.procs").read_text() == str(os.getpid())
    assert said == [(9, ["rule"], "/linux/resources/devices")] and "cg_root" not in one.request
    one.request["manage_cgroups_mode"] = 3
    one.join_cgroup()
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    assert one.request["cg_root"] == [
        {"ctrl": line.split(":", 2)[1], "path": line.split(":", 2)[2]} for line in lines
    ]  # fmt: skip
    said.clear()
    one.plan.cgroup_path = ""
    one.join_cgroup()
    assert said == []


# -- notifications ---------------------------------------------------------------------------------


def test_who_handles_a_notification(one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    for name in ("on_namespaces", "on_terminal", "on_complete"):
        monkeypatch.setattr(Restore, name, lambda self, value, name=name: told.append((name, value)))
    for script, pid, fd in (
        ("setup-namespaces", 5, -1), ("orphan-pts-master", 0, 0), ("orphan-pts-master", 0, -1), ("post-restore", 6, -1),
        ("pre-resume", 7, 8), ("", 0, -1),
    ):  # fmt: skip
        one.notified(script, pid, fd)
    assert told == [("on_namespaces", 5), ("on_terminal", 0), ("on_complete", 6)]


def test_the_first_process(one: Any, said: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("join_rdt", "create_hooks", "set_resources"):
        monkeypatch.setattr(Restore, name, lambda self, name=name: said.append(name))
    one.on_namespaces(os.getpid())
    assert said == [("init", os.getpid()), "saved", "join_rdt", "create_hooks"]
    assert one.init_pid == os.getpid() and one.reached_pid is True
    assert f"Pid:\t{os.getpid()}\n" in Path(f"/proc/self/fdinfo/{one.pidfd}").read_text()
    os.close(one.pidfd)
    one.on_complete(os.getpid())
    assert said[-1] == "set_resources"
    with pytest.raises(PyruncError) as caught:
        one.on_complete(1)
    assert str(caught.value) == f"criu: the first process was {os.getpid()}, and is 1"


def test_the_terminal(one: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    master = os.open("/dev/null", os.O_RDWR)
    one.on_terminal(master)
    assert one.master != master and os.path.samestat(os.fstat(one.master), os.fstat(master))
    os.close(one.master)
    ours, theirs = sockets.socketpair()
    connected: list[tuple[str, str]] = []

    def connect(option: str, path: str) -> int:
        connected.append((option, path))
        return os.dup(ours)

    monkeypatch.setattr(restore, "connect", connect)
    one.master, one.opts.console_socket = -1, "/s"
    before = len(os.listdir("/proc/self/fd"))
    one.on_terminal(master)
    text, fd = sockets.receive_descriptor(theirs, 100, 1000)
    assert connected == [("--console-socket", "/s")] and text == b"orphan-pts-master" and one.master == -1
    assert os.path.samestat(os.fstat(fd), os.fstat(master))
    os.close(fd)
    os.close(theirs)
    with pytest.raises(SysError, match=r"^--console-socket: sendmsg: EPIPE"):
        one.on_terminal(master)
    assert len(os.listdir("/proc/self/fd")) == before - 1
    os.close(ours)
    os.close(master)


# -- the directory of images -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maps", "mode", "group", "shared"),
    [
        ([{"containerID": 0, "hostID": 5000, "size": 9}], 0o700, 5000, 0o710),
        ([{"containerID": 0, "hostID": 5000, "size": 9}], 0o2700, 5000, 0o2710),
        ([{"containerID": 0, "hostID": 5000, "size": 9}], 0o701, -1, 0o701),
        ([{"containerID": 1, "hostID": 5000, "size": 9}], 0o700, -1, 0o700),
        ([], 0o700, -1, 0o700),
    ],
)
def test_images_are_shared_with_root_of_the_container(
    one: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maps: Any, mode: int, group: int, shared: int
) -> None:
    changed: list[Any] = []
    monkeypatch.setattr(posix, "fchown", lambda fd, uid, gid: changed.append((fd, uid, gid)))
    (tmp_path / "i").mkdir()
    (tmp_path / "i").chmod(mode)
    fd = one.images.fd = os.open(tmp_path / "i", os.O_RDONLY)
    one.linux = {"gidMappings": maps}
    one.share_images()
    assert os.fstat(fd).st_mode & 0o7777 == shared and changed == ([(fd, -1, group)] if group >= 0 else [])
    changed.clear()
    for _ in range(2):
        one.unshare_images()
    assert os.fstat(fd).st_mode & 0o7777 == mode and one.shared is None
    assert changed == ([(fd, -1, os.fstat(fd).st_gid)] if group >= 0 else [])
    os.close(fd)


def test_images_that_cannot_be_shared(one: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(fd: int, uid: int, gid: int) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(posix, "fchown", fails)
    (tmp_path / "i").mkdir(mode=0o700)
    one.images.fd = os.open(tmp_path / "i", os.O_RDONLY)
    one.linux = {"gidMappings": [{"containerID": 0, "hostID": 5000, "size": 9}]}
    one.share_images()
    assert one.log.lines == ["--image-path: [Errno 30] Read-only file system"]
    one.unshare_images()
    assert one.shared is None
    os.close(one.images.fd)


# -- as `run` continues ----------------------------------------------------------------------------


def test_going_on(one: Any, said: list[Any], tmp_path: Path) -> None:
    one.enter_pid = one.criu.pid = 9
    (tmp_path / "c1/criu").mkdir()
    one.await_program(None)
    assert said == [("go on", messages.RESTORE, "notified"), ("criu finished", 9), "images closed"]
    assert one.enter_pid == 0 and not (tmp_path / "c1/criu").exists()


def test_going_on_fails(one: Any, said: list[Any]) -> None:
    one.enter_pid, one.criu.error = 9, CriuError("no")
    with pytest.raises(PyruncError, match=r"^restore\|no\|True$"):
        one.await_program(None)
    assert said == [("go on", messages.RESTORE, "notified"), "criu killed"] and one.enter_pid == 0


@pytest.mark.parametrize("master", [-1, 0, 8])
def test_the_relay_of_a_terminal(one: Any, monkeypatch: pytest.MonkeyPatch, master: int) -> None:
    made: list[Any] = []

    class Relay:
        def __init__(self, fd: int) -> None:
            made.append(fd)

        def close(self) -> None:
            made.append("closed")

    monkeypatch.setattr("pyrunc.launch.console.Relay", Relay)
    monkeypatch.setattr(Restore, "end_program", lambda self: made.append("ended"))
    one.master = master
    one.go()
    assert made == ([master] if master >= 0 else []) and (one.relay is not None) == (master >= 0)
    made.clear()
    one.undo.run()
    assert made == ["ended"] + (["closed"] if master >= 0 else [])


def test_killing(one: Any, said: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "kill_children", lambda self: said.append(("children", self.criu.pid)))
    one.criu.pid = 5
    one.kill_children()
    assert said == [("children", 5), ("criu finished", 0)]
