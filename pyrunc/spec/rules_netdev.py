"""Rules for `linux.netDevices`. Only loaded for a config that has it."""

from __future__ import annotations

from pyrunc.fs import salted
from pyrunc.spec.names import escape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.spec.report import Report
    from pyrunc.spec.types import NetDevice

NAME_MAX = 15  # IFNAMSIZ with its NUL


def check(devices: dict[str, NetDevice], report: Report) -> None:
    """Valid names, each new name once, and a network namespace for the devices."""
    if not devices:
        return
    pointer = "/linux/netDevices"
    if "network" not in report.namespaces:
        report.bad(pointer, "no devices without a network namespace of the container", devices)
    taken: set[str] = set()
    for device, entry in devices.items():
        here = f"{pointer}/{escape(device)}"
        if not valid_name(device) or "%" in device:
            report.bad(here, f"the name of a network device: at most {NAME_MAX} bytes without blanks, / : %", device)
            continue
        name = entry.get("name") or device
        if not valid_name(name) or not _template(name):
            expected = f"a name of at most {NAME_MAX} bytes without blanks, / and :, or a template such as eth%d"
            report.bad(f"{here}/name", expected, name)
        elif "%" not in name:
            if salted(name) in taken:
                report.bad(f"{here}/name", "a name that no other device has", name)
            taken.add(salted(name))


def valid_name(name: str) -> bool:
    """Whether dev_valid_name (net/core/dev.c) accepts a name."""
    if not name or len(name.encode("utf-8", "surrogateescape")) > NAME_MAX or name in (".", ".."):
        return False
    return not any(char in "/:" or char.isspace() or char == "\0" for char in name)


def _template(name: str) -> bool:
    return "%" not in name or (name.count("%") == 1 and name.endswith("%d"))
