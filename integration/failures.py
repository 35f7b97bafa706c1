"""Containers that do not start, for the most common reasons that users report, and the lines that
explain why.

``python -m integration.failures`` runs them on pyrunc, runc and crun and writes docs/errors.md.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration import failures_running, harness
from integration.config import default_config
from integration.harness import REPO
from integration.machine import become_subreaper

ERRORS = REPO / "docs/errors.md"
Config = dict[str, Any]
Change = Callable[[Config, Path], object]
CASES: dict[str, tuple[Change, str]] = {}


def case(line: str) -> Callable[[Change], Change]:
    """A container that cannot start, and the line that explains why (ROOT: its root filesystem)."""

    def register(change: Change) -> Change:
        CASES[change.__name__] = (change, line)
        return change

    return register


def args(config: Config, *words: str) -> None:
    config["process"]["args"] = list(words)


def program(root: Path, data: bytes, mode: int = 0o755) -> str:
    (root / "bin").mkdir(exist_ok=True)
    (root / "bin/program").write_bytes(data)
    (root / "bin/program").chmod(mode)
    return "/bin/program"


def user(config: Config) -> None:
    config["process"]["user"] = {"uid": 1000, "gid": 1000}
    config["process"]["capabilities"] = {}


@case('/process/args/0 "serve": execvp: ENOENT: executable file not found in $PATH; looked for in "/usr/bin:/bin"')
def not_in_path(config: Config, root: Path) -> None:
    args(config, "serve")
    config["process"]["env"] = ["PATH=/usr/bin:/bin"]


@case(
    '/process/args/0 "/opt/app/serve": stat: ENOENT: no such file or directory;'
    ' "/opt" does not exist in the root filesystem'
)
def missing_program(config: Config, root: Path) -> None:
    args(config, "/opt/app/serve")


@case(
    '/process/args/0 "/bin/program": execve: ENOENT: exec /bin/program: no such file or directory;'
    ' the interpreter "/bin/bash" of its #! line does not exist in the root filesystem'
)
def missing_interpreter(config: Config, root: Path) -> None:
    args(config, program(root, b"#!/bin/bash -e\necho\n"))


@case(
    '/process/args/0 "/bin/program": execve: ENOENT: exec /bin/program: no such file or directory;'
    " its #! line ends with a carriage return: the file has the line ends of DOS"
)
def dos_line_ends(config: Config, root: Path) -> None:
    args(config, program(root, b"#!/bin/sh\r\necho\r\n"))


@case(
    '/process/args/0 "/bin/program": execve: ENOENT: exec /bin/program: no such file or directory;'
    ' its ELF loader "/lib/none.so" does not exist in the root filesystem'
)
def missing_loader(config: Config, root: Path) -> None:
    name = b"/lib/none.so\0"
    header = (
        b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 2, machine(), 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    args(config, program(root, header + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(name), len(name), 1) + name))


def machine() -> int:
    """This host's e_machine."""
    return {"x86_64": 62, "aarch64": 183}[os.uname().machine]


@case(
    '/process/args/0 "/bin/program": execve: ENOEXEC: exec /bin/program: exec format error;'
    " it is an ELF file for s390x, and this host is MACHINE"
)
def other_machine(config: Config, root: Path) -> None:
    args(config, program(root, b"\x7fELF\2\2\1" + bytes(9) + struct.pack(">HH", 2, 22) + bytes(200)))


@case(
    '/process/args/0 "/bin/program": execve: ENOEXEC: exec /bin/program: exec format error;'
    " it is neither an ELF file nor a script that starts with #!"
)
def no_program(config: Config, root: Path) -> None:
    args(config, program(root, b"echo hello\n"))


@case(
    '/process/args/0 "/bin/program": stat: EACCES: permission denied; its mode is 0644: `chmod +x` makes it executable'
)
def not_executable(config: Config, root: Path) -> None:
    args(config, program(root, b"#!/bin/sh\n", 0o644))


