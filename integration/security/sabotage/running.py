"""Sabotages of what changes a running container: `mounts add`, `mounts remove` and `exec --tools`."""

from __future__ import annotations

from integration.security.sabotage.row import Sabotage

TABLE = [
    Sabotage(
        "T42",
        "init of `mounts add` stays dumpable",
        [
            (
                "pyrunc/plan/added_mounts.py",
                '    plan.dumpable("(default)", value=0)\n    ctx.trees',
                '    plan.dumpable("(default)", value=1)\n    ctx.trees',
            )
        ],
        "test_added_mounts.py::test_order_of_entering",
        "it can be traced",
    ),
    Sabotage(
        "T42",
        "it keeps its capabilities in the container's mount namespace",
        [("pyrunc/plan/added_mounts.py", "    mask = 0\n", "    mask = 1 << 19  # CAP_SYS_PTRACE\n")],
        "test_added_mounts.py::test_order_of_entering",
        "more than it needs",
    ),
    Sabotage(
        "T42",
        "the destination of an added mount is not checked",
        [("native/init/added.c", "    int ret = check_dest(in, st, dest, tree);\n", "    int ret = 0;\n")],
        "test_added_mounts.py::test_nothing_covers_the_root_or_proc",
        "was accepted",
    ),
    Sabotage(
        "T42",
        "a failure leaves the mounts before it",
        [
            ("native/init/added.c", "    in->undo = detach_attached;\n", "    (void)detach_attached;\n"),
            ("pyrunc/launch/added_mounts.py", "            self.salvage()\n            raise\n", "            raise\n"),
        ],
        "test_added_mounts.py::test_all_or_none",
        "half of it stays",
    ),
    Sabotage(
        "T42",
        "`mounts remove` detaches whatever is at the destination",
        [
            (
                "native/init/added.c",
                "        ours = sx.mnt_id == step_u64(st, N_UNMOUNT_id) && ",
                "        ours = 1 && ",
            )
        ],
        "test_added_mounts.py::test_only_what_was_added_is_removed",
        "the configuration's was removed",
    ),
    Sabotage(
        "T42",
        "an added mount is a peer of the host's",
        [("pyrunc/plan/added_mounts.py", "    mounts.limit_propagation(ctx)\n", "")],
        "test_added_mounts.py::test_no_mount_reaches_the_host",
        "a mount of the container",
    ),
    Sabotage(
        "T43",
        "the tools are mounted in the container's mount namespace",
        [
            (
                "pyrunc/plan/tools.py",
                '    plan.unshare(_ORIGIN, flags=CLONE_FLAGS["mount"])\n    # Otherwise',
                "    # Otherwise",
            )
        ],
        "test_tools.py::test_the_container_does_not_see_it",
        "the mount is not the process's alone",
    ),
    Sabotage(
        "T43",
        "the mount of the tools propagates",
        [("pyrunc/plan/tools.py", "    plan.propagation(_ORIGIN, propagation=RECURSIVE | PRIVATE)\n", "")],
        "test_tools.py::test_the_container_does_not_see_it",
        "the mount is not the process's alone",
    ),
    Sabotage(
        "T43",
        "the tools are writable",
        [("pyrunc/plan/tools.py", "_FLAGS = RDONLY | NOSUID | NODEV\n", "_FLAGS = NOSUID | NODEV\n")],
        "test_tools.py::test_the_directory_of_the_host_cannot_be_changed",
        "the host's directory was changed",
    ),
    Sabotage(
        "T43",
        "set-user-id programs of the tools keep their rights",
        [("pyrunc/plan/tools.py", "_FLAGS = RDONLY | NOSUID | NODEV\n", "_FLAGS = RDONLY | NODEV\n")],
        "test_tools.py::test_the_directory_of_the_host_cannot_be_changed",
        "programs with more rights",
    ),
    Sabotage(
        "T43",
        "mounts below the directory come along",
        [("pyrunc/launch/tools.py", "open_tree(fs.encode(directory), False)", "open_tree(fs.encode(directory), True)")],
        "test_tools.py::test_nothing_else_of_the_host_is_there",
        "a mount of the host",
    ),
    Sabotage(
        "T43",
        "the mount point of the tools is created",
        [("native/init/mount.c", "    if (HAS(PLAIN_DIR) && HAS(IN_PROC))\n", "    if (HAS(REMOUNT))\n")],
        "test_tools.py::test_proc_of_the_container_is_a_trap",
        "a mount point was made in the image",
    ),
    Sabotage(
        "T43",
        "a descriptor of the directory stays open",
        [
            (
                "native/init/source.c",
                "    in->fds[slot] = -1;\n    return fd;\n",
                "    in->fds[slot] = -1;\n    fcntl(fd, F_DUPFD_CLOEXEC, 3);\n    return fd;\n",
            )
        ],
        "test_joiner.py::test_exec_with_tools",
        "descriptors of the host",
    ),
]  # fmt: skip
