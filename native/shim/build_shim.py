"""cffi build script of ``pyrunc._shim`` (API mode): ``build_shim.py OUTPUT.c`` writes the
extension's C source.

The Python declarations are the C headers themselves, so that there is one copy of each prototype
and the C compiler checks every call against it.
"""

from __future__ import annotations

import pathlib
import re
import sys

from cffi import FFI

HERE = pathlib.Path(__file__).resolve().parent
MARKS = re.compile(r"\s*(?:PR_CALL\(.*\)|PR_VALUE)\s*;")  # of marks.h, at the end of a prototype
HEADERS = [name for name in ("shim.h", "seccomp.h", "bus.h") if (HERE / name).exists()]


def declarations(header: str) -> str:
    """The prototypes of one of our headers: everything but the preprocessor lines (guards,
    includes).

    ``#define NAME number`` stays: cffi knows integer constants.
    """
    kept = []
    for line in (HERE / header).read_text(encoding="ascii").splitlines():
        words = line.split()
        if line.startswith("#") and not (words[0] == "#define" and len(words) > 2 and words[2][0].isdigit()):
            continue
        kept.append(line if not line.startswith("#") else f"#define {words[1]} ...")
    return MARKS.sub(";", "\n".join(kept))


ffibuilder = FFI()
ffibuilder.set_source("pyrunc._shim", "\n".join(f'#include "{name}"' for name in HEADERS))
for name in HEADERS:
    ffibuilder.cdef(declarations(name))

if __name__ == "__main__":
    ffibuilder.emit_c_code(sys.argv[1])
