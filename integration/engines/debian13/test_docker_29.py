"""Docker Engine 29, built from its module, on a current containerd and with its image store.

The client is Debian 13's (`make test-docker`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.builds import Builds
from integration.engines.cases import box
from integration.engines.docker import Docker
from integration.engines.host import Host
from integration.engines.kubernetes.conftest import BINS
from integration.engines.test_docker import TestDocker

BUILT = Path(BINS, "dockerd").exists()
LABEL = "docker 29 on containerd 2.x" if BUILT else ""
pytestmark = pytest.mark.skipif(not BUILT, reason="make test-docker builds what this needs")
__all__ = ["TestDocker", "box"]


@pytest.fixture(scope="module")
def engine(host: Host, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Docker]:
    made = Docker(host, oci, oci_path, f"{BINS}/")
    made.label = LABEL
    made.load(images[1])
    yield made


class TestBuilds(Builds):
    """docker build, with the BuildKit in the daemon."""
