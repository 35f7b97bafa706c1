"""User namespaces: ids inside and outside, and the other differences in containers that have
one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE
from integration.harness import Box, Container, errno_of, wait_until
from integration.test_terminal import Console, read_all

Make = Callable[..., Container]
Refused = Callable[..., None]

HOST, SIZE = 100000, 65536
KINDS = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
MAPS = [{"containerID": 0, "hostID": HOST, "size": SIZE}]
CGROUP = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec"]}


def edits(more: dict[str, Any] | None = None, kinds: list[str] | None = None, **joined: str) -> dict[str, Any]:
    """A new user namespace with MAPS, the namespaces `kinds`, and those joined by path."""
    spaces = [{"type": kind} for kind in [*(KINDS if kinds is None else kinds), "user"] if kind not in joined]
    spaces += [{"type": kind, "path": path} for kind, path in joined.items()]
    return {"/linux/namespaces": spaces, "/linux/uidMappings": MAPS, "/linux/gidMappings": MAPS, **(more or {})}


def own(one: Container, uid: int = HOST) -> Container:
    """Give the directories of a root filesystem (its files are shared with other tests) to the
    container's root."""
    for at, _, _ in os.walk(one.bundle.rootfs):
        os.chown(at, uid, uid)
    return one


@pytest.fixture
def mapped(container: Make) -> Make:
    """``mapped(*actions, more=edits, kinds=..., TYPE=PATH)``: a container in a new user
    namespace."""

    def make(*actions: str, more: dict[str, Any] | None = None, **kwargs: Any) -> Container:
        return own(container(*actions, edits=edits(more, **kwargs)))

    return make


class Pod:
    """A process in a user namespace with MAPS and in the other namespaces of a pod, like a sandbox
    container."""

    def __init__(self, box: Box, *flags: str) -> None:
        command = ["/usr/bin/unshare", "-U", *flags, "--fork", "--kill-child", "/bin/sleep", "600"]
        self.parent = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        box.helpers.add(self.parent.pid)
        host = os.readlink("/proc/self/ns/user")
        wait_until(lambda: os.readlink(f"/proc/{self.parent.pid}/ns/user") != host, "a new user namespace")
        for kind in ("uid", "gid"):
            Path(f"/proc/{self.parent.pid}/{kind}_map").write_text(f"0 {HOST} {SIZE}\n")
        children = Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children")
        self.pid = int(wait_until(lambda: children.read_text().split(), "the pod's process")[0])

    def path(self, name: str) -> str:
        return f"/proc/{self.pid}/ns/{name}"

    def close(self) -> None:
        self.parent.kill()
        self.parent.wait()


@pytest.fixture
def pod(box: Box) -> Iterator[Callable[..., Pod]]:
    """``pod("-n", "-i")``: flags of unshare(1) besides -U."""
    made: list[Pod] = []

    def make(*flags: str) -> Pod:
        made.append(Pod(box, *flags))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- who is who -----------------------------------------------------------------------------------


def test_root_inside_is_another_user_outside(mapped: Make) -> None:
    one = mapped("report", "--", "read", "/proc/self/uid_map", "--", "read", "/proc/self/gid_map")
    one.create()
    assert Path(f"/proc/{one.pid}").stat().st_uid == HOST
    one.start()
    assert one.wait() == 0, one.err
    seen = one.report
    assert seen["uid"] == seen["gid"] == [0, 0, 0]
    assert [item["text"].split() for item in one.objects[1:]] == [["0", str(HOST), str(SIZE)]] * 2
    one.delete()


def test_several_mappings(mapped: Make) -> None:
    maps = [
        {"containerID": 0, "hostID": 100000, "size": 1000},
        {"containerID": 1000, "hostID": 7, "size": 1},
        {"containerID": 5000, "hostID": 200000, "size": 10},
    ]
    more = {"/linux/uidMappings": maps, "/linux/gidMappings": maps[:1], "/process/user": {"uid": 1000, "gid": 500}}
    one = mapped("report", "--", "read", "/proc/self/uid_map", more=more)
    one.create()
    assert Path(f"/proc/{one.pid}").stat().st_uid == 7
    assert Path(f"/proc/{one.pid}").stat().st_gid == 100500
    one.start()
    assert one.wait() == 0, one.err
    assert one.report["uid"] == [1000] * 3
    rows = [line.split() for line in one.objects[1]["text"].splitlines()]
    assert rows == [["0", "100000", "1000"], ["1000", "7", "1"], ["5000", "200000", "10"]]


