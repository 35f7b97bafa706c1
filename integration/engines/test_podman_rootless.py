"""podman as a user other than root: the runtime is root of podman's user namespace, and has no
writable cgroup."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.engines.cases import SPIN, detached, run, status, wait_exited
from integration.engines.conftest import Seen
from integration.engines.contrib import drop_in
from integration.engines.host import Host
from integration.engines.podman import CONTAINERS, POLICY, STORAGE, Podman

UID, FIRST, COUNT = 43210, 700000, 65536
pytestmark = pytest.mark.needs_program("podman", "conmon", "newuidmap", "setpriv")
LABEL = "podman, rootless"


class Rootless(Podman):
    """podman as the user `pyrunctest`, who exists only in this sandbox."""

    def __init__(self, host: Host, runtime: str, path: str) -> None:
        self.host, self.runtime = host, runtime
        self.label = LABEL + host.where
        self.home = host.path / "home"
        files = {
            "passwd": Path("/etc/passwd").read_text() + f"pyrunctest:x:{UID}:{UID}::{self.home}:/bin/sh\n",
            "group": Path("/etc/group").read_text() + f"pyrunctest:x:{UID}:\n",
            "subuid": f"pyrunctest:{FIRST}:{COUNT}\n",
            "subgid": f"pyrunctest:{FIRST}:{COUNT}\n",
        }
        etc = host.path / "etc"
        config = self.home / ".config/containers"
        for folder in (etc, config, self.home / "run"):
            folder.mkdir(parents=True)
        # podman needs shared mounts, except for the cgroups, which belong to this sandbox.
        assert host.call("mount", "--make-rshared", "/").rc == 0
        for name, text in files.items():
            if not os.path.exists(f"/etc/{name}"):
                pytest.skip(f"no /etc/{name} to cover")
            (etc / name).write_text(text)
            assert host.call("mount", "--bind", str(etc / name), f"/etc/{name}").rc == 0
        (config / "containers.conf").write_text(
            CONTAINERS + drop_in("podman/pyrunc.conf", path).replace("[engine]", "")
        )
        (config / "storage.conf").write_text(STORAGE.format(path=self.home))
        (config / "policy.json").write_text(POLICY)
        (config / "registries.conf").write_text("unqualified-search-registries = ['docker.io']\n")
        for at, _, names in os.walk(self.home):
            for entry in (at, *(os.path.join(at, name) for name in names)):
                os.chown(entry, UID, UID)
        (self.home / "run").chmod(0o700)
        self.version = host.call("podman", "--version").out.split()[-1]
        self.versions = {"podman": self.version}

    def argv(self, *args: str) -> list[str]:
        """The command line of one call as the user, without root's environment."""
        config = self.home / ".config/containers"
        env = {
            "HOME": self.home,
            "USER": "pyrunctest",
            "XDG_RUNTIME_DIR": self.home / "run",
            "CONTAINERS_CONF": config / "containers.conf",
            "CONTAINERS_STORAGE_CONF": config / "storage.conf",
            "PATH": self.host.env["PATH"],
        }
        user = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=-all"]
        return [*user, "env", "-i", "-C", "/", *(f"{key}={value}" for key, value in env.items()), *super().argv(*args)]

    def load(self, archive: Path) -> None:
        """Load a docker archive from a path that the user can read."""
        copy = self.home / "image.tar"
        shutil.copy(archive, copy)
        copy.chmod(0o644)
        super().load(copy)

    def run_flags(self) -> list[str]:
        """Flags of every run; no cgroup parent, because the user cannot write to any cgroup."""
        return ["--network", "none"]


@pytest.fixture(scope="module")
def engine(host: Host, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Rootless]:
    made = Rootless(host, oci, oci_path)
    made.load(images[1])
    yield made


@pytest.fixture
def box(engine: Rootless) -> Iterator[str]:
    detached(engine, "r1", "/bin/sh", "-c", SPIN)
    harness.wait_until(lambda: "started" in engine.call("logs", "r1").out, "the container to be ready", 20)
    yield "r1"
    engine.call("rm", "-f", "r1")


def test_run(engine: Rootless, seen: Seen) -> None:
    done = run(engine, "/bin/sh", "-c", "id -u; cat /proc/self/uid_map; exit 3")
    rows = [line.split() for line in done.out.splitlines()]
    seen(exit_code=done.rc, uid=rows[:1])
    assert done.rc == 3, done
    assert rows == [["0"], ["0", str(UID), "1"], ["1", str(FIRST), str(COUNT)]], done


def test_as_another_user(engine: Rootless, seen: Seen) -> None:
    done = run(engine, "/bin/sh", "-c", "id -u; id -g; touch /tmp/x && stat -c %u /tmp/x", flags=("-u", "1000:1000"))
    seen(ids=done.out.split())
    assert done.out.split() == ["1000", "1000", "1000"], done


def test_command_not_found(engine: Rootless, seen: Seen) -> None:
    missing, folder = run(engine, "/nonexistent"), run(engine, "/etc")
    seen(not_found=missing.rc, not_executable=folder.rc)
    assert (missing.rc, folder.rc) == (127, 126), (missing, folder)


def test_detached_exec_kill(engine: Rootless, box: str, seen: Seen) -> None:
    assert status(engine, box) == "running"
    done = engine.call("exec", box, "/bin/sh", "-c", "id -u; exit 5")
    signalled = engine.call("kill", "-s", "USR1", box).rc
    harness.wait_until(lambda: "usr1" in engine.call("logs", box).out, "the signal to arrive", 20)
    stopped = engine.call("stop", "-t", "10", box).rc
    code = wait_exited(engine, box)
    seen(exec=(done.rc, done.out.strip()), signalled=signalled, stopped=stopped, exit_code=code)
    assert (done.rc, done.out.strip(), signalled, stopped, code) == (5, "0", 0, 0, 9), done


def test_nested_user_namespace(engine: Rootless, seen: Seen) -> None:
    """With keep-id the runtime, root of podman's user namespace, creates another one with several
    mappings."""
    done = run(engine, "/bin/sh", "-c", "id -u; wc -l < /proc/self/uid_map", flags=("--userns=keep-id",))
    seen(exit_code=done.rc, out=done.out.split())
    assert done.rc == 0 and done.out.split() == [str(UID), "3"], done


def test_volume(engine: Rootless, seen: Seen) -> None:
    volume = engine.home / "volume"
    volume.mkdir(mode=0o700)
    os.chown(volume, UID, UID)
    done = run(engine, "/bin/sh", "-c", "echo through > /v/file", flags=("-v", f"{volume}:/v"))
    seen(exit_code=done.rc)
    assert done.rc == 0 and (volume / "file").read_text() == "through\n", done
    assert (volume / "file").stat().st_uid == UID
