"""The smallest SELinux policy that allows labels to be set and read, loaded into a guest's kernel.

Nothing is enforced: the policy decides what a container may do, the runtime only sets labels.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from integration.harness import TIMEOUT

FS = Path("/sys/fs/selinux")
# In the order of the kernel's numbers (security/selinux/include/initial_sid_to_string.h).
SIDS = [
    "kernel",
    "security",
    "unlabeled",
    "fs",
    "file",
    "file_labels",
    "init",
    "any_socket",
    "port",
    "netif",
    "netmsg",
    "node",
    "igmp_packet",
    "icmp_socket",
    "tcp_socket",
    "sysctl_modprobe",
    "sysctl",
    "sysctl_fs",
    "sysctl_kernel",
    "sysctl_net",
    "sysctl_net_unix",
    "sysctl_vm",
    "sysctl_dev",
    "kmod",
    "policy",
    "scmp_packet",
    "devnull",
]
CLASSES = {
    "process": "fork transition dyntransition setexec setkeycreate",
    "process2": "nnp_transition nosuid_transition",
    "file": "read write execute entrypoint relabelfrom relabelto",
    "dir": "read write relabelfrom relabelto",
    "filesystem": "mount relabelfrom relabelto associate",
    "key": "view create",
}
TYPES = ("kernel_t", "container_t", "container_file_t")
FILE = "(system_u object_r container_file_t ((s0) (s0)))"
KERNEL = "(system_u system_r kernel_t ((s0) (s0)))"


def policy() -> str:
    """In CIL."""
    rows = ["(handleunknown allow)", "(mls true)", "(policycap nnp_nosuid_transition)"]
    rows += [f"(sid {name})" for name in SIDS] + [f"(sidorder ({' '.join(SIDS)}))"]
    rows += [f"(class {name} ({rights}))" for name, rights in CLASSES.items()]
    rows += [f"(classorder ({' '.join(CLASSES)}))"]
    rows += ["(sensitivity s0)", "(sensitivityorder (s0))", *(f"(category c{n})" for n in range(4))]
    rows += ["(categoryorder (c0 c1 c2 c3))", "(sensitivitycategory s0 (c0 c1 c2 c3))"]
    rows += ["(user system_u)", "(role system_r)", "(role object_r)", "(userrole system_u system_r)"]
    rows += ["(userrole system_u object_r)", "(userlevel system_u (s0))"]
    rows += ["(userrange system_u ((s0) (s0 (c0 c1 c2 c3))))"]
    for name in TYPES:
        rows += [f"(type {name})", f"(roletype system_r {name})", f"(roletype object_r {name})"]
    rows += [f"(sidcontext {name} {KERNEL if name in ('kernel', 'init') else FILE})" for name in SIDS]
    rows += [f"(fsuse xattr ext4 {FILE})", *(f"(fsuse trans {name} {FILE})" for name in ("tmpfs", "devpts", "mqueue"))]
    rows += [f'(genfscon {name} "/" {FILE})' for name in ("proc", "sysfs", "cgroup2", "selinuxfs")]
    rows += ["(allow kernel_t container_t (process (transition)))"]
    return "\n".join(rows) + "\n"


def load(folder: Path) -> None:
    """Compile the policy with secilc, and load it unless one is loaded. AssertionError on
    failure."""
    source, binary = folder / "policy.cil", folder / "policy.bin"
    source.write_text(policy())
    argv = ["secilc", "-o", str(binary), "-f", "/dev/null", str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (FS / "load").write_bytes(binary.read_bytes())


def provide(folder: Path) -> None:
    """Mount selinuxfs and load the policy if needed. A machine that has a policy keeps it."""
    if not (FS / "load").exists():
        subprocess.run(["mount", "-t", "selinuxfs", "none", str(FS)], check=True, timeout=TIMEOUT)
    if Path("/proc/self/attr/current").read_bytes().rstrip(b"\0\n") == b"kernel":
        load(folder)
