"""Mutants of init's C code, created as text edits based on its tokens.

Security-relevant kinds come first: a removed check, a missing flag, an ignored error, two swapped
calls. The code is formatted by clang-format, so tokens suffice to recognize statements.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from integration.mutants.mutant import ROOT, Mutant, unique

TOKEN = re.compile(
    r"""
    (?P<skip>\s+|/\*.*?\*/|//[^\n]*)
  | (?P<line>^[ \t]*\#(?:\\\n|[^\n])*)
  | (?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
  | (?P<number>0[xX][0-9a-fA-F]+[uUlL]*|\d+[uUlL]*)
  | (?P<name>[A-Za-z_]\w*)
  | (?P<sign><<=|>>=|->|\+\+|--|<<|>>|<=|>=|==|!=|&&|\|\||[-+*/%&|^]=|[-+*/%&|^~!<>=?:;,.(){}\[\]])
    """,
    re.X | re.S | re.M,
)
# Delays and buffer sizes: a similar number is equally correct.
TUNING = re.compile(r"TICK|BUF|RETRIES|RACES|STACK")
COMPARE = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}
BINARY = {"+": "-", "-": "+", "<<": ">>", ">>": "<<", "&": "|"}
KEYWORDS = {
    "if",
    "for",
    "while",
    "return",
    "else",
    "do",
    "switch",
    "case",
    "break",
    "continue",
    "goto",
    "sizeof",
    "default",
}
ENDS = {"return", "continue", "break", "goto", "die", "_exit"}
# Tokens before an operand: after them, + - & * < > are not binary or not arithmetic operators.
BEFORE_OPERAND = {
    "(",
    ",",
    "=",
    "return",
    "?",
    ":",
    "&&",
    "||",
    "!",
    "{",
    "[",
    ";",
    "|",
    "&",
    "==",
    "!=",
    "<",
    ">",
    "<=",
    ">=",
}


class Token(NamedTuple):
    """A C token and its position."""

    kind: str
    text: str
    start: int
    end: int


def tokens_of(source: str) -> list[Token]:
    """All tokens except whitespace, comments and preprocessor lines."""
    found, at = [], 0
    while at < len(source):
        match = TOKEN.match(source, at)
        if match is None:
            raise ValueError(f"not a token of C: {source[at : at + 20]!r}")
        at = match.end()
        kind = match.lastgroup or ""
        if kind not in ("skip", "line"):
            found.append(Token(kind, match[0], match.start(), at))
    return found


class Finder:
    """Walk the functions of one file and collect edits."""

    def __init__(self, file: str, source: str) -> None:
        self.file, self.source = file, source
        self.tokens = tokens_of(source)
        self.found: list[Mutant] = []
        self.scope = ""
        self.close: dict[int, int] = {}  # index of an opening bracket -> index of the closing one
        open_: list[int] = []
        for index, token in enumerate(self.tokens):
            if token.text in ("(", "[", "{"):
                open_.append(index)
            elif token.text in (")", "]", "}"):
                self.close[open_.pop()] = index
        self.open = {after: before for before, after in self.close.items()}

    def all(self) -> list[Mutant]:
        """Every mutant of the file."""
        for name, begin, end in self.functions():
            self.scope = name
            self.statements(begin, end)
            for index in range(begin + 1, end):
                self.token(index)
        self.tables()
        return self.found

    def functions(self) -> Iterator[tuple[str, int, int]]:
        """The name and the indices of the braces of every function: a top-level brace after a
        parenthesis."""
        index = 0
        while index < len(self.tokens):
            if self.tokens[index].text == "{":
                end = self.close[index]
                if self.tokens[index - 1].text == ")":
                    yield self.tokens[self.open[index - 1] - 1].text, index, end
                index = end
            index += 1

    def tables(self) -> None:
        """Mutate numbers and flags in static tables and in #define, outside functions."""
        self.scope = ""
        for match in re.finditer(r"^#define (\w+)[ \t]+(\d+)\b", self.source, re.M):
            if TUNING.search(match[1]):
                continue
            value = int(match[2])
            self.add("constant", match.start(2), match.end(2), str({0: 1, 1: 0}.get(value, value + 1)))

    def add(self, kind: str, start: int, end: int, text: str) -> None:
        """Add a mutant."""
        self.found.append(Mutant(self.file, self.scope, kind, start, end, text, self.source))

    # -- statements --------------------------------------------------------------------------------

    def statements(self, begin: int, end: int) -> None:
        """Mutate the statements of one block and of its nested blocks."""
        index, before = begin + 1, None
        while index < end:
            last = self.statement_end(index)
            self.statement(index, last)
            if before is not None and self.is_call(*before) and self.is_call(index, last):
                self.swap(before, (index, last))
            before = (index, last)
            index = last + 1

    def statement_end(self, index: int) -> int:
        """The index of a statement's last token."""
        text = self.tokens[index].text
        if text == "{":
            return self.close[index]
        if text in ("if", "for", "while", "switch"):
            last = self.statement_end(self.close[index + 1] + 1)
            if text == "if" and self.tokens[last + 1].text == "else":
                return self.statement_end(last + 2)
            return last
        if text == "do":
            index = self.statement_end(index + 1) + 1
        while self.tokens[index].text != ";":
            if text in ("case", "default") and self.tokens[index].text == ":":
                return index
            index = self.close.get(index, index) + 1
        return index

    def statement(self, index: int, last: int) -> None:
        """Mutate one statement."""
        first = self.tokens[index]
        if first.text == "{":
            self.statements(index, last)
        elif first.text in ("if", "while", "for", "switch"):
            self.controlled(index)
        elif first.text == "return":
            self.returned(index, last)
        elif first.text in ("break", "continue"):
            self.add("loop", first.start, first.end, "continue" if first.text == "break" else "break")
        elif self.is_call(index, last) or self.is_assignment(index, last):
            self.add("statement dropped", first.start, self.tokens[last].start, "(void)0")

    def controlled(self, index: int) -> None:
        """Mutate the condition and the body of an if, while, for or switch."""
        head = self.close[index + 1]
        word = self.tokens[index].text
        start, end = self.tokens[index + 1].end, self.tokens[head].start
        condition = self.source[start:end]
        body = head + 1
        stop = self.statement_end(body)
        if word in ("if", "while"):
            self.add("condition negated", start, end, f"!({condition})")
        if word == "if" and self.ends(body, stop) and self.tokens[stop + 1].text != "else":
            self.add("check dropped", start, end, f"({condition}) && 0")
        self.statement(body, stop)
        if word == "if" and self.tokens[stop + 1].text == "else":
            self.statement(stop + 2, self.statement_end(stop + 2))

    def ends(self, index: int, last: int) -> bool:
        """Whether a statement leaves the function or the loop."""
        if self.tokens[index].text == "{":
            at = index + 1
            while (stop := self.statement_end(at)) + 1 < last:
                at = stop + 1
            return self.ends(at, stop)
        return self.tokens[index].text in ENDS

    def is_call(self, index: int, last: int) -> bool:
        """Whether a statement is a call, ``name(...);``."""
        first = self.tokens[index]
        if first.kind != "name" or first.text in KEYWORDS or self.tokens[index + 1].text != "(":
            return False
        return self.close[index + 1] == last - 1 and first.text not in ("die", "_exit")

    def is_assignment(self, index: int, last: int) -> bool:
        """Whether a statement is an assignment, ``something = value;``, and not a declaration."""
        at = index
        while at < last and self.tokens[at].text not in ("=", "|=", "&=", "+=", "-=", "<<=", ">>="):
            at = self.close.get(at, at) + 1
        names = [token.kind == "name" for token in self.tokens[index:at]]
        return (
            at < last and not any(a and b for a, b in itertools.pairwise(names)) and "*" not in self.text(index + 1, at)
        )

    def text(self, index: int, last: int) -> str:
        """The source from one token up to another, exclusive."""
        return self.source[self.tokens[index].start : self.tokens[last].start]

    def returned(self, index: int, last: int) -> None:
        """Replace ``return error`` with success."""
        value = self.text(index + 1, last).strip() if last > index + 1 else ""
        if re.match(r"-E[A-Z0-9]+$|-errno$|fault\(|[a-z]*_fault\(|ret$", value):
            self.add("error swallowed", self.tokens[index + 1].start, self.tokens[last].start, f"({value}, 0)")

    def swap(self, one: tuple[int, int], two: tuple[int, int]) -> None:
        """Swap two calls."""
        start, end = self.tokens[one[0]].start, self.tokens[two[1]].end
        first = self.source[start : self.tokens[one[1]].end]
        second = self.source[self.tokens[two[0]].start : end]
        self.add("order", start, end, f"{second} {first}")

    # -- expressions -------------------------------------------------------------------------------

    def token(self, index: int) -> None:
        """Mutate one token."""
        token, before = self.tokens[index], self.tokens[index - 1]
        if token.text in COMPARE and not (token.text in ("<", ">=") and self.tokens[index + 1].text == "0"):
            # A result below 0 is an error. No result is 0 where that would matter, because 0, 1
            # and 2 are open.
            self.add("comparison", token.start, token.end, COMPARE[token.text])
        elif token.text == "|":
            self.flags(index)
        elif token.text in ("&&", "||"):
            self.add("and/or", token.start, token.end, "||" if token.text == "&&" else "&&")
            self.operands(index)
        elif token.text in BINARY and before.text not in BEFORE_OPERAND and not self.is_pointer(index):
            self.add("operator", token.start, token.end, BINARY[token.text])
        elif token.text in ("!", "~") and before.text != "!":
            self.add("operator", token.start, token.end, "")
        elif token.text == "?":
            self.choice(index)
        elif token.kind == "number" and not (before.text in ("<", ">=") and token.text == "0"):
            self.number(token, index)

    def is_size(self, index: int) -> bool:
        """Whether a number is the size in a declaration, ``int a[2]``; one more element changes
        nothing."""
        inside = self.tokens[index - 1].text == "[" and self.tokens[index + 1].text == "]"
        words = self.tokens[max(index - 3, 0) : index - 1]
        return inside and [word.kind for word in words] == ["name", "name"] and words[0].text not in KEYWORDS

    def is_pointer(self, index: int) -> bool:
        """Whether ``&`` or ``*`` belongs to a declaration, a cast or an address."""
        before, token = self.tokens[index - 1], self.tokens[index]
        return token.text == "&" and before.kind != "name" and before.text not in (")", "]")

    def number(self, token: Token, index: int) -> None:
        """Change a number."""
        if self.is_size(index):
            return
        digits = token.text.rstrip("uUlL")
        value = int(digits, 16 if digits[:2].lower() == "0x" else 8 if digits[0] == "0" and len(digits) > 1 else 10)
        suffix = token.text[len(digits) :]
        if suffix.lower() != "l":  # unused arguments of system calls
            self.add("constant", token.start, token.end, str({0: 1, 1: 0}.get(value, value + 1)) + suffix)

    def flags(self, index: int) -> None:
        """Drop the flag on either side of a ``|``."""
        left, right = self.operand(index, -1, "|"), self.operand(index, 1, "|")
        if left is not None and self.tokens[index - 1].text != "O_RDONLY":  # 0
            self.add("flag dropped", left, self.tokens[index + 1].start, "")
        if right is not None and self.tokens[index + 1].text != "(":
            self.add("flag dropped", self.tokens[index - 1].end, right, "")

    def operand(self, index: int, step: int, stop: str) -> int | None:
        """The position where the operand before or after an operator begins or ends; None if
        unknown."""
        at = index + step
        pairs = self.close if step > 0 else self.open
        ends = {"(", ")", "{", "}", "[", "]", ",", ";", "=", "|=", "?", ":", "return", stop} | (
            {"&&", "||"} if stop == "|" else set()
        )
        if stop == "&&":
            ends.add("||")
        while True:
            text = self.tokens[at].text
            if at in pairs:
                at = pairs[at] + step
                continue
            if text in ends:
                edge = self.tokens[at - step]
                return edge.start if step < 0 else edge.end
            at += step

    def operands(self, index: int) -> None:
        """Drop one operand of ``a && b``."""
        token = self.tokens[index]
        left, right = self.operand(index, -1, token.text), self.operand(index, 1, token.text)
        neutral = "1" if token.text == "&&" else "0"
        if left is not None and right is not None:
            self.add("operand dropped", left, token.start, f"{neutral} ")
            self.add("operand dropped", self.tokens[index + 1].start, right, neutral)

    def choice(self, index: int) -> None:
        """Invert the choice of ``a ? b : c``."""
        at = index - 1
        while self.tokens[at].text not in ("(", "{", "[", ",", ";", "=", "return", "?", ":", "}"):
            at = self.open.get(at, at) - 1
        start, end = self.tokens[at + 1].start, self.tokens[index].start
        self.add("condition negated", start, end, f"!({self.source[start:end].strip()}) ")


def mutants_of(path: Path, root: Path = ROOT) -> list[Mutant]:
    """All mutants of a file."""
    return unique(Finder(str(path.relative_to(root)), path.read_text(encoding="utf-8")).all())


def everything(root: Path = ROOT) -> Iterator[Mutant]:
    """All mutants of init."""
    for path in sorted((root / "native/init").glob("*.c")):
        yield from mutants_of(path, root)
