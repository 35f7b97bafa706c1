"""`update`: values, merging, and failures that change nothing."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import transcript
from cgroup_support import Kernel
from json_type import Json
from pyrunc import cli, jsontext, state
from pyrunc.cgroup import resources as conversion
from pyrunc.cgroup.disabled import Disabled
from pyrunc.container import lifecycle, update
from pyrunc.errors import ConfigError, PyruncError, StateError, SysError, UsageError
from pyrunc.log import Log
from pyrunc.spec.types import DeviceRule

kept = transcript.follow("pyrunc.container.update")

# -- values ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0), ("123", 123), ("-1", -1), ("4k", 4096), ("4K", 4096), ("4kb", 4096), ("4KiB", 4096), ("1 m", 1 << 20),
        ("64m", 64 << 20), ("64MB", 64 << 20), ("1.5g", 3 << 29), ("2G", 2 << 30), ("1t", 1 << 40), ("1p", 1 << 50),
        ("12b", 12), ("0.25k", 256), (" 5 ", 5),
        ("", None), ("b", None), ("k", None), ("-2", None), ("-1k", None), ("1q", None), ("1kk", None), ("i", None),
        ("1i", None), ("0x10", None), ("1e3", None), (".5k", None), ("1.k", None), ("1.2.3k", None), ("١", None),
        ("9" * 30, None), ("1,5k", None), ("m5", None), ("4\u212a", None), ("\u00a05", None),
    ],
)  # fmt: skip
def test_size(text: str, value: int | None) -> None:
    assert update.size(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("-1", -1), ("7", 7), ("", None), ("-", None), ("1.0", None), ("--1", None), ("٣", None)],
)
def test_number(text: str, value: int | None) -> None:
    assert update.number(text) == value


def test_flags() -> None:
    values = {"memory": "64m", "memory-swap": "-1", "cpu-share": "512", "cpuset-cpus": "0-1", "pids-limit": "0"}
    assert update.from_flags({**values, "cpuset-mems": "", "help": False}) == {
        "memory": {"limit": 64 << 20, "swap": -1},
        "cpu": {"shares": 512, "cpus": "0-1"},
        "pids": {"limit": 0},
    }
    with pytest.raises(UsageError, match=r'option --cpu-quota "1m": expected a number'):
        update.from_flags({"cpu-quota": "1m"})
    with pytest.raises(UsageError, match="option --memory"):
        update.from_flags({"memory": "lots"})


def test_unknown_keys_are_ignored_as_specified(tmp_path: Path) -> None:
    """Found by fuzzing: lists among it were merged as if they were lists of devices."""
    file = tmp_path / "resources.json"
    file.write_text('{"cpu": {"shares": 9, "nothing": [{"x": 1}]}, "other": [1]}')
    new = update.asked(update.from_file(str(file)))
    assert update.merge({"cpu": {"quota": 5}}, new) == {"cpu": {"quota": 5, "shares": 9}}


def test_every_flag_is_in_the_table() -> None:
    from pyrunc.verbs import update as verb

    named = {flag[0] for flag in verb.FLAGS} - {"resources", "l3-cache-schema", "mem-bw-schema"}
    assert named == {field[0] for field in update.FIELDS}


# -- merging ---------------------------------------------------------------------------------------

A, B = {"major": 8, "minor": 0}, {"major": 8, "minor": 16}


@pytest.mark.parametrize(
    ("old", "new", "merged"),
    [
        ({}, {"memory": {"limit": 5}}, {"memory": {"limit": 5}}),
        ({"cpu": {"quota": 5, "period": 9}}, {"cpu": {"quota": 7}}, {"cpu": {"quota": 7, "period": 9}}),
        ({"cpu": {"quota": 5, "period": 9}}, {"cpu": {"quota": 0, "period": 0}}, {"cpu": {"quota": 5, "period": 9}}),
        ({"cpu": {"quota": 5}}, {"cpu": {"quota": -1}}, {"cpu": {"quota": -1}}),
        ({"cpu": {"burst": 5}}, {"cpu": {"burst": 0}}, {"cpu": {"burst": 0}}),
        ({"cpu": {"shares": 9}}, {"cpu": {"idle": 1}}, {"cpu": {"shares": 0, "idle": 1}}),
        ({"cpu": {"shares": 9}}, {"cpu": {"idle": 0, "shares": 7}}, {"cpu": {"shares": 7, "idle": 0}}),
        ({"cpu": {"shares": 9}}, {"cpu": {"idle": 1, "shares": 0}}, {"cpu": {"shares": 0, "idle": 1}}),
        ({"cpu": {"shares": 9, "cpus": "0"}}, {"cpu": {"shares": 0, "cpus": ""}}, {"cpu": {"shares": 9, "cpus": "0"}}),
        ({"memory": {"limit": 5, "swap": 9}}, {"memory": {"limit": -1}}, {"memory": {"limit": -1, "swap": -1}}),
        ({"memory": {"limit": 5, "swap": 9}}, {"memory": {"limit": 6}}, {"memory": {"limit": 6, "swap": 9}}),
        ({"memory": {"limit": 5}}, {"memory": {"limit": 0, "swap": 0}}, {"memory": {"limit": 5}}),
        ({"memory": {"limit": 5}}, {"pids": {"limit": 0}}, {"memory": {"limit": 5}, "pids": {"limit": 0}}),
        (
            {"blockIO": {"weight": 5, "weightDevice": [{**A, "weight": 1}, {**B, "weight": 2}]}},
            {"blockIO": {"weight": 0, "weightDevice": [{**B, "weight": 3}]}},
            {"blockIO": {"weight": 5, "weightDevice": [{**A, "weight": 1}, {**B, "weight": 3}]}},
        ),
        (
            {"blockIO": {"throttleReadBpsDevice": [{**A, "rate": 1}]}},
            {"blockIO": {"throttleReadBpsDevice": [{**B, "rate": 0}], "throttleWriteBpsDevice": [{**A, "rate": 4}]}},
            {
                "blockIO": {
                    "throttleReadBpsDevice": [{**A, "rate": 1}, {**B, "rate": 0}],
                    "throttleWriteBpsDevice": [{**A, "rate": 4}],
                }
            },
        ),
        (
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}]},
            {"hugepageLimits": [{"pageSize": "1GB", "limit": 3}]},
            {"hugepageLimits": [{"pageSize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 3}]},
        ),
        ({"rdma": {"a": {"hcaHandles": 1}}}, {"rdma": {"b": {"hcaHandles": 2}}},
         {"rdma": {"a": {"hcaHandles": 1}, "b": {"hcaHandles": 2}}}),
        ({"unified": {"a": "1", "b": "1"}}, {"unified": {"b": "2"}}, {"unified": {"a": "1", "b": "2"}}),
        ({"devices": [{"allow": True}]}, {"devices": []}, {"devices": []}),
        ({"devices": [{"allow": True}]}, {}, {"devices": [{"allow": True}]}),
        ({}, {"x-unknown": 1, "memory": {}, "network": {}}, {}),
    ],
    ids=range(21),
)  # fmt: skip
def test_merge(old: Json, new: Json, merged: Json) -> None:
    before = repr((old, new))
    assert update.merge(old, update.asked(new)) == merged
    assert repr((old, new)) == before, "the documents themselves stay"


def test_check_looks_at_what_will_be_in_force(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"))

    def check(old: Json, new: Json) -> Json:
        new = update.asked(new)
        return update.check(new, update.merge(old, new), log)

    limits = check({"memory": {"limit": 5, "swap": 9}, "pids": {"limit": 1}}, {"memory": {"reservation": 3}})
    assert limits == {"memory": {"limit": 5, "swap": 9, "reservation": 3}}
    with pytest.raises(ConfigError, match=r"resources: /memory/swap: expected at least the memory limit 10"):
        check({"memory": {"limit": 5, "swap": 9}}, {"memory": {"limit": 10}})
    with pytest.raises(ConfigError, match="/memory/swap: expected no swap limit without a memory limit"):
        check({}, {"memory": {"swap": 9}})
    with pytest.raises(ConfigError, match="/cpu/burst"):
        check({"cpu": {"burst": 5000}}, {"cpu": {"quota": 2000}})
    check({}, {"memory": {"kernel": 5}})
    assert "/memory/kernel" in (tmp_path / "log").read_text()
    # Lists are written unchanged, so that indexes in messages are the caller's.
    weights = {"blockIO": {"weightDevice": [{**B, "weight": 20}]}}
    assert check({"blockIO": {"weightDevice": [{**A, "weight": 10}]}}, weights) == weights


# -- the file system -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text", "held", "before"),
    [
        ("memory.max", "5", "max\n", "max"), ("cpu.max", "5 9", "max 100000\n", "max 100000"),
        ("cpuset.cpus", "0", "\n", ""), ("cpuset.cpus", "0", "", ""),
        ("io.weight", "7", "default 100\n8:0 50\n", "default 100"),
        ("io.weight", "8:0 7", "default 100\n8:0 50\n", "8:0 50"),
        ("io.weight", "8:16 7", "default 100\n8:0 50\n", "8:16 default"),
        ("io.max", "8:0 rbps=1", "", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("io.max", "8:0 rbps=1", "8:0 rbps=5 wbps=max\n", "8:0 rbps=5 wbps=max"),
        ("rdma.max", "b hca_handle=1", "a hca_handle=max\nb hca_handle=7\n", "b hca_handle=7"),
    ],
)  # fmt: skip
def test_edits_that_undo_a_write(file: str, text: str, held: str, before: str) -> None:
    assert conversion.before(file, text, held) == before


class Case:
    """A container in a made-up hierarchy."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kernel = Kernel(tmp_path / "cg", "cpu memory pids", monkeypatch)
        os.close(self.kernel.driver.create("/c", {}))
        for file, text in {
            "memory.max": "max",
            "pids.max": "max",
            "cpu.max": "max 100000",
            "cpu.weight": "100",
        }.items():
            self.kernel.cgroup("/c").joinpath(file).write_text(text + "\n")
        self.kernel.writes.clear()
        self.log = Log(str(tmp_path / "log"))
        self.store = state.Store(str(tmp_path / "root"))
        self.attached: list[Any] = []
        self.refuse_devices = 0
        self.status = "running"
        monkeypatch.setattr(lifecycle, "driver_of", lambda _: self.kernel.driver)
        monkeypatch.setattr(type(self.kernel.driver), "devices", self.devices)
        monkeypatch.setattr(state.Container, "status", lambda _: self.status)

    def devices(self, cgroup_fd: int, rules: Any, ptr: str, *, replace: bool) -> None:
        assert replace and os.readlink(f"/proc/self/fd/{cgroup_fd}") == str(self.kernel.cgroup("/c"))
        if self.refuse_devices:
            self.refuse_devices -= 1
            raise SysError(ptr, "bpf(PROG_ATTACH)", errno.EPERM)
        self.attached.append(rules)

    def container(self, **resources: Any) -> state.Container:
        """A container whose config has these resources."""
        made = self.store.reserve("c")
        made.data |= {"cgroup": "/c", "cgroup_dir": str(self.kernel.cgroup("/c")), "status": "running"}
        made.save()
        config = {"ociVersion": "1.3.0", "linux": {"resources": resources}}
        Path(made.dir, "config.json").write_text(jsontext.dumps(config))
        return made

    def file(self, name: str) -> str:
        return self.kernel.cgroup("/c").joinpath(name).read_text().strip()


