"""No path or process that a caller, a configuration or a container names makes a command wait
forever."""

from __future__ import annotations

import os
import select
import signal
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration import machine
from integration.config import PATH_ENV
from integration.harness import Box, Container, wait_until
from integration.test_exec import process_file, run, started

Make = Callable[..., Container]


# --- paths ----------------------------------------------------------------------------------------


def make(path: Path, what: str) -> Path:
    """Create a file of an unexpected type at a path."""
    if what == "fifo":
        os.mkfifo(path)
    elif what == "device":
        os.mknod(path, 0o020600, os.makedev(5, 1))
    elif what == "directory":
        path.mkdir()
    else:
        path.write_text("")
    return path


@pytest.mark.parametrize("what", ["fifo", "file", "directory", "device"])
@pytest.mark.parametrize("kind", ["network", "user", "mount"])
@pytest.mark.pyrunc_only("runc opens whatever is there")
def test_path_of_a_namespace_that_is_none(container: Make, box: Box, kind: str, what: str) -> None:
    path = make(box.path / "place", what)
    one = container()
    spaces = one.bundle.config["linux"]["namespaces"]
    spaces[:] = [space for space in spaces if space["type"] != kind] + [{"type": kind, "path": str(path)}]
    result = one.create(check=False, timeout=10)
    assert result.rc == 1 and len(result.err.splitlines()) == 1
    assert f'/linux/namespaces/{len(spaces) - 1}/path "{path}": fstatfs: EINVAL: not a namespace' in result.err


def test_config_that_is_a_fifo_is_read_when_it_is_written(container: Make) -> None:
    """`pyrunc run -f <(generate)`: the writer may be slow."""
    one = container("say", "read")
    one.bundle.save()
    text = (one.bundle.path / "config.json").read_bytes()
    (one.bundle.path / "config.json").unlink()
    os.mkfifo(one.bundle.path / "config.json")

    def write() -> None:
        with open(one.bundle.path / "config.json", "wb") as file:
            file.write(text)

    writer = threading.Timer(0.3, write)
    writer.start()
    try:
        assert one.run(save=False).out == "read\n"
    finally:
        writer.join()


@pytest.mark.pyrunc_only("runc waits for ever")
def test_process_file_that_nobody_writes(container: Make, box: Box) -> None:
    one = started(container)
    path = make(box.path / "process.json", "fifo")
    result = run(one, flags=("--process", str(path)), check=False, timeout=20)
    assert result.rc == 255
    assert f'--process "{path}": open: ETIMEDOUT' in result.err


# --- a process that no signal reaches -------------------------------------------------------------

INIT, GETATTR, OPEN, READ = 26, 3, 14, 15  # linux/fuse.h
ENOSYS = 38


