"""Device nodes, the links in /dev and the device cgroup (eBPF)."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any

import pytest

from integration.harness import Box, Container, errno_of

Make = Callable[..., Container]
Refused = Callable[..., None]

DEFAULTS = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


def device(path: str, kind: str = "c", major: int = 1, minor: int = 3, **more: Any) -> dict[str, Any]:
    return {"path": path, "type": kind, "major": major, "minor": minor, **more}


def test_default_devices_and_links(container: Make) -> None:
    seen = container().run().report["devices"]
    for name, numbers in DEFAULTS.items():
        node = seen[f"/dev/{name}"]
        assert (node["type"], node["major"], node["minor"], node["mode"]) == ("c", *numbers, 0o666), name
        assert (node["uid"], node["gid"]) == (0, 0)
    for name, target in LINKS.items():
        assert seen[f"/dev/{name}"]["target"] == target
    expected = {f"/dev/{name}" for name in (*DEFAULTS, *LINKS, "pts", "pts/ptmx", "shm", "mqueue", "core")}
    assert set(seen) <= expected, set(seen) - expected
    assert ("/dev/core" in seen) == os.path.lexists("/proc/kcore")
    assert "/dev/console" not in seen, "without a terminal there is no console"


@pytest.fixture
def bound(box: Box) -> dict[str, Any]:
    """Edits that bind a directory with its own node to /dev, as engines bind the host's /dev."""
    place = box.path / "dev"
    place.mkdir()
    for name in ("pts", "shm", "mqueue"):
        (place / name).mkdir()
    os.mknod(place / "null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    return {"/mounts/1": {"destination": "/dev", "type": "bind", "source": str(place), "options": ["rbind"]}}


def test_a_bound_dev_is_left_alone(container: Make, box: Box, bound: dict[str, Any]) -> None:
    """A node that linux.devices lists keeps its mode and owner."""
    given = device("/dev/null", fileMode=0o666, uid=12)
    seen = container("lstat", "/dev/null", edits=bound | {"/linux/devices": [given]}).run().objects[0]
    assert (seen["mode"], seen["uid"]) == (0o600, 0)
    assert sorted(os.listdir(box.path / "dev")) == ["mqueue", "null", "pts", "shm"]


@pytest.mark.pyrunc_only("runc and crun ignore what linux.devices lists there")
@pytest.mark.parametrize(
    "given",
    [device("/dev/more"), device("/dev/deep/more"), device("/dev/fifo", "p", 0, 0)],
    ids=lambda one: one["path"],
)
def test_nothing_is_created_in_a_bound_dev(
    container: Make, box: Box, bound: dict[str, Any], refused: Refused, given: dict[str, Any]
) -> None:
    """The node would stay on the host, in its /dev if that is bound."""
    refused(container(edits=bound | {"/linux/devices": [given]}).create(check=False), "/linux/devices/0/path")
    assert sorted(os.listdir(box.path / "dev")) == ["mqueue", "null", "pts", "shm"]


@pytest.mark.parametrize(
    ("given", "want"),
    [
        (device("/dev/mine"), {"type": "c", "major": 1, "minor": 3, "mode": 0o666, "uid": 0, "gid": 0}),
        (device("/dev/mine", fileMode=0o640, uid=12, gid=34), {"mode": 0o640, "uid": 12, "gid": 34}),
        (device("/dev/mine", "u", 10, 200), {"type": "c", "major": 10, "minor": 200}),
        (device("/dev/disk", "b", 7, 0, fileMode=0o600), {"type": "b", "major": 7, "minor": 0, "mode": 0o600}),
        (device("/dev/fifo", "p", 0, 0, fileMode=0o622), {"type": "p", "mode": 0o622}),
        (device("/dev/deep/down/here"), {"type": "c"}),
        (device("/elsewhere/node"), {"type": "c"}),
        (device("/dev/zero", major=1, minor=5), {"minor": 5}),
    ],
    ids=lambda value: str(value.get("path", "")) + str(len(value)),
)
def test_configured(container: Make, given: dict[str, Any], want: dict[str, Any]) -> None:
    one = container("lstat", given["path"], edits={"/linux/devices": [given]})
    seen = one.run().objects[0]
    assert {key: seen.get(key) for key in want} == want


@pytest.mark.pyrunc_only("runc 1.1.5 keeps its default node")
def test_a_configured_device_wins_over_the_default(container: Make) -> None:
    one = container("lstat", "/dev/null", edits={"/linux/devices": [device("/dev/null", fileMode=0o600, uid=9)]})
    seen = one.run().objects[0]
    assert (seen["mode"], seen["uid"]) == (0o600, 9)


def test_fifo_needs_no_numbers(container: Make) -> None:
    one = container("lstat", "/dev/fifo", edits={"/linux/devices": [{"path": "/dev/fifo", "type": "p"}]})
    assert one.run().objects[0]["type"] == "p"


def test_umask_does_not_touch_modes(container: Make) -> None:
    one = container("lstat", "/dev/mine", edits={"/linux/devices": [device("/dev/mine", fileMode=0o666)]})
    old = os.umask(0o077)
    try:
        assert one.run().objects[0]["mode"] == 0o666
    finally:
        os.umask(old)


def _without_dev_mount(one: Container) -> Container:
    one.bundle.config["mounts"] = [m for m in one.bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    return one


@pytest.mark.parametrize("existing", ["dir", "file", "link", "other"])
@pytest.mark.pyrunc_only("runc 1.1.5 accepts whatever is there; the spec wants an error")
def test_another_node_in_the_way(container: Make, refused: Refused, existing: str) -> None:
    one = _without_dev_mount(container(edits={"/linux/devices": [device("/dev/mine", "c", 1, 5)]}))
    path = one.bundle.rootfs / "dev/mine"
    if existing == "dir":
        path.mkdir()
    elif existing == "file":
        path.touch()
    elif existing == "link":
        path.symlink_to("zero")
    else:
        os.mknod(path, 0o20666, os.makedev(1, 3))
    refused(one.create(check=False), "/linux/devices/0", "/dev/mine")


@pytest.mark.pyrunc_only("runc 1.1.5 leaves the node as it is (CVE-2025-31133)")
@pytest.mark.parametrize("existing", ["link", "file", "other"])
def test_false_null_in_the_image(container: Make, existing: str) -> None:
    """Without a /dev mount, /dev/null comes from the image; a false one must not become the mask of
    /proc/keys."""
    one = _without_dev_mount(container("stat", "/proc/keys"))
    path = one.bundle.rootfs / "dev/null"
    if existing == "link":
        path.symlink_to("/proc/sysrq-trigger")
    elif existing == "file":
        path.write_text("secret")
    else:
        os.mknod(path, 0o20666, os.makedev(1, 5))
    result = one.run(check=False)
    assert result.rc != 0 or (result.objects[0]["major"], result.objects[0]["minor"]) == (1, 3), result


def test_same_node_in_the_way_is_fine(container: Make) -> None:
    one = _without_dev_mount(
        container("lstat", "/dev/mine", edits={"/linux/devices": [device("/dev/mine", "c", 1, 5)]})
    )
    os.mknod(one.bundle.rootfs / "dev/mine", 0o20600, os.makedev(1, 5))
    assert one.run().objects[0]["minor"] == 5


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"type": "c", "major": 1, "minor": 3}, "/linux/devices/0/path"),
        (device("relative"), "/linux/devices/0/path"),
        (device("/dev/x", "z"), "/linux/devices/0/type"),
        ({"path": "/dev/x", "type": "c"}, "/linux/devices/0/major"),
        (device("/dev/x", "c", -1, 3), "/linux/devices/0/major"),
        (device("/dev/x", fileMode=-1), "/linux/devices/0/fileMode"),
    ],
)
@pytest.mark.pyrunc_only("runc 1.1.5 accepts a missing path and missing numbers")
def test_bad_entries(container: Make, refused: Refused, given: dict[str, Any], pointer: str) -> None:
    refused(container(edits={"/linux/devices": [given]}).create(check=False), pointer)


