"""Passing the notification descriptor to a seccomp agent."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import tempfile
import threading
from pathlib import Path

import pytest

from json_type import Json
from pyrunc.spec.types import Seccomp

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from pyrunc import seccomp
from pyrunc.errors import SysError
from pyrunc.native import sockets


class Agent:
    """Accept one connection at a path; return all data and the descriptors of the first message."""

    def __init__(self, path: str) -> None:
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.server.bind(path)
        self.server.listen(1)
        self.server.settimeout(10)
        self.data = b""
        self.fds: list[int] = []
        self.later_fds = 0
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        connection, _ = self.server.accept()
        with connection:
            connection.settimeout(10)
            first = True
            while True:
                data, control, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(64))
                for _, _, raw in control:
                    numbers = array.array("i")
                    numbers.frombytes(raw[: len(raw) - len(raw) % 4])
                    if first:
                        self.fds += numbers
                    self.later_fds += 0 if first else len(numbers)
                first = False
                if not data:
                    return
                self.data += data

    def join(self) -> None:
        self.thread.join(10)
        self.server.close()


@pytest.mark.parametrize("metadata", [None, 'x"\n\u00e9\\', ""])
@pytest.mark.parametrize("annotations", [{}, {"a": "b" * 1_000_000}], ids=["short", "long"])
def test_send_listener(metadata: str | None, annotations: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/agent.sock"
        agent = Agent(path)
        reader, writer = os.pipe()
        before = len(os.listdir("/proc/self/fd"))
        status = {"ociVersion": "1.3.0", "id": "x", "status": "creating", "pid": 42, "annotations": annotations}
        config: Json = {"listenerPath": path} | ({} if metadata is None else {"listenerMetadata": metadata})
        try:
            seccomp.hand_over(writer, config, 42, json.dumps(status))
            agent.join()
            os.write(agent.fds[0], b"it is the pipe")
            assert os.read(reader, 100) == b"it is the pipe"
            assert len(agent.fds) == 1
            assert agent.later_fds == 0
            assert os.fstat(agent.fds[0]).st_ino == os.fstat(writer).st_ino
        finally:
            for fd in (*agent.fds, reader, writer):
                os.close(fd)
        assert len(os.listdir("/proc/self/fd")) <= before
        found = json.loads(agent.data)
        assert found.pop("metadata", None) == (metadata or None)
        assert found == {"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 42, "state": status}


def heard_at(path: Path | str) -> Seccomp:
    """A profile whose listener exists."""
    return {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": str(path)}


def test_send_listener_failures(tmp_path: Path) -> None:
    pidfd = os.pidfd_open(os.getpid())
    try:
        with pytest.raises(SysError, match=r'/linux/seccomp/listenerPath ".*nobody.sock": connect: ENOENT'):
            seccomp.hand_over(0, heard_at(tmp_path / "nobody.sock"), 1, "{}")
        with pytest.raises(SysError, match="pidfd_getfd: EBADF"):
            seccomp.send_listener(pidfd, 999_999, heard_at("/x"), 1, "{}")
        # A process that the container controls may send any descriptor, at any time.
        with pytest.raises(SysError, match="is not a notify descriptor"):
            seccomp.send_listener(pidfd, 0, heard_at("/x"), 1, "{}")
        with pytest.raises(SysError, match="a listener, but the profile has none"):
            seccomp.send_listener(pidfd, 0, {"defaultAction": "SCMP_ACT_ALLOW"}, 1, "{}")
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("reads", [False, True], ids=["does-not-accept", "does-not-read"])
def test_send_listener_to_an_agent_that_sleeps(tmp_path: Path, reads: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten seconds, then an error: no command waits forever for an agent."""
    path = str(tmp_path / "agent.sock")
    connect, limits = sockets.connect, []

    def impatient(path: bytes) -> int:
        fd = connect(path)
        with socket.socket(fileno=os.dup(fd)) as connected:
            limits.append(connected.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@2l", 0, 200_000))
        return fd

    monkeypatch.setattr(sockets, "connect", impatient)
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as other:
        server.bind(path)
        server.listen(0)
        if not reads:
            other.connect(path)  # fills the backlog
        status = json.dumps({"annotations": {"a": "b" * 4_000_000}})
        call = "sendmsg" if reads else "connect"
        with pytest.raises(SysError, match=f'listenerPath ".*": {call}: ETIMEDOUT'):
            seccomp.hand_over(server.fileno(), heard_at(path), 1, status)
    assert limits == ([struct.pack("@2l", 10, 0)] if reads else [])
