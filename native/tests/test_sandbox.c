/* Test native/shim/sandbox.c: the abilities of a compromised child.  TAP on stdout; takes about
 * three seconds. */
#include "sandbox.h"
#include "shim.h"
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEBIBYTE (1UL << 20)
#define NOWHERE  ((void *)8)

static char answer[4096];
static int shared = 1; /* the child changes its own copy */
static pid_t parent;

static int run(struct sandbox *s, void (*work)(const void *, size_t, int))
{
    *s = (struct sandbox){
        .work = work, .input = "input", .length = 5, .answer = answer, .room = sizeof answer};
    memset(answer, 0, sizeof answer);
    return sandbox_run(s);
}

static int childless(void)
{
    return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
}

static void say(int out, const void *data, size_t size)
{
    if (write(out, data, size) != (ssize_t)size)
        (void)syscall(SYS_exit_group, 1);
}

/* -- answers ----------------------------------------------------------------------------------- */

static void reversed(const void *input, size_t length, int out)
{
    for (size_t i = length; i > 0; i--)
        say(out, (const char *)input + i - 1, 1);
    shared = 2;
}

static void endless(const void *input, size_t length, int out)
{
    for (;;)
        say(out, input, length);
}

static void leaves(const void *input, size_t length, int out)
{
    say(out, input, length);
    (void)syscall(SYS_exit_group, 3); /* not _exit(2): see sandbox.c */
}

/* Report the failure of a step that does not exist. */
static void lies(const void *input, size_t length, int out)
{
    (void)input;
    (void)length;
    const int32_t words[2] = {99, EPERM};
    say(out, words, sizeof words);
    (void)syscall(SYS_exit_group, 126);
}

static void check_answers(void)
{
    struct sandbox s;
    OK(run(&s, reversed) == 5 && memcmp(answer, "tupni", 5) == 0, "an answer comes back");
    OK(s.status == 0 && s.failed == NULL, "and nothing failed");
    OK(shared == 1, "our memory is ours");
    OK(childless(), "no child is left");
    OK(run(&s, endless) == -E2BIG && s.failed == NULL, "an answer has an end");
    OK(childless(), "the child that wrote on and on is gone");
    OK(run(&s, leaves) == 5 && WIFEXITED(s.status) && WEXITSTATUS(s.status) == 3,
       "an exit status is reported");
    OK(run(&s, lies) == 8 && s.failed == NULL, "an unknown step is an answer like any other");
}

/* -- system calls ------------------------------------------------------------------------------ */

struct attempt {
    const char *name;
    long number, a, b, c, d, e;
};

#define TEXT(text) ((long)(uintptr_t)(text))
#define ANYWHERE   ((long)(uintptr_t)NOWHERE)
static const struct attempt attempts[] = {
    {"openat", SYS_openat, AT_FDCWD, TEXT("/etc/passwd"), O_RDONLY, 0, 0},
    {"openat2", SYS_openat2, AT_FDCWD, TEXT("/etc/passwd"), ANYWHERE, 24, 0},
    {"read", SYS_read, 0, ANYWHERE, 1, 0, 0},
    {"write 1", SYS_write, 1, TEXT("x"), 1, 0, 0},
    {"write 2", SYS_write, 2, TEXT("x"), 1, 0, 0},
    {"writev", SYS_writev, 0, ANYWHERE, 1, 0, 0},
    {"close", SYS_close, 0, 0, 0, 0, 0},
    {"dup", SYS_dup, 0, 0, 0, 0, 0},
    {"fcntl", SYS_fcntl, 0, F_GETFD, 0, 0, 0},
    {"ioctl", SYS_ioctl, 0, 0, 0, 0, 0},
    {"pipe2", SYS_pipe2, ANYWHERE, 0, 0, 0, 0},
    {"memfd_create", SYS_memfd_create, TEXT("x"), 0, 0, 0, 0},
    {"socket", SYS_socket, AF_UNIX, SOCK_STREAM, 0, 0, 0},
    {"clone", SYS_clone, SIGCHLD, 0, 0, 0, 0},
    {"clone3", SYS_clone3, ANYWHERE, 64, 0, 0, 0},
    {"execve", SYS_execve, TEXT("/bin/true"), 0, 0, 0, 0},
    {"execveat", SYS_execveat, 0, TEXT(""), 0, 0, AT_EMPTY_PATH},
    {"kill all", SYS_kill, -1, 0, 0, 0, 0},
    {"tkill", SYS_tkill, 1, 0, 0, 0, 0},
    {"tgkill another", SYS_tgkill, 1, 1, 0, 0, 0},
    {"pidfd_open", SYS_pidfd_open, 1, 0, 0, 0, 0},
    {"ptrace", SYS_ptrace, PTRACE_TRACEME, 0, 0, 0, 0},
    {"process_vm_readv", SYS_process_vm_readv, 1, ANYWHERE, 1, ANYWHERE, 1},
    {"mmap executable", SYS_mmap, 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1},
    {"mprotect", SYS_mprotect, 0, 4096, PROT_READ | PROT_EXEC, 0, 0},
    {"mremap", SYS_mremap, 0, 4096, 8192, 1, 0},
    {"prlimit64", SYS_prlimit64, 0, RLIMIT_CPU, ANYWHERE, 0, 0},
    {"prctl", SYS_prctl, 4 /* PR_SET_DUMPABLE */, 1, 0, 0, 0},
    {"rt_sigaction", SYS_rt_sigaction, SIGXCPU, ANYWHERE, 0, 8, 0},
    {"capset", SYS_capset, ANYWHERE, ANYWHERE, 0, 0, 0},
    {"setuid", SYS_setuid, 0, 0, 0, 0, 0},
    {"unshare", SYS_unshare, 0x10000000 /* CLONE_NEWUSER */, 0, 0, 0, 0},
    {"setns", SYS_setns, 0, 0, 0, 0, 0},
    {"mount", SYS_mount, TEXT("x"), TEXT("/"), TEXT("tmpfs"), 0, 0},
    {"chroot", SYS_chroot, TEXT("/"), 0, 0, 0, 0},
    {"bpf", SYS_bpf, 0, ANYWHERE, 48, 0, 0},
    {"keyctl", SYS_keyctl, 0, 0, 0, 0, 0},
    {"io_uring_setup", 425, 1, ANYWHERE, 0, 0, 0},
    {"userfaultfd", SYS_userfaultfd, 0, 0, 0, 0, 0},
    {"nanosleep", SYS_nanosleep, ANYWHERE, 0, 0, 0, 0},
    {"seccomp, a filter", SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, ANYWHERE, 0, 0},
    {"seccomp, a high address", SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)0x100000000, 0, 0},
    {"one that there is not yet", 5000, 0, 0, 0, 0, 0},
};
enum { ATTEMPTS = sizeof attempts / sizeof *attempts };