# --- the device cgroup ----------------------------------------------------------------------------

DENY = {"allow": False, "access": "rwm"}


def allow(access: str, kind: str | None = None, major: int | None = None, minor: int | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"allow": True, "access": access}
    for key, value in (("type", kind), ("major", major), ("minor", minor)):
        if value is not None:
            rule[key] = value
    return rule


def _tries(one: Container, *probes: tuple[str, ...]) -> list[str]:
    actions: list[str] = []
    for item in probes:
        actions += [*item, "--"]
    one.bundle.config["process"]["args"] = ["/probe", *actions[:-1]]
    return [errno_of(item) for item in one.run().objects]


def test_default_devices_work_although_all_is_denied(container: Make) -> None:
    """Every engine sends one rule, deny all. The default devices stay allowed, and so does mknod of
    any node."""
    one = container(edits={"/linux/resources/devices": [DENY]})
    tries = [("open", f"/dev/{name}", "rw") for name in ("null", "zero", "full", "random", "urandom")]
    assert _tries(one, *tries, ("open", "/dev/ptmx", "rw"), ("mknod", "/tmp/loop", "b", "7", "0")) == [""] * 7


def test_others_are_denied(container: Make) -> None:
    nodes = [device("/dev/mem", "c", 1, 1), device("/dev/loop", "b", 7, 0), device("/dev/kmsg", "c", 1, 11)]
    one = container(edits={"/linux/resources/devices": [DENY], "/linux/devices": nodes})
    assert _tries(one, *[("open", node["path"], "r") for node in nodes]) == ["EPERM"] * 3


