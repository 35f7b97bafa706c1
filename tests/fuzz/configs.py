"""config.json, from the ones that engines send and those of tests/golden, with anything wrong with
it."""

from __future__ import annotations

import functools
import json
import pathlib
from typing import Any

import plan_support
from fuzz.draw import Draw

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUNDLES = ROOT / "integration" / "bundles"
LARGE = 6000  # bytes; seccomp profiles of engines would take all the time, and have a target of their own

JUNK: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1, 2**64,
    -(2**63), 10**40, 0.5, 1.0, -0.0, 1e308, "", "a", "/", "//", "..", "/..", "../..", "/a/../b", ".", "a b", "a=b",
    "=", "a:b", "\n", "x" * 300, "/" + "y/" * 3000, "\u00e9", "\U0001f600", "\ufeff", "\u202e", "0", "-1", "0-3,7",
    "3-0", "root", "null", "/proc/self/fd/3", "/proc", "/dev/null", "/sys/fs/cgroup", "shared", "rprivate",
    "unbindable", "rbind", "bind", "ro", "rro", "remount", "noatime", "nonorelatime", "tmpcopyup", "idmap",
    "ridmap", "size=1m", "user", "mount", "pid", "network", "cgroup", "time", "CAP_SYS_ADMIN", "CAP_X",
    "RLIMIT_NOFILE", "RLIMIT_X", "SCMP_ACT_NOTIFY", "SCMP_ACT_ALLOW", "SCMP_CMP_EQ", "rwm", "b", "u", "p",
    "net.ipv4.ip_forward", "kernel.shmmax", "LINUX32", [], {}, [None], [""], [[]], [{}], {"": None}, [0] * 40,
    ["shared", "private"] * 12, ["a"] * 2000,
)  # fmt: skip
KEYS = (
    "", "a", "path", "type", "options", "uid", "gid", "args", "linux", "process", "namespaces", "uidMappings", "size",
    "~/", "\u00e9", "access", "limit", "devices", "resources", "seccomp", "hooks", "timeout", "x" * 200,
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document, its containers included."""
    found = [path]
    if type(value) is dict:
        for key, item in value.items():
            found += places(item, (*path, key))
    elif type(value) is list:
        for index, item in enumerate(value):
            found += places(item, (*path, index))
    return found


@functools.cache
def documents() -> list[dict[str, Any]]:
    """What is changed; each is a valid config.json for the stub host (or nearly)."""
    found = [plan_support.load_case(name)[0] for name in plan_support.case_names()]
    found += [json.loads(path.read_text()) for path in sorted(BUNDLES.glob("*.json"))]
    for document in found:
        profile = (document.get("linux") or {}).get("seccomp") or {}
        if len(json.dumps(document)) > LARGE and profile.get("syscalls"):
            profile["syscalls"] = profile["syscalls"][:2]
    return [document for document in found if len(json.dumps(document)) <= LARGE]


@functools.cache
def places_of(index: int) -> list[tuple[Any, ...]]:
    return places(documents()[index])[1:]


def get(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value


def changed(value: Any, path: tuple[Any, ...], change: Any) -> Any:
    """A copy of a document with ``change(container, key)`` carried out at one place; what is off
    the way is shared."""
    copy = dict(value) if type(value) is dict else list(value)
    if len(path) == 1:
        change(copy, path[0])
    else:
        copy[path[0]] = changed(copy[path[0]], path[1:], change)
    return copy


def mutate(draw: Draw, document: Any, path: tuple[Any, ...]) -> Any:
    """One thing made wrong, or only different, at a place."""
    kind = draw.below(7)
    if kind == 0:  # gone
        return changed(document, path, lambda holder, key: holder.__delitem__(key))
    if kind == 1:  # something else
        junk = draw.pick(JUNK)
    elif kind == 2:  # values from elsewhere in a config.json
        other = draw.below(len(documents()))
        junk = get(documents()[other], draw.pick(places_of(other)))
    elif kind == 3:
        junk = draw.number(8) - draw.number(4)
    elif kind == 4:
        junk = draw.text(("/", ".", "..", "a", ":", "-", ",", "=", "1", "%", "\\", "~", "\t"), 8)
    elif kind == 5:  # again, or under another name

        def more(holder: Any, key: Any) -> None:
            if type(holder) is list:
                holder.insert(draw.below(len(holder) + 1), holder[key])
            else:
                holder[draw.pick(KEYS)] = holder[key]

        return changed(document, path, more)
    else:  # inside a container of its own
        value = get(document, path)
        junk = [value] if draw.one_in(2) else {draw.pick(KEYS): value}
    return changed(document, path, lambda holder, key: holder.__setitem__(key, junk))


def config(draw: Draw) -> Any:
    """A document after up to three changes."""
    index = draw.below(len(documents()))
    document: Any = documents()[index]
    for _ in range(draw.below(4)):
        known = places_of(index) if document is documents()[index] else places(document)[1:]
        if not known:
            break
        document = mutate(draw, document, known[draw.below(len(known))])
    return document


def noise(draw: Draw, data: bytes) -> bytes:
    """Bytes of a document changed, cut, doubled."""
    out = bytearray(data)
    for _ in range(draw.below(4)):
        at = draw.below(len(out) + 1)
        kind = draw.below(4)
        if kind == 0:
            out[at : at + 1] = bytes((draw.below(256),))
        elif kind == 1:
            out[at : at + draw.below(64)] = b""
        elif kind == 2:
            out[at:at] = out[draw.below(len(out) + 1) :][: draw.below(64)]
        else:
            out[at:at] = draw.pick(
                (b"{", b"[", b'"', b",", b"\0", b"\xff", b"\\u0000", b"\\udcff", b"1e999", b"NaN", b"-0")
            )
    return bytes(out)


def document_bytes(draw: Draw, document: Any) -> bytes:
    """A document as a file, often damaged."""
    data = json.dumps(document, ensure_ascii=draw.one_in(2)).encode("utf-8", "surrogatepass")
    return noise(draw, data) if draw.one_in(3) else data
