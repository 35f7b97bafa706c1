"""`features`: what this runtime can do, in the shape of the runtime-spec's features.md."""

from __future__ import annotations

from pyrunc import SPEC_VERSION, build, command, seccomp, state
from pyrunc.plan import mounts, security
from pyrunc.spec import names, schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

USAGE = "features"
SUMMARY = "show what this runtime supports, as JSON"
ARGS = (0, 0)
FLAGS: tuple[command.Flag, ...] = ()

HOOKS = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]
NAMESPACES = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]


def describe() -> dict[str, Any]:
    """The document.  Only what works is in it: callers decide by it what they may ask for."""
    off = {"enabled": False}
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": HOOKS,
        "mountOptions": sorted(name for name in mounts.OPTIONS if name != "defaults"),
        "linux": {
            "namespaces": NAMESPACES,
            "capabilities": list(names.CAPABILITIES),
            "cgroup": {"v1": False, "v2": True, "systemd": False, "systemdUser": False, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": list(seccomp.ACTIONS),
                "operators": list(seccomp.OPERATORS),
                "archs": list(schema.SECCOMP_ARCHES),
                "knownFlags": list(security.SECCOMP_FLAGS),
                "supportedFlags": list(security.SECCOMP_FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": off,
            "memoryPolicy": {"modes": [], "flags": []},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": off,
        },
        "annotations": {
            "io.github.seccomp.libseccomp.version": build.libseccomp(),
            "org.opencontainers.runc.checkpoint.enabled": "false",
        },
        "potentiallyUnsafeConfigAnnotations": ["bundle", "run.oci."],
    }


def main(context: command.Context, values: dict[str, Any], args: list[str]) -> int:
    """Print the document."""
    return command.out(state.dumps(describe(), "    ") + "\n")
