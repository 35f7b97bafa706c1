"""CRIU's changes to cgroups, in each mode and with both drivers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from integration.checkpoint.support import Counter

Make = Callable[..., Counter]


def host() -> list[str]:
    """The machine's mounts, with the options of cgroup2 that CRIU may change (criu#3029)."""
    return Path("/proc/self/mountinfo").read_text().splitlines()


def position(one: Counter) -> str:
    lines = Path(f"/proc/{one.made.pid}/cgroup").read_text().splitlines()
    return next(line for line in lines if line.startswith("0::"))[3:]


@pytest.mark.parametrize("mode", ["", "ignore", "soft", "full"])
def test_modes(counter: Make, mode: str) -> None:
    """The container is in its cgroup, and the host's mounts are unchanged."""
    if mode == "full" and len(Path("/proc/self/cgroup").read_text().splitlines()) > 1:
        pytest.skip("CRIU restores settings of the machine's v1 hierarchies, and fails, as with runc")
    one = counter()
    flags = ("--manage-cgroups-mode", mode) if mode else ()
    one.mode = mode
    one.run()
    at, mounts = position(one), host()
    one.checkpoint(*flags)
    last = one.numbers[-1]
    one.restore(*flags)
    one.go_on()
    assert one.numbers[0] == last + 1
    assert position(one) == at
    assert str(one.made.pid) in (one.made.cgroup / "cgroup.procs").read_text().split()
    assert mode not in ("", "ignore") or host() == mounts
    one.made.kill("KILL")
    one.made.delete("--force")
    assert one.gone()


def test_the_mode_strict(counter: Make) -> None:
    """CRIU refuses an existing cgroup, and the runtime has already created it."""
    one = counter()
    one.mode = "strict"
    one.run()
    one.checkpoint("--manage-cgroups-mode", "strict")
    assert one.restore("--manage-cgroups-mode", "strict", check=False) == 1
    assert "Abort restore of existing cgroups" in one.err and one.gone()
    one.mode = ""
    one.restore()
    one.go_on()


@pytest.mark.needs_systemd
@pytest.mark.pyrunc_only("names of units are those of pyrunc")
def test_with_systemd(counter: Make) -> None:
    """A restore requests a new scope from systemd."""
    from integration.test_systemd import systemctl

    one = counter()
    made = one.made
    one.globals = ("--systemd-cgroup",)
    made.bundle.config["linux"]["cgroupsPath"] = f"system.slice:{made.box.prefix}:{made.id}"
    unit = f"{made.box.prefix}-{made.id}.scope"
    one.run()
    at, mounts = position(one), host()
    assert unit in at
    for _ in range(2):
        one.checkpoint()
        assert systemctl("is-active", unit, check=False) != "active"
        last = one.numbers[-1]
        one.restore()
        one.go_on()
        assert one.numbers[0] == last + 1 and position(one) == at
        assert systemctl("is-active", unit) == "active"
    assert host() == mounts
    made.kill("KILL")
    made.delete("--force")
    assert systemctl("is-active", unit, check=False) != "active"
