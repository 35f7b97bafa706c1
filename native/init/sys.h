/* System calls and constants that libc may lack: thin wrappers that return the value or -errno.
 *
 * Include this file first, because it defines _GNU_SOURCE. musl-gcc has no kernel headers in its
 * include path, and <linux/mount.h> conflicts with glibc's <sys/mount.h>, so init includes no
 * <linux/...> header.  This file defines the constants of the kernel ABI instead.  Numbers above
 * 423 are the same on every architecture.
 */
#ifndef PYRUNC_SYS_H
#define PYRUNC_SYS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#if !defined(__x86_64__) && !defined(__aarch64__)
#error "pyrunc supports x86_64 and aarch64"
#endif

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Our own names for the numbers: __NR_* depends on the version of the headers. */
enum sys_number {
    NR_pidfd_send_signal = 424,
    NR_open_tree = 428,
    NR_move_mount = 429,
    NR_fsopen = 430,
    NR_fsconfig = 431,
    NR_fsmount = 432,
    NR_fspick = 433,
    NR_pidfd_open = 434,
    NR_clone3 = 435,
    NR_close_range = 436,
    NR_openat2 = 437,
    NR_pidfd_getfd = 438,
    NR_faccessat2 = 439,
    NR_mount_setattr = 442,
#if defined(__x86_64__)
    NR_keyctl = 250,
    NR_seccomp = 317,
    NR_memfd_create = 319
#else
    NR_keyctl = 219,
    NR_seccomp = 277,
    NR_memfd_create = 279
#endif
};

/* --- openat2(2) --- */
struct sys_open_how {
    uint64_t flags;
    uint64_t mode;
    uint64_t resolve;
};

#ifndef RESOLVE_NO_XDEV
#define RESOLVE_NO_XDEV       0x01
#define RESOLVE_NO_MAGICLINKS 0x02
#define RESOLVE_NO_SYMLINKS   0x04
#define RESOLVE_BENEATH       0x08
#define RESOLVE_IN_ROOT       0x10
#endif

/* --- The mount API. glibc 2.36 and later define some of these as enum members with a macro of
 * the same name, so <sys/mount.h> is included above, and each constant is tested separately. --- */
