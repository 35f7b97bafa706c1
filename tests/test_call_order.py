"""The system calls of one function: their order, arguments and flags, what each failing call leads
to, and what is left then.

golden/call_order.txt has the calls (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review the diff).
faulty.py checks that nothing leaks and that no report is false; here the reports themselves are
compared.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import posix
import re
import socket
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import faulty
import pyrunc.state.container
import pyrunc.state.root
import pyrunc.state.store
import transcript
from cgroup_support import Kernel
from pyrunc import fs, log, seccomp, state
from pyrunc.cgroup import cgroupfs, tree
from pyrunc.errors import StateError
from pyrunc.launch import exec as launch_exec
from pyrunc.trace import target

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="flags differ between machines"),
]

NUMBERS = (errno.ENOENT, errno.EACCES, errno.EIO, errno.EEXIST, errno.EBUSY, errno.EINVAL)
STATE = (pyrunc.state.container, pyrunc.state.root, pyrunc.state.store, fs)
# Calls that cannot fail, or whose number differs between runs.
SAFE = {"getpid", "geteuid", "getuid", "getcwd", "close", "fspath", "environ", "fsencode", "fsdecode", "major", "minor"}
TAKES_FD = {
    "read", "write", "pread", "pwrite", "fstat", "fchmod", "fchown", "ftruncate", "listdir", "dup", "fstatvfs", "close",
    "fsync", "scandir", "utime", "flock", "stat", "chmod", "chown", "chdir", "fchdir", "truncate", "statvfs",
}  # fmt: skip
Scene = Callable[[Path], Callable[[], Any]]


class Calls:
    """A stand-in for `posix` or `os` in a module that notes each call, and lets one of them fail."""

    def __init__(self, real: Any, place: Path, notes: list[str], fail: tuple[int, int]) -> None:
        self.real, self.place, self.notes, self.fail = real, place, notes, fail

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        if name in SAFE or not callable(value) or isinstance(value, type):
            return value

        def call(*args: Any, **more: Any) -> Any:
            if args and type(args[0]) is str and str(self.place).startswith(args[0] or "-"):
                return value(*args, **more)  # a directory of pytest's
            words = [self.shown(arg, name in TAKES_FD and index == 0) for index, arg in enumerate(args)]
            if name in ("read", "pread"):  # sizes depend on the digits of a pid
                words[1:] = ["..." if word.startswith("0o") else word for word in words[1:]]
            words += [f"{key}={self.shown(arg, 'fd' in key)}" for key, arg in more.items()]
            self.notes.append(f"{name}({', '.join(words)})")
            if len(self.notes) - 1 == self.fail[0]:
                raise OSError(self.fail[1], os.strerror(self.fail[1]))
            return value(*args, **more)

        return call

    def shown(self, value: Any, descriptor: bool) -> str:
        """An argument as text, the same in each run."""
        if descriptor and type(value) is int:
            return f"<{masked(where(value), self.place)}>"
        if type(value) is int and value > 9:
            return oct(value)
        return masked(repr(value), self.place)


def where(fd: int) -> str:
    """The file of a descriptor."""
    try:
        return posix.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return str(fd)


def masked(text: str, place: Path) -> str:
    """Text without what differs between runs."""
    text = text.replace(str(place), "TOP")
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z?", "TIME", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)
    text = re.sub(r"/proc/\d+", "/proc/N", text)
    text = re.sub(r"/proc/self/fd/\d+", "/proc/self/fd/N", text)  # depends on what the test's process inherited
    text = re.sub(r"(pid|starttime)(\W{1,4})\d+", r"\1\2N", text)
    return transcript.short(re.sub(r"(?<![\w.])\d{4,}(?!\w)", "N", text))


def left_in(place: Path) -> list[str]:
    """The files that are left, with their modes."""
    out = []
    for path in sorted(place.rglob("*")):
        found = path.lstat()
        size = found.st_size if stat.S_ISREG(found.st_mode) and "state" not in path.name else 0
        out.append(f"{path.relative_to(place)} {found.st_mode:o} {size}")
    return out


def run_once(
    scene: Scene, modules: Iterable[Any], place: Path, fail: tuple[int, int]
) -> tuple[list[str], list[str], str]:
    """The calls, what is left, and the result."""
    place.mkdir()
    notes: list[str] = []
    act = scene(place)
    with pytest.MonkeyPatch.context() as patch:
        for module in modules:
            for name in ("posix", "os"):
                if name in vars(module):
                    patch.setattr(module, name, Calls(getattr(module, name), place, notes, fail))
        before = faulty.open_descriptors()
        try:
            found = masked(transcript.shown(act(), 4), place)
        except Exception as error:
            found = masked(f"{type(error).__name__}: {error}", place)
        for fd in faulty.open_descriptors().keys() - before.keys():
            raise AssertionError(f"{notes[-1]}: {found}: {where(int(fd))} is left open")
    return notes, left_in(place), found


def compare(case: str, modules: Iterable[Any], place: Path, scene: Scene, numbers: Iterable[int] = NUMBERS) -> None:
    """Compare the calls of a scene, and the outcome of each failure, with the transcript."""
    modules, before = list(modules), umask()
    notes, left, found = run_once(scene, modules, place / "good", (-1, 0))
    with more_descriptors():
        assert run_once(scene, modules, place / "again", (-1, 0))[0] == notes
    lines = [*notes, f"-> {found}", f"left: {left}"]
    for index, note in enumerate(notes):
        outcomes: dict[str, list[str]] = {}
        for number in numbers:
            now, there, told = run_once(scene, modules, place / f"{index}.{number}", (index, number))
            then = hashlib.sha256(repr((now[index + 1 :], there)).encode()).hexdigest()[:8]
            outcomes.setdefault(f"{told} ({len(now) - index - 1} calls more, {then})", []).append(
                errno.errorcode[number]
            )
        lines += [f"{index} {note.partition('(')[0]} {' '.join(names)}: {told}" for told, names in outcomes.items()]
    assert umask() == before
    transcript.compare("call_order", case, lines)


@contextlib.contextmanager
def more_descriptors() -> Iterator[None]:
    """Other numbers for the descriptors that are opened next, as after inheriting some."""
    opened = [os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC) for _ in range(9)]
    try:
        yield
    finally:
        for fd in opened:
            os.close(fd)


def umask() -> int:
    """The umask, which no call may leave changed."""
    mask = os.umask(0o22)
    os.umask(mask)
    return mask


@pytest.fixture(autouse=True)
def ordinary_umask() -> Any:
    """Modes depend on it."""
    mask = os.umask(0o22)
    yield
    os.umask(mask)


# -- files -----------------------------------------------------------------------------------------


def filled(place: Path) -> None:
    """A file, a link, a directory with something in it, and what a killed process has left."""
    (place / "file").write_text("content")
    (place / "link").symlink_to("file")
    (place / "directory/below").mkdir(parents=True)
    (place / "directory/below/file").write_text("x")
    (place / ".file.tmp").write_text("half")


FILES: dict[str, Callable[[Path], Any]] = {
    "read_file": lambda place: fs.read_file(f"{place}/file"),
    "read_file, the limit": lambda place: fs.read_file(f"{place}/file", 7),
    "read_file, too large": lambda place: fs.read_file(f"{place}/file", 6),
    "names": lambda place: sorted(fs.names(f"{place}/directory")),
    "write_file": lambda place: fs.write_file(f"{place}/file", b"new"),
    "write_new": lambda place: fs.write_new(f"{place}/new", b"new"),
    "write_new, exists": lambda place: fs.write_new(f"{place}/file", b"new"),
    "replace_file": lambda place: fs.replace_file(f"{place}/file", b"new", 0o640),
    "replace_file, a new one": lambda place: fs.replace_file(f"{place}/other", b"new"),
    "exists": lambda place: (fs.exists(f"{place}/link"), fs.exists(f"{place}/none")),
    "takes_processes": lambda place: launch_exec.takes_processes(str(place)),
    "log": lambda place: os.close(log._open(f"{place}/log")),
    "log, a link": lambda place: log._open(f"{place}/link"),
}


@pytest.mark.parametrize("name", FILES)
def test_files(name: str, tmp_path: Path) -> None:
    def scene(place: Path) -> Callable[[], Any]:
        filled(place)
        return lambda: FILES[name](place)

    compare(name, (fs, log), tmp_path, scene)


def test_removal_of_a_tree(tmp_path: Path) -> None:
    def scene(place: Path) -> Callable[[], Any]:
        filled(place)

        def act() -> None:
            fd = os.open(place, os.O_PATH | os.O_DIRECTORY)
            try:
                fs.remove_tree("directory", fd)
            finally:
                os.close(fd)

        return act

    compare(
        "remove_tree", (fs,), tmp_path, scene, (errno.ENOENT, errno.EIO, errno.EISDIR, errno.EPERM, errno.ENOTEMPTY)
    )


# -- the state root --------------------------------------------------------------------------------


def in_store(act: Callable[[state.Store], Any], made: bool = True) -> Scene:
    """A scene with a state root and, if wanted, a container in it."""

    def scene(place: Path) -> Callable[[], Any]:
        store = state.Store(f"{place}/run/pyrunc")
        if made:
            assert store.open_root(make=True)
            container = store.reserve("c1")
            container.data["status"] = "created"
            container.save()
            container.unlock()

        def run() -> Any:
            try:
                return act(store)
            finally:
                store.close()

        return run

    return scene


def changed(store: state.Store) -> str:
    """Change a container's state."""
    with store.open("c1") as container:
        container.data["annotations"] = {"a": "b"}
        container.save()
        return str(container.data["status"])


