"""pyrunc/seccomp.py and native/shim/seccomp.c: programs are run in an emulator, one also in the
kernel."""

from __future__ import annotations

import errno
import json
import platform
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import seccomp
from pyrunc.errors import ConfigError
from seccomp_support import (
    AARCH64,
    ALLOW,
    ARM,
    BUNDLES,
    ENOSYS,
    EPERM,
    ERRNO,
    I386,
    KILL,
    KILL_PROCESS,
    LOG,
    NATIVE,
    NEWEST,
    NOTIFY,
    NR,
    NUMBERS,
    TRACE,
    TRAP,
    X32,
    X86_64,
    compiled,
    profile,
    rule,
    run,
)
from work import SLOW

# -- actions and operators -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "number", "value"),
    [
        ("SCMP_ACT_KILL", None, KILL),
        ("SCMP_ACT_KILL_THREAD", None, KILL),
        ("SCMP_ACT_KILL_PROCESS", None, KILL_PROCESS),
        ("SCMP_ACT_TRAP", None, TRAP),
        ("SCMP_ACT_ERRNO", None, EPERM),
        ("SCMP_ACT_ERRNO", 0, ERRNO),
        ("SCMP_ACT_ERRNO", 95, ERRNO | 95),
        ("SCMP_ACT_TRACE", None, TRACE | 1),
        ("SCMP_ACT_TRACE", 1234, TRACE | 1234),
        ("SCMP_ACT_ALLOW", None, ALLOW),
        ("SCMP_ACT_LOG", None, LOG),
        ("SCMP_ACT_NOTIFY", None, NOTIFY),
    ],
)
def test_actions(action: str, number: int | None, value: int) -> None:
    extra = {} if number is None else {"errnoRet": number}
    program = compiled(rule("getpid", action, **extra), NEWEST, defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=7)
    assert run(program, NR["getpid"]) == value
    assert run(program, NR["read"]) == ERRNO | 7
    if action != "SCMP_ACT_NOTIFY":
        default = {} if number is None else {"defaultErrnoRet": number}
        other = "SCMP_ACT_LOG" if value == ALLOW else "SCMP_ACT_ALLOW"
        program = compiled(rule("openat2", other), defaultAction=action, **default)
        assert run(program, NR["getpid"]) == value
        assert run(program, NR["openat2"]) == (LOG if value == ALLOW else ALLOW)


BIG = 0x1_0000_0005  # both halves of an argument count
OPERATORS = [
    ("SCMP_CMP_NE", lambda a: a != BIG),
    ("SCMP_CMP_LT", lambda a: a < BIG),
    ("SCMP_CMP_LE", lambda a: a <= BIG),
    ("SCMP_CMP_EQ", lambda a: a == BIG),
    ("SCMP_CMP_GE", lambda a: a >= BIG),
    ("SCMP_CMP_GT", lambda a: a > BIG),
]
VALUES = [0, 4, 5, 6, BIG - 1, BIG, BIG + 1, 0x2_0000_0000, 0x2_0000_0005, 2**63, 2**64 - 1]


@pytest.mark.parametrize(("operator", "expected"), OPERATORS, ids=[o for o, _ in OPERATORS])
@pytest.mark.parametrize("index", range(6))
def test_operators(operator: str, expected: Any, index: int) -> None:
    program = compiled(rule("personality", "SCMP_ACT_ALLOW", (index, operator, BIG)), NEWEST)
    for value in VALUES:
        args = [0] * 6
        args[index] = value
        assert run(program, NR["personality"], *args) == (ALLOW if expected(value) else EPERM), hex(value)


def test_masked_equal() -> None:
    mask, wanted = 0xF0_0000_00FF, 0x10_0000_0004
    program = compiled(rule("personality", "SCMP_ACT_ALLOW", (1, "SCMP_CMP_MASKED_EQ", mask, wanted)), NEWEST)
    for value, good in [(wanted, True), (wanted | 0xF00, True), (wanted | 1, False), (4, False), (2**64 - 1, False)]:
        assert run(program, NR["personality"], 0, value) == (ALLOW if good else EPERM)


