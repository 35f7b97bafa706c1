"""The Python targets of `make fuzz`: each takes bytes and raises when something does not hold that
always must.

F3 (the C plan decoder), F4 (the path walker) and the texts that init reads are C:
native/tests/fuzz_*.c.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import plan_support
import test_cgroup_devices as devices_model
import work
from fuzz import argv, configs, decoder, images, models, profiles
from fuzz.draw import Draw
from json_type import Json
from pyrunc import cgroup, fs, jsontext, log, procfs, signals, state
from pyrunc.cgroup import devices, resources
from pyrunc.checkpoint import messages, protobuf
from pyrunc.container import events, salvage, update
from pyrunc.errors import Capped, PyruncError, StateError
from pyrunc.handshake import (
    CREATE,
    CREATE_AHEAD,
    JOIN,
    JOIN_AHEAD,
    PLACE_AHEAD,
    RECORD_SIZE,
    RUN_AHEAD,
    STATES,
    Protocol,
    ProtocolError,
    Record,
)
from pyrunc.plan import Plan, context, create, show
from pyrunc.plan import exec as plan_exec
from pyrunc.plan.mount_options import ATIME_FIELD, OPTIONS, Flags, clean
from pyrunc.spec import exec_process, load, names, validate

SECONDS = 2.0  # of processor time for one small input

Target = Callable[[bytes], None]
NO_PROCESS: Json = {}


class Host(plan_support.Facts):
    """The stub host, with what validation asks besides."""

    def own_namespace(self, kind: str, path: str) -> bool:
        return False


@contextlib.contextmanager
def refusing(kind: type[Exception] = PyruncError) -> Iterator[None]:
    """Carry out something that may refuse its input, in one printable line and in time."""
    with work.at_most(SECONDS):
        try:
            yield
        except kind as error:
            text = str(error)
            assert text and text.isprintable(), text


def read_config(data: bytes) -> Plan:
    """All that happens to a config.json before anything is touched.  Raises PyruncError."""
    facts = Host()
    config = load.parse_json(data, "config.json")
    validate.check(config, facts=facts)
    limits: Json = (config.get("linux") or {}).get("resources") or {}
    resources.convert(limits)
    devices.program(limits.get("devices"))
    path = cgroup.path_for((config.get("linux") or {}).get("cgroupsPath") or "", "c1", facts, "cgroupfs")
    assert path.startswith("/") and ".." not in path.split("/")
    plan = create.compile_create(config, facts, plan_support.options(cgroup_path=path))
    assert len(plan.steps) == len(plan.origins)
    assert show.text(plan, config) and show.as_json(plan, config)
    return plan


def config_bytes(data: bytes) -> None:
    """F1: any config.json gives a plan, or a PyruncError in one line; nothing else, and in bounded
    time."""
    draw = Draw(data)
    document = draw.rest() if draw.one_in(8) else configs.document_bytes(draw, configs.config(draw))
    with refusing():
        read_config(document).encode()


class RoundTrip:
    """F2: what the C decoder reads is what the compiler wrote."""

    decoder: decoder.Decoder | None = None

    def __call__(self, data: bytes) -> None:
        draw = Draw(data)
        with refusing():
            plan = read_config(configs.document_bytes(Draw(draw.rest() + b"\0" * 8), configs.config(Draw(data))))
            if draw.one_in(2):
                plan.npreserve = draw.below(1000)
            blob = plan.encode()
            assert self.decoder is not None
            assert self.decoder.decode(blob) == decoder.expected(plan)


round_trip = RoundTrip()


def process_json(data: bytes) -> None:
    """A process.json of `exec`, like F1."""
    draw = Draw(data)
    document = configs.config(draw)
    process = document.get("process") if type(document) is dict else document
    container: Json = configs.documents()[draw.below(len(configs.documents()))]
    with refusing():
        parsed = exec_process.parse(configs.document_bytes(draw, process), "process.json")
        own: Json = container.get("process") or {}
        parsed = exec_process.inherit(parsed, own)
        exec_process.check(parsed, Host(), "process.json")
        plan_exec.compile_exec(container, parsed, Host(), context.Options("c1")).encode()


def resources_json(data: bytes) -> None:
    """The resources of `update`: parsed, merged, checked, converted."""
    draw = Draw(data)

    def limits() -> Any:
        document = configs.config(draw)
        linux = document.get("linux") if type(document) is dict else None
        return linux.get("resources") if type(linux) is dict else document

    stored: Json = configs.documents()[draw.below(len(configs.documents()))].get("linux", {}).get("resources") or {}
    text = configs.document_bytes(draw, limits())
    with tempfile.NamedTemporaryFile() as file, refusing():
        file.write(text)
        file.flush()
        new = update.asked(update.from_file(file.name))
        out = update.check(new, update.merge(stored, new), Silent())
        resources.convert(out, "")


class Silent(log.Log):
    """A log that nobody reads."""

    def warnings(self, found: Capped, source: str) -> None:
        for one in found:
            assert str(one).isprintable()


# -- F5 --------------------------------------------------------------------------------------------

NUMBERS = (-1, 0, 1, 3, 5, 8, 10, 136, 200, 4095, 0x7FFFFFFF, 0xFFFFFFFF)


def device_rules(data: bytes) -> None:
    """F5: the device program, in an emulator, decides as the list of rules read naively."""
    draw = Draw(data)
    rules: list[Json] = []
    for _ in range(draw.below(12)):
        rule: Json = {"allow": draw.one_in(2), "access": draw.pick(("r", "w", "m", "rw", "rm", "wm", "rwm"))}
        for key, values in (("type", ("a", "b", "c")), ("major", NUMBERS), ("minor", NUMBERS)):
            if draw.one_in(2):
                rule[key] = draw.pick(values)
        rules.append(rule)
    for _ in range(4):
        kind, access = draw.pick("bc"), draw.pick(("r", "w", "m", "rw", "rwm"))
        major, minor = draw.pick(NUMBERS[1:]), draw.pick(NUMBERS[1:])
        wanted = devices_model.naive(rules, kind, major, minor, access)
        assert devices_model.emulated(rules, kind, major, minor, access) == wanted
        assert wanted or not devices.allows_everything(rules)


# -- F6 --------------------------------------------------------------------------------------------

WORDS = (
    "0", "1", "9", "-", "+", ":", ",", ".", " ", "\n", "k", "m", "g", "i", "b", "K", "B", "s", "h", "ns", "us", "µ",
    "SIG", "RTMIN", "RTMAX", "KILL", "term", "Poll", "4294967295", "4294967296", "18446744073709551616",
    "/", "..", "net", "_", "a", "٣", "²", "ſ", "K", "ı",
)  # fmt: skip


def outcome(call: Callable[[str], Any], text: str) -> Any:
    """What a parser says; None when it refuses."""
    try:
        return call(text)
    except PyruncError as error:
        assert str(error).isprintable()
        return None


def small_texts(data: bytes) -> None:
    """F6: signals, users, ids, sizes, cpu lists, durations, versions, sysctls, paths against
    models."""
    draw = Draw(data)
    text = draw.text(WORDS, 8)
    assert outcome(signals.number, text) == models.signal(text)
    assert outcome(names.parse_user, text) == models.user(text)
    assert update.size(text) == models.size(text)
    assert names.cpu_list(text) == models.cpu_list(text)
    assert names.version(text) == models.version(text)
    valid = models.ID.fullmatch(text) is not None
    assert (names.valid_id(text) is None) == valid
    with refusing(StateError):
        state.check_id(text)
        assert valid
    wanted = models.duration(text)
    seconds = events.duration(text)
    assert (seconds is None) == (wanted is None)
    assert seconds is None or wanted is None or abs(seconds - float(wanted / 10**9)) <= 1e-9 * max(1.0, seconds)
    path = names.sysctl_path(text)
    assert not path or not ({"", ".", ".."} & set(path.split("/")))
    assert fs.normpath(text) == models.normpath(text)
    with refusing():
        exec_process.build(NO_PROCESS, ["a"], {"user": text, "additional-gids": [text]})
    assert clean(text) == models.normpath("/" + text)


def mount_options(data: bytes) -> None:
    """F6: of the options about one thing the last one counts; nothing is lost, nothing is both set
    and cleared."""
    draw = Draw(data)
    options = [draw.pick((*OPTIONS, "", "size=1m", "mode=755")) for _ in range(draw.below(10))]
    flags = Flags(options)
    assert flags.data == [option for option in options if option not in OPTIONS and option]
    plain = {"ro": (1, True), "rw": (1, False), "nosuid": (2, True), "suid": (2, False), "nodev": (4, True),
             "dev": (4, False), "noexec": (8, True), "exec": (8, False)}  # fmt: skip
    last: dict[int, bool] = {}
    for option in options:
        if option.startswith("r") and option[1:] in plain:  # recursive: takes back what was said about it
            last.pop(plain[option[1:]][0], None)
        if option in plain:
            bit, on = plain[option]
            last[bit] = on
    for bit, on in last.items():
        assert bool(flags.set & bit) == on and bool(flags.clr & bit) != on
    assert not flags.set & flags.clr & ~ATIME_FIELD
    assert not flags.rec_set & flags.rec_clr & ~ATIME_FIELD
    assert flags.remount == ("remount" in options)


# -- F7 --------------------------------------------------------------------------------------------


def seccomp_json(data: bytes) -> None:
    """F7: a profile becomes a program that the kernel would load, or an error in one line."""
    profiles.from_json(data, Host())


# -- F8 --------------------------------------------------------------------------------------------


def good_state() -> dict[str, Any]:
    return {
        "version": 1, "id": "c1", "ociVersion": "1.3.0", "created": "2026-01-01T00:00:00.000000000Z",
        "status": "running", "pid": os.getpid(), "starttime": procfs.process_stat("self")[1],
        "bootid": procfs.boot_id(),
        "bundle": "/b", "rootfs": "/b/rootfs", "runtime": {"pid": 1, "starttime": 1}, "annotations": {"a": "b"},
        "owner": 0, "cgroup": "/c1", "cgroup_dir": "/sys/fs/cgroup/c1", "cgroup_manager": "cgroupfs", "process": True,
        "hooks": {"poststop": [{"path": "/x"}]}, "late": [[1, "/process", "EXECVE", ["a"]]],
        "resources": {"pids": {"limit": 1}},
    }  # fmt: skip


class StateFile:
    """F8: whatever is in state.json, the container is readable or a StateError says what to do, and
    `list` goes on."""

    def __init__(self) -> None:
        self.root: pathlib.Path | None = None

    def __call__(self, data: bytes) -> None:
        draw = Draw(data)
        document: Any = good_state()
        for _ in range(draw.below(4)):
            known = configs.places(document)[1:]
            if known:
                document = configs.mutate(draw, document, draw.pick(known))
        text = draw.rest() if draw.one_in(6) else configs.document_bytes(draw, document)
        assert self.root is not None
        (self.root / "c1" / "state.json").write_bytes(text)
        store = state.Store(str(self.root))
        try:
            with refusing(StateError):
                found = store.open("c1")
                assert found.status() in ("creating", "created", "running", "paused", "stopped")
                assert jsontext.loads(jsontext.dumps(found.report()).encode("ascii")) is not None
                found.oci_state("stopped")
            said: list[PyruncError] = []
            for found in store.list(said.append):
                found.report()
            assert [error for error in said if not str(error).isprintable()] == []
            ids = [found.id for found in store.list(said.append, content=False)]
            assert ids in ([], ["c1"])
            with refusing(state.Damaged):
                salvage.recover(store.find("c1"))
        finally:
            if store.fd >= 0:
                os.close(store.fd)


state_file = StateFile()


# -- F9 and the handshake --------------------------------------------------------------------------


def command_line(data: bytes) -> None:
    """F9: any arguments are a call of one verb with what they say, or one line of error and exit
    status 1 or 255."""
    argv.check(Draw(data))


def records(data: bytes) -> None:
    """What comes from init: any bytes are a record or a ValueError, any order of records ends in a
    known state."""
    with refusing(ValueError):
        Record(data)
        assert len(data) == RECORD_SIZE
    for transitions in (CREATE, CREATE_AHEAD, RUN_AHEAD, JOIN, JOIN_AHEAD, PLACE_AHEAD):
        protocol = Protocol(transitions)
        with refusing(ProtocolError):
            for at, kind in enumerate(data):
                record = Record((kind % 16).to_bytes(4, "little") + data[at : at + 252].ljust(RECORD_SIZE - 4, b"\xff"))
                actions = protocol.feed(record)
                assert protocol.state in STATES and all(type(name) is str for name, _ in actions)
                assert len(protocol.deferred) <= len(data)


def criu_messages(data: bytes) -> None:
    """Any packet of CRIU is a message or a ValueError; what was read is written so that it is read
    as the same."""
    for message in (messages.RESPONSE, messages.REQUEST):
        with refusing(ValueError):
            found = protobuf.decode(message, data)
            assert protobuf.decode(message, protobuf.encode(message, found)) == found


TARGETS: dict[str, Target] = {
    "config": config_bytes,
    "process": process_json,
    "resources": resources_json,
    "plan-roundtrip": round_trip,
    "devices": device_rules,
    "texts": small_texts,
    "mount-options": mount_options,
    "seccomp": seccomp_json,
    "seccomp-description": profiles.description,
    "state": state_file,
    "argv": command_line,
    "records": records,
    "image-layer": images.Layers(),
    "image-documents": images.documents,
    "criu-messages": criu_messages,
}


@contextlib.contextmanager
def prepared(name: str, directory: pathlib.Path) -> Iterator[Target]:
    """A target with what it needs: the C decoder, a state root, a command line that does
    nothing."""
    if name == "plan-roundtrip":
        program = directory / "plan_dump"
        decoder.build(program)
        with decoder.Decoder(program) as round_trip.decoder:
            yield round_trip
        return
    if name == "state":
        state_file.root = directory / "root"
        (state_file.root / "c1").mkdir(parents=True, mode=0o700)
        state_file.root.chmod(0o700)
    if name == "image-layer":
        TARGETS[name].directory = directory / "image"  # type: ignore[attr-defined]
    if name == "argv":
        with pytest.MonkeyPatch.context() as patch:
            argv.isolate(patch)
            yield command_line
        return
    yield TARGETS[name]
