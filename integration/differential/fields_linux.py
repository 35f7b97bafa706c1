"""Strategies for `linux` and the rest of the top level."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from integration.differential.allowed import NAMES
from integration.differential.context import ALL_NAMESPACES, Context, Draw
from integration.differential.model import NAMESPACES, REMOVE, Feature, words

JOINABLE = ("network", "ipc", "uts", "cgroup", "pid")
SYSCTLS = {
    "network": (
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.ping_group_range", "0 10"),
        ("net.core.somaxconn", "200"),
        ("net/ipv4/conf/lo/forwarding", "1"),
        ("net.ipv4.ip_unprivileged_port_start", "0"),
    ),
    "ipc": (
        ("kernel.shmmax", "1048576"),
        ("kernel.msgmax", "4096"),
        ("fs.mqueue.msg_max", "20"),
        ("kernel.sem", "250 32000 100 128"),
    ),
    "uts": (("kernel.domainname", "sysctl.example"),),
}
DENIED = words(
    """
        mkdirat fchmodat getpriority getppid sched_yield sethostname setdomainname ptrace keyctl add_key bpf setns
        unshare mount umount2 chroot clone3 socket userfaultfd open_by_handle_at syslog setuid setgroups
        perf_event_open io_uring_setup mlock setpriority quotactl mkdir chmod
        """
)

# The program cannot report without these, so a filter may fail them but not kill.
NEEDED = {"mkdir", "mkdirat", "socket", "getppid", "getpriority", "keyctl"}
HARSH = ("SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP")


def namespaces(draw: Draw, context: Context) -> Feature:
    """Namespaces: some are the host's, some are joined, in any order."""
    entries: list[dict[str, str]] = [{"type": "mount"}]
    joined: list[str] = []
    context.namespaces = {"mount": ""}
    for kind in ALL_NAMESPACES:
        if kind == "mount":
            continue
        how = draw(st.sampled_from(("new", "new", "new", "host", "path")))
        if how == "path" and kind in JOINABLE:
            path = f"{NAMESPACES}/{ {'network': 'net'}.get(kind, kind) }"
            entries.append({"type": kind, "path": path})
            joined.append(kind)
            context.namespaces[kind] = path
        elif how != "host":
            entries.append({"type": kind})
            context.namespaces[kind] = ""
    edits: list[list[Any]] = [["/linux/namespaces", draw(st.permutations(entries))]]
    if "uts" not in context.namespaces:
        edits.append(["/hostname", REMOVE])
    return Feature("namespaces", edits, caller={"namespaces": joined} if joined else {})


def time(draw: Draw, context: Context) -> Feature:
    """A time namespace with offsets."""
    edits: list[list[Any]] = [["/linux/namespaces/-", {"type": "time"}]]
    context.namespaces["time"] = ""
    if draw(st.integers(0, 3)):
        edits.append(
            [
                "/linux/timeOffsets",
                {"monotonic": {"secs": draw(st.sampled_from((0, 1000, -1))), "nanosecs": 5}, "boottime": {"secs": 100}},
            ]
        )
    return Feature("namespaces.time", edits)


def userns(draw: Draw, context: Context) -> Feature:
    """A user namespace with mappings of one or several ranges."""
    context.userns = True
    maps = draw(
        st.sampled_from(
            (
                [{"containerID": 0, "hostID": 100000, "size": 65536}],
                [
                    {"containerID": 0, "hostID": 100000, "size": 1000},
                    {"containerID": 1000, "hostID": 1000, "size": 1},
                    {"containerID": 1001, "hostID": 101001, "size": 64535},
                ],
                [{"containerID": 0, "hostID": 0, "size": 65536}],
                [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 200000, "size": 65535}],
            )
        )
    )
    edits = [["/linux/namespaces/-", {"type": "user"}], ["/linux/uidMappings", maps], ["/linux/gidMappings", maps]]
    # runc must reach the root filesystem as the container's root, whichever id that is.
    return Feature("namespaces.user", edits)


