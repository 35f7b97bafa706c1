"""JSON text as pyrunc reads and writes it."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrunc import jsontext


@pytest.mark.parametrize(
    "value",
    [
        None, True, False, 0, -5, 1 << 70, 1.5, "", "plain", 'quo"te', "back\\slash", "\x00\x1f\x7f\n\t", "é", "\u2028",
        "\U0001f600", [], {}, [[]], {"a": {}}, [1, [2, {"k": ["v", None]}]], {'k"\n': "v"}, {"x" * 5000: ["y" * 5000]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("indent", ["", "  ", "\t", "    "])
def test_json_reads_the_dump(value: Any, indent: str) -> None:
    text = jsontext.dumps(value, indent)
    assert json.loads(text) == value
    assert text.isascii()
    assert jsontext.loads(text.encode()) == value
    assert text == (json.dumps(value, indent=indent) if indent else json.dumps(value, separators=(",", ":")))


def test_a_path_that_is_not_utf8_survives() -> None:
    path = os.fsdecode(b"/b\xff\xfe")
    assert jsontext.loads(jsontext.dumps({"bundle": path}).encode()) == {"bundle": path}


class Number(int):
    """A number type that the reader never returns."""


@pytest.mark.parametrize(
    "value",
    [object(), {1, 2}, float("nan"), float("inf"), b"x", [b"x"], {1: 2}, {"a": {b"k": 1}}, Number(1), [Number(1)]],
)
def test_values_without_a_json_form(value: Any) -> None:
    with pytest.raises(TypeError):
        jsontext.dumps(value)
    before = sys.getallocatedblocks()
    for indent in [""] * 100 + ["  "] * 100:
        with contextlib.suppress(TypeError):
            jsontext.dumps(value, indent)
    assert sys.getallocatedblocks() < before + 100


def test_endless_nesting_does_not_crash() -> None:
    endless: list[Any] = []
    endless.append({"a": endless})
    with pytest.raises(RecursionError):
        jsontext.dumps(endless)


@given(st.text(), st.sampled_from(["", " "]))
def test_texts_are_written_as_json_writes_them(text: str, indent: str) -> None:
    wanted = json.dumps([text], indent=indent or None).replace("\x7f", "\\u007f")
    written = jsontext.dumps([text], indent)
    assert json.loads(written) == [text] == jsontext.loads(written.encode())
    if not {"\b", "\f"} & set(text):  # these have escapes of their own, which are not used
        assert written == wanted


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b"{}x", b"\xff", b'{"a":', b"[" * 100000, b'"\\x"'])
def test_damaged_json_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(data)
