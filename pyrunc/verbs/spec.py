"""`spec`: write a default config.json."""

from __future__ import annotations

import posix

from pyrunc import command, fs, jsontext
from pyrunc.errors import PyruncError, SysError, show
from pyrunc.spec import default

USAGE = "spec [OPTIONS]"
SUMMARY = "write a default config.json; an existing one is not replaced"
ARGS = (0, 0)
FLAGS: tuple[command.Flag, ...] = (
    ("bundle", "b", "DIR", "str", "directory to write config.json to (default: the working directory)"),
    ("rootless", "", "", "bool", "for use without root: a user namespace in which root is you"),
)


def main(context: command.Context, values: command.Values, args: list[str]) -> int:
    """Write config.json."""
    config = default.config()
    if values.get("rootless"):
        config = default.rootless(config, default.own_ids(posix.geteuid(), posix.getegid()))
    path = fs.join(values.get("bundle") or ".", "config.json")
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise PyruncError(f"file {show(path)} exists; remove it first") from None
    except OSError as error:
        raise SysError("--bundle", "open", error.errno or 0, value=path) from error
    try:
        fs.write_all(fd, (jsontext.dumps(config, "\t") + "\n").encode("ascii"))
    finally:
        posix.close(fd)
    return 0
