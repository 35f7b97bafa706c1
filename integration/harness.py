"""Drive an OCI runtime from a test: bundles, containers, the probe's answers, and leftovers.

The runtime is ``PYRUNC_UNDER_TEST`` (a path, or a name looked up in ``PATH``), by default
``.venv/bin/pyrunc`` of this checkout. Other runtimes look for cgroup v2 only at ``/sys/fs/cgroup``;
on a hybrid host they run in a private mount namespace with the unified hierarchy there. pyrunc runs
without this change.

Times are in seconds and are multiplied by ``PYRUNC_TEST_SLOW`` (emulated machines); paths are
absolute.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from integration.config import default_config, edit
from integration.machine import cgroup2_mount, parse_mountinfo

REPO = Path(__file__).resolve().parent.parent
SLOW = float(os.environ.get("PYRUNC_TEST_SLOW", "1"))
TIMEOUT = 10 * SLOW  # for one call of the runtime

_APPLETS = """
cat chmod cp date dd echo env expr false grep head hostname id kill ln ls mkdir mknod mount mv nc printf ps pwd
readlink rm rmdir sed seq sh sleep sort stat stty tail tee test top touch tr true tty umount uname wc yes [ dmesg
ifconfig ip ping chown find awk
"""
APPLETS = _APPLETS.split()


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 5.0, pause: float = 0.005) -> Any:
    """Poll `condition` every `pause` seconds until it is true and return its value. Raises
    AssertionError naming `what` after `timeout`."""
    limit = time.monotonic() + timeout * SLOW
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise AssertionError(f"timed out waiting: {what}")
        time.sleep(pause)


def end_of(child: subprocess.Popen[bytes], timeout: float) -> int:
    """Wait for a child and return its exit code. Raises subprocess.TimeoutExpired after ``timeout``
    seconds.

    Unlike Popen.wait with a timeout, which sleeps up to 50 ms between checks, this returns
    immediately when the child ends.
    """
    rc = child.poll()
    if rc is not None:
        return rc
    with suppress(ProcessLookupError):  # reaped elsewhere
        fd = os.pidfd_open(child.pid)
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            if not poller.poll(timeout * 1000):
                raise subprocess.TimeoutExpired(child.args, timeout)
        finally:
            os.close(fd)
    return child.wait(1)


# --- the runtime ----------------------------------------------------------------------------------


class Result:
    """The result of one call of the runtime: exit status (negative if killed by that signal), both
    outputs, and duration."""

    def __init__(self, argv: Sequence[str], rc: int, out: str, err: str, seconds: float) -> None:
        self.argv, self.rc, self.out, self.err, self.seconds = list(argv), rc, out, err, seconds

    def __repr__(self) -> str:
        return f"rc={self.rc} out={self.out[-2000:]!r} err={self.err[-2000:]!r} argv={' '.join(self.argv[-8:])}"

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The probe's JSON lines."""
        return parse_objects(self.out)

    @property
    def report(self) -> dict[str, Any]:
        """The probe's first report."""
        return find_report(self.out, self)


def parse_objects(text: str) -> list[dict[str, Any]]:
    """Every line of `text` that is a JSON object of the probe."""
    found = []
    for line in text.splitlines():
        if line.startswith("{") and line.rstrip().endswith("}"):
            found.append(json.loads(line))
    return found


def find_report(text: str, context: object) -> dict[str, Any]:
    """The first ``report`` among the probe's answers. Raises AssertionError with `context` if there
    is none."""
    for item in parse_objects(text):
        if item.get("action") == "report":
            return item
    raise AssertionError(f"the probe gave no report: {context!r}")


def errno_of(item: dict[str, Any]) -> str:
    """The errno name of one answer of the probe; '' for success."""
    return errno.errorcode[item["errno"]] if item["errno"] else ""


class Runtime:
    """The runtime under test: how to call it, and its kind."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.prefix: list[str] = []
        first = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=TIMEOUT, check=True)
        self.version = first.stdout.splitlines()[0]
        self.name = self.version.split()[0]
        self.is_pyrunc = self.name == "pyrunc"
        root = cgroup2_mount()
        if not self.is_pyrunc and root is not None and str(root) != "/sys/fs/cgroup":
            script = 'mount -t cgroup2 none /sys/fs/cgroup && exec "$@"'
            self.prefix = ["/usr/bin/unshare", "-m", "--propagation", "slave", "/bin/sh", "-c", script, "sh"]

    @staticmethod
    def find() -> str | None:
        """The path of the runtime under test, or None if it is missing."""
        wanted = os.environ.get("PYRUNC_UNDER_TEST", str(REPO / ".venv/bin/pyrunc"))
        if "/" not in wanted:
            return shutil.which(wanted)
        path = str(Path(wanted).absolute())
        return path if os.access(path, os.X_OK) else None

    def argv(self, *args: str) -> list[str]:
        """The complete command line for `args`."""
        return [*self.prefix, self.path, *args]

    def call(
        self,
        *args: str,
        env: dict[str, str] | None = None,
        cwd: str | Path | None = None,
        pass_fds: Sequence[int] = (),
        stdin: int | str | None = None,
        out: Path | None = None,
        err: Path | None = None,
        timeout: float | None = None,
        wrap: Sequence[str] = (),
        preexec: Callable[[], Any] | None = None,
    ) -> Result:
        """Run the runtime and wait for it. `stdin` is a descriptor or the text to send; `out`/`err`
        are files that the container keeps as its stdio after `create` (temporary ones otherwise);
        `wrap` is prepended to the command line."""
        argv = [*wrap, *self.argv(*args)]
        with tempfile.TemporaryFile() as out_file, tempfile.TemporaryFile() as err_file:
            stdout = open(out, "ab") if out else out_file  # noqa: SIM115
            stderr = open(err, "ab") if err else err_file  # noqa: SIM115
            at_out, at_err = stdout.tell(), stderr.tell()
            start = time.monotonic()
            child = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE if isinstance(stdin, str) else subprocess.DEVNULL if stdin is None else stdin,
                stdout=stdout,
                stderr=stderr,
                env=env if env is not None else {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")},
                cwd=cwd,
                pass_fds=tuple(pass_fds),
                preexec_fn=preexec,
            )
            try:
                if isinstance(stdin, str):
                    child.communicate(stdin.encode(), timeout=timeout or TIMEOUT)
                rc = end_of(child, timeout or TIMEOUT)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                raise AssertionError(f"{' '.join(argv[-6:])} did not end within {timeout or TIMEOUT} s") from None
            seconds = time.monotonic() - start
            texts = []
            for path, file, start_at in ((out, stdout, at_out), (err, stderr, at_err)):
                if path:
                    file.close()
                    texts.append(path.read_bytes()[start_at:].decode(errors="replace"))
                else:
                    file.seek(0)
                    texts.append(file.read().decode(errors="replace"))
            return Result(argv, rc, texts[0], texts[1], seconds)


# --- bundles --------------------------------------------------------------------------------------


def compile_static(source: Path, target: Path) -> None:
    """Compile one C file into a static program. Raises AssertionError with the compilers'
    output."""
    options = ["-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-O1", "-static", "-o", str(target)]
    errors = []
    for compiler in ("musl-gcc", "gcc"):
        if shutil.which(compiler) is None:
            continue
        argv = [compiler, *options, str(source)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120 * SLOW, check=False)
        if done.returncode == 0:
            return
        errors.append(done.stderr)
    raise AssertionError(f"cannot build {source}: {errors or 'no C compiler'}")


def build_probe(target: Path) -> None:
    """Compile probe/probe.c."""
    compile_static(REPO / "integration/probe/probe.c", target)


def build_template(base: Path, probe: Path) -> Path:
    """Build a root filesystem with a static busybox, its applets in /bin, and the probe as
    /probe."""
    root = base / "template"
    for name in ["bin", "usr/bin", "etc", "proc", "sys", "dev", "run", "tmp", "var/tmp", "root", "home", "mnt", "sbin"]:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    busybox = shutil.which("busybox")
    assert busybox, "busybox-static is not installed"
    shutil.copy(busybox, root / "bin/busybox")
    shutil.copy(probe, root / "probe")
    for name in APPLETS:
        (root / "bin" / name).symlink_to("busybox")
        (root / "usr/bin" / name).symlink_to("/bin/busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\ntty:x:5:\nuser:x:1000:\n")
    return root


def copy_tree(source: Path, target: Path) -> Path:
    """Copy a tree with hard links to its regular files: this is cheap, and a test may add, remove
    and replace names."""
    shutil.copytree(source, target, symlinks=True, copy_function=os.link)
    return target


class Bundle:
    """A bundle directory: `save` writes `config`, and `rootfs` is its root filesystem."""

    def __init__(self, path: Path, template: Path, config: dict[str, Any]) -> None:
        self.path, self.config = path, config
        path.mkdir(parents=True)
        self.rootfs = copy_tree(template, path / "rootfs")

    def save(self, raw: str | bytes | None = None) -> None:
        """Write config.json: `config`, or `raw` verbatim."""
        if raw is None:
            raw = json.dumps(self.config)
        (self.path / "config.json").write_bytes(raw.encode() if isinstance(raw, str) else raw)


# --- containers -----------------------------------------------------------------------------------


class Container:
    """One container id of one bundle, with the calls that a test makes on it."""

    def __init__(self, box: Box, ident: str, bundle: Bundle) -> None:
        self.box, self.id, self.bundle = box, ident, bundle
        self.out_file = box.path / f"{ident}.out"
        self.err_file = box.path / f"{ident}.err"
        self.pid = 0

    def call(self, verb: str, *args: str, check: bool = True, globals_: Sequence[str] = (), **kwargs: Any) -> Result:
        """Run ``RUNTIME --root ROOT [globals_] VERB args...``. Raises AssertionError if `check` is
        set and it fails."""
        result = self.box.runtime.call("--root", str(self.box.root), *globals_, verb, *args, **kwargs)
        if check:
            assert result.rc == 0, f"{verb} failed: {result!r}"
        return result

    def create(self, *flags: str, check: bool = True, save: bool = True, **kwargs: Any) -> Result:
        """Run `create`; the container's stdout and stderr go to files that `out` and `err` read."""
        if save:
            self.bundle.save()
        kwargs.setdefault("out", self.out_file)
        kwargs.setdefault("err", self.err_file)
        pid_file = self.box.path / f"{self.id}.pid"
        pid_file.unlink(missing_ok=True)
        flags = (*flags, "--bundle", str(self.bundle.path), "--pid-file", str(pid_file), self.id)
        result = self.call("create", *flags, check=check, **kwargs)
        if result.rc == 0:
            self.pid = int(pid_file.read_text())
        return result

    def run(self, *flags: str, check: bool = True, save: bool = True, **kwargs: Any) -> Result:
        """Run `run` in the foreground; `check` requires exit status 0."""
        if save:
            self.bundle.save()
        return self.call("run", *flags, "--bundle", str(self.bundle.path), self.id, check=check, **kwargs)

    def start(self, check: bool = True, **kwargs: Any) -> Result:
        return self.call("start", self.id, check=check, **kwargs)

    def kill(self, *args: str, check: bool = True, **kwargs: Any) -> Result:
        return self.call("kill", self.id, *args, check=check, **kwargs)

    def delete(self, *flags: str, check: bool = True, **kwargs: Any) -> Result:
        return self.call("delete", *flags, self.id, check=check, **kwargs)

    def state(self) -> dict[str, Any]:
        """The parsed output of `state`."""
        loaded = json.loads(self.call("state", self.id).out)
        assert isinstance(loaded, dict)
        return loaded

    @property
    def status(self) -> str:
        return str(self.state()["status"])

    @property
    def out(self) -> str:
        return self.out_file.read_text(errors="replace") if self.out_file.exists() else ""

    @property
    def err(self) -> str:
        return self.err_file.read_text(errors="replace") if self.err_file.exists() else ""

    @property
    def objects(self) -> list[dict[str, Any]]:
        return parse_objects(self.out)

    @property
    def report(self) -> dict[str, Any]:
        return find_report(self.out, self.err)

    @property
    def cgroup(self) -> Path:
        """The cgroup directory that the config requests."""
        root = cgroup2_mount()
        assert root
        return root / str(self.bundle.config["linux"]["cgroupsPath"]).lstrip("/")

    def wait(self, timeout: float = 5.0) -> int:
        """Wait for init, our child after `create` (subreaper), and return its exit code; 128+N for
        signal N."""

        def ended() -> list[int]:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError as gone:
                raise AssertionError(f"{self.pid} is not our child: it was not orphaned or was reaped") from gone
            return [status] if pid else []

        code = os.waitstatus_to_exitcode(wait_until(ended, f"end of {self.id}", timeout)[0])
        return 128 - code if code < 0 else code

    def wait_status(self, status: str) -> None:
        wait_until(lambda: self.status == status, f"{self.id} is {status}")

    def wait_output(self, text: str) -> None:
        wait_until(lambda: text in self.out, f"{text!r} on stdout (stderr: {self.err!r})")


class Box:
    """The resources of one test: a directory, a state root and an id prefix. Cleans up and detects
    leftovers."""

    def __init__(self, runtime: Runtime, template: Path, base: Path, prefix: str) -> None:
        self.runtime, self.template, self.prefix = runtime, template, prefix
        self.path = base / prefix
        self.path.mkdir()
        self.root = self.path / "root"
        self.containers: list[Container] = []
        self.helpers: set[int] = set()  # pids of this test's own background processes
        self.own_cgroups: set[Path] = set()  # cgroups that the test creates and removes itself
        self.mounts = self._mounts()
        self.count = 0

    @staticmethod
    def _mounts() -> set[tuple[str, str, str, str]]:
        mounts = parse_mountinfo(Path("/proc/self/mountinfo").read_text())
        return {(m.device, m.root, m.dest, m.fstype) for m in mounts}

    def bundle(self, *actions: str, edits: dict[str, Any] | None = None) -> Bundle:
        """A new bundle. `actions` are the probe's arguments (default: report); for `edits` see
        `edit`."""
        self.count += 1
        config = default_config(f"/{self.prefix}b{self.count}")
        if actions:
            config["process"]["args"] = ["/probe", *actions]
        return Bundle(self.path / f"b{self.count}", self.template, edit(config, edits or {}))

    def container(self, *actions: str, edits: dict[str, Any] | None = None, bundle: Bundle | None = None) -> Container:
        """A container, not yet created, of `bundle` or of a new one; it is deleted by force after
        the test."""
        made = Container(self, f"{self.prefix}c{len(self.containers)}", bundle or self.bundle(*actions, edits=edits))
        self.containers.append(made)
        return made

    def cgroups(self) -> list[Path]:
        """Directories of the unified hierarchy that carry this test's prefix, deepest first."""
        root = cgroup2_mount()
        if root is None:
            return []
        found = [Path(at) for at, _, _ in os.walk(root) if self.prefix in at]
        return sorted(found, key=lambda p: -len(p.parts))

    def children(self) -> dict[int, str]:
        """Live children that a runtime left running, by pid; zombies are reaped first."""
        reap()
        found = {}
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
                name, _, rest = stat.rpartition(")")
                fields = rest.split()
                if int(fields[1]) == os.getpid() and fields[0] != "Z" and int(entry) not in self.helpers:
                    found[int(entry)] = name.partition("(")[2] + " " + Path(f"/proc/{entry}/cmdline").read_text()
            except (OSError, ValueError, IndexError):
                continue
        return found

    def leftovers(self, *, settle: float = 2.0) -> list[str]:
        """Descriptions of what this test's containers left on the host; dying processes get
        `settle` seconds."""
        limit = time.monotonic() + settle * SLOW
        while (children := self.children()) and time.monotonic() < limit:
            time.sleep(0.01)
        left = [f"process {pid} {name!r}" for pid, name in children.items()]
        left += [f"cgroup {path}" for path in self.cgroups() if path not in self.own_cgroups]
        if self.root.exists():
            left += [f"state {entry}" for entry in sorted(os.listdir(self.root))]
        left += [f"mount {mount}" for mount in sorted(self._mounts() - self.mounts)]
        # Another program's rmdir of its mount point detaches the mount in every namespace.
        lost = [mount for mount in sorted(self.mounts - self._mounts()) if os.path.lexists(mount[2])]
        left += [f"lost mount {mount}" for mount in lost]
        return left

    def close(self) -> list[str]:
        """Delete every container by force, report leftovers, and remove them so that other tests
        can run."""
        left = []
        for made in self.containers:
            result = made.delete("--force", check=False)
            if result.rc != 0:
                left.append(f"delete --force {made.id}: {result!r}")
        left += self.leftovers()
        for pid in self.children():
            os.kill(pid, signal.SIGKILL)
        for mount in self._mounts() - self.mounts:
            subprocess.run(["umount", "-l", mount[2]], capture_output=True, check=False)
        for group in self.cgroups():
            kill_file = group / "cgroup.kill"
            if kill_file.exists():
                kill_file.write_text("1")
            try:
                wait_until(partial(_empty, group), "cgroup to empty", 2)
                group.rmdir()
            except (OSError, AssertionError):
                pass
        reap()
        shutil.rmtree(self.path, ignore_errors=True)
        return left


def _empty(group: Path) -> bool:
    return not (group / "cgroup.procs").read_text()


def reap() -> None:
    """Reap every zombie child. Call this only if no Popen object is still waited for."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return


_UNSHARE = {"network": "-n", "uts": "-u", "ipc": "-i", "pid": "-p", "cgroup": "-C", "mount": "-m", "time": "-T"}
NS_FILE = {"network": "net", "mount": "mnt"}  # names in /proc/PID/ns that differ from the config's


class Holder:
    """A process in new namespaces (`kinds` as in config.json) that containers join by path."""

    def __init__(self, box: Box, kinds: Iterable[str]) -> None:
        self.box, self.kinds = box, list(kinds)
        flags = [_UNSHARE[kind] for kind in self.kinds]
        self.parent = subprocess.Popen(
            ["/usr/bin/unshare", *flags, "--fork", "--kill-child", "/bin/sleep", "600"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        box.helpers.add(self.parent.pid)
        children = Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children")
        self.pid = int(wait_until(lambda: children.read_text().split(), "namespace holder")[0])
        wait_until(lambda: "sleep" in Path(f"/proc/{self.pid}/comm").read_text(), "namespace holder's exec")

    def path(self, kind: str) -> str:
        """The namespace's path for `linux.namespaces[].path`."""
        return f"/proc/{self.pid}/ns/{NS_FILE.get(kind, kind)}"

    def ident(self, kind: str) -> str:
        """The link target of the namespace, e.g. ``net:[4026532]``."""
        return os.readlink(self.path(kind))

    def close(self) -> None:
        self.parent.kill()
        self.parent.wait()
