"""Containers of a user other than root: with the user's own id or with subordinate ids, with and
without a cgroup."""

from __future__ import annotations

import copy
import json
import os
import signal
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE, edit
from integration.harness import SLOW, Box, Bundle, Container, Result, wait_until
from integration.machine import cgroup2_mount, controllers

UID = 43210  # also the group id
FIRST, COUNT = 600000, 65536
Make = Callable[..., Container]
Refused = Callable[..., None]
pytestmark = pytest.mark.needs_program("newuidmap", "setpriv")


def own_ids(uid: int) -> dict[str, Any]:
    """Mappings of a single id, which is also the group's."""
    return {kind: [{"containerID": 0, "hostID": uid, "size": 1}] for kind in ("uid", "gid")}


OWN = own_ids(UID)
SUBORDINATE = {
    kind: [{"containerID": 0, "hostID": UID, "size": 1}, {"containerID": 1, "hostID": FIRST, "size": COUNT - 1}]
    for kind in ("uid", "gid")
}


@pytest.fixture
def etc(box: Box) -> Iterator[None]:
    """A user with subordinate ids, in the mount namespace of the tests only: newuidmap looks up the
    name."""
    made = box.path / "etc"
    made.mkdir()
    texts = {
        "/etc/passwd": Path("/etc/passwd").read_text() + f"pyrunctest:x:{UID}:{UID}::/:/bin/sh\n",
        "/etc/subuid": f"pyrunctest:{FIRST}:{COUNT}\n",
        "/etc/subgid": f"pyrunctest:{FIRST}:{COUNT}\n",
    }
    covered = []
    try:
        for target, text in texts.items():
            if not os.path.exists(target):
                pytest.skip(f"no {target} to cover")
            file = made / Path(target).name
            file.write_text(text)
            file.chmod(0o644)
            subprocess.run(["mount", "--bind", str(file), target], check=True)
            covered.append(target)
        yield
    finally:
        for target in covered:
            subprocess.run(["umount", target], check=True)


class User:
    """An unprivileged user with a runtime directory, a bundle, and a method to run commands."""

    def __init__(self, box: Box, spec: dict[str, Any] | None = None, ids: dict[str, Any] = OWN, uid: int = UID) -> None:
        self.box, self.uid = box, uid
        self.home = box.path / "home"
        self.home.mkdir()
        self.env = {"PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": str(self.home / "run"), "USER": "pyrunctest"}
        (self.home / "run").mkdir()
        self.bundle: Bundle = box.bundle()
        self.bundle.path.rename(self.home / "bundle")
        self.bundle.path = self.home / "bundle"
        self.bundle.rootfs = self.home / "bundle/rootfs"
        for at, _, _ in os.walk(self.home):
            os.chown(at, uid, uid)
        config = self.bundle.config
        linux = config["linux"]
        # As in `spec --rootless`.
        linux["namespaces"] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup", "user")]
        mapped = copy.deepcopy(ids if uid == UID else own_ids(uid))
        linux["uidMappings"], linux["gidMappings"] = mapped["uid"], mapped["gid"]
        for name in ("cgroupsPath", "resources"):
            linux.pop(name)
        for mount in config["mounts"]:
            mount["options"] = [
                option for option in mount["options"] if ids is not OWN or not option.startswith("gid=")
            ]
        if not box.runtime.is_pyrunc:  # pyrunc falls back to this if a sysfs cannot be mounted
            options = ["rbind", "nosuid", "noexec", "nodev", "ro"]
            config["mounts"][5] = {"destination": "/sys", "type": "none", "source": "/sys", "options": options}
        edit(config, spec or {})
        self.id = box.prefix + "u"
        self.cgroup: Path | None = None  # the cgroup in which commands start
        self.extra: list[str] = []  # arguments before the runtime's command line

    def argv(self, *args: str) -> list[str]:
        ids = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups", "--inh-caps=-all"]
        enter = []
        if self.cgroup:
            enter = ["/bin/sh", "-c", f'echo $$ > {self.cgroup}/cgroup.procs && exec "$@"', "sh"]
        runtime = self.box.runtime
        return [*runtime.prefix, *enter, *ids, *self.extra, runtime.path, *args]

    def call(self, *args: str, check: bool = True, out: Path | None = None) -> Result:
        """Run the runtime as the user; `out` keeps the container's stdout."""
        self.bundle.save()
        os.chown(self.bundle.path / "config.json", self.uid, self.uid)
        # Files, not pipes: a container that was only created keeps them open.
        with tempfile.TemporaryFile() as own, tempfile.TemporaryFile() as errors, open(out or os.devnull, "ab") as kept:
            done = subprocess.run(
                self.argv(*args),
                cwd=self.bundle.path,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=kept if out else own,
                stderr=errors,
                timeout=20 * SLOW,
                check=False,
            )
            own.seek(0)
            errors.seek(0)
            text, words = own.read().decode(), errors.read().decode()
        result = Result(self.argv(*args), done.returncode, text, words, 0.0)
        if check:
            assert result.rc == 0, result
        return result

    def run(self, *actions: str, check: bool = True) -> Result:
        if actions:
            self.bundle.config["process"]["args"] = ["/probe", *actions]
        return self.call("run", self.id, check=check)

    def state(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.call("state", self.id).out)
        return loaded

    def close(self) -> None:
        self.cgroup = None
        self.extra = []
        result = self.call("delete", "--force", self.id, check=False)
        assert result.rc == 0, result


