/* User namespaces and the mounts for them, on the host side: see shim.h. */
#include "child.h"
#include "image.h"
#include "mount_abi.h"
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#define HOLDER_STACK   16384
#define HOLDER_SECONDS 10
#define HELPER_SECONDS 30 /* newuidmap and newgidmap ask NSS */

int pr_open_tree(const char *path, int recursive)
{
    unsigned flags = OPEN_TREE_CLONE_FLAG | O_CLOEXEC | (recursive ? AT_RECURSIVE : 0u);
    long fd = syscall(NR_open_tree, AT_FDCWD, path, flags);
    return fd < 0 ? -errno : (int)fd;
}

static int setattr(int tree, int recursive, const struct attr *attr)
{
    unsigned flags = AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0u);
    return syscall(NR_mount_setattr, tree, "", flags, attr, sizeof *attr) < 0 ? -errno : 0;
}

int pr_mount_idmap(int tree, int recursive, int userns_fd)
{
    struct attr attr = {.attr_set = ATTR_IDMAP, .userns_fd = (uint64_t)userns_fd};
    return setattr(tree, recursive, &attr);
}

int pr_mount_propagation(int tree, uint64_t flag)
{
    struct attr attr = {.propagation = flag};
    return setattr(tree, 1, &attr);
}

int pr_mount(const char *source, const char *target, const char *type, uint64_t flags, const char *data)
{
    return mount(source, target, type, (unsigned long)flags, data) < 0 ? -errno : 0;
}

int pr_umount(const char *target, int flags)
{
    return umount2(target, flags) < 0 ? -errno : 0;
}

int pr_unshare(int flags)
{
    return unshare(flags) < 0 ? -errno : 0;
}

/* The process that holds the new user namespace until we have a descriptor of it. It shares our
 * memory, errno included, and makes only system calls that cannot fail. It ends with us, after
 * HOLDER_SECONDS at the latest, and first closes its copies of our descriptors, locks and
 * sockets among them. */
struct hold {
    pid_t parent;
    int seconds;
};

static int holder(void *arg)
{
    const struct hold *hold = arg;
    struct timespec limit = {.tv_sec = hold->seconds};
    (void)syscall(SYS_close_range, 0u, ~0u, 0u);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0L, 0L, 0L);
    if (getppid() != hold->parent) /* we are dead already */
        _exit(0);
    (void)syscall(SYS_ppoll, NULL, 0L, &limit, NULL, 0L);
    _exit(0);
}

/* The mask is inherited: none of our handlers runs in the holder. */
static int start_holder(void *stack_end, struct hold *hold, int seconds)
{
    sigset_t all, old;
    hold->parent = getpid();
    hold->seconds = seconds;
    sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int pid = clone(holder, stack_end, CLONE_VM | CLONE_NEWUSER | SIGCHLD, hold);
    int ret = pid < 0 ? -errno : pid;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return ret;
}

int pr_hold_userns(void)
{
    static char stack[HOLDER_STACK] __attribute__((aligned(16)));
    static struct hold hold;
    return start_holder(stack + sizeof stack, &hold, HELPER_SECONDS);
}

int pr_setns(int fd, int type)
{
    return setns(fd, type) < 0 ? -errno : 0;
}

static int open_file(const char *path, int flags)
{
    int fd;
    do
        fd = open(path, flags | O_CLOEXEC);
    while (fd < 0 && errno == EINTR);
    return fd < 0 ? -errno : fd;
}

static int write_map(int pid, const char *file, const char *text)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%d/%s", pid, file);
    int fd = open_file(path, O_WRONLY);
    if (fd < 0)
        return fd;
    int err = write_all(fd, text, strlen(text)); /* the kernel accepts it in one write or not at all */
    close(fd);
    return err;
}

int pr_userns(const char *uid_map, const char *gid_map, int *stage)
{
    char stack[HOLDER_STACK] __attribute__((aligned(16)));
    char path[64];
    struct hold hold;
    *stage = 1;
    int pid = start_holder(stack + sizeof stack, &hold, HOLDER_SECONDS);
    if (pid < 0)
        return pid;
    *stage = 2;
    int ret = write_map(pid, "uid_map", uid_map);
    if (ret == 0) {
        *stage = 3;
        ret = write_map(pid, "gid_map", gid_map);
    }
    if (ret == 0) {
        *stage = 4;
        (void)snprintf(path, sizeof path, "/proc/%d/ns/user", pid);
        ret = open_file(path, O_RDONLY);
    }
    (void)kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    FORGET_STACK(stack);
    return ret;
}
