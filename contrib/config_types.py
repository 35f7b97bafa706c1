#!/usr/bin/env python3
"""Write pyrunc/spec/types.py, the types of config.json, from pyrunc/spec/schema.py; with
``--check`` only compare.

    .venv/bin/python contrib/config_types.py

Every object of the schema becomes a TypedDict, every set of allowed strings a Literal. A node that
occurs at several places is one type, whose docstring names the first of them.
"""

from __future__ import annotations

import keyword
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUTPUT = HERE.parent / "pyrunc" / "spec" / "types.py"
sys.path.insert(0, str(HERE.parent))

from pyrunc.spec import schema  # noqa: E402

HEAD = '''"""Types of config.json (runtime-spec 1.3.0).  Only type checkers import this module.

Written by contrib/config_types.py from pyrunc/spec/schema.py; do not edit.
"""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict'''

# Pointer -> name, if the last word of the pointer is not a good name.
NAMES = {
    "": "Config",
    "/mounts/*/uidMappings/*": "IdMapping",
    "/process/execCPUAffinity": "CpuAffinity",
    "/hooks/prestart/*": "Hook",
    "/linux/timeOffsets/boottime": "TimeOffset",
    "/linux/netDevices/*": "NetDevice",
    "/linux/resources/devices/*": "DeviceRule",
    "/linux/resources/blockIO/weightDevice/*": "WeightDevice",
    "/linux/resources/blockIO/throttleReadBpsDevice/*": "ThrottleDevice",
    "/linux/resources/network/priorities/*": "InterfacePriority",
    "/linux/resources/rdma/*": "RdmaLimits",
    "/linux/rootfsPropagation": "RootfsPropagation",
    "/linux/seccomp/defaultAction": "SeccompAction",
    "/linux/seccomp/architectures/*": "SeccompArch",
    "/linux/seccomp/syscalls/*": "SyscallRule",
    "/linux/seccomp/syscalls/*/args/*": "SyscallArg",
}


class Writer:
    """The definitions so far, ordered so that each precedes its first use."""

    def __init__(self) -> None:
        self.names: dict[int, str] = {}  # id() of a node -> its type
        self.out: list[str] = []

    def type(self, node: schema.Node, pointer: str, owner: str) -> str:
        """The type of a node as text; ``owner`` is the class that contains it as a field."""
        kind = node[0]
        if kind in ("integer", "boolean"):
            return "int" if kind == "integer" else "bool"
        if kind == "array":
            return f"list[{self.type(node[1], f'{pointer}/*', owner)}]"
        if kind == "map":
            return f"dict[str, {self.type(node[1], f'{pointer}/*', owner)}]"
        if kind == "string" and node[1] is None:
            return "str"
        if id(node) not in self.names:
            name = self.name(pointer, owner if kind == "string" else "")
            self.names[id(node)] = name
            if kind == "string":
                self.literal(name, node[1])
            else:
                self.typed_dict(name, node, pointer)
        return self.names[id(node)]

    def name(self, pointer: str, owner: str) -> str:
        """The name of a type. Raises SystemExit if two types would share a name."""
        found = NAMES.get(pointer)
        if found is None:
            word = pointer.removesuffix("/*").rpartition("/")[2]
            if pointer.endswith("/*"):
                word = word.removesuffix("s")
            found = owner + word[:1].upper() + word[1:]
        if found in self.names.values():
            raise SystemExit(f"{pointer}: a second type {found}: give it a name in NAMES")
        return found

    def literal(self, name: str, values: tuple[str, ...]) -> None:
        """An alias for a set of strings."""
        line = f"{name} = Literal[{', '.join(quoted(value) for value in values)}]"
        if len(line) > 120:
            line = f"{name} = Literal[\n" + "".join(f"    {quoted(value)},\n" for value in values) + "]"
        self.out.append(line)

    def typed_dict(self, name: str, node: schema.Node, pointer: str) -> None:
        """A class, or a call if a key is a keyword of Python."""
        fields = []
        for key, child in node[1].items():
            text = self.type(child, f"{pointer}/{key}", name)
            fields.append((key, text if key in node[2] else f"NotRequired[{text}]"))
        where = f"config.json {pointer}".rstrip()
        if any(keyword.iskeyword(key) for key, _ in fields):
            items = ", ".join(f"{quoted(key)}: {text}" for key, text in fields)
            self.out.append(f"# {where}\n{name} = TypedDict({quoted(name)}, {{{items}}})")
        else:
            lines = "".join(f"    {key}: {text}\n" for key, text in fields)
            self.out.append(f'class {name}(TypedDict):\n    """{where}."""\n\n{lines}'.rstrip())


def quoted(text: str) -> str:
    """A string constant in ruff's format."""
    return f'"{text}"'


def generate() -> str:
    """The text of the module."""
    writer = Writer()
    writer.type(schema.CONFIG, "", "")
    if unused := set(NAMES.values()) - set(writer.names.values()):
        raise SystemExit(f"NAMES has types that the schema does not have: {sorted(unused)}")
    text, alias = HEAD, False
    for item in writer.out:
        text += ("\n" if alias and not item.startswith("class") else "\n\n\n") + item
        alias = not item.startswith("class")
    return text + "\n"


def main(argv: list[str]) -> int:
    """Write the module, or compare it with ``--check``."""
    text = generate()
    if OUTPUT.exists() and OUTPUT.read_text(encoding="utf-8") == text:
        return 0
    print(("stale: " if "--check" in argv else "wrote: ") + OUTPUT.name)
    if "--check" in argv:
        return 1
    OUTPUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
