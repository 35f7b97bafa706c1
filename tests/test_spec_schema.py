"""The field table against the official JSON schemas of runtime-spec 1.3.0."""

from __future__ import annotations

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4

from broken_configs import BASE, BROKEN, changed
from official import MISSING, OFFICIAL
from pyrunc.errors import Capped, ConfigError
from pyrunc.spec import schema, structure, validate

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

# Fields of the official schema that are not about Linux, so not in our table.
ELSEWHERE = {
    "/process/commandLine": "Windows",
    "/process/user/username": "Windows",
    "/solaris": "platform",
    "/windows": "platform",
    "/vm": "platform",
    "/zos": "platform",
    "/freebsd": "platform",
}
# Values that our table accepts and the official schema rejects.
WIDER = {
    "/linux/devices/*/fileMode": "podman sends st_mode with the file type bits; config-linux.md says uint32",
    "/linux/rootfsPropagation": "the r-forms, which engines send and all runtimes take",
}
# Fields that we require, because config.md says REQUIRED, and the official schema does not.
REQUIRED = {
    "/root": "on all platforms but Windows with Hyper-V",
    "/linux/personality/domain": "REQUIRED",
    "/linux/memoryPolicy/mode": "REQUIRED",
    "/linux/resources/blockIO/throttleReadBpsDevice/*/rate": "REQUIRED",
    "/linux/resources/blockIO/throttleWriteBpsDevice/*/rate": "REQUIRED",
    "/linux/resources/blockIO/throttleReadIOPSDevice/*/rate": "REQUIRED",
    "/linux/resources/blockIO/throttleWriteIOPSDevice/*/rate": "REQUIRED",
}


@cache
def documents() -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in OFFICIAL.glob("*.json")}


@cache
def validator() -> Any:
    registry: Registry[Any] = Registry().with_resources(
        (name, Resource.from_contents(document, default_specification=DRAFT4)) for name, document in documents().items()
    )
    root = {"$schema": "http://json-schema.org/draft-04/schema#", "$ref": "config-schema.json"}
    # True and 1.0 are not integers, in draft 4 and here.
    checker = jsonschema.Draft4Validator.TYPE_CHECKER.redefine("integer", lambda _, v: type(v) is int)
    extend: Any = jsonschema.validators.extend
    strict = extend(jsonschema.Draft4Validator, type_checker=checker)
    return strict(root, registry=registry)


def resolve(node: dict[str, Any], document: str) -> tuple[dict[str, Any], str]:
    """Follow $ref and merge allOf, so that the properties are in one place."""
    while "$ref" in node:
        target, _, pointer = node["$ref"].partition("#")
        document = target or document
        found: Any = documents()[document]
        for part in pointer.split("/")[1:]:
            found = found[part]
        node = found
    for key in ("allOf", "anyOf"):
        if key in node:
            merged: dict[str, Any] = {"type": "object", "properties": {}, "required": []}
            for part in node[key]:
                one, origin = resolve(part, document)
                assert origin.startswith("defs-linux") or document == origin
                merged["properties"] |= one.get("properties", {})
                merged["required"] += one.get("required", [])
                document = origin
            return merged, document
    return node, document


def official(node: dict[str, Any], document: str, pointer: str, out: dict[str, tuple[dict[str, Any], bool]]) -> None:
    """Every field below a node of the official schema, with the same kind of pointers as
    schema.fields."""
    node, document = resolve(node, document)
    required = node.get("required", [])
    for name, child in node.get("properties", {}).items():
        here = f"{pointer}/{name}"
        if here in ELSEWHERE:
            continue
        out[here] = (resolve(child, document)[0], name in required)
        official(child, document, here, out)
    for name in ("items", "additionalProperties"):
        child = node.get(name)
        if isinstance(child, dict):
            out_node, _ = resolve(child, document)
            if out_node.get("type") == "object":
                official(child, document, f"{pointer}/*", out)


