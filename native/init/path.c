/* Paths inside the root filesystem and below the private procfs.
 *
 * The content of the root filesystem is untrusted, and it may change while we resolve a path: an
 * image holds any symbolic link, and running containers share its volumes.  No path is checked
 * first and used afterwards (CVE-2021-30465, CVE-2019-18837): the kernel resolves it once inside
 * the root, and all later steps use the descriptor.
 */
#include "fsapi.h"

#include <limits.h>
#include <string.h>
#include <sys/statfs.h>

#include "text.h"

#define MAX_LINKS     40   /* the kernel's own limit, MAXSYMLINKS */
#define MAX_RETRIES   128  /* of openat2(2): EAGAIN means that a rename or a mount raced with ".." */
#define MAX_STEPS     4096 /* components of one walk, including those of followed links */
#define MAX_RACES     16   /* a component that is missing for open and exists for create */
#define PROC_ROOT_INO 1    /* the root of every procfs, unlike a directory in it */

static int openat2_retry(int dirfd, const char *path, int flags, uint64_t resolve)
{
    struct sys_open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = resolve};
    int fd = -EAGAIN;

    for (int i = 0; i < MAX_RETRIES && (fd == -EAGAIN || fd == -EINTR); i++)
        fd = sys_openat2(dirfd, path, &how, sizeof(how));
    return fd;
}

