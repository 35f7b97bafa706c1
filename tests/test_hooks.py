"""Hooks on the host side: their input, their end and the reports about them."""

from __future__ import annotations

import json
import os
import posix
import time
from pathlib import Path
from typing import Any

import pytest

from json_type import Json
from pyrunc.spec.types import Hook

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc import hooks, log
from pyrunc.errors import PyruncError, SysError

kept = transcript.follow()

STATE = json.dumps({"ociVersion": "1.3.0", "id": "c", "status": "creating", "pid": 5, "bundle": "/b"})


def script(tmp_path: Path, body: str, name: str = "hook") -> str:
    path = tmp_path / name
    path.write_text("#!/bin/sh\n" + body)
    path.chmod(0o755)
    return str(path)


def run(tmp_path: Path, *listed: Hook, fatal: bool = True, kind: str = "createRuntime", **rest: Any) -> str:
    """Run hooks; return the log."""
    path = tmp_path / "log"
    around = hooks.Surroundings(str(tmp_path), log.Log(str(path)), rest.get("annotations"))
    around.check = rest.get("check")
    hooks.run_hooks(kind, listed, STATE, around, fatal=fatal)
    return path.read_text()


def test_a_hook_gets_state_args_env_and_bundle(tmp_path: Path) -> None:
    body = f"exec >{tmp_path}/out; cat; echo; echo \"$0|$1|$2\"; pwd; /usr/bin/env; ls -1 /proc/self/fd | tr '\\n' ' '"
    hook: Hook = {"path": script(tmp_path, body), "args": ["zero", "one", "t w o"], "env": ["A=1", "B=x y"]}
    leak = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(leak, True)
    run(tmp_path, hook)
    os.close(leak)
    state, args, pwd, *env, fds = (tmp_path / "out").read_text().splitlines()
    assert json.loads(state) == json.loads(STATE)
    assert args.endswith("|one|t w o") and pwd == str(tmp_path)
    assert {line for line in env if not line.startswith(("PWD=", "_=", "OLDPWD=", "SHLVL="))} == {"A=1", "B=x y"}
    assert fds.split() == ["0", "1", "2", "3"]  # ls exits with 3


def test_argv0_is_args0_and_without_args_the_path(tmp_path: Path) -> None:
    run(tmp_path, {"path": "/bin/sh", "args": ["mysh", "-c", f"tr '\\0' ' ' </proc/$$/cmdline >{tmp_path}/cmd"]})
    assert (tmp_path / "cmd").read_text().startswith("mysh -c ")
    run(tmp_path, {"path": script(tmp_path, f"echo $# >{tmp_path}/count")})
    assert (tmp_path / "count").read_text() == "0\n"


