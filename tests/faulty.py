"""Inject failures into system calls of one pyrunc module, one at a time, inside the test's own
process.

integration/faults does this for whole commands. Here a scene is one function. After each failing
call it must either raise or produce the same result as without a fault, and leave no descriptor and
no child.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pyrunc.native import (
    bpf,
    bus,
    files,
    libseccomp,
    mounts,
    namespaces,
    processes,
    signals,
    sockets,
    terminals,
)

# These cannot fail, or their failure has no effect.
SAFE = {
    "getpid", "geteuid", "getuid", "getcwd", "fspath", "set_blocking", "WIFEXITED", "WEXITSTATUS", "WTERMSIG",
    "WIFSIGNALED", "environ",
}  # fmt: skip
SAFE_NATIVE = {"version", "catch", "caught", "restore", "read", "text", "pack", "unpack", "_number"}
NATIVE = (bpf, bus, files, libseccomp, mounts, namespaces, processes, signals, sockets, terminals)


class Faults:
    """Count the calls of the modules passed to `into`, and make one of them fail."""

    def __init__(self, number: int) -> None:
        self.number, self.at, self.count = number, -1, 0
        self.hit = ""

    def fails(self, name: str) -> bool:
        """Whether this call is the chosen one."""
        self.count += 1
        if self.count - 1 == self.at:
            self.hit = name
        return bool(self.hit) and self.count - 1 == self.at


class Posix:
    """A stand-in for a module's `posix` that raises OSError for the chosen call."""

    def __init__(self, faults: Faults, real: Any) -> None:
        self.faults, self.real = faults, real

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.real, name)
        if name in SAFE or not callable(value) or isinstance(value, type):
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            if self.faults.fails(name):
                if name == "close":  # the kernel closes the descriptor even if it reports an error
                    value(*args, **kwargs)
                raise OSError(self.faults.number, os.strerror(self.faults.number))
            return value(*args, **kwargs)

        return call


def failing(faults: Faults, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """A pyrunc.native function that raises OSError if it is the chosen call."""

    def call(*args: Any, **kwargs: Any) -> Any:
        if faults.fails(name):
            raise OSError(faults.number, name)
        return real(*args, **kwargs)

    return call


def into(patch: pytest.MonkeyPatch, faults: Faults, modules: Iterable[Any]) -> None:
    """Replace `posix` in these modules, and pyrunc.native's functions everywhere, with failing
    stand-ins."""
    for module in modules:
        if hasattr(module, "posix"):
            patch.setattr(module, "posix", Posix(faults, module.posix))
    for module in NATIVE:
        for name, value in list(vars(module).items()):
            if callable(value) and not isinstance(value, type) and name not in SAFE_NATIVE:
                patch.setattr(module, name, failing(faults, name, value))


def open_descriptors() -> dict[str, str]:
    """Map each open descriptor to its target."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the descriptor of the listing itself
    return found


def children() -> int:
    """The number of children that have not been reaped."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(file.read().split())


def sweep(
    modules: Iterable[Any],
    scene: Callable[[], Callable[[], Any]],
    number: int = errno.ENOMEM,
    *,
    after: Callable[[BaseException | None], None] = lambda _: None,
    least: int = 3,
) -> dict[str, int]:
    """Run a scene once for each of its calls; returns the calls whose failure it tolerates, and
    their counts.

    ``scene()`` prepares and returns the function to run. ``after`` is called with the error or
    None.
    """
    good = scene()()
    tolerated: dict[str, int] = {}
    modules = list(modules)
    for index in range(1000):
        run = scene()
        faults = Faults(number)
        faults.at = index
        before, family = open_descriptors(), children()
        error: BaseException | None = None
        with pytest.MonkeyPatch.context() as patch:
            into(patch, faults, modules)
            try:
                found = run()
            except Exception as caught:
                error = caught
        if not faults.hit:
            assert index >= least, f"only {index} calls"
            assert error is None
            return tolerated
        where = f"call {index}, {faults.hit}"
        assert open_descriptors() == before, where
        assert children() == family, where
        if error is None:
            assert found == good, where
            tolerated[faults.hit] = tolerated.get(faults.hit, 0) + 1
        else:
            assert faults.number in numbers_of(error), f"{where}: {error!r}"
        after(error)
    raise AssertionError("more than 1000 calls")


def numbers_of(error: BaseException | None) -> set[int]:
    """The errnos of an error and of its causes."""
    found = set()
    while error is not None:
        found.add(getattr(error, "errno", 0) or 0)
        error = error.__cause__ or error.__context__
    return found
