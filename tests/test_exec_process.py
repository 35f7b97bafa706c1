"""The process of an exec, from the command line or from a process.json."""

from __future__ import annotations

import json
from typing import Any

import pytest

import transcript
from json_type import Json
from plan_support import Facts
from pyrunc.errors import ConfigError, UsageError
from pyrunc.launch import exec as pexec
from pyrunc.spec import exec_process

kept = transcript.follow("pyrunc.spec.exec_process")

OWN: Json = {
    "terminal": True,
    "args": ["init"],
    "cwd": "/srv",
    "env": ["PATH=/bin", "A=own"],
    "user": {"uid": 5, "gid": 6, "umask": 0o77, "additionalGids": [7]},
    "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
    "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2}],
    "noNewPrivileges": True,
    "apparmorProfile": "own",
    "selinuxLabel": "label",
    "oomScoreAdj": 9,
}
NOTHING: Json = {}


def built(**flags: Any) -> Json:
    return exec_process.build(OWN, ["sh"], {name.replace("_", "-"): value for name, value in flags.items()})


def test_without_flags_it_is_the_containers_process_without_its_terminal() -> None:
    assert built() == {**OWN, "args": ["sh"], "terminal": False}
    assert built(tty=True)["terminal"] is True
    assert built(tty=False)["terminal"] is False


def test_a_container_without_a_process() -> None:
    assert exec_process.build(NOTHING, ["sh"], {}) == {
        "args": ["sh"],
        "cwd": "/",
        "env": [],
        "terminal": False,
        "user": {},
    }


def test_nothing_of_the_container_is_changed() -> None:
    before = json.dumps(OWN)
    built(user="1:2", additional_gids=["3"], cap=["CAP_CHOWN"], env=["X=1"])
    assert json.dumps(OWN) == before


def test_env_is_appended() -> None:
    assert built(env=["A=1", "B=2"])["env"] == ["PATH=/bin", "A=own", "A=1", "B=2"]


@pytest.mark.parametrize(
    ("text", "uid", "gid"),
    [("0", 0, 6), ("1", 1, 6), ("1:2", 1, 2), ("01", 1, 6), ("4294967294:4294967294", 4294967294, 4294967294)],
)
def test_user(text: str, uid: int, gid: int) -> None:
    user = built(user=text)["user"]
    assert (user["uid"], user["gid"]) == (uid, gid)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1:",
        ":1",
        ":",
        "+1",
        " 1",
        "1 ",
        "-1",
        "4294967295",
        "4294967296",
        "1:4294967295",
        "root",
        "1:2:3",
        "٣",
        "0x1",
    ],
)
def test_users_that_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--user"):
        built(user=text)


def test_groups() -> None:
    assert built(additional_gids=["8", "9"])["user"]["additionalGids"] == [7, 8, 9]
    with pytest.raises(UsageError, match="--additional-gids"):
        built(additional_gids=["-1"])


def test_cap_never_becomes_inheritable() -> None:
    sets = built(cap=["CAP_CHOWN"])["capabilities"]
    assert sets == {kind: ["CAP_KILL", "CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")}
    assert exec_process.build(NOTHING, ["sh"], {"cap": ["CAP_CHOWN"]})["capabilities"]["bounding"] == ["CAP_CHOWN"]


def test_cap_is_ambient_when_the_container_uses_inheritable_ones() -> None:
    own: Json = {"capabilities": {"inheritable": ["CAP_KILL"]}}
    sets = exec_process.build(own, ["sh"], {"cap": ["CAP_CHOWN"]})["capabilities"]
    assert sets["ambient"] == ["CAP_CHOWN"]
    assert sets["inheritable"] == ["CAP_KILL"]


def test_other_flags() -> None:
    made = built(cwd="/x", no_new_privs=False, apparmor="p", process_label="l")
    assert (made["cwd"], made["noNewPrivileges"], made["apparmorProfile"], made["selinuxLabel"]) == (
        "/x",
        False,
        "p",
        "l",
    )


def test_fields_missing_from_a_process_file_are_the_containers() -> None:
    made = exec_process.inherit({"args": ["sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}}, OWN)
    for name in ("capabilities", "apparmorProfile", "selinuxLabel", "oomScoreAdj"):
        assert made[name] == OWN[name]
    assert made["user"] == {"uid": 0, "gid": 0, "umask": 0o77}
    assert "noNewPrivileges" not in made, "left out means false"
    assert "rlimits" not in made
    assert "env" not in made
    assert "terminal" not in made


def test_a_process_file_takes_precedence() -> None:
    given: Json = {
        "args": ["sh"],
        "cwd": "/",
        "oomScoreAdj": 0,
        "rlimits": [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}],
    }
    made = exec_process.inherit(given | {"user": {"umask": 0}}, OWN)
    assert (made["oomScoreAdj"], made["rlimits"], made["user"]) == (0, given["rlimits"], {"umask": 0})


def test_empty_capabilities_of_a_process_file_are_none() -> None:
    given: Json = {"args": ["sh"], "cwd": "/", "capabilities": {}, "apparmorProfile": ""}
    made = exec_process.inherit(given, OWN)
    assert made["capabilities"] == {}
    assert made["apparmorProfile"] == OWN["apparmorProfile"]


def test_process_file_problems_come_all_at_once() -> None:
    data = b'{"cwd": "x", "args": [], "env": ["=1"], "user": {"uid": "0"}}'
    with pytest.raises(ConfigError) as caught:
        exec_process.parse(data, "p.json")
    assert {problem.pointer for problem in caught.value.problems} == {
        "/process/cwd", "/process/args", "/process/env/0", "/process/user/uid",
    }  # fmt: skip
    assert str(caught.value).startswith("p.json: ")


@pytest.mark.parametrize("data", [b"[]", b"1", b"null", b"", b"{", b'{"a": 1, "a": 2}'])
def test_process_files_that_are_not_objects(data: bytes) -> None:
    with pytest.raises(ConfigError):
        exec_process.parse(data, "p.json")


def test_labels_fail_closed() -> None:
    facts: Any = Facts()
    with pytest.raises(ConfigError, match="apparmorProfile"):
        exec_process.check({"args": ["sh"], "cwd": "/", "apparmorProfile": "x"}, facts, "p.json")


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ([], ""), (["a"], "a"), (["/a/b"], "a/b"), (["a//b/./c"], "a/b/c"), (["cpu:a"], "a"), (["cpu,io:/a"], "a"),
        (["cpu:a", "io:a"], "a"), (["/"], ""),
    ],
)  # fmt: skip
def test_sub_cgroup(given: list[str], path: str) -> None:
    assert pexec.sub_cgroup(given) == path


@pytest.mark.parametrize(
    "given", [[".."], ["a/../.."], ["cpu:../x"], ["a/../b"], [":a"], ["cpu,:a"], ["cpu:a", "io:b"], ["a\nb"]]
)
def test_sub_cgroups_that_are_refused(given: list[str]) -> None:
    with pytest.raises(UsageError, match="--cgroup"):
        pexec.sub_cgroup(given)
