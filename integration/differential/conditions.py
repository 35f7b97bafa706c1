"""Conditions of entries for single peers, and names of facts that several of them share."""

from __future__ import annotations

import re

from integration.differential.compare import ABSENT
from integration.differential.entries import Pair

STDIO = r"(?:fds|fd_flags|stdio) \d.*"


def without_duplicates(pair: Pair) -> bool:
    """The environment of a hook; for duplicate names only the last entry."""
    if not isinstance(pair.theirs, list):
        return False
    last = {entry.partition("=")[0]: entry for entry in pair.ours}
    return sorted(last.values()) == sorted(pair.theirs)


def contradict(options: set[str]) -> bool:
    pairs = ({"ro", "rw"}, {"exec", "noexec"}, {"dev", "nodev"}, {"suid", "nosuid"}, {"atime", "noatime"})
    return any(pair <= options for pair in pairs) or "lazytime" in options


def of_userns(ours: object, theirs: object) -> bool:
    """A device bound in a user namespace: theirs is not noexec, and is a slave mount."""
    return (ours, theirs) == (
        "noexec,nosuid,relatime,rw",
        "nosuid,relatime,rw",
    ) or f"{ours} master:host".strip() == theirs


def caller_umask(pair: Pair) -> bool:
    """A directory or file of the root filesystem that lacks bits of the caller's umask."""
    return "umask" in pair.case.caller


def cap_flag(pair: Pair) -> bool:
    return any(command[0] == "exec" and "--cap" in command[1] for command in pair.case.commands)


def exec_env(pair: Pair) -> bool:
    return any(
        command[0] == "exec" and len(command) > 3 and not command[3].get("env") for command in pair.case.commands
    )


def before(pair: Pair, *verbs: str) -> bool:
    """Whether one of these commands precedes the step of the fact."""
    match = re.match(r"step (\d+) ", pair.fact)
    return any(command[0] in verbs for command in pair.case.commands[: int(match[1]) + 1 if match else None])


def unopened_terminal(pair: Pair) -> bool:
    """Whether pyrunc sends no terminal to a console socket."""
    return pair.ours == ABSENT and "--console-socket" in str(pair.case.commands)


def bind_sources(pair: Pair) -> set[str]:
    """The sources of all binds."""
    return {
        str(entry.get("source"))
        for entry in pair.config["mounts"]
        if {"bind", "rbind"} & set(entry.get("options") or ())
    }


def private_pids(pair: Pair) -> bool:
    """Whether the container has a pid namespace of its own."""
    return any(entry["type"] == "pid" and not entry.get("path") for entry in pair.config["linux"]["namespaces"])


def to(pair: Pair, *destinations: str) -> bool:
    return any(entry["destination"] in destinations for entry in pair.config["mounts"])


def less(pair: Pair) -> bool:
    """A command that fails on both but got less far on the peer, for a reason of its own."""
    theirs, ours = pair.theirs, pair.ours
    return pair.failed and (theirs == ABSENT or (isinstance(theirs, list | dict) and set(theirs) < set(ours)))


def to_place(pair: Pair) -> bool:
    """Whether the path of the fact is in a mount of the config."""
    path = pair.fact.partition(" path ")[2].split(" ")[0]
    return any(f"{path}/".startswith(f"/{entry['destination'].strip('/')}/") for entry in pair.config["mounts"])


LESS = r"hooks order|hook \S+ is there|rootfs \S+|window .*|left sources|(?:out|terminal) .* is there"
RUN = r"step \d+ (?:create|run|start) rc"
