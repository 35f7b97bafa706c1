"""A compiled container: the steps init walks, and what the host side has to do around them.

`compile.compile_create` makes a `Plan` out of config.json without touching anything; `launch` opens the descriptors it
asks for, sends `Plan.encode()` to init and keeps the origins to phrase errors with; `pyrunc plan` prints it.
"""

from __future__ import annotations

from pyrunc.errors import Capped, Problem
from pyrunc.plan import encode as _encode
from pyrunc.plan.ops import (
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


class Plan(Builder):
    """The steps of `Builder`, plus everything about the container that init does not do itself."""

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
        # (kind, value, origin) of the descriptors that go with the plan, in the order of their slots from 1 on (slot 0
        # is the plan itself).  Kinds: "ns" (value: path), "cgroup" (path inside the hierarchy), "console", "start",
        # "error", "idmap" (a path to be bound with an id mapping, origin: the mount).
        self.fds: list[tuple[str, str, str]] = []
        self.flags = 0  # of the header: TRACE
        self.npreserve = 0  # inherited descriptors 3 .. 3+npreserve-1 go on to the container
        self.seccomp: Seccomp | None = None  # type: ignore[assignment]  # the profile that `set_filter` gets the program of
        self.rlimits: list[tuple[int, int, int, str]] = []  # (RLIMIT_* number, soft, hard, origin), for prlimit(2)
        self.sched_attr = b""  # struct sched_attr that the host side sets; empty: none
        self.hooks: dict[str, list[Hook]] = {}  # the kinds that run in the runtime's namespaces
        self.cgroup_path = ""  # absolute inside the v2 hierarchy, "" for none
        self.callers_mounts = False  # init mounts in our own mount namespace
        self.new_userns = False  # the host side has to write its maps
        self.cgroup_owner = -1  # uid on the host that the cgroup is given to, -1: it stays ours
        self.warnings = Capped()  # of texts
        self.problems = Capped()  # collected while compiling; a plan that has any is never returned

    def fd(self, kind: str, value: str, origin: str) -> int:
        """Ask for a descriptor; returns its slot."""
        self.fds.append((kind, value, origin))
        return len(self.fds)

    def warn(self, pointer: str, text: str) -> None:
        """Something in config.json has no effect here, and that is allowed."""
        self.warnings.append(f"{pointer}: {text}")

    def refuse(self, pointer: str, expected: str, found: str = "", hint: str = "") -> None:
        """Something in config.json cannot be compiled; `compile_create` raises all of these at once."""
        self.problems.append(Problem(pointer, expected, found, hint))

    def set_filter(self, blob: bytes, flags: int, listener: bool) -> None:
        """Put the seccomp program in place: ``struct sock_filter[]`` bytes, SECCOMP_FILTER_FLAG_* without NEW_LISTENER.

        ``listener``: the program notifies, so init must hand out the notify descriptor.
        """
        for index, step in enumerate(self.steps):
            if step[0] == OP_SECCOMP:
                policy = step[1] & ~P_SECCOMP_LISTENER | (P_SECCOMP_LISTENER if listener else 0)
                self.steps[index] = (OP_SECCOMP, policy, (flags, len(blob)), (blob,))

    def has_hooks(self) -> bool:
        """Whether a hook runs while the container is created: such a plan takes as long as the hook does."""
        if self.hooks.get("prestart") or self.hooks.get("createRuntime"):
            return True
        for step in self.steps:
            if step[0] == OP_HOOK:
                return True
            if step[0] == OP_WAIT_START:
                break
        return False

    def copies_up(self) -> bool:
        """Whether a mount is filled with content of the image, in memory."""
        return any(step[0] == OP_MOUNT and step[1] & P_MOUNT_COPY_UP for step in self.steps)

    def late_origins(self) -> list[list[object]]:
        """What `start` needs to phrase a failure after WAIT_START, when the process that compiled is long gone.

        One ``[step index, origin, op name, [strings]]`` per step, JSON-ready; of a list argument only the first item,
        because an environment can be large and only the path of a program ever fails.
        """
        late: list[list[object]] = []
        for index, (op, _, _, strings) in enumerate(self.steps):
            if op == OP_WAIT_START or late:
                first = [(item[0] if item else "") if type(item) is list else item for item in strings]
                late.append([index, self.origins[index], OPS[op][0], first])
        return late

    def encode(self) -> bytes:
        """The bytes for init's memfd, as native/init/plan.h lays them out.  Raises PyruncError beyond its limits."""
        return _encode.encode(self.steps, 1 + len(self.fds), self.npreserve, self.flags)
