"""The container of `seccomp trace` and `seccomp record`: an ordinary `run` whose filter notifies
us of every call."""

from __future__ import annotations

import posix
import time
from _struct import pack
from select import POLLIN, poll

from pyrunc import fs, handshake, seccomp
from pyrunc.errors import PyruncError, SysError
from pyrunc.launch import run as launch
from pyrunc.launch import session
from pyrunc.native import libseccomp, sockets
from pyrunc.plan.security import WAIT_KILLABLE_RECV, filter_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Config, Linux, Seccomp, SyscallRule

# ret USER_NOTIF: every call on every architecture
ASK = pack("HBBI", 0x06, 0, 0, seccomp.ACTIONS["SCMP_ACT_NOTIFY"])
LISTENER, ERROR = b"L", b"E"  # messages of the container's process: the descriptor; an error
_SECONDS = 120.0  # from READY to the filter; equal to session.STEP_TIMEOUT_MS
_HIDDEN = 3.0  # errors while init may be hidden from us
_PAUSE = 0.001


def profile() -> Seccomp:
    """A profile for the plan; the filter itself is `ASK`.

    Nothing listens at the path. An `exec` into such a container must not run without the filter, so
    it fails.
    """
    rule: SyscallRule = {"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": "/traced/by/pyrunc/seccomp"}


class TracedRun(launch.Run):
    """One run that sends its listener to the process at the other end of ``control``."""

    __slots__ = ("args", "control", "flags")

    def __init__(self, opts: launch.RunOptions, control: int, args: list[str]) -> None:
        super().__init__(opts)
        self.control = control
        self.args = args  # the command line; [] means the bundle's
        # Without it, a signal would interrupt a call that has been reported, and the call would be
        # repeated.
        known = libseccomp.knows_flag(WAIT_KILLABLE_RECV | seccomp.NEW_LISTENER)
        self.flags = WAIT_KILLABLE_RECV if known else 0

    def read_config(self, path: str) -> tuple[Config, bytes]:
        """The bundle's plan with our filter and command line."""
        import json

        config, _ = super().read_config(path)
        linux: Linux = config.get("linux", {})  # not validated yet
        config["linux"] = {**(linux if isinstance(linux, dict) else {}), "seccomp": profile()}
        process = config.get("process")
        if self.args and isinstance(process, dict):
            config["process"] = {**process, "args": self.args}
        return config, json.dumps(config).encode("ascii")

    def fill_filter(self) -> None:
        """No profile could cover all calls: write(2) would be missing, and calls without a name."""
        self.plan.set_filter(ASK, self.flags | filter_flags(seccomp.NO_PROFILE), True)

    def only_waits(self) -> bool:
        """Never: see `on_ready`."""
        return False

    def on_ready(self, record: handshake.Record) -> None:
        """READY: the filter comes next. Fetch its listener before init reports its number.

        init reports it with write(2), which the filter notifies us about as well.
        """
        super().on_ready(record)
        number = self.listener()
        if number < 0:
            return  # init has failed and reports why
        fd = seccomp.take_listener(self.pidfd, number, profile())
        try:
            sockets.send_descriptor(self.control, LISTENER, fd)
        except OSError as error:
            raise SysError("seccomp", "sendmsg", error.errno or 0) from error
        finally:
            posix.close(fd)

    def listener(self) -> int:
        """The number of the notify descriptor in init; -1 if init has ended. Raises PyruncError,
        OSError."""
        place, poller = f"/proc/{self.init_pid}/fd", poll()
        poller.register(self.pidfd, POLLIN)
        start = time.monotonic()
        while not poller.poll(0):
            try:
                for name in posix.listdir(place):
                    if link(f"{place}/{name}") == "anon_inode:seccomp notify":
                        return int(name)
            except FileNotFoundError:
                return -1
            except PermissionError as error:
                # Unreadable for us between init's change of ids and its next dumpable(1); without
                # no_new_privs the filter comes before that.
                if time.monotonic() > start + _HIDDEN:
                    hint = "a user other than root can only trace with /process/noNewPrivileges"
                    raise SysError(place, "open", error.errno or 0, hint=hint) from error
            if time.monotonic() > start + _SECONDS:
                raise PyruncError(f"container init loaded no filter within {_SECONDS:.0f} s")
            if self.interrupts is not None:
                self.interrupts.check()
            time.sleep(_PAUSE)
        return -1

    def on_seccomp(self, record: handshake.Record) -> None:
        """SECCOMP: the listener has already been sent."""
        self.send(handshake.GO)


def link(path: str) -> str:
    """The target of a link, or "" if it is gone."""
    try:
        return posix.readlink(path)
    except FileNotFoundError:
        return ""


def run(opts: launch.RunOptions, control: int, args: list[str]) -> int:
    """Run the container; returns its exit status. Errors are sent to the other process."""
    try:
        return launch.run(opts, TracedRun(opts, control, args))
    except PyruncError as error:
        report(control, str(error))
    except OSError as error:
        report(control, str(session.as_sys_error(error)))
    except MemoryError:
        report(control, "out of memory")
    except Exception as error:
        report(control, f"internal error: {type(error).__name__}: {error}")
    return 1


def report(control: int, text: str) -> None:
    """Report why there is no container. One message: the socket preserves boundaries."""
    message = ERROR + text.encode("utf-8", "surrogateescape")[:4000]
    fs.ignore(sockets.send, control, message)  # if that fails, nobody is listening
