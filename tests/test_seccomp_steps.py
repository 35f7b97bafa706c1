"""What the commands for seccomp profiles ask of the container and of libseccomp, as in test_steps.py.
golden/seccomp_steps.txt has the tables.
"""

from __future__ import annotations

import errno
import json
import signal
from collections.abc import Callable
from select import POLLHUP, POLLIN
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from pyrunc.errors import ConfigError, Problem, PyruncError, StateError
from pyrunc.launch import run as launch_run
from pyrunc.seccomp_tools import calls, contained, explain, outcomes, profile, record, trace
from pyrunc.seccomp_tools.profile import Verdict
from spies import Answers, By, alone
from test_session_steps import Row
from test_steps import Tables, World, calls_of, failed, rows

# -- the tracer ------------------------------------------------------------------------------------


def tracer(name: str, *args: Any, own: str = "") -> Callable[[World], Any]:
    """A call of a method of the tracer, and what it has changed."""

    def call(w: World) -> Any:
        listener = w.spy("listener", fd=9) if w.extra.get("listening", True) else None
        w.answers["Listener"] = w.spy("new", fd=19)
        w.answers["poll"] = w.spy("poller")
        w.answers["poll_of"] = w.spy("look")
        one = w.made(trace.Tracer, f"{name} {own}", opts=SimpleNamespace(root="/r", id="c1", log="LOG"), args=["sh"],
                     sink=w.spy("sink"), container=41, guard=31, control=5, leash=6, signals=7, listener=listener,
                     error="")  # fmt: skip
        before = spies.state_of(one)
        given = [w.spy(arg[1:], fd=9) if isinstance(arg, str) and arg[:1] == "@" else arg for arg in args]
        try:
            found = getattr(one, name)(*given)
        finally:
            w.notes.extend(spies.attributes(one, before))
        return found

    return call


def noted(w: World, call: Callable[..., Any]) -> Any:
    """A call with posix._exit() and the work of a fork noted."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("leave", "guard"):
            patch.setattr(trace, name, spies.noting(name, w.notes, w.answers))
        return call(w)


TRACE: dict[str, Any] = {
    "serve": 5, "sockets.socketpair": (5, 15), "posix.pipe2": (16, 6), "posix.fork": Answers([31, 41]),
    "signal_descriptor": 7, "state.root_dir": "/root", "posix.pidfd_open": 83, "posix.waitpid": (41, 0x500), "reap": 5,
    "posix.open": 60, "posix.read": b".", "contained.error": b"E", "decode.words": "call(1)", "host.read": b"sh\n",
    "time.monotonic": Answers([1.0, 2.5]),
}  # fmt: skip
BASE = {"bits": 64, "short": "x86_64", "audit": 0xC000003E}


class Arch(SimpleNamespace):
    """An architecture by name."""

    def __repr__(self) -> str:
        return str(self.name)

    def name_of(self, number: int) -> str:
        return {0: "read", 41: "socket", 59: "execve", 157: "prctl", 322: "execveat"}.get(number, "")

    def names_of(self, number: int, part: int) -> tuple[str, ...]:
        if part and number > 100:
            return "socketcall", "bind"
        return (self.name_of(number),) if self.name_of(number) else ()

    def number(self, name: str) -> int:
        return {"read": 0, "execve": 59}.get(name, calls.UNKNOWN if name != "elsewhere" else -101)

    def table(self) -> dict[int, str]:
        return {0: "read", 41: "socket", 59: "execve"}

    def parts(self, number: int) -> dict[int, str]:
        return {1: "socket", 2: "bind"} if number == 102 else {}


NATIVE: Any = Arch(name="SCMP_ARCH_X86_64", **BASE)
OTHER: Any = Arch(name="SCMP_ARCH_X86", **BASE | {"bits": 32, "short": "x86", "audit": calls.X86})
DENIED, PASSED = Verdict(0x00050001, "/syscalls/0"), Verdict(0x7FFF0000, "/defaultAction", "no rule")


class Call(SimpleNamespace):
    """A call by its number."""

    called = "call"


def call_of(number: int, audit: int = 0xC000003E, **more: Any) -> Any:
    """A notification."""
    return Call(**{"number": number, "audit": audit, "args": (1, 2, 3, 4, 5, 6), "pid": 41, "id": 7} | more)


def printer(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of the printer."""

    def call(w: World) -> Any:
        verdict = w.extra.get("verdict")
        filter = w.spy("filter") if verdict or w.extra.get("filter") else None
        w.answers["filter.decide"] = verdict
        one = w.made(trace.Printer, name, filter=filter, fd=2, as_json=w.extra.get("json", False),
                     denied=w.extra.get("denied", False), known=["K"], names=w.extra.get("names", {41: "sh"}),
                         start=1.0,
                     total=3, stopped=1)  # fmt: skip
        given = w.given(args)
        return getattr(one, name)(*given), one.total, one.stopped, len(one.names), 41 in one.names

    return call


