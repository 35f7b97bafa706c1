"""The process: environment, ids, limits, capabilities, seccomp, hooks, and the information for
the host side."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from json_type import Json
from plan_support import Facts, compiled, names, step, steps
from pyrunc.errors import ConfigError
from pyrunc.plan import Plan, security
from pyrunc.plan.environment import environment
from pyrunc.spec.names import CAPABILITIES


def caps(facts: Facts | None = None, **sets: list[str]) -> Plan:
    return compiled({"process": {"capabilities": sets}}, facts=facts)


# -- environment -----------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ABC"), st.text("xy=", max_size=3))))
def test_last_duplicate_variable_wins(pairs: list[tuple[str, str]]) -> None:
    env = environment({"cwd": "/", "env": [f"{name}={value}" for name, value in pairs]})
    expected = [
        f"{name}={value}" for i, (name, value) in enumerate(pairs) if name not in [n for n, _ in pairs[i + 1 :]]
    ]
    assert env.entries == expected


@pytest.mark.parametrize(
    ("entries", "kept", "find"),
    [
        ([], [], True),
        (["HOME="], [], True),
        (["HOME=/h"], ["HOME=/h"], False),
        (["HOME=/h", "HOME="], [], True),
        (["HOME=", "HOME=/h"], ["HOME=/h"], False),
    ],
)
def test_home(entries: list[str], kept: list[str], find: bool) -> None:
    plan = compiled({"process": {"env": entries, "user": {"uid": 7}}})
    assert step(plan, "EXECVE")["env"] == kept
    assert step(plan, "EXECVE")["policy"] == ({"SET_HOME"} if find else set())
    assert [args["uid"] for args in steps(plan, "FIND_HOME")] == ([7] if find else [])


@pytest.mark.parametrize(("entries", "path"), [([], "/bin:/usr/bin"), (["PATH="], ""), (["PATH=/a", "PATH=/b"], "/b")])
def test_program_is_found_on_the_containers_path(entries: list[str], path: str) -> None:
    assert step(compiled({"process": {"env": entries}}), "FIND_EXE")["path"] == path


def test_socket_activation_overrides_configured_variables() -> None:
    env = ["LISTEN_FDS=9", "LISTEN_PID=9", "NOTIFY_SOCKET=/x"]
    plan = compiled({"process": {"env": env}}, listen_fds=2, preserve_fds=3, notify="/run/n")
    assert step(plan, "EXECVE")["env"] == ["LISTEN_FDS=2", "LISTEN_PID=1", "NOTIFY_SOCKET=/run/notify/notify.sock"]
    assert plan.npreserve == 5
    assert step(compiled({"process": {"env": env}}), "EXECVE")["env"] == env


# -- ids, limits, terminal -------------------------------------------------------------------------


def test_groups_are_exactly_the_configured_ones() -> None:
    gids = [0, 5, 4294967294]
    plan = compiled({"process": {"user": {"uid": 1, "gid": 2, "additionalGids": gids}}})
    assert step(plan, "GROUPS")["gids"] == struct.pack("=3I", *gids)
    assert step(compiled(), "GROUPS")["gids"] == b""


def test_keep_original_groups() -> None:
    assert "GROUPS" not in names(compiled({"annotations": {"run.oci.keep_original_groups": "1"}}))


def test_umask_zero_is_not_the_default() -> None:
    assert step(compiled({"process": {"user": {"umask": 0}}}), "UMASK")["mask"] == 0
    assert step(compiled(), "UMASK")["mask"] == 0o22


def test_rlimits() -> None:
    limits = [{"type": name, "soft": 1, "hard": 2**64 - 1} for name in ("RLIMIT_CPU", "RLIMIT_NOFILE", "RLIMIT_RTTIME")]
    plan = compiled({"process": {"rlimits": limits}})
    assert [(number, soft, hard) for number, soft, hard, _ in plan.rlimits] == [(n, 1, 2**64 - 1) for n in (0, 7, 15)]
    assert plan.rlimits[2][3] == "/process/rlimits/2"


def test_terminal_owns_its_stdio() -> None:
    plan = compiled({"process": {"terminal": True, "user": {"uid": 5, "gid": 6}}})
    args = step(plan, "CONSOLE")
    assert (args["uid"], args["gid"], args["rows"], args["cols"]) == (5, 6, 0, 0)
    assert plan.fds[args["fd"] - 1][0] == "console"
    assert "STDIO_OWNER" not in names(plan) and "REOPEN_NULL" not in names(plan)


# -- capabilities ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bit", range(len(CAPABILITIES)))
def test_every_capability(bit: int) -> None:
    name = [CAPABILITIES[bit]]
    plan = caps(bounding=name, permitted=name, effective=name, inheritable=name, ambient=name)
    assert step(plan, "CAP_BOUND")["mask"] == 1 << bit
    args = step(plan, "CAPS")
    assert [args[kind] for kind in ("effective", "permitted", "inheritable", "ambient")] == [1 << bit] * 4


def test_capability_numbers() -> None:
    """Some numbers from <linux/capability.h>, so that the table cannot shift."""
    known = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21, "CAP_SETFCAP": 31, "CAP_BPF": 39}
    assert {name: CAPABILITIES.index(name) for name in known} == known
    assert len(CAPABILITIES) == 41


def test_without_capabilities_nothing_is_kept() -> None:
    plan = compiled()
    assert step(plan, "CAP_BOUND")["mask"] == 0
    assert {step(plan, "CAPS")[kind] for kind in ("effective", "permitted", "inheritable", "ambient")} == {0}


def test_unknown_and_too_new_capabilities_are_left_out() -> None:
    plan = caps(Facts(cap_last=37), bounding=["CAP_KILL", "CAP_X", "CAP_BPF"], permitted=["CAP_BPF"])
    assert step(plan, "CAP_BOUND")["mask"] == 1 << 5
    assert step(plan, "CAPS")["permitted"] == 0


def test_ambient_needs_permitted_and_inheritable() -> None:
    one, two = ["CAP_KILL"], ["CAP_KILL", "CAP_CHOWN"]
    plan = caps(bounding=two, permitted=two, inheritable=one, ambient=two)
    assert step(plan, "CAPS")["ambient"] == 1 << 5
    words = "can't raise ambient capability CAP_CHOWN: it must be permitted and inheritable"
    assert plan.warnings == [f"/process/capabilities/ambient: {words}"]


@pytest.mark.parametrize(
    ("sets", "pointer"),
    [
        ({"effective": ["CAP_KILL"], "bounding": ["CAP_KILL"]}, "/process/capabilities/effective"),
        ({"inheritable": ["CAP_KILL"], "permitted": ["CAP_KILL"]}, "/process/capabilities/inheritable"),
    ],
)
def test_impossible_capability_sets(sets: dict[str, Any], pointer: str) -> None:
    with pytest.raises(ConfigError) as caught:
        caps(**sets)
    assert [problem.pointer for problem in caught.value.problems] == [pointer]
    assert "CAP_KILL" in str(caught.value)


def test_all_problems_at_once() -> None:
    patch: dict[str, Any] = {
        "process": {"capabilities": {"effective": ["CAP_KILL"]}},
        "mounts": [{"destination": "/d", "type": "ext4", "options": ["tmpcopyup"]}],
        "linux": {"rootfsPropagation": "private"},
    }
    with pytest.raises(ConfigError) as caught:
        compiled(patch, no_pivot=True)
    assert len(caught.value.problems) == 3


# -- seccomp and labels ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "number"),
    [
        (None, 4),
        ([], 0),
        (["SECCOMP_FILTER_FLAG_LOG"], 2),
        (["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], 0x04),
        (["SECCOMP_FILTER_FLAG_TSYNC"], 0),
    ],
)
def test_seccomp_flags(flags: list[str] | None, number: int) -> None:
    profile = {"defaultAction": "SCMP_ACT_ALLOW", **({} if flags is None else {"flags": flags})}
    plan = compiled({"linux": {"seccomp": profile}})
    assert step(plan, "SECCOMP")["flags"] == number
    assert plan.seccomp == profile


def test_wait_killable_needs_a_listener() -> None:
    """The step has the flags that the filter is loaded with."""
    profile: Any = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/run/agent.sock",
        "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
    }
    assert step(compiled({"linux": {"seccomp": profile}}), "SECCOMP")["flags"] == security.filter_flags(profile) == 0x20


def test_set_filter_replaces_the_program() -> None:
    plan = compiled({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}})
    where = names(plan).index("SECCOMP")
    plan.set_filter(b"12345678", 6, True)
    args = step(plan, "SECCOMP")
    assert (args["filter"], args["flags"], args["policy"]) == (b"12345678", 6, {"LISTENER"})
    assert names(plan).index("SECCOMP") == where and args["origin"] == "/linux/seccomp"


@pytest.mark.parametrize(("action", "policy"), [("SCMP_ACT_NOTIFY", {"LISTENER"}), ("SCMP_ACT_ERRNO", set())])
def test_listener(action: str, policy: set[str]) -> None:
    profile: Json = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": action}]}
    assert step(compiled({"linux": {"seccomp": profile}}), "SECCOMP")["policy"] == policy
    assert security.notifies(profile) == bool(policy)


@pytest.mark.parametrize(
    ("profile", "apparmor", "steps_made"),
    [("", True, 0), ("p", True, 1), ("p", False, 1), ("unconfined", True, 1), ("unconfined", False, 0)],
)
def test_apparmor(profile: str, apparmor: bool, steps_made: int) -> None:
    """A profile that validation missed fails in init; it is never dropped."""
    plan = compiled({"process": {"apparmorProfile": profile}}, facts=Facts(apparmor=apparmor))
    assert names(plan).count("APPARMOR") == steps_made


# -- hooks, and what is saved for start ------------------------------------------------------------


def test_host_hooks_do_not_get_the_process_environment() -> None:
    """CVE-2025-23266: a createContainer hook is a program of the host."""
    hook = {"path": "/h"}
    patch = {"process": {"env": ["LD_PRELOAD=/x.so"]}, "hooks": {"createContainer": [hook], "startContainer": [hook]}}
    create, start = steps(compiled(patch, create_state=("a", "b"), start_state=("c", "d")), "HOOK")
    assert (create["env"], create["state"], create["policy"]) == ([], ["a", "b"], set())
    assert (start["env"], start["state"], start["policy"]) == (
        ["LD_PRELOAD=/x.so"],
        ["c", "d"],
        {"IN_CONTAINER", "SET_HOME"},
    )
    assert create["args"] == ["/h"] and create["timeout_ms"] == 0


def test_hook_with_an_empty_environment() -> None:
    patch = {"process": {"env": ["A=1"]}, "hooks": {"startContainer": [{"path": "/h", "env": [], "timeout": 2}]}}
    args = step(compiled(patch), "HOOK")
    assert (args["env"], args["timeout_ms"]) == ([], 2000)


@pytest.mark.parametrize(
    ("kind", "waits"),
    [
        ("prestart", True),
        ("createRuntime", True),
        ("createContainer", True),
        ("startContainer", False),
        ("poststop", False),
    ],
)
def test_has_hooks(kind: str, waits: bool) -> None:
    """Only hooks that run before CREATED remove the time limit of the handshake."""
    plan = compiled({"hooks": {kind: [{"path": "/h"}]}})
    assert plan.has_hooks() == waits
    assert (kind in plan.hooks) == (kind not in ("createContainer", "startContainer"))
    assert not compiled().has_hooks()


def test_late_origins() -> None:
    plan = compiled(
        {
            "process": {"args": ["a", "b"], "env": ["X=1"]},
            "hooks": {"startContainer": [{"path": "/h", "args": ["n", "m"]}]},
        },
        start_state=("head", "tail"),
    )
    late = plan.late_origins()
    assert json.loads(json.dumps(late)) == late
    count = len(plan.steps)
    assert late == [
        [count - 3, "(default)", "WAIT_START", []],
        [count - 2, "/hooks/startContainer/0", "HOOK", ["/h", "n", "X=1", "head"]],
        [count - 1, "/process/args/0", "EXECVE", ["a", "X=1"]],
    ]


def test_no_process() -> None:
    plan = compiled({"process": None, "hooks": {"startContainer": [{"path": "/h"}]}})
    assert names(plan)[-1] == "WAIT_START"
    assert step(plan, "CAP_BOUND")["mask"] == 0
