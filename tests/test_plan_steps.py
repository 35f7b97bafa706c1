"""Steps of a plan over small configurations at which they change, and the parts of the compiler alone.

golden/plan_steps.txt has the results (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review the diff).
"""

from __future__ import annotations

import json
import re
import struct
from functools import partial
from typing import Any

import pytest

import transcript
from plan_support import Facts, base, merge, options
from pyrunc.errors import ConfigError
from pyrunc.plan import Plan, added_mounts, context, hooks, mount_options, ops, show, userns
from pyrunc.plan.create import compile_create
from pyrunc.plan.environment import environment
from pyrunc.plan.exec import compile_exec
from test_results import results
from test_sweep import listing

MAPS = [{"containerID": 0, "hostID": 1000, "size": 70}]
ROOTLESS = Facts(euid=1000, rootless=True)
MOUNT, USER, PID = {"type": "mount"}, {"type": "user"}, {"type": "pid"}
MAPPED = {"uidMappings": MAPS, "gidMappings": MAPS}
BIND = {"destination": "/d", "source": "srv", "options": ["rbind"]}
ONE = {"destination": "/e", "source": "/srv", "options": ["bind", "ro"]}
TMPFS = {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "ro"]}
CGROUP = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}
IDMAP = {"destination": "/i", "source": "/srv", "options": ["bind"], **MAPPED}


compare = partial(transcript.compare, "plan_steps", cut=True)


def told(call: Any, *args: Any) -> list[str]:
    """The steps of a plan and what belongs to it, or the problems."""
    try:
        plan = call(*args)
    except ConfigError as error:
        return [f"refused: {problem}" for problem in error.problems]
    more = {"fds": plan.fds, "hooks": plan.hooks, "new userns": plan.new_userns, "preserved": plan.npreserve,
            "cgroup": (plan.cgroup_path, plan.cgroup_owner), "warnings": list(plan.warnings),
            "rlimits": plan.rlimits, "scheduler": plan.sched_attr}  # fmt: skip
    return [*listing(plan), *(f"{name}: {transcript.shown(value, 5)}" for name, value in more.items() if value)]