def test_user_and_groups(mapped: Make) -> None:
    more = {"/process/user": {"uid": 1000, "gid": 1000, "additionalGids": [5, 70]}}
    one = mapped(more=more)
    one.create()
    groups = next(
        line for line in Path(f"/proc/{one.pid}/status").read_text().splitlines() if line.startswith("Groups")
    )
    assert groups.split()[1:] == [str(HOST + 5), str(HOST + 70)]
    one.start()
    assert one.wait() == 0
    seen = one.report
    assert (seen["uid"], sorted(seen["groups"])) == ([1000] * 3, [5, 70])


def test_setgroups_stays_allowed_for_root(mapped: Make) -> None:
    assert mapped("read", "/proc/self/setgroups").run().objects[0]["text"] == "allow\n"


def test_capabilities_are_those_of_the_namespace(mapped: Make, box: Box) -> None:
    names = ["CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_NET_ADMIN", "CAP_CHOWN"]
    sets = dict.fromkeys(("bounding", "effective", "permitted"), names)
    more = {"/process/capabilities": sets}
    one = mapped(
        "mknod", "/dev/new", "c", "1", "3", "--", "open", "/proc/sys/kernel/core_pattern", "w", "--", "sethostname",
        "n", more={**more, "/linux/readonlyPaths": DELETE},
    )  # fmt: skip
    node, core, name = one.run().objects
    assert errno_of(node) == "EPERM", node
    assert errno_of(core) in ("EACCES", "EPERM"), core
    assert not errno_of(name)


# --- the rest of the container --------------------------------------------------------------------


def test_sysctls(mapped: Make) -> None:
    wanted = {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1", "user.max_user_namespaces": "17"}
    host = Path("/proc/sys/user/max_user_namespaces").read_text()
    one = mapped("report", *wanted, more={"/linux/sysctl": wanted})
    if not one.box.runtime.is_pyrunc:
        del one.bundle.config["linux"]["sysctl"]["user.max_user_namespaces"]
    seen = one.run().report["sysctl"]
    assert seen["net.ipv4.ip_forward"] == seen["kernel.shm_rmid_forced"] == "1\n"
    assert not one.box.runtime.is_pyrunc or seen["user.max_user_namespaces"] == "17\n"
    assert Path("/proc/sys/user/max_user_namespaces").read_text() == host


def test_rlimits_and_oom_score(mapped: Make) -> None:
    score = int(Path("/proc/self/oom_score_adj").read_text()) + 11
    limits = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128}, {"type": "RLIMIT_NPROC", "soft": 50, "hard": 60}]
    seen = mapped(more={"/process/rlimits": limits, "/process/oomScoreAdj": score}).run().report
    assert seen["rlimits"]["RLIMIT_NOFILE"] == [64, 128]
    assert seen["oom_score_adj"] == f"{score}\n"


def test_session_keyring_is_found_by_users_of_the_namespace(mapped: Make) -> None:
    kind, _, _, permissions, name = mapped().run().report["keyring"].split(";")
    assert (kind, int(permissions, 16) & 0x8) == ("keyring", 0x8), name


def test_terminal(mapped: Make, box: Box) -> None:
    console = Console(box.path / "pty.sock")
    try:
        one = mapped(more={"/process/terminal": True, "/process/user": {"uid": 1000, "gid": 1000}})
        one.create("--console-socket", str(console.path))
        master = console.receive()
        one.start()
        text = read_all(master)
        one.wait()
    finally:
        console.close()
    assert '"isatty":1' in text.replace(" ", "")


def test_stdio_is_given_to_the_user(mapped: Make) -> None:
    """As far as possible: files owned by the host's root do not change."""
    one = mapped(more={"/process/user": {"uid": 1000, "gid": 1000}})
    one.create()
    assert one.out_file.stat().st_uid in (0, HOST + 1000)
    one.start()
    assert one.wait() == 0


