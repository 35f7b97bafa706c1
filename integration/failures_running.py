"""What fails with a container that exists, or with its checkpoint, and the lines that explain why.

`integration.failures` has the containers that do not start, and writes docs/errors.md.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.checkpoint import support
from integration.harness import Container, Result

HEAD = """
## With a container that exists, or its checkpoint

`mounts` with crun, which has it as well; `checkpoint` and `restore` with runc. BOX is a directory,
ID the container.
"""
NULL = Path("/dev/null")
PROC = {"type": "proc", "source": "proc", "destination": "/p"}
Attempt = Callable[[Container], Result]
CASES: dict[str, tuple[Attempt, str, tuple[str, ...]]] = {}
NEED_CRIU: list[str] = []


def case(line: str, *peers: str, criu: bool = False) -> Callable[[Attempt], Attempt]:
    """A call that fails, the line that explains why (BOX: the directory of the test, CONTAINER:
    its id, NUMBER: a number), and the runtimes that have the verb as well."""

    def register(attempt: Attempt) -> Attempt:
        CASES[attempt.__name__] = (attempt, line, peers)
        if criu:
            NEED_CRIU.append(attempt.__name__)
        return attempt

    return register


def expected(line: str, made: Container) -> str:
    """The pattern of a case's line."""
    text = re.escape(line).replace("BOX", re.escape(str(made.box.path))).replace("CONTAINER", re.escape(made.id))
    return text.replace("NUMBER", r"\d+")


def created(made: Container, output: Path = NULL) -> None:
    """Create a container that sleeps. CRIU cannot dump files of the host, so its output is not one."""
    made.bundle.config["process"]["args"] = ["/bin/sleep", "1000"]
    made.create(out=output, err=output)


def running(made: Container, output: Path = NULL) -> None:
    """Start a container that sleeps."""
    created(made, output)
    made.start()


def bind(source: object, destination: str, *options: str) -> dict[str, Any]:
    return {"type": "bind", "source": str(source), "destination": destination, "options": [*options] or ["bind"]}


def mounts(made: Container, verb: str, *entries: object, check: bool = False) -> Result:
    """`mounts add` or `mounts remove` of entries."""
    file = made.box.path / "mounts.json"
    file.write_text(json.dumps(entries))
    return made.call("mounts", verb, made.id, str(file), check=check)


def directory(made: Container, name: str) -> Path:
    """A directory of the host."""
    path = made.box.path / name
    path.mkdir()
    return path


# -- mounts ----------------------------------------------------------------------------------------


@case('/0/source "BOX/none" (/x): open_tree: ENOENT: path not found; does the source exist on the host?', "crun")
def added_mount_without_source(made: Container) -> Result:
    running(made)
    return mounts(made, "add", bind(made.box.path / "none", "/x"))


@case('/0/destination "/probe": openat2: ENOTDIR: the mount is a directory, but the destination is not one', "crun")
def added_directory_on_file(made: Container) -> Result:
    running(made)
    return mounts(made, "add", bind(directory(made, "data"), "/probe"))


@case(
    '/0/destination "/data/new": openat2: EROFS: read-only file system; the mount point cannot be '
    "created in a read-only filesystem",
    "crun",
)
def added_mount_point_in_read_only_mount(made: Container) -> Result:
    made.bundle.config["mounts"].append(bind(directory(made, "data"), "/data", "bind", "ro"))
    running(made)
    return mounts(made, "add", {"type": "tmpfs", "source": "t", "destination": "/data/new"})


@case("mounts: /: expected an array of mounts as in config.json, found an object", "crun")
def added_mount_that_is_not_a_list(made: Container) -> Result:
    running(made)
    return made.call("mounts", "add", made.id, "-", stdin='{"mounts": []}', check=False)


@case('mounts: /0/options: expected array, found string "ro"', "crun")
def added_mount_with_a_wrong_type(made: Container) -> Result:
    running(made)
    return mounts(made, "add", bind("/tmp", "/x", "bind") | {"options": "ro"})


