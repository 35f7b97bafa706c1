"""`seccomp check` with the texts of its findings, on profiles whose result does not depend on the version
of libseccomp or on the machine. golden/seccomp_check_tables.txt has the tables.
"""

from __future__ import annotations

import platform
import posix
import struct
from typing import Any

import pytest

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc import build
from pyrunc.errors import UsageError
from pyrunc.seccomp_tools import calls, check, outcomes, profile
from pyrunc.seccomp_tools.bpf import Program

ALLOW, ERRNO, KILL, LOG = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_LOG"
ONE = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}
WIDE = {"index": 1, "value": 1 << 33, "op": "SCMP_CMP_GE"}


def rule(*names: str, action: str = ERRNO, **more: Any) -> dict[str, Any]:
    """A rule of a profile."""
    return {"names": list(names), "action": action, **more}


def made(rules: list[dict[str, Any]], default: str = ALLOW, **more: Any) -> profile.Filter:
    """A profile for this machine's architecture."""
    document: Json = {"defaultAction": default, "syscalls": rules, **more}
    return profile.Filter(document, "/linux/seccomp", "p.json")


PROFILES: dict[str, Any] = {
    "nothing": ([], {}),
    "fields of engines": ([rule("mount", includes={"caps": ["A"]}, excludes={"caps": ["B"]}, minKernel="4.8"),
                           rule("chroot", includes={}, excludes={}, minKernel="")],
                          {"archMap": [], "defaultErrno": "E"}),
    "names that are repeated": ([
        rule("mount", "chroot", "mount"), rule("mount"), rule("chroot", "mount", action=KILL), rule("chroot"),
        rule("mount", action=KILL), rule("umount2", args=[ONE]), rule("umount2", args=[ONE]), rule("umount2"),
        rule("acct", "acct", args=[ONE]),
    ], {}),
    "the default action": ([rule("mount", action=ALLOW), rule("mount", action=ALLOW, args=[ONE])], {}),
    "rules that others override": ([
        rule("mount", "chroot", "acct", args=[ONE]), rule("mount", "chroot", action=KILL), rule("acct", action=LOG),
    ], {}),
    "conditions": ([
        rule("mount", args=[ONE | {"op": f"SCMP_CMP_{op}", "value": value, "valueTwo": second}])
        for op, value, second in (
            ("GE", 0, 0), ("LT", 0, 0), ("GT", (1 << 64) - 1, 0), ("LE", (1 << 64) - 1, 0), ("EQ", 5, 9), ("NE", 5, 9),
            ("MASKED_EQ", 12, 4), ("MASKED_EQ", 12, 3), ("MASKED_EQ", 0, 0),
        )
    ] + [rule("chroot", args=[ONE, ONE | {"value": 2}]), rule("acct", args=[ONE, WIDE])], {}),
    "other architectures": ([rule("spu_run"), rule("mount", "spu_run"), rule("socketcall", "mount")], {}),
    "32 bits": ([
        rule("socket", "shmat", "mount", args=[ONE]), rule("mount", args=[WIDE]), rule("chroot", "socket"),
        rule("acct", args=[ONE | {"op": "SCMP_CMP_LE", "value": (1 << 32) - 1}]), rule("msgget", args=[ONE]),
    ], {"architectures": ["SCMP_ARCH_X86"]}),
    "a call with the number 0": ([rule("read")], {}),
    "what glibc needs": ([rule("read", "openat", "open"), rule("rseq", action=KILL), rule("brk")], {}),
    "what a program needs": ([rule("execve"), rule("exit_group", action=KILL), rule("brk", action="SCMP_ACT_TRAP")],
                             {}),
    "what a program needs, by default": ([rule("execve", action="SCMP_ACT_NOTIFY")], {"default": ERRNO}),
    "killed by default": ([rule("execve", "read", action=ALLOW)], {"default": KILL}),
}  # fmt: skip


@pytest.mark.skipif(platform.machine() != "x86_64", reason="start-up needs other calls elsewhere")
@pytest.mark.parametrize("name", PROFILES)
def test_findings(name: str) -> None:
    rules, more = PROFILES[name]
    lines = [
        f"{libc}: {one}"
        for libc in ("none", "musl", "glibc")
        for one in check.findings(made(rules, **more), libc)
        if libc == "none" or one.code == "start-up"
    ]
    transcript.compare("seccomp_check_tables", name, lines)


