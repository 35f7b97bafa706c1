"""The options of a mount: the table of config.md, and one entry of `mounts` taken apart.

All options become arguments of mount_setattr(2) and fsconfig(2): init knows no option names.
"""

from __future__ import annotations

from pyrunc.fs import normpath
from pyrunc.spec.mappings import is_idmapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.host import HostFacts
    from pyrunc.spec import types

# MOUNT_ATTR_* of mount_setattr(2)
RDONLY, NOSUID, NODEV, NOEXEC = 0x1, 0x2, 0x4, 0x8
ATIME_FIELD, RELATIME, NOATIME, STRICTATIME = 0x70, 0x00, 0x10, 0x20
NODIRATIME, NOSYMFOLLOW = 0x80, 0x200000
# A bind mount with any plain flag option loses these unless an option names them.
IMPLIED = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW
# The option relatime among those given. It is not a value of the access-time field, where relatime
# is 0.
ASKED_RELATIME = 0x40

# Propagation as encoded in a step: four bits per change, the first change in the lowest bits.
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

# The effect of an option: (what, value). The value of SET and CLEAR is attribute bits; of ATIME
# and UNATIME, the mode that is requested or no longer requested; of REC_ATIME and REC_UNATIME, the
# value of the field; of PROPAGATE, the nibble of the MOUNT step; of SUPER, the state of the
# superblock flag; of BIND, whether it is recursive; of NOTHING, whether it counts as a flag.
SET, CLEAR, ATIME, UNATIME, REC_SET, REC_CLEAR, REC_ATIME, REC_UNATIME = range(8)
PROPAGATE, SUPER, BIND, REMOUNT, COPY_UP, NOTHING = range(8, 14)
_REC = REC_SET - SET  # the distance from a plain option to its recursive counterpart
OPTIONS: dict[str, tuple[int, int]] = {
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
    "sync": (SUPER, True),
    "async": (SUPER, False),
    "dirsync": (SUPER, True),
    "lazytime": (SUPER, True),
    "nolazytime": (SUPER, False),
    "mand": (SUPER, True),
    "nomand": (SUPER, False),
    "bind": (BIND, False),
    "rbind": (BIND, True),
    "idmap": (NOTHING, False),  # see mappings.is_idmapped
    "ridmap": (NOTHING, False),
    "remount": (REMOUNT, True),
    "tmpcopyup": (COPY_UP, True),
    # MS_SILENT and MS_I_VERSION have no counterpart in fsconfig(2); "defaults" is mount(8)'s word
    # for no option.
    "defaults": (NOTHING, False),
    "silent": (NOTHING, True),
    "loud": (NOTHING, True),
    "iversion": (NOTHING, True),
    "noiversion": (NOTHING, True),
}
# Options that clear a superblock flag, and the flag.
_CLEARS = {"async": "sync", "nolazytime": "lazytime", "nomand": "mand"}
_CLEARED_BY = {flag: option for option, flag in _CLEARS.items()}

# Common options of the filesystems that containers mount; only for the suggestions of `meant`.
_OF_FILESYSTEMS = (
    "size", "nr_inodes", "nr_blocks", "mode", "uid", "gid", "huge", "mpol", "noswap", "hidepid", "subset",
    "newinstance", "ptmxmode", "lowerdir", "upperdir", "workdir", "userxattr", "volatile", "index", "metacopy",
)  # fmt: skip


def clean(path: str) -> str:
    """The path, absolute and normalized; relative ones start at ``/`` (config.md: old configs)."""
    if path.startswith("/") and "//" not in path and "/." not in path and (path == "/" or path[-1] != "/"):
        return path
    return normpath("/" + path)


def absolute(bundle: str, path: str) -> str:
    """A path of config.json; a relative one starts at the bundle."""
    return path if path.startswith("/") else f"{bundle}/{path}"


