"""Build images and install QEMU from Debian packages, using the mirror in this machine's apt
sources.

Images are kept in build/vm (PYRUNC_VM_DIR). They are rebuilt monthly and when their inputs change.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from integration.vm.machine import find_emulator

HERE = Path(__file__).resolve().parent
REPO = HERE.parent.parent
PARTS = ("mkimage.sh", "systemd.sh", "agent.sh", "agent.service", "initramfs.sh")
GOOD_QEMU = 8  # older versions are half as fast and have a bug (machine.py)
QEMU_PACKAGE = {"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}
TOOLS = {"mmdebstrap": "mmdebstrap", "mke2fs": "e2fsprogs", "depmod": "kmod", "xz": "xz-utils", "zstd": "zstd"}
TOOLS |= {"setpriv": "util-linux", "busybox": "busybox-static"}


class Unavailable(Exception):
    """Raised if no machine is available; the text names what is missing."""


def directory() -> Path:
    """The directory of the images."""
    return Path(os.environ.get("PYRUNC_VM_DIR") or REPO / "build/vm")


def release() -> str:
    """This machine's Debian suite. A guest that gets what was built here has the same suite and thus
    the same Python. Raises Unavailable."""
    facts = {}
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        facts[key] = value.strip('"')
    if facts.get("ID") != "debian" or not facts.get("VERSION_CODENAME"):
        raise Unavailable(f"images are made on Debian, this is {facts.get('PRETTY_NAME', 'another system')}")
    return facts["VERSION_CODENAME"]


def suite() -> str:
    """The Debian suite of a guest that builds pyrunc itself: PYRUNC_VM_SUITE, else this machine's.
    Raises Unavailable."""
    return os.environ.get("PYRUNC_VM_SUITE") or release()


def mirror() -> str:
    """The mirror of Debian's main archive in this machine's apt sources.  Raises Unavailable."""
    wanted = "$(ORIGIN)/$(LABEL) $(REPO_URI)"
    for update in (False, True):  # origins are known only after an update
        if update:
            apt("update")
        listed = run(["apt-get", "indextargets", "--format", wanted, "Created-By: Packages"], "reading the apt sources")
        for line in listed.splitlines():
            origin, _, address = line.partition(" ")
            if origin == "Debian/Debian":
                return address
    raise Unavailable("the apt sources name no mirror of Debian's main archive")


def run(argv: list[str], what: str) -> str:
    """Run a program and return its output. Raises Unavailable with the end of its stderr if it
    fails."""
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=1800, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{what}: {error}") from error
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{what}: {argv[0]} ended with {done.returncode}: " + " | ".join(lines[-3:]))
    return done.stdout


def apt(*arguments: str) -> None:
    """Run apt-get, waiting for its lock. Raises Unavailable."""
    options = ["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    run(["apt-get", *options, *arguments], "apt-get " + arguments[0])


def provide(arch: str) -> None:
    """Install the packages needed to build and run a machine. Raises Unavailable."""
    lacking = [package for program, package in TOOLS.items() if shutil.which(program) is None]
    _, version = find_emulator(arch)
    if os.geteuid() != 0:
        if version == 0:
            lacking.append(QEMU_PACKAGE[arch])
        if lacking:
            raise Unavailable("not installed, and we are not root: " + " ".join(lacking))
        return
    if lacking:
        apt("update")
        apt("install", "-y", "--no-install-recommends", *lacking)
    if version < GOOD_QEMU:
        install_qemu(arch)
    if find_emulator(arch)[1] == 0:
        raise Unavailable(f"{QEMU_PACKAGE[arch]} is not installed")


def install_qemu(arch: str) -> None:
    """Install QEMU, from backports if the suite's own is old; apt's own lists do not change.
    Raises Unavailable."""
    suite, address = release(), mirror()
    state = directory() / "apt"
    (state / "lists/partial").mkdir(parents=True, exist_ok=True)
    sources = state / "sources.list"
    sources.write_text("".join(f"deb {address} {name} main\n" for name in (suite, suite + "-backports")))
    options = ["-o", f"Dir::Etc::SourceList={sources}", "-o", "Dir::Etc::SourceParts=/dev/null"]
    options += ["-o", f"Dir::State::Lists={state / 'lists'}"]
    install = [*options, "install", "-y", "--no-install-recommends"]
    try:
        apt(*options, "update")
        apt(*install, "-t", suite + "-backports", QEMU_PACKAGE[arch])
    except Unavailable as error:
        print(f"vm: {error}; taking the suite's own QEMU", file=sys.stderr)
        sources.write_text(f"deb {address} {suite} main\n")
        apt(*options, "update")
        apt(*install, QEMU_PACKAGE[arch])
    finally:
        shutil.rmtree(state, ignore_errors=True)


def image(arch: str, kernel_suite: str, packages: list[str], variant: str = "", suite: str = "") -> Path:
    """The directory of an image, built if there is no current one. Raises Unavailable.

    ``variant`` keeps images of different packages apart; ``suite`` defaults to this machine's.
    """
    provide(arch)
    own = release()
    suite = suite or own
    recipe = hashlib.sha256(b"".join((HERE / part).read_bytes() for part in PARTS))
    recipe.update(" ".join([arch, suite, kernel_suite, *packages, time.strftime("%Y-%m")]).encode())
    path = directory() / "-".join(filter(None, (arch, kernel_suite, variant, suite if suite != own else "")))
    stamp = path / "recipe"
    if stamp.exists() and stamp.read_text() == recipe.hexdigest():
        return path
    if os.geteuid() != 0:
        raise Unavailable("making an image needs root")
    print(f"vm: making {path} ({arch}, {suite}, kernel of {kernel_suite})", file=sys.stderr, flush=True)
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    options = ["-o", str(path), "-a", arch, "-s", suite, "-k", kernel_suite, "-m", mirror()]
    started = time.monotonic()
    run([str(HERE / "mkimage.sh"), *options, "-p", ",".join(packages)], "making the image")
    stamp.write_text(recipe.hexdigest())
    print(f"vm: made in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return path
