"""Memory pages: written in rounds, sent to a page server, restored on demand."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.checkpoint import support
from integration.checkpoint.support import Counter
from integration.harness import wait_until

Make = Callable[..., Counter]
MIB = 24


@pytest.fixture
def heavy(counter: Make, client: Path) -> Counter:
    """A container with MIB of memory, which it verifies with every number."""
    one = counter()
    one.runs(client, "memory", str(MIB))
    return one


def size(path: Path) -> int:
    """Bytes of memory pages in a directory of images, which may be a sparse file."""
    return sum(file.stat().st_blocks * 512 for file in path.glob("pages-*.img"))


def directory(one: Counter, name: str) -> tuple[str, ...]:
    return ("--image-path", str(one.made.box.path / name), *(support.IGNORE if one.peer else ()))


def call(one: Counter, verb: str, *flags: str, check: bool = True) -> Any:
    return one.made.call(verb, *flags, one.made.id, check=check, env=support.environment(), timeout=support.TIMEOUT)


# -- rounds ----------------------------------------------------------------------------------------


@pytest.mark.needs_dirty_tracking
def test_pre_dump(heavy: Counter) -> None:
    """Only the last round stops the container, and it writes only what has changed."""
    one = heavy
    one.run()
    for number in range(2):
        parent = ("--parent-path", f"../pre{number - 1}") if number else ()
        call(one, "checkpoint", "--pre-dump", *parent, *directory(one, f"pre{number}"))
        assert one.made.status == "running"
        one.go_on()
    first, second = (one.made.box.path / f"pre{number}" for number in range(2))
    assert size(first) > MIB << 20 > 4 * size(second)
    assert not (first / "inventory.img").exists() or not (first / "descriptors.json").exists()
    assert os.readlink(second / "parent") == "../pre0"
    one.checkpoint("--parent-path", "../pre1")
    assert one.gone() and os.readlink(one.images / "parent") == "../pre1"
    assert size(one.images) < MIB << 18
    last = one.numbers[-1]
    one.restore()
    one.go_on()
    assert one.numbers[0] == last + 1
    one.checkpoint("--leave-running")  # a complete checkpoint again
    assert size(one.images) > MIB << 20


@pytest.mark.needs_dirty_tracking
def test_a_failing_pre_dump_leaves_it_running(heavy: Counter) -> None:
    one = heavy
    one.run()
    place = one.made.box.path / "pre"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(place)], check=True)
    try:
        assert call(one, "checkpoint", "--pre-dump", *directory(one, "pre"), check=False).rc == 1
    finally:
        subprocess.run(["umount", str(place)], check=True)
    one.go_on()
    assert one.made.status == "running"


def test_pre_dump_needs_dirty_tracking(counter: Make) -> None:
    """It is refused if the kernel lacks dirty tracking, and nothing changes."""
    from integration.machine import tracks_dirty_memory

    if tracks_dirty_memory():
        pytest.skip("this kernel has it")
    one = counter()
    one.run()
    result = one.checkpoint("--pre-dump", check=False)
    assert result.rc == 1
    if not one.peer:
        assert "this kernel or CRIU lacks what is needed to track memory changes" in result.err
    one.go_on()


# -- the page server -------------------------------------------------------------------------------


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture
def helpers() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """``helpers(*arguments)``: start a criu beside the runtime; the remaining ones are killed at
    the end."""
    made: list[subprocess.Popen[bytes]] = []

    def start(*args: str) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen(["criu", *args], env=support.environment(), stdin=subprocess.DEVNULL))
        return made[-1]

    yield start
    for child in made:
        child.kill()
        child.wait()


def listens(port: int) -> bool:
    """Whether a socket listens, without connecting to it: a page server serves one connection."""
    lines = Path("/proc/net/tcp").read_text().split("\n")[1:]
    return any(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines if line)


def test_a_page_server(heavy: Counter, helpers: Callable[..., subprocess.Popen[bytes]]) -> None:
    """The pages go to the server, and the other images to the directory."""
    one, port = heavy, free_port()
    one.run()
    away = one.made.box.path / "away"
    away.mkdir()
    address = ("--address", "127.0.0.1", "--port", str(port))
    server = helpers("page-server", "-D", str(away), "-o", "server.log", *address)
    wait_until(lambda: listens(port), "the page server", support.TIMEOUT)
    one.checkpoint("--page-server", f"127.0.0.1:{port}")
    assert server.wait(support.TIMEOUT) == 0 and one.gone()
    assert size(away) > MIB << 20 and not size(one.images)
    for file in away.glob("pages-*.img"):
        file.rename(one.images / file.name)
    for file in away.glob("pagemap-*.img"):
        file.rename(one.images / file.name)
    last = one.numbers[-1]
    one.restore()
    one.go_on()
    assert one.numbers[0] == last + 1


def test_no_page_server(heavy: Counter) -> None:
    one = heavy
    one.run()
    result = one.checkpoint("--page-server", f"127.0.0.1:{free_port()}", check=False)
    assert result.rc == 1
    one.go_on()
    assert one.made.status == "running"


# -- lazily ----------------------------------------------------------------------------------------


class Lazy:
    """`checkpoint --lazy-pages` in the background, until its pages can be fetched."""

    def __init__(self, one: Counter) -> None:
        self.port, (self.status, theirs) = free_port(), os.pipe()
        flags = ("--lazy-pages", "--page-server", f"127.0.0.1:{self.port}", "--status-fd", str(theirs))
        runtime = one.made.box.runtime.argv("--root", str(one.made.box.root))
        argv = [*runtime, "checkpoint", *one.flags(), *flags, one.made.id]
        self.child = subprocess.Popen(
            argv, env=support.environment(), pass_fds=[theirs], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        os.close(theirs)

    def ready(self) -> bytes:
        """The data written to --status-fd."""
        with os.fdopen(self.status, "rb") as status:
            return status.read(1)


@pytest.mark.needs_cap("SYS_RESOURCE")  # without it CRIU cannot enlarge the pipe that it sends pages through
def test_lazy_pages(heavy: Counter, helpers: Callable[..., subprocess.Popen[bytes]]) -> None:
    one = heavy
    one.run()
    lazy = Lazy(one)
    assert lazy.ready() == b"\0"
    assert size(one.images) < MIB << 18
    last = one.numbers[-1]
    address = ("--address", "127.0.0.1", "--port", str(lazy.port))
    fetcher = helpers(
        "lazy-pages", "--page-server", *address, "-D", str(one.images), "-W", str(one.images), "-o", "lazy.log"
    )
    wait_until(lambda: (one.images / "lazy-pages.socket").exists(), "criu lazy-pages", support.TIMEOUT)
    one.made.bundle.config["linux"]["cgroupsPath"] += "x"  # the first one still exists
    again = Counter(one.made.box.container(bundle=one.made.bundle), "")
    one.made.bundle.config["process"]["args"] = ["/client"]  # not used by a restore
    again.images = one.images
    again.restore("--lazy-pages")
    again.go_on()
    assert lazy.child.wait(support.TIMEOUT) == 0, lazy.child.stderr
    assert fetcher.wait(support.TIMEOUT) == 0
    assert again.numbers[0] == last + 1


@pytest.mark.pyrunc_only("runc leaves criu and a frozen container behind")
def test_a_lazy_checkpoint_that_nobody_fetches(heavy: Counter) -> None:
    """After an interrupt the container continues, and no criu remains."""
    one = heavy
    one.run()
    lazy = Lazy(one)
    assert lazy.ready() == b"\0"
    lazy.child.send_signal(signal.SIGTERM)
    assert lazy.child.wait(support.TIMEOUT) != 0
    one.go_on()
    assert one.made.status == "running"
