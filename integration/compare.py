"""Compare the probe's report with the container's config.json: every difference is one line of
text.

Pure: it uses only the parsed config and the probe's report. It knows rules that are not in the
config itself (default devices, mount flags that the kernel derives, the effect of execve on
capabilities) but nothing about any runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from integration.harness import NS_FILE
from integration.machine import CAP_BIT, Mount, parse_mountinfo

FLAG_OPTIONS = {
    "ro": "ro",
    "nosuid": "nosuid",
    "nodev": "nodev",
    "noexec": "noexec",
    "noatime": "noatime",
    "nodiratime": "nodiratime",
    "relatime": "relatime",
}
CLEARING = {
    "rw": "ro",
    "suid": "nosuid",
    "dev": "nodev",
    "exec": "noexec",
    "atime": "noatime",
    "diratime": "nodiratime",
}
PROPAGATION = {
    "private": "",
    "rprivate": "",
    "slave": "master:",
    "rslave": "master:",
    "shared": "shared:",
    "rshared": "shared:",
}
UNLIMITED = 2**64 - 1
DEFAULT_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}


def differences(
    config: dict[str, Any], report: dict[str, Any], host_ns: dict[str, str], joined: dict[str, str]
) -> list[str]:
    """All differences. `host_ns`: readlink of the runtime's /proc/self/ns/NAME; `joined`: of the
    config's paths, by type."""
    found: list[str] = []
    for part in (mounts, user, capabilities, limits, devices, environment, masked, seccomp, identity):
        found += part(config, report)
    found += namespaces(config, report, host_ns, joined)
    return found


