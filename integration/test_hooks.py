"""The six kinds of hooks: order, namespaces, state on stdin, environment, directory, timeouts and
the effect of a failure."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.harness import Box, Container, wait_until

Make = Callable[..., Container]
Refused = Callable[..., None]
HOST = ["prestart", "createRuntime", "poststart", "poststop"]
ALL = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


def shell(script: str, **more: Any) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script], **more}


def recorder(path: Path, kind: str, inside: bool = False) -> dict[str, Any]:
    """A hook that records what it sees, in a directory of the host or in /rec of the container."""
    at = "/rec" if inside else str(path)
    return shell(
        f"cat >{at}/{kind}.state; pwd >{at}/{kind}.cwd; /bin/cat /proc/self/environ >{at}/{kind}.env; "
        f"readlink /proc/self/ns/mnt /proc/self/ns/pid >{at}/{kind}.ns; echo {kind} >>{at}/order; "
        f"ls -l /proc/self/fd >{at}/{kind}.fds"
    )


@pytest.fixture
def lived(container: Make, box: Box) -> tuple[Container, Path]:
    """A container that has gone through its whole lifecycle with one recording hook of every
    kind."""
    record = box.path / "record"
    record.mkdir()
    one = container("say", "program", "--", "ls", "/rec")
    bind = {"destination": "/rec", "type": "bind", "source": str(record), "options": ["bind", "rw"]}
    one.bundle.config["mounts"].append(bind)
    one.bundle.config["annotations"] = {"a": "b"}
    one.bundle.config["process"]["env"].append("LD_PRELOAD=/evil.so")
    one.bundle.config["hooks"] = {kind: [recorder(record, kind, kind == "startContainer")] for kind in ALL}
    one.create(env={"PATH": "/usr/bin:/bin", "OF_THE_CALLER": "x"}, cwd="/")
    before = (record / "order").read_text().split()
    if not box.runtime.is_pyrunc:  # runc before 1.5 runs poststart in create
        before = before[:3]
    assert before == ["prestart", "createRuntime", "createContainer"]
    one.start(env={"PATH": "/usr/bin:/bin", "OF_THE_CALLER": "x"}, cwd="/")
    one.wait()
    one.delete(env={"PATH": "/usr/bin:/bin", "OF_THE_CALLER": "x"}, cwd="/")
    return one, record


def test_order(lived: tuple[Container, Path]) -> None:
    one, record = lived
    order = (record / "order").read_text().split()
    if one.box.runtime.is_pyrunc:
        assert order == ALL
    else:
        assert sorted(order) == sorted(ALL)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("prestart", "created"),
        ("createRuntime", "creating"),
        ("createContainer", "creating"),
        ("startContainer", "created"),
        ("poststart", "running"),
        ("poststop", "stopped"),
    ],
)
def test_state_on_stdin(lived: tuple[Container, Path], kind: str, status: str) -> None:
    one, record = lived
    if kind == "prestart" and not one.box.runtime.is_pyrunc:
        status = "creating"  # as in runc; crun and the conformance suite agree
    state = json.loads((record / f"{kind}.state").read_text())
    assert state["id"] == one.id
    assert state["bundle"] == str(one.bundle.path)
    assert state["annotations"] == {"a": "b"}
    assert state["ociVersion"].count(".") == 2
    if kind == "poststop":
        assert not state.get("pid")
    elif kind in ("createContainer", "startContainer"):
        assert state["pid"] == 1
    else:
        assert state["pid"] == one.pid
    if kind in ("poststart", "createContainer") and not one.box.runtime.is_pyrunc:
        return  # runc 1.1.5 says `created`
    assert state["status"] == status


@pytest.mark.parametrize("kind", HOST)
def test_host_hooks_run_in_the_runtimes_namespaces(lived: tuple[Container, Path], kind: str) -> None:
    one, record = lived
    mnt, pid = (record / f"{kind}.ns").read_text().split()
    assert pid == os.readlink("/proc/self/ns/pid")
    if not one.box.runtime.prefix:
        assert mnt == os.readlink("/proc/self/ns/mnt")


@pytest.mark.parametrize("kind", ["createContainer", "startContainer"])
def test_container_hooks_run_in_the_containers_namespaces(lived: tuple[Container, Path], kind: str) -> None:
    _, record = lived
    text = (record / f"{kind}.ns").read_text().split()
    assert os.readlink("/proc/self/ns/mnt") not in text
    assert os.readlink("/proc/self/ns/pid") not in text


def variables(record: Path, kind: str) -> dict[str, str]:
    """The environment that a recorder saw, without its shell's additions."""
    items = (record / f"{kind}.env").read_text().split("\0")
    found = dict(item.split("=", 1) for item in items if item)
    return {name: value for name, value in found.items() if name not in ("PWD", "SHLVL", "_", "OLDPWD")}


