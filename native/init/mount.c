/* MOUNT and REMOUNT_RO: the mounts of the configuration.
 *
 * A mount is built detached (fsopen .. fsmount, or open_tree with OPEN_TREE_CLONE) and gets its
 * flags before it is attached to the descriptor of its destination.  No path string inside the root
 * filesystem reaches mount(2) (CVE-2021-30465), no process sees a mount without its flags, and a
 * mount that fails leaves nothing to undo.
 */
#include "fsapi.h"

#include <string.h>
#include <sys/statfs.h>

#include "text.h"

#define HAS(bit) ((st->policy & P_MOUNT_##bit) != 0)

static int fs_fault(struct init *in, int err, const char *call, int arg, uint32_t item, int fsfd)
{
    char text[MSG_DETAIL];

    fs_message(fsfd, text);
    return fault(in, err, call, arg, item, text);
}

static int apply_propagation(struct init *in, const struct plan_step *st, int fd)
{
    int ret = set_propagation(fd, st->n[N_MOUNT_propagation]);

    return ret < 0 ? fault(in, -ret, "mount_setattr", S_MOUNT_data, 0, "setting the propagation") : 0;
}

/* The access time is one field: mount_setattr(2) clears all of it or nothing.  A subset of its
 * bits denotes the modes that an option revokes ("atime" revokes noatime); the mount may or may
 * not be in one of them.  A mount with relatime may be treated as one with strictatime, because a
 * cleared field means relatime. */
static int whole_atime(int fd, uint64_t *clr)
{
    uint64_t modes = *clr & MOUNT_ATTR__ATIME, mode = MOUNT_ATTR_STRICTATIME;
    struct statfs sb;

    if (modes == 0 || modes == MOUNT_ATTR__ATIME)
        return 0;
    if (fstatfs(fd, &sb) < 0)
        return -errno;
    if (sb.f_flags & SYS_ST_NOATIME)
        mode = MOUNT_ATTR_NOATIME;
    *clr = modes & mode ? *clr | MOUNT_ATTR__ATIME : *clr & ~(uint64_t)MOUNT_ATTR__ATIME;
    return 0;
}

/* Clear each flag that is not locked.  The others stay set: no option names them.  The access time
 * is always locked if another flag is (kernel: lock_mnt_tree). */
static int clear_unlocked(int fd, uint64_t implied)
{
    static const uint64_t flags[] = {MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV,
                                     MOUNT_ATTR_NOEXEC, MOUNT_ATTR_NOSYMFOLLOW};

    for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
        int ret = implied & flags[i] ? set_attr(fd, 0, 0, flags[i]) : 0;
        if (ret < 0 && ret != -EPERM)
            return ret;
    }
    return 0;
}

/* Set the flags of the mount itself.  A flag that an outer user namespace locked cannot be
 * cleared (mount_namespaces(7)).  This is an error if an option asks for it.  If the other
 * options only imply it, the flag stays. */
static int apply_own_attr(int fd, uint64_t set, uint64_t clr, uint64_t implied)
{
    uint64_t all = clr | implied;
    int ret = whole_atime(fd, &all);

    if (ret == 0)
        ret = set_attr(fd, 0, set, all);
    if (ret != -EPERM || !implied)
        return ret;
    ret = clear_unlocked(fd, implied);
    if (ret == 0)
        ret = whole_atime(fd, &clr);
    return ret == 0 ? set_attr(fd, 0, set, clr) : ret;
}

static int apply_attr(struct init *in, const struct plan_step *st, int fd)
{
    int ret = apply_own_attr(fd, st->n[N_MOUNT_attr_set], st->n[N_MOUNT_attr_clr], st->n[N_MOUNT_implied]);

    if (ret == 0)
        ret = set_attr(fd, AT_RECURSIVE, st->n[N_MOUNT_rec_set], st->n[N_MOUNT_rec_clr]);
    if (ret == 0)
        return 0;
    const char *why = "";
    if (ret == -EPERM)
        why = "a flag that an outer user namespace locked cannot be cleared";
    else if (ret == -EINVAL)
        why = HAS(REMOUNT) ? "not a mount point, or a flag this kernel does not know"
                           : "a flag this kernel or this filesystem does not know";
    return fault(in, -ret, "mount_setattr", -1, 0, why);
}

/* --- the destination -------------------------------------------------------------------------- */

