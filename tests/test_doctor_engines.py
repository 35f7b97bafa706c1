"""pyrunc.doctor.engines: configurations of containerd, CRI-O, podman and docker, and the
commands that fix them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import doctor_support
from doctor_support import Made, flat, made, only, program_at
from pyrunc.doctor import engines
from pyrunc.doctor.findings import Area, Finding

complete = doctor_support.complete

ROOT = Path(__file__).resolve().parent.parent
CONTAINERD = "/etc/containerd/config.toml"
CRIO = "/etc/crio/crio.conf.d/10-pyrunc.conf"
PODMAN = "/etc/containers/containers.conf.d/pyrunc.conf"
DOCKER = "/etc/docker/daemon.json"
PROGRAMS = {
    "containerd": "/usr/bin/containerd",
    "cri-o": "/usr/bin/crio",
    "podman": "/usr/bin/podman",
    "docker": "/usr/bin/dockerd",
}
# Our drop-in files, as the tests with real engines use them.
CONTRIB = {
    "containerd": (CONTAINERD, "containerd/containerd-2.toml"),
    "cri-o": (CRIO, "crio/10-pyrunc.conf"),
    "podman": (PODMAN, "podman/pyrunc.conf"),
    "docker": (DOCKER, "docker/daemon.json"),
}


def contrib(engine: str) -> dict[str, str | None]:
    file, source = CONTRIB[engine]
    text = (ROOT / "contrib" / source).read_text()
    return {file: f"version = 3\n{text}" if engine == "containerd" else text}


def installed(top: Path, engine: str, files: dict[str, str | None]) -> Made:
    """A host with one engine and pyrunc."""
    machine = made(top, files)
    program_at(top, PROGRAMS[engine], "/usr/local/bin/pyrunc", "/usr/bin/conmon")
    return machine


def look(machine: Made) -> list[Finding]:
    return flat(engines.check(machine))


def containerd(name: str = "pyrunc", version: int = 3, **changes: str) -> dict[str, str | None]:
    """config.toml with one handler."""
    keys = {"BinaryName": '"/usr/local/bin/pyrunc"', "runtime_type": f'"{engines.SHIM}"', **changes}
    kind = keys.pop("runtime_type")
    head = f'[plugins."{engines.PLUGINS[version]}".containerd.runtimes.{name}'
    options = "".join(f"{key} = {value}\n" for key, value in keys.items() if value)
    return {CONTAINERD: f"version = {version}\n{head}]\nruntime_type = {kind}\n{head}.options]\n{options}"}


def test_no_engine(tmp_path: Path) -> None:
    assert [one.status for one in look(made(tmp_path))] == ["ok"]


@pytest.mark.parametrize("engine", list(CONTRIB))
def test_our_own_configuration_is_right(engine: str, tmp_path: Path) -> None:
    found = look(installed(tmp_path, engine, contrib(engine)))
    assert {one.status for one in found if one.check == engine} == {"ok"}, found


@pytest.mark.parametrize("engine", list(CONTRIB))
def test_the_program_is_not_there(engine: str, tmp_path: Path) -> None:
    machine = installed(tmp_path, engine, contrib(engine))
    (tmp_path / "usr/local/bin/pyrunc").unlink()
    found = only(look(machine), engine)
    assert found.status == "problem" and '"/usr/local/bin/pyrunc" cannot be executed' in found.seen


@pytest.mark.parametrize("engine", list(CONTRIB))
def test_another_copy_is_configured(engine: str, tmp_path: Path) -> None:
    machine = installed(tmp_path, engine, contrib(engine))
    machine.program = "/opt/pyrunc"
    program_at(tmp_path, "/opt/pyrunc")
    found = only(look(machine), engine)
    assert found.status == "note" and "/opt/pyrunc" in found.means


@pytest.mark.parametrize("engine", list(CONTRIB))
@pytest.mark.parametrize("before", ["", "{}"])
def test_the_command_registers_pyrunc(engine: str, before: str, tmp_path: Path) -> None:
    """Run the commands below another root, with a fake systemctl that starts nothing."""
    file = CONTRIB[engine][0]
    text = {"containerd": "version = 2\n", "docker": '{"debug": true}'}.get(engine) if before else None
    if text is not None and engine == "docker" and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    machine = installed(tmp_path, engine, {file: text})
    (tmp_path / file.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    found = only(look(machine), engine)
    assert found.status == "note" and "not registered" in found.seen
    script = found.mend.replace("/etc/", f"{tmp_path}/etc/").replace("systemctl", ":")
    subprocess.run(["sh", "-ec", script], check=True, cwd=tmp_path, timeout=20)
    assert {one.status for one in look(machine) if one.check == engine and "registered" in one.seen} == set()
    assert [one.status for one in look(machine) if "/usr/local/bin/pyrunc" in one.seen] == ["ok"]


@pytest.mark.parametrize("engine", list(CONTRIB))
@pytest.mark.parametrize("text", ["[", "[[[[" * 20000, "\0\1\2", "\udcff{", '{"a": {', "x" * (engines.CONFIG_MOST + 9)])
def test_a_configuration_that_cannot_be_read(engine: str, text: str, tmp_path: Path) -> None:
    file = CONTRIB[engine][0]
    machine = installed(tmp_path, engine, {file: ""})
    (tmp_path / file.lstrip("/")).write_bytes(text.encode("utf-8", "surrogateescape"))
    found = only(look(machine), engine)
    assert found.status == "problem" and found.seen.startswith(file)
    assert found.seen.isprintable()


@pytest.mark.parametrize(
    ("engine", "file", "text"),
    [
        ("containerd", CONTAINERD, 'version = "x"\nimports = 1\nplugins = []\ndisabled_plugins = 1\n'),
        ("containerd", CONTAINERD, '[plugins."io.containerd.cri.v1.runtime".containerd]\nruntimes = 1\n'),
        ("containerd", CONTAINERD, 'imports = [1, "*", "/", "../../../*"]\n'),
        ("cri-o", CRIO, "crio = 1\n"),
        ("cri-o", CRIO, "[crio.runtime.runtimes]\npyrunc = 1\n"),
        ("podman", PODMAN, "engine = 1\n"),
        ("podman", PODMAN, "[engine]\nruntime = 1\nruntime_supports_json = 1\nruntimes = {pyrunc = 1}\n"),
        ("docker", DOCKER, '{"runtimes": [], "default-runtime": 1, "exec-opts": {}}'),
        ("docker", DOCKER, '{"runtimes": {"pyrunc": null}}'),
    ],
)
def test_values_of_the_wrong_type(engine: str, file: str, text: str, tmp_path: Path) -> None:
    """A damaged file is never an internal error."""
    assert engine in {one.check for one in look(installed(tmp_path, engine, {file: text}))}


def test_bounded(tmp_path: Path) -> None:
    runtimes = "".join(f"p{number} = ['/nowhere/pyrunc']\n" for number in range(3000))
    found = look(installed(tmp_path, "podman", {PODMAN: f"[engine.runtimes]\n{runtimes}"}))
    assert 10 < len(found) < 100


# -- containerd ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "seen"),
    [
        (containerd(runtime_type='"io.containerd.kata.v2"'), "runtime_type"),
        (containerd(BinaryName=""), "has no options.BinaryName"),
        ({CONTAINERD: (containerd(version=2)[CONTAINERD] or "").replace("version = 2", "version = 3")}, "is not read"),
        ({CONTAINERD: (containerd(version=3)[CONTAINERD] or "").replace("version = 3", "version = 2")}, "is not read"),
        (containerd(SystemdCgroup="true"), "requires systemd"),
    ],
)
def test_containerd(files: dict[str, str | None], seen: str, tmp_path: Path) -> None:
    found = [one for one in look(installed(tmp_path, "containerd", files)) if one.status == "problem"]
    assert len(found) == 1 and seen in found[0].seen


def test_containerd_imports(tmp_path: Path) -> None:
    files = {CONTAINERD: 'version = 3\nimports = ["conf.d/*.toml"]\n'}
    files["/etc/containerd/conf.d/pyrunc.toml"] = containerd()[CONTAINERD] or ""
    found = look(installed(tmp_path, "containerd", {**files}))
    assert only(found, "containerd").status == "ok"


def test_containerd_default_that_is_not_configured(tmp_path: Path) -> None:
    text = (containerd()[CONTAINERD] or "") + f'[plugins."{engines.PLUGINS[3]}".containerd]\n'
    for name, status in (("gone", "problem"), ("pyrunc", "ok"), ("runc", "ok")):
        machine = installed(tmp_path, "containerd", {CONTAINERD: f'{text}default_runtime_name = "{name}"\n'})
        assert only(look(machine), "containerd").status == status


def test_containerd_without_cri(tmp_path: Path) -> None:
    text = 'disabled_plugins = ["cri"]\n' + (containerd()[CONTAINERD] or "")
    assert (
        "CRI plugin is disabled" in only(look(installed(tmp_path, "containerd", {CONTAINERD: text})), "containerd").seen
    )


def test_cgroupfs_on_a_host_with_systemd(tmp_path: Path) -> None:
    files = {**containerd(), "/run/systemd/system/x": ""}
    found = only(look(installed(tmp_path, "containerd", files)), "containerd")
    assert found.status == "note" and "cgroupfs driver" in found.seen
    files = {**containerd(SystemdCgroup="true"), "/run/systemd/system/x": ""}
    assert only(look(installed(tmp_path, "containerd", files)), "containerd").status == "ok"


# -- the others ------------------------------------------------------------------------------------


def test_crio(tmp_path: Path) -> None:
    text = contrib("cri-o")[CRIO] or ""
    machine = installed(tmp_path, "cri-o", {CRIO: text.replace('"oci"', '"vm"')})
    assert "runtime_type" in only(look(machine), "cri-o").seen
    machine = installed(
        tmp_path, "cri-o", {CRIO: text.replace('default_runtime = "pyrunc"', 'default_runtime = "gone"')}
    )
    assert "default_runtime" in only(look(machine), "cri-o").seen
    machine = installed(tmp_path, "cri-o", {CRIO: text})
    (tmp_path / "usr/bin/conmon").unlink()
    assert only(look(machine), "cri-o").mend == "apt-get install conmon"


def test_crio_with_other_runtimes(tmp_path: Path) -> None:
    """Those before ours are skipped."""
    section = "[crio.runtime.runtimes.pyrunc]"
    other = '[crio.runtime.runtimes.another]\nruntime_path = "/usr/bin/another"\n'
    text = (contrib("cri-o")[CRIO] or "").replace(section, other + section)
    found = [one.seen for one in look(installed(tmp_path, "cri-o", {CRIO: text})) if one.check == "cri-o"]
    assert 'runtime "pyrunc": /usr/local/bin/pyrunc' in found and not any("another" in seen for seen in found)


def test_a_program_that_is_removed_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing says then that it is another copy."""
    machine = installed(tmp_path, "containerd", containerd())
    real = Made.stat
    monkeypatch.setattr(Made, "is_program", lambda self, path: True)
    for gone in ("/usr/local/bin/pyrunc", "/opt/pyrunc"):
        machine.program = "/opt/pyrunc"
        monkeypatch.setattr(Made, "stat", lambda self, path, gone=gone: None if path == gone else real(self, path))
        program_at(tmp_path, "/opt/pyrunc")
        assert only(look(machine), "containerd").status == "ok"