def mounts(config: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    """Each mount of the config must exist with its type, flags and propagation; also the root's
    readonly."""
    seen: dict[str, list[Mount]] = {}
    for one in parse_mountinfo(report["mountinfo"]):
        seen.setdefault(one.dest, []).append(one)
    wanted: dict[str, list[dict[str, Any]]] = {}
    for entry in config.get("mounts", []):
        wanted.setdefault(entry["destination"].rstrip("/"), []).append(entry)
    for dest, entries in wanted.items():
        if len(seen.get(dest, [])) < len(entries):
            yield f"mount {dest}: {len(entries)} in the config, {len(seen.get(dest, []))} seen"
            continue
        yield from mount(entries[-1], seen[dest][len(entries) - 1], config["linux"])
    root = seen["/"][-1]
    if ("ro" in root.options) != bool(config["root"].get("readonly")):
        yield f"root: readonly is {config['root'].get('readonly')}, seen {root.options}"


def mount(entry: dict[str, Any], seen: Mount, linux: dict[str, Any]) -> Iterator[str]:
    """One mount: the last option about a flag decides."""
    dest, options = entry["destination"], entry.get("options") or []
    bind = "bind" in options or "rbind" in options
    if not bind:
        kind = {"cgroup": "cgroup2"}.get(entry["type"], entry["type"])
        if seen.fstype != kind:
            yield f"mount {dest}: type {entry['type']} in the config, {seen.fstype} seen"
    flags: dict[str, bool] = {}
    for option in options:
        if option in FLAG_OPTIONS:
            flags[FLAG_OPTIONS[option]] = True
        elif option in CLEARING:
            flags[CLEARING[option]] = False
        elif option == "strictatime":
            flags |= {"relatime": False, "noatime": False}
    for flag, want in flags.items():
        if (flag in seen.options) != want:
            yield f"mount {dest}: {'' if want else 'no '}{flag} in the config, seen {','.join(seen.options)}"
    if not bind and not flags.get("ro") and "ro" in seen.options:
        yield f"mount {dest}: read-only, which the config does not say"
    words = [PROPAGATION[option] for option in options if option in PROPAGATION]
    if words and (words[-1] not in seen.shared or (words[-1] == "" and seen.shared)):
        yield f"mount {dest}: propagation {words[-1] or 'private'} in the config, seen {seen.shared!r}"
    yield from data(dest, [option for option in options if "=" in option], seen, linux)


def outside(linux: dict[str, Any], kind: str, inside: int) -> int:
    """The id in the initial user namespace for an id of the container."""
    for entry in linux.get(f"{kind}Mappings") or []:
        if 0 <= inside - entry["containerID"] < entry["size"]:
            return int(inside - entry["containerID"] + entry["hostID"])
    return inside


def data(dest: str, options: list[str], seen: Mount, linux: dict[str, Any]) -> Iterator[str]:
    """Filesystem options in the superblock's form (sizes in KiB, modes without leading zeros,
    ids of the host)."""
    shown = dict(item.partition("=")[::2] for item in seen.super)
    for option in options:
        name, _, value = option.partition("=")
        if name == "size":
            size = int(value[:-1]) if value.endswith("k") else int(value) >> 10
            if shown.get("size") != f"{size}k":
                yield f"mount {dest}: {option} in the config, size={shown.get('size')} seen"
        elif (
            name in ("mode", "ptmxmode")
            and int(shown.get(name) or ("1777" if seen.fstype == "tmpfs" else "0"), 8) != int(value, 8)
        ) or (name in ("gid", "uid") and shown.get(name, "0") != str(outside(linux, name, int(value)))):
            yield f"mount {dest}: {option} in the config, {name}={shown.get(name)} seen"


def user(config: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    """Ids, groups, umask, working directory, argv."""
    process = config["process"]
    want = process["user"]
    for kind in ("uid", "gid"):
        if report[kind] != [want[kind]] * 3:
            yield f"{kind}: {want[kind]} in the config, {report[kind]} seen"
    if sorted(set(report["groups"])) != sorted(set(want.get("additionalGids") or [])):
        yield f"groups: {want.get('additionalGids')} in the config, {report['groups']} seen"
    if report["umask"] != want.get("umask", 0o022):
        yield f"umask: {want.get('umask')} in the config, {report['umask']:o} seen"
    if report["cwd"] != process["cwd"]:
        yield f"cwd: {process['cwd']} in the config, {report['cwd']} seen"
    if report["argv"] != process["args"]:
        yield f"args: {process['args']} in the config, {report['argv']} seen"


def capabilities(config: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    """The sets after execve: root gets permitted from bounding unless noNewPrivileges is set,
    others only ambient ones."""
    given = config["process"].get("capabilities") or {}
    want = {kind: sum(CAP_BIT[name] for name in given.get(kind) or []) for kind in report["caps"]}
    if config["process"]["user"]["uid"] == 0:
        after = want["bounding"] | want["inheritable"]
        if config["process"].get("noNewPrivileges"):
            after &= want["permitted"]
    else:
        after = want["ambient"]
    want["permitted"] = want["effective"] = after
    for kind, mask in want.items():
        if report["caps"][kind] != mask:
            yield f"capabilities {kind}: {mask:x} in the config, {report['caps'][kind]:x} seen"
    if report["no_new_privs"] != int(bool(config["process"].get("noNewPrivileges"))):
        yield f"noNewPrivileges: {config['process'].get('noNewPrivileges')}, {report['no_new_privs']} seen"


def limits(config: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    """Resource limits and the OOM score."""
    for entry in config["process"].get("rlimits") or []:
        want = [min(entry["soft"], UNLIMITED), min(entry["hard"], UNLIMITED)]
        if report["rlimits"][entry["type"]] != want:
            yield f"{entry['type']}: {want} in the config, {report['rlimits'][entry['type']]} seen"
    score = config["process"].get("oomScoreAdj")
    if score is not None and report["oom_score_adj"] != f"{score}\n":
        yield f"oomScoreAdj: {score} in the config, {report['oom_score_adj']!r} seen"


def devices(config: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    """Default nodes, configured ones (which win), the console, and nothing else."""
    seen = {
        path: node
        for path, node in report["devices"].items()
        if node["type"] in "cbp" and not path.startswith("/dev/pts/")
    }
    want = {f"/dev/{name}": ("c", *numbers, 0o666, 0, 0) for name, numbers in DEFAULT_DEVICES.items()}
    for entry in config["linux"].get("devices") or []:
        if entry["path"].startswith("/dev/"):
            kind = {"u": "c"}.get(entry["type"], entry["type"])
            numbers = (0, 0) if kind == "p" else (entry["major"], entry["minor"])
            mode = entry.get("fileMode", 0o666) & 0o7777
            want[entry["path"]] = (kind, *numbers, mode, entry.get("uid", 0), entry.get("gid", 0))
    if config["process"].get("terminal"):
        want["/dev/console"] = ("c", 136, 0, *(seen.get("/dev/console", {}).get(key) for key in ("mode", "uid", "gid")))
    if report["devices"].get("/dev/ptmx", {}).get("target") == "pts/ptmx":
        want.pop(
            "/dev/ptmx", None
        )  # privileged engines list the host's 5:2 node; the link to the container's own instance is equivalent
    bound = bool(config["linux"].get("uidMappings"))  # the host's nodes, whose owner is unmapped in a user namespace
    for path, expected in want.items():
        node = seen.pop(path, None)
        if node is None:
            yield f"device {path}: missing"
            continue
        got = tuple(node[key] for key in ("type", "major", "minor", "mode", "uid", "gid"))
        if got != (expected if not bound or path == "/dev/console" else (*expected[:4], 65534, 65534)):
            yield f"device {path}: {expected} expected, {got} seen"
    for path in seen:
        yield f"device {path}: not in the config"


def environment(config: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    """Exactly the config's variables, and HOME."""
    want = [entry.encode().decode("latin-1") for entry in config["process"].get("env") or []]
    seen = list(report["env"])
    if not any(entry.startswith("HOME=") and entry != "HOME=" for entry in want):
        seen = [entry for entry in seen if not entry.startswith("HOME=")]
    if seen != want:
        yield f"env: {want} in the config, {seen} seen"


def masked(config: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    """Masked and read-only paths that exist are mounts; whether they exist depends on the host."""
    seen = {one.dest: one for one in parse_mountinfo(report["mountinfo"])}
    for path in config["linux"].get("readonlyPaths") or []:
        if path in seen and "ro" not in seen[path].options:
            yield f"readonlyPaths {path}: {seen[path].options} seen"
        elif path not in seen and path in ("/proc/sys", "/proc/bus", "/proc/fs"):  # part of every procfs
            yield f"readonlyPaths {path}: no mount seen"
    for path in config["linux"].get("maskedPaths") or []:
        if path not in seen and path in ("/proc/keys", "/proc/timer_list", "/proc/version"):
            yield f"maskedPaths {path}: no mount seen"
        elif path in seen and seen[path].fstype not in ("tmpfs", "devtmpfs"):
            yield f"maskedPaths {path}: a {seen[path].fstype} is mounted there"


def seccomp(config: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    """Filter mode if and only if there is a profile."""
    mode = next(line.split()[1] for line in report["status"].splitlines() if line.startswith("Seccomp:"))
    want = "2" if config["linux"].get("seccomp") else "0"
    if mode != want:
        yield f"seccomp: mode {want} expected, {mode} seen"


def identity(config: dict[str, Any], report: dict[str, Any]) -> Iterator[str]:
    """Host name, sysctls, descriptors, terminal, signals."""
    if config.get("hostname") and report["hostname"] != config["hostname"]:
        yield f"hostname: {config['hostname']} in the config, {report['hostname']} seen"
    for key, value in (config["linux"].get("sysctl") or {}).items():
        seen = " ".join((report["sysctl"].get(key) or "").split())
        if seen != " ".join(value.split()):
            yield f"sysctl {key}: {value!r} in the config, {seen!r} seen"
    if set(report["fds"]) - {"0", "1", "2"}:
        yield f"descriptors: {report['fds']} seen"
    tty = [report["tty"][number]["isatty"] for number in "012"]
    if tty != [int(bool(config["process"].get("terminal")))] * 3:
        yield f"terminal: {config['process'].get('terminal')} in the config, isatty {tty} seen"
    if report["sigblk"]:
        yield f"blocked signals: {report['sigblk']:x}"


def namespaces(
    config: dict[str, Any], report: dict[str, Any], host_ns: dict[str, str], joined: dict[str, str]
) -> Iterator[str]:
    """New namespaces differ from the host's, joined ones are the given ones, the rest is
    inherited."""
    entries = {entry["type"]: entry.get("path") for entry in config["linux"]["namespaces"]}
    for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup", "user", "time"):
        file = NS_FILE.get(kind, kind)
        seen = report["ns"].get(file)
        if seen is None:
            continue
        if kind not in entries:
            if seen != host_ns[file]:
                yield f"namespace {kind}: not in the config, but not the host's"
        elif entries[kind]:
            if seen != joined[kind]:
                yield f"namespace {kind}: {joined[kind]} to be joined, {seen} seen"
        elif seen == host_ns[file]:
            yield f"namespace {kind}: new in the config, the host's seen"
