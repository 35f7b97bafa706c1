#!/usr/bin/env python3
"""Check the English of comments, docstrings, messages and documents against a list of phrases.

    .venv/bin/python contrib/prose.py [FILE...]

Without FILE it checks the files that git tracks. It prints ``file:line: "phrase": replacement`` for
each finding, and exits with 1 if there is any. Messages are the strings of raise statements and of
calls that report something; other strings, code, quotations in backticks and generated documents
are not checked.
"""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = 100

# Phrase (a regular expression) -> what to write instead.
PHRASES: dict[str, str] = {
    r"\b(tells?|told)\b(?! (\w+ ){0,6}apart\b)": "report, say, show, pass",
    r"(?<!there )(?<!may )\b(is|are|was|were|be) no (?!longer\b|more\b|less\b|later\b|such\b|different\b)\w+": "not a",
    r"\b(is|are|was|were) not there\b": "is missing, does not exist",
    r"(?<!\b[Ii]s )(?<!\bbe )\b(is|are|was|were|gets?) made\b(?! of\b| up\b)": "is created",
    r"\bas \w+ (has|have) it\b": "as in",
    r", too\b(?! )": "also, or nothing",
    r"\b(the|an) own \w+": "the caller's own, its own",
    r"\bwithout meaning\b": "ignored",
    r"\bstands?\b(?! for\b| in for\b|-in)": "is",
    r"\bthat of\b": "repeat the noun, or a possessive",
    r"\bof the moment\b": "current",
    r"\b(in|out)side of\b": "inside, outside",
    r"\bonce more\b": "again",
    r"\bfor ever\b": "forever",
    r"\bsomebody\b": "name the program, the process or the user",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"\bphrase what\b": "report",
    r"\bnobody they know\b": "unmapped",
    r"\bin force again\b": "restore",
    r"\b(is|are) too late\b": "say what must come first",
    r"\blet(s|ting)? \w+ in\b": "move into",
    r"\bhas not the\b": "differs from, lacks",
    r"(?<![\w,] )\b(?-i:Of) (?!course\b)(\w+ ){1,6}(is|are|has|have|does|do|tells?|stays?)\b": "put the subject first",
}
_PHRASES = [(re.compile(phrase, re.IGNORECASE), advice) for phrase, advice in PHRASES.items()]

# Documents that scripts write from tables or from measurements; their sources are checked.
GENERATED = {
    "bench/RESULTS.md",
    "docs/api.md",
    "docs/errors.md",
    "integration/DIFFERENTIAL.md",
    "integration/ENGINES.md",
    "integration/RELIABILITY.md",
    "integration/conformance.md",
    "integration/security/PROOF.md",
}
# Files that quote the phrases.
QUOTING = {"contrib/prose.py", "tests/test_prose.py"}
_C = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])*'", re.DOTALL)
_HASH = re.compile(r"(?:^|(?<=\s))#(?!!)[^\n]*")

# Calls that report a problem: of Python, and of init.
_REPORTS = re.compile(r"bad|debug|note|problem|warn|warning|\w*Error|Problem|Finding")
_FAULT = re.compile(r"\b(?:fault|warn_fault|die|fail)\((?:[^;\"]|\"(?:\\.|[^\"\\])*\")*;")
_C_STRING = re.compile(r"\"((?:\\.|[^\"\\\n])*)\"")

Part = tuple[int, str]  # the first line, and a text whose line breaks are the file's


def _of_python(text: str) -> Iterator[Part]:
    """Docstrings, and blocks of comments."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                yield first.lineno, first.value.value
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    yield from _joined(
        (token.start[0], token.start[1], token.string) for token in tokens if token.type == tokenize.COMMENT
    )


def messages(text: str) -> Iterator[Part]:
    """The strings of Python's raise statements and reporting calls; what a value replaces is a
    dot."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if _REPORTS.fullmatch(name):
                for child in (*node.args, *(keyword.value for keyword in node.keywords)):
                    yield from _strings(child)
        elif isinstance(node, ast.Raise) and not isinstance(node.exc, ast.Call):
            yield from _strings(node)


def _strings(node: ast.AST) -> Iterator[Part]:
    """The texts in an expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    elif isinstance(node, ast.JoinedStr):
        texts = [part.value if isinstance(part, ast.Constant) else "\N{MIDDLE DOT}" for part in node.values]
        yield node.lineno, "".join(map(str, texts))
    else:
        for child in ast.iter_child_nodes(node):
            yield from _strings(child)


def messages_of_c(text: str) -> Iterator[Part]:
    """The strings of init's calls that report a failure."""
    for call in _FAULT.finditer(text):
        for string in _C_STRING.finditer(call[0]):
            yield text.count("\n", 0, call.start() + string.start()) + 1, string[1]


