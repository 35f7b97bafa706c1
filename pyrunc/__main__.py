"""``python -m pyrunc``, and what the launcher calls: run the command line, and let no traceback reach a user."""

from __future__ import annotations

import sys
from posix import write

from pyrunc import errors, fs


def run(argv: list[str]) -> int:
    """Run one command line (without the program's name); returns the exit status."""
    try:
        from pyrunc import cli

        status = cli.main(argv)
        return flush(status)
    except BaseException as error:
        return last_resort(error, argv)


def flush(status: int) -> int:
    """Text that cold verbs printed must be out before the process ends.  Raises OSError when it cannot be."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name, None)  # the core phase has neither; a process started without stdio has None
        if stream is not None:
            stream.flush()
    return status


def last_resort(error: BaseException, argv: list[str]) -> int:
    """Whatever nobody expected: one line, no traceback (unless ``--debug`` asks for it), status 1."""
    if isinstance(error, SystemExit) and type(error.code) is int:
        return error.code
    line = f"pyrunc: error: internal error: {type(error).__name__}: {errors.printable(str(error))}\n"
    fs.ignore(write, 2, line.encode("utf-8", "backslashreplace"))
    if "--debug" in argv or "-debug" in argv:
        fs.ignore(write, 2, errors.frames(error).encode("utf-8", "replace"))
    return 1


if __name__ == "__main__":
    from posix import _exit

    # Like the launcher: no finalization, whose errors would be a traceback (stdout=/dev/full).
    _exit(run(sys.argv[1:]))
