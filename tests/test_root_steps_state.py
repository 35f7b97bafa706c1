"""The state of containers: which documents are one, what the state root asks of the system, and the
handshake's records. golden/root_steps_state.txt has the tables, as in test_root_steps.py.
"""

from __future__ import annotations

import errno
import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc import handshake, log
from pyrunc.errors import Capped, Problem, StateError, SysError
from pyrunc.state import document, root, store
from spies import Answers, By, alone
from test_results import results
from test_session_steps import Row, method
from test_steps import Tables, calls_of, failed, rows

same = partial(transcript.compare, "root_steps_state", cut=True)

# -- documents -------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {"id": "c1", "status": "running", "pid": 5, "starttime": 9, "cgroup": "/c"}
ADDED: dict[str, Any] = {"entry": {"destination": "/d"}, "id": 1, "unique": 2, "at": "/d", "pending": False}
OF_KIND: dict[type, Any] = {int: 5, str: "text", dict: {}, list: []}


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name != key}


def test_documents_of_a_state() -> None:
    def parsed(more: Any) -> str:
        given = json.dumps(GOOD | more if isinstance(more, dict) else more).encode()
        return "good" if document.parse(given, "c1") == json.loads(given) else "changed"

    entries: list[Any] = [
        ADDED, {}, [], 5, ADDED | {"entry": {}}, ADDED | {"entry": {"destination": 5}}, ADDED | {"more": 1},
        ADDED | {"pending": 1}, ADDED | {"id": True}, ADDED | {"at": None},
    ]  # fmt: skip
    cases: list[Any] = [
        {}, [], "x", 5, {"id": "c2"}, {"id": None}, {"pid": 0}, {"pid": -1}, {"pid": True}, {"pid": "5"}, {"pid": 1.0},
        {"pid": (1 << 31) - 1}, {"pid": 1 << 31}, *({"status": one} for one in ("creating", "created", "stopped", "",
        5)),
        *({"mounts": [one]} for one in entries),
        {"mounts": [ADDED, {}]}, *({"mounts": [without(ADDED, key)]} for key in ADDED), {"mounts": []}, {"unknown": 5},
        {"bundle": "\ud800"}, {"annotations": {"a": "b\0"}},
    ]  # fmt: skip
    lines = results(parsed, cases)
    for key, kind in document._TYPES:
        others = [value for other, value in OF_KIND.items() if other is not kind]
        given = [OF_KIND[kind], *others, *(["a\0b", ""] if kind is str else []), None, True]
        lines += [f"{key}: {line}" for line in results(parsed, [{key: value} for value in given])]
    same("documents", lines)


def test_incomplete_documents() -> None:
    def parsed(given: Any) -> Any:
        return document.parse(json.dumps(given).encode(), "c1")

    cases = [without(GOOD, key) for key in GOOD] + [without(GOOD, "starttime") | {"pid": 0}, GOOD | {"pid": 0}]
    texts = [b"", b"{", b"null", b'{"id": "c1"}']
    same("incomplete", results(parsed, cases) + results(lambda data: document.parse(data, "c1"), texts))


def test_states_for_hooks() -> None:
    cases = [("c1", "running", "/b", notes) for notes in ({}, {"a": 'b"'})] + [('i"d', "created", "/\u00e4", {})]
    lines = results(document.split_state, cases)
    lines += results(lambda id, status, *rest: document.oci_state(id, status, 5, *rest), cases)
    ids = ["a", "_a.-+9Z", "", ".", ".a", "-a", "a/b", "a b", "\u00e4", "x" * 242, "x" * 243, "a\n", "a:"]
    same("states for hooks", lines + results(document.check_id, ids))


# -- the state root --------------------------------------------------------------------------------

OWN = SimpleNamespace(st_uid=0, st_mode=0o040700)
SYSTEM: dict[str, Any] = {
    "posix.open": Answers([21, 22]), "posix.fstat": OWN, "posix.geteuid": 0, "_make": 25, "fs.exists": True,
    "_mkdir": None, "check_id": None, "posix.listdir": ["b", "a", "c"], "container.dir": "/r/a", "open_root": True,
}  # fmt: skip


def of_root(name: str, *args: Any, fd: int = -1) -> Any:
    return method(root.Root, name, *args, own=name, fd=fd, root="/run/a/b")


