"""All containers under one state root."""

from __future__ import annotations

import posix

from pyrunc import fs
from pyrunc.errors import NotFound, PyruncError, StateError, SysError
from pyrunc.state.container import Container
from pyrunc.state.document import check_id
from pyrunc.state.root import Root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Store(Root):
    """The containers under one state root."""

    __slots__ = ()

    def reserve(self, id: str) -> Container:
        """A new, locked container.  Raises as `Container.reserve` does."""
        container = Container(self, id)
        container.reserve()
        return container

    def open(self, id: str) -> Container:
        """An existing container.  Raises NotFound, and what `Container.load` raises."""
        container = self.find(id)
        container.load()
        return container

    def find(self, id: str) -> Container:
        """An existing container, without reading its state (`delete --force`).  Raises
        StateError."""
        check_id(id)
        container = Container(self, id)
        if not self.open_root() or not fs.exists(container.dir):
            raise NotFound(id)
        return container

    def list(
        self, broken: Callable[[PyruncError], object] | None = None, *, content: bool = True
    ) -> Iterator[Container]:
        """The containers with a readable state, ordered by id; ``broken`` receives the error of
        each other one.

        Without ``content`` the states are not parsed: they may be large, and the caller needs only
        the ids. Stray files are skipped, and so are containers that another pyrunc is creating or
        removing. Raises OSError, MemoryError, and without ``broken`` SysError if a state cannot be
        read now.
        """
        if not self.open_root():
            return
        for id in sorted(posix.listdir(self.fd)):
            container = Container(self, id)
            try:
                check_id(id)
                if content or not container.looks_whole():
                    container.load()
            except StateError as error:
                if broken is not None and container.abandoned():
                    broken(error)
            except SysError as error:
                if broken is None:
                    raise
                broken(error)
            else:
                yield container
