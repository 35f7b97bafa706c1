"""What pyrunc alone does, and why: each entry as narrow as it can be, with the section that decides.

`runc.py` and `crun.py` have what one of the peers does alone.
"""

from __future__ import annotations

import re
from typing import Any

from integration.differential.compare import ABSENT
from integration.differential.entries import MOUNT, PROGRAM, Deviation, Pair
from integration.differential.model import HOOKS

MASKED_DIRECTORY = re.compile(r"(gid=\d+,)?mode=555,nr_inodes=1,ro,size=4k(,uid=\d+)?")
# Programs of the root filesystem that are found at create, and that the kernel refuses to execute.
NOT_EXECUTED = ("badscript", "noformat", "empty")


def _words(text: Any) -> set[str]:
    return set(str(text).split(","))


def _masked_directory(pair: Pair) -> bool:
    hidden = {"nosuid", "nodev", "noexec"}
    return bool(pair.config["linux"].get("maskedPaths")) and _words(pair.ours) == _words(pair.theirs) | hidden


def _masked_file(pair: Pair) -> bool:
    """A node of /dev: ours read-only and noexec, theirs with what its mount has."""
    masked = bool(pair.config["linux"].get("maskedPaths"))
    theirs = {"nosuid", "relatime", "noexec", "ro", "rw", "noatime"}
    return masked and pair.ours == "noexec,nosuid,relatime,ro" and _words(pair.theirs) <= theirs


def _no_path(pair: Pair) -> bool:
    """The program is looked up, and no variable PATH says where."""
    envs = [(pair.program, pair.env)]
    for command in pair.case.commands:
        if command[0] == "exec" and len(command) > 3 and command[3]:
            envs.append((command[3]["args"][0], command[3].get("env") or []))
        elif command[0] == "exec":
            envs.append((command[2][0], pair.env))
    return any("/" not in name and not any(entry.startswith("PATH=") for entry in env) for name, env in envs)


def _is_not_executed(pair: Pair) -> bool:
    return pair.program.rpartition("/")[2] in NOT_EXECUTED


def _start_fails(pair: Pair) -> bool:
    filtered = pair.has("linux.seccomp") and "startContainer" in (pair.config.get("hooks") or ())
    failing = pair.has("hooks.failing.startContainer") or _is_not_executed(pair) or filtered
    return failing and pair.ours in ("fails", 1) and pair.theirs in (0, 255)


def _parents(pair: Pair) -> bool:
    """Only parents of the container's cgroup are left by the other."""
    path = (pair.config["linux"].get("cgroupsPath") or "").strip("/")
    return pair.ours == [] and all(path.startswith(f"{entry}/") for entry in pair.theirs)


def _realtime(pair: Pair) -> bool:
    step = int(pair.fact.split()[1])
    return any("RTMIN" in str(word) for word in pair.case.commands[step])


def _busy_cgroup(pair: Pair) -> bool:
    """A cgroup mount where the host's is already seen, or without a cgroup namespace."""
    destinations = [
        entry["destination"] for entry in pair.config["mounts"] if entry.get("type") in ("cgroup", "cgroup2")
    ]
    return bool(destinations) and any("rbind" in options for options in pair.options)


def _cgroup_left(pair: Pair) -> bool:
    return any(command[0] == "cgroup-gone" for command in pair.case.commands)


def _empty_home(pair: Pair) -> bool:
    """The user's entry in passwd has no home directory."""
    return "HOME=" in pair.theirs and [
        entry.replace("HOME=/", "HOME=") if entry == "HOME=/" else entry for entry in pair.ours
    ] == list(pair.theirs)


def _same_hooks(pair: Pair) -> bool:
    """The same hooks have run, and ours are in the order of the specification."""
    ours = [HOOKS.index(name.split("-")[1]) for name in pair.ours]
    return sorted(pair.ours) == sorted(pair.theirs) and ours == sorted(ours)


def _refused_first(pair: Pair) -> bool:
    """Capabilities that the kernel would refuse, when hooks have run and nodes were made for the others."""
    return pair.ours in ([], ABSENT) and pair.has("process.capabilities.free")


def _owned(pair: Pair) -> bool:
    """A cgroup mount that is writable, in a private cgroup namespace, of a user other than root."""
    config = pair.config
    writable = any(
        entry.get("type") in ("cgroup", "cgroup2") and "ro" not in (entry.get("options") or [])
        for entry in config["mounts"]
        if entry["destination"] == "/sys/fs/cgroup"
    )
    private = any(entry["type"] == "cgroup" for entry in config["linux"]["namespaces"])
    return writable and private and config["process"]["user"]["uid"] != 0


