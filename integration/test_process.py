"""process: ids, groups, umask, cwd, environment, limits, capabilities, and the look-up of the
program."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.config import DELETE, PATH_ENV
from integration.harness import Box, Container, errno_of
from integration.machine import CAP_BIT, own_bounding_caps

Make = Callable[..., Container]
Refused = Callable[..., None]
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def bits(names: list[str]) -> int:
    return sum(CAP_BIT[name] for name in names)


@pytest.mark.parametrize(
    ("user", "uid", "gid", "groups"),
    [
        ({"uid": 0, "gid": 0}, 0, 0, []),
        ({"uid": 1000, "gid": 1000}, 1000, 1000, []),
        ({"uid": 1000, "gid": 0, "additionalGids": [5, 6]}, 1000, 0, [5, 6]),
        ({"uid": 0, "gid": 7, "additionalGids": [7, 9]}, 0, 7, [7, 9]),
        ({"uid": 65534, "gid": 65534, "additionalGids": []}, 65534, 65534, []),
        ({"uid": 2147483647, "gid": 2147483647}, 2147483647, 2147483647, []),
    ],
)
def test_user(container: Make, user: dict[str, Any], uid: int, gid: int, groups: list[int]) -> None:
    seen = container(edits={"/process/user": user}).run().report
    assert seen["uid"] == [uid] * 3
    assert seen["gid"] == [gid] * 3
    assert sorted(seen["groups"]) == groups, "exactly additionalGids: none of the caller's"


OPTIONAL = (
    "/annotations", "/hooks", "/hostname", "/domainname", "/process/rlimits", "/process/apparmorProfile",
    "/process/noNewPrivileges", "/process/oomScoreAdj", "/process/scheduler", "/process/ioPriority",
    "/process/user/additionalGids", "/process/user/umask", "/process/consoleSize", "/process/terminal",
    "/process/capabilities/ambient", "/mounts/0/options", "/mounts/0/uidMappings", "/linux/seccomp",
    "/linux/resources", "/linux/sysctl", "/linux/devices", "/linux/maskedPaths", "/linux/readonlyPaths",
    "/linux/uidMappings", "/linux/cgroupsPath", "/linux/rootfsPropagation", "/linux/intelRdt", "/linux/personality",
    "/linux/timeOffsets", "/linux/netDevices", "/root/readonly",
)  # fmt: skip


def test_null_is_absent(container: Make) -> None:
    """Null means absent, as in Go: engines marshal nil pointers and empty slices as null."""
    with_null = container(edits=dict.fromkeys(OPTIONAL))
    seen, without = with_null.run().report, container(edits=dict.fromkeys(OPTIONAL, DELETE)).run().report
    assert {name: seen[name] for name in ("uid", "groups", "umask", "env", "cwd")} == {
        name: without[name] for name in ("uid", "groups", "umask", "env", "cwd")
    }


def test_groups_of_the_caller_do_not_leak(container: Make) -> None:
    one = container()
    seen = one.run(preexec=lambda: os.setgroups([6, 27])).report
    assert seen["groups"] == []


def test_a_name_in_passwd_does_not_win_over_the_number(container: Make) -> None:
    one = container(edits={"/process/user": {"uid": 1000, "gid": 1000}})
    (one.bundle.rootfs / "etc/passwd").unlink()
    (one.bundle.rootfs / "etc/passwd").write_text("1000:x:0:0::/root:/bin/sh\n")
    assert one.run().report["uid"] == [1000] * 3


@pytest.mark.parametrize("value", [0o22, 0o77, 0, 0o777])
def test_umask(container: Make, value: int) -> None:
    assert container(edits={"/process/user/umask": value}).run().report["umask"] == value


def test_umask_unset_is_0022(container: Make) -> None:
    old = os.umask(0o077)
    try:
        assert container().run().report["umask"] == 0o022
    finally:
        os.umask(old)


@pytest.mark.parametrize("cwd", ["/", "/tmp", "/new/work/dir", "/etc/../tmp", "/link"])
def test_cwd(container: Make, cwd: str) -> None:
    one = container(edits={"/process/cwd": cwd})
    (one.bundle.rootfs / "link").symlink_to("/tmp")
    assert one.run().report["cwd"] == {"/etc/../tmp": "/tmp", "/link": "/tmp"}.get(cwd, cwd)
    if cwd.startswith("/new"):
        assert (one.bundle.rootfs / "new/work").stat().st_mode & 0o7777 == 0o755


def test_cwd_that_only_root_may_enter(container: Make) -> None:
    """runc enters it before it changes to the user, and users of engines rely on that."""
    edits = {"/process/cwd": "/private", "/process/user": {"uid": 1000, "gid": 1000}, "/process/capabilities": {}}
    one = container(edits=edits)
    (one.bundle.rootfs / "private").mkdir(mode=0o700)
    assert one.run().report["cwd"] == "/private"


@pytest.mark.parametrize("number", list(range(3, 12)))
def test_cwd_through_a_descriptor_never_leads_out(container: Make, number: int) -> None:
    """CVE-2024-21626: a descriptor of the host's tree that is open during chdir."""
    one = container("stat", ".", "--", "ls", ".", edits={"/process/cwd": f"/proc/self/fd/{number}"})
    opened = os.open("/etc", os.O_RDONLY)
    try:
        result = one.run(check=False, pass_fds=[opened])
    finally:
        os.close(opened)
    assert result.rc != 0 or result.objects[0]["dev"] != os.stat("/etc").st_dev
    assert "debian_version" not in result.out
    assert "shadow" not in result.out