@pytest.mark.parametrize("uid", [0, 1000])
def test_pipes_of_the_foreground_are_the_users(mapped: Make, uid: int) -> None:
    more = {
        "/process/args": ["/bin/sh", "-c", "echo again > /proc/self/fd/1"],
        "/process/user": {"uid": uid, "gid": uid},
    }
    assert mapped(more=more).run().out == "again\n"
    one = mapped("sleep", "600", more={"/process/user": {"uid": uid, "gid": uid}})
    one.create()
    assert one.call("exec", one.id, "/bin/sh", "-c", "echo again > /proc/self/fd/1").out == "again\n"


def test_hooks_see_the_hosts_pid_outside(mapped: Make, box: Box) -> None:
    out = box.path / "state"
    script = box.path / "hook.sh"
    script.write_text(f"#!/bin/sh\ncat > {out}; id -u >> {out}\n")
    script.chmod(0o755)
    one = mapped(more={"/hooks": {"createRuntime": [{"path": str(script), "env": ["PATH=/usr/bin:/bin"]}]}})
    one.create()
    text = out.read_text()
    assert f'"pid":{one.pid}' in text and text.endswith("}0\n"), text
    assert one.state()["pid"] == one.pid


def test_kill_and_delete(mapped: Make) -> None:
    one = mapped("signals", "30", more={"/mounts/-": CGROUP})
    one.create()
    one.start()
    one.wait_output('"ready"')
    one.kill("USR1")
    one.wait_output(f'"number":{int(signal.SIGUSR1)}')
    one.kill("KILL")
    assert one.wait() == 137
    one.delete()


def test_exec_joins_the_user_namespace(mapped: Make, box: Box) -> None:
    one = mapped("signals", "30", more={"/process/user": {"uid": 1000, "gid": 1000}})
    one.create()
    one.start()
    one.wait_output('"ready"')
    result = one.call("exec", one.id, "/probe", "report", "--", "read", "/proc/self/uid_map")
    seen = result.report
    assert seen["uid"] == [1000] * 3
    assert seen["ns"]["user"] == os.readlink(f"/proc/{one.pid}/ns/user")
    assert result.objects[1]["text"].split() == ["0", str(HOST), str(SIZE)]
    assert seen["cgroup"].splitlines()[-1] == "0::/"
    assert "_ses." in seen["keyring"]
    result = one.call("exec", "--user", "0", one.id, "/probe", "report")
    assert result.report["uid"] == [0] * 3
    one.kill("KILL")
    one.wait()


def test_no_mount_namespace_but_a_user_namespace(mapped: Make, box: Box) -> None:
    if not box.runtime.is_pyrunc:
        pytest.skip("runc masks paths by default and refuses")
    more = {"/mounts": [], "/linux/maskedPaths": DELETE, "/linux/readonlyPaths": DELETE, "/linux/devices": DELETE}
    one = mapped("report", more=more, kinds=[kind for kind in KINDS if kind != "mount"])
    result = one.run(check=False)
    assert result.rc != 0 and "/" in result.err, result


@pytest.mark.pyrunc_only("runc keeps no state before its init is ready")
def test_a_killed_runtime_leaves_nothing_that_delete_cannot_remove(mapped: Make, box: Box) -> None:
    hook = [{"path": "/bin/sleep", "args": ["sleep", "30"]}]
    one = mapped(more={"/hooks": {"createRuntime": hook}})
    one.bundle.save()
    argv = box.runtime.argv("--root", str(box.root), "create", "--bundle", str(one.bundle.path), one.id)
    child = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: (box.root / one.id / "state.json").exists() and '"pid": 0' not in
               (box.root / one.id / "state.json").read_text().replace('":0', '": 0'), "an init")  # fmt: skip
    child.kill()
    child.wait()
    one.delete("--force")
    for pid in box.children():
        os.kill(pid, signal.SIGKILL)  # our own hook
    assert not [left for left in box.leftovers() if "process" not in left]


# --- joined namespaces ----------------------------------------------------------------------------


