"""Commands with rich configs: user namespaces, joined namespaces, terminals, agents, scheduling.

They cover the code that the plain scenes do not reach. Like engines and agents, threads receive
descriptors and accept anything, however early the other side ends.
"""

from __future__ import annotations

import array
import itertools
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from integration import test_userns as userns
from integration.config import DELETE
from integration.faults import checkpoints, images, mounts, reading, scenes
from integration.faults.points import Point
from integration.faults.scenes import (
    HOOK,
    Create,
    Delete,
    Exec,
    ExecDetached,
    Inside,
    Kill,
    Outcome,
    Run,
    Sandbox,
    Scene,
    Start,
    State,
)  # fmt: skip
from integration.harness import SLOW, Holder

MAPPED = userns.edits(kinds=[*userns.KINDS, "time"])
SECCOMP = scenes.CreateRich.edits["/linux/seccomp"]
HOLDERS_LIFE = 300  # seconds; the process ends by itself after twice this time
CAPS = {key: ["CAP_KILL", "CAP_CHOWN"] for key in ("bounding", "effective", "permitted", "inheritable", "ambient")}


class Receiver:
    """A unix socket that receives one message with descriptors per connection and passes them
    on."""

    def __init__(self, path: Path, take: Callable[[list[int]], None]) -> None:
        self.path, self.take = path, take
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):  # closed
            while True:
                threading.Thread(target=self._receive, args=(self.server.accept()[0],), daemon=True).start()

    def _receive(self, connection: socket.socket) -> None:
        fds = array.array("i")
        with connection, suppress(OSError):
            connection.settimeout(scenes.LIMIT)
            _, control, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(64))
            for _, _, data in control:
                fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
            while connection.recv(65536):
                pass
            self.take(list(fds))
        for fd in fds:
            os.close(fd)

    def close(self) -> None:
        """Stop receiving."""
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


class Consoles(Receiver):
    """A console socket that writes a terminal's output to a file."""

    def __init__(self, path: Path, out: Path) -> None:
        super().__init__(path, self._copy)
        self.out = out

    def _copy(self, fds: list[int]) -> None:
        for fd in fds:
            with suppress(OSError), self.out.open("ab") as out:  # EIO: the other end is closed
                while data := os.read(fd, 65536):
                    out.write(data)
                    out.flush()


class CreateUser(Create):
    """`create` with a user namespace, a mapped volume, a filled tmpfs, a seccomp agent, clocks and
    limits of all kinds."""

    name = "create-user"
    edits = {  # noqa: RUF012
        **MAPPED,
        "/linux/timeOffsets": {"monotonic": {"secs": 100}, "boottime": {"secs": 200, "nanosecs": 1}},
        "/linux/rootfsPropagation": "rslave",
        "/linux/personality": {"domain": "LINUX32"},
        "/linux/devices": [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}],
        "/linux/seccomp": {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerMetadata": "data",
            "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_NOTIFY"}],
        },
        "/domainname": "domain",
        "/hooks": {"createRuntime": [HOOK], "createContainer": [HOOK]},
        "/process/oomScoreAdj": 700,
        "/process/scheduler": {"policy": "SCHED_BATCH", "nice": 3},
        "/process/ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 5},
        "/process/user": {"uid": 5, "gid": 6, "umask": 0o27, "additionalGids": [7]},
        "/process/cwd": "/home/new",
        "/process/capabilities": CAPS,
        "/process/rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
        "/mounts/-": {"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]},
    }

    def prepare(self) -> None:
        path, rootfs = self.one.bundle.path, self.one.bundle.rootfs
        volume = path / "volume"
        (volume / "below").mkdir(parents=True)
        full = rootfs / "full"
        (full / "dir").mkdir(parents=True)
        (full / "dir/file").write_text("copied")
        os.setxattr(full / "dir/file", "user.pyrunc", b"value")
        (full / "link").symlink_to("dir/file")
        os.mkfifo(full / "fifo")
        userns.own(self.one)
        self.agent = Receiver(self.sandbox.path / "agent", lambda fds: None)
        config = self.one.bundle.config
        config["linux"]["seccomp"]["listenerPath"] = str(self.agent.path)
        bind = {"type": "bind", "source": "volume"}
        config["mounts"] += [
            {**bind, "destination": "/mapped", "options": ["rbind", "ridmap", "nosuid", "rnodev"]},
            {**bind, "destination": "/file", "source": str(path / "config.json"), "options": ["bind", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]},
        ]
        self.one.bundle.save()

    def close(self) -> list[str]:
        self.agent.close()
        return []


