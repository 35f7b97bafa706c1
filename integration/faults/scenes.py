"""The commands into which faults are injected, and checks of their claims.

Every scene is a command with a preparation and a judgement. The rule is the same for all: exit 0
only if the work is done, otherwise a one-line error; a failed `create` leaves nothing, and nothing
survives `delete --force`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from integration.checkpoint import support as checkpoints
from integration.faults import points, scarcity
from integration.faults.points import Call, Point
from integration.harness import SLOW, Box, Container, end_of, parse_objects, reap
from integration.machine import cgroup2_mount, parse_mountinfo

LIMIT = 20 * SLOW  # seconds: a longer run is a hang
NOISE = ("Traceback", "internal error", "panic:", "goroutine ", "fatal error", "SIGSEGV", "Segmentation")
MOMENTARY = ("ns", "tty", "stat")  # volatile parts of a report: inodes and figures
HOOK = {"path": "/bin/true", "args": ["true"]}
MEASURED = re.compile(r"Vm|Rss|Hugetlb|SigQ|FDSize|.*ctxt_switches")  # lines of status that differ between runs


class Outcome(NamedTuple):
    """The result of one command with a fault; ``hit`` is the call that was hit, and ``rc`` is None
    if the command hung."""

    rc: int | None
    err: str
    seconds: float
    hit: str


class Sandbox(Box):
    """A `Box` that can check for leftovers cheaply, thousands of times."""

    def cgroups(self) -> list[Path]:
        root = cgroup2_mount()
        assert root
        tops = [root / name for name in os.listdir(root) if name.startswith(self.prefix)]
        found = [Path(at) for top in tops for at, _, _ in os.walk(top)]
        return sorted(found, key=lambda p: -len(p.parts))

    def children(self) -> dict[int, str]:
        reap()
        found = {}
        for task in os.listdir("/proc/self/task"):
            pids = []
            with suppress(OSError):  # a thread that ended
                pids = Path(f"/proc/self/task/{task}/children").read_text().split()
            for pid in map(int, pids):
                with suppress(OSError):
                    name = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
                    if pid not in self.helpers and "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text():
                        found[pid] = name
        return found

    def leftovers(self, *, settle: float = 2.0) -> list[str]:
        """The box's leftovers, except the directory that crun keeps for all its containers."""
        return [text for text in super().leftovers(settle=settle) if text != "state .empty-directory"]

    def sweep_up(self) -> None:
        """Remove the leftovers of a fault directly, so that the next point starts clean."""
        for pid in self.children():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for group in self.cgroups():
            with suppress(OSError):
                (group / "cgroup.kill").write_text("1")
        limit = time.monotonic() + 2 * SLOW
        while self.cgroups() and time.monotonic() < limit:
            for group in self.cgroups():
                with suppress(OSError):
                    group.rmdir()
            time.sleep(0.01)
        subprocess.run(["rm", "-rf", str(self.root)], check=False)
        for mount in self._mounts() - self.mounts:
            subprocess.run(["umount", "-l", mount[2]], capture_output=True, check=False)
        reap()

    def inject(self, argv: Sequence[str], action: str, point: Point | None, out: Path | None = None) -> Outcome:
        """Run a command line under the injector or `scarcity`; the container's stdout goes to
        ``out``."""
        log, err = self.path / "inject", self.path / "inject.err"
        log.unlink(missing_ok=True)
        scarce = point is not None and point.error in scarcity.KINDS
        call = point.call if point else points.Call(0, 0, "")
        number = points.numbers().get(call.name, 0)
        how = [action, str(call.thread), str(call.index), str(number)]
        how.append(str(points.number(point.error) if point else 0))
        before = [points.build(str(self.path.parent)), str(log), *how]
        extra: dict[str, str] = {}
        if point is not None and scarce:
            before, extra = scarcity.around(point, str(self.path.parent), log)
        start = time.monotonic()
        with err.open("wb") as errors, (out or Path(os.devnull)).open("ab") as output:
            child = subprocess.Popen(
                [*before, *argv],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=checkpoints.environment() | extra,
            )
            try:
                rc: int | None = end_of(child, LIMIT)
            except subprocess.TimeoutExpired:
                child.kill()  # the command continues untraced, as our child
                child.wait()
                rc = None
        seconds = time.monotonic() - start
        if scarce:
            hit = call.name if not extra or rc is None or rc >= 128 or scarcity.outcome(log)[1] else ""
        else:
            lines = points.read_calls(log) if point else []
            hit = lines[0].name if lines else ""
        return Outcome(rc, err.read_text(errors="replace"), seconds, hit)


