"""Mounts: the option table of config.md, the root filesystem, and what happens to the mount namespace around them.

Everything here ends as arguments of mount_setattr(2), fsconfig(2) and friends: init knows no option names.
"""

from __future__ import annotations

from pyrunc.fs import normpath
from pyrunc.plan.ops import (
    P_MOUNT_BIND,
    P_MOUNT_CGROUP,
    P_MOUNT_COPY_UP,
    P_MOUNT_HOST_BIND,
    P_MOUNT_IN_PROC,
    P_MOUNT_INHERIT_MODE,
    P_MOUNT_NEW_ROOT,
    P_MOUNT_PLAIN_DIR,
    P_MOUNT_RECURSIVE,
    P_MOUNT_REMOUNT,
    P_MOUNT_SOURCE_FD,
    P_PIVOT_CHROOT,
    P_PIVOT_MOVE,
    P_ROOT_CALLERS,
    P_ROOT_CWD,
    P_ROOT_SLAVE,
)
from pyrunc.spec.rules_mounts import PROC_FILES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.host import HostFacts
    from pyrunc.plan import Plan
    from pyrunc.plan.create import Options
    from pyrunc.plan.namespaces import Namespaces

# MOUNT_ATTR_* of mount_setattr(2)
RDONLY, NOSUID, NODEV, NOEXEC = 0x1, 0x2, 0x4, 0x8
ATIME_FIELD, RELATIME, NOATIME, STRICTATIME = 0x70, 0x00, 0x10, 0x20
NODIRATIME, NOSYMFOLLOW = 0x80, 0x200000
# What a bind mount with any plain flag option loses unless an option names it.
IMPLIED = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW
# Not a value of the access time's field, where relatime is 0: stands for the option among those that were given.
ASKED_RELATIME = 0x40

# Propagation as the steps have it: four bits per change, the first change lowest.
SHARED, SLAVE, PRIVATE, UNBINDABLE, RECURSIVE = 1, 2, 3, 4, 8
PROPAGATIONS = {
    "shared": SHARED,
    "slave": SLAVE,
    "private": PRIVATE,
    "unbindable": UNBINDABLE,
    "rshared": RECURSIVE | SHARED,
    "rslave": RECURSIVE | SLAVE,
    "rprivate": RECURSIVE | PRIVATE,
    "runbindable": RECURSIVE | UNBINDABLE,
}
MAX_PROPAGATIONS = 8  # in a u32

