"""The command line: the leniency that engines need, recorded argv of engines, errors and exit
statuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import transcript
from pyrunc import cli, command, errors, state
from pyrunc.errors import PyruncError, UsageError
from pyrunc.launch import create, exec, run

kept = transcript.follow("pyrunc.cli", "pyrunc.command")

FLAGS: tuple[command.Flag, ...] = (
    ("root", "r", "DIR", "str", ""),
    ("number", "n", "N", "int", ""),
    ("force", "f", "", "bool", ""),
    ("no-subreaper", "", "", "bool", ""),
    ("env", "e", "VAR", "multi", ""),
)


# -- the parser ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "values", "rest"),
    [
        ("", {}, ""),
        ("id", {}, "id"),
        ("--root /x id", {"root": "/x"}, "id"),
        ("--root=/x id", {"root": "/x"}, "id"),
        ("-root /x id", {"root": "/x"}, "id"),
        ("-root=/x id", {"root": "/x"}, "id"),
        ("-r /x id", {"root": "/x"}, "id"),
        ("-r=/x id", {"root": "/x"}, "id"),
        ("--root= id", {"root": ""}, "id"),
        ("--root=a=b", {"root": "a=b"}, ""),
        ("--root - id", {"root": "-"}, "id"),
        ("--root --force id", {"root": "--force"}, "id"),
        ("--root a --root b", {"root": "b"}, ""),
        ("id --force", {"force": True}, "id"),
        ("-f id", {"force": True}, "id"),
        ("--force=true", {"force": True}, ""),
        ("--force=false", {"force": False}, ""),
        ("--force --force=0", {"force": False}, ""),
        ("-force=T", {"force": True}, ""),
        ("--force true", {"force": True}, "true"),
        ("-no-subreaper id", {"no-subreaper": True}, "id"),
        ("-- --force", {}, "--force"),
        ("a -- -f b", {}, "a -f b"),
        ("- -f", {"force": True}, "-"),
        ("-n 12", {"number": 12}, ""),
        ("-e A=1 --env=B=2", {"env": ["A=1", "B=2"]}, ""),
    ],
)
def test_parse(argv: str, values: dict[str, Any], rest: str) -> None:
    assert command.parse(argv.split(), FLAGS, False) == (values, rest.split())


def test_parse_stops_at_the_first_positional() -> None:
    assert command.parse(["-f", "id", "-f", "--x"], FLAGS, True) == ({"force": True}, ["id", "-f", "--x"])


@pytest.mark.parametrize(
    "argv",
    [
        "--bogus", "-x", "-fn", "--root", "-r", "--number", "-n x", "--number=", "-n -1", "-n 1.5", "-n 99999999999",
        "--force=yes", "--force=", "--=x",
    ],
)  # fmt: skip
def test_parse_refuses(argv: str) -> None:
    with pytest.raises(UsageError):
        command.parse(argv.split(), FLAGS, False)


def test_every_table_is_sound() -> None:
    for name in cli.VERBS:
        module = cli.load_verb(name)
        flags = [*module.FLAGS, ("help", "h", "", "bool", "x")]
        names = [flag[0] for flag in flags] + [flag[1] for flag in flags if flag[1]]
        assert len(names) == len(set(names)), name
        for long, short, metavar, kind, text in flags:
            assert re.fullmatch(r"[a-z][a-z0-9-]+", long) and len(short) <= 1 and text
            assert kind in ("str", "int", "bool", "multi") and bool(metavar) == (kind != "bool")
        assert module.USAGE.startswith(name) and module.SUMMARY
        assert 0 <= module.ARGS[0] <= module.ARGS[1]


# -- what engines send (docs/callers.md) -----------------------------------------------------------

ID = "0123456789abcdef" * 4
G = "--root /run/containerd/runc/k8s.io --log LOG --log-format json"


class Calls:
    """A Launch that records its arguments instead of creating containers."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, create.CreateOptions]] = []

    def create(self, opts: create.CreateOptions) -> None:
        self.seen.append(("create", opts))

    def run(self, opts: run.RunOptions) -> int:
        self.seen.append(("run", opts))
        return 7


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls()
    monkeypatch.setattr(create, "create", made.create)
    monkeypatch.setattr(run, "run", made.run)
    return made


