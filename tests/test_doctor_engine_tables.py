"""What the doctor says about the engines of hosts that exist only in memory, each word of it.

golden/doctor_engine_tables.txt has the findings (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review
the diff).
"""

from __future__ import annotations

import json
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript
from pyrunc.doctor import engines
from pyrunc.doctor.findings import Area
from test_results import results

SYSTEMD = "/run/systemd/system"
OWN = "/usr/bin/pyrunc"
TOML, CRIO, DOCKER = "/etc/containerd/config.toml", "/etc/crio/crio.conf", "/etc/docker/daemon.json"
PODMAN = "/etc/containers/containers.conf"
MINE = ".config/containers/containers.conf"
compare = partial(transcript.compare, "doctor_engine_tables")


class Host:
    """A host of some files and programs; each program is a different file."""

    program = OWN

    def __init__(
        self, files: dict[str, str], programs: str, *, euid: int = 0, env: dict[str, str] | None = None, own: str = OWN
    ) -> None:
        self.files, self.programs, self.euid = files, [*own.split(), *programs.split()], euid
        self.env = {"HOME": "/home/me"} if env is None else env

    def text(self, path: str, most: int) -> str:
        return self.files.get(path, "")[:most]

    def exists(self, path: str) -> bool:
        return path in self.files

    def names(self, path: str) -> list[str]:
        return sorted(name.rpartition("/")[2] for name in self.files if name.rpartition("/")[0] == path)

    def find(self, program: str) -> str:
        return next((path for path in self.programs if path.rpartition("/")[2] == program), "")

    def is_program(self, path: str) -> bool:
        return path in self.programs

    def stat(self, path: str) -> Any:
        # Neither number is equal for two files; a copy has the inode number of the original.
        at = self.programs.index(path) if path in self.programs else -1
        return SimpleNamespace(st_dev=at, st_ino=0 if path.endswith("copy") else at) if at >= 0 else None


def told(files: dict[str, str], programs: str, **more: Any) -> list[str]:
    """All findings, each part on a line of its own."""
    (area,) = engines.check(Host(files, programs, **more))  # type: ignore[arg-type]
    return lines(area)


def lines(area: Area) -> list[str]:
    return [part for one in area.done() for part in (f"{one.status} {one.check}: {one.seen}", *(
        f"  {name}: {words}" for name, words in (("means", one.means), ("mend", one.mend)) if words))]  # fmt: skip


def handler(
    name: str, plugin: str = "io.containerd.cri.v1.runtime", kind: str = engines.SHIM, **options: object
) -> str:
    """A runtime of containerd."""
    head = f'[plugins."{plugin}".containerd.runtimes.{name}'
    text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
    return f'{head}]\nruntime_type = "{kind}"\n' + (f"{head}.options]\n{text}" if text else "")


