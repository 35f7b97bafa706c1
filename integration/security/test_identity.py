"""The identity of the program, and the names it may have: ids, groups, capabilities, container ids
(T13, T14, T16, T17, T32)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from integration.config import DEFAULT_CAPS
from integration.harness import Box
from integration.machine import CAP_BIT
from integration.security.support import Make, Refused, tree

# --- T13 ------------------------------------------------------------------------------------------


@pytest.mark.row("T13")
@pytest.mark.pyrunc_only("runc 1.1.5's spec still lists inheritable and ambient sets")
def test_default_configuration_has_no_inheritable_capabilities(container: Make, box: Box) -> None:
    """CVE-2022-29162, CVE-2022-27650, CVE-2022-24769, CVE-2025-27612: a program with file
    capabilities gained more."""
    home = box.path / "spec"
    home.mkdir()
    box.runtime.call("spec", "--bundle", str(home))
    written = json.loads((home / "config.json").read_text())["process"]["capabilities"]
    assert "inheritable" not in written and "ambient" not in written
    one = container("report")
    one.bundle.config["process"]["capabilities"] = written
    caps = one.run().report["caps"]
    assert caps["inheritable"] == caps["ambient"] == 0
    assert caps["permitted"] == sum(CAP_BIT[name] for name in written["permitted"])


@pytest.mark.row("T13")
@pytest.mark.parametrize("user", [0, 1000])
def test_inheritable_is_what_the_configuration_says(container: Make, user: int) -> None:
    one = container("report", edits={"/process/user": {"uid": user, "gid": user}})
    assert one.run().report["caps"]["inheritable"] == 0
    two = container("report", edits={"/process/user": {"uid": user, "gid": user}})
    two.bundle.config["process"]["capabilities"]["inheritable"] = ["CAP_KILL"]
    caps = two.run().report["caps"]
    assert (caps["inheritable"], caps["ambient"]) == (CAP_BIT["CAP_KILL"], 0)


@pytest.mark.row("T13")
def test_ambient_needs_inheritable(container: Make) -> None:
    one = container("report", edits={"/process/user": {"uid": 1000, "gid": 1000}})
    one.bundle.config["process"]["capabilities"]["ambient"] = DEFAULT_CAPS
    result = one.run(check=False)
    if result.rc == 0:
        assert result.report["caps"]["ambient"] == result.report["caps"]["inheritable"] == 0


# --- T14, T16 -------------------------------------------------------------------------------------


@pytest.mark.row("T14")
def test_a_number_is_never_looked_up_as_a_name(container: Make) -> None:
    """CVE-2016-3697: a passwd line named "1000" made user 1000 root."""
    one = container("report", edits={"/process/user": {"uid": 1000, "gid": 1000}})
    passwd = one.bundle.rootfs / "etc/passwd"
    group = one.bundle.rootfs / "etc/group"
    passwd.unlink()
    group.unlink()
    passwd.write_text("1000:x:0:0:root:/evil:/bin/sh\nroot:x:0:0:root:/root:/bin/sh\n")
    group.write_text("1000:x:0:1000\nroot:x:0:1000\n")
    seen = one.run().report
    assert (seen["uid"], seen["gid"]) == ([1000] * 3, [1000] * 3)
    assert set(seen["groups"]) <= {1000}
    assert "HOME=/evil" not in seen["env"]


WRONG_IDS: list[Any] = [-1, -(2**31), 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64, 1.0, 0.5, "0", "12x", True, 1e3]


@pytest.mark.row("T16")
@pytest.mark.parametrize("value", WRONG_IDS, ids=repr)
@pytest.mark.parametrize("field", ["uid", "gid", "additionalGids/0"])
def test_ids_that_are_none(container: Make, box: Box, refused: Refused, field: str, value: object) -> None:
    """CVE-2024-40635: 2**32 became 0. 4294967295 is (uid_t)-1, "do not change", which kept the
    runtime's own 0."""
    if not box.runtime.is_pyrunc and isinstance(value, float) and value == int(value):
        pytest.skip("Go's decoder takes whole floats")
    one = container(edits={"/process/user": {"uid": 5, "gid": 5, "additionalGids": [6]}})
    user = one.bundle.config["process"]["user"]
    if field == "additionalGids/0":
        user["additionalGids"][0] = value
    else:
        user[field] = value
    refused(one.create(check=False), f"/process/user/{field}")


