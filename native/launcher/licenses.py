"""Collect the licences of the executable's content: ``licenses.py OUTPUT [NAME=VERSION...]``.

`pyrunc --licenses` prints them.  The texts are the interpreter's licence, those of the Python
packages, and for each library the copyright file of the distribution.
"""

from __future__ import annotations

import importlib.metadata
import pathlib
import sys
import sysconfig

# Library -> (licence, packages of a distribution that may carry its copyright file)
LIBRARIES = {
    "libseccomp": ("LGPL-2.1-only", ("libseccomp-dev", "libseccomp2")),
    "zlib": ("Zlib", ("zlib1g-dev", "zlib1g")),
    "expat": ("MIT", ("libexpat1-dev", "libexpat1")),
    "musl": ("MIT", ("musl-dev", "musl")),
}
PACKAGES = ("pyroute2", "urllib3", "backports.zstd")
COMMON = pathlib.Path("/usr/share/common-licenses/LGPL-2.1")
NOT_USED = "GPL"  # pyroute2 may be used under the Apache License instead


def read(path: pathlib.Path) -> str:
    """Read a text without characters that affect a terminal."""
    return path.read_text(encoding="utf-8", errors="replace").replace("\r", "").replace("\f", "").strip()


def of_python() -> str:
    """Return the interpreter's licence, or a reference to it if the distribution removed the
    file."""
    places = [pathlib.Path(sysconfig.get_path("stdlib")) / "LICENSE.txt"]
    version = sysconfig.get_python_version()
    places += [pathlib.Path(f"/usr/share/doc/{name}{version}/copyright") for name in ("python", "libpython")]
    texts = [read(path) for path in places if path.exists()]
    return texts[0] if texts else "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2, https://docs.python.org/license.html"


def of_library(name: str) -> str:
    """Return a library's copyright file, or the name of its licence."""
    license_id, packages = LIBRARIES[name]
    places = [pathlib.Path(f"/usr/share/doc/{package}/copyright") for package in packages]
    texts = [read(path) for path in places if path.exists()] or [f"SPDX-License-Identifier: {license_id}"]
    if license_id.startswith("LGPL") and COMMON.exists():
        texts.append(read(COMMON))
    return "\n\n".join(texts[:1] + texts[-1:] if len(texts) > 1 else texts)


def of_package(name: str) -> tuple[str, str]:
    """Return version and licence texts of a Python package, empty if it is not installed."""
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return "", ""
    texts = [
        read(pathlib.Path(str(found.locate_file(path))))
        for path in found.files or ()
        if "licenses/" in str(path) and NOT_USED not in path.name
    ]
    return found.version, "\n\n".join(texts) or f"License: {found.metadata['License-Expression'] or 'unknown'}"


def main() -> None:
    """Write the file."""
    output, *pairs = sys.argv[1:]
    parts = [("CPython", sys.version.split()[0], of_python())]
    for pair in pairs:
        name, _, version = pair.partition("=")
        parts.append((name, version, of_library(name)))
    for name in PACKAGES:
        version, text = of_package(name)
        if text:
            parts.append((name, version, text))
    rule = "=" * 78
    lines = ["pyrunc is licensed under the Apache License 2.0.  This executable also holds:", ""]
    lines += [f"  {name} {version}".rstrip() for name, version, _ in parts]
    for name, version, text in parts:
        lines += ["", rule, f"{name} {version}".rstrip(), rule, "", text]
    pathlib.Path(output).write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