OLD = "io.containerd.grpc.v1.cri"
SYSTEMD_CGROUP: dict[str, Any] = {"BinaryName": OWN, "SystemdCgroup": True}
CONTAINERD: dict[str, tuple[dict[str, str], str]] = {
    "not installed": ({}, ""),
    "installed": ({}, "/usr/bin/containerd"),
    "only the file": ({TOML: ""}, ""),
    "no runtime": ({TOML: "version = 2\n"}, "/usr/bin/containerd"),
    "version 4": ({TOML: "version = 4\n"}, ""),
    "a version that is text": ({TOML: 'version = "2"\n'}, ""),
    "no version": ({TOML: "root = '/x'\n"}, ""),
    "version 1": ({TOML: handler("pyrunc", OLD, BinaryName=OWN) + handler("pyrunc", BinaryName=OWN)}, ""),
    "version 2": ({TOML: "version = 2\n" + handler("pyrunc", OLD, BinaryName=OWN)}, ""),
    "version 3": ({TOML: "version = 3\n" + handler("pyrunc", BinaryName=OWN)}, ""),
    "the section of version 2": ({TOML: "version = 3\n" + handler("pyrunc", OLD, BinaryName=OWN)}, ""),
    "the section of version 3": ({TOML: "version = 2\n" + handler("pyrunc", BinaryName=OWN)}, ""),
    "another shim": ({TOML: "version = 3\n" + handler("pyrunc", kind="io.containerd.runsc.v1", BinaryName=OWN)}, ""),
    "no binary": ({TOML: "version = 3\n" + handler("pyrunc")}, ""),
    "a missing binary": ({TOML: "version = 3\n" + handler("x", BinaryName="/opt/pyrunc")}, ""),
    "another binary": ({TOML: "version = 3\n" + handler("x", BinaryName="/opt/pyrunc")}, "/opt/pyrunc"),
    "another binary and two managers": (
        {TOML: "version = 3\n" + handler("x", BinaryName="/opt/pyrunc"), SYSTEMD: ""}, "/opt/pyrunc"),
    "a copy": ({TOML: "version = 3\n" + handler("x", BinaryName="/opt/pyrunc-copy")}, "/opt/pyrunc-copy"),
    "a name without a path": ({TOML: "version = 3\n" + handler("x", BinaryName="pyrunc")}, ""),
    "other runtimes": ({TOML: "version = 3\n" + handler("runc") + handler("y", BinaryName="/opt/crun")}, ""),
    "systemd": ({TOML: "version = 3\n" + handler("pyrunc", **SYSTEMD_CGROUP), SYSTEMD: ""}, ""),
    "systemd that is not running": ({TOML: "version = 3\n" + handler("pyrunc", **SYSTEMD_CGROUP)}, ""),
    "two managers": ({TOML: "version = 3\n" + handler("pyrunc", BinaryName=OWN), SYSTEMD: ""}, ""),
    **{f"default {name}": (
        {TOML: f"version = 3\n[plugins.'io.containerd.cri.v1.runtime'.containerd]\ndefault_runtime_name = '{name}'\n"
         + handler("pyrunc", BinaryName=OWN)}, "") for name in ("", "runc", "crun", "pyrunc", "/x", "a b")},
    "disabled": ({TOML: "version = 2\ndisabled_plugins = ['io.containerd.grpc.v1.cri']\n"}, ""),
    "others disabled": ({TOML: "version = 2\ndisabled_plugins = ['zfs']\n"}, ""),
    "imports": (
        {TOML: "version = 3\nimports = ['/etc/a/*.toml', 'b/c.toml', 'd.toml', 5]\n",
         "/etc/a/1.toml": handler("pyrunc"), "/etc/a/2.toml": handler("pyrunc", BinaryName="/x/pyrunc"),
         "/etc/a/3.txt": "wrong", "/etc/containerd/b/c.toml": handler("pyrunc2", BinaryName=OWN),
         "/etc/containerd/d.toml": handler("pyrunc3", BinaryName=OWN)}, ""),
    "imports that are no list": ({TOML: "version = 3\nimports = '/etc/a/*.toml'\n", "/etc/a/1.toml": handler("x")}, ""),
    "damaged": ({TOML: "version = \n"}, ""),
    "damaged imports": ({TOML: "version = 3\nimports = ['/a/b']\n", "/a/b": "["}, ""),
    "a huge file": ({TOML: "#" * (128 << 10) + "x"}, ""),
    "a large file": ({TOML: "#" * (128 << 10)}, ""),
    "many": ({TOML: "version = 3\n" + "".join(handler(f"r{n}", BinaryName="/x/pyrunc") for n in range(65))}, ""),
    "after another": ({TOML: "version = 3\n" + handler("x") + handler("pyrunc", BinaryName=OWN)}, ""),
    "an old section, then a new one": (
        {TOML: "version = 3\n" + handler("pyrunc", OLD, BinaryName=OWN) + handler("pyrunc", BinaryName=OWN)}, ""),
    "wrong types": ({TOML: "version = 3\nplugins = 5\n"}, ""),
}  # fmt: skip


def runtime(name: str, **values: object) -> str:
    """A runtime of CRI-O."""
    return f"[crio.runtime.runtimes.{name}]\n" + "".join(f"{key} = {json.dumps(one)}\n" for key, one in values.items())


