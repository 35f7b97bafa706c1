"""The encoded plan, decoded by the rules of native/init/plan.h: in Python and by init's loader."""

from __future__ import annotations

import pathlib
import random
import re
import shutil
import struct
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plan_support import Facts, base, case_names, compiled, load_case, merge, options
from pyrunc.errors import ConfigError, PyruncError
from pyrunc.plan import Plan, encode, ops
from pyrunc.plan.create import compile_create
from work import calls

NATIVE = pathlib.Path(__file__).parent.parent / "native"


def decode(data: bytes) -> tuple[list[tuple[int, int, tuple[int, ...], tuple[object, ...]]], int, int]:
    """Steps, nfds and npreserve; asserts every rule of plan.h that a reader relies on."""
    magic, abi, size, nsteps, nfds, npreserve, area, reserved = struct.unpack_from("=8I", data)
    assert (magic, abi, size, reserved) == (0x4E505250, ops.ABI, len(data), 0)
    assert area == 32 + 52 * nsteps
    assert data[area] == 0 and data[-1] == 0
    found = []
    for index in range(nsteps):
        op, policy, *rest = struct.unpack_from("=HH12I", data, 32 + 52 * index)
        numbers, offsets = rest[:8], rest[8:]
        args = ops.OPS[op][2]
        used = {slot for _, kind, _, slot, _ in args for slot in ((slot, slot + 1) if kind == "u64" else (slot,))}
        assert [number for slot, number in enumerate(numbers) if slot not in used and number] == []
        strings = []
        for _, kind, _, number, slot in args:
            if slot >= 0:
                strings.append(read(data, area + offsets[slot], kind, numbers[number]))
        assert offsets[len(strings) :] == [0] * (4 - len(strings))
        found.append((op, policy, tuple(numbers), tuple(strings)))
    return found, nfds, npreserve


def read(data: bytes, at: int, kind: str, count: int) -> object:
    if kind == "blob":
        assert count == 0 or at % 8 == 0
        assert at + count <= len(data)
        return data[at : at + count]
    items = []
    for _ in range(count if kind == "list" else 1):
        end = data.index(b"\0", at)
        items.append(data[at:end].decode("utf-8", "surrogateescape"))
        at = end + 1
    return items if kind == "list" else items[0]


def same(plan: Plan) -> None:
    steps, nfds, npreserve = decode(plan.encode())
    expected = [
        (op, policy, numbers + (0,) * (8 - len(numbers)), strings) for op, policy, numbers, strings in plan.steps
    ]
    assert steps == expected
    assert (nfds, npreserve) == (1 + len(plan.fds), plan.npreserve)


def golden_plans() -> list[tuple[str, Plan]]:
    plans = []
    for name in case_names():
        try:
            plans.append((name, compile_create(*load_case(name))))
        except ConfigError:
            continue
    return plans


def test_golden_plans_survive() -> None:
    plans = golden_plans()
    assert len(plans) > 60
    for _, plan in plans:
        same(plan)


TEXT = st.text(st.characters(blacklist_characters="\0", blacklist_categories=["Cs"]), max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(TEXT, max_size=4), max_size=8), st.lists(st.binary(max_size=40), max_size=4), st.lists(TEXT))
def test_strings_lists_and_blobs_round_trip(lists: list[list[str]], blobs: list[bytes], texts: list[str]) -> None:
    """This includes empty lists, lists of empty strings, and strings that begin like lists."""
    plan = Plan()
    for items in lists:
        plan.execve("x", args=items, env=[*items, ""])
        plan.hook("x", path="p", args=items, env=items[:1], state=["a", "b"])
    for blob in blobs:
        plan.groups("x", gids=blob)
    for text in texts:
        plan.hostname("x", name=text)
        plan.find_exe("x", file=text, path=text + text)
    same(plan)


def test_strings_are_stored_once() -> None:
    plan = Plan()
    for index in range(50):
        plan.mount("x", fstype="tmpfs", source="a-source", dest=f"/{index}", data=["size=1m", "mode=755"])
    data = plan.encode()
    assert data.count(b"a-source\0") == 1
    assert data.count(b"size=1m\0mode=755\0") == 1
    same(plan)


def test_path_bytes_survive() -> None:
    plan = Plan()
    plan.root("x", path="/bundle/\udcff")
    assert b"/bundle/\xff\0" in plan.encode()
    same(plan)


@pytest.mark.parametrize("args", [["a\0b"], ["a", "b\0"], ["a", "\0"]])
def test_nul_in_a_list_is_refused(args: list[str]) -> None:
    """A NUL is rejected even if its string looks like a pooled list."""
    plan = Plan()
    plan.execve("x", args=["a", "b"], env=["a", "b", ""])
    plan.execve("x", args=args)
    with pytest.raises(PyruncError, match="NUL"):
        plan.encode()


def test_nul_in_a_string_is_refused() -> None:
    plan = Plan()
    plan.execve("x", args=["a", "b"])
    plan.hostname("x", name="a\0b\0")
    with pytest.raises(PyruncError, match="NUL"):
        plan.encode()


