"""Run one command in a throw-away QEMU machine built by mkimage.sh, with live output and its exit
status.

The guest has no network. The input is a tar stream over a virtio port; the output is the command's
output followed by a trailer with its status. Writes go to a temporary overlay, so that every run
starts from the same image. Root is not required. Only one machine runs at a time, because an
emulated one uses every core.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import secrets
import select
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

READY = b"\0READY\n"
EMULATOR = {"amd64": "qemu-system-x86_64", "arm64": "qemu-system-aarch64"}
NATIVE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, "")
PROCESSORS = "2"
BOOTS = 3
KVM_BOOT = 20.0  # seconds in which a guest on KVM must answer
TIMED_OUT, NO_BOOT = 124, 125  # exit statuses


def owned_by_root(leave_out: Callable[[str], bool], info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Filter tar members: exclude some and set the owner to root."""
    if leave_out(os.path.basename(info.name)):
        return None
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    info.mode &= ~0o022  # the launcher refuses group-writable files
    return info


class Job:
    """The input: trees and files below /job/files, the command, its environment, and differences
    when emulated."""

    def __init__(self, command: list[str], env: dict[str, str], emulated: dict[str, str]) -> None:
        self.command, self.env, self.emulated = command, env, emulated
        self.trees: list[tuple[Path, str, Callable[[str], bool]]] = []
        self.result = b""  # the contents of the file that the command left at $PYRUNC_VM_RESULT

    def put(self, source: Path, name: str, leave_out: Callable[[str], bool] = lambda name: False) -> None:
        """Copy a file or a tree to /job/files/NAME; `leave_out` is called with every base name."""
        self.trees.append((source, name, leave_out))

    def tar(self, nonce: str, emulated: bool) -> bytes:
        """The stream that agent.sh unpacks. Root owns everything in it."""
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w|", format=tarfile.GNU_FORMAT) as tar:
            for source, name, leave_out in self.trees:
                tar.add(source, "files/" + name, filter=partial(owned_by_root, leave_out))
            lines = ["mkdir -p /job/files", "cd /job/files"]
            env = {**self.env, **self.emulated} if emulated else self.env
            lines += [f"export {key}={shlex.quote(value)}" for key, value in env.items()]
            texts = {"cmd": "\n".join([*lines, "exec " + shlex.join(self.command), ""]), "nonce": nonce}
            for name, text in {**texts, "now": str(int(time.time()))}.items():
                info = tarfile.TarInfo(name)
                info.size = len(text.encode())
                tar.addfile(info, io.BytesIO(text.encode()))
        return stream.getvalue()


def find_emulator(arch: str) -> tuple[str, int]:
    """Path and major version of QEMU for an architecture; ("", 0) if it is not installed."""
    path = shutil.which(EMULATOR[arch])
    if path is None:
        return "", 0
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=60).stdout
    found = re.search(r"version (\d+)", text)
    return path, int(found[1]) if found else 0


