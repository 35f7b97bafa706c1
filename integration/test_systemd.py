"""The systemd cgroup driver under a running systemd: the properties and the life of a container's
scope."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import REPO, SLOW, Box, Container, Result, errno_of, wait_until
from integration.machine import cgroup2_mount, systemd_runs, systemd_user

pytestmark = pytest.mark.needs_systemd
Scoped = Callable[..., "Scope"]
Refused = Callable[..., None]
MIB = 1 << 20
FLAG = ["--systemd-cgroup"]


def systemctl(*args: str, check: bool = True) -> str:
    done = subprocess.run(["systemctl", *args], capture_output=True, text=True, check=False, timeout=60 * SLOW)
    assert done.returncode == 0 or not check, done
    return done.stdout.strip()


class Scope:
    """A container whose cgroupsPath is ``slice:prefix:id``."""

    def __init__(self, one: Container, slice_: str = "system.slice") -> None:
        self.one, self.unit = one, f"{one.box.prefix}-{one.id}.scope"
        one.bundle.config["linux"]["cgroupsPath"] = f"{slice_}:{one.box.prefix}:{one.id}"

    def create(self, *flags: str, check: bool = True, **kwargs: Any) -> Result:
        return self.one.create(*flags, check=check, globals_=FLAG, **kwargs)

    def show(self, *names: str) -> dict[str, str]:
        """Properties of the unit."""
        lines = systemctl("show", "-p", ",".join(names), self.unit).splitlines()
        return dict(line.split("=", 1) for line in lines)

    def there(self) -> bool:
        return self.show("LoadState")["LoadState"] == "loaded" and self.show("ActiveState")["ActiveState"] == "active"

    @property
    def path(self) -> str:
        """init's cgroup."""
        lines = Path(f"/proc/{self.one.pid}/cgroup").read_text().splitlines()
        return next(line for line in lines if line.startswith("0::"))[3:]

    @property
    def dir(self) -> Path:
        root = cgroup2_mount()
        assert root
        return root / self.path.lstrip("/")


@pytest.fixture
def scoped(box: Box) -> Iterator[Scoped]:
    """``scoped(*probe_actions, edits={}, slice_="system.slice")``; no unit of the test remains
    afterwards."""
    made: list[Scope] = []

    def make(*actions: str, edits: dict[str, Any] | None = None, slice_: str = "system.slice") -> Scope:
        made.append(Scope(box.container(*actions, edits=edits), slice_))
        return made[-1]

    yield make
    for scope in made:
        scope.one.delete("--force", check=False)
        wait_until(lambda scope=scope: not scope.there(), f"{scope.unit} is gone")  # type: ignore[misc]
        assert scope.unit not in systemctl("list-units", "--all", "--plain", "--no-legend")


def test_life_of_a_container(scoped: Scoped) -> None:
    """Only create has the flag: the state records the cgroup manager."""
    scope = scoped("signals", "60")
    scope.create()
    assert scope.path == f"/system.slice/{scope.unit}"
    assert (scope.dir / "cgroup.procs").read_text().split() == [str(scope.one.pid)]
    shown = scope.show("ActiveState", "Slice", "ControlGroup", "Delegate", "MemoryAccounting", "TasksAccounting")
    assert shown == {
        "ActiveState": "active",
        "Slice": "system.slice",
        "ControlGroup": f"/system.slice/{scope.unit}",
        "Delegate": "yes",
        "MemoryAccounting": "yes",
        "TasksAccounting": "yes",
    }
    scope.one.start()
    scope.one.wait_output("ready")
    assert scope.one.status == "running"
    scope.one.kill("KILL")
    assert scope.one.wait() == 137
    scope.one.delete()
    assert not scope.there()


def test_run(scoped: Scoped) -> None:
    scope = scoped("say", "fine")
    assert scope.one.run(globals_=FLAG).out == "fine\n"
    assert not scope.there()


def test_program_that_ends_by_itself(scoped: Scoped) -> None:
    """systemd ends an empty scope; delete must accept that."""
    scope = scoped("exit", "3")
    scope.create()
    scope.one.start()
    assert scope.one.wait() == 3
    wait_until(lambda: not scope.there(), "systemd has seen that the scope is empty")
    scope.one.delete()


CRUNS = pytest.mark.pyrunc_only("an option of crun")


