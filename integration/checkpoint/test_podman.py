"""`podman container checkpoint` and `restore` with the runtime under test."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from integration.checkpoint import support
from integration.harness import Box, Runtime
from integration.machine import controllers

SCRIPT = r"""
set -eu
case $(stat -f -c %T /sys/fs/cgroup) in cgroup2fs) ;; *) mount -t cgroup2 none /sys/fs/cgroup ;; esac
pod() {
    command podman --root "$place/root" --runroot "$place/run" --tmpdir "$place/tmp" --storage-driver vfs \
        --cgroup-manager cgroupfs --runtime "$runtime" "$@"
}
place=$1 runtime=$2 rootfs=$3
trap 'pod rm -f -t 0 -a >/dev/null 2>&1' EXIT
status() { echo "$1 $(pod ps -a --format '{{.Status}}' | cut -d ' ' -f 1)"; }
tar -C "$rootfs" -c . | pod import -q - bb:1 >/dev/null
pod run -d --name c1 --network none --pids-limit=-1 --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 bb:1 \
    /bin/sh -c 'i=0; while :; do i=$((i+1)); echo $i; sleep 0.1; done' >/dev/null
sleep 1
pod container checkpoint c1 >/dev/null
last=$(pod logs c1 | tail -n 1)
status checkpoint
pod container restore c1 >/dev/null
sleep 1
status restore
test "$(pod logs c1 | tail -n 1)" -gt "$last" && echo goes on
pod container checkpoint --leave-running --export "$place/c1.tar.gz" c1 >/dev/null
status export
pod rm -f -t 0 c1 >/dev/null
pod container restore --import "$place/c1.tar.gz" >/dev/null
status import
"""


@pytest.mark.needs_program("podman", "conmon", "tar")
def test_podman(criu: None, box: Box, runtime: Runtime, rootfs: Path) -> None:
    argv = ["unshare", "-m", "sh", "-c", SCRIPT, "sh", str(box.path / "podman"), runtime.path, str(rootfs)]
    if not runtime.is_pyrunc and "memory" not in controllers():
        pytest.skip("runc's warning about memory.events is an error to podman")
    (box.path / "podman").mkdir()
    done = subprocess.run(argv, env=support.environment(), capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines == ["checkpoint Exited", "restore Up", "goes on", "export Up", "import Up", ""]
