"""linux.seccomp: actions, errno values, argument operators, calls newer than the profile, flags,
the notify agent."""

from __future__ import annotations

import array
import json
import os
import platform
import random
import select
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.harness import REPO, TIMEOUT, Box, Container, errno_of, parse_objects

Make = Callable[..., Container]
Refused = Callable[..., None]
ALLOW, ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
X86 = platform.machine() == "x86_64"
NATIVE = "SCMP_ARCH_X86_64" if X86 else "SCMP_ARCH_AARCH64"
# numbers of harmless calls on this machine
NR = (
    {"getpriority": 140, "alarm": 37, "chdir": 80, "sethostname": 170, "dup": 32, "getsid": 124, "mkdir": 83}
    if X86
    else {"getpriority": 141, "chdir": 49, "sethostname": 161, "dup": 23, "getsid": 156, "mkdir": 34}
)


def profile(*rules: dict[str, Any], default: str = ALLOW, **more: Any) -> dict[str, Any]:
    return {"/linux/seccomp": {"defaultAction": default, "architectures": [NATIVE], "syscalls": list(rules), **more}}


def rule(name: str, action: str = ERRNO, **more: Any) -> dict[str, Any]:
    return {"names": [name], "action": action, **more}


EQUAL = {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}


def call(name: str, *args: int | str) -> list[str]:
    return ["syscall", str(NR[name]), *[str(arg) for arg in args]]


def test_filter_mode_is_visible(container: Make) -> None:
    status = container(edits=profile(rule("getpriority"))).run().report["status"]
    assert "Seccomp:\t2" in status


def test_no_profile_no_filter(container: Make) -> None:
    assert "Seccomp:\t0" in container().run().report["status"]


@pytest.mark.parametrize(
    ("item", "want"),
    [
        (rule("getpriority"), "EPERM"),
        (rule("getpriority", errnoRet=38), "ENOSYS"),
        (rule("getpriority", errnoRet=13), "EACCES"),
        (rule("getpriority", errnoRet=0), ""),
        (rule("getpriority", ALLOW), ""),
        (rule("getpriority", "SCMP_ACT_LOG"), ""),
        ({"names": ["no_such_syscall", "getpriority"], "action": ERRNO}, "EPERM"),
        (rule("no_such_syscall"), ""),
    ],
    ids=range(8),
)
def test_actions(container: Make, item: dict[str, Any], want: str) -> None:
    one = container(*call("getpriority", 0, 0), edits=profile(item))
    assert errno_of(one.run().objects[0]) == want


@pytest.mark.parametrize(
    ("action", "number"),
    [("SCMP_ACT_KILL", 31), ("SCMP_ACT_KILL_THREAD", 31), ("SCMP_ACT_KILL_PROCESS", 31), ("SCMP_ACT_TRAP", 31)],
)
def test_killing_actions(container: Make, action: str, number: int) -> None:
    one = container("say", "alive", "--", *call("getpriority", 0, 0), edits=profile(rule("getpriority", action)))
    result = one.run(check=False)
    assert (result.rc, result.out) == (128 + number, "alive\n")


def test_trace_without_a_tracer_is_enosys(container: Make) -> None:
    one = container(*call("getpriority", 0, 0), edits=profile(rule("getpriority", "SCMP_ACT_TRACE", errnoRet=1)))
    assert errno_of(one.run().objects[0]) == "ENOSYS"


def test_default_errno(container: Make, box: Box) -> None:
    allowed = _whitelist(ALLOW)
    one = container(*call("getpriority", 0, 0), edits=profile(allowed, default=ERRNO, defaultErrnoRet=95))
    assert errno_of(one.run().objects[0]) == "ENOTSUP"


# calls of the probe, and of a runtime between loading the filter and execve
NEEDED = """
read write open openat close stat fstat lstat newfstatat fstatat64 statx poll lseek mmap mprotect munmap brk ioctl
rt_sigaction rt_sigprocmask rt_sigreturn access faccessat faccessat2 pipe pipe2 select sched_yield madvise dup dup2
dup3 nanosleep clock_nanosleep getpid gettid sendmsg recvmsg sendto recvfrom socket connect clone clone3 fork vfork
execve execveat exit exit_group wait4 waitid kill tgkill uname fcntl getdents getdents64 getcwd chdir fchdir umask
gettimeofday getrlimit prlimit64 setrlimit getuid getgid setuid setgid geteuid getegid setpgid getppid getpgrp
setsid getpgid getsid capget capset arch_prctl prctl set_tid_address futex epoll_create1 epoll_ctl epoll_wait
epoll_pwait set_robust_list getrandom rseq sigaltstack setgroups getgroups setresuid setresgid getresuid getresgid
readlink readlinkat writev readv pread64 clock_gettime sched_getaffinity sched_setaffinity fchown fchownat chown
personality keyctl close_range openat2 restart_syscall tkill timer_create timer_settime timer_delete eventfd2
fstatfs statfs landlock_create_ruleset signalfd4 ppoll pselect6 getpeername getsockname mremap msync membarrier
getxattr lgetxattr shutdown
"""


