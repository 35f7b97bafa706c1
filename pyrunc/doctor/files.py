"""The files that a config names: root filesystem, program, mount sources, hooks.

The root filesystem may be hostile. Its links are followed inside it, only the first bytes of a
program are opened, and results are only reported. Changing the files concurrently can only mislead
the reader.
"""

from __future__ import annotations

import os
import stat
from shlex import quote

from pyrunc import explain, fs
from pyrunc.doctor import kernel
from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine
from pyrunc.errors import show
from pyrunc.spec.mappings import is_idmapped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Config
    from pyrunc.spec.validate import HookKind

# Hooks that run in the runtime's namespaces, or before the root changes.
HOST_HOOKS: tuple[HookKind, ...] = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
SPECIAL_TYPES = {"none", "cgroup"}  # the latter is the unified hierarchy (ADR 8)


def check(machine: Machine, area: Area, bundle: str, config: Config) -> None:
    """Everything of a config that must exist before a create."""
    path = config["root"]["path"]
    root = fs.normpath(fs.join(bundle, path)) if path else ""
    if root and root_filesystem(machine, area, root, config):
        program(machine, area, root, config)
    mounts(machine, area, bundle, config)
    hooks(machine, area, config)


def root_filesystem(machine: Machine, area: Area, root: str, config: Config) -> bool:
    """The root must be a directory from which programs can be executed."""
    found = machine.stat(root)
    if found is None or not stat.S_ISDIR(found.st_mode):
        what = "does not exist" if found is None else "is not a directory"
        area.problem(
            "root",
            f"/root/path: {show(root)} {what}",
            "create fails",
            f"pyrunc unpack IMAGE {quote(root.rpartition('/')[0])}",
        )
        return False
    flags = os.statvfs(machine.place(root)).f_flag
    if flags & os.ST_NOEXEC:
        means = "none of its programs can be executed (EACCES)"
        area.problem("root", f"{root} is on a mount with noexec", means, remount(machine, root, "exec"))
    elif flags & os.ST_RDONLY and not config["root"].get("readonly"):
        means = "the container cannot write to it, though /root/readonly is not set"
        area.note("root", f"{root} is on a read-only mount", means, remount(machine, root, "rw"))
    elif flags & os.ST_NOSUID:
        means = "set-user-ID programs, such as sudo, do nothing in the container"
        area.note("root", f"{root} is on a mount with nosuid", means, remount(machine, root, "suid"))
    else:
        area.ok("root", root)
    return True


def remount(machine: Machine, path: str, option: str) -> str:
    """The command that changes a mount option of the mount that contains a path."""
    best = "/"
    for fields in machine.mounts():
        if (path + "/").startswith(fields[4].rstrip("/") + "/"):
            best = max(best, fields[4], key=len)
    return f"mount -o remount,{option} {quote(best)}"


# -- the program -----------------------------------------------------------------------------------


def program(machine: Machine, area: Area, root: str, config: Config) -> None:
    """/process/args/0 must exist, be executable and match this machine, unless a mount of the
    config covers it."""
    process = config.get("process")
    if process is None:
        return
    name = process["args"][0]
    covers = [mount["destination"].rstrip("/") + "/" for mount in config.get("mounts") or ()]
    listed = [fs.normpath(path) for path in explain.candidates(process, name)]
    with explain.Tree(explain.Setting(config, process, machine.place(root))) as tree:
        for candidate in listed:
            if any((candidate + "/").startswith(place) for place in covers):
                return  # depends on a mount
            if not tree.find(candidate):
                continue
            if any((tree.path + "/").startswith(place) for place in covers):
                return
            found = os.fstat(tree.fd)
            if stat.S_ISREG(found.st_mode):
                judge(machine, area, root, tree, found)
                return
    where = listed[0] if len(listed) == 1 else "any directory of PATH"
    means = "create fails: executable file not found"
    area.problem("program", f"/process/args/0 {show(name)} is not in {where} of the root filesystem", means, "")


