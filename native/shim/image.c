/* The file that init is executed from on a host that forbids executing memfds
 * (vm.memfd_noexec=2): it is in a private mount. */
#include "image.h"
#include "mount_abi.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int write_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int own_tmpfs(void)
{
    int fs = (int)syscall(NR_fsopen, "tmpfs", FSOPEN_CLOEXEC_FLAG);
    if (fs < 0)
        return -errno;
    int mount = -1;
    if (syscall(NR_fsconfig, fs, CMD_CREATE, NULL, NULL, 0) == 0)
        mount = (int)syscall(NR_fsmount, fs, FSMOUNT_CLOEXEC_FLAG, ATTR_NOSUID | ATTR_NODEV);
    int ret = mount < 0 ? -errno : mount;
    close(fs);
    return ret;
}

static int write_file(int mount, const char *buf, size_t len)
{
    int fd = openat(mount, "init", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0500);
    if (fd < 0)
        return -errno;
    int ret = write_all(fd, buf, len);
    if (ret == 0 &&
        fchmod(fd, 0555) < 0) /* despite the umask: root of a user namespace executes it as well */
        ret = -errno;
    close(fd); /* otherwise execve fails with ETXTBSY */
    return ret;
}

int read_only_image(const void *buf, size_t len)
{
    const struct attr attr = {.attr_set = ATTR_RDONLY};
    int mount = own_tmpfs();
    if (mount < 0)
        return mount;
    int ret = write_file(mount, buf, len);
    /* This is the seal: the mount is in no namespace, so nobody can make it writable
     * (CVE-2019-5736). */
    if (ret == 0 && syscall(NR_mount_setattr, mount, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0)
        ret = -errno;
    if (ret == 0) {
        ret = openat(mount, "init", O_RDONLY | O_CLOEXEC);
        if (ret < 0)
            ret = -errno;
    }
    close(mount);
    return ret;
}