def test_without_an_environment_a_hook_gets_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in runc and crun, where an empty list is an empty environment."""
    monkeypatch.setattr(posix, "environ", {b"CALLERS": b"1=2", b"BYTES": b"\xff", b"EMPTY": b""})
    ours = b"CALLERS=1=2\0BYTES=\xff\0EMPTY=\0"
    out = tmp_path / "env"
    hook: Json
    for hook, expected in (({}, ours), ({"env": None}, ours), ({"env": []}, b""), ({"env": ["A=b"]}, b"A=b\0")):
        run(tmp_path, {"path": "/bin/sh", "args": ["sh", "-c", f"/bin/cat </proc/$$/environ >{out}"]} | hook)
        assert out.read_bytes() == expected


def test_a_helper_program_gets_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posix, "environ", {b"CALLERS": b"1"})
    out = tmp_path / "env"
    hooks.run_program("/x", {"path": "/bin/sh", "args": ["sh", "-c", f"/bin/cat </proc/$$/environ >{out}"], "env": []})
    assert out.read_bytes() == b""


def test_signals_are_default_in_a_hook(tmp_path: Path) -> None:
    run(tmp_path, {"path": "/bin/grep", "args": ["grep", "^Sig[IB]", "/proc/self/status"], "env": []})
    with pytest.raises(PyruncError) as caught:
        run(tmp_path, {"path": "/bin/sh", "args": ["sh", "-c", "grep '^Sig[IB]' /proc/self/status; exit 1"]})
    text = str(caught.value)
    assert "SigBlk:\t0000000000000000" in text.replace("\\u0009", "\t")
    assert "SigIgn:\t0000000000000000" in text.replace("\\u0009", "\t")


def test_hooks_run_in_order_and_stop_at_the_first_failure(tmp_path: Path) -> None:
    def step(number: int, status: int = 0) -> Hook:
        body = f"echo {number} >>{tmp_path}/order; exit {status}"
        return {"path": "/bin/sh", "args": ["sh", "-c", body]}

    with pytest.raises(
        PyruncError, match=r'^/hooks/prestart/1 "/bin/sh": error running prestart hook #1: exit status 3$'
    ):
        run(tmp_path, step(0), step(1, 3), step(2), kind="prestart")
    assert (tmp_path / "order").read_text() == "0\n1\n"


def test_not_fatal_warns_and_goes_on(tmp_path: Path) -> None:
    bad: Hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo oops >&2; exit 1"]}
    good: Hook = {"path": "/bin/sh", "args": ["sh", "-c", f"touch {tmp_path}/ran"]}
    text = run(tmp_path, bad, {"path": "/nowhere/hook"}, good, fatal=False, kind="poststop")
    assert (tmp_path / "ran").exists()
    assert text.count("level=warning") == 2 and "level=error" not in text
    assert "/hooks/poststop/0" in text and "exit status 1: oops" in text and "/hooks/poststop/1" in text


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("exit 7", "exit status 7$"),
        ("kill -TERM $$", "killed by SIGTERM$"),
        ("kill -9 $$", "killed by SIGKILL$"),
        ("kill -31 $$", r"killed by SIGSYS \(bad system call\)$"),
        ("echo out; echo err >&2; exit 1", "exit status 1: out / err$"),
        ("printf 'a\\n\\n  b  \\n'; exit 1", "exit status 1: a / b$"),
    ],
)
def test_its_end_is_reported(tmp_path: Path, body: str, words: str) -> None:
    with pytest.raises(PyruncError, match=words) as caught:
        run(tmp_path, {"path": script(tmp_path, body)})
    assert str(caught.value).startswith('/hooks/createRuntime/0 "')


def test_the_end_of_much_output_is_kept(tmp_path: Path) -> None:
    body = "i=0; while [ $i -lt 30000 ]; do echo 1234567890; i=$((i+1)); done; echo the end; exit 1"
    with pytest.raises(PyruncError) as caught:
        run(tmp_path, {"path": script(tmp_path, body)})
    assert str(caught.value).endswith("the end")
    assert len(str(caught.value)) < hooks.TAIL * 2


def test_output_that_is_not_text(tmp_path: Path) -> None:
    with pytest.raises(PyruncError) as caught:
        run(tmp_path, {"path": script(tmp_path, "printf '\\377\\000x'; exit 1")})
    assert str(caught.value).endswith("x")


def test_a_large_state_and_a_hook_that_does_not_read_it(tmp_path: Path) -> None:
    big = json.dumps({"annotations": {"k": "v" * 300_000}})
    reader: Hook = {"path": "/bin/sh", "args": ["sh", "-c", f"/bin/cat >{tmp_path}/seen"]}
    around = hooks.Surroundings("/", log.Log(str(tmp_path / "log")))
    hooks.run_hooks("prestart", [{"path": "/bin/true"}, reader], big, around, fatal=True)
    assert (tmp_path / "seen").read_text() == big


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/nowhere/hook", "execve: ENOENT: path not found"),
        ("/etc/passwd", "execve: EACCES"),
        ("/etc", "execve: EACCES"),
    ],
)
def test_programs_that_cannot_be_executed(tmp_path: Path, path: str, words: str) -> None:
    with pytest.raises(SysError, match=words) as caught:
        run(tmp_path, {"path": path})
    assert str(caught.value).startswith(f'/hooks/createRuntime/0 "{path}": error running createRuntime hook #0: ')


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(SysError, match='"/nowhere": error running prestart hook #0: chdir: ENOENT'):
        around = hooks.Surroundings("/nowhere", log.Log(str(tmp_path / "l")))
        hooks.run_hooks("prestart", [{"path": "/bin/true"}], STATE, around, fatal=True)


def test_timeout_kills(tmp_path: Path) -> None:
    body = f"echo $$ >{tmp_path}/pid; echo waiting; exec sleep 60"
    start = time.monotonic()
    with pytest.raises(PyruncError, match=r"timed out after 1 s, killed: waiting$"):
        run(tmp_path, {"path": script(tmp_path, body), "timeout": 1})
    assert 0.9 < time.monotonic() - start < 5
    pid = int((tmp_path / "pid").read_text())
    assert not os.path.exists(f"/proc/{pid}")  # killed and reaped


def test_a_timeout_that_is_not_reached(tmp_path: Path) -> None:
    run(tmp_path, {"path": "/bin/sh", "args": ["sh", "-c", "sleep 0.1"], "timeout": 30})


def test_the_timeout_holds_against_endless_output(tmp_path: Path) -> None:
    with pytest.raises(PyruncError, match="timed out after 1 s"):
        run(tmp_path, {"path": "/bin/sh", "args": ["sh", "-c", "/usr/bin/yes"], "env": [], "timeout": 1})


def test_a_daemon_that_keeps_the_output_open_is_not_waited_for(tmp_path: Path) -> None:
    body = f"sleep 30 & echo $! >{tmp_path}/pid; exit 0"
    start = time.monotonic()
    run(tmp_path, {"path": script(tmp_path, body)})
    assert time.monotonic() - start < 5
    os.kill(int((tmp_path / "pid").read_text()), 9)


def test_output_goes_to_the_annotated_files(tmp_path: Path) -> None:
    sink = tmp_path / "sink"
    sink.write_text("before\n")
    hook: Hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo out; echo err >&2"]}
    annotations = {"run.oci.hooks.stdout": str(sink), "run.oci.hooks.stderr": str(sink)}
    run(tmp_path, hook, hook, annotations=annotations)
    assert sink.read_text() == "before\nout\nerr\nout\nerr\n"
    with pytest.raises(SysError, match=r"run.oci.hooks.stdout"):
        run(tmp_path, hook, annotations={"run.oci.hooks.stdout": "/nowhere/file"})


@pytest.mark.parametrize("kind", ["link", "device", "directory"])
def test_output_goes_to_files_only(tmp_path: Path, kind: str) -> None:
    """The author of the annotation may lack the right to write there."""
    ran = tmp_path / "ran"
    path = {"link": tmp_path / "link", "device": Path("/dev/null"), "directory": tmp_path}[kind]
    if kind == "link":
        path.symlink_to(tmp_path / "target")
    with pytest.raises(SysError, match=r"^/annotations/run.oci.hooks.stdout "):
        run(
            tmp_path,
            {"path": "/usr/bin/touch", "args": ["touch", str(ran)]},
            annotations={"run.oci.hooks.stdout": str(path)},
        )
    assert not ran.exists() and not (tmp_path / "target").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_output_does_not_go_to_what_others_own(tmp_path: Path) -> None:
    sink = tmp_path / "sink"
    sink.write_text("")
    os.chown(sink, 1, 1)
    with pytest.raises(SysError, match="a file or fifo of our own"):
        run(tmp_path, {"path": "/bin/echo"}, annotations={"run.oci.hooks.stderr": str(sink)})
    assert sink.read_text() == ""


def test_output_goes_to_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    run(
        tmp_path,
        {"path": "/bin/echo", "args": ["echo", "through"]},
        annotations={"run.oci.hooks.stdout": str(tmp_path / "fifo")},
    )
    assert os.read(reader, 100) == b"through\n"
    os.close(reader)


WRITES = "echo x >&0; echo x 1<>/dev/stdin; truncate -s 0 /proc/self/fd/0; stat -Lc %a /proc/self/fd/0; /bin/cat"


def test_the_state_cannot_be_changed(tmp_path: Path) -> None:
    """The peers use a pipe: only the runtime can have written its content."""
    out = tmp_path / "out"
    run(tmp_path, {"path": "/bin/sh", "args": ["sh", "-c", f"({WRITES}) >{out} 2>/dev/null"]})
    assert out.read_text() == "400\n" + STATE


def test_check_stops_a_hook(tmp_path: Path) -> None:
    calls = []

    def check() -> None:
        calls.append(1)
        raise PyruncError("interrupted")

    body = f"echo $$ >{tmp_path}/pid; exec sleep 60"
    with pytest.raises(PyruncError, match=r"^interrupted$"):
        run(tmp_path, {"path": script(tmp_path, body)}, check=check)
    assert calls == [1]
    assert not os.path.exists(f"/proc/{(tmp_path / 'pid').read_text().strip()}")


def test_a_deadline_that_passes_between_two_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """poll(2) would wait forever with the time that is left, which is negative."""
    now, waited = 100.0, []

    class Poller:
        def register(self, fd: int, events: int) -> None:
            pass

        def poll(self, milliseconds: int) -> list[tuple[int, int]]:
            waited.append(milliseconds)
            return []

    def check() -> None:
        nonlocal now
        now += 0.96
        if len(waited) > 1:
            now += 0.06

    monkeypatch.setattr(hooks, "poll", Poller)
    monkeypatch.setattr(hooks.time, "monotonic", lambda: now)  # type: ignore[attr-defined]
    begun = time.time()
    with pytest.raises(PyruncError, match="timed out after 2 s"):
        run(tmp_path, {"path": script(tmp_path, "exec sleep 60"), "timeout": 2}, check=check)
    assert time.time() - begun < 30 and min(waited) >= 0 and len(waited) == 4
    assert max(waited) == hooks._TICK_MS


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    sink = log.Log()
    for path in ("/bin/true", "/bin/false", "/nowhere"):
        hooks.run_hooks("poststop", [{"path": path}], STATE, hooks.Surroundings("/", sink), fatal=False)
    assert sorted(os.listdir("/proc/self/fd")) == before
