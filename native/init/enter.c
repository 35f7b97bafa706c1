/* Get from the caller's namespaces to the first process of the container, and run its first
 * steps. */
#include "sys.h"

#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "init.h"
#include "text.h"

/* keyctl(2), <linux/keyctl.h> */
enum { KEYCTL_JOIN_SESSION_KEYRING = 1, KEYCTL_SETPERM = 5, KEYCTL_DESCRIBE = 6 };
#define KEY_USR_SEARCH 0x80000u
#define KEY_OTH_SEARCH 0x8u

static const struct {
    uint32_t flag;
    const char *name;
} namespaces[] = {
    {CLONE_NEWUSER, "user"}, {CLONE_NEWNS, "mount"}, {CLONE_NEWPID, "pid"},       {CLONE_NEWNET, "network"},
    {CLONE_NEWIPC, "ipc"},   {CLONE_NEWUTS, "uts"},  {CLONE_NEWCGROUP, "cgroup"}, {CLONE_NEWTIME, "time"},
};
#define NSPACES (sizeof(namespaces) / sizeof(namespaces[0]))

static const char *namespace_name(uint32_t flag)
{
    for (size_t i = 0; i < NSPACES; i++)
        if (namespaces[i].flag == flag)
            return namespaces[i].name;
    return "unknown";
}

static void close_slot(struct init *in, uint32_t slot)
{
    if (slot_fd(in, slot) < 0)
        return;
    close(in->fds[slot]);
    in->fds[slot] = -1;
}

/* clone3(CLONE_PARENT), optionally into the cgroup of a slot.  Returns the pid, 0 in the child,
 * or -errno after fault(). */
static int clone_into(struct init *in, uint32_t slot, int in_cgroup)
{
    struct sys_clone_args args = {.flags = CLONE_PARENT};

    if (in_cgroup) {
        int fd = slot_fd(in, slot);

        if (fd < 0)
            return fault(in, EBADF, "clone3", -1, 0, "the plan names no cgroup descriptor");
        /* The child starts in its cgroup: it cannot fork outside, and no migration is needed. */
        args.flags |= CLONE3_INTO_CGROUP;
        args.cgroup = (uint64_t)fd;
    }
    int pid = sys_clone3(&args, sizeof(args));
    return pid < 0 ? fault(in, -pid, "clone3", -1, 0, "") : pid;
}

/* The file belongs to this process, so PLACE opens it again. */
int open_time_offsets(struct init *in)
{
    if (in->timensfd >= 0)
        close(in->timensfd);
    in->timensfd = open_proc(in, "self/timens_offsets", O_WRONLY);
    if (in->timensfd == -ENOENT)
        return fault(in, ENOENT, "open", -1, 0, "this kernel has no time namespaces");
    return in->timensfd < 0 ? fault(in, -in->timensfd, "open", -1, 0, "timens_offsets") : 0;
}

/* The kernel checks the credentials of a process that moves into a cgroup, and the root of a
 * user namespace has no rights there.  So move first, before any namespace is joined.  Moving
 * from outside would also work, but waits several milliseconds for an RCU grace period (kernel:
 * cgroup_attach_lock). */
int op_place(struct init *in, const struct plan_step *st)
{
    int pid = clone_into(in, st->n[N_PLACE_cgroup_fd], 1);

    /* The process outside the cgroup sends this, because the one inside may be frozen.  The
     * parent must know which process to kill. */
    if (pid > 0) {
        send_msg(in, MSG_PLACED, (uint32_t)pid);
        leave(0);
    }
    if (pid < 0)
        return pid;
    wait_go(in); /* two writers have no order */
    close_slot(in, st->n[N_PLACE_cgroup_fd]);
    return in->timensfd < 0 ? 0 : open_time_offsets(in);
}

/* Runs before DUMPABLE 0 (the file becomes root's) and before a user namespace is entered
 * (lowering needs CAP_SYS_RESOURCE in the initial one). */
int op_oom_score(struct init *in, const struct plan_step *st)
{
    int32_t value = (int32_t)st->n[N_OOM_SCORE_value];
    char buf[16];
    struct text t = text_in(buf, sizeof(buf));

    if (value < 0)
        text_str(&t, "-");
    text_num(&t, value < 0 ? (uint32_t)-value : (uint32_t)value);
    int ret = write_proc(in, "thread-self/oom_score_adj", buf, (size_t)(t.at - buf));
    if (ret == -EACCES && (st->policy & P_OOM_SCORE_BEST_EFFORT)) {
        warn_fault(in, fault(in, EACCES, "write", -1, 0, "permission denied: the score stays the caller's"));
        return 0;
    }
    return ret < 0 ? fault(in, -ret, "write", -1, 0, "") : 0;
}

