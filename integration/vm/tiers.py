"""Run a set of tests on this machine if it has what they need, otherwise in a guest.

    python -m integration.vm TIER [ARGUMENT FOR PYTEST...]

A tier names the marks that it covers; a test with one of them must not be skipped
(PYRUNC_TEST_COVER, integration/conftest.py). PYRUNC_TEST_WHERE is ``auto``, ``native`` or
``guest``. With PYRUNC_TEST_FULL=1 a tier with a core of the unit tests runs all of them. The exit
status is pytest's, or UNAVAILABLE with the reason on stderr if no machine is available.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

from integration import harness, machine
from integration.checkpoint import support
from integration.engines.record import merge
from integration.vm import foreign, images
from integration.vm.images import REPO, Unavailable
from integration.vm.machine import NATIVE, Job, Machine

UNAVAILABLE = 3
FULL = os.environ.get("PYRUNC_TEST_FULL", "") == "1"
EMULATED_SLOW = 6  # factor for time limits in a guest without KVM
CONTROLLERS = ("cpu", "cpuset", "io", "memory", "pids")
CORE = ("test_cgroups.py", "test_cgroupfs.py", "test_limits.py", "test_update.py", "test_events.py")
STATES = ("test_lifecycle.py", "test_kill.py", "test_list.py")
LIFE = (*STATES, "test_process.py", "test_errors.py", "test_crash.py", "test_hooks.py", "test_pause.py")
MORE = (
    "test_apparmor.py",
    "test_devices.py",
    "test_namespaces.py",
    "test_seccomp.py",
    "test_scheduling.py",
    "test_netdev.py",
)
# What a checkpoint has to do with the kernel, security modules, the cgroup hierarchy and init. The
# other files test refusals, sockets and other runtimes' images. `make test` runs all of them on any
# kernel, and emulated they would double the time.
CHECKPOINT = tuple(f"checkpoint/test_{name}.py" for name in ("pages", "lsm", "cgroup_modes", "restore"))
# The areas in which kernels differ most: mounts, user namespaces, seccomp.
OLDER = (
    "test_mounts.py",
    "test_idmap.py",
    "test_userns.py",
    "test_userns_mounts.py",
    "test_namespaces.py",
    "test_process.py",
    "test_seccomp.py",
)
# Unit tests that execute compiled code, or compare its layout, system call numbers, byte order or
# code for the kernel with Python's. The others are about rules in Python, which do not depend on
# the processor.
NATIVE_UNITS = (
    "test_cgroup_devices.py",
    "test_init_*.py",
    "test_inittab.py",
    "test_interpreter.py",
    "test_jsontext.py",
    "test_libm.py",
    "test_native*.py",
    "test_netdev.py",
    "test_own_modules.py",
    "test_plan_encode.py",
    "test_profile_compiler.py",
    "test_sandbox.py",
    "test_seccomp.py",
    "test_seccomp_cache.py",
    "test_seccomp_listener.py",
    "test_seccomp_trace.py",
    "test_shim*.py",
    "test_signals.py",
    "test_snapshot.py",
    "test_tables.py",
)
SYSTEMD = ("test_systemd.py", "test_rootless.py", "test_rootless_systemd.py", "checkpoint/test_cgroup_modes.py")
# Debian's versions; what `make test-cri` builds is not in the guest.
BUILT = "build/engines"  # below the sources, here as in the guest
PROGRAMS = (
    *("containerd", "ctr", "containerd-shim-runc-v2", "etcd", "kubelet", "kubectl"),
    *("kube-apiserver", "kube-controller-manager", "kube-scheduler"),
)
# What needs controllers; make test-kubernetes runs the rest.
CLUSTER = ("test_eviction.py", "test_limits.py", "test_security.py::test_privileged", "test_node.py::test_nothing_left")
RECORD = "PYRUNC_ENGINES_RECORD"
RESULT = "/job/files/result.json"
ENGINES = ("conmon", "containerd", "docker", "podman", "podman_rootless")


class Tier(NamedTuple):
    """A set of tests, and the guest in which it runs."""

    arch: str
    kernel: str  # the Debian suite that provides the guest's kernel
    systemd: bool
    files: tuple[str, ...]  # below integration/
    cover: tuple[str, ...]  # marks
    timeout: float  # seconds for the whole run; four times as many for a full one
    built_there: bool = False  # built in a guest of its own, from source with its compiler: foreign.py
    units: tuple[str, ...] = ()  # unit tests, as patterns below tests/; all of them for a full run
    module: str = "pytest"  # the module that Python runs, with its own arguments
    script: str = "test.sh"  # the script that runs in the guest
    tmp: str = ""  # directory for bundles instead of /tmp, a tmpfs
    lsm: str = "apparmor"  # the security module of the guest's kernel; only one major module can be active
    memory: str = "1G"
    swap: str = ""  # the size of the guest's swap file
    engines: bool = False  # the guest also gets what integration/engines/build.sh built, and the newest runc
    groups: tuple[str, ...] = ()  # groups of .ci/require whose packages the guest also has


TIERS = {
    "short": Tier("amd64", "trixie", False, ("test_cgroups.py", "test_limits.py"), ("needs_controller",), 900),
    "vm": Tier(
        "amd64",
        "trixie",
        False,
        (*CORE, *LIFE, *MORE),
        ("needs_controller", "needs_cap", "needs_apparmor"),
        1800,
    ),
    # Its arguments are names of programs. Only run.py calls it.
    "conformance": Tier("amd64", "trixie", False, (), (), 900, module="", script="conformance.sh"),
    "checkpoint": Tier(
        "amd64",
        "trixie",
        True,
        CHECKPOINT,
        ("needs_controller", "needs_dirty_tracking", "needs_cap", "needs_apparmor", "needs_systemd"),
        2400,
        tmp="/var/tmp",
    ),
    "selinux": Tier(
        "amd64",
        "trixie",
        False,
        ("test_selinux.py", "checkpoint/test_lsm.py"),
        ("needs_selinux",),
        900,
        lsm="selinux",
    ),
    "engines": Tier(
        "amd64",
        "trixie",
        False,
        tuple(f"engines/test_{engine}.py" for engine in ENGINES),
        ("needs_controller", "needs_dirty_tracking"),
        5400,
        tmp="/var/tmp",
        groups=("engines", "demo"),
    ),
    "kubernetes": Tier(
        "amd64",
        "trixie",
        False,
        tuple(f"engines/kubernetes/{name}" for name in CLUSTER),
        ("needs_controller", "needs_cap"),
        3600,
        tmp="/var/tmp",
        memory="3G",
        swap="1G",
        engines=True,
        groups=("engines", "demo", "current"),
    ),
    "systemd": Tier("amd64", "trixie", True, SYSTEMD, ("needs_systemd", "needs_systemd_user"), 1500),
    "bench-systemd": Tier("amd64", "trixie", True, (), (), 1500, module="bench.systemd"),
    "arm64": Tier(
        "arm64",
        "trixie",
        False,
        (*STATES, "test_exec.py", "test_one_file.py", "test_seccomp.py"),
        ("needs_arch:aarch64",),
        1500,
        built_there=True,
        units=NATIVE_UNITS,
        groups=("build", "test", "demo"),
    ),
    # tmpfs supports no id-mapped mounts before Linux 6.3 (kernel: 7a80e5b8c6fa); ext4 does.
    "kernel61": Tier("amd64", "bookworm", False, (*CORE, *STATES, *OLDER), ("needs_controller",), 1800, tmp="/var/tmp"),
}


def why_not_native(name: str, tier: Tier) -> str:
    """What this machine lacks for a tier, or ""."""
    if os.geteuid() != 0:
        return "not root"
    if tier.arch != NATIVE:
        return f"not {tier.arch}"
    if name == "conformance":
        return "what the programs need"
    if name == "selinux":
        return "" if os.path.isdir("/sys/fs/selinux") else "SELinux is off"
    if name == "checkpoint" and not machine.tracks_dirty_memory():
        return "the kernel does not track dirty memory"
    if name == "kernel61":
        return "" if os.uname().release.startswith("6.1.") else f"kernel {os.uname().release}"
    if str(machine.cgroup2_mount()) != "/sys/fs/cgroup":
        return "no pure cgroup v2"
    missing = [controller for controller in CONTROLLERS if controller not in machine.controllers()]
    if missing:
        return "no controller " + " ".join(missing)
    if tier.systemd and not machine.systemd_runs():
        return "systemd is not running"
    return ""


def uses_criu(tier: Tier) -> bool:
    """Whether some of the tests need CRIU."""
    return any(name.startswith("checkpoint") or name == "engines/test_podman.py" for name in tier.files)


def environment(tier: Tier, slow: float) -> dict[str, str]:
    """The environment of the tests."""
    peer = os.environ.get("PYRUNC_UNDER_TEST", "")
    out = {"PYRUNC_TEST_SLOW": f"{slow:g}"}
    if tier.tmp:
        out["PYRUNC_TEST_TMP"] = tier.tmp
    if tier.engines:
        out["PYRUNC_ENGINES_BIN"] = f"{BUILT}/bin"
    if uses_criu(tier):
        out["PYRUNC_TEST_CRIU"] = str((REPO / "build/criu").resolve())
        out["PYRUNC_TEST_PEERS"] = str((REPO / "build/peers").resolve())
    if peer:  # some tests are skipped for it
        out["PYRUNC_UNDER_TEST"] = peer
    else:
        out["PYRUNC_TEST_COVER"] = " ".join(tier.cover)
    return out


def arguments(tier: Tier, extra: list[str]) -> list[str]:
    """Python's arguments."""
    files = [f"integration/{name}" for name in tier.files]
    units = [str(path.relative_to(REPO)) for name in tier.units for path in sorted((REPO / "tests").glob(name))]
    module = ["-m", tier.module] if tier.module else []
    return [*module, *(["tests"] if units and FULL else units), *files, *extra]


