/* What the filesystem files of init (path, mount, copyup, device, pivot, mask, console) share besides init.h.
 *
 * The rule for all of them: a path that may hold a component the container controls is resolved once, by
 * path.c, and everything after that acts on the descriptor.
 */
#ifndef PYRUNC_FSAPI_H
#define PYRUNC_FSAPI_H

#include "sys.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "init.h"

#ifndef MOUNT_ATTR_SIZE_VER0
#define MOUNT_ATTR_SIZE_VER0 32
#endif

/* statx(2): musl 1.2.3 has neither the struct nor the call. */
struct sys_statx {
    uint32_t mask, blksize;
    uint64_t attributes;
    uint32_t nlink, uid, gid;
    uint16_t mode, spare0;
    uint64_t ino, size, blocks, attributes_mask;
    uint64_t times[8];
    uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
    uint64_t mnt_id;
    uint64_t spare[13];
};
_Static_assert(sizeof(struct sys_statx) == 256, "statx");
#define SYS_STATX_INO             0x0100u
#define SYS_STATX_MNT_ID          0x1000u
#define SYS_STATX_ATTR_MOUNT_ROOT 0x2000u

static inline int sys_statx(int fd, unsigned mask, struct sys_statx *out)
{
    return (int)sys_ret(
        syscall(SYS_statx, (long)fd, "", (long)(AT_EMPTY_PATH | AT_NO_AUTOMOUNT), (long)mask, out));
}

/* path.c --------------------------------------------------------------------------------------------- */

/* create_in_root, but a symbolic link anywhere on the way is ELOOP. */
int create_in_root_plain(int rootfd, const char *path, int as_file);
/* Open the directory of our own descriptors in the private procfs, and write the name of `fd` in it.  That
 * name is a magic link, the only kind we follow: what it leads to is decided by the descriptor alone. */
#define FD_NAME 12
int own_fds(struct init *in, int fd, char name[FD_NAME]);
/* Open the object behind an O_PATH descriptor, through the private procfs: its name may mean something else
 * by now. */
int reopen_fd(struct init *in, int fd, int flags);
/* 1: a character device with this number; 0: something else; -errno. */
int is_chr(int fd, unsigned maj, unsigned min);
/* 1: both descriptors are the same object of the same mount; 0: not; -errno. */
int same_place(int a, int b);
/* f_type of the filesystem behind a descriptor, or -errno. */
long fs_magic(int fd);

/* fsapi.c -------------------------------------------------------------------------------------------- */

/* mount_setattr(2) on a descriptor, nothing when there is nothing to change; recursive: AT_RECURSIVE or 0. */
int set_attr(int fd, unsigned recursive, uint64_t set, uint64_t clr);
/* Propagation changes, one per nibble from the lowest: 1 shared, SLAVE, PRIVATE, 4 unbindable, +8 recursive. */
#define SLAVE   2u
#define PRIVATE 3u
int set_propagation(int fd, uint32_t nibbles);
/* Clone the mount behind a descriptor (recursive: AT_RECURSIVE or 0) as a detached tree.  -errno on error. */
int clone_tree(int fd, unsigned recursive);
/* Unmount, lazily, the mount whose root a descriptor is. */
int umount_fd(int fd);
/* Attach a detached tree to what `dest` names. */
int attach(int tree, int dest);
/* The kernel's words about the last failure of an fs-context, without their "e " prefix; "" when there are
 * none. */
void fs_message(int fsfd, char text[MSG_DETAIL]);

/* mount.c -------------------------------------------------------------------------------------------- */

/* A detached tmpfs of our own, `label`: its SELinux context or "".  -errno on error. */
int scratch_tmpfs(const char *label);

/* source.c ------------------------------------------------------------------------------------------- */

/* The tree of a bind mount: a clone of its source, or a clone from before the user namespace was entered.
 * -errno after fault(). */
int open_source(struct init *in, const struct plan_step *st);

/* copyup.c ------------------------------------------------------------------------------------------- */

/* Copy everything below directory `from` (O_PATH) into the empty directory `to` (O_PATH, a detached tmpfs).
 */
int copy_up(struct init *in, int from, int to);

#endif