class Scene:
    """One command; subclasses define it and the conditions that hold after it."""

    name = ""
    success = 0  # the command's status without a fault
    kinds = frozenset(("error", "kill", "init", "memory", "space", "library"))  # supported kinds of points
    kills_init = False  # R3: whether its processes inside the container belong to the container

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.pyrunc = sandbox.runtime.is_pyrunc

    def argv(self, *args: str) -> list[str]:
        """The complete command line for `args`."""
        return self.sandbox.runtime.argv("--root", str(self.sandbox.root), *args)

    def before(self) -> None:
        """Prepare what the command needs."""

    def command(self) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def output(self) -> Path | None:
        """The target of the command's stdout."""
        return None

    def judge(self, point: Point, done: Outcome) -> list[str]:
        """The problems after a command that ended."""
        raise NotImplementedError

    def clean(self) -> list[str]:
        """Remove what `before` and the command created; returns the problems."""
        return []

    def trace(self, action: str = "trace") -> list[points.Call]:
        """All calls of the command, from a dry run."""
        self.before()
        done = self.sandbox.inject(self.command(), action, None, self.output())
        assert done.rc == self.success or not self.pyrunc, f"{self.name} fails by itself: {done}"
        calls = points.read_calls(self.sandbox.path / "inject")
        problems = self.clean()
        assert not problems, problems
        return calls

    def allocations(self) -> int:
        """The number of allocations of the command, from a dry run."""
        self.before()
        done = self.sandbox.inject(
            self.command(), "", Point(self.name, Call(0, scarcity.NEVER, "malloc"), "NOMEM"), self.output()
        )
        assert done.rc == self.success, f"{self.name} fails by itself: {done}"
        problems = self.clean()
        assert not problems, problems
        return scarcity.outcome(self.sandbox.path / "inject")[0]

    def more_points(self, kinds: Sequence[str]) -> list[Point]:
        """The points of kinds that only some scenes have."""
        return []

    def attempt(self, point: Point) -> tuple[Outcome, list[str]]:
        """Try one point; returns its outcome and its problems."""
        self.before()
        action = {"": "kill", points.CRIU: "kill-criu"}.get(point.error, "error")
        done = self.sandbox.inject(self.command(), action, point, self.output())
        if not points.is_possible(point.error, done.hit):
            done = done._replace(hit="")  # the calls have shifted, and this call cannot fail with that error
        problems = [f"said {word!r}" for word in NOISE if word in done.err]
        if done.rc is None:
            problems.append("hang: " + "; ".join(map(waiting, self.sandbox.children())))
            for pid in self.sandbox.children():
                if "/probe" not in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(pid, signal.SIGKILL)
        elif 128 < done.rc < 160 and not (point.error == "" and point.call.own):
            problems.append(f"killed by signal {done.rc - 128}")
        elif done.hit:
            problems += [text for text in self.judge(point, done) if not scarcity.excused(point, text)]
            if point.error == "NOLIB" and done.rc != self.success:
                problems.append(f"failed without the standard library: {done.err}")
        problems += self.clean()
        if problems:
            self.sandbox.sweep_up()
            self.reset()
        return done, problems

    def reset(self) -> None:
        """Reset the scene after everything was discarded because of a fault."""

    def close(self) -> list[str]:
        """Remove what is kept between points."""
        return []

    def spoke(self, done: Outcome) -> list[str]:
        """Check that an error was reported in one line, which only pyrunc promises."""
        lines = done.err.splitlines()
        if self.pyrunc and (not lines or not lines[-1].startswith("pyrunc: error: ")):
            return [f"failed without a message: {done.err!r}"]
        return ["failed without a message"] if not lines else []

    def again(self, point: Point, done: Outcome) -> list[str]:
        """Check that an interrupted call is repeated.

        This excludes dlopen's calls and init's open calls: init has no signal handlers and opens
        nothing that blocks.
        """
        excused = done.hit != point.call.name or "cannot load a part" in done.err
        excused = excused or (not point.call.own and done.hit in ("open", "openat"))
        return ["not tried again after EINTR"] if point.error == "EINTR" and self.pyrunc and not excused else []

    def delete(self, one: Container) -> list[str]:
        """Run `delete --force`, which must succeed and leave nothing."""
        try:
            result = one.delete("--force", check=False, timeout=2 * LIMIT)
        except AssertionError as error:
            return [f"hang: {error}"]
        problems = [f"delete --force: {result!r}"] if result.rc != 0 else []
        return problems + [f"after delete --force: {text}" for text in self.sandbox.leftovers()]

    def container(self, *actions: str, edits: dict[str, Any] | None = None) -> Container:
        """The scene's container, in a nested cgroup; peers do not remove its parent cgroups."""
        bundle = self.sandbox.bundle(*actions, edits=edits)
        bundle.config["linux"]["cgroupsPath"] += "/inner" if self.pyrunc else ""
        bundle.save()
        return Container(self.sandbox, f"{self.sandbox.prefix}{self.name}", bundle)


