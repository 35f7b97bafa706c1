"""Change one field of a rich config at a time, to the values at which the result changes: the
errors, the warnings and the steps of the plan.

The diff of golden/sweep.txt (PYRUNC_UPDATE_GOLDEN=1) shows every change of behaviour: a rule that
is dropped, a limit that moves by one, an option that sets another flag.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

import transcript
from broken_configs import GONE
from json_type import Json
from plan_support import Facts, merge, options
from pyrunc.cgroup import devices, resources, systemd
from pyrunc.errors import ConfigError, PyruncError
from pyrunc.plan import Plan, create, exec, mount_options, ops, show
from pyrunc.spec import schema, validate

MAPS = [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 100000, "size": 65535}]
CAPS = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"]
HOOK = {"path": "/bin/hook", "args": ["hook", "a"], "env": ["A=b"], "timeout": 5}
KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
RICH: Json = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "domainname": "domain",
    "annotations": {"run.oci.keep_original_groups": "0", "a": "b"},
    "hooks": {kind: [HOOK] if kind in KINDS[:3] else [{"path": "/bin/late"}] for kind in KINDS},
    "process": {
        "terminal": True,
        "consoleSize": {"height": 40, "width": 100},
        "cwd": "/work",
        "args": ["sh", "-c", "true"],
        "env": ["PATH=/bin", "HOME=/root"],
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
        "user": {"uid": 5, "gid": 6, "umask": 18, "additionalGids": [7, 8]},
        "capabilities": {
            "bounding": CAPS, "effective": CAPS[:2], "permitted": CAPS, "inheritable": CAPS[:1], "ambient": CAPS[:1],
        },
        "noNewPrivileges": True,
        "oomScoreAdj": 100,
        "scheduler": {"policy": "SCHED_BATCH", "nice": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-1", "final": "1"},
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "gid=5"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
        {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "ro", "rslave", "idmap"],
         "uidMappings": MAPS[:1], "gidMappings": MAPS[:1]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("pid", "network", "mount", "ipc", "uts", "cgroup", "time")],
        "timeOffsets": {"boottime": {"secs": 5, "nanosecs": 6}, "monotonic": {"secs": -5}},
        "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229, "fileMode": 438, "uid": 1, "gid": 2}],
        "netDevices": {"eth0": {"name": "net0"}},
        "cgroupsPath": "/a/b",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "rootfsPropagation": "rslave",
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX32"},
        "intelRdt": {"closID": "class", "schemata": ["L3:0=f"]},
        "resources": {
            "devices": [{"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
            ],
            "memory": {"limit": 1048576, "swap": 2097152, "reservation": 4096},
            "cpu": {"quota": 50000, "period": 100000, "burst": 1000, "shares": 1024, "cpus": "0-1", "mems": "0",
                    "idle": 0},
            "pids": {"limit": 10},
            "blockIO": {
                "weight": 100,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 200}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 0, "rate": 10}],
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
            "unified": {"memory.high": "1"},
        },
    },
}  # fmt: skip
USER: Json = {
    "ociVersion": "1.3.0",
    "root": {"path": "/rootfs"},
    "process": {"cwd": "/", "args": ["/bin/true"], "user": {"uid": 1, "gid": 1, "additionalGids": [2]}},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["gid=5", "uid=6"]},
        {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro", "nosuid"]},
    ],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("user", "pid", "mount", "ipc", "uts")],
        "uidMappings": MAPS, "gidMappings": MAPS,
        "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}],
        "rootfsPropagation": "shared", "sysctl": {"kernel.shmmax": "1"},
    },
}  # fmt: skip

LONGEST = 72
NUMBERS = (
    -1001, -1, 0, 1, 2, 7, 8, 9, 10, 11, 512, 999, 1000, 1001, 4096, 65535, 65536, 165534, 165535, 1000000, 1000001,
    1 << 20, 1 << 31, (1 << 32) - 2, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, 1 << 64,
)  # fmt: skip
TEXTS = (
    "", "/", "x", "a b", "..", "/a/../..", "/a/./b/", "a/b", "/proc", "/proc/self/ns/net", "/dev", "A=b", "0-3,7",
    "3-1", "\u00e4", "a\0b", "n" * 65, "/" + "n" * 256, "1.2.0", "2.0.0", "1.99.0", "none", "bind", "tmpfs", "mqueue",
    "rwm", "a", "1GB", "3XB",
)  # fmt: skip
VERSIONS = {"user": Facts(euid=1000, rootless=True), "rich": Facts()}


def base(name: str) -> Json:
    return copy.deepcopy(RICH if name == "rich" else USER)


def places(node: Any, value: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    """JSON pointers with the schema's node; the first item of each list, and also absent members of
    objects."""
    yield at, node
    if node[0] == "object":
        for key, child in node[1].items():
            inner = value.get(key) if isinstance(value, dict) else None
            if inner is None:
                yield f"{at}/{key}", child
            else:
                yield from places(child, inner, f"{at}/{key}")
    elif node[0] == "map" and isinstance(value, dict):
        for key, inner in value.items():
            yield from places(node[1], inner, f"{at}/{key.replace('~', '~0').replace('/', '~1')}")
    elif node[0] == "array" and isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(node[1], inner, f"{at}/{index}")


def values(node: Any) -> list[Any]:
    """Values to try at a place of this type."""
    kind = node[0]
    if kind == "string":
        return [GONE, *(TEXTS if node[1] is None else node[1])]
    if kind == "integer":
        return [GONE, *(number for number in NUMBERS if node[1] - 1 <= number <= node[2] + 1)]
    if kind == "boolean":
        return [GONE, True, False]
    if kind == "array" and node[1][0] == "string" and node[1][1] is not None:
        return [GONE, [], *([one] for one in node[1][1]), list(node[1][1])]
    if kind == "array" and node[1][0] == "string":
        return [GONE, [], ["x"], ["CAP_KILL", "CAP_CHOWN"], ["/a", "/a"], ["A=b", "A=c", "x"]]
    return [GONE, [] if kind == "array" else {}]


def with_value(document: Json, pointer: str, value: Any) -> Json | None:
    """A document with another value at a place; None if there is nothing to remove."""
    made = copy.deepcopy(document)
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    target: Any = made
    for part in path:
        target = target[int(part)] if isinstance(target, list) else target[part]
    key: Any = int(last) if isinstance(target, list) else last
    if value is not GONE:
        target[key] = value
    elif isinstance(target, list) or key in target:
        del target[key]
    else:
        return None
    return made


def listing(plan: Plan) -> list[str]:
    """Every step with its arguments, policy and origin."""
    out = []
    for index, (code, policy, _, _) in enumerate(plan.steps):
        name, _, _, bits = ops.OPS[code]
        given = ",".join(bit for shift, bit in enumerate(bits) if policy >> shift & 1)
        words = ", ".join(f"{key}={value!r}" for key, value in show.arguments(plan, index).items())
        out.append(f"{name} {words} {given} {plan.origins[index]}")
    return out


def outcome(document: Json, facts: Facts, section: str = "") -> list[str]:
    """The problems; otherwise the files and properties of the cgroup, or the steps of `create` and
    of an `exec`."""
    try:
        out = [f"warning: {one}" for one in validate.check(document, facts=facts)]
        if section == "/linux/resources":
            limits = document.get("linux", {}).get("resources", {})
            writes = resources.convert(limits)
            out += [f"{one.file} {one.text!r} {one.flags} {one.other} {one.pointer}" for one in writes]
            out += [f"{name} {value}" for name, value in systemd.properties(writes).items()]
            return [*out, hashlib.sha256(devices.program(limits.get("devices"))).hexdigest()[:8]]
        plan = create.compile_create(document, facts, options(cgroup_path="/a/b", preserve_fds=1))
        out += [f"warning: {one}" for one in plan.warnings] + listing(plan)
        if section == "/process" and "process" in document:
            joining = options(
                joined=[("pid", "/proc/1/ns/pid"), ("mount", "/proc/1/ns/mnt")], cgroup="/sys/fs/cgroup/a"
            )
            out += listing(exec.compile_exec(document, document["process"], facts, joining))
    except ConfigError as error:
        return [f"refused: {problem}" for problem in error.problems]
    except PyruncError as error:
        return [f"refused: {error}"]
    return out


@cache
def unchanged(name: str, section: str) -> tuple[str, ...]:
    return tuple(outcome(base(name), VERSIONS[name], section))


def different(name: str, section: str, document: Json) -> str:
    """The new and the missing lines, compared with the whole config."""
    found, known = outcome(document, VERSIONS[name], section), unchanged(name, section)
    if found == list(known):
        return "the same"
    if len(found) == len(known):
        lines = [f"{a} -> {b}" for a, b in zip(known, found, strict=True) if a != b]
    else:
        before, after = set(known), set(found)
        lines = [f"+ {line}" for line in found if line not in before] + [
            f"- {line}" for line in known if line not in after
        ]
    return short("; ".join(lines))


def short(text: str) -> str:
    """The beginning, and a digest of the whole text if it is longer."""
    text = transcript.short(text)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... {hashlib.sha256(text.encode()).hexdigest()[:8]}"


def told(value: Any) -> str:
    return "none" if value is GONE else json.dumps(value)[:14]


SECTIONS = [
    ("rich", "/process"), ("rich", "/mounts"), ("rich", "/linux/resources"), ("rich", "/linux"), ("rich", ""),
    ("user", "/process"), ("user", "/mounts"), ("user", "/linux"), ("user", ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "section"), SECTIONS)
def test_every_field(name: str, section: str) -> None:
    whole, lines = base(name), []
    assert not any(line.startswith("refused") for line in unchanged(name, section)), unchanged(name, section)
    others = [one for version, one in SECTIONS if version == name and one.startswith(section) and one != section]
    for pointer, node in places(schema.CONFIG, whole):
        if not pointer.startswith(section) or any(pointer.startswith(other) for other in others) or not pointer:
            continue
        seen: dict[str, list[str]] = {}
        for value in values(node):
            document = with_value(whole, pointer, value)
            if document is not None:
                seen.setdefault(different(name, section, document), []).append(told(value))
        lines.append(f"{pointer}:")
        lines += [f"  {', '.join(given)}: {words}" for words, given in seen.items()]
    assert len(lines) > 10
    transcript.compare("sweep", f"{name} {section or 'the rest'}", lines)


@pytest.mark.parametrize("kind", ["tmpfs", "bind", "proc", "cgroup", "mqueue", "remount"])
def test_every_option_of_mounts(kind: str) -> None:
    lines = []
    names = [
        *mount_options.OPTIONS,
        "size=1m",
        "mode=1777",
        "uid=1",
        "x",
        "",
        "rro",
        "norelatime",
        "tmpcopyup",
        "idmap",
        "copy-symlink",
    ]
    for option in dict.fromkeys(names):
        given = {"remount": ["remount", "bind", option], "bind": ["rbind", option]}.get(kind, [option])
        mount = {
            "destination": "/mnt",
            "type": "none" if kind == "remount" else kind,
            "source": "/src",
            "options": given,
        }
        document = base("rich")
        document["mounts"].append(mount)
        found = outcome(document, VERSIONS["rich"])
        own = [line for line in found if "/mounts/5" in line]
        lines.append(f"{option}: {short('; '.join(own))}")
    transcript.compare("sweep", f"options of {kind}", lines)


def test_pairs_of_options() -> None:
    """A later option takes precedence and undoes an earlier one."""
    lines = []
    for first in mount_options.OPTIONS:
        found = []
        for second in ("defaults", "ro", "rw", "suid", "noatime", "strictatime", "rro", "private"):
            mount = {"destination": "/mnt", "type": "tmpfs", "source": "/src", "options": [first, second]}
            own = outcome({**RICH, "mounts": [mount]}, VERSIONS["rich"])
            found.append(f"{second} {[line for line in own if '/mounts/0' in line]}")
        lines.append(f"{first}: {hashlib.sha256(repr(found).encode()).hexdigest()[:12]}")
    transcript.compare("sweep", "pairs of options", lines)


FACTS: list[Json] = [
    {"euid": 1000}, {"euid": 1000, "rootless": True}, {"rootless": True}, {"arch": "aarch64"}, {"kernel": (4, 18)},
    {"kernel": (5, 4)}, {"kernel": (5, 10)}, {"kernel": (5, 12)}, {"kernel": (5, 19)}, {"kernel": (6, 3)},
    {"kernel": (6, 12)}, {"cgroup2_mount": ""}, {"cgroup2_root": "/outer"}, {"own_cgroup": "/user.slice/a"},
    {"cap_last": 4}, {"cap_last": 5}, {"apparmor": True}, {"selinux": True}, {"hybrid": True},
    {"memory_nodes": frozenset({0})}, {"memory_nodes": frozenset()}, {"resctrl": ""},
]  # fmt: skip
EXTRA: dict[str, Json] = {
    "as it is": {},
    "with LSMs": {"process": {"apparmorProfile": "one", "selinuxLabel": "a:b:c:d"}, "linux": {"mountLabel": "a:b:c:d"}},
    "unconfined": {"process": {"apparmorProfile": "unconfined", "selinuxLabel": ""}},
    "user namespace by path": {"linux": {"namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]}},
    "mappings without a user namespace": {
        "linux": {"namespaces": [{"type": "mount"}], "uidMappings": MAPS, "gidMappings": MAPS}
    },
    "one id": {"linux": {"uidMappings": MAPS[:1], "gidMappings": MAPS[:1]}},
    "nobody mapped": {"linux": {"uidMappings": MAPS[1:], "gidMappings": MAPS[1:]}},
    "no users": {"linux": {"uidMappings": [], "gidMappings": MAPS[:1]}},
    "relative nodes": {"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-9",
    "flags": ["MPOL_F_RELATIVE_NODES"]}}},
    "static nodes without nodes": {"linux": {"memoryPolicy": {"mode": "MPOL_PREFERRED",
    "flags": ["MPOL_F_STATIC_NODES"]}}},
    "balancing": {"linux": {"memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0",
    "flags": ["MPOL_F_NUMA_BALANCING"]}}},
    "all capabilities": {"process": {"capabilities": dict.fromkeys(["bounding", "effective", "permitted"], CAPS)}},
    "seccomp": {"linux": {"seccomp": {
        "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "syscalls": [{"names": ["write", "kill"], "action": "SCMP_ACT_NOTIFY"}], "listenerPath": "/run/l",
    }}},
}  # fmt: skip


@pytest.mark.parametrize("name", ["rich", "user"])
@pytest.mark.parametrize("extra", EXTRA)
def test_every_fact(name: str, extra: str) -> None:
    """The same config on other hosts and for other users."""
    document = merge(base(name), EXTRA[extra])
    known = outcome(document, VERSIONS[name])
    lines = [f"here: {short('; '.join(known))}"]
    for changes in FACTS:
        found = outcome(document, Facts(**{**vars_of(VERSIONS[name]), **changes}))
        new = [line for line in found if line not in known]
        gone = [line for line in known if line not in found]
        told = short("; ".join([*(f"+ {line}" for line in new), *(f"- {line}" for line in gone)]))
        lines.append(f"{changes}: {told or 'the same'}")
    transcript.compare("sweep_facts", f"{name}, {extra}", lines)


def vars_of(facts: Facts) -> Json:
    """What a test sets of the facts of an ordinary host."""
    return {"euid": facts.euid, "rootless": facts.rootless}
