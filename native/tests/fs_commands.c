/* The commands of fs_driver: they inspect the namespaces, or prepare something in them.  Each
 * has one line of output. */
#include "fs_driver.h"

#include "calls.h"

#include <dirent.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/xattr.h>
#include <termios.h>

static void answer(long ret)
{
    fprintf(out, "%s\n", ret < 0 ? strerrorname_np(errno) : "ok");
}

static void put_stat(int ret, const struct stat *st)
{
    if (ret < 0) {
        answer(ret);
        return;
    }
    fprintf(out, "%06o %u:%u %u:%u %llu\n", st->st_mode, st->st_uid, st->st_gid, major(st->st_rdev),
            minor(st->st_rdev), (unsigned long long)st->st_dev);
}

static void cmd_stat(char **f)
{
    struct stat st;

    put_stat(lstat(f[1], &st), &st);
}

static void cmd_fd(char **f)
{
    struct stat st;

    put_stat(fstat(atoi(f[1]), &st), &st);
}

static void put_file(int fd)
{
    static char buf[1 << 20];
    size_t have = 0;
    ssize_t n;

    if (fd < 0) {
        answer(-1);
        return;
    }
    while (have < sizeof(buf) && (n = read(fd, buf + have, sizeof(buf) - have)) > 0)
        have += (size_t)n;
    close(fd);
    for (size_t i = 0; i < have; i++)
        fputc(buf[i] == '\n' ? 0x1f : buf[i], out);
    fputc('\n', out);
}

static void cmd_cat(char **f)
{
    put_file(open(f[1], O_RDONLY | O_NONBLOCK));
}

static void cmd_mountinfo(char **f)
{
    (void)f;
    put_file(open_proc(&in, "thread-self/mountinfo", O_RDONLY));
}

/* The mounts of the namespace as our parent sees them: its root stays the host's. */
static void cmd_parentinfo(char **f)
{
    char rel[64];

    (void)f;
    snprintf(rel, sizeof(rel), "%d/mountinfo", parent);
    put_file(open_proc(&in, rel, O_RDONLY));
}

/* Replace the private procfs by one of this mount namespace, which can be mounted on. */
static void cmd_procfd(char **f)
{
    close(in.procfd);
    in.procfd = open(f[1], O_PATH | O_DIRECTORY | O_CLOEXEC);
    answer(in.procfd);
}

static void cmd_ls(char **f)
{
    DIR *dir = opendir(f[1]);
    struct dirent *entry;

    if (!dir) {
        answer(-1);
        return;
    }
    while ((entry = readdir(dir)))
        if (entry->d_name[0] != '.')
            fprintf(out, "%s ", entry->d_name);
    fprintf(out, "\n");
    closedir(dir);
}

static void cmd_link(char **f)
{
    char text[4096];
    ssize_t len = readlink(f[1], text, sizeof(text));

    if (len < 0)
        answer(-1);
    else
        fprintf(out, "%.*s\n", (int)len, text);
}

static void cmd_xattr(char **f)
{
    char text[4096];
    ssize_t len = lgetxattr(f[1], f[2], text, sizeof(text));

    if (len < 0)
        answer(-1);
    else
        fprintf(out, "%.*s\n", (int)len, text);
}

