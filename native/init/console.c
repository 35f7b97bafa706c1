/* CONSOLE, REOPEN_NULL, STDIO_OWNER: the container's descriptors 0, 1 and 2. */
#include "fsapi.h"

#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define PTMX_MAJOR 5u
#define PTMX_MINOR 2u
#define PTS_MAJOR  136u /* UNIX98_PTY_SLAVE_MAJOR .. + 7 */
#define PTS_MAJORS 8u

#ifndef TIOCGPTPEER
#define TIOCGPTPEER 0x5441
#endif

/* Open the container's /dev/ptmx.  Check it first, because opening an unknown device has side
 * effects. */
static int open_master(struct init *in)
{
    int AUTO_CLOSE fd = open_in_root(in->rootfd, "/dev/ptmx", O_PATH);

    if (fd < 0)
        return fault(in, -fd, "openat2", -1, 0, "/dev/ptmx");
    if (is_chr(fd, PTMX_MAJOR, PTMX_MINOR) != 1)
        return fault(in, ENODEV, "openat2", -1, 0, "/dev/ptmx is not the pty multiplexer (c 5:2)");
    int master = reopen_fd(in, fd, O_RDWR | O_NOCTTY);
    return master < 0 ? fault(in, -master, "openat", -1, 0, "/dev/ptmx") : master;
}

/* Get the slave from the master, never by its name: a symbolic link could replace /dev/pts/N
 * before the bind (CVE-2025-52565). */
static int open_slave(struct init *in, int master)
{
    struct stat st;
    int unlock = 0;

    if (ioctl(master, TIOCSPTLCK, &unlock) < 0)
        return fault(in, errno, "TIOCSPTLCK", -1, 0, NULL);
    int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0)
        return fault(in, errno, "TIOCGPTPEER", -1, 0, NULL);
    if (fstat(slave, &st) == 0 && S_ISCHR(st.st_mode) && fs_magic(slave) == MAGIC_DEVPTS &&
        major(st.st_rdev) - PTS_MAJOR < PTS_MAJORS)
        return slave;
    close(slave);
    return fault(in, ENODEV, "TIOCGPTPEER", -1, 0, "the terminal is not on a devpts");
}

/* Open /dev/console as a mount point.  A link there would redirect the mount. */
static int open_console(struct init *in)
{
    char buf[PATH_BUF];
    const char *name;
    struct stat st;
    int AUTO_CLOSE dir = parent_in_root(in->rootfd, "/dev/console", &name, buf);

    if (dir < 0)
        return fault(in, -dir, "openat2", -1, 0, "/dev");
    int made = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0620);
    if (made >= 0)
        close(made);
    else if (errno != EEXIST)
        return fault(in, errno, "openat", -1, 0, "/dev/console");
    int fd = openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return fault(in, errno, "openat", -1, 0, "/dev/console");
    if (fstat(fd, &st) == 0 && !S_ISLNK(st.st_mode) && !S_ISDIR(st.st_mode))
        return fd;
    close(fd);
    return fault(in, ELOOP, "openat", -1, 0, "/dev/console is a link or a directory");
}

static int mount_console(struct init *in, int slave)
{
    int AUTO_CLOSE dest = open_console(in);

    if (dest < 0)
        return dest;
    int AUTO_CLOSE tree = clone_tree(slave, 0);
    if (tree < 0)
        return fault(in, -tree, "open_tree", -1, 0, "the terminal");
    int ret = attach(tree, dest);
    return ret < 0 ? fault(in, -ret, "move_mount", -1, 0, "/dev/console") : 0;
}

/* Send one message with one descriptor, like runc; console sockets of callers expect it. */
static int send_master(struct init *in, int sock, int master)
{
    static char name[] = "/dev/ptmx";
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct iovec iov = {.iov_base = name, .iov_len = sizeof(name) - 1};
    const struct msghdr msg = {.msg_iov = &iov,
                               .msg_iovlen = 1,
                               .msg_control = control.space,
                               .msg_controllen = sizeof(control.space)};
    ssize_t done;

    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &master, sizeof(int));
    do
        done = sendmsg(sock, &msg, MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);
    return done < 0 ? fault(in, errno, "sendmsg", -1, 0, "sending the terminal over the console socket") : 0;
}

