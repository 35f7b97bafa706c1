"""spec/validate.py: every broken config is rejected with its pointer, every good one is
accepted."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from broken_configs import BASE, BROKEN, changed
from json_type import Json
from pyrunc.errors import ConfigError
from pyrunc.spec import load, validate
from work import calls

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = sorted((ROOT / "integration" / "bundles").glob("**/*.json")) or sorted(
    (ROOT.parent / "shared" / "bundles").glob("*.json")
)


class Facts:
    """A host without special settings."""

    memory_nodes: frozenset[int] = frozenset()
    resctrl = ""

    def __init__(self, *, apparmor: bool = False, selinux: bool = False, cap_last: int = 40, euid: int = 0) -> None:
        self.apparmor, self.selinux, self.cap_last, self.euid = apparmor, selinux, cap_last, euid
        self.own: set[tuple[str, str]] = set()  # (kind, path) that lead to the runtime's own namespaces

    def own_namespace(self, kind: str, path: str) -> bool:
        return (kind, path) in self.own


def problems(config: Any, facts: Facts | None = None) -> list[str]:
    try:
        validate.check(config, facts=facts)
    except ConfigError as error:
        assert str(error).isprintable()
        return [str(problem) for problem in error.problems]
    return []


def warnings(*changes: tuple[str, Any], facts: Facts | None = None) -> list[str]:
    return [str(problem) for problem in validate.check(changed(*changes), facts=facts)]


def test_the_base_is_good() -> None:
    before = copy.deepcopy(BASE)
    assert validate.check(BASE) == []
    assert before == BASE, "validation must not change the config"


def test_there_are_enough_broken_configs() -> None:
    assert len(BROKEN) >= 120


@pytest.mark.parametrize(("changes", "pointer", "words"), BROKEN, ids=[f"{i}-{b[1]}" for i, b in enumerate(BROKEN)])
def test_broken(changes: list[tuple[str, Any]], pointer: str, words: tuple[str, ...]) -> None:
    config = changed(*changes)
    before = copy.deepcopy(config)
    with pytest.raises(ConfigError) as caught:
        validate.check(config)
    assert config == before
    assert str(caught.value).startswith("config.json: /")
    assert str(caught.value).isprintable()
    found = [str(p) for p in caught.value.problems if p.pointer == pointer]
    assert found, f"{[str(p) for p in caught.value.problems]}"
    assert any(all(word in text for word in words) for text in found), found


def test_message_form() -> None:
    assert problems(changed(("/mounts/0/destination", 7))) == ["/mounts/0/destination: expected string, found number 7"]


def test_all_problems_in_one_pass() -> None:
    """One config with every broken value that can be combined: each pointer is reported."""
    single = [b for b in BROKEN if len(b[0]) == 1 and b[0][0][0] == b[1]]
    taken: list[tuple[str, Any]] = []
    pointers: set[str] = set()
    for changes, pointer, _ in single:
        clash = any(pointer == p or pointer.startswith(p + "/") or p.startswith(pointer + "/") for p in pointers)
        # Changes that hide another problem: they remove a whole section or an array item.
        if clash or pointer in ("/root", "/process", "/mounts", "/linux", "/annotations", "/mounts/1"):
            continue
        taken += changes
        pointers.add(pointer)
    hidden = {
        "/linux/resources/memory/swap",  # needs a valid limit
        "/linux/resources/cpu/burst",
        "/mounts/2/destination",
        "/linux/sysctl/net~1ipv4~1ip_forward",
        "/linux/seccomp/syscalls/0/errnoRet",  # needs a valid action
        "/linux/seccomp/defaultErrnoRet",
        "/mounts/2/source",  # needs the bind option
        "/process/rlimits/0/soft",  # needs the hard limit
        "/linux/namespaces/1/type",  # needs the other entry
        "/linux/devices/0/major",  # need the type
        "/linux/devices/0/minor",
    }
    with pytest.raises(ConfigError) as caught:
        validate.check(changed(*taken))
    found = {p.pointer for p in caught.value.problems}
    assert len(pointers) > 90
    assert pointers - found <= hidden, sorted(pointers - found - hidden)


def test_wrong_types_do_not_hide_the_rules_around_them() -> None:
    config = changed(
        ("/mounts/1/source", 5), ("/mounts/1/destination", "/"), ("/process/args/-", 5), ("/process/cwd", "x")
    )
    text = "; ".join(problems(config))
    for pointer in ("/mounts/1/source:", "/mounts/1/destination:", "/process/args/1:", "/process/cwd:"):
        assert pointer in text


@pytest.mark.parametrize("junk", [None, True, 0, -1, 1.5, "x", [], {}, [[]], [{}], [None], {"a": None}, {"type": []}])
def test_junk_anywhere_gives_problems_not_exceptions(junk: Any) -> None:
    def pointers(value: Any, prefix: str) -> list[str]:
        out = [prefix] if prefix else []
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            out += pointers(item, f"{prefix}/{str(key).replace('/', '~1')}")
        return out

    found = pointers(BASE, "")
    assert len(found) > 40
    assert [pointer for pointer in found if problems(changed((pointer, junk)), Facts())]


def test_not_an_object() -> None:
    junk: Json
    for junk in (None, [], "x", 1):
        assert problems(junk)[0].startswith("/: expected object, found ")


GOOD: list[list[tuple[str, Any]]] = [
    [("/ociVersion", "1.0.2-dev")],
    [("/unknown", {"x": 1}), ("/linux/unknown", 1), ("/mounts/0/unknown", []), ("/process/user/username", 5)],
    [("/windows", 1), ("/solaris", []), ("/vm", "x"), ("/zos", 1), ("/freebsd", 2)],
    [("/process/terminal", False), ("/process/consoleSize", {"height": 2**64 - 1, "width": 0})],
    [("/process/env/-", "A=")],
    [("/process/env/-", "A=b=c")],
    [("/process/args/-", "")],
    [("/process/args/-", "x" * 131071)],
    [("/process/user/uid", 4294967294), ("/process/user/gid", 2**31)],
    [("/process/user", {})],
    [("/process/rlimits/0", {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1})],
    [("/process/oomScoreAdj", -1000)],
    [("/mounts/2/destination", "/proc/meminfo")],
    [("/mounts/2/destination", "/proc/sys/kernel/ns_last_pid")],
    [("/mounts/2/destination", "/proc/"), ("/mounts/2/source", "/proc")],
    [("/mounts/2/destination", "/processes")],
    [("/mounts/2/type", "")],
    [("/mounts/1", {"destination": "/proc", "options": ["remount", "ro"]})],
    [("/linux/namespaces/1/path", "/run/netns/x")],
    [("/linux/namespaces/1/path", "")],
    [("/linux/namespaces/1/path", "/proc/1234/ns/net")],
    [("/linux/namespaces/5", {"type": "time"})],
    [("/linux/uidMappings", []), ("/linux/timeOffsets", {}), ("/linux/netDevices", {})],
    [("/linux/devices/0", {"type": "p", "path": "/x"})],
    [("/linux/devices/0/fileMode", 8630)],  # with S_IFCHR, as podman sends it
    [("/linux/rootfsPropagation", "rslave")],
    [("/linux/cgroupsPath", "/a/..b/c..")],
    [("/linux/personality", {"domain": "LINUX32", "flags": []})],
    [("/linux/sysctl/kernel.shm_rmid_forced", "1"), ("/linux/sysctl/fs.mqueue.msg_max", "5")],
    [("/linux/sysctl/kernel.domainname", "x"), ("/linux/sysctl/net~1core~1somaxconn", "1")],
    [("/linux/seccomp/defaultErrnoRet", 4095), ("/linux/seccomp/flags", [])],
    [("/linux/seccomp/syscalls/0", {"names": ["x"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535})],
    [
        ("/linux/seccomp/syscalls/0", {"names": ["read"], "action": "SCMP_ACT_NOTIFY"}),
        ("/linux/seccomp/listenerPath", "/s"),
        ("/linux/seccomp/listenerMetadata", "m"),
    ],
    [("/linux/seccomp/listenerPath", "/s")],
    [("/linux/resources/memory", {"limit": -1, "swap": -1, "reservation": 5, "checkBeforeUpdate": True})],
    [("/linux/resources/memory", {"limit": 5, "swap": 5})],
    [("/linux/resources/memory", {"swap": 0})],
    [("/linux/resources/memory", {"kernel": -1, "disableOOMKiller": False, "useHierarchy": True})],
    [("/linux/resources/cpu", {"shares": 0, "quota": -1, "period": 0, "cpus": "", "realtimePeriod": 0, "idle": 1})],
    [("/linux/resources/blockIO", {"weight": 0, "leafWeight": 0})],
    [("/linux/resources/pids/limit", 0)],
    [("/linux/resources/network", {"classID": 0, "priorities": []})],
    [("/linux/resources/devices/0", {"allow": True, "type": "c", "major": -1, "minor": 3, "access": "mrw"})],
]


@pytest.mark.parametrize("changes", GOOD, ids=lambda c: c[0][0])
def test_good(changes: list[tuple[str, Any]]) -> None:
    assert problems(changed(*changes), Facts()) == []
    assert validate.check(changed(*changes)) == []


def test_without_process_and_linux() -> None:
    assert problems({"ociVersion": "1.0.0", "root": {"path": "rootfs"}}) == []


def test_warnings() -> None:
    assert "at most 1.3.0" in warnings(("/ociVersion", "1.4.0"))[0]
    assert warnings(("/ociVersion", "1.3.9")) == []
    assert "deprecated" in warnings(("/mounts/1/destination", "dev"))[0]
    text = warnings(("/process/capabilities/ambient", ["CAP_BOGUS"]))
    assert text == [
        '/process/capabilities/ambient/0: expected a capability, found string "CAP_BOGUS" (unknown, ignored)'
    ]
    assert "this kernel" in warnings(("/process/capabilities/ambient", ["CAP_BPF"]), facts=Facts(cap_last=37))[0]
    assert warnings(("/process/capabilities/ambient", ["CAP_BPF"]), facts=Facts()) == []
    memory = {"kernel": 5, "kernelTCP": 5, "swappiness": 60, "disableOOMKiller": True, "useHierarchy": False}
    found = warnings(("/linux/resources/memory", memory))
    assert [text.split(":")[0].rpartition("/")[2] for text in found] == list(memory)


def test_labels_fail_closed() -> None:
    apparmor, selinux = ("/process/apparmorProfile", "p"), ("/process/selinuxLabel", "u:r:t:s0")
    assert problems(changed(apparmor)) == []  # nothing known about the host
    assert "AppArmor" in problems(changed(apparmor), Facts())[0]
    assert problems(changed(apparmor), Facts(apparmor=True)) == []
    assert problems(changed(("/process/apparmorProfile", "unconfined")), Facts()) == []
    assert problems(changed(("/process/apparmorProfile", "")), Facts()) == []
    assert "SELinux" in problems(changed(selinux), Facts())[0]
    assert problems(changed(selinux), Facts(selinux=True)) == []
    label = ("/linux/mountLabel", "u:r:t:s0")
    assert "SELinux" in warnings(label, facts=Facts())[0]
    assert warnings(label, facts=Facts(selinux=True)) == []


@pytest.mark.skipif(not BUNDLES, reason="the recorded bundles are not here")
@pytest.mark.parametrize("path", BUNDLES, ids=lambda p: p.stem)
def test_recorded_bundles(path: Path) -> None:
    config, _ = load.load_config(str(path))
    assert problems(config, Facts()) == []
    assert validate.check(config, facts=Facts()) == []


def test_thousands_of_mounts_are_work_in_proportion() -> None:
    mount = {"destination": "/a", "type": "tmpfs", "source": "tmpfs", "options": ["rw", "nosuid", "mode=755"]}

    def work(count: int) -> int:
        config = changed(("/mounts", [mount] * count))
        return calls(lambda: validate.check(config))

    assert validate.check(changed(("/mounts", [mount] * 15_000))) == []
    assert work(15_000) < 10.5 * work(1_500)


@pytest.mark.parametrize(
    ("index", "kind", "key"),
    [(1, "network", "net.ipv4.ip_forward"), (3, "ipc", "kernel.sem"), (4, "uts", "kernel.domainname")],
)
def test_sysctls_of_our_own_namespace(index: int, kind: str, key: str) -> None:
    """CVE-2022-0811: a path to the host's own namespace, which only its inode reveals."""
    config = changed((f"/linux/namespaces/{index}/path", "/run/some/name"), ("/linux/sysctl", {key: "1"}))
    facts = Facts()
    assert problems(config, facts) == []
    facts.own.add((kind, "/run/some/name"))
    (problem,) = problems(config, facts)
    assert problem.startswith(f"/linux/sysctl/{key}") and "of the host" in problem
