"""Turn the outcome of a run into comparable facts: one flat mapping of names to values.

Values that differ from run to run (pids, inodes, mount ids, times) are replaced by their meaning:
"the host's", "the container's own", "init's". Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from integration.differential import model
from integration.machine import Mount, parse_mountinfo

Facts = dict[str, Any]
NUMBER = re.compile(r":\[\d+\]")
PRESENT = "is there"  # for every hook or program that reported

# Lines of /proc/self/status that a runtime determines.
_STATUS = (
    "Seccomp",
    "Seccomp_filters",
    "NoNewPrivs",
    "Speculation_Store_Bypass",
    "SpeculationIndirectBranch",
    "CoreDumping",
    "THP_enabled",
    "Threads",
    "Cpus_allowed_list",
    "Mems_allowed_list",
    "TracerPid",
)
_SEMVER = re.compile(r"\d+\.\d+\.\d+([-+].*)?$")
_NUMBERS = {"ino", "dev"}
# The runtimes are started with glibc's posix_spawn, which leaves glibc's two internal signals
# ignored.
_GLIBC = 1 << 31 | 1 << 32
# Commands whose status is the program's, or a count.
_WITH_STATUS = ("run", "exec", "ps", "list")


class Host(NamedTuple):
    """The sandbox: its namespaces by file name, and the peer groups of its mounts."""

    namespaces: dict[str, str]
    groups: frozenset[str]


def groups_of(mountinfo: str) -> frozenset[str]:
    """The peer group numbers in a mountinfo."""
    return frozenset(re.findall(r" (?:shared|master|propagate_from):(\d+)", mountinfo))


def facts(outcome: dict[str, Any], host: Host) -> Facts:
    """All comparable facts of `runner.Run.outcome`."""
    found: Facts = {}
    pids = outcome["pids"]
    reports = reports_of(outcome["texts"])
    own = {
        ident for label, report in reports if not label.startswith("exec") for ident in report.get("ns", {}).values()
    }
    own.update(*(step["ns"] for step in outcome["steps"]))
    names = Names(host, outcome["joined"], own)
    for number, step in enumerate(outcome["steps"]):
        _step(found, f"step {number} {step['do']}", step, pids)
    found["force"] = outcome["force"]
    _hooks(found, outcome["hooks"], names, pids)
    for label, report in reports:
        if report.get("action") == "part of a report":
            continue
        found[f"{label} {PRESENT}"] = True
        for key, value in _report(report, names).items():
            found[f"{label} {key}"] = value
    _flatten(found, "rootfs", outcome["rootfs"])
    for key, value in outcome["left"].items():
        found[f"left {key}"] = value
    return found


class Names:
    """Names for the numbers of namespaces and peer groups."""

    def __init__(self, host: Host, joined: dict[str, str], own: set[str]) -> None:
        self.host, self.own = host, own
        self.joined = {ident: f"joined {kind}" for kind, ident in joined.items()}

    def namespace(self, file: str, ident: str) -> str:
        """The owner of a namespace."""
        if ident == self.host.namespaces.get(file):
            return "host"
        return self.joined.get(ident) or ("container" if ident in self.own else "other")

    def namespaces(self, links: dict[str, str]) -> dict[str, str]:
        """The owners of all namespaces of a process."""
        return {file: self.namespace(file, ident) for file, ident in links.items()}

    def propagation(self, shared: str) -> str:
        """The optional fields of mountinfo, with named peer groups."""
        words = []
        for word in shared.split():
            kind, _, number = word.partition(":")
            words.append(f"{kind}:{'host' if number in self.host.groups else 'own'}" if number else kind)
        return " ".join(words)


def reports_of(texts: list[dict[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """What programs wrote, as (label, object); other text also becomes an object."""
    found: list[tuple[str, dict[str, Any]]] = []
    count: dict[str, int] = {}
    for entry in texts:
        lines = entry["text"].replace("\r\n", "\n").splitlines()
        signals = []
        for line in lines:
            try:
                report = json.loads(line)
            except ValueError:  # cut off when the program was killed, or not the program's
                report = {"action": "part of a report" if line.startswith('{"action"') else "text"}
                if entry["of"] == "terminal" and report["action"] == "text":
                    continue  # a message of the runtime or of its log library
            if not isinstance(report, dict):
                report = {"action": entry["of"], "value": report}
            if report.get("action") == "signal":
                signals.append(report["number"])
                continue
            label = "inside" if report.get("action") == "inside" else str(report.get("action"))
            label = f"{entry['of']} {label}"
            count[label] = count.get(label, 0) + 1
            found.append((label if count[label] == 1 else f"{label} {count[label]}", report))
        if signals:
            found.append((f"{entry['of']} signals", {"signals": signals}))
    return found


def _flatten(found: Facts, prefix: str, value: dict[str, Any]) -> None:
    for key, item in value.items():
        if isinstance(item, dict):
            _flatten(found, f"{prefix} {key}", item)
        else:
            found[f"{prefix} {key}"] = item


def _pid(value: object, pids: list[int]) -> str:
    if value in (None, 0):
        return "none"
    if value == 1:
        return "1"
    return "init" if value in pids else "other"


def _state(state: dict[str, Any] | None, pids: list[int]) -> dict[str, Any]:
    if state is None:
        return {"status": "none"}
    version = str(state.get("ociVersion"))
    return {
        "status": state.get("status"),
        "id": state.get("id"),
        "bundle": state.get("bundle"),
        "annotations": state.get("annotations") or {},
        "pid": _pid(state.get("pid"), pids),
        "ociVersion": "SemVer" if _SEMVER.match(version) else version,
    }


def _step(found: Facts, name: str, step: dict[str, Any], pids: list[int]) -> None:
    found[f"{name} rc"] = step["rc"] if step["do"] in _WITH_STATUS else _outcome(step["rc"])
    _flatten(found, f"{name} state", _state(step["state"], pids))
    dead = step["init"] != "alive"  # the caller reaps a zombie
    for key in ("init", "cgroup", "owner", "group"):
        value = {"init": "gone", "cgroup": ""}.get(key, step[key]) if dead else step[key]
        if isinstance(value, dict):
            _flatten(found, f"{name} {key}", value)
        else:
            found[f"{name} {key}"] = value


def _outcome(rc: int) -> int | str:
    return "fails" if rc > 0 else rc


def _hooks(found: Facts, hooks: list[dict[str, Any]], names: Names, pids: list[int]) -> None:
    found["hooks order"] = [hook.get("hook", "damaged") for hook in hooks]
    seen: dict[str, int] = {}
    for hook in hooks:
        if "argv" not in hook:
            continue
        tag = hook["hook"].removeprefix("hook-")
        seen[tag] = seen.get(tag, 0) + 1
        prefix = f"hook {tag}" + (f"#{seen[tag]}" if seen[tag] > 1 else "")
        found[f"{prefix} {PRESENT}"] = True
        try:
            given = _state(json.loads(hook["stdin"].encode("latin-1").decode()), pids)
        except ValueError:
            given = {"damaged": hook["stdin"]}
        _flatten(found, f"{prefix} stdin", given)
        for key in ("uid", "gid", "groups", "umask", "cwd", "argv", "env", "in_container", "sigblk"):
            found[f"{prefix} {key}"] = hook.get(key)
        found[f"{prefix} sigign"] = hook["sigign"] & ~_GLIBC
        for key in ("hostname", "domainname", "no_new_privs", "securebits", "oom_score_adj", "broken"):
            found[f"{prefix} {key}"] = hook.get(key)
        for number in ("stdout", "stderr"):
            found[f"{prefix} {number} can be written"] = hook.get(number) in (1, 2)
        found[f"{prefix} fds"] = sorted(hook["fds"])
        _flatten(found, f"{prefix} caps", hook["caps"])
        owners = names.namespaces(hook["ns"])
        if seen[tag] > 1:  # of a second container, which may reuse namespace numbers of the first
            owners = {file: "container" if owner == "other" else owner for file, owner in owners.items()}
        _flatten(found, f"{prefix} ns", owners)
        found[f"{prefix} cgroup"] = _unified(hook["cgroup"])


def _unified(text: str | None) -> str | None:
    return next((line[3:] for line in (text or "").splitlines() if line.startswith("0::")), None)


def _report(report: dict[str, Any], names: Names) -> Facts:
    if report.get("action") == "text":
        return {}
    if report.get("action") != "inside":
        return {key: value for key, value in report.items() if key != "action"}
    found: Facts = {}
    plain = (
        "argv exe env uid gid groups umask no_new_privs keepcaps securebits sigblk sigign hostname domainname machine "
        "cwd personality dumpable death_signal subreaper thp_disable timer_slack keyring"
    )
    for key in plain.split():
        found[key] = report.get(key)
    found["sigign"] = report["sigign"] & ~_GLIBC
    for key in ("caps", "rlimits", "scheduling", "links", "sysctl", "nodes", "calls", "fd_flags"):
        _flatten(found, key, report[key])
    _flatten(found, "ns", names.namespaces(report["ns"]))
    _flatten(found, "fds", {number: re.sub(NUMBER, ":", target) for number, target in report["fds"].items()})
    _process(found, report)
    for path, entry in report["devices"].items():
        found[f"dev {path}"] = _file(entry)
    for path, entry in report["paths"].items():
        hidden = {*_NUMBERS, "size"} | ({"names"} if re.search("proc|outer|run", path) else set())  # pids are names
        _flatten(found, f"path {path}", {k: v for k, v in entry.items() if k not in hidden})
    found["cwd_stat"] = _file(report["cwd_stat"])
    for number in "012":
        entry = report["tty"].get(number, {})
        if "type" not in entry:
            continue
        found[f"stdio {number} terminal"] = entry["isatty"]
        found[f"stdio {number} is"] = f"{entry['type']} {entry['major']}:{entry['minor']}"
        for key in ("mode", "uid", "gid"):
            found[f"stdio {number} {key}"] = entry[key]
    for key in ("rows", "cols", "echo", "icanon"):  # not onlcr, which is cleared while the program already runs
        found[f"tty {key}"] = report["tty"].get(key)
    _files(found, report["files"], names)
    return found


def _process(found: Facts, report: dict[str, Any]) -> None:
    pid = report["pid"]
    found["pid"] = "1" if pid == 1 else "another"
    found["parent"] = "there is one" if report["ppid"] else "none"
    found["session leader"] = report["sid"] == pid
    found["group leader"] = report["pgid"] == pid
    foreground = report["tty"].get("foreground_pgrp")
    found["tty foreground"] = "own" if foreground == report["pgid"] else foreground


def _file(entry: dict[str, Any]) -> str:
    if not entry or "type" not in entry:
        return json.dumps(entry, sort_keys=True)
    text = f"{entry['type']} {entry['mode']:04o} {entry['uid']}:{entry['gid']}"
    if entry["type"] in "cb":
        text += f" {entry['major']}:{entry['minor']}"
    return text + (f" -> {re.sub(NUMBER, '', entry['target'])}" if "target" in entry else "")


def _files(found: Facts, files: dict[str, str | None], names: Names) -> None:
    for line in (files["status"] or "").splitlines():
        key, _, value = line.partition(":")
        if key in _STATUS:
            found[f"status {key}"] = value.strip()
    found["cgroup"] = _unified(files["cgroup"])
    for key in ("uid_map", "gid_map", "timens_offsets"):
        text = files[key]
        found[key] = text if text is None else [line.split() for line in text.splitlines()]
    for key in ("comm", "setgroups", "oom_score_adj", "coredump_filter", "loginuid"):
        text = files[key]
        found[key] = text if text is None else text.strip()
    if files["mountinfo"] is None:
        found["mounts"] = None
        return
    mounts = parse_mountinfo(files["mountinfo"])
    seen: dict[str, int] = {}
    where = {one.id: one.dest for one in mounts}
    for one in sorted(mounts, key=lambda one: _depth(one, {other.id: other for other in mounts})):
        seen[one.dest] = seen.get(one.dest, 0) + 1
        prefix = f"mount {one.dest}" + (f" #{seen[one.dest]}" if seen[one.dest] > 1 else "")
        found[f"{prefix} is"] = _origin(one)
        found[f"{prefix} options"] = ",".join(sorted(one.options))
        found[f"{prefix} super"] = ",".join(sorted(one.super))
        found[f"{prefix} propagation"] = names.propagation(one.shared)
        found[f"{prefix} on"] = where.get(one.parent, "outside") if one.dest != "/" else "outside"


def _depth(one: Mount, mounts: dict[int, Mount]) -> int:
    """The number of mounts below it: mountinfo lists mounts by creation, not by attachment."""
    depth = 0
    while one.parent in mounts and mounts[one.parent] is not one and depth < len(mounts):
        one, depth = mounts[one.parent], depth + 1
    return depth


def _origin(one: Mount) -> str:
    root = re.sub(r"^[a-z]+:\[\d+\]$", "namespace", one.root).replace(model.WORK, "/w")
    return f"{one.fstype} {root} {one.source}"
