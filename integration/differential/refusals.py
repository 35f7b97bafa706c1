"""Commands whose status differs: one runtime refuses what another accepts, matched by its
message."""

from __future__ import annotations

import re

from integration.differential.conditions import RUN, before, private_pids
from integration.differential.entries import Deviation, Pair

EXEC = r"step \d+ exec rc"
ATIME = r"r(?:no)?(?:rel|strict|di)?r?atime"
STARTED = r"step \d+ (?:create|run|start|exec) rc"
# Programs in the root filesystem that are found at create but that the kernel refuses to execute.
NOT_EXECUTED = ("badscript", "noformat", "empty")


def no_path(pair: Pair) -> bool:
    """Whether a program is looked up without a PATH variable."""
    envs = [(pair.program, pair.env)]
    for command in pair.case.commands:
        if command[0] == "exec" and len(command) > 3 and command[3]:
            envs.append((command[3]["args"][0], command[3].get("env") or []))
        elif command[0] == "exec":
            envs.append((command[2][0], pair.env))
    return any("/" not in name and not any(entry.startswith("PATH=") for entry in env) for name, env in envs)


def is_not_executed(pair: Pair) -> bool:
    """Whether the kernel refuses to execute the program."""
    return pair.program.rpartition("/")[2] in NOT_EXECUTED


def done(pair: Pair) -> bool:
    """Whether pyrunc accepts what the peer refuses."""
    return pair.ours not in (1, 255, "fails", -1) and pair.theirs in (1, 2, 64, 255, "fails", -1)


def refused(pair: Pair) -> bool:
    """Whether pyrunc refuses what the peer accepts."""
    return pair.ours in (1, 255, "fails") and pair.theirs not in (1, "fails", -1)


def _start_fails(pair: Pair) -> bool:
    filtered = pair.has("linux.seccomp") and "startContainer" in (pair.config.get("hooks") or ())
    failing = pair.has("hooks.failing.startContainer") or is_not_executed(pair) or filtered
    return failing and pair.ours in ("fails", 1) and pair.theirs in (0, 255)


def _argument(pair: Pair, text: str) -> bool:
    """Whether the command of the fact contains this text."""
    return text in str(_command(pair))


def _command(pair: Pair) -> list[object]:
    step = re.match(r"step (\d+) ", pair.fact)
    return list(pair.case.commands[int(step[1])]) if step else []


def _of_types(pair: Pair, *types: str) -> bool:
    return any(entry.get("type") in types for entry in pair.config["mounts"])


def _unbindable(pair: Pair) -> bool:
    return "unbindable" in (pair.config["linux"].get("rootfsPropagation") or "")


def _foreign_mount(pair: Pair) -> bool:
    """Whether a proc, mqueue or sysfs lacks the namespace that it shows, in a user namespace."""
    linux = pair.config["linux"]
    own = {entry["type"] for entry in linux["namespaces"] if not entry.get("path")}
    return pair.has("namespaces.user") and not {"ipc", "network", "pid"} <= own


def _device(pair: Pair, *paths: str) -> bool:
    return any(entry["path"] in paths for entry in pair.config["linux"].get("devices") or ())


def _option(pair: Pair, pattern: str) -> bool:
    return any(re.fullmatch(pattern, option) for options in pair.options for option in options)


def _limited(pair: Pair) -> bool:
    return "RLIMIT_AS" in str(pair.config["process"].get("rlimits"))


def _relative_path(pair: Pair) -> bool:
    parts = [part for entry in pair.env if entry.startswith("PATH=") for part in entry[5:].split(":")]
    return any(not part.startswith("/") for part in parts)


def _without_descriptors(pair: Pair) -> bool:
    return _argument(pair, "--preserve-fds") and not pair.case.caller.get("descriptors")


