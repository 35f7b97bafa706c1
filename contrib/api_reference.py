#!/usr/bin/env python3
"""Write docs/api.md, the reference of the Python API, from its docstrings; with ``--check`` only
compare.

.venv/bin/python contrib/api_reference.py
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
API = HERE.parent / "pyrunc" / "api"
OUTPUT = HERE.parent / "docs" / "api.md"

HEAD = """\
# Python API

<!-- Written by contrib/api_reference.py from the docstrings of pyrunc/api; do not edit. -->

```python
import pyrunc

runtime = pyrunc.Runtime()
with runtime.run("bundle", "demo") as container:
    done = container.call(["/bin/hostname"], timeout=5)
    print(done.returncode, done.stdout)
```

`import pyrunc` provides all of the names below. They do what the [verbs](../README.md#verbs) do, with
the same code and on the same state, in the calling process, which needs the same privileges as the
command line. `pip install .` installs everything. Times are in seconds, sizes in bytes. A `Path` is a
`str` or an `os.PathLike`; a `Stream` is a descriptor, an open file or one of the constants below.
Sections refer to [runtime-spec](https://github.com/opencontainers/runtime-spec).
[ADR 26](adr/0026-python-api.md) defines what the API guarantees to the calling program.
"""

# Heading, introduction of the section, and the names in it.
SECTIONS = (
    ("Containers", "", ("Runtime", "CreateOptions", "Container", "ExecOptions", "Process", "Completed")),
    ("Streams", "The stdin, stdout or stderr of a program:", ("PIPE", "STDOUT", "DEVNULL", "INHERIT")),
    (
        "State and statistics",
        "Types without a name in `pyrunc` itself are in `pyrunc.api.types`.",
        ("State", "Event", "Stats", "CpuStats", "CpuUsage", "Throttling", "MemoryStats", "MemoryEntry", "PidsStats",
         "Pressures", "Pressure", "Resources", "CpuResources", "MemoryResources", "PidsResources"),
    ),
    ("Configurations", "These change nothing and need no privileges.", ("plan", "Plan", "Step", "Argument",
                                                                        "validate", "Problems", "Problem")),
    (
        "Errors",
        "Every expected failure raises a `PyruncError`, whose text is the line that the command line prints. A"
        " timeout raises the built-in `TimeoutError`.",
        ("PyruncError", "ConfigError", "SysError", "StateError", "NotFound", "Busy", "Damaged", "UsageError",
         "ProgramFailed"),
    ),
    ("asyncio", "", ("AsyncRuntime", "AsyncContainer", "AsyncProcess")),
)  # fmt: skip

Definition = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def public() -> list[str]:
    """The names of the API, from pyrunc/api/__init__.py."""
    tree = ast.parse((API / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    raise SystemExit("api_reference: pyrunc/api/__init__.py has no __all__")


def definitions() -> dict[str, tuple[ast.stmt, str]]:
    """Every definition of the API's modules, with its docstring; for a constant, the string
    after it."""
    found: dict[str, tuple[ast.stmt, str]] = {}
    for path in (*sorted(API.glob("*.py")), API.parent / "errors.py"):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for node, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, Definition):
                found.setdefault(node.name, (node, ast.get_docstring(node) or ""))
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, (node, text_of(following)))
    return found


def text_of(node: ast.stmt | None) -> str:
    """The string, if a statement consists of one."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return node.value.value
    return ""


def prose(docstring: str) -> list[str]:
    """A docstring as Markdown: literals in single backquotes, references as links, examples in a
    block."""
    lines: list[str] = []
    example = False
    for line in textwrap.dedent(docstring).strip().splitlines():
        if line.startswith(">>>") and not example:
            lines.append("```pycon")
            example = True
        elif example and not line.strip():
            lines.append("```")
            example = False
        lines.append(line if example else marked(line))
    return [*lines, "```"] if example else lines


def marked(line: str) -> str:
    """One line that is not an example."""
    line = re.sub(r"``(.+?)``", lambda match: f"\0{match[1]}\0", line).replace(".  ", ". ")
    line = re.sub(r"`(\w+)(?:\.(\w+))?`", reference, line)
    return line.replace("\0", "`")


def reference(match: re.Match[str]) -> str:
    """`Name` or `Name.method` as a link, if this document contains it."""
    name, method = match[1], match[2]
    if name not in NAMES:
        return match[0]
    return link(f"{name}.{method}" if method else name)


def link(title: str) -> str:
    """A link to a heading of this document: anchors are in lower case, and equal ones are
    numbered."""
    return f"[`{title}`](#{'plan-1' if title == 'Plan' else title.replace('.', '').lower()})"


def signature(node: ast.FunctionDef | ast.AsyncFunctionDef, owner: str = "") -> str:
    """``create(bundle: Path, id: str, **options: Unpack[CreateOptions]) -> Container``."""
    arguments = ast.unparse(ast.arguments(**vars(node.args)))
    arguments = re.sub(r"^(self|cls)(, )?", "", arguments)
    arguments = re.sub(r"(: [^()=]+?)=", r"\1 = ", arguments).replace("''", '""').replace("'", '"')
    result = f" -> {ast.unparse(node.returns)}" if node.returns is not None and node.name != "__init__" else ""
    name = owner if node.name == "__init__" else f"{owner}.{node.name}" if owner else node.name
    prefix = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return re.sub(r"\b(builtins|documents)\.", "", f"{prefix}{name}({arguments}){result}")


def folded(text: str) -> list[str]:
    """A signature, one parameter per line if it is long."""
    if len(text) <= 100:
        return [text]
    head, _, rest = text.partition("(")
    inside, _, tail = rest.rpartition(")")
    parts, depth, start = [], 0, 0
    for at, char in enumerate(inside):
        depth += (char in "([{") - (char in ")]}")
        if char == "," and depth == 0:
            parts.append(inside[start : at + 1].strip())
            start = at + 1
    return [f"{head}(", *(f"    {part}" for part in [*parts, inside[start:].strip() + ","]), f"){tail}"]


def entry(name: str, node: ast.stmt, docstring: str) -> Iterator[str]:
    """One name of the API."""
    yield f"### {name}"
    yield ""
    if isinstance(node, ast.ClassDef):
        yield from class_entry(node, docstring)
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        yield from ("```python", *folded(signature(node)), "```", "")
    elif isinstance(node, ast.Assign):
        yield from ("```python", ast.unparse(node), "```", "")
    yield from prose(docstring)
    yield ""


def class_entry(node: ast.ClassDef, docstring: str) -> Iterator[str]:
    """A class: its constructor or fields, and its methods."""
    bases = ", ".join(name for base in node.bases if (name := ast.unparse(base)) in NAMES | {"TypedDict"})
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign) and not private(item.target)]
    if bases != "TypedDict" and not node.decorator_list:
        fields = []
    made = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    yield "```python"
    if fields:
        yield f"class {node.name}" + (f"({bases})" if bases else "")
        yield from (f"    {ast.unparse(item)}" for item in fields)
    elif made is not None and node.name in MADE_BY_CALLERS:
        yield from folded(f"class {signature(made, node.name)}")
    else:
        yield f"class {node.name}" + (f"({bases})" if bases else "")
    yield from ("```", "")
    yield from prose(docstring)
    yield ""
    for item in members(node):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef) and not item.name.startswith("_"):
            yield f"#### {node.name}.{item.name}"
            yield ""
            if not any(isinstance(one, ast.Name) and one.id == "property" for one in item.decorator_list):
                yield from ("```python", *folded(signature(item, node.name)), "```", "")
            else:
                kind = ast.unparse(item.returns or ast.Constant(None))
                yield from ("```python", f"{node.name}.{item.name}: {kind}", "```", "")
            yield from prose(ast.get_docstring(item) or "")
            yield ""