# What an option does: (what, value).  Value of SET and CLEAR: attribute bits; of ATIME and UNATIME: the mode that is
# asked for or no longer asked for; of REC_ATIME and REC_UNATIME: the value of the field; of PROPAGATE: the nibble of
# the MOUNT step; of SUPER: what it switches, and on or off; of NOTHING: whether it counts as a flag.
SET, CLEAR, ATIME, UNATIME, REC_SET, REC_CLEAR, REC_ATIME, REC_UNATIME = range(8)
PROPAGATE, SUPER, BIND, REMOUNT, COPY_UP, NOTHING, IDMAP = range(8, 15)
_REC = REC_SET - SET  # from a plain one to its recursive sibling
OPTIONS: dict[str, tuple[int, Any]] = {
    "ro": (SET, RDONLY),
    "rw": (CLEAR, RDONLY),
    "nosuid": (SET, NOSUID),
    "suid": (CLEAR, NOSUID),
    "nodev": (SET, NODEV),
    "dev": (CLEAR, NODEV),
    "noexec": (SET, NOEXEC),
    "exec": (CLEAR, NOEXEC),
    "nodiratime": (SET, NODIRATIME),
    "diratime": (CLEAR, NODIRATIME),
    "nosymfollow": (SET, NOSYMFOLLOW),
    "symfollow": (CLEAR, NOSYMFOLLOW),
    "relatime": (ATIME, ASKED_RELATIME),
    "norelatime": (UNATIME, ASKED_RELATIME),
    "noatime": (ATIME, NOATIME),
    "atime": (UNATIME, NOATIME),
    "strictatime": (ATIME, STRICTATIME),
    "nostrictatime": (UNATIME, STRICTATIME),
    "rro": (REC_SET, RDONLY),
    "rrw": (REC_CLEAR, RDONLY),
    "rnosuid": (REC_SET, NOSUID),
    "rsuid": (REC_CLEAR, NOSUID),
    "rnodev": (REC_SET, NODEV),
    "rdev": (REC_CLEAR, NODEV),
    "rnoexec": (REC_SET, NOEXEC),
    "rexec": (REC_CLEAR, NOEXEC),
    "rnodiratime": (REC_SET, NODIRATIME),
    "rdiratime": (REC_CLEAR, NODIRATIME),
    "rnosymfollow": (REC_SET, NOSYMFOLLOW),
    "rsymfollow": (REC_CLEAR, NOSYMFOLLOW),
    "rrelatime": (REC_ATIME, RELATIME),
    "rnorelatime": (REC_UNATIME, RELATIME),
    "rnoatime": (REC_ATIME, NOATIME),
    "ratime": (REC_UNATIME, NOATIME),
    "rstrictatime": (REC_ATIME, STRICTATIME),
    "rnostrictatime": (REC_UNATIME, STRICTATIME),
    **{name: (PROPAGATE, value) for name, value in PROPAGATIONS.items()},
    "sync": (SUPER, ("sync", True)),
    "async": (SUPER, ("sync", False)),
    "dirsync": (SUPER, ("dirsync", True)),
    "lazytime": (SUPER, ("lazytime", True)),
    "nolazytime": (SUPER, ("lazytime", False)),
    "mand": (SUPER, ("mand", True)),
    "nomand": (SUPER, ("mand", False)),
    "bind": (BIND, False),
    "rbind": (BIND, True),
    "idmap": (IDMAP, False),
    "ridmap": (IDMAP, True),
    "remount": (REMOUNT, None),
    "tmpcopyup": (COPY_UP, None),
    # MS_SILENT and MS_I_VERSION have no counterpart in fsconfig(2); "defaults" is what mount(8) calls no option.
    "defaults": (NOTHING, False),
    "silent": (NOTHING, True),
    "loud": (NOTHING, True),
    "iversion": (NOTHING, True),
    "noiversion": (NOTHING, True),
}
# How a superblock flag is said when a remount takes it away.
_SUPER_OFF = {"sync": "async", "lazytime": "nolazytime", "mand": "nomand"}

# Options that people give to the filesystems of a container; only for `meant`.
_OF_FILESYSTEMS = (
    "size", "nr_inodes", "nr_blocks", "mode", "uid", "gid", "huge", "mpol", "noswap", "hidepid", "subset",
    "newinstance", "ptmxmode", "lowerdir", "upperdir", "workdir", "userxattr", "volatile", "index", "metacopy",
)  # fmt: skip

_CGROUP_TYPES = ("cgroup", "cgroup2")
# Their labels come from the policy; a context= option is an error there or has no effect.
_UNLABELLED = ("proc", "sysfs", "cgroup", "cgroup2", "mqueue")


def clean(path: str) -> str:
    """An absolute path, lexically clean; a relative one counts from ``/``, as old destinations do (config.md)."""
    if path.startswith("/") and "//" not in path and "/." not in path and (path == "/" or path[-1] != "/"):
        return path
    return normpath("/" + path)


