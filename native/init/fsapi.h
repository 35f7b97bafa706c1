/* Shared by the filesystem files of init (path, mount, copyup, device, pivot, mask, console),
 * besides init.h.
 *
 * One rule holds for all of them: path.c resolves a path with a component that the container
 * controls once, and everything after that uses the descriptor.
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

/* statx(2): musl 1.2.3 lacks the struct and the call. */
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
#define SYS_STATX_MNT_ID_UNIQUE   0x4000u /* Linux 6.8 */
#define SYS_STATX_ATTR_MOUNT_ROOT 0x2000u

static inline int sys_statx(int fd, unsigned mask, struct sys_statx *out)
{
    return (int)sys_ret(
        syscall(SYS_statx, (long)fd, "", (long)(AT_EMPTY_PATH | AT_NO_AUTOMOUNT), (long)mask, out));
}

/* path.c --------------------------------------------------------------------------------------- */

/* Like create_in_root, but any symbolic link on the way fails with ELOOP. */
int create_in_root_plain(int rootfd, const char *path, int as_file);
/* Open the directory of our own descriptors in the private procfs, and set `name` to the name of
 * `fd` in it.  The name is a magic link, the only kind we follow: the descriptor alone
 * determines its target. */
#define FD_NAME 12
int own_fds(struct init *in, int fd, char name[FD_NAME]);
/* Reopen the object of an O_PATH descriptor through the private procfs, because its name may now
 * refer to another object. */
int reopen_fd(struct init *in, int fd, int flags);
/* Returns 1 for a character device with this number, 0 for anything else, or -errno. */
int is_chr(int fd, unsigned maj, unsigned min);
/* Returns 1 if both descriptors are the same object of the same mount, 0 if not, or -errno. */
int same_place(int a, int b);
/* Returns f_type of the descriptor's filesystem, or -errno. */
long fs_magic(int fd);

/* fsapi.c -------------------------------------------------------------------------------------- */

/* mount_setattr(2) on a descriptor, skipped if nothing changes.  `recursive` is AT_RECURSIVE or
 * 0. */
int set_attr(int fd, unsigned recursive, uint64_t set, uint64_t clr);
/* Change the propagation, once per nibble from the lowest: 1 shared, SLAVE, PRIVATE, 4
 * unbindable, +8 recursive. */
#define SLAVE   2u
#define PRIVATE 3u
int set_propagation(int fd, uint32_t nibbles);
/* Clone the mount of a descriptor as a detached tree.  `recursive` is AT_RECURSIVE or 0.
 * Returns -errno on error. */
int clone_tree(int fd, unsigned recursive);
/* Lazily unmount the mount that has this descriptor as its root. */
int umount_fd(int fd);
/* Attach a detached tree to `dest`. */
int attach(int tree, int dest);
/* The kernel's message about the last failure of an fs context, without its "e " prefix, or "". */
void fs_message(int fsfd, char text[MSG_DETAIL]);

/* mount.c -------------------------------------------------------------------------------------- */

/* Create a detached tmpfs.  `label` is its SELinux context or "".  Returns -errno on error. */
int scratch_tmpfs(const char *label);

/* Open the destination of a MOUNT, and create it if it is missing. Set `*existed` for
 * INHERIT_MODE. Returns -errno after fault(). */
int open_dest(struct init *in, const struct plan_step *st, int as_file, int *existed);
/* Check that the tree may be attached to the destination.  Returns 0, or -errno after fault(). */
int check_dest(struct init *in, const struct plan_step *st, int dest, int tree);
/* Attach the tree of a MOUNT and set its propagation.  Returns 0, or -errno after fault(). */
int attach_at(struct init *in, const struct plan_step *st, int tree, int dest);
/* Create the mount of a MOUNT, detached.  Returns -errno after fault(). */
int build_tree(struct init *in, const struct plan_step *st);

/* Mount at the destination, or change the mount there.  Returns 0, or -errno after fault(). */
int mount_now(struct init *in, const struct plan_step *st);

/* legacy.c ------------------------------------------------------------------------------------- */

#define FS_STRING_MAX 255  /* fsconfig(2) refuses longer values, fs/fsopen.c: strndup_user(_value, 256) */
#define LEGACY_MAX    4096 /* mount(2) takes one page of options */

/* Returns 1 if fsconfig(2) would refuse the source or an option of a MOUNT for its length. */
int too_long_for_fsconfig(struct init *in, const struct plan_step *st);
/* Join the options with commas, as mount(2) expects.  Returns 0, or -errno after fault(). */
int join_data(struct init *in, const struct plan_step *st, char data[LEGACY_MAX]);
/* Create the filesystem with mount(2), detached.  Returns -errno after fault(). */
int legacy_tree(struct init *in, const struct plan_step *st, const char *data);

/* source.c ------------------------------------------------------------------------------------- */

/* Returns the tree of a bind mount: a clone of its source, or a clone taken before we entered
 * the user namespace.  Returns -errno after fault(). */
int open_source(struct init *in, const struct plan_step *st);

/* copyup.c ------------------------------------------------------------------------------------- */

/* Copy everything below the directory `from` (O_PATH) into the empty directory `to` (O_PATH, a
 * detached tmpfs).
 */
int copy_up(struct init *in, int from, int to);

#endif
