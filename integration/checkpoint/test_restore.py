"""A container is the same after checkpoint and restore."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.checkpoint import support
from integration.checkpoint.support import Counter, until
from integration.harness import Holder, wait_until
from integration.machine import cgroup2_mount

Make = Callable[..., Counter]
USERNS = {
    "/linux/namespaces/-": {"type": "user"},
    "/linux/uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
    "/linux/gidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}],
}


def both(one: Counter, *flags: str) -> None:
    """Run, checkpoint, restore: the count continues."""
    one.run()
    again(one, *flags)


def again(one: Counter, *flags: str) -> None:
    one.checkpoint(*flags)
    last = one.numbers[-1]
    one.restore(*flags)
    one.go_on()
    assert one.numbers[0] == last + 1


def test_two_rounds(counter: Make) -> None:
    one = counter()
    one.run()
    mounts, names = one.mounts(), one.exec("hostname; cat /proc/1/cmdline")
    host = Path("/proc/self/mountinfo").read_text()
    for _ in range(2):
        one.checkpoint()
        assert one.gone()
        last = one.numbers[-1]
        one.restore()
        one.go_on()
        assert one.numbers[0] == last + 1
        assert one.made.status == "running" and one.made.state()["pid"] == one.made.pid
        assert one.exec("hostname; cat /proc/1/cmdline") == names
        if not one.peer:
            assert one.mounts() == mounts
    assert Path("/proc/self/mountinfo").read_text() == host
    one.made.kill("KILL")
    one.made.delete("--force")


def test_the_descriptors_are_those_of_its_start(counter: Make) -> None:
    one = counter()
    one.run()
    link = os.readlink(f"/proc/{one.made.pid}/fd/1")
    one.checkpoint()
    assert one.descriptors()[:2] == ["/dev/null", link]
    one.restore()
    after = os.readlink(f"/proc/{one.made.pid}/fd/1")
    one.checkpoint()
    assert after != link and one.descriptors()[1] == after


def test_in_the_foreground(counter: Make) -> None:
    one = counter("trap 'echo bye; exit 7' TERM; " + support.COUNT)
    one.run()
    one.checkpoint()
    one.made.bundle.save()
    child = one.spawn("restore", *one.flags(), "--bundle", str(one.made.bundle.path), one.made.id)
    one.go_on()
    child.send_signal(signal.SIGTERM)
    assert child.wait(support.TIMEOUT) == 7
    assert one.out.endswith("bye\n") and one.gone()


def test_leave_running(counter: Make) -> None:
    one = counter()
    one.run()
    one.checkpoint("--leave-running")
    one.go_on()
    assert one.made.status == "running"
    one.made.kill("KILL")
    one.made.delete("--force")
    last = one.numbers[-1]
    one.restore()
    one.go_on()
    assert one.numbers[0] <= last


def test_a_paused_container_stays_paused(counter: Make) -> None:
    """CRI-O pauses the container before the checkpoint."""
    one = counter()
    one.run()
    one.made.call("pause", one.made.id)
    one.checkpoint("--leave-running", "--file-locks")
    assert one.made.status == "paused"
    before = len(one.numbers)
    support.settle(0.3)
    assert len(one.numbers) == before
    one.made.call("resume", one.made.id)
    one.go_on()
    one.made.kill("KILL")
    one.made.delete("--force")
    one.restore()
    one.go_on()


def test_exec_joins(counter: Make) -> None:
    """CRIU restores into a time namespace, which the container did not have before."""
    one = counter()
    both(one)
    spaces = [os.readlink(f"/proc/{one.made.pid}/ns/{name}") for name in ("pid", "mnt", "net", "uts", "ipc", "time")]
    links = one.exec("for n in pid mnt net uts ipc time; do readlink /proc/self/ns/$n; done").split()
    assert links == spaces


@pytest.mark.pyrunc_only("CRIU makes no cgroup namespace in the mode that runc needs on a host with nsdelegate")
def test_the_cgroup_namespace_is_its_own(counter: Make) -> None:
    one = counter()
    both(one)
    assert "0::/\n" in one.exec("cat /proc/self/cgroup")
    assert os.readlink(f"/proc/{one.made.pid}/ns/cgroup") != os.readlink("/proc/self/ns/cgroup")
    assert str(one.made.pid) in (one.made.cgroup / "cgroup.procs").read_text().split()


@pytest.mark.pyrunc_only("runc mounts cgroup2 anew and lets CRIU restore it")
def test_without_a_cgroup_namespace(counter: Make) -> None:
    mount = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro", "nosuid"]}
    one = counter(edits={"/linux/namespaces/5": {"type": "time"}, "/mounts/-": mount})
    one.run()
    mounts = one.mounts()
    again(one)
    assert one.mounts() == mounts


@pytest.mark.pyrunc_only("CRIU, as root of the user namespace, cannot search runc's directory of images")
def test_in_a_user_namespace(counter: Make) -> None:
    one = counter(edits=USERNS)
    subprocess.run(["chown", "-R", "100000:100000", str(one.made.bundle.rootfs)], check=True)
    one.run()
    mounts = one.mounts()
    for _ in range(3):
        again(one)
        assert one.images.stat().st_mode & 0o777 == 0o700 and one.images.stat().st_gid == 0
    maps = Path(f"/proc/{one.made.pid}/uid_map").read_text().split()
    assert maps == ["0", "100000", "65536"]
    assert one.mounts() == mounts


def test_an_external_network_namespace(counter: Make, holder: Callable[..., Holder]) -> None:
    net = holder("network")
    one = counter(edits={"/linux/namespaces/1": {"type": "network", "path": net.path("network")}})
    both(one)
    assert os.readlink(f"/proc/{one.made.pid}/ns/net") == net.ident("network")


def test_bind_mounts(counter: Make, tmp_path: Path) -> None:
    """Bind mounts through a link, nested, from a source that is now missing inside, and of a
    file."""
    inner, outer, file = tmp_path / "inner", tmp_path / "outer", tmp_path / "file"
    for place in (inner, outer):
        place.mkdir()
        (place / "name").write_text(place.name)
    file.write_text("file")
    one = counter()
    (one.made.bundle.rootfs / "real").mkdir()
    os.symlink("/real", one.made.bundle.rootfs / "link")
    one.made.bundle.config["mounts"] += [
        {"destination": "/link/outer", "source": str(outer), "type": "bind", "options": ["bind"]},
        {"destination": "/real/outer/inner", "source": str(inner), "type": "bind", "options": ["rbind", "ro"]},
        {"destination": "/etc/file", "source": str(file), "type": "bind", "options": ["bind", "ro"]},
    ]
    show = "cat /real/outer/name /real/outer/inner/name /etc/file"
    one.run()
    mounts, text = one.mounts(), one.exec(show)
    one.checkpoint()
    os.rmdir(outer / "inner")  # the mount point of the nested bind
    one.restore()
    one.go_on()
    assert one.exec(show) == text == "outerinnerfile"
    if not one.peer:
        assert one.mounts() == mounts


@pytest.mark.pyrunc_only("CRIU loses the flags of the second one")
def test_two_read_only_binds_of_one_filesystem(counter: Make, tmp_path: Path) -> None:
    one = counter()
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        options = ["bind", "ro", "nosuid", "nodev", "noexec"]
        one.made.bundle.config["mounts"].append(
            {"destination": f"/{name}", "source": str(tmp_path / name), "type": "bind", "options": options}
        )
    one.run()
    mounts = one.mounts()
    again(one)
    assert one.mounts() == mounts
    assert "Read-only" in one.exec("touch /a/x 2>&1; touch /b/x 2>&1; touch /c/x 2>&1; true")
    assert not any((tmp_path / name / "x").exists() for name in ("a", "b", "c"))


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A filesystem whose mount is shared, as all are under systemd; binds of it are its slaves."""
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    subprocess.run(["mount", "--make-shared", str(tmp_path)], check=True)
    yield tmp_path
    subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_binds_of_one_shared_filesystem(counter: Make, shared: Path) -> None:
    """They remain slaves: what is mounted below the source later arrives in the container."""
    one = counter()
    for name in ("a", "b"):
        (shared / name).mkdir()
        (shared / name / "name").write_text(name)
    (shared / "file").write_text("f")
    for name, options in (("a", ["bind", "ro"]), ("b", ["rbind"]), ("file", ["bind"])):
        one.made.bundle.config["mounts"].append(
            {"destination": f"/{name}", "source": str(shared / name), "type": "bind", "options": options}
        )
    one.run()
    mounts, masters = one.mounts(), slaves(one)
    assert len(masters) == 3 and len(set(masters)) == 1
    again(one)
    assert slaves(one) == masters
    if not one.peer:
        assert one.mounts() == mounts
    assert one.exec("cat /a/name /b/name /file; touch /b/x; touch /a/x 2>/dev/null || echo ro") == "abfro\n"
    (shared / "b/later").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(shared / "b/later")], check=True)
    (shared / "b/later/name").write_text("later")
    assert one.exec("cat /b/later/name") == "later"


