"""The files that a config names: root filesystem, program, sources of mounts, hooks.

The root filesystem may be hostile.  Its links are followed inside of it, nothing of it is opened but a program's first
bytes, and what is found is only reported: whoever changes it meanwhile deceives nobody but the reader.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from shlex import quote
from typing import Any

from pyrunc import fs
from pyrunc.doctor import kernel
from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine
from pyrunc.errors import show

LINKS_MOST = 40  # as the kernel
HEAD = 256  # bytes of a program; an interpreter's line may be that long (BINPRM_BUF_SIZE)
# e_machine of elf(5) that a kernel of an architecture can execute, its 32-bit one included
MACHINES = {"x86_64": (62, 3), "aarch64": (183, 40)}
NAMES = {
    3: "i386",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390",
    40: "arm",
    62: "x86_64",
    183: "aarch64",
    243: "riscv",
}
# What runs in the runtime's namespaces, or before the root is changed.
HOST_HOOKS = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
SPECIAL_TYPES = {"none", "cgroup"}  # the latter is the unified hierarchy (ADR 8)
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def check(machine: Machine, area: Area, bundle: str, config: dict[str, Any]) -> None:
    """Everything of a config that has to be there before a create."""
    path = (config.get("root") or {}).get("path") or ""
    root = fs.normpath(fs.join(bundle, path)) if path else ""
    if root and root_filesystem(machine, area, root, config):
        program(machine, area, root, config)
    mounts(machine, area, bundle, config)
    hooks(machine, area, config)


def root_filesystem(machine: Machine, area: Area, root: str, config: dict[str, Any]) -> bool:
    """A directory, from which programs may be executed."""
    found = machine.stat(root)
    if found is None or not stat.S_ISDIR(found.st_mode):
        what = "is not there" if found is None else "is not a directory"
        area.problem(
            "root",
            f"/root/path: {show(root)} {what}",
            "create fails",
            f"pyrunc unpack IMAGE {quote(root.rpartition('/')[0])}",
        )
        return False
    flags = os.statvfs(machine.place(root)).f_flag
    if flags & os.ST_NOEXEC:
        means = "no program of it can be executed (EACCES)"
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
    """The command that changes an option of the mount that a path is on."""
    best = "/"
    for fields in machine.mounts():
        if (path + "/").startswith(fields[4].rstrip("/") + "/"):
            best = max(best, fields[4], key=len)
    return f"mount -o remount,{option} {quote(best)}"


# -- the program ------------------------------------------------------------------------------------------------------


def program(machine: Machine, area: Area, root: str, config: dict[str, Any]) -> None:
    """/process/args/0: there, executable, and for this machine; as far as no mount of the config covers it."""
    process = config.get("process") or {}
    name = (process.get("args") or [""])[0]
    if not name:
        return
    covers = [mount["destination"].rstrip("/") + "/" for mount in config.get("mounts") or ()]
    candidates = look_up(name, process)
    for candidate in candidates:
        if any((candidate + "/").startswith(place) for place in covers):
            return  # a mount decides
        found, seen = inside(machine.place(root), candidate)
        if found is not None and any((seen + "/").startswith(place) for place in covers):
            return
        if found is not None and stat.S_ISREG(found.st_mode):
            judge(machine, area, root, seen, found)
            return
    where = candidates[0] if len(candidates) == 1 else "any directory of PATH"
    means = "create fails: executable file not found"
    area.problem("program", f"/process/args/0 {show(name)} is not in {where} of the root filesystem", means, "")


def look_up(name: str, process: dict[str, Any]) -> list[str]:
    """The paths that execvp(3) would try, inside the container."""
    if "/" in name:
        return [fs.normpath(fs.join(process.get("cwd") or "/", name))]
    env = process.get("env") or ()
    path = next((entry for entry in reversed(env) if entry.startswith("PATH=")), DEFAULT_PATH)
    return [fs.normpath(f"/{place}/{name}") for place in path[5:].split(":")[:64]]


def inside(root: str, path: str) -> tuple[os.stat_result | None, str]:
    """What a path leads to with ``root`` as the root directory, and its path there; None when it leads nowhere."""
    todo = path.split("/")[::-1]
    done: list[str] = []
    links = 0
    while todo:
        part = todo.pop()
        if part in ("", ".", ".."):
            if part == ".." and done:
                done.pop()
            continue
        here = "/".join([root, *done, part])
        try:
            mode = os.lstat(here).st_mode
            target = os.readlink(here) if stat.S_ISLNK(mode) else ""
        except (OSError, ValueError):
            return None, path
        if not target:
            done.append(part)
            continue
        links += 1
        if links > LINKS_MOST:
            return None, path
        if target.startswith("/"):
            done = []
        todo += target.split("/")[::-1]
    try:
        return os.lstat("/".join([root, *done])), "/" + "/".join(done)
    except (OSError, ValueError):
        return None, path


def judge(machine: Machine, area: Area, root: str, path: str, found: os.stat_result) -> None:
    """A regular file: its mode, and what its first bytes say."""
    if not found.st_mode & 0o111:
        means = "create fails: permission denied"
        area.problem(
            "program", f"{path} has mode {stat.S_IMODE(found.st_mode):04o}", means, f"chmod +x {quote(root + path)}"
        )
        return
    head = first_bytes(machine.place(root + path))
    if head[:2] == b"#!":
        interpreter = head[2:].split(b"\n")[0].split()[:1]
        name = interpreter[0].decode("utf-8", "surrogateescape") if interpreter else ""
        target = inside(machine.place(root), name)[0] if name else None
        if target is None or not stat.S_ISREG(target.st_mode):
            means = "start fails: no such file or directory, though the script is there"
            area.problem("program", f"{path}: its interpreter {show(name)} is not there", means, "")
            return
    elif head[:4] == b"\x7fELF" and len(head) > 19:
        number = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
        if number not in MACHINES.get(machine.facts.arch, (number,)) and not emulated(machine):
            seen = f"{path} is for {NAMES.get(number, f'machine {number}')}, this machine is {machine.facts.arch}"
            mend = "use an image of this architecture, or install qemu-user-static"
            area.problem("program", seen, "start fails: exec format error", mend)
            return
    elif head:
        means = "start fails: exec format error"
        area.problem("program", f"{path} is neither an ELF program nor a script with #!", means, "")
        return
    area.ok("program", path)


def first_bytes(path: str) -> bytes:
    """The beginning of a file, b"" when it cannot be read; a link in its place is not followed."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return b""
    try:
        return os.read(fd, HEAD)
    except OSError:
        return b""
    finally:
        os.close(fd)


