"""Facts about one process from /proc: whether it is still the same process, and its state.

A process that does not exist is reported by a value; an unknown answer is an OSError.
"""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_PATH, O_RDONLY

from pyrunc import fs
from pyrunc.native import files
from pyrunc.signals import SIGKILL

_NSFS_MAGIC = 0x6E736673
_PF_EXITING, _PF_FORKNOEXEC = 0x4, 0x40  # linux/sched.h
_STATE, _PARENT, _FLAGS, _THREADS, _STARTTIME = 0, 1, 6, 17, 19  # fields 3, 4, 9, 20 and 22 of /proc/PID/stat (proc(5))


def process_stat(pid: int | str) -> tuple[str, int]:
    """State letter and start time (clock ticks since boot); ``("", 0)`` without such a process.

    Raises OSError if they cannot be determined (ENOMEM).
    """
    fields = stat_fields(pid)
    return (fields[_STATE].decode("ascii"), int(fields[_STARTTIME])) if fields else ("", 0)


def stat_fields(pid: int | str) -> list[bytes]:
    """/proc/PID/stat from field 3 on; [] without such a process.

    Field 2, the name, may contain blanks and parentheses.
    """
    try:
        return fs.read_file(f"/proc/{pid}/stat", 65536).rpartition(b")")[2].split()
    except OSError as error:  # ESRCH: it ended during the read
        if fs.is_inconclusive(error):
            raise
        return []


def never_executed(pid: int) -> bool:
    """Whether a process, possibly a zombie, has not called execve since it was cloned.

    execve clears PF_FORKNOEXEC before it closes descriptors.  An EOF alone does not distinguish
    execve from the death of the process.  False if it was reaped.
    """
    fields = stat_fields(pid)
    return bool(fields) and int(fields[_FLAGS]) & _PF_FORKNOEXEC != 0


def alive(pid: object, starttime: object) -> bool:
    """Whether a process (not another one with its pid) exists and has not ended.

    A process whose first thread has called pthread_exit looks like a zombie, but has other threads.
    The first process of a pid namespace counts as ended while it waits for zombies that another
    process must reap (`released`). Raises OSError if this cannot be determined (ENOMEM).
    """
    if type(pid) is not int or pid <= 0:
        return False
    fields = stat_fields(pid)
    if not fields or int(fields[_STARTTIME]) != starttime:
        return False
    if int(fields[_THREADS]) > 1:
        return True
    if fields[_STATE] in (b"Z", b"X", b"x"):
        return False
    return not (int(fields[_FLAGS]) & _PF_EXITING and released(pid))


def kill_headless(pids: list[int]) -> None:
    """Send SIGKILL to the processes whose first thread has ended while others run.

    cgroup.kill signals the first thread of each process only, which does nothing there.
    """
    for pid in pids:
        try:
            fields = stat_fields(pid)
            if fields and fields[_STATE] == b"Z" and int(fields[_THREADS]) > 1:
                posix.kill(pid, SIGKILL)
        except OSError:
            pass  # it has ended, or the caller's wait reports it


def released(pid: int) -> bool:
    """Whether an exiting process has released its memory, descriptors, mounts and cgroup.

    The kernel calls exit_task_namespaces() after exit_mm() and exit_files(), and just before
    exit_notify(), where the first process of a pid namespace waits until all its zombies were
    reaped (zap_pid_ns_processes).  A zombie that joined from outside has a parent outside, which
    may be slow.
    """
    try:
        posix.readlink(f"/proc/{pid}/ns/mnt")
    except (FileNotFoundError, ProcessLookupError):
        return True
    except PermissionError:
        pass
    return False


def boot_id() -> str:
    """The id of this boot: start times of different boots cannot be compared.

    "" if the kernel does not expose it. Raises OSError if it cannot be determined (ENOMEM).
    """
    try:
        return fs.read_file("/proc/sys/kernel/random/boot_id", 64).decode("ascii").strip()
    except OSError as error:
        if fs.is_inconclusive(error):
            raise
        return ""
    except ValueError:
        return ""


def open_process(pid: object, starttime: object) -> int:
    """A pidfd of exactly this process, or -1 if it has ended.  Raises OSError (EMFILE).

    The check comes after the pidfd, because the pid cannot be reused then.
    """
    if type(pid) is not int or pid <= 0:
        return -1
    try:
        fd = posix.pidfd_open(pid)
    except ProcessLookupError:
        return -1
    found = False
    try:
        found = alive(pid, starttime)
    finally:
        if not found:
            fs.close(fd)
    return fd if found else -1


def first_in_namespace(pid: int) -> bool:
    """Whether a process is pid 1 of its pid namespace (the last NSpid of /proc/PID/status)."""
    try:
        for line in fs.read_file(f"/proc/{pid}/status", 65536).split(b"\n"):
            if line.startswith(b"NSpid:"):
                return line.split()[-1] == b"1"
    except OSError as error:
        if fs.is_inconclusive(error):
            raise
    return True


def stdio(pid: int | str) -> list[str]:
    """The files of stdin, stdout and stderr: a path, ``pipe:[4711]``, or "" if unknown."""
    found = []
    for fd in (0, 1, 2):
        try:
            found.append(posix.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            found.append("")
    return found


def pid_namespace(pid: int | str) -> str:
    """The pid namespace of a process, ``pid:[4026531836]``; "" if the process has ended.

    Raises OSError if that is unknown.
    """
    try:
        return posix.readlink(f"/proc/{pid}/ns/pid")
    except OSError as error:
        if fs.is_inconclusive(error):
            raise
        return ""


def processes() -> list[int]:
    """All processes, by number.  Raises OSError."""
    return sorted(int(name) for name in fs.names("/proc") if name.isdigit())


def descendants(first: int) -> list[int]:
    """A process and all below it, except those below a process that has ended.  Raises OSError."""
    below: dict[int, list[int]] = {}
    for pid in processes():
        fields = stat_fields(pid)
        if fields:
            below.setdefault(int(fields[_PARENT]), []).append(pid)
    out = [first]
    for pid in out:
        out += below.get(pid, ())
    return out


def open_namespace(path: str, pointer: str) -> int:
    """A descriptor of the namespace at ``path``.  Raises SysError that names ``pointer``.

    The path may be any file, and opening a fifo blocks or opening a device has side effects, so its
    type is checked first.
    """
    from pyrunc.errors import SysError

    try:
        found = posix.open(path, O_PATH | O_CLOEXEC)
        try:
            if files.filesystem_type(found) == _NSFS_MAGIC:
                return posix.open(f"/proc/self/fd/{found}", O_RDONLY | O_CLOEXEC)
        finally:
            posix.close(found)
    except OSError as error:
        raise SysError(pointer, "open", error.errno or 0, value=path) from error
    from errno import EINVAL

    raise SysError(pointer, "fstatfs", EINVAL, value=path, detail="not a namespace")
