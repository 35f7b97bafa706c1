/* generated from plan.def by gen_plan.py: do not edit */
#ifndef PYRUNC_PLAN_OPS_H
#define PYRUNC_PLAN_OPS_H

#define PLAN_ABI 0x14c041f7u

enum plan_section { SEC_ENTER = 1, SEC_SETUP, SEC_FINISH, SEC_RUN };

enum plan_op {
    OP_PLACE = 1,
    OP_OOM_SCORE = 2,
    OP_DUMPABLE = 3,
    OP_OPEN_TREE = 4,
    OP_ENTER_ROOT = 5,
    OP_MAKE_NODE = 6,
    OP_JOIN_NS = 7,
    OP_UNSHARE_USER = 8,
    OP_UNSHARE = 9,
    OP_TIME_OFFSETS = 10,
    OP_CPU_INITIAL = 11,
    OP_CLONE_INIT = 12,
    OP_CPU_FINAL = 13,
    OP_SETSID = 14,
    OP_KEYRING = 15,
    OP_KEY_LABEL = 16,
    OP_UNSHARE_CGROUP = 17,
    OP_LO_UP = 18,
    OP_PROPAGATION = 19,
    OP_ROOT = 20,
    OP_MOUNT = 21,
    OP_UNMOUNT = 22,
    OP_MOUNT_LABEL = 23,
    OP_DEV_NODE = 24,
    OP_DEV_LINK = 25,
    OP_SYNC_MOUNTED = 26,
    OP_HOOK = 27,
    OP_PIVOT = 28,
    OP_CONSOLE = 29,
    OP_REOPEN_NULL = 30,
    OP_REMOUNT_RO = 31,
    OP_ROOT_RO = 32,
    OP_ROOT_PROPAGATION = 33,
    OP_HOSTNAME = 34,
    OP_DOMAINNAME = 35,
    OP_SYSCTL = 36,
    OP_READONLY_PATH = 37,
    OP_MASK_PATH = 38,
    OP_APPARMOR = 39,
    OP_SELINUX = 40,
    OP_PERSONALITY = 41,
    OP_SCHEDULER = 42,
    OP_IO_PRIORITY = 43,
    OP_MEMORY_POLICY = 44,
    OP_UMASK = 45,
    OP_MAKE_CWD = 46,
    OP_STDIO_OWNER = 47,
    OP_FIND_HOME = 48,
    OP_NO_NEW_PRIVS = 49,
    OP_SYNC_READY = 50,
    OP_SECCOMP = 51,
    OP_CAP_BOUND = 52,
    OP_GROUPS = 53,
    OP_SET_IDS = 54,
    OP_CAPS = 55,
    OP_DROP_ADMIN = 56,
    OP_RLIMIT = 57,
    OP_CHDIR = 58,
    OP_FIND_EXE = 59,
    OP_JOINABLE = 60,
    OP_WAIT_START = 61,
    OP_EXECVE = 62,
    OP_LEAVE = 63,
    OP_LAST = 63
};

/* N_OP_arg: index into step.n[]; a u64 takes two slots, low half first.  S_OP_arg: index into step.s[].
   L_OP_arg: the number slot with the item count of a list or the length of a blob. */
