"""Build the container-side program: ``build_init.py musl|glibc OUTPUT COMPILER... -- FLAGS... --
SOURCES...``.

It must be a static position-independent executable without an interpreter: the loader of whatever
root filesystem would be the container's code. musl-gcc's specs know ``-static`` and know ``-pie``
but not both, so for musl the start file and the linker flags are named here.
"""

from __future__ import annotations

import pathlib
import re
import struct
import subprocess
import sys

PT_INTERP, ET_DYN = 3, 3


def musl_start_file(compiler: list[str]) -> str:
    """Where musl's rcrt1.o is: beside the crt1.o that the compiler driver would link."""
    command = [*compiler, "-###", "-x", "c", "/dev/null"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r'([^\s"]*/)S?crt1\.o', shown)
    if not found:
        raise SystemExit("build_init: cannot tell where musl's start files are")
    return f"{found[1]}rcrt1.o"


def link_flags(libc: str, compiler: list[str]) -> list[str]:
    """What makes the result a static PIE."""
    if libc == "glibc":
        return ["-static-pie"]
    start = musl_start_file(compiler)
    directory = start.removesuffix("rcrt1.o")
    plain = ["-static", "-nostartfiles", "-Wl,-pie,--no-dynamic-linker,-z,text"]
    return [*plain, start, f"{directory}crti.o", f"{directory}crtn.o"]


def check(path: pathlib.Path) -> None:
    """Raises SystemExit when the program is not what it must be."""
    data = path.read_bytes()
    kind = struct.unpack_from("=H", data, 16)[0]
    offset, size, count = (*struct.unpack_from("=Q", data, 32), *struct.unpack_from("=HH", data, 54))
    kinds = [struct.unpack_from("=I", data, offset + i * size)[0] for i in range(count)]
    if kind != ET_DYN or PT_INTERP in kinds:
        raise SystemExit(f"build_init: {path} is not a static position-independent executable")


def main() -> None:
    """Run the compiler that meson names once on everything: the whole program is 3 000 lines."""
    libc, output = sys.argv[1], pathlib.Path(sys.argv[2])
    rest = sys.argv[3:]
    first, second = (i for i, word in enumerate(rest) if word == "--")
    compiler, flags, sources = rest[:first], rest[first + 1 : second], rest[second + 1 :]
    command = [*compiler, *flags, "-o", str(output), *sources, *link_flags(libc, compiler)]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(1)
    check(output)


if __name__ == "__main__":
    main()
