"""Tables of numbers and names agree with the kernel's headers and with their purpose."""

from __future__ import annotations

import errno
import os
import re
import stat
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import errors, explain, fs, hints, log, trace
from pyrunc.cgroup import systemd
from pyrunc.errors import ConfigError, PyruncError, SysError
from pyrunc.image import registry, sources
from pyrunc.image.errors import ImageError
from pyrunc.plan import faults
from pyrunc.plan.environment import DEFAULT_PATH
from pyrunc.seccomp_tools import calls, outcomes, record
from pyrunc.spec import structure
from pyrunc.spec.report import Report
from pyrunc.spec.rules_netdev import check as check_devices
from pyrunc.spec.rules_netdev import valid_name

HEADERS = Path("/usr/include/linux")


def defined(header: str, pattern: str) -> dict[int, str]:
    """The numbers of a header's macros whose names match a pattern."""
    path = HEADERS / header
    if not path.exists():
        pytest.skip("the kernel's headers are not installed")
    found = re.findall(rf"#define\s+{pattern}\s+(\d+)", path.read_text())
    return {int(number): name.lower() for name, number in found}


def test_parts_of_socketcall() -> None:
    known = defined("net.h", r"SYS_(\w+)")
    assert dict(enumerate(calls._SOCKETCALL)) == {0: "", **known}


def test_parts_of_ipc() -> None:
    assert defined("ipc.h", r"((?:SEM|MSG|SHM)\w+)") == calls._IPC


@pytest.mark.parametrize("name", ["create", "delete", "exec", "kill", "pause", "resume", "run", "start", "update"])
def test_the_variable_traces_what_changes_a_container(name: str) -> None:
    assert name in trace.CHANGING


def test_the_variable_traces_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(trace.CHANGING) == 9
    module: Any = type("verb", (), {"__name__": "pyrunc.verbs.list"})
    monkeypatch.setenv("PYRUNC_TRACE", "/no/such/directory/trace")
    context: Any = object()
    assert trace.traced(module, context, ["a"], "", lambda *args: len(args[2])) == 1


# -- devices of the network ------------------------------------------------------------------------


def problems(devices: Any, *, namespace: bool = True) -> list[str]:
    report = Report()
    if namespace:
        report.namespaces["network"] = ""
    check_devices(devices, report)
    return [str(problem) for problem in report.problems]


def test_every_device_is_checked() -> None:
    found = problems(
        {"a b": {}, "": {}, "eth0": {"name": "x/y"}, "eth1": {"name": "n"}, "eth2": {"name": "n"}, "c:d": {}}
    )
    assert [line.split(": ")[0] for line in found] == [
        "/linux/netDevices/a b", "/linux/netDevices/", "/linux/netDevices/eth0/name", "/linux/netDevices/eth2/name",
        "/linux/netDevices/c:d",
    ]  # fmt: skip
    assert "a name that no other device has" in found[3] and "without blanks, / and :, or a template" in found[2]


@pytest.mark.parametrize(
    ("name", "target", "good"),
    [
        ("eth0", "", True), ("eth0", "e%d", True), ("eth0", "e%d0", False), ("eth0", "%d%d", False),
        ("eth0", "e%s", False), ("e%d", "x", False), ("n" * 15, "", True), ("n" * 16, "", False),
        ("eth0", "n" * 16, False), (".", "x", False),
        ("..", "x", False), ("eth0", ".", False), ("\u00e4" * 7, "", True), ("\u00e4" * 8, "", False),
        ("a\0", "x", False),
    ],
)  # fmt: skip
def test_names_of_devices(name: str, target: str, good: bool) -> None:
    assert (problems({name: {"name": target} if target else {}}) == []) is good


def test_templates_do_not_collide_and_devices_need_a_namespace() -> None:
    assert problems({"a": {"name": "e%d"}, "b": {"name": "e%d"}}) == [] and problems({}, namespace=False) == []
    assert problems({"a": {"name": "b"}, "b": {}})[0].startswith("/linux/netDevices/b/name: ")
    assert "no devices without a network namespace" in problems({"a": {}}, namespace=False)[0]
    assert valid_name("a") and not valid_name("")


# -- documents -------------------------------------------------------------------------------------


def test_members_that_the_specification_does_not_define() -> None:
    text, number = ("string", None), ("integer", 0, 9)
    inner = ("object", {"a": text, "n": number})
    node: Any = (
        "object",
        {"list": ("array", inner), "map": ("map", inner), "text": text, "deep": ("array", ("array", inner))},
    )
    given: Any = {
        "list": [{"a": "x", "b": 1}, {"c": 2}], "map": {"k": {"n": 1, "m": 2}}, "text": "t", "more": {},
        "deep": [[{"z": 1, "a": "y"}]],
    }  # fmt: skip
    assert structure.without_unknown(node, given) == {
        "list": [{"a": "x"}, {}], "map": {"k": {"n": 1}}, "text": "t", "deep": [[{"a": "y"}]],
    }  # fmt: skip
    assert "more" in given, "the document itself is left alone"