HEAD = "[crio.runtime]\n"
CRIO_CASES: dict[str, tuple[dict[str, str], str]] = {
    "installed": ({}, "/usr/bin/crio"),
    "only a drop-in": ({"/etc/crio/crio.conf.d/1.conf": ""}, ""),
    "another file": ({"/etc/crio/crio.conf.d/1.txt": ""}, ""),
    "pyrunc": ({CRIO: runtime("pyrunc", runtime_path=OWN)}, ""),
    "without a path": ({CRIO: runtime("pyrunc", runtime_type="oci")}, ""),
    "by its path": ({CRIO: runtime("x", runtime_path=OWN, runtime_type="pod")}, ""),
    "another": ({CRIO: runtime("crun", runtime_path="/usr/bin/crun")}, "/usr/bin/crun"),
    "a shim": ({CRIO: runtime("pyrunc", runtime_path=OWN, runtime_type="vm")}, ""),
    "a missing program": ({CRIO: runtime("pyrunc", runtime_path="/x/pyrunc")}, ""),
    "a monitor": ({CRIO: runtime("pyrunc", runtime_path=OWN, monitor_path="/usr/bin/conmon")}, "/usr/bin/conmon"),
    "no monitor": ({CRIO: runtime("pyrunc", runtime_path=OWN, monitor_path="/usr/bin/conmon")}, ""),
    **{f"default {name}": ({CRIO: f"{HEAD}default_runtime = '{name}'\n" + runtime("pyrunc", runtime_path=OWN)}, "")
       for name in ("crun", "runc", "pyrunc", "kata", "/x")},
    **{f"manager {name}, {'' if systemd else 'no '}systemd": (
        {CRIO: f"{HEAD}cgroup_manager = '{name}'\n" + runtime("pyrunc", runtime_path=OWN)} | systemd, "")
       for name in ("cgroupfs", "systemd") for systemd in ({}, {SYSTEMD: ""})},
    "drop-ins": (
        {CRIO: runtime("pyrunc", runtime_path="/x/pyrunc"),
         "/etc/crio/crio.conf.d/2.conf": runtime("pyrunc", runtime_path=OWN),
         "/etc/crio/crio.conf.d/1.conf": runtime("pyrunc", runtime_path="/y/pyrunc", runtime_type="vm"),
         "/etc/crio/crio.conf.d/3.conf": runtime("pyrunc", runtime_type="oci")}, ""),
    "damaged": ({CRIO: "x"}, ""),
    "after another": ({CRIO: runtime("crun", runtime_path="/x") + runtime("pyrunc", runtime_path=OWN)}, ""),
    "a shim, then another": (
        {CRIO: runtime("pyrunc", runtime_path=OWN, runtime_type="vm") + runtime("x", runtime_path=OWN)}, ""),
    "many": ({CRIO: "".join(runtime(f"r{n}", runtime_path="/x/pyrunc") for n in range(65))}, ""),
}  # fmt: skip
LISTS = "runtime_supports_json = ['pyrunc']\nruntime_supports_nocgroup = ['crun', 'pyrunc']\n"
BOTH = f"[engine]\n{LISTS}[engine.runtimes]\npyrunc = ['/x', '{OWN}']\n"
USER = {"euid": 1000}
PODMAN_CASES: dict[str, tuple[dict[str, str], str, dict[str, Any]]] = {
    "not installed": ({PODMAN: "wrong"}, "", {}),
    "installed": ({}, "/usr/bin/podman", {}),
    "installed, a user": ({}, "/usr/bin/podman", USER),
    "installed, another home": ({}, "/usr/bin/podman", USER | {"env": {"HOME": "/a b"}}),
    "complete": ({PODMAN: BOTH}, "/usr/bin/podman", {}),
    "no lists": ({PODMAN: f"[engine.runtimes]\npyrunc = ['{OWN}']\n"}, "/usr/bin/podman", {}),
    "lists without it": ({PODMAN: BOTH.replace("'pyrunc']", "'x']")}, "/usr/bin/podman", {}),
    "lists of another type": ({PODMAN: BOTH.replace("['pyrunc']", "'pyrunc'")}, "/usr/bin/podman", {}),
    "no program": ({PODMAN: "[engine.runtimes]\npyrunc = ['/x', '/y']\n"}, "/usr/bin/podman", {}),
    "no paths": ({PODMAN: "[engine.runtimes]\npyrunc = []\n"}, "/usr/bin/podman", {}),
    "no list": ({PODMAN: f"[engine.runtimes]\npyrunc = '{OWN}'\n"}, "/usr/bin/podman", {}),
    "by its path": ({PODMAN: f"[engine.runtimes]\nx = ['{OWN}']\ny = ['/z', '{OWN}']\n"}, "/usr/bin/podman", {}),
    **{f"default {name}": ({PODMAN: f"[engine]\nruntime = '{name}'\n"}, "/usr/bin/podman", {})
       for name in ("crun", "runc", "kata", "runsc", "youki", "krun", "pyrunc", "/x")},
    "of the system": ({"/usr/share/containers/containers.conf": BOTH}, "/usr/bin/podman", {}),
    "of the system, overridden": (
        {"/usr/share/containers/containers.conf": BOTH.replace(OWN, "/y"),
         "/etc/containers/containers.conf.d/1.conf": BOTH}, "/usr/bin/podman", {}),
    "of root": ({f"/home/me/{MINE}": BOTH}, "/usr/bin/podman", {}),
    "of a user": ({f"/home/me/{MINE}": BOTH}, "/usr/bin/podman", USER),
    "of a user's drop-ins": ({f"/home/me/{MINE}.d/1.conf": BOTH}, "/usr/bin/podman", USER),
    "of XDG": ({"/xdg/containers/containers.conf": BOTH, f"/home/me/{MINE}": "wrong"}, "/usr/bin/podman",
               USER | {"env": {"XDG_CONFIG_HOME": "/xdg", "HOME": "/home/me"}}),
    "of the environment": ({"/my.conf": BOTH, PODMAN: "wrong"}, "/usr/bin/podman", {
        "env": {"CONTAINERS_CONF": "/my.conf"}}),
    "damaged": ({PODMAN: "x"}, "/usr/bin/podman", {}),
    "after another": ({PODMAN: f"[engine.runtimes]\nx = ['/z']\npyrunc = ['{OWN}']\n"}, "/usr/bin/podman", {}),
    "many": ({PODMAN: "[engine.runtimes]\n" + "".join(f"r{n} = ['/x/pyrunc']\n" for n in range(65))}, "/usr/bin/podman",
             {}),
}  # fmt: skip


