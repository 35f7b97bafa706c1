"""Stand-ins for everything that a function uses of other modules. They note each call with its
arguments, so that a test can compare what the function does, in which order, and with which values.

Pure functions and constants stay real; everything else returns what the case says.
"""

from __future__ import annotations

import importlib
import posix
import re
import types
from collections.abc import Callable, Iterable
from typing import Any

import pytest

import transcript
from pyrunc.host import HostFacts

# Functions without side effects, and without results that differ between machines.
PURE = {
    "posix": {"WIFSIGNALED", "WIFEXITED", "WTERMSIG", "WEXITSTATUS", "fspath", "fsencode", "fsdecode"},
    "os": {"WIFSIGNALED", "WIFEXITED", "WTERMSIG", "WEXITSTATUS", "fspath", "fsencode", "fsdecode"},
    "fs": {"join", "normpath", "encode", "decode"},
    "host": {"own_cgroup"},
    "privileges": {"bit"},
    "library": {"as_error"},
    "session": {"as_sys_error"},
    "time": set(),
}  # fmt: skip
# Modules whose functions only compute.
COMPUTING = {
    "handshake", "errors", "ops", "signals", "jsontext", "names", "hints", "struct", "re", "stat", "errno", "json",
    "hashlib", "base64", "binascii", "math", "textwrap", "itertools", "functools", "collections", "typing", "types",
    "shlex",
}  # fmt: skip


class Spy:
    """An object that notes calls of its methods and writes of its attributes.

    ``answers`` maps "name.method" to a result: an exception is raised, `Answers` give one result
    after another, anything else is returned. Without an answer, a call returns a `Spy`.
    """

    def __init__(self, name: str, notes: list[str], answers: dict[str, Any], **attributes: Any) -> None:
        vars(self).update(attributes, _name=name, _notes=notes, _answers=answers)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        full = f"{self._name}.{name}"
        real = getattr(self._answers.get(f"{self._name}:real"), name, None)
        if full in self._answers and real is not None and not callable(real):
            return self._answers[full]
        error = isinstance(real, type) and issubclass(real, BaseException)
        if name in PURE.get(self._name, ()) or error or not (real is None or callable(real)):
            return real
        return noting(full, self._notes, self._answers)

    def __setattr__(self, name: str, value: Any) -> None:
        vars(self)[name] = value
        self._notes.append(f"{self._name}.{name} = {told(value)}")

    def __call__(self, *args: Any, **more: Any) -> Any:
        return noting(self._name, self._notes, self._answers)(*args, **more)

    def __enter__(self) -> Any:
        self._notes.append(f"enter {self._name}")
        return self

    def __exit__(self, *what: Any) -> None:
        self._notes.append(f"leave {self._name}")

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return f"<{self._name}>"


class Answers(list[Any]):
    """Results of successive calls; the last one stays."""


class By(dict[Any, Any]):
    """Results by an argument of the call; the result for None is the default."""

    def of(self, args: tuple[Any, ...]) -> Any:
        """The result of a call."""
        known = (arg for arg in args if isinstance(arg, str | bytes | int) and arg in self)
        return self.get(next(known, None))


def noting(name: str, notes: list[str], answers: dict[str, Any]) -> Callable[..., Any]:
    """A function that notes its calls."""

    def call(*args: Any, **more: Any) -> Any:
        words = [told(arg) for arg in args] + [f"{key}={told(arg)}" for key, arg in more.items()]
        if name in ("posix.open", "os.open"):
            words[1] = flags(args[1])
        notes.append(f"{name}({', '.join(words)})")
        found = answers[name] if name in answers else Spy(f"{name}()", notes, answers)
        if isinstance(found, Answers):
            found = found.pop(0) if len(found) > 1 else found[0]
        elif isinstance(found, By):
            found = found.of(args)
        if isinstance(found, BaseException):
            raise found
        return found.copy() if type(found) in (dict, list) else found  # the caller may change it

    call.__name__ = name.rpartition(".")[2]
    return call


def flags(value: int) -> str:
    """The flags of open(2) by name, because their values differ between machines."""
    known = {number: name for name, number in vars(posix).items() if name.startswith("O_") and number.bit_count() == 1}
    found = [number for number in known if value & number]
    rest = value & ~sum(found)
    return "|".join([*sorted(known[number] for number in found), *([hex(rest)] if rest else [])])


