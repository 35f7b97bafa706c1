"""state.json: its members and their checks, and the state of runtime.md, which is derived from
it."""

from __future__ import annotations

import time

from pyrunc import SPEC_VERSION, fs, jsontext
from pyrunc.errors import StateError
from pyrunc.jsontext import dumps, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, NotRequired, TypedDict

    from pyrunc.cgroup.rdt import Record
    from pyrunc.spec.types import Hook, Mount, Resources

    class Process(TypedDict):
        """A process; the start time (field 22 of /proc/PID/stat) excludes a later one with the same
        pid."""

        pid: int
        starttime: int

    class Creator(Process):
        """The pyrunc that creates or runs the container."""

        library: NotRequired[bool]  # it is a process of the Python API, which outlives the call

    class AddedMount(TypedDict):
        """A mount that `mounts add` made."""

        entry: Mount  # as given
        id: int  # in mountinfo; the kernel reuses it after the mount is gone
        unique: int  # 0 before Linux 6.8
        at: str  # the mount point inside the container, without symbolic links; "" before it is attached
        pending: bool  # about to be attached or detached: the next `mounts` detaches it

    class AfterStart(TypedDict):
        """Hooks that run after init has executed the program or has ended."""

        poststart: NotRequired[list[Hook]]
        poststop: NotRequired[list[Hook]]

    Status = Literal["creating", "created", "running", "paused", "stopped"]

    class Document(TypedDict):
        """The content of state.json.

        `check` guarantees the required members and the type of those in ``_TYPES``. An older
        version may have left out any other member.
        """

        version: NotRequired[int]
        id: str
        status: Literal["creating", "created", "running"]
        pid: int  # of the container's first process; 0 before there is one
        cgroup: str  # path inside the hierarchy; "" for none
        ociVersion: NotRequired[str]
        created: NotRequired[str]
        starttime: NotRequired[int]  # of the first process
        bootid: NotRequired[str]
        runtime: NotRequired[Creator]
        bundle: NotRequired[str]
        rootfs: NotRequired[str]
        annotations: NotRequired[dict[str, str]]
        owner: NotRequired[int]  # uid
        cgroup_dir: NotRequired[str]  # path in the file system
        cgroup_manager: NotRequired[str]
        cgroup_made: NotRequired[list[str]]  # cgroups that `create` added, innermost first
        process: NotRequired[bool]  # config.json has a process
        hooks: NotRequired[AfterStart]
        late: NotRequired[list[list[object]]]  # Plan.late_origins()
        resources: NotRequired[Resources]  # as changed by `update`
        rdt: NotRequired[Record]
        notify: NotRequired[str]  # directory of the NOTIFY_SOCKET for the container
        root_below: NotRequired[int]  # ID of the mount that the root filesystem is mounted on
        root_mount: NotRequired[int]  # ID of the mount of the root filesystem
        descriptors: NotRequired[list[str]]  # what stdio was, for descriptors.json of a checkpoint
        image_bundle: NotRequired[str]  # created by `run --image`, removed with the container
        mounts: NotRequired[list[AddedMount]]  # oldest first
        no_new_keyring: NotRequired[bool]
        seccomp_log: NotRequired[bool]

    class Report(TypedDict):
        """A container as `state` and `list` print it."""

        ociVersion: str
        id: str
        pid: int
        status: Status
        bundle: str
        rootfs: str
        created: str
        annotations: NotRequired[dict[str, str]]
        owner: NotRequired[str]  # name; last


VERSION = 1  # of state.json
ADDED_MOUNTS = "org.pyrunc.mounts"  # annotation of `state`: the mounts of `mounts add`, as JSON
_ID_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+.-"
_MAX_PID = 1 << 31

# Members that the verbs use without a check of their own. A damaged file is reported as such by
# `read`, whichever verb comes first.
_TYPES = (
    ("starttime", int), ("bootid", str), ("bundle", str), ("rootfs", str), ("annotations", dict), ("cgroup", str),
    ("cgroup_dir", str), ("cgroup_manager", str), ("runtime", dict), ("hooks", dict), ("late", list),
    ("created", str), ("ociVersion", str), ("resources", dict), ("owner", int), ("notify", str), ("cgroup_made", list),
    ("root_below", int), ("root_mount", int), ("descriptors", list), ("mounts", list),
)  # fmt: skip

_ADDED = (("entry", dict), ("id", int), ("unique", int), ("at", str), ("pending", bool))  # AddedMount

# `dumps` never writes a NUL, and the pid comes before all free text.
_PID_MARK = "\0"


def parse(data: bytes, id: str) -> Document:
    """The state of container ``id``.  Raises ValueError when ``data`` is not its state."""
    found = jsontext.loads(data)
    if type(found) is not dict or found.get("id") != id:
        raise ValueError("not the state of this container")
    pid = found.get("pid")
    if type(pid) is not int or not 0 <= pid < _MAX_PID:
        raise ValueError("pid is not a process id")
    if found.get("status") not in ("creating", "created", "running"):
        raise ValueError("unknown status")
    # Without the cgroup `delete` would leave it behind; without the start time, init.
    if "cgroup" not in found or (pid and "starttime" not in found):
        raise ValueError("incomplete")
    for key, kind in _TYPES:
        if key in found and type(found[key]) is not kind:
            raise ValueError(f"{key} is not of type {kind.__name__}")
        # No path has either; a lone surrogate is a ValueError of `encode`.
        if kind is str and b"\0" in fs.encode(found.get(key, "")):
            raise ValueError(f"{key} contains a NUL")
    for added in found.get("mounts", ()):
        if type(added) is not dict or any(type(added.get(key)) is not kind for key, kind in _ADDED):
            raise ValueError("mounts has an entry of another form")
        if type(added["entry"].get("destination")) is not str:
            raise ValueError("a mount has no destination")
    return found  # type: ignore[return-value]  # has been checked


def now() -> str:
    """The time as RFC 3339 in UTC with nanoseconds; callers parse ``created``."""
    ns = time.time_ns()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000)) + f".{ns % 1_000_000_000:09d}Z"


def oci_state(id: str, status: Status, pid: int | str, bundle: str, annotations: dict[str, str]) -> str:
    """The state of runtime.md as one line of JSON, for hooks and seccomp agents."""
    text = f'{{"ociVersion":"{SPEC_VERSION}","id":{quote(id)},"status":"{status}","pid":{pid},"bundle":{quote(bundle)}'
    return text + (f',"annotations":{dumps(annotations)}}}' if annotations else "}")


def split_state(id: str, status: Status, bundle: str, annotations: dict[str, str]) -> tuple[str, str]:
    """The state before and after the pid, for hooks that init runs: only init knows its pid in the
    container."""
    head, _, tail = oci_state(id, status, _PID_MARK, bundle, annotations).partition(_PID_MARK)
    return head, tail


def check_id(id: str) -> None:
    """Raises StateError unless ``id`` can be a container id; `pyrunc.spec.names.valid_id` has the
    same rule."""
    if not id.strip(_ID_CHARS) and len(id) <= 242 and id[:1] not in ("", ".", "-"):
        return
    if not id:
        raise StateError("container id cannot be empty")
    from pyrunc.spec import names

    reason = (names.valid_id(id) or "").removeprefix("invalid container id").lstrip(": ")
    raise StateError(f"invalid container ID format: {reason}")
