"""A sandbox with another root filesystem: Debian 13 with its engines (``debian.sh``)."""

from __future__ import annotations

import os
from pathlib import Path

from integration import harness
from integration.engines.host import Host

# What the engines write goes to a tmpfs, except below the visible directories.
SETUP = """
set -e
root=$1 path=$2
mkdir -p $path/debian && mount -t tmpfs none $path/debian && cd $path/debian
mkdir upper work root
mount -t overlay -o lowerdir=$root,upperdir=$PWD/upper,workdir=$PWD/work none root
cd root
shift 2
for place; do
    mkdir -p ./$place
    mount --bind $place ./$place
done
mount -t proc none proc
mount -t sysfs none sys
mount -t cgroup2 none sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 none run
mount -t tmpfs -o mode=1777 none dev/shm
pivot_root . mnt
cd /
umount -l /mnt
ip link set lo up
echo ready
cat >/dev/null
:
"""


class DebianHost(Host):
    """A sandbox in a copy of `root`, which itself does not change."""

    where = ", Debian 13"

    def __init__(self, folder: Path, name: str, root: Path) -> None:
        self.root = root
        super().__init__(folder, name)

    def setup(self) -> list[str]:
        """The script, the root filesystem, this sandbox's directory, and the directories that are
        visible: the programs under test and the temporary files."""
        peers = (harness.REPO / "build/peers").resolve()
        places = {str(harness.REPO), os.environ.get("PYRUNC_ENGINES_BIN", ""), str(self.path.parent)}
        places |= {str(peers)} if peers.is_dir() else set()
        return [SETUP, "sh", str(self.root), str(self.path), *sorted(places - {""})]

    def provide(self, place: str) -> None:
        """Create a directory; the root filesystem is a copy."""
        done = self.call("mkdir", "-p", place)
        assert done.rc == 0, done
