"""The end of a container: what `delete`, a foreground `run` and a failing poststart hook share.

Bounded everywhere: a process in uninterruptible sleep or a cgroup that does not empty ends in an error that names the
survivor, never in an endless loop (crun #868).
"""

from __future__ import annotations

import posix
from errno import ETIMEDOUT

from pyrunc import cgroup, fs, hooks, host, runtime
from pyrunc.errors import PyruncError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cgroup import Driver
    from pyrunc.log import Log
    from pyrunc.state import Container

SIGKILL = 9
KILL_TIMEOUT = 10.0  # seconds until a killed process must be gone, as runc has it


def driver_of(container: Container) -> Driver:
    """The cgroup driver that the container was made with."""
    return cgroup.open_driver(container.data.get("cgroup_manager") or "cgroupfs", host.snapshot())


def kill_and_wait(container: Container, timeout: float = KILL_TIMEOUT) -> None:
    """SIGKILL to the first process, then wait for its end.  Raises PyruncError naming what survives."""
    fd = container.open_init() if container.init_alive() else -1
    if fd < 0:
        return
    try:
        container.kill_init(SIGKILL)
        _, lib = runtime.shim()
        ended = lib.pr_wait_pid_timeout(fd, int(timeout * 1000))
        if ended == -ETIMEDOUT:
            pid = container.data["pid"]
            raise PyruncError(f"container init still running: pid {pid} waits in {waits_in(pid)}")
    finally:
        posix.close(fd)
    reap(container.data["pid"])


def reap(pid: int) -> None:
    """Collect the process when it is our own child (`run`); a zombie would keep its cgroup busy."""
    try:
        posix.waitpid(pid, 0)
    except OSError:
        pass  # somebody else's child


def waits_in(pid: int) -> str:
    """The kernel function a process sleeps in (/proc/PID/wchan), or "?"."""
    try:
        return fs.read_file(f"/proc/{pid}/wchan", 256).decode("ascii", "replace") or "?"
    except OSError:
        return "?"


def remove(container: Container, log: Log, *, poststop: bool = True) -> None:
    """Kill what is left of a container and remove all that create made, then run its poststop hooks (warnings only).

    The container must be locked.  Raises PyruncError when something survives; its state is still there then, so that
    the call can be repeated.
    """
    kill_and_wait(container)
    path = container.data.get("cgroup")
    if path:
        driver = driver_of(container)
        driver.kill(path, SIGKILL)
        driver.remove(path, KILL_TIMEOUT, container.data.get("cgroup_made"))
    listed = (container.data.get("hooks") or {}).get("poststop") if poststop else None
    text = container.oci_state("stopped") if listed else ""
    container.destroy()
    if listed:
        bundle = container.data.get("bundle") or "/"
        annotations = container.data.get("annotations") or {}
        hooks.run_hooks("poststop", listed, text, bundle=bundle, log=log, fatal=False, annotations=annotations)
