"""The identity that unpacks an image: root, or root of a user namespace with the user's ids.

A user with a line in /etc/subuid and /etc/subgid gets correct file owners, as in containers. A user
without one unpacks with only the user's own id and owns every file.
"""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass, field

from pyrunc import host, idmap
from pyrunc.errors import SysError
from pyrunc.native import namespaces
from pyrunc.signals import SIGKILL
from pyrunc.spec import default
from pyrunc.spec.names import CLONE_FLAGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.default import Mappings


@dataclass(slots=True)
class Identity:
    """Our rights over the files of an image, and the mappings that config.json needs for them."""

    owners: bool  # chown to any mapped id
    devices: bool  # mknod
    mappings: Mappings | None = field(default=None)  # None: no user namespace


def enter(own_only: bool, *, mounts: bool = False) -> Identity:
    """Switch to an identity that can write the files: for users other than root, a new user
    namespace.

    ``mounts``: the caller will mount, which needs a user namespace even with a single id.

    Raises SysError, PyruncError (newuidmap refuses).
    """
    if os.geteuid() == 0:
        return Identity(owners=True, devices=host.initial_userns())
    own = default.own_ids(os.geteuid(), os.getegid())
    uids = gids = None
    if not own_only:
        uids, gids = subordinate("/etc/subuid"), subordinate("/etc/subgid")
    if uids is None or gids is None:
        if mounts:
            _enter_namespace(own)
        return Identity(owners=False, devices=False, mappings=own)
    mappings: Mappings = {
        "uidMappings": [*own["uidMappings"], {"containerID": 1, "hostID": uids[0], "size": uids[1]}],
        "gidMappings": [*own["gidMappings"], {"containerID": 1, "hostID": gids[0], "size": gids[1]}],
    }
    _enter_namespace(mappings)
    return Identity(owners=True, devices=False, mappings=mappings)


def subordinate(path: str) -> tuple[int, int] | None:
    """The caller's first range in /etc/subuid or /etc/subgid (subuid(5)), or None."""
    uid = os.geteuid()
    try:
        names = {pwd.getpwuid(uid).pw_name, str(uid)}
    except KeyError:
        names = {str(uid)}
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as lines:
            for line in lines:
                fields = line.strip().split(":")
                if len(fields) == 3 and fields[0] in names and fields[1].isdigit() and fields[2].isdigit():
                    first, size = int(fields[1]), int(fields[2])
                    if 0 < first < first + size <= 0xFFFFFFFF:
                        return first, size
    except OSError:
        pass
    return None


def _enter_namespace(mappings: Mappings) -> None:
    """Join a new user namespace. A child holds it until newuidmap and newgidmap have written its
    maps."""
    try:
        pid = namespaces.hold_user_namespace()
    except OSError as error:
        raise SysError("user namespace", "clone", error.errno or 0) from error
    try:
        from pyrunc.host import HostFacts

        facts = HostFacts()
        facts.euid = os.geteuid()
        idmap.write_maps(pid, {"uidMappings": mappings["uidMappings"], "gidMappings": mappings["gidMappings"]}, facts)
        fd = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        try:
            namespaces.setns(fd, CLONE_FLAGS["user"])
        except OSError as error:
            raise SysError("user namespace", "setns", error.errno or 0) from error
        finally:
            os.close(fd)
    finally:
        os.kill(pid, SIGKILL)
        os.waitpid(pid, 0)
    os.setgid(0)
    os.setuid(0)
