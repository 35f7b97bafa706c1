"""config.json of runtime-spec 1.3.0 for Linux as one table: its fields, their types, and the
required ones.

Nodes are always tuples, so that the whole table is a constant:

    ("string", values)               values: the allowed ones, or None
    ("integer", lowest, highest)
    ("boolean",)
    ("array", item node)
    ("map", item node)               an object with arbitrary keys
    ("object", {name: node}, required names)

Other keys are ignored, as the specification requires (extensibility); so are the sections of other
platforms. The rules_*.py files hold what a type cannot express. tests/test_spec_schema.py compares
the table with the official JSON schemas and explains each difference.
"""

from __future__ import annotations

from pyrunc.spec.names import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    Node = tuple[Any, ...]  # Any: the first item says what the others are

STRING = ("string", None)
BOOLEAN = ("boolean",)
STRINGS = ("array", STRING)
STRING_MAP = ("map", STRING)

U16 = ("integer", 0, 0xFFFF)
U32 = ("integer", 0, 0xFFFFFFFF)
U64 = ("integer", 0, 0xFFFFFFFFFFFFFFFF)
I32 = ("integer", -0x80000000, 0x7FFFFFFF)
I64 = ("integer", -0x8000000000000000, 0x7FFFFFFFFFFFFFFF)
ID = ("integer", 0, 0xFFFFFFFE)  # -1 is not an id: setresuid(-1) keeps the caller's, which would be root

ID_MAPPINGS = (
    "array",
    ("object", {"containerID": U32, "hostID": U32, "size": U32}, ("containerID", "hostID", "size")),
)

MOUNT = (
    "object",
    {
        "destination": STRING,
        "type": STRING,
        "source": STRING,
        "options": STRINGS,
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
    },
    ("destination",),
)

# The timeout is passed in milliseconds in an int (poll(2)).
HOOKS = (
    "array",
    ("object", {"path": STRING, "args": STRINGS, "env": STRINGS, "timeout": ("integer", 1, 2147483)}, ("path",)),
)

RLIMIT = (
    "object",
    {
        "type": ("string", RLIMITS),
        "soft": U64,
        "hard": U64,
    },
    ("type", "soft", "hard"),
)

SCHEDULER = (
    "object",
    {
        "policy": (
            "string",
            (
                "SCHED_OTHER",
                "SCHED_FIFO",
                "SCHED_RR",
                "SCHED_BATCH",
                "SCHED_ISO",
                "SCHED_IDLE",
                "SCHED_DEADLINE",
            ),
        ),
        "nice": I32,
        "priority": I32,
        "flags": (
            "array",
            (
                "string",
                (
                    "SCHED_FLAG_RESET_ON_FORK",
                    "SCHED_FLAG_RECLAIM",
                    "SCHED_FLAG_DL_OVERRUN",
                    "SCHED_FLAG_KEEP_POLICY",
                    "SCHED_FLAG_KEEP_PARAMS",
                    "SCHED_FLAG_UTIL_CLAMP_MIN",
                    "SCHED_FLAG_UTIL_CLAMP_MAX",
                ),
            ),
        ),
        "runtime": U64,
        "deadline": U64,
        "period": U64,
    },
    ("policy",),
)

