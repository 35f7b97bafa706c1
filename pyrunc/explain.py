"""Explain why a program could not be executed. Only loaded on failure.

The kernel has one errno for a dozen causes. The file is inspected from outside: below the root
filesystem on the host, which lacks the container's mounts, or below /proc/PID/root of a running
container. No lookup leaves that directory, only regular files are opened, and at most one page of
each is read.
"""

from __future__ import annotations

import posix
from errno import EACCES, ELOOP, ENOENT, ENOEXEC, EPERM

from pyrunc import fs
from pyrunc.errors import show
from pyrunc.native import processes
from pyrunc.plan.environment import DEFAULT_PATH
from pyrunc.plan.tools import PLACE, search_path
from pyrunc.signals import SIGKILL
from pyrunc.spec.mappings import has_host_id, host_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.spec.types import Config, Linux, Mount, Process, Seccomp

MAX_LINKS = 40  # as in the kernel: MAXSYMLINKS
HEAD = 4096
_TEXT_MAX = 8192  # of an explanation: one write to a pipe
_PATIENCE_MS = 1000
_TYPE, _DIRECTORY, _REGULAR, _LINK = 0o170000, 0o040000, 0o100000, 0o120000
_PATH = posix.O_PATH | posix.O_CLOEXEC
_INTERPRETER_MAX = 4096
# The usual names of EM_* (elf.h).
MACHINES = {
    2: "SPARC", 3: "i386", 8: "MIPS", 20: "PowerPC", 21: "ppc64", 22: "s390x", 40: "arm", 43: "SPARC v9",
    62: "x86_64", 183: "aarch64", 243: "riscv64", 258: "loongarch64",
}  # fmt: skip
NATIVE = {"x86_64": (62, 3), "aarch64": (183, 40)}


class Setting:
    """Where and as which user a program should have run."""

    __slots__ = ("linux", "mounts", "process", "root")

    def __init__(self, config: Config, process: Process, root: str) -> None:
        self.process = process
        self.linux: Linux = config.get("linux", {})
        self.mounts = config.get("mounts", [])
        self.root = root  # a path on the host

    def ids(self) -> tuple[int, int]:
        """The uid and gid of the process, on the host."""
        user = self.process.get("user", {})
        uid = host_id(self.linux.get("uidMappings"), user.get("uid", 0))
        return uid, host_id(self.linux.get("gidMappings"), user.get("gid", 0))

    def additional_gids(self) -> list[int]:
        """The additional gids of the process, on the host."""
        gids = self.process.get("user", {}).get("additionalGids", ())
        return [host_id(self.linux.get("gidMappings"), gid) for gid in gids]

    def owns(self, found: posix.stat_result) -> bool:
        """Whether capabilities of the process apply to a file: its owner and group must be mapped.

        Kernel: capable_wrt_inode_uidgid.
        """
        return has_host_id(self.linux.get("uidMappings"), found.st_uid) and has_host_id(
            self.linux.get("gidMappings"), found.st_gid
        )


def bounded(setting: Setting, name: str, error: int) -> str:
    """`program` in a child with a time limit: a filesystem of the container may never answer.

    Raises OSError.
    """
    from select import POLLIN, poll

    ours, theirs = posix.pipe2(posix.O_CLOEXEC)
    try:
        pid = posix.fork()
        if pid == 0:
            try:
                posix.write(theirs, program(setting, name, error).encode("utf-8", "surrogateescape"))
            finally:
                posix._exit(0)
        posix.close(theirs)
        theirs = -1
        poller = poll()
        poller.register(ours, POLLIN)
        text = posix.read(ours, _TEXT_MAX) if poller.poll(_PATIENCE_MS) else b""
        posix.kill(pid, SIGKILL)
        try:
            processes.await_end(pid, _PATIENCE_MS)
            posix.waitpid(pid, 0)
        except OSError:
            pass  # it is stuck in the kernel, and ends when that lets it
    finally:
        posix.close(ours)
        if theirs >= 0:
            posix.close(theirs)
    return text.decode("utf-8", "surrogateescape")


def program(setting: Setting, name: str, error: int) -> str:
    """Why executing ``name`` (args[0], or its path) failed with an errno; "" if unknown.

    Raises OSError.
    """
    if error not in (ENOENT, EACCES, ENOEXEC):
        return _seccomp(setting.linux["seccomp"], error) if "seccomp" in setting.linux else ""
    with Tree(setting) as tree:
        for path in candidates(setting.process, name):
            if tree.find(path):
                found = _denied(tree, path) if error == EACCES else _format(tree)
            else:
                # It may be in a mount of the container.
                found = _noexec(tree.mounts, path) if error == EACCES else ""
            if found:
                return found
        if error == ENOENT and tree.fd < 0:
            return _missing(tree, setting.process, name)
    return ""


