"""Print facts about the building interpreter and the source for meson, one ``key=value`` per
line."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import sysconfig


def version() -> str:
    """Return the version, e.g. ``3.11``."""
    return sysconfig.get_python_version()


def libraries() -> list[str]:
    """Return the libraries to link with a static libpython, without ``-l``."""
    words = " ".join(str(sysconfig.get_config_var(name) or "") for name in ("MODLIBS", "LIBS", "SYSLIBS")).split()
    return list(dict.fromkeys(word[2:] for word in words if word.startswith("-l")))


def lacks() -> list[str]:
    """Return the modules of hot verbs that are shared libraries, which no snapshot can contain."""
    return [name for name in ("_struct", "fcntl", "select") if name not in sys.builtin_module_names]


def commit() -> str:
    """Return the checked-out commit, with ``-dirty`` if files differ; "unknown" outside a
    checkout."""
    root = pathlib.Path(__file__).resolve().parent.parent.parent
    git = ["git", "-C", str(root)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True)
        if pathlib.Path(top.stdout.strip()).resolve() != root:  # inside the repository of another project
            return "unknown"
        describe = [*git, "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty"]
        return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> None:
    """Print everything."""
    values = {
        "executable": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
        "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
        "version": version(),
        "library": f"python{version()}",
        "static_dir": sysconfig.get_config_var("LIBPL") or "",
        "shared_dir": sysconfig.get_config_var("LIBDIR") or "",
        "libraries": " ".join(libraries()),
        "lacks": " ".join(lacks()),
        "commit": commit(),
    }
    for key, value in values.items():
        print(f"{key}={value}")


if __name__ == "__main__":
    main()
