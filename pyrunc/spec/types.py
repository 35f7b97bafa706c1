"""Types of config.json (runtime-spec 1.3.0).  Only type checkers import this module.

Written by contrib/config_types.py from pyrunc/spec/schema.py; do not edit.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict


class Root(TypedDict):
    """config.json /root."""

    path: str
    readonly: NotRequired[bool]


class IdMapping(TypedDict):
    """config.json /mounts/*/uidMappings/*."""

    containerID: int
    hostID: int
    size: int


class Mount(TypedDict):
    """config.json /mounts/*."""

    destination: str
    type: NotRequired[str]
    source: NotRequired[str]
    options: NotRequired[list[str]]
    uidMappings: NotRequired[list[IdMapping]]
    gidMappings: NotRequired[list[IdMapping]]


class ConsoleSize(TypedDict):
    """config.json /process/consoleSize."""

    height: int
    width: int


RlimitType = Literal[
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
]


class Rlimit(TypedDict):
    """config.json /process/rlimits/*."""

    type: RlimitType
    soft: int
    hard: int


class User(TypedDict):
    """config.json /process/user."""

    uid: NotRequired[int]
    gid: NotRequired[int]
    umask: NotRequired[int]
    additionalGids: NotRequired[list[int]]


class Capabilities(TypedDict):
    """config.json /process/capabilities."""

    bounding: NotRequired[list[str]]
    effective: NotRequired[list[str]]
    inheritable: NotRequired[list[str]]
    permitted: NotRequired[list[str]]
    ambient: NotRequired[list[str]]


SchedulerPolicy = Literal[
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
]
SchedulerFlag = Literal[
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
]


class Scheduler(TypedDict):
    """config.json /process/scheduler."""

    policy: SchedulerPolicy
    nice: NotRequired[int]
    priority: NotRequired[int]
    flags: NotRequired[list[SchedulerFlag]]
    runtime: NotRequired[int]
    deadline: NotRequired[int]
    period: NotRequired[int]


IoPriorityClass = Literal["IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"]
# config.json /process/ioPriority
IoPriority = TypedDict("IoPriority", {"class": IoPriorityClass, "priority": NotRequired[int]})


class CpuAffinity(TypedDict):
    """config.json /process/execCPUAffinity."""

    initial: NotRequired[str]
    final: NotRequired[str]


class Process(TypedDict):
    """config.json /process."""

    terminal: NotRequired[bool]
    consoleSize: NotRequired[ConsoleSize]
    cwd: str
    env: NotRequired[list[str]]
    args: NotRequired[list[str]]
    rlimits: NotRequired[list[Rlimit]]
    user: NotRequired[User]
    capabilities: NotRequired[Capabilities]
    noNewPrivileges: NotRequired[bool]
    apparmorProfile: NotRequired[str]
    selinuxLabel: NotRequired[str]
    oomScoreAdj: NotRequired[int]
    scheduler: NotRequired[Scheduler]
    ioPriority: NotRequired[IoPriority]
    execCPUAffinity: NotRequired[CpuAffinity]


class Hook(TypedDict):
    """config.json /hooks/prestart/*."""

    path: str
    args: NotRequired[list[str]]
    env: NotRequired[list[str]]
    timeout: NotRequired[int]


class Hooks(TypedDict):
    """config.json /hooks."""

    prestart: NotRequired[list[Hook]]
    createRuntime: NotRequired[list[Hook]]
    createContainer: NotRequired[list[Hook]]
    startContainer: NotRequired[list[Hook]]
    poststart: NotRequired[list[Hook]]
    poststop: NotRequired[list[Hook]]


NamespaceType = Literal["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]


class Namespace(TypedDict):
    """config.json /linux/namespaces/*."""

    type: NamespaceType
    path: NotRequired[str]


class TimeOffset(TypedDict):
    """config.json /linux/timeOffsets/boottime."""

    secs: NotRequired[int]
    nanosecs: NotRequired[int]


class TimeOffsets(TypedDict):
    """config.json /linux/timeOffsets."""

    boottime: NotRequired[TimeOffset]
    monotonic: NotRequired[TimeOffset]


DeviceType = Literal["c", "b", "u", "p"]


class Device(TypedDict):
    """config.json /linux/devices/*."""

    type: DeviceType
    path: str
    major: NotRequired[int]
    minor: NotRequired[int]
    fileMode: NotRequired[int]
    uid: NotRequired[int]
    gid: NotRequired[int]


class NetDevice(TypedDict):
    """config.json /linux/netDevices/*."""

    name: NotRequired[str]


DeviceRuleType = Literal["a", "b", "c"]


class DeviceRule(TypedDict):
    """config.json /linux/resources/devices/*."""

    allow: bool
    type: NotRequired[DeviceRuleType]
    major: NotRequired[int]
    minor: NotRequired[int]
    access: NotRequired[str]


class Pids(TypedDict):
    """config.json /linux/resources/pids."""

    limit: int


class WeightDevice(TypedDict):
    """config.json /linux/resources/blockIO/weightDevice/*."""

    major: int
    minor: int
    weight: NotRequired[int]
    leafWeight: NotRequired[int]


class ThrottleDevice(TypedDict):
    """config.json /linux/resources/blockIO/throttleReadBpsDevice/*."""

    major: int
    minor: int
    rate: int


class BlockIO(TypedDict):
    """config.json /linux/resources/blockIO."""

    weight: NotRequired[int]
    leafWeight: NotRequired[int]
    weightDevice: NotRequired[list[WeightDevice]]
    throttleReadBpsDevice: NotRequired[list[ThrottleDevice]]
    throttleWriteBpsDevice: NotRequired[list[ThrottleDevice]]
    throttleReadIOPSDevice: NotRequired[list[ThrottleDevice]]
    throttleWriteIOPSDevice: NotRequired[list[ThrottleDevice]]


class Cpu(TypedDict):
    """config.json /linux/resources/cpu."""

    cpus: NotRequired[str]
    mems: NotRequired[str]
    period: NotRequired[int]
    quota: NotRequired[int]
    burst: NotRequired[int]
    realtimePeriod: NotRequired[int]
    realtimeRuntime: NotRequired[int]
    shares: NotRequired[int]
    idle: NotRequired[int]


class HugepageLimit(TypedDict):
    """config.json /linux/resources/hugepageLimits/*."""

    pageSize: str
    limit: int


class Memory(TypedDict):
    """config.json /linux/resources/memory."""

    kernel: NotRequired[int]
    kernelTCP: NotRequired[int]
    limit: NotRequired[int]
    reservation: NotRequired[int]
    swap: NotRequired[int]
    swappiness: NotRequired[int]
    disableOOMKiller: NotRequired[bool]
    useHierarchy: NotRequired[bool]
    checkBeforeUpdate: NotRequired[bool]


class InterfacePriority(TypedDict):
    """config.json /linux/resources/network/priorities/*."""

    name: str
    priority: int


class Network(TypedDict):
    """config.json /linux/resources/network."""

    classID: NotRequired[int]
    priorities: NotRequired[list[InterfacePriority]]


class RdmaLimits(TypedDict):
    """config.json /linux/resources/rdma/*."""

    hcaHandles: NotRequired[int]
    hcaObjects: NotRequired[int]


class Resources(TypedDict):
    """config.json /linux/resources."""

    unified: NotRequired[dict[str, str]]
    devices: NotRequired[list[DeviceRule]]
    pids: NotRequired[Pids]
    blockIO: NotRequired[BlockIO]
    cpu: NotRequired[Cpu]
    hugepageLimits: NotRequired[list[HugepageLimit]]
    memory: NotRequired[Memory]
    network: NotRequired[Network]
    rdma: NotRequired[dict[str, RdmaLimits]]


RootfsPropagation = Literal[
    "private",
    "shared",
    "slave",
    "unbindable",
    "rprivate",
    "rshared",
    "rslave",
    "runbindable",
    "",
]
SeccompAction = Literal[
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
]
SeccompFlag = Literal[
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
]
SeccompArch = Literal[
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
]
SyscallArgOp = Literal[
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
]


class SyscallArg(TypedDict):
    """config.json /linux/seccomp/syscalls/*/args/*."""

    index: int
    value: int
    valueTwo: NotRequired[int]
    op: SyscallArgOp


class SyscallRule(TypedDict):
    """config.json /linux/seccomp/syscalls/*."""

    names: list[str]
    action: SeccompAction
    errnoRet: NotRequired[int]
    args: NotRequired[list[SyscallArg]]


class Seccomp(TypedDict):
    """config.json /linux/seccomp."""

    defaultAction: SeccompAction
    defaultErrnoRet: NotRequired[int]
    flags: NotRequired[list[SeccompFlag]]
    listenerPath: NotRequired[str]
    listenerMetadata: NotRequired[str]
    architectures: NotRequired[list[SeccompArch]]
    syscalls: NotRequired[list[SyscallRule]]


class IntelRdt(TypedDict):
    """config.json /linux/intelRdt."""

    closID: NotRequired[str]
    schemata: NotRequired[list[str]]
    l3CacheSchema: NotRequired[str]
    memBwSchema: NotRequired[str]
    enableMonitoring: NotRequired[bool]


MemoryPolicyMode = Literal[
    "MPOL_DEFAULT",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_WEIGHTED_INTERLEAVE",
    "MPOL_PREFERRED",
    "MPOL_PREFERRED_MANY",
    "MPOL_LOCAL",
]
MemoryPolicyFlag = Literal["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]


class MemoryPolicy(TypedDict):
    """config.json /linux/memoryPolicy."""

    mode: MemoryPolicyMode
    nodes: NotRequired[str]
    flags: NotRequired[list[MemoryPolicyFlag]]


PersonalityDomain = Literal["LINUX", "LINUX32"]


class Personality(TypedDict):
    """config.json /linux/personality."""

    domain: PersonalityDomain
    flags: NotRequired[list[str]]


class Linux(TypedDict):
    """config.json /linux."""

    namespaces: NotRequired[list[Namespace]]
    uidMappings: NotRequired[list[IdMapping]]
    gidMappings: NotRequired[list[IdMapping]]
    timeOffsets: NotRequired[TimeOffsets]
    devices: NotRequired[list[Device]]
    netDevices: NotRequired[dict[str, NetDevice]]
    cgroupsPath: NotRequired[str]
    resources: NotRequired[Resources]
    rootfsPropagation: NotRequired[RootfsPropagation]
    seccomp: NotRequired[Seccomp]
    sysctl: NotRequired[dict[str, str]]
    maskedPaths: NotRequired[list[str]]
    readonlyPaths: NotRequired[list[str]]
    mountLabel: NotRequired[str]
    intelRdt: NotRequired[IntelRdt]
    memoryPolicy: NotRequired[MemoryPolicy]
    personality: NotRequired[Personality]


class Config(TypedDict):
    """config.json."""

    ociVersion: str
    root: Root
    mounts: NotRequired[list[Mount]]
    process: NotRequired[Process]
    hostname: NotRequired[str]
    domainname: NotRequired[str]
    hooks: NotRequired[Hooks]
    annotations: NotRequired[dict[str, str]]
    linux: NotRequired[Linux]
