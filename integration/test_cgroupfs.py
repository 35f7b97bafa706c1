"""The cgroupfs driver on the real unified hierarchy, below a cgroup that the tests create."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Unpack

import pytest

from integration.machine import cgroup2_mount, controllers
from pyrunc import host
from pyrunc.cgroup.cgroupfs import Cgroupfs
from pyrunc.errors import PyruncError, SysError
from pyrunc.spec.types import DeviceRule, Resources

DENY: DeviceRule = {"allow": False, "access": "rwm"}
Child = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def driver() -> Cgroupfs:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    facts = host.snapshot()
    if not facts.cgroup2_mount or not os.access(facts.cgroup2_mount, os.W_OK):
        pytest.skip("no writable cgroup2 mount")
    return Cgroupfs(facts)


@pytest.fixture
def top(driver: Cgroupfs) -> Iterator[str]:
    """The name of an unused cgroup; everything below it is removed after the test."""
    path = f"/pyrunc-test-{os.getpid():x}-{time.monotonic_ns():x}"
    yield path
    with contextlib.suppress(PyruncError):
        driver.kill(path, 9)
        driver.remove(path, 5)
    assert not Path(driver.dir(path)).exists()


@pytest.fixture
def child(driver: Cgroupfs) -> Iterator[Child]:
    """``child(path, *argv)``: start a process in a cgroup; it is ended after the test."""
    made: list[subprocess.Popen[bytes]] = []

    def start(path: str, *argv: str) -> subprocess.Popen[bytes]:
        join = f'echo $$ > {driver.dir(path)}/cgroup.procs && exec "$@"'
        made.append(
            subprocess.Popen(
                ["/bin/sh", "-c", join, "sh", *(argv or ("sleep", "60"))], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        )
        deadline = time.monotonic() + 5
        while not argv and made[-1].pid not in driver.pids(path):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return made[-1]

    yield start
    for process in made:
        process.kill()
        process.communicate(timeout=10)


def make(driver: Cgroupfs, path: str, **resources: Unpack[Resources]) -> None:
    os.close(driver.create(path, resources))


# --- make and remove ------------------------------------------------------------------------------


def test_create_and_remove(driver: Cgroupfs, top: str) -> None:
    assert driver.missing(f"{top}/a/b") == [top, f"{top}/a", f"{top}/a/b"]
    fd = driver.create(f"{top}/a/b", {"devices": [DENY]})
    try:
        assert os.fstat(fd).st_ino == os.stat(driver.dir(f"{top}/a/b")).st_ino
        offered = (Path(driver.dir(f"{top}/a/b")) / "cgroup.controllers").read_text().split()
        assert offered == controllers(), "statistics need every controller, limits or not"
    finally:
        os.close(fd)
    driver.remove(f"{top}/a/b", 1, driver.made)
    assert driver.missing(top) == [top]
    driver.remove(f"{top}/a/b", 1, driver.made)


def test_a_fork_lands_in_the_descriptor(driver: Cgroupfs, top: str, child: Child) -> None:
    """clone3(CLONE_INTO_CGROUP) gets the O_PATH descriptor; openat(2) through it must reach the
    cgroup."""
    fd = driver.create(top, {})
    try:
        procs = os.open("cgroup.procs", os.O_RDONLY, dir_fd=fd)
        process = child(top)
        assert os.read(procs, 64).split() == [str(process.pid).encode()]
        os.close(procs)
    finally:
        os.close(fd)


def test_in_use(driver: Cgroupfs, top: str, child: Child) -> None:
    make(driver, top)
    process = child(top)
    with pytest.raises(PyruncError, match=f"container's cgroup is not empty: process {process.pid}"):
        make(driver, top)
    with pytest.raises(
        PyruncError, match=rf"still in use after 0.05 s: process {process.pid} \(sleep\), which waits in \w"
    ):
        driver.remove(top, 0.05)


def test_a_process_below_keeps_a_cgroup_in_use(driver: Cgroupfs, top: str, child: Child) -> None:
    make(driver, f"{top}/x")
    process = child(f"{top}/x")
    with pytest.raises(PyruncError, match=f"not empty: process {process.pid}"):
        make(driver, top)


@pytest.mark.parametrize("below", ["", "/x"])
def test_frozen(driver: Cgroupfs, top: str, below: str) -> None:
    make(driver, top)
    (Path(driver.dir(top)) / "cgroup.freeze").write_text("1")
    with pytest.raises(PyruncError, match="frozen"):
        make(driver, top + below)
    assert driver.missing(f"{top}/x") == [f"{top}/x"], "nothing is left of a refused create"


def test_threaded(driver: Cgroupfs, top: str) -> None:
    make(driver, f"{top}/t")
    (Path(driver.dir(top)) / "cgroup.subtree_control").write_text(" ".join(f"-{name}" for name in controllers()))
    (Path(driver.dir(f"{top}/t")) / "cgroup.type").write_text("threaded")
    make(driver, f"{top}/t/c")
    assert (Path(driver.dir(f"{top}/t/c")) / "cgroup.type").read_text() == "threaded\n"
    if "hugetlb" in controllers():
        with pytest.raises(PyruncError, match="hugetlb controller is not available"):
            make(driver, f"{top}/t/d", hugepageLimits=[{"pageSize": "2MB", "limit": 0}])
        assert driver.missing(f"{top}/t/d")


def test_remove_deep_nesting(driver: Cgroupfs, top: str) -> None:
    """Cgroups that a container created below its own are removed with it, even if no path is long
    enough to name them."""
    make(driver, top)
    fd, name, depth = os.open(driver.dir(top), os.O_RDONLY), "x" * 200, 30
    for _ in range(depth):
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    driver.remove(top, 5)
    assert driver.missing(top) == [top]


def test_path_too_long(driver: Cgroupfs) -> None:
    with pytest.raises(SysError, match=r"/linux/cgroupsPath .*ENAMETOOLONG"):
        make(driver, "/x" * 3000)


# --- limits ---------------------------------------------------------------------------------------


@pytest.mark.skipif("memory" in controllers(), reason="this host has the memory controller")
def test_a_missing_controller(driver: Cgroupfs, top: str) -> None:
    with pytest.raises(PyruncError) as caught:
        make(driver, top, memory={"limit": 33554432})
    text = str(caught.value)
    assert '/linux/resources/memory/limit "33554432": the memory controller is not available in cgroup /' in text
    assert f"(available: {' '.join(controllers())})" in text
    assert driver.missing(top) == [top]


@pytest.mark.needs_controller("hugetlb")
def test_huge_pages(driver: Cgroupfs, top: str) -> None:
    size = next(Path("/sys/kernel/mm/hugepages").iterdir()).name.removeprefix("hugepages-").removesuffix("kB")
    name = f"{int(size) >> 10}MB" if int(size) < 1 << 20 else f"{int(size) >> 20}GB"
    limits: Resources = {"hugepageLimits": [{"pageSize": name, "limit": 8 << 30}]}
    make(driver, f"{top}/a", **limits)
    driver.apply(f"{top}/a", limits)
    directory = Path(driver.dir(f"{top}/a"))
    for file in (f"hugetlb.{name}.max", f"hugetlb.{name}.rsvd.max"):
        assert (directory / file).read_text() == f"{8 << 30}\n"
    with pytest.raises(SysError, match=r"/linux/resources/hugepageLimits/0/limit .*hugetlb.3MB.max.*ENOENT"):
        driver.apply(f"{top}/a", {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]})


@pytest.mark.needs_controller("hugetlb")
def test_unified(driver: Cgroupfs, top: str) -> None:
    limits: Resources = {"unified": {"hugetlb.2MB.max": "4194304", "cgroup.max.depth": "7"}}
    make(driver, top, **limits)
    driver.apply(top, limits)
    directory = Path(driver.dir(top))
    assert (directory / "hugetlb.2MB.max").read_text() == "4194304\n"
    assert (directory / "cgroup.max.depth").read_text() == "7\n"
    with pytest.raises(SysError, match=r"/linux/resources/unified/no.such .*write: ENOENT"):
        driver.apply(top, {"unified": {"no.such": "1"}})
    with pytest.raises(SysError, match=r'hugetlb.2MB.max .*EINVAL: the kernel does not take "many"'):
        driver.apply(top, {"unified": {"hugetlb.2MB.max": "many"}})


# --- processes ------------------------------------------------------------------------------------


def test_freeze_and_thaw(driver: Cgroupfs, top: str, child: Child) -> None:
    make(driver, f"{top}/x")
    process = child(f"{top}/x", "sh", "-c", "while :; do echo x; read _; done")
    assert process.stdout is not None and process.stdin is not None
    assert process.stdout.read(2) == b"x\n"
    driver.freeze(top)
    assert driver.frozen(top) and driver.frozen(f"{top}/x")
    process.stdin.write(b"\n")
    process.stdin.flush()
    time.sleep(0.05)
    os.set_blocking(process.stdout.fileno(), False)
    assert process.stdout.read(2) is None
    driver.thaw(top)
    assert not driver.frozen(top)
    os.set_blocking(process.stdout.fileno(), True)
    assert process.stdout.read(2) == b"x\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("through_kernel", [True, False])
def test_kill_reaches_all_below(driver: Cgroupfs, top: str, child: Child, number: int, through_kernel: bool) -> None:
    make(driver, f"{top}/x/y")
    make(driver, f"{top}/z")
    processes = [child(f"{top}/x/y"), child(f"{top}/z"), child(f"{top}/z")]
    assert sorted(driver.pids(top)) == sorted(process.pid for process in processes)
    if through_kernel:
        driver.kill(top, number)
    else:
        driver.kill_each(top, number)
    assert [process.wait(5) for process in processes] == [-number] * 3
    driver.remove(top, 2)


def test_kill_of_a_frozen_cgroup_leaves_it_frozen(driver: Cgroupfs, top: str, child: Child) -> None:
    """A signal other than SIGKILL is delivered after the thaw; SIGKILL takes effect at once."""
    make(driver, top)
    scripts = [child(top, "sh", "-c", "trap 'exit 3' TERM; echo x; while :; do read _; done") for _ in range(2)]
    assert [process.stdout.read(2) for process in scripts] == [b"x\n"] * 2  # type: ignore[union-attr]
    driver.freeze(top)
    driver.kill(top, signal.SIGTERM)
    time.sleep(0.05)
    assert driver.frozen(top) and [process.poll() for process in scripts] == [None, None]
    driver.thaw(top)
    assert [process.wait(5) for process in scripts] == [3, 3]
    process = child(top)
    driver.freeze(top)
    driver.kill_each(top, signal.SIGKILL)
    assert process.wait(5) == -signal.SIGKILL
    assert driver.frozen(top)


def test_kill_keeps_up_with_forks(driver: Cgroupfs, top: str, child: Child) -> None:
    make(driver, top)
    child(top, "sh", "-c", "echo x; while :; do sleep 1 & done").stdout.read(1)  # type: ignore[union-attr]
    driver.kill_each(top, signal.SIGKILL)
    driver.remove(top, 5)


def test_remove_waits_for_processes_that_end(driver: Cgroupfs, top: str, child: Child) -> None:
    make(driver, top)
    process = child(top, "sleep", "0.2")
    while process.pid not in driver.pids(top):
        time.sleep(0.005)
    driver.remove(top, 5)


# --- devices --------------------------------------------------------------------------------------

# A process in the cgroup opens the device and prints the errno (0: success).
OPEN = """
import os, sys
for name, flags in zip(sys.argv[1::2], sys.argv[2::2]):
    try:
        os.close(os.open(name, getattr(os, flags) | os.O_NONBLOCK))
        print(0)
    except OSError as error:
        print(error.errno)