def waiting(pid: int) -> str:
    """The state of a hanging process and the kernel function in which it waits."""
    try:
        name = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")[:80]
        return f"{pid} {name!r} in {Path(f'/proc/{pid}/wchan').read_text()}"
    except OSError:
        return str(pid)


class Create(Scene):
    """`create`, then `start` if it succeeds: the program must see the same as without a fault."""

    name = "create"
    kills_init = True
    named: tuple[str, ...] = ("init", "/hooks/")  # in errors about one of our processes that was killed
    edits: dict[str, Any] = {}  # noqa: RUF012
    flags: tuple[str, ...] = ()

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.one = self.container("report", "--", "signals", "60", edits=self.edits)
        self.prepare()
        first, second = self.seen(), self.seen()
        self.expected = {key: value for key, value in first.items() if second.get(key) == value}
        assert len(self.expected) > 10, "the reports of two runs have too little in common"

    def prepare(self) -> None:
        """Prepare what the container needs in addition to its bundle."""

    def seen(self) -> dict[str, Any]:
        """The program's view of a container that was created without a fault."""
        self.before()
        self.one.create(*self.flags, save=False, err=self.sandbox.path / "inject.err")  # the same stdio as with a fault
        self.one.start()
        seen = self.report()
        problems = self.delete(self.one)
        assert not problems, problems
        return seen

    def before(self) -> None:
        self.one.out_file.unlink(missing_ok=True)

    def output(self) -> Path:
        return self.one.out_file

    def command(self) -> list[str]:
        return self.argv("create", *self.flags, "--bundle", str(self.one.bundle.path), self.one.id)

    def report(self) -> dict[str, Any]:
        """The program's report, {} if there is none."""
        limit = time.monotonic() + 5 * SLOW
        while time.monotonic() < limit:
            text = self.one.out
            if '"ready"' in text:
                seen = dict(parse_objects(text)[0])
                mounts = parse_mountinfo(seen.pop("mountinfo", ""))
                seen["mounts"] = [(m.dest, m.fstype, m.options, m.super) for m in mounts]  # without the ids
                lines = (line.partition(":") for line in seen.pop("status", "").splitlines())
                seen |= {f"status of {key}": value.strip() for key, _, value in lines if not MEASURED.match(key)}
                for node in seen["devices"].values():
                    del node["ino"], node["dev"]
                return {key: value for key, value in seen.items() if key not in MOMENTARY}
            time.sleep(0.002)
        return {}

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc == 0:
            return self.truly_created(point)
        if point.call.own and not point.error:
            return []
        problems = [f"left by the failed command: {text}" for text in self.sandbox.leftovers()]
        problems += self.again(point, done)
        if not point.error and self.pyrunc and not any(word in done.err for word in self.named):
            problems.append(f"the message does not name the step: {done.err}")
        return problems + self.spoke(done)

    def truly_created(self, point: Point) -> list[str]:
        """Check, after `create` reported success, that the container exists and matches the
        request."""
        state = self.one.call("state", self.one.id, check=False)
        inside = not point.call.own  # no command guarantees that init survives after its last record
        if inside and '"stopped"' in state.out:
            return []
        if state.rc != 0 or '"created"' not in state.out:
            return [f"exit 0, but not created: {state!r}"]
        started = self.one.start(check=False)
        if started.rc != 0:
            return [] if inside else [f"exit 0, but cannot be started: {started!r}"]
        seen = self.report()
        inherited = {"rlimits"} if point.error == "SPACE" else set()
        wrong = [key for key, value in self.expected.items() if seen.get(key) != value and key not in inherited]
        return [f"exit 0, but the program finds another {key}: {seen.get(key)!r}"[:400] for key in wrong]

    def clean(self) -> list[str]:
        return self.delete(self.one)