BARE: tuple[str, ...] = tuple(told(compile_create, base("bare"), Facts(), options()))
CREATED: dict[str, tuple[dict[str, Any], Facts, dict[str, Any]]] = {
    "as it is": ({}, Facts(), {}),
    "as a user": ({"linux": {"namespaces": [MOUNT, USER], **MAPPED}}, ROOTLESS, {"cgroup_path": "/c"}),
    "user namespace": ({"linux": {"namespaces": [MOUNT, USER], **MAPPED}}, Facts(), {"cgroup_path": "/c"}),
    "user namespace by path": ({"linux": {"namespaces": [MOUNT, USER | {"path": "/u"}]}}, Facts(),
    {"cgroup_path": "/c"}),
    "mount namespace by path": ({"linux": {"namespaces": [MOUNT | {"path": "/m"}, USER]} | MAPPED}, Facts(), {}),
    **{f"trees of {name}": (
        {"mounts": [BIND, TMPFS, IDMAP, ONE], "linux": {"namespaces": [MOUNT, USER], "rootfsPropagation": name,
        **MAPPED}},
        Facts(), {"notify": "/notify"}) for name in ("rshared", "private")},
    "trees of a user": (
        {"mounts": [BIND], "linux": {"namespaces": [MOUNT, USER], **MAPPED}}, ROOTLESS, {"notify": "/notify"}),
    "notify": ({}, Facts(), {"notify": "/notify"}),
    "console without a socket": ({"process": {"terminal": True}}, Facts(), {"console": False}),
    "console": ({"process": {"terminal": True, "consoleSize": {"height": 5}}}, Facts(), {}),
    "listen": ({}, Facts(), {"listen_fds": 2, "preserve_fds": 3}),
    "wait in a socket": ({}, Facts(), {"wait": "socket"}),
    "overlay": ({"root": {"readonly": True}}, Facts(), {"overlay": ["upperdir=/u"]}),
    "no pivot": ({}, Facts(), {"no_pivot": True}),
    "no keyring": ({}, Facts(), {"no_new_keyring": True}),
    "states for hooks": (
        {"hooks": {"createContainer": [{"path": "/h"}], "startContainer": [{"path": "/s", "args": [], "timeout": 2}]},
         "process": {"env": ["HOME=/h", "A=b"]}}, Facts(), {"create_state": ("a", "b"), "start_state": ("c", "d")}),
    "hooks without a home": (
        {"hooks": {"startContainer": [{"path": "/s"}, {"path": "/s", "env": []}, {"path": "/s", "args": ["x", "y"],
         "env": ["C=d"]}]}}, Facts(), {}),
    **{f"hooks {kind}": ({"hooks": {kind: [{"path": "/h", "env": ["A=b"]}]}}, Facts(), {}) for kind in (
        "prestart", "createRuntime", "poststart", "poststop")},
    "hooks that are empty": ({"hooks": {"prestart": [], "createContainer": [], "startContainer": []}}, Facts(), {}),
    "no process": ({"process": None, "hooks": {"startContainer": [{"path": "/s"}]}}, Facts(), {}),
    "a bound dev": ({"mounts": [BIND | {"destination": "/dev"}]}, Facts(), {}),
    "a remounted dev": ({"mounts": [{"destination": "/dev", "options": ["bind", "remount"]}]}, Facts(), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CREATED)
def test_plans_of_create(name: str) -> None:
    """The steps that the bare configuration does not have, and those that it has lost."""
    patch, facts, changes = CREATED[name]
    found = told(compile_create, merge(base("bare"), patch), facts, options(**changes))
    if name != "as it is" and not found[0].startswith("refused"):
        found = [f"+ {one}" for one in found if one not in BARE] + [f"- {one}" for one in BARE if one not in found]
    compare(f"create, {name}", found)


MOUNTED: dict[str, tuple[dict[str, Any], Facts, dict[str, Any]]] = {
    **{f"no pivot, {name}": ({"linux": {"rootfsPropagation": name}}, Facts(), {"no_pivot": True})
       for name in ("private", "rprivate", "shared", "slave", "unbindable")},
    **{f"overlay in a user namespace, {name}": (
        {"linux": {"namespaces": [MOUNT, USER], "rootfsPropagation": name, **MAPPED}}, Facts(),
        {"overlay": ["upperdir=/u"]}) for name in ("slave", None)},
    "a remount with data": (
        {"mounts": [{"destination": "/d", "options": ["bind", "remount", "size=1m", "nosiud"]}]}, Facts(), {}),
    "too many propagations": (
        {"mounts": [BIND | {"options": ["rbind", *["shared", "slave"] * 4, *more]} for more in ([], ["shared"])]},
        Facts(), {}),
    "idmapped and shared": (
        {"mounts": [IDMAP | {"options": ["bind", "rshared"]}, IDMAP | {"options": ["rbind"]}]}, Facts(), {}),
    **{f"labels, {name}": (
        {"mounts": [{"destination": f"/{kind}", "type": kind, "source": "s", "options": ["ro"]}
                    for kind in ("mqueue", "proc", "sysfs", "tmpfs", "cgroup")],
         "linux": {"mountLabel": "a:b", "namespaces": [MOUNT, *spaces], **MAPPED}}, facts, {})
       for name, spaces, facts in (
           ("host's mounts", [USER], Facts(selinux=True)), ("own namespaces", [{"type": "ipc"}, PID],
                                                             Facts(selinux=True)), ("no SELinux", [], Facts()))},
    **{f"cgroup, {name}": (
        {"mounts": [CGROUP | more for more in ({}, {"destination": "/cg"}, {"options": ["ro"]},
                                               {"options": ["rslave"]}, {"options": ["memory_recursiveprot"]})][first:],
         "process": {"user": user}, "linux": {"namespaces": [MOUNT, *({"type": one} for one in spaces)], **maps}},
        facts, {"cgroup_path": path})
       for name, first, spaces, user, maps, facts, path in (
           ("the host's", 0, [], {"uid": 5}, {}, Facts(), "/c"), ("own", 0, ["cgroup"], {"uid": 5}, {}, Facts(), "/c"),
           ("own elsewhere", 1, ["cgroup"], {"uid": 5}, {}, Facts(), "/cX"),
           ("without one", 0, ["cgroup"], {"uid": 5}, {}, Facts(), ""),
           ("root's", 0, ["cgroup"], {}, {}, Facts(), "/c"), ("mapped root's", 0, ["cgroup", "user"], {}, MAPPED,
                                                              Facts(), "/c"),
           ("unmapped", 0, ["cgroup", "user"], {"uid": 70}, MAPPED, Facts(), "/c"),
           ("the last id", 0, ["cgroup", "user"], {"uid": 69}, MAPPED, Facts(), "/c"),
           ("the caller's own", 0, ["cgroup", "user"], {}, MAPPED, ROOTLESS, "/c"),
           ("a user namespace", 0, ["user"], {}, MAPPED, Facts(), "/c"),
           ("no mount", 0, ["cgroup"], {}, {}, Facts(cgroup2_mount=""), "/c"),
           ("a part", 0, ["cgroup"], {}, {}, Facts(cgroup2_root="/c"), "/c/d"),
           ("the part", 0, ["cgroup"], {}, {}, Facts(cgroup2_root="/c"), "/c"),
           ("outside a part", 0, ["cgroup"], {}, {}, Facts(cgroup2_root="/c"), "/cd"),
           ("the caller's", 0, ["cgroup"], {}, {}, Facts(own_cgroup="/own/"), ""))},
}  # fmt: skip
OF_MOUNTS = ("MOUNT", "ROOT", "PROPAGATION", "PIVOT", "REMOUNT", "cgroup", "warnings", "refused")


@pytest.mark.parametrize("name", MOUNTED)
def test_mounts_of_create(name: str) -> None:
    """The steps about mounts, without the arguments that have no value."""
    patch, facts, changes = MOUNTED[name]
    found = told(compile_create, merge(base("bare"), patch), facts, options(**changes))
    compare(
        f"mounts, {name}", [re.sub(r"\w+=(0|''|\[\])(, |(?= ))", "", one) for one in found if one.startswith(OF_MOUNTS)]
    )


DEVICES = [
    {"type": "p", "path": "/dev/pipe", "major": 9, "minor": 9, "fileMode": 0o10600, "uid": 1, "gid": 2},
    {"type": "c", "path": "/dev/a", "major": 1, "minor": 3, "fileMode": 0o20640, "uid": 5, "gid": 6},
    {"type": "c", "path": "/dev/ptmx", "major": 5, "minor": 2},
    {"type": "b", "path": "/x/b", "major": 8, "minor": 0, "uid": 0},
    {"type": "u", "path": "dev//null/", "major": 1, "minor": 3, "gid": 69},
    {"type": "c", "path": "/devices/core", "fileMode": 0},
    {"type": "c", "path": "/dev/core", "major": 1, "minor": 1},
]
LABEL = {"mountLabel": "a:b"}
OWN_DEV = [BIND | {"destination": "/dev"}]
WITH_DEVICES: dict[str, tuple[list[Any], dict[str, Any], Facts, list[Any]]] = {
    "no user namespace": ([MOUNT], {}, Facts(), []),
    "mappings only": ([MOUNT], MAPPED, Facts(), []),
    "user namespace": ([MOUNT, USER], MAPPED, Facts(), []),
    "labels": ([MOUNT, USER], MAPPED | LABEL, Facts(selinux=True), []),
    "labels without SELinux": ([MOUNT, USER], MAPPED | LABEL, Facts(), []),
    "rootless": ([MOUNT, USER], MAPPED, ROOTLESS, []),
    "a mount namespace by path": ([MOUNT | {"path": "/m"}, USER], MAPPED, Facts(), []),
    "no mount namespace": ([USER], MAPPED, Facts(), []),
    "no uids": ([MOUNT, USER], {"gidMappings": MAPS}, Facts(), []),
    "no gids": ([MOUNT, USER], {"uidMappings": MAPS}, Facts(), []),
    "a bound dev": ([MOUNT], {}, Facts(), OWN_DEV),
    "a bound dev in a user namespace": ([MOUNT, USER], MAPPED, Facts(), OWN_DEV),
    "a rootless bound dev": ([MOUNT, USER], MAPPED, ROOTLESS, OWN_DEV),
}


@pytest.mark.parametrize("name", WITH_DEVICES)
def test_devices(name: str) -> None:
    """The nodes of linux.devices; the defaults by their paths."""
    spaces, linux, facts, mounts = WITH_DEVICES[name]
    config = merge(base("bare"), {"mounts": mounts, "linux": {"namespaces": spaces, "devices": DEVICES, **linux}})
    found = [one for one in told(compile_create, config, facts, options()) if one.startswith(("MAKE_NODE", "DEV_"))]
    own = [one for one in found if not one.endswith("(default device)")]
    paths = [one.partition("path='")[2].partition("'")[0] for one in found if one not in own]
    compare(f"devices, {name}", [*own, f"by default: {' '.join(paths)}"])


FILTER = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}]}
NOTIFIES = {"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
            "syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}], "listenerPath": "/l"}  # fmt: skip
PRIVILEGED = [(seccomp, quiet, facts) for seccomp in (None, FILTER, NOTIFIES) for quiet in (False, True) for facts in (
    Facts(), ROOTLESS, Facts(euid=1000))]  # fmt: skip
OF_PRIVILEGES = ("CAP", "SECCOMP", "DROP", "JOINABLE", "NO_NEW", "APP", "SELINUX", "warnings", "refused")


@pytest.mark.parametrize("number", range(len(PRIVILEGED)))
def test_filters(number: int) -> None:
    """Who loads the filter with which right, and whether `exec` may join before `start`."""
    seccomp, quiet, facts = PRIVILEGED[number]
    config = merge(base("bare"), {"process": {"noNewPrivileges": quiet}, "linux": {"seccomp": seccomp}})
    lines = [f"{json.dumps(seccomp)} {quiet} {facts.euid}"]
    for found in (
        told(compile_create, config, facts, options()),
        told(compile_exec, config, PROGRAM | {"noNewPrivileges": quiet}, facts, options(joined=JOINED)),
    ):
        lines += [one for one in found if one.startswith(OF_PRIVILEGES)]  # fmt: skip
    compare(f"filters {number}", lines)


CAPS: list[Any] = [
    None, {}, {"bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_NO_SUCH"]},
    {"effective": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"]},
    {"effective": ["CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"]},
    {"inheritable": ["CAP_KILL"], "bounding": ["CAP_CHOWN"]},
    {"inheritable": ["CAP_KILL", "CAP_SYS_ADMIN"], "bounding": ["CAP_KILL", "CAP_SYS_ADMIN"]},
    {"ambient": ["CAP_KILL", "CAP_CHOWN", "CAP_SETUID"], "inheritable": ["CAP_KILL", "CAP_SETUID"],
     "permitted": ["CAP_SETUID", "CAP_CHOWN"], "bounding": ["CAP_KILL", "CAP_SETUID"]},
    {kind: ["CAP_CHECKPOINT_RESTORE", "CAP_BPF"] for kind in ("bounding", "effective", "permitted", "inheritable",
                                                             "ambient")},
]  # fmt: skip


@pytest.mark.parametrize("last", [40, 39])
def test_capabilities(last: int) -> None:
    lines = []
    for sets in CAPS:
        config = merge(base("bare"), {"process": {"capabilities": sets}})
        found = told(compile_create, config, Facts(cap_last=last), options())
        lines += [json.dumps(sets), *(one for one in found if one.startswith(OF_PRIVILEGES))]
    compare(f"capabilities to {last}", lines)


KINDS = ("uts", "cgroup", "pid", "mount", "user", "network")
PATHS = [{"type": kind, "path": f"/ns/{kind}"} for kind in KINDS]
SPACES: dict[str, tuple[list[dict[str, str]], str]] = {
    "all joined": (PATHS, "/c"), "all joined, no cgroup": (PATHS, ""),
    "joined without a user namespace": ([one for one in PATHS if one["type"] != "user"], "/c"),
    "the same, no cgroup": ([one for one in PATHS if one["type"] != "user"], ""),
    "all new": ([{"type": kind} for kind in KINDS], "/c"),
    "all new, no cgroup": ([{"type": kind} for kind in KINDS], ""),
    "new without a user namespace": ([{"type": kind} for kind in KINDS if kind != "user"], "/c"),
    "none": ([], "/c"), "none, no cgroup": ([], ""),
}  # fmt: skip
OF_NAMESPACES = ("PLACE", "ENTER_ROOT", "JOIN", "UNSHARE", "CLONE", "KEY", "LO_UP", "fds", "new userns", "cgroup")


@pytest.mark.parametrize("name", SPACES)
def test_namespaces_of_create(name: str) -> None:
    """What is entered, in which order, and on which side of the clone."""
    spaces, path = SPACES[name]
    lines = []
    for facts in (Facts(), ROOTLESS):
        config = merge(base("bare"), {"process": {"selinuxLabel": "a:b"}, "linux": {"namespaces": spaces, **MAPPED}})
        found = told(compile_create, config, facts, options(cgroup_path=path))
        lines += [f"euid {facts.euid}", *(one for one in found if one.startswith(OF_NAMESPACES))]
    compare(f"namespaces, {name}", lines)


def test_scores() -> None:
    """A score that cannot be lowered is not an error for a user, whom engines give one all the same."""
    lines = []
    for score in (None, -1, 0, 1):
        for facts in (Facts(), Facts(rootless=True), ROOTLESS, Facts(euid=1000)):
            plan = compile_create(merge(base("bare"), {"process": {"oomScoreAdj": score}}), facts, options())
            lines += [f"{score} {facts.euid} {facts.rootless}: {' '.join(listing(plan)[:1])}"]
    compare("scores", lines)


JOINED = [("user", "/proc/7/ns/user"), ("pid", "/proc/7/ns/pid"), ("mount", "/proc/7/ns/mnt")]
PROGRAM = {"args": ["sh"], "cwd": "/", "user": {"uid": 1, "gid": 2}, "env": ["PATH=/p"]}
EXECS: dict[str, tuple[dict[str, Any], Facts, dict[str, Any]]] = {
    "joined": ({}, Facts(), {"joined": JOINED}),
    "tools": ({}, Facts(), {"joined": JOINED, "tools": "/tools"}),
    "tools of a user": ({}, ROOTLESS, {"joined": JOINED, "tools": "/tools"}),
    "rootfs": ({}, Facts(), {"joined": JOINED[:1], "rootfs": "/r"}),
    "cgroup": ({}, Facts(), {"joined": JOINED, "cgroup": "/cg", "cgroup_origin": "--cgroup"}),
    "terminal": ({"terminal": True}, Facts(), {"joined": JOINED}),
    "affinity": ({"execCPUAffinity": {"initial": "0", "final": "1"}, "oomScoreAdj": 5}, Facts(), {"cgroup": "/cg"}),
    "limits": ({"rlimits": [{"type": "RLIMIT_NPROC", "soft": 1, "hard": 2}]}, Facts(), {"joined": JOINED}),
}


@pytest.mark.parametrize("name", EXECS)
def test_plans_of_exec(name: str) -> None:
    patch, facts, changes = EXECS[name]
    compare(f"exec, {name}", told(compile_exec, base("bare"), PROGRAM | patch, facts, options(**changes)))


CLOCKS: list[dict[str, Any]] = [
    {}, {"monotonic": {"secs": 5, "nanosecs": 6}}, {"boottime": {"nanosecs": 7}}, {"boottime": {}, "monotonic": {}},
        {"monotonic": None, "boottime": {"secs": -1}}
]  # fmt: skip
PROCESSES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    **{f"scheduler {one['policy']}": ({"scheduler": one}, {}, {}) for one in (
        {"policy": "SCHED_OTHER", "nice": -5, "priority": 7}, {"policy": "SCHED_FIFO", "priority": 7, "nice": 5},
        {"policy": "SCHED_RR"}, {"policy": "SCHED_IDLE"},
        {"policy": "SCHED_DEADLINE", "nice": 3, "priority": 4, "runtime": 10, "deadline": 20, "period": 30,
         "flags": ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]},
        {"policy": "SCHED_BATCH", "nice": 19, "flags": ["SCHED_FLAG_RESET_ON_FORK"]})},
    **{f"I/O {one}": ({"ioPriority": one}, {}, {}) for one in (
        {"class": "IOPRIO_CLASS_RT", "priority": 7}, {"class": "IOPRIO_CLASS_IDLE"})},
    **{f"memory {one['mode']}": ({}, {"linux": {"memoryPolicy": one}}, {}) for one in (
        {"mode": "MPOL_BIND", "nodes": "0-1,3", "flags": ["MPOL_F_STATIC_NODES"]}, {"mode": "MPOL_LOCAL"})},
    **{f"affinity {one}": ({"execCPUAffinity": one}, {}, {}) for one in (
        {}, {"initial": "0-1"}, {"final": "1,64"}, {"initial": "63", "final": "0"})},
    **{f"clocks {one}": ({}, {"linux": {"timeOffsets": one, "namespaces": [MOUNT, {"type": "time"}]}}, {})
       for one in CLOCKS},
    **{f"umask {one}": ({"user": {"umask": one}}, {}, {}) for one in (0, 0o77)},
    "user": ({"user": {"uid": 5, "gid": 6, "additionalGids": [7, 1 << 31]}}, {}, {}),
    "kept groups": ({"user": {"additionalGids": [7]}}, {"annotations": {"run.oci.keep_original_groups": "1"}}, {}),
    "other annotations": ({}, {"annotations": {"run.oci.keep": "1"}}, {}),
    **{f"cwd {one}": ({"cwd": one}, {}, {}) for one in ("/", "/w", "")},
    **{f"personality {one}": ({}, {"linux": {"personality": {"domain": one}}}, {}) for one in ("LINUX", "LINUX32")},
    **{f"terminal of {size}": ({"terminal": True, "consoleSize": size, "user": {"uid": 5, "gid": 6}}, {}, {})
       for size in ({}, {"height": 4}, {"width": 9})},
    "a terminal without a socket": ({"terminal": True}, {}, {"console": False}),
    "a terminal below a bound dev": ({"terminal": True}, {"mounts": [BIND | {"destination": "/dev"}]}, {}),
    "a bound dev": ({}, {"mounts": [BIND | {"destination": "/dev"}]}, {}),
    "limits": ({"rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}, {"type": "RLIMIT_NPROC", "soft": 3,
                                                                              "hard": 4}]}, {}, {}),
    **{f"labels {one}": ({"apparmorProfile": one, "selinuxLabel": one}, {}, {}) for one in ("unconfined", "p q", "")},
    "names": ({}, {"hostname": "h", "domainname": "d"}, {}), "no names": ({}, {"hostname": "", "domainname": ""}, {}),
    "sysctls": ({}, {"linux": {"sysctl": {"a.b/c": "1", "net.ipv4.x~y": "2 3", "a/b.c": ""}}}, {}),
    "paths": ({}, {"linux": {"readonlyPaths": ["/r", "/s", "/r"], "maskedPaths": ["/m", "/r", "/m", "/n"]}}, {}),
    "environment": ({"env": ["HOME=/h", "PATH=/p", "A=1", "A=2"], "args": ["x", "y"]}, {}, {"listen_fds": 2}),
    "no environment": ({"env": []}, {}, {"preserve_fds": 1}),
    "started by a socket": ({}, {}, {"wait": "socket"}), "by a fifo": ({}, {}, {"wait": "fifo"}),
    "by another word": ({}, {}, {"wait": ""}),
    "in a cgroup": ({}, {}, {"cgroup": "/cg", "cgroup_origin": "--cgroup"}),
    "in a root directory": ({}, {}, {"rootfs": "/r"}),
    "without a keyring": ({"selinuxLabel": "a:b"}, {}, {"no_new_keyring": True}),
    "with tools": ({}, {}, {"tools": "/srv"}),
}  # fmt: skip


