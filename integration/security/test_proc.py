"""Writes below /proc, and replacements of /dev/null and of the terminal (T04, T09-T11, T22, T24,
T33)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from integration.harness import Box, Container, Holder, parse_objects
from integration.machine import sysctl_as_it_is
from integration.security.support import Make, Refused, Trace, bind, tmpfs, without_mounts
from integration.test_terminal import Console, read_all


@pytest.fixture
def console(box: Box) -> Iterator[Console]:
    made = Console(box.path / "pty.sock")
    yield made
    made.close()


# --- T04 ------------------------------------------------------------------------------------------


@pytest.mark.row("T04")
@pytest.mark.pyrunc_only("runc 1.1.5 accepts /proc/self/attr, crun all of them")
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
@pytest.mark.parametrize("where", ["/proc", "/proc/self", "/proc/self/attr", "/proc/1", "/alias/self/attr", "/alias"])
def test_nothing_is_mounted_over_proc(container: Make, box: Box, refused: Refused, kind: str, where: str) -> None:
    """CVE-2019-16884: with a volume over /proc the label was written to a file of the image."""
    fake = box.path / "fake"
    fake.mkdir()
    entry = tmpfs(where) if kind == "tmpfs" else bind(where, fake)
    one = container(edits={"/mounts/-": entry})
    (one.bundle.rootfs / "alias").symlink_to("/proc")  # known only after the path is resolved
    index = len(one.bundle.config["mounts"]) - 1
    refused(one.create(check=False), f"/mounts/{index}/destination")


@pytest.mark.row("T04")
def test_files_known_to_be_harmless_may_cover_proc(container: Make, box: Box) -> None:
    fake = box.path / "uptime"
    fake.write_text("1 1")
    assert container("read", "/proc/uptime", edits={"/mounts/-": bind("/proc/uptime", fake)}).run().objects[0][
        "text"
    ] == ("1 1")


# --- T09 ------------------------------------------------------------------------------------------


@pytest.mark.row("T09")
@pytest.mark.pyrunc_only("runc 1.1.5 and crun 1.27 bind whatever stands there")
@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("null", ["link to a file of proc", "link outside", "file", "other device", "none"])
def test_masks_never_show_what_the_image_calls_null(container: Make, box: Box, null: str, bound: bool) -> None:
    """CVE-2025-31133, CVE-2025-62161: the image's /dev/null was bound over the paths to hide."""
    outside = box.path / "outside"
    outside.write_text("of the host")
    one = container(
        *("read", "/m/file", "--", "stat", "/m/file", "--", "read", "/proc/keys", "--", "stat", "/proc/keys"),
        edits={"/linux/maskedPaths": ["/m/file", "/proc/keys"]},
    )
    without_mounts(one, "/dev")
    (one.bundle.rootfs / "m").mkdir()
    (one.bundle.rootfs / "m/file").write_text("secret")
    path = one.bundle.rootfs / "dev/null"
    if bound:  # a volume: the default devices are then not created, and only the masks are left
        (box.path / "volume").mkdir()
        one.bundle.config["mounts"].append(bind("/dev", box.path / "volume"))
        path = box.path / "volume/null"
    if null == "link to a file of proc":
        path.symlink_to("/proc/version")
    elif null == "link outside":
        path.symlink_to(outside)
    elif null == "file":
        path.write_text("a file")
    elif null == "other device":
        os.mknod(path, 0o20666, os.makedev(1, 5))
    result = one.run(check=False)
    if result.rc != 0:
        assert "/dev/null" in result.err and not bound
        return
    read, info, keys, keys_info = result.objects
    assert (read["text"], keys["text"]) == ("", "")
    for item in (info, keys_info):
        assert (item["type"], item["major"], item["minor"]) == ("c", 1, 3)


# --- T10 ------------------------------------------------------------------------------------------


def _start_on(one: Container, console: Console) -> str:
    """Create with a terminal and start; return everything received from it, "" if create failed."""
    if one.create("--console-socket", str(console.path), check=False).rc != 0:
        return ""
    master = console.receive()
    one.start(check=False)
    return read_all(master)


@pytest.mark.row("T10")
@pytest.mark.pyrunc_only("runc 1.1.5 opens the terminal by its name")
@pytest.mark.parametrize("fake", ["file", "link", "null"])
def test_terminal_is_the_masters_own(container: Make, box: Box, console: Console, fake: str) -> None:
    """CVE-2025-52565: the attacker controls /dev/pts/0 while the real terminals are elsewhere."""
    canary = box.path / "canary"
    canary.write_text("untouched")
    one = container("report", edits={"/process/terminal": True})
    without_mounts(one, "/dev")
    one.bundle.config["mounts"].append(
        {
            "destination": "/other",
            "type": "devpts",
            "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
        }
    )
    dev = one.bundle.rootfs / "dev"
    (dev / "ptmx").symlink_to("/other/ptmx")
    (dev / "pts").mkdir()
    for name in ("0", "1"):
        if fake == "file":
            (dev / "pts" / name).write_text("not a terminal")
        elif fake == "link":
            (dev / "pts" / name).symlink_to(canary)
        else:
            os.mknod(dev / "pts" / name, 0o20666, os.makedev(1, 3))
    text = _start_on(one, console)
    assert canary.read_text() == "untouched"
    assert text, "the real terminal is there: it has to be found"
    seen = next(item for item in parse_objects(text) if item["action"] == "report")
    for number in range(3):
        tty = seen["tty"][str(number)]
        assert (tty["type"], tty["major"], tty["isatty"]) == ("c", 136, 1), tty
    node = seen["devices"]["/dev/console"]
    assert (node["type"], node["major"]) == ("c", 136)