static void cmd_write(char **f)
{
    int fd = open(f[1], O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

    answer(fd < 0 ? -1 : write(fd, f[2], strlen(f[2])));
    close(fd);
}

static void cmd_setxattr(char **f)
{
    answer(setxattr(f[1], f[2], f[3], strlen(f[3]), 0));
}

static void cmd_halves(char **f)
{
    (void)f;
    calls.halves = 1;
    fprintf(out, "ok\n");
}

static void cmd_mkdir(char **f)
{
    answer(mkdir(f[1], 0755));
}

static void cmd_symlink(char **f)
{
    answer(symlink(f[1], f[2]));
}

static void cmd_mount(char **f)
{
    answer(mount(f[1], f[2], f[3], strtoul(f[4], NULL, 0), f[5]));
}

/* Count the open descriptors above stdio. */
static void cmd_fds(char **f)
{
    int n = 0;

    (void)f;
    for (int fd = 3; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    fprintf(out, "%d\n", n);
}

/* Ask for the ids of a mount. */
static void cmd_ids(char **f)
{
    int fd = open(f[1], O_PATH | O_CLOEXEC);
    int ret = sys_statx(fd, SYS_STATX_MNT_ID, &ids[0]);

    if (ret == 0)
        ret = sys_statx(fd, SYS_STATX_MNT_ID_UNIQUE, &ids[1]);
    close(fd);
    if (ret < 0)
        fprintf(out, "%s\n", strerrorname_np(-ret));
    else if (ids[1].mask & SYS_STATX_MNT_ID_UNIQUE)
        fprintf(out, "%llu:%llu\n", (unsigned long long)ids[0].mnt_id, (unsigned long long)ids[1].mnt_id);
    else
        fprintf(out, "%llu:\n", (unsigned long long)ids[0].mnt_id);
}

static int reports_end = -1;

/* Give init a parent that reads its records, or ("gone") one that has closed the socket. */
static void cmd_parent(char **f)
{
    int pair[2], ret = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair);

    if (ret == 0) {
        in.sock = pair[0];
        reports_end = pair[1];
    }
    if (ret == 0 && strcmp(f[1], "gone") == 0)
        close(reports_end);
    signal(SIGPIPE, SIG_IGN);
    answer(ret);
}

/* What init has reported with TREE: the step, the value and the text of each record. */
static void cmd_reports(char **f)
{
    struct msg m;

    (void)f;
    while (recv(reports_end, &m, sizeof(m), MSG_DONTWAIT) == (ssize_t)sizeof(m))
        fprintf(out, "%s%u:%u:%s ", m.type == MSG_TREE ? "" : "?", m.step, m.value, m.call);
    fprintf(out, "\n");
}

/* What a failure of the next step would undo. */
static void cmd_undo(char **f)
{
    in.filtered = strcmp(f[1], "filtered") == 0;
    in.step++;
    if (in.undo)
        in.undo(&in);
    in.filtered = 0;
    fprintf(out, in.undo ? "undone\n" : "nothing\n");
}

static void cmd_cwd(char **f)
{
    char buf[4096];

    (void)f;
    fprintf(out, "%s\n", getcwd(buf, sizeof(buf)) ? buf : "?");
}

static void cmd_uname(char **f)
{
    struct utsname name;

    (void)f;
    uname(&name);
    fprintf(out, "%s %s\n", name.nodename, name.domainname);
}

static void cmd_umask(char **f)
{
    fprintf(out, "%03o\n", umask((mode_t)strtoul(f[1], NULL, 8)));
}

/* Put a clone from open_tree(2) into a slot of the plan. */
static void cmd_slot(char **f)
{
    int fd = sys_open_tree(AT_FDCWD, f[2], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    in.fds[atoi(f[1])] = fd;
    fprintf(out, "%s\n", fd < 0 ? strerrorname_np(-fd) : "ok");
}

/* Open a file, such as the host's /dev/null, as a descriptor of stdio. */
static void cmd_stdio(char **f)
{
    int fd = open(f[2], O_RDWR);

    answer(fd < 0 ? -1 : dup2(fd, atoi(f[1])));
    if (fd > 2)
        close(fd);
}

/* The action of a trap at a call of this name (the first one, or after SKIP others): "rename"
 * FROM TO, "link" TEXT PATH, "umount" PATH, "unknown", after which statx has returned nothing, as
 * on an older kernel, or "open" PATH, which replaces the file that the call opens. */
static struct {
    char call[32], what[16], a[4096], b[4096];
    int after, skip, fd;
} trap;

static void spring(const char *name, int after)
{
    if (strcmp(name, trap.call) != 0)
        return;
    if (trap.skip) {
        trap.skip -= after;
        return;
    }
    if (strcmp(trap.what, "open") == 0 && !after) {
        trap.fd = open("/", O_PATH | O_CLOEXEC); /* the number that the call will return */
        close(trap.fd);
        return;
    }
    if (after != trap.after)
        return;
    trap.call[0] = 0;
    int ret = -1, fd = -1;
    if (strcmp(trap.what, "rename") == 0)
        ret = rename(trap.a, trap.b);
    else if (strcmp(trap.what, "link") == 0)
        ret = symlink(trap.a, trap.b);
    else if (strcmp(trap.what, "umount") == 0)
        ret = umount2(trap.a, MNT_DETACH);
    else if (strcmp(trap.what, "unknown") == 0)
        ret = (int)(((struct sys_statx *)calls.args[5])->mask = 0);
    else if (strcmp(trap.what, "open") == 0)
        ret = dup3(fd = open(trap.a, O_PATH | O_CLOEXEC), trap.fd, O_CLOEXEC);
    if (ret < 0) {
        perror(trap.what);
        _exit(2);
    }
    close(fd);
}

static void cmd_trap(char **f)
{
    snprintf(trap.call, sizeof(trap.call), "%s", f[2]);
    trap.skip = atoi(f[3]);
    snprintf(trap.what, sizeof(trap.what), "%s", f[4]);
    snprintf(trap.a, sizeof(trap.a), "%s", f[5]);
    snprintf(trap.b, sizeof(trap.b), "%s", f[6]);
    trap.after = strcmp(f[1], "after") == 0;
    calls.watch = spring;
    fprintf(out, "ok\n");
}

/* Replace the host's /dev/null. */
static void cmd_nullfd(char **f)
{
    close(in.nullfd);
    in.nullfd = open(f[1], O_PATH | O_CLOEXEC);
    answer(in.nullfd);
}

/* Receive from the console socket, and check that it is the master of our stdio. */
static void cmd_console(char **f)
{
    char text[32] = "", space[CMSG_SPACE(sizeof(int))], seen[32] = "";
    struct iovec iov = {.iov_base = text, .iov_len = sizeof(text) - 1};
    struct msghdr msg = {
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
    struct winsize size;
    int master = -1;

    (void)f;
    if (recvmsg(console_end, &msg, MSG_DONTWAIT) < 0) {
        answer(-1);
        return;
    }
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c && c->cmsg_type == SCM_RIGHTS)
        memcpy(&master, CMSG_DATA(c), sizeof(master));
    if (write(1, "hello", 5) != 5 || read(master, seen, sizeof(seen) - 1) != 5 ||
        ioctl(2, TIOCGWINSZ, &size) < 0) {
        answer(-1);
        return;
    }
    fprintf(out, "%s %s %ux%u %s\n", text, seen, size.ws_row, size.ws_col,
            tcgetsid(0) == getsid(0) ? "controlling" : "foreign");
    close(master);
}

static const struct {
    const char *name;
    int fields;
    void (*run)(char **f);
} commands[] = {
    {"stat", 2, cmd_stat},
    {"fd", 2, cmd_fd},
    {"cat", 2, cmd_cat},
    {"ls", 2, cmd_ls},
    {"link", 2, cmd_link},
    {"xattr", 3, cmd_xattr},
    {"setxattr", 4, cmd_setxattr},
    {"halves", 1, cmd_halves},
    {"write", 3, cmd_write},
    {"mkdir", 2, cmd_mkdir},
    {"symlink", 3, cmd_symlink},
    {"mount", 6, cmd_mount},
    {"fds", 1, cmd_fds},
    {"ids", 2, cmd_ids},
    {"parent", 2, cmd_parent},
    {"reports", 1, cmd_reports},
    {"undo", 2, cmd_undo},
    {"cwd", 1, cmd_cwd},
    {"uname", 1, cmd_uname},
    {"umask", 2, cmd_umask},
    {"slot", 3, cmd_slot},
    {"stdio", 3, cmd_stdio},
    {"console", 1, cmd_console},
    {"mountinfo", 1, cmd_mountinfo},
    {"parentinfo", 1, cmd_parentinfo},
    {"procfd", 2, cmd_procfd},
    {"nullfd", 2, cmd_nullfd},
    {"trap", 7, cmd_trap},
};

void run_command(char **f, int n)
{
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, f[0]) == 0 && commands[i].fields == n) {
            commands[i].run(f);
            return;
        }
    fprintf(stderr, "not understood: %s\n", f[0]);
    abort();
}
