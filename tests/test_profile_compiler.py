"""Profiles that libseccomp cannot handle: which ones are rejected, and the result of a compiler
that crashes."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import signal
import stat
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import plan_support
import work
from pyrunc import seccomp
from pyrunc.errors import ConfigError, PyruncError, SysError
from pyrunc.native import binding, libseccomp
from pyrunc.spec import validate
from pyrunc.spec.schema import SECCOMP_ARCHES
from seccomp_support import ALLOW, NEWEST, NR, compiled, profile, rule, run
from work import SLOW

ROOT = Path(__file__).resolve().parent.parent
EQUAL, MASKED = "SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"


def crashing() -> Json:
    """More than 65,535 instructions: after some time libseccomp up to 2.6 corrupts its heap (struct
    bpf_program)."""

    def value(number: int) -> int:
        return number << 32 | number

    return profile(
        *(
            rule("personality", "SCMP_ACT_ALLOW", *((i, MASKED, 0xFFFF_0000_FFFF, value(n * 6 + i)) for i in range(6)))
            for n in range(2000)
        )
    )


def slow(rules: int = 500) -> Json:
    """The profile is within all bounds but takes a minute: each rule is compared with all
    others."""
    return profile(
        *(
            rule("personality", "SCMP_ACT_ALLOW", *((i, MASKED, (n << 33) + n + 7, n * 5 + i) for i in range(6)))
            for n in range(rules)
        )
    )


def problems(given: Json) -> list[str]:
    """The problems that validation finds in a profile."""
    config, _, _ = plan_support.load_case(plan_support.case_names()[0])
    config.setdefault("linux", {})["seccomp"] = given
    try:
        validate.check(config, facts=plan_support.Facts())
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


# -- bounds ----------------------------------------------------------------------------------------

ONE_ARGUMENT = [rule("personality", "SCMP_ACT_ALLOW", (0, EQUAL, value)) for value in range(12_000)]
MANY = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (crashing(), "/linux/seccomp/syscalls: expected at most 4096 conditions"),
        (profile(*ONE_ARGUMENT), "/linux/seccomp/syscalls: expected at most 4096 names"),
        (profile(rule("read " * 4097)), "at most 4096 names in all rules"),
        (profile(*[rule("read " * 64)] * 65), "found number 4160"),
        (profile(rule("read " * 1025, "SCMP_ACT_ALLOW", *((i, EQUAL, 1) for i in range(4)))), "found number 4100"),
        (profile(*ONE_ARGUMENT[:2000], architectures=MANY), "at most 65535 instructions for all architectures"),
        (profile(rule("read"), architectures=["SCMP_ARCH_X86"] * 33), "/linux/seccomp/architectures: expected at most"),
    ],
)
def test_too_much(given: Json, words: str) -> None:
    """libseccomp never sees the profile: one problem is reported at once."""
    with work.at_most(1):
        (problem,) = problems(given)
    assert words in problem


@pytest.mark.parametrize(
    "given",
    [
        profile(rule("read " * 4096)),
        profile(*ONE_ARGUMENT[:4000]),
        profile(rule("read " * 1024, "SCMP_ACT_ALLOW", *((i, EQUAL, 1) for i in range(4)))),
        profile(*ONE_ARGUMENT[:1000], architectures=MANY[:3]),
        slow(),
    ],
)
def test_just_not_too_much(given: Json) -> None:
    assert problems(given) == []


@pytest.mark.skipif(SLOW > 1, reason="an emulated processor takes more than the 5 s that a compiler may take")
def test_the_longest_lists_compile() -> None:
    program = compiled(*ONE_ARGUMENT[:4000], NEWEST)
    assert 4000 < len(program) // 8 <= 4096
    assert [run(program, NR["personality"], value) == ALLOW for value in (0, 3999, 4000)] == [True, True, False]
    assert len(compiled(rule("read " * 4096))) < 32 * 8


@pytest.mark.parametrize("operator", seccomp.OPERATORS)
def test_instructions_of_a_condition(operator: str) -> None:
    """The bound counts more instructions than libseccomp generates, so libseccomp's own count does
    not wrap around."""
    from pyrunc.spec.rules_linux import PER_CALL, PER_CONDITION

    conditions = [((n * 7919) << 32 | n * 104729 + 1, (n * 31) << 32 | n + 1) for n in range(20)]
    rules = [
        rule("personality", "SCMP_ACT_ALLOW", *((i, operator, one + i, two + i) for i in range(6)))
        for one, two in conditions
    ]
    made = len(compiled(*rules, NEWEST)) // 8
    assert 20 < made < PER_CALL * 21 + PER_CONDITION * 120


def test_profiles_of_all_engines_together_are_small() -> None:
    """Docker's and podman's have 430 and 440 names, 10 conditions and 1455 instructions for three
    architectures."""
    bundle = ROOT / "integration/bundles/podman4.3-readonly.json"
    given = json.loads(bundle.read_text())["linux"]["seccomp"]
    assert problems(given) == []
    copies = 8 if SLOW == 1 else 2  # an emulated processor takes more than 5 s for eight
    repeated: Json = {**given, "syscalls": given["syscalls"] * copies}
    assert problems(repeated) == []
    assert seccomp.compile_filter(repeated) == seccomp.compile_filter(given)


def test_words_that_scripts_look_for() -> None:
    given = profile(rule("write", "SCMP_ACT_NOTIFY"), listenerPath="/run/agent")
    (problem,) = problems(given)
    assert problem.startswith("/linux/seccomp/syscalls/0/names/0: expected a system call other than write")
    assert "SCMP_ACT_NOTIFY cannot be used for the write syscall" in problem
    (problem,) = problems(profile(defaultAction="SCMP_ACT_NOTIFY"))
    assert "SCMP_ACT_NOTIFY cannot be used as default action" in problem


# -- the child's end -------------------------------------------------------------------------------


def children() -> set[int]:
    """The children of all threads of this process."""
    found: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            found |= set(map(int, Path(f"/proc/self/task/{task}/children").read_text().split()))
    return found


@contextlib.contextmanager
def striking(number: int) -> Iterator[None]:
    """Send a signal to the next child that has given up its privileges, as if the work had raised
    it."""
    before, ended = children(), threading.Event()

    def strike() -> None:
        while not ended.wait(0.001):
            for pid in children() - before:
                with contextlib.suppress(OSError):
                    if "\nSeccomp:\t2" in Path(f"/proc/{pid}/status").read_text():
                        os.kill(pid, number)
                        return

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash_is_an_error_and_we_live(number: int, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    before = children()
    with striking(number), pytest.raises(PyruncError) as caught:
        seccomp.compile_filter(slow(), cache_dir=str(cache))
    name = signal.Signals(number).name
    assert str(caught.value) == f"/linux/seccomp: libseccomp crashed while compiling the profile ({name})"
    assert children() == before
    assert list(cache.iterdir()) == []
    assert compiled(rule("getpid"), NEWEST)


def test_too_much_time() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(PyruncError, match=r"^/linux/seccomp: compiling .* takes more than 5 s of processor time; use"):
        seccomp.compile_filter(slow())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 6.5


def killed(number: int) -> Callable[..., int]:
    """A compiler whose child ends with this wait status."""
    return answering(-errno.ECHILD, 5, number)


def answering(value: int, stage: int, index: int = 0, name: int = 0, text: bytes = b"") -> Callable[..., int]:
    """A compiler that gives this answer."""

    def compile(encoded: bytes, length: int, out: bytearray, size: int, report: bytearray) -> int:
        report[:] = struct.pack("3i", stage, index, name)
        out[: len(text)] = text
        if value < 0:
            raise OSError(-value, "seccomp_compile")
        return value

    return compile


def outcome(monkeypatch: pytest.MonkeyPatch, compile: Callable[..., int]) -> BaseException:
    """The result of an answer."""
    monkeypatch.setattr(binding.calls, "seccomp_compile", compile)
    with pytest.raises((PyruncError, OSError)) as caught:
        seccomp.compile_filter(profile(rule("read"), NEWEST, architectures=["SCMP_ARCH_X86"]))
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (signal.SIGKILL, "libseccomp was killed while compiling the profile (SIGKILL)"),
        (signal.SIGABRT, "libseccomp crashed while compiling the profile (SIGABRT)"),
        (signal.SIGSYS, "libseccomp crashed while compiling the profile (SIGSYS)"),
        (signal.SIGXCPU, "takes more than 5 s of processor time"),
        (3 << 8, "compiling the profile ended with status 3"),
        (0, "compiling the profile ended with status 0"),
    ],
)
def test_ends(monkeypatch: pytest.MonkeyPatch, status: int, words: str) -> None:
    error = outcome(monkeypatch, killed(status))
    assert str(error).startswith("/linux/seccomp: ") and words in str(error)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answering(-errno.EBADMSG, 6), "/linux/seccomp: libseccomp gave no valid answer"),
        (answering(-errno.ENOMEM, 3, 0, 0), "/linux/seccomp: compiling the profile takes more memory than it may (256"),
        (answering(-errno.EINVAL, 1), "/linux/seccomp: expected a profile that libseccomp accepts, found EINVAL"),
        (answering(-errno.EDOM, 2, 0), "/linux/seccomp/architectures: expected architectures of this machine's byte"),
        (answering(-errno.EINVAL, 3, 1, 0), '/linux/seccomp/syscalls/1: expected a rule that libseccomp and'),
        # indexes come from the child and are not trusted
        (answering(-errno.EINVAL, 2, 1), "/linux/seccomp: expected a profile that libseccomp accepts"),
        (answering(-errno.EINVAL, 2, -1), "/linux/seccomp: expected a profile that libseccomp accepts"),
        (answering(-errno.EINVAL, 3, 2, 0), "/linux/seccomp: expected a profile that libseccomp accepts"),
        (answering(-errno.EINVAL, 3, -1, 0), "/linux/seccomp: expected a profile that libseccomp accepts"),
        (answering(-errno.EINVAL, 3, 0, 1), "/linux/seccomp: expected a profile that libseccomp accepts"),
        (answering(-errno.EINVAL, 3, 0, -1), "/linux/seccomp: expected a profile that libseccomp accepts"),
        (answering(-errno.E2BIG, 4), "/linux/seccomp: expected a program of at most 4096 instructions"),
        (answering(-errno.EAGAIN, 7, text=b"fork\0"), "/linux/seccomp (compiling the profile): fork: EAGAIN"),
        (answering(-errno.ETIMEDOUT, 5), "/linux/seccomp: compiling the profile did not end in time"),
    ],
)  # fmt: skip
def test_answers(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., int], words: str) -> None:
    assert words in str(outcome(monkeypatch, answer))


def test_an_interruption_is_not_an_error_of_the_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(outcome(monkeypatch, answering(-errno.EINTR, 5)), InterruptedError)


def test_no_descriptor_for_the_pipe() -> None:
    """The error names a failing call of the parent, and nothing is left."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 1, before[1]))
    try:
        with pytest.raises(SysError, match=r"^/linux/seccomp \(compiling the profile\): pipe2: EMFILE"):
            seccomp.compile_filter(profile(rule("read"), NEWEST))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert compiled(rule("read"), NEWEST)


