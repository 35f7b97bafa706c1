"""A trace as a picture: the lines of `draw`, with all details of each as its title."""

from __future__ import annotations

from pyrunc.trace.draw import MOST_ROWS, headline, milliseconds, rows_of
from pyrunc.trace.read import Command

WIDTH, NAMES, NUMBER = 1000, 330, 80  # pixels: total width, width of the names, width of the durations
_LINE, _FONT, _CHARACTER = 18, 12, 7.25
_STYLE = """\
svg { fill: #1f2328; font: 12px ui-monospace, monospace }
.head { font-weight: bold }
.axis { fill: #59636e }
.page { fill: #fff }
.command, .phase { fill: #57606a }
.step { fill: #0a7e8c }
.cgroup, .write { fill: #9a6700 }
.hook { fill: #8250df }
.dbus { fill: #0969da }
.wait { fill: #c8d1da }
.failed { fill: #cf222e }
@media (prefers-color-scheme: dark) {
  svg { fill: #e6edf3 }
  .page { fill: #0d1117 }
  .axis { fill: #9198a1 }
  .command, .phase { fill: #8b949e }
  .wait { fill: #3d444d }
}
"""
_KINDS = frozenset(("command", "step", "cgroup", "write", "hook", "dbus", "wait", "failed"))


def escape(text: str) -> str:
    """Text in XML; unprintable characters are already escaped."""
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(sign, name)
    return text


def picture(commands: list[Command], everything: bool) -> str:
    """The document.  Ends with a newline."""
    zero = commands[0].whole.begin
    lines: list[str] = []
    at = 8
    left = MOST_ROWS
    for command in commands:
        if left <= 0:
            at += _LINE
            lines.append(text(8, at, "axis", "and more commands"))
            break
        rows, more = rows_of(command, everything)
        left -= len(rows) + 3
        at += _LINE
        lines.append(text(8, at, "head", headline(command, zero)))
        at += _LINE
        lines.append(text(NAMES + NUMBER, at, "axis", "0"))
        lines.append(text(WIDTH - 8, at, "axis", milliseconds(command.whole.length), "end"))
        scale = (WIDTH - NAMES - NUMBER - 8) / command.whole.length if command.whole.length > 0 else 0.0
        for row in rows:
            at += _LINE
            indent = 8 + 14 * min(row.depth, 10)
            most = int((NAMES - indent) / _CHARACTER)
            label = row.label if len(row.label) <= most else row.label[: most - 3] + "..."
            begin = min(max(row.begin * scale, 0.0), WIDTH - NAMES - NUMBER - 9.0)
            length = min(max(row.length * scale, 1.0), WIDTH - NAMES - NUMBER - 8 - begin)
            kind = row.kind if row.kind in _KINDS else "phase"
            lines.append(f"<g><title>{escape(row.title)}</title>{text(indent, at, '', label)}")
            lines.append(text(NAMES + NUMBER - 10, at, "axis", milliseconds(row.length), "end"))
            lines.append(
                f'<rect class="{kind}" x="{NAMES + NUMBER + begin:.1f}" y="{at - _FONT + 1}" width="{length:.1f}"'
                f' height="{_FONT}"/></g>'
            )
        if more:
            at += _LINE
            lines.append(text(8, at, "axis", f"and {more} more"))
        at += _LINE // 2
    height = at + 12
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}">'
    page = f'<rect class="page" width="{WIDTH}" height="{height}"/>'
    return "\n".join([head, f"<style>\n{_STYLE}</style>", page, *lines, "</svg>"]) + "\n"


def text(x: float, y: float, kind: str, words: str, anchor: str = "") -> str:
    """One text element."""
    attributes = (f' class="{kind}"' if kind else "") + (f' text-anchor="{anchor}"' if anchor else "")
    return f'<text x="{x}" y="{y}"{attributes}>{escape(words)}</text>'