def candidates(process: Process, name: str) -> list[str]:
    """The absolute paths that execvp(3) tries, inside the container."""
    cwd = process.get("cwd", "/")
    if "/" in name:
        return [fs.join(cwd, name)]
    return [fs.join(fs.join(cwd, directory), name) for directory in _path(process).split(":")[:64]]


def _path(process: Process) -> str:
    """The variable PATH; the last entry wins."""
    found = DEFAULT_PATH
    for entry in process.get("env", ()):
        if entry.startswith("PATH="):
            found = entry[5:]
    return found


def _missing(tree: Tree, process: Process, name: str) -> str:
    """ENOENT for a missing file: the directory that is missing, or where it was looked up."""
    if "/" not in name:
        path = _path(process)
        tools = f", where {PLACE} is the directory of --tools" if path.startswith(search_path("")) else ""
        return f"looked for in {show(path)}{tools}"
    path = fs.join(process.get("cwd", "/"), name)
    parts = path.split("/")
    for end in range(2, min(len(parts), 64)):
        above = "/".join(parts[:end])
        if not tree.find(above):
            return f"{show(above)} does not exist in the root filesystem"
    return "it exists on the host, and not in the root filesystem" if fs.exists(path) else ""


class Tree:
    """Looks up paths in a root filesystem, and notes the first directory that denies the user."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.uid, self.gid = setting.ids()
        self.groups = {self.gid, *setting.additional_gids()}
        capabilities = setting.process.get("capabilities", {})
        self.overrides = "CAP_DAC_OVERRIDE" in capabilities.get("effective", ())
        self.mounts = setting.mounts
        self.root = posix.open(setting.root, _PATH | posix.O_DIRECTORY)
        self.fd = -1  # the file found last
        self.path = ""  # its path, without links
        self.denied = ""

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        posix.close(self.root)

    def _close(self) -> None:
        if self.fd >= 0:
            posix.close(self.fd)
            self.fd = -1

    def find(self, path: str) -> bool:
        """Look up ``path`` and keep the file open as O_PATH. False if it does not exist."""
        self._close()
        self.denied = ""
        try:
            self.fd = self._walk(path)
        except OSError:
            return False
        return True

    def _walk(self, path: str) -> int:
        """A descriptor of ``path``; ".." and absolute links stay below the root. Raises OSError."""
        stack: list[tuple[int, str]] = [(posix.dup(self.root), "")]
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        links = 0
        try:
            while todo:
                part = todo.pop()
                if part == "..":
                    if len(stack) > 1:
                        posix.close(stack.pop()[0])
                    continue
                here, name = stack[-1]
                self._note_directory(here, name or "/")
                fd = posix.open(part, _PATH | posix.O_NOFOLLOW, dir_fd=here)
                stack.append((fd, f"{name}/{part}"))
                if posix.fstat(fd).st_mode & _TYPE != _LINK:
                    continue
                target = posix.readlink("", dir_fd=fd)
                posix.close(stack.pop()[0])
                links += 1
                if links > MAX_LINKS:
                    raise OSError(ELOOP, path)
                if target.startswith("/"):
                    while len(stack) > 1:
                        posix.close(stack.pop()[0])
                todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            self.path = stack[-1][1] or "/"
            return posix.dup(stack[-1][0])
        finally:
            for fd, _ in stack:
                posix.close(fd)

    def _note_directory(self, fd: int, name: str) -> None:
        found = posix.fstat(fd)
        if not self.denied and not self.may(found, 1):
            self.denied = (
                f"{show(name)} has mode {found.st_mode & 0o7777:04o} and belongs to {found.st_uid}:{found.st_gid}:"
                f" {self.uid}:{self.gid} may not search it"
            )

    def may(self, found: posix.stat_result, bit: int) -> bool:
        """Whether the user has a right: 1, to execute or search; 4, to read."""
        if self.overrides and self.setting.owns(found):
            return True
        if found.st_uid == self.uid:
            return bool(found.st_mode & bit << 6)
        return bool(found.st_mode & (bit << 3 if found.st_gid in self.groups else bit))

    def read(self, offset: int, size: int) -> bytes:
        """Bytes of the file, b"" if it is not a regular file. Raises OSError."""
        if posix.fstat(self.fd).st_mode & _TYPE != _REGULAR:
            return b""
        fd = posix.open(f"/proc/self/fd/{self.fd}", posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
        try:
            return posix.pread(fd, size, offset)
        finally:
            posix.close(fd)


def _denied(tree: Tree, path: str) -> str:
    """EACCES, from a directory of the path or from the file."""
    if tree.denied:
        return tree.denied
    found = posix.fstat(tree.fd)
    mode = found.st_mode & 0o7777
    if found.st_mode & _TYPE == _DIRECTORY:
        return "the first of /process/args must be a program"
    if found.st_mode & _TYPE != _REGULAR:
        return "it is not a regular file"
    if not mode & 0o111:
        return f"its mode is {mode:04o}: `chmod +x` makes it executable"
    if not tree.may(found, 1):
        return (
            f"its mode is {mode:04o} and it belongs to {found.st_uid}:{found.st_gid}: {tree.uid}:{tree.gid} may not"
            " execute it"
        )
    if where := _noexec(tree.mounts, path):
        return where
    if posix.fstatvfs(tree.fd).f_flag & posix.ST_NOEXEC:
        return "the root filesystem is on a mount with the option noexec"
    return "its mode permits it: an ACL or a security module (AppArmor, SELinux) may not"


def _noexec(mounts: list[Mount], path: str) -> str:
    """The mount of a path, if it has noexec."""
    for number, mount in reversed(list(enumerate(mounts))):
        if (path + "/").startswith(mount["destination"].rstrip("/") + "/"):
            return f"/mounts/{number} has the option noexec" if "noexec" in mount.get("options", ()) else ""
    return ""


def _format(tree: Tree) -> str:
    """ENOENT or ENOEXEC for an existing file."""
    head = tree.read(0, HEAD)
    if head.startswith(b"\x7fELF"):
        return _elf(tree, head)
    if head.startswith(b"#!"):
        return _script(tree, head)
    if not head:
        return "the file is empty" if posix.fstat(tree.fd).st_mode & _TYPE == _REGULAR else ""
    return "it is neither an ELF file nor a script that starts with #!"


def interpreter_of(head: bytes) -> str:
    """The interpreter of a #! line, or ""."""
    words = head[2:].split(b"\n", 1)[0].split()
    return words[0].decode("utf-8", "surrogateescape") if words else ""


