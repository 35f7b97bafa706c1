/* From the caller's namespaces to the first process of the container, and the first things that process
 * does. */
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

/* clone3(CLONE_PARENT), into the cgroup of a slot if wanted: the pid, 0 in the child, -errno after fault(). */
static int clone_into(struct init *in, uint32_t slot, int in_cgroup)
{
    struct sys_clone_args args;

    memset(&args, 0, sizeof(args));
    args.flags = CLONE_PARENT;
    if (in_cgroup) {
        int fd = slot_fd(in, slot);

        if (fd < 0)
            return fault(in, EBADF, "clone3", -1, 0, "the plan names no cgroup descriptor");
        /* Born in its cgroup: no moment outside it in which to fork, and no migration to pay for. */
        args.flags |= CLONE3_INTO_CGROUP;
        args.cgroup = (uint64_t)fd;
    }
    int pid = sys_clone3(&args, sizeof(args));
    return pid < 0 ? fault(in, -pid, "clone3", -1, 0, "") : pid;
}

/* The file is this process's: opened again after PLACE. */
int open_time_offsets(struct init *in)
{
    if (in->timensfd >= 0)
        close(in->timensfd);
    in->timensfd = open_proc(in, "self/timens_offsets", O_WRONLY);
    if (in->timensfd == -ENOENT)
        return fault(in, ENOENT, "open", -1, 0, "this kernel has no time namespaces");
    return in->timensfd < 0 ? fault(in, -in->timensfd, "open", -1, 0, "timens_offsets") : 0;
}

/* Whether a process may go into a cgroup is a question of who it is, and the root of a user namespace is nobody
 * there.  So we go first, before anything is joined.  Moving in from outside would do as well, but waits for
 * an RCU grace period, several milliseconds (kernel: cgroup_attach_lock). */
int op_place(struct init *in, const struct plan_step *st)
{
    int pid = clone_into(in, st->n[N_PLACE_cgroup_fd], 1);

    /* Sent by the one that is not in the cgroup, where the other may be frozen: the parent must know whom to kill. */
    if (pid > 0) {
        send_msg(in, MSG_PLACED, (uint32_t)pid);
        leave(0);
    }
    if (pid < 0)
        return pid;
    wait_go(in); /* nothing orders two writers */
    close_slot(in, st->n[N_PLACE_cgroup_fd]);
    return in->timensfd < 0 ? 0 : open_time_offsets(in);
}

/* Before DUMPABLE 0 (the file becomes root's) and before a user namespace is entered (lowering needs
 * CAP_SYS_RESOURCE in the initial one). */
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

/* 0 before anything is joined: a process of the container could otherwise ptrace us, and steal our
 * descriptors through /proc/PID/fd, from the moment we are in its pid namespace (CVE-2016-9962).  execve
 * sets it back. */
int op_dumpable(struct init *in, const struct plan_step *st)
{
    in->hidden = st->n[N_DUMPABLE_value] == 0;
    if (prctl(PR_SET_DUMPABLE, (long)st->n[N_DUMPABLE_value], 0L, 0L, 0L) < 0)
        return fault(in, errno, "prctl", -1, 0, "PR_SET_DUMPABLE");
    return 0;
}

/* Root of the user namespace we are in now; without that, everything made later belongs to the overflow
 * id. */
