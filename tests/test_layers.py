"""Dependencies: layers, no cycles, pure packages without I/O (ARCHITECTURE.md, "The house"), and no
cycles in C."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pyrunc"

# Lower number = lower layer. A module may import its own layer (cycles are checked apart) and
# everything below.
LAYERS = [
    {
        "", "errors", "fs", "handshake", "hints", "interpreter", "native", "signals", "build", "procfs", "jsontext",
        "log", "_shim", "_reader",
    },
    {"spec"},
    {"host"},
    {"mountinfo"},
    {"plan"},
    {"cgroup"},
    {"explain", "hooks", "idmap", "notify", "rootmount", "seccomp", "state"},
    {"image"},
    {"container"},
    {"launch"},
    {"checkpoint"},
    {"doctor"},
    {"command", "api"},
    {"seccomp_tools"},
    {"trace"},
    {"verbs"},
    {"cli"},
    {"__main__"},
]  # fmt: skip
PACKAGES = {"pyrunc", *(f"pyrunc.{path.parent.name}" for path in PACKAGE.glob("*/__init__.py"))}
PURE = {"spec", "plan"}
# Modules that pure code may import besides pyrunc's own: no os, no posix, nothing that can open or
# execute.
PURE_ALLOWED = {"__future__", "_struct", "errno", "collections.abc", "itertools", "typing", "sys"}
PURE_EXCEPTIONS = {
    "spec/load.py": {"posix"}  # reads its one file and reports the errors in it
}


def room(module: str) -> str:
    """The part of the package that a module belongs to: `plan` for pyrunc.plan.mounts."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def layer(name: str) -> int:
    for number, names in enumerate(LAYERS):
        if name in names:
            return number
    raise AssertionError(f"{name} is in no layer: add it to LAYERS and to ARCHITECTURE.md")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, at module level) for every import except those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            skipped |= {id(sub) for sub in ast.walk(node)}
    top = {id(node) for node in tree.body}
    found = []
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, id(node) in top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            if node.module in PACKAGES:
                base = PACKAGE / Path(*node.module.split(".")[1:])
                for alias in node.names:
                    sub = (base / f"{alias.name}.py").exists() or (base / alias.name).is_dir()
                    found.append((f"{node.module}.{alias.name}" if sub else node.module, id(node) in top))
            else:
                found.append((node.module, id(node) in top))
    return found


def modules(top: Path = PACKAGE) -> dict[str, Path]:
    out = {}
    for path in sorted(top.rglob("*.py")):
        relative = path.relative_to(top.parent).with_suffix("")
        name = ".".join(relative.parts)
        out[name.removesuffix(".__init__")] = path
    return out


MODULES = modules()


@pytest.mark.parametrize("name", sorted(MODULES))
def test_no_upward_import(name: str) -> None:
    own = layer(room(name))
    for target, _ in imports(MODULES[name]):
        if target.split(".")[0] == "pyrunc":
            assert layer(room(target)) <= own, f"{name} imports {target}, which is in a higher layer"


def circles(graph: Mapping[str, set[str]]) -> list[tuple[str, ...]]:
    """The cycles, one list for each."""

    def reached(name: str) -> set[str]:
        found: set[str] = set()
        todo = [name]
        while todo:
            new = graph[todo.pop()] - found
            found |= new
            todo += new
        return found

    leads = {name: reached(name) for name in graph}
    return sorted({tuple(sorted(n for n in leads[name] if name in leads[n])) for name in graph if name in leads[name]})


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"d"}, "e": set()}) == [("b", "c"), ("d",)]


# The package itself gives type checkers the names of the API, and all modules import the package.
# In that API a container has its runtime as an attribute, whose methods return containers.
PUBLIC = {("pyrunc", "pyrunc.api"), ("pyrunc.api.container", "pyrunc.api.runtime")}


def needed(name: str, path: Path, known: Mapping[str, Path]) -> set[str]:
    """The imports of a module outside functions, including those for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(part)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for part in ast.walk(function)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (members & set(known)) or {node.module}
    return {target for target in found & set(known) - {name} if (name, target) not in PUBLIC}


@pytest.mark.parametrize("top", ["pyrunc", "bench"])
def test_no_circle_among_modules_and_their_types(top: str) -> None:
    known = modules(PACKAGE.parent / top)
    graph = {name: needed(name, path, known) for name, path in known.items()}
    assert sum(map(len, graph.values())) > len(known) / 2
    assert circles(graph) == []


# --- C --------------------------------------------------------------------------------------------

ROOMS = ["init", "launcher", "reader", "shim"]
NOISE = re.compile(r'/\*.*?\*/|"(?:\\.|[^"\\\n])*"', re.DOTALL)
# A function or a variable that other files can see: it begins a line, and is not static, extern or
# a type.
DEFINED = re.compile(
    r"^(?!static\b|extern\b|typedef\b|enum\b|return\b|else\b)[A-Za-z_][\w ]*?[ *]\*?(\w+)(?:\(|\[| =|;)", re.MULTILINE
)


def c_graph(room: Path) -> dict[str, set[str]]:
    """File -> the files whose functions and variables it uses, and the headers it includes."""
    files = {path: path.read_text() for path in sorted(room.rglob("*.[ch]"))}
    code = {path: NOISE.sub("", text) for path, text in files.items()}
    owner = {
        name: path for path in files if path.suffix == ".c" for name in DEFINED.findall(code[path]) if name[:2] != "__"
    }
    graph: dict[str, set[str]] = {}
    for path, text in files.items():
        names = set(re.findall(r"\w+", code[path])) if path.suffix == ".c" else set()
        used = {owner[name].name for name in names & set(owner)}
        included = set(re.findall(r'#include "(?:\w+/)*(\w+\.h)"', text)) & {other.name for other in files}
        graph[path.name] = (used | included) - {path.name}
    return graph


@pytest.mark.parametrize("name", ROOMS)
def test_no_circle_among_c_files(name: str) -> None:
    graph = c_graph(PACKAGE.parent / "native" / name)
    assert {"init": "report.c", "launcher": "guard.h", "reader": "crowd.c", "shim": "image.c"}[name] in {
        target for targets in graph.values() for target in targets
    }
    assert circles(graph) == []


def test_a_circle_among_c_files_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int first(void)\n{\n    return second();\n}\n")
    (tmp_path / "b.c").write_text(
        '/* first() */ int second(void);\nint second(void)\n{\n    return 0 * (int)"first";\n}\n'
    )
    assert circles(c_graph(tmp_path)) == []
    (tmp_path / "b.c").write_text("int second(void)\n{\n    return first();\n}\n")
    assert circles(c_graph(tmp_path)) == [("a.c", "b.c")]


@pytest.mark.parametrize("name", sorted(n for n in MODULES if room(n) in PURE))
def test_pure_rooms_do_no_io(name: str) -> None:
    path = MODULES[name]
    allowed = PURE_ALLOWED | PURE_EXCEPTIONS.get(str(path.relative_to(PACKAGE)), set())
    outside = {t for t, _ in imports(path) if t.split(".")[0] != "pyrunc"}
    assert outside <= allowed, f"{name} imports {sorted(outside - allowed)}"
    assert "open(" not in path.read_text(encoding="utf-8").replace("posix.open(", "") or "load" in name
