"""Operations on an existing container, shared by the commands and the Python API.

All waits are bounded: a process in uninterruptible sleep, or a cgroup that does not become empty,
causes an error that names the survivor, not an endless loop (crun #868).
"""

from __future__ import annotations

import posix
import time
from posix import O_CLOEXEC, O_NOFOLLOW

from pyrunc import fs, handshake, procfs, state
from pyrunc.errors import PyruncError, StateError
from pyrunc.native import processes
from pyrunc.signals import SIGKILL, SIGTERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from pyrunc.cgroup import Driver
    from pyrunc.log import Log
    from pyrunc.notify import Proxy
    from pyrunc.spec.types import Hook
    from pyrunc.state import Container, Store

# Seconds to wait for another pyrunc that holds the lock: until it finishes, after SIGTERM (a create
# undoes its work), and after SIGKILL.  The sum is state.LOCK_TIMEOUT.
PATIENCE = (1.0, 5.0, 4.0)
RELEASE = b"0"  # START_PLAIN of plan.h
KILL_TIMEOUT = 10.0  # seconds until a killed process must have ended, as in runc
_ATTEMPTS = 100
_PAUSE_FIRST, _PAUSE_MOST = 10, 100  # polling interval in ms


def start(container: Container, log: Log, *, notify: bool = True) -> None:
    """Start a created container, and return after its program was executed.

    ``notify``: wait for READY=1 if our environment has NOTIFY_SOCKET.

    Raises StateError in any other status, and the error of the failed step if the execve or a hook
    fails.  After a failed execve the container is stopped, as in runc and crun.  After a failed
    startContainer or poststart hook it is deleted, and its poststop hooks have run (runtime.md,
    lifecycle 7 and 9: continue at step 12).
    """
    status = container.status()
    if status != "created":
        raise StateError(
            {
                "stopped": "cannot start a container that has stopped",
                # A frozen init would not notice its release.
                "paused": "cannot start a container in the paused state",
            }.get(status, f"cannot start an already {status} container")
        )
    if not container.data.get("process", True):
        raise StateError("cannot start: /process is missing in config.json")
    proxy = notify_proxy(container) if notify else None
    errors_fd = posix.open(container.fifo("error"), posix.O_RDONLY | posix.O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW)
    try:
        release = posix.open(container.fifo("start"), posix.O_WRONLY | posix.O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW)
        posix.set_blocking(errors_fd, True)
        data = release_init(container, log, release, errors_fd)
    finally:
        fs.close(errors_fd)
    if data:
        from pyrunc.plan import faults

        late, record = container.data.get("late", []), handshake.Record(data)
        (give_up if faults.describe(late, record).op == "HOOK" else stop)(container, log)
        raise faults.saved_error(late, record, lambda name, number: explain(container, name, number))
    listed = container.data.get("hooks", {}).get("poststart")
    if listed:
        try:
            run_hooks(container, "poststart", listed, container.oci_state("running"), log, fatal=True)
        except BaseException:  # also if the hooks could not be called
            give_up(container, log)
            raise
    if proxy is not None:
        wait_ready(container, proxy)


def explain(container: Container, name: str, number: int) -> str:
    """Why a program could not be executed.  Raises OSError, PyruncError."""
    from pyrunc.explain import Setting, program
    from pyrunc.spec import load

    config, _ = load.load_config(container.dir + "/config.json")
    return program(Setting(config, config["process"], container.data["rootfs"]), name, number)


def release_init(container: Container, log: Log, release: int, errors_fd: int) -> bytes:
    """Release init, and return its error record, or b"" after it has executed the program.

    Raises PyruncError, OSError after the container was stopped: a failed `start` must not leave it
    running.
    """
    try:
        try:
            posix.write(release, RELEASE)
        finally:
            fs.close(release)
        data = read_record(errors_fd)
        if not data and procfs.never_executed(container.data["pid"]):
            raise PyruncError("cannot start: container init was killed before it executed the program")
        return data
    except BaseException:
        stop(container, log)
        raise


def stop(container: Container, log: Log) -> None:
    """Kill a container whose start failed.

    Errors are logged: the original error is the one to report.
    """
    insist(kill_and_wait, container, log)


def give_up(container: Container, log: Log) -> None:
    """Delete a container whose start failed.  Errors are logged."""
    insist(lambda container: remove(container, log), container, log)


