"""The order of a plan: properties that each prevent a known vulnerability or bug."""

from __future__ import annotations

import ast
import pathlib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from json_type import Json
from plan_support import Facts, base, merge, names, options
from pyrunc.plan import Plan, ops
from pyrunc.plan.create import compile_create

ROOT = pathlib.Path(__file__).resolve().parent.parent
CGROUP_NS = 0x02000000
SECTIONS = ["ENTER", "SETUP", "FINISH", "RUN"]
HOOK = {"path": "/bin/true"}


def flag() -> st.SearchStrategy[bool]:
    return st.booleans()


@st.composite
def configurations(draw: st.DrawFn) -> tuple[Json, dict[str, Any]]:
    """A valid configuration with a mount namespace, and options."""
    kinds = draw(st.lists(st.sampled_from(["pid", "network", "ipc", "uts", "cgroup", "time"]), unique=True))
    spaces = [{"type": kind, **({"path": f"/ns/{kind}"} if draw(flag()) else {})} for kind in kinds]
    mount = {"type": "mount", **({"path": "/ns/mount"} if draw(flag()) else {})}
    spaces.insert(draw(st.integers(0, len(spaces))), mount)
    caps = ["CAP_KILL"] if draw(flag()) else []
    process = {
        "noNewPrivileges": draw(flag()),
        "terminal": draw(flag()),
        "cwd": draw(st.sampled_from(["/", "/w"])),
        "user": {"uid": draw(st.sampled_from([0, 7])), "gid": 0},
        "capabilities": {"bounding": caps, "permitted": caps, "effective": caps} if draw(flag()) else None,
        "oomScoreAdj": draw(st.sampled_from([None, -1, 0])),
        "env": draw(st.lists(st.sampled_from(["HOME=/h", "PATH=/p", "A=1"]))),
    }
    tmpfs = {"destination": "/t", "type": "tmpfs", "source": "t", "options": ["ro"] if draw(flag()) else []}
    dev = {"destination": "/dev", "source": "/dev", "options": ["rbind", "ro"]}
    linux = {
        "namespaces": spaces,
        "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"} if draw(flag()) else None,
        "maskedPaths": ["/proc/kcore"] if draw(flag()) else None,
        "readonlyPaths": ["/proc/sys"] if draw(flag()) else None,
        "rootfsPropagation": draw(st.sampled_from([None, "shared", "rslave"])),
        "sysctl": {"net.ipv4.ip_forward": "1"} if draw(flag()) else None,
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}] if draw(flag()) else None,
    }
    patch = {
        "process": process if draw(st.integers(0, 9)) else None,
        "root": {"readonly": draw(flag())},
        "hostname": "h" if draw(flag()) else None,
        "mounts": [tmpfs] * draw(st.integers(0, 2)) + [dev] * draw(st.integers(0, 1)),
        "linux": linux,
        "hooks": {kind: [HOOK] for kind in ("createContainer", "startContainer") if draw(flag())},
    }
    changes = {
        "cgroup_path": draw(st.sampled_from(["", "/c"])),
        "wait": draw(st.sampled_from(["fifo", "socket"])),
        "no_pivot": draw(flag()),
        "no_new_keyring": draw(flag()),
        "notify": draw(st.sampled_from(["", "/run/x/notify"])),
    }
    return merge(base("bare"), patch), changes


def before(order: list[str], first: str, then: str) -> bool:
    """Whether every ``first`` precedes every ``then``; true if either is missing."""
    if first not in order or then not in order:
        return True
    return len(order) - 1 - order[::-1].index(first) < order.index(then)


CHAINS = [
    # oom_score_adj becomes root-only, then nothing may ptrace us, then other namespaces
    # (CVE-2016-9962)
    ["OOM_SCORE", "DUMPABLE", "JOIN_NS", "UNSHARE", "CLONE_INIT", "SETSID"],
    # with nsdelegate a cgroup namespace is a border, so it is joined from inside the cgroup
    ["CLONE_INIT", "JOIN_CGROUP_NS", "SETSID"],
    ["CLONE_INIT", "UNSHARE_CGROUP"],
    # propagation is limited before anything is mounted; devices go into the mounted /dev; hooks see
    # all of it
    ["PROPAGATION", "ROOT", "MOUNT", "DEV_NODE", "DEV_LINK", "SYNC_MOUNTED", "PIVOT"],
    # inside the new root: steps that write precede steps that make read-only
    ["PIVOT", "CONSOLE", "MAKE_CWD", "REMOUNT_RO", "ROOT_RO"],
    ["SYSCTL", "READONLY_PATH", "MASK_PATH", "ROOT_RO", "SYNC_READY"],
    ["ROOT_PROPAGATION", "ROOT_RO"],
    # from the most privileged step to the least
    ["SYNC_READY", "CAP_BOUND", "GROUPS", "SET_IDS", "CAPS", "CHDIR", "FIND_EXE", "WAIT_START", "EXECVE"],
    ["NO_NEW_PRIVS", "SYNC_READY"],
    # after every change of ids, which would reset it, and before a filter, which could forbid it
    ["FIND_EXE", "JOINABLE", "WAIT_START"],
    ["JOINABLE", "SECCOMP"],
    ["FIND_EXE", "SECCOMP", "DROP_ADMIN", "WAIT_START"],
]
ONCE = [
    "DUMPABLE",
    "CLONE_INIT",
    "SETSID",
    "ROOT",
    "SYNC_MOUNTED",
    "PIVOT",
    "UMASK",
    "SYNC_READY",
    "CAP_BOUND",
    "GROUPS",
    "SET_IDS",
    "CAPS",
    "WAIT_START",
]
AT_MOST_ONCE = [
    "OOM_SCORE",
    "UNSHARE",
    "KEYRING",
    "PROPAGATION",
    "CONSOLE",
    "REOPEN_NULL",
    "SECCOMP",
    "EXECVE",
    "FIND_EXE",
    "CHDIR",
    "ROOT_RO",
    "NO_NEW_PRIVS",
    "FIND_HOME",
    "MAKE_CWD",
    "STDIO_OWNER",
]