@pytest.fixture
def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Case]:
    yield Case(tmp_path, monkeypatch)


def test_values_survive(case: Case) -> None:
    one = case.container(cpu={"quota": 20000, "period": 50000}, devices=[])
    update.update(one, {"cpu": {"quota": 30000}}, case.log)
    assert case.kernel.writes == [("/c/cpu.max", "30000 50000")]
    again = case.store.open("c")
    assert again.data["resources"] == {"cpu": {"quota": 30000, "period": 50000}, "devices": []}
    again.fd = one.fd
    update.update(again, {"cpu": {"period": 60000}}, case.log)
    assert case.file("cpu.max") == "30000 60000"
    update.update(again, {"pids": {"limit": 7}}, case.log)
    assert case.kernel.writes[2:] == [("/c/pids.max", "7")], "what was not named is not touched"


def test_nothing_to_do_writes_nothing(case: Case) -> None:
    update.update(case.container(devices=[{"allow": False, "access": "rwm"}]), {"memory": {"limit": 0}}, case.log)
    assert case.kernel.writes == [] and case.attached == []


def test_a_refused_value_puts_all_back(case: Case) -> None:
    one = case.container()
    case.kernel.cgroup("/c").joinpath("memory.max").write_text("777\n")
    case.kernel.refuse["/c", "cpu.weight"] = [errno.EINVAL]
    with pytest.raises(SysError, match=r'/cpu/shares "512" \(cpu.weight\)'):
        update.update(one, {"memory": {"limit": 5}, "pids": {"limit": 7}, "cpu": {"shares": 512}}, case.log)
    assert (case.file("memory.max"), case.file("pids.max")) == ("777", "max")
    assert "resources" not in case.store.open("c").data and "resources" not in one.data


