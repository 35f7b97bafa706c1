"""Deviations of pyrunc alone, with reasons: each entry is as narrow as possible and cites the
section that decides.

`runc.py` and `crun.py` list the deviations of a single peer.
"""

from __future__ import annotations

import re
from typing import Any

from integration.differential.compare import ABSENT
from integration.differential.conditions import to_place
from integration.differential.entries import MOUNT, PROGRAM, Deviation, Pair
from integration.differential.model import HOOKS
from integration.differential.refusals import is_not_executed

MASKED_DIRECTORY = re.compile(r"(gid=\d+,)?mode=555,nr_inodes=1,ro,size=4k(,uid=\d+)?")


def _words(text: Any) -> set[str]:
    return set(str(text).split(","))


def _masked_directory(pair: Pair) -> bool:
    hidden = {"nosuid", "nodev", "noexec"}
    return bool(pair.config["linux"].get("maskedPaths")) and _words(pair.ours) == _words(pair.theirs) | hidden


def _masked_file(pair: Pair) -> bool:
    """A node of /dev: ours is read-only and noexec, theirs has the options of its mount."""
    masked = bool(pair.config["linux"].get("maskedPaths"))
    theirs = {"nosuid", "relatime", "noexec", "ro", "rw", "noatime"}
    return masked and pair.ours == "noexec,nosuid,relatime,ro" and _words(pair.theirs) <= theirs


def _parents(pair: Pair) -> bool:
    """Whether the peer leaves only parents of the container's cgroup."""
    path = (pair.config["linux"].get("cgroupsPath") or "").strip("/")
    return pair.ours == [] and all(path.startswith(f"{entry}/") for entry in pair.theirs)


def _cgroup_left(pair: Pair) -> bool:
    return any(command[0] == "cgroup-gone" for command in pair.case.commands)


def _empty_home(pair: Pair) -> bool:
    """Whether the user's entry in passwd lacks a home directory."""
    return "HOME=" in pair.theirs and [
        entry.replace("HOME=/", "HOME=") if entry == "HOME=/" else entry for entry in pair.ours
    ] == list(pair.theirs)


def _same_hooks(pair: Pair) -> bool:
    """Whether the same hooks have run, ours in the order of the specification for each
    container."""
    parts: list[list[str]] = [[]]
    for name in pair.ours:
        if name in parts[-1]:
            parts.append([])
        parts[-1].append(name)
    orders = [[HOOKS.index(name.split("-")[1]) for name in part] for part in parts]
    return sorted(pair.ours) == sorted(pair.theirs) and all(order == sorted(order) for order in orders)


def _refused_first(pair: Pair) -> bool:
    """Whether pyrunc refuses before the others run hooks and create nodes."""
    if isinstance(pair.ours, list) and isinstance(pair.theirs, list):
        return set(pair.ours) < set(pair.theirs)
    return pair.ours in ({}, ABSENT)


def _owned(pair: Pair) -> bool:
    """A writable cgroup mount in a private cgroup namespace of a user other than root."""
    config = pair.config
    writable = any(
        entry.get("type") in ("cgroup", "cgroup2") and "ro" not in (entry.get("options") or [])
        for entry in config["mounts"]
        if entry["destination"] == "/sys/fs/cgroup"
    )
    private = any(entry["type"] == "cgroup" for entry in config["linux"]["namespaces"])
    return writable and private and config["process"]["user"]["uid"] != 0


def _twice(pair: Pair) -> bool:
    """Whether a path is listed twice in readonlyPaths or maskedPaths, possibly under another
    name."""
    linux = pair.config["linux"]
    paths = [*(linux.get("readonlyPaths") or ()), *(linux.get("maskedPaths") or ())]
    return pair.ours == ABSENT and len(paths) > len(set(paths))


def _exec_process(name: str) -> Any:
    def given(pair: Pair) -> bool:
        processes = [command[3] for command in pair.case.commands if command[0] == "exec" and len(command) > 3]
        return any(process and name in process for process in processes)

    return given


