"""The systemd driver with a fake peer: names, properties and the life of a scope."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transcript
from bus_peer import INFINITY, JOB, Error, Peer, peer
from json_type import Json
from pyrunc import cgroup
from pyrunc.cgroup import bus, resources, systemd
from pyrunc.errors import ConfigError, PyruncError
from pyrunc.host import HostFacts
from pyrunc.spec.types import Resources

__all__ = ["peer"]  # a fixture

kept = transcript.follow("pyrunc.cgroup.gvariant", "pyrunc.cgroup.systemd")


def facts(prefix: str = "/nowhere") -> HostFacts:
    made = HostFacts()
    made.cgroup2_mount, made.prefix = "/sys/fs/cgroup", prefix
    return made


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("", "/system.slice/pyrunc-c1.scope"),
        (":runc:abc", "/system.slice/runc-abc.scope"),
        ("system.slice:docker:abc", "/system.slice/docker-abc.scope"),
        ("system.slice::abc", "/system.slice/abc.scope"),
        ("-:crio:abc", "/crio-abc.scope"),
        ("-.slice:crio:abc", "/crio-abc.scope"),
        ("kubepods.slice:cri-containerd:abc", "/kubepods.slice/cri-containerd-abc.scope"),
        (
            "kubepods-burstable-pod1_2.slice:crio:abc",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice/crio-abc.scope",
        ),
        ("a.slice:x:b.slice", "/a.slice/b.slice"),
    ],
)
def test_path_for(path: str, expected: str) -> None:
    assert cgroup.path_for(path, "c1", facts(), "systemd") == expected
    scope, unit, slice_ = systemd.names(expected)
    assert (scope, unit) == (expected, expected.rpartition("/")[2])
    assert slice_ == (path.partition(":")[0] or "system.slice").replace("-.slice", "-").replace("-:", "") or slice_


@pytest.mark.parametrize(
    "path",
    [
        *("/a/b", "a", "a.slice:b", "a.slice:b:c:d", "a:b:c", "a.slice:b:", "a--b.slice:x:y", "-a.slice:x:y"),
        *("a-.slice:x:y", ".slice:x:y", "a/b.slice:x:y", "a.slice:x:b/c", "a.slice:x:" + "b" * 250),
    ],
)
def test_paths_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="/linux/cgroupsPath"):
        cgroup.path_for(path, "c1", facts(), "systemd")


def test_below_the_manager(tmp_path: Path) -> None:
    """systemd in a container is not at the top of the hierarchy; /proc/1/cgroup names its
    cgroup."""
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/cgroup").write_text("1:name=systemd:/x\n0::/docker/abc/init.scope\n")
    assert systemd.path_for("", "c1", facts(str(tmp_path)), {}) == "/docker/abc/system.slice/pyrunc-c1.scope"


def test_slice_of_a_path() -> None:
    assert systemd.names("/a.slice/a-b.slice/x.scope") == ("/a.slice/a-b.slice/x.scope", "x.scope", "a-b.slice")
    assert systemd.names("/x.scope") == ("/x.scope", "x.scope", "-.slice")
    user = "/user.slice/user-1000.slice/user@1000.service/x.scope"
    assert systemd.names(user) == (user, "x.scope", "-.slice")
    assert systemd.names("/a.slice/x.scope/container") == ("/a.slice/x.scope", "x.scope", "a.slice")
    with pytest.raises(PyruncError):
        systemd.names("/a/b/c")


def test_subgroup() -> None:
    annotations = {systemd.SUBGROUP: "container"}
    path = cgroup.path_for("", "c1", facts(), "systemd", annotations)
    assert path == "/system.slice/pyrunc-c1.scope/container"
    assert systemd.Systemd(facts()).missing(path) == ["/system.slice/pyrunc-c1.scope", path]
    for bad in ("a/b", "..", "a\nb"):
        with pytest.raises(ConfigError, match=r"/annotations/run.oci.systemd.subgroup"):
            cgroup.path_for("", "c1", facts(), "systemd", {systemd.SUBGROUP: bad})


# --- properties -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"memory": {"limit": 1 << 26}}, {"MemoryMax": ("t", 1 << 26)}),
        ({"memory": {"limit": -1}}, {"MemoryMax": ("t", INFINITY), "MemorySwapMax": ("t", INFINITY)}),
        (
            {"memory": {"limit": 1 << 26, "swap": 3 << 25, "reservation": 1 << 20}},
            {"MemoryMax": ("t", 1 << 26), "MemorySwapMax": ("t", 1 << 25), "MemoryLow": ("t", 1 << 20)},
        ),
        ({"cpu": {"shares": 1024}}, {"CPUWeight": ("t", 100)}),
        (
            {"cpu": {"quota": 50_000, "period": 200_000}},
            {"CPUQuotaPerSecUSec": ("t", 250_000), "CPUQuotaPeriodUSec": ("t", 200_000)},
        ),
        # hundredths of a processor, rounded up
        ({"cpu": {"quota": 1001}}, {"CPUQuotaPerSecUSec": ("t", 20_000), "CPUQuotaPeriodUSec": ("t", 100_000)}),
        ({"cpu": {"quota": -1}}, {"CPUQuotaPerSecUSec": ("t", INFINITY), "CPUQuotaPeriodUSec": ("t", 100_000)}),
        (
            {"cpu": {"cpus": "0-2,9", "mems": "0"}},
            {"AllowedCPUs": ("ay", b"\7\2"), "AllowedMemoryNodes": ("ay", b"\1")},
        ),
        ({"cpu": {"idle": 1}}, {"CPUWeight": ("t", 0)}),
        ({"pids": {"limit": 17}}, {"TasksMax": ("t", 17)}),
        ({"pids": {"limit": 0}}, {"TasksMax": ("t", 1)}),
        ({"pids": {"limit": -1}}, {"TasksMax": ("t", INFINITY)}),
        ({"blockIO": {"weight": 500}}, {"IOWeight": ("t", 4950)}),
        (
            {"unified": {"memory.max": "64M", "memory.high": "max", "memory.min": "4096", "io.weight": "default 70"}},
            {
                "MemoryMax": ("t", 64 << 20),
                "MemoryHigh": ("t", INFINITY),
                "MemoryMin": ("t", 4096),
                "IOWeight": ("t", 70),
            },
        ),
        ({"unified": {"memory.oom.group": "1"}}, {"OOMPolicy": ("s", "kill")}),
        ({"unified": {"memory.oom.group": "0"}}, {"OOMPolicy": ("s", "continue")}),
        # the later one wins, as in the file
        ({"pids": {"limit": 17}, "unified": {"pids.max": "9"}}, {"TasksMax": ("t", 9)}),
        # values without a property, or that cannot be parsed, are only written to the file
        ({"unified": {"memory.max": "nonsense", "cpuset.cpus": "x", "cpu.max": "a b", "io.max": "8:0 rbps=1"}}, {}),
        ({"cpu": {"cpus": "9000"}, "rdma": {"mlx5": {"hcaHandles": 3}}}, {}),
    ],
    ids=range(19),
)
def test_properties(given_: Json, expected: dict[str, Any]) -> None:
    assert systemd.properties(resources.convert(given_)) == expected


@given(st.sets(st.integers(0, 500), min_size=1))
def test_bitmask(numbers: set[int]) -> None:
    mask = int.from_bytes(systemd.bitmask(",".join(map(str, sorted(numbers)))), "little")
    assert {n for n in range(501) if mask >> n & 1} == numbers


def test_annotations() -> None:
    given_ = {
        "org.systemd.property.TimeoutStopSec": "1.5",
        "org.systemd.property.TimeoutStartUSec": "uint64 7",
        "org.systemd.property.CollectMode": "'inactive'",
        "other": "x",
    }
    assert systemd.annotated(given_) == {
        "TimeoutStopUSec": ("t", 1_500_000),
        "TimeoutStartUSec": ("t", 7),
        "CollectMode": ("s", "inactive"),
    }
    bad = {"org.systemd.property.ab": "5", "org.systemd.property.FooSec": "'x'", "org.systemd.property.Foo": "bare"}
    with pytest.raises(ConfigError) as raised:
        systemd.annotated(bad)
    assert len(raised.value.problems) == 3
    assert "/annotations/org.systemd.property.FooSec" in str(raised.value)


# --- the driver -----------------------------------------------------------------------------------


@pytest.fixture
def driver(peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> systemd.Systemd:
    """A driver on a fake hierarchy in which the peer creates the scope's directory."""
    made = facts(str(tmp_path))
    made.cgroup2_mount = str(tmp_path / "cgroup")
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    (tmp_path / "cgroup/cgroup.controllers").write_text("memory pids cpu cpuset\n")
    (tmp_path / "proc/41").mkdir(parents=True)
    (tmp_path / "proc/41/cgroup").write_text("0::/system.slice/pyrunc-c1.scope\n")

    def start(unit: str, mode: str, properties: object, aux: object) -> list[Any]:
        group = tmp_path / "cgroup/system.slice" / unit
        group.mkdir(parents=True)
        for name in ("memory.max", "pids.max", "cpu.weight"):
            (group / name).write_text("max\n")
        (group / "cgroup.controllers").write_text("memory pids cpu cpuset\n")
        return [("o", JOB)]

    def stop(unit: str, mode: str) -> list[Any]:
        for path in sorted((tmp_path / "cgroup/system.slice" / unit).rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        (tmp_path / "cgroup/system.slice" / unit).rmdir()
        return [("o", JOB)]

    peer.replies["StartTransientUnit"] = [start]
    peer.replies["StopUnit"] = [stop]
    return systemd.Systemd(made)


PATH = "/system.slice/pyrunc-c1.scope"
REQUEST = cgroup.ScopeRequest("c1", 41, {})


def properties_of(call: tuple[str, list[Any]]) -> dict[str, Any]:
    return dict(call[1][2])


def test_life_of_a_scope(driver: systemd.Systemd, peer: Peer, tmp_path: Path) -> None:
    request = cgroup.ScopeRequest("c1", 41, {"org.systemd.property.TimeoutStopSec": "3"})
    limits: Resources = {"memory": {"limit": 1 << 26}, "pids": {"limit": 5}}
    fd = driver.create(PATH, limits, request=request)
    assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path / "cgroup" / PATH[1:])
    os.close(fd)
    assert driver.made == [PATH]
    assert [name for name, _ in peer.calls] == ["StartTransientUnit"]
    told = properties_of(peer.calls[0])
    assert told == {
        "Description": ("s", "container c1"),
        "Slice": ("s", "system.slice"),
        "PIDs": ("au", [41]),
        "Delegate": ("b", True),
        "CollectMode": ("s", "inactive-or-failed"),
        "CPUAccounting": ("b", True),
        "IOAccounting": ("b", True),
        "MemoryAccounting": ("b", True),
        "TasksAccounting": ("b", True),
        "DefaultDependencies": ("b", False),
        "MemoryMax": ("t", 1 << 26),
        "TasksMax": ("t", 5),
        "TimeoutStopUSec": ("t", 3_000_000),
    }
    driver.apply(PATH, limits)  # only the files: systemd has the limits already
    assert len(peer.calls) == 1
    assert (tmp_path / "cgroup" / PATH[1:] / "memory.max").read_text().startswith(str(1 << 26))
    driver.apply(PATH, {"pids": {"limit": 9}})  # an update
    assert peer.calls[1:] == [("SetUnitProperties", ["pyrunc-c1.scope", True, [("TasksMax", ("t", 9))]])]
    driver.remove(PATH, 1, [PATH])
    assert [name for name, _ in peer.calls[2:]] == ["StopUnit", "ResetFailedUnit"]
    driver.remove(PATH, 1, [PATH])  # the second call has nothing to request from systemd
    assert len(peer.calls) == 4


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_small_limits_of_tasks_come_when_init_is_alone(
    driver: systemd.Systemd, peer: Peer, tmp_path: Path, limit: int
) -> None:
    """Until then `enter` is in the scope as well, and the clone of init would exceed the limit:
    EAGAIN."""
    limits: Resources = {"memory": {"limit": 1 << 26}, "pids": {"limit": limit}}
    os.close(driver.create(PATH, limits, request=REQUEST))
    told = properties_of(peer.calls[0])
    assert "TasksMax" not in told and told["MemoryMax"] == ("t", 1 << 26)
    driver.apply(PATH, limits)
    value = max(limit, 1)
    assert peer.calls[1:] == [("SetUnitProperties", ["pyrunc-c1.scope", True, [("TasksMax", ("t", value))]])]
    assert (tmp_path / "cgroup" / PATH[1:] / "pids.max").read_text().startswith(f"{value}")


