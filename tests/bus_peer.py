"""A small D-Bus peer on a unix socket: systemd's manager as far as pyrunc uses it.

The test provides its answers: ``replies`` maps a method to its successive results, of which the
last repeats: a list of values, an `Error`, None to hang up, or a function that gets the arguments
and returns one of these. ``calls`` records (method, arguments).
"""

from __future__ import annotations

import ctypes
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyrunc.cgroup import bus
from pyrunc.cgroup.bus import split

JOB = "/org/freedesktop/systemd1/job/7"
ALIGN = {"y": 1, "g": 1, "v": 1, "n": 2, "q": 2, "x": 8, "t": 8, "d": 8, "(": 8, "{": 8}
FORMAT = {"y": "B", "n": "h", "q": "H", "i": "i", "u": "I", "b": "I", "x": "q", "t": "Q", "d": "d"}

INFINITY = (1 << 64) - 1  # of a limit

# GVariant text -> (signature, value)
GVARIANT = [
    ("5", ("i", 5)),
    ("-0x1f", ("i", -31)),
    ("uint64 123", ("t", 123)),
    ("@t 5", ("t", 5)),
    ("byte 7", ("y", 7)),
    ("1.5", ("d", 1.5)),
    ("double 3", ("d", 3.0)),
    ("true", ("b", True)),
    ("'it\\'s\\n\\u0041'", ("s", "it's\nA")),
    ('"x"', ("s", "x")),
    ("objectpath '/a'", ("o", "/a")),
    ("b'ab'", ("ay", b"ab\0")),
    ("['a', 'b']", ("as", ["a", "b"])),
    ("[uint32 1, 2]", ("au", [1, 2])),
    ("@as []", ("as", [])),
    ("('a', uint64 5)", ("(st)", ("a", 5))),
    ("[('/dev/null', 'rw')]", ("a(ss)", [("/dev/null", "rw")])),
    ("{'a': <5>}", ("a{sv}", {"a": ("i", 5)})),
    ("<'a'>", ("v", ("s", "a"))),
]


class Error(Exception):
    """An error reply: D-Bus's name of it, and words."""

    def __init__(self, name: str, words: str = "") -> None:
        super().__init__(name, words)
        self.name, self.words = name, words


