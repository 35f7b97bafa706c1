"""hashlib in an executable whose interpreter lacks all hashes but SHA-2 (freeze.py, inittab.py)."""

from __future__ import annotations

from typing import Any

from _sha2 import sha224, sha256, sha384, sha512  # type: ignore[import-not-found]  # mypy knows 3.11

_HASHES = {"sha224": sha224, "sha256": sha256, "sha384": sha384, "sha512": sha512}


def new(name: str, data: bytes = b"", **unused: Any) -> Any:
    """Return a hash object.  Raises ValueError for an unknown name."""
    if name not in _HASHES:
        raise ValueError(f"unsupported hash type {name}")
    return _HASHES[name](data)
