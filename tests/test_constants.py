"""Numbers that the kernel defines agree with its headers; all other constants are in one table.

A program compiled against the headers prints what the macros mean. golden/constants.txt has the limits,
defaults, names and formats that are our own: a change of one is a change for users, or of a file that
another version reads (PYRUNC_UPDATE_GOLDEN=1 rewrites it; then review the diff).
"""

from __future__ import annotations

import ast
import importlib
import shutil
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("pyrunc._shim", reason="the extension is not built")

import transcript

ROOT = Path(__file__).resolve().parent.parent / "pyrunc"
HEADERS = [
    "arpa/inet.h", "elf.h", "fcntl.h", "limits.h", "linux/audit.h", "linux/bpf.h", "linux/if.h", "linux/if_addr.h",
    "linux/magic.h", "linux/netlink.h", "linux/rtnetlink.h", "linux/seccomp.h", "linux/filter.h", "sched.h",
    "signal.h", "stdio.h", "sys/mount.h", "sys/resource.h", "sys/socket.h", "sys/stat.h", "sys/statvfs.h",
    "sys/sysmacros.h",
]  # fmt: skip
TYPES = {"_TYPE": "S_IFMT", "_REGULAR": "S_IFREG", "_DIRECTORY": "S_IFDIR", "_DIR": "S_IFDIR", "_LINK": "S_IFLNK"}
# module -> name -> what it is in C; a name alone is the macro of that name, without leading underscores
KERNEL: dict[str, dict[str, str]] = {
    "cgroup.devices": {
        "BLOCK": "BPF_DEVCG_DEV_BLOCK", "CHAR": "BPF_DEVCG_DEV_CHAR", "MKNOD": "BPF_DEVCG_ACC_MKNOD",
        "READ": "BPF_DEVCG_ACC_READ", "WRITE": "BPF_DEVCG_ACC_WRITE", "_ALLOW_MULTI": "BPF_F_ALLOW_MULTI",
        "ALL": "BPF_DEVCG_ACC_MKNOD | BPF_DEVCG_ACC_READ | BPF_DEVCG_ACC_WRITE", "_REPLACE": "BPF_F_REPLACE",
        "_LDX_W": "BPF_LDX | BPF_MEM | BPF_W", "_MOV_K": "BPF_ALU64 | BPF_MOV | BPF_K", "_EXIT": "BPF_JMP | BPF_EXIT",
        "_MOV_X": "BPF_ALU64 | BPF_MOV | BPF_X", "_AND_K": "BPF_ALU64 | BPF_AND | BPF_K", "_JA": "BPF_JMP | BPF_JA",
        "_RSH_K": "BPF_ALU64 | BPF_RSH | BPF_K", "_JNE32_K": "BPF_JMP32 | BPF_JNE | BPF_K",
        "_JSET_K": "BPF_JMP | BPF_JSET | BPF_K",
    },
    "checkpoint.criu": TYPES,
    "checkpoint.images": {"_TYPE": "S_IFMT", "_REGULAR": "S_IFREG"},
    "checkpoint.mounts": {"_MS_BIND": "", "_MS_REC": "", "_MS_REMOUNT": "", "_MNT_DETACH": "", "_ST_NOSYMFOLLOW":
                          "0x2000", "_MS_NOSYMFOLLOW": "256"},
    "checkpoint.nest": {"_MS_BIND_RECURSIVE": "MS_BIND | MS_REC", "_MS_SLAVE_RECURSIVE": "MS_SLAVE | MS_REC",
                        "_MS_PRIVATE": ""},
    "checkpoint.rootfs": TYPES,
    "explain": TYPES,
    "hooks": {"S_IFMT": "", "S_IFREG": "", "S_IFIFO": "", "_ADD_SEALS": "F_ADD_SEALS",
              "_ALL_SEALS": "F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE"},
    "image.store": {"_MS_REC_SLAVE": "MS_REC | MS_SLAVE", "_MNT_DETACH": ""},
    "launch.exec": {"_CGROUP2_MAGIC": "CGROUP2_SUPER_MAGIC"},
    "launch.foreground": {"SIGCHLD": "", "SIGURG": "", "SIGWINCH": ""},
    "launch.netdev": {
        "IFF_UP": "", "IFF_LOOPBACK": "", "IFA_F_PERMANENT": "", "SCOPE_UNIVERSE": "RT_SCOPE_UNIVERSE",
        "KEPT_FLAGS": "IFA_F_NOPREFIXROUTE | IFA_F_MCAUTOJOIN | IFA_F_MANAGETEMPADDR | IFA_F_HOMEADDRESS | IFA_F_NODAD",
        **dict.fromkeys(
            ("RTM_NEWLINK", "RTM_GETLINK", "RTM_NEWADDR", "RTM_GETADDR", "NLM_F_REQUEST", "NLM_F_ACK", "NLM_F_DUMP",
             "NLM_F_EXCL", "NLM_F_CREATE", "NLM_F_CAPPED", "NLM_F_ACK_TLVS", "NLMSG_ERROR", "NLMSG_DONE",
             "NLMSGERR_ATTR_MSG"), ""),
    },
    "launch.session": {"_INFINITY": "(unsigned long long)RLIM_INFINITY"},
    "launch.streams": TYPES,
    "launch.tools": TYPES,
    "native.sockets": {"SOCK_STREAM": "", "SOCK_DGRAM": ""},
    "notify": {"_SOCK_DGRAM": ""},
    "plan.devices": {"S_IFIFO": "", "S_IFCHR": "", "S_IFBLK": ""},
    "plan.mount_options": {
        "RDONLY": "MOUNT_ATTR_RDONLY", "NOSUID": "MOUNT_ATTR_NOSUID", "NODEV": "MOUNT_ATTR_NODEV", "NOATIME":
        "MOUNT_ATTR_NOATIME", "NOEXEC": "MOUNT_ATTR_NOEXEC", "ATIME_FIELD": "MOUNT_ATTR__ATIME", "RELATIME":
        "MOUNT_ATTR_RELATIME", "STRICTATIME": "MOUNT_ATTR_STRICTATIME", "NODIRATIME": "MOUNT_ATTR_NODIRATIME",
        "NOSYMFOLLOW": "0x200000",
    },
    "plan.security": {"SPEC_ALLOW": "SECCOMP_FILTER_FLAG_SPEC_ALLOW", "WAIT_KILLABLE_RECV": "1 << 5"},
    "procfs": {"_NSFS_MAGIC": "NSFS_MAGIC"},
    "rootmount": {"MNT_DETACH": "", "MS_PRIVATE": ""},
    "seccomp": {"NEW_LISTENER": "SECCOMP_FILTER_FLAG_NEW_LISTENER",
        "PROGRAM_MAX": "BPF_MAXINSNS * sizeof(struct sock_filter)"},
    "seccomp_tools.bpf": {
        "_LD_ABS": "BPF_LD | BPF_W | BPF_ABS", "_AND": "BPF_ALU | BPF_AND | BPF_K", "_JA": "BPF_JMP | BPF_JA",
        "_RET": "BPF_RET | BPF_K", "_JEQ": "BPF_JMP | BPF_JEQ | BPF_K", "_JGT": "BPF_JMP | BPF_JGT | BPF_K",
        "_JGE": "BPF_JMP | BPF_JGE | BPF_K", "_JSET": "BPF_JMP | BPF_JSET | BPF_K", "ACTION": "SECCOMP_RET_ACTION_FULL",
        "VALUE": "SECCOMP_RET_DATA",
    },
    "seccomp_tools.calls": {"X32_BIT": "0x40000000", "_X86_64": "AUDIT_ARCH_X86_64", "X86": "AUDIT_ARCH_I386",
                            "_64_BIT": "__AUDIT_ARCH_64BIT"},
    "seccomp_tools.decode": {"AT_FDCWD": ""},
    "seccomp_tools.listener": {
        "_RECV": "SECCOMP_IOCTL_NOTIF_RECV", "_SEND": "SECCOMP_IOCTL_NOTIF_SEND",
            "_ID_VALID": "SECCOMP_IOCTL_NOTIF_ID_VALID",
        "_CONTINUE": "SECCOMP_USER_NOTIF_FLAG_CONTINUE",
    },
    "seccomp_tools.trace": {"SIGCHLD": "", "SIGWINCH": "", "SI_KERNEL": ""},
    "state.container": TYPES,
    "trace.target": TYPES,
    "verbs.ps": {"SIGPIPE": ""},
}  # fmt: skip


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], int]:
    """(module, name) -> the number in the headers."""
    if shutil.which("gcc") is None:
        pytest.skip("no compiler")
    rows = [(module, name, c or name.lstrip("_")) for module, names in KERNEL.items() for name, c in names.items()]
    prints = "".join(f'printf("%lld\\n", (long long)({c}));' for _, _, c in rows)
    includes = "".join(f"#include <{name}>\n" for name in HEADERS)
    place = tmp_path_factory.mktemp("numbers")
    (place / "numbers.c").write_text(f"#define _GNU_SOURCE\n{includes}int main(void) {{ {prints} }}\n")
    subprocess.run(["gcc", "-w", "-o", place / "numbers", place / "numbers.c"], check=True)
    printed = subprocess.run([place / "numbers"], capture_output=True, check=True).stdout.split()
    return {(module, name): int(number) for (module, name, _), number in zip(rows, printed, strict=True)}


