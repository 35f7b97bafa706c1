"""linux.netDevices: move network devices of the host into the container's network namespace.

pyroute2 is imported only for a config with devices.  The devices are moved before any hook runs.
When the namespace ends, the kernel removes them, or returns physical ones to the host
(config-linux.md, Namespace Lifecycle).  Only a failed create moves its devices back.
"""

from __future__ import annotations

import posix
from _struct import Struct
from errno import EEXIST, EINVAL, ENODEV
from posix import O_CLOEXEC, O_RDONLY

from pyrunc import interpreter
from pyrunc.errors import PyruncError, SysError
from pyrunc.native import sockets
from pyrunc.spec.names import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.log import Log
    from pyrunc.spec.types import NetDevice

    Message = Any  # a message of pyroute2, which has no type hints

POINTER = "/linux/netDevices"
IFF_UP, IFF_LOOPBACK = 0x1, 0x8
IFA_F_PERMANENT = 0x80
# Flags that configure an address; the kernel maintains the others.
# NOPREFIXROUTE, MCAUTOJOIN, MANAGETEMPADDR, HOMEADDRESS, NODAD
KEPT_FLAGS = 0x200 | 0x400 | 0x100 | 0x10 | 0x02
SCOPE_UNIVERSE = 0
_ADDRESS_ATTRIBUTES = ("IFA_ADDRESS", "IFA_LOCAL", "IFA_BROADCAST", "IFA_RT_PRIORITY")
# linux/rtnetlink.h, linux/netlink.h
RTM_NEWLINK, RTM_GETLINK, RTM_NEWADDR, RTM_GETADDR = 16, 18, 20, 22
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x300, 0x200, 0x400
NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x100, 0x200
NLMSG_ERROR, NLMSG_DONE, NLMSGERR_ATTR_MSG = 2, 3, 1
_HEADER = Struct("=IHHII")  # struct nlmsghdr
_MOVING = "pyrunc-{}"  # temporary name during the move, for templates

_HINTS = {
    "EPERM": "moving a device needs CAP_NET_ADMIN in both network namespaces",
    "EINVAL": "loopback, bridge and other devices that belong to their namespace cannot be moved",
    "EBUSY": "the device is in use",
    "ENODEV": "`ip link` lists the devices of this network namespace",
    "EEXIST": "a name ending in %d lets the kernel choose a free number",
}


class Device:
    """A device to move: its state on the host, and its index in the container."""

    __slots__ = ("addresses", "index", "moved", "name", "pointer", "up", "wanted")

    def __init__(self, name: str, wanted: str, index: int, up: bool, addresses: list[Message]) -> None:
        self.pointer = f"{POINTER}/{escape(name)}"
        self.name, self.wanted = name, wanted
        self.index, self.up, self.addresses = index, up, addresses
        self.moved = 0  # its index in the container's namespace; 0 before the move


class NetlinkError(Exception):
    """The kernel refused a request: its errno, and its extended acknowledgement, if any."""

    def __init__(self, number: int, words: str) -> None:
        super().__init__(number, words)
        self.errno = number


def _messages() -> tuple[type[Message], type[Message]]:
    """pyroute2's classes for links and addresses.

    The package's __init__ imports all protocols and asyncio, which costs 0.2 s of CPU time; these
    two modules cost 25 ms.
    """
    interpreter.complete()
    from importlib import import_module

    if not interpreter.FROZEN:
        _shell()
    links = import_module("pyroute2.netlink.rtnl.ifinfmsg").ifinfmsg
    return links, import_module("pyroute2.netlink.rtnl.ifaddrmsg").ifaddrmsg


def _shell() -> None:
    """Register an empty package pyroute2, as in the executable.  Raises ModuleNotFoundError."""
    import sys
    from importlib.machinery import PathFinder
    from types import ModuleType

    if "pyroute2" in sys.modules:
        return
    spec = PathFinder.find_spec("pyroute2")
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("No module named 'pyroute2'", name="pyroute2")
    package = ModuleType("pyroute2")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["pyroute2"] = package


