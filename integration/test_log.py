"""--log and stderr: engines parse errors, and success prints nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container, Result

Make = Callable[..., Container]
RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)"
BROKEN = {"/mounts/-": {"destination": "/mnt", "type": "bind", "source": "/no/such/source", "options": ["bind"]}}
WARNS = {"/process/capabilities/effective/-": "CAP_BOGUS", "/process/capabilities/bounding/-": "CAP_BOGUS"}


def _create(one: Container, *globals_: str) -> Result:
    one.bundle.save()
    return one.call("create", "-b", str(one.bundle.path), one.id, globals_=globals_, check=False)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_json_error(container: Make, box: Box) -> None:
    log = box.path / "log.json"
    result = _create(container(edits=BROKEN), "--log", str(log), "--log-format", "json")
    assert result.rc == 1
    last = [line for line in lines_of(log) if line["level"] == "error"][-1]
    assert list(last) == ["level", "msg", "time"]
    assert re.fullmatch(RFC3339, last["time"])
    datetime.fromisoformat(last["time"].replace("Z", "+00:00"))
    assert "/no/such/source" in last["msg"]
    assert last["msg"] in result.err, "stderr has the same text"


def test_text_error(container: Make, box: Box) -> None:
    log = box.path / "log"
    result = _create(container(edits=BROKEN), f"--log={log}")
    last = log.read_text().splitlines()[-1]
    match = re.fullmatch(rf'time="{RFC3339}" level=error msg="(.*)"', last)
    assert match, last
    assert "/no/such/source" in last
    assert result.err.strip(), "stderr has the error too"


def test_log_is_appended_to(container: Make, box: Box) -> None:
    log = box.path / "log.json"
    log.write_text('{"level":"error","msg":"older","time":"2026-01-01T00:00:00Z"}\n')
    _create(container(edits=BROKEN), "--log", str(log), "--log-format=json")
    box.runtime.call("--root", str(box.root), "--log", str(log), "--log-format=json", "start", "missing")
    found = [line["msg"] for line in lines_of(log) if line["level"] == "error"]
    assert found[0] == "older"
    assert len(found) >= 3
    assert "does not exist" in found[-1]


@pytest.mark.parametrize("verb", ["start", "state", "kill", "delete"])
def test_every_failing_verb_writes_its_error(box: Box, verb: str) -> None:
    log = box.path / "log.json"
    result = box.runtime.call("--root", str(box.root), "--log", str(log), "--log-format=json", verb, "missing")
    assert result.rc == 1
    assert "does not exist" in lines_of(log)[-1]["msg"]
    assert "does not exist" in result.err


def test_success_is_silent(container: Make, box: Box) -> None:
    """Callers merge stdout and stderr, and decode the output of `state` from it."""
    log = box.path / "log"
    one = container("exit", "0", edits=WARNS)
    one.bundle.save()
    options = ["--log", str(log)]
    created = one.call("create", "-b", str(one.bundle.path), one.id, globals_=options)
    others = [one.call(verb, one.id, globals_=options) for verb in ("state", "start")]
    assert created.out + created.err == ""
    json.loads(others[0].out + others[0].err)
    assert others[1].out + others[1].err == ""
    wait = one.state
    while wait()["status"] != "stopped":
        pass
    deleted = one.call("delete", one.id, globals_=options)
    assert deleted.out + deleted.err == ""
    assert "level=warning" in log.read_text(), "the warning is in the log"
    assert "level=error" not in log.read_text()


@pytest.mark.pyrunc_only("runc prints them there, and they become part of the container's output")
def test_warnings_without_a_log_stay_out_of_the_programs_output(container: Make) -> None:
    """The stderr of create and exec belongs to the program; conmon and containerd's shim pass it
    on."""
    one = container("signals", "60", edits=WARNS)
    assert one.create().err == ""
    assert one.start().err == ""
    assert one.call("exec", "--cap", "CAP_BOGUS", one.id, "/probe", "exit", "0").err == ""
    json.loads(one.call("state", one.id).err + one.call("state", one.id).out)


def test_warnings_without_a_log_are_on_stderr(container: Make) -> None:
    """runtime.md and config.md require them to be logged, and no other place exists."""
    one = container("exit", "0", edits=WARNS)
    result = one.run(check=False)
    assert result.rc == 0 and "warning" in result.err and "CAP_BOGUS" in result.err
    if one.box.runtime.is_pyrunc:
        for line in result.err.splitlines():
            assert line.startswith("pyrunc: warning: config.json: /process/")


def test_a_failing_poststop_hook_is_reported(container: Make, box: Box) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", "echo gone wrong >&2; exit 5"]}
    one = container("exit", "0", edits={"/hooks/poststop": [hook]})
    one.create()
    result = one.delete(check=False)
    assert "poststop hook" in result.err and "5" in result.err
    if box.runtime.is_pyrunc:  # an error in runc, where `delete` fails
        assert result.rc == 0
        assert result.err.startswith("pyrunc: warning: /hooks/poststop/0 ") and "gone wrong" in result.err


@pytest.mark.pyrunc_only("runc has them in the log alone then")
@pytest.mark.parametrize("log", ["none", "file"])
@pytest.mark.parametrize("verb", ["create", "run"])
def test_warnings_are_on_a_terminal(container: Make, box: Box, verb: str, log: str) -> None:
    """Only a person reads a terminal; engines do not pass one to a runtime."""
    one = container("exit", "0", edits=WARNS)
    one.bundle.save()
    master, slave = os.openpty()
    options = ["--log", str(box.path / "log")] if log == "file" else []
    argv = box.runtime.argv("--root", str(box.root), *options, verb, "-b", str(one.bundle.path), one.id)
    done = subprocess.run(argv, check=False, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, stderr=slave)
    os.close(slave)
    text = os.read(master, 65536).decode()
    os.close(master)
    assert done.returncode == 0
    assert text.count("pyrunc: warning: config.json: /process/capabilities/") == 2, text
    if log == "file":
        assert (box.path / "log").read_text().count("level=warning") == 2


def test_debug_goes_to_the_log(container: Make, box: Box) -> None:
    log = box.path / "log.json"
    one = container("exit", "0")
    one.bundle.save()
    result = one.call(
        "create", "-b", str(one.bundle.path), one.id, globals_=["--debug", "--log", str(log), "--log-format=json"]
    )
    assert result.err == ""
    levels = {line["level"] for line in lines_of(log)}
    assert "debug" in levels


def test_odd_bytes_stay_valid_json(container: Make, box: Box) -> None:
    log = box.path / "log.json"
    edits = {"/mounts/-": {"destination": "/mnt", "type": "bind", "source": '/no/"quote\\ü\n\tx', "options": ["bind"]}}
    result = _create(container(edits=edits), "--log", str(log), "--log-format=json")
    assert result.rc == 1
    assert lines_of(log)[-1]["level"] == "error"
    if box.runtime.is_pyrunc:
        assert len(result.err.splitlines()) == 1


def test_unknown_log_format(box: Box) -> None:
    assert box.runtime.call("--log", str(box.path / "log"), "--log-format", "xml", "list").rc == 1


def test_log_that_cannot_be_opened(container: Make, box: Box) -> None:
    result = _create(container("exit", "0"), "--log", "/no/such/dir/log")
    assert result.rc == 1
    assert "/no/such/dir/log" in result.err
    assert not box.leftovers()


def test_concurrent_writers_do_not_tear_lines(box: Box) -> None:
    import subprocess

    log = box.path / "log.json"
    argv = box.runtime.argv("--root", str(box.root), "--log", str(log), "--log-format=json", "state", "missing")
    children = [subprocess.Popen(argv, stderr=subprocess.DEVNULL) for _ in range(8)]
    for child in children:
        assert child.wait(20) == 1
    assert len([line for line in lines_of(log) if line["level"] == "error"]) == 8


def test_log_through_a_descriptor_path(container: Make, box: Box) -> None:
    """conmon and systemd units pass /dev/stderr or /proc/self/fd/N."""
    one = container(edits=BROKEN)
    one.bundle.save()
    options = ["--log", "/dev/stderr", "--log-format=json"]
    result = one.call("create", "-b", str(one.bundle.path), one.id, globals_=options, check=False, err=box.path / "err")
    assert '"level":"error"' in result.err
