"""Documents that are rejected before anything is created: 61 cases measured with runc and crun, and
the same for `exec --process`. Each produces one line that names the field, and leaves nothing
behind."""

from __future__ import annotations

import json
from typing import Any

import pytest

from integration.config import DELETE
from integration.machine import sysctl_as_it_is
from integration.security.support import Make, Refused
from integration.test_exec import process_file, run, started

P = "/process"
CORE = "kernel.core_pattern"
RAW: list[tuple[str, Any, str]] = [  # name, the document (a function of the valid one), words
    ("empty", lambda text: "", "a JSON document"),
    ("blank", lambda text: " \n", "a JSON document"),
    ("truncated", lambda text: text[: len(text) // 2], "config.json"),
    ("null", lambda text: "null", "object"),
    ("array", lambda text: "[]", "object"),
    ("string", lambda text: '"x"', "object"),
    ("number", lambda text: "1", "object"),
    ("trailing garbage", lambda text: text + "x", "end of the document"),
    ("two documents", lambda text: text + text, "end of the document"),
    ("100k nested objects", lambda text: '{"a":' * 100_000, "nesting"),
    ("1M nested arrays", lambda text: "[" * 1_000_000, "nesting"),
    ("duplicate args", lambda text: text.replace('"args":', '"args": ["/bin/false"], "args":', 1), "/process/args"),
    ("duplicate top level", lambda text: text.replace("{", '{"root": {"path": "/x"}, ', 1), "/root"),
    ("invalid UTF-8", lambda text: text.encode().replace(b'"box"', b'"b\xffx"'), "UTF-8"),
    ("overlong UTF-8", lambda text: text.encode().replace(b'"box"', b'"b\xc0\xafx"'), "UTF-8"),
    ("UTF-16", lambda text: text.encode("utf-16"), "byte order mark"),
    ("byte order mark", lambda text: b"\xef\xbb\xbf" + text.encode(), "byte order mark"),
    ("lone surrogate", lambda text: text.replace('"box"', '"\\ud800"'), "/hostname"),
    ("surrogate that is a byte", lambda text: text.replace('"box"', '"\\udcff"'), "/hostname"),
    ("NaN", lambda text: text.replace('"uid": 0', '"uid": NaN'), "NaN"),
    ("infinite", lambda text: text.replace('"uid": 0', '"uid": 1e999'), "1e999"),
    ("5000 digits", lambda text: text.replace('"uid": 0', '"uid": ' + "9" * 5000), "digits"),
    ("raw control character", lambda text: text.replace('"box"', '"b\x01x"'), "control character"),
    ("17 MiB", lambda text: text + " " * (17 << 20), "16 MiB"),
]

NAMESPACES = "/linux/namespaces"
FIELDS: list[tuple[str, dict[str, Any], str]] = [
    ("NUL in args", {f"{P}/args": ["/bin/sleep", "1\0"]}, f"{P}/args/1"),
    ("NUL in env", {f"{P}/env": ["A=b\0"]}, f"{P}/env/0"),
    ("NUL in cwd", {f"{P}/cwd": "/\0"}, f"{P}/cwd"),
    ("NUL in a destination", {"/mounts/0/destination": "/proc\0/x"}, "/mounts/0/destination"),
    ("NUL in root.path", {"/root/path": "rootfs\0/../.."}, "/root/path"),
    ("args is a string", {f"{P}/args": "sleep"}, f"{P}/args"),
    ("args is empty", {f"{P}/args": []}, f"{P}/args"),
    ("uid -1", {f"{P}/user/uid": -1}, f"{P}/user/uid"),
    ("uid 2^32", {f"{P}/user/uid": 2**32}, f"{P}/user/uid"),
    ("uid 0.5", {f"{P}/user/uid": 0.5}, f"{P}/user/uid"),
    ("uid is a string", {f"{P}/user/uid": "12"}, f"{P}/user/uid"),
    ("uid is no number", {f"{P}/user/uid": "12x"}, f"{P}/user/uid"),
    ("uid and gid 2^32-1", {f"{P}/user": {"uid": 2**32 - 1, "gid": 2**32 - 1}}, f"{P}/user/uid"),
    ("cwd is relative", {f"{P}/cwd": "tmp"}, f"{P}/cwd"),
    ("cwd is empty", {f"{P}/cwd": ""}, f"{P}/cwd"),
    ("root.path is /", {"/root/path": "/"}, "/root/path"),
    ("root.path is nowhere", {"/root/path": "nowhere"}, "/root/path"),
    ("no root", {"/root": DELETE}, "/root"),
    ("no ociVersion", {"/ociVersion": DELETE}, "/ociVersion"),
    ("ociVersion 9.9.9", {"/ociVersion": "9.9.9"}, "/ociVersion"),
    ("a namespace twice", {f"{NAMESPACES}/-": {"type": "pid"}}, f"{NAMESPACES}/6"),
    ("a bogus namespace", {f"{NAMESPACES}/-": {"type": "bogus"}}, f"{NAMESPACES}/6"),
    ("a namespace of another type", {f"{NAMESPACES}/0/path": "/proc/self/ns/net"}, f"{NAMESPACES}/0"),
    ("a namespace that is nowhere", {f"{NAMESPACES}/0/path": "/nowhere"}, f"{NAMESPACES}/0"),
    ("a bogus limit", {f"{P}/rlimits": [{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]}, f"{P}/rlimits/0/type"),
    ("soft above hard", {f"{P}/rlimits": [{"type": "RLIMIT_CORE", "soft": 2, "hard": 1}]}, f"{P}/rlimits/0/soft"),
    ("cgroupsPath climbs", {"/linux/cgroupsPath": "../../../x"}, "/linux/cgroupsPath"),
    ("sysctl of the host", {"/linux/sysctl": {CORE: sysctl_as_it_is(CORE)}}, f"/linux/sysctl/{CORE}"),
    ("bind source is nowhere", {"/mounts/-": {"destination": "/x", "source": "/no", "options": ["bind"]}}, "/mounts/6"),
    ("a hook with a relative path", {"/hooks": {"prestart": [{"path": "bin/true"}]}}, "/hooks/prestart/0/path"),
    ("a hook that fails", {"/hooks": {"prestart": [{"path": "/bin/false"}]}}, "/hooks/prestart/0"),
    ("a hook that hangs", {"/hooks": {"prestart": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]}},
     "/hooks/prestart/0"),
    ("1 MiB in one variable", {f"{P}/env": ["A=" + "x" * (1 << 20)]}, f"{P}/env/0"),
    ("3 MB of arguments in one", {f"{P}/args": ["/bin/true", "x" * 3_000_000]}, f"{P}/args/1"),
    ("arguments of 8 MB together", {f"{P}/args": ["/bin/true", *["x" * 100_000] * 80]}, f"{P}/args"),
    ("a program that is nowhere", {f"{P}/args": ["/nowhere"]}, f"{P}/args/0"),
    ("an unknown filesystem", {"/mounts/-": {"destination": "/x", "type": "bogus", "source": "x"}}, "/mounts/6"),
]  # fmt: skip


@pytest.mark.pyrunc_only("runc and crun accept a third of them; crun leaves 8 cgroups behind")
@pytest.mark.parametrize(("name", "change", "words"), RAW, ids=[name for name, _, _ in RAW])
def test_documents(container: Make, refused: Refused, name: str, change: Any, words: str) -> None:
    one = container("exit", "0")
    one.bundle.save(change(json.dumps(one.bundle.config)))
    refused(one.create(check=False, save=False), words)
    assert one.call("state", one.id, check=False).rc == 1, "there is no such container"


@pytest.mark.pyrunc_only("runc and crun accept a third of them; crun leaves 8 cgroups behind")
@pytest.mark.parametrize(("name", "edits", "pointer"), FIELDS, ids=[name for name, _, _ in FIELDS])
def test_fields(container: Make, refused: Refused, name: str, edits: dict[str, Any], pointer: str) -> None:
    one = container("exit", "0", edits=edits)
    refused(one.create(check=False), pointer)


def test_there_are_as_many_as_were_measured() -> None:
    assert len(RAW) + len(FIELDS) >= 61


def test_a_container_without_a_process_fails_only_at_start(container: Make) -> None:
    """runtime.md: `process` is required at start; crun starts such a container with status 0."""
    one = container("exit", "0", edits={"/process": DELETE})
    one.create()
    result = one.start(check=False)
    assert result.rc != 0 and "process" in result.err


PROCESS: list[tuple[str, dict[str, Any], str]] = [
    ("NUL in args", {"args": ["/probe", "x\0"]}, "/args/1"),
    ("args is a string", {"args": "sh"}, "/args"),
    ("args is empty", {"args": []}, "/args"),
    ("args is missing", {"args": DELETE}, "/args"),
    ("env without =", {"env": ["A"]}, "/env/0"),
    ("uid 2^32", {"user": {"uid": 2**32, "gid": 0}}, "/user/uid"),
    ("uid is a string", {"user": {"uid": "0", "gid": 0}}, "/user/uid"),
    ("cwd is relative", {"cwd": "tmp"}, "/cwd"),
    ("1 MiB in one variable", {"env": ["A=" + "x" * (1 << 20)]}, "/env/0"),
    ("a bogus limit", {"rlimits": [{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}]}, "/rlimits/0/type"),
    ("terminal is a string", {"terminal": "yes"}, "/terminal"),
    ("score beyond its range", {"oomScoreAdj": 1001}, "/oomScoreAdj"),
]


@pytest.mark.pyrunc_only("about pyrunc's own messages")
def test_process_files(container: Make) -> None:
    """One container serves all cases, and none of them may change it."""
    one = started(container)
    before = one.state()
    for name, changes, pointer in PROCESS:
        path = process_file(one, **changes)
        result = run(one, flags=("--process", path), check=False)
        assert result.rc == 255 and not result.out, (name, result)
        assert pointer in result.err and len(result.err.splitlines()) == 1, (name, result)
    path = process_file(one)
    text = open(path).read()  # noqa: SIM115
    for name, change, _ in RAW:
        if '"box"' in text or name in (
            "empty",
            "null",
            "array",
            "truncated",
            "trailing garbage",
            "1M nested arrays",
            "UTF-16",
        ):
            content = change(text)
            with open(path, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
            result = run(one, flags=("--process", path), check=False)
            assert result.rc == 255 and not result.out and len(result.err.splitlines()) == 1, (name, result)
    assert one.state() == before