enum plan_slot {
    N_PLACE_cgroup_fd = 0,
    N_OOM_SCORE_value = 0,
    N_DUMPABLE_value = 0,
    N_OPEN_TREE_slot = 0,
    N_OPEN_TREE_propagation = 1,
    S_OPEN_TREE_path = 0,
    S_ENTER_ROOT_path = 0,
    N_MAKE_NODE_number = 0,
    N_MAKE_NODE_kind = 1,
    N_MAKE_NODE_mode = 2,
    N_MAKE_NODE_major = 3,
    N_MAKE_NODE_minor = 4,
    N_MAKE_NODE_uid = 5,
    N_MAKE_NODE_gid = 6,
    S_MAKE_NODE_path = 0,
    S_MAKE_NODE_label = 1,
    N_JOIN_NS_fd = 0,
    N_JOIN_NS_nstype = 1,
    S_JOIN_NS_path = 0,
    N_UNSHARE_flags = 0,
    S_TIME_OFFSETS_offsets = 0,
    L_TIME_OFFSETS_offsets = 0,
    S_CPU_INITIAL_cpus = 0,
    L_CPU_INITIAL_cpus = 0,
    N_CLONE_INIT_cgroup_fd = 0,
    S_CPU_FINAL_cpus = 0,
    L_CPU_FINAL_cpus = 0,
    S_KEYRING_name = 0,
    S_KEY_LABEL_label = 0,
    N_PROPAGATION_propagation = 0,
    S_ROOT_path = 0,
    N_MOUNT_attr_set = 0,
    N_MOUNT_attr_clr = 1,
    N_MOUNT_implied = 2,
    N_MOUNT_rec_set = 3,
    N_MOUNT_rec_clr = 4,
    N_MOUNT_propagation = 5,
    N_MOUNT_tree = 6,
    S_MOUNT_fstype = 0,
    S_MOUNT_source = 1,
    S_MOUNT_dest = 2,
    S_MOUNT_data = 3,
    L_MOUNT_data = 7,
    N_UNMOUNT_id = 0,
    S_UNMOUNT_dest = 0,
    S_MOUNT_LABEL_dest = 0,
    S_MOUNT_LABEL_label = 1,
    N_DEV_NODE_kind = 0,
    N_DEV_NODE_mode = 1,
    N_DEV_NODE_major = 2,
    N_DEV_NODE_minor = 3,
    N_DEV_NODE_uid = 4,
    N_DEV_NODE_gid = 5,
    N_DEV_NODE_number = 6,
    S_DEV_NODE_path = 0,
    S_DEV_LINK_target = 0,
    S_DEV_LINK_path = 1,
    N_HOOK_timeout_ms = 0,
    S_HOOK_path = 0,
    S_HOOK_args = 1,
    L_HOOK_args = 1,
    S_HOOK_env = 2,
    L_HOOK_env = 2,
    S_HOOK_state = 3,
    L_HOOK_state = 3,
    N_CONSOLE_fd = 0,
    N_CONSOLE_rows = 1,
    N_CONSOLE_cols = 2,
    N_CONSOLE_uid = 3,
    N_CONSOLE_gid = 4,
    N_REMOUNT_RO_attr_set = 0,
    S_REMOUNT_RO_dest = 0,
    N_ROOT_PROPAGATION_propagation = 0,
    S_HOSTNAME_name = 0,
    S_DOMAINNAME_name = 0,
    S_SYSCTL_key = 0,
    S_SYSCTL_value = 1,
    S_READONLY_PATH_path = 0,
    S_MASK_PATH_path = 0,
    S_APPARMOR_profile = 0,
    S_SELINUX_label = 0,
    N_PERSONALITY_persona = 0,
    N_SCHEDULER_kind = 0,
    N_SCHEDULER_level = 1,
    N_SCHEDULER_runtime = 2,
    N_SCHEDULER_deadline = 4,
    N_SCHEDULER_period = 6,
    N_IO_PRIORITY_kind = 0,
    N_IO_PRIORITY_level = 1,
    N_MEMORY_POLICY_mode = 0,
    S_MEMORY_POLICY_nodes = 0,
    L_MEMORY_POLICY_nodes = 1,
    N_UMASK_mask = 0,
    S_MAKE_CWD_cwd = 0,
    N_STDIO_OWNER_uid = 0,
    N_STDIO_OWNER_gid = 1,
    N_FIND_HOME_uid = 0,
    N_SECCOMP_flags = 0,
    S_SECCOMP_filter = 0,
    L_SECCOMP_filter = 1,
    N_CAP_BOUND_mask = 0,
    S_GROUPS_gids = 0,
    L_GROUPS_gids = 0,
    N_SET_IDS_uid = 0,
    N_SET_IDS_gid = 1,
    N_CAPS_effective = 0,
    N_CAPS_permitted = 2,
    N_CAPS_inheritable = 4,
    N_CAPS_ambient = 6,
    N_RLIMIT_resource = 0,
    N_RLIMIT_soft = 1,
    N_RLIMIT_hard = 3,
    S_CHDIR_cwd = 0,
    S_FIND_EXE_file = 0,
    S_FIND_EXE_path = 1,
    N_WAIT_START_start_fd = 0,
    N_WAIT_START_error_fd = 1,
    S_EXECVE_args = 0,
    L_EXECVE_args = 0,
    S_EXECVE_env = 1,
    L_EXECVE_env = 1,
};