@pytest.fixture
def user(box: Box) -> Iterator[Callable[..., User]]:
    """``user(edits, ids=SUBORDINATE)``: deletes its container afterwards."""
    made: list[User] = []
    probe = subprocess.run(
        ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "test", "-x", box.runtime.path], check=False
    )
    if probe.returncode:
        pytest.skip(f"users cannot reach {box.runtime.path}: a directory above it is closed to them")

    def make(spec: dict[str, Any] | None = None, **kwargs: Any) -> User:
        made.append(User(box, spec, **kwargs))
        return made[-1]

    yield make
    for one in made:
        one.close()


def is_empty(cgroup: Path) -> bool:
    return not (cgroup / "cgroup.procs").read_text()


@pytest.fixture
def delegated(box: Box) -> Iterator[Path]:
    """A cgroup that belongs to the user, with a child for the commands themselves."""
    root = cgroup2_mount()
    if root is None:
        pytest.skip("no cgroup2 mount")
    top = root / f"{box.prefix}delegated"
    top.mkdir()
    (top / "session").mkdir()
    box.own_cgroups |= {top, top / "session"}
    for place in (top, top / "session"):
        for name in (".", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
            os.chown(place / name, UID, UID)
    try:
        yield top
    finally:
        for place in (top / "session", top):
            wait_until(partial(is_empty, place), "the cgroup to empty")
            place.rmdir()


# --- without anything -----------------------------------------------------------------------------


def test_own_id_alone(user: Callable[..., User]) -> None:
    """The runtime needs no helper, and setgroups is denied (T18)."""
    one = user()
    result = one.run("report", "--", "read", "/proc/self/uid_map", "--", "read", "/proc/self/setgroups")
    assert result.report["uid"] == [0, 0, 0]
    texts = [item["text"].split() for item in result.objects[1:]]
    assert texts == [["0", str(UID), "1"], ["deny"]]


def test_whole_life(user: Callable[..., User], box: Box) -> None:
    one = user()
    one.bundle.config["process"]["args"] = ["/probe", "signals", "30"]
    out = box.path / "out"
    one.call("create", one.id, out=out)
    state = one.state()
    assert state["status"] == "created"
    assert Path(f"/proc/{state['pid']}").stat().st_uid == UID
    root = one.home / "run" / box.runtime.name
    assert (root / one.id).is_dir()
    if box.runtime.is_pyrunc:
        assert stat.S_IMODE(root.stat().st_mode) == 0o1700
    one.call("start", one.id)
    wait_until(lambda: '"ready"' in out.read_text(), "the program")
    assert one.call("exec", one.id, "/probe", "report").report["uid"] == [0, 0, 0]
    if box.runtime.is_pyrunc:  # runc gets its processes from a cgroup
        assert json.loads(one.call("ps", "-f", "json", one.id).out) == [state["pid"]]
    assert one.id in one.call("list", "-q").out
    one.call("kill", one.id, "USR1")
    wait_until(lambda: f'"number":{int(signal.SIGUSR1)}' in out.read_text(), "the signal")
    one.call("kill", one.id, "KILL")
    wait_until(lambda: one.state()["status"] == "stopped", "its end")
    one.call("delete", one.id)
    assert not (root / one.id).exists()


def test_devices_and_files(user: Callable[..., User], box: Box) -> None:
    one = user()
    result = one.run("report", "--", "write", "/dev/null", "x", "--", "mkdir", "/made", "--", "stat", "/etc")
    devices = result.report["devices"]
    assert (devices["/dev/null"]["major"], devices["/dev/null"]["minor"]) == (1, 3)
    assert [item["errno"] for item in result.objects[1:3]] == [0, 0]
    assert result.objects[3]["uid"] == 0
    assert (one.bundle.rootfs / "made").stat().st_uid == UID


@pytest.mark.pyrunc_only("the hint is pyrunc's")
def test_without_a_user_namespace(user: Callable[..., User]) -> None:
    one = user({"/linux/uidMappings": DELETE, "/linux/gidMappings": DELETE})
    one.bundle.config["linux"]["namespaces"].pop()
    result = one.run(check=False)
    assert result.rc == 1
    assert "/linux/namespaces: expected a user namespace" in result.err
    assert "spec --rootless" in result.err


def test_spec_rootless_runs(user: Callable[..., User], box: Box) -> None:
    one = user()
    (one.bundle.path / "config.json").unlink(missing_ok=True)
    argv = one.argv("spec", "--rootless")
    subprocess.run(argv, cwd=one.bundle.path, env=one.env, check=True, timeout=20)
    config = json.loads((one.bundle.path / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/probe", "report"]}
    one.bundle.config = config
    assert one.run().report["uid"] == [0, 0, 0]


@pytest.mark.pyrunc_only("the hint is pyrunc's")
def test_no_directory_for_the_state(user: Callable[..., User]) -> None:
    one = user()
    del one.env["XDG_RUNTIME_DIR"]
    result = one.run(check=False)
    assert (result.rc, "XDG_RUNTIME_DIR is not set" in result.err) == (1, True), result
    one.env["XDG_RUNTIME_DIR"] = str(one.home / "run")


@pytest.mark.pyrunc_only("runc lowers nothing and says nothing")
def test_oom_score_as_far_as_it_goes(user: Callable[..., User]) -> None:
    score = int(Path("/proc/self/oom_score_adj").read_text())
    one = user({"/process/oomScoreAdj": score - 10})
    result = one.run()
    assert result.report["oom_score_adj"] == f"{score}\n"
    assert "stays the caller's" in result.err or not result.err


@pytest.mark.pyrunc_only("the words are pyrunc's")
def test_raising_a_limit_is_explained(user: Callable[..., User]) -> None:
    one = user({"/process/rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1 << 30, "hard": 1 << 30}]})
    result = one.run(check=False)
    assert result.rc == 1 and "/process/rlimits/0" in result.err and "CAP_SYS_RESOURCE" in result.err, result


def test_additional_groups_need_newgidmap(user: Callable[..., User]) -> None:
    one = user({"/process/user/additionalGids": [0]})
    result = one.run(check=False)
    assert result.rc == 1
    if one.box.runtime.is_pyrunc:
        assert "/process/user/additionalGids" in result.err and "newgidmap" in result.err


@pytest.mark.pyrunc_only("runc 1.1.5 has no idmapped mounts")
def test_no_idmapped_mounts(user: Callable[..., User]) -> None:
    entry = {"destination": "/mnt", "type": "bind", "source": "/tmp", "options": ["bind", "idmap"]}
    result = user({"/mounts/-": entry}).run(check=False)
    assert result.rc == 1 and "requires root on the host" in result.err, result


# --- subordinate ids ------------------------------------------------------------------------------


def test_subordinate_ids(user: Callable[..., User], etc: None, box: Box) -> None:
    groups = [5] if box.runtime.is_pyrunc else []  # runc rejects supplementary groups in a rootless container
    one = user({"/process/user": {"uid": 1000, "gid": 1000, "additionalGids": groups}}, ids=SUBORDINATE)
    result = one.run("report", "--", "read", "/proc/self/uid_map")
    assert (result.report["uid"], result.report["groups"]) == ([1000] * 3, groups)
    rows = [line.split() for line in result.objects[1]["text"].splitlines()]
    assert rows == [["0", str(UID), "1"], ["1", str(FIRST), str(COUNT - 1)]]


@pytest.mark.pyrunc_only("the words are pyrunc's")
def test_ids_of_other_users_are_refused(user: Callable[..., User], etc: None) -> None:
    foreign = {
        kind: [{"containerID": 0, "hostID": 700000, "size": 10}, {"containerID": 10, "hostID": 0, "size": 1}]
        for kind in ("uid", "gid")
    }
    one = user(ids=foreign)
    result = one.run(check=False)
    assert result.rc == 1
    assert len(result.err.splitlines()) == 1, result
    assert "/linux/gidMappings" in result.err and "newgidmap" in result.err and "/etc/subgid" in result.err, result
    assert not os.listdir(one.home / "run" / "pyrunc")


@pytest.mark.pyrunc_only("runc 1.1.5 looks in PATH")
def test_helpers_are_not_looked_up_in_path(user: Callable[..., User], etc: None) -> None:
    """T36: a helper of that name in the caller's PATH is not executed."""
    one = user(ids=SUBORDINATE)
    mark = one.home / "run/was-run"
    for name in ("newuidmap", "newgidmap"):
        fake = one.home / name
        fake.write_text(f"#!/bin/sh\ntouch {mark}\nexit 1\n")
        fake.chmod(0o755)
    one.env["PATH"] = f"{one.home}:{one.env['PATH']}"
    assert one.run().report["uid"] == [0, 0, 0]
    assert not mark.exists()


@pytest.mark.pyrunc_only("the words are pyrunc's")
def test_without_the_helpers(user: Callable[..., User], etc: None) -> None:
    one = user(ids=SUBORDINATE)
    covers = [path for path in ("/usr/bin/newuidmap", "/usr/bin/newgidmap") if os.path.exists(path)]
    moved = []
    try:
        for path in covers:  # in the mount namespace of the tests
            subprocess.run(["mount", "--bind", "/dev/null", path], check=True)
            moved.append(path)
        result = one.run(check=False)
    finally:
        for path in moved:
            subprocess.run(["umount", path], check=True)
    assert result.rc == 1
    assert "gidMappings" in result.err, result


# --- cgroups --------------------------------------------------------------------------------------


@pytest.mark.pyrunc_only("runc 1.1.5 says so only with --debug")
def test_without_delegation_it_stays_in_the_callers_cgroup(user: Callable[..., User], box: Box) -> None:
    one = user()
    own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    one.bundle.config["linux"]["namespaces"] = [
        entry for entry in one.bundle.config["linux"]["namespaces"] if entry["type"] != "cgroup"
    ]
    seen = one.run().report["cgroup"].splitlines()
    assert own in seen
    assert not box.cgroups()


@pytest.mark.pyrunc_only("the words are pyrunc's")
@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"/linux/cgroupsPath": "/some/where"}, "/linux/cgroupsPath"),
        ({"/linux/resources": {"pids": {"limit": 10}}}, "/linux/resources/pids"),
    ],
)
def test_without_delegation_limits_are_refused(user: Callable[..., User], spec: dict[str, Any], field: str) -> None:
    if "pids" not in controllers() and "resources" in field:
        words = ["pids controller is not available"]
    else:
        words = ["delegated to this user", "Delegate=yes", f"or remove {field}"]
    one = user(spec)
    result = one.run(check=False)
    assert result.rc == 1
    for word in words:
        assert word in result.err, result
    assert not os.listdir(one.home / "run" / "pyrunc")


@pytest.mark.pyrunc_only("--rootless=false means the same in runc, with other words")
def test_rootless_false_requires_a_cgroup(user: Callable[..., User]) -> None:
    one = user()
    result = one.call("--rootless=false", "run", one.id, check=False)
    assert result.rc == 1 and "/linux/cgroupsPath" in result.err and "EACCES" in result.err, result


@pytest.mark.pyrunc_only("its own view of the hierarchy hides where the caller is")
def test_with_delegation(user: Callable[..., User], delegated: Path, box: Box) -> None:
    one = user()
    one.cgroup = delegated / "session"
    one.bundle.config["process"]["args"] = ["/probe", "signals", "30"]
    out = box.path / "out"
    one.call("create", one.id, out=out)
    pid = one.state()["pid"]
    line = next(text for text in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if text.startswith("0::"))
    assert line == f"0::/{delegated.name}/{one.id}"
    one.call("start", one.id)
    wait_until(lambda: '"ready"' in out.read_text(), "the program")
    if box.runtime.is_pyrunc:
        assert json.loads(one.call("ps", "-f", "json", one.id).out) == [pid]
        one.call("pause", one.id)
        assert one.state()["status"] == "paused"
        one.call("resume", one.id)
    assert one.call("exec", one.id, "/probe", "report").report["cgroup"].splitlines()[-1] == "0::/"
    one.call("delete", "--force", one.id)
    assert not (delegated / one.id).exists()


@pytest.mark.pyrunc_only("runc 1.1.5 changes owners with the systemd driver only")
def test_with_delegation_the_container_manages_its_own_cgroup(user: Callable[..., User], delegated: Path) -> None:
    entry = {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["rw"]}
    one = user({"/mounts/-": entry})
    one.cgroup = delegated / "session"
    assert one.run("mkdir", "/sys/fs/cgroup/below").objects[0]["errno"] == 0


@pytest.mark.pyrunc_only("the hint is pyrunc's")
def test_delegated_cgroup_without_the_caller(user: Callable[..., User], delegated: Path) -> None:
    one = user({"/linux/cgroupsPath": f"/{delegated.name}/x"})
    result = one.run(check=False)
    assert result.rc == 1
    assert "/linux/cgroupsPath" in result.err and "Delegate=yes" in result.err, result
    assert not (delegated / "x").exists()


# --- root of a user namespace ---------------------------------------------------------------------


def test_root_of_a_user_namespace(user: Callable[..., User], box: Box) -> None:
    """podman and others run the runtime this way: euid 0 without the rights of the host's root."""
    one = user({"/linux/uidMappings": DELETE, "/linux/gidMappings": DELETE})
    one.bundle.config["linux"]["namespaces"].pop()
    one.extra = ["unshare", "-U", "-r", "-m"]
    result = one.run()
    assert result.report["uid"] == [0, 0, 0]
    assert (one.home / "run" / box.runtime.name).is_dir()


# Executes its arguments as root of a new user namespace that maps every id to itself.
WHOLE = """
pipe=$1; shift; mkfifo "$pipe"
unshare -U -m --propagation slave sh -c 'read go <"$0"; exec "$@"' "$pipe" "$@" &
for i in $(seq 500); do
    [ "$(readlink /proc/$!/ns/user)" = "$(readlink /proc/self/ns/user)" ] || break
    sleep 0.01
done
echo 0 0 4294967295 >/proc/$!/uid_map && echo 0 0 4294967295 >/proc/$!/gid_map && echo >"$pipe"
wait $!
"""


@pytest.mark.pyrunc_only("the cgroup2 mount that a peer needs cannot be made in there")
def test_a_user_namespace_that_maps_every_id_to_itself(container: Make, box: Box) -> None:
    """systemd's PrivateUsers=full: the maps equal the host's, the rights do not."""
    result = container("report", "--", "read", "/proc/self/uid_map").run(
        wrap=["/bin/sh", "-c", WHOLE, "sh", str(box.path / "pipe")]
    )
    assert result.report["uid"] == [0, 0, 0]
    assert result.objects[1]["text"].split() == ["0", "0", "4294967295"]


def test_nested_user_namespace(user: Callable[..., User]) -> None:
    one = user({"/linux/uidMappings/0/hostID": 0, "/linux/gidMappings/0/hostID": 0})
    one.extra = ["unshare", "-U", "-r", "-m"]
    assert one.run().report["uid"] == [0, 0, 0]


FILTER = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["prctl"], "action": "SCMP_ACT_ERRNO"}]}