def test_at_most_so_many_handlers(tmp_path: Path) -> None:
    head = f'[plugins."{engines.PLUGINS[3]}".containerd.runtimes'
    handlers = "".join(
        f'{head}.h{number}]\n{head}.h{number}.options]\nBinaryName = "/pyrunc"\n'
        for number in range(engines.DROP_INS + 5)
    )
    area = Area("engines")
    machine = installed(tmp_path, "containerd", {CONTAINERD: f"version = 3\n{handlers}"})
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engines, "containerd_entry", lambda machine, area, where, entry, read: asked.append(where))
        engines.containerd(machine, area)
    assert len(asked) == engines.DROP_INS and asked[-1].endswith(f'"h{engines.DROP_INS - 1}"')


def test_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: f"home of {path}")
    machine = made(tmp_path)
    homes = []
    for env in ({"HOME": "/h"}, {"HOME": ""}, {}):
        machine.env = env
        homes.append(engines.home(machine))
    assert homes == ["/h", "home of ~", "home of ~"]


def test_podman(tmp_path: Path) -> None:
    text = '[engine]\nruntime = "gone"\n[engine.runtimes]\npyrunc = ["/nowhere", "/usr/local/bin/pyrunc"]\n'
    found = look(installed(tmp_path, "podman", {PODMAN: text}))
    assert [(one.status, one.seen.split()[0]) for one in found] == [
        ("problem", "runtime"),
        ("ok", "runtime"),
        ("note", "runtime_supports_json"),
        ("note", "runtime_supports_nocgroup"),
    ]


def test_podman_of_a_user(tmp_path: Path) -> None:
    machine = installed(tmp_path, "podman", {"/home/joe/.config/containers/containers.conf": contrib("podman")[PODMAN]})
    machine.env = {"HOME": "/home/joe"}
    assert only(look(machine), "podman").status == "note"  # root's
    machine.become(1000)
    assert only(look(machine), "podman").status == "ok"
    machine.env = {"HOME": "/home/joe", "CONTAINERS_CONF": "/nowhere"}
    assert only(look(machine), "podman").status == "note"


def test_docker(tmp_path: Path) -> None:
    machine = installed(tmp_path, "docker", {DOCKER: '{"default-runtime": "gone"}'})
    assert [one.status for one in look(machine)] == ["problem", "note"]
