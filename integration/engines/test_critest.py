"""Kubernetes' own conformance tests of CRI (critest of cri-tools) on a current containerd (`make
test-cri`).

``critest.txt`` lists the specs that pass with runc on a host without cgroup v2 controllers; pyrunc
must pass all of them. ``PYRUNC_CRITEST_WRITE=1 PYRUNC_ENGINE_RUNTIMES=runc`` writes the list.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from integration.engines.conftest import RECORD, sandbox
from integration.engines.cri import BUSYBOX, Cri
from integration.engines.host import Host

BINS = os.environ.get("PYRUNC_ENGINES_BIN", "")
WANTED = Path(__file__).with_name("critest.txt")
ENGINE = "critest on containerd 2.x"
# Specs that need images from the internet, a security module, or a network beyond the sandbox.
SKIP = "public image|Idempotence|image|web server|AppArmor|SELinux|portforward|HostPort|port mapping|hostnet|DNS"
pytestmark = pytest.mark.skipif(not BINS, reason="make test-cri builds what this needs")


class Result:
    """Names of specs by result."""

    def __init__(self, report: Path) -> None:
        self.passed: list[str] = []
        self.failed: dict[str, str] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.attrib["name"]
            if not name.startswith("[It]"):
                continue
            trouble = case.find("failure") if case.find("failure") is not None else case.find("error")
            if trouble is not None:
                self.failed[name] = trouble.attrib.get("message", "")
            elif case.find("skipped") is None:
                self.passed.append(name)


def critest(host: Host, engine: Cri) -> Result:
    """Run the selected specs one after the other."""
    images = host.path / "images.yaml"
    images.write_text(f"defaultTestContainerImage: {BUSYBOX}\nwebServerTestImage: {BUSYBOX}\n")
    report = host.path / "report.xml"
    words = [f"{engine.bins}/critest", "-runtime-endpoint", engine.endpoint, "-image-endpoint", engine.endpoint]
    words += [
        "-test-images-file",
        str(images),
        "-ginkgo.skip",
        SKIP,
        "-ginkgo.junit-report",
        str(report),
        "-ginkgo.seed",
        "1",
    ]
    done = host.call(*words, timeout=1200)
    assert report.exists(), done
    return Result(report)


def test_conformance(request: pytest.FixtureRequest, oci: str, oci_path: str, images: tuple[Path, Path]) -> None:
    with sandbox("critest-" + oci) as host:
        engine = Cri(host, oci_path, True, Path(BINS), images[0].parent)
        result = critest(host, engine)
    print(f"{oci}: {len(result.passed)} passed, {len(result.failed)} failed")
    for name, message in result.failed.items():
        print(f"failed: {name}: {message[:300]}")
    kept = request.config.stash[RECORD]
    kept.versions[ENGINE] = engine.containerd.versions | {"critest": engine.versions["crictl"]}  # of the same module
    for name in (*result.passed, *result.failed):
        outcome = "passed" if name in result.passed else "failed"
        kept.add(ENGINE, name.removeprefix("[It] [k8s.io] "), oci, outcome, [])
    if os.environ.get("PYRUNC_CRITEST_WRITE"):
        WANTED.write_text("".join(name + "\n" for name in sorted(result.passed)))
    missing = set(WANTED.read_text().splitlines()) - set(result.passed)
    assert not missing, sorted(missing)
