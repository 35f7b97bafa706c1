"""Run a container: `create`, then its start, in one session.

In the foreground: wait for the program's end, delete the container, and exit with the program's status.
"""

from __future__ import annotations

from pyrunc import fs, handshake
from pyrunc.errors import StateError
from pyrunc.launch.create import Create, CreateOptions
from pyrunc.launch.ending import Interrupts
from pyrunc.launch.session import WAIT_FOREVER
from pyrunc.signals import SIGKILL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import ClassVar

    from pyrunc.launch.foreground import Watch
    from pyrunc.log import Log
    from pyrunc.notify import Proxy


class RunOptions(CreateOptions):
    """The options of `run`; paths are as on the command line."""

    __slots__ = ("detach", "keep", "no_subreaper")

    def __init__(self, id: str, log: Log) -> None:
        super().__init__(id, log)
        self.detach = self.keep = self.no_subreaper = False


def run(opts: RunOptions, session: Run | None = None) -> int:
    """Create and start; in the foreground wait, delete, and return the program's exit code (128 + n for signal n).

    ``session``: one that does more than `Run` (`seccomp trace`).
    """
    session = session or Run(opts)
    session.execute()
    session.finish()
    return session.wait()


class Run(Create):
    """One run at work."""

    __slots__ = ("proxy", "watch")

    WAIT: ClassVar = "socket"
    opts: RunOptions

    def __init__(self, opts: RunOptions) -> None:
        super().__init__(opts)
        self.proxy: Proxy | None = None  # for the READY of a service, if our caller is a service manager
        self.watch: Watch | None = None  # in the foreground

    def foreground(self) -> bool:
        """Without --detach."""
        return not self.opts.detach

    def steps(self, interrupts: Interrupts) -> None:
        """From the bundle to a program that runs."""
        super().steps(interrupts)
        self.open_proxy()
        if self.foreground():
            self.channel.block_signals()
            interrupts.check()  # one that arrived before it would be lost
        self.release(interrupts)

    def release(self, interrupts: Interrupts) -> None:
        """Let init execute the program, and run the poststart hooks."""
        self.go()
        if self.foreground():
            from pyrunc.launch import foreground

            # While init is at its execve.
            self.watch = foreground.Watch(self, subreaper=not self.opts.no_subreaper)
            self.undo.push(self.watch.close)
        self.await_program(interrupts)
        if self.proxy is not None and self.watch is None:
            self.proxy.wait(self.pidfd, self.init_pid, interrupts.check)

    def open_proxy(self) -> None:
        """Open the sd_notify proxy if the caller is a service manager.  Raises SysError."""
        if self.notify:
            from pyrunc import notify

            self.proxy = notify.Proxy(self.notify, fs.getenv("NOTIFY_SOCKET"))
            self.undo.push(self.proxy.close)

    def go(self) -> None:
        """Release init.  Raises StateError if there is no program."""
        if "process" not in self.config:
            raise StateError("cannot start: /process is missing in config.json")
        self.attach_terminal()
        self.undo.push(self.end_program)
        self.send(handshake.GO)

    def end_program(self) -> None:
        """Undo of `go`: kill what the program has started, also in a cgroup that existed before and stays."""
        path = self.plan.cgroup_path
        if path:
            self.driver.kill(path, SIGKILL, stays=path not in self.driver.made)

    def await_program(self, interrupts: Interrupts) -> None:
        """EOF on the socket is a successful execve.  Raises the failing step's error."""
        record = self.receive(WAIT_FOREVER, interrupts)
        if record is not None:
            raise self.step_error(record)
        self.check_executed()
        self.channel.close()
        self.container.data["status"] = "running"
        self.container.save()
        self.host_hooks("poststart", "running", fatal=True)

    def wait(self) -> int:
        """In the foreground wait for the program, delete the container and return the exit code; else 0."""
        watch = self.watch
        if watch is None:
            return 0
        code = watch.wait(self.proxy)
        try:
            if not self.opts.keep:
                from pyrunc.container import lifecycle

                self.container.lock()
                # Before the rest of the output: what is left of the container may hold the pipes.
                lifecycle.remove(self.container, self.opts.log)
        except BaseException:
            watch.close()
            raise
        watch.drain()
        return code