class Flags:
    """The options of one mount, taken apart.  A later option wins over an earlier one about the same thing.

    ``named`` is whether any of them is a flag of the mount itself.  A bind mount then has the flags that are named and
    no others; without any it keeps those of its source (mount(2) with MS_REMOUNT, which sets all or is not called).
    """

    __slots__ = (
        "asked",
        "bind",
        "clr",
        "copy_up",
        "data",
        "idmap",
        "implied",
        "named",
        "propagation",
        "rec_clr",
        "rec_set",
        "recursive",
        "remount",
        "set",
        "supers",
        "taken_back",
    )

    def __init__(self, options: list[str]) -> None:
        self.set = self.clr = self.implied = self.rec_set = self.rec_clr = 0
        self.asked = self.taken_back = 0  # modes of the access time
        self.bind = self.recursive = self.remount = self.copy_up = self.idmap = self.named = False
        self.propagation: list[int] = []
        self.supers: dict[str, bool] = {}
        self.data: list[str] = []  # not ours: the filesystem's
        for option in options:
            found = OPTIONS.get(option)
            if found is None:
                if option:
                    self.data.append(option)
                continue
            what, value = found
            if what <= UNATIME:
                self._plain(what, value)
            elif what <= REC_UNATIME:
                self._recursive(what, value)
            elif what == PROPAGATE:
                if not self.propagation or self.propagation[-1] != value:
                    self.propagation.append(value)
            elif what == SUPER:
                self.named = True
                self.supers[value[0]] = value[1]
            elif what == BIND:
                self.bind = True
                self.recursive = self.recursive or value
            elif what == REMOUNT:
                self.remount = True
            elif what == COPY_UP:
                self.copy_up = True
            elif what == IDMAP:
                self.idmap = True
            else:
                self.named = self.named or value

    def _plain(self, what: int, value: int) -> None:
        self.named = True
        if what == SET:
            self.set, self.clr = self.set | value, self.clr & ~value
        elif what == CLEAR:
            self.set, self.clr = self.set & ~value, self.clr | value
        elif what == ATIME:
            self.asked, self.taken_back = self.asked | value, self.taken_back & ~value
        else:
            self.asked, self.taken_back = self.asked & ~value, self.taken_back | value

    def _recursive(self, what: int, value: int) -> None:
        self.rec_set, self.rec_clr = _attribute(self.rec_set, self.rec_clr, what - _REC, value)
        # It speaks of this mount too, so what an earlier plain option said about it is over.
        if what >= REC_ATIME:
            self.asked = self.taken_back = 0
        else:
            self.set &= ~value
            self.clr &= ~value

    def fold(self) -> None:
        """A new mount has nothing below it: the recursive attributes are its own, and it starts with none set."""
        if self.asked:
            self.set |= self._mode()
        else:
            self.set |= self.rec_set & ATIME_FIELD
        self.set |= self.rec_set & ~(self.clr | ATIME_FIELD)
        self.clr = self.rec_set = self.rec_clr = 0

    def change(self, facts: HostFacts, *, replace: bool) -> None:
        """Finish the flags of a mount that already has some; ``replace``: unnamed ones go even if none is named."""
        if self.asked:
            self.set |= self._mode()
            self.clr |= ATIME_FIELD
        else:
            # Less than the whole field: init clears it if the mount is in one of these modes.
            self.clr |= self.taken_back & (NOATIME | STRICTATIME)
        if not (self.named or replace):
            return
        # Linux 5.12 and 5.13 have a nosymfollow that mount_setattr(2) does not know.
        self.implied = IMPLIED if facts.kernel >= (5, 14) else IMPLIED & ~NOSYMFOLLOW
        # The access time stays unless an option says anything about it (kernel: path_mount).
        if self.asked or self.set & NODIRATIME:
            self.implied |= NODIRATIME | ATIME_FIELD
        self.implied &= ~(self.set | self.clr)

    def _mode(self) -> int:
        """The field's value: strictatime wins over noatime, noatime over relatime (kernel: path_mount)."""
        return STRICTATIME if self.asked & STRICTATIME else NOATIME if self.asked & NOATIME else RELATIME

    def nibbles(self) -> int:
        """The propagation changes, first one lowest."""
        packed = 0
        for index, value in enumerate(self.propagation):
            packed |= value << 4 * index
        return packed

    def super_flags(self) -> list[str]:
        """Superblock flags as fsconfig(2) takes them: a new filesystem starts without, a remount may take them away."""
        names = [name for name, on in self.supers.items() if on]
        if self.remount:
            names += [_SUPER_OFF[name] for name, on in self.supers.items() if not on]
        return names