static int become_root(struct init *in)
{
    /* Groups of the caller must not come along.  Where setgroups is denied the kernel keeps them on
     * purpose: dropping one could gain access (CVE-2014-8989). */
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

/* Namespaces that our present user namespace owns can be joined now and not after the user namespace;
 * those that the container's owns, only after it (runc issue 4466).  So all are tried, and what fails is
 * tried again, and reported, at its own step. */
static void join_what_can_be(struct init *in)
{
    for (uint32_t i = in->step + 1; i < in->plan->nsteps && in->steps[i].op == OP_JOIN_NS; i++) {
        uint32_t type = in->steps[i].n[N_JOIN_NS_nstype];

        if (type != CLONE_NEWUSER && setns(slot_fd(in, in->steps[i].n[N_JOIN_NS_fd]), (int)type) == 0)
            in->joined |= type;
    }
}

/* The descriptors were all opened by the parent, before any of this: once the mount namespace is joined a
 * path would mean the container's files.  pid and time apply to the next child, i.e. from CLONE_INIT on. */
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
    /* A container that may trace everybody will see us soon.  What leads to namespaces is closed by then
     * (CVE-2016-9962, CVE-2016-8649). */
    close_slot(in, st->n[N_JOIN_NS_fd]);
    return type == CLONE_NEWUSER ? become_root(in) : 0;
}

int op_unshare_user(struct init *in, const struct plan_step *st)
{
    if (unshare(CLONE_NEWUSER) < 0)
        return fault(in, errno, "unshare", -1, 0, "CLONE_NEWUSER");
    /* The map files of a process that is not dumpable are root's: an unprivileged parent could not write
     * them.  Only for this handshake, and only for such a parent, who cannot have joined anything before that
     * could look at us. */
    if ((st->policy & P_UNSHARE_USER_DUMPABLE) && prctl(PR_SET_DUMPABLE, 1L, 0L, 0L, 0L) < 0)
        return fault(in, errno, "prctl", -1, 0, "PR_SET_DUMPABLE");
    send_msg(in, MSG_MAP, 0);
    wait_go(in);
    return become_root(in);
}

/* Name the namespace that cannot be created: the combined call does not report it.  We are about to fail anyway,
 * so trying the flags one after the other does no harm. */
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

/* After UNSHARE_USER and its maps: made before, the kernel's own mounts of the new namespaces (mqueue) get
 * the wrong owner and SELinux label. */
int op_unshare(struct init *in, const struct plan_step *st)
{
    uint32_t flags = st->n[N_UNSHARE_flags];

    if (unshare((int)flags) < 0)
        return unshare_fault(in, flags, errno);
    return 0;
}

/* Through a descriptor of before (open_time_offsets).  The offsets are those of the namespace that our children enter,
 * and can be set only until one does; each write has to begin at 0. */
