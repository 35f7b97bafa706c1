"""pyrunc/seccomp_tools: the output of `seccomp explain` and `seccomp check` for a profile."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import struct
import time
from pathlib import Path
from typing import Any

import pytest

from json_type import Json

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc import cli
from pyrunc.errors import ConfigError, PyruncError, UsageError
from pyrunc.native import libseccomp
from pyrunc.seccomp_tools import calls, check, decode, explain, profile
from pyrunc.seccomp_tools.bpf import Program
from pyrunc.seccomp_tools.outcomes import outcomes
from seccomp_support import BUNDLES, run

# Their transcripts have the architectures and the system calls that libseccomp 2.5 knows.
NAMED = (
    *("test_every_architecture_of_libseccomp_has_calls", "test_x32_and_x86_are_distinguished"),
    *("test_each_architecture", "test_findings"),
)
kept = transcript.follow(
    "pyrunc.seccomp_tools.calls",
    "pyrunc.seccomp_tools.check",
    "pyrunc.seccomp_tools.decode",
    "pyrunc.seccomp_tools.explain",
    "pyrunc.seccomp_tools.outcomes",
    "pyrunc.seccomp_tools.profile",
    "pyrunc.seccomp_tools.commands",
    leave=("test_arguments_in_words", *(NAMED if libseccomp.version() >= 2 << 16 | 6 << 8 else ())),
)

ALLOW, ERRNO, KILL = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL"
X86 = platform.machine() == "x86_64"
NATIVE = "SCMP_ARCH_X86_64" if X86 else "SCMP_ARCH_AARCH64"
ON_X86 = pytest.mark.skipif(not X86, reason="about the architectures of x86")
STARTS = [name for names, _ in check.START_UP["glibc"] for name in names]


def rule(*names: str, action: str = ERRNO, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": action, **more}


def arg(index: int, value: int, op: str = "EQ", **more: Any) -> dict[str, Any]:
    return {"index": index, "value": value, "op": f"SCMP_CMP_{op}", **more}


def made(*rules: dict[str, Any], default: str = ALLOW, **more: Any) -> profile.Filter:
    document: Json = {"defaultAction": default, "architectures": [NATIVE], "syscalls": list(rules), **more}
    profile.valid(document, "", "p.json")
    return profile.Filter(document, "", "p.json")


def said(filter: profile.Filter, name: str, arch: str = NATIVE) -> list[tuple[str, str, str]]:
    one = next(one for one in filter.arches if one.name == arch)
    found = outcomes(filter, one, one.number(name))
    return [(outcome.verdict.text, outcome.when, outcome.verdict.pointer) for outcome in found]


# -- calls -----------------------------------------------------------------------------------------


def test_names_and_numbers() -> None:
    native = calls.native()
    assert native.name == NATIVE and native.name_of(native.number("openat")) == "openat"
    assert native.number("no_such_call") == calls.UNKNOWN and native.number("socketcall") < calls.UNKNOWN
    assert native.name_of(9999) == native.name_of(1 << 31) == ""
    table = native.table()
    assert len(table) > 250 and list(table) == sorted(table)


def test_every_architecture_of_libseccomp_has_calls() -> None:
    found = calls.all_arches()
    assert {"SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS"} <= set(found)
    for arch in found.values():
        assert "read" in arch.table().values(), arch.name
        assert arch.name_of(arch.number("read")) == "read"
    assert found["SCMP_ARCH_X86"].bits == 32 and found["SCMP_ARCH_X32"].bits == found["SCMP_ARCH_S390X"].bits == 64


@ON_X86
def test_x32_and_x86_are_distinguished() -> None:
    known = calls.all_arches()
    x32, x86 = known["SCMP_ARCH_X32"], known["SCMP_ARCH_X86"]
    assert calls.arch_of(known.values(), 0xC000003E, x32.number("read")) is x32
    assert calls.arch_of(known.values(), 0xC000003E, 0) is known["SCMP_ARCH_X86_64"]
    assert calls.arch_of(known.values(), 0x40000003, 3) is x86
    assert x86.names_of(x86.number("socketcall"), 1) == ("socketcall", "socket")
    assert x86.names_of(x86.number("ipc"), 0x10000 | 21) == ("ipc", "shmat")
    assert x86.number("socket") == 359


# -- the compiled filter ---------------------------------------------------------------------------


PROFILES = {
    name: document["linux"]["seccomp"]
    for name, document in ((name, json.loads(path.read_text())) for name, path in BUNDLES.items())
    if document.get("linux", {}).get("seccomp")
}


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_the_program_answers_as_the_emulator(name: str) -> None:
    filter = profile.Filter(PROFILES[name], "/linux/seccomp", "config.json")
    code = b"".join(struct.pack("HBBI", *step) for step in filter.program.steps)
    asked = 0
    for arch in filter.arches:
        for number in arch.table():
            asked += 1
            verdict = filter.decide(arch.audit, number, (40, 1, 2, 3, 4, 5))
            answer = run(code, number, 40, 1, 2, 3, 4, 5, arch=arch.audit)
            assert filter.answer(arch.audit, number, (40, 1, 2, 3, 4, 5)) == answer
            assert verdict.pointer.startswith("/linux/seccomp")
            if "/syscalls/" in verdict.pointer:
                index = int(verdict.pointer.rpartition("/")[2])
                assert filter.action(index) == answer
    assert asked > 300


def test_an_instruction_that_is_not_known() -> None:
    with pytest.raises(ValueError, match="0xb1"):
        Program(struct.pack("HBBI", 0xB1, 0, 0, 0)).answer(bytes(64))


# -- explain ---------------------------------------------------------------------------------------


def test_default_and_rule() -> None:
    filter = made(rule("chroot"), rule("mount", action=KILL))
    assert said(filter, "chroot") == [("SCMP_ACT_ERRNO EPERM", "", "/syscalls/0")]
    assert said(filter, "mount") == [("SCMP_ACT_KILL_THREAD", "", "/syscalls/1")]
    assert said(filter, "read") == [(ALLOW, "", "/defaultAction")]


def test_conditions() -> None:
    two = rule("socket", args=[arg(0, 40), arg(1, 6, "MASKED_EQ", valueTwo=2)], errnoRet=38)
    either = rule("kcmp", args=[arg(0, 1), arg(0, 5, "GE")], action="SCMP_ACT_LOG")
    filter = made(two, either)
    rest = (ALLOW, "otherwise", "/defaultAction")
    assert said(filter, "socket") == [
        ("SCMP_ACT_ERRNO ENOSYS", "arg0 == 40 and arg1 & 0x6 == 0x2", "/syscalls/0"),
        rest,
    ]
    assert said(filter, "kcmp") == [("SCMP_ACT_LOG", "arg0 == 1 or arg0 >= 5", "/syscalls/1"), rest]


def test_rules_that_cover_everything_have_no_otherwise() -> None:
    filter = made(rule("kcmp", args=[arg(0, 7, "LT")]), rule("kcmp", action=KILL, args=[arg(0, 7, "GE")]))
    assert [when for _, when, _ in said(filter, "kcmp")] == ["arg0 < 7", "arg0 >= 7"]


def test_a_rule_without_conditions_wins() -> None:
    filter = made(rule("kcmp", args=[arg(0, 7)], errnoRet=5), rule("kcmp", action=KILL), default=ERRNO)
    assert said(filter, "kcmp") == [("SCMP_ACT_KILL_THREAD", "", "/syscalls/1")]


def test_newer_than_the_profile() -> None:
    filter = made(rule("read", "getpriority", action=ALLOW), default=ERRNO)
    ((text, _, pointer),) = said(filter, "openat2")
    assert (text, pointer) == ("SCMP_ACT_ERRNO ENOSYS", "/")


@ON_X86
def test_each_architecture() -> None:
    filter = made(rule("socket"), rule("time"), architectures=["SCMP_ARCH_X86", "SCMP_ARCH_X32"])
    assert [arch.short for arch in filter.arches] == ["x86_64", "x86", "x32"]
    assert said(filter, "socket", "SCMP_ARCH_X86") == [("SCMP_ACT_ERRNO EPERM", "", "/syscalls/0")]
    text, when, pointer = said(filter, "socketcall", "SCMP_ARCH_X86")[0]
    assert (text, when, pointer) == ("SCMP_ACT_ERRNO EPERM", "arg0 == 1 (socket)", "/syscalls/0")
    answers = explain.answers(filter, ["socketcall"])
    assert [len(answer.outcomes) for answer in answers] == [0, 2, 0]
    assert "x86_64  " in "\n".join(explain.lines(answers))


def test_words_on_the_command_line() -> None:
    filter = made(rule("socket", args=[arg(0, 40)]))
    number = calls.native().number("socket")
    (known,) = explain.answers(filter, [str(number)])
    assert known.name == "socket" and len(known.outcomes) == 2
    (exact,) = explain.answers(filter, ["socket(40, 0x1)"])
    assert [outcome.verdict.text for outcome in exact.outcomes] == ["SCMP_ACT_ERRNO EPERM"]
    (other,) = explain.answers(filter, ["socket(-1)"])
    assert [outcome.verdict.text for outcome in other.outcomes] == [ALLOW]
    (unknown,) = explain.answers(filter, ["9999"])
    assert unknown.name == "9999"
    audit = f"type=SECCOMP msg=audit(1.2:3): pid=1 arch={filter.native.audit:x} syscall={number} code=0x50001"
    (line,) = explain.answers(filter, [audit])
    assert line.name == "socket" and len(line.outcomes) == 2
    (line,) = explain.answers(filter, [*audit.split(), "a0=28", "a1=0", "a2=0", "a3=0"])
    assert [outcome.verdict.pointer for outcome in line.outcomes] == ["/syscalls/0"]
    (line,) = explain.answers(filter, ["arch=80000016 syscall=3"])  # s390x
    assert (line.name, line.outcomes[0].verdict.pointer) == ("read", "/architectures")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("sokcet", "did you mean socket?"),
        ("no_such_call", '"no_such_call" is not a system call'),
        ("a b", "expected a system call"),
        ("socket(x)", "expected numbers"),
        ("socket(1,2,3,4,5,6,7)", "at most six"),
        (f"socket({1 << 64})", "64 bits"),
        ("arch=c000003e syscall=x", "expected a line of the audit log"),
        ("syscall=4294967296", "numbers of 32 bits"),
    ],
)
def test_bad_words(word: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        explain.answers(made(rule("chroot")), [word])
    assert message in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(UsageError):
        explain.answers(made(rule("chroot")), ["read"] * (explain.MOST + 1))


# -- check -----------------------------------------------------------------------------------------


def found(*rules: dict[str, Any], libc: str = "none", **more: Any) -> list[tuple[str, str, str]]:
    listed = check.findings(made(*rules, **more), libc)
    return [(one.level, one.code, one.pointer) for one in listed]


CASES = [
    ([rule("mount", "sokcet")], ("problem", "unknown-name", "/syscalls/0/names/1")),
    pytest.param(
        [rule("mount", "file_setattr")],
        ("note", "newer-name", "/syscalls/0/names/1"),
        marks=pytest.mark.skipif(libseccomp.version() > 2 << 16 | 6 << 8, reason="this libseccomp knows the name"),
    ),
    ([rule("mount", "mount")], ("note", "repeated", "/syscalls/0")),
    ([rule("mount"), rule("chroot", "mount")], ("note", "repeated", "/syscalls/1")),
    ([rule("mount"), rule("chroot", "mount", action=KILL)], ("problem", "shadowed", "/syscalls/1")),
    ([rule("mount", args=[arg(0, 1)]), rule("mount", action=KILL)], ("problem", "shadowed", "/syscalls/0")),
    ([rule("mount", action=ALLOW)], ("note", "default", "/syscalls/0")),
    ([rule("mount", args=[arg(0, 0, "GE")])], ("problem", "dead-condition", "/syscalls/0/args/0")),
    ([rule("mount", args=[arg(0, 0, "LT")])], ("problem", "dead-condition", "/syscalls/0/args/0")),
    ([rule("mount", args=[arg(1, (1 << 64) - 1, "GT")])], ("problem", "dead-condition", "/syscalls/0/args/0")),
    ([rule("mount", args=[arg(1, 12, "MASKED_EQ", valueTwo=3)])], ("problem", "dead-condition", "/syscalls/0/args/0")),
    ([rule("mount", args=[arg(1, 0, "MASKED_EQ")])], ("problem", "dead-condition", "/syscalls/0/args/0")),
    ([rule("mount", args=[arg(1, 4, valueTwo=9)])], ("note", "unused-value", "/syscalls/0/args/0/valueTwo")),
    ([rule("mount", args=[arg(1, 4), arg(1, 5)])], ("note", "alternatives", "/syscalls/0/args")),
    ([rule("mount", includes={"caps": ["CAP_SYS_ADMIN"]})], ("problem", "engine-field", "/syscalls/0/includes")),
    ([rule("sys_debug_setcontext", "spu_run")], ("note", "other-architecture", "/syscalls/0")),
    ([rule("execve")], ("problem", "start-up", "/syscalls/0")),
    ([rule("exit_group", action=KILL)], ("problem", "start-up", "/syscalls/0")),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "want"), CASES, ids=lambda value: value[1] if isinstance(value, tuple) else "")
def test_findings(rules: list[dict[str, Any]], want: tuple[str, str, str]) -> None:
    assert found(*rules) == [want]


def test_nothing_to_find() -> None:
    assert found(rule("mount", "chroot"), rule("socket", args=[arg(0, 40)], action=KILL), libc="glibc") == []
    assert found(rule(*STARTS, action=ALLOW), default=ERRNO, libc="glibc") == []


def test_start_up_of_a_libc() -> None:
    assert ("problem", "start-up", "/defaultAction") in found(rule("execve", action=ALLOW), default=ERRNO, libc="musl")
    assert found(rule("rseq"), libc="glibc") == []  # it does not need it
    assert found(rule("rseq", action=KILL), libc="glibc") == [("problem", "start-up", "/syscalls/0")]
    assert found(rule("rseq", action=KILL), libc="musl") == []
    with pytest.raises(UsageError, match="expected glibc, musl or none"):
        found(rule("rseq"), libc="dietlibc")


def test_of_engines() -> None:
    assert found(rule("mount"), archMap=[]) == [("problem", "engine-field", "/archMap")]


@ON_X86
def test_about_32_bit_x86() -> None:
    both = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    socket = rule("socket", args=[arg(0, 40)])
    assert found(socket, architectures=both) == [("note", "conditions-bypassed", "/syscalls/0/args")]
    wide = rule("mount", args=[arg(0, 1 << 33, "GE")])
    assert found(wide, architectures=both) == [("note", "dead-condition", "/syscalls/0/args/0")]


def test_real_profiles_have_no_problems() -> None:
    assert len(PROFILES) > 5
    problems = {}
    for name in PROFILES:
        listed = check.findings(profile.open_filter(str(BUNDLES[name])), "glibc")
        problems[name] = {(one.code, one.text.rpartition(" ")[2]) for one in listed if one.level == "problem"}
    # podman's lists setns under "refused" and, further down, under "allowed": the first one
    # applies.
    assert {name: found for name, found in problems.items() if found - {("shadowed", "setns")}} == {}


def test_hostile_profiles_take_bounded_time() -> None:
    rules = [rule("kcmp", errnoRet=n % 100, args=[arg(0, n)]) for n in range(1000)]
    before = time.monotonic()
    filter = made(*rules)
    assert len(check.findings(filter, "none")) <= check.MOST
    assert len(outcomes(filter, filter.native, filter.native.number("kcmp"))) == 1001
    assert time.monotonic() - before < 30


# -- documents and the command line ----------------------------------------------------------------


def test_where_a_profile_is(tmp_path: Path) -> None:
    plain = {"defaultAction": ALLOW, "syscalls": [rule("chroot")]}
    (tmp_path / "profile.json").write_text(json.dumps(plain))
    (tmp_path / "config.json").write_text(json.dumps({"ociVersion": "1.0.0", "linux": {"seccomp": plain}}))
    assert profile.read(str(tmp_path / "profile.json")) == (plain, "", "profile.json")
    for path in (tmp_path, tmp_path / "config.json"):
        assert profile.read(str(path)) == (plain, "/linux/seccomp", "config.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "p.json: /defaultAction: expected"),
        ("[]", "p.json: /: expected object, found an array"),
        ("{", "p.json: line 1 column 2"),
        ('{"linux": 1}', "p.json: /linux: expected object, found 1"),
        ('{"linux": {"seccomp": []}}', "/linux/seccomp is missing"),
        ('{"linux": {"seccomp": 7}}', "/linux/seccomp: expected object"),
        ('{"defaultAction": "bogus"}', "p.json: /defaultAction: expected"),
        (
            '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": [], "action": "SCMP_ACT_LOG"}]}',
            "/syscalls/0/names",
        ),
        ('{"ociVersion": "1.0.0"}', "/linux/seccomp is missing: every system call is allowed"),
    ],
)
def test_bad_documents(tmp_path: Path, text: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(PyruncError) as caught:
        profile.open_filter(str(tmp_path / "p.json"))
    assert message in str(caught.value)
    for command in (["check"], ["explain"]):
        assert cli.main(["seccomp", *command, str(tmp_path / "p.json")]) == 1
        out, err = capfd.readouterr()
        assert out == "" and err.startswith("pyrunc: error: ") and err.count("\n") == 1


def test_a_rule_that_libseccomp_refuses_is_named_by_its_pointer(tmp_path: Path) -> None:
    args = [arg(0, n % 4, "NE") for n in range(3)]
    document = {"defaultAction": ALLOW, "syscalls": [rule("read"), rule("kcmp", action="SCMP_ACT_NOTIFY", args=args)]}
    with pytest.raises(ConfigError, match=r"p.json: /listenerPath"):
        profile.valid(document, "", "p.json")


@pytest.mark.parametrize(
    "argv",
    [
        ["seccomp"],
        ["seccomp", "bogus"],
        ["seccomp", "explain"],
        ["seccomp", "check", "a", "b"],
        ["seccomp", "explain", "--libc", "musl", "."],
        ["seccomp", "check", "/nowhere"],
    ],
)
def test_bad_command_lines(argv: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("pyrunc: error: ") and err.count("\n") == 1


def test_json(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rules = [rule("chroot"), rule("socket", args=[arg(0, 40)])]
    path = tmp_path / "p.json"
    path.write_text(json.dumps({"defaultAction": ALLOW, "syscalls": rules}))
    assert cli.main(["seccomp", "--json", "explain", str(path), "chroot"]) == 0
    document = json.loads(capfd.readouterr().out)
    outcome = {"action": ERRNO, "errno": 1, "rule": "/syscalls/0", "why": "", "when": ""}
    number = calls.native().number("chroot")
    assert document["calls"] == [{"name": "chroot", "arch": NATIVE, "number": number, "outcomes": [outcome]}]
    assert cli.main(["seccomp", "explain", "--json", str(path)]) == 0
    document = json.loads(capfd.readouterr().out)
    (arch,) = document["architectures"]
    assert (document["default"], arch["actions"]["SCMP_ACT_ERRNO EPERM"]) == (ALLOW, ["chroot"])
    assert arch["conditional"] == ["socket"] and "read" in arch["actions"][ALLOW]
    assert cli.main(["seccomp", "check", "--json", "--libc", "musl", str(path)]) == 0
    assert json.loads(capfd.readouterr().out) == {"source": "p.json", "problems": 0, "findings": []}
    assert cli.main(["seccomp", "explain", str(path)]) == 0
    out = capfd.readouterr().out
    assert "  SCMP_ACT_ERRNO EPERM: 1\n    chroot\n" in out and max(map(len, out.splitlines())) <= explain.WIDTH


# -- decoding --------------------------------------------------------------------------------------


def test_arguments_in_words() -> None:
    text = ctypes.create_string_buffer(b"/etc/\x1bpasswd")
    place, me, far = ctypes.addressof(text), os.getpid(), (1 << 64) - 100
    path = '"/etc/\\u001bpasswd"'
    cases: list[tuple[str, tuple[int, ...], str]] = [
        (
            "openat",
            (far, place, os.O_WRONLY | os.O_CLOEXEC, 420),
            f"openat(AT_FDCWD, {path}, O_WRONLY|O_CLOEXEC, 0644)",
        ),
        ("openat", ((1 << 32) - 100, 0, 3 | 1 << 30), "openat(AT_FDCWD, NULL, O_ACCMODE|0x40000000, 00)"),
        ("mkdir", (8, 0o755), "mkdir(0x8, 0755)"),
        ("mmap", (0, 4096, 5, 34, (1 << 64) - 1), "mmap(0x0, 4096, PROT_READ|PROT_EXEC, 0x22, -1, 0)"),
        ("mprotect", (4096, 4096), "mprotect(0x1000, 4096, PROT_NONE)"),
        ("kill", (far, 9), "kill(-100, SIGKILL)"),
        ("kill", (1, 0), "kill(1, 0)"),
        ("getpid", (1, 2, 3), "getpid()"),
        ("io_setup", (1, 16), "io_setup(0x1, 0x10)"),
        ("", (), "?()"),
        ("chdir", (far,), f"chdir({far:#x})"),
    ]
    for name, args, want in cases:
        assert decode.words(name, (*args, *[0] * (6 - len(args))), 64, me) == want
    assert decode.words("lseek", (3, (1 << 32) - 1, 0, 0, 0, 0), 32, me) == "lseek(3, -1, 0)"
    assert decode.open_flags(os.O_RDWR | os.O_TMPFILE) == "O_RDWR|O_TMPFILE"
    assert decode.words("chdir", (place, 0, 0, 0, 0, 0), 64, 0) == f"chdir({place:#x})", "no such process"


def test_a_string_is_bounded_and_ends_where_memory_does() -> None:
    page = mmap.mmap(-1, mmap.PAGESIZE)
    page.write(b"x" * mmap.PAGESIZE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    memory = decode.Memory(os.getpid())
    found = str(memory.string(start))
    assert found.startswith('"xxxx') and found.endswith("...") and len(found) <= decode.TEXT + 8
    assert memory.string(1) is None and memory.string(1 << 63) is None
    memory.close()
