"""process.selinuxLabel and linux.mountLabel on a kernel with SELinux: this machine's, or the
guest's in `make test-selinux`."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from integration import selinux
from integration.harness import Container

pytestmark = [pytest.mark.needs_selinux, pytest.mark.needs_program("secilc")]
Make = Callable[..., Container]
LABEL = "system_u:system_r:container_t:s0:c1,c2"
OTHER = "system_u:system_r:container_t:s0:c3"
FILES = "system_u:object_r:container_file_t:s0:c1,c2"
SHOW = "tr -d '\\0' </proc/self/attr/current; echo"


@pytest.fixture(scope="module", autouse=True)
def _policy(tmp_path_factory: pytest.TempPathFactory) -> None:
    selinux.provide(tmp_path_factory.mktemp("policy"))


def shell(container: Make, *lines: str, label: str = LABEL) -> Container:
    args = ["/bin/sh", "-c", "; ".join(lines)]
    return container(edits={"/process/args": args, "/process/selinuxLabel": label})


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_program_has_the_label(container: Make, no_new_privileges: bool) -> None:
    one = shell(container, SHOW)
    one.bundle.config["process"]["noNewPrivileges"] = no_new_privileges
    assert one.run().out.strip() == LABEL


def test_exec_has_the_containers_label_or_its_own(container: Make) -> None:
    one = shell(container, "sleep 600")
    one.create()
    one.start()
    assert one.call("exec", one.id, "/bin/sh", "-c", SHOW).out.strip() == LABEL
    assert one.call("exec", "--process-label", OTHER, one.id, "/bin/sh", "-c", SHOW).out.strip() == OTHER


def test_the_session_keyring_has_the_label(container: Make) -> None:
    one = container("report", edits={"/process/selinuxLabel": LABEL})
    assert one.run().report["keyring_label"] == LABEL


def test_a_label_that_the_policy_does_not_know(container: Make, refused: Callable[..., None]) -> None:
    one = shell(container, "true", label="system_u:system_r:nobody_t:s0")
    refused(one.create(check=False), "/process/selinuxLabel", "nobody_t", "EINVAL")


@pytest.mark.parametrize("place", ["/dev", "/dev/shm", "/dev/mqueue"])
def test_mounts_have_the_mount_label(container: Make, place: str) -> None:
    one = container("sleep", "600", edits={"/linux/mountLabel": FILES})
    one.create()
    one.start()
    found = os.getxattr(f"/proc/{one.pid}/root{place}", "security.selinux")
    assert found.rstrip(b"\0").decode() == FILES
