"""linux.namespaces, and the settings that live in one: hostname, domain name, sysctls.

The ENTER section is here: what the spawned process does in the caller's namespaces until it has become pid 1.
"""

from __future__ import annotations

from pyrunc.plan import NO_SLOT
from pyrunc.plan.ops import P_CLONE_INIT_IN_CGROUP, P_KEYRING_OTHER_SEARCH, P_OOM_SCORE_BEST_EFFORT
from pyrunc.spec.names import escape, sysctl_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.host import HostFacts
    from pyrunc.plan import Plan
    from pyrunc.plan.create import Options

# clone(2) flags by the runtime-spec's names (config-linux.md, Namespaces)
CLONE_FLAGS = {
    "time": 0x00000080,
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}
# setns order: the user namespace first, because it grants the right to join the others; the mount namespace last,
# because what is looked up by path is looked up in the mount namespace of the moment.
_JOIN_RANK = {"user": 0, "mount": 2}


class Namespaces:
    """linux.namespaces sorted into new and joined ones."""

    __slots__ = ("cgroup_writable", "joined", "new", "nodes", "placed", "pointers", "root_in_cwd", "trees")

    def __init__(self, linux: dict[str, Any]) -> None:
        self.new = 0  # CLONE_NEW* of the namespaces to make
        self.joined: list[tuple[str, str]] = []  # (type, path) in config order
        self.pointers: dict[str, str] = {}  # type -> JSON pointer of its entry
        self.placed = self.root_in_cwd = False  # ENTER has PLACE, ENTER_ROOT
        self.cgroup_writable = False  # the container may make cgroups below its own
        self.trees: dict[str, int] = {}  # origin of a bind mount -> slot of the clone that OPEN_TREE makes
        self.nodes: set[int] = set()  # indexes of linux.devices that MAKE_NODE makes
        for index, entry in enumerate(linux.get("namespaces") or ()):
            kind, path = entry["type"], entry.get("path")
            self.pointers[kind] = f"/linux/namespaces/{index}"
            if path:
                self.joined.append((kind, path))
            else:
                self.new |= CLONE_FLAGS[kind]

    def has(self, kind: str) -> bool:
        """Whether the container has a namespace of this type that is not simply the caller's."""
        return kind in self.pointers

    def is_new(self, kind: str) -> bool:
        """Whether the container gets a new namespace of this type."""
        return bool(self.new & CLONE_FLAGS[kind])


def enter(
    plan: Plan, config: dict[str, Any], process: dict[str, Any], facts: HostFacts, options: Options, spaces: Namespaces
) -> None:
    """ENTER: from the spawned process to the container's first."""
    if spaces.has("user"):
        from pyrunc.plan import userns

        userns.place(plan, spaces)
    score = process.get("oomScoreAdj")
    if score is not None:
        # Before DUMPABLE, which makes the file root-only; not touched when the field is absent (config.md).
        plan.oom_score("/process/oomScoreAdj", policy=oom_policy(score, facts), value=score)
    plan.dumpable("(default)", value=0)
    if spaces.has("user"):
        userns.open_outside(plan, config, facts, options, spaces)
        userns.nodes(plan, config, facts, spaces)
    in_cgroup = bool(plan.cgroup_path) and not spaces.placed
    joined = sorted(spaces.joined, key=_join_rank)
    join(plan, [entry for entry in joined if not (in_cgroup and entry[0] == "cgroup")], spaces.pointers)
    if spaces.is_new("user"):
        userns.enter(plan, facts, spaces)
    # The cgroup namespace is made by pid 1 inside the final cgroup: its root is its maker's (cgroup_namespaces(7)).
    flags = spaces.new & ~(CLONE_FLAGS["cgroup"] | CLONE_FLAGS["user"])
    if flags:
        plan.unshare("/linux/namespaces", flags=flags)
    offsets = (config.get("linux") or {}).get("timeOffsets")
    if offsets:
        from pyrunc.plan import scheduling

        scheduling.time_offsets(plan, offsets)
    clone_init(plan, plan.cgroup_path if in_cgroup else "", joined, spaces.pointers)


def join(plan: Plan, joined: list[tuple[str, str]], pointers: dict[str, str]) -> None:
    """JOIN_NS for these (type, path), in this order."""
    for kind, path in joined:
        origin = pointers.get(kind, "(default)")
        plan.join_ns(origin, fd=plan.fd("ns", path, origin), nstype=CLONE_FLAGS[kind], path=path)


def clone_init(plan: Plan, cgroup: str, joined: list[tuple[str, str]], pointers: dict[str, str]) -> None:
    """CLONE_INIT into ``cgroup`` ("": where we are), and after it the cgroup namespace, if it is joined.

    Where the hierarchy is mounted with nsdelegate, as systemd does it, a cgroup namespace is a border: from inside
    nothing outside can be moved, and we are outside until the clone is born in its cgroup (clone3: ENOENT).
    """
    if cgroup:
        slot = plan.fd("cgroup", cgroup, "/linux/cgroupsPath")
        plan.clone_init("/linux/cgroupsPath", policy=P_CLONE_INIT_IN_CGROUP, cgroup_fd=slot)
        join(plan, [entry for entry in joined if entry[0] == "cgroup"], pointers)
    else:
        plan.clone_init("(default)", cgroup_fd=NO_SLOT)


def _join_rank(entry: tuple[str, str]) -> int:
    return _JOIN_RANK.get(entry[0], 1)


def oom_policy(score: int, facts: HostFacts) -> int:
    """A user cannot lower the score, and engines ask for it all the same (docs/callers.md)."""
    return P_OOM_SCORE_BEST_EFFORT if facts.euid != 0 or (score < 0 and facts.rootless) else 0


def keyring_policy(config: dict[str, Any]) -> int:
    """In a user namespace the keyring is looked up by users to whom its owner may be nobody they know."""
    listed = (config.get("linux") or {}).get("namespaces") or ()
    return P_KEYRING_OTHER_SEARCH if any(entry["type"] == "user" for entry in listed) else 0


def keyring(plan: Plan, config: dict[str, Any], program: dict[str, Any], id: str) -> None:
    """A session keyring of the container's, with the label of its processes."""
    label = program.get("selinuxLabel")
    if label:
        plan.key_label("/process/selinuxLabel", label=label)
    plan.keyring("(default)", policy=keyring_policy(config), name=f"_ses.{id}")
    if label:
        plan.key_label("/process/selinuxLabel")


def set_up(plan: Plan, config: dict[str, Any], spaces: Namespaces, options: Options) -> None:
    """The first steps of pid 1."""
    plan.setsid("(default)")
    if not options.no_new_keyring:
        keyring(plan, config, config.get("process") or {}, options.id)
    if spaces.is_new("cgroup"):
        plan.unshare_cgroup(spaces.pointers["cgroup"])
    if spaces.is_new("network"):
        plan.lo_up(spaces.pointers["network"])


def names_and_sysctls(plan: Plan, config: dict[str, Any], linux: dict[str, Any]) -> None:
    """Host name, domain name and kernel parameters; before read-only paths, which usually cover /proc/sys."""
    if config.get("hostname"):
        plan.hostname("/hostname", name=config["hostname"])
    if config.get("domainname"):
        plan.domainname("/domainname", name=config["domainname"])
    for key, value in (linux.get("sysctl") or {}).items():
        plan.sysctl(f"/linux/sysctl/{escape(key)}", key=sysctl_path(key), value=value)
