"""process: environment, limits, terminal, ids, and finding and executing the program."""

from __future__ import annotations

from _struct import pack

from pyrunc.fs import salted
from pyrunc.plan.ops import P_CHDIR_TRY, P_EXECVE_LISTEN_PID, P_EXECVE_SET_HOME, P_FIND_EXE_TRY
from pyrunc.spec.names import RLIMITS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan import Plan, create, exec

    Options = create.Options | exec.Options

# PER_* of personality(2)
PERSONALITIES = {"LINUX": 0x0, "LINUX32": 0x8}
DEFAULT_UMASK = 0o22  # callers rely on it (runc, crun), although config.md would leave the caller's alone
DEFAULT_PATH = "/bin:/usr/bin"  # what execvp(3) searches without a PATH
RLIMIT_NPROC = RLIMITS.index("RLIMIT_NPROC")
KEEP_GROUPS = "run.oci.keep_original_groups"  # podman run --group-add keep-groups


class Environment:
    """The program's environment as far as the host side can know it."""

    __slots__ = ("entries", "find_home", "listen", "path")

    def __init__(self, entries: list[str], path: str, find_home: bool, listen: bool) -> None:
        self.entries = entries  # NAME=value
        self.path = path  # where the program is looked up
        self.listen = listen  # LISTEN_PID has to be the pid that only init will know
        self.find_home = find_home  # HOME has to come from the container's /etc/passwd


def environment(process: dict[str, Any], options: Options) -> Environment:
    """process.env: of duplicates the last one stays, at its place; nothing of the host's comes in."""
    last: dict[str, str] = {}  # salted name -> entry
    extra = [f"LISTEN_FDS={options.listen_fds}", "LISTEN_PID=1"] if options.listen_fds else []
    if options.notify:
        extra.append("NOTIFY_SOCKET=/run/notify/notify.sock")
    for entry in (process.get("env") or []) + extra:
        name = salted(entry.partition("=")[0])
        last.pop(name, None)
        last[name] = entry
    find_home = last.get(salted("HOME")) in (None, "HOME=")
    if find_home:
        last.pop(salted("HOME"), None)
    path = last.get(salted("PATH"), "PATH=" + DEFAULT_PATH)[5:]
    return Environment(list(last.values()), path, find_home, bool(options.listen_fds))


def _ids(process: dict[str, Any]) -> tuple[int, int]:
    user = process.get("user") or {}
    return user.get("uid") or 0, user.get("gid") or 0


def terminal(plan: Plan, process: dict[str, Any], options: Options, set_up_dev: bool, policy: int) -> None:
    """CONSOLE with this policy, or what stands in for it: stdio on the container's own /dev/null."""
    if process.get("terminal"):
        if not options.console:
            plan.refuse("/process/terminal", "a console socket to send the terminal to", "none")
        size = process.get("consoleSize") or {}
        uid, gid = _ids(process)
        plan.console(
            "/process/terminal",
            policy=policy,
            fd=plan.fd("console", "", "/process/terminal"),
            rows=size.get("height") or 0,
            cols=size.get("width") or 0,
            uid=uid,
            gid=gid,
        )
    elif set_up_dev:
        plan.reopen_null("(default)")


def make_cwd(plan: Plan, process: dict[str, Any]) -> None:
    """A missing working directory is made, as runc does."""
    cwd = process.get("cwd")
    if cwd and cwd != "/":
        plan.make_cwd("/process/cwd", cwd=cwd)


def surroundings(plan: Plan, linux: dict[str, Any], process: dict[str, Any], env: Environment) -> None:
    """What does not need privileges to set but must be there before they go."""
    personality = linux.get("personality")
    if personality:
        plan.personality("/linux/personality", persona=PERSONALITIES[personality["domain"]])
    umask = (process.get("user") or {}).get("umask")
    if umask is None:
        plan.umask("(default)", mask=DEFAULT_UMASK)
    else:
        plan.umask("/process/user/umask", mask=umask)
    uid, gid = _ids(process)
    if not process.get("terminal"):  # CONSOLE sets the owner of its own
        plan.stdio_owner("/process/user", uid=uid, gid=gid)
    if process and env.find_home:
        plan.find_home("/process/user/uid", uid=uid)


def rlimits(plan: Plan, process: dict[str, Any]) -> None:
    """For the host side: it calls prlimit(2) at SYNC_READY."""
    for index, entry in enumerate(process.get("rlimits") or ()):
        plan.rlimits.append((RLIMITS.index(entry["type"]), entry["soft"], entry["hard"], f"/process/rlimits/{index}"))


def identity(plan: Plan, config: dict[str, Any], process: dict[str, Any]) -> None:
    """Groups, then ids.  setgroups even for none: the caller's must not leak in (CVE-2022-2989)."""
    gids = (process.get("user") or {}).get("additionalGids") or []
    if KEEP_GROUPS not in (config.get("annotations") or {}):
        plan.groups("/process/user/additionalGids", gids=pack(f"={len(gids)}I", *gids))
    uid, gid = _ids(process)
    plan.set_ids("/process/user", uid=uid, gid=gid)


def process_limit(plan: Plan) -> None:
    """RLIMIT_NPROC once more, for `exec`: with its limit in force, CLONE_INIT would make one process too many."""
    for number, soft, hard, origin in plan.rlimits:
        if number == RLIMIT_NPROC:
            plan.rlimit(origin, resource=number, soft=soft, hard=hard)


def locate(plan: Plan, process: dict[str, Any], env: Environment, attempt: bool = False) -> None:
    """The working directory and the program, both as the user who will be there: a missing one fails `create`.

    ``attempt``: what is not found is looked for once more later.
    """
    if process:
        plan.chdir("/process/cwd", policy=P_CHDIR_TRY if attempt else 0, cwd=process["cwd"])
        policy = P_FIND_EXE_TRY if attempt else 0
        plan.find_exe("/process/args/0", policy=policy, file=process["args"][0], path=env.path)


def execute(plan: Plan, process: dict[str, Any], env: Environment) -> None:
    """The last step."""
    policy = (P_EXECVE_SET_HOME if env.find_home else 0) | (P_EXECVE_LISTEN_PID if env.listen else 0)
    plan.execve("/process/args/0", policy=policy, args=process["args"], env=env.entries)
