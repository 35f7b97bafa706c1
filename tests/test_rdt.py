"""linux.intelRdt with a directory in place of resctrl: the rules of config-linux.md, one by one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import transcript
from integration import fake_resctrl
from json_type import Json
from pyrunc import host
from pyrunc.cgroup import rdt
from pyrunc.errors import ConfigError, PyruncError
from pyrunc.spec import validate
from pyrunc.spec.types import IntelRdt

kept = transcript.follow(
    "pyrunc.cgroup.rdt", leave=("test_monitoring_inside_the_containers_own_class", "test_undo_leaves_nothing")
)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rdt, "posix", fake_resctrl.patched())
    return fake_resctrl.make(tmp_path / "resctrl")


def group(root: Path, name: str) -> Path:
    """A class that an administrator has created."""
    fake_resctrl.mkdir(str(root / name), 0o755)
    return root / name


def applied(root: Path, pid: int = 42, **config: Any) -> rdt.Record:
    given: Json = config
    record = rdt.plan(given, "c1", str(root))
    rdt.apply(given, record, pid)
    return record


def test_the_id_names_the_class(root: Path) -> None:
    record = applied(root)
    assert (root / "c1/tasks").read_text() == "42"
    assert "L3:0=7ff" in (root / "c1/schemata").read_text()  # not written
    rdt.remove(record)
    assert not (root / "c1").exists()
    rdt.remove(record)  # not an error the second time


def test_a_class_that_was_there_stays(root: Path) -> None:
    group(root, "gold")
    record = applied(root, closID="gold")
    assert (root / "gold/tasks").read_text() == "42"
    rdt.remove(record)
    rdt.undo(record)
    assert (root / "gold").exists()


def test_the_default_class(root: Path) -> None:
    record = applied(root, closID="/")
    assert (root / "tasks").read_text() == "42"
    rdt.remove(record)
    assert (root / "tasks").exists()


def test_a_class_without_a_schema_must_exist(root: Path) -> None:
    with pytest.raises(PyruncError, match=r"/linux/intelRdt/closID.*no such class"):
        rdt.plan({"closID": "gold"}, "c1", str(root))


def test_a_class_with_a_schema_is_created_and_stays(root: Path) -> None:
    record = applied(root, closID="gold", l3CacheSchema="L3:0=f")
    assert (root / "gold/schemata").read_text().startswith("L3:0=f\n")
    rdt.remove(record)
    assert (root / "gold").exists()


def test_order_of_the_schemata(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote: list[str] = []
    monkeypatch.setattr(rdt, "_write", lambda path, text, pointer: wrote.append(f"{pointer} {text}"))
    applied(root, schemata=["L2:0=3", "MB:0=50"], memBwSchema="MB:0=20", l3CacheSchema="L3:0=f")
    assert wrote == [
        "/linux/intelRdt/l3CacheSchema L3:0=f\n",
        "/linux/intelRdt/memBwSchema MB:0=20\n",
        "/linux/intelRdt/schemata/0 L2:0=3\n",
        "/linux/intelRdt/schemata/1 MB:0=50\n",
        "/linux/intelRdt 42",
    ]


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        ({"l3CacheSchema": "L3:0=7ff;1=7ff"}, ""),
        ({"l3CacheSchema": "L3:1=0x7FF"}, ""),
        ({"memBwSchema": "MB:0=100;1=100"}, ""),
        ({"l3CacheSchema": "L3:0=7fe"}, "l3CacheSchema"),
        ({"memBwSchema": "MB:0=10"}, "memBwSchema"),
        ({"memBwSchema": "MB:2=100"}, "memBwSchema"),
        ({"l3CacheSchema": "L3CODE:0=f"}, "l3CacheSchema"),
        ({"l3CacheSchema": "L3:x"}, "l3CacheSchema"),
    ],
)
def test_a_class_that_exists_is_compared(root: Path, config: dict[str, Any], wrong: str) -> None:
    before = (group(root, "gold") / "schemata").read_text()
    if wrong:
        with pytest.raises(PyruncError, match=f"/linux/intelRdt/{wrong}: the class"):
            applied(root, closID="gold", **config)
        assert (root / "gold/tasks").read_text() == ""
    else:
        applied(root, closID="gold", **config)
    assert (root / "gold/schemata").read_text() == before


def test_schemata_of_a_class_that_exists_is_written(root: Path) -> None:
    """config-linux.md compares only the two older fields, and requires `schemata` to be written."""
    group(root, "gold")
    applied(root, closID="gold", schemata=["L3:0=f"])
    assert (root / "gold/schemata").read_text().startswith("L3:0=f\n")


def test_monitoring(root: Path) -> None:
    record = applied(root, closID="/", enableMonitoring=True)
    assert (root / "mon_groups/c1/tasks").read_text() == "42"
    rdt.remove(record)
    assert not (root / "mon_groups/c1").exists()


def test_monitoring_inside_the_containers_own_class(root: Path) -> None:
    record = applied(root, enableMonitoring=True)
    assert record["made"] == [str(root / "c1/mon_groups/c1"), str(root / "c1")]
    rdt.remove(record)
    assert not (root / "c1").exists()


def test_no_room_for_a_monitoring_group(root: Path) -> None:
    for number in range(fake_resctrl.CLASSES + 2):
        (root / f"mon_groups/m{number}").mkdir()
    with pytest.raises(PyruncError, match=r"enableMonitoring.*ENOSPC.*num_rmids"):
        applied(root, closID="/", enableMonitoring=True)


def test_a_foreign_monitoring_group(root: Path) -> None:
    config: IntelRdt = {"closID": "/", "enableMonitoring": True}
    record = rdt.plan(config, "c1", str(root))
    fake_resctrl.mkdir(str(root / "mon_groups/c1"), 0o755)
    with pytest.raises(PyruncError, match="EEXIST"):
        rdt.apply(config, record, 42)
    rdt.undo(record)
    assert (root / "mon_groups/c1").exists()


def test_a_foreign_class_is_not_removed(root: Path) -> None:
    record = rdt.plan({}, "c1", str(root))
    group(root, "c1")
    rdt.apply({}, record, 42)
    rdt.undo(record)
    assert (root / "c1").exists()


@pytest.mark.parametrize("config", [{}, {"closID": "gold", "schemata": ["L3:0=f"]}, {"enableMonitoring": True}])
def test_undo_leaves_nothing(root: Path, config: dict[str, Any]) -> None:
    before = sorted(os.listdir(root))
    record = applied(root, pid=1 << 30, **config)  # no such process, as after a failed create
    rdt.undo(record)
    assert sorted(os.listdir(root)) == before


def test_undo_spares_a_class_that_others_use_by_now(root: Path) -> None:
    record = applied(root, closID="gold", schemata=["L3:0=f"])
    (root / "gold/tasks").write_text(f"{os.getpid()}\n")
    rdt.undo(record)
    assert (root / "gold").exists()


def test_the_kernel_refuses_a_schema(root: Path) -> None:
    (root / "schemata").unlink()
    with pytest.raises(PyruncError, match=r'schemata/0 "L3:0=0".*write: ENOENT'):
        applied(root, closID="/", schemata=["L3:0=0"])


def test_exec_and_update(root: Path) -> None:
    record = applied(root)
    rdt.join(record, 43)
    assert (root / "c1/tasks").read_text() == "43"
    before = rdt.schemata(record["group"])
    rdt.write_schemata(record, rdt.lines({"memBwSchema": "MB:0=30"}))
    assert rdt.schemata(record["group"]) != before


# -- against the host ------------------------------------------------------------------------------


def config(**rdt: Any) -> Json:
    return {"ociVersion": "1.3.0", "root": {"path": "r"}, "linux": {"intelRdt": rdt}}


def facts(tmp_path: Path, mountinfo: str) -> host.HostFacts:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/mountinfo").write_text(mountinfo)
    return host.snapshot(str(tmp_path))


def test_where_it_is_mounted(tmp_path: Path) -> None:
    found = facts(tmp_path, "24 23 0:20 / / rw - ext4 x rw\n30 24 0:44 / /sys/fs/resctrl rw - resctrl resctrl rw\n")
    assert found.resctrl == f"{tmp_path}/sys/fs/resctrl"
    validate.check(config(closID="x", schemata=["L3:0=f"]), facts=found)


def test_not_mounted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"/linux/intelRdt: expected a mounted resctrl file system.*mount -t resctrl"):
        validate.check(config(), facts=facts(tmp_path, "24 23 0:20 / / rw - ext4 x rw\n"))


def test_an_odd_schema_is_a_warning() -> None:
    (warning,) = validate.check(config(l3CacheSchema="l3:0=f"))
    assert warning.pointer == "/linux/intelRdt/l3CacheSchema"
