"""Small functions over tables of inputs at which their result changes: both sides of each condition,
each error number, the first and the last value.

golden/results.txt has every result (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review the diff).
"""

from __future__ import annotations

import errno
import os
import posix
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc import command, errors, fs, hints, host, idmap, log, mountinfo, procfs, rootmount, signals
from pyrunc.errors import ConfigError, Problem, SysError
from pyrunc.state import root as state_root

Call = Callable[..., Any]
Files = dict[str, bytes | int]  # path -> content, or the number of the error


def results(call: Call, cases: Iterable[Any]) -> list[str]:
    """The result or the error of each call; a case that is not a tuple is the only argument."""
    out = []
    for case in cases:
        given = case if isinstance(case, tuple) else (case,)
        try:
            found = transcript.shown(call(*given), 6)
        except AssertionError:
            raise
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        out.append(f"{', '.join(transcript.shown(one, 6) for one in given)[:160]} -> {transcript.short(found)}")
    return out


def same(case: str, call: Call, cases: Iterable[Any]) -> None:
    """Compare the results with the table."""
    transcript.compare("results", case, results(call, cases))


def put_files(patch: pytest.MonkeyPatch, files: Files) -> None:
    """Let `fs.read_file` read these files and no others."""

    def read_file(path: str, limit: int = 16 << 20, dir_fd: int | None = None) -> bytes:
        found = files.get(path, errno.ENOENT)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found))
        return found

    patch.setattr(fs, "read_file", read_file)


# -- words and numbers -----------------------------------------------------------------------------

