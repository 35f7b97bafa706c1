"""Hooks: those that run inside the container become steps, the others are the host side's (config.md)."""

from __future__ import annotations

from pyrunc.plan.ops import P_HOOK_IN_CONTAINER, P_HOOK_SET_HOME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan import Plan
    from pyrunc.plan.process import Environment

HOST_KINDS = ("prestart", "createRuntime", "poststart", "poststop")


def host_side(plan: Plan, hooks: dict[str, Any]) -> None:
    """Note the hooks that launch, start and delete run in the runtime's namespaces."""
    for kind in HOST_KINDS:
        if hooks.get(kind):
            plan.hooks[kind] = hooks[kind]


def create_container(plan: Plan, hooks: dict[str, Any], state: tuple[str, str]) -> None:
    """createContainer: in the container's namespaces, the path still the runtime's (before PIVOT).

    The environment is the hook's own or empty, never the process's: LD_PRELOAD of an image must not reach a program of
    the host (CVE-2025-23266).
    """
    _steps(plan, "createContainer", hooks, state, None)


def start_container(plan: Plan, hooks: dict[str, Any], state: tuple[str, str], env: Environment) -> None:
    """startContainer: a program of the container, with the process's environment unless it has one of its own."""
    _steps(plan, "startContainer", hooks, state, env)


def _steps(plan: Plan, kind: str, hooks: dict[str, Any], state: tuple[str, str], inherited: Environment | None) -> None:
    parts = list(state)  # one list for all: encode stores it once
    for index, hook in enumerate(hooks.get(kind) or ()):
        env = hook.get("env")
        policy = P_HOOK_IN_CONTAINER if inherited is not None else 0
        if env is None and inherited is not None:
            env = inherited.entries
            policy |= P_HOOK_SET_HOME if inherited.find_home else 0
        plan.hook(
            f"/hooks/{kind}/{index}",
            policy=policy,
            timeout_ms=(hook.get("timeout") or 0) * 1000,
            path=hook["path"],
            args=hook.get("args") or [hook["path"]],
            env=env or [],
            state=parts,
        )
