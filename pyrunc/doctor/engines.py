"""The engines on this host, and whether their configuration leads to pyrunc."""

from __future__ import annotations

import fnmatch
import json
import os
import tomllib
from shlex import quote
from typing import Any

from pyrunc.doctor.findings import Area
from pyrunc.doctor.machine import Machine
from pyrunc.errors import brief, show

CONFIG_MOST = 128 << 10  # bytes of one engine's configuration; a longer one is not parsed
DROP_INS = 64
SHIM = "io.containerd.runc.v2"
PLUGINS = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}  # depends on the version of config.toml

Table = dict[str, Any]  # of a file in TOML or JSON; `table` checks its tables


class Unreadable(Exception):
    """A configuration that the engine rejects as well. The message is for people."""


def check(machine: Machine) -> list[Area]:
    """One subject; each engine is a check."""
    area = Area("engines")
    for name, look in (("containerd", containerd), ("cri-o", crio), ("podman", podman), ("docker", docker)):
        try:
            look(machine, area)
        except Unreadable as error:
            area.problem(name, str(error), f"{name} does not start, or ignores the file", "")
    if not area.findings:
        area.ok("engines", "containerd, CRI-O, podman and docker are not installed")
    return [area]


# -- reading ---------------------------------------------------------------------------------------


def content(machine: Machine, path: str) -> str:
    """Read a configuration file; "" if it is missing. Raises Unreadable."""
    text = machine.text(path, CONFIG_MOST + 1)
    if len(text) > CONFIG_MOST:
        raise Unreadable(f"{path} has more than {CONFIG_MOST >> 10} KiB and was not checked")
    return text


def reason(error: Exception) -> str:
    """Why a document cannot be read. Versions of CPython describe a recursion differently."""
    return "nested too deeply" if isinstance(error, RecursionError) else brief(str(error), 120)


def toml(machine: Machine, path: str) -> Table:
    """Read a TOML file; {} if it is missing. Raises Unreadable."""
    try:
        return tomllib.loads(content(machine, path))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: {reason(error)}") from error


def json_file(machine: Machine, path: str) -> Table:
    """Read a JSON file that contains an object; {} if it is missing. Raises Unreadable."""
    text = content(machine, path)
    try:
        found = json.loads(text) if text.strip() else {}
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"{path}: {reason(error)}") from error
    if type(found) is not dict:
        raise Unreadable(f"{path}: not an object")
    return found


def drop_ins(machine: Machine, directory: str, pattern: str = "*.conf") -> list[str]:
    """The drop-in files of a directory, in the order in which engines read them."""
    names = [name for name in machine.names(directory) if fnmatch.fnmatchcase(name, pattern)]
    return [f"{directory}/{name}" for name in names[:DROP_INS]]


def merge(into: Table, other: Table) -> None:
    """Merge tables; replace everything else."""
    todo = [(into, other)]
    while todo:
        left, right = todo.pop()
        for key, value in right.items():
            if type(value) is dict and type(left.get(key)) is dict:
                todo.append((left[key], value))
            else:
                left[key] = value


def table(found: object, *keys: str) -> Table:
    """A nested table; {} if it is missing."""
    for key in keys:
        found = found.get(key) if type(found) is dict else None
    return found if type(found) is dict else {}


def text(found: Table, key: str) -> str:
    """A string of a table; "" if it is missing."""
    value = found.get(key)
    return value if type(value) is str else ""


# -- what all have in common -----------------------------------------------------------------------


def is_ours(name: str, path: str) -> bool:
    """Whether an entry refers to pyrunc."""
    return name == "pyrunc" or path.rpartition("/")[2].startswith("pyrunc")


def program(machine: Machine, area: Area, engine: str, where: str, path: str) -> bool:
    """Whether an entry leads to an executable program, and whether it is this one."""
    found = path if path.startswith("/") else machine.find(path)
    if not found or not machine.is_program(found):
        means = f"{engine} cannot start a container with it"
        area.problem(
            engine, f"{where}: {show(path)} cannot be executed", means, f"make it {machine.program} in that file"
        )
        return False
    ours, theirs = machine.stat(machine.program), machine.stat(found)
    if ours and theirs and (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino):
        area.note(engine, f"{where}: {found}", f"this is not the pyrunc that runs here, {machine.program}")
        return True
    area.ok(engine, f"{where}: {found}")
    return True


def absent(machine: Machine, area: Area, engine: str, file: str, mend: str) -> None:
    """An engine that does not know pyrunc."""
    area.note(engine, f"pyrunc is not registered in {file}", f"{engine} uses another runtime", mend)


def default(area: Area, engine: str, where: str, name: str, known: Table, builtin: tuple[str, ...]) -> None:
    """The default runtime must be configured."""
    if name and name not in known and name not in builtin and not name.startswith("/"):
        means = f"{engine} does not start, or no container without a runtime of its own does"
        area.problem(
            engine,
            f"{where} is {show(name)}, which is not configured",
            means,
            f"configure {quote(name)}, or change {where}",
        )


