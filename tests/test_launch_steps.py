"""What each method of create, run and exec asks of the rest of the package: the calls, their order and
their arguments, on both sides of each condition. golden/launch_steps.txt has the tables
(PYRUNC_UPDATE_GOLDEN=1 rewrites them; then review the diff).
"""

from __future__ import annotations

import errno
import functools
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from plan_support import Facts
from pyrunc.errors import Capped, PyruncError, SysError
from pyrunc.launch import create, exec, run
from pyrunc.launch import session as launch_session
from spies import Spy

LATE = [
    *(f"pyrunc.{name}" for name in ("explain", "hints", "hooks", "idmap", "notify", "rootmount", "seccomp")),
    *(f"pyrunc.launch.{name}" for name in ("foreground", "netdev", "rootless", "seccomp_log", "tools")),
    *(f"pyrunc.cgroup.{name}" for name in ("delegate", "rdt", "systemd")), "pyrunc.container.lifecycle",
]  # fmt: skip
# Methods of a session with tests of their own, or that have to answer.
OWN = (
    "send", "set_limits", "kill_children", "send_pidfd", "own_streams", "close_streams", "attach_terminal",
        "reap_enter",
    "spawn", "prepare", "reserve", "make_cgroup", "converse", "check_executed", "follow_clone", "step_error", "go",
    "open_proxy", "await_program", "receive", "host_hooks", "process", "check_status", "open_cgroup", "open_namespaces",
    "move_into_scope", "read_process", "check_terminal", "open_store",
)  # fmt: skip
LIMITS = {"memory": {"limit": 5}, "devices": [{"allow": True}]}
RDT = {"intelRdt": {"closID": "c"}}


def warned() -> Capped:
    """A list of warnings."""
    out = Capped()
    out.append("w")
    out.more = 2
    return out


class Plan(SimpleNamespace):
    """A plan as far as a session looks at it."""

    def __init__(self, **changes: Any) -> None:
        super().__init__(
            cgroup_path="/top/c1", cgroup_owner=-1, hooks={}, seccomp=None, new_userns=False, rlimits=[], steps=[],
            callers_mounts=False, warnings=warned(), sched_attr=b"", copying=False, hooked=False, placing=False,
            flags=0,
        )  # fmt: skip
        vars(self).update(changes)

    called = "plan"

    def late_origins(self) -> list[str]:
        return ["late"]

    def copies_up(self) -> bool:
        return bool(self.copying)

    def has_hooks(self) -> bool:
        return bool(self.hooked)

    def has(self, op: int) -> bool:
        return bool(self.placing)


ANSWERS: dict[str, Any] = {
    "posix.dup": 81, "posix.open": 82, "posix.pidfd_open": 83, "posix.geteuid": 1000, "posix.access": True,
    "cgroup.open_driver": None, "state.oci_state": "STATE", "state.split_state": ("before", "after"),
    "state.root_dir": "/root", "fs.getenv": "/run/systemd/notify", "fs.abspath": "/bundle",
    "procfs.stdio": ["/dev/null"], "rdt.plan": {"group": "g"}, "rootmount.mount_id": 77, "driver.missing": ["/top"],
    "driver.create": 84, "driver.oom_kills": 0, "container.fifo": "/state/fifo", "idmap.open_mount": 85,
    "container.oci_state": "STATE", "container.status": "running", "container.cgroup_directory": "/cg/top/c1",
    "container.init_alive": True, "seccomp.take_listener": 86, "hints.find": "HINT", "files.filesystem_type":
    0x63677270, "tools.open_tree": 87, "joined.open_namespaces": [("net", "/n")], "channel.fd": 0,
    "driver.made": ["/top/c1"],
}  # fmt: skip


