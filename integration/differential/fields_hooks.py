"""Strategies for hooks: each kind, with and without args, env and timeout, succeeding and
failing."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from integration.differential.context import Context, Draw
from integration.differential.model import HOOKS, LOG, WORK, Feature

_LOG_MOUNT = ["/mounts/-", {"destination": LOG, "type": "bind", "source": LOG, "options": ["rbind"]}]


def _hook(draw: Draw, kind: str, number: int, *, failing: bool) -> dict[str, Any]:
    folder = "/bin" if kind == "startContainer" else f"{WORK}/hook"
    hook: dict[str, Any] = {"path": f"{folder}/hook-{kind}-{number}"}
    if draw(st.integers(0, 4)) or failing:
        hook["args"] = ["hook", "tag", *(["3"] if failing else [])]
        if not failing:
            hook["args"] = draw(st.sampled_from((["hook", "tag"], ["other name"], [hook["path"], ""])))
    if draw(st.booleans()):
        hook["env"] = draw(
            st.lists(st.sampled_from(("A=hook", "PATH=/bin", "HOME=/hook", "EMPTY=", "A=2")), max_size=3)
        )
    if draw(st.integers(0, 2)) == 0:
        hook["timeout"] = draw(st.sampled_from((2, 10)))
    return hook


def hooks(draw: Draw, context: Context) -> Feature:
    """Hooks of one to three kinds, one or two of each."""
    edits: list[list[Any]] = [_LOG_MOUNT]
    chosen = draw(st.lists(st.sampled_from(HOOKS), min_size=1, max_size=4, unique=True))
    for kind in chosen:
        edits.append(
            [f"/hooks/{kind}", [_hook(draw, kind, number, failing=False) for number in range(draw(st.integers(1, 2)))]]
        )
    return Feature("hooks", edits)


def failing(draw: Draw, context: Context) -> Feature:
    """One failing hook (exit status, timeout or missing program), and others that show what happens
    next."""
    kind = draw(st.sampled_from(HOOKS))
    how = draw(st.sampled_from(("status", "status", "status", "missing", "timeout", "signal")))
    bad = _hook(draw, kind, 0, failing=True)
    bad.pop("timeout", None)
    if how == "missing":
        bad["path"] = "/no/such/hook"
    elif how == "timeout":
        bad |= {"timeout": 1, "args": ["hook", "tag", "0", "2"]}
    elif how == "signal":
        bad |= {"args": ["hook", "tag", "-9"]}
    edits: list[list[Any]] = [_LOG_MOUNT, [f"/hooks/{kind}", [bad, _hook(draw, kind, 1, failing=False)]]]
    if kind != "poststop":
        edits.append(["/hooks/poststop", [_hook(draw, "poststop", 0, failing=False)]])
    return Feature(f"hooks.failing.{kind}.{how}", edits)