def test_where_programs_are_looked_for() -> None:
    path = ":".join(f"/p{n}" for n in range(70))
    process: Any = {"cwd": "/w", "env": ["PATH=/x", f"PATH={path}", "A=b"], "args": ["sh"]}
    found = explain.candidates(process, "sh")
    assert found == [f"/p{n}/sh" for n in range(64)], "a list has its end"
    assert explain.candidates(process, "./sh") == ["/w/./sh"] and explain.candidates(process, "/sh") == ["/sh"]
    process["env"] = ["PATH=a::/b"]
    assert explain.candidates(process, "sh") == ["/w/a/sh", fs.join(fs.join("/w", ""), "sh"), "/b/sh"]
    process = {"args": []}
    assert explain.candidates(process, "sh") == [f"{one}/sh" for one in DEFAULT_PATH.split(":")]


def test_a_profile_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(SysError) as caught:
        record.save(str(tmp_path / "no/profile"), "x")
    assert str(caught.value).startswith("--output ") and "/no/profile" in str(caught.value)
    record.save(str(tmp_path / "profile"), "\u00e4")
    assert (tmp_path / "profile").read_bytes() == b"\xc3\xa4"
    assert stat.S_IMODE((tmp_path / "profile").stat().st_mode) & 0o600 == 0o600


@pytest.mark.parametrize(
    ("condition", "values"),
    [
        ({"op": "SCMP_CMP_EQ", "value": 5}, {4, 5, 6, 0}),
        ({"op": "SCMP_CMP_MASKED_EQ", "value": 6, "valueTwo": 4}, {4, 4 ^ 2, 4 ^ 6, 0, (4 | ~6) & 0xFF}),
        ({"op": "SCMP_CMP_MASKED_EQ", "value": 12}, {0, 4, 12, ~12 & 0xFF}),
        ({"op": "SCMP_CMP_NE", "value": 0}, {0, 1, 0xFF}),
    ],
)
def test_values_at_which_a_condition_changes(condition: Any, values: set[int]) -> None:
    found = outcomes.interesting([condition], 0xFF)
    assert set(found) == values | {0, 0xFF, outcomes._UNLIKELY & 0xFF} and len(found) == len(set(found))
    assert outcomes.interesting([], 0xFF) == [0]


# -- files -----------------------------------------------------------------------------------------


def test_files_are_read_to_their_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    for size in (0, 1, 65535, 65536, 65537, 200000):
        path.write_bytes(b"x" * size)
        assert len(fs.read_file(str(path), size)) == size
        if size:
            with pytest.raises(OSError) as caught:
                fs.read_file(str(path), size - 1)
            assert caught.value.errno == errno.EFBIG and str(size - 1) in str(caught.value)
    # An empty regular file has no writer to wait for.
    monkeypatch.setattr(fs, "_await_writer", lambda fd: pytest.fail("waited"))
    path.write_bytes(b"")
    assert fs.read_file(str(path)) == b""


def test_a_fifo_without_a_writer_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fs, "WRITER_MS", 10)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError) as caught:
        fs.read_file(str(tmp_path / "fifo"))
    assert caught.value.errno == errno.ETIMEDOUT


@pytest.mark.parametrize("name", ["plain", "a/b"])
def test_a_file_is_replaced_through_one_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []
    write = fs.write_all

    def looking(fd: int, data: bytes) -> None:
        seen.append(os.readlink(f"/proc/self/fd/{fd}"))
        write(fd, data)

    monkeypatch.setattr(fs, "write_all", looking)
    head, _, tail = name.rpartition("/")
    beside = tmp_path / head / f".{tail}.tmp"
    beside.write_text("left by a killed process")
    fs.replace_file(name, b"1")
    fs.replace_file(str(tmp_path / name), b"2", 0o640)
    directory = os.open(tmp_path, os.O_RDONLY)
    fs.replace_file(name, b"3", dir_fd=directory)
    os.close(directory)
    assert seen == [str(beside)] * 3 and (tmp_path / name).read_bytes() == b"3" and not beside.exists()


# -- messages --------------------------------------------------------------------------------------


def test_lines_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    log.say("error", "a\udcff\u20ac")
    log.say("warning", "x" * 20000)
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("pyrunc: error: a") and "\u20ac" in first
    assert second.startswith("pyrunc: warning: xxx") and 15000 <= len(second) < 15100