def _attribute(on: int, off: int, what: int, value: int) -> tuple[int, int]:
    """Attributes of a whole tree, where there is no single current value: the last option wins."""
    if what == SET:
        return on | value, off & ~value
    if what == CLEAR:
        return on & ~value, off | value
    # The access time is one field: mount_setattr(2) wants all of it cleared wherever a part of it is set.
    if what == ATIME:
        return on & ~ATIME_FIELD | value, off | ATIME_FIELD
    if value == RELATIME:
        # rnorelatime: what the kernel does by default is relatime, so there is nothing to turn off but our own request.
        return (on, off) if on & ATIME_FIELD else (on, off & ~ATIME_FIELD)
    if off & ATIME_FIELD and on & ATIME_FIELD != value:
        return on, off  # takes back something else than what was asked for
    return on & ~ATIME_FIELD, off | ATIME_FIELD


class Mounted:
    """What the later topics must know about the mounts."""

    __slots__ = ("read_only", "set_up_dev")

    def __init__(self) -> None:
        self.set_up_dev = True  # /dev is ours to fill: nothing of the host is bound there
        self.read_only: list[tuple[str, str]] = []  # (origin, destination) of mounts to make read-only at the end


def compile_mounts(
    plan: Plan, config: dict[str, Any], linux: dict[str, Any], facts: HostFacts, options: Options, spaces: Namespaces
) -> Mounted:
    """PROPAGATION, ROOT and all MOUNT steps."""
    plan.callers_mounts = not spaces.has("mount")
    if not plan.callers_mounts:
        _propagation(plan, linux, options)
    path = config["root"]["path"]
    rootfs = _absolute(options.bundle, path)
    plan.root("/root", policy=_root_policy(linux, spaces), path=rootfs)
    if options.overlay:
        if plan.callers_mounts:
            plan.refuse("/linux/namespaces", "a mount namespace for a container of an image")
        # A container of an image.  The overlay covers the directory; the second ROOT takes what is on top by then.
        plan.mount(
            "(--image)", policy=P_MOUNT_NEW_ROOT, fstype="overlay", source="overlay", dest="/", data=options.overlay
        )
        plan.root("/root", policy=_root_policy(linux, spaces) & ~P_ROOT_CWD, path=rootfs)
    mounted = Mounted()
    for index, mount in enumerate(config.get("mounts") or ()):
        pointer = f"/mounts/{index}"
        flags = Flags(mount.get("options") or [])
        if mount.get("type") == "bind":
            flags.bind = True
        at = clean(mount["destination"])
        if flags.bind and not flags.remount and at == "/dev":
            mounted.set_up_dev = False
        if plan.callers_mounts and not flags.remount:
            # What a new mount namespace would have made of it.  As a peer of the host's mount, what is mounted in it
            # later would appear on the host, and what is unmounted with the container would be gone there.
            flags.propagation.insert(0, RECURSIVE | SLAVE)
        elif linux.get("rootfsPropagation") and _is_peer(mount, flags):
            flags.propagation = [RECURSIVE | SLAVE]
        if flags.bind or flags.remount:
            flags.change(facts, replace=flags.remount)
        else:
            flags.fold()
        if flags.set & RDONLY and is_filled_first(mount, flags, at):
            flags.set &= ~RDONLY
            mounted.read_only.append((pointer, mount["destination"]))
        if flags.remount:
            _remount(plan, pointer, mount, flags)
        elif flags.bind:
            _bind(plan, pointer, mount, flags, at, options.bundle, spaces)
        else:
            _filesystem(plan, pointer, mount, flags, linux, facts, spaces)
    if options.notify:
        # sd_notify: the directory of the socket, as systemd's own bind would be; process.environment has the variable.
        plan.mount(
            "(NOTIFY_SOCKET)",
            policy=P_MOUNT_BIND,
            attr_set=RDONLY | NOSUID | NODEV | NOEXEC,
            propagation=RECURSIVE | SLAVE if plan.callers_mounts else 0,
            tree=spaces.trees.get("(NOTIFY_SOCKET)", 0),
            source=options.notify,
            dest="/run/notify",
        )
    return mounted


