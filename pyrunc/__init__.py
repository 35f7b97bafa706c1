"""pyrunc: a low-level OCI runtime for Linux, with policy in Python and kernel interfaces in C.

The package exports the names of `pyrunc.api`, which is imported on first use, because the command
line does not need it (docs/adr/0026-python-api.md).
"""

from __future__ import annotations

VERSION = "0.1.0"
SPEC_VERSION = "1.3.0"  # of the runtime-spec that pyrunc implements

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.api import *  # noqa: F403


def __getattr__(name: str) -> Any:  # functions and classes
    """Import the API when one of its names is first used (PEP 562)."""
    import sys

    # The launcher lacks the API. `from pyrunc import plan` calls this before it imports
    # pyrunc.plan.
    if (name[:1].isupper() or name in ("plan", "validate")) and "_pyrunc_launcher" not in sys.builtin_module_names:
        __import__("pyrunc.api")  # by name: the API is a layer above this module
        if name in sys.modules["pyrunc.api"].__all__:
            return getattr(sys.modules["pyrunc.api"], name)
    raise AttributeError(f"module 'pyrunc' has no attribute {name!r}")