ROOT_CALLS: dict[str, Row] = {
    "open_root": (of_root("open_root"), [
        {}, {"posix.open": failed(errno.ENOENT)}, {"posix.open": failed(errno.ELOOP)}, {"posix.open": OSError("none")},
        {"posix.fstat": failed(errno.EIO)}, {"posix.geteuid": 5}, {"SELF": {"fd": 0}}, {"SELF": {"fd": 5}},
        *({"posix.fstat": SimpleNamespace(st_uid=0, st_mode=mode)} for mode in (0o040720, 0o040702, 0o041755,
        0o040777)),
    ]),
    "open_root to make it": (of_root("open_root", True), [{}, {"posix.open": failed(errno.ENOENT)}]),
    "_make": (of_root("_make"), [
        {}, {"fs.exists": False}, {"fs.exists": By({"/run": True, None: False})}, {"posix.geteuid": 5},
        {"_mkdir": failed(errno.EROFS)}, {"_mkdir": OSError("none")}, {"posix.open": failed(errno.ENOTDIR)},
        {"posix.fchmod": failed(errno.EPERM)}, {"fs.exists": failed(errno.ENOMEM)},
    ]),
    "close": (of_root("close", fd=5), [{}, {"SELF": {"fd": 0}}, {"SELF": {"fd": -1}}]),
    "exists": (of_root("exists"), [{}, {"open_root": False}]),
    "_mkdir": (alone(root, "_mkdir", "/d", 0o755), [
        {}, {"posix.mkdir": failed(errno.EEXIST)}, {"posix.mkdir": failed(errno.EACCES)}]),
}  # fmt: skip


def of_store(name: str, *args: Any, **more: Any) -> Any:
    def call(w: Any) -> Any:
        one = w.made(store.Store, name, fd=7, root="/r")
        w.answers.setdefault("Container", w.spy("container", dir="/r/a"))
        given = [w.spy(arg[1:]) if isinstance(arg, str) and arg[:1] == "@" else arg for arg in args]
        found = getattr(one, name)(*given, **more)
        return [*found] if name == "list" else found

    return call


WRONG, LATER = StateError("wrong"), SysError("/s", "open", errno.EMFILE)
LISTS: list[dict[str, Any]] = [
    {}, {"open_root": False}, {"posix.listdir": []}, {"check_id": WRONG}, {"container.load": WRONG},
    {"container.load": WRONG, "container.abandoned": False}, {"container.load": Answers([None, WRONG, None])},
    {"container.load": LATER}, {"container.load": MemoryError()}, {"container.looks_whole": False},
]  # fmt: skip
STORE_CALLS: dict[str, Row] = {
    "reserve": (of_store("reserve", "a"), [{}, {"container.reserve": WRONG}]),
    "open": (of_store("open", "a"), [{}, {"find": WRONG}]),
    "find": (of_store("find", "a"), [{}, {"check_id": WRONG}, {"open_root": False}, {"fs.exists": False}]),
    "list": (of_store("list"), LISTS), "list with a handler": (of_store("list", "@broken"), LISTS),
    "list of ids": (of_store("list", "@broken", content=False), LISTS),
}  # fmt: skip
TABLES: Tables = [
    ("pyrunc.state.root", ROOT_CALLS, SYSTEM, ()),
    ("pyrunc.state.store", STORE_CALLS, SYSTEM, ("check_id", "Container")),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("root_steps_state", f"{module.rpartition('.')[2]}.{name}", calls_of(module, name, TABLES))


# -- records and messages --------------------------------------------------------------------------


def test_records() -> None:
    def decoded(data: bytes) -> Any:
        one = handshake.Record(data)
        return one.type, one.step, one.err, one.value, one.arg, one.item, one.call, one.detail

    cases = [
        handshake._RECORD.pack(11, 3, -5, 7, 1, 2, 9, b"call\0x", b"detail\0\xff"),
        handshake._RECORD.pack(1, 0xFFFFFFFF, 0, 0, 0, 0, 0, b"c" * 24, b"\xff" * 208), b"", bytes(255), bytes(257),
        bytes(256),
    ]  # fmt: skip
    made = [handshake.encode(handshake.PLAN), handshake.encode(handshake.GO, 5)]
    same("records", results(decoded, [*cases, *made]))


def test_warnings_about_a_document(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []
    one = log.Log()
    monkeypatch.setattr(log.Log, "warning", lambda self, text: said.append(text))
    for count in (0, 1, 101):
        found = Capped()
        for number in range(count):
            found.append(Problem(f"/{number}", "x"))
        one.warnings(found, "config.json")
        said.append(f"{count}: {len(said)}")
    same("warnings", [said[0], *said[1:4], *said[-3:]])
