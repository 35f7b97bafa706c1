/* Runs ops of init on a real mount table, for integration/test_native_*.py.
 *
 * Usage: fs_driver [-u] [-N] [-S] [-T] [-F ERRNO,..] < script.  Everything happens in a child with mount, pid, uts, ipc and
 * network namespaces of its own; nothing reaches the host.
 *   -u  a user namespace, too
 *   -N  the caller's network namespace
 *   -S  mounts keep their propagation: for a caller that has a mount namespace of its own
 *   -T  the answer to the last op is the list of its system calls
 *   -F  run the script once for each of the numbers and each system call of its last op, with that call failing.
 *       The answer is one line for each: the errno, the call's number and name, and what the op gave, with tabs between
 *
 * Lines of the script, fields separated by tabs:
 *   op   NAME  policy  "n0 n1 .."  s0  s1 ..   run a handler; 0x1f separates the items of a list
 *   try  NAME  ..                              the same, and go on when it fails
 *   COMMAND  argument ..                       look at something, or prepare something: see commands[]
 *
 * Each is answered by one line: "ok", "fail errno call arg item detail", or what was asked for.
 */
#include "../init/fsapi.h"
#include "calls.h"

#include <dirent.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <termios.h>

#define MAX_FIELDS 10
#define MAX_SWEEP  1000

static struct init in;
static struct plan_header header;
static struct plan_step steps[2];
static char strings[65536];
static int console_end, parent, next_op, keep_shared, log_last;
static FILE *out;

static const struct {
    const char *name;
    int code;
    int (*run)(struct init *, const struct plan_step *);
} ops[] = {
    {"OPEN_TREE", OP_OPEN_TREE, op_open_tree},
    {"ENTER_ROOT", OP_ENTER_ROOT, op_enter_root},
    {"MAKE_NODE", OP_MAKE_NODE, op_make_node},
    {"PROPAGATION", OP_PROPAGATION, op_propagation},
    {"ROOT", OP_ROOT, op_root},
    {"MOUNT", OP_MOUNT, op_mount},
    {"DEV_NODE", OP_DEV_NODE, op_dev_node},
    {"DEV_LINK", OP_DEV_LINK, op_dev_link},
    {"PIVOT", OP_PIVOT, op_pivot},
    {"CONSOLE", OP_CONSOLE, op_console},
    {"REOPEN_NULL", OP_REOPEN_NULL, op_reopen_null},
    {"REMOUNT_RO", OP_REMOUNT_RO, op_remount_ro},
    {"ROOT_RO", OP_ROOT_RO, op_root_ro},
    {"ROOT_PROPAGATION", OP_ROOT_PROPAGATION, op_root_propagation},
    {"HOSTNAME", OP_HOSTNAME, op_hostname},
    {"DOMAINNAME", OP_DOMAINNAME, op_domainname},
    {"SYSCTL", OP_SYSCTL, op_sysctl},
    {"READONLY_PATH", OP_READONLY_PATH, op_readonly_path},
    {"MASK_PATH", OP_MASK_PATH, op_mask_path},
    {"STDIO_OWNER", OP_STDIO_OWNER, op_stdio_owner},
    {"APPARMOR", OP_APPARMOR, op_apparmor},
    {"SELINUX", OP_SELINUX, op_selinux},
    {"KEY_LABEL", OP_KEY_LABEL, op_key_label},
    {"MOUNT_LABEL", OP_MOUNT_LABEL, op_mount_label},
};

/* In place of leave.c, so that the sanitizers' reports at the end are made. */
_Noreturn void leave(int status)
{
    _exit(status);
}