def test_a_missing_controller_is_reported_before_any_write(case: Case) -> None:
    with pytest.raises(PyruncError, match="the io controller is not available in cgroup /c"):
        update.update(case.container(), {"memory": {"limit": 5}, "blockIO": {"weight": 100}}, case.log)
    assert case.kernel.writes == []


def test_failed_restores_are_logged(case: Case, tmp_path: Path) -> None:
    case.kernel.refuse["/c", "cpu.weight"] = [errno.EINVAL] * 3
    with pytest.raises(SysError):
        update.update(case.container(), {"cpu": {"shares": 512}}, case.log)
    assert "cannot restore cpu.weight of cgroup /c" in (tmp_path / "log").read_text()


def test_device_rules(case: Case) -> None:
    deny: DeviceRule = {"allow": False, "access": "rwm"}
    allow: DeviceRule = {"allow": True, "access": "rwm"}
    one = case.container(devices=[deny])
    update.update(one, {"devices": [deny]}, case.log)
    assert case.attached == [], "the same rules are in force already"
    update.update(one, {"devices": [allow], "pids": {"limit": 3}}, case.log)
    assert case.attached == [[allow]] and case.file("pids.max") == "3"
    assert case.store.open("c").data["resources"]["devices"] == [allow]


def test_device_rules_that_are_refused(case: Case) -> None:
    deny: DeviceRule = {"allow": False, "access": "rwm"}
    allow: DeviceRule = {"allow": True, "access": "rwm"}
    one = case.container(devices=[deny])
    case.refuse_devices = 1
    with pytest.raises(SysError, match=r"/devices: bpf\(PROG_ATTACH\): EPERM"):
        update.update(one, {"devices": [allow], "pids": {"limit": 3}}, case.log)
    assert case.attached == [[deny]] and case.file("pids.max") == "max"


