"""podman 5.4 with conmon 2.1.12, as root."""

from __future__ import annotations

from integration.engines.cases import box
from integration.engines.debian13.conftest import WHERE
from integration.engines.podman import Podman
from integration.engines.test_podman import TestByName, TestByPath, by_name

LABEL = Podman.label + WHERE if WHERE else ""
__all__ = ["TestByName", "TestByPath", "box", "by_name"]
