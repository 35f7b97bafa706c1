"""`features`: what this runtime supports, in the format of the runtime-spec's features.md."""

from __future__ import annotations

from pyrunc import SPEC_VERSION, build, cgroup, command, jsontext, seccomp
from pyrunc.plan import mount_options, scheduling, security
from pyrunc.spec import names, schema

USAGE = "features"
SUMMARY = "show what this runtime supports, as JSON"
ARGS = (0, 0)
FLAGS: tuple[command.Flag, ...] = ()

NAMESPACES = ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]


def describe() -> dict[str, object]:
    """The document. It lists only what works, because callers rely on it.

    Most of it comes from the tables that the code uses; tests/test_features.py compares the rest
    with what is accepted and refused.
    """
    systemd = "systemd" in cgroup.MANAGERS
    unsafe = ["bundle", *(["org.systemd.property."] if systemd else []), "run.oci."]
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": list(schema.CONFIG[1]["hooks"][1]),
        "mountOptions": sorted(mount_options.OPTIONS),
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
            "org.opencontainers.runc.checkpoint.enabled": "true",
            # Our extensions: `mounts add` and `mounts remove`, `exec --tools`.
            "org.pyrunc.exec.tools.enabled": "true",
            "org.pyrunc.mounts.enabled": "true",
        },
        "potentiallyUnsafeConfigAnnotations": unsafe,
    }


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Print the document."""
    return command.out(jsontext.dumps(describe(), "    ") + "\n")
