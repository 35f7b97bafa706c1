"""The cost of a node: pods and exec probes on a current containerd, with pyrunc, runc and crun.

make bench-node                          # ten minutes; writes bench/node.json and RESULTS.md
.venv/bin/python -m bench.node --pods 5 --seconds 10 --only pyrunc,crun

Each runtime gets a containerd of its own in a sandbox. The benchmark speaks CRI to it as kubelet
does: it starts pods of one container, then executes /bin/true in them at a fixed rate, as probes
do.

A pod has one shim, and the shim waits for each runtime that it starts and for the processes that
the runtime leaves. The CPU time of a shim's children is therefore the sum of the runtime's and of
the processes' in the containers, which are the same for all runtimes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench import page, report, stats
from bench.cri import Client, Message
from bench.goals import NODE_GOALS, judge
from bench.measure import Peer, find
from bench.report import OURS, Report, Row
from bench.tables import aligned, section
from integration.engines import image
from integration.engines.conftest import sandbox
from integration.engines.containerd import Containerd
from integration.engines.cri import NETWORK, RUNTIME
from integration.engines.host import Host
from integration.harness import REPO
from integration.machine import children, controllers, pss_kib

BUSYBOX, PAUSE = "registry.test/bb:1", "registry.test/pause:1"
RUNTIMES = {"pyrunc": "pyrunc", "runc": "runc-new", "crun": "crun"}
WARM = 2  # pods before the measurement
IMAGES = """
[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"
"""
HANDLER = """
[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "measured"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.measured]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.measured.options]
BinaryName = "{runtime}"
SystemdCgroup = false
"""
# containerd sets cpu shares for each sandbox. Without that controller every runtime refuses them.
UNLIMITED = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#define SHARES "\"cpu\":{\"shares\":2}"

int main(int argc, char **argv) {
    int create = 0;
    for (int i = 1; i + 1 < argc; i++) {
        create = create || !strcmp(argv[i], "create");
        if (!create || strcmp(argv[i], "--bundle"))
            continue;
        char path[4096];
        struct stat found;
        snprintf(path, sizeof path, "%s/config.json", argv[i + 1]);
        int fd = open(path, O_RDWR);
        if (fd < 0 || fstat(fd, &found))
            return 1;
        char *text = mmap(NULL, found.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (text == MAP_FAILED)
            return 1;
        char *shares = memmem(text, found.st_size, SHARES, strlen(SHARES));
        if (shares)
            memset(shares + 7, ' ', strlen(SHARES) - 8);
        munmap(text, found.st_size);
        close(fd);
    }
    argv[0] = RUNTIME;
    execv(RUNTIME, argv);
    return 127;
}
"""


class Spent(NamedTuple):
    """CPU seconds of a process, and of its children."""

    own: float
    children: float

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.own - other.own, self.children - other.children)