@pytest.mark.parametrize("name", PROCESSES)
def test_processes(name: str) -> None:
    """The steps that a plan of create and one of exec have for a process, and those that they lose."""
    process, patch, changes = PROCESSES[name]
    lines = []
    for call in (compile_create, compile_exec):
        made = []
        for more, config, given in (({}, base("bare"), {}), (process, merge(base("bare"), patch), changes)):
            args = (merge(config, {"process": PROGRAM | more}), Facts(apparmor=True), options(joined=JOINED, **given))
            made.append(told(call, *args) if call is compile_create else told(call, config, PROGRAM | more, *args[1:]))
        old, new = made
        lost = [one.partition(" ")[0] for one in old if one not in new and not new[0].startswith("refused")]
        lines += [call.__name__, *(f"+ {one}" for one in new if one not in old), f"- {' '.join(lost)}"]
    compare(f"process, {name}", lines)


def test_plans_of_mounts() -> None:
    config = merge(base("bare"), {"linux": {"namespaces": [MOUNT, USER], "mountLabel": "a:b", **MAPPED}})
    lines = []
    for entries in ([BIND], [TMPFS, ONE, BIND], [IDMAP, TMPFS]):
        for facts in (Facts(), Facts(selinux=True)):
            given = options(joined=JOINED, cgroup_path="/c", notify="")
            lines += [f"{len(entries)} {facts.selinux}", *told(added_mounts.compile_add, config, entries, facts, given)]
    given = options(joined=JOINED)
    lines += told(added_mounts.compile_remove, config, [(5, 0, "/a"), (6, 77, "/b")], Facts(), given)
    compare("mounts", lines)