def daemon(**values: object) -> str:
    return json.dumps(values)


REGISTERED = {"pyrunc": {"path": OWN}}
CGROUPFS = ["native.cgroupdriver=cgroupfs"]
DOCKER_CASES: dict[str, tuple[dict[str, str], str, dict[str, Any]]] = {
    "not installed": ({DOCKER: "wrong"}, "", {}),
    "installed": ({}, "/usr/bin/dockerd", {}),
    "a file": ({DOCKER: "{}"}, "/usr/bin/dockerd", {}),
    "an empty file": ({DOCKER: " \n"}, "/usr/bin/dockerd", {}),
    "a list": ({DOCKER: "[]"}, "/usr/bin/dockerd", {}),
    "a user": ({}, "/usr/bin/dockerd", USER),
    "a user with a file": ({"/home/me/.config/docker/daemon.json": "{}"}, "/usr/bin/dockerd", USER),
    "XDG": ({"/x y/docker/daemon.json": "{}"}, "/usr/bin/dockerd", USER | {"env": {"XDG_CONFIG_HOME": "/x y"}}),
    "registered": ({DOCKER: daemon(runtimes=REGISTERED)}, "/usr/bin/dockerd", {}),
    "registered, and this one was removed": (
        {DOCKER: daemon(runtimes={"x": {"path": "/opt/pyrunc"}})}, "/usr/bin/dockerd /opt/pyrunc", {"own": ""}),
    "by options": ({DOCKER: daemon(runtimes={"x": {"options": {"BinaryName": OWN}}})}, "/usr/bin/dockerd", {}),
    "by name": ({DOCKER: daemon(runtimes={"pyrunc": {}})}, "/usr/bin/dockerd", {}),
    "another": ({DOCKER: daemon(runtimes={"crun": {"path": "/usr/bin/crun"}})}, "/usr/bin/dockerd", {}),
    "missing": ({DOCKER: daemon(runtimes={"pyrunc": {"path": "/x/pyrunc"}})}, "/usr/bin/dockerd", {}),
    "wrong types": ({DOCKER: daemon(runtimes={"pyrunc": 5}) + " "}, "/usr/bin/dockerd", {}),
    **{f"default {name}": ({DOCKER: json.dumps({"default-runtime": name, "runtimes": REGISTERED})}, "/usr/bin/dockerd",
                           {}) for name in ("runc", engines.SHIM, "pyrunc", "crun", "", "/x")},
    **{f"driver {options}, {'' if systemd else 'no '}systemd": (
        {DOCKER: json.dumps({"exec-opts": options, "runtimes": REGISTERED})} | systemd, "/usr/bin/dockerd", {})
       for options in (None, [], CGROUPFS, CGROUPFS[0], ["native.cgroupdriver=systemd"])
       for systemd in ({}, {SYSTEMD: ""})},
    "damaged": ({DOCKER: "{"}, "/usr/bin/dockerd", {}),
    "after another": ({DOCKER: daemon(runtimes={"x": {"path": "/z"}} | REGISTERED)}, "/usr/bin/dockerd", {}),
    "many": ({DOCKER: daemon(runtimes={f"r{n}": {"path": "/x/pyrunc"} for n in range(65)})}, "/usr/bin/dockerd", {}),
}  # fmt: skip


