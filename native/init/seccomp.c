/* Load the filter that the parent compiled. */
#include "sys.h"

#include "init.h"
#include "text.h"

/* seccomp(2), <linux/seccomp.h> and <linux/filter.h> */
#define SET_MODE_FILTER   1u
#define FLAG_TSYNC        0x01u
#define FLAG_NEW_LISTENER 0x08u
#define FLAG_TSYNC_ESRCH  0x10u
#define INSTRUCTION       8u    /* sizeof(struct sock_filter) */
#define MAX_INSTRUCTIONS  4096u /* BPF_MAXINSNS */

struct filter_program {
    unsigned short len;
    const void *filter;
};

static int load_fault(struct init *in, int err, uint32_t flags)
{
    struct text t = text_in(in->fault.detail, sizeof(in->fault.detail));

    /* Do not retry without the flags: the profile asked for each of them, and must not be half
     * applied. */
    if (err == EINVAL && flags) {
        text_str(&t, "invalid argument: this kernel may not know one of the filter flags ");
        text_num(&t, flags);
    } else if (err == EACCES) {
        text_str(&t, "permission denied: a filter requires noNewPrivileges or CAP_SYS_ADMIN");
    } else if (err == EBUSY) {
        text_str(&t, "busy: a filter with a listener is already installed");
    }
    return fault(in, err, "seccomp", -1, 0, in->fault.detail);
}

int op_seccomp(struct init *in, const struct plan_step *st)
{
    uint32_t bytes = st->n[L_SECCOMP_filter], flags = st->n[N_SECCOMP_flags];
    struct filter_program program = {.len = (unsigned short)(bytes / INSTRUCTION),
                                     .filter = step_str(in, st, S_SECCOMP_filter)};

    if (in->filtered)
        return 0; /* the SECCOMP before CLONE_INIT loaded it */
    if (bytes == 0 || bytes % INSTRUCTION || bytes / INSTRUCTION > MAX_INSTRUCTIONS)
        return fault(in, EINVAL, "seccomp", -1, 0, "the filter has no instructions, or too many");
    if ((st->policy & P_SECCOMP_IF_PASSABLE) && !filter_passable(in, program.filter, program.len))
        return 0;
    if (st->policy & P_SECCOMP_LISTENER) {
        flags |= FLAG_NEW_LISTENER;
        /* With TSYNC a positive result is either a thread id or a descriptor.  This flag
         * distinguishes them. */
        if (flags & FLAG_TSYNC)
            flags |= FLAG_TSYNC_ESRCH;
    }
    /* The filter restricts all later system calls, so do this now: no descriptor of ours may
     * survive execve, not even one that a handler failed to mark (CVE-2024-21626). */
    int ret = sys_close_range(3 + in->plan->npreserve, ~0u, CLOSE_RANGE_CLOEXEC);
    if (ret < 0)
        return fault(in, -ret, "close_range", -1, 0, "");
    trim_memory(in);
    int fd = sys_seccomp(SET_MODE_FILTER, flags, &program);
    if (fd < 0)
        return load_fault(in, -fd, flags);
    in->filtered = 1;
    if (st->policy & P_SECCOMP_LISTENER) {
        /* Do not send the descriptor: the filter may already forbid sendmsg, or make it wait for
         * the listener that is being handed over.  The parent takes it with pidfd_getfd(2). */
        send_msg(in, MSG_SECCOMP, (uint32_t)fd);
        wait_go(in);
        close(fd);
    }
    return 0;
}
