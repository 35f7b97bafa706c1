/* Start init and hooks without forking Python, and wait for processes: see shim.h.
 *
 * The child shares our memory until it executes (CLONE_VM | CLONE_VFORK): no heap is copied, and no
 * Python code runs in it.  It has its own stack and only makes system calls.
 */
#include "child.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

#define CHILD_STACK 32768

struct child {
    int (*work)(struct child *c); /* ends in exec; returns errno */
    int err;
    int stage;
    /* pr_spawn_init */
    int exe_fd;
    int sock;
    int npreserve;
    int joins;
    const int *stdio;
    char count[16];
    int ahead; /* our caller does not wait */
    /* pr_spawn_hook */
    const char *path;
    char *const *argv;
    char *const *envp;
    const char *cwd;
    int stdin_fd;
    int out_fd;
};

/* Reset all signals: CPython and Go callers ignore SIGPIPE and others, and an ignored signal
 * stays ignored across execve (SigIgn=0x1001000 has been seen in containers). The mask is reset
 * last, when no handler of ours can run in the shared memory. */
void reset_signals(void)
{
    /* Raw calls: libc hides two signals, and glibc's posix_spawn leaves them ignored (seen below
     * make). */
    const unsigned long nothing[4] = {0}; /* struct sigaction of the kernel: SIG_DFL, no flags, empty mask */
    for (int sig = 1; sig < NSIG; sig++)
        (void)syscall(SYS_rt_sigaction, sig, nothing, NULL, 8L); /* fails only for KILL and STOP */
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static int child_main(void *arg)
{
    struct child *c = arg;
    c->err = c->work(c);
    _exit(127);
}

static int spawn(struct child *c)
{
    char stack[CHILD_STACK] __attribute__((aligned(16)));
    sigset_t all, old;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int pid = clone(child_main, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, c);
    int err = errno;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    FORGET_STACK(stack);
    if (pid < 0)
        return -err;
    if (c->err) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        return -c->err;
    }
    return pid;
}

/* init ----------------------------------------------------------------------------------------- */

static int init_work(struct child *c)
{
    int target = 3 + c->npreserve;
    char name[] = "pyrunc-init", joins[] = "joins";
    char *argv[] = {name, c->count, c->joins ? joins : NULL, NULL};
    char *envp[] = {NULL};
    /* The image may have the number that the socket is to get, or a stdio number if the caller
     * has closed its stdio: dup2 would close it. */
    if (c->exe_fd <= target) {
        c->exe_fd = fcntl(c->exe_fd, F_DUPFD_CLOEXEC, target + 1);
        if (c->exe_fd < 0)
            return errno;
    }
    /* Before the socket: one of them may have the number that the socket is to get. */
    for (int fd = 0; c->stdio && fd < 3; fd++)
        if (c->stdio[fd] >= 0 && dup2(c->stdio[fd], fd) < 0)
            return errno;
    if (c->sock == target ? fcntl(c->sock, F_SETFD, 0) < 0 : dup2(c->sock, target) < 0)
        return errno;
    for (int fd = 3; fd < target; fd++)
        if (fcntl(fd, F_SETFD, 0) < 0)
            return errno;
    if (!c->ahead) /* init does it as well, and the calls that fail would change errno of the parent */
        reset_signals();
    syscall(SYS_execveat, c->exe_fd, "", argv, envp, AT_EMPTY_PATH);
    return errno;
}

int pr_spawn_init(int exe_fd, int sock, int npreserve, int joins, const int *stdio)
{
    struct child c = {.work = init_work,
                      .exe_fd = exe_fd,
                      .sock = sock,
                      .npreserve = npreserve,
                      .joins = joins,
                      .stdio = stdio};
    if (npreserve < 0 || npreserve > 1 << 20)
        return -EINVAL;
    (void)snprintf(c.count, sizeof c.count, "%d", npreserve);
    return spawn(&c);
}

/* With vfork both sides wait for the processor: first the child, then the parent.  On busy cores that
 * takes two time slices.  This child runs beside us in our memory.  It has its own stack, and
 * everything that it uses stays valid.  It shares errno, but only changes it when it fails. */
static struct {
    struct child child;
    int stdio[3];
    int used;
    char stack[CHILD_STACK] __attribute__((aligned(16)));
} ahead;

/* valgrind and qemu-user lack clone3(2), and CLONE_VM without CLONE_VFORK for a process. */
static int emulated(void)
{
    return syscall(SYS_clone3, NULL, 0L) < 0 && errno == ENOSYS;
}

