"""What the commands that work themselves call, with each option and each failure, and what their functions
compute. golden/verb_tables.txt has the tables (PYRUNC_UPDATE_GOLDEN=1 rewrites them; then review the diff).
"""

from __future__ import annotations

import copy
import errno
import importlib
import json
import pwd
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import spies
import transcript
from json_type import Json
from pyrunc import build, cgroup, command, seccomp, state
from pyrunc.errors import ConfigError, Problem, PyruncError
from pyrunc.verbs import events, features, ps
from pyrunc.verbs import list as listing
from spies import Answers, Spy
from test_steps import failed

Case = tuple[dict[str, Any], list[str], dict[str, Any]]  # options, arguments, answers
LATE = [
    *(f"pyrunc.image.{name}" for name in ("locate", "store", "limits", "manifest", "unpack", "reference", "registry")),
    *(f"pyrunc.doctor.{name}" for name in ("findings", "machine", "run")), "pyrunc.verbs.plan", "pyrunc.plan.show",
    *(f"pyrunc.trace.{name}" for name in ("draw", "read", "svg")), "pyrunc.seccomp_tools.commands",
    *(f"pyrunc.launch.{name}" for name in ("create", "exec")), "pyrunc.checkpoint.dump",
]  # fmt: skip
# Classes and functions that a command imports by name, from a module that is not replaced.
NAMED = {
    "images": ["pyrunc.image.progress.Progress"],
    "unpack": ["pyrunc.image.progress.Progress"],
    "trace": ["pyrunc.trace.draw.Style"],
}
OWN = {"images": ["open_source", "platform"], "unpack": [], "trace": [], "list": [], "events": [], "ps": []}


def resolved(name: str) -> Any:
    """An image that was found."""
    blobs = [SimpleNamespace(blob=SimpleNamespace(size=size)) for size in (5, 6)]
    return SimpleNamespace(layers=blobs, manifest=SimpleNamespace(digest=f"sha256:{name}"), chain_id="chain")


def listed_image(number: int) -> Any:
    """An image of the store."""
    return {"digest": f"sha256:{number}{'0' * 63}", "layers": number, "size": number * 1_234_567,
            "references": ["b", "a"][:number]}  # fmt: skip


def referrer(kind: str) -> Any:
    """A referrer in a registry."""
    return SimpleNamespace(digest="sha256:1", artifact_type=kind, media_type="media", size=9)


ANSWERS: dict[str, Any] = {
    "command.out": 0, "locate.store_path": "/store", "manifest.resolve": resolved("m"), "fs.abspath": "/abs",
    "store.Store().list": [], "store.Store().prune": {"images": 2, "layers": 0, "bundles": 1},
    "store.Store().pull().lines": ["first", "second"], "locate.absolute": "docker://name",
    "reference.parse_registry": "parsed", "registry.open_registry().index": [SimpleNamespace(digest="sha256:0")],
    "registry.open_registry().referrers": [referrer("sbom"), referrer("")], "limits.parse": "LIMITS",
    "unpack.unpack": {"warnings": ["w1", "w2"], "digest": "sha256:d"}, "unpack.Options": "OPTIONS",
    "manifest.parse_platform": "PLATFORM", "manifest.host_platform": "HOST", "platform": "PLATFORM",
    "findings.as_json": {"checks": [1]}, "findings.as_text": "TEXT", "findings.counts": {"problem": 0},
    "run.examine": "FOUND",
    "plan.appearance": (90, True), "create.compile_only": ({"c": 1}, "FACTS", SimpleNamespace(cgroup_path="/cg")),
    "exec.compile_only": "EXEC PLAN", "show.as_json": {"steps": 1}, "show.fitted": "FITTED",
    "posix.get_terminal_size": SimpleNamespace(columns=77), "fs.getenv": "",
    "command.create_options": SimpleNamespace(id="ID"),
    "read.load": "FOUND", "read.as_json": {"commands": []}, "draw.draw": "DRAWN", "svg.picture": "<svg>\xe9",
    "posix.geteuid": 1000, "posix.getegid": 1001, "posix.open": 7, "posix.environ": {"A": "1"}, "posix.pipe": (5, 6),
    "posix.posix_spawnp": 31, "fs.read_fd": b"  PID\n5\n", "posix.waitpid": (31, 0), "posix.waitstatus_to_exitcode": 0,
    "processes.pids": ([5], ""), "state.root_dir": "/root", "state.Store().exists": True, "state.Store().list": [],
    "events.open_all": ([], []), "events.duration": 5.0, "Style": "STYLE",
    "default.config": {"default": 1}, "default.rootless": {"rootless": 1}, "default.own_ids": "IDS",
}  # fmt: skip
MANY = ConfigError([Problem("/a", "bad"), Problem("/b", "worse")])
ROWS = [listed_image(number) for number in (1, 2)]


