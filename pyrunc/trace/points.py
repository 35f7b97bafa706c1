"""What is timed: a table of functions and methods that are replaced during a trace.

A replacement calls the original and records the times. Without a trace none of this is imported,
and nothing is replaced.
"""

from __future__ import annotations

import sys

from pyrunc import handshake, jsontext, state
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError, brief
from pyrunc.plan import TRACE, ops
from pyrunc.trace import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from pyrunc.hooks import _Program
    from pyrunc.launch.ending import Interrupts
    from pyrunc.launch.session import InitSession
    from pyrunc.plan import Plan
    from pyrunc.spec.types import Config
    from pyrunc.trace.record import Recorder, Span

    # The traced functions have no type in common.
    Args = tuple[Any, ...]
    Call = Callable[..., Any]  # likewise
    Details = Callable[[Span, Args], None]

# (module, name in it, kind, name in the trace); a trailing "=": DETAILS adds what a call is about.
POINTS: tuple[tuple[str, str, str, str], ...] = (
    ("launch.session", "InitSession.spawn", "phase", "spawn init"),
    ("launch.session", "InitSession.converse", "phase", "handshake"),
    ("launch.session", "InitSession.send_plan", "phase", "send the plan"),
    ("launch.session", "InitSession.on_placed", "phase", "PLACED: the clone in the cgroup"),
    ("launch.session", "InitSession.on_ready", "phase", "READY: resource limits"),
    ("launch.session", "InitSession.on_warn", "phase", "WARN"),
    ("launch.session", "InitSession.on_fail", "phase", "FAIL"),
    ("launch.session", "InitSession.await_clone", "wait", "wait for enter"),
    ("launch.session", "InitSession.await_enter", "wait", "wait for the end of enter"),
    ("launch.session", "InitSession.reap_enter", "wait", "wait for the end of enter"),
    ("launch.session", "InitSession.kill_children", "wait", "kill init"),
    ("launch.create", "write_pid_file", "phase", "write the pid file"),
    ("launch.exec", "write_pid_file", "phase", "write the pid file"),
    ("launch.create", "Create.prepare", "phase", "prepare"),
    ("launch.create", "Create.reserve", "phase", "reserve the id"),
    ("launch.create", "Create.make_cgroup", "phase", "create the cgroup"),
    ("launch.create", "Create.on_map_ids", "phase", "MAP: user and group maps"),
    ("launch.create", "Create.on_pid", "phase", "PID: state"),
    ("launch.create", "Create.limit_devices", "phase", "device rules"),
    ("launch.create", "Create.on_mounted", "phase", "MOUNTED: limits, hooks"),
    ("launch.create", "Create.on_ready", "phase", "READY: resource limits"),
    ("launch.create", "Create.on_seccomp", "phase", "SECCOMP: hand the listener over"),
    ("launch.create", "Create.on_created", "phase", "CREATED: commit"),
    ("launch.run", "Run.go", "phase", "release init"),
    ("launch.run", "Run.await_program", "phase", "start the program"),
    ("launch.create", "Create.abandon", "phase", "undo"),
    ("launch.create", "Create.finish", "phase", "finish"),
    ("launch.exec", "Exec.prepare", "phase", "prepare"),
    ("launch.exec", "Exec.on_placed", "phase", "PLACED: the clone in the cgroup"),
    ("launch.exec", "Exec.on_ready", "phase", "READY: resource limits"),
    ("launch.exec", "Exec.on_seccomp", "phase", "SECCOMP: take the listener"),
    ("launch.exec", "Exec.on_pid", "phase", "PID: last settings"),
    ("launch.exec", "Exec.on_fail", "phase", "FAIL"),
    ("launch.session", "InitSession.abandon", "phase", "undo"),
    ("launch.exec", "Exec.move_into_scope", "phase", "move to the container's scope"),
    ("spec.load", "load_config", "phase", "read config.json"),
    ("spec.validate", "check", "phase", "validate"),
    ("spec.exec_process", "check", "phase", "validate the process"),
    ("host", "snapshot", "phase", "look at the host"),
    ("plan.create", "compile_create", "phase", "compile the plan"),
    ("plan.exec", "compile_exec", "phase", "compile the plan"),
    ("plan", "Plan.encode", "phase", "encode the plan"),
    ("state.container", "Container.load", "phase", "read the state"),
    ("state.container", "Container.save", "phase", "write the state"),
    ("state.container", "Container.destroy", "phase", "remove the state"),
    ("state.container", "Container._wait_for", "wait", "lock the container"),
    ("container.lifecycle", "start", "phase", "start"),
    ("container.lifecycle", "kill", "phase", "kill"),
    ("container.lifecycle", "pause", "phase", "pause"),
    ("container.lifecycle", "resume", "phase", "resume"),
    ("container.lifecycle", "release_init", "phase", "release init"),
    ("container.lifecycle", "take", "wait", "take the container"),
    ("container.lifecycle", "stop", "phase", "stop the container"),
    ("container.lifecycle", "remove", "phase", "remove the container"),
    ("container.lifecycle", "kill_and_wait", "phase", "kill the first process"),
    ("container.lifecycle", "await_end", "wait", "wait for the end of the first process"),
    ("container.lifecycle", "wait_ready", "wait", "wait for READY of the service"),
    ("launch.foreground", "Watch.wait", "wait", "the program runs"),
    ("launch.foreground", "Watch.drain", "wait", "pass the rest of the output on"),
    ("hooks", "run_hooks", "phase", "="),
    ("hooks", "_run_one", "hook", "="),
    ("idmap", "write_maps", "phase", "write the id maps"),
    ("idmap", "open_mount", "phase", "open an id-mapped mount"),
    ("launch.netdev", "move", "phase", "move network devices"),
    ("cgroup.rdt", "apply", "phase", "set the RDT class"),
    ("cgroup.rdt", "remove", "phase", "remove the RDT class"),
    ("rootmount", "remove", "phase", "unmount the root filesystem"),
    ("seccomp", "compile_filter", "phase", "compile the seccomp filter"),
    ("seccomp", "send_listener", "phase", "hand the listener over"),
    ("image.locate", "remove_bundle", "phase", "remove the bundle of the image"),
    ("fs", "write_file", "write", "="),
    ("cgroup.cgroupfs", "Cgroupfs.create", "cgroup", "create cgroup="),
    ("cgroup.cgroupfs", "Cgroupfs.apply", "cgroup", "set limits="),
    ("cgroup.cgroupfs", "Cgroupfs.devices", "cgroup", "attach the device program"),
    ("cgroup.cgroupfs", "Cgroupfs.freeze", "cgroup", "freeze cgroup="),
    ("cgroup.cgroupfs", "Cgroupfs.thaw", "cgroup", "thaw cgroup="),
    ("cgroup.cgroupfs", "Cgroupfs.kill", "cgroup", "kill cgroup="),
    ("cgroup.cgroupfs", "Cgroupfs.mkdir", "cgroup", "mkdir cgroup="),
    ("cgroup.cgroupfs", "Cgroupfs.rmdir", "cgroup", "rmdir cgroup="),
    ("cgroup.cgroupfs", "Cgroupfs.remove", "cgroup", "remove cgroup="),
    ("cgroup.cgroupfs", "Cgroupfs.wait_event", "wait", "wait for cgroup.events"),
    ("cgroup.systemd", "Systemd.create", "cgroup", "create cgroup="),
    ("cgroup.systemd", "Systemd.apply", "cgroup", "set limits="),
    ("cgroup.systemd", "Systemd.stop", "cgroup", "stop the unit"),
    ("cgroup.systemd", "Systemd.remove", "cgroup", "remove cgroup="),
    ("cgroup.delegate", "give", "cgroup", "give the cgroup to its user"),
    ("cgroup.bus", "Manager.connect", "dbus", "connect to systemd"),
    ("cgroup.bus", "Manager.call", "dbus", "="),
    ("cgroup.bus", "Manager.job", "dbus", "job="),
)
_CGROUP_FILES = ("cgroup.", "cpu.", "cpuset.", "io.", "memory.", "pids.", "hugetlb.", "rdma.", "misc.", "dmem.")
_replaced: list[tuple[object, str, object]] = []