class Machine:
    """A kind of machine: an image, an architecture, an init, its memory."""

    def __init__(
        self, image: Path, arch: str, *, systemd: bool = False, lsm: str = "apparmor", memory: str = "1G"
    ) -> None:
        self.image, self.arch, self.systemd, self.lsm, self.memory = image, arch, systemd, lsm, memory

    def accelerators(self) -> list[str]:
        """The accelerators to try: KVM if usable, then emulation. PYRUNC_VM_ACCEL selects one."""
        wanted = os.environ.get("PYRUNC_VM_ACCEL", "")
        if wanted:
            return [wanted]
        return ["kvm", "tcg"] if self.arch == NATIVE and os.access("/dev/kvm", os.R_OK | os.W_OK) else ["tcg"]

    def run(self, job: Job, timeout: float, boot_timeout: float = 180.0) -> int:
        """Boot, run the job, and return its status; TIMED_OUT on timeout, or NO_BOOT if no guest
        answered."""
        lock = os.open(f"{tempfile.gettempdir()}/pyrunc-vm.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for accel in self.accelerators():
                # QEMU 10.0 sometimes aborts while the guest sets up its devices (iotlb_to_section),
                # so retry.
                for _ in range(1 if accel == "kvm" else BOOTS):
                    boot = Boot(self, accel)
                    status = boot.run(job, timeout, KVM_BOOT if accel == "kvm" else boot_timeout)
                    if status is not None:
                        return status
                    print(f"vm: no answer from the guest ({accel})", file=sys.stderr)
            return NO_BOOT
        finally:
            os.close(lock)

    def command(self, accel: str, ports: dict[str, int], console: str) -> list[str]:
        """QEMU's command line."""
        path, version = find_emulator(self.arch)
        kvm = accel == "kvm"
        kernel = ["quiet", "loglevel=4", "panic=-1", "mitigations=off", "nokaslr", "audit=0", "random.trust_cpu=on"]
        kernel += [f"lsm=landlock,yama,{self.lsm},bpf", "selinux=1", "enforcing=0"]
        if self.arch == "amd64":
            # QEMU 7.2 corrupts state in an emulated cmpxchg16b, so it is hidden from the guest.
            board, cpu = "q35", "max,-cx16" if version < 8 else "max"
            kernel += ["console=ttyS0", "no_timer_check", "tsc=reliable"]
        else:
            # Pointer authentication is costly to emulate.
            board, cpu = "virt", "max,pauth=off,sve=off,sme=off"
            kernel += ["console=ttyAMA0", "kpti=off"]
        if self.systemd:
            kernel += ["systemd.show_status=0", "systemd.log_level=warning", "VMINIT=/sbin/init"]
        else:
            kernel.append("VMINIT=/usr/local/sbin/vm-agent")
        out = [path, "-M", board, "-accel", "kvm" if kvm else "tcg,thread=multi,tb-size=512"]
        out += ["-cpu", "host" if kvm else cpu, "-smp", PROCESSORS, "-m", self.memory]
        out += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "file:" + console]
        out += [
            "-kernel",
            str(self.image / "vmlinuz"),
            "-initrd",
            str(self.image / "initrd"),
            "-append",
            " ".join(kernel),
        ]
        drive = f"id=root,if=none,format=raw,snapshot=on,cache=unsafe,file={self.image / 'root.img'}"
        out += ["-drive", drive, "-device", "virtio-blk-pci,drive=root"]
        out += ["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]
        for number, (name, fd) in enumerate(ports.items(), 1):
            out += ["-chardev", f"socket,id={name},fd={fd}"]
            out += ["-device", f"virtserialport,chardev={name},name=vm.{name},nr={number}"]
        # The machine must not outlive us, even if we are killed.
        return ["setpriv", "--pdeathsig", "KILL", *out]


class Output:
    """The guest's output: text to forward, then possibly a file, then the command's status."""

    def __init__(self, nonce: str) -> None:
        mark = nonce.encode()
        self.file = re.compile(rb"\n\0VMFILE " + mark + rb" (\d+)\n")
        self.trailer = re.compile(rb"\n\0VMRC " + mark + rb" (\d+)\n")
        self.data, self.result, self.status = bytearray(), b"", -1

    def feed(self, data: bytes) -> bytes:
        """Add output; return what can be forwarded, without a possible start of a file or a
        trailer."""
        self.data += data
        file = self.file.search(self.data)
        begin = file.end() + int(file[1]) if file else 0
        trailer = self.trailer.search(self.data, begin)
        if file:
            end = file.start()
            if begin <= len(self.data):
                self.result = bytes(self.data[file.end() : begin])
        else:
            end = trailer.start() if trailer else self.forwardable()
        if trailer:
            self.status = int(trailer[1])
        text = bytes(self.data[:end])
        del self.data[:end]
        return text

    def forwardable(self) -> int:
        """The length of the output that cannot be a part of a file or a trailer."""
        at = self.data.rfind(b"\n\0")
        return at if at >= 0 else len(self.data) - self.data.endswith(b"\n")


class Boot:
    """One boot of a machine."""

    def __init__(self, machine: Machine, accel: str) -> None:
        self.emulated = accel != "kvm"
        self.dir = Path(tempfile.mkdtemp(prefix="pyrunc-vm."))
        self.console = self.dir / "console"
        pairs = {name: socket.socketpair() for name in ("in", "out")}
        argv = machine.command(accel, {name: pair[1].fileno() for name, pair in pairs.items()}, str(self.console))
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            pass_fds=[pair[1].fileno() for pair in pairs.values()],
            env={**os.environ, "TMPDIR": str(self.dir)},  # QEMU's directory for the overlay
            start_new_session=True,
        )
        for pair in pairs.values():
            pair[1].close()
        self.input, self.output = pairs["in"][0], pairs["out"][0]
        self.ready = False

    def run(self, job: Job, timeout: float, boot_timeout: float) -> int | None:
        """The command's status; None if the guest never answered."""
        status = None
        try:
            status = self.follow(job, timeout, boot_timeout)
            return status
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.input.close()
            self.output.close()
            if status in (None, NO_BOOT) and self.console.exists():
                sys.stderr.write(self.console.read_bytes()[-4000:].decode(errors="replace"))
            shutil.rmtree(self.dir, ignore_errors=True)

    def follow(self, job: Job, timeout: float, boot_timeout: float) -> int | None:
        """Send the job when the guest is ready, and forward its output until the trailer
        arrives."""
        nonce = secrets.token_hex(8)
        output = Output(nonce)
        started = time.monotonic()
        todo = memoryview(job.tar(nonce, self.emulated))
        data = b""
        self.input.setblocking(False)
        while True:
            elapsed = time.monotonic() - started
            if self.process.poll() is not None:
                print(f"vm: qemu ended with {self.process.returncode}", file=sys.stderr)
                return NO_BOOT if self.ready else None
            if not self.ready and elapsed > boot_timeout:
                return None
            if elapsed > timeout:
                print(f"vm: the command did not end within {timeout:g} s", file=sys.stderr)
                return TIMED_OUT
            readable, writable, _ = select.select([self.output], [self.input] if self.ready and todo else [], [], 0.2)
            if writable:
                try:
                    todo = todo[self.input.send(todo[:65536]) :]
                except BlockingIOError:
                    pass
            if not readable:
                continue
            data += self.output.recv(65536)
            if not self.ready:
                self.ready, data = READY in data, data.rpartition(READY)[2]
                continue
            sys.stdout.buffer.write(output.feed(data))
            sys.stdout.buffer.flush()
            data = b""
            if output.status >= 0:
                job.result = output.result
                return output.status
