"""Build a container image offline from busybox-static: an OCI archive and a docker archive."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import tarfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from integration import machine
from integration.engines.host import Done

REFERENCE = "docker.io/library/bb:1"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
OCI = "application/vnd.oci.image"
USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/:/bin/sh
user:x:1000:1000:user:/:/bin/sh
nobody:x:65534:65534::/:/bin/sh
"""
GROUPS = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nuser:x:1000:\nextra:x:1234:\nnogroup:x:65534:\n"


class LoadsImages(ABC):
    """An engine whose client loads docker archives."""

    @abstractmethod
    def call(self, *args: str) -> Done:
        """Call the client."""

    def load(self, archive: Path) -> None:
        """Load a docker archive."""
        done = self.call("load", "-i", str(archive))
        assert done.rc == 0, done


def build_rootfs(root: Path, users: str = USERS, groups: str = GROUPS) -> Path:
    """Create a root filesystem with a static busybox and all its applets."""
    for name in ["bin", "etc", "proc", "sys", "dev", "run", "tmp", "root", "var/tmp", "var/run"]:
        (root / name).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    busybox = root / "bin/busybox"
    busybox.write_bytes(Path("/bin/busybox").read_bytes())
    busybox.chmod(0o755)
    listed = subprocess.run([str(busybox), "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in set(listed) - {"busybox"}:
        os.symlink("busybox", root / "bin" / name)
    (root / "etc/passwd").write_text(users)
    (root / "etc/group").write_text(groups)
    (root / "etc/not-executable").write_text("#!/bin/sh\n")
    return root


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), 0o644
    tar.addfile(entry, io.BytesIO(data))


def build(
    folder: Path,
    reference: str = REFERENCE,
    config: dict[str, Any] | None = None,
    users: tuple[str, str] = (USERS, GROUPS),
) -> tuple[Path, Path]:
    """Write ``oci.tar`` and ``docker.tar`` into `folder`, for an image with the name `reference`;
    return their paths.

    The only layer is an uncompressed tar, so its digest is also its diff id. `config` replaces
    members of the image's default process; `users` are its /etc/passwd and /etc/group.
    """
    root = build_rootfs(folder / "rootfs", *users)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in sorted(os.listdir(root)):
            tar.add(root / name, name)
    layer = buffer.getvalue()
    process = {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh"], "WorkingDir": "/"} | (config or {})
    platform = {"architecture": ARCHITECTURE[os.uname().machine], "os": "linux"}
    image = json.dumps(
        platform
        | {
            "config": process,
            "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest(layer)]},
            "history": [{"created_by": "test"}],
        }
    ).encode()
    oci, docker = folder / "oci.tar", folder / "docker.tar"
    with tarfile.open(oci, "w") as tar:
        write_oci(tar, reference, platform, image, layer)
    with tarfile.open(docker, "w") as tar:
        name = digest(image) + ".json"
        add(tar, "layer.tar", layer)
        add(tar, name, image)
        entry = {"Config": name, "RepoTags": [reference], "Layers": ["layer.tar"]}
        add(tar, "manifest.json", json.dumps([entry]).encode())
    return oci, docker


def describe(kind: str, data: bytes) -> dict[str, Any]:
    """A descriptor (image-spec descriptor.md)."""
    return {"mediaType": f"{OCI}.{kind}", "digest": "sha256:" + digest(data), "size": len(data)}


def write_oci(tar: tarfile.TarFile, reference: str, platform: dict[str, str], image: bytes, layer: bytes) -> None:
    """Write an OCI image layout (image-spec image-layout.md) with the annotations from which
    containerd takes the image's name."""
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI + ".manifest.v1+json",
        "config": describe("config.v1+json", image),
        "layers": [describe("layer.v1.tar", layer)],
    }
    data = json.dumps(manifest).encode()
    entry = describe("manifest.v1+json", data) | {
        "platform": platform,
        "annotations": {
            "io.containerd.image.name": reference,
            "org.opencontainers.image.ref.name": reference.rpartition(":")[2],
        },
    }
    add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
    add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
    for blob in (data, image, layer):
        add(tar, "blobs/sha256/" + digest(blob), blob)


def make_profile(path: Path) -> Path:
    """Write a seccomp profile in docker's format that only refuses chmod(2) and its variants, with
    EACCES."""
    names = ["chmod", "fchmod", "fchmodat", "fchmodat2"]
    rule = {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 13}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    return path


def require() -> str:
    """The reason why an image cannot be built here, '' if it can."""
    if not Path("/bin/busybox").exists():
        return "no /bin/busybox (package busybox-static)"
    if os.uname().machine not in ARCHITECTURE:
        return f"no image for {os.uname().machine}"
    return "" if machine.cgroup2_mount() else "no cgroup v2 mount"