# Properties of a scope that some supported version of systemd lacks, each with a limit that needs
# it.
NEWER = {
    "AllowedCPUs": {"cpuset.cpus": "0"},
    "AllowedMemoryNodes": {"cpuset.mems": "0"},
    "CPUQuotaPeriodUSec": {"cpu.max": "1000 2000"},
    "CPUWeight": {"cpu.weight": "7"},
    "OOMPolicy": {"memory.oom.group": "1"},
    "CollectMode": {},
}


@pytest.mark.parametrize("name", NEWER)
def test_properties_that_this_systemd_lacks(driver: systemd.Systemd, peer: Peer, name: str) -> None:
    lacks = Error("org.freedesktop.DBus.Error.PropertyReadOnly", f"Cannot set property {name}, or unknown property.")
    (start,) = peer.replies["StartTransientUnit"]
    peer.replies["StartTransientUnit"] = [lacks, start]
    os.close(driver.create(PATH, {"unified": NEWER[name]}, request=REQUEST))
    first, second = map(properties_of, peer.calls)
    assert set(first) - set(second) == {name}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("7", 7), ("0", 0), ("max", systemd.INFINITY), ("3K", 3 << 10), ("3m", 3 << 20), ("3G", 3 << 30),
        ("3T", 3 << 40), ("3P", 3 << 50), ("1" * 19, int("1" * 19)), ("1" * 20, None), ("3X", None), ("K", None),
        ("", None), ("\u0663", None), ("-1", None),
    ],
)  # fmt: skip
def test_limits_as_the_kernel_reads_them(text: str, value: int | None) -> None:
    assert systemd.number(text) == value


