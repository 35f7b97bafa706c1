"""Configs that must be refused, as data: what is changed in `BASE`, the pointer of the problem,
words of its message.

A change is (JSON pointer, new value); the value `GONE` removes the field, a pointer that ends in
``/-`` appends.
"""

from __future__ import annotations

import copy
from typing import Any

from json_type import Json

GONE = object()

MAP = [{"containerID": 0, "hostID": 1000, "size": 70}]
USERNS: list[tuple[str, Any]] = [
    ("/linux/namespaces/-", {"type": "user"}),
    ("/linux/uidMappings", MAP),
    ("/linux/gidMappings", MAP),
]
JOINED = ("/linux/namespaces/-", {"type": "user", "path": "/x"})

BASE: Json = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs"},
    "hostname": "box",
    "process": {
        "cwd": "/",
        "args": ["/bin/true"],
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0, "additionalGids": [1]},
        "capabilities": {"bounding": ["CAP_KILL"]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 20}],
    },
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        {"destination": "/data", "type": "none", "source": "/srv", "options": ["rbind", "ro"]},
    ],
    "hooks": {"prestart": [{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]},
    "annotations": {"a": "b"},
    "linux": {
        "namespaces": [
            {"type": "pid"},
            {"type": "network"},
            {"type": "mount"},
            {"type": "ipc"},
            {"type": "uts"},
            {"type": "cgroup"},
        ],
        "devices": [{"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": 1048576},
            "cpu": {"quota": 50000, "period": 100000},
            "pids": {"limit": 10},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
            "rdma": {"mlx5_1": {"hcaHandles": 3}},
            "unified": {"memory.high": "1"},
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {
                    "names": ["read"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}],
                }
            ],
        },
    },
}


def changed(*changes: tuple[str, Any]) -> Json:
    """`BASE` with changes."""
    config = copy.deepcopy(BASE)
    for pointer, value in changes:
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        target: Any = config
        for part in path:
            target = target[int(part)] if isinstance(target, list) else target.setdefault(part, {})
        if isinstance(target, list):
            if last == "-":
                target.append(copy.deepcopy(value))
            else:
                target[int(last)] = copy.deepcopy(value)
        elif value is GONE:
            del target[last]
        else:
            target[last] = copy.deepcopy(value)
    return config


P = "/process"
L = "/linux"
R = "/linux/resources"
S = "/linux/seccomp"
CONDITIONS = [{"index": index, "op": "SCMP_CMP_EQ", "value": 1} for index in range(6)]
WITHOUT_MOUNT_NS = ("/linux/namespaces", [{"type": "pid"}, {"type": "uts"}, {"type": "network"}])
WITHOUT_NETWORK = ("/linux/namespaces", [{"type": "mount"}, {"type": "uts"}, {"type": "ipc"}])


def one(pointer: str, value: Any, *words: str) -> tuple[list[tuple[str, Any]], str, tuple[str, ...]]:
    """The common case: the changed field is the one named."""
    return [(pointer, value)], pointer, words