static void run_op(char **f, int n, int may_fail)
{
    struct plan_step *st = steps;
    size_t at = 1;

    memset(steps, 0, sizeof(steps));
    /* What is behind the last step is nobody's, whatever it looks like. */
    header.nsteps = next_op ? 2 : 1;
    steps[1].op = next_op ? (uint16_t)next_op : (uint16_t)OP_DEV_NODE;
    steps[1].policy = next_op ? 0 : P_DEV_NODE_MADE;
    memset(&in.fault, 0, sizeof(in.fault));
    in.fault.arg = -1;
    st->policy = (uint16_t)atoi(f[2]);
    char *number = f[3];
    for (int i = 0; i < PLAN_NUMBERS && *number; i++)
        st->n[i] = (uint32_t)strtoul(number, &number, 10);
    for (int i = 4; i < n; i++) {
        size_t len = strlen(f[i]);
        if (at + len + 1 > sizeof(strings))
            abort();
        st->s[i - 4] = (uint32_t)at;
        for (size_t c = 0; c <= len; c++)
            strings[at++] = f[i][c] == 0x1f ? 0 : f[i][c];
    }
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        if (strcmp(ops[i].name, f[1]) != 0)
            continue;
        st->op = (uint16_t)ops[i].code;
        calls.armed = 1;
        int ret = ops[i].run(&in, st);
        calls.armed = 0;
        if (ret == 0) {
            fprintf(out, "ok\n");
            return;
        }
        fprintf(out, "fail\t%s\t%s\t%d\t%u\t%s\n", strerrorname_np(-ret), in.fault.call, in.fault.arg,
                in.fault.item, in.fault.detail);
        if (may_fail)
            return;
        fflush(out);
        _exit(3);
    }
    abort();
}

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

/* The mounts of the namespace as our parent sees them: its root is the host's, whatever ours became. */
static void cmd_parentinfo(char **f)
{
    char rel[64];

    (void)f;
    snprintf(rel, sizeof(rel), "%d/mountinfo", parent);
    put_file(open_proc(&in, rel, O_RDONLY));
}

/* Take another private procfs: one of this mount namespace, which can be mounted on. */
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

/* Open descriptors above stdio; those of opendir and of this function do not count. */
static void cmd_fds(char **f)
{
    int n = 0;

    (void)f;
    for (int fd = 3; fd < 1024; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    fprintf(out, "%d\n", n);
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

/* Put an open_tree clone into a slot of the plan. */
static void cmd_slot(char **f)
{
    int fd = sys_open_tree(AT_FDCWD, f[2], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);

    in.fds[atoi(f[1])] = fd;
    fprintf(out, "%s\n", fd < 0 ? strerrorname_np(-fd) : "ok");
}

/* Make a descriptor of stdio the host's /dev/null, or (other argument) that file. */
static void cmd_stdio(char **f)
{
    int fd = open(f[2], O_RDWR);

    answer(fd < 0 ? -1 : dup2(fd, atoi(f[1])));
    if (fd > 2)
        close(fd);
}

/* What a trap does at a call of that name (at the first one, or after SKIP others): "rename" FROM TO, "link" TEXT PATH;
 * "open" PATH: whatever the call opens is that file in the end. */
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
        trap.fd = open("/", O_PATH | O_CLOEXEC); /* the number that the call will give */
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

/* Take another /dev/null of the host. */
static void cmd_nullfd(char **f)
{
    close(in.nullfd);
    in.nullfd = open(f[1], O_PATH | O_CLOEXEC);
    answer(in.nullfd);
}

/* What came over the console socket, and whether it is the other side of our stdio. */
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
    {"write", 3, cmd_write},
    {"mkdir", 2, cmd_mkdir},
    {"symlink", 3, cmd_symlink},
    {"mount", 6, cmd_mount},
    {"fds", 1, cmd_fds},
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

static void run_line(char *line)
{
    char *f[MAX_FIELDS];
    int n = 0;

    line[strcspn(line, "\n")] = 0;
    for (char *field; (field = strsep(&line, "\t")) && n < MAX_FIELDS;)
        f[n++] = field;
    if (n >= 4 && (strcmp(f[0], "op") == 0 || strcmp(f[0], "try") == 0)) {
        run_op(f, n, f[0][0] == 't' || calls.fail_at >= 0 || calls.log);
        return;
    }
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (strcmp(commands[i].name, f[0]) == 0 && commands[i].fields == n) {
            commands[i].run(f);
            return;
        }
    fprintf(stderr, "not understood: %s\n", f[0]);
    abort();
}

static void write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        perror(path);
    close(fd);
}

/* Like enter: what refers to the host is opened before anything is unshared. */
static void set_up(int user, int net)
{
    int pair[2];

    for (int i = 0; i < MAX_FDS; i++)
        in.fds[i] = -1;
    in.plan = &header;
    in.steps = steps;
    in.strings = strings;
    in.sock = in.error_fd = in.rootfd = -1;
    in.procfd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    in.nullfd = open("/dev/null", O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        _exit(2);
    in.fds[1] = pair[0];
    console_end = pair[1];
    if (user && unshare(CLONE_NEWUSER) < 0) {
        perror("unshare");
        _exit(77);
    }
    if (user) {
        write_file("/proc/self/setgroups", "deny");
        write_file("/proc/self/uid_map", "0 0 1");
        write_file("/proc/self/gid_map", "0 0 1");
    }
    if (unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | (net ? CLONE_NEWNET : 0)) < 0 ||
        (keep_shared ? 0 : mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL)) < 0) {
        perror("unshare");
        _exit(77);
    }
}

