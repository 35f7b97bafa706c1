"""Rules for `linux.intelRdt`. Only loaded for a config that has it."""

from __future__ import annotations

from pyrunc.spec.report import numbered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.spec.report import Report
    from pyrunc.spec.types import IntelRdt

TEXT_MAX = 65536  # of a schemata file; one write is at most a page
# Directories at the top of every resctrl filesystem.
RESERVED = (".", "..", "info", "mon_groups", "mon_data")


def check(wanted: IntelRdt, report: Report) -> None:
    """A class that is one directory, schemata of one line each, and a mounted resctrl."""
    pointer = "/linux/intelRdt"
    clos = wanted.get("closID") or ""
    if clos in RESERVED or (clos != "/" and "/" in clos) or any(char in clos for char in "\n\0"):
        report.bad(f"{pointer}/closID", 'the name of a class, or "/" for the default one', clos)
    if wanted.get("l3CacheSchema") and not wanted["l3CacheSchema"].lstrip().startswith("L3"):
        report.warn(f"{pointer}/l3CacheSchema", "a schema that begins with L3:", wanted["l3CacheSchema"])
    bandwidth = wanted.get("memBwSchema")
    if bandwidth and (not bandwidth.startswith("MB:") or "\n" in bandwidth):
        report.bad(f"{pointer}/memBwSchema", "one line that begins with MB:", bandwidth)
    for here, line in numbered(wanted.get("schemata"), f"{pointer}/schemata"):
        if "\n" in line or ":" not in line:
            report.bad(here, "one line such as L3:0=7f0;1=1f", line)
    field: Literal["l3CacheSchema", "memBwSchema"]
    for field in ("l3CacheSchema", "memBwSchema"):
        text = wanted.get(field) or ""
        if len(text) > TEXT_MAX:
            report.bad(
                f"{pointer}/{field}", f"at most {TEXT_MAX} characters", f"{text[:20]}...", f"{len(text)} characters"
            )
    if report.facts is not None and not report.facts.resctrl:
        report.bad(
            pointer,
            "a mounted resctrl file system",
            wanted,
            "mount -t resctrl resctrl /sys/fs/resctrl, on a cpu with RDT",
        )
