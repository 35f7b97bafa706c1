"""Flags and propagation of bind mounts: every option on every kind of source, with and without a
user namespace.

runc and crun behave the same unless a test says otherwise.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container
from integration.machine import Mount
from integration.test_mounts import mount, mounted, mounts_of
from integration.test_userns import edits, own

Make = Callable[..., Container]
Refused = Callable[..., None]

FLAGS = ("ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow")
SOURCES: tuple[list[str], ...] = (
    [],
    ["ro"],
    ["nosuid", "nodev", "noexec"],
    ["noatime"],
    ["strictatime"],
    ["nodiratime"],
    ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"],
)


@contextmanager
def source_with(box: Box, flags: list[str]) -> Iterator[Path]:
    """A directory on a mount with these flags, and a nodev mount below it in `inner`."""
    path = box.path / ("source-" + "-".join(flags))
    with ExitStack() as stack:
        stack.enter_context(mounted(path))
        stack.enter_context(mounted(path / "inner", options="nodev"))
        for made in (path, path / "inner"):
            made.chmod(0o755)
        if flags:
            subprocess.run(["mount", "-o", "remount,bind," + ",".join(flags), str(path)], check=True)
        yield path


def flags_of(one: Mount) -> set[str]:
    return set(one.options) & set(FLAGS)


def atimes(flags: list[str]) -> set[str]:
    """The access time mode of a mount with these flags."""
    kept = {name for name in flags if name in ("noatime", "nodiratime")}
    return kept | (set() if {"noatime", "strictatime"} & set(flags) else {"relatime"})


def bound(container: Make, source: Path, cases: list[list[str]], more: dict[str, Any] | None = None) -> list[Mount]:
    """Run one container with a bind for each list of options; return its mounts in this order."""
    one = container("report", edits=more or {})
    for number, options in enumerate(cases):
        one.bundle.config["mounts"].append(mount(f"/m/{number}", str(source), *options))
    if more:
        own(one)
    seen = mounts_of(one.run().report)
    for number in range(len(cases)):
        assert "nodev" in flags_of(seen[f"/m/{number}/inner"])
    return [seen[f"/m/{number}"] for number in range(len(cases))]


@pytest.mark.parametrize("source", SOURCES, ids="-".join)
def test_without_a_flag_the_source_s_are_kept(container: Make, box: Box, source: list[str]) -> None:
    if box.runtime.name == "crun":
        pytest.skip("crun clears all flags of every bind")
    cases = [["rbind"], ["rbind", "defaults"], ["rbind", "rprivate"], ["rbind", "rslave"]]
    with source_with(box, source) as path:
        for seen in bound(container, path, cases):
            assert flags_of(seen) == atimes(source) | (set(source) & set(FLAGS)), seen


NAMED = {
    "rw": set(),
    "ro": {"ro"},
    "nosuid": {"nosuid"},
    "suid": set(),
    "nodev": {"nodev"},
    "dev": set(),
    "noexec": {"noexec"},
    "exec": set(),
    "sync": set(),
    "silent": set(),
    "iversion": set(),
    "nosymfollow": {"nosymfollow"},
}


@pytest.mark.parametrize("source", SOURCES, ids="-".join)
def test_explicit_flags_are_the_whole_truth(container: Make, box: Box, source: list[str]) -> None:
    """Programs on a volume below a noexec /var can be executed. Options about other flags leave the
    access time mode unchanged."""
    options = [name for name in NAMED if box.runtime.name != "crun" or name not in ("ro", "nosymfollow")]
    cases = [["rbind", "rprivate", name] for name in options]
    with source_with(box, source) as path:
        found = bound(container, path, cases)
    assert {name: flags_of(seen) for name, seen in zip(options, found, strict=True)} == {
        name: NAMED[name] | atimes(source) for name in options
    }


@pytest.mark.parametrize("source", SOURCES, ids="-".join)
@pytest.mark.parametrize(
    ("options", "want"),
    [
        (["noatime"], {"noatime"}),
        (["relatime"], {"relatime"}),
        (["strictatime"], set()),
        (["nodiratime"], {"nodiratime", "relatime"}),
        (["noatime", "nodiratime"], {"noatime", "nodiratime"}),
        (["noatime", "relatime"], {"noatime"}),
        (["strictatime", "noatime"], set()),
    ],
    ids=lambda value: "-".join(value),
)
def test_the_access_time_is_one_group(
    container: Make, box: Box, source: list[str], options: list[str], want: set[str]
) -> None:
    with source_with(box, source) as path:
        (seen,) = bound(container, path, [["rbind", *options]])
    assert flags_of(seen) == want


@pytest.mark.pyrunc_only("runc and crun ignore these: config.md refers to mount(8), which takes the mode back")
@pytest.mark.parametrize(
    ("source", "option", "want"),
    [
        (["noatime"], "atime", {"relatime"}),
        (["strictatime"], "atime", set()),
        (["nodiratime"], "atime", {"nodiratime", "relatime"}),
        (["nodiratime"], "diratime", {"relatime"}),
        (["noatime", "nodiratime"], "diratime", {"noatime"}),
        (["strictatime"], "nostrictatime", {"relatime"}),
        (["noatime"], "nostrictatime", {"noatime"}),
        (["noatime"], "norelatime", {"noatime"}),
        ([], "norelatime", {"relatime"}),
    ],
)
def test_an_access_time_taken_back(container: Make, box: Box, source: list[str], option: str, want: set[str]) -> None:
    with source_with(box, source) as path:
        (seen,) = bound(container, path, [["rbind", option]])
    assert flags_of(seen) == want


def test_a_program_in_a_noexec_volume_runs(container: Make, box: Box) -> None:
    """Kubernetes sends these options for a hostPath or an emptyDir."""
    with mounted(box.path / "volume", options="nosuid,nodev,noexec") as volume:
        (volume / "probe").write_bytes((box.template / "probe").read_bytes())
        (volume / "probe").chmod(0o755)
        one = container(edits={"/mounts/-": mount("/mnt", str(volume), "rbind", "rprivate", "rw")})
        one.bundle.config["process"]["args"] = ["/mnt/probe", "report"]
        assert one.run().report["uid"] == [0, 0, 0]


@pytest.mark.parametrize("options", [["ro"], ["noexec", "ro"], []], ids="-".join)
def test_a_remount_replaces_all_flags(container: Make, options: list[str]) -> None:
    first = {"destination": "/mnt", "type": "tmpfs", "source": "t", "options": ["nosuid", "nodev", "noexec"]}
    again = {"destination": "/mnt", "type": "tmpfs", "source": "t", "options": ["remount", *options]}
    one = container("report", edits={"/mounts/-": first})
    one.bundle.config["mounts"].append(again)
    # The peers mount a read-only tmpfs with the flags of the last entry that names them.
    assert flags_of(mounts_of(one.run().report)["/mnt"]) == {"relatime", *options}


# --- in a user namespace --------------------------------------------------------------------------


@pytest.mark.pyrunc_only("crun binds the host's mount, whose flags are not locked, and runc keeps all if one is locked")
@pytest.mark.parametrize("source", SOURCES, ids="-".join)
def test_locked_flags_stay(container: Make, box: Box, source: list[str]) -> None:
    """The kernel locks a mount's flags when a user namespace gets a copy (mount_namespaces(7))."""
    locked = set(source) & set(FLAGS) | atimes(source)
    cases = [["rbind"], ["rbind", "rprivate"], ["rbind", "ro"], ["rbind", "nosuid"], ["rbind", "sync"]]
    with source_with(box, source) as path:
        found = bound(container, path, cases, edits())
    assert [flags_of(seen) for seen in found] == [locked | (set(case) & set(FLAGS)) for case in cases]


