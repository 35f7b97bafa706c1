"""What a process of the runtime exposes while processes of the container can see it (T40).

The container is hostile and has CAP_SYS_PTRACE in the initial user namespace, so nothing protects a
process that it can see.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import termios
from pathlib import Path
from typing import Any

import pytest

from integration import harness
from integration.config import DEFAULT_CAPS
from integration.harness import Box, Container, wait_until
from integration.machine import CAP_BIT
from integration.security.support import ROUNDS, Make
from integration.test_exec import run
from integration.test_seccomp import profile, rule
from integration.test_terminal import Console

PLAIN = [name for name in DEFAULT_CAPS if name != "CAP_SYS_PTRACE"]
CAPS = [*PLAIN, "CAP_SYS_PTRACE"]
SETS = ("bounding", "effective", "permitted")
EXECS = 200 * ROUNDS
FEWER = 60 * ROUNDS
ADMIN = 1 << 21
# Engines' profiles treat the calls that create processes this way: clone3 does not exist, and clone
# creates no namespaces.
NAMESPACE_FLAGS = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
ENGINE_LIKE = profile(
    rule("clone3", errnoRet=38),
    *(rule("clone", args=[{"index": 0, "value": flag, "valueTwo": flag, "op": "SCMP_CMP_MASKED_EQ"}])
      for flag in NAMESPACE_FLAGS),
    rule("unshare"),
)  # fmt: skip
NO_FORK = profile(rule("clone3"), rule("clone"), rule("fork"), rule("vfork"))

pytestmark = pytest.mark.pyrunc_only("runc's joiner holds all capabilities when the container can see it")


@pytest.fixture(scope="session")
def attacker(base: Path) -> Path:
    """The hostile program, built from probe/attach.c."""
    target = base / "attach"
    harness.compile_static(harness.REPO / "integration/probe/attach.c", target)
    return target


class Hostile:
    """A container whose first process attaches to every process of the runtime that it can see."""

    def __init__(self, container: Make, attacker: Path, edits: dict[str, Any], caps: list[str] = CAPS) -> None:
        sets = dict.fromkeys(SETS, caps)
        edits = {"/process/args": ["/attach", "300"], "/process/capabilities": sets, **edits}
        self.one: Container = container(edits=edits)
        (self.one.bundle.rootfs / "attach").write_bytes(attacker.read_bytes())
        (self.one.bundle.rootfs / "attach").chmod(0o755)
        self.one.create()
        self.one.start()

    def stop(self) -> dict[str, Any]:
        """Stop the attacker and return its answer."""
        (self.one.bundle.rootfs / "stop").write_text("")
        wait_until(lambda: self.one.out.endswith("}\n"), "the attacker's answer")
        (self.one.bundle.rootfs / "stop").unlink()
        found: dict[str, Any] = json.loads(self.one.out)
        return found


def capabilities(states: list[str]) -> list[dict[str, int]]:
    """The capability sets of a joiner in each observed state."""
    found = []
    for text in states:
        fields = dict(re.findall(r"(\w+) ([0-9a-f]+)", text))
        found.append({name: int(value, 16) for name, value in fields.items() if name.startswith("Cap")})
    return found


def values(seen: dict[str, Any], name: str) -> set[str]:
    """The values of a field of /proc/PID/status in all observed states."""
    return {dict(re.findall(r"(\w+) (\w+)", text))[name] for text in seen["states"]}


def mask(names: list[str]) -> int:
    return sum(CAP_BIT[name] for name in names)


def check(seen: dict[str, Any], kept: int = 0, count: int = EXECS, spaces: tuple[str, ...] = ()) -> None:
    """The attacker got only what the container has: its capabilities (and ``kept``), root and
    namespaces (and those of its own, of these kinds), no host file."""
    assert seen["met"] >= count // 4, f"the attacker hardly ever met one of our processes: {seen}"
    assert seen["traced"] >= count // 8 and seen["copied"] >= count // 8, f"it could not attach: {seen}"
    allowed = mask(CAPS)
    for sets in capabilities(seen["states"]):
        assert not (sets["CapPrm"] | sets["CapEff"]) & ~(allowed | kept), f"capabilities of the host: {sets}"
        assert not sets["CapBnd"] & ~allowed, f"the bounding set of the host: {sets}"
        assert sets["CapInh"] == sets["CapAmb"] == 0, sets
    # stdio comes from the caller of the program, and the socket from the handshake
    others = [text for text in seen["fds"] if not text.startswith("stdio ")]
    assert others in ([], ["socket 140000"]), f"descriptors of the host: {others}"
    assert not [text for text in seen["places"] if text not in ("root", "/", "/tmp")], seen["places"]
    foreign = [text for text in seen["namespaces"] if not text.startswith(spaces or "-") or text in host_namespaces()]
    assert not foreign, f"namespaces of the host: {foreign}"
    check_terminals(seen)


def host_namespaces() -> set[str]:
    return {os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}


def check_terminals(seen: dict[str, Any]) -> None:
    """A process in the caller's session could open its terminal and type (CVE-2017-5226)."""
    found = [text for text in seen["terminals"] if text.startswith("session foreign") and not text.endswith(" 0")]
    assert not found, f"the caller's terminal: {found}"