int op_time_offsets(struct init *in, const struct plan_step *st)
{
    const char *line = step_str(in, st, S_TIME_OFFSETS_offsets);

    for (uint32_t i = 0; i < st->n[L_TIME_OFFSETS_offsets]; i++, line = list_next(line)) {
        /* no pwrite(2) on files of this kind */
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

/* A session of our own, and our pid: with the caller's session, TIOCSTI on its terminal would type into the caller's
 * shell (CVE-2017-5226).  The result and not getpid(2): a filter has to let through one call less. */
static int new_session(struct init *in)
{
    int pid = setsid();
    int err = errno;

    in->pid = pid < 0 ? getpid() : pid;
    return pid < 0 && getsid(0) != in->pid ? fault(in, err, "setsid", -1, 0, "") : 0;
}

/* clone(2) and not clone3(2): the container's filter may be in force, and the filters of engines forbid clone3, whose
 * flags they cannot see. */
static int clone_sibling(struct init *in)
{
    close_host_fds(in);
    int pid = (int)sys_ret(syscall(SYS_clone, (long)CLONE_PARENT, 0L, 0L, 0L, 0L));
    return pid < 0 ? fault(in, -pid, "clone", -1, 0, "") : pid;
}

/* CLONE_PARENT makes init a child of the parent and not of ours, so that the parent can wait for it and
 * nobody in between has to live on.  The kernel wants exit_signal 0 with it; init then inherits ours.
 *
 * From here on processes of the container may see us, and with CAP_SYS_PTRACE take what we have: memory, descriptors,
 * capabilities (CVE-2016-9962).  A plan that joins a container has nothing left that those do not have. */
int op_clone_init(struct init *in, const struct plan_step *st)
{
    int complete = (st->policy & P_CLONE_INIT_COMPLETE) != 0;
    /* Not in the caller's session for a moment: whoever sees the child could open its /dev/tty. */
    int pid = new_session(in);

    if (pid < 0)
        return pid;
    pid = complete
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
    /* What leads to the host's cgroups was needed only to get here. */
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

/* The permissions in what KEYCTL_DESCRIBE says: "type;uid;gid;perm;description", perm in hexadecimal. */
static int key_permissions(const char *text, uint32_t *perm)
{
    for (int i = 0; i < 3; i++) {
        text = strchr(text, ';');
        if (!text)
            return -EPROTO;
        text++;
    }
    *perm = 0;
    for (; *text && *text != ';'; text++) {
        uint32_t c = (unsigned char)*text;

        if (c - '0' < 10u)
            *perm = *perm << 4 | (c - '0');
        else if ((c | 32) - 'a' < 6u)
            *perm = *perm << 4 | ((c | 32) - 'a' + 10);
        else
            return -EPROTO;
    }
    return 0;
}

/* Kernels without keyrings and filters around us that forbid keyctl: the container simply has none of its
 * own. */
static int keys_unavailable(long ret)
{
    return ret == -ENOSYS || ret == -EPERM;
}

/* Otherwise the container could read the keys in the caller's session keyring.  UID-search, so that the
 * container's processes find keys in it after a change of user (docs/callers.md). */
int op_keyring(struct init *in, const struct plan_step *st)
{
    char text[256];
    uint32_t perm = 0;
    long id = sys_keyctl(KEYCTL_JOIN_SESSION_KEYRING, (long)step_str(in, st, S_KEYRING_name), 0, 0);

    if (keys_unavailable(id))
        return 0;
    if (id == -EDQUOT)
        return fault(in, EDQUOT, "keyctl", S_KEYRING_name, 0,
                     "the key quota of this user is used up (/proc/sys/kernel/keys/maxkeys)");
    if (id < 0)
        return fault(in, (int)-id, "keyctl", S_KEYRING_name, 0, "join session keyring");
    long ret = sys_keyctl(KEYCTL_DESCRIBE, id, (long)text, (long)sizeof(text));
    if (ret >= 0) {
        text[sizeof(text) - 1] = 0;
        ret = key_permissions(text, &perm);
    }
    if (ret >= 0)
        ret = sys_keyctl(
            KEYCTL_SETPERM, id,
            (long)(perm | (st->policy & P_KEYRING_OTHER_SEARCH ? KEY_OTH_SEARCH : KEY_USR_SEARCH)), 0);
    if (ret < 0 && !keys_unavailable(ret))
        return fault(in, (int)-ret, "keyctl", S_KEYRING_name, 0, "permissions of the session keyring");
    return 0;
}

/* Once, and only inside the final cgroup: what we are in now becomes the root that the container sees. */
int op_unshare_cgroup(struct init *in, const struct plan_step *st)
{
    (void)st;
    if (unshare(CLONE_NEWCGROUP) < 0)
        return unshare_fault(in, CLONE_NEWCGROUP, errno);
    return 0;
}

int op_lo_up(struct init *in, const struct plan_step *st)
{
    struct ifreq req;

    (void)st;
    /* Interface ioctls work on a socket of any family; AF_UNIX is the one that is there for sure, AF_INET
     * may be compiled out or filtered. */
    int AUTO_CLOSE fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return fault(in, errno, "socket", -1, 0, "");
    memset(&req, 0, sizeof(req));
    memcpy(req.ifr_name, "lo", 3);
    if (ioctl(fd, SIOCGIFFLAGS, &req) < 0)
        return fault(in, errno, "ioctl", -1, 0, "SIOCGIFFLAGS lo");
    req.ifr_flags = (short)(req.ifr_flags | IFF_UP);
    if (ioctl(fd, SIOCSIFFLAGS, &req) < 0)
        return fault(in, errno, "ioctl", -1, 0, "SIOCSIFFLAGS lo");
    return 0;
}
