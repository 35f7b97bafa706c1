/* A child that processes hostile data and can do nothing else: see sandbox.h.
 *
 * fork(2) instead of clone(CLONE_VM): only the child's memory may be corrupted. It is not a
 * separate program, because there may be no executable file (a chroot, a host that forbids
 * executing memfds), and the library is already in this process.
 */
#include "sandbox.h"
#include "child.h"
#include "image.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define NATIVE AUDIT_ARCH_AARCH64
#else
#error "the audit architecture of this machine is not known"
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the filter reads the low halves of arguments"
#endif

#define NOT_BEGUN 126 /* exit status: a step failed, and the answer is a struct refusal */

/* What the child gives up, in this order; a refusal carries the number. */
enum step { DEATH, PIPE, DESCRIPTORS, LIMITS, DUMPABLE, CAPABILITIES, PRIVILEGES, CALLS, STEPS };
static const char *const step_calls[STEPS] = {
    [DEATH] = "prctl(PR_SET_PDEATHSIG)",
    [PIPE] = "dup2",
    [DESCRIPTORS] = "close_range",
    [LIMITS] = "setrlimit",
    [DUMPABLE] = "prctl(PR_SET_DUMPABLE)",
    [CAPABILITIES] = "capset",
    [PRIVILEGES] = "prctl(PR_SET_NO_NEW_PRIVS)",
    [CALLS] = "seccomp",
};

/* The child's input. */
struct terms {
    pid_t parent;
    int out;
    rlim_t memory; /* bytes that it may have mapped, including what it has now */
};

struct refusal {
    uint32_t step;
    int32_t err;
};

/* The filter ----------------------------------------------------------------------------------- */

#define LOW(n)  ((unsigned)offsetof(struct seccomp_data, args[n]))
#define HIGH(n) (LOW(n) + 4U)

#define LOAD(place)            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (place))
#define EQUAL(value, yes, no)  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (yes), (no))
#define ANY_BIT(mask, yes, no) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (mask), (yes), (no))
#define ALLOW                  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
/* An errno instead of a kill: libc tries calls that it does not need, and a message about the
 * heap must not hide SIGABRT. */
#define DENY           BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM)
#define ALLOW_CALL(nr) EQUAL((nr), 0, 1), ALLOW

/* Non-executable memory, the answer, the exit, and libseccomp's queries about seccomp. No x32
 * number equals one of these. */
static int install_filter(void)
{
    struct sock_filter code[] = {
        LOAD(offsetof(struct seccomp_data, arch)),
        EQUAL(NATIVE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        LOAD(offsetof(struct seccomp_data, nr)),
        ALLOW_CALL(__NR_exit_group),
        ALLOW_CALL(__NR_exit),
        ALLOW_CALL(__NR_brk),
        ALLOW_CALL(__NR_munmap),
        EQUAL(__NR_mmap, 0, 4), /* its only descriptor is a pipe, which cannot be mapped */
        LOAD(LOW(2)),
        ANY_BIT(PROT_EXEC, 1, 0),
        ALLOW,
        DENY,
        EQUAL(__NR_write, 0, 4),
        LOAD(LOW(0)),
        EQUAL(0, 0, 1),
        ALLOW,
        DENY,
        /* abort(3) */
        ALLOW_CALL(__NR_rt_sigprocmask),
        ALLOW_CALL(__NR_getpid),
        ALLOW_CALL(__NR_gettid),
        EQUAL(__NR_tgkill, 0, 4),
        LOAD(LOW(0)),
        EQUAL((uint32_t)getpid(), 0, 1),
        ALLOW,
        DENY,
        /* Queries only: a null pointer loads nothing. */
        EQUAL(__NR_seccomp, 0, 8),
        LOAD(LOW(0)),
        EQUAL(SECCOMP_GET_ACTION_AVAIL, 5, 0),
        EQUAL(SECCOMP_GET_NOTIF_SIZES, 4, 0),
        LOAD(LOW(2)),
        EQUAL(0, 0, 3),
        LOAD(HIGH(2)),
        EQUAL(0, 0, 1),
        ALLOW,
        DENY,
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    /* Without SPEC_ALLOW, older kernels disable speculation, which costs more than the work
     * itself. */
    long flags = SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program) < 0 ? errno : 0;
}

/* The child ------------------------------------------------------------------------------------ */

/* Never more than the current limit. */
static int limit(__rlimit_resource_t resource, rlim_t soft, rlim_t hard)
{
    struct rlimit has;
    if (getrlimit(resource, &has) < 0)
        return errno;
    struct rlimit wanted = {.rlim_cur = soft < has.rlim_cur ? soft : has.rlim_cur,
                            .rlim_max = hard < has.rlim_max ? hard : has.rlim_max};
    return setrlimit(resource, &wanted) < 0 ? errno : 0;
}

static int set_limits(rlim_t memory)
{
    int err = limit(RLIMIT_CORE, 0, 0);
    err = err ? err : limit(RLIMIT_CPU, SANDBOX_CPU_SECONDS, SANDBOX_CPU_SECONDS + 1);
    return err ? err : limit(RLIMIT_AS, memory, memory);
}

static int drop_capabilities(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {{0, 0, 0}};
    return syscall(SYS_capset, &header, none) < 0 ? errno : 0; /* this drops the ambient ones as well */
}

/* 0 or an errno.  The pipe becomes descriptor 0. */
static int give_up(enum step step, const struct terms *to)
{
    switch (step) {
    case DEATH:
        if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0L, 0L, 0L) < 0)
            return errno;
        return getppid() != to->parent ? ESRCH : 0; /* it died before that took effect */
    case PIPE:
        return to->out != 0 && dup2(to->out, 0) < 0 ? errno : 0;
    case DESCRIPTORS:
        return syscall(SYS_close_range, 1U, ~0U, 0U) < 0 ? errno : 0;
    case LIMITS:
        return set_limits(to->memory);
    case DUMPABLE:
        return prctl(PR_SET_DUMPABLE, 0L, 0L, 0L, 0L) < 0 ? errno : 0;
    case CAPABILITIES:
        return drop_capabilities();
    case PRIVILEGES:
        return prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) < 0 ? errno : 0;
    default:
        return install_filter();
    }
}