def test_many_binds(counter: Make, shared: Path) -> None:
    """More than there can be open files."""
    one = counter()
    for number in range(300):
        (shared / f"{number}").mkdir()
        bind = {"destination": f"/m/{number}", "source": str(shared / f"{number}"), "type": "bind"}
        one.made.bundle.config["mounts"].append(bind | {"options": ["rbind" if number % 2 else "bind", "ro"]})
    one.run()
    mounts = one.mounts()
    assert len(mounts) > 300
    one.checkpoint()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    one.restore(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (250, hard)))
    one.go_on()
    assert one.mounts() == mounts


def slaves(one: Counter) -> list[str]:
    """The masters of the container's slave mounts."""
    return [mount.shared for mount in one.mountinfo() if mount.shared.startswith("master:")]


@pytest.mark.pyrunc_only("runc does not name the mounts below a recursive bind")
def test_mounts_below_a_recursive_bind(counter: Make, tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
    try:
        (below / "name").write_text("below")
        bind = {"destination": "/data", "source": str(tmp_path), "type": "bind", "options": ["rbind", "rprivate"]}
        one = counter(edits={"/mounts/-": bind})
        both(one)
        assert one.exec("cat /data/below/name") == "below"
        (below / "name").write_text("the same")
        assert one.exec("cat /data/below/name") == "the same"
        one.made.delete("--force")
    finally:
        subprocess.run(["umount", str(below)], check=True)


@pytest.mark.pyrunc_only("runc does not name the mounts below a recursive bind")
def test_recursive_binds_of_what_contains_the_state(counter: Make) -> None:
    """Each copies the mounts below its source, but not what restore has mounted for the others."""
    one = counter()
    above = str(one.made.box.root)
    binds = [
        {"destination": f"/m/{number}", "source": above, "type": "bind", "options": ["rbind", "rprivate"]}
        for number in range(18)
    ]
    one.made.bundle.config["mounts"] += binds
    one.run()
    mounts = one.mounts()
    one.checkpoint()
    one.restore()
    one.go_on()
    assert one.mounts() == mounts
    one.made.delete("--force")


@pytest.mark.needs_controller("pids")
def test_limits(counter: Make) -> None:
    one = counter(edits={"/linux/resources/pids": {"limit": 33}})
    both(one)
    assert (one.made.cgroup / "pids.max").read_text() == "33\n"


def test_the_device_rules(counter: Make) -> None:
    """A rule's denial applies again; mknod is allowed by default."""
    one = counter(edits={"/process/capabilities/bounding/-": "CAP_MKNOD"})
    script = "mknod /tmp/loop b 7 0 2>/dev/null; head -c 1 /tmp/loop 2>&1; head -c 1 /dev/zero | wc -c"
    one.run()
    before = one.exec(script)
    again(one)
    assert one.exec(script) == before
    assert "not permitted" in before and before.endswith("1\n")


def test_another_cgroup(counter: Make) -> None:
    one = counter()
    one.run()
    one.checkpoint()
    path = one.made.bundle.config["linux"]["cgroupsPath"] + "x"
    one.made.bundle.config["linux"]["cgroupsPath"] = path
    one.restore()
    one.go_on()
    root = cgroup2_mount()
    assert root
    assert f"0::{path}" in Path(f"/proc/{one.made.pid}/cgroup").read_text()


def hook(path: Path, kind: str) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", f'echo "{kind} $(cat)" >>{path}']}


def test_hooks(counter: Make, tmp_path: Path) -> None:
    told = tmp_path / "told"
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    one = counter()
    one.made.bundle.config["hooks"] = {kind: [hook(told, kind)] for kind in kinds if "Container" not in kind}
    one.run()
    one.checkpoint()
    assert told.read_text().splitlines()[-1].startswith("poststop ")
    told.write_text("")
    one.restore()
    one.go_on()
    lines = told.read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["prestart", "createRuntime"]
    for line in lines:
        assert f'"pid":{one.made.pid}' in line and one.made.id in line


def test_a_failing_hook(counter: Make) -> None:
    one = counter()
    one.run()
    one.checkpoint()
    one.made.bundle.config["hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    assert one.restore(check=False) != 0
    assert "error running createRuntime hook #0" in one.err
    assert one.gone()
    one.made.bundle.config["hooks"] = {}
    one.restore()
    one.go_on()


def test_the_settings_of_the_annotation(counter: Make, tmp_path: Path) -> None:
    """org.criu.config overrides our settings."""
    settings = tmp_path / "criu.conf"
    settings.write_text("log-file=./other.log\n")
    one = counter(edits={"/annotations/org.criu.config": str(settings)})
    one.run()
    one.checkpoint()
    assert "Dumping finished" in one.log("other.log")
    assert not one.log("dump.log")
    one.restore()
    one.go_on()
    assert "Restore finished" in one.log("other.log")


def test_the_work_directory(counter: Make) -> None:
    one = counter()
    one.run()
    work = one.made.box.path / "work"
    one.checkpoint("--work-path", str(work))
    assert (work / "dump.log").exists() and (work / "stats-dump").exists() and not one.log("dump.log")
    one.restore("--work-path", str(work))
    assert (work / "restore.log").exists()
    assert (one.images / "inventory.img").stat().st_size
    assert one.images.stat().st_mode & 0o777 == (0o600 if one.peer else 0o700)


def receive(server: socket.socket) -> int:
    """Receive the terminal of a container."""
    connection, _ = server.accept()
    with connection:
        _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
    return fds[0]


def test_a_terminal(counter: Make) -> None:
    one = counter("echo ready; while read line; do echo got $line from $(tty); done")
    one.made.bundle.config["process"]["terminal"] = True
    address = one.made.box.path / "console"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        server.settimeout(support.TIMEOUT)
        one.started("run", "--console-socket", str(address))
        master = receive(server)
        until(master, b"ready")
        os.write(master, b"one\n")
        until(master, b"got one from /dev/pts/0")
        for word in (b"two", b"three"):
            one.checkpoint()
            os.close(master)
            one.restore("--console-socket", str(address))
            master = receive(server)
            os.write(master, word + b"\n")
            until(master, b"got " + word + b" from /dev/pts/0")
        os.close(master)


@pytest.mark.pyrunc_only("runc 1.5 has no terminal for it")
def test_a_terminal_in_the_foreground(counter: Make) -> None:
    one = counter("echo ready; while read line; do echo got $line; done; exit 5")
    one.made.bundle.config["process"]["terminal"] = True
    address = one.made.box.path / "console"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(address))
        server.listen()
        one.started("run", "--console-socket", str(address))
        master = receive(server)
        until(master, b"ready")
        one.checkpoint()
        os.close(master)
    ours, theirs = os.openpty()
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    child = one.spawn("restore", *one.flags(), "--bundle", str(one.made.bundle.path), one.made.id, **streams)
    os.close(theirs)
    wait_until(lambda: "Restore finished" in one.log("restore.log"), "restore")
    os.write(ours, b"word\n")
    until(ours, b"got word")
    os.write(ours, b"\x04")
    assert child.wait(support.TIMEOUT) == 5
    os.close(ours)
    assert one.gone()


@pytest.mark.pyrunc_only("has no `mounts`")
def test_added_mounts_are_removed_and_added_again(counter: Make) -> None:
    """A restore knows only config.json; the restored container can get mounts like any other."""
    one = counter()
    source = one.made.box.path / "source"
    source.mkdir()
    (source / "here").touch()
    file = one.made.box.path / "mounts.json"
    file.write_text(json.dumps([{"destination": "/data", "source": str(source), "options": ["bind"]}]))

    def change(verb: str) -> list[str]:
        """Change the mounts; returns the destinations that `state` shows."""
        one.made.call("mounts", verb, one.made.id, str(file))
        text = one.made.state().get("annotations", {}).get("org.pyrunc.mounts", "[]")
        return [entry["destination"] for entry in json.loads(text)]

    one.run()
    assert change("add") == ["/data"]
    assert "`mounts remove`" in one.checkpoint(check=False).err
    assert change("remove") == []
    one.checkpoint()
    one.restore()
    assert "org.pyrunc.mounts" not in one.made.state().get("annotations", {})
    assert change("add") == ["/data"] and one.exec("ls /data") == "here\n"
    assert change("remove") == []
    one.checkpoint()
    one.restore()
    one.go_on()
