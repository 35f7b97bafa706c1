"""What the typed functions over the C core pass to it, and what they make of its answers.
golden/shim_steps.txt has the tables (PYRUNC_UPDATE_GOLDEN=1 rewrites them; then review the diff).
"""

from __future__ import annotations

import errno
import importlib
import sys
from collections.abc import Callable, Iterable
from struct import pack
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc.native import (
    binding,
    bpf,
    bus,
    files,
    foreign,
    libseccomp,
    namespaces,
    probe,
    processes,
    signals,
    sockets,
    terminals,
)

Room = bytes | None  # what the core writes into a buffer; None leaves it
FAILED = OSError(errno.EINVAL, "word of the call")
LONG = b"x" * 5000


def told(value: object) -> str:
    """An argument; of a buffer its size."""
    if isinstance(value, bytearray):
        return f"room for {len(value)}" + (f" with {bytes(value)!r}" if any(value) else "")
    return spies.told(value)


class Core:
    """The C core: each function notes its call, fills the buffers, and returns or raises the result."""

    def __init__(self, result: object, rooms: Iterable[Room], notes: list[str]) -> None:
        self.result, self.rooms, self.notes = result, list(rooms), notes

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: object) -> Any:
            self.notes.append(f"{name}({', '.join(map(told, args))})")
            rooms = iter(self.rooms)
            for arg in args:
                if isinstance(arg, bytearray) and (content := next(rooms, None)) is not None:
                    arg[: len(content)] = content[: len(arg)]
            found = self.result.pop(0) if isinstance(self.result, list) else self.result
            if isinstance(found, BaseException):
                raise found
            return found

        return call


def outcome(call: Callable[[], object]) -> str:
    """A result, or an error with its attributes."""
    try:
        return spies.told(call())
    except (OSError, MemoryError) as error:
        number = errno.errorcode.get(getattr(error, "errno", None) or 0, "")
        cause = "" if error.__suppress_context__ else f" while {error.__context__!r}"
        return f"{type(error).__name__} {number} {getattr(error, 'strerror', '')} {vars(error)}{cause}"