def spent(pid: int) -> Spent:
    """What a process has used; its children are those that it has waited for, and the living
    ones."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    waited = sum(map(int, fields[13:15])) / os.sysconf("SC_CLK_TCK")  # proc_pid_stat(5)
    return Spent(clock(pid), waited + sum(map(clock, children(pid))))


def clock(pid: int) -> float:
    """CPU seconds of a process without its children. The clock of another process is (~pid << 3) |
    CPUCLOCK_SCHED: include/linux/posix-timers.h."""
    return time.clock_gettime((~pid << 3) | 2)


class Found(NamedTuple):
    """What one runtime needed. Times are in ms, by pod or by exec; CPU times are in seconds, by
    pod; memory is in KiB."""

    start_ms: list[float]
    exec_ms: list[float]
    start_cpu: list[Spent]  # of the shims
    exec_cpu: list[Spent]
    start_engine: list[Spent]  # containerd, one
    exec_engine: list[Spent]
    shim_kib: list[int]
    init_kib: list[int]


class Pod(NamedTuple):
    """A pod with one container."""

    id: str
    container: str
    shim: int


class Quiet(Containerd):
    """A containerd that logs as much as in production."""

    level = "info"


class Node:
    """A containerd with one runtime, and its pods."""

    def __init__(self, host: Host, bins: Path, runtime: str, archives: list[Path], seccomp: bool) -> None:
        self.host, self.seccomp = host, seccomp
        host.env["PATH"] = f"{bins}:{host.env['PATH']}"
        (host.path / "cni").mkdir()
        (host.path / "cni/10-test.conflist").write_text(json.dumps(NETWORK))
        if not {"cpu", "memory", "pids"} <= set(controllers()):
            runtime = self.without_limits(runtime)
        text = (IMAGES + RUNTIME + HANDLER).format(path=host.path, pause=PAUSE, runtime=runtime)
        self.containerd = Quiet(host, "", text, folder=f"{bins}/")
        for archive in archives:
            done = self.containerd.ctr("-n", "k8s.io", "images", "import", str(archive))
            assert done.rc == 0, done
        self.client = Client(host.path / "c.sock")
        host.wait_ready("CRI", self.is_ready, "containerd.log")
        self.pid = children(self.containerd.daemon.pid)[0]  # nsenter waits for the daemon
        self.made = 0

    def without_limits(self, runtime: str) -> str:
        """Build a program that removes limits from the configuration and becomes the runtime."""
        source, program = self.host.path / "unlimited.c", self.host.path / "unlimited"
        source.write_text(UNLIMITED)
        words = ["cc", "-O1", "-static", f'-DRUNTIME="{runtime}"', "-o", str(program), str(source)]
        subprocess.run(words, check=True)
        return str(program)

    def is_ready(self) -> bool:
        """Whether the network is configured."""
        status = self.client.call("Status", {})[1][0]
        assert isinstance(status, bytes)
        return b"NetworkNotReady" not in status and b"NetworkReady" in status

    def start(self) -> Pod:
        """Start a pod with one container that sleeps, with kubelet's settings."""
        self.made += 1
        name = f"p{self.made}"
        spaces = {1: 0, 2: 1, 3: 0}  # the pod's network and IPC, the container's processes
        default = {1: 0}  # RuntimeDefault
        sandbox: Message = {
            1: {1: name, 2: f"uid-{name}", 3: "default"},
            2: name,
            8: {1: self.host.cgroup, 2: {1: spaces, 9: default}},
        }
        pod = self.client.text("RunPodSandbox", {1: sandbox})
        masked = ["/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/sched_debug", "/proc/timer_list"]
        fixed = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        security: Message = {3: spaces, 13: masked, 14: fixed, 15: default if self.seccomp else {1: 1}}
        config: Message = {1: {1: "c"}, 2: {1: BUSYBOX}, 3: ["/bin/sleep", "100000"], 15: {2: security}}
        container = self.client.text("CreateContainer", {1: pod, 2: config, 3: sandbox})
        self.client.call("StartContainer", {1: container})
        return Pod(pod, container, self.shim(pod))

    def shim(self, pod: str) -> int:
        """The pid of a pod's shim."""
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = place.read_bytes().decode(errors="replace").split("\0")
            except OSError:  # the process has exited
                continue
            if os.path.basename(words[0]) == "containerd-shim-runc-v2" and pod in words and "start" not in words:
                return int(place.parent.name)
        raise AssertionError(f"no shim of {pod}")

    def exec(self, pod: Pod) -> None:
        """Execute /bin/true as a probe does."""
        answer = self.client.call("ExecSync", {1: pod.container, 2: ["/bin/true"], 3: 10})
        if answer.get(3, [0])[0] != 0:
            raise RuntimeError(f"exec: {answer}")

    def remove(self, pod: Pod) -> None:
        """Stop and remove a pod."""
        self.client.call("StopPodSandbox", {1: pod.id})
        self.client.call("RemovePodSandbox", {1: pod.id})

    def probe(self, pods: Sequence[Pod], rate: float, seconds: float) -> list[float]:
        """Execute in one pod after the other at a fixed rate. Milliseconds from when each was due
        to its end."""
        begin = time.monotonic() + 0.1

        def one(number: int) -> float:
            due = begin + number / rate
            time.sleep(max(0.0, due - time.monotonic()))
            self.exec(pods[number % len(pods)])
            return 1000 * (time.monotonic() - due)

        with ThreadPoolExecutor(16) as threads:
            return list(threads.map(one, range(round(rate * seconds))))


def timed(call: Callable[[], Pod]) -> tuple[float, Pod]:
    """Milliseconds of a call, and its result."""
    begin = time.monotonic()
    made = call()
    return 1000 * (time.monotonic() - begin), made


def measure(node: Node, given: argparse.Namespace) -> Found:
    """Start pods, execute in them, and remove them."""
    warm = [node.start() for _ in range(WARM)]
    node.probe(warm, given.rate, 2)
    for pod in warm:
        node.remove(pod)
    engine = spent(node.pid)
    times, pods = zip(*(timed(node.start) for _ in range(given.pods)), strict=True)
    time.sleep(1)
    started = {pod: spent(pod.shim) for pod in pods}
    engine_started = spent(node.pid)
    execs = node.probe(pods, given.rate, given.seconds)
    time.sleep(1)
    probed = {pod: spent(pod.shim) for pod in pods}
    found = Found(
        start_ms=list(times),
        exec_ms=execs,
        start_cpu=list(started.values()),
        exec_cpu=[probed[pod] - started[pod] for pod in pods],
        start_engine=[engine_started - engine],
        exec_engine=[spent(node.pid) - engine_started],
        shim_kib=[pss_kib(pod.shim) for pod in pods],
        init_kib=[sum(map(pss_kib, children(pod.shim))) for pod in pods],
    )
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(node.remove, pods))
    return found


def percentile(part: float) -> Callable[[Sequence[float]], float]:
    """A function that returns a percentile of samples, from 0 to 100: the nearest rank."""

    def of(values: Sequence[float]) -> float:
        return sorted(values)[min(len(values) - 1, int(len(values) * part / 100))]

    return of


