"""GVariant text in annotations, as systemd's own tools write it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import transcript
from bus_peer import GVARIANT
from pyrunc.cgroup import gvariant

kept = transcript.follow("pyrunc.cgroup.gvariant")


@pytest.mark.parametrize(("text", "expected"), GVARIANT, ids=[text for text, _ in GVARIANT])
def test_gvariant(text: str, expected: object) -> None:
    assert gvariant.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "foo",
            "[]",
            "[1",
            "'a",
            "1 2",
            "uint32 -1",
            "byte 256",
            "99999999999",
            "['a', 5]",
            "@as [5]",
            "@",
            "{1}",
        ),
        *("foo 5", "string int32 5", "true 5"),
        *("('a'", "<5", "'\\u00'", "string 5", "true false", "uint64 'x'", "{[1]: 2}", "[" * 100),
    ],
)
def test_gvariant_refused(text: str) -> None:
    with pytest.raises(ValueError):
        gvariant.parse(text)


@pytest.mark.parametrize(
    ("kind", "code", "low", "high"),
    [
        ("byte", "y", 0, 255), ("int16", "n", -(2**15), 2**15 - 1), ("uint16", "q", 0, 2**16 - 1),
        ("int32", "i", -(2**31), 2**31 - 1), ("uint32", "u", 0, 2**32 - 1), ("int64", "x", -(2**63), 2**63 - 1),
        ("uint64", "t", 0, 2**64 - 1),
    ],
)  # fmt: skip
def test_gvariant_integers_to_their_ends(kind: str, code: str, low: int, high: int) -> None:
    assert gvariant.parse(f"{kind} {low}") == (code, low) and gvariant.parse(f"{kind} {high}") == (code, high)
    for number in (low - 1, high + 1):
        with pytest.raises(ValueError, match=f"a number from {low} to {high}"):
            gvariant.parse(f"{kind} {number}")


def test_gvariant_characters_by_number() -> None:
    assert gvariant.parse(r"'\u20ac\U0010ffff\u0001'") == ("s", "\u20ac\U0010ffff\x01")
    for text in (r"'\U00110000'", r"'\u0000'", r"'\u12'", r"'\u-123'"):
        with pytest.raises(ValueError, match="a character's number after"):
            gvariant.parse(text)


@given(st.text())
def test_gvariant_never_fails_otherwise(text: str) -> None:
    try:
        signature, _ = gvariant.parse(text)
    except ValueError as error:
        assert str(error)
    else:
        assert signature