"""


@pytest.fixture
def node(tmp_path: Path) -> str:
    """A device without a driver (60 is for local use): ENXIO means that the program allowed the
    open."""
    os.mknod(tmp_path / "node", 0o20666, os.makedev(60, 11))
    return str(tmp_path / "node")


def opened(child: Child, path: str, *tries: str) -> list[int]:
    process = child(path, "/usr/bin/python3", "-I", "-S", "-c", OPEN, *tries)
    return [int(word) for word in process.communicate(timeout=20)[0].split()]


def attach(driver: Cgroupfs, path: str, rules: list[DeviceRule] | None, replace: bool = False) -> None:
    fd = driver.create(path, {}) if driver.missing(path) else os.open(driver.dir(path), os.O_PATH)
    try:
        driver.devices(fd, rules, replace=replace)
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    "rules", [None, [], [DENY], [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}]]
)
def test_devices_denied(driver: Cgroupfs, top: str, child: Child, node: str, rules: list[DeviceRule] | None) -> None:
    attach(driver, top, rules)
    assert opened(child, top, node, "O_RDONLY", "/dev/null", "O_RDWR", "/dev/zero", "O_RDONLY") == [errno.EPERM, 0, 0]


def test_devices_allowed_by_rule(driver: Cgroupfs, top: str, child: Child, node: str) -> None:
    attach(driver, top, [DENY, {"allow": True, "type": "c", "major": 60, "minor": 11, "access": "r"}])
    assert opened(child, top, node, "O_RDONLY", node, "O_WRONLY", node, "O_RDWR") == [
        errno.ENXIO,
        errno.EPERM,
        errno.EPERM,
    ]


def test_privileged(driver: Cgroupfs, top: str, child: Child, node: str) -> None:
    attach(driver, top, [{"allow": True, "access": "rwm"}])
    assert opened(child, top, node, "O_RDWR") == [errno.ENXIO]


def test_rules_replaced(driver: Cgroupfs, top: str, child: Child, node: str) -> None:
    allow: DeviceRule = {"allow": True, "type": "c", "major": 60, "minor": 11, "access": "rw"}
    attach(driver, top, [DENY])
    attach(driver, top, [DENY, allow])
    assert opened(child, top, node, "O_RDONLY") == [errno.EPERM], "without replace both are in force"
    attach(driver, top, [DENY, allow], replace=True)
    assert opened(child, top, node, "O_RDONLY") == [errno.ENXIO], "two replaced by one"
    attach(driver, top, [DENY], replace=True)
    assert opened(child, top, node, "O_RDONLY") == [errno.EPERM], "one replaced by one"
    attach(driver, top, [{"allow": True, "access": "rwm"}], replace=True)
    assert opened(child, top, node, "O_RDONLY") == [errno.ENXIO], "none left"


def test_rules_of_ancestors_stay_active(driver: Cgroupfs, top: str, child: Child, node: str) -> None:
    attach(driver, top, [DENY])
    attach(driver, f"{top}/x", [{"allow": True, "access": "rw"}])
    assert opened(child, f"{top}/x", node, "O_RDONLY") == [errno.EPERM]


def test_thousands_of_rules(driver: Cgroupfs, top: str, child: Child, node: str) -> None:
    """The verifier's steps grow linearly with the number of rules, not quadratically."""
    many: list[DeviceRule]
    many = [{"allow": True, "type": "c", "major": 60 + n % 4000, "minor": n, "access": "rw"} for n in range(3000)]
    attach(driver, top, [DENY, {"allow": True, "type": "c", "major": 60, "minor": 11, "access": "r"}, *many])
    assert opened(child, top, node, "O_RDONLY", node, "O_WRONLY") == [errno.ENXIO, errno.EPERM]


def test_too_many_rules(driver: Cgroupfs, top: str) -> None:
    many: list[DeviceRule]
    many = [{"allow": True, "type": "c", "major": 60, "minor": n, "access": "rw"} for n in range(10_000)]
    fds = len(os.listdir("/proc/self/fd"))
    with pytest.raises(SysError, match=r"/linux/resources/devices: bpf\(PROG_LOAD\): E.*too many rules \(10001\)"):
        attach(driver, top, [DENY, *many])
    assert len(os.listdir("/proc/self/fd")) == fds


def test_refused_programs_and_users_without_privileges(
    driver: Cgroupfs, top: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyrunc.native import bpf

    def attach_nothing(*_: int) -> int:
        raise PermissionError(errno.EPERM, "bpf(PROG_ATTACH)")

    monkeypatch.setattr(bpf, "attach", attach_nothing)
    with pytest.raises(SysError, match=r"/linux/resources/devices: bpf\(PROG_ATTACH\): EPERM"):
        attach(driver, top, [DENY])
    driver.facts.rootless = True
    attach(driver, top, [DENY])


def test_mount_is_where_the_snapshot_says(driver: Cgroupfs) -> None:
    assert driver.facts.cgroup2_mount == str(cgroup2_mount())
