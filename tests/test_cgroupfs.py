"""The cgroupfs driver on a fake hierarchy; integration/test_cgroupfs.py uses the real one."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import transcript
from cgroup_support import Kernel
from json_type import Json
from pyrunc import fs
from pyrunc.cgroup import tree
from pyrunc.errors import ConfigError, PyruncError, SysError
from pyrunc.spec.types import Resources


def written(request: pytest.FixtureRequest) -> list[str]:
    """The driver's writes and the remaining files, in tests with a single hierarchy."""
    if "kernel" not in request.fixturenames:
        return []
    kernel = request.getfixturevalue("kernel")
    return [*(f"{path} <- {text}" for path, text in kernel.writes), *kernel.exists_below()]


kept = transcript.follow(also=written, leave=("test_remove_gives_up_in_time_and_names_who_is_left",))

Make = Callable[[str], Kernel]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda controllers: Kernel(tmp_path / "cg", controllers, monkeypatch)


@pytest.fixture
def kernel(make: Make) -> Kernel:
    return make("cpu memory pids")


def create(kernel: Kernel, path: str, **resources: Any) -> None:
    limits: Json = resources
    os.close(kernel.driver.create(path, limits))


# --- create ---------------------------------------------------------------------------------------


def test_create_makes_ancestors_and_enables_every_controller(kernel: Kernel) -> None:
    fd = kernel.driver.create("/a/b/c", {"devices": []})
    assert os.readlink(f"/proc/self/fd/{fd}") == str(kernel.cgroup("/a/b/c"))
    assert not os.get_inheritable(fd)
    os.close(fd)
    assert kernel.driver.made == ["/a", "/a/b", "/a/b/c"]
    assert kernel.writes == [
        (f"{path}/cgroup.subtree_control", "+cpu +memory +pids") for path in ("", "/a", "/a/b")
    ]  # not in the container's own, which has the processes


def test_a_second_one_beside_it_writes_nothing(kernel: Kernel) -> None:
    create(kernel, "/a/one")
    kernel.writes.clear()
    create(kernel, "/a/two", memory={"limit": 1})
    assert kernel.writes == [] and kernel.driver.made == ["/a/two"]


def test_controllers_one_by_one_where_not_all_can_be(kernel: Kernel) -> None:
    kernel.refuse["/", "cgroup.subtree_control"] = [errno.EINVAL, errno.EINVAL]  # all at once, then cpu
    create(kernel, "/a", pids={"limit": 1})
    assert [text for _, text in kernel.writes] == ["+memory", "+pids"]


def test_a_needed_controller_that_cannot_be_enabled(kernel: Kernel) -> None:
    create(kernel, "/pod")
    kernel.writes.clear()
    kernel.refuse["/pod", "cgroup.subtree_control"] = [errno.EBUSY] * 4
    with pytest.raises(PyruncError) as caught:
        create(kernel, "/pod/x/y", memory={"limit": 33554432})
    text = str(caught.value)
    assert '/linux/resources/memory/limit "33554432": the memory controller is not available in cgroup /pod/x/y' in text
    assert "(available: none)" in text and "subtree_control of /pod: EBUSY" in text and "processes of its own" in text
    assert kernel.exists_below() == ["/pod"], "what was made is removed again"


def test_the_same_without_a_limit_is_not_an_error(kernel: Kernel) -> None:
    create(kernel, "/pod")
    kernel.refuse["/pod", "cgroup.subtree_control"] = [errno.EBUSY] * 4
    create(kernel, "/pod/x", cpu={"shares": 0})
    assert kernel.driver.made == ["/pod/x"]