def _whitelist(action: str, *without: str) -> dict[str, Any]:
    return {"names": [name for name in NEEDED.split() if name not in without], "action": action}


def test_syscalls_newer_than_the_profile_are_enosys(container: Make) -> None:
    """libcs fall back only on ENOSYS: EPERM for a call that the profile's author could not know
    breaks programs."""
    edits = profile(_whitelist(ALLOW, "landlock_create_ruleset"), default=ERRNO, defaultErrnoRet=1)
    # 9000 is newer than every profile; getpriority is old and omitted on purpose
    one = container("syscall", "9000", "--", *call("getpriority", 0, 0), edits=edits)
    new, old = one.run().objects
    assert (errno_of(new), errno_of(old)) == ("ENOSYS", "EPERM")


@pytest.mark.parametrize(
    ("op", "value", "two", "denied", "allowed"),
    [
        ("SCMP_CMP_EQ", 5, 0, [5], [4, 6]),
        ("SCMP_CMP_NE", 5, 0, [4, 6], [5]),
        ("SCMP_CMP_LT", 5, 0, [4], [5, 6]),
        ("SCMP_CMP_LE", 5, 0, [4, 5], [6]),
        ("SCMP_CMP_GT", 5, 0, [6], [4, 5]),
        ("SCMP_CMP_GE", 5, 0, [5, 6], [4]),
        ("SCMP_CMP_MASKED_EQ", 6, 4, [4, 5, 12], [2, 6, 8]),
        ("SCMP_CMP_EQ", 1 << 40, 0, [1 << 40], [0, 1]),
    ],
    ids=lambda value: str(value).removeprefix("SCMP_CMP_"),
)
def test_argument_operators(
    container: Make, op: str, value: int, two: int, denied: list[int], allowed: list[int]
) -> None:
    argument = {"index": 1, "value": value, "valueTwo": two, "op": op}
    actions: list[str] = []
    for number in [*denied, *allowed]:
        actions += [*call("getpriority", 77, number), "--"]  # 77 is not a PRIO_ value: EINVAL if the call is allowed
    one = container(*actions[:-1], edits=profile(rule("getpriority", errnoRet=99, args=[argument])))
    got = [item["errno"] for item in one.run().objects]
    assert got == [99] * len(denied) + [22] * len(allowed)


def test_arguments_are_all_needed(container: Make) -> None:
    args = [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 8, "op": "SCMP_CMP_EQ"}]
    actions = [*call("getpriority", 7, 8), "--", *call("getpriority", 7, 9), "--", *call("getpriority", 6, 8)]
    one = container(*actions, edits=profile(rule("getpriority", errnoRet=99, args=args)))
    assert [item["errno"] for item in one.run().objects] == [99, 22, 22]


def test_arguments_with_one_index_twice_are_alternatives(container: Make) -> None:
    args = [{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]
    actions = [*call("getpriority", 7, 0), "--", *call("getpriority", 8, 0), "--", *call("getpriority", 9, 0)]
    one = container(*actions, edits=profile(rule("getpriority", errnoRet=99, args=args)))
    assert [item["errno"] for item in one.run().objects] == [99, 99, 22]


def test_rules_of_one_call_add_up(container: Make) -> None:
    first = rule("getpriority", errnoRet=98, args=[{"index": 0, "value": 7, "op": "SCMP_CMP_EQ"}])
    second = rule("getpriority", errnoRet=99, args=[{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}])
    actions = [*call("getpriority", 7, 0), "--", *call("getpriority", 8, 0), "--", *call("getpriority", 9, 0)]
    assert [i["errno"] for i in container(*actions, edits=profile(first, second)).run().objects] == [98, 99, 22]


@pytest.mark.parametrize(
    "flags", [[], ["SECCOMP_FILTER_FLAG_LOG"], ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], ["SECCOMP_FILTER_FLAG_TSYNC"]]
)
def test_flags(container: Make, box: Box, flags: list[str]) -> None:
    if flags and not box.runtime.is_pyrunc:
        pytest.skip("runc 1.1.5 does not support flags")
    one = container(*call("getpriority", 0, 0), edits=profile(rule("getpriority"), flags=flags))
    assert errno_of(one.run().objects[0]) == "EPERM"


