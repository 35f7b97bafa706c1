"""podman (Debian's) with conmon, as root; the runtime is given by name in containers.conf and by
path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import machine
from integration.engines.cases import IMAGE, Cases, Commands, box, run
from integration.engines.conftest import Seen
from integration.engines.host import Host
from integration.engines.podman import Podman

pytestmark = pytest.mark.needs_program("podman", "conmon", "catatonit")
LABEL = Podman.label
__all__ = ["box"]  # a fixture


@pytest.fixture(scope="module")
def by_name(host: Host, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Podman]:
    made = Podman(host, oci, oci_path)
    made.load(images[1])
    yield made


class TestByName(Cases):
    """With ``--runtime NAME`` errors come through the JSON log."""

    @pytest.fixture
    def engine(self, by_name: Podman) -> Podman:
        return by_name

    def test_preserved_descriptors(self, engine: Podman, seen: Seen) -> None:
        target = engine.host.path / "through"
        command = engine.argv(
            "run", "--rm", "--preserve-fds", "1", *engine.run_flags(), IMAGE, "/bin/sh", "-c", "echo in >&3"
        )
        done = engine.host.call("/bin/sh", "-c", f'exec 3>{target}; exec "$@"', "sh", *command)
        seen(exit_code=done.rc, written=target.read_text().strip())
        assert done.rc == 0 and target.read_text() == "in\n", done

    def test_without_cgroups(self, engine: Podman, oci: str, seen: Seen) -> None:
        if oci not in ("pyrunc", "crun"):
            pytest.skip(f"{oci} is not among podman's runtimes that can do without a cgroup")
        script = "cat /proc/self/cgroup; exit 4"
        done = engine.call("run", "--rm", "--network", "none", "--cgroups=disabled", IMAGE, "/bin/sh", "-c", script)
        seen(exit_code=done.rc)
        assert done.rc == 4 and "libpod" not in done.out, done

    @pytest.mark.skipif("pids" in machine.controllers(), reason="the pids controller is here")
    def test_unlimited_pids(self, engine: Podman, seen: Seen) -> None:
        """podman writes -1 as a limit of 0, with a spec version in which 0 is not yet a limit."""
        done = run(engine, "/bin/sh", "-c", "/bin/echo forked", flags=("--pids-limit=-1",))
        seen(exit_code=done.rc, out=done.out.strip())
        assert (done.rc, done.out) == (0, "forked\n"), done

    def test_privileged(self, engine: Podman, seen: Seen) -> None:
        script = "mkdir /m && mount -t tmpfs none /m && echo mounted"
        done = run(engine, "/bin/sh", "-c", script, flags=("--privileged",))
        seen(mounts="mounted" in done.out)
        assert "mounted" in done.out, done


class TestByPath(Commands):
    """With ``--runtime /PATH`` podman does not know the runtime's features, and searches its
    stderr."""

    @pytest.fixture
    def engine(self, by_name: Podman, oci_path: str) -> Iterator[Podman]:
        by_name.runtime, kept = oci_path, by_name.runtime
        by_name.label, label = "podman, runtime given by its path" + by_name.host.where, by_name.label
        yield by_name
        by_name.runtime, by_name.label = kept, label
