"""conmon alone, called as CRI-O calls it, with the runtime calls that CRI-O makes itself."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration import harness
from integration.config import default_config
from integration.engines import image
from integration.engines.cases import SPIN
from integration.engines.conftest import Seen
from integration.engines.host import Done, Host

pytestmark = pytest.mark.needs_program("conmon")
LABEL = "conmon as CRI-O calls it"


class Conmon:
    """Containers under conmon, each with its own directory."""

    label = LABEL

    def __init__(self, host: Host, runtime: str) -> None:
        self.host, self.runtime = host, runtime
        self.root = f"{host.path}/state"
        self.rootfs = image.build_rootfs(host.path / "rootfs")
        self.exits = host.path / "exits"
        self.exits.mkdir()
        self.versions = {"conmon": host.call("conmon", "--version").out.split()[2]}

    def oci(self, *args: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Done:
        """Call the runtime as CRI-O does itself, with ``--root`` as a separate word."""
        return self.host.call(self.runtime, "--root", self.root, *args, stdin=stdin, env=env)

    def create(self, id: str, *args: str, terminal: bool = False) -> Path:
        """Create a container. Its bundle has ``ctr.log``, ``pidfile`` and ``attach`` beside
        config.json."""
        bundle = self.host.path / id
        bundle.mkdir()
        config = default_config(f"{self.host.cgroup}/{id}")
        config["root"]["path"] = str(self.rootfs)
        config["process"] |= {"args": list(args), "terminal": terminal, "env": ["PATH=/bin", "TERM=xterm"]}
        config["annotations"] = {"io.kubernetes.container.name": "c"}
        (bundle / "config.json").write_text(json.dumps(config))
        done = self.host.call(*self.monitor(id, bundle, terminal), env={"_OCI_SYNCPIPE": "3", "_OCI_STARTPIPE": "4"})
        assert done.rc == 0, done
        reply = self.reply(bundle)
        assert reply["pid"] > 0, reply
        return bundle

    def reply(self, bundle: Path) -> dict[str, Any]:
        """conmon's report through its pipe: the container's pid, or a negative number and a
        message."""
        file = bundle / "sync"
        harness.wait_until(lambda: file.read_text().endswith("\n"), "conmon's answer", 20)
        answer: dict[str, Any] = json.loads(file.read_text().splitlines()[0])
        return answer

    def monitor(self, id: str, bundle: Path, terminal: bool) -> list[str]:
        """conmon's command line; CRI-O's pipes are descriptors 3 (the report) and 4 (the start
        signal)."""
        words = ["conmon", "-b", str(bundle), "-c", id, "--exit-dir", str(self.exits), "-l", f"{bundle}/ctr.log"]
        words += ["--log-level", "info", "-n", f"k8s_{id}", "-P", f"{bundle}/conmon-pidfile", "-p", f"{bundle}/pidfile"]
        words += ["--persist-dir", str(bundle), "-r", self.runtime, "--runtime-arg", f"--root={self.root}"]
        words += ["--socket-dir-path", f"{self.host.path}/attach", "-u", id, *(["-t"] if terminal else [])]
        script = (
            f'mkdir -p {self.host.path}/attach; echo go >{bundle}/go; exec 3>{bundle}/sync 4<{bundle}/go; exec "$@"'
        )
        return ["/bin/sh", "-c", script, "sh", *words]

    def status(self, id: str) -> str:
        """The container's status as the runtime reports it."""
        return str(json.loads(self.oci("state", id).out)["status"])

    def exit_code(self, id: str) -> int:
        """Wait for conmon to report the exit status."""
        file = self.exits / id
        harness.wait_until(lambda: file.exists() and file.read_text() != "", f"exit code of {id}", 20)
        return int(file.read_text())

    def log(self, id: str) -> list[tuple[str, str]]:
        """The log of a container: stream and text of each line."""
        return read_log(self.host.path / id / "ctr.log")

    def remove(self, id: str) -> Done:
        """Remove the container as CRI-O does, in any state."""
        return self.oci("delete", "--force", id)


