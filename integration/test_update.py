"""`update`: limits and device rules of a running container."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container, wait_until
from integration.machine import controllers
from integration.test_cgroups import huge_sizes

Make = Callable[..., Container]
MISSING = next((name for name in ("memory", "pids", "cpu", "io") if name not in controllers()), "")
hugetlb = pytest.mark.needs_controller("hugetlb")
SIZE = (huge_sizes() or ["2MB"])[0]
FILE = f"hugetlb.{SIZE}.max"
# A device for local use (Documentation/admin-guide/devices.txt), which no default rule allows
FULL_DENY = {"allow": False, "access": "rwm"}
ODD = {"allow": True, "type": "c", "major": 60, "minor": 11, "access": "rwm"}


@pytest.fixture
def one(container: Make) -> Container:
    made = container("signals", "60")
    made.create()
    made.start()
    made.wait_output("ready")
    return made


def resources(one: Container, value: Any, spelling: str = "-r -", check: bool = True) -> Any:
    """Call ``update`` with JSON in one of the forms that engines use."""
    text = json.dumps(value)
    if "FILE" in spelling:
        path = one.box.path / "resources.json"
        path.write_text(text)
        spelling = spelling.replace("FILE", str(path))
    return one.call("update", *spelling.split(), one.id, stdin=text, check=check)


def test_a_letter_of_cgroup_v1_is_ignored(one: Container) -> None:
    assert resources(one, {"devices": [FULL_DENY, {**ODD, "access": "rwa"}]}).err == ""


def stored(one: Container) -> Any:
    return json.loads((one.box.root / one.id / "state.json").read_text()).get("resources")


def huge(value: int) -> dict[str, Any]:
    return {"hugepageLimits": [{"pageSize": SIZE, "limit": value}]}


@hugetlb
@pytest.mark.parametrize(
    "spelling", ["--resources=-", "--resources -", "-r -", "--resources=FILE", "-r FILE", "-r=FILE"]
)
def test_resources_in_every_spelling(one: Container, spelling: str) -> None:
    if not one.box.runtime.is_pyrunc:
        pytest.skip("runc's update does not look at hugepageLimits")
    assert resources(one, huge(1 << 30), spelling).err == ""
    assert (one.cgroup / FILE).read_text() == f"{1 << 30}\n"
    assert stored(one)["hugepageLimits"] == huge(1 << 30)["hugepageLimits"]


@hugetlb
def test_unified(one: Container) -> None:
    resources(one, {"unified": {FILE: str(1 << 30)}})
    assert (one.cgroup / FILE).read_text() == f"{1 << 30}\n"


@hugetlb
@pytest.mark.pyrunc_only("runc's update does not look at hugepageLimits")
def test_a_failure_restores_the_old_values(one: Container) -> None:
    resources(one, huge(1 << 30))
    before = stored(one)
    for bad in (
        {"memory": {"limit": 1 << 25}},
        {"pids": {"limit": 5}},
        {"cpu": {"shares": 512}},
        {"unified": {f"{MISSING or 'nonsense'}.max": "1"}},
        {"unified": {"cgroup.max.depth": "nonsense"}},
    ):
        named = next(iter(bad))
        if named in controllers():
            continue
        result = resources(one, {**huge(1 << 21), **bad}, check=False)
        assert result.rc == 1 and result.err.count("\n") == 1, result
        assert f"/{named}" in result.err, result
        if named in ("memory", "pids", "cpu"):
            assert f"the {named} controller is not available" in result.err
        assert (one.cgroup / FILE).read_text() == f"{1 << 30}\n", result
        assert stored(one) == before
    assert (one.cgroup / "cgroup.max.depth").read_text() == "max\n"


@pytest.mark.skipif(not MISSING, reason="every controller is here")
@pytest.mark.pyrunc_only("runc has other words")
@pytest.mark.parametrize(
    ("flag", "value", "controller"),
    [
        ("--memory", "64m", "memory"), ("--memory-reservation", "1g", "memory"), ("--pids-limit", "7", "pids"),
        ("--cpu-share", "512", "cpu"), ("--cpu-quota", "50000", "cpu"), ("--cpuset-cpus", "0", "cpuset"),
        ("--blkio-weight", "100", "io"), ("--cpu-idle", "1", "cpu"), ("--cpu-burst", "5", "cpu"),
    ],
)  # fmt: skip
def test_a_flag_without_its_controller(one: Container, flag: str, value: str, controller: str) -> None:
    if controller in controllers():
        pytest.skip(f"the {controller} controller is here")
    result = one.call("update", flag, value, one.id, check=False)
    assert result.rc == 1 and f"the {controller} controller is not available" in result.err, result


@pytest.mark.pyrunc_only("runc has other words, and accepts some of it")
@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--memory", "64q"], "--memory"), (["--cpu-period", "x"], "--cpu-period"),
        (["--cpu-period", "5"], "/cpu/period"),
        (["--cpu-rt-runtime", "5"], "/cpu/realtimeRuntime"), (["--cpu-idle", "2"], "/cpu/idle"),
        (["--pids-limit", "-2"], "/pids/limit"), (["--blkio-weight", "5"], "/blockIO/weight"),
        (["--memory-swap", "5m"], "/memory/swap"), (["--l3-cache-schema", "L3:0=f"], "intelRdt"),
        (["--mem-bw-schema", "MB:0=10"], "intelRdt"), (["-r", "/nonexistent"], "--resources"),
    ],
)  # fmt: skip
def test_invalid_values_are_refused(one: Container, argv: list[str], text: str) -> None:
    result = one.call("update", *argv, one.id, check=False)
    assert result.rc == 1 and text in result.err and result.err.count("\n") == 1, result
    assert "no such file" not in result.err


@pytest.mark.pyrunc_only("runc takes what it can")
@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ({"memory": {"limit": "1"}}, "/memory/limit"), ({"pids": {"limit": 1.5}}, "/pids/limit"), ([], "/"),
        ({"devices": [{"allow": True, "access": "q"}]}, "/devices/0/access"), ({"pids": {}}, "/pids/limit"),
        ({"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}, "/hugepageLimits/0/pageSize"),
        ({"unified": {"a/b": "1"}}, "/unified/a~1b"),
    ],
    ids=str,
)  # fmt: skip
def test_resources_are_validated(one: Container, value: Any, pointer: str) -> None:
    result = resources(one, value, check=False)
    assert result.rc == 1 and pointer in result.err and result.err.startswith("pyrunc: error: "), result
    assert stored(one) is None


@pytest.mark.pyrunc_only("runc 1.1.5 has no such flags any more, or no words")
def test_kernel_memory_is_ignored_with_a_warning(one: Container) -> None:
    log = one.box.path / "log"
    result = one.call("update", "--kernel-memory", "64m", one.id, globals_=["--log", str(log)], check=False)
    if "memory" in controllers():
        assert result.rc == 0
    assert "/memory/kernel" in log.read_text() and "ignored" in log.read_text()


def test_a_stopped_container(container: Make) -> None:
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    one.wait_status("stopped")
    result = resources(one, {"unified": {FILE: "0"}}, check=False)
    assert result.rc == 1
    if one.box.runtime.is_pyrunc:
        assert "container not running" in result.err


@hugetlb
def test_created_and_paused_containers(container: Make) -> None:
    one = container("signals", "60")
    one.create()
    resources(one, {"unified": {FILE: str(1 << 30)}})
    one.start()
    one.wait_output("ready")
    one.call("pause", one.id)
    resources(one, {"unified": {FILE: str(1 << 31)}})
    assert (one.cgroup / FILE).read_text() == f"{1 << 31}\n"
    one.call("resume", one.id)


# -- device rules ----------------------------------------------------------------------------------


@pytest.fixture
def opener(container: Make) -> Iterator[Container]:
    """A container that opens a device without a driver and prints whether its rules denied that."""
    script = (
        'while :; do case "$( (: < /dev/odd) 2>&1 )" in *permitted*) echo shut;; *) echo open;; esac; sleep 0.05; done'
    )
    one = container(
        edits={
            "/process/args": ["/bin/sh", "-c", script],
            "/linux/devices": [{"path": "/dev/odd", "type": "c", "major": 60, "minor": 11, "fileMode": 0o666}],
        }
    )
    one.create()
    one.start()
    one.wait_output("shut")
    yield one


def says(one: Container, word: str) -> None:
    """Wait until the container has printed a word twice: the first may be an earlier one."""
    at = len(one.out)
    wait_until(lambda: one.out[at:].count(word + "\n") >= 2, f"{word} twice")
    at = len(one.out)
    wait_until(lambda: len(one.out) > at + 10, "more lines")
    assert set(one.out[at:].split()) <= {word, word[:1], word[:2], word[:3]}


@pytest.mark.pyrunc_only("no peer changes the device rules of a container that runs")
def test_device_rules_of_a_running_container(opener: Container) -> None:
    one = opener
    resources(one, {"devices": [FULL_DENY, ODD]})
    says(one, "open")
    assert stored(one)["devices"] == [FULL_DENY, ODD]
    resources(one, {"devices": [FULL_DENY]})
    says(one, "shut")
    resources(one, {"devices": [{"allow": True, "access": "rwm"}]})
    says(one, "open")
    resources(one, {"devices": [FULL_DENY]})
    says(one, "shut")


@pytest.mark.pyrunc_only("no peer changes the device rules of a container that runs")
def test_a_failing_limit_leaves_the_device_rules(opener: Container) -> None:
    field = {"unified": {"cgroup.max.depth": "nonsense"}}
    assert resources(opener, {"devices": [FULL_DENY, ODD], **field}, check=False).rc == 1
    says(opener, "shut")
    assert stored(opener) is None


@pytest.mark.pyrunc_only("no peer changes the device rules of a container that runs")
def test_device_rules_that_cannot_be_changed(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.bundle.save()
    pid_file = box.path / "pid"
    options = ["--cgroup-manager", "disabled"]
    one.call("create", "--pid-file", str(pid_file), "-b", str(one.bundle.path), one.id, globals_=options)
    one.pid = int(pid_file.read_text())
    resources(one, {"devices": [FULL_DENY]})  # the rules that it has now
    result = resources(one, {"devices": [FULL_DENY, ODD]}, check=False)
    assert result.rc == 1 and "/devices" in result.err and "no cgroup" in result.err
    os.kill(one.pid, 9)
    one.wait()


# -- where the controllers are (a virtual machine) -------------------------------------------------

FLAGS: list[tuple[str, list[str], dict[str, str]]] = [
    ("memory", ["--memory", "64m"], {"memory.max": str(64 << 20)}),
    ("memory", ["--memory", "64MiB", "--memory-swap", "-1"], {"memory.swap.max": "max"}),
    ("memory", ["--memory-reservation", "16m"], {"memory.low": str(16 << 20)}),
    ("memory", ["--memory", "-1"], {"memory.max": "max"}),
    ("pids", ["--pids-limit", "17"], {"pids.max": "17"}),
    ("pids", ["--pids-limit", "-1"], {"pids.max": "max"}),
    ("cpu", ["--cpu-quota", "50000", "--cpu-period", "200000"], {"cpu.max": "50000 200000"}),
    ("cpuset", ["--cpuset-cpus", "0"], {"cpuset.cpus": "0"}),
]


@pytest.mark.parametrize(
    ("argv", "files"),
    [pytest.param(*rest, marks=pytest.mark.needs_controller(name)) for name, *rest in FLAGS],
    ids=range(len(FLAGS)),
)
def test_flags(one: Container, argv: list[str], files: dict[str, str]) -> None:
    one.call("update", *argv, one.id)
    for name, value in files.items():
        assert (one.cgroup / name).read_text().strip() == value, name


@pytest.mark.needs_controller("cpu")
def test_a_quota_alone_keeps_the_period(container: Make) -> None:
    one = container("signals", "60", edits={"/linux/resources/cpu": {"quota": 20000, "period": 50000}})
    one.create()
    one.start()
    one.wait_output("ready")
    one.call("update", "--cpu-quota", "30000", one.id)
    assert (one.cgroup / "cpu.max").read_text() == "30000 50000\n"
    one.call("update", "--cpu-period", "60000", one.id)
    assert (one.cgroup / "cpu.max").read_text() == "30000 60000\n"
    resources(one, {"cpu": {"quota": 40000}})
    assert (one.cgroup / "cpu.max").read_text() == "40000 60000\n"


@pytest.mark.needs_controller("cpu")
@pytest.mark.pyrunc_only("not in runc 1.1.5")
def test_idle(container: Make) -> None:
    one = container("signals", "60", edits={"/linux/resources/cpu": {"shares": 512}})
    one.create()
    one.call("update", "--cpu-idle", "1", one.id)
    assert (one.cgroup / "cpu.idle").read_text() == "1\n"
    one.call("update", "--cpu-idle", "0", "--cpu-share", "1024", one.id)
    assert (one.cgroup / "cpu.weight").read_text() == "100\n"


@pytest.mark.needs_controller("memory", "pids")
@pytest.mark.pyrunc_only("runc writes the values of the config back, not those that were there")
def test_a_failure_restores_limits(container: Make) -> None:
    one = container("signals", "60", edits={"/linux/resources/memory": {"limit": 128 << 20}})
    one.create()
    (one.cgroup / "pids.max").write_text("77")
    value = {"memory": {"limit": 64 << 20}, "pids": {"limit": 5}, "unified": {"memory.max": "nonsense"}}
    result = resources(one, value, check=False)
    assert result.rc == 1 and "/unified/memory.max" in result.err
    assert (one.cgroup / "memory.max").read_text() == f"{128 << 20}\n"
    assert (one.cgroup / "pids.max").read_text() == "77\n"


@pytest.mark.needs_controller("memory")
@pytest.mark.pyrunc_only("not in runc 1.1.5")
def test_check_before_update(one: Container) -> None:
    used = int((one.cgroup / "memory.current").read_text())
    assert used > 4096
    result = resources(one, {"memory": {"limit": 4096, "checkBeforeUpdate": True}}, check=False)
    assert result.rc == 1 and "rejecting memory limit 4096 <= usage" in result.err
    assert one.status == "running" and (one.cgroup / "memory.max").read_text() == "max\n"


def test_nothing_to_do(one: Container) -> None:
    """Only pyrunc guarantees that it writes nothing."""
    before = {path.name: path.read_text() for path in sorted(Path(one.cgroup).glob("hugetlb.*.max"))}
    assert one.call("update", one.id).rc == 0
    resources(one, {})
    assert {path.name: path.read_text() for path in sorted(Path(one.cgroup).glob("hugetlb.*.max"))} == before
