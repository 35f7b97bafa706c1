"""The command line: global options, then a verb with its own.

Engines call runtimes with the leniency of Go's flag packages, which argparse does not have: `-opt val`, `--opt=val`,
`--flag=false`, options before or after positionals.  One table per verb (``FLAGS``) serves parser, help and shell
completions.
"""

from __future__ import annotations

import sys

from pyrunc import SPEC_VERSION, VERSION, errors, fs
from pyrunc.command import Context, Flag, out, parse
from pyrunc.errors import PyruncError, UsageError, printable, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from pyrunc.log import Log

VERBS = (
    "create", "delete", "events", "exec", "features", "kill", "list", "pause", "plan", "ps", "resume", "run", "spec",
    "start", "state", "update",
)  # fmt: skip

GLOBAL_FLAGS: tuple[Flag, ...] = (
    ("root", "", "DIR", "str", "directory for the state of containers (default /run/pyrunc; $XDG_RUNTIME_DIR/pyrunc)"),
    ("log", "", "FILE", "str", "append messages to FILE"),
    ("log-format", "", "FORMAT", "str", "text (default) or json"),
    ("debug", "", "", "bool", "log everything"),
    ("systemd-cgroup", "", "", "bool", "use the systemd cgroup driver"),
    ("cgroup-manager", "", "MANAGER", "str", "cgroupfs (default), systemd or disabled"),
    ("rootless", "", "MODE", "str", "do without what only root may do in cgroups: true, false or auto (default)"),
    ("criu", "", "PATH", "str", "accepted for callers of older runtimes, and ignored"),
    ("help", "h", "", "bool", "show help"),
    ("version", "v", "", "bool", "show the version"),
)


def load_verb(name: str) -> ModuleType:
    """The module of a verb; only this one is imported.  Raises UsageError."""
    if name not in VERBS:
        raise UsageError(f"unknown command {show(name)}; `pyrunc help` lists them")
    __import__("pyrunc.verbs." + name)
    return sys.modules["pyrunc.verbs." + name]


def main(argv: list[str]) -> int:
    """Run one command line, without the program's name; returns the exit status.  Raises nothing a user could cause."""
    log: Log | None = None
    verb = ""
    debug = False
    try:
        values, rest = parse(argv, GLOBAL_FLAGS, stop_at_first=True)
        debug = bool(values.get("debug"))
        if values.get("version"):
            return out(version_text())
        if values.get("help") or not rest or rest[0] in ("help", "h"):
            return help_for(rest[1:] if rest else [])
        # The log first: engines look there for why a command failed, whatever the reason (callers.md, row 5).
        context = Context(values)
        log = context.log
        module = load_verb(rest[0])
        verb = rest[0]
        return run_verb(module, context, rest[1:])
    except (Exception, KeyboardInterrupt) as error:
        return fail(error, log, verb, debug)


def run_verb(module: ModuleType, context: Context, argv: list[str]) -> int:
    """Parse a verb's own options and call it."""
    flags = (*module.FLAGS, ("help", "h", "", "bool", "show help"))
    values, args = parse(argv, flags, getattr(module, "STOP_AT_FIRST", False))
    if values.get("help"):
        return out(verb_help(module))
    least, most = module.ARGS
    if not least <= len(args) <= most:
        wanted = str(least) if least == most else f"{least} to {most}"
        raise UsageError(f"expected {wanted} argument{'s' if wanted != '1' else ''}, got {len(args)}: {module.USAGE}")
    status: int = module.main(context, values, args)
    return status


def fail(error: BaseException, log: Log | None, verb: str, debug: bool) -> int:
    """One line on stderr and one in the log, whatever happened; the traceback only with --debug."""
    if isinstance(error, PyruncError):
        text = str(error)
        code = error.exit_code
    elif isinstance(error, OSError):
        name = error.filename
        name = f"{name.decode('utf-8', 'replace') if isinstance(name, bytes) else name}: " if name else ""
        text, code = f"{name}{errors.errno_text(error.errno or 0)}", 1
    else:
        words = {MemoryError: "out of memory", RecursionError: "nested too deeply", KeyboardInterrupt: "interrupted"}
        internal = f"internal error: {type(error).__name__}: {error}"
        if isinstance(error, ImportError):  # also the loader's: no memory or descriptor for a shared library
            internal = f"cannot load a part of pyrunc: {error}"
        text, code = next((t for kind, t in words.items() if isinstance(error, kind)), internal), 1
    if verb:
        code = getattr(load_verb(verb), "FAILURE", code)
    if isinstance(error, UsageError) and verb:
        text = f"{verb}: {text}"
    text = printable(text)
    if log is not None:
        log.error(text)
    fs.ignore(fs.write_all, 2, f"pyrunc: {text}\n".encode("utf-8", "replace"))
    if debug:
        fs.ignore(fs.write_all, 2, errors.frames(error).encode("utf-8", "replace"))
    return code


# -- help -----------------------------------------------------------------------------------------------------


def version_text() -> str:
    """``--version``: go-runc, podman and moby read the first three lines."""
    from pyrunc import build

    lines = [f"pyrunc version {VERSION}", f"commit: {build.commit()}", f"spec: {SPEC_VERSION}"]
    lines += [f"libseccomp: {build.libseccomp()}", f"python: {sys.version.split()[0]}"]
    return "\n".join(lines) + "\n"


def help_for(args: list[str]) -> int:
    """``help``, ``help VERB``."""
    if args:
        return out(verb_help(load_verb(args[0])))
    lines = ["usage: pyrunc [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]", "", "commands:"]
    lines += [f"  {name:10} {load_verb(name).SUMMARY}" for name in VERBS]
    lines += ["  help       show help, also of one command", "", "global options:", *flag_lines(GLOBAL_FLAGS)]
    return out("\n".join(lines) + "\n")


def verb_help(module: ModuleType) -> str:
    """The help of one verb."""
    lines = [f"usage: pyrunc {module.USAGE}", "", module.SUMMARY]
    if module.FLAGS:
        lines += ["", "options:", *flag_lines(module.FLAGS)]
    return "\n".join(lines) + "\n"


def flag_lines(flags: Sequence[Flag]) -> list[str]:
    """One line per flag."""
    heads = [
        f"  {'-' + short + ', ' if short else ''}--{name}{' ' + metavar if metavar else ''}"
        for name, short, metavar, _, _ in flags
    ]
    width = max(len(head) for head in heads)
    return [f"{head:{width}}  {flag[4]}" for head, flag in zip(heads, flags, strict=True)]
