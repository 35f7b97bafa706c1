"""Keep the output of each test case in a text file, so that a change of any word, number or order
is detected.

The wording may change: PYRUNC_UPDATE_GOLDEN=1 rewrites the cases that run; then review the diff.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import inspect
import os
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).resolve().parent / "golden"


def _blocks(path: Path) -> dict[str, list[str]]:
    """Map each case to its lines."""
    found: dict[str, list[str]] = {}
    if path.exists():
        for block in path.read_text(encoding="utf-8").split("== ")[1:]:
            case, *lines = block.rstrip("\n").split("\n")
            found[case] = lines
    return found


def compare(file: str, case: str, lines: Iterable[str], *, cut: bool = False) -> None:
    """Compare one case with ``golden/FILE.txt``; ``cut`` its lines first, see `short`."""
    path = GOLDEN / f"{file}.txt"
    # A line cannot look like the header of a case, and has no trailing blanks, which an editor would
    # remove.
    lines = map(short, lines) if cut else lines
    got = ["  " + line.replace("== ", "=: ").rstrip() for text in lines for line in text.split("\n")]
    got = [line if line.strip() else "  ." for line in got]
    tree = GOLDEN.parent.parent
    # integration/pythons.sh has a tree at /src, and tests give that name to files of containers.
    assert len(tree.parts) == 2 or not any(str(tree) in line for line in got), f"{case}: has the path of this tree"
    known = _blocks(path)
    if os.environ.get("PYRUNC_UPDATE_GOLDEN"):
        known[case] = got
        text = "\n".join(f"== {name}\n" + "".join(f"{line}\n" for line in known[name]) for name in sorted(known))
        path.write_text(text, encoding="utf-8")
    assert got == known.get(case), f"{case}: not as in {path}; when the change is meant: PYRUNC_UPDATE_GOLDEN=1"


# --- results of functions -------------------------------------------------------------------------

LONGEST = 300
Fixture = Callable[..., Iterator[None]]


def follow(
    *modules: str, leave: Iterable[str] = (), also: Callable[[pytest.FixtureRequest], Iterable[str]] | None = None
) -> Fixture:
    """A fixture for a test file that compares all results that the tests get from the modules'
    functions.

    It also compares the errors that a test expects, and the lines that ``also`` returns at the end.
    A test asserts what it is about; this fixture pins the rest. ``leave`` names tests whose results
    vary.
    """

    @pytest.fixture(autouse=True)
    def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
        test, lines = request.node.function, []
        # System call numbers differ between machines, and only root gets results of privileged
        # calls.
        elsewhere = os.geteuid() != 0 or os.uname().machine != "x86_64"
        if hasattr(test, "hypothesis") or test.__name__ in leave or elsewhere:
            yield
            return
        raises = pytest.raises

        @contextlib.contextmanager
        def telling(*args: Any, **more: Any) -> Iterator[Any]:
            with raises(*args, **more) as caught:
                yield caught
            lines.append(f"{caught.type.__name__}: {caught.value}")

        if not modules:
            monkeypatch.setattr(pytest, "raises", telling)
        own = vars(request.module)
        for name in modules:
            module = importlib.import_module(name)
            for key, value in list(vars(module).items()):
                if not inspect.isfunction(value) or value.__module__ != name or key.startswith("_"):
                    continue
                made = _told(value, request.module.__file__, lines)
                monkeypatch.setattr(module, key, made)
                for alias in [alias for alias, found in own.items() if found is value]:
                    monkeypatch.setitem(own, alias, made)
        if also is not None:
            also(request)  # its subject exists before and after this fixture
        yield
        # The length of the path differs between runs, so replace it before anything is cut.
        lines = [short(line.replace(str(tmp_path), "TOP")) for line in lines]
        lines += also(request) if also is not None else ()
        text = "\n".join(lines).replace(str(tmp_path), "TOP")
        if lines:
            compare(request.module.__name__.removeprefix("test_"), request.node.name.replace("\n", "\\n"), [text])

    return kept


def _told(call: Callable[..., Any], file: str, lines: list[str]) -> Callable[..., Any]:
    """Wrap a function to record its results."""

    @functools.wraps(call)
    def wrapper(*args: Any, **more: Any) -> Any:
        if sys._getframe(1).f_code.co_filename != file:
            return call(*args, **more)
        try:
            found = call(*args, **more)
        except Exception as error:
            lines.append(f"{type(error).__name__}: {error}")
            raise
        if not inspect.isgenerator(found):
            lines.append(shown(found, 5))
        return found

    return wrapper


def short(text: str) -> str:
    """A line of text; what exceeds LONGEST is represented by its length and a digest."""
    text = text.encode("ascii", "backslashreplace").decode().replace("\n", "\\n")
    more = hashlib.sha256(text[LONGEST:].encode()).hexdigest()[:8]
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ... {len(text)} {more}"


def shown(value: Any, depth: int) -> str:
    """A representation of a value and everything in it, without addresses."""
    if isinstance(value, str | bytes | int | float | None | type(...)):
        return repr(value)
    if depth == 0 or callable(value) or isinstance(value, types.ModuleType):
        return type(value).__name__
    if isinstance(value, dict):
        inside = [f"{shown(key, depth - 1)}: {shown(item, depth - 1)}" for key, item in value.items()]
    elif isinstance(value, list | tuple):
        inside = [shown(item, depth - 1) for item in value]
    elif isinstance(value, set | frozenset):
        inside = sorted(shown(item, depth - 1) for item in value)
    else:
        names = [
            *getattr(value, "__dict__", ()),
            *(s for kind in type(value).__mro__ for s in getattr(kind, "__slots__", ())),
        ]
        found = [(name, getattr(value, name)) for name in sorted(set(names)) if hasattr(value, name)]
        inside = [f"{name}={shown(item, depth - 1)}" for name, item in found]
    return f"{type(value).__name__}({', '.join(inside)})"