static int make_stdio(struct init *in, int slave, int controlling)
{
    for (int fd = 0; fd < 3; fd++) {
        /* dup2(2) of a descriptor onto itself would leave it close-on-exec */
        int ret = slave == fd ? fcntl(fd, F_SETFD, 0) : dup2(slave, fd);
        if (ret < 0)
            return fault(in, errno, "dup2", -1, 0, NULL);
    }
    if (controlling && ioctl(0, TIOCSCTTY, 0) < 0)
        return fault(in, errno, "TIOCSCTTY", -1, 0, NULL);
    return 0;
}

static int set_up_slave(struct init *in, const struct plan_step *st, int slave)
{
    uint32_t rows = st->n[N_CONSOLE_rows], cols = st->n[N_CONSOLE_cols];
    struct winsize size = {.ws_row = (unsigned short)rows, .ws_col = (unsigned short)cols};

    if ((rows || cols) && ioctl(slave, TIOCSWINSZ, &size) < 0)
        return fault(in, errno, "TIOCSWINSZ", -1, 0, NULL);
    /* Keep the group of devpts (usually gid=5, mode=620): write(1) and wall(1) need it. */
    if (fchown(slave, st->n[N_CONSOLE_uid], (gid_t)-1) < 0 && errno != EINVAL && errno != EPERM)
        return fault(in, errno, "fchown", -1, 0, "the terminal");
    return (st->policy & P_CONSOLE_MOUNT_CONSOLE) ? mount_console(in, slave) : 0;
}

int op_console(struct init *in, const struct plan_step *st)
{
    uint32_t slot = st->n[N_CONSOLE_fd];
    int sock = slot_fd(in, slot);

    if (sock < 0)
        return fault(in, EBADF, "sendmsg", -1, 0, "the plan came without a console socket");
    int AUTO_CLOSE master = open_master(in);
    if (master < 0)
        return master;
    int slave = open_slave(in, master);
    if (slave < 0)
        return slave;
    int ret = set_up_slave(in, st, slave);
    if (ret == 0)
        ret = send_master(in, sock, master);
    if (ret == 0)
        ret = make_stdio(in, slave, !(st->policy & P_CONSOLE_NOT_CONTROLLING));
    if (slave > 2)
        close(slave);
    close(sock);
    in->fds[slot] = -1;
    return ret;
}

/* The caller's /dev/null is a file of the host, and would keep a host mount reachable as
 * /proc/1/fd/0.  Keep it if the container has no real /dev/null, because another file there may
 * be a trap. */
int op_reopen_null(struct init *in, const struct plan_step *st)
{
    int AUTO_CLOSE null = -1;

    (void)st;
    for (int fd = 0; fd < 3; fd++) {
        int is_null = is_chr(fd, 1, 3);
        if (is_null < 0 && is_null != -EBADF)
            return fault(in, -is_null, "fstat", -1, 0, NULL);
        if (is_null != 1)
            continue;
        if (null < 0) {
            int AUTO_CLOSE path = open_in_root(in->rootfd, "/dev/null", O_PATH);
            if (path == -ENOMEM || path == -EMFILE || path == -ENFILE)
                return fault(in, -path, "openat2", -1, 0, "/dev/null");
            if (path < 0 || is_chr(path, 1, 3) != 1)
                return 0;
            null = reopen_fd(in, path, O_RDWR);
            if (null < 0)
                return fault(in, -null, "openat", -1, 0, "/dev/null");
        }
        if (dup3(null, fd, 0) < 0)
            return fault(in, errno, "dup3", -1, 0, NULL);
    }
    return 0;
}

/* Give stdio to the user, who may reopen /dev/stdout.  A terminal keeps the group of devpts.
 * chown fails on a read-only or foreign filesystem and for unmapped ids; ignore that, because
 * the user could not reopen it before either. */
int op_stdio_owner(struct init *in, const struct plan_step *st)
{
    uid_t uid = st->n[N_STDIO_OWNER_uid];

    for (int fd = 0; fd < 3; fd++) {
        struct stat sb;
        if (fstat(fd, &sb) < 0) {
            if (errno == EBADF)
                continue;
            return fault(in, errno, "fstat", -1, 0, NULL);
        }
        if (S_ISCHR(sb.st_mode) && sb.st_rdev == makedev(1, 3))
            continue; /* shared with the host or other users: never change its owner */
        gid_t gid = isatty(fd) ? (gid_t)-1 : st->n[N_STDIO_OWNER_gid];
        if (sb.st_uid == uid && (gid == (gid_t)-1 || sb.st_gid == gid))
            continue;
        if (fchown(fd, uid, gid) < 0 && errno != EPERM && errno != EROFS && errno != EINVAL &&
            errno != ENOSYS)
            return fault(in, errno, "fchown", -1, 0, "stdio");
    }
    return 0;
}