def test_masked_equal_without_a_second_value_compares_with_0() -> None:
    # docker's rule for clone: no namespace flag
    program = compiled(rule("personality", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_MASKED_EQ", 2114060288)), NEWEST)
    assert run(program, NR["personality"], 0x11) == ALLOW
    assert run(program, NR["personality"], 0x10000000) == EPERM


def test_conditions_on_different_arguments_are_all_needed() -> None:
    conditions = (0, "SCMP_CMP_EQ", 1), (2, "SCMP_CMP_GT", 10)
    program = compiled(rule("personality", "SCMP_ACT_ALLOW", *conditions), NEWEST)
    assert run(program, NR["personality"], 1, 0, 11) == ALLOW
    assert run(program, NR["personality"], 1, 0, 10) == EPERM
    assert run(program, NR["personality"], 0, 0, 11) == EPERM


def test_conditions_on_one_argument_are_alternatives() -> None:
    conditions = (0, "SCMP_CMP_EQ", 1), (0, "SCMP_CMP_EQ", 8), (1, "SCMP_CMP_EQ", 5)
    program = compiled(rule("personality", "SCMP_ACT_ALLOW", *conditions), NEWEST)
    for args, good in [((1,), True), ((8,), True), ((0, 5), True), ((2, 4), False)]:
        assert run(program, NR["personality"], *args) == (ALLOW if good else EPERM)


def test_several_rules_for_one_call() -> None:
    allowed = [rule("personality", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_EQ", value)) for value in (0, 8, 0xFFFFFFFF)]
    program = compiled(*allowed, NEWEST)
    assert [run(program, NR["personality"], v) for v in (0, 8, 0xFFFFFFFF, 1)] == [ALLOW, ALLOW, ALLOW, EPERM]


def test_rules_that_come_twice_and_rules_like_the_default() -> None:
    program = compiled(
        rule("getpid getpid"),
        rule("getpid"),
        rule("read", "SCMP_ACT_ERRNO"),
        rule("write", "SCMP_ACT_ERRNO", errnoRet=5),
        NEWEST,
    )
    assert run(program, NR["getpid"]) == ALLOW
    assert run(program, NR["read"]) == EPERM
    assert run(program, NR["write"]) == ERRNO | 5


def test_unknown_names_are_skipped() -> None:
    program = compiled(rule("no_such_call getpid other_call"), rule("nothing_here"), NEWEST)
    assert run(program, NR["getpid"]) == ALLOW
    assert run(program, NR["read"]) == EPERM


def test_conditions_belong_to_their_own_rule() -> None:
    """The lists of names and conditions are walked side by side; a skipped rule must not shift
    them."""
    program = compiled(
        rule("no_such_call", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_EQ", 1)),
        rule("read", "SCMP_ACT_ERRNO", (0, "SCMP_CMP_EQ", 2)),
        rule("getpid"),
        rule("personality", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_EQ", 3)),
        NEWEST,
    )
    assert run(program, NR["getpid"], 9) == ALLOW
    assert [run(program, NR["personality"], v) for v in (1, 2, 3)] == [EPERM, EPERM, ALLOW]
    assert run(program, NR["read"], 2) == EPERM


def test_without_syscalls() -> None:
    fields: Json
    for fields in ({}, {"syscalls": []}):
        program = seccomp.compile_filter(fields | {"defaultAction": "SCMP_ACT_ALLOW"})[0]
        assert run(program, 0) == run(program, 5000) == ALLOW
        program = seccomp.compile_filter(fields | {"defaultAction": "SCMP_ACT_KILL_PROCESS"})[0]
        assert run(program, 0) == run(program, 5000) == KILL_PROCESS


ACTIONS = ["SCMP_ACT_ALLOW", "SCMP_ACT_TRAP", "SCMP_ACT_LOG", "SCMP_ACT_KILL_PROCESS"]
SMALL = st.sampled_from([0, 1, 2, 0xFFFFFFFF, 0x1_0000_0000, 0x1_0000_0001, 2**64 - 1])
CONDITION = st.tuples(st.sampled_from([o for o in seccomp.OPERATORS if o != "SCMP_CMP_MASKED_EQ"]), SMALL)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.dictionaries(
        st.sampled_from(["read", "write", "getpid", "personality"]),
        st.tuples(st.sampled_from(ACTIONS), st.dictionaries(st.integers(0, 5), CONDITION, max_size=3)),
    ),
    st.lists(st.tuples(SMALL, SMALL, SMALL, SMALL, SMALL, SMALL), min_size=1, max_size=6),
)
def test_against_a_model(rules: dict[str, Any], calls: list[tuple[int, ...]]) -> None:
    compare = {
        "SCMP_CMP_NE": int.__ne__,
        "SCMP_CMP_LT": int.__lt__,
        "SCMP_CMP_LE": int.__le__,
        "SCMP_CMP_EQ": int.__eq__,
        "SCMP_CMP_GE": int.__ge__,
        "SCMP_CMP_GT": int.__gt__,
    }
    syscalls = [
        rule(name, action, *((index, *condition) for index, condition in conditions.items()))
        for name, (action, conditions) in rules.items()
    ]
    program = compiled(*syscalls, NEWEST)
    for name in ("read", "write", "getpid", "personality"):
        action, conditions = rules.get(name, ("SCMP_ACT_ERRNO", {}))
        for args in calls:
            matches = all(compare[op](args[index], value) for index, (op, value) in conditions.items())
            expected = seccomp.ACTIONS[action] if matches else EPERM
            assert run(program, NR[name], *args) == (EPERM if name not in rules else expected)


# -- architectures ---------------------------------------------------------------------------------


def test_the_native_architecture_is_always_there_and_others_are_not() -> None:
    program = compiled(rule("getpid"), NEWEST)
    assert run(program, NR["getpid"]) == ALLOW
    other = AARCH64 if NATIVE == X86_64 else X86_64
    for arch in (other, I386, ARM):
        assert run(program, NUMBERS[arch]["getpid"], arch=arch) == KILL
    if NATIVE == X86_64:
        assert run(program, X32 | NR["getpid"]) == KILL


@pytest.mark.parametrize("again", [[], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"]])
def test_listed_architectures(again: list[str]) -> None:
    arches = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM", *again]
    program = compiled(rule("getpid openat2 socketcall set_tls"), architectures=arches)
    for arch, numbers in NUMBERS.items():
        assert run(program, numbers["getpid"], arch=arch) == ALLOW
        assert run(program, numbers["read"], arch=arch) == EPERM
    assert run(program, X32 | 39, arch=X86_64) == ALLOW
    assert run(program, X32 | 1, arch=X86_64) == EPERM
    assert run(program, NUMBERS[I386]["socketcall"], arch=I386) == ALLOW
    assert run(program, NUMBERS[ARM]["set_tls"], arch=ARM) == ALLOW
    assert run(program, 39, arch=0x8) == KILL  # AUDIT_ARCH_MIPS


def test_every_architecture_of_the_specification_has_an_answer() -> None:
    from pyrunc.spec.schema import SECCOMP_ARCHES

    for name in SECCOMP_ARCHES:
        try:
            compiled(rule("getpid"), architectures=[name])
        except ConfigError as error:
            assert "/linux/seccomp/architectures" in str(error)


def test_an_unknown_architecture() -> None:
    with pytest.raises(
        ConfigError, match=r"/linux/seccomp/architectures/1: expected an architecture of libseccomp 2\."
    ):
        compiled(rule("getpid"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_VAX"])


def test_an_architecture_of_the_other_byte_order() -> None:
    with pytest.raises(
        ConfigError, match="/linux/seccomp/architectures: expected architectures of this machine's byte"
    ):
        compiled(rule("getpid"), architectures=["SCMP_ARCH_S390X"])


# -- ENOSYS for newer system calls -----------------------------------------------------------------


@pytest.mark.parametrize("action", ["SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"])
def test_newer_calls_do_not_exist(action: str) -> None:
    default = EPERM if action == "SCMP_ACT_ERRNO" else seccomp.ACTIONS[action]
    program = compiled(rule("getpid"), rule("openat2", "SCMP_ACT_LOG"), defaultAction=action)
    last = NR["openat2"]
    assert run(program, last) == LOG
    assert run(program, last - 1) == default
    assert run(program, last + 1) == ENOSYS
    assert run(program, 0x3FFFFFFF) == ENOSYS


@pytest.mark.parametrize("action", ["SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE"])
def test_permissive_defaults_are_for_newer_calls_as_well(action: str) -> None:
    program = compiled(rule("getpid", "SCMP_ACT_KILL"), defaultAction=action)
    default = TRACE | 1 if action == "SCMP_ACT_TRACE" else seccomp.ACTIONS[action]
    assert run(program, NR["openat2"]) == run(program, 5000) == default


def test_a_default_of_enosys_needs_no_check() -> None:
    program = compiled(rule("getpid"), defaultErrnoRet=errno.ENOSYS)
    assert run(program, 5000) == ENOSYS
    assert len(program) < len(compiled(rule("getpid"), defaultErrnoRet=5))


def test_calls_that_the_profile_denies_are_also_known() -> None:
    program = compiled(rule("getpid"), rule("openat2", "SCMP_ACT_ERRNO"))
    assert run(program, NR["openat2"]) == EPERM
    assert run(program, NR["openat2"] + 1) == ENOSYS


def test_names_that_nobody_knows_do_not_count() -> None:
    program = compiled(rule("getpid"), rule("call_of_the_future"))
    assert run(program, NR["getpid"] + 1) == ENOSYS


def test_the_lowest_number_counts() -> None:
    program = compiled(rule("read"), architectures=["SCMP_ARCH_X86_64"])
    assert run(program, 0, arch=X86_64) == ALLOW  # read is number 0 there
    assert run(program, 1, arch=X86_64) == ENOSYS


def test_each_architecture_has_its_own_newest_call() -> None:
    arches = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    program = compiled(rule("getpid set_tls"), architectures=arches)
    for arch, numbers in NUMBERS.items():
        last = numbers["getpid"]
        assert run(program, last, arch=arch) == ALLOW
        assert run(program, last - 1, arch=arch) == EPERM
        # ARM's private calls are out of the sequence.
        assert run(program, last + 1, arch=arch) == ENOSYS
    assert run(program, 0xF0005, arch=ARM) == ALLOW
    assert run(program, 0xF0004, arch=ARM) == EPERM
    assert run(program, X32 | 39, arch=X86_64) == ALLOW
    assert run(program, X32 | 40, arch=X86_64) == ENOSYS
    # x32's close is 0x40000003, which is also the AUDIT_ARCH of i386, whose newest call here is 20.
    assert run(program, X32 | 3, arch=X86_64) == EPERM
    assert run(program, 5000, arch=0x8) == KILL


def test_x32_calls_without_x32_in_the_profile() -> None:
    program = compiled(rule("getpid"), architectures=["SCMP_ARCH_X86_64"])
    assert run(program, X32 | 39, arch=X86_64) == KILL
    assert run(program, X32 | 5000, arch=X86_64) == KILL


# -- flags, limits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        (None, 4),
        ([], 0),
        (["SECCOMP_FILTER_FLAG_TSYNC"], 0),
        (["SECCOMP_FILTER_FLAG_LOG"], 2),
        (["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_LOG"], 6),
        (["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], 0),  # EINVAL without a listener
    ],
)
def test_flags(flags: list[str] | None, value: int) -> None:
    fields = {} if flags is None else {"flags": flags}
    assert seccomp.compile_filter(profile(rule("getpid"), **fields))[1:] == (value, False)


def test_listener() -> None:
    flags = ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    assert seccomp.compile_filter(profile(rule("getpid", "SCMP_ACT_NOTIFY"), flags=flags))[1:] == (32, True)


@pytest.mark.skipif(SLOW > 1, reason="an emulated processor takes more than the 5 s that a compiler may take")
def test_too_long_a_program() -> None:
    rules = [rule("personality", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_EQ", v), (1, "SCMP_CMP_EQ", v)) for v in range(2000)]
    with pytest.raises(ConfigError, match="/linux/seccomp: expected a program of at most 4096 instructions"):
        compiled(*rules)


def test_long_profiles_are_searched_as_a_tree() -> None:
    """The program runs on every system call of the container."""
    names = "getpid personality " + BASIC
    steps: list[int] = []
    program = compiled(rule(names), architectures=[])
    for nr in range(450):
        run(program, nr, steps=steps)
    assert len(BASIC.split()) > 40
    assert max(steps) < 35


BASIC = """
    accept bind brk capget capset chdir chroot clock_getres clock_gettime close connect dup exit execve faccessat
    fchdir fchmod fchown fcntl fsync futex getcwd getgid getitimer getpgid getppid getsid gettid getuid ioctl kill
    listen lseek madvise mincore mlock mmap mount mprotect mremap msync munlock munmap nanosleep openat pipe2 prctl
    pread64 ptrace pwrite64 read readv write writev
"""


def test_a_rule_that_libseccomp_does_not_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(seccomp.OPERATORS, "SCMP_CMP_EQ", 99)
    with pytest.raises(ConfigError) as caught:
        compiled(NEWEST, rule("read getpid", "SCMP_ACT_ALLOW", (0, "SCMP_CMP_EQ", 1)))
    assert "/linux/seccomp/syscalls/1: expected a rule that libseccomp and this kernel accept" in str(caught.value)
    assert 'EINVAL: invalid argument for "read"' in str(caught.value)


@pytest.mark.parametrize(
    "name", sorted(name for name in BUNDLES if name.startswith(("docker", "podman", "containerd")))
)
def test_profiles_of_engines(name: str) -> None:
    found = json.loads(BUNDLES[name].read_text())["linux"].get("seccomp")
    if found is None:
        return
    program, flags, listener = seccomp.compile_filter(found)
    assert (flags, listener) == (4, False)
    assert len(program) <= 4096 * 8
    assert run(program, NR["read"]) == run(program, NR["write"]) == ALLOW
    if found["defaultAction"] == "SCMP_ACT_ERRNO":
        assert [run(program, NR["personality"], v) for v in (0, 8, 3)] == [
            ALLOW,
            ALLOW,
            ERRNO | found.get("defaultErrnoRet", 1),
        ]
        assert run(program, 5000) == ENOSYS


CHILD = """
import ctypes, os, struct, sys
program = sys.stdin.buffer.read()
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
class Fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
fprog = Fprog(len(program) // 8, program)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(fprog), 0, 0):
    os._exit(99)
out = []
for nr, arg in ((39 if sys.argv[1] == "x86_64" else 172, 0), (int(sys.argv[2]), 3), (600, 0)):
    ctypes.set_errno(0)
    libc.syscall(ctypes.c_long(nr), ctypes.c_long(arg))
    out.append(ctypes.get_errno())
os.write(1, repr(out).encode())
os._exit(0)
"""


def test_the_kernel_takes_the_program() -> None:
    denied = compiled(
        rule("personality", "SCMP_ACT_ERRNO", (0, "SCMP_CMP_EQ", 3), errnoRet=77),
        defaultAction="SCMP_ACT_ALLOW",
    )
    names = "read write getpid exit_group openat2 futex_waitv brk mmap munmap rt_sigaction close clone3 personality"
    strict = compiled(rule(names), rule("no_such"), defaultErrnoRet=55)
    for program, expected in ((denied, [0, 77, errno.ENOSYS]), (strict, [0, None, errno.ENOSYS])):
        command = [sys.executable, "-I", "-c", CHILD, platform.machine(), str(NR["personality"])]
        done = subprocess.run(command, input=program, capture_output=True, timeout=30, check=False)
        assert done.returncode == 0, done
        found = json.loads(done.stdout)
        assert [a for a, b in zip(found, expected, strict=True) if b is not None] == [
            b for b in expected if b is not None
        ]