@cache
def both() -> tuple[dict[str, tuple[dict[str, Any], bool]], dict[str, tuple[Any, bool]]]:
    theirs: dict[str, tuple[dict[str, Any], bool]] = {}
    official(documents()["config-schema.json"], "config-schema.json", "", theirs)
    ours = {pointer: (node, required) for pointer, node, required in schema.fields()}
    return theirs, ours


def test_the_same_fields() -> None:
    theirs, ours = both()
    assert len(theirs) > 150
    assert set(theirs) == set(ours)


def test_the_same_types() -> None:
    theirs, ours = both()
    assert len(ours) > 150
    for pointer, (node, _) in ours.items():
        kind = "object" if node[0] == "map" else node[0]
        official_node = theirs[pointer][0]
        assert official_node.get("type", "object") == kind, pointer
        if kind == "array":
            item = resolve(official_node["items"], _document_of(pointer))[0]
            item_kind = "object" if node[1][0] == "map" else node[1][0]
            assert item.get("type", "object") == item_kind, pointer


def _document_of(pointer: str) -> str:
    """The document in which the items of an array are looked up: only local references in `defs`
    files matter."""
    theirs, _ = both()
    reference = theirs[pointer][0]["items"].get("$ref", "")
    for name in ("defs.json", "defs-linux.json"):
        if reference.startswith("#") and reference.split("/")[-1] in documents()[name]["definitions"]:
            return name
    return "config-linux.json" if pointer.startswith("/linux") else "config-schema.json"


def test_the_same_required_fields() -> None:
    theirs, ours = both()
    required = {pointer for pointer, (_, must) in theirs.items() if must}
    assert len(required) > 20
    assert {pointer for pointer, (_, must) in ours.items() if must} == required | set(REQUIRED)


def test_the_same_values() -> None:
    theirs, ours = both()
    compared = 0
    for pointer, (node, _) in ours.items():
        if pointer in WIDER:
            continue
        their_node = theirs[pointer][0]
        if node[0] == "array":
            node = node[1]
            their_node = resolve(their_node["items"], _document_of(pointer))[0]
        if node[0] == "string" and "enum" in their_node:
            assert set(node[1]) == set(their_node["enum"]), pointer
            compared += 1
        elif node[0] == "integer":
            # Our table may be narrower, never wider.
            assert node[1] >= their_node.get("minimum", node[1]), pointer
            assert node[2] <= their_node.get("maximum", node[2]), pointer
            compared += 1
    assert compared > 60


def test_our_good_base_is_officially_good() -> None:
    validator().validate(BASE)


# Errors in another platform's section are not checked.
SAMPLES = [
    path
    for path in sorted((OFFICIAL / "test" / "config").glob("*/*.json"))
    if path.name[:8] != "freebsd-" or path.parent.name == "good"
]


def test_no_sample_is_missing() -> None:
    assert len(SAMPLES) > 10
    assert {path.parent.name for path in SAMPLES} == {"good", "bad"}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_official_samples(path: Path) -> None:
    try:
        config = json.loads(path.read_text())
    except ValueError:
        assert path.parent.name == "bad"
        return
    structural: Any = Capped()
    structure.structure(schema.CONFIG, config, "", structural)
    if path.parent.name == "good":
        assert structural == []
        assert validator().is_valid(config)
        rules = _problems(config)
        # What cgroup v2 has not, the one sample that says 0.5.0, one that would move devices to
        # where they are, and those of platforms without namespaces.
        allowed = ["cgroup v2 has", "version 1.x", "without a network namespace"]
        allowed += ["without a uts namespace"] if path.stem in ("freebsd-example", "zos-example") else []
        assert [text for text in rules if not any(words in text for words in allowed)] == []
    else:
        assert _problems(config)
        assert not validator().is_valid(config)


def _problems(config: Any) -> list[str]:
    try:
        validate.check(config)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_officially_invalid_configs_are_refused() -> None:
    wrong = [changes for changes, *_ in BROKEN if not validator().is_valid(changed(*changes))]
    assert len(wrong) > 80
    assert [changes for changes in wrong if not _problems(changed(*changes))] == []