/* 0 before any namespace is joined: once we are in its pid namespace, a process of the container
 * could otherwise ptrace us, and steal our descriptors through /proc/PID/fd (CVE-2016-9962).
 * execve(2) resets it. */
int op_dumpable(struct init *in, const struct plan_step *st)
{
    in->hidden = st->n[N_DUMPABLE_value] == 0;
    if (prctl(PR_SET_DUMPABLE, (long)st->n[N_DUMPABLE_value], 0L, 0L, 0L) < 0)
        return fault(in, errno, "prctl", -1, 0, "PR_SET_DUMPABLE");
    return 0;
}

/* Become root of the current user namespace.  Otherwise the overflow id would own all files that
 * we create. */
static int become_root(struct init *in)
{
    /* Drop the caller's groups.  If setgroups(2) is denied, the kernel keeps them on purpose:
     * dropping one could grant access (CVE-2014-8989). */
    int ret = sys_setgroups(0, NULL);
    if (ret < 0 && !(ret == -EPERM && groups_denied(in)))
        return fault(in, -ret, "setgroups", -1, 0, "");
    ret = sys_setresgid(0);
    if (ret < 0)
        return fault(in, -ret, "setresgid", -1, 0, "group 0 is not mapped in the user namespace");
    ret = sys_setresuid(0);
    if (ret < 0)
        return fault(in, -ret, "setresuid", -1, 0, "user 0 is not mapped in the user namespace");
    return stay_hidden(in);
}

/* Namespaces owned by our current user namespace must be joined now, before the user namespace,
 * and those owned by the container's only after it (runc issue 4466).  Try all of them.  A
 * failed one is retried, and reported, at its own step. */
static void join_what_can_be(struct init *in)
{
    for (uint32_t i = in->step + 1; i < in->plan->nsteps && in->steps[i].op == OP_JOIN_NS; i++) {
        uint32_t type = in->steps[i].n[N_JOIN_NS_nstype];

        if (type != CLONE_NEWUSER && setns(slot_fd(in, in->steps[i].n[N_JOIN_NS_fd]), (int)type) == 0)
            in->joined |= type;
    }
}

/* The parent opened all descriptors earlier: after we join the mount namespace, a path would
 * refer to the container's files. pid and time namespaces apply to the next child, i.e. from
 * CLONE_INIT on. */
int op_join_ns(struct init *in, const struct plan_step *st)
{
    uint32_t type = st->n[N_JOIN_NS_nstype];

    if (in->joined & type) {
        close_slot(in, st->n[N_JOIN_NS_fd]);
        return 0;
    }
    if (type == CLONE_NEWUSER)
        join_what_can_be(in);
    if (setns(slot_fd(in, st->n[N_JOIN_NS_fd]), (int)type) < 0) {
        int err = errno;
        struct text t = text_in(in->fault.detail, sizeof(in->fault.detail));

        if (err == EINVAL) {
            text_str(&t, "invalid argument: not a namespace of type ");
            text_str(&t, namespace_name(type));
        }
        return fault(in, err, "setns", S_JOIN_NS_path, 0, in->fault.detail);
    }
    in->joined |= type;
    /* A container that may trace other processes will see us soon.  Close the descriptors of
     * namespaces first (CVE-2016-9962, CVE-2016-8649). */
    close_slot(in, st->n[N_JOIN_NS_fd]);
    return type == CLONE_NEWUSER ? become_root(in) : 0;
}

int op_unshare_user(struct init *in, const struct plan_step *st)
{
    if (unshare(CLONE_NEWUSER) < 0)
        return fault(in, errno, "unshare", -1, 0, "CLONE_NEWUSER");
    /* root owns the map files of a process that is not dumpable, and an unprivileged parent
     * could not write them.  Be dumpable only during this handshake, and only for such a parent:
     * it cannot have made us join a namespace whose processes could see us. */
    if ((st->policy & P_UNSHARE_USER_DUMPABLE) && prctl(PR_SET_DUMPABLE, 1L, 0L, 0L, 0L) < 0)
        return fault(in, errno, "prctl", -1, 0, "PR_SET_DUMPABLE");
    send_msg(in, MSG_MAP, 0);
    wait_go(in);
    return become_root(in);
}