@case(
    '/0/type "nosuchfs" (/x): fsopen: ENODEV: filesystem type unknown to this kernel; `cat '
    "/proc/filesystems` lists what this kernel can mount",
    "crun",
)
def added_unknown_filesystem(made: Container) -> Result:
    running(made)
    return mounts(made, "add", {"type": "nosuchfs", "source": "x", "destination": "/x"})


@case(
    'mounts: /0: expected no procfs on a created container, found string "proc" (a procfs shows the '
    "processes of the one that mounts it, which is not in the container)",
    "crun",
)
def added_proc(made: Container) -> Result:
    running(made)
    return mounts(made, "add", PROC)


@case(
    'mounts: /0/options/1: expected a new mount, found string "remount" (changing one that exists cannot be undone)',
    "crun",
)
def remount_of_a_mount(made: Container) -> Result:
    running(made)
    return mounts(made, "add", bind("none", "/dev", "bind", "remount", "ro"))


@case("cannot change the mounts of a stopped container", "crun")
def added_mount_in_a_stopped_container(made: Container) -> Result:
    running(made)
    made.kill("KILL")
    made.wait()
    return mounts(made, "add", {"type": "tmpfs", "source": "t", "destination": "/x"})


@case("mounts: /0/destination: expected a mount that `mounts add` made, found nothing that can be removed", "crun")
def removed_mount_that_is_not_there(made: Container) -> Result:
    running(made)
    return mounts(made, "remove", {"destination": "/x"})


@case(
    "mounts: /0/destination: expected a mount that `mounts add` made, found nothing that can be removed "
    "(/mounts/0 of config.json made the one there)",
    "crun",
)
def removed_mount_of_the_config(made: Container) -> Result:
    running(made)
    return mounts(made, "remove", {"destination": "/proc"})


@case(
    'mounts: /0/destination: expected a mount that no later one covers or is inside, found "/x" (remove "/x/y" first)',
    "crun",
)
def removed_mount_with_another_inside(made: Container) -> Result:
    running(made)
    for place in ("/x", "/x/y"):
        mounts(made, "add", {"type": "tmpfs", "source": "t", "destination": place}, check=made.box.runtime.is_pyrunc)
    return mounts(made, "remove", {"destination": "/x"})


@case("container does not exist: CONTAINER", "crun")
def removed_mount_in_a_missing_container(made: Container) -> Result:
    return mounts(made, "remove", {"destination": "/x"})


# -- exec --tools ----------------------------------------------------------------------------------


@case('--tools "BOX/none": stat: ENOENT: path not found')
def missing_tools(made: Container) -> Result:
    running(made)
    return made.call("exec", "--tools", str(made.box.path / "none"), made.id, "ls", check=False)


@case('exec: --tools "BOX/tools": expected a directory, found another kind of file')
def tools_in_a_file(made: Container) -> Result:
    running(made)
    file = made.box.path / "tools"
    file.touch()
    return made.call("exec", "--tools", str(file), made.id, "ls", check=False)


@case(
    '/process/args/0 "serve": execvp: ENOENT: executable file not found in $PATH; looked for in '
    '"/proc/fs/nfsd/bin:/proc/fs/nfsd/usr/bin:/proc/fs/nfsd:/usr/local/sbin:/usr/local/bin:/usr/sbin:'
    '/usr/bin:/sbin:/bin", where /proc/fs/nfsd is the directory of --tools'
)
def program_that_is_not_among_the_tools(made: Container) -> Result:
    running(made)
    return made.call("exec", "--tools", str(directory(made, "tools")), made.id, "serve", check=False)


# -- checkpoint ------------------------------------------------------------------------------------


def checkpoint(made: Container, *flags: str, check: bool = False, **kwargs: Any) -> Result:
    env = support.environment() | kwargs.pop("env", {})
    if not made.box.runtime.is_pyrunc:
        flags = (*support.IGNORE, *flags)
    images = str(made.box.path / "images")
    return made.call("checkpoint", "--image-path", images, *flags, made.id, check=check, env=env, **kwargs)


