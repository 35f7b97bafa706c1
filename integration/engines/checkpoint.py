"""What the cases of checkpoint and restore share: CRIU, a program with a memory, its answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from integration import harness
from integration.checkpoint import support
from integration.engines.host import Done, Host

# A new process has another name, so a restart is not taken for a restore.
SCRIPT = (
    "name=$(cat /proc/sys/kernel/random/uuid); i=0; "
    "while :; do i=$((i+1)); echo $name $i >/dev/shm/new; mv /dev/shm/new /dev/shm/count; sleep 0.1; done"
)
COMMAND = ("/bin/sh", "-c", SCRIPT)
SHOW = ("cat", "/dev/shm/count")


def provide(host: Host) -> str:
    """Put CRIU into the sandbox's environment and return an annotation for it.

    In its default mode runc lets CRIU change the mount options of the machine's cgroup2
    (criu#3029), so the file that the annotation names selects another mode.
    """
    ours = support.environment()
    host.env["PATH"] = f"{support.UNPACKED}:{host.env['PATH']}"
    host.env |= {name: value for name, value in ours.items() if name != "PATH"}
    config = host.path / "criu.conf"
    config.write_text("manage-cgroups ignore\n")
    return f"org.criu.config={config}"


def why_not(host: Host) -> str:
    """The reason why CRIU cannot be used in the sandbox, "" if it can."""
    done = host.call("criu", "check")
    return "" if done.rc == 0 else f"criu check: {done.err.strip().splitlines()[-1:]}"


class Count:
    """The count of a container, which only a restore continues."""

    def __init__(self, show: Callable[[], Done]) -> None:
        self.show = show
        self.name, self.number = "", 0

    def read(self) -> tuple[str, int]:
        """The name of the process and its number; ("", 0) while there is none."""
        words = self.show().out.split()
        return (words[0], int(words[1])) if len(words) == 2 else ("", 0)

    def goes_on(self) -> bool:
        """Wait until the number is higher than the last one; return whether the process is the
        same."""
        seen: list[tuple[str, int]] = [("", 0)]

        def more() -> bool:
            seen.append(self.read())
            return bool(seen[-1][0]) and (seen[-1][0] != self.name or seen[-1][1] > self.number)

        harness.wait_until(more, f"a number above {self.number}", 20)
        known, (self.name, self.number) = self.name, seen[-1]
        return known in ("", self.name)


def images(folder: Path) -> bool:
    """Whether a directory has the images of processes."""
    return (folder / "inventory.img").exists() and bool(list(folder.glob("pages-*.img")))
