"""The command line of `exec`, and its process file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE, PATH_ENV
from integration.machine import CAP_BIT
from integration.test_exec import Make, process_file, run, started, status_field


def test_environment(container: Make) -> None:
    one = started(container, edits={"/process/env": [PATH_ENV, "A=config", "B=config"]})
    seen = run(one, "/probe", "report", flags=("--env", "A=1", "--env=A=2", "-env", "C=")).report["env"]
    assert {"A=2", "B=config", "C="} <= set(seen)
    assert "A=1" not in seen
    assert "A=config" not in seen


def test_working_directory_and_user(container: Make) -> None:
    one = started(container, edits={"/process/user": {"uid": 5, "gid": 6, "additionalGids": [7]}})
    seen = run(one, "/probe", "report", flags=("--cwd", "/tmp", "-u", "1000", "-g", "8")).report
    assert (seen["cwd"], seen["uid"], seen["gid"]) == ("/tmp", [1000] * 3, [6] * 3)
    assert sorted(seen["groups"]) == [7, 8]
    assert run(one, "/probe", "report", flags=("--user", "1:2")).report["gid"] == [2] * 3


def test_a_name_in_passwd_does_not_win(container: Make) -> None:
    """CVE-2016-3697."""
    one = container("sleep", "600")
    (one.bundle.rootfs / "etc/passwd").unlink()
    (one.bundle.rootfs / "etc/passwd").write_text("1000:x:0:0::/root:/bin/sh\n")
    one.create()
    one.start()
    assert run(one, "/probe", "report", flags=("--user", "1000")).report["uid"] == [1000] * 3


@pytest.mark.parametrize(
    "user", ["1:", ":1", "+1", " 1", "4294967295", "4294967296", "root", "-1", "1:-1", "1:2:3", "1:x"]
)
def test_users_that_are_not_numbers(container: Make, user: str) -> None:
    """CVE-2026-30892: a lenient parser turned such users into root."""
    one = started(container)
    if user == "4294967296" and not one.box.runtime.is_pyrunc:
        pytest.skip("runc 1.1.5 makes root of it")
    result = run(one, "/probe", "report", flags=("--user=" + user,), check=False)
    assert result.rc != 0 or 0 not in result.report["uid"]
    if one.box.runtime.is_pyrunc:
        assert result.rc == 255
        assert "--user" in result.err


def test_options_end_at_the_id(container: Make) -> None:
    one = started(container)
    assert run(one, "/bin/echo", "-t", "--cwd", "x").out == "-t --cwd x\n"


def test_null_in_a_process_file_is_absent(container: Make) -> None:
    one = started(container)
    path = process_file(
        one, user={"uid": 5, "gid": 5, "additionalGids": None}, capabilities=None, rlimits=None, env=[PATH_ENV]
    )
    seen = one.call("exec", "--process", path, one.id).report
    assert (seen["uid"], seen["groups"]) == ([5] * 3, [])
    want = one.bundle.config["process"]["capabilities"]["bounding"]
    assert int(status_field(seen, "CapBnd"), 16) == sum(CAP_BIT[name] for name in want)


def test_process_file(container: Make) -> None:
    one = started(container)
    user = {"uid": 1000, "gid": 1000, "additionalGids": [9]}
    path = process_file(one, user=user, cwd="/tmp", env=[PATH_ENV, "X=y"], capabilities=DELETE)
    seen = one.call("exec", "--process", path, one.id).report
    assert (seen["uid"], seen["cwd"], seen["groups"]) == ([1000] * 3, "/tmp", [9])
    assert "X=y" in seen["env"]
    want = one.bundle.config["process"]["capabilities"]["bounding"]
    assert int(status_field(seen, "CapBnd"), 16) == sum(CAP_BIT[name] for name in want), "left out: the container's"


def test_empty_capabilities_of_a_process_file_are_none(container: Make) -> None:
    one = started(container)
    seen = one.call("exec", "--process", process_file(one, capabilities={}), one.id).report
    assert seen["caps"] == dict.fromkeys(seen["caps"], 0)


def test_process_file_is_relative_to_the_working_directory(container: Make) -> None:
    one = started(container)
    path = Path(process_file(one))
    assert one.call("exec", "-p", path.name, one.id, cwd=path.parent).report["uid"] == [0] * 3


def test_no_new_privileges_is_the_process_files(container: Make) -> None:
    """Engines omit the field if it is false."""
    one = started(container, edits={"/process/noNewPrivileges": True})
    path = process_file(one, noNewPrivileges=DELETE)
    assert status_field(one.call("exec", "-p", path, one.id).report, "NoNewPrivs") == "0"


@pytest.mark.pyrunc_only("runc's words differ")
@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"args": []}, "/process/args"),
        ({"args": DELETE}, "/process/args"),
        ({"cwd": "tmp"}, "/process/cwd"),
        ({"cwd": DELETE}, "/process/cwd"),
        ({"env": ["=x"]}, "/process/env/0"),
        ({"user": {"uid": -1}}, "/process/user/uid"),
        ({"user": {"uid": 4294967296}}, "/process/user/uid"),
        ({"user": {"uid": 1.0}}, "/process/user/uid"),
        ({"user": {"uid": True}}, "/process/user/uid"),
        ({"rlimits": [{"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1}]}, "/process/rlimits/0/soft"),
        ({"apparmorProfile": "no-such-profile"}, "/process/apparmorProfile"),
    ],
)
def test_process_files_that_are_wrong(container: Make, changes: dict[str, Any], pointer: str) -> None:
    one = started(container)
    result = one.call("exec", "-p", process_file(one, **changes), one.id, check=False)
    assert result.rc == 255
    assert pointer in result.err
    assert "process.json" in result.err
    assert len(result.err.splitlines()) == 1
