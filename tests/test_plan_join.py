"""Golden plans of `exec`: tests/golden/exec/*.json, as test_plan_golden.py has them for `create`; and its order."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plan_support import GOLDEN, Facts, base, merge, names, step, steps
from pyrunc.errors import ConfigError
from pyrunc.plan import Plan, ops, show
from pyrunc.plan.join import NAMESPACES, Options, compile_exec
from test_plan_golden import compare

CASES = sorted(path.stem for path in (GOLDEN / "exec").glob("*.json"))
PROGRAM = {"args": ["sh"], "cwd": "/", "env": ["PATH=/bin", "HOME=/"]}
ALL = list(NAMESPACES)


def joined(program: dict[str, Any], config: dict[str, Any] | None = None, kinds: list[str] = ALL, **more: Any) -> Plan:
    options = Options("c1")
    options.joined = [(kind, f"/proc/7/ns/{NAMESPACES[kind]}") for kind in kinds]
    for name, value in more.items():
        setattr(options, name, value)
    facts: Any = Facts()
    return compile_exec(config or {}, program, facts, options)


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    case = json.loads((GOLDEN / "exec" / f"{name}.json").read_text(encoding="utf-8"))
    config = merge(base(case.get("base", "bare")), case.get("config", {}))
    try:
        text = show.text(joined(case["process"], config, **case.get("options", {})))
    except ConfigError as error:
        text = "".join(f"refused {problem}\n" for problem in error.problems)
    assert text.startswith("refused ") == name.endswith("-refused")
    compare(GOLDEN / "exec" / f"{name}.plan", text)


def test_user_namespace_first_and_mount_namespace_last() -> None:
    """The user namespace gives the right to join the others; paths change their meaning with the mount namespace."""
    order = [step["path"].rpartition("/")[2] for step in steps(joined(PROGRAM), "JOIN_NS")]
    assert order[0] == "user"
    assert order[-1] == "mnt"
    assert len(order) == 8


def test_not_dumpable_before_anything_is_joined() -> None:
    """CVE-2016-9962."""
    order = names(joined({**PROGRAM, "oomScoreAdj": 1}))
    assert order[:3] == ["OOM_SCORE", "DUMPABLE", "JOIN_NS"]


def test_nothing_is_made() -> None:
    made = {"UNSHARE", "UNSHARE_USER", "UNSHARE_CGROUP", "MOUNT", "DEV_NODE", "DEV_LINK", "SYNC_MOUNTED", "MAKE_CWD",
            "HOSTNAME", "SYSCTL", "MASK_PATH", "READONLY_PATH", "ROOT_RO", "LO_UP", "WAIT_START", "HOOK"}  # fmt: skip
    config = {"linux": {"sysctl": {"kernel.x": "1"}, "maskedPaths": ["/x"]}, "hostname": "h", "hooks": {}}
    assert not made & set(names(joined(PROGRAM, config)))


def test_the_filter_goes_where_create_has_it() -> None:
    config = {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}
    early, late = names(joined(PROGRAM, config)), names(joined({**PROGRAM, "noNewPrivileges": True}, config))
    assert early.index("SYNC_READY") < early.index("SECCOMP") < early.index("CAP_BOUND")
    assert late.index("FIND_EXE") < late.index("SECCOMP") < late.index("EXECVE")


def test_a_user_namespace_is_entered_from_inside_the_cgroup() -> None:
    """Its root may not go there any more; and the keyring is found by its users."""
    config = {"linux": {"namespaces": [{"type": "user"}, {"type": "pid"}]}}
    plan = joined(
        PROGRAM, config, cgroup="/sys/fs/cgroup/x", joined=[("user", "/proc/9/ns/user"), ("pid", "/proc/9/ns/pid")]
    )
    found = names(plan)
    assert found.index("PLACE") < found.index("DUMPABLE") < found.index("JOIN_NS") < found.index("CLONE_INIT")
    assert step(plan, "PLACE")["cgroup_fd"] == 1 and plan.fds[0][:2] == ("cgroup", "/sys/fs/cgroup/x")
    assert step(plan, "CLONE_INIT")["policy"] == set()
    assert step(plan, "KEYRING")["policy"] == {"OTHER_SEARCH"}


def test_sections_come_in_order() -> None:
    ranks = {"ENTER": 0, "SETUP": 1, "FINISH": 2, "RUN": 3}
    plan = joined({**PROGRAM, "terminal": True}, cgroup="/sys/fs/cgroup/x", rootfs="/b/rootfs")
    found = [ranks[ops.OPS[step[0]][1]] for step in plan.steps]
    assert found == sorted(found)
