#!/usr/bin/env python3
"""Generate both sides of the plan from ``plan.def``.

The C side is ``init/plan_ops.h``, ``init/handlers.h`` (prototypes) and ``init/handlers.c`` (their
table).  The Python side is ``pyrunc/plan/ops.py``.

Usage: ``gen_plan.py [--check]``. ``--check`` writes nothing and exits 1 if a committed copy is
stale.
"""

from __future__ import annotations

import pathlib
import sys
import zlib
from typing import NamedTuple

HERE = pathlib.Path(__file__).resolve().parent
TABLE = HERE / "plan.def"
C_OUT = HERE / "init" / "plan_ops.h"
PROTOTYPES_OUT = HERE / "init" / "handlers.h"
HANDLERS_OUT = HERE / "init" / "handlers.c"
PY_OUT = HERE.parent / "pyrunc" / "plan" / "ops.py"

NUMBERS, STRINGS = 8, 4  # slots of a step: struct plan_step in plan.h
WIDTH = {"u32": 1, "fd": 1, "i32": 1, "u64": 2, "str": 0, "list": 1, "blob": 1}
PY_TYPE = {"u32": "int", "fd": "int", "i32": "int", "u64": "int", "str": "str", "list": "list[str]", "blob": "bytes"}
PY_DEFAULT = {"u32": "0", "fd": "0", "i32": "0", "u64": "0", "str": '""', "list": "_NONE", "blob": 'b""'}


class Arg(NamedTuple):
    """One argument of an op; ``number`` and ``string`` are slot indexes, or -1."""

    name: str
    kind: str
    suffix: str
    number: int
    string: int


class Op(NamedTuple):
    """One row of the table."""

    code: int
    name: str
    section: str
    args: list[Arg]
    policy: list[str]
    doc: str


def parse(text: str) -> list[Op]:
    """Parse the table.  Raises SystemExit for a row that does not fit into a step."""
    ops: list[Op] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, section, args_text, policy, doc = (part.strip() for part in line.split("|", 4))
        args, number, string = [], 0, 0
        for item in args_text.split():
            arg_name, _, kind = item.partition(":")
            kind, _, suffix = kind.partition("@")
            wide = WIDTH[kind]
            has_string = kind in ("str", "list", "blob")
            args.append(Arg(arg_name, kind, suffix, number if wide else -1, string if has_string else -1))
            number += wide
            string += has_string
        if number > NUMBERS or string > STRINGS:
            raise SystemExit(f"{name}: {number} number and {string} string slots do not fit a step")
        ops.append(Op(len(ops) + 1, name, section, args, policy.split(), doc))
    return ops


def abi(text: str) -> int:
    """Return the ABI number in the header of a plan, which init compares with its own: a checksum of the rows."""
    rows = [line.split("|", 4)[:4] for line in text.splitlines() if "|" in line and not line.startswith("#")]
    return zlib.crc32(repr(rows).encode()) & 0x7FFFFFFF


def emit_c(ops: list[Op], number: int) -> str:
    """Return the C side: op codes, slot names, policy bits, and the table for the check of a
    plan."""
    out = [
        "/* generated from plan.def by gen_plan.py: do not edit */",
        "#ifndef PYRUNC_PLAN_OPS_H",
        "#define PYRUNC_PLAN_OPS_H",
        "",
        f"#define PLAN_ABI {number:#x}u",
        "",
        "enum plan_section { SEC_ENTER = 1, SEC_SETUP, SEC_FINISH, SEC_RUN };",
        "",
        "enum plan_op {",
        *(f"    OP_{op.name} = {op.code}," for op in ops),
        f"    OP_LAST = {len(ops)}",
        "};",
        "",
        "/* N_OP_arg: index into step.n[]; a u64 takes two slots, low half first.  S_OP_arg: index into step.s[].",
        "   L_OP_arg: the number slot with the item count of a list or the length of a blob. */",
        "enum plan_slot {",
    ]
    slots, bits = [], []
    for op in ops:
        for arg in op.args:
            if arg.string >= 0:
                slots.append(f"    S_{op.name}_{arg.name} = {arg.string},")
                if arg.number >= 0:
                    slots.append(f"    L_{op.name}_{arg.name} = {arg.number},")
            else:
                slots.append(f"    N_{op.name}_{arg.name} = {arg.number},")
        bits += [f"#define P_{op.name}_{bit} {1 << i:#x}u" for i, bit in enumerate(op.policy)]
    out += [*slots, "};", "", *bits, ""]
    out += [
        "enum plan_kind { KIND_NONE, KIND_STR, KIND_LIST, KIND_BLOB };",
        "",
        "struct plan_op_info {",
        "    const char *name;",
        "    unsigned char section;",
        "    unsigned char kind[4];  /* kind of each string slot */",
        "    unsigned char count[4]; /* number slot with its count or length */",
        "    unsigned short policy;  /* known bits */",
        "};",
        "",
        "static const struct plan_op_info plan_ops[OP_LAST + 1] = {",
    ]
    for op in ops:
        kinds, counts = ["KIND_NONE"] * STRINGS, ["0"] * STRINGS
        for arg in op.args:
            if arg.string >= 0:
                kinds[arg.string] = f"KIND_{arg.kind.upper()}"
                counts[arg.string] = str(max(arg.number, 0))
        mask = (1 << len(op.policy)) - 1
        body = f"{{{', '.join(kinds)}}}, {{{', '.join(counts)}}}, {mask:#x}"
        out.append(f'    [OP_{op.name}] = {{"{op.name}", SEC_{op.section}, {body}}},')
    out += ["};", "", "#endif"]
    return "\n".join(out) + "\n"


