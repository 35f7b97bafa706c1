"""Tables of aligned columns for a terminal, and of Markdown for a page."""

from __future__ import annotations


def aligned(rows: list[list[str]]) -> str:
    """Aligned columns: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip())
    return "\n".join(lines)


def markdown(rows: list[list[str]]) -> str:
    """A Markdown table; the first row is its head."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    rule = "|" + "---|" * len(rows[0])
    return "\n".join([line(rows[0]), rule, *map(line, rows[1:])])


def section(title: str, body: str) -> None:
    """Print a title and what was measured under it."""
    print(f"\n{title}\n{body}", flush=True)