@pytest.mark.parametrize(
    "option",
    [
        pytest.param(["--cgroup-manager", "systemd"], marks=CRUNS),
        pytest.param(["--cgroup-manager=systemd"], marks=CRUNS),
        ["--systemd-cgroup"],
    ],
)
def test_options(scoped: Scoped, option: list[str]) -> None:
    scope = scoped("exit", "0")
    scope.one.create(globals_=option)
    assert scope.there()


@pytest.mark.pyrunc_only("the prefix is the runtime's name")
def test_no_path(scoped: Scoped) -> None:
    scope = scoped("exit", "0")
    del scope.one.bundle.config["linux"]["cgroupsPath"]
    scope.unit = f"pyrunc-{scope.one.id}.scope"
    scope.create()
    assert scope.path == f"/system.slice/pyrunc-{scope.one.id}.scope"


@pytest.mark.parametrize(
    ("slice_", "expected"),
    [("", "/system.slice"), ("-", ""), ("pyt-a-b.slice", "/pyt.slice/pyt-a.slice/pyt-a-b.slice")],
)
def test_slices(scoped: Scoped, slice_: str, expected: str) -> None:
    scope = scoped("exit", "0", slice_=slice_)
    if slice_ == "-" and not scope.one.box.runtime.is_pyrunc:
        pytest.skip("runc 1.1.5 knows only -.slice")
    scope.create()
    assert scope.path == f"{expected}/{scope.unit}"


def test_kubelet_layout(scoped: Scoped) -> None:
    """The kubelet creates the pod's slice with its limits; the container's scope goes into it."""
    pod = "kubepods-burstable-podc0ffee_1.slice"
    try:
        scope = scoped("signals", "60", slice_=pod, edits={"/linux/resources/memory": {"limit": 32 * MIB}})
        scope.create()
        systemctl("set-property", "--runtime", pod, "MemoryMax=64M")
        assert scope.path == f"/kubepods.slice/kubepods-burstable.slice/{pod}/{scope.unit}"
        assert (scope.dir / "memory.max").read_text().strip() == str(32 * MIB)
        assert (scope.dir.parent / "memory.max").read_text().strip() == str(64 * MIB)
        scope.one.delete("--force")
    finally:
        systemctl("stop", "kubepods.slice", check=False)


