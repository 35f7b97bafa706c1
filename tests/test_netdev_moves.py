"""pyrunc.launch.netdev with made-up namespaces: which devices move, their new names, and their
return."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc.errors import PyruncError, SysError
from pyrunc.launch import netdev
from pyrunc.launch.netdev import IFF_LOOPBACK, IFF_UP

HINTS = netdev._HINTS


class Namespace:
    """A network namespace: its devices by name, and the requests that it received."""

    def __init__(self, path: Path, world: World) -> None:
        path.touch()
        self.fd = os.open(path, os.O_RDONLY)
        self.world = world
        self.table: dict[str, list[int]] = {}  # name -> index, flags
        self.asked: list[tuple[Any, ...]] = []
        self.fail: dict[str, BaseException] = {}  # by the requested name
        self.late: set[str] = set()  # it moves first, then its renaming fails

    def links(self) -> dict[str, tuple[int, int]]:
        return {name: (index, flags) for name, (index, flags) in self.table.items()}

    def addresses(self, index: int) -> list[Any]:
        return [f"address of {index}"]

    def set_link(self, index: int, attributes: list[tuple[str, Any]], *, up: bool = False) -> None:
        wanted = dict(attributes)
        self.asked.append(("set", index, wanted.get("IFLA_IFNAME"), up))
        name = next(name for name, (number, _) in self.table.items() if number == index)
        new = wanted.get("IFLA_IFNAME", name).replace("%d", "0")
        target = self
        if "IFLA_NET_NS_FD" in wanted:
            target = next(one for one in self.world.all if one.fd == wanted["IFLA_NET_NS_FD"])
        if new in self.fail and new not in self.late:
            raise self.fail[new]
        number, flags = self.table.pop(name)
        if target is not self:
            number, flags = number + 100, flags & ~IFF_UP
        if new in self.fail:
            target.table[name] = [number, flags]
            raise self.fail[new]
        target.table[new] = [number, flags]

    def set_up(self, index: int, addresses: list[Any], up: bool) -> None:
        self.asked.append(("up", index, tuple(addresses), up))


class World:
    def __init__(self, top: Path) -> None:
        self.all: list[Namespace] = []
        self.host = self.add(top / "host")
        self.inside = self.add(top / "inside")
        self.inside.table["lo"] = [1, IFF_LOOPBACK]
        self.host.table = {
            "lo": [1, IFF_LOOPBACK | IFF_UP], "eth0": [2, IFF_UP], "eth1": [3, 0], "a/b": [4, IFF_UP],
        }  # fmt: skip

    def add(self, path: Path) -> Namespace:
        self.all.append(Namespace(path, self))
        return self.all[-1]


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def debug(self, text: str) -> None:
        self.lines.append(text)

    def warning(self, text: str) -> None:
        self.lines.append(f"warning: {text}")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    made = World(tmp_path)
    places = {"/proc/self/ns/net": made.host, "/proc/4711/ns/net": made.inside}
    monkeypatch.setattr(netdev, "Namespace", lambda path: places[path])
    yield made
    for one in made.all:
        os.close(one.fd)


def move(wanted: Any, log: Log | None = None) -> netdev.Move:
    return netdev.move(wanted, 4711, log or Log())  # type: ignore[arg-type]


def test_devices_move_with_addresses_and_are_set_up(world: World) -> None:
    log = Log()
    job = move({"eth0": {"name": "net0"}, "eth1": {}}, log)
    assert world.host.links() == {"lo": (1, 9), "a/b": (4, 1)}
    assert world.inside.links() == {"lo": (1, 8), "net0": (102, 0), "eth1": (103, 0)}
    assert world.host.asked == [("set", 2, "net0", False), ("set", 3, "eth1", False)]
    assert world.inside.asked == [("up", 102, ("address of 2",), True), ("up", 103, ("address of 3",), True)]
    assert log.lines == [
        "moved network device eth0 to the container as net0", "moved network device eth1 to the container as eth1",
    ]  # fmt: skip
    world.host.asked.clear()
    job.restore()
    assert world.host.links() == {"lo": (1, 9), "a/b": (4, 1), "eth1": (203, 0), "eth0": (202, 0)}
    assert world.inside.links() == {"lo": (1, 8)}
    # In reverse order, and up as before.
    assert world.host.asked == [("up", 203, ("address of 3",), False), ("up", 202, ("address of 2",), True)]
    assert job.devices == []
    job.restore()
    assert len(world.host.asked) == 2, "once"


def test_the_kernel_chooses_the_number_of_a_template(world: World) -> None:
    move({"eth0": {"name": "net%d"}})
    assert world.host.asked == [("set", 2, "pyrunc-2", False)]
    assert world.inside.asked == [("set", 102, "net%d", False), ("up", 102, ("address of 2",), True)]
    assert "net0" in world.inside.table


@pytest.mark.parametrize(
    ("wanted", "pointer", "number", "value", "words", "hint"),
    [
        ({"eth9": {}}, "/eth9", errno.ENODEV, "eth9", "our network namespace has no device of this name", "ENODEV"),
        ({"x/y": {}}, "/x~1y", errno.ENODEV, "x/y", "our network namespace has no device of this name", "ENODEV"),
        ({"lo": {"name": "lo1"}}, "/lo", errno.EINVAL, "lo", "a loopback device belongs to its namespace", ""),
        ({"eth0": {"name": "lo"}}, "/eth0/name", errno.EEXIST, "lo", "the container's network namespace has", "EEXIST"),
        ({"eth1": {}}, "/eth1", errno.EEXIST, "eth1", "the container's network namespace has a device", "EEXIST"),
    ],
)
def test_all_devices_are_checked_first(
    world: World, wanted: Any, pointer: str, number: int, value: str, words: str, hint: str
) -> None:
    if "eth1" in wanted:
        world.inside.table["eth1"] = [9, 0]
    with pytest.raises(SysError) as caught:
        move({"a/b": {"name": "ab"}, **wanted})
    text = str(caught.value)
    assert text.startswith(f"/linux/netDevices{pointer} ") and caught.value.errno == number
    assert f'"{value}"' in text and words in text and (not hint or HINTS[hint] in text)
    assert world.host.asked == [] and "a/b" in world.host.table


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.EPERM, "CAP_NET_ADMIN in both network namespaces"), (errno.EINVAL, "loopback, bridge and other devices"),
        (errno.EBUSY, "the device is in use"), (errno.ENODEV, "`ip link` lists the devices"),
        (errno.EIO, "RTM_NEWLINK"),
    ],
)  # fmt: skip
def test_one_that_cannot_be_moved(world: World, number: int, words: str) -> None:
    world.host.fail["net1"] = netdev.NetlinkError(number, "Some Words")
    with pytest.raises(SysError) as caught:
        move({"eth0": {"name": "net0"}, "eth1": {"name": "net1"}})
    text = str(caught.value)
    assert text.startswith("/linux/netDevices/eth1 ") and '"net1"' in text and "RTM_NEWLINK" in text
    assert caught.value.errno == number and words in text and "some words" in text
    assert world.host.links() == {"lo": (1, 9), "a/b": (4, 1), "eth1": (3, 0), "eth0": (202, 0)}
    assert world.inside.links() == {"lo": (1, 8)}


def test_an_error_without_words_or_number(world: World) -> None:
    world.host.fail["eth0"] = OSError(errno.EBUSY, "")
    with pytest.raises(SysError) as caught:
        move({"eth0": {}})
    assert caught.value.errno == errno.EBUSY and HINTS["EBUSY"] in str(caught.value)
    world.host.fail["eth0"] = KeyError("x")
    with pytest.raises(KeyError):
        move({"eth0": {}})
    world.host.fail["eth0"] = SysError("/other", "open", errno.EBUSY)
    with pytest.raises(SysError, match=r"^/other: "):
        move({"eth0": {}})
    world.host.fail["eth0"] = PyruncError("as it is")
    with pytest.raises(PyruncError, match=r"^as it is$"):
        move({"eth0": {}})


def test_a_device_that_moves_but_cannot_be_renamed_comes_back(world: World) -> None:
    world.host.fail["net0"] = netdev.NetlinkError(errno.EEXIST, "")
    world.host.late.add("net0")
    with pytest.raises(SysError) as caught:
        move({"eth0": {"name": "net0"}})
    assert HINTS["EEXIST"] in str(caught.value)
    assert "eth0" in world.host.table and "eth0" not in world.inside.table


def test_devices_that_cannot_be_moved_back_are_reported(world: World) -> None:
    log = Log()
    job = move({"eth0": {}, "eth1": {}}, log)
    world.inside.fail["eth1"] = netdev.NetlinkError(errno.EPERM, "no")
    log.lines.clear()
    job.restore()
    assert log.lines == ["warning: /linux/netDevices/eth1: could not be moved back to the host: (1, 'no')"]
    assert "eth0" in world.host.table and "eth1" in world.inside.table, "the others go back"


def test_a_container_in_our_own_namespace(world: World, tmp_path: Path) -> None:
    os.close(world.inside.fd)
    world.inside.fd = os.open(tmp_path / "host", os.O_RDONLY)
    with pytest.raises(PyruncError, match=r"^/linux/netDevices: the container is in our own network namespace"):
        move({"eth0": {}})
    assert world.host.asked == []


class Answers:
    """A namespace whose kernel has these addresses."""

    def __init__(self, *entries: Any) -> None:
        self.entries = entries
        self.asked: list[tuple[int, int]] = []

    def request(self, kind: int, flags: int, message: Any) -> list[Any]:
        self.asked.append((kind, flags))
        return list(self.entries)

    def address_message(self) -> None:
        return None


class Address(dict[str, Any]):
    def get_attr(self, name: str) -> Any:
        return self["attrs"].get(name)


def address(flags: int, *, index: int = 2, scope: int = 0, short: int = 0, **attributes: Any) -> Address:
    given = {"IFA_ADDRESS": "10.0.0.1", **({"IFA_FLAGS": flags} if flags else {}), **attributes}
    return Address(index=index, scope=scope, flags=short, family=2, prefixlen=24, attrs=given)


def kept(*entries: Address) -> list[Any]:
    one: Any = Answers(*entries)
    found: list[Any] = netdev.Namespace.addresses(one, 2)
    assert one.asked == [(netdev.RTM_GETADDR, netdev.NLM_F_DUMP)]
    return found


@pytest.mark.parametrize(
    ("name", "flag", "stays"),
    [
        ("secondary", 0x01, False), ("nodad", 0x02, True), ("optimistic", 0x04, False), ("dadfailed", 0x08, False),
        ("homeaddress", 0x10, True), ("deprecated", 0x20, False), ("tentative", 0x40, False),
        ("managetempaddr", 0x100, True), ("noprefixroute", 0x200, True), ("mcautojoin", 0x400, True),
        ("stable_privacy", 0x800, False),
    ],
)  # fmt: skip
def test_flags_that_configure_an_address(name: str, flag: int, stays: bool) -> None:
    (found,) = kept(address(0x80 | flag))
    assert found == {
        "family": 2, "prefixlen": 24,
        "attrs": [("IFA_ADDRESS", "10.0.0.1"), ("IFA_FLAGS", flag if stays else 0)],
    }  # fmt: skip


def test_which_addresses_move() -> None:
    assert kept(address(0x02), address(0x80, index=3), address(0x80, scope=253), address(0)) == []
    (found,) = kept(address(0, short=0x80, IFA_LOCAL="l", IFA_BROADCAST="b", IFA_RT_PRIORITY=0, IFA_LABEL="x"))
    assert found["attrs"] == [
        ("IFA_ADDRESS", "10.0.0.1"), ("IFA_LOCAL", "l"), ("IFA_BROADCAST", "b"), ("IFA_RT_PRIORITY", 0),
        ("IFA_FLAGS", 0),
    ]  # fmt: skip