def test_a_missing_controller_is_reported_before_anything_is_created(make: Make) -> None:
    kernel = make("hugetlb")
    kernel.driver.facts.hybrid = True
    with pytest.raises(PyruncError) as caught:
        create(kernel, "/a/b", memory={"limit": 33554432}, pids={"limit": 7}, hugepageLimits=[])
    text = str(caught.value)
    assert '/linux/resources/memory/limit "33554432": the memory controller is not available in cgroup /' in text
    assert '/linux/resources/pids/limit "7": the pids controller is not available' in text
    assert "(available: hugetlb)" in text and "cgroup v1" in text
    assert kernel.exists_below() == [] and kernel.writes == []


def test_a_unified_key_needs_its_controller(make: Make) -> None:
    kernel = make("pids")
    with pytest.raises(PyruncError, match=r'/linux/resources/unified/memory.high "5": the memory controller'):
        create(kernel, "/a", unified={"memory.high": "5"})
    create(kernel, "/a", unified={"future.knob": "5", "pids.max": "5"})


def test_contradictions_are_reported_before_anything_is_created(kernel: Kernel) -> None:
    with pytest.raises(ConfigError, match="/linux/resources/memory/swap"):
        create(kernel, "/a/b", memory={"limit": 5, "swap": 4})
    assert kernel.exists_below() == []


def test_an_existing_empty_cgroup_is_taken(kernel: Kernel) -> None:
    create(kernel, "/a")
    create(kernel, "/a")
    assert kernel.driver.made == []