@pytest.mark.parametrize("module", sorted(KERNEL))
def test_numbers_of_the_kernel(module: str, theirs: dict[tuple[str, str], int]) -> None:
    found = vars(importlib.import_module(f"pyrunc.{module}"))
    ours = {name: found[name] for name in KERNEL[module] if name in found}
    mask = (1 << 64) - 1
    assert ours
    assert {name: hex(number & mask) for name, number in ours.items()} == {
        name: hex(theirs[module, name] & mask) for name in ours
    }


def constants(path: Path) -> list[str]:
    """The names that a module assigns outside its functions."""
    names: list[str] = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        names += [one.id for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)]
    return names


def shown(value: object, depth: int = 4) -> str | None:
    """Plain data as text without sentences, whose wording is free; None for anything else."""
    if isinstance(value, str | bytes):
        return repr(value) if len(value.split()) < 2 else "..."
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, dict):
        rows = [(shown(key, depth), shown(item, depth - 1)) for key, item in value.items()]
        return "{" + ", ".join(f"{key}: {item}" for key, item in rows) + "}" if depth else "{}"
    if isinstance(value, list | tuple | set | frozenset):
        items = [str(shown(item, depth - 1)) for item in value] if depth else []
        return f"{type(value).__name__}({', '.join(items if isinstance(value, list | tuple) else sorted(items))})"
    return None


def modules() -> list[str]:
    """The modules with constants, without the generated ones."""
    found = [
        ".".join((path.parent if path.name == "__init__.py" else path.with_suffix("")).relative_to(ROOT).parts)
        for path in (*ROOT.rglob("[!_]*.py"), *ROOT.glob("*/__init__.py"))
        if any(name.isupper() and name != "TYPE_CHECKING" for name in constants(path))
    ]
    return sorted(set(found) - {"plan.ops", "build", "native.prototypes", "spec.types"})


@pytest.mark.parametrize("module", modules())
def test_our_own_constants(module: str) -> None:
    """Flags of open(2) differ between machines."""
    imported = importlib.import_module(f"pyrunc.{module}")
    found, lines = vars(imported), []
    for name in dict.fromkeys(constants(Path(str(imported.__file__)))):
        text = shown(found.get(name))
        left_out = name in KERNEL.get(module, {}) or name.endswith(("_FLAGS", "TYPE_CHECKING")) or name == "_DIRECTORY"
        if text is not None and name.isupper() and not left_out:
            lines.append(f"{name} = {text}")
    transcript.compare("constants", module, lines, cut=True)