struct sys_mount_attr {
    uint64_t attr_set;
    uint64_t attr_clr;
    uint64_t propagation;
    uint64_t userns_fd;
};

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif
#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef AT_EMPTY_PATH
#define AT_EMPTY_PATH 0x1000
#endif
#ifndef AT_NO_AUTOMOUNT
#define AT_NO_AUTOMOUNT 0x800
#endif
#ifndef MOVE_MOUNT_F_SYMLINKS
#define MOVE_MOUNT_F_SYMLINKS 0x00000001
#endif
#ifndef MOVE_MOUNT_F_EMPTY_PATH
#define MOVE_MOUNT_F_EMPTY_PATH 0x00000004
#endif
#ifndef MOVE_MOUNT_T_SYMLINKS
#define MOVE_MOUNT_T_SYMLINKS 0x00000010
#endif
#ifndef MOVE_MOUNT_T_EMPTY_PATH
#define MOVE_MOUNT_T_EMPTY_PATH 0x00000040
#endif
#ifndef FSOPEN_CLOEXEC
#define FSOPEN_CLOEXEC 0x00000001
#endif
#ifndef FSMOUNT_CLOEXEC
#define FSMOUNT_CLOEXEC 0x00000001
#endif
#ifndef FSPICK_CLOEXEC
#define FSPICK_CLOEXEC 0x00000001
#endif
#ifndef FSPICK_SYMLINK_NOFOLLOW
#define FSPICK_SYMLINK_NOFOLLOW 0x00000002
#endif
#ifndef FSPICK_NO_AUTOMOUNT
#define FSPICK_NO_AUTOMOUNT 0x00000004
#endif
#ifndef FSPICK_EMPTY_PATH
#define FSPICK_EMPTY_PATH 0x00000008
#endif
#ifndef FSCONFIG_SET_FLAG
#define FSCONFIG_SET_FLAG 0
#endif
#ifndef FSCONFIG_SET_STRING
#define FSCONFIG_SET_STRING 1
#endif
#ifndef FSCONFIG_SET_BINARY
#define FSCONFIG_SET_BINARY 2
#endif
#ifndef FSCONFIG_SET_PATH
#define FSCONFIG_SET_PATH 3
#endif
#ifndef FSCONFIG_SET_PATH_EMPTY
#define FSCONFIG_SET_PATH_EMPTY 4
#endif
#ifndef FSCONFIG_SET_FD
#define FSCONFIG_SET_FD 5
#endif
#ifndef FSCONFIG_CMD_CREATE
#define FSCONFIG_CMD_CREATE 6
#endif
#ifndef FSCONFIG_CMD_RECONFIGURE
#define FSCONFIG_CMD_RECONFIGURE 7
#endif
#ifndef MOUNT_ATTR_RDONLY
#define MOUNT_ATTR_RDONLY 0x00000001
#endif
#ifndef MOUNT_ATTR_NOSUID
#define MOUNT_ATTR_NOSUID 0x00000002
#endif
#ifndef MOUNT_ATTR_NODEV
#define MOUNT_ATTR_NODEV 0x00000004
#endif
#ifndef MOUNT_ATTR_NOEXEC
#define MOUNT_ATTR_NOEXEC 0x00000008
#endif
#ifndef MOUNT_ATTR__ATIME
#define MOUNT_ATTR__ATIME 0x00000070
#endif
#ifndef MOUNT_ATTR_RELATIME
#define MOUNT_ATTR_RELATIME 0x00000000
#endif
#ifndef MOUNT_ATTR_NOATIME
#define MOUNT_ATTR_NOATIME 0x00000010
#endif
#ifndef MOUNT_ATTR_STRICTATIME
#define MOUNT_ATTR_STRICTATIME 0x00000020
#endif
#ifndef MOUNT_ATTR_NODIRATIME
#define MOUNT_ATTR_NODIRATIME 0x00000080
#endif
#ifndef MOUNT_ATTR_IDMAP
#define MOUNT_ATTR_IDMAP 0x00100000
#endif
#ifndef MOUNT_ATTR_NOSYMFOLLOW
#define MOUNT_ATTR_NOSYMFOLLOW 0x00200000
#endif
#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256
#endif
#ifndef MS_LAZYTIME
#define MS_LAZYTIME (1 << 25)
#endif
/* f_flags of statfs(2); glibc and musl disagree on the visibility of the names in
 * <sys/statvfs.h> */
#define SYS_ST_NOATIME 0x0400

/* --- magic numbers of filesystems, <linux/magic.h> --- */
#define MAGIC_PROC    0x9fa0
#define MAGIC_SYSFS   0x62656572
#define MAGIC_TMPFS   0x01021994
#define MAGIC_CGROUP  0x27e0eb
#define MAGIC_CGROUP2 0x63677270
#define MAGIC_DEVPTS  0x1cd1
#define MAGIC_MQUEUE  0x19800202

/* --- clone3(2) --- */
struct sys_clone_args {
    uint64_t flags;
    uint64_t pidfd;
    uint64_t child_tid;
    uint64_t parent_tid;
    uint64_t exit_signal;
    uint64_t stack;
    uint64_t stack_size;
    uint64_t tls;
    uint64_t set_tid;
    uint64_t set_tid_size;
    uint64_t cgroup;
};

#define CLONE3_INTO_CGROUP 0x200000000ULL

#ifndef CLONE_NEWCGROUP
#define CLONE_NEWCGROUP 0x02000000
#endif
#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x00000080
#endif

#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC 4
#endif
#ifndef MFD_CLOEXEC
#define MFD_CLOEXEC       1
#define MFD_ALLOW_SEALING 2
#endif

/* Convert the result of a system call to the value or -errno. */
static inline long sys_ret(long value)
{
    return value < 0 ? -(long)errno : value;
}

/* A single read or write, restarted if a signal interrupted it before any transfer. */
static inline ssize_t sys_read(int fd, void *data, size_t len)
{
    ssize_t n;

    do
        n = read(fd, data, len);
    while (n < 0 && errno == EINTR);
    return n;
}

static inline ssize_t sys_write(int fd, const void *data, size_t len)
{
    ssize_t n;

    do
        n = write(fd, data, len);
    while (n < 0 && errno == EINTR);
    return n;
}

static inline int sys_openat2(int dirfd, const char *path, const struct sys_open_how *how, size_t size)
{
    return (int)sys_ret(syscall(NR_openat2, (long)dirfd, path, how, size));
}

