"""The cases that podman and docker share, since their command lines are the same for all of
them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from integration import harness
from integration.engines import image
from integration.engines.conftest import Seen
from integration.engines.host import Done

IMAGE = image.REFERENCE
SPIN = 'trap "exit 9" TERM; trap "echo usr1" USR1; echo started; while :; do sleep 0.1; done'


def run(engine: Any, *args: str, flags: tuple[str, ...] = ()) -> Done:
    """Call ``run --rm`` in the foreground."""
    done: Done = engine.call("run", "--rm", *engine.run_flags(), *flags, IMAGE, *args)
    return done


def detached(engine: Any, name: str, *args: str, flags: tuple[str, ...] = ()) -> Done:
    """Call ``run -d``."""
    command = args or ("/bin/sh", "-c", SPIN)
    done: Done = engine.call("run", "-d", "--name", name, *engine.run_flags(), *flags, IMAGE, *command)
    assert done.rc == 0, done
    return done


def inspect(engine: Any, name: str, template: str) -> str:
    """A member of the output of ``inspect``."""
    return str(engine.call("inspect", "--format", template, name).out.strip())


def status(engine: Any, name: str) -> str:
    """The status: running, paused or exited."""
    return inspect(engine, name, "{{.State.Status}}")


def wait_exited(engine: Any, name: str) -> int:
    """Wait until a container exits; return its exit code."""
    harness.wait_until(lambda: status(engine, name) == "exited", f"{name} to exit", 20)
    return int(inspect(engine, name, "{{.State.ExitCode}}"))


@pytest.fixture
def box(engine: Any) -> Iterator[str]:
    """A running container that answers signals."""
    detached(engine, "p1")
    harness.wait_until(lambda: "started" in engine.call("logs", "p1").out, "the container to be ready", 20)
    yield "p1"
    engine.call("rm", "-f", "p1")


class Commands:
    """Foreground commands and the reports of their failures."""

    def test_run(self, engine: Any, seen: Seen) -> None:
        done = run(engine, "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
        seen(exit_code=done.rc, out=done.out.strip(), err=done.err.strip())
        assert (done.rc, done.out, done.err) == (3, "out\n", "err\n")

    def test_command_not_found(self, engine: Any, seen: Seen) -> None:
        done = run(engine, "/nonexistent")
        bare = run(engine, "nonexistent")
        seen(path=done.rc, name=bare.rc)
        assert done.rc == 127 and "no such file or directory" in done.err.lower(), done
        assert bare.rc == 127 and "executable file not found in $PATH" in bare.err, bare

    def test_command_not_executable(self, engine: Any, seen: Seen) -> None:
        done = run(engine, "/etc/not-executable")
        folder = run(engine, "/etc")
        seen(file=done.rc, directory=folder.rc)
        assert done.rc == 126 and "permission denied" in done.err.lower(), done
        assert folder.rc == 126, folder

    def test_wrong_option(self, engine: Any, seen: Seen) -> None:
        done = run(engine, "/bin/true", flags=("--no-such-option",))
        seen(exit_code=done.rc)
        assert done.rc == 125, done

    def test_exec(self, engine: Any, box: str, seen: Seen) -> None:
        done = engine.call("exec", box, "/bin/sh", "-c", "echo out; echo err >&2; exit 5")
        seen(exit_code=done.rc, out=done.out.strip())
        assert (done.rc, done.out, done.err) == (5, "out\n", "err\n")
        flags = ("-u", "1000:1000", "-w", "/tmp", "-e", "A=b")
        done = engine.call("exec", *flags, box, "/bin/sh", "-c", "id -u; id -g; pwd; echo $A")
        seen(as_user=done.out.split())
        assert done.out.split() == ["1000", "1000", "/tmp", "b"], done
        assert engine.call("exec", "-i", box, "/bin/cat", stdin="through\n").out == "through\n"

    def test_exec_failing(self, engine: Any, box: str, seen: Seen) -> None:
        missing = engine.call("exec", box, "/nonexistent")
        folder = engine.call("exec", box, "/etc")
        place = engine.call("exec", "-w", "/nonexistent", box, "/bin/true")
        seen(not_found=missing.rc, not_executable=folder.rc, no_such_directory=place.rc)
        assert missing.rc == engine.exec_missing, missing
        assert folder.rc == 126, folder
        assert place.rc == engine.exec_missing, place
        assert engine.call("exec", box, "/bin/true").rc == 0, "an exec after failed ones"


class Cases(Commands):
    """All other shared cases."""

    def test_detached(self, engine: Any, box: str, seen: Seen) -> None:
        listed = engine.call("ps", "--format", "{{.Names}}").out.split()
        seen(status=status(engine, box), listed=listed)
        assert status(engine, box) == "running" and listed == [box]

    def test_run_on_a_terminal(self, engine: Any, seen: Seen) -> None:
        script = "tty; read x; echo got $x; exit 4"
        command = ["run", "--rm", "-it", *engine.run_flags(), IMAGE, "/bin/sh", "-c", script]
        done = engine.host.call_on_terminal(*engine.argv(*command), send=b"hello\n")
        seen(exit_code=done.rc)
        assert done.rc == 4 and "/dev/pts/0" in done.out and "got hello" in done.out, done

    def test_exec_on_a_terminal(self, engine: Any, box: str, seen: Seen) -> None:
        script = "tty; read x; echo got $x; exit 6"
        done = engine.host.call_on_terminal(*engine.argv("exec", "-it", box, "/bin/sh", "-c", script), send=b"hello\n")
        seen(exit_code=done.rc)
        assert done.rc == 6 and "/dev/pts/" in done.out and "got hello" in done.out, done

    def test_exec_detached(self, engine: Any, box: str, seen: Seen) -> None:
        done = engine.call("exec", "-d", box, "/bin/sh", "-c", "echo made >/tmp/by-exec")
        harness.wait_until(lambda: engine.call("exec", box, "/bin/cat", "/tmp/by-exec").out == "made\n", "the file", 20)
        seen(exit_code=done.rc)
        assert done.rc == 0, done

    def test_kill(self, engine: Any, box: str, seen: Seen) -> None:
        assert engine.call("kill", "-s", "USR1", box).rc == 0
        harness.wait_until(lambda: "usr1" in engine.call("logs", box).out, "the signal's effect", 20)
        assert engine.call("kill", box).rc == 0
        code = wait_exited(engine, box)
        again = engine.call("kill", box)
        seen(exit_code=code, kill_after_the_end="fails" if again.rc else "works")
        assert code == 137 and again.rc != 0, again

    def test_stop(self, engine: Any, box: str, seen: Seen) -> None:
        done = engine.call("stop", "-t", "5", box)
        seen(exit_code=done.rc, of_the_container=wait_exited(engine, box))
        assert done.rc == 0 and wait_exited(engine, box) == 9, done

    def test_stop_of_a_container_that_does_not_end(self, engine: Any, seen: Seen) -> None:
        detached(engine, "p2", "/bin/sh", "-c", 'trap "" TERM; while :; do sleep 0.1; done')
        done = engine.call("stop", "-t", "1", "p2")
        seen(exit_code=done.rc, of_the_container=wait_exited(engine, "p2"))
        assert done.rc == 0 and wait_exited(engine, "p2") == 137, done
        assert engine.call("rm", "p2").rc == 0

    def test_pause_and_resume(self, engine: Any, box: str, seen: Seen) -> None:
        assert engine.call("pause", box).rc == 0
        paused = status(engine, box)
        refused = engine.call("exec", box, "/bin/true").rc
        assert engine.call("unpause", box).rc == 0
        seen(paused=paused, exec_then="fails" if refused else "works", after=status(engine, box))
        assert paused == "paused" and refused != 0 and status(engine, box) == "running"

    def test_stats_and_top(self, engine: Any, box: str, seen: Seen) -> None:
        stats = engine.call("stats", "--no-stream", "--format", "{{.Name}}", box)
        top = engine.call("top", box)
        seen(stats=stats.out.strip(), top=top.rc)
        assert stats.rc == 0 and stats.out.strip() == box, stats
        assert top.rc == 0 and "started" in top.out, top

    def test_remove_by_force(self, engine: Any, seen: Seen) -> None:
        detached(engine, "p3")
        refused, done = engine.call("rm", "p3"), engine.call("rm", "-f", "p3")
        seen(plain="fails" if refused.rc else "works", by_force=done.rc)
        assert refused.rc != 0 and done.rc == 0
        assert engine.call("ps", "-aq").out == ""

    def test_health_check(self, engine: Any, seen: Seen) -> None:
        flags = ("--health-interval", engine.health_interval, "--health-retries", "1")
        detached(engine, "h1", flags=("--health-cmd", "true", *flags))
        detached(engine, "h2", flags=("--health-cmd", "false", *flags))
        found = [engine.settled_health(name) for name in ("h1", "h2")]
        engine.call("rm", "-f", "h1", "h2")
        seen(states=found)
        assert found == ["healthy", "unhealthy"]

    def test_restart(self, engine: Any, box: str, seen: Seen) -> None:
        before = inspect(engine, box, "{{.State.Pid}}")
        done = engine.call("restart", "-t", "1", box)
        seen(exit_code=done.rc, status=status(engine, box))
        assert done.rc == 0 and inspect(engine, box, "{{.State.Pid}}") != before
        assert engine.call("stop", "-t", "1", box).rc == 0
        assert engine.call("start", box).rc == 0 and status(engine, box) == "running"

    def test_restart_policy(self, engine: Any, seen: Seen) -> None:
        detached(engine, "r1", "/bin/sh", "-c", "exit 3", flags=("--restart", "on-failure:2"))
        count = "{{.RestartCount}}"
        harness.wait_until(lambda: inspect(engine, "r1", count) == "2", "two restarts", 20)
        seen(restarts=inspect(engine, "r1", count), exit_code=wait_exited(engine, "r1"))
        engine.call("rm", "-f", "r1")

    def test_logs(self, engine: Any, seen: Seen) -> None:
        detached(engine, "l1", "/bin/sh", "-c", "echo out; echo err >&2; seq 1 2000")
        wait_exited(engine, "l1")
        done = engine.call("logs", "l1")
        engine.call("rm", "-f", "l1")
        seen(out_lines=len(done.out.splitlines()), err=done.err.strip())
        assert done.out.splitlines()[-1] == "2000" and len(done.out.splitlines()) == 2001 and done.err == "err\n"

    def test_user(self, engine: Any, seen: Seen) -> None:
        done = run(engine, "/bin/sh", "-c", "id -u; id -G; touch /x", flags=("-u", "1000:1000", "--group-add", "1234"))
        seen(out=done.out.split())
        assert done.out.split() == ["1000", "1000", "1234"] and "Permission denied" in done.err, done

    def test_read_only_root(self, engine: Any, seen: Seen) -> None:
        flags = ("--read-only", "--tmpfs", "/scratch:size=1m")
        done = run(engine, "/bin/sh", "-c", "touch /scratch/x && echo ok; touch /x", flags=flags)
        seen(exit_code=done.rc, out=done.out.strip())
        assert done.rc == 1 and done.out == "ok\n" and "Read-only file system" in done.err, done

    def test_volumes(self, engine: Any, seen: Seen) -> None:
        folder = engine.host.path / "volume"
        folder.mkdir(exist_ok=True)
        (folder / "file").write_text("content\n")
        flags = ("-v", f"{folder}:/ro:ro", "-v", f"{folder}:/rw", "-v", "named:/named")
        done = run(
            engine, "/bin/sh", "-c", "cat /ro/file; touch /rw/made; echo x >/named/y; touch /ro/new", flags=flags
        )
        kept = run(engine, "/bin/cat", "/named/y", flags=("-v", "named:/named"))
        engine.call("volume", "rm", "named")
        seen(out=done.out.strip(), made=(folder / "made").exists(), kept=kept.out.strip())
        assert done.rc == 1 and done.out == "content\n" and "Read-only file system" in done.err, done
        assert (folder / "made").exists() and not (folder / "new").exists() and kept.out == "x\n"

    def test_init(self, engine: Any, seen: Seen) -> None:
        done = run(engine, "/bin/sh", "-c", "tr '\\0' ' ' </proc/1/cmdline; echo; exit 8", flags=("--init",))
        seen(exit_code=done.rc, init=engine.init in done.out)
        assert done.rc == 8 and engine.init in done.out, done

    def test_seccomp_profile(self, engine: Any, seen: Seen) -> None:
        profile = image.make_profile(engine.host.path / "seccomp.json")
        probe = "chmod 700 /tmp; echo $?; grep Seccomp: /proc/self/status"
        done = run(engine, "/bin/sh", "-c", probe, flags=("--security-opt", f"seccomp={profile}"))
        seen(out=done.out.split())
        assert done.out.split() == ["1", "Seccomp:", "2"] and "Permission denied" in done.err, done
        off = run(engine, "/bin/sh", "-c", probe, flags=("--security-opt", "seccomp=unconfined"))
        seen(unconfined=off.out.split())
        assert off.out.split() == ["0", "Seccomp:", "0"], off

    def test_capabilities(self, engine: Any, seen: Seen) -> None:
        done = run(engine, "/bin/sh", "-c", "grep Cap[EBP] /proc/self/status", flags=("--cap-drop", "all"))
        some = run(
            engine, "/bin/grep", "CapEff", "/proc/self/status", flags=("--cap-drop", "all", "--cap-add", "chown")
        )
        seen(dropped=sorted(set(done.out.split()[1::2])), added=some.out.split()[1:])
        assert set(done.out.split()[1::2]) == {"0" * 16} and some.out.split()[1] == "1".rjust(16, "0"), (done, some)

    def test_hostname_and_ulimit(self, engine: Any, seen: Seen) -> None:
        flags = ("--hostname", "boxed", "--ulimit", "nofile=512:1024", "--ulimit", "nproc=1024:4096")
        done = run(engine, "/bin/sh", "-c", "hostname; ulimit -Sn; ulimit -Hn", flags=flags)
        seen(out=done.out.split())
        assert done.out.split() == ["boxed", "512", "1024"], done

    @pytest.mark.needs_controller("memory", "pids")
    def test_limits(self, engine: Any, seen: Seen) -> None:
        show = "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"
        done = run(engine, "/bin/sh", "-c", show, flags=("-m", "64m", "--pids-limit", "33"))
        seen(out=done.out.split())
        assert done.out.split() == [str(64 << 20), "33"], done

    def test_config_is_kept(self, engine: Any, box: str, seen: Seen) -> None:
        found = json.loads(engine.call("inspect", box).out)[0]
        seen(running=found["State"]["Running"], paused=found["State"]["Paused"])
        assert found["State"]["Running"] is True and found["State"]["Pid"] > 0

    def test_nothing_left(self, engine: Any, seen: Seen) -> None:
        left = engine.call("ps", "-aq").out.split()
        monitors = engine.host.wait_gone("conmon", "containerd-shim")
        groups = [path for path in engine.host.cgroups() if not path.name.startswith("pyt-")]
        seen(containers=len(left), monitors=len(monitors))
        assert not left and not monitors, (left, monitors)
        assert not [path for path in groups if (path / "cgroup.procs").read_text()], groups
