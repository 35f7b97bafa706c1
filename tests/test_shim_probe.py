"""native/shim/probe.c: support of this kernel, probed in children; and the names of device
programs."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import work

shim = pytest.importorskip("pyrunc._shim", reason="not built: make build")
ffi: Any = shim.ffi
lib: Any = shim.lib
ROOT = Path(__file__).resolve().parent.parent

PROBES = ["NAMESPACES", "MOUNT_API", "OPENAT2", "CLONE_INTO_CGROUP", "SECCOMP_NOTIFY", "LANDLOCK"]
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000

# Run a probe with a filter that answers some system calls with an errno.
FILTERED = """
import ctypes, struct, sys
from pyrunc._shim import ffi, lib
number, name, calls = int(sys.argv[1]), sys.argv[2], list(map(int, sys.argv[3].split(",")))
code = [(0x20, 0, 0, 0)]  # load the number of the call
for call in calls:
    code += [(0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | number)]
code.append((0x06, 0, 0, 0x7FFF0000))
body = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(code), ctypes.addressof(body)))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, program, 0, 0) == 0
print(lib.pr_probe(getattr(lib, "PR_PROBE_" + name), 0))
"""
# Numbers that are the same on every machine, except those of seccomp and bpf.
CALLS = {"MOUNT_API": "430", "OPENAT2": "437", "CLONE_INTO_CGROUP": "435", "LANDLOCK": "444"}


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_answers(name: str) -> None:
    """The result is 0 or more, or an error that a kernel returns, and no child is left."""
    children = work.children()
    result = lib.pr_probe(getattr(lib, f"PR_PROBE_{name}"), 0)
    assert result >= 0 or -result in errno.errorcode
    assert work.children() == children


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_probe_finds_what_is_missing(name: str, number: int) -> None:
    command = [sys.executable, "-c", FILTERED, str(number), name, CALLS[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.stdout.strip() == str(-number), done.stderr


def test_a_probe_of_namespaces_stays_in_its_child() -> None:
    before = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    assert lib.pr_probe(lib.PR_PROBE_NAMESPACES, CLONE_NEWUSER | CLONE_NEWNS) <= 0
    assert {name: os.readlink(f"/proc/self/ns/{name}") for name in before} == before
    assert lib.pr_probe(lib.PR_PROBE_NAMESPACES, 0x1) == -errno.EINVAL
    assert lib.pr_probe(99, 0) == -errno.EINVAL


def test_a_probe_without_processes_to_spare() -> None:
    """The limit of another user is reached: an error, and nothing hangs."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    code = "import os, resource; os.setuid(54321); resource.setrlimit(resource.RLIMIT_NPROC, (0, 0));"
    code = f"from pyrunc._shim import lib; {code} print(lib.pr_probe(0, 0))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.stdout.strip() == str(-errno.EAGAIN), done.stderr


def test_subordinate_ids() -> None:
    """As getsubids(1) prints them, where libsubid is installed."""
    program = shutil.which("getsubids")
    room = ffi.new("char[]", 4096)
    for groups, flags in ((0, []), (1, ["-g"])):
        length = lib.pr_subids(b"root", groups, room, 4096)
        if length == -errno.ENOPKG or program is None:
            pytest.skip("libsubid or getsubids is not installed")
        listed = subprocess.run([program, *flags, "root"], capture_output=True, text=True, timeout=10).stdout
        wanted = [line.split()[-2:] for line in listed.splitlines()]
        assert [line.split() for line in ffi.buffer(room, length)[1:].decode().splitlines()] == wanted
    assert lib.pr_subids(b"root", 0, room, 0) == -errno.EINVAL


def test_the_name_of_a_program() -> None:
    fd = lib.pr_bpf_prog_load_device(bytes.fromhex("b7000000010000009500000000000000"), 2, ffi.NULL, 0)
    if fd < 0:
        pytest.skip(f"bpf: {errno.errorcode[-fd]}")
    name = ffi.new("char[16]")
    try:
        assert lib.pr_bpf_prog_name(fd, name, 16) == 14 and ffi.string(name) == b"pyrunc_devices"
        assert lib.pr_bpf_prog_name(fd, name, 14) == -errno.ENOSPC
        assert lib.pr_bpf_prog_name(0, name, 16) < 0
    finally:
        os.close(fd)


# A fake libsubid: it returns two ranges, crashes, or asks a server that does not answer.
LIBSUBID = """
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
struct range { unsigned long start, count; };
bool subid_init(const char *name, FILE *out) { return name && !out; }
static struct range some[2] = {{100000, 65536}, {4294967295, 1}};
int subid_get_uid_ranges(const char *owner, struct range **out)
{
    if (!strcmp(owner, "crash"))
        *(volatile int *)0 = 1;
    if (!strcmp(owner, "hang"))
        sleep(60);
    if (!strcmp(owner, "nobody"))
        return -1;
    *out = some;
    return 2;
}
int subid_get_gid_ranges(const char *owner, struct range **out)
{
    (void)owner;
    *out = some;
    return 1;
}
"""
ASK = """
from pyrunc._shim import ffi, lib
room = ffi.new("char[]", 100)
for owner, groups in ((b"joe", 0), (b"joe", 1), (b"nobody", 0), (b"crash", 0), (b"hang", 0)):
    length, tries = -110, 20
    while length == -110 and owner != b"hang" and tries:  # a busy machine
        length, tries = lib.pr_subids(owner, groups, room, 100), tries - 1
    if owner == b"hang":
        length = lib.pr_subids(owner, groups, room, 100)
    print(length if length < 0 else bytes(ffi.buffer(room, length)))
"""


def test_any_libsubid(tmp_path: Path) -> None:
    """The library runs only in a child, for a fraction of a second."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    (tmp_path / "subid.c").write_text(LIBSUBID)
    library = tmp_path / "libsubid.so.5"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, tmp_path / "subid.c"], check=True, timeout=60)
    env = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, timeout=30, cwd=ROOT, env=env)
    assert done.stdout.splitlines() == [
        repr(b"\x01100000 65536\n4294967295 1\n"),
        repr(b"\x01100000 65536\n"),
        repr(b"\1"),
        str(-errno.ENOPKG),
        str(-errno.ETIMEDOUT),
    ], done.stderr
