/* Make one system call of one process fail, or kill that process after it.
 *
 *     inject OUT trace  0      0     0    0     COMMAND [ARG...]    list all calls
 *     inject OUT trace-arguments ...                                the same, with their arguments
 *     inject OUT error  THREAD INDEX CALL ERRNO COMMAND [ARG...]    skip the call and return -ERRNO;
 *                                                                   close(2) is not skipped
 *     inject OUT kill   THREAD INDEX CALL 0     COMMAND [ARG...]    SIGKILL after the call
 *     inject OUT trace-criu ..., inject OUT kill-criu ...           the same for criu's calls only
 *
 * strace's inject=CALL:when=N counts separately in each traced thread. One N therefore hits both
 * the runtime and the container's first process, and the first hit hides the second. Here a point
 * is one call of one thread. Threads are numbered in creation order; calls (of any name) are
 * numbered from the thread's first call. futex(2) is not counted: it cannot fail, and how often a
 * thread waits for another varies. The calls that grow the heap also vary, so the point is the
 * first call with the number CALL at or after INDEX. After the point, calls are not traced.
 * OUT gets a line for each call (trace) or for the call that was hit: THREAD INDEX NUMBER OWN.
 * OWN is 1 in a thread of the command itself and 0 in another process. With arguments the line goes
 * on: each argument in hexadecimal, and after a colon the bytes that it points to, if any.
 *
 * The exit status is the command's, or 128 + n if signal n killed it.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

/* <linux/ptrace.h> and <sys/ptrace.h> cannot be included together everywhere. */
struct call_info {
    unsigned char op;
    unsigned char pad[3];
    unsigned arch;
    unsigned long long ip, sp;
    unsigned long long nr, args[6];
};
enum { CALL_ENTRY = 1, GET_INFO = 0x420e, EVENT_STOP = 128 };

#define OPTIONS                                                                                                \
    (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE | PTRACE_O_TRACEEXEC)

struct thread {
    pid_t id;
    long calls;
    int number, chosen, criu;
};

static struct thread threads[4096];
static int count, run_free, hit, in_criu, with_arguments;
static pid_t command;
static FILE *out;
static enum { TRACE, FAIL, KILL } action;
static long want_thread, want_index, want_call, error;

static struct thread *find(pid_t id)
{
    for (int i = count - 1; i >= 0; i--)
        if (threads[i].id == id)
            return &threads[i];
    if (count == (int)(sizeof threads / sizeof *threads))
        exit(99);
    threads[count] = (struct thread){.id = id, .number = count};
    return &threads[count++];
}

#ifdef __x86_64__
static void skip_call(pid_t id)
{
    ptrace(PTRACE_POKEUSER, id, offsetof(struct user_regs_struct, orig_rax), -1L);
}

static void set_result(pid_t id, long value)
{
    ptrace(PTRACE_POKEUSER, id, offsetof(struct user_regs_struct, rax), value);
}
#else
static void skip_call(pid_t id)
{
    int none = -1;
    struct iovec v = {&none, sizeof none};
    ptrace(PTRACE_SETREGSET, id, 0x404 /* NT_ARM_SYSTEM_CALL */, &v);
}

static void set_result(pid_t id, long value)
{
    struct user_regs_struct r;
    struct iovec v = {&r, sizeof r};
    ptrace(PTRACE_GETREGSET, id, NT_PRSTATUS, &v);
    r.regs[0] = (unsigned long long)value;
    ptrace(PTRACE_SETREGSET, id, NT_PRSTATUS, &v);
}
#endif

/* In two parts: the page after the first byte's may not be there. */
static void tell_argument(pid_t id, unsigned long long value)
{
    unsigned char bytes[256];
    size_t left = 4096 - value % 4096, most = left < sizeof bytes ? left : sizeof bytes;
    struct iovec to = {bytes, sizeof bytes};
    struct iovec from[] = {{(void *)(size_t)value, most}, {(void *)(size_t)(value + most), sizeof bytes - most}};
    ssize_t have = process_vm_readv(id, &to, 1, from, 2, 0);

    fprintf(out, have > 0 ? " %llx:" : " %llx", value);
    for (ssize_t i = 0; i < have; i++)
        fprintf(out, "%02x", bytes[i]);
}

