/* Descriptors, messages and terminals: see shim.h. */
#include "shim.h"
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#define MFD_EXEC        0x0010U
#endif
#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

#define MAX_SENT_FDS 250 /* MAX_FDS of native/init/init.h */

/* Descriptors ---------------------------------------------------------------------------------- */

static int close_error(int fd, int err)
{
    close(fd);
    return -err;
}

int pr_memfd_sealed(const char *name, const void *buf, size_t len, int executable)
{
    /* vm.memfd_noexec (6.3) requires one of the two; older kernels reject both with EINVAL. */
    unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    int seals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
    int fd = memfd_create(name, flags | (executable ? MFD_EXEC : MFD_NOEXEC_SEAL));
    if (fd < 0 && errno == EINVAL)
        fd = memfd_create(name, flags);
    if (fd < 0 && errno == EACCES && executable) { /* vm.memfd_noexec is 2 */
        fd = read_only_image(buf, len);
        return fd == -EPERM ? -EACCES : fd;
    }
    if (fd < 0)
        return -errno;
    int err = write_all(fd, buf, len);
    if (err < 0)
        return close_error(fd, -err);
    /* Unsealed, a container could rewrite the image of the next one (CVE-2019-5736). */
    if (executable && fcntl(fd, F_ADD_SEALS, seals | F_SEAL_EXEC) == 0)
        return fd;
    if (fcntl(fd, F_ADD_SEALS, seals) < 0)
        return close_error(fd, errno);
    return fd;
}

/* Move a descriptor out of the range of numbers that a spawned process needs. */
static int raise_fd(int fd, int min_fd)
{
    if (fd >= min_fd)
        return fd;
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, min_fd);
    int err = errno;
    close(fd);
    return moved < 0 ? -err : moved;
}

int pr_socketpair(int out[2], int min_fd)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    out[0] = raise_fd(pair[0], min_fd);
    if (out[0] < 0)
        return close_error(pair[1], -out[0]);
    out[1] = raise_fd(pair[1], min_fd);
    if (out[1] < 0)
        return close_error(out[0], -out[1]);
    return 0;
}

int pr_close_range(unsigned int first, unsigned int last, unsigned int flags)
{
    return syscall(SYS_close_range, first, last, flags) < 0 ? -errno : 0;
}

int64_t pr_fs_type(const char *path)
{
    struct statfs st;
    return statfs(path, &st) < 0 ? -errno : (int64_t)st.f_type;
}

int64_t pr_fs_type_fd(int fd)
{
    struct statfs st;
    return fstatfs(fd, &st) < 0 ? -errno : (int64_t)st.f_type;
}

/* Messages ------------------------------------------------------------------------------------- */

int pr_send(int sock, const void *msg, size_t len, const int *fds, int nfds)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * MAX_SENT_FDS)];
    } control;
    if (nfds < 0 || nfds > MAX_SENT_FDS)
        return -EINVAL;
    size_t bytes = sizeof(int) * (size_t)nfds;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)msg, .iov_len = len};
    struct msghdr header = {.msg_iov = &iov, .msg_iovlen = 1};
    if (nfds > 0) {
        memset(&control, 0, sizeof control);
        header.msg_control = &control;
        header.msg_controllen = CMSG_SPACE(bytes);
        struct cmsghdr *c = CMSG_FIRSTHDR(&header);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(bytes);
        memcpy(CMSG_DATA(c), fds, bytes);
    }
    ssize_t n;
    do
        n = sendmsg(sock, &header, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : (int)n;
}

int pr_send_fd(int sock, const void *payload, size_t len, int fd)
{
    return pr_send(sock, payload, len, &fd, 1);
}

static int wait_readable(int fd, int timeout_ms)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int ready = poll(&p, 1, timeout_ms);
    if (ready < 0)
        return -errno;
    return ready == 0 ? -ETIMEDOUT : 0;
}

