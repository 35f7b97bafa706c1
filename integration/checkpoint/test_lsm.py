"""Labels of security modules over a checkpoint, and restores under other labels."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration import selinux, test_apparmor
from integration.checkpoint.support import Counter, environment

Make = Callable[..., Counter]
PROFILE, OTHER_PROFILE = test_apparmor.NAMES
LABEL = "system_u:system_r:container_t:s0:c1,c2"
OTHER_LABEL = "system_u:system_r:container_t:s0:c3"
FILES = "system_u:object_r:container_file_t:s0:c1,c2"
OTHER_FILES = "system_u:object_r:container_file_t:s0:c3"


def label(one: Counter, module: str = "") -> str:
    """The label of the container's first process."""
    path = Path(f"/proc/{one.made.pid}/attr/{module}/current")
    return path.read_bytes().rstrip(b"\0\n").decode()


def again(one: Counter, *flags: str) -> None:
    """Checkpoint and restore: the count continues."""
    one.checkpoint()
    last = one.numbers[-1]
    one.restore(*flags)
    one.go_on()
    assert one.numbers[0] == last + 1


# -- AppArmor --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def profiles() -> Iterator[None]:
    """Two profiles in the kernel."""
    with test_apparmor.loaded():
        yield


@pytest.fixture
def confined(profiles: None, counter: Make) -> Counter:
    """A running container with a profile."""
    one = counter(edits={"/process/apparmorProfile": PROFILE})
    one.run()
    assert label(one, "apparmor") == f"{PROFILE} (enforce)"
    return one


@pytest.mark.needs_apparmor
@pytest.mark.needs_program("apparmor_parser")
def test_the_profile_is_restored(confined: Counter) -> None:
    again(confined)
    assert label(confined, "apparmor") == f"{PROFILE} (enforce)"
    assert confined.exec(test_apparmor.WRITE) == "a: denied\nb: written\n"


@pytest.mark.needs_apparmor
@pytest.mark.needs_program("apparmor_parser")
def test_another_profile(confined: Counter) -> None:
    again(confined, "--lsm-profile", f"apparmor:{OTHER_PROFILE}")
    assert label(confined, "apparmor") == f"{OTHER_PROFILE} (enforce)"


@pytest.mark.needs_apparmor
@pytest.mark.needs_program("apparmor_parser")
@pytest.mark.pyrunc_only("runc waits for CRIU, which waits forever")
def test_a_profile_that_is_not_loaded(confined: Counter) -> None:
    """It is refused, and nothing remains. The images can still be restored."""
    confined.checkpoint()
    assert confined.restore("--lsm-profile", "apparmor:pyrunc-test-c", check=False) == 1
    assert "load it with apparmor_parser first" in confined.err and confined.gone()
    confined.restore()
    confined.go_on()


# -- SELinux ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> None:
    selinux.provide(tmp_path_factory.mktemp("policy"))


@pytest.fixture
def labelled(policy: None, counter: Make) -> Counter:
    """A running container whose processes and mounts have labels."""
    one = counter(edits={"/process/selinuxLabel": LABEL, "/linux/mountLabel": FILES})
    one.run()
    assert (label(one), of_mount(one)) == (LABEL, FILES)
    return one


def of_mount(one: Counter) -> str:
    """The label of a tmpfs in the container."""
    found = os.getxattr(f"/proc/{one.made.pid}/root/dev/shm", "security.selinux")
    return found.rstrip(b"\0").decode()


def keeps_labels() -> bool:
    """Whether CRIU is built with SELinux. Debian's is not."""
    return b"libselinux" in Path(shutil.which("criu", path=environment()["PATH"]) or "/dev/null").read_bytes()


@pytest.mark.needs_selinux
@pytest.mark.needs_program("secilc")
def test_labels_are_restored(labelled: Counter) -> None:
    if not keeps_labels():
        pytest.skip("criu is built without SELinux")
    again(labelled)
    assert (label(labelled), of_mount(labelled)) == (LABEL, FILES)


@pytest.mark.needs_selinux
@pytest.mark.needs_program("secilc")
def test_other_labels(labelled: Counter) -> None:
    """podman restores a copy of a container with the labels of the new one."""
    if not keeps_labels():
        pytest.skip("criu is built without SELinux")
    again(labelled, "--lsm-profile", f"selinux:{OTHER_LABEL}", "--lsm-mount-context", OTHER_FILES)
    assert (label(labelled), of_mount(labelled)) == (OTHER_LABEL, OTHER_FILES)


@pytest.mark.needs_selinux
@pytest.mark.needs_program("secilc")
def test_no_label_is_lost(labelled: Counter) -> None:
    """A CRIU without SELinux does not dump labels. The restore is refused, and possible without
    the label."""
    if keeps_labels():
        pytest.skip("criu is built with SELinux")
    if labelled.peer:  # the processes get the runtime's own label
        again(labelled)
        assert label(labelled) != LABEL
        return
    labelled.checkpoint()
    assert labelled.restore(check=False) == 1
    assert "the checkpoint has no SELinux labels" in labelled.err and LABEL in labelled.err and labelled.gone()
    assert labelled.restore("--lsm-profile", f"selinux:{OTHER_LABEL}", check=False) == 1
    assert "selinux LSM specified but selinux not supported by kernel" in labelled.err and labelled.gone()
    del labelled.made.bundle.config["process"]["selinuxLabel"]
    labelled.restore()
    labelled.go_on()
    assert of_mount(labelled) == FILES
