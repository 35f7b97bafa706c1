"""podman 5.4 as a user other than root."""

from __future__ import annotations

from integration.engines.debian13.conftest import WHERE
from integration.engines.test_podman_rootless import LABEL as BASE
from integration.engines.test_podman_rootless import (
    box,
    engine,
    test_as_another_user,
    test_command_not_found,
    test_detached_exec_kill,
    test_nested_user_namespace,
    test_run,
    test_volume,
)

LABEL = BASE + WHERE if WHERE else ""
__all__ = [
    "box",
    "engine",
    "test_as_another_user",
    "test_command_not_found",
    "test_detached_exec_kill",
    "test_nested_user_namespace",
    "test_run",
    "test_volume",
]