LIMITS: list[tuple[dict[str, Any], dict[str, str], dict[str, str]]] = [
    (
        {"memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 16 * MIB}},
        {"MemoryMax": str(64 * MIB), "MemorySwapMax": str(32 * MIB), "MemoryLow": str(16 * MIB)},
        {"memory.max": str(64 * MIB), "memory.low": str(16 * MIB)},
    ),
    (
        {"cpu": {"quota": 50_000, "period": 200_000}},
        {"CPUQuotaPerSecUSec": "250ms", "CPUQuotaPeriodUSec": "200ms"},
        {"cpu.max": "50000 200000"},
    ),
    ({"pids": {"limit": 17}}, {"TasksMax": "17"}, {"pids.max": "17"}),
    ({"pids": {"limit": 1}}, {"TasksMax": "1"}, {"pids.max": "1"}),
    ({"cpu": {"cpus": "0", "mems": "0"}}, {"AllowedCPUs": "0", "AllowedMemoryNodes": "0"}, {"cpuset.cpus": "0"}),
    (
        {"unified": {"memory.high": str(8 * MIB), "pids.max": "9", "cpu.max": "20000 100000"}},
        {"MemoryHigh": str(8 * MIB), "TasksMax": "9", "CPUQuotaPerSecUSec": "200ms"},
        {"memory.high": str(8 * MIB), "pids.max": "9", "cpu.max": "20000 100000"},
    ),
]


@pytest.mark.parametrize(("resources", "properties", "files"), LIMITS, ids=range(len(LIMITS)))
def test_limits(scoped: Scoped, resources: dict[str, Any], properties: dict[str, str], files: dict[str, str]) -> None:
    """Both systemd's properties and the kernel's files contain the limits."""
    scope = scoped("signals", "60", edits={"/linux/resources": {"devices": [], **resources}})
    scope.create()
    assert scope.show(*properties) == properties
    assert {name: (scope.dir / name).read_text().strip() for name in files} == files


@pytest.mark.pyrunc_only("runc 1.1.5 has the older formula")
def test_weights(scoped: Scoped) -> None:
    edits = {"/linux/resources": {"cpu": {"shares": 1024}, "blockIO": {"weight": 500}}}
    scope = scoped("signals", "60", edits=edits)
    scope.create()
    assert scope.show("CPUWeight", "IOWeight") == {"CPUWeight": "100", "IOWeight": "4950"}


def test_memory_limit_bites(scoped: Scoped) -> None:
    scope = scoped(edits={"/linux/resources/memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    scope.one.bundle.config["process"]["args"] = ["/bin/tail", "-n", "1", "/dev/zero"]
    scope.create()
    scope.one.start()
    assert scope.one.wait(60) == 137
    scope.one.delete()


@pytest.mark.pyrunc_only("runc itself needs more")
def test_one_mebibyte_is_enough(scoped: Scoped) -> None:
    scope = scoped(edits={"/linux/resources/memory": {"limit": MIB}, "/process/args": ["/bin/true"]})
    assert scope.one.run(globals_=FLAG).rc == 0


def test_daemon_reload_changes_nothing(scoped: Scoped) -> None:
    """systemd reapplies its limits and device policy."""
    node = {"path": "/dev/denied", "type": "c", "major": 60, "minor": 1}
    resources = {
        "devices": [{"allow": False, "access": "rwm"}],
        "memory": {"limit": 64 * MIB},
        "cpu": {"quota": 30_000, "period": 100_000, "cpus": "0"},
        "pids": {"limit": 33},
    }
    actions = ("stdin", "--", "open", "/dev/denied", "r")
    scope = scoped(*actions, edits={"/linux/resources": resources, "/linux/devices": [node]})
    read, write = os.pipe()
    try:
        scope.create(stdin=read)
        scope.one.start()
        files = ("memory.max", "cpu.max", "cpuset.cpus", "pids.max", "cgroup.subtree_control", "cgroup.controllers")
        before = {name: (scope.dir / name).read_text() for name in files}
        systemctl("daemon-reload")
        assert {name: (scope.dir / name).read_text() for name in files} == before
        assert scope.there()
    finally:
        os.close(write)
        os.close(read)
    assert scope.one.wait() == 0
    assert errno_of(scope.one.objects[-1]) == "EPERM"


def test_unit_that_is_stopped(scoped: Scoped) -> None:
    """An administrator's `systemctl stop` ends the container; delete still removes the rest."""
    scope = scoped("signals", "600")
    scope.create()
    scope.one.start()
    scope.one.wait_output("ready")
    systemctl("kill", "--signal=KILL", scope.unit)
    assert scope.one.wait(20) == 137
    systemctl("stop", scope.unit, check=False)
    assert scope.one.status == "stopped"
    scope.one.delete()


@pytest.mark.pyrunc_only("runc 1.1.5 enters the other's cgroup and warns")
def test_unit_that_exists(scoped: Scoped, refused: Refused) -> None:
    """A name in use is an error, and the other unit does not change."""
    scope = scoped("exit", "0")
    sleeper = subprocess.Popen(["systemd-run", "--scope", "-q", "--unit", scope.unit, "sleep", "600"])
    scope.one.box.helpers.add(sleeper.pid)
    try:
        wait_until(scope.there, "the other unit is there")
        scope.one.box.own_cgroups.add(Path(f"/sys/fs/cgroup/system.slice/{scope.unit}"))
        refused(scope.create(check=False), "/linux/cgroupsPath", scope.unit)
        assert scope.there() and sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()
        systemctl("stop", scope.unit, check=False)


@pytest.mark.pyrunc_only("runc 1.1.5 makes no scope then, and says nothing")
def test_failed_unit_of_the_same_name(scoped: Scoped) -> None:
    """An older failed unit does not block its name."""
    scope = scoped("exit", "0")
    service = scope.unit.replace(".scope", ".service")
    argv = ["systemd-run", "-q", "--scope", "-p", "RuntimeMaxSec=1", "--unit", scope.unit, "sleep", "600"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120 * SLOW)
    assert done.returncode != 0, service
    wait_until(lambda: scope.show("ActiveState")["ActiveState"] == "failed", "it has failed", 20)
    scope.create()
    assert scope.there()


def test_failed_create_leaves_no_unit(scoped: Scoped, refused: Refused) -> None:
    scope = scoped(edits={"/hooks": {"createRuntime": [{"path": "/bin/false"}]}})
    refused(scope.create(check=False), "/hooks/createRuntime/0")
    assert not scope.there()
    scope = scoped(edits={"/linux/resources/cpu": {"cpus": "4000"}})
    refused(scope.create(check=False), "/linux/resources/cpu/cpus")
    assert not scope.there()


@pytest.mark.pyrunc_only("its own crash")
def test_killed_create_can_be_removed(scoped: Scoped) -> None:
    scope = scoped(edits={"/hooks": {"createRuntime": [{"path": "/bin/sh", "args": ["sh", "-c", "kill -9 $PPID"]}]}})
    assert scope.create(check=False).rc == -9
    scope.one.delete("--force")
    assert not scope.there()


@pytest.mark.pyrunc_only("says other words")
@pytest.mark.parametrize("path", ["/a/b", "a.slice:b", "a:b:c", "a--b.slice:x:y", "a.slice:b:c:d"])
def test_paths_refused(scoped: Scoped, refused: Refused, path: str) -> None:
    scope = scoped()
    scope.one.bundle.config["linux"]["cgroupsPath"] = path
    refused(scope.create(check=False), "/linux/cgroupsPath", path)


def test_annotated_properties(scoped: Scoped) -> None:
    annotations = {
        "org.systemd.property.TimeoutStopSec": "7.5",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.Before": "['shutdown.target']",
    }
    scope = scoped("signals", "60", edits={"/annotations": annotations})
    scope.create()
    shown, want = scope.show("TimeoutStopUSec", "CollectMode", "Before"), "inactive-or-failed"
    assert (shown["TimeoutStopUSec"], shown["CollectMode"]) in (("7.500000s", want), ("7s 500ms", want))
    assert "shutdown.target" in shown["Before"].split()


@pytest.mark.pyrunc_only("says other words")
def test_annotations_refused(scoped: Scoped, refused: Refused) -> None:
    name = "org.systemd.property.TimeoutStopSec"
    scope = scoped(edits={"/annotations": {name: "bare words"}})
    refused(scope.create(check=False), "/annotations/" + name, "bare words")
    scope = scoped(edits={"/annotations": {"org.systemd.property.Nonsense": "5"}})
    refused(scope.create(check=False), "systemd", "Nonsense")


@pytest.mark.pyrunc_only("an annotation of crun")
def test_subgroup(scoped: Scoped) -> None:
    edits = {"/annotations": {"run.oci.systemd.subgroup": "inner"}, "/linux/resources/pids": {"limit": 40}}
    scope = scoped("signals", "60", edits=edits)
    scope.create()
    assert scope.path == f"/system.slice/{scope.unit}/inner"
    assert "pids" in (scope.dir.parent / "cgroup.subtree_control").read_text().split()
    assert (scope.dir / "pids.max").read_text() == "40\n"
    assert scope.show("TasksMax") == {"TasksMax": "40"}


def test_update(scoped: Scoped) -> None:
    scope = scoped("signals", "60", edits={"/linux/resources/pids": {"limit": 40}})
    scope.create()
    changed = {"pids": {"limit": 50}, "memory": {"limit": 48 * MIB, "swap": 48 * MIB}}
    scope.one.call("update", "--resources", "-", scope.one.id, stdin=json.dumps(changed))
    wanted = {"TasksMax": "50", "MemoryMax": str(48 * MIB)}
    wanted |= {"MemorySwapMax": "0"} if scope.one.box.runtime.is_pyrunc else {}  # runc does not pass a zero to systemd
    wait_until(lambda: scope.show(*wanted) == wanted, "systemd knows the new limits")
    wait_until(lambda: (scope.dir / "pids.max").read_text() == "50\n", "they are in force")
    systemctl("daemon-reload")
    assert (scope.dir / "pids.max").read_text() == "50\n"
    assert (scope.dir / "memory.max").read_text() == f"{48 * MIB}\n"


def test_exec_joins_the_scope(scoped: Scoped) -> None:
    scope = scoped("signals", "60")
    scope.create()
    scope.one.start()
    out = scope.one.call("exec", scope.one.id, "/bin/cat", "/proc/self/cgroup").out
    assert out.splitlines()[-1] == "0::/"  # in its cgroup namespace


def test_pause_and_resume(scoped: Scoped) -> None:
    scope = scoped("signals", "60")
    scope.create()
    scope.one.start()
    scope.one.call("pause", scope.one.id)
    assert scope.one.status == "paused"
    scope.one.call("resume", scope.one.id)
    assert scope.one.status == "running"


@pytest.mark.pyrunc_only("runc talks to the bus only")
def test_through_the_message_bus(scoped: Scoped) -> None:
    """For hosts where systemd's own socket is not available (an engine in a container with the bus
    mounted)."""
    hide = 'mount --bind /dev/null /run/systemd/private && exec "$@"'
    wrap = ["/usr/bin/unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", hide, "sh"]
    scope = scoped("say", "fine")
    assert scope.one.run(globals_=FLAG, wrap=wrap).out == "fine\n"


@pytest.mark.pyrunc_only("says other words")
def test_systemd_that_cannot_be_reached(scoped: Scoped, refused: Refused) -> None:
    hide = 'for s in systemd/private dbus/system_bus_socket; do mount --bind /dev/null /run/$s || exit; done; exec "$@"'
    wrap = ["/usr/bin/unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", hide, "sh"]
    scope = scoped("say", "fine")
    refused(scope.create(check=False, wrap=wrap), "systemd cannot be reached at unix:path=/run/systemd/private")


def test_containers_beside_each_other(scoped: Scoped) -> None:
    """Each waits for its own job only."""
    scopes = [scoped("exit", "0") for _ in range(4)]
    calls = []
    for scope in scopes:
        scope.one.bundle.save()
        argv = scope.one.box.runtime.argv("--root", str(scope.one.box.root), *FLAG, "run", "-b")
        calls.append(subprocess.Popen([*argv, str(scope.one.bundle.path), scope.one.id], stdin=subprocess.DEVNULL))
        scope.one.box.helpers.add(calls[-1].pid)
    assert [call.wait(60 * SLOW) for call in calls] == [0] * 4


USER_SCRIPT = """
import os, subprocess, sys
from pyrunc import cgroup, host
facts = host.snapshot()
path = cgroup.path_for("", sys.argv[1], facts, "systemd")
driver = cgroup.open_driver("systemd", facts)
child = subprocess.Popen(["sleep", "600"])
os.close(driver.create(path, {"pids": {"limit": 30}}, request=cgroup.ScopeRequest(sys.argv[1], child.pid, {})))
driver.apply(path, {"pids": {"limit": 30}})
print(path)
print(open(f"/proc/{child.pid}/cgroup").read().strip().rpartition("0::")[2])
print(open(f"{facts.cgroup2_mount}{path}/pids.max").read().strip())
driver.apply(path, {"pids": {"limit": 31}})
show = ["systemctl", "--user", "show", "-p", "TasksMax", "--value", path.rpartition("/")[2]]
print(subprocess.run(show, capture_output=True, text=True).stdout.strip())
driver.kill(path, 9)
child.wait()
driver.remove(path, 10, driver.missing(path))
print(os.path.exists(facts.cgroup2_mount + path))
"""


@pytest.mark.needs_systemd_user
@pytest.mark.parametrize("private", [True, False])
def test_scope_of_a_user(private: bool) -> None:
    """The driver alone, as a user, through the user's systemd, with and without a message bus."""
    uid = systemd_user()
    directory = f"/run/user/{uid}"
    path = os.pathsep.join([str(REPO), *sys.path])
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    if private:
        env["XDG_RUNTIME_DIR"] = directory
    else:
        env["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={directory}/bus"
    ident = f"pyt{os.getpid():x}{private:d}"
    argv = [sys.executable, "-c", USER_SCRIPT, ident]
    done = subprocess.run(
        argv, env=env, user=uid, group=uid, extra_groups=[], cwd="/", capture_output=True, text=True, timeout=60 * SLOW
    )
    assert done.returncode == 0, done.stderr
    path, place, limit, told, left = done.stdout.splitlines()
    assert path == place
    assert path.endswith(f"/user@{uid}.service/user.slice/pyrunc-{ident}.scope")
    assert (limit, left) == ("30", "False")
    assert told in ("31", "")  # "" if systemctl finds no bus


def test_this_is_systemd() -> None:
    assert systemd_runs()
    assert systemctl("is-system-running", check=False) in ("running", "degraded", "starting")