def test_slots_of_trees() -> None:
    """Clones take the slots from the last one down, and leave those of the plan's descriptors."""
    mounts: list[Any] = [BIND | {"destination": f"/m{n}"} for n in range(300)]
    plan = compile_create(
        merge(base("bare"), {"mounts": mounts, "linux": {"namespaces": [MOUNT, USER], **MAPPED}}), Facts(), options()
    )
    trees = [
        show.arguments(plan, index)["slot"] for index, step in enumerate(plan.steps) if step[0] == ops.OP_OPEN_TREE
    ]
    assert trees == list(range(249, 49, -1))
    used = [show.arguments(plan, index)["tree"] for index, step in enumerate(plan.steps) if step[0] == ops.OP_MOUNT]
    assert used == [*trees, *[0] * 100]


# -- parts -----------------------------------------------------------------------------------------


def test_propagation_of_clones() -> None:
    names = ["", "shared", "rshared", "slave", "rslave", "private", "rprivate", "unbindable", "runbindable"]
    compare("propagation of clones", results(userns.clone_propagation, names))


def test_namespaces() -> None:
    def sorted_out(*entries: Any) -> Any:
        made = context.Namespaces({"namespaces": list(entries)} if entries else {})
        asked = ("mount", "pid", "user")
        return made.new, made.joined, made.pointers, [(made.has(kind), made.is_new(kind)) for kind in asked]

    cases: list[Any] = [
        (),
        (MOUNT,),
        (PID, MOUNT),
        (PID | {"path": "/p"}, MOUNT),
        (MOUNT | {"path": ""}, PID | {"path": "/p"}),
    ]
    compare("namespaces", results(sorted_out, cases))


