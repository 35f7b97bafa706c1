"""Run a verb, and hold what it took against the limits."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "native" / "launcher"))

CPU, CPU_MANY, MANY = 2.0, 6.0, 100_000  # seconds; for more items than that
MEMORY = 600 << 10  # KiB
STDERR = 64 << 10
PRINTED = 32  # bytes on stdout for each byte of the document
WALL = 120  # seconds after which it will not end


class Usage(NamedTuple):
    """What one call took."""

    verb: str
    status: int
    cpu: float
    memory: int  # KiB
    out: int  # bytes on stdout
    err: str

    def wrong(self, items: int, size: int) -> list[str]:
        """What is beyond the limits."""
        found = []
        allowed = CPU_MANY if items > MANY and self.status == 0 else CPU
        if self.cpu > allowed:
            found.append(f"{self.cpu:.1f} s of processor time, more than {allowed:g}")
        if self.memory > MEMORY:
            found.append(f"{self.memory >> 10} MiB of memory")
        if len(self.err) > STDERR:
            found.append(f"{len(self.err)} bytes on stderr")
        prints = self.verb.split()[0] in ("plan", "state", "list")
        if self.out > STDERR + (PRINTED * size if prints and self.status == 0 else 0):
            found.append(f"{self.out} bytes on stdout for a document of {size}")
        if self.status < 0 or "internal error" in self.err or "Traceback" in self.err:
            found.append(f"ended with {self.status}: {self.err[:300]}")
        if self.status != 0 and not self.err:
            found.append(f"status {self.status} without a word")
        return [f"{self.verb}: {text}" for text in found]


def run(program: str, root: str, *args: str) -> Usage:
    """One call, with the state root that is meant."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen([program, "--root", root, *args], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        fd = os.pidfd_open(child.pid)
        try:
            import select

            ready, _, _ = select.select([fd], [], [], WALL)
            if not ready:
                signal.pidfd_send_signal(fd, signal.SIGKILL)
        finally:
            os.close(fd)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        err.seek(0)
        text = err.read(2 * STDERR).decode("utf-8", "replace")
        verb = " ".join(word for word in args if not word.startswith("/"))
        return Usage(
            verb,
            child.returncode,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss,
            os.fstat(out.fileno()).st_size,
            text,
        )


def hash_secret(program: str) -> str:
    """The key of string hashes that is in an executable, in hexadecimal; "" where each process makes one."""
    import snapshot

    elf = snapshot.Elf(pathlib.Path(program).read_bytes())
    symbols = elf.symbols()
    if "pyrunc_snapshot" not in symbols or "_Py_HashSecret" not in symbols:
        return ""
    at = elf.offset(symbols["_Py_HashSecret"][0])
    return bytes(elf.data[at : at + 16]).hex()


def colliding(secret: str, place: pathlib.Path, size: int = 131072) -> list[str]:
    """Names that collide in a dict of so many slots, as many as fit into it."""
    program = place / "colliding"
    source = pathlib.Path(__file__).parent / "colliding.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    done = subprocess.run([program, secret, str(size), str(size * 2 // 3)], capture_output=True, text=True, check=True)
    return done.stdout.split()
