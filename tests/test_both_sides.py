"""Conditions whose sides only rare situations tell apart: a value that is missing, a call that is
interrupted, an answer that ends early. golden/both_sides.txt has the tables."""

from __future__ import annotations

import errno
import os
import posix
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from plan_support import Facts
from pyrunc import api, fs, handshake, hooks, seccomp, state
from pyrunc.api import programs
from pyrunc.cgroup import cgroupfs, devices
from pyrunc.checkpoint import criu
from pyrunc.container import lifecycle
from pyrunc.errors import PyruncError, StateError, SysError
from pyrunc.image import errors as image_errors
from pyrunc.image import layer, progress
from pyrunc.launch import ending, netdev
from pyrunc.log import Log
from pyrunc.native import libseccomp
from pyrunc.plan import mounts as plan_mounts
from pyrunc.seccomp_tools import profile, trace
from pyrunc.spec.report import Report
from pyrunc.verbs import list as list_verb
from test_results import results

Call = Callable[..., Any]


def same(case: str, lines: list[str]) -> None:
    """Compare with the table."""
    transcript.compare("both_sides", case, lines)


# -- errors that are passed on only in some cases --------------------------------------------------


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("rootless", [False, True])
@pytest.mark.parametrize("number", [errno.EPERM, errno.EACCES, errno.EINVAL])
def test_a_device_program_that_is_refused(
    number: int, rootless: bool, replace: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user without CAP_BPF gets a container without one, but no change of its rules."""

    def attach(*given: Any, **more: Any) -> None:
        assert given == (5, [], "/p") and more == {"replace": replace}
        raise SysError("/p", "bpf", number)

    monkeypatch.setattr(devices, "attach", attach)
    driver = cgroupfs.Cgroupfs(Facts(rootless=rootless))
    if rootless and not replace and number != errno.EINVAL:
        driver.devices(5, [], "/p", replace=replace)
        return
    with pytest.raises(SysError):
        driver.devices(5, [], "/p", replace=replace)


@pytest.mark.parametrize("stage", [seccomp.ARCH, seccomp.RULE, 4, seccomp.DEATH, 6, seccomp.NO_ANSWER])
@pytest.mark.parametrize(
    "number", [0, errno.ENOMEM, errno.EINTR, errno.EDOM, errno.E2BIG, errno.ECHILD, errno.ETIMEDOUT]
)
def test_a_profile_that_cannot_be_compiled(stage: int, number: int) -> None:
    rules: Any = {"architectures": ["SCMP_ARCH_X86"], "syscalls": [{"names": ["a", "b"], "action": "SCMP_ACT_LOG"}]}
    lines = []
    for index in (-1, 0, 1, 9, 24, 256):
        for name in (-1, 0, 1, 2):
            error = SimpleNamespace(errno=number, stage=stage, strerror="call", index=index, name=name, args=(number,))
            found = results(lambda error=error: repr(seccomp._failed(error, rules, [5])), [()])
            lines.append(f"{index} {name}: {found[0]}")
    same(f"a profile, stage {stage} {number}", lines)


def test_architectures_of_a_profile() -> None:
    """The native one is there already, and each other one counts once."""
    native = "SCMP_ARCH_X86_64" if os.uname().machine == "x86_64" else "SCMP_ARCH_AARCH64"
    other = libseccomp.arch(b"mips")
    assert seccomp._architectures({"architectures": [native, "SCMP_ARCH_MIPS", native, "SCMP_ARCH_MIPS"]}) == [other]  # type: ignore[list-item,typeddict-item]
    assert seccomp._architectures({}) == []  # type: ignore[typeddict-item]


# -- the life cycle --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["", "/run/notify"])
@pytest.mark.parametrize("own", ["", "/run/own"])
def test_a_proxy_needs_both_ends(host: str, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyrunc import notify

    monkeypatch.setattr(posix, "environ", {b"NOTIFY_SOCKET": host.encode()})
    monkeypatch.setattr(notify, "Proxy", lambda *given: given)
    container: Any = SimpleNamespace(data={"notify": own} if own else {})
    found: Any = lifecycle.notify_proxy(container)
    assert found == ((own, host) if host and own else None)


@pytest.mark.parametrize("size", [0, 1, handshake.RECORD_SIZE - 1, handshake.RECORD_SIZE, handshake.RECORD_SIZE + 5])
def test_a_record_that_ends_early(size: int) -> None:
    reader, writer = os.pipe()
    os.write(writer, b"x" * size)
    os.close(writer)
    found = lifecycle.read_record(reader)
    os.close(reader)
    assert found == (b"x" * handshake.RECORD_SIZE if size >= handshake.RECORD_SIZE else b"")


def test_hooks_run_in_the_bundle(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(hooks, "run_hooks", lambda *given, **more: told.append((given, more)))
    monkeypatch.setattr(hooks, "Surroundings", lambda *given: given)
    for data in ({"bundle": "/b", "annotations": {"a": "b"}}, {"bundle": ""}, {}):
        lifecycle.run_hooks(SimpleNamespace(data=data), "poststop", [], "text", None, fatal=True)  # type: ignore[arg-type]
    around = [given[3] for given, _ in told]
    assert around == [("/b", None, {"a": "b"}), ("/", None, {}), ("/", None, {})]
    assert [given[:3] for given, _ in told] == [("poststop", [], "text")] * 3 and told[0][1] == {"fatal": True}


def test_an_end_is_repeated_after_a_lack_of_memory() -> None:
    said: list[str] = []
    log: Any = SimpleNamespace(warning=said.append)
    for failures in (
        [],
        [MemoryError()],
        [MemoryError()] * 99,
        [OSError(5, "x")],
        [PyruncError("y")],
        [MemoryError(), OSError(1, "z")],
    ):
        left, count = list[BaseException](failures), [0]

        def end(container: Any, left: list[BaseException] = left, count: list[int] = count) -> None:
            count[0] += 1
            if left:
                raise left.pop(0)

        lifecycle.insist(end, SimpleNamespace(id="c1"), log)  # type: ignore[arg-type]
        said.append(f"{count[0]} calls")
    same("an end that is repeated", said)


class Fake:
    """A container for the decisions of `kill`, `pause` and `resume`."""

    id = "c1"

    def __init__(self, status: str, init: bool, others: bool, cgroup: str, creating: bool) -> None:
        self.answers = {"status": status, "kill_init": init, "kill_cgroup": others, "creating": creating}
        self.data, self.calls = {"cgroup": cgroup}, list[str]()

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any) -> Any:
            self.calls.append(name + repr(given))
            return self.answers[name]

        return call


def test_who_is_killed() -> None:
    """Which processes get the signal, for each status."""
    lines = []
    for status in ("creating", "created", "running", "stopped", "paused"):
        for init in (False, True):
            for others in (False, True):
                for cgroup in ("", "/c"):
                    for everyone in (False, True):
                        for number in (9, 15):
                            fake: Any = Fake(status, init, others, cgroup, creating=status == "creating")
                            try:
                                lifecycle.kill(fake, number, everyone=everyone)
                                told = "ok"
                            except StateError as error:
                                told = str(error)
                            lines.append(f"{status} {init} {others} {cgroup} {everyone} {number}: {fake.calls} {told}")
    same("who is killed", lines)


def test_what_can_be_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    driver = SimpleNamespace(freeze=lambda path: lines.append(f"freeze {path}"))
    monkeypatch.setattr(lifecycle, "driver_of", lambda container: driver)
    for status in ("creating", "created", "running", "paused", "stopped"):
        for cgroup in ("", "/c"):
            fake: Any = Fake(status, True, True, cgroup, creating=False)
            lines += [f"{status}: {line.partition(' -> ')[2]}" for line in results(lifecycle.pause, [fake])]
    same("what can be paused", lines)


@pytest.mark.parametrize(("mounted", "known"), [(True, True), (False, True), (True, False)])
def test_the_driver_that_removes_the_cgroup(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mounted: bool, known: bool
) -> None:
    """A `run` has one already; the hierarchy may have been mounted elsewhere meanwhile."""

    def driver(name: str) -> Any:
        return SimpleNamespace(
            kill=lambda *args, **more: said.append(f"{name} kills"), remove=lambda *args: said.append(f"{name} removes")
        )

    said: list[str] = []
    monkeypatch.setattr(lifecycle, "kill_and_wait", lambda container: None)
    monkeypatch.setattr(lifecycle, "driver_of", lambda container: driver("another"))
    container: Any = SimpleNamespace(
        data={"cgroup": "/c", "cgroup_dir": str(tmp_path / ("" if mounted else "c"))},
        this_boot=lambda: True,
        keeps_cgroup=lambda: False,
        destroy=lambda: said.append("destroyed"),
    )
    lifecycle.remove(container, Log(), driver=driver("its own") if known else None)
    name = "its own" if mounted and known else "another"
    assert said == [f"{name} kills", f"{name} removes", "destroyed"]


# -- waiting ---------------------------------------------------------------------------------------


def test_an_interrupted_wait_asks_what_the_signal_was(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[BaseException | None] = [InterruptedError(), InterruptedError(), None]
    asked: list[int] = []

    def await_end(pid: int, timeout: int) -> None:
        asked.append(timeout)
        found = answers.pop(0)
        if found is not None:
            raise found

    monkeypatch.setattr(ending, "processes", SimpleNamespace(await_end=await_end))
    checks: list[int] = []
    interrupts: Any = SimpleNamespace(check=lambda: checks.append(1))
    ending.await_end(5, interrupts)
    assert len(checks) == 2 and asked == [ending.END_TIMEOUT_MS] * 3
    answers[:] = [InterruptedError(), ChildProcessError()]
    ending.await_end(5)
    answers[:] = [TimeoutError()]
    with pytest.raises(PyruncError, match="did not exit: process 4000000 "):
        ending.await_end(4_000_000)


@pytest.mark.parametrize(("clean", "group", "killed"), [(True, True, 0), (False, True, 1), (False, False, 0)])
def test_criu_that_ends(clean: bool, group: bool, killed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(criu, "processes", SimpleNamespace(await_end=lambda *given: None))
    real = posix

    class Posix:
        """Notes the signals."""

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def killpg(self, *given: int) -> None:
            calls.append(given)

        def waitpid(self, pid: int, flags: int) -> tuple[int, int]:
            return pid, 256

    monkeypatch.setattr(criu, "posix", Posix())
    made = criu.Criu(Log(), lambda: None)
    assert made.wait() == 0
    made.pid, made.group = 77, group
    assert made.wait(clean=clean) == 256 and made.pid == 0
    assert calls == [(77, 9)] * killed


@pytest.mark.parametrize("content", [b"", b"x" * 10])
def test_a_pipe_without_data_has_not_ended(content: bytes) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    made = programs.Program()
    with open(reader, "rb") as stream:
        assert made._receive(stream) is False
        if content:
            os.write(writer, content)
            assert made._receive(stream) is False
        os.close(writer)
        assert made._receive(stream) is True
    assert b"".join(made._read["stderr"]) == content


# -- netlink ---------------------------------------------------------------------------------------


def ack(
    number: int, flags: int, attributes: list[tuple[int, bytes]], echoed: int = 0, capped: bool = True
) -> tuple[bytes, int]:
    """NLMSG_ERROR with its attributes, netlink(7)."""
    own = struct.pack("=IHHII", 0, 2, flags, 1, 0) + struct.pack("=i", number)
    own += struct.pack("=IHHII", 16 + echoed, 16, 0, 1, 0) + (b"" if capped else bytes(echoed + 3 & ~3))
    for kind, data in attributes:
        piece = struct.pack("=HH", 4 + len(data), kind) + data
        own += piece + bytes(-len(piece) % 4)
    return own, flags | (netdev.NLM_F_CAPPED if capped else 0) | (netdev.NLM_F_ACK_TLVS if attributes else 0)


def test_words_of_the_kernel_in_an_acknowledgement() -> None:
    other, words = 3, netdev.NLMSGERR_ATTR_MSG
    cases = [
        ack(0, 0, []), ack(-1, 0, []), ack(-17, 0, [(words, b"exists\0")]), ack(-17, 0, [(words | 0x8000,
            b"nested\0")]),
        ack(-17, 0, [(other, b"12345"), (words, b"after\0")]), ack(-17, 0, [(other, b""), (words, b"empty first\0")]),
        ack(-17, 0, [(words, b"abc\0"), (other, b"x")]), ack(-17, 0, [(words, b"first\0"), (words, b"second\0")]),
        ack(-17, 0, [(words, b"echoed\0")], 5, False), ack(-17, 0, [(words, b"\xff\0")]), ack(-17, 0, [(words, b"")]),
        ack(-17, 0, [(words, b"whole")], 8, True), ack(-17, 0, [(other, b"x")]),
    ]  # fmt: skip
    lines = results(netdev._check_ack, cases)
    zero = ack(-17, 0, [(words, b"x")])
    lines += results(netdev._check_ack, [(zero[0][:-8] + bytes(8), zero[1]), (zero[0][:-8] + b"\1\0\1\0xxxx", zero[1])])
    same("acknowledgements", lines)


def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.machinery import PathFinder

    monkeypatch.delitem(sys.modules, "pyroute2", raising=False)
    for found in (None, SimpleNamespace(submodule_search_locations=None)):
        monkeypatch.setattr(PathFinder, "find_spec", lambda name, found=found: found)
        with pytest.raises(ModuleNotFoundError, match="pyroute2"):
            netdev._shell()
    assert "pyroute2" not in sys.modules


# -- names and places ------------------------------------------------------------------------------


def test_names_of_the_api() -> None:
    assert api.__getattr__("AsyncRuntime").__module__ == "pyrunc.api.aio"
    for name in ("Runtime", "AsyncNothing", "nothing", "PIPE"):
        with pytest.raises(AttributeError, match=f"'pyrunc.*'.* no attribute '{name}'"):
            api.__getattr__(name)


@pytest.mark.parametrize("mount", ["", "/m"])
@pytest.mark.parametrize("has", [False, True])
def test_the_source_of_a_cgroup_mount(mount: str, has: bool) -> None:
    spaces: Any = SimpleNamespace(has=lambda kind: has)
    lines = []
    for path in ("", "/", "/a", "/a/b", "/ab", "/b"):
        for root in ("", "/", "/a"):
            facts = Facts(cgroup2_mount=mount, cgroup2_root=root, own_cgroup="/a/own")
            lines.append(f"{path} {root}: {plan_mounts.cgroup_source(path, facts, spaces)}")
    same(f"a cgroup mount of {mount}, {has}", lines)


@pytest.mark.parametrize("rootless", [False, True])
def test_the_host_source_of_a_filesystem(rootless: bool) -> None:
    lines = []
    for fstype in ("proc", "sysfs", "mqueue", "tmpfs"):
        for there in ((), ("user",), ("pid", "ipc", "network"), ("user", "pid", "network", "ipc")):
            for new in ((), ("pid", "ipc", "network")):
                spaces: Any = SimpleNamespace(has=there.__contains__, is_new=new.__contains__)
                found = plan_mounts.host_source(fstype, Facts(rootless=rootless), spaces)
                lines.append(f"{fstype} {there} {new}: {found}")
    same(f"the host's source, {rootless}", lines)


def test_times_of_a_layer() -> None:
    texts = [None, "0", "1", "-1", "1.5", "-1.5", "1.", ".5", "", "x", "1.x", "\u0661", "1.\u0661", "1.0000000001",
        "9" * 12, "9" * 13,
             "-0.1", "1.123456789", "--1", "1.5.5", " 1"]  # fmt: skip
    defaults = [0, 1.5, -1.5, 2.0**40, -(2.0**40), 2.0**40 - 1]
    same("times", results(layer._nanoseconds, [(text, 7.25) for text in texts] + [(None, one) for one in defaults]))
    ids = [(uid, gid) for uid in (-1, 0, 0xFFFFFFFE, 0xFFFFFFFF) for gid in (-1, 0, 0xFFFFFFFE, 0xFFFFFFFF)]
    same("owners", results(lambda uid, gid: layer._check_ids(SimpleNamespace(uid=uid, gid=gid)), ids))  # type: ignore[arg-type]


def test_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Drawn on a terminal only, not more than ten times a second, and at the end."""
    clock, columns = [100.0], 80
    lines = []
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((columns, 24)))
    for terminal, quiet, total, columns in (
        (True, False, 1000, 80), (True, False, 1000, 20), (False, False, 1000, 80), (True, True, 1000, 80), (True,
        False, 0, 80),
        (True, False, 1000, 60),
    ):  # fmt: skip
        monkeypatch.setattr(os, "isatty", lambda fd, terminal=terminal: terminal)
        made = progress.Progress("label", total, quiet=quiet)
        made.end()
        for step, count in ((0.0, 0), (0.05, 100), (0.04, 100), (0.06, 300), (0.0, 499), (0.0, 1), (0.0, 5)):
            clock[0] += step
            made.advance(count)
        made.end()
        lines.append(f"{terminal} {quiet} {total} {columns}: {capsys.readouterr().err!r}")
        clock[0] += 100
    same("progress", lines)


