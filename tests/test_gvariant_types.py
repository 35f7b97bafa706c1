"""pyrunc.cgroup.gvariant: nesting, explicit types, names of properties, positions in errors."""

from __future__ import annotations

import pytest

from pyrunc.cgroup import gvariant

LEVELS = gvariant.MAX_DEPTH


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("[", "]"), ("<", ">"), ("(", ",)"), ("(1,", ")"), ("{1: ", "}"), ("int32 ", ""), ("@i ", ""),
    ],
)  # fmt: skip
def test_levels_are_limited(before: str, after: str) -> None:
    assert gvariant.parse(before * LEVELS + "1" + after * LEVELS)
    with pytest.raises(ValueError, match=f"^at most {LEVELS} levels$"):
        gvariant.parse(before * (LEVELS + 1) + "1" + after * (LEVELS + 1))


def test_levels_of_keys() -> None:
    with pytest.raises(ValueError, match="a key of a basic type"):
        gvariant.parse("{" * LEVELS + "1" + ": 1}" * LEVELS)
    with pytest.raises(ValueError, match="at most"):
        gvariant.parse("{" * (LEVELS + 1) + "1" + ": 1}" * (LEVELS + 1))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("@(yu) (1, 2)", ("(yu)", (1, 2))),
        ("@(yu) (1, 2,)", ("(yu)", (1, 2))),
        ("@a(yt) [(1, 2), (3, 4)]", ("a(yt)", [(1, 2), (3, 4)])),
        ("@a{sy} {'a': 5, 'b': 6}", ("a{sy}", {"a": 5, "b": 6})),
        ("@a{yv} {7: <'x'>}", ("a{yv}", {7: ("s", "x")})),
        ("@a{sv} {}", ("a{sv}", {})),
        ("{byte 1: uint64 2, 3: 4}", ("a{yt}", {1: 2, 3: 4})),
        ("@aay [b'a', b'']", ("aay", [b"a\0", b"\0"])),
        ("@as ['a']", ("as", ["a"])),
        ("@o '/a'", ("o", "/a")),
        ("@g 'as'", ("g", "as")),
        ("@b false", ("b", False)),
        ("@d 5", ("d", 5.0)),
        ("1e3", ("d", 1000.0)),
        ("0x1e3", ("i", 0x1E3)),
        ("010", ("i", 8)),
        ("-010", ("i", -8)),
        ("0", ("i", 0)),
        ("0X1F", ("i", 31)),
        ("0X1E3", ("i", 0x1E3)),
        ("@n +5", ("n", 5)),
        ("  [ 1 , 2 ]  ", ("ai", [1, 2])),
        ("(true,)", ("(b)", (True,))),
        ("signature 'a{sv}'", ("g", "a{sv}")),
        (r"'\n\t\r\b\f\v\a\\\'\"\q'", ("s", "\n\t\r\b\f\v\a\\'\"q")),
        ('b"\\n\xff"', ("ay", b"\n\xff\0")),
        ("b'\u20ac'", ("ay", b"?\0")),
    ],
)
def test_types_and_spellings(text: str, value: object) -> None:
    assert gvariant.parse(text) == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("@(yu) (1, 2, 3)", "a value of type (yu)"),
        ("@(yu) (1)", "a value of type (yu)"),
        ("@(yu) (256, 1)", "a number from 0 to 255"),
        ("@as 5", "a value of type as, not \"5\""),
        ("@(s) [1]", "a value of type (s)"),
        ("@s (1,)", "a value of type s"),
        ("@as {}", "a value of type as"),
        ("@a{sy} {'a': 256}", "a number from 0 to 255"),
        ("@s [1]", "a value of type s"),
        ("@y 'a'", "a value of type y"),
        ("@y true", "a value of type y"),
        ("@y @n 1", "a value of type y"),
        ("@y uint16 1", "a GVariant value, not \"uint16\" (strings need quotes)"),
        ("@", "a value of type ?"),
        ("@ as []", "a value of type ?"),
        ("@X 5", "a value of type ?"),
        ("@so 'a'", "a value of type so"),
        ("{@og 'a': 1}", "a value of type og"),
        ("@a{sv} (1,)", "a value of type a{sv}"),
        ("@i 1.5", "a value of type i, not \"1.5\""),
        ("uint32 1e3", "a value of type u, not \"1e3\""),
        ("X5X", "a GVariant value, not \"X5X\" (strings need quotes)"),
        ("()", "a value of type (...)"),
        ("[]", "the type of an empty array, such as @as []"),
        ("{}", "the type of an empty dictionary, such as @a{sv} {}"),
        ("{1 2}", "':' at character 4"),
        ("[1 2]", "',' at character 4"),
        ("(1 2)", "')' at character 4"),
        ("<1", "'>' at character 3"),
        ("{[1]: 2}", "a key of a basic type"),
        ("{<1>: 2}", "a key of a basic type"),
        ("5 6", "the end of the value, not \"6\""),
        ("5 " + "x" * 30, f"the end of the value, not \"{'x' * 20}\""),
        ("'a", "a closing '"),
        ('"a', 'a closing "'),
        ("", "a value, not nothing"),
        ("5x", "a value, not \"5x\""),
        ("uint64 x", "a GVariant value, not \"x\" (strings need quotes)"),
        ("@d 5y", "a value of type d, not \"5y\""),
        ("08", "a value, not \"08\""),
        (r"'\u20a'", "a character's number after \\u"),
        (r"'\U00110000'", "a character's number after \\u"),
        (r"'\u12", "a character's number after \\u"),
    ],
)  # fmt: skip
def test_expectations(text: str, words: str) -> None:
    with pytest.raises(ValueError) as caught:
        gvariant.parse(text)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("TimeoutStopSec", "2", ("TimeoutStopUSec", ("t", 2_000_000))),
        ("TimeoutStopSec", "1.5", ("TimeoutStopUSec", ("t", 1_500_000))),
        ("TimeoutStopSec", "byte 2", ("TimeoutStopUSec", ("t", 2_000_000))),
        *(("StopSec", f"@{kind} 2", ("StopUSec", ("t", 2_000_000))) for kind in "nqiuxtd"),
        ("TimeoutStopUSec", "2", ("TimeoutStopUSec", ("i", 2))),
        ("Sec", "1", ("USec", ("t", 1_000_000))),
        ("Abc", "true", ("Abc", ("b", True))),
    ],
)
def test_names_of_properties(name: str, text: str, found: object) -> None:
    assert gvariant.as_property(name, text) == found


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("Ab", "1", "at least three letters"),
        ("Ab1", "1", "at least three letters"),
        ("\xc4bc", "1", "at least three letters"),
        ("FooSec", "'a'", "a number of seconds"),
        ("FooSec", "true", "a number of seconds"),
        ("FooSec", "-1", "a number from 0 to"),
        ("Foo", "'" + "x" * (gvariant.TEXT_MAX - 1) + "'", f"at most {gvariant.TEXT_MAX} characters"),
    ],
)
def test_properties_refused(name: str, text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        gvariant.as_property(name, text)


def test_the_longest_value() -> None:
    text = "x" * (gvariant.TEXT_MAX - 2)
    assert gvariant.as_property("Foo", f"'{text}'") == ("Foo", ("s", text)) and gvariant.TEXT_MAX == 4096
