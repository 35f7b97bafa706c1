"""Run a container: create and start it in one session.

In the foreground, wait for the program, delete the container, and exit with the program's status.
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
    """Options of `run`; paths are as given on the command line."""

    __slots__ = ("detach", "keep", "no_subreaper")

    def __init__(self, id: str, log: Log) -> None:
        super().__init__(id, log)
        self.detach = self.keep = self.no_subreaper = False


def run(opts: RunOptions, session: Run | None = None) -> int:
    """Create and start a container.

    In the foreground, wait, delete it, and return the program's exit code (128 + n for signal n).
    ``session``: a subclass of `Run` (`seccomp trace`).
    """
    session = session or Run(opts)
    session.execute()
    session.finish()
    return session.wait()


class Run(Create):
    """The session of one `run`."""

    __slots__ = ("proxy", "watch")

    WAIT: ClassVar = "socket"
    # The state is saved only once. Without a start fifo the status is "running" from CREATED on
    # (`Container.status`), and if the program cannot be executed, the container is removed.
    STATUS: ClassVar = "running"
    opts: RunOptions

    def __init__(self, opts: RunOptions) -> None:
        super().__init__(opts)
        self.proxy: Proxy | None = None  # forwards READY, if the caller is a service manager
        self.watch: Watch | None = None  # in the foreground

    def foreground(self) -> bool:
        """Whether the command waits: without --detach."""
        return not self.opts.detach

    def steps(self, interrupts: Interrupts) -> None:
        """Go from the bundle to a running program."""
        super().steps(interrupts)
        self.open_proxy()
        if self.foreground():
            self.channel.block_signals()
            interrupts.check()  # a signal caught before the block would be lost
        self.release(interrupts)

    def release(self, interrupts: Interrupts) -> None:
        """Have init execute the program, and run the poststart hooks."""
        self.go()
        if self.foreground():
            from pyrunc.launch import foreground

            # Import and set up while init executes the program.
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
        """Release init.  Raises StateError if the config has no process."""
        if "process" not in self.config:
            raise StateError("cannot start: /process is missing in config.json")
        self.attach_terminal()
        self.undo.push(self.end_program)
        self.send(handshake.GO)

    def end_program(self) -> None:
        """Undo `go`: kill all processes of the container, also in a cgroup that is kept."""
        path = self.plan.cgroup_path
        if path:
            self.driver.kill(path, SIGKILL, stays=path not in self.driver.made)

    def await_program(self, interrupts: Interrupts) -> None:
        """Wait for the execve, which closes the socket.  Raises the error of a failed step."""
        record = self.receive(WAIT_FOREVER, interrupts)
        if record is not None:
            raise self.step_error(record)
        self.check_executed()
        self.channel.close()
        self.host_hooks("poststart", "running", fatal=True)

    def wait(self) -> int:
        """In the foreground, wait for the program and delete the container.

        Returns the exit code.
        """
        watch = self.watch
        if watch is None:
            return 0
        code = watch.wait(self.proxy)
        try:
            if not self.opts.keep:
                from pyrunc.container import lifecycle

                self.container.lock()
                # Before the drain: remaining processes of the container may hold the pipes open.
                lifecycle.remove(self.container, self.opts.log, driver=self.driver)
        except BaseException:
            watch.close()
            raise
        watch.drain()
        return code