def native(tier: Tier, extra: list[str]) -> int:
    """Run the tests on this machine."""
    argv = [sys.executable, *arguments(tier, extra)]
    return subprocess.run(argv, cwd=REPO, env={**os.environ, **environment(tier, harness.SLOW)}, check=False).returncode


def guest(tier: Tier, extra: list[str]) -> int:
    """Run the tests in a guest. Raises Unavailable."""
    variant = "kubernetes" if tier.engines else "engines" if "engines" in tier.groups else ""
    suite = images.suite() if tier.built_there else ""
    path = images.image(tier.arch, tier.kernel, required(*tier.groups) if tier.groups else [], variant, suite)
    machine = Machine(path, tier.arch, systemd=tier.systemd, lsm=tier.lsm, memory=tier.memory)
    script = "integration/vm/" + ("test-built.sh" if tier.built_there else tier.script)
    job = Job(
        ["sh", "src/" + script, *arguments(tier, extra)],
        {**environment(tier, harness.SLOW), "PYTEST_ADDOPTS": "-q -p no:cacheprovider"},
        environment(tier, max(EMULATED_SLOW, harness.SLOW)),
    )
    if tier.script == "conformance.sh":
        job.put(REPO / "build/conformance", "conformance", lambda name: name == "log")
    if tier.swap:
        job.env["PYRUNC_VM_SWAP"] = tier.swap
    if tier.engines:
        put_engines(job)
    if RECORD in os.environ:
        job.env |= {RECORD: RESULT, "PYRUNC_VM_RESULT": RESULT}
    if tier.built_there:
        put_sources(job, [])
        foreign.put(job, machine)
    else:
        job.env["PYTHONDONTWRITEBYTECODE"] = "1"
        put_sources(job, [str(path.relative_to(REPO)) for path in (REPO / "pyrunc").glob("_*") if path.is_file()])
        put_build(job)
        if uses_criu(tier):
            put_criu(job)
    sys.stdout.flush()
    limit = tier.timeout * harness.SLOW * (4 if FULL else 1)
    status = machine.run(job, limit, boot_timeout=tier.timeout / 4)  # minutes on a busy machine
    if job.result:
        merge(Path(os.environ[RECORD]), json.loads(job.result))
    return status