def measured(id: str) -> Any:
    """An event of a container."""
    return {"type": "stats", "id": id, "data": 1}


def containers(*ids: str) -> Any:
    """Containers that can be listed and measured."""
    return [SimpleNamespace(id=id, data={"owner": 0}, report=lambda owner, id=id: {"id": id}) for id in ids]


CASES: dict[str, list[Case]] = {
    "doctor": [
        ({}, [], {}), ({"json": True}, [], {}), ({"bundle": "/b"}, [], {"findings.counts": {"problem": 3}}),
    ],
    "images": [
        *(({}, args, {}) for args in ([], ["list"], ["pull", "i"], ["prune"], ["pull"], ["list", "i"], ["prune", "i"],
                                      ["other"])),
        *((values, ["list"], {"store.Store().list": ROWS}) for values in ({}, {"json": True}, {"store": "/s"})),
        *((values, ["prune"], {}) for values in ({"all": True}, {"json": True})),
        ({}, ["prune"], {"store.Store().prune": {"images": 0}}),
        ({}, ["list"], {"store.Store().list": PyruncError("broken")}),
        ({"json": True, "limit": ["bytes=5"], "platform": "linux/arm64", "force": True, "quiet": True}, ["pull", "i"],
         {}),
        ({}, ["pull", "i"], {"manifest.resolve": PyruncError("none")}),
        ({}, ["pull", "i"], {"store.Store().pull": PyruncError("full")}),
        *((values, args, {}) for args in ([], ["prune"]) for values in (
            {"referrers": "docker://x"}, {"referrers": "docker://x", "json": True}, {"referrers": "x"})),
        ({"referrers": "docker://x"}, [], {"registry.open_registry().referrers": PyruncError("refused")}),
    ],
    "unpack": [
        ({}, ["dir", "/b"], {}), ({}, ["docker://x", "/b"], {}),
        ({"json": True, "volumes": "bind", "rootless": True, "limit": ["a=1"], "platform": "p", "force": True,
          "quiet": True}, ["dir", "/b"], {}),
        ({}, ["dir", "/b"], {"manifest.resolve": PyruncError("none")}),
        ({}, ["dir", "/b"], {"unpack.unpack": PyruncError("full")}),
    ],
    "plan": [
        ({}, [], {}), ({}, ["c1"], {}), ({"json": True}, [], {}), ({"exec": "p.json"}, [], {}),
        ({"exec": "p.json", "json": True}, [], {}), ({}, [], {"create.compile_only": MANY}),
        ({}, [], {"create.compile_only": ConfigError([Problem("/a", "bad")])}),
        ({"exec": "p"}, [], {"exec.compile_only": MANY}),
    ],
    "spec": [
        ({}, [], {}), ({"rootless": True, "bundle": "/b"}, [], {}), ({}, [], {"posix.open": FileExistsError(17, "x")}),
        ({"bundle": "/b"}, [], {"posix.open": failed(errno.EROFS)}), ({}, [], {"fs.write_all": failed(errno.ENOSPC)}),
    ],
    "trace": [
        *(({}, args, {}) for args in (["show", "f"], ["show"], ["other", "f"], ["show", "f", "g"])),
        ({"json": True}, ["show", "f"], {}), ({"svg": "/s", "all": True}, ["show", "f"], {}),
        ({"all": True}, ["show", "f"], {}), ({"svg": "/s", "json": True}, ["show", "f"], {}),
        ({"svg": "/s"}, ["show", "f"], {"fs.replace_file": failed(errno.EACCES)}),
        *(({}, ["show", "f"], answers | {"fs.getenv": spies.By(environment | {None: ""})}) for answers, environment in (
            ({}, {"TERM": "xterm"}), ({}, {"TERM": "xterm", "NO_COLOR": "1"}), ({}, {"TERM": "dumb"}),
            ({"posix.get_terminal_size": SimpleNamespace(columns=0)}, {"TERM": "xterm", "LANG": "C"}),
            ({"posix.get_terminal_size": failed(errno.ENOTTY)}, {"TERM": "xterm", "LANG": "de_DE.UTF-8"}),
            ({}, {"LC_ALL": "C", "LANG": "C.utf8"}), ({}, {"LC_CTYPE": "C.UTF-8", "LANG": "C"}),
        )),
    ],
    "events": [
        ({"format": "yaml"}, ["a"], {}), ({"format": "table"}, ["a"], {}),
        ({"interval": "x"}, ["a"], {"events.duration": None}),
        *(({"interval": "x"}, ["a"], {"events.duration": value}) for value in (0.0, -1.0, 0.001)),
        ({}, ["a", "b"], {"events.open_all": (containers("a"), ["b: gone", "c: gone"])}),
        *(({"stats": True, "format": format}, args, {"events.open_all": (containers(*args), []),
           "events.measure": answer, "table": "TABLE"})
          for format, args, answer in (
              ("json", ["a"], PyruncError("no")), ("json", ["a", "b"], Answers([PyruncError("no"), measured("b")])),
              ("json", ["a", "b"], measured("x")), ("table", ["a"], measured("a")))),
    ],
    "list": [
        ({"format": "yaml"}, [], {}), ({}, [], {"state.Store().exists": False}),
        *((values, [], {"state.Store().list": containers("a", "b"), "owner": "root", "table": "TABLE"})
          for values in ({}, {"quiet": True}, {"format": "json"})),
    ],
    "ps": [
        ({"format": "yaml"}, ["c1"], {}), ({}, ["c1", "-o", "pid"], {}), ({"format": "json"}, ["c1"], {}),
        ({}, ["c1"], {"processes.pids": ([5, 6], "/other")}),
        ({}, ["c1"], {"posix.posix_spawnp": failed(errno.ENOENT)}),
        ({}, ["c1"], {"fs.read_fd": b"\n \n  bad option \nmore\n", "posix.waitstatus_to_exitcode": 1}),
        ({}, ["c1", "-x", "y"], {"fs.read_fd": b"", "posix.waitstatus_to_exitcode": -9}),
        ({}, ["c1"], {"fs.read_fd": failed(errno.EIO)}), ({}, ["c1"], {"fs.read_fd": b"  PID\n\xff 5\n5\n6\n"}),
    ],
    "exec": [({"process": "p.json"}, ["c1"], {}), ({}, ["c1"], {}), ({}, ["c1", "sh"], {})],
}  # fmt: skip


