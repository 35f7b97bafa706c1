"""The builtin functions of the launcher and what stands in for cffi's ffi there (pyrunc/quick.py, gen_calls.py)."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from pyrunc.quick import Ffi

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "native" / "launcher"))

import gen_calls  # noqa: E402

SHIM = ROOT / "native" / "shim"
ARRAYS: list[tuple[str, Any]] = [
    ("int[2]", None), ("int[]", [5, -1]), ("int[]", 3), ("int[3]", (1, 2, 3)), ("int *", None), ("int *", -1),
    ("char[256]", None), ("char[]", 4096), ("uint32_t[]", 7), ("uint32_t[]", [0xFFFFFFFF]),
    ("unsigned short[4]", None), ("uint64_t *", None), ("uint64_t *", (1 << 64) - 1),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "init"), ARRAYS, ids=str)
def test_memory_is_as_cffi_makes_it(kind: str, init: Any) -> None:
    ffi: Any = pytest.importorskip("pyrunc._shim", reason="not built: make build").ffi
    ours, theirs = Ffi.new(kind, init), ffi.new(kind, init)
    assert bytes(ours) == bytes(ffi.buffer(theirs))
    assert ours.itemsize == ffi.sizeof(kind.split("[")[0].rstrip(" *"))
    if not kind.startswith("char"):
        assert ours[0] == theirs[0]
        assert Ffi.buffer(ours, 4) == ffi.buffer(theirs, 4)[:]


def test_numbers_that_do_not_fit_are_refused() -> None:
    with pytest.raises((ValueError, OverflowError)):
        Ffi.new("int[]", [1 << 31])
    with pytest.raises(KeyError):
        Ffi.new("struct pr_seccomp_head *")  # for cffi


def test_texts() -> None:
    memory = Ffi.new("char[]", 16)
    memory[:3] = b"abc"
    assert Ffi.string(memory) == b"abc"
    assert Ffi.string(Ffi.new("char[]", 0)) == b""
    assert Ffi.NULL is None and Ffi.from_buffer(b"x") == b"x"


def generated(tmp_path: Path) -> str:
    output = tmp_path / "calls.c"
    sys.argv = ["gen_calls.py", *(str(SHIM / name) for name in ("shim.h", "seccomp.h", "bus.h")), str(output)]
    gen_calls.main()
    return output.read_text()


def test_every_function_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    text = generated(tmp_path)
    headers = re.sub(r"/\*.*?\*/", "", "".join(path.read_text() for path in SHIM.glob("*.h")), flags=re.DOTALL)
    declared = set(re.findall(r"\b(pr_\w+)\(", headers))
    assert len(declared) > 25
    assert declared == set(re.findall(r'\{"(pr_\w+)", ', text))


def test_kinds_of_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [])
    kinds = dict(re.findall(r'take\("(\w+)", "(\w*)"', generated(tmp_path)))
    assert kinds["pr_socketpair"] == "wi"
    assert kinds["pr_memfd_sealed"] == "spQi"
    assert kinds["pr_recv_fd"] == "iwQiw"
    assert kinds["pr_prlimit"] == "iiQQ"
    assert kinds["pr_signals_catch"] == ""
    assert kinds["pr_bpf_prog_query"] == "iwi"
    assert kinds["pr_spawn_hook"] == "svvsiiw"
    assert kinds["pr_bus_add_number"] == "QcQ" and kinds["pr_bus_add_real"] == "Qd"
    assert kinds["pr_bus_open"] == "siw" and kinds["pr_bus_close"] == "Q"
    with pytest.raises(ValueError, match="weird"):
        gen_calls.parameter("weird **x")
