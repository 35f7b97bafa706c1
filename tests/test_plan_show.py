"""`pyrunc plan`: the listing and its JSON."""

from __future__ import annotations

import errno
import json
import os
import posix
import re

import pytest

from json_type import Json
from plan_support import case_names, compiled, load_case, names
from pyrunc import fs
from pyrunc.errors import ConfigError
from pyrunc.plan import Plan, ops, show
from pyrunc.plan.create import compile_create
from pyrunc.verbs import plan as verb

PLANS = [name for name in case_names() if not name.endswith("-refused")]


@pytest.mark.parametrize("name", PLANS)
def test_json_has_every_step(name: str) -> None:
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
    """Control characters of a config must reach neither the terminal nor split a line."""
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


def test_host_hooks_are_listed_where_they_run() -> None:
    """prestart, createRuntime: after SYNC_MOUNTED; poststart: EXECVE; startContainer: RUN."""
    lines = show.text(compile_create(*load_case("hooks"))).splitlines()
    at = {word: next(i for i, line in enumerate(lines) if word in line) for word in ("SYNC_MOUNTED", "EXECVE")}
    assert "prestart" in lines[at["SYNC_MOUNTED"] + 1] and "createRuntime" in lines[at["SYNC_MOUNTED"] + 2]
    assert "poststart" in lines[at["EXECVE"] + 1]
    assert lines[at["EXECVE"] - 1].split()[1:3] == ["RUN", "HOOK"]


@pytest.mark.parametrize("name", [name for name in case_names() if name.endswith("-refused")])
def test_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        compile_create(*load_case(name))


@pytest.mark.parametrize("width", [100, 80, 60])
@pytest.mark.parametrize("name", PLANS)
def test_the_listing_fits_and_stays_aligned(name: str, width: int) -> None:
    config, facts, opts = load_case(name)
    plan = compile_create(config, facts, opts)
    lines = show.fitted(plan, config, width, colour=False).splitlines()
    assert max(map(len, lines)) <= width
    steps = lines[: lines.index("")]
    (column,) = {
        line.rindex("  " + origin[:4]) + 2
        for line, origin in zip([x for x in steps if x[:4].strip().isdigit()], plan.origins, strict=True)
    }
    left = re.match(r" *\d+ \w+ +\w+ +", steps[0])
    assert left
    for line in steps:
        assert line[column - 2 : column].strip() == "", "nothing runs into the origins"
        assert line[:4].strip() or line[5:9] == "host" or not line[: len(left[0])].strip(), (
            "what goes on does so in its column"
        )
    # No text is lost.
    long = show.text(plan, config)
    assert sorted("".join(lines).replace(" ", "")) == sorted(long.replace("\n", "").replace(" ", ""))


def test_colours_do_not_change_the_text() -> None:
    config, facts, opts = load_case("capabilities")
    plan = compile_create(config, facts, opts)
    plain, coloured = (show.fitted(plan, config, 90, colour=colour) for colour in (False, True))
    assert "\33[1mEXECVE" in coloured and "\33[33mwarning" in coloured and "\33" not in plain
    assert re.sub("\33\\[[0-9]*m", "", coloured) == plain


def test_a_line_without_blanks_is_cut() -> None:
    plan = Plan()
    plan.hostname("/hostname", name="x" * 1000)
    config: Json = {}
    lines = show.fitted(plan, config, 100, colour=False).splitlines()
    assert max(map(len, lines)) <= 100 and "".join(lines).count("x") == 1000


@pytest.mark.parametrize(
    ("terminal", "environment", "expected"),
    [
        (None, {"TERM": "xterm"}, (100, False)),
        (80, {"TERM": "xterm"}, (80, True)),
        (200, {"TERM": "xterm", "NO_COLOR": ""}, (200, True)),
        (80, {"TERM": "xterm", "NO_COLOR": "1"}, (80, False)),
        (80, {"TERM": "dumb"}, (80, False)),
        (80, {}, (80, False)),
        (0, {"TERM": "xterm"}, (100, True)),  # a terminal of unknown size: a serial line
    ],
)
def test_appearance(
    monkeypatch: pytest.MonkeyPatch, terminal: int | None, environment: dict[str, str], expected: tuple[int, bool]
) -> None:
    def size(fd: int) -> os.terminal_size:
        if terminal is None:
            raise OSError(errno.ENOTTY, "")
        return os.terminal_size((terminal, 24))

    monkeypatch.setattr(posix, "get_terminal_size", size)
    monkeypatch.setattr(fs, "getenv", lambda name: environment.get(name, ""))
    assert verb.appearance() == expected


def test_line_breaks_of_a_narrow_listing() -> None:
    """Arguments break at blanks, origins before slashes, and both anywhere if they have none."""
    plan = Plan()
    plan.oom_score("/process/oomScoreAdj", value=-999)
    plan.chdir("/process/cwd", cwd="/a/long/path to/a working directory/of somebody")
    plan.mask_path("/linux/maskedPaths/0", path="/proc/a/long/masked/path/of/the/kernel")
    assert show.fitted(plan, None, 60, colour=False) == (
        "   1 ENTER  OOM_SCORE -999                    /process\n"
        "                                                /oomScoreAdj\n"
        '   2 FINISH CHDIR     "/a/long/path to/a      /process/cwd\n'
        "                        working directory/of\n"
        '                        somebody"\n'
        "   3 FINISH MASK_PATH /proc/a/long/masked/pa  /linux\n"
        "                        th/of/the/kernel        /maskedPaths\n"
        "                                                /0\n"
        "\n"
        "cgroup none of its own\n"
    )
