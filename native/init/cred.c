/* The credentials, privileges and working directory of the container's program. */
#include "sys.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>

#include "init.h"
#include "text.h"

/* capset(2), <linux/capability.h>; prctl(2), <linux/prctl.h> */
#define CAPABILITY_VERSION_3 0x20080522u
#define MAX_CAP              63
#define CAP_SYS_ADMIN_BIT    (1u << 21)
struct cap_header {
    uint32_t version;
    int32_t pid;
};

struct cap_data { /* an array of two: the low and the high halves */
    uint32_t effective;
    uint32_t permitted;
    uint32_t inheritable;
};

/* The sets that DROP_ADMIN applies: the container's, without the capability that CAPS kept. */
static struct cap_data final_caps[2];

int stay_hidden(struct init *in)
{
    if (in->hidden && prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L) < 0)
        return fault(in, errno, "prctl", -1, 0, "PR_SET_DUMPABLE");
    return 0;
}

int op_personality(struct init *in, const struct plan_step *st)
{
    if (sys_ret(syscall(SYS_personality, (unsigned long)st->n[N_PERSONALITY_persona])) < 0)
        return fault(in, errno, "personality", -1, 0, "");
    return 0;
}

int op_umask(struct init *in, const struct plan_step *st)
{
    (void)in;
    umask((mode_t)st->n[N_UMASK_mask]);
    return 0;
}

int op_make_cwd(struct init *in, const struct plan_step *st)
{
    int AUTO_CLOSE root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (root < 0)
        return fault(in, errno, "open", -1, 0, "/");
    int AUTO_CLOSE fd = create_in_root(root, step_str(in, st, S_MAKE_CWD_cwd), 0);
    if (fd < 0)
        return fault(in, -fd, "mkdir", S_MAKE_CWD_cwd, 0, "");
    return 0;
}

int op_no_new_privs(struct init *in, const struct plan_step *st)
{
    (void)st;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) < 0)
        return fault(in, errno, "prctl", -1, 0, "PR_SET_NO_NEW_PRIVS");
    return 0;
}

/* "capability 24": the plan compiler knows the names, and `pyrunc plan` shows them. */
static const char *cap_text(struct init *in, const char *before, int cap)
{
    struct text t = text_in(in->fault.detail, sizeof(in->fault.detail));

    text_str(&t, before);
    text_str(&t, "capability ");
    text_num(&t, (uint64_t)cap);
    return in->fault.detail;
}

/* Runs before SET_IDS: dropping needs CAP_SETPCAP. */
int op_cap_bound(struct init *in, const struct plan_step *st)
{
    uint64_t keep = step_u64(st, N_CAP_BOUND_mask);

    for (int cap = 0; cap <= MAX_CAP; cap++) {
        if (keep >> cap & 1 || prctl(PR_CAPBSET_DROP, (long)cap, 0L, 0L, 0L) == 0)
            continue;
        if (errno == EINVAL && cap > 0)
            break; /* beyond the kernel's last capability */
        int err = errno;
        if (prctl(PR_CAPBSET_READ, (long)cap, 0L, 0L, 0L) == 0)
            continue; /* already absent */
        return fault(in, err, "prctl", -1, 0, cap_text(in, "PR_CAPBSET_DROP: ", cap));
    }
    return 0;
}

int groups_denied(struct init *in)
{
    char text[8] = "";
    int AUTO_CLOSE fd = open_proc(in, "thread-self/setgroups", O_RDONLY);

    if (fd < 0)
        return 0;
    return sys_read(fd, text, sizeof(text) - 1) >= 4 && memcmp(text, "deny", 4) == 0;
}

/* Set exactly these groups and none of the caller's (CVE-2022-36109), before the uid changes. */
int op_groups(struct init *in, const struct plan_step *st)
{
    uint32_t bytes = st->n[L_GROUPS_gids];
    const uint32_t *gids = (const void *)step_str(in, st, S_GROUPS_gids); /* aligned: plan_check */
    int ret = bytes % 4 ? -EINVAL : sys_setgroups(bytes / 4, gids);

    /* Check only after the failure: after READY no new descriptor may be available. */
    if (ret == -EPERM && groups_denied(in)) {
        if (bytes)
            warn_fault(in, fault(in, EPERM, "setgroups", -1, 0,
                                 "denied in this user namespace: no additional groups"));
        return 0;
    }
    if (ret == -EINVAL)
        return fault(in, EINVAL, "setgroups", -1, 0,
                     "invalid argument: a group is not mapped in the user namespace, or there are too many");
    return ret < 0 ? fault(in, -ret, "setgroups", -1, 0, "") : 0;
}

