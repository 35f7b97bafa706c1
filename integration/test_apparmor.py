"""process.apparmorProfile on a kernel with AppArmor: this machine's, or the guest's in `make
test-vm`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.harness import TIMEOUT, Container

pytestmark = [pytest.mark.needs_apparmor, pytest.mark.needs_program("apparmor_parser")]
Make = Callable[..., Container]
NAMES = ("pyrunc-test-a", "pyrunc-test-b")
# Allows everything but writes to /tmp/NAME.
PROFILE = """
profile {name} flags=(attach_disconnected,mediate_deleted) {{
  file, capability, network, mount, umount, signal, ptrace, unix, pivot_root, dbus,
  deny /tmp/{name} w,
}}
"""
LABEL = "cat /proc/self/attr/apparmor/current"
WRITE = (
    "for n in a b; do if echo x 2>/dev/null >/tmp/pyrunc-test-$n; then echo $n: written; else echo $n: denied; fi; done"
)


def parser(*args: str) -> None:
    done = subprocess.run(
        ["apparmor_parser", *args], input="".join(map(profile, NAMES)), text=True, capture_output=True, timeout=TIMEOUT
    )
    assert done.returncode == 0, done.stderr


def profile(name: str) -> str:
    return PROFILE.format(name=name)


@contextmanager
def loaded() -> Iterator[None]:
    """Load two profiles into the kernel. The tests run in their own mount namespace, so a mount
    does no harm."""
    if not Path("/sys/kernel/security/apparmor").exists():
        subprocess.run(["mount", "-t", "securityfs", "none", "/sys/kernel/security"], check=True, timeout=TIMEOUT)
    parser("--replace", "--skip-cache")
    yield
    parser("--remove", "--skip-cache")


@pytest.fixture(scope="module", autouse=True)
def _profiles() -> Iterator[None]:
    with loaded():
        yield


def script(container: Make, *lines: str, profile: str = NAMES[0]) -> Container:
    args = ["/bin/sh", "-c", "; ".join(lines)]
    return container(edits={"/process/args": args, "/process/apparmorProfile": profile})


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_program_is_confined(container: Make, no_new_privileges: bool) -> None:
    one = script(container, LABEL, WRITE)
    one.bundle.config["process"]["noNewPrivileges"] = no_new_privileges
    assert one.run().out.splitlines() == ["pyrunc-test-a (enforce)", "a: denied", "b: written"]


def test_unconfined(container: Make) -> None:
    assert script(container, LABEL, WRITE, profile="unconfined").run().out.split()[0] == "unconfined"


def test_exec_is_confined_like_the_container(container: Make) -> None:
    one = script(container, "sleep 600")
    one.create()
    one.start()
    done = one.call("exec", one.id, "/bin/sh", "-c", f"{LABEL}; {WRITE}")
    assert done.out.splitlines() == ["pyrunc-test-a (enforce)", "a: denied", "b: written"]
    other = one.call("exec", "--apparmor", NAMES[1], one.id, "/bin/sh", "-c", f"{LABEL}; {WRITE}")
    assert other.out.splitlines() == ["pyrunc-test-b (enforce)", "a: written", "b: denied"]


def test_a_profile_that_is_not_loaded(container: Make, refused: Callable[..., None]) -> None:
    one = script(container, "true", profile="pyrunc-test-c")
    refused(one.create(check=False), "/process/apparmorProfile", "pyrunc-test-c", "apparmor_parser")


def test_the_label_is_not_written_to_a_file_of_the_container(container: Make) -> None:
    """CVE-2019-16884: a mount over /proc swallowed the label."""
    one = script(container, LABEL)
    fake = one.box.path / "fake"
    (fake / "self/attr/apparmor").mkdir(parents=True)
    for name in ("exec", "current"):
        (fake / "self/attr" / name).write_text("")
        (fake / "self/attr/apparmor" / name).write_text("")
    mount = {"destination": "/proc", "type": "bind", "source": str(fake), "options": ["bind"]}
    one.bundle.config["mounts"].append(mount)
    assert one.run(check=False).rc != 0
    assert not (fake / "self/attr/apparmor/exec").read_text() and not (fake / "self/attr/exec").read_text()
