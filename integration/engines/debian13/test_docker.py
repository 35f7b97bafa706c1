"""Docker 26 (docker.io of Debian 13) on its containerd 1.7."""

from __future__ import annotations

from integration.engines.builds import Builds
from integration.engines.cases import box
from integration.engines.debian13.conftest import WHERE
from integration.engines.docker import Docker
from integration.engines.test_docker import TestDocker, engine

LABEL = Docker.label + WHERE if WHERE else ""
__all__ = ["TestDocker", "box", "engine"]


class TestBuilds(Builds):
    """docker build, with the BuildKit in the daemon."""