def test_too_many_steps() -> None:
    plan = Plan()
    for _ in range(encode.MAX_STEPS + 1):
        plan.setsid("x")
    with pytest.raises(PyruncError, match=f"{encode.MAX_STEPS + 1} steps"):
        plan.encode()


def test_too_many_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "MAX_SIZE", 4096)
    plan = Plan()
    plan.hostname("x", name="n" * 5000)
    with pytest.raises(PyruncError, match="more than 4096"):
        plan.encode()


def test_limits_match_the_header() -> None:
    header = (NATIVE / "init" / "plan.h").read_text(encoding="utf-8")
    assert int(re.search(r"PLAN_MAGIC\s+(0x\w+)u", header).group(1), 16) == encode.MAGIC  # type: ignore[union-attr]
    assert int(re.search(r"PLAN_MAX_STEPS\s+(\d+)u", header).group(1)) == encode.MAX_STEPS  # type: ignore[union-attr]
    assert re.search(r"PLAN_MAX_SIZE\s+\(64u << 20\)", header) and encode.MAX_SIZE == 64 << 20


# -- cost, as a number of calls, which is the same on every machine --------------------------------


def test_cost_of_the_default_plan() -> None:
    config, facts, opts = load_case("default")
    assert calls(lambda: compile_create(config, facts, opts).encode()) < 1600  # 1251 when this was written


def test_cost_is_linear_in_the_mounts() -> None:
    def work(count: int) -> tuple[int, int]:
        mounts = [{"destination": f"/m/{i}", "source": f"/src/{i}", "options": ["rbind", "ro"]} for i in range(count)]
        config = merge(base("bare"), {"mounts": mounts})
        plan = compile_create(config, Facts(), options())
        same(plan)
        return calls(lambda: compile_create(config, Facts(), options())), calls(plan.encode)

    few, many = work(200), work(2000)
    assert many[0] < 10.5 * few[0] and many[1] < 10.5 * few[1]


# -- the loader of init ----------------------------------------------------------------------------

HARNESS = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plan_load.h"

/* Stdin: records of a u32 length and that many bytes.  Stdout: one line each, "ok" or why not. */
int main(void)
{
    uint32_t len, step;

    while (fread(&len, 4, 1, stdin) == 1) {
        char *buf = aligned_alloc(8, ((size_t)len + 15) & ~(size_t)7);
        const char *why = "";
        if (!buf || fread(buf, 1, len, stdin) != len)
            return 1;
        puts(plan_check(buf, len, &why, &step) == 0 ? "ok" : why);
        free(buf);
    }
    return 0;
}
"""


@pytest.fixture(scope="session")
def loader(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """init's plan_load.c as a program, with sanitizers if the compiler has them."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    source = NATIVE / "init" / "plan_load.c"
    if not compiler or not source.exists():
        pytest.skip("needs a C compiler and native/init/plan_load.c")
    folder = tmp_path_factory.mktemp("loader")
    (folder / "main.c").write_text(HARNESS, encoding="utf-8")
    command = [
        compiler,
        "-std=gnu11",
        "-D_GNU_SOURCE",
        "-O1",
        "-g",
        f"-I{source.parent}",
        "main.c",
        str(source),
        "-o",
        "loader",
    ]
    for extra in (["-fsanitize=address,undefined", "-fno-sanitize-recover"], []):
        built = subprocess.run(command + extra, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        if built.returncode == 0:
            return folder / "loader"
    raise AssertionError(built.stderr)


def load(loader: pathlib.Path, plans: list[bytes]) -> list[str]:
    data = b"".join(struct.pack("=I", len(plan)) + plan for plan in plans)
    done = subprocess.run([loader], input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().splitlines()


def test_init_accepts_every_plan(loader: pathlib.Path) -> None:
    plans = golden_plans()
    blobs = [plan.encode() for _, plan in plans]
    filtered = compiled({"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}})
    filtered.set_filter(bytes(range(248)), 4, True)
    blobs.append(filtered.encode())
    assert load(loader, blobs) == ["ok"] * len(blobs)


def test_init_survives_damaged_plans(loader: pathlib.Path) -> None:
    """The encoder's output with flipped bytes: init answers each and does not crash."""
    data = compiled({"process": {"user": {"uid": 0, "gid": 0, "additionalGids": [1, 2]}}}).encode()
    random_bytes = random.Random(1)
    damaged = []
    for _ in range(2000):
        copy = bytearray(data)
        for _ in range(random_bytes.randint(1, 4)):
            copy[random_bytes.randrange(len(copy))] = random_bytes.randrange(256)
        damaged.append(bytes(copy[: random_bytes.choice([len(copy), len(copy), random_bytes.randrange(len(copy))])]))
    answers = load(loader, damaged)
    assert len(answers) == len(damaged)
    assert any(answer != "ok" for answer in answers)