def _is_peer(mount: dict[str, Any], flags: Flags) -> bool:
    """Whether rootfsPropagation, which is about the root, would make a bind a peer of the host's mount.

    It leaves the copied mounts of the host shared with it, for binds that ask for "shared".  In one that does not, a
    mask would appear on the host, and stay there.
    """
    idmapped = flags.idmap or mount.get("uidMappings")  # private
    return flags.bind and not (flags.remount or flags.propagation or idmapped)


def _absolute(bundle: str, path: str) -> str:
    return path if path.startswith("/") else f"{bundle}/{path}"


def _emit(
    plan: Plan,
    pointer: str,
    flags: Flags,
    policy: int,
    fstype: str,
    source: str,
    dest: str,
    data: list[str],
    tree: int = 0,
) -> None:
    if len(flags.propagation) > MAX_PROPAGATIONS:
        plan.refuse(
            f"{pointer}/options", f"at most {MAX_PROPAGATIONS} propagation options", str(len(flags.propagation))
        )
        return
    plan.mount(
        pointer,
        policy=policy,
        attr_set=flags.set,
        attr_clr=flags.clr,
        implied=flags.implied,
        rec_set=flags.rec_set,
        rec_clr=flags.rec_clr,
        propagation=flags.nibbles(),
        tree=tree,
        fstype=fstype,
        source=source,
        dest=dest,
        data=data,
    )


def _remount(plan: Plan, pointer: str, mount: dict[str, Any], flags: Flags) -> None:
    """Change a mount that is there already; with ``bind`` only its attributes, else its filesystem's options too."""
    policy = P_MOUNT_REMOUNT | (P_MOUNT_BIND if flags.bind else 0)
    if flags.copy_up:
        plan.refuse(f"{pointer}/options", '"tmpcopyup" on a new tmpfs only')
    data: list[str] = []
    if flags.bind:
        _warn_of_data(plan, pointer, flags)
    else:
        data = flags.super_flags() + flags.data
    _emit(plan, pointer, flags, policy, mount.get("type") or "", mount.get("source") or "", mount["destination"], data)


def _bind(
    plan: Plan, pointer: str, mount: dict[str, Any], flags: Flags, at: str, bundle: str, spaces: Namespaces
) -> None:
    """A bind mount; the file system type is without meaning, except that "proc" tells init to demand a procfs."""
    source = _absolute(bundle, mount["source"])
    if flags.copy_up:
        plan.refuse(f"{pointer}/options", '"tmpcopyup" on a tmpfs only')
    policy, fstype = P_MOUNT_BIND | (P_MOUNT_RECURSIVE if flags.recursive else 0), ""
    if at == "/proc":
        policy, fstype = policy | P_MOUNT_PLAIN_DIR, "proc"
    elif at in PROC_FILES:
        policy |= P_MOUNT_IN_PROC
    _warn_of_data(plan, pointer, flags)
    tree = spaces.trees.get(pointer, 0)
    if flags.idmap or mount.get("uidMappings"):
        # mount_setattr(2) wants it from somebody with CAP_SYS_ADMIN over the filesystem: the host side makes the mount.
        policy, tree = policy | P_MOUNT_SOURCE_FD, plan.fd("idmap", source, pointer)
        flags.propagation = flags.propagation or [RECURSIVE | PRIVATE]  # what the host mounts below has other owners
    _emit(plan, pointer, flags, policy, fstype, source, mount["destination"], [], tree)


def _warn_of_data(plan: Plan, pointer: str, flags: Flags) -> None:
    """Options that only a filesystem could understand: engines and the conformance suite send them with binds."""
    if flags.data:
        words = ", ".join(flags.data) + meant(flags.data)
        plan.warn(f"{pointer}/options", f"no effect on a bind mount: {words}")