def session(
    patch: pytest.MonkeyPatch, kind: type[Any], own: list[str], given: dict[str, Any]
) -> tuple[Any, list[str], dict[str, Any]]:
    """A session whose collaborators are spies, and their notes; ``own`` are the methods that stay real.

    ``given``: config, plan, data (of the container), opts, the session's attributes, and answers.
    """
    notes: list[str] = []
    answers = dict(ANSWERS)
    for module in ("session", "create", "run", "exec"):
        functions = ["write_pid_file"] if module != "run" else ()
        spies.replace(patch, f"pyrunc.launch.{module}", notes, answers, late=LATE, functions=functions)
    patch.setattr(launch_session.InitSession, "send_plan", spies.noting("super().send_plan", notes, answers))
    log = Spy("log", notes, answers)
    made = run.RunOptions if kind is run.Run else exec.ExecOptions if kind is exec.Exec else create.CreateOptions
    opts = made("c1", log)  # type: ignore[arg-type]
    for name, value in given.get("opts", {}).items():
        setattr(opts, name, value)
    playing = type(kind.__name__, (kind,), {"__slots__": (), "called": "session"})
    for name in OWN:
        if name not in own and hasattr(kind, name):
            # A function of the class, so that it has no argument for the session.
            setattr(playing, name, staticmethod(spies.noting(name, notes, answers)))
    one = playing(opts)
    driver = Spy("driver", notes, answers, made=given.get("made", ["/top/c1"]))
    answers["cgroup.open_driver"] = driver
    data = {"pid": 41, "cgroup": "/top/c1", "rootfs": "/rootfs", "bundle": "/bundle"} | given.get("data", {})
    container = Spy("container", notes, answers, data=data, dir="/state/c1", id="c1")
    answers["state.Container"] = answers["open_store().open"] = container
    config = {"annotations": {"a": "b"}, "linux": {}, "root": {"path": "rootfs"}} | given.get("config", {})
    config = {key: value for key, value in config.items() if value is not None}
    plan = Plan(**given.get("plan", {}))
    answers |= {
        "load.load_config": (config, b"raw"), "host.snapshot": Facts(euid=1000), "validate.check": warned(),
        "compiler.compile_create": plan, "exec.compile_exec": plan, "exec_process.build": {"cwd": "/built"},
        "exec_process.check": ["w"], "cgroup.path_for": "/path", "process": {"cwd": "/p"},
            "open_cgroup": "/cg/top/c1/sub",
        "open_namespaces": [("net", "/n")], "tools.prepare": {"cwd": "/t"}, "read_process": ("p.json", {"cwd": "/r"}),
        "seccomp_log.wanted": True, "watch.wait": 7, "host.HostFacts": Facts(), "fs.read_file": b"text",
            "posix.umask": 0o22,
    } | given.get("answers", {})  # fmt: skip
    values = {
        "config": config, "linux": config.get("linux", {}), "plan": plan, "facts": Facts(),
        "container": container, "driver": driver, "enter_pid": 31, "init_pid": 41, "pidfd": 51, "cgroup_fd": 61,
        "undo": Spy("undo", notes, answers, problems=given.get("problems", [])), "raw": b"{}",
        "channel": Spy("channel", notes, answers, fd=71), "options": SimpleNamespace(cgroup_path="/top/c1"),
    }  # fmt: skip
    values |= {name: Spy(name, notes, answers) for name in given.get("spies", ())}
    for name, value in (values | given.get("self", {})).items():
        if hasattr(kind, name) or name in getattr(one, "__dict__", ()):
            setattr(one, name, value)
    return one, notes, answers