def test_environments() -> None:
    def of(env: Any, listen: int, notify: bool) -> Any:
        found = environment({"env": env} if env is not None else {}, listen, notify)  # type: ignore[typeddict-item]
        return found.entries, found.path, found.find_home, found.listen

    cases = [
        (env, listen, notify) for listen, notify in ((0, False), (2, False), (0, True)) for env in (
            None, [], ["A=1", "B=2", "A=3"], ["HOME="], ["HOME=/h"], ["HOME=/h", "HOME="], ["PATH=/p", "PATH="],
            ["LISTEN_FDS=9", "NOTIFY_SOCKET=x", "X"], ["HOMEX=1", "XPATH=2"])
    ]  # fmt: skip
    compare("environments", results(of, cases))


def test_hooks_alone() -> None:
    """The host keeps its kinds in the order in which they run."""
    kinds = ["poststop", "startContainer", "createRuntime", "poststart", "createContainer", "prestart"]
    for chosen in (kinds, kinds[:2], [], ["prestart"]):
        config: Any = {"hooks": {kind: [{"path": f"/{kind}"}] for kind in chosen}} if chosen else {}
        ctx = context.Context(config, {}, Facts(), options())  # type: ignore[typeddict-item]
        hooks.host_side(ctx)
        hooks.start_container(ctx)
        own = [kind for kind in ("prestart", "createRuntime", "poststart", "poststop") if kind in chosen]
        assert list(ctx.plan.hooks) == own and ctx.plan.steps == []
        assert ctx.plan.hooks == {kind: [{"path": f"/{kind}"}] for kind in own}


