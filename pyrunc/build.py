"""What this build is made of: for --version and features."""

from __future__ import annotations

from pyrunc import interpreter
from pyrunc.native import libseccomp as native

COMMIT = "unknown"  # native/launcher/freeze.py has the commit instead when it knows it


def commit() -> str:
    """The commit this was built from, or "unknown"."""
    return COMMIT


def libseccomp() -> str:
    """Version of the libseccomp that is linked in, ``a.b.c``."""
    number = native.version()
    return f"{number >> 16}.{number >> 8 & 0xFF}.{number & 0xFF}"


def launcher() -> str:
    """How the interpreter is started: ``static, start-up snapshot``."""
    kind, snapshot = interpreter.about()
    return f"{kind}, {'start-up snapshot' if snapshot else 'no start-up snapshot'}" if kind else "an interpreter's own"
