"""FAIL records in terms of config.json."""

from __future__ import annotations

import errno
import json

import pytest

from json_type import Json
from plan_support import compiled, names
from pyrunc import handshake
from pyrunc.plan import Plan, faults, ops

CONFIG: Json = {
    "process": {"args": ["prog", "x"], "env": ["PATH=/bin"]},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "size=1m", "bogus=1"]},
        {"destination": "/data", "source": "/gone", "options": ["rbind"]},
    ],
    "linux": {
        "namespaces": [{"type": "mount"}, {"type": "pid", "path": "/ns/pid"}],
        "maskedPaths": ["/proc/kcore"],
        "sysctl": {"net.ipv4.ip_forward": "2"},
        "devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}],
    },
    "hooks": {"startContainer": [{"path": "/hook"}]},
}


class Record(handshake.Record):
    """One with ``arg`` by name."""

    def __init__(
        self, plan: Plan, op: str, nth: int = 0, arg: str = "", item: int = 0, err: int = 2, **words: str
    ) -> None:
        order = names(plan)
        self.step = [index for index, name in enumerate(order) if name == op][nth]
        code = plan.steps[self.step][0]
        slots = {name: slot for name, _, _, _, slot in ops.OPS[code][2]}
        self.arg = slots[arg] + 1 if arg else 0
        self.item, self.err = item, err
        self.call, self.detail = words.get("call", "open"), words.get("detail", "")


@pytest.fixture
def plan() -> Plan:
    return compiled(CONFIG)