def test_cwd_that_is_a_file(container: Make, refused: Refused) -> None:
    refused(container(edits={"/process/cwd": "/etc/passwd"}).create(check=False), "/process/cwd", "/etc/passwd")


def test_environment_is_exactly_the_configs(container: Make) -> None:
    env = [PATH_ENV, "A=1", "EMPTY=", "B=x=y", "UTF=ä"]
    seen = container(edits={"/process/env": env}).run(env={"SECRET": "host", "PATH": os.environ["PATH"]}).report["env"]
    assert [entry for entry in seen if not entry.startswith("HOME=")] == [
        *env[:4],
        "UTF=" + "ä".encode().decode("latin-1"),
    ]
    assert "HOME=/root" in seen


def test_no_environment_at_all(container: Make) -> None:
    seen = container(edits={"/process/env": DELETE}).run().report["env"]
    assert {entry.partition("=")[0] for entry in seen} <= {"HOME"}


@pytest.mark.parametrize(
    ("uid", "passwd", "env", "home"),
    [
        (0, None, [], "/root"),
        (1000, None, [], "/home/user"),
        (1234, None, [], "/"),
        (0, None, ["HOME=/mine"], "/mine"),
        (0, "", [], "/"),
        (0, "\nx:x:1:0::/x:\nroot:x:0:0:root:/found:/bin/sh\nroot2:x:0:0::/second:\n", [], "/found"),
    ],
)
def test_home(container: Make, uid: int, passwd: str | None, env: list[str], home: str) -> None:
    one = container(edits={"/process/user/uid": uid, "/process/env": [PATH_ENV, *env]})
    if passwd is not None:
        (one.bundle.rootfs / "etc/passwd").unlink()
        (one.bundle.rootfs / "etc/passwd").write_text(passwd)
    seen = one.run().report["env"]
    assert [entry for entry in seen if entry.startswith("HOME=")][-1:] == [f"HOME={home}"]


@pytest.mark.pyrunc_only("runc 1.1.5 takes a line without fields for uid 0, and leaves an empty HOME")
@pytest.mark.parametrize(
    ("passwd", "env"), [("broken\nroot:x:0:0:root:/found:\n", []), ("root:x:0:0:root:/found:\n", ["HOME="])]
)
def test_home_in_odd_cases(container: Make, passwd: str, env: list[str]) -> None:
    one = container(edits={"/process/env": [PATH_ENV, *env]})
    (one.bundle.rootfs / "etc/passwd").unlink()
    (one.bundle.rootfs / "etc/passwd").write_text(passwd)
    assert [entry for entry in one.run().report["env"] if entry.startswith("HOME=")] == ["HOME=/found"]


def test_last_duplicate_of_a_variable_wins(container: Make) -> None:
    seen = container(edits={"/process/env": [PATH_ENV, "A=1", "B=2", "A=3"]}).run().report["env"]
    assert [entry for entry in seen if entry[:2] in ("A=", "B=")] in (["A=3", "B=2"], ["B=2", "A=3"])


def test_host_environment_reaches_nothing(container: Make) -> None:
    one = container("exit", "0")
    one.create(env={"SECRETENV": "leak", "PATH": os.environ["PATH"]})
    assert b"SECRETENV" not in Path(f"/proc/{one.pid}/environ").read_bytes()


