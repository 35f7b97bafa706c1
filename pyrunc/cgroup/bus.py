"""systemd's manager over D-Bus, as far as the systemd driver needs it (org.freedesktop.systemd1(5)).

A value that goes over the bus is a pair ``(signature, value)``: ``("s", "text")``, ``("au", [1])``, ``("ay", b"..")``;
a variant's value is itself such a pair.  Every wait has a time limit.
"""

from __future__ import annotations

from errno import EACCES, ECONNREFUSED, ECONNRESET, ENOENT, ENOPKG, ENOTCONN, EPERM, ETIMEDOUT

from pyrunc import fs, interpreter
from pyrunc.errors import PyruncError, SysError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Value = tuple[str, Any]
    Properties = list[tuple[str, Value]]

CALL_TIMEOUT = 25_000_000  # microseconds, D-Bus's usual one: PID 1 answers nothing during a daemon-reload
JOB_TIMEOUT = 30_000  # milliseconds, as runc has it
SERVICE, PATH = b"org.freedesktop.systemd1", b"/org/freedesktop/systemd1"
MANAGER, PROPERTIES = b"org.freedesktop.systemd1.Manager", b"org.freedesktop.DBus.Properties"
UNIT_EXISTS, NO_SUCH_UNIT = "org.freedesktop.systemd1.UnitExists", "org.freedesktop.systemd1.NoSuchUnit"
PRIVATE = "/run/systemd/private"
SYSTEM = "unix:path=/run/dbus/system_bus_socket"
_GONE = (ENOENT, ECONNREFUSED, EACCES, EPERM, ENOTCONN, ECONNRESET)  # there may still be another way to it


class BusError(PyruncError):
    """systemd refused a call; ``name`` is D-Bus's name of the error."""

    def __init__(self, call: str, name: str, words: str) -> None:
        super().__init__(f"systemd: {call}: {words or name}")
        self.name = name