#define P_OOM_SCORE_BEST_EFFORT 0x1u
#define P_OPEN_TREE_RECURSIVE 0x1u
#define P_UNSHARE_USER_DUMPABLE 0x1u
#define P_CLONE_INIT_IN_CGROUP 0x1u
#define P_CLONE_INIT_COMPLETE 0x2u
#define P_SETSID_TERMINAL 0x1u
#define P_KEYRING_OTHER_SEARCH 0x1u
#define P_ROOT_NO_BIND 0x1u
#define P_ROOT_CWD 0x2u
#define P_ROOT_SLAVE 0x4u
#define P_ROOT_CALLERS 0x8u
#define P_MOUNT_BIND 0x1u
#define P_MOUNT_RECURSIVE 0x2u
#define P_MOUNT_REMOUNT 0x4u
#define P_MOUNT_COPY_UP 0x8u
#define P_MOUNT_INHERIT_MODE 0x10u
#define P_MOUNT_PLAIN_DIR 0x20u
#define P_MOUNT_IN_PROC 0x40u
#define P_MOUNT_CGROUP 0x80u
#define P_MOUNT_HOST_BIND 0x100u
#define P_MOUNT_SOURCE_FD 0x200u
#define P_MOUNT_NEW_ROOT 0x400u
#define P_MOUNT_BUILD 0x800u
#define P_MOUNT_ATTACH 0x1000u
#define P_MOUNT_REPORT 0x2000u
#define P_UNMOUNT_UNIQUE 0x1u
#define P_DEV_NODE_DEFAULT 0x1u
#define P_DEV_NODE_BIND_HOST 0x2u
#define P_DEV_NODE_MADE 0x4u
#define P_DEV_NODE_ANY_MODE 0x8u
#define P_DEV_NODE_ANY_UID 0x10u
#define P_DEV_NODE_ANY_GID 0x20u
#define P_DEV_NODE_THERE 0x40u
#define P_DEV_LINK_IF_TARGET 0x1u
#define P_HOOK_IN_CONTAINER 0x1u
#define P_HOOK_SET_HOME 0x2u
#define P_PIVOT_MOVE 0x1u
#define P_PIVOT_CHROOT 0x2u
#define P_CONSOLE_MOUNT_CONSOLE 0x1u
#define P_CONSOLE_NOT_CONTROLLING 0x2u
#define P_SCHEDULER_RESET_ON_FORK 0x1u
#define P_SCHEDULER_RECLAIM 0x2u
#define P_SCHEDULER_DL_OVERRUN 0x4u
#define P_SCHEDULER_KEEP_POLICY 0x8u
#define P_SCHEDULER_KEEP_PARAMS 0x10u
#define P_SCHEDULER_UTIL_CLAMP_MIN 0x20u
#define P_SCHEDULER_UTIL_CLAMP_MAX 0x40u
#define P_MEMORY_POLICY_NUMA_BALANCING 0x1u
#define P_MEMORY_POLICY_RELATIVE_NODES 0x2u
#define P_MEMORY_POLICY_STATIC_NODES 0x4u
#define P_SECCOMP_LISTENER 0x1u
#define P_SECCOMP_IF_PASSABLE 0x2u
#define P_CAPS_FOR_FILTER 0x1u
#define P_CHDIR_TRY 0x1u
#define P_FIND_EXE_TRY 0x1u
#define P_WAIT_START_SOCKET 0x1u
#define P_EXECVE_SET_HOME 0x1u
#define P_EXECVE_LISTEN_PID 0x2u

enum plan_kind { KIND_NONE, KIND_STR, KIND_LIST, KIND_BLOB };

struct plan_op_info {
    const char *name;
    unsigned char section;
    unsigned char kind[4];  /* kind of each string slot */
    unsigned char count[4]; /* number slot with its count or length */
    unsigned short policy;  /* known bits */
};

