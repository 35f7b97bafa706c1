"""linux.intelRdt from config to kernel files, with a directory in place of resctrl, and without
one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from integration import fake_resctrl
from integration.harness import TIMEOUT, Box, Container

Make = Callable[..., Container]
Refused = Callable[..., None]
pytestmark = pytest.mark.pyrunc_only("runc 1.1.5 ignores the field without resctrl; the directory is pyrunc's")


def call(box: Box, root: Path, *args: str) -> tuple[int, str]:
    """Run the sources of this checkout, whatever executable is under test, with the fake in
    them."""
    argv = [sys.executable, fake_resctrl.__file__, str(root), "--root", str(box.root), *args]
    # Not pipes: a created container keeps them open.
    with open(box.path / "stderr", "w+") as err:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=err, timeout=TIMEOUT * 3, check=False
        )
        err.seek(0)
        return done.returncode, err.read()


def test_without_resctrl(container: Make, refused: Refused) -> None:
    if " - resctrl " in Path("/proc/self/mountinfo").read_text():
        pytest.skip("this machine has resctrl")
    refused(container(edits={"/linux/intelRdt": {}}).create(check=False), "/linux/intelRdt", "a mounted resctrl")


def test_life_of_a_class(container: Make, box: Box) -> None:
    root = fake_resctrl.make(box.path / "resctrl")
    made = container("sleep", "600", edits={"/linux/intelRdt": {"schemata": ["L3:0=f"], "enableMonitoring": True}})
    made.bundle.save()
    pid_file = box.path / "pid"
    rc, err = call(box, root, "create", "-b", str(made.bundle.path), "--pid-file", str(pid_file), made.id)
    assert rc == 0, err
    group = root / made.id
    assert (group / "tasks").read_text() == pid_file.read_text()
    assert (group / "mon_groups" / made.id / "tasks").read_text() == pid_file.read_text()
    assert (group / "schemata").read_text().startswith("L3:0=f\n")
    assert call(box, root, "start", made.id) == (0, "")
    assert call(box, root, "update", "--l3-cache-schema", "L3:0=3", "--mem-bw-schema", "MB:1=50", made.id) == (0, "")
    assert (group / "schemata").read_text().startswith("MB:1=50\n")  # the last write, because the fake is a plain file
    rc, err = call(box, root, "update", "--l3-cache-schema", "L3:0=1", "--memory", "999999m", made.id)
    if rc:  # no memory controller here: the schema is restored
        assert "memory" in err
        assert "L3:0=1" not in (group / "schemata").read_text()
    note = box.path / "exec.pid"
    rc, err = call(box, root, "exec", "-d", "--pid-file", str(note), made.id, "/probe", "sleep", "600")
    assert rc == 0, err
    # The process that clones the new one joins the class while it may: its children are born in it
    # (resctrl.rst).
    joined = int((group / "tasks").read_text())
    assert joined not in (int(pid_file.read_text()), int(note.read_text())) and joined > 1
    os.kill(int(note.read_text()), signal.SIGKILL)
    os.waitpid(int(note.read_text()), 0)  # our orphan: the namespace's first process cannot end before it
    assert call(box, root, "delete", "--force", made.id) == (0, "")
    assert not group.exists()
    assert not box.leftovers()


def test_a_failed_create_leaves_no_class(container: Make, box: Box) -> None:
    root = fake_resctrl.make(box.path / "resctrl")
    edits = {
        "/linux/intelRdt": {"closID": "gold", "schemata": ["L3:0=f"]},
        "/hooks": {"createRuntime": [{"path": "/bin/false"}]},
    }
    made = container(edits=edits)
    made.bundle.save()
    _, err = call(box, root, "create", "-b", str(made.bundle.path), made.id)
    assert "/hooks/createRuntime/0" in err
    assert not (root / "gold").exists()
    assert not box.leftovers()