def test_unknown_property(driver: systemd.Systemd, peer: Peer) -> None:
    words = "Cannot set property Nonsense, or unknown property."
    peer.replies["StartTransientUnit"] = [Error("org.freedesktop.DBus.Error.PropertyReadOnly", words)]
    with pytest.raises(bus.BusError, match="StartTransientUnit: Cannot set property Nonsense"):
        driver.create(PATH, {}, request=cgroup.ScopeRequest("c1", 41, {"org.systemd.property.Nonsense": "5"}))
    assert [name for name, _ in peer.calls] == ["StartTransientUnit"]


def test_existing_unit(driver: systemd.Systemd, peer: Peer) -> None:
    """A failed unit of an older container is reset; a running one is an error and remains."""
    peer.replies["StartTransientUnit"].insert(0, Error(bus.UNIT_EXISTS, "exists"))
    os.close(driver.create(PATH, {}, request=REQUEST))
    driver.remove(PATH, 1, [PATH])
    peer.calls.clear()
    peer.replies["StartTransientUnit"] = [Error(bus.UNIT_EXISTS, "exists")]
    with pytest.raises(PyruncError, match=r'/linux/cgroupsPath "pyrunc-c1.scope": systemd has a unit of this name'):
        driver.create(PATH, {}, request=REQUEST)
    assert [name for name, _ in peer.calls] == ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit"]


