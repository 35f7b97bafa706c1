"""Find the modules that the executable must contain: those that pyrunc imports, and their imports.

Imports in pyrunc's functions count.  Imports in functions of other modules do not: most of them
are never executed, and together they reach the whole standard library.  LAZY lists the few that
verbs execute.
"""

from __future__ import annotations

import ast
import importlib.machinery
import pathlib
import sys
from typing import NamedTuple

BUILTIN = frozenset(sys.builtin_module_names)
# Imported in a function, or by a name computed at run time.
LAZY = (
    "encodings.aliases", "encodings.ascii", "encodings.idna", "encodings.latin_1", "encodings.punycode",
    "encodings.utf_8", "encodings.utf_8_sig", "encodings.utf_16", "encodings.utf_16_be", "encodings.utf_16_le",
    "encodings.utf_32", "encodings.utf_32_be", "encodings.utf_32_le", "encodings.raw_unicode_escape",
    "encodings.unicode_escape",
    "gzip",  # tarfile
    "linecache", "traceback", "warnings",  # the interpreter, for an exception of a thread
    "pyroute2.netlink.rtnl.ifaddrmsg", "pyroute2.netlink.rtnl.ifinfmsg",  # launch/netdev.py, by name
)  # fmt: skip
# Their importers work without them, or are unused.
NEEDLESS = frozenset({
    "_asyncio", "_bootlocale", "_bz2", "_crypt", "_ctypes", "_curses", "_decimal",
    "_elementtree", "_hashlib", "_json", "_lsprof", "_lzma", "_posixshmem", "_py_abc", "_queue",
    "_scproxy", "_sqlite3", "_testcapi", "_tkinter", "_typing", "_uuid", "_winapi", "_zoneinfo",
    "argparse", "asyncio", "backports.zstd._cffi", "brotli", "brotlicffi", "bz2", "cffi",
    "ctypes", "decimal", "doctest", "gettext", "h2", "importlib._bootstrap",
    "importlib._bootstrap_external", "importlib.metadata", "importlib.resources",
    "logging.handlers", "lzma", "msvcrt", "nt", "numpy", "pdb", "prctl", "pydoc",
    "pyrunc._reader", "pyrunc._shim", "readline", "socks", "unittest",
    "urllib3.contrib.emscripten", "winreg", "zipimport", "zstandard",
})  # fmt: skip


# Packages whose __init__ is replaced by an empty one: it imports the whole package
# (launch/netdev.py), or modules that no verb uses.
SHELLS = frozenset({"pyroute2", "urllib3.http2"})


class Module(NamedTuple):
    """A module in a file."""

    path: pathlib.Path
    package: bool


class Closure:
    """The required Python and extension modules by name, and the names that were not found."""

    def __init__(self, builtin: frozenset[str]) -> None:
        self.builtin = builtin
        self.modules: dict[str, Module] = {}
        self.extensions: dict[str, pathlib.Path] = {}
        self.missing: dict[str, str] = {}
        self.own: dict[str, Module] = {}

    def add(self, name: str, importer: str) -> bool:
        """Add a module, its parent packages and all their imports.  Returns whether it is a
        module."""
        if name in self.modules or name in self.extensions or name in self.own or name in self.builtin:
            return True
        if name in NEEDLESS or name == "_pyrunc_launcher":
            return False
        parent, _, _ = name.rpartition(".")
        if parent and not self.add(parent, importer):
            return False
        if parent and parent not in self.modules:
            return False
        where = [str(self.modules[parent].path.parent)] if parent else None
        spec = importlib.machinery.PathFinder.find_spec(name, where)
        if spec is None or (spec.origin is None and spec.submodule_search_locations is None):
            self.missing.setdefault(name, importer)
            return False
        if spec.origin is None:  # a namespace package
            self.modules[name] = Module(
                pathlib.Path(next(iter(spec.submodule_search_locations or ()))) / "__init__.py", True
            )
            return True
        path = pathlib.Path(spec.origin)
        if isinstance(spec.loader, importlib.machinery.ExtensionFileLoader):
            self.extensions[name] = path
            return True
        self.modules[name] = Module(path, spec.submodule_search_locations is not None)
        if name not in SHELLS:
            self.follow(name, self.modules[name], functions=False)
        return True

    def follow(self, name: str, module: Module, *, functions: bool) -> None:
        """Add the imports of a module."""
        for target, attribute in imports(ast.parse(module.path.read_bytes()), name, module.package, functions):
            if self.add(target, name) and attribute and f"{target}.{attribute}" not in NEEDLESS:
                self.submodule(target, attribute)

    def submodule(self, package: str, name: str) -> None:
        """Add ``name`` of ``from package import name`` if it is a module."""
        found = self.modules.get(package)
        if found is None or not found.package:
            return
        full = f"{package}.{name}"
        if importlib.machinery.PathFinder.find_spec(full, [str(found.path.parent)]) is not None:
            self.add(full, package)


def imports(tree: ast.Module, name: str, package: bool, functions: bool) -> list[tuple[str, str]]:
    """Return (module, imported name) of each import statement that importing the module
    executes."""
    found: list[tuple[str, str]] = []
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not functions:
            continue
        if isinstance(node, ast.If) and is_for_others(node.test):
            todo += node.orelse
            continue
        if isinstance(node, ast.Import):
            found += [(alias.name, "") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = name.split(".")[: None if package else -1]
                parts = parts[: len(parts) - node.level + 1]
                base = ".".join([*parts, *([base] if base else [])])
            found += [(base, alias.name) for alias in node.names]
        todo += ast.iter_child_nodes(node)
    return found


def is_for_others(test: ast.expr) -> bool:
    """Whether a test is ``TYPE_CHECKING`` or ``__name__ == "__main__"``."""
    if isinstance(test, ast.Compare) and isinstance(test.left, ast.Name):
        return test.left.id == "__name__"
    return getattr(test, "id", getattr(test, "attr", "")) == "TYPE_CHECKING"


def closure(own: dict[str, Module], above: pathlib.Path, builtin: frozenset[str] = BUILTIN) -> Closure:
    """Return the foreign modules that pyrunc needs.

    ``above`` is the directory of the package, ``builtin`` the modules that the executable has as C
    code.
    """
    result = Closure(builtin)
    result.own = own
    importlib.machinery.PathFinder.invalidate_caches()
    before, sys.path = sys.path, [place for place in sys.path if pathlib.Path(place).resolve() != above.resolve()]
    try:
        for name, module in own.items():
            result.follow(name, module, functions=True)
        for name in LAZY:
            result.add(name, "LAZY")
    finally:
        sys.path = before
    return result