/* Keep the first descriptor of a message in *fd if `fd` is not NULL, and close all others: a
 * peer must not fill our descriptor table. */
static void take_fds(struct msghdr *header, int *fd)
{
    for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int got;
            memcpy(&got, CMSG_DATA(c) + i * sizeof(int), sizeof got);
            if (fd && *fd < 0)
                *fd = got;
            else
                close(got);
        }
    }
}

int pr_recv_fd(int sock, void *msg, size_t len, int timeout_ms, int *fd)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * MAX_SENT_FDS)];
    } control;
    struct iovec iov = {.iov_base = msg, .iov_len = len};
    struct msghdr header = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    if (fd)
        *fd = -1;
    int err = wait_readable(sock, timeout_ms);
    if (err < 0)
        return err;
    ssize_t n = recvmsg(sock, &header, MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    take_fds(&header, fd);
    if (header.msg_flags & MSG_TRUNC) {
        if (fd && *fd >= 0) {
            close(*fd);
            *fd = -1;
        }
        return -EMSGSIZE;
    }
    return (int)n;
}

int pr_recv(int sock, void *msg, size_t len, int timeout_ms)
{
    return pr_recv_fd(sock, msg, len, timeout_ms, NULL);
}

/* Unix socket addresses ------------------------------------------------------------------------ */

/* Fill `addr`. sun_path has 108 bytes, and paths of state directories may be longer: then the
 * parent directory is opened and named through /proc/self/fd. The caller closes *dir_fd (-1:
 * none). Returns the length of the address. */
static int unix_address(const char *path, struct sockaddr_un *addr, int *dir_fd)
{
    size_t len = strlen(path);
    *dir_fd = -1;
    memset(addr, 0, sizeof *addr);
    addr->sun_family = AF_UNIX;
    if (len == 0)
        return -ENOENT;
    if (len < sizeof addr->sun_path) {
        memcpy(addr->sun_path, path, len);
        if (path[0] == '@') {
            addr->sun_path[0] = '\0';
            return (int)(offsetof(struct sockaddr_un, sun_path) + len);
        }
        return (int)sizeof *addr;
    }
    const char *slash = strrchr(path, '/');
    char dir[4096];
    if (path[0] == '@' || !slash || (size_t)(slash - path) >= sizeof dir)
        return -ENAMETOOLONG;
    memcpy(dir, path, (size_t)(slash - path));
    dir[slash - path] = '\0';
    *dir_fd = open(slash == path ? "/" : dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*dir_fd < 0)
        return -errno;
    int n = snprintf(addr->sun_path, sizeof addr->sun_path, "/proc/self/fd/%d/%s", *dir_fd, slash + 1);
    if (n < 0 || (size_t)n >= sizeof addr->sun_path) {
        close(*dir_fd);
        return -ENAMETOOLONG;
    }
    return (int)sizeof *addr;
}

/* A unix socket and what to do with it at an address: `use` returns an errno, 0 for success. */
static int unix_socket(const char *path, int type,
                       int (*use)(int, const struct sockaddr_un *, socklen_t, void *), void *arg)
{
    struct sockaddr_un addr;
    int dir_fd;
    int len = unix_address(path, &addr, &dir_fd);
    if (len < 0)
        return len;
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    int err = fd < 0 ? errno : use(fd, &addr, (socklen_t)len, arg);
    if (dir_fd >= 0)
        close(dir_fd);
    if (err && fd >= 0)
        close(fd);
    return err ? -err : fd;
}

static int connect_to(int fd, const struct sockaddr_un *addr, socklen_t len, void *unused)
{
    (void)unused;
    /* Also limits connect(2), which waits while the peer's backlog is full. */
    struct timeval limit = {.tv_sec = PR_PEER_SECONDS};
    if (setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0)
        return errno;
    int err;
    do /* an interrupted connect leaves a unix socket unchanged */
        err = connect(fd, (const struct sockaddr *)addr, len) < 0 ? errno : 0;
    while (err == EINTR && !pr_signals_caught());
    return err == EAGAIN ? ETIMEDOUT : err;
}