def emit_prototypes(ops: list[Op]) -> str:
    """Return the C prototypes: one handler per op."""
    out = [
        "/* generated from plan.def by gen_plan.py: do not edit */",
        "#ifndef PYRUNC_HANDLERS_H",
        "#define PYRUNC_HANDLERS_H",
        "",
        '#include "plan.h"',
        "",
        "struct init;",
        "",
        "typedef int handler(struct init *in, const struct plan_step *st);",
        "extern handler *const handlers[OP_LAST + 1];",
        "",
        *(f"int op_{op.name.lower()}(struct init *in, const struct plan_step *st);" for op in ops),
        "",
        "#endif",
    ]
    return "\n".join(out) + "\n"


def emit_handlers(ops: list[Op]) -> str:
    """Return the C table of handlers."""
    out = [
        "/* generated from plan.def by gen_plan.py: do not edit */",
        '#include "handlers.h"',
        "",
        "handler *const handlers[OP_LAST + 1] = {",
        *(f"    [OP_{op.name}] = op_{op.name.lower()}," for op in ops),
        "};",
    ]
    return "\n".join(out) + "\n"


def emit_method(op: Op) -> list[str]:
    """Return the builder method of one op."""
    params = "".join(f", {a.name}: {PY_TYPE[a.kind]} = {PY_DEFAULT[a.kind]}" for a in op.args)
    numbers, strings = [], []
    for a in op.args:
        if a.kind in ("u32", "i32", "fd"):
            numbers.append(f"{a.name} & 0xFFFFFFFF" if a.kind == "i32" else a.name)
        elif a.kind == "u64":
            numbers += [f"{a.name} & 0xFFFFFFFF", f"{a.name} >> 32"]
        elif a.number >= 0:
            numbers.append(f"len({a.name})")
        if a.string >= 0:
            strings.append(a.name)
    star = ", *" if params or op.policy else ""
    policy = ", policy: int = 0" if op.policy else ""
    tail = "," if len(numbers) == 1 else ""
    stail = "," if len(strings) == 1 else ""
    doc = op.doc.replace('"', "'").replace("\\", "")
    return [
        "",
        f"    def {op.name.lower()}(self, origin: str{star}{policy}{params}) -> None:",
        f'        """{doc[0].upper()}{doc[1:]}."""',
        "        self.origins.append(origin)",
        f"        self.steps.append(({op.code}, {'policy' if op.policy else '0'}, "
        f"({', '.join(numbers)}{tail}), ({', '.join(strings)}{stail})))",
    ]


def emit_py(ops: list[Op], number: int) -> str:
    """Return the Python side: constants, the table for show and errors, one builder method per
    op."""
    out = [
        "# ruff: noqa: E501",
        '"""The op table.  Generated from native/plan.def by native/gen_plan.py: do not edit."""',
        "",
        "from __future__ import annotations",
        "",
        f"ABI = {number:#x}",
        "_NONE: list[str] = []",
        "",
    ]
    out += [f"OP_{op.name} = {op.code}" for op in ops]
    out += [f"P_{op.name}_{bit} = {1 << i:#x}" for op in ops for i, bit in enumerate(op.policy)]
    out += [
        "",
        "# code -> (name, section, ((arg, kind, pointer suffix, number slot, string slot), ...), policy bit names)",
        "OPS: dict[int, tuple[str, str, tuple[tuple[str, str, str, int, int], ...], tuple[str, ...]]] = {",
    ]
    for op in ops:
        args = "".join(f'("{a.name}", "{a.kind}", "{a.suffix}", {a.number}, {a.string}), ' for a in op.args)
        bits = "".join(f'"{bit}", ' for bit in op.policy)
        out.append(f'    {op.code}: ("{op.name}", "{op.section}", ({args.rstrip()}), ({bits.rstrip()})),')
    out += [
        "}",
        "",
        "",
        "class Builder:",
        '    """The steps of a plan: (op, policy, numbers, strings), and the JSON pointer of each."""',
        "",
        '    __slots__ = ("origins", "steps")',
        "",
        "    def __init__(self) -> None:",
        "        self.steps: list[tuple[int, int, tuple[int, ...], tuple[object, ...]]] = []",
        "        self.origins: list[str] = []",
    ]
    for op in ops:
        out += emit_method(op)
    return "\n".join(out) + "\n"


def main(argv: list[str]) -> int:
    """Write the files, or with ``--check`` compare them."""
    text = TABLE.read_text(encoding="utf-8")
    ops, number = parse(text), abi(text)
    stale = []
    for path, content in (
        (C_OUT, emit_c(ops, number)),
        (PROTOTYPES_OUT, emit_prototypes(ops)),
        (HANDLERS_OUT, emit_handlers(ops)),
        (PY_OUT, emit_py(ops, number)),
    ):
        if path.exists() and path.read_text(encoding="utf-8") == content:
            continue
        stale.append(path.name)
        if "--check" not in argv:
            path.write_text(content, encoding="utf-8")
    if stale:
        print(("stale: " if "--check" in argv else "wrote: ") + " ".join(stale))
    return 1 if stale and "--check" in argv else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
