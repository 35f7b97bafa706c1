"""Both sides of the plan come from one table: a stale copy would make the two disagree."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "native" / "gen_plan.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_committed_copies_are_up_to_date() -> None:
    result = check(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_stale_copy_is_noticed(tmp_path: Path) -> None:
    for name in ("native/gen_plan.py", "native/plan.def", "native/init/plan_ops.h", "pyrunc/plan/ops.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert check(tmp_path).returncode == 0
    table = tmp_path / "native" / "plan.def"
    table.write_text(table.read_text(encoding="utf-8").replace("mask:u32", "umask:u32"), encoding="utf-8")
    assert check(tmp_path).returncode != 0
