"""linux.namespaces: new, inherited and joined namespaces, and the settings that depend on them
(hostname, loopback, keyring)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.config import DELETE
from integration.harness import NS_FILE, Box, Container, Holder
from integration.machine import sysctl_as_it_is

Make = Callable[..., Container]
Refused = Callable[..., None]
KINDS = ["pid", "network", "ipc", "uts", "mount", "cgroup"]


def _spaces(*kinds: str, **paths: str) -> dict[str, object]:
    return {"/linux/namespaces": [{"type": k} for k in kinds] + [{"type": k, "path": p} for k, p in paths.items()]}


def _own(kind: str) -> str:
    return os.readlink(f"/proc/self/ns/{NS_FILE.get(kind, kind)}")


@pytest.mark.parametrize("kind", KINDS)
def test_new(container: Make, kind: str) -> None:
    seen = container().run().report["ns"]
    assert seen[NS_FILE.get(kind, kind)] != _own(kind)
    assert seen["user"] == _own("user")


@pytest.mark.parametrize("kind", ["pid", "ipc", "uts", "cgroup", "network"])
def test_without_an_entry_the_callers_is_kept(container: Make, kind: str) -> None:
    edits = _spaces(*[k for k in KINDS if k != kind])
    if kind == "uts":
        edits["/hostname"] = DELETE
    if kind == "network":  # sysfs shows the network namespace; mounting it requires owning that namespace
        edits["/mounts/5"] = DELETE
    if kind == "ipc":
        edits["/mounts/4"] = DELETE
    seen = container(edits=edits).run().report["ns"]
    assert seen[NS_FILE.get(kind, kind)] == _own(kind)
    for other in KINDS:
        if other != kind:
            assert seen[NS_FILE.get(other, other)] != _own(other)


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts"])
def test_joined_by_path(container: Make, holder: Callable[..., Holder], kind: str) -> None:
    held = holder(kind)
    edits = _spaces(*[k for k in KINDS if k != kind], **{kind: held.path(kind)})
    if kind == "uts":
        edits["/hostname"] = DELETE
    seen = container(edits=edits).run().report
    assert seen["ns"][NS_FILE.get(kind, kind)] == held.ident(kind)
    if kind == "pid":
        assert seen["pid"] > 1


def test_all_joined_at_once(container: Make, holder: Callable[..., Holder]) -> None:
    kinds = ["pid", "network", "ipc", "uts"]
    held = holder(*kinds)
    edits = _spaces("mount", "cgroup", **{kind: held.path(kind) for kind in kinds})
    seen = container(edits={**edits, "/hostname": DELETE}).run().report["ns"]
    for kind in kinds:
        assert seen[NS_FILE.get(kind, kind)] == held.ident(kind)


def test_a_bind_mounted_namespace_is_joined(container: Make, box: Box, holder: Callable[..., Holder]) -> None:
    held = holder("network")
    file = box.path / "netns"
    file.touch()
    subprocess.run(["mount", "--bind", held.path("network"), str(file)], check=True)
    try:
        edits = _spaces("pid", "ipc", "uts", "mount", "cgroup", network=str(file))
        assert container(edits=edits).run().report["ns"]["net"] == held.ident("network")
    finally:
        subprocess.run(["umount", str(file)], check=True)


def test_hostname_in_a_joined_uts_namespace(container: Make, holder: Callable[..., Holder]) -> None:
    held = holder("uts")
    edits = _spaces("pid", "ipc", "mount", "cgroup", "network", uts=held.path("uts"))
    assert container(edits={**edits, "/hostname": "joined"}).run().report["hostname"] == "joined"


@pytest.mark.parametrize("kind", ["pid", "network", "ipc", "uts", "mount", "cgroup"])
def test_a_path_of_another_kind(container: Make, refused: Refused, kind: str) -> None:
    wrong = "/proc/self/ns/" + ("uts" if kind != "uts" else "ipc")
    edits = _spaces(*[k for k in KINDS if k != kind], **{kind: wrong})
    if kind == "uts":
        edits["/hostname"] = DELETE
    index = len(KINDS) - 1
    refused(container(edits=edits).create(check=False), f"/linux/namespaces/{index}/path", wrong)


@pytest.mark.parametrize("path", ["/nowhere/ns", "/etc/passwd", "/proc/1", "/proc/self/ns/pid_for_children/x"])
def test_a_path_that_is_not_a_namespace(container: Make, refused: Refused, path: str) -> None:
    edits = _spaces("pid", "ipc", "uts", "mount", "cgroup", network=path)
    refused(container(edits=edits).create(check=False), "/linux/namespaces/5/path", path)


@pytest.mark.parametrize(
    ("entries", "pointer"),
    [
        ([{"type": "pid"}, {"type": "pid"}], "/linux/namespaces/1"),
        ([{"type": "bogus"}], "/linux/namespaces/0/type"),
        ([{}], "/linux/namespaces/0/type"),
        ([{"type": "network", "path": "relative"}], "/linux/namespaces/0/path"),
    ],
)
def test_bad_entries(container: Make, refused: Refused, entries: list[object], pointer: str) -> None:
    refused(container(edits={"/linux/namespaces": [*entries, {"type": "mount"}]}).create(check=False), pointer)


@pytest.mark.pyrunc_only("runc 1.1.5 does not know time namespaces")
def test_new_time_namespace(container: Make) -> None:
    seen = container(edits=_spaces(*KINDS, "time")).run().report["ns"]
    assert seen["time"] != os.readlink("/proc/self/ns/time")


@pytest.mark.pyrunc_only("runc 1.1.5 does not know time namespaces")
def test_joined_time_namespace(container: Make, holder: Callable[..., Holder]) -> None:
    held = holder("time")
    seen = container(edits=_spaces(*KINDS, time=held.path("time"))).run().report["ns"]
    assert seen["time"] == held.ident("time")


def test_loopback_is_up(container: Make) -> None:
    assert container().run().report["links"]["lo"] & 1, "IFF_UP"


def test_loopback_of_a_joined_namespace_is_left_alone(container: Make, holder: Callable[..., Holder]) -> None:
    held = holder("network")
    edits = _spaces("pid", "ipc", "uts", "mount", "cgroup", network=held.path("network"))
    assert not container(edits=edits).run().report["links"]["lo"] & 1


@pytest.mark.pyrunc_only("runc lets the sysctl win; crun refuses both as well")
def test_a_domainname_given_twice(container: Make, refused: Refused) -> None:
    edits = {"/domainname": "example.org", "/linux/sysctl": {"kernel.domainname": "example.com"}}
    refused(container(edits=edits).create(check=False), "/linux/sysctl/kernel.domainname", "not both")
    alone = container("report", edits={"/linux/sysctl": {"kernel.domainname": "example.com"}})
    assert alone.run().report["domainname"] == "example.com"


def test_hostname_and_domainname(container: Make, box: Box) -> None:
    edits = {"/hostname": "some-name", "/domainname": "example.org"}
    if not box.runtime.is_pyrunc:
        del edits["/domainname"]  # newer than runc 1.1.5
    seen = container(edits=edits).run().report
    assert seen["hostname"] == "some-name"
    assert not box.runtime.is_pyrunc or seen["domainname"] == "example.org"
    assert os.uname().nodename != "some-name"


@pytest.mark.parametrize("field", ["hostname", "domainname"])
def test_names_need_an_own_uts_namespace(container: Make, refused: Refused, box: Box, field: str) -> None:
    if field == "domainname" and not box.runtime.is_pyrunc:
        pytest.skip("newer than runc 1.1.5")
    edits = {**_spaces(*[k for k in KINDS if k != "uts"]), "/hostname": DELETE}
    edits[f"/{field}"] = "x"
    refused(container(edits=edits).create(check=False), f"/{field}")


def test_session_keyring(container: Make) -> None:
    one = container()
    seen = one.run().report["keyring"]
    assert seen.split(";")[4] == f"_ses.{one.id}"


def test_no_new_keyring(container: Make) -> None:
    one = container()
    assert f"_ses.{one.id}" not in str(one.run("--no-new-keyring").report["keyring"])


def test_own_session(container: Make) -> None:
    """No process of the container may reach the caller's terminal (CVE-2017-5226)."""
    seen = container().run().report
    assert (seen["sid"], seen["pgid"], seen["pid"]) == (1, 1, 1)