@pytest.mark.parametrize("kind", HOST)
def test_host_hooks_get_the_runtimes_environment(lived: tuple[Container, Path], kind: str) -> None:
    """A hook that calls another program needs a PATH; the image's variables (CVE-2025-23266) are
    not among them."""
    one, record = lived
    seen = variables(record, kind)
    assert seen["OF_THE_CALLER"] == "x" and seen["PATH"] == "/usr/bin:/bin" and "LD_PRELOAD" not in seen
    if one.box.runtime.is_pyrunc:  # crun adds a variable of its own
        assert len(seen) == 2


def test_create_container_hooks_get_nothing(lived: tuple[Container, Path]) -> None:
    """These hooks execute a host program on the container's mounts: they get neither the caller's
    variables nor the image's."""
    one, record = lived
    seen = variables(record, "createContainer")
    assert "LD_PRELOAD" not in seen
    if one.box.runtime.name != "crun":
        assert not seen


def test_start_container_hooks_get_the_programs(lived: tuple[Container, Path]) -> None:
    """They also get the HOME that the program gets if config.json has none."""
    one, record = lived
    seen = variables(record, "startContainer")
    assert seen["LD_PRELOAD"] == "/evil.so" and seen["PATH"] != "/usr/bin:/bin" and "OF_THE_CALLER" not in seen
    if one.box.runtime.name != "crun":
        assert seen["HOME"] == "/root"


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_an_empty_environment_is_none(container: Make, box: Box, kind: str) -> None:
    out = box.path / "out"
    out.mkdir()
    bind = {"destination": "/out", "type": "bind", "source": str(out), "options": ["bind", "rw"]}
    place = "/out" if kind == "startContainer" else str(out)
    hook = shell(f"/bin/cat /proc/self/environ >{place}/{kind}.env", env=[])
    one = container("exit", "0", edits={f"/hooks/{kind}": [hook], "/mounts/-": bind})
    if kind == "startContainer" and not box.runtime.is_pyrunc and box.runtime.name != "crun":
        pytest.skip("runc takes an empty list for none given here, though not for the other kinds")
    one.run()
    busybox = {"PATH": "/sbin:/usr/sbin:/bin:/usr/bin"}  # its shell exports this if there is none
    assert variables(out, kind) == (busybox if kind == "startContainer" else {})


@pytest.mark.parametrize("kind", HOST)
def test_no_descriptor_of_the_runtime_in_hooks(lived: tuple[Container, Path], kind: str) -> None:
    one, record = lived
    lines = [line for line in (record / f"{kind}.fds").read_text().splitlines() if "->" in line]
    numbers = {int(line.split(" -> ")[0].split()[-1]) for line in lines}
    assert numbers >= {0, 1, 2}
    # 3: ls reading the directory
    assert numbers <= {0, 1, 2, 3} or not one.box.runtime.is_pyrunc


