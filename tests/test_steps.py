"""What the functions that only call others ask of them, as in test_launch_steps.py: the lifecycle of a
container, checkpoint and restore. golden/steps.txt has the tables.
"""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc import handshake, state
from pyrunc.checkpoint import criu, dump, nest, restore
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError, SysError, UsageError
from spies import Answers, Spy

LATE = [
    "pyrunc.notify", "pyrunc.cgroup", "pyrunc.host", "pyrunc.rootmount", "pyrunc.hooks", "pyrunc.cgroup.rdt",
    "pyrunc.explain", "pyrunc.trace", "pyrunc.hints", "pyrunc.seccomp", "pyrunc.launch.streams", "pyrunc.image.locate",
        "pyrunc.container.salvage", "pyrunc.plan.faults", "pyrunc.launch.console",
]  # fmt: skip
RECORD = b"r" * handshake.RECORD_SIZE


def failed(number: int) -> OSError:
    """An error of a call."""
    return OSError(number, os.strerror(number))


# module, its functions, answers common to all cases, functions that the module imports by name
Tables = list[tuple[str, dict[str, Any], dict[str, Any], tuple[str, ...]]]


class World:
    """The spies of one case."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.notes: list[str] = []
        self.answers: dict[str, Any] = {name: value for name, value in case.items() if name.islower()}
        self.data = {"pid": 41, "cgroup": "/c1", "rootfs": "/rootfs", "bundle": "/bundle"} | case.get("DATA", {})
        self.changes = case.get("SELF", {})
        self.extra = case.get("WITH", {})

    def spy(self, name: str, **attributes: Any) -> Any:
        """A spy with attributes."""
        return Spy(name, self.notes, self.answers, **attributes)

    def given(self, args: Iterable[Any]) -> list[Any]:
        """The arguments of a call; "$name" is the value that the case has ``WITH`` this name."""
        return [self.extra[arg[1:]] if isinstance(arg, str) and arg[:1] == "$" else arg for arg in args]

    @property
    def container(self) -> Any:
        """A container with a state."""
        return self.spy("container", data=self.data, dir="/state/c1", id="c1")

    def made(self, kind: type[Any], own: str, **attributes: Any) -> Any:
        """An object that was not initialized; of its methods only ``own`` are real."""
        noted = {
            name: staticmethod(spies.noting(name, self.notes, self.answers))
            for name, value in [entry for one in kind.__mro__[:-1] for entry in vars(one).items()]
            if inspect.isfunction(value) and name not in own.split() and own != "*" and not name.startswith("__")
        }
        one: Any = object.__new__(type(kind.__name__, (kind,), noted))
        for name, value in (attributes | self.changes).items():
            setattr(one, name, value)
        return one


# -- the lifecycle ---------------------------------------------------------------------------------

START: dict[str, Any] = {
    "container.status": "created", "container.fifo": "/fifo", "posix.open": Answers([7, 8]), "posix.read": b"",
    "procfs.never_executed": False, "fs.getenv": "", "container.oci_state": "STATE", "container.init_alive": False,
    "faults.describe": SimpleNamespace(op="EXECVE"), "faults.saved_error": PyruncError("the step"),
    "container.open_init": 9, "container.unlock": None, "container.this_boot": True, "host.waits_in": "a wait",
    "container.keeps_cgroup": False, "host.snapshot": "SNAPSHOT", "time.monotonic": Answers([0.0, 9.0, 10.0, 10.5]),
}  # fmt: skip
POSTSTART = {"DATA": {"hooks": {"poststart": ["h"]}, "annotations": {"a": "b"}}}
NOTIFY = {"DATA": {"notify": "/n"}, "fs.getenv": "/host"}
EVERYTHING = {
    "root_below": 5, "root_mount": 6, "rdt": {"group": "g"}, "image_bundle": "/image", "hooks": {"poststop": ["h"]},
    "cgroup_made": ["/c1"], "cgroup_manager": "systemd",
}  # fmt: skip


def busy(count: int) -> Answers:
    """A lock that others hold for so many attempts."""
    return Answers([*(state.Busy("held") for _ in range(count)), None])


LIFECYCLE: dict[str, tuple[Callable[[World], Any], list[dict[str, Any]]]] = {
    "start": (lambda w: lifecycle.start(w.container, w.spy("log")), [
        {}, *({"container.status": status} for status in ("running", "stopped", "paused", "creating")),
        {"DATA": {"process": False}}, {"DATA": {"process": True}}, POSTSTART,
          POSTSTART | {"hooks.run_hooks": failed(5)},
        POSTSTART | {"hooks.run_hooks": KeyboardInterrupt()}, NOTIFY, NOTIFY | {"container.open_init": -1},
        NOTIFY | {"container.open_init": 0}, NOTIFY | {"notify.Proxy().wait": failed(5)},
        {"posix.open": Answers([7, failed(errno.ENXIO)])}, {"posix.write": failed(errno.EPIPE)},
        {"procfs.never_executed": True}, {"posix.read": RECORD, "DATA": {"late": ["l"]}}, {"posix.read": RECORD},
        {"posix.read": RECORD, "faults.describe": SimpleNamespace(op="HOOK")}, {"posix.read": Answers([RECORD[:9],
          b""])},
        {"posix.read": Answers([RECORD[:9], RECORD[9:]])},
        {"posix.write": failed(errno.EPIPE), "container.init_alive": Answers([True, True, PyruncError("stays")])},
    ]),
    "start without notify": (lambda w: lifecycle.start(w.container, w.spy("log"), notify=False), [NOTIFY]),
    "insist": (lambda w: lifecycle.insist(w.spy("end"), w.container, w.spy("log")), [
        {}, {"end": Answers([MemoryError(), MemoryError(), None])}, {"end": MemoryError()}, {"end": failed(5)},
        {"end": PyruncError("p")}, {"end": ValueError("v")},
    ]),
    "kill": (lambda w: lifecycle.kill(w.container, w.extra["number"], everyone=w.extra["everyone"]), [
        {"WITH": {"number": number, "everyone": everyone}, "container.status": status, "container.kill_init": killed,
         "container.creating": creating, "container.kill_cgroup": cgroup, "DATA": {"cgroup": path}}
        for number, everyone, status, killed, creating, cgroup, path in (
            (9, False, "running", True, False, True, "/c"), (15, False, "running", True, False, True, "/c"),
            (9, False, "stopped", True, False, True, "/c"), (9, False, "stopped", True, False, False, "/c"),
            (9, False, "running", False, False, True, "/c"), (9, False, "creating", True, True, True, "/c"),
            (15, False, "stopped", True, False, True, "/c"), (15, True, "stopped", True, False, True, ""),
            (15, True, "running", True, False, True, "/c"), (15, True, "running", True, False, False, "/c"),
            (9, True, "stopped", True, False, False, ""),
        )
    ]),
    "pause": (lambda w: lifecycle.pause(w.container), [
        *({"container.status": status} for status in ("created", "running", "paused", "stopped", "creating")),
        {"DATA": {"cgroup": None}, "container.status": "running"},
        {"DATA": {"cgroup_manager": "systemd"}, "container.status": "running"},
    ]),
    "resume": (lambda w: lifecycle.resume(w.container), [
        {"container.init_alive": alive, "container.frozen": frozen} for alive in (True, False) for frozen in (True,
          False)
    ]),
    "kill_and_wait": (lambda w: lifecycle.kill_and_wait(w.container), [
        {"container.init_alive": Answers(alive), "processes.wait": Answers(wait), "container.open_init": fd}
        for alive, wait, fd in (
            ([False], [None], 9), ([True], [None], -1), ([True, False], [None], 0), ([True, False], [TimeoutError()],
                9),
            ([True, True, False], [TimeoutError(), InterruptedError(), failed(errno.ECHILD)], 9),
            ([True] * 9, [TimeoutError()], 9), ([True, True, True, False], [TimeoutError()], 9),
        )
    ] + [{"container.init_alive": Answers([True, False]), "posix.waitpid": failed(errno.ECHILD)}]),
    "remove": (lambda w: lifecycle.remove(w.container, w.spy("log")), [
        {}, {"DATA": EVERYTHING}, {"DATA": EVERYTHING, "container.this_boot": False},
        {"DATA": EVERYTHING | {"root_mount": None}, "container.keeps_cgroup": True}, {"DATA": {"cgroup": ""}},
        {"DATA": EVERYTHING, "container.init_alive": Answers([True] * 9), "processes.wait": TimeoutError()},
    ]),
    "remove without hooks": (
        lambda w: lifecycle.remove(w.container, w.spy("log"), poststop=False), [{"DATA": EVERYTHING}]
    ),
    "delete": (lambda w: lifecycle.delete(w.container, w.spy("log")), [
        {"container.status": Answers(status)}
        for status in (["stopped"], ["created"], ["running"], ["paused"], ["creating"], ["stopped", "running"])
    ]),
    "delete_by_force": (lambda w: lifecycle.delete_by_force(w.spy("store"), "c1", w.spy("log")), [
        {}, {"store.find": state.NotFound("c1")}, {"container.acquire": state.NotFound("c1")},
        {"container.load": state.Damaged("d")}, {"container.load": MemoryError()},
        {"container.init_alive": PyruncError("stays")},
        *({"container.acquire": busy(count), "container.creating": True, "procfs.open_process": 6,
           "DATA": {"runtime": {"pid": 5, "starttime": 6}}} for count in (1, 2, 3)),
        {"container.acquire": busy(1), "container.load": Answers([state.Damaged("d"), None])},
        {"container.acquire": busy(1), "container.creating": False, "DATA": {"runtime": {"pid": 5}}},
        {"container.acquire": busy(1), "container.creating": True, "DATA": {"runtime": {"pid": 5, "library": True}}},
        {"container.acquire": busy(1), "container.creating": True},
        *({"container.acquire": busy(1), "container.creating": True, "DATA": {"runtime": {"pid": 5}},
           "procfs.open_process": fd} for fd in (-1, 0)),
    ]),
}  # fmt: skip

# -- criu of a restore -----------------------------------------------------------------------------

EXTERNAL = [{"key": "k", "val": "/top/c1/criu/places/1"}]
NEST: dict[str, Any] = {
    "criu.find": "/usr/sbin/criu", "criu.socketpair": (5, 6), "posix.pipe2": (7, 8), "posix.fork": 31, "fcntl": Answers(
        [*range(200, 220)]), "posix.read": b"g", "rootfs.open_root": 50, "look": EXTERNAL, "posix.open": 60,
    "posix.fstat": SimpleNamespace(st_dev=1, st_ino=2), "criu.environment": {"PATH": "/bin"},
        "posix._exit": SystemExit(),
    "fs.read_fd": b'{"found": [{"key": "k", "val": "/v"}]}', "sockets.receive_descriptor": (b"s", 70), "leave": [61,
        62],
    "reopened": 63, "criu.ARGV": ["criu"],
}  # fmt: skip


def nested(w: World, own: str) -> Any:
    """The fork of a restore."""
    return w.made(
        nest.Nest, own, rootfs="/rootfs", stage="/top/c1/criu", top="/top", directories=[("/images", 90), ("/work",
            91)],
        cgroup_namespace=False, named=("/conf", "/ns"), pid=0, release=5, report=7,
    )  # fmt: skip


FORK: dict[str, tuple[Callable[[World], Any], list[dict[str, Any]]]] = {
    "fork": (lambda w: nested(w, "fork").fork((0, 1, 2), (9,), "LOOK"), [{}, {"posix.fork": 0}]),
    "become": (lambda w: nested(w, "become").become("/criu", (6, 8), (0, 1, 2), (9,), w.spy("look")), [
        {}, {"posix.read": b""}, {"SELF": {"named": ("/tmp/conf",)}}, {"SELF": {"top": "/tmp/top"}},
        {"look": [{"key": "k", "val": "/tmp/x"}]}, {"look": PyruncError("place")},
          {"posix.execve": failed(errno.ENOEXEC)},
        {"fs.write_all": failed(errno.EPIPE)}, {"leave": SysError("criu", "unshare", errno.EPERM)},
    ]),
    "become of a criu in /tmp": (
        lambda w: nested(w, "become").become("/tmp/criu", (6, 8), (0, 1, 2), (9,), w.spy("look")), [{}]
    ),
    "leave": (lambda w: nested(w, "leave").leave(), [
        {}, {"SELF": {"cgroup_namespace": True}}, {"namespaces.unshare": failed(errno.EPERM)},
        {"mounts.set_propagation": failed(errno.EINVAL)},
    ]),
    "reopened": (lambda w: nested(w, "reopened").reopened("/images", 90), [
        {}, *({"posix.fstat": Answers([SimpleNamespace(st_dev=1, st_ino=2), SimpleNamespace(st_dev=dev, st_ino=ino)])}
              for dev, ino in ((1, 3), (2, 2), (2, 3))),
    ]),
    "mount": (lambda w: nested(w, "mount").mount("/s", "/t", b"k", 5, b"d"), [{},
        {"mounts.mount": failed(errno.EPERM)}]),
    "final": (lambda w: [nested(w, "final").final(path) for path in
                         ("/top/c1/criu", "/top/c1/criu/x", "/top/c1/criux", "/x")], [{}]),
    "root": (lambda w: nested(w, "root").root, [{}]),
    "go": (lambda w: nested(w, "go close").go(), [
        {}, {"fs.read_fd": b'{"error": "e"}'}, {"fs.read_fd": b""}, {"sockets.send": failed(errno.EPIPE)},
        {"sockets.receive_descriptor": failed(errno.EAGAIN)},
    ]),
    "close": (lambda w: (lambda one: (one.close(), one.release, one.report))(nested(w, "close")), [
        {}, {"SELF": {"release": -1}}, {"SELF": {"report": 0}},
    ]),
}  # fmt: skip

# -- checkpoint ------------------------------------------------------------------------------------

DUMP: dict[str, Any] = {
    "posix.open": 60, "container.frozen": False, "container.cgroup_directory": "/cg/c1", "container.init_alive": True,
    "images.failure": PyruncError("with the log"), "rootfs.open_root": 50, "posix.stat": SimpleNamespace(st_ino=4026),
    "mounts.dumped": ["m"], "namespaces": ["net[1]:x"], "features": ["mem_track"],
    "options.common": {"leave_running": False}, "options.page_server": "SERVER", "options.status_fd": 12,
    "load.load_config": ({"linux": {}}, b""),
}  # fmt: skip


def dumping(w: World, own: str) -> Any:
    """A dump in progress."""
    values = w.extra.get("values", {})
    spaces = w.extra.get("namespaces", [])
    return w.made(
        dump.Dump, own, config={}, container=w.container, log=w.spy("log"), request={}, status_fd=-1, values=values,
        mounts=w.spy("mounts", linux={"namespaces": spaces}),
    )  # fmt: skip


def ended() -> criu.CriuError:
    """A criu that ended."""
    error = criu.CriuError("criu was killed")
    error.ended = True
    return error


def request_of(one: Any, *results: Any) -> Any:
    """The request after a call."""
    return one.request, *results


JOINED = [
    {"type": "network", "path": "/net"},
    {"type": "pid"},
    {"type": "pid", "path": "/pid"},
    {"type": "ipc", "path": "/i"},
]
IMAGES = {"fd": 20, "work_fd": 21, "parent": ""}
CHECKPOINT: dict[str, tuple[Callable[[World], Any], list[dict[str, Any]]]] = {
    "checkpoint": (lambda w: dump.checkpoint(w.container, w.extra.get("values", {}), w.spy("log")), [
        *({"WITH": {"values": values}, "container.status": "running"}
          for values in ({}, {"leave-running": True}, {"pre-dump": True})),
        {"lifecycle.remove": PyruncError("stays"), "container.status": "running"},
        {"lifecycle.remove": failed(errno.EIO), "container.status": "running"}, {"container.status": "stopped"},
        {"options.refuse_rootless": UsageError("rootless")},
    ]),
    "init": (lambda w: (lambda one: (one.request, one.status_fd))(dump.Dump(w.container, w.extra["values"],
        w.spy("log"))), [
        {"WITH": {"values": values}, "DATA": data}
        for values in ({}, {"page-server": "a:1"}, {"status-fd": "12"}) for data in ({}, {"annotations": {"a": "b"}})
    ]),
    "refuse": (lambda w: dumping(w, "refuse").refuse(), [
        *({"container.status": status} for status in ("running", "paused", "created", "stopped")),
        *({"container.status": "running", "DATA": {"image_bundle": "/i"}, "WITH": {"values": {"leave-running": leave}}}
          for leave in (True, False)),
        {"container.status": "running", "DATA": {"mounts": ["m"]}},
    ]),
    "run": (lambda w: dumping(w, "run").run(w.spy("interrupts")), [
        {"WITH": {"values": {"pre-dump": pre}}, "container.frozen": frozen, "DATA": data} | more
        for pre in (True, False) for frozen in (True, False)
        for data, more in (
            ({}, {}), ({"descriptors": ["d"]}, {"criu.ask": ended()}), ({}, {"criu.ask": criu.CriuError("no")}),
            ({}, {"criu.ask": PyruncError("p")}),
        )
    ]),
    "freeze": (lambda w: dumping(w, "freeze").freeze(31, w.spy("guard")), [
        {}, {"container.cgroup_directory": ""}, {"guard.start": failed(errno.EACCES)},
    ]),
    "end": (lambda w: dumping(w, "end").end(w.spy("criu"), resume=w.extra["resume"]), [
        {"WITH": {"resume": resume}, "container.frozen": frozen, "container.init_alive": alive} | more
        for resume, frozen, alive, more in (
            (True, True, True, {}), (False, True, True, {}), (True, False, True, {}), (True, True, False, {}),
            (True, True, True, {"criu.finish": PyruncError("stays")}),
        )
    ]),
    "features": (lambda w: dumping(w, "features").features(), [
        {"WITH": {"values": values}}
        for values in ({}, {"pre-dump": True}, {"parent-path": "/p"}, {"lazy-pages": True},
                       {"lazy-pages": True, "parent-path": "/p"})
    ]),
    "fill": (lambda w: (lambda one: request_of(one, one.fill(w.spy("images", **IMAGES | w.extra.get("images", {})))))(
        dumping(w, "fill")), [
        {}, {"WITH": {"images": {"parent": "../p"}}}, {"WITH": {"values": {"pre-dump": True}}},
        {"rootfs.open_root": failed(errno.EACCES)}, {"container.cgroup_directory": ""},
          {"mounts.dumped": PyruncError("m")},
    ]),
    "namespaces": (lambda w: dumping(w, "namespaces").namespaces(), [
        {}, {"WITH": {"namespaces": JOINED}}, {"WITH": {"namespaces": None}},
        {"WITH": {"namespaces": JOINED}, "posix.stat": failed(errno.ENOENT)},
    ]),
    "notified": (lambda w: dumping(w, "notified").notified(w.extra["script"], 5, -1), [
        {"WITH": {"script": script}, "SELF": {"status_fd": fd}}
        for script, fd in (("status-ready", 12), ("status-ready", 0), ("status-ready", -1), ("network-lock", 12))
    ]),
}  # fmt: skip

# -- restore ---------------------------------------------------------------------------------------

RESTORE: dict[str, Any] = {
    "posix.open": 60, "posix.readlink": "pipe:[5]", "posix.pidfd_open": 83, "posix.dup": 84, "connect": 85,
    "procfs.open_namespace": Answers([91, 92, 93]), "fs.abspath": "/bundle", "state.now": "now", "host_id": 100000,
    "images.read_descriptors": ["pipe:[1]", "/dev/null", "pipe:[2]"], "images.failure": PyruncError("with the log"),
    "posix.fstat": SimpleNamespace(st_mode=0o040750, st_gid=7), "options.common": {"manage_cgroups_mode": 0},
        "fs.getenv": "",
    "fs.read_file": b"docker-default (enforce)\nother (complain)\n", "mounts.namespace": True,
        "own_cgroup_namespace": False,
    "namespaces": [91], "inherit_stdio": [("pipe:[1]", 0)], "foreground": True, "resources": {"devices": ["d"]},
    "Nest.go": (EXTERNAL, 70), "nest.go": (EXTERNAL, 70), "nest.final": "/top/1", "images.security_module": 1,
    "facts.cgroup_dir": "/cg/c1", "explained": PyruncError("explained"),
}  # fmt: skip
PIPES = ["pipe:[1]", "/dev/null", "pipe:[2]"]


def restoring(w: World, own: str, **attributes: Any) -> Any:
    """A restore in progress."""
    linux = w.extra.get("linux", {})
    config = {"process": {"cwd": "/"} | w.extra.get("process", {}), "linux": linux, "annotations": {"a": "b"}}
    w.answers.setdefault("Nest", w.spy("nest", pid=31, root="/top/rootfs"))
    return w.made(
        restore.Restore, own, values=w.extra.get("values", {}), config=config, linux=linux, container=w.container,
        images=w.spy("images", fd=20, work_fd=21, path="/images", work="/work", parent=w.extra.get("parent", "")),
        criu=w.spy("criu"), request={"config_file": None, "join_ns": [], "manage_cgroups_mode": 0, "inherit_fd": []},
        targets=PIPES, stdio=[10, 11, 12], undo=w.spy("undo"), master=-1, shared=None, streams=None, cgroup_fd=61,
        mounts=w.spy("mounts", linux=linux), opts=SimpleNamespace(console_socket=w.extra.get("socket", ""), bundle="b"),
        facts=w.spy("facts", selinux=w.extra.get("selinux", False)), enter_pid=31, init_pid=41, pidfd=-1,
        reached_pid=False, driver=w.spy("driver"), plan=SimpleNamespace(cgroup_path=w.extra.get("cgroup", "/c1")),
        interrupts=w.spy("interrupts"), channel=w.spy("channel"), log=w.spy("log"), notify="/n",
    )  # fmt: skip


def then(one: Any, result: Any) -> Any:
    """A result, and what the call has changed."""
    names = ("request", "stdio", "master", "enter_pid", "init_pid", "pidfd", "reached_pid", "shared", "mounts")
    return result, {name: getattr(one, name) for name in names}, one.container.data


def restored(own: str, *args: Any) -> Callable[[World], Any]:
    """A call of the first of these methods; the others stay real as well."""

    def call(w: World) -> Any:
        one = restoring(w, own)
        given = w.given(args)
        return then(one, getattr(one, own.split()[0])(*given))

    return call


STREAMS = Spy("streams", [], {}, theirs=[13, 14, 15])
USERNS = {"gidMappings": [{"containerID": 0, "hostID": 100000, "size": 5}]}
OTHERS = [*JOINED, {"type": "user", "path": "/u"}, {"type": "mount", "path": "/m"}]
RESTORING: dict[str, tuple[Callable[[World], Any], list[dict[str, Any]]]] = {
    "restored": (lambda w: restore.restored("opts", w.extra), [  # type: ignore[arg-type]
        {"options.refuse_rootless": UsageError("rootless")},
    ]),
    "refuse_unloaded": (lambda w: restore.refuse_unloaded(w.extra["profile"]), [
        *({"WITH": {"profile": profile}} for profile in (
            "", "selinux:x", "apparmor:", "apparmor:unconfined", "apparmor:docker-default", "apparmor:docker",
            "apparmor:other", "apparmor:none")),
        {"WITH": {"profile": "apparmor:x"}, "fs.read_file": failed(errno.ENOENT)},
    ]),
    "steps": (lambda w: then(one := restoring(w, "steps"), one.steps(w.spy("interrupts"))), [
        {}, {"foreground": False}, {"SELF": {"streams": STREAMS}}, {"images.read_descriptors": ["/dev/null"] * 3},
    ]),
    "check": (restored("check"), [{}, {"SELF": {"interrupts": None}}]),
    "has_notify_socket": (restored("has_notify_socket"), [{}]),
    "fill": (restored("fill"), [
        {}, {"WITH": {"values": {"lsm-profile": "apparmor:x", "lsm-mount-context": "c"}}}, {"WITH": {"parent": "../p"}},
        *({"WITH": {"values": {"lsm-profile": text}}} for text in ("x", "smack:a", "selinux:", "selinux:l")),
        {"WITH": {"process": {"terminal": True}}}, {"WITH": {"process": {"apparmorProfile": "docker-default"}}},
        {"WITH": {"process": {"apparmorProfile": "lost"}}},
    ]),
    "refuse_unlabelled": (restored("refuse_unlabelled"), [
        {"WITH": {"process": {"selinuxLabel": label}, "selinux": on}, "images.security_module": module}
        for label, on, module in (("", True, 0), ("l", False, 0), ("l", True, 0), ("l", True, 2), ("l", True, 1))
    ]),
    "share_images": (restored("share_images"), [
        {}, {"WITH": {"linux": USERNS}}, {"WITH": {"linux": USERNS}, "host_id": -1}, {"WITH": {"linux": USERNS},
          "host_id": 0},
        {"WITH": {"linux": USERNS}, "posix.fstat": SimpleNamespace(st_mode=0o040751, st_gid=7)},
        {"WITH": {"linux": USERNS}, "posix.fchmod": failed(errno.EROFS)},
    ]),
    "unshare_images": (restored("unshare_images"), [{}, {"SELF": {"shared": SimpleNamespace(st_mode=0o042750,
        st_gid=7)}}]),
    "ask": (restored("ask"), [
        {}, {"WITH": {"values": {"shell-job": True}}}, {"SELF": {"streams": STREAMS}},
        {"criu.ask": criu.CriuError("no")}, {"criu.prepare": PyruncError("old")}, {"nest.fork": failed(errno.EAGAIN)},
    ]),
    "own_cgroup_namespace": (restored("own_cgroup_namespace"), [
        {"mounts.namespace": own, "SELF": {"request": {"manage_cgroups_mode": mode}}} for own in (True,
          False) for mode in (0, 2)
    ]),
    "look": (restored("look", 50), [{}]),
    "namespaces": (restored("namespaces"), [{}, {"WITH": {"linux": {"namespaces": OTHERS}}}]),
    "inherit_stdio": (restored("inherit_stdio", 5), [{}, {"SELF": {"targets": ["pipe:[1]", "pipe:[1]", "/x"]}}]),
    "join_cgroup": (restored("join_cgroup"), [
        {}, {"WITH": {"cgroup": ""}},
        {"SELF": {"request": {"manage_cgroups_mode": 2}}, "fs.read_file": b"3:cpu,cpuacct:/v1\n0::/c1:x\n"},
    ]),
    "explained": (lambda w: restoring(w, "explained").explained(w.extra["error"]), [
        {"WITH": {"error": error}} for error in (PyruncError("p"), criu.CriuError("c"), ended())
    ]),
    "notified": (restored("notified", "$script", 41, "$fd"), [
        {"WITH": {"script": script, "fd": fd}}
        for script in ("setup-namespaces", "orphan-pts-master", "post-restore", "other") for fd in (-1, 0)
    ]),
    "on_namespaces": (restored("on_namespaces", 43), [{}]),
    "on_terminal": (restored("on_terminal", 33), [
        {}, {"WITH": {"socket": "/s"}}, {"WITH": {"socket": "/s"}, "sockets.send_descriptor": failed(errno.EPIPE)},
    ]),
    "on_complete": (restored("on_complete", 41), [{}, {"SELF": {"init_pid": 42}}]),
    "go": (restored("go"), [{}, {"SELF": {"master": 0}}]),
    "await_program": (restored("await_program", None), [{}, {"criu.go_on": criu.CriuError("no")}]),
    "stray_children": (restored("stray_children"), [{}]),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.container.lifecycle", LIFECYCLE, START, ()),
    ("pyrunc.checkpoint.nest", FORK, NEST, ("fcntl",)),
    ("pyrunc.checkpoint.dump", CHECKPOINT, DUMP, ("Images", "Criu", "Guard", "Mounts", "Interrupts")),
    ("pyrunc.checkpoint.restore", RESTORING, RESTORE, ("Nest", "Mounts", "connect", "host_id")),
]


def calls_of(module: str, name: str, tables: Tables, more: Iterable[str] = ()) -> list[str]:
    """What a function of a table calls in each case; ``more`` are modules that it imports late."""
    table, common, functions = next(row[1:] for row in tables if row[0] == module)
    call, cases = table[name]
    lines = []
    for case in cases:
        rows = {key: Answers(value) if isinstance(value, Answers) else value for key, value in (common | case).items()}
        w = World(rows)
        w.answers |= {"Mounts": w.spy("mounts", linux={})}
        w.answers.setdefault("store.find", w.container)
        with pytest.MonkeyPatch.context() as patch:
            late = [one for one in (*LATE, *more) if one != module]
            spies.replace(patch, module, w.notes, w.answers, late=late, functions=functions)
            lines += [f"case {spies.told(case, 6)[:120]}", *spies.record(call, (w,), w.notes)]
    return lines


def each(key: str, *values: Any, **more: Any) -> list[dict[str, Any]]:
    """A case for each value of one entry of WITH."""
    return [{"WITH": {key: value}} | more for value in values]


def rows(tables: Tables) -> pytest.MarkDecorator:
    """The parameters of a test: each function of each table."""
    cases = [pytest.param(row[0], name, id=f"{row[0].rpartition('.')[2]}.{name}") for row in tables for name in row[1]]
    return pytest.mark.parametrize(("module", "name"), cases)


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("steps", f"{module.rpartition('.')[2]}.{name}", calls_of(module, name, TABLES))