@pytest.mark.parametrize("result", ["failed", "canceled", "timeout"])
def test_scope_that_does_not_start_is_stopped(driver: systemd.Systemd, peer: Peer, tmp_path: Path, result: str) -> None:
    peer.result = result
    with pytest.raises(PyruncError, match=result):
        driver.create(PATH, {}, request=REQUEST)
    assert [name for name, _ in peer.calls] == ["StartTransientUnit", "StopUnit"]
    assert not (tmp_path / "cgroup" / PATH[1:]).exists()


def test_a_scope_that_cannot_be_stopped(driver: systemd.Systemd, peer: Peer, tmp_path: Path) -> None:
    """The first error is the one to report, and the cgroup is removed without systemd's help."""
    (tmp_path / "proc/41/cgroup").write_text("0::/elsewhere\n")
    peer.replies["StopUnit"] = [Error("a.b", "not now"), Error("a.b", "not now")]
    with pytest.raises(PyruncError, match=r"systemd put pyrunc-c1.scope into the cgroup /elsewhere"):
        driver.create(PATH, {}, request=REQUEST)
    assert "not now" in driver.stop("pyrunc-c1.scope")
    assert [name for name, _ in peer.calls].count("StopUnit") == 2


def test_process_elsewhere(driver: systemd.Systemd, peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "proc/41/cgroup").write_text("0::/elsewhere\n")
    with pytest.raises(PyruncError, match=r"systemd put pyrunc-c1.scope into the cgroup /elsewhere"):
        driver.create(PATH, {}, request=REQUEST)
    assert peer.calls[-2][0] == "StopUnit"


