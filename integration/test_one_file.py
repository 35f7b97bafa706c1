"""The executable alone: every verb in a root filesystem that holds libc and nothing else.

PYRUNC_TEST_LIBC names a root filesystem with another libc than this machine's (pythons.sh).
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import REPO, SLOW, Box, Bundle, Runtime

sys.path.insert(0, str(REPO / "tests"))
from image_support import Layout, entry, tar

pytestmark = [
    pytest.mark.pyrunc_only("what the executable needs is its own business"),
    pytest.mark.needs_program("unshare", "ldd", "busybox"),
]
LIBC = Path(os.environ.get("PYRUNC_TEST_LIBC") or "/")
ENTER = """
set -e
mount --rbind {root} {root}
mount -t proc proc {root}/proc
mount --rbind /sys {root}/sys
mount --rbind /dev {root}/dev
mount -t tmpfs tmpfs {root}/run
mount -t tmpfs tmpfs {root}/tmp
{before}
cd {root}
busybox pivot_root . old
exec /bin/busybox sh -s
"""
INSIDE = """
set -e
umount -l /old
cd /bundle
{script}
"""


class Root:
    """A root filesystem with ld.so, the libraries of the executable, the executable, and busybox to
    call it."""

    def __init__(self, place: Path, executable: Path, bundle: Bundle) -> None:
        self.place = place
        for name in ("bin", "dev", "proc", "sys", "run", "tmp", "old", "var", "etc"):
            (place / name).mkdir(parents=True)
        shutil.copy(executable, place / "bin/pyrunc")
        shutil.copy(shutil.which("busybox") or "", place / "bin/busybox")
        for name in ("sh", "umount", "cat", "mkdir", "ls", "grep"):
            (place / "bin" / name).symlink_to("busybox")
        said = subprocess.run(["ldd", executable], capture_output=True, text=True, check=True).stdout
        self.libraries = [Path(path) for path in re.findall(r"(/\S+) \(0x", said)]
        # Other parts of libc: libraries built for older releases still name libpthread, and the
        # launcher opens libm on demand.
        libc = [path for path in self.libraries if path.name == "libc.so.6"]
        parts = [path.with_name(name) for path in libc for name in ("libpthread.so.0", "libm.so.6")]
        for path in {*self.libraries, *(path for path in parts if path.exists())}:
            target = place / str(path).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(LIBC / str(path).lstrip("/"), target)
        # A version manager's interpreter has zlib as a shared library (docs/adr/0029-any-cpython.md).
        self.zlib = [] if "zlib" in sys.builtin_module_names else sorted(LIBC.glob("usr/lib/*/libz.so.1"))
        for path in self.zlib:
            target = place / path.relative_to(LIBC)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
        shutil.copytree(bundle.path, place / "bundle", symlinks=True)

    def configure(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the bundle's config.json."""
        path = self.place / "bundle/config.json"
        config = json.loads(path.read_text())
        change(config)
        path.write_text(json.dumps(config))

    def run(self, script: str, *, before: str = "", net: bool = False) -> str:
        """Run a shell script in the root filesystem; return its output. ``before`` runs before the
        root changes."""
        argv = ["unshare", "-m", *(["-n"] if net else []), "sh", "-c", ENTER.format(root=self.place, before=before)]
        done = subprocess.run(
            argv, input=INSIDE.format(script=script), capture_output=True, text=True, timeout=120, check=False,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def need_embedded(runtime: Runtime) -> None:
    if b"_pyrunc_launcher" not in Path(runtime.path).read_bytes():
        pytest.skip("this launcher executes an interpreter instead of embedding one")


@pytest.fixture
def root(runtime: Runtime, box: Box, bundle: Callable[..., Bundle]) -> Root:
    need_embedded(runtime)
    source = bundle(edits={"/process/args": ["/bin/sleep", "100"]})
    source.save()
    made = Root(box.path / "alone", Path(runtime.path), source)
    made.configure(lambda config: config["linux"].pop("cgroupsPath", None))
    return made


def test_it_is_linked_with_libc_alone(root: Root) -> None:
    names = {path.name for path in root.libraries}
    if any(name.startswith("libpython") for name in names):
        pytest.skip("this launcher has a shared libpython")
    assert {name for name in names if not name.startswith(("ld-linux", "libc.so", "libm.so"))} == set()


LIFE = """
pyrunc create one$$
pyrunc state one$$ | grep -q '"status": "created"'
pyrunc start one$$
pyrunc exec one$$ /bin/echo from exec
pyrunc ps --format json one$$ | grep -q "^\\["
pyrunc list | grep -q one$$
pyrunc events --stats one$$ | grep -q '"type"'
pyrunc kill one$$ KILL
pyrunc delete --force one$$
test -z "$(ls /run/pyrunc)"
pyrunc run two$$
"""


def test_life_cycle(root: Root) -> None:
    root.configure(lambda config: config["process"].update(args=["/bin/sleep", "2"]))
    assert root.run(LIFE) == "from exec\n"


@pytest.mark.parametrize(
    ("script", "shows"),
    [
        ("pyrunc features", '"ociVersionMax"'),
        ("pyrunc plan", "EXECVE"),
        ("mkdir /tmp/s; cd /tmp/s; pyrunc spec; cat config.json", '"ociVersion"'),
        ("pyrunc doctor || true", "problem"),
        ("pyrunc images --store /tmp/store", "DIGEST"),
        ("pyrunc images --store /tmp/store prune", ""),
        ("pyrunc --trace /tmp/t state none || true; pyrunc trace show /tmp/t", "state"),
        ("pyrunc --version", "pyrunc version"),
        ("pyrunc --licenses", "PYTHON SOFTWARE FOUNDATION LICENSE"),
        ("pyrunc --help", "usage"),
        ("pyrunc images --store /tmp/store pull docker://127.0.0.1:1/x 2>&1 || true", "registries need OpenSSL: lib"),
    ],
)
def test_verb(root: Root, script: str, shows: str) -> None:
    assert shows in root.run(script)


def test_a_zlib_of_the_machine_is_named_if_it_is_missing(root: Root) -> None:
    if not root.zlib:
        pytest.skip("the executable has its own zlib")
    for path in root.zlib:
        (root.place / path.relative_to(LIBC)).unlink()
    said = root.run("pyrunc images --store /tmp/store 2>&1 || true")
    assert said.startswith("pyrunc: error: cannot load a part of pyrunc: libz.so.1: cannot open")


def test_seccomp(root: Root) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    }
    root.configure(lambda config: config["linux"].update(seccomp=profile))
    assert "EPERM" in root.run("pyrunc seccomp explain . getcwd; pyrunc seccomp check . || true")


