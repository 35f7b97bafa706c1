"""The components of this build, for --version and features."""

from __future__ import annotations

from pyrunc import interpreter
from pyrunc.native import libseccomp as native

COMMIT = "unknown"  # native/launcher/freeze.py replaces this, if the commit is known


def commit() -> str:
    """The commit of the source tree, or "unknown"."""
    return COMMIT


def libseccomp() -> str:
    """The version of the linked libseccomp, ``a.b.c``."""
    number = native.version()
    return f"{number >> 16}.{number >> 8 & 0xFF}.{number & 0xFF}"


def launcher() -> str:
    """The kind of the launcher, for example ``static, start-up snapshot``."""
    kind, snapshot = interpreter.about()
    return f"{kind}, {'start-up snapshot' if snapshot else 'no start-up snapshot'}" if kind else "an interpreter's own"
