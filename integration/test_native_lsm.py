"""APPARMOR, SELINUX, KEY_LABEL and MOUNT_LABEL on a kernel without the module: the files that they
write, and the errors that they report."""

from __future__ import annotations

from pathlib import Path

import pytest

from integration.native_fs import Script, failure, skip_marks
from pyrunc.plan import ops

pytest_plugins = ["integration.native_fs"]
ATTR = Path("/proc/self/attr")
pytestmark = [
    *skip_marks,
    pytest.mark.skipif(Path("/sys/fs/selinux").is_dir(), reason="SELinux is on: test_selinux.py"),
    pytest.mark.skipif((ATTR / "apparmor").is_dir(), reason="AppArmor is on: test_apparmor.py"),
    pytest.mark.skipif(not (ATTR / "exec").exists(), reason="a kernel without security modules"),
]
LABEL = "system_u:system_r:container_t:s0:c1,c2"


def test_labels_of_the_next_program(begun: Script) -> None:
    """attr/exec exists nevertheless, but rejects every write: EINVAL (fs/proc/base.c,
    proc_pid_attr_write)."""
    tried = [
        begun.refused("selinux", label=LABEL),
        begun.refused("apparmor", profile="profile"),
        begun.refused("key_label", label=LABEL),
        begun.refused("key_label", label=""),
    ]
    answers = begun.run()
    files = ["exec", "exec", "keycreate", "keycreate"]
    for number, name in zip(tried, files, strict=True):
        errno, call, arg, _, detail = failure(answers[number])
        assert (errno, call, arg) == ("EINVAL", "write", 0)
        assert detail == f"`/proc/thread-self/attr/{name}`: the security module refuses this label"


def test_profile_whose_name_is_too_long(begun: Script) -> None:
    tried = begun.refused("apparmor", profile="p" * 5000)
    assert failure(begun.run()[tried])[:3] == ("ENAMETOOLONG", "write", 0)


@pytest.mark.parametrize("op", ["selinux", "apparmor", "key_label"])
def test_covered_file(begun: Script, op: str) -> None:
    """A file mounted over the one in the private procfs would swallow the label
    (CVE-2025-52881)."""
    begun.ask("procfd", "/proc")
    for name in ("exec", "keycreate"):
        begun.ask("mount", "/dev/null", f"/proc/thread-self/attr/{name}", "", 4096, "")
    tried = begun.refused(op, **{"profile" if op == "apparmor" else "label": "x"})
    errno, call = failure(begun.run()[tried])[:2]
    assert (errno, call) == ("EXDEV", "openat2")


def test_mount_label(begun: Script, root: Path) -> None:
    begun.op("mount", fstype="tmpfs", source="tmpfs", dest="/inside")
    begun.op("mount_label", dest="/inside", label=LABEL)
    begun.op("pivot")
    seen = begun.ask("xattr", "/inside", "security.selinux")
    assert begun.run()[seen].rstrip("\0") == LABEL


def test_mount_label_of_nothing(begun: Script, root: Path) -> None:
    (root / "link").symlink_to("/proc")
    tried = [begun.refused("mount_label", dest=dest, label=LABEL) for dest in ("/nowhere", "/link")]
    answers = begun.run()
    assert [failure(answers[number])[:3] for number in tried] == [("ENOENT", "openat2", 0)] * 2


def test_mount_label_that_is_not_taken(begun: Script) -> None:
    begun.op("mount", policy=ops.P_MOUNT_PLAIN_DIR, fstype="proc", source="proc", dest="/proc")
    tried = begun.refused("mount_label", dest="/proc", label=LABEL)
    errno, call, arg, _, detail = failure(begun.run()[tried])
    assert (errno, call, arg, detail) == ("EOPNOTSUPP", "fsetxattr", 1, "security.selinux")
