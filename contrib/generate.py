#!/usr/bin/env python3
"""Write the shell completions and the manual page from pyrunc's tables of options; with ``--check``
only compare.

    .venv/bin/python contrib/generate.py

The tables are GLOBAL_FLAGS of pyrunc/cli.py and FLAGS, USAGE and SUMMARY of each verb: what the
parser and `help` use.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from pyrunc import SPEC_VERSION, VERSION, cli  # noqa: E402
from pyrunc.command import Flag  # noqa: E402

HEAD = "Written by contrib/generate.py from the tables of options; do not edit."
HELP: Flag = ("help", "h", "", "bool", "show help")
STATUSES = """\
0, or 1 after an error, or 3 for an unknown command.
run and exec: the status of the program, 128 + n when signal n ended it; exec: 255 after an error"""

# Words for options with a fixed set of values, as (verb or "", option).
CHOICES = {
    ("", "log-format"): ["text", "json"],
    ("", "cgroup-manager"): ["cgroupfs", "systemd", "disabled"],
    ("", "rootless"): ["true", "false", "auto"],
    ("list", "format"): ["table", "json"],
    ("ps", "format"): ["table", "json"],
    ("seccomp", "libc"): ["glibc", "musl", "none"],
}
# First arguments that are words of their own, and the type of what follows: dir, file, id (and then
# a file), or '' for free text.
SUBCOMMANDS = {
    "images": {"list": "", "pull": "file", "prune": ""},
    "mounts": {"add": "id", "remove": "id"},
    "seccomp": {"explain": "file", "check": "file"},
}
# Verbs without an existing container, so that ids are not completed.
NOT_ON_CONTAINERS = {"create", "run", "plan", "spec", "features", "list"}


def verbs() -> dict[str, tuple[Flag, ...]]:
    """Every verb with its options."""
    return {name: (*cli.load_verb(name).FLAGS, HELP) for name in cli.VERBS}


def kind(verb: str, flag: Flag) -> str:
    """The type of an option's value: dir, file, words, or '' for free text."""
    if (verb, flag[0]) in CHOICES:
        return "words"
    return {"DIR": "dir", "FILE": "file", "PATH": "file"}.get(flag[2], "")


def spelled(flag: Flag) -> list[str]:
    """``--long`` and ``-s``."""
    return [f"--{flag[0]}"] + ([f"-{flag[1]}"] if flag[1] else [])


def takes_container(verb: str) -> bool:
    """Whether the verb's first argument is the id of an existing container."""
    return verb not in {*NOT_ON_CONTAINERS, *SUBCOMMANDS} and " ID" in cli.load_verb(verb).USAGE


def takes_id(verb: str) -> bool:
    """Whether the verb's second argument is the id of an existing container."""
    return "id" in SUBCOMMANDS[verb].values()


# -- bash ------------------------------------------------------------------------------------------

