"""`mounts add` and `mounts remove` in a hostile container (T42): destinations that are links, or are
exchanged for one, and whatever else it can do to the process that mounts."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from integration.harness import Box, Container, Result
from integration.security.support import ROUNDS, Make, Trace, bind, mountinfo, swapping, tmpfs, tree

pytestmark = pytest.mark.pyrunc_only("crun's verb is an experiment, and runc has none")
NEEDED = {"CAP_SYS_ADMIN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER"}


def add(one: Container, *entries: object, what: str = "add") -> Result:
    path = one.box.path / "mounts.json"
    path.write_text(json.dumps(entries))
    return one.call("mounts", what, one.id, str(path), check=False)


def started(container: Make) -> Container:
    one = container("sleep", "600")
    one.create()
    one.start()
    return one


def inside(one: Container) -> list[str]:
    """The mounts of the container: mount point, type and source."""
    lines = Path(f"/proc/{one.pid}/mountinfo").read_text().splitlines()
    return [f"{line.split()[4]} {line.partition(' - ')[2]}" for line in lines]


@pytest.mark.row("T42")
@pytest.mark.row("T08")
def test_a_link_leads_to_a_place_inside(container: Make, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    one = container("sleep", "600")
    (one.bundle.rootfs / "link").symlink_to(outside)
    (one.bundle.rootfs / "up").symlink_to("../../../../../../../.." + str(outside))
    one.create()
    one.start()
    host = mountinfo()
    assert add(one, tmpfs("/link/one"), bind("/up/two", "/usr")).rc == 0
    assert tree(outside) == {} and mountinfo() == host
    inside = Path(f"/proc/{one.pid}/mountinfo").read_text()
    assert f" {outside}/one " in inside and f" {outside}/two " in inside


@pytest.mark.row("T42")
@pytest.mark.row("T06")
def test_a_destination_that_is_exchanged_for_a_link(container: Make, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    one = container("sleep", "600")
    place, link = one.bundle.rootfs / "place", one.bundle.rootfs / "link"
    place.mkdir()
    link.symlink_to(outside)
    one.create()
    one.start()
    host, before = mountinfo(), tree(outside)
    with swapping(place, link):
        for _ in range(10 * ROUNDS):
            add(one, tmpfs("/place/deep"), tmpfs("/place/deep/deeper"))
            add(one, {"destination": "/place/deep/deeper"}, {"destination": "/place/deep"}, what="remove")
    assert tree(outside) == before and mountinfo() == host


@pytest.mark.row("T42")
@pytest.mark.needs_program("strace")
@pytest.mark.parametrize("what", ["add", "remove"])
def test_order_of_entering(container: Make, box: Box, what: str) -> None:
    """Not dumpable before it joins a namespace, never in the pid namespace, and with few
    capabilities when it looks at a path of the container."""
    one = started(container)
    if what == "remove":
        add(one, tmpfs("/place"))
    trace = Trace(box, "prctl,setns,capset,move_mount,umount2,clone,clone3,fork,vfork")
    path = one.box.path / "mounts.json"
    path.write_text(json.dumps([tmpfs("/place")]))
    one.call("mounts", what, one.id, str(path), wrap=tuple(trace.wrap))
    lines = trace.lines
    joins = [index for index, line in enumerate(lines) if " setns(" in line]
    guards = [index for index, line in enumerate(lines) if "PR_SET_DUMPABLE, SUID_DUMP_DISABLE" in line]
    acts = [index for index, line in enumerate(lines) if " move_mount(" in line or " umount2(" in line]
    assert guards and guards[0] < joins[0], "it can be traced"
    assert not [line for line in lines if "CLONE_NEWPID" in line], "it enters the pid namespace"
    (changes,) = [index for index, line in enumerate(lines) if " capset(" in line and joins[-1] < index < acts[0]]
    effective = re.findall(r"1<<(CAP_\w+)", re.findall(r"effective=([^,]*)", lines[changes])[0])
    permitted = re.findall(r"1<<(CAP_\w+)", re.findall(r"permitted=([^,]*)", lines[changes])[0])
    assert set(effective) == set(permitted) == NEEDED, "more than it needs"


@pytest.mark.row("T42")
@pytest.mark.row("T04")
@pytest.mark.parametrize("destination", ["/", "/proc/sys", "/proc", "/link"])
def test_nothing_covers_the_root_or_proc(container: Make, destination: str) -> None:
    one = container("sleep", "600")
    (one.bundle.rootfs / "link").symlink_to("/proc/sys")
    one.create()
    one.start()
    before, host = inside(one), mountinfo()
    result = add(one, tmpfs("/first"), tmpfs(destination))
    assert result.rc != 0, f"{destination} was accepted"
    assert inside(one) == before and mountinfo() == host, "half of it stays"


@pytest.mark.row("T42")
def test_all_or_none(container: Make) -> None:
    """The first mount disappears with the failure of the second one, and nothing is recorded."""
    one = started(container)
    before = inside(one)
    for _ in range(3):
        assert add(one, tmpfs("/first"), tmpfs("/etc/passwd")).rc != 0
        assert inside(one) == before, "half of it stays"
    assert "org.pyrunc.mounts" not in one.state().get("annotations", {})


@pytest.mark.row("T42")
def test_only_what_was_added_is_removed(container: Make) -> None:
    """The container has unmounted it, so that a mount of the configuration is there instead."""
    one = container("sleep", "600", edits={"/mounts/-": tmpfs("/data", "size=64k")})
    one.create()
    one.start()
    before = inside(one)
    assert add(one, {"destination": "/data"}, what="remove").rc != 0, "the configuration's was removed"
    assert add(one, tmpfs("/data", "size=32k")).rc == 0
    subprocess.run(["nsenter", "-t", str(one.pid), "-m", "umount", "/data"], check=True)
    assert inside(one) == before
    assert add(one, {"destination": "/data"}, what="remove").rc == 0
    assert inside(one) == before, "the configuration's was removed"


@pytest.mark.row("T42")
@pytest.mark.row("T38")
def test_no_mount_reaches_the_host(container: Make, box: Box) -> None:
    """The mount that is bound is shared on the host; one inside it stays in the container."""
    volume = box.path / "volume"
    volume.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(volume)], check=True)
    try:
        subprocess.run(["mount", "--make-rshared", str(volume)], check=True)
        (volume / "inside").mkdir()
        one = started(container)
        host = mountinfo()
        for options in ((), ("rprivate",), ("rslave",), ("rshared",)):
            place = "/in" + "".join(options)
            assert add(one, bind(place, volume, *options), tmpfs(f"{place}/inside")).rc == 0
        assert mountinfo() == host, "a mount of the container"
    finally:
        subprocess.run(["umount", "-l", str(volume)], check=True)
