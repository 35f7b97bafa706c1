"""Generate the documents: positions in the schema, and the content put there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pyrunc.spec import load, schema

MANY = 100_000
HERE = "@here@"

# Texts that pass as many checks as possible, by the last part of the pointer; {} is a number.
TEXTS = {
    "env": "V{}=x", "args": "a{}", "cwd": "/", "path": "/bin/true{}", "destination": "/mnt/{}", "source": "tmpfs",
    "options": "nosuid", "names": "read", "access": "rwm", "pageSize": "{}MB", "name": "name{}", "cpus": "0",
    "mems": "0", "nodes": "0", "initial": "0", "final": "0", "schemata": "L3:{}=f",
    "bounding": "CAP_KILL", "effective": "CAP_KILL",
    "permitted": "CAP_KILL", "inheritable": "CAP_KILL", "ambient": "CAP_KILL", "maskedPaths": "/proc/{}",
    "readonlyPaths": "/proc/{}", "sysctl": "1", "unified": "max", "ociVersion": "1.0.0", "mounts/type": "tmpfs",
    "devices/path": "/dev/d{}", "namespaces/path": "", "flags": "f{}", "l3CacheSchema": "L3:0=f",
    "memBwSchema": "MB:0=10",
}  # fmt: skip
KEYS = {"sysctl": "net.ipv4.k{}", "unified": "memory.k{}", "netDevices": "eth{}", "rdma": "mlx{}"}
# Patterns that fill 16 MiB with one text.
FILLINGS = {
    "letters": "a", "path": "/a", "long-names": "/" + "a" * 250, "dots": "a.", "climb": "../", "slashes": "/",
    "ranges": "0-9,", "digits": "9", "pairs": "a=b,", "colons": "a:", "dashes": "a-", "lines": "a\\n",
    "empty-lines": "\\n",     "blanks": "a ", "only-blanks": " ",
    "escapes": "\\u00e9", "wide": "é", "astral": "\\ud83d\\ude00", "nul": "\\u0000",
    "surrogates": "\\udcff", "control": "\\u0001", "quotes": '\\"', "percent": "%d",
    "equals": "=", "brackets": "[{(<",
}  # fmt: skip


class Case(NamedTuple):
    """One document: the position, the number of items, and the text."""

    pointer: str
    shape: str
    items: int
    build: Callable[[], bytes]

    @property
    def name(self) -> str:
        return f"{self.pointer} {self.shape}"


class Place(NamedTuple):
    """A field: its pointer (``*`` for indexes and free keys) and node."""

    pointer: str
    node: Any


def places(node: Any = schema.CONFIG, pointer: str = "") -> list[Place]:
    """Every position of a document, including the document itself."""
    return [Place(pointer, node), *(Place(where, child) for where, child in walk(node, pointer))]


def walk(node: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    """All nested positions, including items of arrays and maps (`schema.fields` omits those)."""
    inner = node[1].items() if node[0] == "object" else [("*", node[1])] if node[0] in ("array", "map") else []
    for step, child in inner:
        yield f"{pointer}/{step}", child
        yield from walk(child, f"{pointer}/{step}")


def valid(node: Any, pointer: str, number: int = 0) -> Any:
    """A valid, minimal value; different for each number."""
    kind = node[0]
    if kind == "object":
        wanted = [*node[2], *(name for name in ("type", "options", "access", "major", "minor") if name in node[1])]
        return {name: valid(node[1][name], f"{pointer}/{name}", number) for name in wanted}
    if kind in ("array", "map"):
        item = valid(node[1], f"{pointer}/*", number)
        return [item] if kind == "array" else {KEYS.get(last(pointer), "key{}").format(number): item}
    if kind == "string":
        if node[1] is not None:
            return node[1][number % len(node[1])]
        parts = [part for part in pointer.split("/") if part and part != "*"]
        text = TEXTS.get("/".join(parts[-2:]), TEXTS.get(parts[-1] if parts else "", "x{}"))
        return text.format(number)
    if kind == "boolean":
        return False
    return min(max(node[1], number % 1000), node[2])


def values(document: Any) -> int:
    """The number of values in a document, as the reader counts them."""
    inner = document.values() if isinstance(document, dict) else document if isinstance(document, list) else ()
    return 1 + sum(map(values, inner))


def last(pointer: str) -> str:
    """The last name of a pointer."""
    return next((part for part in reversed(pointer.split("/")) if part not in ("", "*")), "")


class Documents:
    """All documents for a schema node; ``base`` is a document that works."""

    def __init__(self, base: dict[str, Any], node: Any, colliding: list[str]) -> None:
        self.base, self.node, self.colliding = base, node, colliding

    def frame(self, place: Place) -> tuple[bytes, bytes]:
        """The base document around a position; missing parents are created."""
        here, node, at = [json.loads(json.dumps(self.base))], self.node, 0
        steps, holder, pointer = [step for step in place.pointer.split("/")[1:] if step], here, ""
        for step in steps:
            value = holder[at]
            if step == "*":
                node = node[1]
                at = len(value) if node is not None and isinstance(value, list) else "key"  # type: ignore[assignment]
                if isinstance(value, list):
                    value.append(None)
            else:
                node, at = node[1][step], step  # type: ignore[assignment]
            pointer += f"/{step}"
            holder = value
            if isinstance(holder, list) or at not in holder:
                holder[at] = [] if node[0] == "array" else {} if node[0] == "map" else valid(node, pointer)
        holder[at] = HERE
        head, _, tail = json.dumps(here[0]).encode().partition(json.dumps(HERE).encode())
        return head, tail

    def cases(self) -> Iterator[Case]:
        """Documents for every position."""
        for place in places(self.node):
            kind = place.node[0]
            shapes = [
                *self.anywhere(),
                *{"array": self.lists, "map": self.maps, "object": self.objects}.get(kind, nothing)(place),
            ]
            if kind == "string":
                shapes += self.texts()
            for shape, items, content in shapes:
                yield Case(place.pointer or "/", shape, items, self.builder(place, content))

    def builder(self, place: Place, content: Callable[[int], str]) -> Callable[[], bytes]:
        def build() -> bytes:
            head, tail = self.frame(place)
            return head + content(load.MAX_BYTES - len(head) - len(tail) - 64).encode() + tail

        return build

    def anywhere(self) -> Iterator[tuple[str, int, Callable[[int], str]]]:
        """Values that can replace any value."""
        yield "deep arrays", 1, lambda room: "[" * min(MANY, room // 2) + "]" * min(MANY, room // 2)
        yield "deep objects", 1, lambda room: '{"a":' * MANY + "1" + "}" * MANY
        yield "long number", 1, lambda room: "9" * 4300
        yield "longer number", 1, lambda room: "9" * room

    def lists(self, place: Place) -> Iterator[tuple[str, int, Callable[[int], str]]]:
        node, pointer = place.node[1], place.pointer

        def item(number: int) -> str:
            return json.dumps(valid(node, f"{pointer}/*", number), separators=(",", ":"))

        most = (load.MAX_VALUES - 1000) // values(valid(node, pointer))

        def full(room: int) -> str:
            return "[" + ",".join(item(number) for number in range(min(room // (len(item(MANY)) + 6), most))) + "]"

        if last(pointer) == "env":
            names = ",".join(f'"{name}="' for name in self.colliding)
            yield "colliding names", len(self.colliding), lambda room: f"[{names}]"
        yield "many items", MANY, lambda room: "[" + ",".join(map(item, range(min(MANY, most)))) + "]"
        yield "one item many times", MANY, lambda room: "[" + ",".join([item(0)] * min(MANY, most)) + "]"
        yield "full of items", 500_000, full
        yield "full of numbers", 500_000, lambda room: "[" + "0," * (load.MAX_VALUES - 1000) + "0]"
        yield "full of empty texts", 500_000, lambda room: "[" + '"",' * (load.MAX_VALUES - 1000) + '""]'
        yield "full of null", 500_000, lambda room: "[" + "null," * (load.MAX_VALUES - 1000) + "null]"
        yield "full of objects", 500_000, lambda room: "[" + "{}," * (load.MAX_VALUES - 1000) + "{}]"
        yield "full of more", 5_000_000, lambda room: "[" + "{}," * (room // 3 - 1) + "{}]"
        yield "full of arrays", 500_000, lambda room: "[" + '[""],' * (load.MAX_VALUES // 2 - 1000) + "[]]"

    def maps(self, place: Place) -> Iterator[tuple[str, int, Callable[[int], str]]]:
        node, name = place.node[1], KEYS.get(last(place.pointer), "key{}")
        value = json.dumps(valid(node, f"{place.pointer}/*"), separators=(",", ":"))

        def of(keys: list[str], value: str = value) -> str:
            return "{" + ",".join(f'"{key}":{value}' for key in keys) + "}"

        def full(room: int) -> str:
            return of([f"{number:x}" for number in range(min(room // (len(value) + 10), 450_000))])

        yield "many keys", MANY, lambda room: of([name.format(number) for number in range(MANY)])
        yield "full of keys", 450_000, full
        yield "colliding keys", len(self.colliding), lambda room: of(self.colliding)
        yield "one key many times", MANY, lambda room: of([name.format(0)] * MANY)
        yield "keys with NUL", MANY, lambda room: of([f"\\u0000{number}" for number in range(MANY)])
        yield "wrong values", MANY, lambda room: of([name.format(number) for number in range(MANY)], "7")
        yield "long key", 1, lambda room: of(["k" * (room - len(value) - 10)])
        yield "long key, wrong value", 1, lambda room: of(["k" * (room - 10)], "[]")
        yield (
            "long keys",
            16,
            lambda room: of([f"{number:x}" + "/" * (room // 16 - len(value) - 10) for number in range(16)]),
        )

    def objects(self, place: Place) -> Iterator[tuple[str, int, Callable[[int], str]]]:
        fields = json.dumps(valid(place.node, place.pointer), separators=(",", ":"))[1:-1]

        def of(keys: list[str], value: str = "1") -> str:
            return "{" + ",".join([*([fields] if fields else []), *(f'"{key}":{value}' for key in keys)]) + "}"

        yield "unknown members", MANY, lambda room: of([f"x{number}" for number in range(MANY)])
        yield "colliding members", len(self.colliding), lambda room: of(self.colliding)
        yield "duplicate members", MANY, lambda room: of(["x"] * MANY)
        yield "members with NUL", MANY, lambda room: of([f"\\u0000{number}" for number in range(MANY)])
        yield "null members", MANY, lambda room: of([f"x{number}" for number in range(MANY)], "null")

    def texts(self) -> Iterator[tuple[str, int, Callable[[int], str]]]:
        for name, filling in FILLINGS.items():
            yield (
                f"text of {name}",
                1,
                lambda room, filling=filling: (  # type: ignore[misc]
                    '"' + filling * ((room - 2) // len(filling.encode())) + '"'
                ),
            )


def nothing(place: Place) -> Iterator[tuple[str, int, Callable[[int], str]]]:
    """No shapes."""
    return iter(())