int open_in_root(int rootfd, const char *path, int flags)
{
    return openat2_retry(rootfd, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

int open_in_root_plain(int rootfd, const char *path, int flags)
{
    return openat2_retry(rootfd, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS);
}

/* A path resolution in user space, for paths with missing components. */
struct walk {
    int rootfd;
    int fd;              /* the current directory, O_PATH; owned unless it is rootfd */
    int plain;           /* symbolic links are an error */
    unsigned links;      /* followed so far */
    char done[PATH_BUF]; /* path of fd inside the root without links; ".." starts from it */
    char rest[PATH_BUF]; /* the remaining path */
};

static void walk_enter(struct walk *w, int fd)
{
    if (w->fd != w->rootfd)
        close(w->fd);
    w->fd = fd;
}

/* Take the next component off the rest.  Returns its length, 0 at the end, or -errno. */
static int walk_next(struct walk *w, char name[NAME_MAX + 1])
{
    char *start = w->rest;

    while (*start == '/' || (start[0] == '.' && (start[1] == '/' || start[1] == 0)))
        start++;
    size_t len = strcspn(start, "/");
    if (len > NAME_MAX)
        return -ENAMETOOLONG;
    memcpy(name, start, len);
    name[len] = 0;
    char *end = start + len;
    while (*end == '/' || (end[0] == '.' && (end[1] == '/' || end[1] == 0)))
        end++;
    memmove(w->rest, end, strlen(end) + 1);
    return (int)len;
}

/* ".." opens the known path of the parent from the root again. openat(fd, "..") is unsafe:
 * another process may have moved the directory out of the root, and its parent is then the
 * host's. */
static int walk_up(struct walk *w)
{
    char *slash = strrchr(w->done, '/');

    if (slash)
        *slash = 0;
    if (w->done[0] == 0) {
        walk_enter(w, w->rootfd);
        return 0;
    }
    int fd = open_in_root_plain(w->rootfd, w->done, O_PATH | O_DIRECTORY);
    if (fd < 0)
        return fd;
    walk_enter(w, fd);
    return 0;
}

static int walk_down(struct walk *w, const char *name, int fd)
{
    size_t have = strlen(w->done), more = strlen(name);

    if (have + more + 2 > sizeof(w->done)) {
        close(fd);
        return -ENAMETOOLONG;
    }
    w->done[have] = '/';
    memcpy(w->done + have + 1, name, more + 1);
    walk_enter(w, fd);
    return 0;
}

/* Put the target of a link in front of the rest.  Only the text counts, even for the magic links
 * of procfs. */
static int walk_link(struct walk *w, int link)
{
    char text[PATH_BUF];

    if (w->plain || ++w->links > MAX_LINKS)
        return -ELOOP;
    ssize_t len = readlinkat(link, "", text, sizeof(text));
    if (len < 0)
        return -errno;
    size_t rest = strlen(w->rest);
    if ((size_t)len + 1 + rest + 1 > sizeof(w->rest))
        return -ENAMETOOLONG;
    if (len > 0 && text[0] == '/') {
        w->done[0] = 0;
        walk_enter(w, w->rootfd);
    }
    memmove(w->rest + len + 1, w->rest, rest + 1);
    memcpy(w->rest, text, (size_t)len);
    w->rest[len] = '/';
    return 0;
}

/* Open one component, and create it if it is missing.  Never follow a link.  O_EXCL prevents a
 * write through a link that appears in between (CVE-2024-45310). */
static int walk_open(struct walk *w, const char *name, int as_file)
{
    for (int i = 0; i < MAX_RACES; i++) {
        int fd = openat(w->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd >= 0 || errno != ENOENT)
            return fd >= 0 ? fd : -errno;
        if (as_file) {
            fd = openat(w->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
            if (fd >= 0)
                close(fd);
        } else {
            fd = mkdirat(w->fd, name, 0755);
        }
        if (fd < 0 && errno != EEXIST)
            return -errno;
    }
    return -EAGAIN;
}

/* Resolve one component.  Returns 1 if `*out` is the requested file, 0 to continue, or -errno. */
static int walk_step(struct walk *w, const char *name, int as_file, int *out)
{
    struct stat st;
    int last = w->rest[0] == 0;

    if (strcmp(name, "..") == 0)
        return walk_up(w);
    int fd = walk_open(w, name, as_file && last);
    if (fd < 0)
        return fd;
    if (fstat(fd, &st) < 0) {
        int err = -errno;
        close(fd);
        return err;
    }
    if (S_ISDIR(st.st_mode))
        return walk_down(w, name, fd);
    if (S_ISLNK(st.st_mode)) {
        int ret = walk_link(w, fd);
        close(fd);
        return ret;
    }
    if (!as_file || !last) {
        close(fd);
        return -ENOTDIR;
    }
    *out = fd;
    return 1;
}

/* Returns the file, or a new descriptor of the directory (the walk's own may be rootfd). */
static int walk_all(struct walk *w, int as_file)
{
    char name[NAME_MAX + 1];
    int fd = -1;

    for (int i = 0; i < MAX_STEPS; i++) {
        int ret = walk_next(w, name);
        if (ret == 0 && as_file)
            return -EISDIR;
        if (ret == 0)
            return (int)sys_ret(fcntl(w->fd, F_DUPFD_CLOEXEC, 3));
        if (ret > 0)
            ret = walk_step(w, name, as_file, &fd);
        if (ret != 0)
            return ret < 0 ? ret : fd;
    }
    return -ELOOP;
}

static int create(int rootfd, const char *path, int as_file, int plain)
{
    struct walk w = {.rootfd = rootfd, .fd = rootfd, .plain = plain};
    size_t len = strlen(path);

    if (len >= sizeof(w.rest))
        return -ENAMETOOLONG;
    memcpy(w.rest, path, len + 1);
    /* The caller's umask is arbitrary.  A mount point of mode 0700 would hide the mount from the
     * container's user. */
    mode_t mask = umask(022);
    int ret = walk_all(&w, as_file);
    umask(mask);
    walk_enter(&w, rootfd);
    return ret;
}

/* The kernel opens existing paths in one call.  The walk creates missing ones. */
static int open_or_create(int rootfd, const char *path, int as_file, int plain)
{
    struct stat st;
    uint64_t resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | (plain ? RESOLVE_NO_SYMLINKS : 0u);
    int fd = openat2_retry(rootfd, path, as_file ? O_PATH : O_PATH | O_DIRECTORY, resolve);

    if (fd == -ENOENT && path[0])
        return create(rootfd, path, as_file, plain);
    if (fd >= 0 && as_file && (fstat(fd, &st) < 0 || S_ISDIR(st.st_mode))) {
        close(fd);
        return -EISDIR;
    }
    return fd;
}

int create_in_root(int rootfd, const char *path, int as_file)
{
    return open_or_create(rootfd, path, as_file, 0);
}

int create_in_root_plain(int rootfd, const char *path, int as_file)
{
    return open_or_create(rootfd, path, as_file, 1);
}

int parent_in_root(int rootfd, const char *path, const char **name, char buf[PATH_BUF])
{
    size_t len = strlen(path);

    while (len > 0 && path[len - 1] == '/')
        len--;
    if (len >= PATH_BUF)
        return -ENAMETOOLONG;
    memcpy(buf, path, len);
    buf[len] = 0;
    char *slash = strrchr(buf, '/');
    const char *last = slash ? slash + 1 : buf;
    if (!*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0)
        return -EINVAL;
    if (strlen(last) > NAME_MAX)
        return -ENAMETOOLONG;
    *name = last;
    if (!slash || slash == buf)
        return create_in_root(rootfd, "/", 0);
    *slash = 0;
    return create_in_root(rootfd, buf, 0);
}

/* A write to a file of procfs must not reach another file, inside or outside procfs
 * (CVE-2019-16884, CVE-2025-52881).  So the descriptor must be the root of a real procfs, and
 * the lookup crosses no mount on it. */
int open_proc(struct init *in, const char *rel, int flags)
{
    struct stat st;
    long magic = fs_magic(in->procfd);

    if (magic < 0)
        return (int)magic;
    if (fstat(in->procfd, &st) < 0)
        return -errno;
    if (magic != MAGIC_PROC || st.st_ino != PROC_ROOT_INO)
        return -EXDEV;
    return openat2_retry(in->procfd, rel, flags, RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS);
}

int write_proc(struct init *in, const char *rel, const char *data, size_t len)
{
    int AUTO_CLOSE fd = open_proc(in, rel, O_WRONLY);

    if (fd < 0)
        return fd;
    /* A single write: files of procfs take a whole value or nothing. */
    ssize_t done = sys_write(fd, data, len);
    if (done < 0)
        return -errno;
    return (size_t)done == len ? 0 : -EIO;
}

int own_fds(struct init *in, int fd, char name[FD_NAME])
{
    struct text t = text_in(name, FD_NAME);

    text_num(&t, (uint64_t)fd);
    return open_proc(in, "thread-self/fd", O_PATH | O_DIRECTORY);
}

int reopen_fd(struct init *in, int fd, int flags)
{
    char name[FD_NAME];
    int AUTO_CLOSE dir = own_fds(in, fd, name);

    if (dir < 0)
        return dir;
    return (int)sys_ret(openat(dir, name, flags | O_CLOEXEC));
}

int is_chr(int fd, unsigned maj, unsigned min)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return -errno;
    return S_ISCHR(st.st_mode) && st.st_rdev == makedev(maj, min);
}

int same_place(int a, int b)
{
    struct sys_statx x, y;
    int ret = sys_statx(a, SYS_STATX_INO | SYS_STATX_MNT_ID, &x);

    if (ret == 0)
        ret = sys_statx(b, SYS_STATX_INO | SYS_STATX_MNT_ID, &y);
    if (ret != 0)
        return ret;
    return x.mnt_id == y.mnt_id && x.ino == y.ino;
}

long fs_magic(int fd)
{
    struct statfs fs;

    return fstatfs(fd, &fs) < 0 ? -errno : (long)fs.f_type;
}
