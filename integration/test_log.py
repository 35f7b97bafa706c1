"""--log and stderr: what engines parse when something fails, and the silence when nothing does."""

from __future__ import annotations

import json
import re
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
    """Callers merge stdout and stderr, and decode `state` from that."""
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


@pytest.mark.pyrunc_only("runc prints warnings on stderr, where podman takes one for the error")
def test_warnings_without_a_log_stay_off_stderr(container: Make) -> None:
    one = container("exit", "0", edits=WARNS)
    created = one.create()
    assert created.err == ""
    assert one.start().err == ""


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
