"""The fields of CRIU's messages (images/rpc.proto, unless it says otherwise) that are used here, by
number."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pyrunc.checkpoint.protobuf import Message

# criu_req_type
DUMP, RESTORE, NOTIFY, FEATURE_CHECK, VERSION, SINGLE_PRE_DUMP = 1, 2, 6, 9, 10, 13

CGROUP_MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5}  # criu_cg_mode
NETWORK_LOCKS = {"iptables": 1, "nftables": 2, "skip": 3}  # criu_network_lock_method

_PAIR: Message = {"key": (1, "text"), "val": (2, "text")}

OPTIONS: Message = {
    "images_dir_fd": (1, "int"),
    "pid": (2, "int"),
    "leave_running": (3, "bool"),
    "ext_unix_sk": (4, "bool"),
    "tcp_established": (5, "bool"),
    "evasive_devices": (6, "bool"),
    "shell_job": (7, "bool"),
    "file_locks": (8, "bool"),
    "log_level": (9, "int"),
    "log_file": (10, "text"),
    "ps": (11, {"address": (1, "text"), "port": (2, "int")}),
    "notify_scripts": (12, "bool"),
    "root": (13, "text"),
    "parent_img": (14, "text"),
    "track_mem": (15, "bool"),
    "auto_dedup": (16, "bool"),
    "work_dir_fd": (17, "int"),
    "link_remap": (18, "bool"),
    "ext_mnt": (23, [_PAIR]),
    "manage_cgroups": (24, "bool"),
    "cg_root": (25, [{"ctrl": (1, "text"), "path": (2, "text")}]),
    "rst_sibling": (26, "bool"),
    "inherit_fd": (27, [{"key": (1, "text"), "fd": (2, "int")}]),
    "manage_cgroups_mode": (34, "int"),
    "external": (37, ["text"]),
    "empty_ns": (38, "int"),
    "join_ns": (39, [{"ns": (1, "text"), "ns_file": (2, "text")}]),
    "freeze_cgroup": (44, "text"),
    "tcp_skip_in_flight": (46, "bool"),
    "lazy_pages": (48, "bool"),
    "orphan_pts_master": (50, "bool"),
    "config_file": (51, "text"),
    "tcp_close": (52, "bool"),
    "lsm_profile": (53, "text"),
    "lsm_mount_context": (63, "text"),
    "network_lock": (64, "int"),
}

SELINUX = 1  # lsmtype (images/inventory.proto)
INVENTORY: Message = {"lsmtype": (6, "int")}

FEATURES: Message = {"mem_track": (1, "bool"), "lazy_pages": (2, "bool")}

REQUEST: Message = {
    "type": (1, "int"),
    "opts": (2, OPTIONS),
    "notify_success": (3, "bool"),
    "keep_open": (4, "bool"),
    "features": (5, FEATURES),
}

RESPONSE: Message = {
    "type": (1, "int"),
    "success": (2, "bool"),
    "restore": (4, {"pid": (1, "int")}),
    "notify": (5, {"script": (1, "text"), "pid": (2, "int")}),
    "cr_errno": (7, "int"),
    "features": (8, FEATURES),
    "cr_errmsg": (9, "text"),
    "version": (10, {"major": (1, "int"), "minor": (2, "int"), "gitid": (3, "text"), "sublevel": (4, "int")}),
}