PROCESS = (
    "object",
    {
        "terminal": BOOLEAN,
        "consoleSize": ("object", {"height": U64, "width": U64}, ("height", "width")),
        "cwd": STRING,
        "env": STRINGS,
        "args": STRINGS,
        "rlimits": ("array", RLIMIT),
        "user": (
            "object",
            {"uid": ID, "gid": ID, "umask": ("integer", 0, 0o777), "additionalGids": ("array", ID)},
            (),
        ),
        "capabilities": (
            "object",
            {
                "bounding": STRINGS,
                "effective": STRINGS,
                "inheritable": STRINGS,
                "permitted": STRINGS,
                "ambient": STRINGS,
            },
            (),
        ),
        "noNewPrivileges": BOOLEAN,
        "apparmorProfile": STRING,
        "selinuxLabel": STRING,
        "oomScoreAdj": ("integer", -1000, 1000),
        "scheduler": SCHEDULER,
        "ioPriority": (
            "object",
            {
                "class": ("string", ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")),
                "priority": ("integer", 0, 7),
            },
            ("class",),
        ),
        "execCPUAffinity": ("object", {"initial": STRING, "final": STRING}, ()),
    },
    ("cwd",),
)

# The kernel's dev_t has 12 and 20 bits; in a device rule, older engines write -1 for "all".
MAJOR = ("integer", 0, 0xFFF)
MINOR = ("integer", 0, 0xFFFFF)
RULE_NUMBER = ("integer", -1, 0xFFFFFFFF)

DEVICE = (
    "object",
    {
        "type": ("string", ("c", "b", "u", "p")),
        "path": STRING,
        "major": MAJOR,
        "minor": MINOR,
        # Includes the file type bits, as podman sends it; st_mode has 16 bits.
        "fileMode": U16,
        "uid": ID,
        "gid": ID,
    },
    ("type", "path"),
)

BLOCK_WEIGHT = (
    "array",
    ("object", {"major": MAJOR, "minor": MINOR, "weight": U16, "leafWeight": U16}, ("major", "minor")),
)
BLOCK_RATE = (
    "array",
    ("object", {"major": MAJOR, "minor": MINOR, "rate": U64}, ("major", "minor", "rate")),
)

RESOURCES = (
    "object",
    {
        "unified": STRING_MAP,
        "devices": (
            "array",
            (
                "object",
                {
                    "allow": BOOLEAN,
                    "type": ("string", ("a", "b", "c")),
                    "major": RULE_NUMBER,
                    "minor": RULE_NUMBER,
                    "access": STRING,
                },
                ("allow",),
            ),
        ),
        "pids": ("object", {"limit": ("integer", -1, 0x7FFFFFFFFFFFFFFF)}, ("limit",)),
        "blockIO": (
            "object",
            {
                "weight": U16,
                "leafWeight": U16,
                "weightDevice": BLOCK_WEIGHT,
                "throttleReadBpsDevice": BLOCK_RATE,
                "throttleWriteBpsDevice": BLOCK_RATE,
                "throttleReadIOPSDevice": BLOCK_RATE,
                "throttleWriteIOPSDevice": BLOCK_RATE,
            },
            (),
        ),
        "cpu": (
            "object",
            {
                "cpus": STRING,
                "mems": STRING,
                "period": U64,
                "quota": I64,
                "burst": U64,
                "realtimePeriod": U64,
                "realtimeRuntime": I64,
                "shares": U64,
                "idle": I64,
            },
            (),
        ),
        "hugepageLimits": (
            "array",
            ("object", {"pageSize": STRING, "limit": U64}, ("pageSize", "limit")),
        ),
        "memory": (
            "object",
            {
                "kernel": I64,
                "kernelTCP": I64,
                "limit": ("integer", -1, 0x7FFFFFFFFFFFFFFF),
                "reservation": ("integer", -1, 0x7FFFFFFFFFFFFFFF),
                "swap": ("integer", -1, 0x7FFFFFFFFFFFFFFF),
                "swappiness": ("integer", 0, 100),
                "disableOOMKiller": BOOLEAN,
                "useHierarchy": BOOLEAN,
                "checkBeforeUpdate": BOOLEAN,
            },
            (),
        ),
        "network": (
            "object",
            {
                "classID": U32,
                "priorities": (
                    "array",
                    ("object", {"name": STRING, "priority": U32}, ("name", "priority")),
                ),
            },
            (),
        ),
        "rdma": ("map", ("object", {"hcaHandles": U32, "hcaObjects": U32}, ())),
    },
    (),
)

ACTION = (
    "string",
    (
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_TRAP",
        "SCMP_ACT_ERRNO",
        "SCMP_ACT_TRACE",
        "SCMP_ACT_ALLOW",
        "SCMP_ACT_LOG",
        "SCMP_ACT_NOTIFY",
    ),
)

SECCOMP_ARCHES = (
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
)

SECCOMP = (
    "object",
    {
        "defaultAction": ACTION,
        "defaultErrnoRet": U32,
        "flags": (
            "array",
            (
                "string",
                (
                    "SECCOMP_FILTER_FLAG_TSYNC",
                    "SECCOMP_FILTER_FLAG_LOG",
                    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
                    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
                ),
            ),
        ),
        "listenerPath": STRING,
        "listenerMetadata": STRING,
        "architectures": ("array", ("string", SECCOMP_ARCHES)),
        "syscalls": (
            "array",
            (
                "object",
                {
                    "names": STRINGS,
                    "action": ACTION,
                    "errnoRet": U32,
                    "args": (
                        "array",
                        (
                            "object",
                            {
                                "index": ("integer", 0, 5),
                                "value": U64,
                                "valueTwo": U64,
                                "op": (
                                    "string",
                                    (
                                        "SCMP_CMP_NE",
                                        "SCMP_CMP_LT",
                                        "SCMP_CMP_LE",
                                        "SCMP_CMP_EQ",
                                        "SCMP_CMP_GE",
                                        "SCMP_CMP_GT",
                                        "SCMP_CMP_MASKED_EQ",
                                    ),
                                ),
                            },
                            ("index", "value", "op"),
                        ),
                    ),
                },
                ("names", "action"),
            ),
        ),
    },
    ("defaultAction",),
)

MEMORY_POLICY = (
    "object",
    {
        "mode": (
            "string",
            (
                "MPOL_DEFAULT",
                "MPOL_BIND",
                "MPOL_INTERLEAVE",
                "MPOL_WEIGHTED_INTERLEAVE",
                "MPOL_PREFERRED",
                "MPOL_PREFERRED_MANY",
                "MPOL_LOCAL",
            ),
        ),
        "nodes": STRING,
        "flags": (
            "array",
            ("string", ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")),
        ),
    },
    ("mode",),
)

TIME_OFFSET = ("object", {"secs": I64, "nanosecs": U32}, ())

LINUX = (
    "object",
    {
        "namespaces": (
            "array",
            (
                "object",
                {
                    "type": ("string", ("pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time")),
                    "path": STRING,
                },
                ("type",),
            ),
        ),
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
        "timeOffsets": ("object", {"boottime": TIME_OFFSET, "monotonic": TIME_OFFSET}, ()),
        "devices": ("array", DEVICE),
        "netDevices": ("map", ("object", {"name": STRING}, ())),
        "cgroupsPath": STRING,
        "resources": RESOURCES,
        "rootfsPropagation": (
            "string",
            # The r-forms are not in the official list, but engines send them. "" is unset, as in
            # runc and crun.
            ("private", "shared", "slave", "unbindable", "rprivate", "rshared", "rslave", "runbindable", ""),
        ),
        "seccomp": SECCOMP,
        "sysctl": STRING_MAP,
        "maskedPaths": STRINGS,
        "readonlyPaths": STRINGS,
        "mountLabel": STRING,
        "intelRdt": (
            "object",
            {
                "closID": STRING,
                "schemata": STRINGS,
                "l3CacheSchema": STRING,
                "memBwSchema": STRING,
                "enableMonitoring": BOOLEAN,
            },
            (),
        ),
        "memoryPolicy": MEMORY_POLICY,
        "personality": ("object", {"domain": ("string", ("LINUX", "LINUX32")), "flags": STRINGS}, ("domain",)),
    },
    (),
)

CONFIG: Node = (
    "object",
    {
        "ociVersion": STRING,
        "root": ("object", {"path": STRING, "readonly": BOOLEAN}, ("path",)),
        "mounts": ("array", MOUNT),
        "process": PROCESS,
        "hostname": STRING,
        "domainname": STRING,
        "hooks": (
            "object",
            {
                "prestart": HOOKS,
                "createRuntime": HOOKS,
                "createContainer": HOOKS,
                "startContainer": HOOKS,
                "poststart": HOOKS,
                "poststop": HOOKS,
            },
            (),
        ),
        "annotations": STRING_MAP,
        "linux": LINUX,
    },
    ("ociVersion", "root"),
)


def fields(node: Node = CONFIG, pointer: str = "") -> Iterator[tuple[str, Node, bool]]:
    """Every field below ``node``: its pointer (``*`` for indexes and arbitrary keys), its node, and
    whether it is required."""
    kind = node[0]
    if kind == "object":
        for name, child in node[1].items():
            yield f"{pointer}/{name}", child, name in node[2]
            yield from fields(child, f"{pointer}/{name}")
    elif kind in ("array", "map"):
        yield from fields(node[1], f"{pointer}/*")