def meant(options: list[str]) -> str:
    """``; did you mean nosuid?`` for the first options, of which one may be misspelled; "" when none seems to be."""
    from pyrunc import hints

    for option in options[:8]:  # each is compared with every option that there is
        found = hints.did_you_mean(option.partition("=")[0], (*OPTIONS, *_OF_FILESYSTEMS))
        if found:
            return found
    return ""


def _filesystem(
    plan: Plan,
    pointer: str,
    mount: dict[str, Any],
    flags: Flags,
    linux: dict[str, Any],
    facts: HostFacts,
    spaces: Namespaces,
) -> None:
    """A new filesystem."""
    fstype, source = mount["type"], mount.get("source") or ""
    policy = 0
    data = flags.super_flags() + flags.data
    if fstype in ("proc", "sysfs"):
        policy = P_MOUNT_PLAIN_DIR
    elif fstype in _CGROUP_TYPES:
        policy, fstype = P_MOUNT_CGROUP, "cgroup2"
        source = cgroup_source(plan.cgroup_path, facts, spaces)
        if spaces.has("user") and not spaces.has("cgroup"):
            # It shows more than the container's own cgroup, and a user to whom part of that is delegated is the
            # container's root (CVE-2023-25809).
            flags.set |= RDONLY
        if spaces.is_new("cgroup") and not flags.set & RDONLY and clean(mount["destination"]) == "/sys/fs/cgroup":
            spaces.cgroup_writable = True
        if source and not spaces.has("cgroup") and not data:
            # A new mount from the initial cgroup namespace sets the options of the whole hierarchy to its own: it takes
            # nsdelegate and favordynmods from the host, and switching the latter waits for an RCU grace period of 10 ms
            # (kernel: apply_cgroup_root_flags).  The bind shows the same tree and changes nothing.
            flags.change(facts, replace=True)
            flags.propagation = flags.propagation or [PRIVATE]  # as a new mount
            _emit(plan, pointer, flags, P_MOUNT_BIND, "", source, mount["destination"], [])
            return
    elif fstype == "tmpfs":
        policy = P_MOUNT_COPY_UP if flags.copy_up else 0
        if not any(item.startswith("mode=") for item in data):
            policy |= P_MOUNT_INHERIT_MODE
    if flags.copy_up and fstype != "tmpfs":
        plan.refuse(f"{pointer}/options", '"tmpcopyup" on a tmpfs only', f'type "{fstype}"')
    host = host_source(fstype, facts, spaces)
    if host:
        policy, source = policy | P_MOUNT_HOST_BIND, host
    if flags.set & RDONLY and policy != P_MOUNT_CGROUP:
        # As mount(2) does it: a read-only device cannot be opened by a superblock that is not read-only itself.  Not
        # for cgroup2, whose superblock the whole host shares.
        data.insert(0, "ro")
    _label(linux, facts, fstype, data)
    _emit(plan, pointer, flags, policy, fstype, source, mount["destination"], data)
    if fstype == "mqueue" and not host and facts.selinux and linux.get("mountLabel"):
        plan.mount_label("/linux/mountLabel", dest=mount["destination"], label=linux["mountLabel"])


def host_source(fstype: str, facts: HostFacts, spaces: Namespaces) -> str:
    """What to bind where a new proc, sysfs or mqueue is refused (EPERM) for being of the caller's namespaces; or "".

    Not for a pid or ipc namespace that is joined, where the host's shows other processes.  In a sysfs only the network
    devices differ.
    """
    kind = {"proc": "pid", "mqueue": "ipc", "sysfs": "network"}.get(fstype)
    if kind is None or spaces.is_new(kind) or (fstype != "sysfs" and spaces.has(kind)):
        return ""
    if not spaces.has("user") and not facts.rootless:
        return ""
    return {"proc": "/proc", "mqueue": "/dev/mqueue", "sysfs": "/sys"}[fstype]