@pytest.mark.parametrize("nnp", [True, False])
def test_calls_that_set_up_needs_may_be_denied(container: Make, nnp: bool) -> None:
    """With noNewPrivileges the filter is loaded last; otherwise it is loaded before capabilities
    are dropped. Both containers must start."""
    names = [
        "sethostname",
        "setdomainname",
        "mount",
        "pivot_root",
        "umount2",
        "unshare",
        "setns",
        "mknod",
        "mknodat",
        "chroot",
    ]
    if nnp:
        names += ["capset", "setgroups", "setresuid", "setresgid", "prctl", "close_range", "getcwd", "chdir"]
    edits = {**profile({"names": names, "action": ERRNO}), "/process/noNewPrivileges": nnp}
    one = container("say", "fine", edits=edits)
    if nnp and not one.box.runtime.is_pyrunc:
        names[:] = names[:10]
        one.bundle.config["linux"]["seccomp"]["syscalls"][0]["names"] = names
    assert one.run().out == "fine\n"


@pytest.mark.pyrunc_only("crun ends by SIGSEGV, and runc never ends where exit is forbidden")
@pytest.mark.parametrize("nnp", [True, False])
@pytest.mark.parametrize("names", [["write"], ["execve", "write", "exit", "exit_group"], []], ids="-".join)
def test_a_profile_that_lets_nobody_report_is_an_error(
    container: Make, refused: Refused, names: list[str], nnp: bool
) -> None:
    """Not even a failed execve could be reported. Without names the profile forbids every call."""
    rules = [{"names": names, "action": ERRNO}] if names else []
    edits = {**profile(*rules, default=ALLOW if names else ERRNO), "/process/noNewPrivileges": nnp}
    result = container("say", "x", edits=edits).run(check=False)
    assert result.out == ""
    refused(result, "/linux/seccomp has to allow read, write, execve and exit_group")


def test_filter_holds_for_an_unprivileged_user(container: Make) -> None:
    edits = {**profile(rule("getpriority")), "/process/user/uid": 1000, "/process/noNewPrivileges": False}
    result = container(*call("getpriority", 0, 0), "--", "report", edits=edits).run()
    assert errno_of(result.objects[0]) == "EPERM"
    assert result.report["no_new_privs"] == 0


@pytest.mark.needs_arch("x86_64")
def test_other_architectures_are_also_filtered(container: Make) -> None:
    architectures = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    edits = profile(rule("getpriority"))
    edits["/linux/seccomp"]["architectures"] = architectures
    assert errno_of(container(*call("getpriority", 0, 0), edits=edits).run().objects[0]) == "EPERM"


@pytest.mark.needs_arch("aarch64")
def test_arm64_has_no_legacy_calls(container: Make) -> None:
    """A profile written for x86_64 names calls that arm64 does not have: they are ignored, and the
    others apply.

    The filter is for AUDIT_ARCH_AARCH64, and for 32-bit ARM if the profile requests it, as docker's
    does.
    """
    legacy = {"names": ["open", "stat", "fork", "mkdir", "chmod", "mkdirat", "getpriority"], "action": ERRNO}
    edits = profile(legacy)
    edits["/linux/seccomp"]["architectures"] = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    mkdirat = ["syscall", "34", "-100", "0", "0"]
    result = container(*mkdirat, "--", *call("getpriority", 0, 0), "--", "report", edits=edits).run()
    assert [errno_of(item) for item in result.objects[:2]] == ["EPERM", "EPERM"]
    assert "Seccomp:\t2" in result.report["status"]


@pytest.mark.needs_arch("aarch64")
def test_this_is_arm64(container: Make) -> None:
    assert container().run().report["machine"] == "aarch64"


