"""`mounts add` and `mounts remove` on created and running containers: they apply all mounts or
none."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE
from integration.harness import Box, Container, Result
from integration.machine import kernel, parse_mountinfo
from integration.test_userns import MAPS, edits, own

Make = Callable[..., Container]
ANNOTATION = "org.pyrunc.mounts"


@pytest.fixture(autouse=True)
def pyrunc_only(box: Box) -> None:
    if not box.runtime.is_pyrunc:
        pytest.skip("crun's verb is an experiment, and runc has none")


def started(container: Make, *, edits: dict[str, Any] | None = None) -> Container:
    one = container("sleep", "600", edits=edits)
    one.create()
    one.start()
    return one


def bind(source: Path, destination: str, *options: str, **more: Any) -> dict[str, Any]:
    return {"destination": destination, "source": str(source), "options": ["bind", *options], **more}


def tmpfs(destination: str, *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": [*options]}


def change(one: Container, what: str, *entries: dict[str, Any], check: bool = True) -> Result:
    path = one.box.path / "mounts.json"
    path.write_text(json.dumps(entries))
    return one.call("mounts", what, one.id, str(path), check=check)


def points(one: Container) -> list[str]:
    """The mount points of the container in mount order."""
    return [mount.dest for mount in parse_mountinfo(Path(f"/proc/{one.pid}/mountinfo").read_text())]


def attributes(one: Container, point: str) -> set[str]:
    found = [m for m in parse_mountinfo(Path(f"/proc/{one.pid}/mountinfo").read_text()) if m.dest == point]
    return set(found[-1].options)


def noted(one: Container) -> list[str]:
    annotations = one.state().get("annotations", {})
    return [entry["destination"] for entry in json.loads(annotations.get(ANNOTATION, "[]"))]


@pytest.fixture
def source(box: Box) -> Path:
    path = box.path / "source"
    path.mkdir()
    (path / "file").write_text("content\n")
    return path


def test_add_and_remove(container: Make, source: Path) -> None:
    one = started(container)
    before, host = points(one), Path("/proc/self/mountinfo").read_text()
    entries = [bind(source, "/data", "ro", "nosuid"), tmpfs("/scratch", "size=1m"), bind(source / "file", "/etc/one")]
    change(one, "add", *entries)
    assert points(one)[len(before) :] == ["/data", "/scratch", "/etc/one"]
    assert {"ro", "nosuid"} <= attributes(one, "/data") and "rw" in attributes(one, "/etc/one")
    assert one.call("exec", one.id, "/bin/cat", "/data/file", "/etc/one").out == "content\n" * 2
    assert noted(one) == ["/data", "/scratch", "/etc/one"]
    change(one, "remove", *entries)
    assert points(one) == before and noted(one) == []
    assert Path("/proc/self/mountinfo").read_text() == host


def test_stdin(container: Make, source: Path) -> None:
    one = started(container)
    one.call("mounts", "add", one.id, "-", stdin=json.dumps([bind(source, "/data")]))
    assert "/data" in points(one)


@pytest.mark.parametrize("verb", ["pause", ""])
def test_other_states(container: Make, source: Path, verb: str) -> None:
    one = container("sleep", "600")
    one.create()
    if verb:
        one.start()
        one.call(verb, one.id)
    change(one, "add", bind(source, "/data"))
    assert "/data" in points(one)
    change(one, "remove", {"destination": "/data"})
    assert "/data" not in points(one)


def test_a_stopped_container_is_refused(container: Make, source: Path) -> None:
    one = container("true")
    one.create()
    one.start()
    one.wait()
    result = change(one, "add", bind(source, "/data"), check=False)
    assert result.rc == 1 and "stopped container" in result.err


def test_a_failure_undoes_the_mounts_before_it(container: Make, source: Path) -> None:
    one = started(container)
    before = points(one)
    for last, words in (
        (tmpfs("/more", "bogus=1"), "/2/options"),
        (bind(source / "missing", "/more"), "/2/source"),
        (bind(source, "/first/file"), "/2/destination"),
        (tmpfs("/sys/kernel/no-such"), "/2/destination"),
    ):
        result = change(one, "add", bind(source, "/first"), tmpfs("/second"), last, check=False)
        assert result.rc == 1 and words in result.err and result.err.count("\n") == 1, result
        assert points(one) == before and noted(one) == []


REFUSED = [
    ({"destination": "/proc", "type": "proc", "source": "proc"}, "procfs"),
    ({"destination": "/p", "type": "proc", "source": "proc"}, "procfs"),
    ({"destination": "/proc", "source": "/proc", "options": ["bind"]}, "procfs"),
    ({"destination": "/proc/self", "source": "/tmp", "options": ["bind"]}, "/0/destination"),
    ({"destination": "/", "source": "/tmp", "options": ["bind"]}, "/0/destination"),
    ({"destination": "/dev", "type": "tmpfs", "options": ["remount", "ro"]}, "/0/options/0"),
    ({"destination": "/t", "type": "tmpfs", "options": ["tmpcopyup"]}, "/0/options/0"),
    ({"destination": "/t"}, "/0/type"),
    ({"destination": "/t", "type": 7}, "/0/type"),
    ({"type": "tmpfs"}, "/0/destination"),
]


@pytest.mark.parametrize(("entry", "words"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_refused_before_anything_is_touched(container: Make, entry: dict[str, Any], words: str) -> None:
    one = started(container)
    before = points(one)
    result = change(one, "add", tmpfs("/first"), check=True)
    assert result.rc == 0
    change(one, "remove", {"destination": "/first"})
    result = change(one, "add", entry, check=False)
    assert result.rc == 1 and words in result.err and result.err.startswith("pyrunc: error: mounts: ")
    assert points(one) == before


def test_documents(container: Make) -> None:
    one = started(container)
    for text, words in (("{}", "an array of mounts"), ("[7]", "/0: expected object"), ("[", "line 1")):
        path = one.box.path / "document.json"
        path.write_text(text)
        result = one.call("mounts", "add", one.id, str(path), check=False)
        assert result.rc == 1 and words in result.err
    result = change(one, "add", *[tmpfs(f"/m{number}") for number in range(101)], check=False)
    assert result.rc == 1 and "at most 100 mounts" in result.err
    change(one, "add")
    assert change(one, "change", check=False).rc == 1


def test_without_a_mount_namespace(container: Make, source: Path) -> None:
    without: dict[str, Any] = {"/linux/maskedPaths": [], "/linux/readonlyPaths": [], "/hostname": DELETE, "/mounts": []}
    one = container("sleep", "600", edits={"/linux/namespaces": [{"type": "pid"}], **without})
    one.create()
    result = change(one, "add", bind(source, "/data"), check=False)
    assert result.rc == 1 and "no mount namespace" in result.err


# --- remove ---------------------------------------------------------------------------------------


def test_mounts_of_the_configuration_stay(container: Make, source: Path) -> None:
    one = started(container)
    before = points(one)
    result = change(one, "remove", {"destination": "/dev"}, check=False)
    assert result.rc == 1 and "/0/destination" in result.err and "of config.json" in result.err
    change(one, "add", bind(source, "/data"))
    result = change(one, "remove", {"destination": "/data"}, {"destination": "/dev"}, check=False)
    assert result.rc == 1 and "/1/destination" in result.err
    assert points(one) == [*before, "/data"]


def test_the_newest_of_a_stack_goes_first(container: Make, source: Path) -> None:
    one = started(container)
    change(one, "add", bind(source, "/data"), tmpfs("/data"))
    change(one, "remove", {"destination": "/data"})
    assert one.call("exec", one.id, "/bin/cat", "/data/file").out == "content\n"
    change(one, "remove", {"destination": "/data"})
    assert "/data" not in points(one)


def test_a_mount_below_or_on_top_keeps_one(container: Make, source: Path) -> None:
    one = started(container)
    change(one, "add", tmpfs("/a"), tmpfs("/a/b"), tmpfs("/c/d"), tmpfs("/c"))
    for destination, hint in (("/a", 'remove "/a/b" first'), ("/c/d", 'remove "/c" first')):
        result = change(one, "remove", {"destination": destination}, check=False)
        assert result.rc == 1 and hint in result.err
    change(one, "remove", *[{"destination": path} for path in ("/a", "/a/b", "/c/d", "/c")])
    assert not [point for point in points(one) if point[:2] in ("/a", "/c")]


def capable(container: Make) -> Container:
    caps = ["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]
    sets = ("bounding", "effective", "permitted")
    return started(container, edits={f"/process/capabilities/{kind}": caps for kind in sets})


def test_one_that_the_container_has_unmounted_is_forgotten(container: Make, source: Path) -> None:
    one = capable(container)
    change(one, "add", bind(source, "/data"), tmpfs("/scratch"))
    one.call("exec", one.id, "/bin/umount", "/data")
    change(one, "remove", {"destination": "/data"})
    assert noted(one) == ["/scratch"] and "/scratch" in points(one)


def test_one_that_the_container_has_covered_is_reported(container: Make, source: Path) -> None:
    one = capable(container)
    change(one, "add", bind(source, "/data"))
    one.call("exec", one.id, "/bin/mount", "-t", "tmpfs", "none", "/data")
    result = change(one, "remove", {"destination": "/data"}, check=False)
    assert result.rc == 1 and "another mount covers it" in result.err
    one.call("exec", one.id, "/bin/umount", "/data")
    change(one, "add")  # completes it
    assert "/data" not in points(one) and noted(one) == []


# --- after a kill ---------------------------------------------------------------------------------


def test_half_of_an_add_is_undone_by_the_next_verb(container: Make, source: Path) -> None:
    one = started(container)
    before = points(one)
    change(one, "add", bind(source, "/data"), tmpfs("/scratch"))
    path = one.box.root / one.id / "state.json"
    state = json.loads(path.read_text())
    for mount in state["mounts"]:
        mount["pending"], mount["at"] = True, ""
    path.write_text(json.dumps(state))
    assert noted(one) == []
    change(one, "add", tmpfs("/other"))
    assert points(one) == [*before, "/other"]


def test_an_id_that_the_kernel_has_reused_is_left_alone(container: Make, source: Path) -> None:
    if kernel() < (6, 8):
        pytest.skip("mounts have unique ids from Linux 6.8 on")
    one = started(container)
    change(one, "add", bind(source, "/data"))
    path = one.box.root / one.id / "state.json"
    state = json.loads(path.read_text())
    (mount,) = state["mounts"]
    dev = next(m for m in parse_mountinfo(Path(f"/proc/{one.pid}/mountinfo").read_text()) if m.dest == "/dev")
    mount["pending"], mount["id"], mount["at"] = True, dev.id, ""
    path.write_text(json.dumps(state))
    change(one, "add")
    assert "/dev" in points(one)


# --- user namespaces, ids, filesystems ------------------------------------------------------------


def test_user_namespace(container: Make, source: Path) -> None:
    """Sources may be below directories that only the caller may enter; new filesystems belong to the
    container's root."""
    one = own(container("sleep", "600", edits=edits()))
    one.create()
    one.start()
    os.chmod(source.parent, 0o700)
    change(one, "add", bind(source, "/data", "ro"), tmpfs("/scratch"), bind(source, "/mapped", "idmap"))
    assert one.call("exec", one.id, "/bin/cat", "/data/file").out == "content\n"
    seen = one.call("exec", one.id, "/bin/stat", "-c", "%u", "/scratch", "/data", "/mapped").out.split()
    assert seen == ["0", "65534", "0"]
    assert {"/data", "/scratch", "/mapped"} <= {*points(one)}
    change(one, "remove", *[{"destination": path} for path in ("/data", "/scratch", "/mapped")])
    assert not {"/data", "/scratch", "/mapped"} & {*points(one)}