def copied(value: Any) -> Any:
    """An answer that a command may change."""
    if isinstance(value, Answers):
        return Answers(value)
    return copy.deepcopy(value) if isinstance(value, tuple) else value


def calls(verb: str, values: dict[str, Any], args: list[str], given: dict[str, Any]) -> list[str]:
    """What a command calls."""
    notes: list[str] = []
    told = {key: spies.told(value, 5) for key, value in given.items()}
    answers = {key: copied(value) for key, value in (ANSWERS | given).items()}
    with pytest.MonkeyPatch.context() as patch:
        own = OWN.get(verb, [])
        late = [name for name in LATE if name != f"pyrunc.verbs.{verb}"]
        module = spies.replace(patch, f"pyrunc.verbs.{verb}", notes, answers, late=late, functions=own)
        for full in NAMED.get(verb, ()):
            package, _, name = full.rpartition(".")
            patch.setattr(importlib.import_module(package), name, spies.noting(name, notes, answers))
        answers["open_source"] = Spy("source", notes, answers)
        answers["state.Store().open"] = Spy("container", notes, answers, id="c1")
        for name in ("owner", "table"):
            if name in given:
                patch.setattr(module, name, spies.noting(name, notes, answers))
        context: Any = Spy("context", notes, answers, root="/root", log=Spy("log", notes, answers),
                           cgroup_manager="systemd")  # fmt: skip
        lines = spies.record(module.main, (context, values, args), notes)
    return [transcript.short(f"case {spies.told(values)} {args} {told}"), *lines]


