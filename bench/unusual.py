"""Unusual containers: a huge config, thousands of mounts, little memory; and what each verb
imports."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from pathlib import Path

from bench.measure import REPO, interpreter, make_bundle
from bench.series import Series

PATIENCE = 20.0  # seconds for a huge config: crun 1.28 takes twice as long


def big_config(series: list[Series], place: Path, pyrunc: str) -> dict[str, str]:
    """`create` with 10 MB of annotations: the median of three in milliseconds, or the reason for a
    failure."""
    annotations = {f"org.example.key{number:06}": "v" * 75 for number in range(100_000)}
    bundle = make_bundle(place, pyrunc, "big", ["/bin/true"], annotations=annotations)
    times: dict[str, list[float]] = {one.name: [] for one in series}
    failed: dict[str, str] = {}
    for number in range(3):
        for one in series:
            if one.name in failed:
                continue
            ident = f"bench{os.getpid()}-big{number}"
            argv = [one.peer.path, "--root", str(one.root), "create", "--bundle", str(bundle), ident]
            used = one.worker.usage(argv, expect=None, limit=PATIENCE)
            if used["rc"]:
                failed[one.name] = str(used["err"]).strip()[-100:]
            times[one.name].append(used["ms"])
            one.call("delete", "--force", ident, expect=None)
            one.worker.reap()
    return {name: failed.get(name) or f"{statistics.median(values):.0f} ms" for name, values in times.items()}


def many_binds(series: list[Series], place: Path, pyrunc: str) -> dict[str, str]:
    """`run` with 2 000 bind mounts under RLIMIT_NOFILE 1024: milliseconds, or the reason for a
    failure."""
    bundle = make_bundle(place, pyrunc, "binds", ["/bin/true"])
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["root"]["readonly"] = False
    for number in range(2000):
        entry = {"destination": f"/mnt/{number}", "type": "bind", "source": str(place), "options": ["bind", "ro"]}
        config["mounts"].append(entry)
    path.write_text(json.dumps(config))
    results = {}
    limited = ["/bin/sh", "-c", 'ulimit -n 1024; exec "$@"', "sh"]
    for one in series:
        argv = [*limited, one.peer.path, "--root", str(one.root), "run", "-b", str(bundle), f"bench{os.getpid()}-binds"]
        try:
            results[one.name] = f"{one.worker.run(argv):.0f} ms"
        except RuntimeError as error:
            results[one.name] = "fails: " + str(error).rpartition(": ")[2][-100:]
            one.call("delete", "--force", f"bench{os.getpid()}-binds", expect=None)
    return results


def smallest_memory(series: list[Series], place: Path, pyrunc: str) -> dict[str, str]:
    """The smallest memory.max (KiB, to 64 KiB) under which `run /bin/true` works, by bisection."""
    controllers = Path("/sys/fs/cgroup/cgroup.controllers")
    if not controllers.exists() or "memory" not in controllers.read_text().split():
        return {one.name: "not measured: no memory controller on cgroup v2" for one in series}
    bundle = make_bundle(place, pyrunc, "memory", ["/bin/true"])
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    results = {}
    for one in series:
        low, high = 0, 64 << 10
        while high - low > 64:
            middle = (low + high) // 2
            config["linux"]["resources"]["memory"] = {"limit": middle << 10}
            path.write_text(json.dumps(config))
            try:
                one.call("run", "--bundle", str(bundle), f"bench{os.getpid()}-memory")
                high = middle
            except RuntimeError:
                low = middle
                one.call("delete", "--force", f"bench{os.getpid()}-memory", expect=None)
        results[one.name] = f"{high} KiB"
    return results


IMPORTS = """
import sys
sys.path[:0] = {path!r}
before = set(sys.modules)
from pyrunc.__main__ import run
status = run({argv!r})
new = set(sys.modules) - before
sys.stderr.write("\\n%d %d" % (len(new), len([name for name in new if not name.startswith("pyrunc")])))
"""


def imports(place: Path, pyrunc: str, long: Path) -> dict[str, str]:
    """Modules that each verb imports in a plain interpreter: all of them, and those outside
    pyrunc."""
    site = subprocess.run(
        [str(REPO / ".venv/bin/python"), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"],
        capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip
    counts = {}
    root, ident = place / "imports", f"bench{os.getpid()}-imports"
    errors = place / "imports.err"  # a file, because the container keeps its stderr open
    for verb in ("create", "state", "start", "kill", "delete"):
        more = ["--bundle", str(long)] if verb == "create" else []
        argv = ["--root", str(root), verb, *more, ident, *(["KILL"] if verb == "kill" else [])]
        code = IMPORTS.format(path=[site], argv=argv)
        with errors.open("w") as sink:
            command = [interpreter(), "-I", "-S", "-c", code]
            subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, timeout=60, check=False)
        text = errors.read_text().strip()
        numbers = text.rpartition("\n")[2].split()
        counts[verb] = f"{numbers[0]} ({numbers[1]} foreign)" if len(numbers) == 2 else text[-100:]
    subprocess.run([pyrunc, "--root", str(root), "delete", "--force", ident], check=False, timeout=60)
    return counts