def create(one: User, out: Path, **process: Any) -> None:
    one.bundle.config["process"] |= {"args": ["/probe", "sleep", "600"], **process}
    one.call("create", one.id, out=out)


@pytest.mark.parametrize("spec", [{}, {"/linux/seccomp": FILTER}])
def test_exec_in_a_created_container(user: Callable[..., User], box: Box, spec: dict[str, Any]) -> None:
    one = user(spec)
    create(one, box.path / "out")
    assert one.call("exec", one.id, "/bin/sh", "-c", "echo in").out == "in\n"
    one.call("start", one.id)
    assert one.state()["status"] == "running"


@pytest.mark.pyrunc_only("runc's created container can always be traced by its caller")
def test_exec_in_a_created_container_that_stays_closed(user: Callable[..., User], box: Box) -> None:
    one = user({"/linux/seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}})
    create(one, box.path / "out", noNewPrivileges=False)
    result = one.call("exec", one.id, "/probe", "report", check=False)
    assert result.rc == 255 and "EACCES" in result.err and "until `start`" in result.err
    one.call("start", one.id)
    assert one.call("exec", one.id, "/probe", "report").report["uid"] == [0, 0, 0]


# --- tracing --------------------------------------------------------------------------------------


@pytest.mark.pyrunc_only("no other runtime traces its containers")
def test_a_user_can_trace(user: Callable[..., User], box: Box) -> None:
    one = user()
    words = ["seccomp", "trace", "--json", "-o", str(one.home / "run/rows"), "--", "/bin/sh", "-c", "exit 3"]
    assert one.call(*words, check=False).rc == 3
    rows = [json.loads(line) for line in (one.home / "run/rows").read_text().splitlines()]
    assert [row["text"].partition(",")[0] for row in rows if row["name"] == "execve"] == ['execve("/bin/sh"']
    one.bundle.config["process"]["noNewPrivileges"] = False
    result = one.call(*words, check=False)
    assert result.rc == 1 and result.err.endswith("can only trace with /process/noNewPrivileges\n"), result
    assert result.err.count("\n") == 1 and not os.listdir(one.home / "run/pyrunc")
