"""Hot verbs import few modules: start-up is most of their time (docs/adr/0006-core-phase.md).

`json` costs 6 ms, `enum` 3, `subprocess` 10; `pyrunc state` may take 4 in total.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from test_layers import MODULES, imports

ROOT = Path(__file__).resolve().parent.parent
HOT_VERBS = ["create", "start", "state", "kill", "delete", "run", "exec"]
# Builtin in every interpreter, so that the core phase can import them.
ALLOWED = {"sys", "posix", "errno", "_struct", "time", "_signal", "select", "fcntl", "marshal"}
TYPING_ONLY = {"__future__", "typing", "collections.abc"}
# Cold modules: no hot verb may need one at module level.
COLD = {
    "pyrunc.plan.show", "pyrunc.hints", "pyrunc.verbs.spec", "pyrunc.verbs.features", "pyrunc.verbs.list",
    "pyrunc.container.update", "pyrunc.container.processes", "pyrunc.container.events", "pyrunc.cgroup.stats",
    "pyrunc.seccomp_tools.profile", "pyrunc.trace",
    "pyrunc.verbs.doctor", "pyrunc.doctor", "pyrunc.doctor.run", "pyrunc.doctor.machine",
}  # fmt: skip
# (module, what it imports in a function): after interpreter.complete(), or under a plain
# interpreter only.
COLD_IMPORTS = {
    ("pyrunc.interpreter", "_pyrunc_launcher"),
    ("pyrunc.interpreter", "encodings"),
    ("pyrunc.native.binding", "_pyrunc_launcher"),
    ("pyrunc.seccomp", "_sha2"),
}


def hot_modules() -> set[str]:
    """Everything that the hot verbs import at module level, and pyrunc's own modules that they
    import in functions."""
    todo = ["pyrunc.__main__", "pyrunc.cli", "pyrunc.launch.create", *(f"pyrunc.verbs.{verb}" for verb in HOT_VERBS)]
    seen: set[str] = set()
    while todo:
        name = todo.pop()
        if name in MODULES and name not in seen:
            seen.add(name)
            todo += [module for module, top in imports(MODULES[name]) if top and module.startswith("pyrunc")]
    return seen


HOT = sorted(hot_modules())


def test_the_hot_set_is_the_runtime() -> None:
    assert {"pyrunc.launch.create", "pyrunc.state", "pyrunc.plan.create", "pyrunc.spec.validate"} <= set(HOT)
    assert not COLD & set(HOT)
    assert not [name for name in HOT if name.startswith("pyrunc.seccomp_tools")]


@pytest.mark.parametrize("name", HOT)
def test_hot_module_imports_only_builtins(name: str) -> None:
    outside = {
        module for module, top in imports(MODULES[name])
        if not module.startswith("pyrunc") and module not in TYPING_ONLY and (top or (name, module) not in COLD_IMPORTS)
    }  # fmt: skip
    assert outside <= ALLOWED


RUN = """
import sys
sys.path.append({root!r})
before = set(sys.modules)
from pyrunc.__main__ import run
status = run({argv!r})
after = sorted(set(sys.modules) - before)
sys.stderr.write("\\n" + repr([status, after]))
"""


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["--help"], 0),
        (["state", "no-such-container"], 1),
        (["kill", "no-such-container", "KILL"], 1),
        (["delete", "no-such-container"], 1),
        (["start", "no-such-container"], 1),
        (["ps", "--format", "json", "no-such-container"], 1),  # not hot, but engines call them to probe
        (["pause", "no-such-container"], 1),
        (["resume", "no-such-container"], 1),
        (["events", "--stats", "no-such-container"], 1),
        (["update", "--memory", "64m", "no-such-container"], 1),
        (["exec", "no-such-container", "true"], 255),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else str(value),
)
def test_hot_verb_loads_only_builtins(argv: list[str], status: int, tmp_path: Path) -> None:
    """The same at run time, which includes imports inside functions."""
    if status:
        argv = ["--root", str(tmp_path / "state"), *argv]
    code = RUN.format(root=str(ROOT), argv=argv)
    result = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    got, loaded = eval(result.stderr.rpartition("\n")[2])
    assert got == status, result.stderr
    foreign = {module for module in loaded if not module.startswith("pyrunc")}
    # The freezer drops `from __future__`; -S hides cffi here.
    assert foreign <= ALLOWED | {"__future__"}, foreign


def test_verbs_for_people_are_not_in_the_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every start would pay for the import: a module of 10 KiB takes 20,000 instructions."""
    monkeypatch.syspath_prepend(str(ROOT / "native/launcher"))
    import closure
    import freeze
    import pyconfig

    launchers = closure.BUILTIN | {*pyconfig.lacks()}
    kept = freeze.preloadable([(name, path) for name, path in MODULES.items()], launchers)
    assert set(HOT) - {"pyrunc.__main__"} <= {*kept, "pyrunc.__main__"}
    assert not [name for name in kept if name.startswith(freeze.COLD)]


def test_launcher_stays_in_its_core_phase(launcher: Path, tmp_path: Path) -> None:
    """The built executable opens nothing of the standard library for a hot verb."""
    if b"_pyrunc_launcher" not in launcher.read_bytes():
        pytest.skip("this launcher executes an interpreter instead of embedding one")
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-e", "trace=open,openat", "-o", str(trace), str(launcher)]
    try:
        subprocess.run([*command, "--root", str(tmp_path), "state", "no"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("strace is not installed")
    if not trace.exists() or "openat(" not in trace.read_text():
        pytest.skip("strace cannot trace here")
    assert "/encodings/" not in trace.read_text()
    info = subprocess.run([str(launcher), "features"], capture_output=True, text=True, check=True)
    assert json.loads(info.stdout)["ociVersionMax"]
