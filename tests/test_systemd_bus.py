"""Calls to systemd through libsystemd, answered by a fake peer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import transcript
from bus_peer import GVARIANT, INFINITY, Error, Peer, peer
from pyrunc.cgroup import bus, gvariant
from pyrunc.errors import PyruncError, SysError

__all__ = ["peer"]  # a fixture

kept = transcript.follow("pyrunc.cgroup.gvariant", "pyrunc.cgroup.systemd")


def test_start_waits_for_its_job(peer: Peer) -> None:
    manager = bus.Manager(user=False)
    wanted: bus.Properties = [("Description", ("s", "a b")), ("PIDs", ("au", [41])), ("Delegate", ("b", True))]
    wanted += [("MemoryMax", ("t", INFINITY)), ("AllowedCPUs", ("ay", b"\1\2")), ("X", ("a(ss)", [("a", "b")]))]
    manager.start_transient("x.scope", wanted)
    manager.close()
    assert peer.calls == [("StartTransientUnit", ["x.scope", "fail", wanted, []])]


def test_every_type_goes_over_the_wire(peer: Peer) -> None:
    manager = bus.Manager(user=False)
    sent = [gvariant.parse(text) for text, _ in GVARIANT]
    manager.set_properties("x.scope", [(f"P{n}", value) for n, value in enumerate(sent)])
    manager.close()
    ((_, (unit, runtime, got)),) = peer.calls
    assert (unit, runtime) == ("x.scope", True)
    dictionary = ("a{sv}", [("a", ("i", 5))])
    assert [value for _, value in got] == [dictionary if value[0] == "a{sv}" else value for value in sent]


def test_job_that_fails(peer: Peer) -> None:
    peer.result = "failed"
    manager = bus.Manager(user=False)
    with pytest.raises(PyruncError, match='StartTransientUnit: the job ended with "failed"'):
        manager.start_transient("x.scope", [])
    manager.close()


def test_job_that_never_ends(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bus, "JOB_TIMEOUT", 50)
    peer.result = ""
    manager = bus.Manager(user=False)
    with pytest.raises(PyruncError, match="the job was not done within"):
        manager.start_transient("x.scope", [])
    manager.close()


def test_peer_that_says_nothing(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    monkeypatch.setattr(bus, "CALL_TIMEOUT", 50_000)

    def late(*_: Any) -> Error:
        time.sleep(0.5)
        return Error("a.b", "late")

    peer.replies["StopUnit"] = [late]
    manager = bus.Manager(user=False)
    with pytest.raises(SysError, match="StopUnit: ETIMEDOUT"):
        manager.stop("x.scope")
    manager.close()


def test_peer_that_hangs_up(peer: Peer) -> None:
    peer.replies["StopUnit"] = [None]
    manager = bus.Manager(user=False)
    with pytest.raises(SysError, match=r"StopUnit: (ECONNRESET|ENOTCONN|EPIPE)"):
        manager.stop("x.scope")
    manager.close()


def test_refusals(peer: Peer) -> None:
    peer.replies["StopUnit"] = [Error(bus.NO_SUCH_UNIT, "Unit x.scope not loaded.")]
    peer.replies["ResetFailedUnit"] = [Error(bus.NO_SUCH_UNIT, "not loaded"), Error("a.b.Denied", "no, you")]
    manager = bus.Manager(user=False)
    manager.stop("x.scope")
    manager.reset_failed("x.scope")
    with pytest.raises(bus.BusError, match="systemd: ResetFailedUnit: no, you") as raised:
        manager.reset_failed("x.scope")
    assert raised.value.name == "a.b.Denied"
    manager.close()


def test_control_group(peer: Peer) -> None:
    peer.replies["Get"] = [[("v", ("s", "/user.slice/user@7.service"))]]
    manager = bus.Manager(user=False)
    assert manager.control_group() == "/user.slice/user@7.service"
    manager.close()
    assert peer.calls == [("Get", ["org.freedesktop.systemd1.Manager", "ControlGroup"])]


def test_no_manager_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyrunc._shim", reason="the extension is not built")
    monkeypatch.setattr(bus, "PRIVATE", str(tmp_path / "none"))
    monkeypatch.setattr(bus, "SYSTEM", f"unix:path={tmp_path}/neither")
    with pytest.raises(PyruncError, match=r"systemd cannot be reached at .*none, .*neither|libsystemd"):
        bus.Manager(user=False)
    for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(PyruncError, match=r"neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS"):
        bus.Manager(user=True)


def test_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7,8")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    private = ("unix:path=/run/user/7%2c8/systemd/private", False)
    assert bus.addresses(True) == [private, ("unix:path=/run/user/7%2c8/bus", True)]
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:abstract=x")
    assert bus.addresses(True) == [private, ("unix:abstract=x", True)]
