"""Mutants of the shim's C code, and where Python calls it.

The interpreter cannot count the shim's lines. So the tests that reach one of its functions are those
that reach the Python code which calls it, through the exported functions that lead to it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from integration.mutants import of_c
from integration.mutants.mutant import ROOT, Mutant

PLACE = "native/shim/"
EXPORTED = "pr_"


def everything(root: Path = ROOT) -> Iterator[Mutant]:
    """All mutants of the shim."""
    for path in sorted((root / PLACE).glob("*.c")):
        yield from of_c.mutants_of(path, root)


Function = tuple[str, str]  # file and name


@cache
def users(root: Path = ROOT) -> tuple[dict[Function, bool], dict[Function, set[str]]]:
    """All functions, and whether they are static; and the functions that name something in a file."""
    defined: dict[Function, bool] = {}
    found: dict[Function, set[str]] = defaultdict(set)
    for path in (root / PLACE).glob("*.c"):
        finder = of_c.Finder(str(path), path.read_text(encoding="utf-8"))
        for name, begin, end in finder.functions():
            head = finder.source[: finder.tokens[begin].start].rpartition("\n\n")[2]
            defined[path.name, name] = re.search(r"^static\b", head, re.M) is not None
            for token in finder.tokens[begin:end]:
                if token.kind == "name" and token.text != name:
                    found[path.name, token.text].add(name)
    return defined, found


def exported(file: str, name: str, root: Path = ROOT) -> set[str]:
    """The functions for Python that lead to a function or a macro of a file, without their prefix."""
    defined, named = users(root)
    files = {path for path, _ in defined}
    found: set[Function] = set()
    todo = [(Path(file).name, name)]
    while todo:
        one = todo.pop()
        if one in found:
            continue
        found.add(one)
        # Another file that defines the name means its own function.
        local = defined.get(one, True)
        among = [path for path in files if path == one[0] or not (local or (path, one[1]) in defined)]
        todo += [(path, user) for path in among for user in named.get((path, one[1]), ())]
    return {name.removeprefix(EXPORTED) for _, name in found if name.startswith(EXPORTED)}


@cache
def native_names(root: Path = ROOT) -> dict[str, set[tuple[str, str]]]:
    """For each exported function, the modules of pyrunc.native and their names that use it."""
    found: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for path in (root / "pyrunc/native").glob("*.py"):
        inside = ""
        for line in path.read_text(encoding="utf-8").splitlines():
            if match := re.match(r"(?:def )?(\w+)(?:\(| = |: )", line):
                inside = match[1]
            for name in re.findall(r"\bcalls\.(\w+)", line):
                found[name].add((path.stem, inside))
    return found


@cache
def python(root: Path) -> dict[str, str]:
    """All our Python code, by file."""
    return {str(path.relative_to(root)): path.read_text(encoding="utf-8") for path in (root / "pyrunc").rglob("*.py")}


def in_python(mutant: Mutant, root: Path = ROOT) -> tuple[set[str], set[tuple[str, str]], dict[str, set[int]]]:
    """The exported functions that lead to a mutant, the modules of pyrunc.native and their names that
    use these, and the lines, by file, that use those."""
    macro = re.match(r"#define (\w+)", mutant.lines[0])
    functions = exported(mutant.file, macro[1] if macro and not mutant.scope else mutant.scope, root)
    names = {name for function in functions for name in native_names(root).get(function, ())}
    words = [rf"{module}\.{name}" for module, name in names] + [rf"calls\.{function}" for function in functions]
    pattern = re.compile(rf"\b(?:{'|'.join(words)})\b")
    lines: dict[str, set[int]] = defaultdict(set)
    for file, text in python(root).items() if words else ():
        for match in pattern.finditer(text):
            lines[file].add(text.count("\n", 0, match.start()) + 1)
    return {EXPORTED + function for function in functions}, names, lines