# --- limits and scores ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "soft", "hard"),
    [
        ("RLIMIT_NOFILE", 512, 1000),
        ("RLIMIT_NOFILE", 16, 16),
        ("RLIMIT_CORE", 0, 0),
        ("RLIMIT_NPROC", 100, 200),
        ("RLIMIT_AS", 1 << 30, 1 << 30),
        ("RLIMIT_STACK", 1 << 20, 1 << 23),
        ("RLIMIT_CPU", 60, 120),
        ("RLIMIT_FSIZE", 1 << 20, 1 << 20),
        ("RLIMIT_DATA", 1 << 28, 1 << 28),
        ("RLIMIT_MEMLOCK", 0, 4096),
        ("RLIMIT_RSS", 1 << 28, 1 << 28),
        ("RLIMIT_LOCKS", 10, 20),
        ("RLIMIT_SIGPENDING", 10, 20),
        ("RLIMIT_MSGQUEUE", 10, 20),
        ("RLIMIT_NICE", 0, 0),
        ("RLIMIT_RTPRIO", 0, 0),
        ("RLIMIT_RTTIME", 1000, 2000),
    ],
)
def test_rlimits(container: Make, kind: str, soft: int, hard: int) -> None:
    seen = container(edits={"/process/rlimits": [{"type": kind, "soft": soft, "hard": hard}]}).run().report
    assert seen["rlimits"][kind] == [soft, hard]


@pytest.mark.pyrunc_only("runc 1.1.5 needs more descriptors than that itself")
def test_tiny_descriptor_limit(container: Make) -> None:
    """Setup after the limits must not open new descriptors."""
    edits = {"/process/rlimits": [{"type": "RLIMIT_NOFILE", "soft": 4, "hard": 4}]}
    assert container("say", "fine", edits=edits).run().out == "fine\n"


@pytest.mark.parametrize(
    ("limits", "pointer"),
    [
        ([{"type": "RLIMIT_BOGUS", "soft": 1, "hard": 1}], "/process/rlimits/0/type"),
        ([{"type": "RLIMIT_NOFILE", "soft": 20, "hard": 10}], "/process/rlimits/0"),
    ],
)
def test_bad_rlimits(container: Make, refused: Refused, limits: list[Any], pointer: str) -> None:
    refused(container(edits={"/process/rlimits": limits}).create(check=False), pointer)


@pytest.mark.pyrunc_only("runc accepts duplicates, the spec does not")
def test_duplicate_rlimit(container: Make, refused: Refused) -> None:
    limit = {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}
    refused(container(edits={"/process/rlimits": [limit, limit]}).create(check=False), "/process/rlimits/1")


def test_rlimit_above_the_hard_limit(container: Make, refused: Refused) -> None:
    from integration.machine import has_cap

    if has_cap("SYS_RESOURCE"):
        pytest.skip("CAP_SYS_RESOURCE may raise hard limits")
    limit = {"type": "RLIMIT_NOFILE", "soft": 10, "hard": 1 << 20}
    refused(container(edits={"/process/rlimits": [limit]}).create(check=False), "/process/rlimits/0", "EPERM")


@pytest.mark.parametrize("value", [1, 500, 1000])
def test_oom_score_adj(container: Make, value: int) -> None:
    """The test only raises it: lowering needs CAP_SYS_RESOURCE."""
    assert container(edits={"/process/oomScoreAdj": value}).run().report["oom_score_adj"] == f"{value}\n"


def test_oom_score_adj_unset_is_the_callers(container: Make) -> None:
    def raised() -> None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("321")

    assert container().run(preexec=raised).report["oom_score_adj"] == "321\n"


@pytest.mark.needs_cap("SYS_RESOURCE")
def test_oom_score_adj_lowered(container: Make) -> None:
    assert container(edits={"/process/oomScoreAdj": -500}).run().report["oom_score_adj"] == "-500\n"


@pytest.mark.skipif("CAP_SYS_RESOURCE" in own_bounding_caps(), reason="CAP_SYS_RESOURCE is here")
def test_oom_score_adj_that_may_not_be_lowered(container: Make, refused: Refused) -> None:
    result = container(edits={"/process/oomScoreAdj": -500}).create(check=False)
    refused(result, "/process/oomScoreAdj", "EACCES: permission denied; lowering the score needs CAP_SYS_RESOURCE")
    assert result.err.count("CAP_SYS_RESOURCE") < 2


@pytest.mark.pyrunc_only("newer than runc 1.1.5")
@pytest.mark.parametrize(("domain", "machine"), [("LINUX", None), ("LINUX32", "i686")])
def test_personality(container: Make, domain: str, machine: str | None) -> None:
    seen = container(edits={"/linux/personality": {"domain": domain}}).run().report
    assert seen["personality"] == (8 if domain == "LINUX32" else 0)
    if os.uname().machine == "x86_64":
        assert seen["machine"] == (machine or "x86_64")