class CreateJoined(Create):
    """`create` in the namespaces of a pod, with a terminal on a console socket."""

    name = "create-joined"
    _JOINED = ("pid", "network", "ipc", "uts", "cgroup", "time")
    edits = {"/process/terminal": True, "/process/consoleSize": {"height": 25, "width": 80}, "/hostname": DELETE}  # noqa: RUF012

    def prepare(self) -> None:
        self.consoles = Consoles(self.sandbox.path / "console", self.one.out_file)
        self.flags = ("--console-socket", str(self.consoles.path))
        self.pod: Holder | None = None
        self.since = 0.0

    def before(self) -> None:
        super().before()
        if self.pod and time.monotonic() - self.since < HOLDERS_LIFE:
            return
        self.close_pod()
        self.pod, self.since = Holder(self.sandbox, self._JOINED), time.monotonic()
        joined = [{"type": kind, "path": self.pod.path(kind)} for kind in self._JOINED]
        self.one.bundle.config["linux"]["namespaces"] = [*joined, {"type": "mount"}]
        self.one.bundle.save()

    def close_pod(self) -> None:
        """End the pod's process."""
        if self.pod:
            self.pod.close()
            self.sandbox.helpers.discard(self.pod.parent.pid)
            self.pod = None

    def close(self) -> list[str]:
        self.close_pod()
        self.consoles.close()
        return []


class CreateUncached(Create):
    """`create` with a seccomp profile that is not in the cache: another process compiles it."""

    name = "create-uncached"
    named = (*Create.named, "/linux/seccomp: ")
    edits = {"/linux/seccomp": SECCOMP}  # noqa: RUF012
    _attempts = itertools.count(os.getpid() % 4000)

    def before(self) -> None:
        super().before()
        # Each profile is a cache entry; the cache is discarded before all profiles are used.
        rule = {**SECCOMP["syscalls"][0], "errnoRet": next(self._attempts) % 4000 + 1}
        self.one.bundle.config["linux"]["seccomp"] = {**SECCOMP, "syscalls": [rule]}
        self.one.bundle.save()

    def again(self, point: Point, done: Outcome) -> list[str]:
        """Excuse libseccomp, which does not retry its write and has no signal handlers that could
        interrupt it."""
        return [] if "config.json: /linux/seccomp: " in done.err else super().again(point, done)


class CreateChroot(Create):
    """`create --no-pivot`, as from an initramfs."""

    name = "create-chroot"
    flags = ("--no-pivot",)


class CreateCallers(Create):
    """`create` without a mount namespace: all mounts go into ours."""

    name = "create-callers"
    edits = {"/linux/namespaces": [{"type": kind} for kind in userns.KINDS if kind != "mount"]}  # noqa: RUF012


class StartRich(Start):
    """`start` with hooks, a seccomp profile and a user."""

    name = "start-rich"
    edits = {  # noqa: RUF012
        "/hooks": {"startContainer": [{**HOOK, "env": ["A=b"], "timeout": 10}], "poststart": [HOOK]},
        "/process/user": {"uid": 1000, "gid": 1000},
        "/linux/seccomp": SECCOMP,
    }


class ExecProcess(Exec):
    """`exec --process` with every field of a process, in a container with user and time
    namespaces."""

    name = "exec-process"
    edits = {  # noqa: RUF012
        **MAPPED,
        "/linux/seccomp": SECCOMP,
    }

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        userns.own(self.one)
        process = {
            "args": ["/probe", "exit", "77"],
            "cwd": "/tmp",
            "env": ["PATH=/bin"],
            "user": {"uid": 5, "gid": 6, "umask": 0o27, "additionalGids": [7]},
            "capabilities": CAPS,
            "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
            "noNewPrivileges": True,
            "oomScoreAdj": 700,
            "scheduler": {"policy": "SCHED_BATCH", "nice": 3},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 5},
            "execCPUAffinity": {"initial": "0", "final": "0-1"},
        }
        self.file = sandbox.path / "process.json"
        self.file.write_text(json.dumps(process))

    def command(self) -> list[str]:
        return self.argv("exec", "--process", str(self.file), self.one.id)