ALL: dict[str, tuple[dict[str, str], str, dict[str, Any]]] = {
    **{f"containerd, {name}": (*case, {}) for name, case in CONTAINERD.items()},
    **{f"cri-o, {name}": (*case, {}) for name, case in CRIO_CASES.items()},
    **{f"podman, {name}": case for name, case in PODMAN_CASES.items()},
    **{f"docker, {name}": case for name, case in DOCKER_CASES.items()},
}


@pytest.mark.parametrize("name", ALL)
def test_findings(name: str) -> None:
    files, programs, more = ALL[name]
    found = told(files, programs, **more)
    if "damaged" in name:
        found = [": ".join(one.split(": ")[:2]) for one in found]  # without the words of the interpreter
    compare(name, found[-1:] if name.endswith("many") else found)  # only so many are looked at


def test_parts() -> None:
    nested: dict[str, Any] = {"a": {"b": {"c": 1}, "d": "text"}, "e": [1], "f": ""}
    keys: list[Any] = [(), ("a",), ("a", "b"), ("a", "b", "c"), ("e",), ("x",)]
    found = results(lambda *given: engines.table(nested, *given), keys)
    found += results(partial(engines.text, nested["a"]), ["b", "d", "x"])
    found += results(engines.reason, [RecursionError("depth"), ValueError("a" * 120), ValueError("a" * 121)])
    found += results(engines.is_ours, [("pyrunc", ""), ("x", "/a/pyrunc-2"), ("x", "pyrunc"), ("x", "/pyrunc/runc"),
                                       ("pyrunc2", "")])  # fmt: skip

    def merged(left: Any, right: Any) -> Any:
        engines.merge(left, right)
        return left

    found += results(merged, [({}, {"a": 1}), ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "d": {}}}),
                              ({"a": 1}, {"a": {}}), ({"a": {"b": 1}}, {"a": 2}), ({"a": [1]}, {"a": [2]}),
                              ({"a": {"b": {"c": 1}}, "d": 1}, {"a": {"b": {"e": 2}}, "d": 2})])  # fmt: skip
    compare("parts", found)
