"""The part of the protocol buffers wire format that CRIU's messages use: varints and
length-delimited fields.

A table describes a message, which is a dict in Python. The decoder skips fields that the table
lacks, as protocol buffers require: a newer CRIU may send more.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Value = Any  # a field's is what its kind says; a kind has a recursive type
    Kind = Value  # "int", "bool", "text", or the table of a message; in a list: repeated
    Message = dict[str, tuple[int, Kind]]  # name -> (field number, kind)
    Fields = dict[str, Value]  # a message

VARINT, _FIXED64, BYTES, _FIXED32 = 0, 1, 2, 5
_MASK = 0xFFFFFFFFFFFFFFFF
_MOST_FIELD = (1 << 29) - 1  # of a field number


def encode(message: Message, values: Fields) -> bytes:
    """Encode ``values``; None is omitted. Raises KeyError for a field that the table lacks."""
    out = bytearray()
    for name, value in values.items():
        number, kind = message[name]
        if isinstance(kind, list):
            for item in value:
                _put(out, number, kind[0], item)
        elif value is not None:
            _put(out, number, kind, value)
    return bytes(out)


def _put(out: bytearray, number: int, kind: Kind, value: Value) -> None:
    """Append one field."""
    if kind in ("int", "bool"):
        out += varint(number << 3 | VARINT) + varint(int(value) & _MASK)  # a negative int32 has 64 bits
        return
    data = value.encode("utf-8", "surrogateescape") if kind == "text" else encode(kind, value)
    out += varint(number << 3 | BYTES) + varint(len(data)) + data


def varint(value: int) -> bytes:
    """A number that is not negative: seven bits per byte, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def decode(message: Message, data: bytes) -> Fields:
    """Decode the present fields; the last value wins, a repeated field is a list. Raises ValueError
    if malformed."""
    known = {number: (name, kind) for name, (number, kind) in message.items()}
    out: Fields = {}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        if not 0 < number <= _MOST_FIELD:
            raise ValueError(f"field number {number}")
        value, at = read_value(data, at, wire)
        name, kind = known.get(number, ("", None))
        if not name:
            continue
        repeated = isinstance(kind, list)
        item = _value(name, kind[0] if repeated else kind, wire, value)
        if repeated:
            out.setdefault(name, []).append(item)
        else:
            out[name] = item
    return out


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a varint; returns it and the position after it. Raises ValueError."""
    value = shift = 0
    while True:
        if at >= len(data):
            raise ValueError("it ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & _MASK, at
        shift += 7
        if shift >= 70:
            raise ValueError("a number of more than ten bytes")


def read_value(data: bytes, at: int, wire: int) -> tuple[int | bytes, int]:
    """Read the value that follows a key; returns it and the position after it. Raises ValueError."""
    if wire == VARINT:
        return read_varint(data, at)
    if wire == BYTES:
        size, at = read_varint(data, at)
    elif wire in (_FIXED64, _FIXED32):
        size = 8 if wire == _FIXED64 else 4
    else:
        raise ValueError(f"wire type {wire}")
    if size > len(data) - at:
        raise ValueError("it ends within a field")
    return data[at : at + size], at + size


def _value(name: str, kind: Kind, wire: int, raw: int | bytes) -> Value:
    """Convert a field's value according to its kind."""
    if wire != (VARINT if kind in ("int", "bool") else BYTES):
        raise ValueError(f"{name} has wire type {wire}")
    if isinstance(raw, int):
        if kind == "bool":
            return raw != 0
        return raw - (1 << 64) if raw >> 63 else raw
    if kind == "text":
        return raw.decode("utf-8", "surrogateescape")
    return decode(kind, raw)
