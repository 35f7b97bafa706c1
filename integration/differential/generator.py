"""Draw cases from a seed: valid configs with a few features each, and sequences of commands in any
order.

Case N of a seed is always the same, whatever else is drawn: cases are drawn in batches, each with
its own seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from integration.differential import fields_hooks, fields_linux, fields_mounts, fields_process
from integration.differential.context import Context, Draw
from integration.differential.model import CONSOLE, PID_FILE, REMOVE, Case, Feature, words

# Small, because hypothesis draws only the first ten examples independently and then varies earlier
# ones.
BATCH = 8
Builder = Callable[[Draw, Context], Feature | None]

# Features that others depend on come first.
_FOUNDATIONS: tuple[tuple[Builder, int], ...] = (
    (fields_linux.namespaces, 12),
    (fields_linux.userns, 12),
    (fields_linux.joined_userns, 3),
    (fields_linux.time, 4),
    (fields_process.terminal, 8),
)
_BUILDERS: tuple[tuple[Builder, int], ...] = (
    (fields_mounts.bind, 14),
    (fields_mounts.bind_host, 4),
    (fields_mounts.tmpfs, 6),
    (fields_mounts.below, 3),
    (fields_mounts.special, 4),
    (fields_mounts.cgroup, 4),
    (fields_mounts.overlay, 3),
    (fields_mounts.default_changed, 4),
    (fields_mounts.idmapped, 2),
    (fields_process.user, 8),
    (fields_process.program, 6),
    (fields_process.environment, 6),
    (fields_process.directory, 5),
    (fields_process.capabilities, 8),
    (fields_process.privileges, 4),
    (fields_process.limits, 5),
    (fields_process.score, 2),
    (fields_process.console_size, 1),
    (fields_process.scheduling, 3),
    (fields_process.affinity, 1),
    (fields_process.caller, 4),
    (fields_linux.devices, 6),
    (fields_linux.device_rules, 4),
    (fields_linux.paths, 6),
    (fields_linux.root, 6),
    (fields_linux.sysctl, 4),
    (fields_linux.names, 2),
    (fields_linux.seccomp, 6),
    (fields_linux.seccomp_allow, 3),
    (fields_linux.cgroups_path, 2),
    (fields_linux.unified, 1),
    (fields_linux.personality, 2),
    (fields_linux.memory_policy, 1),
    (fields_linux.some_annotations, 2),
    (fields_linux.version, 2),
    (fields_hooks.hooks, 6),
    (fields_hooks.failing, 3),
)
_SEVERAL = {fields_mounts.bind, fields_mounts.tmpfs}  # may be drawn more than once


def _weighted(choices: tuple[tuple[Builder, int], ...]) -> list[Builder]:
    return [builder for builder, weight in choices for _ in range(weight)]


def _features(draw: Draw, context: Context, most: int) -> list[Feature]:
    found: list[Feature] = []
    for builder, weight in _FOUNDATIONS:
        if draw(st.integers(0, 99)) < weight:
            feature = builder(draw, context)
            if feature and not (builder is fields_linux.joined_userns and "userns" in context.used):
                found.append(feature)
                context.used.add(builder.__name__)
    pool = _weighted(_BUILDERS)
    for builder in draw(st.lists(st.sampled_from(pool), min_size=1, max_size=most)):
        if builder.__name__ in context.used and builder not in _SEVERAL:
            continue
        context.used.add(builder.__name__)
        feature = builder(draw, context)
        if feature:
            found.append(feature)
    return found


def _flags(draw: Draw, context: Context) -> list[str]:
    flags = ["--console-socket", CONSOLE] if context.terminal else []
    extra = draw(st.sampled_from(("", "", "", "", "", "", "--no-pivot", "--no-new-keyring", "--preserve-fds=2")))
    return [*flags, extra] if extra else flags


def _drive(draw: Draw, context: Context) -> tuple[list[list[Any]], list[Feature]]:
    """How a config is run: in one command or step by step, with or without an exec."""
    how = draw(st.sampled_from(("create", "create", "create", "run", "run", "detach", "exec", "exec")))
    flags = _flags(draw, context)
    features = [Feature("flags.preserve-fds", caller={"descriptors": 2})] if "--preserve-fds=2" in flags else []
    if how == "run":
        return [["run", [flag for flag in flags if flag not in ("--console-socket", CONSOLE)]]], features
    if how == "detach":
        return [["run", ["--detach", *flags]], ["wait"], ["delete"]], features
    if how == "create":
        return [["create", flags], ["start"], ["wait"], ["delete"]], features
    features.append(Feature("command.exec", [["/process/args", ["/bin/inside", "wait"]]]))
    second = _exec(draw)
    if features and draw(st.booleans()):
        second[1] = ["--preserve-fds=1", *second[1]]
    return [["run", ["--detach", *flags]], second, ["kill", "KILL"], ["delete"]], features


def _exec(draw: Draw) -> list[Any]:
    """A file for --process, or flags and arguments."""
    if draw(st.booleans()):
        return ["exec", [], [], _exec_process(draw)]
    return ["exec", *_exec_flags(draw)]


def _exec_process(draw: Draw) -> dict[str, Any]:
    process: dict[str, Any] = {
        "args": draw(
            st.sampled_from(
                (["/bin/inside"], ["inside", "a"], ["missing"], ["/bin/plain"], ["/bin/inside", "exit", "7"])
            )
        )
    }
    process["cwd"] = draw(st.sampled_from(("/", "/data", "/missing", "/home/user")))
    process["env"] = draw(
        st.sampled_from((["PATH=/bin"], ["A=1", "A=2", "PATH=/bin:/usr/bin"], ["PATH=/bin", "HOME="], []))
    )
    process["user"] = draw(
        st.sampled_from(
            (
                {"uid": 0, "gid": 0},
                {"uid": 1000, "gid": 1000, "additionalGids": [5, 2000]},
                {"uid": 4242, "gid": 0, "umask": 0o077},
            )
        )
    )
    if draw(st.booleans()):
        process["capabilities"] = draw(
            st.sampled_from(
                (
                    {},
                    {"bounding": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"]},
                    {k: ["CAP_NET_RAW"] for k in ("bounding", "effective", "permitted", "inheritable", "ambient")},
                )
            )
        )
    if draw(st.integers(0, 3)) == 0:
        process["noNewPrivileges"] = True
    if draw(st.integers(0, 3)) == 0:
        process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 128, "hard": 256}]
    if draw(st.integers(0, 3)) == 0:
        process["oomScoreAdj"] = 321
    if draw(st.integers(0, 5)) == 0:
        process["scheduler"] = {"policy": "SCHED_BATCH"}
    if draw(st.integers(0, 5)) == 0:
        process["ioPriority"] = {"class": "IOPRIO_CLASS_IDLE", "priority": 0}
    return process


def _exec_flags(draw: Draw) -> list[Any]:
    flags: list[str] = []
    for chosen in draw(
        st.lists(
            st.sampled_from(
                (
                    ["--user", "1000:1000"],
                    ["--user", "1000"],
                    ["--cwd", "/data"],
                    ["--cwd", "/missing"],
                    ["--env", "A=exec"],
                    ["--env", "HOME=/x"],
                    ["--cap", "CAP_NET_RAW"],
                    ["--no-new-privs"],
                    ["--cap", "CAP_SYS_ADMIN"],
                    ["--detach", "--pid-file", PID_FILE],
                    ["--additional-gids", "2000"],
                    ["--cgroup", "/"],
                    ["--cgroup", "missing"],
                    ["--tty"],
                    ["--tty", "--console-socket", CONSOLE],
                    ["--ignore-paused"],
                )
            ),
            max_size=3,
            unique_by=lambda flag: flag[0],
        )
    ):
        flags += chosen
    argv = draw(
        st.sampled_from(
            (
                ["/bin/inside"],
                ["inside", "b c"],
                ["missing"],
                ["/bin/directory"],
                ["/bin/inside", "exit", "3"],
                ["other"],
            )
        )
    )
    return [flags, argv]


@st.composite
def configs(draw: Draw) -> Case:
    """A config with a few features, run once."""
    context = Context()
    features = _features(draw, context, 7)
    commands, more = _drive(draw, context)
    return Case("", [*features, *more], commands)


_SIGNALS = (
    "KILL",
    "TERM",
    "SIGTERM",
    "USR1",
    "SIGUSR2",
    "10",
    "HUP",
    "0",
    "WINCH",
    "SIGRTMIN+1",
    "CONT",
    "9",
    "NOSUCH",
    "INT",
    "term",
    "STOP",
)
_UPDATES: tuple[list[Any], ...] = (
    ["--pids-limit", "100"],
    ["--memory", "64m"],
    ["--cpu-share", "512"],
    [],
    [{}],
    [{"pids": {"limit": 100}}],
    [{"memory": {"limit": 64 << 20}, "cpu": {"shares": 512}}],
)


@st.composite
def sequences(draw: Draw) -> Case:
    """Commands in legal and illegal order on a container whose program waits for signals."""
    context = Context(lasting=True)
    features = _features(draw, context, 2) if draw(st.integers(0, 2)) == 0 else []
    features = [one for one in features if not one.kind.startswith(("process.args", "process.env", "process.terminal"))]
    program = draw(
        st.sampled_from(
            (
                ["/bin/inside", "wait"],
                ["/bin/inside", "wait"],
                ["/bin/inside", "wait-fork"],
                ["/bin/inside", "exit", "5"],
            )
        )
    )
    features.append(Feature(f"program.{program[-1]}", [["/process/args", program]]))
    if draw(st.integers(0, 4)) == 0 and "namespaces" not in context.used:
        features.append(Feature("namespaces.pid.host", [["/linux/namespaces/0", REMOVE]]))
    if draw(st.integers(0, 3)) == 0:
        features.append(fields_hooks.hooks(draw, context))
    first = draw(st.sampled_from((["create"], ["create"], ["create"], ["run", ["--detach"]], None)))
    commands: list[list[Any]] = [first] if first else []
    if first == ["create"] and draw(st.integers(0, 3)):
        commands.append(["start"])
    for _ in range(draw(st.integers(1, 7))):
        commands.append(_command(draw))
    return Case("", features, commands)


def _command(draw: Draw) -> list[Any]:
    name = draw(
        st.sampled_from(
            words(
                """
        create start exec exec exec kill kill kill kill pause resume update delete delete delete-force ps list
        init-dies cgroup-gone wait run
        """
            )
        )
    )
    if name == "exec":
        return _exec(draw)
    if name == "kill":
        all_ = draw(st.sampled_from(([], [], [], ["--all"])))
        return [
            "kill",
            *draw(st.sampled_from(([], [draw(st.sampled_from(_SIGNALS))], [draw(st.sampled_from(_SIGNALS))]))),
            *all_,
        ]
    if name == "delete-force":
        return ["delete", "--force"]
    if name == "update":
        return ["update", *draw(st.sampled_from(_UPDATES))]
    if name == "run":
        return ["run", ["--detach"]]
    return [name]


def _seed(seed: int, kind: str, batch: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {kind} {batch}".encode()).digest()[:8], "big")


def batch(seed: int, kind: str, number: int) -> list[Case]:
    """A batch of cases; `kind` is "config" or "sequence"."""
    found: list[Case] = []

    @hypothesis.seed(_seed(seed, kind, number))
    @hypothesis.settings(
        max_examples=BATCH + 1,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(configs() if kind == "config" else sequences())
    def collect(case: Case) -> None:
        found.append(case)

    collect()
    found = found[1 : BATCH + 1]  # the first one is always the simplest
    assert len(found) == BATCH
    return [
        Case(f"{kind} {number * BATCH + index} of seed {seed}", case.features, case.commands)
        for index, case in enumerate(found)
    ]


def case(seed: int, kind: str, number: int) -> Case:
    """The case with this number."""
    return batch(seed, kind, number // BATCH)[number % BATCH]


__all__ = ["BATCH", "REMOVE", "batch", "case", "configs", "sequences"]