def reserved(store: state.Store) -> bool:
    """Take a new id."""
    store.open_root(make=True)
    container = store.reserve("c2")
    container.unlock()
    return container.fd < 0


def listed(store: state.Store) -> list[str]:
    """The ids, and the errors."""
    os.mkdir(f"{store.root}/c0")
    Path(store.root, "stray").write_text("")
    out: list[str] = []
    out += [container.id for container in store.list(lambda error: out.append(str(error)))]
    return out


def listed_ids(store: state.Store) -> list[str]:
    """The same without reading their states."""
    out: list[str] = []
    out += [container.id for container in store.list(lambda error: out.append(str(error)), content=False)]
    return out


STORES: dict[str, tuple[Callable[[state.Store], Any], bool]] = {
    "make the root": (lambda store: store.open_root(make=True), False),
    "no root": (lambda store: store.exists(), False),
    "open the root": (lambda store: store.exists(), True),
    "reserve": (reserved, False),
    "reserve beside another": (reserved, True),
    "change": (changed, True),
    "list": (listed, True),
    "list -q": (listed_ids, True),
    "find": (lambda store: store.find("c1").has("state.json"), True),
    "abandoned": (lambda store: store.find("c1").abandoned(), True),
    "looks whole": (lambda store: store.find("c1").looks_whole(), True),
}