PLAIN: dict[str, tuple[Call, list[Any]]] = {
    "signals.number": (
        signals.number,
        ["0", "1", "9", "64", "65", "064", "0064", "\u0661", "-1", "+1", "", "KILL", "kill", "SIGKILL", "sigterm",
         "SIGSIGKILL", "HUP", "SYS", "IOT", "CLD", "POLL", "S\u0131GKILL", "RTMIN", "RTMAX", "SIGRTMIN", "RTMIN+0",
         "RTMIN+3", "RTMIN+30", "RTMIN+31", "RTMIN-1", "RTMIN+", "RTMIN+003", "RTMIN+\u0661", "RTMAX-0", "RTMAX-30",
         "RTMAX-31", "RTMAX+1", "RTMAXX", "RTMI", "KIL", "TERN", "XX", "-", "--1", "9 ", " 9"],
    ),
    "signals.name": (signals.name, [-1, 0, 1, 2, 31, 32, 33, 34, 35, 63, 64, 65]),
    "signals.described": (signals.described, [9, 30, 31, 34]),
    "hints.did_you_mean": (
        lambda word: hints.did_you_mean(word, ("bundle", "root", "run", "restore", "rm", "rn", "x" * 32, "x" * 33)),
        ["", "r", "rx", "ru", "rnu", "urn", "rootx", "roto", "rot", "ot", "bundle", "bundl", "bund", "bun", "budnle",
         "bnudel", "undle", "Bundle", "restor", "erstoer", "x" * 31, "x" * 32, "x" * 33, "x" * 34, "rooot", "rooott"],
    ),
    "hints.find": (
        hints.find,
        [("MOUNT", errno.ENODEV), ("MOUNT", errno.EPERM), ("MOUNT", 0), ("MOUNT", 9999), ("NO_SUCH", errno.EPERM),
         ("UNSHARE_USER", errno.ENOSPC), ("UNSHARE", errno.EPERM)],
    ),
    "errors.errno_text": (errors.errno_text, [*range(133), 9999]),
    "errors.printable": (
        errors.printable,
        ["", "abc", "a\nb", "\x1b[1m", "\u200b\u00e4", "\n" * 3, "".join(map(chr, range(64 + 33))),
         "".join(map(chr, range(0x80, 0xA0))) + "".join(map(chr, range(32))) + "\x7f"],
    ),
    "errors.brief": (errors.brief, [("a" * 9, 9), ("a" * 10, 9), ("a" * 8 + "\n", 9), ("a" * 200,), ("a" * 201,)]),
    "errors.show": (
        errors.show,
        [None, True, False, 0, 1, 1.5, "", 'a"b\\c', "\n", "a" * 197, "a" * 198, "a" * 199, "a" * 200, "a" * 201, [],
        [1],
         list(range(8)), list(range(9)), {}, {"a": [True]}, {str(n): n for n in range(8)},
             {str(n): n for n in range(9)},
         [["x" * 60]] * 4, (1, 2)],
    ),
    "errors.of_interpreter": (
        lambda error: errors.of_interpreter(error),
        [MemoryError(), MemoryError("x"), RuntimeError("can't allocate lock"), RuntimeError("can't start new thread"),
         RuntimeError("x"), SystemError(), ValueError("can't allocate lock"), ValueError("can't start new thread")],
    ),
    "errors.pointer_of": (
        errors.pointer_of,
        ["", "/", "x", "process", "/process", "/process: x", "/process/args/0: expected", "/root", "/root/path: x",
         "/root/readonly", "/root/.ssh/id", "/root: x", "/mounts/0/source", "/memory/limit", "/etc/passwd", "/linux"],
    ),
    "errors.Problem": (
        lambda *given: str(Problem(*given)),
        [("/a", "b"), ("", "b"), ("/a", "b", "c"), ("/a", "b", "", "d"), ("/a", "b", "c", "d"), ("/" + "x" * 300, "b"),
         ("/a\nb", "c")],
    ),
    "errors.ConfigError": (
        lambda count, more: str(ConfigError([Problem(f"/{n}", "x") for n in range(count)], "s", more)),
        [(0, 0), (1, 0), (1, 1), (20, 0), (21, 0), (21, 4)],
    ),
    "errors.SysError": (
        lambda where, call, number, **more: str(SysError(where, call, number, **more)),
        [("/a", "open", 2), ("/a", "", 2), ("/a", "open", 0), ("", "open", 13), ("/a", "", 0)],
    ),
    "fs.normpath": (
        fs.normpath,
        ["", ".", "/", "//", "a", "a/", "a//b", "./a", "a/.", "..", "../..", "a/..", "a/../..", "/..", "/a/../..",
        "/a/../b",
         "/./", "../a", "a/../../b", "..a", "a..", "/a/b/../c"],
    ),
    "fs.join": (fs.join, [("a", "b"), ("a/", "b"), ("a", "/b"), ("", "b"), ("/", "b"), ("a", "")]),
    "fs.abspath": (fs.abspath, ["/a/../b", "/", "/a/"]),
    "fs.is_inconclusive": (lambda number: fs.is_inconclusive(OSError(number, "x")), list(range(1, 134))),
    "fs.encode": (fs.encode, ["a", "\u00e4", "\udcff"]),
    "command.boolean": (
        lambda text: command.boolean("--a", text),
        ["1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False", "", "yes", "tRUE", "2"],
    ),
    "command.parse": (
        lambda words, stop: command.parse(
            words.split(" "),
            [("root", "r", "DIR", "str", ""), ("debug", "", "", "bool", ""), ("count", "c", "N", "int", ""),
             ("env", "e", "X", "multi", "")],
            stop,
        ),
        [("--root a b", False), ("-root a b", False), ("-r a b", False), ("--r=a b", False), ("---root a", False),
         ("--root", False), ("b --root", False), ("--root= b", False), ("--debug b", False), ("--debug=false b", False),
         ("--debug=x b", False), ("-- --root a", False), ("a -- --root b", False), ("a - b", False), ("- --debug",
         False),
         ("a --debug b", False), ("a --debug b", True), ("--debug a -x b", True), ("a --root b -x", "root"),
         ("--root b a -x", "root"), ("--root b -- -x", "root"), ("--count 5", False), ("--count 999999999", False),
         ("--count 1000000000", False), ("--count -1", False), ("--count x", False), ("--count \u0661", False),
         ("-e a -e b=c --env=d", False), ("--x", False), ("-d", False), ("-", False), ("--", False), ("--rot a", False),
         ("--=a", False), ("--debug= b", False), ("--d b", False), ("-x", True)],
    ),
    "host.kernel_version": (
        host.kernel_version,
        ["6.1.0-13-amd64", "6.1", "6", "", "5.10-rc1", "5.10rc.1", "x.y", "6.x", "10.20.30", "6.1+", ".5"],
    ),
    "host.unescape": (
        host.unescape, [b"/a", b"/a\\040b", b"\\134", b"\\011\\012", b"\\", b"\\04", b"\\999", b"/\xff",
            b"a\\040\\040"],
    ),
    "log.own_number": (
        log.own_number,
        ["/dev/stdout", "/dev/stderr", "/dev/stdin", "/dev/fd/0", "/dev/fd/10", "/dev/fd/", "/dev/fd/-1", "/dev/fd/x",
         "/dev/fd/\u0661", "/proc/self/fd/2", "/proc/self/fd/2x", "/proc/1/fd/2", "", "2", "/dev/fd/" + "9" * 21],
    ),
    "mountinfo.inside": (
        mountinfo.inside, [("/a", "/"), ("/", "/"), ("/a", "/a"), ("/ab", "/a"), ("/a/b", "/a"), ("/a", "/a/b")],
    ),
    "idmap.is_self": (
        idmap.is_self,
        [([{"containerID": 0, "hostID": 5, "size": size}] * count, own)
         for count in (0, 1, 2) for size in (1, 2) for own in (4, 5)],
    ),
    "idmap._refused": (
        lambda number: str(idmap._refused("/mounts/0", "/nowhere", number, {"destination": "/d"})),
        [errno.EINVAL, errno.EPERM, errno.ENOSYS, errno.EBUSY],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_results(name: str) -> None:
    same(name, *PLAIN[name])


# -- processes -------------------------------------------------------------------------------------

PID = 4711


def stat_line(name: str = "a) b", state: str = "S", flags: int = 0, threads: int = 1, start: int = 99) -> bytes:
    """/proc/PID/stat, proc(5)."""
    fields = [state, *["5"] * 5, str(flags), *["7"] * 10, str(threads), "0", str(start), "1"]
    return f"{PID} ({name}) {' '.join(fields)}\n".encode()


def test_results_about_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alive, exiting, a zombie with and without other threads, another process with the pid, and unknown."""
    lines: list[str] = []
    links: dict[str, str | int] = {}

    def readlink(path: str) -> str:
        found = links.get(path, errno.ENOENT)
        if isinstance(found, int):
            raise OSError(found, os.strerror(found))
        return found

    monkeypatch.setattr(posix, "readlink", readlink)
    killed: list[Any] = []
    monkeypatch.setattr(posix, "kill", lambda *given: killed.append(given))
    stats: list[bytes | int] = [
        stat_line(), stat_line(start=98), *(stat_line(state=state) for state in "RDZXxTtI"),
        *(stat_line(state="Z", threads=count) for count in (0, 1, 2)), stat_line(flags=4), stat_line(flags=0x40),
        stat_line(flags=0x3F), stat_line(flags=0x44), stat_line(flags=4, threads=2), stat_line(flags=8), errno.ENOENT,
        errno.ESRCH, errno.ENOMEM, errno.EACCES,
    ]  # fmt: skip
    for found in stats:
        put_files(monkeypatch, {f"/proc/{PID}/stat": found})
        told = "error " + errno.errorcode[found] if isinstance(found, int) else found.decode().strip()
        for link in ("mnt:[1]", errno.ENOENT, errno.ESRCH, errno.EACCES):
            links[f"/proc/{PID}/ns/mnt"] = link
            lines += [f"{told}, {link}: {line}" for line in results(procfs.alive, [(PID, 99)])]
        lines += results(procfs.never_executed, [PID]) + results(procfs.process_stat, [PID])
        lines += [*results(procfs.kill_headless, [[PID]]), f"killed {killed}"]
        killed.clear()
    lines += results(procfs.alive, [(None, 99), (0, 99), (-1, 99), ("1", 99), (True, 99), (1, 99)])
    lines += results(procfs.open_process, [(None, 99), (0, 99), (-1, 99), ("1", 99), (2**22 + 5, 99)])
    for link in ("pid:[1]", errno.ENOENT, errno.ENOMEM, errno.EACCES):
        links[f"/proc/{PID}/ns/pid"] = links[f"/proc/{PID}/fd/1"] = link
        lines += results(procfs.pid_namespace, [PID]) + results(procfs.stdio, [PID])
    for link in (errno.EPERM, errno.ENOENT, errno.ESRCH, errno.EIO, "x"):
        links[f"/proc/{PID}/ns/mnt"] = link
        lines += results(procfs.released, [PID])
    for text in (b"NSpid:\t5\t1\n", b"NSpid:\t5\n", b"NSpid:\t1\t5\n", b"Name:\t1\n", b"", errno.ENOENT, errno.EIO):
        put_files(monkeypatch, {f"/proc/{PID}/status": text})
        lines += results(procfs.first_in_namespace, [PID])
    for text in (b"abc-1\n", b"\xff\n", b"", errno.ENOENT, errno.EMFILE):
        put_files(monkeypatch, {"/proc/sys/kernel/random/boot_id": text})
        lines += results(procfs.boot_id, [()])
    transcript.compare("results", "a process", lines)


def test_results_about_namespaces(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "fifo")
    places = [tmp_path / "file", tmp_path / "fifo", tmp_path / "gone", tmp_path]
    found = [
        line.replace(str(tmp_path), "TOP") for line in results(procfs.open_namespace, [(str(p), "/p") for p in places])
    ]
    transcript.compare("results", "a namespace", found)
    fd = procfs.open_namespace("/proc/self/ns/uts", "/p")
    assert os.fstat(fd).st_ino == os.stat("/proc/self/ns/uts").st_ino
    assert not os.get_inheritable(fd)
    os.close(fd)


# -- mounts ----------------------------------------------------------------------------------------

MOUNTS = b"""\
20 1 0:1 / / rw - ext4 a rw
21 20 0:2 / /proc rw - proc proc rw
22 20 0:3 / /a rw - tmpfs t rw
23 22 0:4 / /a/b rw - tmpfs t rw
24 22 0:5 / /a rw - tmpfs over rw
25 20 0:6 / /a\\040c rw - tmpfs t rw
26 20 0:1 /srv/root /srv/root rw - ext4 a rw
27 22 0:3 /b /a/b rw - tmpfs t rw
28 99 0:1 / /lost rw - ext4 a rw
short line
"""


def test_results_about_mounts(monkeypatch: pytest.MonkeyPatch) -> None:
    table = mountinfo.Tree(mountinfo.parse(MOUNTS))
    paths = ["/", "/proc", "/proc/1", "/a", "/a/b", "/a/b/c", "/ab", "/a c", "/a c/d", "/srv", "/srv/root/x", "/lost"]
    lines = [f"root {table.root}", *results(table.leads_to, paths), *results(table.shows, [*range(19, 30)])]
    lines += results(
        lambda text: mountinfo.Tree(mountinfo.parse(text)).root,
        [b"", b"5 5 0:1 / / rw - a b c", b"5 6 0:1 / / rw - a b c"],
    )
    put_files(monkeypatch, {"/proc/self/mountinfo": MOUNTS, "/proc/5/mountinfo": MOUNTS})
    listed = rootmount._by_id()
    lines += results(lambda number: rootmount._is_self_bind(listed, number), [*range(19, 30)])
    lines += results(lambda pid: mountinfo.Tree(mountinfo.read(pid)).root, [5, 6])
    transcript.compare("results", "mounts", lines)


def test_results_of_removing_a_root_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    put_files(monkeypatch, {"/proc/self/mountinfo": MOUNTS})
    lines: list[str] = []
    done: list[str] = []
    failure = [0]

    def unmount(path: bytes, flags: int) -> None:
        done.append(f"unmount {flags}")
        if failure[0]:
            raise OSError(failure[0], os.strerror(failure[0]))

    native = SimpleNamespace(set_propagation=lambda fd, flags: done.append(f"propagation {flags:#x}"), unmount=unmount)
    monkeypatch.setattr(rootmount, "mounts", native)
    for top in (20, 22, 26):
        monkeypatch.setattr(fs, "mount_id", lambda fd, top=top: top)
        for below in (0, 20, 22, 26):
            for own in (0, 20, 22, 24, 26, 27, 50):
                for failure[0] in (0, errno.EINVAL, errno.EBUSY) if own == top != below else (0,):
                    found = results(rootmount.remove, [("/", below, own)])
                    lines += [f"top {top}, {failure[0]}: {found[0]} {done}"]
                    done.clear()
    lines += results(rootmount.mount_id, ["/nowhere/at/all"]) + results(rootmount.remove, [("/nowhere/at/all", 1, 2)])
    transcript.compare("results", "the removal of a root mount", lines)


# -- the host --------------------------------------------------------------------------------------


def test_results_about_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    facts = host.HostFacts()
    facts.prefix = "/p"
    for file, name, texts in (
        ("/p/proc/sys/kernel/cap_last_cap", "cap_last", [b"40\n", b"x", b"", errno.ENOENT]),
        ("/p/sys/module/apparmor/parameters/enabled", "apparmor", [b"Y\n", b"N\n", b"", errno.ENOENT]),
        ("/p/proc/filesystems", "selinux", [b"nodev\tselinuxfs\n", b"nodev\txselinuxfs\n", b"", errno.ENOENT]),
        ("/p/sys/devices/system/node/has_memory", "memory_nodes", [b"0-1,3\n", b"0\n", b"", b"\xff", errno.ENOENT]),
        ("/p/proc/self/mountinfo", "resctrl", [b"1 2 0:1 / /sys/fs/a\\040b rw - resctrl r rw\n", MOUNTS, errno.ENOENT]),
    ):
        for text in texts:
            put_files(monkeypatch, {str(file): text})  # type: ignore[dict-item]
            facts = host.HostFacts()
            facts.prefix = "/p"
            found = results(lambda name, facts=facts: getattr(facts, name), [name])
            lines.append(f"{text!r}: {found[0]}")
    for top in ("/", "/a", "/a/"):
        facts.cgroup2_root, facts.cgroup2_mount = top, "/m"
        lines += [f"{top}: {line}" for line in results(facts.cgroup_dir, ["/", "/a", "/a/", "/a/b", "/ab", "/b/c/"])]
    for number in (errno.ENOENT, errno.ENOMEM, errno.EACCES):
        put_files(monkeypatch, {"/x": number})
        lines += results(lambda strict: host.read("/x", strict=strict), [False, True])
    put_files(monkeypatch, {"/proc/5/wchan": b"do_wait\0", "/proc/6/wchan": b"0", "/proc/7/wchan": b"\xff\n"})
    lines += results(host.waits_in, [5, 6, 7, 8])
    for kind in ("network", "mount", "uts", "nonsense"):
        name = {"network": "net", "mount": "mnt"}.get(kind, kind)
        facts.prefix = ""
        own = [f"/proc/self/ns/{name}", "/proc/self/ns/user", "/nowhere", "a\0b"]
        lines += [f"{kind} {path!r}: {facts.own_namespace(kind, path)}" for path in own]
    transcript.compare("results", "a host", lines)


@pytest.mark.parametrize("option", ["", "a", "/a/../b", "/", "/a/.."])
def test_results_about_the_state_root(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    monkeypatch.setattr(posix, "getcwd", lambda: "/cwd")
    for euid in (0, 5):
        monkeypatch.setattr(posix, "geteuid", lambda euid=euid: euid)
        for initial in (True, False):
            monkeypatch.setattr(host, "initial_userns", lambda initial=initial: initial)
            for user in ("", "root", "me"):
                for place in ("", "/run/user/5", "run/"):
                    monkeypatch.setattr(posix, "environ", {b"USER": user.encode(), b"XDG_RUNTIME_DIR": place.encode()})
                    found = results(state_root.root_dir, [option])
                    lines.append(f"{euid} {initial} {user!r} {place!r}: {found[0]}")
    transcript.compare("results", f"the state root {option}", lines)


def test_results_of_the_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What goes to the file and to stderr, for each setting."""
    said: list[bytes] = []
    monkeypatch.setattr(time, "strftime", lambda *given: "TIME")
    monkeypatch.setattr(fs, "write_all", lambda fd, data: said.append(b"%d " % min(fd, 3) + data))
    lines: list[str] = []
    for format in ("text", "json"):
        for path in ("", "log", "file:log", "/dev/stderr"):
            for debug in (False, True):
                for ours in (False, True):
                    for terminal in (False, True):
                        monkeypatch.setattr(posix, "isatty", lambda fd, terminal=terminal: terminal)
                        made = log.Log(path.replace("log", f"{tmp_path}/log"), format, debug)
                        made.stderr_is_ours = ours
                        for write in (made.debug, made.info, made.warning, made.error):
                            write('a "b" \\ \n\u00e4')
                        made.warning("c", aloud=True)
                        lines.append(f"{format} {path} {debug} {ours} {terminal}: {said}")
                        said.clear()
    made = log.Log()
    made.stderr_is_ours = True
    for _ in range(9):
        made.warning("x" * 5000)
    lines.append(f"{[len(line) for line in said]} {said[-1]!r}")
    lines += results(log._open, ["/dev/fd/77", "/nowhere/at/all", str(tmp_path), "/dev/fd/" + "9" * 19])
    transcript.compare("results", "the log", [line.replace(str(tmp_path), "TOP") for line in lines])
    assert os.stat(tmp_path / "log").st_mode & 0o7777 == 0o600


def test_results_about_a_log_that_is_a_link_or_a_fifo(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(tmp_path / "socket"))
    for name, number in (("link", errno.ELOOP), ("fifo", errno.ENXIO), ("socket", errno.ENXIO)):
        with pytest.raises(SysError) as caught:
            log._open(str(tmp_path / name))
        assert (caught.value.errno, caught.value.pointer) == (number, "") and str(caught.value).startswith("--log")
    assert not (tmp_path / "target").exists()


def test_joined_mappings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mappings of a config that joins a user namespace are those of the namespace."""
    one, two = ([{"containerID": 0, "hostID": 5, "size": n}] for n in (1, 2))
    split = [{"containerID": 0, "hostID": 5, "size": 1}, {"containerID": 1, "hostID": 6, "size": 1}]
    lines: list[str] = []
    for text in (b"0 5 1\n", b"0 5 2\n", b"         0          5          1\n 1 6 1\n", b"", errno.ENOENT):
        put_files(monkeypatch, {"/proc/7/uid_map": text, "/proc/7/gid_map": b"0 5 1\n"})
        cases = [{}, {"uidMappings": one}, {"uidMappings": two, "gidMappings": two}, {"uidMappings": split}]
        lines += [f"{text!r}: {line}" for line in results(lambda linux: idmap.check_joined(7, linux), cases)]
    transcript.compare("results", "joined mappings", lines)