def test_there_is_a_limit_of_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = check._Rules.rule

    def counted(self: check._Rules, index: int) -> list[check.Finding]:
        asked.append(index)
        return real(self, index)

    monkeypatch.setattr(check, "MOST", 5)
    monkeypatch.setattr(check._Rules, "rule", counted)
    several = made([rule("acct") for _ in range(9)])
    assert [str(one) for one in check.findings(several, "none")] == [
        f"note: /linux/seccomp/syscalls/{number}: this rule or an earlier one already has: acct [repeated]"
        for number in range(1, 6)
    ]
    assert asked == [0, 1, 2, 3, 4, 5]
    fields = made([rule("acct", includes={"caps": ["A"]}) for _ in range(5)])
    assert {one.code for one in check.findings(fields, "none")} == {"engine-field"} and len(asked) == 6
    monkeypatch.setattr(check, "MOST", 3)
    always = ONE | {"op": "SCMP_CMP_GE", "value": 0}
    found = check.findings(made([rule("acct"), *(rule("acct", args=[always]) for _ in range(3))]), "none")
    assert [one.code for one in found] == ["dead-condition", "repeated", "dead-condition"], "each rule has two"


@pytest.mark.parametrize(
    ("answer", "libc"),
    [("glibc 2.36", "glibc"), ("", "musl"), (None, "musl"), ("musl 1.2", "musl"), (OSError(22, "x"), "musl"),
     (ValueError("x"), "musl")],
)  # fmt: skip
def test_the_c_library_of_the_host(monkeypatch: pytest.MonkeyPatch, answer: Any, libc: str) -> None:
    def confstr(name: str) -> Any:
        assert name == "CS_GNU_LIBC_VERSION"
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(posix, "confstr", confstr)
    assert check.own_libc() == libc
    used = check.findings(made([], default=KILL))
    assert {one.text.split(" needs ")[0] for one in used} == {f"{libc}'s start-up"}


def test_a_c_library_that_is_not_known() -> None:
    with pytest.raises(UsageError) as raised:
        check.findings(made([]), "dietlibc")
    assert str(raised.value) == '--libc "dietlibc": expected glibc, musl or none'


def test_names_that_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "libseccomp", lambda: "9.9.9")
    filter = made([rule("mount")])
    filter.rules[0]["names"] = ["mount", "sokcet", "mseal", "no_such_call_at_all"]
    monkeypatch.setattr(calls.Arch, "number", lambda self, name: calls.UNKNOWN if name != "mount" else 165)
    found = [str(one) for one in check._Rules(filter).names(0)]
    transcript.compare("seccomp_check_tables", "names that are not known", found)


def test_other_names_do_not_belong_to_another_architecture() -> None:
    (found,) = check.findings(made([rule("no_such_call_at_all")]), "none")
    assert found.code == "unknown-name"
    assert found.as_json() == {
        "level": "problem", "code": "unknown-name", "pointer": "/linux/seccomp/syscalls/0/names/0", "text": found.text,
    }  # fmt: skip


def test_start_up_calls_that_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(check.START_UP, "none", ((("ipc", "socketcall"), True),))
    assert check.findings(made([], default=KILL), "none") == []


def test_some_names() -> None:
    many = [f"call{number}" for number in range(20)]
    lines = [check.some(many[:count]) for count in (1, 2, 8, 9, 20)] + [check.some(["a b", 'c"', "1x"])]
    transcript.compare("seccomp_check_tables", "some", lines)