@pytest.mark.parametrize("name", STORES)
def test_the_state_root(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act, made = STORES[name]
    monkeypatch.setattr(pyrunc.state.container, "LOCK_TIMEOUT", 0.0)
    compare(
        name, STATE, tmp_path, in_store(act, made), (errno.ENOENT, errno.EACCES, errno.EIO, errno.EEXIST, errno.ELOOP)
    )


@pytest.mark.parametrize("kind", ["link", "fifo", "socket", "directory", "empty", "foreign", "another id"])
def test_a_state_that_is_something_else(kind: str, tmp_path: Path) -> None:
    def act(store: state.Store) -> Any:
        path = Path(store.root, "c1/state.json")
        text = path.read_text()
        path.unlink()
        if kind == "link":
            path.symlink_to("/etc/hostname")
        elif kind == "fifo":
            os.mkfifo(path)
        elif kind == "socket":
            with socket.socket(socket.AF_UNIX) as made:
                made.bind(str(path))
        elif kind == "directory":
            path.mkdir()
        else:
            path.write_text({"empty": "", "foreign": "[]", "another id": text.replace("c1", "c2")}[kind])
        told = [str(store.find("c1").looks_whole())]
        for call in (lambda: listed_ids(store), lambda: store.open("c1"), lambda: store.find("c1").abandoned()):
            try:
                told.append(str(call()))
            except StateError as error:
                told.append(f"{type(error).__name__}: {error}")
        return told

    compare(f"a state that is {kind}", STATE, tmp_path, in_store(act), (errno.EIO,))


# -- cgroups ---------------------------------------------------------------------------------------


CGROUPS: dict[str, Callable[[cgroupfs.Cgroupfs], Any]] = {
    "create": lambda driver: os.close(driver.create("/a/b", {"memory": {"limit": 4096}, "pids": {"limit": 5}})),
    "create in one that exists": lambda driver: os.close(driver.create("/pod/b", {"pids": {"limit": 5}})),
    "create where it exists": lambda driver: os.close(driver.create("/pod", {"pids": {"limit": 5}})),
    "apply": lambda driver: driver.apply(
        "/pod", {"memory": {"limit": 4096}, "cpu": {"quota": 5, "burst": 3, "shares": 9}}
    ),
    "values": lambda driver: driver.values("/pod", {"memory": {"limit": 4096}, "cpu": {"quota": 5, "shares": 9}}),
    "restore": lambda driver: driver.restore("/pod", [("memory.max", "5"), ("cpu.weight", ""), ("none", "1")]),
    "frozen": lambda driver: (driver.frozen("/pod"), driver.frozen("/none")),
    "oom_kills": lambda driver: (driver.oom_kills("/pod"), driver.oom_kills("/none")),
    "pids": lambda driver: (driver.pids("/pod"), driver.pids("/none")),
    "missing": lambda driver: (driver.missing("/pod"), driver.missing("/pod/x/y"), driver.missing("/")),
}


@pytest.mark.parametrize("name", CGROUPS)
def test_cgroups(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scene(place: Path) -> Callable[[], Any]:
        kernel = Kernel(place / "cg", "cpu memory pids", monkeypatch)
        os.close(kernel.driver.create("/pod", {}))
        kernel.writes.clear()
        kernel.driver.facts.rootless = False

        def act() -> Any:
            try:
                found = CGROUPS[name](kernel.driver)
            finally:
                told.append((list(kernel.writes), kernel.exists_below(), getattr(kernel.driver, "made", None)))
            return found, told.pop()

        told: list[Any] = []
        # Both stand for the kernel, which the driver takes for `posix` and for `pyrunc.fs`.
        return act

    modules = [cgroupfs, tree, SimpleNamespace()]
    compare(
        f"cgroup: {name}",
        modules,
        tmp_path,
        scene,
        (errno.ENOENT, errno.EACCES, errno.EBUSY, errno.EEXIST, errno.ENODEV),
    )


# -- the cache of seccomp programs -----------------------------------------------------------------


def cached(place: Path) -> Any:
    """Store a program, and read it again."""
    fd = seccomp._open_cache(f"{place}/cache")
    if fd < 0:
        return "no cache"
    try:
        seccomp._remember(fd, b"d" * 16, b"program.")
        return seccomp._recall(fd, b"d" * 16), seccomp._recall(fd, b"e" * 16)
    finally:
        os.close(fd)


def test_the_seccomp_cache(tmp_path: Path) -> None:
    compare("the seccomp cache", (seccomp, fs), tmp_path, lambda place: lambda: cached(place))


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o700, 0o400])
def test_a_cached_program_that_is_not_ours(mode: int, tmp_path: Path) -> None:
    """Its mode, owner, links and content must be as we write them."""
    cached(tmp_path)
    path = next((tmp_path / "cache").iterdir())
    good = path.read_bytes()
    fd = os.open(tmp_path / "cache", os.O_RDONLY)
    try:
        path.chmod(mode)
        assert bool(seccomp._recall(fd, b"d" * 16)) == (mode == 0o600)
        path.chmod(0o600)
        for data in (
            good[:-1],
            good + b"x",
            good[:-8],
            b"",
            good[:8],
            b"x" + good[1:],
            good.replace(b"program.", b"Program."),
        ):
            path.write_bytes(data)
            assert seccomp._recall(fd, b"d" * 16) == b""
        path.write_bytes(good)
        assert seccomp._recall(fd, b"d" * 16) == b"program."
        os.chown(path, 1, 0)
        assert seccomp._recall(fd, b"d" * 16) == b""
        os.chown(path, 0, 0)
        os.link(path, tmp_path / "cache/second")
        assert seccomp._recall(fd, b"d" * 16) == b""
    finally:
        os.close(fd)
    for wrong in (0o755, 0o1700, 0o770):
        (tmp_path / "cache").chmod(wrong)
        assert seccomp._open_cache(f"{tmp_path}/cache") == -1
    (tmp_path / "cache").chmod(0o700)
    os.chown(tmp_path / "cache", 1, 0)
    assert seccomp._open_cache(f"{tmp_path}/cache") == -1