/* Open the destination, and create it if it is missing.  Set `*existed` for INHERIT_MODE. */
int open_dest(struct init *in, const struct plan_step *st, int as_file, int *existed)
{
    const char *dest = step_str(in, st, S_MOUNT_dest);
    int fd;

    *existed = 0;
    if (HAS(INHERIT_MODE)) {
        fd = open_in_root(in->rootfd, dest, O_PATH | O_DIRECTORY);
        *existed = fd >= 0;
        if (fd >= 0)
            return fd;
        if (fd != -ENOENT && fd != -ENOTDIR)
            return fault(in, -fd, "openat2", S_MOUNT_dest, 0, NULL);
    }
    /* Masked paths, sysctls and labels are looked up below /proc and /sys by these names, so a
     * procfs or sysfs must not be mounted behind a symbolic link (CVE-2019-19921; CVE-2023-27561
     * when the check was lost).  A directory in /proc exists or cannot be created: where one can
     * be, the container has mounted something else over it. */
    if (HAS(PLAIN_DIR) && HAS(IN_PROC))
        fd = open_in_root_plain(in->rootfd, dest, O_PATH | O_DIRECTORY);
    else
        fd = HAS(PLAIN_DIR) ? create_in_root_plain(in->rootfd, dest, 0)
                            : create_in_root(in->rootfd, dest, as_file);
    if (fd >= 0)
        return fd;
    if (HAS(PLAIN_DIR) && (fd == -ELOOP || fd == -ENOTDIR))
        return fault(in, ENOTDIR, "openat2", S_MOUNT_dest, 0, "must be mounted on ordinary directory");
    const char *why = "";
    if (fd == -EISDIR)
        why = "the source is not a directory, but the destination is one";
    else if (fd == -ENOTDIR)
        why = "the mount is a directory, but the destination is not one";
    return fault(in, -fd, "openat2", S_MOUNT_dest, 0, why);
}

/* Returns 1 for the root of a procfs.  A whole procfs may be mounted on it, or bound from it. */
static int is_proc_root(int fd)
{
    struct sys_statx sx;

    return fs_magic(fd) == MAGIC_PROC && sys_statx(fd, SYS_STATX_INO, &sx) == 0 && sx.ino == 1;
}

int check_dest(struct init *in, const struct plan_step *st, int dest, int tree)
{
    int same = same_place(dest, in->rootfd);

    if (same < 0)
        return fault(in, -same, "statx", S_MOUNT_dest, 0, NULL);
    if (same && !HAS(NEW_ROOT))
        return fault(in, EINVAL, "move_mount", S_MOUNT_dest, 0, "mounting over / is not possible");
    /* An image's volume that covers part of /proc would receive the writes of labels and sysctls
     * (CVE-2019-16884).  Check the descriptor, not the path. */
    long magic = HAS(IN_PROC) ? 0 : fs_magic(dest);
    if (magic < 0)
        return fault(in, (int)-magic, "fstatfs", S_MOUNT_dest, 0, NULL);
    if (magic != MAGIC_PROC || (is_proc_root(dest) && is_proc_root(tree)))
        return 0;
    return fault(in, EPERM, "move_mount", S_MOUNT_dest, 0, "would cover part of /proc");
}

/* Set the propagation last: an attached mount joins the peer group of its parent, if there is
 * one. */
int attach_at(struct init *in, const struct plan_step *st, int tree, int dest)
{
    int ret = attach(tree, dest);

    if (ret == 0)
        return apply_propagation(in, st, tree);
    const char *why = "";
    if (ret == -ENOTDIR)
        why = "a directory can be mounted on a directory only, a file on a file only";
    else if (ret == -EINVAL)
        why = "not possible there: an unbindable mount below a shared one, or a destination in another mount "
              "namespace";
    else if (ret == -ELOOP)
        why = "the destination is inside the source";
    return fault(in, -ret, "move_mount", S_MOUNT_dest, 0, why);
}

/* --- a new filesystem ------------------------------------------------------------------------- */

/* Set one option: "key=value" or "flag". */
static int config_item(int fsfd, const char *text)
{
    char key[FS_STRING_MAX + 1];
    size_t len = strcspn(text, "=");

    if (len >= sizeof(key))
        return -EINVAL;
    memcpy(key, text, len);
    key[len] = 0;
    if (text[len] == 0)
        return sys_fsconfig(fsfd, FSCONFIG_SET_FLAG, key, NULL, 0);
    return sys_fsconfig(fsfd, FSCONFIG_SET_STRING, key, text + len + 1, 0);
}

