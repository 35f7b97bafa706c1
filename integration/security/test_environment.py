"""The effect of the caller's environment, directory and descriptors on the runtime (T36)."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from integration.harness import Box
from integration.security.support import Make, Trace

PROGRAMS = [
    *("newuidmap", "newgidmap", "mount", "umount", "ip", "iptables", "nft", "tc", "systemctl", "systemd-run", "busctl"),
    *("criu", "getent", "ldconfig", "modprobe", "python3", "python", "sh", "bash", "cp", "tar", "nsenter", "unshare"),
    *("apparmor_parser", "restorecon"),
]


@pytest.mark.row("T36")
@pytest.mark.needs_program("strace")
def test_no_program_is_looked_up_in_path(container: Make, box: Box) -> None:
    """CVE-2018-6556, CVE-2022-47952: the runtime executed the first helper of that name in PATH."""
    evil = box.path / "evil"
    evil.mkdir()
    marker = box.path / "marker"
    for name in PROGRAMS:
        path = evil / name
        path.write_text(f"#!/bin/sh\necho {name} >>{marker}\n")
        path.chmod(0o755)
    one = container("exit", "0", edits={"/linux/resources/pids": {"limit": 100}})
    if not box.runtime.is_pyrunc:
        del one.bundle.config["linux"]["resources"]["pids"]
    else:  # rejected without the controller: the message must not need a helper either
        one.create(check=False, env={"PATH": str(evil)})
        one.delete("--force", env={"PATH": str(evil)})
        del one.bundle.config["linux"]["resources"]["pids"]
    trace = Trace(box, "execve,execveat")
    one.run(env={"PATH": f"{evil}:/usr/bin:/bin"}, wrap=["/usr/bin/strace", *trace.wrap[1:]])
    assert not marker.exists(), marker.read_text()
    assert not [line for line in trace.lines if str(evil) in line and " = 0" in line]


HOSTILE = "import posix\nposix.write(2, b'HIJACKED\\n')\n"
MODULES = ["json", "os", "_json", "encodings", "sitecustomize", "usercustomize", "pyrunc", "errno", "time", "_struct"]
VERBS = [["--version"], ["--help"], ["features"], ["spec", "--help"], ["list"], ["state", "none"], ["plan", "none"]]


@pytest.mark.pyrunc_only("about the interpreter inside pyrunc")
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb[0])
def test_nothing_is_imported_from_the_caller(box: Box, verb: list[str]) -> None:
    """Modules in the working directory, PYTHONPATH, PYTHONHOME and HOME are ignored."""
    place = box.path / "modules"
    (place / "lib/python3.11/site-packages").mkdir(parents=True)
    for name in MODULES:
        for folder in (place, place / "lib/python3.11", place / "lib/python3.11/site-packages"):
            (folder / f"{name}.py").write_text(HOSTILE)
    (place / "lib/python3.11/site-packages/evil.pth").write_text("import sitecustomize\n")
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(place),
        "PYTHONHOME": str(place),
        "PYTHONSTARTUP": str(place / "json.py"),
        "PYTHONUSERBASE": str(place),
        "PYTHONINSPECT": "1",
        "PYTHONBREAKPOINT": "json",
        "PYTHONPYCACHEPREFIX": str(place / "cache"),
        "HOME": str(place),
    }
    result = box.runtime.call("--root", str(box.root), *verb, env=env, cwd=place)
    assert "HIJACKED" not in result.out + result.err, result
    assert not (place / "cache").exists() and not list(place.rglob("__pycache__"))
    reference = box.runtime.call("--root", str(box.root), *verb, cwd="/")
    assert (result.rc, result.out) == (reference.rc, reference.out)


@pytest.mark.pyrunc_only("about the interpreter inside pyrunc")
@pytest.mark.parametrize("mode", [0o777, 0o775])
def test_a_package_that_others_may_change_is_refused(box: Box, mode: int) -> None:
    """Otherwise root would execute what a group wrote. Tested on a copy of the installation."""
    launcher = Path(os.path.realpath(box.runtime.path))
    package = next((path for path in launcher.parent.parent.glob("lib/**/pyrunc") if (path / "_init").exists()), None)
    if package is None:
        pytest.skip("the installation's layout is not known")
    copy = box.path / "copy"
    site = copy / package.parent.relative_to(launcher.parent.parent)
    site.mkdir(parents=True)
    subprocess.run(["cp", "-r", str(package), str(site)], check=True)
    (copy / "bin").mkdir()
    subprocess.run(["cp", str(launcher), str(copy / "bin/pyrunc")], check=True)

    def call() -> subprocess.CompletedProcess[str]:
        argv = [str(copy / "bin/pyrunc"), "features"]
        return subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False, env={})

    fine = call()
    assert fine.returncode == 0, fine
    for place in (site, site.parent):
        old = place.stat().st_mode
        os.chown(place, 0, 1000)
        place.chmod(mode)
        refused = call()
        place.chmod(old)
        assert refused.returncode == 1, f"{place} may be written by others"
        assert "can be changed by users other than its owner" in refused.stderr and "Traceback" not in refused.stderr


@pytest.mark.parametrize("ignored", [[], ["INT", "TERM", "PIPE", "CHLD", "HUP", "XFSZ"]])
def test_signals_are_as_new(container: Make, ignored: list[str]) -> None:
    """CPython ignores SIGPIPE and SIGXFSZ, and callers ignore and block others; all of this would
    survive execve."""

    def unfriendly() -> None:
        for name in ignored:
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_IGN)
        if ignored:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, 40})

    seen = container("report").run(preexec=unfriendly).report
    assert (seen["sigign"], seen["sigblk"]) == (0, 0)


@pytest.mark.parametrize("mask", [0, 0o22, 0o77, 0o777])
def test_umask_of_the_caller_changes_nothing(container: Make, box: Box, mask: int) -> None:
    one = container("report", "--", "stat", "/made", edits={"/mounts/-": {"destination": "/made", "type": "tmpfs"}})
    result = one.run(preexec=lambda: os.umask(mask))
    assert result.report["umask"] == 0o22
    assert box.root.stat().st_mode & 0o7777 == 0o700
    for name, info in result.report["devices"].items():
        if name in ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"):
            assert info["mode"] == 0o666, name
    assert (one.bundle.rootfs / "made").stat().st_mode & 0o777 == 0o755


def test_environment_of_the_caller_stays_outside(container: Make) -> None:
    """crun's waiting process had all 41 variables of its caller."""
    env = {"PATH": os.environ["PATH"], "SECRETENV": "x", "LC_ALL": "C", "LANG": "de_DE.UTF-8", "LD_DEBUG": ""}
    one = container("report")
    one.create(env=env)
    if one.box.runtime.is_pyrunc:
        assert Path(f"/proc/{one.pid}/environ").read_bytes() == b""
        assert Path(f"/proc/{one.pid}/cmdline").read_bytes().startswith(b"pyrunc-init\0")
    one.start(env=env)
    one.wait()
    names = {entry.partition("=")[0] for entry in one.report["env"]}
    assert names == {"PATH", "TERM", "HOME"}