@pytest.mark.parametrize(
    ("edits", "pointer"),
    [
        (profile(rule("mkdir", "SCMP_ACT_BOGUS")), "/linux/seccomp/syscalls/0/action"),
        (profile(default="bogus"), "/linux/seccomp/defaultAction"),
        (profile(rule("mkdir"), architectures=["SCMP_ARCH_VAX"]), "/linux/seccomp/architectures/0"),
        (profile(rule("mkdir"), flags=["BOGUS"]), "/linux/seccomp/flags/0"),
        (profile(rule("mkdir", args=[{"index": 0, "value": 1, "op": "BOGUS"}])), "/linux/seccomp/syscalls/0/args/0/op"),
        (profile(default="SCMP_ACT_NOTIFY"), "/linux/seccomp"),
    ],
    ids=range(6),
)
def test_bad_profiles(container: Make, refused: Refused, edits: dict[str, Any], pointer: str) -> None:
    refused(container(edits=edits).create(check=False), pointer)


@pytest.mark.pyrunc_only("runc 1.1.5 checks less than the spec wants")
@pytest.mark.parametrize(
    ("edits", "pointer"),
    [
        (profile({"names": [], "action": ERRNO}), "/linux/seccomp/syscalls/0/names"),
        (profile({"action": ERRNO}), "/linux/seccomp/syscalls/0/names"),
        (profile(rule("mkdir", "SCMP_ACT_KILL", errnoRet=1)), "/linux/seccomp/syscalls/0/errnoRet"),
        (profile(rule("mkdir", errnoRet=100000)), "/linux/seccomp/syscalls/0/errnoRet"),
        (
            profile(rule("mkdir", args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}])),
            "/linux/seccomp/syscalls/0/args/0/index",
        ),
        (profile(rule("mkdir"), listenerMetadata="x"), "/linux/seccomp/listenerMetadata"),
        (profile(rule("mkdir", "SCMP_ACT_NOTIFY")), "/linux/seccomp"),
        (profile(rule("write", "SCMP_ACT_NOTIFY"), listenerPath="/run/x"), "cannot be used for the write syscall"),
        (profile(*[rule("mkdir", args=[{**EQUAL, "value": n}]) for n in range(12_000)]), "/linux/seccomp/syscalls"),
        (profile(*[rule("mkdir", args=[{**EQUAL, "index": i} for i in range(6)])] * 2000), "/linux/seccomp/syscalls"),
    ],
    ids=range(10),
)
def test_profiles_the_spec_forbids(container: Make, refused: Refused, edits: dict[str, Any], pointer: str) -> None:
    refused(container(edits=edits).create(check=False), pointer)


# --- the compiler ---------------------------------------------------------------------------------


def uncached() -> tuple[dict[str, Any], int]:
    """A profile that is not in the cache, and the errno that it returns for getpriority."""
    number = random.randrange(200, 4095)
    return profile(rule("getpriority", errnoRet=number)), number


LIMITS = {
    "memory": "-v 80000",
    "files": "-n 24",
    "stack": "-s 256",
    "time": "-t 4",
    "core": "-c 0",
}


@pytest.mark.pyrunc_only("Go needs more memory than that")
@pytest.mark.parametrize("limit", LIMITS)
def test_profiles_are_compiled_within_the_callers_limits(container: Make, limit: str) -> None:
    edits, number = uncached()
    one = container(*call("getpriority", 0, 0), edits=edits)
    result = one.run(wrap=["/bin/bash", "-c", f'ulimit {LIMITS[limit]} && exec "$@"', "bash"])
    assert result.objects[0]["errno"] == number


@pytest.mark.parametrize("signals", ["CHLD", "XCPU PIPE ABRT SEGV"])
def test_profiles_are_compiled_whatever_the_caller_ignores(container: Make, signals: str) -> None:
    edits, number = uncached()
    one = container(*call("getpriority", 0, 0), edits=edits)
    result = one.run(wrap=["/bin/bash", "-c", f"trap '' {signals}; exec \"$@\"", "bash"])
    assert result.objects[0]["errno"] == number


IN_CHROOT = 'at=$1; shift; mount --rbind / "$at" && exec chroot "$at" "$@"'


def test_profiles_are_compiled_in_a_chroot(container: Make, tmp_path: Path) -> None:
    edits, number = uncached()
    wrap = ["unshare", "--mount", "--propagation", "slave", "/bin/sh", "-c", IN_CHROOT, "sh", str(tmp_path)]
    assert container(*call("getpriority", 0, 0), edits=edits).run(wrap=wrap).objects[0]["errno"] == number


@pytest.mark.needs_kernel(6, 3)
def test_profiles_are_compiled_where_no_memfd_can_be_executed(container: Make) -> None:
    edits, number = uncached()
    wrap = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "/bin/sh", "-c"]
    wrap += ['echo 2 >/proc/sys/vm/memfd_noexec && exec "$@"', "sh"]
    assert container(*call("getpriority", 0, 0), edits=edits).run(wrap=wrap).objects[0]["errno"] == number


