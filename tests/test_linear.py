"""Time and memory are linear in the size of a config, and its author cannot make hash tables
collide.

integration/test_input_costs.py measures whole verbs with every place of a config.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import crowded
import work
from json_type import Json
from plan_support import Facts, options
from pyrunc import fs
from pyrunc.cgroup import gvariant, systemd
from pyrunc.container import update
from pyrunc.errors import ConfigError, brief, printable
from pyrunc.log import Log, say
from pyrunc.plan import encode, scheduling, show
from pyrunc.plan.create import compile_create
from pyrunc.plan.environment import DEFAULT_PATH, environment
from pyrunc.spec import names, validate
from pyrunc.spec.types import ThrottleDevice

SPACES = [{"type": kind} for kind in ("mount", "pid", "user", "network", "ipc", "uts")]


def config(**fields: Any) -> Json:
    found: Json = {"ociVersion": "1.0.0", "root": {"path": "r"}, "process": {"cwd": "/", "args": ["sh"]}}
    linux = {"namespaces": SPACES, "uidMappings": ids(1), "gidMappings": ids(1)}
    return {**found, "linux": {**linux, **fields.pop("linux", {})}, **fields}


def ids(count: int) -> list[dict[str, int]]:
    return [{"containerID": 10 * number, "hostID": 10 * number, "size": 1} for number in range(count)]


def refused(document: Json) -> str:
    with pytest.raises(ConfigError) as caught:
        validate.check(document)
    return str(caught.value)


def test_the_salt_is_secret_and_stays() -> None:
    one, two = fs.salted("one"), fs.salted("two")
    assert one.endswith("one") and one[:-3] == two[:-3] and len(one) == 35
    assert fs.salted("") == one[:-3] != "0" * 32


def test_salted_keys_do_not_crowd() -> None:
    """The same keys in plain dictionaries and in our salted tables."""
    chosen = crowded.keys(256, 170)
    assert crowded.steps(chosen, 256) > 8 * 170
    assert crowded.steps([fs.salted(key) for key in chosen], 256) < 3 * 170


def test_the_environment() -> None:
    """For duplicate names the last entry wins and keeps its position; salted, so that an image
    cannot crowd the table."""
    env = ["A=1", "PATH=/x", "B=", "A=2", "HOME=", "C=a=b", "PATH=/y"]
    found = environment({"cwd": "/", "env": env})
    assert found.entries == ["B=", "A=2", "C=a=b", "PATH=/y"]
    assert found.path == "/y" and found.find_home
    found = environment({"cwd": "/", "env": ["HOME=/h", "X=1"]})
    assert found.entries == ["HOME=/h", "X=1"] and not found.find_home and found.path == DEFAULT_PATH


def test_lists_of_cpus() -> None:
    assert names.listed("0-3,2-5,5,1", 8) == [0, 1, 2, 3, 4, 5]
    assert scheduling.mask("0-3,1-2,63", 8191) == (0x800000000000000F).to_bytes(8, "little")
    everything = ",".join(map(str, range(8192)))
    assert names.listed(everything, 8191) == list(range(8192)) and len(everything) < names.LIST_MAX
    assert not names.cpu_list("0-9," * 20_000 + "1") and names.listed("0-8191," * 2_000_000 + "1", 8191) == []
    text = refused(config(linux={"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1023," * 100_000 + "1"}}))
    assert text.startswith("config.json: /linux/memoryPolicy/nodes: expected a list such as")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"root": {"path": "/a" * 3000}}, "/root/path"),
        ({"process": {"cwd": "/a" * 3000, "args": ["sh"]}}, "/process/cwd"),
        ({"mounts": [{"destination": "/a" * 3000, "type": "tmpfs"}]}, "/mounts/0/destination"),
        ({"mounts": [{"destination": "/a", "source": "/a" * 3000, "options": ["bind"]}]}, "/mounts/0/source"),
        ({"mounts": [{"destination": "/proc", "source": "/a" * 3000, "options": ["bind"]}]}, "/mounts/0/source"),
        ({"hooks": {"prestart": [{"path": "/a" * 3000}]}}, "/hooks/prestart/0/path"),
        ({"linux": {"maskedPaths": ["/a" * 3000]}}, "/linux/maskedPaths/0"),
        ({"linux": {"readonlyPaths": ["/a" * 3000]}}, "/linux/readonlyPaths/0"),
        ({"linux": {"devices": [{"type": "p", "path": "/a" * 3000}]}}, "/linux/devices/0/path"),
        ({"linux": {"cgroupsPath": "/a" * 30_000}}, "/linux/cgroupsPath"),
        ({"linux": {"sysctl": {"net." + "a." * 3000 + "b": "1"}}}, "/linux/sysctl/net.a."),
        ({"linux": {"resources": {"unified": {"a" * 300: "1"}}}}, "/linux/resources/unified/aaa"),
        ({"linux": {"resources": {"unified": {"io.max": "\n" * 70_000}}}}, "/linux/resources/unified/io.max"),
        ({"linux": {"resources": {"unified": {f"f{n}": "" for n in range(1001)}}}}, "/linux/resources/unified"),
        (
            {"linux": {"resources": {"rdma": {f"d{n}": {"hcaHandles": 1} for n in range(1001)}}}},
            "/linux/resources/rdma",
        ),
        ({"linux": {"intelRdt": {"l3CacheSchema": "L3:" + "\n" * 70_000}}}, "/linux/intelRdt/l3CacheSchema"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_too_long_for_the_kernel_are_refused(fields: dict[str, Any], pointer: str) -> None:
    text = refused(config(**fields))
    assert pointer in text and len(text) < 1000
    assert "less than 4096 bytes" in text or "at most" in text or "sysctl such as" in text or "name of a file" in text


def test_ids_of_mounts_and_groups() -> None:
    """Numbers with more digits than the interpreter accepts, and mappings too large to iterate."""
    text = refused(config(mounts=[{"destination": "/t", "type": "tmpfs", "options": ["uid=" + "9" * 5000]}]))
    assert "/mounts/0/options/0: expected an id mapped by /linux/uidMappings" in text
    many = config(linux={"uidMappings": ids(100_000), "gidMappings": ids(100_000)})
    many["process"]["user"] = {"additionalGids": list(range(65536))}
    with work.at_most(3):
        text = refused(many)
    assert "/linux/uidMappings: expected at most 340 mappings" in text


def test_numbers_of_systemd() -> None:
    assert systemd.number("9" * 5000) is None and systemd.number("17M") == 17 << 20
    assert systemd.bitmask("1-" + "9" * 5000) == b"" and systemd.bitmask("0-3") == b"\x0f"
    with pytest.raises(ConfigError, match="a slice of at most 255 characters"):
        systemd.expand("a-" * 100_000 + "b.slice", "x")
    with pytest.raises(ValueError, match="at most 4096 characters"):
        gvariant.as_property("Description", "'" + "x" * 5000 + "'")
    with pytest.raises(ConfigError, match="at most 256 properties of systemd, found 300"):
        systemd.annotated({f"org.systemd.property.P{number}": "1" for number in range(300)})


def test_devices_of_an_update_are_distinguished() -> None:
    old: list[ThrottleDevice] = [{"major": number, "minor": 1, "rate": 1} for number in range(3)]
    new: list[ThrottleDevice] = [{"major": 1, "minor": 1, "rate": 5}, {"major": 11, "minor": 1, "rate": 7}]
    merged = update.merge({"blockIO": {"throttleReadBpsDevice": old}}, {"blockIO": {"throttleReadBpsDevice": new}})
    assert [item["rate"] for item in merged["blockIO"]["throttleReadBpsDevice"]] == [1, 5, 1, 7]
    network: Json = {"network": {"priorities": [{"name": "eth0", "priority": 1}]}}
    assert update.merge({}, network) == network  # rejected later, with its own message


def test_many_hooks_share_what_they_are_given() -> None:
    """Neither the state nor the environment is stored or read once for each hook."""
    hooks = {kind: [{"path": "/h"}] * 8_000 for kind in ("createContainer", "startContainer")}
    document, made = (
        config(hooks=hooks, linux={"uidMappings": None, "gidMappings": None, "namespaces": SPACES[:1]}),
        options(),
    )
    document["process"]["env"] = [f"V{number}={'x' * 1000}" for number in range(5000)]
    made.create_state = made.start_state = ("{", "y" * 5_000_000 + "}")
    with work.at_most(5):
        plan = compile_create(document, Facts(), made)
        blob = plan.encode()
        sections = [step["section"] for step in show.as_json(plan)["steps"] if step["op"] == "HOOK"]
    assert len(blob) < 20_000_000
    assert sections == ["SETUP"] * 8_000 + ["RUN"] * 8_000


def test_pools_stay_small() -> None:
    """However many strings there are; the same one twice may then be stored twice."""
    pool = encode.Pool(0)
    offsets = [pool.add(f"string {number % 1000}") for number in range(2000)]
    assert offsets[:100] == offsets[1000:1100] and offsets[999] != offsets[1999]
    lists = [pool.add([f"list {number % 1000}"]) for number in range(2000)]
    assert lists[:100] == lists[1000:1100]
    assert len(pool.known) == len(pool.lists) == 512
    again = ["x" * 10]
    assert pool.add(again) == pool.add(again)


def test_there_is_not_too_much_to_do() -> None:
    """The limit applies to the sum of the plan's steps and the programs to run."""
    mounts = [{"destination": f"/m{number}", "type": "tmpfs"} for number in range(8000)]
    hooks = {"poststop": [{"path": "/h"}] * 8000, "unknown": 1}
    validate.check(config(mounts=mounts, hooks=hooks))
    for more in ({"maskedPaths": ["/x"]}, {"sysctl": {"net.x": "1"}}, {"devices": [{"type": "p", "path": "/x"}]}):
        text = refused(config(mounts=mounts, hooks=hooks, linux=more))
        assert text.startswith("config.json: /: expected at most 16000 entries, found number 16001 (mounts, devices")
    assert validate.ENTRIES_MAX + 300 < encode.MAX_STEPS


def test_warnings_on_stderr_end(capfd: pytest.CaptureFixture[str]) -> None:
    """16,000 hooks can fail; the log file gets every failure."""
    log = Log()
    for number in range(16_000):
        log.warning(f"hook {number}: " + "x" * 10_000 * (number % 10 == 0), aloud=True)
    out, err = capfd.readouterr()
    assert out == "" and len(err) < 40_000
    assert err.splitlines()[-1] == "pyrunc: warning: further warnings are omitted"
    say("error", "\U0001f600" * 1_000_000)
    assert len(capfd.readouterr().err.encode()) < 65536


@given(st.text())
def test_printable_text(text: str) -> None:
    assert printable(text) == "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    assert brief(text, 20) == (line if len(line := printable(text)) <= 20 else line[:17] + "...")


def test_all_characters_at_once() -> None:
    text = "".join(map(chr, range(0x3000)))
    assert printable(text) == "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    assert printable(text).isprintable()
