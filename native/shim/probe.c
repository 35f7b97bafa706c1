/* Features of this kernel that the caller can use, tested in a child: see shim.h.
 *
 * fork(2) instead of clone(CLONE_VM): a probe unshares namespaces, installs a filter, and loads
 * a library that may crash. None of that may affect the caller.
 */
#include "child.h"
#include "image.h"
#include "mount_abi.h"
#include "shim.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROBE_MS 5000
#define NSS_MS   300 /* a server that the library asks may not answer */

#ifndef CLONE_INTO_CGROUP
#define CLONE_INTO_CGROUP 0x200000000ULL
#endif
#define NR_clone3                  435
#define NR_landlock_create_ruleset 444
#define LANDLOCK_VERSION           1u

/* The child ------------------------------------------------------------------------------------ */

struct question {
    int what, flags;
    const char *owner;
    int groups;
    int timeout_ms;
};

static int failed(long result)
{
    return result < 0 ? -errno : 0;
}

/* A filesystem that is mounted nowhere: it disappears with the child's descriptor. */
static int mount_api(void)
{
    const struct attr attr = {.attr_set = ATTR_RDONLY};
    int fs = (int)syscall(NR_fsopen, "tmpfs", FSOPEN_CLOEXEC_FLAG);
    if (fs < 0 || syscall(NR_fsconfig, fs, CMD_CREATE, NULL, NULL, 0) < 0)
        return -errno;
    int tree = (int)syscall(NR_fsmount, fs, FSMOUNT_CLOEXEC_FLAG, ATTR_NOSUID);
    if (tree < 0)
        return -errno;
    return failed(syscall(NR_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr));
}

static int walk_in_root(void)
{
    const struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};
    return failed(syscall(SYS_openat2, AT_FDCWD, "/", &how, sizeof how));
}

/* With a closed descriptor: EBADF comes from the code that would have used it, and no process is
 * created. */
static int clone_into_cgroup(void)
{
    const struct {
        uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
            set_tid_size, cgroup;
    } args = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = INT_MAX};
    long pid = syscall(NR_clone3, &args, sizeof args);
    return pid < 0 && errno == EBADF ? 0 : pid < 0 ? -errno : -EPROTO;
}

static int listen_for_calls(void)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const struct sock_fprog program = {.len = 1, .filter = &allow};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) < 0)
        return -errno;
    return failed(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program));
}

/* Its ABI version, which is at least 1. */
static int landlock(void)
{
    long version = syscall(NR_landlock_create_ruleset, NULL, 0L, LANDLOCK_VERSION);
    return version < 0 ? -errno : (int)version;
}

static int probe(const struct question *q)
{
    if (q->flags && unshare(q->flags) < 0)
        return -errno;
    switch (q->what) {
    case PR_PROBE_NAMESPACES:
        return 0;
    case PR_PROBE_MOUNT_API:
        return mount_api();
    case PR_PROBE_OPENAT2:
        return walk_in_root();
    case PR_PROBE_CLONE_INTO_CGROUP:
        return clone_into_cgroup();
    case PR_PROBE_SECCOMP_NOTIFY:
        return listen_for_calls();
    case PR_PROBE_LANDLOCK:
        return landlock();
    default:
        return -EINVAL;
    }
}

static void answer_probe(const struct question *q, int out)
{
    int32_t result = probe(q);
    (void)write_all(out, (const char *)&result, sizeof result);
}

/* <shadow/subid.h>; these are the sonames of its ABI. */
struct range {
    unsigned long start, count;
};

static void *load_libsubid(void)
{
    static const char *const names[] = {"libsubid.so.5", "libsubid.so.4", "libsubid.so.3"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    return library;
}

/* The first byte of the answer is 1 if the library answered. */
static void answer_subids(const struct question *q, int out)
{
    bool (*init)(const char *, FILE *);
    int (*get)(const char *, struct range **);
    struct range *ranges = NULL;
    void *library = load_libsubid();
    void *found = library ? dlsym(library, q->groups ? "subid_get_gid_ranges" : "subid_get_uid_ranges")
                          : NULL;
    if (library && !found) /* version 3 */
        found = dlsym(library, q->groups ? "get_subgid_ranges" : "get_subuid_ranges");
    if (!found)
        return;
    memcpy(&get, &found, sizeof get);
    found = dlsym(library, "subid_init");
    if (!found)
        found = dlsym(library, "libsubid_init");
    if (found) {
        memcpy(&init, &found, sizeof init);
        (void)init("pyrunc", NULL); /* its messages are discarded */
    }
    int count = get(q->owner, &ranges);
    if (write_all(out, "\1", 1) < 0)
        return;
    for (int i = 0; i < count; i++) {
        char line[64];
        int length = snprintf(line, sizeof line, "%lu %lu\n", ranges[i].start, ranges[i].count);
        if (length < 0 || write_all(out, line, (size_t)length) < 0)
            return;
    }
}

/* The parent ----------------------------------------------------------------------------------- */

/* Read what the child writes until its end; the length or -errno. */
static int read_answer(int fd, int timeout_ms, char *answer, size_t room)
{
    size_t have = 0;
    while (have < room) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int ready = poll(&p, 1, timeout_ms);
        if (ready == 0)
            return -ETIMEDOUT;
        ssize_t got = ready < 0 ? -1 : read(fd, answer + have, room - have);
        if (got < 0 && errno != EINTR)
            return -errno;
        if (got == 0)
            break;
        have += got > 0 ? (size_t)got : 0;
    }
    return (int)have;
}

static int ask(void (*work)(const struct question *, int), const struct question *q, char *answer,
               size_t room)
{
    int ends[2];
    sigset_t all, old;
    pid_t parent = getpid();
    if (pipe2(ends, O_CLOEXEC) < 0)
        return -errno;
    sigfillset(&all); /* none of our handlers may run in the child */
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    pid_t pid = fork();
    int err = errno;
    if (pid == 0) {
        reset_signals();
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0L, 0L, 0L);
        if (getppid() == parent)
            work(q, ends[1]);
        _exit(0);
    }
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    close(ends[1]);
    int got = pid < 0 ? -err : read_answer(ends[0], q->timeout_ms, answer, room);
    close(ends[0]);
    if (pid > 0) {
        (void)kill(pid, SIGKILL); /* it has answered or timed out */
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    return got;
}

int pr_probe(int what, int flags)
{
    const struct question q = {.what = what, .flags = flags, .timeout_ms = PROBE_MS};
    int32_t result = 0;
    int got = ask(answer_probe, &q, (char *)&result, sizeof result);
    return got < 0 ? got : got < (int)sizeof result ? -EPIPE : result;
}

int pr_subids(const char *owner, int groups, char *out, size_t room)
{
    const struct question q = {.owner = owner, .groups = groups, .timeout_ms = NSS_MS};
    if (room == 0 || room > INT_MAX)
        return -EINVAL;
    int got = ask(answer_subids, &q, out, room);
    return got == 0 ? -ENOPKG : got;
}
