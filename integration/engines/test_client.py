"""containerd's own tests of its Go client, with a current containerd (`make test-client`).

They run a program named runc. pyrunc must pass each test that runc passes.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import pytest

from integration.engines import image
from integration.engines.conftest import RECORD, find, sandbox
from integration.engines.host import Host
from integration.engines.kubernetes.conftest import BINS, runc

ENGINE = "containerd's client tests on containerd 2.x"
ADDRESS = "ghcr.io"  # compiled into the tests, as are the names of images
IMAGE, SETUID_IMAGE = "containerd/busybox:1.36", "containerd/volume-ownership:2.1"
ROOT = "/var/lib/containerd-test"  # also compiled in
# The tests know the ids of busybox's image, where nobody is 1000.
USERS = """\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
sys:x:3:3:sys:/dev:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUPS = "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\nwww-data:x:33:\nnogroup:x:65534:\n"
KINDS = (
    "Task Container Shim User UID BindLow Issue Wait Process Delete Kill Short Regression Daemon Restart NewContainer"
)
# The second needs a network, the others do not finish with this image on any runtime.
SKIP = "TestRegressionIssue6429|TestBindLowPortNonOpt|TestContainerExecLargeOutputWithTTY"
RESULT = re.compile(r"^--- (PASS|FAIL|SKIP): (\S+)", re.MULTILINE)
pytestmark = pytest.mark.skipif(not BINS, reason="make test-client builds what this needs")


def serve(host: Host, folder: Path) -> None:
    """Serve the images over TLS; the second one has bash and a file with the setuid bit."""
    image.build(folder, f"{ADDRESS}/{IMAGE}", users=(USERS, GROUPS))
    second = folder / "second"
    for name, mode, text in (("bin/bash", 0o755, '#!/bin/sh\nexec /bin/sh "$@"\n'), ("usr/bin/passwd", 0o4755, "")):
        file = second / "rootfs" / name
        file.parent.mkdir(parents=True)
        file.write_text(text)
        file.chmod(mode)
    image.build(second, f"{ADDRESS}/{SETUID_IMAGE}", users=(USERS, GROUPS))
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=test", "-days", "2"]
    words += ["-addext", f"subjectAltName=DNS:{ADDRESS}", "-keyout", f"{folder}/key.pem", "-out", f"{folder}/cert.pem"]
    done = host.call("openssl", *words)
    assert done.rc == 0, done
    (folder / "hosts").write_text(f"127.0.0.1 localhost {ADDRESS}\n")
    host.cover("/etc/hosts", folder / "hosts")
    script = f'cd {folder} && exec "$@"'
    registry = [sys.executable, str(Path(__file__).with_name("registry.py")), "443"]
    registry += [f"{IMAGE}={folder}/oci.tar", f"{SETUID_IMAGE}={second}/oci.tar"]
    host.start("/bin/sh", "-c", script, "sh", *registry, log="registry.log")
    host.wait_ready("registry", lambda: "ready" in (host.path / "registry.log").read_text(), "registry.log")


def run(host: Host, folder: Path, pattern: str, parallel: int = 2) -> dict[str, str]:
    """Run tests; return PASS, FAIL or SKIP by name."""
    env = {"PATH": f"{folder}:{BINS}:{host.env['PATH']}", "SSL_CERT_FILE": f"{folder}/cert.pem"}
    env |= {"TEST_RUNTIME": "io.containerd.runc.v2", "TEST_SNAPSHOTTER": "overlayfs"}
    words = [
        "-test.v",
        "-test.root",
        "-no-criu",
        f"-test.parallel={parallel}",
        "-test.run",
        pattern,
        "-test.skip",
        SKIP,
    ]
    script = f'cd {folder} && exec timeout 600 "$@" >log 2>&1'
    host.call("/bin/sh", "-c", script, "sh", f"{BINS}/client.test", *words, env=env, timeout=700)
    text = (folder / "log").read_text(errors="replace")
    found = {name: outcome for outcome, name in RESULT.findall(text)}
    assert found, text[-3000:]
    return found


def run_all(host: Host, runtime: str, folder: Path, logs: Path) -> dict[str, str]:
    """Run the tests, and those that fail again alone: some allow two seconds for what takes longer
    on a busy machine."""
    (folder / "runc").symlink_to(runtime)
    (folder / "root").mkdir()
    host.cover(ROOT, folder / "root")
    found = run(host, folder, "|".join(f"Test{kind}" for kind in KINDS.split()))
    shutil.move(folder / "log", logs / "first")
    failed = sorted(name for name, outcome in found.items() if outcome == "FAIL")
    if failed:
        found |= run(host, folder, f"^({'|'.join(failed)})$", parallel=1)
        shutil.move(folder / "log", logs / "second")
        print("passed alone only:", [name for name in failed if found[name] == "PASS"])
    return found


def test_client(request: pytest.FixtureRequest, oci: str, tmp_path: Path) -> None:
    path = runc() if oci == "runc" else find(oci)
    assert path
    with sandbox("client-" + oci) as host:
        folder = host.path / "client"
        folder.mkdir()
        serve(host, folder)
        found = run_all(host, path, folder, tmp_path)
        other = host.call(str(runc()), "--version").out.split()[2]
    kept = request.config.stash[RECORD]
    version = (Path(BINS).parent / "built/client.test").read_text().strip()
    kept.versions[ENGINE] = {"containerd": version, "runc": other}
    for name, outcome in found.items():
        if outcome != "SKIP":
            kept.add(ENGINE, name, oci, "passed" if outcome == "PASS" else "failed", [])
    passed = {name for name, outcome in found.items() if outcome == "PASS"}
    print(f"{oci}: {len(passed)} passed; failed: {sorted(n for n, o in found.items() if o == 'FAIL')}; {tmp_path}")
    assert len(passed) > 40, found
    others = {name for name, cells in kept.rows[ENGINE].items() if cells.get("runc", {}).get("outcome") == "passed"}
    assert not others - passed, sorted(others - passed)