# --- capabilities ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "caps",
    [
        {},
        {"bounding": ["CAP_KILL"]},
        {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"]},
        {kind: ["CAP_KILL", "CAP_NET_RAW"] for kind in SETS},
        {kind: ["CAP_NET_BIND_SERVICE"] for kind in SETS[:4]},
        {"bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL", "CAP_CHOWN"], "effective": ["CAP_CHOWN"]},
    ],
    ids=range(6),
)
@pytest.mark.parametrize("uid", [0, 1000])
def test_capabilities(container: Make, caps: dict[str, list[str]], uid: int) -> None:
    """The kernel's rules for the sets at execve (capabilities(7)); noNewPrivileges keeps root from
    gaining any."""
    seen = container(edits={"/process/capabilities": caps, "/process/user/uid": uid}).run().report["caps"]
    want = {kind: bits(caps.get(kind, [])) for kind in SETS}
    assert seen["bounding"] == want["bounding"]
    assert seen["inheritable"] == want["inheritable"]
    assert seen["ambient"] == want["ambient"]
    if uid == 0:
        expected = (want["bounding"] | want["inheritable"]) & want["permitted"]
        assert seen["permitted"] == seen["effective"] == expected
    else:
        assert seen["permitted"] == seen["effective"] == want["ambient"]


def test_no_capabilities_member_drops_all(container: Make) -> None:
    seen = container(edits={"/process/capabilities": DELETE, "/process/user/uid": 1000}).run().report["caps"]
    assert seen["effective"] == seen["permitted"] == seen["ambient"] == seen["inheritable"] == 0


def test_all_capabilities_of_this_machine(container: Make) -> None:
    names = own_bounding_caps()
    caps = dict.fromkeys(("bounding", "effective", "permitted"), names)
    seen = container(edits={"/process/capabilities": caps}).run().report["caps"]
    assert seen["effective"] == seen["bounding"] == bits(names)


def test_unknown_capability_is_a_warning(container: Make, box: Box) -> None:
    one = container(edits={"/process/capabilities": {kind: ["CAP_BOGUS", "CAP_KILL"] for kind in SETS[:3]}})
    one.bundle.save()
    log = box.path / "log"
    result = one.call("run", "-b", str(one.bundle.path), one.id, globals_=["--log", str(log)])
    assert result.report["caps"]["effective"] == bits(["CAP_KILL"])
    assert "CAP_BOGUS" in log.read_text()
    assert "level=warning" in log.read_text()


def test_capability_beyond_the_bounding_set(container: Make, refused: Refused) -> None:
    missing = [name for name in CAP_BIT if name not in own_bounding_caps()]
    if not missing:
        pytest.skip("this machine has every capability")
    caps = {kind: [missing[0]] for kind in ("bounding", "effective", "permitted")}
    refused(container(edits={"/process/capabilities": caps}).create(check=False), "/process/capabilities")


@pytest.mark.parametrize("value", [True, False])
def test_no_new_privileges(container: Make, value: bool) -> None:
    seen = container(edits={"/process/noNewPrivileges": value}).run().report
    assert seen["no_new_privs"] == int(value)


def test_keepcaps_is_off_again(container: Make) -> None:
    seen = container(edits={"/process/user/uid": 1000}).run().report
    assert (seen["keepcaps"], seen["securebits"]) == (0, 0)


@pytest.mark.pyrunc_only("runc keeps ignored signals ignored, and 1.1.15 a blocked one blocked")
def test_signals_are_default_and_unblocked(container: Make) -> None:
    """Python and shells leave signals ignored or blocked; the program must not inherit that."""
    import signal

    def bad_state() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})
        for number in (signal.SIGPIPE, signal.SIGHUP, signal.SIGXFSZ, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)

    one = container()
    one.create(preexec=bad_state, timeout=20)
    one.start()
    one.wait()
    assert (one.report["sigblk"], one.report["sigign"]) == (0, 0)


# --- the program ----------------------------------------------------------------------------------


def _fails(one: Container, refused: Refused, *texts: str) -> None:
    """podman and moby derive 126 and 127 from these words for every runtime."""
    result = one.create(check=False)
    assert any(text in result.err for text in texts), result
    refused(result, "/process/args/0")


def test_program_not_in_path(container: Make, refused: Refused) -> None:
    _fails(container(edits={"/process/args": ["nonesuch"]}), refused, "executable file not found in $PATH")


def test_missing_program_by_path(container: Make, refused: Refused) -> None:
    _fails(container(edits={"/process/args": ["/no/such"]}), refused, "no such file or directory")


@pytest.mark.parametrize("given", ["/etc/passwd", "/etc"])
def test_program_that_cannot_run(container: Make, refused: Refused, given: str) -> None:
    _fails(container(edits={"/process/args": [given]}), refused, "permission denied", "is a directory")