static inline int sys_open_tree(int dirfd, const char *path, unsigned flags)
{
    return (int)sys_ret(syscall(NR_open_tree, (long)dirfd, path, (long)flags));
}

static inline int sys_move_mount(int from_fd, const char *from, int to_fd, const char *to, unsigned flags)
{
    return (int)sys_ret(syscall(NR_move_mount, (long)from_fd, from, (long)to_fd, to, (long)flags));
}

static inline int sys_fsopen(const char *fstype, unsigned flags)
{
    return (int)sys_ret(syscall(NR_fsopen, fstype, (long)flags));
}

static inline int sys_fsconfig(int fd, unsigned cmd, const char *key, const void *value, int aux)
{
    return (int)sys_ret(syscall(NR_fsconfig, (long)fd, (long)cmd, key, value, (long)aux));
}

static inline int sys_fsmount(int fd, unsigned flags, unsigned attr)
{
    return (int)sys_ret(syscall(NR_fsmount, (long)fd, (long)flags, (long)attr));
}

static inline int sys_fspick(int dirfd, const char *path, unsigned flags)
{
    return (int)sys_ret(syscall(NR_fspick, (long)dirfd, path, (long)flags));
}

static inline int sys_mount_setattr(int dirfd, const char *path, unsigned flags,
                                    const struct sys_mount_attr *attr, size_t size)
{
    return (int)sys_ret(syscall(NR_mount_setattr, (long)dirfd, path, (long)flags, attr, size));
}

static inline int sys_pivot_root(const char *new_root, const char *put_old)
{
    return (int)sys_ret(syscall(SYS_pivot_root, new_root, put_old));
}

static inline int sys_close_range(unsigned first, unsigned last, unsigned flags)
{
    return (int)sys_ret(syscall(NR_close_range, (long)first, (long)last, (long)flags));
}

static inline int sys_clone3(struct sys_clone_args *args, size_t size)
{
    return (int)sys_ret(syscall(NR_clone3, args, size));
}

static inline int sys_pidfd_open(int pid, unsigned flags)
{
    return (int)sys_ret(syscall(NR_pidfd_open, (long)pid, (long)flags));
}

static inline int sys_pidfd_send_signal(int pidfd, int sig)
{
    return (int)sys_ret(syscall(NR_pidfd_send_signal, (long)pidfd, (long)sig, NULL, 0L));
}

static inline int sys_faccessat2(int dirfd, const char *path, int mode, int flags)
{
    return (int)sys_ret(syscall(NR_faccessat2, (long)dirfd, path, (long)mode, (long)flags));
}

/* The call without flags checks the real ids.  For filters that do not know faccessat2(2). */
static inline int sys_faccessat(int dirfd, const char *path, int mode)
{
    return (int)sys_ret(syscall(SYS_faccessat, (long)dirfd, path, (long)mode));
}

static inline int sys_memfd_create(const char *name, unsigned flags)
{
    return (int)sys_ret(syscall(NR_memfd_create, name, (long)flags));
}

static inline int sys_seccomp(unsigned op, unsigned flags, const void *args)
{
    return (int)sys_ret(syscall(NR_seccomp, (long)op, (long)flags, args));
}

static inline long sys_keyctl(int op, long a, long b, long c)
{
    return sys_ret(syscall(NR_keyctl, (long)op, a, b, c, 0L));
}

/* Raw calls: libc's may first signal all threads (musl), with system calls that a filter may
 * forbid. */
static inline int sys_setresuid(uint32_t id)
{
    return (int)sys_ret(syscall(SYS_setresuid, (long)id, (long)id, (long)id));
}

static inline int sys_setresgid(uint32_t id)
{
    return (int)sys_ret(syscall(SYS_setresgid, (long)id, (long)id, (long)id));
}

static inline int sys_setgroups(size_t count, const uint32_t *gids)
{
    return (int)sys_ret(syscall(SYS_setgroups, count, gids));
}

/* --- A descriptor that is closed at the end of its scope: int AUTO_CLOSE fd = ... --- */
static inline void sys_auto_close(const int *fd)
{
    if (*fd >= 0) {
        int saved = errno; /* the caller reads the error after this */
        close(*fd);
        errno = saved;
    }
}
#define AUTO_CLOSE __attribute__((cleanup(sys_auto_close)))

#endif
