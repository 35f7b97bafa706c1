"""Each rule of spec/ for `linux` and user namespaces alone, over documents at which its result changes.

golden/spec_steps.txt has the results (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review the diff).
"""

from __future__ import annotations

from typing import Any

import pytest

from broken_configs import BROKEN, changed
from plan_support import Facts
from pyrunc.spec import (
    report,
    rules_linux,
    rules_userns,
)
from spec_support import HIGH, ONE, OWN, ROOT, USER, WHOLE, Host, compare, extent, linux, outcome, rules


@pytest.mark.parametrize("section", ["process", "mounts", "hooks", "resources", "seccomp", "linux", "rest"])
def test_all_that_is_said_of_a_broken_config(section: str) -> None:
    """A broken value has no consequences for the others, and each problem is reported once."""
    lines = []
    for changes, pointer, _ in BROKEN:
        parts = pointer.split("/")[1:3]
        own = next((name for name in ("resources", "seccomp", "process", "mounts", "hooks") if name in parts), "")
        if (own or ("linux" if "linux" in parts else "rest")) == section:
            lines.append(outcome(changed(*changes), None))
    compare("spec_steps", f"broken {section}", lines)


# -- linux -----------------------------------------------------------------------------------------


def device(**members: Any) -> Any:
    return {"devices": [{"path": "/dev/x", "type": "c", "major": 1, "minor": 2} | members]}


def profile(*syscalls: Any, **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(syscalls), **more}


def call(action: str, *calls: str, **more: Any) -> dict[str, Any]:
    return {"names": list(calls), "action": f"SCMP_ACT_{action}", **more}


CONDITION = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}
SYSCTLS = [
    "kernel/hostname", "kernel/domainname", "kernel/sem", "kernel/shmmax", "kernel/shm_rmid_forced", "kernel/msgmax",
    "kernel/pid_max", "net/x", "network/x", "net", "fs/mqueue/x", "fs/mqueue", "fs/file-max", "user/x", "vm/x",
]  # fmt: skip


def test_namespaces() -> None:
    def rule(entries: Any, found: report.Report) -> object:
        config: Any = linux(namespaces=entries) if entries != "none" else {}
        rules_linux.namespaces(config, found)
        return found.namespaces

    kinds = [{"type": "pid"}, {"type": "network", "path": "/n"}, {"type": "uts", "path": ""}]
    cases = [
        "none", [], kinds, [*kinds, {"type": "pid", "path": "/p"}, {"type": "ipc"}], [None, {"type": "pid"}],
        [{"path": "x"}, {"type": "mount"}], [{"type": "user", "path": "x"}],
    ]  # fmt: skip
    compare("spec_steps", "namespaces", rules(rule, cases))


def test_names() -> None:
    cases = [
        {}, {"hostname": "", "domainname": ""}, {"hostname": "h"}, {"hostname": "h" * 65, "domainname": "\u00e4" * 33},
    ]  # fmt: skip
    spaces: list[tuple[str, ...]] = [(), ("uts",), ("uts=/x",)]
    compare("spec_steps", "names", [line for given in spaces for line in rules(rules_linux.names, cases, spaces=given)])


def test_sysctls() -> None:
    def owner(path: str, found: report.Report) -> str:
        return rules_linux._sysctl_owner(path, found)

    lines = []
    for spaces in ((), ("network", "ipc", "uts", "user"), tuple(f"{kind}={OWN[0]}" for kind in ("network", "ipc"))):
        lines += [f"{spaces}", *rules(owner, SYSCTLS, facts=Host(), spaces=spaces)]

    def rule(case: Any, found: report.Report) -> None:
        config: Any = {"domainname": case[0]}
        rules_linux.sysctls(config, {"sysctl": dict.fromkeys(case[1], "1")}, found)

    cases = [
        ("", ["net.a", "net/a", "vm.x"]), ("", ["x", "net..a", "net.b"]), ("", ["kernel.domainname"]),
        ("d", ["kernel.domainname"]), ("d", ["net.a"]), ("", ["kernel.hostname", "a/b~c.d"]),
    ]  # fmt: skip
    compare("spec_steps", "sysctls", [*lines, *rules(rule, cases, spaces=("network", "uts"))])


