"""Golden plans of `exec` (tests/golden/exec/*.json), and the order of its steps."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from json_type import Json
from plan_support import GOLDEN, Facts, base, merge, names, step, steps
from pyrunc.errors import ConfigError
from pyrunc.plan import Plan, show
from pyrunc.plan.context import Options
from pyrunc.plan.exec import NAMESPACES, compile_exec
from test_plan_golden import EXEC_BITS, EXEC_OPS, compare, covered

CASES = sorted(path.stem for path in (GOLDEN / "exec").glob("*.json"))
PROGRAM = {"args": ["sh"], "cwd": "/", "env": ["PATH=/bin", "HOME=/"]}
ALL = list(NAMESPACES)


def joined(program: Json, config: Json = None, kinds: list[str] = ALL, **more: Any) -> Plan:
    options = Options("c1")
    options.joined = [(kind, f"/proc/7/ns/{NAMESPACES[kind]}") for kind in kinds]
    for name, value in more.items():
        setattr(options, name, value)
    without: Json = {}
    return compile_exec(config or without, program, Facts(), options)


def load(name: str) -> tuple[Json, Json, dict[str, Any]]:
    """The process, the container's configuration and the options of a case."""
    case = json.loads((GOLDEN / "exec" / f"{name}.json").read_text(encoding="utf-8"))
    return case["process"], merge(base(case.get("base", "bare")), case.get("config", {})), case.get("options", {})


def test_ops_of_exec_are_covered() -> None:
    seen, bits = covered(load, CASES, lambda program, config, more: joined(program, config, **more))
    assert seen >= EXEC_OPS and bits >= EXEC_BITS


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    program, config, more = load(name)
    try:
        text = show.text(joined(program, config, **more))
    except ConfigError as error:
        text = "".join(f"refused {problem}\n" for problem in error.problems)
    assert text.startswith("refused ") == name.endswith("-refused")
    compare(GOLDEN / "exec" / f"{name}.plan", text)


def test_user_namespace_first_and_mount_namespace_last() -> None:
    """The user namespace grants the right to join the others; the mount namespace changes paths."""
    order = [step["path"].rpartition("/")[2] for step in steps(joined(PROGRAM), "JOIN_NS")]
    assert order[0] == "user"
    assert order[-1] == "mnt"
    assert len(order) == 8


def test_not_dumpable_before_anything_is_joined() -> None:
    """CVE-2016-9962."""
    order = names(joined({**PROGRAM, "oomScoreAdj": 1}))
    assert order[:4] == ["CPU_FINAL", "OOM_SCORE", "DUMPABLE", "JOIN_NS"]


def test_creates_nothing() -> None:
    made = {"UNSHARE", "UNSHARE_USER", "UNSHARE_CGROUP", "MOUNT", "DEV_NODE", "DEV_LINK", "SYNC_MOUNTED", "MAKE_CWD",
            "HOSTNAME", "SYSCTL", "MASK_PATH", "READONLY_PATH", "ROOT_RO", "LO_UP", "WAIT_START", "HOOK"}  # fmt: skip
    config = {"linux": {"sysctl": {"kernel.x": "1"}, "maskedPaths": ["/x"]}, "hostname": "h", "hooks": {}}
    assert not made & set(names(joined(PROGRAM, config)))


FILTER = {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}


@pytest.mark.parametrize("nnp", [True, False])
def test_process_visible_to_the_container_is_unprivileged(nnp: bool) -> None:
    """A process with CAP_SYS_PTRACE in the container can take all that CLONE_INIT's child holds."""
    program = {
        **PROGRAM,
        "noNewPrivileges": nnp,
        "terminal": True,
        "selinuxLabel": "l",
        "apparmorProfile": "p",
        "ioPriority": {"class": "IOPRIO_CLASS_BE"},
        "rlimits": [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}],
    }
    order = names(joined(program, FILTER, cgroup="/sys/fs/cgroup/x"))  # fmt: skip
    at = order.index("CLONE_INIT")
    after = ["SETSID", "RLIMIT", "CHDIR", "FIND_EXE", "SECCOMP", *([] if nnp else ["DROP_ADMIN"]), "EXECVE"]
    assert order[at + 1 :] == after
    before = order[:at]
    for name in ("PLACE", "JOIN_NS", "KEYRING", "CONSOLE", "SELINUX", "APPARMOR", "SYNC_READY", "CAP_BOUND", "GROUPS",
                 "SET_IDS", "CAPS", "CHDIR", "FIND_EXE", "SECCOMP"):  # fmt: skip
        assert name in before, name
    assert ("DROP_ADMIN" in before) == (not nnp)


def test_impassable_filter_is_loaded_after_the_clone() -> None:
    plan = joined(PROGRAM, FILTER)
    plan.set_filter(b"12345678", 0, True)
    assert [step["policy"] for step in steps(plan, "SECCOMP")] == [{"IF_PASSABLE", "LISTENER"}, {"LISTENER"}]
    assert [step["policy"] for step in steps(plan, "CAPS")] == [{"FOR_FILTER"}]
    assert [step["policy"] for step in steps(joined({**PROGRAM, "noNewPrivileges": True}, FILTER), "CAPS")] == [set()]


def test_scheduling_class_is_set_by_the_host_side() -> None:
    """A clone does not inherit a deadline, and nothing after SCHED_RESET_ON_FORK."""
    scheduler = {"policy": "SCHED_FIFO", "priority": 7, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}
    plan = joined({**PROGRAM, "scheduler": scheduler})
    assert "SCHEDULER" not in names(plan)
    assert plan.sched_attr == struct.pack("=IIQiIQQQII", 56, 1, 1, 0, 7, 0, 0, 0, 0, 0)
    plan = joined({**PROGRAM, "scheduler": {"policy": "SCHED_OTHER", "nice": -3}})
    assert plan.sched_attr == struct.pack("=IIQiIQQQII", 56, 0, 0, -3, 0, 0, 0, 0, 0, 0)
    plan = joined({**PROGRAM, "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3}})
    assert plan.sched_attr == struct.pack("=IIQiIQQQII", 56, 6, 0, 0, 0, 1, 2, 3, 0, 0)
    assert joined(PROGRAM).sched_attr == b""


def test_cgroup_is_entered_before_the_user_namespace() -> None:
    """Root of the namespace may not enter the cgroup.  Its users look up the keyring."""
    config = {"linux": {"namespaces": [{"type": "user"}, {"type": "pid"}]}}
    plan = joined(
        PROGRAM, config, cgroup="/sys/fs/cgroup/x", joined=[("user", "/proc/9/ns/user"), ("pid", "/proc/9/ns/pid")]
    )
    found = names(plan)
    assert found.index("PLACE") < found.index("DUMPABLE") < found.index("JOIN_NS") < found.index("CLONE_INIT")
    assert step(plan, "PLACE")["cgroup_fd"] == 1 and plan.fds[0][:2] == ("cgroup", "/sys/fs/cgroup/x")
    assert step(plan, "CLONE_INIT")["policy"] == {"COMPLETE"}
    assert step(plan, "KEYRING")["policy"] == {"OTHER_SEARCH"}


def test_sections_come_in_order() -> None:
    """In the listing everything before the clone is ENTER."""
    ranks = {"ENTER": 0, "SETUP": 1, "FINISH": 2, "RUN": 3}
    plan = joined({**PROGRAM, "terminal": True}, cgroup="/sys/fs/cgroup/x", rootfs="/b/rootfs")
    found = [ranks[step["section"]] for step in show.as_json(plan)["steps"]]
    assert found == sorted(found)
    assert set(found) == {0, 1, 2, 3}
