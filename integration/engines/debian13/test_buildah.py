"""buildah 1.39, as root and as another user: its builds and its ``run``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.builds import Builder, Builds
from integration.engines.cases import IMAGE
from integration.engines.conftest import Seen
from integration.engines.debian13.conftest import WHERE, sandbox
from integration.engines.host import Done
from integration.engines.podman import Podman
from integration.engines.test_podman_rootless import UID, Rootless

LABELS = {"root": "buildah" + WHERE, "rootless": "buildah, rootless" + WHERE}


class Buildah(Builder):
    """buildah with the files, the storage and the user of a podman."""

    def __init__(self, podman: Podman, runtime: str) -> None:
        self.podman, self.host, self.runtime = podman, podman.host, runtime
        self.rootless = isinstance(podman, Rootless)
        self.label = LABELS["rootless" if self.rootless else "root"]
        version = self.call("--version").out.split()[2]
        self.versions = {"buildah": version, "runc": self.host.call("runc", "--version").out.split()[2]}
        self.flags = ["--runtime", runtime, "--isolation", "oci"]

    @property
    def builds(self) -> Path:
        """The directory of the contexts, which the user can read."""
        return (self.podman.home if isinstance(self.podman, Rootless) else self.host.path) / "builds"

    def own(self, path: Path) -> None:
        """Give a file or a directory with its files to the user."""
        if self.rootless:
            for one in (path.parent, path, *(path.iterdir() if path.is_dir() else [])):
                os.chown(one, UID, UID)

    def argv(self, *args: str) -> list[str]:
        """The command line of one call: podman's, with another program."""
        words = self.podman.argv()
        return [*words[: words.index("podman")], "buildah", *args]

    def call(self, *args: str) -> Done:
        """Call buildah."""
        return self.host.call(*self.argv(*args))

    def build_words(self, folder: Path, *flags: str) -> list[str]:
        """The command line of one build."""
        return self.argv("build", *self.flags, "--network=none", "--layers=false", *flags, str(folder))

    def run(self, *args: str, flags: tuple[str, ...] = ()) -> Done:
        """Run a command in the working container."""
        return self.call("run", *self.flags, "--network=none", *flags, "w", "--", *args)

    def states(self) -> list[str]:
        """Containers in the runtimes' state directories, and working containers but `w`."""
        left = set(self.call("containers", "--format", "{{.ContainerName}}").out.split())
        return [*super().states(), *sorted(left - {"w"})]


@pytest.fixture(scope="module", params=list(LABELS))
def engine(request: pytest.FixtureRequest, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Buildah]:
    with sandbox(f"buildah13-{request.param}-{oci}") as host:
        podman = (Rootless if request.param == "rootless" else Podman)(host, oci, oci_path)
        podman.load(images[1])
        made = Buildah(podman, oci_path)
        done = made.call("from", "--name", "w", IMAGE)
        assert done.rc == 0, done
        yield made


class TestBuilds(Builds):
    """buildah build."""


class TestRun:
    """buildah run, in a working container."""

    def test_runtime_is_the_one_asked_for(self, engine: Buildah, seen: Seen) -> None:
        done = engine.call("run", "--runtime", "/nonexistent", "--network=none", "w", "--", "/bin/true")
        seen(exit_code=done.rc)
        assert done.rc != 0 and "/nonexistent" in done.err, done

    def test_exit_code(self, engine: Buildah, seen: Seen) -> None:
        done = engine.run("/bin/sh", "-c", "echo out; echo err >&2; exit 5")
        seen(exit_code=done.rc, out=done.out.strip())
        assert (done.rc, done.out) == (5, "out\n") and "err\n" in done.err, done

    def test_changes_are_kept(self, engine: Buildah, seen: Seen) -> None:
        first = engine.run("/bin/sh", "-c", "echo kept >/tmp/kept")
        done = engine.run("/bin/cat", "/tmp/kept")
        seen(exit_code=first.rc, out=done.out.strip())
        assert first.rc == 0 and done.out == "kept\n", done

    def test_user_and_volume(self, engine: Buildah, seen: Seen) -> None:
        folder = engine.builds / "volume"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file").write_text("content\n")
        engine.own(folder)
        flags = ("--user", "1000:1000", "--volume", f"{folder}:/v:ro")
        done = engine.run("/bin/sh", "-c", "id -u; id -g; cat /v/file; echo x >/v/file", flags=flags)
        seen(out=done.out.split())
        assert done.out.split() == ["1000", "1000", "content"] and "Read-only file system" in done.err, done

    def test_terminal(self, engine: Buildah, seen: Seen) -> None:
        words = engine.argv("run", *engine.flags, "--network=none", "--tty", "w", "--", "/bin/sh", "-c")
        done = engine.host.call_on_terminal(*words, "tty; read x; echo got $x; exit 6", send=b"hello\n")
        seen(exit_code=done.rc)
        assert done.rc == 6 and "/dev/pts/0" in done.out and "got hello" in done.out, done

    def test_capabilities(self, engine: Buildah, seen: Seen) -> None:
        done = engine.run("/bin/grep", "CapEff", "/proc/self/status", flags=("--cap-drop", "CAP_CHOWN"))
        seen(effective=done.out.split()[1:])
        assert done.rc == 0 and len(done.out.split()) == 2, done
