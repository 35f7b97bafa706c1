"""The command line: global options, then a command (verb) with its options.

Engines rely on the syntax of Go's flag packages, which argparse does not support: `-opt val`,
`--opt=val`, `--flag=false`, options before or after positionals.  One table per verb (``FLAGS``)
defines the parser, the help and the shell completions.
"""

from __future__ import annotations

import posix
import sys

from pyrunc import SPEC_VERSION, VERSION, command, errors, fs
from pyrunc.command import ANY_NUMBER, Context, Flag, UnknownOption, out, parse
from pyrunc.errors import PyruncError, UsageError, brief, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

    from pyrunc.log import Log

VERBS = (
    "checkpoint", "create", "delete", "doctor", "events", "exec", "features", "images", "kill", "list", "mounts",
    "pause", "plan", "ps", "restore", "resume", "run", "seccomp", "spec", "start", "state", "trace", "unpack", "update",
)  # fmt: skip

GLOBAL_FLAGS: tuple[Flag, ...] = (
    ("root", "", "DIR", "str", "directory for the state of containers (default /run/pyrunc; $XDG_RUNTIME_DIR/pyrunc)"),
    ("log", "", "FILE", "str", "append messages to FILE"),
    ("log-format", "", "FORMAT", "str", "text (default) or json"),
    ("debug", "", "", "bool", "log everything"),
    ("systemd-cgroup", "", "", "bool", "use the systemd cgroup driver"),
    ("cgroup-manager", "", "MANAGER", "str", "cgroupfs (default), systemd or disabled"),
    ("rootless", "", "MODE", "str", "tolerate a lack of cgroup permissions: true, false or auto (default)"),
    (
        "trace",
        "",
        "FILE",
        "str",
        "add a trace to FILE, for Perfetto and `trace show`; otlp:FILE is for OpenTelemetry",
    ),
    ("criu", "", "PATH", "str", "accepted for callers of older runtimes, and ignored"),
    ("help", "h", "", "bool", "show help"),
    ("version", "v", "", "bool", "show the version"),
    ("licenses", "", "", "bool", "show the licences of the software in the executable"),
)


class UnknownCommand(UsageError):
    """The command does not exist."""

    exit_code = 3  # as in runc

    def __init__(self, name: str) -> None:
        from pyrunc import hints

        meant = hints.did_you_mean(name, (*VERBS, "help"))
        super().__init__(f"unknown command {show(name)}{meant or '; `pyrunc help` lists them'}")


def load_verb(name: str) -> ModuleType:
    """Import the module of a verb, and no other.  Raises UnknownCommand."""
    if name not in VERBS:
        raise UnknownCommand(name)
    __import__("pyrunc.verbs." + name)
    return sys.modules["pyrunc.verbs." + name]


def main(argv: list[str]) -> int:
    """Run a command line (without the program's name), and return the exit status.

    All errors are reported here.
    """
    log: Log | None = None
    verb = ""
    debug = False
    try:
        values, rest = parse_global(argv)
        debug = bool(values.get("debug"))
        if values.get("version"):
            return out(version_text())
        if values.get("licenses"):
            return out(licenses_text())
        if values.get("help") or not rest or rest[0] in ("help", "h"):
            return help_for(rest[1:] if rest else [])
        # Open the log first: engines read the reason of any failure there (docs/callers.md, Log).
        context = Context(values)
        log = context.log
        module = load_verb(rest[0])
        log.stderr_is_ours = getattr(module, "STDERR_IS_OURS", False)
        verb = rest[0]
        if "trace" in values or b"PYRUNC_TRACE" in posix.environ:
            from pyrunc import trace

            return trace.traced(module, context, rest[1:], values.get("trace", ""), run_verb)
        return run_verb(module, context, rest[1:])
    except (Exception, KeyboardInterrupt) as error:
        return fail(error, log, verb, debug)


def parse_global(argv: list[str]) -> tuple[command.Values, list[str]]:
    """Parse the global options.

    Returns them, and the arguments from the verb on. Raises UsageError.
    """
    try:
        return parse(argv, GLOBAL_FLAGS, stop_at_first=True)
    except UnknownOption as error:
        verbs = [verb for verb in VERBS if any(error.name in flag[:2] for flag in load_verb(verb).FLAGS)]
        if not error.name or not verbs:
            raise
        raise UsageError(f"{error.text} before the command; it is an option of {', '.join(verbs)}") from error


def stop_of(module: ModuleType) -> bool | str:
    """Whether a verb's options end at its first argument, or the option that has this effect."""
    stop: bool | str = getattr(module, "STOP_AT_FIRST", False)
    return stop


