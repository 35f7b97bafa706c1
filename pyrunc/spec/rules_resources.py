"""Rules for `linux.resources`: ranges that the kernel requires, and limits that cgroup v2 lacks."""

from __future__ import annotations

from pyrunc.fs import salted
from pyrunc.spec.names import cpu_list, escape
from pyrunc.spec.report import numbered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from pyrunc.spec.report import Report
    from pyrunc.spec.types import BlockIO, Cpu, DeviceRule, HugepageLimit, Memory, Resources, WeightDevice

WEIGHT_MIN, WEIGHT_MAX = 10, 1000  # of blkio; converted to io.weight
PERIOD_MIN, PERIOD_MAX = 1000, 1_000_000  # microseconds; kernel/sched/core.c, min and max_cfs_quota_period
QUOTA_MIN = 1000
ENTRIES_MAX = 1000  # each is a file, a device or a page size of this host
NAME_MAX = 255
TEXT_MAX = 65536  # of a cgroup file; one write is at most a page


def check(resources: Resources, report: Report, pointer: str = "/linux/resources") -> None:
    """All rules of `linux.resources`."""
    field: Literal["hugepageLimits", "rdma", "unified"]
    for field in ("hugepageLimits", "rdma", "unified"):
        entries = resources.get(field)
        if entries and len(entries) > ENTRIES_MAX:
            report.bad(f"{pointer}/{field}", f"at most {ENTRIES_MAX} entries", len(entries))
            return
    device_rules(resources.get("devices"), f"{pointer}/devices", report)
    memory(resources.get("memory", {}), f"{pointer}/memory", report)
    cpu(resources.get("cpu", {}), f"{pointer}/cpu", report)
    block_io(resources.get("blockIO", {}), f"{pointer}/blockIO", report)
    huge_pages(resources.get("hugepageLimits"), f"{pointer}/hugepageLimits", report)
    others(resources, pointer, report)


def device_rules(rules: list[DeviceRule] | None, pointer: str, report: Report) -> None:
    """Each rule needs an access: an empty one could mean nothing or everything.

    An ``a`` with other letters is ignored, as in runc: in rules for cgroup v1 it meant "all".
    """
    for here, rule in numbered(rules, pointer):
        access = rule.get("access")
        if access is None:
            report.bad(f"{here}/access", "a combination of r, w and m")
        elif access.strip("rwma") or not access.strip("a"):
            report.bad(f"{here}/access", "a combination of r, w and m", access)


def memory(limits: Memory, pointer: str, report: Report) -> None:
    """`swap` is memory plus swap; v2 takes the difference, so a memory limit is required."""
    limit, swap = limits.get("limit", 0), limits.get("swap", 0)
    if swap > 0:
        if limit <= 0:
            report.bad(f"{pointer}/swap", "no swap limit without a memory limit", swap)
        elif swap < limit:
            report.bad(f"{pointer}/swap", f"at least the memory limit {limit} (it is memory plus swap)", swap)
    field: Literal["kernel", "kernelTCP"]
    for field in ("kernel", "kernelTCP"):
        if limits.get(field, -1) > 0:
            report.warn(f"{pointer}/{field}", "no limit of its own", limits[field], "cgroup v2 has none, ignored")
    if "swappiness" in limits:
        report.warn(f"{pointer}/swappiness", "nothing", limits["swappiness"], "cgroup v2 has none, ignored")
    if limits.get("disableOOMKiller"):
        report.warn(f"{pointer}/disableOOMKiller", "nothing", True, "not possible with cgroup v2, ignored")
    if limits.get("useHierarchy") is False:
        report.warn(f"{pointer}/useHierarchy", "true", False, "always so with cgroup v2, ignored")