class SilentFile:
    """A FUSE file that can be opened but never returns its content."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text("")
        self.fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        options = f"fd={self.fd},rootmode=100755,user_id=0,group_id=0,allow_other".encode()
        machine.libc("mount", b"fuse", os.fsencode(path), b"fuse", 0, options)
        self.asked, self.stopped = threading.Event(), threading.Event()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self) -> None:
        while not self.stopped.is_set():
            if not select.select([self.fd], [], [], 0.1)[0]:
                continue
            try:
                data = os.read(self.fd, 1 << 20)
            except OSError:
                return  # unmounted
            _, code, unique = struct.unpack_from("=IIQ", data)
            if code == READ:
                self.asked.set()
            else:
                self.answer(code, unique)

    def answer(self, code: int, unique: int) -> None:
        attributes = struct.pack("=QQQQQQIIIIIIIIII", 1, 1000, 2, 0, 0, 0, 0, 0, 0, 0o100755, 1, 0, 0, 0, 512, 0)
        bodies = {
            INIT: struct.pack("=IIIIHHIIHHI7I", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0, *[0] * 7),
            GETATTR: struct.pack("=QII", 0, 0, 0) + attributes,
            OPEN: struct.pack("=QII", 1, 1, 0),  # FOPEN_DIRECT_IO
        }
        body = bodies.get(code)
        head = struct.pack("=IiQ", 16 + len(body or b""), 0 if body is not None else -ENOSYS, unique)
        try:
            os.write(self.fd, head + (body or b""))
        except OSError:
            pass  # interrupts are not answered

    def close(self) -> None:
        """Closing the last descriptor aborts the connection, so every waiting process gets an
        error."""
        if self.stopped.is_set():
            return
        self.stopped.set()
        self.thread.join(10)
        os.close(self.fd)
        subprocess.run(["umount", "-l", str(self.path)], check=False)


def bound(silent: SilentFile, place: str) -> dict[str, Any]:
    """A mount that puts the file into a container."""
    return {"destination": place, "type": "bind", "source": str(silent.path), "options": ["bind"]}


@pytest.fixture
def silent(box: Box) -> Iterator[SilentFile]:
    if not Path("/dev/fuse").exists():
        pytest.skip("no /dev/fuse here")
    made = SilentFile(box.path / "silent")
    yield made
    made.close()


@pytest.mark.pyrunc_only("runc hangs until the FUSE server answers")
def test_exec_that_waits_for_the_container_ends_with_a_signal(container: Make, silent: SilentFile, box: Box) -> None:
    """The container's /etc/passwd never answers, so SIGKILL does not end our process."""
    edits = {"/mounts/-": bound(silent, "/etc/passwd")}
    one = started(container, edits={**edits, "/process/env": [PATH_ENV, "HOME=/"]})
    file = process_file(one, env=[PATH_ENV])  # without HOME, the runtime looks it up there
    argv = box.runtime.argv("--root", str(box.root), "exec", "--process", file, one.id)
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    box.helpers.add(child.pid)
    try:
        assert silent.asked.wait(10), "nobody has read the file"
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=15)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 255
    text = err.decode()
    assert len(text.splitlines()) == 1
    assert "interrupted by signal 15; a child process did not exit: process " in text
    assert "(pyrunc-init) waits in " in text and "waits in ?" not in text
    silent.close()
    wait_until(lambda: not [name for name in box.children().values() if "pyrunc-init" in name], "its end")


@pytest.mark.pyrunc_only("runc hangs until the FUSE server answers")
def test_create_that_waits_for_the_image_ends_with_a_signal(container: Make, silent: SilentFile, box: Box) -> None:
    one = container(edits={"/mounts/-": bound(silent, "/etc/passwd"), "/process/env": [PATH_ENV]})
    one.bundle.save()
    argv = box.runtime.argv("--root", str(box.root), "create", "--bundle", str(one.bundle.path), one.id)
    with open(box.path / "error", "wb") as error:  # not a pipe, because the process that hangs would hold it open
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=error, stderr=error)
    box.helpers.add(child.pid)
    try:
        assert silent.asked.wait(10), "nobody has read the file"
        child.send_signal(signal.SIGTERM)
        child.wait(15)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == 1
    text = (box.path / "error").read_text()
    assert len(text.splitlines()) == 1
    assert "interrupted by signal 15; a child process did not exit: process " in text
    assert f"`delete --force {one.id}` removes the rest once it has ended" in text
    silent.close()
    wait_until(lambda: not [name for name in box.children().values() if "pyrunc-init" in name], "its end")
    one.delete("--force")
    assert not box.leftovers()


@pytest.mark.pyrunc_only("runc hangs until the FUSE server answers")
def test_program_that_does_not_start_leaves_signals_to_us(container: Make, silent: SilentFile, box: Box) -> None:
    """Programs own their pipes once they start; a failed execve does not count as a start."""
    one = started(container, edits={"/mounts/-": bound(silent, "/hang")})
    argv = box.runtime.argv("--root", str(box.root), "exec", one.id, "/hang")
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    box.helpers.add(child.pid)
    try:
        assert silent.asked.wait(10), "nobody has read the file"
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=15)
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 255
    assert "interrupted by signal 15: process " in err.decode()
    silent.close()
    wait_until(lambda: not [name for name in box.children().values() if "pyrunc-init" in name], "its end")