static void tell(const struct thread *t, long index, const struct call_info *info)
{
    fprintf(out, "%d %ld %ld %d", t->number, index, (long)info->nr, tgkill(command, t->id, 0) == 0);
    for (int i = 0; with_arguments && i < 6; i++)
        tell_argument(t->id, info->args[i]);
    fputc('\n', out);
    if (action != TRACE)
        fflush(out);
}

static void at_call(struct thread *t)
{
    struct call_info info;
    if (ptrace((enum __ptrace_request)GET_INFO, t->id, sizeof info, &info) <= 0)
        return;
    if (info.op == CALL_ENTRY && (info.nr == SYS_futex || t->criu != in_criu))
        return;
    if (info.op == CALL_ENTRY) {
        long index = t->calls++;
        if (action == TRACE) {
            tell(t, index, &info);
        } else if (!hit && t->number == want_thread && index >= want_index && (long)info.nr == want_call) {
            t->chosen = hit = 1;
            tell(t, index, &info);
            /* close(2), Dealing with error returns from close(): the descriptor is always released */
            if (action == FAIL && info.nr != SYS_close)
                skip_call(t->id);
        }
    } else if (t->chosen) {
        t->chosen = 0;
        run_free = 1;
        if (action == FAIL)
            set_result(t->id, -error);
        else
            kill(t->id, SIGKILL);
    }
}

/* Handle one stop of a traced thread; returns the signal to deliver. */
static int at_stop(struct thread *t, int status)
{
    int sig = WSTOPSIG(status), event = status >> 16;
    if (sig == (SIGTRAP | 0x80)) {
        if (!run_free)
            at_call(t);
        return 0;
    }
    if (event == PTRACE_EVENT_EXEC && t->number == 0)
        t->calls = 1; /* earlier calls were ours; execve itself is call 0 */
    return event ? 0 : sig;
}

/* CRIU traces the processes that it restores, and a process has only one tracer: its children are
 * not traced, and it is traced itself only if the point is one of its calls. */
static int is_criu(pid_t id)
{
    char path[64], name[4096];
    snprintf(path, sizeof(path), "/proc/%d/exe", id);
    ssize_t length = readlink(path, name, sizeof(name) - 1);
    return length >= 5 && !memcmp(name + length - 5, "/criu", 5);
}

/* Until the command has ended; with arguments, until all that it has started has. */
static int follow(pid_t child)
{
    int result = 99;

    for (;;) {
        int status;
        pid_t id = waitpid(-1, &status, __WALL);
        if (id < 0 && errno == EINTR)
            continue;
        if (id < 0)
            return result;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (id == child)
                result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            if (id == child && !with_arguments)
                return result;
            find(id)->id = 0;
            continue;
        }
        int sig = at_stop(find(id), status);
        enum __ptrace_request request = run_free ? PTRACE_CONT : PTRACE_SYSCALL;
        if (status >> 16 == EVENT_STOP && WSTOPSIG(status) != SIGTRAP)
            request = PTRACE_LISTEN; /* it remains stopped by the signal */
        if (status >> 16 == PTRACE_EVENT_EXEC && is_criu(id)) {
            *find(id) = (struct thread){.id = id, .number = find(id)->number, .criu = 1};
            if (!in_criu)
                request = PTRACE_DETACH;
            else
                ptrace(PTRACE_SETOPTIONS, id, 0L, (long)PTRACE_O_TRACESYSGOOD);
        }
        ptrace(request, id, 0L, (long)sig);
    }
}

int main(int argc, char **argv)
{
    if (argc < 8)
        return 99;
    action = strncmp(argv[2], "trace", 5) == 0 ? TRACE : strcmp(argv[2], "error") == 0 ? FAIL : KILL;
    in_criu = strstr(argv[2], "-criu") != NULL;
    with_arguments = strstr(argv[2], "-arguments") != NULL;
    want_thread = atol(argv[3]), want_index = atol(argv[4]), want_call = atol(argv[5]), error = atol(argv[6]);
    out = fopen(argv[1], "we");
    if (!out)
        return 99;
    pid_t child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        execv(argv[7], argv + 7);
        _exit(99);
    }
    int status;
    if (child < 0 || waitpid(child, &status, WUNTRACED) != child || !WIFSTOPPED(status))
        return 99;
    command = child;
    find(child);
    threads[0].calls = -1000; /* until its execve */
    if (ptrace(PTRACE_SEIZE, child, 0L, OPTIONS) < 0)
        return 99;
    kill(child, SIGCONT);
    status = follow(child);
    fclose(out);
    return status;
}