# -- the description -------------------------------------------------------------------------------


def encoded(**changed: Any) -> bytes:
    parts = {"args": struct.pack("IIQQ", 0, 4, 1, 0), "rules": struct.pack("IIII", 0x7FFF0000, 2, 1, 0),
             "archs": b"", "names": b"read\0getpid\0"} | changed  # fmt: skip
    sizes = [len(parts[name]) for name in ("args", "rules", "archs", "names")]
    head = struct.pack("8I", 2, 0, 0x50001, 1, *changed.get("sizes", sizes))
    return head + b"".join(parts[name] for name in ("args", "rules", "archs", "names"))


def compile_directly(data: bytes) -> tuple[int, list[int]]:
    try:
        return len(libseccomp.compile(data, seccomp.PROGRAM_MAX)), [0, 0, 0]
    except libseccomp.Failure as error:
        return -(error.errno or 0), [error.stage, error.index, error.name]


def test_a_description_that_is_right() -> None:
    size, report = compile_directly(encoded())
    assert size > 0 and size % 8 == 0 and report == [0, 0, 0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        encoded()[:31],
        encoded()[:-1],
        encoded() + b"\0",
        encoded(names=b"read\0"),
        encoded(names=b"read\0getpid\0x\0"),
        encoded(names=b"readgetpidxx"),
        encoded(args=b""),
        encoded(args=bytes(23)),
        encoded(rules=bytes(15)),
        encoded(archs=bytes(3)),
        encoded(sizes=[24, 16, 0, 0xFFFFFFFF]),
        encoded(sizes=[0xFFFFFFF0, 16, 40, 12]),
        encoded(rules=struct.pack("IIII", 0x7FFF0000, 0xFFFFFFFF, 1, 0)),
        encoded(rules=struct.pack("IIII", 0x7FFF0000, 2, 0xFFFFFFFF, 0)),
    ],
)
def test_a_description_that_is_wrong(data: bytes) -> None:
    assert compile_directly(data) == (-errno.EINVAL, [1, 0, 0])


