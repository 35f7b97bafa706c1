"""`make conformance`: run runtime-tools' validation programs on pyrunc and on runc.

The programs call the runtime without ``--root`` and expect cgroup2 at /sys/fs/cgroup. Therefore
each runs in a private mount namespace with that mount and a fresh /run; in a private pid namespace,
because some leave containers behind when they fail; and below its own cgroup, which is removed
afterwards. The result is written to integration/conformance.md. The exit status is 1 if a program
that can pass on this machine fails three times in a row, alone. The two programs that need AppArmor
and every capability run in a guest if this machine lacks either.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
REPORT = REPO / "integration" / "conformance.md"
LIMIT = 60 * float(os.environ.get("PYRUNC_TEST_SLOW", "1"))  # seconds for one program
TRIES = 3
CGROUP = "pyrunc-conformance"

# These print no result lines; a failure is only an "error" member of a YAML block.
SILENT = {
    "hooks",
    "poststart",
    "poststart_fail",
    "poststop",
    "poststop_fail",
    "prestart",
    "prestart_fail",
    "process_rlimits_fail",
}
V1 = "reads cgroup v1 only: the suite's v2 reader is a stub"
_CGROUPS = ("blkio", "cpus", "devices", "hugetlb", "memory", "network", "pids")
# Programs that no runtime can pass given the specification, cgroup v2 or current Go, and why.
CANNOT = {
    **{f"linux_cgroups_{name}": V1 for name in _CGROUPS},
    **{f"linux_cgroups_relative_{name}": V1 for name in _CGROUPS},
    "delete_only_create_resources": "looks for /sys/fs/cgroup/pids, which is cgroup v1",
    "delete_resources": "looks for /sys/fs/cgroup/pids, which is cgroup v1",
    "delete": "expects `delete` of a created container to fail; engines rely on its success",
    "hooks": "reads its output after the bundle was removed, and expects output that its hooks never write",
    "misc_props": "runs a program that it did not copy into the bundle, and wants `create` to succeed",
    "pidfile": "races: kills its program, `true`, which has mostly ended by then, and wants that to succeed",
    "poststart_fail": "expects a failing poststart hook to be a warning; runtime.md (1.3) requires an error",
    "prestart": "expects prestart hooks after `start`; since runtime-spec 1.0.2 they run in `create`",
    "process_capabilities_fail": "expects an unknown capability to be an error; config.md requires a warning",
    "process_rlimits": "its own program, built with Go 1.19 or later, raises the soft RLIMIT_NOFILE before it looks",
    "start": "assertion 7 is the wrong way round: it wants `start` without /process to succeed, and is named MUST "
    "generate an error; the other six pass",
}


# Programs that run in a guest (integration/vm) if this machine lacks what they need.
NEEDY = ("linux_process_apparmor_profile", "process_capabilities")


def machine_lacks() -> dict[str, str]:
    """Programs that this machine cannot pass, and what it lacks."""
    lacks = {}
    status = Path("/proc/self/status").read_text()
    bounding = int(re.search(r"^CapBnd:\s*(\w+)", status, re.M)[1], 16)  # type: ignore[index]
    if bounding & 0x1FFFFFFFFF != 0x1FFFFFFFFF:
        lacks["process_capabilities"] = "asks for every capability, and this machine's bounding set has not all of them"
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    profiles = Path("/sys/kernel/security/apparmor/profiles")
    if not enabled.exists() or enabled.read_text()[:1] != "Y":
        lacks["linux_process_apparmor_profile"] = "needs AppArmor, which is off here"
    elif not profiles.exists() or "acme_secure_profile" not in profiles.read_text():
        lacks["linux_process_apparmor_profile"] = "needs the AppArmor profile acme_secure_profile to be loaded"
    return lacks


def in_guest(names: list[str]) -> dict[str, str]:
    """Map programs to the result lines that they print in a guest. The map is empty if no guest is
    available (the reason is on stderr)."""
    argv = [sys.executable, "-m", "integration.vm", "conformance", *names]
    done = subprocess.run(argv, cwd=REPO, stdout=subprocess.PIPE, text=True, check=False, timeout=2000)
    found = re.findall(r"^(\w+): ((?:pass|fail).*)$", done.stdout, re.M)
    return {name: word for name, word in found if name in names}


class Outcome:
    """The result of one program."""

    def __init__(self, name: str, status: int, text: str) -> None:
        self.ok = len(re.findall(r"^ok ", text, re.M))
        self.bad = len(re.findall(r"^not ok ", text, re.M))
        errors = re.findall(r'^\s+"error": "(.+)"', text, re.M) if name in SILENT else []
        self.passed = status == 0 and self.bad == 0 and not errors
        self.text = text
        if self.passed:
            self.word = f"pass, {self.ok}" if self.ok else "pass"
        elif status < 0:
            self.word = "fail: timeout"
        else:
            self.word = f"fail, {self.bad} of {self.ok + self.bad}" if self.ok + self.bad else "fail"

    def repeated(self, word: str) -> None:
        """Record the result of a repetition in a guest."""
        self.passed = word.startswith("pass")
        self.word = word.partition(" (")[0] + ", in a guest"


def pack_rootfs(folder: Path) -> None:
    """The root filesystem that the programs unpack into their bundles: busybox."""
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("conformance: busybox-static is not installed")
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    with tempfile.TemporaryDirectory() as made, tarfile.open(folder / f"rootfs-{arch}.tar.gz", "w:gz") as tar:
        root = Path(made)
        for name in ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "usr", "var"):
            (root / name).mkdir()
        root.chmod(0o755)  # some programs run as a user
        shutil.copy(busybox, root / "bin/busybox")
        applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for name in applets:
            if name != "busybox":
                (root / "bin" / name).symlink_to("busybox")
        tar.add(root, ".")


def cgroup2() -> Path:
    """The mount point of the unified hierarchy."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split()[4])
    sys.exit("conformance: cgroup v2 is not mounted")


