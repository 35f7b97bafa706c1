"""The doctor's findings, and their text and JSON output."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from pyrunc.errors import brief

OK, NOTE, PROBLEM = "ok", "note", "problem"
MOST = 20  # findings per check; beyond that only their number is reported
TEXT_MOST = 600  # characters of a part of a finding
_COLOURS = {OK: "32", NOTE: "33", PROBLEM: "31"}  # ECMA-48, select graphic rendition
_PLURALS = {NOTE: "notes", PROBLEM: "problems"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One result of a check. ``means`` and ``mend`` may be "".

    ``mend`` is a shell command, or the change to config.json.
    """

    area: str
    check: str
    status: str  # OK, NOTE or PROBLEM
    seen: str
    means: str = ""
    mend: str = ""


class Area:
    """Collects the findings of one subject, at most `MOST` of each check."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.findings: list[Finding] = []
        self._counts: dict[str, int] = {}
        self._left: dict[str, list[str]] = {}

    def ok(self, check: str, seen: str) -> None:
        """Report that something is in order."""
        self._add(check, OK, seen, "", "")

    def note(self, check: str, seen: str, means: str, mend: str = "") -> None:
        """Report something that may matter."""
        self._add(check, NOTE, seen, means, mend)

    def problem(self, check: str, seen: str, means: str, mend: str = "") -> None:
        """Report something that keeps containers, or this one, from running, or that should not
        exist."""
        self._add(check, PROBLEM, seen, means, mend)

    def _add(self, check: str, status: str, seen: str, means: str, mend: str) -> None:
        count = self._counts[check] = self._counts.get(check, 0) + 1
        if count > MOST:
            self._left.setdefault(check, []).append(status)
            return
        parts = [brief(text, TEXT_MOST) for text in (seen, means, mend)]
        self.findings.append(Finding(self.name, check, status, *parts))

    def done(self) -> list[Finding]:
        """All findings, and the number of omitted ones."""
        for check, statuses in self._left.items():
            status = PROBLEM if PROBLEM in statuses else NOTE if NOTE in statuses else OK
            self.findings.append(Finding(self.name, check, status, f"and {len(statuses)} more of this kind"))
        self._left = {}
        return self.findings


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """The number of findings per status."""
    out = {OK: 0, NOTE: 0, PROBLEM: 0}
    for finding in findings:
        out[finding.status] += 1
    return out


def as_json(findings: list[Finding]) -> dict[str, object]:
    """The document of `--json`."""
    found = counts(findings)
    worst = PROBLEM if found[PROBLEM] else NOTE if found[NOTE] else OK
    return {"status": worst, "counts": found, "findings": [asdict(finding) for finding in findings]}


def as_text(findings: list[Finding], width: int, colour: bool) -> str:
    """Lines of at most ``width`` characters (40 at least): by area, each finding with its meaning
    and its fix.

    A meaning is printed only once in a row.

    Commands are not wrapped, so that they can be copied.
    """
    width = max(width, 40)
    names = min(max((len(finding.check) for finding in findings), default=0), width // 3)
    lines: list[str] = []
    area = means = ""
    for finding in findings:
        if finding.area != area:
            area = finding.area
            lines += [*([""] if lines else []), _paint(area, "1", colour)]
        head = f"  {finding.status:7}  {finding.check:{names}}  "
        indent = " " * len(f"  {'':7}  {'':{names}}  ")
        if len(indent) > width // 2:
            indent = "    "
        body = _wrapped(head, finding.seen, width, indent)
        body[0] = body[0].replace(finding.status, _paint(finding.status, _COLOURS[finding.status], colour), 1)
        if finding.means and finding.means != means:
            body += _wrapped(indent, finding.means, width, indent)
        if finding.mend:
            body.append(indent + _paint("-> ", "2", colour) + finding.mend)
        means = finding.means
        lines += body
    return "\n".join([*lines, "", _summary(counts(findings))]) + "\n"


def _wrapped(head: str, text: str, width: int, indent: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=head, subsequent_indent=indent, break_on_hyphens=False, drop_whitespace=True
    ) or [head.rstrip()]


def _summary(found: dict[str, int]) -> str:
    texts = [f"{found[OK]} ok"]
    for status, plural in _PLURALS.items():
        texts.append(f"{found[status]} {status if found[status] == 1 else plural}")
    return ", ".join(texts)


def _paint(words: str, attribute: str, colour: bool) -> str:
    return f"\33[{attribute}m{words}\33[m" if colour else words
