"""Every problem of a config.json in one pass: its types against the table, then the rules a table cannot say.

Nothing has been touched when this fails, so everything that can be known from the document alone is refused here
rather than by a kernel that is half-way through making a container.
"""

from __future__ import annotations

from pyrunc import SPEC_VERSION
from pyrunc.errors import ConfigError, Problem
from pyrunc.fs import normpath
from pyrunc.spec import rules_linux, rules_mounts, rules_process, rules_resources, schema
from pyrunc.spec.names import escape, version
from pyrunc.spec.report import Report, describe, numbered, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.spec.report import Facts
    from pyrunc.spec.schema import Node


def check(config: dict[str, Any], *, facts: Facts | None = None) -> list[Problem]:
    """Validate a config.json (runtime-spec 1.3.0, Linux).

    With ``facts`` (pyrunc.host.HostFacts) also against this host: labels fail closed where their LSM is absent.
    Returns the warnings.  Raises ConfigError with every problem found.
    """
    report = Report(facts)
    structure(schema.CONFIG, config, "", report.problems)
    if type(config) is not dict:
        raise ConfigError(report.problems)
    if report.problems:
        # Go on with what has the right type, so that one run tells everything.
        config = prune(schema.CONFIG, config)
    general(config, report)
    rules_linux.namespaces(config, report)
    rules_process.check(config, report)
    rules_mounts.check(config, report)
    rules_linux.check(config, report)
    rules_resources.check(config, report)
    if report.problems:
        raise ConfigError(report.problems)
    return report.warnings


def structure(node: Node, value: Any, pointer: str, problems: list[Problem]) -> None:
    """Compare a value with its node of the table and add what does not fit to ``problems``."""
    kind = node[0]
    if kind == "object":
        if type(value) is not dict:
            problems.append(Problem(pointer, "object", describe(value)))
            return
        fields = node[1]
        for key, item in value.items():
            child = fields.get(key)
            if child is not None:
                structure(child, item, f"{pointer}/{key}", problems)
        for key in node[2]:
            if key not in value:
                problems.append(Problem(f"{pointer}/{key}", expectation(fields[key]), "nothing"))
    elif kind == "array":
        if type(value) is not list:
            problems.append(Problem(pointer, "array", describe(value)))
            return
        item_node = node[1]
        strings = item_node is schema.STRING
        for index, item in enumerate(value):
            if not (strings and type(item) is str):
                structure(item_node, item, f"{pointer}/{index}", problems)
    elif kind == "map":
        if type(value) is not dict:
            problems.append(Problem(pointer, "object", describe(value)))
            return
        item_node = node[1]
        strings = item_node is schema.STRING
        for key, item in value.items():
            if not (strings and type(item) is str):
                structure(item_node, item, f"{pointer}/{escape(key)}", problems)
            if not key:
                problems.append(Problem(pointer, "keys that are not empty", 'key ""'))
    elif not fits(node, value):
        problems.append(Problem(pointer, expectation(node), describe(value)))


def fits(node: Node, value: Any) -> bool:
    """Whether a string, number or boolean is what its node says.  True is no integer, 1.0 is none either."""
    kind = node[0]
    if kind == "string":
        return type(value) is str and (node[1] is None or value in node[1])
    if kind == "integer":
        return type(value) is int and node[1] <= value <= node[2]
    return type(value) is bool


def expectation(node: Node) -> str:
    """A node in words, for messages."""
    kind: str = node[0]
    if kind == "string" and node[1] is not None:
        return "one of " + ", ".join(node[1])
    if kind == "integer":
        return f"integer from {node[1]} to {node[2]}"
    return "object" if kind == "map" else kind


def prune(node: Node, value: Any) -> Any:
    """A copy without the values that do not fit: fields are gone, items are None (indexes must not move)."""
    kind = node[0]
    if kind == "object":
        return {
            key: prune(node[1][key], item)
            for key, item in value.items()
            if key in node[1] and _kept(node[1][key], item)
        }
    if kind == "map":
        return {key: prune(node[1], item) for key, item in value.items() if key and _kept(node[1], item)}
    if kind == "array":
        return [prune(node[1], item) if _kept(node[1], item) else None for item in value]
    return value


def _kept(node: Node, value: Any) -> bool:
    kind = node[0]
    if kind in ("object", "map"):
        return type(value) is dict
    return type(value) is list if kind == "array" else fits(node, value)


def general(config: dict[str, Any], report: Report) -> None:
    """ociVersion, root, hooks."""
    text = config.get("ociVersion")
    if text is not None:
        _version(text, report)
    path = section(config, "root").get("path")
    if path is not None and (not path or normpath(path) == "/"):
        report.bad("/root/path", "a directory other than /", path)
    for kind, hooks in section(config, "hooks").items():
        if kind not in schema.CONFIG[1]["hooks"][1]:
            continue
        for pointer, hook in numbered(hooks, f"/hooks/{kind}"):
            # A relative path would be looked up by execve in whatever directory the runtime is (MUST be absolute).
            rules_process.absolute(hook.get("path"), f"{pointer}/path", report)
            rules_process.environment(hook.get("env"), f"{pointer}/env", report)


def _version(text: str, report: Report) -> None:
    numbers, ours = version(text), version(SPEC_VERSION)
    assert ours is not None
    if numbers is None:
        report.bad("/ociVersion", "a SemVer 2.0.0 version such as 1.3.0", text)
    elif numbers[0] != ours[0]:
        report.bad("/ociVersion", "version 1.x of the runtime specification", text)
    elif numbers[1] > ours[1]:
        # Legal: whatever 1.x adds are keys, and unknown keys are to be ignored.
        report.warn("/ociVersion", f"at most {SPEC_VERSION}", text, "fields that it does not know are ignored")