def install(recorder: Recorder) -> None:
    """Replace the functions in the table, and those that report plans, records of init, and
    exits of hooks."""
    for module, name, kind, title in POINTS:
        owner, last = owner_of(module, name)
        set_value(owner, last, timed(recorder, getattr(owner, last), kind, title, DETAILS.get(name)))
    for module, name in (("plan.create", "compile_create"), ("plan.exec", "compile_exec")):
        replace(module, name, lambda found: planned(recorder, found))
    replace("launch.session", "InitSession.receive", lambda found: received(recorder, found))
    replace("container.lifecycle", "read_record", lambda found: read_late(recorder, found))
    replace("container.lifecycle", "release_init", lambda found: released(recorder, found))
    replace("launch.foreground", "Watch.wait", lambda found: flushed(recorder, found))
    replace("container.lifecycle", "wait_ready", lambda found: flushed(recorder, found))
    replace("hooks", "_wait", lambda found: hook_ended(recorder, found))
    replace("hooks", "_Program.environment", lambda found: hook_environment(recorder, found))
    set_value(handshake, "Record", watching(recorder, handshake.Record))
    set_value(lifecycle, "RELEASE", b"1")


def remove() -> None:
    """Restore everything."""
    while _replaced:
        owner, name, value = _replaced.pop()
        setattr(owner, name, value)


