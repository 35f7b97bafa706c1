"""Each rule of spec/ for mounts, resources, the process and devices alone, as in test_spec_steps.py.

golden/spec_steps_rules.txt has the results (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review the diff).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from plan_support import Facts
from pyrunc.spec import (
    added_mounts,
    report,
    rules_mounts,
    rules_netdev,
    rules_process,
    rules_rdt,
    rules_resources,
    rules_scheduling,
)
from spec_support import ROOT, USER, WHOLE, compare, linux, rules, said
from test_results import results


def test_mounts() -> None:
    def at(path: Any, *options: str, **more: Any) -> dict[str, Any]:
        return {"destination": path, "type": "tmpfs", "source": "s", "options": list(options), **more}

    cases = [
        *(at(path) for path in (
            "/a", "", "a", "/", "/..", "/a/..", "/proc", "proc", "/proc/", "/x/../proc", "/proc/meminfo",
            "/proc/uptime/",
            "/proc/x", "/proc/sys/kernel/ns_last_pid", "/process", "/" + "x" * 4094, "/" + "x" * 4095,
        )),
        at("/proc", type="proc"), at("/proc", "bind", source="/proc"), at("/proc", "rbind", source="/proc/."),
        at("/proc", "bind", source="/x", type="proc"), at("/proc", "bind"), at("/proc", "remount"),
        at("/proc", "bind", "remount"), {"destination": "/proc"}, {"destination": "/proc", "options": ["bind"]},
        {"destination": "/proc", "options": ["bind"], "source": "/proc" + "/" * 5000}, {}, {"options": ["bind"]},
        at("/a", type=""), at("/a", type="none"), at("/a", type="bind"), at("/a", "remount", type="none"),
        {"destination": "/a"}, {"destination": "/a", "options": ["remount"]}, at("/a", "bind", source=""),
        at("/a", "rbind", source="/" + "x" * 4095), at("/a", "rbind", type="none"), at("/a", "idmap"),
        at("/a", "idmap=x"), at("/a", "ro", "ridmap=", "idmap=uids=1"), at("/a", "xidmap=1"), at("/a", "mode=1"),
        at("/a", uidMappings=WHOLE), at("/a", gidMappings=WHOLE), at("/a", uidMappings=[]), at("/a", "ridmap"),
    ]  # fmt: skip
    documents: list[Any] = [{}, {"mounts": []}, *({"mounts": [None, case]} for case in cases)]
    compare("spec_steps_rules", "mounts", rules(lambda case, found: rules_mounts.check(case, found, ""), documents))
    paths = ["/proc", "proc", "/proc/.", "/proc/x", "", "/" * 4096 + "proc", "/" * 4090 + "proc"]
    compare("spec_steps_rules", "at proc", results(lambda path: rules_mounts.is_at_proc({"destination": path}), paths))


def test_mounts_of_a_running_container() -> None:
    def rule(case: Any, found: report.Report) -> None:
        added_mounts._running(case, "/0", found)

    cases = [
        {}, {"options": ["ro"]}, {"options": ["ro", "remount", "tmpcopyup"]}, {"destination": "/proc"},
        {"destination": "/proc", "type": "x"}, {"destination": "/p", "type": "proc"},
        {"destination": "/p", "type": "proc", "options": ["bind"]}, {"type": "proc", "options": ["rbind", "ro"]},
        {"destination": "/p", "type": "tmpfs"},
    ]  # fmt: skip
    compare("spec_steps_rules", "mounts of a running container", rules(rule, cases))
    documents = [
        [], {}, [5], [{}], [{"destination": "/a"}], [{"destination": "/a", "x": 1, "options": ["ro"]}],
        [{"destination": "/a"}] * 100, [{"destination": "/a"}] * 101, [{"destination": 5}] * 102,
    ]  # fmt: skip
    compare(
        "spec_steps_rules",
        "documents of mounts",
        results(lambda found: added_mounts.parse(json.dumps(found).encode()), documents),
    )
    mount = {"destination": "/a", "type": "tmpfs", "source": "t"}
    cases = [
        [mount], [{"destination": "b", "type": "tmpfs", "options": ["uid=70"]}], [mount | {"options": ["remount"]}],
        [{"destination": "/b", "source": "/s", "options": ["bind", "idmap"]}], [mount | {"type": "none"}],
    ]  # fmt: skip

    def whole(case: Any, facts: Any, *spaces: str) -> Any:
        kinds = [{"type": kind} for kind in spaces]
        return added_mounts.check(case, linux(namespaces=kinds, uidMappings=WHOLE), facts)

    lines = [line for facts in (ROOT, USER) for spaces in ((), ("user",)) for line in results(
        lambda case, facts=facts, spaces=spaces: whole(case, facts, *spaces), [(case,) for case in cases])]  # fmt: skip
    compare("spec_steps_rules", "mounts to add", lines)


# -- resources -------------------------------------------------------------------------------------


RESOURCES: dict[str, list[Any]] = {
    "devices": [[{}], [{"access": access} for access in ("", "r", "rwm", "a", "aa", "ra", "x", "rx", "R")]],
    "memory": [
        {}, *({"limit": limit, "swap": swap} for limit in (-1, 0, 1, 5) for swap in (-1, 0, 1, 4, 5, 6)), {"swap": 1},
        *({field: value} for field in ("kernel", "kernelTCP", "swappiness") for value in (-1, 0, 1)),
        *({field: value} for field in ("disableOOMKiller", "useHierarchy") for value in (False, True)),
    ],
    "cpu": [
        *({"period": value} for value in (0, 1, 999, 1000, 1000000, 1000001)),
        *({"quota": value} for value in (-1, 0, 1, 999, 1000)), {"quota": 2000, "burst": 2000},
        {"quota": 2000, "burst": 2001}, {"quota": 0, "burst": 1}, {"quota": -1, "burst": 1}, {"burst": 5},
        *({"idle": value} for value in (-1, 0, 1, 2)),
        *({field: value} for field in ("realtimeRuntime", "realtimePeriod") for value in (0, 5)),
        *({field: value} for field in ("cpus", "mems") for value in ("", "0", "x")),
    ],
    "blockIO": [
        *({"weight": value} for value in (0, 1, 9, 10, 1000, 1001)), {"leafWeight": 0}, {"leafWeight": 5},
        {"weightDevice": [{}, {"weight": 9}, {"weight": 0}, {"leafWeight": 0}, {"leafWeight": 1}, None]},
    ],
    "hugepageLimits": [
        [{"pageSize": size} for size in ("2MB", "1GB", "64KB", "2MB", "1TB", "0MB", "02MB", "MB", "", "\u0661MB", "2mb",
                                         "2 MB", "x", "-1MB", "x", "1MB2")],
        [{}, None],
    ],
    "network": [{}, {"classID": 0, "priorities": []}, {"classID": 1}, {"priorities": [1]}],
    "rdma": [{"a": {}}, {"a": {"hcaHandles": 0}, "b c": {"hcaObjects": 1}, "": {"hcaObjects": 1}, "~/ ": {}}],
    "unified": [
        {"a": "1", "a/b": "1", ".": "1", "..": "1", "...": "1", "n" * 255: "1", "n" * 256: "1"},
        {"a": "x" * 65536, "b/~": "x" * 65537, "c": "x" * 65537},
    ],
}  # fmt: skip


@pytest.mark.parametrize("field", RESOURCES)
def test_resources(field: str) -> None:
    cases = [{field: case} for case in RESOURCES[field]]
    lines = rules(rules_resources.check, cases)
    compare("spec_steps_rules", f"resources {field}", lines)


def test_number_of_resources() -> None:
    def rule(case: Any, found: report.Report) -> None:
        field, count, other = case
        entries: Any = {f"{n}": {} for n in range(count)} if field == "rdma" else {f"a{n}": "1" for n in range(count)}
        entries = [{"pageSize": f"{n + 1}KB"} for n in range(count)] if field == "hugepageLimits" else entries
        given: Any = {field: entries, **other}
        rules_resources.check(given, found)

    cases = [
        (field, count, {"cpu": {"idle": 2}}) for field in ("hugepageLimits", "rdma", "unified") for count in (0, 1,
        1001)
    ]  # fmt: skip
    compare(
        "spec_steps_rules",
        "number of resources",
        rules(rule, [*cases, ("unified", 1000, {}), ("hugepageLimits", 1000, {})]),
    )


# -- process ---------------------------------------------------------------------------------------


CAPS = {kind: ["CAP_KILL", "CAP_BPF", "CAP_X"] for kind in ("bounding", "effective", "inheritable", "ambient")}
PROCESSES: list[Any] = [
    {}, {"cwd": "/", "args": ["a"]}, {"args": []}, {"args": [""]}, {"args": ["a", ""]}, {"args": [None, "b"]},
    {"cwd": "x"}, {"cwd": "/" + "x" * 4094}, {"cwd": "/" + "x" * 4095}, {"env": ["A=b", "A=", "=b", "A", "", None]},
    {"terminal": True}, {"terminal": True, "consoleSize": {"height": 65535, "width": 65536}},
    {"terminal": True, "consoleSize": {"height": 65536}}, {"consoleSize": {"height": 65536}},
    {"rlimits": [{"type": "a", "soft": 1, "hard": 1}, {"type": "a", "soft": 2, "hard": 1}, {}, {}, None, {"soft": 1},
                 {"hard": 1}, {"type": "b", "soft": 0, "hard": 0}]},
    {"capabilities": CAPS}, {"capabilities": {"permitted": ["CAP_KILL", "CAP_X"]}},
    {"apparmorProfile": ""}, {"apparmorProfile": "unconfined"}, {"apparmorProfile": "p", "selinuxLabel": "s"},
    {"user": {"additionalGids": [1] * 65536}}, {"user": {"additionalGids": [1] * 65537}},
    {"scheduler": {"policy": "SCHED_FIFO"}}, {"execCPUAffinity": {"initial": "x", "final": "8192"}},
    {"execCPUAffinity": {"initial": "", "final": "8191"}}, {"scheduler": {}},
]  # fmt: skip


def test_process() -> None:
    cases = [{"args": ["a"], "cwd": "/"} | case if index else case for index, case in enumerate(PROCESSES)]
    lines = []
    for facts in (None, Facts(cap_last=38), Facts(cap_last=39, apparmor=True, selinux=True)):
        lines += rules(rules_process.check, cases, facts=facts)
    compare("spec_steps_rules", "process", lines)


def test_size_of_the_arguments() -> None:
    def rule(case: Any, found: report.Report) -> None:
        args, env, limits = case
        given: Any = {"args": args, "env": env, "rlimits": limits}
        rules_process.size(given, found)

    stack = [{"type": "RLIMIT_STACK", "soft": 4}]
    cases: list[Any] = [
        ([None, "x" * 131071], ["x" * 131072], []), (["\u00e4" * 65535], ["\u00e4" * 65536], []),
        (["x" * 65536, "x" * 65518], [], stack), (["x" * 65536, "x" * 65519], [], stack),
        (["x" * 65536], ["x" * 65519], [None, {}, {"type": "RLIMIT_CPU", "soft": 4}, {"type": "RLIMIT_STACK"}]),
        (["x" * 65536], ["x" * 65519], [{"type": "RLIMIT_STACK", "soft": 524288}]),
        (["x" * 65536], ["x" * 65519], [{"type": "RLIMIT_STACK", "soft": 524292}]),
        (["x" * 131000] * 48, [], []), (["x" * 131000] * 49, [], []),
    ]  # fmt: skip
    compare("spec_steps_rules", "size of the arguments", rules(rule, cases))


SCHEDULERS: list[Any] = [
    *({"policy": policy, "nice": nice} for policy in ("SCHED_OTHER", "SCHED_IDLE", "SCHED_FIFO", "SCHED_ISO")
      for nice in (-21, -20, 0, 19, 20)),
    *({"policy": policy, "priority": priority} for policy in ("SCHED_BATCH", "SCHED_FIFO", "SCHED_RR", "SCHED_DEADLINE")
      for priority in (-1, 0, 1, 99, 100)),
    {"policy": "SCHED_RR"}, {"policy": ""},
    *({"policy": "SCHED_OTHER", field: 1} for field in ("runtime", "deadline", "period")),
    *({"policy": "SCHED_DEADLINE", "runtime": r, "deadline": d, "period": p} for r, d, p in (
        (1023, 0, 0), (1024, 1024, 0), (1024, 1023, 0), (1024, 2000, 2000), (1024, 2000, 1999), (1 << 63, 0, 0),
        ((1 << 63) - 1, (1 << 63) - 1, (1 << 63) - 1), (1024, 1 << 63, 0), (1024, 2000, 1 << 63))),
    {"policy": "SCHED_DEADLINE"}, {"policy": "SCHED_DEADLINE", "runtime": 2000},
]  # fmt: skip
POLICIES: list[Any] = [
    {}, *({"mode": f"MPOL_{mode}", "nodes": nodes} for mode in ("DEFAULT", "LOCAL", "BIND", "PREFERRED")
          for nodes in ("", "0", "0-1,5", "x", "1023", "1024")),
    *({"mode": f"MPOL_{mode}", "nodes": "0", "flags": flags} for mode in ("BIND", "PREFERRED_MANY", "INTERLEAVE")
      for flags in ([], ["MPOL_F_NUMA_BALANCING"], ["MPOL_F_STATIC_NODES"])),
    {"mode": "MPOL_PREFERRED", "flags": ["MPOL_F_RELATIVE_NODES"]}, {"mode": "MPOL_INTERLEAVE"},
    {"mode": "MPOL_BIND", "nodes": "9", "flags": ["MPOL_F_RELATIVE_NODES"]},
    {"mode": "MPOL_BIND", "nodes": "9", "flags": ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"]},
]  # fmt: skip


def test_scheduling() -> None:
    cases = [{"scheduler": one} for one in SCHEDULERS]
    compare("spec_steps_rules", "schedulers", rules(rules_scheduling.process, cases))
    lines = []
    for facts in (None, Facts(memory_nodes=frozenset({0, 1})), Facts(memory_nodes=frozenset())):
        lines += rules(rules_scheduling.memory_policy, POLICIES, facts=facts)
    compare("spec_steps_rules", "memory policies", lines)
    offsets: list[Any] = [
        {}, {"monotonic": {}}, {"boottime": {"nanosecs": 999999999}}, {"boottime": {"nanosecs": 1000000000}},
        {"monotonic": {"nanosecs": 1000000000}, "a/b": {"nanosecs": 1 << 40}},
    ]  # fmt: skip
    lines = []
    for spaces in ((), ("time",), ("time=/t",)):
        lines += [f"{spaces}", *rules(rules_scheduling.time_offsets, offsets, spaces=spaces)]
    compare("spec_steps_rules", "time offsets", lines)


def test_hints_of_the_memory_policy_are_for_its_problems() -> None:
    found = report.Report()
    for pointer in ("/linux/memoryPolicy/flags/0", "/linux/memoryPolicy", "/hooks/poststop/0/path", "flags", "mode"):
        found.bad(pointer, "x", 1, "hint")
    rules_scheduling.memory_policy({"mode": "MPOL_DEFAULT"}, found)
    compare("spec_steps_rules", "hints of the memory policy", said(found).split("; "))


def test_network_devices_and_rdt() -> None:
    cases: list[Any] = [
        {}, {"a": {}}, {"a": {"name": ""}}, {"a" * 15: {}, "a" * 16: {}}, {"a/b": {}, "a:b": {}, "a b": {}, "a\0": {}},
        {".": {}, "..": {}, "...": {}, "": {}}, {"\u00e4" * 7: {}, "\u00e4" * 8: {}}, {"a%d": {}}, {"a%": {}},
        {"a": {"name": "b"}, "b": {}}, {"a": {"name": "b"}, "c": {"name": "b"}, "d": {"name": "b"}},
        {"a": {"name": "e%d"}, "b": {"name": "e%d"}}, {"a": {"name": "e%d%d"}}, {"a": {"name": "%dx"}},
        {"a": {"name": "e%"}}, {"a": {"name": "x y"}}, {"x": {}, "y": {"name": "x"}},
    ]  # fmt: skip
    lines = rules(rules_netdev.check, cases) + rules(rules_netdev.check, cases, spaces=("network",))
    compare("spec_steps_rules", "network devices", lines)
    wanted: list[Any] = [
        {}, *({"closID": name} for name in ("", "a", "/", "a/b", "/a", ".", "..", "info", "mon_groups", "mon_data",
        "a\n",
                                            "a\0b")),
        *({"l3CacheSchema": text} for text in ("", "L3:0=f", " L3CODE", "MB:", "x" * 65537, "L3" * 32768,
        "L3" * 32769)),
        *({"memBwSchema": text} for text in ("", "MB:0=1", " MB:", "MB", "MB:\n", "MB:" + "x" * 65534)),
        {"schemata": ["L3:0=f", "x", "a:\nb:", "", None]},
    ]  # fmt: skip
    lines = []
    for facts in (None, Facts(resctrl=""), Facts()):
        lines += rules(rules_rdt.check, wanted if facts is None else wanted[:2], facts=facts)
    compare("spec_steps_rules", "rdt", lines)
