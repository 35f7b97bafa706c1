"""A trace in a terminal: one line per span, with its position in its command."""

from __future__ import annotations

from pyrunc.errors import brief
from pyrunc.trace.read import INIT_LANE, Command, Span

SMALL = 0.01  # fraction of a command below which neighbouring spans are merged
MOST_ROWS = 3000
_NUMBER = 11  # width of a duration
# ECMA-48, select graphic rendition
COLOURS = {"step": "36", "cgroup": "33", "hook": "35", "dbus": "34", "write": "33", "wait": "2", "failed": "31"}
_BOLD = "1"


class Row:
    """One line of a picture."""

    __slots__ = ("begin", "depth", "kind", "label", "length", "title")

    def __init__(self, depth: int, label: str, kind: str, begin: float, length: float, title: str = "") -> None:
        self.depth, self.label, self.kind = depth, label, kind
        self.begin, self.length = begin, length  # begin: relative to the command's begin
        self.title = title  # all details


class Style:
    """The width, the characters, and whether to use colours."""

    __slots__ = ("colour", "full", "part", "width")

    def __init__(self, width: int, colour: bool, unicode: bool) -> None:
        self.width, self.colour = max(width, 60), colour
        self.full, self.part = ("█", "▏") if unicode else ("#", "|")

    def paint(self, text: str, code: str) -> str:
        """Text in a colour."""
        return f"\33[{code}m{text}\33[m" if self.colour and code and text else text


def milliseconds(length: float) -> str:
    """A duration: ``0.25 ms``, ``12.00 s``."""
    return f"{length / 1000:.2f} ms" if length < 10e6 else f"{length / 1e6:.2f} s"


def headline(command: Command, zero: float) -> str:
    """The command, its duration, its end, and its begin relative to the first command."""
    whole = command.whole
    text = f"{brief(whole.name, 100)}: {milliseconds(whole.length)}"
    if not command.ended:
        text += ", its end is missing"
    elif whole.args.get("error"):
        text += f", failed: {brief(str(whole.args['error']), 300)}"
    elif "exit" in whole.args:
        text += f", exit status {brief(str(whole.args['exit']), 10)}"
    return text if whole.begin <= zero else f"{text}, begun {milliseconds(whole.begin - zero)} after the first"


def rows_of(command: Command, everything: bool) -> tuple[list[Row], int]:
    """The lines of a command, and the number of omitted lines."""
    small = 0.0 if everything else command.whole.length * SMALL
    rows: list[Row] = []
    for lane, spans in command.lanes:
        depth = 0
        if lane == INIT_LANE:
            begin, end = spans[0].begin, max(span.end for span in spans)
            rows.append(Row(0, INIT_LANE, "phase", begin - command.whole.begin, end - begin, "as init saw it"))
            depth = 1
        add(rows, spans, depth, command.whole.begin, small)
    return rows[:MOST_ROWS], max(len(rows) - MOST_ROWS, 0)


def add(rows: list[Row], spans: list[Span], depth: int, zero: float, small: float) -> None:
    """Lines for spans and their parts; adjacent small ones share a line."""
    at = 0
    while at < len(spans):
        end = at
        while end < len(spans) and is_small(spans[end], small):
            end += 1
        if end - at > 1:
            group = spans[at:end]
            names = sorted({span.name.split()[0] for span in group if span.name.split()})
            title = f"{len(group)} parts: {', '.join(names)}"
            last = max(span.end for span in group)
            label = f"{brief(group[0].name, 40)} and {len(group) - 1} more"
            rows.append(Row(depth, label, group[0].kind, group[0].begin - zero, last - group[0].begin, brief(title)))
            at = end
            continue
        span = spans[at]
        kind = "failed" if span.failed() else span.kind
        rows.append(Row(depth, label_of(span), kind, span.begin - zero, span.length, title_of(span)))
        if not is_small(span, small):
            add(rows, span.parts, depth + 1, zero, small)
        at += 1


def is_small(span: Span, small: float) -> bool:
    """Whether a span is too small to show. Hooks and failures are always shown."""
    return span.length < small and span.kind != "hook" and not span.failed() and not has_failed(span)


def has_failed(span: Span) -> bool:
    """Whether a part of it is always shown."""
    return any(part.kind == "hook" or part.failed() or has_failed(part) for part in span.parts)


def label_of(span: Span) -> str:
    """The name, and the exit status of a hook."""
    name = brief(span.name, 200)
    for key in ("exit", "signal"):
        if span.kind == "hook" and key in span.args:
            return f"{name} ({key} {brief(str(span.args[key]), 10)})"
    return name


def title_of(span: Span) -> str:
    """Name, duration and all details."""
    details = [f"{key}: {brief(str(value))}" for key, value in list(span.args.items())[:20]]
    return brief("; ".join([f"{span.name}, {milliseconds(span.length)}", *details]), 1000)


def draw(commands: list[Command], style: Style, everything: bool) -> str:
    """The whole trace.  Ends with a newline."""
    zero = commands[0].whole.begin
    blocks = []
    for number, command in enumerate(commands):
        if number * 10 > MOST_ROWS:
            blocks.append(f"and {len(commands) - number} more commands\n")
            break
        blocks.append(block(command, zero, style, everything))
    return "\n".join(blocks)


def block(command: Command, zero: float, style: Style, everything: bool) -> str:
    """One command."""
    rows, more = rows_of(command, everything)
    longest = max((2 * row.depth + len(row.label) for row in rows), default=0)
    names = min(longest, (style.width - _NUMBER) * 9 // 20)
    bar = style.width - names - _NUMBER - 2
    lines = [style.paint(headline(command, zero), _BOLD)]
    end = milliseconds(command.whole.length)
    lines.append(" " * (names + _NUMBER + 2) + "0" + end.rjust(bar - 1))
    for row in rows:
        text = "  " * min(row.depth, 10) + row.label
        text = text if len(text) <= names else text[: names - 3] + "..."
        colour = COLOURS.get(row.kind, "")
        drawn = style.paint(bar_of(row, command.whole.length, bar, style), colour)
        lines.append(f"{style.paint(text.ljust(names), colour)}{milliseconds(row.length):>{_NUMBER}}  {drawn}")
    if more:
        lines.append(f"and {more} more")
    return "\n".join(lines) + "\n"


def bar_of(row: Row, whole: float, width: int, style: Style) -> str:
    """Blanks, then a bar from begin to end; at least one character."""
    scale = width / whole if whole > 0 else 0.0
    begin = min(max(int(row.begin * scale), 0), width - 1)
    signs = min(int(row.length * scale + 0.5), width - begin)
    return " " * begin + (style.full * signs or style.part)
