"""The last part of every plan, from what needs all privileges to what needs none: `create` and `exec` share it.

`exec` stops in the middle, to become a process of the container: see plan/exec.py.
"""

from __future__ import annotations

from pyrunc.plan import process, security
from pyrunc.plan.ops import P_CAPS_FOR_FILTER

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
    """Surroundings, labels, limits, ids, capabilities, where the program is, and the filter.

    ``program`` is the ``process`` that is meant; ``config`` gives what belongs to the container as a whole.
    ``joinable``: while it waits for `start`, a caller who is not root must be able to join its namespaces (`exec`).
    """
    drop_privileges(plan, config, program, facts, env)
    process.locate(plan, program, env)
    if joinable and not filter_takes_admin(config, program):
        # Not after the filter, which may kill us for it; not before SET_IDS, which resets dumpable; and
        # not while CAP_SYS_ADMIN is still there for the filter.
        plan.joinable("(default)")
    # As late as possible: the profile need not allow what set-up does.  Not after WAIT_START: only now
    # the parent is there to fetch a notify descriptor.
    load_filter(plan, config, program)


def filter_takes_admin(config: dict[str, Any], program: dict[str, Any]) -> bool:
    """Whether loading the filter takes CAP_SYS_ADMIN: without no_new_privs it does (seccomp(2))."""
    return bool((config.get("linux") or {}).get("seccomp")) and not program.get("noNewPrivileges")


def load_filter(plan: Plan, config: dict[str, Any], program: dict[str, Any], policy: int = 0) -> None:
    """The filter, and the capability that loading it took."""
    security.seccomp(plan, config.get("linux") or {}, policy)
    if filter_takes_admin(config, program):
        plan.drop_admin("(default)")


def drop_privileges(
    plan: Plan,
    config: dict[str, Any],
    program: dict[str, Any],
    facts: HostFacts,
    env: process.Environment,
    joining: bool = False,
) -> None:
    """From what needs all privileges to the ids and capabilities of the program.

    ``joining``: init will clone itself afterwards.  A deadline or SCHED_RESET_ON_FORK does not survive
    that, so the host side sets the scheduling class.
    """
    linux = config.get("linux") or {}
    process.surroundings(plan, linux, program, env)
    if "scheduler" in program or "ioPriority" in program or "memoryPolicy" in linux:
        from pyrunc.plan import scheduling

        if joining:
            scheduling.inherited(plan, linux, program)
            plan.sched_attr = scheduling.scheduler_attributes(program.get("scheduler"))
        else:
            scheduling.set_up(plan, linux, program)
    security.labels(plan, program, facts)
    if program.get("noNewPrivileges"):
        plan.no_new_privs("/process/noNewPrivileges")
    process.rlimits(plan, program)
    # The parent sets the limits now: earlier they would hit our own set-up (RLIMIT_NOFILE, RLIMIT_AS),
    # later the lost CAP_SYS_RESOURCE would be in the way.  From here on init opens no descriptor.
    plan.sync_ready("(default)")
    security.bounding_set(plan, program, facts)
    process.identity(plan, config, program)
    security.capabilities(plan, program, facts, P_CAPS_FOR_FILTER if filter_takes_admin(config, program) else 0)
