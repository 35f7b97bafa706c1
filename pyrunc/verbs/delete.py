"""`delete`: remove what create made."""

from __future__ import annotations

import posix

from pyrunc import command, lifecycle, procfs, runtime, state
from pyrunc.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.state import Container

USAGE = "delete [OPTIONS] ID"
SUMMARY = "delete a container that has stopped, or was never started"
ARGS = (1, 1)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = (
    ("force", "f", "", "bool", "kill the container first when it runs; an unknown id is no error"),
)
SIGKILL, SIGTERM = 9, 15
# Seconds of patience with another pyrunc that holds the container: first it may finish, then it is told to stop (a
# create undoes what it has done), then it is killed.  Together they are state.LOCK_TIMEOUT.
PATIENCE = (1.0, 5.0, 4.0)


def main(context: command.Context, values: dict[str, Any], args: list[str]) -> int:
    """Delete the container."""
    store = state.Store(state.root_dir(context.root))
    if values.get("force"):
        return forced(context, store, args[0])
    container = store.open(args[0])
    refuse(container)  # at once, where waiting for the lock cannot change the answer
    with container:
        refuse(container)
        lifecycle.remove(container, context.log)
    return 0


def refuse(container: Container) -> None:
    """Raise StateError unless it may be deleted without force."""
    status = container.status()
    if status not in ("stopped", "created"):
        raise StateError(f"cannot delete container {container.id} that is not stopped: {status}")


def forced(context: command.Context, store: state.Store, id: str) -> int:
    """Whatever is there: a container that runs, the remains of a killed create, a damaged state."""
    try:
        container = store.find(id)
        take(container)
    except state.NotFound:
        return 0  # engines send this after every failed create (callers.md, row 9)
    try:
        read(container)
        lifecycle.remove(container, context.log)
    finally:
        container.unlock()
    return 0


def read(container: Container) -> None:
    """Read the state, or find out what a damaged one leaves to remove.  Raises Damaged, SysError, MemoryError."""
    try:
        container.load()
    except state.Damaged:
        from pyrunc import salvage

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
    """Signal the pyrunc that is creating the container: the very process, not one that got its pid."""
    try:
        container.load()
    except state.Damaged:
        return
    maker = container.data.get("runtime") or {}
    if container.creating():
        fd = procfs.open_process(maker.get("pid"), maker.get("starttime"))
        if fd >= 0:
            runtime.quick()[1].pr_pidfd_send_signal(fd, number)
            posix.close(fd)