def checkpointed(made: Container) -> None:
    """Start a container and write its checkpoint."""
    running(made)
    checkpoint(made, check=True)


def restore(made: Container, *flags: str, **kwargs: Any) -> Result:
    if not made.box.runtime.is_pyrunc:
        flags = (*support.IGNORE, *flags)
    made.bundle.save()
    argv = ("--image-path", str(made.box.path / "images"), "--bundle", str(made.bundle.path), "--detach", *flags)
    return made.call("restore", *argv, made.id, check=False, env=support.environment(), **kwargs)


@case("criu: not found in $PATH; checkpoint and restore need CRIU 3.15 or later")
def checkpoint_without_criu(made: Container) -> Result:
    running(made)
    return checkpoint(made, env={"PATH": "/nowhere"})


@case("container cannot be checkpointed in created state", "runc")
def checkpoint_of_a_created_container(made: Container) -> Result:
    created(made)
    return checkpoint(made)


@case(
    "the container has mounts that `mounts add` made, which a restore from config.json would lack; take "
    "them away with `mounts remove`"
)
def checkpoint_with_added_mounts(made: Container) -> Result:
    running(made)
    mounts(made, "add", {"type": "tmpfs", "source": "t", "destination": "/x"}, check=True)
    return checkpoint(made)


@case('invalid --parent-path "BOX/images/../none": open: ENOENT: path not found', "runc")
def checkpoint_with_a_missing_parent(made: Container) -> Result:
    running(made)
    return checkpoint(made, "--parent-path", "../none")


@case("checkpoint: --parent-path must be relative to --image-path", "runc")
def checkpoint_with_an_absolute_parent(made: Container) -> Result:
    running(made)
    return checkpoint(made, "--parent-path", "/parent")


@case(
    "criu dump: Can't lookup mount=NUMBER for fd=NUMBER path=BOX/CONTAINER.out; see BOX/images/dump.log; "
    "a file that was opened outside of the container cannot be dumped: use pipes or /dev/null",
    "runc",
    criu=True,
)
def output_in_a_file_of_the_host(made: Container) -> Result:
    running(made, made.out_file)
    return checkpoint(made)


# -- restore ---------------------------------------------------------------------------------------


@case('--image-path "BOX/images": not a checkpoint: inventory.img is missing', "runc")
def restore_without_images(made: Container) -> Result:
    directory(made, "images")
    return restore(made)


@case('--image-path "BOX/images": open: ENOENT: path not found', "runc")
def restore_from_a_missing_directory(made: Container) -> Result:
    return restore(made)


@case(
    "criu restore: Can't open file bin/busybox: No such file or directory; see BOX/images/restore.log",
    "runc",
    criu=True,
)
def restore_without_a_program(made: Container) -> Result:
    checkpointed(made)
    os.unlink(made.bundle.rootfs / "bin/busybox")
    return restore(made)


@case('/mounts/NUMBER/source "BOX/data": stat: ENOENT: path not found', "runc", criu=True)
def restore_without_a_source(made: Container) -> Result:
    made.bundle.config["mounts"].append(bind(directory(made, "data"), "/data"))
    checkpointed(made)
    shutil.rmtree(made.box.path / "data")
    return restore(made)


@case("container with given ID already exists: CONTAINER", "runc", criu=True)
def restore_of_a_container_that_exists(made: Container) -> Result:
    running(made)
    checkpoint(made, "--leave-running", check=True)
    return restore(made)


@case("criu restore: Unexpected EOF on (empty-image); see BOX/images/restore.log", "runc", criu=True)
def restore_with_incomplete_images(made: Container) -> Result:
    checkpointed(made)
    for path in (made.box.path / "images").glob("core-*.img"):
        path.unlink()
    return restore(made)