BROKEN: list[tuple[list[tuple[str, Any]], str, tuple[str, ...]]] = [
    # top level
    one("/ociVersion", GONE, "expected string", "found nothing"),
    one("/ociVersion", "9.9.9", "version 1.x", '"9.9.9"'),
    one("/ociVersion", "0.6.0", "version 1.x"),
    one("/ociVersion", "1.3", "SemVer"),
    one("/ociVersion", "", "SemVer", 'string ""'),
    one("/ociVersion", "1.03.0", "SemVer"),
    one("/ociVersion", 1.3, "expected string", "number 1.3"),
    one("/root", GONE, "expected object", "nothing"),
    one("/root", [], "expected object", "empty array"),
    one("/root/path", GONE, "expected string", "nothing"),
    one("/root/path", "", "a directory"),
    one("/root/path", "/", "other than /"),
    one("/root/path", "/./..", "other than /"),
    one("/root/readonly", "true", "expected boolean", 'string "true"'),
    one("/root/readonly", 1, "expected boolean", "number 1"),
    one("/annotations/a", 1, "expected string", "number 1"),
    ([("/annotations/", "x")], "/annotations", ("not empty",)),
    one("/annotations", [], "expected object"),
    one("/hostname", 7, "expected string"),
    one("/hostname", "x" * 65, "64 bytes"),
    one("/hostname", "é" * 33, "64 bytes"),
    ([("/linux/namespaces", [{"type": "mount"}, {"type": "network"}])], "/hostname", ("uts namespace",)),
    ([("/linux/namespaces/4/type", "time"), ("/domainname", "d")], "/domainname", ("uts namespace",)),
    # hooks
    one("/hooks/prestart/0/path", "bin/true", "absolute path", '"bin/true"'),
    one("/hooks/prestart/0/path", "", "absolute path"),
    one("/hooks/prestart/0/path", GONE, "expected string", "nothing"),
    one("/hooks/prestart/0/timeout", 0, "integer from 1", "number 0"),
    one("/hooks/prestart/0/timeout", -1, "integer from 1"),
    one("/hooks/prestart/0/timeout", 1.5, "integer from 1", "number 1.5"),
    one("/hooks/prestart/0/env/0", "novalue", "NAME"),
    one("/hooks/poststop", {}, "expected array", "an object"),
    one("/hooks/prestart/0/args/0", None, "null"),
    ([("/hooks/poststop", [{"path": "x"}])], "/hooks/poststop/0/path", ("absolute path",)),
    # process
    one("/process", [], "expected object"),
    one(f"{P}/cwd", GONE, "expected string", "nothing"),
    one(f"{P}/cwd", "tmp", "absolute path"),
    one(f"{P}/cwd", "", "absolute path"),
    one(f"{P}/args", GONE, "at least one string", "nothing"),
    one(f"{P}/args", [], "at least one string", "empty array"),
    one(f"{P}/args", "sh", "expected array", 'string "sh"'),
    one(f"{P}/args/0", "", "name of a program"),
    one(f"{P}/args/0", 1, "expected string", "number 1"),
    ([(f"{P}/args/-", "x" * 131072)], f"{P}/args/1", ("131072", "bytes")),
    ([(f"{P}/args/-", "é" * 65536)], f"{P}/args/1", ("131072", "bytes")),
    ([(f"{P}/args", ["true"] + ["x" * 100000] * 70)], f"{P}/args", ("in total",)),
    (
        [
            (f"{P}/args/-", "x" * 130000),
            (f"{P}/env/-", "A=" + "x" * 130000),
            (f"{P}/rlimits/0", {"type": "RLIMIT_STACK", "soft": 524288, "hard": 524288}),
        ],
        f"{P}/args",
        ("131072 bytes in total",),
    ),
    one(f"{P}/env/0", "PATH", "NAME=VALUE", '"PATH"'),
    one(f"{P}/env/0", "=x", "NAME=VALUE"),
    one(f"{P}/env/0", "", "NAME=VALUE"),
    one(f"{P}/env/0", None, "expected string", "null"),
    ([(f"{P}/env/-", "A=" + "x" * 131070)], f"{P}/env/1", ("131072", "131072 bytes")),
    one(f"{P}/terminal", "yes", "expected boolean"),
    (
        [(f"{P}/terminal", True), (f"{P}/consoleSize", {"height": 65536, "width": 1})],
        f"{P}/consoleSize/height",
        ("65535",),
    ),
    ([(f"{P}/consoleSize", {"height": 1})], f"{P}/consoleSize/width", ("integer from 0", "nothing")),
    one(f"{P}/user/uid", -1, "integer from 0 to 4294967294", "number -1"),
    one(f"{P}/user/uid", 4294967295, "4294967294", "number 4294967295"),
    one(f"{P}/user/uid", 4294967296, "4294967294"),
    one(f"{P}/user/uid", "0", "integer", 'string "0"'),
    one(f"{P}/user/uid", 1.0, "integer", "number 1.0"),
    one(f"{P}/user/uid", True, "integer", "boolean true"),
    one(f"{P}/user/gid", 1000.0, "integer", "number 1000.0"),
    one(f"{P}/user/gid", 2**64, "4294967294", str(2**64)),
    one(f"{P}/user/additionalGids/0", 4294967295, "4294967294"),
    one(f"{P}/user/additionalGids/0", False, "integer", "boolean false"),
    one(f"{P}/user/additionalGids", [7] * 65537, "65536 groups"),
    one(f"{P}/user/umask", 512, "0 to 511"),
    one(f"{P}/user/umask", "022", "0 to 511"),
    one(f"{P}/rlimits/0/type", "RLIMIT_BOGUS", "one of RLIMIT_CPU", '"RLIMIT_BOGUS"'),
    one(f"{P}/rlimits/0/soft", 21, "hard limit 20", "number 21"),
    one(f"{P}/rlimits/0/soft", -1, "0 to 18446744073709551615"),
    one(f"{P}/rlimits/0/hard", 2**64, "0 to 18446744073709551615"),
    one(f"{P}/rlimits/0/hard", GONE, "integer", "nothing"),
    ([(f"{P}/rlimits/-", {"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1})], f"{P}/rlimits/1/type", ("once",)),
    one(f"{P}/capabilities/bounding", "CAP_KILL", "expected array"),
    one(f"{P}/capabilities/bounding/0", 5, "expected string"),
    one(f"{P}/oomScoreAdj", 1001, "-1000 to 1000"),
    one(f"{P}/oomScoreAdj", -1001, "-1000 to 1000"),
    one(f"{P}/noNewPrivileges", 0, "expected boolean"),
    *(
        ([(f"{P}/scheduler", {"policy": policy, **fields})], f"{P}/scheduler/{name}", (words,))
        for policy, fields, name, words in (
            ("SCHED_OTHER", {"nice": 20}, "nice", "-20 to 19"),
            ("SCHED_BATCH", {"nice": -21}, "nice", "-20 to 19"),
            ("SCHED_OTHER", {"priority": 1}, "priority", "only SCHED_FIFO"),
            ("SCHED_FIFO", {}, "priority", "1 to 99"),
            ("SCHED_RR", {"priority": 100}, "priority", "1 to 99"),
            ("SCHED_FIFO", {"priority": 1, "runtime": 5}, "runtime", "SCHED_DEADLINE"),
            ("SCHED_IDLE", {"period": 5}, "period", "SCHED_DEADLINE"),
            ("SCHED_DEADLINE", {"runtime": 1023, "deadline": 9999}, "runtime", "1024"),
            ("SCHED_DEADLINE", {"runtime": 1 << 63, "deadline": 1 << 63}, "runtime", "to 9223372036854775807 ns"),
            ("SCHED_DEADLINE", {"runtime": 9999, "deadline": 9998}, "deadline", "from the runtime 9999"),
            ("SCHED_DEADLINE", {"runtime": 9999, "deadline": 10000, "period": 9999}, "period", "the deadline 10000"),
            ("SCHED_DEADLINE", {"runtime": 9999, "deadline": 1 << 63}, "deadline", "to 9223372036854775807"),
        )
    ),
    ([(f"{P}/scheduler", {})], f"{P}/scheduler/policy", ("one of SCHED_OTHER", "nothing")),
    (
        [(f"{P}/scheduler", {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]})],
        f"{P}/scheduler/flags/0",
        ("SCHED_FLAG_RECLAIM",),
    ),
    ([(f"{P}/scheduler", {"policy": "SCHED_X"})], f"{P}/scheduler/policy", ("one of SCHED_OTHER",)),
    ([(f"{P}/ioPriority", {"class": "IOPRIO_CLASS_X"})], f"{P}/ioPriority/class", ("one of IOPRIO_CLASS_RT",)),
    ([(f"{P}/ioPriority", {"priority": 1})], f"{P}/ioPriority/class", ("one of IOPRIO_CLASS_RT", "nothing")),
    ([(f"{P}/ioPriority", {"class": "IOPRIO_CLASS_BE", "priority": 8})], f"{P}/ioPriority/priority", ("0 to 7",)),
    ([(f"{P}/execCPUAffinity", {"initial": "a"})], f"{P}/execCPUAffinity/initial", ("0-3,7",)),
    ([(f"{P}/execCPUAffinity", {"final": "3-1"})], f"{P}/execCPUAffinity/final", ("0-3,7",)),
    ([(f"{P}/execCPUAffinity", {"final": "0-8192"})], f"{P}/execCPUAffinity/final", ("8191",)),
    # mounts
    one("/mounts", {}, "expected array"),
    one("/mounts/1", "x", "expected object", 'string "x"'),
    one("/mounts/1/destination", GONE, "expected string", "nothing"),
    one("/mounts/1/destination", 7, "expected string", "number 7"),
    one("/mounts/1/destination", "", "a path"),
    one("/mounts/1/destination", "/", "below /"),
    one("/mounts/1/destination", "//../.", "below /"),
    one("/mounts/1/destination", "/proc", "only a procfs", '"tmpfs"'),
    one("/mounts/2/destination", "/proc", "only a procfs", '"/srv"'),
    one("/mounts/1/destination", "/proc/self", "under /proc"),
    one("/mounts/2/destination", "/proc/1", "under /proc"),
    one("/mounts/2/destination", "proc/self/attr", "under /proc"),
    one("/mounts/2/destination", "/sys/../proc/./sys", "under /proc"),
    one("/mounts/2/source", GONE, "path to bind", "nothing"),
    one("/mounts/2/source", "", "path to bind"),
    one("/mounts/1/type", GONE, "filesystem type", "bind or rbind"),
    one("/mounts/1/type", "bind", "filesystem type", "bind or rbind"),
    one("/mounts/1/options", "ro", "expected array"),
    one("/mounts/1/options/0", 1, "expected string"),
    # idmapped mounts
    ([("/mounts/2/options/1", "idmap")], "/mounts/2/options", ("mappings for it", '"idmap"')),
    ([("/mounts/2/options/1", "ridmap")], "/mounts/2/options", ("mappings for it", '"ridmap"')),
    one("/mounts/2/options/1", "idmap=uids=0-1-1", "uidMappings and gidMappings"),
    ([("/mounts/2/uidMappings", MAP)], "/mounts/2/gidMappings", ("because there are uidMappings",)),
    ([("/mounts/2/gidMappings", MAP)], "/mounts/2/uidMappings", ("because there are gidMappings",)),
    ([("/mounts/1/uidMappings", MAP), ("/mounts/1/gidMappings", MAP)], "/mounts/1/uidMappings", ("bind mount",)),
    ([("/mounts/1/options/0", "idmap"), *USERNS], "/mounts/1/options", ("bind mount",)),
    ([("/mounts/2/options/-", "remount"), ("/mounts/2/options/-", "idmap"), *USERNS], "/mounts/2/options", ("bind",)),
    (
        [("/mounts/2/uidMappings", [{**MAP[0], "size": 0}]), ("/mounts/2/gidMappings", MAP)],
        "/mounts/2/uidMappings/0/size",
        ("at least 1",),
    ),
    (
        [("/mounts/2/options/-", "idmap"), ("/linux/namespaces/-", {"type": "user", "path": "/proc/self/ns/user"})],
        "/mounts/2/options",
        ("neither the mount nor the container",),
    ),
    ([("/mounts/2/gidMappings", [{"containerID": 0, "hostID": 1}])], "/mounts/2/gidMappings/0/size", ("integer",)),
    # linux
    one("/linux", None, "expected object", "null"),
    one(f"{L}/namespaces/0/type", "bogus", "one of pid", '"bogus"'),
    one(f"{L}/namespaces/1/type", "pid", "once", '"pid"'),
    one(f"{L}/namespaces/1/type", GONE, "one of pid", "nothing"),
    one(f"{L}/namespaces/1/path", "run/netns/a", "absolute path"),
    # user namespaces
    ([(f"{L}/namespaces/-", {"type": "user"})], f"{L}/uidMappings", ("at least one mapping", "nothing")),
    ([(f"{L}/namespaces/-", {"type": "user"}), (f"{L}/uidMappings", MAP)], f"{L}/gidMappings", ("at least one",)),
    ([*USERNS, (f"{L}/uidMappings", [])], f"{L}/uidMappings", ("at least one mapping",)),
    ([*USERNS, (f"{L}/devices/0/uid", 70)], f"{L}/devices/0/uid", ("mapped by /linux/uidMappings", "number 70")),
    ([*USERNS, (f"{L}/devices/0/gid", 70)], f"{L}/devices/0/gid", ("mapped by /linux/gidMappings", "number 70")),
    one(f"{L}/uidMappings", MAP, "without a user namespace"),
    one(f"{L}/gidMappings", MAP, "without a user namespace"),
    ([*USERNS, (f"{L}/uidMappings/0/size", 0)], f"{L}/uidMappings/0/size", ("at least 1",)),
    ([*USERNS, (f"{L}/gidMappings/0/size", 2**32)], f"{L}/gidMappings/0/size", ("4294967295",)),
    ([*USERNS, (f"{L}/uidMappings/0/hostID", 2**32 - 2)], f"{L}/uidMappings/0/hostID", ("below 4294967295", "size 70")),
    ([*USERNS, (f"{L}/uidMappings/0/hostID", -1)], f"{L}/uidMappings/0/hostID", ("integer",)),
    ([*USERNS, (f"{L}/uidMappings/0/hostID", GONE)], f"{L}/uidMappings/0/hostID", ("integer",)),
    ([*USERNS, (f"{L}/uidMappings/0/containerID", 1)], f"{L}/uidMappings", ("mapping for id 0",)),
    (
        [*USERNS, (f"{L}/uidMappings/-", {**MAP[0], "hostID": 5000})],
        f"{L}/uidMappings/1/containerID",
        ("overlap", "0 to 69"),
    ),
    ([*USERNS, (f"{L}/gidMappings/-", {**MAP[0], "containerID": 90})], f"{L}/gidMappings/1/hostID", ("overlap",)),
    (
        [*USERNS, (f"{L}/uidMappings", [{"containerID": n, "hostID": n, "size": 1} for n in range(341)])],
        f"{L}/uidMappings",
        ("at most 340",),
    ),
    (
        [*USERNS, (f"{L}/gidMappings", [{"containerID": n, "hostID": 10**6 + n, "size": 1} for n in range(330)])],
        f"{L}/gidMappings",
        ("4095 characters",),
    ),
    ([*USERNS, ("/process/user/uid", 70)], "/process/user/uid", ("uidMappings", "70")),
    ([*USERNS, ("/process/user/gid", 71)], "/process/user/gid", ("gidMappings", "71")),
    ([*USERNS, ("/process/user/additionalGids", [1, 99])], "/process/user/additionalGids/1", ("gidMappings",)),
    ([*USERNS, ("/mounts/1/options/-", "uid=70")], "/mounts/1/options/2", ("uidMappings", "uid=70")),
    ([*USERNS, ("/mounts/1/options/-", "gid=70")], "/mounts/1/options/2", ("gidMappings", "gid=70")),
    ([JOINED, (f"{L}/uidMappings", MAP)], f"{L}/gidMappings", ("at least one",)),
    one(f"{L}/timeOffsets", {"monotonic": {"secs": 1}}, "a new time namespace"),
    (
        [(f"{L}/namespaces/-", {"type": "time", "path": "/x"}), (f"{L}/timeOffsets", {"boottime": {"secs": 1}})],
        f"{L}/timeOffsets",
        ("a new time namespace", "set already"),
    ),
    (
        [(f"{L}/namespaces/-", {"type": "time"}), (f"{L}/timeOffsets", {"realtime": {"secs": 1}})],
        f"{L}/timeOffsets/realtime",
        ("monotonic or boottime",),
    ),
    (
        [(f"{L}/namespaces/-", {"type": "time"}), (f"{L}/timeOffsets", {"boottime": {"nanosecs": 10**9}})],
        f"{L}/timeOffsets/boottime/nanosecs",
        ("999999999",),
    ),
    ([(f"{L}/timeOffsets", {"boottime": {"nanosecs": -1}})], f"{L}/timeOffsets/boottime/nanosecs", ("integer",)),
    (
        [WITHOUT_NETWORK, (f"{L}/sysctl", {}), (f"{L}/netDevices", {"eth0": {}})],
        f"{L}/netDevices",
        ("network namespace",),
    ),
    *(
        ([(f"{L}/netDevices", devices)], f"{L}/netDevices/{at}", (words,))
        for devices, at, words in (
            ({"eth0123456789abc": {}}, "eth0123456789abc", "at most 15 bytes"),
            ({"a/b": {}}, "a~1b", "without blanks"),
            ({"..": {}}, "..", "name of a network device"),
            ({"eth%d": {}}, "eth%d", "name of a network device"),
            ({"eth0": {"name": "a b"}}, "eth0/name", "without blanks"),
            ({"eth0": {"name": "a:b"}}, "eth0/name", "without blanks"),
            ({"eth0": {"name": "."}}, "eth0/name", "without blanks"),
            ({"eth0": {"name": "%d%d"}}, "eth0/name", "template such as eth%d"),
            ({"eth0": {"name": "a%dx"}}, "eth0/name", "template such as eth%d"),
            ({"eth0": {"name": "x"}, "eth1": {"name": "x"}}, "eth1/name", "no other device has"),
            ({"eth0": {"name": "eth1"}, "eth1": {}}, "eth1/name", "no other device has"),
        )
    ),
    ([(f"{L}/memoryPolicy", {})], f"{L}/memoryPolicy/mode", ("one of MPOL_DEFAULT", "nothing", "memory policy mode")),
    *(
        ([(f"{L}/memoryPolicy", {"mode": mode, **fields})], f"{L}/memoryPolicy/{name}", (words,))
        for mode, fields, name, words in (
            ("MPOL_DEFAULT", {"nodes": "0"}, "nodes", "no nodes"),
            (
                "MPOL_DEFAULT",
                {"nodes": "0-7"},
                "nodes",
                "(invalid memory policy node: mode requires 0 nodes but got 8)",
            ),
            ("MPOL_BIND", {"nodes": "0-9876543210"}, "nodes", "(invalid memory policy node)"),
            ("MPOL_BIND", {"nodes": "0", "flags": ["badflag"]}, "flags/0", "(invalid memory policy flag)"),
            ("INTERLEAVE", {"nodes": "0"}, "mode", "(invalid memory policy mode)"),
            ("MPOL_LOCAL", {"nodes": "0"}, "nodes", "no nodes"),
            ("MPOL_BIND", {}, "nodes", "at least one"),
            ("MPOL_INTERLEAVE", {"nodes": ""}, "nodes", "at least one"),
            ("MPOL_WEIGHTED_INTERLEAVE", {}, "nodes", "at least one"),
            ("MPOL_PREFERRED_MANY", {}, "nodes", "at least one"),
            ("MPOL_BIND", {"nodes": "1-0"}, "nodes", "0-3,7"),
            ("MPOL_BIND", {"nodes": "1024"}, "nodes", "1023"),
            ("MPOL_BIND", {"nodes": "0", "flags": ["MPOL_F_X"]}, "flags/0", "MPOL_F_STATIC_NODES"),
            ("MPOL_BIND", {"nodes": "0", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]}, "flags", "one of"),
            ("MPOL_PREFERRED", {"flags": ["MPOL_F_STATIC_NODES"]}, "flags", "nodes beside"),
            ("MPOL_INTERLEAVE", {"nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]}, "flags", "no MPOL_F_NUMA"),
        )
    ),
    *(
        ([(f"{L}/intelRdt", {name.split("/")[0]: value})], f"{L}/intelRdt/{name}", (words,))
        for name, value, words in (
            ("closID", "..", "name of a class"),
            ("closID", "a/b", "name of a class"),
            ("closID", "info", "name of a class"),
            ("closID", 1, "expected string"),
            ("memBwSchema", "L3:0=f", "begins with MB:"),
            ("memBwSchema", "MB:0=10\nMB:1=10", "one line"),
            ("schemata/0", ["L3:0=f\nMB:0=10"], "one line"),
            ("schemata/0", ["x"], "one line"),
            ("enableMonitoring", "yes", "expected boolean"),
        )
    ),
    one(f"{L}/devices/0/type", "x", "one of c, b, u, p"),
    one(f"{L}/devices/0/path", "dev/fuse", "absolute path"),
    one(f"{L}/devices/0/path", "/", "below /"),
    one(f"{L}/devices/0/major", GONE, "number", "nothing"),
    one(f"{L}/devices/0/minor", GONE, "number", "nothing"),
    one(f"{L}/devices/0/major", 4096, "0 to 4095"),
    one(f"{L}/devices/0/minor", -1, "0 to 1048575"),
    one(f"{L}/devices/0/fileMode", 65536, "65535"),
    one(f"{L}/devices/0/uid", 4294967295, "4294967294"),
    one(f"{L}/maskedPaths/0", "proc/kcore", "absolute path"),
    one(f"{L}/maskedPaths/0", "", "absolute path"),
    one(f"{L}/readonlyPaths/0", "proc/sys", "absolute path"),
    ([WITHOUT_MOUNT_NS, *USERNS], f"{L}/namespaces", ("a mount namespace beside the user namespace",)),
    ([WITHOUT_MOUNT_NS, JOINED], f"{L}/namespaces", ("a mount namespace beside the user namespace",)),
    one(f"{L}/rootfsPropagation", "foo", "one of private", '"foo"'),
    ([WITHOUT_MOUNT_NS, (f"{L}/rootfsPropagation", "slave")], f"{L}/rootfsPropagation", ("mount namespace",)),
    one(f"{L}/cgroupsPath", "/../../x", '".."'),
    one(f"{L}/cgroupsPath", "a/../../x", '".."'),
    one(f"{L}/cgroupsPath", "/a/..", '".."'),
    one(f"{L}/cgroupsPath", "/x" * 129, "128 levels"),
    one(f"{L}/cgroupsPath", "/ok/" + "é" * 128, "255 bytes"),
    one(f"{L}/personality/domain", "BSD", "LINUX, LINUX32"),
    ([(f"{L}/personality", {})], f"{L}/personality/domain", ("LINUX, LINUX32", "nothing")),
    (
        [(f"{L}/personality", {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]})],
        f"{L}/personality/flags",
        ("no flags",),
    ),
    # sysctl
    one(f"{L}/sysctl/kernel.core_pattern", "|/x", "belongs to a namespace"),
    one(f"{L}/sysctl/net~1..~1kernel~1core_pattern", "|/x", "a sysctl such as"),
    one(f"{L}/sysctl/net.~1~1.kernel.core_pattern", "|/x", "a sysctl such as"),
    one(f"{L}/sysctl/kernel~1core_pattern", "|/x", "belongs to a namespace"),
    one(f"{L}/sysctl/kernel.hostname", "x", "field hostname"),
    one(f"{L}/sysctl/user.max_user_namespaces", "1", "user namespace"),
    one(f"{L}/sysctl/net", "1", "a sysctl such as"),
    one(f"{L}/sysctl/net..x", "1", "a sysctl such as"),
    one(f"{L}/sysctl/net~1ipv4~1ip_forward", "1", "once"),
    one(f"{L}/sysctl/netx.a", "1", "belongs to a namespace"),
    one(f"{L}/sysctl/vm.swappiness", 1, "expected string", "number 1"),
    ([(f"{L}/namespaces/1/type", "time")], f"{L}/sysctl/net.ipv4.ip_forward", ("network namespace",)),
    ([(f"{L}/namespaces/1/path", "/proc/1/ns/net")], f"{L}/sysctl/net.ipv4.ip_forward", ("of the host",)),
    (
        [(f"{L}/namespaces/3/type", "time"), (f"{L}/sysctl/kernel.shm_rmid_forced", "1")],
        f"{L}/sysctl/kernel.shm_rmid_forced",
        ("ipc namespace",),
    ),
    (
        [(f"{L}/namespaces/3/type", "time"), (f"{L}/sysctl/fs.mqueue.msg_max", "1")],
        f"{L}/sysctl/fs.mqueue.msg_max",
        ("ipc namespace",),
    ),
    (
        [("/domainname", "a"), (f"{L}/sysctl", {"kernel.domainname": "b"})],
        f"{L}/sysctl/kernel.domainname",
        ("the field domainname or this sysctl, not both",),
    ),
    (
        [(f"{L}/namespaces/4/type", "time"), (f"{L}/sysctl/kernel.domainname", "x"), ("/hostname", GONE)],
        f"{L}/sysctl/kernel.domainname",
        ("uts namespace",),
    ),
    # seccomp
    one(f"{S}/defaultAction", GONE, "one of SCMP_ACT_KILL", "nothing"),
    one(f"{S}/defaultAction", "SCMP_ACT_BOGUS", "one of SCMP_ACT_KILL"),
    one(f"{S}/defaultAction", "SCMP_ACT_NOTIFY", "other than SCMP_ACT_NOTIFY"),
    one(f"{S}/defaultErrnoRet", 4096, "0 to 4095"),
    (
        [(f"{S}/defaultAction", "SCMP_ACT_KILL"), (f"{S}/defaultErrnoRet", 1)],
        f"{S}/defaultErrnoRet",
        ("SCMP_ACT_KILL",),
    ),
    one(f"{S}/architectures/0", "SCMP_ARCH_VAX", "one of SCMP_ARCH_X86"),
    one(f"{S}/flags", {}, "expected array"),
    ([(f"{S}/flags", ["SECCOMP_FILTER_FLAG_X"])], f"{S}/flags/0", ("one of SECCOMP_FILTER_FLAG_TSYNC",)),
    one(f"{S}/listenerMetadata", "x", "listenerPath"),
    one(f"{S}/syscalls/0/names", [], "at least one"),
    one(f"{S}/syscalls/0/names/0", "", "name of a system call"),
    one(f"{S}/syscalls/0/names", GONE, "expected array", "nothing"),
    one(f"{S}/syscalls/0/action", "ALLOW", "one of SCMP_ACT_KILL"),
    one(f"{S}/syscalls/0/errnoRet", 1, "nothing here for SCMP_ACT_ALLOW"),
    (
        [(f"{S}/syscalls/0/action", "SCMP_ACT_KILL_PROCESS"), (f"{S}/syscalls/0/errnoRet", 1)],
        f"{S}/syscalls/0/errnoRet",
        ("nothing here for SCMP_ACT_KILL_PROCESS",),
    ),
    (
        [(f"{S}/syscalls/0/action", "SCMP_ACT_TRACE"), (f"{S}/syscalls/0/errnoRet", 65536)],
        f"{S}/syscalls/0/errnoRet",
        ("0 to 65535",),
    ),
    ([(f"{S}/syscalls/0/action", "SCMP_ACT_NOTIFY")], f"{S}/listenerPath", ("socket",)),
    (
        [(f"{S}/syscalls/0/action", "SCMP_ACT_NOTIFY"), (f"{S}/syscalls/0/names/0", "write")],
        f"{S}/syscalls/0/names/0",
        ("other than write",),
    ),
    one(f"{S}/architectures", ["SCMP_ARCH_X86"] * 33, "at most 32 architectures", "33"),
    ([(f"{S}/syscalls/0/names", ["read"] * 4097)], f"{S}/syscalls", ("at most 4096 names", "4097")),
    (
        [(f"{S}/syscalls/0/names", ["read"] * 684), (f"{S}/syscalls/0/args", CONDITIONS)],
        f"{S}/syscalls",
        ("at most 4096 conditions", "4104"),
    ),
    (
        [
            (f"{S}/syscalls/0/names", ["read"] * 682),
            (f"{S}/syscalls/0/args", CONDITIONS),
            (f"{S}/architectures", ["SCMP_ARCH_X86_64"]),
        ],
        f"{S}/syscalls",
        ("at most 65535 instructions",),
    ),
    one(f"{S}/syscalls/0/args/0/index", 6, "0 to 5"),
    one(f"{S}/syscalls/0/args/0/value", -1, "0 to 18446744073709551615"),
    one(f"{S}/syscalls/0/args/0/op", "==", "one of SCMP_CMP_NE"),
    one(f"{S}/syscalls/0/args/0/op", GONE, "one of SCMP_CMP_NE", "nothing"),
    # resources
    one(f"{R}/devices/0/allow", GONE, "expected boolean", "nothing"),
    one(f"{R}/devices/0/access", "", "combination of r, w and m"),
    one(f"{R}/devices/0/access", "rx", "combination of r, w and m", '"rx"'),
    one(f"{R}/devices/0/access", "a", "combination of r, w and m", '"a"'),
    one(f"{R}/devices/0/access", GONE, "combination of r, w and m", "nothing"),
    one(f"{R}/devices/0/type", "p", "one of a, b, c"),
    one(f"{R}/devices/0/major", -2, "-1 to"),
    one(f"{R}/memory/limit", -2, "-1 to"),
    one(f"{R}/memory/limit", 2**63, "-1 to"),
    one(f"{R}/memory/swap", 1048575, "at least the memory limit 1048576"),
    ([(f"{R}/memory", {"swap": 5})], f"{R}/memory/swap", ("without a memory limit",)),
    ([(f"{R}/memory", {"swap": 5, "limit": -1})], f"{R}/memory/swap", ("without a memory limit",)),
    one(f"{R}/memory/swappiness", 101, "0 to 100"),
    one(f"{R}/cpu/period", 999, "1000 to 1000000"),
    one(f"{R}/cpu/period", 1000001, "1000 to 1000000"),
    one(f"{R}/cpu/quota", 999, "at least 1000"),
    one(f"{R}/cpu/burst", 50001, "quota 50000"),
    one(f"{R}/cpu/shares", -1, "0 to"),
    one(f"{R}/cpu/idle", 2, "0 or 1"),
    one(f"{R}/cpu/realtimeRuntime", 950000, "no realtime limits"),
    one(f"{R}/cpu/realtimePeriod", 1000000, "no realtime limits"),
    one(f"{R}/cpu/cpus", "0-", "list such as"),
    one(f"{R}/cpu/cpus", "3-1", "list such as"),
    one(f"{R}/cpu/mems", "a", "list such as"),
    one(f"{R}/pids/limit", -2, "-1 to"),
    one(f"{R}/pids/limit", GONE, "integer", "nothing"),
    one(f"{R}/blockIO/weight", 9, "10 to 1000"),
    one(f"{R}/blockIO/weight", 1001, "10 to 1000"),
    one(f"{R}/blockIO/leafWeight", 10, "no leaf weights"),
    (
        [(f"{R}/blockIO/weightDevice", [{"major": 8, "minor": 0}])],
        f"{R}/blockIO/weightDevice/0/weight",
        ("10 to 1000",),
    ),
    (
        [(f"{R}/blockIO/weightDevice", [{"major": 8, "minor": 0, "weight": 5}])],
        f"{R}/blockIO/weightDevice/0/weight",
        ("10 to 1000",),
    ),
    (
        [(f"{R}/blockIO/throttleReadBpsDevice", [{"major": 8, "minor": 0}])],
        f"{R}/blockIO/throttleReadBpsDevice/0/rate",
        ("integer", "nothing"),
    ),
    one(f"{R}/hugepageLimits/0/pageSize", "64kB", "size such as"),
    one(f"{R}/hugepageLimits/0/pageSize", "MB", "size such as"),
    one(f"{R}/hugepageLimits/0/pageSize", "02MB", "size such as"),
    ([(f"{R}/hugepageLimits/-", {"pageSize": "2MB", "limit": 1})], f"{R}/hugepageLimits/1/pageSize", ("once",)),
    one(f"{R}/network/classID", 1, "net_cls"),
    one(f"{R}/network/priorities", [{"name": "eth0", "priority": 1}], "net_prio"),
    one(f"{R}/rdma/mlx5_1", {}, "hcaHandles"),
    one(f"{R}/rdma/mlx5_1/hcaHandles", "3", "integer"),
    one(f"{R}/rdma/a b", {"hcaHandles": 3}, "without blanks"),
    one(f"{R}/unified/a~1b", "1", "name of a file"),
    one(f"{R}/unified/..", "1", "name of a file"),
    one(f"{R}/unified/memory.max", 1, "expected string", "number 1"),
    ([(f"{R}/unified/", "1")], f"{R}/unified", ("not empty",)),
]
