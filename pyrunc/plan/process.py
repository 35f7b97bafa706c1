"""process: terminal, working directory, limits, ids, and finding and executing the program."""

from __future__ import annotations

from _struct import pack

from pyrunc.plan import NO_SLOT
from pyrunc.plan.ops import (
    P_CHDIR_TRY,
    P_CONSOLE_MOUNT_CONSOLE,
    P_EXECVE_LISTEN_PID,
    P_EXECVE_SET_HOME,
    P_FIND_EXE_TRY,
    P_OOM_SCORE_BEST_EFFORT,
    P_WAIT_START_SOCKET,
)
from pyrunc.spec.names import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.plan import Plan
    from pyrunc.plan.context import Context

# PER_* of personality(2)
PERSONALITIES = {"LINUX": 0x0, "LINUX32": 0x8}
DEFAULT_UMASK = 0o22  # as in runc and crun, although config.md would keep the caller's
RLIMIT_CORE = RLIMITS.index("RLIMIT_CORE")
RLIMIT_NOFILE = RLIMITS.index("RLIMIT_NOFILE")
RLIMIT_NPROC = RLIMITS.index("RLIMIT_NPROC")
KEEP_GROUPS = "run.oci.keep_original_groups"  # podman run --group-add keep-groups


def oom_score_adj(ctx: Context) -> None:
    """OOM_SCORE; without the field the caller's value stays (config.md).

    A user may not lower the score, and engines request it all the same.
    """
    score = ctx.process.get("oomScoreAdj")
    if score is not None:
        optional = ctx.facts.euid != 0 or (score < 0 and ctx.facts.rootless)
        ctx.plan.oom_score("/process/oomScoreAdj", policy=P_OOM_SCORE_BEST_EFFORT if optional else 0, value=score)


def terminal(ctx: Context, policy: int = 0) -> None:
    """CONSOLE, or without a terminal REOPEN_NULL: stdio on the container's own /dev/null."""
    plan, process = ctx.plan, ctx.process
    if process.get("terminal"):
        if not ctx.options.console:
            plan.refuse("/process/terminal", "a console socket to send the terminal to", "none")
        size = process.get("consoleSize", {})
        plan.console(
            "/process/terminal",
            policy=policy,
            fd=plan.fd("console", "", "/process/terminal"),
            rows=size.get("height", 0),
            cols=size.get("width", 0),
            uid=ctx.user.get("uid", 0),
            gid=ctx.user.get("gid", 0),
        )
    elif ctx.fills_dev:
        plan.reopen_null("(default)")


def mounted_terminal(ctx: Context) -> None:
    """`terminal` for `create`: the first terminal of a container is also its /dev/console."""
    terminal(ctx, P_CONSOLE_MOUNT_CONSOLE if ctx.fills_dev else 0)


def make_working_directory(ctx: Context) -> None:
    """MAKE_CWD: a missing working directory is created, as in runc."""
    cwd = ctx.process.get("cwd")
    if cwd and cwd != "/":
        ctx.plan.make_cwd("/process/cwd", cwd=cwd)


def personality(ctx: Context) -> None:
    """PERSONALITY."""
    wanted = ctx.linux.get("personality")
    if wanted:
        ctx.plan.personality("/linux/personality", persona=PERSONALITIES[wanted["domain"]])


def umask(ctx: Context) -> None:
    """UMASK."""
    mask = ctx.user.get("umask")
    if mask is None:
        ctx.plan.umask("(default)", mask=DEFAULT_UMASK)
    else:
        ctx.plan.umask("/process/user/umask", mask=mask)


def stdio_owner(ctx: Context) -> None:
    """STDIO_OWNER, so that the program can open /dev/stdout; CONSOLE does it for a terminal."""
    if not ctx.process.get("terminal"):
        ctx.plan.stdio_owner("/process/user", uid=ctx.user.get("uid", 0), gid=ctx.user.get("gid", 0))


def find_home(ctx: Context) -> None:
    """FIND_HOME: without HOME in the environment, init sets it from /etc/passwd."""
    if ctx.process and ctx.env.find_home:
        ctx.plan.find_home("/process/user/uid", uid=ctx.user.get("uid", 0))


def rlimits(ctx: Context) -> None:
    """For the host side, which calls prlimit(2) at SYNC_READY."""
    for index, entry in enumerate(ctx.process.get("rlimits", ())):
        limit = (RLIMITS.index(entry["type"]), entry["soft"], entry["hard"], f"/process/rlimits/{index}")
        ctx.plan.rlimits.append(limit)


def groups(ctx: Context) -> None:
    """GROUPS, even for none: the caller's must not be inherited (CVE-2022-2989)."""
    gids = ctx.user.get("additionalGids", ())
    if KEEP_GROUPS not in ctx.config.get("annotations", ()):
        ctx.plan.groups("/process/user/additionalGids", gids=pack(f"={len(gids)}I", *gids))


def ids(ctx: Context) -> None:
    """SET_IDS."""
    uid, gid = ctx.user.get("uid", 0), ctx.user.get("gid", 0)
    ctx.plan.set_ids("/process/user", uid=uid, gid=gid)


def process_limit(ctx: Context) -> None:
    """RLIMIT: RLIMIT_NPROC of `exec` a second time, because CLONE_INIT would exceed the limit."""
    plan: Plan = ctx.plan
    for number, soft, hard, origin in plan.rlimits:
        if number == RLIMIT_NPROC:
            plan.rlimit(origin, resource=number, soft=soft, hard=hard)


def locate(ctx: Context, *, retried: bool = False) -> None:
    """CHDIR and FIND_EXE, with the ids of the program: if either is missing, `create` fails.

    ``retried``: a failure is not an error yet, because the same steps follow again.
    """
    plan, process = ctx.plan, ctx.process
    if process:
        plan.chdir("/process/cwd", policy=P_CHDIR_TRY if retried else 0, cwd=process["cwd"])
        policy = P_FIND_EXE_TRY if retried else 0
        plan.find_exe("/process/args/0", policy=policy, file=process["args"][0], path=ctx.env.path)


def wait_for_start(ctx: Context) -> None:
    """WAIT_START, on the fifo that `start` opens, or on the socket of `run`."""
    plan = ctx.plan
    if ctx.options.wait == "socket":
        plan.wait_start("(default)", policy=P_WAIT_START_SOCKET, start_fd=NO_SLOT, error_fd=NO_SLOT)
    else:
        start = plan.fd("start", "", "(default)")
        plan.wait_start("(default)", start_fd=start, error_fd=plan.fd("error", "", "(default)"))


def execute(ctx: Context) -> None:
    """EXECVE, the last step; a container without a process ends instead (runtime.md)."""
    env = ctx.env
    if ctx.process:
        policy = (P_EXECVE_SET_HOME if env.find_home else 0) | (P_EXECVE_LISTEN_PID if env.listen else 0)
        ctx.plan.execve("/process/args/0", policy=policy, args=ctx.process["args"], env=env.entries)