@pytest.mark.row("T10")
@pytest.mark.parametrize("fake", ["file", "directory", "zero", "tty", "host"])
def test_multiplexer_of_the_image(container: Make, box: Box, console: Console, fake: str) -> None:
    """/dev/ptmx must be the pty multiplexer; otherwise the container gets no terminal."""
    one = container("report", edits={"/process/terminal": True})
    without_mounts(one, "/dev")
    path = one.bundle.rootfs / "dev/ptmx"
    if fake == "file":
        path.write_text("x")
    elif fake == "directory":
        path.mkdir()
    elif fake == "host":  # the real device, but without a devpts beside it
        os.mknod(path, 0o20666, os.makedev(5, 2))
    else:
        os.mknod(path, 0o20666, os.makedev(1, 5) if fake == "zero" else os.makedev(5, 0))
    assert _start_on(one, console) == ""


@pytest.mark.row("T10")
@pytest.mark.parametrize("kind", ["link", "dangling", "directory", "file"])
def test_console_of_the_image(container: Make, box: Box, console: Console, kind: str) -> None:
    canary = box.path / "canary"
    if kind != "dangling":
        canary.write_text("untouched")
    one = container("report", edits={"/process/terminal": True})
    without_mounts(one, "/dev")
    one.bundle.config["mounts"].append(
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]}
    )
    path = one.bundle.rootfs / "dev/console"
    if kind in ("link", "dangling"):
        path.symlink_to(canary)
    elif kind == "directory":
        path.mkdir()
    else:
        path.write_text("x")
    text = _start_on(one, console)
    assert canary.exists() == (kind != "dangling")
    assert kind == "dangling" or canary.read_text() == "untouched"
    if text:
        seen = next(item for item in parse_objects(text) if item["action"] == "report")
        node = seen["devices"]["/dev/console"]
        assert (node["type"], node["major"]) == ("c", 136)


# --- T11 ------------------------------------------------------------------------------------------

LABELS = [name for name, path in [("apparmor", "/sys/module/apparmor"), ("selinux", "/sys/fs/selinux/enforce")]
          if os.path.exists(path)]  # fmt: skip


@pytest.mark.row("T11")
@pytest.mark.needs_program("strace")
@pytest.mark.pyrunc_only("runc 1.1.5 writes by path")
def test_no_write_below_proc_by_path(container: Make, box: Box) -> None:
    """CVE-2025-52881: labels, sysctls and scores were written to whatever was mounted there by
    then."""
    one = container("exit", "0", edits={"/process/oomScoreAdj": 500, "/linux/sysctl": {"net.ipv4.ip_forward": "1"}})
    if "apparmor" in LABELS:
        one.bundle.config["process"]["apparmorProfile"] = "unconfined"
    trace = Trace(box, "open,openat,openat2,unshare")
    one.run(wrap=trace.wrap)
    lines = trace.lines
    first = next(index for index, line in enumerate(lines) if " unshare(" in line and "CLONE_NEWNS" in line)
    writes = [line for line in lines[first:] if re.search(r'"/proc/.*O_(WRONLY|RDWR)', line)]
    assert not writes, "by absolute path"
    guarded = [line for line in lines if re.search(r"O_WRONLY.*RESOLVE_NO_XDEV.*RESOLVE_BENEATH", line)]
    assert len(guarded) >= 2, "the sysctl and the score were not seen: the trace says nothing"


@pytest.mark.row("T11")
@pytest.mark.pyrunc_only("runc 1.1.5 writes to the file in its place")
def test_a_write_below_proc_crosses_no_mount(container: Make, box: Box, refused: Refused) -> None:
    decoy = box.path / "decoy"
    decoy.write_text("untouched")
    # a file that is the same one in every namespace: those below net/ are not
    script = f'mount --bind {decoy} /proc/sys/kernel/domainname && exec "$@"'
    one = container("exit", "0", edits={"/linux/sysctl": {"kernel.domainname": "x"}})
    wrap = ["/usr/bin/unshare", "-m", "--propagation", "private", "/bin/sh", "-c", script, "sh"]
    refused(one.create(wrap=wrap, check=False), "/linux/sysctl/kernel.domainname", "mounted over it")
    assert decoy.read_text() == "untouched"


# --- T22 ------------------------------------------------------------------------------------------