def test_when_a_condition_is_true() -> None:
    lines = []
    for op in ("NE", "LT", "LE", "EQ", "GE", "GT"):
        for value in (0, 1, (1 << 32) - 1, 1 << 32, (1 << 64) - 1):
            condition: Any = {"index": 0, "value": value, "op": f"SCMP_CMP_{op}"}
            lines.append(f"{op} {value:#x}: {check.truth(condition, 32)} {check.truth(condition, 64)}")
    for mask, value in ((0, 0), (0, 1), (1, 1), (1, 2), (3, 4), (1 << 32, 0), (1 << 32, 1 << 32)):
        condition = {"index": 0, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
        lines.append(f"& {mask:#x} == {value:#x}: {check.truth(condition, 32)} {check.truth(condition, 64)}")
    transcript.compare("seccomp_check_tables", "truth", lines)


def program(*steps: tuple[int, int, int, int]) -> Program:
    """A filter of these instructions."""
    return Program(b"".join(struct.pack("HBBI", *step) for step in steps))


LOAD, RETURN = 0x20, 0x06


@pytest.mark.parametrize(
    ("code", "k", "when"),
    [(0x15, 5, [5]), (0x35, 5, [5, 6, 7]), (0x25, 5, [6, 7]), (0x45, 5, [1, 3, 4, 5, 6, 7])],
)
def test_jumps_of_a_filter(code: int, k: int, when: list[int]) -> None:
    """As in the kernel, Documentation/networking/filter.rst."""
    one = program((LOAD, 0, 0, 4), (code, 1, 0, k), (RETURN, 0, 0, 100), (RETURN, 0, 0, 200))
    assert [value for value in range(8) if one.answer(struct.pack("II", 77, value)) == 200] == when


def test_the_other_instructions_of_a_filter() -> None:
    """The accumulator is 0 at the beginning, as in the kernel."""
    assert program((0x15, 0, 1, 0), (RETURN, 0, 0, 1), (RETURN, 0, 0, 2)).answer(bytes(64)) == 1
    masked = program((LOAD, 0, 0, 0), (0x54, 0, 0, 0xF0), (0x15, 0, 1, 0x30), (RETURN, 0, 0, 1), (RETURN, 0, 0, 2))
    assert [masked.answer(struct.pack("I", value)) for value in (0x35, 0x3F, 0x30, 0x45)] == [1, 1, 1, 2]
    jump = program((0x05, 0, 0, 1), (RETURN, 0, 0, 1), (RETURN, 0, 0, 2))
    assert jump.answer(bytes(64)) == 2


# -- calls by name and number ----------------------------------------------------------------------


def test_the_table_of_each_architecture() -> None:
    wanted = ["read", "openat2", "clone3"]
    found = {arch: arch.table() for arch in calls.all_arches().values()}
    assert {
        arch.name for arch, table in found.items() if [table[arch.number(name)] for name in wanted] != wanted
    } == set()
    assert {arch.name for arch, table in found.items() if not all(table.values())} == set()
    assert {arch.name for arch, table in found.items() if min(table) < arch.number("read") // 1000 * 1000} == set()


def test_the_number_of_names_in_memory_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "_LAST", 2)
    one = calls.native()
    assert [one.name_of(number) for number in range(100_000, 100_020)] == [""] * 20
    assert len(one._names) == 8


def test_only_x86_64_has_x32() -> None:
    known = calls.all_arches().values()
    found = [calls.arch_of(known, audit, calls.X32_BIT) for audit in (0xC000003E, 0x40000003)]
    assert [arch and arch.name for arch in found] == ["SCMP_ARCH_X32", "SCMP_ARCH_X86"]


WIDE_RULE = rule("kcmp", args=[ONE | {"index": index, "op": "SCMP_CMP_GT"} for index in range(6)])


@pytest.mark.parametrize(
    ("rules", "most", "limit"),
    [([WIDE_RULE, *[rule("kcmp", args=[ONE])] * more], most, limit)
     for more, most, limit in ((0, 1, 2), (0, 9, 9), (0, 4096, 64), (1, 1, 2), (1, 9, 4), (1, 4096, 64))],
)  # fmt: skip
def test_the_number_of_evaluations_is_limited(
    monkeypatch: pytest.MonkeyPatch, rules: list[dict[str, Any]], most: int, limit: int
) -> None:
    """Rules that cover all arguments, so that no evaluation ends the search."""
    asked: list[object] = []

    def met(rule: object, args: object) -> bool:
        asked.append(args)
        return True

    filter = made(rules)
    monkeypatch.setattr(outcomes, "_OF_A_CALL", most)
    monkeypatch.setattr(profile, "met", met)
    call = outcomes.Call(filter, filter.native, filter.native.number("kcmp"))
    assert call.other() is None and len(asked) == len(list(call.meeting(0))) == limit


def test_a_rule_that_overrides_all_rules_with_conditions() -> None:
    either = [ONE, ONE | {"op": "SCMP_CMP_NE"}]  # together they cover every argument
    filter = made([rule("kcmp", args=either), rule("kcmp", action=KILL)])
    found = outcomes.outcomes(filter, filter.native, filter.native.number("kcmp"))
    assert [(one.verdict.pointer, one.when) for one in found] == [("/linux/seccomp/syscalls/1", "")]
