/* Hooks inside the container's namespaces: createContainer (before PIVOT) and startContainer. */
#include "sys.h"

#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "init.h"
#include "text.h"

#define TICK_MS  200 /* interval of the check for the parent while a hook runs */
#define NO_LIMIT 0

#define ALL_SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

/* The stack of child(): a few frames and system calls.  Untouched pages cost nothing. */
static unsigned char child_stack[16384] __attribute__((aligned(16)));

/* One running hook.  The child shares it until execve (CLONE_VFORK). */
struct hook {
    const char *path;
    char **argv;
    char **envp;
    int input;  /* memfd with the state */
    int output; /* memfd for its stdout and stderr */
    int rootfd; /* the working directory; -1 for ours */
    int npreserve;
    int filtered;
    int group; /* lead a process group, so that a kill reaches all its processes */
    /* The failure of the child. volatile: the child never returns, so the compiler would treat
     * its writes as dead. */
    volatile int err;
    const char *volatile call;
};

static int write_all(int fd, const char *data, size_t len)
{
    while (len) {
        ssize_t n = sys_write(fd, data, len);

        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* The state for the hook's stdin.  A memfd holds a state of any size before the hook exists, and
 * a hook that does not read it causes no EPIPE, unlike with a pipe. */
static int make_input(struct init *in, const struct plan_step *st)
{
    const char *part = step_str(in, st, S_HOOK_state);
    char pid[24];
    struct text t = text_in(pid, sizeof(pid));
    int fd = sys_memfd_create("hook-state", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    int ret = fd;

    /* The pid as the container sees it: 1 in a new pid namespace (runtime.md, State). */
    text_num(&t, (uint64_t)getpid());
    for (uint32_t i = 0; i < st->n[L_HOOK_state] && ret >= 0; i++, part = list_next(part)) {
        if (i > 0)
            ret = write_all(fd, pid, strlen(pid));
        if (ret >= 0)
            ret = write_all(fd, part, strlen(part));
    }
    if (ret >= 0 && lseek(fd, 0, SEEK_SET) < 0)
        ret = -errno;
    /* Sealed, so that nobody can change it, as with a pipe.  A filter may deny these calls, or
     * kill for them. */
    if (ret >= 0 && filter_allows(in, SYS_fchmod, (uint64_t)fd, 0400) &&
        filter_allows(in, SYS_fcntl, (uint64_t)fd, F_ADD_SEALS) &&
        (fchmod(fd, 0400) < 0 || fcntl(fd, F_ADD_SEALS, ALL_SEALS) < 0))
        ret = -errno;
    if (ret < 0 && fd >= 0)
        close(fd);
    return ret < 0 ? ret : fd;
}

static _Noreturn void child_fail(struct hook *h, const char *call)
{
    h->err = errno;
    h->call = call;
    leave(127);
}

/* Runs in our memory.  It makes only system calls, and writes only h->err and h->call. */
static int child(void *hook)
{
    struct hook *h = hook;
    const uint64_t none = 0;

    if (h->rootfd >= 0 && fchdir(h->rootfd) < 0)
        child_fail(h, "fchdir");
    if (dup2(h->input, 0) < 0 || dup2(h->output, 1) < 0 || dup2(h->output, 2) < 0)
        child_fail(h, "dup2");
    /* Only the container's program gets the preserved descriptors.  All others should already be
     * close-on-exec; this guarantees it. */
    for (int fd = 3; fd < 3 + h->npreserve; fd++)
        close(fd);
    if (!h->filtered) {
        int ret = sys_close_range(3, ~0u, CLOSE_RANGE_CLOEXEC);

        errno = -ret;
        if (ret < 0)
            child_fail(h, "close_range");
        umask(022);
    }
    if (h->group)
        setpgid(0, 0);
    if (syscall(SYS_rt_sigprocmask, (long)SIG_SETMASK, &none, NULL, 8L) < 0)
        child_fail(h, "rt_sigprocmask");
    execve(h->path, h->argv, h->envp);
    child_fail(h, "execve");
}

/* With CLONE_VM the parent gets the errno of a failed execve at once, and nothing is copied.
 * vfork() does not work: on arm64 musl implements it as fork(), and the writes of the child are
 * lost. */
static pid_t spawn(struct hook *h)
{
    return clone(child, child_stack + sizeof(child_stack), CLONE_VM | CLONE_VFORK | SIGCHLD, h);
}

static uint64_t now_ms(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int parent_gone(int sock)
{
    struct pollfd p = {.fd = sock, .events = 0};

    return sock >= 0 && poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR));
}

static int reap(pid_t pid, int *status)
{
    pid_t got;

    do
        got = waitpid(pid, status, 0);
    while (got < 0 && errno == EINTR);
    return got == pid ? 0 : -errno;
}

static void end_hook(const struct hook *h, pid_t pid)
{
    int status;

    if (!h->group || kill(-pid, SIGKILL) < 0)
        kill(pid, SIGKILL);
    reap(pid, &status);
}

/* SIGCHLD is blocked and stays pending until this takes it, for pid 1 as well.  At most TICK_MS. */
static int wait_signal(uint64_t ms)
{
    const uint64_t chld = 1ull << (SIGCHLD - 1);
    struct timespec ts = {.tv_nsec = (long)ms * 1000000};

    if (sys_ret(syscall(SYS_rt_sigtimedwait, &chld, NULL, &ts, 8L)) < 0 && errno != EAGAIN && errno != EINTR)
        return -errno;
    return 0;
}

/* Wait for the hook.  Returns 0 with its status, -ETIMEDOUT after killing it, or -errno.  Exits
 * if the parent is gone, because the hook must not outlive it. */
static int wait_hook(struct init *in, const struct hook *h, pid_t pid, uint32_t timeout_ms, int *status)
{
    uint64_t end = now_ms() + timeout_ms;

    /* After `start` there is no parent to watch, so without a limit a single call is enough. */
    if (timeout_ms == NO_LIMIT && in->sock < 0)
        return reap(pid, status);
    for (;;) {
        pid_t got = waitpid(pid, status, WNOHANG);
        uint64_t now = now_ms(), tick = TICK_MS;

        if (got == pid)
            return 0;
        if (got < 0 && errno != EINTR)
            return -errno;
        if (parent_gone(in->sock)) {
            end_hook(h, pid);
            leave(1);
        }
        if (timeout_ms != NO_LIMIT && now >= end) {
            end_hook(h, pid);
            return -ETIMEDOUT;
        }
        if (timeout_ms != NO_LIMIT && end - now < tick)
            tick = end - now;
        int ret = wait_signal(tick);
        if (ret < 0) {
            end_hook(h, pid);
            return ret;
        }
    }
}

/* Append the tail of the hook's output, as part of one line. */
static void add_output(struct text *t, int fd)
{
    char buf[MSG_DETAIL];
    char *from = buf;
    off_t size = lseek(fd, 0, SEEK_END);
    size_t room = (size_t)(t->end - t->at);
    ssize_t n;

    if (size <= 0 || room < 8)
        return;
    room -= 2; /* ": " */
    n = pread(fd, buf, room, size > (off_t)room ? size - (off_t)room : 0);
    while (n > 0 && (buf[n - 1] == '\n' || buf[n - 1] == ' ' || buf[n - 1] == '\r'))
        n--;
    if (n <= 0)
        return;
    buf[n] = 0;
    /* The cut may have split a UTF-8 character. */
    while (size > (off_t)room && (*from & 0xc0) == 0x80)
        from++;
    for (char *p = from; *p; p++)
        if ((unsigned char)*p < ' ')
            *p = ' ';
    text_str(t, ": ");
    text_str(t, from);
}

/* errno 0 in the record: only the hook itself knows what went wrong.  A handler cannot return 0
 * as an error, so exit here. */
static _Noreturn void hook_failed(struct init *in, const struct hook *h, const char *call, const char *what,
                                  uint64_t number, const char *after)
{
    struct text t = text_in(in->fault.detail, sizeof(in->fault.detail));

    text_str(&t, what);
    text_num(&t, number);
    text_str(&t, after);
    add_output(&t, h->output);
    fault(in, 0, call, S_HOOK_path, 0, in->fault.detail);
    die(in, 0);
}

static int run_hook(struct init *in, const struct plan_step *st, struct hook *h)
{
    const uint64_t chld = 1ull << (SIGCHLD - 1);
    uint32_t timeout_ms = st->n[N_HOOK_timeout_ms];
    uint64_t old = 0;
    int status = 0;

    if (syscall(SYS_rt_sigprocmask, (long)SIG_BLOCK, &chld, &old, 8L) < 0)
        return fault(in, errno, "rt_sigprocmask", S_HOOK_path, 0, "");
    pid_t pid = spawn(h);
    if (pid < 0)
        return fault(in, errno, "clone", S_HOOK_path, 0, "");
    int ret = h->err ? reap(pid, &status) : wait_hook(in, h, pid, timeout_ms, &status);
    if (syscall(SYS_rt_sigprocmask, (long)SIG_SETMASK, &old, NULL, 8L) < 0)
        return fault(in, errno, "rt_sigprocmask", S_HOOK_path, 0, "");
    if (h->err)
        return fault(in, h->err, h->call, S_HOOK_path, 0, "");
    if (ret == -ETIMEDOUT)
        hook_failed(in, h, "", "hook timed out after ", timeout_ms, " ms");
    if (ret < 0)
        return fault(in, -ret, "wait", S_HOOK_path, 0, "");
    if (WIFSIGNALED(status))
        hook_failed(in, h, "hook", "killed by signal ", (uint64_t)WTERMSIG(status), "");
    if (WEXITSTATUS(status))
        hook_failed(in, h, "hook", "exit status ", (uint64_t)WEXITSTATUS(status), "");
    return 0;
}

int op_hook(struct init *in, const struct plan_step *st)
{
    char home[HOME_BUF];
    int AUTO_CLOSE input = make_input(in, st);
    if (input < 0)
        return fault(in, -input, "memfd_create", S_HOOK_state, 0, "");
    int AUTO_CLOSE output = sys_memfd_create("hook-output", MFD_CLOEXEC);
    if (output < 0)
        return fault(in, -output, "memfd_create", S_HOOK_path, 0, "");
    struct hook h = {.path = step_str(in, st, S_HOOK_path),
                     .argv = in->pointers,
                     .input = input,
                     .output = output,
                     .rootfd = st->policy & P_HOOK_IN_CONTAINER ? -1 : in->rootfd,
                     .npreserve = (int)in->plan->npreserve,
                     .filtered = in->filtered,
                     .group = st->n[N_HOOK_timeout_ms] != NO_LIMIT};
    /* The environment is the hook's own, never the process's: LD_PRELOAD of an image must not
     * reach a program of the host (CVE-2025-23266). */
    h.envp = pointer_list(h.argv, step_str(in, st, S_HOOK_args), st->n[L_HOOK_args]);
    char **end = pointer_list(h.envp, step_str(in, st, S_HOOK_env), st->n[L_HOOK_env]);
    if (st->policy & P_HOOK_SET_HOME)
        add_home(in, end, home, sizeof(home));
    return run_hook(in, st, &h);
}
