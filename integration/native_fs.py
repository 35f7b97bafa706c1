"""Shared code of the tests of init's filesystem handlers: a client of native/tests/fs_driver.c, its
commands and its answers.

The driver runs single ops in private namespaces, so that a test can check the kernel's view
(mountinfo, stat, errno) of one op without a container. This is a plugin: test modules name it in
``pytest_plugins``. (PYTEST_DONT_REWRITE: they import it earlier, so pytest cannot rewrite its
assertions.)
"""

from __future__ import annotations

import os
import pathlib
import shutil
import stat
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from pyrunc.plan import ops

skip_marks = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed"),
]

NATIVE = pathlib.Path(__file__).resolve().parent.parent / "native"
OBJECTS = [
    "path",
    "fsapi",
    "mount",
    "added",
    "legacy",
    "source",
    "copyup",
    "device",
    "pivot",
    "mask",
    "console",
    "uts",
    "lsm",
    "report",
    "trace",
    "passable",
]
RDONLY, NOSUID, NODEV, NOEXEC, ATIME, NOATIME, STRICTATIME = 1, 2, 4, 8, 0x70, 0x10, 0x20
NOSYMFOLLOW = 0x200000
SHARED, SLAVE, PRIVATE, UNBINDABLE, REC = 1, 2, 3, 4, 8
MS_BIND, MS_SHARED, MS_REC, MS_UNBINDABLE = 4096, 1 << 20, 16384, 1 << 17
CHR, BLK, FIFO = stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO
OPEN_FLAGS = {
    "O_WRONLY": 1, "O_RDWR": 2, "O_CREAT": 0o100, "O_EXCL": 0o200, "O_NOCTTY": 0o400, "O_TRUNC": 0o1000,
    "O_APPEND": 0o2000, "O_NONBLOCK": 0o4000, "O_DIRECTORY": 0o200000, "O_NOFOLLOW": 0o400000, "O_CLOEXEC": 0o2000000,
    "O_PATH": 0o10000000,
}  # fmt: skip


