"""Broken bundles: each is refused quickly, with a one-line error that has its JSON pointer, and
nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from integration.config import DELETE, PATH_ENV
from integration.harness import SLOW, Box, Container

Make = Callable[..., Container]
Refused = Callable[..., None]

# (the fault, edits, pointer, accepted by runc 1.1.5)
TABLE: list[tuple[str, dict[str, Any], str, bool]] = [
    ("no version", {"/ociVersion": DELETE}, "/ociVersion", True),
    ("future version", {"/ociVersion": "9.9.9"}, "/ociVersion", True),
    ("no semantic version", {"/ociVersion": "one"}, "/ociVersion", True),
    ("number as version", {"/ociVersion": 1}, "/ociVersion", False),
    ("no root", {"/root": DELETE}, "/root", False),
    ("empty root path", {"/root/path": ""}, "/root/path", True),
    ("root path is a number", {"/root/path": 5}, "/root/path", False),
    ("root path with NUL", {"/root/path": "rootfs\0x"}, "/root/path", False),
    ("root is a list", {"/root": []}, "/root", False),
    ("readonly is text", {"/root/readonly": "yes"}, "/root/readonly", False),
    ("process is text", {"/process": "sh"}, "/process", False),
    ("args is text", {"/process/args": "sh"}, "/process/args", False),
    ("no args", {"/process/args": []}, "/process/args", False),
    ("empty program", {"/process/args": [""]}, "/process/args/0", False),
    ("NUL in args", {"/process/args": ["/probe", "a\0b"]}, "/process/args/1", True),
    ("NUL in env", {"/process/env": [PATH_ENV, "A=\0"]}, "/process/env/1", False),
    ("env without =", {"/process/env": [PATH_ENV, "NOEQUALS"]}, "/process/env/1", False),
    ("env without name", {"/process/env": [PATH_ENV, "=x"]}, "/process/env/1", False),
    ("no cwd", {"/process/cwd": DELETE}, "/process/cwd", False),
    ("relative cwd", {"/process/cwd": "tmp"}, "/process/cwd", False),
    ("negative uid", {"/process/user/uid": -1}, "/process/user/uid", False),
    ("uid that means `keep`", {"/process/user/uid": 2**32 - 1}, "/process/user/uid", False),
    ("uid beyond 32 bits", {"/process/user/uid": 2**32}, "/process/user/uid", False),
    ("fractional uid", {"/process/user/uid": 0.5}, "/process/user/uid", False),
    ("uid as text", {"/process/user/uid": "0"}, "/process/user/uid", False),
    ("uid is true", {"/process/user/uid": True}, "/process/user/uid", False),
    ("gid beyond 32 bits", {"/process/user/gid": 2**32}, "/process/user/gid", False),
    ("bad additional gid", {"/process/user/additionalGids": [1, -5]}, "/process/user/additionalGids/1", False),
    ("umask beyond 0777", {"/process/user/umask": 0o10000}, "/process/user/umask", True),
    (
        "rlimit not a number",
        {"/process/rlimits": [{"type": "RLIMIT_CORE", "soft": "x", "hard": 1}]},
        "/process/rlimits/0/soft",
        False,
    ),
    ("oom score out of range", {"/process/oomScoreAdj": 1001}, "/process/oomScoreAdj", False),
    ("capabilities is a list", {"/process/capabilities": []}, "/process/capabilities", False),
    ("mount without destination", {"/mounts/0/destination": DELETE}, "/mounts/0/destination", True),
    ("mount destination is NUL", {"/mounts/0/destination": "/a\0b"}, "/mounts/0/destination", False),
    ("mount options is text", {"/mounts/0/options": "ro"}, "/mounts/0/options", False),
    ("mounts is an object", {"/mounts": {}}, "/mounts", False),
    ("hostname is a number", {"/hostname": 1}, "/hostname", False),
    ("hostname too long", {"/hostname": "x" * 65}, "/hostname", False),
    ("linux is text", {"/linux": "yes"}, "/linux", False),
    ("namespaces is an object", {"/linux/namespaces": {}}, "/linux/namespaces", False),
    ("annotation is a number", {"/annotations": {"a": 1}}, "/annotations/a", False),
    ("hooks is a list", {"/hooks": []}, "/hooks", False),
    ("hook list is an object", {"/hooks": {"prestart": {}}}, "/hooks/prestart", False),
    (
        "sysctl value is a number",
        {"/linux/sysctl": {"net.ipv4.ip_forward": 1}},
        "/linux/sysctl/net.ipv4.ip_forward",
        False,
    ),
    ("masked paths is text", {"/linux/maskedPaths": "/x"}, "/linux/maskedPaths", False),
    ("memory limit is a fraction", {"/linux/resources/memory": {"limit": 1.5}}, "/linux/resources/memory/limit", False),
    ("seccomp without default", {"/linux/seccomp": {"syscalls": []}}, "/linux/seccomp/defaultAction", True),
    ("idmap mount", {"/mounts/0/options/-": "idmap"}, "/mounts/0/options", True),
]


@pytest.mark.parametrize(
    ("edits", "pointer", "runc_accepts"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_refused(
    container: Make, box: Box, refused: Refused, edits: dict[str, Any], pointer: str, runc_accepts: bool
) -> None:
    one = container("exit", "0", edits=edits)
    if runc_accepts and not box.runtime.is_pyrunc:
        pytest.skip("runc 1.1.5 accepts this")
    result = one.create(check=False)
    refused(result, pointer)
    if box.runtime.is_pyrunc:
        assert result.seconds < 1 * SLOW
        assert "no such file" not in result.err, "podman would take it for a missing command"


NESTED = '{"a":' * 100_000 + "1" + "}" * 100_000
RAW: list[tuple[str, bytes, bool]] = [
    ("empty", b"", False),
    ("blank", b"  \n", False),
    ("null", b"null", True),
    ("a list", b"[]", False),
    ("a number", b"12", False),
    ("text", b'"x"', False),
    ("cut off", b'{"ociVersion": "1.0.2", "proc', False),
    ("trailing data", b"CONFIG{}", True),
    ("trailing garbage", b"CONFIG x", True),
    ("byte order mark", b"\xef\xbb\xbfCONFIG", False),
    ("not UTF-8", b'{"ociVersion": "1.0.2", "hostname": "\xff\xfe"}', False),
    ("UTF-16", '{"ociVersion": "1.0.2"}'.encode("utf-16"), False),
    ("lone surrogate", b'{"ociVersion": "1.0.2", "hostname": "\\ud800"}', False),
    ("duplicate key", b'{"ociVersion": "1.0.2", "ociVersion": "1.0.2"}', False),
    ("nesting", NESTED.encode(), False),
    ("list nesting", b"[" * 1_000_000, False),
    ("NaN", b'{"ociVersion": "1.0.2", "x": NaN}', False),
    ("comment", b'{"ociVersion": "1.0.2" /* x */}', False),
    ("single quotes", b"{'ociVersion': '1.0.2'}", False),
    ("control character", b'{"ociVersion": "1.0\n.2"}', False),
    ("huge number", b'{"ociVersion": "1.0.2", "process": {"user": {"uid": 1' + b"0" * 10000 + b"}}}", False),
    ("only NUL", b"\0" * 100, False),
]


@pytest.mark.parametrize(("raw", "skip"), [row[1:] for row in RAW], ids=[row[0] for row in RAW])
def test_not_even_json(container: Make, box: Box, refused: Refused, raw: bytes, skip: bool) -> None:
    if skip and not box.runtime.is_pyrunc:
        pytest.skip("runc 1.1.5 accepts it or panics")
    one = container("exit", "0")
    one.bundle.save(raw.replace(b"CONFIG", json.dumps(one.bundle.config).encode()))
    refused(one.create(save=False, check=False), "config.json")


def test_config_that_is_missing(container: Make, refused: Refused) -> None:
    one = container("exit", "0")
    refused(one.create(save=False, check=False), "config.json")


def test_config_that_is_a_directory(container: Make, refused: Refused) -> None:
    one = container("exit", "0")
    (one.bundle.path / "config.json").mkdir()
    refused(one.create(save=False, check=False), "config.json")


@pytest.mark.pyrunc_only("peers tell the first mistake only")
def test_all_mistakes_at_once(container: Make, refused: Refused) -> None:
    edits = {
        "/process/cwd": "x",
        "/process/user/uid": -1,
        "/mounts/0/destination": 5,
        "/linux/maskedPaths": ["rel"],
        "/hostname": [],
    }
    result = container(edits=edits).create(check=False)
    for pointer in ("/process/cwd", "/process/user/uid", "/mounts/0/destination", "/linux/maskedPaths/0", "/hostname"):
        refused(result, pointer)


def test_unknown_members_are_ignored(container: Make) -> None:
    edits = {
        "/zzz": 1,
        "/process/new": {"x": []},
        "/linux/later": "y",
        "/linux/resources/other": 1,
        "/mounts/0/extra": True,
    }
    assert container("say", "fine", edits=edits).run().out == "fine\n"


def test_other_platforms_members_are_ignored(container: Make) -> None:
    edits = {
        "/windows": {"layerFolders": ["C:"]},
        "/solaris": {"milestone": "x"},
        "/vm": {"kernel": {"path": "/k"}},
        "/zos": {},
    }
    assert container("say", "fine", edits=edits).run().out == "fine\n"


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.1.0+dev", "1.2.1", "1.3.0", "1.9.0", "1.0.0-rc5"])
def test_versions(container: Make, version: str) -> None:
    assert container("say", "fine", edits={"/ociVersion": version}).run().out == "fine\n"


@pytest.mark.pyrunc_only("the figure is pyrunc's")
def test_ten_megabytes_of_config(container: Make) -> None:
    """The bound is generous; bench/compare.py checks the real limit (< 1 s) on an idle machine."""
    annotations = {f"org.example.key{number:06}": "v" * 75 for number in range(100_000)}
    one = container("exit", "0", edits={"/annotations": annotations})
    one.bundle.save()
    assert (one.bundle.path / "config.json").stat().st_size > 10_000_000
    created = one.create(timeout=30)
    assert created.seconds < 5 * SLOW
    one.start()


def test_error_of_a_late_step_names_its_field(container: Make, refused: Refused) -> None:
    """A failure inside the container's namespaces is reported by the parent as one line."""
    edits = {"/mounts/-": {"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["mode=nonsense"]}}
    refused(container(edits=edits).create(check=False), "/mounts/6/options", "/mnt", "nonsense")


@pytest.mark.parametrize("verb", ["create", "run"])
def test_refusal_leaves_the_id_free(container: Make, verb: str) -> None:
    one = container("say", "second try", edits={"/mounts/-": {"destination": "/mnt", "type": "bogus", "source": "x"}})
    one.bundle.save()
    assert one.call(verb, "-b", str(one.bundle.path), one.id, check=False).rc == 1
    one.bundle.config["mounts"].pop()
    assert one.run().out == "second try\n"


def test_failed_run_gives_one_error_line(container: Make, refused: Refused) -> None:
    refused(
        container(edits={"/process/args": ["nonesuch"]}).run(check=False),
        "/process/args/0",
        "executable file not found in $PATH",
    )
