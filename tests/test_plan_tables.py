"""Questions to a plan, and the parts of the compiler over tables of small inputs.

golden/plan_tables.txt has the results (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review the diff).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from errno import EACCES, EINVAL, EIO, ENOENT
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from json_type import Json
from plan_support import Facts, options, steps
from pyrunc.errors import PyruncError
from pyrunc.plan import NO_SLOT, Plan, faults, ops, show
from pyrunc.plan.added_mounts import compile_add
from pyrunc.plan.context import Options
from pyrunc.plan.mount_options import Flags, meant
from pyrunc.spec.names import CAPABILITIES, CLONE_FLAGS
from pyrunc.spec.types import Hook, Mount
from spies import compare as compare_results

compare = partial(compare_results, "plan_tables")


def hook(plan: Plan) -> None:
    plan.hook("/h", path="/h", args=["h"], state=["", ""])


# -- questions to a plan ---------------------------------------------------------------------------


def test_only_steps_before_the_clone_count_as_entered() -> None:
    plan = Plan()
    assert plan.has(ops.OP_PLACE) is False
    plan.oom_score("/o", value=1)
    plan.place("/c", cgroup_fd=1)
    plan.clone_init("/n", policy=1, cgroup_fd=NO_SLOT)
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


def test_a_new_plan_asks_nothing_of_the_host() -> None:
    plan = Plan()
    assert not any(getattr(plan, name) for name in Plan.__slots__ if name != "cgroup_owner")
    assert plan.cgroup_owner == -1 and plan.steps == [] and plan.origins == []


def test_the_header_counts_the_plan_and_its_descriptors() -> None:
    for count in range(3):
        plan = Plan()
        slots = [plan.fd("ns", f"/{n}", "/o") for n in range(count)]
        plan.npreserve, plan.flags = 7, 2
        plan.setsid("/s")
        fields = struct.unpack_from("=8I", plan.encode())
        assert (fields[3:6], fields[7], slots) == ((1, 1 + count, 7), 2, list(range(1, count + 1)))


def offsets(plan: Plan) -> list[tuple[int, ...]]:
    """The offsets of the strings of each step in the string area."""
    data = plan.encode()
    return [struct.unpack_from("=4I", data, 32 + 52 * index + 36) for index in range(len(plan.steps))]


def test_nothing_is_stored_at_offset_0() -> None:
    plan = Plan()
    plan.groups("/g", gids=b"")
    plan.execve("/e", args=[], env=[])
    plan.hostname("/h", name="")
    plan.domainname("/d", name="x")
    assert offsets(plan) == [(0,) * 4] * 3 + [(1, 0, 0, 0)]


def test_the_number_of_pooled_values_is_bounded() -> None:
    """512 strings, with the empty one, as many lists, and as many blobs; a list also by its identity."""
    texts, lists, blobs = Plan(), Plan(), Plan()
    for _ in range(2):
        for number in range(520):
            texts.hostname("/h", name=f"{number:03}")
            lists.time_offsets("/t", offsets=[f"{number:03}"])
            blobs.groups("/g", gids=struct.pack("=I", number + 1))
    for plan, pooled in ((texts, 511), (lists, 512), (blobs, 511)):
        first, second = offsets(plan)[:520], offsets(plan)[520:]
        assert [number for number in range(520) if first[number] == second[number]] == list(range(pooled))
    same = ["the", "same"]
    for _ in range(2):
        lists.time_offsets("/t", offsets=same)
    assert offsets(lists)[-1] == offsets(lists)[-2] > offsets(lists)[-3]


def test_blobs_are_aligned() -> None:
    """Init passes a blob to the kernel in place; behind it is a NUL."""
    for before in range(9):
        plan = Plan()
        plan.hostname("/h", name="x" * before)
        plan.groups("/g", gids=b"12345678")
        plan.domainname("/d", name="end")
        at = offsets(plan)
        area = 32 + 52 * 3
        data = plan.encode()
        assert (area + at[1][0]) % 8 == 0 and at[1][0] - (before + 1) in range(8 + 1)
        assert data[area + at[1][0] :] == b"12345678\0end\0" and at[2][0] == at[1][0] + 9


def test_limits_of_a_plan() -> None:
    plan = Plan()
    for _ in range(16384):
        plan.setsid("/s")
    assert len(plan.encode()) == 32 + 52 * 16384 + 1
    plan.setsid("/s")
    with pytest.raises(PyruncError, match=r"^config\.json makes a plan of 16385 steps, more than 16384$"):
        plan.encode()
    plan = Plan()
    room = (64 << 20) - 32 - 52 - 1
    plan.hostname("/h", name="x" * (room - 1))
    assert len(plan.encode()) == 64 << 20
    plan.steps[0] = (*plan.steps[0][:3], ("x" * room,))
    with pytest.raises(PyruncError, match=r"^config\.json makes a plan of 67108865 bytes, more than 67108864$"):
        plan.encode()


@pytest.mark.parametrize("value", ["a\0b", ["a", "b\0"], ["\0"]])
def test_a_nul_is_refused(value: str | list[str]) -> None:
    plan = Plan()
    plan.steps.append((ops.OP_HOSTNAME, 0, (), (value,)))
    plan.origins.append("/o")
    with pytest.raises(PyruncError, match=r"^a string in config\.json contains a NUL byte$"):
        plan.encode()


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


# -- options of mounts -----------------------------------------------------------------------------

SEQUENCES = (
    "", "silent", "silent defaults", "ro defaults", "sync defaults", "idmap", "noatime", "atime", "relatime",
    "norelatime", "strictatime", "nostrictatime", "atime nostrictatime", "nostrictatime noatime atime",
    "noatime strictatime", "strictatime noatime", "relatime noatime norelatime", "noatime relatime atime",
    "strictatime noatime atime", "strictatime noatime nostrictatime", "rnoatime", "rnoatime strictatime",
    "noatime rstrictatime", "nostrictatime rnoatime", "rrelatime", "rnoatime ratime", "rnoatime rnostrictatime",
    "rnoatime rnorelatime", "rrelatime rnorelatime", "rstrictatime rrelatime rnorelatime", "rnorelatime", "ratime",
    "rrelatime ratime", "rstrictatime ratime", "ro rrw", "rro rw", "rro ro rrw", "rw rro", "nosymfollow", "symfollow",
    "nodiratime", "diratime", "nodiratime noatime", "suid exec dev", "rnosuid rsuid", "rnosuid nosuid suid",
    "rsuid rnodev", "rnosuid rdev", "rsuid ratime",
)  # fmt: skip


def test_sequences_of_options() -> None:
    """The attributes of a new mount, of a bind on two kernels, and of a remount."""

    def of(text: str) -> str:
        found = []
        for kernel, replace in ((None, False), ((5, 13), False), ((5, 14), False), ((5, 15), False), ((5, 13), True)):
            flags = Flags(text.split())
            if kernel:
                flags.change(Facts(kernel=kernel), replace=replace)
            else:
                flags.fold()
            found.append(f"{flags.set:x} {flags.clr:x} {flags.implied:x} {flags.rec_set:x} {flags.rec_clr:x}")
        return f"{text}: {', '.join(found)}"

    compare("options", map(of, SEQUENCES))


def test_options_that_may_be_misspelled() -> None:
    """The first guess among the first eight options."""
    good = [f"x{number}x" for number in range(9)]
    cases: list[list[str]] = [[], ["nosuidd"], ["sizee=1m"], ["=size"], ["xx"], [*good[:7], "nodevv"],
                              [*good[:8], "nodevv"], ["xx", "noexce", "nodevv"]]  # fmt: skip
    compare("guesses", [f"{' '.join(case)}: {meant(case)}" for case in cases])


# -- the listing -----------------------------------------------------------------------------------

NONE = NO_SLOT
FULL = (1 << len(CAPABILITIES)) - 1
HOST_HOOK: Hook = {"path": "/h", "args": ["h", "a b"], "timeout": 3, "env": ["A=b c"]}
ALL_BITS = [1 << bit for bit in range(22)]
STEPS: list[tuple[str, dict[str, Any]]] = [
    *(("oom_score", {"policy": policy, "value": value}) for policy, value in ((0, 0), (1, 7), (0, -1), (1, -1000))),
    ("dumpable", {"value": 0}), ("dumpable", {"value": 1}), ("place", {"cgroup_fd": 2}),
    ("open_tree", {"policy": 1, "slot": 249, "propagation": 0xA, "path": "/s"}),
    ("open_tree", {"slot": 248, "propagation": 0x9A, "path": "a b"}), ("enter_root", {"path": "/b/r"}),
    *(("make_node", {"number": 1, "kind": kind, "mode": mode, "major": 1, "minor": 3, "uid": uid, "gid": gid,
                     "path": "/dev/x", "label": label})
      for kind, mode, uid, gid, label in ((0o020000, 0o666, 0, 0, ""), (0o060000, 0o7, 5, 0, "a:b"),
                                          (0o010000, 0, 0, 6, ""))),
    ("join_ns", {"fd": 3, "nstype": CLONE_FLAGS["pid"], "path": "/n s"}), ("unshare", {"flags": 0}),
    ("unshare", {"flags": CLONE_FLAGS["pid"] | CLONE_FLAGS["uts"]}), ("unshare_user", {"policy": 1}),
    ("time_offsets", {"offsets": ["monotonic 1 2", "boottime 3 4"]}), ("cpu_initial", {"cpus": b"\x05"}),
    ("cpu_final", {"cpus": b""}), ("cpu_final", {"cpus": b"\x01\x01"}),
    *(("clone_init", {"policy": policy, "cgroup_fd": fd}) for policy, fd in ((0, NONE), (1, 1), (2, 0))),
    ("setsid", {}), ("keyring", {"policy": 1, "name": "_ses.c1"}), ("key_label", {"label": ""}),
    ("key_label", {"label": "a:b c"}), ("propagation", {"propagation": 0xA}), ("root_propagation", {"propagation": 1}),
    ("propagation", {"propagation": 0x91B}), ("root", {"policy": 0xF, "path": "/r"}),
    *(("mount", {"fstype": kind, "source": source, "dest": dest, "data": data, "tree": tree})
      for kind, source, dest, data, tree in (
          ("tmpfs", "tmpfs", "/t", [], 0), ("tmpfs", "other", "/t", ["size=1m"], 0), ("tmpfs", "", "/t", [], 0),
          ("", "/s", "/t", [], 249), ("", "a b", "/t u", ["a b", "ro"], 1), ("", "", "", [], 0),
          ("ext4", "a b", "/t", ["rw", "sync", "async", "dirsync", "lazytime", "nolazytime", "mand", "nomand"], 0))),
    *(("mount", {attribute: bit, "source": "s", "dest": "/d"})
      for attribute in ("attr_set", "attr_clr", "rec_set", "rec_clr") for bit in (*ALL_BITS[:4], 0x10, 0x20, 0x70, 0x80,
                                                                                 0x200000) if (attribute, bit) not in (
          ("attr_set", 0x70), ("rec_set", 0x70))),
    ("mount", {"attr_set": 0x11, "attr_clr": 0x73, "implied": 4, "rec_set": 1, "rec_clr": 3, "propagation": 0xB1}),
    ("mount", {"implied": 1, "source": "s", "dest": "/d"}), ("mount", {"policy": 0x3FFF, "source": "s", "dest": "/d"}),
    ("unmount", {"policy": 1, "id": 1 << 33, "dest": "/a b"}), ("mount_label", {"dest": "/a", "label": "c d"}),
    ("dev_node", {"policy": 0x7F, "number": 2, "kind": 0o020000, "mode": 0o644, "major": 5, "minor": 1,
                  "path": "/dev/a b"}),
    ("dev_link", {"policy": 1, "target": "/t", "path": "/p"}),
    *(("hook", {"policy": policy, "timeout_ms": timeout, "path": path, "args": args, "env": env, "state": ["a", "b"]})
      for policy, timeout, path, args, env in (
          (0, 0, "/h", ["/h"], []), (3, 1000, "/h", ["h", "a b"], ["A=b c"]), (1, 999, "/h x", ["/h x", ""], []))),
    ("pivot", {"policy": 3}),
    *(("console", {"policy": 3, "fd": fd, "rows": rows, "cols": cols, "uid": 1, "gid": 2})
      for fd, rows, cols in ((1, 0, 0), (NONE, 24, 80), (0, 24, 0), (0, 0, 80))),
    ("reopen_null", {}), ("remount_ro", {"attr_set": 1, "dest": "/a b"}), ("hostname", {"name": "h"}),
    ("sysctl", {"key": "net/x", "value": "1 2"}), ("readonly_path", {"path": "/p"}), ("apparmor", {"profile": "a b"}),
    ("personality", {"persona": 0}), ("personality", {"persona": 8}),
    *(("scheduler", {"policy": 0x7F, "kind": kind, "level": level, "runtime": times[0], "deadline": times[1],
                     "period": times[2]})
      for kind, level, times in ((0, -5, (0, 0, 0)), (1, 50, (0, 0, 0)), (2, 1, (0, 0, 0)), (3, 19, (1, 0, 0)),
                                 (5, 0, (0, 2, 0)), (6, 0, (1 << 33, 2, 3)))),
    *(("io_priority", {"kind": kind, "level": kind + 1}) for kind in (1, 2, 3)),
    ("memory_policy", {"policy": 7, "mode": 2, "nodes": b"\x09"}), ("memory_policy", {"mode": 0, "nodes": b""}),
    ("umask", {"mask": 0o22}), ("umask", {"mask": 0}), ("make_cwd", {"cwd": "/w"}),
    ("stdio_owner", {"uid": 1, "gid": 2}), ("find_home", {"uid": 7}), ("sync_ready", {}),
    *(("seccomp", {"policy": 3, "flags": flags, "filter": filter})
      for flags, filter in ((0, b""), (2, bytes(8)), (4, bytes(16)), (32, bytes(7)), (38, bytes(80)))),
    *(("cap_bound", {"mask": mask}) for mask in (0, 1, 0b101, FULL, FULL >> 1, FULL << 1)),
    ("groups", {"gids": b""}), ("groups", {"gids": struct.pack("=3I", 1, 0, 1 << 31)}),
    ("set_ids", {"uid": 1, "gid": 2}),
    *(("caps", {"policy": 1, "effective": sets[0], "permitted": sets[1], "inheritable": sets[2], "ambient": sets[3]})
      for sets in ((0, 0, 0, 0), (1, 2, 4, 8), (1, 1, 0, 0), (FULL, FULL, 0, FULL))),
    ("rlimit", {"resource": 7, "soft": 5, "hard": (1 << 64) - 1}), ("chdir", {"policy": 1, "cwd": "/a b"}),
    ("find_exe", {"policy": 1, "file": "a b", "path": "/bin:/usr/bin"}),
    *(("wait_start", {"policy": 1, "start_fd": start, "error_fd": error})
      for start, error in ((NONE, NONE), (0, 1), (3, NONE))),
    *(("execve", {"policy": 3, "args": args, "env": env})
      for args, env in ((["sh"], []), (["", "\n", "X"], []),
                        (["sh", "-c", "a \"b\" \\ $c `d` 'e'"], ["A=b", "C=\x1b[1m"]))),
]  # fmt: skip


def test_lines_of_steps() -> None:
    """Each op with each shape of its arguments."""
    lines = []
    for name, given in STEPS:
        plan = Plan()
        getattr(ops.Builder, name)(plan, "/o", **given)  # Plan.seccomp is the profile
        lines.append(show.text(plan).split("\n")[0])
    assert {name for name, _ in STEPS} >= {row[0].lower() for row in ops.OPS.values() if row[0] in show._FORMATS}
    compare("lines of steps", lines)


def long_plan() -> tuple[Plan, Any]:
    """A plan with long and short columns, and everything that the host side does."""
    plan = Plan()
    plan.oom_score("/o", value=5)
    plan.clone_init("/linux/cgroupsPath", policy=1, cgroup_fd=plan.fd("cgroup", "/c", "/linux/cgroupsPath"))
    plan.mount("/mounts/0", source="/a/long/source/of/a/mount", dest="/d", data=["a=b", "c" * 40], propagation=1)
    plan.sync_mounted("(default)")
    plan.sysctl("/linux/sysctl/net.ipv4.some.long.name/which/is/split", key="k", value="v")
    plan.execve("/process/args/0", args=["sh"], env=["PATH=/bin"])
    plan.fd("console", "", "/process/terminal")
    plan.hooks = {
        "prestart": [{"path": "/p"}],
        "createRuntime": [{"path": "/c"}, {"path": "/d", "args": ["d"]}],
        "poststart": [HOST_HOOK],
        "poststop": [{"path": "/q", "timeout": 1}, {"path": "/r", "env": []}],
    }
    plan.cgroup_path, plan.cgroup_owner, plan.npreserve = "/c", 0, 1
    plan.rlimits = [(7, 5, (1 << 64) - 1, "/process/rlimits/0")]
    plan.sched_attr = struct.pack("=IIQiIQQQII", 56, 6, 0x43, 0, 0, 10, 20, 30, 0, 0)
    plan.warn("/mounts/0/options", "some words which are longer than a narrow terminal is wide")
    resources = {"cpu": {"shares": 5}, "pids": {"limit": 1}}
    return plan, {"linux": {"resources": resources, "netDevices": {"eth0": {"name": "a"}, "e/1": {}}}}


@pytest.mark.parametrize("width", [30, 50, 64, 120, 300])
def test_listings_of_every_width(width: int) -> None:
    plan, config = long_plan()
    lines = show.fitted(plan, config, width, colour=width in (64, 300)).split("\n")
    compare(f"listing of width {width}", lines)


def test_listing_of_a_file() -> None:
    plan, config = long_plan()
    compare("listing of a file", [*show.text(plan, config).split("\n"), *show.text(plan).split("\n")])


def test_json_of_all_that_the_host_does() -> None:
    plan, config = long_plan()
    plan.caps("/p", effective=1, permitted=NONE)  # a mask is a number, also with the value of an unused slot
    plan.groups("/g", gids=b"\x01\x02\0\0")
    found = show.as_json(plan, config)
    plan.sched_attr = struct.pack("=IIQiIQQQII", 56, 1, 0, 0, 7, 0, 0, 0, 0, 0)
    assert show.as_json(plan)["scheduler"]["level"] == 7
    compare("json", [f"{key}: {line}" for key, value in found.items() if key != "abi" for line in (
        value if isinstance(value, list) else [value])])  # fmt: skip
    assert found["abi"] == ops.ABI


# -- failed steps ----------------------------------------------------------------------------------


def failed_plan() -> Plan:
    """One step of each op whose failures have words of their own."""
    plan = Plan()
    hook(plan)
    plan.origins[0] = "/hooks/createContainer/1"
    plan.find_exe("/process/args/0", file="prog", path="/bin")
    plan.find_exe("/process/args/0", file="/bin/prog", path="/bin")
    plan.execve("/process/args/0", args=["prog", "x"], env=["A=b"])
    plan.chdir("/process/cwd", cwd="/w")
    plan.mount("/mounts/3", fstype="tmpfs", source="s", dest="/d", data=["a=b", "nosiud"])
    plan.caps("/process/capabilities", effective=1)
    plan.groups("/process/user/additionalGids", gids=b"\x01\0\0\0")
    plan.sysctl("/linux/sysctl/a", key="a", value="b")
    plan.setsid("(default)")
    return plan


def explained(name: str, err: int) -> str:
    """What is wrong with a program."""
    answers = {"/run.sh": "a script without #!", "/os": OSError(err, "os"), "/own": PyruncError("own"),
               "/value": ValueError("value"), "prog": "not in PATH"}  # fmt: skip
    answer = answers.get(name, "")
    if isinstance(answer, Exception):
        raise answer
    return f"{answer} ({err})" if answer else ""


EXECUTED = ("", "exec /run.sh", "exec /os", "exec /own", "exec /value", "exec exec x", "exec prog", "/run.sh")
DETAILS = {
    "CAPS": ("", "capability 0", "set capability 21", "capability 40", "capability 41", "capability x", "capability "),
    "HOOK": ("", "killed by signal 9", "killed by signal 9: some: output", "was killed by signal 9"),
    "FIND_EXE": ("", "a directory"), "CHDIR": ("", "capability 2"), "EXECVE": EXECUTED, "": EXECUTED,
    "MOUNT": ("", "tmpfs: Unknown parameter 'nosiud'", "Unknown parameter 'size", "Unknown parameter nosiud",
              "tmpfs: Unknown parameter 'xyz'"),
    "SYSCTL": ("", "tmpfs: Unknown parameter 'nosiud'"), "SETSID": ("",), "GROUPS": ("exec prog",),
}  # fmt: skip


@pytest.mark.parametrize("explain", [None, explained])
def test_errors_of_steps(explain: Callable[[str, int], str] | None) -> None:
    plan, lines = failed_plan(), []
    for step in range(len(plan.steps) + 1):
        op = ops.OPS[plan.steps[step][0]][0] if step < len(plan.steps) else ""
        for err in (ENOENT, EACCES, EIO) if op in ("FIND_EXE", "EXECVE", "CHDIR", "MOUNT", "") else (EINVAL, 0):
            for detail in DETAILS[op]:
                for arg in (0, 1) if op in ("FIND_EXE", "MOUNT") else (1 if op == "EXECVE" else 0,):
                    record = SimpleNamespace(step=step, arg=arg, item=0, err=err, call="call", detail=detail)
                    lines.append(f"{op} {detail}: {faults.error(plan, record, explain)}")  # type: ignore[arg-type]
    compare(f"errors{' explained' if explain else ''}", lines)


def test_arguments_of_failed_steps() -> None:
    """Each argument and item of each step, in the plan and in what `start` has of it."""
    plan = failed_plan()
    plan.origins[5] = "/mounts/3"
    late = [row for row in Plan.late_origins(with_start(plan)) if row[2] != "WAIT_START"]
    lines = []
    for source in (plan, late):
        for step in range(len(plan.steps) + 1):
            strings = plan.steps[step][3] if step < len(plan.steps) else ()
            for arg in range(len(strings) + 2):
                last = strings[arg - 1] if 0 < arg <= len(strings) else ""
                for item in range(len(last) + 1 if isinstance(last, list) else 1):
                    record = SimpleNamespace(step=step + (source is late), arg=arg, item=item)
                    found = faults.describe(source, record)  # type: ignore[arg-type]
                    lines.append(f"{step} {arg} {item}: {found.where} {found.value!r} {found.context!r} {found.op}")
    compare("arguments", lines)


def with_start(plan: Plan) -> Plan:
    """A plan whose steps come after WAIT_START."""
    made = Plan()
    made.wait_start("/w", start_fd=1, error_fd=2)
    made.steps += plan.steps
    made.origins += plan.origins
    return made


@pytest.mark.parametrize("call", ["", "hook", "execve"])
def test_words_of_failed_hooks(call: str) -> None:
    plan, lines = Plan(), []
    for kind in ("prestart", "createRuntime", "createContainer", "startContainer"):
        for index in (0, 11):
            hook(plan)
            plan.origins[-1] = f"/hooks/{kind}/{index}"
            for arg in (0, 1, 2):
                record = SimpleNamespace(step=len(plan.steps) - 1, arg=arg, item=0, err=EACCES, call=call, detail="d")
                lines.append(str(faults.error(plan, record)))  # type: ignore[arg-type]
    compare(f"hooks with call {call}", lines)
