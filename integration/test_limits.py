"""Resource limits that take effect, as seen by the container's processes and by the kernel's
counters."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container, errno_of, wait_until

Make = Callable[..., Container]
Refused = Callable[..., None]
MIB = 1 << 20


def limited(container: Make, resources: dict[str, Any], *args: str) -> Container:
    """A container with these limits that runs a busybox command, or `signals` of the probe."""
    edits: dict[str, Any] = {"/linux/resources": {"devices": [{"allow": False, "access": "rwm"}], **resources}}
    if args:
        edits["/process/args"] = list(args)
    return container("signals", "60", edits=edits)


def flat(one: Container, file: str) -> dict[str, int]:
    """A flat-keyed file of the container's cgroup."""
    words = (one.cgroup / file).read_text().split()
    return {key: int(value) for key, value in zip(words[::2], words[1::2], strict=True)}


def own_disk() -> str:
    """``major:minor`` of the disk with this test's files, or "" if io.max accepts none."""
    device = os.stat(os.environ.get("PYRUNC_TEST_TMP", "/var/tmp")).st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    path = Path(f"/sys/dev/block/{name}")
    if not path.exists():
        return ""
    whole = path.resolve()
    return (whole.parent / "dev").read_text().strip() if (whole / "partition").exists() else name


# --- memory ---------------------------------------------------------------------------------------


@pytest.mark.needs_controller("memory")
def test_program_over_its_memory_is_killed(container: Make) -> None:
    """tail keeps an endless line in memory."""
    resources = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}
    one = limited(container, resources, "/bin/tail", "-n", "1", "/dev/zero")
    one.create()
    one.start()
    assert one.wait(60) == 137
    assert flat(one, "memory.events")["oom_kill"] >= 1
    assert one.status == "stopped"


@pytest.mark.needs_controller("memory")
def test_oom_group_takes_all(container: Make) -> None:
    resources = {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}, "unified": {"memory.oom.group": "1"}}
    script = "sleep 600 & sleep 600 & tail -n 1 /dev/zero; sleep 600"
    one = limited(container, resources, "/bin/sh", "-c", script)
    one.create()
    one.start()
    assert one.wait(60) == 137
    wait_until(lambda: not flat(one, "cgroup.events")["populated"], "all of them are gone")


@pytest.mark.needs_controller("memory")
@pytest.mark.pyrunc_only("runc itself needs more")
def test_one_mebibyte_starts_a_static_program(container: Make) -> None:
    edits = {"/process/args": ["/bin/true"], "/linux/resources/memory": {"limit": MIB}}
    one = container(edits=edits)
    assert one.run().rc == 0
    one = container(edits=edits)
    one.create()
    assert (one.cgroup / "memory.max").read_text() == f"{MIB}\n"
    one.start()
    assert one.wait() == 0
    assert flat(one, "memory.events")["oom_kill"] == 0
    one.delete()


@pytest.mark.needs_controller("memory")
@pytest.mark.pyrunc_only("its error is another")
def test_too_little_for_the_program_is_named(container: Make, box: Box) -> None:
    """The program's image does not fit; `run` reports that, not only "killed"."""
    result = limited(container, {"memory": {"limit": 4096, "swap": 4096}}, "/bin/true").run(check=False)
    assert result.rc != 0
    assert "memory" in result.err and "/linux/resources/memory/limit" in result.err, result


