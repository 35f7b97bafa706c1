"""`features` against the official schema, and each of its words against what is accepted and
rejected."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from broken_configs import BASE
from json_type import Json
from official import MISSING, OFFICIAL
from plan_support import Facts
from pyrunc import SPEC_VERSION, cgroup, cli, seccomp
from pyrunc.errors import ConfigError
from pyrunc.spec import schema, validate
from pyrunc.verbs import features

DOCUMENT: Json = features.describe()
LINUX = DOCUMENT["linux"]
SECCOMP = LINUX["seccomp"]

# The order of runc's document, which people read and diff.
KEYS = ["ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux", "annotations",
        "potentiallyUnsafeConfigAnnotations"]  # fmt: skip
LINUX_KEYS = ["namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "intelRdt", "memoryPolicy",
              "mountExtensions", "netDevices"]  # fmt: skip


# Members that features-linux.md describes and the JSON schema of 1.3.0 lacks.
LATER = {"memoryPolicy": {"modes", "flags"}, "intelRdt": {"schemata", "monitoring"}}


def problems(*changes: tuple[str, Any]) -> list[str]:
    """The problems of the good base with members of `linux`, `process` or the top replaced."""
    config = copy.deepcopy(BASE)
    for pointer, value in changes:
        *way, last = pointer.strip("/").split("/")
        at = config
        for part in way:
            at = at.setdefault(part, {})
        at[last] = value
    try:
        validate.check(config, facts=Facts())
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
def test_the_official_schema() -> None:
    found = {path.name: json.loads(path.read_text()) for path in OFFICIAL.glob("*.json")}
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(document, default_specification=DRAFT4)) for name, document in found.items()
    )
    jsonschema.Draft4Validator(found["features-schema.json"], registry=registry).validate(DOCUMENT)
    # The schema allows unknown members, so a misspelt key would pass.
    known = found["features-linux.json"]["linux"]["properties"]
    assert set(LINUX) - set(known) <= set(LATER)
    ours = {name: set(value) for name, value in LINUX.items() if isinstance(value, dict) and name in known}
    assert set(ours) >= {"cgroup", "seccomp", "apparmor", "selinux", "intelRdt", "mountExtensions", "netDevices"}
    strange = {name: keys - set(known[name]["properties"]) - LATER.get(name, set()) for name, keys in ours.items()}
    assert {name: keys for name, keys in strange.items() if keys} == {}
    assert set(DOCUMENT) <= set(found["features-schema.json"]["properties"])


def test_keys_and_their_order() -> None:
    assert list(DOCUMENT) == KEYS
    assert list(LINUX) == LINUX_KEYS
    assert list(SECCOMP) == ["enabled", "actions", "operators", "archs", "knownFlags", "supportedFlags"]
    assert list(LINUX["cgroup"]) == ["v1", "v2", "systemd", "systemdUser", "rdma"]


def test_versions() -> None:
    assert problems(("/ociVersion", DOCUMENT["ociVersionMin"])) == []
    assert DOCUMENT["ociVersionMax"] == SPEC_VERSION
    assert problems(("/ociVersion", SPEC_VERSION)) == []
    assert problems(("/ociVersion", "2.0.0"))


def test_hooks() -> None:
    assert len(DOCUMENT["hooks"]) == 6
    for kind in DOCUMENT["hooks"]:
        assert problems((f"/hooks/{kind}", [{"path": "/x"}])) == []


# config.md, Linux mount options: MUST, SHOULD, MAY.
SPEC_OPTIONS = """
async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec noiversion
nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rshared rslave runbindable rw
shared silent slave strictatime suid sync unbindable
nosymfollow symfollow ratime rdev rdiratime rexec rnoatime rnodev rnodiratime rnoexec rnorelatime rnostrictatime
rnosuid rnosymfollow rrelatime rro rrw rstrictatime rsuid rsymfollow idmap ridmap
mand nomand tmpcopyup
"""


def test_mount_options_are_the_specifications() -> None:
    """integration/test_mounts.py mounts with each of them."""
    assert set(DOCUMENT["mountOptions"]) == set(SPEC_OPTIONS.split())


def test_namespaces() -> None:
    linux: schema.Node = schema.LINUX
    kinds = linux[1]["namespaces"][1][1]["type"][1]
    for kind in kinds:
        config = copy.deepcopy(BASE)
        config["linux"]["namespaces"] = [entry for entry in BASE["linux"]["namespaces"] if entry["type"] != kind]
        config["linux"]["namespaces"].append({"type": kind})
        if kind == "user":
            config["linux"] |= {f"{x}idMappings": [{"containerID": 0, "hostID": 9, "size": 70}] for x in "ug"}
        try:
            validate.check(config, facts=Facts())
            accepted = True
        except ConfigError:
            accepted = False
        assert accepted == (kind in LINUX["namespaces"]), kind
    assert LINUX["namespaces"] == sorted(LINUX["namespaces"])


def test_capabilities() -> None:
    config = copy.deepcopy(BASE)
    config["process"]["capabilities"] = {"bounding": LINUX["capabilities"]}
    assert validate.check(config, facts=Facts()) == []
    config["process"]["capabilities"] = {"bounding": ["CAP_NEW"]}
    assert validate.check(config, facts=Facts())  # a warning, as the specification requires


def test_cgroup_drivers() -> None:
    facts: Any = Facts()
    drivers = [cgroup.open_driver(name, facts) for name in ("systemd", "cgroupfs")]
    assert [type(driver).__name__ for driver in drivers] == ["Systemd", "Cgroupfs"]
    assert LINUX["cgroup"]["systemd"] and LINUX["cgroup"]["v2"] and not LINUX["cgroup"]["v1"]
    assert problems(("/linux/resources/rdma", {"mlx5_0": {"hcaHandles": 1}})) == []


def profile(**members: Any) -> Json:
    return {"defaultAction": "SCMP_ACT_ALLOW", **members}


@pytest.mark.parametrize("action", SECCOMP["actions"])
def test_seccomp_action(action: str) -> None:
    rule = {"names": ["mount"], "action": action}
    made = profile(syscalls=[rule], listenerPath="/x", defaultAction="SCMP_ACT_ERRNO")
    assert problems(("/linux/seccomp", made)) == []
    assert seccomp.compile_filter(made)[0]


@pytest.mark.parametrize("operator", SECCOMP["operators"])
def test_seccomp_operator(operator: str) -> None:
    args = [{"index": 0, "value": 1, "valueTwo": 1, "op": operator}]
    made = profile(syscalls=[{"names": ["mount"], "action": "SCMP_ACT_ERRNO", "args": args}])
    assert problems(("/linux/seccomp", made)) == []
    assert seccomp.compile_filter(made)[0]


@pytest.mark.parametrize("arch", schema.SECCOMP_ARCHES)
def test_seccomp_architecture(arch: str) -> None:
    if arch in SECCOMP["archs"]:
        assert seccomp.compile_filter(profile(architectures=[arch]))[0]
    else:
        with pytest.raises(ConfigError, match="/linux/seccomp/architectures"):
            seccomp.compile_filter(profile(architectures=[arch]))


def test_seccomp_native_architecture_is_there() -> None:
    assert {"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"} & set(SECCOMP["archs"])
    assert "SCMP_ARCH_S390X" not in SECCOMP["archs"]


def test_seccomp_words_that_are_not_listed() -> None:
    rule = {"names": ["mount"], "action": "SCMP_ACT_NEW"}
    assert problems(("/linux/seccomp", profile(syscalls=[rule])))
    args = [{"index": 0, "value": 1, "op": "SCMP_CMP_NEW"}]
    assert problems(("/linux/seccomp", profile(syscalls=[{**rule, "action": "SCMP_ACT_ERRNO", "args": args}])))
    assert problems(("/linux/seccomp", profile(flags=["SECCOMP_FILTER_FLAG_NEW"])))


def test_seccomp_flags() -> None:
    assert problems(("/linux/seccomp", profile(flags=SECCOMP["knownFlags"]))) == []
    assert set(SECCOMP["supportedFlags"]) <= set(SECCOMP["knownFlags"])
    # All kernels that pyrunc runs on have these.
    assert {"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"} <= set(SECCOMP["supportedFlags"])


def test_memory_policy() -> None:
    for mode in LINUX["memoryPolicy"]["modes"]:
        nodes = {} if mode in ("MPOL_DEFAULT", "MPOL_LOCAL") else {"nodes": "0"}
        assert problems(("/linux/memoryPolicy", {"mode": mode, **nodes})) == []
    for flag in LINUX["memoryPolicy"]["flags"]:
        assert problems(("/linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]})) == []
    assert problems(("/linux/memoryPolicy", {"mode": "MPOL_NEW"}))
    assert problems(("/linux/memoryPolicy", {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NEW"]}))


def test_idmap() -> None:
    mapping = [{"containerID": 0, "hostID": 1000, "size": 1}]
    mount = {
        "destination": "/d",
        "source": "/s",
        "options": ["bind", "idmap"],
        "uidMappings": mapping,
        "gidMappings": mapping,
    }
    accepted = problems(("/mounts", [mount])) == []
    assert accepted == LINUX["mountExtensions"]["idmap"]["enabled"]


def test_network_devices_and_resctrl() -> None:
    assert problems(("/linux/netDevices", {"eth0": {}})) == []
    assert LINUX["netDevices"]["enabled"]
    config = {"schemata": ["L3:0=f"], "enableMonitoring": True}
    assert problems(("/linux/intelRdt", config)) == []
    assert LINUX["intelRdt"] == {"enabled": True, "schemata": True, "monitoring": True}


def test_labels() -> None:
    """`features` lists what the runtime can apply, whether or not the host supports it."""
    config = copy.deepcopy(BASE)
    config["process"] |= {"apparmorProfile": "p", "selinuxLabel": "u:r:t:s0"}
    validate.check(config, facts=Facts(apparmor=True, selinux=True))
    assert LINUX["apparmor"]["enabled"]
    assert LINUX["selinux"]["enabled"]


def test_checkpoint() -> None:
    enabled = DOCUMENT["annotations"]["org.opencontainers.runc.checkpoint.enabled"]
    assert enabled == ("true" if "checkpoint" in cli.VERBS else "false")
    assert "org.opencontainers.runc.commit" not in DOCUMENT["annotations"]


def test_extensions() -> None:
    """Callers can see what they may use beyond runc's command line."""
    annotations = DOCUMENT["annotations"]
    assert annotations["org.pyrunc.mounts.enabled"] == ("true" if "mounts" in cli.VERBS else "false")
    tools = any(flag[0] == "tools" for flag in cli.load_verb("exec").FLAGS)
    assert annotations["org.pyrunc.exec.tools.enabled"] == ("true" if tools else "false")


def test_unsafe_annotations_are_those_with_a_meaning() -> None:
    """One of the prefixes covers every annotation that the code reads."""
    prefixes = tuple(DOCUMENT["potentiallyUnsafeConfigAnnotations"])
    package = Path(features.__file__).resolve().parent.parent
    for path in package.rglob("*.py"):
        for word in path.read_text(encoding="utf-8").split('"'):
            if word.startswith(("run.oci.", "org.systemd.")) and path.name != "features.py":
                assert word.startswith(prefixes), f"{path}: {word}"