def execs(one: Container, *flags: str, count: int = EXECS) -> None:
    for _ in range(count):
        run(one, "/probe", "say", "x", flags=flags)


def edits_of(nnp: bool, filter_: dict[str, Any]) -> dict[str, Any]:
    return {"/process/noNewPrivileges": nnp, **filter_}


@pytest.mark.row("T40")
@pytest.mark.parametrize("nnp", [True, False], ids=["no-new-privileges", "plain"])
@pytest.mark.parametrize("filter_", [{}, ENGINE_LIKE], ids=["unfiltered", "filtered"])
def test_exec_shows_nothing_of_the_host(container: Make, attacker: Path, nnp: bool, filter_: dict[str, Any]) -> None:
    hostile = Hostile(container, attacker, edits_of(nnp, filter_))
    execs(hostile.one)
    seen = hostile.stop()
    check(seen)
    if filter_:
        assert values(seen, "Seccomp") == {"2"}, f"without the filter: {seen['states']}"


@pytest.mark.row("T40")
def test_exec_as_a_user(container: Make, attacker: Path) -> None:
    """The ids and the capabilities change before the process becomes visible."""
    hostile = Hostile(container, attacker, edits_of(False, ENGINE_LIKE))
    execs(hostile.one, "--user", "1000:1000", "--cwd", "/tmp", count=FEWER)
    seen = hostile.stop()
    check(seen, count=FEWER)
    assert values(seen, "Uid") == {"1000"}, seen["states"]


@pytest.mark.row("T40")
def test_exec_with_a_terminal(container: Make, attacker: Path, box: Box) -> None:
    """Before the process becomes visible it has its terminal, and no descriptor of the caller's."""
    hostile = Hostile(container, attacker, edits_of(False, ENGINE_LIKE))
    console = Console(box.path / "console.sock")
    flags = ("--tty", "--detach", "--console-socket", str(console.path))
    for _ in range(FEWER):
        run(hostile.one, "/probe", "say", "x", flags=flags)
        os.close(console.receive())
        harness.reap()  # a zombie of ours is another process for the attacker to inspect
    console.master = -1
    console.close()
    seen = hostile.stop()
    check(seen, count=FEWER)
    assert not [text for text in seen["fds"] if text.startswith("stdio ") and "/pts/" not in text], seen["fds"]


def own_terminal(slave: int) -> Any:
    """Create a new session with this terminal; for a child."""

    def become() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    return become


@pytest.mark.row("T40")
@pytest.mark.row("T28")
def test_exec_from_a_terminal(container: Make, attacker: Path) -> None:
    """The caller has a terminal, but the program gets none."""
    hostile = Hostile(container, attacker, edits_of(False, ENGINE_LIKE))
    for _ in range(FEWER):
        master, slave = pty.openpty()
        run(hostile.one, "/probe", "say", "x", preexec=own_terminal(slave))
        os.close(slave)
        os.close(master)
    check(hostile.stop(), count=FEWER)


