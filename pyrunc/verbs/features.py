"""`features`: what this runtime can do, in the shape of the runtime-spec's features.md."""

from __future__ import annotations

from pyrunc import SPEC_VERSION, build, cgroup, command, jsontext, seccomp
from pyrunc.plan import mounts, scheduling, security
from pyrunc.spec import names, schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "features"
SUMMARY = "show what this runtime supports, as JSON"
ARGS = (0, 0)
FLAGS: tuple[command.Flag, ...] = ()

NAMESPACES = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]


def describe() -> dict[str, Any]:
    """The document.  Only what works is in it: callers decide by it what they may ask for.

    As far as it can be, it is made of the tables that the code works with; tests/test_features.py holds the rest
    against what is accepted and refused.
    """
    systemd = "systemd" in cgroup.MANAGERS
    unsafe = ["bundle", *(["org.systemd.property."] if systemd else []), "run.oci."]
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": list(schema.CONFIG[1]["hooks"][1]),
        "mountOptions": sorted(mounts.OPTIONS),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": list(names.CAPABILITIES),
            "cgroup": {"v1": False, "v2": True, "systemd": systemd, "systemdUser": systemd, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": list(seccomp.ACTIONS),
                "operators": list(seccomp.OPERATORS),
                "archs": seccomp.usable_architectures(),
                "knownFlags": list(security.SECCOMP_FLAGS),
                "supportedFlags": seccomp.usable_flags(),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {"modes": list(scheduling.MEMORY_MODES), "flags": list(scheduling.MEMORY_FLAGS)},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {
            "io.github.seccomp.libseccomp.version": build.libseccomp(),
            "org.opencontainers.runc.checkpoint.enabled": "false",
        },
        "potentiallyUnsafeConfigAnnotations": unsafe,
    }


def main(context: command.Context, values: dict[str, Any], args: list[str]) -> int:
    """Print the document."""
    return command.out(jsontext.dumps(describe(), "    ") + "\n")
