/* MOUNT, and mounts for a running container: MOUNT with BUILD and ATTACH, UNMOUNT, LEAVE.
 *
 * BUILD runs in a private copy of the host's mount namespace, where sources are looked up.  ATTACH
 * runs in the container's, where destinations are.  The container cannot see this process: it is
 * not in the container's pid namespace (docs/adr/0031-added-mounts.md).
 */
#include "fsapi.h"

#include <string.h>

#include "text.h"

/* Report the ids of a mount.  The kernel reuses the first one after the mount is gone, and
 * mountinfo has no other. */
static int report_ids(struct init *in, int tree)
{
    struct sys_statx sx;
    char unique[MSG_CALL] = "";
    int ret = sys_statx(tree, SYS_STATX_MNT_ID, &sx);

    if (ret < 0)
        return fault(in, -ret, "statx", -1, 0, NULL);
    uint32_t id = (uint32_t)sx.mnt_id;
    ret = sys_statx(tree, SYS_STATX_MNT_ID_UNIQUE, &sx);
    if (ret == 0 && (sx.mask & SYS_STATX_MNT_ID_UNIQUE)) {
        struct text t = text_in(unique, sizeof(unique));

        text_num(&t, sx.mnt_id);
    }
    send_tree(in, id, unique);
    return 0;
}

static int mount_build(struct init *in, const struct plan_step *st)
{
    uint32_t slot = st->n[N_MOUNT_tree];
    int tree = build_tree(in, st);

    if (tree < 0)
        return tree;
    if (slot == 0 || slot >= MAX_FDS) {
        close(tree);
        return fault(in, EINVAL, "open_tree", -1, 0, "the plan has no slot for the mount");
    }
    if (in->fds[slot] >= 0) /* a replacement for the source that was not needed */
        close(in->fds[slot]);
    in->fds[slot] = tree;
    return st->policy & P_MOUNT_REPORT ? report_ids(in, tree) : 0;
}

/* A tmpfs over an existing directory takes its mode, as in `create`. */
static int take_mode(struct init *in, int tree, int dest)
{
    struct stat st;
    int AUTO_CLOSE fd = reopen_fd(in, tree, O_RDONLY | O_DIRECTORY);

    if (fd < 0)
        return fault(in, -fd, "open", S_MOUNT_dest, 0, "the root of the new filesystem");
    if (fstat(dest, &st) < 0)
        return fault(in, errno, "fstat", S_MOUNT_dest, 0, NULL);
    if (fchmod(fd, st.st_mode & 07777) < 0)
        return fault(in, errno, "fchmod", S_MOUNT_dest, 0, NULL);
    return 0;
}

/* Detach the mount that has this descriptor as its root, which may be a file. */
static int detach(struct init *in, int tree)
{
    char name[FD_NAME];
    int AUTO_CLOSE fds = own_fds(in, tree, name);
    int AUTO_CLOSE back = (int)sys_ret(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));

    if (fds < 0 || back < 0)
        return fds < 0 ? fds : back;
    if (fchdir(fds) < 0)
        return -errno;
    int ret = (int)sys_ret(umount2(name, MNT_DETACH));
    if (fchdir(back) < 0 && ret == 0)
        ret = -errno;
    return ret;
}

/* All mounts of a plan are attached or none.  Newest first, because one may be inside another.  A
 * filter may forbid the calls; it is loaded only by `exec`, whose mount namespace ends with it. */
static void detach_attached(struct init *in)
{
    if (in->filtered)
        return;
    for (uint32_t i = in->step; i-- > 0;) {
        const struct plan_step *st = &in->steps[i];
        int tree = st->op == OP_MOUNT && (st->policy & P_MOUNT_ATTACH) ? slot_fd(in, st->n[N_MOUNT_tree])
                                                                       : -1;

        if (tree >= 0)
            detach(in, tree);
    }
}

static int mount_attach(struct init *in, const struct plan_step *st)
{
    struct stat sb;
    int existed, tree = slot_fd(in, st->n[N_MOUNT_tree]);

    if (tree < 0 || fstat(tree, &sb) < 0)
        return fault(in, EBADF, "move_mount", -1, 0, "the plan names no mount");
    int AUTO_CLOSE dest = open_dest(in, st, !S_ISDIR(sb.st_mode), &existed);
    if (dest < 0)
        return dest;
    int ret = check_dest(in, st, dest, tree);
    if (ret == 0 && existed && (st->policy & P_MOUNT_INHERIT_MODE))
        ret = take_mode(in, tree, dest);
    if (ret < 0)
        return ret;
    in->undo = detach_attached;
    ret = attach_at(in, st, tree, dest);
    if (ret < 0)
        detach(in, tree); /* attached, but not with its propagation; otherwise this does nothing */
    return ret;
}

int op_mount(struct init *in, const struct plan_step *st)
{
    if (st->policy & P_MOUNT_BUILD)
        return mount_build(in, st);
    if (st->policy & P_MOUNT_ATTACH)
        return mount_attach(in, st);
    return mount_now(in, st);
}

/* The path has no symbolic links: it is from mountinfo.  Whatever else is there now is not ours to
 * unmount; the parent checks whether the mount is still somewhere. */
int op_unmount(struct init *in, const struct plan_step *st)
{
    unsigned mask = st->policy & P_UNMOUNT_UNIQUE ? SYS_STATX_MNT_ID_UNIQUE : SYS_STATX_MNT_ID;
    struct sys_statx sx;
    int AUTO_CLOSE fd = open_in_root_plain(in->rootfd, step_str(in, st, S_UNMOUNT_dest), O_PATH);
    int ours = 0;

    /* Only these mean that nothing is there. */
    if (fd < 0 && fd != -ENOENT && fd != -ENOTDIR && fd != -ELOOP)
        return fault(in, -fd, "openat2", S_UNMOUNT_dest, 0, NULL);
    int ret = fd < 0 ? 0 : sys_statx(fd, mask, &sx);
    if (ret < 0)
        return fault(in, -ret, "statx", S_UNMOUNT_dest, 0, NULL);
    if (fd >= 0 && (sx.mask & mask))
        ours = sx.mnt_id == step_u64(st, N_UNMOUNT_id) && (sx.attributes & SYS_STATX_ATTR_MOUNT_ROOT);
    ret = ours ? detach(in, fd) : 0;
    if (ret < 0 && ret != -EINVAL) /* EINVAL: the container has just unmounted it */
        return fault(in, -ret, "umount2", S_UNMOUNT_dest, 0, NULL);
    send_tree(in, (uint32_t)ours, "");
    return 0;
}

int op_leave(struct init *in, const struct plan_step *st)
{
    (void)in, (void)st;
    leave(0);
}