def test_no_rules_also_deny(container: Make) -> None:
    one = container(edits={"/linux/resources/devices": [], "/linux/devices": [device("/dev/kmsg", "c", 1, 11)]})
    assert _tries(one, ("open", "/dev/kmsg", "r"), ("open", "/dev/null", "r")) == ["EPERM", ""]


@pytest.mark.parametrize(
    ("rules", "reading", "writing"),
    [
        ([DENY, allow("r", "c", 60, 11)], "ENXIO", "EPERM"),
        ([DENY, allow("w", "c", 60, 11)], "EPERM", "ENXIO"),
        ([DENY, allow("rw", "c", 60, 11)], "ENXIO", "ENXIO"),
        ([DENY, allow("rw", "c", 60)], "ENXIO", "ENXIO"),
        ([DENY, allow("rwm", "c", 60, -1)], "ENXIO", "ENXIO"),
        ([DENY, allow("rw", "b", 60, 11)], "EPERM", "EPERM"),
        ([DENY, allow("ra", "c", 60, 11)], "ENXIO", "EPERM"),  # other tools read it as "all"; runc ignores it
        ([DENY, allow("rw", "c", 2, 11)], "EPERM", "EPERM"),
        ([DENY, allow("rwm", "c")], "ENXIO", "ENXIO"),
        ([allow("rwm")], "ENXIO", "ENXIO"),
        ([allow("rwm", "a")], "ENXIO", "ENXIO"),
        (
            [DENY, allow("rw", "c", 60, 11), {"allow": False, "access": "w", "type": "c", "major": 60, "minor": 11}],
            "ENXIO",
            "EPERM",
        ),
    ],
)
def test_rules(container: Make, rules: list[dict[str, Any]], reading: str, writing: str) -> None:
    # no driver has this number (60-63 are for local use), so an open that the device program allows
    # fails with ENXIO
    one = container(edits={"/linux/resources/devices": rules, "/linux/devices": [device("/dev/mine", "c", 60, 11)]})
    assert _tries(one, ("open", "/dev/mine", "r"), ("open", "/dev/mine", "w")) == [reading, writing]


def test_rules_hold_before_start(container: Make, box: Box) -> None:
    """createContainer hooks already run under the container's rules; no program of the container
    ever runs without them."""
    node, out = box.path / "node", box.path / "hook"
    os.mknod(node, 0o20666, os.makedev(60, 11))
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"cat {node} 2>{out}; exit 0"]}
    container("exit", "0", edits={"/hooks/createContainer": [hook]}).run()
    assert "Operation not permitted" in out.read_text()


@pytest.mark.parametrize(
    "rule", [{"allow": True, "access": ""}, {"allow": True, "access": "x"}, {"allow": True, "type": "z", "access": "r"}]
)
@pytest.mark.pyrunc_only("runc 1.1.5 checks less")
def test_bad_rules(container: Make, refused: Refused, rule: dict[str, Any]) -> None:
    refused(
        container(edits={"/linux/resources/devices": [DENY, rule]}).create(check=False), "/linux/resources/devices/1"
    )