def test_own_mapping(container: Make, source: Path) -> None:
    one = started(container)
    change(one, "add", bind(source, "/data", uidMappings=MAPS, gidMappings=MAPS))
    assert one.call("exec", one.id, "/bin/stat", "-c", "%u", "/data/file").out == "100000\n"


@pytest.mark.parametrize(
    ("entry", "file"),
    [
        ({"destination": "/net", "type": "sysfs", "source": "sysfs", "options": ["ro"]}, "/net/class/net"),
        ({"destination": "/queues", "type": "mqueue", "source": "mqueue"}, "/queues"),
        ({"destination": "/ptys", "type": "devpts", "source": "devpts", "options": ["newinstance"]}, "/ptys/ptmx"),
        ({"destination": "/group", "type": "cgroup", "source": "cgroup", "options": ["ro"]}, "/group/cgroup.procs"),
    ],
)
@pytest.mark.parametrize("user", [False, True])
def test_filesystems_of_namespaces(container: Make, entry: dict[str, Any], file: str, user: bool) -> None:
    one = own(container("sleep", "600", edits=edits())) if user else container("sleep", "600")
    one.create()
    one.start()
    change(one, "add", entry)
    found = one.call("exec", one.id, "/bin/ls", file).out
    if entry["type"] == "sysfs":
        assert found == "lo\n", "the container's network"
    if entry["type"] == "cgroup":
        pids = one.call("exec", one.id, "/bin/cat", file).out.split()
        assert "1" in pids, "the container's own cgroup"
    change(one, "remove", entry)
    assert entry["destination"] not in points(one)


