"""Annotations ``org.systemd.property.NAME`` as D-Bus values, in the subset of GVariant's text
format that properties use.

Booleans, numbers (``5``, ``-0x1f``, ``1.5``), strings, byte strings (``b'..'``), arrays, tuples,
dictionaries, variants (``<5>``), and types before a value (``uint64 5``, ``@as []``). A plain
integer is an int32, as in GVariant; systemd accepts only the property's exact type.
"""

from __future__ import annotations

from pyrunc.errors import show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.cgroup.bus import Value

_KEYWORDS = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
_RANGES = {"y": (0, 8), "n": (1, 16), "q": (0, 16), "i": (1, 32), "u": (0, 32), "x": (1, 64), "t": (0, 64)}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "a": "\a"}
_WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
MAX_DEPTH = 32
TEXT_MAX = 4096  # a value for systemd takes a line or two


def as_property(name: str, text: str) -> tuple[str, Value]:
    """A property's name and value; ``FooSec`` becomes ``FooUSec`` in microseconds, the only form on
    D-Bus.

    Raises ValueError that says what was expected.
    """
    if len(name) < 3 or not (name.isascii() and name.isalpha()):
        raise ValueError("a property name of at least three letters after org.systemd.property.")
    if len(text) > TEXT_MAX:
        raise ValueError(f"at most {TEXT_MAX} characters")
    value = parse(text)
    if name.endswith("Sec") and not name.endswith("USec"):
        if value[0] not in (*_RANGES, "d"):
            raise ValueError("a number of seconds")
        return name[:-3] + "USec", in_range("t", round(value[1] * 1_000_000))
    return name, value


def parse(text: str) -> Value:
    """Parse a value. Raises ValueError."""
    scanner = Scanner(text)
    value = scanner.value("", 0)
    if scanner.peek():
        raise ValueError(f"the end of the value, not {show(scanner.text[scanner.at :][:20])}")
    return value


def in_range(kind: str, number: int) -> Value:
    """Check an integer of a D-Bus type. Raises ValueError if it is out of range."""
    signed, bits = _RANGES[kind]
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= number <= high:
        raise ValueError(f"a number from {low} to {high}")
    return kind, number