def test_mount_entries() -> None:
    def of(entry: Any) -> Any:
        mount: Any = {"destination": "/a/./b", **entry}
        return transcript.shown(mount_options.Mount("/mounts/0", mount), 3)

    def given(*names: str, **more: Any) -> dict[str, Any]:
        return {"options": list(names), **more}

    names = list(mount_options.OPTIONS)
    cases: list[Any] = [
        {}, given("bind"), given("rbind", type="bind"), given("bind", "remount"), given("idmap", "bind"),
        given("ridmap", "rbind"), given("tmpcopyup"), given("a=b", "ro", "c"), {"type": "bind", "source": "s"},
        {"type": "proc", "source": ""}, {"uidMappings": MAPS, **given("bind")}, *(given(name) for name in names),
        *(given("bind", name) for name in names),
    ]  # fmt: skip
    compare("mount entries", results(of, cases))


SCHED = struct.pack("=IIQiIQQQII", 56, 6, 1, 0, 0, 10, 20, 30, 0, 0)


def test_json_of_a_plan() -> None:
    lines = []
    config: Any
    for owner in (-1, 0, 5):
        for attributes in (b"", SCHED, struct.pack("=IIQiIQQQII", 56, 1, 0, -5, 7, 0, 0, 0, 0, 0)):
            for config in (None, {}, {"linux": {"resources": {"cpu": {}}, "netDevices": {"eth0": {}}}}):
                plan = Plan()
                plan.cgroup_owner, plan.sched_attr, plan.cgroup_path = owner, attributes, "/c"
                plan.npreserve = owner + 1
                plan.oom_score("/o", value=-1)
                found = show.as_json(plan, config)
                found["text"] = show.text(plan, config)
                lines.append(
                    f"{owner} {len(attributes)} {config}: {found['cgroup']} {found['netDevices']} {found['scheduler']}"
                )
                lines.append(found["text"])
    compare("json of a plan", lines)


