"""pyrunc: a low-level OCI runtime for Linux.  Policy in Python, everything that touches the kernel in C.

The names of the Python API are those of `pyrunc.api`, which is loaded when one of them is first used: the command line
does without it (docs/adr/0026-python-api.md).
"""

from __future__ import annotations

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"  # the runtime-spec that pyrunc follows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.api import *  # noqa: F403


def __getattr__(name: str) -> Any:  # functions and classes
    """A name of the API, at its first use (PEP 562).  Modules of the package, which are asked for as well, are not."""
    import sys

    # The launcher is without the API, and `from pyrunc import plan` asks for this name before it imports the package.
    if (name[:1].isupper() or name in ("plan", "validate")) and "_pyrunc_launcher" not in sys.builtin_module_names:
        __import__("pyrunc.api")  # by name: it is far above this module
        if name in sys.modules["pyrunc.api"].__all__:
            return getattr(sys.modules["pyrunc.api"], name)
    raise AttributeError(f"module 'pyrunc' has no attribute {name!r}")
