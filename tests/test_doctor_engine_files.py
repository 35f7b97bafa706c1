"""pyrunc.doctor.engines: defaults, entries and files of each engine, one step from a finding; the
complete findings compared with a transcript."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import doctor_support
from doctor_support import Made, flat, made
from pyrunc.doctor import engines

complete = doctor_support.complete


def user(machine: Made) -> None:
    machine.become(1000)


PYRUNC = "/usr/local/bin/pyrunc"
ENGINES: dict[str, tuple[str, dict[str, str | None]]] = {
    **{
        f"podman-default-{name}": ("podman", {"/etc/containers/containers.conf": f'[engine]\nruntime = "{name}"\n'})
        for name in ("runc", "crun", "kata", "runsc", "youki", "krun", "other", "/usr/bin/x", "")
    },
    **{
        f"crio-default-{name}": ("crio", {"/etc/crio/crio.conf": f'[crio.runtime]\ndefault_runtime = "{name}"\n'})
        for name in ("runc", "crun", "other", "/usr/bin/x")
    },
    **{
        f"docker-default-{number}": ("dockerd", {"/etc/docker/daemon.json": f'{{"default-runtime": "{name}"}}'})
        for number, name in enumerate(("runc", engines.SHIM, "crun"))
    },
    "podman-second-path": (
        "podman",
        {
            "/etc/containers/containers.conf": f'[engine]\nruntime_supports_json=["pyrunc"]\nruntime_supports_nocgroup=["x"]\n[engine.runtimes]\npyrunc = ["/none/pyrunc", "{PYRUNC}"]\n'  # noqa: E501
        },
    ),
    "podman-empty-list": ("podman", {"/etc/containers/containers.conf": "[engine.runtimes]\npyrunc = []\n"}),
    "podman-other-name": (
        "podman",
        {"/etc/containers/containers.conf": f'[engine.runtimes]\nx = ["{PYRUNC}"]\ny = ["/usr/bin/x"]\nz = []\n'},
    ),
    "podman-order": (
        "podman",
        {
            "/usr/share/containers/containers.conf": '[engine]\nruntime = "a"\n[engine.runtimes]\npyrunc = ["/usr/bin/no"]\n',  # noqa: E501
            "/etc/containers/containers.conf": f'[engine]\nruntime = "b"\n[engine.runtimes]\npyrunc = ["{PYRUNC}"]\n',
            "/etc/containers/containers.conf.d/x.conf": '[engine]\nruntime = "c"\n',
            "/etc/containers/containers.conf.d/y.txt": '[engine]\nruntime = "d"\n',
        },
    ),
    "docker-options": (
        "dockerd",
        {
            "/etc/docker/daemon.json": f'{{"runtimes": {{"x": {{"runtimeType": "t", "options": {{"BinaryName": "{PYRUNC}"}}}}, "pyrunc": {{}}, "other": {{"path": "/x/y"}}}}}}'  # noqa: E501
        },
    ),
    "docker-systemd": (
        "dockerd",
        {
            "/run/systemd/system/x": "",
            "/etc/docker/daemon.json": f'{{"runtimes": {{"pyrunc": {{"path": "{PYRUNC}"}}}}}}',
        },
    ),
    "docker-cgroupfs": (
        "dockerd",
        {
            "/run/systemd/system/x": "",
            "/etc/docker/daemon.json": f'{{"exec-opts": ["native.cgroupdriver=cgroupfs"], "runtimes": {{"pyrunc": {{"path": "{PYRUNC}"}}}}}}',  # noqa: E501
        },
    ),
    "docker-empty": ("dockerd", {"/etc/docker/daemon.json": " \n"}),
    "docker-list": ("dockerd", {"/etc/docker/daemon.json": "[]"}),
    "crio-types": (
        "crio",
        {
            "/etc/crio/crio.conf": "".join(
                f'[crio.runtime.runtimes.pyrunc-{kind}]\nruntime_path = "{PYRUNC}"\nruntime_type = "{kind}"\n'
                for kind in ("", "oci", "pod", "vm")
            )
        },
    ),
    "crio-cgroupfs": (
        "crio",
        {
            "/run/systemd/system/x": "",
            "/etc/crio/crio.conf": f'[crio.runtime]\ncgroup_manager = "cgroupfs"\n[crio.runtime.runtimes.pyrunc]\nruntime_path = "{PYRUNC}"\nmonitor_path = "/none/conmon"\n',  # noqa: E501
        },
    ),
    "crio-by-name": (
        "crio",
        {
            "/etc/crio/crio.conf.d/1.conf": '[crio.runtime.runtimes.pyrunc]\nmonitor_path = "/usr/local/bin/pyrunc"\n[crio.runtime.runtimes.other]\nruntime_path = "/x"\n'  # noqa: E501
        },
    ),
    "crio-only-files": ("none", {"/etc/crio/crio.conf.d/1.conf": ""}),
    "containerd-only-file": ("none", {"/etc/containerd/config.toml": ""}),
    "containerd-versions": (
        "containerd",
        {
            "/etc/containerd/config.toml": "".join(
                f'[plugins."{name}".containerd]\ndefault_runtime_name = "{default}"\n[plugins."{name}".containerd.runtimes.pyrunc]\nruntime_type = "{engines.SHIM}"\n[plugins."{name}".containerd.runtimes.pyrunc.options]\nBinaryName = "{PYRUNC}"\n'  # noqa: E501
                for name, default in zip(engines.PLUGINS.values(), ("gone", "runc"), strict=True)
            )
        },
    ),
    "containerd-imports": (
        "containerd",
        {
            "/etc/containerd/config.toml": 'version = 2\nimports = ["/etc/x/*.toml", "more.toml"]\n',
            "/etc/x/b.toml": 'disabled_plugins = ["cri"]\nimports = ["/etc/y.toml"]\n',
            "/etc/containerd/more.toml": f'[plugins."{engines.PLUGINS[2]}".containerd.runtimes.x]\nruntime_type = "{engines.SHIM}"\noptions = {{BinaryName = "/opt/pyrunc-2", SystemdCgroup = true}}\n',  # noqa: E501
        },
    ),
}


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("uid", [0, 1000])
def test_engines(name: str, uid: int, tmp_path: Path) -> None:
    program, files = ENGINES[name]
    machine = made(tmp_path, files)
    doctor_support.program_at(tmp_path, f"/usr/bin/{program}", PYRUNC)
    if uid:
        user(machine)
        machine.env = {"HOME": "/home/u"}
        config = next(iter(files.values())) or ""
        for place in (".config/docker/daemon.json", ".config/containers/containers.conf"):
            (tmp_path / "home/u" / place).parent.mkdir(parents=True, exist_ok=True)
            if "json" in place and program == "dockerd":
                (tmp_path / "home/u" / place).write_text(config)
    assert flat(engines.check(machine))


def test_files_of_podman(tmp_path: Path) -> None:
    machine = made(tmp_path)
    machine.env = {"CONTAINERS_CONF": "/c", "HOME": "/h"}
    assert engines.podman_files(machine) == ["/c"]
    machine.env = {"HOME": "/h"}
    system = ["/usr/share/containers/containers.conf", "/etc/containers/containers.conf"]
    assert engines.podman_files(machine) == system
    user(machine)
    assert engines.podman_files(machine) == [*system, "/h/.config/containers/containers.conf"]
    machine.env = {"XDG_CONFIG_HOME": "/x"}
    assert engines.podman_files(machine) == [*system, "/x/containers/containers.conf"]


@pytest.mark.parametrize(
    ("into", "other", "wanted"),
    [
        ({"a": {"x": 1, "t": {"p": 1}}}, {"a": {"y": 2, "t": {"q": 2}}}, {"a": {"x": 1, "y": 2, "t": {"p": 1, "q": 2}}}),  # noqa: E501
        ({"a": {"x": 1}}, {"a": 2}, {"a": 2}), ({"a": 2}, {"a": {"x": 1}}, {"a": {"x": 1}}), ({}, {"b": [1]}, {"b": [1]}),  # noqa: E501
        ({"l": [1]}, {"l": [2]}, {"l": [2]}),
    ],
)  # fmt: skip
def test_merging(into: Any, other: Any, wanted: Any) -> None:
    engines.merge(into, other)
    assert into == wanted
