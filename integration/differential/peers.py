"""What one of the peers does alone: the other one and pyrunc agree, or have other reasons to differ."""

from __future__ import annotations

import re

from integration.differential.compare import ABSENT
from integration.differential.entries import MOUNT, PROGRAM, Deviation, Pair

STDIO = r"(?:fds|fd_flags|stdio) \d.*"


def _without_duplicates(pair: Pair) -> bool:
    """The environment of a hook less the earlier ones of equal names."""
    if not isinstance(pair.theirs, list):
        return False
    last = {entry.partition("=")[0]: entry for entry in pair.ours}
    return sorted(last.values()) == sorted(pair.theirs)


def _caller_umask(pair: Pair) -> bool:
    """A directory or file of the root filesystem that lacks bits of the caller's umask."""
    return "umask" in pair.case.caller


def _cap_flag(pair: Pair) -> bool:
    return any(command[0] == "exec" and "--cap" in command[1] for command in pair.case.commands)


def _exec_env(pair: Pair) -> bool:
    return any(
        command[0] == "exec" and len(command) > 3 and not command[3].get("env") for command in pair.case.commands
    )


RUN = r"step \d+ (?:create|run|start) rc"

RUNC: tuple[Deviation, ...] = (
    Deviation(
        "runc: stdin of a foreground program is a pipe",
        "runc",
        PROGRAM + r"(?:fds|fd_flags|stdio) 0.*",
        "config.md#posix-process",
        "/dev/null is passed as it is by pyrunc and crun",
        lambda pair: pair.ours == ABSENT or True,
    ),
    Deviation(
        "runc: the group of stdio is not changed",
        "runc",
        PROGRAM + r"stdio [012] gid",
        "config.md#user",
        "not specified; pyrunc and crun give stdio to the user and to the group",
    ),
    Deviation(
        "runc: exec ends with 255 when init refused",
        "runc",
        r"step \d+ run rc",
        "runtime.md#errors",
        "the status of a failed operation is not specified",
        lambda pair: pair.ours == 1 and pair.theirs == 255,
    ),
    Deviation(
        "runc: devices of a user namespace may be executed",
        "runc",
        MOUNT + "(?:options|propagation)",
        "config-linux.md#devices",
        "the bound nodes are noexec and private with pyrunc and crun",
        lambda pair: (
            pair.has("namespaces.user")
            and (pair.ours, pair.theirs) in (("noexec,nosuid,relatime,rw", "nosuid,relatime,rw"), ("", "master:host"))
        ),
    ),
    Deviation(
        "runc: status in hooks",
        "runc",
        r"hook (?:prestart|poststart)-\d stdin status",
        "runtime.md#state",
        "prestart runs after step 2, so the container is created; poststart after step 8, so it is running",
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
        r"hook poststop-\d cwd",
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
        _without_duplicates,
    ),
    Deviation(
        "runc: an empty env of a startContainer hook is the process's",
        "runc",
        r"hook startContainer-\d env",
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
        r"rootfs \S+|" + PROGRAM + r"(?:path \S+ (?:mode|read|names|execute)|cwd_stat)",
        "config.md#mounts",
        "missing mount points are made with the same mode whoever calls",
        _caller_umask,
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
        "umask is set when the process has one, also that of exec",
        lambda pair: any(
            command[0] == "exec" and len(command) > 3 and "umask" in command[3].get("user", {})
            for command in pair.case.commands
        ),
    ),
    Deviation(
        "runc: consoleSize in the foreground",
        "runc",
        "terminal inside tty (?:rows|cols)",
        "config.md#process",
        "consoleSize is the size of the console, not the caller's terminal",
        lambda pair: "consoleSize" in pair.config["process"],
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
        "runc: refuses what pyrunc and crun do",
        "runc",
        RUN,
        "runtime.md#create",
        "the properties are applied",
        lambda pair: pair.ours == 0 and "crun" in pair.company,
    ),
    Deviation(
        "runc: relative elements of PATH",
        "runc",
        r"step \d+ (?:create|run|exec) rc",
        "config.md#posix-process",
        "execvp(3) takes them; Go's library refuses what it finds through them",
        lambda pair: (
            pair.ours == 0
            and any(
                not part.startswith("/")
                for entry in pair.env
                if entry.startswith("PATH=")
                for part in entry[5:].split(":")
            )
        ),
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
        "runc: the null device is made first",
        "runc",
        RUN,
        "config-linux.md#devices",
        "a /dev/null that the device rules or its mode keep runc from opening",
        lambda pair: (
            pair.ours == 0 and any(entry["path"] == "/dev/null" for entry in pair.config["linux"].get("devices") or ())
        ),
    ),
    Deviation(
        "runc: source of a tmpfs without one",
        "runc",
        MOUNT + "is",
        "config.md#mounts",
        "a name that nobody reads",
        lambda pair: (pair.ours, pair.theirs) == ("tmpfs / none", "tmpfs / "),
    ),
)