def members(node: ast.ClassDef) -> Iterator[ast.stmt]:
    """The class's own members, then those of bases that are not part of the API."""
    own = {item.name for item in node.body if isinstance(item, Definition)}
    yield from node.body
    for base in node.bases:
        if isinstance(base, ast.Name) and base.id in DEFINED and base.id not in NAMES:
            parent = DEFINED[base.id][0]
            if isinstance(parent, ast.ClassDef):
                yield from (item for item in parent.body if isinstance(item, Definition) and item.name not in own)


def private(target: ast.expr) -> bool:
    """Whether a field begins with an underscore."""
    return isinstance(target, ast.Name) and target.id.startswith("_")


def render() -> str:
    """The whole page."""
    lines = [HEAD]
    for title, _, names in SECTIONS:
        lines += [f"* [{title}](#{title.lower().replace(' ', '-')}): " + ", ".join(map(link, names))]
    lines.append("")
    for title, first, names in SECTIONS:
        lines += [f"## {title}", ""]
        if first:
            lines += [marked(first), ""]
        for name in names:
            lines += entry(name, *DEFINED[name])
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


NAMES = set(public())
DEFINED = definitions()
MADE_BY_CALLERS = {"Runtime", "AsyncRuntime"}


def main() -> None:
    """Write, or compare."""
    missing = NAMES - {name for _, _, names in SECTIONS for name in names}
    if missing:
        raise SystemExit(f"api_reference: in no section: {', '.join(sorted(missing))}")
    text = render()
    if "--check" in sys.argv[1:]:
        if not OUTPUT.exists() or OUTPUT.read_text(encoding="utf-8") != text:
            raise SystemExit(f"{OUTPUT.name} is out of date: run contrib/api_reference.py")
        return
    OUTPUT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
