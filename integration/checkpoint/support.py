"""A container that counts on its stdout, with checkpoint and restore."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from integration.harness import REPO, SLOW, Container, compile_static, wait_until
from integration.machine import Mount, parse_mountinfo

UNPACKED = Path(os.environ.get("PYRUNC_TEST_CRIU") or REPO / "build/criu") / "usr/sbin"
# Options for other runtimes, which would otherwise change the mount options of the host's cgroup2
# (criu#3029).
IGNORE = ("--manage-cgroups-mode", "ignore")
# Each `sleep` is a process. CRIU can fail if it meets one that is just exiting, which takes longer in
# an emulated guest, so there they are fewer.
COUNT = f"i=0; while :; do i=$((i+1)); echo $i; sleep {0.05 * SLOW:g}; done"
TIMEOUT = 30 * SLOW


def environment() -> dict[str, str]:
    """The environment with the unpacked criu first in PATH, if there is one."""
    found = {"PATH": f"{UNPACKED}:{os.environ.get('PATH', '/usr/sbin:/usr/bin:/sbin:/bin')}"}
    modules = sorted(UNPACKED.parent.glob("lib/*/xtables"))  # for the iptables beside it
    return found | ({"XTABLES_LIBDIR": str(modules[0])} if modules else {})


def why_not() -> str:
    """The reason why CRIU cannot be used here, "" if it can."""
    try:
        done = subprocess.run(["criu", "check"], env=environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "no criu: bench/criu.sh gets one where the machine's apt sources have it"
    return "" if done.returncode == 0 else f"criu check: {done.stderr.strip().splitlines()[-1:]}"


def build_client(target: Path) -> None:
    """Compile client.c into a static program. Raises AssertionError with the compilers' output."""
    compile_static(Path(__file__).with_name("client.c"), target)


class Pipe:
    """A pipe that a container writes to."""

    def __init__(self) -> None:
        self.end, self.theirs = os.pipe()
        os.set_blocking(self.end, False)
        self.text = ""

    def read(self) -> str:
        """Everything received so far."""
        while True:
            try:
                data = os.read(self.end, 65536)
            except BlockingIOError:
                return self.text
            if not data:
                return self.text
            self.text += data.decode()

    def close_theirs(self) -> None:
        if self.theirs >= 0:
            os.close(self.theirs)
            self.theirs = -1

    def close(self) -> None:
        self.close_theirs()
        os.close(self.end)


