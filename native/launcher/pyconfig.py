"""What meson must know of the building interpreter, one ``key=value`` a line."""

from __future__ import annotations

import os
import sys
import sysconfig


def site_directory() -> str:
    """Where the distribution (not a virtual environment) keeps extension packages."""
    debian = "/usr/lib/python3/dist-packages"
    if sys.base_prefix == "/usr" and os.path.isdir(debian):
        return debian
    return f"{sys.base_prefix}/lib/python{version()}/site-packages"


def version() -> str:
    """E.g. ``3.11``."""
    return sysconfig.get_python_version()


def libraries() -> list[str]:
    """What a program with a static libpython must be linked with, without the ``-l``."""
    words = " ".join(str(sysconfig.get_config_var(name) or "") for name in ("MODLIBS", "LIBS", "SYSLIBS")).split()
    return list(dict.fromkeys(word[2:] for word in words if word.startswith("-l")))


def main() -> None:
    """Print everything."""
    stdlib = sysconfig.get_path("stdlib")
    values = {
        "executable": os.path.realpath(getattr(sys, "_base_executable", sys.executable)),
        "prefix": sys.base_prefix,
        "exec_prefix": sys.base_exec_prefix,
        "stdlib": stdlib,
        "dynload": sysconfig.get_config_var("DESTSHARED") or f"{stdlib}/lib-dynload",
        "site": site_directory(),
        "suffix": sysconfig.get_config_var("EXT_SUFFIX"),
        "version": version(),
        "library": f"python{version()}",
        "static_dir": sysconfig.get_config_var("LIBPL") or "",
        "shared_dir": sysconfig.get_config_var("LIBDIR") or "",
        "libraries": " ".join(libraries()),
    }
    for key, value in values.items():
        print(f"{key}={value}")


if __name__ == "__main__":
    main()
