"""`delete`: remove what create made."""

from __future__ import annotations

from pyrunc import command, lifecycle, state
from pyrunc.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "delete [OPTIONS] ID"
SUMMARY = "delete a container that has stopped, or was never started"
ARGS = (1, 1)
FLAGS: tuple[command.Flag, ...] = (
    ("force", "f", "", "bool", "kill the container first when it runs; an unknown id is no error"),
)


def main(context: command.Context, values: dict[str, Any], args: list[str]) -> int:
    """Delete the container."""
    store = state.Store(state.root_dir(context.root))
    if values.get("force"):
        return forced(context, store, args[0])
    container = store.open(args[0])
    container.lock()
    status = container.status()
    if status not in ("stopped", "created"):
        raise StateError(f"cannot delete container {args[0]} that is not stopped: {status}")
    lifecycle.remove(container, context.log)
    return 0


def forced(context: command.Context, store: state.Store, id: str) -> int:
    """Whatever is there, in whatever state: the remains of a killed create, a damaged state file."""
    try:
        container = store.find(id)
        container.acquire(state.LOCK_TIMEOUT)
    except StateError as error:
        if str(error) == "container does not exist":
            return 0
        raise
    container.salvage()
    lifecycle.remove(container, context.log)
    return 0