def insist(end: Callable[[Container], object], container: Container, log: Log) -> None:
    """Call ``end``, and repeat it after a MemoryError: unwinding the stack has freed memory."""
    for _ in range(_ATTEMPTS):
        try:
            end(container)
        except MemoryError:
            continue
        except (OSError, PyruncError) as error:
            log.warning(f"container {container.id}: {error}")
        return


def notify_proxy(container: Container) -> Proxy | None:
    """The sd_notify proxy, if a service manager called both `create` and `start`."""
    host = fs.getenv("NOTIFY_SOCKET")
    if not host or not container.data.get("notify"):
        return None
    from pyrunc import notify

    return notify.Proxy(container.data["notify"], host)


def wait_ready(container: Container, proxy: Proxy) -> None:
    """Wait until the service sends READY or ends, as service managers expect of Type=notify."""
    fd = container.open_init()
    if fd < 0:
        return
    container.unlock()  # the wait may be long; kill and delete must not block
    try:
        proxy.wait(fd, container.data["pid"])
    finally:
        posix.close(fd)
        proxy.close()


def read_record(fd: int) -> bytes:
    """Read a record from the error fifo; b"" at EOF, which means that execve closed it."""
    data = b""
    while len(data) < handshake.RECORD_SIZE:
        chunk = posix.read(fd, handshake.RECORD_SIZE - len(data))
        if not chunk:
            return b""
        data += chunk
    return data


def driver_of(container: Container) -> Driver:
    """The cgroup driver that created the container."""
    from pyrunc import cgroup, host

    return cgroup.open_driver(container.data.get("cgroup_manager", "cgroupfs"), host.snapshot())


def kill(container: Container, number: int, *, everyone: bool = False) -> None:
    """Send a signal to the first process; with ``everyone``, to all, even if the first has ended.

    Raises StateError if there is no process, unless ``everyone`` is set; OSError, PyruncError.
    """
    if everyone and container.data.get("cgroup"):
        # containerd also does this after init has ended, to kill the rest of the cgroup.  An init
        # that has left its cgroup, as systemd does, is signalled by pid.
        if not container.kill_cgroup(number):
            container.kill_init(number)
        return
    stopped = container.status() in ("creating", "stopped") or not container.kill_init(number)
    # In a shared pid namespace, other processes outlive the first.  A running create kills its own.
    if stopped and number == SIGKILL and not container.creating():
        stopped = not container.kill_cgroup(number)
    if stopped and not everyone:
        raise StateError("container not running")


def pause(container: Container) -> None:
    """Freeze a locked container, and return after all its processes are frozen.

    Raises StateError, PyruncError.
    """
    status = container.status()
    if status == "paused":
        raise StateError("container is already paused")
    if status not in ("created", "running"):
        raise StateError("container not running")
    driver_of(container).freeze(container.data.get("cgroup") or "")


def resume(container: Container) -> None:
    """Thaw a locked container, and return after its processes run.

    Raises StateError, PyruncError.
    """
    # Do not rely on the status: a created container that another program has frozen must thaw.
    if not (container.init_alive() and container.frozen()):
        raise StateError("container not paused")
    driver_of(container).thaw(container.data["cgroup"])


def kill_and_wait(container: Container, timeout: float = KILL_TIMEOUT) -> None:
    """Send SIGKILL to the first process and wait for its end.

    Raises PyruncError if it survives.
    """
    fd = container.open_init() if container.init_alive() else -1
    if fd < 0:
        return
    try:
        container.kill_init(SIGKILL)
        await_end(container, fd, timeout)
    finally:
        posix.close(fd)
    reap(container.data["pid"])


def await_end(container: Container, fd: int, timeout: float) -> None:
    """Wait for the end of the first process, whose pidfd is ``fd``.

    The pidfd is not sufficient: the first process does not become a zombie while its pid namespace
    has an unreaped zombie that joined from outside.  Raises PyruncError after ``timeout`` seconds.
    """
    deadline, pause = time.monotonic() + timeout, _PAUSE_FIRST
    while not _ended(fd, pause) and container.init_alive():
        if time.monotonic() > deadline:
            from pyrunc import host

            pid = container.data["pid"]
            raise PyruncError(f"container init still running: pid {pid} waits in {host.waits_in(pid)}")
        pause = min(pause * 2, _PAUSE_MOST)


def _ended(fd: int, timeout_ms: int) -> bool:
    """Wait for the process of a pidfd, and reap our own child.  Returns whether it has ended."""
    try:
        processes.wait(fd, timeout_ms)
    except (TimeoutError, InterruptedError):
        return False
    except OSError:
        pass  # not our child; it has ended
    return True


