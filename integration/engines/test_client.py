"""containerd's own tests of its Go client, with a current containerd (`make test-client`).

They run a program named runc. pyrunc must pass each test that runc passes.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from integration.engines import image
from integration.engines.conftest import RECORD, find, sandbox
from integration.engines.host import Host
from integration.engines.kubernetes.conftest import BINS, runc

ENGINE = "containerd's client tests on containerd 2.x"
ADDRESS, IMAGE = "ghcr.io", "containerd/busybox:1.36"  # compiled into the tests
ROOT = Path("/var/lib/containerd-test")  # also compiled in
KINDS = (
    "Task Container Shim User UID BindLow Issue Wait Process Delete Kill Short Regression Daemon Restart NewContainer"
)
# The second needs a network, the others do not finish with this image on any runtime.
SKIP = "TestRegressionIssue6429|TestBindLowPortNonOpt|TestContainerExecLargeOutputWithTTY"
RESULT = re.compile(r"^--- (PASS|FAIL|SKIP): (\S+)", re.MULTILINE)
pytestmark = pytest.mark.skipif(not BINS, reason="make test-client builds what this needs")


def serve(host: Host, folder: Path) -> None:
    """Serve the image over TLS under the name compiled into the tests."""
    image.build(folder, f"{ADDRESS}/{IMAGE}")
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    words += ["-addext", f"subjectAltName=DNS:{ADDRESS}", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    done = host.call("openssl", *words)
    assert done.rc == 0, done
    (folder / "hosts").write_text(f"127.0.0.1 localhost {ADDRESS}\n")
    done = host.call("mount", "--bind", f"{folder}/hosts", "/etc/hosts")
    assert done.rc == 0, done
    script = f'cd {folder} && exec "$@"'
    registry = [sys.executable, str(Path(__file__).with_name("registry.py")), "443", f"{IMAGE}={folder}/oci.tar"]
    host.start("/bin/sh", "-c", script, "sh", *registry, log="registry.log")
    host.wait_ready("registry", lambda: "ready" in (host.path / "registry.log").read_text(), "registry.log")


def run(host: Host, runtime: str, folder: Path) -> dict[str, str]:
    """Run the tests; return PASS, FAIL or SKIP by name."""
    (folder / "runc").symlink_to(runtime)
    env = {"PATH": f"{folder}:{BINS}:{host.env['PATH']}", "SSL_CERT_FILE": f"{folder}/cert.pem"}
    env |= {"TEST_RUNTIME": "io.containerd.runc.v2", "TEST_SNAPSHOTTER": "overlayfs"}
    kinds = "|".join(f"Test{kind}" for kind in KINDS.split())
    words = ["-test.v", "-test.root", "-no-criu", "-test.parallel", "2", "-test.run", kinds, "-test.skip", SKIP]
    script = f'cd {folder} && mkdir root && mount --bind root {ROOT} && exec timeout 600 "$@" >log 2>&1'
    host.call("/bin/sh", "-c", script, "sh", f"{BINS}/client.test", *words, env=env, timeout=700)
    text = (folder / "log").read_text(errors="replace")
    found = {name: outcome for outcome, name in RESULT.findall(text)}
    assert found, text[-3000:]
    return found


def test_client(request: pytest.FixtureRequest, oci: str, tmp_path: Path) -> None:
    path = runc() if oci == "runc" else find(oci)
    assert path
    made = not ROOT.exists()
    ROOT.mkdir(exist_ok=True)
    try:
        with sandbox("client-" + oci) as host:
            folder = host.path / "client"
            folder.mkdir()
            serve(host, folder)
            found = run(host, path, folder)
            (tmp_path / "log").write_text((folder / "log").read_text())
    finally:
        if made:
            ROOT.rmdir()
    kept = request.config.stash[RECORD]
    version = (Path(BINS).parent / "built/client.test").read_text().strip()
    kept.versions[ENGINE] = {"containerd": version}
    for name, outcome in found.items():
        if outcome != "SKIP":
            kept.add(ENGINE, name, oci, "passed" if outcome == "PASS" else "failed", [])
    passed = {name for name, outcome in found.items() if outcome == "PASS"}
    print(f"{oci}: {len(passed)} passed; failed: {sorted(n for n, o in found.items() if o == 'FAIL')}; {tmp_path}/log")
    assert len(passed) > 40, found
    others = {name for name, cells in kept.rows[ENGINE].items() if cells.get("runc", {}).get("outcome") == "passed"}
    assert not others - passed, sorted(others - passed)