def info(number: int, code: int = 0) -> SimpleNamespace:
    """What sigtimedwait() returns."""
    return SimpleNamespace(si_signo=number, si_code=code)


def passing(w: World) -> Any:
    """pass_on() with signals that wait."""
    with pytest.MonkeyPatch.context() as patch:
        waiting = list(w.extra["waiting"])
        patch.setattr(signal, "sigtimedwait", lambda known, timeout: waiting.pop(0) if timeout == 0 else None)
        return tracer("pass_on")(w)


OPTS: Any = SimpleNamespace(root="/r", id="c1")
TRACER: dict[str, Row] = {
    "init": (lambda w: spies.state_of(trace.Tracer(OPTS, ["a"], OPTS)), [{}]),
    "run": (tracer("run"), [{}, {"SELF": {"error": "broken"}}, {"fork": failed(5)}, {"serve": PyruncError("no")}, {
        "serve": KeyboardInterrupt()}]),
    "fork": (lambda w: noted(w, tracer("fork")), [
        {}, {"posix.fork": Answers([0, 41])}, {"posix.fork": Answers([31, 0])}, {"posix.fork": failed(errno.EAGAIN)},
    ]),
    "delete": (tracer("delete"), [
        {}, {"WITH": {"listening": False}}, {"SELF": {"container": 0}},
            {"processes.await_end": failed(errno.ETIMEDOUT)},
    ]),
    "close": (tracer("close"), [
        {}, {"WITH": {"listening": False}}, {"SELF": {"guard": 0}}, {"posix.write": failed(errno.EPIPE)},
        {"SELF": {"control": -1, "signals": -1, "leash": -1, "guard": 0}}, {"SELF": {"control": 0, "signals": 0,
            "leash":
            0}},
    ]),
    "serve": (tracer("serve"), [
        {"poller.poll": Answers(ready), "WITH": {"listening": listening}}
        for ready, listening in (
            ([[(83, 1)]], True), ([[(9, 1)], [(7, 1)], [(5, 1), (7, 1)], [(83, 1), (9, 1)]], True),
            ([[(9, 1)], [(83, 1)]], False))
    ]),
    "reap": (tracer("reap"), [{"posix.waitpid": (41, status)} for status in (0, 0x500, 9, 0x8B)]),
    "take": (tracer("take", "@poller"), [
        {"sockets.receive_descriptor": found}
        for found in ((b"Ewhy \xff", -1), (b"L", 19), (b"L", 0), (b"L", -1), (b"", -1), (b"x", 5), failed(errno.EIO))
    ]),
    "answer": (tracer("answer", "@listener", "@poller"), [
        {"look.poll": Answers(events), "listener.receive": Answers(received)}
        for events, received in (
            ([[]], ["CALL"]), ([[(9, POLLIN)], []], ["CALL"]), ([[(9, POLLIN)], [(9, POLLIN)], []], [None, "CALL"]),
            ([[(9, POLLHUP)]], ["CALL"]), ([[(9, POLLIN | POLLHUP)], [(9, POLLHUP)]], ["CALL"]))
    ]),
    "answer of many": (lambda w: (tracer("answer", "@listener", "@poller")(w), w.notes.count("look.poll(0)")), [
        {"look.poll": [(9, POLLIN)], "listener.receive": None},
    ]),
    "pass_on": (passing, [
        {"WITH": {"waiting": [*waiting, None]}, "posix.kill": result}
        for waiting, result in (
            ([], None), ([info(15)], None), ([info(2, 0x80), info(17), info(28), info(1)], None),
            ([info(15), info(1)], ProcessLookupError()))
    ]),
    "leave": (lambda w: trace.leave(w.spy("work")), [
        {"work": found, "posix._exit": SystemExit()} for found in (None, 0, 5, KeyboardInterrupt())
    ]),
    "guard": (lambda w: trace.guard(8, OPTS), [
        {"posix.read": text} for text in (b".", b"")
    ]),
    "seen": (printer("seen", "$call"), [
        {"WITH": {"call": call_of(number), "verdict": verdict, "denied": denied}, "calls.arch_of": arch}
        for number, verdict, denied, arch in (
            (0, None, False, NATIVE), (0, None, True, NATIVE), (0, PASSED, True, NATIVE), (0, DENIED, True, NATIVE),
            (59, DENIED, False, NATIVE), (157, PASSED, True, NATIVE), (322, PASSED, False, OTHER), (999, DENIED, False,
                NATIVE), (5, PASSED, False, None))
    ]),
    "print": (printer("print", call_of(0), "$arch", "read", "read(1)", "$verdict"), [
        {"WITH": {"arch": arch, "verdict": verdict, "json": as_json}, "calls.native": NATIVE, "process": "sh"}
        for arch in ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86") for verdict in (None, DENIED, PASSED)
        for as_json in (True, False)
    ]),
    "process": (printer("process", "$pid"), [
        {"WITH": {"pid": pid, "names": names}, "host.read": text}
        for pid, names, text in (
            (41, {41: "sh"}, b""), (42, {}, b"a\xff\n"), (42, {}, b"\n"), (42, dict.fromkeys(range(50, 4147), "x"),
                b"a"),
            (42, dict.fromkeys(range(50, 4146), "x"), b"a"))
    ]),
    "summary": (printer("summary"), [{"WITH": {"filter": filter}} for filter in (True, False)]),
    "create": (lambda w: trace.create("/o"), [{}, {"posix.open": failed(errno.EACCES)}]),
    "write": (lambda w: trace.write(2, "a\udcff"), [{}, {"fs.write_all": failed(errno.ENOSPC)},
        {"fs.write_all": OSError(
        "no number")}]),
}  # fmt: skip