@case(
    '/process/args/0 "/private/serve": stat: EACCES: permission denied;'
    ' "/private" has mode 0700 and belongs to 0:0: 1000:1000 may not search it'
)
def directory_of_another_user(config: Config, root: Path) -> None:
    (root / "private").mkdir(0o700)
    (root / "private/serve").symlink_to("/probe")
    args(config, "/private/serve")
    user(config)


@case('/process/args/0 "/x/program": stat: EACCES: permission denied; /mounts/N has the option noexec')
def noexec(config: Config, root: Path) -> None:
    program(root, b"#!/probe\n")
    mount = {"destination": "/x", "type": "bind", "source": str(root / "bin"), "options": ["bind", "noexec"]}
    config["mounts"].append(mount)
    args(config, "/x/program")


@case(
    '/process/args/0 "/dev": stat: EACCES: permission denied: is a directory;'
    " the first of /process/args must be a program"
)
def directory(config: Config, root: Path) -> None:
    args(config, "/dev")


@case('/process/cwd "/probe": mkdir: ENOTDIR: not a directory')
def working_directory_is_a_file(config: Config, root: Path) -> None:
    config["process"]["cwd"] = "/probe"


@case('/root/path "ROOT/none": open: ENOENT: path not found; relative paths are relative to the bundle')
def missing_root(config: Config, root: Path) -> None:
    config["root"]["path"] = str(root / "none")


@case('/mounts/N/source "ROOT/none" (/x): open_tree: ENOENT: path not found; does the source exist on the host?')
def missing_source(config: Config, root: Path) -> None:
    config["mounts"].append({"destination": "/x", "type": "bind", "source": str(root / "none"), "options": ["bind"]})


@case(
    '/mounts/N/destination "/y/z": openat2: EROFS: read-only file system;'
    " the mount point cannot be created in a read-only filesystem"
)
def mount_point_in_read_only_mount(config: Config, root: Path) -> None:
    (root / "empty").mkdir()
    below = {"destination": "/y", "type": "bind", "source": str(root / "empty"), "options": ["bind", "ro"]}
    config["mounts"] += [below, {"destination": "/y/z", "type": "tmpfs", "source": "t", "options": []}]


@case('/mounts/N/destination "/probe": openat2: ENOTDIR: the mount is a directory, but the destination is not one')
def directory_on_file(config: Config, root: Path) -> None:
    bind = {"destination": "/probe", "type": "bind", "source": str(root), "options": ["bind"]}
    config["mounts"].append(bind)


@case(
    '/mounts/N/type "nosuchfs" (/x): fsopen: ENODEV: filesystem type unknown to this kernel;'
    " `cat /proc/filesystems` lists what this kernel can mount"
)
def unknown_filesystem(config: Config, root: Path) -> None:
    config["mounts"].append({"destination": "/x", "type": "nosuchfs", "source": "x", "options": []})


@case("config.json: /process/user/uid: expected an id mapped by /linux/uidMappings, found number 1000")
def user_without_mapping(config: Config, root: Path) -> None:
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        config["linux"][kind] = [{"containerID": 0, "hostID": 0, "size": 10}]
    config["process"]["user"] = {"uid": 1000, "gid": 0}


@case(
    '/linux/sysctl/net.none "net/none": open: ENOENT: path not found;'
    " this kernel has no such setting in the container's namespaces"
)
def unknown_sysctl(config: Config, root: Path) -> None:
    config["linux"]["sysctl"] = {"net.none": "1"}


@case('/linux/namespaces/N/path "ROOT/none": open: ENOENT: path not found')
def missing_namespace(config: Config, root: Path) -> None:
    spaces = config["linux"]["namespaces"]
    spaces[:] = [entry for entry in spaces if entry["type"] != "uts"]
    config.pop("hostname", None)
    spaces.append({"type": "uts", "path": str(root / "none")})


@case(
    '/process/args/0 "/probe": execve: EPERM: exec /probe: operation not permitted;'
    " /linux/seccomp/syscalls/0 fails execve with this error"
)
def seccomp_refuses_execve(config: Config, root: Path) -> None:
    rule = {"names": ["execve"], "action": "SCMP_ACT_ERRNO"}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


