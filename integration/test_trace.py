"""--trace: the actions of a command and their durations, in the runtime and in init. A trace
affects nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import REPO, Box, Container

Make = Callable[..., Container]
pytestmark = pytest.mark.pyrunc_only("other runtimes have no --trace")
TRACEPARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


class Trace:
    """The spans of one trace FILE."""

    def __init__(self, path: Path) -> None:
        events = json.loads(path.read_bytes())["traceEvents"]
        self.spans = [event for event in events if event["ph"] == "X"]
        self.names = {event["args"]["name"] for event in events if event["name"] == "process_name"}

    def command(self, verb: str) -> dict[str, Any]:
        """The span of a command."""
        found: dict[str, Any]
        [found] = [span for span in self.spans if span["cat"] == "command" and span["name"].split()[0] == verb]
        return found

    def of(self, verb: str, *kinds: str, init: bool = False) -> list[dict[str, Any]]:
        """The spans of a command on the runtime's own track, or on init's."""
        pid = self.command(verb)["pid"]
        return [
            span
            for span in self.spans
            if span["pid"] == pid and (span["tid"] != pid) == init and (not kinds or span["cat"] in kinds)
        ]

    def steps(self, verb: str) -> list[dict[str, Any]]:
        return self.of(verb, "step", init=True)


def nested(spans: list[dict[str, Any]]) -> None:
    """Check that any two spans of a track are nested or disjoint. ``ts`` has the precision of a
    double."""
    open_: list[float] = []
    for span in sorted(spans, key=lambda span: (span["ts"], -span["dur"])):
        begin, end = span["ts"], span["ts"] + span["dur"]
        while open_ and open_[-1] <= begin + 1:
            open_.pop()
        assert not open_ or end <= open_[-1] + 1, f"{span['name']} crosses the end of what it began in"
        open_.append(end)


def plan_of(one: Container) -> list[dict[str, Any]]:
    """The steps that `pyrunc plan` prints."""
    steps: list[dict[str, Any]] = json.loads(one.call("plan", "--json", "-b", str(one.bundle.path), one.id).out)[
        "steps"
    ]
    return steps


def lived(one: Container, file: Path, prefix: str = "") -> Trace:
    """Run create, start, exec and delete, all of them traced."""
    options = ("--trace", f"{prefix}{file}")
    one.create(globals_=options)
    one.start(globals_=options)
    one.call("exec", one.id, "/probe", "exit", "0", globals_=options)
    one.delete("--force", globals_=options)
    return Trace(file) if not prefix else None  # type: ignore[return-value]


def test_a_life_in_one_file(container: Make, box: Box) -> None:
    one, file = container("sleep", "100"), box.path / "trace.json"
    trace = lived(one, file)
    for verb in ("create", "start", "exec", "delete"):
        command = trace.command(verb)
        assert command["args"]["exit"] == 0 and command["name"] == f"{verb} {one.id}"
        nested(trace.of(verb))
        nested(trace.of(verb, init=True))
        inside = trace.of(verb, init=True) + trace.of(verb)
        assert min(span["ts"] for span in inside) >= command["ts"] - 1
        assert max(span["ts"] + span["dur"] for span in inside) <= command["ts"] + command["dur"] + 1
    begins = [trace.command(verb)["ts"] for verb in ("create", "start", "exec", "delete")]
    assert begins == sorted(begins)
    assert file.stat().st_mode & 0o777 == 0o600
    assert trace.names == {f"pyrunc {verb} {one.id}" for verb in ("create", "start", "exec", "delete")}


def test_every_step_once_with_its_field(container: Make, box: Box) -> None:
    one = container("sleep", "100")
    trace = lived(one, box.path / "trace.json")
    plan = plan_of(one)
    seen = trace.steps("create") + trace.steps("start")
    assert [(span["args"]["step"], span["name"].split()[0], span["args"]["pointer"]) for span in seen] == [
        (step["step"], step["op"], step["origin"]) for step in plan
    ]
    assert [span["name"].split()[0] for span in trace.steps("start")] == ["EXECVE"]
    joined = [span["name"].split()[0] for span in trace.steps("exec")]
    assert {"JOIN_NS", "CLONE_INIT"} <= set(joined) and joined[-1] == "EXECVE"
    assert not any("untimed" in span["args"] for span in seen)


@pytest.mark.parametrize("verb", ["create", "start", "delete"])
def test_the_parts_make_the_whole(container: Make, box: Box, verb: str) -> None:
    """At most a tenth of a command's time is outside its parts, and of init's time between its
    first and last step outside the steps; a busy machine may interrupt either."""
    shares, filled = [], []
    for number in range(5):
        one = container("sleep", "100")
        trace = lived(one, box.path / f"trace{number}.json")
        command, parts = trace.command(verb), trace.of(verb)
        top, end = 0.0, 0.0
        for span in sorted((part for part in parts if part is not command), key=lambda p: (p["ts"], -p["dur"])):
            if span["ts"] + span["dur"] > end:
                top += span["ts"] + span["dur"] - max(end, span["ts"])
                end = span["ts"] + span["dur"]
        shares.append(top / command["dur"])
        steps = trace.steps(verb)
        assert bool(steps) == (verb != "delete")
        if steps:
            whole = max(span["ts"] + span["dur"] for span in steps) - min(span["ts"] for span in steps)
            filled.append(sum(span["dur"] for span in steps) / whole)
        if shares[-1] > 0.9 and (not filled or filled[-1] > 0.9):
            break
    assert max(shares) > 0.9, shares
    assert not filled or max(filled) > 0.9, filled


def test_hooks_with_their_exit(container: Make, box: Box) -> None:
    hooks = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", "sleep 0.03", kind]}]
        for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    hooks["startContainer"] = [{"path": "/probe", "args": ["probe", "exit", "0"]}]
    one, file = container("sleep", "100", edits={"/hooks": hooks}), box.path / "trace.json"
    trace = lived(one, file)
    for kind, verb in (
        ("prestart", "create"),
        ("createRuntime", "create"),
        ("poststart", "start"),
        ("poststop", "delete"),
    ):
        [span] = [span for span in trace.of(verb, "hook") if span["args"]["pointer"] == f"/hooks/{kind}/0"]
        assert span["args"]["argv"] == hooks[kind][0]["args"] and span["args"]["exit"] == 0 and span["dur"] >= 30_000
    for kind, verb in (("createContainer", "create"), ("startContainer", "start")):
        [span] = [span for span in trace.steps(verb) if span["args"]["pointer"] == f"/hooks/{kind}/0"]
        assert span["args"]["argv"] == hooks[kind][0]["args"] and span["args"]["exit"] == 0
    assert [span["name"].split()[0] for span in trace.steps("start")] == ["HOOK", "EXECVE"]


@pytest.mark.parametrize(
    ("kind", "status", "key"),
    [("createRuntime", "exit 7", "exit"), ("createRuntime", "kill -9 $$", "signal"), ("createContainer", "exit 7", "")],
)
def test_a_hook_that_fails(container: Make, box: Box, kind: str, status: str, key: str) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", status]}
    one, file = container("exit", "0", edits={f"/hooks/{kind}": [hook]}), box.path / "trace.json"
    result = one.create(check=False, globals_=("--trace", str(file)))
    trace = Trace(file)
    command = trace.command("create")
    assert result.rc == 1 and f"/hooks/{kind}/0" in command["args"]["error"]
    assert any(span["name"] == "undo" for span in trace.of("create"))
    if kind == "createRuntime":
        [span] = trace.of("create", "hook")
        assert span["args"][key] == (7 if key == "exit" else 9) and kind in span["args"]["error"]
    else:
        last = trace.steps("create")[-1]
        assert last["name"].startswith("HOOK") and "exit" not in last["args"] and last["dur"] > 0


def test_a_failing_step_is_the_last_one(container: Make, box: Box) -> None:
    edits = {"/mounts/-": {"destination": "/mnt", "type": "tmpfs", "options": ["bogus=1"]}}
    one, file = container("exit", "0", edits=edits), box.path / "trace.json"
    assert one.create(check=False, globals_=("--trace", str(file))).rc == 1
    trace = Trace(file)
    last = trace.steps("create")[-1]
    number = len(one.bundle.config["mounts"]) - 1
    assert (last["name"], last["args"]["pointer"]) == ("MOUNT /mnt", f"/mounts/{number}")
    assert "bogus" in trace.command("create")["args"]["error"]


def test_writes_into_the_cgroup(container: Make, box: Box) -> None:
    edits = {"/linux/resources/unified": {"cgroup.max.depth": "7"}}
    one, file = container("sleep", "100", edits=edits), box.path / "trace.json"
    trace = lived(one, file)
    writes = {span["name"]: span["args"] for span in trace.of("create", "cgroup")}
    assert writes["write cgroup.max.depth"]["value"] == "7"
    assert writes["write cgroup.max.depth"]["path"] == f"{one.cgroup}/cgroup.max.depth"
    assert {"mkdir cgroup", "rmdir cgroup"} <= {span["name"] for span in trace.spans if span["cat"] == "cgroup"}


def test_run_in_the_foreground(container: Make, box: Box) -> None:
    one, file = container("sleep", "0.1"), box.path / "trace.json"
    one.run(globals_=("--trace", str(file)))
    trace = Trace(file)
    assert len(trace.steps("run")) == len(plan_of(one))
    [span] = [span for span in trace.of("run") if span["name"] == "the program runs"]
    assert span["dur"] >= 80_000
    nested(trace.of("run"))


def test_no_values_of_the_environment(container: Make, box: Box) -> None:
    one, file = container("exit", "0", edits={"/process/env/-": "PASSWORD=hunter2"}), box.path / "trace.json"
    one.run(globals_=("--trace", str(file)), env=os.environ | {"TOKEN": "hunter2"})
    one.create(globals_=("--trace", f"otlp:{file}.otlp"))
    assert b"hunter2" not in file.read_bytes() and b"hunter2" not in Path(f"{file}.otlp").read_bytes()


def test_the_variable_is_for_what_changes_a_container(container: Make, box: Box) -> None:
    one, file = container("exit", "0"), box.path / "trace.json"
    environment = os.environ | {"PYRUNC_TRACE": str(file)}
    one.create(env=environment)
    before = file.read_bytes()
    one.call("state", one.id, env=environment)
    one.call("list", env=environment)
    assert file.read_bytes() == before
    one.delete("--force", env=environment)
    assert [span["name"] for span in Trace(file).spans if span["cat"] == "command"] == [
        f"create {one.id}",
        f"delete {one.id}",
    ]


# -- OpenTelemetry ---------------------------------------------------------------------------------


def otlp(file: Path) -> list[dict[str, Any]]:
    """The spans of all lines, with their attributes as a dictionary."""
    spans = []
    for line in file.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                spans += scope["spans"]
    for span in spans:
        span["attributes"] = {entry["key"]: entry["value"] for entry in span["attributes"]}
    return spans


def test_traceparent_is_honoured_and_passed_on(container: Make, box: Box) -> None:
    """Hooks with their own environment get it as well; each sees the span that it runs in."""

    def hook(kind: str, **more: Any) -> dict[str, Any]:
        return {"path": "/bin/sh", "args": ["sh", "-c", f"echo $TRACEPARENT >{box.path}/{kind}"], **more}

    hooks = {"createRuntime": [hook("createRuntime")], "createContainer": [hook("createContainer", env=["A=1"])]}
    one, file = container("sleep", "100", edits={"/hooks": hooks}), box.path / "trace.otlp"
    environment = os.environ | {"TRACEPARENT": TRACEPARENT}
    one.create(globals_=("--trace", f"otlp:{file}"), env=environment)
    spans = otlp(file)
    by_id = {span["spanId"]: span for span in spans}
    assert len(by_id) == len(spans) and {span["traceId"] for span in spans} == {TRACEPARENT.split("-")[1]}
    roots = [span for span in spans if span["parentSpanId"] not in by_id]
    assert [(span["name"], span["parentSpanId"]) for span in roots] == [(f"create {one.id}", TRACEPARENT.split("-")[2])]
    for kind in hooks:
        version, trace, parent, flags = (box.path / kind).read_text().strip().split("-")
        assert (version, trace, flags) == ("00", TRACEPARENT.split("-")[1], "01")
        assert by_id[parent]["attributes"]["pointer"]["stringValue"] == f"/hooks/{kind}/0"
    assert min(int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"]) for span in spans) >= 0


def test_hooks_are_not_changed_by_a_trace_of_the_other_kind(container: Make, box: Box) -> None:
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"env >{box.path}/env"], "env": ["A=1"]}
    one = container("exit", "0", edits={"/hooks/createContainer": [hook]})
    one.create(globals_=("--trace", str(box.path / "trace.json")))
    assert "TRACEPARENT" not in (box.path / "env").read_text()


# -- what a trace must not do ----------------------------------------------------------------------


def test_a_full_disk_changes_nothing(container: Make, box: Box) -> None:
    one = container("say", "hello")
    one.create(globals_=("--trace", "/dev/full", "--log", str(box.path / "log")))
    one.start(globals_=("--trace", "/dev/full"))
    one.wait()
    assert one.out.split() == ["hello"]
    assert "--trace: the trace is not written: ENOSPC" in (box.path / "log").read_text()


@pytest.mark.parametrize("place", ["no/such/directory", "link", "directory", "fifo", "other"])
def test_a_file_that_cannot_be_used_is_an_error_before_anything(container: Make, box: Box, place: str) -> None:
    (box.path / "target").write_text("")
    (box.path / "link").symlink_to("target")
    (box.path / "directory").mkdir()
    os.mkfifo(box.path / "fifo")
    (box.path / "other").write_text('{"ociVersion": "1.0.0"}\n')
    one = container("exit", "0")
    for name in ("--trace", "PYRUNC_TRACE"):
        file = str(box.path / place)
        globals_ = ("--trace", file) if name == "--trace" else ()
        environment = os.environ | {"PYRUNC_TRACE": file}
        result = one.create(check=False, globals_=globals_, env=environment, err=box.path / name)
        text = (box.path / name).read_text()
        assert result.rc == 1
        assert text.count("\n") == 1 and text.startswith(f'pyrunc: error: {name} "{file}": '), text
    assert not box.root.exists() or not list(box.root.iterdir())
    assert (box.path / "other").read_text() == '{"ociVersion": "1.0.0"}\n'


def test_the_program_has_no_descriptor_of_it(container: Make, box: Box) -> None:
    one = container("report")
    one.run(globals_=("--trace", str(box.path / "trace.json")))
    plain = container("report")
    plain.run()
    file = box.path / "fds"
    hook = {"path": "/bin/sh", "args": ["sh", "-c", f"ls -l /proc/self/fd >{file}"]}
    container("exit", "0", edits={"/hooks/createRuntime": [hook]}).run(globals_=("--trace", str(box.path / "t2.json")))
    assert "t2.json" not in file.read_text()


def test_a_profile_without_a_clock_ends_the_times(container: Make, box: Box) -> None:
    """init may read the clock by a system call, for which a filter may kill it."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["clock_gettime"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    one, file = container("exit", "0", edits={"/linux/seccomp": profile}), box.path / "trace.json"
    one.create(globals_=("--trace", str(file)))
    one.start(globals_=("--trace", str(file)))
    assert one.wait() == 0
    trace = Trace(file)
    plan = plan_of(one)
    seen = trace.steps("create")
    assert [span["name"].split()[0] for span in seen] == [step["op"] for step in plan[: len(seen)]]
    assert next(span["name"].split()[0] for span in seen if "untimed" in span["args"]) == "SECCOMP"


