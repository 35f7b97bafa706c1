"""A client of CRI, Kubernetes' interface to container engines, for what the benchmark calls.

A message is a dictionary by field number (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto). crictl
would start a process for each call, which costs more than the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Union

Value = Union[int, str, "Message", list[str]]
Message = Mapping[int, Value]
Fields = dict[int, list[int | bytes]]
LIMIT = 60.0  # one call, seconds


def varint(value: int) -> bytes:
    """A number as protobuf encodes it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(message: Message) -> bytes:
    """Encode a message."""
    out = b""
    for number, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                out += varint(number << 3) + varint(one)
            else:
                data = one.encode() if isinstance(one, str) else encode(one)
                out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def decode(data: bytes) -> Fields:
    """The fields of a message: numbers, and contents of strings and messages. Raises ValueError for
    other types."""
    fields: Fields = {}
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    while at < len(data):
        key = number()
        if key & 7 == 0:
            fields.setdefault(key >> 3, []).append(number())
        elif key & 7 == 2:
            size = number()
            fields.setdefault(key >> 3, []).append(data[at : at + size])
            at += size
        else:
            raise ValueError(f"field {key >> 3} has the type {key & 7}")
    return fields


class Client:
    """A connection to an engine's socket."""

    def __init__(self, socket: Path) -> None:
        # Here, so that the encoding can be tested without the packages of the benchmark.
        import grpc

        # The default authority is the path, which Go's server refuses.
        options = [("grpc.default_authority", "localhost")]
        self.channel = grpc.insecure_channel(f"unix:{socket}", options=options)

    def call(self, method: str, request: Message) -> Fields:
        """Call a method of the runtime service. Raises grpc.RpcError."""
        path = f"/runtime.v1.RuntimeService/{method}"
        answer: bytes = self.channel.unary_unary(path)(encode(request), timeout=LIMIT)
        return decode(answer)

    def text(self, method: str, request: Message) -> str:
        """The first field of an answer, a string."""
        value = self.call(method, request)[1][0]
        assert isinstance(value, bytes)
        return value.decode()
