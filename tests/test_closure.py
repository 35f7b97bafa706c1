"""The executable contains every module that its modules import (native/launcher/closure.py)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "native" / "launcher"))

import closure  # noqa: E402
import freeze  # noqa: E402


@pytest.fixture(scope="module")
def needed() -> closure.Closure:
    package = ROOT / "pyrunc"
    paths = [path for path in sorted(package.rglob("*.py")) if path.parent.name != "api"]
    own = {freeze.module_name(package, path): closure.Module(path, path.name == "__init__.py") for path in paths}
    return closure.closure(own, ROOT)


def names(text: str, module: str = "a.b", package: bool = False, functions: bool = False) -> set[tuple[str, str]]:
    return set(closure.imports(ast.parse(text), module, package, functions))


def test_kinds_of_imports() -> None:
    assert names("import x.y, z") == {("x.y", ""), ("z", "")}
    assert names("from x import y as q") == {("x", "y")}
    assert names("from . import c") == {("a", "c")}
    assert names("from . import c", package=True) == {("a.b", "c")}
    assert names("from ..d import e", package=True) == {("a.d", "e")}
    assert names("try:\n import x\nexcept ImportError:\n import y") == {("x", ""), ("y", "")}


def test_lines_that_are_not_executed_do_not_count() -> None:
    assert names("if TYPE_CHECKING:\n import x\nelse:\n import y") == {("y", "")}
    assert names("if typing.TYPE_CHECKING:\n import x") == set()
    assert names("if __name__ == '__main__':\n import x") == set()
    assert names("def f():\n import x") == set()
    assert names("class C:\n import x\n def f(self):\n  import y", functions=True) == {("x", ""), ("y", "")}


def test_pyrunc_itself_is_not_in_it(needed: closure.Closure) -> None:
    assert not [name for name in needed.modules if name.startswith("pyrunc.")]
    assert {"tarfile", "dataclasses", "pyroute2.netlink.rtnl.ifinfmsg", "encodings.idna"} <= set(needed.modules)
    assert not {"asyncio", "unittest", "pyroute2.iproute"} & set(needed.modules)


def test_nothing_is_missing_but_what_is_known(needed: closure.Closure) -> None:
    """Modules for other systems and versions, and modules that other modules create."""
    allowed = {"os.path", "_frozen_importlib", "_frozen_importlib_external", "org", "compression", "backports"}
    allowed |= {"_wmi", "collections.abc"} if sys.version_info >= (3, 12) else set()
    allowed |= {"_sha2"} if sys.version_info < (3, 12) else set()
    assert set(needed.missing) <= allowed


ALONE = """
import sys
names, wanted = {names!r}, {wanted!r}
class Only:
    def find_spec(name, path=None, target=None):
        if name not in names:
            raise ModuleNotFoundError("not in the executable: " + name, name=name)
sys.path.extend({path!r})
sys.meta_path.insert(0, Only)
import types
for name in {shells!r}:
    package = types.ModuleType(name)
    package.__path__ = [place + "/" + name.replace(".", "/") for place in {path!r}]
    sys.modules[name] = package
for name in wanted:
    __import__(name)
"""


def test_modules_import_each_other_and_no_more(needed: closure.Closure) -> None:
    every = {*needed.modules, *needed.extensions, *sys.builtin_module_names}
    path = sorted({str(Path(needed.modules["urllib3"].path).parent.parent)}) if "urllib3" in needed.modules else []
    wanted = sorted(needed.modules)
    code = ALONE.format(names=every, wanted=wanted, path=path, shells=sorted(closure.SHELLS))
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr.splitlines()[-1]