int pr_spawn_init_ahead(int exe_fd, int sock, int npreserve, int joins, const int *stdio)
{
#ifdef __SANITIZE_ADDRESS__
    ahead.used = 1; /* its records of frames are not for two processes */
#endif
    if (ahead.used || npreserve < 0 || npreserve > 1 << 20 || emulated())
        return pr_spawn_init(exe_fd, sock, npreserve, joins, stdio);
    ahead.used = 1;
    ahead.child = (struct child){.work = init_work,
                                 .exe_fd = exe_fd,
                                 .sock = sock,
                                 .npreserve = npreserve,
                                 .joins = joins,
                                 .ahead = 1};
    if (stdio)
        ahead.child.stdio = memcpy(ahead.stdio, stdio, sizeof ahead.stdio);
    (void)snprintf(ahead.child.count, sizeof ahead.child.count, "%d", npreserve);
    sigset_t all, old;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int pid = clone(child_main, ahead.stack + sizeof ahead.stack, CLONE_VM | SIGCHLD, &ahead.child);
    int err = errno;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return pid < 0 ? -err : pid;
}

int pr_spawn_error(void)
{
    return -*(volatile int *)&ahead.child.err;
}

/* hooks ---------------------------------------------------------------------------------------- */

/* A descriptor for stdio that dup2 to 0-2 cannot overwrite. */
static int stdio_source(int fd)
{
    if (fd < 0)
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd >= 0 && fd <= 2)
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    return fd;
}

static int hook_work(struct child *c)
{
    c->stage = 1;
    int in = stdio_source(c->stdin_fd), out = stdio_source(c->out_fd);
    if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
        return errno;
    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
        return errno;
    reset_signals();
    c->stage = 2;
    if (c->cwd && chdir(c->cwd) < 0)
        return errno;
    c->stage = 3;
    execve(c->path, c->argv, c->envp);
    return errno;
}

int pr_spawn_hook(const char *path, char *const argv[], char *const envp[], const char *cwd, int stdin_fd,
                  int out_fd, int *stage)
{
    struct child c = {.work = hook_work,
                      .path = path,
                      .argv = argv,
                      .envp = envp,
                      .cwd = cwd,
                      .stdin_fd = stdin_fd,
                      .out_fd = out_fd};
    int pid = spawn(&c);
    *stage = pid < 0 ? c.stage : 0;
    return pid;
}

/* pidfds --------------------------------------------------------------------------------------- */

int pr_pidfd_open(int pid)
{
    long fd = syscall(SYS_pidfd_open, pid, 0);
    return fd < 0 ? -errno : (int)fd;
}

int pr_pidfd_getfd(int pidfd, int target_fd)
{
    long fd = syscall(SYS_pidfd_getfd, pidfd, target_fd, 0);
    return fd < 0 ? -errno : (int)fd;
}

int pr_pidfd_send_signal(int pidfd, int sig)
{
    return syscall(SYS_pidfd_send_signal, pidfd, sig, NULL, 0) < 0 ? -errno : 0;
}

int pr_wait_pid_timeout(int pidfd, int timeout_ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    int ready = poll(&p, 1, timeout_ms);
    if (ready < 0)
        return -errno;
    if (ready == 0)
        return -ETIMEDOUT;
    siginfo_t info;
    memset(&info, 0, sizeof info);
    /* __WALL: also children cloned with an exit signal other than SIGCHLD. */
    if (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | __WALL) < 0)
        return -errno;
    if (info.si_code == CLD_EXITED)
        return (info.si_status & 0xff) << 8;
    return (info.si_status & 0x7f) | (info.si_code == CLD_DUMPED ? 0x80 : 0);
}

/* 1: it has ended, 0: it has not. */
static int has_ended(int pid)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0)
        return -errno;
    return info.si_pid == pid;
}

int pr_await_end(int pid, int timeout_ms)
{
    int ended = has_ended(pid);
    if (ended != 0)
        return ended < 0 ? ended : 0;
    struct pollfd p = {.fd = pr_pidfd_open(pid), .events = POLLIN};
    if (p.fd < 0)
        return p.fd;
    int ready = poll(&p, 1, timeout_ms);
    int err = errno;
    close(p.fd);
    if (ready < 0)
        return -err;
    return ready == 0 ? -ETIMEDOUT : 0;
}

int pr_sched_setattr(int pid, const void *attr)
{
    return syscall(SYS_sched_setattr, pid, attr, 0) < 0 ? -errno : 0;
}

int pr_prlimit(int pid, int resource, uint64_t soft, uint64_t hard)
{
    struct rlimit64 limit = {.rlim_cur = soft, .rlim_max = hard};
    return prlimit64(pid, (__rlimit_resource_t)resource, &limit, NULL) < 0 ? -errno : 0;
}
