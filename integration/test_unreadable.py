"""A state that is temporarily unreadable is not damaged, and a container with a damaged state still
exists."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from integration.config import DELETE
from integration.faults import scarcity
from integration.harness import Box, Container, wait_until

Make = Callable[..., Container]

pytestmark = pytest.mark.pyrunc_only("its own state, its own messages")
ANNOTATION = {"/annotations": {"large": "x" * (15 << 20)}}
MIB = 1 << 20


def running(container: Make, **edits: object) -> Container:
    """A container with two processes."""
    one = container("fork", "1", "--", "signals", "60", edits={key.replace("__", "/"): v for key, v in edits.items()})
    one.create()
    one.start()
    one.wait_output("ready")
    return one


def files(one: Container) -> dict[str, bytes]:
    """The files of the container's directory and their content."""
    return {path.name: path.read_bytes() for path in (one.box.root / one.id).iterdir() if path.is_file()}


def test_too_little_memory_for_a_large_state(container: Make, box: Box) -> None:
    """The address space is enough to start, but not for 15 MB of state: that must not be reported
    as damage."""
    one = container("signals", "60", edits=ANNOTATION)
    one.create()
    one.start()
    one.wait_output("ready")
    before = files(one)
    refused = 0
    for space in (40, 50, 60, 70, 85, 100):

        def limit(space: int = space) -> None:
            resource.setrlimit(resource.RLIMIT_AS, (space * MIB, space * MIB))

        for verb in (["state"], ["kill"], ["ps"], ["delete"], ["delete", "--force"], ["list"]):
            words = verb if verb == ["list"] else [*verb, one.id]
            if verb[0] == "kill":
                words.append("0")
            result = box.runtime.call("--root", str(box.root), *words, preexec=limit)
            if verb == ["delete", "--force"] and result.rc == 0:
                assert not box.leftovers(), f"with {space} MiB"
                one.create()
                one.start()
                before = files(one)
            elif result.rc:
                assert result.err.startswith("pyrunc: error: ") and result.err.count("\n") == 1, result
                assert "damaged" not in result.err and "--force" not in result.err, result
                refused += "out of memory" in result.err
            elif verb in (["state"], ["list"]):
                assert one.id in result.out
            assert box.children() and files(one) == before
    assert refused > 5, "there was enough memory for everything: nothing was tested"


def test_descriptors(container: Make, box: Box) -> None:
    one = running(container)
    before = files(one)
    for count in range(3, 12):

        def limit(count: int = count) -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))

        for verb in (["state", one.id], ["kill", one.id, "0"], ["delete", one.id], ["list"]):
            result = box.runtime.call("--root", str(box.root), *verb, preexec=limit)
            assert "damaged" not in result.err and "--force" not in result.err, result
            assert result.rc or verb[0] != "list" or one.id in result.out, result
        result = one.delete("--force", check=False, preexec=limit)
        if result.rc == 0:
            break
        assert "damaged" not in result.err and "--force" not in result.err and files(one) == before
    assert count > 3 and not box.leftovers()


HOOK = {"path": "/bin/true", "args": ["true"]}


def test_a_life_without_the_standard_library(container: Make, box: Box) -> None:
    """A distribution's upgrade may remove it while containers run."""
    hooks = {kind: [HOOK] for kind in ("prestart", "createRuntime", "poststart", "poststop")}
    one = container("signals", "60", edits={"/hooks": hooks, "/hostname": "hé"})
    box.runtime.prefix = scarcity.without_library(str(box.path))
    try:
        one.create()
        one.start()
        one.wait_output("ready")
        assert one.status == "running"
        assert one.id in box.runtime.call("--root", str(box.root), "list").out
        assert box.runtime.call("--root", str(box.root), "list", "-q").out.split() == [one.id]
        assert one.call("exec", one.id, "/probe", "exit", "7", check=False).rc == 7
        assert one.call("exec", one.id, "/nowhere", check=False).rc == 255
        assert one.call("exec", "--tty", one.id, "/probe", "say", "on a terminal").out == "on a terminal\n"
        assert json.loads(one.call("ps", "--format", "json", one.id).out) == [one.pid]
        assert json.loads(one.call("events", "--stats", one.id).out)["type"] == "stats"
        one.call("pause", one.id)
        assert one.status == "paused"
        one.call("resume", one.id)
        one.call("update", "--resources", "-", one.id, stdin='{"devices":[{"allow":false,"access":"rwm"}]}')
        one.kill("USR1")
        one.wait_output('"number":10')
        one.kill("KILL")
        one.wait()
        one.delete()
        one.bundle.config["process"]["args"] = ["/probe", "exit", "3"]
        assert one.run(check=False).rc == 3
    finally:
        box.runtime.prefix = []
    assert not box.leftovers()