class Reader:
    """D-Bus's wire format, little endian."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def align(self, kind: str) -> None:
        size = ALIGN.get(kind[0], 4)
        self.at = -(-self.at // size) * size

    def bytes(self, count: int) -> bytes:
        self.at += count
        return self.data[self.at - count : self.at]

    def value(self, kind: str) -> Any:
        self.align(kind)
        if kind in FORMAT:
            size = struct.calcsize(FORMAT[kind])
            number = struct.unpack("<" + FORMAT[kind], self.bytes(size))[0]
            return bool(number) if kind == "b" else number
        if kind in "sog":
            text = self.bytes(self.value("y" if kind == "g" else "u")).decode()
            self.at += 1
            return text
        if kind == "v":
            inner = self.value("g")
            return inner, self.value(inner)
        if kind[0] == "a":
            size = self.value("u")
            self.align(kind[1])
            end, items = self.at + size, []
            while self.at < end:
                items.append(self.value(kind[1:]))
            return bytes(items) if kind == "ay" else items
        return tuple(self.value(part) for part in split(kind[1:-1]))


class Writer:
    """The same, the other way."""

    def __init__(self) -> None:
        self.data = b""

    def align(self, kind: str) -> None:
        self.data += b"\0" * (-len(self.data) % ALIGN.get(kind[0], 4))

    def value(self, kind: str, value: Any) -> None:
        self.align(kind)
        if kind in FORMAT:
            self.data += struct.pack("<" + FORMAT[kind], value)
        elif kind in "sog":
            raw = value.encode()
            self.data += struct.pack("<B" if kind == "g" else "<I", len(raw)) + raw + b"\0"
        elif kind == "v":
            self.value("g", value[0])
            self.value(*value)
        elif kind[0] == "a":
            inner = Writer()
            self.data += b"\0\0\0\0"
            at = len(self.data)
            self.align(kind[1])
            inner.data = b"\0" * (len(self.data) % 8)  # keeps the alignment of the whole
            skip = len(inner.data)
            for item in value:
                inner.value(kind[1:], item)
            self.data = self.data[: at - 4] + struct.pack("<I", len(inner.data) - skip) + self.data[at:]
            self.data += inner.data[skip:]
        else:
            for part, item in zip(split(kind[1:-1]), value, strict=True):
                self.value(part, item)


def message(kind: int, fields: list[tuple[int, tuple[str, Any]]], signature: str, values: list[Any]) -> bytes:
    """A whole message: kind 2 a reply, 3 an error, 4 a signal."""
    body = Writer()
    for part, value in zip(split(signature), values, strict=True):
        body.value(part, value)
    head = Writer()
    head.data = struct.pack("<4B", ord("l"), kind, 1, 1)
    head.value("u", len(body.data))
    head.value("u", 99)
    head.value("a(yv)", [*fields, *([(8, ("g", signature))] if signature else [])])
    head.align("x")
    return head.data + body.data


class Peer:
    """Listens at ``path``; `close` when done."""

    def __init__(self, path: Path) -> None:
        self.calls: list[tuple[str, list[Any]]] = []
        self.replies: dict[str, list[Any]] = {
            "StartTransientUnit": [[("o", JOB)]],
            "StopUnit": [[("o", JOB)]],
            "ControlGroup": [[]],
        }
        self.connection: socket.socket | None = None
        self.result = "done"  # of every job; "" for one that never ends
        path.parent.mkdir(parents=True, exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(4)
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        if self.connection is not None:
            try:
                self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # it has ended
        self.listener.close()
        self.thread.join(10)

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connection = connection.dup()
            with connection, self.connection:
                try:
                    self.converse(connection)
                except (EOFError, OSError):
                    pass

    def converse(self, connection: socket.socket) -> None:
        """Authentication (D-Bus specification, SASL), then messages."""
        stream = connection.makefile("rb")
        assert stream.read(1) == b"\0"
        answers = {b"AUTH": b"OK 0123456789abcdef0123456789abcdef", b"DATA": b"OK 0123456789abcdef0123456789abcdef"}
        answers[b"NEGOTIATE_UNIX_FD"] = b"AGREE_UNIX_FD"
        while True:
            line = stream.readline().strip()
            word = line.split(b" ")[0]
            if word == b"BEGIN":
                break
            if not word:
                raise EOFError
            connection.sendall((b"DATA" if line == b"AUTH EXTERNAL" else answers[word]) + b"\r\n")
        while True:
            start = stream.read(16)
            if len(start) < 16:
                raise EOFError
            body_size, serial, fields_size = struct.unpack("<III", start[4:])
            rest = stream.read(-(-fields_size // 8) * 8 + body_size)
            reader = Reader(start + rest)
            reader.at = 12
            fields = {code: value[1] for code, value in reader.value("a(yv)")}
            reader.align("x")
            body = Reader(reader.data[reader.at :])
            self.answer(connection, serial, fields[3], [body.value(kind) for kind in split(fields.get(8, ""))])

    def answer(self, connection: socket.socket, serial: int, member: str, arguments: list[Any]) -> None:
        self.calls.append((member, arguments))
        planned = self.replies.get(member, [[]])
        reply = planned.pop(0) if len(planned) > 1 else planned[0]
        if callable(reply):
            reply = reply(*arguments)
        if reply is None:
            raise EOFError  # hang up
        to = [(5, ("u", serial))]
        if isinstance(reply, Error):
            connection.sendall(message(3, [*to, (4, ("s", reply.name))], "s", [reply.words]))
            return
        signature = "".join(kind for kind, _ in reply)
        connection.sendall(message(2, to, signature, [value for _, value in reply]))
        if reply == [("o", JOB)] and self.result:
            where = [(1, ("o", "/org/freedesktop/systemd1")), (2, ("s", "org.freedesktop.systemd1.Manager"))]
            other = [1, JOB + "1", "other.scope", "failed"]
            for values in (other, [7, JOB, arguments[0], self.result]):
                connection.sendall(message(4, [*where, (3, ("s", "JobRemoved"))], "uoss", values))


@pytest.fixture
def peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Peer]:
    try:
        ctypes.CDLL("libsystemd.so.0")
    except OSError:
        pytest.skip("libsystemd is not installed")
    pytest.importorskip("pyrunc._shim", reason="the extension is not built")
    made = Peer(tmp_path / "private")
    monkeypatch.setattr(bus, "PRIVATE", str(tmp_path / "private"))
    yield made
    made.close()
