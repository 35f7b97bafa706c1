"""Change the limits of a container that exists, and remember them.

    flags or JSON -> resources -> checked, merged with what is in force -> written, or all as before -> state.json

The stored resources are those of the last update, before the first one those of config.json: a quota that comes alone
is written with the period that the container has, and a later update starts from this one.
"""

from __future__ import annotations

import posix
from posix import O_CLOEXEC, O_DIRECTORY, O_PATH

from pyrunc import fs
from pyrunc.container import lifecycle
from pyrunc.errors import Capped, ConfigError, PyruncError, StateError, SysError, UsageError, show
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

    Sections = dict[str, Any]  # Resources to code that treats all members alike
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
# Values that say "as it is", because callers that know no null send them.
_UNSET = {
    "memory": ("limit", "swap", "reservation"),
    "cpu": ("shares", "quota", "period", "cpus", "mems"),
    "blockIO": ("weight",),
}
_WHOLE = ("memory", "cpu")  # sections whose fields depend on each other: written with what is stored of them
_SUFFIXES = "kmgtp"


# -- what is asked for ----------------------------------------------------------------------------------------


def from_flags(values: Mapping[str, object]) -> Resources:
    """The resources that the flags of `update` name.  Raises UsageError."""
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
                wanted = "bytes, with a suffix k, m or g if need be, or -1" if kind == "size" else "a number"
                raise UsageError(f"option --{flag} {show(text)}: expected {wanted}")
            out.setdefault(section, {})[field] = value
    return typed(out)


def number(text: str) -> int | None:
    """A decimal number, negative too; None when it is none."""
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None


def size(text: str) -> int | None:
    """Bytes as docker and runc write them: ``64m``, ``1.5GiB``, ``100 kb`` (powers of 1024), or -1; None otherwise."""
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
    """The LinuxResources object in a file, ``-`` for standard input.  Raises ConfigError, SysError."""
    try:
        data = fs.read_fd(0, load.MAX_BYTES) if path == "-" else fs.read_file(path, load.MAX_BYTES)
    except OSError as error:
        raise SysError("--resources", "open", error.errno or 0, value=path) from error
    return parse(data)


def parse(data: bytes) -> Resources:
    """A LinuxResources object as JSON.  Raises ConfigError."""
    resources: Resources = load.parse_json(data, SOURCE)
    problems = Capped()
    structure(schema.RESOURCES, resources, "", problems)
    if problems:
        raise ConfigError(problems, SOURCE)
    return typed(without_unknown(schema.RESOURCES, resources))


# -- merging (pure) -------------------------------------------------------------------------------------------


def asked(resources: Resources) -> Resources:
    """The changes that these resources ask for, without empty sections and values that mean "unset"."""
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
        limits["swap"] = -1  # else the stored swap limit would be one without a memory limit
    cpu = out.get("cpu", {})
    if "idle" in cpu and "shares" not in cpu:
        cpu["shares"] = 0  # an idle cgroup takes no weight, and one that no longer is gets the default one
    return out


def merge(stored: Resources, new: Resources) -> Resources:
    """What is in force when ``new`` (of `asked`) comes on top of ``stored``.

    Lists are merged by what their entries are about: the device, the page size.
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
    """Sections whose members come from resources that fit the schema."""
    return sections  # type: ignore[return-value]


def _by(old: list[Item] | None, new: list[Item], *keys: str) -> list[Item]:
    """Entries of ``old`` with those of ``new`` in their place, or after them, by the values of ``keys``."""
    found: dict[str, Item] = {}
    for item in [*(old or ()), *new]:
        key = fs.salted(":".join(str(item[name]) for name in keys))
        found[key] = {**found.get(key, {}), **item}
    return list(found.values())


def check(new: Resources, merged: Resources, log: Log) -> Resources:
    """What to write: of ``new``, with the stored rest of sections that are written whole.

    Raises ConfigError for values that make no sense by themselves or with what is stored.
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


# -- carrying it out ------------------------------------------------------------------------------------------


def stored(container: Container) -> Resources:
    """The resources in force: of the last update, else of the container's config.json.  Raises PyruncError."""
    found = container.data.get("resources")
    if found is None:
        config, _ = load.load_config(f"{container.dir}/config.json")
        found = config.get("linux", {}).get("resources", {})
    return found


def update(container: Container, resources: Resources, log: Log, schemata: dict[str, str] | None = None) -> None:
    """Apply resources to a locked container that is created, running or paused, and save them.

    ``schemata``: lines for its resctrl group, by the flag that they came with.

    Raises StateError when it has stopped, ConfigError, and PyruncError; all limits are as before then.
    """
    if container.status() in ("stopped", "creating"):
        raise StateError("container not running")
    old, new = stored(container), asked(resources)
    merged = merge(old, new)
    out = check(new, merged, log)
    rules = out.pop("devices", None)
    if rules == old.get("devices"):
        rules = None  # engines send the whole of what they have, also to change one limit
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
            log.warning(f"{file} of cgroup {path} could not be put back to what it was")
        if cgroup_fd >= 0:
            put_rules_back(driver, cgroup_fd, old, log)
        raise
    finally:
        if cgroup_fd >= 0:
            fs.close(cgroup_fd)


def change(driver: Driver, path: str, cgroup_fd: int, out: Resources, rules: list[DeviceRule] | None) -> None:
    """Limits first: a device program that was replaced is the harder one to get back.  Raises PyruncError."""
    driver.apply(path, out, "")
    if rules is not None:
        driver.devices(cgroup_fd, rules, "/devices", replace=True)


def put_rules_back(driver: Driver, cgroup_fd: int, old: Resources, log: Log) -> None:
    """Restore the device program of the old rules; the original error is the one to report."""
    try:
        driver.devices(cgroup_fd, old.get("devices"), "/devices", replace=True)
    except PyruncError as error:
        log.warning(f"the old device rules could not be put back: {error}")


def check_usage(directory: str, limits: Memory) -> None:
    """Refuse limits below the current usage: memory.max would invoke the OOM killer
    (docs/callers.md).

    Unreadable usage is not a reason to refuse. Raises PyruncError.
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
    """The resctrl group that ``--l3-cache-schema`` and ``--mem-bw-schema`` change.  Raises PyruncError without one."""
    found = container.data.get("rdt")
    if not found:
        raise PyruncError(f"--{flags[0]}: the container has no intelRdt (/linux/intelRdt in its config.json)")
    return found


def change_schemata(container: Container, wanted: dict[str, str], log: Log) -> Callable[[], None]:
    """Write the schemata of flags; returns what puts the former ones back.  Raises PyruncError with nothing changed."""
    from pyrunc.cgroup import rdt

    group = rdt_class(container, list(wanted))
    before = [("intelRdt", line) for line in rdt.schemata(group["group"]).splitlines()]
    lines = [(f"--{flag}", line) for flag, text in wanted.items() for line in text.split("\n") if line.strip()]

    def restore() -> None:
        try:
            rdt.write_schemata(group, before)
        except PyruncError as error:
            log.warning(f"the old schemata could not be put back: {error}")

    try:
        rdt.write_schemata(group, lines)
    except PyruncError:
        restore()
        raise
    return restore