/* Name the namespace that cannot be created, which the combined call does not report.  The step
 * fails anyway, so it is safe to try the flags one by one. */
static int unshare_fault(struct init *in, uint32_t flags, int err)
{
    struct text t = text_in(in->fault.detail, sizeof(in->fault.detail));

    if (err == ENOSPC)
        text_str(&t, "the limit of namespaces is reached (/proc/sys/user/max_*_namespaces)");
    else if (err == EINVAL)
        text_str(&t, "invalid argument: this kernel may lack the namespace type");
    else if (err == EPERM)
        text_str(&t, "operation not permitted");
    for (size_t i = 0; i < NSPACES; i++) {
        if (!(flags & namespaces[i].flag) || unshare((int)namespaces[i].flag) == 0)
            continue;
        text_str(&t, t.at > in->fault.detail ? ": " : "");
        text_str(&t, namespaces[i].name);
        text_str(&t, " namespace");
        break;
    }
    return fault(in, err, "unshare", -1, 0, in->fault.detail);
}

/* Runs after UNSHARE_USER and its maps.  Otherwise the kernel's own mounts of the new namespaces
 * (mqueue) would get the wrong owner and SELinux label. */
int op_unshare(struct init *in, const struct plan_step *st)
{
    uint32_t flags = st->n[N_UNSHARE_flags];

    if (unshare((int)flags) < 0)
        return unshare_fault(in, flags, errno);
    in->alone = (flags & CLONE_NEWPID) != 0;
    return 0;
}

/* Use the descriptor opened earlier (open_time_offsets).  The offsets apply to the namespace
 * that our children enter, and are fixed once a child enters it.  Each write must start at
 * offset 0. */
int op_time_offsets(struct init *in, const struct plan_step *st)
{
    const char *line = step_str(in, st, S_TIME_OFFSETS_offsets);

    for (uint32_t i = 0; i < st->n[L_TIME_OFFSETS_offsets]; i++, line = list_next(line)) {
        /* these files do not support pwrite(2) */
        if (lseek(in->timensfd, 0, SEEK_SET) == 0 && sys_write(in->timensfd, line, strlen(line)) >= 0)
            continue;
        int err = errno;
        return fault(in, err, "write", S_TIME_OFFSETS_offsets, i,
                     err == ERANGE ? "out of range: the clock would be negative, or beyond its end"
                                   : "timens_offsets");
    }
    close(in->timensfd);
    in->timensfd = -1;
    return 0;
}

/* Create a session and store our pid.  In the caller's session, TIOCSTI on its terminal would
 * type into the caller's shell (CVE-2017-5226).  Use the result instead of getpid(2), so that a
 * filter has to allow one call less. */
int new_session(struct init *in)
{
    int pid = setsid();
    int err = errno;

    in->pid = pid < 0 ? getpid() : pid;
    return pid < 0 && getsid(0) != in->pid ? fault(in, err, "setsid", -1, 0, "") : 0;
}

/* clone(2) instead of clone3(2): the container's filter may be active, and the filters of
 * engines forbid clone3, because they cannot inspect its flags. */
static int clone_sibling(struct init *in)
{
    close_host_fds(in);
    int pid = (int)sys_ret(syscall(SYS_clone, (long)CLONE_PARENT, 0L, 0L, 0L, 0L));
    return pid < 0 ? fault(in, -pid, "clone", -1, 0, "") : pid;
}

/* CLONE_PARENT makes init a child of the parent, so that the parent can wait for it and no
 * process in between must stay.  The kernel requires exit_signal 0 with it; init then inherits
 * ours.
 *
 * From here on processes of the container may see us, and with CAP_SYS_PTRACE read our memory
 * and take our descriptors and capabilities (CVE-2016-9962).  A plan that joins a container then
 * holds nothing that they lack. */
