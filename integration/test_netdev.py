"""linux.netDevices, with veth pairs and bridges in a network namespace that stands for the
host's."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from integration.harness import Box, Container, Holder, Result

Make = Callable[..., Container]
Refused = Callable[..., None]
pytestmark = [
    pytest.mark.pyrunc_only("runc older than 1.3 does not know the field"),
    pytest.mark.needs_program("ip", "nsenter"),
    pytest.mark.needs_cap("NET_ADMIN"),
]


class Host:
    """A network namespace in which the runtime is called."""

    def __init__(self, held: Holder) -> None:
        self.held = held
        self.wrap = ["nsenter", "-t", str(held.pid), "-n"]

    def ip(self, *args: str) -> str:
        """Run `ip ARGS` in the namespace; skip the test if the kernel lacks the type of device."""
        done = subprocess.run([*self.wrap, "ip", *args], capture_output=True, text=True, check=False)
        if "Unknown device type" in done.stderr:
            pytest.skip(f"this kernel has no such device: ip {' '.join(args)}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def veth(self, name: str, peer: str) -> None:
        self.ip("link", "add", name, "type", "veth", "peer", "name", peer)

    def devices(self) -> dict[str, dict[str, Any]]:
        """The output of `ip addr` by name."""
        return {item["ifname"]: item for item in json.loads(self.ip("-j", "addr"))}

    def addresses(self, name: str) -> list[str]:
        """Global addresses of a device, as ``ADDRESS/LENGTH``."""
        found = self.devices()[name]["addr_info"]
        return sorted(f"{a['local']}/{a['prefixlen']}" for a in found if a["scope"] == "global")


@pytest.fixture
def host(holder: Callable[..., Holder]) -> Host:
    return Host(holder("network"))


def inside(result: Result) -> dict[str, dict[str, Any]]:
    """`ip -o addr` of busybox by device: state and global addresses."""
    found: dict[str, dict[str, Any]] = {}
    for line in result.out.splitlines():
        words = line.split()
        name = words[1].rstrip(":").partition("@")[0]
        entry = found.setdefault(name, {"up": False, "addresses": []})
        if words[2].startswith("<"):
            entry["up"] = "UP" in words[2].strip("<>").split(",")
        elif "global" in words:
            entry["addresses"].append(words[3])
    return found


SHOW = {"/process/args": ["/bin/sh", "-c", "ip -o link; ip -o addr"]}


def wanted(devices: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**SHOW, "/linux/netDevices": devices, **more}


def test_moved_renamed_and_up(container: Make, host: Host) -> None:
    host.veth("left", "right")
    host.ip("addr", "add", "192.0.2.1/24", "brd", "192.0.2.255", "dev", "left")
    host.ip("addr", "add", "2001:db8::1/64", "dev", "left", "nodad")
    host.ip("addr", "add", "192.0.2.9/32", "dev", "left", "scope", "link")
    host.ip("addr", "add", "192.0.2.7/32", "dev", "left", "valid_lft", "900", "preferred_lft", "900")
    host.ip("link", "set", "left", "mtu", "1400")
    mac = host.devices()["left"]["address"]
    script = "ip -o link; ip -o addr; cat /sys/class/net/eth0/mtu /sys/class/net/eth0/address"
    edits = {**wanted({"left": {"name": "eth0"}}), "/process/args": ["/bin/sh", "-c", script]}
    result = container(edits=edits).run(wrap=host.wrap)
    assert result.out.splitlines()[-2:] == ["1400", mac]
    seen = inside(Result([], 0, "\n".join(result.out.splitlines()[:-2]), "", 0))
    assert seen["eth0"]["up"]
    assert sorted(seen["eth0"]["addresses"]) == ["192.0.2.1/24", "2001:db8::1/64"]
    assert "left" not in seen


def test_several_with_their_own_names(container: Make, host: Host) -> None:
    host.veth("left", "right")
    host.ip("addr", "add", "192.0.2.1/24", "dev", "right")
    host.ip("link", "set", "right", "up")
    seen = inside(container(edits=wanted({"left": {}, "right": {}})).run(wrap=host.wrap))
    assert seen["left"]["up"]
    assert seen["right"]["up"]
    assert seen["right"]["addresses"] == ["192.0.2.1/24"]


def test_template(container: Make, host: Host) -> None:
    host.veth("left", "right")
    seen = inside(container(edits=wanted({"left": {"name": "net%d"}, "right": {"name": "net%d"}})).run(wrap=host.wrap))
    assert set(seen) >= {"net0", "net1"}
    assert seen["net0"]["up"]


def test_hooks_and_sysctls_meet_the_device(container: Make, host: Host, box: Box) -> None:
    host.veth("left", "right")
    note = box.path / "seen"
    hook = {
        "path": "/bin/sh",
        "args": ["sh", "-c", f'read s; p=${{s#*\\"pid\\":}}; nsenter -t ${{p%%,*}} -n ip -o link >{note}'],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    }
    edits = wanted({"left": {"name": "eth7"}})
    edits["/hooks"] = {"createRuntime": [hook]}
    edits["/linux/sysctl"] = {"net.ipv4.conf.eth7.forwarding": "1"}
    edits["/process/args"] = ["/bin/cat", "/proc/sys/net/ipv4/conf/eth7/forwarding"]
    assert container(edits=edits).run(wrap=host.wrap).out == "1\n"
    assert " eth7@" in note.read_text()


def test_never_moved_back(container: Make, host: Host) -> None:
    host.veth("left", "right")
    made = container("signals", "60", edits={"/linux/netDevices": {"left": {}}})
    made.create(wrap=host.wrap)
    assert "left" not in host.devices()
    made.start()
    made.delete("--force")
    # Both ends are destroyed with the namespace, asynchronously by the kernel; the device never
    # returns to the host.
    assert "left" not in host.devices()


def test_stays_in_a_joined_namespace(container: Make, host: Host, holder: Callable[..., Holder]) -> None:
    host.veth("left", "right")
    pod = Host(holder("network"))
    edits = wanted({"left": {"name": "eth0"}})
    edits["/linux/namespaces/1"] = {"type": "network", "path": pod.held.path("network")}
    edits["/mounts/5"] = {"destination": "/sys", "type": "tmpfs", "source": "tmpfs"}
    made = container(edits=edits)
    made.run(wrap=host.wrap)
    assert "eth0" in pod.devices()
    again = container(edits=edits).run(wrap=host.wrap, check=False)
    assert "/linux/netDevices/left" in again.err


def test_our_own_namespace(container: Make, host: Host, refused: Refused) -> None:
    host.veth("left", "right")
    edits = wanted({"left": {"name": "eth0"}})
    edits["/linux/namespaces/1"] = {"type": "network", "path": host.held.path("network")}
    edits["/mounts/5"] = {"destination": "/sys", "type": "tmpfs", "source": "tmpfs"}
    refused(
        container(edits=edits).create(wrap=host.wrap, check=False), "/linux/netDevices", "our own network namespace"
    )
    assert "left" in host.devices()


@pytest.mark.parametrize(
    ("devices", "pointer", "words"),
    [
        ({"absent": {}}, "/linux/netDevices/absent", "ENODEV"),
        ({"lo": {"name": "x"}}, "/linux/netDevices/lo", "loopback"),
        ({"left": {"name": "lo"}}, "/linux/netDevices/left/name", "EEXIST"),
        ({"left": {"name": "eth0"}, "absent": {}}, "/linux/netDevices/absent", "ENODEV"),
        ({"left": {"name": "eth0"}, "br0": {}}, "/linux/netDevices/br0", "EINVAL"),
    ],
)
def test_all_or_none(
    container: Make, host: Host, refused: Refused, devices: dict[str, Any], pointer: str, words: str
) -> None:
    host.veth("left", "right")
    host.ip("link", "add", "br0", "type", "bridge")
    host.ip("addr", "add", "192.0.2.1/24", "dev", "left")
    host.ip("addr", "add", "198.51.100.1", "peer", "198.51.100.2", "dev", "left")
    host.ip("link", "set", "left", "up")
    refused(container(edits=wanted(devices)).create(wrap=host.wrap, check=False), pointer, words)
    assert host.addresses("left") == ["192.0.2.1/24", "198.51.100.1/32"]
    assert "UP" in host.devices()["left"]["flags"]


def test_devices_return_when_create_fails(container: Make, host: Host, refused: Refused) -> None:
    host.veth("left", "right")
    host.ip("addr", "add", "192.0.2.1/24", "dev", "left")
    edits = wanted({"left": {"name": "eth%d"}, "right": {"name": "x"}})
    edits["/hooks"] = {"createRuntime": [{"path": "/bin/false"}]}
    refused(container(edits=edits).create(wrap=host.wrap, check=False), "/hooks/createRuntime/0")
    assert host.addresses("left") == ["192.0.2.1/24"]
    assert "UP" not in host.devices()["left"]["flags"]
    assert "right" in host.devices()