def test_close_range_comes_before_everything_else(container: Make, box: Box) -> None:
    """The launcher calls it before the interpreter starts, init before it reads anything."""
    if not box.runtime.is_pyrunc:
        pytest.skip("about the order of pyrunc's own calls")
    trace = Trace(box, "close_range,execve,execveat,recvmsg,openat,fcntl")
    container("exit", "0").run(wrap=trace.wrap)
    lines = trace.lines
    first = next(index for index, line in enumerate(lines) if "close_range(3, 4294967295, CLOSE_RANGE_CLOEXEC" in line)
    runtime = lines[first].split()[0]
    python = [line for line in lines[:first] if line.startswith(runtime) and re.search(r"openat\(.*python", line)]
    assert not python, "the interpreter was there first"
    start = next(index for index, line in enumerate(lines) if "execveat(" in line)
    init = lines[start].split()[0]
    own = [line.split(" ", 1)[1] for line in lines[start + 1 :] if line.startswith(init)]
    closing = next(index for index, line in enumerate(own) if re.match(r"close_range\(4, 4294967295, 0\b", line))
    assert not [line for line in own[:closing] if line.startswith(("recvmsg", "openat"))]
    last = [line for line in lines if "close_range(3, 4294967295, CLOSE_RANGE_CLOEXEC" in line]
    assert len(last) >= 2, "and once more before the program"
