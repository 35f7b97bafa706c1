"""Freeze Python into C, for the launcher.

``freeze.py package PACKAGE_DIR INIT LICENSES OUTPUT.c OUTPUT.bin COMMIT MISSING
OWN``: pyrunc's modules, the modules that they need (closure.py), the container-side program, and
all licences.  MISSING names the builtin modules of this interpreter that its static library lacks,
OWN those that the launcher has instead.  It drops
annotations, docstrings, asserts and ``if TYPE_CHECKING`` blocks of pyrunc's modules, because they
cost unmarshalling time on every start, and nothing in the launcher reads them.

``freeze.py bootstrap OUTPUT.c``: the modules that start an interpreter, marshalled.  CPython 3.11
and 3.12 have 1 MB of static objects instead.  Start-up relocates and walks all of them
(`_Py_Deepfreeze_Init`), which takes 0.5 of 3 ms, although the core phase needs a tenth of them.
3.13 returned to marshalled modules.  These tables replace the archive's at link time.
"""

from __future__ import annotations

import _imp
import ast
import marshal
import pathlib
import sys
from typing import Any

from closure import BUILTIN, SHELLS, Closure, Module, closure


class Strip(ast.NodeTransformer):
    """Remove code that only readers and type checkers need."""

    def visit_function(self, node: Any) -> Any:
        """Remove the annotations of parameters and result."""
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
        for arg in every:
            if arg is not None:
                arg.annotation = None
        node.returns = None
        self.generic_visit(node)
        return node

    visit_FunctionDef = visit_AsyncFunctionDef = visit_function

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt | None:
        """Turn ``x: T = v`` into ``x = v``, and drop a bare ``x: T``, which no class or module
        needs."""
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        """Remove ``__slots__``: each slot costs a descriptor per class, and most classes have
        one instance."""
        node.body = [item for item in node.body if not is_slots(item)] or [ast.copy_location(ast.Pass(), node)]
        if node.decorator_list:
            # A dataclass reads the annotations of its fields.  Make them strings: their names may
            # be imported only for type checkers.
            fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
            for item in fields:
                item.annotation = ast.copy_location(ast.Constant(ast.unparse(item.annotation)), item.annotation)
            node.body = [item if item in fields else self.visit(item) for item in node.body]
            return node
        self.generic_visit(node)
        return node

    def visit_If(self, node: ast.If) -> Any:
        """Remove ``if TYPE_CHECKING:``, which is never true at run time."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return [self.visit(item) for item in node.orelse] or ast.copy_location(ast.Pass(), node)
        self.generic_visit(node)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.stmt:
        """Remove ``from __future__``: without annotations there is no evaluation to postpone."""
        if node.module == "__future__":
            return ast.copy_location(ast.Pass(), node)
        return node


def is_slots(node: ast.stmt) -> bool:
    """Whether a statement in a class body is ``__slots__ = ...``."""
    return isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__slots__" for t in node.targets)


def module_name(package: pathlib.Path, path: pathlib.Path) -> str:
    """Return ``pyrunc.plan.ops`` for ``pyrunc/plan/ops.py``."""
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def compile_module(path: pathlib.Path, name: str, constants: dict[str, str]) -> bytes:
    """Return the marshalled code of a module; ``constants`` replaces values of its constants."""
    tree = Strip().visit(ast.parse(path.read_bytes(), str(path)))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in constants:
            node.value = ast.copy_location(ast.Constant(constants[node.targets[0].id]), node.value)
    return marshal.dumps(compile(tree, f"<frozen {name}>", "exec", dont_inherit=True, optimize=2))


def c_array(data: bytes) -> str:
    """Format bytes as C initializers, 32 per line."""
    lines = [data[i : i + 32] for i in range(0, len(data), 32)]
    return ",\n".join(",".join(map(str, line)) for line in lines)


# Module -> its name in importlib.  Every interpreter needs them to start.
BOOTSTRAP = {
    "_frozen_importlib": "importlib._bootstrap",
    "_frozen_importlib_external": "importlib._bootstrap_external",
    "zipimport": "",
}
# Modules of the standard library that verbs import and hot modules do not.  Importing takes memory,
# and without memory CPython's modules fail with misleading errors.  `interpreter.complete` imports
# _io first.
STANDARD = ("_io", "_blake2", "_sha2")
# What the standard library's hashlib imports.  Without one of them it complains on stderr.
HASHES = frozenset({"_md5", "_sha1", "_sha3", "_blake2"})
# Large modules for verbs that people call by hand; in the snapshot they would slow down every other
# verb.  A package includes its modules.
COLD = (
    "pyrunc.checkpoint",
    "pyrunc.native.foreign",
    "pyrunc.native.probe",
    "pyrunc.native.prototypes",
    "pyrunc.doctor",
    "pyrunc.plan.show",
    "pyrunc.launch.seccomp_log",
    "pyrunc.seccomp_tools",
    "pyrunc.verbs.checkpoint",
    "pyrunc.verbs.doctor",
    "pyrunc.verbs.restore",
    "pyrunc.verbs.seccomp",
)


def freeze_bootstrap(output: pathlib.Path) -> None:
    """Write the tables that replace the archive's frozen.o and deepfreeze.o."""
    out = ["/* Generated by native/launcher/freeze.py. */", "#include <Python.h>", ""]
    rows = []
    for number, name in enumerate(BOOTSTRAP):
        code = marshal.dumps(_imp.get_frozen_object(name))
        out += [f"static const unsigned char std_{number}[] = {{", c_array(code), "};"]
        rows.append(f'    {{.name = "{name}", .code = std_{number}, .size = (int)sizeof std_{number}}},')
    out += [
        "static const struct _frozen bootstrap[] = {",
        *rows,
        "    {.name = NULL},",
        "};",
        "static const struct _frozen none[] = {{.name = NULL}};",
        "struct alias { const char *name, *orig; }; /* struct _module_alias of pycore_import.h */",
        "static const struct alias aliases[] = {",
        *(f'    {{"{name}", "{origin}"}},' for name, origin in BOOTSTRAP.items() if origin),
        "    {NULL, NULL},",
        "};",
        "const struct _frozen *_PyImport_FrozenBootstrap = bootstrap;",
        "const struct _frozen *_PyImport_FrozenStdlib = none;",
        "const struct _frozen *_PyImport_FrozenTest = none;",
        "const struct alias *_PyImport_FrozenAliases = aliases;",
        "const struct _frozen *PyImport_FrozenModules = NULL;",
        "int _Py_Deepfreeze_Init(void) { return 0; }",
        "void _Py_Deepfreeze_Fini(void) {}",
        "",
    ]
    output.write_text("\n".join(out), encoding="ascii")


