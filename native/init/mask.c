/* MASK_PATH and READONLY_PATH: hide a path in the container, or make it read-only.  Both run
 * after PIVOT. */
#include "fsapi.h"

/* A mount that hides paths.  It is attached to the first path and cloned for the others: before
 * Linux 6.15 a mount in our namespace can be cloned, a detached one cannot. */
struct cover {
    int mount;
    int attached;
};
/* All masked directories share one tmpfs, as in runc 1.5 and crun. */
static struct cover empty_dir = {.mount = -1};
static struct cover null_file = {.mount = -1};

/* Returns 1 with the path opened in *fd, 0 if there is nothing to hide, or -errno after fault(). */
static int open_target(struct init *in, const char *path, int arg, int *fd)
{
    *fd = open_in_root(in->rootfd, path, O_PATH);
    if (*fd == -ENOENT || *fd == -ENOTDIR)
        return 0;
    if (*fd < 0)
        return fault(in, -*fd, "openat2", arg, 0, NULL);
    return 1;
}

/* Create an empty read-only directory on the smallest possible tmpfs.  Returns -errno after
 * fault(). */
static int make_empty_dir(struct init *in)
{
    static const char *const options[][2] = {
        {"source", "tmpfs"}, {"nr_blocks", "1"}, {"nr_inodes", "1"}, {"mode", "0555"}};
    char text[MSG_DETAIL];
    int AUTO_CLOSE fs = sys_fsopen("tmpfs", FSOPEN_CLOEXEC);

    if (fs < 0)
        return fault(in, -fs, "fsopen", -1, 0, NULL);
    int ret = sys_fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0);
    for (size_t i = 0; ret == 0 && i < sizeof(options) / sizeof(options[0]); i++)
        ret = sys_fsconfig(fs, FSCONFIG_SET_STRING, options[i][0], options[i][1], 0);
    if (ret == 0)
        ret = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (ret < 0) {
        fs_message(fs, text);
        return fault(in, -ret, "fsconfig", -1, 0, text);
    }
    ret = sys_fsmount(fs, FSMOUNT_CLOEXEC,
                      MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
    return ret < 0 ? fault(in, -ret, "fsmount", -1, 0, NULL) : ret;
}

/* Only a real /dev/null may mask a file.  An image's was a symbolic link, and its target was
 * mounted read-write over the masked path (CVE-2025-31133).  So ROOT takes the host's before the
 * host's mounts disappear, and this checks it again.  It is read-only, because chmod or chown of
 * a masked path would change the host's node.  Writes to the device still work. */
static int take_null(struct init *in)
{
    if (in->nullfd < 0 || is_chr(in->nullfd, 1, 3) != 1)
        return fault(in, ENODEV, "open_tree", -1, 0, "the host has no usable /dev/null");
    int ret = set_attr(in->nullfd, 0, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, 0);
    return ret < 0 ? fault(in, -ret, "mount_setattr", -1, 0, "the /dev/null that masks files") : in->nullfd;
}

static int put_over(struct init *in, struct cover *cover, int fd)
{
    int AUTO_CLOSE clone = cover->attached ? clone_tree(cover->mount, 0) : -1;

    if (cover->attached && clone < 0)
        return fault(in, -clone, "open_tree", S_MASK_PATH_path, 0, NULL);
    int ret = attach(cover->attached ? clone : cover->mount, fd);
    if (ret < 0)
        return fault(in, -ret, "move_mount", S_MASK_PATH_path, 0, NULL);
    cover->attached = 1;
    return 0;
}

static int mask(struct init *in, int fd)
{
    struct stat st;

    if (fstat(fd, &st) < 0)
        return fault(in, errno, "fstat", S_MASK_PATH_path, 0, NULL);
    struct cover *cover = S_ISDIR(st.st_mode) ? &empty_dir : &null_file;
    if (cover->mount < 0)
        cover->mount = S_ISDIR(st.st_mode) ? make_empty_dir(in) : take_null(in);
    return cover->mount < 0 ? cover->mount : put_over(in, cover, fd);
}

static int last_mask(const struct init *in, const struct plan_step *st)
{
    return in->step + 1 >= in->plan->nsteps || st[1].op != OP_MASK_PATH;
}

int op_mask_path(struct init *in, const struct plan_step *st)
{
    int AUTO_CLOSE fd = -1;
    int ret = open_target(in, step_str(in, st, S_MASK_PATH_path), S_MASK_PATH_path, &fd);

    int root = ret > 0 ? same_place(fd, in->rootfd) : 0;
    if (root < 0)
        ret = fault(in, -root, "statx", S_MASK_PATH_path, 0, NULL);
    else if (root)
        ret = fault(in, EINVAL, "move_mount", S_MASK_PATH_path, 0, "not possible for the root itself");
    if (ret > 0)
        ret = mask(in, fd);
    if (last_mask(in, st) && empty_dir.mount >= 0) {
        close(empty_dir.mount);
        empty_dir = (struct cover){.mount = -1};
    }
    return ret;
}

/* Only the top mount becomes read-only, as in runc and crun: configurations rely on a writable
 * mount below a read-only path (/sys/fs/cgroup below /sys).  The clone keeps nosuid, nodev and
 * noexec, because only RDONLY is set. */
int op_readonly_path(struct init *in, const struct plan_step *st)
{
    int AUTO_CLOSE fd = -1;
    int ret = open_target(in, step_str(in, st, S_READONLY_PATH_path), S_READONLY_PATH_path, &fd);

    if (ret <= 0)
        return ret;
    int root = same_place(fd, in->rootfd);
    if (root < 0)
        return fault(in, -root, "statx", S_READONLY_PATH_path, 0, NULL);
    /* A mount over our own root would have no effect: "/" stays the mount below it. */
    if (root)
        return op_root_ro(in, st);
    int AUTO_CLOSE tree = clone_tree(fd, AT_RECURSIVE);
    if (tree < 0)
        return fault(in, -tree, "open_tree", S_READONLY_PATH_path, 0, NULL);
    ret = set_attr(tree, 0, MOUNT_ATTR_RDONLY, 0);
    if (ret < 0)
        return fault(in, -ret, "mount_setattr", S_READONLY_PATH_path, 0, NULL);
    ret = attach(tree, fd);
    return ret < 0 ? fault(in, -ret, "move_mount", S_READONLY_PATH_path, 0, NULL) : 0;
}
