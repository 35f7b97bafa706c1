"""`--seccomp-log` and its annotation: log system calls that the filter does not allow."""

from __future__ import annotations

from pyrunc import fs, seccomp
from pyrunc.errors import ConfigError, Problem, UsageError, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.log import Log
    from pyrunc.spec.types import Config, Seccomp, SeccompFlag

ANNOTATION = "org.pyrunc.seccomp_log"
_LOG: SeccompFlag = "SECCOMP_FILTER_FLAG_LOG"
_DEFAULT: SeccompFlag = "SECCOMP_FILTER_FLAG_SPEC_ALLOW"  # without `flags`: see filter_flags
_LOGGED = "/proc/sys/kernel/seccomp/actions_logged"
# The names in that file that are not the action's own name in lower case.
_WORDS = {"SCMP_ACT_KILL": "kill_thread", "SCMP_ACT_NOTIFY": "user_notif"}
WHERE = "`ausearch -m SECCOMP`, or dmesg without auditd; `pyrunc seccomp explain BUNDLE LINE` names the rule"


def wanted(config: Config, option: bool, log: Log | None) -> bool:
    """Whether a valid config requests logging; obstacles are reported to ``log``, if given.

    Raises UsageError for the option without a profile, ConfigError for a bad annotation.
    """
    value = config.get("annotations", {}).get(ANNOTATION)
    if value not in (None, "true", "false"):
        raise ConfigError([Problem(f"/annotations/{ANNOTATION}", "true or false", show(value))])
    if not option and value != "true":
        return False
    profile = config.get("linux", {}).get("seccomp")
    if not profile:
        if option:
            raise UsageError("--seccomp-log: /linux/seccomp is missing in config.json, so nothing is denied")
        if log is not None:
            log.warning(f"config.json: /annotations/{ANNOTATION}: no effect without /linux/seccomp")
        return False
    if log is not None:
        unlogged = sorted(actions(profile) - set(logged()))
        if unlogged:
            log.warning(f"seccomp: {_LOGGED} lacks {', '.join(unlogged)}: the kernel does not log these actions")
        log.info(f"seccomp: system calls that the filter does not allow are logged: {WHERE}")
    return True


def add(config: Config) -> None:
    """Add the flag to the profile of a valid config."""
    profile = config["linux"]["seccomp"]
    flags = profile.get("flags")
    flags = [_DEFAULT] if flags is None else flags
    profile["flags"] = [*flags, _LOG]


def actions(profile: Seccomp) -> set[str]:
    """The actions of a profile other than allow, by the kernel's names."""
    found = {profile["defaultAction"], *(rule["action"] for rule in profile.get("syscalls", ()))}
    found.discard("SCMP_ACT_ALLOW")
    return {_WORDS.get(name, name.removeprefix("SCMP_ACT_").lower()) for name in found if name in seccomp.ACTIONS}


def logged() -> list[str]:
    """The actions that the kernel logs; all of them if the file is unreadable."""
    try:
        return fs.read_file(_LOGGED, 4096).decode("ascii", "replace").split()
    except OSError:
        return [_WORDS.get(name, name.removeprefix("SCMP_ACT_").lower()) for name in seccomp.ACTIONS]
