"""A fake cgroup2 filesystem in a plain directory, with enough of the kernel's rules for the
driver's decisions."""

from __future__ import annotations

import errno
import os
import posix
import shutil
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pyrunc import fs
from pyrunc.cgroup import cgroupfs, tree
from pyrunc.host import HostFacts


class Kernel:
    """A stand-in for `posix` and `pyrunc.fs` in the driver; everything not defined here is real.

    ``files`` are the control files that a new cgroup gets per controller. ``refuse`` maps (cgroup
    path, file) to the errnos of successive writes. ``writes`` records (path/file, text) in order.
    """

    FILES: ClassVar = {
        "memory": ["memory.max", "memory.low", "memory.events"],
        "pids": ["pids.max"],
        "cpu": ["cpu.weight", "cpu.max", "cpu.max.burst", "cpu.idle"],
        "io": ["io.max", "io.weight"],
        "hugetlb": ["hugetlb.2MB.max"],
    }

    def __init__(self, top: Path, controllers: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top = top
        self.writes: list[tuple[str, str]] = []
        self.refuse: dict[tuple[str, str], list[int]] = {}
        self.events = {"populated": 0, "frozen": 0}
        self.kind = "domain"
        top.mkdir()
        (top / "cgroup.controllers").write_text(controllers + "\n")
        (top / "cgroup.subtree_control").write_text("\n")
        (top / "cgroup.procs").write_text("1\n")
        facts = HostFacts()
        facts.cgroup2_mount = str(top)
        self.driver = cgroupfs.Cgroupfs(facts)
        monkeypatch.setattr(cgroupfs, "posix", self)
        monkeypatch.setattr(tree, "posix", self)
        monkeypatch.setattr(cgroupfs, "fs", self)

    def __getattr__(self, name: str) -> Any:
        return getattr(posix, name) if hasattr(posix, name) else getattr(fs, name)

    def path(self, directory: str) -> str:
        return directory[len(str(self.top)) :] or "/"

    def mkdir(self, directory: str, mode: int) -> None:
        for number in self.refuse.get((self.path(directory), "mkdir"), [])[:1]:
            self.refuse[self.path(directory), "mkdir"].pop(0)
            raise OSError(number, "refused", directory)
        os.mkdir(directory, mode)
        made = Path(directory)
        offered = (made.parent / "cgroup.subtree_control").read_text().split()
        (made / "cgroup.subtree_control").write_text("\n")
        (made / "cgroup.procs").write_text("")
        (made / "cgroup.freeze").write_text("0")
        (made / "cgroup.type").write_text(self.kind + "\n")
        (made / "cgroup.events").write_text("".join(f"{key} {value}\n" for key, value in self.events.items()))
        self.offer(made, offered)

    def offer(self, directory: Path, controllers: list[str]) -> None:
        (directory / "cgroup.controllers").write_text(" ".join(controllers) + "\n")
        for name in controllers:
            for file in self.FILES.get(name, []):
                (directory / file).touch()

    def rmdir(self, directory: str, *, dir_fd: int | None = None) -> None:
        if dir_fd is not None:
            directory = f"{os.readlink(f'/proc/self/fd/{dir_fd}')}/{directory}"
        path = Path(directory)
        if not path.is_dir():
            raise FileNotFoundError(errno.ENOENT, "gone", directory)
        if any(one.is_dir() for one in path.iterdir()) or (path / "cgroup.procs").read_text():
            raise OSError(errno.EBUSY, "busy", directory)
        shutil.rmtree(path)

    def write_file(self, name: str, data: bytes, dir_fd: int | None = None) -> None:
        path, text = Path(name), data.decode()
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, "no file", name)
        key = (self.path(str(path.parent)), path.name)
        if self.refuse.get(key):
            raise OSError(self.refuse[key].pop(0), "refused", name)
        self.writes.append((f"{key[0].rstrip('/')}/{path.name}", text))
        if path.name == "cgroup.subtree_control":
            self.enable(path, [word.lstrip("+") for word in text.split()])
        else:
            path.write_text(text)

    def enable(self, control: Path, names: list[str]) -> None:
        if not set(names) <= set((control.parent / "cgroup.controllers").read_text().split()):
            raise OSError(errno.ENOENT, "not offered", str(control))
        now = [*control.read_text().split(), *names]
        control.write_text(" ".join(now) + "\n")
        for below in control.parent.iterdir():
            if below.is_dir():
                self.offer(below, now)

    def cgroup(self, path: str) -> Path:
        return self.top / path.lstrip("/")

    def exists_below(self) -> list[str]:
        return sorted(self.path(str(path)) for path in self.top.rglob("*") if path.is_dir())
