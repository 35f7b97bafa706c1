"""What a guest of another architecture gets: Python packages, and pyrunc, built by such a guest.

Emulated, pip and the compiler take most of the time. So the virtual environment is unpacked here,
where pip also compiles its modules, and what a guest has built is kept in build/vm until a source
changes. Nothing is compiled here: the build in the guest is the one that `make build` does on such
a machine.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from integration.harness import SLOW
from integration.vm import images
from integration.vm.images import REPO, Unavailable
from integration.vm.machine import Job, Machine

PROJECT = REPO / "pyproject.toml"
# What `make build` reads; the sources are below these.
READ = ("pyrunc", "native", "meson.build", "meson.options", "pyproject.toml", "Makefile", "README.md", "LICENSE", ".ci")
SOURCES = "/job/files/src"  # in the guest
BUILD_TIMEOUT = 1200.0 * SLOW  # seconds
NAMES = {"arm64": "aarch64", "amd64": "x86_64"}
PYTHONS = {"bookworm": "3.11", "trixie": "3.13", "testing": "3.14"}  # of Debian's suites


def sources() -> list[str]:
    """The files that git tracks or would track, relative to the root of the tree."""
    listed = images.run(["git", "-C", str(REPO), "ls-files", "-co", "--exclude-standard"], "listing the sources")
    return [name for name in listed.splitlines() if (REPO / name).is_file()]


def requirements() -> list[str]:
    """What `make test-tools build` installs with pip in the guest. Raises Unavailable."""
    project = tomllib.loads(PROJECT.read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wanted += [*extras["image"], *extras["test"], "pip", "setuptools", "wheel"]
    # pip judges the markers by the Python that runs it.
    guest = {"python_version": python(), "python_full_version": python() + ".0"}
    found = map(Requirement, wanted)
    return [f"{one.name}{one.specifier}" for one in found if one.marker is None or one.marker.evaluate(guest)]


def python() -> str:
    """The version of the guest's Python. Raises Unavailable."""
    suite = images.suite()
    if suite not in PYTHONS:
        raise Unavailable(f"PYRUNC_VM_SUITE={suite}: not one of {', '.join(PYTHONS)}")
    return PYTHONS[suite]


def environment(arch: str) -> Path:
    """A virtual environment for Debian's Python of another architecture. Raises Unavailable."""
    version, wanted = python(), requirements()
    path = images.directory() / f"venv-{arch}-{version}"
    stamp = path / "requirements"
    if stamp.exists() and stamp.read_text().split("\n") == wanted:
        return path
    site, programs = path / f"lib/python{version}/site-packages", path / "bin"
    shutil.rmtree(path, ignore_errors=True)
    fetch = [sys.executable, "-m", "pip", "-q", "install", "--disable-pip-version-check", "--target", str(site)]
    foreign = ["--only-binary=:all:", "--python-version", version]
    for tag in ("manylinux_2_17", "manylinux2014", "manylinux_2_28", "manylinux_2_34"):
        foreign += ["--platform", f"{tag}_{NAMES[arch]}"]
    images.run([*fetch, *foreign, *wanted], "installing packages for the guest")
    (site / "bin").rename(programs)
    for program in programs.iterdir():
        line, newline, rest = program.read_bytes().partition(b"\n")
        if line.startswith(b"#!"):
            program.write_bytes(f"#!{SOURCES}/.venv/bin/python3".encode() + newline + rest)
    for name in ("python3", "python", f"python{version}"):
        (programs / name).symlink_to("/usr/bin/python3")
    (path / "pyvenv.cfg").write_text(f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {version}\n")
    stamp.write_text("\n".join(wanted))
    return path


def key(machine: Machine, wanted: list[str]) -> str:
    """The key of a build: what is built, with what, and on what."""
    found = hashlib.sha256((machine.image / "recipe").read_bytes())
    found.update("\n".join(wanted).encode())
    for name in sources():
        if name in READ or name.partition("/")[0] in READ:
            found.update(f"{name}\n{(REPO / name).stat().st_mode:o}\n".encode() + (REPO / name).read_bytes())
    return found.hexdigest()


def put(job: Job, machine: Machine) -> None:
    """Add the virtual environment and what was built. Raises Unavailable."""
    wanted = requirements()
    venv, archive = environment(machine.arch), images.directory() / f"built-{machine.arch}-{python()}.tar"
    stamp, current = archive.with_suffix(".key"), key(machine, wanted)
    job.put(venv, "src/.venv")
    if not (archive.exists() and stamp.exists() and stamp.read_text() == current):
        stamp.unlink(missing_ok=True)
        archive.write_bytes(build(machine, venv))
        stamp.write_text(current)
    job.put(archive, "built.tar")


def build(machine: Machine, venv: Path) -> bytes:
    """Build in a guest, and return an archive of what was built. Raises Unavailable."""
    print(f"vm: building for {machine.arch} in a guest", file=sys.stderr, flush=True)
    job = Job(["sh", "src/integration/vm/build.sh"], {}, {})
    for name in sources():
        job.put(REPO / name, "src/" + name)
    job.put(venv, "src/.venv")
    status = machine.run(job, BUILD_TIMEOUT, boot_timeout=BUILD_TIMEOUT / 2)
    if status != 0 or not job.result:
        raise Unavailable(f"the build in the guest ended with {status}")
    return job.result
