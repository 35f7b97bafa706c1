"""Rootless containers in scopes of the user's own systemd."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import SLOW, Box, wait_until
from integration.machine import cgroup2_mount, systemd_user
from integration.test_rootless import User, user

__all__ = ["user"]  # a fixture

pytestmark = pytest.mark.needs_program("setpriv")


MIB = 1 << 20
SYSTEMD = "--systemd-cgroup"


@pytest.fixture(params=["its own socket", "the message bus"])
def managed(request: pytest.FixtureRequest, user: Callable[..., User]) -> Callable[..., User]:
    """``managed(resources)``: a user with a systemd instance, reached in one of two ways."""

    def make(resources: dict[str, Any]) -> User:
        uid = systemd_user()
        one = user({"/linux/resources": resources}, uid=uid)
        if request.param == "the message bus":
            one.env["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path=/run/user/{uid}/bus"
        else:
            one.env["XDG_RUNTIME_DIR"] = f"/run/user/{uid}"
        return one

    return make


def told(one: User, *names: str) -> dict[str, str]:
    """Properties of the container's scope, as the user's systemd reports them."""
    user = ["setpriv", f"--reuid={one.uid}", f"--regid={one.uid}", "--clear-groups"]
    argv = [*user, "systemctl", "--user", "show", "-p", ",".join(names), f"{one.box.runtime.name}-{one.id}.scope"]
    env = {**one.env, "XDG_RUNTIME_DIR": f"/run/user/{one.uid}"}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True, timeout=60 * SLOW)
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.mark.needs_systemd
@pytest.mark.needs_systemd_user
def test_life_in_a_scope_of_the_users_systemd(managed: Callable[..., User], box: Box) -> None:
    one = managed({"pids": {"limit": 30}, "memory": {"limit": 64 * MIB}})
    one.bundle.config["process"]["args"] = ["/probe", "signals", "60"]
    out = box.path / "out"
    one.call(SYSTEMD, "create", one.id, out=out)
    pid = one.state()["pid"]
    place = next(text for text in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if text.startswith("0::"))[3:]
    unit = f"{box.runtime.name}-{one.id}.scope"
    assert place == f"/user.slice/user-{one.uid}.slice/user@{one.uid}.service/user.slice/{unit}"
    root = cgroup2_mount()
    assert root
    group = root / place[1:]
    assert {name: (group / name).read_text() for name in ("pids.max", "memory.max")} == {
        "pids.max": "30\n",
        "memory.max": f"{64 * MIB}\n",
    }
    limits = {"TasksMax": "30", "MemoryMax": str(64 * MIB), "ActiveState": "active"}
    assert told(one, *limits) == limits
    one.call("start", one.id)
    wait_until(lambda: '"ready"' in out.read_text(), "the program")
    inside = one.call("exec", one.id, "/probe", "report").report["cgroup"].splitlines()[-1]
    assert inside == "0::/" or not box.runtime.is_pyrunc, "runc 1.1.5 leaves an exec of a user where its caller is"
    one.call("update", "--pids-limit", "31", one.id)
    wait_until(lambda: told(one, "TasksMax") == {"TasksMax": "31"}, "systemd knows the new limit")
    assert (group / "pids.max").read_text() == "31\n"
    one.call("pause", one.id)
    assert one.state()["status"] == "paused"
    one.call("resume", one.id)
    one.call("kill", one.id, "KILL")
    wait_until(lambda: one.state()["status"] == "stopped", "its end")
    one.call("delete", one.id)
    assert not group.exists()
    wait_until(lambda: told(one, "ActiveState") == {"ActiveState": "inactive"}, "the scope is gone")


@pytest.mark.needs_systemd
@pytest.mark.needs_systemd_user
def test_run_in_a_scope_of_the_users_systemd(managed: Callable[..., User]) -> None:
    """The limit takes effect, and delete removes everything."""
    one = managed({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})
    one.bundle.config["process"]["args"] = ["/bin/tail", "-n", "1", "/dev/zero"]
    result = one.call(SYSTEMD, "run", one.id, check=False)
    assert result.rc == 137, result
    wait_until(lambda: told(one, "ActiveState") == {"ActiveState": "inactive"}, "the scope is gone")
    one.bundle.config["process"]["args"] = ["/probe", "fork", "40", "--", "report"]
    one.bundle.config["linux"]["resources"] = {"pids": {"limit": 5}}
    result = one.call(SYSTEMD, "run", one.id)
    assert result.objects[-1]["cgroup"].splitlines()[-1] == "0::/", result
