/* COPY_UP ("tmpcopyup"): fill a new tmpfs with the content of its destination.
 *
 * The tree belongs to an image, and other containers may change it meanwhile.  The walk uses
 * descriptors: it opens each entry once without following it, and reads through that descriptor.
 * Hard links become separate files.
 */
#include "fsapi.h"

#include <limits.h>
#include <string.h>
#include <sys/xattr.h>

#include "text.h"

#define MAX_DEPTH 64 /* each takes two descriptors and three kilobytes of stack */
#define DIR_BUF   2048

struct dirent64 {
    uint64_t ino;
    int64_t off;
    uint16_t reclen;
    uint8_t type;
    char name[];
};

static char chunk[65536];     /* file content, or the value of one attribute (XATTR_SIZE_MAX) */
static char attr_list[65536]; /* XATTR_LIST_MAX */

static int copy_entry(struct init *in, int from, int to, const char *name, int depth);

static int copy_fault(struct init *in, int err, const char *call, const char *name)
{
    char detail[MSG_DETAIL];
    struct text t = text_in(detail, sizeof(detail));

    text_str(&t, "copying up ");
    text_str(&t, name);
    return fault(in, err, call, S_MOUNT_dest, 0, detail);
}

/* Copy the attributes.  Skip those that the tmpfs or our privileges do not allow: user.* before
 * Linux 6.6, trusted.* in a user namespace. */
static int copy_xattrs(struct init *in, int from, int to, const char *name)
{
    ssize_t len = flistxattr(from, attr_list, sizeof(attr_list));

    if (len < 0)
        return errno == ENOTSUP ? 0 : copy_fault(in, errno, "flistxattr", name);
    for (const char *key = attr_list; key < attr_list + len; key = list_next(key)) {
        ssize_t size = fgetxattr(from, key, chunk, sizeof(chunk));
        if (size < 0)
            continue; /* removed meanwhile, or not readable */
        if (fsetxattr(to, key, chunk, (size_t)size, 0) < 0 && errno != ENOTSUP && errno != EPERM &&
            errno != EACCES)
            return copy_fault(in, errno, "fsetxattr", name);
    }
    return 0;
}

/* Set the owner before mode and attributes: chown clears set-id bits and security.capability. */
static int copy_meta(struct init *in, int from, int to, const char *name)
{
    struct stat st;

    if (fstat(from, &st) < 0)
        return copy_fault(in, errno, "fstat", name);
    if (fchown(to, st.st_uid, st.st_gid) < 0)
        return copy_fault(in, errno, "fchown", name);
    int ret = copy_xattrs(in, from, to, name);
    if (ret < 0)
        return ret;
    const struct timespec times[2] = {st.st_atim, st.st_mtim};
    if (fchmod(to, st.st_mode & 07777) < 0 || futimens(to, times) < 0)
        return copy_fault(in, errno, "fchmod", name);
    return 0;
}

/* Find the next extent of data from *at on, and its end.  Returns 0 if only a hole is left.  A
 * filesystem without support for holes has one extent. */
static int next_data(int from, off_t size, off_t *at, off_t *end)
{
    off_t data = lseek(from, *at, SEEK_DATA);

    if (data < 0 && errno == ENXIO)
        return 0;
    *end = data < 0 ? -1 : lseek(from, data, SEEK_HOLE);
    *at = data < 0 ? *at : data;
    if (*end < 0 || *end > size)
        *end = size;
    return *at < *end;
}

static int copy_piece(struct init *in, int from, int to, off_t at, off_t end, const char *name)
{
    while (at < end) {
        size_t room = (size_t)(end - at) < sizeof(chunk) ? (size_t)(end - at) : sizeof(chunk);
        ssize_t have = pread(from, chunk, room, at);
        if (have < 0 && errno == EINTR)
            continue;
        if (have <= 0)
            return have < 0 ? copy_fault(in, errno, "read", name) : 0; /* truncated meanwhile */
        for (ssize_t done = 0, n; done < have; done += n) {
            n = pwrite(to, chunk + done, (size_t)(have - done), at + done);
            if (n == 0 || (n < 0 && errno != EINTR))
                return copy_fault(in, n ? errno : EIO, "write", name);
            n = n < 0 ? 0 : n;
        }
        at += have;
    }
    return 0;
}

/* Keep holes: a small image must not become gigabytes in memory.  Copy only the initial size: a
 * process that shares the image could append faster than we copy. */
static int copy_bytes(struct init *in, int from, int to, const char *name)
{
    struct stat st;
    off_t at = 0, end;

    if (fstat(from, &st) < 0)
        return copy_fault(in, errno, "fstat", name);
    for (; at < st.st_size && next_data(from, st.st_size, &at, &end); at = end) {
        int ret = copy_piece(in, from, to, at, end, name);
        if (ret < 0)
            return ret;
    }
    return ftruncate(to, st.st_size) < 0 ? copy_fault(in, errno, "ftruncate", name) : 0;
}

