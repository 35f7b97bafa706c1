"""CONSOLE, stdio, host names and sysctls, in separate namespaces."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable

import pytest

from integration.native_fs import CHR, MS_BIND, NATIVE, OBJECTS, Script, failure, lines, skip_marks
from pyrunc.plan import ops

pytest_plugins = ["integration.native_fs"]
pytestmark = skip_marks


# --- terminal and stdio ---------------------------------------------------------------------------


def test_console(terminal: Script) -> None:
    terminal.op("pivot")
    before = terminal.ask("fds")
    terminal.op("console", policy=ops.P_CONSOLE_MOUNT_CONSOLE, fd=1, rows=33, cols=77, uid=21, gid=22)
    after = terminal.ask("fds")
    seen, console = terminal.ask("console"), terminal.ask("stat", "/dev/console")
    stdio = [terminal.ask("fd", fd) for fd in range(3)]
    answers = terminal.run()
    assert answers[seen] == "/dev/ptmx hello 33x77 controlling"
    assert answers[console].startswith("020620 21:0 136:0 ")
    assert {answers[i] for i in stdio} == {answers[console]}
    assert int(answers[after]) == int(answers[before]) - 1  # the socket is closed


@pytest.mark.parametrize(("rows", "cols"), [(5, 0), (0, 7), (0, 0)])
def test_half_of_a_size(terminal: Script, rows: int, cols: int) -> None:
    terminal.op("pivot")
    terminal.op("console", fd=1, rows=rows, cols=cols)
    seen = terminal.ask("console")
    assert terminal.run()[seen] == f"/dev/ptmx hello {rows}x{cols} controlling"


@pytest.mark.parametrize("trap", ["link", "dir", "file", "device"])
def test_console_is_never_somewhere_else(begun: Script, root: pathlib.Path, trap: str) -> None:
    """T10 (CVE-2025-52565)."""
    (root / "victim").write_text("untouched")
    (root / "dev" / "pts").mkdir(parents=True)
    path = root / "dev/console"
    if trap == "link":
        path.symlink_to("/victim")
    elif trap == "dir":
        path.mkdir()
    elif trap == "file":
        path.write_text("x")
    else:
        os.mknod(path, CHR | 0o666, os.makedev(1, 3))
    begun.op("mount", fstype="devpts", source="d", dest="/dev/pts", data=["newinstance", "ptmxmode=0666"])
    begun.op("dev_link", target="pts/ptmx", path="/dev/ptmx")
    begun.op("pivot")
    result = begun.refused("console", policy=ops.P_CONSOLE_MOUNT_CONSOLE, fd=1)
    kind = begun.ask("stat", "/dev/console")
    answers = begun.run()
    if trap in ("file", "device"):
        assert answers[result] == "ok" and answers[kind].split()[2] == "136:0"
    else:
        assert failure(answers[result])[0] == "ELOOP"
    assert (root / "victim").read_text() == "untouched"


@pytest.mark.parametrize("trap", ["file", "null", "missing", "no-devpts"])
def test_ptmx_must_be_the_multiplexer_of_a_devpts(begun: Script, root: pathlib.Path, trap: str) -> None:
    (root / "dev" / "pts").mkdir(parents=True)
    path = root / "dev/ptmx"
    if trap == "file":
        path.write_text("x")
    elif trap != "missing":
        os.mknod(path, CHR | 0o666, os.makedev(1, 3) if trap == "null" else os.makedev(5, 2))
    begun.op("pivot")
    bad = begun.refused("console", fd=1)
    assert failure(begun.run()[bad])[0] in ("ENODEV", "ENOENT")


def test_console_without_a_socket(terminal: Script) -> None:
    terminal.op("pivot")
    bad = [terminal.refused("console", fd=slot) for slot in (2, 0, 63, 64, 0xFFFFFFFF)]
    answers = terminal.run()
    assert [failure(answers[i])[0] for i in bad] == ["EBADF"] * 5


def test_host_dev_null_becomes_the_containers(terminal: Script) -> None:
    terminal.op("dev_node", kind=CHR, mode=0o666, major=1, minor=3, path="/dev/null")
    terminal.ask("stdio", 0, "/dev/null")
    terminal.ask("stdio", 2, "/dev/zero")
    terminal.op("pivot")
    terminal.op("reopen_null")
    zero, two, null = terminal.ask("fd", 0), terminal.ask("fd", 2), terminal.ask("stat", "/dev/null")
    answers = terminal.run()
    assert answers[zero] == answers[null]
    assert answers[two].split()[2] == "1:5"


@pytest.mark.parametrize("trap", ["missing", "file", "zero"])
def test_stdio_keeps_the_host_dev_null_without_another(begun: Script, root: pathlib.Path, trap: str) -> None:
    (root / "dev").mkdir()
    if trap == "file":
        (root / "dev/null").write_text("x")
    elif trap == "zero":
        os.mknod(root / "dev/null", CHR | 0o666, os.makedev(1, 5))
    begun.ask("stdio", 0, "/dev/null")
    before = begun.ask("fd", 0)
    begun.op("pivot")
    begun.op("reopen_null")
    after = begun.ask("fd", 0)
    answers = begun.run()
    assert answers[before] == answers[after] and answers[after].split()[2] == "1:3"


def test_stdio_owner(begun: Script, tmp_path: pathlib.Path) -> None:
    (tmp_path / "log").touch()
    (tmp_path / "group").touch()
    os.chown(tmp_path / "group", 41, 7)
    os.mknod(tmp_path / "null", CHR | 0o666, os.makedev(1, 3))  # never the machine's device
    for fd, name in enumerate(("null", "log", "group")):
        begun.ask("stdio", fd, tmp_path / name)
    begun.op("stdio_owner", uid=41, gid=42)
    owners = [begun.ask("fd", fd) for fd in range(3)]
    answers = begun.run()
    assert [answers[i].split()[1] for i in owners] == ["0:0", "41:42", "41:42"], "/dev/null belongs to everybody"


def test_stdio_owner_of_a_terminal(terminal: Script) -> None:
    """The group of a terminal exists for write(1); it stays as devpts set it."""
    terminal.op("pivot")
    terminal.op("console", fd=1, uid=21, gid=22)
    terminal.op("stdio_owner", uid=41, gid=42)
    owner = terminal.ask("fd", 1)
    assert terminal.run()[owner].split()[1] == "41:0"


@pytest.mark.parametrize("other", ["/file", "/pts", "/dev/pts/ptmx"])
def test_terminal_must_be_one_of_a_devpts(terminal: Script, root: pathlib.Path, other: str) -> None:
    """A device outside devpts with the number of a terminal, and a device in devpts that is not a
    terminal."""
    (root / "file").touch()
    os.mknod(root / "pts", CHR | 0o666, os.makedev(136, 0))
    terminal.op("pivot")
    terminal.ask("trap", "after", "ioctl", 1, "open", other, "")
    bad = terminal.refused("console", fd=1)
    assert failure(terminal.run()[bad])[::4] == ("ENODEV", "the terminal is not on a devpts")


# --- names and sysctls ----------------------------------------------------------------------------


def test_names_and_sysctls(script: Script) -> None:
    script.op("hostname", name="box.example")
    script.op("domainname", name="nis.example")
    long = script.refused("hostname", name="h" * 65)
    script.op("sysctl", key="net/ipv4/ip_forward", value="1")
    script.op("sysctl", key="kernel/msgmax", value="12345")
    bad_key = script.refused("sysctl", key="net/ipv4/nope", value="1")
    bad_value = script.refused("sysctl", key="net/ipv4/ip_forward", value="word")
    # The test writes the current value, so a mistake would not change the machine.
    same = pathlib.Path("/proc/sys/kernel/core_pattern").read_text().rstrip()
    dots = [
        script.refused("sysctl", key=key, value=same) for key in ("net/../kernel/core_pattern", "../self/comm", "..")
    ]
    names, msgmax = script.ask("uname"), script.ask("cat", "/proc/sys/kernel/msgmax")
    forward, fds = script.ask("cat", "/proc/sys/net/ipv4/ip_forward"), script.ask("fds")
    host = {
        key: pathlib.Path("/proc/sys", key).read_text()
        for key in ("net/ipv4/ip_forward", "kernel/msgmax", "kernel/core_pattern")
    }
    answers = script.run()
    assert answers[names] == "box.example nis.example"
    assert (lines(answers[msgmax]), lines(answers[forward])) == (["12345"], ["1"])
    assert failure(answers[long])[:3] == ("EINVAL", "sethostname", 0)
    assert failure(answers[bad_key])[:3] == ("ENOENT", "open", 0)
    assert failure(answers[bad_value])[:3] == ("EINVAL", "write", 1)
    assert [failure(answers[i])[:3] for i in dots] == [("EINVAL", "open", 0)] * 3
    assert {key: pathlib.Path("/proc/sys", key).read_text() for key in host} == host
    assert int(answers[fds]) <= 6


def test_sysctl_with_an_empty_value(script: Script) -> None:
    script.op("domainname", name="nis.example")
    script.op("sysctl", key="kernel/domainname", value="")
    names = script.ask("uname")
    assert script.run()[names].split(" ")[1] == ""


def test_the_longest_key_of_a_sysctl(script: Script) -> None:
    """The kernel accepts any number of slashes."""
    most = 4096 - len("sys/") - 1
    key = "kernel" + "/" * (most - len("kerneldomainname")) + "domainname"
    script.op("sysctl", key=key, value="nis.example")
    long = script.refused("sysctl", key=key.replace("/", "//", 1), value="other")
    names = script.ask("uname")
    answers = script.run()
    assert failure(answers[long])[:3] == ("ENAMETOOLONG", "open", 0)
    assert answers[names].endswith(" nis.example")


def test_sysctl_with_something_mounted_over_it(script: Script, tmp_path: pathlib.Path) -> None:
    """T11 (CVE-2025-52881): even with a procfs that can be covered, the write never goes
    elsewhere."""
    (tmp_path / "decoy").touch()
    script.ask("mount", tmp_path / "decoy", "/proc/sys/kernel/domainname", "none", MS_BIND, "")
    script.op("sysctl", key="kernel/domainname", value="private")  # through the procfs that was mounted before
    script.ask("procfd", "/proc")
    bad = script.refused("sysctl", key="kernel/domainname", value="shared")
    script.ask("mount", "t", "/proc", "tmpfs", 0, "")
    script.ask("procfd", "/proc")
    fake = script.refused("sysctl", key="kernel/domainname", value="shared")
    names = script.ask("uname")
    answers = script.run()
    assert failure(answers[bad])[:3] == ("EXDEV", "open", 0)
    assert failure(answers[fake])[0] == "EXDEV"
    assert answers[names].split()[1] == "private"
    assert (tmp_path / "decoy").read_text() == ""


def test_every_handler_is_driven() -> None:
    """An entry of plan.def for these files that the driver lacks would not be tested here."""
    text = (NATIVE / "tests" / "fs_driver.c").read_text()
    mine: Callable[[str], bool] = lambda name: f"int op_{name.lower()}(" in sources  # noqa: E731
    sources = "".join((NATIVE / "init" / f"{name}.c").read_text() for name in OBJECTS)
    missing = [entry[0] for entry in ops.OPS.values() if mine(entry[0]) and f'{{"{entry[0]}",' not in text]
    assert missing == []
