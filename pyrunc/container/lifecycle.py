"""The life of a container that exists, from its start to its end: what the verbs and the Python API share.

Bounded everywhere: a process in uninterruptible sleep or a cgroup that does not empty ends in an error that names the
survivor, never in an endless loop (crun #868).
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

# Seconds of patience with another pyrunc that holds the container: first it may finish, then it is asked to stop (a
# create undoes what it has done), then it is killed.  Together they are state.LOCK_TIMEOUT.
PATIENCE = (1.0, 5.0, 4.0)
RELEASE = b"0"  # START_PLAIN of plan.h
KILL_TIMEOUT = 10.0  # seconds until a killed process must be gone, as with runc
_ATTEMPTS = 100
_PAUSE_FIRST, _PAUSE_MOST = 10, 100  # milliseconds between two looks at a process that does not end


def start(container: Container, log: Log, *, notify: bool = True) -> None:
    """Start a created container; returns when its program was executed.

    ``notify``: wait for READY=1 when our environment has NOTIFY_SOCKET.

    Raises StateError in any other status, and the failing step's error when the execve or a hook fails.  After an
    execve that failed the container is stopped, as with runc and crun.  After a startContainer or poststart hook that
    failed it is gone, and its poststop hooks have run (runtime.md, lifecycle 7 and 9: continue at step 12).
    """
    status = container.status()
    if status != "created":
        raise StateError(
            {
                "stopped": "cannot start a container that has stopped",
                # Frozen before or after its start; init would not see that it was released.
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
        except BaseException:  # also what kept us from calling them
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
    """Release init and wait for the end of its waiting: its error record, or b"" when the program is executed.

    Raises PyruncError, OSError; the container is stopped then, because a `start` that failed must not have started.
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
    """End a container whose start failed.  Raises nothing: why it failed is what the caller wants to know."""
    insist(kill_and_wait, container, log)


def give_up(container: Container, log: Log) -> None:
    """Delete a container whose start failed, as `stop` does."""
    insist(lambda container: remove(container, log), container, log)


def insist(end: Callable[[Container], object], container: Container, log: Log) -> None:
    """Call ``end``, again when there is no memory: the way up from where that was noticed has freed some."""
    for _ in range(_ATTEMPTS):
        try:
            end(container)
        except MemoryError:
            continue
        except (OSError, PyruncError) as error:
            log.warning(f"container {container.id}: {error}")
        return


def notify_proxy(container: Container) -> Proxy | None:
    """The sd_notify proxy, when `create` and `start` were both called by a service manager."""
    host = fs.getenv("NOTIFY_SOCKET")
    if not host or not container.data.get("notify"):
        return None
    from pyrunc import notify

    return notify.Proxy(container.data["notify"], host)


def wait_ready(container: Container, proxy: Proxy) -> None:
    """Hold `start` until the service says READY or ends, as its manager expects of a notify service."""
    fd = container.open_init()
    if fd < 0:
        return
    container.unlock()  # it may take long; kill and delete must work meanwhile
    try:
        proxy.wait(fd, container.data["pid"])
    finally:
        posix.close(fd)
        proxy.close()


def read_record(fd: int) -> bytes:
    """One record from the error fifo, b"" at EOF (execve closed it)."""
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
    """Send a signal to the first process, or to ``everyone``, also when the first one has ended.

    Raises StateError when there is nobody, unless ``everyone`` was asked for; OSError, PyruncError.
    """
    if everyone and container.data.get("cgroup"):
        # containerd also sends this after init's end: what is left in the cgroup must go.  An init that has left its
        # cgroup, as systemd does, is signalled by its pid.
        if not container.kill_cgroup(number):
            container.kill_init(number)
        return
    stopped = container.status() in ("creating", "stopped") or not container.kill_init(number)
    # In a shared pid namespace the others outlive the first process; a create at work ends what is its own.
    if stopped and number == SIGKILL and not container.creating():
        stopped = not container.kill_cgroup(number)
    if stopped and not everyone:
        raise StateError("container not running")


def pause(container: Container) -> None:
    """Freeze a locked container; returns when all its processes are stopped.  Raises StateError, PyruncError."""
    status = container.status()
    if status == "paused":
        raise StateError("container is already paused")
    if status not in ("created", "running"):
        raise StateError("container not running")
    driver_of(container).freeze(container.data.get("cgroup") or "")


