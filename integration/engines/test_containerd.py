"""containerd with ctr: the shim's calls of the runtime, without limits that need controllers.

Tested with Debian's containerd 1.x and the current 2.x that ``make test-containerd`` builds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import harness, machine
from integration.engines import checkpoint, image
from integration.engines.conftest import Seen, sandbox
from integration.engines.containerd import OFF_2, Containerd
from integration.engines.host import Done

pytestmark = pytest.mark.needs_program("containerd", "ctr")
LABEL = Containerd.label
BINS = os.environ.get("PYRUNC_ENGINES_BIN", "")


# The other shim, in Rust; containerd finds it by the name of its own.
RUST = f"{BINS}/containerd-shim-runc-v2-rs"
RUST_LABEL = "containerd 2.x with its Rust shim"
KINDS = ["1", "2", "rust"][: 1 + bool(BINS) + Path(RUST).exists()]


@pytest.fixture(scope="module", params=KINDS)
def engine(request: pytest.FixtureRequest, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Containerd]:
    folder = "" if request.param == "1" else f"{BINS}/"
    with sandbox(f"containerd{request.param}-{oci}") as host:
        if folder:
            host.env["PATH"] = f"{folder}:{host.env['PATH']}"  # for the shim of the same version
        if request.param == "rust":
            (host.path / "shim").mkdir()
            (host.path / "shim/containerd-shim-runc-v2").symlink_to(RUST)
            host.env["PATH"] = f"{host.path}/shim:{host.env['PATH']}"
        criu = checkpoint.provide(host)
        made = Containerd(host, oci_path, off=OFF_2 if folder else ["io.containerd.grpc.v1.cri"], folder=folder)
        made.criu = criu
        if request.param == "rust":
            made.label = RUST_LABEL
            made.versions["shim"] = Path(f"{BINS}/../built/containerd-shim-runc-v2-rs").read_text().strip()
        made.load(images[0])
        yield made


def exit_code(done: Done) -> int:
    """The exit status that ``task delete`` reports in a warning."""
    found = re.search(r"non-zero exit code (\d+)", done.err)
    return int(found[1]) if found and done.rc == 0 else -done.rc


@pytest.fixture
def box(engine: Containerd) -> Iterator[str]:
    """A running container."""
    done = engine.detached("d1")
    assert done.rc == 0, done
    yield "d1"
    engine.remove("d1")


def test_run(engine: Containerd, seen: Seen) -> None:
    done = engine.run("/bin/sh", "-c", "echo out; echo err >&2; exit 7")
    seen(exit_code=done.rc, out=done.out.strip(), err=done.err.strip())
    assert (done.rc, done.out, done.err) == (7, "out\n", "err\n")


def test_run_on_a_terminal(engine: Containerd, seen: Seen) -> None:
    args = engine.run_args("--rm", "-t", id="t1", args=("/bin/sh", "-c", "tty; read x; echo got $x; exit 6"))
    done = engine.host.call_on_terminal(*engine.words(*args), send=b"hello\n")
    seen(exit_code=done.rc, terminal="/dev/pts/0" in done.out)
    assert done.rc == 6 and "/dev/pts/0" in done.out and "got hello" in done.out, done


def test_command_not_found(engine: Containerd, seen: Seen) -> None:
    done = engine.run("/nonexistent")
    seen(exit_code=done.rc, says_why="no such file or directory" in done.err)
    assert done.rc == 1 and "/nonexistent" in done.err and "no such file or directory" in done.err, done
    bare = engine.run("nonexistent")
    assert bare.rc == 1 and "executable file not found in $PATH" in bare.err, bare


def test_command_not_executable(engine: Containerd, seen: Seen) -> None:
    done = engine.run("/etc/not-executable")
    seen(exit_code=done.rc, says_why="permission denied" in done.err)
    assert done.rc == 1 and "permission denied" in done.err, done


def test_detached(engine: Containerd, box: str, seen: Seen) -> None:
    seen(status=engine.status(box))
    assert engine.status(box) == "RUNNING"
    assert engine.host.listdir("/run/containerd/runc/default") == [box]


def test_exec(engine: Containerd, box: str, seen: Seen) -> None:
    done = engine.exec(box, "/bin/sh", "-c", "echo out; echo err >&2; exit 5")
    seen(exit_code=done.rc, out=done.out.strip())
    assert (done.rc, done.out, done.err) == (5, "out\n", "err\n")
    done = engine.exec(box, "/bin/sh", "-c", "id -u; id -g; pwd", flags=("--cwd", "/tmp", "--user", "1000:1000"))
    seen(as_user=done.out.split())
    assert done.out.split() == ["1000", "1000", "/tmp"]
    assert engine.ctr("task", "exec", "--exec-id", "i", box, "/bin/cat", stdin="through\n").out == "through\n"


def test_exec_failing(engine: Containerd, box: str, seen: Seen) -> None:
    done = engine.exec(box, "/nonexistent")
    seen(not_found=done.rc)
    assert done.rc == 1 and "no such file or directory" in done.err, done
    done = engine.exec(box, "/etc")
    seen(not_executable=done.rc)
    assert done.rc == 1 and "permission denied" in done.err, done
    assert engine.exec(box, "/bin/true").rc == 0, "an exec after a failed one"


def test_exec_on_a_terminal(engine: Containerd, box: str, seen: Seen) -> None:
    command = ["task", "exec", "-t", "--exec-id", "x", box, "/bin/sh", "-c", "tty; read x; echo got $x; exit 6"]
    done = engine.host.call_on_terminal(*engine.words(*command), send=b"hello\n")
    seen(exit_code=done.rc)
    assert done.rc == 6 and "/dev/pts/0" in done.out and "got hello" in done.out, done


def test_exec_detached_and_killed(engine: Containerd, box: str, seen: Seen) -> None:
    assert engine.ctr("task", "exec", "-d", "--exec-id", "e2", box, "/bin/sleep", "77").rc == 0
    before = len(engine.ctr("task", "ps", box).out.splitlines())
    assert engine.ctr("task", "kill", "--exec-id", "e2", "-s", "KILL", box).rc == 0
    harness.wait_until(lambda: len(engine.ctr("task", "ps", box).out.splitlines()) < before, "the exec to end")
    seen(status=engine.status(box))
    assert engine.status(box) == "RUNNING"


def test_processes(engine: Containerd, box: str, seen: Seen) -> None:
    ps = engine.ctr("task", "ps", box)
    seen(exit_code=ps.rc)
    assert ps.rc == 0 and len(ps.out.splitlines()) >= 2 and ps.out.splitlines()[1].split()[0].isdigit(), ps


def test_metrics(engine: Containerd, box: str, seen: Seen) -> None:
    if engine.label == RUST_LABEL and not Path("/proc/self/cgroup").read_text().startswith("0::"):
        pytest.skip("this shim reads only the first line of /proc/PID/cgroup, which is one of cgroup v1 here")
    metrics = engine.ctr("task", "metrics", box)
    seen(exit_code=metrics.rc)
    assert metrics.rc == 0 and box in metrics.out, metrics


def test_pause_and_resume(engine: Containerd, box: str, seen: Seen) -> None:
    assert engine.ctr("task", "pause", box).rc == 0
    paused = engine.status(box)
    refused = engine.exec(box, "/bin/true")
    assert engine.ctr("task", "resume", box).rc == 0
    seen(paused=paused, exec_while_paused=refused.rc, then=engine.status(box))
    assert (paused, refused.rc, engine.status(box)) == ("PAUSED", 1, "RUNNING"), refused
    assert engine.exec(box, "/bin/true").rc == 0


def test_kill_all(engine: Containerd, box: str, seen: Seen) -> None:
    done = engine.ctr("task", "kill", "--all", "-s", "USR1", box)
    seen(exit_code=done.rc, status=engine.status(box))
    assert done.rc == 0 and engine.status(box) == "RUNNING", done


def test_stop(engine: Containerd, box: str, seen: Seen) -> None:
    assert engine.ctr("task", "kill", "-s", "TERM", box).rc == 0
    harness.wait_until(lambda: engine.status(box) == "STOPPED", "the container to stop")
    again = engine.ctr("task", "kill", "-s", "TERM", box)
    done = engine.ctr("task", "delete", box)
    # The shim in Go adds its error code: "not found".
    seen(kill_after_the_end=again.rc, says_why="process already finished" in again.err, exit_code=exit_code(done))
    assert again.rc == 1 and "process already finished" in again.err, again
    assert exit_code(done) == 9, done


def test_remove_by_force(engine: Containerd, seen: Seen) -> None:
    assert engine.detached("d1", "/bin/sleep", "77").rc == 0
    done = engine.ctr("task", "delete", "-f", "d1")
    seen(exit_code=exit_code(done), then=engine.ctr("container", "delete", "d1").rc)
    assert exit_code(done) == 137 and engine.status("d1") == "", done


def test_restart(engine: Containerd, box: str, seen: Seen) -> None:
    engine.ctr("task", "kill", "-s", "KILL", box)
    harness.wait_until(lambda: engine.status(box) == "STOPPED", "the container to stop")
    assert exit_code(engine.ctr("task", "delete", box)) == 137
    assert engine.ctr("task", "start", "-d", box).rc == 0
    seen(status=engine.status(box))
    assert engine.status(box) == "RUNNING"


def test_logs(engine: Containerd, seen: Seen) -> None:
    if engine.label == RUST_LABEL:
        pytest.skip("this shim copies to fifos only and ignores the address of a log")
    log = engine.host.path / "ctr.log"
    # The process stays: containerd 1.6 closes the file of both streams when one of them ends, with
    # any runtime.
    script = "echo out; echo err >&2; exec sleep 77"
    done = engine.detached("l1", "/bin/sh", "-c", script, flags=("--log-uri", f"file://{log}"))
    assert done.rc == 0, done
    harness.wait_until(lambda: log.exists() and len(log.read_text().splitlines()) == 2, "two lines in the log")
    engine.remove("l1")
    seen(lines=sorted(log.read_text().split()))


def test_read_only_root(engine: Containerd, seen: Seen) -> None:
    flags = ("--read-only", "--env", "A=b", "--cwd", "/tmp")
    done = engine.run("/bin/sh", "-c", "touch /x; pwd; echo $A", flags=flags)
    seen(out=done.out.split())
    assert done.out.split() == ["/tmp", "b"] and "Read-only file system" in done.err, done


def test_volume(engine: Containerd, seen: Seen) -> None:
    folder = engine.host.path / "volume"
    folder.mkdir(exist_ok=True)
    (folder / "file").write_text("content\n")
    mounts = [f"type=bind,src={folder},dst=/{kind},options=rbind:{kind}" for kind in ("ro", "rw")]
    flags = ("--mount", mounts[0], "--mount", mounts[1])
    done = engine.run("/bin/sh", "-c", "cat /ro/file; touch /ro/new; touch /rw/made", flags=flags)
    seen(out=done.out.strip(), written=(folder / "made").exists())
    assert done.out == "content\n" and "Read-only file system" in done.err, done
    assert (folder / "made").exists() and not (folder / "new").exists()


def test_seccomp_profile(engine: Containerd, seen: Seen) -> None:
    profile = image.make_profile(engine.host.path / "seccomp.json")
    probe = "chmod 700 /tmp; echo $?; grep Seccomp: /proc/self/status"
    done = engine.run("/bin/sh", "-c", probe, flags=("--seccomp", "--seccomp-profile", str(profile)))
    seen(out=done.out.split())
    assert done.out.split() == ["1", "Seccomp:", "2"] and "Permission denied" in done.err, done
    done = engine.run("/bin/sh", "-c", "grep Seccomp: /proc/self/status", flags=("--seccomp",))
    assert done.out.split() == ["Seccomp:", "2"], done


def test_host_network(engine: Containerd, seen: Seen) -> None:
    done = engine.run("/bin/sh", "-c", "readlink /proc/self/ns/net", flags=("--net-host",))
    outside = engine.host.call("readlink", "/proc/self/ns/net").out
    seen(same_network=done.out == outside)
    assert done.out == outside


@pytest.mark.needs_controller("memory")
def test_memory_limit(engine: Containerd, seen: Seen) -> None:
    # ctr's containers have no cgroup2 mount, so the limit is read on the host.
    assert engine.detached("m1", flags=("--memory-limit", str(64 << 20))).rc == 0
    top = machine.cgroup2_mount()
    assert top is not None
    group = top / engine.host.cgroup.lstrip("/") / "m1"
    limit = (group / "memory.max").read_text().strip()
    engine.remove("m1")
    seen(limit=limit)
    assert limit == str(64 << 20)


@pytest.fixture
def counts(engine: Containerd, seen: Seen) -> Iterator[checkpoint.Count]:
    """A running container that counts. `seen` comes first: it knows which engine skips."""
    reason = checkpoint.why_not(engine.host)
    if reason:
        pytest.skip(reason)
    if engine.label == RUST_LABEL:
        pytest.skip("checkpoints through this shim are not tested")
    flags = ("--annotation", engine.criu)
    done = engine.detached("k1", *checkpoint.COMMAND, flags=flags)
    assert done.rc == 0, done
    count = checkpoint.Count(lambda: engine.exec("k1", *checkpoint.SHOW))
    count.goes_on()
    yield count
    engine.remove("k1")


def test_checkpoint_while_it_runs(engine: Containerd, counts: checkpoint.Count, seen: Seen) -> None:
    folder = engine.host.path / "images"
    done = engine.ctr("task", "checkpoint", "--image-path", str(folder), "k1")
    assert done.rc == 0 and checkpoint.images(folder), done
    goes_on = counts.goes_on()
    seen(exit_code=done.rc, goes_on=goes_on, status=engine.status("k1"))
    assert goes_on and engine.status("k1") == "RUNNING"


def test_checkpoint_and_exit(engine: Containerd, counts: checkpoint.Count, seen: Seen) -> None:
    folder = engine.host.path / "last"
    done = engine.ctr("task", "checkpoint", "--exit", "--image-path", str(folder), "k1")
    assert done.rc == 0 and checkpoint.images(folder), done
    harness.wait_until(lambda: engine.status("k1") == "STOPPED", "the container to stop")
    deleted = engine.ctr("task", "delete", "k1")
    seen(exit_code=done.rc, deleted=deleted.rc)
    assert deleted.rc == 0, deleted


def test_checkpoint_to_an_image_and_restore(engine: Containerd, counts: checkpoint.Count, seen: Seen) -> None:
    reference = "localhost/checkpoint:1"
    done = engine.ctr("container", "checkpoint", "--task", "--image", "--rw", "k1", reference)
    assert done.rc == 0 and counts.goes_on(), done
    engine.remove("k1")
    restored = engine.ctr("container", "restore", "--live", "--rw", "k1", reference)
    assert restored.rc == 0, restored
    goes_on = counts.goes_on()
    seen(checkpoint=done.rc, restore=restored.rc, status=engine.status("k1"), goes_on=goes_on)
    assert goes_on and engine.status("k1") == "RUNNING"
    killed = engine.ctr("task", "kill", "-s", "KILL", "k1")
    harness.wait_until(lambda: engine.status("k1") == "STOPPED", "the container to stop")
    deleted = exit_code(engine.ctr("task", "delete", "k1"))
    seen(kill=killed.rc, exit_code_then=deleted)
    assert (killed.rc, deleted) == (0, 137)


def test_nothing_left(engine: Containerd, seen: Seen) -> None:
    state = engine.host.listdir("/run/containerd/runc/default")
    shims = engine.host.wait_gone("shim")
    groups = [path for path in engine.host.cgroups() if str(path).count(engine.host.cgroup + "/")]
    seen(containers=len(state), shims=len(shims), cgroups=len(groups))
    assert not state and not shims and not groups, (state, shims, groups)