def column(field: str, part: str, found: Found) -> list[float]:
    """One part of what the processes in a field of `Found` have used."""
    return [getattr(used, part) for used in getattr(found, field)]


def alone(row: Row) -> Row:
    """A row of single figures: their ratio has no interval."""
    row["ratios"] = {}
    return row


def rows(found: dict[str, Found]) -> list[Row]:
    """The rows of the group "node"."""

    def row(what: str, unit: str, of: stats.Statistic, samples: Callable[[Found], Sequence[float]]) -> Row:
        return report.row("node", what, unit, {name: samples(one) for name, one in found.items()}, of)

    out = []
    for what, used, daemon in (
        ("execs", "exec_cpu", "exec_engine"),
        ("start of the pods", "start_cpu", "start_engine"),
    ):
        out += [
            row(f"{what}, runtime", "CPU s", sum, partial(column, used, "children")),
            row(f"{what}, shims", "CPU s", sum, partial(column, used, "own")),
            alone(row(f"{what}, containerd", "CPU s", sum, partial(column, daemon, "own"))),
        ]
    helpers = partial(column, "start_engine", "children")
    out.append(alone(row("start of the pods, containerd's children", "CPU s", sum, helpers)))
    for part in (50, 99):
        of = percentile(part)
        out.append(row(f"exec, p{part}", "ms", of, lambda one: one.exec_ms))
        out.append(row(f"start of a pod, p{part}", "ms", of, lambda one: one.start_ms))
    out.append(row("shim of a pod, PSS", "KiB", statistics.median, lambda one: one.shim_kib))
    out.append(row("processes of a pod, PSS", "KiB", statistics.median, lambda one: one.init_kib))
    return out


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench.node", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=50, help="pods at once (50)")
    parser.add_argument("--seconds", type=float, default=60, help="duration of the probes (60)")
    parser.add_argument("--rate", type=float, default=10, help="execs a second (10)")
    parser.add_argument("--only", default=",".join(RUNTIMES), metavar="NAMES", help="runtimes, with commas")
    parser.add_argument("--unconfined", action="store_true", help="containers without the engine's seccomp filter")
    parser.add_argument("--write", action="store_true", help="write bench/node.json and bench/RESULTS.md")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write on request; the exit status does not depend on the goals."""
    given = options()
    bins = Path(os.environ.get("PYRUNC_ENGINES_BIN", REPO / "build/engines/bin")).resolve()
    reason = image.require()
    if reason or os.geteuid() != 0 or not (bins / "containerd").exists():
        sys.exit(f"bench.node: needs root and a current containerd: make bench-node {reason}")
    facts, begin = report.machine(), time.monotonic()
    facts["commit"] = report.commit()
    folder = Path(tempfile.mkdtemp(prefix="pyi"))
    found: dict[str, Found] = {}
    versions: dict[str, str] = {}
    try:
        archives = [image.build(folder / "bb", BUSYBOX, {})[0]]
        archives.append(image.build(folder / "pause", PAUSE, {"Cmd": ["/bin/sleep", "100000"]})[0])
        for name in given.only.split(","):
            path = find(RUNTIMES[name])
            if path is None:
                print(f"bench.node: no {name}", file=sys.stderr)
                continue
            with sandbox(f"node-{name}") as host:
                node = Node(host, bins, path, archives, not given.unconfined)
                found[name] = measure(node, given)
                versions[name] = Peer(name, path).version
                facts["containerd"] = node.containerd.version
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    result: Report = {
        "date": report.today(),
        "machine": facts,
        "runtimes": dict(sorted(versions.items())),
        "rounds": round(given.rate * given.seconds),
        "seconds": round(time.monotonic() - begin),
        "remarks": [],
        "rows": rows(found),
        "notes": {},
    }
    show(result)
    if given.write:
        page.write_node(result)


def show(result: Report) -> None:
    """Print the figures and the goals."""
    names = list(result["runtimes"])
    head = ["", "unit", *names, *(f"x {name}" for name in names if name != OURS)]
    lines = [head]
    for row in result["rows"]:
        cells = [page.number(row["values"][name]) for name in names]
        ratios = [row["ratios"].get(name) for name in names if name != OURS]
        lines.append(
            [
                row["what"],
                row["unit"],
                *cells,
                *(f"{one[0]:.2f} ({one[1]:.2f} to {one[2]:.2f})" if one else "-" for one in ratios),
            ]
        )
    facts = ", ".join(f"{name} {text}" for name, text in (result["machine"] | result["runtimes"]).items())
    section(f"{facts}; {result['seconds']} s", aligned(lines))
    verdicts = [judge(goal, result["rows"]) for goal in NODE_GOALS]
    goals = [
        [one.goal.text(), "-" if one.figure is None else f"{one.figure:.2f}", f"{one.goal.reach:g}", one.word()]
        for one in verdicts
    ]
    section("", aligned([["goals", "measured", "to reach", "met"], *goals]))


if __name__ == "__main__":
    main()