def test_init_is_alone_in_its_pid_namespace(container: Make) -> None:
    one = container("ls", "/proc")
    names = one.run().objects[0]["names"]
    assert [name for name in names if name.isdigit()] == ["1"]


def test_cgroup_namespace_starts_at_the_containers_cgroup(container: Make) -> None:
    seen = container().run().report
    assert "0::/" in seen["cgroup"].splitlines()


def test_without_cgroup_namespace_the_path_shows(container: Make) -> None:
    one = container(edits=_spaces(*[k for k in KINDS if k != "cgroup"]))
    line = next(text for text in one.run().report["cgroup"].splitlines() if text.startswith("0::"))
    assert line.endswith(one.bundle.config["linux"]["cgroupsPath"])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kernel.msgmax", "9000"),
        ("kernel.shm_rmid_forced", "1"),
        ("fs.mqueue.msg_max", "17"),
        ("net.ipv4.ip_forward", "1"),
        ("net.ipv4.conf.lo.forwarding", "1"),
    ],
)
def test_sysctl(container: Make, key: str, value: str) -> None:
    one = container("report", key, edits={"/linux/sysctl": {key: value}, "/linux/readonlyPaths": DELETE})
    host = Path("/proc/sys/" + key.replace(".", "/"))
    before = host.read_text()
    assert one.run().report["sysctl"][key] == value + "\n"
    assert host.read_text() == before


