"""For each row the smallest change of pyrunc that makes it vulnerable again, and the test that then
fails.

``make prove-security`` applies one after the other to a scratch copy, builds it, and runs the test:
it must fail with the words given here. A guard that is there twice needs two edits to be taken
away.
"""

from __future__ import annotations

from integration.security.sabotage import running
from integration.security.sabotage.row import Sabotage

# Paths are resolved from the root by their text alone, links lead wherever they lead.
FOLLOW = (
    "native/init/path.c",
    "    int fd = openat2_retry(rootfd, path, as_file ? O_PATH : O_PATH | O_DIRECTORY, resolve);\n",
    "    (void)resolve;\n    path += path[0] == '/';\n"
    "    int fd = openat2_retry(rootfd, path, as_file ? O_PATH : O_PATH | O_DIRECTORY, 0);\n",
)

TABLE = [
    Sabotage(
        "T01",
        "init's memfd is not sealed",
        [
            (
                "native/shim/shim.c",
                "    if (executable && fcntl(fd, F_ADD_SEALS, seals | F_SEAL_EXEC) == 0)\n",
                "    if (executable)\n",
            )
        ],
        "test_leaks.py::test_program_that_waits_is_a_sealed_copy",
        "not sealed against",
    ),
    Sabotage(
        "T01",
        "the replacement of the memfd stays writable",
        [("native/shim/image.c", "attr_set = ATTR_RDONLY", "attr_set = 0")],
        "test_leaks.py::test_where_no_memfd_can_be_executed",
        "Read-only file system",
    ),
    Sabotage(
        "T01",
        "the program may be pyrunc's own",
        [
            (
                "native/init/lookup.c",
                "    if (st.st_dev == in->self.st_dev && st.st_ino == in->self.st_ino)\n",
                "    if (st.st_dev == in->self.st_dev && st.st_ino == in->self.st_ino && !in->sock)\n",
            )
        ],
        "test_leaks.py::test_container_cannot_run_our_program",
        "was accepted",
    ),
    Sabotage(
        "T02",
        "init stays dumpable while it enters",
        [("pyrunc/plan/exec.py", 'plan.dumpable("(default)", value=0)', 'plan.dumpable("(default)", value=1)')],
        "test_exec.py::test_order_of_entering",
        "assert guards and guards[0] < joins[0]",
    ),
    Sabotage(
        "T03",
        "the result of chdir is not checked",
        [("native/init/cred.c", "    if (ret > 0 && path[0] == '/')\n", "    if (ret > 0)\n")],
        "test_exec.py::test_working_directory_is_never_a_leaked_descriptor",
        "assert not [item for item in result.objects",
    ),
    Sabotage(
        "T04",
        "the destination's descriptor is not checked for procfs",
        [
            (
                "native/init/mount.c",
                "    if (magic != MAGIC_PROC || (is_proc_root(dest) && is_proc_root(tree)))\n",
                "    if (is_proc_root(tree) || magic >= 0)\n",
            )
        ],
        "test_proc.py::test_nothing_is_mounted_over_proc",
        "was accepted",
    ),
    Sabotage(
        "T05",
        "links are followed on the way to /proc and /sys",
        [("native/init/path.c", "(plain ? RESOLVE_NO_SYMLINKS : 0u)", "(plain ? 0u : 0u)")],
        "test_paths.py::test_proc_and_sys_are_ordinary_directories",
        "was accepted",
    ),
    Sabotage(
        "T06",
        "links in a destination are followed out of the root",
        [FOLLOW],
        "test_paths.py::test_destination_that_changes_is_never_followed_out",
        "what was mounted is not inside the root",
    ),
    Sabotage(
        "T07",
        "missing directories are created through links",
        [
            (
                "native/init/path.c",
                "        int fd = openat(w->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);\n",
                "        int fd = openat(w->fd, name, O_PATH | O_CLOEXEC);\n",
            )
        ],
        "test_paths.py::test_missing_destination_is_created_inside",
        "a mount point was made outside",
    ),
    Sabotage(
        "T08",
        "links in a destination are followed out of the root",
        [FOLLOW],
        "test_paths.py::test_links_in_a_destination_count_from_the_root",
        "the mount is not where the container sees it",
    ),
    Sabotage(
        "T09",
        "files are masked with the image's /dev/null",
        [
            (
                "native/init/mask.c",
                '"the /dev/null that masks files") : in->nullfd;\n',
                '"the /dev/null that masks files") : clone_tree(open("/dev/null", O_PATH | O_CLOEXEC), 0);\n',
            )
        ],
        "test_proc.py::test_masks_never_show_what_the_image_calls_null",
        "assert",
    ),
    Sabotage(
        "T10",
        "the terminal is opened by name",
        [
            (
                "native/init/console.c",
                "    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);\n",
                '    int slave = open("/dev/pts/0", O_RDWR | O_NOCTTY | O_CLOEXEC);\n',
            ),
            (
                "native/init/console.c",
                "    if (fstat(slave, &st) == 0 && S_ISCHR(st.st_mode) && fs_magic(slave) == MAGIC_DEVPTS &&\n"
                "        major(st.st_rdev) - PTS_MAJOR < PTS_MAJORS)\n",
                "    if (fstat(slave, &st) == 0 && PTS_MAJOR + PTS_MAJORS)\n",
            ),
        ],
        "test_proc.py::test_terminal_is_the_masters_own",
        "the real terminal is there: it has to be found",
    ),
    Sabotage(
        "T11",
        "a sysctl is written by path",
        [
            (
                "native/init/uts.c",
                "    int AUTO_CLOSE fd = open_proc(in, path, O_WRONLY);\n",
                '    int AUTO_CLOSE fd = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY | O_CLOEXEC);\n',
            )
        ],
        "test_proc.py::test_no_write_below_proc_by_path",
        "by absolute path",
    ),
    Sabotage(
        "T12",
        "/dev may be a link that is followed out of the root",
        [FOLLOW, ("native/init/device.c", "    if (fd >= 0 || fd == -ENOENT)\n", "    if (fd >= 0 || fd < 0)\n")],
        "test_paths.py::test_dev_that_is_a_link",
        "assert not tree(outside)",
    ),
    Sabotage(
        "T13",
        "permitted capabilities are inheritable",
        [("pyrunc/plan/security.py", "        inheritable=inheritable,\n", "        inheritable=permitted,\n")],
        "test_exec.py::test_added_capability_is_not_inheritable",
        'assert (caps["inheritable"], caps["ambient"]) == (0, 0)',
    ),
    Sabotage(
        "T13",
        "`spec` writes an inheritable set",
        [("pyrunc/spec/default.py", '                "permitted": list(', '                "inheritable": list(')],
        "test_identity.py::test_default_configuration_has_no_inheritable_capabilities",
        '"inheritable" not in written',
    ),
    Sabotage(
        "T14",
        "the ids come from a passwd entry",
        [("pyrunc/plan/process.py", 'set_ids("/process/user", uid=uid, gid=gid)\n',
          'set_ids("/process/user", uid=0, gid=0)\n')],
        "test_identity.py::test_a_number_is_never_looked_up_as_a_name",
        "assert",
    ),
    Sabotage(
        "T15",
        "ids wrap around at 32 bits",
        [
            (
                "pyrunc/spec/names.py",
                "        number = int(text)\n",
                "        number = int(text) & 0xFFFFFFFF\n",
            ),
        ],
        "test_exec.py::test_user_option",
        "assert",
    ),
    Sabotage(
        "T16",
        "4294967295 is an id",
        [("pyrunc/spec/schema.py", 'ID = ("integer", 0, 0xFFFFFFFE)', 'ID = ("integer", 0, 0xFFFFFFFF)')],
        "test_identity.py::test_ids_that_are_none",
        "was accepted",
    ),
    Sabotage(
        "T17",
        "without additionalGids the caller's groups stay",
        [("pyrunc/plan/process.py", "    if KEEP_GROUPS not in", "    if gids and KEEP_GROUPS not in")],
        "test_identity.py::test_groups_are_exactly_the_configured_ones",
        'assert sorted(seen["groups"]) == groups',
    ),
    Sabotage(
        "T18",
        "setgroups stays allowed, and groups are dropped if possible",
        [
            (
                "pyrunc/idmap.py",
                '                _write(pid, "setgroups", "deny", pointer)\n',
                '                _write(pid, "setgroups", "allow", pointer)\n',
            )
        ],
        "test_userns.py::test_groups_cannot_be_dropped_without_privilege",
        "run failed",
    ),
    Sabotage(
        "T19",
        "the host's hierarchy is mounted with the configured options",
        [
            (
                "pyrunc/plan/mounts.py",
                '    if spaces.has("user") and not spaces.has("cgroup"):\n',
                '    if spaces.has("user") and not spaces.has("mount"):\n',
            )
        ],
        "test_userns.py::test_the_hosts_cgroups_are_read_only",
        "writable where a part is delegated to the user",
    ),
    Sabotage(
        "T20",
        "the device program allows accesses that no rule covers",
        [("pyrunc/cgroup/devices.py", "    out += [verdict[default], leave]\n", "    out += [verdict[1], leave]\n")],
        "test_host.py::test_devices_are_denied_by_default",
        '== ("EPERM", "EPERM", "")',
    ),
    Sabotage(
        "T21",
        "the length of the environment is cut to 16 bits",
        [("pyrunc/plan/process.py", "env=env.entries)", "env=env.entries[: len(env.entries) & 0xFFFF])")],
        "test_host.py::test_lengths_beyond_sixteen_bits",
        'assert len(seen["env"]) == 70',
    ),
    Sabotage(
        "T22",
        "the host's namespaces are recognized by name",
        [
            (
                "pyrunc/spec/rules_linux.py",
                "    return report.facts is not None and report.facts.own_namespace(kind, path)\n",
                "    return False\n",
            )
        ],
        "test_proc.py::test_sysctl_of_a_namespace_that_is_the_hosts",
        "was accepted",
    ),
    Sabotage(
        "T23",
        "an abstract socket is bound",
        [
            (
                "native/shim/shim.c",
                "    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)\n",
                "    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {0, 'p', 'y'}};\n"
                "    int extra = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);\n"
                "    (void)bind(extra, (const struct sockaddr *)&address, 5);\n"
                "    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)\n",
            )
        ],
        "test_leaks.py::test_no_abstract_socket",
        "sun_path=@",
    ),
    Sabotage(
        "T24",
        "/proc is reopened inside the namespaces",
        [
            (
                "native/init/enter.c",
                "    in->joined |= type;\n    /* A container",
                '    close(open("/proc", O_PATH | O_CLOEXEC));\n    in->joined |= type;\n    /* A container',
            )
        ],
        "test_exec.py::test_order_of_entering",
        "assert procs and max(procs) < joins[0]",
    ),
    Sabotage(
        "T25",
        "links in a destination are followed out of the root",
        [FOLLOW],
        "test_paths.py::test_target_that_is_a_link",
        '== "bound"',
    ),
    Sabotage(
        "T26",
        "the procfs of the host stays open",
        [("native/init/run.c", "    close_fd(&in->procfd);\n", "")],
        "test_leaks.py::test_nothing_opened_before_joining_stays_open",
        "directories are open",
    ),
    Sabotage(
        "T27",
        "the mode of the state root does not matter",
        [("pyrunc/state/root.py", "found.st_mode & 0o022", "found.st_mode & 0")],
        "test_host.py::test_state_root_that_others_may_change",
        "assert result.rc != 0",
    ),
    Sabotage(
        "T28",
        "the session is the caller's",
        [("native/init/enter.c", "    int pid = setsid();\n", "    int pid = getpid();\n")],
        # The signal of a terminal that is gone ends it, when the caller's session does.
        "test_leaks.py::test_the_callers_terminal_is_not_the_containers",
        "cannot start a container that has stopped",
    ),
    Sabotage(
        "T29",
        "AT_SECURE does not matter",
        [("native/launcher/guard.c", "    if (getauxval(AT_SECURE))\n", "    if (getauxval(AT_SECURE) > 1)\n")],
        "test_host.py::test_a_set_user_id_copy_refuses_to_run",
        "assert done.returncode == 1",
    ),
    Sabotage(
        "T30",
        "pyrunc writes a file into the root",
        [
            (
                "native/init/pivot.c",
                "    if (in->rootfd < 0)\n",
                '    close(openat(in->rootfd, ".pyrunc", O_CREAT | O_CLOEXEC, 0600));\n    if (in->rootfd < 0)\n',
            )
        ],
        "test_host.py::test_nothing_is_written_into_the_image",
        "assert made == ",
    ),
    Sabotage(
        "T31",
        'a cgroup path may have ".."',
        [
            ("pyrunc/spec/rules_linux.py", '    if b".." in names:\n', '    if b"..." in names:\n'),
            ("pyrunc/cgroup/__init__.py", '    if ".." in config_path.split', '    if "..." in config_path.split'),
        ],
        "test_host.py::test_cgroup_path_never_climbs",
        "was accepted",
    ),
    Sabotage(
        "T31",
        '--cgroup may have ".."',
        [("pyrunc/launch/exec.py", '        if ".." in path.split("/"):', '        if "..." in path.split("/"):')],
        "test_exec.py::test_cgroup_option_never_climbs",
        "assert",
    ),
    Sabotage(
        "T32",
        "any text is an id",
        [("pyrunc/state/document.py", "    if not id.strip(_ID_CHARS) and len(id) <= 242 and", "    if id or")],
        "test_identity.py::test_ids_that_are_not_names",
        "assert",
    ),
    Sabotage(
        "T33",
        "any profile name with the prefix `unconfined` is unconfined",
        [
            (
                "pyrunc/spec/rules_process.py",
                '    if profile and profile != "unconfined" and',
                '    if profile and not profile.startswith("unconfined") and',
            ),
            (
                "pyrunc/plan/security.py",
                '    if profile and (profile != "unconfined" or',
                '    if profile and (not profile.startswith("unconfined") or',
            ),
        ],
        "test_proc.py::test_only_unconfined_is_unconfined",
        "was accepted",
    ),
    Sabotage(
        "T34",
        "a host hook gets the environment of the container's program",
        [
            (
                "pyrunc/launch/create.py",
                "        if listed:\n",
                "        if listed:\n"
                '            listed = [{"env": self.config["process"]["env"], **hook} for hook in listed]\n',
            )
        ],
        "test_host.py::test_hooks_of_the_host_get_nothing_of_the_image",
        "assert not [word for word",
    ),
    Sabotage(
        "T35",
        "/proc/keys is not masked by default",
        [("pyrunc/spec/default.py", '    "/proc/keys",\n', "")],
        "test_host.py::test_default_masks",
        "assert set(MASKED)",
    ),
    Sabotage(
        "T36",
        "a helper is looked up in PATH",
        [
            (
                "pyrunc/launch/spawn.py",
                "    image = interpreter.init_image()\n",
                "    image = interpreter.init_image()\n"
                '    posix.waitpid(posix.posix_spawnp("modprobe", ["modprobe"], posix.environ), 0)\n',
            )
        ],
        "test_environment.py::test_no_program_is_looked_up_in_path",
        "modprobe",
    ),
    Sabotage(
        "T37",
        "a lock file is created in a shared directory",
        [
            (
                "pyrunc/launch/spawn.py",
                "    image = interpreter.init_image()\n",
                "    image = interpreter.init_image()\n"
                '    posix.close(posix.open("/dev/shm/pyrunc.lock", posix.O_RDWR | posix.O_CREAT, 0o600))\n',
            )
        ],
        "test_leaks.py::test_nothing_is_created_in_shared_directories",
        "assert not made",
    ),
    Sabotage(
        "T38",
        "the mounts of the host keep their propagation",
        [("native/init/pivot.c", "    int ret = set_propagation(fd, nibbles);\n", "    int ret = 0;\n")],
        "test_host.py::test_no_mount_reaches_the_host",
        "a mount of the container",
    ),
    Sabotage(
        "T39",
        "the filter is always loaded early",
        [
            (
                "pyrunc/plan/create.py",
                "    drop_privileges(ctx)\n",
                "    security.load_filter(ctx)\n    drop_privileges(ctx)\n",
            )
        ],
        "test_host.py::test_filter_that_forbids_what_set_up_does",
        "failed",
    ),
    Sabotage(
        "T40",
        "the capabilities are dropped where the container sees it",
        [
            (
                "pyrunc/plan/create.py",
                "    security.capabilities(ctx)\n",
                "    if not clones_later:\n        security.capabilities(ctx)\n",
            ),
            (
                "pyrunc/plan/exec.py",
                "    process.process_limit(ctx)\n",
                "    process.process_limit(ctx)\n    security.capabilities(ctx)\n",
            ),
        ],
        "test_joiner.py::test_exec_shows_nothing_of_the_host",
        "capabilities of the host",
    ),
    Sabotage(
        "T40",
        "the procfs of the host stays open",
        [("native/init/run.c", "    close_fd(&in->procfd);\n", "")],
        "test_joiner.py::test_exec_shows_nothing_of_the_host",
        "descriptors of the host",
    ),
    Sabotage(
        "T40",
        "the filter is loaded where the container sees it",
        [("native/init/seccomp.c", "!filter_passable(in, program.filter, program.len)", "program.len")],
        "test_joiner.py::test_exec_shows_nothing_of_the_host",
        "without the filter",
    ),
    Sabotage(
        "T40",
        "the caller's session is left where the container sees it",
        [
            ("native/init/main.c", "    ret = joins ? new_session(in) : 0;\n", ""),
            ("native/init/enter.c", "in->alone || in->pid > 0 ? 0 : new_session(in)", "0"),
        ],
        "test_joiner.py::test_exec_from_a_terminal",
        "the caller's terminal",
    ),
    Sabotage(
        "T41",
        "nothing bounds a profile",
        [("pyrunc/spec/rules_linux.py", "    _size(profile, pointer, report, named, conditions)\n", "")],
        "test_compiler.py::test_more_than_libseccomp_can_count",
        "assert",
    ),
    Sabotage(
        "T41",
        "the process that compiles a profile keeps its capabilities",
        [("native/shim/sandbox.c", "        return drop_capabilities();\n", "        return 0;\n")],
        "test_compiler.py::test_the_compiler_holds_nothing",
        "capabilities",
    ),
    Sabotage(
        "T41",
        "every system call is open to it",
        [
            (
                "native/shim/sandbox.c",
                "        return install_filter();\n",
                "        return step == STEPS ? install_filter() : 0;\n",
            )
        ],
        "test_compiler.py::test_the_compiler_holds_nothing",
        "every system call is open",
    ),
    Sabotage(
        "T41",
        "it keeps our descriptors",
        [
            (
                "native/shim/sandbox.c",
                "        return syscall(SYS_close_range, 1U, ~0U, 0U) < 0 ? errno : 0;\n",
                "        return 0;\n",
            )
        ],
        "test_compiler.py::test_the_compiler_holds_nothing",
        "descriptors:",
    ),
    Sabotage(
        "T41",
        "it may take all the time in the world",
        [("native/shim/sandbox.c", "limit(RLIMIT_CPU, SANDBOX_CPU_SECONDS, SANDBOX_CPU_SECONDS + 1)", "0")],
        "test_compiler.py::test_a_profile_that_takes_forever",
        "did not end within",
    ),
    Sabotage(
        "T41",
        "its death is taken for an empty answer",
        [
            (
                "native/shim/seccomp.c",
                "    if (WIFSIGNALED(c->status) || got < sizeof tail)\n",
                "    if (WIFSIGNALED(c->status))\n        return 0;\n    if (got < sizeof tail)\n",
            )
        ],
        "test_compiler.py::test_a_crash_of_the_compiler",
        "libseccomp",
    ),
    Sabotage(
        "T41",
        "libseccomp runs in our own process",
        [("native/shim/sandbox.c", "    pid_t pid = fork();\n", "    pid_t pid = 0;\n")],
        "test_compiler.py::test_a_crash_of_the_compiler",
        "no process of its own",
    ),
    Sabotage(
        "T41",
        "another library looks at what comes from outside",
        [
            (
                "pyrunc/launch/spawn.py",
                "    image = interpreter.init_image()\n",
                "    image = interpreter.init_image()\n    interpreter.complete()\n    import _ssl  # noqa: F401\n",
            )
        ],
        "test_compiler.py::test_no_other_library_is_there",
        "create loads",
    ),
    *running.TABLE,
]  # fmt: skip