def play(patch: pytest.MonkeyPatch, kind: type[Any], method: str, args: tuple[Any, ...], given: dict[str, Any]) -> Any:
    """The notes of one call of a method, its result, and what it has changed in the session."""
    one, notes, _ = session(patch, kind, [method], given)
    watched = ("ahead", "cgroup_fd", "config", "facts", "options", "wanted", "linux", "enter_pid", "filtered",
        "init_pid", "listener", "ns_fds", "pidfd", "reached_pid",
               "stuck", "notify", "proxy", "watch")  # fmt: skip
    before = {name: value for name, value in spies.state_of(one).items() if name in watched}
    data = dict(one.container.data)
    args = tuple(Spy(arg, notes, {}) if arg == "interrupts" else arg for arg in args)
    args = tuple(given["slot"] if arg == "KIND" else arg for arg in args)
    if method == "host_hooks":
        given = given | {"more": {"fatal": True}}
    lines = spies.record(functools.partial(getattr(one, method), **given.get("more", {})), args, notes)
    after = {name: value for name, value in spies.state_of(one).items() if name in watched}
    lines += [f"{name} = {value}" for name, value in after.items() if before.get(name) != value]
    lines += (
        [f"plan.warnings = {spies.told(one.plan.warnings)} and {one.plan.warnings.more}"] if method == "prepare" else []
    )
    now = one.container.data
    return lines + [f"data[{key}] = {spies.told(now[key])}" for key in now if data.get(key) != now[key]]


def refused(number: int) -> SysError:
    """An error of the cgroup driver."""
    return SysError("/linux/cgroupsPath", "mkdir", number)