@pytest.fixture(autouse=True)
def no_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without hints, which have tests of their own."""
    hints = pytest.importorskip("pyrunc.hints")
    monkeypatch.setattr(hints, "find", lambda op, number: "")


def test_error_for_an_unknown_mount_option(plan: Plan) -> None:
    record = Record(
        plan, "MOUNT", 1, "data", 1, errno.EINVAL, call="fsconfig", detail="tmpfs: Unknown parameter 'bogus'"
    )
    expected = "/mounts/1/options \"bogus=1\" (/dev): fsconfig: EINVAL: tmpfs: Unknown parameter 'bogus'"
    assert str(faults.error(plan, record)) == expected


@pytest.mark.parametrize(
    ("op", "nth", "arg", "where", "value", "context"),
    [
        ("MOUNT", 0, "fstype", "/mounts/0/type", "proc", "/proc"),
        ("MOUNT", 0, "dest", "/mounts/0/destination", "/proc", ""),
        ("MOUNT", 2, "source", "/mounts/2/source", "/gone", "/data"),
        ("MOUNT", 1, "", "/mounts/1", None, "/dev"),
        ("JOIN_NS", 0, "path", "/linux/namespaces/1/path", "/ns/pid", ""),
        ("JOIN_NS", 0, "", "/linux/namespaces/1", None, ""),
        ("ROOT", 0, "path", "/root/path", "/b/rootfs", ""),
        ("DEV_NODE", 0, "path", "(default device)", "/dev/null", ""),
        ("DEV_NODE", 6, "path", "/linux/devices/0/path", "/dev/x", ""),
        ("MASK_PATH", 0, "", "/linux/maskedPaths/0", "/proc/kcore", ""),
        ("MASK_PATH", 0, "path", "/linux/maskedPaths/0", "/proc/kcore", ""),
        ("SYSCTL", 0, "value", "/linux/sysctl/net.ipv4.ip_forward", "2", ""),
        ("SYSCTL", 0, "", "/linux/sysctl/net.ipv4.ip_forward", None, ""),
        ("HOOK", 0, "path", "/hooks/startContainer/0/path", "/hook", ""),
        ("CAPS", 0, "", "(default)", None, ""),
        ("GROUPS", 0, "", "/process/user/additionalGids", None, ""),
        ("FIND_EXE", 0, "file", "/process/args/0", "prog", ""),
        ("EXECVE", 0, "args", "/process/args/0", "prog", ""),
    ],
)
def test_where(plan: Plan, op: str, nth: int, arg: str, where: str, value: str | None, context: str) -> None:
    fault = faults.describe(plan, Record(plan, op, nth, arg))
    assert (fault.where, fault.value, fault.context, fault.op) == (where, value, context, op)


@pytest.mark.parametrize(("op", "arg"), [("HOOK", "path"), ("EXECVE", "args"), ("WAIT_START", "")])
def test_saved_steps_give_the_same_error(plan: Plan, op: str, arg: str) -> None:
    """`start` reports from state.json what `create` would have reported."""
    late = json.loads(json.dumps(plan.late_origins()))
    record = Record(plan, op, 0, arg, err=errno.EACCES)
    assert str(faults.saved_error(late, record)) == str(faults.error(plan, record))


@pytest.mark.parametrize("source", ["plan", "saved"])
def test_unknown_step(plan: Plan, source: str) -> None:
    record = Record(plan, "EXECVE")
    record.step = 0xFFFFFFFF
    fault = faults.describe(plan if source == "plan" else plan.late_origins(), record)
    assert (fault.where, fault.value, fault.op) == ("init", None, "")


def test_item_out_of_range(plan: Plan) -> None:
    assert faults.describe(plan, Record(plan, "MOUNT", 1, "data", item=99)).value is None


@pytest.mark.parametrize(
    ("args", "op", "arg", "err", "words"),
    [
        (["prog"], "FIND_EXE", "file", errno.ENOENT, "executable file not found in $PATH"),
        (["/bin/prog"], "FIND_EXE", "file", errno.ENOENT, "no such file or directory"),
        (["prog"], "FIND_EXE", "file", errno.EACCES, "permission denied"),
        (["prog"], "CHDIR", "cwd", errno.ENOENT, "no such file or directory"),
        (["prog"], "CHDIR", "cwd", errno.EACCES, "permission denied"),
    ],
)
def test_words_that_callers_match(args: list[str], op: str, arg: str, err: int, words: str) -> None:
    """podman maps them to exit code 127 or 126, containerd to not-found."""
    plan = compiled({"process": {"args": args}})
    text = str(faults.error(plan, Record(plan, op, 0, arg, err=err, call="execve")))
    assert text.startswith("/process/cwd" if op == "CHDIR" else "/process/args") and words in text
    assert op == "CHDIR" or args[0] in text


@pytest.mark.parametrize(
    ("err", "words"),
    [
        (errno.ENOENT, "exec /bin/prog: no such file or directory (the program, its #! interpreter or its ELF loader)"),
        (errno.ENOEXEC, "exec /bin/prog: exec format error"),
        (errno.EACCES, "exec /bin/prog: permission denied"),
        (errno.E2BIG, "exec /bin/prog: argument list too long"),
        (errno.ELIBBAD, "execve: ELIBBAD: exec /bin/prog"),
    ],
)
def test_failed_execve_has_the_words_of_go(err: int, words: str) -> None:
    """init reports the path that it found, not the given name."""
    plan = compiled({"process": {"args": ["prog"]}})
    text = str(faults.error(plan, Record(plan, "EXECVE", 0, "args", err=err, call="execve", detail="exec /bin/prog")))
    assert text.startswith('/process/args/0 "prog": execve: ') and text.endswith(words)


@pytest.mark.parametrize(
    ("option", "words"),
    [("nosiud", "; did you mean nosuid?"), ("siz", "; did you mean size?"), ("bogus", "'bogus'"), ("", "''")],
)
def test_misspelled_mount_option(option: str, words: str) -> None:
    """The filesystem treats an unknown mount option as one of its own."""
    plan = compiled({"mounts": [{"destination": "/m", "type": "tmpfs", "source": "x", "options": [f"{option}=1"]}]})
    detail = f"tmpfs: Unknown parameter '{option}'"
    text = str(faults.error(plan, Record(plan, "MOUNT", 0, "data", err=errno.EINVAL, call="fsconfig", detail=detail)))
    assert text.endswith(words)


def test_other_missing_files_have_other_words(plan: Plan) -> None:
    text = str(faults.error(plan, Record(plan, "MOUNT", 2, "source", call="open_tree")))
    assert text == '/mounts/2/source "/gone" (/data): open_tree: ENOENT: path not found'


def test_kernel_message_takes_precedence(plan: Plan) -> None:
    text = str(faults.error(plan, Record(plan, "FIND_EXE", 0, "file", detail="a directory")))
    assert text.endswith(": a directory")
