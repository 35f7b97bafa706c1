"""`pyrunc plan`: the listing and its JSON."""

from __future__ import annotations

import json

import pytest

from plan_support import case_names, compiled, load_case, names
from pyrunc.errors import ConfigError
from pyrunc.plan import Plan, ops, show
from pyrunc.plan.compile import compile_create

PLANS = [name for name in case_names() if not name.endswith("-refused")]


@pytest.mark.parametrize("name", PLANS)
def test_json_holds_every_step(name: str) -> None:
    plan = compile_create(*load_case(name))
    found = json.loads(json.dumps(show.as_json(plan)))
    assert [entry["op"] for entry in found["steps"]] == names(plan)
    assert [entry["origin"] for entry in found["steps"]] == plan.origins
    assert [entry["step"] for entry in found["steps"]] == list(range(1, len(plan.steps) + 1))
    for entry, (code, _, _, _) in zip(found["steps"], plan.steps, strict=True):
        assert list(entry["args"]) == [arg[0] for arg in ops.OPS[code][2]]
    assert [entry["kind"] for entry in found["descriptors"]] == [kind for kind, _, _ in plan.fds]


@pytest.mark.parametrize("name", PLANS)
def test_text_has_a_line_per_step(name: str) -> None:
    """Control characters of a config must not reach a terminal, and a line is a line."""
    plan = compile_create(*load_case(name))
    text = show.text(plan)
    assert text.endswith("\n") and text.replace("\n", "").isprintable()
    numbers = [line.split()[0] for line in text.splitlines() if line[:4].strip().isdigit()]
    assert numbers == [str(number) for number in range(1, len(plan.steps) + 1)]


def test_origins_are_aligned() -> None:
    lines = show.text(compiled()).split("\n\n", maxsplit=1)[0].splitlines()
    origins = compiled().origins
    assert len({line.rindex(origin) for line, origin in zip(lines, origins, strict=True)}) == 1


def test_numbers_of_every_width() -> None:
    plan = Plan()
    plan.oom_score("x", value=-999)
    plan.caps("x", effective=1 << 40, permitted=(1 << 41) - 1)
    assert show.arguments(plan, 0) == {"value": -999}
    assert show.arguments(plan, 1)["permitted"] == (1 << 41) - 1
    assert "effective: checkpoint_restore  permitted: all  inheritable+ambient: none" in show.text(plan)


def test_limits_come_from_the_config() -> None:
    config, facts, opts = load_case("default")
    plan = compile_create(config, facts, opts)
    assert "/linux/resources/devices" in show.text(plan, config)
    assert "/linux/resources" not in show.text(plan)
    assert show.as_json(plan, config)["cgroup"] == {
        "path": "/user.slice/box",
        "owner": None,
        "resources": config["linux"]["resources"],
    }


def test_warnings_are_shown() -> None:
    config, facts, opts = load_case("mount-bind-data")
    plan = compile_create(config, facts, opts)
    assert len(plan.warnings) == 1
    text = f"config.json: {plan.warnings[0]}"
    assert f"warning {text}\n" in show.text(plan)
    assert show.as_json(plan)["warnings"] == [text]
    for number in range(200):
        plan.warn("/mounts", str(number))
    assert show.text(plan).endswith("warning config.json: /mounts: 98\nwarning config.json: and 101 more\n")
    assert len(show.as_json(plan)["warnings"]) == 101


def test_a_filter_shows_its_length() -> None:
    plan = compiled({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}})
    plan.set_filter(bytes(80), 4, False)
    assert "10 instructions spec_allow" in show.text(plan)


def test_hooks_of_the_host_stand_where_they_run() -> None:
    """prestart and createRuntime after SYNC_MOUNTED, poststart after EXECVE, startContainer in RUN."""
    lines = show.text(compile_create(*load_case("hooks"))).splitlines()
    at = {word: next(i for i, line in enumerate(lines) if word in line) for word in ("SYNC_MOUNTED", "EXECVE")}
    assert "prestart" in lines[at["SYNC_MOUNTED"] + 1] and "createRuntime" in lines[at["SYNC_MOUNTED"] + 2]
    assert "poststart" in lines[at["EXECVE"] + 1]
    assert lines[at["EXECVE"] - 1].split()[1:3] == ["RUN", "HOOK"]


@pytest.mark.parametrize("name", [name for name in case_names() if name.endswith("-refused")])
def test_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        compile_create(*load_case(name))