def test_a_damaged_state_without_the_standard_library(container: Make, box: Box) -> None:
    one = running(container)
    (box.root / one.id / "state.json").write_text("{")
    box.runtime.prefix = scarcity.without_library(str(box.path))
    try:
        result = one.call("state", one.id, check=False)
        assert result.rc == 1 and "is damaged" in result.err and "No module" not in result.err
        one.delete("--force")
    finally:
        box.runtime.prefix = []
    assert not box.leftovers()


# -- damage ----------------------------------------------------------------------------------------


def cut(one: Container, **files: str | None) -> None:
    """Replace the content of files in the container's directory; None removes a file."""
    for name, content in files.items():
        path = one.box.root / one.id / f"{name}.json"
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_text(content)


def test_the_process_leads_to_the_cgroup(container: Make, box: Box) -> None:
    """state.json lacks the cgroup, intent.json is missing, and config.json never named one."""
    one = running(container)
    where = one.cgroup
    config = json.loads((box.root / one.id / "config.json").read_text())
    del config["linux"]["cgroupsPath"]
    data = json.loads((box.root / one.id / "state.json").read_text())
    del data["cgroup"]
    cut(one, state=json.dumps(data), intent=None, config=json.dumps(config))
    assert "is damaged (incomplete)" in one.call("state", one.id, check=False).err
    one.delete("--force")
    assert not where.exists() and not box.leftovers()


def test_a_created_container_without_any_state_is_found_by_its_fifo(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.create()
    config = json.loads((box.root / one.id / "config.json").read_text())
    del config["linux"]["cgroupsPath"]
    cut(one, state="\0", intent=None, config=json.dumps(config))
    one.delete("--force")
    assert not one.cgroup.exists() and not box.leftovers()


@pytest.mark.parametrize("state", ["", "\0\0\0", '{"id":', None], ids=["empty", "zeros", "half", "missing"])
def test_nothing_is_known_is_not_gone(container: Make, box: Box, state: str | None) -> None:
    """The container keeps running and stays listed until another process ends it."""
    one = running(container)
    whole = files(one)
    config = json.loads(whole["config.json"])
    del config["linux"]["cgroupsPath"]
    cut(one, state=state, intent=state, config=json.dumps(config))
    left = files(one)
    result = one.delete("--force", check=False)
    assert result.rc == 1 and result.err.count("\n") == 1
    assert f"the state of container {one.id} is damaged, and nothing says which cgroup it has" in result.err
    assert files(one) == left and one.pid in box.children()
    (box.root / one.id / "state.json").write_bytes(whole["state.json"])
    assert one.status == "running"
    one.delete("--force")
    assert not box.leftovers()


def test_a_container_without_a_cgroup_of_its_own(container: Make, box: Box) -> None:
    """Its processes are in the caller's cgroup: they end with the pid namespace, and no other
    process does."""
    one = container(
        "fork", "1", "--", "signals", "60", edits={"/linux/cgroupsPath": DELETE, "/linux/resources": DELETE}
    )
    # The cgroup mount needs no cgroup of its own.
    one.create(globals_=("--cgroup-manager", "disabled"))
    one.start()
    one.wait_output("ready")
    data = json.loads((box.root / one.id / "state.json").read_text())
    assert data["cgroup"] == ""
    cut(one, state=json.dumps(data | {"hooks": "x"}), intent=None)
    one.delete("--force")
    assert not box.leftovers()


def test_processes_that_cannot_be_distinguished(container: Make, box: Box) -> None:
    """Without its own cgroup and pid namespace only the first process is known, so no process is
    killed."""
    one = container("signals", "60", edits={"/linux/cgroupsPath": DELETE, "/linux/resources": DELETE})
    spaces = one.bundle.config["linux"]["namespaces"]
    one.bundle.config["linux"]["namespaces"] = [space for space in spaces if space["type"] != "pid"]
    one.create(globals_=("--cgroup-manager", "disabled"))
    one.start()
    one.wait_output("ready")
    data = json.loads((box.root / one.id / "state.json").read_text())
    del data["cgroup"]
    cut(one, state=json.dumps(data), intent=None)
    result = one.delete("--force", check=False)
    assert result.rc == 1
    assert f"process {one.pid} shares its cgroup and its pid namespace" in result.err
    os.kill(one.pid, signal.SIGKILL)
    wait_until(lambda: one.pid not in box.children(), "the end of the process")  # the check reaps it
    assert one.delete("--force", check=False).rc == 1, "nobody knows of the others"
    cut(one, state=json.dumps(data | {"cgroup": ""}))
    one.delete("--force")
    assert not Path(box.root / one.id).exists()