def test_program_the_user_may_not_run(container: Make, refused: Refused) -> None:
    caps: dict[str, list[str]] = {}
    one = container(edits={"/process/args": ["/closed/sh"], "/process/user/uid": 1000, "/process/capabilities": caps})
    (one.bundle.rootfs / "closed").mkdir(mode=0o700)
    (one.bundle.rootfs / "closed/sh").symlink_to("/bin/busybox")
    _fails(one, refused, "permission denied")


def test_path_is_the_containers(container: Make) -> None:
    """Relative names are looked up in the config's PATH, inside the root filesystem."""
    one = container(edits={"/process/args": ["mine", "say", "found"], "/process/env": ["PATH=/nowhere:/special"]})
    (one.bundle.rootfs / "special").mkdir()
    os.link(one.bundle.rootfs / "probe", one.bundle.rootfs / "special/mine")
    assert one.run().out == "found\n"


def test_relative_program_with_a_slash(container: Make) -> None:
    one = container(edits={"/process/args": ["./probe", "say", "found"]})
    assert one.run().out == "found\n"


def test_a_broken_program_fails_start(container: Make) -> None:
    """Found and executable, but execve rejects it: `start` reports the error."""
    one = container(edits={"/process/args": ["/broken"]})
    (one.bundle.rootfs / "broken").write_text("no magic number, no #!\n")
    (one.bundle.rootfs / "broken").chmod(0o755)
    one.create()
    result = one.start(check=not one.box.runtime.is_pyrunc)
    if one.box.runtime.is_pyrunc:  # runc only prints it on the container's stderr
        assert result.rc != 0
        assert "exec format error" in result.err
        assert "/process/args/0" in result.err


def test_argv_is_passed_as_it_is(container: Make) -> None:
    args = ["/probe", "report", "", "a b", "*", "$HOME", "ü"]
    seen = container(edits={"/process/args": args}).run().report["argv"]
    assert seen == [*args[:6], "ü".encode().decode("latin-1")]


def test_argument_list_too_long(container: Make, refused: Refused) -> None:
    one = container(edits={"/process/args": ["/probe", "say", "x" * (1 << 18)]})
    result = one.create(check=False)
    if one.box.runtime.is_pyrunc:
        refused(result, "/process/args/2")
    else:
        one.start(check=False)


def test_stdio_belongs_to_the_user(container: Make) -> None:
    one = container("stat", "/proc/self/fd/1", edits={"/process/user": {"uid": 1000, "gid": 1000}})
    assert one.run().objects[0]["uid"] == 1000


def test_dev_null_of_the_host_keeps_its_owner(container: Make) -> None:
    before = os.stat("/dev/null")
    container("exit", "0", edits={"/process/user": {"uid": 1000, "gid": 1000}}).run()
    after = os.stat("/dev/null")
    assert (before.st_uid, before.st_gid, before.st_mode) == (after.st_uid, after.st_gid, after.st_mode)


def test_null_stdin_is_the_containers(container: Make) -> None:
    one = container("stat", "/dev/null", "--", "stat", "/proc/self/fd/0")
    one.create()
    one.start()
    one.wait()
    inside, stdin = one.objects
    assert (stdin["major"], stdin["minor"]) == (1, 3)
    assert (inside["dev"], inside["ino"]) == (stdin["dev"], stdin["ino"])


@pytest.mark.parametrize(
    "program", [["setuid", "12"], ["setgid", "12"], ["chown", "/tmp/x", "1", "1"], ["sethostname", "x"]]
)
def test_allowed_calls_follow_the_capabilities(container: Make, program: list[str]) -> None:
    one = container("write", "/tmp/x", "", "--", *program)
    allowed = program[0] != "sethostname"  # CAP_SYS_ADMIN is not among the defaults
    assert (errno_of(one.run().objects[1]) == "") == allowed


@pytest.mark.parametrize("field", ["apparmorProfile", "selinuxLabel"])
def test_labels_fail_closed_without_the_lsm(container: Make, refused: Refused, field: str) -> None:
    lsm = "apparmor" if field == "apparmorProfile" else "selinux"
    try:
        active = lsm in Path("/sys/kernel/security/lsm").read_text()
    except OSError:
        active = (
            os.path.exists("/sys/fs/selinux/enforce") if lsm == "selinux" else os.path.exists("/sys/module/apparmor")
        )
    if active:
        pytest.skip(f"{lsm} is active here")
    refused(container(edits={f"/process/{field}": "some_profile:r:t:s0"}).create(check=False), f"/process/{field}")