/* Returns the step that will enter the working directory, or NULL. */
static const struct plan_step *chdir_step(const struct init *in)
{
    for (uint32_t i = in->step + 1; i < in->plan->nsteps; i++)
        if (in->steps[i].op == OP_CHDIR)
            return &in->steps[i];
    return NULL;
}

static int inside_root(void)
{
    char path[PATH_BUF];

    return sys_ret(syscall(SYS_getcwd, path, sizeof(path))) > 0 && path[0] == '/';
}

int op_set_ids(struct init *in, const struct plan_step *st)
{
    const struct plan_step *cwd = chdir_step(in);

    if (cwd) {
        /* Engines set a working directory that only root may enter (`-u 1000 -w /root`), and
         * other runtimes try it with both identities.  CHDIR decides and checks.  First close
         * all references to the host, which a working directory like /proc/self/fd/8 could reach
         * (CVE-2024-21626). */
        close_host_fds(in);
        in->early_cwd = chdir(step_str(in, cwd, S_CHDIR_cwd)) == 0;
        /* Other processes may see us before CHDIR. */
        if (in->early_cwd && !inside_root() && chdir("/") == 0)
            in->early_cwd = 0;
    }
    /* Keep the capabilities across the change of uid.  CAPS drops those that were not requested. */
    if (prctl(PR_SET_KEEPCAPS, 1L, 0L, 0L, 0L) < 0)
        return fault(in, errno, "prctl", -1, 0, "PR_SET_KEEPCAPS");
    /* Set the group first: without uid 0 it could not be changed. */
    int ret = sys_setresgid(st->n[N_SET_IDS_gid]);
    if (ret < 0)
        return fault(in, -ret, "setresgid", -1, 0,
                     ret == -EINVAL ? "invalid argument: the group is not mapped in the user namespace" : "");
    ret = sys_setresuid(st->n[N_SET_IDS_uid]);
    if (ret < 0)
        return fault(in, -ret, "setresuid", -1, 0,
                     ret == -EINVAL ? "invalid argument: the user is not mapped in the user namespace" : "");
    return stay_hidden(in);
}

/* Name one capability that the caller lacks: "operation not permitted" alone does not help. */
static int capset_fault(struct init *in, int err, uint64_t wanted)
{
    struct cap_header header = {CAPABILITY_VERSION_3, 0};
    struct cap_data have[2];

    if (err == EPERM && syscall(SYS_capget, &header, have) == 0) {
        uint64_t missing = wanted & ~(have[0].permitted | (uint64_t)have[1].permitted << 32);

        for (int cap = 0; cap <= MAX_CAP; cap++)
            if (missing >> cap & 1)
                return fault(in, err, "capset", -1, 0,
                             cap_text(in, "operation not permitted: the caller itself lacks ", cap));
    }
    return fault(in, err, "capset", -1, 0, "");
}

static int set_caps(const struct cap_data data[2])
{
    struct cap_header header = {CAPABILITY_VERSION_3, 0};

    return (int)sys_ret(syscall(SYS_capset, &header, data));
}

/* Returns the capability that loading a filter needs and the container lacks.  Returns 0 if we
 * lack it as well, or if that cannot be read; SECCOMP then reports it. */
static uint32_t kept_for_filter(const struct cap_data *wanted)
{
    struct cap_header header = {CAPABILITY_VERSION_3, 0};
    struct cap_data have[2] = {{0}};

    (void)syscall(SYS_capget, &header, have);
    return CAP_SYS_ADMIN_BIT & have[0].permitted & ~(wanted->effective & wanted->permitted);
}