@pytest.mark.pyrunc_only("about pyrunc without its launcher")
def test_profiles_are_compiled_by_a_plain_interpreter(container: Make, box: Box) -> None:
    edits, number = uncached()
    one = container(*call("getpriority", 0, 0), edits=edits)
    one.bundle.save()
    argv = [sys.executable, "-m", "pyrunc", "--root", str(box.root), "run", "--bundle", str(one.bundle.path), one.id]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done
    assert parse_objects(done.stdout)[0]["errno"] == number


@pytest.mark.pyrunc_only("runc and crun have no such cache")
def test_a_cached_profile_needs_no_compiler(container: Make, box: Box) -> None:
    """The cached filter is the compiled one: the second container behaves like the first."""
    edits, number = uncached()
    one = container(*call("getpriority", 0, 0), edits=edits)
    for forks in (True, False):
        box.count += 1
        trace = box.path / f"trace{box.count}"
        result = one.run(wrap=["strace", "-D", "-f", "-qq", "-o", str(trace), "-e", "trace=openat"])
        assert result.objects[0]["errno"] == number
        assert ("/proc/self/statm" in trace.read_text()) == forks, "only the compiler's memory is bounded by it"


# --- the notify agent -----------------------------------------------------------------------------


class Agent:
    """Receive the notify descriptor as seccomp agents do, and answer every call with `errno` (spec,
    "seccomp")."""

    def __init__(self, path: Path, answer: int) -> None:
        self.path, self.answer = path, answer
        self.document: dict[str, Any] = {}
        self.descriptors = 0
        self.calls: list[int] = []
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(str(path))
        self.server.listen()
        self.server.settimeout(10)
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        try:
            connection, _ = self.server.accept()
        except OSError:
            return
        data, control, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(16))
        fds = array.array("i")
        for _, _, payload in control:
            fds.frombytes(payload[: len(payload) - len(payload) % 4])
        self.descriptors = len(fds)
        while piece := connection.recv(65536):
            data += piece
        self.document = json.loads(data)
        import fcntl

        notify = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV: _IOWR('!', 0, struct seccomp_notif of 80 bytes)
        send = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND: _IOWR('!', 1, struct seccomp_notif_resp of 24 bytes)
        while not self.stop.is_set():
            ready = select.select([fds[0]], [], [], 0.1)[0]
            if not ready:
                continue
            request = bytearray(80)
            try:
                fcntl.ioctl(fds[0], notify, request)
                ident, _, _, number = struct.unpack_from("<QIIi", request)
                self.calls.append(number)
                fcntl.ioctl(fds[0], send, struct.pack("<QqiI", ident, 0, -self.answer, 0))
            except OSError:
                break
        os.close(fds[0])

    def close(self) -> None:
        self.stop.set()
        self.thread.join(5)
        self.server.close()


@pytest.fixture
def agent(box: Box) -> Iterator[Agent]:
    made = Agent(box.path / "agent.sock", 95)
    yield made
    made.close()


@pytest.mark.parametrize("nnp", [True, False])
def test_notify(container: Make, agent: Agent, nnp: bool) -> None:
    edits = profile(rule("sethostname", "SCMP_ACT_NOTIFY"), listenerPath=str(agent.path), listenerMetadata="meta")
    one = container("sethostname", "x", "--", "report", edits={**edits, "/process/noNewPrivileges": nnp})
    one.create()
    one.start()
    one.wait()
    asked = one.objects[0]
    assert asked["errno"] == 95
    assert agent.calls == [NR["sethostname"]]
    document = agent.document
    assert document["fds"] == ["seccompFd"]
    assert agent.descriptors == 1
    assert document["metadata"] == "meta"
    assert document["state"]["id"] == one.id
    assert document["state"]["status"] == "creating"
    assert document["state"]["bundle"] == str(one.bundle.path)
    assert document["pid"] == document["state"]["pid"] == one.pid
    assert not [link for link in one.report["fds"].values() if "seccomp" in link], (
        "the notify descriptor stays with the agent"
    )


def test_notify_without_an_agent(container: Make, box: Box, refused: Refused) -> None:
    edits = profile(rule("sethostname", "SCMP_ACT_NOTIFY"), listenerPath=str(box.path / "nobody.sock"))
    result = container(edits=edits).create(check=False)
    refused(result, "/linux/seccomp/listenerPath", "failed to connect with seccomp agent")
