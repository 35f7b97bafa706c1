"""Run a verb, and compare its resource usage with the limits."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "native" / "launcher" / "snapshot"))

CPU, CPU_MANY, MANY = 2.0, 6.0, 100_000  # seconds; CPU_MANY applies to more than MANY items
MEMORY = 600 << 10  # KiB
STDERR = 64 << 10
PRINTED = 32  # bytes on stdout for each byte of the document
WALL = 120  # seconds after which it counts as hanging


class Usage(NamedTuple):
    """The resources that one call used."""

    verb: str
    status: int
    cpu: float
    memory: int  # KiB
    out: int  # bytes on stdout
    err: str

    def wrong(self, items: int, size: int) -> list[str]:
        """The exceeded limits."""
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


# Starts the program and reports its status, CPU seconds and peak memory (KiB). A process inherits
# the memory peak of its parent at the fork, and the process that runs the tests may exceed the
# limits.
_STARTER = """
import os, sys
report = int(sys.argv[1])
os.set_inheritable(report, False)
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
_, status, used = os.wait4(pid, 0)
os.write(report, f"{status} {used.ru_utime + used.ru_stime} {used.ru_maxrss}".encode())
"""


def run(program: str, root: str, *args: str) -> Usage:
    """Run the program once on the given state root."""
    ours, theirs = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = subprocess.Popen(
            [sys.executable, "-ISc", _STARTER, str(theirs), program, "--root", root, *args],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            pass_fds=(theirs,),
            start_new_session=True,
        )
        os.close(theirs)
        try:
            try:
                child.wait(WALL)
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            report = os.read(ours, 256).split()
        finally:
            os.close(ours)
        # Without a report, the program did not end in time.
        status, cpu, memory = report or (str(signal.SIGKILL.value), WALL, 0)
        err.seek(0)
        text = err.read(2 * STDERR).decode("utf-8", "replace")
        verb = " ".join(word for word in args if not word.startswith("/"))
        return Usage(
            verb,
            os.waitstatus_to_exitcode(int(status)),
            float(cpu),
            int(memory),
            os.fstat(out.fileno()).st_size,
            text,
        )


def hash_secret(program: str) -> str:
    """The hash seed in an executable, in hexadecimal; "" if each process chooses one."""
    import snapshot

    try:
        elf = snapshot.Elf(pathlib.Path(program).read_bytes())
    except snapshot.NoSnapshotError:
        return ""
    symbols = elf.symbols()
    if "pyrunc_snapshot" not in symbols or "_Py_HashSecret" not in symbols:
        return ""
    at = elf.offset(symbols["_Py_HashSecret"][0])
    return bytes(elf.data[at : at + 16]).hex()


def colliding(secret: str, place: pathlib.Path, size: int = 131072) -> list[str]:
    """Names that collide in a dict of ``size`` slots, as many as fit."""
    program = place / "colliding"
    source = pathlib.Path(__file__).parent / "colliding.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, source], check=True)
    done = subprocess.run([program, secret, str(size), str(size * 2 // 3)], capture_output=True, text=True, check=True)
    return done.stdout.split()