/* Up to `stop`, or to the end when it is NULL. */
static void run_script(char *rest, const char *stop)
{
    for (char *line; rest != stop && (line = strsep(&rest, "\n"));) {
        /* MASK_PATH looks whether its row goes on */
        next_op = rest && strncmp(rest, "op\tMASK_PATH\t", 13) == 0 ? OP_MASK_PATH : 0;
        if (*line)
            run_line(line);
        fflush(out);
    }
}

static char *last_line(char *script)
{
    char *end = strrchr(script, '\n');

    return end ? end + 1 : script;
}

static void run_with_log(char *script)
{
    static char nothing[1 << 16];
    FILE *answers = out;
    char *last = last_line(script);

    run_script(script, last);
    FILE *text = out = fmemopen(nothing, sizeof(nothing), "w");
    calls.log = answers;
    run_line(last);
    fclose(text);
    fputc('\n', answers);
    fflush(answers);
    out = answers;
}

/* The script with one call of its last op failing; exit status 9 when there is no such call. */
static _Noreturn void run_with_fault(char *script, long index)
{
    static char nothing[1 << 16];
    FILE *answers = out;
    char *last = last_line(script);

    out = fmemopen(nothing, sizeof(nothing), "w");
    run_script(script, last);
    fclose(out);
    out = answers;
    calls.count = 0;
    calls.fail_at = index;
    if (calls.hit)
        abort(); /* not the last op's */
    FILE *text = out = fmemopen(nothing, sizeof(nothing), "w");
    run_line(last);
    fclose(text);
    if (!calls.hit)
        _exit(9);
    fprintf(answers, "%d\t%ld\t%s\t%s", calls.error, index, calls.hit, nothing);
    fflush(answers);
    _exit(0);
}

static int status_of(pid_t pid)
{
    int status;

    if (pid < 0 || waitpid(pid, &status, 0) < 0)
        return 2;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* In a child, the first process of the new pid namespace; `fault`: the call that fails, -1 for none. */
static int run(char *script, long fault, int user, int net)
{
    set_up(user, net);
    parent = getpid();
    pid_t pid = fork();
    if (pid != 0)
        return status_of(pid);
    setsid();
    if (fault >= 0)
        run_with_fault(script, fault);
    if (log_last)
        run_with_log(script);
    else
        run_script(script, NULL);
    _exit(0);
}

static int sweep(char *script, const char *errors, int user, int net)
{
    int ret = 9;

    for (const char *at = errors; ret == 9 && *at; at += strcspn(at, ",") + (strchr(at, ',') != NULL)) {
        calls.error = atoi(at);
        ret = 0;
        for (long i = 0; i < MAX_SWEEP && ret == 0; i++) {
            pid_t pid = fork();
            if (pid == 0)
                _exit(run(script, i, user, net));
            ret = status_of(pid);
        }
    }
    return ret == 9 ? 0 : ret ? ret : 2;
}

int main(int argc, char **argv)
{
    static char script[1 << 20];
    const char *errors = NULL;
    int user = 0, net = 1;

    for (int i = 1; i < argc; i++) {
        user |= strcmp(argv[i], "-u") == 0;
        net &= strcmp(argv[i], "-N") != 0;
        keep_shared |= strcmp(argv[i], "-S") == 0;
        log_last |= strcmp(argv[i], "-T") == 0;
        if (strcmp(argv[i], "-F") == 0)
            errors = argv[++i];
    }
    size_t len = fread(script, 1, sizeof(script) - 1, stdin);
    while (len > 0 && script[len - 1] == '\n')
        script[--len] = 0;
    if (len == 0)
        return 2;
    int copy = fcntl(1, F_DUPFD_CLOEXEC, 500); /* out of the way of the ops' own descriptors */
    out = fdopen(copy, "w");
    return errors ? sweep(script, errors, user, net) : run(script, -1, user, net);
}
