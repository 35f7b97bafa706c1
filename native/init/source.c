/* OPEN_TREE, ENTER_ROOT, and the sources of bind mounts behind directories that the root of a user
 * namespace may not search.
 *
 * The bundle, the state directory and the volumes of engines are below directories of mode 0700.
 * init opens their content with the caller's credentials, and uses it inside the user namespace.
 */
#include "fsapi.h"

#define HAS(bit) ((st->policy & P_MOUNT_##bit) != 0)

/* Runs before UNSHARE_USER.  A failure is not reported here: an earlier mount of the
 * configuration may create the source, or the source may be reachable later.  Otherwise MOUNT
 * reports it. */
int op_open_tree(struct init *in, const struct plan_step *st)
{
    uint32_t slot = st->n[N_OPEN_TREE_slot];
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;

    if (slot < in->plan->nfds || slot >= MAX_FDS || in->fds[slot] >= 0)
        return fault(in, EINVAL, "open_tree", -1, 0, "the plan uses the slot for something else");
    flags |= st->policy & P_OPEN_TREE_RECURSIVE ? AT_RECURSIVE : 0u;
    int tree = sys_open_tree(AT_FDCWD, step_str(in, st, S_OPEN_TREE_path), flags);
    if (tree < 0)
        return 0;
    /* The clone is a peer of the host's mount; a clone taken inside would have the propagation
     * of the new mount namespace.  The container's mounts below it must not propagate to the
     * host. */
    if (set_propagation(tree, st->n[N_OPEN_TREE_propagation]) < 0) {
        close(tree);
        return 0;
    }
    in->fds[slot] = tree;
    return 0;
}

/* Runs before UNSHARE: unshare(2) translates only the root and the working directory into the
 * new mount namespace.  A descriptor would still refer to the old one. */
int op_enter_root(struct init *in, const struct plan_step *st)
{
    if (chdir(step_str(in, st, S_ENTER_ROOT_path)) < 0)
        return fault(in, errno, "chdir", S_ENTER_ROOT_path, 0, NULL);
    return 0;
}

/* Take the descriptor out of the slot of the step.  Returns -EBADF if there is none. */
static int take_tree(struct init *in, const struct plan_step *st)
{
    uint32_t slot = st->n[N_MOUNT_tree];
    int fd = slot_fd(in, slot);

    if (fd < 0)
        return -EBADF;
    in->fds[slot] = -1;
    return fd;
}

int open_source(struct init *in, const struct plan_step *st)
{
    unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    int tree;

    if (HAS(SOURCE_FD)) {
        tree = take_tree(in, st);
        return tree >= 0 ? tree
                         : fault(in, EBADF, "move_mount", S_MOUNT_source, 0,
                                 "the plan came without this descriptor");
    }
    flags |= HAS(RECURSIVE) ? AT_RECURSIVE : 0u;
    /* Try from inside first: only such a clone keeps the host's read-only, nosuid and other
     * flags locked.  EACCES: the source is behind a directory that we may not search.  EINVAL:
     * mounts below it are locked to it in the new mount namespace, and a non-recursive bind
     * would reveal what they cover. */
    tree = sys_open_tree(AT_FDCWD, step_str(in, st, S_MOUNT_source), flags);
    if ((tree == -EACCES || tree == -EINVAL) && st->n[N_MOUNT_tree]) {
        int stand_in = take_tree(in, st);

        if (stand_in >= 0)
            return stand_in;
    }
    if (tree >= 0)
        return tree;
    return fault(in, -tree, "open_tree", S_MOUNT_source, 0,
                 tree == -EINVAL ? "unbindable, or mounts below it are locked and only rbind is possible"
                                 : "");
}
