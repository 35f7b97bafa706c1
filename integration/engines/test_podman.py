"""podman (Debian's) with conmon, as root; the runtime is given by name in containers.conf and by
path."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import machine
from integration.engines import checkpoint
from integration.engines.cases import IMAGE, Cases, Commands, box, detached, run, status
from integration.engines.conftest import Seen
from integration.engines.host import Host
from integration.engines.podman import Podman

pytestmark = pytest.mark.needs_program("podman", "conmon", "catatonit")
LABEL = Podman.label
__all__ = ["box"]  # a fixture


@pytest.fixture(scope="module")
def by_name(host: Host, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Podman]:
    criu = checkpoint.provide(host)
    made = Podman(host, oci, oci_path)
    made.criu = criu
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

    @pytest.fixture
    def counts(self, engine: Podman) -> Iterator[checkpoint.Count]:
        """A running container that counts."""
        reason = checkpoint.why_not(engine.host)
        if reason:
            pytest.skip(reason)
        detached(engine, "k1", *checkpoint.COMMAND, flags=("--annotation", engine.criu))
        count = checkpoint.Count(lambda: engine.call("exec", "k1", *checkpoint.SHOW))
        count.goes_on()
        yield count
        engine.call("rm", "-f", "-t", "0", "k1")

    def test_checkpoint(self, engine: Podman, counts: checkpoint.Count, seen: Seen) -> None:
        done = engine.call("container", "checkpoint", "k1")
        assert done.rc == 0, done
        stopped = status(engine, "k1")
        assert stopped == "exited"
        seen(checkpoint=done.rc, then=stopped)
        self.restore(engine, counts, seen, "k1")

    def restore(self, engine: Podman, counts: checkpoint.Count, seen: Seen, *args: str) -> None:
        """Restore the container; it counts on."""
        done = engine.call("container", "restore", *args)
        assert done.rc == 0, done
        goes_on = counts.goes_on()
        seen(restore=done.rc, after=status(engine, "k1"), goes_on=goes_on)
        assert goes_on and status(engine, "k1") == "running"

    def test_checkpoint_while_it_runs(self, engine: Podman, counts: checkpoint.Count, seen: Seen) -> None:
        done = engine.call("container", "checkpoint", "--leave-running", "k1")
        assert done.rc == 0, done
        goes_on = counts.goes_on()
        seen(exit_code=done.rc, then=status(engine, "k1"), goes_on=goes_on)
        assert goes_on and status(engine, "k1") == "running"

    def test_checkpoint_to_a_file(self, engine: Podman, counts: checkpoint.Count, seen: Seen) -> None:
        archive = engine.host.path / "k1.tar.gz"
        done = engine.call("container", "checkpoint", "--export", str(archive), "k1")
        assert done.rc == 0 and engine.call("rm", "k1").rc == 0, done
        seen(checkpoint=done.rc)
        self.restore(engine, counts, seen, "--import", str(archive))

    @pytest.mark.needs_dirty_tracking
    def test_checkpoint_in_two_rounds(self, engine: Podman, counts: checkpoint.Count, seen: Seen) -> None:
        first = engine.call("container", "checkpoint", "--pre-checkpoint", "k1")
        assert first.rc == 0 and status(engine, "k1") == "running" and counts.goes_on(), first
        second = engine.call("container", "checkpoint", "--with-previous", "k1")
        assert second.rc == 0 and status(engine, "k1") == "exited", second
        seen(first=first.rc, second=second.rc)
        self.restore(engine, counts, seen, "k1")


class TestByPath(Commands):
    """With ``--runtime /PATH`` podman does not know the runtime's features, and searches its
    stderr."""

    @pytest.fixture
    def engine(self, by_name: Podman, oci_path: str) -> Iterator[Podman]:
        by_name.runtime, kept = oci_path, by_name.runtime
        by_name.label, label = "podman, runtime given by its path" + by_name.host.where, by_name.label
        yield by_name
        by_name.runtime, by_name.label = kept, label
