"""Strategies for mounts: every kind of source, destination and option."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from integration.differential.context import Context, Draw
from integration.differential.model import REMOVE, SOURCES, Feature, words

FLAGS = ("ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "sync", "async", "dirsync", "silent", "loud")
ATIME = (
    "noatime",
    "atime",
    "nodiratime",
    "diratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
)
FOLLOW = ("nosymfollow", "symfollow")
PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
RECURSIVE = words(
    """
        rro rrw rnosuid rsuid rnodev rdev rnoexec rexec rnodiratime rdiratime rrelatime rnorelatime rnoatime ratime
        rstrictatime rnostrictatime rnosymfollow rsymfollow
        """
)

DIRECTORIES = (
    "dir",
    "private/dir",
    "owned",
    "sticky",
    "flags",
    "ro",
    "noatime",
    "slave",
    "alone",
    "tree",
    "tree/one",
    "link",
)
FILES = ("file", "secret", "program", "link-file", "fifo", "null", "block")
# Destinations: present or missing, through links, below other mounts, of the wrong type, with
# unusual spelling.
ON_DIRECTORY = words(
    """
        /data /mnt /full /new /new/deep/one /link /link/below /absolute /absolute/new /escape /data/nested
        /dev/below /dev/shm/below /tmp /tmp/new /run/x /mnt/ //mnt /data/../mnt relative/one /var/run/x /etc /broken
        /home/user/x
        """
)
ON_FILE = words(
    """
        /existing /new-file /new/deep/file /link-file /link/file /dev/file /data/../file /etc/resolv.conf /broken
        """
)


def _options(draw: Draw, *, recursive: bool) -> list[str]:
    chosen = draw(st.lists(st.sampled_from(FLAGS), max_size=4, unique=True))
    if draw(st.integers(0, 3)) == 0:
        chosen += draw(st.lists(st.sampled_from((*ATIME, *FOLLOW)), min_size=1, max_size=2, unique=True))
    if draw(st.integers(0, 2)) == 0:
        chosen.append(draw(st.sampled_from(PROPAGATION)))
    if recursive and draw(st.integers(0, 3)) == 0:
        chosen += draw(st.lists(st.sampled_from(RECURSIVE), min_size=1, max_size=2, unique=True))
    found: list[str] = draw(st.permutations(chosen))
    return found


def _feature(kind: str, entry: dict[str, Any], *, rootfs: list[list[str]] | None = None) -> Feature:
    destination = "/" + entry["destination"].lstrip("/")
    ask = [f"path {destination.rstrip('/') or '/'}", f"path {destination.rstrip('/')}/text"]
    return Feature(kind, [["/mounts/-", entry]], rootfs or [], ask)


def bind(draw: Draw, context: Context) -> Feature:
    """A bind mount whose destination may have the wrong type."""
    is_file = draw(st.integers(0, 2)) == 0
    name = draw(st.sampled_from(FILES if is_file else DIRECTORIES))
    matches = draw(st.integers(0, 9)) > 0
    destination = draw(st.sampled_from(ON_FILE if is_file == matches else ON_DIRECTORY))
    options = [draw(st.sampled_from(("bind", "rbind", "rbind"))), *_options(draw, recursive=True)]
    entry: dict[str, Any] = {"destination": destination, "source": f"{SOURCES}/{name}", "options": options}
    kind = draw(st.sampled_from(("bind", "none", "", None)))
    if kind is not None:
        entry["type"] = kind
    if draw(st.integers(0, 3)) == 0:
        entry["options"] = draw(st.permutations(options))
    return _feature(f"mount.bind.{'file' if is_file else 'directory'}", entry)


def bind_host(draw: Draw, context: Context) -> Feature:
    """A bind mount of a host path that engines use."""
    source, destination = draw(
        st.sampled_from(
            (
                ("/etc/hostname", "/etc/hostname"),
                ("/dev/null", "/dev/other"),
                ("/sys/fs/cgroup", "/sys/fs/cgroup"),
                ("/proc/sys/kernel", "/mnt/kernel"),
                ("/dev", "/mnt/dev"),
                ("/dev/pts", "/mnt/pts"),
                ("/dev/mqueue", "/mnt/mqueue"),
                ("/sys", "/mnt/sys"),
                ("/proc", "/mnt/proc"),
                ("rootfs/data", "/mnt/relative"),
                (".", "/mnt/bundle"),
                ("/run", "/run"),
                ("/w/b/rootfs/data/nested", "/mnt/own"),
            )
        )
    )
    options = [draw(st.sampled_from(("bind", "rbind"))), *_options(draw, recursive=True)]
    return _feature(
        "mount.bind.host", {"destination": destination, "type": "bind", "source": source, "options": options}
    )


def tmpfs(draw: Draw, context: Context) -> Feature:
    """A tmpfs with its options, on a present or missing destination."""
    destination = draw(st.sampled_from(ON_DIRECTORY))
    data = draw(
        st.lists(
            st.sampled_from(
                (
                    "size=1m",
                    "size=65536k",
                    "mode=700",
                    "mode=1777",
                    "mode=0755",
                    "uid=1000",
                    "gid=1000",
                    "nr_inodes=100",
                    "nr_blocks=16",
                )
            ),
            max_size=3,
            unique_by=lambda text: text.partition("=")[0],
        )
    )
    options = [*_options(draw, recursive=False), *data]
    if draw(st.integers(0, 4)) == 0:
        options.append("tmpcopyup")
    source = draw(st.sampled_from(("tmpfs", "none", "some")))
    return _feature(
        "mount.tmpfs",
        {"destination": destination, "type": "tmpfs", "source": source, "options": draw(st.permutations(options))},
    )


def below(draw: Draw, context: Context) -> Feature:
    """A mount, and another one on a path inside it."""
    first = {
        "destination": "/mnt/outer",
        "type": "tmpfs",
        "source": "tmpfs",
        "options": draw(st.sampled_from(([], ["ro"], ["mode=700"], ["noexec"]))),
    }
    second = draw(
        st.sampled_from(
            (
                {"type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]},
                {"type": "bind", "source": f"{SOURCES}/dir", "options": ["rbind", "ro"]},
                {"type": "bind", "source": f"{SOURCES}/file", "options": ["bind"]},
                {"type": "proc", "source": "proc"},
            )
        )
    )
    destination = draw(st.sampled_from(("/mnt/outer/inner", "/mnt/outer/a/b/c", "/mnt/outer")))
    return Feature(
        "mount.below",
        [["/mounts/-", first], ["/mounts/-", second | {"destination": destination}]],
        ask=["path /mnt/outer", f"path {destination}"],
    )


def special(draw: Draw, context: Context) -> Feature:
    """proc, sysfs, mqueue, devpts at usual and unusual destinations."""
    kind = draw(st.sampled_from(("proc", "sysfs", "mqueue", "devpts")))
    options = _options(draw, recursive=False)
    if kind == "proc" and draw(st.booleans()):
        options.append(draw(st.sampled_from(("hidepid=2", "hidepid=0", "subset=pid", "hidepid=invisible"))))
    if kind == "devpts":
        options += draw(
            st.sampled_from(([], ["newinstance"], ["newinstance", "ptmxmode=0666", "mode=0620"], ["gid=5"]))
        )
    destination = draw(st.sampled_from((f"/mnt/{kind}", f"/new/{kind}")))
    if kind == "proc" and draw(st.booleans()):
        destination = "/proc"
    return _feature(f"mount.{kind}", {"destination": destination, "type": kind, "source": kind, "options": options})


def cgroup(draw: Draw, context: Context) -> Feature:
    """The cgroup filesystem as engines request it."""
    kind = draw(st.sampled_from(("cgroup", "cgroup", "cgroup2")))
    options = draw(
        st.sampled_from(
            (
                ["nosuid", "noexec", "nodev", "relatime", "ro"],
                ["nosuid", "noexec", "nodev", "rw"],
                ["ro"],
                [],
                ["rprivate", "nosuid", "noexec", "nodev", "relatime", "rw"],
            )
        )
    )
    destination = draw(st.sampled_from(("/sys/fs/cgroup", "/sys/fs/cgroup", "/mnt/cgroup")))
    feature = _feature("mount.cgroup", {"destination": destination, "type": kind, "source": kind, "options": options})
    return Feature(
        feature.kind,
        feature.edits,
        ask=[*feature.ask, f"path {destination}/cgroup.procs", f"path {destination}/cgroup.type"],
    )


def overlay(draw: Draw, context: Context) -> Feature:
    """An overlay, writable or read-only."""
    data = [f"lowerdir={SOURCES}/lower"]
    if draw(st.booleans()):
        data += [f"upperdir={SOURCES}/upper", f"workdir={SOURCES}/workdir"]
    elif draw(st.booleans()):
        data = [f"lowerdir={SOURCES}/lower:{SOURCES}/dir"]
    else:
        data = [f"lowerdir={SOURCES}/dir:{SOURCES}/lower"]
    options = draw(
        st.permutations(
            draw(st.lists(st.sampled_from(("ro", "nosuid", "noexec", "nodev", "rprivate")), max_size=2, unique=True))
            + data
        )
    )
    destination = draw(st.sampled_from(("/mnt/overlay", "/data", "/new/overlay", "/link")))
    return _feature(
        "mount.overlay", {"destination": destination, "type": "overlay", "source": "overlay", "options": options}
    )


def default_changed(draw: Draw, context: Context) -> Feature:
    """A default mount with other options, or none."""
    index, edits = draw(
        st.sampled_from(
            (
                ("shm left out", [["/mounts/3", REMOVE]]),
                ("mqueue left out", [["/mounts/4", REMOVE]]),
                ("sys writable", [["/mounts/5/options", ["nosuid", "noexec", "nodev", "rw"]]]),
                ("proc read-only", [["/mounts/0/options", ["ro"]]]),
                ("proc without options", [["/mounts/0/options", REMOVE]]),
                ("dev read-only", [["/mounts/1/options", ["nosuid", "strictatime", "mode=755", "size=65536k", "ro"]]]),
                ("dev noexec", [["/mounts/1/options", ["nosuid", "noexec", "strictatime", "mode=755", "size=65536k"]]]),
                (
                    "dev bound",
                    [
                        [
                            "/mounts/1",
                            {"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "rslave"]},
                        ],
                        ["/mounts/2", REMOVE],
                    ],
                ),
                (
                    "pts without gid",
                    [["/mounts/2/options", ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]]],
                ),
                (
                    "sys bound",
                    [
                        [
                            "/mounts/5",
                            {
                                "destination": "/sys",
                                "type": "bind",
                                "source": "/sys",
                                "options": ["rbind", "nosuid", "noexec", "nodev", "ro"],
                            },
                        ]
                    ],
                ),
                (
                    "no type",
                    [["/mounts/-", {"destination": "/mnt/none", "source": f"{SOURCES}/dir", "options": ["rbind"]}]],
                ),
                ("no options", [["/mounts/-", {"destination": "/mnt/plain", "type": "tmpfs", "source": "tmpfs"}]]),
                ("no source", [["/mounts/-", {"destination": "/mnt/plain", "type": "tmpfs"}]]),
            )
        )
    )
    return Feature(
        f"mount.default.{index.replace(' ', '-')}",
        edits,
        ask=["path /dev/shm", "path /dev", "path /sys", "path /proc/sys/kernel/hostname", "path /mnt/plain"],
    )


def idmapped(draw: Draw, context: Context) -> Feature:
    """A bind mount with mapped owners."""
    maps = [{"containerID": 0, "hostID": draw(st.sampled_from((0, 1000, 200000))), "size": 65536}]
    entry = {
        "destination": "/mnt/idmapped",
        "type": "bind",
        "source": f"{SOURCES}/{draw(st.sampled_from(('dir', 'owned', 'tree')))}",
        "options": ["rbind", draw(st.sampled_from(("idmap", "ridmap")))],
        "uidMappings": maps,
        "gidMappings": maps,
    }
    return _feature("mount.idmapped", entry)