class Scanner:
    """A position in a text."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0

    def peek(self) -> str:
        """The next non-blank character; "" at the end."""
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def take(self, char: str) -> bool:
        """Skip a character if it is next."""
        if self.peek() == char:
            self.at += 1
            return True
        return False

    def need(self, char: str) -> None:
        """Skip a required character. Raises ValueError if another is next."""
        if not self.take(char):
            raise ValueError(f"{char!r} at character {self.at + 1}")

    def run(self, chars: str) -> str:
        """The longest run of these characters."""
        start = self.at
        while self.at < len(self.text) and self.text[self.at] in chars:
            self.at += 1
        return self.text[start : self.at]

    def value(self, kind: str, depth: int) -> Value:
        """Parse a value; ``kind`` is the signature it must have, "" to infer it. Raises
        ValueError."""
        if depth > MAX_DEPTH:
            raise ValueError(f"at most {MAX_DEPTH} levels")
        char = self.peek()
        if char == "@":
            self.at += 1
            said = self.run("abdginoqstuvxy(){}")
            if not said or (kind and said != kind):
                raise ValueError(f"a value of type {kind or '?'}")
            return self.value(said, depth + 1)
        if char in ("'", '"'):
            return self.string(kind or "s")
        if char == "b" and self.text[self.at + 1 : self.at + 2] in ('"', "'"):
            self.at += 1
            return "ay", self.quoted().encode("latin-1", "replace") + b"\0"
        if char == "[":
            return self.array(kind, depth)
        if char == "<":
            self.at += 1
            inner = self.value("", depth + 1)
            self.need(">")
            return "v", inner
        if char == "(":
            return self.tuple(kind, depth)
        if char == "{":
            return self.dictionary(kind, depth)
        if char.isalpha():
            return self.word(kind, depth)
        return self.number(kind)

    def word(self, kind: str, depth: int) -> Value:
        """true, false, or a type's name and its value."""
        word = self.run(_WORD)
        if word in ("true", "false"):
            return self.typed(kind or "b", "b", word == "true")
        said = _KEYWORDS.get(word, "")
        if not said or (kind and said != kind):
            raise ValueError(f"a GVariant value, not {show(word)} (strings need quotes)")
        return self.value(said, depth + 1)

    def typed(self, kind: str, own: str, value: object) -> Value:
        """Check a value whose type is fixed. Raises ValueError if another type is required."""
        if kind != own:
            raise ValueError(f"a value of type {kind}")
        return own, value

    def string(self, kind: str) -> Value:
        """A text in quotes."""
        if kind not in ("s", "o", "g"):
            raise ValueError(f"a value of type {kind}")
        return kind, self.quoted()

    def quoted(self) -> str:
        """The text between quotes, with escapes resolved."""
        quote = self.text[self.at]
        self.at += 1
        out: list[str] = []
        while True:
            char = self.text[self.at : self.at + 1]
            self.at += 1
            if not char:
                raise ValueError(f"a closing {quote}")
            if char == quote:
                return "".join(out)
            if char == "\\":
                char = self.text[self.at : self.at + 1]
                self.at += 1
                size = {"u": 4, "U": 8}.get(char)
                if size:
                    digits = self.text[self.at : self.at + size]
                    self.at += size
                    code = int(digits, 16) if digits.isalnum() and len(digits) == size else 0
                    if not 0 < code <= 0x10FFFF:
                        raise ValueError("a character's number after \\u")
                    char = chr(code)
                else:
                    char = _ESCAPES.get(char, char)
            out.append(char)

    def number(self, kind: str) -> Value:
        """An integer or a real number."""
        word = self.run("+-." + _WORD)
        whole = not kind or kind in _RANGES
        try:
            if whole and not (any(c in word for c in ".eE") and "x" not in word.lower()):
                return in_range(kind or "i", integer(word))
            if kind in ("", "d"):
                return "d", float(word)
        except ValueError as error:
            if str(error).startswith("a number from"):
                raise
        raise ValueError(f"a value{' of type ' + kind if kind else ''}, not {show(word) if word else 'nothing'}")

    def array(self, kind: str, depth: int) -> Value:
        """``[a, b]``; the elements have the type of the first."""
        if kind and kind[0] != "a":
            raise ValueError(f"a value of type {kind}")
        self.need("[")
        inner = kind[1:]
        items: list[object] = []
        if not self.take("]"):
            while True:
                inner, item = self.value(inner, depth + 1)
                items.append(item)
                if self.take("]"):
                    break
                self.need(",")
        if not inner:
            raise ValueError("the type of an empty array, such as @as []")
        return "a" + inner, items

    def tuple(self, kind: str, depth: int) -> Value:
        """``(a, b)``."""
        from pyrunc.cgroup.bus import split

        if kind and kind[0] != "(":
            raise ValueError(f"a value of type {kind}")
        wanted = split(kind[1:-1]) if kind else []
        self.need("(")
        kinds: list[str] = []
        items: list[object] = []
        while not self.take(")"):
            one, item = self.value(wanted[len(items)] if len(items) < len(wanted) else "", depth + 1)
            kinds.append(one)
            items.append(item)
            if not self.take(","):
                self.need(")")
                break
        signature = f"({''.join(kinds)})"
        if not kinds or (kind and signature != kind):
            raise ValueError(f"a value of type {kind or '(...)'}")
        return signature, tuple(items)

    def dictionary(self, kind: str, depth: int) -> Value:
        """``{key: value}``."""
        from pyrunc.cgroup.bus import split

        if kind and kind[:2] != "a{":
            raise ValueError(f"a value of type {kind}")
        key_kind, value_kind = split(kind[2:-1]) if kind else ("", "")
        self.need("{")
        out: dict[object, object] = {}
        if not self.take("}"):
            while True:
                key_kind, key = self.value(key_kind, depth + 1)
                self.need(":")
                value_kind, item = self.value(value_kind, depth + 1)
                if key_kind not in _KEYWORDS.values():
                    raise ValueError("a key of a basic type")
                out[key] = item
                if self.take("}"):
                    break
                self.need(",")
        if not key_kind:
            raise ValueError("the type of an empty dictionary, such as @a{sv} {}")
        return f"a{{{key_kind}{value_kind}}}", out


def integer(word: str) -> int:
    """An integer: decimal, ``0x`` hexadecimal, or octal with a leading 0 as in C. Raises
    ValueError."""
    digits = word.lstrip("+-")
    base = 16 if digits[:2].lower() == "0x" else 8 if digits[:1] == "0" and len(digits) > 1 else 10
    return int(word, base) if base != 8 else int(word.replace("0", "0o0", 1), 8)