def cpu(limits: Cpu, pointer: str, report: Report) -> None:
    """cpu.max takes a period of 1 ms to 1 s and a quota of at least 1 ms; 0 means unset."""
    period, quota, burst = limits.get("period", 0), limits.get("quota", 0), limits.get("burst", 0)
    if period and not PERIOD_MIN <= period <= PERIOD_MAX:
        report.bad(f"{pointer}/period", f"0 or {PERIOD_MIN} to {PERIOD_MAX} microseconds", period)
    if 0 < quota < QUOTA_MIN:
        report.bad(f"{pointer}/quota", f"at least {QUOTA_MIN} microseconds", quota)
    if quota > 0 and burst > quota:
        report.bad(f"{pointer}/burst", f"at most the quota {quota}", burst)
    if limits.get("idle", 0) not in (0, 1):
        report.bad(f"{pointer}/idle", "0 or 1", limits["idle"])
    field: Literal["realtimeRuntime", "realtimePeriod"]
    for field in ("realtimeRuntime", "realtimePeriod"):
        if limits.get(field):
            report.bad(f"{pointer}/{field}", "nothing here, cgroup v2 has no realtime limits", limits[field])
    nodes: Literal["cpus", "mems"]
    for nodes in ("cpus", "mems"):
        text = limits.get(nodes)
        if text and not cpu_list(text):
            report.bad(f"{pointer}/{nodes}", "a list such as 0-3,7", text)


def block_io(limits: BlockIO, pointer: str, report: Report) -> None:
    """Weights from 10 to 1000, 0 for unset; v2 has no leaf weights."""
    _weight(limits, pointer, report)
    for here, entry in numbered(limits.get("weightDevice"), f"{pointer}/weightDevice"):
        _weight(entry, here, report)
        if "weight" not in entry and "leafWeight" not in entry:
            report.bad(f"{here}/weight", f"integer from {WEIGHT_MIN} to {WEIGHT_MAX}")


def _weight(holder: BlockIO | WeightDevice, pointer: str, report: Report) -> None:
    weight = holder.get("weight", 0)
    if weight and not WEIGHT_MIN <= weight <= WEIGHT_MAX:
        report.bad(f"{pointer}/weight", f"0 or {WEIGHT_MIN} to {WEIGHT_MAX}", weight)
    if holder.get("leafWeight"):
        report.bad(f"{pointer}/leafWeight", "nothing here, cgroup v2 has no leaf weights", holder["leafWeight"])


def huge_pages(limits: list[HugepageLimit] | None, pointer: str, report: Report) -> None:
    """Page sizes as in the names of control files: 2MB, 64KB, 1GB."""
    seen: set[str] = set()
    for here, entry in numbered(limits, pointer):
        size = entry.get("pageSize")
        if size is None:
            continue
        digits = size[:-2]
        if not (digits.isascii() and digits.isdigit() and digits[0] != "0" and size[-2:] in ("KB", "MB", "GB")):
            report.bad(f"{here}/pageSize", "a size such as 64KB, 2MB or 1GB", size)
        elif salted(size) in seen:
            report.bad(f"{here}/pageSize", "each page size once", size)
        seen.add(salted(size))


def others(resources: Resources, pointer: str, report: Report) -> None:
    """network, rdma, unified."""
    network = resources.get("network", {})
    field: Literal["classID", "priorities"]
    for field in ("classID", "priorities"):
        if network.get(field):
            expected = "nothing here, cgroup v2 has neither net_cls nor net_prio"
            report.bad(f"{pointer}/network/{field}", expected, network[field])
    for name, limits in resources.get("rdma", {}).items():
        here = f"{pointer}/rdma/{escape(name)}"
        if "hcaHandles" not in limits and "hcaObjects" not in limits:
            report.bad(here, "hcaHandles, hcaObjects or both", limits)
        if len(name.split()) != 1:  # the name is the first word of a line in rdma.max
            report.bad(here, "a device name without blanks", name)
    for name, text in resources.get("unified", {}).items():
        if "/" in name or name in (".", "..") or len(name) > NAME_MAX:
            report.bad(f"{pointer}/unified/{escape(name)}", "the name of a file in the container's cgroup", name)
        elif len(text) > TEXT_MAX:
            hint = f"{len(text)} characters"
            report.bad(f"{pointer}/unified/{escape(name)}", f"at most {TEXT_MAX} characters", f"{text[:20]}...", hint)
