"""Change the limits of an existing container, and save them.

    flags or JSON -> resources -> check, merge with the current ones -> write -> state.json

The current resources are those of the last update, or of config.json.  They complete an update: a
quota without a period is written with the current period.
"""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_DIRECTORY, O_PATH

from pyrunc import fs
from pyrunc.container import lifecycle
from pyrunc.errors import Capped, ConfigError, PyruncError, StateError, UsageError, show
from pyrunc.spec import load, rules_resources, schema
from pyrunc.spec.report import Report
from pyrunc.spec.structure import structure, without_unknown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from pyrunc.cgroup import Driver, rdt
    from pyrunc.log import Log
    from pyrunc.spec.types import DeviceRule, Memory, Resources
    from pyrunc.state import Container

    Sections = dict[str, Any]  # Resources, for code that handles all members alike
    Item = dict[str, object]

SOURCE = "resources"

# flag -> section, field, kind of value
FIELDS = (
    ("blkio-weight", "blockIO", "weight", "number"),
    ("cpu-period", "cpu", "period", "number"),
    ("cpu-quota", "cpu", "quota", "number"),
    ("cpu-burst", "cpu", "burst", "number"),
    ("cpu-share", "cpu", "shares", "number"),
    ("cpu-rt-period", "cpu", "realtimePeriod", "number"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime", "number"),
    ("cpu-idle", "cpu", "idle", "number"),
    ("cpuset-cpus", "cpu", "cpus", "text"),
    ("cpuset-mems", "cpu", "mems", "text"),
    ("kernel-memory", "memory", "kernel", "size"),
    ("kernel-memory-tcp", "memory", "kernelTCP", "size"),
    ("memory", "memory", "limit", "size"),
    ("memory-reservation", "memory", "reservation", "size"),
    ("memory-swap", "memory", "swap", "size"),
    ("pids-limit", "pids", "limit", "number"),
)
# Fields whose zero value means "unchanged": callers without null send it.
_UNSET = {
    "memory": ("limit", "swap", "reservation"),
    "cpu": ("shares", "quota", "period", "cpus", "mems"),
    "blockIO": ("weight",),
}
_WHOLE = ("memory", "cpu")  # sections with interdependent fields, written as a whole
_SUFFIXES = "kmgtp"


# -- parsing ---------------------------------------------------------------------------------------


def from_flags(values: Mapping[str, object]) -> Resources:
    """Parse the flags of `update`.  Raises UsageError."""
    out: dict[str, dict[str, str | int]] = {}
    for flag, section, field, kind in FIELDS:
        text = values.get(flag)
        if not isinstance(text, str) or (text == "" and kind == "text"):
            continue
        if kind == "text":
            out.setdefault(section, {})[field] = text
        else:
            value = size(text) if kind == "size" else number(text)
            if value is None:
                wanted = "bytes, with an optional suffix k, m or g, or -1" if kind == "size" else "a number"
                raise UsageError(f"option --{flag} {show(text)}: expected {wanted}")
            out.setdefault(section, {})[field] = value
    return typed(out)


def number(text: str) -> int | None:
    """Parse a decimal number, which may be negative.  Returns None if it is not a number."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


def size(text: str) -> int | None:
    """Parse a size as docker and runc do: ``64m``, ``1.5GiB``, ``100 kb`` (powers of 1024), or -1.

    Returns bytes, or None.
    """
    if text.strip() == "-1":
        return -1
    if not text.isascii():
        return None  # U+212A becomes "k" in lower case
    short = text.strip().lower()
    short = short.removesuffix("b").rstrip() if short != "b" else short
    if short.endswith("i") and short[-2:-1] in _SUFFIXES:
        short = short[:-1]
    power = _SUFFIXES.find(short[-1:]) + 1 if short else 0
    digits = short[:-1].rstrip() if power else short
    whole, point, fraction = digits.partition(".")
    if not whole.isdigit() or (point and not fraction.isdigit()) or len(whole) > 18:
        return None
    scale = 1 << 10 * power
    return int(whole) * scale + (int(fraction[:18]) * scale // 10 ** len(fraction[:18]) if fraction else 0)


def from_file(path: str) -> Resources:
    """Read a LinuxResources object from a file, or stdin (``-``).  Raises ConfigError, SysError."""
    return parse(load.read_document("--resources", path))


def parse(data: bytes) -> Resources:
    """Parse a LinuxResources object in JSON.  Raises ConfigError."""
    resources: Resources = load.parse_json(data, SOURCE)
    problems = Capped()
    structure(schema.RESOURCES, resources, "", problems)
    if problems:
        raise ConfigError(problems, SOURCE)
    return typed(without_unknown(schema.RESOURCES, resources))


# -- merging (pure) --------------------------------------------------------------------------------


def asked(resources: Resources) -> Resources:
    """The requested changes: ``resources`` without empty sections and unset values."""
    sections: Sections = {**resources}
    found: Sections = {}
    for key, value in sections.items():
        if key in schema.RESOURCES[1]:
            if key in _UNSET:
                unset = _UNSET[key]
                value = {name: item for name, item in value.items() if item or name not in unset}
                if key == "cpu" and "idle" in value and "shares" in sections[key]:
                    value["shares"] = sections[key]["shares"]
            if value or key == "devices":
                found[key] = value
    out = typed(found)
    limits = out.get("memory", {})
    if limits.get("limit") == -1 and "swap" not in limits:
        limits["swap"] = -1  # a swap limit is invalid without a memory limit
    cpu = out.get("cpu", {})
    if "idle" in cpu and "shares" not in cpu:
        cpu["shares"] = 0  # an idle cgroup has no weight; otherwise use the default
    return out


def merge(stored: Resources, new: Resources) -> Resources:
    """Apply ``new`` (from `asked`) to ``stored``, and return the result.

    Lists are merged by the key of their entries: the device or the page size.
    """
    out: Sections = {**stored}
    changes: Sections = {**new}
    for key, value in changes.items():
        old = out.get(key)
        if key == "hugepageLimits":
            out[key] = _by(old, value, "pageSize")
        elif isinstance(value, dict):
            out[key] = {**(old or {}), **value}
            for name, item in value.items():
                if key == "blockIO" and type(item) is list:
                    out[key][name] = _by((old or {}).get(name), item, "major", "minor")
        else:
            out[key] = value
    return typed(out)


def typed(sections: Sections) -> Resources:
    """Cast sections whose members come from valid resources."""
    return sections  # type: ignore[return-value]


def _by(old: list[Item] | None, new: list[Item], *keys: str) -> list[Item]:
    """Entries of ``old``, replaced by or followed by those of ``new``, identified by ``keys``."""
    found: dict[str, Item] = {}
    for item in [*(old or ()), *new]:
        key = fs.salted(":".join(str(item[name]) for name in keys))
        found[key] = {**found.get(key, {}), **item}
    return list(found.values())


def check(new: Resources, merged: Resources, log: Log) -> Resources:
    """The resources to write: ``new``, with the sections of `_WHOLE` completed from ``merged``.

    Raises ConfigError for values that are invalid alone or together with the stored ones.
    """
    sections: Sections = {**merged}
    out = typed({key: sections[key] if key in _WHOLE else value for key, value in new.items()})
    report = Report()
    structure(schema.RESOURCES, out, "", report.problems)
    if not report.problems:
        rules_resources.check(out, report, "")
    if report.problems:
        raise ConfigError(report.problems, SOURCE)
    log.warnings(report.warnings, SOURCE)
    return out


# -- applying --------------------------------------------------------------------------------------


def stored(container: Container) -> Resources:
    """The current resources: of the last update, else of config.json.  Raises PyruncError."""
    found = container.data.get("resources")
    if found is None:
        config, _ = load.load_config(f"{container.dir}/config.json")
        found = config.get("linux", {}).get("resources", {})
    return found


def update(container: Container, resources: Resources, log: Log, schemata: dict[str, str] | None = None) -> None:
    """Apply resources to a locked container that is created, running or paused, and save them.

    ``schemata`` maps a flag to lines for the resctrl group.

    Raises StateError if the container has stopped, ConfigError, PyruncError; all limits are
    restored first.
    """
    if container.status() in ("stopped", "creating"):
        raise StateError("container not running")
    old, new = stored(container), asked(resources)
    merged = merge(old, new)
    out = check(new, merged, log)
    rules = out.pop("devices", None)
    if rules == old.get("devices"):
        rules = None  # engines send all resources to change one limit
    driver, path = lifecycle.driver_of(container), container.data.get("cgroup") or ""
    if out.get("memory", {}).get("checkBeforeUpdate"):
        check_usage(container.data.get("cgroup_dir", ""), new.get("memory", {}))
    values = driver.values(path, out, "")
    before, cgroup_fd = container.data, -1
    put_schemata_back = change_schemata(container, schemata, log) if schemata else None
    try:
        if rules is not None and path:
            cgroup_fd = posix.open(container.data["cgroup_dir"], O_PATH | O_DIRECTORY | O_CLOEXEC)
        change(driver, path, cgroup_fd, out, rules)
        container.data = {**before, "resources": merged}
        container.save()
    except BaseException:
        container.data = before
        if put_schemata_back is not None:
            put_schemata_back()
        for file in driver.restore(path, values):
            log.warning(f"cannot restore {file} of cgroup {path}")
        if cgroup_fd >= 0:
            put_rules_back(driver, cgroup_fd, old, log)
        raise
    finally:
        if cgroup_fd >= 0:
            fs.close(cgroup_fd)


def change(driver: Driver, path: str, cgroup_fd: int, out: Resources, rules: list[DeviceRule] | None) -> None:
    """Write the limits, then the device rules, which are harder to restore.  Raises PyruncError."""
    driver.apply(path, out, "")
    if rules is not None:
        driver.devices(cgroup_fd, rules, "/devices", replace=True)


def put_rules_back(driver: Driver, cgroup_fd: int, old: Resources, log: Log) -> None:
    """Restore the device program of the old rules; the original error is the one to report."""
    try:
        driver.devices(cgroup_fd, old.get("devices"), "/devices", replace=True)
    except PyruncError as error:
        log.warning(f"cannot restore the old device rules: {error}")


def check_usage(directory: str, limits: Memory) -> None:
    """Refuse limits below the current usage, which would invoke the OOM killer (docs/callers.md).

    If the usage is unreadable, all limits are accepted.  Raises PyruncError.
    """
    try:
        used = int(fs.read_file(f"{directory}/memory.current", 64))
    except (OSError, ValueError):
        return
    for field, name, value in (
        ("swap", "memory+swap limit", limits.get("swap", 0)),
        ("limit", "memory limit", limits.get("limit", 0)),
    ):
        if 0 < value <= used:
            raise PyruncError(f"/memory/{field} {value}: rejecting {name} {value} <= usage {used}")


def rdt_class(container: Container, flags: list[str]) -> rdt.Record:
    """The resctrl group for ``--l3-cache-schema`` and ``--mem-bw-schema``.

    Raises PyruncError if the container has none.
    """
    found = container.data.get("rdt")
    if not found:
        raise PyruncError(f"--{flags[0]}: the container has no intelRdt (/linux/intelRdt in its config.json)")
    return found


def change_schemata(container: Container, wanted: dict[str, str], log: Log) -> Callable[[], None]:
    """Write the schemata of flags, and return a function that restores the old ones.

    Raises PyruncError after the old ones were restored.
    """
    from pyrunc.cgroup import rdt

    group = rdt_class(container, list(wanted))
    before = [("intelRdt", line) for line in rdt.schemata(group["group"]).splitlines()]
    lines = [(f"--{flag}", line) for flag, text in wanted.items() for line in text.split("\n") if line.strip()]

    def restore() -> None:
        try:
            rdt.write_schemata(group, before)
        except PyruncError as error:
            log.warning(f"cannot restore the old schemata: {error}")

    try:
        rdt.write_schemata(group, lines)
    except PyruncError:
        restore()
        raise
    return restore
