"""Run all checks, one subject at a time."""

from __future__ import annotations

from collections.abc import Callable

from pyrunc.doctor import bundle, cgroups, engines, kernel, leftovers, limits, privileges, storage, users
from pyrunc.doctor.findings import Area, Finding
from pyrunc.doctor.machine import Machine
from pyrunc.errors import PyruncError, errno_text
from pyrunc.launch.create import CreateOptions
from pyrunc.spec import load

Check = Callable[[Machine], list[Area]]

CHECKS: tuple[tuple[str, Check], ...] = (
    ("kernel", kernel.check),
    ("cgroups", cgroups.check),
    ("users", users.check),
    ("privileges", privileges.check),
    ("limits", limits.check),
    ("storage", storage.check),
    ("engines", engines.check),
    ("leftovers", leftovers.check),
)


def examine(machine: Machine, opts: CreateOptions | None = None) -> list[Finding]:
    """The findings of all checks; with ``opts``, those of their bundle first.

    A failed check is a finding as well, and the others continue. Raises load.Unreadable without a
    readable config.json.
    """
    findings: list[Finding] = []
    if opts is not None:
        findings += guarded("bundle", lambda machine: bundle.check(machine, opts), machine)
    for name, check in CHECKS:
        findings += guarded(name, check, machine)
    return findings


def guarded(name: str, check: Check, machine: Machine) -> list[Finding]:
    """The findings of one subject."""
    try:
        return [finding for area in check(machine) for finding in area.done()]
    except load.Unreadable:
        raise
    except (OSError, PyruncError) as error:
        text = str(error) if isinstance(error, PyruncError) else errno_text(error.errno or 0)
        failed = Area(name)
        failed.note("incomplete", text, "this subject could not be checked")
        return failed.done()