PYRUNC: tuple[Deviation, ...] = (
    Deviation(
        "a program is found without PATH",
        "runc crun",
        r"step \d+ (?:create|run|exec) rc",
        "config.md#posix-process",
        "args have the semantics of execvp(3), which has a default for an unset PATH",
        lambda pair: done(pair) and no_path(pair),
        r"not found in \$PATH",
    ),
    Deviation(
        "start fails when the program cannot be executed or a startContainer hook fails",
        "runc crun",
        RUN,
        "runtime.md#lifecycle",
        "steps 7 and 8 generate an error; the others have already returned",
        _start_fails,
        r"pyrunc: error: /(?:process/args/0|hooks/startContainer)",
    ),
    Deviation(
        "/proc/self/exe is not the container's program",
        "runc crun",
        RUN,
        "config.md#posix-process",
        "it would execute the runtime's own binary in the container (CVE-2019-5736)",
        lambda pair: pair.program == "/proc/self/exe",
        "pyrunc: error: /process/args/0",
    ),
    Deviation(
        "unbindable roots",
        "runc crun",
        RUN,
        "config-linux.md#rootfs-mount-propagation",
        "a valid value; the others make the root unbindable before they bind masked and read-only paths",
        lambda pair: done(pair) and _unbindable(pair),
        "[Ii]nvalid argument",
    ),
    Deviation(
        "proc, mqueue and sysfs of a user namespace without their own namespaces",
        "runc crun",
        RUN,
        "config.md#mounts",
        "the kernel refuses a new mount; the host's is bound, because a mount of a shared namespace shows the same",
        lambda pair: done(pair) and _foreign_mount(pair),
        r"(?:mqueue|proc|sysfs)\S* to .*[Oo]peration not permitted",
    ),
    Deviation(
        "a mount that the kernel refuses as busy is bound",
        "runc crun",
        RUN,
        "config.md#mounts",
        "the bound tree already contains the same mount; a bind shows what the mount would show",
        lambda pair: done(pair) and _option(pair, "rbind"),
        "[Dd]evice or resource busy",
    ),
    Deviation(
        "binds in a user namespace without what is mounted below",
        "runc crun",
        RUN,
        "config.md#mounts",
        "bind is not recursive; the others bind in the user namespace, where the kernel does not uncover locked mounts",
        lambda pair: done(pair) and pair.has("namespaces.user") and _option(pair, "bind"),
        r"error mounting .*flags=(?!\S*MS_REC)\S*MS_BIND\S*: invalid argument|mount `/\S*` to .*: Invalid argument",
    ),
    Deviation(
        "missing nodes in a bound /dev are an error",
        "runc crun",
        RUN,
        "config-linux.md#devices",
        "they MUST be available, and a created node would stay on the host; the others ignore the entries",
        lambda pair: pair.has("mount.default.dev-bound") and pair.has("linux.devices"),
        "pyrunc: error: .*missing in the directory bound to /dev",
    ),
    Deviation(
        "a terminal in a user namespace with a bound /dev",
        "runc crun",
        RUN,
        "config-linux.md#default-devices",
        "the host's /dev gets no node; the others create /dev/console there, or change the owner of a terminal",
        lambda pair: done(pair) and pair.has("mount.default.dev-bound") and pair.has("process.terminal"),
        r"/dev/console mount target|chown `/dev/pts/",
    ),
    Deviation(
        "real-time signals have names",
        "runc crun",
        r"step \d+ kill rc",
        "runtime.md#kill",
        "the names are not specified; RTMIN+n is the syntax of kill(1)",
        lambda pair: done(pair) and _argument(pair, "RTMIN"),
    ),
    Deviation(
        "filters are for the program, not for the runtime's own calls",
        "runc crun",
        STARTED,
        "config-linux.md#seccomp",
        "create and exec apply the config before the filter is loaded; under some filters the others die",
        lambda pair: done(pair) and pair.has("linux.seccomp"),
        r"already dead|\bset(?:groups|gid|uid|resuid|resgid): |read pipe failed|goroutine|has stopped|rflags",
    ),
    Deviation(
        "seccomp rules that contradict each other",
        "runc crun",
        STARTED,
        "config-linux.md#seccomp",
        "not specified; the first rule for a call and its arguments applies; the others fail with libseccomp's errors",
        lambda pair: done(pair) and pair.has("linux.seccomp"),
        r"error adding seccomp filter rule .*(?:file exists|invalid argument)|seccomp_rule_add.*",
    ),
    Deviation(
        "an update of nothing needs no cgroup",
        "runc crun",
        r"step \d+ update rc",
        "runtime.md#operations",
        "not specified; nothing can fail if the cgroup is gone",
        lambda pair: done(pair) and _command(pair)[1:] in ([{}], []) and before(pair, "cgroup-gone"),
    ),
    Deviation(
        "preserved descriptors that are not open",
        "runc crun",
        r"step \d+ (?:create|run|exec) rc",
        "runtime.md#errors",
        "an error, because the program would find another file; the others check their own descriptors",
        _without_descriptors,
        "pyrunc: error: .*descriptor .* is not open",
    ),
    Deviation(
        "a working directory that is a link to nothing",
        "runc crun",
        RUN,
        "config.md#process",
        "created at the link's target inside the root filesystem, like other missing working directories",
        lambda pair: done(pair) and pair.config["process"]["cwd"] in ("/absolute", "/link", "/missing/deep"),
        r"mkdir .*: file exists|chdir to .*: No such file",
    ),
)