@pytest.mark.pyrunc_only("runc leaves the working directory of its own caller")
@pytest.mark.parametrize("kind", HOST)
def test_working_directory_is_the_bundle(lived: tuple[Container, Path], kind: str) -> None:
    one, record = lived
    assert (record / f"{kind}.cwd").read_text().strip() == str(one.bundle.path)


def test_args_are_the_whole_argv_and_env_the_whole_environment(container: Make, box: Box) -> None:
    out = box.path / "out"
    script = box.path / "hook.sh"
    script.write_text(
        f'#!/bin/sh\necho "$1|$2|$A" >{out}; tr "\\0" "\\n" </proc/$$/environ | grep -v -e ^PWD= >>{out}\n'
    )
    script.chmod(0o755)
    hook = {"path": str(script), "args": ["name", "one", "two words"], "env": ["A=1", "B=2"]}
    container("exit", "0", edits={"/hooks/createRuntime": [hook]}).run()
    lines = out.read_text().splitlines()
    assert lines[0] == "one|two words|1"
    assert sorted(lines[1:]) == ["A=1", "B=2"]


def test_a_hook_without_args_gets_its_path(container: Make, box: Box) -> None:
    out = box.path / "out"
    script = box.path / "hook.sh"
    script.write_text(f"#!/bin/sh\necho $# >{out}\n")
    script.chmod(0o755)
    container("exit", "0", edits={"/hooks/createRuntime": [{"path": str(script)}]}).run()
    assert out.read_text() == "0\n"