def resume(container: Container) -> None:
    """Thaw a locked container; returns when its processes run.  Raises StateError, PyruncError."""
    # The status alone is not enough: a created container that was frozen by hand must not stay
    # frozen forever.
    if not (container.init_alive() and container.frozen()):
        raise StateError("container not paused")
    driver_of(container).thaw(container.data["cgroup"])


def kill_and_wait(container: Container, timeout: float = KILL_TIMEOUT) -> None:
    """SIGKILL to the first process, then wait for its end.  Raises PyruncError naming what survives."""
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
    """Wait for the end of the first process, whose pidfd is ``fd``.  Raises PyruncError after ``timeout`` seconds.

    The pidfd alone would make us wait for others: while a process that joined its pid namespace from outside is a
    zombie that its parent has not reaped, the first one is not even that.
    """
    deadline, pause = time.monotonic() + timeout, _PAUSE_FIRST
    while not _ended(fd, pause) and container.init_alive():
        if time.monotonic() > deadline:
            from pyrunc import host

            pid = container.data["pid"]
            raise PyruncError(f"container init still running: pid {pid} waits in {host.waits_in(pid)}")
        pause = min(pause * 2, _PAUSE_MOST)


def _ended(fd: int, timeout_ms: int) -> bool:
    """Whether the process of a pidfd has ended, waiting for that; a child of ours is reaped."""
    try:
        processes.wait(fd, timeout_ms)
    except (TimeoutError, InterruptedError):
        return False
    except OSError:
        pass  # not our child, and it has ended
    return True


def reap(pid: int) -> None:
    """Collect the process when it is our own child (`run`); a zombie would keep its cgroup busy."""
    try:
        posix.waitpid(pid, posix.WNOHANG)
    except OSError:
        pass  # another program's child


def remove(container: Container, log: Log, *, poststop: bool = True) -> None:
    """Kill what is left of a container and remove all that create made, then run its poststop hooks (warnings only).

    The container must be locked.  Raises PyruncError when something survives; its state is still there then, so that
    the call can be repeated.
    """
    kill_and_wait(container)
    path = container.data.get("cgroup")
    if path and container.this_boot():  # a reboot removed ours; the current one with its name is not ours
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
    """Remove a container that has stopped, or was never started.  Raises StateError for any other, PyruncError."""
    refuse(container)  # at once, where waiting for the lock cannot change the answer
    with container:
        refuse(container)
        remove(container, log)


def refuse(container: Container) -> None:
    """Raise StateError unless the container may be deleted without force."""
    status = container.status()
    if status not in ("stopped", "created"):
        raise StateError(f"cannot delete container {container.id} that is not stopped: {status}")


def delete_by_force(store: Store, id: str, log: Log) -> None:
    """Remove whatever is there: a container that runs, the remains of a killed create, a damaged state, or nothing.

    Raises Busy when another pyrunc keeps the container, SysError, PyruncError.
    """
    try:
        container = store.find(id)
        take(container)
    except state.NotFound:
        return  # engines do this after every failed create
    try:
        read_or_salvage(container)
        remove(container, log)
    finally:
        container.unlock()


def read_or_salvage(container: Container) -> None:
    """Read the state, or find out what a damaged one leaves to remove.  Raises Damaged, SysError, MemoryError."""
    try:
        container.load()
    except state.Damaged:
        from pyrunc.container import salvage

        salvage.recover(container)
        salvage.keep(container)


def take(container: Container) -> None:
    """Lock a container in whatever state.  Raises Busy, NotFound, SysError."""
    for step, seconds in enumerate(PATIENCE):
        try:
            container.acquire(seconds)
            return
        except state.Busy:
            if step == len(PATIENCE) - 1:
                raise
            stop_maker(container, SIGTERM if step == 0 else SIGKILL)


def stop_maker(container: Container, number: int) -> None:
    """Signal the pyrunc that is creating the container: the very process, not one that got its pid.

    Not a program that uses pyrunc as a library: that one has other things to do.
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
    """Hooks of one kind in the runtime's namespaces; ``text`` is the state they read."""
    from pyrunc import hooks

    bundle = container.data.get("bundle") or "/"
    annotations = container.data.get("annotations", {})
    hooks.run_hooks(kind, listed, text, hooks.Surroundings(bundle, log, annotations), fatal=fatal)