PID = SimpleNamespace(value=43)
NET: dict[str, Any] = {"linux": {"netDevices": {"eth0": {}}}}
HOOKED = {"hooks": {"prestart": [1], "createRuntime": [2], "poststart": [3], "poststop": [4]}}
USERNS = {"linux": {"uidMappings": [1], "gidMappings": [2], "resources": LIMITS}}
# method -> arguments, and what differs from the ordinary session in each case
CREATE: dict[str, tuple[tuple[Any, ...], list[dict[str, Any]]]] = {
    "handlers": ((), [{}]),
    "steps": (("interrupts",), [{}]),
    "reserve": ((), [
        {}, {"plan": {"cgroup_path": ""}}, {"self": {"facts": Facts(cgroup2_mount="")}},
        {"opts": {"image_bundle": "/image", "no_new_keyring": True, "seccomp_log": True, "cgroup_manager": "systemd"}},
        {"plan": {"callers_mounts": True}}, {"self": {"notify": "/root/c1/notify"}}, {"config": {"linux": RDT}},
        {"answers": {"container.reserve": PyruncError("in use")}},
    ]),
    "watch_root": ((), [{}]),
    "remove_root": ((), [{"data": {"root_below": 5}}]),
    "forget": ((), [{}, {"problems": ["x"]}]),
    "make_cgroup": ((), [
        {}, {"plan": {"cgroup_path": ""}, "config": {"linux": {"resources": LIMITS}}},
        {"config": {"linux": {"resources": LIMITS}}},
        {"config": {"linux": {"resources": LIMITS}}, "plan": {"copying": True}},
        {"config": {"linux": {"resources": {"cpu": {}}}}, "plan": {"copying": True}},
        *({"answers": {"driver.create": refused(number)}, "self": {"facts": Facts(rootless=rootless)}}
          for rootless in (True, False)
          for number in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT)),
    ]),
    "remove_cgroup": ((), [{}, {"made": []}, {"made": ["/top/c1", "/top"]}, {"made": ["/top"]}]),
    "open_slot": (("KIND", "/a", "/m"), [{"slot": slot} for slot in ("start", "error", "idmap", "cgroup")]),
    "setting": ((), [{}, {"config": {"process": {"cwd": "/w"}}}]),
    "on_map_ids": ((PID,), [{}]),
    "on_pid": ((PID,), [
        {}, {"self": {"ahead": True}}, {"plan": {"placing": True}}, {"plan": {"placing": True, "cgroup_path": ""}},
        {"config": USERNS}, {"config": USERNS, "plan": {"new_userns": True}},
        {"config": USERNS, "plan": {"new_userns": True, "placing": True}, "self": {"ahead": True}},
    ]),
    "send_plan": ((), [
        {}, {"plan": {"cgroup_path": ""}}, {"config": {"linux": {"resources": LIMITS}}}, {"config": USERNS},
        {"plan": {"placing": True}}, {"plan": {"hooked": True}}, {"plan": {"cgroup_owner": 0}},
        {"config": {"linux": RDT}}, {"config": NET}, {"data": {"root_below": 5}}, {"plan": {"rlimits": [(7, 9, 9,
          "/p")]}},
        {"config": {"linux": {"resources": {"devices": []}}}},
    ]),
    "on_mounted": ((PID,), [
        {}, {"data": {"root_below": 5}}, {"config": {"linux": {"resources": LIMITS}}},
        {"plan": {"cgroup_path": ""}, "config": {"linux": {"resources": LIMITS}}}, {"plan": {"cgroup_owner": 0}},
        {"plan": {"cgroup_owner": 5}}, {"config": {"linux": RDT}, "data": {"rdt": {"group": "g"}}}, {"config": NET},
        {"plan": HOOKED},
    ]),
    "on_ready": ((PID,), [{}]),
    "on_seccomp": ((PID,), [{}, {"plan": {"seccomp": {"x": 1}}}, {"config": {"annotations": {}}}]),
    "on_created": ((PID,), [{}, {"opts": {"pid_file": "/pid"}}, {"self": {"enter_pid": 0}}]),
    "host_hooks": (("poststart", "running"), [{}, {"plan": HOOKED}]),
    "finish": ((), [{}, {"self": {"cgroup_fd": -1}}, {"self": {"cgroup_fd": 0}}]),
    "prepare": ((), [
        {}, {"more": {"for_show": True}}, {"more": {"for_show": True},
          "config": {"linux": {"namespaces": [{"type": "user"}]}}},
        {"opts": {"rootless": "true"}}, {"opts": {"rootless": "false"}}, {"config": {"process": {"terminal": True}}},
        {"opts": {"seccomp_log": True}}, {"opts": {"seccomp_log": True}, "more": {"for_show": True}},
        {"opts": {"seccomp_log": True}, "answers": {"seccomp_log.wanted": False}},
        {"config": {"annotations": {"org.pyrunc.seccomp_log": "1"}}}, {"answers": {"fs.getenv": ""}},
        {"config": {"hooks": {"prestart": [1]}}}, {"config": {"hooks": {"prestart": []}}},
        {"config": {"linux": {"cgroupsPath": "/p"}}, "opts": {"cgroup_manager": "systemd"}},
        {"opts": {"no_pivot": True, "preserve_fds": 3, "overlay": ["x"]}, "self": {"listen_fds": 2}},
        {"opts": {"no_new_keyring": True, "config": "other.json", "bundle": "b", "root": "r"}},
    ]),
    "abandon": ((), [
        {"self": {"stuck": stuck, "reached_pid": reached}, "plan": {"cgroup_path": path} | HOOKED,
         "answers": {"undo.holds": holds, "undo.run": ["problem"]}}
        for stuck, holds, path, reached in (
            ("", True, "/top", False), ("pid 4", False, "/top", True), ("pid 4", True, "", True),
            ("pid 4", True, "/top", True),
        )
    ] + [{"answers": {"kill_children": MemoryError(), "undo.run": []}}]),
}  # fmt: skip
RUN: dict[str, tuple[tuple[Any, ...], list[dict[str, Any]]]] = {
    "steps": (("interrupts",), [{}, {"opts": {"detach": True}}, {"self": {"notify": "/n"}}]),
    "on_created": ((PID,), [{}, {"opts": {"pid_file": "/pid"}}]),
    "end_program": ((), [{"config": {}}, {"made": []}, {"plan": {"cgroup_path": ""}}]),
    "send_plan": ((), [{}, {"plan": {"hooked": True}}]),
    "on_pid": ((PID,), [{}, {"self": {"ahead": True}}, {"self": {"ahead": True, "released": True}}]),
    "open_proxy": ((), [{}, {"self": {"notify": "/root/c1/notify"}}]),
    "go": ((), [{}, {"config": {"process": {"cwd": "/"}}}]),
    "release": (("interrupts",), [
        {"spies": spies_, "opts": {"detach": detach}}
        for spies_ in ([], ["proxy"]) for detach in (True, False)
    ] + [{"spies": ["proxy"], "opts": {"detach": True, "no_subreaper": True}}]
      + [{"opts": {"no_subreaper": no}} for no in (True, False)]),
    "await_program": (("interrupts",), [{"answers": {"receive": None}},
        {"answers": {"step_error": PyruncError("step")}}]),
    "wait": ((), [
        {"spies": ["proxy"]}, *({"spies": ["proxy", "watch"], "opts": {"keep": keep}, "answers": answers}
              for keep in (True, False)
              for answers in ({}, {"lifecycle.remove": PyruncError("stuck")})),
    ]),
}  # fmt: skip
EXEC: dict[str, tuple[tuple[Any, ...], list[dict[str, Any]]]] = {
    "handlers": ((), [{}]),
    "steps": (("interrupts",), [{}, {"opts": {"pid_file": "/pid"}}]),
    "prepare": ((), [
        {}, {"data": {"seccomp_log": True}}, {"data": {"no_new_keyring": True}},
          {"data": {"cgroup_manager": "systemd"}},
        {"data": {"cgroup_manager": "systemd"}, "answers": {"open_cgroup": ""}}, {"opts": {"tools": "/tools"}},
        {"opts": {"cgroup": ["sub", "b"]}}, {"config": {"linux": {"namespaces": [{"type": "mount"}]}}},
        {"config": {"linux": {"namespaces": [{"type": "pid"}]}}}, {"config": {"linux": None}},
        {"opts": {"preserve_fds": 3}, "self": {"listen_fds": 2}},
    ]),
    "process": (("facts",), [
        {}, {"opts": {"process": "/p.json"}}, {"config": {"process": {"cwd": "/w"}}}, {"opts": {"detach": True}},
        {"answers": {"exec_process.build": {"terminal": True}}},
    ]),
    "read_process": (({"cwd": "/"},), [{"opts": {"process": "/a/p.json"}}]),
    "open_namespaces": ((), [{"self": {"ns_fds": {}}}]),
    "close": ((), [{"self": {"ns_fds": {"/a": 91, "/b": 0}, "listener": 93}}, {"self": {"cgroup_fd": -1}},
                   {"self": {"cgroup_fd": 0, "pidfd": 0}}]),
    "open_cgroup": ((), [
        {"opts": {"cgroup": cgroup}, "answers": {"fs.read_file": text} | answers, "data": data}
        for cgroup in ([], ["sub"], [""])
        for text in (b"", b"cpu\n", FileNotFoundError(errno.ENOENT, "x"))
        for answers, data in (
            ({}, {}), ({"container.cgroup_directory": ""}, {}), ({"files.filesystem_type": 0x27E0EB}, {}),
            ({"posix.open": OSError(errno.ENOENT, "x")}, {"cgroup": "/c"}),
            ({"posix.open": OSError(errno.ENODEV, "x")}, {}), ({"posix.open": OSError(errno.EACCES, "x")}, {}),
        )
    ]),
    "move_into_scope": (("/cg/top/c1/sub", "facts"), [
        {"answers": {"host.read": f"0::{ours}\n".encode(), "posix.access": access}, "data": {"cgroup": "/user/s/c1"}}
        for ours in ("/", "/user", "/user/s", "/user/s/c1", "/user/s/c1/x", "/other/s/c1")
        for access in (True, False)
    ]),
    "open_slot": (("KIND", "/a", "/m"), [{"slot": slot, "self": {"ns_fds": {"/a": 91}}} for slot in ("ns", "tools",
        "cgroup")]),
    "step_limit": ((), [{}, {"opts": {"ignore_paused": True}}, {"plan": {"hooked": True}}]),
    "send_plan": ((), [
        {"data": data, "plan": plan}
        for data in ({}, {"rdt": {"group": "g"}})
        for plan in ({}, {"placing": True}, {"rlimits": [(6, 9, 9, "/p")]}, {"rlimits": [(4, 9, 9, "/p")]})
    ]),
    "on_placed": ((PID,), [{}, {"self": {"ahead": True}}]),
    "on_ready": ((PID,), [{}, {"data": {"rdt": {"group": "g"}}}]),
    "on_seccomp": ((PID,), [
        {}, {"self": {"filtered": True}}, {"self": {"init_pid": 0}}, {"plan": {"seccomp": {"x": 1}}},
        {"answers": {"seccomp.take_listener": PyruncError("refused")}, "self": {"init_pid": 0}},
        {"answers": {"seccomp.take_listener": PyruncError("refused")}},
    ]),
    "on_pid": ((PID,), [
        {}, {"opts": {"detach": True}}, {"plan": {"sched_attr": b"attr"}}, {"self": {"listener": 0}},
        {"self": {"listener": 93}, "plan": {"seccomp": {"x": 1}}},
        {"plan": {"sched_attr": b"attr"}, "answers": {"processes.sched_setattr": OSError(errno.EPERM, "x")}},
    ]),
    "explain": (("sh", errno.ENOENT), [{"self": {"wanted": {"cwd": "/"}}}]),
    "on_fail": ((PID,), [{"answers": {"container.init_alive": alive, "step_error": PyruncError("step")}}
                         for alive in (True, False)]),
    "premature_end": ((), [{"answers": {"container.init_alive": False}}]),
}  # fmt: skip
ALL = [(create.Create, CREATE), (run.Run, RUN), (exec.Exec, EXEC)]


