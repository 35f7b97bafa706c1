"""Rules for `linux.intelRdt`.  Loaded only for a config that has it."""

from __future__ import annotations

from pyrunc.spec.report import numbered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.spec.report import Report

# Directories that every resctrl file system has at its top.
TEXT_MAX = 65536  # of a schemata file, where one write takes a page
RESERVED = (".", "..", "info", "mon_groups", "mon_data")


def check(config: dict[str, Any], report: Report) -> None:
    """A class that is one directory, schemata of one line each, and a resctrl file system to write them to."""
    pointer = "/linux/intelRdt"
    clos = config.get("closID") or ""
    if clos in RESERVED or (clos != "/" and "/" in clos) or any(char in clos for char in "\n\0"):
        report.bad(f"{pointer}/closID", 'the name of a class, or "/" for the default one', clos)
    if config.get("l3CacheSchema") and not config["l3CacheSchema"].lstrip().startswith("L3"):
        report.warn(f"{pointer}/l3CacheSchema", "a schema that begins with L3:", config["l3CacheSchema"])
    bandwidth = config.get("memBwSchema")
    if bandwidth and (not bandwidth.startswith("MB:") or "\n" in bandwidth):
        report.bad(f"{pointer}/memBwSchema", "one line that begins with MB:", bandwidth)
    for here, line in numbered(config.get("schemata"), f"{pointer}/schemata"):
        if "\n" in line or ":" not in line:
            report.bad(here, "one line such as L3:0=7f0;1=1f", line)
    for field in ("l3CacheSchema", "memBwSchema"):
        text = config.get(field) or ""
        if len(text) > TEXT_MAX:
            report.bad(
                f"{pointer}/{field}", f"at most {TEXT_MAX} characters", f"{text[:20]}...", f"{len(text)} characters"
            )
    if report.facts is not None and not report.facts.resctrl:
        report.bad(
            pointer,
            "a mounted resctrl file system",
            config,
            "mount -t resctrl resctrl /sys/fs/resctrl, on a cpu with RDT",
        )