def test_causes_of_an_error() -> None:
    inner, outer, reason = ValueError("inner"), OSError("outer"), KeyError("reason")
    outer.__context__ = inner
    inner.reason = reason  # type: ignore[attr-defined]
    reason.reason = "words"  # type: ignore[attr-defined]
    assert list(image_errors.chain(outer)) == [outer, inner, reason]
    outer.__cause__ = reason
    assert list(image_errors.chain(outer)) == [outer, reason]
    loop = OSError()
    loop.__context__ = loop2 = OSError()
    loop2.reason = loop  # type: ignore[attr-defined]
    assert len(list(image_errors.chain(loop))) == 16 and list(image_errors.chain(None)) == []


# -- lists, profiles and traces --------------------------------------------------------------------


def test_a_quiet_list_does_not_read_states(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    asked: list[Any] = []

    class Store:
        """Notes how it is read."""

        def __init__(self, root: str) -> None:
            asked.append(root)

        def list(self, broken: Call, **more: Any) -> list[Any]:
            asked.append(more)
            return [SimpleNamespace(id="a"), SimpleNamespace(id="b")]

    monkeypatch.setattr(state, "Store", Store)
    context: Any = SimpleNamespace(root="", log=Log())
    assert list_verb.main(context, {"quiet": True}, []) == 0
    assert capfdbinary.readouterr().out == b"a\nb\n" and asked[1:] == [{"content": False}]


def test_a_profile_of_the_wrong_kind() -> None:
    cases: list[Any] = [{}, [], None, "x", 5, {"defaultAction": "SCMP_ACT_ALLOW"}, {"defaultAction": 5},
        {"syscalls": [5]},
                        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [],
                        "action": "SCMP_ACT_LOG"}]}]  # fmt: skip
    same("profiles", results(lambda value: profile.valid(value, "/linux/seccomp", "source"), cases))
    assert Report().problems == []


def test_output_that_cannot_be_written() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(SysError) as caught:
        trace.write(writer, "x")
    os.close(writer)
    assert caught.value.errno == errno.EPIPE and str(caught.value).startswith("--output: write: EPIPE")
    with pytest.raises(SysError) as caught:
        trace.create("/nowhere/at/all")
    assert (caught.value.errno, caught.value.value) == (errno.ENOENT, "/nowhere/at/all")


def test_a_trace_file_is_truncated_and_private(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    fd = trace.create(str(tmp_path / "out"))
    fs.write_all(fd, b"one")
    (tmp_path / "out").open("a").write("two")
    fs.write_all(fd, b"three")
    assert (tmp_path / "out").read_text() == "onetwothree" and not os.get_inheritable(fd)
    os.close(fd)
