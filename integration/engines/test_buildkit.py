"""BuildKit with its OCI worker, which calls the runtime itself (`make test-buildkit`)."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import harness
from integration.engines.builds import Builder, Builds, shown, write
from integration.engines.conftest import Seen
from integration.engines.host import Host
from integration.engines.kubernetes.conftest import BINS, runc

BUILT = Path(BINS, "buildkitd").exists()
LABEL = "BuildKit with the OCI worker" if BUILT else ""
pytestmark = pytest.mark.skipif(not BUILT, reason="make test-buildkit builds what this needs")
CONFIG = '[worker.oci]\ndefaultCgroupParent = "{cgroup}"\n'


class BuildKit(Builder):
    """A buildkitd and its client."""

    label = LABEL
    base = "bb"

    def __init__(self, host: Host, runtime: str, archive: Path) -> None:
        self.host = host
        self.layout = host.path / "layout"
        self.layout.mkdir()
        done = host.call("tar", "-xf", str(archive), "-C", str(self.layout))
        assert done.rc == 0, done
        index = json.loads((self.layout / "index.json").read_text())
        self.digest = index["manifests"][0]["digest"]
        config = host.path / "buildkitd.toml"
        config.write_text(CONFIG.format(cgroup=host.cgroup))
        words = ["--config", str(config), "--addr", f"unix://{host.path}/b.sock", "--root", f"{host.path}/buildkit"]
        words += ["--containerd-worker=false", f"--oci-worker-binary={runtime}", "--oci-worker-snapshotter=overlayfs"]
        words += ["--oci-worker-net=host", "--allow-insecure-entitlement=security.insecure"]
        host.start(f"{BINS}/buildkitd", *words, log="buildkitd.log")
        host.wait_ready("buildkitd", lambda: host.call(*self.argv("debug", "workers")).rc == 0, "buildkitd.log")
        version = (Path(BINS).parent / "built/buildkitd").read_text().strip()
        self.versions = {"buildkit": version, "runc": host.call(str(runc()), "--version").out.split()[2]}

    def argv(self, *args: str) -> list[str]:
        """The command line of one call of the client."""
        return [f"{BINS}/buildctl", "--addr", f"unix://{self.host.path}/b.sock", *args]

    def build_words(self, folder: Path, *flags: str) -> list[str]:
        """The command line of one build, whose result is not kept."""
        words = ["--frontend=dockerfile.v0", "--progress=plain", "--local", f"context={folder}"]
        words += ["--local", f"dockerfile={folder}", "--oci-layout", f"bb={self.layout}"]
        return self.argv("build", *words, "--opt", f"context:bb=oci-layout://bb@{self.digest}", *flags)


@pytest.fixture(scope="module")
def oci_path(oci: str, oci_path: str) -> str:
    """The newest runc there is, or pyrunc."""
    return str(runc()) if oci == "runc" else oci_path


@pytest.fixture(scope="module")
def engine(host: Host, oci_path: str, images: tuple[Path, Path]) -> Iterator[BuildKit]:
    yield BuildKit(host, oci_path, images[0])


class TestBuildKit(Builds):
    """The cases shared with docker and buildah, and BuildKit's own."""

    def test_runtime_is_the_one_asked_for(self, engine: BuildKit, oci_path: str, seen: Seen) -> None:
        """The runtime stays in the foreground while a step runs."""
        folder = write(engine, "waiting", "FROM BASE\nRUN exec sleep 987653")
        client = engine.host.start(*engine.build_words(folder), log="waiting.log")
        harness.wait_until(lambda: any("sleep 987653" in args for args in engine.host.processes()), "the step", 40)
        found = {args.split()[0] for args in engine.host.processes() if " run " in args and "--bundle" in args}
        engine.host.end(client, signal.SIGINT)
        seen(found=len(found))
        assert found == {oci_path}

    @pytest.mark.needs_cap("SYS_RESOURCE")
    def test_insecure(self, engine: BuildKit, seen: Seen) -> None:
        text = """
            FROM BASE
            RUN --security=insecure mkdir /m && mount -t tmpfs none /m && echo "SHOWN mounted"
        """
        folder = write(engine, "insecure", text)
        done = engine.build(folder, "--allow=security.insecure")
        seen(shown=shown(done))
        assert done.rc == 0 and shown(done) == ["mounted"], done