def test_namespaces_of_the_host() -> None:
    def rule(path: str, found: report.Report) -> bool:
        return rules_linux.of_the_host("network", path, found)

    paths = [
        "", "/proc/self/ns/net", "/proc/thread-self/ns/net", "/proc/1/ns/net", "/proc/11/ns/net", "/proc/self/x",
        "/run/x", OWN[0],
    ]  # fmt: skip
    compare("spec_steps", "of the host", rules(rule, paths) + rules(rule, paths, facts=Host()))


def test_devices() -> None:
    cases = [
        {}, device(), device(path="/"), device(path="///"), device(path="//x"), device(path="x"), device(path=""),
        device(type="p"), {"devices": [{"path": "/x", "type": "p"}]}, {"devices": [{"path": "/x", "type": "u"}]},
        {"devices": [{"path": "/x", "type": "b", "major": 0}]}, {"devices": [{"path": "/x", "type": "b", "minor": 0}]},
        {"devices": [{"type": "c"}, None, {"path": "y"}]},
    ]  # fmt: skip
    compare("spec_steps", "devices", rules(rules_linux.devices, cases))


def test_hidden_paths() -> None:
    cases = [
        {}, {"maskedPaths": ["/a", "b", None, ""]}, {"readonlyPaths": ["/a", "b"], "maskedPaths": ["c"]},
        {"readonlyPaths": ["/" + "x" * 4094, "/" + "x" * 4095]},
    ]  # fmt: skip
    compare("spec_steps", "hidden paths", rules(rules_linux.hidden_paths, cases))


def test_mount_namespace() -> None:
    cases: list[Any] = [{}, {"rootfsPropagation": ""}, {"rootfsPropagation": "slave"}]
    lines = []
    for spaces in ((), ("mount",), ("mount", "user"), ("user",), ("user=/x",)):
        given = [case | {"namespaces": [spaces]} for case in cases]
        lines += [f"{spaces}", *rules(rules_linux.mount_namespace, given, spaces=spaces)]
    compare("spec_steps", "mount namespace", lines)


def test_cgroup_path() -> None:
    def rule(path: Any, found: report.Report) -> None:
        rules_linux.cgroup_path({} if path is None else {"cgroupsPath": path}, found)

    paths = [
        None, "", "/", "a/b", "..", "/a/../b", "a..b", "/" + "n" * 255, "/" + "n" * 256, "/" + "\u00e4" * 128,
        "/a" * 128, "/a" * 129, "/a//" * 128, "/" * 32768, "/" * 32769, "/.." * 129,
    ]  # fmt: skip
    compare("spec_steps", "cgroup path", rules(rule, paths))


def test_the_rest_of_linux() -> None:
    cases: list[Any] = [
        {}, linux(), linux(personality={"domain": "LINUX"}), linux(personality={"domain": "LINUX", "flags": []}),
        linux(personality={"flags": ["x"]}), linux(mountLabel=""), linux(mountLabel="a:b"), linux(intelRdt={}),
        linux(netDevices={"a/b": {}}), linux(netDevices={}), linux(memoryPolicy={}), linux(timeOffsets={"x": {}}),
        linux(timeOffsets={}), linux(seccomp={"defaultAction": "SCMP_ACT_NOTIFY"}),
        {"hostname": "h", **linux(sysctl={"x": "1"}, devices=[{"path": "d"}], maskedPaths=["m"], cgroupsPath="..",
                                  rootfsPropagation="slave")},
    ]  # fmt: skip
    lines = []
    for facts in (None, Facts(resctrl=""), Facts(selinux=True)):
        lines += rules(rules_linux.check, cases, facts=facts)
    compare("spec_steps", "linux", lines)


