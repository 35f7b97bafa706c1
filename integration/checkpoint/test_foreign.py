"""Images from other runtimes, and images for other runtimes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.checkpoint import support
from integration.checkpoint.support import Counter
from integration.harness import REPO, Runtime

pytestmark = pytest.mark.pyrunc_only("both sides are named here")
Make = Callable[..., Counter]
PLACE = Path(os.environ.get("PYRUNC_TEST_PEERS") or REPO / "build/peers") / "bin"
PEERS = {"runc": PLACE / "runc-new", "crun": PLACE / "crun"}


@contextmanager
def by(one: Counter, name: str) -> Iterator[None]:
    """Pass the container's calls to a peer."""
    path = PEERS[name]
    if not os.access(path, os.X_OK):
        pytest.skip(f"no {name}: bench/peers.sh gets one")
    box = one.made.box
    ours, box.runtime = box.runtime, Runtime(str(path))
    links = box.path / "libraries"
    links.mkdir(exist_ok=True)
    if name == "crun":
        one.environment = support.libraries_for_crun(links)
        if not (links / "libcriu.so.2").exists():
            pytest.skip("no libcriu for crun")
    try:
        yield
    finally:
        box.runtime, one.environment = ours, {}
        if (box.root / ".empty-directory").exists():  # crun keeps it
            (box.root / ".empty-directory").rmdir()


def binds(one: Counter, tmp_path: Path) -> None:
    """A read-only bind mount in addition to the default configuration."""
    (tmp_path / "name").write_text("bound")
    one.made.bundle.config["mounts"].append(
        {"destination": "/data", "source": str(tmp_path), "type": "bind", "options": ["bind", "ro"]}
    )


@pytest.mark.parametrize("name", PEERS)
def test_from_another_runtime(counter: Make, name: str, tmp_path: Path) -> None:
    """Mounts, masked files and stdio are found under the peer's names."""
    one = counter()
    binds(one, tmp_path)
    with by(one, name):
        one.run()
        one.checkpoint()
    last = one.numbers[-1]
    one.restore()
    one.go_on()
    assert one.numbers[0] == last + 1
    assert one.exec("cat /data/name; touch /data/x 2>&1; true").startswith("bound")
    assert not (tmp_path / "x").exists()
    assert one.exec("echo x >/proc/keys 2>/dev/null; wc -c </proc/keys") == "0\n"
    assert one.exec("ls -A /sys/firmware; touch /sys/firmware/x 2>&1; true").endswith("Read-only file system\n")


@pytest.mark.parametrize("name", PEERS)
def test_for_another_runtime(counter: Make, name: str, tmp_path: Path) -> None:
    """runc uses other names for masked files, so a container for it has none."""
    one = counter(edits={"/linux/maskedPaths": []} if name == "runc" else {})
    binds(one, tmp_path)
    one.run()
    one.checkpoint()
    last = one.numbers[-1]
    with by(one, name):
        one.restore()
        one.go_on()
        assert one.numbers[0] == last + 1
        assert one.exec("cat /data/name") == "bound"
        one.made.kill("KILL")
        one.made.delete("--force")