BASH = """\
# bash completion for pyrunc.  {head}

# What follows an option: dir, file, "words ..." or "any"; nothing for options without a value.
_pyrunc_value() {{
    case "$1 $2" in
{values}
    esac
}}

_pyrunc_options() {{
    case "$1" in
{options}
    esac
}}

_pyrunc_ids() {{
    pyrunc ${{1:+--root "$1"}} list --quiet 2>/dev/null
}}

_pyrunc() {{
    local cur=${{COMP_WORDS[COMP_CWORD]}} verb='' root='' last='' first='' word kind count=0 i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${{COMP_WORDS[i]}}
        if [[ $word == '=' ]]; then
            continue
        elif [[ -n $last ]]; then
            [[ $last == --root ]] && root=$word
            last=''
        elif [[ $word == -* ]]; then
            [[ -n $(_pyrunc_value "$verb" "$word") ]] && last=$word
        elif [[ -z $verb ]]; then
            verb=$word
        else
            [[ -z $first ]] && first=$word
            count=$((count + 1))
        fi
    done
    [[ $cur == '=' ]] && cur=''
    if [[ -n $last ]]; then
        kind=$(_pyrunc_value "$verb" "$last")
        case $kind in
            dir) mapfile -t COMPREPLY < <(compgen -d -- "$cur") ;;
            file) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
            words*) mapfile -t COMPREPLY < <(compgen -W "${{kind#words }}" -- "$cur") ;;
        esac
    elif [[ $cur == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_pyrunc_options "$verb")" -- "$cur")
    elif [[ -z $verb ]]; then
        mapfile -t COMPREPLY < <(compgen -W "{verbs} help" -- "$cur")
    elif [[ $verb == help ]]; then
        mapfile -t COMPREPLY < <(compgen -W "{verbs}" -- "$cur")
    elif [[ $verb == kill && $count == 1 ]]; then
        mapfile -t COMPREPLY < <(compgen -A signal -- "$cur" | grep ^SIG)
    elif [[ $count == 1 && ({on_ids}) ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$(_pyrunc_ids "$root")" -- "$cur")
    elif [[ $count -gt 0 ]]; then
        case "$verb $first" in
            {with_files}) mapfile -t COMPREPLY < <(compgen -f -- "$cur") ;;
        esac
    else
        case $verb in
{subcommands}
            {on_containers}) mapfile -t COMPREPLY < <(compgen -W "$(_pyrunc_ids "$root")" -- "$cur") ;;
        esac
    fi
}}

complete -o filenames -F _pyrunc pyrunc
"""


def bash() -> str:
    """The completion for bash."""
    values, options = [], []
    for verb, flags in {"": cli.GLOBAL_FLAGS, **verbs()}.items():
        by_kind: dict[str, list[str]] = {}
        for flag in flags:
            if flag[3] != "bool":
                what = kind(verb, flag) or "any"
                what = " ".join(["words", *CHOICES[verb, flag[0]]]) if what == "words" else what
                by_kind.setdefault(what, []).extend(spelled(flag))
        for what, names in by_kind.items():
            pattern = " | ".join(f"'{verb} {name}'" for name in names)
            values.append(f"        {pattern}) echo '{what}' ;;")
        words = " ".join(name for flag in flags for name in spelled(flag))
        options.append(f"        '{verb}') echo '{words}' ;;")
    return BASH.format(
        head=HEAD,
        values="\n".join(values),
        options="\n".join(options),
        verbs=" ".join(cli.VERBS),
        subcommands="\n".join(
            f"            {verb}) mapfile -t COMPREPLY < <(compgen -W '{' '.join(words)}' -- \"$cur\") ;;"
            for verb, words in SUBCOMMANDS.items()
        ),
        with_files=" | ".join(
            f"'{verb} {word}'" for verb, words in SUBCOMMANDS.items() for word, after in words.items() if after
        ),
        on_ids=" || ".join(f"$verb == {verb}" for verb in SUBCOMMANDS if takes_id(verb)),
        on_containers=" | ".join(verb for verb in cli.VERBS if takes_container(verb)),
    )


# -- zsh -------------------------------------------------------------------------------------------

ZSH = """\
#compdef pyrunc
# zsh completion for pyrunc.  {head}

_pyrunc_ids() {{
    local -a ids root
    (( ${{+opt_args[--root]}} )) && root=(--root ${{opt_args[--root]}})
    ids=(${{(f)"$(pyrunc $root list --quiet 2>/dev/null)"}})
    compadd -a ids
}}

_pyrunc_commands() {{
    local -a commands=(
{commands}
        'help:show help, also of one command'
    )
    _describe command commands
}}

_pyrunc() {{
    local context state state_descr line
    typeset -A opt_args
    _arguments -C \\
{globals}
        '1:command:_pyrunc_commands' \\
        '*::argument:->arguments'
    [[ $state == arguments ]] || return
    case $words[1] in
{cases}
        help) _arguments '1:command:_pyrunc_commands' ;;
    esac
}}

_pyrunc "$@"
"""


def zsh_escape(text: str) -> str:
    """Text inside the brackets of an option's description, in single quotes."""
    for char in "\\[]:":
        text = text.replace(char, "\\" + char)
    return text.replace("'", "'\\''")


