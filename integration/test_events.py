"""`events`: statistics in runc's format, OOM kills and the end of the container."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import TIMEOUT, Box, Container, Runtime, wait_until
from integration.machine import controllers
from integration.test_cgroups import huge_sizes
from integration.test_limits import own_disk

Make = Callable[..., Container]


def running(container: Make, edits: dict[str, Any] | None = None) -> Container:
    one = container("signals", "60", edits=edits or {})
    one.create()
    one.start()
    one.wait_output("ready")
    return one


def stats(one: Container) -> dict[str, Any]:
    result = one.call("events", "--stats", one.id)
    assert result.out.count("\n") == 1 and result.err == ""
    event = json.loads(result.out)
    assert (event["type"], event["id"]) == ("stats", one.id)
    data = event["data"]
    assert isinstance(data, dict)
    return data


# Added in runc 1.2.
NEWER = ("/cpu/psi", "/memory/psi", "/blkio/psi", "/memory/usage/max")


def paths(value: Any, at: str = "") -> set[str]:
    """Every key of a document with its path and the type of its value."""
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if f"{at}/{key}" not in NEWER}
    if isinstance(value, dict) and value:
        return set().union(*(paths(item, f"{at}/{key}") for key, item in value.items()))
    kind = "number" if isinstance(value, int | float) else type(value).__name__
    return {f"{at}: {kind}"}


def _served(path: Path) -> bool:
    """Whether a pressure file exists and is readable: PSI may be disabled."""
    try:
        return bool(path.read_text())
    except OSError:
        return False


def test_statistics(container: Make) -> None:
    one = running(container)
    data = stats(one)
    assert data["pids"]["current"] == 1
    assert data["cpu"]["usage"]["total"] >= data["cpu"]["usage"]["user"] >= 0
    assert data["network_interfaces"] is None
    for section, file in ("cpu", "cpu"), ("memory", "memory"), ("blkio", "io"):
        if one.box.runtime.is_pyrunc and _served(one.cgroup / f"{file}.pressure"):
            psi = data[section]["psi"]
            assert set(psi) == {"some", "full"} and set(psi["some"]) == {"avg10", "avg60", "avg300", "total"}


@pytest.mark.needs_controller("hugetlb")
def test_huge_pages(container: Make) -> None:
    assert set(stats(running(container))["hugetlb"]) == set(huge_sizes())


@pytest.mark.needs_controller("memory", "pids", "cpu", "io")
def test_statistics_of_all_controllers(container: Make) -> None:
    resources = {"memory": {"limit": 64 << 20}, "pids": {"limit": 20}, "cpu": {"quota": 50000, "period": 100000}}
    data = stats(running(container, {"/linux/resources": resources}))
    assert data["memory"]["usage"]["limit"] == 64 << 20
    assert 0 < data["memory"]["usage"]["usage"] < 64 << 20 and "anon" in data["memory"]["raw"]
    assert data["pids"] == {"current": 1, "limit": 20}
    assert data["cpu"]["throttling"].get("periods", 0) >= 0


def writing(container: Make, box: Box) -> Container:
    """A container that has read from and written to a disk with I/O accounting, so that no figure
    is zero: runc omits zeros."""
    if not own_disk() or "io" not in controllers():
        return running(container)
    write = "dd if=/dev/zero of=/mnt/data bs=4k count=4 oflag=direct conv=notrunc 2>/dev/null"
    script = f"{write} && cat /mnt/data >/dev/null && echo done; sleep 60"
    one = container(edits={"/process/args": ["/bin/sh", "-c", script]})
    target = Path(os.environ.get("PYRUNC_TEST_TMP", "/var/tmp")) / f"{box.prefix}.data"
    one.bundle.config["mounts"].append({"destination": "/mnt/data", "source": str(target), "options": ["bind"]})
    one.bundle.rootfs.joinpath("mnt/data").touch()
    target.touch()
    try:
        one.create()
    finally:
        target.unlink()
    one.start()
    one.wait_output("done")
    wait_until(lambda: "wbytes=16384" in (one.cgroup / "io.stat").read_text(), "the write is counted")
    return one


@pytest.mark.needs_program("runc")
@pytest.mark.pyrunc_only("it is compared with runc here")
def test_the_same_keys_as_runc(container: Make, box: Box) -> None:
    ours = paths(stats(writing(container, box)))
    runtime = box.runtime
    path = shutil.which("runc")
    assert path
    box.runtime = Runtime(path)
    try:
        other = writing(container, box)
        theirs = paths(stats(other))
        other.kill("KILL")
        other.wait()
        other.delete("--force", check=False)
    finally:
        box.runtime = runtime
    assert ours == theirs


@pytest.mark.pyrunc_only("no peer takes several")
def test_several_in_one_call(container: Make) -> None:
    first, second = running(container), running(container)
    result = first.call("events", "--stats", first.id, second.id)
    assert [json.loads(line)["id"] for line in result.out.splitlines()] == [first.id, second.id]
    table = first.call("events", "--stats", "--format", "table", first.id, second.id).out.splitlines()
    assert [line.split()[0] for line in table] == ["ID", first.id, second.id]
    some = first.call("events", "--stats", "no-such", first.id, check=False)
    assert some.rc == 1 and len(some.out.splitlines()) == 1
    assert some.err == "pyrunc: error: container does not exist: no-such\n"


def test_a_stopped_container(container: Make) -> None:
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    one.wait_status("stopped")
    assert one.call("events", "--stats", one.id, check=False).rc == 1
    if one.box.runtime.is_pyrunc:
        assert "container not running" in one.call("events", one.id, check=False).err


def test_a_paused_container(container: Make) -> None:
    one = running(container)
    one.call("pause", one.id)
    assert stats(one)["pids"]["current"] == 1
    one.call("resume", one.id)


def follow(one: Container, *flags: str) -> subprocess.Popen[bytes]:
    argv = one.box.runtime.argv("--root", str(one.box.root), "events", *flags, one.id)
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    one.box.helpers.add(child.pid)
    return child


@pytest.mark.pyrunc_only("runc 1.1.5 cannot watch without the memory controller")
def test_following_ends_with_the_container(container: Make) -> None:
    one = running(container)
    child = follow(one, "--interval", "50ms")
    assert child.stdout
    first = json.loads(child.stdout.readline())
    assert first["type"] == "stats" and first["data"]["pids"]["current"] == 1
    json.loads(child.stdout.readline())
    one.kill("KILL")
    one.wait()
    _, err = child.communicate(timeout=TIMEOUT)
    assert child.returncode == 0 and err == b""


@pytest.mark.pyrunc_only("runc 1.1.5 cannot watch without the memory controller")
def test_the_interval_is_respected(container: Make) -> None:
    """The end of the container is reported at once, not at the next interval; nothing is printed
    before the first interval."""
    one = running(container)
    child = follow(one, "--interval=1h")
    time.sleep(0.2)
    assert child.poll() is None
    one.kill("KILL")
    one.wait()
    out, _ = child.communicate(timeout=TIMEOUT)
    assert child.returncode == 0 and out == b""


@pytest.mark.needs_controller("memory")
def test_an_oom_kill_is_reported(container: Make) -> None:
    hungry = "(dd if=/dev/zero of=/dev/null bs=64M count=1) 2>/dev/null"
    script = f"while [ ! -e /go ]; do sleep 0.1; done; {hungry}; echo survived; sleep 60"
    edits = {
        "/process/args": ["/bin/sh", "-c", script],
        "/linux/resources/memory": {"limit": 16 << 20, "swap": 16 << 20},
    }
    one = container(edits=edits)
    one.create()
    one.start()
    child = follow(one, "--interval=200ms")
    assert child.stdout
    assert json.loads(child.stdout.readline())["type"] == "stats", "now it watches"
    (one.bundle.rootfs / "go").touch()
    one.wait_output("survived")
    told = next(event for event in map(json.loads, child.stdout) if event["type"] == "oom")
    assert told == {"type": "oom", "id": one.id}
    one.kill("KILL")
    one.wait()
    wait_until(lambda: child.poll() is not None, "end of events")
    child.communicate()