def joined_userns(draw: Draw, context: Context) -> Feature:
    """A user namespace by path, with or without its mappings."""
    context.userns = True
    edits: list[list[Any]] = [["/linux/namespaces/-", {"type": "user", "path": f"{NAMESPACES}/user"}]]
    if draw(st.booleans()):
        maps = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        edits += [["/linux/uidMappings", maps], ["/linux/gidMappings", maps]]
    return Feature("namespaces.user.path", edits, caller={"namespaces": ["user"]})


def devices(draw: Draw, context: Context) -> Feature:
    """Device nodes: with modes and owners, at usual and unusual paths, in place of default ones."""
    found: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(1, 3))):
        kind, major, minor = draw(
            st.sampled_from(
                (
                    ("c", 1, 3),
                    ("c", 1, 5),
                    ("c", 10, 229),
                    ("u", 10, 200),
                    ("b", 7, 9),
                    ("c", 1, 11),
                    ("p", 0, 0),
                    ("c", 240, 77),
                )
            )
        )
        path = draw(
            st.sampled_from(
                (
                    "/dev/one",
                    "/dev/two",
                    "/dev/sub/deep",
                    "/dev/null",
                    "/dev/fuse",
                    "/opt/device",
                    "/mnt/x/device",
                    "/dev/shm/device",
                    "/link/device",
                )
            )
        )
        if any(entry["path"] == path for entry in found):
            continue
        entry: dict[str, Any] = {"path": path, "type": kind}
        if path == "/dev/null":
            kind, major, minor = "c", 1, 3
            entry["type"] = kind
        if kind != "p":
            entry |= {"major": major, "minor": minor}
        if draw(st.booleans()):
            entry["fileMode"] = draw(st.sampled_from((0o600, 0o666, 0o644, 0o20640, 0o1777)))
        if draw(st.booleans()):
            entry |= {"uid": draw(st.sampled_from((0, 1000))), "gid": draw(st.sampled_from((0, 5, 1000)))}
        found.append(entry)
    return Feature("linux.devices", [["/linux/devices", found]], ask=[f"path {entry['path']}" for entry in found])


def device_rules(draw: Draw, context: Context) -> Feature:
    """Rules of the device cgroup, in order."""
    rules = draw(
        st.lists(
            st.sampled_from(
                (
                    {"allow": False, "access": "rwm"},
                    {"allow": True, "access": "rwm"},
                    {"allow": True, "type": "c", "major": 1, "minor": 1, "access": "r"},
                    {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
                    {"allow": True, "type": "c", "major": 10, "access": "rwm"},
                    {"allow": True, "type": "b", "access": "m"},
                    {"allow": True, "type": "b", "major": 7, "minor": 9, "access": "rm"},
                    {"allow": False, "type": "c", "major": 1, "minor": 7, "access": "w"},
                    {"allow": True, "type": "c", "access": "m"},
                    {"allow": True, "type": "a", "access": "rwm"},
                    {"allow": False, "type": "c", "major": 1, "minor": 3, "access": "rwm"},
                )
            ),
            max_size=5,
        )
    )
    return Feature("linux.resources.devices", [["/linux/resources/devices", rules]])


def paths(draw: Draw, context: Context) -> Feature:
    """Masked and read-only paths: present, missing, files, directories, links, mounts,
    duplicates."""
    pool = words(
        """
        /proc/kcore /proc/keys /proc/timer_list /proc/sys /proc/acpi /proc/bus /proc/irq /proc/nothing /sys/firmware
        /data /data/file /existing /link /link-file /missing/x /dev/shm /dev/null /broken /data/nested /etc
        """
    )
    masked = draw(st.lists(st.sampled_from(pool), max_size=4))
    readonly = draw(st.lists(st.sampled_from(pool), max_size=4))
    edits: list[list[Any]] = []
    if draw(st.integers(0, 3)):
        edits.append(["/linux/maskedPaths", masked])
    if draw(st.integers(0, 3)) or not edits:
        edits.append(["/linux/readonlyPaths", readonly])
    return Feature("linux.paths", edits, ask=[f"path {path}" for path in dict.fromkeys(masked + readonly)])


def root(draw: Draw, context: Context) -> Feature:
    """Root: read-only, propagation, spelling of the path."""
    edits: list[list[Any]] = []
    if draw(st.booleans()):
        edits.append(["/root/readonly", True])
    if draw(st.integers(0, 2)):
        edits.append(
            [
                "/linux/rootfsPropagation",
                draw(
                    st.sampled_from(
                        ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
                    )
                ),
            ]
        )
    if draw(st.integers(0, 3)) == 0:
        edits.append(["/root/path", draw(st.sampled_from(("/w/b/rootfs", "./rootfs", "rootfs/")))])
    return Feature("root", edits, ask=["path /", "path /data", "path /mnt"])


def sysctl(draw: Draw, context: Context) -> Feature | None:
    """Sysctls of the container's own namespaces."""
    pool = [pair for kind, pairs in SYSCTLS.items() if context.own(kind) for pair in pairs]
    if not pool:
        return None
    chosen = dict(draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3, unique=True)))
    return Feature(
        "linux.sysctl", [["/linux/sysctl", chosen]], ask=[f"sysctl {name.replace('.', '/')}" for name in chosen]
    )