RUNC: tuple[Deviation, ...] = (
    Deviation(
        "runc: exec and run end with 255 when init refused",
        "runc",
        r"step \d+ run rc",
        "runtime.md#errors",
        "the status of a failed operation is not specified",
        lambda pair: (pair.ours, pair.theirs) == (1, 255),
    ),
    Deviation(
        "runc: opens /dev/null of the container",
        "runc",
        RUN,
        "config-linux.md#devices",
        "device rules and the node's mode apply to the program",
        lambda pair: done(pair) and (_device(pair, "/dev/null") or pair.has("linux.resources.devices")),
        "error reopening /dev/null",
    ),
    Deviation(
        "runc: nodes of a user namespace are bound from the same path of the host",
        "runc",
        RUN,
        "config-linux.md#devices",
        "type, major and minor identify the device, and fifos need none",
        lambda pair: done(pair) and pair.has("namespaces.user") and pair.has("linux.devices"),
        "error creating device nodes: mount src=",
    ),
    Deviation(
        "runc: flags that a user namespace locked",
        "runc",
        RUN,
        "config.md#mounts",
        "no option asks to clear the locked flag",
        lambda pair: done(pair) and pair.has("namespaces.user") and pair.has("mount"),
        r"cannot clear locked flags|error mounting \S+/w/src/\w+.*operation not permitted",
    ),
    Deviation(
        "runc: relative elements of PATH",
        "runc",
        r"step \d+ (?:create|run|exec) rc",
        "config.md#posix-process",
        "execvp(3) accepts them; Go's library refuses programs found through them",
        lambda pair: done(pair) and _relative_path(pair),
        "found relative to current directory",
    ),
    Deviation(
        "runc: device rules that a wildcard allows already",
        "runc",
        RUN,
        "config-linux.md#allowed-device-list",
        "a later rule revokes what an earlier one allowed",
        lambda pair: done(pair) and pair.has("linux.resources.devices"),
        "cannot punch hole",
    ),
    Deviation(
        "runc: domainname and its sysctl at once",
        "runc",
        RUN,
        "config-linux.md#sysctl",
        "a contradiction, refused as with crun",
        lambda pair: "domainname" in pair.config and "kernel.domainname" in str(pair.config["linux"]),
        "pyrunc: error: .*kernel.domainname",
    ),
    Deviation(
        "runc: a small address space",
        "runc",
        STARTED,
        "config.md#posix-process",
        "RLIMIT_AS of the program already holds for runc's own init",
        lambda pair: done(pair) and _limited(pair),
        r"cannot allocate memory|out of memory|already dead|runtime: |EOF|reading from parent",
    ),
    Deviation(
        "runc: recursive atime options that contradict each other",
        "runc",
        RUN,
        "config.md#linux-mount-options",
        "the last option about a flag decides",
        lambda pair: done(pair) and _option(pair, ATIME),
        "error mounting .*invalid argument",
    ),
    Deviation(
        "runc: nosymfollow on proc",
        "runc",
        RUN,
        "config.md#linux-mount-options",
        "runc's own lookups through it fail",
        lambda pair: done(pair) and _option(pair, "nosymfollow"),
        "too many levels of symbolic links",
    ),
    Deviation(
        "runc: create fails with its poststart hooks",
        "runc",
        r"step \d+ create rc",
        "config.md#poststart",
        "poststart hooks are called after the program is executed, in start",
        lambda pair: done(pair) and pair.has("hooks.failing.poststart"),
        "error running poststart hook",
    ),
    Deviation(
        "runc: init dies under a filter, and create succeeds",
        "runc",
        r"step \d+ create rc",
        "runtime.md#errors",
        "an error of create, as with crun",
        lambda pair: refused(pair) and pair.has("linux.seccomp"),
        "rflags|pyrunc: error: /process/args/0 ",
    ),
    Deviation(
        "runc: a filter kills exec before its program",
        "runc",
        EXEC,
        "config-linux.md#seccomp",
        "the profile is for the program; it does not cover the runtime's setgroups",
        lambda pair: pair.theirs == 128 + 31 and pair.has("linux.seccomp"),
    ),
    Deviation(
        "runc: kill of a container that has ended",
        "runc",
        r"step \d+ kill rc",
        "runtime.md#kill",
        "an error if the container is neither created nor running",
        lambda pair: (pair.ours, pair.theirs) == ("fails", 0) and not private_pids(pair),
    ),
    Deviation(
        "runc: init of a created container survives signals",
        "runc",
        r"step \d+ \S+ (?:rc|state status|state pid|init|cgroup)",
        "runtime.md#kill",
        "the signal ends the process, unless it is the first one of a pid namespace",
        lambda pair: (
            pair.theirs in (-1, 0, "created", "init", "alive", "/box/c")
            and pair.ours in (255, "fails", "stopped", "none", "gone", "")
            and before(pair, "kill")
            and before(pair, "create")
            and not private_pids(pair)
        ),
    ),
    Deviation(
        "runc: kill without a cgroup",
        "runc",
        r"step \d+ kill rc",
        "runtime.md#kill",
        "without a pid namespace of its own runc looks for all processes in the cgroup, and spares the first one",
        lambda pair: before(pair, "cgroup-gone") and not private_pids(pair),
        "cgroup not exist",
    ),
    Deviation(
        "runc: a paused container whose init was killed cannot be deleted",
        "runc",
        r"step \d+ delete rc",
        "runtime.md#delete",
        "stopped: the container process has exited",
        lambda pair: before(pair, "kill") and before(pair, "pause"),
        "not stopped: paused",
    ),
    Deviation(
        "runc: tmpcopyup of what is mounted below",
        "runc",
        RUN,
        "config.md#linux-mount-options",
        "a mount is not content of the directory, and need not be readable",
        lambda pair: done(pair) and _option(pair, "tmpcopyup"),
        "tmpcopyup: failed to copy",
    ),
    Deviation(
        "runc: a cgroup mount that reaches the host",
        "runc",
        RUN,
        "config-linux.md#rootfs-mount-propagation",
        "a shared root is not shared with the host; with runc the mount in the bound /sys covers the host's cgroups",
        lambda pair: done(pair) and pair.has("mount.cgroup") and bool(pair.config["linux"].get("rootfsPropagation")),
        "cannot get dir FD for /sys/fs/cgroup",
    ),
    Deviation(
        "runc: crashes",
        "runc",
        EXEC,
        "runtime.md#errors",
        "a Go panic has status 2",
        lambda pair: pair.theirs == 2,
        r"main\.main|goroutine",
    ),
)

