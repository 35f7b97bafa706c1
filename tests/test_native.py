"""pyrunc.native: its two bindings match the same headers and behave alike, and each function
converts its values."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pyrunc.native import (
    binding,
    bpf,
    files,
    foreign,
    libseccomp,
    namespaces,
    processes,
    prototypes,
    sockets,
    terminals,
)

ROOT = Path(__file__).resolve().parent.parent
SHIM = ROOT / "native" / "shim"
HEADERS = [SHIM / name for name in ("shim.h", "seccomp.h", "bus.h")]
sys.path.insert(0, str(SHIM))

import gen_calls  # noqa: E402

FUNCTIONS = {one.name: one for one in gen_calls.functions(HEADERS)}


# --- what is generated ----------------------------------------------------------------------------


def test_every_function_is_there() -> None:
    headers = re.sub(r"/\*.*?\*/", "", "".join(path.read_text() for path in SHIM.glob("*.h")), flags=re.DOTALL)
    declared = set(re.findall(r"\bpr_(\w+)\(", headers))
    assert len(declared) > 25
    assert declared == set(FUNCTIONS) == set(re.findall(r'\{"(\w+)", ', gen_calls.c_source(HEADERS)))


def test_kinds_of_arguments() -> None:
    kinds = dict(re.findall(r'take\("(\w+)", "(\w*)"', gen_calls.c_source(HEADERS)))
    assert kinds["socketpair"] == "wi"
    assert kinds["memfd_sealed"] == "spQi"
    assert kinds["recv_fd"] == "iwQiw"
    assert kinds["prlimit"] == "iiQQ"
    assert kinds["signals_catch"] == ""
    assert kinds["bpf_prog_query"] == "iwi"
    assert kinds["spawn_hook"] == "svvsiiw"
    assert kinds["bus_add_number"] == "QcQ" and kinds["bus_add_real"] == "Qd"
    assert kinds["bus_open"] == "siw" and kinds["bus_close"] == "Q"
    with pytest.raises(ValueError, match="weird"):
        gen_calls.parameter("weird **x")


def test_the_python_side_is_of_these_headers() -> None:
    """Regenerate: native/shim/gen_calls.py python HEADER... pyrunc/native/prototypes.py."""
    assert (ROOT / "pyrunc/native/prototypes.py").read_text() == gen_calls.python_source(HEADERS)


def test_errors_name_the_call() -> None:
    calls = {one.name: one.call for one in FUNCTIONS.values()}
    assert calls["connect_unix"] == "connect" and calls["bpf_prog_load_device"] == "bpf(PROG_LOAD)"
    assert calls["setns"] == "setns" and calls["seccomp_number"] == ""
    assert {name: call for name, call in calls.items() if call != name} == prototypes.CALLS
    assert 'return answer(result, "connect");' in gen_calls.c_source(HEADERS)


def test_only_the_room_knows_the_bindings() -> None:
    outside = [path for path in (ROOT / "pyrunc").rglob("*.py") if path.parent.name != "native"]
    words = ("_shim", "native.binding", "native.foreign", "native import binding", "native import foreign")
    assert not [str(path) for path in outside if any(word in path.read_text() for word in words)]


# --- values ---------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> tuple[int, int]:
    pytest.importorskip("pyrunc._shim", reason="not built: make build")
    return sockets.socketpair(50)


def test_messages(pair: tuple[int, int]) -> None:
    ours, theirs = pair
    read, write = os.pipe()
    try:
        assert min(pair) >= 50 and not os.get_inheritable(ours)
        assert sockets.send(ours, b"plain") == 5 and sockets.receive(theirs, 256, 1000) == b"plain"
        assert sockets.send(ours, b"two", [write, read]) == 3
        data, fd = sockets.receive_descriptor(theirs, 256, 1000)
        assert data == b"two" and os.fstat(fd).st_ino == os.fstat(write).st_ino
        os.close(fd)
        assert sockets.send_descriptor(ours, b"one", read) == 3
        data, fd = sockets.receive_descriptor(theirs, 256, 1000)
        assert data == b"one" and fd >= 0
        os.close(fd)
        sockets.send(ours, b"none")
        assert sockets.receive_descriptor(theirs, 256, 1000) == (b"none", -1)
        with pytest.raises(TimeoutError, match="recv"):
            sockets.receive(theirs, 256, 1)
        os.close(ours)
        assert sockets.receive(theirs, 256, 1000) == b""
        with pytest.raises(BrokenPipeError, match="send"):
            sockets.send(theirs, b"x")
    finally:
        for fd in (theirs, read, write):
            os.close(fd)


@pytest.mark.parametrize(
    ("call", "error", "word"),
    [
        (lambda: sockets.connect(b"/no/such/path"), FileNotFoundError, "connect"),
        (lambda: processes.spawn_hook(b"/no/such/path", [b"x"], []), FileNotFoundError, "execve"),
        (lambda: processes.spawn_hook(b"/bin/true", [b"x"], [], cwd=b"/no/such/path"), FileNotFoundError, "chdir"),
        (lambda: processes.await_end(os.getpid(), 0), ChildProcessError, "waitid"),
        (lambda: namespaces.setns(-1, 0), OSError, "setns"),
        (lambda: files.filesystem_type(-1), OSError, "fstatfs"),
        (lambda: bpf.load_device(b""), bpf.Refused, "bpf(PROG_LOAD)"),
        (lambda: libseccomp.arch(b"no such"), OSError, "seccomp_arch"),
        (lambda: libseccomp.compile(b"", 100), libseccomp.Failure, ""),
    ],
)
def test_errors(call: Callable[[], object], error: type[OSError], word: str) -> None:
    pytest.importorskip("pyrunc._shim", reason="not built: make build")
    with pytest.raises(error) as raised:
        call()
    assert raised.value.errno and raised.value.strerror == word


def test_a_sealed_file() -> None:
    pytest.importorskip("pyrunc._shim", reason="not built: make build")
    for data in (b"bytes", bytearray(b"array"), memoryview(b"view")):
        fd = files.memfd_sealed(b"test", data)
        try:
            assert os.pread(fd, 100, 0) == bytes(data)
            with pytest.raises(OSError, match="not permitted"):
                os.write(fd, b"x")
        finally:
            os.close(fd)


def test_the_size_of_a_terminal() -> None:
    pytest.importorskip("pyrunc._shim", reason="not built: make build")
    ours, theirs = os.openpty()
    try:
        terminals.set_size(ours, 12, 345)
        assert terminals.size(theirs) == (12, 345)
        before = terminals.make_raw(theirs)
        assert len(before) == 64
        terminals.restore(theirs, before)
        assert terminals.make_raw(theirs) == before
    finally:
        os.close(ours)
        os.close(theirs)


def test_numbers_of_calls() -> None:
    """Negative numbers are valid: they denote calls that an architecture lacks."""
    pytest.importorskip("pyrunc._shim", reason="not built: make build")
    native = libseccomp.arch(b"")
    read = libseccomp.number(native, b"read")
    assert read >= 0 and libseccomp.name(native, read) == "read"
    assert libseccomp.number(native, b"no such call") == -1 and libseccomp.name(native, 1 << 30) == ""


def test_a_function_that_is_not_there() -> None:
    pytest.importorskip("pyrunc._shim", reason="not built: make build")
    with pytest.raises(AttributeError):
        foreign.call("no_such_function")()
    with pytest.raises(ValueError, match="shorter"):
        binding.calls.setns(1)  # type: ignore[call-arg]


def test_without_the_extension() -> None:
    """Importing works without cffi, and functions that need it report that it is missing."""
    code = (
        "import sys; sys.path.append(sys.argv[1]); from pyrunc.native import sockets\n"
        "try: sockets.socketpair()\nexcept ImportError as error: print('missing', error)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, ROOT], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("missing")