def names(draw: Draw, context: Context) -> Feature | None:
    """Host and domain name."""
    if not context.own("uts"):
        return None
    edits: list[list[Any]] = [["/hostname", draw(st.sampled_from(("a", "with.dots.example", "x" * 64, REMOVE)))]]
    if draw(st.booleans()):
        edits.append(["/domainname", draw(st.sampled_from(("example.org", "y" * 64)))])
    return Feature("names", edits)


def _rule_about_arguments(draw: Draw) -> dict[str, Any]:
    return {
        "names": [draw(st.sampled_from(("personality", "unshare", "socket", "setuid")))],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": 77,
        "args": draw(
            st.lists(
                st.builds(
                    lambda index, value, op, two: (
                        {"index": index, "value": value, "op": op}
                        | ({"valueTwo": two} if op == "SCMP_CMP_MASKED_EQ" else {})
                    ),
                    st.sampled_from((0, 1, 0, 2)),
                    st.sampled_from((0, 2, 16, 40, 0xFFFFFFFF, 0x10000000)),
                    st.sampled_from(("SCMP_CMP_EQ", "SCMP_CMP_NE", "SCMP_CMP_GT", "SCMP_CMP_GE", "SCMP_CMP_MASKED_EQ")),
                    st.sampled_from((0, 2, 0x10000000)),
                ),
                min_size=1,
                max_size=2,
            )
        ),
    }


def seccomp(draw: Draw, context: Context) -> Feature:
    """Profiles that deny some calls, and profiles that allow all but some."""
    rules: list[dict[str, Any]] = []
    for _ in range(draw(st.integers(0, 4))):
        names_ = draw(st.lists(st.sampled_from(DENIED), min_size=1, max_size=4, unique=True))
        action = draw(
            st.sampled_from(
                (
                    "SCMP_ACT_ERRNO",
                    "SCMP_ACT_ERRNO",
                    "SCMP_ACT_KILL",
                    "SCMP_ACT_KILL_PROCESS",
                    "SCMP_ACT_KILL_THREAD",
                    "SCMP_ACT_TRAP",
                    "SCMP_ACT_LOG",
                    "SCMP_ACT_TRACE",
                    "SCMP_ACT_ALLOW",
                )
            )
        )
        if action in HARSH:
            names_ = [name for name in names_ if name not in NEEDED] or ["syslog"]
        rule: dict[str, Any] = {"names": names_, "action": action}
        if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") and draw(st.booleans()):
            rule["errnoRet"] = draw(st.sampled_from((0, 1, 38, 95)))
        rules.append(rule)
    if draw(st.integers(0, 2)) == 0:
        rules.append(_rule_about_arguments(draw))
    profile: dict[str, Any] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    if draw(st.booleans()):
        profile["architectures"] = draw(
            st.sampled_from(
                (
                    ["SCMP_ARCH_X86_64"],
                    ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
                    ["SCMP_ARCH_AARCH64"],
                    [],
                )
            )
        )
    if draw(st.integers(0, 2)) == 0:
        profile["flags"] = draw(
            st.sampled_from(
                ([], ["SECCOMP_FILTER_FLAG_LOG"], ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], ["SECCOMP_FILTER_FLAG_TSYNC"])
            )
        )
    return Feature("linux.seccomp", [["/linux/seccomp", profile]])


