"""What this build is made of: for --version and features."""

from __future__ import annotations

COMMIT = "unknown"  # the build writes the commit here when it knows it


def commit() -> str:
    """The commit this was built from, or "unknown"."""
    return COMMIT


def libseccomp() -> str:
    """Version of the libseccomp that is linked in, ``a.b.c``."""
    from pyrunc import seccomp

    return seccomp.library_version()