CRUN: tuple[Deviation, ...] = (
    Deviation(
        "crun: nodes of a user namespace are bound from the same path of the host",
        "crun",
        RUN,
        "config-linux.md#devices",
        "type, major and minor identify the device, and fifos need none",
        lambda pair: done(pair) and pair.has("namespaces.user") and pair.has("linux.devices"),
        r"mount `(/\S+)` to `\1`: No such file",
    ),
    Deviation(
        "crun: exec ends with 1 on errors",
        "crun",
        EXEC,
        "runtime.md#errors",
        "the status of a failed operation is not specified: 255, as with runc",
        lambda pair: (pair.ours, pair.theirs) == (255, 1),
    ),
    Deviation(
        "crun: run ends with 255 when a hook fails",
        "crun",
        r"step \d+ run rc",
        "runtime.md#errors",
        "the status of a failed operation is not specified",
        lambda pair: (pair.ours, pair.theirs) == (1, 255) and pair.has("hooks.failing"),
    ),
    Deviation(
        "crun: flags of exec that it does not have",
        "crun",
        EXEC,
        "runtime.md#operations",
        "runc's flags, which engines use",
        lambda pair: _argument(pair, "--additional-gids") or _argument(pair, "--ignore-paused"),
        "unrecognized option",
    ),
    Deviation(
        "crun: a terminal without a receiver",
        "crun",
        EXEC,
        "runtime.md#errors",
        "--tty with --detach needs --console-socket, and vice versa: refused as with runc",
        lambda pair: refused(pair) and _argument(pair, "--tty"),
        r"console.socket|^\n?$",
    ),
    Deviation(
        "crun: recursive atime options",
        "crun",
        RUN,
        "config.md#linux-mount-options",
        "options that the specification lists",
        lambda pair: done(pair) and _option(pair, ATIME),
        "mount_setattr .*: Invalid argument",
    ),
    Deviation(
        "crun: proc and sysfs only at their usual places",
        "crun",
        RUN,
        "config.md#mounts",
        "any type of file system can be mounted at any destination",
        lambda pair: done(pair) and _of_types(pair, "proc", "sysfs"),
        "must be mounted at the root",
    ),
    Deviation(
        "crun: destinations that are links to nothing",
        "crun",
        RUN,
        "config.md#mounts",
        "the link's target is created inside the root filesystem",
        lambda pair: done(pair) and pair.has("mount"),
        r"creating `.*`: openat2 `.*`: No such file",
    ),
    Deviation(
        "crun: members for other platforms",
        "crun",
        RUN,
        "config.md#platform-specific-configuration",
        "a runtime for Linux has no use for them",
        lambda pair: done(pair) and "windows" in pair.config,
        "layerFolders",
    ),
    Deviation(
        "crun: silent, loud, symfollow and nosymfollow",
        "crun",
        RUN,
        "config.md#linux-mount-options",
        "options that the specification lists; crun passes them to the file system",
        lambda pair: done(pair) and _option(pair, "silent|loud|symfollow|nosymfollow"),
        r"mount `\w+` to `.*`: Invalid argument",
    ),
    Deviation(
        "crun: type bits in fileMode",
        "crun",
        RUN,
        "config-linux.md#devices",
        "a mode as of stat(2), as old engines write it",
        lambda pair: (
            done(pair) and any(entry.get("fileMode", 0) > 0o7777 for entry in pair.config["linux"].get("devices") or ())
        ),
        "mknodat .*: Invalid argument",
    ),
    Deviation(
        "crun: a time namespace",
        "crun",
        RUN,
        "config-linux.md#namespaces",
        "also with a pid namespace that is joined, and in a user namespace",
        lambda pair: done(pair) and pair.has("namespaces.time"),
        r"unshare: Invalid argument|timens_offsets",
    ),
    Deviation(
        "crun: a program that the user may not execute",
        "crun",
        RUN,
        "config.md#posix-process",
        "seen at create, as with runc",
        lambda pair: refused(pair) and "private" in pair.program,
        "pyrunc: error: /process/args/0 .*EACCES",
    ),
    Deviation(
        "crun: flags that a user namespace locked",
        "crun",
        RUN,
        "config.md#mounts",
        "what cannot be applied is an error",
        lambda pair: refused(pair) and pair.has("namespaces.user"),
        "pyrunc: error: .*locked cannot be cleared",
    ),
    Deviation(
        "crun: nodes in a user namespace that the host does not have",
        "crun",
        RUN,
        "config-linux.md#devices",
        "they MUST be available, so it is an error when they are not",
        lambda pair: refused(pair) and pair.has("namespaces.user") and pair.has("linux.devices"),
        "pyrunc: error: .*(?:no node of the host|only the host's own node|is a different device)",
    ),
    Deviation(
        "crun: private roots without pivot_root",
        "crun",
        RUN,
        "config-linux.md#rootfs-mount-propagation",
        "not safe without pivot_root, and refused as with runc",
        lambda pair: refused(pair) and _argument(pair, "--no-pivot"),
        "pyrunc: error: .*together with --no-pivot",
    ),
    Deviation(
        "crun: read-only mounts are made so at the end",
        "crun",
        RUN,
        "config.md#mounts",
        "mounts are made in the listed order: nothing can be created in what is read-only then",
        lambda pair: refused(pair) and pair.has("mount"),
        r"pyrunc: error: /(?:mounts|linux/devices)/\d+.*(?:EROFS|path not found)",
    ),
    Deviation(
        "crun: the cgroup file system of the host is gone",
        "crun",
        r"step \d+ \S+ rc",
        "runtime.md#errors",
        "with cgroup mounts of a container, and with --no-pivot, crun unmounts it; everything after it fails",
        lambda pair: done(pair) and (pair.has("mount.cgroup") or "--no-pivot" in str(pair.case.commands)),
        "/sys/fs/cgroup",
    ),
    Deviation(
        "crun: names of signals in lower case",
        "crun",
        r"step \d+ kill rc",
        "runtime.md#kill",
        "which names there are is not specified",
        lambda pair: done(pair) and _argument(pair, "'term'"),
    ),
    Deviation(
        "crun: pause, resume and update without an effect",
        "crun",
        r"step \d+ (?:pause|resume|update) rc",
        "runtime.md#operations",
        "not specified; an operation that cannot do anything is an error, as with runc",
        lambda pair: (pair.ours, pair.theirs) == ("fails", 0),
        "pyrunc: error: container (?:not paused|not running|is already paused)",
    ),
    Deviation(
        "crun: ps of a container without processes",
        "crun",
        r"step \d+ ps rc",
        "runtime.md#operations",
        "not specified; processes that end are not listed",
        lambda pair: (pair.ours, pair.theirs) == (0, 1),
    ),
    Deviation(
        "crun: a created container does not take signals",
        "crun",
        r"step \d+ \S+ (?:state status|state pid|init|cgroup|rc)",
        "runtime.md#kill",
        "the signal ends it, as with runc",
        lambda pair: before(pair, "kill") and before(pair, "create"),
    ),
    Deviation(
        "crun: proc of a user namespace without a pid namespace of its own",
        "crun",
        RUN,
        "config.md#mounts",
        "the kernel refuses a new mount, and an old one would show other processes; an error, as with runc",
        lambda pair: refused(pair) and _foreign_mount(pair),
        r"pyrunc: error: /mounts/\d+ .*fsconfig: EPERM",
    ),
    Deviation(
        "crun: scheduling is set before the user namespace",
        "crun",
        RUN,
        "config.md#linux-process",
        "by the container's own rights, as with runc: without CAP_SYS_NICE it is an error",
        lambda pair: refused(pair) and pair.has("namespaces.user") and pair.has("process.scheduling"),
        "pyrunc: error: /process/scheduler",
    ),
    Deviation(
        "crun: hangs",
        "crun",
        RUN,
        "runtime.md#errors",
        "the call does not end within the limit",
        lambda pair: pair.theirs == -1,
    ),
    Deviation(
        "crun: the console in a bound /dev",
        "crun",
        RUN,
        "config-linux.md#default-devices",
        "a missing mount point for /dev/console is created, as with runc",
        lambda pair: done(pair) and pair.has("mount.default.dev-bound") and pair.has("process.terminal"),
        "to `/dev/console`: No such file",
    ),
    Deviation(
        "crun: a created container that is paused starts",
        "crun",
        r"step \d+ start rc",
        "runtime.md#start",
        "it is paused until resume, as with runc",
        refused,
        "pyrunc: error: cannot start a container in the paused state",
    ),
)