# -- a file with a trace ---------------------------------------------------------------------------


class Plain(target.Target):
    """A format with a head, a separator and a tail."""

    head, between, tail = b"[", b",", b"]\n"

    def render(self, recorder: Any, spans: Any) -> bytes:
        return b"span"


@pytest.mark.parametrize("content", [None, b"", b"[old]\n", b"[old", b"other", b"]\n", b"["])
def test_a_target(content: bytes | None, tmp_path: Path) -> None:
    """Two commands write to it; a call that fails leaves the file as it was."""

    def scene(place: Path) -> Callable[[], Any]:
        if content is not None:
            (place / "trace").write_bytes(content)

        def act() -> Any:
            made = Plain(f"{place}/trace", "--trace")
            told = [made.write(None, ()), made.write(None, ())]  # type: ignore[arg-type]
            return told, made.close(), (place / "trace").read_bytes()

        return act

    compare(f"a trace in {content!r}", (target, fs), tmp_path, scene, (errno.ENOSPC, errno.EIO))


@pytest.mark.parametrize("broken", [False, True])
def test_a_target_that_is_a_pipe(broken: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    made = Plain(str(tmp_path / "fifo"), "--trace")
    assert made.regular is False and fcntl.fcntl(made.fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert made.write(None, ()) == ""  # type: ignore[arg-type]
    assert os.read(reader, 99) == b"[span"
    if broken:
        os.close(reader)
        assert made.write(None, ()) == "the trace is not written: EPIPE: broken pipe"  # type: ignore[arg-type]
        assert made.write(None, ()) == "" and made.close() == ""  # type: ignore[arg-type]
        return
    assert made.write(None, ()) == "" and made.close() == ""  # type: ignore[arg-type]
    assert os.read(reader, 99) == b",span]\n"
    os.close(reader)