static int config_all(struct init *in, const struct plan_step *st, int fsfd)
{
    const char *item = step_str(in, st, S_MOUNT_data);

    for (uint32_t i = 0; i < st->n[L_MOUNT_data]; i++, item = list_next(item)) {
        int ret = config_item(fsfd, item);
        if (ret < 0)
            return fs_fault(in, -ret, "fsconfig", S_MOUNT_data, i, fsfd);
    }
    return 0;
}

/* A tmpfs over an existing directory takes its mode, as in runc: /tmp stays 1777. */
static int config_mode(struct init *in, int fsfd, int dest)
{
    struct stat st;
    char mode[5];

    if (fstat(dest, &st) < 0)
        return fault(in, errno, "fstat", S_MOUNT_dest, 0, NULL);
    for (int i = 0; i < 4; i++)
        mode[i] = (char)('0' + ((st.st_mode >> (9 - 3 * i)) & 7));
    mode[4] = 0;
    int ret = sys_fsconfig(fsfd, FSCONFIG_SET_STRING, "mode", mode, 0);
    return ret < 0 ? fs_fault(in, -ret, "fsconfig", S_MOUNT_fstype, 0, fsfd) : 0;
}

/* fsopen .. fsmount.  Returns a detached mount, or -errno after fault().  `mode_of` is the
 * directory to take the mode from, or -1. */