def required(*groups: str) -> list[str]:
    """The packages in groups of .ci/require."""
    argv = ["env", "PYTHON=/usr/bin/python3", str(REPO / ".ci/require"), "--packages", *groups]
    return images.run(argv, "listing packages").split()


def put_sources(job: Job, more: list[str]) -> None:
    """Add the files that git tracks, and the build products beside them."""
    for name in [*foreign.sources(), *more]:
        job.put(REPO / name, "src/" + name)


def put_engines(job: Job) -> None:
    """Add the current engines and the newest runc."""
    for program in PROGRAMS:
        job.put(REPO / BUILT / "bin" / program, f"src/{BUILT}/bin/{program}")
    job.put(REPO / BUILT / "built", f"src/{BUILT}/built")
    newest = "build/peers/bin/runc-new"
    if (REPO / newest).exists():
        job.put(REPO / newest, "src/" + newest)


def put_build(job: Job) -> None:
    """Add what runs without a compiler: an installation, the probe, and the Python packages that
    the tests import."""
    if f"{sys.base_prefix}/bin/python3" != "/usr/bin/python3":
        raise Unavailable(
            f"built for {sys.base_prefix}, and the guest has Debian's Python: make PYTHON=/usr/bin/python3"
        )
    root = images.directory() / "root"
    images.run(["make", "-C", str(REPO), "install", f"DESTDIR={root}", "PREFIX=/usr/local"], "installing pyrunc")
    job.put(root, "root")
    probe = images.directory() / "probe"
    harness.build_probe(probe)
    job.put(probe, "probe")
    unneeded = ("pyrunc", "pip", "pip-", "meson", "ninja", "mypy", "ruff", "setuptools", "pkg_resources", "bandit")
    job.put(Path(sysconfig.get_path("platlib")), "python", lambda name: name.startswith(unneeded) or "__mypyc" in name)


