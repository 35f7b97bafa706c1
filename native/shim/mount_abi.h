/* <linux/mount.h> conflicts with glibc's <sys/mount.h>: these are the parts of the ABI that we
 * use. */
#ifndef PYRUNC_MOUNT_ABI_H
#define PYRUNC_MOUNT_ABI_H

#include <stdint.h>

#define NR_open_tree         428
#define NR_fsopen            430
#define NR_fsconfig          431
#define NR_fsmount           432
#define NR_mount_setattr     442
#define OPEN_TREE_CLONE_FLAG 1u
#define FSOPEN_CLOEXEC_FLAG  1u
#define FSMOUNT_CLOEXEC_FLAG 1u
#define CMD_CREATE           6u
#define ATTR_RDONLY          0x1u
#define ATTR_NOSUID          0x2u
#define ATTR_NODEV           0x4u
#define ATTR_IDMAP           0x00100000u

struct attr {
    uint64_t attr_set;
    uint64_t attr_clr;
    uint64_t propagation;
    uint64_t userns_fd;
};

#endif
