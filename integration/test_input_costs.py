"""The cost of hostile or huge documents: a sample of `make input-costs`, whose rules are in
integration/input_costs."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.input_costs import documents, measure
from integration.input_costs.__main__ import Sweep
from pyrunc.spec import schema

pytestmark = pytest.mark.pyrunc_only  # the limits and the collisions are specific to pyrunc

# (reader, place, shape): inputs that once cost seconds or gigabytes, and one of each kind.
SAMPLE = [
    ("configs", "/annotations", "colliding keys"),
    ("configs", "/annotations", "full of keys"),
    ("configs", "/annotations/*", "text of empty-lines"),
    ("configs", "/process/env", "colliding names"),
    ("configs", "/process/env", "full of empty texts"),
    ("configs", "/process", "colliding members"),
    ("configs", "/mounts", "many items"),
    ("configs", "/mounts", "full of more"),
    ("configs", "/hooks/poststop", "many items"),
    ("configs", "/linux/sysctl", "keys with NUL"),
    ("configs", "/linux/resources/unified", "long key, wrong value"),
    ("configs", "/linux/resources/hugepageLimits", "full of objects"),
    ("configs", "/linux/memoryPolicy/nodes", "text of ranges"),
    ("configs", "/linux/cgroupsPath", "text of path"),
    ("configs", "/", "deep arrays"),
    ("configs", "/", "duplicate members"),
    ("processes", "/env", "colliding names"),
    ("processes", "/args", "full of null"),
    ("resources", "/unified", "colliding keys"),
    ("resources", "/blockIO/throttleReadBpsDevice", "one item many times"),
]


@pytest.fixture(scope="module")
def sweep(runtime: harness.Runtime) -> Iterator[Sweep]:
    with tempfile.TemporaryDirectory(prefix="pyinput") as place:
        found = Sweep(str(runtime.path), Path(place))
        found.start_beside()
        yield found
        found.run("delete", "--force", found.beside)


def test_the_sweep_covers_every_place(sweep: Sweep) -> None:
    """The sweep is derived from the schema, so new fields are covered."""
    seen = {(verbs.__name__, case.pointer) for case, verbs in sweep.cases()}
    for node, verbs in ((schema.CONFIG, "configs"), (schema.PROCESS, "processes"), (schema.RESOURCES, "resources")):
        assert {(verbs, pointer) for pointer, _, _ in schema.fields(node)} <= seen
    assert {pointer for _, pointer in seen} > {"/", "/annotations/*", "/linux/resources/rdma/*/hcaHandles"}


@pytest.mark.parametrize(("verbs", "pointer", "shape"), SAMPLE, ids=[" ".join(row) for row in SAMPLE])
def test_costs(sweep: Sweep, verbs: str, pointer: str, shape: str) -> None:
    base, node = next((base, node) for base, node, reads in sweep.readers() if reads.__name__ == verbs)
    found = [one for one in documents.Documents(base, node, sweep.keys).cases() if one[:2] == (pointer, shape)]
    assert len(found) == 1, "no such case"
    assert sweep.check(found[0], getattr(sweep, verbs)) == []


def test_accepted_configs(sweep: Sweep) -> None:
    """Large documents are valid: a container starts with a hundred thousand annotations, variables
    or groups."""
    for pointer, shape in (("/annotations", "many keys"), ("/process/env", "colliding names")):
        cases = documents.Documents(sweep.bundle, schema.CONFIG, sweep.keys).cases()
        case = next(one for one in cases if one[:2] == (pointer, shape))
        for usage in sweep.configs(case.build()):
            assert usage.status == 0, usage


def test_the_names_do_collide(sweep: Sweep) -> None:
    """The keys collide in the interpreter that the launcher embeds, with its seed. Otherwise the
    tests above would prove nothing."""
    if not sweep.secret:
        pytest.skip("this launcher makes a new seed for each process")
    code = "import sys, time; d = {}; keys = sys.stdin.read().split(); began = time.process_time()\n"
    code += "for key in keys: d[key] = 1\nprint(time.process_time() - began)"
    took = []
    for seed in ("1", "2"):  # SNAPSHOT_HASH_SEED of native/launcher/snapshot/snapshot.h, and another seed
        command = [sys.executable, "-Sc", code]
        text = " ".join(sweep.keys)
        done = subprocess.run(
            command, env={"PYTHONHASHSEED": seed}, input=text, capture_output=True, text=True, check=True
        )
        took.append(float(done.stdout))
    assert len(sweep.keys) == len(set(sweep.keys)) == 87381
    assert took[0] > 20 * took[1]


def test_the_state_of_another_container_costs_nothing(sweep: Sweep) -> None:
    """One container has 16 MiB of annotations: neither the verbs of another container nor `list -q`
    read them."""
    bundle, small = sweep.place / "bundle", f"{sweep.id}-small"
    verbs = (("list", "-q"), ("state", small), ("kill", small, "0"), ("exec", small, "/bin/true"))

    def least() -> list[float]:
        """The minimum of several runs, because other work on the machine only adds time."""
        return [min(sweep.run(*verb).cpu for _ in range(7)) for verb in verbs]

    (bundle / "config.json").write_text(json.dumps(sweep.bundle))
    assert sweep.run("create", "--bundle", str(bundle), small).status == 0
    assert sweep.run("start", small).status == 0
    before = least()
    large = {**sweep.bundle, "annotations": {str(number): "x" * 1000 for number in range(16_000)}}
    (bundle / "config.json").write_text(json.dumps(large))
    assert sweep.run("create", "--bundle", str(bundle), sweep.id).status == 0
    assert (Path(sweep.root) / sweep.id / "state.json").stat().st_size > 16_000_000
    after = least()
    assert sweep.run("delete", "--force", small).cpu < 0.1
    assert sweep.run("delete", "--force", sweep.id).status == 0
    for verb, one, other in zip(verbs, before, after, strict=True):
        assert other < 1.5 * one + 0.005, (verb, before, after)


def test_a_limit_can_be_broken() -> None:
    usage = measure.Usage("create", 1, 3.0, 700 << 10, 70_000, "x" * 70_000)
    assert len(usage.wrong(1, 100)) == 5 - 1
    assert usage._replace(status=0, cpu=5.0, memory=1, out=0, err="").wrong(200_000, 100) == []
    assert len(usage._replace(cpu=5.0, memory=1, out=0, err="e").wrong(200_000, 100)) == 1
    assert len(usage._replace(status=-11, cpu=0, memory=1, out=0, err="").wrong(1, 1)) == 2
    assert usage._replace(verb="plan --json", status=0, cpu=0, memory=1, out=3200, err="").wrong(1, 100) == []