class Namespace:
    """A network namespace and a netlink socket in it.  The object keeps the namespace alive."""

    __slots__ = ("address_message", "fd", "link_message", "sequence", "sock")

    def __init__(self, path: str) -> None:
        self.fd = self.sock = -1  # __del__ needs both
        self.sequence = 0
        self.link_message, self.address_message = _messages()
        self.fd = posix.open(path, O_RDONLY | O_CLOEXEC)
        try:
            self.sock = sockets.netlink_in(self.fd)
        except OSError as error:
            raise SysError(POINTER, "setns", error.errno or 0, value=path) from error

    def close(self) -> None:
        """Close the descriptors."""
        for fd in (self.sock, self.fd):
            if fd >= 0:
                posix.close(fd)
        self.fd = self.sock = -1

    def __del__(self) -> None:
        self.close()

    def request(self, kind: int, flags: int, message: Message) -> list[Message]:
        """Send a message and return the answers.  Raises NetlinkError, OSError."""
        self.sequence += 1
        message["header"]["type"], message["header"]["flags"] = kind, NLM_F_REQUEST | flags
        message["header"]["sequence_number"] = self.sequence
        message.encode()
        posix.write(self.sock, bytes(message.data))
        found: list[Message] = []
        while True:
            data = posix.read(self.sock, 1 << 16)  # a dump comes in parts of up to 32 KiB
            at = 0
            while at + _HEADER.size <= len(data):
                length, answer, answer_flags, sequence, _ = _HEADER.unpack_from(data, at)
                body = data[at : at + length]
                at += max(_HEADER.size, (length + 3) & ~3)
                if sequence != self.sequence:
                    continue
                if answer == NLMSG_DONE:
                    return found
                if answer == NLMSG_ERROR:
                    _check_ack(body, answer_flags)
                    return found
                parsed = type(message)(body)
                parsed.decode()
                found.append(parsed)

    def links(self) -> dict[str, tuple[int, int]]:
        """The devices of the namespace: name -> (index, IFF_* flags)."""
        answers = self.request(RTM_GETLINK, NLM_F_DUMP, self.link_message())
        return {link.get_attr("IFLA_IFNAME"): (link["index"], link["flags"]) for link in answers}

    def set_link(self, index: int, attributes: list[tuple[str, object]], *, up: bool = False) -> None:
        """Change a device.  Raises NetlinkError."""
        message = self.link_message()
        message["index"], message["attrs"] = index, attributes
        if up:
            message["flags"] = message["change"] = IFF_UP
        self.request(RTM_NEWLINK, NLM_F_ACK, message)

    def addresses(self, index: int) -> list[Message]:
        """The addresses that move with a device: permanent, of global scope, of any family."""
        found = []
        for entry in self.request(RTM_GETADDR, NLM_F_DUMP, self.address_message()):
            if entry["index"] != index:
                continue
            flags = entry.get_attr("IFA_FLAGS") or entry["flags"]
            if entry["scope"] != SCOPE_UNIVERSE or not flags & IFA_F_PERMANENT:
                continue
            attributes = [(name, entry.get_attr(name)) for name in _ADDRESS_ATTRIBUTES]
            kept = [(name, value) for name, value in attributes if value is not None]
            kept.append(("IFA_FLAGS", flags & KEPT_FLAGS))
            found.append({"family": entry["family"], "prefixlen": entry["prefixlen"], "attrs": kept})
        return found

    def set_up(self, index: int, addresses: list[Message], up: bool) -> None:
        """Add the addresses to a device that was just moved, and set it up if ``up``."""
        for address in addresses:
            message = self.address_message()
            for name, value in address.items():
                message[name] = value
            message["index"] = index
            self.request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, message)
        if up:
            self.set_link(index, [], up=True)


def _check_ack(body: bytes, flags: int) -> None:
    """Raises NetlinkError unless an NLMSG_ERROR message has error 0 (netlink(7))."""
    (number,) = Struct("=i").unpack_from(body, _HEADER.size)
    if number == 0:
        return
    words = ""
    if flags & NLM_F_ACK_TLVS:
        echoed = 0 if flags & NLM_F_CAPPED else _HEADER.unpack_from(body, _HEADER.size + 4)[0] - _HEADER.size
        at = _HEADER.size + 4 + _HEADER.size + (echoed + 3 & ~3)
        while at + 4 <= len(body):
            length, kind = Struct("=HH").unpack_from(body, at)
            if kind & 0x3FFF == NLMSGERR_ATTR_MSG:
                words = body[at + 4 : at + length].rstrip(b"\0").decode("utf-8", "replace")
            at += max(4, (length + 3) & ~3)
    raise NetlinkError(-number, words)