def seccomp_allow(draw: Draw, context: Context) -> Feature:
    """An allow-list like those of engines: an error by default, and ENOSYS for the newest calls."""
    left_out = set(draw(st.lists(st.sampled_from(DENIED), max_size=6, unique=True)))
    profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": [name for name in NAMES if name not in left_out], "action": "SCMP_ACT_ALLOW"}],
    }
    if draw(st.booleans()):
        profile["defaultErrnoRet"] = draw(st.sampled_from((1, 38, 13)))
    return Feature("linux.seccomp.allow", [["/linux/seccomp", profile]])


def cgroups_path(draw: Draw, context: Context) -> Feature:
    """The path of the cgroup."""
    return Feature(
        "linux.cgroupsPath",
        [["/linux/cgroupsPath", draw(st.sampled_from(("/box/c", "/box/deep/er/c", "relative/c", REMOVE)))]],
    )


def unified(draw: Draw, context: Context) -> Feature:
    """Cgroup files that exist with any set of controllers."""
    chosen = draw(
        st.sampled_from(
            (
                {"cgroup.max.depth": "5"},
                {"cgroup.max.descendants": "7"},
                {"cgroup.max.depth": "3", "cgroup.max.descendants": "max"},
            )
        )
    )
    return Feature("linux.resources.unified", [["/linux/resources/unified", chosen]])


def personality(draw: Draw, context: Context) -> Feature:
    """The personalities LINUX32 and LINUX."""
    return Feature(
        "linux.personality", [["/linux/personality", {"domain": draw(st.sampled_from(("LINUX", "LINUX32")))}]]
    )


def memory_policy(draw: Draw, context: Context) -> Feature:
    """NUMA policies that a single node allows."""
    policy = draw(
        st.sampled_from(
            (
                {"mode": "MPOL_DEFAULT"},
                {"mode": "MPOL_LOCAL"},
                {"mode": "MPOL_BIND", "nodes": "0"},
                {"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
                {"mode": "MPOL_PREFERRED", "nodes": "0"},
            )
        )
    )
    return Feature("linux.memoryPolicy", [["/linux/memoryPolicy", policy]])


def some_annotations(draw: Draw, context: Context) -> Feature:
    """Annotations, which the state returns."""
    chosen = draw(
        st.dictionaries(
            st.sampled_from(("org.example.a", "a.b/c", "ü", "x")),
            st.sampled_from(("", "value", "{}", 'quo"te', "ü")),
            max_size=3,
        )
    )
    return Feature("annotations", [["/annotations", chosen]])


def version(draw: Draw, context: Context) -> Feature:
    """Versions of the specification, and members that no version defines."""
    edits = draw(
        st.sampled_from(
            (
                [["/ociVersion", "1.0.0"]],
                [["/ociVersion", "1.2.1"]],
                [["/ociVersion", "1.3.0"]],
                [["/ociVersion", "1.1.0-rc.1"]],
                [["/unknown", {"a": [1]}]],
                [["/linux/unknown", 1], ["/process/unknown", None]],
                [["/windows", {}], ["/solaris", {}]],
            )
        )
    )
    return Feature("version", edits)
