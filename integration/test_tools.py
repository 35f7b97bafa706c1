"""`exec --tools`: programs of the host for one process of a container without a shell."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE
from integration.harness import Box, Container, Result
from integration.machine import parse_mountinfo
from integration.test_rootless import User, user
from integration.test_userns import edits, own

__all__ = ["user"]  # a fixture
Make = Callable[..., Container]
PLACE = "/proc/fs/nfsd"
FILTER = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mount", "open_tree", "unshare", "clone3"], "action": "SCMP_ACT_ERRNO"}],
}
pytestmark = pytest.mark.pyrunc_only("other runtimes have no such option")


@pytest.fixture
def tools(box: Box) -> Path:
    """A directory with a static busybox, whose programs have links beside it."""
    busybox = shutil.which("busybox")
    assert busybox
    path = box.path / "tools"
    (path / "bin").mkdir(parents=True)
    shutil.copy(busybox, path / "bin" / "busybox")
    for name in ("sh", "ls", "cat", "stat", "id", "touch", "mount", "sleep", "tty"):
        (path / "bin" / name).symlink_to("busybox")
    return path


@pytest.fixture
def bare(container: Make) -> Make:
    """``bare(edits)``: a running container whose root contains only the program."""

    def make(more: dict[str, Any] | None = None, mapped: bool = False) -> Container:
        one = container("sleep", "600", edits=edits(more) if mapped else more)
        for name in os.listdir(one.bundle.rootfs):
            path = one.bundle.rootfs / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif name != "probe":
                path.unlink()
        if mapped:
            own(one)
        one.create()
        one.start()
        return one

    return make


def look(one: Container, tools: Path, script: str, *flags: str, check: bool = True) -> Result:
    return one.call("exec", "--tools", str(tools), *flags, one.id, "sh", "-c", script, check=check)


def test_an_image_without_a_shell(bare: Make, tools: Path) -> None:
    one = bare()
    assert one.call("exec", one.id, "sh", check=False).rc == 255
    seen = look(one, tools, "ls /; cat /proc/1/comm; echo $PATH").out.split("\n")
    assert "probe" in seen and seen[-2].startswith(f"{PLACE}/bin:{PLACE}/usr/bin:{PLACE}:")
    assert look(one, tools, "exit 7", check=False).rc == 7


def test_the_directory_is_read_only_without_devices_and_set_user_id(bare: Make, tools: Path) -> None:
    (tools / "set-user-id").touch()
    os.chmod(tools / "set-user-id", 0o4755)
    os.mknod(tools / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    one = bare()
    result = look(one, tools, f"cat /proc/self/mountinfo; touch {PLACE}/file; cat {PLACE}/null", check=False)
    (mount,) = [m for m in parse_mountinfo(result.out) if m.dest == PLACE]
    assert {"ro", "nosuid", "nodev"} <= set(mount.options) and mount.shared == ""
    assert "Read-only file system" in result.err and "Permission denied" in result.err
    assert not (tools / "file").exists()


@pytest.mark.parametrize("propagation", [None, "rshared"])
def test_no_other_process_sees_it(bare: Make, tools: Path, propagation: str | None) -> None:
    one = bare({"/linux/rootfsPropagation": propagation} if propagation else None)
    host = Path("/proc/self/mountinfo").read_text()
    before = Path(f"/proc/{one.pid}/mountinfo").read_text()
    one.call("exec", "-d", "--tools", str(tools), "--pid-file", str(one.box.path / "pid"), one.id, "sleep", "60")
    pid = int((one.box.path / "pid").read_text())
    assert PLACE in Path(f"/proc/{pid}/mountinfo").read_text()
    assert Path(f"/proc/{one.pid}/mountinfo").read_text() == before
    assert Path("/proc/self/mountinfo").read_text() == host
    assert one.call("exec", one.id, "/probe", "report").report["ns"]["mnt"] != os.readlink(f"/proc/{pid}/ns/mnt")
    assert os.listdir(one.bundle.rootfs).count("probe") == 1


def test_user_namespace(bare: Make, tools: Path) -> None:
    """The programs belong to the container's root, so programs that only root may execute work."""
    os.chmod(tools / "bin" / "busybox", 0o700)
    os.chmod(tools.parent, 0o700)
    one = bare(mapped=True)
    assert look(one, tools, f"stat -c %u {PLACE}/bin/busybox").out == "0\n"
    os.chmod(tools / "bin" / "busybox", 0o755)
    assert look(one, tools, "id -u", "--user", "1000").out == "1000\n"


