"""Hooks: those that run inside the container become steps, the others are the host side's (config.md)."""

from __future__ import annotations

from pyrunc.plan.ops import P_HOOK_IN_CONTAINER

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from pyrunc.plan import Plan

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
    _steps(plan, "createContainer", hooks, state, 0, [])


def start_container(plan: Plan, hooks: dict[str, Any], state: tuple[str, str], env: list[str]) -> None:
    """startContainer: a program of the container, with the process's environment unless it has one of its own."""
    _steps(plan, "startContainer", hooks, state, P_HOOK_IN_CONTAINER, env)


def _steps(
    plan: Plan, kind: str, hooks: dict[str, Any], state: tuple[str, str], policy: int, default_env: list[str]
) -> None:
    for index, hook in enumerate(hooks.get(kind) or ()):
        env = hook.get("env")
        plan.hook(
            f"/hooks/{kind}/{index}",
            policy=policy,
            timeout_ms=(hook.get("timeout") or 0) * 1000,
            path=hook["path"],
            args=hook.get("args") or [hook["path"]],
            env=default_env if env is None else env,
            state=list(state),
        )