def zsh_flag(verb: str, flag: Flag) -> str:
    """One option for _arguments."""
    names = spelled(flag)
    repeat = "*" if flag[3] == "multi" else ""
    action = {"dir": "_files -/", "file": "_files", "words": "", "": " "}[kind(verb, flag)]
    if kind(verb, flag) == "words":
        action = "(" + " ".join(CHOICES[verb, flag[0]]) + ")"
    value = "" if flag[3] == "bool" else f":{zsh_escape(flag[2])}:{action}"
    text = f"[{zsh_escape(flag[4])}]{value}"
    if len(names) == 1:
        return f"'{repeat}{names[0]}{'=' if value else ''}{text}'"
    head = "'*'" if repeat else f"'({' '.join(names)})'"
    return f"{head}{{{','.join(names)}}}'{text}'"


def zsh() -> str:
    """The completion for zsh."""
    cases = []
    for verb, flags in verbs().items():
        lines = [f"                {zsh_flag(verb, flag)} \\" for flag in flags]
        first = "'1:id:_pyrunc_ids'" if takes_container(verb) else "'1:id: '"
        if verb in SUBCOMMANDS:
            second = " '2:id:_pyrunc_ids'" if takes_id(verb) else ""
            first = f"'1:command:({' '.join(SUBCOMMANDS[verb])})'{second} '*:file:_files'"
        lines.append(f"                {first}" + (" '2:signal:_signals'" if verb == "kill" else ""))
        cases.append(f"        {verb})\n            _arguments \\\n" + "\n".join(lines) + "\n            ;;")
    return ZSH.format(
        head=HEAD,
        commands="\n".join(f"        '{verb}:{zsh_escape(cli.load_verb(verb).SUMMARY)}'" for verb in cli.VERBS),
        globals="\n".join(f"        {zsh_flag('', flag)} \\" for flag in cli.GLOBAL_FLAGS),
        cases="\n".join(cases),
    )


# -- fish ------------------------------------------------------------------------------------------

FISH = """\
# fish completion for pyrunc.  {head}

set -g __pyrunc_commands {verbs} help

function __pyrunc_needs_command
    not __fish_seen_subcommand_from $__pyrunc_commands
end

function __pyrunc_ids
    pyrunc list --quiet 2>/dev/null
end

complete -c pyrunc -f
{lines}
"""