def emulated(machine: Machine) -> bool:
    """Whether an emulator is registered with binfmt_misc: which programs it takes is not worth the parsing."""
    place = "/proc/sys/fs/binfmt_misc"
    return any(name.startswith("qemu-") for name in machine.names(place, 200))


# -- mounts and hooks -------------------------------------------------------------------------------------------------


def mounts(machine: Machine, area: Area, bundle: str, config: dict[str, Any]) -> None:
    """Sources of binds are there, types are known, idmapped ones can be mapped."""
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
                    f"{pointer}/source {show(source)} is not there",
                    "create fails",
                    f"mkdir -p {quote(source)}",
                )
            elif mapped(mount, options) and found.st_dev not in tried:
                tried.add(found.st_dev)  # once for each filesystem
                kernel.idmapped_mounts(machine, area, source, "mounts")
        elif mount.get("type") and mount["type"] not in known | SPECIAL_TYPES:
            bad += 1
            means = "create fails (ENODEV), unless the kernel can load a module of this name"
            area.note(
                "mounts",
                f"{pointer}/type {show(mount['type'])} is not known",
                means,
                f"modprobe {quote(mount['type'])}",
            )
    if listed and not bad:
        area.ok("mounts", f"the sources and types of all {len(listed)}")


def mapped(mount: dict[str, Any], options: Sequence[str]) -> bool:
    """Whether a bind mount is idmapped."""
    return bool(mount.get("uidMappings") or "idmap" in options or "ridmap" in options)


def hooks(machine: Machine, area: Area, config: dict[str, Any]) -> None:
    """Hooks that run with the host's files must be programs there."""
    listed, bad = 0, 0
    for kind in HOST_HOOKS:
        for index, hook in enumerate((config.get("hooks") or {}).get(kind) or ()):
            listed += 1
            path = hook["path"]
            if not machine.is_program(path):
                bad += 1
                means = "delete reports it" if kind == "poststop" else "create or start fails"
                seen = f"/hooks/{kind}/{index}/path {show(path)} cannot be executed"
                area.problem("hooks", seen, means, f"chmod +x {quote(path)}" if machine.exists(path) else "")
    if listed and not bad:
        area.ok("hooks", f"the programs of all {listed}")