# -- the recorder ----------------------------------------------------------------------------------

RECORDED: dict[str, Any] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1,
    "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [{"names": ["b"], "action": "SCMP_ACT_ALLOW"}]}  # fmt: skip


def recorder(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of the recorder, and what it knows afterwards."""

    def call(w: World) -> Any:
        one = w.made(record.Recorder, f"{name} calls", before=w.extra.get("before"), known=["K"], counts=dict(
            w.extra.get("counts", {})), names={}, nameless=set(w.extra.get("nameless", ())))  # fmt: skip
        given = [w.spy("log") if arg == "@log" else arg for arg in args]
        made = w.extra.get("calls")
        found = [getattr(one, name)(*given, *more) for more in ([(one,) for one in made] if made else [()])]
        told = [json.dumps(item) if isinstance(item, dict) else item for item in found]
        return told, one.counts, one.names, sorted(one.nameless)[:3], len(one.nameless)

    return call


COUNTS = {("SCMP_ARCH_ARM", "open"): 3, ("SCMP_ARCH_X86", "write"): 2, ("SCMP_ARCH_X86_64", "mmap"): 5,
          ("SCMP_ARCH_X86_64", "brk"): 1}  # fmt: skip
RECORDER: dict[str, Row] = {
    "seen": (recorder("seen"), [
        {"WITH": {"calls": made, "nameless": nameless}, "calls.arch_of": arch}
        for made, nameless, arch in (
            ([call_of(0), call_of(0), call_of(41)], (), NATIVE), ([call_of(999), call_of(998)], (), NATIVE),
            ([call_of(5)], (), None), ([call_of(102, calls.X86, args=(0x10002, 0))], (), OTHER),
            ([call_of(102, args=(2, 0))], (), NATIVE), ([call_of(117, calls.X86, args=(3, 0))], (), OTHER),
            ([call_of(59, calls.X86, args=(3, 0))], (), OTHER),
            *(([call_of(999)], [(1, number) for number in range(count)], NATIVE) for count in (99, 100)))
    ]),
    "calls": (recorder("calls"), [{"WITH": {"counts": counts}} for counts in ({}, COUNTS)]),
    "profile": (recorder("profile"), [
        {"WITH": {"counts": counts, "before": before}, "calls.native": NATIVE}
        for counts in ({}, COUNTS)
        for before in (None, {}, RECORDED | {"architectures": ["SCMP_ARCH_ARM"]})
    ]),
    "warn": (recorder("warn", "@log"), [
        {"WITH": {"nameless": nameless}, "build.libseccomp": "2.5.4"} for nameless in ((), [(9, 5), (3, 7)])
    ]),
    "init": (lambda w: spies.state_of(record.Recorder(None)), [{"calls.all_arches": {"a": "A"}}]),
    "earlier": (lambda w: record.earlier(w.extra["path"]), [
        {"WITH": {"path": path}, "fs.exists": there, "load.load_config": ("FOUND", b""), "profile.valid": document,
         "fs.abspath": "/abs"}
        for path, there, document in (
            ("", True, RECORDED), ("/d/p", False, RECORDED), ("/d/p", True, RECORDED), ("/d/p", True, {}),
            ("/d/p", True, {**RECORDED, "syscalls": []}), ("/d/p", True, {**RECORDED, "defaultErrnoRet": 2}),
            ("/d/p", True, {**RECORDED, "defaultAction": "SCMP_ACT_KILL"}), ("/d/p", True, {**RECORDED, "x": 1}),
            ("/d/p", True, {**RECORDED, "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG"}]}),
            ("/d/p", True, {**RECORDED, "syscalls": RECORDED["syscalls"] * 2}),
            ("/d/p", True, {**RECORDED, "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [1]}]}),
            ("/d/p", True, {**RECORDED, "syscalls": [{"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": []}]}))
    ]),
    "save": (lambda w: record.save("/d/p", "text"), [{}, {"fs.replace_file": failed(errno.EACCES)}]),
}  # fmt: skip

# -- explanations ----------------------------------------------------------------------------------


def filter_of(w: World) -> Any:
    """A filter that is a spy."""
    w.answers.setdefault("filter.decide", DENIED)
    return w.spy("filter", native=NATIVE, arches=w.extra.get("arches", [NATIVE, OTHER]), rules=w.extra.get("rules", []),
                 default=0x00050001)  # fmt: skip


def told_answers(found: list[Any]) -> Any:
    """Answers as their text and their JSON."""
    return explain.lines(found), [one.as_json() for one in found]


def outcome(*when: str) -> list[outcomes.Outcome]:
    """Outcomes."""
    return [outcomes.Outcome(PASSED if text == "otherwise" else DENIED, text) for text in when]


def answer(name: str, arch: Any, number: int, *when: str) -> explain.Answer:
    """An answer."""
    return explain.Answer(name, arch, number, outcome(*when))


LONG = [f"name{number}" for number in range(97)]


def summary(by: dict[str, list[str]], conditional: list[str]) -> Any:
    """A summary of one architecture."""
    return SimpleNamespace(arch=NATIVE, by_action=by, conditional=conditional)


LINES = ("arch=c000003e syscall=41", "type=SECCOMP arch=40000003 syscall=5 a0=1 a1=1f a2=0 a3=3", "syscall=x",
    "syscall=41 a0=1", "syscall=ff arch=1", "arch=zz syscall=7 a0=1 a1=2 a2=3 a3=4", "arch=c000003e syscall=4294967296",
    "arch=100000000 syscall=1", "arch=c000003e syscall=4294967295",
        "arch=ffffffff syscall=1 a0=0 a1=0 a2=0 a3=0")  # fmt: skip
EXPLAIN: dict[str, Row] = {
    "answers": (alone(explain, "answers", "FILTER", "$words"), [
        {"WITH": {"words": words}, "_called": ["A"], "_audited": "B"}
        for words in (["read"], ["read", "write"], ["arch=c000003e", "syscall=5"], ["x"] * 256, ["x"] * 257, [])
    ]),
    "called": (alone(explain, "_called", filter_of, "$word", keep="_arguments"), [
        {"WITH": {"word": word}, "_found": []}
        for word in ("read", "59", "read(1, 0x2)", " execve ( ) ", "redd", "elsewhere", "12345678901", "1234567890",
                     "read(", "read(x)", "read(1,2,3,4,5,6,7)", "")
    ]),
    "found": (alone(explain, "_found", filter_of, "$arch", "$number", "$args"), [
        {"WITH": {"arch": arch, "number": number, "args": args}, "outcomes": ["O"]}
        for arch, number, args in (
            (NATIVE, -1, None), (NATIVE, 0, None), (NATIVE, 0, (1, -1, 1 << 63, 0, 0, 0)), (OTHER, 5, (1 << 40, -1)),
            (NATIVE, -1, (1,)))
    ]),
    "arguments": (lambda w: explain._arguments(w.extra["text"], "word"), [
        {"WITH": {"text": text}} for text in ("", " ", "1", "1, 0x2,3,4,5,6", "1,2,3,4,5,6,7", "x", "1,,2",
            str(1 << 64), str((1 << 64) - 1), str(-(1 << 63)), str(-(1 << 63) - 1))
    ]),
    "audited": (lambda w: explain._audited(filter_of(w), w.extra["line"]).as_json(), [
        {"WITH": {"line": line}, "calls.arch_of": Answers(arches), "calls.all_arches": {"a": OTHER}, "outcomes": []}
        for line in LINES for arches in ([NATIVE], [None, OTHER], [None, None])
    ]),
    "lines": (lambda w: told_answers(w.extra["found"]), [
        {"WITH": {"found": found}}
        for found in (
            [], [answer("read", NATIVE, 0, "")], [answer("read", NATIVE, 0, "arg0 == 1", "otherwise"), answer("read",
                OTHER, -5), answer("write", None, 7, "")], [answer("a", NATIVE, 1), answer("b", NATIVE, 1000, "x")])
    ]),
    "summary": (lambda w: (lambda one: (one.as_json(), one.arch))(explain.Summary(filter_of(w), NATIVE)), [
        {"outcomes": Answers([outcome(""), outcome("a", "otherwise"), outcome("a", "b")])},
    ]),
    "summary_lines": (lambda w: explain.summary_lines(filter_of(w), w.extra["list"]), [
        {"WITH": {"list": found}} for found in (
            [], [summary({"A": ["x"], "B": ["y", "z"]}, [])], [summary({"A": LONG[:96]}, ["c"])], [summary({"A": LONG},
                LONG)])
    ]),
    "wrapped": (lambda w: explain.wrapped(w.extra["names"]), [
        {"WITH": {"names": names}} for names in ([], LONG[:30], ["x" * 95], ["x" * 96], ["x" * 97, "y"], ["ab"] * 60)
    ]),
}  # fmt: skip
RULES: Any = [
    {"names": ["a"], "action": "SCMP_ACT_ALLOW"},
    {"names": ["a"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 5, "op": "SCMP_CMP_EQ"}]},
    {"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 1, "value": 8, "op": "SCMP_CMP_GT"}, {"index": 2,
        "value": 6, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}]},
    {"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NE"}, {"index": 0,
        "value": 9, "op": "SCMP_CMP_LT"}]},
]  # fmt: skip


def a_call(w: World) -> Any:
    """The rules of a call, and which arguments meet them."""
    w.answers["filter.naming"] = w.extra["naming"]
    w.answers["filter.action"] = 7
    w.answers["filter.answer"] = Answers(w.extra.get("answers", [7]))
    w.extra["rules"] = RULES
    one = outcomes.Call(filter_of(w), w.extra.get("arch", NATIVE), 5)
    found = [list(one.meeting(index))[:4] for index in one.rules], one.values, one.conditional, one.other()
    return found, [one.effective(index) for index in one.rules]


CONDITIONS: Any = [{"index": 0, "value": value, "op": op, **({"valueTwo": 2} if op.endswith("MASKED_EQ") else {})}
              for op in profile._SIGNS | {"SCMP_CMP_MASKED_EQ": ""} for value in (0, 6, 4096)] + [
    {"index": 0, "value": 6, "op": "SCMP_CMP_MASKED_EQ"},
    {"index": 0, "value": 0xF0, "valueTwo": 0x30, "op": "SCMP_CMP_MASKED_EQ"},
]  # fmt: skip
EQUAL = [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"} for value in (10, 20, 30)]
OUTCOMES: dict[str, Row] = {
    "call": (a_call, [
        {"WITH": {"naming": naming, "arch": arch}}
        for naming in ([], [0], [1], [2], [3], [1, 2, 3], [0, 1]) for arch in (NATIVE, OTHER)
    ] + [{"WITH": {"naming": [1], "answers": [5, 5, 7]}}, {"WITH": {"naming": [1], "answers": [5]}}]),
    "of_parts": (lambda w: [one.as_json() for one in outcomes._of_parts(filter_of(w), OTHER, 102, {
        1: "socket", 2: "bind"})], [{"filter.decide": Answers(found)} for found in ([PASSED, DENIED, PASSED],
            [PASSED])]),
    "interesting": (lambda w: [outcomes.interesting(w.extra["conditions"], mask) for mask in ((1 << 64) - 1, (1 << 32)
        - 1)], [{"WITH": {"conditions": conditions}} for conditions in ([], *([one] for one in CONDITIONS),
            CONDITIONS, [*EQUAL, {"index": 0, "value": (1 << 64) - 1, "op": "SCMP_CMP_LT"}],
            [*EQUAL, {"index": 0, "value": 31, "op": "SCMP_CMP_NE"}])]),
}  # fmt: skip

# -- profiles --------------------------------------------------------------------------------------


def decided(w: World) -> Any:
    """decide() with a filter that answers."""
    w.answers["seccomp.encode_action"] = By({"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_LOG": 0x7FFC0000})
    one = w.made(profile.Filter, "decide pointer naming action", base=w.extra.get("base", "/b"), rules=RULES, arches=[],
                 default=0x00050001, _naming={"a": [1, 2], "read": [3, 1, 2], "b": [0]})  # fmt: skip
    found = one.decide(0xC000003E, w.extra["number"], w.extra["args"])
    return found.as_json(), found.passes, found.text


DOCUMENTS: list[Any] = [
    {"defaultAction": "SCMP_ACT_ALLOW"}, {}, [], None, "x", {"defaultAction": "x"},
    {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": 5}, {"defaultAction": "SCMP_ACT_NOTIFY"},
]  # fmt: skip
PROFILE: dict[str, Row] = {
    "verdict": (lambda w: [(one.as_json(), one.passes, one.text) for one in (
        Verdict(number, "/p", "why") for number in (0, 0x80000000, 0x30000, 0x50001, 0x50FFF, 0x7FF00005, 0x7FC00000,
                                                  0x7FFC0000, 0x7FFF0000, 0x12340000))], [{}]),
    "decide": (decided, [
        {"WITH": {"number": number, "args": args, "base": base}, "answer": answer, "calls.arch_of": arch}
        for number, args, base, answer, arch in (
            (0, (5, 0, 0, 0, 0, 0), "/b", 0x7FFF0000, NATIVE), (0, (5, 0, 0, 0, 0, 0), "/b", 0x50001, NATIVE),
            (0, (5, 0, 0, 0, 0, 0), "/b", 0x50026, NATIVE), (0, (5, 0, 0, 0, 0, 0), "", 0x50026, NATIVE),
            (0, (5, 0, 0, 0, 0, 0), "/b", 0x50002, NATIVE), (0, (5, 0, 0, 0, 0, 0), "", 0x50002, NATIVE),
            (0, (5, 0, 0, 0, 0, 0), "/b", 0x50001, None), (999, (5, 0, 0, 0, 0, 0), "/b", 0x7FFF0000, NATIVE),
            (0, (4, 0, 0, 0, 0, 0), "/b", 0x7FFF0000, NATIVE), (0, (1, 9, 2, 0, 0, 0), "/b", 0x7FFC0000, NATIVE),
            (0, (4, 0, 0, 0, 0, 0), "/b", 0x7FFC0000, NATIVE), (102, (2, 0, 0, 0, 0, 0), "/b", 0x7FFF0000, NATIVE))
    ]),
    "filter": (lambda w: spies.state_of(profile.Filter(w.extra["profile"], w.extra["base"], "source")), [
        {"WITH": {"profile": document, "base": base}, "calls.all_arches": {"A": "a", "N": "n", "B": "b"},
         "calls.native": Arch(name="N"), "seccomp.compile_filter": compiled}
        for document, base, compiled in (
            ({"defaultAction": "D"}, "", (bytes(8), 0, 0)),
            ({"defaultAction": "D", "defaultErrnoRet": 5, "architectures": ["B", "N"], "syscalls": [
                {"names": ["x", "y", "x"]}, {"names": ["y"]}]}, "/b", (bytes(16), 0, 0)),
            ({"defaultAction": "D"}, "/b", ConfigError([Problem("/linux/seccomp/syscalls/1", "wrong", "x")], "s")),
            ({"defaultAction": "D"}, "", ConfigError([Problem("/linux/seccomp", "wrong", "x")], "s")))
    ]),
    "answer": (lambda w: w.made(profile.Filter, "answer", program=w.spy("program")).answer(0xC000003E, -3, (
        1, 2, 3, 4, 5, 1 << 63)), [{}]),
    "met": (lambda w: [profile.met(rule, args) for rule in RULES for args in (
        (5, 9, 2, 0), (1, 8, 2, 0), (9, 9, 3, 0), (8, 0, 0, 0))], [{}]),
    "holds": (lambda w: [[profile.holds(one, value) for value in (0, 2, 5, 6, 7, 4095, 4096, 4097)]
                         for one in CONDITIONS], [{}]),
    "words": (lambda w: [profile.words(rule.get("args", [])) for rule in RULES] + [profile.words([one]) for one in
        CONDITIONS] + [profile.number(4095), profile.number(4096)], [{}]),
    "read": (alone(profile, "read", "/d/x"), [
        {"is_directory": directory, "load.load_config": (document, b""), "valid": "VALID", "fs.abspath": "/abs/name"}
        for directory, document in (
            (False, {"defaultAction": "x"}), (True, {"ociVersion": "1"}), (False, {"linux": 5}), (False, {"linux": {}}),
            (False, {"linux": {"seccomp": {"a": 1}}}), (True, {"linux": {"seccomp": None}}))
    ]),
    "is_directory": (alone(profile, "is_directory", "/d"), [
        {"posix.stat": found} for found in (SimpleNamespace(st_mode=0o040755), SimpleNamespace(st_mode=0o100644),
            failed(errno.EACCES), ValueError("NUL"))
    ]),
    "valid": (lambda w: profile.valid(w.extra["profile"], "/linux/seccomp", "source"), [
        {"WITH": {"profile": document}} for document in DOCUMENTS
    ]),
    "open_filter": (alone(profile, "open_filter", "/d"), [{"read": (None, "/b", "s")}, {"read": ({}, "/b", "s")}]),
}  # fmt: skip

# -- the container that is traced ------------------------------------------------------------------


def traced(name: str, *args: Any) -> Callable[[World], Any]:
    """A call of a method of the run."""

    def call(w: World) -> Any:
        w.answers["poll"] = w.spy("poller")
        one = w.made(contained.TracedRun, name, plan=w.spy("plan"), args=w.extra.get("args", ["sh"]), flags=32,
            pidfd=83,
                     control=5, init_pid=41, interrupts=w.spy("interrupts") if w.extra.get("caught",
                         True) else None)  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(contained, "link", spies.noting("link", w.notes, w.answers))
            for base in ("read_config", "on_ready"):
                patch.setattr(launch_run.Run, base, staticmethod(spies.noting(f"super().{base}", w.notes, w.answers)))
            return getattr(one, name)(*args)

    return call


CONTAINED: dict[str, Any] = {
    "posix.listdir": ["0", "7"], "link": Answers(["/x", "anon_inode:seccomp notify"]), "time.monotonic": 0.0,
    "poller.poll": [], "seccomp.take_listener": 70, "listener": 7, "libseccomp.knows_flag": True, "filter_flags": 4,
}  # fmt: skip
NOTHING = failed(errno.ENOENT)
OPTIONS: Any = SimpleNamespace(id="c1", log=None)
TRACED: dict[str, Row] = {
    "init": (lambda w: (lambda one: (one.opts.id, one.control, one.args, one.flags))(contained.TracedRun(OPTIONS, 5,
        ["sh"])), [{"libseccomp.knows_flag": known} for known in (True, False)]),
    "profile": (lambda w: contained.profile(), [{}]),
    "read_config": (traced("read_config", "/c"), [
        {"super().read_config": (found, b""), "WITH": {"args": args}}
        for found in ({}, {"linux": {"a": 1}, "process": {"args": ["x"]}}, {"linux": 5, "process": 6})
        for args in (["sh"], [])
    ]),
    "fill_filter": (traced("fill_filter"), [{}]),
    "only_waits": (traced("only_waits"), [{}]),
    "on_ready": (traced("on_ready", "RECORD"), [
        {"listener": number, "sockets.send_descriptor": result}
        for number, result in ((7, None), (-1, None), (0, None), (7, failed(errno.EPIPE)))
    ]),
    "listener": (traced("listener"), [
        {}, {"poller.poll": [(83, 1)]}, {"posix.listdir": NOTHING},
        {"link": Answers(["", "", "", "anon_inode:seccomp notify"]), "WITH": {"caught": False}},
        *({"posix.listdir": Answers([failed(errno.EACCES), ["3"]]), "link": "anon_inode:seccomp notify",
           "time.monotonic": Answers(times)} for times in ([0.0, 3.0, 3.0], [0.0, 3.01])),
        *({"link": Answers(["", "", "anon_inode:seccomp notify"]), "time.monotonic": Answers(times)}
          for times in ([0.0, 120.0], [0.0, 120.1])),
    ]),
    "on_seccomp": (traced("on_seccomp", "RECORD"), [{}]),
    "link": (alone(contained, "link", "/p"), [{"posix.readlink": "t"}, {"posix.readlink": NOTHING}, {"posix.readlink":
        failed(errno.EACCES)}]),
    "run": (alone(contained, "run", "OPTS", 5, ["sh"]), [
        {"launch.run": found} for found in (
            7, StateError("no"), failed(errno.EIO), MemoryError(), ValueError("v"), KeyboardInterrupt())
    ]),
    "report": (lambda w: contained.report(5, w.extra["text"]), [{"WITH": {"text": text}} for text in ("a\udcff", "x" *
        4001)]),
}  # fmt: skip


TABLES: Tables = [
    ("pyrunc.seccomp_tools.trace", TRACER, TRACE, ("poll", "Listener", "poll_of", "signal_descriptor")),
    ("pyrunc.seccomp_tools.record", RECORDER, {}, ()),
    ("pyrunc.seccomp_tools.explain", EXPLAIN, {"hints.did_you_mean": ""}, ("outcomes",)),
    ("pyrunc.seccomp_tools.profile", PROFILE, {}, ()),
    ("pyrunc.seccomp_tools.contained", TRACED, CONTAINED, ("poll", "filter_flags")),
]


@rows(TABLES)
def test_the_calls_of_a_function(module: str, name: str) -> None:
    transcript.compare("seccomp_steps", f"{module.rpartition('.')[2]}.{name}", calls_of(module, name, TABLES))


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_outcomes_of_a_call(name: str) -> None:
    call, cases = OUTCOMES[name]
    worlds = [World(case) for case in cases]
    lines = [line for w in worlds for line in spies.record(call, (w,), w.notes)]
    transcript.compare("seccomp_steps", f"outcomes.{name}", lines)