@pytest.mark.needs_controller("memory")
@pytest.mark.pyrunc_only("runc sets the limit before its own set-up as well, and reports something else")
def test_copied_up_files_count_against_the_limit(container: Make) -> None:
    """The copied files belong to the container's memory: 200 MB were copied before the limit of 16
    MB applied."""
    one = limited(container, {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}, "/bin/true")
    (one.bundle.rootfs / "full").mkdir()
    with open(one.bundle.rootfs / "full/big", "wb") as file:
        for _ in range(200):
            file.write(os.urandom(MIB))
    tmpfs = {"destination": "/full", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    one.bundle.config["mounts"].append(tmpfs)
    result = one.create(check=False)
    assert result.rc == 1 and "OOM-killed" in result.err, result


@pytest.mark.needs_controller("memory")
def test_init_is_charged_to_the_container(container: Make) -> None:
    """Only the waiting init is charged. It is small, because it is not an interpreter
    (docs/adr/0002)."""
    one = limited(container, {"memory": {"limit": 64 * MIB}})
    one.create()
    used = int((one.cgroup / "memory.current").read_text())
    assert used < (2 * MIB if one.box.runtime.is_pyrunc else 64 * MIB)


# --- pids -----------------------------------------------------------------------------------------


@pytest.mark.needs_controller("pids")
def test_forks_over_the_limit_fail(container: Make) -> None:
    one = limited(container, {"pids": {"limit": 4}}, "/probe", "fork", "20", "--", "signals", "60")
    one.create()
    one.start()
    one.wait_output("ready")
    assert (one.cgroup / "pids.current").read_text() == "4\n"
    assert flat(one, "pids.events")["max"] >= 1


# --- cpu ------------------------------------------------------------------------------------------


@pytest.mark.needs_controller("cpu")
def test_a_quota_throttles(container: Make) -> None:
    """The program gets a tenth of a processor, so it spends most of its time waiting."""
    one = limited(container, {"cpu": {"quota": 10_000, "period": 100_000}}, "/bin/sh", "-c", "while :; do :; done")
    one.create()
    one.start()
    wait_until(lambda: flat(one, "cpu.stat")["nr_throttled"] >= 1, "the program is throttled", 30)
    first = flat(one, "cpu.stat")
    wait_until(lambda: flat(one, "cpu.stat")["nr_throttled"] >= first["nr_throttled"] + 5, "it stays throttled", 30)
    last = flat(one, "cpu.stat")
    # Each period allows 10 ms, and one more may have begun; each processor may exceed it by a slice
    # of 5 ms.
    periods = last["nr_periods"] - first["nr_periods"] + 1
    assert last["usage_usec"] - first["usage_usec"] <= periods * 10_000 * 2
    assert last["throttled_usec"] > first["throttled_usec"]


@pytest.mark.needs_controller("cpu")
def test_pressure_is_reported(container: Make) -> None:
    """PSI covers the container alone and includes the time it waits for its quota."""
    one = limited(container, {"cpu": {"quota": 5_000, "period": 100_000}}, "/bin/sh", "-c", "while :; do :; done")
    one.create()
    one.start()
    if not (one.cgroup / "cpu.pressure").exists():
        pytest.skip("this kernel has no pressure stall information")

    def waited() -> int:
        some = (one.cgroup / "cpu.pressure").read_text().splitlines()[0]
        return int(some.rpartition("=")[2])

    wait_until(lambda: waited() > 100_000, "cpu.pressure rises", 30)


@pytest.mark.needs_controller("cpu")
def test_weights(container: Make) -> None:
    one = limited(container, {"cpu": {"shares": 2048, "idle": 0}})
    one.create()
    expected = "174" if one.box.runtime.is_pyrunc else "79"  # runc 1.1.5 has the older formula
    assert (one.cgroup / "cpu.weight").read_text().strip() == expected


@pytest.mark.needs_controller("cpu")
@pytest.mark.pyrunc_only("runc 1.1.5 does not know them")
def test_idle_and_burst(container: Make) -> None:
    one = limited(container, {"cpu": {"quota": 20_000, "period": 100_000, "burst": 10_000}})
    one.create()
    assert (one.cgroup / "cpu.max.burst").read_text() == "10000\n"
    one = limited(container, {"cpu": {"idle": 1}})
    one.create()
    assert (one.cgroup / "cpu.idle").read_text() == "1\n"


@pytest.mark.needs_controller("cpuset")
def test_program_runs_on_its_processors(container: Make) -> None:
    """The program inherits the affinity of the cpuset, not the caller's."""
    last = max(os.sched_getaffinity(0))
    args = ("/bin/grep", "-E", "^(Cpus|Mems)_allowed_list:", "/proc/self/status")
    out = limited(container, {"cpu": {"cpus": str(last), "mems": "0"}}, *args).run().out
    assert out.split() == ["Cpus_allowed_list:", str(last), "Mems_allowed_list:", "0"]


@pytest.mark.needs_controller("cpuset")
def test_missing_processors_are_refused(container: Make, refused: Refused) -> None:
    result = limited(container, {"cpu": {"cpus": "4000"}}).create(check=False)
    refused(result, "/linux/resources/cpu/cpus", "4000")


# --- io -------------------------------------------------------------------------------------------


@pytest.mark.needs_controller("io")
@pytest.mark.skipif(not own_disk(), reason="the tests' files are not on a disk of this machine")
def test_writing_is_slowed(container: Make, tmp_path_factory: pytest.TempPathFactory, box: Box) -> None:
    """4 MiB at 1 MiB/s take at least three seconds, whatever the initial state of the bucket."""
    device = own_disk()
    major, minor = map(int, device.split(":"))
    target = Path(os.environ.get("PYRUNC_TEST_TMP", "/var/tmp")) / f"{box.prefix}.data"
    throttle = {"throttleWriteBpsDevice": [{"major": major, "minor": minor, "rate": MIB}]}
    args = ("/bin/dd", "if=/dev/zero", "of=/mnt/data", "bs=256k", "count=16", "oflag=direct", "conv=notrunc")
    one = limited(container, {"blockIO": throttle}, *args)
    target.touch()
    one.bundle.rootfs.joinpath("mnt/data").touch()
    one.bundle.config["mounts"].append({"destination": "/mnt/data", "source": str(target), "options": ["bind"]})
    try:
        one.create()
        assert (one.cgroup / "io.max").read_text() == f"{device} rbps=max wbps={MIB} riops=max wiops=max\n"
        before = os.times().elapsed
        one.start()
        assert one.wait(60) == 0, one.err
        assert os.times().elapsed - before > 3
        stat = (one.cgroup / "io.stat").read_text()
        assert f"wbytes={4 * MIB}" in stat, stat
    finally:
        target.unlink()


# --- devices --------------------------------------------------------------------------------------


def test_devices_outside_the_list_cannot_be_opened(container: Make) -> None:
    """The nodes exist (mknod is allowed); the device program decides about the open.

    No driver has the major number 60 (devices.txt, "local use"): an allowed open fails with ENXIO.
    """
    nodes = [{"path": f"/dev/{n}", "type": "c", "major": 60, "minor": n} for n in (1, 2)]
    deny = {"allow": False, "access": "rwm"}
    some = {"allow": True, "type": "c", "major": 60, "minor": 2, "access": "r"}
    attempts = ("open", "/dev/1", "r", "--", "open", "/dev/2", "r", "--", "open", "/dev/2", "w")
    for rules, expected in (([deny], ["EPERM"] * 3), ([deny, some], ["EPERM", "ENXIO", "EPERM"])):
        one = limited(container, {"devices": rules}, "/probe", *attempts)
        one.bundle.config["linux"]["devices"] = nodes
        assert [errno_of(item) for item in one.run().objects] == expected


# --- more than one --------------------------------------------------------------------------------


@pytest.mark.needs_controller("memory", "pids", "cpu")
def test_unified_and_fields_together(container: Make) -> None:
    resources = {
        "memory": {"limit": 64 * MIB},
        "pids": {"limit": 20},
        "unified": {"memory.high": str(32 * MIB), "cpu.max": "50000 100000"},
    }
    one = limited(container, resources)
    one.create()
    seen = {
        name: (one.cgroup / name).read_text().strip() for name in ("memory.max", "memory.high", "pids.max", "cpu.max")
    }
    assert seen == {
        "memory.max": str(64 * MIB),
        "memory.high": str(32 * MIB),
        "pids.max": "20",
        "cpu.max": "50000 100000",
    }


@pytest.mark.needs_controller("memory", "pids", "cpu", "io")
def test_nested_path_gets_every_controller(container: Make, box: Box) -> None:
    """The controllers are enabled in each ancestor."""
    path = f"/{box.prefix}p/a/b/c"
    one = limited(container, {"memory": {"limit": 64 * MIB}, "cpu": {"shares": 100}})
    one.bundle.config["linux"]["cgroupsPath"] = path
    one.create()
    offered = (one.cgroup / "cgroup.controllers").read_text().split()
    assert {"memory", "pids", "cpu", "io"} <= set(offered)
    assert (one.cgroup / "memory.max").read_text() == f"{64 * MIB}\n"
    one.delete("--force")
    for group in box.cgroups():
        group.rmdir()


def test_freezing_stops_and_killing_ends(container: Make) -> None:
    one = limited(container, {}, "/bin/sh", "-c", "while :; do :; done")
    one.create()
    one.start()
    (one.cgroup / "cgroup.freeze").write_text("1")
    wait_until(lambda: flat(one, "cgroup.events")["frozen"], "it is frozen")
    assert one.status == "paused"
    one.kill("KILL")
    assert one.wait() == 137