@pytest.mark.parametrize("verb", CASES)
def test_what_a_command_calls(verb: str) -> None:
    transcript.compare("verb_tables", verb, [line for case in CASES[verb] for line in calls(verb, *case)])


def test_which_errors_of_list_are_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for error in (state.Damaged("damaged"), PyruncError("unreadable")):
        for values in ({}, {"quiet": True}):
            notes: list[str] = []

            class Store(Spy):
                def list(self, broken: Any, content: bool = True, error: PyruncError = error) -> Any:
                    broken(error)
                    return []

            answers: dict[str, Any] = {"state.Store": Store("store", notes, {"store.exists": True})}
            with pytest.MonkeyPatch.context() as patch:
                module = spies.replace(patch, "pyrunc.verbs.list", notes, answers)
                context: Any = Spy("context", notes, answers, root="", log=Spy("log", notes, answers))
                lines += spies.record(module.main, (context, values, []), notes)
    transcript.compare("verb_tables", "list: errors", lines)


def statistics(**changes: Any) -> Json:
    """Statistics of a container; an empty part stands for a controller that is missing."""
    whole: Json = {
        "cpu": {"usage": {"total": 1_234_567_890}, "throttling": {"throttledTime": 5_000_000}},
        "memory": {"usage": {"usage": 5000, "limit": 1 << 63}, "swap": {"usage": 7000}, "raw": {}},
        "pids": {"current": 3, "limit": 9},
        "blkio": {"ioServiceBytesRecursive": [
            {"op": "Read", "value": 5}, {"op": "Write", "value": 6}, {"op": "Read"}, {"op": "Write"},
            {"op": "Read", "value": 2048}, {"op": "Sync", "value": 99},
        ]},
    }  # fmt: skip
    return whole | changes


NOTHING: Json = {"usage": {"limit": 0}, "swap": {}}


def test_the_table_of_statistics() -> None:
    some = [
        statistics(),
        statistics(cpu={"usage": {}, "throttling": {}}),
        statistics(memory=NOTHING, pids={}, blkio={}),
        statistics(memory=NOTHING | {"raw": {}}, pids={"current": 5}, blkio={"ioServiceBytesRecursive": []}),
        statistics(memory={"usage": {"usage": 7, "limit": (1 << 63) - 1}, "swap": {"usage": 7}, "raw": {}}),
    ]
    rows: Any = [{"id": f"c{number}", "data": data} for number, data in enumerate(some)]
    sizes = [0, 1, 1023, 1024, 1025, 1536, 10239, 102399, 102400, 999 << 10,
             *(1 << power for power in range(20, 64, 9)), *(5 << power for power in range(10, 61, 10)),
             (1 << 64) - 1]  # fmt: skip
    lines = [
        events.table(rows), " ".join(f"{value}:{events.size(value)}" for value in sizes),
        " ".join(events.seconds(value) for value in (0, 999_999, 1_000_000, 10**9 - 1, 10**9, 61 * 10**9)),
    ]  # fmt: skip
    transcript.compare("verb_tables", "events.table", lines)


