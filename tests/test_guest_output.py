"""The output of a guest: what integration/vm/machine.py forwards, and the file and the status behind
it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.engines import record
from integration.vm.machine import Output

FILE = b'{"a": "\\n"}\n'
STREAM = b"one\n\ntwo\n\0three" + b"\n\0VMFILE beef %d\n" % len(FILE) + FILE + b"\n\0VMRC beef 3\n"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_file_and_status_in_pieces_of_any_size(size: int) -> None:
    output = Output("beef")
    text = b"".join(output.feed(STREAM[at : at + size]) for at in range(0, len(STREAM), size))
    assert (text, output.result, output.status) == (b"one\n\ntwo\n\0three", FILE, 3)


def test_status_without_a_file() -> None:
    output = Output("beef")
    assert output.feed(b"text\n") == b"text"  # the newline may begin a trailer
    assert output.status == -1
    assert output.feed(b"\n\0VMRC beef 0\n") == b"\n"
    assert (output.result, output.status) == (b"", 0)


def test_the_trailer_of_another_nonce_is_text() -> None:
    output = Output("beef")
    text = output.feed(b"\n\0VMRC dead 0\n") + output.feed(b"\n\0VMRC beef 0\n")
    assert text == b"\n\0VMRC dead 0\n" and output.status == 0


def test_results_of_a_guest_replace_those_of_the_same_engines(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    for found in ({"a": 1, "b": 2}, {"b": 3}):
        record.merge(path, {"versions": found, "rows": found})
    assert json.loads(path.read_text()) == {"versions": {"a": 1, "b": 3}, "rows": {"a": 1, "b": 3}}
