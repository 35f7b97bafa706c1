"""`trace show`: the picture of a fixed trace in a terminal, as SVG and as JSON; and files that
are not traces."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import work
from json_type import Json
from pyrunc.errors import PyruncError, SysError
from pyrunc.trace import chrome, draw, otlp, read, svg
from test_trace import HOSTILE, one_command

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "tests" / "traces" / "demo.json"
UTF8 = {"LC_ALL": "C.UTF-8"}


def golden(name: str, text: str) -> None:
    """Compare with a committed file; PYRUNC_UPDATE_GOLDEN=1 writes it."""
    path = ROOT / name
    if os.environ.get("PYRUNC_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == text


def show(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyrunc", "trace", "show", *map(str, args)]
    base = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=base | environment)


def write(path: Path, *spans: dict[str, Any]) -> Path:
    events = [{"name": "x", "cat": "phase", "ph": "X", "ts": 0, "dur": 10, "pid": 1, "tid": 1} | span for span in spans]
    path.write_text(json.dumps({"traceEvents": events}))
    return path


# -- the pictures ----------------------------------------------------------------------------------


def test_the_listing() -> None:
    done = show(DEMO, **UTF8)
    assert (done.returncode, done.stderr) == (0, "")
    golden("tests/traces/demo.txt", done.stdout)
    assert max(map(len, done.stdout.splitlines())) == 100


def test_without_blocks_in_the_locale() -> None:
    done = show(DEMO, LC_ALL="C")
    assert done.stdout.isascii()
    assert done.stdout == (ROOT / "tests/traces/demo.txt").read_text().replace("█", "#").replace("▏", "|")


def test_all_of_it() -> None:
    done = show("--all", DEMO, **UTF8)
    golden("tests/traces/demo-all.txt", done.stdout)
    names = [event["name"] for event in json.loads(DEMO.read_text())["traceEvents"] if event["ph"] == "X"]
    shown = [line.split("  ")[0] for line in (row.strip() for row in done.stdout.splitlines())]
    masks = [sum(name.startswith("MASK_PATH") for name in listed) for listed in (names, shown)]
    assert masks[0] == masks[1] > 5


def test_the_picture(tmp_path: Path) -> None:
    done = show("--svg", tmp_path / "t.svg", DEMO)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    golden("docs/trace.svg", (tmp_path / "t.svg").read_text())
    document = ElementTree.fromstring((tmp_path / "t.svg").read_text())
    assert float(document.get("width", 0)) == 1000
    bars = [rect for rect in document.iter("{http://www.w3.org/2000/svg}rect") if rect.get("x")]
    assert len(bars) == len(draw.rows_of(read.load(str(DEMO))[0], False)[0]) + 10 + 12
    places = [(float(bar.get("x", 0)), float(bar.get("width", 0))) for bar in bars]
    assert min(begin for begin, _ in places) >= 410 and max(begin + width for begin, width in places) <= 993


def test_the_readme_shows_what_comes_out() -> None:
    text = (ROOT / "README.md").read_text()
    section = text.partition("## Where the time goes")[2].partition("\n## ")[0]
    [block] = re.findall(r"```text\n(.*?)```", section, re.S)
    assert block in (ROOT / "tests/traces/demo.txt").read_text()
    assert len(block.splitlines()) > 8 and "docs/trace.svg" in section


def test_json() -> None:
    done = show("--json", DEMO)
    commands = json.loads(done.stdout)["commands"]
    assert [(one["name"], one["args"]["exit"], one["ended"]) for one in commands] == [
        ("create demo", 0, True),
        ("start demo", 0, True),
        ("delete demo", 0, True),
    ]
    lanes = {lane["lane"]: lane["parts"] for lane in commands[0]["lanes"]}
    assert [part["name"] for part in lanes["init"]] == ["ENTER", "SETUP", "FINISH", "RUN"]
    mounts = [part for part in lanes["init"][1]["parts"] if part["name"].startswith("MOUNT ")]
    assert [part["args"]["pointer"] for part in mounts] == [f"/mounts/{n}" for n in range(len(mounts))]
    assert commands[0]["begin"] == 0 and 0 < commands[0]["length"] < 1e6


@pytest.mark.parametrize(("columns", "environment", "coloured"), [(80, {}, True), (200, {"NO_COLOR": "1"}, False)])
def test_as_the_terminal_is(columns: int, environment: dict[str, str], coloured: bool) -> None:
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    command = [sys.executable, "-m", "pyrunc", "trace", "show", str(DEMO)]
    base = {"PATH": os.environ["PATH"], "TERM": "xterm", **UTF8, **environment}
    child = subprocess.Popen(command, stdout=slave, cwd=ROOT, env=base)
    os.close(slave)
    data = b""
    while True:
        try:
            chunk = os.read(master, 65536)
        except OSError:
            break
        if not chunk:
            break
        data += chunk
    os.close(master)
    assert child.wait() == 0
    text = data.decode()
    assert ("\x1b[" in text) == coloured
    plain = re.sub(r"\x1b\[\d*m", "", text)
    assert max(len(line.rstrip("\r")) for line in plain.split("\n")) == columns


def test_both_formats_say_the_same(tmp_path: Path) -> None:
    found = []
    for kind in (chrome.Chrome, otlp.Otlp):
        file = tmp_path / kind.__name__
        one_command(kind(str(file), "--trace"), "a part")
        document: Json = read.as_json(read.load(str(file)))
        [command] = document["commands"]
        found.append([(lane["lane"], names(lane["parts"])) for lane in command["lanes"]])
    assert found[0] == found[1]
    assert found[0][0] == ("pyrunc", [("start up", []), ("open the trace", []), ("a part", [])])


def names(parts: list[dict[str, Any]]) -> list[Any]:
    return [(part["name"], names(part["parts"])) for part in parts]


# -- what belongs together -------------------------------------------------------------------------


def test_a_command_that_was_killed(tmp_path: Path) -> None:
    file = write(tmp_path / "t", {"name": "start up"}, {"name": "later", "ts": 50})
    events = json.loads(file.read_text())
    events["traceEvents"].append(
        {"name": "process_name", "ph": "M", "pid": 1, "tid": 1, "args": {"name": "pyrunc run x"}}
    )
    file.write_text(json.dumps(events))
    assert "run x: 0.06 ms, its end is missing" in show(file).stdout


def test_a_pid_that_was_used_twice(tmp_path: Path) -> None:
    first = {"name": "create a", "cat": "command", "dur": 100}
    second = {"name": "start a", "cat": "command", "ts": 1000, "dur": 100}
    file = write(tmp_path / "t", {"name": "one"}, first, {"name": "two", "ts": 1010}, second)
    document: Json = read.as_json(read.load(str(file)))
    commands = document["commands"]
    assert [(one["name"], names(one["lanes"][0]["parts"])) for one in commands] == [
        ("create a", [("one", [])]),
        ("start a", [("two", [])]),
    ]


def test_hooks_and_failures_are_always_there(tmp_path: Path) -> None:
    file = write(
        tmp_path / "t",
        {"name": "create a", "cat": "command", "dur": 1e6, "args": {"error": "it broke"}},
        {"name": "short", "ts": 10, "dur": 9},
        {"name": "hooks", "ts": 20, "dur": 30},
        {"name": "/bin/hook", "cat": "hook", "ts": 21, "dur": 2, "args": {"exit": 0}},
        {"name": "write cpu.max", "cat": "cgroup", "ts": 30, "dur": 2, "args": {"error": "EINVAL"}},
        {"name": "short", "ts": 60, "dur": 9},
    )
    lines = show(file).stdout.splitlines()
    assert lines[0] == "create a: 1000.00 ms, failed: it broke"
    assert [line.split("  ")[0].strip() or line.split("  ")[1] for line in lines[2:]] == [
        "short", "hooks", "/bin/hook (exit 0)", "write cpu.max", "short",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [chrome.Chrome, otlp.Otlp])
def test_names_that_are_hostile(kind: Any, tmp_path: Path) -> None:
    file = tmp_path / "t"
    one_command(kind(str(file), "--trace"), HOSTILE)
    for text in (show("--all", file, **UTF8).stdout, svg.picture(read.load(str(file)), True)):
        assert not [c for c in text if not c.isprintable() and c != "\n"] and "\u202e" not in text
    ElementTree.fromstring(svg.picture(read.load(str(file)), True))
    assert "<script>" not in svg.picture(read.load(str(file)), True)


# -- other files
# --------------------------------------------------------------------------------------------------

WRONG = [
    (b"", "expected JSON"),
    (b"{", "expected JSON"),
    (b"[]", "found no event with a duration"),
    (b"{}", "expected an object with traceEvents"),
    (b"3", "expected an object with traceEvents"),
    (b'{"traceEvents": 3}', "expected an object with traceEvents"),
    (b'{"traceEvents": [3]}', "/traceEvents/0: expected an object, found 3"),
    (b'{"traceEvents": [{"ph": "X", "args": 1}]}', "/traceEvents/0/args: expected an object, found 1"),
    (b'[{"ph": "X", "ts": 1, "dur": 1}]', "/traceEvents/0/name: expected a string, found null"),
    (b'[{"ph": "X", "name": "x", "ts": -1}]', "/traceEvents/0/ts: expected a number from 0 to 1e17, found -1"),
    (b'[{"ph": "X", "name": "x", "ts": true}]', "/traceEvents/0/ts: expected a number"),
    (b'[{"ph": "X", "name": "x", "ts": 1e300}]', "/traceEvents/0/ts: expected a number"),
    (b'[{"ph": "X", "name": "x", "ts": 1, "dur": "1"}]', '/traceEvents/0/dur: expected a number from 0 to 1e17, found'),
    (b'{"resourceSpans": 3}', "line 1: expected spans that pyrunc wrote"),
    (b'{"resourceSpans": [{}]}', "line 1: expected spans that pyrunc wrote"),
    (b'{"resourceSpans":[]}', "found no event with a duration"),
    (b'{"resourceSpans":[]}\nx', "line 2: expected JSON"),
    (bytes(range(256)), "expected JSON"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "words"), WRONG, ids=[str(row[0][:40]) for row in WRONG])
def test_one_line_says_what_is_wrong(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(PyruncError) as caught:
        read.load(str(tmp_path / "t"))
    assert words in str(caught.value) and str(caught.value).startswith(f'"{tmp_path}/t": ')


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SysError, match="ENOENT"):
        read.load(str(tmp_path / "t"))
    done = show(tmp_path / "t")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    done = show("--svg", tmp_path / "no" / "t.svg", DEMO)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "--svg" in done.stderr


@pytest.mark.parametrize("args", [["trace"], ["trace", "draw", "x"], ["trace", "show"], ["trace", "show", "a", "b"]])
def test_usage(args: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pyrunc", *args], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "trace: " in done.stderr


def test_output_is_bounded_and_time_linear(tmp_path: Path) -> None:
    """Spans beside, inside and across each other, and more commands than a person reads."""
    drawn = 0
    shapes: list[list[dict[str, Any]]] = [
        [{"ts": n * 10, "dur": 9} for n in range(20000)],
        [{"ts": n, "dur": 100000 - 2 * n} for n in range(20000)],
        [{"ts": n, "dur": 30000} for n in range(20000)],
        [{"ts": n * 100, "dur": 50, "cat": "command", "pid": n, "tid": n} for n in range(20000)],
        [{"name": "x" * 1000, "ts": 5, "dur": 0, "tid": n} for n in range(20000)],
    ]
    for shape in shapes:
        file = write(tmp_path / "t", *shape)
        with work.at_most(20):
            found = read.load(str(file))
            text = draw.draw(found, draw.Style(100, False, True), True)
            picture = svg.picture(found, True)
            read.as_json(found)
        assert len(text) < 2 << 20 and len(picture) < 8 << 20
        drawn += 1
    assert drawn == 5