static void child_main(const struct sandbox *c, const struct terms *t)
{
    int status = 0;
    reset_signals();
    for (enum step step = DEATH; step < STEPS && status == 0; step++) {
        int err = give_up(step, t);
        if (err) {
            struct refusal r = {.step = step, .err = err};
            (void)write_all(step <= PIPE ? t->out : 0, (const char *)&r, sizeof r);
            status = NOT_BEGUN;
        }
    }
    if (status == 0)
        c->work(c->input, c->length, 0);
    /* Not _exit(2): ASan makes system calls before it, which the filter denies. */
    for (;;)
        (void)syscall(SYS_exit_group, status);
}

/* The parent ----------------------------------------------------------------------------------- */

/* The number of bytes this process has mapped, or -errno. */
static int64_t mapped(void)
{
    char text[32];
    ssize_t got;
    int fd;
    do
        fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    if (fd < 0)
        return -errno;
    do
        got = read(fd, text, sizeof text - 1);
    while (got < 0 && errno == EINTR);
    int err = got < 0 ? errno : 0;
    close(fd);
    if (err)
        return -err;
    text[got] = '\0';
    unsigned long pages = strtoul(text, NULL, 10);
    return pages ? (int64_t)pages * sysconf(_SC_PAGESIZE) : -EIO;
}

static int64_t now_ms(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int fail(struct sandbox *c, const char *call, int err)
{
    c->failed = call;
    return err;
}

/* Read the whole answer; its length or -errno. */
static int read_answer(struct sandbox *c, int fd)
{
    int64_t end = now_ms() + SANDBOX_WALL_MS;
    size_t have = 0;
    int before = pr_signals_caught();
    while (have < c->room) {
        int64_t left = end - now_ms();
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = left > 0 ? poll(&p, 1, (int)left) : 0;
        if (pr_signals_caught() != before)
            return -EINTR;
        if (ready == 0)
            return -ETIMEDOUT;
        ssize_t got = ready < 0 ? -1 : read(fd, (char *)c->answer + have, c->room - have);
        if (got < 0 && errno != EINTR && errno != EAGAIN)
            return fail(c, ready < 0 ? "poll" : "read", -errno);
        if (got == 0)
            return (int)have;
        have += got > 0 ? (size_t)got : 0;
    }
    return -E2BIG;
}

/* The child's report of a failed call; like all it sends, it is not trusted. */
static int refused(struct sandbox *c, int got)
{
    struct refusal r;
    if (!WIFEXITED(c->status) || WEXITSTATUS(c->status) != NOT_BEGUN || got != (int)sizeof r)
        return got;
    memcpy(&r, c->answer, sizeof r);
    if (r.step >= STEPS || r.err <= 0 || r.err > 4095)
        return got;
    c->failed = step_calls[r.step];
    return -r.err;
}

int sandbox_run(struct sandbox *c)
{
    int ends[2];
    sigset_t all, old;
    c->failed = NULL;
    c->status = 0;
    int64_t memory = mapped();
    if (memory < 0)
        return fail(c, "open /proc/self/statm", (int)memory);
    if (pipe2(ends, O_CLOEXEC) < 0)
        return fail(c, "pipe2", -errno);
    struct terms terms = {.parent = getpid(), .out = ends[1], .memory = (rlim_t)memory + SANDBOX_MEMORY};
    /* None of our handlers may run in the child: signals are blocked until it has reset them. */
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    /* Not clone(2): after fork(3) the allocator is usable even if another thread held its lock. */
    pid_t pid = fork();
    int err = errno;
    if (pid == 0)
        child_main(c, &terms);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    int got = pid < 0 ? fail(c, "fork", -err) : 0;
    if (close(ends[1]) < 0 && got == 0)
        got = fail(c, "close", -errno); /* otherwise the answer would never end */
    if (got == 0)
        got = read_answer(c, ends[0]);
    close(ends[0]);
    if (pid < 0)
        return got;
    if (got < 0)
        (void)kill(pid, SIGKILL);
    while (waitpid(pid, &c->status, 0) < 0 && errno == EINTR)
        ;
    return refused(c, got);
}
