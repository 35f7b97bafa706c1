/* generated from plan.def by gen_plan.py: do not edit */
#ifndef PYRUNC_HANDLERS_H
#define PYRUNC_HANDLERS_H

#include "plan.h"

struct init;

typedef int handler(struct init *in, const struct plan_step *st);
extern handler *const handlers[OP_LAST + 1];

int op_place(struct init *in, const struct plan_step *st);
int op_oom_score(struct init *in, const struct plan_step *st);
int op_dumpable(struct init *in, const struct plan_step *st);
int op_open_tree(struct init *in, const struct plan_step *st);
int op_enter_root(struct init *in, const struct plan_step *st);
int op_make_node(struct init *in, const struct plan_step *st);
int op_join_ns(struct init *in, const struct plan_step *st);
int op_unshare_user(struct init *in, const struct plan_step *st);
int op_unshare(struct init *in, const struct plan_step *st);
int op_time_offsets(struct init *in, const struct plan_step *st);
int op_cpu_initial(struct init *in, const struct plan_step *st);
int op_clone_init(struct init *in, const struct plan_step *st);
int op_cpu_final(struct init *in, const struct plan_step *st);
int op_setsid(struct init *in, const struct plan_step *st);
int op_keyring(struct init *in, const struct plan_step *st);
int op_key_label(struct init *in, const struct plan_step *st);
int op_unshare_cgroup(struct init *in, const struct plan_step *st);
int op_lo_up(struct init *in, const struct plan_step *st);
int op_propagation(struct init *in, const struct plan_step *st);
int op_root(struct init *in, const struct plan_step *st);
int op_mount(struct init *in, const struct plan_step *st);
int op_unmount(struct init *in, const struct plan_step *st);
int op_mount_label(struct init *in, const struct plan_step *st);
int op_dev_node(struct init *in, const struct plan_step *st);
int op_dev_link(struct init *in, const struct plan_step *st);
int op_sync_mounted(struct init *in, const struct plan_step *st);
int op_hook(struct init *in, const struct plan_step *st);
int op_pivot(struct init *in, const struct plan_step *st);
int op_console(struct init *in, const struct plan_step *st);
int op_reopen_null(struct init *in, const struct plan_step *st);
int op_remount_ro(struct init *in, const struct plan_step *st);
int op_root_ro(struct init *in, const struct plan_step *st);
int op_root_propagation(struct init *in, const struct plan_step *st);
int op_hostname(struct init *in, const struct plan_step *st);
int op_domainname(struct init *in, const struct plan_step *st);
int op_sysctl(struct init *in, const struct plan_step *st);
int op_readonly_path(struct init *in, const struct plan_step *st);
int op_mask_path(struct init *in, const struct plan_step *st);
int op_apparmor(struct init *in, const struct plan_step *st);
int op_selinux(struct init *in, const struct plan_step *st);
int op_personality(struct init *in, const struct plan_step *st);
int op_scheduler(struct init *in, const struct plan_step *st);
int op_io_priority(struct init *in, const struct plan_step *st);
int op_memory_policy(struct init *in, const struct plan_step *st);
int op_umask(struct init *in, const struct plan_step *st);
int op_make_cwd(struct init *in, const struct plan_step *st);
int op_stdio_owner(struct init *in, const struct plan_step *st);
int op_find_home(struct init *in, const struct plan_step *st);
int op_no_new_privs(struct init *in, const struct plan_step *st);
int op_sync_ready(struct init *in, const struct plan_step *st);
int op_seccomp(struct init *in, const struct plan_step *st);
int op_cap_bound(struct init *in, const struct plan_step *st);
int op_groups(struct init *in, const struct plan_step *st);
int op_set_ids(struct init *in, const struct plan_step *st);
int op_caps(struct init *in, const struct plan_step *st);
int op_drop_admin(struct init *in, const struct plan_step *st);
int op_rlimit(struct init *in, const struct plan_step *st);
int op_chdir(struct init *in, const struct plan_step *st);
int op_find_exe(struct init *in, const struct plan_step *st);
int op_joinable(struct init *in, const struct plan_step *st);
int op_wait_start(struct init *in, const struct plan_step *st);
int op_execve(struct init *in, const struct plan_step *st);
int op_leave(struct init *in, const struct plan_step *st);

#endif