@pytest.mark.parametrize(
    ("kind", "method"),
    [pytest.param(kind, method, id=f"{kind.__name__}.{method}") for kind, table in ALL for method in table],
)
def test_the_calls_of_a_step(kind: type[Any], method: str) -> None:
    args, cases = dict(ALL)[kind][method]
    lines = []
    for given in cases:
        with pytest.MonkeyPatch.context() as patch:
            lines += [f"case {spies.told(given, 6)[:120]}", *play(patch, kind, method, args, given)]
    transcript.compare("launch_steps", f"{kind.__name__}.{method}", lines)


# function -> arguments, and what differs from the ordinary case
WITH_NAMESPACES = {"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}, "root": {"path": "rootfs"}}
FUNCTIONS: dict[str, tuple[tuple[Any, ...], list[dict[str, Any]]]] = {
    "exec.execute": ((SimpleNamespace(detach=False),), [{}]),
    "exec.execute detached": ((SimpleNamespace(detach=True),), [{}]),
    "exec.compile_only": ((WITH_NAMESPACES, Facts(), "c1", "/a/p.json", "/c"), [{}]),
    "exec.compile_only without": (({"root": {"path": "rootfs"}, "process": {"cwd": "/w"}}, Facts(), "c1", "p.json",
        ""), [{}]),
    "exec.read_process": (("/a/p.json", {"cwd": "/w"}), [{}, {"fs.read_file": OSError(errno.ENOENT, "x")}]),
    "create.compile_only": (("opts",), [{}]),
    "create.create": (("opts",), [{}]),
    "run.run": (("opts",), [{}]),
    "run.run of a subclass": (("opts", Spy("session", [], {"session.wait": 5})), [{}]),
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_calls_of_a_function(name: str) -> None:
    args, cases = FUNCTIONS[name]
    module, _, function = name.partition(" ")[0].partition(".")
    lines = []
    for case in cases:
        notes: list[str] = []
        answers: dict[str, Any] = {"exec_process.inherit": {"cwd": "/p"}, "foreground.Watch().wait": 7} | case
        with pytest.MonkeyPatch.context() as patch:
            replaced = ("Create", "Run", "Exec")
            found = spies.replace(patch, f"pyrunc.launch.{module}", notes, answers, late=LATE)
            for kind in replaced:
                if hasattr(found, kind):
                    patch.setattr(found, kind, Spy(kind, notes, answers))
            lines += [f"case {spies.told(case, 6)[:120]}", *spies.record(getattr(found, function), args, notes)]
    transcript.compare("launch_steps", name, lines)
