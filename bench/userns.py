"""The cost of a user namespace: `run` of /bin/true with and without one, interleaved."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

from bench.measure import make_bundle

FACTOR = 1.3  # the project's goal
HOST, SIZE = 100000, 65536


def mapped(place: Path, pyrunc: str) -> Path:
    """The bundle of the comparison, in a user namespace whose root owns the root filesystem."""
    bundle = make_bundle(place, pyrunc, "userns", ["/bin/true"])
    path = bundle / "config.json"
    config = json.loads(path.read_text())
    config["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uid", "gid"):
        config["linux"][f"{kind}Mappings"] = [{"containerID": 0, "hostID": HOST, "size": SIZE}]
    path.write_text(json.dumps(config, indent=2))
    for at, _, _ in os.walk(bundle / "rootfs"):
        os.chown(at, HOST, HOST)
    place.chmod(0o711)  # other runtimes need the namespace's root to reach it
    bundle.chmod(0o711)
    return bundle


def measure(series: list[Any], place: Path, pyrunc: str, quick: Path, rounds: int) -> dict[str, str]:
    """Medians in milliseconds, plain and mapped, and their ratio; or the reason why there is
    none."""
    bundles = {"plain": quick, "mapped": mapped(place, pyrunc)}
    times: dict[str, dict[str, list[float]]] = {one.name: {kind: [] for kind in bundles} for one in series}
    said: dict[str, str] = {}
    for number in range(rounds):
        for one in series:
            for kind, bundle in bundles.items():
                if one.name in said:
                    continue
                ident = f"bench{os.getpid()}-userns{number}{kind}"
                try:
                    times[one.name][kind].append(one.call("run", "--bundle", str(bundle), ident).wall)
                except RuntimeError as error:
                    said[one.name] = "fails: " + str(error).rpartition(": ")[2][-100:]
                    one.call("delete", "--force", ident, expect=None)
    for name, found in times.items():
        if name not in said:
            plain, with_it = (statistics.median(found[kind]) for kind in ("plain", "mapped"))
            ratio = with_it / plain
            said[name] = f"{plain:.2f} ms plain, {with_it:.2f} ms mapped, {ratio:.2f}"
            if name.startswith("pyrunc"):
                said[name] += f" ({'pass' if ratio <= FACTOR else 'MISS'}: goal {FACTOR})"
    return said
