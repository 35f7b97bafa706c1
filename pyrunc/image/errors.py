"""Errors about an image, with the image, the blob and the layer entry."""

from __future__ import annotations

from pyrunc.errors import PyruncError, printable, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self


class ImageError(PyruncError):
    """An image cannot be used. Rendered as ``IMAGE: BLOB: entry "NAME": text``; each part may be
    missing."""

    def __init__(self, text: str, *, entry: str | None = None) -> None:
        self.text = text
        self.places: list[str] = [] if entry is None else [f"entry {show(entry)}"]
        super().__init__(text)

    def within(self, place: str) -> Self:
        """Add the enclosing place; returns the error itself, to be raised."""
        self.places.insert(0, place)
        return self

    def __str__(self) -> str:
        return printable(": ".join([*self.places, self.text]))


class Within:
    """Context manager: add this place (an image, a manifest, a layer) to an `ImageError` that
    leaves it."""

    def __init__(self, place: str) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ImageError):
            error.within(self.place)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and its causes, outermost first; urllib3 keeps some in an attribute."""
    for _ in range(16):
        if not isinstance(error, BaseException):
            return
        yield error
        error = error.__cause__ or error.__context__ or getattr(error, "reason", None)
