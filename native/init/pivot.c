/* PROPAGATION, ROOT, PIVOT, ROOT_RO, ROOT_PROPAGATION: make the container's root filesystem "/". */
#include "fsapi.h"

#include <string.h>

#define MAX_UP      2048 /* maximum depth of a root filesystem: PATH_MAX / 2 */
#define SLAVE_ALL   10u  /* recursive */
#define PRIVATE_ALL 11u

static int open_slash(void)
{
    return (int)sys_ret(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
}

/* Runs before any other mount: from here on none of our mounts reaches the host's peer groups,
 * whatever the host mounts meanwhile (runc 1.2 leaked mounts in that window).  The default is
 * slave, so an unmount on the host propagates here. */
int op_propagation(struct init *in, const struct plan_step *st)
{
    uint32_t nibbles = st->n[N_PROPAGATION_propagation];
    int AUTO_CLOSE fd = open_slash();

    if (fd < 0)
        return fault(in, -fd, "open", -1, 0, NULL);
    int ret = set_propagation(fd, nibbles);
    if (ret < 0)
        return fault(in, -ret, "mount_setattr", -1, 0, ret == -EINVAL ? "/ is not a mount point here" : "");
    return 0;
}

/* The mount that holds the root filesystem must not be shared: pivot_root(2) refuses it, and its
 * peers would receive the bind below.  It is still shared with "shared", and with the
 * non-recursive kinds if it is not the mount of "/".  `kind` is PRIVATE, or SLAVE if
 * linux.rootfsPropagation asks for a root that receives the host's mounts.  SLAVE leaves a
 * private mount private. */
static int unshare_parent(int start, uint32_t kind)
{
    struct sys_statx sx;
    int fd = fcntl(start, F_DUPFD_CLOEXEC, 3), ret = fd < 0 ? -errno : 0;

    for (int i = 0; ret == 0 && i < MAX_UP; i++) {
        ret = sys_statx(fd, SYS_STATX_INO | SYS_STATX_MNT_ID, &sx);
        if (ret == 0 && (sx.attributes & SYS_STATX_ATTR_MOUNT_ROOT)) {
            ret = set_propagation(fd, kind);
            break;
        }
        int up = openat(fd, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (up < 0)
            ret = -errno;
        else if (same_place(up, fd) == 1)
            ret = -EINVAL; /* chrooted into a directory that is not a mount */
        close(fd);
        fd = up;
    }
    if (fd >= 0)
        close(fd);
    return ret;
}

/* Clone the host's /dev/null for MASK_PATH, which runs after the host's mounts are gone.  A
 * descriptor opened before unshare(CLONE_NEWNS) would not do: it belongs to a mount of the old
 * namespace, and open_tree(2) only clones mounts of ours.  A detached clone survives PIVOT.  A
 * missing clone is an error only if a step needs it. */
static void take_null(struct init *in)
{
    int AUTO_CLOSE fd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int tree = fd >= 0 && is_chr(fd, 1, 3) == 1 ? clone_tree(fd, 0) : -1;

    /* A mount that the host puts over its /dev/null must not propagate to the mask. */
    if (tree >= 0 && set_propagation(tree, PRIVATE) < 0) {
        close(tree);
        tree = -1;
    }
    if (in->nullfd >= 0)
        close(in->nullfd);
    in->nullfd = tree < 0 ? -1 : tree;
}

int op_root(struct init *in, const struct plan_step *st)
{
    int in_cwd = (st->policy & P_ROOT_CWD) != 0;
    uint32_t kind = st->policy & P_ROOT_SLAVE ? SLAVE : PRIVATE;
    int AUTO_CLOSE fd = open(in_cwd ? "." : step_str(in, st, S_ROOT_path), O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return fault(in, errno, "open", S_ROOT_path, 0,
                     in_cwd && errno == EACCES
                         ? "permission denied: the root of the user namespace may not enter it"
                         : NULL);
    if (st->policy & P_ROOT_NO_BIND) {
        in->rootfd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        return in->rootfd < 0 ? fault(in, errno, "fcntl", -1, 0, NULL) : 0;
    }
    int callers = (st->policy & P_ROOT_CALLERS) != 0;
    int ret = callers ? 0 : unshare_parent(fd, kind);
    /* The root of a user namespace may lack search permission on the directories above.  The
     * mounts of its mount namespace are already slaves or private (copy_mnt_ns:
     * CL_SHARED_TO_SLAVE). */
    if (ret == -EACCES && in_cwd)
        ret = 0;
    if (ret < 0)
        return fault(in, -ret, "mount_setattr", S_ROOT_path, 0, "the propagation of the mount that holds it");
    int tree = clone_tree(fd, AT_RECURSIVE);
    if (tree < 0)
        return fault(in, -tree, "open_tree", S_ROOT_path, 0,
                     tree == -EINVAL ? "it is on an unbindable mount" : "");
    /* If the parent could not be reached, the clone is still a slave of the host's mount. */
    ret = set_propagation(tree, kind);
    if (ret == 0)
        ret = attach(tree, fd);
    /* Attaching the clone to a shared mount made it shared.  The bind itself propagates to the
     * peers; later mounts inside it must not. */
    if (ret == 0 && callers)
        ret = set_propagation(tree, PRIVATE_ALL);
    if (ret < 0) {
        close(tree);
        return fault(in, -ret, "move_mount", S_ROOT_path, 0, NULL);
    }
    in->rootfd = tree; /* the descriptor follows the mount */
    take_null(in);
    return 0;
}

/* --- PIVOT ------------------------------------------------------------------------------------ */

/* In a chroot, "/" is not the root of the mount namespace.  A pivot there would leave the host's
 * root as the root of the namespace, and a later setns(2) of `exec` would land on it.  setns(2)
 * to our own namespace resets our root to the namespace's root.  It needs CAP_SYS_CHROOT;
 * without that capability we cannot distinguish a chroot from a root. */
static int leave_chroot(struct init *in)
{
    int AUTO_CLOSE fd = openat(in->procfd, "thread-self/ns/mnt", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return fault(in, errno, "open", -1, 0, "/proc/thread-self/ns/mnt");
    if (setns(fd, CLONE_NEWNS) < 0 && errno != EPERM)
        return fault(in, errno, "setns", -1, 0, "the root of the mount namespace");
    return 0;
}

static int pivot(struct init *in)
{
    int AUTO_CLOSE old = open_slash();

    if (old < 0)
        return fault(in, -old, "open", -1, 0, NULL);
    if (fchdir(in->rootfd) < 0)
        return fault(in, errno, "fchdir", -1, 0, NULL);
    int ret = sys_pivot_root(".", ".");
    if (ret < 0)
        return fault(
            in, -ret, "pivot_root", -1, 0,
            ret == -EINVAL ? "/ is the initial ramfs, or a mount on the way is shared: see --no-pivot" : "");
    /* The old root is now mounted on top of the new one.  As a slave, its unmount does not
     * propagate.  Private would do the same, but would keep mounts busy that the host unmounts
     * right now. */
    ret = set_propagation(old, SLAVE_ALL);
    if (ret < 0)
        return fault(in, -ret, "mount_setattr", -1, 0, "the old root");
    /* pivot_root(2) does not specify where "." is afterwards. */
    if (fchdir(old) < 0)
        return fault(in, errno, "fchdir", -1, 0, NULL);
    if (umount2(".", MNT_DETACH) < 0)
        return fault(in, errno, "umount2", -1, 0, "the old root");
    if (chdir("/") < 0)
        return fault(in, errno, "chdir", -1, 0, NULL);
    return 0;
}

/* One line of mountinfo, split in the buffer. */
struct mount_line {
    uint64_t id;
    char *root, *point, *type;
};

static char *next_field(char **at)
{
    char *start = *at, *end = start + strcspn(start, " ");

    *at = *end ? end + 1 : end;
    *end = 0;
    return start;
}

/* Parse "36 35 98:0 /root /point opts [tags] - type source options".  Returns 0 if the line is
 * malformed. */
static int parse_line(char *text, struct mount_line *line)
{
    line->id = 0;
    for (const char *c = next_field(&text); *c >= '0' && *c <= '9'; c++)
        line->id = line->id * 10 + (uint64_t)(*c - '0');
    next_field(&text);
    next_field(&text);
    line->root = next_field(&text);
    line->point = next_field(&text);
    next_field(&text);
    while (*text)
        if (strcmp(next_field(&text), "-") == 0) {
            line->type = next_field(&text);
            return 1;
        }
    return 0;
}

/* Decode "\040" and other octal escapes in place.  The kernel escapes the backslash itself and
 * always writes three digits (seq_escape). */
static void unescape(char *text)
{
    char *to = text;

    for (; *text; text++, to++) {
        if (text[0] == '\\') {
            *to = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
            text += 3;
        } else {
            *to = *text;
        }
    }
    *to = 0;
}

struct reader {
    int fd, err;
    size_t have, at;
    char buf[4 * PATH_BUF];
};

/* Returns the next line without its newline.  Returns NULL at the end, on an error (r->err), and
 * for a line that is longer than the kernel writes. */
static char *next_line(struct reader *r)
{
    for (;;) {
        char *start = r->buf + r->at, *end = memchr(start, '\n', r->have - r->at);
        if (end) {
            *end = 0;
            r->at = (size_t)(end + 1 - r->buf);
            return start;
        }
        memmove(r->buf, start, r->have - r->at);
        r->have -= r->at;
        r->at = 0;
        ssize_t n = sys_read(r->fd, r->buf + r->have, sizeof(r->buf) - r->have);
        r->err = n < 0 ? errno : 0;
        if (n <= 0)
            return NULL;
        r->have += (size_t)n;
    }
}

static int inside(const char *path, const char *dir)
{
    size_t len = strlen(dir);

    return strncmp(path, dir, len) == 0 && (path[len] == 0 || path[len] == '/');
}

/* Unmount one procfs or sysfs of the host, or cover it if it is locked to its parent. */
static int hide(struct init *in, char *point)
{
    unescape(point);
    int fd = open(point, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0; /* below a mount that is already gone */
    if (fd < 0)
        return fault(in, errno, "open", -1, 0, point);
    /* The unmount must not propagate to peers.  EINVAL: it went away with a mount above it. */
    int ret = set_propagation(fd, PRIVATE_ALL);
    close(fd);
    if (ret < 0 && ret != -EINVAL)
        return fault(in, -ret, "mount_setattr", -1, 0, point);
    if (umount2(point, MNT_DETACH) == 0)
        return 0;
    if (errno != EINVAL && errno != EPERM)
        return fault(in, errno, "umount2", -1, 0, point);
    if (mount("tmpfs", point, "tmpfs", MS_RDONLY, "nr_inodes=1,nr_blocks=1") < 0)
        return fault(in, errno, "mount", -1, 0, point);
    return 0;
}

/* After MS_MOVE and chroot the host's mounts still exist above the root.  The kernel lets a
 * container with CAP_SYS_ADMIN mount procfs only if a fully visible procfs exists, so no full
 * procfs or sysfs may stay reachable around the chroot. runc does the same before its MS_MOVE. */
static int hide_host_proc(struct init *in)
{
    struct reader r = {.fd = -1};
    struct mount_line line;
    struct sys_statx sx;
    char rootfs[PATH_BUF] = "";

    int ret = sys_statx(in->rootfd, SYS_STATX_MNT_ID, &sx);
    if (ret < 0)
        return fault(in, -ret, "statx", -1, 0, NULL);
    for (int pass = 0; pass < 2 && ret == 0; pass++) {
        int AUTO_CLOSE fd = open_proc(in, "thread-self/mountinfo", O_RDONLY);
        if (fd < 0)
            return fault(in, -fd, "openat2", -1, 0, "/proc/thread-self/mountinfo");
        r.fd = fd;
        r.have = r.at = 0;
        for (char *text; ret == 0 && (text = next_line(&r));) {
            if (!parse_line(text, &line))
                continue;
            if (pass == 0 && line.id == sx.mnt_id && strlen(line.point) < sizeof(rootfs))
                memcpy(rootfs, line.point, strlen(line.point) + 1);
            int special = strcmp(line.type, "proc") == 0 || strcmp(line.type, "sysfs") == 0;
            if (pass == 1 && special && strcmp(line.root, "/") == 0 && !inside(line.point, rootfs))
                ret = hide(in, line.point);
        }
        if (ret == 0 && r.err)
            return fault(in, r.err, "read", -1, 0, "/proc/thread-self/mountinfo");
        if (pass == 0 && !rootfs[0])
            ret = fault(in, ENOENT, "read", -1, 0, "the root filesystem is not in mountinfo");
    }
    return ret;
}

static int move_root(struct init *in)
{
    int AUTO_CLOSE old = open_slash();

    if (old < 0)
        return fault(in, -old, "open", -1, 0, NULL);
    int ret = hide_host_proc(in);
    if (ret < 0)
        return ret;
    ret = attach(in->rootfd, old);
    return ret < 0 ? fault(in, -ret, "move_mount", -1, 0, "moving the root filesystem to /") : 0;
}

static int chroot_here(struct init *in)
{
    if (fchdir(in->rootfd) < 0)
        return fault(in, errno, "fchdir", -1, 0, NULL);
    if (chroot(".") < 0)
        return fault(in, errno, "chroot", -1, 0, NULL);
    if (chdir("/") < 0)
        return fault(in, errno, "chdir", -1, 0, NULL);
    return 0;
}

int op_pivot(struct init *in, const struct plan_step *st)
{
    int ret = 0;

    if (in->rootfd < 0)
        return fault(in, EBADF, "pivot_root", -1, 0, "no root filesystem was opened");
    if (!(st->policy & P_PIVOT_CHROOT))
        ret = leave_chroot(in);
    if (ret < 0)
        return ret;
    if (!(st->policy & (P_PIVOT_MOVE | P_PIVOT_CHROOT)))
        return pivot(in);
    if (st->policy & P_PIVOT_MOVE)
        ret = move_root(in);
    return ret == 0 ? chroot_here(in) : ret;
}

/* --- FINISH ----------------------------------------------------------------------------------- */

int op_root_ro(struct init *in, const struct plan_step *st)
{
    (void)st;
    int ret = set_attr(in->rootfd, 0, MOUNT_ATTR_RDONLY, 0);
    return ret < 0 ? fault(in, -ret, "mount_setattr", -1, 0,
                           ret == -EBUSY ? "a file in it is open for writing" : "")
                   : 0;
}

int op_root_propagation(struct init *in, const struct plan_step *st)
{
    int ret = set_propagation(in->rootfd, st->n[N_ROOT_PROPAGATION_propagation]);

    return ret < 0 ? fault(in, -ret, "mount_setattr", -1, 0, NULL) : 0;
}