def is_filled_first(mount: dict[str, Any], flags: Flags, at: str) -> bool:
    """Whether a read-only mount has to start writable: a new tmpfs is a place to mount into, /dev gets its nodes."""
    return at == "/dev" or (mount.get("type") == "tmpfs" and not flags.bind and not flags.remount)


def cgroup_source(cgroup_path: str, facts: HostFacts, spaces: Namespaces) -> str:
    """What to bind on the host where a cgroup2 mount is refused (EPERM, EBUSY): "" when there is nothing.

    A container with a cgroup namespace sees its own cgroup, one without sees the hierarchy, as a mount would show it.
    """
    mount: str = facts.cgroup2_mount
    if not mount or not spaces.has("cgroup"):
        return mount
    path, root = cgroup_path or facts.own_cgroup, facts.cgroup2_root
    if root not in ("", "/"):  # the host's mount shows only a part of the hierarchy
        if path != root and not path.startswith(root + "/"):
            return ""
        path = path[len(root) :]
    return mount + path.rstrip("/")


def _label(linux: dict[str, Any], facts: HostFacts, fstype: str, data: list[str]) -> None:
    """linux.mountLabel.  No quotes around it: fsconfig(2) takes one value, there is no comma to protect it from."""
    label = linux.get("mountLabel")
    if label and facts.selinux and fstype not in _UNLABELLED:
        data.append(f"context={label}")


def _propagation(plan: Plan, linux: dict[str, Any], options: Options) -> None:
    """What the copied mounts of the host pass on, before anything is mounted (a leak otherwise, runc 1.2)."""
    name = linux.get("rootfsPropagation")
    if not name:
        plan.propagation("(default)", propagation=RECURSIVE | SLAVE)
        return
    pointer = "/linux/rootfsPropagation"
    value = PROPAGATIONS[name]
    if value & ~RECURSIVE == PRIVATE and options.no_pivot:
        # Without pivot_root the old root stays mounted below; private would keep the host's unmounts from reaching it.
        plan.refuse(pointer, "another value together with --no-pivot", f'"{name}"')
    if value & ~RECURSIVE == UNBINDABLE:
        # Only for the container's own root (root_propagation): an unbindable host root could not be bound from.
        value = RECURSIVE | SLAVE
    plan.propagation(pointer, propagation=value)


def _root_policy(linux: dict[str, Any], spaces: Namespaces) -> int:
    """Policy of ROOT: the container's root receives the host's mounts only if rootfsPropagation is (r)slave.

    Without the field it is private, although the rest of the copied mounts is a slave: otherwise a mount that the host
    makes in the root filesystem would appear in a running container.  Without a mount namespace everything is mounted
    in the caller's, below this one bind; see pyrunc/rootmount.py for its end.
    """
    if not spaces.has("mount"):
        return P_ROOT_CALLERS
    slave = linux.get("rootfsPropagation") in ("slave", "rslave")
    return (P_ROOT_CWD if spaces.root_in_cwd else 0) | (P_ROOT_SLAVE if slave else 0)


def root_propagation(plan: Plan, linux: dict[str, Any]) -> None:
    """linux.rootfsPropagation for the container's own root, which is already private.

    Slave goes no deeper than the root: what is mounted below has the propagation that its own options asked for.
    """
    name = linux.get("rootfsPropagation")
    if name and name not in ("private", "rprivate"):
        value = SLAVE if name in ("slave", "rslave") else PROPAGATIONS[name]
        plan.root_propagation("/linux/rootfsPropagation", propagation=value)


def pivot(plan: Plan, options: Options, spaces: Namespaces) -> None:
    """Leave the old root."""
    if not spaces.has("mount"):
        plan.pivot("/root/path", policy=P_PIVOT_CHROOT)
    else:
        plan.pivot("/root/path", policy=P_PIVOT_MOVE if options.no_pivot else 0)


def remount_read_only(plan: Plan, mounted: Mounted) -> None:
    """Read-only at last: what had to be filled first."""
    for origin, dest in mounted.read_only:
        plan.remount_ro(origin, attr_set=RDONLY, dest=dest)