def test_pod_of_a_cri_engine(container: Make, pod: Callable[..., Pod]) -> None:
    """The sandbox's user, network, ipc and uts namespaces by path, together with the mappings."""
    held = pod("-n", "-i", "-u")
    names = {"user": "user", "network": "net", "ipc": "ipc", "uts": "uts"}
    joined = {kind: held.path(name) for kind, name in names.items()}
    changed = edits({"/hostname": DELETE}, None, **joined)
    one = own(container("report", "--", "read", "/proc/self/uid_map", edits=changed))
    result = one.run()
    seen = result.report["ns"]
    for name in names.values():
        assert seen[name] == os.readlink(held.path(name)), name
    assert result.report["uid"] == [0, 0, 0]
    assert result.objects[1]["text"].split() == ["0", str(HOST), str(SIZE)]


@pytest.mark.pyrunc_only("runc 1.1.5 demands mappings and then refuses them")
def test_joined_user_namespace_without_mappings_in_the_config(container: Make, pod: Callable[..., Pod]) -> None:
    held = pod()
    more = {"/linux/uidMappings": DELETE, "/linux/gidMappings": DELETE}
    one = own(container(edits=edits(more, user=held.path("user"))))
    seen = one.run().report
    assert (seen["uid"], seen["ns"]["user"]) == ([0, 0, 0], os.readlink(held.path("user")))


@pytest.mark.pyrunc_only("runc 1.1.5 demands mappings and then refuses them")
@pytest.mark.parametrize("uid", [0, 1000])
def test_pipes_of_an_exec_are_the_users_in_a_namespace_that_is_joined(
    container: Make, pod: Callable[..., Pod], uid: int
) -> None:
    more = {"/linux/uidMappings": DELETE, "/linux/gidMappings": DELETE}
    one = own(container("sleep", "600", edits=edits(more, user=pod().path("user"))))
    one.create()
    script = "echo again > /proc/self/fd/1"
    assert one.call("exec", "--user", f"{uid}:{uid}", one.id, "/bin/sh", "-c", script).out == "again\n"


@pytest.mark.pyrunc_only("runc 1.1.5 does not compare")
def test_joined_user_namespace_with_other_mappings(container: Make, pod: Callable[..., Pod], refused: Refused) -> None:
    held = pod()
    other = [{"containerID": 0, "hostID": HOST + 1, "size": SIZE}]
    one = own(container(edits=edits({"/linux/uidMappings": other}, user=held.path("user"))))
    refused(one.create(check=False), "/linux/uidMappings", f"0 {HOST} {SIZE}", f"0 {HOST + 1} {SIZE}")


@pytest.mark.pyrunc_only("runc 1.1.5 does not compare")
def test_joined_user_namespace_with_the_same_mappings_in_pieces(container: Make, pod: Callable[..., Pod]) -> None:
    held = pod()
    pieces = [
        {"containerID": 1000, "hostID": HOST + 1000, "size": SIZE - 1000},
        {"containerID": 0, "hostID": HOST, "size": 1000},
    ]
    one = own(container(edits=edits({"/linux/uidMappings": pieces}, user=held.path("user"))))
    assert one.run().report["uid"] == [0, 0, 0]


def test_network_of_the_host_owner_joined_by_a_new_user_namespace(mapped: Make, holder: Callable[..., Any]) -> None:
    """Namespaces that the caller owns must be joined before the new user namespace is created."""
    held = holder("network", "uts")
    joined = {kind: held.path(kind) for kind in ("network", "uts")}
    one = mapped("report", more={"/hostname": DELETE, "/mounts/5": DELETE}, **joined)
    seen = one.run().report["ns"]
    assert (seen["net"], seen["uts"]) == (held.ident("network"), held.ident("uts"))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "pointer", "words"),
    [
        ({"/linux/uidMappings": DELETE}, "/linux/uidMappings", "at least one mapping"),
        ({"/linux/gidMappings": []}, "/linux/gidMappings", "at least one mapping"),
        ({"/process/user/uid": SIZE}, "/process/user/uid", "uidMappings"),
        ({"/process/user/gid": SIZE}, "/process/user/gid", "gidMappings"),
    ],
)
def test_mappings_that_cannot_work(
    mapped: Make, refused: Refused, more: dict[str, Any], pointer: str, words: str
) -> None:
    refused(mapped(more=more).create(check=False), pointer, words)


@pytest.mark.pyrunc_only("runc 1.1.5 does not look")
def test_mappings_without_a_user_namespace(container: Make, refused: Refused) -> None:
    refused(container(edits={"/linux/uidMappings": MAPS}).create(check=False), "/linux/uidMappings", "user namespace")