int op_clone_init(struct init *in, const struct plan_step *st)
{
    int complete = (st->policy & P_CLONE_INIT_COMPLETE) != 0;

    /* Leave the caller's session before the clone: a process of a container that sees the clone
     * could open its /dev/tty.  In a new pid namespace there is none; there the clone leaves it. */
    int ret = in->alone || in->pid > 0 ? 0 : new_session(in);
    if (ret < 0)
        return ret;
    int pid = complete
                  ? clone_sibling(in)
                  : clone_into(in, st->n[N_CLONE_INIT_cgroup_fd], (st->policy & P_CLONE_INIT_IN_CGROUP) != 0);

    if (pid > 0) {
        send_msg(in, MSG_PID, (uint32_t)pid);
        leave(0);
    }
    if (pid < 0)
        return pid;
    if (complete) {
        wait_go(in);
        return 0;
    }
    /* The descriptor of the host's cgroup is no longer needed. */
    close_slot(in, st->n[N_CLONE_INIT_cgroup_fd]);
    all_cpus();
    return 0;
}

int op_setsid(struct init *in, const struct plan_step *st)
{
    int ret = new_session(in);

    if (ret == 0 && (st->policy & P_SETSID_TERMINAL) && ioctl(0, TIOCSCTTY, 0) < 0)
        return fault(in, errno, "TIOCSCTTY", -1, 0, "");
    return ret;
}

/* The permissions in the result of KEYCTL_DESCRIBE: "type;uid;gid;perm;description", perm in
 * hexadecimal. */
static uint32_t key_permissions(const char *text)
{
    uint32_t perm = 0;

    for (int i = 0; i < 3; i++) {
        text += strcspn(text, ";");
        text += *text == ';';
    }
    for (; *text && *text != ';'; text++)
        perm = perm << 4 | (uint32_t)(*text > '9' ? *text - 'a' + 10 : *text - '0');
    return perm;
}

/* Returns 1 if the kernel has no keyrings or an outer filter forbids keyctl(2).  The container
 * then has no keyring of its own. */
static int keys_unavailable(long ret)
{
    return ret == -ENOSYS || ret == -EPERM;
}

/* Otherwise the container could read the keys in the caller's session keyring.  UID search lets
 * its processes find keys in it after a change of user (docs/callers.md). */
int op_keyring(struct init *in, const struct plan_step *st)
{
    char text[512]; /* of an id of 242 characters it takes 292 */
    long id = sys_keyctl(KEYCTL_JOIN_SESSION_KEYRING, (long)step_str(in, st, S_KEYRING_name), 0, 0);

    if (keys_unavailable(id))
        return 0;
    if (id == -EDQUOT)
        return fault(in, EDQUOT, "keyctl", S_KEYRING_name, 0,
                     "the key quota of this user is used up (/proc/sys/kernel/keys/maxkeys)");
    if (id < 0)
        return fault(in, (int)-id, "keyctl", S_KEYRING_name, 0, "join session keyring");
    long ret = sys_keyctl(KEYCTL_DESCRIBE, id, (long)text, (long)sizeof(text));
    if (ret > (long)sizeof(text)) /* nothing was written */
        ret = -ENAMETOOLONG;
    if (ret >= 0) {
        uint32_t search = st->policy & P_KEYRING_OTHER_SEARCH ? KEY_OTH_SEARCH : KEY_USR_SEARCH;

        ret = sys_keyctl(KEYCTL_SETPERM, id, (long)(key_permissions(text) | search), 0);
    }
    if (ret < 0 && !keys_unavailable(ret))
        return fault(in, (int)-ret, "keyctl", S_KEYRING_name, 0, "permissions of the session keyring");
    return 0;
}

/* Runs once, inside the final cgroup: the current cgroup becomes the root that the container
 * sees. */
int op_unshare_cgroup(struct init *in, const struct plan_step *st)
{
    (void)st;
    if (unshare(CLONE_NEWCGROUP) < 0)
        return unshare_fault(in, CLONE_NEWCGROUP, errno);
    return 0;
}

int op_lo_up(struct init *in, const struct plan_step *st)
{
    struct ifreq req = {.ifr_name = "lo"};

    (void)st;
    /* Interface ioctls work on a socket of any family.  AF_UNIX is always available; AF_INET may
     * be compiled out or filtered. */
    int AUTO_CLOSE fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fault(in, errno, "socket", -1, 0, "");
    if (ioctl(fd, SIOCGIFFLAGS, &req) < 0)
        return fault(in, errno, "ioctl", -1, 0, "SIOCGIFFLAGS lo");
    req.ifr_flags = (short)(req.ifr_flags | IFF_UP);
    if (ioctl(fd, SIOCSIFFLAGS, &req) < 0)
        return fault(in, errno, "ioctl", -1, 0, "SIOCSIFFLAGS lo");
    return 0;
}