# name -> module, call, and (result, contents of the buffers) of each case
ROWS: dict[str, tuple[Any, Callable[[], object], Any]] = {
    "load_device": (bpf, lambda: bpf.load_device(b"c" * 24), [
        (5, []), (FAILED, [b"line one\n  line two\0rest"]), (FAILED, [None]), (FAILED, [b"\xff\0"]), (FAILED, [LONG]),
    ]),
    "attached": (bpf, lambda: bpf.attached(7, 3), [(n, [pack("3I", 1, 2, 1 << 31)]) for n in range(4)] + [(FAILED,
        [])]),
    "name of a program": (bpf, lambda: bpf.name(7), [(0, [b"pyrunc\0x"]), (0, [b"n" * 16]), (0, [b"\xff"]), (0, [None]),
                                                   (FAILED, [])]),
    "free": (bus, lambda: bus.Message(9).free(), [(0, [])]),
    "add_text": (bus, lambda: bus.Message(9).add_text(b"s", b"v"), [(0, []), (FAILED, [])]),
    "add_number": (bus, lambda: each(bus.Message(9).add_number, *((b"t", n) for n in (0, 5, -1, 1 << 63,
        (1 << 64) + 5))), [(0, [])]),
    "add_real": (bus, lambda: bus.Message(9).add_real(1.5), [(0, [])]),
    "add_bytes": (bus, lambda: bus.Message(9).add_bytes(b"four"), [(0, [])]),
    "containers": (bus, lambda: [each(bus.Message(9).open_container, (b"a", b"s")),
                                 each(bus.Message(9).close_container, ()), each(bus.Message(9).enter, (b"v",
                                     b"u"))], [(0, [])]),
    "read_text": (bus, lambda: bus.Message(9).read_text(b"s", 20), [(0, [b"text\0more"]), (0, [b"t" * 20]), (FAILED,
        [])]),
    "bus": (bus, lambda: both(bus.Bus(b"unix:path=/x", True)), [(0, [pack("Q", 77)]), (FAILED, [])]),
    "message": (bus, lambda: open_bus().message(b"s", b"/p", b"i", b"m")._handle, [(0, [pack("Q", 1 << 63)])]),
    "call": (bus, lambda: open_bus().call(bus.Message(9), 5000)._handle, [
        (0, [None, pack("Q", 78)]), (FAILED, [None]), (FAILED, [b"org.name\nthe words\nof it\0x"]), (FAILED,
            [b"org.name"]),
        (FAILED, [b"\nwords"]), (FAILED, [b"\xff\n\xff"]), (FAILED, [LONG]), (TimeoutError(), [None]),
    ]),
    "wait_job": (bus, lambda: open_bus().wait_job(b"/job", 5), [(0, [b"done\0x"]), (0, [b"\xff"]), (0, [LONG]),
                                                               (TimeoutError(), [])]),
    "knows_flag": (libseccomp, lambda: libseccomp.knows_flag(6), [(1, []), (2, []), (0, [])]),
    "usable": (libseccomp, lambda: libseccomp.usable(6), [(1, []), (2, []), (0, []), (FAILED, [])]),
    "name of a call": (libseccomp, lambda: libseccomp.name(6, 7), [(4, [b"openat"]), (0, []), (64, [b"n" * 64]),
                                                                 (FAILED, [])]),
    "compile": (libseccomp, lambda: libseccomp.compile(b"profile", 16), [
        (8, [b"p" * 16, None]), (0, [b"p" * 16]), (FAILED, [b"seccomp_load\0x", pack("3i", 1, -2, 3)]),
        (FAILED, [b"\xff", None]),
    ]),
    "memfd_sealed": (files, lambda: [files.memfd_sealed(b"n", b"data"), files.memfd_sealed(b"n", b"", executable=True)],
                     [(5, []), (FAILED, [])]),
    "user_namespace": (namespaces, lambda: namespaces.user_namespace(b"0 1 2\n", b"3 4 5\n"), [
        (5, []), *((FAILED, [pack("i", stage)]) for stage in range(-1, 7)),
    ]),
    "probe": (probe, lambda: [probe.probe(what, 5) for what in probe.PROBES], [(3, []), (FAILED, [])]),
    "subordinate_ids": (probe, lambda: probe.subordinate_ids(b"me", True), [
        (1, [b"\0"]), (8, [b"\x001 65536x"]), (0, []), (FAILED, []),
    ]),
    "spawn_init": (processes, lambda: [processes.spawn_init(5, 6, 7), processes.spawn_init(5, 6, 0, (8, -1, 9)),
                                       processes.spawn_init(5, 6, 7, ahead=True)], [(41, []), (FAILED, [])]),
    "spawn_hook": (processes, lambda: [processes.spawn_hook(b"/h", [b"h", b"x"], [b"A=1"]),
                                       processes.spawn_hook(b"/h", [], [], cwd=b"/c", stdin=5, out=6)], [
        (41, []), *((FAILED, [pack("i", stage)]) for stage in range(-1, 5)),
    ]),
    "signals": (signals, lambda: signals.read(61), [([15, 1, FAILED], []), ([FAILED], [])]),
    "socketpair": (sockets, lambda: [sockets.socketpair(), sockets.socketpair(10)], [(0, [pack("2i", 5, 6)]),
        (FAILED, [])]),
    "send": (sockets, lambda: [sockets.send(5, b"text"), sockets.send(5, b"", [7, 8, -1])], [(4, []), (FAILED, [])]),
    "send_descriptor": (sockets, lambda: sockets.send_descriptor(5, b"text", 7), [(4, []), (FAILED, [])]),
    "receive": (sockets, lambda: sockets.receive(5, 10, 50), [(4, [b"text and "]), (0, []), (10, [LONG]), (FAILED,
        [])]),
    "receive_descriptor": (sockets, lambda: sockets.receive_descriptor(5, 10, 50), [
        (4, [b"text and", pack("i", 7)]), (0, [None, pack("i", -1)]), (10, [LONG, pack("i", 0)]), (FAILED, []),
    ]),
    "size": (terminals, lambda: terminals.size(0), [(0, [pack("4H", 24, 80, 7, 8)]), (0, []), (FAILED, [])]),
    "make_raw": (terminals, lambda: terminals.make_raw(0), [(0, [b"mode"]), (0, [LONG]), (FAILED, [])]),
    "restore": (terminals, lambda: terminals.restore(0, b"mode"), [(0, []), (FAILED, [])]),
    "text": (binding, lambda: [binding.text(bytearray(room)) for room in (b"", b"\0", b"a", b"a\0b\0c")], [(0, [])]),
}  # fmt: skip


def each(call: Callable[..., object], *args: tuple[object, ...]) -> list[object]:
    """The results of several calls."""
    return [call(*one) for one in args]


def both(one: bus.Bus) -> object:
    """A connection that is closed twice."""
    first = one._handle
    one.close()
    one.close()
    return first, one._handle


def open_bus() -> bus.Bus:
    """A connection."""
    one = object.__new__(bus.Bus)
    one._handle = 77
    return one