RECORDED = [
    (f"{G} create --bundle /B --pid-file /B/init.pid {ID}", {"bundle": "/B", "pid_file": "/B/init.pid"}),
    (
        f"{G} create --bundle /B --pid-file /B/init.pid --console-socket /T/pty.sock --no-pivot --no-new-keyring {ID}",
        {"console_socket": "/T/pty.sock", "no_pivot": True, "no_new_keyring": True},
    ),
    (
        f"--log-format=json --log LOG create --bundle /B --pid-file /P --preserve-fds 2 --console-socket /S {ID}",
        {"preserve_fds": 2, "console_socket": "/S", "root": ""},
    ),
    (f"create --bundle /B --pid-file /P {ID}", {"pid_file": "/P"}),
    (f"--root=/R create --bundle /B --pid-file /P {ID}", {"root": "/R"}),
    (f"--cgroup-manager disabled create --bundle /B {ID}", {"cgroup_manager": "disabled"}),
    (f"--rootless=true --debug create -b /B {ID}", {"bundle": "/B"}),
    (f"--criu /usr/sbin/criu create -bundle /B -pid-file=/P {ID}", {"bundle": "/B", "pid_file": "/P"}),
    (f"create {ID} --bundle /B --pidfd-socket /S", {"bundle": "/B", "pidfd_socket": "/S"}),
    (f"create -b /B -f /etc/c.json {ID}", {"config": "/etc/c.json"}),
    (f"create --config /etc/c.json -b /B {ID}", {"config": "/etc/c.json"}),
]


@pytest.mark.parametrize(("line", "expected"), RECORDED)
def test_recorded_creates(
    calls: Calls, tmp_path: Path, capfd: pytest.CaptureFixture[str], line: str, expected: dict[str, Any]
) -> None:
    assert cli.main(line.replace("LOG", str(tmp_path / "log")).split()) == 0
    ((verb, opts),) = calls.seen
    assert (verb, opts.id) == ("create", ID)
    for name, value in expected.items():
        assert getattr(opts, name) == value, name
    untouched = {"no_new_keyring": False, "no_pivot": False, "seccomp_log": False, "preserve_fds": 0}
    for name, value in untouched.items():
        assert name in expected or getattr(opts, name) == value, name
    assert opts.detach and not hasattr(opts, "keep"), "nobody stays with the container"
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("given", [(), ("detach",), ("keep",), ("no-subreaper",), ("detach", "keep", "no-subreaper")])
def test_the_options_that_only_run_has(calls: Calls, given: tuple[str, ...]) -> None:
    assert cli.main(["run", "-b", "/B", *(f"--{name}" for name in given), ID]) == 7
    ((verb, opts),) = calls.seen
    found = {name for name in ("detach", "keep", "no-subreaper") if getattr(opts, name.replace("-", "_"))}
    assert (verb, opts.id, opts.bundle, found) == ("run", ID, "/B", set(given))


EXECS = [
    (
        f"{G} exec --process /T/runc-process1 --console-socket /S --detach --pid-file /B/e1.pid {ID}",
        {"process": "/T/runc-process1", "console_socket": "/S", "detach": True, "pid_file": "/B/e1.pid"},
    ),
    (
        f"--log-format=json --log LOG exec --pid-file /P --process /F --detach --tty --console-socket /S {ID}",
        {"process": "/F", "detach": True, "flags": {"tty": True}},
    ),
    (f"exec --pid-file /P --process /F --detach --preserve-fds 2 {ID}", {"preserve_fds": 2, "detach": True}),
    (f"--root=/R exec --process /F {ID}", {"process": "/F", "root": "/R", "detach": False}),
    (f"exec -process /F -detach -pid-file=/P {ID}", {"process": "/F", "detach": True, "pid_file": "/P"}),
    (f"exec -t -e A=1 --env B=2 -u 1:2 {ID} sh -c -t", {"args": ["sh", "-c", "-t"], "process": ""}),
    (f"exec --tty=false -c CAP_KILL -g 5 --cwd /x {ID} true", {"flags": {"tty": False, "cwd": "/x"}}),
    (f"exec --ignore-paused --cgroup sub --pidfd-socket /S {ID} true", {"ignore_paused": True, "cgroup": ["sub"]}),
    (f"exec {ID} -- -x", {"args": ["--", "-x"]}),
]


@pytest.mark.parametrize(("line", "expected"), EXECS)
def test_recorded_execs(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    line: str,
    expected: dict[str, Any],
) -> None:
    seen: list[exec.ExecOptions] = []

    def execute(opts: exec.ExecOptions) -> int:
        seen.append(opts)
        return 5

    monkeypatch.setattr(exec, "execute", execute)
    assert cli.main(line.replace("LOG", str(tmp_path / "log")).split()) == 5
    (opts,) = seen
    assert opts.id == ID
    for name, value in expected.items():
        found = getattr(opts, name)
        if name == "flags":
            assert value.items() <= found.items()
        else:
            assert found == value, name
    assert capfd.readouterr() == ("", "")


