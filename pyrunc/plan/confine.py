"""The last part of every plan, from what needs all privileges to what needs none: `create` and `exec` share it."""

from __future__ import annotations

from pyrunc.plan import process, security

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.host import HostFacts
    from pyrunc.plan import Plan


def confine(
    plan: Plan,
    config: dict[str, Any],
    program: dict[str, Any],
    facts: HostFacts,
    env: process.Environment,
    joinable: bool = False,
) -> None:
    """Surroundings, labels, limits, filter, ids, capabilities, and where the program is.

    ``program`` is the ``process`` that is meant; ``config`` gives what belongs to the container as a whole.
    ``joinable``: while it waits for `start`, a caller who is not root must be able to join its namespaces (`exec`).
    """
    linux = config.get("linux") or {}
    process.surroundings(plan, linux, program, env)
    if "scheduler" in program or "ioPriority" in program or "memoryPolicy" in linux:
        from pyrunc.plan import scheduling

        scheduling.set_up(plan, linux, program)
    security.labels(plan, program, facts)
    if program.get("noNewPrivileges"):
        plan.no_new_privs("/process/noNewPrivileges")
    process.rlimits(plan, program)
    # The parent sets the limits now: earlier they would hit our own set-up (RLIMIT_NOFILE, RLIMIT_AS), later a filter
    # or the lost CAP_SYS_RESOURCE would be in the way.  From here on init opens nothing that could need a descriptor.
    plan.sync_ready("(default)")
    late_filter = bool(program.get("noNewPrivileges"))
    if not late_filter:
        # Without no_new_privs loading a filter takes CAP_SYS_ADMIN, which the next steps drop (seccomp(2)).
        security.seccomp(plan, linux)
    security.bounding_set(plan, program, facts)
    process.identity(plan, config, program)
    security.capabilities(plan, program, facts)
    process.locate(plan, program, env)
    if joinable and (late_filter or not linux.get("seccomp")):
        # Behind an early filter it is too late, which may kill for it, and before one too early: SET_IDS takes it back.
        plan.joinable("(default)")
    if late_filter:
        # As late as possible: the profile need not allow what set-up does.  Not after WAIT_START, because only now the
        # parent is there to fetch a notify descriptor.
        security.seccomp(plan, linux)