@settings(max_examples=250, deadline=None)
@given(configurations())
def test_invariants(drawn: tuple[Json, dict[str, Any]]) -> None:
    config, changes = drawn
    check_create(config, changes, compile_create(config, Facts(), options(**changes)))
    facts = Facts()
    facts.euid = 1000
    plan = compile_create(config, facts, options(**changes))
    check_create(config, changes, plan)
    process = config.get("process") or {}
    early = bool((config.get("linux") or {}).get("seccomp")) and not process.get("noNewPrivileges")
    assert names(plan).count("JOINABLE") == (not early)


def check_create(config: Json, changes: dict[str, Any], plan: Plan) -> None:
    order = names(plan)
    if changes["cgroup_path"]:
        late = [at for at, step in enumerate(plan.steps) if step[0] == ops.OP_JOIN_NS and step[2][1] == CGROUP_NS]
        order = ["JOIN_CGROUP_NS" if at in late else name for at, name in enumerate(order)]
    for chain in CHAINS:
        for index, first in enumerate(chain):
            for then in chain[index + 1 :]:
                assert before(order, first, then), (first, then, order)
    for name in ONCE:
        assert order.count(name) == 1, name
    for name in AT_MOST_ONCE:
        assert order.count(name) <= 1, name
    check_sections(plan)
    check_joins(plan)
    check_seccomp(config, order)
    check_end(config, order)
    assert len(plan.origins) == len(plan.steps)
    assert [origin for origin in plan.origins if not origin.startswith(("/", "("))] == []
    slots = [kind for kind, _, _ in plan.fds]
    assert slots.count("cgroup") == bool(changes["cgroup_path"])
    assert slots.count("start") == slots.count("error") == (changes["wait"] == "fifo")
    assert len(plan.encode()) > 32


def check_sections(plan: Plan) -> None:
    """Sections are in order; only HOOK may be in a later section than its own (startContainer)."""
    ranks = [SECTIONS.index(ops.OPS[step[0]][1]) for step in plan.steps if step[0] != ops.OP_HOOK]
    assert ranks == sorted(ranks)


def check_joins(plan: Plan) -> None:
    """The mount namespace is last: the other paths are looked up in the old one."""
    joined = [step[2][1] for step in plan.steps if step[0] == ops.OP_JOIN_NS and step[2][1] != CGROUP_NS]
    assert 0x20000 not in joined[:-1]
    new = [step[2][0] for step in plan.steps if step[0] == ops.OP_UNSHARE]
    assert not any(flags & 0x12000000 for flags in new)  # neither user nor cgroup


def check_seccomp(config: Json, order: list[str]) -> None:
    process = config.get("process") or {}
    if "SECCOMP" not in order:
        assert "seccomp" not in config["linux"]
    elif process.get("noNewPrivileges"):
        assert order[order.index("SECCOMP") + 1] == "WAIT_START"
        assert before(order, "NO_NEW_PRIVS", "SECCOMP")
    else:
        # loading it takes CAP_SYS_ADMIN, which is dropped at once
        assert order[order.index("SECCOMP") + 1 :][:2] == ["DROP_ADMIN", "WAIT_START"]


def check_end(config: Json, order: list[str]) -> None:
    """EXECVE is last if there is a program; before it, only startContainer hooks run."""
    tail = order[order.index("WAIT_START") + 1 :]
    if "process" in config:
        hooks = len(config["hooks"].get("startContainer", ()))
        assert tail == ["HOOK"] * hooks + ["EXECVE"]
    else:
        assert tail == []
        assert "FIND_EXE" not in order
    created = len(config["hooks"].get("createContainer", ()))
    middle = order[order.index("SYNC_MOUNTED") + 1 : order.index("PIVOT")]
    assert middle == ["HOOK"] * created


def test_compile_does_not_change_its_input() -> None:
    """The same config is stored in the state directory afterwards."""
    config = merge(base("default"), {"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "flags": []}}})
    copy = merge({}, config)
    first = compile_create(config, Facts(), options()).encode()
    assert config == copy
    assert compile_create(config, Facts(), options()).encode() == first


def written_by(path: pathlib.Path) -> list[str]:
    """The attributes of a Context that a module assigns."""
    return [
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "ctx"
    ]


def test_only_the_order_of_steps_writes_to_the_context() -> None:
    """Attributes that one step sets for later ones are visible where the order is defined."""
    written = {path.name: written_by(path) for path in (ROOT / "pyrunc/plan").glob("*.py")}
    assert {name: sorted(attributes) for name, attributes in written.items() if attributes} == {
        "added_mounts.py": ["read_only", "trees"],
        "create.py": ["nodes", "read_only", "trees"],
    }
