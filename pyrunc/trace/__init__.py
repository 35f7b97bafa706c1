"""Where the time of a command goes: ``--trace FILE``, and `pyrunc trace show`.

Imported only for a trace (docs/adr/0025-trace.md). `record` holds the events, `points` is the table
of what is timed, and `target` writes FILE in the format of `chrome` or `otlp`. `read`, `draw` and
`svg` display it.
"""

from __future__ import annotations

import time

from pyrunc import fs
from pyrunc.errors import PyruncError, brief

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from pyrunc.command import Context

VARIABLE = "PYRUNC_TRACE"
# The variable applies to commands that change a container. Engines call the other ones all the
# time.
CHANGING = ("create", "delete", "exec", "kill", "pause", "resume", "run", "start", "update")


def traced(
    module: ModuleType,
    context: Context,
    argv: list[str],
    spec: str,
    run_verb: Callable[[ModuleType, Context, list[str]], int],
) -> int:
    """Run a verb and write its trace; ``spec`` is the value of --trace, or "" for the variable.

    Raises the exceptions of the verb. An unusable FILE raises SysError or UsageError before
    anything is done.
    """
    began, worked = time.time_ns(), time.process_time_ns()
    verb = module.__name__.rpartition(".")[2]
    where = "--trace" if spec else VARIABLE
    if not spec and verb not in CHANGING:
        return run_verb(module, context, argv)
    from pyrunc.trace import points, record, target

    file = target.open_target(spec or fs.getenv(VARIABLE), where)
    recorder = record.Recorder(verb, file, began, worked)
    try:
        points.install(recorder)
        points.on_verb(recorder, module)
        recorder.ready()
        status = run_verb(module, context, argv)
        recorder.root.args["exit"] = status
        return status
    except BaseException as error:
        words = str(error) if isinstance(error, PyruncError) else f"{type(error).__name__}: {error}"
        recorder.root.args["error"] = brief(words, record.TEXT)
        raise
    finally:
        points.remove()
        problem = recorder.finish()
        if problem:
            context.log.warning(f"{where}: {problem}")