int pr_connect_unix_type(const char *path, int type)
{
    return unix_socket(path, type, connect_to, NULL);
}

int pr_connect_unix(const char *path)
{
    return pr_connect_unix_type(path, SOCK_STREAM);
}

struct listener {
    int type;
    mode_t mode;
};

static int listen_at(int fd, const struct sockaddr_un *addr, socklen_t len, void *arg)
{
    const struct listener *how = arg;
    /* The file inherits the mode of the socket's inode, so it is never wider than requested. */
    if (fchmod(fd, how->mode) < 0 || bind(fd, (const struct sockaddr *)addr, len) < 0)
        return errno;
    if (how->type != SOCK_DGRAM && listen(fd, 16) < 0)
        return errno;
    if (addr->sun_path[0] && chmod(addr->sun_path, how->mode) < 0) /* the umask may have removed bits */
        return errno;
    return 0;
}

int pr_listen_unix(const char *path, int type, unsigned int mode)
{
    struct listener how = {type, (mode_t)mode};
    return unix_socket(path, type, listen_at, &how);
}

int pr_netlink_in(int netns_fd)
{
    int own = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (own < 0)
        return -errno;
    if (setns(netns_fd, CLONE_NEWNET) < 0)
        return close_error(own, errno);
    /* A socket belongs to the namespace it was created in. */
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    int err = fd < 0 ? errno : 0;
    int on = 1; /* extended acknowledgements (Linux 4.12): without them errors have no message */
    if (fd >= 0)
        (void)setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on);
    if (setns(own, CLONE_NEWNET) < 0)
        abort(); /* everything after this would affect the container's network */
    close(own);
    return err ? -err : fd;
}

/* Terminals ------------------------------------------------------------------------------------ */

int pr_get_winsize(int fd, unsigned short out[4])
{
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) < 0)
        return -errno;
    out[0] = size.ws_row;
    out[1] = size.ws_col;
    out[2] = size.ws_xpixel;
    out[3] = size.ws_ypixel;
    return 0;
}

int pr_set_winsize(int fd, unsigned short rows, unsigned short cols)
{
    struct winsize size = {.ws_row = rows, .ws_col = cols};
    return ioctl(fd, TIOCSWINSZ, &size) < 0 ? -errno : 0;
}

_Static_assert(sizeof(struct termios) <= PR_TERMINAL, "PR_TERMINAL is too small");

int pr_terminal_raw(int fd, void *saved, size_t size)
{
    struct termios mode;
    if (size < sizeof mode)
        return -EINVAL;
    if (tcgetattr(fd, &mode) < 0)
        return -errno;
    memcpy(saved, &mode, sizeof mode);
    tcflag_t output = mode.c_oflag;
    cfmakeraw(&mode);
    mode.c_oflag = output;
    return tcsetattr(fd, TCSADRAIN, &mode) < 0 ? -errno : 0;
}

int pr_terminal_restore(int fd, const void *saved, size_t size)
{
    struct termios mode;
    if (size < sizeof mode)
        return -EINVAL;
    memcpy(&mode, saved, sizeof mode);
    return tcsetattr(fd, TCSADRAIN, &mode) < 0 ? -errno : 0;
}

int pr_terminal_clear_onlcr(int fd)
{
    struct termios mode;
    if (tcgetattr(fd, &mode) < 0)
        return -errno;
    mode.c_oflag &= ~(tcflag_t)ONLCR;
    return tcsetattr(fd, TCSANOW, &mode) < 0 ? -errno : 0;
}

int pr_set_child_subreaper(int on)
{
    return prctl(PR_SET_CHILD_SUBREAPER, (unsigned long)on, 0ul, 0ul, 0ul) < 0 ? -errno : 0;
}
