"""Run configs written by real engines with the probe as the program, and compare its report with
the config."""

from __future__ import annotations

import copy
import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration import compare
from integration.config import DELETE, edit
from integration.harness import APPLETS, Box, Container, Holder
from integration.machine import CAP_BIT, cgroup2_mount, controllers, has_cap, own_bounding_caps
from integration.test_terminal import Console, read_all

Make = Callable[..., Container]
CONFIGS = sorted((Path(__file__).parent / "bundles").glob("*.json"))


def obstacles(config: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What this machine or this version does not support: (JSON pointer, word of the expected
    error, reason)."""
    found = []
    linux, process = config["linux"], config["process"]
    resources = linux.get("resources") or {}
    for field, controller, key in (("memory", "memory", "limit"), ("cpu", "cpu", "shares"), ("pids", "pids", "limit")):
        if (resources.get(field) or {}).get(key) and controller not in controllers():
            found.append((f"/linux/resources/{field}", controller, f"no {controller} controller on cgroup v2"))
    wanted = {name for names in (process.get("capabilities") or {}).values() for name in names}
    missing = sorted(name for name in wanted if name in CAP_BIT and name not in own_bounding_caps())
    if missing:
        found.append(("/process/capabilities", "EPERM", f"{missing} not in the bounding set"))
    for entry in process.get("rlimits") or []:
        number = getattr(resource, entry["type"])
        if entry["hard"] > resource.getrlimit(number)[1] != resource.RLIM_INFINITY and not has_cap("SYS_RESOURCE"):
            found.append(("/process/rlimits", "EPERM", f"{entry['type']} above the hard limit"))
            break
    score = process.get("oomScoreAdj")
    if score is not None and score < int(Path("/proc/self/oom_score_adj").read_text()) and not has_cap("SYS_RESOURCE"):
        found.append(("/process/oomScoreAdj", "", "lowering oom_score_adj needs CAP_SYS_RESOURCE"))
    return found


def prepare(one: Container, config: dict[str, Any], holder: Callable[..., Holder]) -> dict[str, str]:
    """Create what the config needs around it; return the identities of the namespaces to be
    joined."""
    bundle, box = one.bundle, one.box
    files = bundle.path / "files"
    files.mkdir()
    for entry in config["mounts"]:
        source = entry.get("source", "")
        if source.startswith("files/"):
            if source == "files/shm":
                (bundle.path / source).mkdir()
            else:
                (bundle.path / source).write_text(source)
    maps = config["linux"].get("uidMappings")
    if maps:  # engines do the same: the image belongs to the mapped root
        for at, _, names in os.walk(bundle.path):
            for entry in (at, *(os.path.join(at, name) for name in names if at == str(files))):
                os.chown(entry, maps[0]["hostID"], maps[0]["hostID"])
    for name in APPLETS:  # images have them in /bin and /usr/bin
        assert (bundle.rootfs / "bin" / name).exists()
    paths = {entry["type"]: entry["path"] for entry in config["linux"]["namespaces"] if entry.get("path")}
    joined = {}
    if paths:
        held = holder(*paths)
        place = box.path / "pod-ns"
        place.mkdir()
        for entry in config["linux"]["namespaces"]:
            if entry.get("path"):
                link = place / entry["type"]
                link.symlink_to(held.path(entry["type"]))
                entry["path"] = str(link)
                joined[entry["type"]] = held.ident(entry["type"])
    config["process"]["args"] = ["/probe", "report", *(config["linux"].get("sysctl") or {})]
    path = config["linux"].get("cgroupsPath")
    if path:  # keep the form of the path, but make it unique to this test
        config["linux"]["cgroupsPath"] = (
            "/" if path.startswith("/") else ""
        ) + f"{box.prefix}{path.strip('/').replace('/', '-')}"
    bundle.config = config
    return joined


def run(one: Container, config: dict[str, Any], box: Box) -> dict[str, Any]:
    """Drive the container through its whole life as an engine does; return the probe's report."""
    if not config["process"].get("terminal"):
        one.create()
        check_cgroup(one, config)
        one.start()
        assert one.wait() == 0, one.err
        one.delete()
        return one.report
    console = Console(box.path / "pty.sock")
    try:
        one.create("--console-socket", str(console.path))
        master = console.receive()
        check_cgroup(one, config)
        one.start()
        text = read_all(master)
        one.wait()
        one.delete()
    finally:
        console.close()
    reports = [json.loads(line) for line in text.splitlines() if line.startswith('{"action":"report"')]
    assert reports, text
    return dict(reports[0])


def check_cgroup(one: Container, config: dict[str, Any]) -> None:
    lines = Path(f"/proc/{one.pid}/cgroup").read_text().splitlines()
    seen = next(line for line in lines if line.startswith("0::"))[3:]
    path = config["linux"].get("cgroupsPath")
    if path is None:
        assert Path(seen).name == one.id, seen
    elif path.startswith("/"):
        assert seen == path
    else:
        assert seen.endswith("/" + path), seen
    assert ((cgroup2_mount() or Path()) / seen.lstrip("/")).is_dir()


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_bundle(container: Make, box: Box, holder: Callable[..., Holder], path: Path) -> None:
    config = json.loads(path.read_text())
    one = container()
    host_ns = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    joined = prepare(one, config, holder)
    problems = obstacles(config)
    if problems:
        refuse(one, problems)
        return
    report = run(one, config, box)
    different = compare.differences(config, report, host_ns, joined)
    assert not different, "\n".join(different)
    assert not box.leftovers()


def refuse(one: Container, problems: list[tuple[str, str, str]]) -> None:
    """The error names one of the obstacles and its field. `test_bundle_without_obstacles` covers
    the rest of the config."""
    result = one.create(check=False)
    assert result.rc != 0, problems
    if one.box.runtime.is_pyrunc:
        assert len(result.err.splitlines()) == 1, result
        assert any(pointer in result.err and word in result.err for pointer, word, _ in problems), (result, problems)
    assert not one.box.leftovers()


def without_obstacles(config: dict[str, Any]) -> list[str]:
    """Remove what prevents a start, and return it."""
    removed = []
    linux, process = config["linux"], config["process"]
    for pointer, _, reason in obstacles(config):
        removed.append(reason)
        if pointer.startswith("/linux/resources/"):
            del linux["resources"][pointer.rpartition("/")[2]]
        elif pointer == "/process/capabilities":
            own = set(own_bounding_caps())
            process["capabilities"] = {
                kind: [n for n in names if n in own] for kind, names in process["capabilities"].items()
            }
        elif pointer == "/process/rlimits":
            for entry in process["rlimits"]:
                hard = resource.getrlimit(getattr(resource, entry["type"]))[1]
                if hard != resource.RLIM_INFINITY:
                    entry["hard"] = min(entry["hard"], hard)
                    entry["soft"] = min(entry["soft"], entry["hard"])
        elif pointer == "/process/oomScoreAdj":
            process["oomScoreAdj"] = int(Path("/proc/self/oom_score_adj").read_text())
    return removed


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_bundle_without_obstacles(container: Make, box: Box, holder: Callable[..., Holder], path: Path) -> None:
    """The configs that this machine cannot run unchanged run without their obstacles."""
    config = json.loads(path.read_text())
    if not without_obstacles(config):
        pytest.skip("runs as it is: see test_bundle")
    one = container()
    host_ns = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    joined = prepare(one, config, holder)
    report = run(one, config, box)
    different = compare.differences(config, report, host_ns, joined)
    assert not different, "\n".join(different)


def _mutations(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Variants of the config that differ from it in one setting each."""
    return {
        "uid": {"/process/user/uid": 7},
        "group": {"/process/user/additionalGids": [7]},
        "umask": {"/process/user/umask": 0},
        "cwd": {"/process/cwd": "/tmp"},
        "args": {"/process/args/-": "more"},
        "env": {"/process/env/-": "MORE=1"},
        "fewer capabilities": {"/process/capabilities/bounding/0": "CAP_SYS_ADMIN"},
        "noNewPrivileges": {"/process/noNewPrivileges": True},
        "limit": {"/process/rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]},
        "oomScoreAdj": {"/process/oomScoreAdj": 999},
        "mount flag": {"/mounts/0/options/-": "ro"},
        "mount type": {"/mounts/0/type": "tmpfs"},
        "mount size": {"/mounts/1/options/-": "size=1k"},
        "mount propagation": {"/mounts/0/options/-": "rshared"},
        "another mount": {"/mounts/-": {"destination": "/more", "type": "tmpfs", "source": "x"}},
        "read-only root": {"/root/readonly": True},
        "hostname": {"/hostname": "other"},
        "sysctl": {"/linux/sysctl": {"net.ipv4.ip_forward": "1"}},
        "device": {"/linux/devices": [{"path": "/dev/more", "type": "c", "major": 1, "minor": 3}]},
        "no seccomp": {"/linux/seccomp": DELETE},
        "terminal": {"/process/terminal": True},
        "one namespace less": {"/linux/namespaces/0": DELETE},
        "a joined namespace": {"/linux/namespaces/1/path": "/x"},
        "masked path": {"/linux/maskedPaths/-": "/proc/version"},
        "readonly path": {"/linux/readonlyPaths": ["/proc"]},
    }


def test_the_comparison_notices_differences(container: Make, box: Box, holder: Callable[..., Holder]) -> None:
    """The comparison itself is tested: a report must not match a config that differs from it."""
    config = json.loads((Path(__file__).parent / "bundles/podman4.3-default.json").read_text())
    without_obstacles(config)
    one = container()
    host_ns = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    joined = prepare(one, config, holder)
    report = run(one, config, box)
    assert compare.differences(config, report, host_ns, joined) == []
    other = {"network": "net:[1]", "pid": "pid:[1]"}
    for what, edits in _mutations(config).items():
        changed = edit(copy.deepcopy(config), edits)
        assert compare.differences(changed, report, host_ns, other), f"not noticed: {what}"