static int new_mount(struct init *in, const struct plan_step *st, int mode_of)
{
    const char *fstype = step_str(in, st, S_MOUNT_fstype), *source = step_str(in, st, S_MOUNT_source);
    int AUTO_CLOSE fsfd = sys_fsopen(HAS(CGROUP) ? "cgroup2" : fstype, FSOPEN_CLOEXEC);
    int ret = 0;

    if (fsfd < 0)
        return fault(in, -fsfd, "fsopen", S_MOUNT_fstype, 0,
                     fsfd == -ENODEV ? "filesystem type unknown to this kernel" : "");
    /* With CGROUP and HOST_BIND the source is the directory to fall back to, not a name for the
     * mount table. */
    if (source[0])
        ret = sys_fsconfig(fsfd, FSCONFIG_SET_STRING, "source",
                           HAS(CGROUP)      ? "cgroup"
                           : HAS(HOST_BIND) ? fstype
                                            : source,
                           0);
    if (ret < 0)
        return fs_fault(in, -ret, "fsconfig", S_MOUNT_source, 0, fsfd);
    if (mode_of >= 0)
        ret = config_mode(in, fsfd, mode_of);
    if (ret == 0)
        ret = config_all(in, st, fsfd);
    if (ret < 0)
        return ret;
    ret = sys_fsconfig(fsfd, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    if (ret < 0) {
        int blame_source = ret == -ENOENT || ret == -ENOTBLK || ret == -ENXIO || ret == -ENODEV;
        return fs_fault(in, -ret, "fsconfig", blame_source ? S_MOUNT_source : -1, 0, fsfd);
    }
    /* Copying needs a writable mount.  The mount is still detached, and becomes read-only after
     * the copy. */
    uint32_t attr = st->n[N_MOUNT_attr_set] & (HAS(COPY_UP) ? ~(uint32_t)MOUNT_ATTR_RDONLY : ~0u);
    ret = sys_fsmount(fsfd, FSMOUNT_CLOEXEC, attr);
    if (ret < 0)
        return fs_fault(in, -ret, "fsmount", -1, 0, fsfd);
    return ret;
}

/* Mount a replacement for a filesystem that cannot be mounted here.  There are no other
 * fallbacks. */
static int mount_fallback(struct init *in, const struct plan_step *st, int err)
{
    const char *source = step_str(in, st, S_MOUNT_source);
    int tree = err;

    if (in->fault.arg == S_MOUNT_data)
        return err; /* a wrong option is the user's mistake, not a reason to mount something else */
    /* cgroup2 fails with EPERM in a user namespace that does not own the cgroup namespace, and
     * with EBUSY while v1 holds controllers. */
    if (HAS(CGROUP) && source[0] == '/')
        tree = sys_open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    /* sysfs and procfs fail with EPERM in a user namespace that does not own the network or pid
     * namespace.  These namespaces are then the caller's, and the bind shows their content. */
    else if (HAS(HOST_BIND) && err == -EPERM)
        tree = sys_open_tree(AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
    if (tree < 0)
        return err; /* the first failure is the one to report; its fault record is still valid */
    int ret = set_attr(tree, AT_RECURSIVE, st->n[N_MOUNT_attr_set], st->n[N_MOUNT_attr_clr]);
    if (ret < 0) {
        close(tree);
        return fault(in, -ret, "mount_setattr", -1, 0, "on the bind mount that stands in for it");
    }
    return tree;
}

static int do_copy_up(struct init *in, const struct plan_step *st, int dest, int tree)
{
    int ret = copy_up(in, dest, tree);

    if (ret < 0)
        return ret;
    ret = set_attr(tree, 0, st->n[N_MOUNT_attr_set] & MOUNT_ATTR_RDONLY, 0);
    return ret < 0 ? fault(in, -ret, "mount_setattr", -1, 0, "after copying up") : 0;
}

/* The new mount or its replacement, detached; -errno after fault(). */
static int new_tree(struct init *in, const struct plan_step *st, int mode_of)
{
    int tree = new_mount(in, st, mode_of);

    return tree < 0 ? mount_fallback(in, st, tree) : tree;
}

static int apply_recursive(struct init *in, const struct plan_step *st, int tree)
{
    int ret = set_attr(tree, AT_RECURSIVE, st->n[N_MOUNT_rec_set], st->n[N_MOUNT_rec_clr]);

    return ret < 0 ? fault(in, -ret, "mount_setattr", -1, 0, NULL) : 0;
}

static int mount_new(struct init *in, const struct plan_step *st)
{
    int existed;
    int AUTO_CLOSE dest = open_dest(in, st, 0, &existed);

    if (dest < 0)
        return dest;
    int AUTO_CLOSE tree = new_tree(in, st, existed ? dest : -1);
    if (tree < 0)
        return tree;
    int ret = check_dest(in, st, dest, tree);
    if (ret == 0 && HAS(COPY_UP))
        ret = do_copy_up(in, st, dest, tree);
    if (ret == 0)
        ret = apply_recursive(in, st, tree);
    return ret == 0 ? attach_at(in, st, tree, dest) : ret;
}

/* --- options that are too long for fsconfig --------------------------------------------------- */

static int mount_on_fd(struct init *in, const struct plan_step *st, int dest, const char *data)
{
    char name[FD_NAME];
    int AUTO_CLOSE fds = own_fds(in, dest, name);
    int AUTO_CLOSE back = (int)sys_ret(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));

    if (fds < 0 || back < 0)
        return fds < 0 ? fds : back;
    if (fchdir(fds) < 0)
        return -errno;
    int ret = (int)sys_ret(
        mount(step_str(in, st, S_MOUNT_source), name, step_str(in, st, S_MOUNT_fstype), 0, data));
    if (fchdir(back) < 0 && ret == 0)
        ret = -errno;
    return ret;
}

/* An overlay with a long lowerdir: before Linux 6.7 (lowerdir+) only mount(2) accepts it. */
static int mount_legacy(struct init *in, const struct plan_step *st)
{
    char data[LEGACY_MAX];
    int existed;
    int AUTO_CLOSE dest = open_dest(in, st, 0, &existed);

    if (dest < 0)
        return dest;
    int ret = check_dest(in, st, dest, -1);
    if (ret == 0)
        ret = join_data(in, st, data);
    if (ret < 0)
        return ret;
    if (HAS(NEW_ROOT)) { /* the next ROOT step finds the mount on top of the root by its path */
        ret = mount_on_fd(in, st, dest, data);
        return ret < 0 ? fault(in, -ret, "mount", ret == -ENODEV ? S_MOUNT_fstype : -1, 0, NULL) : 0;
    }
    int AUTO_CLOSE tree = legacy_tree(in, st, data);
    if (tree < 0)
        return tree;
    ret = apply_attr(in, st, tree);
    return ret == 0 ? attach_at(in, st, tree, dest) : ret;
}

int scratch_tmpfs(const char *label)
{
    int AUTO_CLOSE fs = sys_fsopen("tmpfs", FSOPEN_CLOEXEC);

    if (fs < 0)
        return fs;
    int ret = sys_fsconfig(fs, FSCONFIG_SET_STRING, "mode", "0755", 0);
    if (ret == 0 && label[0])
        ret = sys_fsconfig(fs, FSCONFIG_SET_STRING, "context", label, 0);
    if (ret == 0)
        ret = sys_fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
    return ret < 0 ? ret : sys_fsmount(fs, FSMOUNT_CLOEXEC, 0);
}

/* --- binds and remounts ----------------------------------------------------------------------- */

/* A bind to /proc has the type "proc".  Labels and sysctls of the container are written there, so
 * only a whole procfs is allowed (CVE-2019-16884). */
static int check_source(struct init *in, const struct plan_step *st, int tree)
{
    if (strcmp(step_str(in, st, S_MOUNT_fstype), "proc") != 0 || is_proc_root(tree))
        return 0;
    return fault(in, EPERM, "open_tree", S_MOUNT_source, 0, "only a procfs may be mounted on /proc");
}

static int mount_bind(struct init *in, const struct plan_step *st)
{
    struct stat sb;
    int existed, ret;
    int AUTO_CLOSE tree = open_source(in, st);

    if (tree < 0)
        return tree;
    if (fstat(tree, &sb) < 0)
        return fault(in, errno, "fstat", S_MOUNT_source, 0, NULL);
    ret = check_source(in, st, tree);
    if (ret < 0)
        return ret;
    int AUTO_CLOSE dest = open_dest(in, st, !S_ISDIR(sb.st_mode), &existed);
    if (dest < 0)
        return dest;
    ret = check_dest(in, st, dest, tree);
    if (ret == 0)
        ret = apply_attr(in, st, tree);
    return ret == 0 ? attach_at(in, st, tree, dest) : ret;
}

/* The mount of the step, detached.  Nothing here depends on the destination, which is in another
 * mount namespace. */
int build_tree(struct init *in, const struct plan_step *st)
{
    char data[LEGACY_MAX];
    int bind = HAS(BIND) || HAS(SOURCE_FD), ret = 0;
    int tree;

    if (bind) {
        tree = open_source(in, st);
    } else if (!HAS(CGROUP) && too_long_for_fsconfig(in, st)) {
        ret = join_data(in, st, data);
        tree = ret < 0 ? ret : legacy_tree(in, st, data);
        bind = 1; /* all flags are still to be set */
    } else {
        tree = new_tree(in, st, -1);
    }
    if (tree < 0)
        return tree;
    ret = bind ? check_source(in, st, tree) : 0;
    if (ret == 0)
        ret = bind ? apply_attr(in, st, tree) : apply_recursive(in, st, tree);
    if (ret == 0)
        return tree;
    close(tree);
    return ret;
}

/* Change the mount at the destination.  With BIND change only its own flags, without BIND also
 * the filesystem's. */
static int remount(struct init *in, const struct plan_step *st)
{
    int ret = 0;
    int AUTO_CLOSE fd = open_in_root(in->rootfd, step_str(in, st, S_MOUNT_dest), O_PATH);

    if (fd < 0)
        return fault(in, -fd, "openat2", S_MOUNT_dest, 0, NULL);
    if (!HAS(BIND)) {
        int AUTO_CLOSE fsfd = sys_fspick(fd, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
        if (fsfd < 0)
            return fault(in, -fsfd, "fspick", S_MOUNT_dest, 0, fsfd == -EINVAL ? "not a mount point" : "");
        ret = config_all(in, st, fsfd);
        if (ret < 0)
            return ret;
        ret = sys_fsconfig(fsfd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0);
        if (ret < 0)
            return fs_fault(in, -ret, "fsconfig", -1, 0, fsfd);
    }
    ret = apply_attr(in, st, fd);
    return ret == 0 ? apply_propagation(in, st, fd) : ret;
}

int mount_now(struct init *in, const struct plan_step *st)
{
    if (HAS(REMOUNT))
        return remount(in, st);
    if (HAS(BIND) || HAS(SOURCE_FD))
        return mount_bind(in, st);
    if (!HAS(CGROUP) && !HAS(COPY_UP) && too_long_for_fsconfig(in, st))
        return mount_legacy(in, st);
    return mount_new(in, st);
}

/* Make a mount read-only that had to be filled first: /dev, and every tmpfs with "ro". */
int op_remount_ro(struct init *in, const struct plan_step *st)
{
    int AUTO_CLOSE fd = open_in_root(in->rootfd, step_str(in, st, S_REMOUNT_RO_dest), O_PATH);

    if (fd < 0)
        return fault(in, -fd, "openat2", S_REMOUNT_RO_dest, 0, NULL);
    int ret = set_attr(fd, 0, st->n[N_REMOUNT_RO_attr_set] | MOUNT_ATTR_RDONLY, 0);
    return ret < 0 ? fault(in, -ret, "mount_setattr", S_REMOUNT_RO_dest, 0,
                           ret == -EINVAL  ? "not a mount point"
                           : ret == -EBUSY ? "a file there is open for writing"
                                           : "")
                   : 0;
}
