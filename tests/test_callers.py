"""Recorded command lines, environments and expectations of real callers, tested without the
callers.

containerd 1.6 and 2.3 (through go-runc), dockerd 20.10, podman 4.3 and conmon 2.1, CRI-O 1.36.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pyrunc import cli, command

ROOT = Path(__file__).resolve().parent.parent
EXECUTABLE = ROOT / ".venv/bin/pyrunc"
ID = "f" * 64
SHIM = "--root /run/containerd/runc/k8s.io --log /b/log.json --log-format json"
SHIM_VALUES = {"root": "/run/containerd/runc/k8s.io", "log": "/b/log.json", "log-format": "json"}

# caller, command line, global options, verb, its options, its arguments
Call = tuple[str, str, dict[str, Any], str, dict[str, Any], list[str]]
CALLS: list[Call] = [
    (
        "containerd", f"{SHIM} create --bundle /b --pid-file /b/init.pid {ID}",
        SHIM_VALUES, "create", {"bundle": "/b", "pid-file": "/b/init.pid"}, [ID],
    ),
    (
        "containerd", f"{SHIM} --systemd-cgroup create --bundle /b --pid-file /b/init.pid "
        f"--console-socket /t/pty1/pty.sock --no-pivot --no-new-keyring {ID}",
        SHIM_VALUES | {"systemd-cgroup": True}, "create",
        {"bundle": "/b", "pid-file": "/b/init.pid", "console-socket": "/t/pty1/pty.sock", "no-pivot": True,
         "no-new-keyring": True},
        [ID],
    ),
    ("containerd", f"{SHIM} start {ID}", SHIM_VALUES, "start", {}, [ID]),
    ("containerd", f"{SHIM} delete {ID}", SHIM_VALUES, "delete", {}, [ID]),
    ("containerd", f"{SHIM} delete --force {ID}", SHIM_VALUES, "delete", {"force": True}, [ID]),
    (
        "containerd", f"{SHIM} exec --process /t/p1 --console-socket /t/pty.sock --detach --pid-file /b/e {ID}",
        SHIM_VALUES, "exec",
        {"process": "/t/p1", "console-socket": "/t/pty.sock", "detach": True, "pid-file": "/b/e"}, [ID],
    ),
    ("containerd", f"{SHIM} ps --format json {ID}", SHIM_VALUES, "ps", {"format": "json"}, [ID]),
    ("containerd", f"{SHIM} pause {ID}", SHIM_VALUES, "pause", {}, [ID]),
    ("containerd", f"{SHIM} resume {ID}", SHIM_VALUES, "resume", {}, [ID]),
    ("containerd", f"{SHIM} kill {ID} 15", SHIM_VALUES, "kill", {}, [ID, "15"]),
    ("containerd", f"{SHIM} kill --all {ID} 9", SHIM_VALUES, "kill", {"all": True}, [ID, "9"]),
    ("containerd 1.6", f"{SHIM} update --resources - {ID}", SHIM_VALUES, "update", {"resources": "-"}, [ID]),
    ("containerd 2.3", f"{SHIM} update --resources=- {ID}", SHIM_VALUES, "update", {"resources": "-"}, [ID]),
    ("containerd 2.3", "features", {}, "features", {}, []),
    (
        "conmon for podman", "--log-format=json --log /u/oci-log create --bundle /b --pid-file /u/pidfile "
        f"--preserve-fds 1 --console-socket /t/conmon-term.A1B2C3 {ID}",
        {"log-format": "json", "log": "/u/oci-log"}, "create",
        {"bundle": "/b", "pid-file": "/u/pidfile", "preserve-fds": 1, "console-socket": "/t/conmon-term.A1B2C3"}, [ID],
    ),
    (
        "conmon for podman", f"create --bundle /b --pid-file /u/pidfile {ID}",
        {}, "create", {"bundle": "/b", "pid-file": "/u/pidfile"}, [ID],
    ),
    (
        "conmon for podman", "--log-format=json --log=/u/exec/oci-log exec --pid-file /u/e --process /u/process "
        f"--detach --tty --preserve-fds 2 --console-socket /t/conmon-term.D4 {ID}",
        {"log-format": "json", "log": "/u/exec/oci-log"}, "exec",
        {"pid-file": "/u/e", "process": "/u/process", "detach": True, "tty": True, "preserve-fds": 2,
         "console-socket": "/t/conmon-term.D4"}, [ID],
    ),
    (
        "conmon for podman", f"--cgroup-manager disabled create --bundle /b --pid-file /u/pidfile {ID}",
        {"cgroup-manager": "disabled"}, "create", {"bundle": "/b", "pid-file": "/u/pidfile"}, [ID],
    ),
    ("podman", f"kill --all {ID} 10", {}, "kill", {"all": True}, [ID, "10"]),
    ("podman", f"delete --force {ID}", {}, "delete", {"force": True}, [ID]),
    ("podman", f"update --resources=/u/resources.json {ID}", {}, "update", {"resources": "/u/resources.json"}, [ID]),
    (
        "conmon for CRI-O", f"--root=/run/pyrunc --systemd-cgroup create --bundle /b --pid-file /p {ID}",
        {"root": "/run/pyrunc", "systemd-cgroup": True}, "create", {"bundle": "/b", "pid-file": "/p"}, [ID],
    ),
    ("CRI-O", f"--root /run/pyrunc state {ID}", {"root": "/run/pyrunc"}, "state", {}, [ID]),
    ("CRI-O", f"--root /run/pyrunc kill {ID} KILL", {"root": "/run/pyrunc"}, "kill", {}, [ID, "KILL"]),
    ("CRI-O", f"--root /run/pyrunc kill -a {ID} 9", {"root": "/run/pyrunc"}, "kill", {"all": True}, [ID, "9"]),
    ("CRI-O", f"--root /run/pyrunc exec --process /p {ID}", {"root": "/run/pyrunc"}, "exec", {"process": "/p"}, [ID]),
    ("go-runc", f"-root r -debug=t kill -all=1 {ID} 9", {"root": "r", "debug": True}, "kill", {"all": True}, [ID, "9"]),
    (
        "go-runc", f"--rootless=true run -no-subreaper -d {ID}",
        {"rootless": "true"}, "run", {"no-subreaper": True, "detach": True}, [ID],
    ),
    ("go-runc", f"ps --format table {ID} -o pid,cmd", {}, "ps", {"format": "table"}, [ID, "-o", "pid,cmd"]),
]  # fmt: skip


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}: {call[1].replace(ID, 'ID')}")
def test_recorded_command_lines_are_understood(call: Call) -> None:
    _, line, global_values, verb, values, args = call
    found, rest = command.parse(line.split(), cli.GLOBAL_FLAGS, stop_at_first=True)
    assert (found, rest[0]) == (global_values, verb)
    module = cli.load_verb(verb)
    assert command.parse(rest[1:], module.FLAGS, getattr(module, "STOP_AT_FIRST", False)) == (values, args)
    assert module.ARGS[0] <= len(args) <= module.ARGS[1]


EVERY_FLAG = [(verb, flag) for verb in cli.VERBS for flag in cli.load_verb(verb).FLAGS]
EVERY_FLAG += [("", flag) for flag in cli.GLOBAL_FLAGS]


@pytest.mark.parametrize(("verb", "flag"), EVERY_FLAG, ids=lambda value: value if isinstance(value, str) else value[0])
def test_every_spelling_of_every_option(verb: str, flag: command.Flag) -> None:
    """One dash or two, the value behind a space or an equals sign, before the id or (but for exec
    and ps) behind it."""
    module = cli.load_verb(verb) if verb else None
    flags, first = (module.FLAGS, getattr(module, "STOP_AT_FIRST", False)) if module else (cli.GLOBAL_FLAGS, True)
    text, value = {"int": ("3", 3), "multi": ("x", ["x"]), "bool": ("true", True)}.get(flag[3], ("x", "x"))
    assert flag[0]
    for name in ([flag[1]] if flag[1] else []) + [flag[0]]:
        for dash in ("-", "--"):
            spellings = [[f"{dash}{name}={text}"], [dash + name] if flag[3] == "bool" else [dash + name, text]]
            for words in spellings:
                assert command.parse([*words, ID], flags, first) == ({flag[0]: value}, [ID]), words
                if not first:
                    assert command.parse([ID, *words], flags, first) == ({flag[0]: value}, [ID]), words


# -- what the executable answers -------------------------------------------------------------------

# Recorded environments; irrelevant values are shortened.
ENVIRONMENTS = {
    "containerd": {"PATH": "/usr/bin", "GOMAXPROCS": "2", "LD_LIBRARY_PATH": "/opt/lib", "TTRPC_ADDRESS": "/x.ttrpc"},
    "podman kill": {"XDG_RUNTIME_DIR": ""},
    "conmon": {"_OCI_SYNCPIPE": "5", "_OCI_STARTPIPE": "6", "XDG_RUNTIME_DIR": "", "PATH": "/usr/bin", "HOME": "/root"},
    "CRI-O": {"CRI_O_EXTERNAL": "1", "PATH": "/usr/bin", "XDG_RUNTIME_DIR": "/run/user/0"},
    "nothing": {},
    "a hostile one": {"PYTHONPATH": ".", "PYTHONHOME": "/nowhere", "PYTHONSTARTUP": "json.py", "PYTHONINSPECT": "1"},
}


@pytest.fixture(params=sorted(ENVIRONMENTS))
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Call the executable as go-runc does: stdout and stderr in one pipe, a listening socket leaked
    as descriptor 3."""
    if not EXECUTABLE.exists():
        pytest.skip("not built: make build")
    (tmp_path / "json.py").write_text("raise SystemExit('imported from the working directory')\n")

    def call(*argv: str) -> tuple[int, str]:
        with socket.socket(socket.AF_UNIX) as leaked:
            leaked.bind(str(tmp_path / "s"))
            leaked.listen()
            done = subprocess.run(
                [EXECUTABLE, *argv], env=ENVIRONMENTS[request.param], cwd=tmp_path, pass_fds=(leaked.fileno(),),
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=20, check=False,
            )  # fmt: skip
        (tmp_path / "s").unlink()
        return done.returncode, done.stdout.decode()

    return call