class Move:
    """The move of a container's devices; `restore` goes on the undo stack."""

    __slots__ = ("devices", "host", "inside", "log")

    def __init__(self, pid: int, log: Log) -> None:
        self.log = log
        self.host, self.inside = Namespace("/proc/self/ns/net"), Namespace(f"/proc/{pid}/ns/net")
        self.devices: list[Device] = []

    def all(self, wanted: dict[str, NetDevice]) -> None:
        """Move all devices of ``linux.netDevices``, or none.  Raises SysError, PyruncError."""
        here, there = posix.fstat(self.host.fd), posix.fstat(self.inside.fd)
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
            raise PyruncError(
                f"{POINTER}: the container is in our own network namespace, where the devices already are"
            )
        self.devices = self._check(wanted)
        device = None
        try:
            for device in self.devices:
                self._move(device)
        except BaseException as error:
            self.restore()
            if device is not None and not isinstance(error, PyruncError):
                raise _as_sys_error(error, device.pointer, device.wanted) from error
            raise

    def _check(self, wanted: dict[str, NetDevice]) -> list[Device]:
        """Check all devices before the first one is moved, as the runtime-spec requires."""
        links, taken = self.host.links(), self.inside.links()
        devices = []
        for name, entry in wanted.items():
            pointer, target = f"{POINTER}/{escape(name)}", entry.get("name") or name
            if name not in links:
                detail = "our network namespace has no device of this name"
                raise SysError(pointer, "", ENODEV, value=name, detail=detail, hint=_HINTS["ENODEV"])
            index, flags = links[name]
            if flags & IFF_LOOPBACK:
                detail = "a loopback device belongs to its namespace"
                raise SysError(pointer, "", EINVAL, value=name, detail=detail)
            if target in taken:
                where = f"{pointer}/name" if entry.get("name") else pointer
                detail = "the container's network namespace has a device of this name"
                raise SysError(where, "", EEXIST, value=target, detail=detail, hint=_HINTS["EEXIST"])
            devices.append(Device(name, target, index, bool(flags & IFF_UP), self.host.addresses(index)))
        return devices

    def _move(self, device: Device) -> None:
        template = "%" in device.wanted
        # With a template, the kernel chooses the number after the move, and the device could no
        # longer be identified.
        name = _MOVING.format(device.index) if template else device.wanted
        try:
            self.host.set_link(device.index, [("IFLA_IFNAME", name), ("IFLA_NET_NS_FD", self.inside.fd)])
        except Exception:
            # The kernel moves first and renames second; if the rename fails, the device has its old
            # name.
            if device.name not in self.host.links():
                device.moved, _ = self.inside.links().get(device.name, (0, 0))
            raise
        device.moved, _ = self.inside.links()[name]
        if template:
            self.inside.set_link(device.moved, [("IFLA_IFNAME", device.wanted)])
        self.inside.set_up(device.moved, device.addresses, up=True)
        self.log.debug(f"moved network device {device.name} to the container as {device.wanted}")

    def restore(self) -> None:
        """Move the devices back with their names, addresses and state; failures are logged."""
        for device in reversed(self.devices):
            if not device.moved:
                continue
            try:
                self.inside.set_link(device.moved, [("IFLA_IFNAME", device.name), ("IFLA_NET_NS_FD", self.host.fd)])
                index, _ = self.host.links()[device.name]
                self.host.set_up(index, device.addresses, device.up)
            except Exception as error:  # continue with the other devices
                self.log.warning(f"{device.pointer}: could not be moved back to the host: {error}")
        self.devices = []


def move(devices: dict[str, NetDevice], pid: int, log: Log) -> Move:
    """Move devices into the network namespace of ``pid``, all or none; `restore` of the result
    undoes it."""
    job = Move(pid, log)
    job.all(devices)
    return job


def _as_sys_error(error: BaseException, pointer: str, name: str) -> BaseException:
    """A SysError with the kernel's extended acknowledgement and a hint."""
    number = getattr(error, "errno", 0)
    if not number:
        return error
    from errno import errorcode

    detail = str(error.args[1]).lower() if len(error.args) > 1 else ""
    return SysError(pointer, "RTM_NEWLINK", number, value=name, detail=detail, hint=_HINTS.get(errorcode[number], ""))
