"""The path of a container's cgroup, and the choice of the driver."""

from __future__ import annotations

import pytest

import transcript
from pyrunc import cgroup
from pyrunc.cgroup.cgroupfs import Cgroupfs
from pyrunc.cgroup.disabled import Disabled
from pyrunc.cgroup.systemd import Systemd
from pyrunc.errors import ConfigError, PyruncError
from pyrunc.host import HostFacts

kept = transcript.follow("pyrunc.cgroup", "pyrunc.cgroup.systemd")


def facts(own: str = "/", root: str = "/", mount: str = "/sys/fs/cgroup") -> HostFacts:
    made = HostFacts()
    made.cgroup2_mount, made.cgroup2_root, made.own_cgroup = mount, root, own
    return made


@pytest.mark.parametrize(
    ("path", "own", "root", "expected"),
    [
        ("/a/b", "/", "/", "/a/b"),
        ("/a/b", "/user.slice/x", "/", "/a/b"),
        ("//a/./b/", "/", "/", "/a/b"),
        ("", "/", "/", "/c1"),
        ("", "/own", "/", "/c1"),
        ("", "/user.slice/session.scope", "/", "/user.slice/c1"),
        ("dk/x", "/", "/", "/dk/x"),
        ("dk/x", "/user.slice/session.scope", "/", "/user.slice/dk/x"),
        ("a:b", "/", "/", "/a:b"),
        ("/a:b:c", "/", "/", "/a:b:c"),
        ("/...", "/", "/", "/..."),
        # a mount that shows only a part: the path stays inside it
        ("/a", "/docker/c", "/docker/c", "/docker/c/a"),
        ("", "/docker/c", "/docker/c", "/docker/c/c1"),
        ("x", "/docker/c/one/two", "/docker/c", "/docker/c/one/x"),
        ("x", "/docker/cc/one", "/docker/c", "/docker/c/x"),
        ("x", "/elsewhere/one", "/docker/c", "/docker/c/x"),
    ],
)
def test_path_for(path: str, own: str, root: str, expected: str) -> None:
    assert cgroup.path_for(path, "c1", facts(own, root), "cgroupfs") == expected


@pytest.mark.parametrize(
    "path",
    [
        "/../../x",
        "a/../../x",
        "..",
        "../x",
        "/a/../b",
        "/",
        "//",
        ".",
        "./",
        "/a\0b",
        "/a\nb",
        "system.slice:pyrunc:c1",
    ],
)
def test_refused(path: str) -> None:
    with pytest.raises(ConfigError, match="/linux/cgroupsPath"):
        cgroup.path_for(path, "c1", facts("/user.slice/session.scope"), "cgroupfs")


def test_the_systemd_form_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match="systemd driver's form"):
        cgroup.path_for(":runc:c1", "c1", facts(), "cgroupfs")


def test_no_cgroup_at_all() -> None:
    assert cgroup.path_for("/a", "c1", facts(), "disabled") == ""
    assert cgroup.path_for("/a", "c1", facts(mount=""), "cgroupfs") == ""


def test_drivers() -> None:
    assert isinstance(cgroup.open_driver("cgroupfs", facts()), Cgroupfs)
    assert isinstance(cgroup.open_driver("disabled", facts()), Disabled)
    assert isinstance(cgroup.open_driver("systemd", facts()), Systemd)
    with pytest.raises(PyruncError, match='"v1": expected one of cgroupfs, systemd, disabled'):
        cgroup.open_driver("v1", facts())


def test_the_disabled_driver_refuses_limits() -> None:
    driver = Disabled()
    assert driver.create("", {"devices": [{"allow": False, "access": "rwm"}], "cpu": {}}) == -1
    with pytest.raises(ConfigError, match="/linux/resources/memory"):
        driver.create("", {"memory": {"limit": 1 << 20}})
    with pytest.raises(ConfigError, match=": /linux/resources/memory: "):
        driver.values("", {"memory": {"limit": 1 << 20}})
    with pytest.raises(ConfigError, match=": /memory: "):
        driver.values("", {"memory": {"limit": 1 << 20}}, "")
    assert driver.values("", {}) == []
    assert driver.restore("", [("memory.max", "1")]) == []
    with pytest.raises(PyruncError, match="/devices: the container has no cgroup"):
        driver.devices(-1, [], "/devices", replace=True)
    with pytest.raises(PyruncError, match="no cgroup"):
        driver.freeze("")
    with pytest.raises(PyruncError, match="no cgroup"):
        driver.thaw("")
    assert (driver.pids(""), driver.frozen(""), driver.oom_kills(""), driver.missing("")) == ([], False, 0, [])
    driver.kill("", 9)
    driver.devices(-1, None)
    driver.remove("")