def owner_of(module: str, path: str) -> tuple[object, str]:
    """The object that defines the name of a row, a module or a class, and the last part of the
    name."""
    full = f"pyrunc.{module}"
    __import__(full)
    owner: object = sys.modules[full]
    *classes, name = path.split(".")
    for part in classes:
        owner = getattr(owner, part)
    return owner, name


def set_value(owner: object, name: str, value: object) -> None:
    """Set a value until `remove`. Raises AttributeError if the name is not defined there."""
    if name not in vars(owner):
        raise AttributeError(f"{owner} does not define {name}")
    _replaced.append((owner, name, vars(owner)[name]))
    setattr(owner, name, value)


def replace(module: str, path: str, make: Callable[[Call], object]) -> None:
    """Replace the current value with ``make(value)``."""
    owner, name = owner_of(module, path)
    set_value(owner, name, make(getattr(owner, name)))


def timed(recorder: Recorder, call: Call, kind: str, title: str, details: Details | None) -> Call:
    """Wrap a function in a span."""
    plain = title.removesuffix("=")

    def wrapper(*args: object, **kwargs: object) -> object:
        span = recorder.enter(plain, kind)
        if details is not None:
            details(span, args)
        try:
            return call(*args, **kwargs)
        except (PyruncError, OSError) as error:
            span.args["error"] = brief(str(error), record.TEXT)
            raise
        finally:
            recorder.leave(span)

    return wrapper


# -- details ---------------------------------------------------------------------------------------


def _written(span: Span, args: Args) -> None:
    path, data = str(args[0]), args[1]
    file = path.rpartition("/")[2]
    if file.startswith(_CGROUP_FILES):
        span.kind = "cgroup"
    span.name = f"write {brief(file, 80)}"
    span.args = {"path": brief(path, record.TEXT), "value": brief(data.decode("utf-8", "replace").strip(), record.TEXT)}


def _about_cgroup(span: Span, args: Args) -> None:
    span.args = {"cgroup": brief(str(args[1]), record.TEXT)}


def _member(span: Span, args: Args) -> None:
    span.name = f"{span.name} {args[1]}".strip()


def _kind_of_hooks(span: Span, args: Args) -> None:
    span.name = f"{args[0]} hooks"


def _hook(span: Span, args: Args) -> None:
    program = args[0]
    if not program.pointer.startswith("/hooks/"):
        span.kind = "phase"
    span.name = brief(program.path, 80)
    span.args = {"pointer": program.pointer, "argv": record.words(program.args)}


DETAILS: dict[str, Details] = {
    "write_file": _written,
    "_run_one": _hook,
    "run_hooks": _kind_of_hooks,
    "Manager.call": _member,
    "Manager.job": _member,
}
DETAILS |= {name: _about_cgroup for _, name, kind, title in POINTS if kind == "cgroup" and title.endswith("=")}


# -- more than a span
# -------------------------------------------------------------------------------------------------


def on_verb(recorder: Recorder, module: ModuleType) -> None:
    """Record the container that the verb operates on."""

    def noted(found: Call) -> Call:
        def main(context: object, values: object, args: list[str]) -> object:
            if args:
                recorder.id = brief(args[0], 80)
                recorder.root.name = f"{recorder.verb} {recorder.id}"
                recorder.root.args["id"] = recorder.id
            return found(context, values, args)

        return main

    set_value(module, "main", noted(module.main))


def planned(recorder: Recorder, call: Call) -> Call:
    """A plan that requests times from init, and whose hooks receive TRACEPARENT."""

    def compile(*args: object, **kwargs: object) -> Plan:
        plan: Plan = call(*args, **kwargs)
        plan.flags |= TRACE
        recorder.steps = record.of_plan(plan)
        pass_on(recorder, plan)
        return plan

    return compile


