"""Calls to systemd's manager over D-Bus, limited to what the systemd driver needs
(org.freedesktop.systemd1(5)).

A value on the bus is a pair ``(signature, value)``: ``("s", "text")``, ``("au", [1])``, ``("ay",
b"..")``; a variant's value is itself such a pair. Every wait has a time limit.
"""

from __future__ import annotations

from errno import EACCES, ECONNREFUSED, ECONNRESET, ENOENT, ENOPKG, ENOTCONN, EPERM

from pyrunc import fs
from pyrunc.errors import PyruncError, SysError, show
from pyrunc.native.bus import Bus, Message, PeerError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Value = tuple[str, Any]  # D-Bus signature, and a matching value
    Properties = list[tuple[str, Value]]

CALL_TIMEOUT = 25_000_000  # microseconds, D-Bus's default: PID 1 does not answer during a daemon-reload
JOB_TIMEOUT = 30_000  # milliseconds, as in runc
SERVICE, PATH = b"org.freedesktop.systemd1", b"/org/freedesktop/systemd1"
MANAGER, PROPERTIES = b"org.freedesktop.systemd1.Manager", b"org.freedesktop.DBus.Properties"
UNIT_EXISTS, NO_SUCH_UNIT = "org.freedesktop.systemd1.UnitExists", "org.freedesktop.systemd1.NoSuchUnit"
PRIVATE = "/run/systemd/private"
SYSTEM = "unix:path=/run/dbus/system_bus_socket"
_GONE = (ENOENT, ECONNREFUSED, EACCES, EPERM, ENOTCONN, ECONNRESET)  # another way to reach it may exist


class BusError(PyruncError):
    """systemd refused a call; ``name`` is the D-Bus error name."""

    def __init__(self, call: str, name: str, words: str) -> None:
        super().__init__(f"systemd: {call}: {words or name}")
        self.name = name


def addresses(user: bool) -> list[tuple[str, bool]]:
    """The addresses of the manager, best first, each with whether it leads to a message broker.

    The private socket comes first because it needs no broker.
    """
    if not user:
        return [("unix:path=" + PRIVATE, False), (fs.getenv("DBUS_SYSTEM_BUS_ADDRESS") or SYSTEM, True)]
    out = []
    directory = fs.getenv("XDG_RUNTIME_DIR")
    if directory:
        out.append((f"unix:path={escape(directory)}/systemd/private", False))
    if fs.getenv("DBUS_SESSION_BUS_ADDRESS"):
        out.append((fs.getenv("DBUS_SESSION_BUS_ADDRESS"), True))
    elif directory:
        out.append((f"unix:path={escape(directory)}/bus", True))
    return out


def escape(path: str) -> str:
    """Escape a path for a D-Bus address."""
    out = ""
    for byte in fs.encode(path):
        char = chr(byte)
        out += char if byte < 128 and (char.isalnum() or char in "-_/\\*.") else f"%{byte:02x}"
    return out


