"""``python -m pyrunc``, and what the launcher calls: run the command line, and let no traceback reach a user."""

from __future__ import annotations

import sys
from posix import write

from pyrunc import errors, fs, interpreter

if interpreter.FROZEN:
    # Where nobody can catch an exception CPython prints a traceback: for want of memory in a generator that is closed.
    # `callable` takes one argument and does nothing, without any memory.
    sys.unraisablehook = callable


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
    # The core phase has neither, and what succeeded must not fail here for want of memory.
    if "stdout" in sys.__dict__:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as in a process that was started without stdio
                stream.flush()
    return status


def last_resort(error: BaseException, argv: list[str]) -> int:
    """Whatever nobody expected: one line, no traceback (unless ``--debug`` asks for it), and the verb's status."""
    if isinstance(error, SystemExit) and type(error.code) is int:
        return error.code
    # exec's callers take 1 for the program's own status (pyrunc.verbs.exec.FAILURE).
    code = 255 if "exec" in argv else 1
    if isinstance(error, MemoryError):
        fs.ignore(write, 2, b"pyrunc: error: out of memory\n")  # there may be none for another text
        return code
    text = errors.of_interpreter(error) or f"internal error: {type(error).__name__}: {errors.printable(str(error))}"
    fs.ignore(write, 2, f"pyrunc: error: {text}\n".encode("utf-8", "backslashreplace"))
    if "--debug" in argv or "-debug" in argv:
        fs.ignore(write, 2, errors.frames(error).encode("utf-8", "replace"))
    return code


if __name__ == "__main__":
    from posix import _exit

    # Like the launcher: no finalization, whose errors would be a traceback (stdout=/dev/full).
    _exit(run(sys.argv[1:]))
