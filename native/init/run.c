/* Wait for `start`, then become the container's program. */
#include "sys.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>

#include "init.h"
#include "text.h"

char **pointer_list(char **at, const char *item, uint32_t count)
{
    for (; count; count--, item = list_next(item))
        *at++ = (char *)(uintptr_t)item; /* execve(2) takes char *const and does not write to it */
    *at++ = NULL;
    return at;
}

void add_home(const struct init *in, char **end, char *buf, size_t size)
{
    struct text t = text_in(buf, size);

    text_str(&t, "HOME=");
    text_str(&t, in->home[0] ? in->home : "/");
    end[-1] = buf;
    end[0] = NULL;
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void close_host_fds(struct init *in)
{
    uint32_t start = NO_SLOT, error = NO_SLOT;

    for (uint32_t i = in->step; i < in->plan->nsteps; i++) {
        if (in->steps[i].op == OP_WAIT_START) {
            start = in->steps[i].n[N_WAIT_START_start_fd];
            error = in->steps[i].n[N_WAIT_START_error_fd];
        }
    }
    close_fd(&in->procfd);
    close_fd(&in->rootfd);
    close_fd(&in->nullfd);
    for (uint32_t i = 0; i < MAX_FDS; i++)
        if (i != start && i != error)
            close_fd(&in->fds[i]);
}

/* After SECCOMP init may only use read, write and close, and what the filter allows: it is the
 * container's. */
int op_wait_start(struct init *in, const struct plan_step *st)
{
    int start = slot_fd(in, st->n[N_WAIT_START_start_fd]), error = slot_fd(in, st->n[N_WAIT_START_error_fd]);

    if (in->admin)
        return fault(in, EPERM, "capset", -1, 0, "CAP_SYS_ADMIN was not dropped");
    close_host_fds(in);
    if (st->policy & P_WAIT_START_SOCKET) {
        send_msg(in, MSG_CREATED, 0);
        wait_go(in);
        return 0; /* keep the socket: it carries FAIL, and its EOF on execve means success */
    }
    if (start < 0 || error < 0)
        return fault(in, EBADF, "read", -1, 0, "the plan names no start or error fifo");
    int ret = wait_for_start(in, start);
    in->error_fd = error;
    in->start_fd = start;
    /* We hold the fifo open for reading and writing, so there is no EOF: only a byte releases
     * us. */
    if (ret < 0)
        return fault(in, -ret, "read", -1, 0, "start fifo");
    if (in->released == START_TRACED)
        in->traced = 1;
    return 0;
}

static int execve_fault(struct init *in, int err, const char *exe)
{
    struct text t = text_in(in->fault.detail, sizeof(in->fault.detail));

    text_str(&t, "exec ");
    text_str(&t, exe);
    return fault(in, err, "execve", S_EXECVE_args, 0, in->fault.detail);
}

/* sd_listen_fds(3) accepts the descriptors only if LISTEN_PID is the pid of the caller, which is
 * unknown before the process exists. */
static void set_listen_pid(const struct init *in, char **envp, char *buf, size_t size)
{
    static const char name[] = "LISTEN_PID=";
    struct text t = text_in(buf, size);

    text_str(&t, name);
    text_num(&t, (uint64_t)in->pid);
    for (; *envp; envp++)
        if (strncmp(*envp, name, sizeof(name) - 1) == 0)
            *envp = buf;
}

int op_execve(struct init *in, const struct plan_step *st)
{
    char home[HOME_BUF], listen_pid[32];
    const char *exe = in->exe[0] ? in->exe : step_str(in, st, S_EXECVE_args);
    char **argv = in->pointers;
    char **envp = pointer_list(argv, step_str(in, st, S_EXECVE_args), st->n[L_EXECVE_args]);
    char **end = pointer_list(envp, step_str(in, st, S_EXECVE_env), st->n[L_EXECVE_env]);

    if (in->admin)
        return fault(in, EPERM, "capset", -1, 0, "CAP_SYS_ADMIN was not dropped");
    if (st->policy & P_EXECVE_SET_HOME)
        add_home(in, end, home, sizeof(home));
    if (st->policy & P_EXECVE_LISTEN_PID)
        set_listen_pid(in, envp, listen_pid, sizeof(listen_pid));
    if (!in->filtered) {
        int ret = sys_close_range(3 + in->plan->npreserve, ~0u, CLOSE_RANGE_CLOEXEC);
        if (ret < 0)
            return fault(in, -ret, "close_range", -1, 0, "");
    }
    /* `start` ends at the EOF of the error fifo.  Then no reader of the start fifo may be left, or
     * the container still counts as created; execve(2) closes them one after the other. */
    close_fd(&in->start_fd);
    execve(exe, argv, envp);
    return execve_fault(in, errno, exe);
}

/* An unprivileged caller cannot open /proc/PID/ns while we are not dumpable: our mm is older
 * than the user namespace in which the caller is privileged (__ptrace_may_access).  Only
 * processes in the container may trace us now.  They find the privileges that the program will
 * have, and no descriptor of the host (CVE-2016-9962).  Runs before the filter, which may deny
 * prctl(2). */
int op_joinable(struct init *in, const struct plan_step *st)
{
    (void)st;
    close_host_fds(in);
    in->hidden = 0;
    if (prctl(PR_SET_DUMPABLE, 1L, 0L, 0L, 0L) < 0)
        return fault(in, errno, "prctl", -1, 0, "PR_SET_DUMPABLE");
    return 0;
}

/* The parent sets limits and runs prestart and createRuntime hooks.  The mounts exist, and the
 * old root is still present. */
int op_sync_mounted(struct init *in, const struct plan_step *st)
{
    (void)st;
    if (in->plan->flags & PLAN_AHEAD)
        return 0; /* on busy cores a record would only wake the parent, in place of this process */
    send_msg(in, MSG_MOUNTED, 0);
    wait_go(in);
    return 0;
}

/* Never returns, so a filter that denies rt_sigreturn(2) does no harm. */
static void end_by_signal(int sig)
{
    leave(128 + sig);
}

/* The kernel drops signals without a handler for pid 1.  A created container must still die from
 * the usual signals, as runc's init does, because engines stop containers this way.  execve(2)
 * resets the handlers. */
static int end_by_signals(struct init *in)
{
    static const int ending[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
    const struct sigaction act = {.sa_handler = end_by_signal};

    for (size_t i = 0; i < sizeof(ending) / sizeof(ending[0]); i++)
        if (sigaction(ending[i], &act, NULL) < 0)
            return fault(in, errno, "rt_sigaction", -1, 0, "");
    return 0;
}

/* The parent sets our rlimits.  From here on init opens, maps and writes nothing that they could
 * forbid.  With PLAN_AHEAD they are set, but the GO still is necessary: the parent sends it once our
 * pid is in the state, before which no process may wait for `start`. */
int op_sync_ready(struct init *in, const struct plan_step *st)
{
    (void)st;
    if (!(in->plan->flags & PLAN_AHEAD))
        send_msg(in, MSG_READY, 0);
    wait_go(in);
    /* Now, because a filter may deny rt_sigaction(2). */
    return in->pid == 1 ? end_by_signals(in) : 0;
}