class ExecTerminal(ExecDetached):
    """`exec --detach --tty` with a console socket."""

    name = "exec-terminal"

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        self.consoles = Consoles(sandbox.path / "console", Path(os.devnull))
        self.flags = ("--tty", "--console-socket", str(self.consoles.path))

    def close(self) -> list[str]:
        self.consoles.close()
        return super().close()


class DeleteStopped(Delete):
    """`delete` of a stopped container with poststop hooks, whose failure is only a warning."""

    name = "delete-stopped"
    edits = {"/hooks": {"poststop": [HOOK, HOOK]}}  # noqa: RUF012

    def before(self) -> None:
        super().before()
        self.one.kill("KILL")
        self.one.wait()

    def command(self) -> list[str]:
        return self.argv("delete", self.one.id)


class Pause(Inside):
    """`pause`: exit 0 only if the container is frozen."""

    name = "pause"

    def frozen(self) -> bool:
        """Whether the kernel reports the cgroup as frozen."""
        return "frozen 1" in (self.one.cgroup / "cgroup.events").read_text()

    def command(self) -> list[str]:
        return self.argv("pause", self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc == 0:
            return [] if self.frozen() else ["exit 0, but not frozen"]
        if not point.error:
            return []
        problems = ["failed, but the container is frozen"] if self.frozen() else []
        return problems + self.spoke(done) + self.again(point, done)

    def clean(self) -> list[str]:
        (self.one.cgroup / "cgroup.freeze").write_text("0")
        return super().clean()


class Resume(Pause):
    """`resume`: exit 0 only if the container runs again."""

    name = "resume"

    def before(self) -> None:
        super().before()
        (self.one.cgroup / "cgroup.freeze").write_text("1")
        limit = time.monotonic() + 5 * SLOW
        while not self.frozen():
            assert time.monotonic() < limit, "the container does not freeze"
            time.sleep(0.001)

    def command(self) -> list[str]:
        return self.argv("resume", self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc == 0:
            return ["exit 0, but still frozen"] if self.frozen() else []
        return self.spoke(done) + self.again(point, done) if point.error else []


class Ps(Inside):
    """`ps --format json`: exit 0 only if every process is listed."""

    name = "ps"

    def output(self) -> Path:
        return self.sandbox.path / "ps.out"

    def command(self) -> list[str]:
        self.output().write_text("")
        return self.argv("ps", "--format", "json", self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc != 0:
            return self.spoke(done) if point.error else []
        found = self.output().read_text()
        return [] if found.split() == [f"[{self.one.pid}]"] else [f"exit 0, but said {found!r}"]


class Update(Delete):
    """`update` of the device rules: exit 0 only if the kernel applies the new ones."""

    name = "update"
    _NODE = Path("/dev/kmsg")  # not among the devices that every container may open

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(sandbox)
        mine = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
        self.file = sandbox.path / "resources.json"
        self.file.write_text(json.dumps({"devices": [{"allow": False, "access": "rwm"}, mine]}))

    def before(self) -> None:
        super().before()
        assert not self.may_open()

    def may_open(self) -> bool:
        """Whether a process in the container's cgroup may open it."""
        inside = f'echo 0 >"{self.one.cgroup}/cgroup.procs" && exec head -c 0 {self._NODE}'
        return subprocess.run(["/bin/sh", "-c", inside], stderr=subprocess.DEVNULL, check=False).returncode == 0

    def command(self) -> list[str]:
        return self.argv("update", "--resources", str(self.file), self.one.id)

    def judge(self, point: Point, done: Outcome) -> list[str]:
        if done.rc == 0:
            return [] if self.may_open() else ["exit 0, but the old rules are in force"]
        if not point.error:
            return []
        problems = ["failed, but the new rules are in force"] if self.may_open() else []
        return problems + self.spoke(done) + self.again(point, done)


ALL: tuple[type[Scene], ...] = (
    Create, scenes.CreateRich, CreateUncached, CreateUser, CreateJoined, CreateChroot, CreateCallers, Start, StartRich,
    Run, Exec, ExecProcess, ExecDetached, ExecTerminal, Kill, Pause, Resume, Ps, Update, State, Delete, DeleteStopped,
    *reading.ALL, *images.ALL, *mounts.ALL, *checkpoints.ALL,
)  # fmt: skip
