"""Deviations of crun alone: runc and pyrunc agree, or runc differs for another reason."""

from __future__ import annotations

import re

from integration.differential.compare import ABSENT
from integration.differential.conditions import (
    LESS,
    STDIO,
    before,
    bind_sources,
    caller_umask,
    cap_flag,
    contradict,
    exec_env,
    less,
    unopened_terminal,
)
from integration.differential.entries import MOUNT, PROGRAM, Deviation, Pair
from integration.differential.fields_mounts import ATIME, FLAGS


def _words(text: object) -> set[str]:
    return set(str(text).split(","))


def _without_cgroups(pair: Pair) -> bool:
    """Whether the host's cgroup file system is missing for the peer."""
    if pair.fact == "left lost":
        return "cgroup2" in str(pair.theirs)
    if not pair.has("mount.cgroup") and "--no-pivot" not in str(pair.case.commands):
        return False
    if pair.fact.startswith("step "):
        return pair.theirs in ("none", "stopped", "fails", "gone", "", 1, ABSENT, None)
    return "/sys" in bind_sources(pair) and (pair.theirs == ABSENT or "/cgroup" in pair.fact)


ALL: tuple[Deviation, ...] = (
    Deviation(
        "crun: directories of its own in the state root",
        "crun",
        "left state",
        "runtime.md#delete",
        "an empty directory for masks, and a cache",
        lambda pair: pair.ours == [] and set(pair.theirs) <= {".cache", ".empty-directory"},
    ),
    Deviation(
        "crun: masks of directories come from its state root",
        "crun",
        MOUNT + "(?:is|super)",
        "config-linux.md#masked-paths",
        "the file system is not specified",
        lambda pair: (
            "/.empty-directory" in str(pair.theirs)
            or str(pair.theirs).startswith("mode=755,rw")
            or pair.theirs == "gid=100000,nr_inodes=1,rw,size=4k,uid=100000"
        ),
    ),
    Deviation(
        "crun: read-only mounts have a writable superblock",
        "crun",
        MOUNT + "super|" + PROGRAM + r"path \S+ write",
        "config.md#mounts",
        "mount(2) with MS_RDONLY makes both read-only: EROFS comes before EACCES; write access is the same",
        lambda pair: str(pair.ours).replace("ro", "rw") == str(pair.theirs) or (pair.ours, pair.theirs) == (30, 13),
    ),
    Deviation(
        "crun: links to /proc/kcore",
        "crun",
        PROGRAM + r"(?:dev /dev/core|path /dev names)",
        "config-linux.md#dev-symbolic-links",
        "the link is created if its source exists, which it does not here",
        lambda pair: pair.ours == ABSENT or pair.theirs == pair.ours + 1,
    ),
    Deviation(
        "crun: session keyrings",
        "crun",
        PROGRAM + "keyring",
        "config.md#process",
        "not specified; name and permissions as in runc, and exec joins the container's keyring",
        lambda pair: str(pair.theirs).startswith("keyring;"),
    ),
    Deviation(
        "crun: modes of missing mount points",
        "crun",
        r"rootfs \S+|left (?:sources|files)",
        "config.md#mounts",
        "directories get the sticky bit, files are executable; leftovers of a failed create stay",
        lambda pair: any(mode in str(pair.theirs) for mode in ("drwxr-xr-t", "-rwx------")) or pair.theirs == ABSENT,
    ),
    Deviation(
        "crun: a foreground program keeps the caller's files",
        "crun",
        PROGRAM + STDIO,
        "config.md#posix-process",
        "pyrunc and runc pass pipes",
        lambda pair: pair.case.commands[0][0] == "run",
    ),
    Deviation(
        "crun: ociVersion of a hook's state",
        "crun",
        r"hook \S+ stdin ociVersion",
        "runtime.md#state",
        '"1.0" is not SemVer',
        lambda pair: pair.theirs == "1.0",
    ),
    Deviation(
        "crun: umask and blocked signals of hooks",
        "crun",
        r"hook \S+ (?:umask|sigblk|sigign)",
        "config.md#posix-platform-hooks",
        "hooks inherit crun's own settings",
        lambda pair: pair.theirs == 0 or " sig" in pair.fact,
    ),
    Deviation(
        "crun: signals that stay blocked in the program",
        "crun",
        PROGRAM + "sigblk",
        "config.md#posix-process",
        "SIGCHLD stays blocked after a startContainer hook",
        lambda pair: pair.theirs == 1 << 16,
    ),
    Deviation(
        "crun: state that hooks of the container get",
        "crun",
        r"hook (?:createRuntime|createContainer|startContainer)-\d(?:#\d)? stdin (?:status|bundle|pid)",
        "runtime.md#state",
        "status is creating until create has finished; the bundle is a host path, the pid is 1",
        lambda pair: pair.theirs in ("created", "starting", "none") or pair.fact.endswith(" bundle"),
    ),
    Deviation(
        "crun: working directory of createContainer hooks",
        "crun",
        r"hook createContainer-\d(?:#\d)? cwd",
        "config.md#posix-platform-hooks",
        "not specified; the root filesystem, as with runc",
        lambda pair: (pair.ours, pair.theirs) == ("/w/b/rootfs", "/w/b"),
    ),
    Deviation(
        "crun: environment of createContainer hooks",
        "crun",
        r"hook createContainer-\d(?:#\d)? env",
        "config.md#posix-platform-hooks",
        "without env the runtime's own; pyrunc and runc pass none into the container's namespaces",
        lambda pair: pair.ours == [],
    ),
    Deviation(
        "crun: no poststop hooks after a create that failed",
        "crun",
        r"hooks order|hook poststop-\d(?:#\d)? is there",
        "runtime.md#lifecycle",
        "steps 3 to 5 continue at step 12",
        lambda pair: (
            not isinstance(pair.ours, list) or [name for name in pair.ours if "poststop" not in name] == pair.theirs
        ),
    ),
    Deviation(
        "crun: exec forgets noNewPrivileges",
        "crun",
        PROGRAM + r"(?:no_new_privs|status NoNewPrivs)",
        "config.md#linux-process",
        "the container's process has it",
        lambda pair: str(pair.ours) == "1",
    ),
    Deviation(
        "crun: --cap replaces the sets",
        "crun",
        PROGRAM + r"(?:(?:caps|nodes|calls) \S+|path \S+ (?:read|write|execute))",
        "config.md#linux-process",
        "pyrunc and runc add to the container's",
        cap_flag,
    ),
    Deviation(
        "crun: group and groups of exec --user",
        "crun",
        PROGRAM + r"(?:gid|groups)",
        "config.md#posix-platform-user",
        "a user without a group keeps the container's group",
        lambda pair: any(command[0] == "exec" and "--user" in command[1] for command in pair.case.commands),
    ),
    Deviation(
        "crun: order of the environment",
        "crun",
        PROGRAM + r"env|hook startContainer-\d(?:#\d)? env",
        "config.md#posix-process",
        "not specified; duplicates are resolved in place by pyrunc and runc, and an empty HOME is filled in",
        lambda pair: (
            sorted(entry for entry in pair.ours if not entry.startswith("HOME="))
            == sorted(entry for entry in pair.theirs if not entry.startswith("HOME="))
        ),
    ),
    Deviation(
        "crun: an exec without env gets the container's",
        "crun",
        PROGRAM + "(?:env|exe)",
        "config.md#posix-process",
        "an empty array is an empty environment",
        exec_env,
    ),
    Deviation(
        "crun: the console is a link",
        "crun",
        PROGRAM + "(?:path /dev/console|mount /dev/console|dev /dev/console|fd_flags|tty onlcr).*",
        "config-linux.md#default-devices",
        "/dev/console is a bind of the pseudoterminal's slave",
        lambda pair: bool(pair.config["process"].get("terminal")) or "--tty" in str(pair.case.commands),
    ),
    Deviation(
        "crun: propagation of mounts",
        "crun",
        MOUNT + "propagation",
        "config.md#mounts",
        "private, or as rootfsPropagation requests; the kernel's default is the source's propagation",
        lambda pair: (
            set(str(pair.theirs).split()) < set(str(pair.ours).split())
            or (pair.theirs == "unbindable" and "rootfsPropagation" in pair.config["linux"])
        ),
    ),
    Deviation(
        "crun: the cgroup belongs to the container's root",
        "crun",
        r"step \d+ \S+ owner",
        "config-linux.md#cgroup-ownership",
        "regardless of the mount and the namespace",
        lambda pair: str(pair.theirs).startswith("drwxr-xr-x ") and pair.theirs != pair.ours,
    ),
    Deviation(
        "crun: newest system calls under an allow-list",
        "crun",
        PROGRAM + "calls newest",
        "config-linux.md#seccomp",
        "a call newer than the profile fails with ENOSYS, as with runc, so that programs fall back",
        lambda pair: pair.ours == 38,
    ),
    Deviation(
        "crun: cgroups of failed creates stay",
        "crun",
        r"left cgroups|step \d+ \S+ (?:owner|group.*)",
        "runtime.md#errors",
        "an error leaves the environment as if the operation were never attempted",
        lambda pair: pair.ours in ([], None, ABSENT),
    ),
    Deviation(
        "crun: unmounts the host's cgroup file system",
        "crun",
        r"left lost|step \d+ \S+ .*|" + MOUNT + ".*",
        "runtime.md#errors",
        "with cgroup mounts of a container, and with --no-pivot; everything after it fails, and binds of /sys lack it",
        _without_cgroups,
    ),
    Deviation(
        "crun: another one of contradicting options wins",
        "crun",
        PROGRAM + r"path \S+ (?:read|bytes|write|execute)|" + MOUNT + "(?:options|super)",
        "config.md#linux-mount-options",
        "the last option about a flag decides",
        lambda pair: any(contradict(set(options)) for options in pair.options),
    ),
    Deviation(
        "crun: dirsync, sync, relatime and nodiratime set flags of another call",
        "crun",
        MOUNT + "options",
        "config.md#linux-mount-options",
        "MS_DIRSYNC is the bit of MOUNT_ATTR_NODIRATIME, MS_RELATIME that of MOUNT_ATTR_NOSYMFOLLOW",
        lambda pair: (
            bool(_words(pair.theirs) - _words(pair.ours) & {"nodiratime", "nosymfollow", "noatime"})
            and any(re.search("dirsync|sync|relatime|nodiratime", " ".join(options)) for options in pair.options)
        ),
    ),
    Deviation(
        "crun: nosymfollow is ignored",
        "crun",
        MOUNT + "options",
        "config.md#linux-mount-options",
        "an option that the specification lists",
        lambda pair: "nosymfollow" in _words(pair.ours) - _words(pair.theirs),
    ),
    Deviation(
        "crun: devices of a user namespace may be executed",
        "crun",
        MOUNT + "options",
        "config-linux.md#devices",
        "the bound nodes are noexec and nosuid",
        lambda pair: (pair.ours, pair.theirs) == ("noexec,nosuid,relatime,rw", "relatime,rw") and " /dev/" in pair.fact,
    ),
    Deviation(
        "crun: sysfs of a user namespace is writable",
        "crun",
        MOUNT + "options",
        "config.md#mounts",
        "the option ro applies to the bind as well",
        lambda pair: pair.has("namespaces.user") and " /sys " in pair.fact and "rw" in _words(pair.theirs),
    ),
    Deviation(
        "crun: flags of a bind's source",
        "crun",
        MOUNT + "options",
        "config.md#linux-mount-options",
        "a bind with flag options has those flags, one without has its source's (ADR 20); crun mixes them",
        lambda pair: (
            _words(pair.ours) ^ _words(pair.theirs) <= {"nosuid", "nodev", "noexec", "ro", "rw", "noatime", "relatime"}
            and any({"bind", "rbind"} & set(options) for options in pair.options)
        ),
    ),
    Deviation(
        "crun: names of cgroup mounts",
        "crun",
        MOUNT + "is",
        "config.md#mounts",
        "the config's source is shown by pyrunc and runc",
        lambda pair: (
            (pair.ours, pair.theirs) in (("cgroup2 / cgroup", "cgroup2 / cgroup2"), ("tmpfs / none", "tmpfs / tmpfs"))
        ),
    ),
    Deviation(
        "crun: kill --all thaws",
        "crun",
        r"step \d+ \S+ (?:group cgroup.freeze|state status)|out signals.*",
        "runtime.md#kill",
        "a signal does not end a pause",
        lambda pair: any(command[0] == "kill" and "--all" in command for command in pair.case.commands),
    ),
    Deviation(
        "crun: the caller's umask affects cgroups",
        "crun",
        PROGRAM + r"path /\S*cgroup\S* mode",
        "config-linux.md#cgroup-ownership",
        "not specified; the same directories for every caller, as for mount points",
        caller_umask,
    ),
    Deviation(
        "crun: an exec forgets limits and the OOM score",
        "crun",
        PROGRAM + r"(?:rlimits \S+|calls mlock|oom_score_adj)",
        "config.md#linux-process",
        "the process of an exec inherits the container's settings unless it overrides them",
        lambda pair: any(command[0] == "exec" for command in pair.case.commands),
    ),
    Deviation(
        "crun: startContainer hooks come before the filter",
        "crun",
        r"hooks order|hook startContainer-\d(?:#\d)? is there",
        "config-linux.md#seccomp",
        "the filter applies in the container's namespace",
        lambda pair: pair.has("linux.seccomp"),
    ),
    Deviation(
        "crun: owners and modes of cgroups",
        "crun",
        PROGRAM + r"path /\S*cgroup\S* \S+",
        "config-linux.md#cgroup-ownership",
        "the owner of a writable mount in a private namespace is the user; crun looks at none of these",
        lambda pair: pair.has("mount.cgroup"),
    ),
    Deviation(
        "crun: mount points keep the sticky bit",
        "crun",
        MOUNT + "super|" + PROGRAM + r"(?:dev \S+|path \S+ mode)",
        "config.md#mounts",
        "a tmpfs inherits the mode of its mount point, which crun makes sticky",
        lambda pair: (
            str(pair.theirs).replace("1755", "755") == str(pair.ours).replace("0755", "755")
            or (pair.ours, pair.theirs) == (0o755, 0o1755)
        ),
    ),
    Deviation(
        "crun: fails earlier",
        "crun",
        LESS,
        "runtime.md#errors",
        "a config that fails with both, with crun for an earlier reason",
        less,
    ),
    Deviation(
        "crun: a pid namespace of its own with a time namespace",
        "crun",
        PROGRAM + r"(?:ns pid|ns pid_for_children|pid|parent)",
        "config-linux.md#namespaces",
        "a namespace that is not listed is the runtime's",
        lambda pair: pair.has("namespaces.time"),
    ),
    Deviation(
        "crun: a container whose cgroup is gone counts as stopped",
        "crun",
        r"step \d+ \S+ (?:state status|rc)|left processes",
        "runtime.md#state",
        "its process has not exited",
        lambda pair: before(pair, "cgroup-gone"),
    ),
    Deviation(
        "crun: a created container that is paused stays created",
        "crun",
        r"step \d+ (?:\S+ state status|delete rc)",
        "runtime.md#state",
        "paused is a state of its own, as with runc: the container cannot be deleted without --force",
        lambda pair: (pair.ours, pair.theirs) in (("paused", "created"), ("fails", 0)) and before(pair, "pause"),
    ),
    Deviation(
        "crun: exec forgets the container's scheduling",
        "crun",
        PROGRAM + r"(?:scheduling \S+|status Cpus_allowed_list|timer_slack)",
        "config.md#linux-process",
        "the process of an exec inherits the container's settings unless it overrides them",
        lambda pair: pair.has("process.scheduling", "process.execCPUAffinity") and "'exec'" in str(pair.case.commands),
    ),
    Deviation(
        "crun: umask of an exec",
        "crun",
        PROGRAM + "umask",
        "config.md#posix-platform-user",
        "a process's umask is set, including the one of exec",
        lambda pair: any(command[0] == "exec" for command in pair.case.commands),
    ),
    Deviation(
        "crun: working directory of an exec",
        "crun",
        PROGRAM + "cwd(?:_stat)?",
        "config.md#process",
        "the container's, unless overridden",
        lambda pair: any(command[0] == "exec" for command in pair.case.commands),
    ),
    Deviation(
        "crun: no device rules without a list",
        "crun",
        PROGRAM + r"nodes \S+",
        "config-linux.md#allowed-device-list",
        "what is not allowed is denied, as with runc",
        lambda pair: not pair.config["linux"]["resources"].get("devices"),
    ),
    Deviation(
        "crun: oom_score_adj and groups of hooks",
        "crun",
        r"hook \S+ (?:oom_score_adj|groups)",
        "config.md#posix-platform-hooks",
        "those of the container's process reach hooks of the host",
        lambda pair: pair.has("process.oomScoreAdj", "process.user"),
    ),
    Deviation(
        "crun: masked and read-only paths in another order",
        "crun",
        MOUNT + r"(?:is|options|super|propagation|on)|" + PROGRAM + r"path \S+ (?:bytes|write)",
        "config-linux.md#masked-paths",
        "read-only paths first, then masks, as with runc",
        lambda pair: pair.has("linux.paths"),
    ),
    Deviation(
        "crun: upper layers",
        "crun",
        "left sources",
        "config.md#mounts",
        "modes of its mount points in an overlay's upper layer; a read-only overlay is mounted writable",
        lambda pair: pair.has("mount.overlay"),
    ),
    Deviation(
        "crun: the bundle of a user namespace with devices is /",
        "crun",
        r"step \d+ \S+ state bundle|hook \S+ (?:cwd|stdin bundle)",
        "runtime.md#state",
        "the absolute path of the bundle directory",
        lambda pair: pair.theirs == "/",
    ),
    Deviation(
        "crun: the end of a container that left its cgroup",
        "crun",
        r"step \d+ \S+ (?:init|cgroup|state \S+)",
        "runtime.md#delete",
        "delete --force ends its process",
        lambda pair: before(pair, "cgroup-gone"),
    ),
    Deviation(
        "crun: nodes in a user namespace",
        "crun",
        PROGRAM + r"(?:mount|path|dev) /\S+.*",
        "config-linux.md#devices",
        "they have no mode bits: only root can open them",
        lambda pair: pair.has("namespaces.user") and pair.has("linux.devices"),
    ),
    Deviation(
        "crun: two mounts on one destination",
        "crun",
        PROGRAM + r"path \S+ \S+|" + MOUNT + ".*",
        "config.md#mounts",
        "a covered read-only tmpfs is remounted read-only at the end, on top of the other one",
        lambda pair: len({entry["destination"] for entry in pair.config["mounts"]}) < len(pair.config["mounts"]),
    ),
    Deviation(
        "crun: devices that no rule allows can be opened",
        "crun",
        PROGRAM + r"path /\S+ (?:read|bytes)",
        "config-linux.md#allowed-device-list",
        "what is not allowed is denied, as with runc; ENXIO shows that the kernel has looked for the driver",
        lambda pair: (
            not pair.config["linux"]["resources"].get("devices")
            or (pair.theirs == 6 and pair.has("linux.resources.devices"))
        ),
    ),
    Deviation(
        "crun: atime options",
        "crun",
        MOUNT + "options",
        "config.md#linux-mount-options",
        "the last option about a flag decides",
        lambda pair: any("atime" in " ".join(options) for options in pair.options),
    ),
    Deviation(
        "crun: sync of a devpts",
        "crun",
        MOUNT + "super",
        "config.md#linux-mount-options",
        "no effect on a file system without storage",
        lambda pair: _words(pair.theirs) - _words(pair.ours) == {"sync"},
    ),
    Deviation(
        "crun: binds without options are writable",
        "crun",
        PROGRAM + r"path \S+ write|" + MOUNT + "options",
        "config.md#mounts",
        "without flag options a bind has its source's flags, as with mount(2) and runc",
        lambda pair: any(
            {"bind", "rbind"} & set(options) and not set(options) & {*FLAGS, *ATIME} for options in pair.options
        ),
    ),
    Deviation(
        "crun: sysctls are set before createContainer hooks",
        "crun",
        r"hook createContainer-\d(?:#\d)? domainname",
        "config-linux.md#sysctl",
        "not specified; with the container's own init, as with runc",
        lambda pair: pair.theirs == "sysctl.example",
    ),
    Deviation(
        "crun: stdin stays the host's /dev/null",
        "crun",
        PROGRAM + "(?:stdio 0 (?:mode|uid|gid)|fd_flags 0)",
        "config-linux.md#default-devices",
        "the container's own, as with runc, with the owner and mode of the config",
        lambda pair: pair.has("linux.devices", "mount.default.dev-bound"),
    ),
    Deviation(
        "crun: a bind with a recursive option is recursive",
        "crun",
        MOUNT + "(?:is|options|super|propagation|on)",
        "config.md#linux-mount-options",
        "bind is not recursive; rprivate and similar options apply to existing mounts",
        lambda pair: (
            pair.ours == ABSENT
            and any("bind" in options and any(one[0] == "r" for one in options) for options in pair.options)
        ),
    ),
    Deviation(
        "crun: a terminal of an exec that fails",
        "crun",
        "window .*",
        "runtime.md#errors",
        "pyrunc and runc refuse a console socket for an exec in the foreground before a terminal exists",
        unopened_terminal,
    ),
    Deviation(
        "crun: recursive options win over plain ones",
        "crun",
        PROGRAM + r"path \S+ write",
        "config.md#linux-mount-options",
        "the last option about a flag decides",
        lambda pair: any({"ro", "rrw"} <= set(options) or {"rw", "rro"} <= set(options) for options in pair.options),
    ),
    Deviation(
        "crun: the host's cgroup file system in a bound sysfs",
        "crun",
        MOUNT + ".*",
        "config.md#mounts",
        "sysfs is bound in a user namespace; crun mounts the same file system again on top",
        lambda pair: pair.ours == ABSENT and pair.has("namespaces.user") and " /sys/fs/cgroup #2 " in pair.fact,
    ),
    Deviation(
        "crun: a container that could not be started is deleted at once",
        "crun",
        r"step \d+ \S+ (?:rc|state \S+|owner|group \S+)",
        "runtime.md#lifecycle",
        "the container is stopped, and the caller deletes it",
        lambda pair: pair.has("hooks.failing.poststart") and pair.theirs in ("none", ABSENT, "fails", None),
    ),
    Deviation(
        "crun: gets further before it fails",
        "crun",
        r"hooks order|hook \S+ is there|rootfs \S+",
        "runtime.md#errors",
        "a config that fails with all, with pyrunc and runc for an earlier reason",
        lambda pair: pair.failed and "runc" in pair.company,
    ),
    Deviation(
        "crun: a startContainer hook that fails only logs",
        "crun",
        r"step \d+ \S+ (?:rc|state \S+|init|cgroup)|hooks order|hook \S+ is there",
        "runtime.md#lifecycle",
        "step 7 generates an error; only with crun the hook fails: it runs in the process's working directory, and"
        " before stdio belongs to the user",
        lambda pair: (
            "startContainer" in (pair.config.get("hooks") or ())
            and (pair.has("linux.devices") or "runc" in pair.company)
            and pair.theirs in ("fails", "stopped", "none", "gone", "", 1, ABSENT)
        ),
    ),
    Deviation(
        "crun: output of a run in the foreground is lost",
        "crun",
        "terminal inside is there",
        "config.md#process",
        "the program's output to its terminal is copied to the caller's before run ends",
        lambda pair: pair.theirs == ABSENT and pair.case.commands[0][0] == "run",
    ),
    Deviation(
        "crun: processes of its own stay",
        "crun",
        "left processes",
        "runtime.md#errors",
        "of a failed create: an error leaves the environment as if the operation were never attempted",
        lambda pair: pair.ours == [] and bool(pair.theirs) and set(pair.theirs) == {"crun"},
    ),
    Deviation(
        "crun: delete --force does not wait for the end",
        "crun",
        r"step \d+ delete (?:init|cgroup)",
        "runtime.md#delete",
        "when delete returns, everything that create made is gone",
        lambda pair: pair.ours in ("gone", "") and pair.theirs in ("alive", "/box/c (deleted)"),
    ),
)
