"""`seccomp trace` and `seccomp record` see the calls of programs, let them continue, and leave
nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from integration import harness
from integration.harness import TIMEOUT, Box, Container, Result, compile_static, errno_of, parse_objects, wait_until
from integration.test_readme_commands import block
from integration.test_seccomp import ALLOW, ERRNO, NATIVE, NR, X86, call, profile, rule
from integration.test_seccomp_explain import with_libraries

Make = Callable[..., Container]
pytestmark = pytest.mark.pyrunc_only("no other runtime traces its containers")

# The number of interruptions of a program; its calls are still counted once.
PROGRAM = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_signal(int number) { (void)number; }

static void *call(void *count)
{
    for (long i = 0; i < (long)count; i++)
        syscall(SYS_getppid);
    return NULL;
}

int main(int argc, char **argv)
{
    long count = argc > 2 ? atol(argv[2]) : 1;
    if (!strcmp(argv[1], "threads")) {
        pthread_t threads[8];
        for (int i = 0; i < 8; i++)
            if (pthread_create(&threads[i], NULL, call, (void *)count))
                return 9;
        for (int i = 0; i < 8; i++)
            pthread_join(threads[i], NULL);
    } else if (!strcmp(argv[1], "forks")) {
        for (int i = 0; i < 8; i++)
            if (fork() == 0) {
                call((void *)count);
                _exit(0);
            }
        while (wait(NULL) > 0)
            ;
    } else if (!strcmp(argv[1], "signals")) {
        struct sigaction action;
        struct itimerval every = {{0, 1000}, {0, 1000}};
        memset(&action, 0, sizeof(action));
        action.sa_handler = on_signal;
        action.sa_flags = SA_RESTART;
        sigaction(SIGALRM, &action, NULL);
        setitimer(ITIMER_REAL, &every, NULL);
        call((void *)count);
    } else if (!strcmp(argv[1], "compat")) {
#ifdef __x86_64__
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(64) : "memory"); /* getppid of i386 */
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(102), "b"(1), "c"(0) : "memory"); /* socketcall(SYS_SOCKET) */
#endif
    } else if (!strcmp(argv[1], "sleep")) {
        for (;;)
            pause();
    }
    return 7;
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("program")
    (place / "p.c").write_text(PROGRAM)
    compile_static(place / "p.c", place / "p")
    return place / "p"


@pytest.fixture
def busy(container: Make, program: Path) -> Container:
    """A container with the compiled program at /p."""
    one = container(edits={"/process/args": ["/p", "none"]})
    shutil.copy(program, one.bundle.rootfs / "p")
    return one


def argv(one: Container, verb: str, *args: str) -> list[str]:
    one.bundle.save()
    return one.box.runtime.argv("--root", str(one.box.root), "seccomp", verb, "-b", str(one.bundle.path), *args)


def traced(one: Container, *command: str, flags: tuple[str, ...] = ()) -> tuple[Result, list[dict[str, Any]]]:
    """The result, and a row for each call."""
    out = one.box.path / "trace.json"
    words = argv(one, "trace", "--json", "-o", str(out), *flags, *(("--", *command) if command else ()))[1:]
    result = one.box.runtime.call(*words[len(one.box.runtime.prefix) :], timeout=40 * harness.SLOW)
    assert not os.path.exists(one.box.root) or not os.listdir(one.box.root), "nothing of the container is left"
    return result, [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def recorded(one: Container, path: Path, *command: str, check: bool = True) -> Result:
    words = argv(one, "record", "-o", str(path), *(("--", *command) if command else ()))[1:]
    result = one.box.runtime.call(*words[len(one.box.runtime.prefix) :], timeout=40 * harness.SLOW)
    assert not check or result.rc == 0, result
    return result


def named(rows: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["name"] == name]


# -- what is seen ----------------------------------------------------------------------------------


def test_every_call_goes_on_and_its_rule_is_named(container: Make) -> None:
    number = NR["getpriority"]
    actions = [*call("getpriority", 0, 0), "--", "say", "here", "--", "syscall", "9000"]
    one = container(
        *actions,
        edits=profile(
            rule("getpriority", errnoRet=95), rule("write", "SCMP_ACT_KILL"), rule("writev", "SCMP_ACT_KILL")
        ),
    )
    result, rows = traced(one)
    assert result.rc == 0 and "here\n" in result.out, result
    assert errno_of(parse_objects(result.out)[0]) == "", "the kernel made the call"
    (row,) = named(rows, "getpriority")
    assert row | {"time": 0, "pid": 0} == {
        "time": 0, "pid": 0, "comm": "probe", "arch": NATIVE, "number": number, "name": "getpriority",
        "args": [0, 0, *row["args"][2:]], "text": "getpriority(0, 0)", "action": ERRNO, "errno": 95,
        "rule": "/linux/seccomp/syscalls/0", "why": "",
    }  # fmt: skip
    writes = named(rows, "write") + named(rows, "writev")
    assert {row["action"] for row in writes} == {"SCMP_ACT_KILL_THREAD"}
    assert {row["comm"] for row in writes} == {"pyrunc-init", "probe"}
    assert named(rows, "execve")[0]["text"].startswith('execve("/probe", 0x')
    assert [row["number"] for row in rows if not row["name"]] == [9000]
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)


def test_text_for_people(container: Make) -> None:
    one = container("say", "x", edits=profile(rule("getpriority", errnoRet=38)))
    one.bundle.save()
    words = argv(one, "trace", "--denied", "--", "/probe", *call("getpriority", 0, 0))
    done = subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0 and len(parse_objects(done.stdout)) == 1
    first, last = done.stderr.splitlines()
    wanted = r" *\d+\.\d{6} \d+ probe: getpriority\(0, 0\)  SCMP_ACT_ERRNO ENOSYS  /linux/seccomp/syscalls/0"
    assert re.fullmatch(wanted, first), first
    assert re.fullmatch(r"\d+ calls, 1 of which the profile would deny", last)


def test_without_a_profile(container: Make) -> None:
    one = container("say", "x")
    result, rows = traced(one)
    assert result.rc == 0 and {row["action"] for row in rows} == {None}
    assert named(rows, "execve")


def test_exit_status_and_command_line(container: Make) -> None:
    result, rows = traced(container(), "/bin/sh", "-c", "cat /etc/passwd >/dev/null; exit 5")
    assert result.rc == 5, result
    assert 'openat(AT_FDCWD, "/etc/passwd", O_RDONLY' in " ".join(row["text"] for row in named(rows, "openat"))
    assert {"sh", "cat"} <= {row["comm"] for row in rows}


@pytest.mark.needs_program("gcc", "ldd")
def test_a_dynamic_program(container: Make, tmp_path: Path) -> None:
    (tmp_path / "d.c").write_text('#include <unistd.h>\nint main(void) { return chroot("/") == 0 ? 7 : 8; }\n')
    subprocess.run(["gcc", "-o", tmp_path / "d", tmp_path / "d.c"], check=True)
    one = container(edits={"/process/args": ["/prog"], **profile(rule("chroot"))})
    one.bundle.config["process"]["capabilities"] = {
        kind: ["CAP_SYS_CHROOT"] for kind in ("bounding", "effective", "permitted")
    }
    with_libraries(one, tmp_path / "d")
    result, rows = traced(one)
    assert result.rc == 7, result
    (row,) = named(rows, "chroot")
    assert (row["text"], row["action"], row["errno"]) == ('chroot("/")', ERRNO, 1)
    assert any("libc.so" in row["text"] for row in named(rows, "openat"))


@pytest.mark.parametrize("kind", ["threads", "forks"])
def test_many_tasks(busy: Container, kind: str) -> None:
    result, rows = traced(busy, "/p", kind, "50")
    assert result.rc == 7, result
    seen = Counter(row["pid"] for row in named(rows, "getppid"))
    assert len(seen) == 8 and set(seen.values()) == {50}


@pytest.mark.needs_kernel(5, 19)
def test_a_call_that_a_signal_meets_is_seen_once(busy: Container) -> None:
    result, rows = traced(busy, "/p", "signals", "2000")
    assert result.rc == 7, result
    assert len(named(rows, "rt_sigreturn")) > 3
    assert len(named(rows, "getppid")) == 2000


@pytest.mark.parametrize("nnp", [True, False])
def test_setuid_denied(container: Make, nnp: bool) -> None:
    """init itself makes such calls after the filter if the filter is loaded early."""
    one = container(
        edits={**profile({"names": ["setuid", "capset"], "action": ERRNO}), "/process/noNewPrivileges": nnp}
    )
    result, rows = traced(one, "/bin/sh", "-c", "id -u")
    assert result.out == "0\n" and result.rc == 0, result
    one.bundle.config["process"]["args"] = ["/probe", "syscall", str(105 if X86 else 146), "1000"]
    result, rows = traced(one)
    assert errno_of(result.objects[0]) == "", "CAP_SETUID is there, and the call went on"
    (row,) = named(rows, "setuid")
    assert (row["text"], row["action"], row["rule"]) == ("setuid(1000)", ERRNO, "/linux/seccomp/syscalls/0")
    assert bool(named(rows, "capset")) != nnp


def compat() -> bool:
    """Whether this kernel supports 32-bit calls: a program that makes one then exits with its own
    status."""
    config = Path("/proc/config.gz")
    if X86 and config.exists():
        import gzip

        return b"CONFIG_IA32_EMULATION=y" in gzip.decompress(config.read_bytes())
    return False


def test_32_bit_calls(busy: Container, tmp_path: Path) -> None:
    if not compat():
        pytest.skip("this kernel is not known to take 32-bit calls")
    busy.bundle.config["linux"]["seccomp"] = profile(rule("chroot"))["/linux/seccomp"]
    result, rows = traced(busy, "/p", "compat")
    assert result.rc == 7, result
    rows = [row for row in rows if row["arch"] == "SCMP_ARCH_X86"]
    assert [row["name"] for row in rows] == ["getppid", "socketcall"]
    assert {row["rule"] for row in rows} == {"/linux/seccomp/architectures"}
    path = tmp_path / "p.json"
    assert recorded(busy, path, "/p", "compat", check=False).rc == 7
    document = json.loads(path.read_text())
    assert document["architectures"] == ["SCMP_ARCH_X86", "SCMP_ARCH_X86_64"]
    assert {"getppid", "socket"} <= set(document["syscalls"][0]["names"])
    busy.bundle.config["linux"]["seccomp"] = document
    busy.bundle.config["process"]["args"] = ["/p", "compat"]
    assert busy.run(check=False).rc == 7


@pytest.mark.needs_program("script")
def test_with_a_terminal(container: Make, box: Box) -> None:
    one = container(edits={"/process/terminal": True, "/process/args": ["/bin/sh", "-c", "tty; exit 3"]})
    out = box.path / "rows"
    words = argv(one, "trace", "-o", str(out))
    done = subprocess.run(
        ["script", "-qec", " ".join(words), "/dev/null"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
        timeout=TIMEOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 3 and "/dev/pts/0" in done.stdout, done
    assert "execve(" in out.read_text()


# -- the end ---------------------------------------------------------------------------------------


class Running:
    """A trace in the background whose program is running."""

    def __init__(self, one: Container, *command: str) -> None:
        self.box = one.box
        self.out = one.box.path / "running"
        self.process = subprocess.Popen(
            argv(one, "trace", "-o", str(self.out), "--", *command), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        wait_until(lambda: self.out.exists() and "pause(" in self.out.read_text(), "the program runs", TIMEOUT)

    def container(self) -> tuple[int, int]:
        """The pids of the process that runs the container, and of its first process."""
        (ident,) = os.listdir(self.box.root)
        data = json.loads((self.box.root / ident / "state.json").read_text())
        return int(data["runtime"]["pid"]), int(data["pid"])

    def end(self) -> tuple[int, str]:
        _, err = self.process.communicate(timeout=TIMEOUT)
        return self.process.returncode, err.decode()


def ended(pid: int) -> bool:
    if Path(f"/proc/{pid}/exe").exists():
        harness.reap()
        return False
    return True


def gone(box: Box, *pids: int) -> None:
    wait_until(lambda: not os.listdir(box.root), "the state is removed", TIMEOUT)
    for pid in pids:
        wait_until(partial(ended, pid), f"the end of {pid}", TIMEOUT)


def test_a_program_that_is_killed_half_way(busy: Container, box: Box) -> None:
    running = Running(busy, "/p", "sleep")
    _, pid = running.container()
    os.kill(pid, signal.SIGKILL)
    rc, err = running.end()
    assert (rc, err) == (128 + 9, "")
    assert "calls; the bundle has no seccomp profile" in running.out.read_text()
    gone(box)


def test_a_signal_is_passed_on(busy: Container, box: Box) -> None:
    one = Running(busy, "/bin/sh", "-c", "trap 'exit 9' TERM; /p sleep & wait")
    os.kill(one.process.pid, signal.SIGTERM)
    assert one.end()[0] == 9
    gone(box)


def test_the_container_ends_with_its_tracer(busy: Container, box: Box) -> None:
    """Without a listener every call fails, including exit(2), so the container must be killed."""
    running = Running(busy, "/p", "sleep")
    runtime, pid = running.container()
    running.process.kill()
    assert running.end()[0] == -signal.SIGKILL
    gone(box, runtime, pid)


def test_the_container_ends_with_the_process_that_runs_it(busy: Container, box: Box) -> None:
    running = Running(busy, "/p", "sleep")
    runtime, pid = running.container()
    os.kill(runtime, signal.SIGKILL)
    rc, err = running.end()
    assert rc == 1 and err == "pyrunc: error: the process that runs the container was killed by signal 9\n"
    gone(box, pid)


def test_no_process_without_the_filter(busy: Container, box: Box) -> None:
    """`exec` would have to provide its own listener."""
    running = Running(busy, "/p", "sleep")
    (ident,) = os.listdir(box.root)
    result = box.runtime.call("--root", str(box.root), "exec", ident, "/bin/true")
    assert result.rc == 255 and "/linux/seccomp/listenerPath" in result.err, result
    os.kill(running.container()[1], signal.SIGKILL)
    assert running.end()[0] == 128 + 9
    gone(box)


def test_output_that_nobody_can_have(busy: Container, box: Box) -> None:
    done = subprocess.run(
        argv(busy, "trace", "-o", "/dev/full", "--", "/p", "sleep"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 1 and done.stderr == "pyrunc: error: --output: write: ENOSPC: no space left on device\n"
    gone(box)


# -- record ----------------------------------------------------------------------------------------


def test_a_recorded_profile_lets_the_program_run(container: Make, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    one = container("say", "hello", "--", *call("getpriority", 0, 0))
    assert recorded(one, path).rc == 0
    first = path.read_bytes()
    document = json.loads(first)
    assert list(document) == ["defaultAction", "defaultErrnoRet", "architectures", "syscalls"]
    assert document["architectures"] == [NATIVE]
    names = document["syscalls"][0]["names"]
    assert names == sorted(set(names)) and {"execve", "getpriority", "write", "exit_group"} <= set(names)
    assert recorded(one, path).rc == 0 and path.read_bytes() == first, "the same calls, the same bytes"
    one.bundle.config["linux"]["seccomp"] = document
    assert "hello\n" in one.run().out
    one.create()
    one.start()
    assert one.wait() == 0 and "hello\n" in one.out
    one.delete()
    one.bundle.config["process"]["args"] = ["/probe", *call("alarm" if X86 else "dup", 0)]
    assert errno_of(one.run().objects[0]) == "EPERM", "what was not seen does not pass"


def test_runs_are_merged(container: Make, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    one = container()
    recorded(one, path, "/probe", "say", "x")
    before = set(json.loads(path.read_text())["syscalls"][0]["names"])
    recorded(one, path, "/probe", *call("getsid", 0))
    after = set(json.loads(path.read_text())["syscalls"][0]["names"])
    assert before < after and "getsid" in after - before
    document = json.loads(path.read_text())
    document["architectures"].append("SCMP_ARCH_S390X")
    path.write_text(json.dumps(document))
    recorded(one, path, "/probe", "say", "x")
    merged = json.loads(path.read_text())
    assert set(merged["syscalls"][0]["names"]) == after and "SCMP_ARCH_S390X" in merged["architectures"]


def test_json_of_record(container: Make) -> None:
    one = container("say", "x")
    done = subprocess.run(argv(one, "record", "--json"), capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done
    said, _, rest = done.stdout.partition("\n")
    document = json.loads(rest)
    assert said == "x" and document["calls"][NATIVE]["execve"] == 1
    assert set(document["calls"][NATIVE]) <= set(document["profile"]["syscalls"][0]["names"])
    plain = subprocess.run(argv(one, "record"), capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert json.loads(plain.stdout.partition("\n")[2]) == document["profile"]


def test_a_call_without_a_name(container: Make, tmp_path: Path) -> None:
    result = recorded(container("syscall", "9000"), tmp_path / "p.json")
    assert result.err.startswith("pyrunc: warning: system call 9000 of 0x") and result.err.count("\n") == 1


# -- bad input -------------------------------------------------------------------------------------

OTHER = {"defaultAction": ALLOW, "syscalls": [{"names": ["read"], "action": ERRNO}]}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trace", "-b", "/nowhere"], 'config.json: cannot be read: open "/nowhere/config.json"'),
        (["record", "-b", "/nowhere"], 'config.json: cannot be read: open "/nowhere/config.json"'),
        (["trace", "--denied"], "--denied: config.json has no seccomp profile"),
        (["trace", "-o", "/nowhere/x"], '--output "/nowhere/x": open: ENOENT'),
        (["record", "-o", "other.json"], "other.json: /: expected what `seccomp record` writes"),
        (["record", "-o", "bad.json"], "bad.json: line 1"),
        (["trace", "--", "/no/such/program"], "/process/args/0"),
        (["record", "--libc", "musl"], "--libc is not an option of `seccomp record`"),
    ],
    ids=range(8),
)
def test_bad_input(container: Make, box: Box, args: list[str], message: str) -> None:
    one = container()
    one.bundle.save()
    (one.bundle.path / "other.json").write_text(json.dumps(OTHER))
    (one.bundle.path / "bad.json").write_text("{")
    words = box.runtime.argv("--root", str(box.root), "seccomp", *args)
    done = subprocess.run(words, cwd=one.bundle.path, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    lines = [line for line in done.stderr.splitlines() if line.startswith("pyrunc: ")]
    assert done.returncode == 1 and done.stdout == "" and len(lines) == 1 and message in lines[0], done
    assert json.loads((one.bundle.path / "other.json").read_text()) == OTHER
    assert not box.root.exists() or not os.listdir(box.root)


def test_the_examples_of_the_readme(container: Make, box: Box) -> None:
    one = container("say", "x", edits=profile(rule("mount")))
    one.bundle.save()
    (box.path / "bundle").symlink_to(one.bundle.path)
    lines = block("`trace` and `record` run the bundle")
    assert len(lines) == 3
    env = {
        **os.environ,
        "PATH": f"{Path(box.runtime.path).parent}:{os.environ['PATH']}",
        "XDG_RUNTIME_DIR": str(box.path),
    }
    script = "set -ex\n" + "\n".join(lines).replace("pyrunc ", f"pyrunc --root {box.root} ")
    done = subprocess.run(["sh", "-c", script], cwd=box.path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert json.loads((box.path / "profile.json").read_text())["architectures"] == [NATIVE]


# -- the kernel's log ------------------------------------------------------------------------------


def audit_lines(exe: str) -> list[str]:
    """The lines about a program in the kernel's log."""
    done = subprocess.run(["dmesg"], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    return [line for line in done.stdout.splitlines() if "type=1326" in line and f'exe="{exe}"' in line]


def marked(one: Container, how: str, name: str) -> list[str]:
    """Flags of `run` or `create`. The container's program is renamed to identify its lines in the
    log."""
    os.rename(one.bundle.rootfs / "probe", one.bundle.rootfs / name)
    one.bundle.config["process"]["args"][0] = f"/{name}"
    if how == "annotation":
        one.bundle.config["annotations"] = {"org.pyrunc.seccomp_log": "true"}
    return ["--seccomp-log"] if how == "option" else []


@pytest.mark.needs_program("dmesg")
@pytest.mark.parametrize("how", ["option", "annotation", "neither"])
def test_the_kernel_logs_what_is_denied(container: Make, box: Box, how: str) -> None:
    logged = Path("/proc/sys/kernel/seccomp/actions_logged")
    if not logged.exists() or "errno" not in logged.read_text().split():
        pytest.skip("this kernel does not log denied calls")
    one = container(*call("getpriority", 0, 0), edits=profile(rule("getpriority")))
    name = f"p{box.prefix}{how}"
    flags = marked(one, how, name)
    assert errno_of(one.run(*flags).objects[0]) == "EPERM"
    lines = audit_lines(f"/{name}")
    if how == "neither":
        assert not lines
        return
    if not lines:
        pytest.skip("this machine's kernel log does not show audit records (auditd has them, or they are limited)")
    result = box.runtime.call("seccomp", "explain", "--json", str(one.bundle.path), lines[-1])
    (answer,) = json.loads(result.out)["calls"]
    assert answer["name"] == "getpriority" and answer["outcomes"][0]["rule"] == "/linux/seccomp/syscalls/0"


@pytest.mark.needs_program("strace")
@pytest.mark.parametrize("how", ["option", "annotation", "neither"])
def test_the_flag_is_set(container: Make, box: Box, how: str) -> None:
    """`create` and `exec` set the flag in addition to the profile's own flags."""
    one = container("sleep", "60", edits=profile(rule("getpriority")))
    flags = marked(one, how, "probe2")
    seen = []
    for verb in ("create", "exec"):
        trace = box.path / f"{verb}.strace"
        wrap = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=seccomp", "-D"]
        if verb == "create":
            one.create(*flags, wrap=wrap)
            one.start()
        else:
            one.call("exec", one.id, "/bin/true", wrap=wrap)
        # The last filter is init's; the compiler's child has its own.
        line = [text for text in trace.read_text().splitlines() if "SECCOMP_SET_MODE_FILTER" in text and "len=" in text]
        seen.append(sorted(re.findall(r"SECCOMP_FILTER_FLAG_(\w+)", line[-1])))
    assert seen == [["LOG", "SPEC_ALLOW"] if how != "neither" else ["SPEC_ALLOW"]] * 2


def test_seccomp_log_that_makes_no_sense(container: Make) -> None:
    one = container()
    result = one.run("--seccomp-log", check=False)
    assert result.rc == 1 and result.err == (
        "pyrunc: error: run: --seccomp-log: /linux/seccomp is missing in config.json, so nothing is denied\n"
    )
    one.bundle.config["annotations"] = {"org.pyrunc.seccomp_log": "yes"}
    result = one.run(check=False)
    assert result.rc == 1 and '/annotations/org.pyrunc.seccomp_log: expected true or false, found "yes"' in result.err
    one.bundle.config["annotations"] = {"org.pyrunc.seccomp_log": "true"}
    assert "no effect without /linux/seccomp" in one.run().err


@pytest.mark.needs_program("dmesg")
def test_the_example_of_the_log(container: Make, box: Box) -> None:
    one = container(*call("getpriority", 0, 0), edits=profile(rule("getpriority")))
    one.bundle.save()
    (box.path / "bundle").symlink_to(one.bundle.path)
    lines = block("To log denied calls without tracing")
    assert len(lines) == 2
    if "type=1326" not in subprocess.run(["dmesg"], capture_output=True, text=True, check=False).stdout:
        pytest.skip("this machine's kernel log does not show audit records")
    env = {**os.environ, "PATH": f"{Path(box.runtime.path).parent}:{os.environ['PATH']}"}
    script = "set -ex\n" + "\n".join(lines).replace("pyrunc run", f"pyrunc --root {box.root} run")
    done = subprocess.run(["sh", "-c", script], cwd=box.path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "by /linux/seccomp" in done.stdout, done