@pytest.mark.row("T22")
@pytest.mark.parametrize(
    "key",
    [
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4.+kernel.core_pattern",
        "net/ipv4/../../kernel/core_pattern",
        "/net/ipv4/ip_forward",
        "kernel.shm_rmid_forced2",
        "vm.overcommit_memory",
    ],
)
def test_sysctls_of_the_host(container: Make, refused: Refused, key: str) -> None:
    """CVE-2022-0811: a key that looked like part of another one's value set core_pattern."""
    refused(container(edits={"/linux/sysctl": {key: sysctl_as_it_is(key)}}).create(check=False), "/linux/sysctl/")


@pytest.mark.row("T22")
@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("ipc", "kernel.shm_rmid_forced", "1"),
        ("ipc", "fs.mqueue.msg_max", "20"),
        ("network", "net.ipv4.ip_forward", "1"),
        ("uts", "kernel.domainname", "x"),
    ],
)
@pytest.mark.parametrize("how", ["absent", "self", "process", "bound", "link"])
def test_sysctl_of_a_namespace_that_is_the_hosts(
    container: Make, box: Box, refused: Refused, kind: str, key: str, value: str, how: str
) -> None:
    """The runtime's own namespace is recognized by identity and not by name, whatever path leads to
    it."""
    file = {"network": "net"}.get(kind, kind)
    other = box.path / "namespace"
    one = container(edits={"/linux/sysctl": {key: value}})
    one.bundle.config.pop("hostname")
    spaces = one.bundle.config["linux"]["namespaces"]
    at = next(index for index, entry in enumerate(spaces) if entry["type"] == kind)
    if how == "absent":
        del spaces[at]
    else:
        spaces[at]["path"] = f"/proc/self/ns/{file}" if how == "self" else str(other)
    prepare = {
        "process": f"ln -s /proc/$$/task/$$/ns/{file} {other}",
        "link": f"ln -s /proc/$$/ns/{file} {other}",
        "bound": f"touch {other} && mount --bind /proc/$$/ns/{file} {other}",
    }.get(how, ":")
    # In separate namespaces, so that a runtime that allows it does not harm this machine.
    wrap = ["/usr/bin/unshare", "-muni", "--propagation", "slave", "/bin/sh", "-c", f'{prepare} && exec "$@"', "sh"]
    refused(one.create(wrap=wrap, check=False), f"/linux/sysctl/{key}")


@pytest.mark.row("T22")
def test_sysctl_of_a_joined_namespace(container: Make, holder: Callable[..., Holder]) -> None:
    held = holder("network")
    one = container("report", "net.ipv4.ip_forward", edits={"/linux/sysctl": {"net.ipv4.ip_forward": "1"}})
    one.bundle.config["linux"]["namespaces"][1]["path"] = held.path("network")
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    assert one.run().report["sysctl"]["net.ipv4.ip_forward"] == "1\n"
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


# --- T24, T33 -------------------------------------------------------------------------------------


@pytest.mark.row("T24")
@pytest.mark.needs_program("strace")
@pytest.mark.pyrunc_only("about the order of pyrunc's own calls")
def test_procfs_is_opened_before_any_namespace_is_joined(
    container: Make, box: Box, holder: Callable[..., Holder]
) -> None:
    """CVE-2015-1334: a fake /proc inside took the label, and the process ran without one."""
    held = holder("network", "ipc")
    one = container("exit", "0")
    for entry in one.bundle.config["linux"]["namespaces"]:
        if entry["type"] in held.kinds:
            entry["path"] = held.path(entry["type"])
    trace = Trace(box, "open,openat,setns")
    one.run(wrap=trace.wrap)
    first = next(index for index, line in enumerate(trace.lines) if " setns(" in line)
    opened = [index for index, line in enumerate(trace.lines) if re.search(r'"/proc", O_.*PATH', line)]
    assert opened and max(opened) < first, trace.lines


@pytest.mark.row("T24")
@pytest.mark.parametrize("field", ["apparmorProfile", "selinuxLabel"])
def test_a_label_is_applied_or_refused(container: Make, box: Box, refused: Refused, field: str) -> None:
    """A label that cannot be applied is never dropped: the program would run unconfined."""
    if LABELS:
        pytest.skip(f"the machine has {LABELS}: what is refused here would be applied")
    if not box.runtime.is_pyrunc:
        pytest.skip("runc 1.1.5 ignores an SELinux label where SELinux is off")
    refused(container(edits={f"/process/{field}": "some_label"}).create(check=False), f"/process/{field}")


@pytest.mark.row("T33")
@pytest.mark.parametrize("profile", ["unconfined_foo", "unconfined ", " unconfined", "Unconfined", "unconfined\n"])
def test_only_unconfined_is_unconfined(container: Make, refused: Refused, profile: str) -> None:
    """Fixed in crun 1.29.1: a comparison by prefix treated the profile "unconfined_foo" as
    unconfined."""
    refused(container(edits={"/process/apparmorProfile": profile}).create(check=False), "/process/apparmorProfile")


@pytest.mark.row("T33")
def test_unconfined_needs_no_security_module(container: Make) -> None:
    assert container("say", "fine", edits={"/process/apparmorProfile": "unconfined"}).run().out == "fine\n"
