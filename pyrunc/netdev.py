"""linux.netDevices: move network devices of the host into the container's network namespace.

Cold: pyroute2 is imported for a config with devices only.  The devices are moved before any hook runs and stay there:
with the namespace the kernel removes them, or gives physical ones back to the host (config-linux.md, Namespace
Lifecycle).  Only a create that fails moves back what it has moved itself.
"""

from __future__ import annotations

import posix
from errno import EEXIST, EINVAL, ENODEV
from posix import O_CLOEXEC, O_RDONLY

from pyrunc import runtime
from pyrunc.errors import PyruncError, SysError
from pyrunc.spec.names import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.log import Log

POINTER = "/linux/netDevices"
IFF_UP, IFF_LOOPBACK = 0x1, 0x8
IFA_F_PERMANENT = 0x80
# What of an address's flags says how it is used; the others are what the kernel found out about it.
KEPT_FLAGS = 0x200 | 0x400 | 0x100 | 0x10 | 0x02  # NOPREFIXROUTE, MCAUTOJOIN, MANAGETEMPADDR, HOMEADDRESS, NODAD
SCOPE_UNIVERSE = 0
_ADDRESS_ATTRIBUTES = ("address", "local", "broadcast", "rt_priority")  # IFA_*
_MOVING = "pyrunc-{}"  # the name on the way, where the kernel is to choose the final one

_HINTS = {
    "EPERM": "moving a device needs CAP_NET_ADMIN in both network namespaces",
    "EINVAL": "loopback, bridge and other devices that belong to their namespace cannot be moved",
    "EBUSY": "the device is in use",
    "ENODEV": "`ip link` lists the devices of this network namespace",
    "EEXIST": "a name ending in %d lets the kernel choose a free number",
}


class Device:
    """A device on its way: what it was on the host, and where it is now."""

    __slots__ = ("addresses", "index", "moved", "name", "pointer", "up", "wanted")

    def __init__(self, name: str, wanted: str, index: int, up: bool, addresses: list[dict[str, Any]]) -> None:
        self.pointer = f"{POINTER}/{escape(name)}"
        self.name, self.wanted = name, wanted
        self.index, self.up, self.addresses = index, up, addresses
        self.moved = 0  # its index in the container's namespace


class Namespace:
    """A network namespace with a netlink socket in it.  It exists as long as this object does."""

    __slots__ = ("fd", "route")

    def __init__(self, path: str) -> None:
        self.fd = -1  # both before anything can fail: __del__ asks for them
        self.route: Any = None
        runtime.full()
        from pyroute2 import IPRoute

        self.fd = posix.open(path, O_RDONLY | O_CLOEXEC)
        sock = runtime.shim()[1].pr_netlink_in(self.fd)
        if sock < 0:
            raise SysError(POINTER, "setns", -sock, value=path)
        self.route = IPRoute(fileno=sock, ext_ack=True)

    def close(self) -> None:
        """Let it go."""
        if self.route is not None:
            self.route.close()
        if self.fd >= 0:
            posix.close(self.fd)
        self.fd, self.route = -1, None

    def __del__(self) -> None:
        self.close()

    def links(self) -> dict[str, tuple[int, int]]:
        """The devices in it: name -> (index, IFF_* flags)."""
        return {link.get_attr("IFLA_IFNAME"): (link["index"], link["flags"]) for link in self.route.get_links()}

    def addresses(self, index: int) -> list[dict[str, Any]]:
        """The addresses of a device that go with it: permanent ones of global scope, of any family."""
        found = []
        for entry in self.route.get_addr(index=index):
            flags = entry.get_attr("IFA_FLAGS") or entry["flags"]
            if entry["scope"] != SCOPE_UNIVERSE or not flags & IFA_F_PERMANENT:
                continue
            kept = {"family": entry["family"], "prefixlen": entry["prefixlen"], "flags": flags & KEPT_FLAGS}
            for name in _ADDRESS_ATTRIBUTES:
                value = entry.get_attr("IFA_" + name.upper())
                if value is not None:
                    kept[name] = value
            found.append(kept)
        return found

    def set_up(self, index: int, addresses: list[dict[str, Any]], up: bool) -> None:
        """Give a device that has just come its addresses, and switch it on."""
        for address in addresses:
            self.route.addr("add", index=index, **address)
        if up:
            self.route.link("set", index=index, state="up")


class Move:
    """The devices of one container; `restore` is for the undo stack."""

    __slots__ = ("devices", "host", "inside", "log")

    def __init__(self, pid: int, log: Log) -> None:
        self.log = log
        self.host, self.inside = Namespace("/proc/self/ns/net"), Namespace(f"/proc/{pid}/ns/net")
        self.devices: list[Device] = []

    def all(self, wanted: dict[str, Any]) -> None:
        """Move all of ``linux.netDevices``, or none.  Raises SysError, PyruncError."""
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

    def _check(self, wanted: dict[str, Any]) -> list[Device]:
        """Everything that can be known before the first one is moved (MUST check)."""
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
        # With a template the kernel would choose the number after the move, and the device could not be told from
        # others any more.
        name = _MOVING.format(device.index) if template else device.wanted
        try:
            self.host.route.link("set", index=device.index, ifname=name, net_ns_fd=self.inside.fd)
        except Exception:
            # Renaming is the second part of the request: when that fails, the device is there under its old name.
            if device.name not in self.host.links():
                device.moved, _ = self.inside.links().get(device.name, (0, 0))
            raise
        device.moved, _ = self.inside.links()[name]
        if template:
            self.inside.route.link("set", index=device.moved, ifname=device.wanted)
        self.inside.set_up(device.moved, device.addresses, up=True)
        self.log.debug(f"moved network device {device.name} to the container as {device.wanted}")

    def restore(self) -> None:
        """Give back what was moved, with its name, addresses and state; what cannot be given back is logged."""
        for device in reversed(self.devices):
            if not device.moved:
                continue
            try:
                self.inside.route.link("set", index=device.moved, ifname=device.name, net_ns_fd=self.host.fd)
                index, _ = self.host.links()[device.name]
                self.host.set_up(index, device.addresses, device.up)
                device.moved = 0
            except Exception as error:  # the first failure is the one to report, and the other devices still wait
                self.log.warning(f"{device.pointer}: could not be moved back to the host: {error}")
        self.devices = []


def move(devices: dict[str, Any], pid: int, log: Log) -> Move:
    """Move devices into the network namespace of ``pid``, all or none; the result's `restore` undoes it."""
    job = Move(pid, log)
    job.all(devices)
    return job


def _as_sys_error(error: BaseException, pointer: str, name: str) -> BaseException:
    """A netlink error in the words of the kernel (extended acknowledgement), with a hint."""
    number = getattr(error, "code", 0) or getattr(error, "errno", 0)
    if not number:
        return error
    from errno import errorcode

    detail = str(error.args[1]).lower() if len(error.args) > 1 else ""
    return SysError(pointer, "RTM_NEWLINK", number, value=name, detail=detail, hint=_HINTS.get(errorcode[number], ""))
