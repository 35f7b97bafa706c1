"""The functions of the shim through the cffi extension, for interpreters other than the
launcher's."""

from __future__ import annotations

from pyrunc.native.prototypes import CALLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from pyrunc.native.prototypes import Prototypes


def call(name: str) -> Callable[..., int]:
    """One function. The extension is loaded when it is first called, which raises ImportError if it
    is not built."""
    word = CALLS.get(name, name)
    bound: list[Any] = []  # Any: cffi types its objects no better

    def function(*args: object) -> int:
        if not bound:
            from pyrunc._shim import ffi, lib

            found = getattr(lib, "pr_" + name)
            bound.extend((ffi, found, ffi.typeof(found).args))
        ffi, found, kinds = bound
        result: int = found(*(argument(ffi, kind, value) for kind, value in zip(kinds, args, strict=True)))
        if result < 0 and word:
            raise OSError(-result, word)
        return result

    function.__name__ = name
    return function


def argument(ffi: Any, kind: Any, value: Any) -> Any:  # cffi has no better types
    """An argument as cffi takes it for a parameter of this C type.  The result keeps its memory."""
    if kind.kind != "pointer":
        return value
    if value is None:
        return ffi.NULL
    if isinstance(value, list):
        return [*(ffi.new("char[]", item) for item in value), ffi.NULL]
    of = "char" if kind.item.kind == "void" else kind.item.cname
    # from_buffer does not add the NUL that bytes end in.
    return value if of == "char" and isinstance(value, bytes) else ffi.from_buffer(f"{of}[]", value)


class Foreign:
    """The functions, as attributes."""

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = call(name)
        setattr(self, name, function)
        return function


calls: Prototypes = Foreign()