def _twice(pair: Pair) -> bool:
    """A path is listed twice in readonlyPaths or maskedPaths, maybe by another name."""
    linux = pair.config["linux"]
    paths = [*(linux.get("readonlyPaths") or ()), *(linux.get("maskedPaths") or ())]
    return pair.ours == ABSENT and len(paths) > len(set(paths))


def _exec_process(name: str) -> Any:
    def given(pair: Pair) -> bool:
        processes = [command[3] for command in pair.case.commands if command[0] == "exec" and len(command) > 3]
        return any(process and name in process for process in processes)

    return given


def _unbindable(pair: Pair) -> bool:
    return "unbindable" in (pair.config["linux"].get("rootfsPropagation") or "")


def _foreign_mount(pair: Pair) -> bool:
    """An mqueue or sysfs of a user namespace without the namespace that it shows."""
    linux = pair.config["linux"]
    own = {entry["type"] for entry in linux["namespaces"] if not entry.get("path")}
    return "user" in {entry["type"] for entry in linux["namespaces"]} and not {"ipc", "network", "pid"} <= own


RUN = r"step \d+ (?:create|run|start) rc"

ALL: tuple[Deviation, ...] = (
    Deviation(
        "masked directories are nosuid, nodev and noexec",
        "runc crun",
        MOUNT + "options",
        "config-linux.md#masked-paths",
        "an empty read-only directory; the flags cost nothing and leave nothing to use",
        _masked_directory,
    ),
    Deviation(
        "masked files are read-only and noexec",
        "runc crun",
        MOUNT + "options",
        "config-linux.md#masked-paths",
        "what masks is the host's /dev/null, whose owner and mode must not be changed through it",
        _masked_file,
    ),
    Deviation(
        "masks are other file systems",
        "runc crun",
        MOUNT + "super",
        "config-linux.md#masked-paths",
        "a tmpfs of one inode for directories, the host's /dev/null for files; which one shows is not specified",
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
        "nobody can write there, and the mode says so",
        lambda pair: pair.ours in (0o555, "d 0555 0:0") and pair.theirs in (0o1777, 0o755, "d 1777 0:0", "d 0755 0:0"),
    ),
    Deviation(
        "compiled seccomp profiles are kept",
        "runc crun",
        "left files",
        "runtime.md#delete",
        "a cache in a directory of root's, not a resource of the container",
        lambda pair: (
            all(
                path.startswith("/run/pyrunc.seccomp") and text.startswith(("-rw------- 0:0", "drwx------ 0:0"))
                for path, text in pair.ours.items()
            )
            and not pair.theirs
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
        "a program is found without PATH",
        "runc crun",
        r"step \d+ (?:create|run|exec) rc",
        "config.md#posix-process",
        "args have the semantics of execvp(3), which has a default where PATH is not set",
        lambda pair: pair.ours == 0 and _no_path(pair),
    ),
    Deviation(
        "start fails when the program cannot be executed or a startContainer hook fails",
        "runc crun",
        RUN,
        "runtime.md#lifecycle",
        "steps 7 and 8 generate an error; the others have returned by then",
        _start_fails,
    ),
    Deviation(
        "no poststart hook without a program",
        "runc crun",
        r"hooks order|hook poststart-\d is there|hook poststop-\d is there|hook startContainer-\d is there",
        "config.md#poststart",
        "poststart hooks are called after the program is executed, which it never was",
        lambda pair: _is_not_executed(pair) or pair.has("hooks.failing.startContainer"),
    ),
    Deviation(
        "poststop hooks go on after one that fails",
        "runc crun",
        r"hooks order|hook poststop-1(?:#\d)? .*|step \d+ delete rc|force",
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
        r"hooks order|hook \S+ is there|rootfs \S+|left sources",
        "runtime.md#create",
        "the runtime MAY validate config.json before it creates the container",
        _refused_first,
    ),
    Deviation(
        "HOME is / for users without a home directory",
        "runc crun",
        PROGRAM + r"env|hook startContainer-\d env",
        "config.md#posix-process",
        "not specified; an empty HOME is of no use to a shell, and login(1) takes / as well",
        _empty_home,
    ),
    Deviation(
        "a writable cgroup belongs to the container's user",
        "runc crun",
        r"step \d+ \S+ owner|" + PROGRAM + r"path /sys/fs/cgroup\S* (?:uid|write)",
        "config-linux.md#cgroup-ownership",
        "the owner SHOULD be the host's uid of the container's user; the others give it to nobody or to root",
        _owned,
    ),
    Deviation(
        "paths that are listed twice are covered once",
        "runc crun",
        MOUNT + ".*",
        "config-linux.md#masked-paths",
        "a second mount on top of the first hides nothing more",
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
        "/proc/self/exe is not the container's program",
        "runc crun",
        RUN,
        "config.md#posix-process",
        "it would execute the runtime's own binary in the container (CVE-2019-5736)",
        lambda pair: pair.program == "/proc/self/exe",
    ),
    Deviation(
        "unbindable roots",
        "runc crun",
        RUN,
        "config-linux.md#rootfs-mount-propagation",
        "a valid value; the others bind masked and read-only paths after they have made the root unbindable",
        lambda pair: pair.ours == 0 and _unbindable(pair),
    ),
    Deviation(
        "binds stay slaves whatever rootfsPropagation says",
        "runc crun",
        MOUNT + "propagation",
        "config-linux.md#rootfs-mount-propagation",
        "the field is about the root; a bind that is shared with the host only because of it would reach the host",
        lambda pair: (
            "shared:host" in str(pair.theirs)
            and "shared:host" not in str(pair.ours)
            and bool(pair.config["linux"].get("rootfsPropagation"))
        ),
    ),
    Deviation(
        "mqueue and sysfs of a user namespace without their own namespaces",
        "runc crun",
        RUN,
        "config.md#mounts",
        "the kernel refuses a new mount; the host's is bound, as the mount of a shared namespace shows the same",
        lambda pair: pair.ours == 0 and _foreign_mount(pair),
    ),
    Deviation(
        "real-time signals have names",
        "runc crun",
        r"step \d+ kill rc",
        "runtime.md#kill",
        "which names there are is not specified; RTMIN+n is what kill(1) takes",
        lambda pair: pair.ours == 0 and _realtime(pair),
    ),
    Deviation(
        "a cgroup mount that is refused as busy is bound",
        "runc crun",
        RUN,
        "config-linux.md#cgroup-ownership",
        "the bind shows what the mount would have shown",
        lambda pair: pair.ours == 0 and _busy_cgroup(pair),
    ),
    Deviation(
        "ps and delete --force of a container that left its cgroup",
        "runc crun",
        r"step \d+ ps rc|left (?:processes|state)|force",
        "runtime.md#delete",
        "the first process is still known by its pid: it is listed, and delete --force ends it",
        _cgroup_left,
    ),
    Deviation(
        "pid of a failing poststart hook's container",
        "runc crun",
        r"hook poststart-\d stdin pid",
        "runtime.md#state",
        "the others report no pid file for it, so the number is not known here",
        lambda pair: pair.ours == "init" and pair.has("hooks.failing.poststart"),
    ),
    Deviation(
        "missing nodes in a bound /dev are an error",
        "runc crun",
        RUN,
        "config-linux.md#devices",
        "they MUST be available, and what would be created would stay on the host; the others ignore the entries",
        lambda pair: pair.ours in (1, "fails") and pair.has("mount.default.dev-bound") and pair.has("linux.devices"),
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
        "it is stopped, which may be before its program has written anything or ended",
        lambda pair: pair.has("hooks.failing.poststart"),
    ),
    Deviation(
        "an exec is set up before its filter",
        "runc crun",
        r"step \d+ exec rc",
        "config-linux.md#seccomp",
        "the profile is for the program; setgroups of the runtime is not subject to it",
        lambda pair: pair.has("linux.seccomp") and pair.theirs in (1, 255),
    ),
    Deviation(
        "hooks have the umask 022",
        "runc crun",
        r"hook (?:createContainer|startContainer)-\d(?:#\d)? umask",
        "config.md#posix-platform-hooks",
        "not specified; the same for all hooks, whatever the caller's and the process's are",
        lambda pair: pair.ours == 0o022,
    ),
    Deviation(
        "tmpcopyup leaves out what is mounted below",
        "runc crun",
        PROGRAM + r"path \S+ \S+",
        "config.md#linux-mount-options",
        "it is not content of the directory, and can be a whole procfs",
        lambda pair: sum("tmpcopyup" in options for options in pair.options) > 0 and len(pair.config["mounts"]) > 7,
    ),
    Deviation(
        "seccomp rules that contradict each other",
        "runc crun",
        RUN,
        "config-linux.md#seccomp",
        "not specified; the first rule for a call and its arguments holds, where libseccomp's errors end the others",
        lambda pair: pair.ours == 0 and pair.has("linux.seccomp"),
    ),
    Deviation(
        "cgroup2 in a joined cgroup namespace",
        "runc crun",
        PROGRAM + r"path /\S*cgroup\S* \S+",
        "config-linux.md#namespaces",
        "the processes of that namespace's root, which are the harness's",
        lambda pair: "cgroup" in pair.case.caller.get("namespaces", ()),
    ),
)
