"""Generated files agree with their tables: both sides of the plan, and the types of config.json."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from test_layers import MODULES, imports

ROOT = Path(__file__).resolve().parent.parent


def check(root: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(root / "native" / "gen_plan.py"), "--check"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_committed_copies_are_up_to_date() -> None:
    result = check(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_stale_copy_is_noticed(tmp_path: Path) -> None:
    made = ("native/init/plan_ops.h", "native/init/handlers.h", "native/init/handlers.c", "pyrunc/plan/ops.py")
    for name in ("native/gen_plan.py", "native/plan.def", *made):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    assert check(tmp_path).returncode == 0
    table = tmp_path / "native" / "plan.def"
    table.write_text(table.read_text(encoding="utf-8").replace("mask:u32", "umask:u32"), encoding="utf-8")
    assert check(tmp_path).returncode != 0


def test_types_of_the_config_are_up_to_date() -> None:
    command = [sys.executable, str(ROOT / "contrib" / "config_types.py"), "--check"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_stale_types_of_the_config_are_noticed(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "pyrunc", tmp_path / "pyrunc", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "contrib").mkdir()
    script = shutil.copy(ROOT / "contrib" / "config_types.py", tmp_path / "contrib")
    command = [sys.executable, str(script), "--check"]
    assert subprocess.run(command, check=False).returncode == 0
    schema = tmp_path / "pyrunc" / "spec" / "schema.py"
    schema.write_text(
        schema.read_text(encoding="utf-8").replace('"hostname": STRING', '"hostname": U32'), encoding="utf-8"
    )
    assert subprocess.run(command, check=False).returncode == 1


def test_only_type_checkers_import_the_types_of_the_config() -> None:
    assert not [
        name for name, path in MODULES.items() if "pyrunc.spec.types" in {target for target, _ in imports(path)}
    ]
