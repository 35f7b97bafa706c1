/* The first steps of the process: see guard.h. */
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1U << 2)
#endif

#define MIN_STACK (256u << 10)

/* The first file we open would reuse a closed 0, 1 or 2, and receive our output. */
static int fill_stdio(void)
{
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            continue;
        if (open("/dev/null", fd == 0 ? O_RDONLY : O_RDWR) != fd)
            return -1;
    }
    return 0;
}

/* Several times the stack of our deepest call.  With less, the kernel sends SIGSEGV, which we
 * cannot report.  Raising the limit is not an option, because hooks and the container would
 * inherit it. */
static int stack_is_large_enough(void)
{
    struct rlimit limit;
    return getrlimit(RLIMIT_STACK, &limit) < 0 || limit.rlim_cur >= MIN_STACK;
}

const char *guard_process(void)
{
    if (!stack_is_large_enough())
        return "the limit on the stack is too small (RLIMIT_STACK, `ulimit -s`): 256 KiB are needed";
    if (fill_stdio() < 0)
        return "cannot open /dev/null for a closed standard descriptor";
    /* With set-user-ID or file capabilities, the caller would control a more privileged pyrunc. */
    if (getauxval(AT_SECURE))
        return "refusing to run set-user-ID or with file capabilities";
    /* Keep the caller's descriptors from hooks and containers (CVE-2024-21626). --preserve-fds
     * undoes it for its own.  ENOSYS: the kernel is too old, and the first real step reports it. */
    (void)syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
    struct sigaction ignore = {.sa_handler = SIG_IGN}, standard = {.sa_handler = SIG_DFL};
    /* A closed pipe or the file size limit must fail the write, and not kill us in the middle of
     * a rollback. */
    (void)sigaction(SIGPIPE, &ignore, NULL);
    (void)sigaction(SIGXFSZ, &ignore, NULL);
    /* With SIGCHLD ignored, the kernel would reap init and hooks before we wait for them. */
    (void)sigaction(SIGCHLD, &standard, NULL);
    return NULL;
}
