"""A program started in a container: its streams, its end, and its output."""

from __future__ import annotations

import os
import selectors
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO

from pyrunc import signals
from pyrunc.api.children import Child
from pyrunc.api.stdio import Stdio
from pyrunc.errors import PyruncError, SysError, brief, show
from pyrunc.native import processes

_CHUNK = 65536
_KILL_SECONDS = 10.0  # a killed process that takes longer is stuck in the kernel
Streams = tuple[BinaryIO | None, BinaryIO | None, BinaryIO | None]


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that has ended.

    ``returncode`` is 0 to 255, 128 + n after signal n; ``stdout`` and ``stderr`` are b"" if they
    were not pipes.
    """

    args: tuple[str, ...]
    returncode: int
    stdout: bytes = b""
    stderr: bytes = b""


class ProgramFailed(PyruncError):
    """A program ended with a status other than 0, and ``check`` was set; ``completed`` has its
    output."""

    def __init__(self, completed: Completed) -> None:
        self.completed = completed
        self.returncode = completed.returncode
        text = f"{show(list(completed.args))} ended with status {completed.returncode}"
        last = completed.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        super().__init__(f"{text}: {brief(last)}" if last else text)


class Program:
    """Common base of a container's first program and the programs of `Container.exec`.

    ``stdin``, ``stdout`` and ``stderr`` are binary files for our ends of the pipes; None if the
    stream is not a `PIPE`.
    """

    def __init__(self, stdio: Stdio | None = None) -> None:
        self.stdin, self.stdout, self.stderr = stdio.take() if stdio is not None else (None, None, None)
        self._read: dict[str, list[bytes]] = {"stdout": [], "stderr": []}
        self._unsent = memoryview(b"")
        self._begun = False

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait for the program's end; returns its return code. Raises TimeoutError after
        ``timeout`` seconds."""
        raise NotImplementedError

    def communicate(self, input: bytes = b"", timeout: float | None = None) -> tuple[bytes, bytes]:
        """Write ``input`` to stdin, read stdout and stderr to their end, and wait for the program's
        end.

        Returns the output; b"" for a stream that is not a `PIPE`. All of it is kept in memory.

        Raises TimeoutError after ``timeout`` seconds. The program continues, and another call also
        returns what was read so far.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._begun:
            self._begun, self._unsent = True, memoryview(input)
        with selectors.PollSelector() as selector:
            for stream in (self.stdin, self.stdout, self.stderr):
                if stream is not None and not stream.closed:
                    os.set_blocking(stream.fileno(), False)
                    selector.register(stream, selectors.EVENT_WRITE if stream is self.stdin else selectors.EVENT_READ)
            while selector.get_map():
                ready = selector.select(_left(deadline))
                if not ready and deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError("the program has not closed its output")
                for key, _ in ready:
                    file: BinaryIO = key.fileobj  # type: ignore[assignment]
                    if self._send(file) if file is self.stdin else self._receive(file):
                        selector.unregister(file)
                        with suppress(OSError):
                            file.close()
        self.wait(_left(deadline))
        return b"".join(self._read["stdout"]), b"".join(self._read["stderr"])

    def _send(self, stream: BinaryIO) -> bool:
        """Write what the pipe accepts; returns whether that was everything."""
        try:
            self._unsent = self._unsent[os.write(stream.fileno(), self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:  # EPIPE: the reader is gone
            return True
        return not self._unsent

    def _receive(self, stream: BinaryIO) -> bool:
        """Read what is available; returns whether the end was reached."""
        name = "stdout" if stream is self.stdout else "stderr"
        try:
            data = os.read(stream.fileno(), _CHUNK)
        except BlockingIOError:
            return False
        self._read[name].append(data)
        return not data

    def _close_streams(self) -> None:
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                with suppress(OSError):  # data buffered for a program that has ended
                    stream.close()


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class Process(Program):
    """A process started by `Container.exec`. It is a child of the calling program.

    As a context manager it kills the process on exit if it is still running, and waits for it.
    """

    def __init__(self, args: tuple[str, ...], child: Child, stdio: Stdio | None = None) -> None:
        super().__init__(stdio)
        self.args = args
        self._child = child

    def __repr__(self) -> str:
        return f"<Process {self.pid} {list(self.args)!r} returncode={self._child.returncode}>"

    @property
    def pid(self) -> int:
        """The process id, in the caller's pid namespace."""
        return self._child.pid

    @property
    def returncode(self) -> int | None:
        """0 to 255, 128 + n after signal n; None while it is running, or if other code has
        reaped it."""
        self._child.poll()
        return self._child.returncode

    def fileno(self) -> int:
        """A pidfd, readable once the process has ended (pidfd_open(2)). It is closed with this
        object, or on exit."""
        return self._child.fd

    def poll(self) -> int | None:
        """The return code; None while the process is running."""
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process; returns its return code.

        Raises TimeoutError after ``timeout`` seconds, and PyruncError if other code in the calling
        program, such as a SIGCHLD handler, has reaped the process, because its status is lost.
        """
        if not self._child.wait(timeout):
            raise TimeoutError(f"process {self.pid} has not ended within {timeout} s")
        if self._child.returncode is None:
            raise PyruncError(f"the exit status of process {self.pid} is lost: something else has waited for it")
        return self._child.returncode

    def kill(self, signal: int | str = "KILL") -> None:
        """Send a signal, by number or name. Does nothing if the process has ended. Raises
        PyruncError."""
        number = signals.number(str(signal)) if isinstance(signal, str) else int(signal)
        if not self._child.poll():
            try:
                processes.pidfd_send_signal(self._child.fd, number)
            except OSError as error:
                if not self._child.poll():
                    raise SysError(f"process {self.pid}", "pidfd_send_signal", error.errno or 0) from error

    def complete(self, input: bytes = b"", timeout: float | None = None) -> Completed:
        """Like `communicate`, with the return code. Raises TimeoutError, PyruncError."""
        out, err = self.communicate(input, timeout)
        return Completed(self.args, self.wait(), out, err)

    def close(self) -> None:
        """Close the pipes. The process continues."""
        self._close_streams()

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
        if not self._child.poll():
            self.kill()
            self._child.wait(_KILL_SECONDS)
        self._child.close()
