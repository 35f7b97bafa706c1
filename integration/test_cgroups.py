"""linux.cgroupsPath and linux.resources on cgroup v2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE
from integration.harness import Box, Container, wait_until
from integration.machine import cgroup2_mount, controllers, systemd_runs

Make = Callable[..., Container]
Refused = Callable[..., None]
MISSING = next((name for name in ("memory", "pids", "cpu", "io") if name not in controllers()), "")


def where(one: Container) -> str:
    """The path of init inside the unified hierarchy, as the host sees it."""
    lines = Path(f"/proc/{one.pid}/cgroup").read_text().splitlines()
    return next(line for line in lines if line.startswith("0::"))[3:]


def huge_sizes() -> list[str]:
    """Page sizes that hugetlb supports here, as in `hugetlb.SIZE.max`."""
    names = os.listdir("/sys/kernel/mm/hugepages") if os.path.isdir("/sys/kernel/mm/hugepages") else []
    found = []
    for name in names:
        kib = int(name.removeprefix("hugepages-").removesuffix("kB"))
        found.append(f"{kib >> 20}GB" if kib >= 1 << 20 else f"{kib >> 10}MB" if kib >= 1 << 10 else f"{kib}KB")
    return found


def test_absolute_path(container: Make, box: Box) -> None:
    one = container("exit", "0", edits={"/linux/cgroupsPath": f"/{box.prefix}p/deep/down"})
    one.create()
    assert where(one) == f"/{box.prefix}p/deep/down"
    one.delete()
    assert not (cgroup2_mount() or Path()).joinpath(f"{box.prefix}p/deep/down").exists()
    _remove(box)


def _remove(box: Box) -> None:
    """Remove parents of a path that the engine chose. They belong to the engine: runc leaves them
    in place, and other runtimes may."""
    for group in box.cgroups():
        group.rmdir()


def test_relative_path(container: Make, box: Box) -> None:
    one = container("exit", "0", edits={"/linux/cgroupsPath": f"{box.prefix}rel"})
    one.create()
    assert where(one).endswith(f"/{box.prefix}rel")
    one.delete()


def test_no_path(container: Make) -> None:
    one = container("exit", "0", edits={"/linux/cgroupsPath": DELETE})
    one.create()
    assert Path(where(one)).name == one.id


@pytest.mark.pyrunc_only("runc cleans the path instead")
@pytest.mark.parametrize("path", ["/../x", "../../x", "/a/../../x", "a/../../../x"])
def test_paths_that_leave_the_hierarchy_are_refused(container: Make, refused: Refused, path: str) -> None:
    refused(container(edits={"/linux/cgroupsPath": path}).create(check=False), "/linux/cgroupsPath", path)


def test_everything_of_the_container_is_in_its_cgroup(container: Make) -> None:
    one = container("fork", "2", "--", "signals", "60")
    one.create()
    assert (one.cgroup / "cgroup.procs").read_text().split() == [str(one.pid)]
    one.start()
    one.wait_output("ready")
    assert len((one.cgroup / "cgroup.procs").read_text().split()) == 3


def test_runtime_is_not_left_inside(container: Make) -> None:
    """Only init is charged to the container; no helper of the runtime remains in its cgroup."""
    one = container("exit", "0")
    one.create()
    assert (one.cgroup / "cgroup.procs").read_text().split() == [str(one.pid)]
    assert (one.cgroup / "cgroup.events").read_text().startswith("populated 1")


def test_delete_removes_child_cgroups(container: Make, box: Box) -> None:
    """systemd in a container creates cgroups of its own."""
    one = container("signals", "60")
    one.create()
    one.start()
    (one.cgroup / "inner/deeper").mkdir(parents=True)
    one.delete("--force")
    assert not box.leftovers()


def test_existing_empty_cgroup_is_used(container: Make, box: Box) -> None:
    one = container("exit", "0")
    one.cgroup.mkdir()
    box.own_cgroups.add(one.cgroup)
    one.create()
    assert where(one) == one.bundle.config["linux"]["cgroupsPath"]
    one.delete()
    if one.cgroup.exists():
        one.cgroup.rmdir()


@pytest.mark.pyrunc_only("runc removes it; crun's containers are killed from the second one on")
@pytest.mark.parametrize("force", [False, True])
def test_a_cgroup_that_stays_can_be_used_again(container: Make, box: Box, force: bool) -> None:
    """Some kernels kill everything that is cloned into a cgroup whose cgroup.kill was ever
    written."""
    one = container("fork", "1", "--", "signals", "60")
    one.cgroup.mkdir()
    box.own_cgroups.add(one.cgroup)
    for _ in range(3):
        one.create()
        one.start()
        one.wait_output("ready")
        if not force:
            one.kill("--all", "KILL")
            one.wait()
        one.delete(*["--force"] * force)
        assert "populated 0" in (one.cgroup / "cgroup.events").read_text(), "all have ended before we hear of it"
    one.cgroup.rmdir()


@pytest.mark.pyrunc_only("runc and crun give up after a while")
@pytest.mark.parametrize("how", ["delete", "kill"])
def test_a_process_without_its_first_thread_is_killed(container: Make, how: str) -> None:
    """cgroup.kill misses such a process, and so does the end of init in the host's pid
    namespace."""
    one = container("signals", "60")
    spaces = one.bundle.config["linux"]["namespaces"]
    one.bundle.config["linux"]["namespaces"] = [item for item in spaces if item["type"] != "pid"]
    one.create()
    one.start()
    file = one.box.path / "second"
    one.call("exec", "--detach", "--pid-file", str(file), one.id, "/probe", "headless")
    threads = Path(f"/proc/{file.read_text()}/task")
    wait_until(lambda: Path(threads.parent, "stat").read_text().rpartition(")")[2].split()[0] == "Z", "the end")
    assert len(os.listdir(threads)) == 2
    if how == "kill":
        one.kill("--all", "KILL")
        wait_until(lambda: "populated 0" in (one.cgroup / "cgroup.events").read_text(), "the last process's end")
    one.delete("--force")
    assert not one.cgroup.exists()


@pytest.mark.pyrunc_only("runc 1.1.5 only warns; newer ones refuse")
def test_cgroup_with_processes_is_refused(container: Make, box: Box, refused: Refused) -> None:
    import subprocess

    one = container("exit", "0")
    one.cgroup.mkdir()
    box.own_cgroups.add(one.cgroup)
    child = subprocess.Popen(["/bin/sleep", "60"])
    box.helpers.add(child.pid)
    try:
        (one.cgroup / "cgroup.procs").write_text(str(child.pid))
        refused(one.create(check=False), "/linux/cgroupsPath")
        assert child.poll() is None, "the foreign process is not ours to kill"
    finally:
        child.kill()
        child.wait()
        one.cgroup.rmdir()


@pytest.mark.skipif(not MISSING, reason="every controller is here")
def test_a_limit_without_its_controller(container: Make, refused: Refused) -> None:
    field, value = {
        "memory": ("memory", {"limit": 1 << 25}),
        "pids": ("pids", {"limit": 5}),
        "cpu": ("cpu", {"shares": 512}),
        "io": ("blockIO", {"weight": 100}),
    }[MISSING]
    result = container(edits={f"/linux/resources/{field}": value}).create(check=False)
    refused(result, f"/linux/resources/{field}", MISSING, "controller")
    assert not result.err or "no such file" not in result.err or not container.__self__.runtime.is_pyrunc  # type: ignore[attr-defined]


@pytest.mark.skipif("memory" in controllers(), reason="the memory controller is here")
def test_every_missing_controller_field(container: Make, refused: Refused) -> None:
    for field in ("limit", "reservation"):
        result = container(edits={"/linux/resources/memory": {field: 1 << 25}}).create(check=False)
        refused(result, f"/linux/resources/memory/{field}", "memory")


@pytest.mark.skipif("pids" in controllers(), reason="the pids controller is here")
def test_no_limit_needs_no_controller(container: Make, box: Box) -> None:
    """podman before 5.5 writes this for `--pids-limit=-1`; version 1.3.0 of the specification made
    it a limit."""
    resources = {"devices": [], "pids": {"limit": 0}}
    edits: dict[str, Any] = {"/ociVersion": "1.0.2", "/linux/resources": resources}
    if not box.runtime.is_pyrunc and box.runtime.name != "crun":
        pytest.skip("runc takes it for a limit in every version")
    assert container("exit", "7", edits=edits).run(check=False).rc == 7


@pytest.mark.pyrunc_only("the others want the files")
@pytest.mark.skipif(bool({"pids", "memory", "cpu"} & set(controllers())), reason="a controller is here")
def test_unlimited_needs_no_controller(container: Make) -> None:
    resources = {"devices": [], "pids": {"limit": -1}, "memory": {"limit": -1}, "cpu": {"quota": -1}}
    one = container("exit", "7", edits={"/linux/resources": resources})
    assert one.run(check=False).rc == 7
    assert one.run(check=False, globals_=["--cgroup-manager", "disabled"]).rc == 7


@pytest.mark.needs_controller("pids")
@pytest.mark.parametrize(("version", "expected"), [("1.0.2", "max"), ("1.3.0", "1")])
@pytest.mark.pyrunc_only("runc has 1 for every version, crun does not touch it in any")
def test_pids_limit_0(container: Make, version: str, expected: str) -> None:
    edits = {"/ociVersion": version, "/linux/resources": {"devices": [], "pids": {"limit": 0}}}
    one = container("exit", "0", edits=edits)
    one.create()
    assert (one.cgroup / "pids.max").read_text().strip() == expected


def test_values_that_mean_unset_need_no_controller(container: Make) -> None:
    """docker sends zeros for every unset option."""
    edits: dict[str, Any] = {
        "/linux/resources/memory": {},
        "/linux/resources/cpu": {"shares": 0},
        "/linux/resources/blockIO": {"weight": 0},
    }
    assert container("say", "fine", edits=edits).run().out == "fine\n"


@pytest.mark.needs_controller("hugetlb")
@pytest.mark.skipif(not huge_sizes(), reason="this kernel has no huge pages")
def test_hugepage_limit(container: Make) -> None:
    size = huge_sizes()[0]
    one = container("exit", "0", edits={"/linux/resources/hugepageLimits": [{"pageSize": size, "limit": 1 << 30}]})
    one.create()
    assert (one.cgroup / f"hugetlb.{size}.max").read_text() == f"{1 << 30}\n"
    reserved = one.cgroup / f"hugetlb.{size}.rsvd.max"
    if reserved.exists() and one.box.runtime.is_pyrunc:
        assert reserved.read_text() == f"{1 << 30}\n"


def test_hugepage_limit_of_an_unknown_size(container: Make, refused: Refused) -> None:
    edits = {"/linux/resources/hugepageLimits": [{"pageSize": "3MB", "limit": 1}]}
    refused(container(edits=edits).create(check=False), "/linux/resources/hugepageLimits/0", "3MB")


@pytest.mark.needs_controller("hugetlb")
@pytest.mark.skipif(not huge_sizes(), reason="this kernel has no huge pages")
def test_unified(container: Make) -> None:
    file = f"hugetlb.{huge_sizes()[0]}.max"
    one = container("exit", "0", edits={"/linux/resources/unified": {file: str(1 << 30)}})
    one.create()
    assert (one.cgroup / file).read_text() == f"{1 << 30}\n"


@pytest.mark.parametrize("file", ["cgroup.max.depth", "cgroup.max.descendants"])
def test_unified_core_files(container: Make, file: str) -> None:
    one = container("exit", "0", edits={"/linux/resources/unified": {file: "7"}})
    one.create()
    assert (one.cgroup / file).read_text() == "7\n"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory.max", "1000000"),
        ("pids.max", "10"),
        ("bogus.file", "1"),
        ("a/b", "1"),
        ("../cgroup.procs", "1"),
        ("cgroup.max.depth", "nonsense"),
    ],
)
def test_unified_that_fails(container: Make, refused: Refused, key: str, value: str) -> None:
    if key.split(".")[0] in controllers():
        pytest.skip(f"the controller of {key} is here")
    one = container(edits={"/linux/resources/unified": {key: value}})
    pointer = "/linux/resources/unified/" + key.replace("/", "~1")
    refused(one.create(check=False), pointer)


LIMITS = [
    ("memory", {"memory": {"limit": 64 << 20}}, {"memory.max": str(64 << 20)}),
    (
        "memory",
        {"memory": {"limit": 64 << 20, "swap": 96 << 20}},
        {"memory.max": str(64 << 20), "memory.swap.max": str(32 << 20)},
    ),
    ("memory", {"memory": {"limit": -1}}, {"memory.max": "max"}),
    ("memory", {"memory": {"reservation": 16 << 20}}, {"memory.low": str(16 << 20)}),
    ("cpu", {"cpu": {"shares": 1024}}, {"cpu.weight": "100"}),
    ("cpu", {"cpu": {"shares": 2}}, {"cpu.weight": "1"}),
    ("cpu", {"cpu": {"quota": 50000, "period": 200000}}, {"cpu.max": "50000 200000"}),
    ("cpu", {"cpu": {"quota": 50000}}, {"cpu.max": "50000 100000"}),
    ("cpu", {"cpu": {"quota": -1, "period": 200000}}, {"cpu.max": "max 200000"}),
    ("cpuset", {"cpu": {"cpus": "0", "mems": "0"}}, {"cpuset.cpus": "0", "cpuset.mems": "0"}),
    ("pids", {"pids": {"limit": 17}}, {"pids.max": "17"}),
    ("pids", {"pids": {"limit": -1}}, {"pids.max": "max"}),
    ("pids", {"unified": {"pids.max": "9"}}, {"pids.max": "9"}),
    (
        "memory",
        {"unified": {"memory.high": "1048576", "memory.oom.group": "1"}},
        {"memory.high": "1048576", "memory.oom.group": "1"},
    ),
]


@pytest.mark.parametrize(
    ("resources", "files"),
    [pytest.param(*rest, marks=pytest.mark.needs_controller(name)) for name, *rest in LIMITS],
    ids=range(len(LIMITS)),
)
def test_limits(container: Make, box: Box, resources: dict[str, Any], files: dict[str, str]) -> None:
    if resources.get("cpu", {}).get("shares") == 1024 and not box.runtime.is_pyrunc:
        pytest.skip("runc 1.1.5 has the older formula")
    one = container("exit", "0", edits={"/linux/resources": {"devices": [], **resources}})
    one.create()
    for name, value in files.items():
        assert (one.cgroup / name).read_text().strip() == value, name


@pytest.mark.needs_controller("memory")
def test_oom_while_creating_is_named(container: Make, refused: Refused) -> None:
    result = container(edits={"/linux/resources/memory": {"limit": 4096}}).create(check=False)
    refused(result, "", "memory")


@pytest.mark.needs_controller("pids")
def test_pids_limit_holds(container: Make) -> None:
    one = container("fork", "20", "--", "signals", "1", edits={"/linux/resources/pids": {"limit": 5}})
    one.create()
    one.start()
    one.wait_output("ready")
    assert len((one.cgroup / "cgroup.procs").read_text().split()) <= 5


@pytest.mark.parametrize(
    ("resources", "pointer"),
    [
        ({"memory": {"swap": 1 << 25}}, "/linux/resources/memory/swap"),
        ({"memory": {"limit": 1 << 25, "swap": 1 << 24}}, "/linux/resources/memory/swap"),
        ({"memory": {"limit": "1"}}, "/linux/resources/memory/limit"),
        ({"pids": {"limit": 1.5}}, "/linux/resources/pids/limit"),
        ({"cpu": {"shares": -1}}, "/linux/resources/cpu/shares"),
    ],
    ids=range(5),
)
def test_invalid_resources_are_refused(
    container: Make, refused: Refused, resources: dict[str, Any], pointer: str
) -> None:
    refused(container(edits={"/linux/resources": resources}).create(check=False), pointer)


@pytest.mark.pyrunc_only("an option of crun")
def test_cgroup_manager_disabled(container: Make, box: Box) -> None:
    one = container("exit", "0")
    one.bundle.save()
    pid_file = box.path / "pid"
    options = ["--cgroup-manager", "disabled"]
    one.call("create", "--pid-file", str(pid_file), "-b", str(one.bundle.path), one.id, globals_=options)
    one.pid = int(pid_file.read_text())
    assert not one.cgroup.exists()
    assert where(one) == next(x for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::"))[3:]
    one.start()
    one.wait()
    one.delete()


@pytest.mark.pyrunc_only("says other words")
@pytest.mark.skipif(systemd_runs(), reason="systemd is init here: integration/test_systemd.py")
@pytest.mark.parametrize("option", [["--systemd-cgroup"], ["--cgroup-manager", "systemd"]])
def test_systemd_driver_without_systemd(container: Make, refused: Refused, option: list[str]) -> None:
    one = container(edits={"/linux/cgroupsPath": "system.slice:x:y"})
    one.bundle.save()
    result = one.call("create", "-b", str(one.bundle.path), one.id, globals_=option, check=False)
    refused(result, "", "systemd is not this host's init")
