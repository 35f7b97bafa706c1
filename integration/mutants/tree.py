"""A copy of the checkout in which mutants run, with everything else that the tests need. It is
built once per run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from integration.mutants import recorder
from integration.mutants.mutant import HERE, ROOT

PARTS = ("pyrunc", "native", "tests", "integration", "contrib", "bench", "docs")
COMPILERS = ("gcc", "musl-gcc")


@dataclass
class Tree:
    """The paths of the copy; ``root`` is the checkout's copy."""

    base: Path  # contains everything below
    root: Path = field(init=False)

    def __post_init__(self) -> None:
        self.root = self.base / "tree"

    @property
    def extension(self) -> Path:
        """The shim that the copy's interpreters import."""
        return next((self.root / "pyrunc").glob("_shim.*.so"))

    @property
    def compilers(self) -> Path:
        """The directory that is first in PATH."""
        return self.base / "bin"

    @property
    def objects(self) -> Path:
        """Objects of unchanged code."""
        return self.base / "objects"

    @property
    def counted(self) -> Path:
        """Objects that count their basic blocks."""
        return self.base / "counted"

    def refresh(self) -> None:
        """Copy what has changed since the last call, and build."""
        self.base.mkdir(parents=True, exist_ok=True)
        for place in (self.objects, self.counted):
            place.mkdir(exist_ok=True)
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        wanted = {name for name in names if name and (ROOT / name).is_file()}
        wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "pyrunc").glob("_*.so")}
        for path in [path for path in self.root.rglob("*") if path.is_file() and not path.is_symlink()]:
            name = path.relative_to(self.root)
            if "__pycache__" not in name.parts and str(name) not in wanted and name.name != "_init":
                path.unlink()
        changed = [name for name in sorted(wanted) if copy(ROOT / name, self.root / name)]
        link = self.root / ".venv"
        if not link.is_symlink():
            link.symlink_to(ROOT / ".venv")
        self.tools()
        self.compile(changed)

    def tools(self) -> None:
        """Install the stand-ins for the compilers and the runtime, the probe, and init."""
        real = self.base / "real"
        for place in (real, self.compilers):
            place.mkdir(exist_ok=True)
        text = (HERE / "compiler.py").read_text()
        for name in COMPILERS:
            found = shutil.which(name)
            (real / name).unlink(missing_ok=True)
            if found:
                (real / name).symlink_to(found)
                (self.compilers / name).write_text(f"#!{sys.executable} -IS\n{text}")
                (self.compilers / name).chmod(0o755)
        recorder.runtime_script(self.base / "pyrunc", str(ROOT / ".venv/bin/python"), self.root)
        probe = self.base / "probe"
        source = self.root / "integration/probe"
        if not probe.exists() or probe.stat().st_mtime < max(path.stat().st_mtime for path in source.iterdir()):
            from integration import harness

            harness.build_probe(probe)
        if self.build_init(self.root / "pyrunc/_init", self.environment(self.objects)):
            raise SystemExit("init cannot be built")

    def compile(self, changed: list[str]) -> None:
        """Compile everything to bytecode, with the tests' assertions rewritten, because a sandbox
        cannot keep bytecode."""
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        python = str(ROOT / ".venv/bin/python")
        folders = [name for name in PARTS if (self.root / name).is_dir()]
        subprocess.run([python, "-m", "compileall", "-q", *folders], cwd=self.root, env=env, check=False)
        tests = [name for name in changed if Path(name).name.startswith("test_") and name.endswith(".py")]
        if tests:
            command = [python, "-m", "pytest", "-q", "--collect-only", "-p", "no:cacheprovider", *tests]
            subprocess.run(command, cwd=self.root, env=env, capture_output=True, check=False)

    def environment(self, *objects: Path, blocks: bool = False) -> dict[str, str]:
        """The additional environment of the processes in a sandbox."""
        env = {
            "PATH": f"{self.compilers}:{os.environ['PATH']}",
            "MUTANTS_COMPILERS": str(self.base / "real"),
            "REALGCC": str(self.base / "real/gcc"),  # for musl-gcc
            "MUTANTS_OBJECTS": ":".join(map(str, objects)),
            "PYRUNC_UNDER_TEST": str(self.base / "pyrunc"),
            "PYRUNC_TEST_PROBE": str(self.base / "probe"),
            "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
            "HOME": "/tmp",
            # The official schemas are in a Go module, and a sandbox has no network.
            "GOMODCACHE": os.environ.get("GOMODCACHE") or str(Path.home() / "go/pkg/mod"),
            "GOPROXY": "off",
        }
        return env | ({"MUTANTS_BLOCKS": recorder.BLOCKS} if blocks else {})

    def build_init(self, out: Path, env: dict[str, str]) -> int:
        """Build init as in the package, but without hardening; returns the compiler's status."""
        sources = [str(path) for path in sorted((self.root / "native/init").glob("*.c"))]
        flags = [
            "-Os",
            "-std=gnu11",
            "-D_GNU_SOURCE",
            "-fPIE",
            "-ffunction-sections",
            "-fdata-sections",
            "-s",
            "-Wl,--gc-sections",
        ]
        command = [sys.executable, str(self.root / "native/build_init.py"), "musl", str(out), "musl-gcc"]
        command += ["--", *flags, "--", *sources]
        return subprocess.run(command, env={**os.environ, **env}, check=False).returncode

    def build_shim(self, changed: str, out: Path) -> int:
        """Build the cffi extension from the objects of `make build` and a changed source; returns the
        compiler's status."""
        place = ROOT / "build/meson"
        entries = json.loads((place / "compile_commands.json").read_text())
        objects = {}
        for entry in entries:
            if entry["output"].startswith(("libshim.a.p/", "_shim.")):
                objects[entry["file"].removeprefix("../../")] = entry
        command = shlex.split(objects.pop(changed)["command"])
        source, mine = command.index(f"../../{changed}"), out.with_suffix(".o")
        command[source] = str(self.root / changed)
        command[command.index("-o") + 1] = str(mine)
        command[command.index("-MF") + 1] = "/dev/null"
        status = subprocess.run(command, cwd=place, check=False).returncode
        libraries = ["-lseccomp", "-Wl,--allow-shlib-undefined"]
        link = ["gcc", "-shared", "-o", str(out), str(mine), *(entry["output"] for entry in objects.values())]
        return status or subprocess.run([*link, *libraries], cwd=place, check=False).returncode


def copy(source: Path, target: Path) -> bool:
    """Copy a file unless the copy is current. Modification times identify it, so compiled tests
    stay valid."""
    if (
        target.exists()
        and target.stat().st_mtime == source.stat().st_mtime
        and target.stat().st_size == source.stat().st_size
    ):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)
    return True
