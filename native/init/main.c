/* pyrunc-init: receive a plan from the parent, execute its steps, and become the container's
 * program.
 *
 * The parent executes it from a sealed memfd, with the argument "<number of preserved descriptors>"
 * and an empty environment.  The handshake socket is the first descriptor after the preserved ones.
 */
#include "sys.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>

#include "init.h"
#include "plan_load.h"
#include "text.h"

#define FIRST_FD       3
#define KERNEL_SIGNALS 64

/* Static storage: a page that is never written is never allocated. */
static struct init state;

/* Returns the number of preserved descriptors, or -1 if the text is not a plain decimal number. */
static int parse_count(const char *text)
{
    int value = 0;

    if (!*text)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || value > 1000000)
            return -1;
        value = value * 10 + (*text - '0');
    }
    return value;
}

/* An ignored signal stays ignored across execve, and CPython, like many callers, ignores SIGPIPE
 * and SIGXFSZ (containers started with SigIgn 0x1001000).  Raw calls, because libc reserves two
 * or three real-time signals. */
static void reset_signals(struct init *in)
{
    const uint64_t nothing[4] = {0}; /* the kernel's struct sigaction: SIG_DFL, no flags, empty mask */

    for (int sig = 1; sig <= KERNEL_SIGNALS; sig++)
        if (syscall(SYS_rt_sigaction, (long)sig, nothing, NULL, 8L) < 0 && sig != SIGKILL && sig != SIGSTOP)
            die(in, fault(in, errno, "rt_sigaction", -1, 0, ""));
    if (syscall(SYS_rt_sigprocmask, (long)SIG_SETMASK, nothing, NULL, 8L) < 0)
        die(in, fault(in, errno, "rt_sigprocmask", -1, 0, ""));
}

/* The next open would reuse a closed 0, 1 or 2, and the container would get our descriptor as
 * its stdin. */
static void fill_stdio(struct init *in)
{
    for (int fd = 0; fd < FIRST_FD; fd++)
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            die(in, fault(in, EBADF, "open", -1, 0, "stdio was closed and /dev/null cannot take its place"));
}

static void first_acts(struct init *in, int joins)
{
    /* Do this first: descriptors that the caller left open without close-on-exec reach us (those
     * of a caller's shell did), and a descriptor of a host directory is a way out of the
     * container (CVE-2024-21626). */
    int ret = sys_close_range((unsigned)in->sock + 1, ~0u, 0);
    if (ret < 0)
        die(in, fault(in, -ret, "close_range", -1, 0, ""));
    if (fcntl(in->sock, F_SETFD, FD_CLOEXEC) < 0)
        _exit(1); /* no socket: pyrunc did not start us */
    reset_signals(in);
    fill_stdio(in);
    /* The default name is the number of the memfd we were executed from. */
    prctl(PR_SET_NAME, "pyrunc-init", 0L, 0L, 0L);
    /* Files get the modes of the plan.  UMASK sets the container's umask. */
    umask(0);
    /* CLONE_INIT would do it, but with CONFIG_SCHED_AUTOGROUP setsid(2) puts us behind the other
     * processes of the CPU.  Now we have to wait for the plan anyway. */
    ret = joins ? new_session(in) : 0;
    if (ret < 0)
        die(in, ret);
}

static void take_fds(struct init *in, struct msghdr *mh)
{
    struct cmsghdr *c = CMSG_FIRSTHDR(mh);

    if (mh->msg_flags & (MSG_CTRUNC | MSG_TRUNC))
        die(in, fault(in, EMSGSIZE, "recvmsg", -1, 0, "more descriptors than a plan may have"));
    if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
        die(in, fault(in, EPROTO, "recvmsg", -1, 0, "the plan came without descriptors"));
    memcpy(in->fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
}

/* Receive PLAN with its descriptors.  Returns the size. */
static size_t receive_plan(struct init *in)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int) * MAX_FDS)];
    struct msg m;
    struct iovec iov = {.iov_base = &m, .iov_len = sizeof(m)};
    struct msghdr mh = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
    ssize_t n;

    do
        n = recvmsg(in->sock, &mh, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n <= 0)
        _exit(1); /* the parent is gone, or this is not our socket */
    if (n != (ssize_t)sizeof(m) || m.type != MSG_PLAN)
        die(in, fault(in, EPROTO, "recvmsg", -1, 0, "the parent sent a message other than PLAN"));
    take_fds(in, &mh);
    return m.value;
}

static uint32_t count_fds(const struct init *in)
{
    uint32_t n = 0;

    while (n < MAX_FDS && in->fds[n] >= 0)
        n++;
    return n;
}

