"""Report every problem of a config.json in one pass: first types, by the table, then the rules that
a table cannot express.

Validation changes nothing on the host, so everything that the document alone decides is refused
here, not by a kernel halfway through the creation of a container.
"""

from __future__ import annotations

from pyrunc import SPEC_VERSION
from pyrunc.errors import ConfigError
from pyrunc.fs import normpath
from pyrunc.spec import rules_linux, rules_mounts, rules_process, rules_resources, schema
from pyrunc.spec.names import version
from pyrunc.spec.report import Report, numbered
from pyrunc.spec.structure import structure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.errors import Capped
    from pyrunc.spec.report import Facts
    from pyrunc.spec.types import Config

    HookKind = Literal["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


ENTRIES_MAX = 16000  # engines write a few dozen, a pod with many volumes a few hundred
_LISTS: tuple[Literal["devices", "maskedPaths", "readonlyPaths", "sysctl"], ...]
_LISTS = ("devices", "maskedPaths", "readonlyPaths", "sysctl")
_HOOKS: tuple[HookKind, ...] = tuple(schema.CONFIG[1]["hooks"][1])


def check(config: Config, *, facts: Facts | None = None) -> Capped:
    """Validate a config.json (runtime-spec 1.3.0, Linux).

    With ``facts`` (pyrunc.host.HostFacts) also check it against this host: labels fail closed if
    their LSM is absent. Returns the warnings. Raises ConfigError with every problem found.
    """
    report = Report(facts)
    config = structure(schema.CONFIG, config, "", report.problems)
    if type(config) is not dict or report.problems.full():
        raise ConfigError(report.problems)
    # Continue with the values of the right type, so that one run reports everything.
    report.reported = tuple(problem.pointer for problem in report.problems)
    if not few_entries(config, report):
        raise ConfigError(report.problems)
    general(config, report)
    rules_linux.namespaces(config, report)
    if "process" in config:  # only `start` needs one
        rules_process.check(config["process"], report)
    rules_mounts.check(config, report)
    rules_linux.check(config, report)
    if "resources" in config.get("linux", {}):
        rules_resources.check(config["linux"]["resources"], report)
    if needs_userns_rules(config, report):
        from pyrunc.spec import rules_userns

        rules_userns.check(config, report)
    if report.problems:
        raise ConfigError(report.problems)
    return report.warnings


def needs_userns_rules(config: Config, report: Report) -> bool:
    """Whether a config uses user namespaces, or should: users other than root need one."""
    linux = config.get("linux", {})
    if "user" in report.namespaces or report.mapped or (report.facts is not None and report.facts.euid != 0):
        return True
    return bool(linux.get("uidMappings") or linux.get("gidMappings"))


def few_entries(config: Config, report: Report) -> bool:
    """Whether the number of entries is acceptable: each entry is a step of the plan or a program to
    run."""
    linux, hooks = config.get("linux", {}), config.get("hooks", {})
    total = len(config.get("mounts", ()))
    for name in _LISTS:
        total += len(linux.get(name, ()))
    for kind in _HOOKS:
        total += len(hooks.get(kind, ()))
    if total <= ENTRIES_MAX:
        return True
    hint = "mounts, devices, hooks, sysctls, masked and read-only paths count together"
    report.bad("/", f"at most {ENTRIES_MAX} entries", total, hint)
    return False


def general(config: Config, report: Report) -> None:
    """ociVersion, root, hooks."""
    text = config.get("ociVersion")
    if text is not None:
        _version(text, report)
    path = config.get("root", {}).get("path")
    if rules_process.short(path, "/root/path", report) and path is not None and (not path or normpath(path) == "/"):
        report.bad("/root/path", "a directory other than /", path)
    hooks = config.get("hooks", {})
    for kind in _HOOKS:
        for pointer, hook in numbered(hooks.get(kind), f"/hooks/{kind}"):
            # execve would resolve a relative path in the runtime's working directory (the
            # specification says MUST be absolute).
            rules_process.absolute(hook.get("path"), f"{pointer}/path", report)
            rules_process.environment(hook.get("env"), f"{pointer}/env", report)


def _version(text: str, report: Report) -> None:
    numbers, ours = version(text), version(SPEC_VERSION)
    if numbers is None or ours is None:
        report.bad("/ociVersion", "a SemVer 2.0.0 version such as 1.3.0", text)
    elif numbers[0] != ours[0]:
        report.bad("/ociVersion", "version 1.x of the runtime specification", text)
    elif numbers[1] > ours[1]:
        # Valid: a 1.x version can only add keys, and unknown keys are ignored.
        report.warn("/ociVersion", f"at most {SPEC_VERSION}", text, "fields that it does not know are ignored")