def addresses(user: bool) -> list[tuple[str, bool]]:
    """Where the manager can be reached, best first, and whether a message broker stands between.

    Its own socket first: no broker has to be asked, and none has to run.
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
    """A path within a D-Bus address."""
    out = ""
    for byte in fs.encode(path):
        char = chr(byte)
        out += char if byte < 128 and (char.isalnum() or char in "-_/\\*.") else f"%{byte:02x}"
    return out


class Manager:
    """A connection to systemd: the system's, or with ``user`` that of the user whose session bus is in the environment.

    Raises PyruncError when there is none to talk to.
    """

    __slots__ = ("bus", "ffi", "lib")

    def __init__(self, user: bool) -> None:
        self.ffi, self.lib = interpreter.quick()
        self.bus: Any = self.connect(user)

    def connect(self, user: bool) -> Any:
        """Try one address after the other."""
        slot = self.ffi.new("uint64_t *")
        tried = []
        for address, broker in addresses(user):
            result = self.lib.pr_bus_open(fs.encode(address), broker, slot)
            if result == -ENOPKG:
                raise PyruncError("the systemd cgroup driver needs libsystemd.so.0, which is not installed")
            if result >= 0:
                self.bus = slot[0]
                try:
                    if broker:
                        self.listen()
                    return self.bus
                except SysError as error:
                    self.close()
                    result = -error.errno
            if -result not in _GONE:
                raise SysError("systemd", "connect", -result, value=address)
            tried.append(address)
        hint = "" if tried else ": neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set"
        whose = "the user's systemd" if user else "systemd"
        raise PyruncError(f"{whose} cannot be reached{hint}{' at ' if tried else ''}{', '.join(tried)}")

    def close(self) -> None:
        """Close the connection; idempotent."""
        self.lib.pr_bus_close(self.bus)
        self.bus = 0

    def __del__(self) -> None:
        """A driver that goes takes its connection along."""
        if getattr(self, "bus", None):
            self.close()

    def listen(self) -> None:
        """Have the broker pass JobRemoved on; systemd's own socket does without being asked."""
        rule = "type='signal',sender='org.freedesktop.systemd1',interface='org.freedesktop.systemd1.Manager'"
        target = (b"org.freedesktop.DBus", b"/org/freedesktop/DBus", b"org.freedesktop.DBus")
        self.call("AddMatch", ("s", rule + ",member='JobRemoved'"), target=target)
        self.call("Subscribe")

    # -- calls -------------------------------------------------------------------------------------------------

    def call(self, member: str, *values: Value, target: tuple[bytes, bytes, bytes] = (SERVICE, PATH, MANAGER)) -> Any:
        """Call a method and return its reply, to be freed.  Raises BusError for a refusal, SysError."""
        ffi, lib = self.ffi, self.lib
        message, reply, error = ffi.new("uint64_t *"), ffi.new("uint64_t *"), ffi.new("char[1024]")
        name = member.encode("ascii")
        checked(member, lib.pr_bus_message(self.bus, *target, name, message))
        try:
            for signature, value in values:
                self.add(message[0], signature, value)
            result = lib.pr_bus_call(self.bus, message[0], CALL_TIMEOUT, error, 1024, reply)
        finally:
            lib.pr_bus_free(message[0])
        if result < 0:
            name, _, words = ffi.string(error).decode("utf-8", "replace").partition("\n")
            if name:
                raise BusError(member, name, words)
            checked(member, result)
        return reply[0]

    def order(self, member: str, *values: Value) -> None:
        """A call whose reply says nothing.  Raises as `call` does."""
        self.lib.pr_bus_free(self.call(member, *values))

    def job(self, member: str, *values: Value) -> None:
        """A call that starts a job; returns when it is done.  Raises BusError, SysError, PyruncError (it failed)."""
        reply = self.call(member, *values)
        job = self.ffi.new("char[256]")
        try:
            checked(member, self.lib.pr_bus_read_text(reply, b"o", job, 256))
        finally:
            self.lib.pr_bus_free(reply)
        result = self.ffi.new("char[64]")
        waited = self.lib.pr_bus_wait_job(self.bus, job, JOB_TIMEOUT, result, 64)
        if waited == -ETIMEDOUT:
            raise PyruncError(f"systemd: {member}: the job was not done within {JOB_TIMEOUT // 1000} s")
        checked(member, waited)
        text = self.ffi.string(result).decode("ascii", "replace")
        if text != "done":
            raise PyruncError(f"systemd: {member}: the job ended with {show(text)}")

    def add(self, message: Any, signature: str, value: Any) -> None:
        """Append a value of one complete type.  Raises SysError, ValueError (a value that its type cannot hold)."""
        lib, kind = self.lib, signature[:1]
        letter = kind.encode("ascii")
        if kind in "sog":
            result = lib.pr_bus_add_text(message, letter, fs.encode(value))
        elif kind == "d":
            result = lib.pr_bus_add_real(message, value)
        elif kind in "ybnqiuxt":
            result = lib.pr_bus_add_number(message, letter, int(value) & 0xFFFFFFFFFFFFFFFF)
        elif signature == "ay" and isinstance(value, bytes):
            result = lib.pr_bus_add_bytes(message, value, len(value))
        elif kind == "v":
            result = lib.pr_bus_open_container(message, b"v", value[0].encode("ascii"))
            if result >= 0:
                self.add(message, *value)
                result = lib.pr_bus_close_container(message)
        elif kind == "a":
            result = lib.pr_bus_open_container(message, b"a", signature[1:].encode("ascii"))
            for item in value.items() if isinstance(value, dict) else value:
                self.add(message, signature[1:], item)
            result = lib.pr_bus_close_container(message) if result >= 0 else result
        elif kind in "({":
            inner = signature[1:-1]
            result = lib.pr_bus_open_container(message, b"r" if kind == "(" else b"e", inner.encode("ascii"))
            for part, item in zip(split(inner), value, strict=True):
                self.add(message, part, item)
            result = lib.pr_bus_close_container(message) if result >= 0 else result
        else:
            raise ValueError(f"unknown D-Bus type {signature}")
        checked(f"a value of type {signature}", result)

    # -- the manager's methods ---------------------------------------------------------------------------------

    def start_transient(self, unit: str, properties: Properties) -> None:
        """StartTransientUnit, and wait until it runs."""
        self.job("StartTransientUnit", ("s", unit), ("s", "fail"), ("a(sv)", properties), ("a(sa(sv))", []))

    def stop(self, unit: str) -> None:
        """StopUnit, and wait until it has ended; nothing for a unit that is not there."""
        try:
            self.job("StopUnit", ("s", unit), ("s", "replace"))
        except BusError as error:
            if error.name != NO_SUCH_UNIT:
                raise

    def reset_failed(self, unit: str) -> None:
        """ResetFailedUnit: a failed unit keeps its name taken."""
        try:
            self.order("ResetFailedUnit", ("s", unit))
        except BusError as error:
            if error.name != NO_SUCH_UNIT:
                raise

    def set_properties(self, unit: str, properties: Properties) -> None:
        """SetUnitProperties, until the unit ends."""
        self.order("SetUnitProperties", ("s", unit), ("b", True), ("a(sv)", properties))

    def attach(self, unit: str, below: str, pid: int) -> None:
        """AttachProcessesToUnit: move a process to a unit that is delegated, or to the cgroup ``below`` it."""
        self.order("AttachProcessesToUnit", ("s", unit), ("s", below), ("au", [pid]))

    def control_group(self) -> str:
        """The cgroup that the manager itself has, and below which its units are."""
        reply = self.call("Get", ("s", MANAGER.decode()), ("s", "ControlGroup"), target=(SERVICE, PATH, PROPERTIES))
        text = self.ffi.new("char[4096]")
        try:
            checked("ControlGroup", self.lib.pr_bus_enter(reply, b"v", b"s"))
            checked("ControlGroup", self.lib.pr_bus_read_text(reply, b"s", text, 4096))
        finally:
            self.lib.pr_bus_free(reply)
        return bytes(self.ffi.string(text)).decode("utf-8", "surrogateescape")


def checked(what: str, result: int) -> None:
    """Raises SysError for -errno."""
    if result < 0:
        raise SysError("systemd", what, -result)


def split(signature: str) -> list[str]:
    """The complete types of a signature: ``sa(sv)u`` -> ``s``, ``a(sv)``, ``u``."""
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
