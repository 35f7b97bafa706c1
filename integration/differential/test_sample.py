"""A sample of `make differential` with a fixed seed, and proof that it detects a difference."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.differential import campaign, compare, pool
from integration.differential.model import Case, Feature
from integration.harness import SLOW

SEED = 20261128
SECONDS = 50 * SLOW  # one minute with the start of the workers and repeated cases
CONFIGS, SEQUENCES = 150, 50  # at most
LEAST = 20  # cases, even on the slowest machine

# The wrapper's change to config.json, which pyrunc then reads, and the fact that must reveal it.
SABOTAGE = {
    "noNewPrivileges": ("c['process']['noNewPrivileges'] = False", "out inside no_new_privs"),
    "a capability more": (
        "c['process']['capabilities']['bounding'].append('CAP_SYS_ADMIN')",
        "out inside caps bounding",
    ),
    "a mount without nodev": ("c['mounts'][3]['options'].remove('nodev')", "out inside mount /dev/shm options"),
    "no mask": ("c['linux']['maskedPaths'].remove('/proc/keys')", "out inside mount /proc/keys is"),
    "another cgroup": ("c['linux']['cgroupsPath'] = '/box/other'", "step 0 create cgroup"),
    "a variable": ("c['process']['env'].append('LEAK=1')", "out inside env"),
    "a hook left out": ("c['hooks'].pop('poststop')", "hooks order"),
    "a failing create": ("c['process']['args'] = ['/missing']", "step 0 create rc"),
}
CASE = Case(
    "config 0 of seed 0",
    [Feature("hooks", [["/hooks", {"poststop": [{"path": "/w/hook/hook-poststop-0"}]}]])],
    [["create"], ["start"], ["wait"], ["delete"]],
)
WRAPPER = """#!/usr/bin/python3
import json, os, sys
if "create" in sys.argv:
    c = json.load(open("/w/b/config.json"))
    {change}
    json.dump(c, open("/w/b/config.json", "w"))
os.execv({real!r}, [{real!r}, *sys.argv[1:]])
"""


@pytest.fixture(scope="module")
def peers() -> dict[str, str]:
    if os.geteuid() != 0:
        pytest.skip("containers need root")
    found = pool.runtimes()
    if not os.access(found["pyrunc"], os.X_OK):
        pytest.skip("pyrunc is not built")
    missing = {"runc", "crun"} - found.keys()
    if missing or not found["runc"].startswith(str((harness.REPO / "build/peers").resolve())):
        pytest.skip("the newest runc and crun are needed: bench/peers.sh")
    return found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield pool.build_program(harness.REPO / "build/differential")


def in_time() -> Iterator[Case]:
    """Alternate configs and sequences while time remains."""
    end = time.monotonic() + SECONDS
    configs, sequences = campaign.cases(SEED, CONFIGS, 0), campaign.cases(SEED, 0, SEQUENCES)
    while time.monotonic() < end:
        some = [*itertools.islice(configs, 3), *itertools.islice(sequences, 1)]
        if not some:
            return
        yield from some


@pytest.mark.slow
def test_sample(peers: dict[str, str], program: Path) -> None:
    """An entry explains every difference."""
    work = campaign.Campaign(program, peers, min(os.cpu_count() or 1, 4))
    work.reducing = False
    results = work.run(in_time())
    assert not results.errors, "\n".join(results.errors)
    assert not results.unexplained, "\n".join(entry.text() for entry in results.unexplained)
    assert min(results.cases["config"], results.cases["sequence"]) >= LEAST / 4, results.cases
    assert results.compared > 100 * results.cases.total(), "most programs reported nothing"


@pytest.fixture(scope="module")
def honest(peers: dict[str, str], program: Path) -> campaign.Answer:
    """The answer to the sabotaged case."""
    worker = pool.Worker(program, peers)
    try:
        return worker.ask(CASE)
    finally:
        worker.close()


@pytest.fixture(scope="module")
def saboteur(program: Path) -> Iterator[tuple[pool.Worker, Path]]:
    """A worker whose pyrunc is a wrapper, and the wrapper."""
    wrapper = program.parent / f"wrapper.{os.getpid()}"
    worker = pool.Worker(program, {"pyrunc": str(wrapper)})
    try:
        yield worker, wrapper
    finally:
        worker.close()
        wrapper.unlink(missing_ok=True)


@pytest.mark.parametrize("name", SABOTAGE)
def test_a_difference_is_noticed(
    name: str, peers: dict[str, str], honest: campaign.Answer, saboteur: tuple[pool.Worker, Path]
) -> None:
    change, fact = SABOTAGE[name]
    worker, wrapper = saboteur
    wrapper.write_text(WRAPPER.format(change=change, real=peers["pyrunc"]))
    wrapper.chmod(0o755)
    own = worker.ask(CASE)
    answer = {key: value | own[key] for key, value in honest.items()}  # the other runtimes' facts are unchanged
    assert [one for one in compare.differences(honest["facts"]) if one.fact == fact and one.alone] == []
    assert [one.fact for one in compare.differences(answer["facts"]) if one.fact == fact and one.alone] == [fact]
    assert fact in [one.fact for one in campaign.unexplained(CASE, answer)]