def driver(machine: Machine, area: Area, engine: str, where: str, systemd: bool) -> None:
    """The cgroup driver must exist, and should be systemd's on a host with systemd."""
    running = machine.exists("/run/systemd/system")
    if systemd and not running:
        area.problem(engine, f"{where} requires systemd, which is not running", "no container starts", "use cgroupfs")
    elif running and not systemd:
        means = "two managers modify one hierarchy: systemd may move or limit containers; kubelet's default is systemd"
        area.note(engine, f"{where}: the cgroupfs driver on a host with systemd", means)


# -- containerd ------------------------------------------------------------------------------------


def containerd(machine: Machine, area: Area) -> None:
    """config.toml with its imports: the handlers of CRI. docker and ctr choose runtimes
    themselves."""
    file = "/etc/containerd/config.toml"
    if not machine.find("containerd") and not machine.exists(file):
        return
    config = containerd_config(machine, file)
    version = config.get("version")
    version = version if type(version) is int else 3 if config == {} else 1
    plugin = PLUGINS.get(version, PLUGINS[3])
    found = False
    for number, name in PLUGINS.items():
        place = table(config, "plugins", name, "containerd")
        runtimes = table(place, "runtimes")
        default(
            area,
            "containerd",
            f"{file}: default_runtime_name",
            text(place, "default_runtime_name"),
            runtimes,
            ("runc",),
        )
        for handler in list(runtimes)[:DROP_INS]:
            entry = table(runtimes, handler)
            binary = text(table(entry, "options"), "BinaryName")
            if is_ours(handler, binary):
                found = True
                containerd_entry(
                    machine, area, f"{file}: runtime {show(handler)}", entry, number == version or version == 1
                )
    if "cri" in str(config.get("disabled_plugins", "")):
        area.note("containerd", f"{file}: the CRI plugin is disabled", "Kubernetes cannot use it", f"edit {file}")
    if not found:
        head = f'[plugins."{plugin}".containerd.runtimes.pyrunc'
        lines = f'{head}]\\nruntime_type = "{SHIM}"\\n{head}.options]\\nBinaryName = "{machine.program}"\\n'
        lines = f"version = 3\\n{lines}" if not config else lines
        absent(machine, area, "containerd", file, f"printf {quote(lines)} >> {file}; systemctl restart containerd")


def containerd_config(machine: Machine, file: str) -> Table:
    """config.toml and its imports; imports of imports are not followed."""
    config = toml(machine, file)
    imports = config.get("imports")
    for pattern in (imports if type(imports) is list else [])[:DROP_INS]:
        directory, _, name = str(pattern).rpartition("/")
        directory = directory if directory.startswith("/") else f"/etc/containerd/{directory}".rstrip("/")
        for path in drop_ins(machine, directory, name):
            merge(config, toml(machine, path))
    return config


def containerd_entry(machine: Machine, area: Area, where: str, entry: Table, read: bool) -> None:
    """One handler: it must be read by this version of the file and have the right shim, a
    program and a cgroup driver."""
    options = table(entry, "options")
    if not read:
        means = "the section belongs to another version of config.toml: containerd ignores it"
        area.problem("containerd", f"{where} is not read", means, "containerd config migrate")
        return
    if text(entry, "runtime_type") != SHIM:
        seen = f"{where} has runtime_type {show(entry.get('runtime_type'))}"
        area.problem(
            "containerd",
            seen,
            "containerd starts a different shim, which does not call pyrunc",
            f'runtime_type = "{SHIM}"',
        )
        return
    binary = text(options, "BinaryName")
    if not binary:
        means = "the handler runs runc"
        area.problem("containerd", f"{where} has no options.BinaryName", means, f'BinaryName = "{machine.program}"')
        return
    if program(machine, area, "containerd", where, binary):
        driver(machine, area, "containerd", where, options.get("SystemdCgroup") is True)


# -- CRI-O -----------------------------------------------------------------------------------------


def crio(machine: Machine, area: Area) -> None:
    """crio.conf and its drop-ins."""
    file = "/etc/crio/crio.conf"
    files = [file, *drop_ins(machine, "/etc/crio/crio.conf.d")]
    if not machine.find("crio") and not any(machine.exists(path) for path in files):
        return
    config: Table = {}
    for path in files:
        merge(config, toml(machine, path))
    section = table(config, "crio", "runtime")
    runtimes = table(section, "runtimes")
    default(area, "cri-o", "default_runtime", text(section, "default_runtime"), runtimes, ("runc", "crun"))
    found = False
    for name in list(runtimes)[:DROP_INS]:
        entry = table(runtimes, name)
        path = text(entry, "runtime_path")
        if not is_ours(name, path):
            continue
        found = True
        if text(entry, "runtime_type") not in ("", "oci", "pod"):
            seen = f"runtime {show(name)} has runtime_type {show(entry['runtime_type'])}"
            area.problem("cri-o", seen, "CRI-O starts a containerd shim in place of pyrunc", 'runtime_type = "oci"')
        elif program(machine, area, "cri-o", f"runtime {show(name)}", path or name):
            driver(machine, area, "cri-o", "cgroup_manager", text(section, "cgroup_manager") != "cgroupfs")
        monitor = text(entry, "monitor_path")
        if monitor and not machine.is_program(monitor):
            area.problem(
                "cri-o",
                f"monitor_path {show(monitor)} cannot be executed",
                "no container starts",
                "apt-get install conmon",
            )
    if not found:
        lines = f'[crio.runtime.runtimes.pyrunc]\\nruntime_path = "{machine.program}"\\nruntime_type = "oci"\\n'
        lines += 'runtime_root = "/run/pyrunc"\\n'
        target = "/etc/crio/crio.conf.d/10-pyrunc.conf"
        absent(machine, area, "cri-o", "/etc/crio", f"printf {quote(lines)} > {target}; systemctl restart crio")