class CreateRich(Create):
    """`create` with hooks, a seccomp profile, rlimits, a sysctl, a user and more mounts."""

    name = "create-rich"
    edits = {  # noqa: RUF012
        "/hooks": {"createRuntime": [HOOK], "createContainer": [HOOK]},
        "/process/rlimits": [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512}],
        "/process/user": {"uid": 1000, "gid": 1000, "additionalGids": [5]},
        "/root/readonly": True,
        "/linux/sysctl": {"net.ipv4.ip_forward": "1"},
        "/linux/rootfsPropagation": "private",
        "/linux/seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mknodat", "mknod"], "action": "SCMP_ACT_ERRNO"}],
        },
        "/mounts/-": {"destination": "/mnt", "type": "bind", "source": "/etc", "options": ["rbind", "ro"]},
    }

    def prepare(self) -> None:
        self.flags = ("--pid-file", str(self.sandbox.path / "rich.pid"))


class Start(Scene):
    """`start` of a created container."""

    name = "start"
    edits: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.one = self.container("signals", "60", edits=self.edits)

    def before(self) -> None:
        self.one.out_file.unlink(missing_ok=True)
        self.one.create(save=False)

    def command(self) -> list[str]:
        return self.argv("start", self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc == 0:
            limit = time.monotonic() + 5 * SLOW
            while '"ready"' not in self.one.out:
                if time.monotonic() > limit:
                    return ["exit 0, but the program does not run"]
                time.sleep(0.002)
            return []
        if point.call.own and not point.error:
            return []
        problems = self.spoke(done)
        # A start that fails in a hook destroys the container (runtime.md, Lifecycle).
        state = self.one.call("state", self.one.id, check=False)
        if self.pyrunc and state.rc == 0 and json.loads(state.out)["status"] == "running":
            problems.append("failed, but the program runs")
        return problems + self.again(point, done)

    def clean(self) -> list[str]:
        return self.delete(self.one)


class Delete(Scene):
    """`delete --force` of a running container with two processes."""

    name = "delete"
    edits: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.one = self.container("fork", "1", "--", "signals", "60", edits=self.edits)

    def before(self) -> None:
        self.one.create(save=False)
        self.one.start()

    def command(self) -> list[str]:
        return self.argv("delete", "--force", self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc == 0:
            return [f"exit 0, but left: {text}" for text in self.sandbox.leftovers()]
        if point.call.own and not point.error:
            return []
        return self.spoke(done) + self.again(point, done)

    def clean(self) -> list[str]:
        return self.delete(self.one)


class Run(Scene):
    """`run` in the foreground; the program's exit code proves that it ran."""

    name = "run"
    success = 77

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.one = self.container("exit", "77")

    def command(self) -> list[str]:
        return self.argv("run", "--bundle", str(self.one.bundle.path), self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc == 0:
            return ["exit 0, but the program ends with 77"]
        if point.call.own and not point.error:
            return []
        problems = [f"left by the command: {text}" for text in self.sandbox.leftovers()] if done.rc == 77 else []
        return problems + (self.spoke(done) if done.rc != 77 else [])

    def clean(self) -> list[str]:
        return self.delete(self.one)


class Inside(Scene):
    """A command on one container that keeps running and is checked after each command."""

    edits: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.one = self.container("signals", "0", edits=self.edits)
        self.running = False

    def before(self) -> None:
        if not self.running:
            self.one.out_file.unlink(missing_ok=True)
            self.one.create(save=False)
            self.one.start()
            self.one.wait_output('"ready"')
            self.running = True

    def reset(self) -> None:
        self.running = False

    def close(self) -> list[str]:
        """Remove the container."""
        return self.delete(self.one)

    def clean(self) -> list[str]:
        limit = time.monotonic() + 2 * SLOW
        procs = self.one.cgroup / "cgroup.procs"
        while procs.exists() and procs.read_text().split() != [str(self.one.pid)]:
            if time.monotonic() > limit:
                return [f"processes in the container: {procs.read_text().split()}, not only {self.one.pid}"]
            for pid in self.sandbox.children():
                if pid != self.one.pid and "signals 61" in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                    os.kill(pid, signal.SIGKILL)  # the detached exec's
            time.sleep(0.005)
        return []


class Exec(Inside):
    """`exec` in the foreground; the program's exit code proves that it ran."""

    name = "exec"
    success = 77

    def command(self) -> list[str]:
        return self.argv("exec", self.one.id, "/probe", "exit", "77")

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc == 0:
            return ["exit 0, but the program ends with 77"]
        if point.call.own and not point.error:
            return []
        problems = self.spoke(done) if done.rc != 77 else []
        return problems + (self.again(point, done) if done.rc != 77 else [])


class ExecDetached(Inside):
    """`exec --detach`: the pid in the file must be the program's, in the container."""

    name = "exec-detach"
    kills_init = True
    flags: tuple[str, ...] = ()

    def before(self) -> None:
        super().before()
        (self.sandbox.path / "exec.pid").unlink(missing_ok=True)

    def command(self) -> list[str]:
        flags = ["--detach", "--pid-file", str(self.sandbox.path / "exec.pid"), *self.flags]
        return self.argv("exec", *flags, self.one.id, "/probe", "signals", "61")

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc != 0:
            if point.call.own and not point.error:
                return []
            return self.spoke(done)
        file = self.sandbox.path / "exec.pid"
        pid = file.read_text() if file.exists() else "0"
        try:
            text = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            text = b""
        killed = done.hit == "execve" and not point.error  # the program ran and was then killed
        return [] if text.startswith(b"/probe") or killed else [f"exit 0, but process {pid} is {text!r}"]


class Kill(Inside):
    """`kill ID USR1`: exit 0 only if the signal arrives."""

    name = "kill"

    def before(self) -> None:
        super().before()
        self.seen = self.one.out.count('"signal"')

    def command(self) -> list[str]:
        return self.argv("kill", self.one.id, "USR1")

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc != 0:
            return [] if not point.error else self.spoke(done)
        limit = time.monotonic() + 5 * SLOW
        while self.one.out.count('"signal"') == self.seen:
            if time.monotonic() > limit:
                return ["exit 0, but no signal came"]
            time.sleep(0.002)
        return []


class State(Inside):
    """`state`: exit 0 only if the answer is complete."""

    name = "state"

    def output(self) -> Path:
        return self.sandbox.path / "state.out"

    def command(self) -> list[str]:
        self.output().write_text("")
        return self.argv("state", self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc != 0:
            return [] if not point.error else self.spoke(done)
        found = self.output().read_text()
        return [] if '"running"' in found and f'"pid": {self.one.pid}' in found else [f"exit 0, but said {found!r}"]