static int copy_file(struct init *in, int source, int to, const char *name)
{
    int AUTO_CLOSE from = reopen_fd(in, source, O_RDONLY);

    if (from < 0)
        return copy_fault(in, -from, "openat", name);
    int AUTO_CLOSE out = openat(to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (out < 0)
        return copy_fault(in, errno, "openat", name);
    int ret = copy_bytes(in, from, out, name);
    return ret == 0 ? copy_meta(in, from, out, name) : ret;
}

static int copy_link(struct init *in, const struct stat *st, int source, int to, const char *name)
{
    char target[PATH_MAX];
    const struct timespec times[2] = {st->st_atim, st->st_mtim};
    ssize_t len = readlinkat(source, "", target, sizeof(target) - 1);

    if (len < 0)
        return copy_fault(in, errno, "readlinkat", name);
    target[len] = 0;
    if (symlinkat(target, to, name) < 0 ||
        fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0 ||
        utimensat(to, name, times, AT_SYMLINK_NOFOLLOW) < 0)
        return copy_fault(in, errno, "symlinkat", name);
    return 0;
}

/* Copy a fifo or a device.  Skip a device without permission to create it (user namespace):
 * nobody could use it there. */
static int copy_node(struct init *in, const struct stat *st, int to, const char *name)
{
    mode_t mask = umask(0);
    int ret = (int)sys_ret(mknodat(to, name, st->st_mode, st->st_rdev));

    umask(mask);
    if (ret == -EPERM && !S_ISFIFO(st->st_mode))
        return 0;
    if (ret < 0)
        return copy_fault(in, -ret, "mknodat", name);
    if (fchownat(to, name, st->st_uid, st->st_gid, AT_SYMLINK_NOFOLLOW) < 0)
        return copy_fault(in, errno, "fchownat", name);
    return 0;
}

/* Copy every entry of a directory that is open for reading. */
static int copy_entries(struct init *in, int from, int to, int depth)
{
    _Alignas(struct dirent64) char buf[DIR_BUF];

    if (depth > MAX_DEPTH)
        return fault(in, ELOOP, "getdents64", S_MOUNT_dest, 0,
                     "copying up more than 64 levels of directories");
    for (;;) {
        long len = sys_ret(syscall(SYS_getdents64, (long)from, buf, sizeof(buf)));
        if (len <= 0)
            return len < 0 ? copy_fault(in, (int)-len, "getdents64", ".") : 0;
        for (long at = 0; at < len;) {
            const struct dirent64 *entry = (const void *)(buf + at);
            at += entry->reclen;
            if (strcmp(entry->name, ".") == 0 || strcmp(entry->name, "..") == 0)
                continue;
            int ret = copy_entry(in, from, to, entry->name, depth);
            if (ret < 0)
                return ret;
        }
    }
}

static int copy_dir(struct init *in, int source, int to, const char *name, int depth)
{
    int AUTO_CLOSE from = reopen_fd(in, source, O_RDONLY | O_DIRECTORY);

    if (from < 0)
        return copy_fault(in, -from, "openat", name);
    if (mkdirat(to, name, 0700) < 0)
        return copy_fault(in, errno, "mkdirat", name);
    int AUTO_CLOSE out = openat(to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (out < 0)
        return copy_fault(in, errno, "openat", name);
    int ret = copy_entries(in, from, out, depth + 1);
    return ret == 0 ? copy_meta(in, from, out, name) : ret;
}

static int copy_entry(struct init *in, int from, int to, const char *name, int depth)
{
    const struct sys_open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
                                     .resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV};
    struct stat st;
    int AUTO_CLOSE source = sys_openat2(from, name, &how, sizeof(how));

    /* An earlier mount is not part of the directory (it may be a whole procfs).  Skip it, and an
     * entry that vanished. */
    if (source == -EXDEV || source == -ENOENT)
        return 0;
    if (source < 0)
        return copy_fault(in, -source, "openat2", name);
    if (fstat(source, &st) < 0)
        return copy_fault(in, errno, "fstat", name);
    switch (st.st_mode & S_IFMT) {
    case S_IFREG:
        return copy_file(in, source, to, name);
    case S_IFDIR:
        return copy_dir(in, source, to, name, depth);
    case S_IFLNK:
        return copy_link(in, &st, source, to, name);
    case S_IFSOCK:
        return 0; /* no process listens on a copy */
    default:
        return copy_node(in, &st, to, name);
    }
}

int copy_up(struct init *in, int from, int to)
{
    int AUTO_CLOSE dir = (int)sys_ret(openat(from, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));

    if (dir < 0)
        return copy_fault(in, -dir, "openat", ".");
    return copy_entries(in, dir, to, 0);
}
