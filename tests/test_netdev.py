"""linux.netDevices without a network: imports, and the interpretation of the kernel's answers."""

from __future__ import annotations

import struct
import subprocess
import sys
from importlib.machinery import PathFinder
from types import ModuleType, SimpleNamespace

import pytest

import transcript
from pyrunc.launch import netdev

kept = transcript.follow()

pytest.importorskip("pyroute2")


def test_few_modules_of_pyroute2_are_imported() -> None:
    """All of pyroute2 costs 0.2 s of CPU time, most of it for unused protocols."""
    script = (
        "import sys; from pyrunc.launch import netdev; links, addresses = netdev._messages();"
        "print(links.__name__, addresses.__name__, 'asyncio' in sys.modules, 'pyroute2.iproute' in sys.modules,"
        " len([name for name in sys.modules if name.startswith('pyroute2')]) < 80)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ifinfmsg", "ifaddrmsg", "False", "False", "True"]


def acknowledgement(number: int, flags: int = 0, words: str = "", payload: bytes = b"") -> tuple[bytes, int]:
    """An NLMSG_ERROR message: header, error, the request (or its header alone), attributes."""
    request = struct.pack("=IHHII", 16 + len(payload), netdev.RTM_NEWLINK, 0, 1, 0)
    body = struct.pack("=i", number) + request + (b"" if flags & netdev.NLM_F_CAPPED else payload)
    body += bytes(-len(body) % 4)
    if flags & netdev.NLM_F_ACK_TLVS:
        text = words.encode() + b"\0"
        for kind, data in ((2, b"\1\0\0\0"), (netdev.NLMSGERR_ATTR_MSG, text)):
            body += struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)
    return struct.pack("=IHHII", 16 + len(body), netdev.NLMSG_ERROR, flags, 1, 0) + body, flags


@pytest.mark.parametrize("payload", [b"", b"x" * 5, b"x" * 64])
@pytest.mark.parametrize("flags", [0, netdev.NLM_F_CAPPED])
def test_words_of_an_error(flags: int, payload: bytes) -> None:
    with pytest.raises(netdev.NetlinkError) as caught:
        netdev._check_ack(*acknowledgement(-22, flags | netdev.NLM_F_ACK_TLVS, "Bad thing", payload))
    assert caught.value.args == (22, "Bad thing")
    with pytest.raises(netdev.NetlinkError) as caught:
        netdev._check_ack(*acknowledgement(-16, flags, "", payload))
    assert caught.value.args == (16, "")


def test_success_and_nonsense() -> None:
    netdev._check_ack(*acknowledgement(0))
    data, flags = acknowledgement(-1, netdev.NLM_F_ACK_TLVS, "x")
    for cut in range(36, len(data)):
        with pytest.raises(netdev.NetlinkError):
            netdev._check_ack(data[:cut], flags)


@pytest.mark.parametrize("spec", [None, SimpleNamespace(submodule_search_locations=None)])
def test_without_pyroute2(spec: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that is not a package cannot be used either."""
    monkeypatch.delitem(sys.modules, "pyroute2", raising=False)
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: spec)
    with pytest.raises(ModuleNotFoundError, match=r"^No module named 'pyroute2'$") as caught:
        netdev._shell()
    assert caught.value.name == "pyroute2" and "pyroute2" not in sys.modules


def test_the_shell_of_pyroute2(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pyroute2", raising=False)
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: SimpleNamespace(submodule_search_locations=["/a", name]))
    netdev._shell()
    made = sys.modules.pop("pyroute2")
    assert made.__path__ == ["/a", "pyroute2"] and made.__name__ == "pyroute2"
    kept = ModuleType("pyroute2")
    monkeypatch.setitem(sys.modules, "pyroute2", kept)
    netdev._shell()
    assert sys.modules["pyroute2"] is kept