def test_exec_in_an_empty_environment(tmp_path: Path) -> None:
    """podman calls with few variables or none; its error is exec's own exit status and one line in
    the log."""
    log = tmp_path / "log"
    argv = ["--root", str(tmp_path / "no"), "--log", str(log), "--log-format=json", "exec", "--process", "/F", "x"]
    code = f"import sys; sys.path.insert(0, {str(Path(cli.__file__).parent.parent)!r})\n"
    code += f"from pyrunc import cli; sys.exit(cli.main({argv!r}))"
    done = subprocess.run([sys.executable, "-I", "-c", code], env={}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (255, "")
    assert done.stderr == "pyrunc: error: container does not exist: x\n"
    (line,) = log.read_text().splitlines()
    assert (json.loads(line)["level"], json.loads(line)["msg"]) == ("error", "container does not exist: x")


def test_exec_without_a_command(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["exec", "c"]) == 255
    assert capfd.readouterr().err == "pyrunc: error: exec: expected a command or --process FILE\n"


def test_run_returns_the_programs_status(calls: Calls) -> None:
    assert cli.main(["run", "-d", "--keep", "-no-subreaper", "-b", "/B", "c"]) == 7
    opts: Any = calls.seen[0][1]
    assert (opts.detach, opts.keep, opts.no_subreaper, opts.bundle) == (True, True, True, "/B")


def test_the_bundle_is_the_working_directory(calls: Calls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["create", "c"]) == 0
    assert os.path.samefile(calls.seen[0][1].bundle, tmp_path)


@pytest.mark.parametrize("option", ["--systemd-cgroup", "--cgroup-manager=systemd", "-systemd-cgroup=true"])
def test_systemd_driver(calls: Calls, tmp_path: Path, option: str) -> None:
    """The flag applies to create and run; other verbs accept it, and use the driver of the
    container."""
    for verb, status in (("create", 0), ("run", 7)):
        assert cli.main([option, verb, "c"]) == status
        assert calls.seen[-1][1].cgroup_manager == "systemd"
    (tmp_path / "root").mkdir(mode=0o700)
    for words in (["delete", "--force", "c"], ["list"]):
        assert cli.main(["--root", str(tmp_path / "root"), option, *words]) == 0
    assert cli.main(["--systemd-cgroup=false", "create", "c"]) == 0
    assert calls.seen[-1][1].cgroup_manager == "cgroupfs"


# -- errors ----------------------------------------------------------------------------------------

WRONG = [
    (["--bogus", "state", "c"], 'unknown option "--bogus"'),
    (["--sytemd-cgroup", "state", "c"], 'unknown option "--sytemd-cgroup"; did you mean --systemd-cgroup?'),
    (
        ["-b", "/B", "run", "c"],
        'unknown option "-b" before the command; it is an option of create, doctor, plan, restore, run, seccomp, spec',
    ),
    (["run", "--budle=/B", "c"], 'run: unknown option "--budle=/B"; did you mean --bundle?'),
    (
        ["run", "--root", "/r", "c"],
        'run: unknown option "--root"; it is a global option, which goes before the command',
    ),
    (["state", "--bogus", "c"], 'state: unknown option "--bogus"'),
    (["state"], "state: expected 1 argument, got 0"),
    (["state", "a", "b"], "state: expected 1 argument, got 2"),
    (["kill"], "kill: expected 1 or 2 arguments, got 0"),
    (["kill", "c", "9", "x"], "kill: expected 1 or 2 arguments, got 3"),
    (["plan", "c", "x"], "plan: expected 0 or 1 argument, got 2"),
    (["events"], "events: expected at least 1 argument, got 0"),
    (["ps"], "ps: expected at least 1 argument, got 0"),
    (["list", "x"], "list: expected 0 arguments, got 1"),
    (["create", "--bundle"], "create: flag needs an argument: --bundle DIR"),
    (["create", "--preserve-fds", "x", "c"], "create: option"),
    (["--root"], "flag needs an argument: --root DIR"),
    (["--log-format", "xml", "state", "c"], '--log-format "xml": expected text or json'),
    (["--cgroup-manager", "x", "state", "c"], '--cgroup-manager "x": expected'),
    (["--rootless", "x", "state", "c"], '--rootless "x": expected'),
    (["list", "-f", "xml"], "--format"),
    (["kill", "c", "BOGUS"], 'unknown signal "BOGUS": expected a number or a name such as TERM'),
    (["kill", "c", "SIGTEMR"], 'unknown signal "SIGTEMR"; did you mean TERM?'),
    (["kill", "c", "99"], 'unknown signal "99": expected a number from 0 to 64'),
    (["kill", "c", "-1"], "kill: unknown option"),
    (["create", ""], "container id cannot be empty"),
    (["run", ""], "container id cannot be empty"),
    (["create", "."], 'invalid container ID format: "."'),
    (["run", ".."], 'invalid container ID format: ".."'),
    (["state", "../x"], "invalid container ID format"),
    (["--root", "/", "state", "c"], "root directory"),
]
NO_COMMANDS = [
    (["nonsense"], 'unknown command "nonsense"; `pyrunc help` lists them'),
    (["help", "nonsense"], 'unknown command "nonsense"'),
    (["craete", "c"], 'unknown command "craete"; did you mean create?'),
    (["sta"], 'unknown command "sta"'),
    (["stat", "c"], 'unknown command "stat"; did you mean start or state?'),
    (["hlep"], 'unknown command "hlep"; did you mean help?'),
    (["x" * 100_000], 'unknown command "xxx'),
]


@pytest.mark.parametrize(("argv", "words"), WRONG)
def test_wrong_command_lines(capfd: pytest.CaptureFixture[str], argv: list[str], words: str) -> None:
    assert cli.main(argv) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("pyrunc: error: ") and words in err


@pytest.mark.parametrize(("argv", "words"), NO_COMMANDS)
def test_unknown_commands(capfd: pytest.CaptureFixture[str], argv: list[str], words: str) -> None:
    """Status 3, as in runc: the caller can distinguish it from a failure of the container."""
    assert cli.main(argv) == 3
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and len(err) < 400
    assert err.startswith("pyrunc: error: ") and words in err


@pytest.mark.parametrize(
    "argv", [["state", ""], ["state"], ["state", "--bogus"], ["state", "no-such"], ["kill", "no-such", "KILL"]]
)
@pytest.mark.parametrize("format", ["text", "json"])
def test_each_failure_is_one_line_in_the_log_and_the_same_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], argv: list[str], format: str
) -> None:
    log = tmp_path / "log"
    for round in (1, 2):
        assert cli.main(["--root", str(tmp_path / "r"), "--log", str(log), "--log-format", format, *argv]) == 1
        err = capfd.readouterr().err
        lines = log.read_text().splitlines()
        assert len(lines) == round  # also the second time: engines read the last one
        if format == "json":
            entry = json.loads(lines[-1])
            assert entry["level"] == "error"
            assert err == f"pyrunc: error: {entry['msg']}\n"
        else:
            match = re.fullmatch(r'time="[^"]+" level=error msg="((?:[^"\\]|\\.)*)"', lines[-1])
            assert match and err == "pyrunc: error: " + re.sub(r"\\(.)", r"\1", match[1]) + "\n"


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (PyruncError("plain"), 1, "plain"),
        (UsageError("wrong"), 1, "state: wrong"),
        (OSError(28, "x", "/a\nb"), 1, "/a\\u000ab: ENOSPC: no space left on device"),
        (OSError(28, "x", b"/a\xff"), 1, "ENOSPC"),
        (OSError(28, "x"), 1, "ENOSPC: no space left on device"),
        (BrokenPipeError(32, "x"), 1, "EPIPE"),
        (MemoryError(), 1, "out of memory"),
        (RuntimeError("can't allocate lock"), 1, "out of memory"),
        (RuntimeError("can't start new thread"), 1, "cannot start a thread"),
        (RuntimeError("bug"), 1, "internal error: RuntimeError: bug"),
        (SystemError("NULL without an exception"), 1, "out of memory (or a defect of the interpreter)"),
        (RecursionError(), 1, "nested too deeply"),
        (KeyboardInterrupt(), 1, "interrupted"),
        (TypeError("bug\udcff"), 1, "internal error: TypeError: bug\\udcff"),
        (PyruncError("two\nlines\x1b[1m"), 1, "two\\u000alines\\u001b[1m"),
    ],
)
@pytest.mark.parametrize("debug", [False, True])
def test_no_exception_gets_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    words: str,
    debug: bool,
) -> None:
    def broken(*args: Any) -> None:
        raise error

    monkeypatch.setattr(state.Store, "open", broken)
    log = tmp_path / "log"
    assert cli.main([f"--debug={str(debug).lower()}", "--log", str(log), "state", "c"]) == status
    out, err = capfd.readouterr()
    first, *frames = err.splitlines()
    assert out == "" and first.startswith("pyrunc: error: ") and words in first
    assert bool(frames) == debug
    assert log.read_text().count("level=error") == 1