def build_driver(out: pathlib.Path, *sanitizers: str) -> pathlib.Path:
    """Compile fs_driver; the compiler's output is the assertion's message."""
    own = NATIVE / "tests"
    sources: list[str | pathlib.Path] = [
        own / "fs_driver.c",
        own / "fs_commands.c",
        own / "calls.c",
        f"@{own}/calls.flags",
        *(NATIVE / "init" / f"{name}.c" for name in OBJECTS),
    ]
    flags = ["-std=gnu11", "-Wall", "-Wextra", "-g", "-O1", *sanitizers]
    done = subprocess.run(["gcc", *flags, "-o", out, *sources], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    place = tmp_path_factory.mktemp("driver")
    return build_driver(place / "fs_driver", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="session")
def plain_driver(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A driver without the sanitizers, which slow down thousands of forks."""
    return build_driver(tmp_path_factory.mktemp("plain") / "fs_driver")


class Mount:
    """One line of mountinfo."""

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split()
        self.dev, self.root, self.point = fields[2:5]
        self.options = fields[5].split(",")
        self.tags = fields[6:]
        self.type, self.source, self.super = right.split(" ", 2)

    def kinds(self) -> list[str]:
        return [tag.partition(":")[0] for tag in self.tags]


class Script:
    """Lines for fs_driver; every method returns the index of its answer in the result of `run`."""

    def __init__(self, driver: pathlib.Path, root: pathlib.Path) -> None:
        self.driver, self.root, self.lines = driver, root, []  # type: pathlib.Path, pathlib.Path, list[str]

    def ask(self, *fields: object) -> int:
        self.lines.append("\t".join(str(field) for field in fields))
        return len(self.lines) - 1

    def _op(self, verb: str, name: str, args: dict[str, Any]) -> int:
        builder = ops.Builder()
        getattr(builder, name)("/test", **args)
        _, policy, numbers, strings = builder.steps[0]
        texts = ["\x1f".join(s) if isinstance(s, list) else str(s) for s in strings]
        return self.ask(verb, name.upper(), policy, " ".join(map(str, numbers)), *texts)

    def op(self, name: str, /, **args: Any) -> int:
        return self._op("op", name, args)

    def refused(self, name: str, /, **args: Any) -> int:
        """Add an op that is expected to fail; the script continues."""
        return self._op("try", name, args)

    def start(self) -> Script:
        self.op("propagation", propagation=SLAVE | REC)
        self.op("root", path=str(self.root))
        return self

    def proc(self) -> int:
        return self.op("mount", policy=ops.P_MOUNT_PLAIN_DIR, fstype="proc", source="proc", dest="/proc")

    def dev(self) -> int:
        self.op("mount", fstype="tmpfs", source="tmpfs", dest="/dev", data=["mode=755"])
        return self.op("mount", fstype="devpts", source="devpts", dest="/dev/pts",
                       data=["newinstance", "ptmxmode=0666", "mode=0620"])  # fmt: skip

    def run(self, *flags: str, before: str = "") -> list[str]:
        """Run the script and return the answers. ``before`` is a shell command that runs in an
        outer mount namespace, which is the driver's host."""
        env = {"ASAN_OPTIONS": "detect_leaks=0", "PATH": os.environ["PATH"]}
        text = "\n".join(self.lines) + "\n"
        argv = [str(self.driver), *flags]
        if before:
            argv = ["unshare", "-m", "--propagation", "private", "sh", "-c", f'{before} && "$@"; exit $?', "sh", *argv]
        done = subprocess.run(argv, input=text.encode(), capture_output=True, env=env, timeout=60, check=False)
        if done.returncode == 77:
            pytest.skip(f"namespaces are not available: {done.stderr.decode()}")
        answers = done.stdout.decode().splitlines()
        assert done.returncode == 0, (self.lines[len(answers) - 1], answers[-1:], done.stderr.decode())
        assert len(answers) == len(self.lines) or "-F" in flags, done.stderr.decode()
        return answers

    def sweep(self, errors: list[int], *flags: str) -> list[tuple[int, int, str, list[str], str]]:
        """The error, index and name of each system call of the last op, and if that call fails, the
        calls after it and the answer."""
        answers = self.run("-F", ",".join(map(str, errors)), *flags)
        fields = [line.split("\t", 4) for line in answers]
        return [(int(error), int(index), call, lines(after), answer) for error, index, call, after, answer in fields]


def lines(answer: str) -> list[str]:
    return answer.rstrip("\x1f").split("\x1f")


def readable(call: str) -> str:
    """The flags of open by name; a file that is named by its descriptor has no number."""
    name, *words = call.split(" ")
    if name != "fsconfig":
        words = ["FD" if word.isdigit() and word != "0" else word for word in words]
    if name in ("open", "openat", "openat2"):
        number = int(words[1], 16)
        names = [flag for flag, bit in OPEN_FLAGS.items() if number & bit]
        left = number & ~sum(OPEN_FLAGS.values())
        words[1] = "|".join([*names, *([hex(left)] if left else [])]) or "O_RDONLY"
    return " ".join([name, *words])


def mounts(answer: str) -> list[Mount]:
    return [Mount(line) for line in lines(answer)]


def below(answer: str, root: pathlib.Path) -> dict[str, Mount]:
    """The mounts inside the root filesystem by path; for several at one path, the last."""
    return {m.point[len(str(root)) :]: m for m in mounts(answer) if m.point.startswith(f"{root}/")}


def failure(answer: str) -> tuple[str, str, int, int, str]:
    word, err, call, arg, item, detail = answer.split("\t")
    assert word == "fail"
    assert item == "0" or int(arg) == 3  # the data of MOUNT are the only list
    return err, call, int(arg), int(item), detail


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A root filesystem; the host must not see any mount in it."""
    path = tmp_path / "rootfs"
    path.mkdir()
    yield path
    assert str(tmp_path) not in pathlib.Path("/proc/self/mountinfo").read_text()


@pytest.fixture
def outside(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """State that no container may ever change."""
    path = tmp_path / "outside"
    path.mkdir()
    yield path
    assert list(path.iterdir()) == []


@pytest.fixture
def script(driver: pathlib.Path, root: pathlib.Path) -> Script:
    return Script(driver, root)


@pytest.fixture
def begun(script: Script) -> Script:
    return script.start()


@pytest.fixture
def source(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "source"
    (path / "sub").mkdir(parents=True)
    (path / "file").write_text("content")
    return path


@pytest.fixture
def terminal(begun: Script) -> Script:
    begun.dev()
    begun.op("dev_link", target="pts/ptmx", path="/dev/ptmx")
    return begun