@pytest.mark.parametrize("name", ROWS)
def test_calls_of_the_core(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, call, cases = ROWS[name]
    lines: list[str] = []
    for result, rooms in cases:
        notes: list[str] = []
        monkeypatch.setattr(module, "calls", Core(list(result) if isinstance(result, list) else result, rooms, notes))
        said = outcome(call)
        lines += [f"case {told(result)}", *notes, f"-> {said}"]
    transcript.compare("shim_steps", name, lines, cut=True)


@pytest.mark.parametrize(
    "name", ["bpf", "files", "namespaces", "processes", "signals", "sockets", "terminals", "libseccomp"]
)
def test_functions_that_are_the_cores_own(name: str) -> None:
    """A module gives them its own names."""
    found = vars(importlib.import_module(f"pyrunc.native.{name}"))
    kept = [
        f"{own} = {value.__name__}"
        for own, value in sorted(found.items())
        if getattr(value, "__qualname__", "") == "call.<locals>.function"
    ]
    transcript.compare("shim_steps", f"functions of {name}", kept)


# -- cffi ------------------------------------------------------------------------------------------


class Ffi:
    """cffi, as far as it is used."""

    NULL = "NULL"

    def new(self, kind: str, value: object) -> str:
        return f"new({kind}, {value!r})"

    def from_buffer(self, kind: str, value: object) -> str:
        return f"from_buffer({kind}, {value!r})"


def kind_of(kind: str, item: str = "", name: str = "") -> Any:
    """A type of cffi."""
    return SimpleNamespace(kind=kind, item=SimpleNamespace(kind=item, cname=name))


def test_arguments_of_the_core() -> None:
    kinds = [kind_of("primitive"), kind_of("pointer", "void", "void"), kind_of("pointer", "primitive", "char"),
             kind_of("pointer", "primitive", "uint32_t")]  # fmt: skip
    values: list[object] = [None, 5, b"bytes", bytearray(b"room"), [b"a", b"b"], []]
    lines = [
        f"{kind.kind} {kind.item.cname} {value!r}: {foreign.argument(Ffi(), kind, value)!r}"
        for kind in kinds
        for value in values
    ]
    transcript.compare("shim_steps", "arguments", lines)


def test_results_of_the_core(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyrunc._shim as shim

    answers: dict[str, int] = {"pr_setns": 5, "pr_unshare": 0, "pr_recv": -errno.EAGAIN, "pr_await_end": -errno.ESRCH}
    looked: list[str] = []

    class Lib:
        def __getattr__(self, name: str) -> Any:
            looked.append(name)
            return lambda *args: answers[name]

    fake = Ffi()
    fake.typeof = lambda found: SimpleNamespace(args=(kind_of("primitive"),) * 2)  # type: ignore[attr-defined]
    monkeypatch.setattr(shim, "ffi", fake)
    monkeypatch.setattr(shim, "lib", Lib())
    monkeypatch.setattr(foreign, "CALLS", {"recv": "recvmsg", "signalfd_read": ""})
    one = foreign.Foreign()
    lines = [outcome(lambda name=name: getattr(one, name)(1, 2)) for name in ("setns", "unshare", "recv", "await_end")]  # type: ignore[misc]
    answers["pr_signalfd_read"] = -5
    lines += [outcome(lambda: one.signalfd_read(1, 2)), outcome(lambda: one.setns(1, 2)), str(looked)]
    lines += [one.setns.__name__, str(sorted(vars(one)))]
    transcript.compare("shim_steps", "results", lines)


def test_a_call_with_too_few_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    import pyrunc._shim as shim

    fake = Ffi()
    fake.typeof = lambda found: SimpleNamespace(args=(kind_of("primitive"),) * 2)  # type: ignore[attr-defined]
    monkeypatch.setattr(shim, "ffi", fake)
    monkeypatch.setattr(shim, "lib", SimpleNamespace(pr_setns=lambda *args: 0))
    assert foreign.call("setns")(1, 2) == 0
    for args in ((1,), (1, 2, 3)):
        with pytest.raises(ValueError, match="zip"):
            foreign.call("setns")(*args)


def test_a_connection_that_failed_can_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    monkeypatch.setattr(bus, "calls", Core([FAILED, 0], [], notes))
    one = object.__new__(bus.Bus)
    with pytest.raises(OSError, match="word"):
        one.__init__(b"unix:path=/x", False)  # type: ignore[misc]
    one.close()
    assert notes == ["bus_open(b'unix:path=/x', False, room for 8)", "bus_close(0)"]


def test_the_core_of_each_kind_of_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    launcher = ModuleType("_pyrunc_launcher")
    monkeypatch.setitem(sys.modules, "_pyrunc_launcher", launcher)
    for frozen, core in ((True, launcher), (False, foreign.calls)):
        monkeypatch.setattr(binding, "FROZEN", frozen)
        assert binding._bind() is core
