"""A value of a wrong type at any place of a document is one problem with its pointer, in each verb
that reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from json_type import Json
from plan_support import Facts
from pyrunc.container import update
from pyrunc.errors import Capped, ConfigError, Problem
from pyrunc.launch import create
from pyrunc.log import Log
from pyrunc.spec import exec_process, schema, validate
from pyrunc.verbs import plan as plan_verb

VALUES: tuple[Any, ...] = (None, True, 1, 1.5, "x", [], [1], [{}], {}, {"a": 1}, {"": "x"})


def sample(node: Any) -> Any:
    """A value of this type with one of each member."""
    kind = node[0]
    if kind == "object":
        return {name: sample(child) for name, child in node[1].items()}
    if kind == "map":
        return {"key": sample(node[1])}
    if kind == "array":
        return [sample(node[1])]
    if kind == "string":
        return "x" if node[1] is None else node[1][0]
    return True if kind == "boolean" else max(node[1], min(1, node[2]))


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of values in `sample`: keys and indexes."""
    inner: list[tuple[Any, Any]] = []
    if node[0] == "object":
        inner = list(node[1].items())
    elif node[0] in ("map", "array"):
        inner = [("key" if node[0] == "map" else 0, node[1])]
    return [path] + [place for step, child in inner for place in places(child, (*path, step))]


def with_value(document: Any, place: tuple[Any, ...], value: Any) -> Any:
    """The document with another value at one place."""
    if not place:
        return value
    step, rest = place[0], place[1:]
    if isinstance(document, list):
        return [with_value(document[0], rest, value)]
    return {**document, step: with_value(document[step], rest, value)}


def test_there_are_places() -> None:
    assert len(places(schema.CONFIG)) > 250


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_plan(value: Any, tmp_path: Path) -> None:
    """No verb fails on a type: it reports a problem, and each value once."""
    path = tmp_path / "config.json"
    opts = create.CreateOptions("c", Log())
    opts.bundle = str(tmp_path)
    refused = 0
    for whole in (sample(schema.CONFIG), {"ociVersion": "1.0.0", "root": {"path": "rootfs"}}):
        for place in places(schema.CONFIG):
            try:
                document = with_value(whole, place, value)
            except KeyError:  # absent from the small one
                continue
            path.write_text(json.dumps(document))
            try:
                create.compile_only(opts)
            except ConfigError as error:
                pointers = [problem.pointer for problem in error.problems if "expected" not in problem.hint]
                pointer = "".join(f"/{step}" for step in place)
                about = [one for one in pointers if one == pointer]
                assert len(about) <= 1, [str(problem) for problem in error.problems]
                refused += 1
    assert refused


def test_args_of_a_wrong_type_are_one_problem() -> None:
    value: Json
    for value in ("sh", 1, {}, True):
        config: Json = {"ociVersion": "1.0.0", "root": {"path": "r"}, "process": {"cwd": "/", "args": value}}
        with pytest.raises(ConfigError) as caught:
            validate.check(config)
        assert [problem.pointer for problem in caught.value.problems] == ["/process/args"]
        with pytest.raises(ConfigError) as caught:
            exec_process.parse(json.dumps(config["process"]).encode(), "p.json")
        assert [problem.pointer for problem in caught.value.problems] == ["/process/args"]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_process_and_resources(value: Any, tmp_path: Path) -> None:
    process, resources, file = sample(schema.PROCESS), sample(schema.RESOURCES), tmp_path / "r.json"
    refused = 0
    for place in places(schema.PROCESS):
        try:
            data = json.dumps(with_value(process, place, value)).encode()
            exec_process.check(exec_process.parse(data, "p.json"), Facts(), "p.json")
        except ConfigError:
            refused += 1
    for place in places(schema.RESOURCES):
        file.write_text(json.dumps(with_value(resources, place, value)))
        try:
            new = update.asked(update.from_file(str(file)))
            update.check(new, update.merge({}, new), Log())
        except ConfigError:
            refused += 1
    assert refused


def test_null_counts_as_absent(tmp_path: Path) -> None:
    """Null at any optional field: the same plan, or the same problems, as without the field."""
    path, opts = tmp_path / "config.json", create.CreateOptions("c", Log())
    opts.bundle = str(tmp_path)
    config: Json = {"ociVersion": "1.0.0", "root": {"path": "r"}, "process": {"cwd": "/", "args": ["sh"], "user": {}},
              "linux": {"namespaces": [{"type": "mount"}], "resources": {}}, "hooks": {}}  # fmt: skip

    def answer(document: Any) -> str:
        path.write_text(json.dumps(document))
        try:
            return repr(create.compile_only(opts)[2].steps)
        except ConfigError as error:
            return str(error)

    def without(document: Any, place: tuple[Any, ...]) -> Any:
        if len(place) == 1:
            return {key: item for key, item in document.items() if key != place[0]}
        return {**document, place[0]: without(document[place[0]], place[1:])}

    compared = 0
    for pointer, _, _ in schema.fields():
        place = tuple(pointer.split("/")[1:])
        try:
            with_null = with_value(config, place[:-1], {**walk(config, place[:-1]), place[-1]: None})
        except (KeyError, TypeError):
            continue
        assert answer(with_null) == answer(without(config, place)), pointer
        compared += 1
    assert compared > 60


def walk(document: Any, place: tuple[Any, ...]) -> Any:
    """The value at a place."""
    for step in place:
        document = document[step]
    return document


def test_a_hundred_problems_are_kept() -> None:
    config: Json = {"ociVersion": "1.0.0", "root": {"path": "r"}, "mounts": [1] * 100_000}
    with pytest.raises(ConfigError) as caught:
        validate.check(config)
    assert len(caught.value.problems) == 100 and caught.value.more == 99_900
    assert str(caught.value).endswith("; and 99980 more")
    text = plan_verb.listed(caught.value)
    assert text.count("\n") == 101 and text.endswith("and 99900 more\n")
    # From the rules as well, and together.
    config["mounts"] = [{"destination": "/proc/x"}] * 60
    config["process"] = {"cwd": "/", "args": ["sh"], "env": [1] * 30 + ["x"] * 100}
    with pytest.raises(ConfigError) as caught:
        validate.check(config)
    assert len(caught.value.problems) + caught.value.more == 2 * 60 + 130
    assert len(caught.value.problems) == 100


def test_lists_are_short_for_any_input() -> None:
    problems = Capped()
    for number in range(1000):
        problems.append(Problem("/" + "k\x07" * 10_000, "e" * 500, "f" * 200, str(number)))
    error = ConfigError(problems)
    assert len(str(error)) < 32768
    text = plan_verb.listed(error)
    assert len(text.encode()) < 36_000
    shown = text.count("\n") - 1
    assert shown < 100 and text.endswith(f"and {1000 - shown} more\n")


def test_a_problem_is_one_short_line() -> None:
    text = str(Problem("/annotations/" + "\n" * 1_000_000, "a string", "number 1"))
    assert text.isprintable() and len(text) < 300
    assert text.startswith("/annotations/\\u000a") and "...: expected a string, found number 1" in text