# -- podman ----------------------------------------------------------------------------------------


def podman(machine: Machine, area: Area) -> None:
    """containers.conf(5): the system's and, for a user, the user's."""
    if not machine.find("podman"):
        return
    config: Table = {}
    for path in podman_files(machine):
        merge(config, toml(machine, path))
    engine = table(config, "engine")
    runtimes = table(engine, "runtimes")
    default(
        area, "podman", "runtime", text(engine, "runtime"), runtimes, ("runc", "crun", "kata", "runsc", "youki", "krun")
    )
    found = False
    for name in list(runtimes)[:DROP_INS]:
        value = runtimes[name]
        paths = [str(path) for path in value] if type(value) is list else []
        if not is_ours(name, paths[0] if paths else ""):
            continue
        found = True
        usable = next((path for path in paths if machine.is_program(path)), "")
        if program(machine, area, "podman", f"runtime {show(name)}", usable or (paths or [name])[0]):
            podman_lists(area, engine, name)
    if not found:
        directory = "/etc/containers" if machine.euid == 0 else f"{home(machine)}/.config/containers"
        target = f"{directory}/containers.conf.d/pyrunc.conf"
        lines = f'[engine.runtimes]\\npyrunc = ["{machine.program}"]\\n'
        mend = f"mkdir -p {quote(directory + '/containers.conf.d')}; printf {quote(lines)} > {quote(target)}"
        means = f"`podman --runtime {machine.program}` works; errors are then searched for in stderr"
        area.note("podman", "pyrunc is not registered in containers.conf", means, mend)


def podman_files(machine: Machine) -> list[str]:
    """The files that podman reads; later ones override earlier ones."""
    chosen = machine.env.get("CONTAINERS_CONF", "")
    if chosen:
        return [chosen]
    directories = ["/usr/share/containers", "/etc/containers"]
    if machine.euid != 0:
        directories.append(machine.env.get("XDG_CONFIG_HOME", f"{home(machine)}/.config") + "/containers")
    files = []
    for directory in directories:
        files += [f"{directory}/containers.conf", *drop_ins(machine, f"{directory}/containers.conf.d")]
    return files


def home(machine: Machine) -> str:
    """The caller's home directory."""
    return machine.env.get("HOME") or os.path.expanduser("~")


def podman_lists(area: Area, engine: Table, name: str) -> None:
    """runtime_supports_json and runtime_supports_nocgroup: podman needs them for errors and
    --cgroups=disabled."""
    for key, means in (
        ("runtime_supports_json", "podman searches stderr for errors, and shows the wrong ones"),
        ("runtime_supports_nocgroup", "`podman run --cgroups=disabled` is refused"),
    ):
        listed = engine.get(key)
        if type(listed) is not list or name not in listed:
            area.note("podman", f"{key} does not list {show(name)}", means, "use pyrunc's contrib/podman/pyrunc.conf")


# -- docker ----------------------------------------------------------------------------------------


def docker(machine: Machine, area: Area) -> None:
    """daemon.json: the system's, or a user's for rootless docker."""
    if not machine.find("dockerd"):
        return
    file = "/etc/docker/daemon.json"
    if machine.euid != 0:
        file = machine.env.get("XDG_CONFIG_HOME", f"{home(machine)}/.config") + "/docker/daemon.json"
    config = json_file(machine, file)
    runtimes = table(config, "runtimes")
    default(area, "docker", f"{file}: default-runtime", text(config, "default-runtime"), runtimes, ("runc", SHIM))
    found = False
    for name in list(runtimes)[:DROP_INS]:
        entry = table(runtimes, name)
        path = text(entry, "path") or text(table(entry, "options"), "BinaryName")
        if not is_ours(name, path):
            continue
        found = True
        if program(machine, area, "docker", f"{file}: runtime {show(name)}", path or name):
            options = config.get("exec-opts")
            wanted = "native.cgroupdriver=cgroupfs" not in (options if type(options) is list else [])
            driver(machine, area, "docker", file, wanted and machine.exists("/run/systemd/system"))
    if not found:
        added = json.dumps({"runtimes": {"pyrunc": {"path": machine.program}}})
        mend = f"printf '%s\\n' {quote(added)} > {quote(file)}"
        if machine.exists(file):
            mend = f"jq {quote(f'. * {added}')} {quote(file)} > daemon.json && mv daemon.json {quote(file)}"
        absent(machine, area, "docker", file, f"{mend}; systemctl reload docker")