def test_seccomp() -> None:
    def rule(case: Any, found: report.Report) -> None:
        rules_linux.seccomp(case, "/linux/seccomp", found)

    cases = [
        {}, profile(), profile(defaultAction="SCMP_ACT_NOTIFY"), profile(defaultErrnoRet=1),
        profile(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=4095),
        profile(defaultAction="SCMP_ACT_ERRNO", defaultErrnoRet=4096),
        profile(defaultAction="SCMP_ACT_TRACE", defaultErrnoRet=65535),
        profile(defaultAction="SCMP_ACT_TRACE", defaultErrnoRet=65536), {"defaultErrnoRet": 70000},
        profile(listenerMetadata="m"), profile(listenerMetadata="m", listenerPath=""),
        profile(listenerMetadata="m", listenerPath="/s"), profile(listenerPath="/s"),
        profile(call("LOG")), profile({"action": "SCMP_ACT_LOG"}), profile(None, call("LOG", "")),
        profile(call("LOG", "write", "", "read", "")), profile(call("NOTIFY", "read")),
        profile(call("NOTIFY", "read"), listenerPath=""), profile(call("NOTIFY", "read"), listenerPath="/s"),
        profile(call("NOTIFY", "write", "read", ""), call("LOG", "write"), listenerPath="/s"),
        profile(call("NOTIFY", "read"), call("LOG", "kill")), profile(call("ERRNO", "a", errnoRet=5)),
        profile(call("KILL", "a", errnoRet=0)), profile({"names": ["a"], "errnoRet": 70000}),
    ]  # fmt: skip
    compare("spec_steps", "seccomp", rules(rule, cases))

    def size(case: Any, found: report.Report) -> None:
        arches, named, conditions = case
        given: Any = {"architectures": arches} if arches else {}
        rules_linux._size(given, "/linux/seccomp", found, named, conditions)

    sizes = [
        (arches, named, conditions)
        for arches in ([], ["a"], ["a", "a"], ["a", "b"], ["a"] * 33, list(map(str, range(32))))
        for named, conditions in ((0, 0), (4096, 0), (4097, 9999), (9, 4096), (9, 4097), (1024, 3839), (1023, 3840))
    ]
    compare("spec_steps", "seccomp size", rules(size, sizes))


# -- user namespaces -------------------------------------------------------------------------------


def test_user_namespaces() -> None:
    cases: list[Any] = [
        {}, linux(uidMappings=WHOLE), linux(uidMappings=WHOLE, gidMappings=WHOLE),
        linux(uidMappings=WHOLE, gidMappings=HIGH), linux(uidMappings=[], gidMappings=ONE),
        linux(uidMappings=[{"size": 1}], gidMappings=[None]),
        {"process": {"user": {"uid": 70, "gid": 1, "additionalGids": [1, 70]}}, "mounts": [{"options": ["idmap"]}],
         **linux(uidMappings=WHOLE, gidMappings=ONE, devices=[{"uid": 70, "gid": 0}, {"gid": 1}, {}])},
    ]  # fmt: skip
    lines = []
    for spaces in ((), ("user",), ("user=/x",)):
        for facts in (None, ROOT, USER):
            lines.append(f"{spaces} {facts and facts.euid}")
            lines += rules(rules_userns.check, cases, facts=facts, spaces=spaces)
    compare("spec_steps", "user namespaces", lines)


def test_extents() -> None:
    def rule(case: Any, found: report.Report) -> bool:
        rules_userns.extents(case, "/linux/uidMappings", found)
        return rules_userns.broken(case)

    last = rules_userns.LAST
    cases = [
        [], WHOLE, [None], [{}], [{"size": 1, "hostID": 1}], [extent(0, 0, 0)], [extent(0, 0, last)],
        [extent(1, 0, last)], [extent(0, 1, last)], [extent(last, last, 1)],
        [extent(0, 0, 5), extent(5, 5, 5)], [extent(0, 0, 6), extent(5, 9, 5)], [extent(5, 5, 5), extent(0, 0, 6)],
        [extent(9, 0, 5), extent(0, 4, 5)], [extent(0, 9, 3), extent(7, 1, 3), extent(2, 20, 6)],
        [extent(n, n, 1) for n in range(340)], [extent(n, n, 1) for n in range(341)],
        [extent(n + 100000, n + 100000, 1) for n in range(255)], [extent(n + 100000, n + 1000000,
        1) for n in range(255)],
        [extent(n + 100000, n + 100000, 1) for n in range(254)] + [extent(9, 9, 9)],
    ]  # fmt: skip
    compare("spec_steps", "extents", rules(rule, cases))