def test_locked_flags_that_nobody_named_stay(container: Make, box: Box) -> None:
    if box.runtime.name == "crun":
        pytest.skip("crun binds the host's mount, whose flags are not locked")
    with source_with(box, ["nosuid", "nodev", "noexec"]) as path:
        seen = bound(container, path, [["rbind", "rprivate", "rw"], ["rbind", "ro"]], edits())
    assert [flags_of(one) - {"relatime"} for one in seen] == [
        {"nosuid", "nodev", "noexec"},
        {"ro", "nosuid", "nodev", "noexec"},
    ]


@pytest.mark.parametrize(("flag", "option"), [("ro", "rw"), ("nosuid", "suid"), ("nodev", "dev"), ("noexec", "exec")])
def test_clearing_a_locked_flag_is_an_error(
    container: Make, box: Box, refused: Refused, flag: str, option: str
) -> None:
    if box.runtime.name == "crun":
        pytest.skip("crun binds the host's mount, whose flags are not locked")
    with source_with(box, [flag]) as path:
        one = own(container(edits=edits({"/mounts/-": mount("/mnt", str(path), "rbind", option)})))
        result = one.create(check=False)
    refused(result, "/mounts/6", "mount_setattr", "EPERM", "locked")


@pytest.mark.parametrize("option", ["noatime", "nodiratime", "strictatime"])
def test_changing_a_locked_access_time_is_an_error(container: Make, box: Box, refused: Refused, option: str) -> None:
    if box.runtime.name == "crun":
        pytest.skip("crun binds the host's mount, whose flags are not locked")
    with source_with(box, []) as path:
        one = own(container(edits=edits({"/mounts/-": mount("/mnt", str(path), "rbind", option)})))
        result = one.create(check=False)
    refused(result, "/mounts/6", "mount_setattr", "EPERM", "locked")