class Runner:
    """Run programs with one runtime."""

    def __init__(self, runtime: str, folder: Path) -> None:
        self.runtime, self.folder = runtime, folder
        self.group = cgroup2() / f"{CGROUP}-{os.getpid()}"

    def run(self, name: str) -> Outcome:
        """Run one program alone and remove its leftovers."""
        (self.group / "self").mkdir(parents=True, exist_ok=True)
        script = (
            f'echo $$ >"{self.group}/self/cgroup.procs" && mount --make-rshared / && mount -t tmpfs tmpfs /run && '
            '{ [ -e /sys/fs/cgroup/cgroup.controllers ] || mount -t cgroup2 none /sys/fs/cgroup; } && exec "$0"'
        )
        with tempfile.TemporaryDirectory(prefix="pyc") as temp, tempfile.TemporaryFile() as out:
            os.chmod(temp, 0o755)
            env = {"PATH": os.environ["PATH"], "RUNTIME": self.runtime, "TMPDIR": temp}
            argv = ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
            child = subprocess.Popen(
                [*argv, "sh", "-c", script, str(self.folder / "validation" / name)],
                cwd=self.folder,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
            try:
                status = child.wait(LIMIT)
            except subprocess.TimeoutExpired:
                child.send_signal(signal.SIGKILL)  # which kills its pid namespace
                child.wait()
                status = -1
            out.seek(0)
            text = out.read().decode(errors="replace")
        self.clean()
        (self.folder / "log").mkdir(exist_ok=True)
        (self.folder / "log" / f"{Path(self.runtime).name}-{name}").write_text(text)
        return Outcome(name, status, text)

    def clean(self) -> None:
        """Remove the cgroups; their processes end shortly after the pid namespace."""
        for _ in range(100):
            for at, _, _ in sorted(os.walk(self.group), reverse=True):
                try:
                    os.rmdir(at)
                except OSError:
                    pass
            if not self.group.exists():
                return
            time.sleep(0.05)


def patiently(runner: Runner, name: str) -> tuple[Outcome, int]:
    """Run a program up to three times: under load, programs fail occasionally (a process ends
    before it is killed, for example)."""
    for number in range(1, TRIES + 1):
        outcome = runner.run(name)
        if outcome.passed:
            return outcome, number
    return outcome, TRIES


def write_report(rows: list[tuple[str, Outcome, Outcome | None]], reasons: dict[str, str], peer: str) -> None:
    """Write integration/conformance.md."""
    passed = [name for name, ours, _ in rows if ours.passed]
    lines = [
        "# Conformance",
        "",
        "`make conformance` builds the validation programs of opencontainers/runtime-tools (the version pinned",
        "in `integration/conformance/go.mod`), runs each with pyrunc and with runc, and writes this page. The target",
        "fails if a program that can pass on the machine fails three times in a row, alone. Programs with",
        "requirements that the machine lacks may run in a guest (`integration/vm`). The numbers count assertions.",
        "",
        f"{len(passed)} of {len(rows)} programs pass. The other {len(rows) - len(passed)}, and the reasons:",
        "",
        "| program | pyrunc | runc | why it cannot pass |",
        "|---|---|---|---|",
    ]
    for name, ours, theirs in rows:
        if not ours.passed:
            lines.append(
                f"| {name} | {ours.word} | {theirs.word if theirs else '-'} | {reasons.get(name, '**open**')} |"
            )
    lines += ["", f"The programs that pass ({peer}):", "", "| program | pyrunc | runc |", "|---|---|---|"]
    lines += [
        f"| {name} | {ours.word} | {theirs.word if theirs else '-'} |" for name, ours, theirs in rows if ours.passed
    ]
    REPORT.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    """Run all programs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where validation/ and runtimetest have been built")
    parser.add_argument("runtime", help="the runtime under test")
    parser.add_argument("names", nargs="*", help="programs to run (default: all); no report is written then")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("conformance: skipped, it needs root")
        return 0
    folder: Path = args.folder.resolve()
    pack_rootfs(folder)
    ours = Runner(str(Path(args.runtime).resolve()), folder)
    peer_path = shutil.which("runc")
    peer = Runner(peer_path, folder) if peer_path else None
    reasons = {**CANNOT, **machine_lacks()}
    names = args.names or sorted(path.name for path in (folder / "validation").iterdir())
    rows: list[tuple[str, Outcome, Outcome | None]] = []
    wrong: list[str] = []
    elsewhere = in_guest([name for name in NEEDY if name in reasons]) if not args.names else {}
    for name in names:
        outcome, tries = (ours.run(name), 1) if name in reasons else patiently(ours, name)
        if name in elsewhere:
            outcome.repeated(elsewhere[name])
            reasons.pop(name)
        rows.append((name, outcome, peer.run(name) if peer else None))
        note = f" (try {tries})" if tries > 1 else ""
        print(f"{name}: {outcome.word}{note}", flush=True)
        if not outcome.passed and name not in reasons:
            wrong.append(name)
            print(outcome.text)
    if not args.names:
        version = "runc is not installed"
        if peer_path:
            shown = subprocess.run([peer_path, "--version"], capture_output=True, text=True, check=True)
            version = shown.stdout.splitlines()[0]
        write_report(rows, reasons, version)
    passed = sum(ours.passed for _, ours, _ in rows)
    print(f"conformance: {passed} of {len(rows)} pass; of the others {len(wrong)} could: {' '.join(wrong) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