@pytest.mark.row("T16")
@pytest.mark.parametrize("value", [2**31 - 1, 2**31, 2**32 - 2])
@pytest.mark.pyrunc_only("runc 1.1.5 ends at 2147483647")
def test_largest_ids(container: Make, value: int) -> None:
    user = {"uid": value, "gid": value, "additionalGids": [value]}
    seen = container("report", edits={"/process/user": user}).run().report
    assert (seen["uid"], seen["gid"], seen["groups"]) == ([value] * 3, [value] * 3, [value])


# --- T17 ------------------------------------------------------------------------------------------


@pytest.mark.row("T17")
@pytest.mark.parametrize("groups", [[], [10], [10, 20, 30]])
@pytest.mark.parametrize("uid", [0, 1000])
def test_groups_are_exactly_the_configured_ones(container: Make, groups: list[int], uid: int) -> None:
    """CVE-2022-36109, CVE-2022-2989: the process kept groups of the caller or of root."""
    user = {"uid": uid, "gid": 7, "additionalGids": groups}
    one = container("report", edits={"/process/user": user})
    seen = one.run(preexec=lambda: os.setgroups([0, 6, 27])).report
    assert sorted(seen["groups"]) == groups
    assert seen["gid"] == [7] * 3


@pytest.mark.row("T17")
def test_groups_while_created(container: Make) -> None:
    one = container("exit", "0", edits={"/process/user": {"uid": 0, "gid": 0, "additionalGids": [10]}})
    one.create(preexec=lambda: os.setgroups([0, 6, 27]))
    (line,) = [text for text in Path(f"/proc/{one.pid}/status").read_text().splitlines() if text.startswith("Groups:")]
    assert line.split()[1:] == ["10"]


# --- T32 ------------------------------------------------------------------------------------------

WRONG = [
    "",
    ".",
    "..",
    "a/b",
    "/",
    "../x",
    "a/../b",
    "a b",
    "a;b",
    "a:b",
    "é",
    "a\nb",
    "a\x7f",
    ".hid",
    "-x",
    "@a",
    "a%b",
]
GOOD = ["a", "A9", "a.b", "a-b", "a_b", "a+b", "_x", "+x", "0", "x" * 100]


@pytest.mark.row("T32")
@pytest.mark.parametrize("ident", [*WRONG, "x" * 256, "x" * 5000], ids=lambda text: repr(text[:12]))
@pytest.mark.parametrize("verb", ["create", "state", "delete --force"])
def test_ids_that_are_not_names(container: Make, box: Box, ident: str, verb: str) -> None:
    """The id becomes the name of a directory and of a cgroup (crun 1.20, 1.28)."""
    if not box.runtime.is_pyrunc and (ident in (".hid", "-x", "@a") or verb != "create"):
        pytest.skip("runc 1.1.5 takes it")
    one = container("exit", "0")
    one.bundle.save()
    box.root.mkdir()
    box.root.chmod(0o700)
    (box.root / "b").mkdir()
    before = tree(box.path)
    word, *flags = verb.split()
    extra = ["--bundle", str(one.bundle.path)] if word == "create" else []
    result = box.runtime.call("--root", str(box.root), word, *flags, *extra, "--", ident)
    (box.root / "b").rmdir() if (box.root / "b").exists() else None
    assert result.rc != 0, result
    if box.runtime.is_pyrunc:
        assert len(result.err.splitlines()) == 1 and "container" in result.err.lower(), result
    after = tree(box.path)
    assert {name: value for name, value in before.items() if name != "root/b"} == after
    assert not box.leftovers()


@pytest.mark.row("T32")
@pytest.mark.parametrize("ident", GOOD, ids=lambda text: text[:12])
def test_ids_that_are_names(container: Make, ident: str) -> None:
    one = container("exit", "0")
    one.id = ident
    one.run()