def read_log(file: Path) -> list[tuple[str, str]]:
    """Read a log in Kubernetes' format: "TIME STREAM P|F TEXT"; P (partial) means that the next
    record continues the line.

    conmon splits lines depending on the sizes of its reads, so parts of a line are joined here.
    """
    found, pieces = [], {"stdout": "", "stderr": ""}
    for record in file.read_text().splitlines():
        _, stream, tag, text = record.split(" ", 3)
        pieces[stream] += text
        if tag == "F":
            found.append((stream, pieces[stream]))
            pieces[stream] = ""
    return found + [(stream, text) for stream, text in pieces.items() if text]


@pytest.fixture(scope="module")
def engine(host: Host, oci_path: str) -> Iterator[Conmon]:
    yield Conmon(host, oci_path)


@pytest.fixture
def box(request: pytest.FixtureRequest, engine: Conmon) -> Iterator[str]:
    """A running container."""
    id = f"b{abs(hash(request.node.name)) % 10**8}"
    engine.create(id, "/bin/sh", "-c", SPIN)
    done = engine.oci("start", id)
    assert done.rc == 0, done
    harness.wait_until(lambda: ("stdout", "started") in engine.log(id), "the container to be ready", 20)
    yield id
    engine.remove(id)


def test_life(engine: Conmon, seen: Seen) -> None:
    bundle = engine.create("a1", "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    created = engine.status("a1")
    pid = (bundle / "pidfile").read_text()
    assert pid.isdigit() and int(pid) > 1
    assert engine.oci("start", "a1").said == ""
    code = engine.exit_code("a1")
    seen(created=created, exit_code=code, log=sorted(engine.log("a1")), then=engine.status("a1"))
    assert (created, code, engine.status("a1")) == ("created", 3, "stopped")
    assert sorted(engine.log("a1")) == [("stderr", "err"), ("stdout", "out")]
    assert engine.remove("a1") == Done(0, "", "")
    assert engine.remove("a1").rc == 0, "the second delete --force of CRI-O"


def test_state(engine: Conmon, box: str, seen: Seen) -> None:
    found = json.loads(engine.oci("state", box).out)
    seen(status=found["status"], annotations=found["annotations"], keys=sorted(found))
    assert found["status"] == "running" and found["pid"] == int((engine.host.path / box / "pidfile").read_text())
    stamp = found["created"].rstrip("Z").partition(".")
    assert time.strptime(stamp[0], "%Y-%m-%dT%H:%M:%S") and found["created"].endswith("Z")


def test_stop(engine: Conmon, box: str, seen: Seen) -> None:
    done = engine.oci("kill", box, "15")
    code = engine.exit_code(box)
    again = engine.oci("kill", box, "15")
    seen(exit_code=code, again=again.rc)
    assert done == Done(0, "", "") and code == 9
    assert again.rc != 0 and "container not running" in again.err.lower(), again


def test_kill_by_name(engine: Conmon, box: str, seen: Seen) -> None:
    done = engine.oci("kill", box, "KILL")
    seen(exit_code=engine.exit_code(box))
    assert done == Done(0, "", "") and engine.exit_code(box) == 137


def test_kill_all_after_the_end(engine: Conmon, seen: Seen) -> None:
    engine.create("k1", "/bin/sh", "-c", "exit 0")
    engine.oci("start", "k1")
    code = engine.exit_code("k1")
    done = engine.oci("kill", "-a", "k1", "9")
    engine.remove("k1")
    seen(exit_code=code, kill=done.rc)
    assert code == 0 and done.rc == 0, done


def test_exec_in_the_foreground(engine: Conmon, box: str, seen: Seen) -> None:
    process = {"args": ["/bin/sh", "-c", "cat; echo err >&2; id -u; exit 5"], "cwd": "/", "env": ["PATH=/bin"]}
    file = engine.host.path / "process.json"
    file.write_text(json.dumps(process | {"user": {"uid": 1000, "gid": 1000}, "terminal": False}))
    done = engine.oci("exec", "--process", str(file), box, stdin="in\n")
    seen(exit_code=done.rc, out=done.out.split(), err=done.err.strip())
    assert (done.rc, done.out, done.err) == (5, "in\n1000\n", "err\n")


def test_exec_sync_under_conmon(engine: Conmon, box: str, seen: Seen) -> None:
    process = {"args": ["/bin/sh", "-c", "echo x; exit 4"], "cwd": "/", "env": ["PATH=/bin"]}
    file = engine.host.path / "sync-process.json"
    file.write_text(json.dumps(process | {"user": {"uid": 0, "gid": 0}}))
    log, pid_file = engine.host.path / "exec.log", engine.host.path / "exec.pid"
    words = ["conmon", "-c", box, "-n", "k8s_e", "-r", engine.runtime, "-p", str(pid_file), "-e", "-l", str(log)]
    words += ["--socket-dir-path", f"{engine.host.path}/attach", "-u", "exec1", "--exec-process-spec", str(file)]
    words += ["-b", str(engine.host.path / box), "--runtime-arg", f"--root={engine.root}", "-T", "10", "--sync"]
    reply = engine.host.path / "exec-sync"
    done = engine.host.call("/bin/sh", "-c", f'exec 3>{reply}; exec "$@"', "sh", *words, env={"_OCI_SYNCPIPE": "3"})
    answers = [json.loads(line) for line in reply.read_text().splitlines()]
    seen(
        conmon=done.rc,
        exit_code=answers[-1].get("exit_code"),
        log=read_log(log),
    )
    assert answers[-1].get("exit_code") == 4, (answers, done)
    assert read_log(log) == [("stdout", "x")], log.read_text()


def test_pause_and_resume(engine: Conmon, box: str, seen: Seen) -> None:
    first = engine.oci("pause", box), engine.status(box)
    then = engine.oci("resume", box), engine.status(box)
    seen(paused=first[1], then=then[1])
    assert (first, then) == ((Done(0, "", ""), "paused"), (Done(0, "", ""), "running"))


def test_update_from_standard_input(engine: Conmon, box: str, seen: Seen) -> None:
    for spelling in (["--resources", "-"], ["--resources=-"], ["-r", "-"]):
        done = engine.oci("update", *spelling, box, stdin="{}")
        assert done.rc == 0 and done.said == "", (spelling, done)
    seen(status=engine.status(box))


def test_terminal(engine: Conmon, seen: Seen) -> None:
    engine.create("t1", "/bin/sh", "-c", "tty; echo second; exit 6", terminal=True)
    assert engine.oci("start", "t1").rc == 0
    code = engine.exit_code("t1")
    lines = [text.rstrip("\r") for _, text in engine.log("t1")]
    engine.remove("t1")
    seen(exit_code=code, log=lines)
    assert code == 6 and lines == ["/dev/pts/0", "second"]


def test_failing_create(engine: Conmon, seen: Seen) -> None:
    bundle = engine.host.path / "f1"
    bundle.mkdir()
    config = default_config(f"{engine.host.cgroup}/f1")
    config["root"]["path"] = str(engine.rootfs)
    config["process"]["args"] = ["/nonexistent"]
    (bundle / "config.json").write_text(json.dumps(config))
    engine.host.call(*engine.monitor("f1", bundle, False), env={"_OCI_SYNCPIPE": "3", "_OCI_STARTPIPE": "4"})
    reply = engine.reply(bundle)
    seen(failed=reply["pid"] <= 0, says_why="no such file or directory" in reply["message"])
    assert reply["pid"] <= 0 and "no such file or directory" in reply["message"], reply
    assert engine.remove("f1").rc == 0


def test_version_and_features(engine: Conmon, seen: Seen) -> None:
    version = engine.host.call(engine.runtime, "--version")
    features = engine.host.call(engine.runtime, "features", env={"CRI_O_EXTERNAL": "1", "XDG_RUNTIME_DIR": ""})
    found = json.loads(features.said)
    seen(recursive_read_only="rro" in found["mountOptions"])
    assert version.rc == 0 and " version " in version.out.splitlines()[0]
    assert found["ociVersionMin"] and found["ociVersionMax"] and "rro" in found["mountOptions"]


def test_nothing_left(engine: Conmon, seen: Seen) -> None:
    harness.wait_until(lambda: not any("conmon" in args for args in engine.host.processes()), "conmon to end", 20)
    left = engine.host.listdir(engine.root)
    groups = [path.name for path in engine.host.cgroups() if not path.name.startswith("pyt-")]
    seen(containers=left, cgroups=groups)
    assert not left and not groups, (left, groups)
    assert os.path.isdir(engine.exits)