def test_an_event_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(command, "out", written.append)
    event: Any = {"type": "oom", "id": "c1"}
    events.emit(event)
    assert written == ['{"type":"oom","id":"c1"}\n']


def test_the_columns_of_list(monkeypatch: pytest.MonkeyPatch) -> None:
    reports = [{key.lower(): f"{key.lower()}{'x' * number}" for key in listing.HEADER} for number in (0, 5, 20)]
    lines = [listing.table(reports), listing.table([]), listing.columns([("a", "b"), ("123456789", "")])]
    lines += [listing.columns([("1234567890", "b")])]
    transcript.compare("verb_tables", "list.table", lines)
    asked: list[int] = []

    def getpwuid(uid: int) -> Any:
        asked.append(uid)
        if uid:
            raise KeyError(uid)
        return SimpleNamespace(pw_name="root")

    monkeypatch.setattr(pwd, "getpwuid", getpwuid)
    names: dict[int, str] = {}
    assert [listing.owner(uid, names) for uid in (0, 5, 0, 5)] == ["root", "#5", "root", "#5"] and asked == [0, 5]


def test_a_container_that_goes_while_it_is_listed() -> None:
    broken: list[str] = []

    class Gone(SimpleNamespace):
        def report(self, owner: str) -> Any:
            raise OSError(self.number, "x")

    store: Any = SimpleNamespace(list=lambda broken: [
        Gone(id="a", number=errno.EIO, data={}), Gone(id="b", number=None, data={}), *containers("c"),
    ])  # fmt: skip
    shown: list[Any] = [*listing.reports(store, lambda error: broken.append(f"{type(error).__name__} {error}"))]
    assert shown == [{"id": "c"}]
    assert broken == ["SysError container a: EIO: input/output error", "SysError container b"]


def test_the_lines_of_ps() -> None:
    lines = []
    for text in ("", "USER\nroot", "PID", "  PID TTY\n    5 ?\n    6 ?\n   55 ?\n", "USER PID\nroot 5\nx y 5\nroot 6",
                 "USER       PID\na b c      5\na b c      6", "PID\n\n-5\n\xb2\n5"):  # fmt: skip
        try:
            lines.append(f"{text!r}: {ps.table(text, {5})!r}")
        except PyruncError as error:
            lines.append(f"{text!r}: {error}")
    lines += [f"{line!r} {place}: {ps.pid_of(line, *place)}" for line, place in (
        ("a 5 b", (1, 3)), ("a b", (1, 3)), ("a", (1, 1)), ("", (0, 3)), ("7", (1, 1)), ("x 7 8", (5, 3)),
    )]  # fmt: skip
    transcript.compare("verb_tables", "ps.table", lines)


def test_the_document_of_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the same on all hosts, but for what libseccomp and the kernel support."""
    monkeypatch.setattr(seccomp, "usable_architectures", lambda: ["ARCH"])
    monkeypatch.setattr(seccomp, "usable_flags", lambda: ["FLAG"])
    monkeypatch.setattr(build, "libseccomp", lambda: "VERSION")
    written: list[str] = []

    def out(text: str) -> int:
        written.append(text)
        return 5

    monkeypatch.setattr(command, "out", out)
    context: Any = None
    assert features.main(context, {}, []) == 5
    text = written[0]
    assert json.loads(text) == features.describe() and text.endswith("\n}\n") and '\n    "linux"' in text
    monkeypatch.setattr(cgroup, "MANAGERS", ["cgroupfs"])
    without: Json = features.describe()
    told: Json = [without["linux"]["cgroup"], without["potentiallyUnsafeConfigAnnotations"]]
    transcript.compare("verb_tables", "features", [*text.splitlines(), json.dumps(told)])