static void attempts_all(const void *input, size_t length, int out)
{
    (void)input;
    (void)length;
    for (size_t i = 0; i < ATTEMPTS; i++) {
        const struct attempt *a = &attempts[i];
        long result = syscall(a->number, a->a, a->b, a->c, a->d, a->e, 0L);
        int32_t number = result < 0 ? errno : 0;
        say(out, &number, sizeof number);
    }
}

static void kills_parent(const void *input, size_t length, int out)
{
    (void)input;
    (void)length;
    int32_t number = syscall(SYS_tgkill, parent, parent, SIGKILL) < 0 ? errno : 0;
    say(out, &number, sizeof number);
}

/* The queries of libseccomp to the kernel. */
static void asks(const void *input, size_t length, int out)
{
    (void)input;
    (void)length;
    uint32_t action = SECCOMP_RET_LOG;
    struct seccomp_notif_sizes sizes;
    int32_t numbers[4];
    numbers[0] = syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0 ? errno : 0;
    numbers[1] = syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0 ? errno : 0;
    numbers[2] = syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, NULL) < 0 ? errno : 0;
    numbers[3] = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_LOG, NULL) < 0 ? errno : 0;
    say(out, numbers, sizeof numbers);
}

static void check_calls(void)
{
    struct sandbox s;
    int32_t got[ATTEMPTS] = {0};
    int size = run(&s, attempts_all);
    OK(size == (int)sizeof got && s.status == 0, "every call was tried: %d, %#x", size, (unsigned)s.status);
    memcpy(got, answer, sizeof got);
    for (size_t i = 0; i < ATTEMPTS; i++)
        OK(got[i] == EPERM, "%s: %s", attempts[i].name, strerror(got[i]));
    OK(run(&s, kills_parent) == 4, "we are alive");
    memcpy(got, answer, sizeof *got);
    OK(got[0] == EPERM, "the child cannot signal us");
    OK(run(&s, asks) == 16, "questions are answered");
    memcpy(got, answer, 16);
    OK(got[0] == 0 && got[1] == 0 && got[2] == EINVAL && got[3] == EFAULT, "as anywhere: %d %d %d %d", got[0],
       got[1], got[2], got[3]);
}

/* -- ends -------------------------------------------------------------------------------------- */

static void aborts(const void *input, size_t length, int out)
{
    (void)input;
    (void)length;
    (void)out;
    abort();
}

static void crashes(const void *input, size_t length, int out)
{
    say(out, input, length);
    volatile char *volatile nowhere = NOWHERE;
    *nowhere = 1;
}

