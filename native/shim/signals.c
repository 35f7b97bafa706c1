/* pyrunc's own signals: see shim.h. Python's signal module cannot be imported in the
 * interpreter's core phase, and setting a flag needs no handler in Python. */
#include "shim.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

static const int interrupting[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
#define COUNT (sizeof interrupting / sizeof *interrupting)

static volatile sig_atomic_t caught;
static struct sigaction before[COUNT];
static int active;

static void note(int number)
{
    caught = number;
}

int pr_signals_catch(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = note; /* no SA_RESTART: a wait must return, so that the flag is checked */
    caught = 0;
    for (size_t i = 0; i < COUNT; i++)
        if (sigaction(interrupting[i], &action, &before[i]) < 0)
            return -errno;
    active = 1;
    return 0;
}

int pr_signals_caught(void)
{
    return caught;
}

int pr_signals_restore(void)
{
    if (!active)
        return 0;
    active = 0;
    for (size_t i = 0; i < COUNT; i++)
        if (sigaction(interrupting[i], &before[i], NULL) < 0)
            return -errno;
    memset(before, 0, sizeof before); /* a snapshot must not contain addresses of libc */
    return 0;
}

int pr_signalfd(void)
{
    sigset_t set;
    sigfillset(&set);
    /* A fault of this process must end it instead of being forwarded.  libc reserves 32 and 33. */
    static const int faults[] = {SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGSYS};
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++)
        sigdelset(&set, faults[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int pr_signalfd_read(int fd)
{
    struct signalfd_siginfo info;
    ssize_t got;
    /* SIGPIPE from our own writes is blocked, not ignored, and would be forwarded like a sent
     * one. */
    do
        got = read(fd, &info, sizeof info);
    while ((got < 0 && errno == EINTR) ||
           (got == (ssize_t)sizeof info && info.ssi_signo == SIGPIPE && info.ssi_pid == (uint32_t)getpid()));
    if (got < 0)
        return -errno;
    return got == (ssize_t)sizeof info ? (int)info.ssi_signo : -EIO;
}
