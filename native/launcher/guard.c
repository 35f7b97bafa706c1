/* The first acts of the process: see guard.h. */
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

/* A closed 0, 1 or 2 would be the number of the first file we open; what is printed then goes into that file. */
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

/* What the deepest of our calls takes, several times over.  Below it the kernel's answer is SIGSEGV, which nobody can
 * report.  A limit that we raised would be inherited by hooks and by the container. */
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
    /* Set-user-ID or file capabilities: the caller would choose what a more privileged pyrunc does. */
    if (getauxval(AT_SECURE))
        return "refusing to run set-user-ID or with file capabilities";
    /* Descriptors of the caller go to no hook and to no container; --preserve-fds undoes it for its own
     * (CVE-2024-21626).  ENOSYS is a kernel below our floor, which the first real step reports. */
    (void)syscall(SYS_close_range, 3U, ~0U, CLOSE_RANGE_CLOEXEC);
    struct sigaction ignore = {.sa_handler = SIG_IGN}, standard = {.sa_handler = SIG_DFL};
    /* A closed pipe or a file size limit is an error of the write, not our death in mid-rollback. */
    (void)sigaction(SIGPIPE, &ignore, NULL);
    (void)sigaction(SIGXFSZ, &ignore, NULL);
    /* An ignored SIGCHLD reaps init and hooks behind our back. */
    (void)sigaction(SIGCHLD, &standard, NULL);
    return NULL;
}