def test_exit_code_of_an_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    class Other(PyruncError):
        exit_code = 255

    def broken(*args: Any) -> None:
        raise Other("x")

    monkeypatch.setattr(state.Store, "open", broken)
    assert cli.main(["state", "c"]) == 255


def test_a_log_that_cannot_be_opened(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--log", "/nowhere/log", "state", "c"]) == 1
    err = capfd.readouterr().err
    assert err.startswith('pyrunc: error: --log "/nowhere/log": open: ENOENT') and err.count("\n") == 1


# -- help and version ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv", [[], ["help"], ["h"], ["--help"], ["-h"], ["-help"], ["--debug", "-h"], ["help", "help"], ["help", "h"]]
)
def test_help(capfd: pytest.CaptureFixture[str], argv: list[str]) -> None:
    assert cli.main(argv) == 0
    out, err = capfd.readouterr()
    assert err == ""
    for name in (*cli.VERBS, *("--" + flag[0] for flag in cli.GLOBAL_FLAGS)):
        assert name in out


@pytest.mark.parametrize("name", cli.VERBS)
def test_help_of_a_verb(capfd: pytest.CaptureFixture[str], name: str) -> None:
    texts = []
    spellings = [[name, "--help"], [name, "-h"], ["help", name]]
    if not getattr(cli.load_verb(name), "STOP_AT_FIRST", False):
        spellings.append([name, "x", "--help"])
    for argv in spellings:
        assert cli.main(argv) == 0
        out, err = capfd.readouterr()
        assert err == ""
        texts.append(out)
    assert len(set(texts)) == 1
    for flag in cli.load_verb(name).FLAGS:
        assert f"--{flag[0]}" in texts[0] and flag[4] in texts[0]


