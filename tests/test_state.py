"""The state directory: round trips, ownership of ids, locks, and damage."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import posix
import stat
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from pyrunc import fs, jsontext, state
from pyrunc.container import salvage
from pyrunc.errors import PyruncError, StateError, SysError
from pyrunc.spec import names
from state_support import child_of, made, sleeper, store

__all__ = ["sleeper", "store"]  # fixtures


def test_a_new_id_waits_for_list(store: state.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """`list` holds the lock for a moment to see whether a directory is abandoned."""
    looking: list[int] = []
    real = posix.mkdir

    def mkdir(path: str, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode, dir_fd=dir_fd)
        if path == "c1":
            fd = os.open(f"{store.root}/c1", os.O_RDONLY)
            fcntl.flock(fd, fcntl.LOCK_EX)
            looking.append(fd)
            threading.Timer(0.2, os.close, (fd,)).start()

    monkeypatch.setattr(posix, "mkdir", mkdir)
    container = store.reserve("c1")
    assert looking and container.fd >= 0
    container.unlock()


# -- the document ----------------------------------------------------------------------------------


def test_oci_state_is_one_line_of_json_with_the_required_keys() -> None:
    text = state.oci_state("c", "created", 7, "/b", {"k": "v\n"})
    assert "\n" not in text
    assert list(json.loads(text).items()) == [
        ("ociVersion", "1.3.0"), ("id", "c"), ("status", "created"), ("pid", 7), ("bundle", "/b"),
        ("annotations", {"k": "v\n"}),
    ]  # fmt: skip
    assert "annotations" not in state.oci_state("c", "created", 7, "/b", {})


def test_the_state_is_split_around_the_pid_whatever_the_annotations_say() -> None:
    head, tail = state.split_state("c", "creating", "/b\0", {"\0": '"pid":\0'})
    assert json.loads(head + "42" + tail) == {
        "ociVersion": "1.3.0", "id": "c", "status": "creating", "pid": 42, "bundle": "/b\0",
        "annotations": {"\0": '"pid":\0'},
    }  # fmt: skip


def test_now_is_rfc3339_with_nanoseconds() -> None:
    text = state.now()
    assert len(text) == len("2026-11-23T15:23:58.327213653Z") and text[19] == "." and text[-1] == "Z"
    seen = datetime.fromisoformat(text[:26] + "+00:00").timestamp()
    assert abs(seen - time.time()) < 5


# -- the root --------------------------------------------------------------------------------------


def test_root_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posix.geteuid", lambda: 0)
    assert state.root_dir("") == "/run/pyrunc"
    monkeypatch.setattr("posix.environ", {b"XDG_RUNTIME_DIR": b"/run/user/5"})
    assert state.root_dir("") == "/run/pyrunc"
    monkeypatch.setattr("posix.geteuid", lambda: 5)
    assert state.root_dir("") == "/run/user/5/pyrunc"
    for unset in ({}, {b"XDG_RUNTIME_DIR": b""}):
        monkeypatch.setattr("posix.environ", unset)
        with pytest.raises(PyruncError, match="--root"):
            state.root_dir("")
    assert state.root_dir("/a/../b//c") == "/b/c"
    assert state.root_dir("rel") == os.getcwd() + "/rel"
    for slash in ("/", "//", "/a/..", "/../.."):
        with pytest.raises(PyruncError, match="root directory"):
            state.root_dir(slash)


def test_root_is_private_for_any_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        state.Store(str(tmp_path / "a" / "b")).reserve("c").unlock()
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) & 0o777 == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b" / "c").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o722, 0o1777, 0o720])
def test_a_root_that_others_can_write_to_is_refused(tmp_path: Path, mode: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(mode)
    for call in (lambda s: s.reserve("c"), lambda s: s.open("c"), lambda s: list(s.list())):
        with pytest.raises(PyruncError, match="writable by nobody else"):
            call(state.Store(str(root)))
    assert not list(root.iterdir())
    root.chmod(0o755)
    state.Store(str(root)).reserve("c").unlock()


def test_a_root_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("posix.geteuid", lambda: os.getuid() + 1)
    with pytest.raises(PyruncError, match="must belong to uid"):
        state.Store(str(tmp_path)).open("c")


def test_a_root_that_is_a_link_or_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "file").write_text("")
    for name in ("link", "file"):
        with pytest.raises(SysError, match="no symbolic link"):
            state.Store(str(tmp_path / name)).reserve("c")
    assert not list((tmp_path / "real").iterdir())


# -- ids -------------------------------------------------------------------------------------------

IDS = ["a", "A9_+.-", "a" * 242, "0", "_", "+x", "a..b", "a-"]
BAD_IDS = ["", ".", "..", ".a", "-a", "a/b", "a b", "a;b", "a:b", "é", "a\n", "a\0", "a" * 243, "../x", "\udcff", "ａ"]


@pytest.mark.parametrize("id", IDS)
def test_good_ids(id: str) -> None:
    state.check_id(id)
    assert names.valid_id(id) is None


@pytest.mark.parametrize("id", BAD_IDS)
def test_bad_ids_touch_nothing(store: state.Store, id: str) -> None:
    assert names.valid_id(id) is not None
    for call in (store.reserve, store.open, store.find):
        with pytest.raises(StateError, match=r"invalid container ID format|container id cannot be empty"):
            call(id)
    assert not os.path.exists(store.root)


def test_an_id_is_unique(store: state.Store) -> None:
    first = store.reserve("c")
    with pytest.raises(StateError, match=r"^container with given ID already exists: c$"):
        state.Store(store.root).reserve("c")
    first.save()
    first.unlock()
    with pytest.raises(StateError, match=r"^container with given ID already exists: c$"):
        state.Store(store.root).reserve("c")
    assert store.open("c").data["id"] == "c"


def test_the_second_create_after_a_forced_delete_fails(store: state.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """mkdir, then `delete --force` by another process, then mkdir and a complete create by a third:
    the directory is not ours."""
    acquire = state.Container.acquire

    def interfere(self: state.Container, timeout: float) -> None:
        monkeypatch.undo()
        os.rmdir(self.dir)
        made(state.Store(store.root), "c")
        acquire(self, timeout)

    monkeypatch.setattr(state.Container, "acquire", interfere)
    with pytest.raises(StateError, match=r"^container with given ID already exists: c$"):
        store.reserve("c")
    store.open("c").lock(0)  # and it is not locked either


def contest(root: str, id: str) -> tuple[list[state.Container], list[str]]:
    """Eight threads request the same id at once."""
    winners: list[state.Container] = []
    losers: list[str] = []
    gate = threading.Barrier(8)

    def contend() -> None:
        gate.wait()
        try:
            winners.append(state.Store(root).reserve(id))
        except StateError as error:
            losers.append(str(error))

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return winners, losers


def test_of_many_concurrent_callers_one_wins(store: state.Store) -> None:
    (Path(store.root)).mkdir(mode=0o700)
    for round in range(20):
        winners, losers = contest(store.root, f"c{round}")
        assert len(winners) == 1
        assert losers == [f"container with given ID already exists: c{round}"] * 7
        winners[0].unlock()


def test_missing_containers(store: state.Store) -> None:
    with pytest.raises(state.NotFound, match=r"^container does not exist: c$"):
        store.open("c")
    store.reserve("other").unlock()
    with pytest.raises(state.NotFound):
        store.open("c")
    assert list(state.Store(store.root + "/nowhere").list()) == []


# -- content ---------------------------------------------------------------------------------------


def test_round_trip_and_modes(store: state.Store) -> None:
    container = made(store, annotations={"k": 'v"\u20ac'})
    again = store.open("c1")
    assert again.data == container.data
    assert again.data["rootfs"] == "/b/rootfs" and again.data["process"] is True
    assert stat.S_IMODE(os.stat(container.dir + "/state.json").st_mode) == 0o600


def test_report_has_the_keys_of_runc_in_their_order(store: state.Store) -> None:
    report = made(store).report()
    assert list(report) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "annotations", "owner"]
    assert (report["pid"], report["status"], report["owner"]) == (0, "stopped", "")
    assert "annotations" not in made(store, "c2", annotations={}).report()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"null", b"[]", b'"c1"', b"\0" * 512, b"\xff", b"{}", b'{"id":"c1"}', b'{"id":"c1","pid":"1"}',
        b'{"id":"other","pid":1,"status":"running"}', b'{"id":"c1","pid":1}',
        b'{"id":"c1","pid":true,"status":"created"}', b'{"id":"c1","pid":1,"status":"odd"}',
        *(b'{"id":"c1","pid":1,"status":"running","cgroup":"",%s}' % field for field in (
            b'"bundle":1', b'"bundle":null', b'"cgroup_dir":{}', b'"cgroup_dir":[]', b'"annotations":"x"',
            b'"runtime":7', b'"hooks":[]', b'"late":{}', b'"starttime":"1"', b'"owner":true', b'"resources":[]',
            b'"cgroup_manager":3', b'"cgroup_dir":"\\u0000"', b'"bundle":"/\\ud800"',
        )),
        b'{"id":"c1","pid":-1,"status":"running","cgroup":""}', b'{"id":"c1","pid":1,"status":"running","cgroup":""}',
        b'{"id":"c1","pid":2147483648,"starttime":1,"status":"running","cgroup":""}',
    ],
)  # fmt: skip
def test_damaged_state(store: state.Store, content: bytes, sleeper: subprocess.Popen[bytes]) -> None:
    made(store, "good")
    container = made(store, cgroup="/x")
    child_of(container, sleeper.pid)
    path = Path(container.dir, "state.json")
    path.unlink()  # like a filesystem that lost data: another inode than intent.json's
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"damaged.*delete --force"):
        store.open("c1")
    assert [c.id for c in store.list()] == ["good"]
    found = store.find("c1")
    found.acquire(1)
    salvage.recover(found)
    assert found.data["cgroup"] == "/x"  # from intent.json
    found.destroy()
    assert os.listdir(store.root) == ["good"]


UNKNOWN = [
    OSError(errno.EIO, "read"), OSError(errno.ENOMEM, "read"), OSError(errno.EMFILE, "open"),
    OSError(errno.EACCES, "open"), OSError(errno.ESTALE, "open"), MemoryError(), ImportError("no module"),
]  # fmt: skip


@pytest.mark.parametrize("error", UNKNOWN, ids=repr)
@pytest.mark.parametrize("step", ["read_fd", "loads"])
def test_unreadable_state_is_not_damaged(
    store: state.Store, monkeypatch: pytest.MonkeyPatch, error: Exception, step: str
) -> None:
    container = made(store)
    before = sorted((path.name, path.read_bytes()) for path in Path(container.dir).iterdir())

    def fail(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(fs if step == "read_fd" else jsontext, step, fail)
    found = store.find("c1")
    for ask in (found.load, lambda: salvage.recover(found), lambda: list(store.list()), lambda: store.open("c1")):
        with pytest.raises((SysError, MemoryError, ImportError)) as caught:
            ask()
        assert "delete --force" not in str(caught.value) and not isinstance(caught.value, StateError)
        if isinstance(error, OSError):
            assert errno.errorcode[error.errno or 0] in str(caught.value)
            assert container.dir in str(caught.value)
    assert sorted((path.name, path.read_bytes()) for path in Path(container.dir).iterdir()) == before


def test_an_intent_that_cannot_be_read_now_is_not_damaged(store: state.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    container = made(store)
    Path(container.dir, "state.json").write_bytes(b"{")
    Path(container.dir, "intent.json").write_bytes(b"{}")
    real = state.Container.read_bytes

    def read_bytes(self: state.Container, name: str) -> bytes:
        if name == "intent.json":
            raise OSError(errno.EIO, "read")
        return real(self, name)

    monkeypatch.setattr(state.Container, "read_bytes", read_bytes)
    with pytest.raises(SysError, match=r"intent.json: read: EIO"):
        salvage.recover(store.find("c1"))


def test_a_directory_that_cannot_be_locked_now_is_not_passed_over(
    store: state.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path(made(store).dir, "state.json").write_bytes(b"{")

    def acquire(self: state.Container, timeout: float) -> None:
        raise OSError(errno.EMFILE, "open")

    monkeypatch.setattr(state.Container, "acquire", acquire)
    with pytest.raises(OSError, match="open"):
        list(store.list(lambda error: None))


def test_a_list_of_ids_does_not_parse_states(store: state.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made(store, "good", annotations={"a": "x" * 100_000})
    Path(made(store, "half").dir, "state.json").write_bytes(b'{"version":1,"id":"half","pid"')
    Path(made(store, "other").dir, "state.json").write_bytes(b'{"version":1,"id":"nobody"}')
    os.mkfifo(Path(made(store, "zero").dir, "fifo"))
    Path(store.root, "zero/fifo").replace(Path(store.root, "zero/state.json"))
    loaded: list[str] = []
    real = state.Container.load

    def load(self: state.Container) -> None:
        loaded.append(self.id)
        real(self)

    monkeypatch.setattr(state.Container, "load", load)
    errors: list[PyruncError] = []
    assert [c.id for c in store.list(errors.append, content=False)] == ["good"]
    assert loaded == ["half", "other", "zero"]
    assert [type(error) for error in errors] == [state.Damaged] * 3


def test_a_state_that_could_not_be_read_again_is_not_written(
    store: state.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = made(store)
    before = Path(container.dir, "state.json").read_bytes()
    monkeypatch.setattr("pyrunc.state.container._MAX_STATE", 1000)
    container.lock()
    container.data["annotations"] = {"a": "x" * 1000}
    with pytest.raises(StateError, match="larger than"):
        container.save()
    assert Path(container.dir, "state.json").read_bytes() == before


def test_the_intent_gets_the_pid_once_it_is_known(store: state.Store, sleeper: subprocess.Popen[bytes]) -> None:
    container = made(store)
    intent = Path(container.dir, "intent.json")
    assert not intent.exists()  # until there is a process, only state.json lists what to remove
    child_of(container, sleeper.pid)
    assert json.loads(intent.read_bytes())["pid"] == sleeper.pid
    container.lock()
    container.data["status"] = "running"
    container.save()
    assert json.loads(intent.read_bytes())["status"] == "created"
    container.unlock()


def test_stray_things_in_the_root_are_ignored(store: state.Store) -> None:
    made(store)
    root = Path(store.root)
    (root / "file").write_text("x")
    (root / "empty").mkdir()
    (root / "a b").mkdir()
    (root / "link").symlink_to("nowhere")
    assert [c.id for c in store.list()] == ["c1"]
    for name in ("file", "empty", "link"):
        with pytest.raises(StateError):
            store.open(name)


def test_no_space_is_an_error_with_the_path(store: state.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    container = store.reserve("c")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(fs, "replace_file", full)
    with pytest.raises(SysError, match=r"/c/state.json: write: ENOSPC"):
        container.save()
    monkeypatch.undo()
    container.destroy()
    assert os.listdir(store.root) == []


def test_destroy_removes_everything_and_follows_no_link(store: state.Store, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("x")
    container = made(store)
    os.mkfifo(container.fifo("start"))
    os.mkdir(container.dir + "/notify")
    Path(container.dir, "notify", "notify.sock").write_text("")
    Path(container.dir, "config.json").write_text("{}")
    Path(container.dir, ".state.json.tmp").write_text("{}")
    Path(container.dir, "link").symlink_to(tmp_path / "precious")
    container.lock()
    container.destroy()
    container.destroy()
    assert os.listdir(store.root) == []
    assert (tmp_path / "precious" / "file").exists()


# -- locks -----------------------------------------------------------------------------------------


def test_a_lock_is_waited_for_and_given_up(store: state.Store) -> None:
    container = made(store)
    container.lock()
    other = state.Store(store.root).open("c1")
    start = time.monotonic()
    with pytest.raises(state.Busy, match="in use by another pyrunc"):
        other.lock(0.2)
    assert 0.15 < time.monotonic() - start < 2
    timer = threading.Timer(0.1, container.unlock)
    timer.start()
    other.lock(5)
    timer.join()
    other.unlock()


def test_waiting_for_a_deleted_container_fails(store: state.Store) -> None:
    container = made(store)
    container.lock()
    other = state.Store(store.root).open("c1")
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            other.lock(5)
        except StateError as error:
            failed.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.05)
    container.destroy()
    made(store)  # another container of the same name must not be mistaken for it
    thread.join()
    assert type(failed[0]) is state.NotFound


def test_lock_reads_again(store: state.Store) -> None:
    made(store)
    stale = store.open("c1")
    fresh = store.open("c1")
    fresh.lock()
    fresh.data["status"] = "running"
    fresh.save()
    fresh.unlock()
    before = stale.data["status"]
    assert before == "created"
    stale.lock()
    assert stale.data["status"] == "running"
    stale.unlock()


# -- members of the wrong type ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes", [{"cgroup": 7}, {"hooks": "x"}, {"runtime": []}, {"late": {}}, {"cgroup_made": "/a"}, {"starttime": "1"}]
)
def test_a_member_of_the_wrong_type_is_damage(store: state.Store, changes: dict[str, Any]) -> None:
    container = made(store)
    path = Path(container.dir) / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(StateError, match=r"damaged.*delete --force"):
        store.open("c1")


def test_state_without_its_cgroup_is_damaged(store: state.Store) -> None:
    path = Path(made(store).dir) / "state.json"
    data = json.loads(path.read_text())
    del data["cgroup"]
    path.write_text(json.dumps(data))
    with pytest.raises(StateError, match=r"damaged \(incomplete\)"):
        store.open("c1")


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_something_else_in_the_place_of_state(store: state.Store, kind: str, sleeper: subprocess.Popen[bytes]) -> None:
    container = made(store)
    child_of(container, sleeper.pid)
    path = Path(container.dir) / "state.json"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        (path / "a").mkdir(parents=True)
    else:
        path.symlink_to("/etc/passwd")
    with pytest.raises(StateError):
        store.open("c1")
    assert list(store.list()) == []
    found = store.find("c1")
    found.acquire(0)
    salvage.recover(found)
    found.destroy()
    assert not Path(container.dir).exists()


def test_a_cgroup_that_is_mounted_somewhere_else_now(
    store: state.Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyrunc import host

    facts = host.HostFacts()
    facts.cgroup2_mount = str(tmp_path / "new")
    monkeypatch.setattr(host, "snapshot", lambda: facts)
    (tmp_path / "new/c").mkdir(parents=True)
    (tmp_path / "new/c/cgroup.freeze").write_text("1\n")
    container = made(store, cgroup="/c", cgroup_dir=str(tmp_path / "old/c"))
    assert container.frozen()
