"""create, start, state, kill, delete: a container's lifecycle, wrong states, ids, exit codes and
messages."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from integration.harness import Box, Bundle, Container

Make = Callable[..., Container]
Refused = Callable[..., None]


def test_run_gives_output_and_exit_code(container: Make) -> None:
    result = container("say", "hello", "--", "exit", "7").run(check=False)
    assert (result.rc, result.out, result.err) == (7, "hello\n", "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGUSR1])
def test_run_of_a_killed_program_is_128_plus_signal(container: Make, number: int) -> None:
    # pid 1 of a pid namespace cannot kill itself with a signal that it does not handle; other
    # processes can
    made = container("kill", str(int(number)))
    spaces = made.bundle.config["linux"]["namespaces"]
    made.bundle.config["linux"]["namespaces"] = [item for item in spaces if item["type"] != "pid"]
    assert made.run(check=False).rc == 128 + number


def test_a_whole_life(container: Make, box: Box) -> None:
    one = container("say", "running", "--", "signals", "60")
    quiet = one.create()
    assert (quiet.out, quiet.err) == ("", "")
    before = one.state()
    assert before["status"] == "created"
    assert before["pid"] == one.pid
    assert one.out == "", "the program must not run before start"
    assert one.start().out == ""
    one.wait_output('"ready"')
    assert one.status == "running"
    assert one.kill("USR1").out == ""
    one.wait_output('"number":10')
    one.kill()  # default: SIGTERM
    assert one.wait() == 128 + signal.SIGTERM
    state = one.state()
    assert (state["status"], state.get("pid", 0)) == ("stopped", 0)
    assert one.delete().out == ""
    missing = one.call("state", one.id, check=False)
    assert missing.rc == 1
    assert "does not exist" in missing.err
    assert not box.leftovers()


def test_state_document(container: Make) -> None:
    one = container("signals", "60", edits={"/annotations": {"org.example.key": "välue"}, "/root/path": "rootfs"})
    one.create()
    raw = one.call("state", one.id).out
    state = json.loads(raw)
    assert re.fullmatch(r"1\.\d+\.\d+.*", state["ociVersion"])
    assert state["id"] == one.id
    assert state["bundle"] == str(one.bundle.path)
    assert state["rootfs"] == str(one.bundle.rootfs)
    assert state["annotations"] == {"org.example.key": "välue"}
    assert state["owner"] == ""
    created = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?Z", state["created"])
    assert created, state["created"]
    age = datetime.now(UTC) - datetime.fromisoformat(created.group(1)).replace(tzinfo=UTC)
    assert -5 < age.total_seconds() < 60
    assert raw.startswith('{\n  "ociVersion"'), "two-space indentation, runc's key order"
    order = [key for key in state if key != "annotations"]
    assert order == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]


def test_state_without_annotations_has_none(container: Make) -> None:
    one = container("signals", "60")
    one.create()
    assert "annotations" not in one.state()


def test_pid_file_is_digits_only(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.create()
    content = (box.path / f"{one.id}.pid").read_bytes()
    assert content.isdigit(), content
    assert int(content) == one.state()["pid"]
    assert not [name for name in os.listdir(box.path) if name.startswith(f".{one.id}.pid")], "no temporary file stays"


def test_pid_file_replaces_an_old_one(container: Make, box: Box) -> None:
    one = container("signals", "60")
    target = box.path / "elsewhere"
    target.write_text("999999999")
    link = box.path / "given.pid"
    link.symlink_to(target)
    one.bundle.save()
    one.call("create", "--bundle", str(one.bundle.path), "--pid-file", str(link), one.id)
    assert link.read_text() == str(one.state()["pid"])
    assert target.read_text() == "999999999", "a pid file is renamed into place, never written through a link"


@pytest.mark.parametrize("detach", [(), ("--detach",)], ids=["foreground", "detach"])
def test_pid_file_of_a_run_that_fails(container: Make, box: Box, detach: tuple[str, ...]) -> None:
    """The pid file must not name an ended process, even if the container had been created."""
    hook = {"path": "/no/such/hook"}
    one, path = container(edits={"/hooks/poststart": [hook]}), box.path / "run.pid"
    one.bundle.save()
    result = one.call("run", *detach, "-b", str(one.bundle.path), "--pid-file", str(path), one.id, check=False)
    assert result.rc != 0
    assert not path.exists()


def test_pid_file_that_cannot_be_written_fails_and_leaves_nothing(container: Make, box: Box, refused: Refused) -> None:
    one = container("signals", "60")
    one.bundle.save()
    refused(
        one.call("create", "-b", str(one.bundle.path), "--pid-file", "/nowhere/x.pid", one.id, check=False), "/nowhere"
    )


@pytest.mark.parametrize("ident", ["a", "A.b_c+d-9", "x" * 200, "0", "_x", "+x"])
def test_good_ids(box: Box, container: Make, ident: str) -> None:
    one = container("exit", "0")
    one.id = ident
    one.create()
    assert one.state()["id"] == ident
    one.delete()


@pytest.mark.parametrize(
    "ident", ["", ".", "..", "a/b", "/", "../x", "a b", "a;b", "a:b", "é", "a\nb", "x" * 300, "a\\b", "%s\0"[:2]]
)
def test_bad_ids(bundle: Callable[..., Bundle], box: Box, refused: Refused, ident: str) -> None:
    made = bundle("exit", "0")
    made.save()
    for verb in ("create", "run"):
        refused(box.runtime.call("--root", str(box.root), verb, "-b", str(made.path), ident), "", "container")


@pytest.mark.pyrunc_only(
    "runc and crun accept a leading dash after --, runc a leading dot; such names hide or look like flags"
)
@pytest.mark.parametrize("ident", ["-x", ".hidden"])
def test_ids_that_look_like_something_else(
    bundle: Callable[..., Bundle], box: Box, refused: Refused, ident: str
) -> None:
    made = bundle("exit", "0")
    made.save()
    refused(box.runtime.call("--root", str(box.root), "create", "-b", str(made.path), "--", ident), "", "container ID")


@pytest.mark.parametrize("verb", ["create", "start", "state", "kill", "delete", "run"])
def test_no_id_is_an_error(box: Box, verb: str) -> None:
    result = box.runtime.call("--root", str(box.root), verb)
    assert result.rc != 0


def test_an_id_is_used_once(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.create()
    pid = one.state()["pid"]
    two = box.container("exit", "0")
    two.id = one.id
    again = two.create(check=False)
    assert again.rc == 1
    assert "container with given ID already exists" in again.err
    assert one.state()["pid"] == pid, "the first container is untouched"
    one.start()
    one.delete("--force")
    two.create()
    two.delete()


def test_start_twice(container: Make) -> None:
    one = container("signals", "60")
    one.create()
    one.start()
    result = one.start(check=False)
    assert result.rc == 1
    assert "cannot start an already running container" in result.err
    assert one.status == "running"


def test_start_of_a_stopped_container(container: Make) -> None:
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    result = one.start(check=False)
    assert result.rc == 1
    assert "cannot start a container that has stopped" in result.err


def test_config_changes_after_create_change_nothing(container: Make) -> None:
    one = container("say", "first")
    one.create()
    one.bundle.config["process"]["args"] = ["/probe", "say", "second"]
    one.bundle.config["annotations"] = {"new": "one"}
    one.bundle.save()
    one.start()
    one.wait()
    assert one.out == "first\n"
    assert "annotations" not in one.state()
    (one.bundle.path / "config.json").unlink()
    one.delete()


def test_bundle_may_be_gone_at_delete(container: Make, box: Box) -> None:
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    one.bundle.path.rename(box.path / "moved")
    one.delete()


def test_missing_bundle(box: Box, refused: Refused) -> None:
    refused(box.runtime.call("--root", str(box.root), "create", "-b", "/nowhere/at/all", "x"), "/nowhere/at/all")


def test_bundle_defaults_to_the_working_directory(container: Make) -> None:
    one = container("say", "here")
    one.bundle.save()
    assert one.call("run", one.id, cwd=one.bundle.path).out == "here\n"


def test_relative_bundle(container: Make) -> None:
    one = container("say", "here")
    one.bundle.save()
    one.call("create", "--bundle", one.bundle.path.name, one.id, cwd=one.bundle.path.parent)
    assert one.state()["bundle"] == str(one.bundle.path)


def test_config_option_names_another_file(container: Make, box: Box) -> None:
    if not box.runtime.is_pyrunc and box.runtime.name != "crun":
        pytest.skip("an option of crun, not of runc")
    one = container("say", "default")
    one.bundle.save()
    config = json.dumps(one.bundle.config).replace('"default"', '"other"')
    (one.bundle.path / "other.json").write_text(config)
    bundle = ("run", "-b", str(one.bundle.path), "--config")
    assert one.call(*bundle, str(one.bundle.path / "other.json"), one.id).out == "other\n"
    assert one.call(*bundle, "other.json", one.id, check=False, cwd="/").rc != 0, "not relative to the bundle"
    assert one.call(*bundle, f"{one.bundle.path.name}/other.json", one.id, cwd=one.bundle.path.parent).out == "other\n"


def test_detached_run(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.bundle.save()
    pid_file = box.path / "detached.pid"
    result = one.call(
        "run", "-d", "-b", str(one.bundle.path), "--pid-file", str(pid_file), one.id, out=one.out_file, err=one.err_file
    )
    assert result.err == ""
    one.pid = int(pid_file.read_text())
    one.wait_output("ready")
    assert one.status == "running"
    one.kill("TERM")
    assert one.wait() == 143


def test_run_keep(container: Make) -> None:
    one = container("exit", "3")
    assert one.run("--keep", check=False).rc == 3
    assert one.status == "stopped"
    one.delete()


def test_run_deletes_afterwards(container: Make, box: Box) -> None:
    container("exit", "0").run()
    assert not box.leftovers()


def test_foreground_run_forwards_signals(container: Make) -> None:
    import subprocess
    import time

    one = container("signals", "60")
    one.bundle.save()
    argv = one.box.runtime.argv("--root", str(one.box.root), "run", "-b", str(one.bundle.path), one.id)
    with open(one.out_file, "wb") as out:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out)
    one.box.helpers.add(child.pid)
    try:
        one.wait_output("ready")
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGINT):
            child.send_signal(number)
            one.wait_output(f'"number":{int(number)}')
            time.sleep(0.01)
        child.send_signal(signal.SIGTERM)
        assert child.wait(10) == 128 + signal.SIGTERM
    finally:
        child.kill()
        child.wait()


def test_foreground_run_passes_stdin_on(container: Make) -> None:
    result = container("stdin").run(stdin="some\ninput")
    assert result.objects == [{"action": "stdin", "text": "some\ninput"}]


@pytest.mark.pyrunc_only("runc 1.1.5 cannot delete a container whose state file is damaged")
@pytest.mark.parametrize("content", ["", "null", "{", "[]", '{"pid": "x"}', "\0" * 100], ids=range(6))
def test_damaged_state_file(container: Make, box: Box, content: str) -> None:
    one = container("fork", "1", "--", "signals", "60")
    one.create()
    one.start()
    other = box.container("signals", "60")
    other.create()
    state = box.root / one.id / "state.json"
    assert state.exists()
    state.write_text(content)
    listed = box.runtime.call("--root", str(box.root), "list", "-q")
    assert listed.rc == 0
    assert other.id in listed.out.split()
    assert one.call("state", one.id, check=False).rc == 1
    one.delete("--force")
    other.delete("--force")
    assert not box.leftovers()


def test_state_directory_is_private(container: Make, box: Box) -> None:
    one = container("signals", "60")
    one.create()
    assert box.root.stat().st_mode & 0o077 in (0, 0o011)
    assert (box.root / one.id).stat().st_mode & 0o066 == 0


@pytest.mark.pyrunc_only("runc 1.1.5 lists what is in /; newer ones refuse it")
def test_root_may_not_be_the_root_directory(box: Box) -> None:
    assert box.runtime.call("--root", "/", "list").rc != 0


def test_init_killed_while_created(container: Make) -> None:
    one = container("exit", "0")
    one.create()
    os.kill(one.pid, signal.SIGKILL)
    one.wait()
    one.wait_status("stopped")
    assert one.start(check=False).rc == 1
    one.delete()


def test_pid_reuse_is_noticed(container: Make, box: Box) -> None:
    """The pid in the state now belongs to another process: the container is stopped, and nothing is
    killed."""
    one = container("exit", "0")
    one.create()
    one.start()
    one.wait()
    path = box.root / one.id / "state.json"
    data = json.loads(path.read_text())
    key = "pid" if "pid" in data else "init_process_pid"
    assert data[key] == one.pid
    data[key] = os.getpid()
    path.write_text(json.dumps(data))
    assert one.status == "stopped"
    assert one.kill("KILL", check=False).rc == 1
    one.delete("--force")


@pytest.mark.pyrunc_only("runc 1.1.5 needs `process` at create; the spec needs it at start only")
def test_create_without_process(container: Make) -> None:
    from integration.config import DELETE

    one = container(edits={"/process": DELETE})
    one.create()
    result = one.start(check=False)
    assert result.rc == 1
    assert "/process" in result.err
    one.delete("--force")


def test_create_in_a_cgroup_that_is_frozen(container: Make, box: Box, refused: Refused) -> None:
    one = container("exit", "0")
    one.cgroup.mkdir()
    box.own_cgroups.add(one.cgroup)
    (one.cgroup / "cgroup.freeze").write_text("1")
    refused(one.create(check=False), "", "frozen")
    (one.cgroup / "cgroup.freeze").write_text("0")
    if one.cgroup.exists():
        one.cgroup.rmdir()


def test_empty_environment_works(container: Make) -> None:
    one = container("say", "works")
    assert one.run(env={}).out == "works\n"


def test_empty_runtime_dir_counts_as_unset(box: Box) -> None:
    """podman sets XDG_RUNTIME_DIR="" and does not pass --root."""
    result = box.runtime.call("state", f"{box.prefix}-nothing", env={"XDG_RUNTIME_DIR": ""})
    assert result.rc == 1
    assert "does not exist" in result.err


def test_rootfs_must_exist(container: Make, refused: Refused) -> None:
    refused(container(edits={"/root/path": "not-there"}).create(check=False), "/root/path")


def test_absolute_rootfs(container: Make) -> None:
    one = container("say", "fine")
    one.bundle.config["root"]["path"] = str(one.bundle.rootfs)
    assert one.run().out == "fine\n"


@pytest.mark.parametrize(
    "flags",
    [["--rootless=true"], ["--rootless", "auto"], ["--rootless=false"], ["--criu", "/x"], ["--debug"], ["-debug"]],
)
def test_global_options_of_callers(container: Make, box: Box, flags: list[str]) -> None:
    result = box.runtime.call(*flags, "--log", str(box.path / "log"), "--root", str(box.root), "state", "none")
    assert result.rc == 1
    assert "does not exist" in result.err


def test_single_dash_long_options(container: Make) -> None:
    one = container("say", "fine")
    one.bundle.save()
    result = one.box.runtime.call(
        "-root", str(one.box.root), "run", "-no-subreaper", "-bundle", str(one.bundle.path), one.id
    )
    assert (result.rc, result.out) == (0, "fine\n")


def test_version(box: Box) -> None:
    lines = box.runtime.call("--version").out.splitlines()
    assert re.fullmatch(rf"{box.runtime.name} version \S+", lines[0])
    assert lines[1].startswith("commit: ")
    assert lines[2].startswith("spec: ")


def test_unknown_verb_and_flag(box: Box) -> None:
    for args in (["bogus"], ["state", "--bogus", "x"], ["--bogus", "state", "x"]):
        result = box.runtime.call(*args)
        assert result.rc != 0
        if box.runtime.is_pyrunc:
            assert result.rc == (3 if args == ["bogus"] else 1)
            assert len(result.err.splitlines()) == 1


def test_spec_makes_a_bundle_that_runs(container: Make, box: Box) -> None:
    one = container("exit", "0")
    made = box.runtime.call("spec", "--bundle", str(one.bundle.path))
    assert (made.rc, made.err) == (0, "")
    path = one.bundle.path / "config.json"
    config = json.loads(path.read_text())
    assert config["process"]["args"] == ["sh"]
    assert box.runtime.call("spec", "-b", str(one.bundle.path)).rc == 1, "an existing config.json is not overwritten"
    assert json.loads(path.read_text()) == config
    config["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", "echo $((40 + 2))"]}
    config["linux"]["cgroupsPath"] = f"/{one.id}"
    path.write_text(json.dumps(config))
    assert one.run(save=False).out == "42\n"


def test_features(box: Box) -> None:
    found = json.loads(box.runtime.call("features").out)
    assert found["ociVersionMin"] and found["ociVersionMax"]
    assert {"bind", "ro", "rro"} <= set(found["mountOptions"])
    assert set(found["hooks"]) >= {
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    }
    assert {"pid", "network", "ipc", "uts", "mount", "cgroup"} <= set(found["linux"]["namespaces"])
    assert "SCMP_ACT_ERRNO" in found["linux"]["seccomp"]["actions"]


def test_default_cgroup_and_root(container: Make, box: Box) -> None:
    """Without cgroupsPath the container's cgroup is named after its id."""
    from integration.config import DELETE

    one = container("report", edits={"/linux/cgroupsPath": DELETE, "/linux/namespaces/5": DELETE})
    seen = one.run().report
    line = next(text for text in seen["cgroup"].splitlines() if text.startswith("0::"))
    assert Path(line[3:]).name == one.id
