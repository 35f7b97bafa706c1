"""A compiled container: the steps that init executes, and what the host side does around them.

`create.compile_create` compiles config.json to a `Plan` without side effects; `launch` opens the
descriptors that it requests, sends `Plan.encode()` to init and keeps the origins for error
messages; `pyrunc plan` prints it.
"""

from __future__ import annotations

from pyrunc.errors import Capped, Problem
from pyrunc.plan import encode as _encode
from pyrunc.plan.ops import (
    OP_CLONE_INIT,
    OP_HOOK,
    OP_MOUNT,
    OP_SECCOMP,
    OP_WAIT_START,
    OPS,
    P_MOUNT_COPY_UP,
    P_SECCOMP_LISTENER,
    Builder,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Hook, Seccomp

NO_SLOT = 0xFFFFFFFF  # plan.h: a descriptor slot that is not used
TRACE = 1  # plan.h: init sends STAMPS
AHEAD = 2  # plan.h: init does not report MOUNTED and READY


class Plan(Builder):
    """The steps of `Builder`, and everything about the container that init does not do itself."""

    __slots__ = (
        "callers_mounts",
        "cgroup_owner",
        "cgroup_path",
        "fds",
        "flags",
        "hooks",
        "new_userns",
        "npreserve",
        "problems",
        "rlimits",
        "sched_attr",
        "seccomp",
        "warnings",
    )

    def __init__(self) -> None:
        super().__init__()
        # (kind, value, origin) of the descriptors that go with the plan, in the order of their
        # slots, from slot 1 on; slot 0 is the plan itself. Kinds: "ns" (value: path), "cgroup"
        # (path inside the hierarchy), "console", "start", "error", "idmap" (a path to bind with an
        # id mapping; origin: the mount), "tools" (the directory of --tools).
        self.fds: list[tuple[str, str, str]] = []
        self.flags = 0  # of the header: TRACE, AHEAD
        self.npreserve = 0  # how many descriptors, from 3 on, are passed on
        # The profile to compile for `set_filter`.
        self.seccomp: Seccomp | None = None  # type: ignore[assignment]
        # (RLIMIT_* number, soft, hard, origin), for prlimit(2)
        self.rlimits: list[tuple[int, int, int, str]] = []
        self.sched_attr = b""  # struct sched_attr for the host side to set; empty: none
        self.hooks: dict[str, list[Hook]] = {}  # those outside the container, by kind
        self.cgroup_path = ""  # absolute inside the v2 hierarchy, "" for none
        self.callers_mounts = False  # init mounts in our mount namespace
        self.new_userns = False  # the host side writes its maps
        self.cgroup_owner = -1  # uid of the new owner of the cgroup, on the host; -1: none
        self.warnings = Capped()  # of texts
        self.problems = Capped()  # raised instead of returning the plan

    def fd(self, kind: str, value: str, origin: str) -> int:
        """Request a descriptor; returns its slot."""
        self.fds.append((kind, value, origin))
        return len(self.fds)

    def warn(self, pointer: str, text: str) -> None:
        """Note that something in config.json has no effect here, which is allowed."""
        self.warnings.append(f"{pointer}: {text}")

    def refuse(self, pointer: str, expected: str, found: str = "", hint: str = "") -> None:
        """Note a problem of config.json; `Context.compiled` raises all of them at once."""
        self.problems.append(Problem(pointer, expected, found, hint))

    def set_filter(self, blob: bytes, flags: int, listener: bool) -> None:
        """Insert the seccomp program.

        ``blob``: ``struct sock_filter[]``. ``flags``: SECCOMP_FILTER_FLAG_* without NEW_LISTENER.
        ``listener``: the program notifies, so init must report the notify descriptor.
        """
        for index, step in enumerate(self.steps):
            if step[0] == OP_SECCOMP:
                policy = step[1] & ~P_SECCOMP_LISTENER | (P_SECCOMP_LISTENER if listener else 0)
                self.steps[index] = (OP_SECCOMP, policy, (flags, len(blob)), (blob,))

    def has_hooks(self) -> bool:
        """Whether a hook runs during `create`, which then takes as long as the hook."""
        if self.hooks.get("prestart") or self.hooks.get("createRuntime"):
            return True
        for step in self.steps:
            if step[0] == OP_HOOK:
                return True
            if step[0] == OP_WAIT_START:
                break
        return False

    def has(self, op: int) -> bool:
        """Whether `enter` has a step of this kind, before it clones init."""
        for step in self.steps:
            if step[0] == op:
                return True
            if step[0] == OP_CLONE_INIT:
                break
        return False

    def copies_up(self) -> bool:
        """Whether a mount is filled from the image, which takes memory."""
        return any(step[0] == OP_MOUNT and step[1] & P_MOUNT_COPY_UP for step in self.steps)

    def late_origins(self) -> list[list[object]]:
        """What `start` needs to report a failure after WAIT_START; `create` has ended by then.

        One ``[step index, origin, op name, [strings]]`` per step, JSON-ready. Only the first item
        of a list argument is kept: an environment can be large, and only the path of a program can
        fail.
        """
        late: list[list[object]] = []
        for index, (op, _, _, strings) in enumerate(self.steps):
            if op == OP_WAIT_START or late:
                first = [(item[0] if item else "") if type(item) is list else item for item in strings]
                late.append([index, self.origins[index], OPS[op][0], first])
        return late

    def encode(self) -> bytes:
        """The bytes of init's memfd (native/init/plan.h). Raises PyruncError over a limit."""
        return _encode.encode(self.steps, 1 + len(self.fds), self.npreserve, self.flags)