@pytest.mark.row("T40")
def test_create_in_a_pid_namespace_of_others(container: Make) -> None:
    """Without CAP_SYS_PTRACE its processes get nothing; SECURITY.md documents what they could do
    with it."""
    watcher = container("watch", "300", edits={"/process/capabilities": dict.fromkeys(SETS, PLAIN)})
    watcher.create()
    watcher.start()
    for _ in range(FEWER // 2):
        join_pid_namespace(container, watcher)
    (watcher.bundle.rootfs / "stop").write_text("")
    wait_until(lambda: watcher.objects, "the watcher's answer")
    (seen,) = watcher.objects
    assert seen["looks"] > FEWER // 4, "the watcher never met one of our processes"
    assert seen["seen"] == 0, seen["found"]


@pytest.mark.row("T28")
@pytest.mark.row("T40")
def test_create_from_a_terminal_in_a_pid_namespace_of_others(container: Make, attacker: Path) -> None:
    hostile = Hostile(container, attacker, {})
    for _ in range(FEWER // 2):
        join_pid_namespace(container, hostile.one)
    seen = hostile.stop()
    harness.reap()
    assert seen["met"] > FEWER // 8, "the attacker never met one of our processes"
    check_terminals(seen)


def join_pid_namespace(container: Make, first: Container) -> None:
    """Create a container in the pid namespace of another, from a terminal, and delete it."""
    one = container("sleep", "600")
    for space in one.bundle.config["linux"]["namespaces"]:
        if space["type"] == "pid":
            space["path"] = f"/proc/{first.pid}/ns/pid"
    master, slave = pty.openpty()
    one.create(preexec=own_terminal(slave))
    one.delete("--force")
    harness.reap()  # a zombie of ours would keep the namespace alive
    os.close(slave)
    os.close(master)


@pytest.mark.row("T40")
@pytest.mark.parametrize("nnp", [True, False], ids=["no-new-privileges", "plain"])
def test_filter_that_forbids_to_clone(container: Make, attacker: Path, nnp: bool) -> None:
    """SECURITY.md: without noNewPrivileges, loading such a filter requires CAP_SYS_ADMIN while the
    container can see the process."""
    hostile = Hostile(container, attacker, edits_of(nnp, NO_FORK))
    execs(hostile.one, count=FEWER)
    check(hostile.stop(), 0 if nnp else ADMIN, FEWER)


@pytest.mark.row("T40")
@pytest.mark.row("T43")
def test_exec_with_tools(container: Make, attacker: Path, box: Box) -> None:
    """Only its mount namespace is not the container's; the directory is a mount in it, and no
    descriptor."""
    (box.path / "tools").mkdir()
    hostile = Hostile(container, attacker, edits_of(False, ENGINE_LIKE))
    execs(hostile.one, "--tools", str(box.path / "tools"), count=FEWER // 2)
    seen = hostile.stop()
    seen["places"] = [text for text in seen["places"] if text != "another root"]  # of its mount namespace
    check(seen, count=FEWER // 2, spaces=("mnt:",))


@pytest.mark.row("T40")
@pytest.mark.row("T42")
def test_mounts_are_added_by_nobody(container: Make, attacker: Path, box: Box) -> None:
    """No process of the container can name the one that adds and removes them."""
    path = box.path / "mounts.json"
    path.write_text(json.dumps([{"destination": "/added", "type": "tmpfs", "source": "tmpfs"}]))
    hostile = Hostile(container, attacker, {})
    for _ in range(FEWER // 4):
        for what in ("add", "remove"):
            hostile.one.call("mounts", what, hostile.one.id, str(path))
    assert hostile.stop()["met"] == 0, "the attacker met the process that mounts"
    again = Hostile(container, attacker, {})
    execs(again.one, count=FEWER // 4)
    assert again.stop()["met"], "the attacker meets nobody"
