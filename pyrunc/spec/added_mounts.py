"""The document of `mounts add` and `mounts remove`: an array of the mount objects of
config.json."""

from __future__ import annotations

from pyrunc.errors import ConfigError, Problem
from pyrunc.spec import load, rules_linux, rules_mounts, rules_userns, schema
from pyrunc.spec.report import Report, describe, numbered
from pyrunc.spec.structure import structure, without_unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.errors import Capped
    from pyrunc.spec.report import Facts
    from pyrunc.spec.types import Config, Mount

SOURCE = "mounts"
MOST = 100  # each has a descriptor in init
_NODE = ("array", schema.MOUNT)


def parse(data: bytes) -> list[Mount]:
    """Parse the document.  Raises ConfigError with every mismatch of a type."""
    found = load.parse_json(data, SOURCE)
    report = Report()
    if type(found) is not list:
        raise ConfigError([Problem("", "an array of mounts as in config.json", describe(found))], SOURCE)
    entries: list[Mount] = structure(_NODE, found, "", report.problems)
    if len(entries) > MOST:
        report.bad("", f"at most {MOST} mounts", found)
    if report.problems:
        raise ConfigError(report.problems, SOURCE)
    known: list[Mount] = without_unknown(_NODE, entries)
    return known


def check(entries: list[Mount], config: Config, facts: Facts) -> Capped:
    """Apply the rules of `mounts` in the container of ``config``, and those of a running container.

    Returns the warnings.  Raises ConfigError.
    """
    report = Report(facts)
    whole: Config = {**config, "mounts": entries}
    rules_linux.namespaces(whole, report)
    rules_mounts.check(whole, report, at="")
    rules_userns.mounts(whole, report, at="")
    for pointer, mount in numbered(entries, ""):
        _running(mount, pointer, report)
    if report.problems:
        raise ConfigError(report.problems, SOURCE)
    return report.warnings


def _running(mount: Mount, pointer: str, report: Report) -> None:
    """What cannot be done in a container that has been created."""
    options = mount.get("options", ())
    for here, option in numbered(options, f"{pointer}/options"):
        if option == "remount":
            report.bad(here, "a new mount", option, "changing one that exists cannot be undone")
        elif option == "tmpcopyup":
            hint = "the processes of the container may change the files while they are copied"
            report.bad(here, "a tmpfs without a copy", option, hint)
    if rules_mounts.is_at_proc(mount) or (mount.get("type") == "proc" and not {"bind", "rbind"} & {*options}):
        hint = "a procfs shows the processes of the one that mounts it, which is not in the container"
        report.bad(pointer, "no procfs on a created container", mount.get("type", "bind"), hint)
