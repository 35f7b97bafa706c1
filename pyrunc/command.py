"""Shared by all verbs: the option parser, the global context, and output to stdout.

Engines rely on the syntax of Go's flag packages, which argparse does not support: `-opt val`,
`--opt=val`, `--flag=false`, options before or after positionals.  One table per verb (``FLAGS``)
defines the parser, the help and the shell completions.
"""

from __future__ import annotations

import posix

from pyrunc import errors, fs
from pyrunc.errors import UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, TypeVar

    from pyrunc.launch.create import CreateOptions
    from pyrunc.launch.run import RunOptions
    from pyrunc.log import Log

    Values = dict[str, Any]  # option -> str, bool, int or list[str], as its kind requires
    _Options = TypeVar("_Options", bound=CreateOptions)

# (name, short, metavar, kind, help); kinds: str, bool, int, multi
Flag = tuple[str, str, str, str, str]

ANY_NUMBER = 1 << 30  # no upper bound, in a verb's ARGS


class UnknownOption(UsageError):
    """The option does not exist; ``name`` has no dashes."""

    def __init__(self, name: str, word: str, flags: Sequence[Flag]) -> None:
        from pyrunc import hints

        self.name, self.text = name, f"unknown option {show(word)}"
        names = ["--" + flag[0] for flag in flags]
        super().__init__(self.text + hints.did_you_mean("--" + name if len(name) > 1 else "", names))


class Context:
    """The values of the global options, for the verbs."""

    __slots__ = ("cgroup_manager", "debug", "log", "root", "rootless")

    def __init__(self, values: Values) -> None:
        from pyrunc.log import Log

        format = values.get("log-format", "text")
        if format not in ("text", "json"):
            raise UsageError(f"--log-format {show(format)}: expected text or json")
        if values.get("rootless", "auto") not in ("true", "false", "auto"):
            raise UsageError(f"--rootless {show(values['rootless'])}: expected true, false or auto")
        manager = values.get("cgroup-manager", "cgroupfs")
        if manager not in ("cgroupfs", "systemd", "disabled"):
            raise UsageError(f"--cgroup-manager {show(manager)}: expected cgroupfs, systemd or disabled")
        self.root: str = values.get("root", "")
        self.rootless: str = values.get("rootless", "auto")
        self.debug: bool = values.get("debug", False)
        self.cgroup_manager: str = "systemd" if values.get("systemd-cgroup") else manager
        self.log: Log = Log(values.get("log", ""), format, self.debug)


def parse(argv: Sequence[str], flags: Sequence[Flag], stop_at_first: bool | str) -> tuple[Values, list[str]]:
    """Split arguments into option values and positionals.  Raises UsageError.

    ``stop_at_first``: options end at the first positional, because a command line follows.  If it
    is a name, this applies only if that option was given.
    """
    values: Values = {}
    positionals: list[str] = []
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            return values, positionals + rest
        if not word.startswith("-") or word == "-":
            positionals.append(word)
            if stop_at_first is True or stop_at_first in values:
                return values, positionals + rest
            continue
        name, equals, text = word.lstrip("-").partition("=")
        flag = find(flags, name, word)
        if flag[3] == "bool":
            values[flag[0]] = boolean(word, text) if equals else True
            continue
        if not equals:
            if not rest:
                # podman searches for these words of Go's flag package to detect an option.
                raise UsageError(f"flag needs an argument: {word} {flag[2]}")
            text = rest.pop(0)
        store(values, flag, text)
    return values, positionals


def find(flags: Sequence[Flag], name: str, word: str) -> Flag:
    """Find a flag by its long or short name.  Raises UnknownOption."""
    for flag in flags:
        if name == flag[0] or (flag[1] and name == flag[1]):
            return flag
    raise UnknownOption(name, word, flags)


def boolean(word: str, text: str) -> bool:
    """Parse the value of ``--flag=TEXT`` as Go's strconv.ParseBool does.  Raises UsageError."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise UsageError(f"option {show(word)}: expected true or false")


def store(values: Values, flag: Flag, text: str) -> None:
    """Store the value of an option; the last one wins, except for lists.  Raises UsageError."""
    if flag[3] == "int":
        if not (text.isascii() and text.isdigit() and len(text) < 10):
            raise UsageError(f"option --{flag[0]} {show(text)}: expected a number")
        values[flag[0]] = int(text)
    elif flag[3] == "multi":
        values.setdefault(flag[0], []).append(text)
    else:
        values[flag[0]] = text


def out(text: str) -> int:
    """Write all of ``text`` to stdout.  Raises SysError, for example if the disk is full."""
    try:
        fs.write_all(1, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise errors.SysError("stdout", "write", error.errno or 0) from error
    return 0


def create_options(context: Context, id: str, values: Values) -> CreateOptions:
    """The options of `create`.  Raises UsageError."""
    from pyrunc.launch.create import CreateOptions

    return _filled(CreateOptions(id, context.log), context, values)


def run_options(context: Context, id: str, values: Values) -> RunOptions:
    """The options of `run`.  Raises UsageError."""
    from pyrunc.launch.run import RunOptions

    opts = _filled(RunOptions(id, context.log), context, values)
    opts.detach, opts.keep = values.get("detach", False), values.get("keep", False)
    opts.no_subreaper = values.get("no-subreaper", False)
    return opts


def _filled(opts: _Options, context: Context, values: Values) -> _Options:
    """Fill in the options that `create` and `run` share.  Raises UsageError."""
    from pyrunc import state

    state.check_id(opts.id)  # before a cgroup path is derived from it
    opts.root, opts.cgroup_manager, opts.rootless = context.root, context.cgroup_manager, context.rootless
    opts.bundle = values.get("bundle", "") or posix.getcwd()
    if values.get("config"):
        opts.config = fs.abspath(values["config"])  # relative to the working directory, as in crun
    opts.pid_file, opts.console_socket = values.get("pid-file", ""), values.get("console-socket", "")
    opts.pidfd_socket, opts.preserve_fds = values.get("pidfd-socket", ""), values.get("preserve-fds", 0)
    opts.no_pivot, opts.no_new_keyring = values.get("no-pivot", False), values.get("no-new-keyring", False)
    opts.seccomp_log = values.get("seccomp-log", False)
    return opts