def test_update(root: Root) -> None:
    """It reports limits that this machine's controllers lack, and applies the others."""
    script = "pyrunc create one; pyrunc update --pids-limit 100 one 2>&1 || true; pyrunc delete --force one"
    said = root.run(script)
    assert said == "" or "pids" in said


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_unpack(root: Root, compression: str) -> None:
    layout, layer = Layout(root.place / "layout"), tar([entry("hello", b"text")])
    architecture = {"aarch64": "arm64"}.get(os.uname().machine, "amd64")
    layout.tag(layout.image([layer], compress=compression, architecture=architecture), "latest")
    assert root.run("pyrunc unpack oci:/layout /tmp/b >/dev/null; cat /tmp/b/rootfs/hello") == "text"


@pytest.mark.skipif(Path("/") == LIBC, reason="needs a libc other than that of the build (PYRUNC_TEST_LIBC)")
def test_threads_with_another_libc(root: Root) -> None:
    """Two threads read a layer. glibc 2.41 changed the layout of condition variables;
    with those of the build, two of five processes waited forever."""
    layout, layer = Layout(root.place / "layout"), tar([entry("hello", b"text")])
    layout.tag(layout.image([layer], compress="gzip"), "latest")
    one = "busybox timeout -s KILL 20 pyrunc unpack oci:/layout /tmp/b$i >/dev/null"
    assert root.run(f"for i in $(busybox seq 20); do {one} || echo $i; done") == ""


@pytest.mark.needs_program("ip")
@pytest.mark.needs_cap("NET_ADMIN")
def test_net_devices(root: Root) -> None:
    """Network devices cost at most 0.1 s of processor time."""
    made = "ip link add one type veth peer name other; ip addr add 192.0.2.1/24 dev one"
    if subprocess.run(["unshare", "-n", "sh", "-ec", made], check=False, capture_output=True).returncode:
        pytest.skip("this kernel has no pairs of network devices")
    script = "pyrunc create c; pyrunc exec c /bin/ip -o addr show; pyrunc delete --force c"
    spent = []
    for devices in ({}, {"one": {"name": "two"}}):
        root.configure(lambda config, d=devices: config["linux"].update(netDevices=d))  # type: ignore[misc]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        said = root.run(script, before=made, net=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert ("192.0.2.1/24" in said) == bool(devices)
    if SLOW == 1:  # an emulated processor takes ten times as long, and twice as long the next time
        assert spent[1] - spent[0] < 0.1, spent


@pytest.mark.needs_program("strace")
@pytest.mark.parametrize(
    "argv",
    [["state", "none"], ["features"], ["doctor"], ["images", "list"], ["spec", "--help"], ["plan"], ["--version"]],
    ids=" ".join,
)
def test_no_file_of_python_is_opened(
    runtime: Runtime, bundle: Callable[..., Bundle], tmp_path: Path, argv: list[str]
) -> None:
    """This machine has such files."""
    need_embedded(runtime)
    trace, made = tmp_path / "trace", bundle()
    made.save()
    command = ["strace", "-f", "-e", "trace=%file", "-o", str(trace), str(runtime.path), *argv]
    subprocess.run(command, capture_output=True, check=False, cwd=made.path, env={"HOME": str(tmp_path)})
    lines = [line for line in trace.read_text().splitlines() if "execve(" not in line]
    if not lines:
        pytest.skip("strace cannot trace here")
    where = os.path.dirname(os.path.dirname(os.path.realpath(runtime.path)))
    # doctor looks for python-prctl beside the installed package.
    assert not [line for line in lines if "/python3" in line and f'"{where}/' not in line]
