"""A stand-in for gcc and musl-gcc that compiles each source separately and caches the object, so
that a mutant costs one compilation and one link.

Tests compile many sources in one command. Objects are cached by their inputs; new ones go to a
directory that is writable in the sandbox. Warnings are not errors, because a removed statement may
leave something unused. If MUTANTS_BLOCKS is set, programs built from init's code also record which
basic blocks ran (native/coverage/blocks.c).

Environment: MUTANTS_COMPILERS (directory of links to the real compilers), MUTANTS_OBJECTS
(directories; the last one is written to), MUTANTS_BLOCKS (directory of the shared files).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys

IGNORED = ("-Werror", "-Wall", "-Wextra", "-Wconversion", "-MD", "-MMD")
BLOCKS = ["-fsanitize-coverage=trace-pc", "-fno-inline", "-g"]
NATIVE = os.path.join("native", "")


def headers(tree: str) -> bytes:
    """The text of every header that a source may include."""
    out = hashlib.sha256()
    for folder in ("init", "tests", "shim", "reader"):
        at = os.path.join(tree, "native", folder)
        for name in sorted(os.listdir(at) if os.path.isdir(at) else ()):
            if name.endswith(".h"):
                with open(os.path.join(at, name), "rb") as file:
                    out.update(file.read())
    return out.digest()


def split(argv: list[str]) -> tuple[list[str], list[str], list[str], str]:
    """Split a command line into compiler flags, linker flags, sources and the output."""
    compile_, link, sources, output = [], [], [], ""
    words = iter(argv)
    for word in words:
        if word == "-o":
            output = next(words)
        elif word.endswith(".c") and not word.startswith("-"):
            sources.append(os.path.abspath(word))
        elif (
            word.startswith(("-Wl,", "-l", "-L", "@"))
            or word.endswith(".o")
            or word in ("-static", "-s", "-nostartfiles")
        ):
            link.append(word)
        elif not word.startswith(IGNORED):
            compile_.append(word)
    return compile_, link, sources, output


def compiled(real: str, flags: list[str], source: str, known: bytes) -> str:
    """The object of a source, from a cache or newly compiled."""
    places = os.environ["MUTANTS_OBJECTS"].split(":")
    with open(source, "rb") as file:
        text = file.read()
    key = hashlib.sha256(b"\0".join([real.encode(), *(flag.encode() for flag in flags), text, known])).hexdigest()[:24]
    name = f"{os.path.basename(source)}-{key}.o"
    for place in places:
        if os.path.exists(os.path.join(place, name)):
            return os.path.join(place, name)
    os.makedirs(places[-1], exist_ok=True)
    out = os.path.join(places[-1], name)
    partial = f"{out}.{os.urandom(6).hex()}"  # sandboxes have the same process ids
    done = subprocess.run([real, "-w", *flags, "-c", "-o", partial, source], check=False)
    if done.returncode:
        sys.exit(done.returncode)
    os.rename(partial, out)
    return out


def program_blocks(output: str) -> list[str]:
    """The object that counts the blocks of this program, which is identified by its name."""
    place = os.environ.get("MUTANTS_BLOCKS", "")
    name = os.path.basename(output)
    path = os.path.join(place, name + ".blocks") if place else ""
    return [f'-DBLOCKS_FILE="{path}"'] if path and os.path.exists(path) else []


def main() -> None:
    """Compile a program from several of our sources; run the real compiler for anything else."""
    name = os.path.basename(sys.argv[0])
    real = os.path.join(os.environ["MUTANTS_COMPILERS"], name)
    compile_, link, sources, output = split(sys.argv[1:])
    ours = bool(sources) and any(NATIVE in source for source in sources)
    if not ours or not output or {"-c", "-S", "-E", "-shared", "-###"} & set(compile_):
        os.execv(real, [real, *sys.argv[1:]])  # noqa: S606
    tree = sources[0][: sources[0].index(NATIVE)]
    known, blocks = headers(tree), program_blocks(output)
    more = BLOCKS if blocks else []
    objects = []
    for source in sources:
        own = more if f"{NATIVE}init/" in source else []
        objects.append(compiled(real, [*compile_, *own], source, known))
    if blocks:
        link = [word for word in link if word != "-s"]
        objects.append(compiled(real, [*compile_, *blocks], os.path.join(tree, "native/coverage/blocks.c"), known))
    command = [real, *compile_, "-o", output, *objects, *link]
    if not blocks:
        os.execv(real, command)  # noqa: S606
    status = subprocess.run(command, check=False).returncode
    if status == 0:
        shutil.copy(output, os.environ["MUTANTS_BLOCKS"])  # for its lines, after the test has removed it
    sys.exit(status)


if __name__ == "__main__":
    main()
