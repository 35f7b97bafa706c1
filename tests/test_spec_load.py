"""spec/load.py: strict JSON."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import crowded
import transcript
import work
from json_type import Json
from pyrunc import jsontext
from pyrunc.errors import ConfigError
from pyrunc.spec import load

kept = transcript.follow()

_reader = pytest.importorskip("pyrunc._reader", reason="not built: make build")

REFUSED = [
    (b"", "a JSON document, found nothing"),
    (b" \n\t", "a JSON document, found nothing"),
    (b"{", "line 1 column 2: expected property name"),
    (b'{"a": 1', "line 1 column 8: expected ',' delimiter, found end of file"),
    (b'{\n\n  "a": }', 'line 3 column 8: expected value, found "}"'),
    (b'{"a": 1} x', "line 1 column 10: expected end of the document"),
    (b'{"a": 1}{"a": 2}', "line 1 column 9: expected end of the document"),
    (b"{}\0", "line 1 column 3: expected end of the document"),
    (b"\0{}", "line 1 column 1: expected value"),
    (b'{"a": 1,}', "line 1 column "),
    (b"{'a': 1}", "line 1 column 2: expected property name"),
    (b"{a: 1}", "line 1 column 2: expected property name"),
    (b"[1,,2]", "line 1 column 4: expected value"),
    (b"// x\n{}", "line 1 column 1: expected value"),
    (b'{"a": tru}', "line 1 column 7: expected value"),
    (b'{"a": 01}', "line 1 column 8: expected ',' delimiter"),
    (b'{"a": .5}', "line 1 column 7: expected value"),
    (b'{"a": "b\n"}', "line 1 column 9: expected no control character"),
    (b'{"a": "b\\x"}', "line 1 column 9: expected an escape that JSON has"),
    (b'{"a": "\\u12"}', "line 1 column 9: expected four hexadecimal digits"),
    (b'{"a": "b', "line 1 column 7: expected a closing quote"),
    (b'{"a": NaN}', "found NaN"),
    (b'{"a": -Infinity}', "found -Infinity"),
    (b'{"a": 1e999}', "found 1e999"),
    (b'{"a": ' + b"9" * 5000 + b"}", "at most 4300 digits"),
    (b'\xef\xbb\xbf{"a": 1}', "a byte order mark"),
    ('{"a": 1}'.encode("utf-16"), "a byte order mark"),
    ('{"a": 1}'.encode("utf-16-le"), "line 1 column "),
    (b'{"a":\n "\xff"}', "line 2 column 3: expected UTF-8 text, found byte 0xff"),
    (b'{"a": "\xc0\x80"}', "found byte 0xc0"),  # an overlong NUL
    (b'{"a": "\xed\xa0\x80"}', "found byte 0xed"),  # an encoded surrogate
    (b'{"a": "x\\u0000y"}', "/a: expected text without NUL"),
    (b'{"a": [{"b~/c": "\\ud800"}]}', "/a/0/b~0~1c: expected text without NUL and lone surrogates, found U+D800"),
    (b'{"a": "\\uDCFF"}', "/a: expected text without NUL and lone surrogates, found U+DCFF"),
    (b'{"a": "\\ude00\\ud83d"}', "/a: expected text without NUL and lone surrogates, found U+DE00"),
    (b'{"\\u0000": 1}', "a key without NUL"),
    (b'{"\\udfff": 1}', "a key without NUL and lone surrogates, found U+DFFF"),
]


@pytest.mark.parametrize(("data", "words"), REFUSED, ids=[repr(d[:24]) for d, _ in REFUSED])
def test_refused(data: bytes, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load.parse_json(data, "config.json")
    text = str(caught.value)
    assert text.startswith("config.json: ")
    assert words in text
    assert text.isprintable()


def test_duplicate_keys_are_all_reported_with_their_pointers() -> None:
    data = b'{"a": 1, "b": [{"x/y": 1, "x/y": {"d": 1, "d": 2}}], "a": 2}'
    with pytest.raises(ConfigError) as caught:
        load.parse_json(data, "config.json")
    assert {p.pointer for p in caught.value.problems} == {"/a", "/b/0/x~1y", "/b/0/x~1y/d"}


def test_faults_are_counted_and_a_hundred_are_kept() -> None:
    with pytest.raises(ConfigError, match=r"and 901 more$") as caught:
        load.parse_json(b'{"a": {' + b'"b": 1, ' * 920 + b'"b": "\\u0000"}}', "config.json")
    assert len(caught.value.problems) == 100 and caught.value.more == 821
    assert {problem.pointer for problem in caught.value.problems} == {"/a/b"}


def test_malformed_input_is_reported_before_faults() -> None:
    with pytest.raises(ConfigError) as caught:
        load.parse_json(b'{"a": 1, "a": 2, "b": "\\u0000", ]', "config.json")
    assert [problem.pointer for problem in caught.value.problems] == ["line 1 column 33"]


def test_pointers_of_faults() -> None:
    data = rb'[{"a": [0, {}, {"b": [[], "\u0000"]}, "\ud800"], "c": {"\u0000": ["\udfff"]}}, "\u0000"]'
    with pytest.raises(ConfigError) as caught:
        load.parse_json(data.replace(b"\\\\", b"\\"), "config.json")
    found = [problem.pointer for problem in caught.value.problems]
    assert found == ["/0/a/2/b/1", "/0/a/3", "/0/c/\0", "/0/c/\0/0", "/1"]


def test_keys_that_were_chosen_to_collide() -> None:
    """Any hash works: the seed is random here and a constant in the launcher."""
    chosen = crowded.keys(256, 170)
    assert crowded.steps(chosen, 256) > 8 * len(chosen) > 8 * crowded.steps([f"key{i}" for i in range(170)], 256)
    text = json.dumps({"linux": {"sysctl": dict.fromkeys(chosen, "1")}})
    with pytest.raises(ConfigError) as caught:
        load.parse_json(text.encode(), "config.json")
    assert str(caught.value) == (
        "config.json: /linux/sysctl: expected keys that hash tables can tell apart, found 170 keys chosen to collide"
    )
    with pytest.raises(ValueError, match=r"^not JSON$"):
        jsontext.loads(text.encode())
    # So few that it does not matter; and others, as many as there can be.
    assert len(load.parse_json(json.dumps(dict.fromkeys(chosen[:128])).encode(), "x")) == 0
    many = {f"key{i}": 1 for i in range(500_000)}
    assert load.parse_json(json.dumps(many).encode()[: load.MAX_BYTES], "x") == many


def test_the_same_key_again_and_again() -> None:
    with work.at_most(2), pytest.raises(ConfigError, match=r'key "a" once, found it again.*and 499979 more'):
        load.parse_json(b"{" + b'"a":1,' * 499_999 + b'"a":1}', "x")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": null}', {}),
        ('{"a": null, "b": 1, "c": {"d": null}, "e": null}', {"b": 1, "c": {}}),
        ('{"a": [null, {"b": null}]}', {"a": [None, {}]}),
        ("[null]", [None]),
    ],
)
def test_a_null_member_counts_as_absent(text: str, value: Any) -> None:
    assert load.parse_json(text.encode(), "x") == value


def test_a_null_member_is_a_duplicate_like_another() -> None:
    for text in ('{"a": null, "a": 1}', '{"a": 1, "a": null}', '{"a": null, "a": null}'):
        with pytest.raises(ConfigError, match="/a: expected key"):
            load.parse_json(text.encode(), "x")


def test_number_of_values() -> None:
    most = b"[" + b"0," * (load.MAX_VALUES - 2) + b"0]"
    assert len(load.parse_json(most, "x")) == load.MAX_VALUES - 1
    with pytest.raises(ConfigError, match="line 1 column 1048576: expected at most 524288 values"):
        load.parse_json(b"[0," + most[1:], "x")
    assert len(jsontext.loads(b"[0," + most[1:])) == load.MAX_VALUES


def test_the_limits_are_those_of_the_reader() -> None:
    header = (Path(__file__).parent.parent / "native/reader/reader.h").read_text()
    found = dict(re.findall(r"READER_(\w+) = ([^,]+),", header))
    assert eval(found["DEPTH"]) == load.MAX_DEPTH and eval(found["VALUES"]) == load.MAX_VALUES
    assert eval(found["DIGITS"]) == load.MAX_DIGITS


@pytest.mark.parametrize("text", ["1.5", "-0", "1e5", "-1.25e-3", "123456789012345678", "1234567890123456789", "5e-324",
                                  "-9223372036854775809", "0.1", "1E+2", "179769313486231570000e288"])  # fmt: skip
def test_numbers(text: str) -> None:
    assert repr(load.parse_json(text.encode(), "x")) == repr(json.loads(text))


def test_a_number_has_at_most_4300_characters() -> None:
    for digits in (b"9" * 4300, b"0." + b"3" * 4298, b"-" + b"1" * 4299):
        load.parse_json(digits, "x")
        with pytest.raises(ConfigError, match="line 1 column 1: expected numbers of at most 4300 digits"):
            load.parse_json(digits + b"7", "x")


def test_nothing_is_kept() -> None:
    """No value that was read or rejected stays, wherever the document ended."""
    texts = [data for data, _ in REFUSED]
    texts += [b'{"a": [1, {"b": null}], "a": "\\u0000", "c": "\\ud83d\\ude00"}', b'{"a": {"b": [[], "x", 1e9]}}']
    texts += [text[:length] for text in texts[-2:] for length in range(len(text))]
    texts.append(json.dumps(dict.fromkeys(crowded.keys(256, 170))).encode())

    def everything() -> int:
        for text in texts:
            with contextlib.suppress(ValueError):
                _reader.read_json(text)
        return sys.getallocatedblocks()

    everything()
    before = everything()
    assert max(everything() for _ in range(10)) < before + len(texts) // 2


def test_only_bytes_are_read() -> None:
    for argument in ("{}", bytearray(b"{}"), None):
        with pytest.raises(TypeError):
            _reader.read_json(argument)


def test_duplicate_inside_a_value_that_a_duplicate_hides() -> None:
    with pytest.raises(ConfigError, match="once"):
        load.parse_json(b'{"a": {"b": 1, "b": 2}, "a": 3}', "config.json")


@pytest.mark.parametrize("pair", [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]"), (b'["]",', b"]")])
def test_nesting(pair: tuple[bytes, bytes]) -> None:
    levels = pair[0].count(b"[") + pair[0].count(b"{")
    deepest = 128 // levels
    load.parse_json(pair[0] * deepest + b"1" + pair[1] * deepest, "config.json")
    for depth in (deepest + 1, 1000, 100_000):
        with pytest.raises(ConfigError, match="nesting of at most 128"):
            load.parse_json(pair[0] * depth + b"1" + pair[1] * depth, "config.json")


def test_nesting_bombs_that_never_close() -> None:
    for data in (b"[" * 1_000_000, b'{"a":' * 1_000_000, b"[[]," * 1_000_000, b'[{"":' * 500_000):
        with work.at_most(1), pytest.raises(ConfigError, match="nesting of at most 128"):
            load.parse_json(data, "config.json")


def test_brackets_in_strings_are_not_nesting() -> None:
    text = "[" * 300 + '\\"' + "{" * 300 + "\\\\"
    assert load.parse_json(b'{"a": "' + text.encode() + b'", "b": ["]]", "[["]}', "x")["b"] == ["]]", "[["]
    assert load.parse_json(b'{"a\\\\": "\\\\", "b": "' + b"[" * 300 + b'"}', "x")["b"] == "[" * 300


def test_wide_is_not_deep() -> None:
    assert len(load.parse_json(b"[" + b"[],{}," * 1000 + b"[]]", "x")) == 2001


@pytest.mark.parametrize("text", ['{"a": "\\ud83d\\ude00"}', '{"a": "\\u00e9\\udbff\\udfff"}', '{"a": "😀"}'])
def test_surrogate_pairs_are_text(text: str) -> None:
    assert load.parse_json(text.encode(), "x") == json.loads(text)


def test_blanks_around_the_document() -> None:
    assert load.parse_json(b"\r\n\t {} \n\r\t", "x") == {}


class Twice(dict[str, Any]):
    """Errors that json alone would not notice."""


def lenient(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    return found if len(found) == len(pairs) else Twice(found)


def without_null_members(value: Any) -> Any:
    """A null member counts as absent; an item of an array does not."""
    if isinstance(value, dict):
        return {key: without_null_members(item) for key, item in value.items() if item is not None}
    return [without_null_members(item) for item in value] if isinstance(value, list) else value


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_agrees_with_json_on_documents(value: Any, ascii_only: bool) -> None:
    data = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8")
    result = load.parse_json(data, "x")
    assert result == without_null_members(value)
    assert repr(result) == repr(without_null_members(json.loads(data)))
    assert repr(jsontext.loads(data)) == repr(json.loads(data))


@given(
    st.lists(
        st.sampled_from(["{", "}", "[", "]", '"', ":", ",", "1", "-", ".5", "e9", '"a"', "null", " ", "\\", "\\u0000"])
    )
)
@example(["1", "e9", "1", "1"])
def test_agrees_with_json_on_noise(parts: list[str]) -> None:
    text = "".join(parts)
    try:
        expected = json.loads(text, object_pairs_hook=lenient)
    except ValueError:
        with pytest.raises(ConfigError):
            load.parse_json(text.encode(), "x")
        return
    try:
        assert load.parse_json(text.encode(), "x") == without_null_members(expected)
    except ConfigError as error:
        # Rejected here but not by json, which turns 1e911 into an infinity.
        assert any(words in str(error) for words in ("once", "NUL", "numbers that JSON and this machine have"))


@given(st.binary(max_size=40))
def test_any_bytes_parse_or_fail_cleanly(data: bytes) -> None:
    try:
        found = load.parse_json(data, "x")
    except ConfigError as error:
        assert str(error).isprintable()
    else:
        assert json.loads(data) == found


def test_load_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"ociVersion": "1.3.0"}\n')
    wanted: Json = {"ociVersion": "1.3.0"}
    assert load.load_config(str(path)) == (wanted, b'{"ociVersion": "1.3.0"}\n')


@pytest.mark.parametrize("text", ["[]", "null", "1", '"x"', "true"])
def test_top_level_has_to_be_an_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match="expected object, found"):
        load.load_config(str(path))


def test_missing_file_says_what_a_bundle_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load.load_config(str(tmp_path / "config.json"))
    text = str(caught.value)
    assert text.startswith("config.json: cannot be read: open ")
    assert "ENOENT" in text
    assert "a bundle is a directory with a config.json" in text
    assert "no such file" not in text.lower()  # podman would derive exit status 127 from it
    assert "\n" not in text


def test_unreadable(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EISDIR: is a directory"):
        load.load_config(str(tmp_path))
    (tmp_path / "f").write_text("{}")
    with pytest.raises(ConfigError, match="ENOTDIR"):
        load.load_config(str(tmp_path / "f" / "config.json"))
    with pytest.raises(ConfigError, match="is not a path"):
        load.load_config("a\0b")
    (tmp_path / "secret").symlink_to("/proc/self/mem")
    with pytest.raises(ConfigError, match="EIO"):
        load.load_config(str(tmp_path / "secret"))


def test_too_large(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        os.truncate(file.fileno(), load.MAX_BYTES + 1)
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        load.load_config(str(path))
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        load.parse_json(b" " * (load.MAX_BYTES + 1), "config.json")


def test_ten_megabytes_take_less_than_a_second() -> None:
    document = {"annotations": {f"key{i:06}": "v" * 80 for i in range(100_000)}}
    data = json.dumps(document).encode()
    with work.at_most(1):
        assert load.parse_json(data, "x") == document