def officially_valid(config: Any) -> bool:
    """Validity by the official schema, except for the differences in `WIDER`."""
    config = copy.deepcopy(config)
    linux = config.get("linux") if isinstance(config, dict) else None
    if isinstance(linux, dict):
        propagation = linux.get("rootfsPropagation")
        ours: schema.Node = schema.LINUX
        if isinstance(propagation, str) and propagation in ours[1]["rootfsPropagation"][1]:
            linux["rootfsPropagation"] = propagation.removeprefix("r")
        devices = linux.get("devices")
        for device in devices if isinstance(devices, list) else ():
            if isinstance(device, dict) and type(device.get("fileMode")) is int and 511 < device["fileMode"] <= 0xFFFF:
                device["fileMode"] = 511
    return bool(validator().is_valid(config))


def later(node: Any, depth: int) -> st.SearchStrategy[Any]:
    return st.deferred(lambda: generate(node, depth))


def generate(node: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values that the table accepts, the edges of its ranges first."""
    kind = node[0]
    if kind == "string":
        return st.sampled_from(node[1]) if node[1] else st.sampled_from(["", "a", "/x", "1.2.3", "2MB", "MB:1", "0-1"])
    if kind == "integer":
        return st.sampled_from([node[1], node[2], max(node[1], min(node[2], 0))])
    if kind == "boolean":
        return st.booleans()
    if kind == "array":
        return st.lists(generate(node[1], depth + 1), max_size=1)
    if kind == "map":
        return st.dictionaries(st.sampled_from(["a", "b.c"]), generate(node[1], depth + 1), max_size=1)
    children = {name: later(child, depth + 1) for name, child in node[1].items()}
    must = {name: children[name] for name in node[2]}
    may = {name: strategy for name, strategy in children.items() if name not in node[2]}
    names = st.lists(st.sampled_from(sorted(may)), max_size=3, unique=True) if may else st.just([])
    return names.flatmap(lambda chosen: st.fixed_dictionaries(must | {name: may[name] for name in chosen}))


PATTERNS = (
    "/linux/intelRdt/memBwSchema",
    "/process/execCPUAffinity",
)  # rejected as a whole, so their form is not checked


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(generate(schema.CONFIG))
def test_accepted_configs_are_officially_valid(config: Any) -> None:
    structural: Any = Capped()
    structure.structure(schema.CONFIG, config, "", structural)
    assert structural == []
    if not _problems(config):
        assert officially_valid(config), list(validator().iter_errors(config))


JUNK = [None, True, 1, -1, 2**64, 1.5, "", "bogus", [], {}, [None], {"a": 1}]


def places(value: Any, pointer: str = "") -> list[str]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    out = [pointer] if pointer else []
    for key, item in items:
        out += places(item, f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}")
    return out


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutants(data: st.DataObject) -> None:
    """Any value in place of any other: if the official schema rejects it, our types or rules reject
    it."""
    source = data.draw(st.sampled_from([BASE, FULL]))
    pointer = data.draw(st.sampled_from(places(source)))
    junk = data.draw(st.sampled_from(JUNK))
    config = copy.deepcopy(source)
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    target: Any = config
    for part in path:
        target = target[int(part)] if isinstance(target, list) else target[part]
    if isinstance(target, list):
        target[int(last)] = junk
    else:
        target[last] = junk
    assume(not any(pointer.startswith(pattern) for pattern in PATTERNS))
    structural: Any = Capped()
    structure.structure(schema.CONFIG, config, "", structural)
    assert structural or _problems(config) or officially_valid(config), f"{pointer} = {junk!r}"
    for problem in structural:
        assert problem.pointer.startswith(pointer) or pointer.startswith(problem.pointer)


def _load(name: str) -> Any:
    path = OFFICIAL / "test" / "config" / "good" / name
    return json.loads(path.read_text()) if path.exists() else BASE


FULL = _load("spec-example.json")