def test_many_commands_at_once(container: Make, box: Box) -> None:
    """The file contains every command."""
    file = box.path / "trace.json"
    one = container("sleep", "100")
    one.create()
    one.start()
    argv = [str(box.runtime.path), "--root", str(box.root), "--trace", str(file), "exec", one.id, "/probe", "exit", "0"]
    running = [subprocess.Popen(argv, stdin=subprocess.DEVNULL) for _ in range(8)]
    assert [child.wait(60) for child in running] == [0] * 8
    commands = [span for span in Trace(file).spans if span["cat"] == "command"]
    assert len(commands) == 8


@pytest.mark.parametrize("prefix", ["", "otlp:"])
def test_show(container: Make, box: Box, prefix: str) -> None:
    one, file = container("sleep", "100"), box.path / "trace"
    lived(one, file, prefix)
    shown = one.call("trace", "show", "--all", str(file)).out.splitlines()
    heads = [line.partition(":")[0] for line in shown if "exit status 0" in line]
    assert heads == [f"{verb} {one.id}" for verb in ("create", "start", "exec", "delete")]
    assert sum("PIVOT" in line for line in shown) == 1 and sum("EXECVE" in line for line in shown) == 2
    one.call("trace", "show", "--svg", str(box.path / "t.svg"), str(file))
    assert (box.path / "t.svg").read_text().startswith("<svg ")
    commands = json.loads(one.call("trace", "show", "--json", str(file)).out)["commands"]
    assert [command["name"] for command in commands] == heads


def test_the_commands_of_the_readme(container: Make, box: Box) -> None:
    one = container("sleep", "100")
    one.bundle.save()
    text = (REPO / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```sh\n(.*?)```", text[text.index("## Where the time goes") :], re.DOTALL)
    assert found
    script = (
        found[1].replace("/tmp/demo.json", str(box.path / "demo.json")).replace("-b bundle", f"-b {one.bundle.path}")
    )
    script = re.sub(r" demo\b(?!\.)", f" {one.id}", script)
    script = f'pyrunc() {{ "{box.runtime.path}" --root "{box.root}" "$@"; }}\nset -e\n{script}'
    done = subprocess.run(
        ["sh", "-c", script], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=box.path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [f"{verb} {one.id}: " in done.stdout for verb in ("create", "start", "delete")] == [True] * 3
    assert (box.path / "demo.svg").exists()