@pytest.mark.parametrize("argv", [["--version"], ["-v"], ["-version"], ["--version", "state"]])
def test_version(capfd: pytest.CaptureFixture[str], argv: list[str]) -> None:
    pytest.importorskip("pyrunc._shim", reason="the extension is not built")
    assert cli.main(argv) == 0
    lines = capfd.readouterr().out.splitlines()
    assert re.fullmatch(r"pyrunc version \d+\.\d+\.\d+\S*", lines[0])
    assert re.fullmatch(r"commit: \S+", lines[1])
    assert lines[2] == "spec: 1.3.0"
    assert re.fullmatch(r"libseccomp: \d+\.\d+\.\d+", lines[3])
    assert lines[4] == "python: " + sys.version.split()[0]


# -- whole processes -------------------------------------------------------------------------------


def process(*argv: str, **rest: Any) -> subprocess.CompletedProcess[bytes]:
    root = Path(__file__).resolve().parent.parent
    return subprocess.run([sys.executable, "-m", "pyrunc", *argv], cwd=root, capture_output=True, timeout=60, **rest)


def test_a_full_stdout_is_an_error() -> None:
    root = Path(__file__).resolve().parent.parent
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pyrunc", "--help"], cwd=root, stdout=full, stderr=subprocess.PIPE, timeout=60
        )
    assert done.returncode == 1
    assert done.stderr == b"pyrunc: error: stdout: write: ENOSPC: no space left on device\n"


def test_an_empty_environment_is_enough(tmp_path: Path) -> None:
    done = process("--root", str(tmp_path), "state", "c", env={})
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"pyrunc: error: container does not exist: c\n")


def test_arguments_that_are_not_text() -> None:
    done = process("state", b"\xff\xfe")  # type: ignore[arg-type]
    assert done.returncode == 1 and done.stdout == b""
    assert done.stderr.startswith(b"pyrunc: error: invalid container ID format") and done.stderr.count(b"\n") == 1


def test_a_traceback_only_with_debug(tmp_path: Path) -> None:
    for debug in ([], ["--debug"]):
        done = process(*debug, "--root", str(tmp_path), "state", "c")
        assert done.returncode == 1
        assert (len(done.stderr.splitlines()) > 1) == bool(debug)
    assert errors.frames(ValueError("x")) == "ValueError: x\n"