def last_error(path: Path) -> str:
    """containerd's getLastRuntimeError: every line is an object with a strict time; the last error
    counts."""
    found = ""
    for line in path.read_text().splitlines():
        entry = json.loads(line)
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", entry["time"]), entry
        if entry["level"] == "error":
            found = entry["msg"]
    return found


def test_answers_in_every_environment(run: Any, tmp_path: Path) -> None:
    root, log = str(tmp_path / "root"), str(tmp_path / "log.json")
    shim = ("--root", root, "--log", log, "--log-format", "json")
    assert run(*shim, "delete", "--force", ID) == (0, ""), "unknown ids are no error, and there is nothing to say"
    code, text = run(*shim, "kill", ID, "9")
    assert code == 1 and text == f"pyrunc: error: container does not exist: {ID}\n"
    assert last_error(Path(log)) == f"container does not exist: {ID}"
    code, text = run(*shim, "create", "--bundle", str(tmp_path / "none"), ID)
    assert code == 1 and text.count("\n") == 1
    assert last_error(Path(log)) in text and "none" in last_error(Path(log)), "the log is shared: the last one counts"
    assert not Path(root, ID).exists()
    code, text = run("features")
    features = json.loads(text)
    assert code == 0 and features["ociVersionMin"] and features["ociVersionMax"]
    assert "rro" in features["mountOptions"] and features["linux"]["namespaces"]
    assert isinstance(features["linux"]["mountExtensions"]["idmap"]["enabled"], bool)
    code, text = run("--version")
    lines = text.splitlines()
    assert code == 0 and lines[0].startswith("pyrunc version ") and lines[1].startswith("commit: ")
    assert lines[2].startswith("spec: 1.")


def test_status_without_controlling_anything(tmp_path: Path) -> None:
    """podman's `kill` gets one variable, and an id that may belong to another runtime: no
    traceback, and no file is created."""
    if not EXECUTABLE.exists():
        pytest.skip("not built: make build")
    before = set(os.listdir(tmp_path))
    for verb in ("state", "start", "pause", "resume", "ps", "kill"):
        done = subprocess.run(
            [EXECUTABLE, "--root", str(tmp_path / "r"), verb, ID], env={"XDG_RUNTIME_DIR": ""}, cwd="/",
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, ""), verb
        assert done.stderr == f"pyrunc: error: container does not exist: {ID}\n", verb
    assert set(os.listdir(tmp_path)) == before
