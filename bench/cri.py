"""A client of CRI, Kubernetes' interface to container engines, for what the benchmark calls.

A message is a dictionary by field number (k8s.io/cri-api, pkg/apis/runtime/v1/api.proto). crictl
would start a process for each call, which costs more than the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Union

from pyrunc.checkpoint.protobuf import BYTES, VARINT, read_value, read_varint, varint

Value = Union[int, str, "Message", list[str]]
Message = Mapping[int, Value]
Fields = dict[int, list[int | bytes]]
LIMIT = 60.0  # one call, seconds


def encode(message: Message) -> bytes:
    """Encode a message."""
    out = b""
    for number, value in message.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, int):
                out += varint(number << 3 | VARINT) + varint(one)
            else:
                data = one.encode() if isinstance(one, str) else encode(one)
                out += varint(number << 3 | BYTES) + varint(len(data)) + data
    return out


def decode(data: bytes) -> Fields:
    """The fields of a message: numbers, and contents of strings and messages. Raises ValueError for
    other types, and for a message that is cut off."""
    fields: Fields = {}
    at = 0
    while at < len(data):
        key, at = read_varint(data, at)
        if key & 7 not in (VARINT, BYTES):
            raise ValueError(f"field {key >> 3} has the type {key & 7}")
        value, at = read_value(data, at, key & 7)
        fields.setdefault(key >> 3, []).append(value)
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