def put_criu(job: Job) -> None:
    """Add CRIU, the newest runc and crun if they are here, and a static program for containers.

    Executables name their libraries by absolute paths, so the trees keep theirs.
    """
    criu, peers = ((REPO / "build" / name).resolve() for name in ("criu", "peers"))
    for tree in (criu, peers):
        if tree.is_dir():
            job.put(tree, f"root{tree}")
    if (peers / "bin/runc-new").exists():
        job.put(peers / "bin/runc-new", "root/usr/local/bin/runc-new")
    client = images.directory() / "client"
    support.build_client(client)
    job.put(client, "client")


def main(argv: list[str]) -> int:
    """Run ``TIER [PYTEST ARGUMENT...]``."""
    if not argv or argv[0] not in TIERS:
        print(f"usage: python -m integration.vm {'|'.join(TIERS)} [PYTEST ARGUMENT...]", file=sys.stderr)
        return 2
    tier, where = TIERS[argv[0]], os.environ.get("PYRUNC_TEST_WHERE", "auto")
    lacking = why_not_native(argv[0], tier)
    if where == "native" or (where == "auto" and not lacking):
        if lacking:
            print(f"{argv[0]}: this machine lacks something: {lacking}", file=sys.stderr)
        return native(tier, argv[1:])
    print(f"{argv[0]}: in a guest ({lacking or 'as asked'})", file=sys.stderr, flush=True)
    try:
        return guest(tier, argv[1:])
    except Unavailable as error:
        print(f"{argv[0]}: no guest can be had: {error}", file=sys.stderr)
        return UNAVAILABLE
