"""Warnings of the runtime disturb no engine: they do not reach a container's output, and no engine
takes them for an error.

The runtime is a script that adds an unknown capability to each configuration, which the engines
themselves would refuse, and calls pyrunc.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.engines.cases import IMAGE, detached, run
from integration.engines.conftest import find
from integration.engines.containerd import Containerd
from integration.engines.docker import Docker
from integration.engines.host import Host
from integration.engines.podman import Podman

SCRIPT = """#!/bin/sh
next=
for word in "$@"; do
    case $next in
    --bundle | -b) file=$word/config.json ;;
    --process | -p) file=$word ;;
    esac
    next=$word
done
[ -z "$file" ] || sed -i 's/"bounding": *\\[/&"CAP_BOGUS",/; s/"effective": *\\[/&"CAP_BOGUS",/' "$file"
echo "$@" >>{calls}
exec {path} "$@"
"""
BOTH = ("/bin/sh", "-c", "echo out; echo err >&2; exit 3")


@pytest.fixture(scope="module")
def oci(request: pytest.FixtureRequest) -> str:
    """Test pyrunc only: runc's warnings do become part of the output."""
    if find("pyrunc") is None:
        pytest.skip("pyrunc is not there")
    return "pyrunc"


@pytest.fixture(scope="module")
def oci_path(host: Host) -> str:
    script = host.path / "warning-runtime"
    script.write_text(SCRIPT.format(path=find("pyrunc"), calls=host.path / "calls"))
    script.chmod(0o755)
    return str(script)


@pytest.fixture(scope="module")
def podman(host: Host, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Podman]:
    made = Podman(host, oci, oci_path)
    made.load(images[1])
    yield made


@pytest.fixture(scope="module")
def docker(host: Host, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Docker]:
    made = Docker(host, oci, oci_path)
    made.load(images[1])
    yield made


@pytest.fixture(scope="module")
def containerd(host: Host, oci_path: str, images: tuple[Path, Path]) -> Iterator[Containerd]:
    made = Containerd(host, oci_path, off=["io.containerd.grpc.v1.cri"])
    made.load(images[0])
    yield made


def check(engine: Any) -> None:
    """run, exec and rm print only the output of the programs."""
    done = run(engine, *BOTH)
    assert (done.rc, done.out, done.err) == (3, "out\n", "err\n")
    detached(engine, "w1", "/bin/sleep", "60")
    done = engine.call("exec", "w1", *BOTH)
    assert (done.rc, done.out, done.err) == (3, "out\n", "err\n")
    missing = engine.call("exec", "w1", "/nonexistent")
    assert missing.rc == engine.exec_missing and "CAP_BOGUS" not in missing.out + missing.err
    logs = engine.call("logs", "w1")
    assert logs.out + logs.err == ""
    assert engine.call("rm", "-f", "w1").rc == 0
    calls = (engine.host.path / "calls").read_text().splitlines()
    assert any("create" in line.split() for line in calls), calls
    assert any("exec" in line.split() for line in calls), calls


@pytest.mark.needs_program("podman", "conmon")
@pytest.mark.parametrize("by", ["name", "path"])
def test_podman(podman: Podman, oci_path: str, by: str) -> None:
    """With a runtime path podman passes no log, and searches the runtime's stderr."""
    podman.runtime, kept = oci_path if by == "path" else podman.runtime, podman.runtime
    try:
        check(podman)
    finally:
        podman.runtime = kept


@pytest.mark.needs_program("dockerd", "docker", "containerd")
def test_docker(docker: Docker) -> None:
    check(docker)


@pytest.mark.needs_program("containerd", "ctr")
def test_containerd(containerd: Containerd) -> None:
    done = containerd.run(*BOTH)
    assert (done.rc, done.out) == (3, "out\n") and "err\n" in done.err and "CAP_BOGUS" not in done.err
    assert IMAGE in containerd.ctr("images", "ls").out
