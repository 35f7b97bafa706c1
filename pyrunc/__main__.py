"""The entry point of ``python -m pyrunc`` and of the launcher; users never see a traceback."""

from __future__ import annotations

import sys
from posix import write

from pyrunc import errors, fs, interpreter

if interpreter.FROZEN:
    # CPython prints a traceback for an exception that cannot be caught, for example a MemoryError
    # when a generator is closed.  `callable` takes one argument and does nothing, without memory.
    sys.unraisablehook = callable


def run(argv: list[str]) -> int:
    """Run a command line (without the program's name), and return the exit status."""
    try:
        from pyrunc import cli

        status = cli.main(argv)
        return flush(status)
    except BaseException as error:
        return last_resort(error, argv)


def flush(status: int) -> int:
    """Flush stdout and stderr before the process ends.  Raises OSError."""
    # The core phase has no streams, and a lookup in sys must not fail for lack of memory.
    if "stdout" in sys.__dict__:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # None if the process was started without stdio
                stream.flush()
    return status


def last_resort(error: BaseException, argv: list[str]) -> int:
    """Report an unexpected exception in one line, with a traceback only for ``--debug``.

    Returns the exit status of the command.
    """
    if isinstance(error, SystemExit) and type(error.code) is int:
        return error.code
    # Callers of exec interpret 1 as the program's own status (pyrunc.verbs.exec.FAILURE).
    code = 255 if "exec" in argv else 1
    if isinstance(error, MemoryError):
        fs.ignore(write, 2, b"pyrunc: error: out of memory\n")  # no memory for another text
        return code
    text = errors.of_interpreter(error) or f"internal error: {type(error).__name__}: {errors.printable(str(error))}"
    fs.ignore(write, 2, f"pyrunc: error: {text}\n".encode("utf-8", "backslashreplace"))
    if "--debug" in argv or "-debug" in argv:
        fs.ignore(write, 2, errors.frames(error).encode("utf-8", "replace"))
    return code


if __name__ == "__main__":
    from posix import _exit

    # Skip finalization, as the launcher does: its errors are tracebacks (stdout=/dev/full).
    _exit(run(sys.argv[1:]))