def judge(machine: Machine, area: Area, root: str, tree: explain.Tree, found: os.stat_result) -> None:
    """A regular file: its mode, and its first bytes."""
    path = tree.path
    if not found.st_mode & 0o111:
        means = "create fails: permission denied"
        area.problem(
            "program", f"{path} has mode {stat.S_IMODE(found.st_mode):04o}", means, f"chmod +x {quote(root + path)}"
        )
        return
    try:
        head = tree.read(0, explain.HEAD)
    except OSError:
        head = b""  # not readable for the caller
    if head[:2] == b"#!":
        name = explain.interpreter_of(head)
        if not (name and tree.find(name) and stat.S_ISREG(os.fstat(tree.fd).st_mode)):
            means = "start fails: no such file or directory, although the script exists"
            area.problem("program", f"{path}: its interpreter {show(name)} does not exist", means, "")
            return
    elif head[:4] == b"\x7fELF" and len(head) > 19:
        number, arch = explain.machine_of(head), machine.facts.arch
        if number not in explain.NATIVE.get(arch, (number,)) and not emulated(machine):
            seen = f"{path} is for {explain.MACHINES.get(number, f'machine {number}')}, this machine is {arch}"
            mend = "use an image of this architecture, or install qemu-user-static"
            area.problem("program", seen, "start fails: exec format error", mend)
            return
    elif head:
        means = "start fails: exec format error"
        area.problem("program", f"{path} is neither an ELF program nor a script with #!", means, "")
        return
    area.ok("program", path)


def emulated(machine: Machine) -> bool:
    """Whether binfmt_misc has an emulator; which programs it accepts is not parsed."""
    place = "/proc/sys/fs/binfmt_misc"
    return any(name.startswith("qemu-") for name in machine.names(place, 200))


# -- mounts and hooks ------------------------------------------------------------------------------


def mounts(machine: Machine, area: Area, bundle: str, config: Config) -> None:
    """Bind sources must exist, types must be known, and idmapped sources must support it."""
    known = {line.split("\t")[-1] for line in machine.text("/proc/filesystems").split("\n")}
    bad = 0
    tried: set[int] = set()
    listed = config.get("mounts") or ()
    for index, mount in enumerate(listed):
        options = mount.get("options") or ()
        pointer = f"/mounts/{index}"
        source = mount.get("source") or ""
        if "bind" in options or "rbind" in options or mount.get("type") == "bind":
            source = fs.normpath(fs.join(bundle, source))
            found = machine.stat(source)
            if found is None:
                bad += 1
                area.problem(
                    "mounts",
                    f"{pointer}/source {show(source)} does not exist",
                    "create fails",
                    f"mkdir -p {quote(source)}",
                )
            elif is_idmapped(mount) and found.st_dev not in tried:
                tried.add(found.st_dev)  # once per filesystem
                kernel.idmapped_mounts(machine, area, source, "mounts")
        elif mount.get("type") and mount["type"] not in known | SPECIAL_TYPES:
            bad += 1
            means = "create fails (ENODEV) unless the kernel can load a module of this name"
            area.note(
                "mounts",
                f"{pointer}/type {show(mount['type'])} is not known",
                means,
                f"modprobe {quote(mount['type'])}",
            )
    if listed and not bad:
        area.ok("mounts", f"the sources and types of all {len(listed)}")


def hooks(machine: Machine, area: Area, config: Config) -> None:
    """Hooks that run on the host's files must be programs there."""
    listed, bad = 0, 0
    for kind in HOST_HOOKS:
        for index, hook in enumerate(config.get("hooks", {}).get(kind, ())):
            listed += 1
            path = hook["path"]
            if not machine.is_program(path):
                bad += 1
                means = "delete reports it" if kind == "poststop" else "create or start fails"
                seen = f"/hooks/{kind}/{index}/path {show(path)} cannot be executed"
                area.problem("hooks", seen, means, f"chmod +x {quote(path)}" if machine.exists(path) else "")
    if listed and not bad:
        area.ok("hooks", f"the programs of all {listed}")
