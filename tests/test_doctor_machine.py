"""pyrunc.doctor.machine: reading files, programs, fields of the caller, and probes."""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import doctor_support
import spies
from doctor_support import EINVAL, EPERM, made
from pyrunc import interpreter
from pyrunc.doctor import cgroups, kernel, leftovers
from pyrunc.doctor.machine import Machine, own_program
from pyrunc.native import mounts
from pyrunc.spec.names import CLONE_FLAGS


def test_reading(tmp_path: Path) -> None:
    machine = Machine(str(tmp_path), {}, doctor_support.works)
    (tmp_path / "f").write_bytes(b"a" * 100000 + b"\xff")
    assert machine.text("/f", 7) == "a" * 7 and machine.text("/f", 100000) == "a" * 100000
    assert machine.text("/f") == "a" * 100000 + "\udcff" and machine.text("/none") == machine.text("/a\0") == ""
    assert machine.text("/") == "" and machine.text("/f", 0) == ""
    for text, number in (("12 x", 12), ("", None), ("x", None), ("-3\n", -3), ("0\n", 0), (" " * 70 + "1", None)):
        (tmp_path / "n").write_text(text)
        assert machine.number("/n") == number
    assert machine.names("/") == ["f", "n"] and machine.names("/", 1) in (["f"], ["n"]) and machine.names("/f") == []
    assert machine.names("/a\0") == [] and machine.stat("/a\0") is None and not machine.access("/a\0", os.R_OK)
    assert machine.exists("/f") and machine.access("/f", os.R_OK) and not machine.access("/none", os.R_OK)
    os.mkfifo(tmp_path / "fifo")
    assert machine.text("/fifo") == ""  # does not wait


@pytest.mark.parametrize("mode", [0o100, 0o010, 0o001, 0o600])
def test_programs(mode: int, tmp_path: Path) -> None:
    machine = Machine(str(tmp_path), {}, doctor_support.works)
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt/x").touch()
    (tmp_path / "opt/x").chmod(mode)
    assert machine.is_program("/opt/x") is (mode != 0o600) and not machine.is_program("/opt")
    assert machine.find("x") == "" and machine.find("x", "/none", "/opt") == ("/opt/x" if mode != 0o600 else "")


def test_fields_of_the_caller(tmp_path: Path) -> None:
    machine = made(tmp_path, {"/proc/self/status": "A: 1\nCapEff:\tff\nCapBnd:\tx\n"})
    assert (machine.status("A"), machine.status("B")) == ("1", "")
    assert (machine.capabilities(), machine.capabilities("CapBnd"), machine.capabilities("CapPrm")) == (255, 0, 0)
    assert Machine.rlimit(machine, resource.RLIMIT_NOFILE) == resource.getrlimit(resource.RLIMIT_NOFILE)
    text = "1 2 0:1 / /a rw - x\nshort - x\n1 2 0:1 / /b rw shared:1 x y\n1 2 0:1 / /c rw - ext4 y rw\n"
    assert [line[4] for line in made(tmp_path, {"/proc/self/mountinfo": text}).mounts()] == ["/a", "/c"]
    assert Machine().manager == "cgroupfs" and Machine().root_option == "" and own_program() == "/usr/local/bin/pyrunc"


def test_probes_in_a_user_namespace() -> None:
    user_flag, both = CLONE_FLAGS["user"], CLONE_FLAGS["user"] | CLONE_FLAGS["mount"]
    for results, flags, wanted, asked in (
        ({0: 3}, 0, (3, False), [0]), ({0: 0}, 0, (0, False), [0]), ({0: -EINVAL}, 0, (-EINVAL, False), [0]),
        ({0: -EPERM, both: 5}, 0, (5, True), [0, both]), ({0: -EPERM, both: 0}, 0, (0, True), [0, both]),
        ({0: -EPERM, both: -EINVAL}, 0, (-EPERM, False), [0, both]),
        ({user_flag: -EPERM, both: 1}, user_flag, (-EPERM, False), [user_flag]),
    ):  # fmt: skip
        calls: list[int] = []

        def probe(what: str, now: int, results: dict[int, int] = results, calls: list[int] = calls) -> int:
            calls.append(now)
            return results[now]

        assert Machine("", {}, probe).works("X", flags) == wanted and calls == asked


def test_securebits(monkeypatch: pytest.MonkeyPatch) -> None:
    """python-prctl is optional."""
    monkeypatch.setattr(interpreter, "look_beside", lambda: None)
    one = Machine(probe=doctor_support.works)
    for module, bits in ((SimpleNamespace(get_securebits=lambda: 47), 47), (None, None)):
        monkeypatch.setitem(sys.modules, "prctl", module)
        assert one.securebits() == bits


class Client:
    """A socket that cannot be connected."""

    def __init__(self, error: OSError | None) -> None:
        self.error, self.notes = error, list[object]()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *what: object) -> None:
        self.notes.append("closed")

    def settimeout(self, seconds: float) -> None:
        self.notes.append(seconds)

    def connect(self, path: bytes) -> None:
        self.notes.append(path)
        if self.error:
            raise self.error


@pytest.mark.parametrize(
    ("error", "words"),
    [(None, ""), (TimeoutError(), "no answer"), (OSError(13, "denied"), "denied"), (OSError("a word"), "a word")],
)
def test_connections_are_bounded_in_time(error: OSError | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(error)
    monkeypatch.setattr(socket, "socket", lambda *kind: client)
    assert cgroups.connect("/s") == words
    assert client.notes == [0.1, b"/s", "closed"]


def test_cgroups_are_found_breadth_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("a/c", "b/d/e", "x", "y/z"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("b")
    scandir = os.scandir

    def denied(path: str) -> Iterator[os.DirEntry[str]]:
        if path.endswith("/a"):
            raise PermissionError(13, "denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", denied)
    for most, found in ((5000, "a b x y b/d y/z b/d/e"), (3, "a b x y b/d y/z"), (1, "a b x y"), (0, "a b x y")):
        monkeypatch.setattr(leftovers, "CGROUPS_MOST", most)
        assert list(leftovers.walk(str(tmp_path))) == [f"{tmp_path}/{name}" for name in found.split()]


@pytest.mark.parametrize("failing", [None, "open_tree", "user_namespace", "map_ids"])
def test_mapping_ids_of_a_clone(failing: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was opened is closed."""
    notes: list[str] = []
    answers: dict[str, Any] = {"open_tree": 50, "user_namespace": 60, "map_ids": 0, "close": None}
    if failing:
        answers[failing] = OSError(EINVAL, "no")
    for module, name in ((mounts, "open_tree"), (mounts, "map_ids"), (kernel, "user_namespace"), (os, "close")):
        monkeypatch.setattr(module, name, spies.noting(name, notes, answers))
    assert kernel.map_ids("/a\udcff") == (-EINVAL if failing else 0)
    opened = {"open_tree": [], "user_namespace": [50]}.get(failing or "", [50, 60])
    calls = [
        r"open_tree(b'/a\xff', False)",
        r"user_namespace(b'0 1 1\n', b'0 1 1\n')",
        "map_ids(50, False, 60)",
    ]
    assert notes == [*calls[: len(opened) + 1], *(f"close({fd})" for fd in opened)]