#ifdef __x86_64__
static void other_abi(const void *input, size_t length, int out)
{
    (void)input;
    (void)length;
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L /* getpid */) : "memory", "r8", "r9", "r10", "r11");
    say(out, &result, sizeof result);
}
#endif

static void spins(const void *input, size_t length, int out)
{
    (void)input;
    (void)length;
    (void)out;
    for (;;)
        __asm__ volatile("");
}

static void eats(const void *input, size_t length, int out)
{
    (void)input;
    (void)length;
    int32_t count = 0;
    while (count < 2048) {
        char *block = mmap(NULL, MEBIBYTE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (block == MAP_FAILED)
            break;
        *block = 1;
        count++;
    }
    say(out, &count, sizeof count);
}

static double now(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void check_ends(void)
{
    struct sandbox s;
    OK(run(&s, aborts) == 0 && WTERMSIG(s.status) == SIGABRT, "abort: %#x", (unsigned)s.status);
    OK(run(&s, crashes) == 5 && WTERMSIG(s.status) == SIGSEGV, "a crash after an answer: %#x",
       (unsigned)s.status);
    OK(!WCOREDUMP(s.status), "no core is left");
#ifdef __x86_64__
    OK(run(&s, other_abi) == 0 && WTERMSIG(s.status) == SIGSYS, "another system call table: %#x",
       (unsigned)s.status);
#endif
    OK(run(&s, spins) == 0 && WTERMSIG(s.status) == SIGXCPU, "too much time: %#x", (unsigned)s.status);
    OK(childless(), "no child is left");
    int32_t count = 0;
    OK(run(&s, eats) == 4, "too much memory is an error of mmap");
    memcpy(&count, answer, sizeof count);
    OK(count >= 240 && count <= 256, "after %d MiB", count);
}

/* -- circumstances ----------------------------------------------------------------------------- */

static void check_signal(void)
{
    struct sandbox s;
    struct itimerval soon = {.it_value = {.tv_usec = 50000}};
    struct sigaction action = {.sa_handler = SIG_IGN};
    (void)sigaction(SIGALRM, &action, NULL);
    OK(pr_signals_catch() == 0, "signals are noted");
    pid_t pid = fork();
    if (pid == 0) {
        (void)usleep(100000);
        (void)kill(parent, SIGTERM);
        _exit(0);
    }
    (void)setitimer(ITIMER_REAL, &soon, NULL); /* ignored, so it must not end the child */
    double began = now();
    OK(run(&s, spins) == -EINTR && s.failed == NULL, "a signal that ends us ends the child");
    OK(now() - began < 0.9, "at once");
    OK(pr_signals_caught() == SIGTERM, "and is noted");
    OK(pr_signals_restore() == 0, "as before");
    (void)waitpid(pid, NULL, 0);
    OK(run(&s, reversed) == 5, "what was noted earlier is not a reason to give up");
}

/* The caller's own limits stay in effect. */
static void check_limits(void)
{
    struct sandbox s;
    int32_t count = 0;
    char text[32] = "";
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    OK(fd >= 0 && read(fd, text, sizeof text - 1) > 0, "our size is known");
    close(fd);
    rlim_t mapped = (rlim_t)strtoull(text, NULL, 10) * 4096;
    struct rlimit low = {.rlim_cur = mapped + 32 * MEBIBYTE, .rlim_max = RLIM_INFINITY}, before;
    OK(getrlimit(RLIMIT_AS, &before) == 0 && setrlimit(RLIMIT_AS, &low) == 0, "less memory");
    OK(run(&s, eats) == 4, "the child runs");
    memcpy(&count, answer, sizeof count);
    OK(count >= 16 && count <= 32, "with %d MiB", count);
    (void)setrlimit(RLIMIT_AS, &before);

    struct rlimit files = {.rlim_cur = 3, .rlim_max = 1024};
    (void)getrlimit(RLIMIT_NOFILE, &before);
    files.rlim_max = before.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
    OK(run(&s, reversed) == -EMFILE && s.failed && strcmp(s.failed, "open /proc/self/statm") == 0,
       "a call that fails is named: %s", s.failed ? s.failed : "?");
    (void)setrlimit(RLIMIT_NOFILE, &before);
}

/* Descriptor 0 is the pipe, even if the pipe already has that number. */
static void check_closed_stdin(void)
{
    struct sandbox s;
    int copy = dup(0);
    close(0);
    OK(run(&s, reversed) == 5 && memcmp(answer, "tupni", 5) == 0, "without a stdin");
    if (copy >= 0) {
        (void)dup2(copy, 0);
        close(copy);
    }
}

int main(void)
{
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    parent = getpid();
    check_answers();
    check_calls();
    check_ends();
    check_signal();
    check_limits();
    check_closed_stdin();
    OK(childless(), "no child is left at the end");
    return tap_end();
}
