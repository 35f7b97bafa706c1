"""process.env: what the program's environment is, as far as the host side can know it."""

from __future__ import annotations

from pyrunc.fs import salted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.types import Process

DEFAULT_PATH = "/bin:/usr/bin"  # where execvp(3) searches without a PATH


class Environment:
    """The environment of the program."""

    __slots__ = ("entries", "find_home", "listen", "path")

    def __init__(self, entries: list[str], path: str, find_home: bool, listen: bool) -> None:
        self.entries = entries  # NAME=value
        self.path = path  # PATH, where the program is looked up
        self.listen = listen  # init sets LISTEN_PID to its own pid, which nobody knows before
        self.find_home = find_home  # init takes HOME from the container's /etc/passwd


def environment(process: Process, listen_fds: int = 0, notify: bool = False) -> Environment:
    """The environment of ``process``.

    For duplicate names the last entry wins and keeps its position. Nothing is inherited from the
    caller. ``listen_fds``: how many descriptors socket activation passes. ``notify``: the socket
    directory for sd_notify is mounted.
    """
    last: dict[str, str] = {}  # salted name -> entry
    entries = process.get("env", [])
    if listen_fds:
        entries = [*entries, f"LISTEN_FDS={listen_fds}", "LISTEN_PID=1"]
    if notify:
        entries = [*entries, "NOTIFY_SOCKET=/run/notify/notify.sock"]
    for entry in entries:
        name = salted(entry.partition("=")[0])
        last.pop(name, None)
        last[name] = entry
    find_home = last.get(salted("HOME")) in (None, "HOME=")
    if find_home:
        last.pop(salted("HOME"), None)
    path = last.get(salted("PATH"), "PATH=" + DEFAULT_PATH)[5:]
    return Environment(list(last.values()), path, find_home, bool(listen_fds))
