"""What reading and drawing a trace give for each kind of input. golden/trace_shown.txt has the results
(PYRUNC_UPDATE_GOLDEN=1 rewrites them; then review the diff).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from json_type import Json
from pyrunc.errors import PyruncError
from pyrunc.trace import draw, read, svg


def kept(case: str, results: Iterable[object]) -> None:
    """Compare with the transcript."""
    spies.compare("trace_shown", case, results)


def outcome(call: Callable[..., object], *args: object) -> object:
    """A result, or the error."""
    try:
        return call(*args)
    except (PyruncError, read.WrongError, KeyError, TypeError, ValueError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"


# -- reading ---------------------------------------------------------------------------------------

EVENT: Json = {"ph": "X", "name": "n", "cat": "phase", "ts": 5, "dur": 2.5, "pid": 7, "tid": 8, "args": {"a": 1}}
NAME: Json = {"ph": "M", "name": "process_name", "pid": 7, "args": {"name": "pyrunc run c1"}}
ODD: list[Any] = [None, True, 0, -1, 0.5, 1e17, 99999999999999999, "", "x", [], {}, [1], {"a": 1}, float("nan")]


def changes(base: Json, values: list[Any]) -> list[Json]:
    """The object without each of its members, and with other values of it."""
    without = [{key: item for key, item in base.items() if key != gone} for gone in base]
    return without + [base | {key: value} for key in base for value in values]


def shown_span(span: read.Span) -> object:
    """All of a span."""
    parts = [shown_span(part) for part in span.parts]
    return [
        span.name,
        span.kind,
        span.begin,
        span.length,
        span.end,
        span.pid,
        span.tid,
        span.args,
        span.failed(),
        parts,
    ]


def shown_events(data: bytes) -> object:
    """What `events` finds."""
    found, names = read.events(data)
    return [[shown_span(span) for span in found], names]


@pytest.mark.parametrize("base", [EVENT, NAME], ids=["X", "M"])
def test_events_of_every_form(base: Json) -> None:
    documents = [{"traceEvents": [base, other]} for other in changes(base, ODD)] + [[base]]
    kept(f"events {base['ph']}", (outcome(shown_events, json.dumps(one).encode()) for one in documents))


def test_documents_of_every_form() -> None:
    texts = [
        b"", b"{", b"{}", b"[]", b"5", b"null", b"\xff", b'"\\ud800"', b'{"traceEvents":5}', b'{"traceEvents":{}}',
        b"[1]",
        b'[{"ph":"M","name":"thread_name","pid":8,"args":{"name":"n"}}]',
        b'[{"ph":"X","name":"process_name","ts":1,"dur":1,"pid":9,"tid":9,"args":{"name":"n"}}]',
        b'[{"ph":"X"}]', b'{"traceEvents":[]}x', b'[{"args":5}]', b"[[]]", b'{"resourceSpans":[]}', b'{"resourceSpans"',
    ]  # fmt: skip
    kept("documents", (outcome(shown_events, text) for text in texts))


OTLP: Json = {
    "name": "n", "startTimeUnixNano": "5000", "endTimeUnixNano": "7500",
    "attributes": [
        {"key": "pyrunc.kind", "value": {"stringValue": "hook"}},
        {"key": "pyrunc.lane", "value": {"stringValue": "runtime"}},
        {"key": "i", "value": {"intValue": "5"}}, {"key": "b", "value": {"boolValue": False}},
        {"key": "l", "value": {"arrayValue": {"values": [{"stringValue": "x"}, {"intValue": "1"}]}}},
    ],
}  # fmt: skip


def line(*found: Json, pid: object = "77") -> bytes:
    """A line of OTLP."""
    about = [{"key": "process.pid", "value": {"intValue": pid}}]
    document = {"resourceSpans": [{"resource": {"attributes": about}, "scopeSpans": [{"spans": [*found]}]}]}
    return json.dumps(document, separators=(",", ":")).encode() + b"\n"


def test_lines_of_every_form() -> None:
    lanes = [[{"key": "pyrunc.kind", "value": {"stringValue": "step"}},
              {"key": "pyrunc.lane", "value": {"stringValue": lane}}] for lane in ("init", "runtime")]  # fmt: skip
    documents = [line(OTLP, other) for other in changes(OTLP, [*ODD, "9", "99999999999999999999", *lanes])]
    documents += [
        line(OTLP) + line(OTLP, pid="78"),
        line(OTLP) + b"{}\n",
        line(OTLP) + b"x",
        line(pid="x"),
        line(pid=None),
    ]
    kept("lines", (outcome(shown_events, one) for one in documents))


def span(
    name: str, begin: float, length: float, *, kind: str = "phase", lane: int = 0, pid: int = 7, **args: Any
) -> Any:
    """A span that was read."""
    made = read.Span(name, kind, begin, length)
    made.pid, made.tid, made.args = pid, pid + lane, args
    return made


def whole(begin: float, length: float, **args: Any) -> Any:
    """The span of a command."""
    return span("run c1", begin, length, kind="command", **args)


SETS: dict[str, list[Any]] = {
    "one": [span("a", 12, 5), span("b", 13, 2), span("i", 14, 1, lane=1), whole(10, 50)],
    "side by side": [whole(10, 50), span("a", 12, 5), span("b", 17, 5), span("c", 16.5, 0.5), span("d", 22, 0)],
    "overlap within the slack": [whole(10, 50), span("a", 12, 5), span("b", 16, 5), span("c", 15.9, 5),
                                 span("d", 16.5, 1)],
    "same begin": [whole(10, 50), span("short", 10, 5), span("long", 10, 40), span("whole", 10, 50)],
    "exactly the slack": [whole(10, 50), span("a", 12, 5), span("b", 16.5, 1)],
    "as long as the command": [span("a", 10, 50), whole(10, 50)],
    "fractions": [whole(10.1234567, 50.1234567), span("a", 12.7654321, 5.1234567)],
    "never ended": [span("a", 12, 5), span("b", 30, 1), span("c", 13, 1)],
    "two, one pid": [whole(10, 50), span("a", 12, 5), whole(100, 20), span("b", 105, 5)],
    "at the end": [whole(10, 50), span("a", 60, 5), span("b", 61, 5), span("c", 61.5, 5), span("d", 62, 1)],
    "killed, then another": [span("a", 1, 2), span("b", 4, 2), whole(10, 5), span("c", 11, 2)],
    "two pids": [whole(10, 50, pid=8), whole(5, 5), span("a", 12, 5, pid=8), span("b", 6, 1), span("x", 3, 1, pid=9)],
    "only init": [whole(10, 50), span("a", 12, 5, lane=1), span("b", 13, 2, lane=2)],
    "empty lengths": [whole(10, 0), span("a", 10, 0), span("b", 10, 0, lane=1)],
    "deep": [whole(0, 200), *(span(f"s{number}", number, 200 - 2 * number) for number in range(50))],
}  # fmt: skip


def found_of(name: str) -> list[read.Command]:
    """The commands of a set."""
    return read.commands([read_again(one) for one in SETS[name]], {7: "pyrunc run c1", 9: "other"})


def read_again(one: read.Span) -> read.Span:
    """A span without the parts that an earlier case gave it."""
    made = read.Span(one.name, one.kind, one.begin, one.length)
    made.pid, made.tid, made.args = one.pid, one.tid, one.args
    return made


@pytest.mark.parametrize("name", SETS)
def test_commands_of_every_form(name: str) -> None:
    found = found_of(name)
    lines: list[object] = [
        [shown_span(one.whole), one.ended, [(lane, [shown_span(part) for part in parts]) for lane, parts in one.lanes]]
        for one in found
    ]
    kept(f"commands, {name}", [*lines, read.as_json(found)])


# -- drawing ---------------------------------------------------------------------------------------

MANY: dict[str, Any] = {f"k{number}": number for number in range(30)}
LONG_VALUES: dict[str, Any] = {f"k{number}": "v" * 100 for number in range(20)}
PICTURES: dict[str, list[Any]] = {
    **{name: SETS[name] for name in ("one", "side by side", "two pids", "only init", "empty lengths", "deep",
                                    "never ended")},
    "small ones": [whole(0, 1000), *(span(f"small {n}", n, 1) for n in range(10)), span("large", 10, 900),
                   span("last", 950, 1)],
    "one small": [whole(0, 1000), span("first", 1, 9.9), span("large", 11, 10), span("small", 30, 1), span(" ", 32, 1)],
    "small hooks": [whole(0, 1000), span("s", 1, 3), span("h", 1.5, 1, kind="hook", exit=0), span("t", 5, 1),
                    span("u", 6, 1, error="e"), span("v", 7, 1), span("w", 8, 1, signal=9), span("x", 9, 1, exit=1)],
    "small hooks in a row": [whole(500, 1000), span("g", 501, 1, kind="hook", exit=0), span("h", 503, 1, kind="hook")],
    "small ones of several kinds": [whole(500, 1000), span("g", 501, 1, kind="step"), span("h", 503, 1, kind="wait")],
    "tiny": [whole(0, 100), span("a", 1, 0.5), span("b", 2, 0.25)],
    "no length": [whole(10, 0), span("a", 10.5, 0)],
    "at the end": [whole(100, 50), span("a", 149.99, 1), span("n" * 44, 110, 5), span("o" * 45, 120, 5),
                   span("many", 130, 9, **LONG_VALUES)],
    "inside small": [whole(0, 10000), span("s", 1, 50), span("t", 2, 40), span("h", 3, 30, kind="hook", signal=9),
                     span("u", 60, 50), span("v", 61, 40), span("w", 200, 50), span("x", 201, 40), span("y", 202, 30),
                     span("z", 203, 20, error="e"), span("plain", 300, 50), span("one", 301, 40), span("two", 302, 30)],
    "kinds": [whole(0, 100), *(span(kind, 10 * number, 9, kind=kind) for number, kind in enumerate(
              ("command", "phase", "step", "cgroup", "hook", "dbus", "write", "wait", "other")))][:1]
             + [span(kind, 10 * number, 9, kind=kind) for number, kind in enumerate(
              ("phase", "step", "cgroup", "hook", "dbus", "write", "wait", "other"))],
    "texts": [whole(0, 100, exit=3), span("<a&\"b\">'", 1, 50, exit="x" * 300), span("n" * 500, 2, 40), span("", 3, 30),
              span("many", 60, 20, **MANY)],
    "failed": [whole(0, 100, error="e" * 400), span("a", 1, 5, error="no")],
    "failed and exit": [whole(0, 20e6, error="e", exit=5)],
    "status": [whole(0, 9999999.9, exit=0)],
    "error that is empty": [whole(0, 10e6, error="")],
    "later": [whole(0, 5), whole(1000, 50, pid=8), whole(5000, 50, pid=9, exit="y" * 20)],
    "outside": [whole(100, 50), span("before", 101, 500), span("a", 149, 1)],
}  # fmt: skip


def drawn(name: str) -> list[read.Command]:
    """The commands of a picture."""
    SETS[f"picture {name}"] = PICTURES[name]
    return found_of(f"picture {name}")


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_of_every_form(name: str) -> None:
    found = drawn(name)
    del SETS[f"picture {name}"]
    lines: list[str] = []
    for width, colour, unicode, everything in (
        (100, False, True, False),
        (59, True, False, True),
        (61, False, True, True),
    ):
        lines += draw.draw(found, draw.Style(width, colour, unicode), everything).split("\n")
    for everything in (False, True):
        lines += svg.picture(found, everything).partition("</style>")[2].split("\n")
        for one in found:
            made, more = draw.rows_of(one, everything)
            lines += [f"{more} more", *(str((r.depth, r.label, r.kind, r.begin, r.length, r.title)) for r in made)]
    transcript.compare("trace_shown", f"picture, {name}", lines, cut=True)


@pytest.mark.parametrize("most", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 20, 21])
def test_limits_of_pictures(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (draw, svg):
        monkeypatch.setattr(module, "MOST_ROWS", most)
    made = [whole(0, 100), *(span(f"s{number}", 10 * number, 9) for number in range(6))]
    found = [*read.commands(made, {}), *read.commands([whole(500, 5), whole(600, 5)], {})]
    text = draw.draw(found, draw.Style(60, False, False), False) + svg.picture(found, False).partition("</style>")[2]
    assert "s0" in text.partition("<rect")[2], "the first command is always there"
    transcript.compare("trace_shown", f"at most {most} rows", text.split("\n"), cut=True)


def test_bars() -> None:
    style = draw.Style(80, False, False)
    values = (-5.0, 0.0, 0.4, 0.5, 9.99, 10.0, 95.0, 99.9, 100.0, 150.0)
    lines = [
        f"{begin} {length} {whole_}: {draw.bar_of(draw.Row(0, '', '', begin, length), whole_, 10, style)!r}"
        for begin, length, whole_ in itertools.product(values, values, (100.0, 0.0))
    ]
    lines += [svg.text(1, 2, kind, "<w>", anchor) for kind in ("", "k") for anchor in ("", "end")]
    lines += [draw.milliseconds(length) for length in (0, 4.9, 5.1, 9999999.0, 10e6, 12345678.0)]
    lines += [style.paint(*args) for args in (("a", "1"), ("", "1"), ("a", ""))]
    lines += [draw.Style(80, True, True).paint(*args) for args in (("a", "1"), ("", "1"), ("a", ""))]
    kept("bars", lines)