CRUN: tuple[Deviation, ...] = (
    Deviation(
        "crun: directories of its own in the state root",
        "crun",
        "left state",
        "runtime.md#delete",
        "an empty directory for masks, and a cache",
        lambda pair: pair.ours == [] and set(pair.theirs) <= {".cache", ".empty-directory"},
    ),
    Deviation(
        "crun: masked directories are one of its state root",
        "crun",
        MOUNT + "(?:is|super)",
        "config-linux.md#masked-paths",
        "which file system shows is not specified",
        lambda pair: (
            "/.empty-directory" in str(pair.theirs)
            or str(pair.theirs).startswith("mode=755,rw")
            or pair.theirs == "gid=100000,nr_inodes=1,rw,size=4k,uid=100000"
        ),
    ),
    Deviation(
        "crun: read-only mounts have a writable superblock",
        "crun",
        MOUNT + "super",
        "config.md#mounts",
        "mount(2) with MS_RDONLY makes both read-only; what can be written is the same",
        lambda pair: str(pair.ours).replace("ro", "rw") == str(pair.theirs),
    ),
    Deviation(
        "crun: links to /proc/kcore",
        "crun",
        PROGRAM + r"(?:dev /dev/core|path /dev names)",
        "config-linux.md#dev-symbolic-links",
        "the link is made where its source exists, which it does not here",
        lambda pair: pair.ours == ABSENT or pair.theirs == pair.ours + 1,
    ),
    Deviation(
        "crun: session keyrings",
        "crun",
        PROGRAM + "keyring",
        "config.md#process",
        "not specified; the name and the rights are runc's, and exec joins the container's",
        lambda pair: str(pair.theirs).startswith("keyring;"),
    ),
    Deviation(
        "crun: modes of missing mount points",
        "crun",
        r"rootfs \S+",
        "config.md#mounts",
        "directories get the sticky bit, files are executable; what a failed create made stays",
        lambda pair: str(pair.theirs).startswith(("drwxr-xr-t", "-rwx------")) or pair.theirs == ABSENT,
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
        "crun: exec and run end with 1 on errors",
        "crun",
        r"step \d+ exec rc",
        "runtime.md#errors",
        "the status of a failed operation is not specified: 255, as with runc",
        lambda pair: (pair.ours, pair.theirs) == (255, 1),
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
        "hooks inherit what crun has set for itself",
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
        r"hook (?:createRuntime|createContainer|startContainer)-\d stdin (?:status|bundle|pid)",
        "runtime.md#state",
        "status is creating until create is done; the bundle is a path of the host, the pid is 1",
    ),
    Deviation(
        "crun: working directory of createContainer hooks",
        "crun",
        r"hook createContainer-\d cwd",
        "config.md#posix-platform-hooks",
        "not specified; the root filesystem, as with runc",
    ),
    Deviation(
        "crun: environment of createContainer hooks",
        "crun",
        r"hook createContainer-\d env",
        "config.md#posix-platform-hooks",
        "without env the runtime's own; pyrunc and runc pass none into the container's namespaces",
        lambda pair: pair.ours == [],
    ),
    Deviation(
        "crun: no poststop hooks after a create that failed",
        "crun",
        r"hooks order|hook poststop-\d is there",
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
        PROGRAM + r"(?:caps|nodes|calls) \S+",
        "config.md#linux-process",
        "pyrunc and runc add to the container's",
        _cap_flag,
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
        PROGRAM + "env",
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
        _exec_env,
    ),
    Deviation(
        "crun: the console is a link",
        "crun",
        "terminal inside (?:path /dev/console|mount /dev/console|dev /dev/console|fd_flags|tty onlcr).*",
        "config-linux.md#default-devices",
        "/dev/console is a bind of the pseudoterminal's slave",
    ),
    Deviation(
        "crun: propagation of mounts",
        "crun",
        MOUNT + "propagation",
        "config.md#mounts",
        "private where the kernel's default is that of the source",
        lambda pair: pair.theirs == "",
    ),
    Deviation(
        "crun: the cgroup belongs to the container's root",
        "crun",
        r"step \d+ \S+ owner",
        "config-linux.md#cgroup-ownership",
        "without regard for the mount and the namespace",
        lambda pair: str(pair.theirs).startswith("drwxr-xr-x ") and pair.theirs != "drwxr-xr-x 0:0",
    ),
    Deviation(
        "crun: newest system calls under an allow-list",
        "crun",
        PROGRAM + "calls newest",
        "config-linux.md#seccomp",
        "a call that is newer than the profile does not exist: ENOSYS, as with runc, so that programs fall back",
        lambda pair: pair.ours == 38,
    ),
    Deviation(
        "crun: refuses what pyrunc and runc do",
        "crun",
        RUN,
        "runtime.md#create",
        "the properties are applied",
        lambda pair: pair.ours == 0 and "runc" in pair.company,
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
        r"left lost|step \d+ \S+ .*",
        "runtime.md#errors",
        "seen with cgroup mounts of a container; everything after it fails",
        lambda pair: "cgroup2" in str(pair.theirs) or pair.has("mount.cgroup"),
    ),
    Deviation(
        "crun: mount options that it does not know",
        "crun",
        MOUNT + "options",
        "config.md#linux-mount-options",
        "left out or taken for others",
        lambda pair: bool(re.search(r"nodiratime|relatime|^nodev,noexec,nosuid,relatime,rw$", str(pair.theirs))),
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
)

ALL = RUNC + CRUN
