/* Unit test of init/hook.c: the environment of a hook, and the reports of failed system calls.
 * Prints TAP.
 *
 * Usage: test_hook DIR, an empty directory.
 */
#include "../init/sys.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "../init/init.h"
#include "calls.h"
#include "tap.h"

#define LEAK_MAX 100

/* The result of one hook, in memory shared with the process that ran it. */
static struct outcome {
    int ret, status, arg;
    uint32_t item;
    char call[MSG_CALL], detail[MSG_DETAIL], hit[MSG_CALL];
    struct msg last; /* sent by die() */
} * seen;

static struct init in;
static struct plan_header header = {.nsteps = 1};
static struct plan_step step;
static char strings[4096];
static char *pointers[16];
static int leak, filtered, fault_at = -1, group;

static uint32_t put(size_t *at, const char *text)
{
    uint32_t start = (uint32_t)*at;

    strcpy(strings + *at, text);
    *at += strlen(text) + 1;
    return start;
}

static void prepare(const char *path, const char *script)
{
    size_t at = 1;

    memset(&in, 0, sizeof(in));
    for (int i = 0; i < MAX_FDS; i++)
        in.fds[i] = -1;
    in.procfd = in.rootfd = in.nullfd = in.error_fd = in.sock = -1;
    in.plan = &header;
    in.steps = &step;
    in.strings = strings;
    in.pointers = pointers;
    in.filtered = filtered;
    memset(&step, 0, sizeof(step));
    step.op = OP_HOOK;
    step.s[S_HOOK_path] = put(&at, path);
    step.s[S_HOOK_args] = put(&at, "sh");
    put(&at, "-c");
    put(&at, script);
    step.n[L_HOOK_args] = 3;
    step.s[S_HOOK_state] = put(&at, "{\"pid\":");
    put(&at, "}");
    step.n[L_HOOK_state] = 2;
    step.n[N_HOOK_timeout_ms] = group ? 30000 : 0;
}

/* Run in a separate process, because a failing hook ends it.  Descriptor `leak` is open and not
 * close-on-exec. */
static const struct outcome *run(const char *path, const char *script)
{
    int pair[2];

    memset(seen, 0, sizeof(*seen));
    prepare(path, script);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        exit(2);
    in.sock = pair[1];
    pid_t pid = fork();
    if (pid == 0) {
        close(pair[0]);
        if (leak && dup2(0, leak) < 0)
            _exit(2);
        calls.fail_at = fault_at;
        calls.error = ENOSPC;
        calls.armed = fault_at >= 0;
        seen->ret = op_hook(&in, &step);
        calls.armed = 0;
        if (in.fault.call)
            strncpy(seen->call, in.fault.call, MSG_CALL - 1);
        memcpy(seen->detail, in.fault.detail, MSG_DETAIL);
        seen->arg = in.fault.arg;
        seen->item = in.fault.item;
        strncpy(seen->hit, calls.hit ? calls.hit : "", MSG_CALL - 1);
        _exit(0);
    }
    close(pair[1]);
    if (read(pair[0], &seen->last, sizeof(seen->last)) < 0 || waitpid(pid, &seen->status, 0) < 0)
        exit(2);
    close(pair[0]);
    if (seen->last.item != 0 || seen->item != 0)
        OK(0, "%s%s: an item, but the argument is not a list", seen->last.call, seen->call);
    return seen;
}

static const char *text_of(const char *path)
{
    static char buf[4096];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, buf, sizeof(buf) - 1);

    buf[n > 0 ? n : 0] = 0;
    close(fd);
    return buf;
}

/* A hook gets its three descriptors and no other, even if one was leaked. */
static void test_descriptors(void)
{
    for (leak = 3; leak < LEAK_MAX; leak += 31) {
        const struct outcome *got = run("/bin/sh", "ls /proc/self/fd >fds");
        OK(got->status == 0 && got->ret == 0, "hook beside a forgotten descriptor %d", leak);
        OK(strcmp(text_of("fds"), "0\n1\n2\n3\n") == 0, "%d is not seen: %s", leak, text_of("fds"));
    }
    leak = 0;
    /* Under a filter the preserved descriptors are closed, and nothing else is possible. */
    header.npreserve = 2;
    filtered = 1;
    for (leak = 3; leak < 5; leak++) {
        const struct outcome *got = run("/bin/sh", "ls /proc/self/fd >fds");
        OK(got->status == 0 && got->ret == 0, "hook under a filter beside descriptor %d", leak);
        OK(strcmp(text_of("fds"), "0\n1\n2\n3\n") == 0, "%d is not seen: %s", leak, text_of("fds"));
    }
    header.npreserve = 0;
    filtered = leak = 0;
}

static void test_surroundings(void)
{
    sigset_t set;

    umask(0);
    sigfillset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    const struct outcome *got = run("/bin/sh",
                                    "umask >mask; grep SigBlk /proc/self/status >blocked; cat >state");
    sigemptyset(&set);
    sigprocmask(SIG_SETMASK, &set, NULL);
    OK(got->ret == 0, "hook below a strange mask");
    OK(strcmp(text_of("mask"), "0022\n") == 0, "umask %s", text_of("mask"));
    OK(strtoull(text_of("blocked") + 7, NULL, 16) == 0, "signals %s", text_of("blocked"));
    OK(strncmp(text_of("state"), "{\"pid\":", 7) == 0 && strchr(text_of("state"), '}'), "state %s",
       text_of("state"));
    for (group = 0; group < 2; group++) {
        run("/bin/sh", "ps -o pgid= -p $$ >group; echo $$ >>group");
        char *second, *text = strdup(text_of("group"));
        int leads = strtol(text, &second, 10) == strtol(second, NULL, 10);
        OK(leads == group, "group %d: %s", group, text);
        free(text);
    }
    group = 0;
}

