"""The verbs through the command line, on containers that consist of a state directory and perhaps a
process."""

from __future__ import annotations

import errno
import json
import os
import pwd
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import cli, state
from pyrunc.container import lifecycle
from pyrunc.spec import default, load, validate
from state_support import sleeper
from verb_support import Runtime, gone, runtime

__all__ = ["runtime", "sleeper"]  # fixtures


# -- state -----------------------------------------------------------------------------------------


def test_state(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    runtime.make(pid=sleeper.pid)
    out, _ = runtime("state", "c1")
    assert out == (
        '{\n  "ociVersion": "1.3.0",\n  "id": "c1",\n'
        f'  "pid": {sleeper.pid},\n  "status": "running",\n  "bundle": "/b",\n  "rootfs": "/b/rootfs",\n'
        '  "created": "2026-11-23T15:23:58.327213653Z",\n  "annotations": {\n    "k": "v"\n  },\n  "owner": ""\n}\n'
    )
    sleeper.kill()
    sleeper.wait()
    stopped = json.loads(runtime("state", "c1")[0])
    assert (stopped["status"], stopped["pid"]) == ("stopped", 0)


def test_unknown_containers(runtime: Runtime) -> None:
    for verb in (["state"], ["start"], ["kill"], ["delete"]):
        assert runtime(*verb, "c", rc=1)[1] == "container does not exist: c"
    assert runtime("delete", "--force", "c") == ("", "")
    assert runtime("delete", "-f", "c") == ("", "")
    assert runtime("delete", "c", "--force=true") == ("", "")
    assert not runtime.root.exists()


# -- list ------------------------------------------------------------------------------------------


def test_list_without_containers(runtime: Runtime) -> None:
    assert "it does not exist" in runtime("list", rc=1)[1]  # a typo in --root
    runtime.root.mkdir(mode=0o700)
    header = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n"
    assert runtime("list")[0] == header
    assert runtime("list", "-q")[0] == ""
    assert runtime("list", "--format", "json")[0] == "[]\n"


def test_list(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    runtime.make("bb", pid=sleeper.pid)
    runtime.make("a-very-long-name-of-one", owner=4_000_000)
    (runtime.root / "stray").write_text("x")
    (runtime.root / ".hidden").mkdir()
    out, _ = runtime("list")
    pid, owner = f"{sleeper.pid:<12}", pwd.getpwuid(os.geteuid()).pw_name
    assert out == (
        "ID                        PID         STATUS      BUNDLE      CREATED                          OWNER\n"
        "a-very-long-name-of-one   0           stopped     /b          2026-11-23T15:23:58.327213653Z   #4000000\n"
        f"bb                        {pid}running     /b          2026-11-23T15:23:58.327213653Z   {owner}\n"
    )
    assert runtime("list", "--quiet")[0] == "a-very-long-name-of-one\nbb\n"
    text, _ = runtime("list", "-f", "json")
    assert text.count("\n") == 1
    listed = json.loads(text)
    assert [entry["id"] for entry in listed] == ["a-very-long-name-of-one", "bb"]
    shown = json.loads(runtime("state", "bb")[0])
    assert {**listed[1], "owner": ""} == shown and list(listed[1]) == list(shown)


def test_list_reports_unreadable_containers(runtime: Runtime) -> None:
    runtime.make("good")
    (runtime.root / "half-made").mkdir()
    os.utime(runtime.root / "half-made", (1, 1))
    (runtime.root / "just-made").mkdir()  # a create between its mkdir and its lock
    Path(runtime.make("damaged").dir, "state.json").write_text("{")
    busy = runtime.store.reserve("busy")  # a running create
    assert cli.main(["--root", str(runtime.root), "--log", str(runtime.root) + ".log", "list", "-q"]) == 0
    out, err = runtime.capfd.readouterr()
    busy.unlock()
    assert out == "good\n"
    first, second = err.splitlines()
    assert first.startswith("pyrunc: warning: state.json of container damaged is damaged")
    assert second == "pyrunc: warning: container half-made has no state.json; remove it with delete --force"
    assert Path(str(runtime.root) + ".log").read_text().count("level=warning") == 2


def unreadable(monkeypatch: pytest.MonkeyPatch, id: str, error: BaseException) -> None:
    """The state of one container cannot be read."""
    real = state.Container.read_bytes

    def read_bytes(self: state.Container, name: str) -> bytes:
        if self.id == id:
            raise error
        return real(self, name)

    monkeypatch.setattr(state.Container, "read_bytes", read_bytes)


def test_a_list_that_may_lack_a_container_is_a_failure(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.make("good")
    bad = runtime.make("bad")
    unreadable(monkeypatch, "bad", OSError(errno.EIO, "read"))
    for options, shown in ([], "good"), (["-f", "json"], '"id":"good"'):
        assert cli.main(["--root", str(runtime.root), "list", *options]) == 1
        out, err = runtime.capfd.readouterr()
        assert shown in out and "bad" not in out
        assert err == f"pyrunc: error: {bad.dir}/state.json: read: EIO: input/output error\n"
    unreadable(monkeypatch, "bad", MemoryError())
    assert runtime("list", rc=1) == ("", "out of memory")


def test_a_status_that_cannot_be_known_is_not_listed(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime.make("good", status="created")
    runtime.make("bad")
    real = state.Container.status

    def status(self: state.Container) -> str:
        if self.id == "bad":
            raise OSError(errno.ENOMEM, "stat")
        return real(self)

    monkeypatch.setattr(state.Container, "status", status)
    assert cli.main(["--root", str(runtime.root), "list"]) == 1
    out, err = runtime.capfd.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["ID", "good"]
    assert err == "pyrunc: error: container bad: ENOMEM: out of memory\n"


VERBS = (["state", "c1"], ["start", "c1"], ["kill", "c1", "KILL"], ["kill", "-a", "c1"], ["delete", "c1"],
         ["delete", "--force", "c1"], ["ps", "c1"], ["pause", "c1"], ["resume", "c1"], ["events", "--stats", "c1"],
         ["update", "--pids-limit", "5", "c1"])  # fmt: skip


@pytest.mark.parametrize(
    ("error", "words"),
    [(OSError(errno.EMFILE, "open"), "too many open files"), (MemoryError(), "out of memory"),
     (ImportError("No module named 'x'"), "cannot load a part of pyrunc: No module named 'x'")],
    ids=["descriptors", "memory", "module"],
)  # fmt: skip
def test_no_verb_takes_what_it_cannot_read_for_damage(
    runtime: Runtime,
    sleeper: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    words: str,
) -> None:
    container = runtime.make(pid=sleeper.pid)
    before = {path.name: path.read_bytes() for path in Path(container.dir).iterdir()}
    unreadable(monkeypatch, "c1", error)
    for verb in VERBS:
        said = runtime(*verb, rc=1)[1]
        assert words in said and "delete --force" not in said, verb
    assert sleeper.poll() is None
    assert {path.name: path.read_bytes() for path in Path(container.dir).iterdir()} == before


def test_a_forced_delete_that_cannot_know_is_a_failure(runtime: Runtime) -> None:
    container = runtime.make()
    Path(container.dir, "state.json").write_bytes(b"\0")
    said = runtime("delete", "--force", "c1", rc=1)[1]
    assert said.startswith("the state of container c1 is damaged, and nothing says which cgroup it has")
    assert (runtime.root / "c1/state.json").exists()


def test_list_looks_names_up_once(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        runtime.make(f"c{number}")
    asked: list[int] = []
    real = pwd.getpwuid

    def getpwuid(uid: int) -> pwd.struct_passwd:
        asked.append(uid)
        return real(uid)

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    runtime("list")
    assert asked == [os.geteuid()]


# -- ps, pause, resume -----------------------------------------------------------------------------


def test_ps_without_a_cgroup(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    runtime.make(pid=sleeper.pid)
    assert runtime("ps", "--format", "json", "c1")[0] == f"[{sleeper.pid}]\n"
    out, _ = runtime("ps", "c1", "-e", "-o", "pid,comm")
    assert out.splitlines()[1:] == [line for line in out.splitlines() if f"{sleeper.pid} sleep" in line]
    assert "has no cgroup" in Path(str(runtime.root) + ".log").read_text()
    runtime.make("stopped")
    assert runtime("ps", "-f=json", "stopped")[0] == "[]\n"
    assert "there is" not in runtime("ps", "stopped")[0] and runtime("ps", "stopped")[0].count("\n") == 1
    runtime.make("old", pid=sleeper.pid, bootid="another boot")
    assert runtime("ps", "-f", "json", "old")[0] == "[]\n"


@pytest.mark.parametrize(
    ("line", "pid"),
    [
        ("root         1234       1", 1234), ("a name with 5 blanks 77  1", 77), ("root", -1), ("", -1), ("x y z", -1),
    ],
)  # fmt: skip
def test_ps_finds_the_pid_in_a_line(line: str, pid: int) -> None:
    from pyrunc.verbs import ps

    header = "USER                 PID PPID" if "blanks" in line else "USER          PID    PPID"
    assert ps.pid_of(line, 1, header.find("PID") + 3) == pid


def test_pause_and_resume_in_wrong_states(runtime: Runtime, sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    runtime.make("stopped")
    for verb in ("pause", "resume"):
        assert runtime(verb, "no", rc=1)[1] == "container does not exist: no"
    assert runtime("pause", "stopped", rc=1)[1] == "container not running"
    assert runtime("resume", "stopped", rc=1)[1] == "container not paused"
    (tmp_path / "cgroup.freeze").write_text("1\n")
    runtime.make("paused", pid=sleeper.pid, cgroup_dir=str(tmp_path))
    assert runtime("pause", "paused", rc=1)[1] == "container is already paused"
    runtime.make("running", pid=sleeper.pid)
    assert runtime("resume", "running", rc=1)[1] == "container not paused"
    assert "no cgroup" in runtime("pause", "running", rc=1)[1]
    created = runtime.make("created", pid=sleeper.pid, status="created")
    os.mkfifo(created.fifo("start"))
    fd = os.open(created.fifo("start"), os.O_RDWR)
    assert "no cgroup" in runtime("pause", "created", rc=1)[1]
    os.close(fd)


# -- kill ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "number"),
    [
        (["c1"], 15), (["c1", "9"], 9), (["c1", "KILL"], 9), (["c1", "SIGUSR1"], 10), (["c1", "usr2"], 12),
        (["c1", "RTMIN+1"], 35), (["c1", "SIGRTMIN+3"], 37), (["c1", "sigrtmax-1"], 63), (["c1", "64"], 64),
        (["c1", "Kill"], 9), (["--all", "c1", "9"], 9), (["-a", "c1", "15"], 15),
    ],
)  # fmt: skip
def test_kill(runtime: Runtime, sleeper: subprocess.Popen[bytes], argv: list[str], number: int) -> None:
    runtime.make(pid=sleeper.pid)
    assert runtime("kill", *argv) == ("", "")
    assert sleeper.wait(5) == -number


def test_kill_signal_0_asks(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    runtime.make(pid=sleeper.pid)
    runtime("kill", "c1", "0")
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()
    assert runtime("kill", "c1", "0", rc=1)[1] == "container not running"


def test_kill_of_what_is_not_running(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    runtime.make("stopped")
    runtime.make("reused", pid=sleeper.pid, starttime=1)
    runtime.make("creating", pid=sleeper.pid, status="creating")
    for id in ("stopped", "reused", "creating"):
        assert runtime("kill", id, "KILL", rc=1)[1] == "container not running"
    assert runtime("kill", "--all", "stopped", "9") == ("", "")  # containerd does so after init's end
    assert sleeper.poll() is None


def test_kill_checks_the_signal_first(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    runtime.make(pid=sleeper.pid)
    for text in ("FOO", "65", "SIG_IGN"):
        assert runtime("kill", "c1", text, rc=1)[1].startswith(f'unknown signal "{text}": expected a ')
    assert sleeper.poll() is None


def test_kill_all_after_a_reboot(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cgroup with the recorded name now belongs to another container."""
    from pyrunc import cgroup

    monkeypatch.setattr(cgroup, "open_driver", lambda *_: pytest.fail("no cgroup is touched"))
    runtime.make(cgroup="/x", cgroup_dir="/sys/fs/cgroup/x", bootid="another boot")
    assert runtime("kill", "--all", "c1", "9") == ("", "")
    assert runtime("delete", "c1") == ("", "")
    assert gone(runtime.root)


# -- start -----------------------------------------------------------------------------------------


def test_start_in_a_wrong_state(runtime: Runtime, sleeper: subprocess.Popen[bytes]) -> None:
    runtime.make("running", pid=sleeper.pid)
    runtime.make("stopped")
    assert runtime("start", "running", rc=1)[1] == "cannot start an already running container"
    assert runtime("start", "stopped", rc=1)[1] == "cannot start a container that has stopped"
    assert sleeper.poll() is None


def test_start_is_called_with_the_lock(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(container: state.Container, log: object) -> None:
        with pytest.raises(state.Busy):
            state.Store(str(runtime.root)).open("c1").lock(0)

    runtime.make()
    monkeypatch.setattr(lifecycle, "start", start)
    runtime("start", "c1")


# -- spec, features, plan --------------------------------------------------------------------------


def test_spec_is_this_very_file(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime("spec", "--bundle", str(tmp_path))
    path = tmp_path / "config.json"
    golden = Path(__file__).resolve().parent / "golden" / "_spec.json"
    assert path.read_text() == golden.read_text()
    monkeypatch.chdir(tmp_path)
    assert "exists" in runtime("spec", rc=1)[1]
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere")
    assert "exists" in runtime("spec", rc=1)[1]
    assert not (tmp_path / "elsewhere").exists()
    path.unlink()
    runtime("spec")
    assert path.read_text() == golden.read_text()
    path.unlink()
    runtime("spec", "--rootless")
    written = json.loads(path.read_text())
    linux = written["linux"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    assert {"type": "user"} in linux["namespaces"] and {"type": "network"} not in linux["namespaces"]
    assert "resources" not in linux
    assert not [name for mount in written["mounts"] for name in mount["options"] if name.startswith("gid=")]
    assert validate.check(written) == []
    assert "ENOENT" in runtime("spec", "-b", "/nowhere", rc=1)[1]


def test_spec_is_valid_and_hides_what_it_should(tmp_path: Path, runtime: Runtime) -> None:
    runtime("spec", "-b", str(tmp_path))
    config, _ = load.load_config(str(tmp_path / "config.json"))
    assert validate.check(config) == []
    assert config == default.config()
    # CVE-2015-3630 and its successors
    assert set(config["linux"]["maskedPaths"]) >= {
        "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
        "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/sys/firmware",
        "/sys/devices/virtual/powercap",
    }  # fmt: skip
    assert set(config["process"]["capabilities"]) == {"bounding", "effective", "permitted"}
    assert config["process"]["noNewPrivileges"] is True and config["root"]["readonly"] is True


def test_features(runtime: Runtime) -> None:
    out, _ = runtime("features")
    shown = json.loads(out)
    assert out == json.dumps(shown, indent=4) + "\n"
    assert (shown["ociVersionMin"], shown["ociVersionMax"]) == ("1.0.0", "1.3.0")
    assert set(shown["hooks"]) == {
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    }  # fmt: skip
    assert {"rro", "ro", "rbind", "tmpcopyup", "rprivate", "nosymfollow"} <= set(shown["mountOptions"])
    assert {"idmap", "ridmap"} <= set(shown["mountOptions"])
    linux = shown["linux"]
    assert {"user", "time"} <= set(linux["namespaces"])
    assert linux["mountExtensions"]["idmap"]["enabled"] is True
    assert linux["cgroup"] == {"v1": False, "v2": True, "systemd": True, "systemdUser": True, "rdma": True}
    seccomp = linux["seccomp"]
    assert seccomp["enabled"] and set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    assert "org.opencontainers.runc.commit" not in shown["annotations"]
    assert {type(value) for value in shown["annotations"].values()} == {str}


def test_plan_touches_nothing(runtime: Runtime, tmp_path: Path) -> None:
    runtime("spec", "-b", str(tmp_path))
    before = sorted(os.listdir(tmp_path))
    text, _ = runtime("plan", "-b", str(tmp_path))
    assert text.endswith("\n") and not text.endswith("\n\n")
    steps = json.loads(runtime("plan", "--bundle", str(tmp_path), "--json")[0])["steps"]
    assert [step["step"] for step in steps] == list(range(1, len(steps) + 1))
    assert f"{steps[-1]['op']} " in text and "/process/args" in text
    assert sorted({*os.listdir(tmp_path)} - {"root.log"}) == sorted({*before} - {"root.log"})
    assert not runtime.root.exists()


def test_plan_shows_every_problem(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text('{"ociVersion":"9.0.0","root":{"path":7},"process":{"cwd":"x"}}')
    assert cli.main(["--log", str(tmp_path / "log"), "plan", "-b", str(tmp_path)]) == 1
    out, err = capfd.readouterr()
    *problems, last = err.splitlines()
    assert out == "" and last.startswith("pyrunc: error: ")
    for pointer in ("/ociVersion", "/root/path", "/process/cwd"):
        assert sum(line.startswith(pointer + ": ") for line in problems) == 1 and pointer in last
    assert (tmp_path / "log").read_text().count("\n") == 1