static const struct plan_op_info plan_ops[OP_LAST + 1] = {
    [OP_PLACE] = {"PLACE", SEC_ENTER, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_OOM_SCORE] = {"OOM_SCORE", SEC_ENTER, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_DUMPABLE] = {"DUMPABLE", SEC_ENTER, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_OPEN_TREE] = {"OPEN_TREE", SEC_ENTER, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_ENTER_ROOT] = {"ENTER_ROOT", SEC_ENTER, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_MAKE_NODE] = {"MAKE_NODE", SEC_ENTER, {KIND_STR, KIND_STR, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_JOIN_NS] = {"JOIN_NS", SEC_ENTER, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_UNSHARE_USER] = {"UNSHARE_USER", SEC_ENTER, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_UNSHARE] = {"UNSHARE", SEC_ENTER, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_TIME_OFFSETS] = {"TIME_OFFSETS", SEC_ENTER, {KIND_LIST, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_CPU_INITIAL] = {"CPU_INITIAL", SEC_ENTER, {KIND_BLOB, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_CLONE_INIT] = {"CLONE_INIT", SEC_ENTER, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x3},
    [OP_CPU_FINAL] = {"CPU_FINAL", SEC_SETUP, {KIND_BLOB, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_SETSID] = {"SETSID", SEC_SETUP, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_KEYRING] = {"KEYRING", SEC_SETUP, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_KEY_LABEL] = {"KEY_LABEL", SEC_SETUP, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_UNSHARE_CGROUP] = {"UNSHARE_CGROUP", SEC_SETUP, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_LO_UP] = {"LO_UP", SEC_SETUP, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_PROPAGATION] = {"PROPAGATION", SEC_SETUP, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_ROOT] = {"ROOT", SEC_SETUP, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0xf},
    [OP_MOUNT] = {"MOUNT", SEC_SETUP, {KIND_STR, KIND_STR, KIND_STR, KIND_LIST}, {0, 0, 0, 7}, 0x3fff},
    [OP_UNMOUNT] = {"UNMOUNT", SEC_SETUP, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_MOUNT_LABEL] = {"MOUNT_LABEL", SEC_SETUP, {KIND_STR, KIND_STR, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_DEV_NODE] = {"DEV_NODE", SEC_SETUP, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x7f},
    [OP_DEV_LINK] = {"DEV_LINK", SEC_SETUP, {KIND_STR, KIND_STR, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_SYNC_MOUNTED] = {"SYNC_MOUNTED", SEC_SETUP, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_HOOK] = {"HOOK", SEC_SETUP, {KIND_STR, KIND_LIST, KIND_LIST, KIND_LIST}, {0, 1, 2, 3}, 0x3},
    [OP_PIVOT] = {"PIVOT", SEC_SETUP, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x3},
    [OP_CONSOLE] = {"CONSOLE", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x3},
    [OP_REOPEN_NULL] = {"REOPEN_NULL", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_REMOUNT_RO] = {"REMOUNT_RO", SEC_FINISH, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_ROOT_RO] = {"ROOT_RO", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_ROOT_PROPAGATION] = {"ROOT_PROPAGATION", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_HOSTNAME] = {"HOSTNAME", SEC_FINISH, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_DOMAINNAME] = {"DOMAINNAME", SEC_FINISH, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_SYSCTL] = {"SYSCTL", SEC_FINISH, {KIND_STR, KIND_STR, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_READONLY_PATH] = {"READONLY_PATH", SEC_FINISH, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_MASK_PATH] = {"MASK_PATH", SEC_FINISH, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_APPARMOR] = {"APPARMOR", SEC_FINISH, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_SELINUX] = {"SELINUX", SEC_FINISH, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_PERSONALITY] = {"PERSONALITY", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_SCHEDULER] = {"SCHEDULER", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x7f},
    [OP_IO_PRIORITY] = {"IO_PRIORITY", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_MEMORY_POLICY] = {"MEMORY_POLICY", SEC_FINISH, {KIND_BLOB, KIND_NONE, KIND_NONE, KIND_NONE}, {1, 0, 0, 0}, 0x7},
    [OP_UMASK] = {"UMASK", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_MAKE_CWD] = {"MAKE_CWD", SEC_FINISH, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_STDIO_OWNER] = {"STDIO_OWNER", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_FIND_HOME] = {"FIND_HOME", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_NO_NEW_PRIVS] = {"NO_NEW_PRIVS", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_SYNC_READY] = {"SYNC_READY", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_SECCOMP] = {"SECCOMP", SEC_FINISH, {KIND_BLOB, KIND_NONE, KIND_NONE, KIND_NONE}, {1, 0, 0, 0}, 0x3},
    [OP_CAP_BOUND] = {"CAP_BOUND", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_GROUPS] = {"GROUPS", SEC_FINISH, {KIND_BLOB, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_SET_IDS] = {"SET_IDS", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_CAPS] = {"CAPS", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_DROP_ADMIN] = {"DROP_ADMIN", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_RLIMIT] = {"RLIMIT", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_CHDIR] = {"CHDIR", SEC_FINISH, {KIND_STR, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_FIND_EXE] = {"FIND_EXE", SEC_FINISH, {KIND_STR, KIND_STR, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_JOINABLE] = {"JOINABLE", SEC_FINISH, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
    [OP_WAIT_START] = {"WAIT_START", SEC_RUN, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x1},
    [OP_EXECVE] = {"EXECVE", SEC_RUN, {KIND_LIST, KIND_LIST, KIND_NONE, KIND_NONE}, {0, 1, 0, 0}, 0x3},
    [OP_LEAVE] = {"LEAVE", SEC_RUN, {KIND_NONE, KIND_NONE, KIND_NONE, KIND_NONE}, {0, 0, 0, 0}, 0x0},
};

#endif
