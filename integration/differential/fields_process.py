"""Strategies for `process`: users, programs, environments, capabilities, limits, terminals,
scheduling."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from integration.config import DEFAULT_CAPS, PATH_ENV
from integration.differential.context import Context, Draw
from integration.differential.model import REMOVE, Feature, words
from integration.machine import CAP_BIT

UIDS = (0, 1000, 1001, 1002, 4242, 65534)
CWDS = words(
    """
        / /data /data/nested /home/user /link /absolute /missing /missing/deep /tmp /proc /dev/shm /existing /root
        /bin/ /data/../mnt /loop
        """
)
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
MORE_CAPS = (
    "CAP_SYS_ADMIN",
    "CAP_NET_RAW",
    "CAP_NET_ADMIN",
    "CAP_DAC_OVERRIDE",
    "CAP_SETPCAP",
    "CAP_SYS_PTRACE",
    "CAP_SYSLOG",
    "CAP_SYS_CHROOT",
    "CAP_FOWNER",
)


def user(draw: Draw, context: Context) -> Feature:
    """Ids, groups and umask."""
    who: dict[str, Any] = {"uid": draw(st.sampled_from(UIDS)), "gid": draw(st.sampled_from((0, 5, 1000, 2000, 4242)))}
    if draw(st.booleans()):
        who["additionalGids"] = draw(st.lists(st.sampled_from((0, 5, 10, 1000, 2000, 60000)), max_size=4))
    if draw(st.integers(0, 2)) == 0:
        who["umask"] = draw(st.sampled_from((0, 0o022, 0o027, 0o077, 0o777)))
    return Feature("process.user", [["/process/user", who]], ask=["path /home/user", "path /root"])


def program(draw: Draw, context: Context) -> Feature:
    """Arguments: looked up or absolute, present or missing, executable or not."""
    first = draw(
        st.sampled_from(
            words(
                """
        inside other /bin/inside /bin/link /bin/far bin/inside ./bin/inside /bin/../bin/inside //bin/inside missing
        /missing /bin/plain plain /bin/directory directory /bin /bin/noformat noformat /bin/script script
        /bin/badscript badscript /bin/empty /bin/private private /bin/broken /loop /existing/x /dev/null
        /proc/self/exe nested/x
        """
            )
        )
    )
    more = draw(st.lists(st.sampled_from(("", "a", "two words", "-x", "--", "ü", "*", "$HOME")), max_size=3))
    return Feature("process.args", [["/process/args", [first, *more]]])


def environment(draw: Draw, context: Context) -> Feature:
    """Variables: duplicates, empty ones, HOME and PATH of every kind."""
    path = draw(
        st.sampled_from(
            (
                PATH_ENV,
                "PATH=",
                "PATH=/bin",
                "PATH=/nowhere:/usr/local/bin:/bin",
                "PATH=:/bin",
                "PATH=bin",
                "PATH=/bin/inside:/bin",
                None,
                "PATH=/usr/bin::",
            )
        )
    )
    others = draw(
        st.lists(
            st.sampled_from(
                (
                    "A=1",
                    "A=2",
                    "A=",
                    "B=with = sign",
                    "C=ü",
                    "HOME=/somewhere",
                    "HOME=",
                    "TERM=xterm",
                    "TERM=dumb",
                    "EMPTY=",
                    "D=two\nlines",
                    "LISTEN_FDS=9",
                    "NOTIFY_SOCKET=/x",
                    "_=x",
                    "LD_PRELOAD=/x.so",
                    "PATH=/second:/bin",
                )
            ),
            max_size=6,
        )
    )
    env = draw(st.permutations(([path] if path else []) + others))
    edits: list[list[Any]] = [["/process/env", env]]
    if draw(st.integers(0, 9)) == 0:
        edits = [["/process/env", REMOVE]]
    if draw(st.booleans()):
        edits.append(["/process/args/0", draw(st.sampled_from(("inside", "other")))])
    return Feature("process.env", edits)


def directory(draw: Draw, context: Context) -> Feature:
    """The working directory."""
    return Feature("process.cwd", [["/process/cwd", draw(st.sampled_from(CWDS))]], ask=["path /missing"])


def capabilities(draw: Draw, context: Context) -> Feature:
    """The five sets, each within or outside what the kernel and the specification allow."""
    pool = draw(st.lists(st.sampled_from((*DEFAULT_CAPS, *MORE_CAPS)), max_size=8, unique=True))
    shape = draw(st.sampled_from(("same", "subsets", "free", "none", "absent", "all")))
    if shape == "absent":
        return Feature("process.capabilities.absent", [["/process/capabilities", REMOVE]])
    if shape == "all":
        everything = [name for name in CAP_BIT if name != "CAP_SYS_RESOURCE"]
        return Feature("process.capabilities.all", [["/process/capabilities", dict.fromkeys(SETS[:3], everything)]])
    sets: dict[str, Any] = {}
    if shape == "same":
        sets = dict.fromkeys(SETS, pool)
    elif shape == "subsets":
        sets = {"bounding": pool, "permitted": pool}
        sets["effective"] = [name for name in pool if draw(st.booleans())]
        sets["inheritable"] = [name for name in pool if draw(st.booleans())]
        sets["ambient"] = [name for name in sets["inheritable"] if draw(st.booleans())]
    elif shape == "free":
        sets = {
            kind: draw(st.lists(st.sampled_from(pool), max_size=5, unique=True))
            for kind in SETS
            if pool and draw(st.booleans())
        }
    return Feature(f"process.capabilities.{shape}", [["/process/capabilities", sets]])


def privileges(draw: Draw, context: Context) -> Feature:
    """noNewPrivileges off or unset."""
    return Feature("process.noNewPrivileges", [["/process/noNewPrivileges", draw(st.sampled_from((False, REMOVE)))]])


def limits(draw: Draw, context: Context) -> Feature:
    """Resource limits up to the caller's own, each type once."""
    pool = {
        "RLIMIT_NOFILE": (64, 1024, 4096),
        "RLIMIT_NPROC": (200, 5000),
        "RLIMIT_CORE": (0, 1 << 20, 2**64 - 1),
        "RLIMIT_STACK": (1 << 20, 8 << 20),
        "RLIMIT_CPU": (60, 600),
        "RLIMIT_FSIZE": (1 << 24, 1 << 30),
        "RLIMIT_MEMLOCK": (0, 65536),
        "RLIMIT_SIGPENDING": (100, 1000),
        "RLIMIT_MSGQUEUE": (0, 65536),
        "RLIMIT_AS": (1 << 30, 1 << 40),
        "RLIMIT_DATA": (1 << 28, 1 << 32),
        "RLIMIT_RTTIME": (1000, 2**64 - 1),
        "RLIMIT_NICE": (0,),
        "RLIMIT_RTPRIO": (0,),
        "RLIMIT_LOCKS": (10, 2**64 - 1),
        "RLIMIT_RSS": (1 << 20, 2**64 - 1),
    }
    found = []
    for kind in draw(st.lists(st.sampled_from(sorted(pool)), min_size=1, max_size=4, unique=True)):
        hard = draw(st.sampled_from(pool[kind]))
        found.append({"type": kind, "hard": hard, "soft": draw(st.sampled_from((hard, hard // 2)))})
    return Feature("process.rlimits", [["/process/rlimits", found]])


def score(draw: Draw, context: Context) -> Feature:
    """oomScoreAdj, which cannot be lowered without CAP_SYS_RESOURCE."""
    return Feature("process.oomScoreAdj", [["/process/oomScoreAdj", draw(st.sampled_from((0, 1, 100, 500, 1000)))]])


def terminal(draw: Draw, context: Context) -> Feature:
    """A terminal, with or without a size."""
    context.terminal = True
    edits: list[list[Any]] = [["/process/terminal", True]]
    if draw(st.booleans()):
        edits.append(
            [
                "/process/consoleSize",
                {"height": draw(st.sampled_from((1, 24, 50))), "width": draw(st.sampled_from((1, 80, 200)))},
            ]
        )
    return Feature("process.terminal", edits, ask=["path /dev/console", "path /dev/pts"])


def console_size(draw: Draw, context: Context) -> Feature:
    """A size without a terminal, which is ignored."""
    return Feature("process.consoleSize", [["/process/consoleSize", {"height": 10, "width": 20}]])


def scheduling(draw: Draw, context: Context) -> Feature:
    """Scheduler and I/O priority."""
    edits: list[list[Any]] = []
    if draw(st.booleans()):
        edits.append(
            [
                "/process/ioPriority",
                {
                    "class": draw(st.sampled_from(("IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"))),
                    "priority": draw(st.sampled_from((0, 4, 7))),
                },
            ]
        )
    if draw(st.booleans()) or not edits:
        edits.append(
            [
                "/process/scheduler",
                draw(
                    st.sampled_from(
                        (
                            {"policy": "SCHED_OTHER", "nice": 5},
                            {"policy": "SCHED_BATCH", "nice": 10},
                            {"policy": "SCHED_BATCH"},
                            {"policy": "SCHED_IDLE"},
                            {"policy": "SCHED_OTHER", "nice": 19, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
                            {"policy": "SCHED_RR", "priority": 5},
                            {"policy": "SCHED_FIFO", "priority": 1},
                        )
                    )
                ),
            ]
        )
    return Feature("process.scheduling", edits)


def affinity(draw: Draw, context: Context) -> Feature:
    """CPUs for exec."""
    return Feature(
        "process.execCPUAffinity",
        [["/process/execCPUAffinity", {"initial": "0", "final": draw(st.sampled_from(("0", "1", "0-1")))}]],
    )


def caller(draw: Draw, context: Context) -> Feature:
    """Settings of the calling process that must not reach the container."""
    chosen: dict[str, Any] = draw(
        st.sampled_from(
            (
                {"umask": 0o077},
                {"umask": 0},
                {"env": ["SECRET=1", "HOME=/root"]},
                {"descriptors": 3},
                {"ignore": [1, 2, 13]},
                {"ignore": [13, 15]},
                {"block": [10, 12, 15]},
                {"umask": 0o027, "descriptors": 1, "env": ["A=caller"]},
            )
        )
    )
    return Feature(f"caller.{'+'.join(sorted(chosen))}", caller=chosen)