class Store:
    """A file of read-only data, composed of pieces."""

    ALIGN = 16

    def __init__(self, first: bytes) -> None:
        self.data = bytearray(first)

    def add(self, piece: bytes) -> str:
        """Append a piece.  Returns C initializers for its address and size."""
        self.data += bytes(-len(self.data) % self.ALIGN)
        self.data += piece
        return f"pyrunc_store + {len(self.data) - len(piece)}, {len(piece)}"


def freeze_package(
    package: pathlib.Path,
    init: pathlib.Path,
    licenses: pathlib.Path,
    outputs: tuple[pathlib.Path, pathlib.Path],
    commit: str,
    builtin: frozenset[str],
) -> None:
    """Write the C file and the data that it includes.  The loader searches modules in row order."""
    # The command line does not use the Python API.
    paths = [path for path in sorted(package.rglob("*.py")) if path.parent.name != "api"]
    modules = [(module_name(package, path), path) for path in paths]
    output, store_path = outputs
    image = init.read_bytes()
    store = Store(image)
    rows = []
    for name, path in modules:
        code = compile_module(path, name, {"COMMIT": commit} if name == "pyrunc.build" else {})
        rows.append(f'    {{"{name}", {store.add(code)}, {int(path.name == "__init__.py")}}},')
    needed = closure(
        {name: Module(path, path.name == "__init__.py") for name, path in modules}, package.parent, builtin
    )
    rows += foreign_rows(needed, store)
    libraries = [
        f'    {{"{name}", {store.add(path.read_bytes())}}},' for name, path in sorted(needed.extensions.items())
    ]
    texts = store.add(licenses.read_bytes())
    store_path.write_bytes(store.data)
    out = [
        "/* Generated by native/launcher/freeze.py. */",
        '#include "launcher.h"',
        "",
        '__asm__(".pushsection .rodata\\n.balign 4096\\n.globl pyrunc_store\\n.hidden pyrunc_store\\npyrunc_store:\\n"',
        f'        ".incbin \\"{store_path.resolve()}\\"\\n.popsection");',
        'extern const unsigned char pyrunc_store[] __attribute__((visibility("hidden")));',
        "",
        "const struct _frozen pyrunc_frozen[] = {",
        *rows,
        "    {.name = NULL},",
        "};",
        "const struct pyrunc_library pyrunc_libraries[] = {",
        *libraries,
        "    {.name = NULL},",
        "};",
        "const char *const pyrunc_preload[] = {",
        *(f'    "{name}",' for name in STANDARD if name in builtin),
        *(f'    "{name}",' for name in preloadable(modules, builtin)),
        "    NULL,",
        "};",
        f"const struct pyrunc_part pyrunc_init = {{pyrunc_store, {len(image)}}};",
        f"const struct pyrunc_part pyrunc_licenses = {{{texts}}};",
        "",
    ]
    output.write_text("\n".join(out), encoding="ascii")