# -- what needs no child ---------------------------------------------------------------------------


def test_usable_architectures() -> None:
    """The flags that `features` lists: those with which a filter can be created."""
    usable = seccomp.usable_architectures()
    assert len(usable) > 5
    for name in SECCOMP_ARCHES:
        if name in usable:
            assert compiled(rule("getpid"), architectures=[name])
        else:
            with pytest.raises(ConfigError, match="/linux/seccomp/architectures"):
                compiled(rule("getpid"), architectures=[name])


def test_no_memory_is_not_an_architecture_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def usable(token: int) -> int:
        raise OSError(errno.ENOMEM, "seccomp_arch_usable")

    monkeypatch.setattr(binding.calls, "seccomp_arch_usable", usable)
    with pytest.raises(MemoryError):
        seccomp.usable_architectures()


# -- the cache -------------------------------------------------------------------------------------


def test_umask_of_the_first_caller(tmp_path: Path) -> None:
    """A cache that its first user damaged would stay unusable until the next boot."""
    cache = tmp_path / "cache"
    before = os.umask(0o277)
    try:
        seccomp.compile_filter(profile(NEWEST), cache_dir=str(cache))
    finally:
        os.umask(before)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    assert len(list(cache.iterdir())) == 1


def test_a_plain_interpreter_without_stdio(tmp_path: Path) -> None:
    """The pipe may get the descriptors of stdio."""
    script = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from pyrunc import seccomp; "
        "[os.close(fd) for fd in range(3)]; "
        "program = seccomp.compile_filter({'defaultAction': 'SCMP_ACT_ALLOW'})[0]; "
        "os._exit(0 if program else 1)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(ROOT)], check=False, timeout=60)
    assert done.returncode == 0