def test_with_other_options(bare: Make, tools: Path) -> None:
    """A read-only root, an engine's profile, a working directory and a process file."""
    one = bare({"/root/readonly": True, "/linux/seccomp": FILTER, "/process/noNewPrivileges": True})
    assert look(one, tools, "id -u; pwd", "--user", "1000", "--cwd", "/proc").out == "1000\n/proc\n"
    process = {**one.bundle.config["process"], "args": ["cat", "/proc/self/comm"], "env": ["PATH=/nowhere"]}
    path = one.box.path / "process.json"
    path.write_text(json.dumps(process))
    assert one.call("exec", "--tools", str(tools), "--process", str(path), one.id).out == "cat\n"


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("tools", "absolute path of a directory"),
        ("", "absolute path of a directory"),
        ("/no/such/directory", "ENOENT"),
        ("/dev/null", "expected a directory"),
    ],
)
def test_refused_directories(bare: Make, path: str, words: str) -> None:
    one = bare()
    result = one.call("exec", "--tools", path, one.id, "sh", check=False)
    assert result.rc == 255 and words in result.err and "--tools" in result.err and result.err.count("\n") == 1


def test_refused_containers(container: Make, tools: Path) -> None:
    without: dict[str, Any] = {"/linux/maskedPaths": [], "/linux/readonlyPaths": [], "/hostname": DELETE, "/mounts": []}
    for spaces, words in (([{"type": "pid"}], "mount namespace"), ([{"type": "mount"}], "no /proc")):
        one = container("sleep", "600", edits={**without, "/linux/namespaces": spaces})
        one.create()
        one.start()
        result = look(one, tools, "true", check=False)
        assert result.rc == 255 and words in result.err
        one.delete("--force")


def test_a_user_without_privileges(user: Callable[..., User], box: Box, tools: Path) -> None:
    os.chmod(box.path, 0o755)
    one = user()
    one.bundle.config["process"]["args"] = ["/probe", "sleep", "600"]
    one.call("run", "--detach", one.id)
    done = one.call(
        "exec", "--tools", str(tools), one.id, "sh", "-c", f"cat /proc/self/mountinfo; touch {PLACE}/x || true"
    )
    (mount,) = [m for m in parse_mountinfo(done.out) if m.dest == PLACE]
    assert {"ro", "nosuid", "nodev"} <= set(mount.options)
    assert not (tools / "x").exists()


def test_mounts_of_a_user_without_privileges(user: Callable[..., User], box: Box) -> None:
    one = user()
    source = one.home / "source"
    source.mkdir()
    (source / "file").write_text("content\n")
    one.bundle.config["process"]["args"] = ["/probe", "sleep", "600"]
    one.call("run", "--detach", one.id)
    entries = [{"destination": "/data", "source": str(source), "options": ["bind", "ro"]}]
    entries.append({"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"})
    (one.home / "mounts.json").write_text(json.dumps(entries))
    one.call("mounts", "add", one.id, str(one.home / "mounts.json"))
    assert one.call("exec", one.id, "/bin/cat", "/data/file").out == "content\n"
    one.call("mounts", "remove", one.id, str(one.home / "mounts.json"))
    assert "/data" not in one.call("exec", one.id, "/bin/cat", "/proc/self/mountinfo").out