def test_sysctl_with_slashes(container: Make) -> None:
    one = container("report", "net.ipv4.ip_forward", edits={"/linux/sysctl": {"net/ipv4/ip_forward": "1"}})
    assert one.run().report["sysctl"]["net.ipv4.ip_forward"] == "1\n"


@pytest.mark.parametrize(
    ("key", "without"),
    [
        ("kernel.core_pattern", ""),
        ("net/../kernel/core_pattern", ""),
        ("vm.swappiness", ""),
        ("kernel.hostname", ""),
        ("kernel.shm_rmid_forced", "ipc"),
        ("net.ipv4.ip_forward", "network"),
        ("user.max_user_namespaces", ""),
    ],
)
def test_sysctl_outside_the_namespaces(container: Make, refused: Refused, key: str, without: str) -> None:
    edits = {**_spaces(*[k for k in KINDS if k != without]), "/linux/sysctl": {key: sysctl_as_it_is(key)}}
    refused(container(edits=edits).create(check=False), "/linux/sysctl")


def test_sysctl_of_the_hosts_network_by_path(container: Make, refused: Refused) -> None:
    edits = _spaces("pid", "ipc", "uts", "mount", "cgroup", network="/proc/1/ns/net")
    key = "net.ipv4.ip_forward"
    refused(
        container(edits={**edits, "/linux/sysctl": {key: sysctl_as_it_is(key)}}).create(check=False), "/linux/sysctl"
    )


def test_sysctl_the_kernel_refuses(container: Make, refused: Refused) -> None:
    edits = {"/linux/sysctl": {"net.ipv4.ip_forward": "not-a-number"}}
    refused(container(edits=edits).create(check=False), "/linux/sysctl/net.ipv4.ip_forward", "not-a-number")


def test_sysctl_that_does_not_exist(container: Make, refused: Refused) -> None:
    edits = {"/linux/sysctl": {"net.ipv4.no_such_thing": "1"}}
    refused(container(edits=edits).create(check=False), "/linux/sysctl/net.ipv4.no_such_thing")