def test_warnings_have_an_end(capfd: pytest.CaptureFixture[str]) -> None:
    one = log.Log()
    for number in range(10):
        one.warning(f"{number}" + "w" * 5000, aloud=True)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 7 and lines[-1] == "pyrunc: warning: further warnings are omitted"
    assert max(map(len, lines)) < 4200


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/7", 7), ("/proc/self/fd/12", 12), ("/dev/fd/", -1),
        ("/dev/fd/x", -1),
        ("/dev/fd/-1", -1), ("/dev/null", -1), ("", -1), ("/dev/fd/" + "9" * 30, int("9" * 20)), ("/dev/fd/0", 0),
    ],
)  # fmt: skip
def test_descriptors_by_path(path: str, number: int) -> None:
    assert log.own_number(path) == number


# -- names of images -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name", "found"),
    [
        ("docker.io", "busybox", "library/busybox"), ("docker.io", "a/b", "a/b"),
        ("registry-1.docker.io", "busybox", "library/busybox"), ("registry-1.docker.io", "a/b", "a/b"),
        ("example.org", "busybox", "busybox"),
    ],
)  # fmt: skip
def test_official_images(host: str, name: str, found: str) -> None:
    assert registry._repository(host, name) == found


def test_an_archive_of_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import io
    import tarfile

    entry = tarfile.TarInfo("a")

    class Endless:
        members: list[object]

        def __iter__(self) -> Any:
            return iter([entry] * self.count)

        def __init__(self, count: int) -> None:
            self.count = count

    monkeypatch.setattr(tarfile, "open", lambda *args, **more: Endless(100_001))
    assert sources.LayoutArchive("x", "").name == "x"
    monkeypatch.setattr(tarfile, "open", lambda *args, **more: Endless(100_002))
    with pytest.raises(ImageError, match=r"more than 100,000 entries"):
        sources.LayoutArchive("x", "v1")
    monkeypatch.undo()
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        for name, target, kind in (
            ("./f", "", tarfile.REGTYPE), ("d/link", "../f", tarfile.SYMTYPE), ("hard", "./f", tarfile.LNKTYPE),
            ("loop", "loop", tarfile.SYMTYPE), ("d", "", tarfile.DIRTYPE),
        ):  # fmt: skip
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = 3 if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(b"abc"))
    one = sources.LayoutArchive(str(tmp_path / "t.tar"), "v1")
    assert one.name == f"{tmp_path}/t.tar:v1" and one.tar.members == []  # type: ignore[attr-defined]
    for name in ("f", "./f", "d/link", "hard", "d/../f"):
        assert one.stream(name).read() == b"abc"
    with pytest.raises(ImageError, match=r"too many links in the archive"):
        one.stream("loop")
    for number in range(8):
        info = tarfile.TarInfo(f"l{number}")
        info.type, info.linkname = tarfile.SYMTYPE, f"l{number - 1}" if number else "f"
        one.members[fs.salted(info.name)] = info
    assert one.stream("l6").read() == b"abc"
    with pytest.raises(ImageError, match=r"too many links in the archive"):
        one.stream("l7")
    for name in ("d", "none"):
        with pytest.raises(ImageError, match=rf'no "{name}" in the archive'):
            one.stream(name)
    one.close()


# -- annotations and the kernel's words ------------------------------------------------------------


def letters(number: int) -> str:
    return "".join(chr(ord("A") + int(digit)) for digit in f"{number:03}")


def test_the_number_of_properties() -> None:
    most = systemd.PROPERTIES_MAX
    given = {f"{systemd.PROPERTY}{letters(number)}": "true" for number in range(most)}
    assert len(systemd.annotated({**given, "a": "b"})) == most
    with pytest.raises(ConfigError, match=rf"at most {most} properties of systemd, found {most + 1}"):
        systemd.annotated({**given, f"{systemd.PROPERTY}Zzz": "true"})


@pytest.mark.parametrize(
    ("op", "detail", "found"),
    [
        ("MOUNT", "tmpfs: Unknown parameter 'nosiud'", "did you mean nosuid?"), ("MOUNT", "nosiud", ""),
        ("MOUNT", "tmpfs: Unknown parameter 'qqqqqq'", ""), ("MASK_PATH", "Unknown parameter 'nosiud'", ""),
    ],
)  # fmt: skip
def test_a_misspelled_option(op: str, detail: str, found: str) -> None:
    assert faults._misspelled(op, detail) == found


# -- hints -----------------------------------------------------------------------------------------


def test_errors_are_of_their_kinds() -> None:
    assert issubclass(ConfigError, PyruncError) and issubclass(SysError, PyruncError)
    assert errors.errno_name(errno.ENOENT) == "ENOENT" and hints.did_you_mean("nosiud", ["nosuid", "ro"]).endswith(
        "nosuid?"
    )
