"""Deviations of runc alone: crun and pyrunc agree, or crun differs for another reason."""

from __future__ import annotations

import re

from integration.differential.compare import ABSENT
from integration.differential.conditions import (
    LESS,
    before,
    caller_umask,
    less,
    of_userns,
    unopened_terminal,
    without_duplicates,
)
from integration.differential.entries import MOUNT, PROGRAM, Deviation, Pair


def _masked_and_readonly(pair: Pair) -> bool:
    """Whether the path of the fact is in both lists."""
    linux = pair.config["linux"]
    both = {*(linux.get("maskedPaths") or ())} & {*(linux.get("readonlyPaths") or ())}
    return any(f" {path} " in pair.fact for path in both)


ALL: tuple[Deviation, ...] = (
    Deviation(
        "runc: stdin of a foreground program is a pipe",
        "runc",
        PROGRAM + r"(?:fds|fd_flags|stdio) 0.*",
        "config.md#posix-process",
        "/dev/null is passed as it is by pyrunc and crun",
        lambda pair: pair.theirs in ("pipe:", "p 0:0", 0o600, 0) or pair.fact.endswith(" uid"),
    ),
    Deviation(
        "runc: the group of stdio is not changed",
        "runc",
        PROGRAM + r"stdio [012] gid",
        "config.md#user",
        "not specified; pyrunc and crun give stdio to the user and to the group",
        lambda pair: pair.theirs in (0, 65534),
    ),
    Deviation(
        "runc: devices of a user namespace may be executed",
        "runc",
        MOUNT + "(?:options|propagation)",
        "config-linux.md#devices",
        "the bound nodes are noexec and private with pyrunc and crun",
        lambda pair: pair.has("namespaces.user") and of_userns(pair.ours, pair.theirs),
    ),
    Deviation(
        "runc: status in hooks",
        "runc",
        r"hook (?:prestart|poststart)-\d(?:#\d)? stdin status",
        "runtime.md#state",
        "prestart runs after step 2, so the container is created; poststart after step 8, so it is running",
        lambda pair: (pair.ours, pair.theirs) in (("created", "creating"), ("running", "created")),
    ),
    Deviation(
        "runc: descriptors of hooks",
        "runc",
        r"hook \S+ fds",
        "config.md#posix-platform-hooks",
        "descriptors of the runtime leak into hooks of the container",
        lambda pair: set(pair.ours) == {"0", "1", "2"} < set(pair.theirs),
    ),
    Deviation(
        "runc: working directory of poststop hooks",
        "runc",
        r"hook poststop-\d(?:#\d)? cwd",
        "config.md#posix-platform-hooks",
        "not specified for the runtime namespace: the bundle, as with the other kinds",
        lambda pair: (pair.ours, pair.theirs) == ("/w/b", "/"),
    ),
    Deviation(
        "runc: duplicate variables of a hook are dropped",
        "runc",
        r"hook \S+ env",
        "config.md#posix-platform-hooks",
        "env is what the hook gets, as in IEEE Std 1003.1's environ",
        without_duplicates,
    ),
    Deviation(
        "runc: an empty env of a startContainer hook is the process's",
        "runc",
        r"hook startContainer-\d(?:#\d)? env",
        "config.md#posix-platform-hooks",
        "an empty array is an empty environment",
        lambda pair: pair.ours == [],
    ),
    Deviation(
        "runc: signals that the caller blocks stay blocked",
        "runc",
        r"(?:hook \S+|" + PROGRAM.rstrip() + ") sigblk",
        "config.md#posix-process",
        "nothing of the caller's reaches the container",
        lambda pair: "block" in pair.case.caller and pair.ours == 0,
    ),
    Deviation(
        "runc: the caller's umask decides about mount points",
        "runc",
        r"rootfs \S+|left sources|" + PROGRAM + r"(?:path \S+ \S+|cwd_stat|dev \S+)",
        "config.md#mounts",
        "missing mount points are made with the same mode whoever calls",
        caller_umask,
    ),
    Deviation(
        "runc: mount points that a failed create made stay",
        "runc",
        r"rootfs \S+",
        "runtime.md#errors",
        "an error leaves the environment as if the operation were never attempted",
        lambda pair: pair.ours == ABSENT,
    ),
    Deviation(
        "runc: without capabilities a process has all",
        "runc",
        PROGRAM + r"(?:caps|nodes|calls) \S+",
        "config.md#linux-process",
        "what is not given is not granted",
        lambda pair: pair.has("process.capabilities.absent"),
    ),
    Deviation(
        "runc: umask of an exec",
        "runc",
        PROGRAM + "umask",
        "config.md#posix-platform-user",
        "the process's own, or the default; not the container's or the caller's",
        lambda pair: any(command[0] == "exec" for command in pair.case.commands),
    ),
    Deviation(
        "runc: /dev/console on the host",
        "runc",
        "left files",
        "runtime.md#delete",
        "left in a /dev of the host that the container had bound",
        lambda pair: set(pair.theirs) == {"/dev/console"},
    ),
    Deviation(
        "runc: keyring of an exec in a user namespace",
        "runc",
        PROGRAM + "keyring",
        "config.md#process",
        "not specified; the keyring that the first process searches may be searched",
        lambda pair: pair.has("namespaces.user"),
    ),
    Deviation(
        "runc: source of a tmpfs without one",
        "runc",
        MOUNT + "is",
        "config.md#mounts",
        "a name that nobody reads",
        lambda pair: (pair.ours, pair.theirs) == ("tmpfs / none", "tmpfs / "),
    ),
    Deviation(
        "runc: fails earlier",
        "runc",
        LESS,
        "runtime.md#errors",
        "a config that fails with both, with runc for something that comes first",
        less,
    ),
    Deviation(
        "runc: a paused container whose init died stays paused",
        "runc",
        r"step \d+ \S+ (?:state status|state pid|rc)",
        "runtime.md#state",
        "stopped: the container process has exited",
        lambda pair: before(pair, "init-dies", "kill") and before(pair, "pause"),
    ),
    Deviation(
        "runc: a terminal of an exec that fails",
        "runc",
        "window .*",
        "runtime.md#errors",
        "the program is looked up after the terminal was sent; pyrunc and crun refused the command before",
        unopened_terminal,
    ),
    Deviation(
        "runc: a read-only tmpfs that is covered",
        "runc",
        MOUNT + "options",
        "config.md#mounts",
        "it is remounted read-only at the end, on top of what covers it under another name",
        lambda pair: (
            " #2 " in pair.fact
            and any(
                entry.get("type") == "tmpfs" and "ro" in (entry.get("options") or ()) for entry in pair.config["mounts"]
            )
        ),
    ),
    Deviation(
        "runc: pipes of a run in a joined user namespace",
        "runc",
        r"(?:out|terminal) inside(?: \d+)? stdio [012] uid",
        "config.md#user",
        "not specified; pyrunc and crun do not look up the maps of a namespace that is joined by path",
        lambda pair: pair.ours == 65534 and pair.has("namespaces.user.path"),
    ),
    Deviation(
        "runc: hangs with a seccomp profile",
        "runc",
        r"step \d+ (?:exec|create|run) rc|left (?:cgroups|state|processes)|force",
        "runtime.md#errors",
        "create and exec do not end under some profiles, and what they leave cannot be deleted",
        lambda pair: pair.has("linux.seccomp") and (pair.theirs == -1 or not pair.fact.startswith("step")),
    ),
    Deviation(
        "runc: delete --force hangs when the cgroup is gone",
        "runc",
        r"force|left (?:state|processes|cgroups)|step \d+ delete rc|hook poststop-\d is there|hooks order",
        "runtime.md#delete",
        "the container stays",
        lambda pair: any(command[0] == "cgroup-gone" for command in pair.case.commands),
    ),
    Deviation(
        "runc: poststart hooks of containers that were not started",
        "runc",
        r"hooks order|hook poststart-\d(?:#\d)? is there",
        "config.md#poststart",
        "delete --force of a created container runs them",
        lambda pair: (
            pair.has("hooks")
            and (pair.ours == ABSENT or set(pair.theirs) - set(pair.ours) <= {"hook-poststart-0", "hook-poststart-1"})
        ),
    ),
    Deviation(
        "runc: groups of mqueue in a user namespace",
        "runc",
        PROGRAM + "dev /dev/mqueue",
        "config.md#mounts",
        "the root directory's group is the container's root's",
        lambda pair: pair.has("namespaces.user"),
    ),
    Deviation(
        "runc: without capabilities a process may read and write everything",
        "runc",
        PROGRAM + r"(?:path \S+ \S+|dev \S+|cwd_stat)|hook startContainer-\d(?:#\d)? caps \S+",
        "config.md#linux-process",
        "what is not given is not granted",
        lambda pair: pair.has("process.capabilities.absent"),
    ),
    Deviation(
        "runc: stdio of a user namespace keeps its owner",
        "runc",
        PROGRAM + "stdio [012] uid",
        "config.md#user",
        "not specified; pyrunc and crun give stdio to the user",
        lambda pair: pair.has("namespaces.user") and pair.theirs in (0, 65534),
    ),
    Deviation(
        "runc: a writable cgroup is not given away",
        "runc",
        r"step \d+ \S+ owner|" + PROGRAM + r"path /\S*cgroup\S* (?:uid|write)",
        "config-linux.md#cgroup-ownership",
        "the owner SHOULD be the container's user",
        lambda pair: pair.has("mount.cgroup"),
    ),
    Deviation(
        "runc: signals that the caller ignores stay ignored",
        "runc",
        r"(?:hook \S+|" + PROGRAM.rstrip() + ") sigign",
        "config.md#posix-process",
        "nothing of the caller's reaches the container",
        lambda pair: "ignore" in pair.case.caller and pair.ours == 0,
    ),
    Deviation(
        "runc: recursive atime options win",
        "runc",
        MOUNT + "options",
        "config.md#linux-mount-options",
        "the last option about a flag decides",
        lambda pair: any(re.search(r"\br(no)?(rel|strict)?atime", " ".join(options)) for options in pair.options),
    ),
    Deviation(
        "runc: nodes of a user namespace are the host's of that path",
        "runc",
        PROGRAM + r"(?:mount|path|dev) /\S+.*|left sources|rootfs \S+",
        "config-linux.md#devices",
        "major, minor, mode and owner are those of the configuration",
        lambda pair: pair.has("namespaces.user") and pair.has("linux.devices"),
    ),
    Deviation(
        "runc: names of cgroup mounts",
        "runc",
        MOUNT + "is",
        "config.md#mounts",
        "the kernel does not read the source of a cgroup mount, which only shows in the mount table",
        lambda pair: (pair.ours, pair.theirs) == ("cgroup2 / cgroup2", "cgroup2 / cgroup"),
    ),
    Deviation(
        "runc: masks of a bound /dev are slaves",
        "runc",
        MOUNT + "propagation",
        "config-linux.md#masked-paths",
        "a mask must not go away or be covered with what the host mounts or unmounts",
        lambda pair: pair.theirs == f"{pair.ours} master:host".strip() and pair.has("mount.default.dev-bound"),
    ),
    Deviation(
        "runc: paths that are listed twice are covered twice",
        "runc",
        MOUNT + ".*",
        "config-linux.md#masked-paths",
        "a second mount on top of the first has no effect; the mask is on top with all",
        lambda pair: pair.has("linux.paths") and (" #" in pair.fact or _masked_and_readonly(pair)),
    ),
    Deviation(
        "runc: init dies under a filter after create",
        "runc",
        r"step \d+ create (?:state status|state pid|init|cgroup|owner|group \S+)",
        "config-linux.md#seccomp",
        "create and exec do what the config says before the filter is in force",
        lambda pair: pair.has("linux.seccomp") and pair.theirs in ("stopped", "none", "gone", "", ABSENT, None),
    ),
    Deviation(
        "runc: sources that only the host's root can reach are private",
        "runc",
        MOUNT + "propagation",
        "config.md#mounts",
        "the propagation of a bind does not depend on the directories above its source",
        lambda pair: (
            pair.ours == f"{pair.theirs} master:host".strip()
            and pair.has("namespaces.user")
            and "/private/" in str(pair.config["mounts"])
        ),
    ),
    Deviation(
        "runc: a default device that the config lists is not allowed",
        "runc",
        PROGRAM + r"(?:nodes null|path /dev/null \S+|dev /dev/null)",
        "config-linux.md#default-devices",
        "/dev/null MUST be available for the program, also with another mode",
        lambda pair: "'/dev/null'" in str(pair.config["linux"].get("devices")),
    ),
    Deviation(
        "runc: additional gids of exec twice",
        "runc",
        PROGRAM + "groups",
        "config.md#posix-platform-user",
        "a group that is given once is set once",
        lambda pair: "--additional-gids" in str(pair.case.commands) and set(pair.ours) == set(pair.theirs),
    ),
    Deviation(
        "runc: a cgroup that is bound is a slave",
        "runc",
        MOUNT + "propagation",
        "config.md#mounts",
        "private, like a new mount of the same type, with or without a cgroup namespace",
        lambda pair: (pair.ours, pair.theirs) == ("", "master:host") and pair.has("mount.cgroup"),
    ),
    Deviation(
        "runc: poststop hooks after a create that has made nothing",
        "runc",
        r"hooks order|hook poststop-\d is there",
        "runtime.md#lifecycle",
        "the config was refused before anything was created",
        lambda pair: pair.failed and pair.ours in ([], ABSENT) and "crun" in pair.company,
    ),
    Deviation(
        "runc: kill thaws a paused container",
        "runc",
        r"step \d+ \S+ group cgroup.freeze",
        "runtime.md#kill",
        "SIGKILL kills a frozen process, and other signals do not end a pause",
        lambda pair: (pair.ours, pair.theirs) == ("1", "0") and before(pair, "kill"),
    ),
    Deviation(
        "runc: the console in a bound /dev",
        "runc",
        PROGRAM + r"(?:(?:path|dev|mount) /dev/console.*|path /dev names)",
        "config-linux.md#default-devices",
        "its mount point would be created in the host's /dev and stay there",
        lambda pair: pair.has("mount.default.dev-bound") and bool(pair.config["process"].get("terminal")),
    ),
)
