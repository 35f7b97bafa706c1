"""R8: damaged, missing or replaced state files. `list` still works, and `delete --force` frees
everything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration.faults.fleet import Light, Tally
from integration.faults.scenes import LIMIT, NOISE, Sandbox


def _replace(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        file.write_bytes(content(file.read_bytes()))

    return damage


def _edit(**changes: Any) -> Callable[[Path], None]:
    def change(old: bytes) -> bytes:
        data = json.loads(old) | changes
        return json.dumps({key: value for key, value in data.items() if value is not KeyError}).encode()

    return _replace(change)


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        file.unlink()
        make(file)

    return damage


def _only_this(file: Path) -> None:
    for entry in file.parent.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != "config.json":
            entry.unlink()


KINDS: dict[str, Callable[[Path], None]] = {
    "empty": _replace(lambda old: b""),
    "one brace": _replace(lambda old: b"{"),
    "half": _replace(lambda old: old[: len(old) // 2]),
    "last byte missing": _replace(lambda old: old.rstrip()[:-1]),
    "garbage": _replace(lambda old: bytes(range(1, 256))),
    "zeros": _replace(lambda old: bytes(len(old))),
    "null": _replace(lambda old: b"null"),
    "list": _replace(lambda old: b"[]"),
    "true": _replace(lambda old: b"true"),
    "number": _replace(lambda old: b"1e999"),
    "string": _replace(lambda old: b'"x"'),
    "empty object": _replace(lambda old: b"{}"),
    "deep": _replace(lambda old: b"[" * 200_000),
    "deep object": _replace(lambda old: b'{"a":' * 200_000),
    "one megabyte of blanks": _replace(lambda old: b" " * (1 << 20)),
    "not UTF-8": _replace(lambda old: old[:-1] + b',"x":"\xff\xfe"}'),
    "byte order mark": _replace(lambda old: b"\xef\xbb\xbf" + old),
    "twice": _replace(lambda old: old + old),
    "trailing garbage": _replace(lambda old: old + b"x"),
    "pid is text": _edit(pid="12", init_process_pid="12"),
    "pid is negative": _edit(pid=-1, init_process_pid=-1),
    "pid is 1": _edit(pid=1, init_process_pid=1),
    "pid is another's": _edit(pid=os.getpid(), init_process_pid=os.getpid()),
    "pid is huge": _edit(pid=1 << 80, init_process_pid=1 << 80),
    "pid is missing": _edit(pid=KeyError, init_process_pid=KeyError),
    "another id": _edit(id="somebody"),
    "status unknown": _edit(status="flying"),
    "status is a list": _edit(status=[]),
    "no cgroup": _edit(cgroup=KeyError, cgroup_paths=KeyError),
    "cgroup is a number": _edit(cgroup=7, cgroup_paths=7),
    "hooks are text": _edit(hooks="x"),
    "missing": lambda file: file.unlink(),
    "a directory": _instead(lambda file: file.mkdir()),
    "a dangling link": _instead(lambda file: file.symlink_to("/nonexistent/file")),
    "a link to itself": _instead(lambda file: file.symlink_to(file.name)),
    "a fifo": _instead(os.mkfifo),
    "only config.json is left": _only_this,
}


def corrupt(sandbox: Sandbox, rounds: int, seconds: float) -> Tally:
    """Damage the state of a running container in every way, next to a healthy one."""
    tally = Tally()
    file = "status" if sandbox.runtime.name == "crun" else "state.json"
    healthy = Light(sandbox, "healthy").container()
    healthy.create(save=False)
    healthy.start()
    sandbox.helpers.add(healthy.pid)
    broken = Light(sandbox, "broken", "fork", "1", "--", "signals", "600").container()
    for number in tally.rounds(min(rounds, len(KINDS)), seconds):
        name, damage = list(KINDS.items())[number]
        broken.create(save=False)
        broken.start()
        try:
            damage(sandbox.root / broken.id / file)
        except (OSError, ValueError) as error:
            broken.delete("--force", check=False)
            tally.figures[f"not for {sandbox.runtime.name}: {name}"] = str(error)
            continue
        tally.note(look(sandbox, healthy.id, broken.id) + gone(sandbox, healthy, broken), name)
    healthy.delete("--force", check=False)
    return tally


def look(sandbox: Sandbox, healthy: str, broken: str) -> list[str]:
    """Check that `list` shows the healthy container and that `state` of the damaged one does not
    crash."""
    problems = []
    try:
        listed = sandbox.runtime.call("--root", str(sandbox.root), "list", "-q", timeout=LIMIT)
        problems += [f"list: {listed!r}"] if listed.rc or healthy not in listed.out.split() else []
        state = sandbox.runtime.call("--root", str(sandbox.root), "state", broken, timeout=LIMIT)
        problems += [f"said {word!r}" for word in NOISE if word in listed.err + state.err]
    except AssertionError as error:
        problems.append(f"hang: {error}")
    return problems


def gone(sandbox: Sandbox, healthy: Any, broken: Any) -> list[str]:
    """Check that `delete --force` removes process, cgroup and directory, and that the healthy
    container remains."""
    try:
        result = broken.delete("--force", check=False, timeout=2 * LIMIT)
    except AssertionError as error:
        result = None
        problems = [f"hang: {error}"]
    else:
        problems = [f"delete --force: {result!r}"] if result.rc else []
    left = [text for text in sandbox.leftovers() if healthy.id not in text]
    problems += [f"after delete --force: {text}" for text in left]
    if problems:
        (broken.cgroup / "cgroup.kill").write_text("1") if broken.cgroup.exists() else None
        sandbox.leftovers()
        if broken.cgroup.exists():
            broken.cgroup.rmdir()
        shutil.rmtree(sandbox.root / broken.id, ignore_errors=True)
    if healthy.status != "running":
        problems.append("the healthy one does not run any more")
    return problems
