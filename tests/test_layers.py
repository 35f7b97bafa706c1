"""The import graph of pyrunc/: layers, no cycles, pure rooms without I/O (ARCHITECTURE.md, "The house")."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "pyrunc"

# Lower number = lower layer.  A module may import its own layer (cycles are checked apart) and everything below.
LAYERS = [
    {
        "", "errors", "fs", "handshake", "hints", "interpreter", "native", "signals", "build", "procfs", "jsontext",
        "log", "_shim", "_reader",
    },
    {"spec"},
    {"host"},
    {"plan"},
    {"cgroup"},
    {"explain", "hooks", "idmap", "notify", "rootmount", "seccomp", "state"},
    {"image"},
    {"container"},
    {"launch"},
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
# What a pure room may import besides pyrunc's own: no os, no posix, nothing that can open or execute.
PURE_ALLOWED = {"__future__", "_struct", "errno", "collections.abc", "itertools", "typing", "sys"}
PURE_EXCEPTIONS = {
    "spec/load.py": {"posix"}  # reads the one file it is about, and phrases the errors in it
}


def room(module: str) -> str:
    """The part of the house a module belongs to: `plan` for pyrunc.plan.mounts."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def layer(name: str) -> int:
    for number, names in enumerate(LAYERS):
        if name in names:
            return number
    raise AssertionError(f"{name} is in no layer: add it to LAYERS and to ARCHITECTURE.md")


def imports(path: Path) -> list[tuple[str, bool]]:
    """(module, at module level) for every import, those for type checkers left out."""
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


def modules() -> dict[str, Path]:
    out = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE.parent).with_suffix("")
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


def test_no_cycle_between_modules() -> None:
    graph = {
        name: {t for t, top in imports(path) if top and t in MODULES and t != name} for name, path in MODULES.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "import cycle: " + " -> ".join((*trail, name))
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())
    assert done == set(MODULES)
    assert sum(map(len, graph.values())) > 200


@pytest.mark.parametrize("name", sorted(n for n in MODULES if room(n) in PURE))
def test_pure_rooms_do_no_io(name: str) -> None:
    path = MODULES[name]
    allowed = PURE_ALLOWED | PURE_EXCEPTIONS.get(str(path.relative_to(PACKAGE)), set())
    outside = {t for t, _ in imports(path) if t.split(".")[0] != "pyrunc"}
    assert outside <= allowed, f"{name} imports {sorted(outside - allowed)}"
    assert "open(" not in path.read_text(encoding="utf-8").replace("posix.open(", "") or "load" in name
