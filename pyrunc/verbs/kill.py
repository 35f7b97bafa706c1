"""`kill`: a signal for a container."""

from __future__ import annotations

from pyrunc import command, signals, state
from pyrunc.errors import StateError
from pyrunc.state import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "kill [OPTIONS] ID [SIGNAL]"
SUMMARY = "send a signal (default SIGTERM) to the container's first process"
ARGS = (1, 2)
STDERR_IS_OURS = True
FLAGS: tuple[command.Flag, ...] = (
    ("all", "a", "", "bool", "signal every process of the container, also when its first one has ended"),
)


def main(context: command.Context, values: dict[str, Any], args: list[str]) -> int:
    """Send the signal."""
    number = signals.number(args[1] if len(args) > 1 else "TERM")
    container = state.Store(state.root_dir(context.root)).open(args[0])
    if values.get("all") and container.data.get("cgroup"):
        # containerd also sends this after init's end: what is left in the cgroup must go.  An init that has left its
        # cgroup, as systemd does, is signalled by its pid.
        if not container.kill_cgroup(number):
            container.kill_init(number)
        return 0
    stopped = container.status() in ("creating", "stopped") or not container.kill_init(number)
    # In a shared pid namespace the others outlive the first process; a create at work ends what is its own.
    if stopped and number == SIGKILL and not container.creating():
        stopped = not container.kill_cgroup(number)
    if stopped and not values.get("all"):
        raise StateError("container not running")
    return 0