int op_caps(struct init *in, const struct plan_step *st)
{
    uint64_t effective = step_u64(st, N_CAPS_effective), permitted = step_u64(st, N_CAPS_permitted);
    uint64_t inheritable = step_u64(st, N_CAPS_inheritable), ambient = step_u64(st, N_CAPS_ambient);
    struct cap_data data[2] = {
        {(uint32_t)effective, (uint32_t)permitted, (uint32_t)inheritable},
        {(uint32_t)(effective >> 32), (uint32_t)(permitted >> 32), (uint32_t)(inheritable >> 32)},
    };

    memcpy(final_caps, data, sizeof(data));
    uint32_t kept = st->policy & P_CAPS_FOR_FILTER ? kept_for_filter(data) : 0;
    in->admin = kept != 0;
    data[0].effective |= kept;
    data[0].permitted |= kept;
    int failed = set_caps(data);
    if (failed < 0)
        return capset_fault(in, -failed, permitted | inheritable);
    if (prctl(PR_SET_KEEPCAPS, 0L, 0L, 0L, 0L) < 0)
        return fault(in, errno, "prctl", -1, 0, "PR_SET_KEEPCAPS");
    /* EINVAL: the kernel has no ambient capabilities, so there is nothing to clear. */
    if (prctl(PR_CAP_AMBIENT, (long)PR_CAP_AMBIENT_CLEAR_ALL, 0L, 0L, 0L) < 0 && errno != EINVAL)
        return fault(in, errno, "prctl", -1, 0, "PR_CAP_AMBIENT_CLEAR_ALL");
    for (int cap = 0; cap <= MAX_CAP; cap++) {
        if (!(ambient >> cap & 1))
            continue;
        if (prctl(PR_CAP_AMBIENT, (long)PR_CAP_AMBIENT_RAISE, (long)cap, 0L, 0L) == 0)
            continue;
        /* Only a permitted and inheritable capability can be ambient (EPERM), and an old kernel
         * knows fewer (EINVAL).  Engines request more.  The container then has fewer
         * capabilities than requested, so this is only a warning, as in runc and crun. */
        int err = errno;
        int ret = fault(in, err, "prctl", -1, 0, cap_text(in, "can't raise ambient capability ", cap));
        if (err != EPERM && err != EINVAL)
            return ret;
        warn_fault(in, ret);
    }
    return stay_hidden(in);
}

int op_drop_admin(struct init *in, const struct plan_step *st)
{
    (void)st;
    if (!in->admin || !in->filtered)
        return 0;
    int ret = set_caps(final_caps);
    if (ret < 0)
        return fault(in, -ret, "capset", -1, 0,
                     "the seccomp profile must allow capset without noNewPrivileges");
    in->admin = 0;
    return 0;
}

int op_rlimit(struct init *in, const struct plan_step *st)
{
    const uint64_t limit[2] = {step_u64(st, N_RLIMIT_soft),
                               step_u64(st, N_RLIMIT_hard)}; /* struct rlimit64 */
    int ret = (int)sys_ret(syscall(SYS_prlimit64, 0L, (long)st->n[N_RLIMIT_resource], limit, NULL));

    return ret < 0 ? fault(in, -ret, "prlimit", -1, 0, "") : 0;
}

/* getcwd(2) returns "(unreachable)/..." for a directory that is not below our root: one of the
 * host's, entered through another process's descriptor or /proc/PID/root (CVE-2024-21626).  Raw
 * call, because libc may return ENOENT for it, or walk the tree. */
static int check_cwd(struct init *in, const char *cwd)
{
    char path[PATH_BUF];
    long ret = sys_ret(syscall(SYS_getcwd, path, sizeof(path)));

    if (ret > 0 && path[0] == '/')
        return 0;
    if (ret > 0)
        return fault(in, EACCES, "chdir", S_CHDIR_cwd, 0,
                     "permission denied: the working directory is outside the container's root");
    if (ret == -ERANGE || ret == -ENAMETOOLONG) /* the path is too long */
        return fault(in, ENAMETOOLONG, "getcwd", S_CHDIR_cwd, 0, "");
    if (ret == -ENOENT)
        return fault(in, ENOENT, "getcwd", S_CHDIR_cwd, 0, "the working directory was removed");
    /* The filter forbids getcwd(2), and was loaded early because noNewPrivileges is false.  No
     * other call that such a filter is more likely to allow can distinguish inside from outside,
     * so refuse.  "/" needs no check. */
    if ((ret == -EPERM || ret == -ENOSYS) && cwd[0] == '/' && !cwd[1])
        return 0;
    return fault(in, (int)-ret, "getcwd", S_CHDIR_cwd, 0,
                 in->filtered ? "the seccomp profile must allow getcwd, to verify cwd" : "");
}

static int enter_cwd(struct init *in, const struct plan_step *st)
{
    const char *cwd = step_str(in, st, S_CHDIR_cwd);

    if (chdir(cwd) < 0) {
        int err = errno;

        /* The user may not enter it, but chdir succeeded before SET_IDS: stay there. */
        if (!(err == EACCES && in->early_cwd))
            return fault(in, err, "chdir", S_CHDIR_cwd, 0, err == EACCES ? "permission denied" : "");
    }
    return check_cwd(in, cwd);
}

int op_chdir(struct init *in, const struct plan_step *st)
{
    if (in->at_cwd)
        return 0;
    close_host_fds(in);
    int ret = enter_cwd(in, st);
    in->at_cwd = ret == 0;
    if (ret == 0 || !(st->policy & P_CHDIR_TRY))
        return ret;
    /* The container's /proc/self does not resolve before CLONE_INIT.  Do not stay in an
     * unchecked directory. */
    return chdir("/") < 0 ? fault(in, errno, "chdir", -1, 0, "/") : 0;
}
