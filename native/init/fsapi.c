/* The mount API on descriptors, shared by several ops. */
#include "fsapi.h"

#include "text.h"

#define FS_MESSAGES 8 /* the kernel keeps this many per context */

int set_attr(int fd, unsigned recursive, uint64_t set, uint64_t clr)
{
    struct sys_mount_attr attr = {.attr_set = set, .attr_clr = clr};

    if (!set && !clr)
        return 0;
    return sys_mount_setattr(fd, "", AT_EMPTY_PATH | recursive, &attr, MOUNT_ATTR_SIZE_VER0);
}

int set_propagation(int fd, uint32_t nibbles)
{
    static const uint32_t flags[5] = {0, MS_SHARED, MS_SLAVE, MS_PRIVATE, MS_UNBINDABLE};

    for (; nibbles; nibbles >>= 4) {
        uint32_t kind = nibbles & 7, recursive = nibbles & 8;
        if (kind == 0 || kind > 4)
            return -EINVAL;
        struct sys_mount_attr attr = {.propagation = flags[kind]};
        int ret = sys_mount_setattr(fd, "", AT_EMPTY_PATH | (recursive ? AT_RECURSIVE : 0u), &attr,
                                    MOUNT_ATTR_SIZE_VER0);
        if (ret < 0)
            return ret;
    }
    return 0;
}

int clone_tree(int fd, unsigned recursive)
{
    return sys_open_tree(fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | recursive);
}

int attach(int tree, int dest)
{
    return sys_move_mount(tree, "", dest, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

void fs_message(int fsfd, char text[MSG_DETAIL])
{
    char line[1024];

    text[0] = 0;
    for (int i = 0; i < FS_MESSAGES; i++) {
        ssize_t len = sys_read(fsfd, line, sizeof(line) - 1);
        if (len < 0 && errno == EMSGSIZE)
            continue; /* too long: the kernel dropped it */
        if (len <= 2)
            return;
        while (len > 2 && line[len - 1] == '\n')
            len--;
        line[len] = 0;
        if (line[0] != 'e' && line[0] != 'w')
            continue;
        struct text t = text_in(text, MSG_DETAIL);
        text_str(&t, line + 2);
        if (line[0] == 'e')
            return;
    }
}

int umount_fd(int fd)
{
    int AUTO_CLOSE back = (int)sys_ret(open(".", O_PATH | O_DIRECTORY | O_CLOEXEC));

    if (back < 0)
        return back;
    if (fchdir(fd) < 0)
        return -errno;
    int ret = (int)sys_ret(umount2(".", MNT_DETACH));
    if (fchdir(back) < 0 && ret == 0)
        ret = -errno;
    return ret;
}
