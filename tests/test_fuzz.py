"""A few runs of each target of `make fuzz`: the Python targets with hypothesis, the C targets
compiled and run on their seeds.

`tests/fuzz/README.md` explains a failing example.
"""

from __future__ import annotations

import pathlib
import random
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyrunc.errors import PyruncError

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

from fuzz import __main__ as runner
from fuzz import configs, decoder, targets
from fuzz.draw import Draw

# Examples of each: about a second and a half of processor time.
EXAMPLES = {
    "config": 600, "process": 600, "resources": 400, "plan-roundtrip": 500, "devices": 400, "texts": 1500,
    "mount-options": 1500, "seccomp": 200, "seccomp-description": 150, "state": 400, "argv": 1000,
    "records": 400, "image-layer": 300, "image-documents": 600, "criu-messages": 2000,
}  # fmt: skip


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[targets.Target]:
    name = request.param
    if name == "plan-roundtrip" and shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    with targets.prepared(name, tmp_path) as prepared:
        yield prepared


@pytest.mark.parametrize(("target", "name"), [(name, name) for name in targets.TARGETS], indirect=["target"])
def test_target(target: targets.Target, name: str) -> None:
    """Chosen by hypothesis, which makes a failing input small; and as many at random, which are
    larger."""

    @settings(max_examples=EXAMPLES[name] // 4, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.binary(max_size=120))
    def examples(data: bytes) -> None:
        tried.append(data)
        target(data)

    tried: list[bytes] = []
    examples()
    assert len(tried) > EXAMPLES[name] // 8
    chance = random.Random(name)
    for _ in range(EXAMPLES[name]):
        target(chance.randbytes(chance.choice((4, 16, 48, 120, 400))))


def test_every_target_has_examples() -> None:
    assert set(EXAMPLES) == set(targets.TARGETS)


def test_configs_are_worth_the_time() -> None:
    """Changed configs are rejected often but not always: both paths must be taken."""
    chance, plans = random.Random(1), 0
    for _ in range(200):
        try:
            targets.read_config(configs.document_bytes(Draw(b""), configs.config(Draw(chance.randbytes(60)))))
            plans += 1
        except PyruncError:
            continue
    assert 40 < plans < 190


def test_the_round_trip_can_fail(tmp_path: pathlib.Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    decoder.build(tmp_path / "plan_dump")
    plan = targets.read_config(configs.document_bytes(Draw(b""), configs.documents()[0]))
    with decoder.Decoder(tmp_path / "plan_dump") as process:
        blob = plan.encode()
        assert process.decode(blob) == decoder.expected(plan)
        op, policy, numbers, strings = plan.steps[-1]
        args: Any = strings[0]
        plan.steps[-1] = (op, policy, numbers, ([*args, "more"], strings[1]))
        assert process.decode(blob) != decoder.expected(plan)
        assert process.decode(plan.encode()) != decoder.expected(plan)  # its count says otherwise
        assert len(process.decode(blob[:-1])) == 4


@pytest.mark.parametrize("name", runner.C_TARGETS)
def test_c_target(name: str, tmp_path: pathlib.Path) -> None:
    """The target compiles without a warning, and runs its seeds and some thousand other inputs."""
    compiler = runner.clang()
    if not compiler:
        pytest.skip("no clang with libFuzzer: .ci/require fuzz")
    result = runner.run_c(name, compiler, tmp_path, 20, 3000)
    assert result.crashes == 0, result.text
    assert result.runs >= 3000 or result.seconds >= 20