def run_verb(module: ModuleType, context: Context, argv: list[str]) -> int:
    """Parse the options of a verb and call it."""
    flags = (*module.FLAGS, ("help", "h", "", "bool", "show help"))
    try:
        values, args = parse(argv, flags, stop_of(module))
    except UnknownOption as error:
        if not any(error.name == flag[0] for flag in GLOBAL_FLAGS):
            raise
        raise UsageError(f"{error.text}; it is a global option, which goes before the command") from error
    if values.get("help"):
        return out(verb_help(module))
    least, most = module.ARGS
    if stop_of(module) in values:
        most = command.ANY_NUMBER
    if not least <= len(args) <= most:
        raise UsageError(f"expected {arguments(least, most)}, got {len(args)}: {module.USAGE}")
    status: int = module.main(context, values, args)
    return status


def arguments(least: int, most: int) -> str:
    """The number of arguments as text, for example ``1 or 2 arguments``."""
    if most == ANY_NUMBER:
        return f"at least {least} argument{'' if least == 1 else 's'}"
    numbers = str(least) if least == most else f"{least} or {most}" if most == least + 1 else f"{least} to {most}"
    return f"{numbers} argument{'' if most == 1 else 's'}"


def fail(error: BaseException, log: Log | None, verb: str, debug: bool) -> int:
    """Report an error: one line on stderr, one in the log, and with --debug the traceback.

    Returns the exit status.
    """
    from pyrunc.log import LINE, say

    if isinstance(error, PyruncError):
        text = str(error)
        code = error.exit_code
    elif isinstance(error, OSError):
        name = error.filename
        name = f"{name.decode('utf-8', 'replace') if isinstance(name, bytes) else name}: " if name else ""
        text, code = f"{name}{errors.errno_text(error.errno or 0)}", 1
    else:
        words = {RecursionError: "nested too deeply", KeyboardInterrupt: "interrupted"}
        internal = errors.of_interpreter(error) or f"internal error: {type(error).__name__}: {error}"
        if isinstance(error, ImportError):  # also: no memory for a shared library
            internal = f"cannot load a part of pyrunc: {error}"
        text, code = next((t for kind, t in words.items() if isinstance(error, kind)), internal), 1
    if verb:
        code = getattr(load_verb(verb), "FAILURE", code)
    if isinstance(error, UsageError) and verb:
        text = f"{verb}: {text}"
    text = brief(text, LINE)
    if log is not None:
        log.error(text)
    say("error", text)
    if debug:
        fs.ignore(fs.write_all, 2, errors.frames(error).encode("utf-8", "replace"))
    return code


# -- help ------------------------------------------------------------------------------------------


def version_text() -> str:
    """The text of ``--version``; go-runc, podman and moby parse the first three lines."""
    from pyrunc import build

    lines = [f"pyrunc version {VERSION}", f"commit: {build.commit()}", f"spec: {SPEC_VERSION}"]
    lines += [f"libseccomp: {build.libseccomp()}", f"python: {sys.version.split()[0]}", f"launcher: {build.launcher()}"]
    return "\n".join(lines) + "\n"


def licenses_text() -> str:
    """The text of ``--licenses``."""
    from pyrunc import interpreter

    return interpreter.licenses() or "pyrunc is licensed under the Apache License 2.0.\n"


def help_for(args: list[str]) -> int:
    """Print the help of `help` and `help VERB`."""
    if args and args[0] not in ("help", "h"):
        return out(verb_help(load_verb(args[0])))
    lines = ["usage: pyrunc [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]", "", "commands:"]
    lines += [f"  {name:10} {load_verb(name).SUMMARY}" for name in VERBS]
    lines += ["  help       show help, also of one command", "", "global options:", *flag_lines(GLOBAL_FLAGS)]
    return out("\n".join(lines) + "\n")


def verb_help(module: ModuleType) -> str:
    """The help text of a verb."""
    lines = [f"usage: pyrunc {module.USAGE}", "", module.SUMMARY]
    if module.FLAGS:
        lines += ["", "options:", *flag_lines(module.FLAGS)]
    for paragraph in getattr(module, "DETAILS", ()):
        lines += ["", *paragraph.split("\n")]
    return "\n".join(lines) + "\n"


def flag_lines(flags: Sequence[Flag]) -> list[str]:
    """The help lines of flags."""
    heads = [
        f"  {'-' + short + ', ' if short else ''}--{name}{' ' + metavar if metavar else ''}"
        for name, short, metavar, _, _ in flags
    ]
    width = max(len(head) for head in heads)
    return [f"{head:{width}}  {flag[4]}" for head, flag in zip(heads, flags, strict=True)]