/* Make each system call fail, ours and the child's before execve. */
static void test_faults(void)
{
    int hits = 0, reported = 0;

    for (group = 0; group < 2; group++)
        for (fault_at = 0; fault_at < 100; fault_at++) {
            unlink("ran");
            const struct outcome *got = run("/bin/sh", "touch ran");
            if (got->ret == 0 && !got->hit[0] && got->status == 0)
                break;
            hits++;
            OK(got->ret == -ENOSPC || got->last.err == ENOSPC, "call %d (%s): %d %s", fault_at, got->hit,
               got->ret, got->call);
            reported += got->call[0] != 0 || got->last.call[0] != 0;
            if (got->ret < 0) {
                int output = fault_at > 0 && strcmp(got->hit, "syscall") == 0; /* the second memfd */
                int input = strcmp(got->call, "memfd_create") == 0 && !output;
                OK(got->arg == (input ? S_HOOK_state : S_HOOK_path), "%s of %d", got->call, got->arg);
                OK(got->detail[0] == 0, "%s: %s", got->call, got->detail);
            }
        }
    OK(hits > 12 && reported == hits, "%d calls, %d reported", hits, reported);
    fault_at = -1;
}

static void test_failures(void)
{
    const struct outcome *got = run("/no/such/hook", "");

    OK(got->ret == -ENOENT && strcmp(got->call, "execve") == 0, "missing hook: %d %s", got->ret, got->call);
    got = run("/bin/sh", "echo out; exit 7");
    OK(got->last.type == MSG_FAIL && got->last.err == 0, "status: type %u", got->last.type);
    OK(strcmp(got->last.detail, "exit status 7: out") == 0, "status: %s", got->last.detail);
    got = run("/bin/sh", "kill -TERM $$");
    OK(strcmp(got->last.detail, "killed by signal 15") == 0, "signal: %s", got->last.detail);
}

/* Without SIGCHLD the kernel keeps no status: that is an error, and no reason to wait forever. */
static void test_status_that_is_lost(void)
{
    signal(SIGCHLD, SIG_IGN);
    prepare("/bin/sh", "exit 0");
    alarm(20);
    int ret = op_hook(&in, &step);
    OK(ret == -ECHILD && strcmp(in.fault.call, "wait") == 0, "no status: %d %s", ret, in.fault.call);
    prepare("/no/such/hook", "");
    ret = op_hook(&in, &step);
    OK(ret == -ENOENT && strcmp(in.fault.call, "execve") == 0, "no hook and no status: %d", ret);
    alarm(0);
    signal(SIGCHLD, SIG_DFL);
}

/* The record has room for 207 bytes: "exit status 7: " and the last 192 of the output. */
static void test_output(void)
{
    static const char *const outputs[][2] = {
        {"true", ""},
        {"printf ' \\n\\r\\n'", ""},
        {"printf 'a\\tb\\nc \\r\\n'", ": a b c"},
        {"echo out; echo err >&2", ": out err"},
    };
    char script[256];

    for (size_t i = 0; i < sizeof(outputs) / sizeof(outputs[0]); i++) {
        snprintf(script, sizeof(script), "%s; exit 7", outputs[i][0]);
        const struct outcome *got = run("/bin/sh", script);
        OK(strncmp(got->last.detail, "exit status 7", 13) == 0 &&
               strcmp(got->last.detail + 13, outputs[i][1]) == 0,
           "output of %s: \"%s\"", outputs[i][0], got->last.detail);
    }
    for (int length = 190; length < 195; length++) {
        snprintf(script, sizeof(script), "printf 'a%%0%dd' 0; exit 7", length - 1);
        const struct outcome *got = run("/bin/sh", script);
        OK(strlen(got->last.detail) == 15u + (length < 192 ? (size_t)length : 192), "%d bytes: %zu", length,
           strlen(got->last.detail));
        OK(got->last.detail[15] == (length <= 192 ? 'a' : '0'), "%d bytes: %s", length, got->last.detail);
    }
    /* Nothing is cut here, so the first byte stays, although it begins no character. */
    const struct outcome *whole = run("/bin/sh", "printf '\\244%0191d' 0; exit 7");
    OK(strlen(whole->last.detail) == 15u + 192 && whole->last.detail[15] == '\244', "whole output: %zu",
       strlen(whole->last.detail));
    /* The first byte that fits is the second of a character, or the first one. */
    for (int odd = 0; odd < 2; odd++) {
        snprintf(script, sizeof(script), "printf '\\303\\244%%.0s' $(seq 200); printf '%s'; exit 7",
                 odd ? "x" : "%s");
        const struct outcome *got = run("/bin/sh", script);
        OK(strlen(got->last.detail) == 15u + (odd ? 191 : 192), "%d: %zu", odd, strlen(got->last.detail));
        OK(strncmp(got->last.detail, "exit status 7: \303\244", 17) == 0, "%d: %s", odd, got->last.detail);
    }
}

int main(int argc, char **argv)
{
    seen = mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (argc != 2 || chdir(argv[1]) < 0 || seen == MAP_FAILED)
        return 2;
    test_descriptors();
    test_surroundings();
    test_failures();
    test_status_that_is_lost();
    test_output();
    test_faults();
    return tap_end();
}