def _joined(comments: Iterator[tuple[int, int, str]]) -> Iterator[Part]:
    """Comments on consecutive lines that start in the same column are one text."""
    begin, last, column, lines = 0, -1, -1, list[str]()
    for line, at, comment in comments:
        if line != last + 1 or at != column:
            if lines:
                yield begin, "\n".join(lines)
            begin, column, lines = line, at, []
        lines.append(comment.lstrip("#").strip())
        last = line
    if lines:
        yield begin, "\n".join(lines)


def _of_c(text: str) -> Iterator[Part]:
    """Comments; those of ``//`` on consecutive lines are one text."""
    found = []
    for match in _C.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        column = match.start() - text.rfind("\n", 0, match.start())
        if match[0].startswith("/*"):
            yield line, re.sub(r"(?m)^[ \t]*\*(?!/)|/\*+|\*+/", "", match[0])
        elif match[0].startswith("//"):
            found.append((line, column, match[0].lstrip("/")))
    yield from _joined(iter(found))


def _of_hash(text: str) -> Iterator[Part]:
    """Comments of the shell, of make and of meson."""
    yield from _joined(
        (number, match.start(), match[0])
        for number, line in enumerate(text.splitlines(), 1)
        if (match := _HASH.search(line))
    )


def _of_markdown(text: str) -> Iterator[Part]:
    """Paragraphs, items and cells; fenced and indented code is blank."""
    fenced, lines = False, []
    for line in text.splitlines():
        fence = line.lstrip().startswith("```")
        lines.append("" if fenced or fence or line.startswith("    ") else line)
        fenced ^= fence
    begin = 1
    for paragraph in re.split(r"(\n[ \t]*\n)", "\n".join(lines)):
        yield begin, paragraph
        begin += paragraph.count("\n")


def parts(path: Path) -> Iterator[Part]:
    """The prose of a file."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix in {".py", ".pyi"}:
        yield from _of_python(text)
        if path.is_relative_to(ROOT / "pyrunc"):
            yield from messages(text)
    elif path.suffix in {".c", ".h", ".def"}:
        yield from _of_c(text)
        if path.is_relative_to(ROOT / "native"):
            yield from messages_of_c(text)
    elif path.suffix == ".md":
        yield from _of_markdown(text)
    elif path.suffix in {".sh", ".build", ".options", ".toml", ".list", ".yaml"} or path.name == "Makefile":
        yield from _of_hash(text)


def findings(part: Part) -> Iterator[tuple[int, str, str]]:
    """Line, phrase and advice of each finding in a text; a phrase may go on in the next line."""
    line, text = part
    text = re.sub(r"``[^`]+``|`[^`]*`|\"[^\"\n]*\"", lambda quoted: re.sub(r"[^\n]", "\N{MIDDLE DOT}", quoted[0]), text)
    breaks = [match.start() for match in re.finditer("\n", text)]
    flat = text.replace("\n", " ")
    flat = re.sub(r"(?<=\s)\s+", lambda run: "\0" * len(run[0]), flat)
    places = [at for at, letter in enumerate(flat) if letter != "\0"]
    flat = flat.replace("\0", "")
    for phrase, advice in _PHRASES:
        for match in phrase.finditer(flat):
            yield line + bisect_right(breaks, places[match.start()] - 1), match[0], advice


def wide(path: Path) -> Iterator[tuple[int, str, str]]:
    """Lines of a document that are too long; tables, code, links and headings cannot be broken."""
    fenced = False
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        breakable = line.lstrip("*-> ").rpartition(" ")[0]
        if len(line) > COLUMNS and not fenced and breakable and not re.match(r"\s*[|#<]|    |\s*`[^`]*`$", line):
            yield number, line[:30], f"{len(line)} columns, wrap at {COLUMNS}"


def tracked() -> list[Path]:
    """The files of the tree that are written by hand."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)  # noqa: S607
    names = [name for name in done.stdout.decode().split("\0") if name and name not in GENERATED | QUOTING]
    return [ROOT / name for name in names if (ROOT / name).is_file()]


def main(argv: list[str]) -> int:
    bad = 0
    for path in [Path(name).resolve() for name in argv] or tracked():
        found = [one for part in parts(path) for one in findings(part)]
        if path.suffix == ".md":
            found += wide(path)
        for line, phrase, advice in sorted(found):
            bad += 1
            name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            print(f'{name}:{line}: "{phrase}": {advice}')
    if bad:
        print(f"prose: {bad} phrases to rewrite", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
