"""Helpers of several security tests: traced calls, names that change continuously, listings of a
tree."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from integration import machine
from integration.harness import SLOW, Box, Container, wait_until

Make = Callable[..., Container]
Refused = Callable[..., None]

LONG = bool(os.environ.get("PYRUNC_SECURITY_LONG"))  # ten times as many rounds
ROUNDS = 10 if LONG else 1


def tmpfs(destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": list(options)}


def bind(destination: str, source: Path | str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "bind", "source": str(source), "options": ["rbind", *options]}


def without_mounts(one: Container, *below: str) -> None:
    """Remove the mounts at and below some destinations from the configuration, so the image's own
    files stay visible."""
    mounts = one.bundle.config["mounts"]
    one.bundle.config["mounts"] = [m for m in mounts if not m["destination"].startswith(below)]


def tree(root: Path) -> dict[str, tuple[int, int, int, str]]:
    """Every name below a directory, with mode, size, owner and the target of a link; links are not
    followed."""
    found = {}
    for at, directories, files in os.walk(root):
        for name in directories + files:
            path = Path(at, name)
            info = path.lstat()
            link = os.readlink(path) if path.is_symlink() else ""
            size = 0 if path.is_dir() and not path.is_symlink() else info.st_size
            found[str(path.relative_to(root))] = (info.st_mode, size, info.st_uid, link)
    return found


def mountinfo() -> str:
    return Path("/proc/self/mountinfo").read_text()


# --- tracing --------------------------------------------------------------------------------------


class Trace:
    """The system calls of a complete call of the runtime, including container processes."""

    def __init__(self, box: Box, calls: str) -> None:
        box.count += 1
        self.path = box.path / f"trace{box.count}"
        # -D: strace is a grandchild; otherwise it would wait for the container's init and the call
        # would not end.
        self.wrap = ["strace", "-D", "-f", "-q", "-s", "256", "-o", str(self.path), "-e", f"trace={calls}"]

    @property
    def lines(self) -> list[str]:
        """``PID call(arguments) = result`` in order; the parts of interrupted calls are joined."""
        text = wait_until(self._whole, "the end of the runtime in the trace")
        pending: dict[str, str] = {}
        done = []
        for line in text.splitlines():
            pid, _, rest = line.partition(" ")
            rest = rest.strip()
            if rest.startswith(("+++ ", "--- ")):
                continue
            if rest.endswith("<unfinished ...>"):
                pending[pid] = rest.removesuffix("<unfinished ...>")
                continue
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", rest)
            if resumed:
                rest = pending.pop(pid, "") + resumed[1]
            done.append(f"{pid} {rest}")
        return done

    def _whole(self) -> str:
        """The trace once it contains the exit of its first process, the runtime: strace may lag
        behind."""
        text = self.path.read_text(errors="replace") if self.path.exists() else ""
        first = text.partition(" ")[0]
        return text if first and re.search(rf"^{first} +\+\+\+ ", text, re.M) else ""

    def calls(self, name: str) -> list[str]:
        """The lines of one system call (a regular expression for its name)."""
        return [line for line in self.lines if re.match(rf"\d+ (?:{name})\(", line)]


# --- races ----------------------------------------------------------------------------------------


@contextmanager
def repeating(act: Callable[[], None]) -> Iterator[None]:
    """Repeat an action in another thread while the body runs; raise its first error at the end."""
    stop, errors = threading.Event(), []

    def loop() -> None:
        while not stop.is_set():
            try:
                act()
            except OSError as error:
                errors.append(error)
                return

    thread = threading.Thread(target=loop, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10 * SLOW)
    if errors:
        raise errors[0]


def swapping(one: Path, two: Path) -> Any:
    """Exchange two names continuously (renameat2), as a process that shares the image with the
    runtime can."""
    names = os.fsencode(one), os.fsencode(two)

    def exchange() -> None:
        machine.libc("renameat2", -100, names[0], -100, names[1], 2)  # RENAME_EXCHANGE

    return repeating(exchange)