def test_limit_without_its_controller(driver: systemd.Systemd, peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "cgroup/cgroup.controllers").write_text("memory pids cpu\n")
    with pytest.raises(PyruncError, match=r"/linux/resources/cpu/cpus.*the cpuset controller is not available"):
        driver.create(PATH, {"cpu": {"cpus": "0"}}, request=REQUEST)
    assert not peer.calls


def test_unit_that_vanished(driver: systemd.Systemd, peer: Peer) -> None:
    with pytest.raises(PyruncError, match=r"pyrunc-c1.scope no longer has a cgroup"):
        driver.apply(PATH, {"pids": {"limit": 9}})
    os.close(driver.create(PATH, {}, request=REQUEST))
    driver.fresh = ""
    peer.replies["SetUnitProperties"] = [Error(bus.NO_SUCH_UNIT, "Unit pyrunc-c1.scope not loaded.")]
    with pytest.raises(bus.BusError, match=r"SetUnitProperties: Unit pyrunc-c1.scope not loaded"):
        driver.apply(PATH, {"pids": {"limit": 9}})


def test_subgroup_below_the_scope(driver: systemd.Systemd, peer: Peer, tmp_path: Path) -> None:
    """The process moves down, so that the scope can enable its controllers."""
    (start,) = peer.replies["StartTransientUnit"]

    def start_with_more(*arguments: Any) -> list[Any]:
        reply: list[Any] = start(*arguments)
        (tmp_path / "cgroup" / PATH[1:] / "inner").mkdir()
        (tmp_path / "cgroup" / PATH[1:] / "inner/cgroup.procs").touch()
        return reply

    peer.replies["StartTransientUnit"] = [start_with_more]
    os.close(driver.create(PATH + "/inner", {}, request=REQUEST))
    assert (tmp_path / "cgroup" / PATH[1:] / "inner/cgroup.procs").read_text() == "41"
    assert driver.made == [PATH, PATH + "/inner"]


USERS = "/user.slice/user-7.slice/user@7.service/user.slice/pyrunc-c1.scope"


@pytest.mark.parametrize(
    ("path", "below", "told"), [(USERS, "", ""), (USERS, "/a/b", "/a/b"), (USERS + "/inner", "/a", "/inner/a")]
)
def test_a_user_process_is_moved_into_the_scope(
    peer: Peer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, below: str, told: str
) -> None:
    monkeypatch.setattr(bus, "addresses", lambda user: [(f"unix:path={tmp_path}/private", False)] if user else [])
    peer.replies["AttachProcessesToUnit"] = [[]]
    mine = facts()
    mine.euid = 7
    systemd.move_into_scope(path, below, 41, mine)
    assert peer.calls == [("AttachProcessesToUnit", ["pyrunc-c1.scope", told, [41]])]


def test_root_needs_no_systemd(peer: Peer, tmp_path: Path) -> None:
    systemd.move_into_scope(PATH, "", 41, facts(str(tmp_path)))
    assert not peer.calls


def test_without_systemd(tmp_path: Path) -> None:
    driver = systemd.Systemd(facts(str(tmp_path)))
    with pytest.raises(PyruncError, match=r"the systemd cgroup driver cannot be used: systemd is not this host's init"):
        driver.create(PATH, {}, request=REQUEST)
