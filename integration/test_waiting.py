"""The process that waits between create and start is small and single-threaded, and holds nothing
of the host's."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.harness import Box, Container

Make = Callable[..., Container]


def proc(one: Container, name: str) -> str:
    return Path(f"/proc/{one.pid}/{name}").read_text(errors="replace")


@pytest.fixture
def waiting(container: Make) -> Container:
    one = container("report")
    one.create(env={"SECRETENV": "leak", "PATH": "/usr/bin:/bin"})
    return one


def interpreter() -> Path:
    return Path(os.path.realpath(sys.executable))


@pytest.mark.pyrunc_only("runc's waiting process is a Go program")
def test_one_thread(waiting: Container) -> None:
    assert "Threads:\t1\n" in proc(waiting, "status")


@pytest.mark.pyrunc_only("runc's waiting process is the Go program")
def test_resident_memory(waiting: Container) -> None:
    """48 KiB with musl: a page of code, its variables and its stack; glibc-static has more
    variables."""
    kib = int(re.search(r"VmRSS:\s+(\d+) kB", proc(waiting, "status")).group(1))  # type: ignore[union-attr]
    assert kib <= 64, f"{kib} KiB resident"


@pytest.mark.pyrunc_only("runc's waiting process is the Go program")
@pytest.mark.skipif(os.sysconf("SC_PAGESIZE") != 4096, reason="nothing is released where pages are larger")
def test_only_one_page_of_code_remains(waiting: Container) -> None:
    """The plan is gone, and one page of code remains, which holds the function that waits."""
    kib = {"code": 0, "plan": 0, "stack": 0}
    kind, end = "", 0
    for line in proc(waiting, "smaps").splitlines():
        fields = line.split()
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            name = fields[5] if len(fields) > 5 else ""
            kind = "plan" if name.startswith("/memfd:pyrunc-plan") else name.strip("[]") if name == "[stack]" else ""
            if not kind and name.startswith("/memfd:") and "w" not in fields[1]:
                kind = "code"
            end = int(fields[0].partition("-")[2], 16) if kind == "stack" else end
        elif fields[0] == "Rss:" and kind:
            kib[kind] += int(fields[1])
    assert (kib["code"], kib["plan"]) == (4, 0)
    # wait.c keeps its frame and the page below. The kernel puts frames up to 8 KiB
    # below the strings at random (arch_align_stack), so those in use are one to three.
    used = (end - int(proc(waiting, "syscall").split()[-2], 16) + 4095) // 4096
    assert 1 <= used <= 3
    assert 0 < kib["stack"] <= 4 * (used + 1)


def test_executable_is_not_a_file_of_the_host(waiting: Container) -> None:
    """CVE-2019-5736: a container can open the file behind /proc/PID/exe of its processes."""
    link = os.readlink(f"/proc/{waiting.pid}/exe")
    if waiting.box.runtime.is_pyrunc:  # in runc 1.1.5 it is a file of a detached mount
        assert link.startswith("/memfd:"), link
    with pytest.raises(OSError):
        os.close(os.open(f"/proc/{waiting.pid}/exe", os.O_WRONLY))


@pytest.mark.pyrunc_only("runc's is a copy of runc")
def test_maps_name_no_file(waiting: Container) -> None:
    files = {line.split(None, 5)[5] for line in proc(waiting, "maps").splitlines() if len(line.split(None, 5)) > 5}
    strange = [name for name in files if not name.startswith(("/memfd:", "["))]
    assert not strange, strange


def test_environment_and_arguments(waiting: Container) -> None:
    assert "SECRETENV" not in proc(waiting, "environ")
    if waiting.box.runtime.is_pyrunc:
        assert proc(waiting, "environ") == ""
        assert proc(waiting, "cmdline").split("\0")[0] == "pyrunc-init"
    for word in (str(waiting.box.root), str(waiting.bundle.path), "--bundle"):
        assert word not in proc(waiting, "cmdline")


def test_descriptors(waiting: Container) -> None:
    links = {name: os.readlink(f"/proc/{waiting.pid}/fd/{name}") for name in os.listdir(f"/proc/{waiting.pid}/fd")}
    if waiting.box.runtime.is_pyrunc:
        assert len(links) <= 5, f"stdio, start and error only: {links}"
    assert not [
        target for target in links.values() if "python" in target or target in ("/", str(waiting.bundle.rootfs))
    ], links


def test_root_and_cwd_are_inside(waiting: Container) -> None:
    inode = waiting.bundle.rootfs.stat().st_ino
    assert os.stat(f"/proc/{waiting.pid}/root/.").st_ino == inode
    assert os.stat(f"/proc/{waiting.pid}/cwd/.").st_ino == inode


def test_capabilities_and_privileges_are_final(waiting: Container) -> None:
    status = proc(waiting, "status")
    assert "NoNewPrivs:\t1" in status
    assert "CapInh:\t0000000000000000" in status
    assert "CapAmb:\t0000000000000000" in status


def test_container_cannot_run_our_program(container: Make) -> None:
    """args /proc/self/exe must not execute any part of the runtime inside the container."""
    result = container(edits={"/process/args": ["/proc/self/exe"]}).run(check=False)
    assert result.rc != 0 or result.out == ""


@pytest.mark.pyrunc_only("about pyrunc's own interpreter")
def test_host_programs_are_unchanged(container: Make, box: Box) -> None:
    files = [interpreter(), Path(os.path.realpath(box.runtime.path))]
    before = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    script = "for f in /proc/[0-9]*/exe; do (echo x >$f) 2>/dev/null; done; exit 0"
    container(edits={"/process/args": ["/bin/sh", "-c", script]}).run()
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in files] == before


def test_waiting_survives_its_creator_and_needs_no_helper(waiting: Container) -> None:
    assert list(waiting.box.children()) == [waiting.pid]