def foreign_rows(needed: Closure, store: Store) -> list[str]:
    """Return the rows of foreign modules, without docstrings and asserts."""
    rows = []
    for name, module in sorted(needed.modules.items()):
        path = module.path
        if name == "hashlib" and not needed.builtin | needed.extensions.keys() >= HASHES:
            path = pathlib.Path(__file__).with_name("hashlib_sha2.py")
        source = path.read_bytes() if name not in SHELLS and path.exists() else b""
        code = compile(source, f"<frozen {name}>", "exec", dont_inherit=True, optimize=2)
        rows.append(f'    {{"{name}", {store.add(marshal.dumps(code))}, {int(module.package)}}},')
    return rows


def preloadable(modules: list[tuple[str, pathlib.Path]], builtin: frozenset[str] = BUILTIN) -> list[str]:
    """Return the modules that a snapshot can contain (snapshot/snapshot.h).

    They import only builtin modules and each other.
    """
    # Exclude the modules of a trace: few commands are traced, and each start would pay for them.
    modules = [row for row in modules if not row[0].startswith("pyrunc.trace")]
    names = {name for name, _ in modules}
    needs = {name: imported(ast.parse(path.read_bytes()), names) | parents(name) for name, path in modules}
    fit = {name for name in names if not f"{name}.".startswith(tuple(f"{cold}." for cold in COLD))}
    while bad := {name for name in fit if not needs[name] <= fit | builtin | {"_pyrunc_launcher"}}:
        fit -= bad
    return sorted(fit)


def parents(name: str) -> set[str]:
    """Return the packages that importing a module imports first."""
    parts = name.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def imported(tree: ast.Module, modules: set[str]) -> set[str]:
    """Return the imports of a module outside functions and ``if TYPE_CHECKING``."""
    found: set[str] = set()
    todo: list[ast.stmt] = list(Strip().visit(tree).body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {name for alias in node.names if (name := f"{node.module}.{alias.name}") in modules}
            found.add(str(node.module))
        elif isinstance(node, ast.If | ast.Try):
            todo += [child for child in ast.walk(node) if isinstance(child, ast.Import | ast.ImportFrom)]
    return found


def main() -> None:
    """Write the files that the first argument selects."""
    if sys.argv[1] == "bootstrap":
        freeze_bootstrap(pathlib.Path(sys.argv[2]))
        return
    package, init, licenses, *outputs = map(pathlib.Path, sys.argv[2:7])
    commit, missing, own = sys.argv[7:]
    builtin = BUILTIN - frozenset(missing.split()) | frozenset(own.split())
    freeze_package(package, init, licenses, (outputs[0], outputs[1]), commit, builtin)


if __name__ == "__main__":
    main()
