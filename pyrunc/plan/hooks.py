"""Hooks: those inside the container become steps, the host side runs the others (config.md)."""

from __future__ import annotations

from pyrunc.plan.ops import P_HOOK_IN_CONTAINER, P_HOOK_SET_HOME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyrunc.plan.context import Context
    from pyrunc.plan.environment import Environment
    from pyrunc.spec.types import Hook


def host_side(ctx: Context) -> None:
    """Keep the hooks that create, start and delete run in the runtime's namespaces."""
    hooks = ctx.hooks
    for kind, listed in (
        ("prestart", hooks.get("prestart")),
        ("createRuntime", hooks.get("createRuntime")),
        ("poststart", hooks.get("poststart")),
        ("poststop", hooks.get("poststop")),
    ):
        if listed:
            ctx.plan.hooks[kind] = listed


def create_container(ctx: Context) -> None:
    """HOOK for createContainer: in the container's namespaces, before PIVOT.

    The path is a path of the host. The environment is the hook's own or empty, never the
    process's: LD_PRELOAD of an image must not reach a program of the host (CVE-2025-23266).
    """
    listed = ctx.hooks.get("createContainer", ())
    _steps(ctx, "createContainer", listed, ctx.options.create_state, None)


def start_container(ctx: Context) -> None:
    """HOOK for startContainer: a program of the container.

    Without ``env`` it has the environment of the process.
    """
    if ctx.process:
        listed = ctx.hooks.get("startContainer", ())
        _steps(ctx, "startContainer", listed, ctx.options.start_state, ctx.env)


def _steps(
    ctx: Context, kind: str, hooks: Iterable[Hook], state: tuple[str, str], inherited: Environment | None
) -> None:
    parts = list(state)  # one list for all: encode stores it once
    for index, hook in enumerate(hooks):
        env = hook.get("env", [])
        policy = P_HOOK_IN_CONTAINER if inherited is not None else 0
        if inherited is not None and "env" not in hook:
            env = inherited.entries
            policy |= P_HOOK_SET_HOME if inherited.find_home else 0
        ctx.plan.hook(
            f"/hooks/{kind}/{index}",
            policy=policy,
            timeout_ms=hook.get("timeout", 0) * 1000,
            path=hook["path"],
            args=hook.get("args") or [hook["path"]],
            env=env,
            state=parts,
        )