def machine_of(head: bytes) -> int:
    """e_machine of an ELF header."""
    return int.from_bytes(head[18:20], "big" if head[5:6] == b"\2" else "little")


def _script(tree: Tree, head: bytes) -> str:
    name = interpreter_of(head)
    if not name:
        return "its #! line names no interpreter"
    if head.split(b"\n", 1)[0].endswith(b"\r"):
        return "its #! line ends with a carriage return: the file has the line ends of DOS"
    if not tree.find(name):
        return f"the interpreter {show(name)} of its #! line does not exist in the root filesystem"
    return ""


def _elf(tree: Tree, head: bytes) -> str:
    """An ELF file for another machine, or whose loader is missing."""
    if len(head) < 52:  # sizeof(Elf32_Ehdr)
        return "it is an ELF file without its header"
    wide = head[4:5] == b"\2"
    order: Literal["big", "little"] = "big" if head[5:6] == b"\2" else "little"

    def number(offset: int, size: int) -> int:
        return int.from_bytes(head[offset : offset + size], order)

    ours = posix.uname().machine
    machine = machine_of(head)
    if machine not in NATIVE.get(ours, (machine,)):
        return f"it is an ELF file for {MACHINES.get(machine, f'machine {machine}')}, and this host is {ours}"
    # Elf64_Ehdr: e_phoff, e_phentsize, e_phnum; Elf64_Phdr: p_type, p_offset, p_filesz.
    start = number(32, 8) if wide else number(28, 4)
    size, count = (number(54, 2), number(56, 2)) if wide else (number(42, 2), number(44, 2))
    for at in range(start, min(start + size * count, len(head) - 55), max(size, 1)):
        if number(at, 4) == 3:  # PT_INTERP
            offset = number(at + 8, 8) if wide else number(at + 4, 4)
            length = number(at + 32, 8) if wide else number(at + 16, 4)
            name = tree.read(offset, min(length, _INTERPRETER_MAX)).rstrip(b"\0").decode("utf-8", "surrogateescape")
            if name and not tree.find(name):
                return f"its ELF loader {show(name)} does not exist in the root filesystem"
    return ""


def _seccomp(profile: Seccomp, error: int) -> str:
    """The rule that makes execve fail with this error, which no file mode or mount causes."""
    rules = profile.get("syscalls", ())
    for number, rule in enumerate(rules):
        if "execve" in rule["names"]:
            if rule.get("action") == "SCMP_ACT_ERRNO" and rule.get("errnoRet", EPERM) == error:
                return f"/linux/seccomp/syscalls/{number} fails execve with this error"
            if not rule.get("args"):
                return ""
    if profile.get("defaultAction") == "SCMP_ACT_ERRNO" and profile.get("defaultErrnoRet", EPERM) == error:
        return "/linux/seccomp/defaultAction fails execve with this error"
    return ""


def killed(linux: Linux) -> str:
    """The cause of SIGSYS before the program ran."""
    if "seccomp" not in linux:
        return ""
    for number, rule in enumerate(linux["seccomp"].get("syscalls", ())):
        if "execve" in rule["names"] and "KILL" in rule["action"]:
            return f"/linux/seccomp/syscalls/{number} kills execve"
    return "/linux/seccomp kills a system call that the start of a program needs"
