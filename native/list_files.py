"""List files below a directory for meson: ``list_files.py DIR PATTERN...``, relative to the source
root, sorted."""

from __future__ import annotations

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def main() -> None:
    """Print one path a line."""
    found = {path for pattern in sys.argv[2:] for path in (ROOT / sys.argv[1]).rglob(pattern) if path.is_file()}
    for path in sorted(found):
        print(path.relative_to(ROOT).as_posix())


if __name__ == "__main__":
    main()