class Manager:
    """A connection to the system's systemd, or with ``user`` to the one on the session bus that the
    environment names.

    Raises PyruncError if there is none.
    """

    __slots__ = ("bus",)

    def __init__(self, user: bool) -> None:
        self.bus: Bus | None = None
        self.connect(user)

    def connect(self, user: bool) -> None:
        """Try the addresses in order."""
        tried = []
        for address, broker in addresses(user):
            try:
                self.bus = Bus(fs.encode(address), broker)
                if broker:
                    self.listen()
                return
            except (OSError, SysError) as error:
                self.close()
                number = error.errno or 0
            if number == ENOPKG:
                raise PyruncError("the systemd cgroup driver needs libsystemd.so.0, which is not installed")
            if number not in _GONE:
                raise SysError("systemd", "connect", number, value=address)
            tried.append(address)
        hint = "" if tried else ": neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set"
        whose = "the user's systemd" if user else "systemd"
        raise PyruncError(f"{whose} cannot be reached{hint}{' at ' if tried else ''}{', '.join(tried)}")

    def close(self) -> None:
        """Close the connection; idempotent."""
        if self.bus is not None:
            self.bus.close()
            self.bus = None

    def __del__(self) -> None:
        """Close the connection together with its driver."""
        self.close()

    def listen(self) -> None:
        """Have the broker forward JobRemoved; systemd's private socket does so without a
        request."""
        rule = "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager'"
        target = (b"org.freedesktop.DBus", b"/org/freedesktop/DBus", b"org.freedesktop.DBus")
        self.call("AddMatch", ("s", rule + ",member='JobRemoved'"), target=target)
        self.call("Subscribe")

    # -- calls -------------------------------------------------------------------------------------

    def call(
        self, member: str, *values: Value, target: tuple[bytes, bytes, bytes] = (SERVICE, PATH, MANAGER)
    ) -> Message:
        """Call a method and return its reply, to be freed. Raises BusError for a refusal,
        SysError."""
        bus = self.connection()
        try:
            message = bus.message(*target, member.encode("ascii"))
            try:
                for signature, value in values:
                    self.add(message, signature, value)
                return bus.call(message, CALL_TIMEOUT)
            finally:
                message.free()
        except PeerError as error:
            raise BusError(member, error.name, error.words) from error
        except OSError as error:
            raise failed(member, error) from error

    def connection(self) -> Bus:
        """The open connection."""
        if self.bus is None:
            raise failed("connection", OSError(ENOTCONN, ""))
        return self.bus

    def order(self, member: str, *values: Value) -> None:
        """Make a call with an empty reply. Raises as `call` does."""
        self.call(member, *values).free()

    def job(self, member: str, *values: Value) -> None:
        """Make a call that starts a job, and wait until the job is done. Raises BusError, SysError,
        PyruncError (the job failed)."""
        reply = self.call(member, *values)
        try:
            try:
                job = reply.read_text(b"o", 256)
            finally:
                reply.free()
            result = self.connection().wait_job(job, JOB_TIMEOUT)
        except TimeoutError:
            raise PyruncError(f"systemd: {member}: the job was not done within {JOB_TIMEOUT // 1000} s") from None
        except OSError as error:
            raise failed(member, error) from error
        if result != "done":
            raise PyruncError(f"systemd: {member}: the job ended with {show(result)}")

    def add(self, message: Message, signature: str, value: Any) -> None:  # fits the signature
        """Append a value of one complete type. Raises SysError, ValueError (the type cannot hold
        the value)."""
        kind = signature[:1]
        letter = kind.encode("ascii")
        try:
            if kind in "sog":
                message.add_text(letter, fs.encode(value))
            elif kind == "d":
                message.add_real(value)
            elif kind in "ybnqiuxt":
                message.add_number(letter, int(value))
            elif signature == "ay" and isinstance(value, bytes):
                message.add_bytes(value)
            elif kind == "v":
                message.open_container(b"v", value[0].encode("ascii"))
                self.add(message, *value)
                message.close_container()
            elif kind == "a":
                message.open_container(b"a", signature[1:].encode("ascii"))
                for item in value.items() if isinstance(value, dict) else value:
                    self.add(message, signature[1:], item)
                message.close_container()
            elif kind in "({":
                inner = signature[1:-1]
                message.open_container(b"r" if kind == "(" else b"e", inner.encode("ascii"))
                for part, item in zip(split(inner), value, strict=True):
                    self.add(message, part, item)
                message.close_container()
            else:
                raise ValueError(f"unknown D-Bus type {signature}")
        except OSError as error:
            raise failed(f"a value of type {signature}", error) from error

    # -- the manager's methods ---------------------------------------------------------------------

    def start_transient(self, unit: str, properties: Properties) -> None:
        """Call StartTransientUnit and wait until the unit is running."""
        self.job("StartTransientUnit", ("s", unit), ("s", "fail"), ("a(sv)", properties), ("a(sa(sv))", []))

    def stop(self, unit: str) -> None:
        """Call StopUnit and wait until the unit has ended; a missing unit is ignored."""
        try:
            self.job("StopUnit", ("s", unit), ("s", "replace"))
        except BusError as error:
            if error.name != NO_SUCH_UNIT:
                raise

    def reset_failed(self, unit: str) -> None:
        """Call ResetFailedUnit, which releases the name of a failed unit."""
        try:
            self.order("ResetFailedUnit", ("s", unit))
        except BusError as error:
            if error.name != NO_SUCH_UNIT:
                raise

    def set_properties(self, unit: str, properties: Properties) -> None:
        """Call SetUnitProperties for the lifetime of the unit."""
        self.order("SetUnitProperties", ("s", unit), ("b", True), ("a(sv)", properties))

    def attach(self, unit: str, below: str, pid: int) -> None:
        """Call AttachProcessesToUnit: move a process to a delegated unit, or to the cgroup
        ``below`` it."""
        self.order("AttachProcessesToUnit", ("s", unit), ("s", below), ("au", [pid]))

    def control_group(self) -> str:
        """The manager's own cgroup, which contains the cgroups of its units."""
        reply = self.call("Get", ("s", MANAGER.decode()), ("s", "ControlGroup"), target=(SERVICE, PATH, PROPERTIES))
        try:
            reply.enter(b"v", b"s")
            return reply.read_text(b"s", 4096).decode("utf-8", "surrogateescape")
        except OSError as error:
            raise failed("ControlGroup", error) from error
        finally:
            reply.free()


def failed(what: str, error: OSError) -> SysError:
    """The error for a call that systemd did not answer."""
    return SysError("systemd", what, error.errno or 0)


def split(signature: str) -> list[str]:
    """Split a signature into its complete types: ``sa(sv)u`` -> ``s``, ``a(sv)``, ``u``."""
    out, at = [], 0
    while at < len(signature):
        start = at
        while signature[at] == "a":
            at += 1
        depth = 0
        while True:
            depth += (signature[at] in "({") - (signature[at] in ")}")
            at += 1
            if not depth:
                break
        out.append(signature[start:at])
    return out
