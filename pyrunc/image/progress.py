"""A progress bar on a terminal; no output elsewhere."""

from __future__ import annotations

import os
import sys
import time


class Progress:
    """Finished bytes of all layers; redrawn on stderr at most ten times a second."""

    def __init__(self, label: str, total: int, *, quiet: bool = False) -> None:
        self.label, self.total, self.done = label, total, 0
        self.enabled = not quiet and total > 0 and os.isatty(2)
        self.drawn = 0.0

    def advance(self, count: int) -> None:
        """Count more finished bytes."""
        self.done += count
        if self.enabled and (time.monotonic() - self.drawn > 0.1 or self.done >= self.total):
            self._draw()

    def _draw(self) -> None:
        self.drawn = time.monotonic()
        width = max(10, min(40, os.get_terminal_size(2).columns - len(self.label) - 24))
        part = min(1.0, self.done / self.total)
        bar = "#" * int(width * part)
        sys.stderr.write(f"\r{self.label} [{bar:<{width}}] {self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB")
        sys.stderr.flush()

    def end(self) -> None:
        """End the line."""
        if self.enabled and self.drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