def test_listed_order(container: Make, box: Box) -> None:
    out = box.path / "out"
    hooks = [shell(f"sleep 0.0{5 - n}; echo {n} >>{out}") for n in range(4)]
    container("exit", "0", edits={"/hooks/createRuntime": hooks}).run()
    assert out.read_text().split() == ["0", "1", "2", "3"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_failure_undoes_create(container: Make, box: Box, refused: Refused, kind: str) -> None:
    out = box.path / "out"
    hooks = {
        kind: [shell("echo said so >&2; exit 3"), shell(f"echo second >>{out}")],
        "poststop": [shell(f"echo stop >>{out}")],
    }
    result = container("exit", "0", edits={"/hooks": hooks}).create(check=False)
    assert "3" in result.err
    if box.runtime.name != "crun":  # crun prints neither the hook's output nor its name
        assert "said so" in result.err
        assert f"error running {kind} hook #0: " in result.err
    refused(result, f"/hooks/{kind}/0")
    if box.runtime.is_pyrunc:
        assert out.read_text().split() == ["stop"], "poststop runs, the second hook does not"


@pytest.mark.pyrunc_only("runc and crun report it on the container's stderr only, and `start` succeeds")
def test_failing_start_container(container: Make, box: Box) -> None:
    out = box.path / "out"
    hooks = {"startContainer": [{"path": "/bin/false"}], "poststop": [shell(f"echo stop >>{out}")]}
    one = container("say", "program ran", edits={"/hooks": hooks})
    one.create()
    result = one.start(check=False)
    assert result.rc == 1
    assert "/hooks/startContainer/0" in result.err
    assert "error running startContainer hook #0: exit status 1" in result.err
    assert one.out == ""
    assert out.read_text().split() == ["stop"], "continue at destroy (runtime.md, lifecycle 7)"
    destroyed(one)
    one.delete("--force")
    assert out.read_text().split() == ["stop"], "once"


def destroyed(one: Container) -> None:
    """A failed start removes the container. Engines delete it afterwards, and must get the usual
    error."""
    assert "does not exist" in one.call("state", one.id, check=False).err
    again = one.delete(check=False)
    if one.box.runtime.name != "crun":  # crun reports that it cannot open a directory
        assert again.rc == 1 and "does not exist" in again.err
    assert one.id not in one.box.runtime.call("list", "-q").out


def test_failing_poststart_destroys_the_container(container: Make, box: Box) -> None:
    out = box.path / "out"
    hooks = {"poststart": [shell("exit 4")], "poststop": [shell(f"echo stop >>{out}")]}
    one = container("signals", "60", edits={"/hooks": hooks})
    created = one.create(check=False)
    result = one.start(check=False)
    assert result.rc == 1
    if box.runtime.is_pyrunc:  # runc runs them in create
        assert created.rc == 0
        assert "/hooks/poststart/0" in result.err and "error running poststart hook #0: exit status 4" in result.err
        wait_until(lambda: one.pid not in box.children(), "the container to be killed")
    assert out.read_text().split() == ["stop"], "continue at destroy (runtime.md, lifecycle 9)"
    destroyed(one)
    one.delete("--force")
    assert out.read_text().split() == ["stop"], "once"


def test_a_program_that_cannot_be_executed_leaves_a_stopped_container(container: Make, box: Box) -> None:
    """No hook failed: as in the peers, the container remains for inspection and `delete`."""
    out = box.path / "out"
    one = container(edits={"/hooks/poststop": [shell(f"echo stop >>{out}")], "/process/args": ["/run.sh"]})
    one.bundle.rootfs.joinpath("run.sh").write_text("#!/no/such/interpreter\n")
    one.bundle.rootfs.joinpath("run.sh").chmod(0o755)
    one.create()
    one.start(check=False)
    one.wait()
    one.wait_status("stopped")
    assert not out.exists()
    one.delete()
    assert out.read_text().split() == ["stop"]


@pytest.mark.pyrunc_only("runc 1.1.5 runs poststart before the program is executed")
def test_poststart_sees_the_program(container: Make, box: Box) -> None:
    out = box.path / "out"
    script = (
        f'read -r line; pid=$(echo "$line" | sed \'s/.*"pid": *\\([0-9]*\\).*/\\1/\'); cat /proc/$pid/cmdline >{out}'
    )
    one = container("signals", "60", edits={"/hooks/poststart": [shell(script, env=["PATH=/usr/bin:/bin"])]})
    one.create()
    one.start()
    assert out.read_text().startswith("/probe\0signals")


@pytest.mark.parametrize("flags", [(), ("--detach",)], ids=["foreground", "detached"])
def test_poststart_runs_when_the_program_has_ended_already(container: Make, box: Box, flags: tuple[str, ...]) -> None:
    out = box.path / "out"
    for number in range(12):
        one = container(edits={"/process/args": ["/bin/true"], "/hooks/poststart": [shell(f"echo {number} >>{out}")]})
        assert one.run(*flags, check=False).rc == 0
        assert out.read_text().split() == [str(n) for n in range(number + 1)]
        if flags:
            one.delete("--force")


@pytest.mark.pyrunc_only("runc stops at the first failing poststop hook and fails; the spec wants a warning")
def test_failing_poststop_is_a_warning(container: Make, box: Box) -> None:
    out, log = box.path / "out", box.path / "log"
    hooks = {"poststop": [shell("exit 5"), shell(f"echo second >>{out}")]}
    one = container("exit", "0", edits={"/hooks": hooks})
    one.create()
    result = one.call("delete", one.id, globals_=["--log", str(log)])
    assert result.err == ""
    assert out.read_text().split() == ["second"]
    assert "level=warning" in log.read_text()
    assert "poststop" in log.read_text()
    assert not box.leftovers()


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_timeout(container: Make, refused: Refused, kind: str) -> None:
    start = time.monotonic()
    result = container("exit", "0", edits={f"/hooks/{kind}": [shell("exec sleep 30", timeout=1)]}).create(check=False)
    assert 0.9 < time.monotonic() - start < 5
    refused(result, f"/hooks/{kind}/0", "timed out")


def test_a_hook_within_its_timeout(container: Make) -> None:
    assert container("exit", "0", edits={"/hooks/createRuntime": [shell("sleep 0.1", timeout=20)]}).run().rc == 0


def test_a_hook_that_reads_nothing(container: Make) -> None:
    """Writing the state to a hook that has ended is not an error, whatever its size."""
    edits = {"/annotations": {"big": "x" * 300_000}, "/hooks/createRuntime": [{"path": "/bin/true"}]}
    edits["/hooks/createContainer"] = [{"path": "/bin/true"}]
    edits["/hooks/poststop"] = [{"path": "/bin/true"}]
    one = container("exit", "0", edits=edits)
    one.create()
    one.delete()


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_the_state_cannot_be_changed(container: Make, box: Box, kind: str) -> None:
    out = box.path / "out"
    out.mkdir()
    place = "/out" if kind == "startContainer" else str(out)
    script = f"{{ echo x >&0; truncate -s 0 /proc/self/fd/0; }} 2>/dev/null; cat >{place}/state"
    one = container("exit", "0", edits={f"/hooks/{kind}": [shell(script, env=["PATH=/bin:/usr/bin"])]})
    bind = {"destination": "/out", "type": "bind", "source": str(out), "options": ["bind", "rw"]}
    one.bundle.config["mounts"].append(bind)
    one.run()
    assert json.loads((out / "state").read_text())["id"] == one.id


def test_big_state_reaches_the_hook(container: Make, box: Box) -> None:
    out = box.path / "out"
    edits = {"/annotations": {"big": "x" * 300_000}, "/hooks/createRuntime": [shell(f"cat >{out}")]}
    container("exit", "0", edits=edits).run()
    assert len(json.loads(out.read_text())["annotations"]["big"]) == 300_000


def test_create_container_sees_the_host_and_its_root(container: Make, box: Box) -> None:
    """It runs before pivot_root: paths are the host's, mounts are the container's."""
    out = box.path / "out"
    one = container("ls", "/mnt")
    one.bundle.config["hooks"] = {
        "createContainer": [
            shell(f"mount -t tmpfs x {one.bundle.rootfs}/mnt && touch {one.bundle.rootfs}/mnt/in; pwd >{out}")
        ]
    }
    assert one.run().objects[0]["names"] == ["in"]
    assert not list((one.bundle.rootfs / "mnt").iterdir())
    assert out.read_text().strip() == str(one.bundle.rootfs)


def test_prestart_can_use_the_network_namespace(container: Make, box: Box) -> None:
    """Hooks enter /proc/PID/ns/net, as CNI and docker's libnetwork do."""
    out = box.path / "out"
    script = f"pid=$(tr -d ' \\n' | sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net >{out}"
    one = container("report", edits={"/hooks/prestart": [shell(script, env=["PATH=/usr/bin:/bin"])]})
    assert one.run().report["ns"]["net"] == out.read_text().strip()


@pytest.mark.pyrunc_only("runc and crun notice these only when the hook runs")
@pytest.mark.parametrize(
    ("hook", "pointer"),
    [
        ({"path": "bin/true"}, "/path"),
        ({}, "/path"),
        ({"path": "/bin/true", "timeout": 0}, "/timeout"),
        ({"path": "/bin/true", "timeout": -1}, "/timeout"),
        ({"path": "/bin/true", "args": "x"}, "/args"),
        ({"path": "/bin/true", "env": ["NOEQUALS"]}, "/env/0"),
    ],
)
@pytest.mark.parametrize("kind", ["prestart", "poststop"])
def test_bad_hooks_are_refused_before_anything_is_created(
    container: Make, refused: Refused, kind: str, hook: dict[str, Any], pointer: str
) -> None:
    refused(container(edits={f"/hooks/{kind}": [hook]}).create(check=False), f"/hooks/{kind}/0{pointer}")


def test_a_hook_that_does_not_exist(container: Make, refused: Refused) -> None:
    result = container(edits={"/hooks/createRuntime": [{"path": "/no/such/hook"}]}).create(check=False)
    refused(result, "/hooks/createRuntime/0", "/no/such/hook")
    if container.__self__.runtime.is_pyrunc:  # type: ignore[attr-defined]
        assert "no such file or directory" not in result.err, "podman would exit with 127"
