"""Docker Engine 29, built from its module, on a current containerd and with its image store.

The client is Debian 13's (`make test-docker`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.engines.builds import Builds
from integration.engines.cases import box
from integration.engines.conftest import find
from integration.engines.docker import Docker
from integration.engines.host import Host
from integration.engines.kubernetes.conftest import BINS, runc
from integration.engines.test_docker import TestDocker

BUILT = Path(BINS, "dockerd").exists()
LABEL = "docker 29 on containerd 2.x" if BUILT else ""
pytestmark = pytest.mark.skipif(not BUILT, reason="make test-docker builds what this needs")
NEWEST: dict[str, str] = {}
__all__ = ["TestDocker", "box"]


@pytest.fixture(scope="module")
def oci_path(oci: str) -> str:
    """The newest runc there is, or pyrunc: this docker uses time namespaces, which Debian 13's runc
    does not know."""
    return os.path.realpath(str(runc())) if oci == "runc" else str(find(oci))


@pytest.fixture(scope="module")
def engine(host: Host, oci: str, oci_path: str, images: tuple[Path, Path]) -> Iterator[Docker]:
    if oci == "runc":  # a name that cannot be given another path
        (host.path / "bin").mkdir()
        (host.path / "bin/runc").symlink_to(oci_path)
        host.env["PATH"] = f"{host.path}/bin:{host.env['PATH']}"
    made = Docker(host, oci, oci_path, f"{BINS}/")
    made.label = LABEL
    made.exec_missing = 127
    if oci == "runc":
        NEWEST["runc"] = host.call(oci_path, "--version").out.split()[2]
    made.versions |= NEWEST
    made.load(images[1])
    yield made


class TestBuilds(Builds):
    """docker build, with the BuildKit in the daemon."""