def reap(pid: int) -> None:
    """Reap the process if it is our child (`run`); a zombie would keep its cgroup busy."""
    try:
        posix.waitpid(pid, posix.WNOHANG)
    except OSError:
        pass  # another program's child


def remove(container: Container, log: Log, *, poststop: bool = True, driver: Driver | None = None) -> None:
    """Kill and remove a locked container, then run its poststop hooks, whose failures are warnings.

    ``driver``: of the session that created the container.  Raises PyruncError if something
    survives; the state is kept, so that the call can be repeated.
    """
    kill_and_wait(container)
    path = container.data.get("cgroup")
    if path and container.this_boot():  # after a reboot, a cgroup of this name is not ours
        if driver is None or not fs.exists(container.data.get("cgroup_dir", "")):  # mounted elsewhere by now
            driver = driver_of(container)
        driver.kill(path, SIGKILL, stays=container.keeps_cgroup())
        driver.remove(path, KILL_TIMEOUT, container.data.get("cgroup_made"))
    if container.data.get("root_below") and container.this_boot():
        from pyrunc import rootmount

        data = container.data
        rootmount.remove(data["rootfs"], data["root_below"], data.get("root_mount") or 0)
    if container.data.get("rdt"):
        from pyrunc.cgroup import rdt

        rdt.remove(container.data["rdt"])
    if container.data.get("image_bundle"):
        from pyrunc.image import locate

        locate.remove_bundle(container.data["image_bundle"])
    listed = container.data.get("hooks", {}).get("poststop") if poststop else None
    text = container.oci_state("stopped") if listed else ""
    container.destroy()
    if listed:
        run_hooks(container, "poststop", listed, text, log, fatal=False)


def delete(container: Container, log: Log) -> None:
    """Remove a stopped or created container.

    Raises StateError in any other status, PyruncError.
    """
    refuse(container)  # fail without waiting for the lock
    with container:
        refuse(container)
        remove(container, log)


def refuse(container: Container) -> None:
    """Raises StateError unless the container can be deleted without force."""
    status = container.status()
    if status not in ("stopped", "created"):
        raise StateError(f"cannot delete container {container.id} that is not stopped: {status}")


def delete_by_force(store: Store, id: str, log: Log) -> None:
    """Remove a container in any status, including a killed create, a damaged state, or none at all.

    Raises Busy if another pyrunc holds the lock, SysError, PyruncError.
    """
    try:
        container = store.find(id)
        take(container)
    except state.NotFound:
        return  # engines call this after every failed create
    try:
        read_or_salvage(container)
        remove(container, log)
    finally:
        container.unlock()


def read_or_salvage(container: Container) -> None:
    """Read the state; recover a damaged one.  Raises Damaged, SysError, MemoryError."""
    try:
        container.load()
    except state.Damaged:
        from pyrunc.container import salvage

        salvage.recover(container)
        salvage.keep(container)


def take(container: Container) -> None:
    """Lock a container, and stop its creator if necessary.  Raises Busy, NotFound, SysError."""
    for step, seconds in enumerate(PATIENCE):
        try:
            container.acquire(seconds)
            return
        except state.Busy:
            if step == len(PATIENCE) - 1:
                raise
            stop_maker(container, SIGTERM if step == 0 else SIGKILL)


def stop_maker(container: Container, number: int) -> None:
    """Signal the pyrunc that is creating the container, identified by pid and start time.

    A program that uses pyrunc as a library is not signalled.
    """
    try:
        container.load()
    except state.Damaged:
        return
    creator = container.data.get("runtime")
    if creator and container.creating() and not creator.get("library"):
        fd = procfs.open_process(creator.get("pid"), creator.get("starttime"))
        if fd >= 0:
            fs.ignore(processes.pidfd_send_signal, fd, number)
            posix.close(fd)


def run_hooks(container: Container, kind: str, listed: list[Hook], text: str, log: Log, *, fatal: bool) -> None:
    """Run the hooks of a kind in the runtime's namespaces, with the state ``text`` on stdin."""
    from pyrunc import hooks

    bundle = container.data.get("bundle") or "/"
    annotations = container.data.get("annotations", {})
    hooks.run_hooks(kind, listed, text, hooks.Surroundings(bundle, log, annotations), fatal=fatal)
