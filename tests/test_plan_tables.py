"""Questions to a plan, and the parts of the compiler over tables of small inputs.

golden/plan_tables.txt has the results (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review the diff).
"""

from __future__ import annotations

import struct

import pytest

from json_type import Json
from plan_support import Facts, options, steps
from pyrunc.plan import Plan, ops
from pyrunc.plan.added_mounts import compile_add
from pyrunc.plan.context import Options
from pyrunc.spec.types import Mount

ANYWHERE = 0xFFFFFFFF  # no slot


def hook(plan: Plan) -> None:
    plan.hook("/h", path="/h", args=["h"], state=["", ""])


# -- questions to a plan ---------------------------------------------------------------------------


def test_only_steps_before_the_clone_count_as_entered() -> None:
    plan = Plan()
    assert plan.has(ops.OP_PLACE) is False
    plan.oom_score("/o", value=1)
    plan.place("/c", cgroup_fd=1)
    plan.clone_init("/n", policy=1, cgroup_fd=ANYWHERE)
    plan.setsid("/s")
    wanted = [ops.OP_OOM_SCORE, ops.OP_PLACE, ops.OP_CLONE_INIT, ops.OP_SETSID]
    assert [plan.has(op) for op in wanted] == [True, True, True, False]


@pytest.mark.parametrize(
    ("policy", "copies"),
    [(0, False), (ops.P_MOUNT_COPY_UP, True), (ops.P_MOUNT_INHERIT_MODE, False), (ops.P_MOUNT_BIND, False)],
)
def test_copies_up(policy: int, copies: bool) -> None:
    plan = Plan()
    plan.dev_node("/d", policy=ops.P_MOUNT_COPY_UP)  # another op's policy bit of the same value
    plan.root("/r", policy=ops.P_MOUNT_COPY_UP)
    assert plan.copies_up() is False
    plan.mount("/m", policy=policy)
    assert plan.copies_up() is copies


def test_hooks_of_create() -> None:
    for kind, during in (("prestart", True), ("createRuntime", True), ("poststart", False), ("poststop", False)):
        plan = Plan()
        plan.hooks[kind] = [{"path": "/h"}]
        assert plan.has_hooks() is during
    plan = Plan()
    plan.setsid("/s", policy=ops.OP_HOOK)
    plan.wait_start("/w", policy=ops.OP_HOOK, start_fd=1, error_fd=2)
    hook(plan)
    assert plan.has_hooks() is False
    plan = Plan()
    plan.setsid("/s")
    hook(plan)
    assert plan.has_hooks() is True


@pytest.mark.parametrize("before", [0, ops.P_SECCOMP_LISTENER, ops.P_SECCOMP_IF_PASSABLE, 3])
def test_the_compiled_filter_decides_about_the_listener(before: int) -> None:
    plan = Plan()
    plan.setsid("/s")
    ops.Builder.seccomp(plan, "/linux/seccomp", policy=before)
    passable = before & ops.P_SECCOMP_IF_PASSABLE
    for listener in (True, False):
        plan.set_filter(b"12345678", 4, listener)
        bit = ops.P_SECCOMP_LISTENER if listener else 0
        assert plan.steps == [(ops.OP_SETSID, 0, (), ()), (ops.OP_SECCOMP, passable | bit, (4, 8), (b"12345678",))]


def test_the_header_counts_the_plan_and_its_descriptors() -> None:
    for count in range(3):
        plan = Plan()
        slots = [plan.fd("ns", f"/{n}", "/o") for n in range(count)]
        plan.npreserve, plan.flags = 7, 2
        plan.setsid("/s")
        fields = struct.unpack_from("=8I", plan.encode())
        assert (fields[3:6], fields[7], slots) == ((1, 1 + count, 7), 2, list(range(1, count + 1)))


def test_only_the_first_item_of_a_list_is_kept_for_start() -> None:
    plan = Plan()
    plan.setsid("/s")
    plan.wait_start("/w", start_fd=1, error_fd=2)
    plan.execve("/e", args=["a", "b"], env=[])
    plan.setsid("/t")
    assert plan.late_origins() == [
        [1, "/w", "WAIT_START", []],
        [2, "/e", "EXECVE", ["a", ""]],
        [3, "/t", "SETSID", []],
    ]


# -- added mounts ----------------------------------------------------------------------------------

LABELLED: list[Mount] = [
    {"destination": "/q", "type": "mqueue", "source": "mqueue"},
    {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "size=1m"]},
    {"destination": "/cg", "type": "cgroup", "source": "cgroup"},
]


def added(config: Json, cgroup_path: str) -> Plan:
    given = options(joined=[("mount", "/proc/7/ns/mnt")], cgroup_path=cgroup_path)
    return compile_add(config, LABELLED, Facts(selinux=True), given)


def test_every_added_mount_is_built_and_then_attached() -> None:
    """A label comes after its mount and before the next one; init can read the plan."""
    config: Json = {"linux": {"namespaces": [{"type": "mount"}, {"type": "ipc"}], "mountLabel": "a:b"}}
    plan = added(config, "/c")
    inside = [ops.OP_MOUNT, ops.OP_MOUNT_LABEL, ops.OP_MOUNT, ops.OP_MOUNT]
    order = [step[0] for step in plan.steps]
    assert [op for op in order if op in inside] == [ops.OP_MOUNT] * 3 + inside
    assert plan.cgroup_path == "" and len(plan.encode()) > 32
    mounts = [step for step in plan.steps if step[0] == ops.OP_MOUNT]
    assert [(step[2], step[3]) for step in mounts[:3]] == [(step[2], step[3]) for step in mounts[3:]]
    assert [len(step[2]) for step in mounts] == [8] * 6
    assert [one["data"] for one in steps(plan, "MOUNT")] == [[], ["size=1m", "context=a:b"], []] * 2


def test_an_added_cgroup_mount_shows_the_containers_cgroup() -> None:
    config: Json = {"linux": {"namespaces": [{"type": "mount"}, {"type": "cgroup"}]}}
    for path, source in (("/c", "/sys/fs/cgroup/c"), ("", "/sys/fs/cgroup")):
        assert [step[3][1] for step in added(config, path).steps if step[0] == ops.OP_MOUNT][2] == source


# -- the input -------------------------------------------------------------------------------------


def test_options_by_default() -> None:
    """What `pyrunc plan` shows without options: the fifo of `create`, and a console."""
    found = Options("c1")
    given = {name: getattr(found, name) for name in Options.__slots__}
    assert given == {
        "bundle": "", "cgroup": "", "cgroup_origin": "/linux/cgroupsPath", "cgroup_path": "", "console": True,
        "create_state": ("", ""), "id": "c1", "joined": [], "listen_fds": 0, "no_new_keyring": False,
        "no_pivot": False, "notify": "", "overlay": [], "preserve_fds": 0, "rootfs": "", "start_state": ("", ""),
        "tools": "", "wait": "fifo",
    }  # fmt: skip
