"""pyrunc.doctor: the output and the bounds of findings, and the `doctor` verb."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path

import pytest

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from doctor_support import made
from pyrunc import cli
from pyrunc.doctor import findings, machine, run
from pyrunc.doctor.findings import Area, Finding
from pyrunc.errors import PyruncError
from pyrunc.native import probe


def test_the_numbers_of_probes() -> None:
    """The launcher has the functions of the header without its constants."""
    from pyrunc._shim import lib

    assert {name: getattr(lib, f"PR_PROBE_{name}") for name in probe.PROBES} == probe.PROBES
    header = (Path(__file__).resolve().parent.parent / "native/shim/shim.h").read_text()
    assert header.count("#define PR_PROBE_") == len(probe.PROBES)


def some() -> list[Finding]:
    area = Area("kernel")
    area.ok("version", "Linux 6.12 on x86_64")
    area.note("landlock", "ENOSYS", "programs in containers cannot restrict themselves with it", "boot it")
    area.problem("mount-api", "EPERM " * 30, "no container starts", "run it as root; " * 9)
    area.problem("mount-api", "twice", "no container starts")
    return area.done()


def test_text() -> None:
    lines = findings.as_text(some(), 60, False).splitlines()
    assert lines[0] == "kernel" and lines[1] == "  ok       version    Linux 6.12 on x86_64"
    assert lines[-1] == "1 ok, 1 note, 2 problems"
    assert max(len(line) for line in lines if "->" not in line) <= 60
    assert sum("-> run it as root; run it" in line for line in lines) == 1  # in one piece
    assert sum("no container starts" in line for line in lines) == 1


@pytest.mark.parametrize("width", [1, 20, 40, 79, 500])
def test_any_width(width: int) -> None:
    text = findings.as_text(some(), width, False)
    assert "EPERM" in text
    assert max(len(line) for line in text.splitlines() if "->" not in line) <= max(width, 40)


def test_colour() -> None:
    text = findings.as_text(some(), 80, True)
    assert "\33[31mproblem\33[m" in text and "\33[33mnote\33[m" in text
    assert re.sub("\33\\[\\d*m", "", text) == findings.as_text(some(), 80, False)


def test_json() -> None:
    document: Json = findings.as_json(some())
    assert document["status"] == "problem" and document["counts"] == {"ok": 1, "note": 1, "problem": 2}
    assert list(document["findings"][0]) == ["area", "check", "status", "seen", "means", "mend"]
    assert json.loads(json.dumps(document)) == document


def test_at_most_so_many_of_a_kind() -> None:
    area = Area("a")
    for number in range(1000):
        area.note("many", f"\33[0m{'x' * 5000}{number}\n", "y" * 5000)
    area.problem("few", "one", "")
    found = area.done()
    assert len(found) == findings.MOST + 2
    assert found[-1].seen == f"and {1000 - findings.MOST} more of this kind" and found[-1].status == "note"
    assert "".join(one.seen + one.means for one in found).isprintable()
    assert max(len(one.seen) for one in found) == findings.TEXT_MOST


def test_a_check_that_cannot_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checks still run."""

    def broken(_: machine.Machine) -> list[Area]:
        raise OSError(errno.EMFILE, "x")

    def refused(_: machine.Machine) -> list[Area]:
        raise PyruncError("no")

    def fine(_: machine.Machine) -> list[Area]:
        area = Area("fine")
        area.ok("x", "y")
        return [area]

    monkeypatch.setattr(run, "CHECKS", (("one", broken), ("two", refused), ("three", fine)))
    found = run.examine(made(tmp_path))
    assert [(one.area, one.status) for one in found] == [("one", "note"), ("two", "note"), ("fine", "ok")]
    assert found[0].seen.startswith("EMFILE")


def test_the_machine_reads_what_it_is_given(tmp_path: Path) -> None:
    host = made(tmp_path, {"/a": "x" * 100, "/n": "12 x\n", "/w": "twelve\n"})
    os.mkfifo(tmp_path / "fifo")
    assert host.text("/a", 10) == "x" * 10 and host.text("/fifo") == host.text("/a\0") == host.text("/none") == ""
    assert (host.number("/n"), host.number("/w"), host.number("/none")) == (12, None, None)
    assert host.names("/none") == [] and len(host.names("/", 2)) == 2
    assert not host.is_program("/a") and not host.exists("/\0")


@pytest.mark.parametrize("argv", [["doctor", "--json"], ["doctor"]])
def test_the_verb(
    argv: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome(*statuses: str) -> None:
        found = [Finding("a", "b", status, "c") for status in statuses]
        monkeypatch.setattr(run, "examine", lambda *_: found)

    for statuses, code in ((("ok", "note"), 0), (("ok", "problem"), 1)):
        outcome(*statuses)
        assert cli.main(["--root", str(tmp_path), *argv]) == code
        out, err = capfd.readouterr()
        assert err == "" and "\33" not in out
        if "--json" in argv:
            assert json.loads(out)["counts"] == {"ok": 1, "note": 1 - code, "problem": code}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--bundle", "/nowhere"], "config.json: cannot be read"),
        (["--bundle", "/dev/null"], "config.json: cannot be read"),
        (["--bundle", "a\0b"], "not a path"),
        (["extra"], "expected 0 arguments"),
        (["--jsno"], "did you mean --json"),
    ],
)
def test_bad_input_is_one_line(argv: list[str], words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", *argv]) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.count("\n") == 1 and words in err