def test_ids_of_the_process() -> None:
    maps: list[Any] = [{}, {"uid": WHOLE}, {"gid": ONE}, {"uid": WHOLE, "gid": WHOLE}, {"uid": HIGH, "gid": HIGH}]
    users: list[Any] = [
        None, {}, {"uid": 69, "gid": 69}, {"uid": 70, "gid": 70}, {"additionalGids": [0, 70, None, 1]}, {"uid": 5},
        {"additionalGids": []},
    ]  # fmt: skip

    def rule(case: Any, found: report.Report) -> None:
        config: Any = {"process": {"user": case[1]}} if case[1] is not None else {}
        rules_userns.user(config, case[0], found)

    cases = [(one, user) for one in maps for user in users]
    lines = [line for facts in (None, USER) for line in rules(rule, cases, facts=facts)]
    compare("spec_steps", "ids of the process", lines)


def test_ids_in_mount_options() -> None:
    def rule(case: Any, found: report.Report) -> None:
        config: Any = {"mounts": [None, {"options": case}, {}]}
        rules_userns.mount_data(config, {"uid": WHOLE, "gid": ONE}, found, "/mounts")

    cases = [
        ["uid=69"], ["uid=70"], ["gid=0"], ["gid=1", "uid=0070"], ["bind", "uid=70"], ["rbind", "uid=70"], ["uid="],
        ["uid"], ["uid=x"], ["uid=\u0661"], ["uid=-1"], ["mode=70"], ["uid=0000000069"], ["uid=00000000069"],
        ["uid=4294967295"], ["uid=69999999999"], ["ro", None, "gid=99"],
    ]  # fmt: skip
    compare("spec_steps", "ids in mount options", rules(rule, cases))


def test_owners_of_devices() -> None:
    def rule(case: Any, found: report.Report) -> None:
        given: Any = {"devices": [None, case]}
        rules_userns.devices(given, {"uid": WHOLE, "gid": ONE}, found)

    compare(
        "spec_steps", "owners of devices", rules(rule, [{}, {"uid": 0}, {"uid": 69, "gid": 0}, {"uid": 70, "gid": 1}])
    )


def test_idmapped_mounts() -> None:
    def mount(*options: str, **more: Any) -> dict[str, Any]:
        return {"options": list(options), **more}

    mounts = [
        mount("bind"), mount("bind", "idmap"), mount("rbind", "ridmap"), mount("idmap"), mount("bind", "remount",
        "idmap"),
        mount("bind", uidMappings=WHOLE), mount("bind", gidMappings=WHOLE), mount(uidMappings=WHOLE, gidMappings=WHOLE),
        mount("bind", uidMappings=[extent(0, 0, 0)], gidMappings=WHOLE), mount("bind", uidMappings=[], gidMappings=[]),
        {"uidMappings": WHOLE, "gidMappings": WHOLE}, mount("bind", "idmap", uidMappings=WHOLE, gidMappings=WHOLE),
    ]  # fmt: skip
    both = {"uidMappings": WHOLE, "gidMappings": WHOLE}
    lines = []
    for own, spaces, facts in (
        ({}, (), None), ({}, ("user",), ROOT), ({}, ("user=/x",), Host()), ({}, (f"user={OWN[1]}",), Host()),
        (both, (), USER), ({"uidMappings": WHOLE}, ("user",), None), (both, ("user",), ROOT),
    ):  # fmt: skip
        lines.append(f"{list(own)} {spaces} {facts and facts.euid}")

        def rule(case: Any, found: report.Report, own: Any = own) -> None:
            config: Any = {"mounts": [case]}
            rules_userns.idmapped_mounts(config, own, found, "/mounts")

        lines += rules(rule, mounts, facts=facts, spaces=spaces)
    compare("spec_steps", "idmapped mounts", lines)


def test_rules_for_mounts_alone() -> None:
    """`mounts add` applies them to its own document."""
    cases = [
        {"mounts": [{"options": ["uid=70"]}, {"options": ["idmap"]}], **linux(uidMappings=WHOLE, gidMappings=entries)}
        for entries in (WHOLE, [], [None])
    ]
    lines = [
        line for spaces in ((), ("user",)) for line in rules(
            lambda case, found: rules_userns.mounts(case, found, ""), cases, spaces=spaces)
    ]  # fmt: skip
    compare("spec_steps", "mounts in a user namespace", lines)