/* Map and check the plan.  MAP_PRIVATE and the memfd's seals keep it unchanged after the check. */
static void load_plan(struct init *in, int npreserve)
{
    const char *why = "";
    size_t size = receive_plan(in);
    struct stat st;

    if (fstat(in->fds[0], &st) < 0 || size == 0 || st.st_size < (off_t)size)
        die(in, fault(in, EINVAL, "plan_check", -1, 0, "the plan's size differs from the announced size"));
    void *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, in->fds[0], 0);
    if (map == MAP_FAILED)
        die(in, fault(in, errno, "mmap", -1, 0, "plan"));
    int ret = plan_check(map, size, &why, &in->step);
    if (ret < 0)
        die(in, fault(in, -ret, "plan_check", -1, 0, why));
    in->plan = map;
    in->steps = (const struct plan_step *)(in->plan + 1);
    in->strings = (const char *)map + in->plan->strings;
    if (in->plan->nfds != count_fds(in) || in->plan->npreserve != (uint32_t)npreserve)
        die(in, fault(in, EINVAL, "plan_check", -1, 0, "the plan expects a different number of descriptors"));
    close(in->fds[0]); /* the mapping is enough; leave no descriptor to find */
    in->fds[0] = -1;
}

/* Reserve space for argv and envp of the largest step now: a filter may forbid mmap(2).
 * Untouched pages cost nothing. */
static void reserve_pointers(struct init *in)
{
    size_t most = 0;
    int has_umask = 0;

    for (uint32_t i = 0; i < in->plan->nsteps; i++) {
        const struct plan_step *st = &in->steps[i];
        size_t need = 4; /* two NULLs, HOME, and one spare */

        if (st->op == OP_HOOK)
            need += (size_t)st->n[L_HOOK_args] + st->n[L_HOOK_env];
        else if (st->op == OP_EXECVE)
            need += (size_t)st->n[L_EXECVE_args] + st->n[L_EXECVE_env];
        if (need > most)
            most = need;
        has_umask |= st->op == OP_UMASK;
    }
    if (!has_umask)
        umask(022); /* never the 0 of our own setup */
    in->pointers = mmap(NULL, most * sizeof(char *), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (in->pointers == MAP_FAILED)
        die(in, fault(in, errno, "mmap", -1, 0, "argument pointers"));
}

/* Open files of the host that stay trustworthy after we enter the container's mount namespace:
 * procfs for writes (CVE-2025-52881), /dev/null for masks (CVE-2025-31133). */
static void open_host_files(struct init *in)
{
    struct statfs fs;
    struct stat st;

    in->procfd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (in->procfd < 0 || fstatfs(in->procfd, &fs) < 0)
        die(in, fault(in, errno, "open", -1, 0, "/proc of the host"));
    if (fs.f_type != MAGIC_PROC)
        die(in, fault(in, EXDEV, "fstatfs", -1, 0, "/proc of the host is not a procfs"));
    if (fstatat(in->procfd, "thread-self/exe", &in->self, 0) < 0)
        die(in, fault(in, errno, "fstatat", -1, 0, "/proc/thread-self/exe"));
    in->nullfd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (in->nullfd < 0 || fstat(in->nullfd, &st) < 0)
        die(in, fault(in, errno, "open", -1, 0, "/dev/null of the host"));
    if (!S_ISCHR(st.st_mode) || st.st_rdev != makedev(1, 3))
        die(in, fault(in, ENODEV, "fstat", -1, 0, "/dev/null of the host is not the device 1:3"));
}

/* Also before any namespace is joined: the kernel checks whether the opener of the file may set
 * the clock of the new namespace, and only root can open it once we are not dumpable (DUMPABLE). */
static void prepare_time_offsets(struct init *in)
{
    for (uint32_t i = 0; i < in->plan->nsteps; i++) {
        if (in->steps[i].op != OP_TIME_OFFSETS)
            continue;
        in->step = i;
        int ret = open_time_offsets(in);
        if (ret < 0)
            die(in, ret);
        in->step = NO_SLOT;
        return;
    }
}

static void clear_fault(struct init *in)
{
    in->fault.call = NULL;
    in->fault.arg = -1;
    in->fault.item = 0;
    in->fault.detail[0] = 0;
}

static inline __attribute__((always_inline)) void do_step(struct init *in)
{
    const struct plan_step *st = &in->steps[in->step];
    int ret;

    clear_fault(in);
    ret = handlers[st->op](in, st);
    if (ret != 0)
        die(in, ret);
}

static _Noreturn void no_program(struct init *in)
{
    die(in, fault(in, ENOEXEC, "plan", -1, 0, "the plan ends without EXECVE: there is no program to run"));
}

int main(int argc, char **argv)
{
    struct init *in = &state;
    int joins = argc == 3 && !strcmp(argv[2], "joins");
    int npreserve = argc == 2 + joins ? parse_count(argv[1]) : -1;

    if (npreserve < 0)
        return 1; /* cannot report it: the socket's number is unknown */
    in->sock = FIRST_FD + npreserve;
    in->error_fd = in->start_fd = in->procfd = in->rootfd = in->nullfd = in->timensfd = -1;
    for (int i = 0; i < MAX_FDS; i++)
        in->fds[i] = -1;
    in->step = NO_SLOT;
    clear_fault(in);
    first_acts(in, joins);
    load_plan(in, npreserve);
    reserve_pointers(in);
    open_host_files(in);
    prepare_time_offsets(in);
    in->step = 0;
    in->traced = (in->plan->flags & PLAN_TRACE) != 0;
    for (; in->step < in->plan->nsteps; in->step++) {
        if (in->traced)
            trace_step(in);
        do_step(in);
    }
    no_program(in);
}
