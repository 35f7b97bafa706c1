"""`mounts add` in a hostile container: destinations that are links, or are exchanged for one (T06,
T07, T08)."""

from __future__ import annotations

import json
from pathlib import Path

from integration.harness import Container, Result
from integration.security.support import ROUNDS, Make, bind, mountinfo, swapping, tmpfs, tree


def add(one: Container, *entries: object, what: str = "add") -> Result:
    path = one.box.path / "mounts.json"
    path.write_text(json.dumps(entries))
    return one.call("mounts", what, one.id, str(path), check=False)


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