def test_a_state_that_cannot_be_saved(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    one = case.container(devices=[])

    def full(self: state.Container) -> None:
        raise SysError("state.json", "write", errno.ENOSPC)

    monkeypatch.setattr(state.Container, "save", full)
    with pytest.raises(SysError, match="ENOSPC"):
        update.update(one, {"devices": [{"allow": True, "access": "rwm"}], "pids": {"limit": 3}}, case.log)
    assert case.attached[-1] == [] and case.file("pids.max") == "max" and "resources" not in one.data


@pytest.mark.parametrize("status", ["stopped", "creating"])
def test_wrong_states(case: Case, status: str) -> None:
    case.status = status
    with pytest.raises(StateError, match="container not running"):
        update.update(case.container(), {"pids": {"limit": 3}}, case.log)
    assert case.kernel.writes == []


@pytest.mark.parametrize("status", ["created", "paused"])
def test_right_states(case: Case, status: str) -> None:
    case.status = status
    update.update(case.container(), {"pids": {"limit": 3}}, case.log)
    assert case.file("pids.max") == "3"


@pytest.mark.parametrize(
    ("limits", "fails"),
    [
        ({"limit": 4096}, "rejecting memory limit 4096 <= usage 8192"),
        ({"limit": 8192}, "rejecting memory limit 8192 <= usage 8192"),
        ({"limit": 8193, "swap": 8193}, ""),
        ({"limit": -1}, ""),
        ({"limit": 4096, "checkBeforeUpdate": False}, ""),
    ],
)
def test_memory_check_before_update(case: Case, limits: Json, fails: str) -> None:
    case.kernel.cgroup("/c").joinpath("memory.current").write_text("8192\n")
    case.kernel.cgroup("/c").joinpath("memory.swap.max").write_text("max\n")
    one = case.container()
    new: Json = {"memory": {"checkBeforeUpdate": True, **limits}}
    if fails:
        with pytest.raises(PyruncError, match=fails):
            update.update(one, new, case.log)
        assert case.kernel.writes == []
    else:
        update.update(one, new, case.log)
        assert case.file("memory.max") == ("max" if limits["limit"] == -1 else str(limits["limit"]))


def test_unreadable_usage_does_not_prevent_an_update(case: Case) -> None:
    update.update(case.container(), {"memory": {"checkBeforeUpdate": True, "limit": 1}}, case.log)
    assert case.file("memory.max") == "1"


def test_without_a_cgroup(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "driver_of", lambda _: Disabled())
    one = case.container()
    one.data["cgroup"] = one.data["cgroup_dir"] = ""
    with pytest.raises(ConfigError, match="/pids"):
        update.update(one, {"pids": {"limit": 3}}, case.log)
    with pytest.raises(PyruncError, match="/devices: the container has no cgroup"):
        update.update(one, {"devices": [{"allow": True, "access": "rwm"}]}, case.log)


def test_the_verb(case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    case.container().unlock()
    path = tmp_path / "r.json"
    path.write_text('{"pids":{"limit":9},"unknown":{}}')
    base = ["--root", str(tmp_path / "root"), "--log", str(tmp_path / "log"), "update"]
    for argv in (["-r", str(path)], [f"--resources={path}", "--memory", "5"], ["-resources", str(path)]):
        assert cli.main([*base, *argv, "c"]) == 0
        assert case.file("pids.max") == "9"
        case.kernel.cgroup("/c").joinpath("pids.max").write_text("max\n")
    assert "--memory is ignored with --resources" in (tmp_path / "log").read_text()
    assert cli.main([*base, "c", "--pids-limit=-1", "--memory", "64m"]) == 0
    assert case.file("memory.max") == str(64 << 20)
    assert capfd.readouterr().err == ""
    for text in ('{"pids":{"limit":"9"}}', "{", '{"pids":{"limit":9}} x', "[]"):
        path.write_text(text)
        assert cli.main([*base, "-r", str(path), "c"]) == 1
        assert capfd.readouterr().err.startswith("pyrunc: error: resources: ")
    assert cli.main([*base, "--l3-cache-schema", "L3:0=f", "c"]) == 1
    assert "has no intelRdt" in capfd.readouterr().err