def test_the_mode_of_the_directory_and_a_read_only_tmpfs(container: Make) -> None:
    one = started(container)
    one.call("exec", one.id, "/bin/mkdir", "-m", "1770", "/mode")
    change(one, "add", tmpfs("/mode", "ro"), tmpfs("/mode/below"))
    assert one.call("exec", one.id, "/bin/stat", "-c", "%a", "/mode").out == "1770\n"
    assert "ro" in attributes(one, "/mode") and "rw" in attributes(one, "/mode/below")


def test_delete_needs_no_remove(container: Make, source: Path) -> None:
    one = started(container)
    change(one, "add", bind(source, "/data"))
    one.delete("--force")
    assert (source / "file").read_text() == "content\n"
    assert str(source) not in Path("/proc/self/mountinfo").read_text()


def test_the_state_survives_other_verbs(container: Make, source: Path) -> None:
    one = container("sleep", "600")
    one.create()
    change(one, "add", bind(source, "/data"))
    one.start()
    one.call("pause", one.id)
    one.call("resume", one.id)
    assert noted(one) == ["/data"]


def test_a_checkpoint_is_refused_until_they_are_removed(container: Make, source: Path) -> None:
    one = started(container)
    change(one, "add", bind(source, "/data"))
    result = one.call("checkpoint", "--image-path", str(one.box.path / "images"), one.id, check=False)
    assert result.rc == 1 and "`mounts remove`" in result.err and one.status == "running"
    assert not (one.box.path / "images").exists()