class Counter:
    """A container whose stdout and stderr are our pipes, with new pipes for each restore."""

    def __init__(self, made: Container, script: str = COUNT) -> None:
        self.made = made
        self.images = made.box.path / "images"
        self.pipes: list[Pipe] = []
        self.globals: tuple[str, ...] = ()  # options before the verb
        self.environment: dict[str, str] = {}  # added to the environment of this container's calls
        self.mode = ""  # --manage-cgroups-mode
        made.bundle.config["process"]["args"] = ["/bin/sh", "-c", script]

    def runs(self, client: Path, *args: str) -> None:
        """Replace the script with the program of client.c."""
        shutil.copy(client, self.made.bundle.rootfs / "client")
        self.made.bundle.config["process"]["args"] = ["/client", *args]

    @property
    def peer(self) -> bool:
        return not self.made.box.runtime.is_pyrunc

    @property
    def out(self) -> str:
        return self.pipes[-2].read()

    @property
    def err(self) -> str:
        return self.pipes[-1].read()

    @property
    def numbers(self) -> list[int]:
        """The numbers counted since the last start, without an incomplete line."""
        return [int(line) for line in self.out.split("\n")[:-1] if line.isdigit()]

    def spawn(self, verb: str, *args: str, **kwargs: Any) -> subprocess.Popen[bytes]:
        """Call the runtime with the two pipes."""
        self.pipes += [Pipe(), Pipe()]
        argv = self.made.box.runtime.argv("--root", str(self.made.box.root), *self.globals, verb, *args)
        kwargs.setdefault("stdin", subprocess.DEVNULL)
        kwargs.setdefault("stdout", self.pipes[-2].theirs)
        kwargs.setdefault("stderr", self.pipes[-1].theirs)
        child = subprocess.Popen(argv, env=environment() | self.environment, **kwargs)
        for pipe in self.pipes[-2:]:
            pipe.close_theirs()
        return child

    def started(self, verb: str, *flags: str, check: bool = True, **kwargs: Any) -> int:
        """`run -d` or `restore -d`; returns the exit status."""
        self.made.bundle.save()
        file = self.made.box.path / f"{self.made.id}.pid"
        bundle = ("--bundle", str(self.made.bundle.path))
        child = self.spawn(verb, "--detach", "--pid-file", str(file), *bundle, *flags, self.made.id, **kwargs)
        rc = child.wait(TIMEOUT)
        if check:
            assert rc == 0, self.err + self.log("restore.log")[-6000:]
            self.made.pid = int(file.read_text())
        return rc

    def run(self, *flags: str) -> None:
        self.started("run", *flags)
        self.go_on()

    def go_on(self) -> None:
        """Wait until the container has counted further."""
        before = len(self.numbers)
        wait_until(lambda: len(self.numbers) > before + 1, f"a number (stderr: {self.err!r})")

    def flags(self) -> tuple[str, ...]:
        return ("--image-path", str(self.images), *(IGNORE if self.peer and not self.mode else ()))

    def checkpoint(self, *flags: str, check: bool = True) -> Any:
        done = self.made.call(
            "checkpoint",
            *self.flags(),
            *flags,
            self.made.id,
            check=False,
            env=environment() | self.environment,
            timeout=TIMEOUT,
        )
        assert not check or done.rc == 0, f"{done!r}\n{self.log('dump.log')[-6000:]}"
        return done

    def restore(self, *flags: str, check: bool = True, **kwargs: Any) -> int:
        return self.started("restore", *self.flags(), *flags, check=check, **kwargs)

    def exec(self, script: str) -> str:
        return str(self.made.call("exec", self.made.id, "/bin/sh", "-c", script).out)

    def gone(self) -> bool:
        """Whether the state and the cgroup are gone."""
        return not (self.made.box.root / self.made.id).exists() and not self.made.cgroup.exists()

    def mounts(self) -> list[tuple[str, str, tuple[str, ...], str]]:
        """The container's mounts, without the parts that differ between mounts."""
        return sorted(
            (m.dest, m.fstype, tuple(m.options), m.root if m.fstype != "cgroup2" else "") for m in self.mountinfo()
        )

    def mountinfo(self) -> list[Mount]:
        return parse_mountinfo(Path(f"/proc/{self.made.pid}/mountinfo").read_text())

    def log(self, name: str) -> str:
        path = self.images / name
        return path.read_text(errors="replace") if path.exists() else ""

    def descriptors(self) -> Any:
        return json.loads((self.images / "descriptors.json").read_text())

    def close(self) -> None:
        for pipe in self.pipes:
            pipe.close()


def libraries_for_crun(place: Path) -> dict[str, str]:
    """An environment with links to libcriu for crun, which keeps its other libraries."""
    for name in ("libcriu.so.2", "libprotobuf-c.so.1"):
        found = sorted(UNPACKED.parent.glob(f"lib/*/{name}"))
        if found:
            (place / name).symlink_to(found[0])
    return {"LD_LIBRARY_PATH": str(place)}


def settle(seconds: float) -> None:
    """Wait, to detect something that must not happen."""
    time.sleep(seconds * SLOW)


def why_no_tcp() -> str:
    """The reason why CRIU cannot dump TCP sockets here, "" if it can (criu#2705)."""
    with socket.socket() as one:
        try:
            one.getsockopt(socket.SOL_SOCKET, socket.SO_PASSSEC)
        except OSError:
            if version() < (4, 2):
                return "CRIU before 4.2 asks TCP sockets for SO_PASSSEC, which Linux 6.16 and later refuse"
    return ""


def version() -> tuple[int, ...]:
    """The version of criu, (0,) if it is missing."""
    try:
        done = subprocess.run(["criu", "--version"], env=environment(), capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return (0,)
    return tuple(int(part) for part in done.stdout.split()[1].split(".") if part.isdigit())


def until(master: int, text: bytes) -> bytes:
    """Read from a terminal until ``text`` arrives."""
    got = b""
    os.set_blocking(master, False)

    def more() -> bool:
        nonlocal got
        try:
            got += os.read(master, 4096)
        except (BlockingIOError, OSError):
            pass
        return text in got

    wait_until(more, f"{text!r} in {got!r}")
    return got