def test_a_cgroup_in_use_is_refused_and_stays(kernel: Kernel) -> None:
    create(kernel, "/a/b")
    (kernel.cgroup("/a/b") / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    (kernel.cgroup("/a/b") / "cgroup.procs").write_text("4711\n")
    with pytest.raises(PyruncError, match="container's cgroup is not empty: process 4711") as caught:
        create(kernel, "/a/b")
    assert str(caught.value).startswith('/linux/cgroupsPath "/a/b": ')
    assert kernel.exists_below() == ["/a", "/a/b"]


def test_a_frozen_cgroup_is_refused(kernel: Kernel) -> None:
    create(kernel, "/a")
    (kernel.cgroup("/a") / "cgroup.events").write_text("populated 0\nfrozen 1\n")
    with pytest.raises(PyruncError, match="container's cgroup unexpectedly frozen"):
        create(kernel, "/a")


def test_a_new_cgroup_below_a_frozen_one_is_refused(kernel: Kernel) -> None:
    """Its first process would be created frozen and never run; crun hangs there."""
    create(kernel, "/pod")
    kernel.events["frozen"] = 1
    with pytest.raises(PyruncError, match="frozen"):
        create(kernel, "/pod/x")
    assert kernel.exists_below() == ["/pod"]


def test_below_a_threaded_cgroup(kernel: Kernel) -> None:
    create(kernel, "/pod")
    kernel.kind = "domain invalid"
    with pytest.raises(PyruncError, match=r'memory controller is not available in cgroup /pod/x .*"domain invalid"'):
        create(kernel, "/pod/x", memory={"limit": 5}, pids={"limit": 5})
    assert kernel.exists_below() == ["/pod"]
    create(kernel, "/pod/x", pids={"limit": 5})
    assert (kernel.cgroup("/pod/x") / "cgroup.type").read_text() == "threaded"


def test_mkdir_errors_name_the_field(kernel: Kernel) -> None:
    kernel.refuse["/a/b", "mkdir"] = [errno.EAGAIN]
    create(kernel, "/a")
    with pytest.raises(SysError, match=r'/linux/cgroupsPath "/a/b": mkdir: EAGAIN'):
        create(kernel, "/a/b")
    with pytest.raises(SysError, match="ENAMETOOLONG"):
        create(kernel, "/" + "x/" * 35_000 + "y")


def test_an_ancestor_that_another_delete_removes(kernel: Kernel) -> None:
    kernel.refuse["/a/b", "mkdir"] = [errno.ENOENT, errno.ENOENT, errno.ENOENT]
    create(kernel, "/a/b")
    assert kernel.exists_below() == ["/a", "/a/b"]
    kernel.refuse["/c", "mkdir"] = [errno.ENOENT] * 1000
    with pytest.raises(PyruncError, match="removed repeatedly"):
        create(kernel, "/c")


def test_a_control_file_in_the_way(kernel: Kernel) -> None:
    create(kernel, "/a")
    with pytest.raises(SysError, match="ENOTDIR"):
        create(kernel, "/a/cgroup.procs")


def test_missing(kernel: Kernel) -> None:
    assert kernel.driver.missing("/a/b") == ["/a", "/a/b"]
    create(kernel, "/a")
    assert kernel.driver.missing("/a/b") == ["/a/b"]


def test_a_mount_that_shows_a_part(kernel: Kernel) -> None:
    kernel.driver.facts.cgroup2_root = "/docker/c"
    create(kernel, "/docker/c/x", pids={"limit": 3})
    assert kernel.exists_below() == ["/x"]
    kernel.driver.remove("/docker/c/x")
    assert kernel.exists_below() == []


# --- limits ---------------------------------------------------------------------------------------


def test_apply_writes_in_order(kernel: Kernel) -> None:
    create(kernel, "/a")
    kernel.writes.clear()
    limits: Resources = {"memory": {"limit": 1000, "swap": 1000}, "cpu": {"quota": 5000}, "unified": {"pids.max": ""}}
    kernel.driver.apply("/a", limits)  # memory.swap.max "0" is skipped without swap
    assert kernel.writes == [("/a/memory.max", "1000"), ("/a/cpu.max", "5000 100000"), ("/a/pids.max", "\n")]
    kernel.writes.clear()
    kernel.driver.apply("/a", {"devices": [{"allow": False, "access": "rwm"}], "memory": {}})
    assert kernel.writes == []


def test_a_missing_file_of_a_present_controller(kernel: Kernel) -> None:
    create(kernel, "/a")
    with pytest.raises(SysError) as caught:
        kernel.driver.apply("/a", {"memory": {"limit": 1000, "swap": 3000}})
    text = str(caught.value)
    assert text.startswith('/linux/resources/memory/swap "3000" (memory.swap.max): write: ENOENT: cgroup /a has no')
    assert "no such file" not in text, "podman takes that for a missing command"


def test_a_controller_that_went_away(kernel: Kernel) -> None:
    create(kernel, "/a")
    with pytest.raises(PyruncError, match=r'/blockIO/weight "100": the io controller is not available in cgroup /a '):
        kernel.driver.apply("/a", {"blockIO": {"weight": 100}})


def test_io_weight_where_bfq_is_not(make: Make) -> None:
    kernel = make("io")
    create(kernel, "/a")
    kernel.writes.clear()
    limits: Resources = {"blockIO": {"weight": 100, "weightDevice": [{"major": 8, "minor": 0, "weight": 500}]}}
    kernel.driver.apply("/a", limits)
    assert kernel.writes == [("/a/io.weight", "910"), ("/a/io.weight", "8:0 4950")]
    (kernel.cgroup("/a") / "io.bfq.weight").touch()
    kernel.writes.clear()
    kernel.driver.apply("/a", limits)
    assert kernel.writes == [("/a/io.bfq.weight", "100"), ("/a/io.bfq.weight", "8:0 500")]


def test_a_burst_above_the_old_quota_is_written_after_the_new_one(kernel: Kernel) -> None:
    create(kernel, "/a")
    kernel.writes.clear()
    kernel.refuse["/a", "cpu.max.burst"] = [errno.EINVAL]
    kernel.driver.apply("/a", {"cpu": {"quota": 9000, "burst": 8000}})
    assert kernel.writes == [("/a/cpu.max", "9000 100000"), ("/a/cpu.max.burst", "8000")]
    kernel.refuse["/a", "cpu.max.burst"] = [errno.EINVAL] * 2
    with pytest.raises(SysError, match=r'/linux/resources/cpu/burst "8000" \(cpu.max.burst\): write: EINVAL'):
        kernel.driver.apply("/a", {"cpu": {"quota": 9000, "burst": 8000}})


def test_a_value_the_kernel_does_not_take(kernel: Kernel) -> None:
    create(kernel, "/a")
    kernel.refuse["/a", "cpu.max"] = [errno.EINVAL]
    with pytest.raises(SysError) as caught:
        kernel.driver.apply("/a", {"cpu": {"quota": 1}}, "/resources")
    expected = '/resources/cpu/quota "1" (cpu.max): write: EINVAL: the kernel does not take "1 100000"'
    assert str(caught.value) == expected


# --- watch, kill, remove --------------------------------------------------------------------------


def test_pids_of_the_whole_tree_without_those_of_other_namespaces(kernel: Kernel) -> None:
    """The kernel shows a process outside our pid namespace as 0, and kill(0) would signal our own
    group."""
    create(kernel, "/a/b/c")
    for path, text in (("/a", "0\n5\n"), ("/a/b", "7\n5\n"), ("/a/b/c", "0\n")):
        (kernel.cgroup(path) / "cgroup.procs").write_text(text)
    assert kernel.driver.pids("/a") == [5, 7]
    assert kernel.driver.pids("/nowhere") == []


def test_an_unreadable_file_does_not_count_as_empty(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """ENOMEM on cgroup.events must not let a container into a cgroup that is in use."""
    create(kernel, "/a")

    def read_file(path: str, limit: int = 0, dir_fd: int | None = None) -> bytes:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(kernel, "read_file", read_file, raising=False)
    with pytest.raises(SysError, match=r"cgroup /a \(cgroup.events\): read: ENOMEM"):
        create(kernel, "/a")
    assert kernel.driver.oom_kills("/a") == 0


def test_oom_kills(kernel: Kernel) -> None:
    create(kernel, "/a")
    (kernel.cgroup("/a") / "memory.events").write_text("low 0\nhigh 2\nmax 9\noom 3\noom_kill 2\n")
    assert kernel.driver.oom_kills("/a") == 2
    assert kernel.driver.oom_kills("/nowhere") == 0


def test_kill_uses_the_kernel_where_it_can(kernel: Kernel) -> None:
    create(kernel, "/a")
    (kernel.cgroup("/a") / "cgroup.kill").touch()
    kernel.writes.clear()
    kernel.driver.kill("/a", 9)
    assert kernel.writes == [("/a/cgroup.kill", "1")]


@pytest.mark.parametrize(("number", "stays"), [(9, False), (15, False), (9, True)])
def test_kill_without_it_freezes_first(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch, number: int, stays: bool
) -> None:
    create(kernel, "/a/b")
    if stays:
        (kernel.cgroup("/a") / "cgroup.kill").write_text("")  # the kernel has the file, but the driver does not use it
    (kernel.cgroup("/a/b") / "cgroup.procs").write_text("77\n")
    (kernel.cgroup("/a") / "cgroup.events").write_text("populated 1\nfrozen 1\n")
    killed: list[tuple[int, int, str]] = []

    def kill(pid: int, signal: int) -> None:
        killed.append((pid, signal, (kernel.cgroup("/a") / "cgroup.freeze").read_text()))

    monkeypatch.setattr(kernel, "kill", kill, raising=False)
    monkeypatch.setattr(type(kernel.driver), "frozen", lambda self, path: False)
    kernel.driver.kill("/a", number, stays=stays)
    assert killed == [(77, number, "1")]
    assert (kernel.cgroup("/a") / "cgroup.freeze").read_text() == "0"


def test_kill_of_nothing(kernel: Kernel) -> None:
    create(kernel, "/a")
    kernel.writes.clear()
    kernel.driver.kill("/nowhere", 9)
    kernel.driver.kill("/nowhere", 15)
    kernel.driver.kill("/a", 15)
    assert kernel.writes == []


def test_a_process_that_cannot_be_signalled(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    create(kernel, "/a")
    (kernel.cgroup("/a") / "cgroup.procs").write_text("77\n78\n")
    (kernel.cgroup("/a") / "cgroup.events").write_text("populated 1\nfrozen 1\n")

    def kill(pid: int, signal: int) -> None:
        raise OSError(errno.EPERM if pid == 77 else errno.ESRCH, "no")

    monkeypatch.setattr(kernel, "kill", kill, raising=False)
    with pytest.raises(SysError, match="kill: EPERM"):
        kernel.driver.kill("/a", 15)


def test_remove_takes_everything_below_and_only_own_ancestors(kernel: Kernel) -> None:
    create(kernel, "/pod")
    create(kernel, "/pod/x/c1")
    made = list(kernel.driver.made)
    for below in ("init.scope", "system.slice/a.service"):
        create(kernel, f"/pod/x/c1/{below}")
    kernel.driver.remove("/pod/x/c1", 1, made)
    assert kernel.exists_below() == ["/pod"]
    kernel.driver.remove("/pod/x/c1", 1, made)


def test_remove_leaves_an_ancestor_that_others_use(kernel: Kernel) -> None:
    create(kernel, "/x/one")
    made = list(kernel.driver.made)
    create(kernel, "/x/two")
    kernel.driver.remove("/x/one", 1, made)
    assert kernel.exists_below() == ["/x", "/x/two"]


def test_remove_without_a_record_takes_the_cgroup_alone(kernel: Kernel) -> None:
    create(kernel, "/x/one")
    kernel.driver.remove("/x/one", 1)
    assert kernel.exists_below() == ["/x"]


def test_a_cgroup_that_was_there_before_stays(kernel: Kernel) -> None:
    """runtime-spec, delete: resources that create did not create must not be deleted; resources
    that the container created in its cgroup must be."""
    create(kernel, "/mine")
    create(kernel, "/mine")
    made = list(kernel.driver.made)
    create(kernel, "/mine/below")
    kernel.driver.remove("/mine", 1, made)
    assert kernel.exists_below() == ["/mine"]


@pytest.mark.parametrize("below", ["", "/deep/er"])
def test_remove_gives_up_in_time_and_names_who_is_left(kernel: Kernel, below: str) -> None:
    create(kernel, f"/a{below}")
    (kernel.cgroup(f"/a{below}") / "cgroup.procs").write_text(f"{os.getpid()}\n")
    start = time.monotonic()
    with pytest.raises(
        PyruncError, match=rf"cgroup /a is still in use after 0.1 s: process {os.getpid()} \(.+\), which"
    ):
        kernel.driver.remove("/a", 0.1)
    assert 0.1 <= time.monotonic() - start < 10


def test_remove_waits_for_the_last_process(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    create(kernel, "/a")
    procs = kernel.cgroup("/a") / "cgroup.procs"
    procs.write_text("77\n")
    pauses: list[float] = []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 12:
            procs.write_text("")

    monkeypatch.setattr("pyrunc.cgroup.cgroupfs.time.sleep", sleep)
    kernel.driver.remove("/a", 5)
    assert kernel.exists_below() == []
    assert pauses[0] < 0.001 and pauses == sorted(pauses) and 0.01 < pauses[-1] <= 0.05


def test_freeze_and_thaw_wait_for_the_kernel(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    create(kernel, "/a")
    events, freeze = kernel.cgroup("/a") / "cgroup.events", kernel.cgroup("/a") / "cgroup.freeze"
    monkeypatch.setattr(
        "pyrunc.cgroup.cgroupfs.time.sleep", lambda _: events.write_text(f"populated 1\nfrozen {freeze.read_text()}\n")
    )
    kernel.driver.freeze("/a")
    assert kernel.driver.frozen("/a")
    kernel.driver.thaw("/a")
    assert not kernel.driver.frozen("/a")


def test_a_freeze_that_times_out_is_undone(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    create(kernel, "/a")
    monkeypatch.setattr("pyrunc.cgroup.cgroupfs.FREEZE_TIMEOUT", 0.05)
    with pytest.raises(PyruncError, match=r"did not freeze within 0.05 s"):
        kernel.driver.freeze("/a")
    assert (kernel.cgroup("/a") / "cgroup.freeze").read_text() == "0"
    (kernel.cgroup("/a") / "cgroup.events").write_text("frozen 1\n")
    with pytest.raises(PyruncError, match="a cgroup above it is frozen"):
        kernel.driver.thaw("/a")
    with pytest.raises(SysError, match=r"cannot freeze cgroup /b .*: write: ENOENT"):
        kernel.driver.freeze("/b")


# --- the walk -------------------------------------------------------------------------------------


def test_walk_order_and_depth(tmp_path: Path) -> None:
    """Deeper than Python's stack and longer than PATH_MAX; one descriptor at a time."""
    depth, fd = 1500, os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("nest", dir_fd=fd)
        below = os.open("nest", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    opened = len(os.listdir("/proc/self/fd"))
    entered: list[int] = []
    tree.walk(
        str(tmp_path),
        lambda at: entered.append(len(os.listdir("/proc/self/fd"))),
        lambda parent, name: os.rmdir(name, dir_fd=parent),
        time.monotonic() + 20,
    )
    assert len(entered) == depth + 1 and max(entered) == opened + 1
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == opened


def test_walk_has_a_deadline(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too many") as caught:
        tree.walk(str(tmp_path), None, None, time.monotonic() - 1)
    assert caught.value.errno == errno.ETIMEDOUT


def test_walk_does_not_follow_links(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "link").symlink_to("/")
    left: list[str] = []
    tree.walk(str(tmp_path), None, lambda parent, name: left.append(name), time.monotonic() + 5)
    assert left == ["one"]


def test_processes_of_a_threaded_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    def read_file(path: str, dir_fd: int | None = None) -> bytes:
        if path.endswith("cgroup.procs"):
            raise OSError(errno.EOPNOTSUPP, "threaded")
        return b"5\n0\n6\n"

    monkeypatch.setattr(fs, "read_file", read_file)
    assert tree.processes("/x") == [5, 6]


def test_processes_that_cannot_be_read_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Returning [] would let a delete continue with a live container."""

    def read_file(path: str, dir_fd: int | None = None) -> bytes:
        raise OSError(errno.ENOMEM, "no memory")

    monkeypatch.setattr(fs, "read_file", read_file)
    with pytest.raises(OSError, match="no memory"):
        tree.processes("/x")


def test_removing_below_once(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """True: nothing is left; an error that does not go away with time is raised."""
    asked: list[tuple[str, float]] = []
    left: list[tuple[int, str]] = []

    def walk(directory: str, enter: object, leave: Callable[[int, str], None], deadline: float) -> None:
        asked.append((directory, deadline))
        for error, name in left:
            monkeypatch.setattr(kernel, "rmdir", lambda name, dir_fd, error=error: refuse(error), raising=False)
            leave(7, name)

    def refuse(error: int) -> None:
        if error:
            raise OSError(error, "")

    monkeypatch.setattr(tree, "walk", walk)
    for found, done in (
        ([], True), ([(0, "a"), (errno.ENOENT, "b")], True), ([(errno.EBUSY, "a")], False),
        ([(errno.ENOTEMPTY, "a"), (0, "b")], False), ([(errno.ETIMEDOUT, "a")], False),
    ):  # fmt: skip
        left[:] = found
        assert kernel.driver.remove_below("/p", 5.0) is done
    assert set(asked) == {(f"{kernel.top}/p", 5.0)}
    left[:] = [(errno.EPERM, "a")]
    with pytest.raises(SysError, match="rmdir: EPERM") as caught:
        kernel.driver.remove_below("/p", 5.0)
    assert "below the cgroup" in str(caught.value) and caught.value.errno == errno.EPERM