ALL: tuple[Deviation, ...] = (
    Deviation(
        "masked directories are nosuid, nodev and noexec",
        "runc crun",
        MOUNT + "options",
        "config-linux.md#masked-paths",
        "an empty read-only directory; the flags are free and remove attack surface",
        _masked_directory,
    ),
    Deviation(
        "masked files are read-only and noexec",
        "runc crun",
        MOUNT + "options",
        "config-linux.md#masked-paths",
        "the mask is the host's /dev/null, whose owner and mode must not change through it",
        _masked_file,
    ),
    Deviation(
        "masks are other file systems",
        "runc crun",
        MOUNT + "super",
        "config-linux.md#masked-paths",
        "a tmpfs of one inode for directories, the host's /dev/null for files; the file system is not specified",
        lambda pair: (
            bool(MASKED_DIRECTORY.fullmatch(str(pair.ours)))
            or (pair.ours, pair.theirs) == ("mode=755,rw", "mode=755,rw,size=65536k")
        ),
    ),
    Deviation(
        "masked directories have mode 0555",
        "runc crun",
        PROGRAM + r"(?:path \S+ mode|dev \S+|cwd_stat)",
        "config-linux.md#masked-paths",
        "no process can write there, and the mode reflects that",
        lambda pair: pair.ours in (0o555, "d 0555 0:0") and pair.theirs in (0o1777, 0o755, "d 1777 0:0", "d 0755 0:0"),
    ),
    Deviation(
        "compiled seccomp profiles are cached",
        "runc crun",
        "left files",
        "runtime.md#delete",
        "a cache in a directory of root, not a resource of the container",
        lambda pair: (
            pair.theirs.items() <= pair.ours.items()
            and all(
                path.startswith("/run/pyrunc.seccomp") and text.startswith(("-rw------- 0:0", "drwx------ 0:0"))
                for path, text in pair.ours.items() - pair.theirs.items()
            )
        ),
    ),
    Deviation(
        "parents of the cgroup are removed",
        "runc crun",
        "left cgroups",
        "runtime.md#delete",
        "delete MUST delete the resources that were created by create; the parents were as well",
        _parents,
    ),
    Deviation(
        "no poststart hook without a program",
        "runc crun",
        r"hooks order|hook poststart-\d is there|hook poststop-\d is there|hook startContainer-\d is there",
        "config.md#poststart",
        "poststart hooks are called after the program is executed, which did not happen",
        lambda pair: is_not_executed(pair) or pair.has("hooks.failing.startContainer"),
    ),
    Deviation(
        "poststop hooks go on after one that fails",
        "runc crun",
        r"hooks order|hook poststop-1(?:#\d)? .*|step \d+ delete rc|force|left state",
        "runtime.md#lifecycle",
        "step 13: a warning, and the remaining hooks and the lifecycle continue",
        lambda pair: pair.has("hooks.failing.poststop"),
    ),
    Deviation(
        "startContainer hooks run before poststart hooks",
        "runc crun",
        "hooks order",
        "runtime.md#lifecycle",
        "steps 7 and 9; the others start the poststart hooks while init runs the startContainer hooks",
        _same_hooks,
    ),
    Deviation(
        "a config is refused before anything runs",
        "runc crun",
        r"hooks order|hook \S+ is there|rootfs \S+|left (?:sources|files)|window .*",
        "runtime.md#create",
        "errors of the kernel or of the config's own /dev are detected before hooks run and nodes are created",
        _refused_first,
        "pyrunc: error: (?:config.json: )?/"
        "(?:linux/devices/|linux/sysctl/|process/capabilities|process/args/0 .*/proc/self/exe)",
    ),
    Deviation(
        "HOME is / for users without a home directory",
        "runc crun",
        PROGRAM + r"env|hook startContainer-\d env",
        "config.md#posix-process",
        "not specified; an empty HOME is useless to a shell, and login(1) also uses /",
        _empty_home,
    ),
    Deviation(
        "a writable cgroup belongs to the container's user",
        "runc crun",
        r"step \d+ \S+ owner|" + PROGRAM + r"path /sys/fs/cgroup\S* (?:uid|write)",
        "config-linux.md#cgroup-ownership",
        "the owner SHOULD be the host's uid of the container's user; the others use nobody or root",
        _owned,
    ),
    Deviation(
        "paths that are listed twice are covered once",
        "runc crun",
        MOUNT + ".*",
        "config-linux.md#masked-paths",
        "a second mount on top of the first has no effect",
        _twice,
    ),
    Deviation(
        "oomScoreAdj of an exec",
        "runc crun",
        PROGRAM + "oom_score_adj",
        "config.md#linux-process",
        "if oomScoreAdj is set, the runtime MUST set it, also for a process of exec",
        _exec_process("oomScoreAdj"),
    ),
    Deviation(
        "binds are not peers of the host's mounts unless they request it",
        "runc crun",
        MOUNT + "propagation",
        "config-linux.md#rootfs-mount-propagation",
        "a shared root is not shared with the host, where mounts in the bind, including masks, would appear",
        lambda pair: (
            bool(pair.config["linux"].get("rootfsPropagation"))
            and "shared" in str(pair.theirs)
            and ("shared" not in str(pair.ours) or "master:host" in str(pair.ours) or "shared:host" in str(pair.theirs))
            and pair.theirs != pair.ours
        ),
    ),
    Deviation(
        "a mask below a read-only path is not propagated",
        "runc crun",
        MOUNT + "on",
        "config-linux.md#masked-paths",
        "the bind that makes the path read-only is not a peer of the shared root, so only the bind has the mask",
        lambda pair: (
            "shared" in str(pair.config["linux"].get("rootfsPropagation"))
            and pair.theirs == "/"
            and pair.ours in (pair.config["linux"].get("readonlyPaths") or ())
        ),
    ),
    Deviation(
        "mounts stay inside",
        "runc crun",
        "left (?:mounts|sources)",
        "runtime.md#delete",
        "delete MUST delete what create made; a mount in a peer of the host's mount appears on the host",
        lambda pair: bool(pair.config["linux"].get("rootfsPropagation")) and len(pair.ours) <= len(pair.theirs),
    ),
    Deviation(
        "ps and delete --force of a container that left its cgroup",
        "runc crun",
        r"step \d+ ps rc|left (?:processes|state)|force",
        "runtime.md#delete",
        "the first process is still known by its pid: ps lists it, and delete --force kills it",
        _cgroup_left,
    ),
    Deviation(
        "the name of cgroup mounts",
        "runc crun",
        MOUNT + "is",
        "config.md#mounts",
        "the kernel does not read the source of a cgroup mount, which only shows in the mount table",
        lambda pair: (pair.ours, pair.theirs) == ("cgroup2 / cgroup", "cgroup2 / cgroup2"),
    ),
    Deviation(
        "output of a container whose poststart hook fails",
        "runc crun",
        r"(?:out|terminal) .* is there|step \d+ wait rc",
        "runtime.md#lifecycle",
        "it is stopped, possibly before its program has written anything or ended",
        lambda pair: pair.has("hooks.failing.poststart"),
    ),
    Deviation(
        "hooks have the umask 022",
        "runc crun",
        r"hook (?:createContainer|startContainer)-\d(?:#\d)? umask",
        "config.md#posix-platform-hooks",
        "not specified; the same for all hooks, independent of the caller and the process",
        lambda pair: pair.ours == 0o022,
    ),
    Deviation(
        "tmpcopyup leaves out what is mounted below",
        "runc crun",
        PROGRAM + r"path \S+ \S+",
        "config.md#linux-mount-options",
        "a mount is not content of the directory, and can be a whole procfs",
        lambda pair: any("tmpcopyup" in options for options in pair.options) and to_place(pair),
    ),
    Deviation(
        "cgroup2 in a joined cgroup namespace",
        "runc crun",
        PROGRAM + r"path /\S*cgroup\S* \S+",
        "config-linux.md#namespaces",
        "the processes of that namespace's root, which are the harness's",
        lambda pair: "cgroup" in pair.case.caller.get("namespaces", ()),
    ),
    Deviation(
        "atime clears noatime of a bind's source",
        "runc crun",
        MOUNT + "options",
        "config.md#linux-mount-options",
        "atime clears noatime; the others keep the flag unless the option sets another one",
        lambda pair: (
            any("atime" in options for options in pair.options)
            and _words(pair.ours) == _words(pair.theirs) - {"noatime"} | {"relatime"}
        ),
    ),
    Deviation(
        "nodes outside of a bound /dev",
        "runc crun",
        PROGRAM + r"path \S+ \S+|rootfs \S+",
        "config-linux.md#devices",
        "they MUST be available; the others ignore all entries when /dev is bound",
        lambda pair: (
            pair.has("mount.default.dev-bound")
            and any(
                re.search(rf" /?{entry['path'].strip('/')}( |$)", pair.fact)
                or entry["path"].startswith(f"/{pair.fact.removeprefix('rootfs ')}/")
                for entry in pair.config["linux"].get("devices") or ()
                if not entry["path"].startswith("/dev/")
            )
        ),
    ),
    Deviation(
        "a filter about an argument that the call does not have",
        "runc crun",
        PROGRAM + r"(?:personality|calls \S+)",
        "config-linux.md#seccomp",
        "the content of the register is not specified",
        lambda pair: any(
            argument["index"] >= (3 if rule["names"] == ["socket"] else 1)
            for rule in (pair.config["linux"].get("seccomp") or {}).get("syscalls") or ()
            for argument in rule.get("args") or ()
        ),
    ),
    Deviation(
        "delete does not wait for zombies of others",
        "runc crun",
        r"step \d+ delete (?:init|cgroup)",
        "runtime.md#delete",
        "the first process has released everything, and waits for others in its pid namespace to be reaped",
        lambda pair: pair.ours in ("alive", "/box/c (deleted)") and pair.theirs in ("gone", ""),
    ),
    Deviation(
        "idmapped mounts are private",
        "runc crun",
        MOUNT + "propagation",
        "config.md#mounts",
        "later mounts of the host below it would appear with other owners",
        lambda pair: pair.ours == "" and "master:host" in str(pair.theirs) and pair.has("mount.idmapped"),
    ),
    Deviation(
        "consoleSize when the caller's terminal has no size",
        "runc crun",
        r"terminal inside(?: \d+)? tty (?:rows|cols)",
        "config.md#process",
        "a terminal of 0 x 0 has no size, and consoleSize specifies one",
        lambda pair: "consoleSize" in pair.config["process"] and pair.theirs == 0,
    ),
)
