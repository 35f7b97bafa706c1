"""A failed step in terms of config.json. Only loaded on failure.

init reports the index of a step, the argument at fault and the item of a list; the plan knows their
origins. After `create` has ended, only `Plan.late_origins` is left of the plan, in state.json.
"""

from __future__ import annotations

from errno import EACCES, ENOENT

from pyrunc.errors import PyruncError, SysError, errno_text, hook_failure
from pyrunc.plan.ops import OPS, Builder
from pyrunc.spec.names import CAPABILITIES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from pyrunc.handshake import Record
    from pyrunc.plan import Plan

    Explain = Callable[[str, int], str]
    Late = list[Any]  # rows of Plan.late_origins: int, str, str, list[str]

# FIND_EXE has found the file, so it is not the file that is missing.
_EXEC_WORDS = {ENOENT: "no such file or directory (the program, its #! interpreter or its ELF loader)"}

_ARGS = {name: args for name, _, args, _ in OPS.values()}
# Ops with another string argument that makes the message clearer: the destination of a mount.
_CONTEXT = {"MOUNT": 2}


class Fault:
    """Where a step failed: the JSON pointer (or other origin), the value there, and the context."""

    __slots__ = ("context", "op", "value", "where")

    def __init__(self, where: str, value: str | None, context: str, op: str) -> None:
        self.where, self.value, self.context, self.op = where, value, context, op


def describe(source: Plan | Late, record: Record) -> Fault:
    """Find the origin of ``record.step`` in a plan or in the result of `Plan.late_origins`.

    ``record.arg`` is a string slot plus 1 (0: no argument in particular), ``record.item`` the index
    into a list argument. For an unknown step ``where`` is "init" and there is no value.
    """
    origin, op, strings = _find(source, record.step)
    if not op:
        return Fault(origin, None, "", "")
    named = [arg for arg in _ARGS[op] if arg[4] >= 0]
    # No argument in particular: a step with one string is about that string, unless the argument is
    # a field of its own.
    wanted = record.arg - 1
    if wanted < 0 and len(named) == 1 and not named[0][2]:
        wanted = named[0][4]
    where, value, context = origin, None, ""
    for _, _, suffix, _, slot in named:
        if slot == wanted:
            value = _item(strings[slot], record.item)
            if suffix and origin.startswith("/"):  # "(default device)" has no fields
                where = f"{origin}/{suffix}"
    around = _CONTEXT.get(op, -1)
    if around >= 0 and around != wanted:
        context = str(strings[around])
    return Fault(where, value, context, op)


def _find(source: Plan | Late, step: int) -> tuple[str, str, Sequence[object]]:
    """Origin, op name and string arguments of a step; ("init", "", ()) if there is no such step."""
    if isinstance(source, Builder):
        if step < len(source.steps):
            op, _, _, strings = source.steps[step]
            return source.origins[step], OPS[op][0], strings
        return "init", "", ()
    for index, origin, name, first in source:
        if index == step:
            return str(origin), str(name), first
    return "init", "", ()


def _item(value: object, index: int) -> str | None:
    """The string at fault: the item of a list, nothing for a blob."""
    if isinstance(value, list):
        return str(value[index]) if index < len(value) else None
    return None if isinstance(value, bytes) else str(value)


def error(source: Plan | Late, record: Record, explain: Explain | None = None) -> SysError:
    """The exception for a FAIL or WARN record, with a hint if there is one.

    ``explain``: explains why a program (a path) could not be executed, from the errno.
    """
    from pyrunc import hints

    fault = describe(source, record)
    hint = _misspelled(fault.op, record.detail)
    if explain is not None and fault.op in ("FIND_EXE", "EXECVE"):
        hint = _explained(fault, record, explain)
    return SysError(
        fault.where,
        _hook_call(fault.where, record.call) if fault.op == "HOOK" else record.call,
        record.err,
        value=fault.value,
        detail=_program_words(fault.op, fault.value, record, bool(hint)),
        hint=hint or hints.find(fault.op, record.err),
    ).within(fault.context)


def saved_error(late: Late, record: Record, explain: Explain | None = None) -> SysError:
    """`error` after `create` has ended; ``late`` is the result of `Plan.late_origins`."""
    return error(late, record, explain)


def _explained(fault: Fault, record: Record, explain: Explain) -> str:
    """What is wrong with the program, "" if unknown; never raises."""
    name = record.detail.removeprefix("exec ") if fault.op == "EXECVE" else fault.value or ""
    try:
        return explain(name, record.err)
    except (OSError, PyruncError, ValueError):
        return ""


def _misspelled(op: str, detail: str) -> str:
    """The mount option that was meant, if the filesystem does not know the one that was given."""
    _, found, rest = detail.partition("Unknown parameter '")
    if op != "MOUNT" or not found:
        return ""
    from pyrunc.plan.mount_options import meant

    return meant([rest.partition("'")[0]]).lstrip("; ")


def _hook_call(where: str, call: str) -> str:
    """The words for a hook that runs on the host; ``where`` is /hooks/KIND/INDEX/path."""
    _, _, kind, index, *_ = where.split("/")
    words = hook_failure(kind, int(index))
    return f"{words}: {call}" if call not in ("", "hook") else words


def _with_names(detail: str) -> str:
    """Replace the numbers of capabilities and signals, which init reports, by their names."""
    head, found, number = detail.rpartition("capability ")
    if found and number.isdigit() and int(number) < len(CAPABILITIES):
        return head + CAPABILITIES[int(number)]
    head, found, rest = detail.partition("killed by signal ")
    if found and not head:
        from pyrunc import signals

        number, colon, output = rest.partition(":")
        return f"killed by {signals.described(int(number))}{colon}{output}"
    return detail


def _program_words(op: str, value: str | None, record: Record, explained: bool) -> str:
    """The detail of a record; for program and working directory in the words of Go's os.PathError.

    podman, docker and containerd match them to exit with 127 (not found) or 126 (not executable);
    scripts match others.
    """
    detail = _with_names(record.detail)
    if op == "EXECVE" and detail:  # "exec /run.sh", from init
        words = _EXEC_WORDS.get(record.err) or errno_text(record.err).partition(": ")[2]
        words = words.partition(" (")[0] if explained else words
        return f"{detail}: {words}" if words else detail
    if detail or record.err not in (ENOENT, EACCES) or op not in ("FIND_EXE", "EXECVE", "CHDIR"):
        return detail
    if record.err == EACCES:
        return "permission denied"
    by_name = op == "FIND_EXE" and value is not None and "/" not in value
    return "executable file not found in $PATH" if by_name else "no such file or directory"
