"""contrib/kubernetes/installer: what it writes for containerd and for CRI-O, what it refuses, what
removal leaves.

The script runs in a directory, with programs that record how they are called in place of the engine
and of kubectl. `make test-kubernetes` runs it in a cluster.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tomllib
from pathlib import Path

import pytest

CONTRIB = Path(__file__).resolve().parent.parent / "contrib"
OURS = """# a node's own
version = 3

[plugins.'io.containerd.cri.v1.runtime'.containerd]
default_runtime_name = 'runc'
"""
CONTAINERD = """#!/bin/sh
case $1 in
    --version) echo "containerd github.com/containerd/containerd/v2 $CONTAINERD_VERSION abc" ;;
    --config) grep -q broken "$2" && { echo "containerd: toml: line 1" >&2; exit 1; }; exit 0 ;;
esac
"""


class Node:
    """A directory with an engine's files."""

    def __init__(self, path: Path) -> None:
        self.path, self.log = path, path / "log"
        self.config, self.crio = path / "etc/containerd/config.toml", path / "etc/crio/crio.conf.d/10-pyrunc.conf"
        self.runtime = path / "bin/pyrunc"
        self.tools, self.package, self.run = path / "tools", path / "package", path / "run"
        for folder in (self.tools, self.package, self.run):
            folder.mkdir()
        self.program(self.tools / "containerd", CONTAINERD)
        self.program(self.tools / "kubectl", f'#!/bin/sh\necho "kubectl $*" >>{self.log}\n')
        self.program(self.package / "pyrunc", '#!/bin/sh\necho "pyrunc 1.2.3"\n')
        shutil.copy(CONTRIB / "kubernetes/installer/install.sh", self.package)
        for name in ("containerd-1.toml", "containerd-2.toml"):
            shutil.copy(CONTRIB / "containerd" / name, self.package)
        shutil.copy(CONTRIB / "crio/10-pyrunc.conf", self.package / "crio.conf")

    def program(self, path: Path, text: str) -> None:
        """Create an executable file."""
        path.write_text(text)
        path.chmod(0o755)

    def __call__(self, verb: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run the script on this node."""
        fixed = {
            "PATH": f"{self.tools}:{os.environ['PATH']}",
            "HOST": "",
            "RUN": str(self.run),
            "CONFIG": str(self.config),
            "CRIO_CONFIG": str(self.crio),
            "RUNTIME": str(self.runtime),
            "RESTART": f"echo restart >>{self.log}",
            "NODE_NAME": "n1",
            "CONTAINERD_VERSION": "v2.4.2",
        }
        words = ["/bin/sh", str(self.package / "install.sh"), verb]
        return subprocess.run(words, env=fixed | env, capture_output=True, text=True, timeout=30)

    def calls(self) -> list[str]:
        """The calls that the programs recorded since the last look."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def files(self) -> set[str]:
        """Names of the files in the node's own directories."""
        found = [path for top in ("etc", "bin") for path in (self.path / top).rglob("*") if path.is_file()]
        return {str(path.relative_to(self.path)) for path in found}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def own(node: Node, text: str = OURS) -> None:
    """Give the node a configuration of containerd."""
    node.config.parent.mkdir(parents=True)
    node.config.write_text(text)
    node.config.chmod(0o640)


READY, GONE = (
    "kubectl label --overwrite node n1 pyrunc/runtime=ready",
    "kubectl label --overwrite node n1 pyrunc/runtime-",
)


def test_containerd(node: Node) -> None:
    own(node)
    done = node("install", ENGINE="containerd")
    assert done.returncode == 0, done
    text = node.config.read_text()
    parsed = tomllib.loads(text)
    section = parsed["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]
    assert text.startswith(OURS) and section["default_runtime_name"] == "runc"
    options = section["runtimes"]["pyrunc"]["options"]
    assert options == {"BinaryName": str(node.runtime), "SystemdCgroup": False}
    assert node.config.stat().st_mode & 0o777 == 0o640
    assert os.access(node.runtime, os.X_OK) and "pyrunc 1.2.3" in done.stdout
    assert node.calls() == ["restart", READY]


def test_containerd_again_changes_nothing(node: Node) -> None:
    own(node)
    node("install", ENGINE="containerd")
    text = node.config.read_text()
    node.calls()
    done = node("install", ENGINE="containerd")
    assert done.returncode == 0 and node.config.read_text() == text, done
    assert node.calls() == [READY]


def test_containerd_removed(node: Node) -> None:
    own(node)
    node("install", ENGINE="containerd")
    node.calls()
    done = node("remove", ENGINE="containerd")
    assert done.returncode == 0 and node.config.read_text() == OURS, done
    assert node.files() == {"etc/containerd/config.toml"}
    assert node.calls() == [GONE, "restart"]
    assert node("remove", ENGINE="containerd").returncode == 0
    assert node.calls() == [GONE]


@pytest.mark.parametrize(("engine", "version"), [("v2.4.2", 3), ("1.6.20", 2)])
def test_containerd_without_a_configuration(node: Node, engine: str, version: int) -> None:
    assert node("install", ENGINE="containerd", CONTAINERD_VERSION=engine).returncode == 0
    parsed = tomllib.loads(node.config.read_text())
    assert parsed["version"] == version
    assert node("install", ENGINE="containerd", CONTAINERD_VERSION=engine).returncode == 0
    assert node.calls() == ["restart", READY, READY]
    assert node("remove", ENGINE="containerd").returncode == 0
    assert not node.files()


def test_containerd_1_gets_its_own_section(node: Node) -> None:
    own(node, "version = 2\n")
    assert node("install", ENGINE="containerd").returncode == 0
    assert (
        "pyrunc"
        in tomllib.loads(node.config.read_text())["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    )


def test_cgroup_driver_of_the_node(node: Node) -> None:
    own(
        node,
        OURS + "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n  SystemdCgroup = true\n",
    )
    assert node("install", ENGINE="containerd").returncode == 0
    runtimes = tomllib.loads(node.config.read_text())["plugins"]["io.containerd.cri.v1.runtime"]["containerd"][
        "runtimes"
    ]
    assert runtimes["pyrunc"]["options"]["SystemdCgroup"] is True


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (OURS + "# broken\n", "containerd does not accept the new configuration: containerd: toml: line 1"),
        ("version = 4\n", "has version 4: expected 2 or 3"),
        ("root = '/x'\n", "has version 1: expected 2 or 3"),
        (
            OURS + "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.pyrunc]\n",
            "has a handler pyrunc already",
        ),
    ],
)
def test_configuration_that_is_refused(node: Node, text: str, says: str) -> None:
    own(node, text)
    done = node("install", ENGINE="containerd")
    assert done.returncode == 1 and says in done.stderr, done
    assert node.config.read_text() == text and node.calls() == []
    assert node.files() == {"etc/containerd/config.toml", "bin/pyrunc"}


def test_executable_that_does_not_run(node: Node) -> None:
    own(node)
    node.program(node.package / "pyrunc", "#!/bin/sh\necho no such loader; exit 1\n")
    done = node("install", ENGINE="containerd")
    assert done.returncode == 1 and "does not run on this node: no such loader" in done.stderr, done
    assert node.files() == {"etc/containerd/config.toml"} and node.calls() == []


def test_engine_that_does_not_restart(node: Node) -> None:
    own(node)
    done = node("install", ENGINE="containerd", RESTART="exit 5")
    assert done.returncode == 1 and "cannot restart containerd" in done.stderr, done
    assert node.calls() == []


def test_executable_stays_while_containers_use_it(node: Node) -> None:
    own(node)
    node("install", ENGINE="containerd")
    task = node.run / "containerd/io.containerd.runtime.v2.task/k8s.io/c1"
    task.mkdir(parents=True)
    (task / "options.json").write_text(f'{{"binary_name":"{node.runtime}"}}')
    done = node("remove", ENGINE="containerd")
    assert done.returncode == 0 and "containers still use" in done.stderr, done
    assert node.runtime.exists() and node.config.read_text() == OURS


def test_crio(node: Node) -> None:
    done = node("install", ENGINE="crio")
    assert done.returncode == 0, done
    parsed = tomllib.loads(node.crio.read_text())
    pyrunc = parsed["crio"]["runtime"]["runtimes"]["pyrunc"]
    assert pyrunc["runtime_path"] == str(node.runtime) and pyrunc["container_min_memory"] == "512KiB"
    assert set(parsed["crio"]["runtime"]) == {"runtimes"}  # neither the default runtime nor the cgroup driver
    assert node.calls() == ["restart", READY]
    assert node("install", ENGINE="crio").returncode == 0 and node.calls() == [READY]
    assert node("remove", ENGINE="crio").returncode == 0
    assert node.calls() == [GONE, "restart"] and not node.files()


@pytest.mark.parametrize(("path", "engine"), [("containerd/containerd.sock", "containerd"), ("crio/crio.sock", "crio")])
def test_engine_found_by_its_socket(node: Node, path: str, engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (node.run / path).parent.mkdir()
    monkeypatch.chdir(node.run)  # the whole path may be too long for a socket's address
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path)
        done = node("install")
    assert done.returncode == 0 and f"restarting {engine}" in done.stdout, done


@pytest.mark.parametrize(
    ("env", "says"), [({}, "neither containerd's nor CRI-O's socket"), ({"ENGINE": "x"}, "ENGINE=x")]
)
def test_no_engine(node: Node, env: dict[str, str], says: str) -> None:
    done = node("install", **env)
    assert done.returncode == 1 and says in done.stderr, done
    assert not node.files() and node.calls() == []


def test_usage(node: Node) -> None:
    done = node("else")
    assert done.returncode == 1 and "usage: install.sh" in done.stderr


def test_removal_without_the_right_to_label(node: Node) -> None:
    own(node)
    node("install", ENGINE="containerd")
    node.program(node.tools / "kubectl", "#!/bin/sh\nexit 1\n")
    done = node("remove", ENGINE="containerd")
    assert done.returncode == 0 and "label pyrunc/runtime of node n1 could not be removed" in done.stderr, done
    assert node.files() == {"etc/containerd/config.toml"}