class Flags:
    """The options of one mount, taken apart.

    Of two options about the same property the later one wins.

    ``named``: an option is a flag of the mount itself. A bind mount then has exactly the flags
    that are named; without any it keeps those of its source (mount(2) with MS_REMOUNT sets all
    flags or is not called).
    """

    __slots__ = (
        "asked",
        "bind",
        "clr",
        "copy_up",
        "data",
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
        self.asked = self.taken_back = 0  # access-time modes
        self.bind = self.recursive = self.remount = self.copy_up = self.named = False
        self.propagation: list[int] = []
        self.supers: dict[str, bool] = {}
        self.data: list[str] = []  # options of the filesystem
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
                self.supers[_CLEARS.get(option, option)] = bool(value)
            elif what == BIND:
                self.bind = True
                self.recursive = self.recursive or bool(value)
            elif what == REMOUNT:
                self.remount = True
            elif what == COPY_UP:
                self.copy_up = True
            else:
                self.named = self.named or bool(value)

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
        # A recursive option includes this mount and overrides an earlier plain option.
        if what >= REC_ATIME:
            self.asked = self.taken_back = 0
        else:
            self.set &= ~value
            self.clr &= ~value

    def fold(self) -> None:
        """Finish the flags of a new mount.

        Nothing is below it, so the recursive attributes are its own.
        """
        if self.asked:
            self.set |= self._mode()
        else:
            self.set |= self.rec_set & ATIME_FIELD
        self.set |= self.rec_set & ~(self.clr | ATIME_FIELD)
        self.clr = self.rec_set = self.rec_clr = 0

    def change(self, facts: HostFacts, *, replace: bool) -> None:
        """Finish the flags of a mount that already has some.

        ``replace``: clear the others even if none is named.
        """
        if self.asked:
            self.set |= self._mode()
            self.clr |= ATIME_FIELD
        else:
            # Only these modes, not the whole field: init clears it if the mount is in one of them.
            self.clr |= self.taken_back & (NOATIME | STRICTATIME)
        if not (self.named or replace):
            return
        # In Linux 5.12 and 5.13 mount_setattr(2) does not know nosymfollow.
        self.implied = IMPLIED if facts.kernel >= (5, 14) else IMPLIED & ~NOSYMFOLLOW
        # The access-time mode stays unless an option names it (kernel: path_mount).
        if self.asked or self.set & NODIRATIME:
            self.implied |= NODIRATIME | ATIME_FIELD
        self.implied &= ~(self.set | self.clr)

    def _mode(self) -> int:
        """The access-time field: strictatime, then noatime, then relatime (kernel: path_mount)."""
        return STRICTATIME if self.asked & STRICTATIME else NOATIME if self.asked & NOATIME else RELATIME

    def nibbles(self) -> int:
        """The propagation changes as one number, the first change in the lowest bits."""
        packed = 0
        for index, value in enumerate(self.propagation):
            packed |= value << 4 * index
        return packed

    def super_flags(self) -> list[str]:
        """Superblock flags for fsconfig(2).

        A new filesystem starts with none; a remount can also clear them.
        """
        if not self.supers:
            return []
        names = [name for name, on in self.supers.items() if on]
        if self.remount:
            names += [_CLEARED_BY[name] for name, on in self.supers.items() if not on]
        return names


def _attribute(on: int, off: int, what: int, value: int) -> tuple[int, int]:
    """Attributes to set and to clear in a whole tree: the last option wins.

    A tree has no single current value.
    """
    if what == SET:
        return on | value, off & ~value
    if what == CLEAR:
        return on & ~value, off | value
    # The access time is one field: mount_setattr(2) requires that all of it is cleared to set any
    # part.
    if what == ATIME:
        return on & ~ATIME_FIELD | value, off | ATIME_FIELD
    if value == RELATIME:
        # rnorelatime: relatime is the kernel's default, so only an earlier request for it can be
        # withdrawn.
        return (on, off) if on & ATIME_FIELD else (on, off & ~ATIME_FIELD)
    if off & ATIME_FIELD and on & ATIME_FIELD != value:
        return on, off  # withdraws a mode that was not requested
    return on & ~ATIME_FIELD, off | ATIME_FIELD


class Mount:
    """One entry of `mounts`, its options taken apart.

    ``fstype`` and ``source`` start as in the entry; the step gets what is left there by
    plan.mounts.
    """

    __slots__ = ("at", "destination", "entry", "flags", "fstype", "pointer", "source")

    def __init__(self, pointer: str, entry: types.Mount) -> None:
        self.pointer, self.entry = pointer, entry
        self.flags = flags = Flags(entry.get("options", []))
        self.fstype = entry.get("type", "")
        self.source = entry.get("source", "")
        self.destination = entry["destination"]
        self.at = clean(self.destination)
        if self.fstype == "bind":
            flags.bind = True

    def is_idmapped(self) -> bool:
        """Whether it has an id mapping: the host side makes such a mount."""
        return is_idmapped(self.entry)

    def is_new_bind(self) -> bool:
        """Whether it adds a bind mount, as opposed to changing one."""
        return self.flags.bind and not self.flags.remount


def meant(options: list[str]) -> str:
    """``; did you mean nosuid?`` for the first option that seems to be misspelled, "" for none."""
    from pyrunc import hints

    for option in options[:8]:  # each is compared with every known option
        found = hints.did_you_mean(option.partition("=")[0], (*OPTIONS, *_OF_FILESYSTEMS))
        if found:
            return found
    return ""
