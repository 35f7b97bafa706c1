/* DEV_NODE and DEV_LINK: the content of /dev.
 *
 * /dev of an image may be a symbolic link to anywhere.  Nodes created through it by name ended up
 * on the host (CVE-2026-41579, CVE-2026-47766).  The parent directory is opened once inside the
 * root, and everything is created relative to that descriptor.
 */
#include "fsapi.h"

#include <string.h>

#include "text.h"

#define HAS(bit) ((st->policy & P_DEV_NODE_##bit) != 0)

static int open_node(int dir, const char *name)
{
    return (int)sys_ret(openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
}

/* Returns 1 if the descriptor is the node of this step, 0 for anything else, or -errno. */
static int is_node(const struct plan_step *st, int fd)
{
    struct stat sb;
    mode_t kind = st->n[N_DEV_NODE_kind] & S_IFMT;

    if (fstat(fd, &sb) < 0)
        return -errno;
    if ((sb.st_mode & S_IFMT) != kind)
        return 0;
    return kind == S_IFIFO || sb.st_rdev == makedev(st->n[N_DEV_NODE_major], st->n[N_DEV_NODE_minor]);
}

static int set_owner(struct init *in, const struct plan_step *st, int fd)
{
    if (fchownat(fd, "", st->n[N_DEV_NODE_uid], st->n[N_DEV_NODE_gid], AT_EMPTY_PATH) < 0)
        return fault(in, errno, "fchownat", S_DEV_NODE_path, 0, NULL);
    return 0;
}

/* chmod through the name of the descriptor: fchmod(2) refuses O_PATH, and fchmodat2(2) needs
 * Linux 6.6. */
static int set_mode(struct init *in, const struct plan_step *st, int fd)
{
    char name[FD_NAME];
    int AUTO_CLOSE fds = own_fds(in, fd, name);

    if (fds < 0)
        return fault(in, -fds, "openat2", -1, 0, NULL);
    if (fchmodat(fds, name, st->n[N_DEV_NODE_mode] & 07777, 0) < 0)
        return fault(in, errno, "fchmodat", S_DEV_NODE_path, 0, NULL);
    return 0;
}

static int mismatch(struct init *in)
{
    return fault(in, EEXIST, "mknodat", S_DEV_NODE_path, 0, "already exists and is a different device");
}

/* Keep a node that exists.  A default device of the right kind stays as it is.  A configured one
 * gets its mode and owner. */
static int keep_node(struct init *in, const struct plan_step *st, int fd)
{
    if (fd < 0)
        return fault(in, -fd, "openat", S_DEV_NODE_path, 0, NULL);
    int same = is_node(st, fd);
    if (same < 0)
        return fault(in, -same, "fstat", S_DEV_NODE_path, 0, NULL);
    if (!same)
        return mismatch(in);
    if (HAS(DEFAULT))
        return 0;
    int ret = set_owner(in, st, fd);
    return ret == 0 ? set_mode(in, st, fd) : ret; /* after chown, which clears set-id bits */
}

/* THERE: the directory bound to /dev is usually the host's, where a new node would remain. */
static int find_node(struct init *in, const struct plan_step *st)
{
    int AUTO_CLOSE fd = open_in_root(in->rootfd, step_str(in, st, S_DEV_NODE_path), O_PATH | O_NOFOLLOW);

    if (fd == -ENOENT)
        return fault(in, ENOENT, "openat2", S_DEV_NODE_path, 0,
                     "missing in the directory bound to /dev, where nothing is created");
    return keep_node(in, st, fd);
}

/* --- nodes for a user namespace --------------------------------------------------------------- */

/* A tmpfs of the caller's user namespace holds the nodes of MAKE_NODE: devices only work on a
 * filesystem of the initial user namespace (SB_I_NODEV).  It is detached between steps, and its
 * files are named by number. */
static int node_dir = -1;

static void number_name(char name[FD_NAME], uint32_t number)
{
    struct text t = text_in(name, FD_NAME);

    text_num(&t, number);
}

/* An outer user namespace or a security module may deny the creation.  The host's own node may
 * then be used; DEV_NODE reports if it cannot.  Other errors are temporary, so fail: the
 * container must not get different nodes from run to run. */
static int cannot_make(struct init *in, int err, const char *call)
{
    if (err == EPERM || err == EACCES)
        return 0;
    return fault(in, err, call, S_MAKE_NODE_path, 0, NULL);
}

/* Runs before UNSHARE_USER. */
int op_make_node(struct init *in, const struct plan_step *st)
{
    char name[FD_NAME];

    if (node_dir < 0)
        node_dir = scratch_tmpfs(step_str(in, st, S_MAKE_NODE_label));
    if (node_dir < 0)
        return cannot_make(in, -node_dir, "fsmount");
    number_name(name, st->n[N_MAKE_NODE_number]);
    mode_t mode = (st->n[N_MAKE_NODE_kind] & S_IFMT) | (st->n[N_MAKE_NODE_mode] & 07777);
    mode_t mask = umask(0);
    int ret = (int)sys_ret(
        mknodat(node_dir, name, mode, makedev(st->n[N_MAKE_NODE_major], st->n[N_MAKE_NODE_minor])));
    umask(mask);
    if (ret < 0)
        return cannot_make(in, -ret, "mknodat");
    if (fchownat(node_dir, name, st->n[N_MAKE_NODE_uid], st->n[N_MAKE_NODE_gid], AT_SYMLINK_NOFOLLOW) < 0) {
        int err = errno;
        unlinkat(node_dir, name, 0);
        return cannot_make(in, err, "fchownat");
    }
    return 0;
}

/* Clone the file `name` in node_dir.  Before Linux 6.15 only a mount of our namespace can be
 * cloned, so attach the tmpfs over the root filesystem, whose mount is private, for that time.
 * It cannot be attached twice: if there are more nodes, a clone of it replaces it. */
static int clone_made(struct init *in, const char *name, int last)
{
    int tree, next = -1;
    int ret = attach(node_dir, in->rootfd);

    if (ret < 0)
        return ret;
    tree = sys_open_tree(node_dir, name, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (!last)
        next = clone_tree(node_dir, 0);
    /* If it stayed mounted, setns(2) would use it as the root of the mount namespace. */
    ret = umount_fd(node_dir);
    close(node_dir);
    node_dir = next;
    if (ret < 0 && tree >= 0) {
        close(tree);
        tree = ret;
    }
    return tree;
}

static int last_made(const struct init *in, const struct plan_step *st)
{
    return in->step + 1 >= in->plan->nsteps || st[1].op != OP_DEV_NODE || !(st[1].policy & P_DEV_NODE_MADE);
}

/* Returns NULL if the host's node is what the configuration asks for, otherwise the reason.
 * Owner and mode are the host's and cannot be changed. */
static const char *other_than_asked(const struct plan_step *st, const struct stat *sb)
{
    if (!HAS(ANY_MODE) && (sb->st_mode & 07777) != (st->n[N_DEV_NODE_mode] & 07777))
        return "only the host's own node is available here, and its mode differs";
    if (!HAS(ANY_UID) && sb->st_uid != st->n[N_DEV_NODE_uid])
        return "only the host's own node is available here, and another user owns it";
    if (!HAS(ANY_GID) && sb->st_gid != st->n[N_DEV_NODE_gid])
        return "only the host's own node is available here, and it belongs to another group";
    return NULL;
}

static int clone_host(struct init *in, const struct plan_step *st)
{
    struct stat sb;
    int tree = sys_open_tree(AT_FDCWD, step_str(in, st, S_DEV_NODE_path),
                             OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    if (tree < 0)
        return fault(in, -tree, "open_tree", S_DEV_NODE_path, 0, "no node of the host to bind");
    int same = is_node(st, tree);
    const char *why = NULL;
    if (same > 0)
        why = fstat(tree, &sb) < 0 ? "fstat" : HAS(DEFAULT) ? NULL : other_than_asked(st, &sb);
    if (same > 0 && !why)
        return tree;
    close(tree);
    if (why)
        return fault(in, EPERM, "open_tree", S_DEV_NODE_path, 0, why);
    return fault(in, same < 0 ? -same : ENXIO, "open_tree", S_DEV_NODE_path, 0,
                 "the host's node at this path is a different device");
}

static int clone_node(struct init *in, const struct plan_step *st)
{
    char name[FD_NAME];
    int tree = -ENOENT;

    if (HAS(MADE) && node_dir >= 0) {
        number_name(name, st->n[N_DEV_NODE_number]);
        tree = clone_made(in, name, last_made(in, st));
        if (tree < 0 && tree != -ENOENT)
            return fault(in, -tree, "open_tree", S_DEV_NODE_path, 0, "the node created for the container");
    }
    return tree >= 0 ? tree : clone_host(in, st);
}

/* Without permission for mknod(2) (user namespace), bind a node made earlier or the host's over
 * an empty file. */
static int bind_node(struct init *in, const struct plan_step *st, int dir, const char *name)
{
    struct stat sb;
    int AUTO_CLOSE tree = clone_node(in, st);

    if (tree < 0)
        return tree;
    int ret = set_attr(tree, 0, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0);
    /* A mount that the host puts over its own node must not propagate to the container's. */
    if (ret == 0)
        ret = set_propagation(tree, PRIVATE);
    if (ret < 0)
        return fault(in, -ret, "mount_setattr", S_DEV_NODE_path, 0, NULL);
    int file = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    if (file >= 0)
        close(file);
    else if (errno != EEXIST)
        return fault(in, errno, "openat", S_DEV_NODE_path, 0, NULL);
    int AUTO_CLOSE fd = open_node(dir, name);
    if (fd < 0 || fstat(fd, &sb) < 0)
        return fault(in, fd < 0 ? -fd : errno, "openat", S_DEV_NODE_path, 0, NULL);
    int same = is_node(st, fd);
    if (same == 1 && HAS(DEFAULT))
        return 0;
    if (same != 1 && (!S_ISREG(sb.st_mode) || sb.st_size != 0))
        return mismatch(in);
    ret = attach(tree, fd);
    return ret < 0 ? fault(in, -ret, "move_mount", S_DEV_NODE_path, 0, NULL) : 0;
}

static int make_node(const struct plan_step *st, int dir, const char *name)
{
    mode_t mode = (st->n[N_DEV_NODE_kind] & S_IFMT) | (st->n[N_DEV_NODE_mode] & 07777);
    mode_t mask = umask(0); /* the mode comes from the configuration, whatever the umask */
    int ret = (int)sys_ret(
        mknodat(dir, name, mode, makedev(st->n[N_DEV_NODE_major], st->n[N_DEV_NODE_minor])));

    umask(mask);
    return ret;
}

/* The default nodes need a real directory.  An image whose /dev is a symbolic link wants them
 * elsewhere, and guessing where is unsafe (CVE-2026-41579).  A missing /dev is created. */
static int check_dev(struct init *in)
{
    int AUTO_CLOSE fd = open_in_root_plain(in->rootfd, "/dev", O_PATH | O_DIRECTORY);

    if (fd >= 0 || fd == -ENOENT)
        return 0;
    int trap = fd == -ELOOP || fd == -ENOTDIR;
    return fault(in, -fd, "openat2", S_DEV_NODE_path, 0,
                 trap ? "/dev must be a directory, not a symbolic link" : NULL);
}

int op_dev_node(struct init *in, const struct plan_step *st)
{
    char buf[PATH_BUF];
    const char *name;

    if (HAS(DEFAULT)) {
        int ret = check_dev(in);
        if (ret < 0)
            return ret;
    }
    if (HAS(THERE))
        return find_node(in, st);
    int AUTO_CLOSE dir = parent_in_root(in->rootfd, step_str(in, st, S_DEV_NODE_path), &name, buf);
    if (dir < 0)
        return fault(in, -dir, "openat2", S_DEV_NODE_path, 0, NULL);
    if (HAS(BIND_HOST))
        return bind_node(in, st, dir, name);
    int ret = make_node(st, dir, name);
    if (ret == -EEXIST) {
        int AUTO_CLOSE there = open_node(dir, name);
        return keep_node(in, st, there);
    }
    if (ret == -EPERM && (st->n[N_DEV_NODE_kind] & S_IFMT) != S_IFIFO)
        return bind_node(in, st, dir, name);
    if (ret < 0)
        return fault(in, -ret, "mknodat", S_DEV_NODE_path, 0, NULL);
    int AUTO_CLOSE fd = open_node(dir, name);
    if (fd < 0)
        return fault(in, -fd, "openat", S_DEV_NODE_path, 0, NULL);
    if (is_node(st, fd) != 1)
        return mismatch(in); /* replaced meanwhile: do not change its owner */
    if (st->n[N_DEV_NODE_uid] == 0 && st->n[N_DEV_NODE_gid] == 0)
        return 0;
    return set_owner(in, st, fd);
}

/* An existing name stays, as in runc: an image may bring its own /dev/fd, and a wrong one
 * affects only the container itself. */
int op_dev_link(struct init *in, const struct plan_step *st)
{
    char buf[PATH_BUF];
    const char *name, *target = step_str(in, st, S_DEV_LINK_target);

    if ((st->policy & P_DEV_LINK_IF_TARGET) && faccessat(AT_FDCWD, target, F_OK, 0) < 0)
        return 0;
    int AUTO_CLOSE dir = parent_in_root(in->rootfd, step_str(in, st, S_DEV_LINK_path), &name, buf);
    if (dir < 0)
        return fault(in, -dir, "openat2", S_DEV_LINK_path, 0, NULL);
    if (symlinkat(target, dir, name) < 0 && errno != EEXIST)
        return fault(in, errno, "symlinkat", S_DEV_LINK_path, 0, NULL);
    return 0;
}