def fish_escape(text: str) -> str:
    """Text in single quotes."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def fish_flag(verb: str, flag: Flag) -> str:
    """One option."""
    when = f"__fish_seen_subcommand_from {verb}" if verb else "__pyrunc_needs_command"
    words = ["complete -c pyrunc -n", fish_escape(when), "-l", flag[0]]
    words += ["-s", flag[1]] if flag[1] else []
    if flag[3] != "bool":
        what = kind(verb, flag)
        words.append("-r" if what in ("dir", "file") else "-x")
        words += ["-F"] if what in ("dir", "file") else []
        words += ["-a", fish_escape(" ".join(CHOICES[verb, flag[0]]))] if what == "words" else []
    return " ".join([*words, "-d", fish_escape(flag[4])])


def fish() -> str:
    """The completion for fish."""
    lines = [fish_flag("", flag) for flag in cli.GLOBAL_FLAGS]
    for verb in cli.VERBS:
        summary = fish_escape(cli.load_verb(verb).SUMMARY)
        lines.append(f"complete -c pyrunc -n __pyrunc_needs_command -a {verb} -d {summary}")
    lines.append("complete -c pyrunc -n __pyrunc_needs_command -a help -d 'show help, also of one command'")
    for verb, flags in verbs().items():
        if takes_container(verb):
            lines.append(f"complete -c pyrunc -n '__fish_seen_subcommand_from {verb}' -a '(__pyrunc_ids)'")
        if verb in SUBCOMMANDS:
            when = fish_escape(f"__fish_seen_subcommand_from {verb}")
            lines.append(f"complete -c pyrunc -n {when} -F -a {fish_escape(' '.join(SUBCOMMANDS[verb]))}")
            if takes_id(verb):
                lines.append(f"complete -c pyrunc -n {when} -a '(__pyrunc_ids)'")
        lines += [fish_flag(verb, flag) for flag in flags]
    return FISH.format(head=HEAD, verbs=" ".join(cli.VERBS), lines="\n".join(lines))


# -- manual page -----------------------------------------------------------------------------------

MAN = """\
.\\" {head}
.TH PYRUNC 8 "" "pyrunc {version}" "System Administration"
.SH NAME
pyrunc \\- low-level OCI container runtime
.SH SYNOPSIS
.B pyrunc
.RI [ "global options" ]
.I command
.RI [ options ]
.RI [ arguments ]
.SH DESCRIPTION
.B pyrunc
creates, starts, inspects and removes containers from bundles as the OCI runtime specification {spec} describes them.
Engines such as containerd, CRI\\-O, podman and docker call it; it can be called by hand as well.
.PP
Options are written with one or two dashes, their values behind a space or an equals sign.
.SH GLOBAL OPTIONS
They stand before the command.
{globals}
.SH COMMANDS
{commands}
.SH EXIT STATUS
{statuses}.
.SH DIAGNOSTICS
An error is one line on stderr,
.RB \\(dq "pyrunc: error: TEXT" \\(dq,
and the same text in the file of
.BR \\-\\-log .
A warning goes to that file, and as
.RB \\(dq "pyrunc: warning: TEXT" \\(dq
to stderr when that is a terminal.
Without
.B \\-\\-log
it goes to stderr in any case, but not for
.B create
and
.BR exec ,
whose stderr is the program's, nor for commands whose output is data.
.SH FILES
.TP
.I /run/pyrunc/ID
what is known of a container; as another user than root below $XDG_RUNTIME_DIR
.SH SEE ALSO
.BR runc (8),
.BR crun (1),
.BR ctr (8),
.BR podman (1)
"""


def roff(text: str) -> str:
    """Plain text for roff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text.startswith((".", "'")) else text


def man_flags(flags: Iterable[Flag]) -> str:
    """Options as tagged paragraphs."""
    lines: list[str] = []
    for flag in flags:
        names = ", ".join(f"\\fB{roff(name)}\\fR" for name in reversed(spelled(flag)))
        value = f" \\fI{roff(flag[2])}\\fR" if flag[2] else ""
        lines += [".TP", names + value, roff(flag[4])]
    return "\n".join(lines)


def man_paragraph(text: str) -> list[str]:
    """Prose; lines that start with a space are an example."""
    if text.startswith(" "):
        return [".nf", *map(roff, text.split("\n")), ".fi"]
    return [roff(text.replace("\n", " "))]


def man() -> str:
    """The manual page."""
    commands: list[str] = []
    for verb in cli.VERBS:
        module = cli.load_verb(verb)
        commands.append(f".SS {verb}")
        for usage in module.USAGE.split(" | "):
            commands += [f"\\fBpyrunc\\fR {roff(usage)}", ".br"]
        commands += [".PP", roff(module.SUMMARY[0].upper() + module.SUMMARY[1:]) + "."]
        if module.FLAGS:
            commands.append(man_flags(module.FLAGS))
        for paragraph in getattr(module, "DETAILS", ()):
            commands += [".PP", *man_paragraph(paragraph)]
    return MAN.format(
        head=HEAD,
        version=VERSION,
        spec=SPEC_VERSION,
        globals=man_flags(cli.GLOBAL_FLAGS),
        commands="\n".join(commands),
        statuses=roff(STATUSES),
    )


FILES = {
    "completions/pyrunc.bash": bash,
    "completions/_pyrunc": zsh,
    "completions/pyrunc.fish": fish,
    "man/pyrunc.8": man,
}


def main(argv: Sequence[str]) -> int:
    """Write or compare every file; returns 1 if ``--check`` finds a difference."""
    stale = []
    for name, make in FILES.items():
        path, text = HERE / name, make()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if "--check" not in argv:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    if stale and "--check" in argv:
        print(f"not up to date: {', '.join(stale)}; run .venv/bin/python contrib/generate.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
