"""Differences between the launcher's interpreter and a plain one.

Inside the launcher (native/launcher) the interpreter is in its *core* phase, in which it can import
only builtin and frozen modules (docs/adr/0006-core-phase.md). Under ``python -m pyrunc`` and pytest
each function here is a plain import.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

FROZEN = "_pyrunc_launcher" in sys.builtin_module_names  # inside the launcher
_launcher: Any = None  # the builtin module, which has no stub
if FROZEN:
    import _pyrunc_launcher

    _launcher = _pyrunc_launcher


def core_phase() -> bool:
    """Whether the interpreter is in its core phase: without ``os``, codecs and ``sys.stdout``."""
    return _launcher is not None and _launcher.in_core()


def complete() -> None:
    """Complete the interpreter, so that the standard library can be imported. The first call takes
    2 ms.

    Everything that verbs import is in the executable; no other place is searched.
    """
    if _launcher is not None and _launcher.in_core():
        _launcher.complete()


def look_beside() -> None:
    """Allow imports of packages installed beside pyrunc, but not in the executable (python-prctl).

    Not if anyone other than the owner can write to their directory.
    """
    if _launcher is None:
        return
    try:
        place = _launcher.package_parent()
    except ImportError:
        return  # the import of such a package fails
    if place not in sys.path:
        sys.path.append(place)


def json_reader() -> Callable[..., Any]:  # of any document
    """``read_json`` of pyrunc/_reader.pyi: builtin in the launcher, otherwise an extension.

    Raises ImportError.
    """
    if _launcher is not None:
        return _launcher.read_json  # type: ignore[no-any-return]
    from pyrunc._reader import read_json

    return read_json


def json_writer() -> Callable[..., str]:
    """``write_json`` of pyrunc/_reader.pyi, likewise.  Raises ImportError."""
    if _launcher is not None:
        return _launcher.write_json  # type: ignore[no-any-return]
    from pyrunc._reader import write_json

    return write_json


def init_image() -> bytes:
    """The program `init`; the launcher contains it, and reads no file.

    Raises OSError if the package was not built (``make build``).
    """
    if _launcher is not None:
        return _launcher.init_image()  # type: ignore[no-any-return]
    from pyrunc import fs

    return fs.read_file(__file__.rpartition("/")[0] + "/_init")


def about() -> tuple[str, bool]:
    """How the interpreter is linked ("" outside the launcher), and whether it uses a snapshot."""
    if _launcher is None:
        return "", False
    kind, snapshot = _launcher.about()
    return kind, snapshot


def licenses() -> str:
    """The licences of the software in the executable; "" outside the launcher."""
    return "" if _launcher is None else str(_launcher.licenses())
