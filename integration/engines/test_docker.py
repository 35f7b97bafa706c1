"""The docker engine (Debian's docker.io)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.cases import Cases, box, detached
from integration.engines.conftest import Seen
from integration.engines.docker import Docker
from integration.engines.host import Host

pytestmark = pytest.mark.needs_program("dockerd", "docker", "containerd")
LABEL = Docker.label
__all__ = ["box"]  # a fixture


@pytest.fixture(scope="module")
def engine(host: Host, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Docker]:
    made = Docker(host, oci, oci_path)
    made.load(images[1])
    yield made


class TestDocker(Cases):
    """The cases shared with podman, and docker's own."""

    def test_runtime_is_the_one_asked_for(self, engine: Docker, oci: str, seen: Seen) -> None:
        detached(engine, "w1")
        used = engine.call("inspect", "--format", "{{.HostConfig.Runtime}}", "w1").out.strip()
        waiting = engine.call("kill", "w1").rc
        code = engine.call("wait", "w1").out.strip()
        engine.call("rm", "-f", "w1")
        seen(kill=waiting, exit_code=code)
        assert used == oci and code == "137"