@case(
    "container init ended unexpectedly in state done: killed by SIGSYS (bad system call):"
    " /linux/seccomp/syscalls/0 kills execve"
)
def seccomp_kills_at_execve(config: Config, root: Path) -> None:
    rule = {"names": ["execve"], "action": "SCMP_ACT_KILL_PROCESS"}
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


@case('/hooks/prestart/0 "/bin/sh": error running prestart hook #0: exit status 3: no network')
def failing_hook(config: Config, root: Path) -> None:
    config["hooks"] = {"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "echo no network >&2; exit 3"]}]}


def expected(line: str, root: Path) -> str:
    """The pattern of a case's line."""
    text = re.escape(line.replace("MACHINE", os.uname().machine)).replace("ROOT", re.escape(str(root)))
    return text.replace("/N/", r"/\d+/").replace("/N\\ ", r"/\d+\ ")


def title(name: str) -> str:
    """A case's heading."""
    return name.replace("_", " ").capitalize().replace("Dos ", "DOS ")


RUNTIMES = {
    "pyrunc": REPO / ".venv/bin/pyrunc",
    "runc": REPO / "build/peers/bin/runc-new",
    "crun": REPO / "build/peers/bin/crun",
}
HEAD = """\
# When a container does not start

The failures that users of container engines report most often, and the output of pyrunc, runc and
crun (exit status: last line). pyrunc's line names the field of config.json, the value, the system
call, the kernel's error, and the cause or the fix if it can be determined. Engines parse some of the
words, so these are the same as in runc.

`integration/test_explained.py` tests pyrunc's lines. `python -m integration.failures` writes this
page; these are the lines of {versions}. ROOT is the root filesystem of the container.
"""


def last_line(text: str, root: Path) -> str:
    """The last line of stderr, without parts that change from run to run."""
    found = (text.strip().splitlines() or ["(nothing)"])[-1].replace(str(root), "ROOT")
    found = found.replace(str(root.parent), "BUNDLE")
    return re.sub(r'^time="[^"]*" ', "", found)


def observe(name: str, runtime: harness.Runtime, place: Path, template: Path) -> str:
    """A runtime's result for a case: its exit status and the last line it prints."""
    bundle = harness.Bundle(place, template, default_config(f"/{place.name}"))
    root = bundle.path / "rootfs"
    CASES[name][0](bundle.config, root)
    bundle.save()
    done = runtime.call("--root", str(place.parent / "state"), "run", "--bundle", str(place), place.name)
    return f"{done.rc}: {last_line(done.err, root)}"


def observe_running(attempt: failures_running.Attempt, box: harness.Box) -> str:
    """The same for a case with a container that exists."""
    made = box.container()
    try:
        done = attempt(made)
        found = last_line(done.err, made.bundle.rootfs).replace(str(box.path), "BOX").replace(made.id, "ID")
        return f"{done.rc}: {found}"
    finally:
        box.close()


def entry(name: str, lines: list[str]) -> str:
    """A case as docs/errors.md shows it."""
    return "\n".join([f"\n### {title(name)}", "", "```", *lines, "```", ""])


def main() -> None:
    """Write docs/errors.md."""
    become_subreaper()
    with tempfile.TemporaryDirectory(prefix="failures") as place:
        base = Path(place)
        harness.build_probe(base / "probe")
        template = harness.build_template(base, base / "probe")
        runtimes = {kind: harness.Runtime(str(path)) for kind, path in RUNTIMES.items()}
        text = HEAD.format(versions=", ".join(one.version.replace(" version", "") for one in runtimes.values()))
        for name in CASES:
            lines = [
                f"{kind:6} {observe(name, one, base / f'{name}-{kind}', template)}" for kind, one in runtimes.items()
            ]
            text += entry(name, lines)
        text += failures_running.HEAD
        for name, (attempt, _, peers) in failures_running.CASES.items():
            boxes = {kind: harness.Box(runtimes[kind], template, base, f"{name}-{kind}") for kind in ("pyrunc", *peers)}
            lines = [f"{kind:6} {observe_running(attempt, box)}" for kind, box in boxes.items()]
            text += entry(name, lines)
    ERRORS.write_text(text)


if __name__ == "__main__":
    main()