def told(value: Any, depth: int = 4) -> str:
    """A value as text, the same in each run; a class may say what its objects are ``called``."""
    if isinstance(value, Spy):
        return str(vars(value)["_name"])
    if hasattr(type(value), "called"):
        return str(type(value).called)
    if isinstance(value, HostFacts):
        return f"facts(euid={value.euid}, rootless={value.rootless})"
    if isinstance(value, BaseException):
        return f"{type(value).__name__}({value})"
    if callable(value) and hasattr(value, "__name__"):
        return f"<{value.__name__}>"
    if type(value) in (list, tuple, set, frozenset) and depth:
        items = [told(item, depth - 1) for item in value]
        return f"{type(value).__name__}({', '.join(sorted(items) if isinstance(value, set | frozenset) else items)})"
    if type(value) is dict and depth:
        return "{" + ", ".join(f"{key}: {told(item, depth - 1)}" for key, item in value.items()) + "}"
    return transcript.shown(value, depth)


def replace(
    patch: pytest.MonkeyPatch,
    module: str,
    notes: list[str],
    answers: dict[str, Any],
    *,
    late: Iterable[str] = (),
    functions: Iterable[str] = (),
) -> types.ModuleType:
    """Replace the modules that ``module`` has imported, those it imports ``late``, inside
    functions, and ``functions`` of its own."""
    found = importlib.import_module(module)
    for name, value in list(vars(found).items()):
        computes = name in COMPUTING and ".native." not in getattr(value, "__name__", "")
        if isinstance(value, types.ModuleType) and not computes:
            answers.setdefault(f"{name}:real", value)
            patch.setattr(found, name, Spy(name, notes, answers))
    for full in late:
        package, _, name = full.rpartition(".")
        real = importlib.import_module(full)
        answers.setdefault(f"{name}:real", real)
        patch.setattr(importlib.import_module(package), name, Spy(name, notes, answers))
    for name in functions:
        patch.setattr(found, name, noting(name, notes, answers))
    return found


def record(call: Callable[..., Any], args: Iterable[Any], notes: list[str]) -> list[str]:
    """Call a function, and return its notes and its result or error."""
    try:
        found = told(call(*args))
    except (AssertionError, AttributeError, NameError):  # the case itself is wrong
        raise
    except BaseException as error:
        found = f"{type(error).__name__}: {error}"
        if isinstance(error.__cause__, BaseException):
            found += f" (from {type(error.__cause__).__name__})"
    return [transcript.short(line) for line in (*without_series(notes), f"-> {found}")]


def without_series(notes: list[str]) -> list[str]:
    """The notes with one line for a series of calls whose only argument counts up."""
    out: list[str] = []
    numbers = [re.fullmatch(r"(.*\()(\d+)\)", note) for note in [*notes, ""]]
    begun = 0
    for index, note in enumerate(notes):
        here, following = numbers[index], numbers[index + 1]
        if here and following and (here[1], int(here[2]) + 1) == (following[1], int(following[2])):
            continue
        out += [note] if begun == index else [f"{notes[begun]} ... {note}"]
        begun = index + 1
    return out


def attributes(one: object, before: dict[str, str]) -> list[str]:
    """The attributes of an object that have changed."""
    return [f"{name} = {value}" for name, value in state_of(one).items() if before.get(name) != value]


def state_of(one: object) -> dict[str, str]:
    """The attributes of an object as text."""
    names = [*getattr(one, "__dict__", ()), *(s for kind in type(one).__mro__ for s in getattr(kind, "__slots__", ()))]
    return {name: told(getattr(one, name)) for name in sorted(set(names)) if hasattr(one, name)}


def inside(one: Any) -> str:
    """A value as text, with the contents of an object that is ``called`` by a name otherwise."""
    named = hasattr(type(one), "called") and not isinstance(one, Spy)
    return told(vars(one) if named else one, 6)


def alone(module: types.ModuleType, name: str, *args: Any, keep: str = "") -> Callable[[Any], Any]:
    """A call of a function, with all other functions of its module replaced, except those to ``keep``;
    its result, and the arguments that it has changed.

    An argument "$name" is the value that the case has ``WITH`` this name. The case may also give
    ``spies``: name -> attributes of a spy that the call of this name returns.
    """

    def call(w: Any) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            for other, value in list(vars(module).items()):
                own = isinstance(value, types.FunctionType) and value.__module__ == module.__name__
                if own and other not in (name, *keep.split()):
                    patch.setattr(module, other, noting(other, w.notes, w.answers))
            for full, attributes in w.extra.get("spies", {}).items():
                w.answers[full] = w.spy(full.rpartition(".")[2].lower(), **attributes)
            given = w.given(args)
            given = [arg(w) if isinstance(arg, types.FunctionType) else arg for arg in given]
            before = [inside(arg) for arg in given]
            found = getattr(module, name)(*given)
            found = list(found) if isinstance(found, types.GeneratorType) else found
            after = [inside(arg) for arg in given]
            changed = [text for text, old in zip(after, before, strict=True) if text != old]
            return (found, *changed) if changed else found

    return call


def compare(file: str, case: str, results: Iterable[object]) -> None:
    """Compare results, a line each, with one case of ``golden/FILE.txt``."""
    transcript.compare(file, case, [told(found, 8) for found in results], cut=True)
