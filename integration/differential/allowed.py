"""The system calls in docker's allow-list, for similar profiles."""

from __future__ import annotations

import json

from integration.harness import REPO

_PROFILE = json.loads((REPO / "integration/bundles/docker20-default.json").read_text())["linux"]["seccomp"]

NAMES = sorted(
    {"clone"} | {name for rule in _PROFILE["syscalls"] if not rule.get("args") for name in rule["names"]}
)  # clone has arguments there