def test_sections() -> None:
    """ENTER ends with the clone; a startContainer hook is the only step of RUN before the program."""
    hook: dict[str, Any] = {"timeout_ms": 0, "path": "/h", "args": ["h"], "env": [], "state": ["", ""]}
    plan = Plan()
    plan.hook("/0", **hook)
    plan.oom_score("/1", value=5)
    plan.clone_init("/2", cgroup_fd=0xFFFFFFFF)
    plan.hook("/3", **hook)
    plan.setsid("/4")
    plan.wait_start("/5", start_fd=0xFFFFFFFF, error_fd=1)
    plan.hook("/6", **hook)
    plan.setsid("/7")
    lines = [f"{step['op']} {step['section']} {step['args']}" for step in show.as_json(plan)["steps"]]
    plan = Plan()
    plan.setsid("/0")
    plan.hook("/1", **hook)
    lines += [f"{step['op']} {step['section']}" for step in show.as_json(plan)["steps"]]
    compare("sections", lines)


def test_wrapped_words() -> None:
    cases = [(text, width, at) for at in " /" for width in (3, 4, 5, 6) for text in (
        "/a/bb/ccc/dddd", "//aa//bb", "a b c d", " a b c", "aa  bb  cc", "aaaaaaaa", "aa /bb /cc", "/aaaa/b",
        "aaa   ", "")]  # fmt: skip
    compare("wrapped words", results(show._wrap, cases))