def pass_on(recorder: Recorder, plan: Plan) -> None:
    """TRACEPARENT for the hooks that init runs. Hooks of `start` are children of the command
    that made the plan."""
    waits = False
    for index, (op, policy, numbers, strings) in enumerate(plan.steps):
        waits = waits or (op == ops.OP_WAIT_START and not policy & ops.P_WAIT_START_SOCKET)
        parent = recorder.sink.traceparent(0 if waits else -1 - index)
        if op == ops.OP_HOOK and parent:
            path, args, text = strings[0], words_of(strings[1]), words_of(strings[3])
            env = [item for item in words_of(strings[2]) if not item.startswith("TRACEPARENT=")] + [
                "TRACEPARENT=" + parent
            ]
            counts = (numbers[0], len(args), len(env), len(text))
            plan.steps[index] = (op, policy, counts, (path, args, env, text))


def words_of(value: object) -> list[str]:
    """A list argument of a step."""
    return value if type(value) is list else []


def watching(recorder: Recorder, base: type[handshake.Record]) -> type[handshake.Record]:
    """Decode a record, and store what it says about the steps."""

    class Record(base):  # type: ignore[misc, valid-type]
        """Record one message."""

        __slots__ = ()

        def __init__(self, data: bytes) -> None:
            super().__init__(data)
            if self.type == handshake.STAMPS:
                recorder.times(data)
            elif self.type == handshake.FAIL:
                recorder.hear(self)  # a session whose GO came too late reads it from the queue

    return Record


def received(recorder: Recorder, call: Call) -> Call:
    """The next record that is a message, after storing the times that precede it."""

    def receive(self: InitSession, timeout: int, interrupts: Interrupts | None) -> handshake.Record | None:
        span = recorder.enter("wait for init", "wait")
        try:
            # At most one per step, times two: the container may control init.
            for _ in range(2 * len(self.plan.steps) + 64 if recorder.steps is not None else 1):
                found: handshake.Record | None = call(self, timeout, interrupts)
                recorder.init_pid = self.init_pid or self.enter_pid or recorder.init_pid
                if found is None or found.type != handshake.STAMPS:
                    recorder.hear(found)
                    span.name = (
                        f"wait for {handshake.NAMES.get(found.type, '?') if found is not None else 'the execve'}"
                    )
                    return found
            raise PyruncError("container init does not stop sending times")
        finally:
            recorder.leave(span)

    return receive


def read_late(recorder: Recorder, call: Call) -> Call:
    """The rest as `start` sees it: times, then a failure or the end of the error fifo."""

    def read_record(fd: int) -> bytes:
        span = recorder.enter("wait for init", "wait")
        try:
            for _ in range(ops_of(recorder) + 64):
                data: bytes = call(fd)
                found = handshake.Record(data) if data else None
                if found is None or found.type != handshake.STAMPS:
                    recorder.hear(found)
                    span.name = "wait for the execve"
                    return data
            raise PyruncError("container init does not stop sending times")
        finally:
            recorder.leave(span)

    return read_record


def ops_of(recorder: Recorder) -> int:
    """The number of steps."""
    return len(recorder.steps.rows) if recorder.steps is not None else 0


def released(recorder: Recorder, call: Call) -> Call:
    """`start`: the remaining steps."""

    def release_init(container: state.Container, *args: object) -> bytes:
        recorder.init_pid = container.data["pid"]
        try:
            config: Config | None = jsontext.loads(container.read_bytes("config.json"))
        except (OSError, ValueError):
            config = None
        hooks = config.get("hooks", {}) if type(config) is dict else {}
        recorder.steps = record.of_state(container.data.get("late", []), hooks.get("startContainer", []))
        data: bytes = call(container, *args)
        return data

    return release_init


def flushed(recorder: Recorder, call: Call) -> Call:
    """Stop timing: the rest may take as long as the container lives."""

    def wait(*args: object) -> object:
        recorder.flush()
        return call(*args)

    return wait


def hook_ended(recorder: Recorder, call: Call) -> Call:
    """A hook's exit status."""

    def wait(program: object, *args: object) -> int:
        status: int = call(program, *args)
        how = recorder.open[-1].args
        if status & 0x7F:
            how["signal"] = status & 0x7F
        else:
            how["exit"] = status >> 8
        return status

    return wait


def hook_environment(recorder: Recorder, call: Call) -> Call:
    """TRACEPARENT for a hook."""

    def environment(program: _Program) -> list[bytes]:
        found: list[bytes] = call(program)
        parent = recorder.sink.traceparent(recorder.open[-1].number)
        if parent and program.pointer.startswith("/hooks/"):
            found = [item for item in found if not item.startswith(b"TRACEPARENT=")]
            found.append(b"TRACEPARENT=" + parent.encode())
        return found

    return environment
